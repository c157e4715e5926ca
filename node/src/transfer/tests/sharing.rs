//! Sessions that share buffers: how much one has in memory while others are there.

use super::*;
use crate::transfer::share::{Share, Sharers};

/// How far a session reads whose other end takes a mebibyte and no more, with so many
/// others in a pass.
async fn read_among(others: usize, least: u64) -> u64 {
    let world = World::new(64 * MIB);
    let buffers = SharedBuffers::default();
    let _others: Vec<Share> = (0..others).map(|_| buffers.sending.join()).collect();
    let job = SendJob {
        buffers: buffers.clone(),
        ..world.send_job()
    };
    let (near, mut far) = pair().await;
    let _gate = far.stall_after(MIB);
    let (_leave, given) = granted();
    let change = |job: &mut ReceiveJob| job.buffers = buffers.clone();
    let running = world.start_jobs((near, far), job, (given, 64), change);
    let running = running.await;
    let (pass, whole) = (1, true);
    running
        .command(SendCommand::BeginPass { pass, whole })
        .await;
    // All that share are counted where all look.
    until(|| {
        let each = [&buffers.sending, &buffers.offering, &buffers.receiving];
        each.map(Sharers::sessions) == [others + 1, 1, 1]
    })
    .await;
    let read = || running.sending.bytes_read.load(Relaxed);
    let mut last = (0, Instant::now());
    until(|| {
        if read() != last.0 {
            last = (read(), Instant::now());
        }
        read() >= least && last.1.elapsed() > Duration::from_millis(500)
    })
    .await;
    read()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_among_many_reads_little_ahead_and_one_alone_all_that_it_can_use() {
    // Beside its pieces are the buffers of both sockets, a dozen MiB at most.
    read_among(0, 32 << 20).await;
    let among = read_among(31, 1).await;
    assert!(among <= 16 << 20, "{among}");
}
