//! Reading disks so that their own work does not slow by much. Who reads one disk looks at
//! its figures together: they pause together, so that it is quiet then, share one pace, and
//! nobody takes the reads of one for somebody else's.
//!
//! ```text
//!  Seat ──┐  turn, read          look         step
//!  Seat ──┼─────────────▶ Watch ─────▶ Look ─────▶ Courtesy     one Watch a disk
//!  Seat ──┘
//! ```
//!
//! Not here: what follows from the figures (`courtesy`), and waiting.

use std::fmt;
use std::mem;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use blocks::{BLOCK_SIZE, Pacing};

use crate::courtesy::{Courtesy, Look, Reading};
use crate::own_commits::committed;
use crate::{DeviceIo, IoCounts, NoDeviceIo, READ_BLOCKS, SourceVolume};

/// What a read takes, as far as is known before: most take that, and none much more.
const A_READ: u64 = READ_BLOCKS * BLOCK_SIZE as u64;

/// When a look is due nobody begins to read. So often it is seen whether all have ended.
const ENDING: Duration = Duration::from_millis(2);

/// The disks that are read here with politeness. Clones share them.
#[derive(Clone)]
pub struct Disks {
    find: Arc<Find>,
    watched: Arc<Mutex<Vec<Watched>>>,
}

/// A disk and what is seen of it, for as long as somebody is polite to it.
type Watched = (PathBuf, Weak<Mutex<Watch>>);

type Find = dyn Fn(&SourceVolume) -> Result<Figures, NoDeviceIo> + Send + Sync;

/// Of the disk that a source lies on.
pub struct Figures {
    /// Which it is.
    pub disk: PathBuf,
    /// Whether the source is read past the cache.
    pub is_direct: bool,
    /// What it did until now.
    pub counts: Box<Counts>,
    /// How often we committed; none while we do.
    pub commits: Box<Commits>,
}

/// Asks for how often this process committed; none while it does.
pub type Commits = dyn Fn() -> Option<u64> + Send;

/// Asks for what a disk did until now.
pub type Counts = dyn FnMut() -> Result<IoCounts, NoDeviceIo> + Send;

/// One that reads a disk, among others. Times are those of one clock for all of them that
/// does not jump.
pub struct Seat {
    watch: Arc<Mutex<Watch>>,
    is_direct: bool,
    is_reading: bool,
    /// When its next read may begin, which it has its part of the pace for.
    slot: Option<Duration>,
}

/// Of a disk that says what it does.
struct Watch {
    disk: PathBuf,
    /// It was seen not to count what was read from it.
    is_still: bool,
    counts: Box<Counts>,
    commits: Box<Commits>,
    courtesy: Courtesy,
    pacing: Pacing,
    /// Bytes that reads were charged with, and did not read.
    credit: u64,
    under_way: usize,
    /// Since when some are.
    since: Duration,
    /// How long some were since the last look.
    busy: Duration,
    /// Of the last look.
    at: Duration,
    seen: IoCounts,
    committed: Option<u64>,
    /// What was read since then.
    own: Own,
}

#[derive(Default)]
struct Own {
    bytes: u64,
    direct_bytes: u64,
    direct_time: Duration,
}

impl Default for Disks {
    /// Those of this machine.
    fn default() -> Self {
        Self::found_by(|source| {
            let device = DeviceIo::of(source)?;
            Ok(Figures {
                disk: device.disk().to_owned(),
                is_direct: source.identity().is_device(),
                counts: Box::new(move || device.counts()),
                commits: Box::new(committed),
            })
        })
    }
}

impl fmt::Debug for Disks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disks").finish_non_exhaustive()
    }
}

impl Disks {
    /// As this finds them.
    pub fn found_by(
        find: impl Fn(&SourceVolume) -> Result<Figures, NoDeviceIo> + Send + Sync + 'static,
    ) -> Self {
        Self {
            find: Arc::new(find),
            watched: Arc::default(),
        }
    }

    /// Takes a seat at the disk that a source lies on.
    ///
    /// # Errors
    /// Where nothing is known of what it does.
    pub fn seat(&self, now: Duration, source: &SourceVolume) -> Result<Seat, NoDeviceIo> {
        let figures = (self.find)(source)?;
        let is_direct = figures.is_direct;
        let mut watched = lock(&self.watched);
        watched.retain(|(_, watch)| watch.strong_count() > 0);
        let known = watched.iter().find(|(disk, _)| *disk == figures.disk);
        let watch = match known.and_then(|(_, watch)| watch.upgrade()) {
            Some(watch) => watch,
            None => {
                let disk = figures.disk.clone();
                let watch = Arc::new(Mutex::new(Watch::new(figures, now)?));
                watched.push((disk, Arc::downgrade(&watch)));
                watch
            }
        };
        lock(&watch).joined(now)?;
        Ok(Seat {
            watch,
            is_direct,
            is_reading: false,
            slot: None,
        })
    }
}

impl Seat {
    /// The pace at which all who read the disk are held together, in bytes a second; 0
    /// while they are not.
    pub fn held_at(&self) -> u64 {
        let rate = lock(&self.watch).courtesy.backing_off();
        rate.map_or(0, |rate| rate.get())
    }

    /// Whether a read may begin: none where it does now, until it is told how it ended;
    /// else when to ask again.
    ///
    /// # Errors
    /// When the disk does not say any more what it does. No read began.
    pub fn turn(&mut self, now: Duration) -> Result<Option<Duration>, NoDeviceIo> {
        let turn = lock(&self.watch).turn(now, &mut self.slot)?;
        self.is_reading = turn.is_none();
        Ok(turn)
    }

    /// The read that began ended: so many bytes, and it took so long.
    pub fn read(&mut self, now: Duration, bytes: u64, took: Duration) {
        if !mem::take(&mut self.is_reading) {
            return;
        }
        let mut watch = lock(&self.watch);
        watch.ended(now, bytes);
        if self.is_direct {
            watch.own.direct_bytes += bytes;
            watch.own.direct_time += took;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut watch = lock(&self.watch);
        if self.is_reading {
            watch.under_way -= 1;
            // How long it took is not known.
            watch.own.direct_bytes = 0;
        }
        watch.courtesy.readers_changed();
    }
}

impl Watch {
    fn new(mut figures: Figures, now: Duration) -> Result<Self, NoDeviceIo> {
        Ok(Self {
            disk: figures.disk,
            is_still: false,
            seen: (figures.counts)()?,
            committed: (figures.commits)(),
            counts: figures.counts,
            commits: figures.commits,
            courtesy: Courtesy::new(now),
            pacing: Pacing::default(),
            credit: 0,
            under_way: 0,
            since: now,
            busy: Duration::ZERO,
            at: now,
            own: Own::default(),
        })
    }

    /// One more reads, who read until now and was not seen to.
    fn joined(&mut self, now: Duration) -> Result<(), NoDeviceIo> {
        self.seen = (self.counts)()?;
        self.committed = (self.commits)();
        (self.at, self.since) = (now, now);
        (self.own, self.busy) = (Own::default(), Duration::ZERO);
        self.courtesy.readers_changed();
        Ok(())
    }

    /// As of a [`Seat`], which keeps its slot meanwhile.
    fn turn(
        &mut self,
        now: Duration,
        slot: &mut Option<Duration>,
    ) -> Result<Option<Duration>, NoDeviceIo> {
        if now >= self.courtesy.deadline() {
            // Only so it is quiet, when it is to be.
            if self.under_way > 0 {
                return Ok(Some(now + ENDING));
            }
            self.look(now)?;
        }
        let deadline = self.courtesy.deadline();
        let begins = match self.courtesy.reading() {
            Reading::Paused => deadline,
            Reading::Full => now,
            // Whoever asked first is first: all have the same part of the pace.
            Reading::Paced(rate) => *slot.get_or_insert_with(|| self.slot(now, rate)),
        };
        if begins > now {
            return Ok(Some(begins.min(deadline)));
        }
        *slot = None;
        if self.under_way == 0 {
            self.since = now;
        }
        self.under_way += 1;
        Ok(None)
    }

    /// The next time at which a read may begin at a pace, which is taken by that.
    fn slot(&mut self, now: Duration, rate: NonZeroU64) -> Duration {
        let slot = self.pacing.due();
        let credit = self.credit.min(A_READ);
        self.credit -= credit;
        self.pacing.spend(now, A_READ - credit, rate);
        slot
    }

    /// A read ended. How it may go on is as when it began: there was no look meanwhile.
    fn ended(&mut self, now: Duration, bytes: u64) {
        self.under_way -= 1;
        if self.under_way == 0 {
            self.busy += now.saturating_sub(self.since);
        }
        self.own.bytes += bytes;
        match self.courtesy.reading() {
            Reading::Paced(_) if bytes <= A_READ => self.credit += A_READ - bytes,
            Reading::Paced(rate) => self.pacing.spend(now, bytes - A_READ, rate),
            Reading::Full | Reading::Paused => {}
        }
    }

    /// No read of ours is under way.
    fn look(&mut self, now: Duration) -> Result<(), NoDeviceIo> {
        let counts = (self.counts)()?;
        let was = mem::replace(&mut self.seen, counts);
        let (own, busy) = (mem::take(&mut self.own), mem::take(&mut self.busy));
        // What went past the cache was read from the disk.
        self.is_still |= own.direct_bytes >= A_READ && counts.reads == was.reads;
        if self.is_still {
            let disk = self.disk.clone();
            return Err(NoDeviceIo::NotCounted { disk });
        }
        let committed = (self.commits)();
        let has_committed = committed.is_none() || committed != self.committed;
        self.committed = committed;
        let look = Look {
            has_own_writes: has_committed,
            time: now.saturating_sub(self.at),
            writes: counts.writes.saturating_sub(was.writes),
            write_time: counts.write_time.saturating_sub(was.write_time),
            reads: counts.reads.saturating_sub(was.reads),
            in_flight: counts.in_flight,
            own_bytes: own.bytes,
            direct_bytes: own.direct_bytes,
            direct_time: own.direct_time.min(busy),
        };
        self.at = now;
        self.courtesy.step(now, &look);
        Ok(())
    }
}

/// Nothing is left half done where a thread may panic.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
