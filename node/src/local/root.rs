//! The file of a root key, which is kept offline or lies in the founder's folder.
//!
//! Not here: its text (`keys::root`), and what is done with it.

use crate::datadir::{read_private, write_private};
use anyhow::{Context, bail};
use keys::RootKey;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Where a root key is to be written: a file that is not there yet, outside the data
/// folder.
pub(super) fn place_outside(out: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let out = std::path::absolute(out)?;
    let parent = out.parent().unwrap_or(Path::new("/"));
    let parent = parent
        .canonicalize()
        .with_context(|| format!("the root key cannot be written to {}", out.display()))?;
    if parent.starts_with(folder.canonicalize()?) {
        bail!(
            "{} is in the data folder: a root key that is lost with it recovers nothing; give a file elsewhere, best on a medium that is then taken out",
            out.display()
        );
    }
    if out.symlink_metadata().is_ok() {
        bail!(
            "{} is there already and is not overwritten: give another file, or move it away",
            out.display()
        );
    }
    Ok(out)
}

/// Writes the file, for its owner alone.
pub(super) fn write(out: &Path, root: &RootKey) -> anyhow::Result<()> {
    write_private(out, root.to_text().as_bytes()).with_context(|| {
        format!(
            "the root key cannot be written to {}, and no mesh was founded",
            out.display()
        )
    })
}

/// The text of a root key file. It must be its user's alone.
pub fn read_root_key(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let bytes = match read_private(file) {
        Ok(bytes) => bytes,
        Err(crate::datadir::DataDirError::KeyMissing { path }) => bail!(
            "there is no root key file {}: give `root.key` of the founder's folder or a copy of it, or the file that `dunlin mesh init --root-key-out` wrote",
            path.display()
        ),
        Err(error) => return Err(error.into()),
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is no root key file: it is not text", file.display()),
        )
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The root key in a file.
pub(super) fn open(file: &Path) -> anyhow::Result<RootKey> {
    let text = read_root_key(file)?;
    RootKey::from_text(&text).with_context(|| format!("{} is no root key file", file.display()))
}
