//! The bytes of a fingerprint index, format 1. No IO.
//!
//! ```text
//! header   4096 bytes   magic 8 | format u32 | 0 u32 | buckets u64 | seed 32 | sum 32 | zeros
//! table    32 a slot     tag of its volume 16, zeros for none | turn u16 | zeros; 4096 slots
//! buckets  512 each     32 entries: key u64 | slot u16 | turn u16 | block u32; zeros for none
//! ```
//!
//! Numbers are little-endian. A bucket is a sector: with larger ones copying and
//! going through them costs more than the calls, with smaller ones more is pushed
//! out before the whole is full. Bucket and key come from BLAKE3 of the
//! fingerprint, keyed with the seed.

use super::VolumeTag;

pub(super) const SLOTS: usize = 4096;
pub(super) const TABLE_LEN: usize = SLOTS * SLOT_LEN;
pub(super) const BUCKET_LEN: usize = 512;
pub(super) const ENTRY_LEN: usize = 16;

const MAGIC: &[u8; 8] = b"DUNLFPIX";
const FORMAT: u32 = 1;
const SUMMED: usize = 56;
const TAG_LEN: usize = 16;
const SLOT_LEN: usize = 32;

/// Entries of a full bucket that are looked at for one that does not count any
/// more: enough to empty an index of a volume that is gone, and cheap.
const PROBES: usize = 8;

/// How many buckets there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    buckets: u64,
}

/// The header's content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) layout: Layout,
    pub(super) seed: [u8; 32],
}

/// What stands for one volume in the entries. A turn tells its entries from
/// those of whatever had the slot before; it begins again after 65536, and where
/// it does not tell them apart a hash does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) volume: Option<VolumeTag>,
    pub(super) turn: u16,
}

/// One place of one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Never 0.
    pub(super) key: u64,
    pub(super) slot: u16,
    pub(super) turn: u16,
    pub(super) block: u32,
}

/// The entries that may hold a key, as bytes.
pub(super) struct Bucket<'b>(pub(super) &'b [u8; BUCKET_LEN]);

impl Layout {
    /// Where the table begins.
    pub(super) const TABLE: u64 = Header::LEN as u64;

    const BUCKETS: u64 = Self::TABLE + TABLE_LEN as u64;

    /// As many buckets as fit, one at least.
    pub(super) fn new(max_bytes: u64) -> Self {
        let buckets = max_bytes.saturating_sub(Self::BUCKETS) / BUCKET_LEN as u64;
        Self {
            buckets: buckets.max(1),
        }
    }

    pub(super) fn file_len(self) -> u64 {
        Self::BUCKETS + self.buckets * BUCKET_LEN as u64
    }

    /// Where a slot is in the file.
    pub(super) fn slot(slot: u16) -> u64 {
        Self::TABLE + u64::from(slot) * SLOT_LEN as u64
    }

    /// Where the bucket of a fingerprint is, and its key there.
    pub(super) fn locate(self, seed: &[u8; 32], fingerprint: u64) -> (u64, u64) {
        let hash = blake3::keyed_hash(seed, &fingerprint.to_le_bytes());
        let [drawn, key] = [0, 8].map(|at| u64::from_le_bytes(field(hash.as_bytes(), at)));
        // Below `buckets`, each as likely as any.
        let bucket = ((u128::from(drawn) * u128::from(self.buckets)) >> 64) as u64;
        (Self::BUCKETS + bucket * BUCKET_LEN as u64, key.max(1))
    }
}

/// Where an entry of the bucket at `bucket` is.
pub(super) fn entry(bucket: u64, spot: usize) -> u64 {
    bucket + (spot * ENTRY_LEN) as u64
}

impl Slot {
    pub(super) fn encode(self) -> [u8; SLOT_LEN] {
        let mut bytes = [0; SLOT_LEN];
        bytes[..TAG_LEN].copy_from_slice(&self.volume.map_or([0; TAG_LEN], |volume| volume.0));
        bytes[TAG_LEN..TAG_LEN + 2].copy_from_slice(&self.turn.to_le_bytes());
        bytes
    }
}

/// All slots, of the table's bytes.
pub(super) fn decode_table(bytes: &[u8]) -> Vec<Slot> {
    let (slots, _) = bytes.as_chunks::<SLOT_LEN>();
    let slot = |bytes: &[u8; SLOT_LEN]| {
        let tag: [u8; TAG_LEN] = field(bytes, 0);
        Slot {
            volume: (tag != [0; TAG_LEN]).then_some(VolumeTag(tag)),
            turn: u16::from_le_bytes(field(bytes, TAG_LEN)),
        }
    };
    slots.iter().map(slot).collect()
}

impl Header {
    pub(super) const LEN: usize = 4096;

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.layout.buckets.to_le_bytes());
        bytes.extend_from_slice(&self.seed);
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        bytes.resize(Self::LEN, 0);
        bytes
    }

    /// None for anything but a header of this format.
    pub(super) fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let sum: [u8; 32] = field(bytes, SUMMED);
        let fits = &bytes[..8] == MAGIC
            && field(bytes, 8) == FORMAT.to_le_bytes()
            && blake3::hash(&bytes[..SUMMED]) == sum;
        fits.then(|| Self {
            layout: Layout {
                buckets: u64::from_le_bytes(field(bytes, 16)),
            },
            seed: field(bytes, 24),
        })
    }
}

impl Entry {
    pub(super) fn encode(self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..8].copy_from_slice(&self.key.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.slot.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.turn.to_le_bytes());
        bytes[12..].copy_from_slice(&self.block.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; ENTRY_LEN]) -> Self {
        Self {
            key: key_of(bytes),
            slot: u16::from_le_bytes(field(bytes, 8)),
            turn: u16::from_le_bytes(field(bytes, 10)),
            block: u32::from_le_bytes(field(bytes, 12)),
        }
    }
}

impl<'b> Bucket<'b> {
    /// The entries with this key.
    pub(super) fn of_key(&self, key: u64) -> impl Iterator<Item = Entry> + use<'b> {
        let found = self.entries().filter(move |bytes| key_of(bytes) == key);
        found.map(Entry::decode)
    }

    /// Where an entry goes, none if it is there already: where nothing is, or
    /// in the place of another that `draw` picks. Beside at most `most` of its
    /// key.
    pub(super) fn spot(
        &self,
        entry: Entry,
        most: usize,
        draw: usize,
        is_live: impl Fn(Entry) -> bool,
    ) -> Option<usize> {
        let (mut empty, mut of_key) = (None, Vec::new());
        for (spot, bytes) in self.entries().enumerate() {
            match key_of(bytes) {
                0 => empty = empty.or(Some(spot)),
                key if key == entry.key => of_key.push((spot, Entry::decode(bytes))),
                _ => {}
            }
        }
        if of_key.iter().any(|(_, other)| *other == entry) {
            return None;
        }
        let dead = of_key.iter().find(|(_, other)| !is_live(*other));
        if let Some((spot, _)) = dead {
            return Some(*spot);
        }
        if of_key.len() >= most {
            return Some(of_key[draw % of_key.len()].0);
        }
        empty.or_else(|| {
            let (entries, _) = self.0.as_chunks::<ENTRY_LEN>();
            let mut drawn = (draw..draw.wrapping_add(PROBES)).map(|at| at % entries.len());
            let dead = drawn
                .clone()
                .find(|at| !is_live(Entry::decode(&entries[*at])));
            dead.or_else(|| drawn.next())
        })
    }

    fn entries(&self) -> impl Iterator<Item = &'b [u8; ENTRY_LEN]> + use<'b> {
        let (entries, _) = self.0.as_chunks::<ENTRY_LEN>();
        entries.iter()
    }
}

fn key_of(entry: &[u8; ENTRY_LEN]) -> u64 {
    u64::from_le_bytes(field(entry, 0))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the field is inside")
}
