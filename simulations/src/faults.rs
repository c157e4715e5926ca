//! What goes wrong in a world at a time that was decided before it began: the kinds
//! of faults, and their doing.
//!
//! Not here: which ones a drawn scenario has (`drawn`), the strangers' acts
//! (`forging`), and what happens to messages and calls by chance (`chance`).

mod drawn;
mod forging;

pub use drawn::drawn;

use crate::chance::CloudFailure;
use crate::disk::Death;
use crate::network::{Event, Garble};
use crate::node::Fuse;
use crate::rng::Rng;
use crate::scenario::{Migration, line};
use crate::world::World;
use blocks::CloseReason;
use crdt::{JobRole, Stage};
use serde::{Deserialize, Serialize};

/// Longest time for which the ends of a migration are cut off, and how much longer than
/// their leases: so that these end while nobody reaches them.
const LONGEST_CUT_SECS: u64 = 60;
const AFTER_LEASE_MILLIS: u64 = 8_000;

/// How long a node is down that dies as it changes its key.
const DOWN_MILLIS: u64 = 2_000;

/// One thing that goes wrong. `pick` chooses among what is there at that moment, by
/// any number; where nothing is, nothing happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// A node dies and starts again later.
    Dies {
        /// Which.
        node: usize,
        /// How.
        death: Death,
        /// How long it is down.
        down_millis: u64,
    },
    /// A node dies as it is about to do something: just after the deed before and
    /// just before the next, either of which may be a durable write.
    DiesAfter {
        /// Which.
        node: usize,
        /// How many more things it does.
        deeds: u64,
        /// How it dies.
        death: Death,
        /// How long it is down.
        down_millis: u64,
    },
    /// Nothing gets through between some nodes and all others.
    Partition {
        /// Which nodes.
        side: Vec<usize>,
        /// For how long.
        millis: u64,
    },
    /// Nothing gets through from some nodes to some others.
    OneWay {
        /// From these.
        from: Vec<usize>,
        /// To these.
        to: Vec<usize>,
        /// For how long.
        millis: u64,
    },
    /// The newest stream breaks, with what is under way on it.
    StreamBreaks,
    /// A bit of the next frame that is sent is flipped.
    FrameGarbled {
        /// Which.
        pick: u64,
    },
    /// The next sync of a node's copy fails, and voids what was written since the last.
    SyncFails {
        /// Which node.
        node: usize,
        /// For want of room, or otherwise.
        full: bool,
    },
    /// A bit of a block of a node's copy rots where it is stored.
    BlockRots {
        /// Which node.
        node: usize,
        /// Which block.
        pick: u64,
    },
    /// A bit of a leaf of a node's stored tree rots while nobody has the tree open.
    LeafRots {
        /// Which node.
        node: usize,
        /// Which leaf.
        pick: u64,
    },
    /// A bit of a node's stored records rots; a person puts the record right later.
    RecordRots {
        /// Which node.
        node: usize,
        /// Which record.
        pick: u64,
        /// How much later.
        mended_after_millis: u64,
    },
    /// A node comes back with the copy of what it had stored of the mesh that was made
    /// at the first such fault, and copies of all others are made that have none. It is
    /// put back only where all others run and hold the node's newest entries: what nobody
    /// holds any more nobody can tell it.
    OldStore {
        /// Which node.
        node: usize,
        /// How long it is down.
        down_millis: u64,
    },
    /// A node's disk is slow to make durable what it is told to.
    SlowDisk {
        /// Which node.
        node: usize,
        /// For how long.
        millis: u64,
        /// How much longer each step of a flush takes.
        step_millis: u64,
    },
    /// A node's wall clock is set.
    ClockJumps {
        /// Which node.
        node: usize,
        /// How far it is off from then on.
        to_secs: i64,
    },
    /// A node gives itself another key, and perhaps dies of it.
    ChangesKey {
        /// Which.
        node: usize,
        /// How many things it does before it dies; it does not if a file has none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deeds: Option<u64>,
    },
    /// The next calls to the cloud all fail.
    CloudBurst {
        /// How.
        failure: CloudFailure,
        /// How many.
        calls: u64,
    },
    /// Somebody who is not enrolled asks a node for everything.
    StrangerAsks {
        /// Which node.
        node: usize,
    },
    /// Somebody announces to a node what nobody signed.
    ForgedGossip {
        /// Which node.
        node: usize,
        /// What.
        forgery: GossipForgery,
        /// Which of them, and which bit.
        pick: u64,
    },
    /// Somebody opens a stream without a right to.
    ForgedStream {
        /// How.
        forgery: StreamForgery,
        /// Which bit.
        pick: u64,
    },
}

/// What is announced though nobody signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GossipForgery {
    /// A statement with a flipped bit.
    Statement,
    /// A change of the plan with a flipped bit.
    Change,
    /// A report with a flipped bit.
    Report,
}

/// What a stream is opened with that gives no right to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamForgery {
    /// An agent's ticket, by somebody who is not enrolled.
    Stolen,
    /// An agent's ticket, by another node.
    Borrowed,
    /// A ticket with a flipped bit.
    Tampered,
    /// The agent's own ticket of an epoch that is over.
    OldEpoch,
}

impl Fault {
    /// The nodes that it names.
    pub fn nodes(&self) -> Vec<usize> {
        match self {
            Self::Dies { node, .. }
            | Self::DiesAfter { node, .. }
            | Self::SyncFails { node, .. }
            | Self::BlockRots { node, .. }
            | Self::LeafRots { node, .. }
            | Self::RecordRots { node, .. }
            | Self::OldStore { node, .. }
            | Self::SlowDisk { node, .. }
            | Self::ClockJumps { node, .. }
            | Self::ChangesKey { node, .. }
            | Self::StrangerAsks { node }
            | Self::ForgedGossip { node, .. } => vec![*node],
            Self::Partition { side, .. } => side.clone(),
            Self::OneWay { from, to, .. } => from.iter().chain(to).copied().collect(),
            Self::StreamBreaks
            | Self::FrameGarbled { .. }
            | Self::CloudBurst { .. }
            | Self::ForgedStream { .. } => vec![],
        }
    }

    /// Takes a node out where some others are named with it.
    pub fn forget(&mut self, node: usize) {
        let lists = match self {
            Self::Partition { side, .. } => vec![side],
            Self::OneWay { from, to, .. } => vec![from, to],
            _ => vec![],
        };
        lists
            .into_iter()
            .for_each(|list| list.retain(|named| *named != node));
    }

    /// How long it lasts and the like, in milliseconds, by their names.
    pub fn durations(&self) -> Vec<(&'static str, u64)> {
        match self {
            Self::Dies { down_millis, .. }
            | Self::DiesAfter { down_millis, .. }
            | Self::OldStore { down_millis, .. } => {
                vec![("down_millis", *down_millis)]
            }
            Self::Partition { millis, .. } | Self::OneWay { millis, .. } => {
                vec![("millis", *millis)]
            }
            Self::RecordRots {
                mended_after_millis,
                ..
            } => vec![("mended_after_millis", *mended_after_millis)],
            Self::SlowDisk {
                millis,
                step_millis,
                ..
            } => vec![("millis", *millis), ("step_millis", *step_millis)],
            _ => vec![],
        }
    }
}

impl World {
    fn put_old_store_back(&mut self, victim: usize, down_millis: u64) {
        let runs_twice = self.ctx.twin.is_some_and(|twin| twin.of == victim);
        if !runs_twice
            && self.has_said_all(victim)
            && self.everybody_holds_what_is_newest_of(victim)
            && self.nodes[victim].store.put_back()
        {
            self.ctx.seen.old_stores += 1;
            crate::invariants::forgets_what_it_told(&mut self.ctx, &self.nodes[victim]);
            self.kill(victim, Death::Process, down_millis);
        }
        for node in &mut self.nodes {
            let replica = node.replica();
            // A copy from before anybody joined knows of nobody to ask.
            let others = replica.is_some_and(|replica| replica.authority().members().count() > 1);
            if others && node.store.old.is_none() {
                node.store.copy();
            }
        }
    }

    /// Whether a node's newest report says what its records as agent do: what nobody was
    /// told, nobody can tell it.
    fn has_said_all(&self, victim: usize) -> bool {
        let node = &self.nodes[victim];
        let report = node
            .replica()
            .and_then(|replica| replica.reports().get(&replica.me()?));
        let jobs = report.map_or(&[][..], |report| &report.jobs);
        node.store.agents.values().all(|record| {
            let mut jobs = jobs.iter();
            let said = jobs.find(|said| {
                said.role == JobRole::Agent
                    && (said.migration, said.volume) == (record.job.migration, record.job.volume)
            });
            said.is_some_and(|said| {
                let is_over = said.stage == Stage::CutOver;
                said.epoch == record.epoch && is_over == record.finished.is_some()
            })
        })
    }

    fn everybody_holds_what_is_newest_of(&self, victim: usize) -> bool {
        let Some(replica) = self.nodes[victim].replica() else {
            return false;
        };
        let (key, me) = (replica.my_key(), replica.me());
        let root = replica.ledger().roots().first().copied();
        let newest = |replica: &mesh::Replica| {
            let ledger = replica.ledger();
            let report = me.and_then(|me| replica.reports().versions().get(&me).copied());
            let change = replica.document().heads().get(&key).copied();
            let roots = root.map(|root| ledger.last_seq(&root));
            (ledger.last_seq(&key), roots, change, report)
        };
        let wanted = newest(replica);
        self.nodes.iter().all(|node| match node.replica() {
            Some(replica) => replica.may_write() && newest(replica) == wanted,
            None => node.store.is_blank(),
        })
    }

    /// One thing of the list goes wrong.
    pub fn fault(&mut self, at: usize) {
        let fault = self.scenario.faults[at].what.clone();
        let now = self.ctx.now;
        let what = format_args!("FAULT {}", line(&fault));
        self.ctx.trace.line(now, None, what);
        match fault {
            Fault::Dies {
                node,
                death,
                down_millis,
            } => self.kill(node, death, down_millis),
            Fault::DiesAfter {
                node,
                deeds,
                death,
                down_millis,
            } => {
                self.nodes[node].fuse = Some(Fuse {
                    deeds,
                    death,
                    down_millis,
                });
            }
            Fault::Partition { side, millis } => self.partition(&side, now + millis),
            Fault::OneWay { from, to, millis } => {
                self.ctx.seen.one_way_partitions += 1;
                self.cut(&from, &to, now + millis);
            }
            Fault::StreamBreaks => {
                if let Some(stream) = self.ctx.network.whole_streams().last() {
                    self.ctx.break_stream(*stream, CloseReason::Lost);
                }
            }
            Fault::FrameGarbled { pick } => self.ctx.network.garble = Some(Garble(pick)),
            Fault::SyncFails { node, full } => self.nodes[node].sync_fails = Some(full),
            Fault::BlockRots { node, pick } => self.rot_block(node, pick),
            Fault::LeafRots { node, pick } => self.rot_leaf(node, pick),
            Fault::RecordRots {
                node,
                pick,
                mended_after_millis,
            } => self.rot_record(node, pick, now + mended_after_millis),
            Fault::OldStore { node, down_millis } => self.put_old_store_back(node, down_millis),
            Fault::SlowDisk {
                node,
                millis,
                step_millis,
            } => self.nodes[node].slow = Some((now + millis, step_millis)),
            Fault::ClockJumps { node, to_secs } => {
                self.ctx.seen.clock_jumps += 1;
                self.nodes[node].skew_secs = to_secs;
            }
            Fault::ChangesKey { node, deeds } => {
                if let Some(deeds) = deeds {
                    self.nodes[node].fuse = Some(Fuse {
                        deeds,
                        death: Death::Power,
                        down_millis: DOWN_MILLIS,
                    });
                }
                self.change_key(node);
            }
            Fault::CloudBurst { failure, calls } => self.ctx.burst = Some((failure, calls)),
            Fault::StrangerAsks { node } => self.stranger_asks(node),
            Fault::ForgedGossip {
                node,
                forgery,
                pick,
            } => self.forge_gossip(node, forgery, &mut Rng::new(pick)),
            Fault::ForgedStream { forgery, pick } => {
                self.forge_stream(forgery, &mut Rng::new(pick));
            }
        }
    }

    /// Cuts some nodes off from the others.
    fn partition(&mut self, side: &[usize], until: u64) {
        self.ctx.seen.partitions += 1;
        let others: Vec<usize> = (0..self.scenario.nodes)
            .filter(|node| !side.contains(node))
            .collect();
        self.cut(side, &others, until);
        self.cut(&others, side, until);
    }

    fn cut(&mut self, from: &[usize], to: &[usize], until: u64) {
        for from in from {
            for to in to {
                self.ctx.network.cut(*from, *to, until);
            }
        }
    }

    /// Lets the ends of a migration reach each other and nobody else, until their leases
    /// are over and somewhat longer.
    pub fn cut_off_ends(&mut self, migration: &Migration) {
        self.ctx.seen.cut_off_revocations += 1;
        let longest = migration.lease_secs + migration.autonomy_secs;
        let until = self.ctx.now + longest.min(LONGEST_CUT_SECS) * 1000 + AFTER_LEASE_MILLIS;
        let is_end =
            |node: &usize| migration.agent == *node || migration.replicators.contains(node);
        let (ends, others): (Vec<usize>, Vec<usize>) = (0..self.scenario.nodes).partition(is_end);
        self.cut(&ends, &others, until);
        self.cut(&others, &ends, until);
    }

    fn rot_block(&mut self, node: usize, pick: u64) {
        let mut rng = Rng::new(pick);
        let disks = &mut self.nodes[node].store.disks;
        let Some(disk) = nth(disks.values_mut(), &mut rng) else {
            return;
        };
        if let Some(block) = disk.rot(&mut rng) {
            self.ctx.seen.rotten_blocks += 1;
            self.ctx
                .note(node, format_args!("block {block} of its copy rots"));
        }
    }

    fn rot_leaf(&mut self, index: usize, pick: u64) {
        let mut rng = Rng::new(pick);
        let node = &mut self.nodes[index];
        let is_open = |job: &roles::JobId| {
            node.up.as_ref().is_some_and(|up| {
                let mut copies = up.receiving.values();
                up.sending.contains_key(job) || copies.any(|session| session.job == *job)
            })
        };
        let store = &mut node.store;
        let copies = store.copies.iter_mut();
        let copies = copies.map(|(job, copy)| (job, &mut copy.tree));
        let trees = store.trees.iter_mut().map(|((job, _), tree)| (job, tree));
        let trees = trees.chain(copies);
        let closed: Vec<_> = trees.filter(|(job, _)| !is_open(job)).collect();
        if let Some((job, tree)) = nth(closed.into_iter(), &mut rng) {
            let block = tree.rot(&mut rng);
            self.ctx.seen.rotten_leaves += 1;
            let what = format_args!("leaf {block} of its tree of {job} rots");
            self.ctx.note(index, what);
        }
    }

    fn rot_record(&mut self, node: usize, pick: u64, mended_at: u64) {
        if let Some(record) = self.nodes[node].store.rot(&mut Rng::new(pick)) {
            self.ctx.seen.rotten_records += 1;
            self.ctx.note(node, format_args!("its {record} rots"));
            let mended = Event::Mended { node };
            self.ctx.network.schedule(mended_at, mended);
        }
    }
}

/// One of some, by chance.
fn nth<T>(mut all: impl ExactSizeIterator<Item = T>, rng: &mut Rng) -> Option<T> {
    match all.len() {
        0 => None,
        len => all.nth(rng.index(len)),
    }
}
