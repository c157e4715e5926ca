//! The task that owns the swarm: takes one thing that happened, acts on it,
//! goes on. Not where limits and names are set, nor what becomes of requests (`requests`).

mod requests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use keys::PublicKey;
use libp2p::request_response::OutboundRequestId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, mdns, ping};
use mesh::view::{self, View};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};

use super::behaviour::{self, Behaviour, BehaviourEvent, MembersEvent, Names};
use super::direct::{self, Dialler, Usable, Welcome};
use super::event::Refusal;
use super::gossip::{self, Gossip, Heard};
use super::links::{self, Connections, Links};
use super::outbox::Outbox;
use super::peer::{PeerKey, id_of, key_of};
use super::redial::{MAX_ADDRESSES, Redial};
use super::streams::{self, Arrival, BlockStream, Opening, StreamError};
use super::tls::Tls;
use super::{Command, Config, Event, Protocol, SHUTDOWN, StartError, gate};
use requests::{Answered, Asked};

/// Block streams being opened by us.
const MAX_OPENING: usize = 32;
/// Gossip on its way to the node; who says more than that waits.
const HEARD: usize = 64;
/// Accepted streams on their way to the node.
const ARRIVALS: usize = 32;
/// Addresses named in an error.
const NAMED_ADDRESSES: usize = 3;

/// What the handles say.
pub(super) struct Inputs {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) allowed: watch::Receiver<BTreeSet<PeerKey>>,
    pub(super) addresses: watch::Receiver<BTreeMap<PeerKey, Vec<Multiaddr>>>,
    pub(super) partners: watch::Receiver<BTreeSet<PeerKey>>,
}

/// The swarm and everything that waits for it.
pub(super) struct Driver {
    pub(super) swarm: Swarm<Behaviour>,
    me: PeerKey,
    names: Names,
    inputs: Inputs,
    started: Instant,
    view: View,
    /// When the view is to be told that time has passed.
    view_due: Option<Instant>,
    redial: Redial,
    asked: HashMap<(Protocol, OutboundRequestId), Asked>,
    replies: FuturesUnordered<BoxFuture<'static, Answered>>,
    outbox: Outbox,
    gossip: Gossip,
    heard: mpsc::Receiver<Heard>,
    control: libp2p_stream::Control,
    dialler: Dialler,
    usable: Usable,
    /// Where a peer was last dialled with success.
    reached: HashMap<PeerKey, Multiaddr>,
    /// The host at the other end of its last connection.
    remote: HashMap<PeerKey, IpAddr>,
    /// The shortest that a ping took there and back, while it is connected.
    round_trips: HashMap<PeerKey, Duration>,
    connections: Connections,
    arrivals: mpsc::Receiver<Arrival>,
    opening: Arc<Semaphore>,
}

impl Driver {
    pub(super) fn new(config: &Config, inputs: Inputs) -> Result<Self, StartError> {
        let names = Names::new(&config.mesh_tag);
        let tls = Tls::new(&config.keypair).map_err(StartError::Tls)?;
        let (hand_over, handed) = mpsc::channel(ARRIVALS);
        let usable = Usable::default();
        let welcome = Welcome {
            direct: names.direct.clone(),
            usable: usable.clone(),
            hand_over,
        };
        let mut swarm = behaviour::swarm(config, &names, tls.clone(), welcome)?;
        let dialler = Dialler::new(tls, names.direct.clone());
        let me = key_of(swarm.local_peer_id()).expect("our own key is an ed25519 key");
        let mut control = swarm.behaviour_mut().gated.inner().streams.new_control();
        let incoming = control
            .accept(names.blocks.clone())
            .expect("nobody else accepts streams of this new swarm");
        let (arrival_sender, arrivals) = mpsc::channel(ARRIVALS);
        let of_ours = usable.clone();
        tokio::spawn(streams::accept(incoming, handed, of_ours, arrival_sender));
        let incoming = control
            .accept(names.gossip.clone())
            .expect("nobody else accepts streams of this new swarm");
        let (heard_sender, heard) = mpsc::channel(HEARD);
        tokio::spawn(gossip::listen(incoming, heard_sender));
        let gossip = Gossip::new(control.clone(), names.gossip.clone());
        let seed = me
            .iter()
            .fold(0u64, |seed, byte| seed.rotate_left(8) ^ u64::from(*byte));
        Ok(Driver {
            swarm,
            me,
            names,
            inputs,
            started: Instant::now(),
            view: View::new(PublicKey(me), random().unwrap_or(seed)),
            view_due: None,
            redial: Redial::new(seed),
            asked: HashMap::new(),
            replies: FuturesUnordered::new(),
            outbox: Outbox::default(),
            gossip,
            heard,
            control,
            dialler,
            usable,
            reached: HashMap::new(),
            remote: HashMap::new(),
            round_trips: HashMap::new(),
            connections: Connections::default(),
            arrivals,
            opening: Arc::new(Semaphore::new(MAX_OPENING)),
        })
    }

    /// Runs until the handles or the receiver of events are gone, or until it
    /// is told to stop.
    pub(super) async fn run(mut self, events: mpsc::Sender<Event>) {
        loop {
            self.take_inputs();
            let deadline = self.keep_time();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                permit = events.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else { return };
                    if let Some(event) = self.outbox.pop() {
                        permit.send(event);
                    }
                }
                command = self.inputs.commands.recv() => match command {
                    Some(Command::Shutdown { done }) => return self.shut_down(done).await,
                    Some(command) => {
                        // The set it was given under counts, not an older one.
                        self.take_inputs();
                        self.on_command(command);
                    }
                    None => return,
                },
                Some(arrival) = self.arrivals.recv() => self.on_arrival(arrival),
                // Gossip waits while the node has enough to take.
                Some(heard) = self.heard.recv(), if self.outbox.takes_gossip() => {
                    self.on_heard(heard);
                }
                Some(answered) = self.replies.next(), if !self.replies.is_empty() => {
                    self.on_answered(answered);
                }
                Ok(()) = self.inputs.allowed.changed() => self.allowed_changed(),
                Ok(()) = self.inputs.addresses.changed() => self.want(),
                Ok(()) = self.inputs.partners.changed() => self.want(),
                () = sleep_until(deadline.unwrap_or_else(Instant::now).into()),
                    if deadline.is_some() => {}
            }
        }
    }

    /// Applies changed sets at once, whatever else is waiting.
    fn take_inputs(&mut self) {
        if self.inputs.allowed.has_changed().unwrap_or(false) {
            self.allowed_changed();
        }
        if self.inputs.addresses.has_changed().unwrap_or(false)
            || self.inputs.partners.has_changed().unwrap_or(false)
        {
            self.want();
        }
    }

    fn allowed_changed(&mut self) {
        let allowed = self.inputs.allowed.borrow_and_update().clone();
        self.swarm
            .behaviour_mut()
            .gated
            .allow(Instant::now(), allowed);
        self.live_changed();
        self.want();
    }

    /// Block streams go with what is live.
    fn live_changed(&mut self) {
        let live = self.swarm.behaviour().gated.live_keys();
        self.reached.retain(|peer, _| live.contains(peer));
        self.remote.retain(|peer, _| live.contains(peer));
        self.round_trips.retain(|peer, _| live.contains(peer));
        self.usable.set(live);
    }

    /// Tells the view who there is, and dials whom it wants.
    fn want(&mut self) {
        let partners = self.inputs.partners.borrow_and_update().clone();
        let partners = partners.into_iter().map(PublicKey).collect();
        self.step_view(view::Input::Partners(partners));
        // Before they are read: what changes from here on is looked at again.
        self.inputs.addresses.mark_unchanged();
        let known = self.known_addresses();
        let gated = &self.swarm.behaviour().gated;
        let others = gated.enrolled().filter(|key| **key != self.me);
        let members = others.map(|key| (PublicKey(*key), known.contains_key(key)));
        let members = members.collect();
        self.step_view(view::Input::Members(members));
        self.dial_wanted();
    }

    /// Where peers can be dialled: as we were told, and as mDNS found.
    fn known_addresses(&self) -> BTreeMap<PeerKey, Vec<Multiaddr>> {
        let told = self.inputs.addresses.borrow().clone();
        let behaviour = self.swarm.behaviour();
        let found = behaviour.mdns.as_ref().into_iter();
        let found = found.flat_map(|mdns| mdns.discovered_nodes().filter_map(key_of));
        // mDNS itself adds the addresses it found to every dial.
        let mut known: BTreeMap<_, _> = found.map(|key| (key, Vec::new())).collect();
        known.extend(told);
        known
    }

    fn dial_wanted(&mut self) {
        let mut wanted = self.known_addresses();
        let view = self.view.wanted();
        wanted.retain(|key, _| view.contains(&PublicKey(*key)));
        let gated = &self.swarm.behaviour().gated;
        self.redial
            .want(Instant::now(), wanted, |key| gated.is_live(key));
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn step_view(&mut self, input: view::Input) {
        let mut out = Vec::new();
        self.view.step(self.millis(), input, &mut out);
        for output in out {
            match output {
                view::Output::Want(_) => self.dial_wanted(),
                view::Output::Close(peer) => {
                    self.swarm.behaviour_mut().gated.part_from(&peer.0);
                }
            }
        }
    }

    /// Does what is due; says when to look again.
    fn keep_time(&mut self) -> Option<Instant> {
        let now = Instant::now();
        self.swarm.behaviour_mut().gated.expire(now);
        if self.view_due.is_some_and(|due| due <= now) {
            self.step_view(view::Input::Tick);
        }
        let live = self.swarm.behaviour().gated.live();
        for (key, addresses) in self.redial.due(now, live) {
            if self.dial(&id_of(&key), addresses).is_err() {
                self.dial_failed(now, &key);
            }
        }
        let gate = self.swarm.behaviour().gated.deadline();
        let redial = self.redial.deadline(live);
        let millis = self.millis();
        let view = self.view.deadline_millis(millis);
        let view = view.map(|at| self.started + Duration::from_millis(at));
        self.view_due = view;
        gate.into_iter().chain(redial).chain(view).min()
    }

    fn dial_failed(&mut self, now: Instant, key: &PeerKey) {
        self.redial.failed(now, key);
        self.step_view(view::Input::DialFailed(PublicKey(*key)));
    }

    fn dial(&mut self, peer: &PeerId, mut addresses: Vec<Multiaddr>) -> Result<(), DialError> {
        addresses.truncate(MAX_ADDRESSES);
        // A port of its own for each dial: with a shared one, two nodes that
        // dial each other at the same moment would open one connection in
        // which both are the client.
        let dial = DialOpts::peer_id(*peer)
            .condition(PeerCondition::NotDialing)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .allocate_new_port()
            .build();
        self.swarm.dial(dial)
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Enrol {
                addresses,
                peer,
                request,
                answer,
            } => self.enrol(addresses, peer, request, answer),
            Command::Request {
                peer,
                request,
                answer,
            } => self.request(peer, request, answer),
            Command::Gossip { bytes, not_to } => self.gossip.say(&bytes, not_to),
            Command::OpenStream { peer, opened } => self.open_stream(peer, opened),
            Command::Links { peer, answer } => {
                // Whoever asked may have gone away.
                let _ = answer.send(self.links(&peer));
            }
            Command::Shutdown { .. } => {}
        }
    }

    fn open_stream(
        &mut self,
        peer: PeerKey,
        opened: oneshot::Sender<Result<BlockStream, StreamError>>,
    ) {
        let gated = &self.swarm.behaviour().gated;
        let ready = if !gated.is_enrolled(&peer) {
            Err(StreamError::NotEnrolled(peer))
        } else if !gated.is_live(&peer) {
            Err(StreamError::NotConnected(peer))
        } else {
            let permit = self.opening.clone().try_acquire_owned();
            permit.map_err(|_| StreamError::Busy)
        };
        match ready {
            Ok(permit) => {
                let opening = Opening {
                    peer,
                    addresses: self.tcp_addresses(&peer),
                    round_trip: self.round_trips.get(&peer).copied(),
                    dialler: self.dialler.clone(),
                    usable: self.usable.clone(),
                    control: self.control.clone(),
                    protocol: self.names.blocks.clone(),
                };
                tokio::spawn(async move {
                    // Nobody waiting any more: the stream is dropped, and reset.
                    let _ = opened.send(opening.open().await);
                    drop(permit);
                });
            }
            Err(error) => {
                let _ = opened.send(Err(error));
            }
        }
    }

    /// Where a peer may be dialled for a block stream: there where it was reached, else
    /// where it says that it listens, on the host that its connection comes from.
    fn tcp_addresses(&self, peer: &PeerKey) -> Vec<Multiaddr> {
        let reached = self.reached.get(peer);
        if let Some(address) = reached.filter(|address| direct::socket_of(address).is_some()) {
            return vec![address.clone()];
        }
        let told = self.known_addresses().remove(peer).unwrap_or_default();
        let remote = self.remote.get(peer);
        let is_there = |address: &Multiaddr| {
            let socket = direct::socket_of(address);
            socket.is_some_and(|socket| Some(&socket.ip()) == remote)
        };
        told.into_iter().filter(is_there).collect()
    }

    fn links(&self, peer: &PeerKey) -> Links {
        if !self.swarm.behaviour().gated.is_live(peer) {
            return Links::default();
        }
        let own = self.tcp_addresses(peer);
        Links {
            shared: self.connections.of(peer),
            own: own.iter().map(links::without_peer).collect(),
            round_trip: self.round_trips.get(peer).copied(),
        }
    }

    fn on_arrival(&mut self, arrival: Arrival) {
        let gated = &self.swarm.behaviour().gated;
        match arrival {
            Arrival::Stream(peer, stream) if gated.is_enrolled(&peer) => {
                self.outbox.push(Event::Stream { peer, stream });
            }
            Arrival::Stream(..) => {}
            Arrival::Refused(peer, what) => self.outbox.push(Event::Refused { peer, what }),
        }
    }

    fn on_heard(&mut self, heard: Heard) {
        let gated = &self.swarm.behaviour().gated;
        match heard {
            // What was said before its enrolment ended may still be on its way.
            Heard::Message(peer, bytes) if gated.is_enrolled(&peer) => {
                self.outbox.push(Event::Gossip { peer, bytes });
            }
            Heard::Message(..) => {}
            Heard::Refused(peer, error) => {
                let what = Refusal::Gossip(error);
                self.outbox.push(Event::Refused { peer, what });
            }
        }
    }

    pub(super) fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let now = Instant::now();
        match event {
            SwarmEvent::NewListenAddr { address, .. } => self.outbox.listening(address),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                let Some(key) = key_of(&peer_id) else { return };
                let remote = endpoint.get_remote_address().clone();
                self.connections.opened(key, connection_id, remote);
                if self.swarm.behaviour().gated.is_live(&key) {
                    let remote = endpoint.get_remote_address();
                    if let Some(ip) = direct::ip_of(remote) {
                        self.remote.insert(key, ip);
                    }
                    if endpoint.is_dialer() {
                        self.reached.insert(key, remote.clone());
                    }
                    self.redial.connected(now, &key);
                } else {
                    self.redial.failed(now, &key);
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                ..
            } => {
                if let Some(key) = key_of(&peer_id) {
                    self.connections.closed(&key, connection_id);
                }
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error,
                ..
            } => {
                let Some(key) = key_of(&peer) else { return };
                self.dial_failed(now, &key);
                for asked in self.asked.values_mut().filter(|asked| asked.peer == key) {
                    asked.unreachable = Some(dial_reason(&error));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gated(event)) => self.on_gate(now, event),
            SwarmEvent::Behaviour(BehaviourEvent::Enrol(event)) => self.on_enrol(now, event),
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(
                mdns::Event::Discovered(_) | mdns::Event::Expired(_),
            )) => self.want(),
            SwarmEvent::Behaviour(BehaviourEvent::Limits(never)) => match never {},
            _ => {}
        }
    }

    fn on_gate(&mut self, now: Instant, event: gate::Event<MembersEvent>) {
        match event {
            gate::Event::Opened { peer, is_inbound } => {
                self.live_changed();
                self.redial.connected(now, &peer);
                self.gossip.opened(peer);
                self.outbox.connected(peer);
                let peer = PublicKey(peer);
                self.step_view(view::Input::Connected { peer, is_inbound });
            }
            gate::Event::Closed(peer) => {
                self.redial.lost(now, &peer);
                self.live_changed();
                self.gossip.closed(&peer);
                self.outbox.disconnected(peer);
                self.step_view(view::Input::Disconnected(PublicKey(peer)));
            }
            gate::Event::Inner(MembersEvent::Sync(event)) => {
                self.on_request_event(Protocol::Sync, event);
            }
            gate::Event::Inner(MembersEvent::Ping(event)) => self.on_ping(event),
            gate::Event::Inner(MembersEvent::Streams(())) => {}
        }
    }

    /// A peer that does not answer pings is as good as gone. One that does not
    /// speak ping has not let us in yet.
    fn on_ping(&mut self, event: ping::Event) {
        match event.result {
            Ok(took) => {
                if let Some(peer) = key_of(&event.peer) {
                    let shortest = self.round_trips.entry(peer).or_insert(took);
                    *shortest = took.min(*shortest);
                }
            }
            Err(ping::Failure::Unsupported) => {}
            Err(ping::Failure::Timeout | ping::Failure::Other { .. }) => {
                self.swarm.behaviour_mut().gated.close(event.connection);
            }
        }
    }

    async fn shut_down(mut self, done: oneshot::Sender<()>) {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // It may have gone by itself in the meantime.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        // A dead peer does not hold up the end.
        let _ = timeout(SHUTDOWN, closing).await;
        drop(self);
        let _ = done.send(());
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The streams that others hold go with the network.
        self.usable.set(BTreeSet::new());
    }
}

/// Makes two nodes draw different neighbours, and nobody know whose.
fn random() -> Option<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// A dial's failure in one line, with the addresses that were tried.
fn dial_reason(error: &DialError) -> String {
    let DialError::Transport(tried) = error else {
        return error.to_string();
    };
    let tried = tried.iter().take(NAMED_ADDRESSES);
    let tried = tried.map(|(address, error)| format!("{address}: {}", innermost(error)));
    tried.collect::<Vec<_>>().join("; ")
}

/// The transports wrap the system's words several times over.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}
