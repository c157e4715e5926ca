//! The program that marks: at each event of the disk that is followed it stores the present
//! generation's mark at every granule that the event is about, and then adds the event's
//! sectors to a sum, so that what could not be marked is not in the sum either.
//!
//! It runs at every event of every disk, on all processors at once. So what it has to know of
//! its disk is in its instructions, and nothing is stored where another processor stores
//! too but for marks that are new: each has sums of its own, in a piece of memory of its
//! own. A program is not interrupted by itself on its processor (`bpf_prog_active`), and
//! would lose of the sum, if it were, which is told as missing.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::assembler::{Assembly, FRAME, Math, R0, R1, R2, R6, R7, R8, R9, When, Width, Word};
use super::format::{Event, Stream};
use super::kernel::Map;
use super::layout::{LEVEL_BITS, LEVELS, Layout, MARKS_IN_VALUE, VALUE_BYTES};

/// Units of one level that are marked one by one: what is longer is marked in the units of
/// a higher level. An event is 4 GiB long at most, since a bio has its length in 32 bits.
const STEPS: u8 = 17;

/// Memory that one processor fetches or stores at once: two lines of 64 bytes.
const OWN_BYTES: u32 = 128;

const SUM_BYTES: u32 = 8;

/// The maps that it uses.
#[derive(Debug)]
pub(super) struct Maps {
    /// The present mark.
    pub(super) control: Map,
    /// All marks.
    pub(super) marks: Map,
    /// For each processor its sums of sectors.
    pub(super) sums: Map,
    processors: u32,
}

/// What a map takes of the memory that a process may lock beside its values, at most.
const MAP_BYTES: u64 = 64 * 1024;

impl Maps {
    /// For a disk laid out like this.
    pub(super) fn of(layout: &Layout) -> io::Result<Self> {
        let processors = fs::read_to_string(PROCESSORS)?;
        let processors = processors_in(&processors)
            .ok_or_else(|| io::Error::other(format!("{PROCESSORS} has no list of numbers")))?;
        let of_sums = u64::from(processors) * u64::from(OWN_BYTES);
        raise_locked_memory(layout.bytes() as u64 + of_sums + 3 * MAP_BYTES);
        Ok(Self {
            control: Map::array(8, 1)?,
            marks: Map::array(VALUE_BYTES, layout.values())?,
            sums: Map::array(OWN_BYTES, processors)?,
            processors,
        })
    }

    /// Bytes of all sums.
    pub(super) fn bytes_of_sums(&self) -> usize {
        self.processors as usize * OWN_BYTES as usize
    }

    /// Where the sums of a stream are, among numbers of 64 bits.
    pub(super) fn sums_of(&self, stream: Stream) -> impl Iterator<Item = usize> + use<> {
        (0..self.processors).map(move |processor| {
            ((processor * OWN_BYTES + sum_in_own(stream)) / SUM_BYTES) as usize
        })
    }
}

/// Where the kernel lists the processors that there may ever be.
const PROCESSORS: &str = "/sys/devices/system/cpu/possible";

/// How many numbers up to the last of a list like `0-3,6`.
fn processors_in(list: &str) -> Option<u32> {
    let last = list.trim().rsplit([',', '-']).next()?;
    last.parse::<u32>().ok()?.checked_add(1)
}

/// Where the sum of a stream is in the memory of a processor.
fn sum_in_own(stream: Stream) -> u32 {
    match stream {
        Stream::Completed => 0,
        Stream::Queued => SUM_BYTES,
    }
}

/// Kernels before 5.11 count maps against the memory that a process may lock.
fn raise_locked_memory(bytes: u64) {
    let limit = raised(getrlimit(Resource::Memlock), bytes);
    // Where it is refused, so may the maps be, which says why.
    let _ = setrlimit(Resource::Memlock, limit);
}

/// A limit under which there is room for so many bytes more.
fn raised(limit: Rlimit, bytes: u64) -> Rlimit {
    let current = limit.current.map(|had| had.saturating_add(bytes));
    let maximum = limit.maximum.zip(current);
    Rlimit {
        current,
        maximum: maximum.map(|(maximum, current)| maximum.max(current)),
    }
}

// What is kept in the frame.
const KEY: i16 = -8;
const SECTORS: i16 = -16;

/// The program for the events of a stream, as this kernel lays them out, that are about the
/// device of this number.
pub(super) fn marking(
    (event, stream): (&Event, Stream),
    device: u32,
    maps: &Maps,
    layout: &Layout,
) -> Vec<Word> {
    let mut program = Assembly::new();
    look_at(&mut program, event, device);
    take_up(&mut program, layout);
    choose_level(&mut program, layout);
    mark(&mut program, maps);
    // Only what is marked counts.
    let sum = i16::try_from(sum_in_own(stream)).expect("it is a small number");
    program
        .label("marked")
        .processor()
        .store(Width::Word, FRAME, KEY, R0)
        .look_up(&maps.sums, KEY)
        .jump(When::Equal, R0, 0, "out")
        .load(Width::Double, R1, FRAME, SECTORS)
        .load(Width::Double, R2, R0, sum)
        .math_by(Math::Add, R1, R2)
        .store(Width::Double, R0, sum, R1)
        .label("out")
        .exit()
        .finish()
}

/// Leaves out other disks, reads, and what has no range. R6 is the event then, R8 its first
/// sector, and R7 how many.
fn look_at(program: &mut Assembly, event: &Event, device: u32) {
    program
        .math_by(Math::Move, R6, R1)
        .load(Width::Word, R1, R6, event.dev)
        .jump_by_word(When::NotEqual, R1, device, "out")
        .load(Width::Byte, R2, R6, event.rwbs)
        .jump(When::Equal, R2, i32::from(b'R'), "out")
        .load(Width::Word, R7, R6, event.nr_sector)
        .jump(When::Equal, R7, 0, "out")
        .load(Width::Double, R8, R6, event.sector)
        .jump(When::Equal, R8, -1, "out")
        .store(Width::Double, FRAME, SECTORS, R7);
}

/// Makes sectors granules: R8 is the first and R7 the last.
fn take_up(program: &mut Assembly, layout: &Layout) {
    let bits = layout.sector_bits().cast_signed();
    let granules = layout.granules().cast_signed();
    program
        .math_by(Math::Add, R7, R8)
        .math(Math::Subtract, R7, 1)
        .math(Math::ShiftRight, R8, bits)
        .math(Math::ShiftRight, R7, bits)
        .jump(When::AtLeast, R8, granules, "out")
        .math(Math::Move, R1, granules)
        .jump_by(When::Above, R1, R7, "ends in the disk")
        .math(Math::Move, R7, granules - 1)
        .label("ends in the disk");
}

/// Makes granules units of the lowest level at which they are few enough. R9 is where that
/// level begins.
fn choose_level(program: &mut Assembly, layout: &Layout) {
    const HIGHER: [&str; LEVELS] = ["level 1", "level 2", "level 3", "out"];
    for (level, higher) in HIGHER.into_iter().enumerate() {
        program
            .math_by(Math::Move, R1, R7)
            .math_by(Math::Subtract, R1, R8)
            .jump(When::Above, R1, i32::from(STEPS) - 1, higher)
            .math(Math::Move, R9, layout.level(level).cast_signed())
            .go("store");
        if level + 1 < LEVELS {
            program
                .label(higher)
                .math(Math::ShiftRight, R8, LEVEL_BITS)
                .math(Math::ShiftRight, R7, LEVEL_BITS);
        }
    }
}

/// Stores the mark at each unit, where it is not there already: to have found it there while
/// the program ran is as good as to have stored it then.
fn mark(program: &mut Assembly, maps: &Maps) {
    program
        .label("store")
        .store_value(Width::Word, FRAME, KEY, 0)
        .look_up(&maps.control, KEY)
        .jump(When::Equal, R0, 0, "out")
        .load(Width::Half, R6, R0, 0);
    let bits = MARKS_IN_VALUE.trailing_zeros();
    for _ in 0..STEPS {
        program
            .jump_by(When::Above, R8, R7, "marked")
            .math_by(Math::Move, R1, R8)
            .math_by(Math::Add, R1, R9)
            .math(Math::ShiftRight, R1, bits.cast_signed())
            .store(Width::Word, FRAME, KEY, R1)
            .look_up(&maps.marks, KEY)
            .jump(When::Equal, R0, 0, "out")
            .math_by(Math::Move, R1, R8)
            .math_by(Math::Add, R1, R9)
            .math(Math::And, R1, MARKS_IN_VALUE.cast_signed() - 1)
            .math(Math::ShiftLeft, R1, 1)
            .math_by(Math::Add, R0, R1)
            .store_if_other(Width::Half, (R0, 0), R6, R1)
            .math(Math::Add, R8, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_processors_as_the_last_of_the_list_says() {
        for (list, expected) in [
            ("0\n", Some(1)),
            ("0-63\n", Some(64)),
            ("0-3,8-11\n", Some(12)),
            ("0,2\n", Some(3)),
            ("\n", None),
            ("0-4294967295\n", None),
        ] {
            assert_eq!(processors_in(list), expected, "{list:?}");
        }
    }

    #[test]
    fn the_limit_of_locked_memory_is_raised_by_what_is_needed_and_no_more() {
        let limit = |current, maximum| Rlimit { current, maximum };
        for (had, expected) in [
            (limit(Some(64), Some(64)), limit(Some(164), Some(164))),
            (limit(Some(64), Some(500)), limit(Some(164), Some(500))),
            (limit(Some(64), None), limit(Some(164), None)),
            (limit(None, None), limit(None, None)),
        ] {
            assert_eq!(raised(had, 100), expected);
        }
    }
}
