//! Runs of neighbouring blocks: what they hold, and the check that bytes which
//! came from a peer are what their leaves say.
//!
//! Not here: the bytes themselves, and decompressing them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::geometry::{BLOCK_SIZE, BlockIndex, GROUP_BLOCKS, Geometry, GroupIndex};
use crate::hash::Leaf;
use crate::tree::leaf;

/// Blocks in one data extent at most: 1 MiB, large enough for streams and
/// disks to run at full speed, small enough to hold many in memory.
pub const MAX_EXTENT_BLOCKS: u32 = 16;

/// Blocks in one zero extent at most: 256 MiB, so that a later write never
/// waits long behind one.
pub const MAX_ZERO_BLOCKS: u32 = 4096;

/// A source asks for a barrier once extents of this weight are pending: 1 GiB
/// of data. It bounds what a crash costs and what both ends hold in memory.
pub const BARRIER_BLOCKS: u64 = 16 * 1024;

/// Barriers asked for and not yet durable at most: one being flushed while the
/// extents of the next one come in.
pub const MAX_BARRIERS: usize = 2;

/// What a run of blocks holds, by its leaves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Extent {
    /// All bytes are zero. Their leaves follow from their places and are
    /// computed when needed, not carried.
    Zero {
        /// The first block.
        first: BlockIndex,
        /// How many blocks, 1 to [`MAX_ZERO_BLOCKS`].
        count: u32,
    },
    /// Bytes with these leaves, one for each block.
    Data {
        /// The first block.
        first: BlockIndex,
        /// 1 to [`MAX_EXTENT_BLOCKS`] leaves.
        leaves: Vec<Leaf>,
    },
}

impl Extent {
    /// The first block.
    pub fn first(&self) -> BlockIndex {
        match self {
            Self::Zero { first, .. } | Self::Data { first, .. } => *first,
        }
    }

    /// How many blocks.
    pub fn count(&self) -> u64 {
        match self {
            Self::Zero { count, .. } => u64::from(*count),
            Self::Data { leaves, .. } => leaves.len() as u64,
        }
    }

    /// What it counts towards [`BARRIER_BLOCKS`]: a block of data is one, and
    /// so are up to 256 blocks of zeros, which cost next to nothing to send and
    /// to write again.
    pub fn weight(&self) -> u64 {
        match self {
            Self::Zero { count, .. } => u64::from(*count).div_ceil(GROUP_BLOCKS).max(1),
            Self::Data { leaves, .. } => leaves.len() as u64,
        }
    }

    /// The groups it touches, in ascending order; none if it is empty.
    pub fn groups(&self) -> impl Iterator<Item = GroupIndex> + use<> {
        let first = self.first().0;
        let end = first.saturating_add(self.count());
        let groups = first / GROUP_BLOCKS..end.div_ceil(GROUP_BLOCKS);
        groups.map(GroupIndex)
    }

    /// Whether it has blocks, not too many, and all in the volume.
    ///
    /// # Errors
    /// [`BadExtent::Count`] or [`BadExtent::OutOfVolume`].
    pub fn check_bounds(&self, geometry: Geometry) -> Result<(), BadExtent> {
        let limit = match self {
            Self::Zero { .. } => MAX_ZERO_BLOCKS,
            Self::Data { .. } => MAX_EXTENT_BLOCKS,
        };
        let (first, count) = (self.first(), self.count());
        if count == 0 || count > u64::from(limit) {
            return Err(BadExtent::Count {
                first,
                count,
                limit,
            });
        }
        if !geometry.contains_run(first, count) {
            return Err(BadExtent::OutOfVolume { first, count });
        }
        Ok(())
    }
}

/// Why an extent from a peer is not written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadExtent {
    /// No blocks, or more than an extent may have.
    #[error("extent of {count} blocks at {first} is not of 1 to {limit} blocks")]
    Count {
        /// Its first block.
        first: BlockIndex,
        /// Its blocks.
        count: u64,
        /// The most an extent of its kind may have.
        limit: u32,
    },
    /// It begins or ends outside the volume.
    #[error("extent of {count} blocks at {first} is outside the volume")]
    OutOfVolume {
        /// Its first block.
        first: BlockIndex,
        /// Its blocks.
        count: u64,
    },
    /// Its payload is not as long as its blocks.
    #[error("extent at {first} holds {bytes} bytes, not {expected}")]
    Length {
        /// Its first block.
        first: BlockIndex,
        /// Bytes of payload after decoding.
        bytes: u64,
        /// Bytes of its blocks.
        expected: u64,
    },
    /// The pieces of a patch are none, or not all within their block.
    #[error("patch of {block} has no pieces, or some beyond its end")]
    Pieces {
        /// The first such block.
        block: BlockIndex,
    },
    /// Its payload could not be decompressed.
    #[error("extent at {first} does not decompress")]
    Undecodable {
        /// Its first block.
        first: BlockIndex,
    },
    /// A block does not hash to the leaf that came with it.
    #[error("{block} does not hash to its leaf")]
    Mismatch {
        /// The first such block.
        block: BlockIndex,
    },
}

/// An extent that lies in the volume and whose bytes hash to its leaves. Only
/// [`ExtentCheck`], [`check_extent`] and [`check_zero`] make one, so nothing
/// unchecked can be handed to the target's session for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedExtent(Extent);

impl CheckedExtent {
    /// What was checked.
    pub fn extent(&self) -> &Extent {
        &self.0
    }

    /// What was checked, by value.
    pub fn into_extent(self) -> Extent {
        self.0
    }
}

/// Checks a data extent against its decoded bytes: bounds first, then length,
/// then every block's hash.
///
/// # Errors
/// The first thing found wrong; the extent must not be written then.
pub fn check_extent(
    geometry: Geometry,
    first: BlockIndex,
    leaves: Vec<Leaf>,
    data: &[u8],
) -> Result<CheckedExtent, BadExtent> {
    let check = ExtentCheck::new(geometry, (first, leaves), data.len() as u64)?;
    let check = data
        .chunks(BLOCK_SIZE)
        .try_fold(check, ExtentCheck::block)?;
    check.finish()
}

/// The check of a data extent while its bytes come in, a block at a time: each is looked
/// at while it is in the processor's cache.
#[derive(Debug)]
pub struct ExtentCheck {
    geometry: Geometry,
    first: BlockIndex,
    leaves: Vec<Leaf>,
    /// Blocks whose bytes were seen.
    seen: usize,
}

impl ExtentCheck {
    /// Begins with its bounds, and with how many bytes are to come.
    ///
    /// # Errors
    /// When either is wrong; its bytes need not be looked at then.
    pub fn new(
        geometry: Geometry,
        (first, leaves): (BlockIndex, Vec<Leaf>),
        bytes: u64,
    ) -> Result<Self, BadExtent> {
        let extent = Extent::Data { first, leaves };
        let expected = extent_len(geometry, &extent)?;
        if bytes != expected {
            return Err(BadExtent::Length {
                first,
                bytes,
                expected,
            });
        }
        let Extent::Data { leaves, .. } = extent else {
            unreachable!("made above as data");
        };
        Ok(Self {
            geometry,
            first,
            leaves,
            seen: 0,
        })
    }

    /// Looks at the bytes of the next block. The check goes on only where they are right.
    ///
    /// # Errors
    /// When they do not hash to its leaf; the extent must not be written then.
    pub fn block(mut self, bytes: &[u8]) -> Result<Self, BadExtent> {
        let block = BlockIndex(self.first.0 + self.seen as u64);
        let expected = self.leaves.get(self.seen);
        if bytes.is_empty() || expected != Some(&leaf(self.geometry, block, bytes)) {
            return Err(BadExtent::Mismatch { block });
        }
        self.seen += 1;
        Ok(self)
    }

    /// What was checked.
    ///
    /// # Errors
    /// When not all of its blocks were looked at.
    pub fn finish(self) -> Result<CheckedExtent, BadExtent> {
        let (first, leaves) = (self.first, self.leaves);
        if self.seen < leaves.len() {
            let block = BlockIndex(first.0 + self.seen as u64);
            return Err(BadExtent::Mismatch { block });
        }
        Ok(CheckedExtent(Extent::Data { first, leaves }))
    }
}

/// Checks a zero extent, which has no bytes to look at.
///
/// # Errors
/// When it is out of bounds; it must not be written then.
pub fn check_zero(
    geometry: Geometry,
    first: BlockIndex,
    count: u32,
) -> Result<CheckedExtent, BadExtent> {
    let extent = Extent::Zero { first, count };
    extent.check_bounds(geometry)?;
    Ok(CheckedExtent(extent))
}

/// The bytes of an extent's blocks: what a payload must decode to, known
/// before it is decompressed.
///
/// # Errors
/// When the extent is out of bounds.
pub fn extent_len(geometry: Geometry, extent: &Extent) -> Result<u64, BadExtent> {
    extent.check_bounds(geometry)?;
    let range = geometry.run_range(extent.first(), extent.count());
    Ok(range.end - range.start)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn geometry() -> Geometry {
        Geometry::new(300 * 65536 + 10).unwrap()
    }

    fn leaves(first: u64, data: &[u8]) -> Vec<Leaf> {
        (first..)
            .zip(data.chunks(BLOCK_SIZE))
            .map(|(block, data)| leaf(geometry(), BlockIndex(block), data))
            .collect()
    }

    #[test]
    fn bytes_that_hash_to_their_leaves_pass_even_at_the_short_end() {
        let data = vec![7; 2 * BLOCK_SIZE + 10];
        let first = BlockIndex(298);
        let leaves = leaves(298, &data);
        let checked = check_extent(geometry(), first, leaves.clone(), &data).unwrap();
        assert_eq!(checked.into_extent(), Extent::Data { first, leaves });
    }

    #[test]
    fn one_flipped_bit_names_its_block() {
        let mut data = vec![7; 3 * BLOCK_SIZE];
        let leaves = leaves(5, &data);
        data[2 * BLOCK_SIZE + 1] ^= 1;
        assert_eq!(
            check_extent(geometry(), BlockIndex(5), leaves, &data),
            Err(BadExtent::Mismatch {
                block: BlockIndex(7)
            })
        );
    }

    #[test]
    fn an_extent_of_which_not_every_block_was_seen_and_right_does_not_pass() {
        let data = vec![7; 3 * BLOCK_SIZE];
        let (first, leaves) = (BlockIndex(5), leaves(5, &data));
        let len = data.len() as u64;
        let check = || ExtentCheck::new(geometry(), (first, leaves.clone()), len).unwrap();
        let block = |at| BadExtent::Mismatch {
            block: BlockIndex(at),
        };
        assert_eq!(check().finish(), Err(block(5)));
        let seen = |blocks: usize| {
            let data = data.chunks(BLOCK_SIZE).take(blocks);
            data.fold(check(), |check, bytes| check.block(bytes).unwrap())
        };
        assert_eq!(seen(2).finish(), Err(block(7)));
        assert_eq!(seen(1).block(&[8; BLOCK_SIZE]).err(), Some(block(6)));
        // There is no fourth, and an empty one is none.
        assert_eq!(seen(3).block(&data[..BLOCK_SIZE]).err(), Some(block(8)));
        assert_eq!(seen(2).block(&[]).err(), Some(block(7)));
        assert!(seen(3).finish().is_ok());
    }

    #[test]
    fn right_bytes_at_the_wrong_place_do_not_pass() {
        let data = vec![7; BLOCK_SIZE];
        let leaves = leaves(5, &data);
        assert_eq!(
            check_extent(geometry(), BlockIndex(6), leaves, &data),
            Err(BadExtent::Mismatch {
                block: BlockIndex(6)
            })
        );
    }

    #[test]
    fn bounds_and_lengths_are_checked_before_anything_is_hashed() {
        let data = vec![0; 17 * BLOCK_SIZE];
        let leaf = Leaf([0; 32]);
        let check = |first, count, bytes: usize| {
            check_extent(
                geometry(),
                BlockIndex(first),
                vec![leaf; count],
                &data[..bytes],
            )
        };
        assert!(matches!(check(0, 0, 0), Err(BadExtent::Count { .. })));
        assert!(matches!(
            check(0, 17, 17 * BLOCK_SIZE),
            Err(BadExtent::Count { .. })
        ));
        for first in [300, 301, u64::MAX] {
            assert!(matches!(
                check(first, 2, 2 * BLOCK_SIZE),
                Err(BadExtent::OutOfVolume { .. })
            ));
        }
        for bytes in [0, 9, 11, BLOCK_SIZE] {
            assert!(matches!(
                check(300, 1, bytes),
                Err(BadExtent::Length { expected: 10, .. })
            ));
        }
    }

    #[test]
    fn zero_extents_are_bounded_too() {
        let zero = |first, count| check_zero(geometry(), BlockIndex(first), count);
        assert!(zero(0, 301).is_ok());
        assert!(matches!(zero(0, 0), Err(BadExtent::Count { .. })));
        assert!(matches!(
            zero(0, MAX_ZERO_BLOCKS + 1),
            Err(BadExtent::Count { .. })
        ));
        assert!(matches!(zero(1, 301), Err(BadExtent::OutOfVolume { .. })));
    }

    #[test]
    fn an_extent_names_every_group_it_touches() {
        let groups = |first, count| {
            let first = BlockIndex(first);
            let groups = Extent::Zero { first, count }.groups();
            groups.map(|group| group.0).collect::<Vec<_>>()
        };
        assert_eq!(groups(0, 256), [0]);
        assert_eq!(groups(255, 2), [0, 1]);
        assert_eq!(groups(256, 513), [1, 2, 3]);
        assert!(groups(256, 0).is_empty());
        // Total, though no such extent passes the check of its bounds.
        assert_eq!(groups(u64::MAX, 2), [u64::MAX / 256]);
    }
}
