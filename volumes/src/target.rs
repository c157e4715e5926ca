//! A volume that is copied to: a raw image file or an attached block device,
//! written by one process at a time. Nothing is durable before [`sync`].
//!
//! It knows no barriers and no hashes; its caller orders them.
//!
//! [`sync`]: TargetVolume::sync

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use blocks::{BLOCK_SIZE, BlockIndex, Geometry, GeometryError};
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};
use rustix::io::Errno;

use crate::locked::LockedFile;
use crate::source::{Astray, SourceIdentity, is_hole, length_of, read_exactly, read_run};
use crate::{AlignedBuf, ReadBlocks, ReadError, kernel};

/// Written again and again where no hole can be punched: 1 MiB.
const ZEROS: &[u8] = &[0; 16 * BLOCK_SIZE];

/// Why a target could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenTargetError {
    /// Nothing is there.
    #[error(
        "target {path} does not exist: put it back where it was moved to another place; where it is lost, delete the migration and create it again"
    )]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// Only block devices and regular files have blocks.
    #[error("target {path} is neither a block device nor a raw image file")]
    NotAVolume {
        /// The path.
        path: PathBuf,
    },
    /// We may not write it.
    #[error("not allowed to write target {path}: run as a user who may write it")]
    Denied {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else writes it, or it is mounted.
    #[error("target {path} is in use: stop what uses it, or unmount it")]
    Busy {
        /// The path.
        path: PathBuf,
    },
    /// It does not hold the volume.
    #[error("target {path} has {have} bytes, {need} are needed: use a larger one")]
    TooSmall {
        /// The path.
        path: PathBuf,
        /// Its length, in bytes.
        have: u64,
        /// The volume's length, in bytes.
        need: u64,
    },
    /// An image longer than the volume would not be a copy of it.
    #[error("target image {path} has {have} bytes, not {need}: use one of that length")]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length, in bytes.
        have: u64,
        /// The volume's length, in bytes.
        need: u64,
    },
    /// No volume has this length.
    #[error("target {path} cannot be used: {why}")]
    Length {
        /// The path.
        path: PathBuf,
        /// What is wrong with the length.
        why: GeometryError,
    },
    /// Anything else.
    #[error("cannot open target {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A sync failed: what was written since the one before may be lost, and
/// nothing later can bring it back. The volume has to be opened again and what
/// was not durable written again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syncing {path} failed: {why}; all since the last barrier is void")]
pub struct SyncFailed {
    /// The volume.
    pub path: PathBuf,
    /// The cause.
    pub why: String,
}

/// How a target is no longer what its path leads to: what was written cannot be
/// found there.
#[derive(Debug, thiserror::Error)]
pub enum TargetMoved {
    /// The path leads nowhere.
    #[error(
        "target {path} is gone, it was deleted or moved while it was being written: put it back where it was only moved; where it is lost, delete the migration and create it again"
    )]
    Gone {
        /// The path.
        path: PathBuf,
    },
    /// The path leads to something else.
    #[error(
        "target {path} is now {now}, it was {was} when it was opened: put the first one back; where it is lost, delete the migration and create it again"
    )]
    Replaced {
        /// The path.
        path: PathBuf,
        /// What was opened.
        was: SourceIdentity,
        /// What is there now.
        now: SourceIdentity,
    },
    /// It could not be looked at.
    #[error("cannot look at target {path}: {source}; mend that, and it goes on by itself")]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Why blocks could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is no space left.
    #[error("no space left on {path} at offset {offset}: free some space, then resume")]
    Full {
        /// The volume.
        path: PathBuf,
        /// Where, in bytes.
        offset: u64,
    },
    /// The device or file failed.
    #[error("cannot write {path} at offset {offset}: {source}")]
    Io {
        /// The volume.
        path: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// The range is not in the volume.
    #[error("{path} has no {len} bytes at offset {offset}")]
    Outside {
        /// The volume.
        path: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// How many, in bytes.
        len: u64,
    },
    /// A sync failed earlier.
    #[error(transparent)]
    SyncFailed(#[from] SyncFailed),
}

/// A raw image or block device, opened for one writer.
#[derive(Debug)]
pub struct TargetVolume {
    path: PathBuf,
    file: LockedFile,
    geometry: Geometry,
    identity: SourceIdentity,
    poisoned: OnceLock<SyncFailed>,
}

impl TargetVolume {
    /// Opens an existing raw image of exactly `length` bytes, or a block
    /// device of at least as many, and locks it against other writers.
    ///
    /// # Errors
    /// When it is not there, not a volume, not writable, in use, or of the
    /// wrong length.
    pub fn open(path: &Path, length: u64) -> Result<Self, OpenTargetError> {
        let owned = || path.to_owned();
        let failed = |source: io::Error| open_failed(path, source);
        let geometry =
            Geometry::new(length).map_err(|why| OpenTargetError::Length { path: owned(), why })?;
        let identity = SourceIdentity::of(&path.metadata().map_err(failed)?);
        let exclusive = match identity {
            // Without O_CREAT it refuses a device that is mounted.
            SourceIdentity::Device { .. } => libc::O_EXCL,
            SourceIdentity::File { .. } => 0,
            SourceIdentity::Other => return Err(OpenTargetError::NotAVolume { path: owned() }),
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(exclusive | libc::O_NONBLOCK)
            .open(path)
            .map_err(failed)?;
        let opened = SourceIdentity::of(&file.metadata().map_err(failed)?);
        if opened != identity {
            return Err(OpenTargetError::NotAVolume { path: owned() });
        }
        let file = LockedFile::lock(file).map_err(failed)?;
        let (have, need) = (length_of(&file).map_err(failed)?, length);
        if have < need {
            return Err(OpenTargetError::TooSmall {
                path: owned(),
                have,
                need,
            });
        }
        if have > need && !identity.is_device() {
            return Err(OpenTargetError::TooLong {
                path: owned(),
                have,
                need,
            });
        }
        Ok(Self {
            path: owned(),
            file,
            geometry,
            identity,
            poisoned: OnceLock::new(),
        })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The volume's length in bytes; the device may be longer.
    pub fn length(&self) -> u64 {
        self.geometry.length()
    }

    /// Checks that the path still leads to this volume: what was deleted or replaced
    /// goes on taking writes, which nobody will ever find.
    ///
    /// # Errors
    /// Where it leads instead.
    pub fn check_in_place(&self) -> Result<(), TargetMoved> {
        let (path, was) = (self.path.clone(), self.identity);
        was.is_at(&self.path).map_err(|astray| match astray {
            Astray::Gone => TargetMoved::Gone { path },
            Astray::Another(now) => TargetMoved::Replaced { path, was, now },
            Astray::Unseen(source) => TargetMoved::Io { path, source },
        })
    }

    /// Writes `data` at `offset`; durable after the next [`Self::sync`].
    ///
    /// # Errors
    /// When it does not fit the volume, space runs out, the device fails, or
    /// an earlier sync failed.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), WriteError> {
        self.admit(offset, data.len() as u64)?;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            match self.file.write_at(&data[done..], at) {
                Ok(0) => return Err(self.write_failed(at, io::ErrorKind::WriteZero.into())),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.write_failed(at, error)),
            }
        }
        Ok(())
    }

    /// Makes `len` bytes at `offset` read as zeros, by punching a hole where
    /// that is possible, by writing zeros where it is not.
    ///
    /// # Errors
    /// As for [`Self::write_at`].
    pub fn zero_range(&self, offset: u64, len: u64) -> Result<(), WriteError> {
        self.admit(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        // On devices the kernel turns this into a write of zeros that the
        // device itself carries out.
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&*self.file, flags, offset, len) {
            Ok(()) => Ok(()),
            // No holes here, or the tail is not a whole sector.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::INTR) => {
                self.write_zeros(offset, len)
            }
            Err(errno) => Err(self.write_failed(offset, errno.into())),
        }
    }

    /// Reads `buf.len()` bytes at `offset`.
    ///
    /// # Errors
    /// When the range is not in the volume, the device fails, or an earlier
    /// sync failed.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.check_sound()?;
        let len = buf.len() as u64;
        if offset
            .checked_add(len)
            .is_none_or(|end| end > self.length())
        {
            return Err(ReadError::Outside {
                path: self.path.clone(),
                first: BlockIndex(offset / BLOCK_SIZE as u64),
                count: len.div_ceil(BLOCK_SIZE as u64),
            });
        }
        read_exactly(&self.file, &self.path, self.length(), offset, buf)
    }

    /// Makes durable all that was written before. When it fails once the
    /// volume stays failed, because the kernel may have dropped what it could
    /// not write and would report success the next time.
    ///
    /// # Errors
    /// This failure, or the first one.
    pub fn sync(&self) -> Result<(), SyncFailed> {
        self.sync_by(File::sync_data)
    }

    fn sync_by(&self, sync: impl FnOnce(&File) -> io::Result<()>) -> Result<(), SyncFailed> {
        self.check_sound()?;
        sync(&self.file).map_err(|error| {
            let failed = SyncFailed {
                path: self.path.clone(),
                why: error.to_string(),
            };
            self.poisoned.get_or_init(|| failed).clone()
        })
    }

    /// Starts writing a range of bytes to the disk without waiting, so that
    /// the next sync has little left to do. A hint: failures show at the sync.
    pub fn start_writeback(&self, range: Range<u64>) {
        let _ = kernel::start_writeback(&self.file, range);
    }

    /// Drops what is cached of the volume, so that reading it back reads the
    /// disk. Call it after a sync: what is not durable stays cached. A hint.
    pub fn drop_cache(&self) {
        let _ = fadvise(&*self.file, 0, None, Advice::DontNeed);
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), WriteError> {
        let (mut at, end) = (offset, offset + len);
        while at < end {
            // At most the length of ZEROS.
            let piece = (end - at).min(ZEROS.len() as u64) as usize;
            self.write_at(at, &ZEROS[..piece])?;
            at += piece as u64;
        }
        Ok(())
    }

    fn admit(&self, offset: u64, len: u64) -> Result<(), WriteError> {
        self.check_sound()?;
        if offset
            .checked_add(len)
            .is_none_or(|end| end > self.length())
        {
            return Err(WriteError::Outside {
                path: self.path.clone(),
                offset,
                len,
            });
        }
        Ok(())
    }

    fn check_sound(&self) -> Result<(), SyncFailed> {
        match self.poisoned.get() {
            Some(failed) => Err(failed.clone()),
            None => Ok(()),
        }
    }

    fn write_failed(&self, offset: u64, source: io::Error) -> WriteError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                WriteError::Full { path, offset }
            }
            _ => WriteError::Io {
                path,
                offset,
                source,
            },
        }
    }
}

impl ReadBlocks for TargetVolume {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_blocks<'b>(
        &self,
        first: BlockIndex,
        count: u64,
        buf: &'b mut AlignedBuf,
    ) -> Result<&'b [u8], ReadError> {
        self.check_sound()?;
        let room = buf.bytes_mut();
        read_run(&self.file, &self.path, self.geometry, (first, count), room)
    }

    fn is_hole(&self, first: BlockIndex, count: u64) -> bool {
        // A device is read in full, whatever its kernel says of holes.
        !self.identity.is_device() && is_hole(&self.file, self.geometry.run_range(first, count))
    }
}

fn open_failed(path: &Path, source: io::Error) -> OpenTargetError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => OpenTargetError::Missing { path },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenTargetError::Denied { path }
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy => OpenTargetError::Busy { path },
        _ => OpenTargetError::Io { path, source },
    }
}

#[cfg(test)]
mod tests;
