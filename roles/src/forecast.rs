//! Whether and when a copy comes so close to its source that the rest fits into a short
//! freeze, from what its passes found.
//!
//! Everything is measured, and everything is a range. Blocks that change again and again
//! count once in a pass, so what changes in a time grows with the time, but ever less:
//! within a shorter time than was measured at most as much changes as was found, and at
//! least its share of the time; within a longer one the other way round. Each of the newest
//! measurements so bounds what changes within any time. The lower bounds make the better
//! case, the upper ones the worse.
//!
//! A pass takes as long as the longer of two things: looking at the disk, and sending what
//! differs. What changes meanwhile is left to the next. Where passes follow each other, as
//! they do from a cutover on, the rest shrinks until a pass only looks; what changes in
//! that time must fit the freeze, or more of the link does not help any more.
//!
//! Not here: live figures of the pass under way (`node`), and words for people.

mod ahead;
mod passes;

use ahead::{Model, Phase};
use crdt::PassSummary;
use passes::{Busy, Change, change_of, looking, newest, rate, within};

/// Sending that a freeze may take, unless another is asked for.
pub const FREEZE_MILLIS: u64 = 2_000;
/// Newest measurements that count: an hour ago things were otherwise.
const NEWEST: usize = 3;

/// From the least to the most that it may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    /// At least.
    pub low: u64,
    /// At most.
    pub high: u64,
}

impl Range {
    /// Exactly this.
    pub fn exactly(value: u64) -> Self {
        Self {
            low: value,
            high: value,
        }
    }

    /// Both ends, in order.
    pub fn between(one: u64, other: u64) -> Self {
        Self {
            low: one.min(other),
            high: one.max(other),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
        }
    }
}

/// The pass under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Running {
    /// How long it has run.
    pub elapsed_millis: u64,
    /// Bytes of the disk that it dealt with.
    pub done_bytes: u64,
    /// Bytes of the disk that it found to differ and sent.
    pub found_bytes: u64,
    /// Bytes of the disk that it dealt with in a second, lately; none while that is not
    /// known yet.
    pub bytes_per_sec: Option<u64>,
}

impl Running {
    /// What it will have found of a volume of so many bytes: what it has already, or as
    /// much in the rest as in what it dealt with.
    fn finds(&self, length: u64) -> Range {
        let low = self.found_bytes.min(length);
        let high = scaled(self.found_bytes, length, self.done_bytes);
        Range {
            low,
            high: high.clamp(low, length),
        }
    }
}

/// What was measured of one volume.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    /// Length of the volume in bytes.
    pub length: u64,
    /// Passes that are complete, oldest first.
    pub passes: &'a [PassSummary],
    /// The pass under way, if one is.
    pub running: Option<Running>,
    /// How long ago the last complete pass began: all that is older is in the copy.
    pub lag_millis: Option<u64>,
    /// Bytes that are known to differ and are not durable yet.
    pub unsettled_bytes: u64,
    /// Whether nothing that is sent is compressed, by the agent's settings.
    pub is_uncompressed: bool,
}

/// How fast changes can be sent, in bytes of the disk in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// What passes reached.
    pub bytes_per_sec: Range,
    /// No pass had to wait for the link: it may carry more.
    pub is_at_least: bool,
}

/// What is still missing for a forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// The agent says nothing of the volume: neither how long it is, nor of a pass under
    /// way, nor when the last began.
    Silent,
    /// The first pass is not complete.
    FirstPass,
    /// No second pass has shown how much changes.
    Changes,
    /// No pass sent enough to know the link.
    Link,
    /// The pass under way does not get on, so that nobody knows when it ends.
    Standstill,
}

/// Why it does not converge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// As much changes as can be sent, or more.
    Link,
    /// Looking at the disk takes so long that too much changes meanwhile.
    Looking,
}

/// What would help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Help {
    /// Compress what is sent, where settings forbid it.
    Compression,
    /// More bandwidth, or a limit lifted.
    Bandwidth,
    /// Hours in which less is written.
    QuietHours,
    /// A tracker that knows what changed, so that the disk is not looked at as a whole.
    Tracker,
}

/// Whether and when the rest fits a freeze.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not enough was measured.
    Unknown(Lacking),
    /// It does now.
    Fits,
    /// It will, so many seconds from now, if passes follow each other.
    Converges {
        /// Seconds from now.
        secs: Range,
    },
    /// In the better case it will, in the worse it will not.
    Uncertain {
        /// Seconds from now in the better case.
        soonest_secs: u64,
        /// Why not in the worse.
        cause: Cause,
        /// What would help.
        help: Vec<Help>,
    },
    /// It will not.
    Diverges {
        /// Why not.
        cause: Cause,
        /// What would help.
        help: Vec<Help>,
    },
}

/// A forecast, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// Whether and when.
    pub verdict: Verdict,
    /// Bytes by which the copy is behind now; unknown before a second pass.
    pub behind_bytes: Option<Range>,
    /// Bytes of the disk that change in a second.
    pub change_bytes_per_sec: Option<Range>,
    /// How fast changes can be sent.
    pub link: Option<Link>,
    /// How long looking at the disk takes, in milliseconds: the least that a pass takes.
    pub looking_millis: Option<Range>,
    /// Seconds that the pass under way still takes.
    pub pass_left_secs: Option<Range>,
}

/// The forecast for one volume, with a freeze in which sending may take `freeze_millis`.
pub fn forecast(measured: &Measured<'_>, freeze_millis: u64) -> Forecast {
    let changes: Vec<Change> = newest(measured.passes)
        .iter()
        .filter_map(change_of)
        .collect();
    let busy = Busy::of(measured.passes);
    let looking_millis = looking(measured.passes, &busy);
    let link = looking_millis.and_then(|looking| busy.link(looking));
    let pass_left = measured
        .running
        .map(|running| left_millis(&running, measured, looking_millis));
    let behind_bytes = behind(measured, &changes);
    let verdict = match (Phase::of(measured), looking_millis, link) {
        (None, _, _) => Verdict::Unknown(Lacking::Silent),
        (_, None, _) => Verdict::Unknown(Lacking::FirstPass),
        _ if changes.is_empty() => Verdict::Unknown(Lacking::Changes),
        _ if pass_left == Some(None) => Verdict::Unknown(Lacking::Standstill),
        (_, _, None) if has_to_send(measured, &changes) => Verdict::Unknown(Lacking::Link),
        (Some(phase), Some(looking_millis), link) => {
            let model = Model {
                phase,
                changes: &changes,
                // With nothing to send the link does not matter.
                link: link.unwrap_or(Link {
                    bytes_per_sec: Range::exactly(u64::MAX),
                    is_at_least: true,
                }),
                looking_millis,
                freeze_millis,
            };
            model.verdict(measured, behind_bytes, pass_left.flatten())
        }
    };
    Forecast {
        verdict,
        behind_bytes,
        change_bytes_per_sec: rate(&changes),
        link,
        looking_millis,
        pass_left_secs: pass_left.flatten().map(in_secs),
    }
}

/// Whether anything changed, or is found to have by the pass under way.
fn has_to_send(measured: &Measured<'_>, changes: &[Change]) -> bool {
    let found = measured.running.map_or(0, |running| running.found_bytes);
    let changed = changes.iter().any(|change| change.bytes > 0);
    changed || found > 0 || measured.unsettled_bytes > 0
}

/// By how much the copy is behind: what changed since the last complete pass began. What
/// the pass under way found of that counts until it is complete, whatever was found
/// before.
fn behind(measured: &Measured<'_>, changes: &[Change]) -> Option<Range> {
    let lag_millis = measured.lag_millis?;
    if changes.is_empty() {
        return None;
    }
    let since = measured
        .running
        .map_or(lag_millis, |running| running.elapsed_millis);
    let least = within(changes, since.min(lag_millis)).low;
    let most = within(changes, lag_millis).high;
    let finds = measured
        .running
        .map(|running| running.finds(measured.length));
    let finds = finds.unwrap_or_default();
    let unsettled = measured.unsettled_bytes;
    let least = least.max(unsettled).max(finds.low);
    let most = most.saturating_add(unsettled).max(finds.high);
    Some(Range::between(
        least.min(measured.length),
        most.min(measured.length),
    ))
}

/// What the pass under way still takes, by its mean and by its present speed; none when
/// it does not get on.
fn left_millis(
    running: &Running,
    measured: &Measured<'_>,
    looking_millis: Option<Range>,
) -> Option<Range> {
    let left = measured.length.saturating_sub(running.done_bytes);
    if left == 0 {
        return Some(Range::exactly(0));
    }
    let mean =
        (running.done_bytes > 0).then(|| scaled(running.elapsed_millis, left, running.done_bytes));
    let lately = match running.bytes_per_sec {
        Some(0) => return None,
        Some(bytes_per_sec) => Some(scaled(left, 1_000, bytes_per_sec)),
        None => None,
    };
    let before = looking_millis.map(|looking| scaled(looking.high, left, measured.length));
    let known = [mean, lately].into_iter().flatten();
    let known = known.map(Range::exactly).reduce(Range::and);
    known.or(before.map(Range::exactly))
}

fn in_secs(millis: Range) -> Range {
    Range {
        low: millis.low / 1_000,
        high: millis.high.div_ceil(1_000),
    }
}

/// `value * share / whole`, as much as fits.
fn scaled(value: u64, share: u64, whole: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(share) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
