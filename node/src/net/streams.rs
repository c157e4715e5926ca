//! Block streams: opening them, taking those of others, and the bound on how
//! many a peer may have. Not what is said on them.
//!
//! The acceptor greets every stream with one byte, because libp2p-stream drops
//! an inbound stream without notice when another one is already waiting, and
//! because the opener should know when it is refused.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::{Multiaddr, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams, OpenStreamError};
use tokio::select;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::direct::{Dialler, Handed, Io, Usable};
use super::event::Refusal;
use super::peer::{PeerKey, id_of, key_of};
use super::striped::{Gathering, Hello, joined};

/// Inbound block streams of one peer at once: one for each disk being migrated, as a
/// session stays open between its passes, and room for one to be taken over.
pub const MAX_STREAMS_PER_PEER: usize = 16;
/// Refusals being written at once; beyond it streams are just dropped.
const MAX_REFUSALS: usize = 32;
/// How long opening over a shared connection may take, with all its tries.
const OPEN: Duration = Duration::from_secs(10);
/// How long the greeting may take to be written, and to come on a connection of its own.
const GREET: Duration = Duration::from_secs(5);
/// A stream dropped without a greeting met a full queue: try again.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

const ACCEPTED: u8 = 1;
const REFUSED: u8 = 2;

/// A block stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer is not in the enrolled set.
    #[error("peer {} is not enrolled", hex::encode(.0))]
    NotEnrolled(PeerKey),
    /// There is no connection; it is dialled if its address is known.
    #[error("peer {} is not connected", hex::encode(.0))]
    NotConnected(PeerKey),
    /// The peer does not let us: it does not know yet that we are enrolled.
    #[error("peer {} does not offer block streams to us", hex::encode(.0))]
    Unsupported(PeerKey),
    /// The peer has as many streams from us as it takes.
    #[error("peer {} takes no more block streams from us", hex::encode(.0))]
    Refused(PeerKey),
    /// It took too long.
    #[error("opening a block stream to peer {} timed out", hex::encode(.0))]
    Timeout(PeerKey),
    /// The connection failed while the stream was being opened.
    #[error("opening a block stream to peer {} failed: {reason}", hex::encode(.peer))]
    Broken {
        /// To whom.
        peer: PeerKey,
        /// What the transport said.
        reason: String,
    },
    /// Too many streams are being opened at once.
    #[error("too many block streams are being opened")]
    Busy,
    /// The network was shut down.
    #[error("the network is shut down")]
    Stopped,
}

/// A stream of bytes with one peer, with backpressure.
pub struct BlockStream {
    stream: Box<dyn Io>,
    /// How many it has of its own; none where it shares the one that there is.
    connections: usize,
    /// Its greeting is yet to come.
    ungreeted: Option<Ungreeted>,
    /// Inbound streams hold one of their peer's places.
    _place: Option<Place>,
}

/// What is to be done where a stream is not greeted in time: the next ones share the
/// connection that there is.
struct Ungreeted {
    peer: PeerKey,
    dialler: Dialler,
    since: Instant,
    is_answered: bool,
}

impl Drop for Ungreeted {
    fn drop(&mut self) {
        // Whoever lets go of it sooner may have reasons of its own.
        if !self.is_answered && self.since.elapsed() >= GREET {
            self.dialler
                .give_up(self.peer, &io::ErrorKind::TimedOut.into());
        }
    }
}

impl BlockStream {
    /// Whether it has a connection of its own.
    #[cfg(test)]
    pub fn is_direct(&self) -> bool {
        self.connections > 0
    }

    /// How many connections of its own it has.
    pub fn connections(&self) -> usize {
        self.connections
    }
}

impl fmt::Debug for BlockStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockStream")
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for BlockStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(mut ungreeted) = self.ungreeted.take() {
            let mut greeting = [0];
            match Pin::new(&mut self.stream).poll_read(cx, &mut greeting) {
                Poll::Pending => {
                    self.ungreeted = Some(ungreeted);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(1)) => ungreeted.is_answered = true,
                ended => {
                    let why = io::ErrorKind::UnexpectedEof.into();
                    ungreeted.dialler.give_up(ungreeted.peer, &why);
                    return ended;
                }
            }
            if greeting != [ACCEPTED] {
                let refused = StreamError::Refused(ungreeted.peer);
                let refused = io::Error::new(io::ErrorKind::ConnectionRefused, refused);
                return Poll::Ready(Err(refused));
            }
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for BlockStream {
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
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// How many inbound streams each peer has.
#[derive(Debug, Clone, Default)]
struct Places(Arc<Mutex<HashMap<PeerKey, usize>>>);

#[derive(Debug)]
struct Place {
    places: Places,
    peer: PeerKey,
}

impl Places {
    fn take(&self, peer: PeerKey) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(peer).or_default();
        if *count >= MAX_STREAMS_PER_PEER {
            return None;
        }
        *count += 1;
        let places = self.clone();
        Some(Place { places, peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

/// What the accepting task hands on.
#[derive(Debug)]
pub(super) enum Arrival {
    Stream(PeerKey, BlockStream),
    Refused(PeerKey, Refusal),
}

/// Takes inbound streams as fast as they come, for as long as the swarm lives.
pub(super) async fn accept(
    mut incoming: IncomingStreams,
    mut handed: mpsc::Receiver<Handed>,
    usable: Usable,
    arrivals: mpsc::Sender<Arrival>,
) {
    let places = Places::default();
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let mut gathering = Gathering::default();
    // Each of them has one of the places for connections.
    let mut introduced = FuturesUnordered::new();
    loop {
        let (peer, stream, connections): (_, Box<dyn Io>, _) = select! {
            Some((peer, stream)) = incoming.next() => match key_of(&peer) {
                Some(peer) => (peer, Box::new(stream), 0),
                None => continue,
            },
            // Who gets no greeting shares the connection that there is, if there is one.
            Some(Handed { peer, io }) = handed.recv() => {
                let opened = usable.open(peer, io);
                introduced.extend(opened.map(|direct| introduce(peer, Box::new(direct))));
                continue;
            }
            Some(introduced) = introduced.next() => {
                let whole = introduced.and_then(|(peer, hello, direct)| {
                    let parts = gathering.take(peer, hello, direct, Instant::now())?;
                    let count = parts.len();
                    Some((peer, joined(parts), count))
                });
                match whole {
                    Some(whole) => whole,
                    None => continue,
                }
            }
            () = until(gathering.due()), if gathering.due().is_some() => {
                gathering.expire(Instant::now());
                continue;
            }
            else => return,
        };
        if let Some(place) = places.take(peer) {
            let stream = BlockStream {
                stream,
                connections,
                ungreeted: None,
                _place: Some(place),
            };
            tokio::spawn(welcome(peer, stream, arrivals.clone()));
            continue;
        }
        let limit = MAX_STREAMS_PER_PEER;
        let refusal = Arrival::Refused(peer, Refusal::TooManyStreams { limit });
        // Only a notice: a full queue has enough of them.
        let _ = arrivals.try_send(refusal);
        if let Ok(permit) = refusals.clone().try_acquire_owned() {
            tokio::spawn(async move {
                greet(stream, REFUSED).await;
                drop(permit);
            });
        }
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}

/// What a connection is of; none where it does not say so in time.
async fn introduce(
    peer: PeerKey,
    mut direct: Box<dyn Io>,
) -> Option<(PeerKey, Hello, Box<dyn Io>)> {
    let hello = timeout(GREET, Hello::read(&mut direct)).await;
    Some((peer, hello.ok()?.ok()?, direct))
}

async fn welcome(peer: PeerKey, stream: BlockStream, arrivals: mpsc::Sender<Arrival>) {
    if let Some(stream) = greet(stream, ACCEPTED).await {
        // A closed queue means the swarm is gone, and the stream with it.
        let _ = arrivals.send(Arrival::Stream(peer, stream)).await;
    }
}

async fn greet<S: AsyncWrite + Unpin>(mut stream: S, byte: u8) -> Option<S> {
    let write = async {
        stream.write_all(&[byte]).await?;
        stream.flush().await
    };
    match timeout(GREET, write).await {
        Ok(Ok(())) => Some(stream),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// How a stream to a connected peer may be opened.
pub(super) struct Opening {
    pub(super) peer: PeerKey,
    /// Where the peer may be reached, for a connection of its own.
    pub(super) addresses: Vec<Multiaddr>,
    /// The shortest that was measured to it.
    pub(super) round_trip: Option<Duration>,
    pub(super) dialler: Dialler,
    pub(super) usable: Usable,
    /// Otherwise over the connection that there is.
    pub(super) control: Control,
    pub(super) protocol: StreamProtocol,
}

impl Opening {
    /// Opens the stream and waits until it was accepted.
    pub(super) async fn open(self) -> Result<BlockStream, StreamError> {
        let peer = self.peer;
        if let Some(opened) = self.open_direct().await {
            return opened;
        }
        timeout(OPEN, self.open_shared())
            .await
            .unwrap_or(Err(StreamError::Timeout(peer)))
    }

    /// None where the peer cannot be dialled, or says nothing there. On a way that is long
    /// enough for several connections the greeting is not waited for, which is a round
    /// trip: whoever reads first finds it, or that the stream was refused.
    async fn open_direct(&self) -> Option<Result<BlockStream, StreamError>> {
        let peer = self.peer;
        let dialled = self
            .dialler
            .dial(peer, self.addresses.clone(), self.round_trip);
        let dialled = dialled.await?;
        // It may have left meanwhile.
        let connections = dialled.len();
        let opened = dialled.into_iter().map(|io| {
            let direct = self.usable.open(peer, io)?;
            Some(Box::new(direct) as Box<dyn Io>)
        });
        let mut stream = joined(opened.collect::<Option<_>>()?);
        if connections > 1 {
            return Some(Ok(BlockStream {
                stream,
                connections,
                ungreeted: Some(Ungreeted {
                    peer,
                    dialler: self.dialler.clone(),
                    since: Instant::now(),
                    is_answered: false,
                }),
                _place: None,
            }));
        }
        let mut greeting = [0];
        let greeted = timeout(GREET, stream.read_exact(&mut greeting)).await;
        greeted.ok()?.ok()?;
        Some(match greeting {
            [ACCEPTED] => Ok(BlockStream {
                stream,
                connections,
                ungreeted: None,
                _place: None,
            }),
            _ => Err(StreamError::Refused(peer)),
        })
    }

    async fn open_shared(mut self) -> Result<BlockStream, StreamError> {
        let (peer, id) = (self.peer, id_of(&self.peer));
        let mut reason = String::new();
        for _ in 0..TRIES {
            let opened = self.control.open_stream(id, self.protocol.clone()).await;
            let mut stream = match opened {
                Ok(stream) => stream,
                Err(OpenStreamError::UnsupportedProtocol(_)) => {
                    return Err(StreamError::Unsupported(peer));
                }
                Err(error) => {
                    let reason = error.to_string();
                    return Err(StreamError::Broken { peer, reason });
                }
            };
            let mut greeting = [0];
            match stream.read_exact(&mut greeting).await {
                Ok(()) if greeting == [ACCEPTED] => {
                    return Ok(BlockStream {
                        stream: Box::new(stream),
                        connections: 0,
                        ungreeted: None,
                        _place: None,
                    });
                }
                Ok(()) => return Err(StreamError::Refused(peer)),
                Err(error) => reason = error.to_string(),
            }
            // The peer's queue was full, and it does not say when it has room.
            tokio::time::sleep(PAUSE).await;
        }
        Err(StreamError::Broken { peer, reason })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::net::tls::Tls;
    use futures::io::Cursor;

    /// A stream to a peer that said this and no more.
    fn ungreeted(said: &[u8], since: Instant) -> (BlockStream, Dialler) {
        let keypair = libp2p::identity::Keypair::ed25519_from_bytes([1; 32]).unwrap();
        let direct = StreamProtocol::new("/direct");
        let dialler = Dialler::new(Tls::new(&keypair).unwrap(), direct);
        let stream = BlockStream {
            stream: Box::new(Cursor::new(said.to_vec())),
            connections: 2,
            ungreeted: Some(Ungreeted {
                peer: [2; 32],
                dialler: dialler.clone(),
                since,
                is_answered: false,
            }),
            _place: None,
        };
        (stream, dialler)
    }

    #[tokio::test]
    async fn a_greeting_is_found_by_whoever_reads_first() {
        let (mut stream, dialler) = ungreeted(&[ACCEPTED, 7, 8], Instant::now());
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        drop(stream);
        assert_eq!(got, [7, 8]);
        assert!(!dialler.has_failed(&[2; 32]));
    }

    #[tokio::test]
    async fn a_stream_that_is_refused_says_so_and_one_without_a_greeting_is_not_dialled_again() {
        let (mut stream, dialler) = ungreeted(&[REFUSED], Instant::now());
        let read = stream.read(&mut [0]).await;
        let kind = read.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::ConnectionRefused));
        drop(stream);
        assert!(!dialler.has_failed(&[2; 32]));
        let (mut stream, dialler) = ungreeted(&[], Instant::now());
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        assert!(dialler.has_failed(&[2; 32]));
        let long_ago = Instant::now().checked_sub(GREET).unwrap();
        for (since, is_late) in [(long_ago, true), (Instant::now(), false)] {
            let (stream, dialler) = ungreeted(&[ACCEPTED], since);
            drop(stream);
            assert_eq!(dialler.has_failed(&[2; 32]), is_late);
        }
    }

    #[test]
    fn a_peer_has_its_places_and_gets_them_back() {
        let places = Places::default();
        let mut taken: Vec<_> = (0..MAX_STREAMS_PER_PEER)
            .map(|_| places.take([1; 32]).unwrap())
            .collect();
        assert!(places.take([1; 32]).is_none());
        assert!(places.take([2; 32]).is_some());
        taken.pop();
        assert!(places.take([1; 32]).is_some());
    }
}
