//! Frames on a stream of bytes: read whole, written in few large pieces, with
//! a limit on how long a peer may stall.
//!
//! Not here: what a frame means.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use blocks::frame::PREFIX_LEN;
use blocks::{CloseReason, FrameError, FramePrefix, ToSource, ToTarget};
use futures::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::Progress;
use super::pace::{Backlog, Pacer};
use super::piece::Slice;
use super::share::Share;

/// A peer that takes or gives nothing for this long, when it should, is gone.
pub(super) const SILENT: Duration = Duration::from_secs(60);

/// How long a peer may take to get one frame over, once it has begun: the largest
/// then comes at 4 KiB/s. A byte now and then is not work, and holds the copy.
const FRAME: Duration = Duration::from_secs(300);

/// How long the last bytes of a session are waited for, in either direction.
pub(super) const LINGER: Duration = Duration::from_secs(3);

/// How long what was given to the stream may take under a limit when a session is to end.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// Prefix, header and the beginning of a payload come in one read.
const READ_AHEAD: usize = 16 * 1024;

/// Small frames are gathered up to this; longer payloads are written as they
/// lie.
const GATHER: usize = 256 * 1024;

/// Parcels that wait for the writer, a mebibyte each at most.
pub(super) const PARCELS: usize = 32;

/// One frame to be written.
#[derive(Debug)]
pub(super) struct Parcel {
    head: Vec<u8>,
    payload: Option<Slice>,
}

impl Parcel {
    pub(super) fn to_target(frame: &ToTarget) -> Result<Self, FrameError> {
        let head = frame.encode(0)?;
        let payload = None;
        Ok(Self { head, payload })
    }

    pub(super) fn to_source(frame: &ToSource) -> Result<Self, FrameError> {
        let head = frame.encode()?;
        let payload = None;
        Ok(Self { head, payload })
    }

    pub(super) fn extent(frame: &ToTarget, payload: Slice) -> Result<Self, FrameError> {
        let head = frame.encode(payload.len())?;
        let payload = Some(payload);
        Ok(Self { head, payload })
    }

    fn bytes(&self) -> u64 {
        let payload = self.payload.as_ref().map_or(0, Slice::len);
        (self.head.len() + payload) as u64
    }
}

/// The session's end of the queue to a writer that is kept to a pace.
pub(super) struct Outgoing {
    parcels: mpsc::Sender<Parcel>,
    backlog: Backlog,
    pacer: Pacer,
}

/// The writer's end of it.
pub(super) struct Paced {
    parcels: mpsc::Receiver<Parcel>,
    backlog: Backlog,
    pacer: Pacer,
    progress: Arc<Progress>,
}

impl Outgoing {
    pub(super) fn new(pacer: Pacer, progress: Arc<Progress>) -> (Self, Paced) {
        let (parcels, waiting) = mpsc::channel(PARCELS);
        let backlog = Backlog::default();
        let paced = Paced {
            parcels: waiting,
            backlog: backlog.clone(),
            pacer: pacer.clone(),
            progress,
        };
        let outgoing = Self {
            parcels,
            backlog,
            pacer,
        };
        (outgoing, paced)
    }

    /// Gives a parcel to the writer; an error once there is none.
    pub(super) async fn send(&self, parcel: Parcel) -> Result<(), mpsc::error::SendError<Parcel>> {
        self.backlog.add(parcel.bytes());
        self.parcels.send(parcel).await
    }

    /// Whether another extent may join those that wait: what is left of offers lies in no
    /// piece, so that they are as many as the session's share has it. Under a limit that is
    /// low only what goes next does: a barrier, and the end of a session, wait behind all
    /// of it.
    pub(super) fn has_room(&self, share: Option<&Share>) -> bool {
        let most = share.map_or(PARCELS, |share| share.buffers(PARCELS));
        self.backlog.bytes() <= self.pacer.room_bytes().min((most as u64) << 20)
    }

    /// Whether what waits will take so long, at the limit that holds, that nobody who ends
    /// a session waits for it: it was given to the stream before there was such a limit.
    pub(super) fn takes_long(&self) -> bool {
        self.pacer.takes_longer(self.backlog.bytes(), LAST_WORDS)
    }

    /// Waits until something of what waits is on the stream.
    pub(super) async fn shrunk(&self) {
        self.backlog.shrunk().await;
    }

    pub(super) async fn closed(&self) {
        self.parcels.closed().await;
    }
}

/// When bytes last went either way.
#[derive(Debug, Clone)]
pub(super) struct Activity {
    start: Instant,
    last_millis: Arc<AtomicU64>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            last_millis: Arc::default(),
        }
    }

    pub(super) fn note(&self) {
        let millis = self.start.elapsed().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    pub(super) fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last_millis.load(Ordering::Relaxed))
    }
}

/// The reading half of a session's stream.
pub(super) struct FrameReader<R> {
    stream: BufReader<R>,
    header: Vec<u8>,
    activity: Activity,
    /// When the frame that has begun must be there.
    until: Instant,
    frame: Duration,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(stream: R, activity: Activity) -> Self {
        Self {
            stream: BufReader::with_capacity(READ_AHEAD, stream),
            header: Vec::new(),
            activity,
            until: Instant::now(),
            frame: FRAME,
        }
    }

    /// Waits until a frame begins, or none will. Nothing is lost when it is dropped.
    pub(super) async fn begun(&mut self) {
        // The next read tells how it ended.
        let _ = self.stream.fill_buf().await;
    }

    /// Waits for the next frame, however long it takes to begin, and gives its
    /// payload's length. Its header is kept for decoding.
    pub(super) async fn next(&mut self) -> Result<usize, CloseReason> {
        match self.stream.fill_buf().await {
            Ok([]) => return Err(CloseReason::ByPeer),
            Ok(_) => {}
            Err(_) => return Err(CloseReason::Lost),
        }
        self.until = Instant::now() + self.frame;
        let mut prefix = [0; PREFIX_LEN];
        self.fill(&mut prefix).await?;
        let prefix = FramePrefix::decode(prefix).map_err(|_| CloseReason::Garbled)?;
        let mut header = std::mem::take(&mut self.header);
        header.resize(prefix.header, 0);
        let filled = self.fill(&mut header).await;
        self.header = header;
        filled.map(|()| prefix.payload)
    }

    pub(super) fn header(&self) -> &[u8] {
        &self.header
    }

    /// Reads bytes of a frame that has begun.
    pub(super) async fn fill(&mut self, mut bytes: &mut [u8]) -> Result<(), CloseReason> {
        while !bytes.is_empty() {
            let until = self.until.min(Instant::now() + SILENT);
            let read = timeout_at(until, self.stream.read(bytes)).await;
            match read.map_err(|_| CloseReason::Silent)? {
                // It ended in the middle of a frame.
                Ok(0) | Err(_) => return Err(CloseReason::Lost),
                Ok(read) => bytes = &mut bytes[read..],
            }
            self.activity.note();
        }
        Ok(())
    }

    /// Reads and drops what still comes, so that a peer in the middle of
    /// writing gets to read our last words before the stream is gone.
    pub(super) async fn drain(&mut self) {
        let drain = async {
            loop {
                match self.stream.fill_buf().await {
                    Ok([]) | Err(_) => return,
                    Ok(bytes) => {
                        let read = bytes.len();
                        self.stream.consume_unpin(read);
                    }
                }
            }
        };
        // What a peer sends on and on is not waited for.
        let _ = timeout(LINGER, drain).await;
    }
}

/// Reads the target's frames until the stream ends; how it ended comes last.
pub(super) async fn read_frames<R: AsyncRead + Unpin>(
    stream: R,
    activity: Activity,
    frames: mpsc::Sender<Result<ToSource, CloseReason>>,
) {
    let mut reader = FrameReader::new(stream, activity);
    loop {
        let frame = reader.next().await.and_then(|payload| {
            ToSource::decode(reader.header(), payload).map_err(|_| CloseReason::Garbled)
        });
        let ended = frame.is_err();
        if frames.send(frame).await.is_err() || ended {
            return;
        }
    }
}

/// Writes parcels in order until no more can come, then closes the stream.
///
/// # Errors
/// When the stream breaks, or the peer takes nothing for [`SILENT`].
pub(super) async fn write_parcels<W: AsyncWrite + Unpin>(
    stream: W,
    activity: Activity,
    parcels: mpsc::Receiver<Parcel>,
) -> Result<(), CloseReason> {
    Writer::new(stream, activity, None).write_all(parcels).await
}

/// As [`write_parcels`], in the turns and at the pace of all sessions of this agent. What
/// waits for its time is no stall of the peer.
///
/// # Errors
/// As there.
pub(super) async fn write_paced<W: AsyncWrite + Unpin>(
    stream: W,
    activity: Activity,
    paced: Paced,
) -> Result<(), CloseReason> {
    let Paced {
        parcels,
        backlog,
        pacer,
        progress,
    } = paced;
    let pace = WriterPace {
        backlog,
        pacer,
        progress,
    };
    let writer = Writer::new(stream, activity, Some(pace));
    writer.write_all(parcels).await
}

/// What a writer is kept to.
struct WriterPace {
    backlog: Backlog,
    pacer: Pacer,
    progress: Arc<Progress>,
}

struct Writer<W> {
    stream: BufWriter<W>,
    activity: Activity,
    pace: Option<WriterPace>,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    fn new(stream: W, activity: Activity, pace: Option<WriterPace>) -> Self {
        let stream = BufWriter::with_capacity(GATHER, stream);
        Self {
            stream,
            activity,
            pace,
        }
    }

    async fn write_all(mut self, mut parcels: mpsc::Receiver<Parcel>) -> Result<(), CloseReason> {
        if let Some(Parcel { head, payload }) = parcels.recv().await {
            self.open(&head).await?;
            if let Some(payload) = payload {
                self.put(payload.bytes()).await?;
            }
        }
        loop {
            let parcel = match parcels.try_recv() {
                Ok(parcel) => Some(parcel),
                Err(_) => {
                    in_time(self.stream.flush()).await?;
                    parcels.recv().await
                }
            };
            let Some(Parcel { head, payload }) = parcel else {
                break;
            };
            self.put(&head).await?;
            if let Some(payload) = payload {
                self.put(payload.bytes()).await?;
            }
        }
        in_time(self.stream.flush()).await?;
        in_time(self.stream.close()).await
    }

    /// Writes the frame that opens a session, for which the other end does not wait long:
    /// it goes ahead of what others send, and counts afterwards.
    async fn open(&mut self, head: &[u8]) -> Result<(), CloseReason> {
        in_time(self.stream.write_all(head)).await?;
        in_time(self.stream.flush()).await?;
        self.activity.note();
        if let Some(pace) = &self.pace {
            pace.backlog.sub(head.len() as u64);
            pace.pacer.charge(head.len() as u64).await;
        }
        Ok(())
    }

    async fn put(&mut self, mut bytes: &[u8]) -> Result<(), CloseReason> {
        let mut allowed = 0;
        while !bytes.is_empty() {
            let is_limited = self.is_limited();
            if allowed == 0 {
                allowed = self.allowed(bytes.len()).await?;
            }
            let written = match timeout(SILENT, self.stream.write(&bytes[..allowed])).await {
                Err(_) => return Err(CloseReason::Silent),
                Ok(Ok(0) | Err(_)) => return Err(CloseReason::Lost),
                Ok(Ok(written)) => written,
            };
            bytes = &bytes[written..];
            // What goes without a limit is asked for anew: one may have come.
            allowed = match is_limited {
                true => allowed - written,
                false => 0,
            };
            self.activity.note();
            if let Some(pace) = &self.pace {
                pace.backlog.sub(written as u64);
            }
        }
        Ok(())
    }

    fn is_limited(&self) -> bool {
        let pace = self.pace.as_ref().map(|pace| pace.pacer.pace());
        pace.is_some_and(|pace| pace.limit.is_some())
    }

    /// How many of `want` bytes may be written, once any may. What was written before is
    /// on its way meanwhile.
    async fn allowed(&mut self, want: usize) -> Result<usize, CloseReason> {
        let Some(pace) = &self.pace else {
            return Ok(want);
        };
        let allowed = pace.pacer.take_now(want);
        if allowed > 0 {
            return Ok(allowed);
        }
        in_time(self.stream.flush()).await?;
        let began = Instant::now();
        let allowed = pace.pacer.take(want).await;
        pace.progress.paced(began.elapsed());
        Ok(allowed)
    }
}

async fn in_time(done: impl Future<Output = io::Result<()>>) -> Result<(), CloseReason> {
    match timeout(SILENT, done).await {
        Err(_) => Err(CloseReason::Silent),
        Ok(Err(_)) => Err(CloseReason::Lost),
        Ok(Ok(())) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::pace::Pace;
    use super::super::share::Sharers;
    use super::*;
    use futures::FutureExt;
    use futures::channel::mpsc as pipe;
    use futures::stream::{self, StreamExt, TryStreamExt};
    use std::num::NonZeroU64;
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll};
    use tokio::sync::watch;

    #[tokio::test]
    async fn a_frame_that_trickles_in_is_not_waited_for_beyond_its_time() {
        let frame = ToTarget::BeginPass { pass: 1 }.encode(0).unwrap();
        let (bytes, trickle) = pipe::unbounded::<io::Result<Vec<u8>>>();
        let mut reader = FrameReader::new(trickle.into_async_read(), Activity::new());
        reader.frame = Duration::from_millis(200);
        // All but the last byte: the reader cannot know that it never comes.
        for byte in &frame[..frame.len() - 1] {
            bytes.unbounded_send(Ok(vec![*byte])).unwrap();
        }
        let deadline = Duration::from_secs(30);
        let ended = timeout(deadline, reader.next()).await;
        assert_eq!(ended, Ok(Err(CloseReason::Silent)));

        // In its time it is read, however finely it is cut.
        let cut = frame.iter().map(|byte| Ok::<_, io::Error>(vec![*byte]));
        let cut = stream::iter(cut.collect::<Vec<_>>()).boxed();
        let mut reader = FrameReader::new(cut.into_async_read(), Activity::new());
        assert_eq!(reader.next().await, Ok(0));
    }

    const MIB: u64 = 1 << 20;

    fn at(bytes_per_sec: u64) -> Pacer {
        let limit = NonZeroU64::new(bytes_per_sec);
        let polite = false;
        Pacer::new(watch::channel(Pace { limit, polite }).1)
    }

    fn parcel(bytes: usize) -> Parcel {
        Parcel {
            head: vec![7; bytes],
            payload: None,
        }
    }

    /// Takes all that is written to it.
    #[derive(Clone, Default)]
    struct Sent(Arc<Mutex<Vec<u8>>>);

    impl AsyncWrite for Sent {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn the_frame_that_opens_a_session_goes_ahead_of_what_others_send_and_counts() {
        let limit = 64 << 10;
        let pacer = at(limit);
        // What others sent takes a second.
        let began = Instant::now();
        pacer.charge(limit).await;
        let (outgoing, paced) = Outgoing::new(pacer.clone(), Arc::default());
        for _ in 0..2 {
            outgoing.send(parcel(32 << 10)).await.unwrap();
        }
        let sent = Sent::default();
        let mut writing = Box::pin(write_paced(sent.clone(), Activity::new(), paced));
        assert!((&mut writing).now_or_never().is_none());
        assert_eq!(sent.0.lock().unwrap().len(), 32 << 10);
        assert_eq!(outgoing.backlog.bytes(), 32 << 10);
        drop(writing);
        pacer.take(1).await;
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(1_450), "{took:?}");
    }

    #[tokio::test]
    async fn what_waits_of_a_session_is_bounded_by_its_share_and_by_the_limit() {
        let sharers = Sharers::of(8);
        let (outgoing, _paced) = Outgoing::new(Pacer::default(), Arc::default());
        let one = sharers.join();
        outgoing.backlog.add(8 * MIB);
        assert!(outgoing.has_room(Some(&one)));
        let other = sharers.join();
        assert!(!outgoing.has_room(Some(&one)));
        outgoing.backlog.sub(4 * MIB);
        assert!(outgoing.has_room(Some(&one)) && outgoing.has_room(Some(&other)));
        outgoing.backlog.add(1);
        assert!(!outgoing.has_room(Some(&one)));
        // Between passes it is alone.
        outgoing.backlog.add(28 * MIB - 1);
        assert!(outgoing.has_room(None));
        outgoing.backlog.add(1);
        assert!(!outgoing.has_room(None));

        // A sixteenth of a second's.
        let (outgoing, _paced) = Outgoing::new(at(16 * MIB), Arc::default());
        outgoing.backlog.add(MIB);
        assert!(outgoing.has_room(None));
        outgoing.backlog.add(1);
        assert!(!outgoing.has_room(None));
    }
}
