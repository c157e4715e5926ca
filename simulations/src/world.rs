//! The world: it takes one event after the other, lets the node concerned act, and
//! checks what must hold after every step.
//!
//! Not here: what the people want (`scenario`, `people`) and what goes wrong
//! (`faults`).

use crate::context::{Context, Flaw, Seen, Violation};
use crate::describing::{self, Size};
use crate::disk::{Content, Death, ZEROS};
use crate::ending;
use crate::freezing::{Freezer, is_absent};
use crate::invariants::{self, Oracle};
use crate::links::Link;
use crate::network::{Event, Network};
use crate::node::{Lived, Node, SourceVolume};
use crate::recovery::Recovery;
use crate::rng::{Rng, Stream};
use crate::scenario::{At, Scenario, Wish, skew};
use crate::store::Store;
use crate::trace::{Trace, View};
use crate::twice::Copied;
use blocks::Geometry;
use keys::lease::Boot;
use keys::{Identity, MigrationId, Name, Role, VolumeId};
use mesh::{Founding, Replica};
use provider::fake::{FakeCloud, Faults};
use std::collections::{BTreeMap, BTreeSet};

/// How often a node looks at its clock.
const TICK_MILLIS: u64 = 1_000;
/// How long a node is down that begins again with another key.
const AGAIN_MILLIS: u64 = 100;
/// How long a healed world may take to end everything.
const HEALED_MILLIS: u64 = 200_000;
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
    /// The lines of the trace that were to be kept.
    pub kept: Vec<String>,
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
    /// Who is, as one end sees it, and in which of their lives.
    pub links: BTreeMap<(usize, usize), Link>,
    /// The operator that goes on with the first one's work, once that is lost for good.
    pub heir: Option<usize>,
    /// The making of a new operator with the root key, once the first is lost.
    pub recovery: Option<Recovery>,
    /// What somebody copied of the folder that is to run twice.
    pub copied: Option<Copied>,
    /// What the people of the first operator have got of each migration.
    pub done: Vec<Vec<At<Wish>>>,
    forger: usize,
    people: Rng,
    writes: Rng,
    /// When the healed world is looked at next.
    looks_at: u64,
}

/// Runs one world from its beginning to its end.
pub fn run(scenario: &Scenario, view: Option<View>, flaw: Option<Flaw>) -> Outcome {
    let mut world = World::new(scenario.clone(), view, flaw);
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
        kept: world.ctx.trace.kept(),
    }
}

impl World {
    fn new(scenario: Scenario, view: Option<View>, flaw: Option<Flaw>) -> Self {
        let (seed, nodes) = (scenario.seed, scenario.nodes);
        let names = (0..=scenario.stranger())
            .map(|index| format!("n{index} {}", scenario.role_of(index)))
            .collect();
        let ctx = Context {
            now: 0,
            seed,
            rates: scenario.chance,
            burst: None,
            network: Network::default(),
            cloud: FakeCloud::new(CLOUD_BYTES, Faults::none()),
            calm: false,
            lost_millis: scenario.lost_millis,
            dies_proving: None,
            flaw,
            keys: BTreeMap::new(),
            current: vec![],
            twin: None,
            trace: Trace::new(names, view),
            seen: Seen::default(),
            oracle: Oracle::default(),
            violation: None,
        };
        let forger = match scenario.role_of(nodes - 1) {
            "member" => nodes - 1,
            _ => scenario.stranger(),
        };
        let done = vec![vec![]; scenario.migrations.len()];
        let mut world = Self {
            ctx,
            nodes: vec![],
            scenario,
            edges: BTreeSet::new(),
            links: BTreeMap::new(),
            forger,
            heir: None,
            recovery: None,
            copied: None,
            done,
            people: Rng::of(seed, Stream::People, &[]),
            writes: Rng::of(seed, Stream::Writes, &[]),
            looks_at: 0,
        };
        for index in 0..=world.stranger() {
            world.add_participant(index);
        }
        world.draw_edges();
        world.begin();
        world
    }

    /// Makes the keys and volumes of a node; the last participant is no node.
    fn add_participant(&mut self, index: usize) {
        let forger = self.forger();
        let (seed, number) = (self.scenario.seed, index as u64);
        let mut keys = Rng::of(seed, Stream::Keys, &[number]);
        let identity = Identity::from_seed(&keys.bytes());
        self.ctx.current.push(identity.public());
        if self.scenario.role_of(index) == "copy" {
            // It has the key of the node whose folder it is, once it runs.
            return;
        }
        self.ctx.keys.insert(identity.public(), index);
        if index == self.stranger() {
            self.ctx.oracle.forgers.insert(identity.public());
            return;
        }
        if index == forger {
            self.ctx.oracle.forgers.insert(identity.public());
        }
        let migrations = (0..).zip(&self.scenario.migrations);
        let sources = migrations
            .filter(|(_, migration)| migration.agent == index)
            .flat_map(|(at, migration)| {
                let volumes = (0..).zip(&migration.volumes).zip(&migration.volume_bytes);
                volumes.map(move |((volume, id), bytes)| {
                    let mut rng = Rng::of(seed, Stream::Volumes, &[at, volume]);
                    (*id, source_volume(&mut rng, *bytes))
                })
            })
            .collect();
        self.nodes.push(Node {
            index,
            identity,
            root: (index == 0).then(|| Identity::from_seed(&keys.bytes())),
            lent: None,
            next: None,
            name: Name::new(&format!("n{index}")).expect("letters and digits"),
            store: Store::default(),
            up: None,
            life: 0,
            lost_until: None,
            skew_secs: self.scenario.clock_secs[index],
            boot: Boot(Rng::of(seed, Stream::Boots, &[number]).bytes()),
            ahead_millis: 1_000_000 * (index as i64 + 1),
            rng: Rng::of(seed, Stream::Nodes, &[number]),
            fuse: None,
            sync_fails: None,
            slow: None,
            is_refused: false,
            token: None,
            sources,
            freezer: Freezer::new(is_absent(seed, index)),
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
            nonce: founder.rng.bytes(),
        };
        self.ctx.oracle.root = Some(root.public());
        let wall = founder.now(&self.ctx).wall;
        let founded = Replica::found(founder.identity.clone(), root, founding, wall);
        let (_, records) = founded.expect("the founding statements are within their limits");
        founder.store.keep(records);
        for node in 0..self.scenario.nodes {
            self.ctx.network.schedule(0, Event::Start { node });
        }
        let heal_at = self.scenario.heal_at_millis;
        for (at, fault) in self.scenario.faults.iter().enumerate() {
            let when = fault.at_millis.min(heal_at);
            self.ctx.network.schedule(when, Event::Fault(at));
        }
        self.ctx.network.schedule(heal_at, Event::Heal);
        self.ctx.network.schedule(1, Event::People);
        self.ctx.network.schedule(3, Event::SourceWrite);
    }

    /// The participant that is never enrolled.
    pub fn stranger(&self) -> usize {
        self.scenario.stranger()
    }

    /// The enrolled node in whose name forgeries are sent; a stranger where every node
    /// has work to do.
    pub fn forger(&self) -> usize {
        self.forger
    }

    /// Lets a node act, if it runs; it may die of it.
    pub fn live(&mut self, index: usize, act: impl FnOnce(&mut Node, &mut Context) -> Lived) {
        let Some(node) = self.nodes.get_mut(index).filter(|node| node.up.is_some()) else {
            return;
        };
        let lived = act(node, &mut self.ctx).and_then(|()| node.settle(&mut self.ctx));
        if let Err(died) = lived {
            self.kill(index, died.death, died.down_millis);
        }
    }

    /// Kills a node, and starts it again later.
    pub fn kill(&mut self, index: usize, death: Death, down_millis: u64) {
        if self.nodes[index].up.is_none() {
            return;
        }
        match death {
            Death::Process => self.ctx.seen.process_deaths += 1,
            Death::Power => self.ctx.seen.power_losses += 1,
        }
        let how = match death {
            Death::Process => "its process is killed",
            Death::Power => "its power is lost",
        };
        self.ctx.note(index, format_args!("dies: {how}"));
        self.nodes[index].die(&mut self.ctx, death);
        if death == Death::Power {
            self.reboot(index);
        }
        for stream in self.ctx.network.streams_of(index) {
            self.ctx.break_stream(stream, blocks::CloseReason::Lost);
        }
        let soon = self.ctx.now + down_millis;
        let at = self.nodes[index].lost_until.unwrap_or(soon);
        if at == u64::MAX {
            return;
        }
        self.ctx.network.schedule(at, Event::Start { node: index });
    }

    /// Another run of the machine: its clock that does not jump begins anew, and its wall
    /// clock comes back as something else.
    fn reboot(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let which = [index as u64, u64::from(node.life)];
        let mut rng = Rng::of(self.ctx.seed, Stream::Boots, &which);
        node.boot = Boot(rng.bytes());
        node.freezer.lose_power();
        node.ahead_millis = 3_000 - self.ctx.now.cast_signed();
        let most = self.scenario.boot_clock_secs;
        if most > 0 && !self.ctx.calm {
            self.ctx.seen.clocks_off_after_boot += 1;
            node.skew_secs = skew(&mut rng, most);
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Tick { node, life } => self.tick(node, life),
            Event::Packet { from, to, packet } => {
                let now = self.ctx.now;
                let what = format_args!("from n{from}: {}", describing::kind(&packet));
                let detail = || describing::packet(&packet);
                let ends = [Some(to), Some(from)];
                self.ctx.trace.line_from(now, ends, what, detail);
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
                    let root = self.root_for(&call);
                    self.live(node, |node, ctx| node.call_cloud(ctx, call, root));
                }
            }
            Event::Freezer {
                node,
                life,
                migration,
                ask,
            } => {
                let answer = self.nodes[node].freezer_asked(&mut self.ctx, migration, ask);
                if self.nodes[node].life == life {
                    self.live(node, |node, ctx| {
                        node.freezer_answered(ctx, migration, answer)
                    });
                }
            }
            Event::SourceWrite => self.source_write(),
            Event::People => {
                self.people();
                self.losses();
                self.recover();
                self.runs_twice();
                let at = self.ctx.now + self.people.between(300, 1_200);
                self.ctx.network.schedule(at, Event::People);
            }
            Event::Fault(at) if !self.ctx.calm => self.fault(at),
            Event::Fault(_) => {}
            Event::Again { node, life } if self.nodes[node].life == life => {
                self.kill(node, Death::Process, AGAIN_MILLIS);
            }
            Event::Again { .. } => {}
            Event::Mended { node } => self.mended(node),
            Event::Start { node } => self.start(node),
            Event::Heal => self.heal(),
        }
        self.check();
    }

    fn frame(&mut self, stream: u64, end: usize, header: &[u8], payload: &[u8]) {
        let Some(ends) = self.ctx.network.stream(stream).map(|stream| stream.ends) else {
            return;
        };
        let (now, bytes) = (self.ctx.now, Size(header.len() + payload.len()));
        let (from, to) = (ends[1 - end], ends[end]);
        let what = format_args!("from n{from} on stream {stream}: {bytes}");
        let detail = || describing::frame(end, header, payload.len());
        let ends = [Some(to), Some(from)];
        self.ctx.trace.line_from(now, ends, what, detail);
        if self.nodes.get(to).is_some_and(|node| node.up.is_none()) {
            return self.ctx.break_stream(stream, blocks::CloseReason::Lost);
        }
        self.live(to, |node, ctx| match end {
            0 => node.source_frame(ctx, stream, header),
            _ => node.target_frame(ctx, stream, from, header, payload),
        });
    }

    fn start(&mut self, index: usize) {
        let now = self.ctx.now;
        let is_lost = self.nodes[index]
            .lost_until
            .is_some_and(|until| now < until);
        if self.nodes[index].up.is_some() || is_lost {
            return;
        }
        self.nodes[index].lost_until = None;
        self.ctx.note(index, format_args!("starts"));
        self.nodes[index].boot(&mut self.ctx);
        if self.nodes[index].up.is_none() {
            return;
        }
        let life = self.nodes[index].life;
        let at = self.ctx.now + self.nodes[index].rng.below(TICK_MILLIS);
        self.ctx
            .network
            .schedule(at, Event::Tick { node: index, life });
    }

    /// What was damaged is put right; a node that would not start for it does now.
    fn mended(&mut self, index: usize) {
        self.nodes[index].store.mend();
        if self.nodes[index].is_refused {
            self.start(index);
        }
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
        let now = self.ctx.now;
        let is_quiet = now >= self.scenario.quiet_at_millis;
        let migrations = self.scenario.migrations.iter();
        let migrations: BTreeMap<VolumeId, MigrationId> = migrations
            .flat_map(|migration| migration.volumes.iter().map(|id| (*id, migration.id)))
            .collect();
        let rng = &mut self.writes;
        let mut volumes = vec![];
        for node in &mut self.nodes {
            // Where nobody freezes them people stop what writes to them.
            let is_quiet = is_quiet && node.freezer.is_absent;
            let freezer = &node.freezer;
            let writable = |id: &VolumeId| {
                let migration = migrations.get(id);
                !is_quiet && !migration.is_some_and(|migration| freezer.holds(migration, now))
            };
            let sources = node.sources.iter_mut();
            volumes.extend(
                sources
                    .filter(|(id, _)| writable(id))
                    .map(|(_, volume)| volume),
            );
        }
        let next = now + rng.between(30, 700);
        self.ctx.network.schedule(next, Event::SourceWrite);
        if volumes.is_empty() {
            return;
        }
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
    }

    fn heal(&mut self) {
        let now = self.ctx.now;
        let what = format_args!("ALL IS WELL from now on");
        self.ctx.trace.line(now, None, what);
        self.ctx.calm = true;
        self.ctx.network.mend();
        self.ctx.cloud.heal();
        self.ctx.burst = None;
        for node in 0..self.nodes.len() {
            self.nodes[node].fuse = None;
            self.nodes[node].sync_fails = None;
            self.nodes[node].slow = None;
            self.nodes[node].store.mend();
            if let Some(up) = &mut self.nodes[node].up {
                // As after a pause: nothing waits for another attempt.
                up.cutovers.retain(|_, machine| !machine.is_idle());
            }
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
                if self.ctx.now > self.scenario.heal_at_millis + HEALED_MILLIS {
                    self.ctx.fail(invariant, text);
                }
                false
            }
        }
    }

    /// Looking at everything is dear: once a second is enough.
    fn looks_again_at(&mut self) -> u64 {
        let at = self.looks_at;
        if self.ctx.now >= at {
            self.looks_at = self.ctx.now + TICK_MILLIS;
        }
        at
    }
}

fn drawn(rng: &mut Rng) -> Content {
    match rng.below(3) {
        0 => ZEROS,
        1 => [rng.number(); crate::disk::PAGES],
        _ => std::array::from_fn(|_| if rng.below(2) == 0 { 0 } else { rng.number() }),
    }
}

/// A volume with something in it; of a large one most is zeros.
fn source_volume(rng: &mut Rng, length: u64) -> SourceVolume {
    let geometry = Geometry::new(length).expect("the scenario's lengths were checked");
    let is_sparse = geometry.blocks() > 100;
    let contents = (0..geometry.blocks())
        .map(|_| match is_sparse && !rng.happens(60) {
            true => ZEROS,
            false => drawn(rng),
        })
        .collect();
    let mut volume = SourceVolume { geometry, contents };
    volume.cut_last();
    volume
}
