//! Where blocks with a certain content were last seen: from the fingerprint of
//! a block to places that may hold it, for references instead of bytes.
//!
//! It may be wrong without harm, and says nothing for sure: what it leads to is
//! read and hashed by whoever uses it, so that a crash, a torn entry or one
//! that was overwritten costs a miss and no more. So nothing is synced, and
//! what does not fit is begun anew. Its size is given when it is made and never
//! grows; where a bucket is full, what is new takes the place of something old.
//!
//! Not here: making fingerprints, and who may be told of which volume.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use blocks::BlockIndex;

use crate::VolumeTag;

mod layout;

use layout::{BUCKET_LEN, Bucket, Entry, Header, Layout, Slot};

/// Volumes that an index knows at most. One more takes the place of another.
pub const MAX_INDEXED_VOLUMES: usize = layout::SLOTS;

/// Places that are kept of one content at most, so that no content fills a
/// bucket however often it is seen.
pub const MAX_PLACES: usize = 8;

/// A block that held certain bytes when it was put into the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its volume, as the caller names it.
    pub volume: VolumeTag,
    /// The block.
    pub block: BlockIndex,
}

/// Why an index could not be used. Whoever needs it goes on without.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} index {path}: {source}")]
pub struct IndexError {
    /// The index.
    pub path: PathBuf,
    /// What was tried.
    pub doing: &'static str,
    /// The cause.
    pub source: io::Error,
}

/// An index in a file, for as many threads as like.
#[derive(Debug)]
pub struct FingerprintIndex {
    path: PathBuf,
    file: File,
    layout: Layout,
    /// Mixed into every fingerprint, so that nobody who chooses contents can
    /// choose buckets.
    seed: [u8; 32],
    volumes: RwLock<Volumes>,
    /// Counts up with every entry, and so picks what a full bucket loses.
    draw: AtomicU64,
}

/// Which slot stands for which volume in the entries.
#[derive(Debug)]
struct Volumes {
    slots: Vec<Slot>,
    numbers: HashMap<VolumeTag, u16>,
    /// The slot that is taken next where none is free.
    next: usize,
}

impl FingerprintIndex {
    /// Opens the index in a file of at most `max_bytes` bytes, which takes no
    /// room until it is used; 16 bytes are an entry, so 256 MiB remember a TiB.
    /// A file that is none, is damaged, or has another size, is begun anew.
    ///
    /// # Errors
    /// When the file cannot be read or made, or no randomness is to be had.
    pub fn open(path: &Path, max_bytes: u64) -> Result<Self, IndexError> {
        let failed = |doing| {
            move |source| IndexError {
                path: path.to_owned(),
                doing,
                source,
            }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed("open"))?;
        let layout = Layout::new(max_bytes);
        let kept = read_header(&file, layout).map_err(failed("read"))?;
        let seed = match kept {
            Some(seed) => seed,
            None => begin(&file, layout).map_err(failed("begin"))?,
        };
        let mut table = vec![0; layout::TABLE_LEN];
        file.read_exact_at(&mut table, Layout::TABLE)
            .map_err(failed("read"))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            layout,
            volumes: RwLock::new(Volumes::new(layout::decode_table(&table))),
            seed,
            draw: AtomicU64::new(0),
        })
    }

    /// Notes that a block of `volume` holds what has this fingerprint.
    ///
    /// # Errors
    /// When the file cannot be read or written: a disk may be full.
    pub fn insert(
        &self,
        fingerprint: u64,
        volume: VolumeTag,
        block: BlockIndex,
    ) -> Result<(), IndexError> {
        // No volume has a block that does not fit.
        let Ok(block) = u32::try_from(block.0) else {
            return Ok(());
        };
        let (slot, turn) = self.slot(volume)?;
        let (bucket, key) = self.layout.locate(&self.seed, fingerprint);
        let entry = Entry {
            key,
            slot,
            turn,
            block,
        };
        let bytes = self.read(bucket)?;
        let draw = self.draw.fetch_add(1, Ordering::Relaxed) as usize;
        let spot = {
            let volumes = self.known();
            let is_live = |entry| volumes.owner(entry).is_some();
            Bucket(&bytes).spot(entry, MAX_PLACES, draw, is_live)
        };
        match spot {
            None => Ok(()),
            Some(spot) => self.write(&entry.encode(), layout::entry(bucket, spot)),
        }
    }

    /// Where what has this fingerprint was seen, at most [`MAX_PLACES`] of
    /// them, of volumes that the index still knows.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn look_up(&self, fingerprint: u64) -> Result<Vec<Place>, IndexError> {
        let (bucket, key) = self.layout.locate(&self.seed, fingerprint);
        let bytes = self.read(bucket)?;
        let volumes = self.known();
        let found = Bucket(&bytes).of_key(key);
        let places = found.filter_map(|entry| {
            Some(Place {
                volume: volumes.owner(entry)?,
                block: BlockIndex(entry.block.into()),
            })
        });
        Ok(places.take(MAX_PLACES).collect())
    }

    /// Forgets all places in a volume that is gone.
    ///
    /// # Errors
    /// When the file cannot be written; they are forgotten until it is opened
    /// again.
    pub fn forget(&self, volume: VolumeTag) -> Result<(), IndexError> {
        let mut volumes = self.volumes.write().unwrap_or_else(PoisonError::into_inner);
        match volumes.free(volume) {
            None => Ok(()),
            Some((number, slot)) => self.write(&slot.encode(), Layout::slot(number)),
        }
    }

    /// The volumes it knows, for a caller that forgets those that are gone.
    pub fn volumes(&self) -> Vec<VolumeTag> {
        self.known().numbers.keys().copied().collect()
    }

    /// The slot of a volume and its turn there, new ones if it has none.
    fn slot(&self, volume: VolumeTag) -> Result<(u16, u16), IndexError> {
        if let Some(found) = self.known().find(volume) {
            return Ok(found);
        }
        let mut volumes = self.volumes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = volumes.find(volume) {
            return Ok(found);
        }
        let (number, slot) = volumes.take(volume);
        self.write(&slot.encode(), Layout::slot(number))?;
        Ok((number, slot.turn))
    }

    fn known(&self) -> RwLockReadGuard<'_, Volumes> {
        // What a panicking thread left is right at every moment.
        self.volumes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, bucket: u64) -> Result<[u8; BUCKET_LEN], IndexError> {
        let mut bytes = [0; BUCKET_LEN];
        let read = self.file.read_exact_at(&mut bytes, bucket);
        read.map(|()| bytes)
            .map_err(|error| self.failed("read", error))
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), IndexError> {
        let written = self.file.write_all_at(bytes, at);
        written.map_err(|error| self.failed("write", error))
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> IndexError {
        IndexError {
            path: self.path.clone(),
            doing,
            source,
        }
    }
}

impl Volumes {
    fn new(slots: Vec<Slot>) -> Self {
        let numbers = slots.iter().zip(0..);
        let numbers = numbers.filter_map(|(slot, number)| Some((slot.volume?, number)));
        Self {
            numbers: numbers.collect(),
            slots,
            next: 0,
        }
    }

    /// The slot of a volume, and its turn there.
    fn find(&self, volume: VolumeTag) -> Option<(u16, u16)> {
        let number = *self.numbers.get(&volume)?;
        Some((number, self.slots[usize::from(number)].turn))
    }

    /// The volume of an entry; none when its turn is over.
    fn owner(&self, entry: Entry) -> Option<VolumeTag> {
        let slot = self.slots.get(usize::from(entry.slot))?;
        slot.volume.filter(|_| slot.turn == entry.turn)
    }

    /// Gives a free slot to a volume, or the next one that another has.
    fn take(&mut self, volume: VolumeTag) -> (u16, Slot) {
        let free = self.slots.iter().position(|slot| slot.volume.is_none());
        let at = free.unwrap_or_else(|| {
            let next = self.next;
            self.next = (next + 1) % self.slots.len();
            next
        });
        let slot = &mut self.slots[at];
        slot.turn = slot.turn.wrapping_add(1);
        if let Some(old) = slot.volume.replace(volume) {
            self.numbers.remove(&old);
        }
        // There are fewer slots than 65536.
        self.numbers.insert(volume, at as u16);
        (at as u16, *slot)
    }

    fn free(&mut self, volume: VolumeTag) -> Option<(u16, Slot)> {
        let number = self.numbers.remove(&volume)?;
        let slot = &mut self.slots[usize::from(number)];
        slot.volume = None;
        Some((number, *slot))
    }
}

/// The seed of an index that fits; none where it has to be begun anew.
fn read_header(file: &File, layout: Layout) -> io::Result<Option<[u8; 32]>> {
    if file.metadata()?.len() != layout.file_len() {
        return Ok(None);
    }
    let mut bytes = [0; Header::LEN];
    file.read_exact_at(&mut bytes, 0)?;
    let header = Header::decode(&bytes).filter(|header| header.layout == layout);
    Ok(header.map(|header| header.seed))
}

/// Empties the file and gives it a header, with a seed of its own.
fn begin(file: &File, layout: Layout) -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    file.set_len(0)?;
    file.set_len(layout.file_len())?;
    let header = Header { layout, seed };
    file.write_all_at(&header.encode(), 0)?;
    Ok(seed)
}

#[cfg(test)]
mod tests;
