//! The header of a swap area: `union swap_header` of Linux (`include/linux/swap.h`), in the
//! first page, whose size is the machine's; the mark ends it.

/// Sizes that pages have.
const PAGES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];
const MARK: usize = 10;

/// Marks of an area on which a machine sleeps, as util-linux knows them
/// (`libblkid/src/superblocks/swap.c`).
const SLEEPING: [&[u8]; 5] = [
    b"S1SUSPEND",
    b"S2SUSPEND",
    b"ULSUSPEND",
    b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c",
    b"LINHIB0001",
];

/// Boot blocks, disk labels, and superblocks of others would be here.
const UNUSED: [std::ops::Range<usize>; 2] = [0..1024, 1068..1536];
const VERSION: usize = 1024;
const LAST_PAGE: usize = 1028;
const UUID: usize = 1036;
/// Marks of others that leave the header's page alone, so that one from before is still there,
/// and where they have them (`libblkid/src/superblocks` of util-linux).
const OTHERS: [(usize, &[u8]); 16] = [
    // An array of version 1.2.
    (4096, b"\xfc\x4e\x2b\xa9"),
    // bcache, and bcachefs before and since it has a mark of its own.
    (4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
    (4120, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9"),
    (2048, b"OCFSV2"),
    (4096, b"OCFSV2"),
    (8192, b"OCFSV2"),
    (8192 + 52, b"ReIsEr"),
    (65536 + 52, b"ReIsEr"),
    // UFS, of either order of bytes.
    (8192 + 1372, b"\x19\x01\x54\x19"),
    (8192 + 1372, b"\x19\x54\x01\x19"),
    (65536 + 1372, b"\x19\x01\x54\x19"),
    (65536 + 1372, b"\x19\x54\x01\x19"),
    (32768, b"JFS1"),
    (32769, b"CD001"),
    (65536, b"\x01\x16\x19\x70"),
    (0x1_0040, b"_BHRfS_M"),
];
/// Where ZFS has a list of names and values, among the first of which is its version.
const ZFS: std::ops::Range<usize> = 16384..16640;

/// What the beginning of something says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// Memory is swapped to so many bytes of it, these of the header in it.
    Swap { uuid: [u8; 16], length: u64 },
    /// It is swap, and has to be copied.
    Unfit(&'static str),
    /// It is no swap.
    Other,
}

/// What something of `length` bytes is that begins so.
pub(super) fn of(head: &[u8], length: u64) -> Header {
    let is_marked = |page: &usize, mark: &[u8]| {
        let found = head.get(page - MARK..*page);
        found.is_some_and(|found| found.starts_with(mark))
    };
    let sleeps = |page: &usize| SLEEPING.iter().any(|mark| is_marked(page, mark));
    if PAGES.iter().any(sleeps) {
        return Header::Unfit("a machine sleeps on it (it has the mark of a hibernation)");
    }
    if PAGES.iter().any(|page| is_marked(page, b"SWAP-SPACE")) {
        return Header::Unfit("it is swap of the first version, which has no UUID");
    }
    let Some(page) = PAGES.iter().find(|page| is_marked(page, b"SWAPSPACE2")) else {
        return Header::Other;
    };
    let is_other = UNUSED
        .iter()
        .any(|unused| head[unused.clone()].iter().any(|byte| *byte != 0));
    if is_other || has_other(head) {
        return Header::Unfit("it has a header of swap, and the mark of something else");
    }
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
    // In the order of bytes of its machine.
    let last_page = match number(VERSION) {
        1 => number(LAST_PAGE),
        0x0100_0000 => number(LAST_PAGE).swap_bytes(),
        _ => return Header::Unfit("its header is of a version that is not known"),
    };
    let of = (u64::from(last_page) + 1) * *page as u64;
    match of <= length {
        true => Header::Swap {
            uuid: std::array::from_fn(|byte| head[UUID + byte]),
            length: of,
        },
        false => Header::Unfit("its header says that it is longer than what it lies in"),
    }
}

/// Whether somebody else's mark lies behind the header.
fn has_other(head: &[u8]) -> bool {
    let has =
        |(at, mark): &(usize, &[u8])| head.get(*at..).is_some_and(|rest| rest.starts_with(mark));
    let zfs = head.get(ZFS).unwrap_or_default();
    OTHERS.iter().any(has) || zfs.windows(7).any(|name| name == b"version")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A header with pages of this size, over so many of them.
    pub(super) fn header(page: usize, pages: u32) -> Vec<u8> {
        let mut head = vec![0; 128 << 10];
        head[VERSION..VERSION + 4].copy_from_slice(&1u32.to_le_bytes());
        head[LAST_PAGE..LAST_PAGE + 4].copy_from_slice(&(pages - 1).to_le_bytes());
        head[UUID..UUID + 16].copy_from_slice(&[9; 16]);
        head[page - MARK..page].copy_from_slice(b"SWAPSPACE2");
        head
    }

    #[test]
    fn a_header_is_read_with_pages_of_any_size_and_of_either_order() {
        for page in PAGES {
            let found = of(&header(page, 100), 100 * page as u64);
            let length = 100 * page as u64;
            assert_eq!(
                found,
                Header::Swap {
                    uuid: [9; 16],
                    length
                },
                "{page}"
            );
        }
        let mut big = header(4096, 100);
        big[VERSION..VERSION + 4].reverse();
        big[LAST_PAGE..LAST_PAGE + 4].reverse();
        assert!(matches!(
            of(&big, 1 << 20),
            Header::Swap {
                length: 409_600,
                ..
            }
        ));
    }

    #[test]
    fn what_is_no_swap_or_not_only_swap_is_not_taken_for_it() {
        assert_eq!(of(&[0; 128 << 10], 1 << 20), Header::Other);
        for short in [0, 10, 4095, 5000] {
            assert_eq!(of(&vec![1; short], 1 << 20), Header::Other);
        }
        let unfit = |at: usize, bytes: &[u8]| {
            let mut head = header(4096, 100);
            head[at..at + bytes.len()].copy_from_slice(bytes);
            let found = of(&head, 409_600);
            assert!(
                matches!(found, Header::Unfit(_)),
                "{at} {bytes:?}: {found:?}"
            );
        };
        unfit(0, b"XFSB");
        unfit(512, b"LABELONE");
        unfit(510, &[0x55, 0xaa]);
        unfit(1080, &[0x53, 0xef]);
        for (at, mark) in OTHERS {
            unfit(at, mark);
        }
        unfit(ZFS.start + 24, b"\x07version");
        unfit(VERSION, &[2]);
        unfit(LAST_PAGE, &100u32.to_le_bytes());
        for mark in SLEEPING {
            unfit(4096 - MARK, mark);
        }
        unfit(4096 - MARK, b"SWAP-SPACE");
    }
}
