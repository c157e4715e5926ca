//! The corpus in the tree: `corpus/TARGET/seed-NN` as `seeds` writes them, and beside
//! them every input that ever found something.

use crate::targets;
use std::io::Write;
use std::path::{Path, PathBuf};

pub type Failed = Box<dyn std::error::Error>;

/// The folder of one target.
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

/// Everything in the corpus of a target, in order of the names.
pub fn read(target: &str) -> Result<Vec<(String, Vec<u8>)>, Failed> {
    let mut inputs = vec![];
    for entry in std::fs::read_dir(folder(target))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        inputs.push((name, std::fs::read(entry.path())?));
    }
    inputs.sort();
    Ok(inputs)
}

pub fn seed_name(number: usize) -> String {
    format!("seed-{number:02}")
}

/// Writes the seeds of every target.
pub fn write_seeds(out: &mut impl Write) -> Result<bool, Failed> {
    for target in targets::all() {
        let folder = folder(target.name());
        std::fs::create_dir_all(&folder)?;
        for (name, _) in read(target.name())? {
            if name.starts_with("seed-") {
                std::fs::remove_file(folder.join(name))?;
            }
        }
        let seeds = target.seeds();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(seed_name(number)), seed)?;
        }
        writeln!(out, "{:<16} {} seeds", target.name(), seeds.len())?;
    }
    Ok(true)
}
