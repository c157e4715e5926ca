//! A speed check: how fast bytes go to a peer and back, over a stream of the kind that
//! carries blocks. Both ends of it; the frames and the measuring are `blocks::speed`.
//!
//! Not here: who may check when (`engine`), and how the stream was opened (`net`).
//!
//! It is bounded in time and bytes, holds two buffers of 64 KiB, and touches no disk. It
//! gives way to work: it is not begun while blocks move at either end, and ended as soon as
//! they begin to, whichever end sees it.

#[cfg(test)]
mod tests;

use std::io;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blocks::frame::{FrameError, PREFIX_LEN};
use blocks::speed::{
    Flow, MAX_PINGS, MAX_SPEED_BYTES, MAX_SPEED_MILLIS, MAX_SPEED_PAYLOAD, Meter, SPEED_HELLO,
    SpeedFrame, SpeedRefusal, ToAnswerer, ToAsker, speed_prefix,
};
use futures::future::{Either, select};
use futures::io::BufReader;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Round trips that are measured, and how long at most.
const PINGS: u32 = 20;
const PINGING: Duration = Duration::from_secs(15);
/// How long a peer may take for its next byte.
const SILENCE: Duration = Duration::from_secs(10);
/// What a check may take beside the time in which data flows: opening, round trips, and
/// what is still in buffers on the way.
const BESIDE: Duration = Duration::from_secs(30);
/// Frames are short; so much is taken from the stream at once.
const READ_AHEAD: usize = 4 * MAX_SPEED_PAYLOAD;
/// How long the last frame of a check that is over may take to be taken.
const LINGER: Duration = Duration::from_secs(2);
/// How much of what such a peer had under way is taken: more than buffers hold of a check
/// that ends honestly.
const LINGER_BYTES: u64 = 1 << 20;

/// Why a check came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum SpeedError {
    /// The peer does not take part, or no more.
    #[error("the other end refused: {0}")]
    Refused(SpeedRefusal),
    /// Blocks began to move here.
    #[error("blocks began to move here, and a check would take from them")]
    MovingBlocks,
    /// The stream ended or broke.
    #[error("the connection broke: {0}")]
    Cut(#[from] io::Error),
    /// Nothing came, or it took longer than it may.
    #[error("the other end fell silent")]
    Silent,
    /// The peer sent what is no frame, or not its turn.
    #[error("the other end sent {0}")]
    Garbled(String),
}

impl SpeedError {
    /// Whether no honest peer does so, however bad the connection.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Garbled(_))
    }
}

impl From<FrameError> for SpeedError {
    fn from(error: FrameError) -> Self {
        Self::Garbled(format!("a malformed frame ({error})"))
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Round trips of small frames, in microseconds, the shortest first; at least one.
    pub round_trips: Vec<u64>,
    /// From here to the peer, as it was measured there.
    pub there: Flow,
    /// From the peer to here.
    pub back: Flow,
    /// How far the peer's wall clock is ahead of this one, in milliseconds, as exactly as
    /// half a round trip.
    pub clock_ahead_millis: i64,
}

/// What a stream that came in begins with.
pub enum Begins {
    /// A speed check: its first frame, or why that is none.
    Check(Result<ToAnswerer, SpeedError>),
    /// Something else. These bytes of it were read.
    Other([u8; PREFIX_LEN]),
}

/// Reads the first bytes of a stream that came in.
///
/// # Errors
/// When the stream ends or breaks before them.
pub async fn begins<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Begins> {
    let mut head = [0; PREFIX_LEN];
    stream.read_exact(&mut head).await?;
    if head != SPEED_HELLO {
        return Ok(Begins::Other(head));
    }
    Ok(Begins::Check(soon(next(stream)).await))
}

/// Whether blocks move at this end.
pub type Moving = watch::Receiver<bool>;

/// Checks the way to the peer at the other end of this stream. Data flows for `millis`,
/// half of it each way.
///
/// # Errors
/// When either end refuses, or the stream breaks. What was measured until then is lost.
pub async fn ask<S>(stream: S, millis: u32, moving: Moving) -> Result<Measured, SpeedError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let whole = Duration::from_millis(millis.into()) + BESIDE;
    let (reader, writer) = stream.split();
    let reader = BufReader::with_capacity(READ_AHEAD, reader);
    let asked = asked(reader, writer, millis, &moving);
    let asked = timeout(whole, unless_moving(&moving, asked));
    asked.await.unwrap_or(Err(SpeedError::Silent))
}

async fn asked<R, W>(
    mut reader: R,
    mut writer: W,
    millis: u32,
    moving: &Moving,
) -> Result<Measured, SpeedError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    writer.write_all(&SPEED_HELLO).await?;
    let asked_at = wall_millis();
    say(&mut writer, &ToAnswerer::Open { millis }).await?;
    let opened = soon(heard(&mut reader)).await?;
    let ToAsker::Opened { at_millis } = opened else {
        return Err(out_of_turn());
    };
    let halfway = asked_at.midpoint(wall_millis());
    let round_trips = round_trips(&mut reader, &mut writer).await?;
    let there = sent(&mut reader, &mut writer, millis, moving).await?;
    say(&mut writer, &ToAnswerer::AskData).await?;
    let mut incoming = Incoming::new(reader, millis);
    loop {
        match incoming.next::<ToAsker>().await? {
            ToAsker::Data => {}
            ToAsker::EndData => break,
            ToAsker::Refused { code } => return Err(SpeedError::Refused(code)),
            _ => return Err(out_of_turn()),
        }
    }
    Ok(Measured {
        round_trips,
        there,
        back: incoming.flow(),
        clock_ahead_millis: at_millis
            .cast_signed()
            .saturating_sub(halfway.cast_signed()),
    })
}

/// Sends data; what came of it, as the peer says.
async fn sent<R, W>(
    reader: &mut R,
    writer: &mut W,
    millis: u32,
    moving: &Moving,
) -> Result<Flow, SpeedError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (data, end) = (ToAnswerer::Data, ToAnswerer::EndData);
    let sending = pin!(pour(writer, &data, &end, Share::of(millis), moving));
    let hearing = pin!(heard(reader));
    // It says nothing before all was sent, unless it gives up.
    let told = match select(hearing, sending).await {
        Either::Left((told, _)) => told.and(Err(out_of_turn())),
        // What is on its way takes as long as it takes; the check as a whole is bounded.
        Either::Right((Ok(()), hearing)) => hearing.await,
        Either::Right((Err(error), _)) => Err(error),
    };
    match told? {
        ToAsker::Received(flow) => Ok(flow),
        _ => Err(out_of_turn()),
    }
}

/// The peer's next frame, where it has not refused.
async fn heard<R: AsyncRead + Unpin>(reader: &mut R) -> Result<ToAsker, SpeedError> {
    match next(reader).await? {
        ToAsker::Refused { code } => Err(SpeedError::Refused(code)),
        frame => Ok(frame),
    }
}

async fn round_trips<R, W>(reader: &mut R, writer: &mut W) -> Result<Vec<u64>, SpeedError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let begun = Instant::now();
    let mut trips = vec![];
    for number in 0..PINGS {
        let sent = Instant::now();
        say(writer, &ToAnswerer::Ping { number }).await?;
        if soon(heard(reader)).await? != (ToAsker::Pong { number }) {
            return Err(out_of_turn());
        }
        trips.push(micros_since(sent));
        if begun.elapsed() > PINGING {
            break;
        }
    }
    trips.sort_unstable();
    Ok(trips)
}

/// Takes part in a check that a peer asked for and that it may have.
///
/// # Errors
/// When either end gives up, or the peer does what it may not; it was told.
pub async fn answer<S>(stream: S, open: ToAnswerer, moving: Moving) -> Result<(), SpeedError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::with_capacity(READ_AHEAD, reader);
    let ended = match open {
        ToAnswerer::Open { millis } if (1..=MAX_SPEED_MILLIS).contains(&millis) => {
            let whole = Duration::from_millis(millis.into()) + BESIDE;
            let answering = answered(&mut reader, &mut writer, millis, &moving);
            let answering = timeout(whole, answering).await;
            answering.unwrap_or(Err(SpeedError::Silent))
        }
        _ => Err(out_of_turn()),
    };
    match &ended {
        Err(SpeedError::MovingBlocks) => tell(reader, writer, SpeedRefusal::MovingBlocks).await,
        Err(SpeedError::Garbled(_)) => tell(reader, writer, SpeedRefusal::BadFrame).await,
        _ => {}
    }
    ended
}

/// Tells the peer that it may not have its check, and closes the stream.
pub async fn refuse<S>(stream: S, code: SpeedRefusal)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (reader, writer) = stream.split();
    tell(reader, writer, code).await;
}

async fn tell<R, W>(reader: R, mut writer: W, code: SpeedRefusal)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let telling = async {
        say(&mut writer, &ToAsker::Refused { code }).await?;
        writer.close().await?;
        // What is on its way is taken, or the refusal would be lost with the connection.
        let mut scrap = vec![0; MAX_SPEED_PAYLOAD];
        let mut reader = reader.take(LINGER_BYTES);
        while reader.read(&mut scrap).await? > 0 {}
        Ok::<(), SpeedError>(())
    };
    // A peer that is gone, or goes on, has been told as well as can be.
    let _ = timeout(LINGER, telling).await;
}

async fn answered<R, W>(
    reader: &mut R,
    writer: &mut W,
    millis: u32,
    moving: &Moving,
) -> Result<(), SpeedError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let at_millis = wall_millis();
    say(writer, &ToAsker::Opened { at_millis }).await?;
    let mut incoming = Incoming::new(&mut *reader, millis);
    let mut pings = 0;
    loop {
        match unless_moving(moving, incoming.next::<ToAnswerer>()).await? {
            ToAnswerer::Ping { number } if pings < MAX_PINGS => {
                pings += 1;
                say(writer, &ToAsker::Pong { number }).await?;
            }
            ToAnswerer::Data => {}
            ToAnswerer::EndData => break,
            _ => return Err(out_of_turn()),
        }
    }
    let flow = incoming.flow();
    say(writer, &ToAsker::Received(flow)).await?;
    if soon(next::<ToAnswerer, _>(reader)).await? != ToAnswerer::AskData {
        return Err(out_of_turn());
    }
    let (data, end) = (ToAsker::Data, ToAsker::EndData);
    pour(writer, &data, &end, Share::of(millis), moving).await?;
    writer.close().await?;
    Ok(())
}

/// What flows one way at most.
#[derive(Debug, Clone, Copy)]
struct Share {
    millis: u32,
    bytes: u64,
}

impl Share {
    /// Half of the time of a check.
    fn of(millis: u32) -> Self {
        Self {
            millis: millis.div_ceil(2),
            bytes: MAX_SPEED_BYTES,
        }
    }
}

/// Runs it until blocks move at this end.
async fn unless_moving<T>(
    moving: &Moving,
    check: impl Future<Output = Result<T, SpeedError>>,
) -> Result<T, SpeedError> {
    let mut moving = moving.clone();
    tokio::select! {
        biased;
        Ok(_) = moving.wait_for(|moving| *moving) => Err(SpeedError::MovingBlocks),
        ended = check => ended,
    }
}

/// Sends its share of data, and that it is over. It stops between two frames, so
/// that the peer can be told why.
async fn pour<W, F>(
    writer: &mut W,
    data: &F,
    end: &F,
    share: Share,
    moving: &Moving,
) -> Result<(), SpeedError>
where
    W: AsyncWrite + Unpin,
    F: SpeedFrame,
{
    let mut frame = data.encode(MAX_SPEED_PAYLOAD)?;
    // What is sent is encrypted, so that nobody on the way could make less of it.
    frame.resize(frame.len() + MAX_SPEED_PAYLOAD, 0);
    let until = Instant::now() + Duration::from_millis(share.millis.into());
    let mut sent = 0;
    while Instant::now() < until && sent + MAX_SPEED_PAYLOAD as u64 <= share.bytes {
        if *moving.borrow() {
            return Err(SpeedError::MovingBlocks);
        }
        let write = async { Ok(writer.write_all(&frame).await?) };
        soon(write).await?;
        sent += MAX_SPEED_PAYLOAD as u64;
    }
    say(writer, end).await
}

async fn say<W, F>(writer: &mut W, frame: &F) -> Result<(), SpeedError>
where
    W: AsyncWrite + Unpin,
    F: SpeedFrame,
{
    let bytes = frame.encode(0)?;
    let write = async {
        writer.write_all(&bytes).await?;
        Ok(writer.flush().await?)
    };
    soon(write).await
}

/// Waits no longer than a peer may be silent.
async fn soon<T>(step: impl Future<Output = Result<T, SpeedError>>) -> Result<T, SpeedError> {
    timeout(SILENCE, step)
        .await
        .unwrap_or(Err(SpeedError::Silent))
}

/// Takes frames, and measures the data among them.
struct Incoming<R> {
    reader: R,
    meter: Meter,
    started: Instant,
    scrap: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    fn new(reader: R, millis: u32) -> Self {
        Self {
            reader,
            meter: Meter::new(Share::of(millis).millis),
            started: Instant::now(),
            scrap: vec![0; MAX_SPEED_PAYLOAD],
        }
    }

    /// The next frame. A payload is read, measured and dropped.
    async fn next<F: SpeedFrame>(&mut self) -> Result<F, SpeedError> {
        let (frame, mut left) = soon(next_header::<F, R>(&mut self.reader)).await?;
        while left > 0 {
            let read = self.reader.read(&mut self.scrap[..left]);
            let count = soon(async { Ok(read.await?) }).await?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            left -= count;
            self.meter.note(micros_since(self.started), count as u64);
        }
        match self.meter.bytes_in_all() > MAX_SPEED_BYTES {
            true => Err(SpeedError::Garbled(
                "more data than a check may have".into(),
            )),
            false => Ok(frame),
        }
    }

    fn flow(&self) -> Flow {
        self.meter.flow(micros_since(self.started))
    }
}

/// The next frame, which may have no payload.
async fn next<F, R>(reader: &mut R) -> Result<F, SpeedError>
where
    F: SpeedFrame,
    R: AsyncRead + Unpin,
{
    match next_header::<F, R>(reader).await? {
        (frame, 0) => Ok(frame),
        _ => Err(out_of_turn()),
    }
}

async fn next_header<F, R>(reader: &mut R) -> Result<(F, usize), SpeedError>
where
    F: SpeedFrame,
    R: AsyncRead + Unpin,
{
    let mut prefix = [0; PREFIX_LEN];
    reader.read_exact(&mut prefix).await?;
    let prefix = speed_prefix(prefix)?;
    let mut header = vec![0; prefix.header];
    reader.read_exact(&mut header).await?;
    Ok((F::decode(&header, prefix.payload)?, prefix.payload))
}

fn out_of_turn() -> SpeedError {
    SpeedError::Garbled("a frame out of turn".into())
}

fn micros_since(then: Instant) -> u64 {
    u64::try_from(then.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// This machine's wall clock, in milliseconds since the Unix epoch.
fn wall_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
