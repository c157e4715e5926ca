//! The folder of a local cloud: the marker that says whose it is, the lock
//! that lets one call at a time work in it, and files that are replaced as a
//! whole. It knows nothing of volumes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use crate::copying::{self, CopyError};

/// In every folder that is a local cloud.
const MARKER: &str = "dunlin-cloud.json";

const FORMAT: u32 = 3;

/// With less than this left, in bytes, nothing useful can be copied: 64 MiB.
pub(crate) const MIN_FREE: u64 = 64 << 20;

/// The largest record or marker that is read, in bytes: ours are far smaller.
const MAX_FILE_LEN: u64 = 64 * 1024;

/// Why a folder could not be used as a cloud.
#[derive(Debug, thiserror::Error)]
pub enum OpenCloudError {
    /// Nothing is there.
    #[error("cloud folder {path} does not exist: create or mount it")]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{path} is not a folder")]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// We may not write in it.
    #[error("not allowed to write in cloud folder {path}: run as a user who may")]
    NotWritable {
        /// The folder.
        path: PathBuf,
    },
    /// Locks do not reach across machines, so a shared folder belongs to one.
    #[error(
        "cloud folder {path} belongs to host {owner}, this is {host}: run there, \
         or, if this host was renamed, delete {MARKER} in it"
    )]
    OnAnotherHost {
        /// The folder.
        path: PathBuf,
        /// The host it belongs to.
        owner: String,
        /// This host.
        host: String,
    },
    /// A later version of this program made it.
    #[error("cloud folder {path} has format {have}, this program knows {FORMAT}: upgrade it")]
    NewerVersion {
        /// The folder.
        path: PathBuf,
        /// The format found.
        have: u32,
    },
    /// The marker cannot be read as one.
    #[error("cloud folder {path} is damaged: {MARKER} in it is no marker; delete it to go on")]
    Corrupt {
        /// The folder.
        path: PathBuf,
    },
    /// There is no space left.
    #[error("no space left in cloud folder {path}")]
    Full {
        /// The folder.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot open cloud folder {path}: {source}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A folder that is a local cloud of this host.
pub(crate) struct Folder {
    path: PathBuf,
    #[cfg(test)]
    pub(crate) steps_left: std::sync::atomic::AtomicU64,
}

#[derive(Serialize, Deserialize)]
struct Marker {
    format: u32,
    host: String,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenCloudError> {
        Self::open_on(path, &this_host())
    }

    pub(crate) fn open_on(path: &Path, host: &str) -> Result<Self, OpenCloudError> {
        let failed = |source| open_failed(path, source);
        let path = path.canonicalize().map_err(failed)?;
        if !path.is_dir() {
            return Err(OpenCloudError::NotAFolder { path });
        }
        let folder = Self {
            path,
            #[cfg(test)]
            steps_left: u64::MAX.into(),
        };
        let path = || folder.path.clone();
        if let Err(errno) = rustix::fs::access(&folder.path, rustix::fs::Access::WRITE_OK) {
            return Err(failed(errno.into()));
        }
        let bytes = match folder.read(MARKER) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder.mark(host).map_err(failed)?;
                folder.read(MARKER).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        if let Some(have) = newer_format(&bytes) {
            return Err(OpenCloudError::NewerVersion { path: path(), have });
        }
        let marker: Marker =
            serde_json::from_slice(&bytes).map_err(|_| OpenCloudError::Corrupt { path: path() })?;
        if marker.host != host {
            return Err(OpenCloudError::OnAnotherHost {
                path: path(),
                owner: marker.host,
                host: host.to_owned(),
            });
        }
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Held while one call works here. Taking it also shows that the folder is
    /// still there: where a disk is no longer mounted there is no marker.
    pub(crate) fn lock(&self) -> io::Result<File> {
        let marker = File::open(self.path.join(MARKER))?;
        marker.lock()?;
        Ok(marker)
    }

    /// A whole file; one that is too long to be ours is an error.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.path.join(name))?;
        file.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 <= MAX_FILE_LEN {
            true => Ok(bytes),
            false => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }

    /// Replaces a file: after a crash it is the old one or the new one.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.path.join(format!("{name}.new"));
        self.step()?;
        let mut file = File::create(&temporary)?;
        self.step()?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.step()?;
        fs::rename(&temporary, self.path.join(name))?;
        self.sync()
    }

    /// Makes an empty sparse file, in place of one that nobody used yet.
    pub(crate) fn make_sparse(&self, name: &str, length: u64) -> io::Result<()> {
        self.step()?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            // A whole disk, with all its secrets.
            .mode(0o600)
            .open(self.path.join(name))?;
        self.step()?;
        file.set_len(length)?;
        file.sync_all()?;
        self.sync()
    }

    /// Makes an empty file in place of one that nobody else is filling, and locks it, which
    /// says that it is being filled; none where somebody does.
    pub(crate) fn make_locked(&self, name: &str) -> io::Result<Option<File>> {
        if self.is_filled(name)? {
            return Ok(None);
        }
        self.remove(name)?;
        self.step()?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            // A whole disk, with all its secrets.
            .mode(0o600)
            .open(self.path.join(name))?;
        file.lock()?;
        self.sync()?;
        Ok(Some(file))
    }

    /// Whether somebody has a file locked that is being filled.
    pub(crate) fn is_filled(&self, name: &str) -> io::Result<bool> {
        match self.open_file(name) {
            Ok(file) => match file.try_lock() {
                Ok(()) => Ok(false),
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens a file to be read.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        File::open(self.path.join(name))
    }

    /// Fills a file that was just made with what another holds. See [`copying::copy`].
    pub(crate) fn fill(&self, from: &File, to: &File, stop: &AtomicBool) -> Result<(), CopyError> {
        self.step()?;
        let free = || Ok(self.free()?.saturating_sub(MIN_FREE));
        copying::copy(from, to, free, stop)?;
        Ok(self.step()?)
    }

    /// Removes a file that may be gone already.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.step()?;
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        self.sync()
    }

    /// The length of a file in bytes, or none when there is none.
    pub(crate) fn length_of(&self, name: &str) -> io::Result<Option<u64>> {
        match self.path.join(name).metadata() {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names that begin and end like this, in order.
    pub(crate) fn names(&self, prefix: &str, suffix: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is no text is none of ours.
            let Ok(name) = entry?.file_name().into_string() else {
                continue;
            };
            if name.starts_with(prefix) && name.ends_with(suffix) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The bytes that we may still use.
    pub(crate) fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn sync(&self) -> io::Result<()> {
        self.step()?;
        File::open(&self.path)?.sync_all()
    }

    /// Linked, not renamed, so that of two processes that begin at the same
    /// time both end up with the same marker, which is also the lock.
    fn mark(&self, host: &str) -> io::Result<()> {
        let marker = Marker {
            format: FORMAT,
            host: host.to_owned(),
        };
        let temporary = self.path.join(format!("{MARKER}.{}", process::id()));
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&marker)?)?;
        file.sync_all()?;
        let linked = fs::hard_link(&temporary, self.path.join(MARKER));
        fs::remove_file(&temporary)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.sync(),
        }
    }

    /// Where a test lets the process die: between any two changes on disk.
    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        use std::sync::atomic::Ordering;
        let less = |left: u64| left.checked_sub(1);
        let left = self
            .steps_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        left.map(drop).map_err(|_| io::Error::other("killed"))
    }

    #[cfg(not(test))]
    fn step(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The format of a file that is newer than ours, whatever else is in it.
pub(crate) fn newer_format(bytes: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let format: Format = serde_json::from_slice(bytes).ok()?;
    (format.format > FORMAT).then_some(format.format)
}

pub(crate) fn known_format() -> u32 {
    FORMAT
}

fn this_host() -> String {
    ["/etc/machine-id", "/proc/sys/kernel/hostname"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .map(|text| text.trim().to_owned())
        .find(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".into())
}

fn open_failed(path: &Path, source: io::Error) -> OpenCloudError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => OpenCloudError::Missing { path },
        io::ErrorKind::NotADirectory => OpenCloudError::NotAFolder { path },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenCloudError::NotWritable { path }
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenCloudError::Full { path },
        io::ErrorKind::FileTooLarge => OpenCloudError::Corrupt { path },
        _ => OpenCloudError::Io { path, source },
    }
}
