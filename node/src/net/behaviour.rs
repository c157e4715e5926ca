//! What the swarm is made of: transports, protocols, their names and their
//! limits. Not how they are driven.

use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::ConnectedPoint;
use libp2p::core::Transport;
use libp2p::core::upgrade::Version;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, StreamProtocol, Swarm, SwarmBuilder, mdns, ping, quic, tcp, yamux};

use super::direct::{self, Purpose, Welcome};
use super::frame::Frames;
use super::gate::{Gated, MAX_STRANGERS};
use super::redial::MAX_PEERS;
use super::tls::Tls;
use super::{Config, ENROL_LIMIT, SYNC_LIMIT, StartError};

/// An enrolment is answered within this, or it failed.
pub(super) const ENROL: Duration = Duration::from_secs(10);
/// A page of anti-entropy is answered within this, or it failed.
pub(super) const SYNC: Duration = Duration::from_secs(30);
/// Connecting, with encryption and muxer.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// Enrolments at once on one connection.
const ENROL_STREAMS: usize = 2;
/// Sync requests at once on one connection, both ways together.
pub(super) const SYNC_STREAMS: usize = 16;
/// Streams on one connection, of all protocols: those above, gossip and ping
/// both ways, block streams, and some in negotiation.
const STREAMS: usize = 64;
/// Inbound streams of one connection that have not said what they are for.
const NEGOTIATING: usize = 32;
/// Connections in their handshake.
pub(super) const PENDING_IN: u32 = 64;
const PENDING_OUT: u32 = 32;
/// Established connections: every peer may have dialled us while we dialled it.
const ESTABLISHED: u32 = 2 * MAX_PEERS as u32 + 2 * MAX_STRANGERS as u32;
/// 1 Gbit/s at 100 ms is 12.5 MB in flight; yamux grows its windows by itself.
const QUIC_STREAM_WINDOW: u32 = 16 << 20;
const QUIC_CONNECTION_WINDOW: u32 = 24 << 20;
/// A QUIC connection that hears nothing for so long is dead. Milliseconds.
const QUIC_SILENCE_MS: u32 = 30_000;
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections of enrolled peers stay however idle; strangers are closed by
/// the gate. libp2p cuts this to what its clock can hold.
const IDLE: Duration = Duration::from_secs(u64::MAX);

/// All of it. The limits and the gate come first: they may refuse a
/// connection, and nobody after them may have heard of it then.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) gated: Gated<Members>,
    pub(super) enrol: request_response::Behaviour<Frames>,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// What only enrolled peers reach.
#[derive(NetworkBehaviour)]
pub(super) struct Members {
    pub(super) sync: request_response::Behaviour<Frames>,
    /// Block streams and gossip.
    pub(super) streams: libp2p_stream::Behaviour,
    pub(super) ping: ping::Behaviour,
}

/// The names of one mesh's protocols: nodes of two meshes on one
/// network find nothing to talk about.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
    pub(super) blocks: StreamProtocol,
    /// Of connections that carry a block stream and nothing else.
    pub(super) direct: StreamProtocol,
    pub(super) gossip: StreamProtocol,
}

impl Names {
    pub(super) fn new(mesh_tag: &[u8; 32]) -> Self {
        let prefix = format!("/dunlin/{}", hex::encode(&mesh_tag[..4]));
        Names {
            blocks: protocol(&prefix, "blocks/1"),
            direct: protocol(&prefix, "blocks-direct/3"),
            gossip: protocol(&prefix, "gossip/2"),
            prefix,
        }
    }
}

fn protocol(prefix: &str, name: &str) -> StreamProtocol {
    StreamProtocol::try_from_owned(format!("{prefix}/{name}"))
        .expect("the name begins with a slash")
}

/// A swarm that listens nowhere yet. Connections that are for a block stream alone are
/// handed over.
pub(super) fn swarm(
    config: &Config,
    names: &Names,
    tls: Tls,
    welcome: Welcome,
) -> Result<Swarm<Behaviour>, StartError> {
    let behaviour = behaviour(config, names)?;
    let purpose =
        move |peer: &PeerId, end: &ConnectedPoint| Purpose::new(muxer(), welcome, (peer, end));
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .map(|stream, end| {
            direct::keep_alive(&stream.0);
            if end.is_listener() {
                // It may become one of several, which only the end that dials knows yet.
                direct::bound_unsent(&stream.0);
            }
            stream
        })
        .upgrade(Version::V1Lazy)
        .authenticate(tls)
        .multiplex_ext(purpose);
    let swarm = SwarmBuilder::with_existing_identity(config.keypair.clone())
        .with_tokio()
        .with_quic_config(|mut quic: quic::Config| {
            quic.max_stream_data = QUIC_STREAM_WINDOW;
            quic.max_connection_data = QUIC_CONNECTION_WINDOW;
            quic.max_concurrent_stream_limit = STREAMS as u32;
            quic.max_idle_timeout = QUIC_SILENCE_MS;
            quic
        })
        .with_other_transport(|_| tcp)
        .unwrap_or_else(|never| match never {})
        .with_behaviour(|_| behaviour)
        .unwrap_or_else(|never| match never {})
        .with_swarm_config(|swarm| {
            swarm
                .with_idle_connection_timeout(IDLE)
                .with_max_negotiating_inbound_streams(NEGOTIATING)
        })
        .with_connection_timeout(CONNECT)
        .build();
    Ok(swarm)
}

fn muxer() -> yamux::Config {
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS);
    yamux
}

fn behaviour(config: &Config, names: &Names) -> Result<Behaviour, StartError> {
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_IN))
        .with_max_pending_outgoing(Some(PENDING_OUT))
        .with_max_established(Some(ESTABLISHED));
    let me = config.keypair.public().to_peer_id();
    let mdns = match config.mdns {
        true => Some(
            mdns::tokio::Behaviour::new(mdns::Config::default(), me).map_err(StartError::Mdns)?,
        ),
        false => None,
    };
    let members = Members {
        sync: requests(names, "sync/1", SYNC_LIMIT, SYNC, SYNC_STREAMS),
        streams: libp2p_stream::Behaviour::new(),
        ping: ping::Behaviour::new(
            ping::Config::new()
                .with_interval(PING_INTERVAL)
                .with_timeout(PING_TIMEOUT),
        ),
    };
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        gated: Gated::new(members),
        enrol: requests(names, "enrol/1", ENROL_LIMIT, ENROL, ENROL_STREAMS),
        mdns: mdns.into(),
    })
}

fn requests(
    names: &Names,
    name: &str,
    limit: usize,
    timeout: Duration,
    streams: usize,
) -> request_response::Behaviour<Frames> {
    request_response::Behaviour::with_codec(
        Frames { limit },
        [(protocol(&names.prefix, name), ProtocolSupport::Full)],
        request_response::Config::default()
            .with_request_timeout(timeout)
            .with_max_concurrent_streams(streams),
    )
}
