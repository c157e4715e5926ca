//! Marks by perf events: the kernel records the events of a disk in a ring for each processor
//! and stream, and a thread reads them. For kernels that do not take the program; a record
//! costs who writes more than a run of that.
//!
//! ```text
//!  block_rq_complete, block_bio_queue ─▶ filter (this disk, no reads) ─▶ rings ─▶ marks, sums
//! ```
//!
//! Marks are stored when records are read, which is late: an event of an older generation may
//! get a newer mark, which costs a read. That none is missed rests on this: `advance` waits
//! until the kernel is done with all events that were under way, and what it is done with is
//! read before marks or sums are. A ring of its own for each stream has no record that waits
//! for another one to be complete, as long as no interrupt records events of the stream that
//! it interrupts; where one does, the judge of the sums asks for more than has to be read.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use blocks::DirtySet;
use blocks::tracking::Recent;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::format::{Event, Stream};
use super::kernel::{Found, Ring};
use super::layout::Layout;
use super::{Disk, Marker, NoTracker, STREAMS, refused};

/// Where the kernel lists the processors that run.
const PROCESSORS: &str = "/sys/devices/system/cpu/online";

/// Bytes of all rings of a disk, and of one: 16,000 records, which is 80 ms of 200,000 writes
/// a second.
const MOST_BYTES: u32 = 16 << 20;
const MOST_OF_ONE: u32 = 1 << 20;
const LEAST_OF_ONE: u32 = 64 << 10;

/// No record of a write is longer, and none before it that says that some were lost: a ring
/// with less room than both take may have lost some.
const LONGEST_RECORDS: u64 = 512;

// Of linux/perf_event.h.
const RECORD_LOST: u32 = 2;
const RECORD_SAMPLE: u32 = 9;

/// Rings, and the thread that reads them.
#[derive(Debug)]
pub(super) struct Perf {
    heard: Arc<Heard>,
    /// As the kernel lists those that have rings.
    processors: String,
    stop: Arc<OwnedFd>,
    reader: Option<JoinHandle<()>>,
}

/// What the thread and whoever asks have in common.
#[derive(Debug)]
struct Heard {
    layout: Layout,
    device: u32,
    /// Of the lowest level: a reader has time for long events.
    marks: Vec<AtomicU16>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rings: Vec<Source>,
    mark: u16,
    /// By stream, as in [`STREAMS`].
    sums: [u64; STREAMS.len()],
    has_lost: bool,
}

#[derive(Debug)]
struct Source {
    stream: Stream,
    event: Event,
    ring: Ring,
    /// It was full: that something is lost is known before the kernel says so.
    was_full: bool,
}

impl Perf {
    /// Has the events of these streams recorded and marked with this, in rings of so many
    /// bytes, or of as many as is good.
    pub(super) fn start(
        disk: &Disk,
        streams: &[Stream],
        mark: u16,
        ring_bytes: Option<u32>,
    ) -> Result<Self, NoTracker> {
        let listing = "list the processors that run";
        let processors = fs::read_to_string(PROCESSORS).map_err(refused(listing))?;
        let numbers = numbers_in(&processors)
            .ok_or_else(|| io::Error::other(format!("{PROCESSORS} has no list of numbers")))
            .map_err(refused(listing))?;
        let bytes = ring_bytes.unwrap_or_else(|| ring_bytes_of(numbers.len()));
        let filter = filter(disk.device());
        let mut rings = vec![];
        for stream in streams {
            let event = Event::of(*stream)?;
            for processor in &numbers {
                let ring = Ring::open(event.id, *processor, &filter, bytes).map_err(refused(
                    "record the kernel's block events (perf_event_open)",
                ))?;
                rings.push(Source {
                    stream: *stream,
                    event,
                    ring,
                    was_full: false,
                });
            }
        }
        let cloning = refused("wait for records of block events");
        let waits = rings.iter().map(|of| of.ring.event().try_clone_to_owned());
        let waits = waits.collect::<io::Result<Vec<_>>>().map_err(&cloning)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| cloning(error.into()))?;
        let stop = Arc::new(stop);
        let layout = Layout::of(disk.sectors());
        let heard = Arc::new(Heard {
            device: disk.device(),
            marks: (0..layout.granules()).map(|_| AtomicU16::new(0)).collect(),
            layout,
            state: Mutex::new(State {
                rings,
                mark,
                sums: [0; STREAMS.len()],
                has_lost: false,
            }),
        });
        let (reading, told) = (Arc::clone(&heard), Arc::clone(&stop));
        let reader = thread::Builder::new()
            .name("dunlin-records".into())
            .spawn(move || reading.read_on(waits, &told))
            .map_err(refused("start a thread"))?;
        Ok(Self {
            heard,
            processors,
            stop,
            reader: Some(reader),
        })
    }
}

impl Drop for Perf {
    fn drop(&mut self) {
        // It is an eventfd that nobody else writes: it takes a number.
        if rustix::io::write(&self.stop, &1u64.to_ne_bytes()).is_ok()
            && let Some(reader) = self.reader.take()
        {
            // Whether it panicked or not, it is over.
            let _ = reader.join();
        }
    }
}

impl Marker for Perf {
    fn begin(&self, mark: u16) {
        let mut state = self.heard.state();
        // Most of what came before it is not marked as new.
        self.heard.read(&mut state, None);
        state.mark = mark;
    }

    fn seen(&self, stream: Stream) -> u64 {
        let mut state = self.heard.state();
        self.heard.read(&mut state, Some(stream));
        state.sums[at(stream)]
    }

    fn collect(&self, what: (Recent, Range<u64>), into: &mut DirtySet) -> bool {
        self.heard.read(&mut self.heard.state(), None);
        let mark_at = |at| {
            self.heard
                .marks
                .get(at)
                .map_or(0, |mark: &AtomicU16| mark.load(Relaxed))
        };
        self.heard.layout.collect(mark_at, what, into)
    }

    fn has_lost(&self) -> bool {
        std::mem::take(&mut self.heard.state().has_lost)
    }

    fn over(&self) -> Option<io::Error> {
        if self.reader.as_ref().is_none_or(JoinHandle::is_finished) {
            return Some(io::Error::other("nobody reads its records any more"));
        }
        match fs::read_to_string(PROCESSORS) {
            Ok(processors) if processors == self.processors => None,
            Ok(_) => Some(io::Error::other(
                "other processors run than when it was begun to",
            )),
            Err(error) => Some(error),
        }
    }
}

impl Heard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            // Whoever read panicked, and does not read on.
            let mut state = poisoned.into_inner();
            state.has_lost = true;
            state
        })
    }

    /// Reads rings before they are full, until it is told to stop.
    fn read_on(&self, waits: Vec<OwnedFd>, stop: &OwnedFd) {
        let mut waits: Vec<&OwnedFd> = waits.iter().collect();
        loop {
            let fds = waits.iter().copied().chain([stop]);
            let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            let waited = poll(&mut fds, None);
            if fds.pop().is_none_or(|stop| !stop.revents().is_empty()) {
                return;
            }
            let mut state = self.state();
            if waited.is_err_and(|error| error != rustix::io::Errno::INTR) {
                state.has_lost = true;
                return;
            }
            self.read(&mut state, None);
            // Of a processor that is gone nothing comes any more, which `over` tells.
            let is_there: Vec<bool> = fds
                .iter()
                .map(|fd| !fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
                .collect();
            let mut at = is_there.iter();
            waits.retain(|_| at.next().is_none_or(|is_there| *is_there));
        }
    }

    /// Marks and sums up what was recorded when this began, of a stream or of all.
    fn read(&self, state: &mut State, only: Option<Stream>) {
        let State {
            rings,
            mark,
            sums,
            has_lost,
        } = state;
        for source in rings {
            let (stream, event) = (source.stream, source.event);
            if only.is_some_and(|only| only != stream) {
                continue;
            }
            let mut is_short = false;
            let found = source.ring.take(|kind, record| {
                // The kernel says what was lost before the next record, which may come late:
                // of a ring that was full it is known.
                let is_told = std::mem::take(&mut source.was_full);
                match kind {
                    RECORD_SAMPLE => match self.mark(&event, record, *mark) {
                        Some(sectors) => sums[at(stream)] += sectors,
                        None => is_short = true,
                    },
                    RECORD_LOST if is_told => {}
                    _ => is_short = true,
                }
            });
            let is_full = matches!(found, Found::Room(room) if room < LONGEST_RECORDS);
            source.was_full |= is_full;
            *has_lost |= is_short || is_full || found == Found::Nonsense;
        }
    }

    /// Marks what a record is about; how many sectors. None for what is no record of this
    /// event.
    fn mark(&self, event: &Event, record: &[u8], mark: u16) -> Option<u64> {
        let raw = record.get(4..)?;
        let dev = u32::from_ne_bytes(field(raw, event.dev)?);
        let [letter] = field(raw, event.rwbs)?;
        let sectors = u32::from_ne_bytes(field(raw, event.nr_sector)?);
        let first = u64::from_ne_bytes(field(raw, event.sector)?);
        if dev != self.device || letter == b'R' || sectors == 0 || first == u64::MAX {
            return Some(0);
        }
        let last = first.saturating_add(u64::from(sectors) - 1);
        let bits = self.layout.sector_bits();
        let (first, last) = ((first >> bits) as usize, (last >> bits) as usize);
        let end = self.marks.len().min(last.saturating_add(1));
        match self.marks.get(first..end) {
            // It lies behind the disk.
            None | Some([]) => Some(0),
            Some(marks) => {
                marks.iter().for_each(|at| at.store(mark, Relaxed));
                Some(sectors.into())
            }
        }
    }
}

fn at(stream: Stream) -> usize {
    match stream {
        Stream::Queued => 0,
        Stream::Completed => 1,
    }
}

fn field<const N: usize>(raw: &[u8], offset: i16) -> Option<[u8; N]> {
    let raw = raw.get(usize::try_from(offset).ok()?..)?;
    raw.first_chunk().copied()
}

/// What the kernel does not even record: other disks, flushes, and reads, as `rwbs` has had
/// them in every kernel. What reads besides is left out when it is read: of letters that are
/// not known here nothing may be lost.
fn filter(device: u32) -> String {
    let reads = ["R", "RA", "RS", "RM", "RAS", "RAM", "RSM", "RASM"];
    let reads = reads.map(|letters| format!(" && rwbs != \"{letters}\""));
    format!("dev == {device} && nr_sector > 0{}", reads.concat())
}

/// Numbers of a list like `0-3,6`.
fn numbers_in(list: &str) -> Option<Vec<u32>> {
    let mut numbers = vec![];
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let [first, last] = [first, last].map(str::parse::<u32>);
        numbers.extend(first.ok()?..=last.ok()?);
    }
    Some(numbers)
}

/// How long each ring of a disk is, where so many processors have two each.
fn ring_bytes_of(processors: usize) -> u32 {
    let rings = u32::try_from(processors * STREAMS.len()).unwrap_or(u32::MAX);
    let each = (MOST_BYTES / rings.max(1)).max(1);
    (1 << each.ilog2()).clamp(LEAST_OF_ONE, MOST_OF_ONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_listed_as_ranges_and_numbers() {
        for (list, expected) in [
            ("0\n", Some(vec![0])),
            ("0-2,5,8-9\n", Some(vec![0, 1, 2, 5, 8, 9])),
            ("\n", None),
            ("0-x\n", None),
        ] {
            assert_eq!(numbers_in(list), expected, "{list:?}");
        }
    }

    #[test]
    fn rings_share_what_a_disk_may_take_and_have_some_pages_each() {
        let sizes = [1, 2, 8, 12, 64, 4096].map(ring_bytes_of);
        let expected = [1 << 20, 1 << 20, 1 << 20, 1 << 19, 1 << 17, 1 << 16];
        assert_eq!(sizes, expected);
    }
}
