//! How peers are connected: the addresses at the other ends of their connections.
//!
//! Not here: who may be connected (`gate`), and who is dialled (`redial`).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;

use super::peer::PeerKey;

/// The ways to a connected peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// Other ends of its connections, the oldest first.
    pub shared: Vec<Multiaddr>,
    /// Where it is dialled for a block stream with a connection of its own.
    pub own: Vec<Multiaddr>,
    /// The shortest time there and back that was measured while it has been connected.
    pub round_trip: Option<Duration>,
}

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// TCP.
    Tcp,
    /// QUIC, over UDP.
    Quic,
    /// Another node.
    Relay,
    /// Something else.
    Other,
}

impl Carrier {
    /// What the connection to this address is carried by.
    pub fn of(address: &Multiaddr) -> Self {
        let mut carrier = Self::Other;
        for part in address {
            match part {
                Protocol::P2pCircuit => return Self::Relay,
                Protocol::Tcp(_) => carrier = Self::Tcp,
                Protocol::Quic | Protocol::QuicV1 => carrier = Self::Quic,
                _ => {}
            }
        }
        carrier
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::Relay => "relay",
            Self::Other => "other",
        })
    }
}

/// An address without the peer at its end, who is known.
pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    let is_peer = |part: &Protocol<'_>| matches!(part, Protocol::P2p(_));
    match address.iter().last().filter(is_peer) {
        Some(_) => {
            let count = address.iter().count();
            address.iter().take(count - 1).collect()
        }
        None => address.clone(),
    }
}

/// Every connection that there is; as many as the swarm allows.
#[derive(Debug, Default)]
pub(super) struct Connections(HashMap<PeerKey, BTreeMap<ConnectionId, Multiaddr>>);

impl Connections {
    pub(super) fn opened(&mut self, peer: PeerKey, id: ConnectionId, address: Multiaddr) {
        self.0.entry(peer).or_default().insert(id, address);
    }

    pub(super) fn closed(&mut self, peer: &PeerKey, id: ConnectionId) {
        if let Some(of_peer) = self.0.get_mut(peer) {
            of_peer.remove(&id);
            if of_peer.is_empty() {
                self.0.remove(peer);
            }
        }
    }

    /// The other ends of a peer's connections.
    pub(super) fn of(&self, peer: &PeerKey) -> Vec<Multiaddr> {
        let of_peer = self.0.get(peer).into_iter();
        of_peer
            .flat_map(BTreeMap::values)
            .map(without_peer)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::peer::id_of;
    use super::*;

    #[test]
    fn what_carries_a_connection_is_told_by_its_address() {
        let of = |text: &str| Carrier::of(&text.parse().unwrap());
        assert_eq!(of("/ip4/192.0.2.1/tcp/7430"), Carrier::Tcp);
        assert_eq!(of("/ip6/::1/udp/7430/quic-v1"), Carrier::Quic);
        assert_eq!(of("/memory/7"), Carrier::Other);
        let relayed = "/ip4/192.0.2.1/tcp/1/p2p-circuit";
        assert_eq!(of(relayed), Carrier::Relay);
    }

    #[test]
    fn a_connection_that_is_closed_is_forgotten() {
        let mut connections = Connections::default();
        let (first, second) = ("/memory/1", "/memory/2");
        let ids = [1, 2].map(ConnectionId::new_unchecked);
        connections.opened([7; 32], ids[0], first.parse().unwrap());
        let named = format!("{second}/p2p/{}", id_of(&[7; 32]));
        connections.opened([7; 32], ids[1], named.parse().unwrap());
        assert_eq!(connections.of(&[7; 32]).len(), 2);
        connections.closed(&[7; 32], ids[0]);
        assert_eq!(connections.of(&[7; 32]), [second.parse().unwrap()]);
        connections.closed(&[7; 32], ids[1]);
        assert!(connections.0.is_empty());
    }
}
