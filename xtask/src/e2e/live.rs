//! `cargo xtask e2e live`: a machine that runs is moved. A Debian guest under QEMU boots by
//! its own grub, runs PostgreSQL under load, gets the program and the units of the guide,
//! joins a mesh of this machine's nodes, is copied, frozen and cut over; then its disks are
//! compared byte for byte, and the copy has to boot and to hold what was acknowledged.
//!
//! All of it runs in a network namespace that has nothing but its loopback. Not here: how
//! one machine is moved (`moving`), in which cases (`case`), its disks (`image`).

mod case;
mod checks;
mod guest;
mod image;
mod mesh;
mod moving;
mod workload;

use crate::bench::guard::{self, Ended};
use anyhow::{Context, Result, bail};
use case::{CASES, Case};
use image::Base;
use moving::Moved;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Where the files of a run are, for the process that does it.
const INSIDE: &str = "DUNLIN_LIVE_INSIDE";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Live {
    /// Names of cases; all where there is none.
    only: Vec<String>,
    /// Where archives of root file systems are kept between runs.
    cache: PathBuf,
    /// Where the disks and data folders of a run are.
    folder: PathBuf,
    /// Whether they stay.
    keep: bool,
}

impl Live {
    /// Reads the command's arguments.
    pub(super) fn read(arguments: &[&str]) -> Option<Self> {
        let mut live = Live {
            only: vec![],
            cache: cache(),
            folder: std::env::temp_dir(),
            keep: false,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if *argument == "--keep" {
                live.keep = true;
                continue;
            }
            let value = arguments.next()?;
            match *argument {
                "--only" => live.only = value.split(',').map(str::to_owned).collect(),
                "--cache" => live.cache = value.into(),
                "--folder" => live.folder = value.into(),
                _ => return None,
            }
        }
        let is_known = |name: &String| CASES.iter().any(|case| case.name == name);
        live.only.iter().all(is_known).then_some(live)
    }

    /// Runs it; true when every case went as it has to. It runs in a process of its own, so
    /// that nothing is left of it however it ends, but where this one is killed.
    pub(super) fn run(&self, root: &Path) -> Result<bool> {
        if let Some(folder) = std::env::var_os(INSIDE) {
            return self.run_in(root, Path::new(&folder));
        }
        image::check_programs()?;
        let program = crate::bench::mesh::build(root)?;
        let name = format!("dunlin-live-{}", std::process::id());
        let folder = self.folder.join(name);
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let made = Base::make(&folder, &self.cache, &program);
        let ended = made.and_then(|()| {
            let mut command = Command::new("unshare");
            command
                .args([
                    "--net",
                    "sh",
                    "-c",
                    "ip link set lo up && exec \"$@\"",
                    "sh",
                ])
                .arg(std::env::current_exe()?)
                .args(std::env::args_os().skip(1))
                .env(INSIDE, &folder);
            guard::run(command)
        });
        if self.keep {
            eprintln!("disks, logs and data folders are in {}", folder.display());
        } else {
            // What cannot be removed is named by the one who looks.
            let _ = fs::remove_dir_all(&folder);
        }
        match ended.context("moving a machine")? {
            Ended::Exited(status) => Ok(status.success()),
            Ended::Told => bail!("it was told to end: what it started is gone"),
        }
    }

    fn run_in(&self, root: &Path, folder: &Path) -> Result<bool> {
        let chosen = CASES.iter().filter(|case| self.has(case));
        let mut rows = vec![];
        for case in chosen {
            let began = Instant::now();
            let place = folder.join(case.name);
            let moved = case.run(root, folder, &place);
            let secs = began.elapsed().as_secs();
            match &moved {
                Ok(_) => eprintln!("{}: as it has to be, after {secs} s", case.name),
                Err(error) => eprintln!("{}: FAILED after {secs} s: {error:#}", case.name),
            }
            if !self.keep {
                let _ = fs::remove_dir_all(&place);
            }
            rows.push((case.name, secs, moved.ok()));
        }
        print(&rows)?;
        Ok(rows.iter().all(|(_, _, moved)| moved.is_some()))
    }

    fn has(&self, case: &Case) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == case.name)
    }
}

/// `$XDG_CACHE_HOME/dunlin-e2e`, or where that is by default.
fn cache() -> PathBuf {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let folder = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let folder = folder.or_else(home).unwrap_or_else(std::env::temp_dir);
    folder.join("dunlin-e2e")
}

/// The table of all cases.
fn print(rows: &[(&str, u64, Option<Moved>)]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<14} {:<7} {:>6} {:>9} {:>7} {:>9} {:>7} {:>7}",
        "case", "result", "took", "sent", "passes", "frozen", "rows", "files"
    )?;
    for (name, secs, moved) in rows {
        let Some(moved) = moved else {
            writeln!(out, "{name:<14} {:<7} {secs:>4} s", "FAILED")?;
            continue;
        };
        writeln!(
            out,
            "{name:<14} {:<7} {secs:>4} s {:>5} MiB {:>7} {:>7.1} s {:>7} {:>7}",
            "ok",
            moved.sent_bytes >> 20,
            moved.passes,
            moved.frozen.as_secs_f64(),
            moved.rows,
            moved.files
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn arguments_that_name_nothing_are_refused() {
        let live = Live::read(&["--only", "plain,power-cut", "--keep", "--cache", "/c"]).unwrap();
        assert!(live.keep && live.cache == Path::new("/c"));
        let chosen: Vec<_> = CASES.iter().filter(|case| live.has(case)).collect();
        assert_eq!(chosen.len(), 2);
        let all = Live::read(&[]).unwrap();
        assert!(CASES.iter().all(|case| all.has(case)));
        for bad in [
            &["--only", "no-such"][..],
            &["--cache"],
            &["plain"],
            &["--x", "y"],
        ] {
            assert_eq!(Live::read(bad), None, "{bad:?}");
        }
    }
}
