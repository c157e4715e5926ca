//! The bytes of a stored tree, format 1. No IO.
//!
//! ```text
//! header   4096 bytes   magic 8 | format u32 | 0 u32 | tag 16 | length u64 | sum 32 | zeros
//! records  64 a group   node 32 | page sum 16 | kind u8 | zeros 7 | sum 8; padded to 4096
//! pages    8192 a group one 32-byte entry for each block, zeros after the last
//! ```
//!
//! Numbers are little-endian. Sums are BLAKE3, cut to their field; those of
//! records and pages begin with the group's number, so that a page or record
//! at the wrong place does not match. A record of zeros is a blank group whose
//! node is not known.

use blocks::{Geometry, Leaf, Node};

use super::VolumeTag;

pub(super) const FORMAT: u32 = 1;
pub(super) const HEADER_LEN: usize = 4096;
pub(super) const RECORD_LEN: usize = 64;
pub(super) const PAGE_LEN: usize = 8192;

const MAGIC: &[u8; 8] = b"DUNLTREE";
const SUMMED_HEADER: usize = 40;
const KIND_BLANK: u8 = 0;
const KIND_STORED: u8 = 1;

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
    Corrupt,
}

/// What is stored of a group beside its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) node: Node,
    page: PageSum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PageSum {
    Blank,
    Stored([u8; 16]),
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
        let sum: [u8; 32] = field(bytes, SUMMED_HEADER);
        if format != FORMAT || blake3::hash(&bytes[..SUMMED_HEADER]) != sum {
            return Err(BadHeader::Corrupt);
        }
        Ok(Self {
            tag: VolumeTag(field(bytes, 16)),
            length: u64::from_le_bytes(field(bytes, 32)),
        })
    }
}

impl Record {
    pub(super) fn blank(node: Node) -> Self {
        Self {
            node,
            page: PageSum::Blank,
        }
    }

    pub(super) fn stored(group: u64, node: Node, page: &[u8]) -> Self {
        Self {
            node,
            page: PageSum::Stored(cut(sum(group, page))),
        }
    }

    pub(super) fn is_blank(&self) -> bool {
        self.page == PageSum::Blank
    }

    /// Whether these are the bytes the record was made for.
    pub(super) fn matches(&self, group: u64, page: &[u8]) -> bool {
        match self.page {
            PageSum::Blank => blocks::is_zero(page),
            PageSum::Stored(expected) => cut(sum(group, page)) == expected,
        }
    }

    pub(super) fn encode(&self, group: u64) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[..32].copy_from_slice(&self.node.0);
        if let PageSum::Stored(sum) = self.page {
            bytes[32..48].copy_from_slice(&sum);
            bytes[48] = KIND_STORED;
        }
        let own: [u8; 8] = cut(sum(group, &bytes[..56]));
        bytes[56..].copy_from_slice(&own);
        bytes
    }

    /// The record, or none when these bytes are not one of this group.
    pub(super) fn decode(group: u64, bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        if bytes == &[0; RECORD_LEN] {
            return Some(Self::blank(Node([0; 32])));
        }
        let own: [u8; 8] = field(bytes, 56);
        if cut::<8>(sum(group, &bytes[..56])) != own {
            return None;
        }
        let page = match bytes[48] {
            KIND_BLANK => PageSum::Blank,
            KIND_STORED => PageSum::Stored(field(bytes, 32)),
            _ => return None,
        };
        Some(Self {
            node: Node(field(bytes, 0)),
            page,
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
            b"DUNLTREE\x01\0\0\0\0\0\0\x000123456789abcdef\x04\x03\x02\x01\0\0\0\0"
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
    fn a_later_format_is_told_apart_from_damage() {
        let mut bytes: [u8; HEADER_LEN] = header().encode().try_into().unwrap();
        bytes[8] = 2;
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Newer(2)));
    }

    #[test]
    fn the_record_is_these_bytes() {
        let record = Record::stored(5, Node([7; 32]), &[1; PAGE_LEN]);
        let bytes = record.encode(5);
        assert_eq!(bytes[..32], [7; 32]);
        let mut summed = 5u64.to_le_bytes().to_vec();
        summed.extend_from_slice(&[1; PAGE_LEN]);
        assert_eq!(bytes[32..48], blake3::hash(&summed).as_bytes()[..16]);
        assert_eq!(bytes[48..56], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Record::decode(5, &bytes), Some(record));
    }

    #[test]
    fn a_record_at_another_place_or_with_a_changed_byte_is_none() {
        let bytes = Record::blank(Node([7; 32])).encode(5);
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
        assert_eq!(layout.record(1), 4096 + 64);
        assert_eq!(layout.page(0), 8192);
        assert_eq!(layout.file_len(), 8192 + 3 * 8192);
        assert_eq!(layout.group_at(8192 + 8191), 0);
        assert_eq!(layout.group_at(8192 + 8192), 1);
    }
}
