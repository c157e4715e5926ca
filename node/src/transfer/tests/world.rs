//! Two ends with real files and a loopback socket between them that can be
//! stalled after a number of bytes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use blocks::{DirtySet, Geometry};
use futures::io::{AsyncRead, AsyncWrite};
use futures::task::AtomicWaker;
use keys::authority::authority;
use keys::lease::{Pair, Renewal};
use keys::permit::Move;
use keys::statement::{Admission, Enrolment, Entry, Genesis};
use keys::{
    DedupDomain, Domain, Grant, Identity, Leases, Ledger, MigrationId, Name, NodeId, Now, Permit,
    Pulse, ReceiveBlocks, Role, SendBlocks, Signed, Statement, StatementId, UnixSecs, VolumeId,
};
use tempfile::TempDir;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use volumes::{TreeFile, VolumeTag};

use super::given::Given;
use crate::clock;
use crate::transfer::*;

pub const BLOCK: usize = blocks::BLOCK_SIZE;
const DEADLINE: Duration = Duration::from_secs(60);

/// How long the permits hold: longer than any test, and less than a machine is up.
pub const LEASE_SECS: u64 = 120;

/// The permits of a node that is its own operator, agent and replicator.
pub fn permits() -> (Permit<SendBlocks>, Permit<ReceiveBlocks>) {
    permits_since(clock::now().mono_millis)
}

/// The same, with a lease that counts from a moment of the clock that does not jump.
pub fn permits_since(since_millis: u64) -> (Permit<SendBlocks>, Permit<ReceiveBlocks>) {
    permits_in(None, since_millis)
}

/// The domain of a grant to this group, or of one to none.
pub fn domain(group: Option<&str>) -> DedupDomain {
    let (send, _) = permits_in(group, clock::now().mono_millis);
    send.dedup_domain()
}

fn permits_in(
    group: Option<&str>,
    since_millis: u64,
) -> (Permit<SendBlocks>, Permit<ReceiveBlocks>) {
    let node = Identity::from_seed(&[7; 32]);
    let name = || Name::new("node").unwrap();
    let (migration, volume) = (MigrationId([1; 16]), VolumeId([2; 16]));
    let mut ledger: Option<Ledger> = None;
    let state = |ledger: &mut Option<Ledger>, statement| -> StatementId {
        let key = node.public();
        let (seq, previous) = ledger.as_ref().map_or((1, None), |l| l.next_position(&key));
        let entry = Entry {
            seq,
            previous,
            mesh: ledger.as_ref().map(Ledger::mesh),
            at: UnixSecs(1),
            statement,
        };
        let signed = Signed::seal(&node, Domain::Statement, &entry).unwrap();
        let id = signed.statement_id();
        match ledger {
            None => *ledger = Some(Ledger::found(signed).unwrap()),
            Some(ledger) => drop(ledger.insert(signed).unwrap()),
        }
        id
    };
    state(
        &mut ledger,
        Statement::Genesis(Genesis {
            name: name(),
            roots: vec![node.public()],
            nonce: [1; 16],
        }),
    );
    let enrolled = state(
        &mut ledger,
        Statement::Enrolment(Enrolment {
            subject: node.public(),
            name: name(),
            roles: Role::ALL.into_iter().collect(),
            site: None,
            scope: keys::Scope::Everywhere,
            not_after: None,
            admission: Admission::Root,
        }),
    );
    let grant = state(
        &mut ledger,
        Statement::Grant(Grant {
            migration,
            agent: NodeId::from(enrolled),
            replicators: vec![NodeId::from(enrolled)],
            volumes: vec![volume],
            not_after: UnixSecs(u64::MAX),
            lease_secs: LEASE_SECS,
            autonomy_secs: 0,
            dedup_group: group.map(|group| Name::new(group).unwrap()),
        }),
    );
    let asked = Move {
        grant,
        migration,
        volume,
        agent: node.public(),
        replicator: node.public(),
    };
    let authority = authority(&ledger.unwrap());
    let me = NodeId::from(enrolled);
    let pair = Pair {
        grant,
        replicator: me,
    };
    let renewal = Renewal {
        holder: me,
        pulse: Pulse([1; 16]),
        pairs: vec![pair],
    };
    let span = authority.grant(&grant).unwrap().grant.span();
    let wanted = [(pair, span)].into();
    let now = Now {
        wall: clock::now().wall,
        mono_millis: since_millis,
    };
    let mut leases = Leases::new();
    leases.pulse(now, Pulse([1; 16]));
    leases.hear(&authority, now.wall, (me, &wanted), (me, &[renewal]));
    let send = authority.permit_send(now, &leases, &asked).unwrap();
    (
        send,
        authority.permit_receive(now, &leases, &asked).unwrap(),
    )
}

/// Leave to receive that nobody withdraws; for as long as the sender is kept.
pub fn granted() -> (watch::Sender<Leave>, watch::Receiver<Leave>) {
    watch::channel(Leave::Granted(permits().1))
}

/// Stalls reading after some bytes until it is opened.
#[derive(Clone)]
pub struct Gate(Arc<GateState>);

struct GateState {
    open: AtomicBool,
    waker: AtomicWaker,
}

impl Gate {
    pub fn open(&self) {
        self.0.open.store(true, Ordering::SeqCst);
        self.0.waker.wake();
    }
}

/// A loopback socket with the traits of the network's streams.
pub struct Wire {
    stream: TcpStream,
    left: usize,
    gate: Gate,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let open = AtomicBool::new(false);
        let waker = AtomicWaker::new();
        let gate = Gate(Arc::new(GateState { open, waker }));
        let left = usize::MAX;
        Self { stream, left, gate }
    }

    pub fn stall_after(&mut self, bytes: usize) -> Gate {
        self.left = bytes;
        self.gate.clone()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.gate.0.waker.register(cx.waker());
        if self.gate.0.open.load(Ordering::SeqCst) {
            self.left = usize::MAX;
        }
        let room = buf.len().min(self.left);
        if room == 0 {
            return Poll::Pending;
        }
        let mut read = ReadBuf::new(&mut buf[..room]);
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        let read = read.filled().len();
        self.left -= read;
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Both ends of one stream.
pub async fn pair() -> (Wire, Wire) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (Wire::new(near.unwrap()), Wire::new(far.unwrap().0))
}

/// The files of both ends. What is durable at the replicator is in a file too,
/// so that other processes can play.
pub struct World {
    _dir: Option<TempDir>,
    pub dir: PathBuf,
    pub length: u64,
    pub compression: Compression,
    pub barrier_bytes: u64,
    /// Who follows the source.
    pub given: Given,
}

impl World {
    /// A source of `length` bytes, all noise, and a target of zeros.
    pub fn new(length: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = Self {
            dir: dir.path().to_owned(),
            _dir: Some(dir),
            length: length as u64,
            compression: Compression::Off,
            barrier_bytes: 8 << 20,
            given: Given::default(),
        };
        fs::write(world.source(), noise(1, length)).unwrap();
        File::create(world.target())
            .unwrap()
            .set_len(world.length)
            .unwrap();
        world
    }

    /// The files of another process.
    pub fn at(dir: &Path, length: u64) -> Self {
        Self {
            _dir: None,
            dir: dir.to_owned(),
            length,
            compression: Compression::Off,
            barrier_bytes: 8 << 20,
            given: Given::default(),
        }
    }

    pub fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    pub fn target(&self) -> PathBuf {
        self.dir.join("target")
    }

    pub fn target_tree(&self) -> PathBuf {
        self.dir.join("target.tree")
    }

    pub fn source_tree(&self) -> PathBuf {
        self.dir.join("source.tree")
    }

    pub fn write_source(&self, block: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.source()).unwrap();
        file.write_all_at(bytes, block * BLOCK as u64).unwrap();
    }

    pub fn source_root(&self) -> [u8; 32] {
        *blake3::hash(&fs::read(self.source()).unwrap()).as_bytes()
    }

    /// Says nothing of the bytes when it fails: there are too many.
    pub fn assert_equal(&self) {
        let (source, target) = (fs::read(self.source()), fs::read(self.target()));
        let (source, target) = (source.unwrap(), target.unwrap());
        assert_eq!(source.len(), target.len());
        let pairs = source.chunks(BLOCK).zip(target.chunks(BLOCK));
        let differing: Vec<_> = pairs
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .map(|(block, _)| block)
            .collect();
        assert_eq!(differing, Vec::<usize>::new(), "blocks that differ");
    }

    /// The last durable barrier.
    pub fn durable(&self) -> u64 {
        let bytes = fs::read(self.dir.join("durable")).ok();
        bytes.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
    }

    /// The root of the stored tree of the end whose it is. Nobody may have it open.
    pub fn root_of(&self, tree: &Path, tag: u8) -> [u8; 32] {
        let geometry = Geometry::new(self.length).unwrap();
        let tree = TreeFile::open(tree, VolumeTag([tag; 16]), geometry);
        tree.unwrap().root().unwrap().0
    }

    pub fn send_job(&self) -> SendJob {
        SendJob {
            permit: watch::channel(permits().0).1,
            ticket: b"ticket".to_vec(),
            source: self.source(),
            tree: self.source_tree(),
            tag: [3; 16],
            barrier: self.durable(),
            barrier_bytes: self.barrier_bytes,
            progress: Arc::default(),
            compression: self.compression,
            pacer: Pacer::default(),
            buffers: SharedBuffers::default(),
            trackers: self.given.trackers(),
            swap: Some(vec![]),
        }
    }

    pub fn receive_job(&self, open: OpenFrame) -> ReceiveJob {
        let record = self.dir.join("durable");
        ReceiveJob {
            open,
            volume: self.target(),
            length: self.length,
            tree: self.target_tree(),
            intents: self.dir.join("notes"),
            tag: [4; 16],
            fresh: !self.target_tree().exists(),
            barrier: self.durable(),
            buffers: SharedBuffers::default(),
            references: None,
            progress: Arc::default(),
            commit: Box::new(move |barrier| {
                let bytes = barrier.to_le_bytes();
                let fresh = record.with_extension("new");
                fs::write(&fresh, bytes).unwrap();
                fs::rename(fresh, &record).unwrap();
                Ok(())
            }),
            prove: Box::new(|_, root, read_back| Ok(format!("{root} {read_back}").into_bytes())),
        }
    }

    pub async fn start(&self) -> Running {
        let (near, far) = pair().await;
        self.start_over(near, far, |_| {}).await
    }

    /// Starts both ends; `change` may alter the replicator's job.
    pub async fn start_over(
        &self,
        near: Wire,
        far: Wire,
        change: impl FnOnce(&mut ReceiveJob),
    ) -> Running {
        let (leave, given) = granted();
        let job = self.send_job();
        let mut running = self.start_jobs((near, far), job, (given, 64), change).await;
        running._leave = Some(leave);
        running
    }

    /// Starts both ends, with the agent's permit from elsewhere.
    pub async fn start_with(&self, permit: watch::Receiver<Permit<SendBlocks>>) -> Running {
        let job = SendJob {
            permit,
            ..self.send_job()
        };
        let (leave, given) = granted();
        let mut running = self
            .start_jobs(pair().await, job, (given, 64), |_| {})
            .await;
        running._leave = Some(leave);
        running
    }

    /// Starts both ends, with the replicator's leave from elsewhere. A queue of events
    /// that nobody empties holds its desk up while extents pile up.
    pub async fn start_held_up(&self, given: watch::Receiver<Leave>) -> Running {
        let job = self.send_job();
        self.start_jobs(pair().await, job, (given, 1), |_| {}).await
    }

    /// Starts both ends over any stream, with as many of the replicator's events waiting
    /// as `queue`.
    pub async fn start_jobs<S>(
        &self,
        (near, mut far): (S, S),
        job: SendJob,
        (given, queue): (watch::Receiver<Leave>, usize),
        change: impl FnOnce(&mut ReceiveJob),
    ) -> Running
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (commands, orders) = mpsc::channel(8);
        let (tell, sent) = mpsc::channel(64);
        let sending = job.progress.clone();
        let sender = tokio::spawn(send(near, job, orders, tell));
        let open = read_open(&mut far).await.unwrap();
        assert_eq!(open.ticket, b"ticket");
        let (tell, received) = mpsc::channel(queue);
        let mut job = self.receive_job(open);
        change(&mut job);
        let receiving = job.progress.clone();
        let receiver = tokio::spawn(receive(far, job, given, tell));
        Running {
            commands,
            sent,
            received,
            sending,
            receiving,
            _leave: None,
            sender,
            receiver,
            seen: Arc::default(),
            given: self.given.clone(),
        }
    }

    /// One pass over a new connection, and the end of the session.
    pub async fn copy(&self) -> PassDone {
        let mut running = self.start().await;
        let done = running.pass(1).await;
        running.close().await;
        done
    }
}

/// What a pass came to.
#[derive(Debug, Clone)]
pub struct PassDone {
    pub groups_adopted: u64,
    pub blocks: u64,
    pub bytes: u64,
    pub reading: Reading,
}

/// Both ends at work.
pub struct Running {
    pub commands: mpsc::Sender<SendCommand>,
    pub sent: mpsc::Receiver<SendEvent>,
    pub received: mpsc::Receiver<ReceiveEvent>,
    pub sending: Arc<Progress>,
    pub receiving: Arc<Progress>,
    _leave: Option<watch::Sender<Leave>>,
    pub sender: JoinHandle<()>,
    pub receiver: JoinHandle<()>,
    seen: Arc<Mutex<u64>>,
    given: Given,
}

impl Running {
    pub async fn command(&self, command: SendCommand) {
        self.commands.send(command).await.unwrap();
    }

    /// Runs a pass to its end.
    pub async fn pass(&mut self, pass: u32) -> PassDone {
        self.pass_over(pass, None).await
    }

    pub async fn pass_over(&mut self, pass: u32, dirty: Option<DirtySet>) -> PassDone {
        let whole = dirty.is_none();
        self.given.with(|state| state.dirty = dirty);
        self.pass_by(pass, whole).await
    }

    pub async fn pass_by(&mut self, pass: u32, whole: bool) -> PassDone {
        self.command(SendCommand::BeginPass { pass, whole }).await;
        loop {
            match self.next_sent().await {
                SendEvent::Ready { groups_adopted, .. } => {
                    *self.seen.lock().unwrap() = groups_adopted;
                }
                SendEvent::PassDone { summary, reading } => {
                    assert_eq!(summary.pass, pass);
                    return PassDone {
                        groups_adopted: *self.seen.lock().unwrap(),
                        blocks: summary.blocks,
                        bytes: summary.bytes_sent,
                        reading,
                    };
                }
                SendEvent::Barrier(_) => {}
                event => panic!("{event:?} in a pass; {:?}", self.last_received().await),
            }
        }
    }

    pub async fn close(&mut self) {
        self.command(SendCommand::Close).await;
        assert_eq!(self.last_sent().await, SendEvent::Closed);
        let last = self.last_received().await;
        assert!(matches!(last, ReceiveEvent::Ended(_)), "{last:?}");
    }

    pub async fn next_sent(&mut self) -> SendEvent {
        let event = timeout(DEADLINE, self.sent.recv()).await;
        event.expect("an event in time").expect("an event")
    }

    /// The last event of the agent's end, which has to be one that ends it.
    pub async fn last_sent(&mut self) -> SendEvent {
        let mut last = None;
        while let Some(event) = timeout(DEADLINE, self.sent.recv()).await.expect("in time") {
            assert!(last.as_ref().is_none_or(|last| !ends_sending(last)));
            last = Some(event);
        }
        let last = last.unwrap();
        assert!(ends_sending(&last), "{last:?}");
        last
    }

    /// The same of the replicator's end.
    pub async fn last_received(&mut self) -> ReceiveEvent {
        let mut last = None;
        let received = &mut self.received;
        while let Some(event) = timeout(DEADLINE, received.recv()).await.expect("in time") {
            assert!(last.as_ref().is_none_or(|last| !ends_receiving(last)));
            last = Some(event);
        }
        let last = last.unwrap();
        assert!(ends_receiving(&last), "{last:?}");
        last
    }
}

/// The last thing that comes out of a queue before it is closed.
pub async fn last_of<T>(queue: &mut mpsc::Receiver<T>) -> Option<T> {
    let mut last = None;
    while let Some(event) = timeout(DEADLINE, queue.recv()).await.expect("in time") {
        last = Some(event);
    }
    last
}

/// Waits for a condition that nothing announces.
pub async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, wait).await.expect("it comes in time");
}

fn ends_sending(event: &SendEvent) -> bool {
    matches!(
        event,
        SendEvent::Refused(_) | SendEvent::Lost(_) | SendEvent::SourceFailed(_) | SendEvent::Closed
    )
}

fn ends_receiving(event: &ReceiveEvent) -> bool {
    matches!(
        event,
        ReceiveEvent::Ended(_) | ReceiveEvent::Refused(..) | ReceiveEvent::StorageFailed(_)
    )
}

/// Bytes that do not compress and never repeat.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
