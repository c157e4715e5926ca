//! Whether a tracker saw all that a device wrote: the sectors of the events that it saw,
//! beside those that the kernel counted of the same device.
//!
//! An event can be lost: the kernel runs no program of a tracepoint while another such
//! program runs on that processor. It counts what it completes apart from events, in
//! `/sys/block/DEVICE/stat`, so that the two sums differ by a constant as long as none is
//! lost. The kernel's is read before and after the tracker's, which gives an interval for
//! that constant; intervals that have nothing in common say that events are missing, and
//! how many sectors at least. There is no tolerance.
//!
//! Two streams of events are counted, so that a loss in one is a few blocks to read again
//! and not all: a write is marked when it is queued and once more when it completes.
//!
//! Source of what is counted where: `Documentation/admin-guide/iostats.rst` and
//! `block/blk-mq.c` of Linux.
//!
//! Not here: reading the figures (`volumes`).

use super::{Gap, Generation, Window};

/// Sectors, as three readings one after the other gave them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// What the kernel had counted before the tracker's sum was read.
    pub before: u64,
    /// What the tracker had seen.
    pub seen: u64,
    /// What the kernel had counted after that.
    pub after: u64,
}

impl Count {
    /// What the tracker had seen, less what the kernel had counted by then: at least and at
    /// most.
    fn ahead(self) -> (i128, i128) {
        let seen = i128::from(self.seen);
        (
            seen - i128::from(self.after),
            seen - i128::from(self.before),
        )
    }
}

/// What was read of one device at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Events of completion.
    pub completed: Count,
    /// Events of queueing.
    pub queued: Count,
    /// The kernel had begun no write that was not done, from the first reading to the last.
    /// What is queued may wait before it begins, and what is done may be counted in a moment.
    pub is_idle: bool,
    /// The kernel counts what the device does.
    pub is_counted: bool,
    /// Ranges were discarded since the last reading, by a device that does several of them
    /// in one request: its completions name the first one only.
    pub has_gathered_discards: bool,
}

impl Reading {
    fn is_exact(&self) -> bool {
        self.completed.before == self.completed.after
    }
}

/// What follows for the marks made since the last reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every write that completed is marked at its completion.
    Whole,
    /// Not every one; but each was when it was queued.
    Missed {
        /// Sectors of events that are missing, at least.
        sectors: u64,
        /// They were queued in this generation or later.
        since: Generation,
    },
    /// Some write may be marked neither when it was queued nor at its completion: now, or
    /// since a [`Verdict::Missed`] that is taken back.
    Gap,
    /// The kernel does not count, or has not been seen to since it did not.
    NotCounted,
}

impl From<Verdict> for Window {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Whole => Self::Whole,
            Verdict::Missed { since, .. } => Self::Since(since),
            Verdict::Gap => Self::Gap(Gap::Missed),
            Verdict::NotCounted => Self::Gap(Gap::NotCounted),
        }
    }
}

/// A verdict, and whether it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// What follows for the marks.
    pub verdict: Verdict,
    /// Nothing was under way and both streams agreed to the sector: what was done until now
    /// is in the verdicts given until now, and what is missed later was queued later.
    pub is_still: bool,
}

/// Judges the readings of one device, one after the other.
///
/// What was seen queued is ahead of what was counted by what is under way, and by what was
/// refused after it was queued; it falls behind by the events of queueing that were lost.
/// While much is under way such a loss does not show, so that a [`Verdict::Missed`] may be
/// wrong. It is taken back, by a gap, when the sum is found behind later; and also when it
/// stays further ahead than before, since what was refused may hide what was lost. (What
/// cannot be told: a write refused, and another of the same length of which both events
/// were lost.)
#[derive(Debug, Clone, Default)]
pub struct Judge {
    completed: Option<Interval>,
    still: Option<Still>,
    /// A [`Verdict::Missed`] was given since the last gap.
    has_missed: bool,
    rest: Option<Rest>,
    doubt: Option<Doubt>,
}

/// When nothing was under way last.
#[derive(Debug, Clone, Copy)]
struct Still {
    /// How far what was seen queued was ahead of what was counted.
    ahead: i128,
    at: Generation,
}

/// Readings of successive generations in which nothing was begun and nothing completed.
#[derive(Debug, Clone, Copy)]
struct Rest {
    at: Generation,
    figures: [u64; 3],
    /// So many had nothing queued either.
    agreed: u8,
    /// In so many something was.
    grew: u8,
}

/// The kernel was found not to count. It does again once the two sums have moved together.
#[derive(Debug, Clone, Copy)]
enum Doubt {
    /// They have not stood apart by a constant yet.
    Apart,
    /// They did when the kernel had counted so many sectors.
    Until(u64),
}

/// Generations that have to agree before what stays ahead is taken for refused, or before
/// what is queued without ever being begun is taken for not counted. A write that waits to
/// be begun does so for less; and where it does not, what follows is taken back.
const AGREEING: u8 = 3;

/// Where a constant lies.
#[derive(Debug, Clone, Copy)]
struct Interval {
    /// Known once an exact reading was made while nothing was under way, or two followed each
    /// other: with a lower end that is not the constant itself, what is missing could hide
    /// above it.
    low: Option<i128>,
    high: i128,
    /// What the reading before gave, where that was exact. An event comes before the kernel
    /// counts it, so that one reading may be ahead: what two agree on is not.
    last: Option<i128>,
    /// It was ahead in this generation, and was not seen not to be since.
    early: Option<Generation>,
}

/// Whether a constant is what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Same,
    /// What it was is not known.
    Unknown,
    /// The sum is behind by so much at least.
    Behind(u64),
    /// The sum is ahead.
    Ahead,
}

impl Interval {
    fn new((low, high): (i128, i128), is_idle: bool) -> Self {
        let exact = (low == high).then_some(low);
        Self {
            low: exact.filter(|_| is_idle),
            high,
            last: exact,
            early: None,
        }
    }

    fn take(&mut self, (low, high): (i128, i128), is_idle: bool, at: Generation) -> Kept {
        let exact = (low == high).then_some(low);
        if let Some(least) = self.low
            && high < least
        {
            let behind = u64::try_from(least - high).unwrap_or(u64::MAX);
            *self = Self::new((low, high), is_idle);
            return Kept::Behind(behind);
        }
        let last = std::mem::replace(&mut self.last, exact);
        let agreed = match is_idle {
            true => exact,
            false => exact.and_then(|exact| Some(exact.min(last?))),
        };
        if is_idle && let Some(exact) = exact {
            // What is seen is counted in a moment, and long before the next generation.
            let early = (exact > self.high).then(|| self.early.unwrap_or(at));
            self.early = early;
            if early.is_some_and(|early| early != at) {
                return Kept::Ahead;
            }
        }
        self.high = self.high.min(high);
        let had = self.low;
        self.low = had.max(agreed.map(|agreed| agreed.min(self.high)));
        had.map_or(Kept::Unknown, |_| Kept::Same)
    }
}

/// What a reading says of the queue.
enum Queue {
    /// Nothing that contradicts what it said before.
    Whole,
    /// What was concluded from it before is void.
    Void,
}

impl Judge {
    /// Of a device of which nothing was read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next reading, made in this generation. Of the first, and of the second where
    /// the device works, nothing follows but that the marks made until then are nothing to go
    /// by; so a tracker takes two before it is followed.
    pub fn take(&mut self, reading: &Reading, at: Generation) -> Judged {
        let kept = self.take_completed(reading, at);
        let is_silent = self.take_rest(reading, at);
        if !reading.is_counted || kept == Kept::Ahead || is_silent {
            return self.not_counted();
        }
        if self.doubts(reading, kept) {
            return Judged {
                verdict: Verdict::NotCounted,
                is_still: false,
            };
        }
        let since = self.still.map(|still| still.at);
        let (queue, is_still) = self.take_queued(reading, at);
        let missed = match kept {
            Kept::Behind(sectors) => Some(sectors),
            Kept::Unknown => Some(0),
            Kept::Same | Kept::Ahead => reading.has_gathered_discards.then_some(0),
        };
        let verdict = match (queue, missed, since) {
            (Queue::Void, None, _) if !self.has_missed => Verdict::Whole,
            (Queue::Whole, None, _) => Verdict::Whole,
            (Queue::Whole, Some(sectors), Some(since)) => Verdict::Missed { sectors, since },
            _ => Verdict::Gap,
        };
        match verdict {
            Verdict::Whole | Verdict::NotCounted => {}
            Verdict::Missed { .. } => self.has_missed = true,
            Verdict::Gap => self.has_missed = false,
        }
        let is_early = self
            .completed
            .is_some_and(|interval| interval.early.is_some());
        Judged {
            verdict,
            is_still: is_still && !is_early,
        }
    }

    fn take_completed(&mut self, reading: &Reading, at: Generation) -> Kept {
        let ahead = reading.completed.ahead();
        match &mut self.completed {
            Some(interval) => interval.take(ahead, reading.is_idle, at),
            none => {
                *none = Some(Interval::new(ahead, reading.is_idle));
                Kept::Unknown
            }
        }
    }

    /// Nothing that was read until now is good for anything.
    fn not_counted(&mut self) -> Judged {
        *self = Self {
            doubt: Some(Doubt::Apart),
            ..Self::default()
        };
        Judged {
            verdict: Verdict::NotCounted,
            is_still: false,
        }
    }

    /// Whether the kernel has still not been seen to count. Figures that do not move prove
    /// nothing.
    fn doubts(&mut self, reading: &Reading, kept: Kept) -> bool {
        self.doubt = match (self.doubt, kept) {
            (None, _) => None,
            (Some(Doubt::Until(counted)), Kept::Same) if reading.completed.before > counted => None,
            (Some(Doubt::Until(counted)), Kept::Same) => Some(Doubt::Until(counted)),
            (Some(Doubt::Apart), Kept::Same) => Some(Doubt::Until(reading.completed.after)),
            (Some(_), _) => Some(Doubt::Apart),
        };
        self.doubt.is_some()
    }

    /// Notes whether anything happened since the generation before; whether things are
    /// queued time and again of which nothing is ever begun, completed or counted.
    fn take_rest(&mut self, reading: &Reading, at: Generation) -> bool {
        if !reading.is_idle {
            self.rest = None;
            return false;
        }
        let queued = reading.queued;
        let (completed, counted) = (reading.completed.seen, reading.completed.after);
        let figures = [queued.seen, completed, counted];
        let fresh = Rest {
            at,
            figures,
            agreed: 1,
            grew: 0,
        };
        self.rest = Some(match self.rest {
            Some(rest) if rest.figures[1..] != figures[1..] || !reading.is_exact() => fresh,
            Some(rest) if rest.at == at => rest,
            Some(rest) if rest.figures[0] == queued.seen => Rest {
                at,
                agreed: rest.agreed.saturating_add(1),
                ..rest
            },
            Some(rest) => Rest {
                grew: rest.grew.saturating_add(1),
                ..fresh
            },
            None => fresh,
        });
        self.rest.is_some_and(|rest| rest.grew >= AGREEING)
    }

    /// Whether what was concluded from the queue before is void, and whether nothing is
    /// under way.
    fn take_queued(&mut self, reading: &Reading, at: Generation) -> (Queue, bool) {
        let queued = reading.queued;
        let (low, high) = queued.ahead();
        let is_short = self.still.is_some_and(|still| high < still.ahead);
        if is_short {
            self.still = None;
        }
        let has_rested = self
            .rest
            .is_some_and(|rest| rest.agreed >= AGREEING && rest.figures[0] == queued.seen);
        let is_idle = reading.is_idle && low == high;
        let is_more = self.still.is_some_and(|still| low > still.ahead);
        let is_still = is_idle && (!is_more || has_rested);
        if is_still {
            self.still = Some(Still { ahead: low, at });
        }
        match is_short || (is_still && is_more) {
            true => (Queue::Void, is_still),
            false => (Queue::Whole, is_still),
        }
    }
}

#[cfg(test)]
mod tests;
