//! The program that marks: at each event of a watched disk it stores the present
//! generation's mark at every granule that the event is about, and then adds the event's
//! sectors to a sum, so that what could not be marked is not in the sum either.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::assembler::{Assembly, FRAME, Math, R0, R1, R2, R6, R7, R8, R9, When, Width, Word};
use super::format::{Event, Stream};
use super::kernel::Map;
use super::layout::{LEVEL_BITS, LEVELS, Layout, MARKS_IN_VALUE, VALUE_BYTES};

/// Units of one level that are marked one by one: what is longer is marked in the units of
/// a higher level. An event is 4 GiB long at most, since a bio has its length in 32 bits.
const STEPS: u8 = 17;

/// The maps that it uses.
#[derive(Debug)]
pub(super) struct Maps {
    /// From the number of a device to a [`Watched`].
    pub(super) devices: Map,
    /// The present mark.
    pub(super) control: Map,
    /// All marks.
    pub(super) marks: Map,
    /// Sums of sectors, two for each disk.
    pub(super) sums: Map,
}

/// Bytes of a [`Watched`].
const WATCHED_BYTES: u32 = 16;

/// What a map takes of the memory that a process may lock beside its values, at most.
const MAP_BYTES: u64 = 64 * 1024;

impl Maps {
    /// For so many disks.
    pub(super) fn of(disks: usize, layout: &Layout) -> io::Result<Self> {
        let disks = u32::try_from(disks.max(1)).map_err(io::Error::other)?;
        raise_locked_memory(layout.bytes() as u64 + u64::from(disks) * 256 + 4 * MAP_BYTES);
        Ok(Self {
            devices: Map::hash(WATCHED_BYTES, disks)?,
            control: Map::array(8, 1)?,
            marks: Map::array(VALUE_BYTES, layout.values())?,
            sums: Map::array(8, 2 * disks)?,
        })
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

/// What the program has to know of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watched {
    /// Its first granule among those of all disks.
    pub(super) first: u32,
    /// How many it has.
    pub(super) granules: u32,
    /// A granule has 2 to the power of this sectors.
    pub(super) sector_bits: u32,
    /// Its number.
    pub(super) slot: u32,
}

impl Watched {
    /// As the program reads it.
    pub(super) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let fields = [self.first, self.granules, self.sector_bits, self.slot];
        for (bytes, field) in bytes.chunks_exact_mut(4).zip(fields) {
            bytes.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }
}

// Offsets in a `Watched`.
const FIRST: i16 = 0;
const GRANULES: i16 = 4;
const SECTOR_BITS: i16 = 8;
const SLOT: i16 = 12;

// What is kept in the frame.
const KEY: i16 = -8;
const SUM: i16 = -16;
const SECTORS: i16 = -24;

/// The index of a disk's sum of a stream.
pub(super) fn sum_of(slot: usize, stream: Stream) -> usize {
    slot * 2
        + match stream {
            Stream::Completed => 0,
            Stream::Queued => 1,
        }
}

/// The program for the events of a stream, as this kernel lays them out.
pub(super) fn marking(event: &Event, stream: Stream, maps: &Maps, layout: &Layout) -> Vec<Word> {
    let mut program = Assembly::new();
    look_at(&mut program, event, maps);
    take_up(&mut program, stream);
    choose_level(&mut program, layout);
    mark(&mut program, maps);
    // Only what is marked counts.
    program
        .label("marked")
        .look_up(&maps.sums, SUM)
        .jump(When::Equal, R0, 0, "out")
        .load(Width::Double, R1, FRAME, SECTORS)
        .atomic_add(R0, R1)
        .label("out")
        .exit()
        .finish()
}

/// Leaves out reads, what has no range, and disks that are not watched. R6 is the event
/// then, R8 its first sector, R7 how many, R9 the disk.
fn look_at(program: &mut Assembly, event: &Event, maps: &Maps) {
    program
        .math_by(Math::Move, R6, R1)
        .load(Width::Byte, R2, R6, event.rwbs)
        .jump(When::Equal, R2, i32::from(b'R'), "out")
        .load(Width::Word, R7, R6, event.nr_sector)
        .jump(When::Equal, R7, 0, "out")
        .load(Width::Double, R8, R6, event.sector)
        .jump(When::Equal, R8, -1, "out")
        .load(Width::Word, R1, R6, event.dev)
        .store(Width::Word, FRAME, KEY, R1)
        .look_up(&maps.devices, KEY)
        .jump(When::Equal, R0, 0, "out")
        .math_by(Math::Move, R9, R0)
        .store(Width::Double, FRAME, SECTORS, R7);
}

/// Makes sectors of a disk granules among those of all: R8 is the first and R7 the last.
fn take_up(program: &mut Assembly, stream: Stream) {
    let of_stream = i32::try_from(sum_of(0, stream)).unwrap_or(0);
    program
        .load(Width::Word, R1, R9, SLOT)
        .math(Math::ShiftLeft, R1, 1)
        .math(Math::Add, R1, of_stream)
        .store(Width::Word, FRAME, SUM, R1)
        .math_by(Math::Add, R7, R8)
        .math(Math::Subtract, R7, 1)
        .load(Width::Word, R1, R9, SECTOR_BITS)
        .math_by(Math::ShiftRight, R8, R1)
        .math_by(Math::ShiftRight, R7, R1)
        .load(Width::Word, R1, R9, GRANULES)
        .jump_by(When::AtLeast, R8, R1, "out")
        .jump_by(When::Above, R1, R7, "ends in the disk")
        .math_by(Math::Move, R7, R1)
        .math(Math::Subtract, R7, 1)
        .label("ends in the disk")
        .load(Width::Word, R1, R9, FIRST)
        .math_by(Math::Add, R8, R1)
        .math_by(Math::Add, R7, R1);
}

/// Makes granules units of the lowest level at which they are few enough. R9 is where that
/// level begins.
fn choose_level(program: &mut Assembly, layout: &Layout) {
    const HIGHER: [&str; LEVELS] = ["level 1", "level 2", "level 3", "out"];
    for (level, higher) in HIGHER.into_iter().enumerate() {
        let begins = i32::try_from(layout.level(level)).unwrap_or(i32::MAX);
        program
            .math_by(Math::Move, R1, R7)
            .math_by(Math::Subtract, R1, R8)
            .jump(When::Above, R1, i32::from(STEPS) - 1, higher)
            .math(Math::Move, R9, begins)
            .go("store");
        if level + 1 < LEVELS {
            program
                .label(higher)
                .math(Math::ShiftRight, R8, LEVEL_BITS)
                .math(Math::ShiftRight, R7, LEVEL_BITS);
        }
    }
}

/// Stores the mark at each unit.
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
            .store(Width::Half, R0, 0, R6)
            .math(Math::Add, R8, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
