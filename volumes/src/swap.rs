//! Swap areas on a volume, as their headers say and where the kernel shows a partition: what
//! need not be copied, since no memory goes on at another machine.
//!
//! An area counts only where nothing else could be meant by what lies there: what is taken for
//! swap is lost in the copy. Not found: swap files in file systems, and what lies on MD, on
//! dm-crypt, or in LVM in more than one piece. They are copied like all else.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use blocks::{BLOCK_SIZE, BlockIndex, MAX_SWAP_AREAS, SwapArea};
use rustix::fs::{major, minor};

use crate::sysfs::{self, Shown};
use crate::{AlignedBuf, ReadError, SourceIdentity, SourceVolume};

mod header;
mod linear;

use header::Header;

const SECTOR_BYTES: u64 = 512;

/// What is looked at of something that may be swap: its header, and where others have marks.
const HEAD_BLOCKS: u64 = 2;

/// Where the kernel shows what it has, and what it swaps to.
const SYSTEM: &str = "/sys";
const SWAPS: &str = "/proc/swaps";

/// The swap of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundSwap {
    /// What can be left out, in order, at most [`MAX_SWAP_AREAS`].
    pub areas: Vec<SwapArea>,
    /// The names of those areas: `sda2`.
    pub names: Vec<String>,
    /// What is copied all the same, and why, a sentence each.
    pub copied: Vec<String>,
}

/// Something that a swap area may fill.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    name: String,
    /// Bytes of the volume.
    bytes: Range<u64>,
    /// What else is made of it.
    holder: Option<String>,
    number: Option<(u32, u32)>,
}

impl SourceVolume {
    /// Looks for swap on it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn swap(&self) -> Result<FoundSwap, ReadError> {
        self.look().found()
    }

    /// The same without what is copied all the same, which takes less looking.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn swap_areas(&self) -> Result<Vec<SwapArea>, ReadError> {
        Ok(self.look().areas(&self.look().all_parts()?)?.areas)
    }

    fn look(&self) -> Look<'_> {
        Look {
            volume: self,
            system: Path::new(SYSTEM),
            swaps: Path::new(SWAPS),
        }
    }
}

struct Look<'l> {
    volume: &'l SourceVolume,
    system: &'l Path,
    swaps: &'l Path,
}

impl Look<'_> {
    fn found(&self) -> Result<FoundSwap, ReadError> {
        let parts = self.all_parts()?;
        let mut found = self.areas(&parts)?;
        found.copied.extend(self.unreached(&parts));
        Ok(found)
    }

    /// The partitions of the volume, and the logical volumes on them.
    fn all_parts(&self) -> Result<Vec<Part>, ReadError> {
        let mut parts = self.parts();
        for part in parts.clone() {
            let mut logical = linear::volumes_in(self.volume, &part.bytes)?;
            for part in &mut logical {
                if let Some(shown) = self.mapped(&part.name) {
                    part.holder = holder_of(&shown);
                    part.number = sysfs::number_of(&shown).ok();
                }
            }
            parts.extend(logical);
        }
        Ok(parts)
    }

    /// What device mapper has mapped under a name just now.
    fn mapped(&self, name: &str) -> Option<PathBuf> {
        let shown = fs::read_dir(self.system.join("block")).ok()?.flatten();
        let mut shown = shown.map(|entry| entry.path());
        shown.find(|shown| {
            fs::read_to_string(shown.join("dm/name")).is_ok_and(|mapped| mapped.trim() == name)
        })
    }

    fn areas(&self, parts: &[Part]) -> Result<FoundSwap, ReadError> {
        let mut found = FoundSwap::default();
        let mut named: Vec<(SwapArea, String)> = vec![];
        for part in parts {
            match self.area(part)? {
                Ok(Some(area)) => named.push((area, part.name.clone())),
                Ok(None) => {}
                Err(why) => found.copied.push(format!("{}: {why}", part.name)),
            }
        }
        // What of two that share a place is swap nobody knows.
        let shares = |one: &(SwapArea, String), other: &(SwapArea, String)| {
            one != other
                && one.0.offset < other.0.offset + other.0.length
                && other.0.offset < one.0.offset + one.0.length
        };
        let all = named.clone();
        named.retain(|area| {
            let other = all.iter().find(|other| shares(area, other));
            let why = other.map(|other| format!("{}: it and {} share a place", area.1, other.1));
            found.copied.extend(why);
            other.is_none()
        });
        named.retain(|(area, _)| !area.content().is_empty());
        named.sort_by_key(|(area, _)| std::cmp::Reverse(area.length));
        for (_, name) in named.iter().skip(MAX_SWAP_AREAS) {
            let why = format!("{name}: at most {MAX_SWAP_AREAS} areas of a disk are left out");
            found.copied.push(why);
        }
        named.truncate(MAX_SWAP_AREAS);
        named.sort();
        (found.areas, found.names) = named.into_iter().unzip();
        Ok(found)
    }

    /// The partitions of the volume, or all of it where it has none.
    fn parts(&self) -> Vec<Part> {
        let whole = |number, shown: Option<&Path>| Part {
            name: name_of(shown.unwrap_or(self.volume.path())),
            bytes: 0..self.volume.length(),
            holder: shown.and_then(holder_of),
            number,
        };
        let SourceIdentity::Device { number } = self.volume.identity() else {
            return vec![whole(None, None)];
        };
        let number = (major(number), minor(number));
        let Ok(shown) = Shown::find(self.system, number) else {
            return vec![whole(Some(number), None)];
        };
        if let Some(partition) = shown.partition {
            return vec![whole(Some(number), Some(&partition))];
        }
        let below = fs::read_dir(&shown.disk).into_iter().flatten().flatten();
        let mut parts: Vec<Part> = below.filter_map(|entry| self.part(&entry.path())).collect();
        parts.sort_by_key(|part| part.bytes.start);
        match parts.is_empty() {
            true => vec![whole(Some(number), Some(&shown.disk))],
            false => parts,
        }
    }

    /// The partition that is shown at a path, if one is.
    fn part(&self, shown: &Path) -> Option<Part> {
        if !shown.join("partition").exists() {
            return None;
        }
        let bytes = |name| {
            let text = fs::read_to_string(shown.join(name)).ok()?;
            let sectors: u64 = text.trim().parse().ok()?;
            sectors.checked_mul(SECTOR_BYTES)
        };
        let (start, length) = (bytes("start")?, bytes("size")?);
        let end = start.checked_add(length)?;
        (end <= self.volume.length()).then(|| Part {
            name: name_of(shown),
            bytes: start..end,
            holder: holder_of(shown),
            number: sysfs::number_of(shown).ok(),
        })
    }

    /// The area that fills a part; none where that is something else, or why it is copied.
    fn area(&self, part: &Part) -> Result<Result<Option<SwapArea>, String>, ReadError> {
        let head = read(
            self.volume,
            part.bytes.start,
            HEAD_BLOCKS * BLOCK_SIZE as u64,
        )?;
        let length = part.bytes.end - part.bytes.start;
        let (uuid, of) = match header::of(&head, length) {
            Header::Swap { uuid, length } => (uuid, length),
            Header::Other => return Ok(Ok(None)),
            Header::Unfit(why) => return Ok(Err(why.to_owned())),
        };
        Ok(match &part.holder {
            Some(holder) => Err(format!("it has a header of swap, and {holder} lies on it")),
            None => Ok(Some(SwapArea {
                offset: part.bytes.start,
                length: of,
                uuid,
            })),
        })
    }

    /// Swap in use that lies on the volume in a way that is not followed.
    fn unreached(&self, parts: &[Part]) -> Vec<String> {
        let text = fs::read(self.swaps).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().skip(1);
        let paths = lines.filter_map(|line| line.split_ascii_whitespace().next());
        let unreached = paths.filter_map(|path| {
            // As `mangle_path` of Linux writes blanks.
            let path = PathBuf::from(path.replace("\\040", " "));
            let metadata = fs::metadata(&path).ok()?;
            let shown = path.display();
            if !metadata.file_type().is_block_device() {
                let on = (major(metadata.dev()), minor(metadata.dev()));
                let is_here = parts.iter().any(|part| part.number == Some(on));
                return is_here.then(|| format!("{shown}: it is a file in a file system"));
            }
            let number = (major(metadata.rdev()), minor(metadata.rdev()));
            let disk = Shown::find(self.system, number).ok()?.disk;
            let mapped = fs::read_to_string(disk.join("dm/name")).unwrap_or_default();
            if parts.iter().any(|part| part.name == mapped.trim()) {
                return None;
            }
            let lower = fs::read_dir(disk.join("slaves")).ok()?.flatten();
            let mut lower = lower.filter_map(|entry| sysfs::number_of(&entry.path()).ok());
            lower
                .any(|on| parts.iter().any(|part| part.number == Some(on)))
                .then(|| format!("{shown}: it is not one plain piece of this disk"))
        });
        unreached.collect()
    }
}

/// Bytes of a volume, as they are on it; fewer where it ends before.
fn read(volume: &SourceVolume, offset: u64, length: u64) -> Result<Vec<u8>, ReadError> {
    const BLOCK: u64 = BLOCK_SIZE as u64;
    let end = offset.saturating_add(length).min(volume.length());
    let first = offset / BLOCK;
    let count = end.div_ceil(BLOCK).saturating_sub(first);
    if count == 0 {
        return Ok(vec![]);
    }
    let mut room = AlignedBuf::new(count);
    let bytes = volume.read_as_is(BlockIndex(first), count, room.bytes_mut())?;
    // Within the buffer just read.
    let start = (offset - first * BLOCK) as usize;
    Ok(bytes[start..(end - first * BLOCK) as usize].to_vec())
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// The first device that lies on what is shown there.
fn holder_of(shown: &Path) -> Option<String> {
    let mut holders = fs::read_dir(shown.join("holders")).ok()?.flatten();
    holders.next().map(|holder| name_of(&holder.path()))
}

#[cfg(test)]
mod tests;
