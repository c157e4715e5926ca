//! How fast a source may be read so that its own work does not slow by much. Pure: a
//! [`Look`] at the device's figures comes in now and then, a pace for reads comes out.
//!
//! ```text
//!          ┌── 4 times ──┐
//!  Quiet ──┴──▶ Loud ────┴──▶ Quiet        Quiet: nothing is read, 100 ms
//!                                          Loud: reads go at the pace, 500 ms
//! ```
//!
//! All writes are others', those excepted that are made while we commit: then nothing is
//! taken in of writes. And while nothing is read here, so are all reads. So what the
//! device's own work takes is measured where we are quiet, and compared with what it takes
//! where we are loud:
//! - how long a write takes, on average;
//! - where we read past the cache, and others read too: how long our own reads take,
//!   against the least that they took. That is how long others wait as well. Theirs cannot
//!   be told from ours while both go on: the kernel cuts a read into it is not said how
//!   many.
//! - whether writes that were to be expected are stuck instead.
//!
//! Where one of them is slower than one and a half times as slow, the pace goes down by as
//! much, at once; it comes up by a tenth after two seconds in which none was. It never goes
//! below a floor, so that a copy always goes on. What is compared are means, so a server
//! with few writes is judged once there were enough of them: with one a second every eight
//! seconds. Below that a server hardly writes, and is not judged by its writes.
//!
//! Similar in kind: LEDBAT (RFC 6817), which yields by the delay it causes over a base; the
//! resync of Linux md, which falls to a least speed where others work.

use std::num::NonZeroU64;
use std::time::Duration;

/// Reads go on at this at least, in bytes a second.
pub const LEAST_READ: u64 = 1 << 20;

const LOUD: Duration = Duration::from_millis(500);
const QUIET: Duration = Duration::from_millis(100);

/// Times loud between two times quiet: of the time 5 % goes to it.
const LOUD_TIMES: u32 = 4;

/// Times loud without anything slower before the pace goes up.
const CALM_TIMES: u32 = 4;

/// So often it goes up at once, where it was calm for that much longer.
const MOST_UPS: u32 = 4;

/// Of fewer a mean says nothing.
const TELLING: u64 = 8;

/// Loud, writes are gathered for so long until they are enough. Where fewer are to be
/// expected in it, there are hardly any.
const GATHER: Duration = Duration::from_secs(8);

/// Of so many, or in so much time, the older ones count half.
const MANY: u64 = 128;
const LONG: Duration = Duration::from_secs(10);

/// Slower than this share of what it takes when we are quiet, in percent, is slow...
const SLOW_PERCENT: u32 = 150;

/// ...if it is so much slower: less is noise.
const NOISE: Duration = Duration::from_micros(100);

/// In so many looks in a row writes are not taken in, since they may be ours.
const MOST_UNSEEN: u32 = 8;

/// The kernel says times in whole steps of this: what is said of a look may be more or less
/// by one.
const STEP: Duration = Duration::from_millis(1);

/// The bytes by which the time of our own reads is compared.
const OWN_READ: u64 = 1 << 20;

/// What happened between two looks at a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The time between them.
    pub time: Duration,
    /// Writes and flushes that the device completed.
    pub writes: u64,
    /// How long they took, all together.
    pub write_time: Duration,
    /// Reads that it completed, ours among them.
    pub reads: u64,
    /// What was under way at the end; nothing of it ours.
    pub in_flight: u64,
    /// Whether some of the writes may be ours: we committed.
    pub has_own_writes: bool,
    /// Bytes that we read.
    pub own_bytes: u64,
    /// Of them what was read past the cache.
    pub direct_bytes: u64,
    /// How long that took; the time in which one read at least was under way, if shorter.
    pub direct_time: Duration,
}

/// How reads may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// As fast as can be.
    Full,
    /// At most so many bytes a second.
    Paced(NonZeroU64),
    /// Not now.
    Paused,
}

/// How many there were in some time and how long they took. Old ones count less and less.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    count: u64,
    time: Duration,
    span: Duration,
}

impl Mean {
    fn add(&mut self, count: u64, time: Duration, span: Duration) {
        if self.count >= MANY || self.span >= LONG {
            self.count /= 2;
            self.time /= 2;
            self.span /= 2;
        }
        self.count += count;
        self.time += time;
        self.span += span;
    }

    /// How many are to be expected in a time.
    fn expected(&self, time: Duration) -> u64 {
        let span = self.span.as_micros().max(1);
        let expected = u128::from(self.count) * time.as_micros() / span;
        u64::try_from(expected).unwrap_or(u64::MAX)
    }

    /// Where there are enough.
    fn get(&self) -> Option<Duration> {
        (self.count >= TELLING).then(|| self.each(self.time))
    }

    /// What each has of a time.
    fn each(&self, time: Duration) -> Duration {
        time / u32::try_from(self.count).unwrap_or(u32::MAX).max(1)
    }
}

/// Decides how fast to read one device, for all who read it here.
#[derive(Debug)]
pub struct Courtesy {
    deadline: Duration,
    is_quiet: bool,
    louds_left: u32,
    /// None is as fast as can be.
    rate: Option<NonZeroU64>,
    calm: u32,
    /// Others' writes while we are quiet.
    writes_quiet: Mean,
    /// Others' reads in the last time quiet, in as much of it as [`QUIET`].
    reads_quiet: u64,
    /// Others' writes while we are loud, since it was judged last.
    writes_loud: Mean,
    /// In how many looks writes may have been ours, since they were taken in last; loud,
    /// and quiet.
    unseen: [u32; 2],
    /// The least that a read of ours took.
    own_least: Option<Duration>,
}

impl Courtesy {
    /// Of one clock that does not jump.
    pub fn new(now: Duration) -> Self {
        Self {
            deadline: now + QUIET,
            is_quiet: true,
            louds_left: LOUD_TIMES,
            rate: None,
            calm: 0,
            writes_quiet: Mean::default(),
            reads_quiet: 0,
            writes_loud: Mean::default(),
            unseen: [0; 2],
            own_least: None,
        }
    }

    /// More or fewer read than until now: what the least is that it takes has to be found
    /// out again.
    pub fn readers_changed(&mut self) {
        self.own_least = None;
    }

    /// When the next look is due.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// How to read until then.
    pub fn reading(&self) -> Reading {
        match (self.is_quiet, self.rate) {
            (true, _) => Reading::Paused,
            (false, None) => Reading::Full,
            (false, Some(rate)) => Reading::Paced(rate),
        }
    }

    /// The pace that is kept for the sake of others, in bytes a second.
    pub fn backing_off(&self) -> Option<NonZeroU64> {
        self.rate
    }

    /// Takes a look in, at the deadline or later.
    pub fn step(&mut self, now: Duration, look: &Look) {
        let are_others = self.are_others(look);
        if look.own_bytes == 0 {
            if are_others {
                self.writes_quiet
                    .add(look.writes, look.write_time, look.time);
            }
            let micros = look.time.as_micros().max(QUIET.as_micros());
            let reads = u128::from(look.reads) * QUIET.as_micros() / micros;
            self.reads_quiet = u64::try_from(reads).unwrap_or(u64::MAX);
            // Where reads wait for something else it is calm too.
            if !self.is_quiet {
                self.calmed(look.time, look);
            }
        } else {
            self.judge(look, are_others);
        }
        self.turn(now, look.own_bytes == 0);
    }

    /// Whose turn it is next, after a time in which nothing was read or something was.
    fn turn(&mut self, now: Duration, was_quiet: bool) {
        self.louds_left = match was_quiet {
            true => LOUD_TIMES,
            false => self.louds_left.saturating_sub(1),
        };
        self.is_quiet = self.louds_left == 0;
        self.deadline = now + if self.is_quiet { QUIET } else { LOUD };
    }

    /// Whether writes are to be taken in as others'. Where we commit all the time they are
    /// now and then, or nothing would ever be known.
    fn are_others(&mut self, look: &Look) -> bool {
        let unseen = &mut self.unseen[usize::from(look.own_bytes == 0)];
        let are_others = !look.has_own_writes || *unseen >= MOST_UNSEEN;
        *unseen = if are_others { 0 } else { *unseen + 1 };
        are_others
    }

    fn judge(&mut self, look: &Look, are_others: bool) {
        let writes = match are_others {
            true => {
                self.writes_loud
                    .add(look.writes, look.write_time, look.time);
                self.writes_slower(look)
            }
            false => None,
        };
        let own = self.own_slower(look);
        let slower = writes.map_or(0.0, |(slower, _)| slower);
        let slower = own.map_or(slower, |own| slower.max(own));
        match writes {
            _ if slower > 1.0 => self.back_off(slower, look),
            Some((_, time)) => self.calmed(time, look),
            // Not enough is known yet, and more is known soon.
            None => {}
        }
    }

    /// How much slower others' writes are than may be, and in which time they were so; none
    /// while that is not known.
    fn writes_slower(&mut self, look: &Look) -> Option<(f64, Duration)> {
        let time = self.writes_loud.span;
        let expected = self.writes_quiet.expected(time);
        let is_many = expected >= 4 * TELLING;
        let is_over = time >= GATHER || is_many && time >= LOUD * LOUD_TIMES;
        let is_rare = self.writes_quiet.expected(GATHER) < TELLING;
        let slower = match (self.writes_quiet.get(), self.writes_loud.get()) {
            // At worst it was so much less that they took, and so much more otherwise.
            (Some(quiet), Some(loud)) => slower(
                loud.saturating_sub(self.writes_loud.each(STEP)),
                quiet + self.writes_quiet.each(STEP),
            ),
            (None, Some(_)) => {
                // What they take otherwise is to be found out first.
                self.louds_left = 1;
                return None;
            }
            // Where many were to come, and wait.
            (Some(_), None) if look.in_flight > 0 && is_many => 4.0,
            // There are hardly any. What there is goes on being gathered, or it would never
            // be enough.
            (_, None) if is_rare => return Some((0.0, look.time)),
            // Nobody writes any more.
            (_, None) if is_over => 0.0,
            (_, None) => return None,
        };
        self.writes_loud = Mean::default();
        Some((slower, time))
    }

    /// How much slower our own reads are than may be while others read; none where that
    /// says nothing.
    fn own_slower(&mut self, look: &Look) -> Option<f64> {
        if look.direct_bytes < OWN_READ {
            return None;
        }
        let each = look
            .direct_time
            .mul_f64(OWN_READ as f64 / look.direct_bytes as f64);
        // What was the least long ago may have become better than can be.
        let least = self.own_least.map(|least| least + least / 128);
        let least = least.map_or(each, |least| least.min(each));
        self.own_least = Some(least);
        (self.reads_quiet >= TELLING).then(|| slower(each, least))
    }

    fn back_off(&mut self, slower: f64, look: &Look) {
        self.calm = 0;
        // They were written beside a pace that does not hold any more.
        self.writes_loud = Mean::default();
        let reached = look.reached();
        let from = self.rate.map_or(reached, |rate| rate.get().min(reached));
        let share = (1.0 / slower).clamp(0.125, 0.75);
        let rate = ((from as f64 * share) as u64).max(LEAST_READ);
        self.rate = NonZeroU64::new(rate);
    }

    /// Nothing was slow for a time, of which this is the last look.
    fn calmed(&mut self, time: Duration, look: &Look) {
        let times = (time.as_millis() / LOUD.as_millis()).max(1);
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        self.calm = self.calm.saturating_add(times);
        if self.calm < CALM_TIMES {
            return;
        }
        let Some(rate) = self.rate else { return };
        // It does not hold reads up any more.
        let is_idle = look.own_bytes > 0 && look.reached() < rate.get() / 2;
        let mut rate = rate.get();
        // Where it takes long until something is known it goes up no slower.
        for _ in 0..(times / CALM_TIMES).clamp(1, MOST_UPS) {
            rate = rate.saturating_add((rate / 10).max(LEAST_READ));
        }
        self.rate = NonZeroU64::new(rate).filter(|_| !is_idle);
    }
}

impl Look {
    /// Bytes that we read in a second.
    fn reached(&self) -> u64 {
        let micros = self.time.as_micros().max(1);
        let reached = u128::from(self.own_bytes) * 1_000_000 / micros;
        u64::try_from(reached).unwrap_or(u64::MAX)
    }
}

/// How many times as long something takes as it may, where it takes `quiet` otherwise.
fn slower(loud: Duration, quiet: Duration) -> f64 {
    let may = quiet * SLOW_PERCENT / 100;
    let may = may.max(quiet + NOISE);
    loud.as_secs_f64() / may.as_secs_f64()
}

#[cfg(test)]
mod tests;
