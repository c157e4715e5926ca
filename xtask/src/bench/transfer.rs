//! `cargo xtask bench transfer`: a disk from one place to another on this machine, by
//! Dunlin and by what a user would pick instead, one after the other in every round, and
//! the medians of all rounds, held to their limits. Files are in memory (`--folder` names
//! another place).
//!
//! What is measured ends when all is durable at the target; the others are told to flush
//! too. Starting a process is not counted, and what is read is not in memory before, but
//! where the files are. Processor time is that of the whole machine: a figure is good for
//! comparing when nothing else runs.
//!
//! Not here: what is measured (`cases`), how (`contest`), the disks (`disks`).

mod cases;
mod contest;
mod disks;
mod ours;
mod peers;
mod place;
mod said;
mod table;

use crate::bench::guard::{self, Ended};
use crate::bench::link;
use anyhow::{Context, Result, bail};
use cases::{Bench, CASES, Case};
use contest::Contest;
use ours::Program;
use peers::Peers;
use place::Place;
use serde_json::json;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use table::Section;

/// Where the files of a run are, for the process that does it.
const INSIDE: &str = "DUNLIN_BENCH_INSIDE";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transfer {
    rounds: usize,
    folder: PathBuf,
    /// Of the dense disk; the others are multiples of it.
    mib: u64,
    /// Names of cases; all that are not long where there is none.
    only: Vec<String>,
    /// Of the link with delay, in bytes.
    mtu: u16,
    is_json: bool,
}

impl Transfer {
    /// Reads the command's arguments.
    pub(super) fn read(arguments: &[&str]) -> Option<Self> {
        let mut transfer = Transfer {
            rounds: 5,
            folder: PathBuf::from("/dev/shm"),
            mib: 1024,
            only: vec![],
            mtu: 1500,
            is_json: false,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if *argument == "--json" {
                transfer.is_json = true;
                continue;
            }
            let value = arguments.next()?;
            match *argument {
                "--rounds" => transfer.rounds = value.parse().ok()?,
                "--folder" => transfer.folder = value.into(),
                "--mib" => transfer.mib = value.parse().ok()?,
                "--mtu" => transfer.mtu = value.parse().ok()?,
                "--only" => transfer.only = value.split(',').map(str::to_owned).collect(),
                _ => return None,
            }
        }
        let are_known = transfer.only.iter().all(|name| {
            let mut cases = CASES.iter();
            cases.any(|case| case.name == name)
        });
        let is_good = transfer.rounds > 0 && transfer.mib >= 16 && transfer.mtu >= 576;
        (is_good && are_known).then_some(transfer)
    }

    fn has(&self, case: &Case) -> bool {
        match self.only.as_slice() {
            [] => !case.is_long,
            names => names.iter().any(|name| name == case.name),
        }
    }

    /// Runs it; true when every limit was kept. It runs in a process of its own, so that
    /// nothing is left of it however it ends, but where this one is killed.
    pub(super) fn run(&self, root: &Path) -> Result<bool> {
        if let Some(folder) = std::env::var_os(INSIDE) {
            return self.run_in(root, Path::new(&folder));
        }
        let name = format!("dunlin-bench-{}", std::process::id());
        let folder = self.folder.join(name);
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let ended = std::env::current_exe().map_err(anyhow::Error::from);
        let ended = ended.and_then(|program| {
            let mut command = Command::new(program);
            command
                .args(std::env::args_os().skip(1))
                .env(INSIDE, &folder);
            guard::run(command)
        });
        // What cannot be removed is named by the one who looks.
        let _ = fs::remove_dir_all(&folder);
        link::remove_leftovers();
        match ended.context("running the bench")? {
            // It has said what it was.
            Ended::Exited(status) => Ok(status.success()),
            Ended::Told => bail!("the bench was told to end: what it started and made is gone"),
        }
    }

    fn run_in(&self, root: &Path, folder: &Path) -> Result<bool> {
        let place = Place::look(folder)?;
        let chosen: Vec<&Case> = CASES.iter().filter(|case| self.has(case)).collect();
        let has_peers = chosen.iter().any(|case| case.has_peers);
        let peers = has_peers.then(|| Peers::start(folder)).transpose()?;
        let program = Program::build(root)?;
        let bench = Bench {
            contest: Contest {
                place: &place,
                folder,
                program: &program,
                peers: peers.as_ref(),
                rounds: self.rounds,
            },
            mib: self.mib,
            mtu: self.mtu,
        };
        // A machine reads one object at the end; people read on.
        let mut out: Box<dyn Write> = match self.is_json {
            true => Box::new(io::stderr().lock()),
            false => Box::new(io::stdout().lock()),
        };
        writeln!(out, "medians of {} rounds, files in {place}", self.rounds)?;
        let mut sections = vec![];
        for case in chosen {
            let section = case.run(&bench);
            section.print(&mut out)?;
            out.flush()?;
            // Of a case that broke off.
            let _ = fs::remove_dir_all(folder.join("case"));
            sections.push(section);
        }
        if self.is_json {
            let settings = self.settings(&place)?;
            let mut out = io::stdout().lock();
            writeln!(out, "{:#}", table::json(&settings, &sections))?;
        }
        Ok(sections.iter().all(Section::is_kept))
    }

    /// With what it was measured.
    fn settings(&self, place: &Place) -> Result<serde_json::Value> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(json!({
            "rounds": self.rounds,
            "mib": self.mib,
            "folder": place.folder,
            "file_system": place.file_system,
            "device": place.device,
            "in_memory": place.is_in_memory(),
            "kernel": kernel.trim(),
            "cores": std::thread::available_parallelism()?,
            "ended_at_unix_secs": now.as_secs(),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn chosen(arguments: &[&str]) -> Vec<&'static str> {
        let transfer = Transfer::read(arguments).unwrap();
        let cases = CASES.iter().filter(|case| transfer.has(case));
        cases.map(|case| case.name).collect()
    }

    #[test]
    fn arguments_that_name_nothing_are_refused() {
        let given = Transfer::read(&["--rounds", "3", "--json", "--folder", "/tmp", "--mib", "64"]);
        let given = given.unwrap();
        assert_eq!((given.rounds, given.mib, given.is_json), (3, 64, true));
        assert_eq!(given.folder, Path::new("/tmp"));
        for bad in [
            &["--rounds", "0"][..],
            &["--mib", "1"],
            &["--mtu", "100"],
            &["--mib"],
            &["--only", "dense,no-such"],
            &["x", "y"],
        ] {
            assert_eq!(Transfer::read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_takes_long_is_measured_only_where_it_is_asked_for() {
        assert_eq!(chosen(&["--only", "scale,dense"]), ["dense", "scale"]);
        let all = chosen(&[]);
        assert!(all.contains(&"link") && !all.contains(&"scale"), "{all:?}");
    }
}
