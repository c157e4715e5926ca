//! Logical volumes of LVM 2 that are one plain piece of one physical volume, by the metadata
//! on it (`lib/format_text/layout.h` and `lib/format_text/format-text.c` of LVM).
//!
//! Not here: all others, which are skipped, and what the kernel has mapped just now.

use std::ops::Range;

use super::{Part, SECTOR_BYTES, read};
use crate::{ReadError, SourceVolume};

/// The label is in one of the first four sectors.
const SECTORS: usize = 4;
const SECTOR: usize = 512;
/// Longest metadata that is read.
const MAX_TEXT: u64 = 8 << 20;
/// Areas looked at, of data or of metadata.
const MAX_AREAS: usize = 8;
/// Logical volumes looked at.
const MAX_VOLUMES: usize = 256;

/// The plain logical volumes on a part of a disk, named as device mapper names them; none
/// where it is no physical volume.
pub(super) fn volumes_in(volume: &SourceVolume, part: &Range<u64>) -> Result<Vec<Part>, ReadError> {
    let head = read(volume, part.start, (SECTORS * SECTOR) as u64)?;
    let Some((id, areas)) = label(&head) else {
        return Ok(vec![]);
    };
    for (at, size) in areas {
        let Some(area) = part.start.checked_add(at) else {
            continue;
        };
        if let Some(text) = metadata(volume, area, size)? {
            return Ok(plain(&text, &id, part));
        }
    }
    Ok(vec![])
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let found = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(found.try_into().ok()?))
}

/// The id of a physical volume, and where its metadata is: offsets and lengths.
fn label(head: &[u8]) -> Option<(String, Vec<(u64, u64)>)> {
    let has = |at: usize, mark: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(mark));
    let mut sectors = (0..SECTORS).map(|sector| sector * SECTOR);
    let label = sectors.find(|at| has(*at, b"LABELONE") && has(at + 24, b"LVM2 001"))?;
    // Its sum comes before it, so that this is the upper half of eight bytes.
    let header = label + (number(head, label + 16)? >> 32) as usize;
    let id = String::from_utf8(head.get(header..header + 32)?.to_vec()).ok()?;
    // Two lists, of data and of metadata, each ended by zeros.
    let mut rows = (0..).map_while(|row: usize| {
        let at = header + 40 + 16 * row;
        Some((number(head, at)?, number(head, at + 8)?))
    });
    let mut list = || -> Vec<(u64, u64)> {
        let rows = rows.by_ref().take_while(|row| row.0 != 0);
        rows.take(MAX_AREAS).collect()
    };
    list();
    Some((id, list()))
}

/// The newest text in an area of metadata, which may go on behind the area's header where the
/// area ends; none where it is not whole.
fn metadata(volume: &SourceVolume, area: u64, size: u64) -> Result<Option<String>, ReadError> {
    let header = read(volume, area, SECTOR as u64)?;
    if header.get(4..20) != Some(b" LVM2 x[5A%r0N*>".as_slice()) {
        return Ok(None);
    }
    let (Some(offset), Some(length), Some(sum)) = (
        number(&header, 40),
        number(&header, 48),
        number(&header, 56),
    ) else {
        return Ok(None);
    };
    if offset >= size || length > size.min(MAX_TEXT) {
        return Ok(None);
    }
    let until_end = length.min(size - offset);
    let mut text = read(volume, area.saturating_add(offset), until_end)?;
    if length > until_end {
        let start = area.saturating_add(SECTOR as u64);
        text.extend(read(volume, start, length - until_end)?);
    }
    // Where the group is changed at this moment, the text may be half of each.
    let is_whole = checksum(&text) == sum as u32;
    Ok(is_whole.then(|| String::from_utf8_lossy(&text).into_owned()))
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

/// What the metadata says of one logical volume.
#[derive(Default)]
struct Logical {
    name: String,
    is_visible: bool,
    segments: u64,
    is_striped: bool,
    stripes: u64,
    extents: u64,
    /// The physical volume, by its name in the metadata, and its extent.
    on: Option<(String, u64)>,
}

/// Of a text of metadata those that lie in one piece on the physical volume of this id, which
/// is this part.
fn plain(text: &str, id: &str, part: &Range<u64>) -> Vec<Part> {
    let mut open: Vec<String> = vec![];
    let (mut extent_sectors, mut mine, mut start_sectors) = (0, None, 0);
    let (mut last_physical, mut found): (String, Vec<Logical>) = (String::new(), vec![]);
    let mut group = String::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let (key, value) = (key.trim(), value.trim());
        if let Some(section) = key.strip_suffix('{').filter(|_| value.is_empty()) {
            let section = section.trim().to_owned();
            match open.len() {
                0 => group.clone_from(&section),
                2 if open[1] == "physical_volumes" => last_physical.clone_from(&section),
                2 if open[1] == "logical_volumes" && found.len() < MAX_VOLUMES => {
                    let name = section.clone();
                    found.push(Logical {
                        name,
                        ..Logical::default()
                    });
                }
                _ => {}
            }
            open.push(section);
            continue;
        }
        if key == "}" {
            open.pop();
            continue;
        }
        let number = value.parse::<u64>().unwrap_or(0);
        let path: Vec<&str> = open.iter().map(String::as_str).collect();
        match (path.as_slice(), key) {
            ([_], "extent_size") => extent_sectors = number,
            ([_, "physical_volumes", _], "id") if value.replace(['-', '"'], "") == id => {
                mine = Some(last_physical.clone());
            }
            ([_, "physical_volumes", of], "pe_start") if mine.as_deref() == Some(*of) => {
                start_sectors = number;
            }
            ([_, "logical_volumes", name, rest @ ..], key) => {
                if let Some(logical) = found.last_mut().filter(|last| last.name == *name) {
                    logical.learn(rest.len(), key, value);
                }
            }
            _ => {}
        }
    }
    let parts = found.into_iter().filter_map(|logical| {
        let (on, extent) = logical.on.as_ref()?;
        let is_plain = logical.is_visible
            && logical.is_striped
            && (logical.segments, logical.stripes) == (1, 1)
            && Some(on) == mine.as_ref();
        let bytes = |sectors: u64| sectors.checked_mul(SECTOR_BYTES);
        let before = start_sectors.checked_add(extent.checked_mul(extent_sectors)?)?;
        let start = part.start.checked_add(bytes(before)?)?;
        let end = start.checked_add(bytes(logical.extents.checked_mul(extent_sectors)?)?)?;
        (is_plain && end <= part.end && start < end).then(|| Part {
            name: mapped_name(&group, &logical.name),
            bytes: start..end,
            holder: None,
            number: None,
        })
    });
    parts.collect()
}

impl Logical {
    /// Takes one line of its section, or of a segment's `depth` below it.
    fn learn(&mut self, depth: usize, key: &str, value: &str) {
        let number = value.parse().unwrap_or(0);
        match (depth, key) {
            (0, "status") => self.is_visible = value.contains("\"VISIBLE\""),
            (0, "segment_count") => self.segments = number,
            (1, "extent_count") => self.extents = number,
            (1, "type") => self.is_striped = value == "\"striped\"",
            (1, "stripe_count") => self.stripes = number,
            // `"pv0", 0` on a line of its own.
            (1, place) if place.starts_with('"') => {
                let place = place.split_once(',');
                self.on = place.and_then(|(on, extent)| {
                    let on = on.trim().trim_matches('"').to_owned();
                    Some((on, extent.trim().parse().ok()?))
                });
            }
            _ => {}
        }
    }
}

/// As device mapper names it: dashes within a name are doubled.
fn mapped_name(group: &str, volume: &str) -> String {
    let doubled = |name: &str| name.replace('-', "--");
    format!("{}-{}", doubled(group), doubled(volume))
}

#[cfg(test)]
mod tests;
