//! A volume that is copied from: a block device or a raw image, only ever
//! read. Not a snapshot: what is read may change under the reader, who has to
//! scan again until it no longer does.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use blocks::{BLOCK_SIZE, BlockIndex, Geometry, GeometryError};
use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::Errno;

use crate::{AlignedBuf, READ_BLOCKS, ReadBlocks};

/// In a range of so many bytes, which are read at once, no hole is looked for.
const SHORT: u64 = READ_BLOCKS * BLOCK_SIZE as u64;

/// Why a source could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenSourceError {
    /// Nothing is there.
    #[error("source {path} does not exist")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// Only block devices and regular files have blocks.
    #[error("source {path} is neither a block device nor a raw image file")]
    NotAVolume {
        /// The path.
        path: PathBuf,
    },
    /// We may not read it.
    #[error("not allowed to read source {path}: run as a user who may read it")]
    Denied {
        /// The path.
        path: PathBuf,
    },
    /// No volume has its length.
    #[error("source {path} cannot be moved: {why}")]
    Length {
        /// The path.
        path: PathBuf,
        /// What is wrong with the length.
        why: GeometryError,
    },
    /// It has fewer bytes than are to be read.
    #[error("{path} has {have} bytes, {need} are needed")]
    TooShort {
        /// The path.
        path: PathBuf,
        /// Its length, in bytes.
        have: u64,
        /// How many are to be read.
        need: u64,
    },
    /// Anything else.
    #[error("cannot open source {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Why blocks could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The device or file failed.
    #[error("cannot read {path} at offset {offset}: {source}")]
    Io {
        /// The volume.
        path: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// The volume ended early: it was cut while we had it open.
    #[error("{path} ends at offset {offset}, it had {length} bytes when it was opened")]
    Short {
        /// The volume.
        path: PathBuf,
        /// Where it ends now, in bytes.
        offset: u64,
        /// The length it was opened with, in bytes.
        length: u64,
    },
    /// The blocks asked for are not in the volume or not in the buffer.
    #[error("{path} has no {count} blocks from {first} on that fit the buffer")]
    Outside {
        /// The volume.
        path: PathBuf,
        /// The first block asked for.
        first: BlockIndex,
        /// How many were asked for.
        count: u64,
    },
    /// A sync failed earlier, so what is read may never reach the disk.
    #[error(transparent)]
    SyncFailed(#[from] crate::SyncFailed),
}

/// How a source is no longer what it was when it was opened.
#[derive(Debug, thiserror::Error)]
pub enum SourceChanged {
    /// It is longer.
    #[error("source {path} grew from {was} to {now} bytes: start a new migration for it")]
    Grown {
        /// The path.
        path: PathBuf,
        /// The length it was opened with, in bytes.
        was: u64,
        /// Its length now, in bytes.
        now: u64,
    },
    /// It is shorter.
    #[error("source {path} shrank from {was} to {now} bytes: start a new migration for it")]
    Shrunk {
        /// The path.
        path: PathBuf,
        /// The length it was opened with, in bytes.
        was: u64,
        /// Its length now, in bytes.
        now: u64,
    },
    /// The path leads to something else.
    #[error("source {path} is now {now}, it was {was}: put the first one back")]
    Replaced {
        /// The path.
        path: PathBuf,
        /// What was opened.
        was: SourceIdentity,
        /// What is there now.
        now: SourceIdentity,
    },
    /// The path leads nowhere.
    #[error("source {path} is gone: put it back")]
    Disappeared {
        /// The path.
        path: PathBuf,
    },
    /// It could not be looked at.
    #[error("cannot look at source {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// What tells one source from another at the same path. Device numbers may
/// change when a machine restarts, so it holds for one boot only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceIdentity {
    /// A regular file.
    File {
        /// The device of its file system.
        device: u64,
        /// Its inode number.
        inode: u64,
    },
    /// A block device.
    Device {
        /// Its device number.
        number: u64,
    },
    /// Neither: no source can be this.
    Other,
}

/// A block device or raw image, opened read-only.
#[derive(Debug)]
pub struct SourceVolume {
    path: PathBuf,
    file: File,
    geometry: Geometry,
    identity: SourceIdentity,
    /// In bytes, of whole blocks, in order: they read as zeros.
    left_out: Vec<Range<u64>>,
}

impl SourceIdentity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            Self::Device {
                number: metadata.rdev(),
            }
        } else if metadata.is_file() {
            Self::File {
                device: metadata.dev(),
                inode: metadata.ino(),
            }
        } else {
            Self::Other
        }
    }

    /// Whether it is a block device.
    pub fn is_device(&self) -> bool {
        matches!(self, Self::Device { .. })
    }
}

/// How a path does not lead to a volume that was opened there.
#[derive(Debug)]
pub(crate) enum Astray {
    /// It leads nowhere.
    Gone,
    /// It leads to something else.
    Another(SourceIdentity),
    /// It could not be looked at.
    Unseen(io::Error),
}

impl SourceIdentity {
    /// Whether `path` leads to this, for sources and targets alike.
    pub(crate) fn is_at(self, path: &Path) -> Result<(), Astray> {
        match path.metadata() {
            Ok(metadata) => match Self::of(&metadata) {
                now if now == self => Ok(()),
                now => Err(Astray::Another(now)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Astray::Gone),
            Err(error) => Err(Astray::Unseen(error)),
        }
    }
}

impl fmt::Display for SourceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { device, inode } => write!(f, "file {inode} on device {device}"),
            Self::Device { number } => write!(f, "block device {number}"),
            Self::Other => f.write_str("no volume"),
        }
    }
}

impl SourceVolume {
    /// Opens a block device, past the page cache, or a raw image file.
    ///
    /// # Errors
    /// When it is not there, not a volume, not readable, or its length is none
    /// a volume can have.
    pub fn open(path: &Path) -> Result<Self, OpenSourceError> {
        let failed = |source: io::Error| open_failed(path, source);
        let identity = SourceIdentity::of(&path.metadata().map_err(failed)?);
        let direct = match identity {
            SourceIdentity::Device { .. } => libc::O_DIRECT,
            SourceIdentity::File { .. } => 0,
            SourceIdentity::Other => return Err(not_a_volume(path)),
        };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(direct | libc::O_NONBLOCK)
            .open(path)
            .map_err(failed)?;
        // What was opened counts, should the path have changed meanwhile.
        let opened = SourceIdentity::of(&file.metadata().map_err(failed)?);
        if opened != identity {
            return Err(not_a_volume(path));
        }
        let length = length_of(&file).map_err(failed)?;
        let geometry = Geometry::new(length).map_err(|why| OpenSourceError::Length {
            path: path.to_owned(),
            why,
        })?;
        if !identity.is_device() {
            // Advice only: reading works as well without it.
            let _ = fadvise(&file, 0, None, Advice::Sequential);
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            geometry,
            identity,
            left_out: Vec::new(),
        })
    }

    /// The same volume, of which only the first `length` bytes count: a copy may lie in
    /// a larger one.
    ///
    /// # Errors
    /// When it does not have as many, or no volume has this length.
    pub fn narrowed(self, length: u64) -> Result<Self, OpenSourceError> {
        let path = || self.path.clone();
        let have = self.length();
        if have < length {
            return Err(OpenSourceError::TooShort {
                path: path(),
                have,
                need: length,
            });
        }
        let geometry =
            Geometry::new(length).map_err(|why| OpenSourceError::Length { path: path(), why })?;
        Ok(Self { geometry, ..self })
    }

    /// The same volume, of which these bytes read as zeros, without being looked at: whole
    /// blocks, in order.
    pub fn leaving_out(self, left_out: Vec<Range<u64>>) -> Self {
        Self { left_out, ..self }
    }

    /// What reads as zeros, whatever is there.
    pub fn left_out(&self) -> &[Range<u64>] {
        &self.left_out
    }

    /// Drops what is cached of the volume, so that reading it reads the disk. A hint:
    /// what is not durable stays cached.
    pub fn drop_cache(&self) {
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes when it was opened.
    pub fn length(&self) -> u64 {
        self.geometry.length()
    }

    /// Its cut into blocks.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// What it is, to be compared with what is found at the path later.
    pub fn identity(&self) -> SourceIdentity {
        self.identity
    }

    /// Checks that the path still leads to this volume and that its length is
    /// the same.
    ///
    /// # Errors
    /// The way it changed.
    pub fn check_unchanged(&self) -> Result<(), SourceChanged> {
        let path = self.path.clone();
        let was = self.identity;
        match was.is_at(&path) {
            Ok(()) => {}
            Err(Astray::Gone) => return Err(SourceChanged::Disappeared { path }),
            Err(Astray::Another(now)) => return Err(SourceChanged::Replaced { path, was, now }),
            Err(Astray::Unseen(source)) => return Err(SourceChanged::Io { path, source }),
        }
        let was = self.length();
        match length_of(&self.file) {
            Ok(now) if now > was => Err(SourceChanged::Grown { path, was, now }),
            Ok(now) if now < was => Err(SourceChanged::Shrunk { path, was, now }),
            Ok(_) => Ok(()),
            Err(source) => Err(SourceChanged::Io { path, source }),
        }
    }

    /// The next range of bytes at or after `offset` that may hold data; all
    /// before it reads as zeros. None when only zeros follow. A block device
    /// is data everywhere.
    ///
    /// Beyond `until` nothing is of interest: data that begins there is given
    /// without its end, as an empty range, and in a short range up to there no
    /// hole is looked for behind data. A file system in memory finds the end of
    /// data page by page, which is dearer than reading so little.
    ///
    /// # Errors
    /// When the file cannot be asked.
    pub fn next_data(&self, offset: u64, until: u64) -> Result<Option<Range<u64>>, ReadError> {
        let mut offset = offset;
        while let Some(data) = self.data_from(offset, until)? {
            let mut left_out = self.left_out.iter();
            match left_out.find(|left_out| data.start < left_out.end) {
                Some(left_out) if left_out.start <= data.start => offset = left_out.end,
                Some(left_out) => return Ok(Some(data.start..data.end.min(left_out.start))),
                None => return Ok(Some(data)),
            }
        }
        Ok(None)
    }

    /// The same of all that is there.
    fn data_from(&self, offset: u64, until: u64) -> Result<Option<Range<u64>>, ReadError> {
        let length = self.length();
        if offset >= length {
            return Ok(None);
        }
        if self.identity.is_device() {
            return Ok(Some(offset..length));
        }
        let start = match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) if start < length => start,
            Ok(_) | Err(Errno::NXIO) => return Ok(None),
            // The file system knows no holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(offset..length)),
            Err(errno) => return Err(self.read_failed(offset, errno.into())),
        };
        let until = until.min(length).max(start);
        if until - start <= SHORT {
            return Ok(Some(start..until));
        }
        let end = match seek(&self.file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(length),
            // Cut while we looked; reading will say so.
            Err(Errno::NXIO) => length,
            Err(errno) => return Err(self.read_failed(start, errno.into())),
        };
        Ok(Some(start..end))
    }

    /// Reads `count` whole blocks from `first` on to the beginning of `room`,
    /// which lies on a page boundary.
    pub(crate) fn read_into<'b>(
        &self,
        first: BlockIndex,
        count: u64,
        room: &'b mut [u8],
    ) -> Result<&'b [u8], ReadError> {
        let length = self.read_as_is(first, count, room)?.len();
        let (start, bytes) = (first.offset(), &mut room[..length]);
        let end = start + length as u64;
        for left_out in &self.left_out {
            let zeros = left_out.start.max(start)..left_out.end.min(end);
            if zeros.start < zeros.end {
                // Within what was read.
                bytes[(zeros.start - start) as usize..(zeros.end - start) as usize].fill(0);
            }
        }
        Ok(bytes)
    }

    /// The same of what is there, also where that is left out.
    pub(crate) fn read_as_is<'b>(
        &self,
        first: BlockIndex,
        count: u64,
        room: &'b mut [u8],
    ) -> Result<&'b [u8], ReadError> {
        read_run(&self.file, &self.path, self.geometry, (first, count), room)
    }

    fn read_failed(&self, offset: u64, source: io::Error) -> ReadError {
        ReadError::Io {
            path: self.path.clone(),
            offset,
            source,
        }
    }
}

impl ReadBlocks for SourceVolume {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_blocks<'b>(
        &self,
        first: BlockIndex,
        count: u64,
        buf: &'b mut AlignedBuf,
    ) -> Result<&'b [u8], ReadError> {
        self.read_into(first, count, buf.bytes_mut())
    }

    fn is_hole(&self, first: BlockIndex, count: u64) -> bool {
        // A device is read in full, whatever its kernel says of holes.
        !self.identity.is_device() && is_hole(&self.file, self.geometry.run_range(first, count))
    }
}

/// Whether a file has no data in a range of bytes, for sources and targets
/// alike. What cannot be asked is read, which fails where the disk does.
pub(crate) fn is_hole(file: &File, range: Range<u64>) -> bool {
    match seek(file, SeekFrom::Data(range.start)) {
        Ok(data) => data >= range.end,
        // Nothing but a hole to the end, or the file was cut before.
        Err(Errno::NXIO) => length_of(file).is_ok_and(|length| length >= range.end),
        Err(_) => false,
    }
}

/// Reads whole blocks of an open volume, for sources and targets alike.
pub(crate) fn read_run<'b>(
    file: &File,
    path: &Path,
    geometry: Geometry,
    (first, count): (BlockIndex, u64),
    room: &'b mut [u8],
) -> Result<&'b [u8], ReadError> {
    let blocks = (room.len() / BLOCK_SIZE) as u64;
    if !geometry.contains_run(first, count) || count > blocks {
        return Err(ReadError::Outside {
            path: path.to_owned(),
            first,
            count,
        });
    }
    let range = geometry.run_range(first, count);
    // At most the room there is, as checked above.
    let bytes = &mut room[..(range.end - range.start) as usize];
    read_exactly(file, path, geometry.length(), range.start, bytes)?;
    Ok(bytes)
}

/// Fills `bytes` from `offset` on. Fewer bytes than asked for are an error:
/// zeros in their place would be taken for content.
pub(crate) fn read_exactly(
    file: &File,
    path: &Path,
    length: u64,
    offset: u64,
    bytes: &mut [u8],
) -> Result<(), ReadError> {
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + done as u64;
        match file.read_at(&mut bytes[done..], at) {
            Ok(0) => {
                return Err(ReadError::Short {
                    path: path.to_owned(),
                    offset: at,
                    length,
                });
            }
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(ReadError::Io {
                    path: path.to_owned(),
                    offset: at,
                    source,
                });
            }
        }
    }
    Ok(())
}

/// The length in bytes of a file or, by seeking to its end, of a device.
pub(crate) fn length_of(file: &File) -> io::Result<u64> {
    Ok(seek(file, SeekFrom::End(0))?)
}

fn not_a_volume(path: &Path) -> OpenSourceError {
    OpenSourceError::NotAVolume {
        path: path.to_owned(),
    }
}

fn open_failed(path: &Path, source: io::Error) -> OpenSourceError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => OpenSourceError::Missing { path },
        io::ErrorKind::PermissionDenied => OpenSourceError::Denied { path },
        _ => OpenSourceError::Io { path, source },
    }
}

#[cfg(test)]
mod tests;
