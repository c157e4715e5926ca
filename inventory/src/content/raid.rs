//! Members of arrays of MD, by their superblock of version 1.0, 1.1, 1.2 or 0.90
//! (`include/uapi/linux/raid/md_p.h` of Linux).

use super::Source;
use crate::bytes::{Bytes, uuid};
use crdt::inventory::{Content, Detail};

const MAGIC: u32 = 0xa92b_4efc;
const SUPERBLOCK: usize = 256;
const KIB: u64 = 1024;

pub(super) fn find(source: &dyn Source, head: Bytes<'_>, length: u64) -> Option<Content> {
    for at in [0, 4096] {
        if let Some(found) = head
            .slice(at, SUPERBLOCK)
            .and_then(|at| version_1(Bytes(at)))
        {
            return Some(found);
        }
    }
    // 1.0 is 8 KiB before the end, aligned to 4 KiB; 0.90 the last aligned 64 KiB.
    let at = length.checked_sub(8 * KIB)? & !(4 * KIB - 1);
    if let Some(found) = source
        .read(at, SUPERBLOCK)
        .and_then(|at| version_1(Bytes(&at)))
    {
        return Some(found);
    }
    let at = (length & !(64 * KIB - 1)).checked_sub(64 * KIB)?;
    source
        .read(at, SUPERBLOCK)
        .and_then(|at| version_0(Bytes(&at)))
}

/// `struct mdp_superblock_1`.
fn version_1(block: Bytes<'_>) -> Option<Content> {
    if block.le32(0)? != MAGIC || block.le32(4)? != 1 {
        return None;
    }
    let name = block.text(32, 32)?;
    Some(member(
        block.uuid(16)?,
        name,
        block.le32(72)?,
        block.le32(92)?,
    ))
}

/// `mdp_super_t`, in words.
fn version_0(block: Bytes<'_>) -> Option<Content> {
    let word = |at: usize| block.le32(at * 4);
    if word(0)? != MAGIC || word(1)? != 0 {
        return None;
    }
    let mut id = [0; 16];
    for (part, at) in id.chunks_mut(4).zip([5, 13, 14, 15]) {
        part.copy_from_slice(&word(at)?.to_be_bytes());
    }
    Some(member(uuid(id), String::new(), word(7)?, word(10)?))
}

fn member(uuid: String, name: String, level: u32, devices: u32) -> Content {
    let level = match level.cast_signed() {
        -1 => "linear".to_owned(),
        level if level >= 0 => format!("raid{level}"),
        level => format!("level {level}"),
    };
    Content {
        kind: "linux_raid_member".into(),
        uuid,
        label: String::new(),
        detail: Detail::RaidMember {
            level,
            name,
            devices,
        },
    }
}
