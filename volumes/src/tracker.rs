//! Following what is written to a disk, without a module in the kernel and without stopping
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
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use blocks::DirtySet;
use blocks::tracking::counting::{Judge, Reading};
use blocks::tracking::{Advanced, Gap, Generation, Instance, Recent, Window};

use assembler::Word;
pub use disk::Disk;
use disk::between;
use format::{Event, Stream};
use kernel::{Attached, Program, Seen, Told};
use layout::Layout;
use program::Maps;

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

/// Why a disk is not followed any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read what the kernel counts of {}: {source}; it is compared as a whole from now on",
    path.display()
)]
pub struct DiskUnread {
    path: PathBuf,
    source: io::Error,
}

/// Follows a disk for as long as it is there.
#[derive(Debug)]
pub struct Tracker {
    instance: Instance,
    present: Generation,
    disk: Disk,
    layout: Layout,
    judge: Judge,
    discards: u64,
    unread: Option<DiskUnread>,
    wait: Wait,
    control: Told,
    marks: Seen,
    sums: Seen,
    maps: Maps,
    /// The program runs as long as these are there.
    _attached: Vec<Attached>,
}

/// Waits for the programs that run.
type Wait = fn() -> io::Result<()>;

/// What readings of a disk say.
#[derive(Debug, Clone, Copy)]
struct Looked {
    window: Window,
    is_still: bool,
}

impl Tracker {
    /// Begins to follow a disk; all that is written from now on is marked.
    ///
    /// # Errors
    /// Where it cannot be followed.
    pub fn start(disk: Disk) -> Result<Self, NoTracker> {
        Self::follow(disk, &STREAMS, kernel::wait_for_programs)
    }

    fn follow(disk: Disk, streams: &[Stream], wait: Wait) -> Result<Self, NoTracker> {
        let refused = |what| move |source| NoTracker::Refused { what, source };
        wait().map_err(refused(
            "wait for programs that run (membarrier, which a kernel refuses that keeps processors free of its tick: nohz_full)",
        ))?;
        let layout = Layout::of(disk.sectors());
        let maps = Maps::of(&layout).map_err(refused("make maps for a BPF program"))?;
        let sharing = "share memory with a BPF program";
        let control = Told::new(&maps.control, 8).map_err(refused(sharing))?;
        let marks = Seen::new(&maps.marks, layout.bytes()).map_err(refused(sharing))?;
        let sums = Seen::new(&maps.sums, maps.bytes_of_sums());
        let sums = sums.map_err(refused(sharing))?;
        let present = Generation::FIRST;
        control.set_half(0, present.mark());
        let attached = streams.iter().map(|stream| {
            run_at(*stream, |event| {
                program::marking((event, *stream), disk.device(), &maps, &layout)
            })
        });
        let attached = attached.collect::<Result<Vec<_>, _>>()?;
        let mut drawn = [0; 16];
        getrandom::fill(&mut drawn).map_err(|error| {
            refused("draw a random number")(io::Error::other(error.to_string()))
        })?;
        let mut tracker = Self {
            instance: Instance(drawn),
            present,
            disk,
            layout,
            judge: Judge::new(),
            discards: 0,
            unread: None,
            wait,
            control,
            marks,
            sums,
            maps,
            _attached: attached,
        };
        // What differs from the figures before anything was seen is not a loss.
        for _ in 0..2 {
            tracker.look();
        }
        match tracker.unread.take() {
            Some(DiskUnread { path, source }) => Err(NoTracker::Disk { path, source }),
            None => Ok(tracker),
        }
    }

    /// Which run of it this is.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// Begins the next generation: when this returns, what was marked with an older one is
    /// stored. What that found. Of a disk whose figures cannot be read nothing is known from
    /// then on, which [`Tracker::unread`] tells.
    ///
    /// # Errors
    /// Where the kernel does not wait for programs that run. The next advance makes up for it.
    pub fn advance(&mut self) -> Result<Advanced, TrackerFailed> {
        let begun = self.present.next();
        self.control.set_half(0, begun.mark());
        self.present = begun;
        (self.wait)().map_err(|source| TrackerFailed { source })?;
        let Looked { window, is_still } = self.look();
        Ok(Advanced {
            instance: self.instance,
            begun,
            window,
            is_still,
        })
    }

    /// Why the disk is not followed any more, if it is not.
    pub fn unread(&self) -> Option<&DiskUnread> {
        self.unread.as_ref()
    }

    /// Marks in `into` every block of a volume that was marked in `since` or later, where the
    /// volume is these bytes of the disk. False, and all of them, where that generation is too
    /// old to be told from what came before, or where the disk does not have these bytes.
    pub fn collect(&self, bytes: Range<u64>, since: Generation, into: &mut DirtySet) -> bool {
        let recent = Recent::new(since, self.present);
        let recent = recent.filter(|_| bytes.end <= self.disk.length());
        let Some(recent) = recent else {
            into.mark_all();
            return false;
        };
        let mark_at = |at| self.marks.half(at);
        self.layout.collect(mark_at, (recent, bytes), into)
    }

    /// Reads the disk's figures, again where it was not seen to stand still: on a busy disk
    /// there are such moments, and from one of them on is sought what is missed later.
    fn look(&mut self) -> Looked {
        self.check();
        let mut looked = self.look_once();
        for _ in 1..READINGS {
            if looked.is_final() {
                break;
            }
            thread::sleep(BETWEEN_READINGS);
            let again = self.look_once();
            looked = Looked {
                window: looked.window.and(again.window),
                ..again
            };
        }
        looked
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
    fn look_once(&mut self) -> Looked {
        if self.unread.is_none() {
            match self.reading() {
                Ok(reading) => {
                    let judged = self.judge.take(&reading, self.present);
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
    fn reading(&mut self) -> io::Result<Reading> {
        let before = self.disk.counted()?;
        let was_idle = self.disk.writes_under_way()? == 0;
        let [completed, queued] = [Stream::Completed, Stream::Queued].map(|of| self.seen(of));
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

    /// Sectors of the events of a stream until now, in the sums of all processors: at least
    /// those that were seen when this began, and at most those when it ended.
    fn seen(&self, stream: Stream) -> u64 {
        let places = self.maps.sums_of(stream);
        places.map(|place| self.sums.double(place)).sum()
    }
}

impl Looked {
    /// Whether another reading would say no more.
    fn is_final(&self) -> bool {
        self.is_still || matches!(self.window, Window::Gap(Gap::Unread | Gap::NotCounted))
    }
}

/// Has a program run at the events of a stream, as this kernel lays them out.
fn run_at(
    stream: Stream,
    program: impl FnOnce(&Event) -> Vec<Word>,
) -> Result<Attached, NoTracker> {
    let event = stream.event();
    let refused = |what| move |source| NoTracker::Refused { what, source };
    let path = format!("events/block/{event}/format");
    let mut text = String::new();
    kernel::trace_file(&path)
        .and_then(|file| file.take(MAX_FORMAT).read_to_string(&mut text))
        .map_err(refused("read the kernel's events (tracefs)"))?;
    let format = Event::parse(&text).ok_or(NoTracker::UnknownEvent { event })?;
    let loaded = Program::load(&program(&format));
    let loaded = loaded.map_err(|(source, says)| NoTracker::Program {
        event,
        source,
        says,
    })?;
    loaded
        .attach(format.id)
        .map_err(refused("follow the kernel's block events"))
}
