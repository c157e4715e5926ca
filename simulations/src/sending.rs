//! The agent's shell: opens sessions with a ticket, reads the source, sends what
//! differs from the stored tree, and commits what was acknowledged.
//!
//! Not here: when to do which (`roles::agent`), and what a session may say
//! (`blocks::source`).

use crate::context::{Context, Flaw};
use crate::disk::{StoredTree, bytes, entry};
use crate::invariants::{self, Invariant};
use crate::network::Event;
use crate::node::{Died, Lived, Node, encode};
use blocks::source::{Input, Output, SessionError, Source};
use blocks::{BLOCK_SIZE, BlockIndex, CloseReason, frame::PREFIX_LEN};
use blocks::{
    Encoding, Extent, FramePrefix, MAX_EXTENT_BLOCKS, MAX_ZERO_BLOCKS, ToSource, ToTarget,
    ZERO_ENTRY,
};
use crdt::{PassRead, PassSummary};
use keys::proof::{End, Method};
use keys::{Epoch, Permit, PublicKey, SendBlocks, Signed, StatementId};
use roles::agent::{self, Action, Finished};
use roles::proof::{self, SealedProof, Subject};
use roles::{JobId, Ticket};
use std::collections::VecDeque;

/// One session of the agent.
pub struct Sending {
    /// Its stream.
    pub stream: u64,
    /// Of which epoch.
    pub epoch: Epoch,
    /// What allows it.
    pub permit: Permit<SendBlocks>,
    machine: Source,
    inputs: VecDeque<Input>,
    is_driven: bool,
    cursor: Option<u64>,
    pass_began: u64,
}

/// Splits a frame into its header and its payload, checking the lengths.
pub fn header(frame: &[u8], payload: usize) -> Option<&[u8]> {
    let (prefix, header) = frame.split_first_chunk::<PREFIX_LEN>()?;
    let prefix = FramePrefix::decode(*prefix).ok()?;
    (prefix.header == header.len() && prefix.payload == payload).then_some(header)
}

impl Node {
    /// Gives an agent's machine an input and does what follows.
    pub fn agent_input(&mut self, ctx: &mut Context, job: JobId, input: agent::Input) -> Lived {
        let now = self.now(ctx);
        let Some(machine) = self.up().agents.get_mut(&job) else {
            return Ok(());
        };
        let mut out = vec![];
        machine.step(now, input, &mut out);
        let asks_again = out.iter().any(|action| matches!(action, Action::Store(_)));
        for action in out {
            self.deed(ctx)?;
            self.carry_agent(ctx, job, action)?;
        }
        let up = self.up();
        up.dirty |= asks_again;
        if up.agents.get(&job).is_some_and(agent::Agent::gone) {
            up.agents.remove(&job);
        }
        self.drive_source(ctx, job)
    }

    pub(crate) fn carry_agent(&mut self, ctx: &mut Context, job: JobId, action: Action) -> Lived {
        match action {
            Action::Store(record) => self.store_agent(ctx, *record),
            Action::OpenSession { permit, epoch } => {
                invariants::agent_epochs_rise(ctx, job, epoch);
                self.open_session(ctx, job, permit, epoch);
            }
            Action::BeginPass { pass, .. } => self.source_later(job, Input::BeginPass { pass }),
            Action::Finish { read_back } => {
                if let Some(tree) = self.tree_of(job) {
                    let root = tree.root();
                    self.source_later(job, Input::Finish { root, read_back });
                }
            }
            Action::StateRoot => self.rooted(ctx, job)?,
            Action::CloseSession => self.source_later(job, Input::Stop),
            Action::Forget => {
                self.store.agents.remove(&job);
                self.store.trees.retain(|(of, _), _| *of != job);
                ctx.oracle.forget(&job);
                // With the migration its copies are gone: a plan that comes back with an old
                // store begins anew, until its deletion is heard again.
                ctx.oracle.forget_epoch(&job);
                self.end_session(ctx, job);
            }
            Action::Tell(note) => self.tell(ctx, note),
        }
        Ok(())
    }

    pub(crate) fn store_agent(&mut self, ctx: &mut Context, mut record: agent::Record) {
        let job = record.job;
        let before = self.store.agents.get(&job);
        let was = before.is_some_and(|before| before.finished.is_some());
        if let Some(finished) = record.finished.as_ref().filter(|_| !was)
            && ctx.oracle.cut_over(job, record.epoch, finished.root)
        {
            ctx.seen.cut_over += 1;
        }
        let left = before.filter(|before| before.epoch < record.epoch);
        if let Some(left) = left {
            ctx.seen.replaced += 1;
            ctx.oracle.forget(&job);
            if ctx.flaw == Some(Flaw::ForgetsEpoch) {
                record.epoch = left.epoch;
            }
        }
        self.store.agents.insert(job, record);
    }

    /// The stored tree of the session that a job has.
    fn tree_of(&mut self, job: JobId) -> Option<&mut StoredTree> {
        let epoch = self.up().sending.get(&job)?.epoch;
        self.store.trees.get_mut(&(job, epoch))
    }

    fn end_session(&mut self, ctx: &mut Context, job: JobId) {
        if let Some(session) = self.up().sending.remove(&job) {
            ctx.close_stream(session.stream, 0);
        }
    }

    fn open_session(
        &mut self,
        ctx: &mut Context,
        job: JobId,
        permit: Permit<SendBlocks>,
        epoch: Epoch,
    ) {
        self.end_session(ctx, job);
        let Some(ticket) = self.ticket(job, epoch, &permit) else {
            return;
        };
        let Some(peer) = self.way_to(ctx, &permit.replicator()) else {
            return;
        };
        let geometry = self.sources[&job.volume].geometry;
        // What an older epoch left: its session is over.
        self.store
            .trees
            .retain(|(of, older), _| *of != job || *older >= epoch);
        let tree = self.store.trees.entry((job, epoch));
        let tree = tree.or_insert_with(|| StoredTree::blank(geometry));
        let damaged = tree.take_damaged();
        if !damaged.is_empty() && ctx.flaw != Some(Flaw::TrustsTrees) {
            // Zeros as good as any: where they are wrong the groups are compared.
            let blocks = damaged
                .iter()
                .flat_map(|group| geometry.group_blocks(*group));
            blocks.for_each(|block| tree.set(block, ZERO_ENTRY));
            tree.sync();
            ctx.oracle.forget(&job);
        }
        let barrier = self
            .store
            .agents
            .get(&job)
            .map_or(0, |record| record.barrier);
        let machine = Source::new(geometry, barrier, tree.mark(), encode(&ticket));
        let stream = ctx.open_stream(self.index, peer);
        let what = format_args!("opens stream {stream} to n{peer} for {job}");
        ctx.note(self.index, what);
        let session = Sending {
            stream,
            epoch,
            permit,
            machine,
            inputs: VecDeque::from([Input::Start]),
            is_driven: false,
            cursor: None,
            pass_began: 0,
        };
        self.up().sending.insert(job, session);
    }

    /// What the agent shows: the grant and all that it rests on.
    pub fn ticket(&self, job: JobId, epoch: Epoch, permit: &Permit<SendBlocks>) -> Option<Ticket> {
        let ledger = self.replica()?.ledger();
        let grant = ledger.get(&permit.grant())?.signed.clone();
        let ends = [grant.signer, permit.agent(), permit.replicator()];
        let wanted = ends.iter().flat_map(|key| ledger.origins(key));
        let support = ledger.chain(wanted, roles::ticket::MAX_STATEMENTS);
        let support = support.unwrap_or_default();
        Some(Ticket {
            job,
            epoch,
            grant,
            support,
        })
    }

    fn source_later(&mut self, job: JobId, input: Input) {
        if let Some(session) = self.up().sending.get_mut(&job) {
            session.inputs.push_back(input);
        }
    }

    /// Works off the inputs of a session, one after the other.
    pub fn drive_source(&mut self, ctx: &mut Context, job: JobId) -> Lived {
        loop {
            let Some(session) = self.up().sending.get_mut(&job) else {
                return Ok(());
            };
            if session.is_driven {
                return Ok(());
            }
            let Some(input) = session.inputs.pop_front() else {
                return Ok(());
            };
            let stream = session.stream;
            if matches!(input, Input::BeginPass { .. }) {
                session.cursor = Some(0);
                session.pass_began = ctx.now;
                let node = self.index;
                ctx.network
                    .schedule(ctx.now + 1, Event::Pump { node, job, stream });
            }
            let session = self.up().sending.get_mut(&job).expect("it was there above");
            let mut out = vec![];
            session.machine.step(input, &mut out);
            session.is_driven = true;
            for output in out {
                self.deed(ctx)?;
                self.carry_source(ctx, job, stream, output)?;
            }
            if let Some(session) = self.up().sending.get_mut(&job)
                && session.stream == stream
            {
                session.is_driven = false;
            }
        }
    }

    fn carry_source(
        &mut self,
        ctx: &mut Context,
        job: JobId,
        stream: u64,
        output: Output,
    ) -> Lived {
        match output {
            Output::Send(frame) => {
                let bytes = frame.encode(0).expect("our own frames are within limits");
                ctx.send_frame(stream, 0, bytes, vec![]);
            }
            Output::Answered { .. } => unreachable!("no source here makes offers"),
            Output::LoadGroups { first, count } => {
                let tree = self.tree_of(job).expect("a session has a tree");
                let marks = tree.marks(first, count);
                self.source_later(job, Input::OurGroups { first, marks });
            }
            Output::Adopt { group, entries } => {
                ctx.seen.adopted_groups += 1;
                let tree = self.tree_of(job).expect("a session has a tree");
                for (block, entry) in tree.geometry().group_blocks(group).zip(entries) {
                    tree.set(block, entry);
                }
            }
            Output::Ready {
                barrier,
                adopted_groups,
                ..
            } => {
                ctx.seen.sessions += 1;
                self.sync_tree(job);
                let epoch = self.up().sending.get(&job).map(|session| session.epoch);
                let stored = self.store.agents.get(&job).map(|record| record.epoch);
                // A session that was left may still have a word to say.
                if epoch == stored {
                    ctx.oracle.level(job);
                }
                let input = agent::Input::SessionReady {
                    barrier,
                    groups_adopted: adopted_groups,
                };
                self.agent_input(ctx, job, input)?;
            }
            Output::Commit {
                barrier, extents, ..
            } => self.commit(ctx, job, barrier, &extents)?,
            Output::PassDone {
                pass,
                blocks_sent,
                payload_bytes,
            } => {
                let began = self
                    .up()
                    .sending
                    .get(&job)
                    .map_or(0, |session| session.pass_began);
                let summary = PassSummary {
                    pass,
                    blocks: blocks_sent,
                    bytes_sent: payload_bytes,
                    millis: ctx.now - began,
                    since_millis: None,
                    read: PassRead::Whole,
                };
                let done = agent::Input::PassDone {
                    summary,
                    is_final: true,
                    is_followed: false,
                };
                self.agent_input(ctx, job, done)?;
            }
            Output::Done {
                root,
                proof,
                read_back: _,
            } => self.done(ctx, job, root.0, &proof)?,
            Output::Stopped => self.end_session(ctx, job),
            Output::Fail(error) => {
                let what = format_args!("stream {stream} failed: {error}");
                ctx.note(self.index, what);
                self.end_session(ctx, job);
                let input = match error {
                    SessionError::Refused { code } => agent::Input::Refused(code),
                    error => agent::Input::SessionLost(error.to_string()),
                };
                self.agent_input(ctx, job, input)?;
            }
        }
        Ok(())
    }

    fn sync_tree(&mut self, job: JobId) {
        if let Some(tree) = self.tree_of(job) {
            tree.sync();
        }
    }

    fn commit(&mut self, ctx: &mut Context, job: JobId, barrier: u64, extents: &[Extent]) -> Lived {
        for extent in extents {
            self.deed(ctx)?;
            if let Some(tree) = self.tree_of(job) {
                tree.store(extent);
            }
        }
        self.deed(ctx)?;
        self.sync_tree(job);
        for extent in extents {
            ctx.oracle.committed(job, extent);
        }
        self.deed(ctx)?;
        let tree = self.tree_of(job).expect("a session has a tree");
        let mark = tree.mark();
        self.source_later(job, Input::Committed { barrier, mark });
        self.agent_input(ctx, job, agent::Input::BarrierReached(barrier))
    }

    /// The target has stated its root: check it, and state the source's.
    fn done(&mut self, ctx: &mut Context, job: JobId, root: [u8; 32], proof: &[u8]) -> Lived {
        let now = self.now(ctx);
        let Some(mesh) = self.mesh() else {
            return Ok(());
        };
        let waits = self
            .up()
            .agents
            .get(&job)
            .is_some_and(|machine| machine.finishing().is_some());
        // Paused, lost or left while it was under way: nothing is signed.
        let Some(session) = self.up().sending.get(&job).filter(|_| waits) else {
            return Ok(());
        };
        let replicator = session.permit.replicator();
        let subject = Subject {
            mesh,
            job,
            epoch: session.epoch,
            length: self.sources[&job.volume].geometry.length(),
            root,
        };
        match proof::check(proof, &replicator, &subject, End::Target) {
            // Something on the way, for an honest replicator signs what it says.
            Err(bad) => {
                self.end_session(ctx, job);
                self.agent_input(ctx, job, agent::Input::SessionLost(bad.to_string()))
            }
            Ok(target_proof) => {
                let method = Method::ReadInFull;
                let source_proof =
                    proof::sign(&self.identity, &subject, End::Source, method, now.wall);
                let finished = Finished {
                    root,
                    source_proof,
                    target_proof,
                    frozen_millis: None,
                };
                self.agent_input(ctx, job, agent::Input::Finished(finished))
            }
        }
    }

    /// The source states its root for a checkpoint.
    fn rooted(&mut self, ctx: &mut Context, job: JobId) -> Lived {
        let now = self.now(ctx);
        let machine = self.up().agents.get(&job);
        let name = machine.and_then(agent::Agent::rooting).cloned();
        let root = self.tree_of(job).map(|tree| tree.root());
        let (Some(mesh), Some(name), Some(root)) = (self.mesh(), name, root) else {
            return self.agent_input(ctx, job, agent::Input::Rooted(None));
        };
        let epoch = self.up().sending[&job].epoch;
        let subject = Subject {
            mesh,
            job,
            epoch,
            length: self.sources[&job.volume].geometry.length(),
            root: root.0,
        };
        let (method, named) = (Method::ReadInFull, Some(name.clone()));
        let proof = proof::sign_for(
            &self.identity,
            &subject,
            (End::Source, keys::LeftOut::default()),
            method,
            now.wall,
            named,
        );
        let point = agent::CheckpointPoint {
            name,
            epoch,
            proof,
            frozen_millis: None,
            is_held: false,
        };
        self.agent_input(ctx, job, agent::Input::Rooted(Some(Box::new(point))))
    }

    /// Takes a frame from the replicator.
    pub fn source_frame(&mut self, ctx: &mut Context, stream: u64, frame: &[u8]) -> Lived {
        let Some(job) = self.job_of(stream) else {
            return Ok(());
        };
        let frame = header(frame, 0).map(|header| ToSource::decode(header, 0));
        let input = match frame {
            Some(Ok(frame)) => Input::Received(frame),
            _ => Input::Closed(CloseReason::Garbled),
        };
        self.source_later(job, input);
        self.drive_source(ctx, job)
    }

    /// Learns that a stream is over.
    pub fn source_closed(&mut self, ctx: &mut Context, stream: u64, reason: CloseReason) -> Lived {
        let Some(job) = self.job_of(stream) else {
            return Ok(());
        };
        self.source_later(job, Input::Closed(reason));
        self.drive_source(ctx, job)
    }

    fn job_of(&mut self, stream: u64) -> Option<JobId> {
        let mut sessions = self.up().sending.iter();
        let found = sessions.find(|(_, session)| session.stream == stream);
        found.map(|(job, _)| *job)
    }

    /// Reads on, and sends what differs.
    pub fn pump(&mut self, ctx: &mut Context, job: JobId, stream: u64) -> Lived {
        let now = self.now(ctx);
        for _ in 0..=self.rng.below(3) {
            let Some(session) = self.up().sending.get(&job) else {
                return Ok(());
            };
            let (is_current, may_send) = (session.stream == stream, session.machine.may_send());
            let (Some(cursor), true, true) = (session.cursor, is_current, may_send) else {
                return Ok(());
            };
            if !session.permit.holds(now) && ctx.flaw != Some(Flaw::NeverRechecks) {
                self.up().dirty = true;
                break;
            }
            if self.rng.happens(80) {
                // The machine must hear of it before the next extent is sent, or the two
                // ends would count that extent to different barriers.
                self.source_later(job, Input::BarrierDue);
                self.drive_source(ctx, job)?;
                continue;
            }
            match self.next_extent(job, cursor) {
                None => {
                    if let Some(session) = self.up().sending.get_mut(&job) {
                        session.cursor = None;
                    }
                    self.source_later(job, Input::PassRead);
                    return self.drive_source(ctx, job);
                }
                Some(extent) => self.send_extent(ctx, job, stream, extent)?,
            }
            self.drive_source(ctx, job)?;
        }
        let slowest = if ctx.calm { 20 } else { 250 };
        let (node, at) = (self.index, ctx.now + self.rng.between(1, slowest));
        ctx.network.schedule(at, Event::Pump { node, job, stream });
        Ok(())
    }

    /// The next run that differs from the stored tree, from `cursor` on.
    fn next_extent(&mut self, job: JobId, cursor: u64) -> Option<Extent> {
        let rng = &mut self.rng;
        let volume = &self.sources[&job.volume];
        let epoch = self.up.as_ref()?.sending.get(&job)?.epoch;
        let tree = &self.store.trees[&(job, epoch)];
        let (geometry, contents) = (volume.geometry, &volume.contents);
        let differs = |block: u64| {
            entry(geometry, block, &contents[block as usize]) != tree.cached[block as usize]
        };
        let is_zero = |block: u64| entry(geometry, block, &contents[block as usize]) == ZERO_ENTRY;
        let first = (cursor..geometry.blocks()).find(|block| differs(*block))?;
        let zeros = is_zero(first);
        let longest = match zeros {
            true => u64::from(MAX_ZERO_BLOCKS),
            false if rng.happens(250) => 1 + rng.below(u64::from(MAX_EXTENT_BLOCKS)),
            // Small ones, so that a pass takes long enough for something to happen in it.
            false => 1 + rng.below(3),
        };
        let end = geometry.blocks().min(first + longest);
        let end = (first + 1..end)
            .find(|block| is_zero(*block) != zeros || !differs(*block))
            .unwrap_or(end);
        Some(match zeros {
            true => Extent::Zero {
                first: BlockIndex(first),
                count: u32::try_from(end - first).expect("at most the longest zero extent"),
            },
            false => Extent::Data {
                first: BlockIndex(first),
                leaves: (first..end)
                    .map(|block| entry(geometry, block, &contents[block as usize]))
                    .collect(),
            },
        })
    }

    fn send_extent(
        &mut self,
        ctx: &mut Context,
        job: JobId,
        stream: u64,
        extent: Extent,
    ) -> Result<(), Died> {
        self.deed(ctx)?;
        self.sent_with_permission(ctx, job);
        let volume = &self.sources[&job.volume];
        let (frame, payload) = match &extent {
            Extent::Zero { first, count } => {
                let (first, count) = (*first, *count);
                (ToTarget::Zero { first, count }, vec![])
            }
            Extent::Data { first, leaves } => {
                let blocks = first.0..first.0 + leaves.len() as u64;
                let contents = &volume.contents;
                let mut payload = Vec::with_capacity(leaves.len() * BLOCK_SIZE);
                for block in blocks {
                    let content = &contents[block as usize];
                    payload.extend_from_slice(&bytes(volume.geometry, block, content));
                }
                let frame = ToTarget::Extent {
                    first: *first,
                    encoding: Encoding::Raw,
                    leaves: leaves.clone(),
                    fingerprints: vec![],
                };
                (frame, payload)
            }
        };
        let header = frame
            .encode(payload.len())
            .expect("our own frames are within limits");
        let payload_bytes = payload.len() as u64;
        ctx.send_frame(stream, 0, header, payload);
        ctx.oracle.sent(job, &extent);
        if let Some(session) = self.up().sending.get_mut(&job) {
            session.cursor = Some(extent.first().0 + extent.count());
        }
        self.source_later(
            job,
            Input::ExtentSent {
                extent,
                payload_bytes,
            },
        );
        Ok(())
    }

    fn sent_with_permission(&mut self, ctx: &mut Context, job: JobId) {
        let wall = self.now(ctx).wall;
        let Some(session) = self.up().sending.get(&job) else {
            return;
        };
        let (agent, replicator) = (session.permit.agent(), session.permit.replicator());
        let grant: StatementId = session.permit.grant();
        let Some(ledger) = self.replica().map(mesh::Replica::ledger) else {
            return;
        };
        invariants::moved_with_permission(
            ctx,
            Invariant::SentWithPermission,
            (self.index, ledger, wall),
            grant,
            job,
            [&agent, &replicator],
        );
        invariants::no_copy_moves(ctx, self, [&agent, &replicator]);
        self.moved_within_lease(ctx, grant, replicator);
    }

    /// INV-23 for a block that moves at this end.
    pub(crate) fn moved_within_lease(
        &self,
        ctx: &mut Context,
        grant: StatementId,
        replicator: PublicKey,
    ) {
        if let Some(replica) = self.replica() {
            invariants::moved_within_lease(ctx, replica, grant, &replicator);
        }
    }

    /// A proof as it travels.
    pub fn sealed(signed: Signed) -> Vec<u8> {
        encode(&SealedProof(signed))
    }
}
