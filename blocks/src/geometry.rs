//! How a volume is cut: a length in bytes, blocks of 64 KiB, groups of 256
//! blocks, and blocks into pieces of 4 KiB. Pure arithmetic.
//!
//! Not here: contents and hashes.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes in a block; only the last block of a volume may be shorter.
pub const BLOCK_SIZE: usize = 64 * 1024;

/// Bytes in a piece of a block: what file systems and databases write at once,
/// as a rule. Only the last piece of a volume may be shorter.
pub const PIECE_SIZE: usize = 4096;

/// Pieces in a block; only the last block of a volume may have fewer.
pub const BLOCK_PIECES: usize = BLOCK_SIZE / PIECE_SIZE;

/// Blocks in a group. 256 blocks (16 MiB) are a complete, aligned subtree of
/// BLAKE3, so that a group's node stands for its leaves in the tree above.
pub const GROUP_BLOCKS: u64 = 256;

/// The largest volume, in bytes (64 TiB): bounds bitmaps and trees in memory.
pub const MAX_LENGTH: u64 = 64 << 40;

const BLOCK_BYTES: u64 = BLOCK_SIZE as u64;

/// The position of a block in its volume, counted from 0.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct BlockIndex(pub u64);

/// The position of a group in its volume, counted from 0.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct GroupIndex(pub u64);

impl BlockIndex {
    /// The group this block is in.
    pub fn group(self) -> GroupIndex {
        GroupIndex(self.0 / GROUP_BLOCKS)
    }

    /// The offset of the block's first byte, for a block inside any volume.
    pub fn offset(self) -> u64 {
        self.0.saturating_mul(BLOCK_BYTES)
    }
}

impl fmt::Display for BlockIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}", self.0)
    }
}

impl fmt::Display for GroupIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.0)
    }
}

/// Why a length cannot be a volume's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GeometryError {
    /// There is nothing to move.
    #[error("a volume cannot be empty")]
    Empty,
    /// Larger than [`MAX_LENGTH`].
    #[error("a volume of {length} bytes is larger than the {MAX_LENGTH} that can be moved")]
    TooLong {
        /// The length asked for, in bytes.
        length: u64,
    },
}

/// The cut of one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    length: u64,
}

impl Geometry {
    /// The cut of a volume of `length` bytes.
    ///
    /// # Errors
    /// When the length is 0 or above [`MAX_LENGTH`].
    pub fn new(length: u64) -> Result<Self, GeometryError> {
        match length {
            0 => Err(GeometryError::Empty),
            1..=MAX_LENGTH => Ok(Self { length }),
            _ => Err(GeometryError::TooLong { length }),
        }
    }

    /// The volume's length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How many blocks the volume has; at least one.
    pub fn blocks(&self) -> u64 {
        self.length.div_ceil(BLOCK_BYTES)
    }

    /// How many groups the volume has; at least one.
    pub fn groups(&self) -> u64 {
        self.blocks().div_ceil(GROUP_BLOCKS)
    }

    /// Whether the block is in the volume.
    pub fn contains(&self, block: BlockIndex) -> bool {
        block.0 < self.blocks()
    }

    /// Whether the group is in the volume.
    pub fn contains_group(&self, group: GroupIndex) -> bool {
        group.0 < self.groups()
    }

    /// Whether `count` blocks from `first` on are at least one and all in the
    /// volume. Total: the numbers may come from a peer.
    pub fn contains_run(&self, first: BlockIndex, count: u64) -> bool {
        count > 0
            && first
                .0
                .checked_add(count)
                .is_some_and(|end| end <= self.blocks())
    }

    /// The bytes in a block: [`BLOCK_SIZE`], fewer for a short last block, 0
    /// outside the volume.
    pub fn block_len(&self, block: BlockIndex) -> usize {
        let range = self.block_range(block);
        // At most one block, which fits.
        (range.end - range.start) as usize
    }

    /// The pieces in a block: [`BLOCK_PIECES`], fewer for a short last block, 0
    /// outside the volume.
    pub fn block_pieces(&self, block: BlockIndex) -> usize {
        self.block_len(block).div_ceil(PIECE_SIZE)
    }

    /// The bytes of a block as a range of offsets; empty outside the volume.
    pub fn block_range(&self, block: BlockIndex) -> Range<u64> {
        self.run_range(block, 1)
    }

    /// The bytes of `count` blocks from `first` on, cut at the volume's end.
    pub fn run_range(&self, first: BlockIndex, count: u64) -> Range<u64> {
        let end = first.0.saturating_add(count).saturating_mul(BLOCK_BYTES);
        first.offset().min(self.length)..end.min(self.length)
    }

    /// The blocks of a group as a range of block indexes; empty outside the
    /// volume, fewer than [`GROUP_BLOCKS`] in a partial last group.
    pub fn group_blocks(&self, group: GroupIndex) -> Range<u64> {
        let first = group.0.saturating_mul(GROUP_BLOCKS);
        let end = first.saturating_add(GROUP_BLOCKS);
        first.min(self.blocks())..end.min(self.blocks())
    }

    /// The blocks touched by `len` bytes at `offset`, as a range of block
    /// indexes cut at the volume's end.
    pub fn touched(&self, offset: u64, len: u64) -> Range<u64> {
        let end = offset.saturating_add(len).min(self.length);
        if offset >= end {
            return 0..0;
        }
        offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_empty_volume_and_a_too_long_one_are_refused() {
        assert_eq!(Geometry::new(0), Err(GeometryError::Empty));
        assert!(Geometry::new(MAX_LENGTH).is_ok());
        let length = MAX_LENGTH + 1;
        assert_eq!(
            Geometry::new(length),
            Err(GeometryError::TooLong { length })
        );
    }

    #[test]
    fn the_last_block_and_the_last_group_may_be_short() {
        let geometry = Geometry::new(257 * 65536 + 5).unwrap();
        assert_eq!(geometry.blocks(), 258);
        assert_eq!(geometry.groups(), 2);
        assert_eq!(geometry.block_len(BlockIndex(256)), BLOCK_SIZE);
        assert_eq!(geometry.block_len(BlockIndex(257)), 5);
        assert_eq!(geometry.block_len(BlockIndex(258)), 0);
        assert_eq!(
            geometry.block_range(BlockIndex(257)),
            257 * 65536..257 * 65536 + 5
        );
        let pieces = [256, 257, 258].map(|block| geometry.block_pieces(BlockIndex(block)));
        assert_eq!(pieces, [16, 1, 0]);
        assert_eq!(geometry.group_blocks(GroupIndex(0)), 0..256);
        assert_eq!(geometry.group_blocks(GroupIndex(1)), 256..258);
        assert_eq!(geometry.group_blocks(GroupIndex(2)), 258..258);
    }

    #[test]
    fn a_run_that_leaves_the_volume_or_overflows_is_not_contained() {
        let geometry = Geometry::new(3 * 65536).unwrap();
        assert!(geometry.contains_run(BlockIndex(0), 3));
        assert!(!geometry.contains_run(BlockIndex(1), 3));
        assert!(!geometry.contains_run(BlockIndex(1), 0));
        assert!(!geometry.contains_run(BlockIndex(u64::MAX), 2));
    }

    #[test]
    fn nothing_overflows_for_indexes_no_volume_has() {
        let geometry = Geometry::new(1000 * 65536).unwrap();
        for index in [1 << 48, 1 << 56, u64::MAX] {
            assert_eq!(geometry.block_len(BlockIndex(index)), 0);
            assert_eq!(geometry.group_blocks(GroupIndex(index)), 1000..1000);
        }
        assert!(geometry.touched(u64::MAX, u64::MAX).is_empty());
    }

    #[test]
    fn bytes_touch_the_blocks_they_lie_in() {
        let geometry = Geometry::new(10 * 65536 - 1).unwrap();
        assert_eq!(geometry.touched(0, 1), 0..1);
        assert_eq!(geometry.touched(65535, 2), 0..2);
        assert_eq!(geometry.touched(65536, 65536), 1..2);
        assert_eq!(geometry.touched(9 * 65536, u64::MAX), 9..10);
        assert!(geometry.touched(5, 0).is_empty());
    }
}
