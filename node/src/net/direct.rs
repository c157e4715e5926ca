//! Connections that carry nothing but a block stream, beside the one that carries everything
//! else: no multiplexer between the stream and TLS, no other task in its way, and windows
//! that the kernel sizes. They are secured as every other, on the same port.
//!
//! A dialled connection is negotiated as libp2p does it, first TLS, then what comes inside:
//! yamux for a connection of the swarm, or the name of this protocol. The listening end
//! hands the latter over and tells the swarm that the connection came to nothing.
//! See `docs/decisions/0020-block-streams-have-connections-of-their-own.md`.

use std::array::IntoIter;
use std::collections::{BTreeSet, HashMap};
use std::future::{Ready, ready};
use std::io;
use std::iter::{self, Flatten};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use futures::{AsyncRead, AsyncWrite, StreamExt};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::core::{ConnectedPoint, UpgradeInfo};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, StreamProtocol, tcp, yamux};
use multistream_select::{Version, dialer_select_proto};
use rustix::net::sockopt;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::peer::{PeerKey, id_of, key_of};
use super::streams::MAX_STREAMS_PER_PEER;
use super::striped::{Hello, MAX_CONNECTIONS, connections_for};
use super::tls::Tls;

/// Connections of block streams at once, both ways, of all peers: each takes a file
/// descriptor. Beyond it streams share the connection that there is.
const MAX_DIRECT: usize = 1024;
/// The same of one peer: all the streams that it may have, each over as many connections as
/// it may take.
const MAX_DIRECT_OF_PEER: usize = MAX_STREAMS_PER_PEER * MAX_CONNECTIONS as usize;

/// Addresses of one peer that are dialled for a stream.
const MAX_SOCKETS: usize = 4;
/// How long a dial may take, and each of the others that follow it: a firewall may swallow
/// every packet.
const DIAL: Duration = Duration::from_secs(3);
/// A peer that could not be dialled is not tried again for so long.
const AGAIN: Duration = Duration::from_secs(60);
/// A connection on which nothing moves is asked so often whether it is still there, and
/// gone after so many questions without an answer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVES: u32 = 4;
const USER_TIMEOUT_MILLIS: u32 = 60_000;

/// Bytes that wait in the kernel behind what is under way: some milliseconds at the speed
/// of one connection of several that fill 1 Gbit/s.
const UNSENT: u32 = 256 * 1024;

const YAMUX_NAME: &str = "/yamux/1.0.0";
const YAMUX: StreamProtocol = StreamProtocol::new(YAMUX_NAME);

/// What a stream is made of.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection whose peer wants one block stream of it.
pub(super) struct Handed {
    pub(super) peer: PeerKey,
    pub(super) io: Box<dyn Io>,
}

/// What the connections that others open may be for.
#[derive(Clone)]
pub(super) struct Welcome {
    pub(super) direct: StreamProtocol,
    pub(super) usable: Usable,
    pub(super) hand_over: mpsc::Sender<Handed>,
}

/// What a connection is for, once its peer is known.
#[derive(Clone)]
pub(super) struct Purpose {
    yamux: yamux::Config,
    /// Where it was opened by the peer.
    welcome: Option<(PeerId, Welcome)>,
}

impl Purpose {
    pub(super) fn new(
        yamux: yamux::Config,
        welcome: Welcome,
        (peer, end): (&PeerId, &ConnectedPoint),
    ) -> Self {
        let welcome = end.is_listener().then_some((*peer, welcome));
        Self { yamux, welcome }
    }
}

/// A connection that is none of the swarm's.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotMuxed {
    #[error("it carries a block stream")]
    HandedOver,
    #[error("too many block streams are being opened")]
    Full,
    #[error("its peer is no member that is connected here")]
    Stranger,
    #[error("its other end speaks no multiplexer")]
    Unsupported,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl UpgradeInfo for Purpose {
    type Info = StreamProtocol;
    type InfoIter = Flatten<IntoIter<Option<StreamProtocol>, 2>>;

    fn protocol_info(&self) -> Self::InfoIter {
        let direct = self.welcome.as_ref().map(|(_, welcome)| &welcome.direct);
        [Some(YAMUX), direct.cloned()].into_iter().flatten()
    }
}

impl<C> InboundConnectionUpgrade<C> for Purpose
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = yamux::Muxer<C>;
    type Error = NotMuxed;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, io: C, purpose: Self::Info) -> Self::Future {
        ready(match self.welcome {
            Some((peer, welcome)) if purpose == welcome.direct => {
                Err(welcome.take(&peer, Box::new(io)))
            }
            _ => {
                let muxed = self.yamux.upgrade_inbound(io, YAMUX_NAME).into_inner();
                muxed.map_err(NotMuxed::from)
            }
        })
    }
}

impl Welcome {
    /// Hands a connection over; why it is none of the swarm's.
    fn take(&self, peer: &PeerId, io: Box<dyn Io>) -> NotMuxed {
        // Who is nobody here fills no place in the queue either.
        let Some(peer) = key_of(peer).filter(|peer| self.usable.has(peer)) else {
            return NotMuxed::Stranger;
        };
        match self.hand_over.try_send(Handed { peer, io }) {
            Ok(()) => NotMuxed::HandedOver,
            Err(_) => NotMuxed::Full,
        }
    }
}

impl<C> OutboundConnectionUpgrade<C> for Purpose
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = yamux::Muxer<C>;
    type Error = NotMuxed;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, io: C, purpose: Self::Info) -> Self::Future {
        if purpose != YAMUX {
            return ready(Err(NotMuxed::Unsupported));
        }
        let muxed = self.yamux.upgrade_outbound(io, YAMUX_NAME).into_inner();
        ready(muxed.map_err(NotMuxed::from))
    }
}

/// What every TCP connection is set to: an end that is gone is noticed, and what remembers
/// connections on the way does not forget one that is quiet between two passes.
pub(super) fn keep_alive(stream: &TcpStream) {
    let settings = [
        sockopt::set_socket_keepalive(stream, true),
        sockopt::set_tcp_keepidle(stream, KEEP_ALIVE),
        sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE),
        sockopt::set_tcp_keepcnt(stream, KEEP_ALIVES),
        // Also for what was written and is not taken.
        sockopt::set_tcp_user_timeout(stream, USER_TIMEOUT_MILLIS),
    ];
    for error in settings.into_iter().filter_map(Result::err) {
        tracing::debug!("a connection is not kept alive: {error}");
    }
}

/// A connection that is one of several takes from this program little more than it can send
/// at once, so that what comes next goes over one that can: what waits in its kernel is
/// what the other end waits for. What is under way is not bounded by it.
pub(super) fn bound_unsent(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!("what waits in a connection is not bounded: {error}");
    }
}

type Turn = Arc<tokio::sync::Mutex<()>>;

/// The dialling end.
#[derive(Clone)]
pub(super) struct Dialler {
    tls: Tls,
    direct: StreamProtocol,
    /// Connections of each stream at least.
    least: u8,
    /// A peer is dialled for one stream at a time: it has few places for handshakes.
    turns: Arc<Mutex<HashMap<PeerKey, Turn>>>,
    /// Peers that could not be dialled, and until when they are not tried again.
    failed: Arc<Mutex<HashMap<PeerKey, Instant>>>,
}

impl Dialler {
    pub(super) fn new(tls: Tls, direct: StreamProtocol) -> Self {
        let (least, turns, failed) = (1, Arc::default(), Arc::default());
        Self {
            tls,
            direct,
            least,
            turns,
            failed,
        }
    }

    fn turn(&self, peer: PeerKey) -> Turn {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(peer).or_default().clone()
    }

    /// As over a way that is long.
    #[cfg(test)]
    pub(super) fn with_least(mut self, least: u8) -> Self {
        self.least = least;
        self
    }

    /// Connects to a peer at whichever of these addresses answers first, as often as the
    /// way there asks for, which is known sooner with the `round_trip` that was measured
    /// before: the connections of one stream. None where it cannot be dialled, which is
    /// told and remembered for a while.
    pub(super) async fn dial(
        &self,
        peer: PeerKey,
        addresses: impl IntoIterator<Item = Multiaddr>,
        round_trip: Option<Duration>,
    ) -> Option<Vec<Box<dyn Io>>> {
        let sockets = addresses.into_iter().filter_map(|a| socket_of(&a));
        let sockets: Vec<SocketAddr> = sockets.take(MAX_SOCKETS).collect();
        if sockets.is_empty() {
            return None;
        }
        let turn = self.turn(peer);
        let _turn = turn.lock().await;
        if self.has_failed(&peer) {
            return None;
        }
        match self.connections(peer, sockets, round_trip).await {
            Ok(connections) => Some(connections),
            Err(error) => {
                self.give_up(peer, &error);
                None
            }
        }
    }

    /// Has the next streams of a peer share its connection for a while.
    pub(super) fn give_up(&self, peer: PeerKey, why: &io::Error) {
        let text = hex::encode(peer);
        tracing::info!("blocks to or from {text} share its connection: {why}");
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        failed.retain(|_, until| *until > now);
        failed.insert(peer, now + AGAIN);
    }

    pub(super) fn has_failed(&self, peer: &PeerKey) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed
            .get(peer)
            .is_some_and(|until| *until > Instant::now())
    }

    /// All connections of a stream, each of which has said which one it is.
    async fn connections(
        &self,
        peer: PeerKey,
        sockets: Vec<SocketAddr>,
        round_trip: Option<Duration>,
    ) -> io::Result<Vec<Box<dyn Io>>> {
        let mut stream = [0; 16];
        getrandom::fill(&mut stream).map_err(|error| io::Error::other(error.to_string()))?;
        let all = match *sockets {
            [socket] => self.all_to(peer, socket, round_trip).await?,
            _ => self.all_to_any(peer, sockets).await?,
        };
        // At most as many as were asked for.
        let count = all.len() as u8;
        let named = (0..count).zip(all).map(|(index, io)| {
            let hello = Hello {
                stream,
                index,
                count,
            };
            in_time(self.name(io, hello))
        });
        try_join_all(named).await
    }

    /// As many connections to one place as the way there asks for, all at once: as many as
    /// it was found to ask for before, and the others once the first says that it asks for
    /// more. Fewer of them make a slower stream, not none.
    async fn all_to(
        &self,
        peer: PeerKey,
        socket: SocketAddr,
        round_trip: Option<Duration>,
    ) -> io::Result<Vec<Box<dyn Io>>> {
        let expected = self.needed(round_trip.unwrap_or_default());
        let connecting = (0..expected).map(|_| in_time(connect(socket)));
        let connecting = join_all(connecting).await;
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        let mut connected = vec![];
        for connect in connecting {
            match connect {
                Ok(one) => connected.push(one),
                Err(error) => failed = error,
            }
        }
        let Some(round_trip) = connected.iter().map(|one| one.round_trip).min() else {
            return Err(failed);
        };
        let needed = self.needed(round_trip);
        connected.truncate(usize::from(needed));
        let others = connected.len()..usize::from(needed);
        let others = others.map(|_| in_time(self.another(peer, socket)));
        let connected = connected.into_iter();
        let connected = connected.map(|one| in_time(self.secure(peer, one)));
        let (secured, others) = tokio::join!(join_all(connected), join_all(others));
        let mut all = vec![];
        for secured in secured.into_iter().chain(others) {
            match secured {
                Ok(one) => all.push(one),
                Err(error) => failed = error,
            }
        }
        match all.is_empty() {
            true => Err(failed),
            false => Ok(all),
        }
    }

    /// The same to whichever of several places is the peer's and answers first.
    async fn all_to_any(
        &self,
        peer: PeerKey,
        sockets: Vec<SocketAddr>,
    ) -> io::Result<Vec<Box<dyn Io>>> {
        let tries = sockets.into_iter().map(|socket| {
            in_time(async move {
                let connected = connect(socket).await?;
                let round_trip = connected.round_trip;
                let first = self.secure(peer, connected).await?;
                Ok((first, socket, round_trip))
            })
        });
        let mut tries: FuturesUnordered<_> = tries.collect();
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        while let Some(tried) = tries.next().await {
            let (first, socket, round_trip) = match tried {
                Ok(found) => found,
                Err(error) => {
                    failed = error;
                    continue;
                }
            };
            drop(tries);
            let others = 1..self.needed(round_trip);
            let others = others.map(|_| in_time(self.another(peer, socket)));
            let others = join_all(others).await.into_iter().filter_map(Result::ok);
            return Ok(iter::once(first).chain(others).collect());
        }
        Err(failed)
    }

    async fn another(&self, peer: PeerKey, socket: SocketAddr) -> io::Result<Box<dyn Io>> {
        let connected = connect(socket).await?;
        self.secure(peer, connected).await
    }

    fn needed(&self, round_trip: Duration) -> u8 {
        self.least.max(connections_for(round_trip))
    }

    /// Says what a connection is for, together with what is written first: whether the
    /// other end takes it is seen when it answers. Only those that are kept are more to it
    /// than a handshake.
    async fn name(&self, io: Box<dyn Io>, hello: Hello) -> io::Result<Box<dyn Io>> {
        let names = [self.direct.clone()];
        let named = dialer_select_proto(io, names, Version::V1Lazy).await;
        let (_, mut io) = named.map_err(io::Error::other)?;
        hello.write(&mut io).await?;
        Ok(Box::new(io))
    }

    /// The connection, once its other end is known to be the peer.
    async fn secure(&self, peer: PeerKey, connected: Connected) -> io::Result<Box<dyn Io>> {
        let Connected {
            stream,
            socket,
            round_trip,
        } = connected;
        if self.needed(round_trip) > 1 {
            bound_unsent(&stream);
        }
        let stream = tcp::tokio::TcpStream(stream);
        let names = self.tls.protocol_info();
        let negotiated = dialer_select_proto(stream, names, Version::V1Lazy).await;
        let (name, stream) = negotiated.map_err(io::Error::other)?;
        let secured = self.tls.clone().upgrade_outbound(stream, name).await;
        let (found, stream) = secured.map_err(io::Error::other)?;
        if found != id_of(&peer) {
            return Err(io::Error::other(format!("{socket} is another peer")));
        }
        Ok(Box::new(stream))
    }
}

/// A connection to whoever is there.
struct Connected {
    stream: TcpStream,
    socket: SocketAddr,
    /// How long TCP took to connect.
    round_trip: Duration,
}

async fn connect(socket: SocketAddr) -> io::Result<Connected> {
    let began = Instant::now();
    let stream = TcpStream::connect(socket).await?;
    let round_trip = began.elapsed();
    stream.set_nodelay(true)?;
    keep_alive(&stream);
    Ok(Connected {
        stream,
        socket,
        round_trip,
    })
}

async fn in_time<T>(dialling: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let dialled = timeout(DIAL, dialling).await;
    dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The host of an address, where it is named by its number.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// The socket of a TCP address; none of another.
pub(super) fn socket_of(address: &Multiaddr) -> Option<SocketAddr> {
    let ip = ip_of(address)?;
    let mut parts = address.iter().skip(1);
    match (parts.next()?, parts.next()) {
        (Protocol::Tcp(port), None | Some(Protocol::P2p(_))) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// Who may have block streams: members with a connection of the swarm's. It alone makes
/// streams of connections, and ends them with that.
#[derive(Clone)]
pub(super) struct Usable(Arc<Mutex<Peers>>);

struct Peers {
    usable: BTreeSet<PeerKey>,
    open: HashMap<PeerKey, Vec<Weak<Open>>>,
    places: Arc<Semaphore>,
}

/// One connection.
struct Open {
    /// None once it is cut, which closes the connection whoever holds the other end of it.
    io: Mutex<Option<Box<dyn Io>>>,
    reader: AtomicWaker,
    writer: AtomicWaker,
    _place: OwnedSemaphorePermit,
}

impl Default for Usable {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Peers {
            usable: BTreeSet::new(),
            open: HashMap::new(),
            places: Arc::new(Semaphore::new(MAX_DIRECT)),
        })))
    }
}

impl Usable {
    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the peer may have one.
    pub(super) fn has(&self, peer: &PeerKey) -> bool {
        self.peers().usable.contains(peer)
    }

    /// A stream, unless its peer may have none or there are too many of all.
    pub(super) fn open(&self, peer: PeerKey, io: Box<dyn Io>) -> Option<Direct> {
        let mut peers = self.peers();
        if !peers.usable.contains(&peer) {
            return None;
        }
        let of_peer = peers.open.entry(peer).or_default();
        of_peer.retain(|open| open.strong_count() > 0);
        if of_peer.len() >= MAX_DIRECT_OF_PEER {
            return None;
        }
        let place = peers.places.clone().try_acquire_owned().ok()?;
        let open = Arc::new(Open {
            io: Mutex::new(Some(io)),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            _place: place,
        });
        let of_peer = peers.open.entry(peer).or_default();
        of_peer.push(Arc::downgrade(&open));
        Some(Direct(open))
    }

    /// Replaces the set. What its peer may not have any more is closed.
    pub(super) fn set(&self, usable: BTreeSet<PeerKey>) {
        let mut peers = self.peers();
        peers.open.retain(|peer, open| {
            let keep = usable.contains(peer);
            let open = open.iter().filter(|_| !keep).filter_map(Weak::upgrade);
            open.for_each(|open| open.cut());
            keep
        });
        peers.usable = usable;
    }
}

/// A stream with a connection of its own.
pub(super) struct Direct(Arc<Open>);

impl Open {
    fn cut(&self) {
        let io = self
            .io
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(io);
        self.reader.wake();
        self.writer.wake();
    }

    fn with<T>(
        &self,
        waker: &AtomicWaker,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut Box<dyn Io>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        waker.register(cx.waker());
        let mut io = self.io.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *io {
            Some(io) => poll(Pin::new(io), cx),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        }
    }
}

impl AsyncRead for Direct {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let open = &self.0;
        open.with(&open.reader, cx, |io, cx| io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Direct {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let open = &self.0;
        open.with(&open.writer, cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let open = &self.0;
        open.with(&open.writer, cx, |io, cx| io.poll_flush(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let open = &self.0;
        open.with(&open.writer, cx, |io, cx| io.poll_close(cx))
    }
}
