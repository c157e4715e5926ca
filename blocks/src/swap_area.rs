//! An area of a volume that memory is swapped to, and which blocks of it need not be copied.
//!
//! Not here: finding one on a disk.

use crate::BLOCK_SIZE;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Most areas of one volume whose content is left out.
pub const MAX_SWAP_AREAS: usize = 16;

/// A swap area as its header has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SwapArea {
    /// Where on the volume it begins, in bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// In its header.
    pub uuid: [u8; 16],
}

impl SwapArea {
    /// The bytes of its content: whole blocks, from the first on that lies behind its first
    /// 64 KiB. Those are its header, whose page is no larger, so that what is left is still a
    /// swap area of the same UUID.
    pub fn content(&self) -> Range<u64> {
        const BLOCK: u64 = BLOCK_SIZE as u64;
        let end = self.offset.saturating_add(self.length) / BLOCK * BLOCK;
        let start = self.offset.saturating_add(2 * BLOCK - 1) / BLOCK * BLOCK;
        start..end.max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_is_whole_blocks_behind_the_header() {
        const BLOCK: u64 = BLOCK_SIZE as u64;
        let content = |offset, length| {
            let uuid = [0; 16];
            SwapArea {
                offset,
                length,
                uuid,
            }
            .content()
        };
        assert_eq!(content(0, 4 * BLOCK), BLOCK..4 * BLOCK);
        assert_eq!(
            content(16 * BLOCK, 4 * BLOCK + 4096),
            17 * BLOCK..20 * BLOCK
        );
        assert_eq!(content(63 * 512, 4 * BLOCK), 2 * BLOCK..4 * BLOCK);
        for short in [0, BLOCK, 2 * BLOCK] {
            assert!(content(512, short).is_empty(), "{short}");
        }
        assert!(content(u64::MAX - 5, 100).is_empty());
    }
}
