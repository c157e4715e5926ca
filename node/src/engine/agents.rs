//! The agent's side of the engine: one slot for each source volume that this node
//! migrates, with its machine and, while one runs, its session.

use super::figures::{Figures, Meter};
use super::{Engine, Message};
use crate::transfer::{self, Compression, Progress, Reading, SendCommand, SendEvent, SendJob};
use blocks::SwapArea;
use crdt::{LeaveOut, PassRead};
use keys::proof::{End, Method, RootProof};
use keys::{Authority, Domain, Epoch, Leases, Permit, PublicKey, SendBlocks, Signed, VolumeId};
use roles::agent::{Action, Agent, Finished, Input, LOST_MILLIS, Record};
use roles::cutover::Disk;
use roles::proof::Subject;
use roles::{JobId, Note, Now, Ticket};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::{mpsc, watch};
use volumes::{OpenSourceError, SourceChanged, SourceIdentity, SourceVolume};

/// Commands that may wait for a session: there is at most one of each kind.
const COMMANDS: usize = 8;
/// Events that may wait for the engine.
const EVENTS: usize = 64;
/// How long a look at a source is good for.
const LOOK_MILLIS: u64 = 1_000;
/// Epochs whose trees are looked for: far more than are left between two sessions.
const MAX_OLD_TREES: u64 = 64;

/// One source volume in one migration.
pub(super) struct AgentSlot {
    pub(super) machine: Agent,
    session: Option<Session>,
    /// Length of the volume whose session has ended, until its last figures were measured:
    /// what is durable at its end is shown until the next begins.
    ended: Option<u64>,
    /// What the source was when the first session of this run was opened.
    source: Option<SourceIdentity>,
    /// When the source was last looked at, and what was seen.
    look: Option<(u64, Result<(), String>)>,
    /// What its sessions count, one after the other.
    pub(super) progress: Arc<Progress>,
    meter: Meter,
    /// When it was measured last.
    measured_millis: Option<u64>,
    /// How the last pass of this run found what changed.
    reading: Option<Reading>,
}

struct Session {
    number: u64,
    commands: mpsc::Sender<SendCommand>,
    permit: watch::Sender<Permit<SendBlocks>>,
    length: u64,
}

impl AgentSlot {
    fn new(machine: Agent, compression: Compression) -> Self {
        Self {
            machine,
            session: None,
            ended: None,
            source: None,
            look: None,
            progress: Arc::default(),
            meter: Meter::new(compression),
            measured_millis: None,
            reading: None,
        }
    }

    /// What its source was when the first session of this run was opened.
    pub(super) fn source(&self) -> Option<SourceIdentity> {
        self.source
    }

    /// What it adds to the cutover of its server.
    pub(super) fn disk(&self) -> Disk {
        Disk {
            is_rooted: self.progress.is_rooted.load(Relaxed),
            ..self.machine.disk()
        }
    }

    /// By what its last pass was told what changed, or why it compared the whole source.
    pub(super) fn read_by(&self) -> Option<String> {
        let reading = self.reading.as_ref()?;
        reading.read_by.clone()
    }

    fn is_finished(&self) -> bool {
        self.machine.record().finished.is_some()
    }

    /// How a root is made of what its last pass of this run left.
    pub(super) fn method(&self) -> Method {
        match self.reading.as_ref().map(|last| last.read) {
            Some(PassRead::Whole) => Method::ReadInFull,
            _ => Method::Tracked,
        }
    }

    /// Bytes of the source, while a session runs.
    pub(super) fn session_length(&self) -> Option<u64> {
        self.session.as_ref().map(|session| session.length)
    }

    /// Asks a running session to end.
    pub(super) fn close(&mut self) {
        if let Some(session) = &self.session {
            // A full queue means that the session is about to end for another reason;
            // dropping the sender with the slot ends it in any case.
            let _ = session.commands.try_send(SendCommand::Close);
        }
    }

    /// Payload bytes that its sessions have sent.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.progress.bytes_sent.load(Relaxed)
    }

    /// Lets a running session go on as long as it now may, or ends it.
    pub(super) fn recheck(&mut self, authority: &Authority, now: Now, leases: &Leases) {
        let Some(session) = &self.session else { return };
        let permit = session.permit.borrow().clone();
        match authority.recheck(now, leases, &permit) {
            Ok(again) if again != permit => {
                session.permit.send_replace(again);
            }
            Ok(_) => {}
            Err(_) => self.close(),
        }
    }

    /// Whether blocks are or may be sent now.
    pub(super) fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// Live figures, once a pass runs and when it is time for new ones, while this limit
    /// holds for all that the agent sends.
    pub(super) fn sample(
        &mut self,
        now_millis: u64,
        every_millis: u64,
        limit: Option<u64>,
    ) -> Option<Figures> {
        let session = self.session.as_ref();
        let length = session.map(|session| session.length).or(self.ended)?;
        let counts = self.progress.counts();
        let rests = |then: u64| now_millis < then + every_millis;
        if counts.pass == 0 || self.measured_millis.is_some_and(rests) {
            return None;
        }
        self.measured_millis = Some(now_millis);
        self.ended = None;
        Some(self.meter.measure(now_millis, length, limit, &counts))
    }
}

impl Engine {
    pub(super) fn restore_agents(&mut self) -> anyhow::Result<()> {
        for record in self.store.agents()? {
            let job = record.job;
            let machine = self.machine(job, Some(record));
            self.agents
                .insert(job, AgentSlot::new(machine, self.config.compression));
        }
        Ok(())
    }

    fn machine(&self, job: JobId, stored: Option<Record>) -> Agent {
        let wait = self.config.move_on_after;
        let wait = wait.map_or(LOST_MILLIS, |wait| wait.as_secs() * 1000);
        Agent::new(job, stored).moving_on_after(wait)
    }

    /// A slot for each job of the plan whose source is here.
    pub(super) fn adopt_jobs(&mut self) {
        let Some(situation) = self.situation() else {
            return;
        };
        let jobs = situation.agent_jobs().into_iter();
        let fresh: Vec<JobId> = jobs
            .filter(|job| !self.agents.contains_key(job) && situation.needs_record(job))
            .collect();
        if !fresh.is_empty() {
            // What is planned from here on, is planned for the length it has now.
            self.measure_volumes();
            self.report.soon();
        }
        for job in fresh {
            let machine = self.machine(job, None);
            self.agents
                .insert(job, AgentSlot::new(machine, self.config.compression));
        }
    }

    /// Volumes of jobs that are not done. Their targets were made for the length that
    /// is reported, so it stays.
    pub(super) fn volumes_in_use(&self) -> BTreeSet<VolumeId> {
        let slots = self.agents.iter();
        slots
            .filter(|(_, slot)| !slot.is_finished())
            .map(|(job, _)| job.volume)
            .collect()
    }

    /// What a look at the source of a job said, a second ago at most.
    pub(super) fn source_state(&mut self, job: &JobId) -> Result<(), String> {
        let now = self.now().mono_millis;
        let seen = self.agents.get(job).and_then(|slot| slot.look.as_ref());
        if let Some((at, state)) = seen
            && now < at + LOOK_MILLIS
        {
            return state.clone();
        }
        let state = self.look_at_source(job);
        if let Some(slot) = self.agents.get_mut(job) {
            slot.look = Some((now, state.clone()));
        }
        state
    }

    /// Whether the source of a job can be read and is what the job was begun with, as
    /// far as a look at it tells.
    fn look_at_source(&self, job: &JobId) -> Result<(), String> {
        let slot = self.agents.get(job);
        if slot.is_some_and(AgentSlot::is_finished) {
            return Ok(());
        }
        let offered = self.volumes.iter().find(|volume| volume.id == job.volume);
        let Some(offered) = offered else {
            return Err(format!(
                "volume {} is not offered here any more; add it again with `dunlin volume add`",
                job.volume.short()
            ));
        };
        let path = PathBuf::from(&offered.path);
        let source = SourceVolume::open(&path).map_err(|error| match error {
            OpenSourceError::Missing { .. } => format!("{error}; bring it back, nothing is lost"),
            error => error.to_string(),
        })?;
        let first = slot.and_then(|slot| slot.source);
        let planned = self.lengths.get(&job.volume).copied();
        let (was, now) = (planned.unwrap_or(source.length()), source.length());
        let changed = match (first, now.cmp(&was)) {
            (Some(was), _) if was != source.identity() => {
                let now = source.identity();
                let replaced = SourceChanged::Replaced { path, was, now };
                return Err(format!(
                    "{replaced}, or delete the migration and create it again"
                ));
            }
            (_, Ordering::Equal) => return Ok(()),
            (_, Ordering::Greater) => SourceChanged::Grown { path, was, now },
            (_, Ordering::Less) => SourceChanged::Shrunk { path, was, now },
        };
        Err(changed.to_string())
    }

    /// Steps one machine and carries out its actions; whether there were any.
    pub(super) fn step_agent(&mut self, job: JobId, input: Input) -> bool {
        let now = self.now();
        let Some(slot) = self.agents.get_mut(&job) else {
            return false;
        };
        let before = slot.machine.standing();
        let mut actions = vec![];
        slot.machine.step(now, input, &mut actions);
        if slot.machine.standing() != before {
            self.report.soon();
        }
        let acted = !actions.is_empty();
        for action in actions {
            if self.fatal.is_some() {
                break;
            }
            self.act(job, action);
        }
        acted
    }

    pub(super) fn act(&mut self, job: JobId, action: Action) {
        match action {
            Action::Store(record) => {
                let stored = self.store.put_agent(&record);
                self.must(stored);
                self.report.soon();
            }
            Action::OpenSession { permit, epoch } => self.open_session(job, permit, epoch),
            Action::BeginPass { pass, whole } => {
                self.command(job, SendCommand::BeginPass { pass, whole });
            }
            Action::Finish { read_back } => self.command(job, SendCommand::Finish { read_back }),
            Action::StateRoot => self.command(job, SendCommand::StateRoot),
            Action::CloseSession => {
                if let Some(slot) = self.agents.get_mut(&job) {
                    slot.close();
                }
            }
            Action::Forget => self.forget_agent(job),
            Action::Tell(note) => self.tell_of_session(job, note),
        }
    }

    /// A replicator may refuse, or break off, as often as it likes. Where there are
    /// several disks, it is said of which.
    fn tell_of_session(&mut self, job: JobId, mut note: Note) {
        let plans = &self.replica.document().plan().migrations;
        let several = plans
            .get(&job.migration)
            .is_some_and(|plan| plan.volumes.len() > 1);
        let disk = self.volumes.iter().find(|volume| volume.id == job.volume);
        if let Some(disk) = disk.filter(|_| several) {
            note.text = format!("{}: {}", disk.name, note.text);
        }
        let record = self.agents.get(&job).map(|slot| slot.machine.record());
        let node = record.and_then(|record| record.replicator);
        let member = node.and_then(|node| self.replica.authority().member(&node));
        match member.map(|member| member.key) {
            Some(replicator) if note.level == crdt::Level::Warn => {
                self.tell_of(&replicator, Some(job.migration), note);
            }
            _ => self.tell(Some(job.migration), note),
        }
    }

    fn command(&mut self, job: JobId, command: SendCommand) {
        let session = self.agents.get(&job).and_then(|slot| slot.session.as_ref());
        if let Some(session) = session {
            // A session that takes no commands any more reports its end itself.
            let _ = session.commands.try_send(command);
        }
    }

    fn open_session(&mut self, job: JobId, permit: Permit<SendBlocks>, epoch: Epoch) {
        let prepared = self.prepare_session(job, &permit, epoch);
        let number = self.number();
        let (ticket, volume) = match prepared {
            Ok(prepared) => prepared,
            Err(why) => {
                self.step_agent(job, Input::SourceFailed(why));
                return;
            }
        };
        // Their replicators were left for good.
        self.remove_trees_below(&job, epoch);
        let (commands, command_receiver) = mpsc::channel(COMMANDS);
        let (events, event_receiver) = mpsc::channel(EVENTS);
        let Some(slot) = self.agents.get_mut(&job) else {
            return;
        };
        slot.close();
        slot.progress.begin_session();
        if slot.machine.record().passes.is_empty() {
            // Another copy, of which nothing is complete.
            slot.meter = Meter::new(self.config.compression);
        }
        let progress = slot.progress.clone();
        slot.source.get_or_insert(volume.identity());
        let replicator = permit.replicator();
        let (permit, given) = watch::channel(permit);
        slot.session = Some(Session {
            number,
            commands,
            permit,
            length: volume.length(),
        });
        let send_job = SendJob {
            ticket,
            source: volume.path().to_owned(),
            tree: self.dir.tree(&job, epoch),
            tag: tag(&job, epoch),
            barrier: slot.machine.record().barrier,
            barrier_bytes: transfer::BARRIER_BYTES,
            progress,
            compression: self.config.compression,
            pacer: self.pacer.clone(),
            buffers: self.buffers.clone(),
            trackers: self.trackers.clone(),
            swap: self.swap_of(&job),
            permit: given,
        };
        self.spawn_session(
            (job, number),
            replicator,
            send_job,
            command_receiver,
            events,
        );
        self.forward(event_receiver, move |event| {
            Message::Sent(job, number, event)
        });
    }

    /// Swap that is left out of the copy; none where it is to be looked for. Nothing is, unless
    /// people said so; what was found once stays as long as the epoch does.
    fn swap_of(&self, job: &JobId) -> Option<Vec<SwapArea>> {
        let plan = self.replica.document().plan();
        let plan = plan.migrations.get(&job.migration);
        let is_wanted = plan.is_some_and(|plan| plan.leave_out == Some(LeaveOut::Swap));
        let slot = self.agents.get(job);
        let found = slot.and_then(|slot| slot.machine.record().swap.clone());
        found.or_else(|| (!is_wanted).then(Vec::new))
    }

    fn spawn_session(
        &self,
        (job, number): (JobId, u64),
        replicator: PublicKey,
        send_job: SendJob,
        commands: mpsc::Receiver<SendCommand>,
        events: mpsc::Sender<SendEvent>,
    ) {
        let (net, inbox) = (self.net.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let opened = net.open_stream(replicator.0).await;
            let result = opened.as_ref().map(|_| ()).map_err(ToString::to_string);
            // A closed inbox means the node is stopping.
            let _ = inbox.send(Message::SendOpened(job, number, result)).await;
            if let Ok(stream) = opened {
                transfer::send(stream, send_job, commands, events).await;
            }
        });
    }

    /// Passes a session's events on to the engine until the session ends.
    pub(super) fn forward<E: Send + 'static>(
        &self,
        mut events: mpsc::Receiver<E>,
        message: impl Fn(E) -> Message + Send + 'static,
    ) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if inbox.send(message(event)).await.is_err() {
                    break;
                }
            }
        });
    }

    /// The ticket and the source.
    fn prepare_session(
        &self,
        job: JobId,
        permit: &Permit<SendBlocks>,
        epoch: Epoch,
    ) -> Result<(Vec<u8>, SourceVolume), String> {
        let offered = self.volumes.iter().find(|volume| volume.id == job.volume);
        let offered = offered
            .ok_or_else(|| format!("volume {} is not offered here any more", job.volume.short()))?;
        let source = SourceVolume::open(Path::new(&offered.path));
        let source = source.map_err(|error| error.to_string())?;
        let ticket = self
            .ticket(job, permit, epoch)
            .ok_or("the grant is not in the ledger any more")?;
        let ticket = codec::encode(&ticket).map_err(|error| error.to_string())?;
        Ok((ticket, source))
    }

    fn ticket(&self, job: JobId, permit: &Permit<SendBlocks>, epoch: Epoch) -> Option<Ticket> {
        let ledger = self.replica.ledger();
        let grant = ledger.get(&permit.grant())?.signed.clone();
        let ends = [permit.agent(), permit.replicator(), grant.signer];
        let wanted = ends.iter().flat_map(|key| ledger.origins(key));
        // Where that is too much the replicator has to know it from elsewhere.
        let support = ledger.chain(wanted, roles::ticket::MAX_STATEMENTS);
        let support = support.unwrap_or_default();
        Some(Ticket {
            job,
            epoch,
            grant,
            support,
        })
    }

    pub(super) fn send_opened(&mut self, job: JobId, number: u64, opened: Result<(), String>) {
        if let Err(why) = opened
            && self.is_current(job, number)
        {
            self.end_session(job);
            self.step_agent(job, Input::SessionLost(why));
        }
    }

    fn is_current(&self, job: JobId, number: u64) -> bool {
        let session = self.agents.get(&job).and_then(|slot| slot.session.as_ref());
        session.is_some_and(|session| session.number == number)
    }

    fn end_session(&mut self, job: JobId) {
        if let Some(slot) = self.agents.get_mut(&job)
            && let Some(session) = slot.session.take()
        {
            slot.ended = Some(session.length);
        }
    }

    pub(super) fn sent(&mut self, job: JobId, number: u64, event: SendEvent) {
        if !self.is_current(job, number) {
            return;
        }
        let now = self.now().mono_millis;
        if let Some(slot) = self.agents.get_mut(&job) {
            match &event {
                SendEvent::Barrier(_) => slot.meter.barrier(now),
                SendEvent::PassDone { summary, reading } => {
                    slot.meter.pass_done(now, summary.millis);
                    slot.reading = Some(reading.clone());
                }
                _ => {}
            }
        }
        let input = match event {
            SendEvent::LeftOut(left_out) => {
                let note = match left_out.is_less {
                    true => Note::warn("swap-moved", left_out.told),
                    false => Note::info("swap-left-out", left_out.told),
                };
                self.tell_of_session(job, note);
                Input::LeftOut(left_out.areas)
            }
            SendEvent::Ready {
                barrier,
                groups_adopted,
            } => Input::SessionReady {
                barrier,
                groups_adopted,
            },
            SendEvent::Barrier(barrier) => Input::BarrierReached(barrier),
            SendEvent::PassDone { summary, reading } => Input::PassDone {
                summary,
                is_final: reading.is_final,
                is_followed: reading.is_followed,
            },
            SendEvent::Finished { root, proof, .. } => match self.finish(job, root, &proof) {
                Ok(Some(finished)) => Input::Finished(finished),
                // Paused or lost while it was under way: nothing is signed.
                Ok(None) => return,
                Err(why) => {
                    if let Some(slot) = self.agents.get_mut(&job) {
                        slot.close();
                    }
                    Input::SessionLost(why)
                }
            },
            SendEvent::Rooted(root) => Input::Rooted(self.point(job, root).map(Box::new)),
            SendEvent::Refused(code) => {
                self.end_session(job);
                Input::Refused(code)
            }
            SendEvent::Lost(why) => {
                self.end_session(job);
                Input::SessionLost(why)
            }
            SendEvent::SourceFailed(why) => {
                self.end_session(job);
                Input::SourceFailed(why)
            }
            SendEvent::Closed => {
                self.end_session(job);
                Input::SessionLost("closed".into())
            }
        };
        self.step_agent(job, input);
        self.keep_finished();
        self.settle();
    }

    /// Checks the replicator's signed root and signs the same for the source; none
    /// unless the machine waits for it.
    fn finish(&self, job: JobId, root: [u8; 32], proof: &[u8]) -> Result<Option<Finished>, String> {
        let slot = self.agents.get(&job).ok_or("the job is gone")?;
        let Some(read_back) = slot.machine.finishing() else {
            return Ok(None);
        };
        let session = slot.session.as_ref().ok_or("the session is gone")?;
        let subject = Subject {
            mesh: self.replica.ledger().mesh(),
            job,
            epoch: slot.machine.record().epoch,
            length: session.length,
            root,
        };
        let replicator = session.permit.borrow().replicator();
        let target_proof = roles::proof::check(proof, &replicator, &subject, End::Target)
            .map_err(|error| error.to_string())?;
        let stated: RootProof = target_proof
            .open(Domain::RootProof)
            .map_err(|error| error.to_string())?;
        if read_back && stated.method != Method::ReadBack {
            return Err("the replicator signed its root without reading the copy back".into());
        }
        let at = self.now().wall;
        let method = slot.method();
        if read_back && method != Method::ReadInFull {
            return Err("the last pass did not compare the whole source".into());
        }
        let left_out = slot.machine.record().left_out();
        let source = (End::Source, left_out.map_err(|error| error.to_string())?);
        let source_proof =
            roles::proof::sign_leaving_out(&self.identity, &subject, source, method, at);
        Ok(Some(Finished {
            root,
            source_proof,
            target_proof,
            frozen_millis: None,
        }))
    }

    /// Keeps the proofs of finished jobs beside their records, which were stored first:
    /// they outlive them.
    pub(super) fn keep_finished(&mut self) {
        let slots = self.agents.values();
        let finished = slots.filter_map(|slot| slot.machine.record().finished.as_ref());
        let proofs: Vec<Signed> = finished
            .flat_map(|finished| [finished.source_proof.clone(), finished.target_proof.clone()])
            .collect();
        for proof in proofs {
            self.keep_proof(proof);
        }
    }

    pub(super) fn keep_proof(&mut self, proof: Signed) {
        if self.proofs.contains(&proof) {
            return;
        }
        let stored = self.store.put_proof(&proof);
        if self.must(stored).is_some() {
            self.proofs.push(proof);
            self.report.soon();
        }
    }

    fn remove_trees_below(&self, job: &JobId, epoch: Epoch) {
        let oldest = epoch.0.saturating_sub(MAX_OLD_TREES).max(1);
        for older in oldest..epoch.0 {
            remove_state(&self.dir.tree(job, Epoch(older)));
        }
    }

    fn forget_agent(&mut self, job: JobId) {
        let slot = self.agents.get(&job);
        let epoch = slot.map_or(0, |slot| slot.machine.record().epoch.0);
        self.agents.remove(&job);
        self.live.remove(&job);
        let stored = self.store.delete_agent(job);
        self.must(stored);
        self.remove_trees_below(&job, Epoch(epoch + 1));
        self.measure_volumes();
        self.report.soon();
    }
}

/// Ties a stored tree to one job and epoch.
pub(super) fn tag(job: &JobId, epoch: Epoch) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("dunlin 2026 stored tree tag v1");
    hasher.update(&job.migration.0);
    hasher.update(&job.volume.0);
    hasher.update(&epoch.0.to_le_bytes());
    let mut tag = [0; 16];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    tag
}

/// Removes a stored tree and what lies beside it under the same name.
pub(super) fn remove_state(tree: &Path) {
    let (Some(folder), Some(name)) = (tree.parent(), tree.file_name()) else {
        return;
    };
    let name = name.to_string_lossy().into_owned();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let found = entry.file_name().to_string_lossy().into_owned();
        let rest = found.strip_prefix(&name);
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::warn!("{} was not removed: {error}", entry.path().display());
        }
    }
}
