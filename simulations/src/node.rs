//! One node of the world: the shell around the real machines. It gives them inputs
//! with the time, carries out their outputs in order, and may die before any of them.
//!
//! Here: the replica, enrolment, gossip and the node's own report. The agent's
//! sessions are in `sending`, the replicator's in `receiving`, the rest of the roles
//! in `duties`.

use crate::context::{Context, Flaw};
use crate::disk::{Content, Death, PAGE_SIZE};
use crate::freezing::Freezer;
use crate::invariants::{self, Invariant};
use crate::network::Packet;
use crate::receiving::Receiving;
use crate::recovery::Recovering;
use crate::rng::{Rng, Stream};
use crate::sending::Sending;
use crate::store::{Store, Told};
use codec::Wire;
use crdt::plan::Conflict;
use crdt::{Apart, Conflicts, EntryId, JobRole};
use keys::invite::Token;
use keys::lease::Boot;
use keys::{Identity, Leases, MeshId, MigrationId, Name, PublicKey, UnixSecs, VolumeId};
use mesh::{Announcement, EnrolReply, EnrolRequest, Input, JoinError, JoinStep, Joiner, Output};
use mesh::{DeniedCode, Page, Record, Replica, Request};
use roles::cutover::Cutover;
use roles::{
    JobId, Note, Now, Vouching, agent::Agent, provisioner::Provisioner, replicator::Replicator,
};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// When the world begins, on a clock that is right.
pub const BEGINNING: u64 = 1_795_000_000;
/// How long a question may go unanswered.
const ANSWER_MILLIS: u64 = 4_000;

/// The machine died here.
#[derive(Debug)]
pub struct Died {
    /// How.
    pub death: Death,
    /// For how long.
    pub down_millis: u64,
}

/// When a machine is to die.
#[derive(Debug, Clone, Copy)]
pub struct Fuse {
    /// How many things it does before.
    pub deeds: u64,
    /// How it dies.
    pub death: Death,
    /// For how long.
    pub down_millis: u64,
}

/// Whether the machine still lives.
pub type Lived = Result<(), Died>;

/// A source volume: only the world writes to it.
#[derive(Clone)]
pub struct SourceVolume {
    /// Its geometry.
    pub geometry: blocks::Geometry,
    /// What reads return.
    pub contents: Vec<Content>,
}

impl SourceVolume {
    /// Makes zero what is past the end of a short last block.
    pub fn cut_last(&mut self) {
        let last = self.geometry.blocks() - 1;
        let len = self.geometry.block_len(blocks::BlockIndex(last));
        if let Some(content) = self.contents.last_mut() {
            content[len.div_ceil(PAGE_SIZE)..].fill(0);
        }
    }
}

/// A node, dead or alive.
pub struct Node {
    /// Which participant it is.
    pub index: usize,
    /// Its key.
    pub identity: Identity,
    /// The mesh's root key, at the node that founded it.
    pub root: Option<Identity>,
    /// Its next key, stored before the mesh hears of it.
    pub next: Option<Identity>,
    /// The root key, where people bring it for what only it may state.
    pub lent: Option<Identity>,
    /// Its name.
    pub name: Name,
    /// What survives a crash.
    pub store: Store,
    /// What does not.
    pub up: Option<Up>,
    /// Counts its lives.
    pub life: u32,
    /// It is dead until then, whatever happens; for good with the last number.
    pub lost_until: Option<u64>,
    /// How far its wall clock is off.
    pub skew_secs: i64,
    /// Its own pace and nonces.
    pub rng: Rng,
    /// Which run of the machine it is: another one after every loss of power.
    pub boot: Boot,
    /// What its clock that does not jump is ahead of the world's; its own, so that
    /// nobody can compare it with another node's.
    pub ahead_millis: i64,
    /// When it is to die.
    pub fuse: Option<Fuse>,
    /// The next sync fails, for want of room or otherwise.
    pub sync_fails: Option<bool>,
    /// Until when its disk is slow, and by how much each step of a flush.
    pub slow: Option<(u64, u64)>,
    /// It would not start, and waits for a person.
    pub is_refused: bool,
    /// The invite that a person gave it.
    pub token: Option<Token>,
    /// The volumes it offers.
    pub sources: BTreeMap<VolumeId, SourceVolume>,
    /// Who freezes them.
    pub freezer: Freezer,
}

/// What a running node holds in memory.
#[derive(Default)]
pub struct Up {
    /// None before it is enrolled.
    pub replica: Option<Replica>,
    joiner: Option<Joiner>,
    /// Asks a member how to go on with the root key.
    pub recoverer: Option<Recovering>,
    join_asked: Option<(u64, u64)>,
    /// Enrolled peers that it is connected to.
    pub connected: BTreeSet<usize>,
    asked: BTreeMap<u64, (usize, u64)>,
    replies: BTreeMap<u64, (usize, u64)>,
    /// Whether views are to be made again.
    pub dirty: bool,
    /// The agent's machines.
    pub agents: BTreeMap<JobId, Agent>,
    /// Those of the cutovers of its servers.
    pub cutovers: BTreeMap<MigrationId, Cutover>,
    /// The agent's sessions.
    pub sending: BTreeMap<JobId, Sending>,
    /// The replicator's copies.
    pub replicator: Replicator,
    /// The replicator's sessions, by stream.
    pub receiving: BTreeMap<u64, Receiving>,
    /// The provisioner's machine.
    pub provisioner: Provisioner,
    /// The leases that it holds.
    pub leases: Leases,
    /// The operator's answers to pulses.
    pub vouching: Vouching,
    /// Conflicts of the plan that people were told of.
    conflicts: Conflicts,
    told_conflicts: BTreeMap<(EntryId, String), Vec<String>>,
}

impl Up {
    /// What stands in the plan already was told before the node stopped.
    pub fn know_conflicts(&mut self) {
        let Some(replica) = &self.replica else { return };
        let plan = replica.document().plan();
        self.conflicts = Conflicts::known(plan);
        let open = crdt::conflicts::all(plan).map(|(entry, conflict)| {
            let key = (entry, conflict.field.clone());
            (key, conflict.values.clone())
        });
        self.told_conflicts = open.collect();
    }
}

impl Node {
    /// The replica, if the node runs and is enrolled.
    pub fn replica(&self) -> Option<&Replica> {
        self.up.as_ref()?.replica.as_ref()
    }

    /// What is lost in a crash; only code of a running node asks.
    pub fn up(&mut self) -> &mut Up {
        self.up
            .as_mut()
            .expect("only a running node is given events")
    }

    /// The time as this node sees it.
    pub fn now(&self, ctx: &Context) -> Now {
        let right = BEGINNING + ctx.now / 1000;
        Now {
            wall: UnixSecs(right.saturating_add_signed(self.skew_secs)),
            mono_millis: ctx.now.saturating_add_signed(self.ahead_millis),
        }
    }

    /// One thing is about to be done; the machine may die before it.
    pub fn deed(&mut self, ctx: &mut Context) -> Lived {
        match &mut self.fuse {
            None => Ok(()),
            Some(fuse) if fuse.deeds == 0 => {
                let Fuse {
                    death, down_millis, ..
                } = *fuse;
                self.fuse = None;
                ctx.seen.deaths_between_outputs += 1;
                Err(Died { death, down_millis })
            }
            Some(fuse) => {
                fuse.deeds -= 1;
                Ok(())
            }
        }
    }

    /// Whether people were told something of this kind.
    pub fn has_told(&self, kind: &str) -> bool {
        self.store.events.iter().any(|event| event.kind == kind)
    }

    /// Tells people something.
    pub fn tell(&mut self, ctx: &mut Context, note: Note) {
        let text = &note.text;
        ctx.note(self.index, format_args!("says {}: {text}", note.kind));
        self.store.events.push(Told {
            kind: note.kind,
            text: note.text,
        });
    }

    /// Starts with what is stored.
    pub fn boot(&mut self, ctx: &mut Context) {
        self.is_refused = false;
        if ctx.flaw == Some(Flaw::TrustsRecords) {
            self.store.trust_damaged();
        }
        if let Some(record) = self.store.damaged() {
            self.is_refused = true;
            ctx.seen.refused_starts += 1;
            let what = format_args!("refuses to start: the checksum of a {record} does not match");
            return ctx.note(self.index, what);
        }
        self.life += 1;
        let mut up = Up::default();
        self.take_next_key(ctx);
        if !self.store.is_blank() {
            match self.store.restore(self.identity.clone(), self.root.clone()) {
                Ok(mut replica) => {
                    if ctx.flaw == Some(Flaw::WritesUnheard) {
                        replica.write_unheard();
                    }
                    invariants::goes_on_as_itself(ctx, self.index, &replica);
                    up.replica = Some(replica);
                }
                Err(why) => {
                    let text = format!("node {} cannot start again: {why}", self.index);
                    ctx.fail(Invariant::NothingToldIsForgotten, text);
                }
            }
        }
        let records = self.store.copies.values().map(|copy| copy.record.clone());
        up.replicator = Replicator::new(records);
        if let Some(stored) = self.store.leases.clone() {
            up.leases = Leases::restore(stored, self.now(ctx), self.boot);
        }
        up.know_conflicts();
        up.dirty = true;
        // What was frozen before has to be looked at.
        let migrations = self.store.agents.keys().map(|job| job.migration);
        up.cutovers = migrations.map(|id| (id, Cutover::default())).collect();
        self.up = Some(up);
        ctx.oracle.changed.insert(self.index);
        invariants::nothing_told_is_forgotten(ctx, self);
    }

    /// Loses what is in memory.
    pub fn die(&mut self, ctx: &mut Context, death: Death) {
        self.up = None;
        self.fuse = None;
        // What it was about to tell is told no more: it was found before.
        if !self.store.evidence.is_empty() && !self.has_told("cloned-key") {
            ctx.oracle.cut_short.insert(self.index);
        }
        let which = [self.index as u64, u64::from(self.life)];
        let mut rng = Rng::of(ctx.seed, Stream::Deaths, &which);
        ctx.seen.torn_blocks += self.store.die(death, &mut rng);
        if ctx.flaw == Some(Flaw::ForgetsChanges) {
            self.store.changes.clear();
        }
        ctx.oracle.compare_all();
    }

    /// Gives the replica an input.
    pub fn replica_input(&mut self, ctx: &mut Context, input: Input) -> Lived {
        let now = self.now(ctx);
        let mut out = vec![];
        let Some(replica) = &mut self.up().replica else {
            return Ok(());
        };
        replica.step(now.wall, now.mono_millis, input, &mut out);
        self.carry_replica(ctx, out)
    }

    /// Carries out what a replica wants, in order.
    pub fn carry_replica(&mut self, ctx: &mut Context, mut out: Vec<Output>) -> Lived {
        if ctx.flaw == Some(Flaw::AnnouncesFirst) {
            out.sort_by_key(|output| {
                !matches!(output, Output::Announce(_) | Output::PassOn { .. })
            });
        }
        for output in out {
            self.deed(ctx)?;
            self.carry_replica_output(ctx, output);
        }
        Ok(())
    }

    fn carry_replica_output(&mut self, ctx: &mut Context, output: Output) {
        let at = self.index;
        match output {
            Output::Store(records) => self.keep(ctx, records),
            Output::Announce(announcement) => self.gossip(ctx, None, &announcement),
            Output::PassOn {
                not_to,
                announcement,
            } => self.gossip(ctx, not_to, &announcement),
            Output::Ask { to, request } => {
                let Some(peer) = self.way_to(ctx, &to) else {
                    return;
                };
                let id = ctx.network.number();
                self.up().asked.insert(id, (peer, ctx.now + ANSWER_MILLIS));
                ctx.send(at, peer, Packet::Ask(id, Rc::new(encode(&request))));
            }
            Output::Answer { reply, page } => {
                let Some((peer, id)) = self.up().replies.remove(&reply) else {
                    return;
                };
                let told = (&page.statements[..], &page.changes[..], &page.reports[..]);
                invariants::told_is_durable(ctx, at, &self.store, told);
                let key = ctx.key_of(peer);
                let lost = ctx.oracle.lost.as_ref();
                let known = self
                    .replica()
                    .is_some_and(|replica| invariants::enrolled(replica.ledger(), lost, &key));
                ctx.require(known, Invariant::StrangersGetNothing, || {
                    format!("node {at} answered participant {peer}, who is not enrolled")
                });
                ctx.send(at, peer, Packet::Answer(id, Rc::new(encode(&page))));
            }
            Output::Introduce { to, request } => {
                let Some(peer) = self.way_to(ctx, &to) else {
                    return;
                };
                let id = ctx.network.number();
                ctx.send(at, peer, Packet::Enrol(id, Rc::new(encode(&request))));
            }
            Output::AnswerEnrol { reply, answer } => {
                let Some((peer, id)) = self.up().replies.remove(&reply) else {
                    return;
                };
                if let EnrolReply::Enrolled { enrolment, chain } = &answer {
                    let mut told = chain.clone();
                    told.push(enrolment.clone());
                    invariants::told_is_durable(ctx, at, &self.store, (&told, &[], &[]));
                }
                ctx.send(at, peer, Packet::Enrolled(id, Rc::new(encode(&answer))));
            }
            Output::Changed(changed) => {
                let (ledger, plan) = (changed.ledger, changed.plan);
                match (ledger, plan) {
                    (true, true) => ctx.note(at, format_args!("its ledger and plan change")),
                    (true, false) => ctx.note(at, format_args!("its ledger changes")),
                    (false, true) => ctx.note(at, format_args!("its plan changes")),
                    (false, false) => {}
                }
                self.up().dirty = true;
                if plan && ctx.flaw != Some(Flaw::HidesConflicts) {
                    self.tell_conflicts(ctx);
                }
                // Authority and plan do not depend on reports, and to compare them is dear.
                if ledger || plan {
                    ctx.oracle.changed.insert(at);
                }
            }
            Output::Raise(alarm) => {
                ctx.note(at, format_args!("raises an alarm: {alarm:?}"));
                if let mesh::Alarm::ContestedKey { .. } = alarm {
                    let text = format!("node {at} raises {alarm:?}, and each key was changed once");
                    ctx.fail(Invariant::ChangedKeysCount, text);
                }
                if let mesh::Alarm::Cloned { key, fork } = alarm {
                    self.tell_cloned(ctx, key, fork);
                }
            }
            Output::Blame { peer, fault } => {
                let guilty = ctx.oracle.forgers.contains(&peer);
                ctx.require(guilty, Invariant::OnlyTheGuiltyAreBlamed, || {
                    format!("node {at} blames {peer:?}, who {fault}")
                });
            }
        }
    }

    /// Tells people that a key is in two places.
    fn tell_cloned(&mut self, ctx: &mut Context, key: PublicKey, fork: mesh::Fork) {
        let twin = ctx.twin.map(|twin| ctx.key_of(twin.of));
        let is_so = twin == Some(key) || ctx.oracle.is_forked_root(&key, fork);
        let at = self.index;
        ctx.require(is_so, Invariant::OnlyTheGuiltyAreBlamed, || {
            format!("node {at} raises {fork:?} of {key:?}, which is not in two places")
        });
        if ctx.flaw == Some(Flaw::HidesCopies) {
            return;
        }
        ctx.seen.copies_told += 1;
        let short = key.short();
        let text = format!("the key {short} is in use in two places: {fork:?}");
        self.tell(ctx, Note::error("cloned-key", text));
    }

    /// Tells of each conflict of the plan once, and once that it is settled.
    fn tell_conflicts(&mut self, ctx: &mut Context) {
        let up = self.up();
        let Some(replica) = &up.replica else { return };
        let plan = replica.document().plan();
        for apart in up.conflicts.look(plan) {
            let Apart {
                entry,
                field,
                values,
                holds,
            } = apart;
            let note = match values.is_empty() {
                true => Note::info("conflict-settled", format!("{field} is settled: {holds}")),
                false => Note::warn("conflict", format!("{field}: {values:?}; {holds} holds")),
            };
            ctx.seen.conflicts += 1;
            self.up().told_conflicts.insert((entry, field), values);
            self.tell(ctx, note);
        }
    }

    /// Whether people were told of a conflict here, as it is.
    pub fn knows_conflict(&self, entry: &EntryId, conflict: &Conflict) -> bool {
        let told = self.up.as_ref().map(|up| &up.told_conflicts);
        let key = (entry.clone(), conflict.field.clone());
        told.is_some_and(|told| told.get(&key) == Some(&conflict.values))
    }

    pub fn keep(&mut self, ctx: &mut Context, records: Vec<Record>) {
        if let Some(mesh) = self.replica().map(|replica| replica.ledger().mesh()) {
            invariants::everything_verifies(ctx, self.index, mesh, &records);
        }
        let count = records.len();
        let what = format_args!("stores {count} record{}", if count == 1 { "" } else { "s" });
        let detail = || crate::describing::records(&records);
        let ends = [Some(self.index), None];
        ctx.trace.line_from(ctx.now, ends, what, detail);
        if let Some(replica) = self.replica() {
            invariants::only_the_good_is_vouched_for(ctx, replica, &records);
        }
        self.store.keep(records);
    }

    fn gossip(&mut self, ctx: &mut Context, not_to: Option<PublicKey>, news: &Announcement) {
        let at = self.index;
        let told = (&news.statements[..], &news.changes[..], &news.reports[..]);
        invariants::told_is_durable(ctx, at, &self.store, told);
        let bytes = Rc::new(encode(news));
        let neighbours: Vec<usize> = self.up().connected.iter().copied().collect();
        for peer in neighbours {
            let key = ctx.key_of(peer);
            if Some(key) != not_to && self.way_to(ctx, &key) == Some(peer) {
                ctx.send(at, peer, Packet::Gossip(bytes.clone()));
            }
        }
    }

    /// Takes a message.
    pub fn receive(&mut self, ctx: &mut Context, from: usize, packet: Packet) -> Lived {
        let key = ctx.key_of(from);
        let now = self.now(ctx);
        let admitted = self
            .replica()
            .is_some_and(|replica| replica.authority().admits(now.wall, &key));
        let open = admitted || ctx.flaw == Some(Flaw::AnswersStrangers);
        match packet {
            Packet::Gossip(bytes) if admitted => {
                let Ok(announcement) = codec::decode::<Announcement>(&bytes) else {
                    return Ok(());
                };
                let via = key;
                self.replica_input(ctx, Input::Announced { via, announcement })
            }
            Packet::Ask(id, bytes) if open => {
                let Ok(request) = codec::decode::<Request>(&bytes) else {
                    return Ok(());
                };
                let reply = ctx.network.number();
                self.up().replies.insert(reply, (from, id));
                self.replica_input(
                    ctx,
                    Input::Asked {
                        from: key,
                        request,
                        reply,
                    },
                )
            }
            Packet::Answer(id, bytes) if admitted => {
                let expected = self
                    .up()
                    .asked
                    .get(&id)
                    .is_some_and(|(peer, _)| *peer == from);
                if !expected {
                    return Ok(());
                }
                self.up().asked.remove(&id);
                let input = match codec::decode::<Page>(&bytes) {
                    Ok(page) => Input::Answered { from: key, page },
                    Err(_) => Input::AskFailed { from: key },
                };
                self.replica_input(ctx, input)
            }
            Packet::Enrol(id, bytes) => {
                let Ok(request) = codec::decode::<EnrolRequest>(&bytes) else {
                    return Ok(());
                };
                let reply = ctx.network.number();
                self.up().replies.insert(reply, (from, id));
                let nonce = self.rng.bytes();
                self.replica_input(
                    ctx,
                    Input::Enrol {
                        from: key,
                        request,
                        nonce,
                        reply,
                    },
                )
            }
            Packet::Enrolled(id, bytes) if self.is_recovering() => {
                self.recover_answered(ctx, id, &bytes)
            }
            Packet::Enrolled(id, bytes) => self.enrol_answered(ctx, id, &bytes),
            Packet::Gossip(_) | Packet::Ask(..) | Packet::Answer(..) => Ok(()),
        }
    }

    /// Time passed.
    pub fn tick(&mut self, ctx: &mut Context) -> Lived {
        let now = ctx.now;
        let late: Vec<(u64, usize)> = self
            .up()
            .asked
            .iter()
            .filter(|(_, (_, deadline))| now >= *deadline)
            .map(|(id, (peer, _))| (*id, *peer))
            .collect();
        for (id, peer) in late {
            self.up().asked.remove(&id);
            let from = ctx.key_of(peer);
            self.replica_input(ctx, Input::AskFailed { from })?;
        }
        self.join(ctx);
        self.replica_input(ctx, Input::Tick)?;
        self.up().dirty = true;
        self.settle(ctx)?;
        self.publish(ctx)
    }

    /// Asks to be enrolled, or asks again.
    fn join(&mut self, ctx: &mut Context) {
        let (at, now) = (self.index, ctx.now);
        let Some(token) = self.token.clone() else {
            return;
        };
        let waiting = matches!(self.up().join_asked, Some((_, until)) if now < until);
        if self.up().replica.is_some() || waiting {
            return;
        }
        let Some(admitter) = ctx.index_of(&token.admitter) else {
            return;
        };
        let joiner = Joiner::new(token, self.identity.clone(), self.name.clone());
        let id = ctx.network.number();
        ctx.send(
            at,
            admitter,
            Packet::Enrol(id, Rc::new(encode(&joiner.start()))),
        );
        let up = self.up();
        up.joiner = Some(joiner);
        up.join_asked = Some((id, now + ANSWER_MILLIS));
    }

    fn enrol_answered(&mut self, ctx: &mut Context, id: u64, bytes: &[u8]) -> Lived {
        let up = self
            .up
            .as_mut()
            .expect("only a running node is given events");
        let expected = matches!(up.join_asked, Some((asked, _)) if asked == id);
        let (true, Some(joiner), Some(token)) = (expected, &up.joiner, &self.token) else {
            return Ok(());
        };
        let Ok(reply) = codec::decode::<EnrolReply>(bytes) else {
            return Ok(());
        };
        let at = self.index;
        match joiner.answered(reply) {
            Ok(JoinStep::Send(request)) => {
                let admitter = ctx.index_of(&token.admitter).expect("it was asked before");
                let id = ctx.network.number();
                up.join_asked = Some((id, ctx.now + ANSWER_MILLIS));
                ctx.send(at, admitter, Packet::Enrol(id, Rc::new(encode(&request))));
            }
            Ok(JoinStep::Done(ledger)) => {
                let records = ledger.iter().map(|(_, recorded)| recorded.signed.clone());
                let records = records.map(Record::Statement).collect();
                self.deed(ctx)?;
                self.keep(ctx, records);
                self.deed(ctx)?;
                ctx.note(at, format_args!("is enrolled"));
                match self.store.restore(self.identity.clone(), None) {
                    Ok(replica) => {
                        self.up().replica = Some(replica);
                        self.up().know_conflicts();
                    }
                    Err(why) => ctx.fail(Invariant::EnrolmentEnds, why),
                }
                self.up().join_asked = None;
            }
            // The challenge was lost or replaced: from the beginning.
            Err(JoinError::Denied(DeniedCode::BadProof | DeniedCode::Busy)) => {
                up.join_asked = None;
            }
            // The script may revoke a node before it heard that it was enrolled.
            Err(JoinError::Denied(DeniedCode::KeyRevoked)) => up.join_asked = None,
            Err(why) => {
                up.join_asked = None;
                ctx.fail(
                    Invariant::EnrolmentEnds,
                    format!("node {at} cannot join: {why}"),
                );
            }
        }
        Ok(())
    }

    /// Publishes a report when it would say something new.
    fn publish(&mut self, ctx: &mut Context) -> Lived {
        let now = self.now(ctx);
        let Some(mut report) = self.report(now) else {
            return Ok(());
        };
        report.renewals = self.renewals(ctx, now);
        let replica = self
            .up()
            .replica
            .as_mut()
            .expect("only the enrolled report");
        if !replica.may_write() {
            return Ok(());
        }
        let published = replica.reports().get(&report.node);
        let said = published.map(|published| crdt::Report {
            version: 0,
            follows: None,
            at: UnixSecs(0),
            ..published.clone()
        });
        if ctx.flaw == Some(Flaw::VouchesForEver)
            && report.renewals.is_empty()
            && let Some(said) = &said
        {
            report.renewals.clone_from(&said.renewals);
        }
        let me = replica.my_key();
        if said.as_ref() == Some(&report) || !replica.authority().admits(now.wall, &me) {
            return Ok(());
        }
        for job in report.jobs.iter().filter(|job| job.role == JobRole::Agent) {
            let (migration, volume) = (job.migration, job.volume);
            invariants::agent_epochs_rise(ctx, JobId { migration, volume }, job.epoch);
        }
        let mut out = vec![];
        replica
            .publish(now.wall, report, &mut out)
            .expect("a report is cut to its limit");
        self.carry_replica(ctx, out)
    }

    /// Gives the machines of the roles what is new, until nothing is.
    pub fn settle(&mut self, ctx: &mut Context) -> Lived {
        while std::mem::take(&mut self.up().dirty) {
            self.duties(ctx)?;
        }
        Ok(())
    }

    /// The mesh this node belongs to.
    pub fn mesh(&self) -> Option<MeshId> {
        Some(self.replica()?.ledger().mesh())
    }
}

/// Encodes what our own code made.
pub fn encode<T: Wire>(value: &T) -> Vec<u8> {
    codec::encode(value).expect("what our own code makes is within its limits")
}
