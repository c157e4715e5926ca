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
    /// Events of queueing; none where the device has none that name it.
    pub queued: Option<Count>,
    /// Nothing was under way from the first reading to the last.
    pub is_idle: bool,
    /// Ranges were discarded since the last reading, by a device that does several of them
    /// in one request: its completions name the first one only.
    pub has_gathered_discards: bool,
}

/// What follows for the marks made since the last reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every write that completed is marked at its completion.
    Whole,
    /// Not every one; but each was when it was queued. Sectors of events that are missing.
    Missed {
        /// At least so many.
        sectors: u64,
    },
    /// Some write may be marked neither when it was queued nor at its completion.
    Gap,
    /// The kernel has stopped counting.
    NotCounted,
}

/// A verdict, and how much it is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// What follows for the marks.
    pub verdict: Verdict,
    /// The device counted nothing from the first reading to the last, so that a single
    /// sector that is missing shows; but for what was seen and is counted in a moment.
    pub is_exact: bool,
    /// Nothing was under way: whatever was queued before is done, and what is missing later
    /// was queued later.
    pub is_still: bool,
}

/// Judges the readings of one device, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Judge {
    completed: Option<Interval>,
    /// What was queued and not completed is never less than this, but for lost events.
    queued_ahead: Option<i128>,
    /// The same when the device stood still first: what is more may be waiting, before it is
    /// counted as under way.
    still_ahead: Option<i128>,
}

/// Where a constant lies.
#[derive(Debug, Clone, Copy)]
struct Interval {
    /// Known once two exact readings followed each other: with a lower end that is not the
    /// constant itself, what is missing could hide above it.
    low: Option<i128>,
    high: i128,
    /// What the reading before gave, where that was exact. An event comes before the kernel
    /// counts it, so that one reading may be ahead: what two agree on is not.
    last: Option<i128>,
}

/// Whether a constant is what it was.
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
    fn new((low, high): (i128, i128)) -> Self {
        Self {
            low: None,
            high,
            last: (low == high).then_some(low),
        }
    }

    fn take(&mut self, (low, high): (i128, i128)) -> Kept {
        let exact = (low == high).then_some(low);
        let last = std::mem::replace(&mut self.last, exact);
        let agreed = exact.and_then(|low| Some(low.min(last?)));
        if let Some(least) = self.low
            && high < least
        {
            let behind = u64::try_from(least - high).unwrap_or(u64::MAX);
            *self = Self::new((low, high));
            return Kept::Behind(behind);
        }
        if agreed.is_some_and(|agreed| agreed > self.high) {
            *self = Self::new((low, high));
            return Kept::Ahead;
        }
        self.high = self.high.min(high);
        let had = self.low;
        self.low = had.max(agreed);
        had.map_or(Kept::Unknown, |_| Kept::Same)
    }
}

impl Judge {
    /// Of a device of which nothing was read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next reading. Of the first two nothing follows but that the marks made
    /// until then are nothing to go by; so a tracker takes them before it is followed.
    pub fn take(&mut self, reading: &Reading) -> Judged {
        let (is_queue_whole, is_still) = match reading.queued {
            Some(queued) => self.take_queued(queued.ahead(), reading.is_idle),
            None => (false, false),
        };
        let missed = match self.take_completed(reading.completed.ahead()) {
            Kept::Ahead => Err(Verdict::NotCounted),
            Kept::Behind(sectors) => Ok(Some(sectors)),
            Kept::Unknown => Ok(Some(0)),
            Kept::Same => Ok(reading.has_gathered_discards.then_some(0)),
        };
        let verdict = match missed {
            Err(verdict) => verdict,
            Ok(None) => Verdict::Whole,
            Ok(Some(sectors)) if is_queue_whole => Verdict::Missed { sectors },
            Ok(Some(_)) => Verdict::Gap,
        };
        Judged {
            verdict,
            is_exact: reading.completed.before == reading.completed.after,
            is_still,
        }
    }

    fn take_completed(&mut self, ahead: (i128, i128)) -> Kept {
        match &mut self.completed {
            Some(interval) => interval.take(ahead),
            none => {
                *none = Some(Interval::new(ahead));
                Kept::Unknown
            }
        }
    }

    /// Whether the events of queueing are whole, and whether nothing is under way. What is
    /// queued is ahead by what is under way, so that there is a lower end only; it is known
    /// once the device stood still.
    fn take_queued(&mut self, (low, high): (i128, i128), is_idle: bool) -> (bool, bool) {
        let is_whole = self.queued_ahead.is_some_and(|least| high >= least);
        let stands = (is_idle && low == high).then_some(low);
        self.queued_ahead = match stands {
            // What was queued and refused stays ahead.
            Some(stands) => Some(stands),
            None => self.queued_ahead.filter(|_| is_whole),
        };
        let Some(stands) = stands else {
            return (is_whole, false);
        };
        let first = *self.still_ahead.get_or_insert(stands);
        self.still_ahead = Some(first.min(stands));
        (is_whole, stands <= first)
    }
}

#[cfg(test)]
mod tests;
