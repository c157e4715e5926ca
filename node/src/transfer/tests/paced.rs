//! Sessions under a limit: what is on the wire when, and what must not wait for it.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use super::noting::{Noting, Written};
use super::world::Running;
use super::*;

const KIB: u64 = 1 << 10;

fn at(bytes_per_sec: u64) -> Pace {
    Pace {
        limit: NonZeroU64::new(bytes_per_sec),
        polite: false,
    }
}

/// A pace for sessions, and who changes it.
fn paced(pace: Pace) -> (watch::Sender<Pace>, Pacer) {
    let (change, pace) = watch::channel(pace);
    (change, Pacer::new(pace))
}

/// Starts both ends, with what goes from the source to the target noted.
async fn start(world: &World, pacer: &Pacer, notes: &Written) -> (Running, watch::Sender<Leave>) {
    let (near, far) = pair().await;
    let far = Noting::new(far, Written::default());
    let near = Noting::new(near, notes.clone());
    let job = SendJob {
        pacer: pacer.clone(),
        ..world.send_job()
    };
    let (leave, given) = granted();
    let running = world.start_jobs((near, far), job, (given, 64), |_| {});
    (running.await, leave)
}

/// That no time has more bytes than the limit and a slice. A busy machine may note late
/// what went in time, and so close to what follows.
fn assert_kept(written: &Written, limit: u64) {
    let written = written.lock().unwrap();
    let slack = limit / 16 + limit / 5;
    for (first, (from, _)) in written.iter().enumerate() {
        let mut sum = 0;
        for (at, bytes) in &written[first..] {
            sum += bytes;
            let allowed = (*at - *from).as_secs_f64() * limit as f64;
            assert!(sum as f64 <= allowed + slack as f64, "{sum} of {allowed}");
        }
    }
}

fn sum(written: &Written) -> u64 {
    written.lock().unwrap().iter().map(|(_, bytes)| bytes).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_share_one_limit_in_turn_and_keep_to_it() {
    let limit = 3 << 20;
    let (_change, pacer) = paced(at(limit));
    let worlds = [World::new(2 * MIB), World::new(2 * MIB)];
    let written = [Written::default(), Written::default()];
    let (mut one, _leave) = start(&worlds[0], &pacer, &written[0]).await;
    let (mut other, _leave) = start(&worlds[1], &pacer, &written[1]).await;
    let began = Instant::now();
    let both = async { tokio::join!(one.pass(1), other.pass(1)) };
    // From when both are under way to when the first is done.
    let apart = async {
        let sums = || (sum(&written[0]), sum(&written[1]));
        until(|| sums().0.min(sums().1) >= 128 * KIB).await;
        let at_first = sums().0.abs_diff(sums().1);
        let mut most = 0;
        until(|| {
            most = most.max(sums().0.abs_diff(sums().1));
            sums().0.max(sums().1) >= 2 * MIB as u64
        })
        .await;
        (at_first, most)
    };
    let (_, (at_first, most)) = tokio::join!(both, apart);
    let took = began.elapsed();
    let ahead = most.saturating_sub(at_first);
    assert!(ahead <= 512 * KIB, "one got {ahead} bytes ahead");
    assert!(took >= Duration::from_millis(1_200), "{took:?}");
    let mut all: Vec<_> = written
        .iter()
        .flat_map(|written| written.lock().unwrap().clone())
        .collect();
    all.sort_unstable();
    assert_kept(&Arc::new(Mutex::new(all)), limit);
    for (world, running) in worlds.iter().zip([&mut one, &mut other]) {
        world.assert_equal();
        assert!(running.sending.counts().paced > Duration::from_millis(100));
        running.close().await;
    }
}

/// Waits for the end of the pass that runs.
async fn pass_done(running: &mut Running) {
    loop {
        match running.next_sent().await {
            SendEvent::PassDone { .. } => return,
            SendEvent::Ready { .. } | SendEvent::Barrier(_) => {}
            event => panic!("{event:?} in a pass"),
        }
    }
}

/// That from now on no more bytes go than the limit has it, beside those on their way.
async fn assert_kept_from_now(written: &Written, limit: u64, on_their_way: u64) {
    let (began, before) = (Instant::now(), sum(written));
    until(|| began.elapsed() >= Duration::from_millis(700)).await;
    let went = sum(written) - before;
    let allowed = began.elapsed().as_secs_f64() * limit as f64 + on_their_way as f64;
    assert!(went as f64 <= allowed, "{went} of {allowed}");
}

const BEGIN: SendCommand = SendCommand::BeginPass {
    pass: 1,
    whole: true,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_changes_under_way_holds_at_once() {
    let (change, pacer) = paced(at(64 * KIB));
    let (world, written) = (World::new(32 * MIB), Written::default());
    let (mut running, _leave) = start(&world, &pacer, &written).await;
    running.command(BEGIN).await;
    until(|| sum(&written) >= 48 * KIB).await;
    assert_kept(&written, 64 * KIB);
    // Up, while the next piece is waited for.
    change.send(at(4 << 20)).unwrap();
    let began = Instant::now();
    until(|| sum(&written) >= 2 << 20).await;
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(8),
        "before it was 31 s: {took:?}"
    );
    // Down: a piece may be on its way.
    change.send(at(64 * KIB)).unwrap();
    assert_kept_from_now(&written, 64 * KIB, 160 * KIB).await;
    // To none, again while a piece is waited for.
    change.send(Pace::default()).unwrap();
    until(|| sum(&written) >= 8 << 20).await;
    // And from none: what one write took is on its way.
    change.send(at(64 * KIB)).unwrap();
    assert_kept_from_now(&written, 64 * KIB, 1200 * KIB).await;
    change.send(Pace::default()).unwrap();
    pass_done(&mut running).await;
    world.assert_equal();
    running.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_and_a_barrier_wait_for_little_under_a_low_limit() {
    let (_change, pacer) = paced(at(64 * KIB));
    let (mut world, written) = (World::new(8 * MIB), Written::default());
    world.barrier_bytes = 128 * KIB;
    let (mut running, _leave) = start(&world, &pacer, &written).await;
    running.command(BEGIN).await;
    until(|| running.sending.barriers.load(Relaxed) > 0).await;
    // What is read ahead is old when it goes: one piece, while the other is on its way.
    let ahead = running.sending.bytes_read.load(Relaxed) - sum(&written);
    assert!(ahead <= 4 * BLOCK as u64, "{ahead}");
    let unsettled = |running: &Running| {
        let counts = running.sending.counts();
        counts.blocks_sent - counts.blocks_durable
    };
    // What waits for the barrier, for the stream, and for the barrier that is asked next.
    assert!(unsettled(&running) <= 6, "{}", unsettled(&running));
    let began = Instant::now();
    running.close().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "8 MiB take 128 s: {took:?}");
    // No gap in which the other end had to take the stream for dead, and no payload that
    // came as one.
    let written = written.lock().unwrap();
    let gaps = written.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(gaps.max().unwrap() < Duration::from_secs(5));
    assert!(written.iter().all(|(_, bytes)| *bytes <= 4 * KIB));
    // All of what was sent is there.
    assert_eq!(unsettled(&running), 0);
    let sent = running.sending.counts().blocks_sent as usize * BLOCK;
    let target = fs::read(world.target()).unwrap();
    assert_eq!(target[..sent], fs::read(world.source()).unwrap()[..sent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_to_the_stream_before_a_limit_does_not_hold_up_the_end() {
    let (change, pacer) = paced(Pace::default());
    let world = World::new(40 * MIB);
    let (near, mut far) = pair().await;
    let gate = far.stall_after(MIB);
    let job = SendJob {
        pacer,
        ..world.send_job()
    };
    let (_leave, given) = granted();
    let started = world.start_jobs((near, far), job, (given, 64), |_| {});
    let mut running = started.await;
    running.command(BEGIN).await;
    // The buffers of both sockets, and all that the session has.
    let sent = || running.sending.blocks_sent.load(Relaxed);
    let mut last = (0, Instant::now());
    until(|| {
        if sent() != last.0 {
            last = (sent(), Instant::now());
        }
        sent() > 160 && last.1.elapsed() > Duration::from_millis(500)
    })
    .await;
    change.send(at(64 * KIB)).unwrap();
    gate.open();
    let began = Instant::now();
    running.close().await;
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(15),
        "16 MiB take 256 s: {took:?}"
    );
    let again = World::copy(&world).await;
    assert!(again.blocks > 0);
    world.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statement_of_a_cutover_comes_under_the_lowest_limit() {
    let (change, pacer) = paced(Pace::default());
    let (world, written) = (World::new(20 * MIB), Written::default());
    let (mut running, _leave) = start(&world, &pacer, &written).await;
    running.pass(1).await;
    change.send(at(1)).unwrap();
    running.pass(2).await;
    let read_back = true;
    running.command(SendCommand::Finish { read_back }).await;
    let stated = running.next_sent().await;
    assert!(matches!(stated, SendEvent::Finished { .. }), "{stated:?}");
    assert_eq!(running.last_sent().await, SendEvent::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn once_the_permit_is_over_no_more_goes_than_the_extent_in_flight() {
    let (_change, pacer) = paced(at(256 * KIB));
    let (world, written) = (World::new(8 * MIB), Written::default());
    let (renew, permit) = watch::channel(permits().0);
    let (near, far) = pair().await;
    let near = Noting::new(near, written.clone());
    let far = Noting::new(far, Written::default());
    let job = SendJob {
        permit,
        pacer,
        ..world.send_job()
    };
    let (_leave, given) = granted();
    let started = world.start_jobs((near, far), job, (given, 64), |_| {});
    let mut running = started.await;
    running.command(BEGIN).await;
    until(|| sum(&written) >= 256 * KIB).await;
    let over = clock::now().mono_millis - LEASE_SECS * 1000;
    renew.send(permits_since(over).0).unwrap();
    let before = sum(&written);
    assert_eq!(running.last_sent().await, SendEvent::Closed);
    let went = sum(&written) - before;
    assert!(went <= 2 * BLOCK as u64 + 64 * KIB, "{went}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_a_fast_link_is_compressed_for() {
    let (_change, pacer) = paced(at(1 << 20));
    let (mut world, written) = (World::new(24 * MIB), Written::default());
    world.compression = Compression::Auto;
    let text = b"all work and no play makes a dull disk ".repeat(24 * MIB / 39);
    world.write_source(0, &text);
    let (mut running, _leave) = start(&world, &pacer, &written).await;
    let done = running.pass(1).await;
    world.assert_equal();
    // The buffers are raw at first, and what is read after the first second is not.
    assert!(done.bytes < 8 << 20, "{}", done.bytes);
    let (packed, _) = running.sending.counts().sent(Way::Zstd);
    assert!(packed > 16 << 20, "{packed}");
    running.close().await;
}
