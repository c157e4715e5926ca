//! File systems and swap areas.

use crate::bytes::Bytes;
use crdt::inventory::{Content, Detail};

/// What is there, if it is known.
pub(super) fn find(head: Bytes<'_>) -> Option<Content> {
    xfs(head)
        .or_else(|| ext(head))
        .or_else(|| btrfs(head))
        .or_else(|| swap(head))
        .or_else(|| squashfs(head))
        .or_else(|| ntfs(head))
        .or_else(|| fat(head))
}

fn file_system(kind: &str, uuid: String, label: String, has_journal: bool) -> Content {
    Content {
        kind: kind.into(),
        uuid,
        label,
        detail: Detail::FileSystem {
            has_journal: Some(has_journal),
            devices: 1,
        },
    }
}

/// `struct xfs_dsb` of Linux.
fn xfs(head: Bytes<'_>) -> Option<Content> {
    let found = head.has(0, b"XFSB");
    found.then(|| {
        Some(file_system(
            "xfs",
            head.uuid(32)?,
            head.text(108, 12)?,
            true,
        ))
    })?
}

/// `struct ext4_super_block` of Linux, at 1024. Which of the three it is says what it
/// uses, as for blkid.
fn ext(head: Bytes<'_>) -> Option<Content> {
    const BASE: usize = 1024;
    const HAS_JOURNAL: u32 = 0x4;
    const JOURNAL_DEVICE: u32 = 0x8;
    /// File types, recovery and meta groups are all that ext3 knows.
    const INCOMPAT_OF_EXT3: u32 = 0x2 | 0x4 | 0x10;
    /// Sparse superblocks, large files and trees of names.
    const RO_COMPAT_OF_EXT3: u32 = 0x1 | 0x2 | 0x4;
    if head.le16(BASE + 0x38)? != 0xef53 {
        return None;
    }
    let has_journal = head.le32(BASE + 0x5c)? & HAS_JOURNAL != 0;
    let incompat = head.le32(BASE + 0x60)?;
    let ro_compat = head.le32(BASE + 0x64)?;
    let newer = incompat & !INCOMPAT_OF_EXT3 != 0 || ro_compat & !RO_COMPAT_OF_EXT3 != 0;
    let kind = match (incompat & JOURNAL_DEVICE != 0, newer, has_journal) {
        (true, ..) => "jbd",
        (_, true, _) => "ext4",
        (_, _, true) => "ext3",
        _ => "ext2",
    };
    let uuid = head.uuid(BASE + 0x68)?;
    Some(file_system(
        kind,
        uuid,
        head.text(BASE + 0x78, 16)?,
        has_journal,
    ))
}

/// `struct btrfs_super_block` of Linux, at 64 KiB. It needs no journal: it copies on write.
fn btrfs(head: Bytes<'_>) -> Option<Content> {
    const BASE: usize = 0x1_0000;
    if !head.has(BASE + 0x40, b"_BHRfS_M") {
        return None;
    }
    let devices = head.le64(BASE + 0x88)?;
    Some(Content {
        kind: "btrfs".into(),
        uuid: head.uuid(BASE + 0x20)?,
        label: head.text(BASE + 0x12b, 256)?,
        detail: Detail::FileSystem {
            has_journal: Some(true),
            devices: u32::try_from(devices).unwrap_or(u32::MAX),
        },
    })
}

/// `union swap_header` of Linux: the mark ends the first page, whose size is the
/// machine's. A machine that sleeps on its disk has another.
fn swap(head: Bytes<'_>) -> Option<Content> {
    const MARK: usize = 10;
    let pages = [4096, 8192, 16384, 65536];
    let marked = |mark: &[u8]| pages.iter().any(|page| head.has(page - MARK, mark));
    let kind = match () {
        () if marked(b"SWAPSPACE2") => "swap",
        () if marked(b"S1SUSPEND\0") => "swsuspend",
        () => return None,
    };
    Some(Content {
        kind: kind.into(),
        uuid: head.uuid(1036)?,
        label: head.text(1052, 16)?,
        detail: Detail::None,
    })
}

fn squashfs(head: Bytes<'_>) -> Option<Content> {
    let found = head.has(0, b"hsqs");
    found.then(|| file_system("squashfs", String::new(), String::new(), true))
}

fn ntfs(head: Bytes<'_>) -> Option<Content> {
    let found = head.has(3, b"NTFS    ");
    let uuid = || Some(format!("{:016X}", head.le64(0x48)?));
    found.then(|| Some(file_system("ntfs", uuid()?, String::new(), true)))?
}

/// Microsoft FAT specification, section 3: number and label are elsewhere in FAT32.
fn fat(head: Bytes<'_>) -> Option<Content> {
    if !head.has(0x1fe, &[0x55, 0xaa]) {
        return None;
    }
    let base = match () {
        () if head.has(0x52, b"FAT32   ") => 0x43,
        () if head.has(0x36, b"FAT16   ") || head.has(0x36, b"FAT12   ") => 0x27,
        () => return None,
    };
    let number = head.le32(base)?;
    let label = head.text(base + 4, 11)?;
    let label = if label == "NO NAME" {
        String::new()
    } else {
        label
    };
    let uuid = format!("{:04X}-{:04X}", number >> 16, number & 0xffff);
    Some(file_system("vfat", uuid, label, false))
}
