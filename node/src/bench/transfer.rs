//! An end of block sessions between two processes, with the files of the folder that is
//! given: `cargo xtask bench transfer` prepares them, runs this beside what a user would
//! pick instead, and compares.
//!
//! Both ends go through the same steps, one session each but where disks are moved
//! together. There is one sending end, or one for each of several agents.
//!
//! Not here: nodes, and leases: both ends hold permits as the tests make them.

mod steps;
mod throttled;
mod together;

use self::steps::{Action, Step};
use self::throttled::send_throttled;
use self::together::{send_alone, send_together};
use crate::net::{self, BlockStream, Event, Net};
use crate::transfer::tests::given::Given;
use crate::transfer::tests::noting::{Noting, Written};
use crate::transfer::tests::world::{World, domain, noise, permits};
use crate::transfer::{
    BARRIER_BYTES, Compression, Copy, Leave, Pacer, Progress, ReceiveEvent, ReceiveJob, References,
    Scope, SendCommand, SendEvent, SendJob, SharedBuffers, read_open, receive, send,
};
use blocks::{BLOCK_SIZE, DirtySet, Geometry};
use crdt::PassSummary;
use keys::Identity;
use libp2p::Multiaddr;
use rustix::fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate};
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, timeout};
use volumes::{AlignedBuf, FingerprintIndex, SourceVolume};

/// Seeds of the keys of both ends.
const SENDING: u8 = 1;
const RECEIVING: u8 = 2;
/// That of the first of several agents; each has the next one.
const AGENTS: u8 = 16;
/// How long a session may have nothing to say.
const PATIENCE: Duration = Duration::from_secs(600);
/// The index of contents is as large as a replicator's.
const INDEX_BYTES: u64 = 256 << 20;
/// Permits are made anew this often; they hold for two minutes.
const RENEWED: Duration = Duration::from_secs(30);
/// Barriers whose blocks may still be on their way when one is durable: two that were
/// asked for before it came, one for what had been read and not sent, and one to spare.
const BARRIERS_BEHIND: usize = 4;

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[test]
fn transfer() {
    let Some(folder) = setting("DUNLIN_BENCH_FOLDER").map(PathBuf::from) else {
        println!("skipped, as it needs files: `cargo xtask bench transfer` runs it");
        return;
    };
    // Of a line that others have begun what is said is none.
    println!();
    let end = setting("DUNLIN_BENCH_END").unwrap();
    let steps = std::fs::read_to_string(folder.join("steps")).unwrap();
    let steps = steps.lines().map(|line| Step::read(&folder, line));
    let steps = steps.collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match end.as_str() {
        "receive" => runtime.block_on(receive_all(steps)),
        "send" => runtime.block_on(send_all(steps)),
        other => panic!("{other} is no end of a session"),
    }
    println!("most_mib={:.0}", most_mib());
}

/// One end's network.
struct End {
    net: Net,
    events: mpsc::Receiver<Event>,
}

impl End {
    async fn start(seed: u8, listen: Option<Multiaddr>) -> Self {
        let identity = Identity::from_seed(&[seed; 32]);
        let listen = listen.into_iter().collect();
        let config = net::Config::new(&mut identity.seed(), listen, false, [1; 32]);
        let (net, events) = Box::pin(net::start(config)).await.unwrap();
        Self { net, events }
    }

    /// Waits until the way to a peer is known, as it is wherever a node has run for a while.
    async fn measured(&self, peer: net::PeerKey) {
        let mut looks = interval(LOOKED);
        while self.net.links(peer).await.round_trip.is_none() {
            looks.tick().await;
        }
    }

    /// Waits for connections with all of these.
    async fn connected(&mut self, mut peers: BTreeSet<net::PeerKey>) {
        while !peers.is_empty() {
            let peer = self.next(|event| match event {
                Event::Connected(peer) => Some(peer),
                _ => None,
            });
            peers.remove(&peer.await);
        }
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

/// How often it is looked whether a way has been measured.
const LOOKED: Duration = Duration::from_millis(10);

fn key_of(seed: u8) -> net::PeerKey {
    Identity::from_seed(&[seed; 32]).public().0
}

/// Which of several agents this process is, if it is one of them.
fn agent() -> Option<String> {
    setting("DUNLIN_BENCH_AGENT")
}

/// Seeds of all that send in these steps.
fn senders(steps: &[Step]) -> Vec<u8> {
    let agents = steps.iter().find_map(|step| match step.action {
        // A handful.
        Action::Agents { agents } => Some(agents as u8),
        _ => None,
    });
    match agents {
        Some(agents) => (AGENTS..AGENTS + agents).collect(),
        None => vec![SENDING],
    }
}

fn world(disk: &Path) -> World {
    let source = SourceVolume::open(&disk.join("source"));
    let length = source.unwrap().length();
    let mut world = World::at(disk, length);
    world.barrier_bytes = BARRIER_BYTES;
    world.compression = match setting("DUNLIN_BENCH_COMPRESSES").as_deref() {
        Some("true") => Compression::Auto,
        _ => Compression::Off,
    };
    world
}

/// The receiving end: a session for each step.
async fn receive_all(steps: Vec<Step>) {
    let listen = setting("DUNLIN_BENCH_LISTEN").unwrap();
    let mut end = End::start(RECEIVING, Some(listen.parse().unwrap())).await;
    let address = end.next(|event| match event {
        Event::Listening(address) => Some(address),
        _ => None,
    });
    let address = address.await;
    let senders: BTreeSet<_> = senders(&steps).into_iter().map(key_of).collect();
    end.net.allow(senders.clone());
    println!("listening={address}");
    end.connected(senders).await;
    println!("connected=yes");
    let site = Arc::new(Site::of(&steps));
    for step in steps {
        let mut coming = match step.action {
            Action::Together { disks: count } | Action::Agents { agents: count } => count,
            _ => 1,
        };
        // A task each, as a node has it: those of one task would share its turns.
        let mut sessions = JoinSet::new();
        while coming > 0 || !sessions.is_empty() {
            let stream = end.next(|event| match event {
                Event::Stream { stream, .. } => Some(stream),
                _ => None,
            });
            tokio::select! {
                stream = stream, if coming > 0 => {
                    coming -= 1;
                    sessions.spawn(receive_one(stream, site.clone(), step.clone()));
                }
                Some(done) = sessions.join_next() => done.unwrap(),
            }
        }
    }
}

async fn receive_one(mut stream: BlockStream, site: Arc<Site>, step: Step) {
    let open = read_open(&mut stream).await.unwrap();
    let world = match step.action {
        Action::Together { .. } | Action::Agents { .. } => {
            // Which one it is of.
            let disk = std::str::from_utf8(&open.ticket).unwrap();
            world(&step.disk.join(disk))
        }
        _ => world(&step.disk),
    };
    let job = ReceiveJob {
        tag: tag_of(&world),
        buffers: site.buffers.clone(),
        references: Some(site.references.clone()),
        ..world.receive_job(open)
    };
    let (renew, leave) = watch::channel(Leave::Granted(permits().1));
    let (tell, mut events) = mpsc::channel(64);
    let mut session = Box::pin(receive(stream, job, leave, tell));
    let (mut renewal, mut last, mut is_over) = (interval(RENEWED), None, false);
    loop {
        tokio::select! {
            () = &mut session, if !is_over => is_over = true,
            _ = renewal.tick() => drop(renew.send_replace(Leave::Granted(permits().1))),
            event = events.recv() => match event {
                Some(event) => last = Some(event),
                None => break,
            },
        }
    }
    assert!(matches!(last, Some(ReceiveEvent::Ended(_))), "{last:?}");
}

/// What a replicator keeps beside its copies. All of a bench are in one scope: what one of
/// them brought may be referred to by the next.
struct Site {
    buffers: SharedBuffers,
    references: References,
    _folder: TempDir,
}

impl Site {
    fn of(steps: &[Step]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let index = FingerprintIndex::open(&folder.path().join("fingerprints"), INDEX_BYTES);
        let (index, scope) = (Arc::new(index.unwrap()), Scope::default());
        let has_one = |step: &&Step| {
            let has_several =
                matches!(step.action, Action::Together { .. } | Action::Agents { .. });
            !has_several
        };
        let copies = steps.iter().filter(has_one).map(|step| {
            let world = world(&step.disk);
            let (path, length) = (world.target(), world.length);
            (tag_of(&world), Copy { path, length })
        });
        scope.set(copies.collect());
        Self {
            buffers: SharedBuffers::default(),
            references: References::new(index, scope, domain(None)),
            _folder: folder,
        }
    }
}

/// Names the copy of a disk.
fn tag_of(world: &World) -> [u8; 16] {
    let name = world.dir.file_name().unwrap().as_bytes();
    *blake3::hash(name).as_bytes().first_chunk().unwrap()
}

/// The sending end: a session for each step.
async fn send_all(steps: Vec<Step>) {
    let seed = match agent() {
        Some(agent) => AGENTS + agent.parse::<u8>().unwrap(),
        None => SENDING,
    };
    let mut end = End::start(seed, None).await;
    let peer = setting("DUNLIN_BENCH_PEER").unwrap();
    end.net.allow([key_of(RECEIVING)].into());
    let addresses = vec![peer.parse().unwrap()];
    end.net
        .set_addresses([(key_of(RECEIVING), addresses)].into());
    end.connected([key_of(RECEIVING)].into()).await;
    end.measured(key_of(RECEIVING)).await;
    // The other end knows it too, once we are told to begin.
    let begun = std::io::stdin().read_line(&mut String::new());
    assert!(begun.unwrap() > 0, "nobody told us to begin");
    for step in steps {
        match step.action {
            Action::Together { disks } => send_together(&end, &step.disk, disks).await,
            Action::Agents { .. } => {
                let agent = agent().expect("each agent is told which one it is");
                send_alone(&end, &step.disk, &agent).await;
            }
            Action::Throttle { limits, each } => {
                send_throttled(&end, &step.disk, limits, each).await;
            }
            _ => send_step(&end, &step).await,
        }
    }
}

/// One session over one disk.
async fn send_step(end: &End, step: &Step) {
    let world = world(&step.disk);
    let dirty = prepare(&world, step);
    let (since, cores) = (Instant::now(), core_seconds());
    let mut sending = Sending::start(end, &world, b"ticket", Manner::default()).await;
    println!("opened_after={:.3}", since.elapsed().as_secs_f64());
    if step.action == Action::Consume {
        sending.consumed = Some(OpenOptions::new().write(true).open(world.source()).unwrap());
    }
    match step.action {
        Action::Find { rounds } => return sending.find(&world.source(), rounds).await,
        Action::Rescan { rounds } => return sending.rescan(&world.source(), rounds).await,
        _ => {}
    }
    let done = sending.pass(1, dirty).await;
    let (took, cores) = (since.elapsed().as_secs_f64(), core_seconds() - cores);
    let (bytes, blocks) = (done.bytes_sent, done.blocks);
    println!("seconds={took:.4} core_seconds={cores:.2} bytes={bytes} blocks={blocks}");
    sending.close().await;
}

/// Does to the source what a step says; the blocks of it that the step has the pass told.
fn prepare(world: &World, step: &Step) -> Option<DirtySet> {
    let is_dirty = match step.action {
        Action::Update { is_dirty } => is_dirty,
        _ => return None,
    };
    let changes = std::fs::read_to_string(step.disk.join("changes")).unwrap();
    let mut dirty = DirtySet::new(Geometry::new(world.length).unwrap());
    let file = OpenOptions::new().write(true).open(world.source()).unwrap();
    for (at, line) in changes.lines().enumerate() {
        let (offset, length) = line.split_once(' ').unwrap();
        let (offset, bytes) = (
            offset.parse().unwrap(),
            noise(at as u64, length.parse().unwrap()),
        );
        file.write_all_at(&bytes, offset).unwrap();
        dirty.mark_range(offset, bytes.len() as u64);
    }
    for path in [world.source(), world.target()] {
        // As before what it is compared with.
        let file = File::open(path).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
    is_dirty.then_some(dirty)
}

/// What a session has beside its disk.
#[derive(Default)]
struct Manner {
    pacer: Pacer,
    buffers: SharedBuffers,
    /// Where it is noted what goes to the stream, if it is.
    written: Option<Written>,
}

/// A session at its sending end.
struct Sending {
    commands: mpsc::Sender<SendCommand>,
    events: mpsc::Receiver<SendEvent>,
    progress: Arc<Progress>,
    given: Given,
    opened: Instant,
    _renewing: Renewing,
    /// The source, where what is durable is punched out of it.
    consumed: Option<File>,
    /// How many blocks were looked at when the last barriers were durable.
    looked_at: VecDeque<u64>,
}

/// Renews a permit as long as it lives.
struct Renewing(JoinHandle<()>);

impl Drop for Renewing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Sending {
    async fn start(end: &End, world: &World, ticket: &[u8], manner: Manner) -> Self {
        let (renew, permit) = watch::channel(permits().0);
        let renewing = tokio::spawn(async move {
            let mut renewal = interval(RENEWED);
            loop {
                renewal.tick().await;
                renew.send_replace(permits().0);
            }
        });
        let stream = end.net.open_stream(key_of(RECEIVING)).await.unwrap();
        println!("direct={}", stream.is_direct());
        let job = SendJob {
            permit,
            ticket: ticket.to_vec(),
            pacer: manner.pacer,
            buffers: manner.buffers,
            ..world.send_job()
        };
        let progress = job.progress.clone();
        let (commands, orders) = mpsc::channel(8);
        let (tell, events) = mpsc::channel(64);
        match manner.written {
            None => tokio::spawn(send(stream, job, orders, tell)),
            Some(written) => {
                let stream = Noting::new(stream, written);
                tokio::spawn(send(stream, job, orders, tell))
            }
        };
        Self {
            commands,
            events,
            progress,
            given: world.given.clone(),
            opened: Instant::now(),
            _renewing: Renewing(renewing),
            consumed: None,
            looked_at: VecDeque::new(),
        }
    }

    async fn pass(&mut self, pass: u32, dirty: Option<DirtySet>) -> PassSummary {
        self.begin(pass, dirty).await;
        self.done(pass).await
    }

    async fn begin(&self, pass: u32, dirty: Option<DirtySet>) {
        let whole = dirty.is_none();
        self.given.with(|state| state.dirty = dirty);
        let begin = SendCommand::BeginPass { pass, whole };
        self.commands.send(begin).await.unwrap();
    }

    /// Waits for the end of a pass that has begun.
    async fn done(&mut self, pass: u32) -> PassSummary {
        loop {
            match self.next().await {
                SendEvent::Ready { .. } => self.says("ready"),
                SendEvent::Barrier(_) => {
                    self.says("barrier");
                    self.consume();
                }
                SendEvent::PassDone { summary, .. } => {
                    assert_eq!(summary.pass, pass);
                    return summary;
                }
                event => panic!("{event:?} in a pass"),
            }
        }
    }

    /// Tells how long after the session was opened something was so.
    fn says(&self, what: &str) {
        println!("{what}_after={:.3}", self.opened.elapsed().as_secs_f64());
    }

    async fn next(&mut self) -> SendEvent {
        let event = timeout(PATIENCE, self.events.recv()).await;
        event.expect("an event in time").expect("an event")
    }

    /// Punches out what was looked at some barriers ago: the source is read once, in order.
    fn consume(&mut self) {
        let Some(source) = &self.consumed else {
            return;
        };
        self.looked_at
            .push_back(self.progress.blocks_looked_at.load(Relaxed));
        if self.looked_at.len() > BARRIERS_BEHIND {
            let blocks = self.looked_at.pop_front().unwrap();
            let punched = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(source, punched, 0, blocks * BLOCK_SIZE as u64).unwrap();
        }
    }

    /// Passes over a source that does not change, and hashes it as often, in turn.
    async fn find(mut self, source: &Path, rounds: u32) {
        for pass in 1..=rounds {
            let (since, cpu) = (Instant::now(), cpu_seconds());
            let done = self.pass(pass, None).await;
            let (took, cpu) = (since.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            assert_eq!(done.blocks, 0, "nothing has changed");
            println!("found seconds={took:.4} core_seconds={cpu:.4}");
            let (since, cpu) = (Instant::now(), cpu_seconds());
            hash(source);
            let (took, cpu) = (since.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            println!("hashed seconds={took:.4} core_seconds={cpu:.4}");
        }
        self.close().await;
    }

    /// Passes over a source that does not change, and reads it as often, in turn.
    async fn rescan(mut self, source: &Path, rounds: u32) {
        for pass in 1..=rounds {
            for turn in 0..2 {
                let (since, cpu) = (Instant::now(), cpu_seconds());
                let (what, bytes) = match (pass + turn) % 2 {
                    0 => ("rescanned", self.pass(pass, None).await.bytes_sent),
                    _ => {
                        read(source);
                        ("read", 0)
                    }
                };
                let (took, cpu) = (since.elapsed().as_secs_f64(), cpu_seconds() - cpu);
                println!("{what} seconds={took:.4} core_seconds={cpu:.4} bytes={bytes}");
            }
        }
        self.close().await;
    }

    async fn close(mut self) {
        self.commands.send(SendCommand::Close).await.unwrap();
        loop {
            match self.next().await {
                SendEvent::Closed => return,
                SendEvent::Barrier(_) | SendEvent::Ready { .. } => {}
                event => panic!("{event:?} at the end"),
            }
        }
    }
}

/// Reads a file in the pieces in which sessions read, and hashes it.
fn hash(path: &Path) {
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; 1 << 20]);
    for at in (0..length).step_by(piece.len()) {
        let piece = &mut piece[..(length - at).min(1 << 20) as usize];
        file.read_exact_at(piece, at).unwrap();
        hasher.update(piece);
    }
    std::hint::black_box(hasher.finalize());
}

/// Reads a device as `dd bs=4M iflag=direct` does.
fn read(path: &Path) {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed());
    let file = options.open(path).unwrap();
    let mut piece = AlignedBuf::new((4 << 20) / BLOCK_SIZE as u64);
    let mut at = 0;
    loop {
        match file.read_at(piece.bytes_mut(), at).unwrap() {
            0 => return,
            length => at += length as u64,
        }
    }
}

/// Processor time of this process so far, in seconds.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
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
