//! What is on a device, by the superblocks that it begins or ends with.
//!
//! Where several could be meant the outermost wins, in the order of blkid: a member of an
//! array also begins with what the array holds. Not here: partition tables (`table`).

use crate::bytes::Bytes;
use crdt::inventory::{Content, Detail};

mod file_system;
mod lvm;
mod raid;
#[cfg(test)]
mod tests;

pub(crate) use lvm::Group;

/// Where bytes of a device come from.
pub(crate) trait Source {
    /// Bytes at an offset; fewer where it ends; none where it cannot be read.
    fn read(&self, at: u64, length: usize) -> Option<Vec<u8>>;
}

/// The beginning that holds all superblocks but those at the end: that of btrfs is the
/// last, at 64 KiB.
const HEAD: usize = 72 * 1024;

/// What is on a device of this length, and of its volume group, where it tells, all members.
pub(crate) fn find(source: &dyn Source, length: u64) -> (Option<Content>, Option<Group>) {
    let Some(head) = source.read(0, HEAD) else {
        return (None, None);
    };
    let head = Bytes(&head);
    if let Some(member) = raid::find(source, head, length) {
        return (Some(member), None);
    }
    if let Some((content, group)) = lvm::find(source, head) {
        return (Some(content), group);
    }
    (luks(head).or_else(|| file_system::find(head)), None)
}

/// LUKS On-Disk Format Specification, versions 1 and 2: the same at these offsets.
fn luks(head: Bytes<'_>) -> Option<Content> {
    if !head.has(0, b"LUKS\xba\xbe") {
        return None;
    }
    let version = head.be16(6)?;
    let label = match version {
        2 => head.text(24, 48)?,
        _ => String::new(),
    };
    Some(Content {
        kind: "crypto_LUKS".into(),
        uuid: head.text(168, 40)?,
        label,
        detail: Detail::Luks { version },
    })
}
