//! Where the marks of each disk lie in the one array of all: granule by granule, and above
//! them units of 16, of 256 and of 4096 granules, at which long events leave their marks.

use std::ops::Range;

use blocks::tracking::Recent;
use blocks::{BLOCK_SIZE, DirtySet};

use super::program::Watched;

/// Levels of units; a unit has so many of the level below, in bits.
pub(super) const LEVELS: usize = 4;
pub(super) const LEVEL_BITS: i32 = 4;

/// Marks in one value of the array: a page of them.
pub(super) const MARKS_IN_VALUE: u32 = 2048;

/// Bytes of such a value.
pub(super) const VALUE_BYTES: u32 = MARKS_IN_VALUE * 2;

const SECTOR_BYTES: u64 = 512;

/// Marks of one disk take at most so many bytes, but for the higher levels: a larger disk
/// has larger granules.
const MOST_BYTES_OF_DISK: u64 = 64 << 20;

/// Marks of all disks, higher levels too, take at most so many bytes of the machine's
/// memory: where there are many disks, those that are large have larger granules.
const MOST_BYTES: u64 = 512 << 20;

const MARK_BYTES: u64 = 2;

/// The array of marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    begins: [u32; LEVELS],
    length: u32,
}

impl Layout {
    /// For disks of so many sectors; none where they are too many for the memory that marks
    /// may take.
    pub(super) fn of(sectors: &[u64]) -> Option<(Self, Vec<Watched>)> {
        let halves = (0..u64::BITS).map(|bits| (MOST_BYTES_OF_DISK / MARK_BYTES) >> bits);
        let mut found = halves
            .take_while(|most_granules| *most_granules > 0)
            .map(|most_granules| Self::with(sectors, most_granules));
        found.find_map(|found| {
            found.filter(|(layout, _)| u64::from(layout.length) * MARK_BYTES <= MOST_BYTES)
        })
    }

    /// With so many granules for each disk at most; none where they cannot be numbered.
    fn with(sectors: &[u64], most_granules: u64) -> Option<(Self, Vec<Watched>)> {
        let top = 1u64 << (LEVEL_BITS.unsigned_abs() as usize * (LEVELS - 1));
        let mut next = 0u64;
        let mut watched = Vec::new();
        for (slot, sectors) in sectors.iter().enumerate() {
            let in_block = (BLOCK_SIZE as u64 / SECTOR_BYTES).trailing_zeros();
            let sizes = in_block..u64::BITS;
            let mut sizes = sizes.map(|bits| (bits, sectors.div_ceil(1 << bits)));
            let (sector_bits, granules) = sizes.find(|(_, granules)| *granules <= most_granules)?;
            watched.push(Watched {
                first: u32::try_from(next).ok()?,
                granules: u32::try_from(granules).ok()?,
                sector_bits,
                slot: u32::try_from(slot).ok()?,
            });
            // No unit has granules of two disks.
            next += granules.next_multiple_of(top);
        }
        let mut begins = [0; LEVELS];
        let mut length = 0;
        for (level, begin) in begins.iter_mut().enumerate() {
            *begin = u32::try_from(length).ok()?;
            length += next >> (LEVEL_BITS.unsigned_abs() as usize * level);
        }
        // The program counts in 32 bits with a sign.
        let length = i32::try_from(length).ok()?.unsigned_abs();
        Some((Self { begins, length }, watched))
    }

    /// Where the marks of a level begin.
    pub(super) fn level(&self, level: usize) -> u32 {
        self.begins[level]
    }

    /// Values that the array has.
    pub(super) fn values(&self) -> u32 {
        self.length.div_ceil(MARKS_IN_VALUE).max(1)
    }

    /// Bytes of all marks.
    pub(super) fn bytes(&self) -> usize {
        self.values() as usize * VALUE_BYTES as usize
    }

    /// Marks in `into` what is recent of a disk's bytes, of which `into` is about this range.
    /// False, and all of it, where these are not bytes of the disk.
    pub(super) fn collect(
        &self,
        mark_at: impl Fn(usize) -> u16,
        disk: Watched,
        (recent, bytes): (Recent, Range<u64>),
        into: &mut DirtySet,
    ) -> bool {
        let granule = SECTOR_BYTES << disk.sector_bits;
        if bytes.start > bytes.end || bytes.end > u64::from(disk.granules) * granule {
            into.mark_all();
            return false;
        }
        for (level, begin) in self.begins.iter().enumerate() {
            let bits = LEVEL_BITS.unsigned_abs() as usize * level;
            let unit = granule << bits;
            let of_level = u64::from(*begin) + (u64::from(disk.first) >> bits);
            for number in bytes.start / unit..bytes.end.div_ceil(unit) {
                if recent.has(mark_at(at(of_level + number))) {
                    let start = (number * unit).max(bytes.start);
                    let end = ((number + 1) * unit).min(bytes.end);
                    into.mark_range(start - bytes.start, end.saturating_sub(start));
                }
            }
        }
        true
    }
}

fn at(mark: u64) -> usize {
    // It is in an array of 2^31 marks at most.
    mark as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use blocks::Geometry;
    use blocks::tracking::Generation;
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// What is collected of a volume at this range of a disk's bytes.
    fn collected(layout: &Layout, disk: Watched, marks: &[u16], bytes: Range<u64>) -> Vec<u64> {
        let now = Generation::FIRST.next();
        let recent = Recent::new(now, now).unwrap();
        let mut dirty = DirtySet::new(Geometry::new(bytes.end - bytes.start).unwrap());
        assert!(layout.collect(|at| marks[at], disk, (recent, bytes), &mut dirty));
        let mut blocks = vec![];
        while let Some((first, count)) = dirty.take_next_run(u32::MAX) {
            blocks.extend(first.0..first.0 + u64::from(count));
        }
        blocks
    }

    fn marks(layout: &Layout, at: &[u64]) -> Vec<u16> {
        let mut marks = vec![Generation::FIRST.mark(); layout.length as usize];
        for at in at {
            marks[*at as usize] = Generation::FIRST.next().mark();
        }
        marks
    }

    #[test]
    fn disks_lie_apart_and_large_ones_have_larger_granules() {
        let (layout, disks) = Layout::of(&[100 << 11, 10 << 31, 1]).unwrap();
        assert_eq!(disks[0].sector_bits, 7);
        assert_eq!(disks[0].granules, 1600);
        assert_eq!(disks[1].first, 4096);
        // 10 TiB in 64 MiB of marks: granules of 512 KiB.
        assert_eq!((disks[1].sector_bits, disks[1].granules), (10, 20 << 20));
        assert_eq!(disks[2].granules, 1);
        assert_eq!(layout.level(1), 4096 + (20 << 20) + 4096);
    }

    #[test]
    fn marks_of_many_disks_take_no_more_memory_than_they_may() {
        // As many as fit as they are, and twice as many in granules twice as large.
        for (disks, sector_bits) in [(7, 7), (14, 8), (90, 11)] {
            let mut sectors = vec![4 << 30; disks];
            sectors.push(100 << 11);
            let (layout, watched) = Layout::of(&sectors).unwrap();
            assert!(u64::from(layout.values() * MARKS_IN_VALUE) * 2 <= MOST_BYTES);
            assert_eq!(watched[0].sector_bits, sector_bits, "{disks}");
            assert_eq!(watched[disks].sector_bits, 7, "small ones stay as they are");
        }
        assert_eq!(Layout::of(&[1; 1 << 17]), None);
    }

    #[test]
    fn of_bytes_that_the_disk_does_not_have_all_is_owed() {
        let (layout, disks) = Layout::of(&[64 << 11, 64 << 11]).unwrap();
        let marks = marks(&layout, &[]);
        let recent = Recent::new(Generation::FIRST.next(), Generation::FIRST.next()).unwrap();
        let is_told = |bytes: Range<u64>| {
            let mut dirty = DirtySet::new(Geometry::new(MIB).unwrap());
            let told = layout.collect(|at| marks[at], disks[1], (recent, bytes), &mut dirty);
            assert_eq!(dirty.len(), if told { 0 } else { 16 });
            told
        };
        assert!(is_told(63 * MIB..64 * MIB));
        assert!(!is_told(63 * MIB..64 * MIB + 1));
        assert!(!is_told(64 * MIB..65 * MIB));
        assert!(!is_told(u64::MAX - MIB..u64::MAX));
        assert!(!is_told(Range {
            start: 2 * MIB,
            end: MIB,
        }));
    }

    #[test]
    fn a_unit_of_a_level_stands_for_all_its_granules_and_no_more() {
        let (layout, disks) = Layout::of(&[1 << 11, 64 << 20]).unwrap();
        let disk = disks[1];
        let first = u64::from(disk.first);
        let of = |level: usize, unit: u64| {
            u64::from(layout.level(level)) + (first >> (4 * level)) + unit
        };
        let whole = 0..32 << 30;
        let marks = marks(&layout, &[of(0, 3), of(1, 2), of(2, 4), of(3, 2)]);
        let found = collected(&layout, disk, &marks, whole);
        let expected = [3..4, 32..48, 1024..1280, 8192..12288];
        assert_eq!(found, expected.into_iter().flatten().collect::<Vec<u64>>());
        // Of the other disk nothing is marked.
        assert!(collected(&layout, disks[0], &marks, 0..MIB).is_empty());
    }

    #[test]
    fn a_partition_that_begins_within_a_block_has_both_blocks_that_a_granule_touches() {
        let (layout, disks) = Layout::of(&[64 << 11]).unwrap();
        let marks = marks(&layout, &[100]);
        // It begins 4 KiB after a block of the disk.
        let begin = 2 * MIB + 4096;
        let found = collected(&layout, disks[0], &marks, begin..begin + 10 * MIB);
        let at = (100 * 65536 - begin) / 65536;
        assert_eq!(found, [at, at + 1]);
        // And what lies before or behind it is not its own.
        for outside in [0..100 * 65536, 101 * 65536..64 * MIB] {
            assert!(collected(&layout, disks[0], &marks, outside).is_empty());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_marked_at_whatever_level_is_collected(
            sectors in 1..1_000_000u64,
            level in 0..LEVELS,
            pick in any::<u64>(),
        ) {
            let (layout, disks) = Layout::of(&[7, sectors]).unwrap();
            let disk = disks[1];
            let unit = pick % u64::from(disk.granules).div_ceil(1 << (4 * level));
            let at = u64::from(layout.level(level)) + (u64::from(disk.first) >> (4 * level)) + unit;
            let found = collected(&layout, disk, &marks(&layout, &[at]), 0..sectors * 512);
            let first = unit << (4 * level);
            let end = ((unit + 1) << (4 * level)).min((sectors * 512).div_ceil(65536));
            prop_assert_eq!(found, (first..end).collect::<Vec<u64>>());
        }
    }
}
