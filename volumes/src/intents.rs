//! The durable note of the groups that are about to be written. After a crash
//! the groups noted since the last barrier may hold anything, and are hashed
//! again; all others are what the stored tree says.
//!
//! It does not say what was written, nor whether anything was.
//!
//! ```text
//! header  512 bytes   magic 8 | format u32 | 0 u32 | tag 16 | sum 32 | zeros
//! record  512 bytes   count u32 | 0 u32 | group u64 × 61 | sum 16
//! ```
//!
//! Numbers are little-endian; sums are BLAKE3, a record's begins with the tag
//! and its position. Every record is durable before the next one is begun, so
//! only the last one can be torn, and nothing was written under that.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use blocks::GroupIndex;

use crate::VolumeTag;
use crate::locked::LockedFile;

const MAGIC: &[u8; 8] = b"DUNLNOTE";
const FORMAT: u32 = 1;
/// One sector: the piece that disks write whole or not at all.
const RECORD_LEN: usize = 512;
const GROUPS_A_RECORD: usize = 61;
const SUMMED_HEADER: usize = 32;
const SUMMED_RECORD: usize = RECORD_LEN - 16;

/// More than this is no file of ours: each barrier empties it.
const MAX_RECORDS: u64 = 1 << 22;

/// Why the notes could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenIntentsError {
    /// Another process uses them.
    #[error("write notes {path} are in use by another process: stop it first")]
    Busy {
        /// The path.
        path: PathBuf,
    },
    /// A later version of this program wrote them.
    #[error("write notes {path} have format {have}, this program knows up to {known}: upgrade it")]
    NewerVersion {
        /// The path.
        path: PathBuf,
        /// The format found.
        have: u32,
        /// The newest format known.
        known: u32,
    },
    /// They belong to another volume.
    #[error("write notes {path} are of another volume")]
    OtherVolume {
        /// The path.
        path: PathBuf,
    },
    /// They cannot be trusted, so any group may have been written.
    #[error("write notes {path} are damaged: {why}; the whole target has to be hashed again")]
    Corrupt {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// Anything else.
    #[error("cannot open write notes {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Why groups could not be noted or the notes not cleared. The notes stay
/// failed: what is on disk is no longer known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntentError {
    /// There is no space left.
    #[error("no space left for write notes {path}: free some space, then resume")]
    Full {
        /// The path.
        path: PathBuf,
    },
    /// The file failed, now or before.
    #[error("cannot write notes to {path}: {why}")]
    Failed {
        /// The path.
        path: PathBuf,
        /// The cause.
        why: String,
    },
}

/// The notes of one volume, open in one process.
#[derive(Debug)]
pub struct Intents {
    path: PathBuf,
    file: LockedFile,
    tag: VolumeTag,
    outstanding: BTreeSet<GroupIndex>,
    records: u64,
    failed: Option<IntentError>,
}

impl Intents {
    /// Opens the notes of a volume, or begins them.
    ///
    /// # Errors
    /// When they are in use, of another volume or a newer format, or damaged.
    pub fn open(path: &Path, tag: VolumeTag) -> Result<Self, OpenIntentsError> {
        let failed = |source| open_failed(path, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let file = LockedFile::lock(file).map_err(failed)?;
        let mut intents = Self {
            path: path.to_owned(),
            file,
            tag,
            outstanding: BTreeSet::new(),
            records: 0,
            failed: None,
        };
        let len = intents.file.metadata().map_err(failed)?.len();
        if intents.is_unbegun(len).map_err(failed)? {
            intents.begin().map_err(failed)?;
            return Ok(intents);
        }
        intents.check_header()?;
        intents.read_records(len)?;
        Ok(intents)
    }

    /// The groups noted and not cleared.
    pub fn outstanding(&self) -> impl Iterator<Item = GroupIndex> + '_ {
        self.outstanding.iter().copied()
    }

    /// Notes groups; they are durable when this returns. Those that are noted
    /// already cost nothing.
    ///
    /// # Errors
    /// When they could not be made durable: nothing may be written then.
    pub fn note(&mut self, groups: &[GroupIndex]) -> Result<(), IntentError> {
        self.check_sound()?;
        let mut fresh: Vec<GroupIndex> = groups.to_vec();
        fresh.sort_unstable();
        fresh.dedup();
        fresh.retain(|group| !self.outstanding.contains(group));
        for groups in fresh.chunks(GROUPS_A_RECORD) {
            let record = encode_record(self.tag, self.records, groups);
            let offset = (self.records + 1) * RECORD_LEN as u64;
            let written = self.file.write_all_at(&record, offset);
            self.settle(written.and_then(|()| self.file.sync_data()))?;
            self.records += 1;
            self.outstanding.extend(groups);
        }
        Ok(())
    }

    /// Forgets all groups: at a barrier, once data and tree are durable.
    ///
    /// # Errors
    /// When that could not be made durable.
    pub fn clear(&mut self) -> Result<(), IntentError> {
        self.check_sound()?;
        if self.records == 0 {
            return Ok(());
        }
        let cut = self.file.set_len(RECORD_LEN as u64);
        self.settle(cut.and_then(|()| self.file.sync_data()))?;
        self.records = 0;
        self.outstanding.clear();
        Ok(())
    }

    /// Whether we were stopped before the header was durable, so that nothing
    /// was ever noted: the file may have its length before its bytes.
    fn is_unbegun(&self, len: u64) -> io::Result<bool> {
        let mut header = [0; RECORD_LEN];
        match len.cmp(&(RECORD_LEN as u64)) {
            Ordering::Less => Ok(true),
            Ordering::Greater => Ok(false),
            Ordering::Equal => {
                self.file.read_exact_at(&mut header, 0)?;
                Ok(blocks::is_zero(&header))
            }
        }
    }

    fn begin(&self) -> io::Result<()> {
        let mut header = Vec::with_capacity(RECORD_LEN);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&self.tag.0);
        let sum = blake3::hash(&header);
        header.extend_from_slice(sum.as_bytes());
        header.resize(RECORD_LEN, 0);
        self.file.write_all_at(&header, 0)?;
        self.file.sync_all()?;
        // The name has to be durable too, or the notes are lost with it.
        let folder = self.path.parent().filter(|at| !at.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn check_header(&self) -> Result<(), OpenIntentsError> {
        let path = self.path.clone();
        let mut header = [0; RECORD_LEN];
        let read = self.file.read_exact_at(&mut header, 0);
        read.map_err(|source| open_failed(&path, source))?;
        if &header[..8] != MAGIC {
            let why = "they do not begin as notes do";
            return Err(OpenIntentsError::Corrupt { path, why });
        }
        let have = u32::from_le_bytes(field(&header, 8));
        if have > FORMAT {
            return Err(OpenIntentsError::NewerVersion {
                path,
                have,
                known: FORMAT,
            });
        }
        let sum: [u8; 32] = field(&header, SUMMED_HEADER);
        if have != FORMAT || blake3::hash(&header[..SUMMED_HEADER]) != sum {
            let why = "their header does not match its checksum";
            return Err(OpenIntentsError::Corrupt { path, why });
        }
        match VolumeTag(field(&header, 16)) == self.tag {
            true => Ok(()),
            false => Err(OpenIntentsError::OtherVolume { path }),
        }
    }

    fn read_records(&mut self, len: u64) -> Result<(), OpenIntentsError> {
        let record_len = RECORD_LEN as u64;
        let whole = len / record_len - 1;
        let corrupt = |why| OpenIntentsError::Corrupt {
            path: self.path.clone(),
            why,
        };
        if whole > MAX_RECORDS {
            return Err(corrupt("there are too many"));
        }
        let mut bytes = [0; RECORD_LEN];
        for position in 0..whole {
            let read = self
                .file
                .read_exact_at(&mut bytes, (position + 1) * record_len);
            read.map_err(|source| open_failed(&self.path, source))?;
            let Some(groups) = decode_record(self.tag, position, &bytes) else {
                let last = (position + 2) * record_len >= len;
                match last {
                    true => break,
                    false => return Err(corrupt("a record does not match its checksum")),
                }
            };
            self.outstanding.extend(groups);
            self.records = position + 1;
        }
        // A torn record would be in the middle after the next note.
        let end = (self.records + 1) * record_len;
        if end < len {
            self.file
                .set_len(end)
                .and_then(|()| self.file.sync_data())
                .map_err(|source| open_failed(&self.path, source))?;
        }
        Ok(())
    }

    fn settle(&mut self, result: io::Result<()>) -> Result<(), IntentError> {
        result.map_err(|error| {
            let path = self.path.clone();
            let failed = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    IntentError::Full { path }
                }
                _ => IntentError::Failed {
                    path,
                    why: error.to_string(),
                },
            };
            self.failed.get_or_insert(failed).clone()
        })
    }

    fn check_sound(&self) -> Result<(), IntentError> {
        match &self.failed {
            Some(failed) => Err(failed.clone()),
            None => Ok(()),
        }
    }
}

fn encode_record(tag: VolumeTag, position: u64, groups: &[GroupIndex]) -> [u8; RECORD_LEN] {
    let mut bytes = [0; RECORD_LEN];
    // At most GROUPS_A_RECORD.
    bytes[..4].copy_from_slice(&(groups.len() as u32).to_le_bytes());
    for (slot, group) in bytes[8..SUMMED_RECORD].chunks_exact_mut(8).zip(groups) {
        slot.copy_from_slice(&group.0.to_le_bytes());
    }
    let sum = record_sum(tag, position, &bytes);
    bytes[SUMMED_RECORD..].copy_from_slice(&sum);
    bytes
}

fn decode_record(
    tag: VolumeTag,
    position: u64,
    bytes: &[u8; RECORD_LEN],
) -> Option<Vec<GroupIndex>> {
    if record_sum(tag, position, bytes) != field::<16>(bytes, SUMMED_RECORD) {
        return None;
    }
    let count = u32::from_le_bytes(field(bytes, 0)) as usize;
    let groups = bytes[8..SUMMED_RECORD].chunks_exact(8);
    let groups = groups.map(|slot| GroupIndex(u64::from_le_bytes(field(slot, 0))));
    (count <= GROUPS_A_RECORD).then(|| groups.take(count).collect())
}

fn record_sum(tag: VolumeTag, position: u64, bytes: &[u8; RECORD_LEN]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&tag.0).update(&position.to_le_bytes());
    hasher.update(&bytes[..SUMMED_RECORD]);
    field(hasher.finalize().as_bytes(), 0)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("every field lies within its fixed-size bytes")
}

fn open_failed(path: &Path, source: io::Error) -> OpenIntentsError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::WouldBlock => OpenIntentsError::Busy { path },
        _ => OpenIntentsError::Io { path, source },
    }
}

#[cfg(test)]
mod tests;
