//! The agent's end of a block session: what its caller asks for and is told.
//!
//! Not here: the loop that drives it (`session`) and the reading (`disk`).

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use blocks::{RefusalCode, Source, SwapArea};
use crdt::PassSummary;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use keys::{Permit, SendBlocks};
use tokio::select;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use volumes::VolumeTag;

use super::disk::{Disk, DiskJob, FromDisk};
use super::follow::{Reading, Trackers};
use super::left_out::LeftOut;
use super::session::{FRAMES, Session, Wires};
use super::wire::{Activity, LINGER, Outgoing, read_frames, write_paced};
use super::{Compression, Pacer, Progress, SharedBuffers};

/// What is sent, and with what right.
#[derive(Debug)]
pub struct SendJob {
    /// Allows the source's blocks to be sent, as long as it holds. Where it does not,
    /// the session ends after the extent in flight.
    pub permit: watch::Receiver<Permit<SendBlocks>>,
    /// What is shown to the replicator, opaque here.
    pub ticket: Vec<u8>,
    /// The source: a block device or a raw image.
    pub source: PathBuf,
    /// Where the stored tree is, or is to be made.
    pub tree: PathBuf,
    /// Names the source volume; a stored tree with another is made anew.
    pub tag: [u8; 16],
    /// The last barrier known to be durable at the replicator.
    pub barrier: u64,
    /// A barrier is due once this many bytes were sent since the one before: what a crash
    /// costs at most to send again. [`super::BARRIER_BYTES`] but where disks are small.
    pub barrier_bytes: u64,
    /// Where the live figures go.
    pub progress: Arc<Progress>,
    /// Whether to compress.
    pub compression: Compression,
    /// How fast to send, together with all other sessions of this agent.
    pub pacer: Pacer,
    /// What it shares with all other sessions of this process.
    pub buffers: SharedBuffers,
    /// Who may follow what is written to the source.
    pub trackers: Trackers,
    /// Swap whose content is left out; none where it is to be looked for.
    pub swap: Option<Vec<SwapArea>>,
}

/// What the caller wants next. Passes and the finish wait for their turn.
#[derive(Debug, Clone)]
pub enum SendCommand {
    /// Read the source and send what differs.
    BeginPass {
        /// Its number; rises within a session.
        pass: u32,
        /// Read all of the source. Else what may have changed, as whoever follows it says.
        whole: bool,
    },
    /// Ask for the replicator's signed statement, which ends the session.
    Finish {
        /// Whether the replicator is to read its volume back in full.
        read_back: bool,
    },
    /// Compute the root of what the source and the copy have after a pass; the session goes
    /// on.
    StateRoot,
    /// Make durable what was sent and end the session.
    Close,
}

/// What the caller is told. A session ends with exactly one of `Refused`,
/// `Lost`, `SourceFailed` and `Closed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendEvent {
    /// The stored tree is level with the replicator's; passes may begin.
    Ready {
        /// The replicator's last durable barrier.
        barrier: u64,
        /// Groups of 16 MiB whose hashes had to be taken over from it.
        groups_adopted: u64,
    },
    /// Swap that is left out from here on, before the session is ready, or as its last word
    /// but one: where it is less than before, the next session is to be told of it.
    LeftOut(LeftOut),
    /// All that was sent up to this barrier is durable.
    Barrier(u64),
    /// A pass is over and durable.
    PassDone {
        /// What it came to.
        summary: PassSummary,
        /// How it found what changed.
        reading: Reading,
    },
    /// The replicator's statement.
    Finished {
        /// The root it states.
        root: [u8; 32],
        /// Whether the volume was read back in full to tell.
        read_back: bool,
        /// The statement, opaque here.
        proof: Vec<u8>,
    },
    /// The root that was asked for with [`SendCommand::StateRoot`].
    Rooted([u8; 32]),
    /// The replicator ended the session.
    Refused(RefusalCode),
    /// The connection is gone or the replicator misbehaved: one sentence. Try
    /// again, with this replicator or another.
    Lost(String),
    /// The source, or what is stored beside it, failed: what, where, why, and
    /// what to do.
    SourceFailed(String),
    /// The session ended in good order.
    Closed,
}

/// Runs one session over a stream until it ends. Dropping it ends it too, as
/// if the connection were cut.
pub async fn send<S>(
    stream: S,
    job: SendJob,
    commands: mpsc::Receiver<SendCommand>,
    events: mpsc::Sender<SendEvent>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let last = match open(&job, &events).await {
        Ok(opened) => run(stream, job, opened, commands, &events).await,
        Err(last) => last,
    };
    // Nobody listens any more, or everything was said.
    let _ = events.send(last).await;
}

/// A session about to begin.
struct Opened {
    disk: Disk,
    source: Source,
    length: u64,
}

async fn open(job: &SendJob, events: &mpsc::Sender<SendEvent>) -> Result<Opened, SendEvent> {
    let disk = Disk::start(DiskJob {
        permit: job.permit.borrow().clone(),
        source: job.source.clone(),
        tree: job.tree.clone(),
        tag: VolumeTag(job.tag),
        compression: job.compression,
        progress: job.progress.clone(),
        pacer: job.pacer.clone(),
        sharers: job.buffers.sending.clone(),
        trackers: job.trackers.clone(),
        swap: job.swap.clone(),
    });
    let mut disk = disk.map_err(|error| {
        let why = format!("cannot start a thread to read the source: {error}; free some memory");
        SendEvent::SourceFailed(why)
    })?;
    match disk.answer().await {
        Some(FromDisk::Opened {
            geometry,
            mark,
            left_out,
        }) => {
            if let Some(left_out) = left_out {
                // Nobody listens where the session is over already.
                let _ = events.send(SendEvent::LeftOut(left_out)).await;
            }
            let source = Source::new(geometry, job.barrier, mark, job.ticket.clone());
            let length = geometry.length();
            Ok(Opened {
                disk,
                source,
                length,
            })
        }
        Some(FromDisk::Failed(why) | FromDisk::TreeDamaged(why)) => {
            disk.stop().await;
            Err(SendEvent::SourceFailed(why))
        }
        _ => Err(SendEvent::SourceFailed(format!(
            "opening {} was broken off: resume",
            job.source.display()
        ))),
    }
}

async fn run<S>(
    stream: S,
    job: SendJob,
    Opened {
        disk,
        source,
        length,
    }: Opened,
    commands: mpsc::Receiver<SendCommand>,
    events: &mpsc::Sender<SendEvent>,
) -> SendEvent
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (reader, writer) = stream.split();
    let (heard, frames) = mpsc::channel(FRAMES);
    let (parcels, paced) = Outgoing::new(job.pacer, job.progress.clone());
    let activity = Activity::new();
    let mut reading = pin!(read_frames(reader, activity.clone(), heard));
    let mut writing = pin!(write_paced(writer, activity.clone(), paced));
    let wires = Wires {
        frames,
        parcels,
        activity,
        events: events.clone(),
        sharers: job.buffers.offering,
    };
    let session = Session::new(
        source,
        (length, job.barrier_bytes),
        job.progress,
        (disk, job.permit),
        wires,
    );
    let broken = session.broken();
    let mut session = Box::pin(session.run(commands));
    let (mut is_read, mut is_written) = (false, false);
    let (last, disk) = loop {
        select! {
            ended = &mut session => break ended,
            () = &mut reading, if !is_read => is_read = true,
            written = &mut writing, if !is_written => {
                is_written = true;
                if let Err(reason) = written {
                    broken.set(reason);
                }
            }
        }
    };
    drop(session);
    if !is_written {
        // The last frames, if the peer still takes them.
        let _ = timeout(LINGER, writing).await;
    }
    disk.stop().await;
    last
}
