//! Following what is written to disks, without a module in the kernel and without stopping
//! anything: a small program at the kernel's block tracepoints marks each granule that is
//! written with the present generation ([`blocks::tracking`] says why no write is lost), and
//! sums up the sectors that it saw, which are held beside what the kernel counted of the
//! same disk.
//!
//! ```text
//!  block_rq_complete ─┐                 ┌ marks ───▶ collect ─▶ DirtySet
//!  block_bio_queue  ──┴▶ program ─▶ maps┤
//!                                       └ sums ───▶ Judge ◀─── /sys/block/DISK/stat
//! ```
//!
//! It needs a kernel from 5.5 on and the rights of root. What it cannot follow is compared
//! as a whole, as ever. Nobody uses it yet: passes have no tracker so far.
//!
//! Not here: what a pass reads because of it.

mod assembler;
mod disk;
mod format;
mod kernel;
mod layout;
mod program;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use blocks::DirtySet;
use blocks::tracking::counting::Reading;
use blocks::tracking::{Advanced, Generation, History, Instance, Recent, Trust, Window};

pub use disk::Disk;
use disk::{Counted, between};
use format::{Event, Stream};
use kernel::{Map, Program, Shared};
use layout::{Layout, MARKS_IN_VALUE};
use program::{Maps, Watched};

/// A disk's figures are read at most so often for a reading in which they stood still.
const READINGS: usize = 32;

/// What tracefs says of an event is a few lines.
const MAX_FORMAT: u64 = 64 * 1024;

/// Why what is written cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum NoTracker {
    /// It is a file.
    #[error("{path} is no block device: it is compared as a whole")]
    NoDevice {
        /// The volume.
        path: PathBuf,
    },
    /// Its events bear other numbers, or there are none.
    #[error("what is written to {path} cannot be followed: {why}; it is compared as a whole")]
    Stacked {
        /// The volume.
        path: PathBuf,
        /// What keeps us from it.
        why: &'static str,
    },
    /// What the kernel shows of the disk could not be read.
    #[error("cannot find the disk of {path}: {source}")]
    Disk {
        /// The volume.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// All disks together are larger than can be marked.
    #[error("the disks are too large to be followed together")]
    TooLarge,
    /// The kernel did not let us, or is too old.
    #[error(
        "cannot {what}: {source}; following writes takes root, a kernel from 5.5 on, and no lockdown for confidentiality"
    )]
    Refused {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The kernel has this event and lays it out in a way that is not known here.
    #[error("this kernel's event {event} has other fields than are known here")]
    UnknownEvent {
        /// Its name.
        event: &'static str,
    },
    /// The kernel did not accept the program.
    #[error("the kernel does not take the program for {event}: {source} ({says})")]
    Program {
        /// Of which event.
        event: &'static str,
        /// The cause.
        source: io::Error,
        /// The end of what it says.
        says: String,
    },
}

/// Why a tracker that ran does so no more: what it marked is nothing to go by.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} of what is written: {source}")]
pub struct TrackerFailed {
    what: &'static str,
    source: io::Error,
}

/// Follows some disks for as long as it is there.
#[derive(Debug)]
pub struct Tracker {
    instance: Instance,
    present: Generation,
    history: History,
    layout: Layout,
    disks: Vec<Followed>,
    control: Shared,
    marks: Shared,
    sums: Shared,
    /// Programs and maps are there as long as these are.
    _attached: Vec<OwnedFd>,
    _maps: Maps,
}

#[derive(Debug)]
struct Followed {
    disk: Disk,
    watched: Watched,
    trust: Trust,
    discards: u64,
}

impl Tracker {
    /// Begins to follow these disks, at this time of a clock that does not jump; all that is
    /// written from now on is marked.
    ///
    /// # Errors
    /// Where they cannot be followed.
    pub fn start(disks: Vec<Disk>, now_millis: u64) -> Result<Self, NoTracker> {
        Self::follow(disks, now_millis, &[Stream::Queued, Stream::Completed])
    }

    fn follow(disks: Vec<Disk>, now_millis: u64, streams: &[Stream]) -> Result<Self, NoTracker> {
        let sectors: Vec<u64> = disks.iter().map(Disk::sectors).collect();
        let (layout, watched) = Layout::of(&sectors).ok_or(NoTracker::TooLarge)?;
        let refused = |what| move |source| NoTracker::Refused { what, source };
        raise_locked_memory();
        let count = u32::try_from(disks.len()).map_err(|_| NoTracker::TooLarge)?;
        let value_bytes = MARKS_IN_VALUE * 2;
        let making = "make a map for BPF programs";
        let maps = Maps {
            devices: Map::hash(16, count.max(1)).map_err(refused(making))?,
            control: Map::array(8, 1).map_err(refused(making))?,
            marks: Map::array(value_bytes, layout.values()).map_err(refused(making))?,
            sums: Map::array(8, 2 * count.max(1)).map_err(refused(making))?,
        };
        let sharing = "share memory with a BPF program";
        let bytes = layout.values() as usize * value_bytes as usize;
        let control = Shared::new(&maps.control, 8, false).map_err(refused(sharing))?;
        let marks = Shared::new(&maps.marks, bytes, true).map_err(refused(sharing))?;
        let sums = Shared::new(&maps.sums, 16 * disks.len().max(1), true);
        let sums = sums.map_err(refused(sharing))?;
        let present = Generation::FIRST;
        control.halves()[0].store(present.mark(), SeqCst);
        for (disk, watched) in disks.iter().zip(&watched) {
            let set = maps.devices.set(disk.device(), watched.bytes());
            set.map_err(refused(making))?;
        }
        let attached = streams.iter().map(|stream| attach(*stream, &maps, &layout));
        let attached = attached.collect::<Result<Vec<_>, _>>()?;
        let mut drawn = [0; 16];
        getrandom::fill(&mut drawn).map_err(|error| {
            refused("draw a random number")(io::Error::other(error.to_string()))
        })?;
        let mut tracker = Self {
            instance: Instance(drawn),
            present,
            history: History::default(),
            layout,
            disks: disks.into_iter().zip(watched).map(Followed::new).collect(),
            control,
            marks,
            sums,
            _attached: attached,
            _maps: maps,
        };
        tracker.history.begin(now_millis, present);
        // What differs from the figures before anything was seen is not a loss.
        for _ in 0..2 {
            let read = tracker.look(now_millis);
            read.map_err(|failed| refused("read a disk's figures")(failed.source))?;
        }
        Ok(tracker)
    }

    /// Which run of it this is.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// Begins the next generation: when this returns, what was marked with an older one is
    /// stored. For each disk, in the order in which they were given, what that found.
    ///
    /// # Errors
    /// Where the kernel's figures cannot be read: nothing is known then.
    pub fn advance(&mut self, now_millis: u64) -> Result<Vec<Advanced>, TrackerFailed> {
        let begun = self.present.next();
        self.control.halves()[0].store(begun.mark(), SeqCst);
        self.present = begun;
        kernel::wait_for_programs().map_err(|source| TrackerFailed {
            what: "wait for the marks",
            source,
        })?;
        let windows = self.look(now_millis)?;
        self.history.begin(now_millis, begun);
        let instance = self.instance;
        Ok(windows
            .into_iter()
            .map(|window| Advanced {
                instance,
                begun,
                window,
            })
            .collect())
    }

    /// Marks in `into` every block of a volume that was marked in `since` or later, where the
    /// volume is these bytes of the disk of this number. False, and all of them, where that
    /// generation is too old to be told from what came before.
    pub fn collect(
        &self,
        disk: usize,
        bytes: Range<u64>,
        since: Generation,
        into: &mut DirtySet,
    ) -> bool {
        let Some(recent) = Recent::new(since, self.present) else {
            into.mark_all();
            return false;
        };
        let watched = self.disks[disk].watched;
        let marks = self.marks.halves();
        self.layout.collect(marks, watched, (recent, bytes), into);
        true
    }

    fn look(&mut self, now_millis: u64) -> Result<Vec<Window>, TrackerFailed> {
        let (when, history) = ((now_millis, self.present), &self.history);
        let sums = self.sums.doubles();
        let looked = self.disks.iter_mut().map(|disk| {
            let reading = disk.reading(sums)?;
            Ok(disk.trust.look(&reading, when, history))
        });
        let looked: io::Result<Vec<Window>> = looked.collect();
        looked.map_err(|source| TrackerFailed {
            what: "read the figures",
            source,
        })
    }
}

impl Followed {
    fn new((disk, watched): (Disk, Watched)) -> Self {
        Self {
            disk,
            watched,
            trust: Trust::new(),
            discards: 0,
        }
    }

    /// Reads what was seen between two readings of what the disk counted, again where it
    /// counted something meanwhile: only figures that stood still show a single sector.
    fn reading(&mut self, sums: &[AtomicU64]) -> io::Result<Reading> {
        let seen = |stream| sums[program::sum_of(self.watched.slot as usize, stream)].load(SeqCst);
        let read = || -> io::Result<(Counted, [u64; 2], Counted)> {
            let before = self.disk.counted()?;
            let sums = [Stream::Completed, Stream::Queued].map(seen);
            Ok((before, sums, self.disk.counted()?))
        };
        let is_exact = |(before, _, after): &(Counted, _, Counted)| before.sectors == after.sectors;
        let mut last = read();
        for _ in 1..READINGS {
            if last.as_ref().map_or(true, is_exact) {
                break;
            }
            last = read();
        }
        let (before, [completed, queued], after) = last?;
        let discards = std::mem::replace(&mut self.discards, after.discards);
        Ok(Reading {
            completed: between(before, completed, after),
            queued: Some(between(before, queued, after)),
            is_idle: before.in_flight == 0 && after.in_flight == 0,
            has_gathered_discards: self.disk.gathers_discards() && after.discards != discards,
        })
    }
}

/// Has the program run at the events of a stream.
fn attach(stream: Stream, maps: &Maps, layout: &Layout) -> Result<OwnedFd, NoTracker> {
    let event = stream.event();
    let refused = |what| move |source| NoTracker::Refused { what, source };
    let path = format!("events/block/{event}/format");
    let mut text = String::new();
    kernel::trace_file(&path)
        .and_then(|file| file.take(MAX_FORMAT).read_to_string(&mut text))
        .map_err(refused("read the kernel's events (tracefs)"))?;
    let format = Event::parse(&text).ok_or(NoTracker::UnknownEvent { event })?;
    let words = program::marking(&format, stream, maps, layout);
    let loaded = Program::load(&words);
    let loaded = loaded.map_err(|(source, says)| NoTracker::Program {
        event,
        source,
        says,
    })?;
    loaded
        .attach(format.id)
        .map_err(refused("follow the kernel's block events"))
}

/// Kernels before 5.11 count maps against the memory that a process may lock.
fn raise_locked_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let all = Rlimit {
        current: None,
        maximum: None,
    };
    // Where it is refused, so may the maps be, which says why.
    let _ = setrlimit(Resource::Memlock, all);
}
