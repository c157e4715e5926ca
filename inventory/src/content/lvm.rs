//! Physical volumes of LVM 2: the label, and of the metadata the name of the group and its
//! members (`lib/format_text/layout.h` and `lib/format_text/format-text.c` of LVM).

use super::Source;
use crate::bytes::Bytes;
use crdt::inventory::{Content, Detail};

/// The label is in one of the first four sectors.
const SECTORS: usize = 4;
const SECTOR: usize = 512;
/// Most of a metadata area that is looked at; 1 MiB is usual.
const MAX_METADATA: u64 = 8 << 20;
/// Areas looked at.
const MAX_AREAS: usize = 8;

/// A volume group as one of its members tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// UUIDs of all its physical volumes.
    pub(crate) members: Vec<String>,
}

pub(super) fn find(source: &dyn Source, head: Bytes<'_>) -> Option<(Content, Option<Group>)> {
    let label = (0..SECTORS)
        .map(|sector| sector * SECTOR)
        .find(|at| head.has(*at, b"LABELONE") && head.has(at + 24, b"LVM2 001"))?;
    let header = label + head.le32(label + 20)? as usize;
    let id = head.text(header, 32)?;
    let group = areas(head, header + 40)
        .into_iter()
        .find_map(|(at, size)| group_in(source, at, size));
    let content = Content {
        kind: "LVM2_member".into(),
        uuid: dashed(&id),
        label: String::new(),
        detail: Detail::PhysicalVolume {
            group: group
                .as_ref()
                .map_or_else(String::new, |group| group.name.clone()),
        },
    };
    Some((content, group))
}

/// Offsets and sizes of the metadata areas: two lists, of data and of metadata, each
/// ended by zeros.
fn areas(head: Bytes<'_>, at: usize) -> Vec<(u64, u64)> {
    let mut rows = (0..).map_while(|row| {
        let at = at + 16 * row;
        Some((head.le64(at)?, head.le64(at + 8)?))
    });
    let mut take = || -> Vec<(u64, u64)> {
        rows.by_ref()
            .take_while(|row| row.0 != 0)
            .take(MAX_AREAS)
            .collect()
    };
    take();
    take()
}

/// The newest metadata in the area: its place is in the area's header, and it may go on
/// behind that header where the area ends.
fn group_in(source: &dyn Source, area: u64, size: u64) -> Option<Group> {
    let header = source.read(area, SECTOR)?;
    let header = Bytes(&header);
    if !header.has(4, b" LVM2 x[5A%r0N*>") {
        return None;
    }
    let (offset, length, sum) = (header.le64(40)?, header.le64(48)?, header.le32(56)?);
    let size = size.min(MAX_METADATA);
    if offset >= size || length > size {
        return None;
    }
    let until_end = length.min(size - offset);
    let mut text = source.read(area.checked_add(offset)?, usize::try_from(until_end).ok()?)?;
    let rest = usize::try_from(length - until_end).ok()?;
    if rest > 0 {
        text.extend(source.read(area.checked_add(SECTOR as u64)?, rest)?);
    }
    // Where the group is changed at this moment, the text may be half of each.
    let is_whole = checksum(&text) == sum;
    is_whole.then(|| group_of(&String::from_utf8_lossy(&text)))?
}

/// CRC-32 with LVM's own beginning and nothing at the end.
fn checksum(bytes: &[u8]) -> u32 {
    const BEGINNING: u32 = 0xf597_a6cf;
    bytes.iter().fold(BEGINNING, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

/// The group that a text of metadata is about.
fn group_of(text: &str) -> Option<Group> {
    let (mut name, mut members) = (None, vec![]);
    let mut open: Vec<&str> = vec![];
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_suffix('{') {
            let section = section.trim();
            name.get_or_insert_with(|| section.to_owned());
            open.push(section);
        } else if line == "}" {
            open.pop();
        } else if let [_, "physical_volumes", _] = open[..]
            && let Some(id) = line.strip_prefix("id = \"")
        {
            members.push(id.trim_end_matches('"').to_owned());
        }
    }
    Some(Group {
        name: name.filter(|name| !name.is_empty())?,
        members,
    })
}

/// As LVM shows it: `6-4-4-4-4-4-6`.
fn dashed(id: &str) -> String {
    let mut text = String::with_capacity(38);
    for (at, c) in id.chars().enumerate() {
        if matches!(at, 6 | 10 | 14 | 18 | 22 | 26) {
            text.push('-');
        }
        text.push(c);
    }
    text
}
