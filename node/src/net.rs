//! The network: moves bytes between peers whose keys are proven, and keeps
//! those that are not enrolled to the enrolment protocol. Not a reader of what
//! it moves, and not the judge of who is enrolled.
//!
//! One task owns the swarm. A [`Net`] is a handle to it; what happens comes out
//! as [`Event`]s. Every queue between them is bounded: what does not fit is
//! refused towards the peer, except who is connected, which is never lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

mod behaviour;
mod direct;
mod driver;
mod event;
mod frame;
mod gate;
mod gossip;
mod handshake;
mod links;
mod listen;
mod outbox;
mod peer;
mod records;
mod redial;
mod streams;
mod striped;
#[cfg(test)]
mod tests;
mod tls;

pub use event::{Event, Protocol, Refusal, Reply, TooLong};
pub use frame::FrameError;
pub use links::{Carrier, Links};
pub use peer::PeerKey;
pub use streams::{BlockStream, MAX_STREAMS_PER_PEER, StreamError};
pub use striped::connections_for;
pub use tls::has_fast_aes;

/// Largest enrolment request or answer, bytes.
pub const ENROL_LIMIT: usize = 64 << 10;
/// Largest sync request or answer, bytes.
pub const SYNC_LIMIT: usize = 4 << 20;
/// Largest gossip payload, bytes.
pub const GOSSIP_LIMIT: usize = 32 << 10;

/// Commands waiting for the swarm's task.
const COMMANDS: usize = 256;
/// Events in the channel to the node.
const EVENTS: usize = 64;
/// Longest that a shutdown waits for connections to be closed properly.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// What a network needs to start.
#[derive(Debug)]
pub struct Config {
    keypair: Keypair,
    listen: Vec<Multiaddr>,
    mdns: bool,
    mesh_tag: [u8; 32],
}

impl Config {
    /// `secret` is the node's ed25519 seed; it is wiped. Only the first four
    /// bytes of `mesh_tag` appear in protocol names, in the clear.
    pub fn new(
        secret: &mut [u8; 32],
        listen: Vec<Multiaddr>,
        mdns: bool,
        mesh_tag: [u8; 32],
    ) -> Self {
        Config {
            keypair: Keypair::ed25519_from_bytes(secret).expect("any 32 bytes are a seed"),
            listen,
            mdns,
            mesh_tag,
        }
    }
}

/// The network did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody else listens there.
    #[error(
        "address {address} is in use: stop the program that listens there, or choose \
         another port (port 0 takes any free one)"
    )]
    AddressInUse {
        /// The address as it was asked for.
        address: Multiaddr,
    },
    /// No transport can listen on it.
    #[error(
        "cannot listen on {address}: it must look like /ip4/0.0.0.0/tcp/4001 or \
         /ip4/0.0.0.0/udp/4001/quic-v1"
    )]
    BadAddress {
        /// The address as it was asked for.
        address: Multiaddr,
    },
    /// The system refused it.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address as it was asked for.
        address: Multiaddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system did not say in time whether we listen.
    #[error("listening on {address} timed out")]
    Timeout {
        /// The address as it was asked for.
        address: Multiaddr,
    },
    /// No certificate could be made from the node's key.
    #[error("cannot make the node's certificate: {0}")]
    Tls(#[source] libp2p::tls::certificate::GenError),
    /// Discovery on the local network does not start.
    #[error("cannot start mDNS discovery (it can be turned off): {0}")]
    Mdns(#[source] io::Error),
}

/// A request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request is longer than its protocol carries.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The peer is not in the enrolled set.
    #[error("peer {} is not enrolled", hex::encode(.0))]
    NotEnrolled(PeerKey),
    /// There is no connection; it is dialled if its address is known.
    #[error("peer {} is not connected", hex::encode(.0))]
    NotConnected(PeerKey),
    /// None of its addresses led to it.
    #[error("peer {} cannot be reached: {reason}", hex::encode(.peer))]
    Unreachable {
        /// Whom.
        peer: PeerKey,
        /// What became of each address.
        reason: String,
    },
    /// The peer does not speak this protocol with us: it belongs to another
    /// mesh, or does not know yet that we are enrolled.
    #[error("peer {} does not offer this protocol to us", hex::encode(.0))]
    Unsupported(PeerKey),
    /// The peer closed the stream without an answer.
    #[error("peer {} refused to answer", hex::encode(.0))]
    Refused(PeerKey),
    /// The answer is not a frame of this protocol.
    #[error("bad answer from peer {}: {error}", hex::encode(.peer))]
    Malformed {
        /// Whose.
        peer: PeerKey,
        /// What was wrong with it.
        error: FrameError,
    },
    /// No answer came in time. Whether the request was heard is not known.
    #[error("peer {} did not answer in time", hex::encode(.0))]
    Timeout(PeerKey),
    /// The connection broke. Whether the request was heard is not known.
    #[error("connection to peer {} broke: {reason}", hex::encode(.peer))]
    Broken {
        /// Whose.
        peer: PeerKey,
        /// What the transport said.
        reason: String,
    },
    /// Too many requests are waiting for answers.
    #[error("too many requests are waiting for answers")]
    Busy,
    /// The network was shut down.
    #[error("the network is shut down")]
    Stopped,
}

type Answer = Result<Vec<u8>, RequestError>;

#[derive(Debug)]
enum Command {
    Enrol {
        addresses: Vec<Multiaddr>,
        peer: PeerKey,
        request: Vec<u8>,
        answer: oneshot::Sender<Answer>,
    },
    Request {
        peer: PeerKey,
        request: Vec<u8>,
        answer: oneshot::Sender<Answer>,
    },
    Gossip {
        bytes: Arc<[u8]>,
        not_to: Option<PeerKey>,
    },
    OpenStream {
        peer: PeerKey,
        opened: oneshot::Sender<Result<BlockStream, StreamError>>,
    },
    Links {
        peer: PeerKey,
        answer: oneshot::Sender<Links>,
    },
    Shutdown {
        done: oneshot::Sender<()>,
    },
}

/// The address of a peer and its key, of a multiaddress that ends in its peer id.
pub fn split_peer(address: &Multiaddr) -> Option<(Multiaddr, PeerKey)> {
    let mut address = address.clone();
    match address.pop()? {
        libp2p::multiaddr::Protocol::P2p(id) if !address.is_empty() => {
            Some((address, peer::key_of(&id)?))
        }
        _ => None,
    }
}

/// The libp2p peer id of a key, as text.
pub fn peer_id_text(key: &PeerKey) -> String {
    peer::id_of(key).to_string()
}

/// A handle to the network. When the last one is dropped, the network stops.
#[derive(Debug, Clone)]
pub struct Net {
    commands: mpsc::Sender<Command>,
    allowed: watch::Sender<BTreeSet<PeerKey>>,
    addresses: watch::Sender<BTreeMap<PeerKey, Vec<Multiaddr>>>,
    partners: watch::Sender<BTreeSet<PeerKey>>,
}

/// Starts the network on the current tokio runtime. It listens on every
/// configured address, or fails. Nobody is enrolled at first.
pub async fn start(config: Config) -> Result<(Net, mpsc::Receiver<Event>), StartError> {
    let (commands, command_receiver) = mpsc::channel(COMMANDS);
    let (events, event_receiver) = mpsc::channel(EVENTS);
    let (allowed, allowed_receiver) = watch::channel(BTreeSet::new());
    let (addresses, address_receiver) = watch::channel(BTreeMap::new());
    let (partners, partner_receiver) = watch::channel(BTreeSet::new());
    let inputs = driver::Inputs {
        commands: command_receiver,
        allowed: allowed_receiver,
        addresses: address_receiver,
        partners: partner_receiver,
    };
    // The swarm is large, and every future that waits for this one would hold it.
    let mut driver = Box::new(driver::Driver::new(&config, inputs)?);
    driver.listen(&config.listen).await?;
    tokio::spawn(driver.run(events));
    let net = Net {
        commands,
        allowed,
        addresses,
        partners,
    };
    Ok((net, event_receiver))
}

impl Net {
    /// Replaces the enrolled set. Peers dropped from it are disconnected;
    /// peers new in it are disconnected too if they are connected already, as
    /// they have to dial again to be let in. An answer to an enrolment that is
    /// under way still gets through.
    pub fn allow(&self, peers: BTreeSet<PeerKey>) {
        self.allowed.send_replace(peers);
    }

    /// Replaces the known addresses. Of the enrolled peers among them some are
    /// dialled, and dialled again whenever they are lost: see `mesh::view`.
    pub fn set_addresses(&self, addresses: BTreeMap<PeerKey, Vec<Multiaddr>>) {
        self.addresses.send_if_modified(|known| {
            let changed = *known != addresses;
            *known = addresses;
            changed
        });
    }

    /// Replaces the set of peers that this node cannot do without: they are dialled
    /// whatever else is, if their addresses are known.
    pub fn set_partners(&self, partners: BTreeSet<PeerKey>) {
        self.partners.send_if_modified(|known| {
            let changed = *known != partners;
            *known = partners;
            changed
        });
    }

    /// Asks a peer to enrol us; neither needs to know the other yet. Dials it
    /// at these addresses, and at what mDNS found, unless it is connected.
    pub async fn enrol(
        &self,
        addresses: Vec<Multiaddr>,
        peer: PeerKey,
        request: Vec<u8>,
    ) -> Result<Vec<u8>, RequestError> {
        TooLong::check(request.len(), ENROL_LIMIT)?;
        let (answer, answered) = oneshot::channel();
        let command = Command::Enrol {
            addresses,
            peer,
            request,
            answer,
        };
        let longest = behaviour::CONNECT + behaviour::ENROL;
        self.ask(command, answered, peer, longest).await
    }

    /// Sends a sync request to an enrolled, connected peer.
    pub async fn request(&self, peer: PeerKey, request: Vec<u8>) -> Result<Vec<u8>, RequestError> {
        TooLong::check(request.len(), SYNC_LIMIT)?;
        let (answer, answered) = oneshot::channel();
        let command = Command::Request {
            peer,
            request,
            answer,
        };
        let longest = behaviour::CONNECT + behaviour::SYNC;
        self.ask(command, answered, peer, longest).await
    }

    async fn ask(
        &self,
        command: Command,
        answered: oneshot::Receiver<Answer>,
        peer: PeerKey,
        longest: Duration,
    ) -> Answer {
        let ask = async {
            let sent = self.commands.send(command).await;
            sent.map_err(|_| RequestError::Stopped)?;
            answered.await.map_err(|_| RequestError::Stopped)?
        };
        timeout(longest, ask)
            .await
            .unwrap_or(Err(RequestError::Timeout(peer)))
    }

    /// Tells the connected peers, but for one. There is no promise that any of them
    /// hears it.
    pub fn gossip(&self, bytes: Vec<u8>, not_to: Option<PeerKey>) -> Result<(), TooLong> {
        TooLong::check(bytes.len(), GOSSIP_LIMIT)?;
        let bytes = bytes.into();
        // Gossip is a hint: with a full queue, or no network, it is not given.
        let _ = self.commands.try_send(Command::Gossip { bytes, not_to });
        Ok(())
    }

    /// Opens a block stream to an enrolled, connected peer; it is open when the
    /// peer has accepted it. Takes twenty seconds at most.
    pub async fn open_stream(&self, peer: PeerKey) -> Result<BlockStream, StreamError> {
        let (opened, open) = oneshot::channel();
        let sent = self.commands.send(Command::OpenStream { peer, opened });
        sent.await.map_err(|_| StreamError::Stopped)?;
        open.await.map_err(|_| StreamError::Stopped)?
    }

    /// The ways to a peer; none where it is not connected, or the network was shut down.
    pub async fn links(&self, peer: PeerKey) -> Links {
        let (answer, answered) = oneshot::channel();
        // A network that was shut down answers nothing.
        let _ = self.commands.send(Command::Links { peer, answer }).await;
        answered.await.unwrap_or_default()
    }

    /// Closes every connection, frees the ports and stops.
    pub async fn shutdown(self) {
        let (done, stopped) = oneshot::channel();
        let stop = async {
            if self.commands.send(Command::Shutdown { done }).await.is_ok() {
                // The task may end without a word: then it has stopped, too.
                let _ = stopped.await;
            }
        };
        // The driver keeps to its own limit; this is for a runtime going down.
        let _ = timeout(2 * SHUTDOWN, stop).await;
    }
}
