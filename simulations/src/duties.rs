//! What a node does for its roles when the mesh has changed or time has passed: the
//! agent's facts, open streams checked again, volumes provisioned, the report.
//!
//! Not here: the sessions themselves (`sending`, `receiving`).

use crate::context::{Context, Flaw};
use crate::invariants::Invariant;
use crate::network::{CloudCall, Event};
use crate::node::{Lived, Node};
use crdt::Report;
use crdt::report::{JobReport, JobRole, Stage, VolumeInfo, VolumeKind};
use keys::lease::{MAX_PULSES, Renewal};
use keys::proof::{End, Method};
use keys::{Denied, Epoch, MigrationId, Pulse, UnixSecs};
use mesh::Replica;
use provider::{AttachTo, HolderId, MigrationTag, Provider, VolumeKey, VolumeSpec, VolumeTag};
use roles::proof::{self, Subject};
use roles::provisioner::{self, Reading, Superseded, Wanted};
use roles::{Hooks, JobId, Note, Now, Situation, agent, agent::Agent};

/// The volume of one epoch of a job. As text it is the path at which its replicator has it.
pub fn volume_key(job: &JobId, epoch: Epoch) -> VolumeKey {
    VolumeKey {
        migration: MigrationTag(job.migration.0),
        volume: VolumeTag(job.volume.0),
        generation: epoch.0,
    }
}

impl Node {
    /// Runs `with` with what this node knows now; none before it is enrolled.
    pub fn with_situation<T>(&self, now: Now, with: impl FnOnce(&Situation<'_>) -> T) -> Option<T> {
        let replica = self.replica()?;
        let me = replica.me()?;
        let situation = Situation {
            now,
            me,
            my_key: replica.my_key(),
            plan: replica.document().plan(),
            authority: replica.authority(),
            reports: replica.reports(),
            leases: &self.up.as_ref()?.leases,
            is_heard: replica.may_write(),
        };
        Some(with(&situation))
    }

    /// Everything that follows from what this node knows now.
    pub fn duties(&mut self, ctx: &mut Context) -> Lived {
        self.lease_duties(ctx)?;
        self.agent_duties(ctx)?;
        self.cutovers(ctx)?;
        self.recheck_streams(ctx)?;
        self.forget_over(ctx)?;
        self.provision(ctx)
    }

    /// Hears what operators vouch for, makes a pulse when one is due, and as an operator
    /// sees whom to answer; the next tick publishes it.
    fn lease_duties(&mut self, ctx: &mut Context) -> Lived {
        let now = self.now(ctx);
        let mut leases = std::mem::take(&mut self.up().leases);
        let may_write = self.replica().is_some_and(Replica::may_write);
        let heard = self.with_situation(now, |situation| {
            let (me, wanted) = (situation.me, situation.wanted_leases());
            let mut longer = false;
            for (node, report) in situation.reports.iter() {
                if ctx.flaw == Some(Flaw::LeasesFromReceipt) {
                    let mine = report
                        .renewals
                        .iter()
                        .filter(|renewal| renewal.holder == me);
                    for renewal in mine {
                        (0..MAX_PULSES).for_each(|_| leases.pulse(now, renewal.pulse));
                    }
                }
                let from = (*node, &report.renewals[..]);
                longer |= leases.hear(situation.authority, now.wall, (me, &wanted), from);
            }
            if may_write {
                leases.retain(situation.authority, &wanted);
            }
            (longer, leases.pulse_due(now, &wanted))
        });
        let (longer, due) = heard.unwrap_or_default();
        if due {
            leases.pulse(now, Pulse(self.rng.bytes()));
        }
        let stored = leases.snapshot(now, self.boot);
        self.up().leases = leases;
        if longer {
            self.deed(ctx)?;
            ctx.seen.leases_renewed += 1;
            self.store.leases = Some(stored);
        }
        let mut vouching = std::mem::take(&mut self.up().vouching);
        let _ = self.with_situation(now, |situation| vouching.settle(situation));
        self.up().vouching = vouching;
        Ok(())
    }

    /// What this node vouches for as an operator.
    pub fn renewals(&mut self, ctx: &mut Context, now: Now) -> Vec<Renewal> {
        let mut vouching = std::mem::take(&mut self.up().vouching);
        let renewals = self.with_situation(now, |situation| vouching.renewals(situation));
        self.up().vouching = vouching;
        let renewals = renewals.unwrap_or_default();
        if self.index > 0 && !renewals.is_empty() {
            ctx.seen.second_vouchers += 1;
        }
        match ctx.flaw {
            Some(Flaw::OnlyTheFirstVouches) if self.index > 0 => vec![],
            _ => renewals,
        }
    }

    fn agent_duties(&mut self, ctx: &mut Context) -> Lived {
        let now = self.now(ctx);
        let store = &self.store;
        let planned = self.with_situation(now, |situation| {
            let mut jobs = situation.agent_jobs();
            jobs.retain(|job| store.agents.contains_key(job) || situation.needs_record(job));
            jobs
        });
        let Some(mut jobs) = planned else {
            return Ok(());
        };
        jobs.extend(self.store.agents.keys());
        jobs.sort();
        jobs.dedup();
        for job in jobs {
            if !self.up().agents.contains_key(&job) {
                let stored = self.store.agents.get(&job).cloned();
                let machine = Agent::new(job, stored).moving_on_after(ctx.lost_millis);
                self.up().agents.insert(job, machine);
            }
            self.agent_facts(ctx, job)?;
        }
        Ok(())
    }

    fn agent_facts(&mut self, ctx: &mut Context, job: JobId) -> Lived {
        let now = self.now(ctx);
        let up = self.up.as_ref().expect("only a running node has duties");
        let facts = self.with_situation(now, |situation| {
            let connected = |key: &keys::PublicKey| {
                let mut peers = up.connected.iter();
                peers.any(|peer| ctx.key_of(*peer) == *key)
            };
            let source = match self.sources.contains_key(&job.volume) {
                true => Ok(()),
                false => Err("the volume is gone".to_owned()),
            };
            situation.agent_facts(up.agents[&job].record(), connected, source)
        });
        let held = up.sending.get(&job).map(|session| session.permit.clone());
        let facts = facts.map(|mut facts| {
            self.tell_of_cutover(now, &job.migration, &mut facts);
            if let (Some(Flaw::NeverRechecks), Some(permit)) = (ctx.flaw, held) {
                facts.permit = Some(Ok(permit));
            }
            facts
        });
        let Some(facts) = facts else { return Ok(()) };
        let over = matches!(facts.permit, Some(Err(Denied::LeaseOver { .. })));
        if over && self.up().sending.contains_key(&job) {
            ctx.seen.leases_over += 1;
        }
        if let (Some(Ok(permit)), Some(session)) = (&facts.permit, self.up().sending.get_mut(&job))
            && permit.grant() == session.permit.grant()
        {
            session.permit = permit.clone();
        }
        self.agent_input(ctx, job, agent::Input::Facts(facts))
    }

    /// Ends the sessions that are no longer allowed, and lets the others go on.
    fn recheck_streams(&mut self, ctx: &mut Context) -> Lived {
        if ctx.flaw == Some(Flaw::NeverRechecks) {
            return Ok(());
        }
        let streams: Vec<u64> = self.up().receiving.keys().copied().collect();
        for stream in streams {
            if let Some(denied) = self.recheck_stream(ctx, stream) {
                let text = format!("a stream was ended: {denied}");
                self.tell(ctx, Note::error("grant-refused", text));
                self.refuse_session(ctx, stream, denied)?;
            }
        }
        Ok(())
    }

    fn forget_over(&mut self, ctx: &mut Context) -> Lived {
        let now = self.now(ctx);
        let mut up = self.up.take().expect("only a running node has duties");
        let replicator = std::mem::take(&mut up.replicator);
        self.up = Some(up);
        let mut replicator = replicator;
        let gone = self.with_situation(now, |situation| replicator.forget_over(situation));
        self.up().replicator = replicator;
        for job in gone.unwrap_or_default() {
            self.deed(ctx)?;
            let streams: Vec<u64> = self
                .up()
                .receiving
                .iter()
                .filter(|(_, session)| session.job == job)
                .map(|(stream, _)| *stream)
                .collect();
            for stream in streams {
                self.refuse_session(
                    ctx,
                    stream,
                    Denied::UnknownGrant(keys::StatementId([0; 32])),
                )?;
            }
            self.store.copies.remove(&job);
        }
        Ok(())
    }

    fn provision(&mut self, ctx: &mut Context) -> Lived {
        let now = self.now(ctx);
        let mut provisioner = std::mem::take(&mut self.up().provisioner);
        let mut out = vec![];
        let _ = self.with_situation(now, |situation| {
            provisioner.settle(situation, &Hooks::default(), &mut out)
        });
        self.up().provisioner = provisioner;
        self.carry_provisioner(ctx, out)
    }

    fn carry_provisioner(&mut self, ctx: &mut Context, out: Vec<provisioner::Action>) -> Lived {
        for action in out {
            self.deed(ctx)?;
            let call = match action {
                provisioner::Action::Tell(_, note) => {
                    self.tell(ctx, note);
                    continue;
                }
                provisioner::Action::Ensure(wanted) => CloudCall::Ensure(wanted),
                provisioner::Action::Look(wanted) => CloudCall::Look(wanted),
                provisioner::Action::Remove(migration) => CloudCall::Remove(migration),
                provisioner::Action::Fence(old) => CloudCall::Fence(old),
                provisioner::Action::Retire(old) => CloudCall::Retire(old),
                provisioner::Action::ReadBack(reading) => CloudCall::ReadBack(reading),
                provisioner::Action::Witness(reading) => {
                    self.witness(ctx, &reading);
                    continue;
                }
                provisioner::Action::ListCheckpoints(..) | provisioner::Action::Checkpoint(..) => {
                    unreachable!("no operator of a simulation asks for a checkpoint")
                }
            };
            let (node, life) = (self.index, self.life);
            let at = ctx.now + self.rng.between(10, 500);
            ctx.network.schedule(at, Event::Cloud { node, life, call });
        }
        Ok(())
    }

    fn witness(&mut self, ctx: &mut Context, reading: &Reading) {
        let now = self.now(ctx);
        let Some(mesh) = self.mesh() else { return };
        ctx.seen.confirmed += 1;
        let subject = Subject {
            mesh,
            job: reading.job,
            epoch: reading.claim.epoch,
            length: reading.claim.length,
            root: reading.claim.root,
        };
        let method = Method::ReadBack;
        let signed = proof::sign(&self.identity, &subject, End::Witness, method, now.wall);
        self.store.witnessed.insert(reading.job, signed);
    }

    /// Makes a call to the cloud and takes its answer. `root` is that of the volume to be
    /// read back, if it is such a call.
    pub fn call_cloud(
        &mut self,
        ctx: &mut Context,
        call: CloudCall,
        root: Option<[u8; 32]>,
    ) -> Lived {
        let now = self.now(ctx);
        let input = match call {
            CloudCall::Ensure(wanted) => match ensure(ctx, &wanted) {
                Ok(path) => provisioner::Input::Ensured { wanted, path },
                Err(why) => provisioner::Input::Failed { wanted, why },
            },
            CloudCall::Look(wanted) => {
                let seen = found(ctx, &wanted.job, wanted.epoch);
                provisioner::Input::Looked { wanted, seen }
            }
            CloudCall::Remove(migration) => match remove(ctx, migration) {
                Ok(()) => provisioner::Input::Removed(migration),
                Err(why) => provisioner::Input::RemoveFailed(migration, why),
            },
            CloudCall::Fence(old) => match fence(ctx, &old) {
                Ok(kept) => provisioner::Input::Fenced(old, kept),
                Err(why) => provisioner::Input::SupersededFailed(old, why),
            },
            CloudCall::Retire(old) => match retire(ctx, &old) {
                Ok(()) => provisioner::Input::Retired(old),
                Err(why) => provisioner::Input::SupersededFailed(old, why),
            },
            CloudCall::ReadBack(reading) => {
                match (found(ctx, &reading.job, reading.claim.epoch), root) {
                    (Ok(_), Some(root)) => provisioner::Input::ReadBack(reading, root),
                    (Ok(_), None) => {
                        let why = "nothing was ever written to it".to_owned();
                        provisioner::Input::ReadBackFailed(reading, why)
                    }
                    (Err(why), _) => provisioner::Input::ReadBackFailed(reading, why),
                }
            }
        };
        let mut out = vec![];
        self.up().provisioner.step(now, input, &mut out);
        self.up().dirty = true;
        self.carry_provisioner(ctx, out)
    }

    /// What this node says about itself, without version and time.
    pub fn report(&self, now: Now) -> Option<Report> {
        let up = self.up.as_ref()?;
        let mut report = Report::new(self.replica()?.me()?, 0, UnixSecs(0));
        report.hostname = self.name.to_string();
        report.volumes = self
            .sources
            .iter()
            .map(|(id, volume)| VolumeInfo {
                id: *id,
                name: id.short(),
                path: format!("/dev/{}", id.short()),
                length: volume.geometry.length(),
                kind: VolumeKind::Device,
                device: None,
                model: None,
            })
            .collect();
        for (job, machine) in &up.agents {
            report.jobs.push(agent_job(job, machine));
            if let Some(finished) = &machine.record().finished {
                report.proofs.push(finished.source_proof.clone());
                report.proofs.push(finished.target_proof.clone());
            }
        }
        for record in up.replicator.records() {
            report.jobs.push(JobReport {
                migration: record.job.migration,
                volume: record.job.volume,
                role: JobRole::Replicator,
                epoch: record.epoch,
                replicator: self.replica()?.me(),
                stage: Stage::Replicating,
                step: "receiving".into(),
                detail: None,
                pass: 0,
                barrier: record.barrier,
                passes: vec![],
                read_by: None,
                left_out: keys::LeftOut::default(),
                root: record.root,
            });
            let copy = self.store.copies.get(&record.job);
            report
                .proofs
                .extend(copy.and_then(|copy| copy.proof.clone()));
        }
        let holds = |id: &keys::MigrationId| up.agents.keys().any(|job| job.migration == *id);
        report.let_go = self
            .with_situation(now, |situation| situation.let_go(holds))
            .unwrap_or_default();
        report.targets = up.provisioner.targets();
        report.proofs.extend(self.store.witnessed.values().cloned());
        report.pulse = up.leases.newest_pulse();
        Some(report)
    }
}

fn agent_job(job: &JobId, machine: &Agent) -> JobReport {
    let (stage, step, detail) = machine.standing();
    let record = machine.record();
    JobReport {
        migration: job.migration,
        volume: job.volume,
        role: JobRole::Agent,
        epoch: record.epoch,
        replicator: record.replicator,
        stage,
        step: step.to_owned(),
        detail,
        pass: record.passes.last().map_or(0, |last| last.pass),
        barrier: record.barrier,
        passes: record.passes.clone(),
        read_by: None,
        left_out: keys::LeftOut::default(),
        root: None,
    }
}

fn ensure(ctx: &mut Context, wanted: &Wanted) -> Result<String, String> {
    let key = volume_key(&wanted.job, wanted.epoch);
    let spec = VolumeSpec {
        key,
        length: wanted.length,
    };
    let to = AttachTo {
        holder: HolderId(wanted.replicator.0),
        epoch: wanted.epoch.0,
    };
    ctx.next_call();
    let made = ctx.cloud.ensure_volume(&spec);
    made.and_then(|_| {
        ctx.next_call();
        ctx.cloud.attach(&key, &to)
    })
    .map(|_| key.to_string())
    .map_err(|error| error.to_string())
}

/// Where the volume of a job is, for whoever only reads it.
fn found(ctx: &mut Context, job: &JobId, epoch: Epoch) -> Result<String, String> {
    let key = volume_key(job, epoch);
    ctx.next_call();
    let opened = ctx.cloud.open_read_only(&key);
    opened
        .map(|_| key.to_string())
        .map_err(|error| error.to_string())
}

/// What there is of a job with a lower epoch.
fn older(ctx: &mut Context, old: &Superseded) -> Result<Vec<VolumeKey>, String> {
    ctx.next_call();
    let owned = ctx.cloud.owned(&MigrationTag(old.job.migration.0));
    let owned = owned.map_err(|error| error.to_string())?;
    let older =
        |key: &VolumeKey| key.volume == VolumeTag(old.job.volume.0) && key.generation < old.below.0;
    Ok(owned
        .iter()
        .map(|record| record.key)
        .filter(older)
        .collect())
}

fn fence(ctx: &mut Context, old: &Superseded) -> Result<Vec<Epoch>, String> {
    let keys = older(ctx, old)?;
    for key in &keys {
        ctx.next_call();
        let detached = ctx.cloud.detach(key, old.below.0);
        detached.map_err(|error| error.to_string())?;
    }
    Ok(keys.iter().map(|key| Epoch(key.generation)).collect())
}

fn retire(ctx: &mut Context, old: &Superseded) -> Result<(), String> {
    for key in older(ctx, old)? {
        if ctx.oracle.is_cut_over_at(&old.job, Epoch(key.generation)) {
            let text =
                format!("volume {key}, to which its agent cut over, is deleted as an older one");
            ctx.fail(Invariant::CutOverIsKept, text);
        }
        ctx.seen.retired += 1;
        ctx.next_call();
        let deleted = ctx.cloud.delete(&key);
        deleted.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn remove(ctx: &mut Context, migration: MigrationId) -> Result<(), String> {
    ctx.next_call();
    let owned = ctx.cloud.owned(&MigrationTag(migration.0));
    for record in owned.map_err(|error| error.to_string())? {
        if ctx.oracle.is_cut_over(&migration) {
            let text = format!(
                "volume {} of a server that was cut over is deleted",
                record.key
            );
            ctx.fail(Invariant::CutOverIsKept, text);
        }
        ctx.next_call();
        let deleted = ctx.cloud.delete(&record.key);
        deleted.map_err(|error| error.to_string())?;
    }
    Ok(())
}
