//! The replicator's end of a block session: reading who wants what, refusing
//! it, or receiving until the session ends.
//!
//! Not here: whether a ticket is good, and what is done with the bytes
//! (`desk`).

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use blocks::frame::{MAX_PAYLOAD, PREFIX_LEN};
use blocks::{
    BLOCK_SIZE, BadExtent, CheckedExtent, CloseReason, Encoding, ExtentCheck, FrameError,
    FramePrefix, Geometry, RefusalCode, Root, ToSource, ToTarget,
};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use keys::{Permit, ReceiveBlocks};
use tokio::select;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use volumes::VolumeTag;

use super::desk::{self, DeskJob, Payload, ToDesk};
use super::references::References;
use super::replica::Place;
use super::share::{Share, SharedBuffers, Sharers};
use super::wire::{Activity, FrameReader, LINGER, PARCELS, write_parcels};
use super::{PIECES, Progress};
use crate::clock;
use roles::replicator::code_for;

/// How long a peer may take for its first frame.
const OPENING: Duration = Duration::from_secs(10);

/// A session to which nothing came for so long gives its buffers back.
const RESTING: Duration = Duration::from_secs(1);

/// Frames that wait for the desk; the payloads among them are bounded by
/// [`PIECES`].
const FRAMES: usize = 64;

/// Stores a barrier; durable when it returns. An error says what failed, on what,
/// and what to do.
pub type Commit = Box<dyn Fn(u64) -> Result<(), String> + Send>;

/// Makes the signed statement about the root at a barrier, read back in full or
/// not.
pub type Prove = Box<dyn Fn(u64, Root, bool) -> Result<Vec<u8>, String> + Send>;

/// The first frame of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFrame {
    /// The credential, to be checked by the caller.
    pub ticket: Vec<u8>,
    /// The source's length in bytes.
    pub length: u64,
    frame: ToTarget,
}

/// Why a stream did not begin as one should. Nothing was read beyond its first
/// frame; answer with [`refuse`].
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It ended or broke.
    #[error("the block stream ended before its first frame")]
    Ended(#[source] io::Error),
    /// It took too long.
    #[error("no first frame came on the block stream for {} s", OPENING.as_secs())]
    TimedOut,
    /// The bytes are no frame.
    #[error("the first bytes of the block stream are not a frame")]
    Garbled(#[from] FrameError),
    /// The frame does not open a session.
    #[error("the block stream begins with a frame of kind {kind}")]
    NotAnOpen {
        /// What it is.
        kind: &'static str,
    },
}

impl ReceiveError {
    /// Whether no honest agent begins a stream so, however bad the connection.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Garbled(_) | Self::NotAnOpen { .. })
    }
}

/// Whether a session may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leave {
    /// With this, and as long as it holds.
    Granted(Permit<ReceiveBlocks>),
    /// No more, and what the source is told.
    Withdrawn(RefusalCode),
}

impl Leave {
    /// Why not one block more may be written now.
    pub(super) fn withdrawn(&self) -> Option<RefusalCode> {
        match self {
            Self::Granted(permit) => {
                let checked = permit.check(clock::now());
                checked.err().map(|denied| code_for(&denied))
            }
            Self::Withdrawn(code) => Some(*code),
        }
    }
}

/// What is received.
pub struct ReceiveJob {
    /// The stream's first frame.
    pub open: OpenFrame,
    /// The volume: a raw image or an attached block device.
    pub volume: PathBuf,
    /// The copy's length in bytes.
    pub length: u64,
    /// Where the stored tree is, or is to be made.
    pub tree: PathBuf,
    /// Where the notes of what is being written are; a digit is appended.
    pub intents: PathBuf,
    /// Names the copy. It has to differ for every epoch and volume: a stored
    /// tree with another tag is not believed, and the volume is read instead.
    pub tag: [u8; 16],
    /// A new epoch: begin with zeros, whatever the volume holds.
    pub fresh: bool,
    /// The last durable barrier.
    pub barrier: u64,
    /// What it shares with all other sessions of this process.
    pub buffers: SharedBuffers,
    /// What of the content that is here already may be used; none keeps no index.
    pub references: Option<References>,
    /// Where the live figures go.
    pub progress: Arc<Progress>,
    /// Called at each barrier, once its data and tree are durable; and with an
    /// unchanged number when a session ends between two barriers.
    pub commit: Commit,
    /// Called when the source asks for the statement.
    pub prove: Prove,
}

/// What the caller is told. A session ends with exactly one of `Ended`,
/// `Refused` and `StorageFailed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiveEvent {
    /// Volume and tree are open and level.
    Opened {
        /// The last durable barrier.
        barrier: u64,
        /// Groups of 16 MiB that had to be hashed again.
        recovered_groups: u64,
    },
    /// This barrier is durable and was committed.
    Committed {
        /// Its number.
        barrier: u64,
    },
    /// The source begins a pass.
    PassBegun(u32),
    /// The statement was made and sent.
    Finished {
        /// The root it states.
        root: Root,
        /// Whether the volume was read back in full to tell.
        read_back: bool,
    },
    /// The session is over, and how. What arrived is kept.
    Ended(String),
    /// We ended it: what the source was told, and why.
    Refused(RefusalCode, String),
    /// Volume, tree or notes failed: what, where, why, and what to do. What
    /// was acknowledged is kept.
    StorageFailed(String),
}

/// Reads the first frame of a stream, and nothing beyond it.
///
/// # Errors
/// When none comes in time, or it is not one that opens a session.
pub async fn read_open<S>(stream: &mut S) -> Result<OpenFrame, ReceiveError>
where
    S: AsyncRead + Unpin,
{
    let read = timeout(OPENING, read_first(stream)).await;
    let frame = read.map_err(|_| ReceiveError::TimedOut)??;
    match &frame {
        ToTarget::Open { ticket, length, .. } => Ok(OpenFrame {
            ticket: ticket.clone(),
            length: *length,
            frame,
        }),
        other => Err(ReceiveError::NotAnOpen { kind: other.name() }),
    }
}

async fn read_first<S>(stream: &mut S) -> Result<ToTarget, ReceiveError>
where
    S: AsyncRead + Unpin,
{
    let mut prefix = [0; PREFIX_LEN];
    let read = stream.read_exact(&mut prefix).await;
    read.map_err(ReceiveError::Ended)?;
    let prefix = FramePrefix::decode(prefix)?;
    if prefix.payload > 0 {
        let (frame, bytes) = ("first", prefix.payload);
        return Err(FrameError::Payload { frame, bytes }.into());
    }
    let mut header = vec![0; prefix.header];
    let read = stream.read_exact(&mut header).await;
    read.map_err(ReceiveError::Ended)?;
    Ok(ToTarget::decode(&header, 0)?)
}

/// Tells the peer that its session will not be, and closes the stream.
pub async fn refuse<S>(mut stream: S, code: RefusalCode)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ok(frame) = (ToSource::Refused { code }).encode() else {
        return;
    };
    let tell = async {
        stream.write_all(&frame).await?;
        stream.flush().await?;
        stream.close().await
    };
    // A peer that is gone needs no refusal.
    if let Ok(Ok(())) = timeout(LINGER, tell).await {
        FrameReader::new(stream, Activity::new()).drain().await;
    }
}

/// Runs one session over a stream whose first frame was read and accepted.
/// Once `leave` is withdrawn, or what it grants does not hold any more, no further
/// block is written and the source is told. Dropping it ends the session as if the
/// connection were cut.
pub async fn receive<S>(
    stream: S,
    job: ReceiveJob,
    mut leave: watch::Receiver<Leave>,
    events: mpsc::Sender<ReceiveEvent>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (reader, writer) = stream.split();
    let (parcels, outgoing) = mpsc::channel(PARCELS);
    let geometry = Geometry::new(job.length).ok();
    let sharers = job.buffers.receiving.clone();
    let (desk, ended) = start_desk(job, leave.clone(), events.clone(), parcels);
    let mut ended = pin!(ended);
    let activity = Activity::new();
    let mut frames = FrameReader::new(reader, activity.clone());
    let mut writing = pin!(write_parcels(writer, activity, outgoing));
    let mut is_written = false;
    let last = {
        let buffers = Buffers::new(sharers, RESTING);
        let mut reading = pin!(read_for(&mut frames, &desk.0, geometry, buffers));
        let withdrawn = |leave: &Leave| matches!(leave, Leave::Withdrawn(_));
        let mut watching = pin!(leave.wait_for(withdrawn));
        let (mut is_read, mut is_stopped) = (false, false);
        loop {
            select! {
                last = &mut ended => break last,
                reason = &mut reading, if !is_read => {
                    is_read = true;
                    desk.tell(ToDesk::Closed(reason));
                }
                written = &mut writing, if !is_written => {
                    is_written = true;
                    if let Err(reason) = written {
                        desk.tell(ToDesk::Closed(reason));
                    }
                }
                _ = &mut watching, if !is_stopped => {
                    is_stopped = true;
                    desk.tell(ToDesk::Look);
                }
            }
        }
    };
    if !is_written {
        // The last frames, if the peer still takes them.
        let _ = timeout(LINGER, writing).await;
    }
    frames.drain().await;
    let last = last.unwrap_or_else(|_| {
        let why = "the thread that writes the copy ended: resume".to_owned();
        ReceiveEvent::StorageFailed(why)
    });
    // Nobody listens any more, or everything was said.
    let _ = events.send(last).await;
}

/// The way to the desk; dropping it tells the desk that the session was cut.
struct DeskHandle(std_mpsc::Sender<ToDesk>);

impl DeskHandle {
    fn tell(&self, message: ToDesk) {
        // A desk that is over has said why.
        let _ = self.0.send(message);
    }
}

impl Drop for DeskHandle {
    fn drop(&mut self) {
        self.tell(ToDesk::Closed(CloseReason::Cancelled));
    }
}

fn start_desk(
    job: ReceiveJob,
    leave: watch::Receiver<Leave>,
    events: mpsc::Sender<ReceiveEvent>,
    parcels: mpsc::Sender<super::wire::Parcel>,
) -> (DeskHandle, oneshot::Receiver<ReceiveEvent>) {
    let (mailbox, inbox) = std_mpsc::channel();
    let (end, ended) = oneshot::channel();
    let job = DeskJob {
        place: Place {
            volume: job.volume,
            length: job.length,
            tree: job.tree,
            notes: job.intents,
            tag: VolumeTag(job.tag),
            fresh: job.fresh,
        },
        barrier: job.barrier,
        open: job.open.frame,
        references: job.references,
        progress: job.progress,
        commit: job.commit,
        prove: job.prove,
        leave,
        events,
        parcels,
        inbox,
        mailbox: mailbox.clone(),
    };
    let thread = thread::Builder::new().name("dunlin-desk".into());
    // When no thread can be had, `end` is dropped with the closure.
    let _ = thread.spawn(move || {
        // The caller may have dropped the session.
        let _ = end.send(desk::run(job));
    });
    (DeskHandle(mailbox), ended)
}

/// Reads the source's frames for the desk until the stream ends; says how. Blocks that
/// are sent as they are, are checked while they come in.
async fn read_for<R: AsyncRead + Unpin>(
    frames: &mut FrameReader<R>,
    desk: &std_mpsc::Sender<ToDesk>,
    geometry: Option<Geometry>,
    mut buffers: Buffers,
) -> CloseReason {
    // The desk says what is wrong with a length that has none.
    let Some(geometry) = geometry else {
        return CloseReason::Cancelled;
    };
    let room = Arc::new(Semaphore::new(FRAMES));
    loop {
        let Ok(_room) = room.clone().acquire_owned().await else {
            return CloseReason::Cancelled;
        };
        while buffers.are_held() && timeout(buffers.rest, frames.begun()).await.is_err() {
            buffers.let_go();
        }
        let len = match frames.next().await {
            Ok(len) => len,
            Err(reason) => return reason,
        };
        let Ok(frame) = ToTarget::decode(frames.header(), len) else {
            return CloseReason::Garbled;
        };
        let mut payload = buffers.payload(len).await;
        let message = match frame {
            ToTarget::Extent {
                first,
                encoding: Encoding::Raw,
                leaves,
                fingerprints,
            } => {
                let check = ExtentCheck::new(geometry, (first, leaves), len as u64);
                let checked = match read_checked(frames, check, payload.bytes_mut()).await {
                    Ok(checked) => checked,
                    Err(reason) => return reason,
                };
                ToDesk::Extent {
                    checked,
                    fingerprints,
                    payload,
                    _room,
                }
            }
            frame => {
                if let Err(reason) = frames.fill(payload.bytes_mut()).await {
                    return reason;
                }
                ToDesk::Frame {
                    frame,
                    payload,
                    _room,
                }
            }
        };
        if desk.send(message).is_err() {
            return CloseReason::Cancelled;
        }
    }
}

/// The payloads of a session, of which there are as many as its share allows. They are
/// made when they are needed.
struct Buffers {
    sharers: Sharers,
    /// After so long without a frame they are given back.
    rest: Duration,
    /// None while no blocks come.
    share: Option<Share>,
    home: mpsc::Sender<Vec<u8>>,
    pool: mpsc::Receiver<Vec<u8>>,
    /// How many there are, at home or not.
    count: usize,
}

impl Buffers {
    fn new(sharers: Sharers, rest: Duration) -> Self {
        let (home, pool) = mpsc::channel(PIECES);
        Self {
            sharers,
            rest,
            share: None,
            home,
            pool,
            count: 0,
        }
    }

    /// One for a payload of so many bytes; waits for it where there are enough of them.
    async fn payload(&mut self, len: usize) -> Payload {
        if len == 0 {
            return Payload::none(self.home.clone());
        }
        let share = self.share.get_or_insert_with(|| self.sharers.join());
        loop {
            let allowed = share.buffers(PIECES);
            if self.count < allowed && self.pool.is_empty() {
                self.count += 1;
                break Payload::new(vec![0; MAX_PAYLOAD], len, self.home.clone());
            }
            // It does not end: a sender is here.
            let Some(buf) = self.pool.recv().await else {
                continue;
            };
            if self.count <= share.buffers(PIECES) {
                break Payload::new(buf, len, self.home.clone());
            }
            self.count -= 1;
        }
    }

    /// Whether there are any, at home or not.
    fn are_held(&self) -> bool {
        self.share.is_some()
    }

    /// Those that are at home are given back.
    fn let_go(&mut self) {
        while self.pool.try_recv().is_ok() {
            self.count -= 1;
        }
        if self.count == 0 {
            self.share = None;
        }
    }
}

/// Reads blocks and checks each as soon as it is there.
async fn read_checked<R: AsyncRead + Unpin>(
    frames: &mut FrameReader<R>,
    mut check: Result<ExtentCheck, BadExtent>,
    bytes: &mut [u8],
) -> Result<Result<CheckedExtent, BadExtent>, CloseReason> {
    for block in bytes.chunks_mut(BLOCK_SIZE) {
        frames.fill(block).await?;
        check = check.and_then(|check| check.block(block));
    }
    Ok(check.and_then(ExtentCheck::finish))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use blocks::{BlockIndex, leaf};
    use futures::channel::mpsc as pipe;
    use futures::{FutureExt, TryStreamExt};

    #[tokio::test]
    async fn a_session_takes_what_it_needs_of_its_share_and_gives_back_what_is_above_it() {
        let sharers = Sharers::of(64);
        let mut buffers = Buffers::new(sharers.clone(), RESTING);
        drop(buffers.payload(10).await);
        drop(buffers.payload(10).await);
        assert_eq!(buffers.count, 1, "one is enough");

        let mut out = Vec::new();
        while let Some(payload) = buffers.payload(10).now_or_never() {
            out.push(payload);
        }
        assert_eq!(out.len(), PIECES);

        // As others come it has fewer, as soon as its own are back.
        let others: Vec<Share> = (0..31).map(|_| sharers.join()).collect();
        out.clear();
        while let Some(payload) = buffers.payload(10).now_or_never() {
            out.push(payload);
        }
        assert_eq!((out.len(), buffers.count), (2, 2));

        // One that rests has none, and does not count.
        buffers.let_go();
        assert!(buffers.share.is_some(), "both are in use");
        out.clear();
        buffers.let_go();
        assert_eq!((buffers.count, buffers.share.is_none()), (0, true));
        assert_eq!(others[0].buffers(PIECES), 2);
        assert!(!buffers.are_held());
    }

    #[tokio::test]
    async fn a_session_to_which_nothing_comes_has_no_buffers_even_if_they_come_home_late() {
        let sharers = Sharers::of(64);
        let length = 4 * BLOCK_SIZE as u64;
        let geometry = Geometry::new(length).unwrap();
        let data = vec![7; BLOCK_SIZE];
        let (first, leaves) = (BlockIndex(1), vec![leaf(geometry, BlockIndex(1), &data)]);
        let frame = ToTarget::Extent {
            first,
            encoding: Encoding::Raw,
            leaves,
            fingerprints: vec![],
        };
        let (bytes, stream) = pipe::unbounded::<io::Result<Vec<u8>>>();
        bytes
            .unbounded_send(Ok(frame.encode(data.len()).unwrap()))
            .unwrap();
        bytes.unbounded_send(Ok(data)).unwrap();
        let mut frames = FrameReader::new(stream.into_async_read(), Activity::new());
        let (desk, inbox) = std_mpsc::channel();
        let rest = Duration::from_millis(20);
        let buffers = Buffers::new(sharers.clone(), rest);
        let mut reading = pin!(read_for(&mut frames, &desk, Some(geometry), buffers));
        let sessions = || sharers.sessions();
        let until = async |done: &dyn Fn() -> bool| {
            let mut look = tokio::time::interval(rest);
            while !done() {
                look.tick().await;
            }
        };
        let held = std::cell::RefCell::new(None);
        let has_come = || {
            *held.borrow_mut() = inbox.try_recv().ok();
            held.borrow().is_some()
        };
        select! {
            _ = &mut reading => panic!("it reads on"),
            () = until(&has_come) => assert_eq!(sessions(), 1),
        }
        // The desk takes its time, well beyond that of the rest.
        let slow = tokio::time::timeout(5 * rest, &mut reading).await;
        assert!(slow.is_err() && sessions() == 1);
        drop(held.take());
        let has_gone = || sessions() == 0;
        let deadline = Duration::from_secs(30);
        let gone = async { timeout(deadline, until(&has_gone)).await.expect("in time") };
        select! {
            _ = &mut reading => panic!("it reads on"),
            () = gone => {}
        }
    }
}
