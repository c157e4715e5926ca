//! The bytes of a stored tree, format 2. No IO.
//!
//! ```text
//! header   4096 bytes   magic 8 | format u32 | 0 u32 | tag 16 | length u64 | sum 32 | zeros
//! records  128 a group  node 32 | mark 32 | zeros 56 | sum 8; padded to 4096
//! pages    8192 a group one 32-byte entry for each block, zeros after the last
//! ```
//!
//! Numbers are little-endian. Sums are BLAKE3, cut to their field; that of a
//! record begins with the group's number, so that a record at the wrong place
//! does not match. The mark says which entries the page must hold, and so is its
//! checksum. Zeros for a mark are a blank group, zeros for a node one that is not
//! known. A record is so long that none lies in two sectors: what is written
//! later of a settled group, its node, cannot tear it.

use blocks::{BLANK_MARK, Geometry, Leaf, Mark, Node, group_mark};

use super::VolumeTag;

pub(super) const FORMAT: u32 = 2;
pub(super) const HEADER_LEN: usize = 4096;
pub(super) const RECORD_LEN: usize = 128;
pub(super) const PAGE_LEN: usize = 8192;

const MAGIC: &[u8; 8] = b"DUNLTREE";
const SUMMED_HEADER: usize = 40;
const SUMMED_RECORD: usize = 120;

/// Where records and pages lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    groups: u64,
}

/// The header's content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) tag: VolumeTag,
    pub(super) length: u64,
}

/// Why a header cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    NotATree,
    Newer(u32),
    Older,
    Corrupt,
}

/// What is stored of a group beside its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) node: Node,
    pub(super) mark: Mark,
}

impl Layout {
    pub(super) fn new(geometry: Geometry) -> Self {
        Self {
            groups: geometry.groups(),
        }
    }

    pub(super) fn record(&self, group: u64) -> u64 {
        HEADER_LEN as u64 + group * RECORD_LEN as u64
    }

    pub(super) fn page(&self, group: u64) -> u64 {
        let records_end = self.record(self.groups);
        records_end.next_multiple_of(HEADER_LEN as u64) + group * PAGE_LEN as u64
    }

    pub(super) fn file_len(&self) -> u64 {
        self.page(self.groups)
    }

    /// The group whose page holds the byte at `offset`, which is in a page.
    pub(super) fn group_at(&self, offset: u64) -> u64 {
        (offset - self.page(0)) / PAGE_LEN as u64
    }
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.tag.0);
        bytes.extend_from_slice(&self.length.to_le_bytes());
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        bytes.resize(HEADER_LEN, 0);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, BadHeader> {
        if &bytes[..8] != MAGIC {
            return Err(BadHeader::NotATree);
        }
        // Before the sum: another format may sum something else.
        let format = u32::from_le_bytes(field(bytes, 8));
        if format > FORMAT {
            return Err(BadHeader::Newer(format));
        }
        if format < FORMAT {
            return Err(BadHeader::Older);
        }
        let sum: [u8; 32] = field(bytes, SUMMED_HEADER);
        if blake3::hash(&bytes[..SUMMED_HEADER]) != sum {
            return Err(BadHeader::Corrupt);
        }
        Ok(Self {
            tag: VolumeTag(field(bytes, 16)),
            length: u64::from_le_bytes(field(bytes, 32)),
        })
    }
}

impl Record {
    /// That of a blank group of which nothing was computed: zeros.
    pub(super) const NOTHING: Self = Self {
        node: Node([0; 32]),
        mark: BLANK_MARK,
    };

    pub(super) fn is_blank(&self) -> bool {
        self.mark == BLANK_MARK
    }

    /// Whether these are the bytes the record was made for, of a group of so
    /// many blocks.
    pub(super) fn matches(&self, page: &[u8], blocks: u64) -> bool {
        group_mark(&decode_page(page, blocks)) == self.mark
    }

    pub(super) fn encode(&self, group: u64) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[..32].copy_from_slice(&self.node.0);
        bytes[32..64].copy_from_slice(&self.mark.0);
        let own: [u8; 8] = cut(sum(group, &bytes[..SUMMED_RECORD]));
        bytes[SUMMED_RECORD..].copy_from_slice(&own);
        bytes
    }

    /// The record, or none when these bytes are not one of this group.
    pub(super) fn decode(group: u64, bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        if bytes == &[0; RECORD_LEN] {
            return Some(Self::NOTHING);
        }
        let own: [u8; 8] = field(bytes, SUMMED_RECORD);
        if cut::<8>(sum(group, &bytes[..SUMMED_RECORD])) != own {
            return None;
        }
        Some(Self {
            node: Node(field(bytes, 0)),
            mark: Mark(field(bytes, 32)),
        })
    }
}

pub(super) fn encode_page(entries: &[Leaf]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PAGE_LEN);
    for entry in entries {
        bytes.extend_from_slice(&entry.0);
    }
    bytes.resize(PAGE_LEN, 0);
    bytes
}

pub(super) fn decode_page(bytes: &[u8], blocks: u64) -> Vec<Leaf> {
    let (entries, _) = bytes.as_chunks::<32>();
    let entries = entries.iter().zip(0..blocks);
    entries.map(|(entry, _)| Leaf(*entry)).collect()
}

fn sum(group: u64, bytes: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&group.to_le_bytes()).update(bytes);
    hasher.finalize()
}

fn cut<const N: usize>(sum: blake3::Hash) -> [u8; N] {
    field(sum.as_bytes(), 0)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("every field lies within its fixed-size bytes")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn header() -> Header {
        Header {
            tag: VolumeTag(*b"0123456789abcdef"),
            length: 0x0102_0304,
        }
    }

    #[test]
    fn the_header_is_these_bytes() {
        let bytes = header().encode();
        assert_eq!(
            &bytes[..SUMMED_HEADER],
            b"DUNLTREE\x02\0\0\0\0\0\0\x000123456789abcdef\x04\x03\x02\x01\0\0\0\0"
        );
        let bytes: &[u8; HEADER_LEN] = bytes.as_slice().try_into().unwrap();
        assert_eq!(Header::decode(bytes), Ok(header()));
    }

    #[test]
    fn every_change_of_a_summed_header_byte_is_noticed() {
        for at in 0..SUMMED_HEADER + 32 {
            let mut bytes: [u8; HEADER_LEN] = header().encode().try_into().unwrap();
            bytes[at] ^= 0x40;
            assert!(Header::decode(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn another_format_is_told_apart_from_damage() {
        let mut bytes: [u8; HEADER_LEN] = header().encode().try_into().unwrap();
        bytes[8] = 3;
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Newer(3)));
        bytes[8] = 1;
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Older));
    }

    #[test]
    fn the_record_is_these_bytes() {
        let entries = [Leaf([1; 32]); 256];
        let page = encode_page(&entries);
        let record = Record {
            node: Node([7; 32]),
            mark: group_mark(&entries),
        };
        let bytes = record.encode(5);
        assert_eq!(bytes[..32], [7; 32]);
        let context = "dunlin 2026 mark of a group v1";
        assert_eq!(bytes[32..64], blake3::derive_key(context, &page));
        assert_eq!(bytes[64..120], [0; 56]);
        let mut summed = 5u64.to_le_bytes().to_vec();
        summed.extend_from_slice(&bytes[..120]);
        assert_eq!(bytes[120..], blake3::hash(&summed).as_bytes()[..8]);
        assert_eq!(Record::decode(5, &bytes), Some(record));
    }

    #[test]
    fn a_page_matches_the_record_that_was_made_for_it_alone() {
        let entries = [Leaf([1; 32]), Leaf([0; 32]), Leaf([2; 32])];
        let mut page = encode_page(&entries);
        let record = |entries| Record {
            node: Node([7; 32]),
            mark: group_mark(entries),
        };
        assert!(record(&entries).matches(&page, 3));
        assert!(!record(&entries[..2]).matches(&page, 3));
        for at in 0..96 {
            page[at] ^= 1;
            assert!(!record(&entries).matches(&page, 3), "byte {at}");
            page[at] ^= 1;
        }
        assert!(record(&[Leaf([0; 32])]).matches(&[0; PAGE_LEN], 3));
    }

    #[test]
    fn a_record_at_another_place_or_with_a_changed_byte_is_none() {
        let record = Record {
            node: Node([7; 32]),
            mark: BLANK_MARK,
        };
        let bytes = record.encode(5);
        assert_eq!(Record::decode(6, &bytes), None);
        for at in 0..RECORD_LEN {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert_eq!(Record::decode(5, &changed), None, "byte {at}");
        }
    }

    #[test]
    fn pages_follow_the_padded_records() {
        let layout = Layout::new(Geometry::new(3 * (16 << 20)).unwrap());
        assert_eq!(layout.record(1), 4096 + 128);
        assert_eq!(layout.page(0), 8192);
        assert_eq!(layout.file_len(), 8192 + 3 * 8192);
        assert_eq!(layout.group_at(8192 + 8191), 0);
        assert_eq!(layout.group_at(8192 + 8192), 1);
    }
}
