//! Copies of whole files: as a clone where the file system can (btrfs, xfs), which takes no
//! room and hardly any time, and otherwise block by block, where holes and blocks of zeros
//! stay holes.
//!
//! Not here: which file is a copy of which (`cloud`).

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};

use blocks::is_zero;
use rustix::fs::{Advice, SeekFrom};
use rustix::io::Errno;

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// Zeros are left out in units of this, in bytes: a page, as file systems allocate it.
const GRAIN: usize = 4096;
/// So much is written, in bytes, before it is made durable: more in the cache would hold up
/// whoever else writes there.
const UNSYNCED: u64 = 128 << 20;

/// Why a file was not copied.
#[derive(Debug)]
pub(crate) enum CopyError {
    /// It would take more than there is.
    NoRoom {
        need: u64,
        free: u64,
    },
    /// It was asked to stop.
    Stopped,
    Io(io::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for CopyError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Makes `to`, which is empty, a durable copy of `from`. `free` are the bytes that it may
/// take where it is no clone.
pub(crate) fn copy(
    from: &File,
    to: &File,
    free: impl FnOnce() -> io::Result<u64>,
    stop: &AtomicBool,
) -> Result<(), CopyError> {
    if stop.load(Ordering::Relaxed) {
        return Err(CopyError::Stopped);
    }
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => {}
        // What a file system or a kernel says that cannot, for these two files or at all.
        Err(
            Errno::OPNOTSUPP
            | Errno::NOTTY
            | Errno::INVAL
            | Errno::XDEV
            | Errno::PERM
            | Errno::NOSYS,
        ) => {
            let (need, free) = (from.metadata()?.blocks() * 512, free()?);
            if need > free {
                return Err(CopyError::NoRoom { need, free });
            }
            copy_data(from, to, stop)?;
        }
        Err(errno) => return Err(errno.into()),
    }
    Ok(to.sync_all()?)
}

/// Copies what is not a hole.
fn copy_data(from: &File, to: &File, stop: &AtomicBool) -> Result<(), CopyError> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut piece = vec![0; PIECE];
    let (mut at, mut synced, mut unsynced) = (0, 0, 0);
    while let Some((start, end)) = next_data(from, at, length)? {
        at = start;
        while at < end {
            if stop.load(Ordering::Relaxed) {
                return Err(CopyError::Stopped);
            }
            let piece = &mut piece[..(end - at).min(PIECE as u64) as usize];
            from.read_exact_at(piece, at)?;
            write_grains(to, piece, at)?;
            at += piece.len() as u64;
            unsynced += piece.len() as u64;
            if unsynced >= UNSYNCED {
                make_durable(from, to, synced, at)?;
                (synced, unsynced) = (at, 0);
            }
        }
    }
    Ok(())
}

/// The next bytes from `at` on that may be other than zeros: where they begin and end.
fn next_data(file: &File, at: u64, length: u64) -> Result<Option<(u64, u64)>, CopyError> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that does not say.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => {
            return Ok((at < length).then_some((at, length)));
        }
        Err(errno) => return Err(errno.into()),
    };
    if start >= length {
        return Ok(None);
    }
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    Ok(Some((start, end.min(length))))
}

/// Writes what is not zeros.
fn write_grains(to: &File, piece: &[u8], at: u64) -> io::Result<()> {
    let mut pending = 0..0;
    for (number, grain) in piece.chunks(GRAIN).enumerate() {
        let begin = number * GRAIN;
        if !is_zero(grain) {
            pending = match pending.end == begin {
                true => pending.start..begin + grain.len(),
                false => {
                    to.write_all_at(&piece[pending.clone()], at + pending.start as u64)?;
                    begin..begin + grain.len()
                }
            };
        }
    }
    to.write_all_at(&piece[pending.clone()], at + pending.start as u64)
}

/// Writes out what is cached, and leaves the cache to others.
fn make_durable(from: &File, to: &File, begin: u64, end: u64) -> io::Result<()> {
    to.sync_data()?;
    let length = std::num::NonZeroU64::new(end - begin);
    for file in [from, to] {
        rustix::fs::fadvise(file, begin, length, Advice::DontNeed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
