//! What of some bytes differs from what the stored tree has for them: the part
//! of a scan that costs, without any state, for as many threads as there are.
//!
//! Not here: which bytes to read (`scan`), and reading them.

use std::ops::Range;

use blocks::{
    BLOCK_SIZE, BlockIndex, Geometry, Leaf, MAX_EXTENT_BLOCKS, MAX_ZERO_BLOCKS, ZERO_ENTRY,
    is_zero, leaf,
};

/// A run of blocks that differ from the stored tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// They are zero now, and were not.
    Zero {
        /// The first one.
        first: BlockIndex,
        /// How many, at most [`MAX_ZERO_BLOCKS`].
        count: u64,
    },
    /// They hold data.
    Data {
        /// The first one.
        first: BlockIndex,
        /// The leaf of each, at most [`MAX_EXTENT_BLOCKS`].
        leaves: Vec<Leaf>,
        /// Where their bytes are among those that were compared.
        bytes: Range<usize>,
        /// Whether the tree has all of them as zero: there is nothing at the
        /// other end that they could be a change of.
        is_fresh: bool,
    },
}

/// Compares the bytes of consecutive blocks from `first` on with their entries
/// in the stored tree, and gives the runs that differ, in order. A run is all
/// fresh or not at all. It costs hashing what is not zero, and next to nothing
/// beside it.
///
/// # Panics
/// When `bytes` are not exactly those of as many blocks as there are entries.
pub fn find_changed(
    geometry: Geometry,
    first: BlockIndex,
    entries: &[Leaf],
    bytes: &[u8],
) -> Vec<Changed> {
    let range = geometry.run_range(first, entries.len() as u64);
    assert_eq!(
        bytes.len() as u64,
        range.end - range.start,
        "{} blocks from {first} on have other bytes",
        entries.len()
    );
    let mut changed = Vec::new();
    for (i, (data, entry)) in bytes.chunks(BLOCK_SIZE).zip(entries).enumerate() {
        let block = BlockIndex(first.0 + i as u64);
        if is_zero(data) {
            if *entry != ZERO_ENTRY {
                add_zeros(block.0..block.0 + 1, &mut changed);
            }
            continue;
        }
        let leaf = leaf(geometry, block, data);
        if leaf != *entry {
            let from = i * BLOCK_SIZE;
            let at = from..from + data.len();
            add_data(block, leaf, at, *entry == ZERO_ENTRY, &mut changed);
        }
    }
    changed
}

/// The blocks from `first` on that read as zeros and have other entries.
pub(crate) fn find_not_zero(first: BlockIndex, entries: &[Leaf], changed: &mut Vec<Changed>) {
    for (block, entry) in (first.0..).zip(entries) {
        if *entry != ZERO_ENTRY {
            add_zeros(block..block + 1, changed);
        }
    }
}

/// Adds a run of at most [`MAX_ZERO_BLOCKS`] blocks that became zero, to the
/// last run where it can.
pub(crate) fn add_zeros(blocks: Range<u64>, changed: &mut Vec<Changed>) {
    let more = blocks.end - blocks.start;
    match changed.last_mut() {
        Some(Changed::Zero { first, count })
            if first.0 + *count == blocks.start && *count + more <= MAX_ZERO_BLOCKS.into() =>
        {
            *count += more;
        }
        _ => changed.push(Changed::Zero {
            first: BlockIndex(blocks.start),
            count: more,
        }),
    }
}

fn add_data(
    block: BlockIndex,
    leaf: Leaf,
    at: Range<usize>,
    fresh: bool,
    changed: &mut Vec<Changed>,
) {
    match changed.last_mut() {
        Some(Changed::Data {
            first,
            leaves,
            bytes,
            is_fresh,
        }) if first.0 + leaves.len() as u64 == block.0
            && leaves.len() < MAX_EXTENT_BLOCKS as usize
            && *is_fresh == fresh =>
        {
            leaves.push(leaf);
            bytes.end = at.end;
        }
        _ => changed.push(Changed::Data {
            first: block,
            leaves: vec![leaf],
            bytes: at,
            is_fresh: fresh,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn geometry() -> Geometry {
        Geometry::new(100 * BLOCK_SIZE as u64 + 10).unwrap()
    }

    #[test]
    fn a_run_is_all_fresh_or_not_at_all() {
        let data = vec![1; 6 * BLOCK_SIZE];
        let mut entries = [ZERO_ENTRY; 6];
        entries[2] = Leaf([1; 32]);
        entries[3] = Leaf([2; 32]);
        entries[5] = leaf(geometry(), BlockIndex(9), &data[..BLOCK_SIZE]);
        let runs: Vec<_> = find_changed(geometry(), BlockIndex(4), &entries, &data)
            .into_iter()
            .map(|run| match run {
                Changed::Data {
                    first,
                    leaves,
                    bytes,
                    is_fresh,
                } => (first.0, leaves.len(), bytes.start / BLOCK_SIZE, is_fresh),
                Changed::Zero { .. } => panic!("nothing is zero"),
            })
            .collect();
        let expected = [(4, 2, 0, true), (6, 2, 2, false), (8, 1, 4, true)];
        assert_eq!(runs, expected);
    }

    #[test]
    fn no_run_is_longer_than_an_extent_may_be() {
        let data = vec![1; 40 * BLOCK_SIZE];
        let found = find_changed(geometry(), BlockIndex(0), &[ZERO_ENTRY; 40], &data);
        let lengths: Vec<usize> = found
            .iter()
            .map(|run| match run {
                Changed::Data { leaves, .. } => leaves.len(),
                Changed::Zero { .. } => panic!("nothing is zero"),
            })
            .collect();
        assert_eq!(lengths, [16, 16, 8]);

        let mut zeros = Vec::new();
        find_not_zero(BlockIndex(7), &vec![Leaf([1; 32]); 5000], &mut zeros);
        let expected = [(7, 4096), (4103, 904)].map(|(first, count)| Changed::Zero {
            first: BlockIndex(first),
            count,
        });
        assert_eq!(zeros, expected);
    }

    #[test]
    #[should_panic(expected = "have other bytes")]
    fn bytes_of_other_blocks_than_the_entries_are_not_compared() {
        // The last block is short.
        find_changed(
            geometry(),
            BlockIndex(99),
            &[ZERO_ENTRY; 2],
            &vec![0; 2 * BLOCK_SIZE],
        );
    }
}
