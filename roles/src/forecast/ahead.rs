//! Passes thought ahead, in the better case and in the worse.

use super::passes::{Change, within};
use super::{Cause, Help, Link, Measured, Range, Running, Verdict, in_secs, scaled};
use crdt::PassRead;

/// Passes that are thought ahead; a rest that shrinks, does so in fewer.
const AHEAD: usize = 64;

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

/// What the agent does now.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// A pass is under way.
    Copying(Running),
    /// None is, and the last began so long ago.
    Resting { lag_millis: u64 },
}

impl Phase {
    /// None where nobody says so: of an agent that is silent nothing is thought ahead.
    pub(super) fn of(measured: &Measured<'_>) -> Option<Self> {
        let resting = |lag_millis| Self::Resting { lag_millis };
        let phase = measured.running.map(Self::Copying);
        let phase = phase.or(measured.lag_millis.map(resting));
        phase.filter(|_| measured.length > 0)
    }
}

/// What follows from enough measurements.
pub(super) struct Model<'a> {
    pub(super) phase: Phase,
    pub(super) changes: &'a [Change],
    pub(super) link: Link,
    pub(super) looking_millis: Range,
    pub(super) freeze_millis: u64,
}

impl Model<'_> {
    pub(super) fn verdict(
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
                help: help(cause, measured),
            },
            (Err(cause), _) => Verdict::Diverges {
                cause,
                help: help(cause, measured),
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
        match self.phase {
            Phase::Copying(running) => {
                let left = case.of_changes(pass_left.unwrap_or_default());
                (left, running.elapsed_millis.saturating_add(left))
            }
            Phase::Resting { lag_millis } => {
                let found = case.of_changes(within(self.changes, lag_millis));
                let sending = self.sending_millis(found.min(measured.length), case);
                let pass = sending.max(case.of_changes(self.looking_millis));
                (pass, pass)
            }
        }
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

fn help(cause: Cause, measured: &Measured<'_>) -> Vec<Help> {
    let newest = measured.passes.last();
    let is_tracked = newest.is_some_and(|pass| pass.read == PassRead::Tracked);
    match cause {
        // It looks at no more than what was written.
        Cause::Looking if is_tracked => vec![Help::QuietHours],
        Cause::Looking => vec![Help::Tracker, Help::QuietHours],
        Cause::Link if measured.is_uncompressed => {
            vec![Help::Compression, Help::Bandwidth, Help::QuietHours]
        }
        Cause::Link => vec![Help::Bandwidth, Help::QuietHours],
    }
}
