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
//! as a whole.
//!
//! Not here: what a pass reads because of it.

mod assembler;
#[cfg(test)]
mod cost;
mod disk;
mod format;
mod kernel;
mod layout;
mod program;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use blocks::DirtySet;
use blocks::tracking::counting::{Judge, Reading};
use blocks::tracking::{Advanced, Gap, Generation, Instance, Recent, Window};

pub use disk::Disk;
use disk::between;
use format::{Event, Stream};
use kernel::{Program, Seen, Told};
use layout::Layout;
use program::{Maps, Watched};

/// A disk's figures are read at most so often in an advance for a moment in which it stood
/// still: of a disk that writes 20 MiB/s every other reading is one.
const READINGS: usize = 32;

/// Between two of these: an advance over a disk that is never still takes 16 ms longer.
const BETWEEN_READINGS: Duration = Duration::from_micros(500);

/// Events at which the program runs.
const STREAMS: [Stream; 2] = [Stream::Queued, Stream::Completed];

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
    /// Its events bear other numbers, or do not say all.
    #[error("what is written to {path} cannot be followed: {why}; it is compared as a whole")]
    Unfit {
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
    /// Marks of all disks together would take more memory than they may.
    #[error("the disks are too many to be followed together; they are compared as a whole")]
    TooMany,
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

/// Why a generation did not begin: of what was marked until now nothing is known yet.
#[derive(Debug, thiserror::Error)]
#[error("cannot wait for the marks of what is written: {source}")]
pub struct TrackerFailed {
    source: io::Error,
}

/// Why a disk is not followed any more, though others are.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read what the kernel counts of {}: {source}; it is compared as a whole from now on",
    path.display()
)]
pub struct DiskUnread {
    path: PathBuf,
    source: io::Error,
}

/// One of the disks that a tracker follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(usize);

impl Slot {
    /// Its place among what [`Tracker::advance`] found.
    pub fn index(self) -> usize {
        self.0
    }
}

/// Follows some disks for as long as it is there.
#[derive(Debug)]
pub struct Tracker {
    instance: Instance,
    present: Generation,
    layout: Layout,
    disks: Vec<Followed>,
    wait: Wait,
    control: Told,
    marks: Seen,
    sums: Seen,
    /// Programs and maps are there as long as these are.
    _attached: Vec<OwnedFd>,
    _maps: Maps,
}

/// Waits for the programs that run.
type Wait = fn() -> io::Result<()>;

#[derive(Debug)]
struct Followed {
    disk: Disk,
    watched: Watched,
    judge: Judge,
    discards: u64,
    unread: Option<DiskUnread>,
}

/// What readings of a disk say.
#[derive(Debug, Clone, Copy)]
struct Looked {
    window: Window,
    is_still: bool,
}

impl Tracker {
    /// Begins to follow the disks of some volumes; all that is written from now on is
    /// marked. For each, in their order, which slot it has: volumes of one disk share one.
    ///
    /// # Errors
    /// Where they cannot be followed.
    pub fn start(disks: Vec<Disk>) -> Result<(Self, Vec<Slot>), NoTracker> {
        Self::follow(disks, &STREAMS, kernel::wait_for_programs)
    }

    fn follow(
        disks: Vec<Disk>,
        streams: &[Stream],
        wait: Wait,
    ) -> Result<(Self, Vec<Slot>), NoTracker> {
        let refused = |what| move |source| NoTracker::Refused { what, source };
        wait().map_err(refused(
            "wait for programs that run (membarrier, which a kernel refuses that keeps processors free of its tick: nohz_full)",
        ))?;
        let (disks, slots) = share(disks);
        let sectors: Vec<u64> = disks.iter().map(Disk::sectors).collect();
        let (layout, watched) = Layout::of(&sectors).ok_or(NoTracker::TooMany)?;
        let maps =
            Maps::of(disks.len(), &layout).map_err(refused("make a map for BPF programs"))?;
        let sharing = "share memory with a BPF program";
        let bytes = layout.bytes();
        let control = Told::new(&maps.control, 8).map_err(refused(sharing))?;
        let marks = Seen::new(&maps.marks, bytes).map_err(refused(sharing))?;
        let sums = Seen::new(&maps.sums, 16 * disks.len().max(1));
        let sums = sums.map_err(refused(sharing))?;
        let present = Generation::FIRST;
        control.set_half(0, present.mark());
        for (disk, watched) in disks.iter().zip(&watched) {
            let set = maps.devices.set(disk.device(), watched.bytes());
            set.map_err(refused("tell a BPF program of a disk"))?;
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
            layout,
            disks: disks.into_iter().zip(watched).map(Followed::new).collect(),
            wait,
            control,
            marks,
            sums,
            _attached: attached,
            _maps: maps,
        };
        // What differs from the figures before anything was seen is not a loss.
        for _ in 0..2 {
            tracker.look();
        }
        match tracker.disks.iter_mut().find_map(|disk| disk.unread.take()) {
            Some(DiskUnread { path, source }) => Err(NoTracker::Disk { path, source }),
            None => Ok((tracker, slots)),
        }
    }

    /// Which run of it this is.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// Begins the next generation: when this returns, what was marked with an older one is
    /// stored. For each slot, in their order, what that found. Of a disk whose figures
    /// cannot be read nothing is known from then on, which [`Tracker::unread`] tells.
    ///
    /// # Errors
    /// Where the kernel does not wait for programs that run. The next advance makes up for it.
    pub fn advance(&mut self) -> Result<Vec<Advanced>, TrackerFailed> {
        let begun = self.present.next();
        self.control.set_half(0, begun.mark());
        self.present = begun;
        (self.wait)().map_err(|source| TrackerFailed { source })?;
        let instance = self.instance;
        let looked = self.look().into_iter();
        Ok(looked
            .map(|Looked { window, is_still }| Advanced {
                instance,
                begun,
                window,
                is_still,
            })
            .collect())
    }

    /// The disks that are not followed any more, and why.
    pub fn unread(&self) -> impl Iterator<Item = &DiskUnread> {
        self.disks.iter().filter_map(|disk| disk.unread.as_ref())
    }

    /// Marks in `into` every block of a volume that was marked in `since` or later, where the
    /// volume is these bytes of a disk. False, and all of them, where that generation is too
    /// old to be told from what came before, or where the disk does not have these bytes.
    pub fn collect(
        &self,
        slot: Slot,
        bytes: Range<u64>,
        since: Generation,
        into: &mut DirtySet,
    ) -> bool {
        let disk = self.disks.get(slot.0);
        let disk = disk.filter(|disk| bytes.end <= disk.disk.length());
        let (Some(recent), Some(disk)) = (Recent::new(since, self.present), disk) else {
            into.mark_all();
            return false;
        };
        let mark_at = |at| self.marks.half(at);
        self.layout
            .collect(mark_at, disk.watched, (recent, bytes), into)
    }

    /// Reads each disk's figures, again where it was not seen to stand still: on a busy disk
    /// there are such moments, and from one of them on is sought what is missed later.
    fn look(&mut self) -> Vec<Looked> {
        let (sums, present) = (&self.sums, self.present);
        self.disks.iter_mut().for_each(Followed::check);
        let mut looked: Vec<Looked> = self
            .disks
            .iter_mut()
            .map(|disk| disk.look(sums, present))
            .collect();
        for _ in 1..READINGS {
            if looked.iter().all(Looked::is_final) {
                break;
            }
            thread::sleep(BETWEEN_READINGS);
            for (disk, looked) in self.disks.iter_mut().zip(&mut looked) {
                if !looked.is_final() {
                    let again = disk.look(sums, present);
                    *looked = Looked {
                        window: looked.window.and(again.window),
                        ..again
                    };
                }
            }
        }
        looked
    }
}

/// One of each disk, and which of them each one given is.
fn share(given: Vec<Disk>) -> (Vec<Disk>, Vec<Slot>) {
    let mut disks: Vec<Disk> = vec![];
    let mut slots = vec![];
    for disk in given {
        let known = disks
            .iter()
            .position(|other| other.device() == disk.device());
        slots.push(Slot(known.unwrap_or(disks.len())));
        if known.is_none() {
            disks.push(disk);
        }
    }
    (disks, slots)
}

impl Looked {
    /// Whether another reading would say no more.
    fn is_final(&self) -> bool {
        self.is_still || matches!(self.window, Window::Gap(Gap::Unread | Gap::NotCounted))
    }
}

impl Followed {
    fn new((disk, watched): (Disk, Watched)) -> Self {
        Self {
            disk,
            watched,
            judge: Judge::new(),
            discards: 0,
            unread: None,
        }
    }

    /// Gives up a disk that is not there any more, though another one is in its place.
    fn check(&mut self) {
        if self.unread.is_none() && self.disk.is_replaced() {
            self.unread = Some(DiskUnread {
                path: self.disk.path().to_owned(),
                source: io::Error::other("it was replaced by another, or its size has changed"),
            });
        }
    }

    /// Judges one reading. Once that failed, what it would have said is missing for good.
    fn look(&mut self, sums: &Seen, present: Generation) -> Looked {
        if self.unread.is_none() {
            match self.reading(sums) {
                Ok(reading) => {
                    let judged = self.judge.take(&reading, present);
                    return Looked {
                        window: judged.verdict.into(),
                        is_still: judged.is_still,
                    };
                }
                Err(source) => {
                    let path = self.disk.path().to_owned();
                    self.unread = Some(DiskUnread { path, source });
                }
            }
        }
        Looked {
            window: Window::Gap(Gap::Unread),
            is_still: false,
        }
    }

    /// Reads what was seen between two readings of what the disk counted.
    fn reading(&mut self, sums: &Seen) -> io::Result<Reading> {
        let seen = |stream| sums.double(program::sum_of(self.watched.slot as usize, stream));
        let before = self.disk.counted()?;
        let was_idle = self.disk.writes_under_way()? == 0;
        let [completed, queued] = [Stream::Completed, Stream::Queued].map(seen);
        let is_idle = self.disk.writes_under_way()? == 0;
        let after = self.disk.counted()?;
        let discards = std::mem::replace(&mut self.discards, after.discards);
        Ok(Reading {
            completed: between(before, completed, after),
            queued: between(before, queued, after),
            is_idle: was_idle && is_idle,
            is_counted: self.disk.is_counted(),
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
