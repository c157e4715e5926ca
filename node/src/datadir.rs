//! The data folder: where it is, what is in it, who may read it, and who has it now.
//!
//! ```text
//! node.key     this node's secret key, readable by its owner alone
//! node.key.next  its next key, while that is being changed
//! root.key     the mesh's root key, on its founder unless it is kept offline
//! dunlin.redb  everything else that must not be forgotten (`store`)
//! lock         held while a node runs or a command changes what is stored
//! run/         the socket of the local API
//! trees/       hash trees of source volumes
//! copies/      hash trees and intents of copies
//! cloud/       volumes of the local cloud, unless it was given another folder
//! ```
//!
//! The folder and all that is made in it belong to its owner alone. Not here: what
//! the files mean, beyond the keys.

mod error;
mod key;

pub use error::DataDirError;
pub use key::{KeyFile, read_private, write_private};

use error::{io_error, wrong_kind};
use keys::Epoch;
use roles::JobId;
use rustix::process::geteuid;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const STORE: &str = "dunlin.redb";
const LOCK: &str = "lock";
const RUN: &str = "run";
const TREES: &str = "trees";
const COPIES: &str = "copies";
const CLOUD: &str = "cloud";
/// The folders of the layout.
const FOLDERS: [&str; 4] = [RUN, TREES, COPIES, CLOUD];

/// A data folder that was found sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    path: PathBuf,
}

/// The right to change what is stored; given up when it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl DataDir {
    /// Which folder to use: the one given, or the default of this user.
    pub fn resolve(flag: Option<PathBuf>) -> Result<PathBuf, DataDirError> {
        let path = match flag {
            Some(path) => path,
            None => default_folder(
                geteuid().is_root(),
                std::env::var_os("XDG_DATA_HOME"),
                std::env::var_os("HOME"),
            )
            .ok_or(DataDirError::NoPlace)?,
        };
        std::path::absolute(&path).map_err(|error| io_error("find", &path, error))
    }

    /// A folder for a mesh that is about to be founded or joined. It may be absent,
    /// empty, or left by an attempt that did not get as far as a mesh.
    pub fn create_new(path: &Path) -> Result<Self, DataDirError> {
        let dir = Self {
            path: path.to_path_buf(),
        };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => dir.make()?,
            Err(error) => return Err(io_error("look at", path, error)),
            Ok(found) if !found.is_dir() => return Err(dir.not_ours()),
            Ok(found) => {
                expect_owner(path, &found)?;
                if dir.has(STORE)? {
                    return Err(DataDirError::InUse { path: dir.path });
                }
                if dir.is_empty()? {
                    let only_owner = fs::Permissions::from_mode(0o700);
                    fs::set_permissions(path, only_owner)
                        .map_err(|error| io_error("set the permissions of", path, error))?;
                } else if !dir.is_marked()? {
                    return Err(dir.not_ours());
                } else {
                    expect_private(path, &found)?;
                }
            }
        }
        dir.furnish()?;
        Ok(dir)
    }

    /// The folder of a node that is part of a mesh. What is missing of its layout is made.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let dir = Self::look(path)?;
        dir.furnish()?;
        Ok(dir)
    }

    /// The same for whoever only looks: nothing is made, so that what was lost is seen.
    pub fn look(path: &Path) -> Result<Self, DataDirError> {
        let dir = Self {
            path: path.to_path_buf(),
        };
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DataDirError::NoMesh { path: dir.path });
            }
            Err(error) => return Err(io_error("look at", path, error)),
        };
        if !found.is_dir() {
            return Err(dir.not_ours());
        }
        expect_owner(path, &found)?;
        if !dir.is_marked()? && !dir.is_empty()? {
            return Err(dir.not_ours());
        }
        expect_private(path, &found)?;
        if !dir.has(STORE)? {
            return Err(DataDirError::NoMesh { path: dir.path });
        }
        dir.expect_folders()?;
        Ok(dir)
    }

    /// Takes the folder for this process, or says who has it.
    pub fn lock(&self) -> Result<Lock, DataDirError> {
        let path = self.path.join(LOCK);
        let opened = private_file().create(true).truncate(false).open(&path);
        let mut file = opened.map_err(|error| io_error("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::Locked {
                    path: self.path.clone(),
                    pid: read_pid(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &path, error)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| io_error("write", &path, error))?;
        Ok(Lock { _file: file })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store's file.
    pub fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Where the socket of the local API is.
    pub fn run(&self) -> PathBuf {
        self.path.join(RUN)
    }

    /// The stored tree of a source volume, for one epoch of its copy.
    pub fn tree(&self, job: &JobId, epoch: Epoch) -> PathBuf {
        self.path
            .join(TREES)
            .join(format!("{}.tree", state_name(job, epoch)))
    }

    /// The stored tree (`.tree`) and the intents (`.intents`) of a copy.
    pub fn copy(&self, job: &JobId, epoch: Epoch) -> PathBuf {
        self.path.join(COPIES).join(state_name(job, epoch))
    }

    /// The index of the contents of copies.
    pub fn fingerprints(&self) -> PathBuf {
        self.path.join(COPIES).join("fingerprints")
    }

    /// Volumes of the local cloud.
    pub fn cloud(&self) -> PathBuf {
        self.path.join(CLOUD)
    }

    fn make(&self) -> Result<(), DataDirError> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(|error| io_error("make folder", parent, error))?;
        make_folder(&self.path)
            .and_then(|()| sync_folder(parent))
            .map_err(|error| io_error("make folder", &self.path, error))
    }

    /// Makes what is not there yet, the mark that the folder is ours first.
    fn furnish(&self) -> Result<(), DataDirError> {
        let lock = self.path.join(LOCK);
        let opened = private_file().create(true).truncate(false).open(&lock);
        opened.map_err(|error| io_error("make", &lock, error))?;
        for name in FOLDERS {
            let path = self.path.join(name);
            match make_folder(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error("make folder", &path, error));
                }
                _ => {}
            }
        }
        self.expect_folders()?;
        sync_folder(&self.path).map_err(|error| io_error("write", &self.path, error))
    }

    /// That nothing else is where a folder of the layout should be.
    fn expect_folders(&self) -> Result<(), DataDirError> {
        for name in FOLDERS {
            let path = self.path.join(name);
            // A link to nowhere is in the way, too.
            if !path.is_dir() && (path.is_symlink() || path.exists()) {
                return Err(wrong_kind(path, "folder"));
            }
        }
        Ok(())
    }

    fn is_marked(&self) -> Result<bool, DataDirError> {
        Ok(self.has(LOCK)? || self.has(STORE)? || self.has(KeyFile::Node.name())?)
    }

    fn is_empty(&self) -> Result<bool, DataDirError> {
        let failed = |error| io_error("list", &self.path, error);
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            // The root of an ext file system of its own is empty, too.
            if entry.map_err(failed)?.file_name() != "lost+found" {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn has(&self, name: &str) -> Result<bool, DataDirError> {
        let path = self.path.join(name);
        path.try_exists()
            .map_err(|error| io_error("look at", &path, error))
    }

    fn not_ours(&self) -> DataDirError {
        DataDirError::NotOurs {
            path: self.path.clone(),
        }
    }
}

/// `/var/lib/dunlin` for root; for others what the XDG base directory specification says.
fn default_folder(
    is_root: bool,
    data_home: Option<OsString>,
    home: Option<OsString>,
) -> Option<PathBuf> {
    if is_root {
        return Some(PathBuf::from("/var/lib/dunlin"));
    }
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let data_home = data_home.and_then(absolute);
    let shares = data_home.or_else(|| Some(home.and_then(absolute)?.join(".local/share")));
    Some(shares?.join("dunlin"))
}

fn expect_owner(path: &Path, found: &Metadata) -> Result<(), DataDirError> {
    let (owner, user) = (found.uid(), geteuid().as_raw());
    if owner == user {
        return Ok(());
    }
    let path = path.to_path_buf();
    Err(DataDirError::AnotherOwner { path, owner, user })
}

fn expect_private(path: &Path, found: &Metadata) -> Result<(), DataDirError> {
    let mode = found.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let path = path.to_path_buf();
    Err(DataDirError::Exposed { path, mode })
}

fn state_name(job: &JobId, epoch: Epoch) -> String {
    format!("{}-{}-{epoch}", job.migration, job.volume)
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests;
