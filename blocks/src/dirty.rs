//! A set of blocks of one volume that may have changed: a bitmap, one bit a
//! block (2 MiB for a TiB, 128 MiB for the largest volume).
//!
//! Not here: who marks it. Trackers do, and anything they mark outside the
//! volume is ignored, since a device can be larger than what is moved of it.

use std::ops::Range;

use crate::geometry::{BlockIndex, Geometry};

const WORD_BITS: u64 = u64::BITS as u64;

/// The set. Runs are taken in ascending order from where the last one ended,
/// round and round, so that a block marked again waits for its next turn.
#[derive(Debug, Clone)]
pub struct DirtySet {
    geometry: Geometry,
    words: Vec<u64>,
    len: u64,
    cursor: u64,
}

impl DirtySet {
    /// No block is dirty.
    pub fn new(geometry: Geometry) -> Self {
        // At most 2^24 words, by the limit on a volume's length.
        let words = geometry.blocks().div_ceil(WORD_BITS) as usize;
        Self {
            geometry,
            words: vec![0; words],
            len: 0,
            cursor: 0,
        }
    }

    /// The cut of its volume.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How many blocks are dirty.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no block is dirty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the block is dirty.
    pub fn contains(&self, block: BlockIndex) -> bool {
        self.geometry.contains(block) && self.words[word(block.0)] & bit(block.0) != 0
    }

    /// Marks one block; true when it was clean before.
    pub fn mark(&mut self, block: BlockIndex) -> bool {
        if !self.geometry.contains(block) || self.contains(block) {
            return false;
        }
        self.words[word(block.0)] |= bit(block.0);
        self.len += 1;
        true
    }

    /// Marks every block that `len` bytes at `offset` touch.
    pub fn mark_range(&mut self, offset: u64, len: u64) {
        self.mark_blocks(self.geometry.touched(offset, len));
    }

    /// Marks every block of the volume.
    pub fn mark_all(&mut self) {
        self.mark_blocks(0..self.geometry.blocks());
    }

    /// Cleans every block.
    pub fn clear(&mut self) {
        self.words.fill(0);
        self.len = 0;
    }

    /// Marks all that is dirty in `other`, a set of a volume of the same
    /// length.
    ///
    /// # Panics
    /// When the lengths differ: bits of one volume mean nothing in another.
    pub fn merge(&mut self, other: &DirtySet) {
        assert_eq!(
            self.geometry, other.geometry,
            "dirty sets of volumes of different lengths"
        );
        self.len = 0;
        for (ours, theirs) in self.words.iter_mut().zip(&other.words) {
            *ours |= theirs;
            self.len += u64::from(ours.count_ones());
        }
    }

    /// Takes the next run of dirty blocks, at most `max_blocks` long, out of
    /// the set.
    pub fn take_next_run(&mut self, max_blocks: u32) -> Option<(BlockIndex, u32)> {
        if self.is_empty() || max_blocks == 0 {
            return None;
        }
        let first = self
            .next_dirty(self.cursor)
            .or_else(|| self.next_dirty(0))?;
        let mut count = 0;
        while count < max_blocks && self.contains(BlockIndex(first + u64::from(count))) {
            let block = first + u64::from(count);
            self.words[word(block)] &= !bit(block);
            count += 1;
        }
        self.len -= u64::from(count);
        self.cursor = first + u64::from(count);
        Some((BlockIndex(first), count))
    }

    /// The first run of dirty blocks at or after `from`, at most `max_blocks`
    /// long. They stay in the set: a reader that fails can begin again.
    pub fn next_run(&self, from: BlockIndex, max_blocks: u64) -> Option<Range<u64>> {
        let first = self.next_dirty(from.0)?;
        let most = first.saturating_add(max_blocks).min(self.geometry.blocks());
        Some(first..self.next_clean(first, most))
    }

    fn mark_blocks(&mut self, blocks: Range<u64>) {
        let mut block = blocks.start;
        while block < blocks.end {
            let in_word = (WORD_BITS - block % WORD_BITS).min(blocks.end - block);
            let mask = (u64::MAX >> (WORD_BITS - in_word)) << (block % WORD_BITS);
            let word = &mut self.words[word(block)];
            self.len += u64::from((mask & !*word).count_ones());
            *word |= mask;
            block += in_word;
        }
    }

    fn next_dirty(&self, from: u64) -> Option<u64> {
        if from >= self.geometry.blocks() {
            return None;
        }
        let mut index = word(from);
        let mut bits = self.words[index] & (u64::MAX << (from % WORD_BITS));
        while bits == 0 {
            index += 1;
            bits = *self.words.get(index)?;
        }
        Some(index as u64 * WORD_BITS + u64::from(bits.trailing_zeros()))
    }

    /// The first clean block from `from` on, or `end` when all before it are
    /// dirty.
    fn next_clean(&self, from: u64, end: u64) -> u64 {
        let mut block = from;
        while block < end {
            let clean = !self.words[word(block)] >> (block % WORD_BITS);
            if clean != 0 {
                return end.min(block + u64::from(clean.trailing_zeros()));
            }
            block += WORD_BITS - block % WORD_BITS;
        }
        end
    }
}

fn word(block: u64) -> usize {
    (block / WORD_BITS) as usize
}

fn bit(block: u64) -> u64 {
    1 << (block % WORD_BITS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(blocks: u64) -> DirtySet {
        DirtySet::new(Geometry::new(blocks * 65536).unwrap())
    }

    #[test]
    fn runs_end_at_the_limit_and_at_the_first_clean_block() {
        let mut dirty = set(200);
        dirty.mark_range(60 * 65536, 10 * 65536);
        dirty.mark(BlockIndex(199));
        assert_eq!(dirty.take_next_run(0), None);
        assert_eq!(dirty.take_next_run(4), Some((BlockIndex(60), 4)));
        assert_eq!(dirty.take_next_run(100), Some((BlockIndex(64), 6)));
        assert_eq!(dirty.take_next_run(100), Some((BlockIndex(199), 1)));
        assert_eq!(dirty.take_next_run(100), None);
    }

    #[test]
    fn a_block_marked_behind_the_cursor_waits_for_the_next_round() {
        let mut dirty = set(100);
        dirty.mark(BlockIndex(10));
        dirty.mark(BlockIndex(20));
        assert_eq!(dirty.take_next_run(1), Some((BlockIndex(10), 1)));
        dirty.mark(BlockIndex(10));
        assert_eq!(dirty.take_next_run(1), Some((BlockIndex(20), 1)));
        assert_eq!(dirty.take_next_run(1), Some((BlockIndex(10), 1)));
    }

    #[test]
    fn what_lies_outside_the_volume_is_ignored() {
        let mut dirty = set(3);
        assert!(!dirty.mark(BlockIndex(3)));
        assert!(!dirty.mark(BlockIndex(u64::MAX)));
        dirty.mark_range(3 * 65536, 65536);
        assert!(dirty.is_empty());
        dirty.mark_range(2 * 65536, u64::MAX);
        assert_eq!(dirty.len(), 1);
    }

    #[test]
    fn a_block_marked_twice_is_counted_once() {
        let mut dirty = set(200);
        assert!(dirty.mark(BlockIndex(70)));
        assert!(!dirty.mark(BlockIndex(70)));
        dirty.mark_range(69 * 65536, 3 * 65536);
        assert_eq!(dirty.len(), 3);
    }

    #[test]
    fn after_the_last_block_of_a_full_word_the_first_is_next() {
        let mut dirty = set(64);
        dirty.mark_all();
        assert_eq!(dirty.take_next_run(64), Some((BlockIndex(0), 64)));
        dirty.mark(BlockIndex(5));
        assert_eq!(dirty.take_next_run(64), Some((BlockIndex(5), 1)));
    }

    #[test]
    #[should_panic(expected = "volumes of different lengths")]
    fn sets_of_volumes_of_different_lengths_are_not_merged() {
        set(64).merge(&set(63));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_a_set_of_blocks(
            blocks in 1..400u64,
            ranges in prop::collection::vec((0..400 * 65536u64, 0..90 * 65536u64), 0..12),
            others in prop::collection::vec(0..400u64, 0..30),
            max in 1..70u32,
        ) {
            let mut dirty = set(blocks);
            let mut model = BTreeSet::new();
            for (offset, len) in ranges {
                dirty.mark_range(offset, len);
                model.extend((0..blocks).filter(|block| {
                    len > 0 && block * 65536 < offset + len && (block + 1) * 65536 > offset
                }));
            }
            let mut other = set(blocks);
            for block in others {
                let fresh = other.mark(BlockIndex(block));
                prop_assert!(fresh || block >= blocks || other.contains(BlockIndex(block)));
                model.extend((block < blocks).then_some(block));
            }
            dirty.merge(&other);
            prop_assert_eq!(dirty.len(), model.len() as u64);
            let (mut seen, mut from) = (BTreeSet::new(), 0);
            while let Some(run) = dirty.next_run(BlockIndex(from), u64::from(max)) {
                prop_assert!(run.start >= from && run.end - run.start <= u64::from(max));
                let whole = run.end - run.start == u64::from(max);
                prop_assert!(whole || !dirty.contains(BlockIndex(run.end)));
                seen.extend(run.clone());
                from = run.end;
            }
            prop_assert_eq!(&seen, &model);
            prop_assert_eq!(dirty.len(), model.len() as u64, "looking takes nothing out");
            let mut taken = BTreeSet::new();
            while let Some((first, count)) = dirty.take_next_run(max) {
                prop_assert!(count >= 1 && count <= max);
                for block in first.0..first.0 + u64::from(count) {
                    prop_assert!(taken.insert(block));
                }
            }
            prop_assert_eq!(taken, model);
            prop_assert!(dirty.is_empty());

            dirty.mark_all();
            prop_assert_eq!(dirty.len(), blocks);
            dirty.clear();
            prop_assert!(dirty.is_empty() && dirty.take_next_run(1).is_none());
        }
    }
}
