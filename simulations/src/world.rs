//! The world: it takes one event after the other, lets the node concerned act, and
//! checks what must hold after every step.
//!
//! Not here: what the people want (`scenario`, `people`) and what goes wrong
//! (`faults`).

use crate::context::{Context, Flaw, Seen, Violation};
use crate::disk::{Content, Death, ZEROS};
use crate::ending;
use crate::invariants::{self, Oracle};
use crate::network::{Event, Network, Packet};
use crate::node::{Lived, Node, SourceVolume};
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::store::Store;
use crate::trace::Trace;
use blocks::{BLOCK_SIZE, Geometry};
use keys::lease::Boot;
use keys::{Identity, Name, Role, VolumeId};
use mesh::{Founding, Replica};
use provider::fake::{FakeCloud, Faults};
use std::collections::{BTreeMap, BTreeSet};

/// How often a node looks at its clock.
const TICK_MILLIS: u64 = 1_000;
/// How long a healed world may take to end everything.
const HEALED_MILLIS: u64 = 150_000;
/// A day.
pub const DAY_SECS: u64 = 86_400;
/// Capacity of the cloud, in bytes.
const CLOUD_BYTES: u64 = 1 << 40;

/// What came of a run.
pub struct Outcome {
    /// Hash of all that happened.
    pub hash: String,
    /// Lines of the trace.
    pub lines: u64,
    /// Virtual time at the end, in milliseconds.
    pub millis: u64,
    /// How often what happened.
    pub seen: Seen,
    /// The first thing that must never be, and was.
    pub violation: Option<Violation>,
}

/// Many nodes and what is between them.
pub struct World {
    /// What the nodes share.
    pub ctx: Context,
    /// The nodes; the first founds the mesh.
    pub nodes: Vec<Node>,
    /// What people want.
    pub scenario: Scenario,
    /// Who may be connected to whom.
    pub edges: BTreeSet<(usize, usize)>,
    /// Who is, and in which of their lives.
    pub links: BTreeMap<(usize, usize), (u32, u32)>,
}

/// Runs one world from its beginning to its end.
pub fn run(seed: u64, nodes: usize, printed: bool, flaw: Option<Flaw>) -> Outcome {
    let mut world = World::new(seed, nodes, printed, flaw);
    while let Some((at, event)) = world.ctx.network.next() {
        world.ctx.now = at;
        world.step(event);
        if world.ctx.violation.is_some() || world.is_over() {
            break;
        }
    }
    Outcome {
        hash: world.ctx.trace.hash(),
        lines: world.ctx.trace.lines(),
        millis: world.ctx.now,
        seen: world.ctx.seen,
        violation: world.ctx.violation,
    }
}

impl World {
    fn new(seed: u64, nodes: usize, printed: bool, flaw: Option<Flaw>) -> Self {
        let mut rng = Rng::new(seed);
        let scenario = Scenario::draw(&mut rng, nodes);
        let cloud = FakeCloud::new(CLOUD_BYTES, Faults::seeded(seed, 200));
        let ctx = Context {
            now: 0,
            rng,
            network: Network::default(),
            cloud,
            calm: false,
            flaw,
            keys: BTreeMap::new(),
            trace: Trace::new(printed),
            seen: Seen::default(),
            oracle: Oracle::default(),
            violation: None,
        };
        let mut world = Self {
            ctx,
            nodes: vec![],
            scenario,
            edges: BTreeSet::new(),
            links: BTreeMap::new(),
        };
        for index in 0..=nodes {
            world.add_participant(index);
        }
        world.draw_edges();
        world.begin();
        world
    }

    /// Makes the keys and volumes of a node; the last participant is no node.
    fn add_participant(&mut self, index: usize) {
        let forger = self.forger();
        let rng = &mut self.ctx.rng;
        let identity = Identity::from_seed(&rng.bytes());
        self.ctx.keys.insert(identity.public(), index);
        if index == self.scenario.nodes {
            self.ctx.oracle.forgers.insert(identity.public());
            return;
        }
        if index == forger {
            self.ctx.oracle.forgers.insert(identity.public());
        }
        let skew_secs = skew(rng, self.scenario.max_skew_secs);
        let volumes: Vec<VolumeId> = self
            .scenario
            .migrations
            .iter()
            .filter(|migration| migration.agent == index)
            .flat_map(|migration| migration.volumes.clone())
            .collect();
        let sources = volumes
            .into_iter()
            .map(|id| (id, source_volume(rng)))
            .collect();
        self.nodes.push(Node {
            index,
            identity,
            root: (index == 0).then(|| Identity::from_seed(&rng.bytes())),
            name: Name::new(&format!("n{index}")).expect("letters and digits"),
            store: Store::default(),
            up: None,
            life: 0,
            skew_secs,
            boot: Boot(rng.bytes()),
            ahead_millis: 1_000_000 * (index as i64 + 1),
            fuse: None,
            sync_fails: None,
            token: None,
            sources,
        });
    }

    fn begin(&mut self) {
        let founder = &mut self.nodes[0];
        let root = founder
            .root
            .clone()
            .expect("the first node has the root key");
        let founding = Founding {
            mesh: Name::new("sim").expect("letters"),
            node: founder.name.clone(),
            roles: [Role::Operator, Role::Provisioner].into_iter().collect(),
            site: None,
            nonce: self.ctx.rng.bytes(),
        };
        let wall = founder.now(&self.ctx).wall;
        let founded = Replica::found(founder.identity.clone(), root, founding, wall);
        let (_, records) = founded.expect("the founding statements are within their limits");
        founder.store.keep(records);
        for node in 0..self.scenario.nodes {
            self.ctx.network.schedule(0, Event::Start { node });
        }
        let heal_at = self.scenario.heal_at;
        self.ctx.network.schedule(heal_at, Event::Heal);
        self.ctx.network.schedule(1, Event::People);
        self.ctx.network.schedule(2, Event::Fault);
        self.ctx.network.schedule(3, Event::SourceWrite);
    }

    /// The participant that is never enrolled.
    pub fn stranger(&self) -> usize {
        self.scenario.nodes
    }

    /// The enrolled node in whose name forgeries are sent; a stranger where every node
    /// has work to do.
    pub fn forger(&self) -> usize {
        let last = self.scenario.nodes - 1;
        let works = self
            .scenario
            .migrations
            .iter()
            .any(|migration| migration.agent == last || migration.replicators.contains(&last));
        if works { self.scenario.nodes } else { last }
    }

    /// Lets a node act, if it runs; it may die of it.
    pub fn live(&mut self, index: usize, act: impl FnOnce(&mut Node, &mut Context) -> Lived) {
        let Some(node) = self.nodes.get_mut(index).filter(|node| node.up.is_some()) else {
            return;
        };
        let lived = act(node, &mut self.ctx).and_then(|()| node.settle(&mut self.ctx));
        if lived.is_err() {
            let death = self.death();
            self.kill(index, death);
        }
    }

    /// Kills a node, and starts it again later.
    pub fn kill(&mut self, index: usize, death: Death) {
        if self.nodes[index].up.is_none() {
            return;
        }
        match death {
            Death::Process => self.ctx.seen.process_deaths += 1,
            Death::Power => self.ctx.seen.power_losses += 1,
        }
        let now = self.ctx.now;
        self.ctx
            .trace
            .line(now, format_args!("n{index} dies: {death:?}"));
        self.nodes[index].die(&mut self.ctx, death);
        if death == Death::Power {
            self.reboot(index);
        }
        for stream in self.ctx.network.streams_of(index) {
            self.ctx.break_stream(stream, blocks::CloseReason::Lost);
        }
        let longest = if self.ctx.calm { 500 } else { 7_000 };
        let at = now + self.ctx.rng.between(200, longest);
        self.ctx.network.schedule(at, Event::Start { node: index });
    }

    /// Another run of the machine: its clock that does not jump begins anew, and its wall
    /// clock comes back as something else.
    fn reboot(&mut self, index: usize) {
        let max_skew_secs = self.scenario.max_skew_secs;
        let (node, rng) = (&mut self.nodes[index], &mut self.ctx.rng);
        node.boot = Boot(rng.bytes());
        node.ahead_millis = 3_000 - self.ctx.now.cast_signed();
        // A grant that ends by the wall clock may not come to life again.
        if max_skew_secs >= DAY_SECS {
            node.skew_secs = skew(rng, max_skew_secs);
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Tick { node, life } => self.tick(node, life),
            Event::Packet { from, to, packet } => {
                let (now, kind) = (self.ctx.now, kind(&packet));
                self.ctx
                    .trace
                    .line(now, format_args!("n{from}>n{to} {kind}"));
                self.live(to, |node, ctx| node.receive(ctx, from, packet));
            }
            Event::Frame {
                stream,
                end,
                header,
                payload,
            } => {
                self.frame(stream, end, &header, &payload);
            }
            Event::StreamOver {
                stream,
                end,
                reason,
            } => {
                let Some(at) = self.ctx.network.end_of(stream, end) else {
                    return;
                };
                self.live(at, |node, ctx| match end {
                    0 => node.source_closed(ctx, stream, reason),
                    _ => node.target_closed(ctx, stream, reason),
                });
                self.ctx.network.forget(stream);
            }
            Event::Pump { node, job, stream } => {
                self.live(node, |node, ctx| node.pump(ctx, job, stream));
            }
            Event::Flush { node, stream } => self.live(node, |node, ctx| node.flush(ctx, stream)),
            Event::Cloud { node, life, call } => {
                if self.nodes[node].life == life {
                    self.live(node, |node, ctx| node.call_cloud(ctx, call));
                }
            }
            Event::SourceWrite => self.source_write(),
            Event::People => {
                self.people();
                let at = self.ctx.now + self.ctx.rng.between(300, 1_200);
                self.ctx.network.schedule(at, Event::People);
            }
            Event::Fault => self.fault(),
            Event::Start { node } => self.start(node),
            Event::Heal => self.heal(),
        }
        self.check();
    }

    fn frame(&mut self, stream: u64, end: usize, header: &[u8], payload: &[u8]) {
        let Some(ends) = self.ctx.network.stream(stream).map(|stream| stream.ends) else {
            return;
        };
        let (now, bytes) = (self.ctx.now, payload.len());
        let (from, to) = (ends[1 - end], ends[end]);
        self.ctx.trace.line(
            now,
            format_args!("n{from}>n{to} frame on {stream} with {bytes} bytes"),
        );
        if self.nodes.get(to).is_some_and(|node| node.up.is_none()) {
            return self.ctx.break_stream(stream, blocks::CloseReason::Lost);
        }
        self.live(to, |node, ctx| match end {
            0 => node.source_frame(ctx, stream, header),
            _ => node.target_frame(ctx, stream, from, header, payload),
        });
    }

    fn start(&mut self, index: usize) {
        if self.nodes[index].up.is_some() {
            return;
        }
        let now = self.ctx.now;
        self.ctx.trace.line(now, format_args!("n{index} starts"));
        self.nodes[index].boot(&mut self.ctx);
        let life = self.nodes[index].life;
        let at = now + self.ctx.rng.below(TICK_MILLIS);
        self.ctx
            .network
            .schedule(at, Event::Tick { node: index, life });
    }

    fn tick(&mut self, index: usize, life: u32) {
        if self.nodes[index].up.is_none() || self.nodes[index].life != life {
            return;
        }
        self.refresh_links(index);
        self.live(index, Node::tick);
        let at = self.ctx.now + TICK_MILLIS;
        self.ctx
            .network
            .schedule(at, Event::Tick { node: index, life });
    }

    fn source_write(&mut self) {
        if self.ctx.now >= self.scenario.quiet_at {
            return;
        }
        let rng = &mut self.ctx.rng;
        let mut volumes: Vec<_> = self
            .nodes
            .iter_mut()
            .flat_map(|node| node.sources.values_mut())
            .collect();
        let at = rng.index(volumes.len());
        let volume = &mut volumes[at];
        let blocks = volume.contents.len();
        let first = rng.index(blocks);
        let end = blocks.min(first + 1 + rng.index(8));
        let kind = rng.below(3);
        for content in &mut volume.contents[first..end] {
            match kind {
                0 => *content = ZEROS,
                1 => *content = drawn(rng),
                _ => content[rng.index(content.len())] = rng.number(),
            }
        }
        volume.cut_last();
        let at = self.ctx.now + rng.between(30, 700);
        self.ctx.network.schedule(at, Event::SourceWrite);
    }

    fn heal(&mut self) {
        let now = self.ctx.now;
        self.ctx
            .trace
            .line(now, format_args!("all is well from now on"));
        self.ctx.calm = true;
        self.ctx.network.mend();
        self.ctx.cloud.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].fuse = None;
            self.nodes[node].sync_fails = None;
            self.start(node);
        }
    }

    /// Checks what this event may have broken.
    fn check(&mut self) {
        for job in std::mem::take(&mut self.ctx.oracle.to_compare) {
            invariants::trees_tell_the_truth(&mut self.ctx, &self.nodes, job);
        }
        for job in std::mem::take(&mut self.ctx.oracle.to_prove) {
            invariants::one_root(&mut self.ctx, &self.nodes, job);
        }
        for index in std::mem::take(&mut self.ctx.oracle.changed) {
            invariants::views_agree(&mut self.ctx, &self.nodes[index]);
        }
    }

    /// Whether everything has come to its end; a failure if it takes too long.
    fn is_over(&mut self) -> bool {
        if !self.ctx.calm || self.ctx.now < self.looks_again_at() {
            return false;
        }
        match ending::missing(self) {
            None => {
                ending::check(self);
                true
            }
            Some((invariant, text)) => {
                if self.ctx.now > self.scenario.heal_at + HEALED_MILLIS {
                    self.ctx.fail(invariant, text);
                }
                false
            }
        }
    }

    /// Looking at everything is dear: once a second is enough.
    fn looks_again_at(&mut self) -> u64 {
        let at = self.scenario.looks_at;
        if self.ctx.now >= at {
            self.scenario.looks_at = self.ctx.now + TICK_MILLIS;
        }
        at
    }
}

/// How far a wall clock is off.
pub fn skew(rng: &mut Rng, max_secs: u64) -> i64 {
    rng.below(2 * max_secs + 1).cast_signed() - max_secs.cast_signed()
}

fn kind(packet: &Packet) -> &'static str {
    match packet {
        Packet::Gossip(_) => "gossip",
        Packet::Ask(..) => "ask",
        Packet::Answer(..) => "answer",
        Packet::Enrol(..) => "enrol",
        Packet::Enrolled(..) => "enrolled",
    }
}

fn drawn(rng: &mut Rng) -> Content {
    match rng.below(3) {
        0 => ZEROS,
        1 => [rng.number(); crate::disk::PAGES],
        _ => std::array::from_fn(|_| if rng.below(2) == 0 { 0 } else { rng.number() }),
    }
}

/// A volume of a few blocks, and now and then one of more than a group.
fn source_volume(rng: &mut Rng) -> SourceVolume {
    let blocks = match rng.below(10) {
        0 => 1,
        1..=3 => rng.between(2, 8),
        4..=8 => rng.between(8, 41),
        _ => rng.between(250, 300),
    };
    let short = if rng.below(2) == 0 {
        0
    } else {
        512 * rng.below(100)
    };
    let length = blocks * BLOCK_SIZE as u64 - short;
    let geometry = Geometry::new(length).expect("some blocks, and not too many");
    let is_sparse = blocks > 100;
    let contents = (0..blocks)
        .map(|_| {
            if is_sparse && !rng.happens(60) {
                ZEROS
            } else {
                drawn(rng)
            }
        })
        .collect();
    let mut volume = SourceVolume { geometry, contents };
    volume.cut_last();
    volume
}
