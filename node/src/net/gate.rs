//! Keeps strangers away from a behaviour. A connection made by a peer that is
//! not enrolled gets a handler that speaks nothing, and the wrapped behaviour
//! never hears of it. Not the judge of who is enrolled: the set comes from
//! outside, as a whole.
//!
//! A handler is fixed when its connection is made, so a change of the set
//! closes connections: those of peers dropped from it at once, and those made
//! by peers before they were in it, so that they dial again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::{Endpoint, Multiaddr, transport::PortUse};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{PeerId, swarm};

use super::peer::{PeerKey, key_of};

#[cfg(test)]
mod tests;

/// Connections of strangers at once: each may buffer a muxer's windows.
pub(super) const MAX_STRANGERS: usize = 16;
/// A stranger's connection that asks for nothing is closed after this.
const STRANGER: Duration = Duration::from_secs(15);
/// A stranger's connection is closed after this, whatever it does.
const STRANGER_LONGEST: Duration = Duration::from_secs(60);
/// How long the answer to an enrolment has to reach a peer that it enrolled:
/// closing a QUIC connection throws away what was not yet acknowledged.
const SETTLE: Duration = Duration::from_secs(1);
/// Handshakes of one host at once, half of all: it cannot keep the others out. Nodes
/// behind one address that want more at once try again.
const MAX_PENDING_OF_HOST: usize = super::behaviour::PENDING_IN as usize / 2;
/// Both ends may dial at once, over TCP and QUIC.
pub(super) const MAX_LINKS: usize = 4;

/// Why a connection was turned away at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TurnedAway {
    #[error("its peer id is not an ed25519 key")]
    NoKey,
    #[error("{MAX_STRANGERS} peers that are not enrolled are connected already")]
    Strangers,
    #[error("it has {MAX_LINKS} connections already")]
    Links,
    #[error("{MAX_PENDING_OF_HOST} connections of its host are in their handshake already")]
    Handshakes,
}

/// What the gate tells the swarm's owner.
#[derive(Debug)]
pub(super) enum Event<E> {
    /// From the wrapped behaviour.
    Inner(E),
    /// An enrolled peer has its first usable connection.
    Opened {
        /// Who.
        peer: PeerKey,
        /// Whether it dialled.
        is_inbound: bool,
    },
    /// An enrolled peer has no usable connection left.
    Closed(PeerKey),
}

#[derive(Debug)]
struct Link {
    peer: PeerId,
    key: PeerKey,
    inbound: bool,
    /// Made with the full handler; never changes.
    admitted: bool,
    established: bool,
    closing: bool,
    born: Instant,
    /// For strangers: when the connection is closed.
    close_at: Instant,
    /// Enrolment requests received on it that are not answered yet.
    serving: u32,
    /// Whether an enrolment request was ever received on it.
    served: bool,
}

impl Link {
    fn is_live(&self) -> bool {
        self.admitted && self.established && !self.closing
    }

    fn extend(&mut self, until: Instant) {
        self.close_at = until.min(self.born + STRANGER_LONGEST);
    }
}

type Action<B> =
    ToSwarm<Event<<B as NetworkBehaviour>::ToSwarm>, Either<THandlerInEvent<B>, Never>>;
type Never = <dummy::ConnectionHandler as ConnectionHandler>::FromBehaviour;

/// A behaviour that only enrolled peers reach.
pub(super) struct Gated<B: NetworkBehaviour> {
    inner: B,
    enrolled: BTreeSet<PeerKey>,
    links: HashMap<ConnectionId, Link>,
    /// Inbound connections in their handshake, by where they come from.
    pending: HashMap<ConnectionId, Host>,
    queue: VecDeque<Action<B>>,
}

/// Where a connection comes from: an IPv4 address, or the network part of an IPv6 one,
/// within which a host has as many addresses as it likes.
type Host = u64;

fn host_of(address: &Multiaddr) -> Option<Host> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(u32::from(ip).into()),
        // No network begins with 32 zero bits, so that it is no IPv4 address.
        Protocol::Ip6(ip) => Some((u128::from(ip) >> 64) as u64),
        _ => None,
    }
}

impl<B: NetworkBehaviour> Gated<B> {
    pub(super) fn new(inner: B) -> Self {
        Gated {
            inner,
            enrolled: BTreeSet::new(),
            links: HashMap::new(),
            pending: HashMap::new(),
            queue: VecDeque::new(),
        }
    }

    pub(super) fn inner(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Every peer that may come in.
    pub(super) fn enrolled(&self) -> impl Iterator<Item = &PeerKey> {
        self.enrolled.iter()
    }

    pub(super) fn is_enrolled(&self, key: &PeerKey) -> bool {
        self.enrolled.contains(key)
    }

    /// Whether the peer is enrolled and has a connection to be used.
    pub(super) fn is_live(&self, key: &PeerKey) -> bool {
        self.links
            .values()
            .any(|link| link.key == *key && link.is_live())
    }

    /// The peers that are live.
    pub(super) fn live_keys(&self) -> BTreeSet<PeerKey> {
        let live = self.links.values().filter(|link| link.is_live());
        live.map(|link| link.key).collect()
    }

    /// How many peers are live.
    pub(super) fn live(&self) -> usize {
        self.live_keys().len()
    }

    /// Replaces the enrolled set.
    pub(super) fn allow(&mut self, now: Instant, enrolled: BTreeSet<PeerKey>) {
        self.enrolled = enrolled;
        let mut close = Vec::new();
        for (id, link) in &mut self.links {
            let enrolled = self.enrolled.contains(&link.key);
            if link.admitted && !enrolled {
                close.push(*id);
            } else if !link.admitted && enrolled && link.serving == 0 {
                if link.served {
                    link.extend(now + SETTLE);
                } else {
                    close.push(*id);
                }
            }
        }
        for id in close {
            self.close(id);
        }
    }

    /// An enrolment request came in on a connection.
    pub(super) fn serving(&mut self, now: Instant, id: ConnectionId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.serving += 1;
            link.served = true;
            link.extend(now + STRANGER);
        }
    }

    /// An enrolment request was answered, or came to nothing.
    pub(super) fn served(&mut self, now: Instant, id: ConnectionId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.serving = link.serving.saturating_sub(1);
            let pause = if self.enrolled.contains(&link.key) {
                SETTLE
            } else {
                STRANGER
            };
            link.extend(now + pause);
        }
    }

    /// We are about to ask this peer to enrol us: its connection is in use.
    pub(super) fn asking(&mut self, now: Instant, peer: &PeerId) {
        for link in self.links.values_mut().filter(|link| link.peer == *peer) {
            link.extend(now + STRANGER);
        }
    }

    /// When `expire` next has something to close.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let strangers = self.links.values().filter(|l| !l.admitted && !l.closing);
        strangers.map(|link| link.close_at).min()
    }

    /// Closes the connections of strangers whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let over = |link: &Link| !link.admitted && !link.closing && link.close_at <= now;
        let ids: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| over(link))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.close(id);
        }
    }

    /// Closes all connections of a peer, which stays enrolled.
    pub(super) fn part_from(&mut self, key: &PeerKey) {
        let of_peer = |(_, link): &(&ConnectionId, &Link)| link.key == *key;
        let links = self.links.iter().filter(of_peer);
        let ids: Vec<ConnectionId> = links.map(|(id, _)| *id).collect();
        for id in ids {
            self.close(id);
        }
    }

    /// Closes a connection. It counts as gone from now on: the end of a dead
    /// TCP connection can take many minutes to be noticed.
    pub(super) fn close(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let was_live = link.is_live();
        if std::mem::replace(&mut link.closing, true) {
            return;
        }
        let (peer_id, key) = (link.peer, link.key);
        self.queue.push_back(ToSwarm::CloseConnection {
            peer_id,
            connection: CloseConnection::One(id),
        });
        if was_live && !self.is_live(&key) {
            self.queue
                .push_back(ToSwarm::GenerateEvent(Event::Closed(key)));
        }
    }

    /// Takes note of a new connection; says whether it gets the full handler.
    fn admit(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        inbound: bool,
    ) -> Result<bool, ConnectionDenied> {
        let key = key_of(&peer).ok_or(ConnectionDenied::new(TurnedAway::NoKey))?;
        let of_peer = |link: &&Link| link.key == key && !link.closing;
        if self.links.values().filter(of_peer).count() >= MAX_LINKS {
            return Err(ConnectionDenied::new(TurnedAway::Links));
        }
        let admitted = self.enrolled.contains(&key);
        let strange = |link: &&Link| link.inbound && !link.admitted;
        let strangers = self.links.values().filter(strange).count();
        if !admitted && inbound && strangers >= MAX_STRANGERS {
            return Err(ConnectionDenied::new(TurnedAway::Strangers));
        }
        let born = Instant::now();
        let link = Link {
            peer,
            key,
            inbound,
            admitted,
            established: false,
            closing: false,
            born,
            close_at: born + STRANGER,
            serving: 0,
            served: false,
        };
        self.links.insert(id, link);
        Ok(admitted)
    }

    fn handler(
        &mut self,
        id: ConnectionId,
        admitted: bool,
        make: impl FnOnce(&mut B) -> Result<THandler<B>, ConnectionDenied>,
    ) -> Result<Either<THandler<B>, dummy::ConnectionHandler>, ConnectionDenied> {
        if !admitted {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        make(&mut self.inner).map(Either::Left).inspect_err(|_| {
            self.links.remove(&id);
        })
    }

    /// Connections of a peer that the wrapped behaviour knows of.
    fn admitted_links(&self, peer: &PeerId) -> usize {
        let known = |link: &&Link| link.peer == *peer && link.admitted && link.established;
        self.links.values().filter(known).count()
    }

    fn is_admitted(&self, id: &ConnectionId) -> bool {
        self.links.get(id).is_some_and(|link| link.admitted)
    }

    fn established(&mut self, event: ConnectionEstablished<'_>) {
        let other_established = self.admitted_links(&event.peer_id);
        let Some(link) = self.links.get_mut(&event.connection_id) else {
            return;
        };
        link.established = true;
        let (key, admitted, is_live) = (link.key, link.admitted, link.is_live());
        let is_inbound = link.inbound;
        if !admitted {
            return;
        }
        self.inner
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                other_established,
                ..event
            }));
        let live = |link: &&Link| link.key == key && link.is_live();
        if is_live && self.links.values().filter(live).count() == 1 {
            self.queue.push_back(ToSwarm::GenerateEvent(Event::Opened {
                peer: key,
                is_inbound,
            }));
        }
    }

    fn closed(&mut self, event: ConnectionClosed<'_>) {
        let Some(link) = self.links.remove(&event.connection_id) else {
            return;
        };
        if !link.admitted {
            return;
        }
        let remaining_established = self.admitted_links(&event.peer_id);
        self.inner
            .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                remaining_established,
                ..event
            }));
        if link.is_live() && !self.is_live(&link.key) {
            self.queue
                .push_back(ToSwarm::GenerateEvent(Event::Closed(link.key)));
        }
    }

    /// Lets an action of the wrapped behaviour out, or drops it when it is
    /// meant for a connection whose handler does not speak.
    fn let_out(&self, action: ToSwarm<B::ToSwarm, THandlerInEvent<B>>) -> Option<Action<B>> {
        match action {
            ToSwarm::NotifyHandler {
                peer_id,
                handler,
                event,
            } => {
                let connection = match handler {
                    NotifyHandler::One(id) => self.is_admitted(&id).then_some(id),
                    NotifyHandler::Any => {
                        let mut links = self.links.iter();
                        links
                            .find(|(_, link)| link.peer == peer_id && link.is_live())
                            .map(|(id, _)| *id)
                    }
                };
                connection.map(|id| ToSwarm::NotifyHandler {
                    peer_id,
                    handler: NotifyHandler::One(id),
                    event: Either::Left(event),
                })
            }
            other => Some(other.map_out(Event::Inner).map_in(Either::Left)),
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Gated<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = Event<B::ToSwarm>;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if let Some(host) = host_of(remote) {
            let of_host = self.pending.values().filter(|pending| **pending == host);
            if of_host.count() >= MAX_PENDING_OF_HOST {
                return Err(ConnectionDenied::new(TurnedAway::Handshakes));
            }
            self.pending.insert(id, host);
        }
        self.inner
            .handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending.remove(&id);
        let admitted = self.admit(id, peer, true)?;
        self.handler(id, admitted, |inner| {
            inner.handle_established_inbound_connection(id, peer, local, remote)
        })
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner
            .handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let admitted = self.admit(id, peer, false)?;
        self.handler(id, admitted, |inner| {
            inner.handle_established_outbound_connection(id, peer, address, role, port)
        })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => self.established(event),
            FromSwarm::ConnectionClosed(event) => self.closed(event),
            FromSwarm::AddressChange(change) if !self.is_admitted(&change.connection_id) => {}
            FromSwarm::DialFailure(failure) => {
                self.links.remove(&failure.connection_id);
                self.inner.on_swarm_event(event);
            }
            FromSwarm::ListenFailure(failure) => {
                self.pending.remove(&failure.connection_id);
                self.links.remove(&failure.connection_id);
                self.inner.on_swarm_event(event);
            }
            other => self.inner.on_swarm_event(other),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, id, event),
            Either::Right(never) => libp2p::core::util::unreachable(never),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<swarm::ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(action) = self.queue.pop_front() {
                return Poll::Ready(action);
            }
            let action = std::task::ready!(self.inner.poll(cx));
            if let Some(action) = self.let_out(action) {
                return Poll::Ready(action);
            }
        }
    }
}
