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

use blocks::BLOCK_SIZE;
use crdt::PassSummary;

/// Sending that a freeze may take, unless another is asked for.
pub const FREEZE_MILLIS: u64 = 2_000;
/// Newest measurements that count: an hour ago things were otherwise.
const NEWEST: usize = 3;
/// Newest passes among which the quickest says how long looking takes.
const LOOKED: usize = 8;
/// Times of which one is no more than so many times the other are about the same.
const ALIKE: u64 = 2;
/// A pass that sent at least one part in so many of what the quickest sent in the same
/// time was kept busy by sending; one that took so many times as long as looking takes
/// waited for the link.
const BUSY: u64 = 2;
/// Passes that are thought ahead; a rest that shrinks, does so in fewer.
const AHEAD: usize = 64;
/// A pass that sent less says nothing about the link.
const TELLING_BYTES: u64 = 4 << 20;

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
    /// Bytes of the disk that it dealt with in a second, lately; none while that is not
    /// known yet.
    pub bytes_per_sec: Option<u64>,
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
    /// Whether what is sent is compressed.
    pub is_compressing: bool,
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
    /// Compress what is sent.
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

/// What changed, and in which time.
#[derive(Debug, Clone, Copy)]
struct Change {
    bytes: u64,
    millis: u64,
}

impl Change {
    /// What would change in so long a time at the same pace.
    fn scaled_to(self, millis: u64) -> u64 {
        scaled(self.bytes, millis, self.millis)
    }
}

/// The better or the worse case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Better,
    Worse,
}

impl Case {
    fn of_changes(self, range: Range) -> u64 {
        match self {
            Self::Better => range.low,
            Self::Worse => range.high,
        }
    }

    fn of_speed(self, range: Range) -> u64 {
        match self {
            Self::Better => range.high,
            Self::Worse => range.low,
        }
    }
}

/// What follows from enough measurements.
struct Model<'a> {
    changes: &'a [Change],
    link: Link,
    looking_millis: Range,
    freeze_millis: u64,
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
    let verdict = match (looking_millis, link) {
        (None, _) => Verdict::Unknown(Lacking::FirstPass),
        _ if changes.is_empty() => Verdict::Unknown(Lacking::Changes),
        _ if pass_left == Some(None) => Verdict::Unknown(Lacking::Standstill),
        (_, None) if changes.iter().any(|change| change.bytes > 0) => {
            Verdict::Unknown(Lacking::Link)
        }
        (Some(looking_millis), link) => {
            let model = Model {
                changes: &changes,
                // With no changes at all the link does not matter.
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

/// The newest passes but the first, which finds what there is and not what changed.
fn newest(passes: &[PassSummary]) -> &[PassSummary] {
    let from = passes.len().saturating_sub(NEWEST).max(1);
    passes.get(from..).unwrap_or_default()
}

fn disk_bytes(pass: &PassSummary) -> u64 {
    pass.blocks.saturating_mul(BLOCK_SIZE as u64)
}

fn change_of(pass: &PassSummary) -> Option<Change> {
    let millis = pass.since_millis.filter(|millis| *millis > 0)?;
    let bytes = disk_bytes(pass);
    Some(Change { bytes, millis })
}

fn rate(changes: &[Change]) -> Option<Range> {
    let per_sec = |change: &Change| Range::exactly(scaled(change.bytes, 1_000, change.millis));
    changes.iter().map(per_sec).reduce(Range::and)
}

/// Bytes of the disk that a pass sent in a second, where it sent enough to tell.
fn speed(pass: &PassSummary) -> Option<u64> {
    let bytes = disk_bytes(pass);
    (bytes >= TELLING_BYTES).then(|| scaled(bytes, 1_000, pass.millis))
}

/// The passes that were kept busy by sending, newest first, with their speeds.
struct Busy<'a>(Vec<(&'a PassSummary, u64)>);

impl<'a> Busy<'a> {
    fn of(passes: &'a [PassSummary]) -> Self {
        let all = passes.iter().rev();
        let telling: Vec<_> = all.filter_map(|pass| Some((pass, speed(pass)?))).collect();
        let most = telling.iter().map(|(_, speed)| *speed).max().unwrap_or(0);
        let busy = telling.into_iter();
        Self(
            busy.filter(|(_, speed)| speed.saturating_mul(BUSY) >= most)
                .collect(),
        )
    }

    fn has(&self, pass: &PassSummary) -> bool {
        self.0.iter().any(|(busy, _)| std::ptr::eq(*busy, pass))
    }

    /// What the newest reached of those that took longer than looking does. Where it is
    /// not known how long that is, they may have looked, and the quickest counts as well;
    /// where none took longer, it alone, as the least that the link carries.
    fn link(&self, looking_millis: Range) -> Option<Link> {
        let quickest = self.0.iter().map(|(_, speed)| *speed).max()?;
        let may_look = looking_millis.low == 0;
        let longer = looking_millis.low.saturating_mul(BUSY);
        let waiting = self.0.iter().filter(|(pass, _)| pass.millis >= longer);
        let newest = waiting.take(NEWEST).map(|(_, speed)| *speed);
        let newest = newest.chain(may_look.then_some(quickest));
        let reached = newest.map(Range::exactly).reduce(Range::and);
        Some(Link {
            bytes_per_sec: reached.unwrap_or(Range::exactly(quickest)),
            is_at_least: reached.is_none(),
        })
    }
}

/// How long looking takes: as long as the quickest pass, if one had little to send; else
/// that is the most that it may be.
fn looking(passes: &[PassSummary], busy: &Busy<'_>) -> Option<Range> {
    let newest = &passes[passes.len().saturating_sub(LOOKED)..];
    let high = newest.iter().map(|pass| pass.millis.max(1)).min()?;
    let is_known = newest.iter().any(|pass| !busy.has(pass));
    let low = if is_known { high } else { 0 };
    Some(Range { low, high })
}

/// What changes within a time, by the measurements over times next to it: those of about
/// the same length vary as the source does.
fn within(changes: &[Change], millis: u64) -> Range {
    let longer = changes.iter().filter(|change| change.millis >= millis);
    let nearest = longer.clone().map(|change| change.millis).min();
    let longest = nearest.map_or(0, |nearest| nearest.saturating_mul(ALIKE));
    let longer = longer.filter(|change| change.millis <= longest);
    let shorter = changes.iter().filter(|change| change.millis <= millis);
    let nearest = shorter.clone().map(|change| change.millis).max();
    let shortest = nearest.map_or(0, |nearest| nearest / ALIKE);
    let shorter = shorter.filter(|change| change.millis >= shortest);
    let at_pace = |change: &Change| change.scaled_to(millis);
    let most = [
        longer.clone().map(|change| change.bytes).max(),
        shorter.clone().map(at_pace).max(),
    ];
    let least = [
        shorter.map(|change| change.bytes).min(),
        longer.map(at_pace).min(),
    ];
    let most = most.into_iter().flatten().min().unwrap_or(0);
    let least = least.into_iter().flatten().max().unwrap_or(0);
    // Where the source was another from one to the next, they contradict each other.
    Range::between(least, most)
}

/// By how much the copy is behind: what changed since the last complete pass began, some
/// of which the pass under way may have sent.
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
    let unsettled = measured.unsettled_bytes;
    let least = least.max(unsettled).min(measured.length);
    Some(Range::between(
        least,
        most.saturating_add(unsettled).min(measured.length),
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

impl Model<'_> {
    fn verdict(
        &self,
        measured: &Measured<'_>,
        behind: Option<Range>,
        pass_left: Option<Range>,
    ) -> Verdict {
        // Unless it is known when the last pass began, nothing is said of now.
        if behind.is_some_and(|behind| behind.high <= self.budget(Case::Worse)) {
            return Verdict::Fits;
        }
        let fits_perhaps = behind.is_some_and(|behind| behind.low <= self.budget(Case::Better));
        let better = match fits_perhaps {
            true => Ok(0),
            false => self.ahead(measured, pass_left, Case::Better),
        };
        let worse = self.ahead(measured, pass_left, Case::Worse);
        match (better, worse) {
            (Ok(soonest), Ok(latest)) => Verdict::Converges {
                secs: in_secs(Range::between(soonest, latest)),
            },
            (Ok(soonest), Err(cause)) => Verdict::Uncertain {
                soonest_secs: soonest.div_ceil(1_000),
                cause,
                help: help(cause, measured.is_compressing),
            },
            (Err(cause), _) => Verdict::Diverges {
                cause,
                help: help(cause, measured.is_compressing),
            },
        }
    }

    /// Milliseconds until what is left fits, or why it never does. Less is left after a
    /// shorter pass, so that once passes do not get shorter any more nothing is gained.
    fn ahead(
        &self,
        measured: &Measured<'_>,
        pass_left: Option<Range>,
        case: Case,
    ) -> Result<u64, Cause> {
        let (mut spent, mut window) = self.first(measured, pass_left, case);
        for _ in 0..AHEAD {
            let left = case.of_changes(within(self.changes, window));
            if left <= self.budget(case) {
                return Ok(spent);
            }
            let sending = self.sending_millis(left, case);
            let looking = case.of_changes(self.looking_millis);
            let pass = sending.max(looking);
            if pass >= window {
                return Err(match sending > looking {
                    true => Cause::Link,
                    false => Cause::Looking,
                });
            }
            spent = spent.saturating_add(pass);
            window = pass;
        }
        // It shrinks, too slowly for anybody to wait for it.
        Err(Cause::Link)
    }

    /// What the pass under way, or the next, still takes; and when it is complete, how
    /// long ago it had begun.
    fn first(&self, measured: &Measured<'_>, pass_left: Option<Range>, case: Case) -> (u64, u64) {
        if let Some(running) = measured.running {
            let left = case.of_changes(pass_left.unwrap_or_default());
            return (left, running.elapsed_millis.saturating_add(left));
        }
        let lag = measured.lag_millis.unwrap_or(self.looking_millis.high);
        let found = case.of_changes(within(self.changes, lag));
        let sending = self.sending_millis(found.min(measured.length), case);
        let pass = sending.max(case.of_changes(self.looking_millis));
        (pass, pass)
    }

    fn sending_millis(&self, bytes: u64, case: Case) -> u64 {
        scaled(bytes, 1_000, case.of_speed(self.link.bytes_per_sec))
    }

    /// Bytes that a freeze may leave.
    fn budget(&self, case: Case) -> u64 {
        let speed = case.of_speed(self.link.bytes_per_sec);
        scaled(speed, self.freeze_millis, 1_000)
    }
}

fn help(cause: Cause, is_compressing: bool) -> Vec<Help> {
    match cause {
        Cause::Looking => vec![Help::Tracker, Help::QuietHours],
        Cause::Link if is_compressing => vec![Help::Bandwidth, Help::QuietHours],
        Cause::Link => vec![Help::Compression, Help::Bandwidth, Help::QuietHours],
    }
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
