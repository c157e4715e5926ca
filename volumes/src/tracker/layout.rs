//! Where the marks of a disk lie in their array: granule by granule, and above them units
//! of 16, of 256 and of 4096 granules, at which long events leave their marks.

use std::ops::Range;

use blocks::tracking::Recent;
use blocks::{BLOCK_SIZE, DirtySet};

/// Levels of units; a unit has so many of the level below, in bits.
pub(super) const LEVELS: usize = 4;
pub(super) const LEVEL_BITS: i32 = 4;

/// Marks in one value of the array: a page of them.
pub(super) const MARKS_IN_VALUE: u32 = 2048;

/// Bytes of such a value.
pub(super) const VALUE_BYTES: u32 = MARKS_IN_VALUE * 2;

const SECTOR_BYTES: u64 = 512;

/// Marks of a disk have at most so many bytes, but for the higher levels: a larger one has
/// larger granules.
const MOST_BYTES: u64 = 64 << 20;

const MARK_BYTES: u64 = 2;

/// The array of marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    begins: [u32; LEVELS],
    length: u32,
    /// A granule has 2 to the power of this sectors.
    sector_bits: u32,
    granules: u32,
}

impl Layout {
    /// For a disk of so many sectors.
    pub(super) fn of(sectors: u64) -> Self {
        let in_block = (BLOCK_SIZE as u64 / SECTOR_BYTES).trailing_zeros();
        let mut sizes = (in_block..u64::BITS).map(|bits| (bits, sectors.div_ceil(1 << bits)));
        let (sector_bits, granules) = sizes
            .find(|(_, granules)| *granules <= MOST_BYTES / MARK_BYTES)
            .expect("in the largest granules any disk has one or two");
        let granules = u32::try_from(granules).expect("there are no more than that");
        let mut begins = [0; LEVELS];
        let mut length = 0;
        for (level, begin) in begins.iter_mut().enumerate() {
            *begin = length;
            length += granules.div_ceil(1 << (LEVEL_BITS.unsigned_abs() as usize * level));
        }
        Self {
            begins,
            length,
            sector_bits,
            granules,
        }
    }

    /// A granule has 2 to the power of this sectors.
    pub(super) fn sector_bits(&self) -> u32 {
        self.sector_bits
    }

    /// How many granules the disk has.
    pub(super) fn granules(&self) -> u32 {
        self.granules
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

    /// Marks in `into` what is recent of the disk's bytes, of which `into` is about this range.
    /// False, and all of it, where these are not bytes of the disk.
    pub(super) fn collect(
        &self,
        mark_at: impl Fn(usize) -> u16,
        (recent, bytes): (Recent, Range<u64>),
        into: &mut DirtySet,
    ) -> bool {
        let granule = SECTOR_BYTES << self.sector_bits;
        if bytes.start > bytes.end || bytes.end > u64::from(self.granules) * granule {
            into.mark_all();
            return false;
        }
        for (level, begin) in self.begins.iter().enumerate() {
            let unit = granule << (LEVEL_BITS.unsigned_abs() as usize * level);
            for number in bytes.start / unit..bytes.end.div_ceil(unit) {
                if recent.has(mark_at(at(u64::from(*begin) + number))) {
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
    fn collected(layout: &Layout, marks: &[u16], bytes: Range<u64>) -> Vec<u64> {
        let now = Generation::FIRST.next();
        let recent = Recent::new(now, now).unwrap();
        let mut dirty = DirtySet::new(Geometry::new(bytes.end - bytes.start).unwrap());
        assert!(layout.collect(|at| marks[at], (recent, bytes), &mut dirty));
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
    fn large_disks_have_larger_granules() {
        for (sectors, sector_bits, granules) in [
            (1, 7, 1),
            (100 << 11, 7, 1600),
            (4 << 30, 7, 32 << 20),
            // 10 TiB in 64 MiB of marks: granules of 512 KiB.
            (10 << 31, 10, 20 << 20),
            (u64::MAX, 39, 32 << 20),
        ] {
            let layout = Layout::of(sectors);
            let found = (layout.sector_bits, layout.granules);
            assert_eq!(found, (sector_bits, granules), "{sectors}");
            assert!(layout.bytes() as u64 <= MOST_BYTES / 15 * 16 + u64::from(VALUE_BYTES));
        }
        let layout = Layout::of(100 << 11);
        assert_eq!((layout.level(1), layout.level(2)), (1600, 1700));
        assert_eq!((layout.level(3), layout.length), (1707, 1708));
    }

    #[test]
    fn of_bytes_that_the_disk_does_not_have_all_is_owed() {
        let layout = Layout::of(64 << 11);
        let marks = marks(&layout, &[]);
        let recent = Recent::new(Generation::FIRST.next(), Generation::FIRST.next()).unwrap();
        let is_told = |bytes: Range<u64>| {
            let mut dirty = DirtySet::new(Geometry::new(MIB).unwrap());
            let told = layout.collect(|at| marks[at], (recent, bytes), &mut dirty);
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
        let layout = Layout::of(64 << 20);
        let of = |level: usize, unit: u64| u64::from(layout.level(level)) + unit;
        let whole = 0..32 << 30;
        let marks = marks(&layout, &[of(0, 3), of(1, 2), of(2, 4), of(3, 2)]);
        let found = collected(&layout, &marks, whole);
        let expected = [3..4, 32..48, 1024..1280, 8192..12288];
        assert_eq!(found, expected.into_iter().flatten().collect::<Vec<u64>>());
    }

    #[test]
    fn a_partition_that_begins_within_a_block_has_both_blocks_that_a_granule_touches() {
        let layout = Layout::of(64 << 11);
        let marks = marks(&layout, &[100]);
        // It begins 4 KiB after a block of the disk.
        let begin = 2 * MIB + 4096;
        let found = collected(&layout, &marks, begin..begin + 10 * MIB);
        let at = (100 * 65536 - begin) / 65536;
        assert_eq!(found, [at, at + 1]);
        // And what lies before or behind it is not its own.
        for outside in [0..100 * 65536, 101 * 65536..64 * MIB] {
            assert!(collected(&layout, &marks, outside).is_empty());
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
            let layout = Layout::of(sectors);
            let unit = pick % u64::from(layout.granules).div_ceil(1 << (4 * level));
            let at = u64::from(layout.level(level)) + unit;
            let found = collected(&layout, &marks(&layout, &[at]), 0..sectors * 512);
            let first = unit << (4 * level);
            let end = ((unit + 1) << (4 * level)).min((sectors * 512).div_ceil(65536));
            prop_assert_eq!(found, (first..end).collect::<Vec<u64>>());
        }
    }
}
