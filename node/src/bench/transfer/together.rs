//! Several disks at once: of one server, or of as many agents as there are disks.
//!
//! Whether they share what there is in equal parts shows while all of them move: what one
//! has that began sooner, or what is left once others are done, is no part of it.

use super::{End, Manner, Sending, core_seconds, world};
use crate::transfer::SharedBuffers;
use crate::transfer::tests::noting::Written;
use futures::future::join_all;
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::time::Instant;

/// A session for each of several disks, all at once.
pub(super) async fn send_together(end: &End, folder: &Path, disks: u32) {
    let (since, cores) = (Instant::now(), core_seconds());
    let buffers = SharedBuffers::default();
    let (mut sessions, mut written) = (Vec::new(), Vec::new());
    for disk in 0..disks {
        let disk = disk.to_string();
        let manner = Manner {
            buffers: buffers.clone(),
            written: Some(Written::default()),
            ..Manner::default()
        };
        written.extend(manner.written.clone());
        let world = world(&folder.join(&disk));
        sessions.push(Sending::start(end, &world, disk.as_bytes(), manner).await);
    }
    let passes = sessions.into_iter().map(|mut sending| async move {
        let done = sending.pass(1, None).await;
        (sending, done.bytes_sent, since.elapsed().as_secs_f64())
    });
    let done = join_all(passes).await;
    let cores = core_seconds() - cores;
    let took = done.iter().map(|(_, _, took)| *took);
    let (first, last) = (
        took.clone().fold(f64::MAX, f64::min),
        took.fold(0.0, f64::max),
    );
    let bytes: u64 = done.iter().map(|(_, bytes, _)| bytes).sum();
    let written: Vec<_> = written
        .iter()
        .map(|written| written.lock().unwrap().clone())
        .collect();
    let moved = moved_while_all(&written);
    let (least, most) = (moved.iter().min(), moved.iter().max());
    println!(
        "seconds={last:.4} core_seconds={cores:.2} bytes={bytes} first={first:.4} \
         least_moved={} most_moved={}",
        least.unwrap(),
        most.unwrap(),
    );
    for (sending, _, _) in done {
        sending.close().await;
    }
}

/// The session of one of several agents, over its own disk.
pub(super) async fn send_alone(end: &End, folder: &Path, agent: &str) {
    let world = world(&folder.join(agent));
    let (began, cores) = (clock_seconds(), core_seconds());
    let manner = Manner::default();
    let mut sending = Sending::start(end, &world, agent.as_bytes(), manner).await;
    let done = sending.pass(1, None).await;
    let (ended, cores) = (clock_seconds(), core_seconds() - cores);
    println!(
        "seconds={:.4} core_seconds={cores:.2} bytes={} began={began:.4} ended={ended:.4}",
        ended - began,
        done.bytes_sent,
    );
    sending.close().await;
}

/// A clock that all processes of this machine read alike, in seconds.
fn clock_seconds() -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Bytes of a stream that were written, and when.
type Writes = Vec<(Instant, u64)>;

/// From so many bytes on a stream has begun with its disk.
const BEGUN: u64 = 1 << 20;

/// What each of several streams took from when all had begun to when the first was done.
fn moved_while_all(streams: &[Writes]) -> Vec<u64> {
    let begun = |writes: &Writes| {
        let mut sum = 0;
        writes.iter().find_map(|(at, bytes)| {
            sum += bytes;
            (sum >= BEGUN).then_some(*at)
        })
    };
    let spans = streams
        .iter()
        .map(|writes| Some((begun(writes)?, writes.last()?.0)));
    let Some(spans) = spans.collect::<Option<Vec<_>>>() else {
        return vec![0; streams.len()];
    };
    let from = spans.iter().map(|(begun, _)| *begun).max();
    let until = spans.iter().map(|(_, done)| *done).min();
    let (Some(from), Some(until)) = (from, until) else {
        return vec![];
    };
    let within = |writes: &Writes| {
        let writes = writes.iter().filter(|(at, _)| (from..until).contains(at));
        writes.map(|(_, bytes)| bytes).sum()
    };
    streams.iter().map(within).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A stream that takes a MiB every so many milliseconds, of so many.
    fn stream(start: Instant, first: u64, each: u64, count: u64) -> Writes {
        let writes = (0..count).map(|at| {
            let after = Duration::from_millis(first + at * each);
            (start + after, 1 << 20)
        });
        writes.collect()
    }

    #[test]
    fn what_one_has_sent_before_all_began_or_after_the_first_was_done_does_not_count() {
        let start = Instant::now();
        // The second begins 500 ms later, at the same speed.
        let streams = [stream(start, 0, 10, 100), stream(start, 500, 10, 100)];
        let moved = moved_while_all(&streams);
        assert_eq!(moved, [49 << 20, 49 << 20]);
    }

    #[test]
    fn who_is_slower_while_all_move_has_less() {
        let start = Instant::now();
        let streams = [stream(start, 0, 10, 100), stream(start, 0, 20, 100)];
        let moved = moved_while_all(&streams);
        assert_eq!(moved, [99 << 20, 50 << 20]);
        assert_eq!(moved_while_all(&[vec![], stream(start, 0, 1, 9)]), [0, 0]);
    }
}
