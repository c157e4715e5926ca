//! Why a stored tree could not be opened or used.

use std::io;
use std::path::PathBuf;

use blocks::GroupIndex;

/// Why a stored tree could not be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum OpenTreeError {
    /// There is none.
    #[error("there is no hash tree at {path}")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// There is one already.
    #[error("there is a hash tree at {path} already")]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// Another process uses it.
    #[error("hash tree {path} is in use by another process: stop it first")]
    Busy {
        /// The path.
        path: PathBuf,
    },
    /// A file of something else.
    #[error("{path} is no hash tree")]
    NotATree {
        /// The path.
        path: PathBuf,
    },
    /// A later version of this program wrote it.
    #[error("hash tree {path} has format {have}, this program knows up to {known}: upgrade it")]
    NewerVersion {
        /// The path.
        path: PathBuf,
        /// The format found.
        have: u32,
        /// The newest format known.
        known: u32,
    },
    /// It belongs to another volume, or the volume's length is another.
    #[error("hash tree {path} is of another volume, or of another length ({have} bytes)")]
    OtherVolume {
        /// The path.
        path: PathBuf,
        /// The length of its volume, in bytes.
        have: u64,
    },
    /// Its header or its length is wrong.
    #[error("hash tree {path} is damaged: {why}; remove it to have it built anew")]
    Corrupt {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// There is no space for it.
    #[error("no space left for hash tree {path}")]
    Full {
        /// The path.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot open hash tree {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Why a stored tree could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A crash left the group's leaves half written. Nothing is known about
    /// its blocks until [`replace`](super::TreeFile::replace) says so.
    #[error("the leaves of {group} in {path} are torn")]
    Torn {
        /// The tree.
        path: PathBuf,
        /// The group.
        group: GroupIndex,
    },
    /// The group or the run of blocks is not in the volume.
    #[error("{group} or what follows is not in the volume")]
    Outside {
        /// The group asked for.
        group: GroupIndex,
    },
    /// Too many or too few leaves for the group.
    #[error("{have} leaves are not those of {group}")]
    WrongCount {
        /// The group.
        group: GroupIndex,
        /// How many were given.
        have: usize,
    },
    /// There is no space left.
    #[error("no space left for hash tree {path}: free some space, then resume")]
    Full {
        /// The tree.
        path: PathBuf,
    },
    /// The file failed.
    #[error("cannot {doing} hash tree {path} at offset {offset}: {source}")]
    Io {
        /// The tree.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Where, in bytes.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// A sync failed, now or before.
    #[error("syncing hash tree {path} failed: {why}; all since the last barrier is void")]
    SyncFailed {
        /// The tree.
        path: PathBuf,
        /// The cause.
        why: String,
    },
}
