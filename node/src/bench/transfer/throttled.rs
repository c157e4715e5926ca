//! A pass under one limit and then another: what share of it went in every ten seconds.
//!
//! What counts is what the pacer counts, bytes given to the block stream, before
//! encryption, and when the stream took them.

use super::{End, Manner, Sending, core_seconds, world};
use crate::transfer::tests::noting::Written;
use crate::transfer::{Pace, Pacer};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{interval, timeout_at};

/// What a limit is kept over.
const WINDOW: Duration = Duration::from_secs(10);
/// What goes at once, as time at the limit: a piece, and one that makes up for being late.
const PIECE: Duration = Duration::from_micros(62_500);
/// How often it is looked whether the first blocks have been sent.
const LOOKED: Duration = Duration::from_millis(2);

/// A session over a disk that lasts longer than both limits hold, so that there is always
/// something to send, and the rest of it without a limit.
pub(super) async fn send_throttled(end: &End, disk: &Path, limits: [u64; 2], each: Duration) {
    let at = |bytes_per_sec| Pace {
        limit: NonZeroU64::new(bytes_per_sec),
        polite: false,
    };
    let (change, pace) = watch::channel(at(limits[0]));
    let written = Written::default();
    let manner = Manner {
        pacer: Pacer::new(pace),
        written: Some(written.clone()),
        ..Manner::default()
    };
    let mut sending = Sending::start(end, &world(disk), b"ticket", manner).await;
    sending.begin(1, None).await;
    let progress = sending.progress.clone();
    let mut looks = interval(LOOKED);
    let began = loop {
        looks.tick().await;
        if progress.blocks_sent.load(Relaxed) > 0 {
            break Instant::now();
        }
    };
    let cores = core_seconds();
    let mut held = vec![(began, limits[0])];
    for limit in limits.into_iter().skip(1).map(Some).chain([None]) {
        let until = held[held.len() - 1].0 + each;
        let over = timeout_at(until.into(), sending.done(1)).await;
        assert!(over.is_err(), "nothing was left to send: {over:?}");
        change.send_replace(limit.map_or(Pace::default(), at));
        held.push((Instant::now(), limit.unwrap_or(u64::MAX)));
    }
    let (took, cores) = (began.elapsed().as_secs_f64(), core_seconds() - cores);
    let notes: Vec<(Duration, u64)> = {
        let written = written.lock().unwrap();
        let since = |(at, bytes): &(Instant, u64)| (at.checked_duration_since(began), *bytes);
        let notes = written.iter().map(since);
        notes.filter_map(|(at, bytes)| Some((at?, bytes))).collect()
    };
    let held: Vec<(Duration, u64)> = held
        .into_iter()
        .map(|(at, limit)| (at - began, limit))
        .collect();
    let shares = shares(&notes, &held);
    assert!(shares.windows > 0, "nothing was sent for ten seconds");
    let done = sending.done(1).await;
    let Shares {
        least,
        most,
        windows,
    } = shares;
    println!(
        "{windows} times ten seconds; those with the least begin after {:?}, with the most after {:?}",
        least.1, most.1
    );
    println!(
        "seconds={took:.4} core_seconds={cores:.2} bytes={} least_share={:.6} most_share={:.6}",
        done.bytes_sent, least.0, most.0,
    );
    sending.close().await;
}

/// Of what limits allowed in ten seconds the share that went, and when they began, for those
/// with the least and the most of it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shares {
    least: (f64, Duration),
    most: (f64, Duration),
    /// How many there were: one that begins at each write.
    windows: usize,
}

/// Looks at the ten seconds that begin with each write. Limits hold from their time to that
/// of the next, but where that is lower it holds from the next piece on: the one before may
/// be on its way. Nothing is looked at once the last one begins.
fn shares(written: &[(Duration, u64)], held: &[(Duration, u64)]) -> Shares {
    let mut shares = Shares {
        least: (f64::INFINITY, Duration::ZERO),
        most: (0.0, Duration::ZERO),
        windows: 0,
    };
    let end = held.last().map_or(Duration::ZERO, |(end, _)| *end);
    let (mut next, mut sum) = (0, 0);
    for (from, first) in written {
        let until = *from + WINDOW;
        if until > end {
            break;
        }
        while let Some((at, bytes)) = written.get(next).filter(|(at, _)| *at < until) {
            debug_assert!(at >= from);
            sum += bytes;
            next += 1;
        }
        let most = sum as f64 / allowed(held, *from, until, PIECE);
        if most > shares.most.0 {
            shares.most = (most, *from);
        }
        // Right behind this write there is none of it.
        sum -= first;
        let least = sum as f64 / allowed(held, *from, until, Duration::ZERO);
        if least < shares.least.0 {
            shares.least = (least, *from);
        }
        shares.windows += 1;
    }
    shares
}

/// What the limits that held then allow, each for its time, and one that a lower one follows
/// so much longer.
fn allowed(held: &[(Duration, u64)], from: Duration, until: Duration, late: Duration) -> f64 {
    let mut sum = 0.0;
    let mut begins = Duration::ZERO;
    for pair in held.windows(2) {
        let ends = match pair[1].1 < pair[0].1 {
            true => pair[1].0 + late,
            false => pair[1].0,
        };
        let time = until.min(ends).saturating_sub(from.max(begins));
        sum += time.as_secs_f64() * pair[0].1 as f64;
        begins = ends;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    /// Writes of so many bytes every hundredth of a second, from the first second on.
    fn writes(from: f64, until: f64, bytes: u64) -> Vec<(Duration, u64)> {
        let range = (from * 100.0) as u64..(until * 100.0) as u64;
        range.map(|at| (secs(at as f64 / 100.0), bytes)).collect()
    }

    #[test]
    fn what_is_kept_exactly_has_a_share_of_one() {
        let held = [(secs(0.0), 1000), (secs(30.0), u64::MAX)];
        let found = shares(&writes(0.0, 40.0, 10), &held);
        assert_eq!(found.windows, 2001);
        assert!((found.most.0 - 1.0).abs() < 1e-9, "{found:?}");
        assert!((found.least.0 - 0.999).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn one_second_with_more_and_one_with_less_are_found() {
        let held = [(secs(0.0), 1000), (secs(30.0), u64::MAX)];
        let mut written = writes(0.0, 30.0, 10);
        written[1500..1600]
            .iter_mut()
            .for_each(|(_, bytes)| *bytes = 12);
        let found = shares(&written, &held);
        assert!((found.most.0 - 1.02).abs() < 1e-9, "{found:?}");
        written[1500..1600]
            .iter_mut()
            .for_each(|(_, bytes)| *bytes = 0);
        let found = shares(&written, &held);
        assert!(found.least.0 < 0.9, "{found:?}");
        assert!(found.most.0 <= 1.0 + 1e-9, "{found:?}");
    }

    #[test]
    fn ten_seconds_with_a_change_allow_what_each_limit_does_in_its_time() {
        let held = [(secs(0.0), 1000), (secs(15.0), 500), (secs(30.0), u64::MAX)];
        let changed = [writes(0.0, 15.0, 10), writes(15.0, 30.0, 5)].concat();
        let found = shares(&changed, &held);
        assert!((found.most.0 - 1.0).abs() < 2e-3, "{found:?}");
        assert!((found.least.0 - 1.0).abs() < 2e-3, "{found:?}");
        // As if the change had not been heard for a second.
        let late = [writes(0.0, 16.0, 10), writes(16.0, 30.0, 5)].concat();
        let found = shares(&late, &held);
        assert!(found.most.0 > 1.09, "{found:?}");
        assert_eq!(found.most.1, secs(15.06));
        // Of what the first one let go little may be on its way.
        let piece = [
            writes(0.0, 15.0, 10),
            vec![(secs(15.0), 30)],
            writes(15.01, 30.0, 5),
        ];
        assert!(shares(&piece.concat(), &held).most.0 < 1.003);
    }
}
