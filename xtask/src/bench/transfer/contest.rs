//! Several ways to move a disk, one after the other in every round, each on a network
//! and with files of its own: what they took, as medians of all rounds.
//!
//! Not here: which ways, and what they have to reach (`cases`).

use super::disks::{self, Change, Disk};
use super::ours::{Plan, Program};
use super::peers::{Peer, Peers};
use super::place::{Place, cool};
use super::table::{Row, Run, median};
use crate::bench::link::{Network, stream};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::time::Instant;

/// A way to move a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Dunlin, and whether it may compress.
    Dunlin(Plan, bool),
    /// What a user would pick instead.
    Peer(Peer),
    /// As many bytes over so many connections, from memory to nowhere.
    Plain(u32),
}

/// Who takes part.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) who: String,
    pub(super) disk: Disk,
    /// What is at the target before it.
    pub(super) held: Option<Disk>,
    /// What changes before the disk is brought up to date.
    pub(super) change: Option<Change>,
    pub(super) way: Way,
}

impl Entry {
    /// A whole disk that is moved to where nothing is.
    pub(super) fn new(who: impl Into<String>, disk: Disk, way: Way) -> Self {
        Self {
            who: who.into(),
            disk,
            held: None,
            change: None,
            way,
        }
    }
}

/// What all of them have.
pub(super) struct Contest<'a> {
    pub(super) place: &'a Place,
    /// A folder in the place, of this run alone.
    pub(super) folder: &'a Path,
    pub(super) program: &'a Program,
    pub(super) peers: Option<&'a Peers>,
    pub(super) rounds: usize,
}

impl Contest<'_> {
    /// Has them take turns, and in each round another one begins.
    pub(super) fn run(&self, network: &Network, entries: &[Entry]) -> Result<Vec<Row>> {
        let mut runs: Vec<Vec<Run>> = vec![vec![]; entries.len()];
        for round in 0..self.rounds {
            for turn in 0..entries.len() {
                let at = (round + turn) % entries.len();
                let run = self.turn(network, &entries[at], round);
                runs[at].push(run.with_context(|| entries[at].who.clone())?);
            }
        }
        let rows = entries.iter().zip(runs);
        let row = rows.map(|(entry, runs)| Row {
            who: entry.who.clone(),
            run: median(runs),
        });
        Ok(row.collect())
    }

    fn turn(&self, network: &Network, entry: &Entry, round: usize) -> Result<Run> {
        let case = self.folder.join("case");
        let disk = case.join("disk");
        fs::create_dir_all(&disk)?;
        let (source, target) = (disk.join("source"), disk.join("target"));
        if !matches!(entry.way, Way::Plain(_)) {
            require(self.place, entry)?;
            entry.disk.write(&source)?;
            cool(&source)?;
        }
        if let Some(held) = entry.held {
            fs::create_dir(case.join("held"))?;
            held.write(&case.join("held/source"))?;
            cool(&case.join("held/source"))?;
        }
        let changes = entry.change.map(|change| change.at(entry.disk, round));
        let run = match entry.way {
            Way::Dunlin(plan, compresses) => {
                let changes = changes.unwrap_or_default();
                fs::write(disk.join("changes"), disks::text(&changes))?;
                let run = self.program.run(network, &case, (plan, compresses))?;
                let is_there = plan != Plan::Consume || entry.disk.is_at(&target)?;
                ensure!(is_there, "the target is not what the source was");
                run
            }
            Way::Peer(peer) => {
                let peers = self.peers.context("no peer was started")?;
                peers.run(peer, network, (&source, &target), changes.as_deref())?
            }
            Way::Plain(connections) => plain(network, entry.disk.used(), connections)?,
        };
        fs::remove_dir_all(&case)?;
        Ok(run)
    }
}

/// How far the source is punched out behind what is sent, in bytes.
const CONSUMED_LATER: u64 = 2 << 30;

/// Refuses what does not fit: where files are in memory it would be everybody's.
pub(super) fn require(place: &Place, entry: &Entry) -> Result<()> {
    let used = entry.disk.used();
    let held = entry.held.map_or(0, |held| 2 * held.used());
    let target = match entry.way {
        // Its source goes as its target comes.
        Way::Dunlin(Plan::Consume, _) => CONSUMED_LATER.min(used),
        _ => used,
    };
    let needed = used + target + held + used / 8;
    let room = place.room()?;
    ensure!(
        room >= needed,
        "{} MiB are free in {}, and {} are needed: name another folder with --folder, or \
         less with --mib",
        room >> 20,
        place.folder.display(),
        needed >> 20
    );
    Ok(())
}

fn plain(network: &Network, bytes: u64, connections: u32) -> Result<Run> {
    let cores = core_seconds()?;
    let measured = stream::measure(network, bytes, connections)?;
    Ok(Run {
        sent: Some(bytes),
        ..Run::took(measured.seconds, core_seconds()? - cores)
    })
}

/// Measures what is done.
pub(super) fn timed(work: impl FnOnce() -> Result<Option<u64>>) -> Result<Run> {
    let (since, cores) = (Instant::now(), core_seconds()?);
    let sent = work()?;
    let seconds = since.elapsed().as_secs_f64();
    Ok(Run {
        sent,
        ..Run::took(seconds, core_seconds()? - cores)
    })
}

/// Processor time that the machine has given so far, in seconds.
fn core_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line
        .split_whitespace()
        .filter_map(|f| f.parse().ok())
        .collect();
    // All but idle, waiting for disks and what other machines took; in hundredths.
    let busy = fields
        .iter()
        .enumerate()
        .filter(|(at, _)| ![3, 4, 7].contains(at));
    Ok(busy.map(|(_, ticks)| ticks).sum::<f64>() / 100.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_disk_that_does_not_fit_is_refused_before_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::look(folder.path()).unwrap();
        let room_mib = place.room().unwrap() >> 20;
        let fits = |mib, plan| {
            let disk = Disk::Dense { mib };
            require(&place, &Entry::new("x", disk, Way::Dunlin(plan, false))).is_ok()
        };
        assert!(fits(1, Plan::Copy));
        assert!(!fits(room_mib * 2 / 3, Plan::Copy));
        assert!(!fits(room_mib, Plan::Consume));
        // Its copy takes the room that it leaves.
        let fits_once = room_mib > 12 << 10;
        assert!(!fits_once || fits(room_mib * 2 / 3, Plan::Consume));
    }
}
