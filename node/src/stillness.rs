//! Making the disks of a migration still, so that what is read of them is of one moment: what
//! a cutover asks of whoever has the rights to do that.
//!
//! ```text
//!              prepare ─▶ sync, until it is quick ─▶ freeze ─┬─▶ keep ─▶ (power off)
//!  running ◀── thaw, the deadline ◀────────────────────────┘      │
//!     ▲                                                             │
//!     └──────────────── release, by who knows that it may ◀─────────┘
//! ```
//!
//! All of it may be asked twice, by an agent that was started again too: what was done
//! already is answered, not done again.
//!
//! Not here: who does it (`guard`), and when it is done.

use std::path::PathBuf;
use std::time::Duration;

use keys::MigrationId;
use serde::{Deserialize, Serialize};
use volumes::{SourceIdentity, SourceVolume};

/// A source device, by what it is known not to be another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDisk {
    /// Where it is.
    pub path: PathBuf,
    /// Major and minor number, as the kernel encodes them.
    pub device: u64,
    /// Bytes.
    pub length: u64,
}

/// Why a source has nothing to freeze.
#[derive(Debug, thiserror::Error)]
#[error("{path} is a file: only what lies on a device can be frozen")]
pub struct NoDevice {
    /// The source.
    pub path: PathBuf,
}

impl TryFrom<&SourceVolume> for SourceDisk {
    type Error = NoDevice;

    fn try_from(volume: &SourceVolume) -> Result<Self, NoDevice> {
        let path = volume.path().to_owned();
        match volume.identity() {
            SourceIdentity::Device { number } => Ok(Self {
                path,
                device: number,
                length: volume.length(),
            }),
            _ => Err(NoDevice { path }),
        }
    }
}

/// A file system on the disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// Of what kind it is: `ext4`.
    pub kind: String,
    /// Where it is mounted, for people.
    pub at: PathBuf,
    /// Its kind is known to be one that can be frozen. For sure that is known once it was
    /// tried: [`Frozen::unfrozen`].
    pub can_freeze: bool,
}

/// What is in use on some disks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// What freezing holds, or writes out where it cannot be frozen.
    pub file_systems: Vec<FileSystem>,
    /// What memory is swapped to, which freezing does not hold.
    pub swaps: Vec<PathBuf>,
    /// What seems to be in use and cannot be reached, with why, for people.
    pub unreached: Vec<String>,
}

/// Nobody writes to the disks until they are thawed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// How long freezing took.
    pub took: Duration,
    /// Those that cannot be frozen and were written out: they may be written to.
    pub unfrozen: Vec<FileSystem>,
}

/// Who let the disks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ThawedBy {
    /// Whoever asked for it, now or before.
    Asked,
    /// The deadline was first.
    Deadline,
    /// The guard by itself: it was started after one that had died, or could not note what
    /// is kept.
    Guard,
    /// Nobody: nothing was frozen.
    Nobody,
}

/// The disks run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thawed {
    /// For how long they were still; 0 where that is not known any more.
    pub frozen_for: Duration,
    /// By whom.
    pub by: ThawedBy,
}

/// How the disks of a migration are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stillness {
    /// They are written to.
    Running,
    /// They are still, wholly or partly while that is under way, for so long at least unless
    /// they are thawed or kept.
    Frozen {
        /// Until the deadline.
        left: Duration,
    },
    /// They are still for good.
    Kept,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotStill {
    /// Nothing was asked: no guard is there for this node.
    #[error("{why}")]
    NoGuard {
        /// The cause, with what to do.
        why: String,
    },
    /// It was asked, and is not done.
    #[error("{why}")]
    Refused {
        /// The cause, with what to do.
        why: String,
    },
    /// It was asked, and may be done or not: [`Freezer::stillness`] tells.
    #[error("it is not known whether that was done: {why}")]
    Lost {
        /// The cause, with what to do.
        why: String,
    },
}

impl NotStill {
    /// Refused, for this reason.
    pub fn refused(why: impl ToString) -> Self {
        let why = why.to_string();
        Self::Refused { why }
    }
}

/// Makes disks still. Each call may take as long as a disk does: none is for a thread that
/// may not wait. Disks of one migration are still together, and what is asked for one
/// migration waits for no other.
pub trait Freezer: Send + Sync {
    /// Looks what is in use on the disks, and gets ready to freeze it. What was prepared
    /// before for this migration is forgotten.
    ///
    /// # Errors
    /// Where they are still, where a path leads to another device there than here, or it is
    /// not known what lies on them.
    fn prepare(&self, migration: MigrationId, disks: &[SourceDisk]) -> Result<Prepared, NotStill>;

    /// Writes out what is cached of what was prepared, and says how long that took.
    ///
    /// # Errors
    /// Where nothing is prepared, or a disk failed.
    fn sync(&self, migration: MigrationId) -> Result<Duration, NotStill>;

    /// Freezes what was prepared, and thaws it after `deadline`, whoever asks or not.
    ///
    /// # Errors
    /// Where nothing is prepared, some of it is frozen, it took too long, or something was
    /// mounted or unmounted meanwhile. Then nothing is frozen.
    fn freeze(&self, migration: MigrationId, deadline: Duration) -> Result<Frozen, NotStill>;

    /// Lets go of what is frozen, and of what was prepared. What runs already stays so.
    ///
    /// # Errors
    /// Where it is kept, or a file system could not be thawed.
    fn thaw(&self, migration: MigrationId) -> Result<Thawed, NotStill>;

    /// What is frozen stays so for good: there is no deadline any more.
    ///
    /// # Errors
    /// Where it is not frozen any more.
    fn keep(&self, migration: MigrationId) -> Result<(), NotStill>;

    /// How the disks are. This waits for nothing else that is under way.
    ///
    /// # Errors
    /// Where nobody answers.
    fn stillness(&self, migration: MigrationId) -> Result<Stillness, NotStill>;

    /// Turns the machine off at once, without writing anything out, where the disks are kept.
    ///
    /// # Errors
    /// Where they are not, or the machine does not allow it.
    fn power_off(&self, migration: MigrationId) -> Result<(), NotStill>;

    /// As [`Self::thaw`], also what is kept: for a person, or a cutover, that knows that no copy
    /// counts, or that the source may run beside it.
    ///
    /// # Errors
    /// Where a file system could not be thawed.
    fn release(&self, migration: MigrationId) -> Result<Thawed, NotStill>;
}
