//! What can be wrong with a data folder, each with what to do about it.

use keys::root::BadRootKey;
use std::io;
use std::path::{Path, PathBuf};

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// No folder was given, and there is no place for a default.
    #[error(
        "there is no place for the data folder: neither XDG_DATA_HOME nor HOME is set to an absolute path; give a folder with --data-dir"
    )]
    NoPlace,
    /// There is nothing of a mesh in it.
    #[error(
        "data folder {} holds no mesh yet: run `dunlin mesh init` or `dunlin join INVITE` first, or give another folder with --data-dir",
        path.display()
    )]
    NoMesh {
        /// The folder.
        path: PathBuf,
    },
    /// It belongs to a mesh already.
    #[error(
        "data folder {} belongs to a mesh already: a folder belongs to one mesh, give another with --data-dir, or remove this one to leave its mesh",
        path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It holds something else.
    #[error(
        "{} is not a data folder of dunlin, and not empty: give another folder with --data-dir",
        path.display()
    )]
    NotOurs {
        /// What is there.
        path: PathBuf,
    },
    /// Others may read or change it.
    #[error(
        "{} can be read or changed by other users (mode {mode:03o}): run `chmod go= {}`, and make a new key if another user may have read it",
        path.display(), path.display()
    )]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to another user.
    #[error(
        "{} belongs to user {owner} and dunlin runs as user {user}: run it as that user, or give another folder with --data-dir",
        path.display()
    )]
    AnotherOwner {
        /// The file or folder.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// Our own number.
        user: u32,
    },
    /// Not a regular file, or not a folder.
    #[error("{} is not a {expected}: move it away, or give another folder with --data-dir", path.display())]
    WrongKind {
        /// What is there.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// A key is gone.
    #[error(
        "key file {} is missing: restore it from a backup, or move the data folder away and join the mesh again with a new invite",
        path.display()
    )]
    KeyMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A key file does not hold a key.
    #[error(
        "key file {} is damaged: {source}; restore it from a backup, or move the data folder away and join the mesh again with a new invite",
        path.display()
    )]
    KeyDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BadRootKey,
    },
    /// Somebody else is at work in it.
    #[error(
        "data folder {} is in use by {}: stop it first, or give another folder with --data-dir",
        path.display(), holder(*pid)
    )]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process that has it, if it said so.
        pid: Option<u32>,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

pub(super) fn wrong_kind(path: PathBuf, expected: &'static str) -> DataDirError {
    DataDirError::WrongKind { path, expected }
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> DataDirError {
    let path = path.to_path_buf();
    DataDirError::Io {
        action,
        path,
        source,
    }
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}
