//! What the network tells the node, and the handles by which the node answers.
//! Not what it means: payloads are bytes here.

use libp2p::Multiaddr;
use tokio::sync::oneshot;

use super::frame::FrameError;
use super::peer::PeerKey;
use super::streams::BlockStream;

/// Something happened on the network.
#[derive(Debug)]
pub enum Event {
    /// We can be reached at this address from now on.
    Listening(Multiaddr),
    /// The first connection with an enrolled peer is up.
    Connected(PeerKey),
    /// The last connection with an enrolled peer is gone, or it is no longer
    /// enrolled.
    Disconnected(PeerKey),
    /// Anyone, enrolled or not, sent a request on the enrolment protocol.
    EnrolRequest {
        /// Who asks; proven by the handshake.
        peer: PeerKey,
        /// At most `ENROL_LIMIT` bytes.
        request: Vec<u8>,
        /// Where the answer goes.
        reply: Reply,
    },
    /// An enrolled peer sent a request on the sync protocol.
    SyncRequest {
        /// Who asks.
        peer: PeerKey,
        /// At most `SYNC_LIMIT` bytes.
        request: Vec<u8>,
        /// Where the answer goes.
        reply: Reply,
    },
    /// An enrolled peer told all its neighbours something.
    Gossip {
        /// Who said it; others may have made what it says.
        peer: PeerKey,
        /// At most `GOSSIP_LIMIT` bytes.
        bytes: Vec<u8>,
    },
    /// An enrolled peer opened a block stream to us.
    Stream {
        /// Who opened it.
        peer: PeerKey,
        /// Holds one of the peer's places until it is dropped.
        stream: BlockStream,
    },
    /// Something a peer sent was not taken.
    Refused {
        /// Who sent it.
        peer: PeerKey,
        /// What it was.
        what: Refusal,
    },
}

/// What was not taken from a peer, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A request that is not a frame of this protocol.
    #[error("bad {protocol} request: {error}")]
    Frame {
        /// Which protocol.
        protocol: Protocol,
        /// What was wrong with it.
        error: FrameError,
    },
    /// Gossip that is not a frame.
    #[error("bad gossip: {0}")]
    Gossip(FrameError),
    /// More block streams at once than one peer may have.
    #[error("more block streams than the {limit} a peer may have")]
    TooManyStreams {
        /// The limit.
        limit: usize,
    },
}

/// The two request protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Open to strangers.
    Enrol,
    /// Enrolled peers only.
    Sync,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Protocol::Enrol => "enrolment",
            Protocol::Sync => "sync",
        })
    }
}

/// A payload is longer than its protocol carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("payload of {len} bytes is over the limit of {limit}")]
pub struct TooLong {
    /// What was to be sent, bytes.
    pub len: usize,
    /// What can be sent, bytes.
    pub limit: usize,
}

impl TooLong {
    pub(super) fn check(len: usize, limit: usize) -> Result<(), TooLong> {
        if len > limit {
            return Err(TooLong { len, limit });
        }
        Ok(())
    }
}

/// Answers one request. Dropped unused, the peer learns that it was refused.
#[derive(Debug)]
pub struct Reply {
    pub(super) limit: usize,
    pub(super) answer: oneshot::Sender<Vec<u8>>,
}

impl Reply {
    /// Sends the answer. It is lost without notice if the peer is gone or the
    /// protocol's time is over.
    pub fn send(self, bytes: Vec<u8>) -> Result<(), TooLong> {
        TooLong::check(bytes.len(), self.limit)?;
        // A closed channel means the peer no longer waits.
        let _ = self.answer.send(bytes);
        Ok(())
    }
}
