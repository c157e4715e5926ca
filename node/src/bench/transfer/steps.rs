//! What both ends of the bench do one after the other, as their file of steps says it: an
//! action and the name of a disk on each line.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// A session over one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) action: Action,
    /// The folder with its source and target.
    pub(super) disk: PathBuf,
}

/// What the sending end does in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// One pass.
    Copy,
    /// The same, and what was sent is punched out of the source behind it.
    Consume,
    /// Writes what is in the disk's file of changes, and then one pass, which is told the
    /// changed blocks or not.
    Update { is_dirty: bool },
    /// Passes over what does not change, each with the hash of the same bytes beside it.
    Find { rounds: u32 },
    /// The same, each with a plain read of the whole source beside it.
    Rescan { rounds: u32 },
    /// One pass over each of so many disks at once: its folder has a folder of each, by
    /// number.
    Together { disks: u32 },
    /// The same, with an agent for each: a process that sends that one.
    Agents { agents: u32 },
    /// One pass under two limits in bytes a second, each of which holds for so long, and
    /// then without one to its end.
    Throttle { limits: [u64; 2], each: Duration },
}

impl Step {
    /// Reads a line; the disk is in this folder.
    pub(super) fn read(folder: &Path, line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let (action, disk) = match words.as_slice() {
            ["copy", disk] => (Action::Copy, disk),
            ["consume", disk] => (Action::Consume, disk),
            ["update", disk] => (Action::Update { is_dirty: false }, disk),
            ["update-dirty", disk] => (Action::Update { is_dirty: true }, disk),
            ["find", disk, rounds] => {
                let rounds = rounds.parse().unwrap();
                (Action::Find { rounds }, disk)
            }
            ["rescan", disk, rounds] => {
                let rounds = rounds.parse().unwrap();
                (Action::Rescan { rounds }, disk)
            }
            ["together", disk, disks] => {
                let disks = disks.parse().unwrap();
                (Action::Together { disks }, disk)
            }
            ["agents", disk, agents] => {
                let agents = agents.parse().unwrap();
                (Action::Agents { agents }, disk)
            }
            ["throttle", disk, secs, first, second] => {
                let limits = [first, second].map(|limit| limit.parse().unwrap());
                let each = Duration::from_secs(secs.parse().unwrap());
                (Action::Throttle { limits, each }, disk)
            }
            _ => panic!("{line:?} is no step of the bench"),
        };
        let disk = folder.join(disk);
        Self { action, disk }
    }
}
