//! Following what is written to a disk, without a module in the kernel and without stopping
//! anything: each granule that is written is marked with the present generation
//! ([`blocks::tracking`] says why no write is lost) by what hears of it at the kernel's block
//! tracepoints. It sums up the sectors that it saw, too, which are held beside what the kernel
//! counted of the same disk.
//!
//! ```text
//!  block_rq_complete ─┐            ┌ marks ───▶ collect ─▶ DirtySet
//!  block_bio_queue  ──┴▶ marker ──▶┤
//!                                  └ sums ───▶ Judge ◀─── /sys/block/DISK/stat
//! ```
//!
//! There are two kinds of markers: a program in the kernel (`bpf`), from 5.5 on, and a thread
//! that reads the kernel's records of these events (`perf`), which costs more and is for older
//! kernels. Both need the rights of root. What neither can follow is compared as a whole.
//!
//! Not here: what a pass reads because of it.

mod assembler;
mod bpf;
#[cfg(test)]
mod cost;
mod disk;
mod format;
mod kernel;
mod layout;
mod perf;
mod program;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use blocks::DirtySet;
use blocks::tracking::counting::{Judge, Reading};
use blocks::tracking::{Advanced, Gap, Generation, Instance, Recent, Window};

use bpf::Bpf;
pub use disk::Disk;
use disk::between;
use format::Stream;
use perf::Perf;

/// A disk's figures are read at most so often in an advance for a moment in which it stood
/// still: of a disk that writes 20 MiB/s every other reading is one.
const READINGS: usize = 32;

/// Between two of these: an advance over a disk that is never still takes 16 ms longer.
const BETWEEN_READINGS: Duration = Duration::from_micros(500);

/// Events that are followed.
const STREAMS: [Stream; 2] = [Stream::Queued, Stream::Completed];

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
        "cannot {what}: {source}; following writes takes root, and no lockdown for confidentiality"
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
    /// No kind of it works here.
    #[error("{perf}; a BPF program (from Linux 5.5 on) does not follow it either: {bpf}")]
    Neither {
        /// Why not by a program.
        bpf: Box<NoTracker>,
        /// Why not by perf events.
        perf: Box<NoTracker>,
    },
}

/// What the kernel did not let us do.
fn refused(what: &'static str) -> impl Fn(io::Error) -> NoTracker {
    move |source| NoTracker::Refused { what, source }
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
    "what is written to {} cannot be followed any more: {source}; it is compared as a whole",
    path.display()
)]
pub struct DiskUnread {
    path: PathBuf,
    source: io::Error,
}

/// What hears of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A program in the kernel.
    Bpf,
    /// A thread that reads what the kernel records.
    Perf,
}

impl Kind {
    fn start(self, disk: &Disk, mark: u16) -> Result<Box<dyn Marker>, NoTracker> {
        Ok(match self {
            Self::Bpf => Box::new(Bpf::start(disk, &STREAMS, mark)?),
            Self::Perf => Box::new(Perf::start(disk, &STREAMS, mark, None)?),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bpf => "by a BPF program",
            Self::Perf => "by perf events",
        })
    }
}

/// Marks what is written to a disk where it hears of it, and sums up what it heard of.
///
/// An event that the kernel was done with, on all processors, before [`Marker::seen`] or
/// [`Marker::collect`] was called is marked when that returns, and in the sum of its stream.
/// What could not be marked is in no sum.
trait Marker: fmt::Debug + Send {
    /// Events from now on are marked with this. Earlier ones may be, too.
    fn begin(&self, mark: u16);

    /// Sectors of the events of a stream until now: at least those when this began, and at
    /// most those when it ended.
    fn seen(&self, stream: Stream) -> u64;

    /// Marks in `into` what is marked recently of these bytes of the disk, which `into` is
    /// about. False, and all of it, where the disk does not have them.
    fn collect(&self, what: (Recent, Range<u64>), into: &mut DirtySet) -> bool;

    /// Whether it knows that it did not hear of something, since it was asked last.
    fn has_lost(&self) -> bool;

    /// Why it hears of nothing any more, if it does not.
    fn over(&self) -> Option<io::Error>;
}

/// Follows a disk for as long as it is there.
#[derive(Debug)]
pub struct Tracker {
    instance: Instance,
    present: Generation,
    disk: Disk,
    marker: Box<dyn Marker>,
    how: String,
    judge: Judge,
    discards: u64,
    unread: Option<DiskUnread>,
    wait: Wait,
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
    /// Begins to follow a disk, by the best kind that works here or by a given one alone; all
    /// that is written from now on is marked.
    ///
    /// # Errors
    /// Where it cannot be followed.
    pub fn start(disk: Disk, only: Option<Kind>) -> Result<Self, NoTracker> {
        let mut how = match only {
            Some(kind) => format!("{kind}, as was asked for"),
            None => Kind::Bpf.to_string(),
        };
        let mut tracker = Self::follow(disk, kernel::wait_for_programs, |disk, mark| match only {
            Some(kind) => kind.start(disk, mark),
            None => Kind::Bpf.start(disk, mark).or_else(|bpf| {
                how = format!(
                    "{}; a BPF program (from Linux 5.5 on) would cost who writes less: {bpf}",
                    Kind::Perf
                );
                Kind::Perf
                    .start(disk, mark)
                    .map_err(|perf| NoTracker::Neither {
                        bpf: Box::new(bpf),
                        perf: Box::new(perf),
                    })
            }),
        })?;
        tracker.how = how;
        Ok(tracker)
    }

    fn follow(
        disk: Disk,
        wait: Wait,
        marker: impl FnOnce(&Disk, u16) -> Result<Box<dyn Marker>, NoTracker>,
    ) -> Result<Self, NoTracker> {
        wait().map_err(refused(
            "wait for programs that run (membarrier, from Linux 4.3 on; a kernel refuses it that keeps processors free of its tick: nohz_full)",
        ))?;
        let present = Generation::FIRST;
        let marker = marker(&disk, present.mark())?;
        let mut drawn = [0; 16];
        getrandom::fill(&mut drawn).map_err(|error| {
            refused("draw a random number")(io::Error::other(error.to_string()))
        })?;
        let mut tracker = Self {
            instance: Instance(drawn),
            present,
            disk,
            marker,
            how: String::new(),
            judge: Judge::new(),
            discards: 0,
            unread: None,
            wait,
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

    /// By which kind it follows, and why by no better one, for people.
    pub fn how(&self) -> &str {
        &self.how
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
        self.marker.begin(begun.mark());
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
        self.marker.collect((recent, bytes), into)
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

    /// Gives up a disk that is not there any more, though another one is in its place, and
    /// one of which nothing is heard any more.
    fn check(&mut self) {
        let source = match self.disk.is_replaced() {
            true => Some(io::Error::other(
                "it was replaced by another, or its size has changed",
            )),
            false => self.marker.over(),
        };
        if let (None, Some(source)) = (&self.unread, source) {
            let path = self.disk.path().to_owned();
            self.unread = Some(DiskUnread { path, source });
        }
    }

    /// Judges one reading. Once that failed, what it would have said is missing for good.
    fn look_once(&mut self) -> Looked {
        if self.unread.is_none() {
            match self.reading() {
                Ok(reading) => {
                    let judged = self.judge.take(&reading, self.present);
                    let window = Window::from(judged.verdict);
                    let is_still = judged.is_still;
                    return match self.marker.has_lost() {
                        true => Looked {
                            window: Window::Gap(Gap::Overflowed),
                            is_still,
                        },
                        false => Looked { window, is_still },
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
        let [completed, queued] =
            [Stream::Completed, Stream::Queued].map(|of| self.marker.seen(of));
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

impl Looked {
    /// Whether another reading would say no more.
    fn is_final(&self) -> bool {
        self.is_still || matches!(self.window, Window::Gap(Gap::Unread | Gap::NotCounted))
    }
}
