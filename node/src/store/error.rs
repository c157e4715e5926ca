//! What can go wrong with stored state, each with what to do about it.
//!
//! The database engine's own errors are told apart here and nowhere else.

use std::io;
use std::path::PathBuf;

/// Why stored state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing is stored there.
    #[error(
        "there is no stored state at {}: run `dunlin mesh init` or `dunlin join INVITE` first",
        path.display()
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Something is stored there already.
    #[error(
        "there is stored state at {} already: a data folder belongs to one mesh, give another with --data-dir",
        path.display()
    )]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error(
        "the stored state at {} is open in another process: stop the other dunlin first",
        path.display()
    )]
    Locked {
        /// Where.
        path: PathBuf,
    },
    /// Written by a program that knows more than this one.
    #[error(
        "the stored {what} has format {found} and this dunlin knows formats up to {known}: use the dunlin that wrote it, or a newer one"
    )]
    NewerFormat {
        /// What was stored.
        what: &'static str,
        /// Its format.
        found: u8,
        /// The newest format that this program reads.
        known: u8,
    },
    /// Written by a program of before the format changed.
    #[error(
        "the stored {what} has format {found} and this dunlin reads format {known} only: use the dunlin that wrote it, or move the data folder away and join the mesh again with a new invite (source disks are not touched by this)"
    )]
    OlderFormat {
        /// What was stored.
        what: &'static str,
        /// Its format.
        found: u8,
        /// The format that this program reads.
        known: u8,
    },
    /// What is stored is not what was written.
    #[error(
        "the stored state is damaged: {what}; restore the data folder from a backup, or move it away and join the mesh again with a new invite (source disks are not touched by this)"
    )]
    Corrupt {
        /// What is wrong, naming table and key where known.
        what: String,
    },
    /// The operating system failed to read or write.
    #[error(
        "stored state could not be {what}: {source}; check the disk of the data folder and its free space"
    )]
    Io {
        /// `read` or `written`.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// An earlier write failed, and with it everything after it.
    #[error(
        "an earlier write of stored state failed, so nothing more is written: check the disk of the data folder, then restart dunlin"
    )]
    Stopped,
    /// A value is over its limits.
    #[error("a value could not be stored: {0}")]
    Encode(#[from] codec::EncodeError),
    /// A table is at its limit.
    #[error("{table} holds {limit} entries, which is its limit: remove one first")]
    Full {
        /// The table.
        table: &'static str,
        /// Its limit.
        limit: u64,
    },
}

impl StoreError {
    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    /// The error of the system call that reads or writes; wrong content is corruption.
    pub(super) fn io(what: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::corrupt(format!("the database file: {source}"))
            }
            _ => Self::Io { what, source },
        }
    }

    /// The engine's error while opening the file at `path`.
    pub(super) fn opening(path: PathBuf, error: redb::DatabaseError) -> Self {
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Self::Locked { path },
            other => redb::Error::from(other).into(),
        }
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(what) => Self::Corrupt { what },
            redb::Error::Io(source) => Self::io("read or written", source),
            redb::Error::PreviousIo
            | redb::Error::LockPoisoned(_)
            | redb::Error::DatabaseClosed => Self::Stopped,
            other => Self::corrupt(other.to_string()),
        }
    }
}

/// `?` on each of the engine's errors.
macro_rules! from_engine {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}

from_engine!(
    TransactionError,
    TableError,
    StorageError,
    CommitError,
    CompactionError,
    SetDurabilityError
);
