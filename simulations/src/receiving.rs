//! The replicator's shell: admits streams, writes what was checked, and acknowledges
//! what is durable.
//!
//! Not here: whom to admit (`roles::replicator`), and what a session may say
//! (`blocks::target`).

use crate::context::{Context, Flaw};
use crate::disk::{Content, Disk, StoredTree, ZEROS, content, entry, flat_root};
use crate::flushing::{Flush, Outcome};
use crate::invariants::{self, Invariant};
use crate::node::{Died, Lived, Node};
use crate::rng::{Rng, Stream};
use crate::sending::header;
use crate::store::Copy;
use blocks::target::{Input, Output, Target, TargetError};
use blocks::{BLOCK_SIZE, BadExtent, CloseReason, Encoding, Geometry, GroupIndex, Held, Root};
use blocks::{RefusalCode, ToSource, ToTarget, check_extent};
use keys::proof::{End, Method};
use keys::{Denied, Permit, ReceiveBlocks};
use roles::proof::{self, Subject};
use roles::replicator::{Admitted, code_for};
use roles::{JobId, Note, Ticket};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One session of the replicator.
pub struct Receiving {
    /// The volume.
    pub job: JobId,
    /// What allows it.
    pub permit: Permit<ReceiveBlocks>,
    /// The machine.
    pub machine: Target,
    /// What the machine is still to be told.
    pub inputs: VecDeque<Input>,
    held: (u64, Vec<Content>),
    /// Flushes under way, oldest first.
    pub flushes: VecDeque<Flush>,
    /// Whether it is to be dropped.
    pub is_ended: bool,
}

impl Node {
    /// Takes a frame from an agent, or from whoever says that it is one.
    pub fn target_frame(
        &mut self,
        ctx: &mut Context,
        stream: u64,
        from: usize,
        frame: &[u8],
        payload: &[u8],
    ) -> Lived {
        let decoded = header(frame, payload.len());
        let decoded = decoded.and_then(|header| ToTarget::decode(header, payload.len()).ok());
        let known = self.up().receiving.contains_key(&stream);
        match (known, decoded) {
            (false, Some(open @ ToTarget::Open { .. })) => self.admit(ctx, stream, from, open),
            (false, _) => Ok(()),
            (true, None) => self.target_input(ctx, stream, Input::Closed(CloseReason::Garbled)),
            (true, Some(frame)) => {
                if let Some(denied) = self.permission_over(ctx, stream) {
                    let text = format!("a stream was ended: {denied}");
                    self.tell(ctx, Note::error("grant-refused", text));
                    return self.refuse_session(ctx, stream, denied);
                }
                let input = self.checked(stream, frame, payload);
                self.target_input(ctx, stream, input)
            }
        }
    }

    /// Learns that a stream is over.
    pub fn target_closed(&mut self, ctx: &mut Context, stream: u64, reason: CloseReason) -> Lived {
        match self.up().receiving.contains_key(&stream) {
            true => self.target_input(ctx, stream, Input::Closed(reason)),
            false => Ok(()),
        }
    }

    /// Ends a session whose permission is over.
    pub fn refuse_session(&mut self, ctx: &mut Context, stream: u64, denied: Denied) -> Lived {
        ctx.seen.refused_streams += 1;
        if matches!(denied, Denied::LeaseOver { .. }) {
            ctx.seen.leases_over += 1;
        }
        self.target_input(ctx, stream, Input::Refuse(code_for(&denied)))
    }

    fn refuse_stream(&mut self, ctx: &mut Context, stream: u64, code: RefusalCode) {
        ctx.seen.refused_streams += 1;
        let frame = ToSource::Refused { code };
        let bytes = frame.encode().expect("our own frames are within limits");
        ctx.send_frame(stream, 1, bytes, vec![]);
        ctx.close_stream(stream, 1);
    }

    fn admit(&mut self, ctx: &mut Context, stream: u64, from: usize, open: ToTarget) -> Lived {
        let ToTarget::Open { ticket, length, .. } = &open else {
            return Ok(());
        };
        let Ok(ticket) = codec::decode::<Ticket>(ticket) else {
            self.refuse_stream(ctx, stream, RefusalCode::BadFrame);
            return Ok(());
        };
        let key = ctx.key_of(from);
        let mut statements = ticket.support.clone();
        statements.push(ticket.grant.clone());
        self.replica_input(
            ctx,
            mesh::Input::Shown {
                from: key,
                statements,
            },
        )?;
        let now = self.now(ctx);
        let up = self
            .up
            .as_ref()
            .expect("only a running node is given events");
        let decided = self.with_situation(now, |situation| {
            up.replicator.admit(situation, key, &ticket, *length)
        });
        let admitted = match decided {
            None => {
                self.refuse_stream(ctx, stream, RefusalCode::NotReady);
                return Ok(());
            }
            Some(Err(refusal)) => {
                self.tell(ctx, refusal.note);
                self.refuse_stream(ctx, stream, refusal.code);
                return Ok(());
            }
            Some(Ok(admitted)) => admitted,
        };
        let forged = ctx.oracle.forged_streams.contains(&stream);
        ctx.require(!forged, Invariant::StrangersGetNothing, || {
            format!(
                "node {} admitted a forged stream for {}",
                self.index, ticket.job
            )
        });
        let lost = ctx.oracle.lost.as_ref();
        let knows = self
            .replica()
            .is_some_and(|replica| invariants::enrolled(replica.ledger(), lost, &key));
        let index = self.index;
        ctx.require(knows, Invariant::StrangersGetNothing, || {
            format!("node {index} admitted a stream of participant {from}, who is not enrolled")
        });
        let busy = up
            .receiving
            .values()
            .any(|session| session.job == ticket.job);
        let Ok(geometry) = Geometry::new(*length) else {
            self.refuse_stream(ctx, stream, RefusalCode::SizeMismatch);
            return Ok(());
        };
        if self.is_copy(ctx) {
            self.refuse_stream(ctx, stream, RefusalCode::NotReady);
            return Ok(());
        }
        if busy {
            self.refuse_stream(ctx, stream, RefusalCode::Busy);
            return Ok(());
        }
        self.serve(ctx, stream, admitted, geometry)?;
        self.target_input(ctx, stream, Input::Received(open))
    }

    /// Makes the copy ready and begins to serve it.
    fn serve(
        &mut self,
        ctx: &mut Context,
        stream: u64,
        admitted: Admitted,
        geometry: Geometry,
    ) -> Lived {
        let Admitted {
            permit,
            record,
            fresh,
            note,
        } = admitted;
        let job = record.job;
        invariants::epochs_rise(ctx, self.index, job, record.epoch);
        self.tell(ctx, note);
        if !self.store.disks.contains_key(&record.path) {
            self.store
                .disks
                .insert(record.path.clone(), used_disk(ctx.seed, &job, geometry));
        }
        if fresh {
            ctx.oracle.forget(&job);
            self.deed(ctx)?;
            // Nothing is known of what the volume holds: all of it is read.
            let disk = self
                .store
                .disks
                .get_mut(&record.path)
                .expect("it was made above");
            disk.sync();
            let tree = StoredTree::of(geometry, &disk.cached);
            self.up().replicator.stored(record.clone());
            let notes = BTreeMap::new();
            self.store.copies.insert(
                job,
                Copy {
                    record,
                    proof: None,
                    tree,
                    notes,
                    is_treeless: false,
                },
            );
        } else {
            if let Some(copy) = self.store.copies.get_mut(&job) {
                copy.record = record.clone();
                copy.proof = None;
            }
            self.up().replicator.stored(record);
        }
        self.deed(ctx)?;
        self.recover(ctx, job)?;
        let copy = &self.store.copies[&job];
        let machine = Target::new(geometry, copy.record.barrier, copy.tree.mark());
        invariants::acknowledged_survives(ctx, job, copy.record.epoch, copy.record.barrier);
        let session = Receiving {
            job,
            permit,
            machine,
            inputs: VecDeque::new(),
            held: (0, vec![]),
            flushes: VecDeque::new(),
            is_ended: false,
        };
        self.up().receiving.insert(stream, session);
        Ok(())
    }

    /// Brings the stored tree level with the disk after a crash.
    fn recover(&mut self, ctx: &mut Context, job: JobId) -> Lived {
        let copy = self
            .store
            .copies
            .get(&job)
            .expect("only a copy is recovered");
        let (geometry, path) = (copy.tree.geometry(), copy.record.path.clone());
        let mut groups: BTreeSet<GroupIndex> = copy.notes.keys().copied().collect();
        let copy = self.copy(job);
        if ctx.flaw == Some(Flaw::TrustsTrees) {
            copy.tree.take_damaged();
        }
        groups.extend(copy.tree.damaged());
        if copy.is_treeless {
            groups.extend((0..geometry.groups()).map(GroupIndex));
        }
        if groups.is_empty() {
            return Ok(());
        }
        ctx.seen.recoveries += 1;
        self.deed(ctx)?;
        self.store
            .disks
            .get_mut(&path)
            .expect("a copy has a disk")
            .sync();
        let is_blind =
            ctx.flaw == Some(Flaw::ForgetsNotes) || ctx.flaw == Some(Flaw::WritesNothing);
        if !is_blind {
            for block in groups
                .into_iter()
                .flat_map(|group| geometry.group_blocks(group))
            {
                let truth = entry(
                    geometry,
                    block,
                    &self.store.disks[&path].cached[block as usize],
                );
                let copy = self.store.copies.get_mut(&job).expect("it was there above");
                copy.tree.set(block, truth);
            }
        }
        self.deed(ctx)?;
        let tree = &mut self.copy(job).tree;
        tree.sync();
        // Not before: who dies on the way finds the checksums wrong again.
        tree.take_damaged();
        self.deed(ctx)?;
        let copy = self.copy(job);
        copy.notes.clear();
        copy.is_treeless = false;
        Ok(())
    }

    /// Checks a data extent; all else goes in as it came.
    fn checked(&mut self, stream: u64, frame: ToTarget, payload: &[u8]) -> Input {
        let ToTarget::Extent {
            first,
            encoding,
            leaves,
            ..
        } = frame
        else {
            return match frame {
                ToTarget::Patch { .. } => Input::Refuse(RefusalCode::Unsupported),
                frame => Input::Received(frame),
            };
        };
        if encoding == Encoding::Zstd {
            return Input::ExtentRefused(BadExtent::Undecodable { first });
        }
        let session = self
            .up
            .as_mut()
            .and_then(|up| up.receiving.get_mut(&stream));
        let session = session.expect("the caller knows the stream");
        let geometry = self.store.copies[&session.job].tree.geometry();
        match check_extent(geometry, first, leaves, payload) {
            Err(bad) => Input::ExtentRefused(bad),
            Ok(checked) => {
                let contents = payload.chunks(BLOCK_SIZE).map(content).collect();
                session.held = (first.0, contents);
                Input::ExtentChecked(checked)
            }
        }
    }

    /// Gives a session an input and does all it leads to.
    pub(crate) fn target_input(&mut self, ctx: &mut Context, stream: u64, input: Input) -> Lived {
        if let Some(session) = self.up().receiving.get_mut(&stream) {
            session.inputs.push_back(input);
        }
        while let Some(session) = self.up().receiving.get_mut(&stream) {
            let Some(input) = session.inputs.pop_front() else {
                break;
            };
            let mut out = vec![];
            session.machine.step(input, &mut out);
            for output in out {
                self.deed(ctx)?;
                let outcome = self.carry_target(ctx, stream, output)?;
                if let Outcome::StorageFailed { full } = outcome {
                    self.storage_failed(ctx, stream, full);
                    break;
                }
            }
            if self.session(stream).is_ended {
                self.up().receiving.remove(&stream);
                ctx.close_stream(stream, 1);
            }
        }
        Ok(())
    }

    pub(crate) fn session(&mut self, stream: u64) -> &mut Receiving {
        let session = self.up().receiving.get_mut(&stream);
        session.expect("a session stays until its step is carried out")
    }

    pub(crate) fn copy(&mut self, job: JobId) -> &mut Copy {
        self.store
            .copies
            .get_mut(&job)
            .expect("a session has a copy")
    }

    pub(crate) fn send_to_source(&mut self, ctx: &mut Context, stream: u64, frame: &ToSource) {
        let bytes = frame.encode().expect("our own frames are within limits");
        ctx.send_frame(stream, 1, bytes, vec![]);
    }

    fn carry_target(
        &mut self,
        ctx: &mut Context,
        stream: u64,
        output: Output,
    ) -> Result<Outcome, Died> {
        let job = self.session(stream).job;
        match output {
            Output::Send(frame) => {
                if let ToSource::Durable { barrier, .. } = &frame {
                    ctx.seen.barriers += 1;
                    invariants::acknowledged_is_durable(
                        ctx,
                        self.index,
                        &self.store,
                        job,
                        *barrier,
                    );
                }
                self.send_to_source(ctx, stream, &frame);
            }
            Output::SendGroups { first, count } => {
                let marks = self.copy(job).tree.marks(first, count);
                self.send_to_source(ctx, stream, &ToSource::Groups { first, marks });
            }
            Output::SendLeaves { group } => {
                let entries = self.copy(job).tree.entries(group).to_vec();
                self.send_to_source(ctx, stream, &ToSource::Leaves { group, entries });
            }
            Output::PassBegun { .. } => {}
            Output::Consult { first, leaves, .. } => {
                let held = vec![Held::Nothing; leaves.len()];
                // Ahead of all frames that wait.
                let consulted = Input::Consulted { first, held };
                self.session(stream).inputs.push_front(consulted);
            }
            Output::NoteRegions { barrier, groups } => {
                let noted = groups.into_iter().map(|group| (group, barrier));
                self.copy(job).notes.extend(noted);
            }
            Output::Write { first, .. } => {
                let (held, contents) = self.session(stream).held.clone();
                assert_eq!(held, first.0, "what was checked is what is written");
                for (block, content) in (held..).zip(contents) {
                    self.deed(ctx)?;
                    if ctx.flaw == Some(Flaw::WritesNothing) {
                        continue;
                    }
                    self.write(ctx, stream, block, content);
                }
            }
            Output::WriteZeros { first, count } => {
                for block in first.0..first.0 + u64::from(count) {
                    self.write(ctx, stream, block, ZEROS);
                }
            }
            Output::Flush { barrier, extents } => {
                self.queue(stream, Some(barrier), extents);
                self.flush_later(ctx, stream);
            }
            Output::Settle { extents } => {
                self.queue(stream, None, extents);
                return self.flush_all(ctx, stream);
            }
            Output::ComputeRoot => {
                let root = self.copy(job).tree.root();
                self.session(stream)
                    .inputs
                    .push_back(Input::RootComputed { root });
            }
            Output::ReadBack => {
                let root = match ctx.flaw {
                    Some(Flaw::ProvesUnread | Flaw::WritesNothing) => self.copy(job).tree.root(),
                    _ => self.read_back(job),
                };
                self.session(stream)
                    .inputs
                    .push_back(Input::ReadBack { root });
            }
            Output::Prove {
                root, read_back, ..
            } => self.prove(ctx, stream, root, read_back)?,
            Output::Closed => {
                self.session(stream).is_ended = true;
                return self.flush_all(ctx, stream);
            }
            Output::Fail(error) => return self.target_failed(ctx, stream, &error),
        }
        Ok(Outcome::Fine)
    }

    fn target_failed(
        &mut self,
        ctx: &mut Context,
        stream: u64,
        error: &TargetError,
    ) -> Result<Outcome, Died> {
        ctx.note(self.index, format_args!("stream {stream} ended: {error}"));
        if matches!(error, TargetError::ReadBackDiffers { .. }) {
            ctx.seen.copies_read_differently += 1;
            let job = self.session(stream).job;
            // Without its tree the volume is read again, and sent what differs.
            self.copy(job).is_treeless = ctx.flaw != Some(Flaw::KeepsWrongTree);
        }
        self.session(stream).is_ended = true;
        self.flush_all(ctx, stream)
    }

    fn write(&mut self, ctx: &mut Context, stream: u64, block: u64, content: Content) {
        let wall = self.now(ctx).wall;
        let session = self.session(stream);
        let (job, grant) = (session.job, session.permit.grant());
        let (agent, replicator) = (session.permit.agent(), session.permit.replicator());
        if let Some(ledger) = self.replica().map(mesh::Replica::ledger) {
            let who = (self.index, ledger, wall);
            let ends = [&agent, &replicator];
            invariants::moved_with_permission(
                ctx,
                Invariant::WrittenWithPermission,
                who,
                grant,
                job,
                ends,
            );
        }
        invariants::no_copy_moves(ctx, self, [&agent, &replicator]);
        self.moved_within_lease(ctx, grant, replicator);
        let writers = self
            .up()
            .receiving
            .values()
            .filter(|other| other.job == job)
            .count();
        ctx.require(writers == 1, Invariant::OneWriter, || {
            format!("{job} has {writers} writers")
        });
        let epoch = self.copy(job).record.epoch;
        invariants::one_writer(ctx, self.index, job, epoch);
        let path = self.copy(job).record.path.clone();
        let disk = self.store.disks.get_mut(&path).expect("a copy has a disk");
        disk.write(block, content);
    }

    fn read_back(&mut self, job: JobId) -> Root {
        let geometry = self.copy(job).tree.geometry();
        let path = self.copy(job).record.path.clone();
        flat_root(geometry, &self.store.disks[&path].cached)
    }

    fn prove(&mut self, ctx: &mut Context, stream: u64, root: Root, read_back: bool) -> Lived {
        let now = self.now(ctx);
        let job = self.session(stream).job;
        let Some(mesh) = self.mesh() else {
            return Ok(());
        };
        let read = self.read_back(job);
        ctx.require(!read_back || read == root, Invariant::OneRoot, || {
            format!("{job}: a copy is said to be read back that reads otherwise")
        });
        let copy = self.copy(job);
        let subject = Subject {
            mesh,
            job,
            epoch: copy.record.epoch,
            length: copy.record.length,
            root: root.0,
        };
        let method = match read_back {
            true => Method::ReadBack,
            false => Method::OnArrival,
        };
        let signed = proof::sign(&self.identity, &subject, End::Target, method, now.wall);
        let copy = self.copy(job);
        copy.proof = Some(signed.clone());
        copy.record.root = Some(root.0);
        let record = copy.record.clone();
        self.up().replicator.stored(record);
        self.deed(ctx)?;
        if let Some(away) = ctx.dies_proving.take() {
            self.lost_until = Some(ctx.now.saturating_add(away));
            let (death, down_millis) = (crate::disk::Death::Power, 0);
            return Err(Died { death, down_millis });
        }
        let proof = Self::sealed(signed);
        self.session(stream)
            .inputs
            .push_back(Input::Proved { proof });
        Ok(())
    }

    /// Why nothing may be written any more, when the permission's end has passed since
    /// it was last checked.
    fn permission_over(&mut self, ctx: &mut Context, stream: u64) -> Option<Denied> {
        let now = self.now(ctx);
        let session = self.up().receiving.get(&stream)?;
        if session.permit.holds(now) || ctx.flaw == Some(Flaw::NeverRechecks) {
            return None;
        }
        self.recheck_stream(ctx, stream)
    }

    /// Checks a stream's permission again: why it is over, or it goes on with a new one.
    pub(crate) fn recheck_stream(&mut self, ctx: &mut Context, stream: u64) -> Option<Denied> {
        let now = self.now(ctx);
        let permit = self.up().receiving.get(&stream)?.permit.clone();
        let checked = self.with_situation(now, |situation| {
            let leases = situation.leases;
            situation.authority.recheck(now, leases, &permit)
        })?;
        match checked {
            Ok(permit) => {
                self.session(stream).permit = permit;
                None
            }
            Err(denied) => Some(denied),
        }
    }
}

/// A new volume, which in some clouds holds what somebody left there.
fn used_disk(seed: u64, job: &JobId, geometry: Geometry) -> Disk {
    let place = u64::from_le_bytes(*job.volume.0.first_chunk().expect("an id is longer"));
    let mut rng = Rng::of(seed, Stream::Volumes, &[place]);
    let blocks = geometry.blocks() as usize;
    let used = rng.happens(300);
    let mut contents = vec![ZEROS; blocks];
    for content in &mut contents {
        if used && rng.happens(200) {
            content.fill(rng.number() | 1);
        }
    }
    Disk::new(contents)
}
