//! When the next bytes may go so that a limit is kept: virtual scheduling, as of the
//! generic cell rate algorithm (ITU-T I.371). Each piece moves the time of the next one on
//! by what it costs at the limit. Time comes in, nothing is read.
//!
//! Who comes late has [`CREDIT`] to make up for it, which is what waking up takes on a
//! machine that is busy; who was idle has no more. So at once go at most the bytes of that
//! time and the piece that ends it, a sixteenth of a second's in all. What is aimed at is
//! less than the limit by as much as they are of ten seconds' bytes: in no ten seconds go
//! more bytes than the limit has it, and where there is always work 2 % less at most.

use std::num::NonZeroU64;
use std::time::Duration;

/// A limit below this, in bytes a second, is kept as this: frames would take so long that
/// the other end takes them for a peer that is gone.
pub const LEAST_LIMIT: u64 = 4 << 10;

/// The time that a late one may make up for, and the time of one piece: a 32nd of a second.
const CREDIT: Duration = Duration::from_micros(31_250);
const PIECES_A_SEC: u64 = 32;

/// Smaller pieces cost more in frames and packets around them than they bring. It is a
/// 32nd of a second down to 64 KiB/s, from where on a limit is kept exactly.
const LEAST_PIECE: u64 = 2 << 10;

/// What is aimed at is less than the limit by this part of it.
const MARGIN: u64 = 128;

/// Keeps one stream of pieces to a limit, which may be another one for each of them. Times
/// are those of one clock that does not jump, since whenever it began.
#[derive(Clone, Debug, Default)]
pub struct Pacing {
    next: Duration,
}

impl Pacing {
    /// When the next piece may go.
    pub fn due(&self) -> Duration {
        self.next
    }

    /// So many bytes go now, at this limit in bytes a second. What they cost is of this
    /// limit alone, whatever the one after it is.
    pub fn spend(&mut self, now: Duration, bytes: u64, limit: NonZeroU64) {
        let from = self.next.max(now.saturating_sub(CREDIT));
        self.next = from.saturating_add(cost(bytes, limit));
    }
}

/// The most bytes that go at once: a 32nd of a second's.
pub fn piece_of(limit: NonZeroU64) -> u64 {
    (kept(limit) / PIECES_A_SEC).max(LEAST_PIECE)
}

fn kept(limit: NonZeroU64) -> u64 {
    limit.get().max(LEAST_LIMIT)
}

/// The time that bytes take at what is aimed at, rounded up.
fn cost(bytes: u64, limit: NonZeroU64) -> Duration {
    let limit = kept(limit);
    let aim = limit - limit / MARGIN;
    let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(aim));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    /// Of the clock: anything.
    const START: Duration = Duration::from_secs(1_000);
    const TEN: Duration = Duration::from_secs(10);

    fn limit(bytes_per_sec: u64) -> NonZeroU64 {
        NonZeroU64::new(bytes_per_sec).unwrap()
    }

    /// Pieces that went: when, how many bytes, and under which limit.
    type Went = Vec<(Duration, u64, u64)>;

    /// The most bytes that went in any time of this length.
    fn most_within(went: &Went, window: Duration) -> u64 {
        let mut most = 0;
        let (mut from, mut sum) = (0, 0);
        for &(at, bytes, _) in went {
            sum += bytes;
            while went[from].0 + window <= at {
                sum -= went[from].1;
                from += 1;
            }
            most = most.max(sum);
        }
        most
    }

    /// The fewest bytes that went in any time of this length that is covered.
    fn least_within(went: &Went, window: Duration) -> u64 {
        let end = went.last().unwrap().0;
        let starts = went.iter().map(|(at, ..)| *at + Duration::from_nanos(1));
        let starts = starts.take_while(|start| *start + window <= end);
        let within = |start: Duration| {
            let first = went.partition_point(|(at, ..)| *at < start);
            let rest = went[first..].iter();
            let rest = rest.take_while(|(at, ..)| *at < start + window);
            rest.map(|(_, bytes, _)| bytes).sum()
        };
        starts.map(within).min().unwrap()
    }

    /// Work without end, in pieces of these shares of what may go at once, each woken so
    /// much later than it was due.
    fn busy(rate: u64, secs: u64, shares: &[u64], late_micros: &[u64]) -> Went {
        let (mut rule, start) = (Pacing::default(), START);
        let (mut now, mut went) = (start, vec![]);
        for turn in 0.. {
            if now >= start + Duration::from_secs(secs) {
                return went;
            }
            let share = shares[turn % shares.len()];
            let bytes = (piece_of(limit(rate)) * share / 100).max(1);
            rule.spend(now, bytes, limit(rate));
            went.push((now, bytes, rate));
            if rule.due() > now {
                now = rule.due() + Duration::from_micros(late_micros[turn % late_micros.len()]);
            }
        }
        went
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

        #[test]
        fn with_work_without_end_ten_seconds_have_the_limit_within_5_percent_and_never_more(
            exponent in 16.0..34.0_f64,
            shares in prop::collection::vec(20..=100_u64, 1..9),
            late_micros in prop::collection::vec(0..12_000_u64, 1..9),
        ) {
            let rate = exponent.exp2() as u64;
            let went = busy(rate, 25, &shares, &late_micros);
            let (least, most) = (least_within(&went, TEN), most_within(&went, TEN));
            prop_assert!(most <= rate * 10, "{most} of {}", rate * 10);
            prop_assert!(least * 100 >= rate * 10 * 95, "{least} of {}", rate * 10);
        }

        #[test]
        fn whatever_changes_and_however_long_it_was_idle_no_time_has_more_than_its_limits(
            spans in prop::collection::vec(
                (16.0..31.0_f64, 0..4_000_u64, 0..6_000_u64, 1..=100_u64),
                1..8,
            ),
        ) {
            let (mut rule, start) = (Pacing::default(), START);
            let (mut now, mut went, mut limits) = (start, Went::new(), vec![]);
            for (exponent, busy_millis, idle_millis, share) in spans {
                let rate = exponent.exp2() as u64;
                let began = now;
                let until = now + Duration::from_millis(busy_millis);
                while now < until {
                    if rule.due() > now {
                        // It is woken by the change.
                        now = rule.due().min(until);
                        continue;
                    }
                    let bytes = (piece_of(limit(rate)) * share).div_ceil(100);
                    rule.spend(now, bytes, limit(rate));
                    went.push((now, bytes, rate));
                }
                now += Duration::from_millis(idle_millis);
                limits.push((began, now, rate));
            }
            // Between any two pieces, both counted: what the limits of that time allow,
            // and at either end a slice, of the limit that holds there or did before.
            let allowed = |from: Duration, to: Duration| -> f64 {
                let each = limits.iter().map(|(began, ended, rate)| {
                    let time = to.min(*ended).saturating_sub(from.max(*began));
                    time.as_secs_f64() * *rate as f64
                });
                each.sum()
            };
            for (first, &(from, _, _)) in went.iter().enumerate().step_by(1 + went.len() / 40) {
                let mut sum = 0;
                for &(at, bytes, rate) in &went[first..] {
                    sum += bytes;
                    let held = limits.iter().filter(|(began, ..)| *began <= at);
                    let held = held.filter(|(_, ended, _)| *ended >= from);
                    let slice = held.map(|(.., rate)| rate / 16).max().unwrap_or(rate / 16);
                    let allowed = allowed(from, at) + slice as f64;
                    prop_assert!(sum as f64 <= allowed + 2.0, "{sum} of {allowed}");
                }
            }
        }
    }

    #[test]
    fn after_idleness_a_slice_goes_at_once_and_no_more() {
        for rate in [64 << 10, 1 << 20, 1 << 30] {
            let (mut rule, mut now) = (Pacing::default(), START);
            for idle in [0, 1, 3600] {
                now += Duration::from_secs(idle);
                let mut at_once = 0;
                while rule.due() <= now {
                    rule.spend(now, piece_of(limit(rate)), limit(rate));
                    at_once += piece_of(limit(rate));
                }
                assert!(at_once <= rate / 16, "{at_once} of {}", rate / 16);
            }
        }
    }

    #[test]
    fn what_a_piece_cost_under_one_limit_is_paid_within_a_slice_of_it_under_the_next() {
        let (mut rule, now) = (Pacing::default(), START);
        let (slow, fast) = (limit(64 << 10), limit(1 << 30));
        for _ in 0..3 {
            let at = rule.due().max(now);
            rule.spend(at, piece_of(slow), slow);
        }
        let due = rule.due();
        let before = now + 2 * CREDIT;
        assert!(due <= before + Duration::from_millis(35), "{:?}", due - now);
        // And at the next one, whatever it was before, pieces cost what they cost.
        rule.spend(due, piece_of(fast), fast);
        let next = rule.due() - due;
        assert!(next <= Duration::from_millis(32), "{next:?}");
    }

    #[test]
    fn a_limit_that_is_too_small_for_a_session_is_kept_as_the_least() {
        let least = cost(LEAST_LIMIT, limit(LEAST_LIMIT));
        assert_eq!(cost(LEAST_LIMIT, limit(1)), least);
        assert_eq!(piece_of(limit(1)), LEAST_PIECE);
        assert!(cost(LEAST_LIMIT, limit(LEAST_LIMIT + 500)) < least);
    }
}
