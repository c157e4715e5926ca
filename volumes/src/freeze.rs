//! Making disks quiet: every file system on them is written out and frozen, for a while that
//! ends by itself, so that what is read is of one moment.
//!
//! ```text
//! Freezer::prepare ─▶ sync, until it is quick ─▶ freeze ─▶ Frozen ─▶ thaw | keep
//! ```
//!
//! Prepared is all that would have to be looked up: nothing between freezing and thawing
//! depends on a file system that is frozen. A thread of [`Frozen`] thaws at the deadline, and
//! [`thaw_left_behind`] what a process left that died.
//!
//! It takes the rights of root. Not here: when to freeze, what writes to the disks that is no
//! file system, and whether anything was written after all (`tracker`).

mod frozen;
mod kernel;
mod left;
mod mounted;
mod mounts;
mod stack;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{major, minor, syncfs};

pub use frozen::{Frozen, NotKept, Thawed, ThawedOne};
pub use kernel::lock_memory;
pub use left::{CannotThaw, LeftBehind, thaw_left_behind};
pub use mounted::{CannotLook, InUse, Mounted, Unreached, mounted_on};
pub use mounts::file_system_of;

use frozen::NotFrozen;
use left::Left;

/// A device, as major and minor number.
pub type Number = (u32, u32);

/// Why file systems cannot be frozen at all.
#[derive(Debug, thiserror::Error)]
pub enum CannotFreeze {
    /// It is not known what is mounted.
    #[error(transparent)]
    Look(#[from] CannotLook),
    /// Writes to it pass nothing that could see them.
    #[error(
        "{kind} at {at} is written past the kernel's block layer (DAX), where no write is seen: mount it with dax=never"
    )]
    Dax {
        /// Of what kind it is.
        kind: String,
        /// Where it is mounted.
        at: PathBuf,
    },
    /// A disk could not be opened to write out what is cached of it.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The device.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Why something could not be written out.
#[derive(Debug, thiserror::Error)]
#[error("cannot write out {at}: {source}; look at the kernel's log before this disk is moved")]
pub struct NotSynced {
    /// Where it is mounted, or the device.
    pub at: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// Why nothing is frozen. What was frozen before was thawed, or is listed in the file for
/// [`thaw_left_behind`] where even that failed.
#[derive(Debug, thiserror::Error)]
pub enum FreezeFailed {
    /// Something was mounted or unmounted meanwhile.
    #[error("{at} was mounted or unmounted meanwhile: prepare again")]
    Changed {
        /// Where.
        at: PathBuf,
    },
    /// Of what is mounted nothing is known any more.
    #[error(transparent)]
    Look(#[from] CannotLook),
    /// The file for whoever comes after us would be frozen, too.
    #[error("{left} lies on {at}, which is to be frozen: choose a place in /run")]
    LeftOnDisk {
        /// The file.
        left: PathBuf,
        /// The file system.
        at: PathBuf,
    },
    /// The file for whoever comes after us could not be written, or is there.
    #[error(
        "cannot note in {left} what is frozen: {source}; where it is left from an earlier run, thaw that first"
    )]
    Left {
        /// The file.
        left: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// There is no thread that would thaw them.
    #[error("cannot start the thread that thaws at the deadline: {0}")]
    Thread(io::Error),
    /// Somebody else holds it.
    #[error(
        "{kind} at {at} is frozen by somebody else: wait for them, or thaw it with `fsfreeze -u {at}`"
    )]
    AlreadyFrozen {
        /// Of what kind it is.
        kind: String,
        /// Where it is mounted.
        at: PathBuf,
    },
    /// The kernel failed to.
    #[error("cannot freeze {kind} at {at}: {source}")]
    Refused {
        /// Of what kind it is.
        kind: String,
        /// Where it is mounted.
        at: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// One that cannot be frozen could not be written out either.
    #[error(transparent)]
    NotSynced(#[from] NotSynced),
    /// It took too long.
    #[error(
        "the deadline of {deadline:?} came before all was frozen, while {at} was: sync more often before, or allow more time"
    )]
    Late {
        /// Which.
        deadline: Duration,
        /// The file system that was being frozen.
        at: PathBuf,
    },
}

/// A file system that cannot be frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfrozen {
    /// Of what kind it is: `vfat`.
    pub kind: String,
    /// Where it is mounted.
    pub at: PathBuf,
}

/// A file system with what it takes to freeze it.
#[derive(Debug)]
struct Held {
    mounted: Mounted,
    /// A folder or file on it.
    file: File,
}

/// The file systems on some disks, ready to be frozen. While it is there they are in use, and
/// cannot be unmounted.
#[derive(Debug)]
pub struct Freezer {
    disks: Vec<PathBuf>,
    held: Arc<[Held]>,
    /// The disks and their partitions, of which something may be cached apart.
    devices: Vec<(PathBuf, File)>,
    in_use: InUse,
}

impl Freezer {
    /// Looks what lies on the disks, and opens it.
    ///
    /// # Errors
    /// Where that is not known, or freezing would not hold it.
    pub fn prepare(disks: &[PathBuf]) -> Result<Self, CannotFreeze> {
        let mut in_use = mounted_on(disks)?;
        let mut held = Vec::with_capacity(in_use.file_systems.len());
        for mounted in &in_use.file_systems {
            if mounted.is_dax {
                return Err(CannotFreeze::Dax {
                    kind: mounted.kind.clone(),
                    at: mounted.at.clone(),
                });
            }
            match open_one(mounted) {
                Ok(file) => held.push(Held {
                    mounted: mounted.clone(),
                    file,
                }),
                Err(error) => in_use.unreached.push(Unreached {
                    what: mounted.at.clone(),
                    why: format!("its {} cannot be opened: {error}", mounted.kind),
                }),
            }
        }
        Ok(Self {
            devices: open_devices(disks)?,
            disks: disks.to_vec(),
            held: held.into(),
            in_use,
        })
    }

    /// What is in use on the disks: what is frozen, what is swapped to and not held by
    /// freezing, and what cannot be reached. Whoever freezes says so.
    pub fn in_use(&self) -> &InUse {
        &self.in_use
    }

    /// Writes out what is cached of the file systems and disks, and says how long it took.
    /// Repeated until it is quick it leaves little to do for freezing.
    ///
    /// # Errors
    /// Where that failed for one.
    pub fn sync(&self) -> Result<Duration, NotSynced> {
        let began = Instant::now();
        for one in &*self.held {
            sync_one(one)?;
        }
        self.sync_devices()?;
        Ok(began.elapsed())
    }

    /// What was written to the devices themselves.
    fn sync_devices(&self) -> Result<(), NotSynced> {
        for (path, device) in &self.devices {
            device.sync_all().map_err(|source| NotSynced {
                at: path.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Freezes each, those first that lie within another, and thaws them once `deadline` is
    /// over, a day at most. In `left`, a file that is not there yet and lies on none of them, is noted what
    /// is frozen for as long as it is.
    ///
    /// # Errors
    /// Where one of them cannot be. Then none is frozen.
    pub fn freeze(&self, deadline: Duration, left: &Path) -> Result<Frozen, FreezeFailed> {
        self.check_unchanged()?;
        let left_failed = |source| FreezeFailed::Left {
            left: left.to_owned(),
            source,
        };
        self.check_elsewhere(left)?;
        let noted = Left::create(left).map_err(left_failed)?;
        let begun = Frozen::begin(Arc::clone(&self.held), deadline, noted);
        let mut frozen = begun.map_err(FreezeFailed::Thread)?;
        for (place, one) in self.held.iter().enumerate() {
            let Mounted { kind, at, .. } = &one.mounted;
            match frozen.freeze(place) {
                Ok(true) => {}
                Ok(false) => {
                    sync_one(one)?;
                    if !one.mounted.is_read_only {
                        let (kind, at) = (kind.clone(), at.clone());
                        frozen.tell_unfrozen(Unfrozen { kind, at });
                    }
                }
                Err(failed) => {
                    let (kind, at) = (kind.clone(), at.clone());
                    return Err(match failed {
                        NotFrozen::Note(source) => left_failed(source),
                        NotFrozen::Late => FreezeFailed::Late { deadline, at },
                        NotFrozen::Refused(error) => match error.raw_os_error() {
                            Some(libc::EBUSY) => FreezeFailed::AlreadyFrozen { kind, at },
                            _ => FreezeFailed::Refused {
                                kind,
                                at,
                                source: error,
                            },
                        },
                    });
                }
            }
        }
        self.sync_devices()?;
        Ok(frozen)
    }

    /// Whether the same is mounted as when it was prepared.
    fn check_unchanged(&self) -> Result<(), FreezeFailed> {
        let now = mounted_on(&self.disks)?.file_systems;
        let was = &self.in_use.file_systems;
        let is_in = |all: &[Mounted], one: &Mounted| {
            all.iter().any(|other| {
                (other.device, &other.kind, other.is_read_only)
                    == (one.device, &one.kind, one.is_read_only)
            })
        };
        let come = now.iter().find(|one| !is_in(was, one));
        let changed = come.or_else(|| was.iter().find(|one| !is_in(&now, one)));
        match changed {
            None => Ok(()),
            Some(one) => Err(FreezeFailed::Changed { at: one.at.clone() }),
        }
    }

    /// Whether a file is on none of them.
    fn check_elsewhere(&self, left: &Path) -> Result<(), FreezeFailed> {
        let folder = left
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let on = fs::metadata(folder.unwrap_or(Path::new("."))).map(|folder| folder.dev());
        let on = on.map_err(|source| FreezeFailed::Left {
            left: left.to_owned(),
            source,
        })?;
        for one in &*self.held {
            let has_it = match one.file.metadata() {
                Ok(file) => file.dev() == on,
                Err(_) => false,
            };
            if has_it || one.mounted.device == (major(on), minor(on)) {
                return Err(FreezeFailed::LeftOnDisk {
                    left: left.to_owned(),
                    at: one.mounted.at.clone(),
                });
            }
        }
        Ok(())
    }
}

/// Opens a file system through one of its mounts.
fn open_one(mounted: &Mounted) -> io::Result<File> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for (mount, path) in &mounted.ways {
        match mounts::open_in(mount, path) {
            Ok(file) => return Ok(file),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn open_devices(disks: &[PathBuf]) -> Result<Vec<(PathBuf, File)>, CannotFreeze> {
    let mut devices = vec![];
    for disk in disks {
        for path in mounted::with_partitions(disk)? {
            let opened = File::open(&path);
            let file = opened.map_err(|source| CannotFreeze::Open {
                path: path.clone(),
                source,
            })?;
            devices.push((path, file));
        }
    }
    Ok(devices)
}

fn sync_one(one: &Held) -> Result<(), NotSynced> {
    syncfs(&one.file).map_err(|errno| NotSynced {
        at: one.mounted.at.clone(),
        source: errno.into(),
    })
}
