//! Passes beside somebody else who writes to the same disk. The disk is made up, so that it
//! does not matter how fast the real one is: what others write takes four times as long
//! while any of the sessions reads and none is held back. So the pace stays near what the
//! machine can do, and passes end.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use volumes::{Disks, Figures, IoCounts};

use super::world::Running;
use super::*;

/// How long it may take until something is decided.
const PATIENCE: Duration = Duration::from_secs(50);

/// A disk that only counts.
#[derive(Default)]
struct Disk {
    counts: IoCounts,
    at: Option<Instant>,
    read: u64,
}

/// What is known of it, and of who reads it.
#[derive(Clone, Default)]
struct Others {
    disk: Arc<Mutex<Disk>>,
    readers: Arc<Mutex<Vec<Arc<Progress>>>>,
    write: Arc<AtomicBool>,
}

impl Others {
    fn counts(&self) -> IoCounts {
        let readers = self.readers.lock().unwrap();
        let read = readers.iter().map(|one| one.bytes_read.load(Relaxed)).sum();
        let mut disk = self.disk.lock().unwrap();
        let now = Instant::now();
        let time = now - disk.at.replace(now).unwrap_or(now);
        let has_read = std::mem::replace(&mut disk.read, read) != read;
        if self.write.load(SeqCst) {
            // One each millisecond.
            let writes = u32::try_from(time.as_millis()).unwrap();
            disk.counts.writes += u64::from(writes);
            let is_held = |one: &Arc<Progress>| one.reads_held_at.load(Relaxed) > 0;
            let is_slow = has_read && !readers.iter().any(is_held);
            let each = Duration::from_millis(if is_slow { 4 } else { 1 });
            disk.counts.write_time += each * writes;
        }
        disk.counts
    }

    /// A pacer whose sessions are polite to it.
    fn pacer(&self, pace: watch::Receiver<Pace>) -> Pacer {
        let others = self.clone();
        Pacer::new(pace).on(Disks::found_by(move |_| {
            let others = others.clone();
            Ok(Figures {
                disk: "disk".into(),
                is_direct: false,
                counts: Box::new(move || Ok(others.counts())),
                commits: Box::new(|| Some(0)),
            })
        }))
    }
}

fn polite() -> watch::Receiver<Pace> {
    let (_, pace) = watch::channel(Pace {
        limit: None,
        polite: true,
    });
    pace
}

/// A session of a world of its own that is read with this pacer.
async fn reading(world: &World, others: &Others, pacer: &Pacer) -> Running {
    let job = SendJob {
        pacer: pacer.clone(),
        ..world.send_job()
    };
    others.readers.lock().unwrap().push(job.progress.clone());
    let (_leave, given) = granted();
    let started = world.start_jobs(pair().await, job, (given, 64), |_| {});
    started.await
}

/// A pass, and the highest pace at which it was held.
async fn held_in(running: &mut Running, pass: u32) -> u64 {
    let progress = running.sending.clone();
    let mut looks = tokio::time::interval(Duration::from_millis(1));
    let passing = running.pass(pass);
    tokio::pin!(passing);
    let mut most = 0;
    loop {
        tokio::select! {
            _ = &mut passing => return most,
            _ = looks.tick() => most = most.max(progress.reads_held_at.load(Relaxed)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_backs_off_while_somebody_writes_to_its_disk_and_comes_back_after() {
    let (world, others) = (World::new(192 * MIB), Others::default());
    let pacer = others.pacer(polite());
    let mut running = reading(&world, &others, &pacer).await;
    // While nobody else does anything, nothing is held.
    for pass in [1, 2] {
        assert_eq!(held_in(&mut running, pass).await, 0);
    }
    others.write.store(true, SeqCst);
    let (mut pass, mut held, began) = (2, 0, Instant::now());
    while held == 0 {
        pass += 1;
        held = held_in(&mut running, pass).await;
        assert!(began.elapsed() < PATIENCE, "it does not back off");
    }
    // Between passes nothing is read, and so nothing held back.
    until(|| running.sending.reads_held_at.load(Relaxed) == 0).await;
    others.write.store(false, SeqCst);
    let (mut now, began) = (held, Instant::now());
    while now != 0 && now < held / 2 * 3 {
        pass += 1;
        now = held_in(&mut running, pass).await;
        assert!(began.elapsed() < PATIENCE, "held at {held}, then at {now}");
    }
    running.close().await;
}

/// How often this process committed; other tests in it may add to that.
async fn committed() -> u64 {
    let mut count = None;
    until(|| {
        count = volumes::committed();
        count.is_some()
    })
    .await;
    count.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_polite_session_stores_is_durable_with_each_barrier() {
    let (world, others) = (World::new(96 * MIB), Others::default());
    let mut running = reading(&world, &others, &others.pacer(polite())).await;
    let before = committed().await;
    running.pass(1).await;
    let (commits, barriers) = (
        committed().await - before,
        running.sending.barriers.load(Relaxed),
    );
    // One is due every 8 MiB, and those that are while one is made durable come with the next:
    // how many there are is up to the disk. Both ends have a tree here.
    assert!(barriers > 1, "{barriers}");
    assert!(commits >= 2 * barriers, "{commits} of {barriers} barriers");
    running.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_that_read_one_disk_back_off_together() {
    let (one, other) = (World::new(96 * MIB), World::new(96 * MIB));
    let others = Others::default();
    let pacer = others.pacer(polite());
    others.write.store(true, SeqCst);
    let mut one = reading(&one, &others, &pacer).await;
    let mut other = reading(&other, &others, &pacer).await;
    let (mut pass, mut held, began) = (0, (0, 0), Instant::now());
    while held.0 == 0 || held.1 == 0 {
        pass += 1;
        held = tokio::join!(held_in(&mut one, pass), held_in(&mut other, pass));
        assert!(began.elapsed() < PATIENCE, "they do not back off");
    }
    one.close().await;
    other.close().await;
}
