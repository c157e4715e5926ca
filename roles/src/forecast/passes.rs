//! What complete passes say: how much changes within a time, what the link carries, and
//! how long looking at the disk takes.

use super::{Link, NEWEST, Range, scaled};
use blocks::BLOCK_SIZE;
use crdt::PassSummary;

/// Newest passes among which the quickest says how long looking takes.
const LOOKED: usize = 8;
/// Times of which one is no more than so many times the other are about the same.
const ALIKE: u64 = 2;
/// A pass that sent at least one part in so many of what the quickest sent in the same
/// time was kept busy by sending; one that took so many times as long as looking takes
/// waited for the link.
const BUSY: u64 = 2;
/// A pass that sent less says nothing about the link.
const TELLING_BYTES: u64 = 4 << 20;

/// What changed, and in which time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) bytes: u64,
    pub(super) millis: u64,
}

impl Change {
    /// What would change in so long a time at the same pace.
    fn scaled_to(self, millis: u64) -> u64 {
        scaled(self.bytes, millis, self.millis)
    }
}

/// The newest passes but the first, which finds what there is and not what changed.
pub(super) fn newest(passes: &[PassSummary]) -> &[PassSummary] {
    let from = passes.len().saturating_sub(NEWEST).max(1);
    passes.get(from..).unwrap_or_default()
}

pub(super) fn disk_bytes(pass: &PassSummary) -> u64 {
    pass.blocks.saturating_mul(BLOCK_SIZE as u64)
}

pub(super) fn change_of(pass: &PassSummary) -> Option<Change> {
    let millis = pass.since_millis.filter(|millis| *millis > 0)?;
    let bytes = disk_bytes(pass);
    Some(Change { bytes, millis })
}

pub(super) fn rate(changes: &[Change]) -> Option<Range> {
    let per_sec = |change: &Change| Range::exactly(scaled(change.bytes, 1_000, change.millis));
    changes.iter().map(per_sec).reduce(Range::and)
}

/// Bytes of the disk that a pass sent in a second, where it sent enough to tell.
fn speed(pass: &PassSummary) -> Option<u64> {
    let bytes = disk_bytes(pass);
    (bytes >= TELLING_BYTES).then(|| scaled(bytes, 1_000, pass.millis))
}

/// The passes that were kept busy by sending, newest first, with their speeds.
pub(super) struct Busy<'a>(Vec<(&'a PassSummary, u64)>);

impl<'a> Busy<'a> {
    pub(super) fn of(passes: &'a [PassSummary]) -> Self {
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
    pub(super) fn link(&self, looking_millis: Range) -> Option<Link> {
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
pub(super) fn looking(passes: &[PassSummary], busy: &Busy<'_>) -> Option<Range> {
    let newest = &passes[passes.len().saturating_sub(LOOKED)..];
    let high = newest.iter().map(|pass| pass.millis.max(1)).min()?;
    let is_known = newest.iter().any(|pass| !busy.has(pass));
    let low = if is_known { high } else { 0 };
    Some(Range { low, high })
}

/// What changes within a time, by the measurements over times next to it: those of about
/// the same length vary as the source does. Where longer and shorter ones contradict each
/// other, all that any of them says is possible.
pub(super) fn within(changes: &[Change], millis: u64) -> Range {
    let longer = changes.iter().filter(|change| change.millis >= millis);
    let nearest = longer.clone().map(|change| change.millis).min();
    let longest = nearest.map_or(0, |nearest| nearest.saturating_mul(ALIKE));
    let longer = longer.filter(|change| change.millis <= longest);
    let shorter = changes.iter().filter(|change| change.millis <= millis);
    let nearest = shorter.clone().map(|change| change.millis).max();
    let shortest = nearest.map_or(0, |nearest| nearest / ALIKE);
    let shorter = shorter.filter(|change| change.millis >= shortest);
    let ends = |one: u64, other: u64| Range::between(one, other);
    let longer = longer.map(|change| ends(change.scaled_to(millis), change.bytes));
    let shorter = shorter.map(|change| ends(change.bytes, change.scaled_to(millis)));
    let longer = longer.reduce(Range::and);
    let shorter = shorter.reduce(Range::and);
    match (longer, shorter) {
        (Some(longer), Some(shorter)) => {
            let (low, high) = (longer.low.max(shorter.low), longer.high.min(shorter.high));
            match low <= high {
                true => Range { low, high },
                // The source was another from one to the next, and may be either.
                false => longer.and(shorter),
            }
        }
        (one, other) => one.or(other).unwrap_or_default(),
    }
}
