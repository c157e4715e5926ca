//! Tables of partitions: which kind a disk has, and types and names of its entries.
//!
//! Where partitions are is what the kernel says (`devices`); an entry is found by its
//! beginning.

use crate::bytes::Bytes;
use crate::content::Source;
use crdt::inventory::Table;

/// Sizes of logical blocks; the second one is at block 1 of these.
const BLOCKS: [u64; 2] = [512, 4096];
/// Entries of a GUID table that are read: it has 128 by default.
const MAX_ENTRIES: u32 = 1024;
/// Logical partitions that are followed.
const MAX_LOGICAL: usize = 64;

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) start_bytes: u64,
    /// GUID in lower case, or `0x83`.
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// The table of a disk with its entries; none where it has none.
pub(crate) fn find(source: &dyn Source) -> Option<(Table, Vec<Entry>)> {
    let guid = BLOCKS.iter().find_map(|block| guid_table(source, *block));
    guid.map(|entries| (Table::Gpt, entries))
        .or_else(|| Some((Table::Mbr, boot_record(source)?)))
}

/// UEFI specification, section 5.3.
fn guid_table(source: &dyn Source, block: u64) -> Option<Vec<Entry>> {
    let header = source.read(block, 92)?;
    let header = Bytes(&header);
    if !header.has(0, b"EFI PART") {
        return None;
    }
    let at = header.le64(72)?.checked_mul(block)?;
    let count = header.le32(80)?.min(MAX_ENTRIES);
    let size = header.le32(84)?;
    if !(128..=4096).contains(&size) {
        return None;
    }
    let table = source.read(at, count as usize * size as usize)?;
    let entries = table.chunks_exact(size as usize).filter_map(|entry| {
        let entry = Bytes(entry);
        let kind = entry.guid(0)?;
        let name: Vec<u16> = (0..36).map_while(|at| entry.le16(56 + 2 * at)).collect();
        let name = name.split(|unit| *unit == 0).next().unwrap_or_default();
        (!kind.is_empty()).then(|| {
            Some(Entry {
                start_bytes: entry.le64(32)?.checked_mul(block)?,
                kind,
                name: String::from_utf16_lossy(name),
            })
        })?
    });
    Some(entries.collect())
}

/// Four entries, of which one may lead to a chain of more.
fn boot_record(source: &dyn Source) -> Option<Vec<Entry>> {
    let record = source.read(0, 512)?;
    let record = Bytes(&record);
    // A boot sector of FAT ends so too, and says so itself.
    let is_fat = record.has(0x36, b"FAT") || record.has(0x52, b"FAT");
    if !record.has(510, &[0x55, 0xaa]) || is_fat {
        return None;
    }
    // An entry is active or not; other bytes are a program's.
    let sane = (0..4).all(|row| matches!(record.slice(446 + 16 * row, 1), Some([0 | 0x80])));
    let rows: Vec<(u8, u64)> = (0..4).filter_map(|row| row_of(record, row)).collect();
    if !sane || rows.is_empty() {
        return None;
    }
    let mut entries: Vec<Entry> = rows.iter().map(|row| entry(row.0, row.1)).collect();
    if let Some((_, extended)) = rows.iter().find(|row| is_extended(row.0)) {
        logical(source, *extended, &mut entries);
    }
    Some(entries)
}

/// Each record of the chain has one partition, relative to itself, and where the next one
/// is, relative to the first.
fn logical(source: &dyn Source, first: u64, entries: &mut Vec<Entry>) {
    let mut at = first;
    for _ in 0..MAX_LOGICAL {
        let Some(record) = at.checked_mul(512).and_then(|at| source.read(at, 512)) else {
            return;
        };
        let record = Bytes(&record);
        if !record.has(510, &[0x55, 0xaa]) {
            return;
        }
        if let Some((kind, start)) = row_of(record, 0) {
            entries.push(entry(kind, at + start));
        }
        match row_of(record, 1) {
            Some((kind, next)) if is_extended(kind) => at = first + next,
            _ => return,
        }
    }
}

/// Type and beginning in sectors of an entry in use.
fn row_of(record: Bytes<'_>, row: usize) -> Option<(u8, u64)> {
    let at = 446 + 16 * row;
    let kind = *record.slice(at + 4, 1)?.first()?;
    let start = u64::from(record.le32(at + 8)?);
    (kind != 0).then_some((kind, start))
}

fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

fn entry(kind: u8, start_sectors: u64) -> Entry {
    Entry {
        start_bytes: start_sectors * 512,
        kind: format!("{kind:#04x}"),
        name: String::new(),
    }
}
