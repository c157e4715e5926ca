//! The gate without a swarm: what the wrapped behaviour hears, and when
//! connections are closed. Not the handlers at work: that takes sockets.
#![allow(clippy::unwrap_used)]

use libp2p::core::ConnectedPoint;
use libp2p::core::upgrade::DeniedUpgrade;
use libp2p::swarm::behaviour::ListenFailure;
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{ConnectionHandlerEvent, ListenError, SubstreamProtocol};

use super::*;
use crate::net::peer::id_of;

/// Remembers the counts it was told, and says what it is given to say.
#[derive(Default)]
struct Recorder {
    handlers: usize,
    others: Vec<usize>,
    remaining: Vec<usize>,
    say: VecDeque<ToSwarm<(), ()>>,
}

/// A handler that takes a unit, so that notifying it can be seen.
struct Listener;

impl ConnectionHandler for Listener {
    type FromBehaviour = ();
    type ToBehaviour = ();
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn on_behaviour_event(&mut self, (): ()) {}

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), ()>> {
        Poll::Pending
    }

    fn on_connection_event(&mut self, _: ConnectionEvent<'_, DeniedUpgrade, DeniedUpgrade>) {}
}

impl NetworkBehaviour for Recorder {
    type ConnectionHandler = Listener;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Listener, ConnectionDenied> {
        self.handlers += 1;
        Ok(Listener)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Listener, ConnectionDenied> {
        self.handlers += 1;
        Ok(Listener)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => self.others.push(event.other_established),
            FromSwarm::ConnectionClosed(event) => self.remaining.push(event.remaining_established),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, (): ()) {}

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<(), ()>> {
        self.say.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// A gate, and how many connections its swarm has with each peer.
struct World {
    gate: Gated<Recorder>,
    connections: HashMap<PeerId, usize>,
    next: usize,
}

fn endpoint() -> ConnectedPoint {
    ConnectedPoint::Listener {
        local_addr: Multiaddr::empty(),
        send_back_addr: Multiaddr::empty(),
    }
}

impl World {
    fn new() -> World {
        World {
            gate: Gated::new(Recorder::default()),
            connections: HashMap::new(),
            next: 0,
        }
    }

    fn allow<const N: usize>(&mut self, now: Instant, keys: [u8; N]) {
        self.gate.allow(now, keys.map(|key| [key; 32]).into());
    }

    fn connect(&mut self, key: u8) -> Result<ConnectionId, ConnectionDenied> {
        let id = ConnectionId::new_unchecked(self.next);
        self.next += 1;
        let peer_id = id_of(&[key; 32]);
        let any = Multiaddr::empty();
        self.gate
            .handle_established_inbound_connection(id, peer_id, &any, &any)?;
        let connections = self.connections.entry(peer_id).or_default();
        let event = ConnectionEstablished {
            peer_id,
            connection_id: id,
            endpoint: &endpoint(),
            failed_addresses: &[],
            other_established: *connections,
        };
        *connections += 1;
        self.gate
            .on_swarm_event(FromSwarm::ConnectionEstablished(event));
        Ok(id)
    }

    fn disconnect(&mut self, key: u8, id: ConnectionId) {
        let peer_id = id_of(&[key; 32]);
        let connections = self.connections.get_mut(&peer_id).unwrap();
        *connections -= 1;
        let event = ConnectionClosed {
            peer_id,
            connection_id: id,
            endpoint: &endpoint(),
            cause: None,
            remaining_established: *connections,
        };
        self.gate.on_swarm_event(FromSwarm::ConnectionClosed(event));
    }

    /// Everything the gate has to say: connections to close, peers that are
    /// open or closed, and connections that are notified.
    fn drain(&mut self) -> Vec<String> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut said = Vec::new();
        while let Poll::Ready(action) = self.gate.poll(&mut cx) {
            said.push(match action {
                ToSwarm::CloseConnection {
                    connection: CloseConnection::One(id),
                    ..
                } => format!("close {id}"),
                ToSwarm::GenerateEvent(Event::Opened { peer, .. }) => format!("opened {}", peer[0]),
                ToSwarm::GenerateEvent(Event::Closed(key)) => format!("closed {}", key[0]),
                ToSwarm::NotifyHandler {
                    handler: NotifyHandler::One(id),
                    ..
                } => format!("notify {id}"),
                other => panic!("unexpected {other:?}"),
            });
        }
        said
    }
}

#[test]
fn the_behaviour_hears_of_members_as_if_strangers_were_not_there() {
    let now = Instant::now();
    let mut world = World::new();
    let strange = world.connect(1).unwrap();
    assert_eq!(world.gate.inner.handlers, 0);
    world.allow(now, [1]);
    assert_eq!(world.drain(), [format!("close {strange}")]);
    let first = world.connect(1).unwrap();
    let second = world.connect(1).unwrap();
    assert_eq!(world.drain(), ["opened 1"]);
    world.disconnect(1, second);
    world.disconnect(1, first);
    assert_eq!(world.gate.inner.others, [0, 1]);
    assert_eq!(world.gate.inner.remaining, [1, 0]);
    world.disconnect(1, strange);
    assert_eq!(world.gate.inner.remaining, [1, 0]);
    assert_eq!(world.drain(), ["closed 1"]);
    assert!(world.gate.links.is_empty());
}

#[test]
fn a_peer_dropped_from_the_set_counts_as_gone_at_once() {
    let now = Instant::now();
    let mut world = World::new();
    world.allow(now, [1]);
    let id = world.connect(1).unwrap();
    world.drain();
    world.allow(now, []);
    assert!(!world.gate.is_live(&[1; 32]));
    assert_eq!(world.drain(), [format!("close {id}"), "closed 1".into()]);
    world.disconnect(1, id);
    assert!(world.drain().is_empty());
}

#[test]
fn the_answer_to_an_enrolment_has_time_to_arrive() {
    let now = Instant::now();
    for answered_first in [true, false] {
        let mut world = World::new();
        let id = world.connect(1).unwrap();
        world.gate.serving(now, id);
        if answered_first {
            world.gate.served(now, id);
        }
        world.allow(now, [1]);
        world.gate.expire(now);
        assert!(world.drain().is_empty(), "closed under the answer");
        if !answered_first {
            world.gate.served(now, id);
        }
        world.gate.expire(now);
        assert!(world.drain().is_empty(), "closed behind the answer");
        let deadline = world.gate.deadline().unwrap();
        assert_eq!(deadline, now + SETTLE);
        world.gate.expire(deadline);
        assert_eq!(world.drain(), [format!("close {id}")]);
        assert_eq!(world.gate.deadline(), None);
    }
}

#[test]
fn a_stranger_is_closed_when_idle_and_in_the_end_however_busy() {
    let mut world = World::new();
    let idle = world.connect(1).unwrap();
    let busy = world.connect(2).unwrap();
    let mut now = Instant::now();
    let end = now + STRANGER_LONGEST;
    world.gate.expire(now + STRANGER / 2);
    assert!(world.drain().is_empty());
    world.gate.serving(now + STRANGER / 2, busy);
    world.gate.served(now + STRANGER / 2, busy);
    world.gate.expire(now + STRANGER);
    assert_eq!(world.drain(), [format!("close {idle}")]);
    while now < end {
        now += STRANGER / 2;
        world.gate.serving(now, busy);
    }
    world.gate.expire(end);
    assert_eq!(world.drain(), [format!("close {busy}")]);
}

#[test]
fn strangers_have_so_many_places_and_members_theirs() {
    let now = Instant::now();
    let mut world = World::new();
    world.allow(now, [200]);
    for key in 0..MAX_STRANGERS as u8 {
        world.connect(key).unwrap();
    }
    let denied = world.connect(100).unwrap_err();
    assert_eq!(
        denied.downcast::<TurnedAway>().unwrap(),
        TurnedAway::Strangers
    );
    for _ in 0..MAX_LINKS {
        world.connect(200).unwrap();
    }
    let denied = world.connect(200).unwrap_err();
    assert_eq!(denied.downcast::<TurnedAway>().unwrap(), TurnedAway::Links);
}

#[test]
fn a_message_for_any_connection_goes_to_one_that_can_take_it() {
    let now = Instant::now();
    let mut world = World::new();
    let strange = world.connect(1).unwrap();
    let notify = |handler| ToSwarm::NotifyHandler {
        peer_id: id_of(&[1; 32]),
        handler,
        event: (),
    };
    world.gate.inner.say = [
        notify(NotifyHandler::Any),
        notify(NotifyHandler::One(strange)),
    ]
    .into();
    assert!(world.drain().is_empty(), "a stranger was notified");
    world.allow(now, [1]);
    let member = world.connect(1).unwrap();
    world.drain();
    world.gate.inner.say = [
        notify(NotifyHandler::Any),
        notify(NotifyHandler::One(strange)),
        notify(NotifyHandler::One(member)),
    ]
    .into();
    let notified = format!("notify {member}");
    assert_eq!(world.drain(), [notified.clone(), notified]);
}

#[test]
fn a_peer_whose_id_holds_no_key_is_turned_away() {
    let mut gate = Gated::new(Recorder::default());
    let id = ConnectionId::new_unchecked(0);
    let any = Multiaddr::empty();
    let denied = gate.handle_established_inbound_connection(id, PeerId::random(), &any, &any);
    let denied = denied.err().unwrap().downcast::<TurnedAway>().unwrap();
    assert_eq!(denied, TurnedAway::NoKey);
}

#[test]
fn a_host_has_half_of_the_handshakes_and_a_network_counts_as_one_host() {
    let mut world = World::new();
    let mut shake = |id, from: String| {
        let id = ConnectionId::new_unchecked(id);
        let gate = &mut world.gate;
        let here = Multiaddr::empty();
        let taken = gate.handle_pending_inbound_connection(id, &here, &from.parse().unwrap());
        taken.is_ok()
    };
    let v4 = |at: usize| format!("/ip4/10.0.0.1/tcp/{at}");
    let v6 = |at: usize| format!("/ip6/fd00:0:0:1::{at}/tcp/1");
    for at in 1..=MAX_PENDING_OF_HOST {
        assert!(shake(at, v4(at)) && shake(1_000 + at, v6(at)));
    }
    assert!(!shake(500, v4(500)) && !shake(1_500, v6(500)));
    assert!(shake(501, "/ip4/10.0.0.2/tcp/1".into()));
    assert!(shake(502, "/ip6/fd00:0:0:2::1/tcp/1".into()));
    // One that comes through has left its handshake, and one that fails too.
    let any = Multiaddr::empty();
    let peer = id_of(&[1; 32]);
    let first = ConnectionId::new_unchecked(1);
    world
        .gate
        .handle_established_inbound_connection(first, peer, &any, &any)
        .unwrap();
    world
        .gate
        .on_swarm_event(FromSwarm::ListenFailure(ListenFailure {
            local_addr: &any,
            send_back_addr: &any,
            error: &ListenError::Aborted,
            connection_id: ConnectionId::new_unchecked(2),
            peer_id: None,
        }));
    let left = world.gate.pending.len();
    assert_eq!(left, 2 * MAX_PENDING_OF_HOST);
}
