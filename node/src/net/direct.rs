//! Connections that carry one block stream each, beside the one that carries everything
//! else: no multiplexer between the stream and TLS, no other task in its way, and windows
//! that the kernel sizes. They are secured as every other, on the same port.
//!
//! A dialled connection is negotiated as libp2p does it, first TLS, then what comes inside:
//! yamux for a connection of the swarm, or the name of this protocol. The listening end
//! hands the latter over and tells the swarm that the connection came to nothing.
//! See `docs/decisions/0020-block-streams-have-connections-of-their-own.md`.

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use futures::io::BufReader;
use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use futures::{AsyncRead, AsyncWrite, StreamExt};
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, StreamProtocol, tcp, yamux};
use multistream_select::{Version, dialer_select_proto};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::peer::{PeerKey, id_of, key_of};
use super::tls::Tls;

/// TLS asks for 4 KiB at a time; so much is taken from the kernel at once.
pub(super) const READ_AHEAD: usize = 64 * 1024;

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

/// What a connection is for, once its peer is known.
#[derive(Clone)]
pub(super) struct Purpose {
    pub(super) peer: PeerId,
    pub(super) yamux: yamux::Config,
    pub(super) direct: StreamProtocol,
    pub(super) hand_over: mpsc::Sender<Handed>,
}

/// A connection that is none of the swarm's.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotMuxed {
    #[error("it carries a block stream")]
    HandedOver,
    #[error("too many block streams are being opened")]
    Full,
    #[error("its other end speaks no multiplexer")]
    Unsupported,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl UpgradeInfo for Purpose {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 2];

    fn protocol_info(&self) -> Self::InfoIter {
        [YAMUX, self.direct.clone()]
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
        if purpose == YAMUX {
            let muxed = self.yamux.upgrade_inbound(io, YAMUX_NAME).into_inner();
            return ready(muxed.map_err(NotMuxed::from));
        }
        let Some(peer) = key_of(&self.peer) else {
            return ready(Err(NotMuxed::Unsupported));
        };
        let io: Box<dyn Io> = Box::new(io);
        let handed = self.hand_over.try_send(Handed { peer, io });
        ready(Err(handed.map_or(NotMuxed::Full, |()| NotMuxed::HandedOver)))
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

/// The dialling end.
#[derive(Clone)]
pub(super) struct Dialler {
    pub(super) tls: Tls,
    pub(super) direct: StreamProtocol,
}

impl Dialler {
    /// Connects to a peer at whichever of these addresses answers first.
    pub(super) async fn dial(
        &self,
        peer: PeerKey,
        addresses: impl IntoIterator<Item = Multiaddr>,
    ) -> Option<Box<dyn Io>> {
        let sockets = addresses.into_iter().filter_map(|a| socket_of(&a));
        let mut tries: FuturesUnordered<_> =
            sockets.map(|socket| self.try_dial(peer, socket)).collect();
        while let Some(tried) = tries.next().await {
            match tried {
                Ok(io) => return Some(io),
                Err(error) => tracing::debug!("no connection for a block stream: {error}"),
            }
        }
        None
    }

    async fn try_dial(&self, peer: PeerKey, socket: SocketAddr) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect(socket).await?;
        stream.set_nodelay(true)?;
        let stream = BufReader::with_capacity(READ_AHEAD, tcp::tokio::TcpStream(stream));
        let names = self.tls.protocol_info();
        let negotiated = dialer_select_proto(stream, names, Version::V1).await;
        let (name, stream) = negotiated.map_err(io::Error::other)?;
        let secured = self.tls.clone().upgrade_outbound(stream, name).await;
        let (found, stream) = secured.map_err(io::Error::other)?;
        if found != id_of(&peer) {
            return Err(io::Error::other(format!("{socket} is another peer")));
        }
        let names = [self.direct.clone()];
        let negotiated = dialer_select_proto(stream, names, Version::V1).await;
        let (_, stream) = negotiated.map_err(io::Error::other)?;
        Ok(Box::new(stream))
    }
}

/// The socket of a TCP address; none of another.
pub(super) fn socket_of(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match (parts.next()?, parts.next()) {
        (Protocol::Tcp(port), None | Some(Protocol::P2p(_))) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// Ends the connections of peers that may have none any more: the swarm knows nothing of
/// them.
#[derive(Clone, Default)]
pub(super) struct Cuts(Arc<Mutex<HashMap<PeerKey, Vec<Weak<Cut>>>>>);

struct Cut {
    /// None once it is cut, which closes the connection whoever holds the other end of it.
    io: Mutex<Option<Box<dyn Io>>>,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Cuts {
    /// A connection that can be cut.
    pub(super) fn guard(&self, peer: PeerKey, io: Box<dyn Io>) -> Guarded {
        let cut = Arc::new(Cut {
            io: Mutex::new(Some(io)),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = all.entry(peer).or_default();
        of_peer.retain(|cut| cut.strong_count() > 0);
        of_peer.push(Arc::downgrade(&cut));
        Guarded(cut)
    }

    /// Cuts those of all peers but these.
    pub(super) fn keep_only(&self, keeps: impl Fn(&PeerKey) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|peer, cuts| {
            let keep = keeps(peer);
            let cuts = cuts.iter().filter(|_| !keep).filter_map(Weak::upgrade);
            cuts.for_each(|cut| cut.cut());
            keep
        });
    }
}

/// A connection until it is cut.
pub(super) struct Guarded(Arc<Cut>);

impl Cut {
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

impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let cut = &self.0;
        cut.with(&cut.reader, cx, |io, cx| io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let cut = &self.0;
        cut.with(&cut.writer, cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let cut = &self.0;
        cut.with(&cut.writer, cx, |io, cx| io.poll_flush(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let cut = &self.0;
        cut.with(&cut.writer, cx, |io, cx| io.poll_close(cx))
    }
}
