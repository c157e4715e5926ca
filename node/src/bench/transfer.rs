//! One pass of a block session between two networks over loopback, with the files of
//! the folder that is given: `cargo xtask bench transfer` prepares them, runs this beside
//! what a user would pick instead, and compares.
//!
//! Not here: nodes as processes, and leases: both ends hold permits as the tests make
//! them.

use crate::net::{self, BlockStream, Event, Net};
use crate::transfer::tests::world::{World, granted, noise};
use crate::transfer::{BARRIER_BYTES, Compression};
use blocks::{DirtySet, Geometry};
use keys::Identity;
use libp2p::Multiaddr;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::sync::mpsc;

/// One end's network.
struct End {
    key: net::PeerKey,
    net: Net,
    events: mpsc::Receiver<Event>,
}

impl End {
    async fn start(seed: u8, listen: Option<Multiaddr>) -> Self {
        let identity = Identity::from_seed(&[seed; 32]);
        let listen = listen.into_iter().collect();
        let config = net::Config::new(&mut identity.seed(), listen, false, [1; 32]);
        let (net, events) = Box::pin(net::start(config)).await.unwrap();
        let key = identity.public().0;
        Self { key, net, events }
    }

    async fn next<T>(&mut self, pick: impl Fn(Event) -> Option<T>) -> T {
        loop {
            let event = self.events.recv().await.expect("the network runs");
            if let Some(found) = pick(event) {
                return found;
            }
        }
    }
}

/// Two networks that are connected; the first has dialled.
async fn connected(listen: &str) -> (End, End) {
    let mut near = End::start(1, None).await;
    let mut far = End::start(2, Some(listen.parse().unwrap())).await;
    let address = far.next(|event| match event {
        Event::Listening(address) => Some(address),
        _ => None,
    });
    let address = address.await;
    near.net.allow([far.key].into());
    far.net.allow([near.key].into());
    near.net.set_addresses([(far.key, vec![address])].into());
    let (theirs, ours) = (far.key, near.key);
    near.next(|event| matches!(event, Event::Connected(peer) if peer == theirs).then_some(()))
        .await;
    far.next(|event| matches!(event, Event::Connected(peer) if peer == ours).then_some(()))
        .await;
    (near, far)
}

async fn stream(near: &End, far: &mut End) -> (BlockStream, BlockStream) {
    let opening = near.net.open_stream(far.key);
    let taken = far.next(|event| match event {
        Event::Stream { stream, .. } => Some(stream),
        _ => None,
    });
    let (opened, taken) = tokio::join!(opening, taken);
    let opened = opened.unwrap();
    println!("direct={}", opened.is_direct());
    (opened, taken)
}

/// Processor time that the machine has given so far, in seconds: as what this is compared
/// with is measured.
fn core_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let fields = stat.lines().next().unwrap().split_whitespace();
    let fields: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    // All but idle, waiting for disks and what other machines took; in hundredths.
    let busy = fields
        .iter()
        .enumerate()
        .filter(|(at, _)| ![3, 4, 7].contains(at));
    busy.map(|(_, ticks)| ticks).sum::<f64>() / 100.0
}

/// The most memory that this process had, in MiB.
fn most_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap();
    kib.parse::<f64>().unwrap() / 1024.0
}

/// Writes other bytes where the lines say, by offset and length.
fn change(source: &Path, changes: &str) {
    let file = OpenOptions::new().write(true).open(source).unwrap();
    for (at, line) in changes.lines().enumerate() {
        let (offset, length) = line.split_once(' ').unwrap();
        let bytes = noise(at as u64, length.parse().unwrap());
        file.write_all_at(&bytes, offset.parse().unwrap()).unwrap();
    }
}

/// What a tracker would have seen of that.
fn dirty_set(length: u64, changes: &str) -> DirtySet {
    let mut dirty = DirtySet::new(Geometry::new(length).unwrap());
    for line in changes.lines() {
        let (offset, length) = line.split_once(' ').unwrap();
        dirty.mark_range(offset.parse().unwrap(), length.parse().unwrap());
    }
    dirty
}

#[test]
fn transfer() {
    let Some(folder) = std::env::var_os("DUNLIN_BENCH_FOLDER") else {
        println!("skipped, as it needs files: `cargo xtask bench transfer` runs it");
        return;
    };
    let changes = std::fs::read_to_string(PathBuf::from(&folder).join("changes"));
    let changes = changes.unwrap_or_default();
    let is_tracked = std::env::var_os("DUNLIN_BENCH_TRACKED").is_some();
    let passes = if changes.is_empty() { 1 } else { 2 };
    let listen = std::env::var("DUNLIN_BENCH_LISTEN");
    let listen = listen.unwrap_or_else(|_| "/ip4/127.0.0.1/tcp/0".into());
    let folder = PathBuf::from(folder);
    let length = std::fs::metadata(folder.join("source")).unwrap().len();
    let mut world = World::at(&folder, length);
    world.compression = Compression::Auto;
    world.barrier_bytes = BARRIER_BYTES;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (near, mut far) = connected(&listen).await;
        for pass in 1..=passes {
            let mut dirty = None;
            if pass == 2 {
                change(&folder.join("source"), &changes);
                dirty = is_tracked.then(|| dirty_set(length, &changes));
            }
            let (since, cores) = (Instant::now(), core_seconds());
            let ends = stream(&near, &mut far).await;
            let (leave, given) = granted();
            let job = world.send_job();
            let mut running = world.start_jobs(ends, job, (given, 64), |_| {}).await;
            let done = running.pass_over(pass, dirty).await;
            let (took, cores) = (since.elapsed().as_secs_f64(), core_seconds() - cores);
            println!(
                "pass={pass} seconds={took:.3} core_seconds={cores:.2} bytes={} blocks={} most_mib={:.0}",
                done.bytes,
                done.blocks,
                most_mib(),
            );
            running.close().await;
            drop(leave);
        }
    });
}
