//! What a machine needs to know of the mesh, worked out from plan, authority and
//! reports by pure functions.
//!
//! Not here: any decision. The machines decide; this only looks up.

use crate::agent::{Finished, Record};
use crate::hooks::{Gate, Hooks};
use crate::launch::{Evidence, opened};
use crate::{JobId, Now, cutover};
use crdt::plan::{Desired, MigrationPlan, Plan, Point, Side};
use crdt::report::{JobReport, JobRole, Report, Stage, TargetState};
use crdt::reports::Reports;
use keys::authority::GrantState;
use keys::lease::{Pair, Span};
use keys::permit::Move;
use keys::proof::{End, RootProof};
use keys::{
    Authority, CheckpointName, Denied, Epoch, Grant, Leases, Member, MigrationId, NodeId, Permit,
    PublicKey, ReceiveBlocks, Role, SendBlocks, Signed, Standing, StatementId, VolumeId,
};
use std::collections::{BTreeMap, BTreeSet};

/// What this node knows at one moment.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// The time.
    pub now: Now,
    /// This node.
    pub me: NodeId,
    /// Its key.
    pub my_key: PublicKey,
    /// The master document.
    pub plan: &'a Plan,
    /// The authority of the ledger.
    pub authority: &'a Authority,
    /// The newest report of every node, this one's own included.
    pub reports: &'a Reports,
    /// The leases that this node holds.
    pub leases: &'a Leases,
    /// Whether it has heard from its peers, since it started, how far its own logs go.
    pub is_heard: bool,
}

/// What the agent's machine is told about one job.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whether this node has heard since it started what it said last: before that its
    /// data may be an old copy, and so may the record.
    pub is_heard: bool,
    /// What this node's own newest report says of the job beyond the record.
    pub ahead: Option<Ahead>,
    /// What the plan wants.
    pub desired: Desired,
    /// The pool, in the plan's order.
    pub replicators: Vec<Candidate>,
    /// Whether a grant allows the chosen replicator; none before one is chosen or
    /// while the plan names no grant yet.
    pub permit: Option<Result<Permit<SendBlocks>, Denied>>,
    /// Whether the target volume of the current epoch is ready; none while nobody
    /// has reported it.
    pub target: Option<Result<(), String>>,
    /// Whether the chosen replicator is connected.
    pub replicator_connected: bool,
    /// Whether the source can be read, or why not.
    pub source: Result<(), String>,
    /// Whether hooks are to be run before the first block moves.
    pub before_replication: Gate,
    /// Whether hooks are to be run before what was made for a deleted migration goes.
    pub before_cleanup: Gate,
    /// How far the cutover of the whole server has come, or its checkpoint.
    pub cutover: cutover::Standing,
    /// The checkpoint that is to be taken now.
    pub checkpoint: Option<CheckpointName>,
    /// Of those that the record has, the ones that nobody wants any more.
    pub unwanted_checkpoints: Vec<CheckpointName>,
    /// That at which the copy stands needs it no more.
    pub is_checkpoint_kept: bool,
}

/// What an agent said of a job and does not remember: its data is an old copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ahead {
    /// It had gone on to another epoch.
    Epoch(Epoch, Option<NodeId>),
    /// It had cut the volume over, under this epoch.
    CutOver(Epoch, NodeId, Box<Finished>),
    /// It had cut the volume over, and what the replicator stated is not here.
    Unproven,
}

/// What the agent of a deleted migration says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It holds nothing of it, and will never cut it over.
    LetGo,
    /// It has yet to let go, or to be heard.
    HoldsOn,
    /// It left the mesh, and what it said with it.
    Gone,
}

impl Facts {
    /// With what hooks of the source hold up. A migration of which any volume was cut over
    /// is not cleaned up: the hooks before that are not run.
    pub fn with_hooks(
        mut self,
        hooks: &Hooks,
        situation: &Situation<'_>,
        migration: &MigrationId,
    ) -> Self {
        let plan = situation.plan.migrations.get(migration);
        let gate = |point| plan.map_or(Gate::Open, |plan| hooks.gate(plan, Side::Source, point));
        self.before_replication = gate(Point::BeforeReplication);
        self.before_cleanup = match situation.cut_over(migration) {
            true => Gate::Open,
            false => gate(Point::BeforeCleanup),
        };
        self
    }
}

/// One replicator of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Whether a grant allows it now.
    pub is_usable: bool,
    /// Whether it is connected.
    pub is_connected: bool,
}

impl Situation<'_> {
    /// The plan of a migration.
    pub fn migration(&self, job: &JobId) -> Option<&MigrationPlan> {
        self.plan.migrations.get(&job.migration)
    }

    /// Every job whose source is on this node.
    pub fn agent_jobs(&self) -> Vec<JobId> {
        let mine = self.plan.migrations.values();
        mine.filter(|plan| plan.source == self.me)
            .flat_map(|plan| {
                plan.volumes.iter().map(|volume| JobId {
                    migration: plan.id,
                    volume: *volume,
                })
            })
            .collect()
    }

    /// Whether a job of which this node has no record needs one: it is planned, or it was
    /// cut over and the record is lost, without which nobody knows that its copy is a
    /// server's disk.
    pub fn needs_record(&self, job: &JobId) -> bool {
        let plan = self.migration(job);
        self.is_heard
            && (plan.is_some_and(|plan| plan.desired != Desired::Deleted)
                || self.stated(job, self.me, End::Source).is_some())
    }

    /// What the agent's machine needs to know. `connected` says whether a key is
    /// connected; `source` whether the volume can be read.
    pub fn agent_facts(
        &self,
        record: &Record,
        connected: impl Fn(&PublicKey) -> bool,
        source: Result<(), String>,
    ) -> Facts {
        let job = record.job;
        let plan = self.migration(&job);
        let replicator = record
            .replicator
            .and_then(|node| self.authority.member(&node));
        Facts {
            is_heard: self.is_heard,
            ahead: self.ahead(record),
            // A plan that cannot be read is held; one that was deleted says so.
            desired: plan.map_or(Desired::Created, |plan| plan.desired),
            replicators: plan
                .map(|plan| self.candidates(&job, plan, &connected))
                .unwrap_or_default(),
            permit: replicator.and_then(|member| self.send_permit(&job, &member.key)),
            target: record
                .replicator
                .and_then(|node| self.target(&job, record, node)),
            replicator_connected: replicator.is_some_and(|member| connected(&member.key)),
            source,
            before_replication: Gate::Open,
            before_cleanup: Gate::Open,
            cutover: cutover::Standing::default(),
            checkpoint: None,
            unwanted_checkpoints: self.unwanted_checkpoints(record),
            is_checkpoint_kept: self.is_checkpoint_kept(record),
        }
    }

    /// Where what this node said last is beyond the record. What it says is in its record
    /// first, so that this never happens but to an old copy of it.
    fn ahead(&self, record: &Record) -> Option<Ahead> {
        let job = record.job;
        if record.finished.is_none()
            && let Some((source_proof, proof)) = self.stated(&job, self.me, End::Source)
        {
            let plan = self.migration(&job);
            let ends = plan.into_iter();
            let ends = ends.flat_map(|plan| self.evidence(plan).replicators(&job.volume));
            let agrees = |stated: &RootProof| {
                (stated.epoch, stated.root, stated.length)
                    == (proof.epoch, proof.root, proof.length)
            };
            let found = ends
                .flat_map(|node| {
                    let stated = self.all_stated(&job, node, End::Target).into_iter();
                    stated.map(move |stated| (node, stated))
                })
                .find(|(_, (_, stated))| agrees(stated));
            let Some((replicator, (target_proof, _))) = found else {
                return Some(Ahead::Unproven);
            };
            let finished = Finished {
                root: proof.root,
                source_proof,
                target_proof,
                frozen_millis: None,
            };
            return Some(Ahead::CutOver(proof.epoch, replicator, Box::new(finished)));
        }
        let report = self.reports.get(&self.me)?;
        let mut jobs = report.jobs.iter();
        let said = jobs.find(|said| {
            said.role == JobRole::Agent
                && (said.migration, said.volume) == (job.migration, job.volume)
        })?;
        (said.epoch > record.epoch).then_some(Ahead::Epoch(said.epoch, said.replicator))
    }

    /// The newest root of a job that a node stated of one end, as the nodes of the
    /// migration report it.
    fn stated(&self, job: &JobId, node: NodeId, end: End) -> Option<(Signed, RootProof)> {
        let stated = self.all_stated(job, node, end).into_iter();
        stated.max_by_key(|(_, proof)| proof.epoch)
    }

    /// All roots of it: an attempt at a cutover that did not come to count leaves one, too.
    fn all_stated(&self, job: &JobId, node: NodeId, end: End) -> Vec<(Signed, RootProof)> {
        let Some(plan) = self.migration(job) else {
            return vec![];
        };
        let nodes = self.evidence(plan).replicators(&job.volume).into_iter();
        let nodes = nodes.chain([plan.source, plan.provisioner]);
        let reports = nodes.filter_map(|node| self.reports.get(&node));
        let of_job = |proof: &RootProof| {
            proof.migration == job.migration && proof.volume == job.volume && proof.end == end
        };
        let stated = reports.flat_map(|report| &report.proofs);
        let stated = stated
            .filter(|signed| self.authority.is_node(node, signed.signer))
            .filter_map(|signed| Some((signed.clone(), opened(signed, of_job)?)));
        stated.collect()
    }

    /// Whether another node than this one reports a root that this one stated.
    pub fn is_known_elsewhere(&self, proof: &Signed) -> bool {
        let mut others = self.reports.iter().filter(|(node, _)| **node != self.me);
        others.any(|(_, report)| report.proofs.contains(proof))
    }

    fn candidates(
        &self,
        job: &JobId,
        plan: &MigrationPlan,
        connected: impl Fn(&PublicKey) -> bool,
    ) -> Vec<Candidate> {
        let candidate = |node: &NodeId| {
            let member = self.authority.member(node);
            let key = member.map(|member| member.key);
            let permit = key.and_then(|key| self.send_permit(job, &key));
            Candidate {
                node: *node,
                is_usable: permit.is_some_and(|checked| checked.is_ok()),
                is_connected: key.is_some_and(|key| connected(&key)),
            }
        };
        plan.replicators.iter().map(candidate).collect()
    }

    /// The first of the plan's grants that allows it, or why the last one does not.
    fn send_permit(
        &self,
        job: &JobId,
        replicator: &PublicKey,
    ) -> Option<Result<Permit<SendBlocks>, Denied>> {
        let mut last = None;
        for grant in &self.migration(job)?.grants {
            let asked = self.asked(job, *grant, self.my_key, *replicator);
            let checked = self.authority.permit_send(self.now, self.leases, &asked);
            if checked.is_ok() {
                return Some(checked);
            }
            last = Some(checked);
        }
        last
    }

    /// The replicator's end of the check, for what a ticket claims. Of the plan, where it is
    /// known: that the grant is for its source, or any operator could have its own agent
    /// write to a copy, and learn of it.
    pub fn receive_permit(
        &self,
        job: &JobId,
        grant: StatementId,
        agent: PublicKey,
    ) -> Result<Permit<ReceiveBlocks>, Denied> {
        let asked = self.asked(job, grant, agent, self.my_key);
        let permit = self
            .authority
            .permit_receive(self.now, self.leases, &asked)?;
        let state = self.authority.grant(&grant);
        let is_source = state.is_some_and(|state| self.is_for_source(job, state));
        match self.migration(job).is_none() || is_source {
            true => Ok(permit),
            false => Err(Denied::NotTheSource { grant, agent }),
        }
    }

    /// Whether a grant is for the node from which the plan moves this.
    pub fn is_for_source(&self, job: &JobId, state: &GrantState) -> bool {
        self.migration(job)
            .is_some_and(|plan| plan.source == state.grant.agent)
    }

    fn asked(
        &self,
        job: &JobId,
        grant: StatementId,
        agent: PublicKey,
        replicator: PublicKey,
    ) -> Move {
        Move {
            grant,
            migration: job.migration,
            volume: job.volume,
            agent,
            replicator,
        }
    }

    /// This node, if it is an operator that counts.
    pub fn operator(&self) -> Option<&Member> {
        let standing = self
            .authority
            .standing(self.now.wall, &self.my_key, Role::Operator);
        standing.ok().filter(|member| member.id == self.me)
    }

    /// What may be used now: good grants, with each of their replicators, of migrations
    /// that were neither deleted nor cut over.
    pub fn live_pairs(&self) -> impl Iterator<Item = (Pair, &Grant)> {
        let plans = self.plan.migrations.values();
        let over = plans.filter(|plan| self.is_over(plan));
        // What is not in the plan here yet is not over.
        let over: BTreeSet<MigrationId> = over.map(|plan| plan.id).collect();
        let pairs = self.authority.live_pairs(self.now.wall);
        pairs.filter(move |(_, grant)| !over.contains(&grant.migration))
    }

    /// What this node may use, and how long its leases last.
    pub fn wanted_leases(&self) -> BTreeMap<Pair, Span> {
        let mine = self
            .live_pairs()
            .filter(|(pair, grant)| grant.agent == self.me || pair.replicator == self.me);
        mine.map(|(pair, grant)| (pair, grant.span())).collect()
    }

    /// Whether this node planned a migration.
    pub fn has_planned(&self, plan: &MigrationPlan) -> bool {
        self.authority.is_node(self.me, plan.created_by)
    }

    /// Whether nothing of a migration will move any more, by the plan or by its agent.
    pub fn is_over(&self, plan: &MigrationPlan) -> bool {
        is_over(plan, self.reports)
    }

    /// The keys of all with whom this node has work in common that goes on: to them it stays
    /// connected, however many others there are.
    pub fn partners(&self) -> BTreeSet<PublicKey> {
        self.in_common(|plan| plan.replicators.clone())
    }

    /// Those of them without whom the work does not go on: of the replicators of a pool
    /// only those that its agent chose, as another can take their place.
    pub fn needed(&self) -> BTreeSet<PublicKey> {
        self.in_common(|plan| match plan.replicators.as_slice() {
            [only] => vec![*only],
            _ => self.chosen(plan),
        })
    }

    /// Of each migration of this node's that goes on: the source, the provisioner, and
    /// these of the replicators.
    fn in_common(
        &self,
        replicators: impl Fn(&MigrationPlan) -> Vec<NodeId>,
    ) -> BTreeSet<PublicKey> {
        let mut found = BTreeSet::new();
        for plan in self.plan.migrations.values() {
            let goes = matches!(plan.desired, Desired::Started | Desired::Cutover { .. });
            let mut involved = plan.replicators.iter();
            let is_mine = [plan.source, plan.provisioner].contains(&self.me)
                || involved.any(|node| *node == self.me);
            if goes && is_mine && !self.is_over(plan) {
                let mut nodes = replicators(plan);
                nodes.extend([plan.source, plan.provisioner]);
                let members = nodes.iter().filter_map(|node| self.authority.member(node));
                found.extend(members.map(|member| member.key));
            }
        }
        found.remove(&self.my_key);
        found
    }

    /// The replicators that the agent of a migration chose for its volumes.
    fn chosen(&self, plan: &MigrationPlan) -> Vec<NodeId> {
        let jobs = plan.volumes.iter().map(|volume| JobId {
            migration: plan.id,
            volume: *volume,
        });
        let chosen = jobs.filter_map(|job| self.agent_job(&job)?.replicator);
        chosen
            .filter(|node| plan.replicators.contains(node))
            .collect()
    }

    /// Whether the provisioner has made the volume of the record's epoch.
    fn target(
        &self,
        job: &JobId,
        record: &Record,
        replicator: NodeId,
    ) -> Option<Result<(), String>> {
        let provisioner = self.migration(job)?.provisioner;
        let report = self.reports.get(&provisioner)?;
        let target = report.targets.iter().find(|target| {
            target.migration == job.migration
                && target.volume == job.volume
                && target.epoch == record.epoch
                && target.replicator == replicator
        })?;
        Some(match &target.state {
            TargetState::Ready => Ok(()),
            TargetState::Failed(why) => Err(why.clone()),
        })
    }

    /// What the agent says of a job in its newest report: it owns the epoch.
    pub fn agent_job(&self, job: &JobId) -> Option<&JobReport> {
        let (_, report) = self.agent_report(&job.migration)?;
        report.jobs.iter().find(|found| {
            found.role == JobRole::Agent
                && found.migration == job.migration
                && found.volume == job.volume
        })
    }

    /// Volumes that this node as provisioner is asked to have: one for each job of
    /// its migrations whose agent has chosen a replicator.
    pub fn wanted_targets(&self) -> Vec<crate::provisioner::Wanted> {
        let mut wanted = vec![];
        for plan in self.plan.migrations.values() {
            if plan.provisioner != self.me || plan.desired == Desired::Created {
                continue;
            }
            let Some(agent) = self.reports.get(&plan.source) else {
                continue;
            };
            for volume in &plan.volumes {
                let job = JobId {
                    migration: plan.id,
                    volume: *volume,
                };
                let length = agent.volumes.iter().find(|info| info.id == *volume);
                if let (Some(said), Some(info)) = (self.agent_job(&job), length)
                    && let Some(replicator) = said.replicator
                {
                    wanted.push(crate::provisioner::Wanted {
                        job,
                        provider: plan.provider.clone(),
                        epoch: said.epoch,
                        replicator,
                        length: info.length,
                    });
                }
            }
        }
        wanted
    }

    /// Whether the agent has stated the root of a copy of this migration, which it does
    /// once both ends agree: its volumes are then a server's disks and are not removed
    /// with the plan. The replicator's word alone is not enough: it states its root
    /// before the agent has decided.
    pub fn cut_over(&self, migration: &MigrationId) -> bool {
        let Some((plan, report)) = self.agent_report(migration) else {
            return false;
        };
        report.proofs.iter().any(|signed| {
            let of_source =
                |proof: &RootProof| proof.migration == *migration && proof.end == End::Source;
            self.authority.is_node(plan.source, signed.signer)
                && opened(signed, of_source).is_some()
        })
    }

    /// The epoch of this very volume's copy whose root the agent has stated: that copy is
    /// sealed.
    pub fn source_stated(&self, job: &JobId) -> Option<Epoch> {
        let (plan, report) = self.agent_report(&job.migration)?;
        let stated = report.proofs.iter().filter_map(|signed| {
            opened(signed, |proof| {
                self.authority.is_node(plan.source, signed.signer)
                    && proof.migration == job.migration
                    && proof.volume == job.volume
                    && proof.end == End::Source
            })
        });
        stated.map(|proof| proof.epoch).max()
    }

    /// Whether the copy of an epoch has completed a pass, by its agent's word: that it was
    /// cut over says so too, where an agent that was put back has forgotten its passes.
    pub fn completed_a_pass(&self, job: &JobId, epoch: Epoch) -> bool {
        let passed = |said: &JobReport| said.epoch == epoch && !said.passes.is_empty();
        self.agent_job(job).is_some_and(passed) || self.source_stated(job) == Some(epoch)
    }

    /// What is known of the copies of a migration.
    pub fn evidence<'a>(&'a self, plan: &'a MigrationPlan) -> Evidence<'a> {
        Evidence {
            plan,
            authority: self.authority,
            reports: self.reports,
        }
    }

    /// What the agent of a deleted migration says of it. It alone decides which came first,
    /// its cutover or the end of the plan, so it has to say so: that it lists no job may be
    /// a word from before it began.
    pub fn agent_word(&self, plan: &MigrationPlan) -> Word {
        // Only what stands for good: of a node that is not known yet, or of which what was said
        // is not whole yet, more may come.
        let is_gone = |member: &Member| {
            let is_over = member.not_after.is_some_and(|end| end <= self.now.wall);
            is_over || matches!(member.standing, Standing::Revoked(_))
        };
        let member = self.authority.member(&plan.source);
        match self.reports.get(&plan.source) {
            _ if member.is_some_and(is_gone) => Word::Gone,
            Some(report) if report.let_go.contains(&plan.id) => Word::LetGo,
            // Without a report: it may be on its way, or it has yet to make its first.
            _ => Word::HoldsOn,
        }
    }

    /// What this node says of its own deleted migrations; `holds` says whether it still
    /// has anything of one.
    pub fn let_go(&self, holds: impl Fn(&MigrationId) -> bool) -> Vec<MigrationId> {
        let plans = self.plan.migrations.values();
        plans
            .filter(|plan| plan.source == self.me && plan.desired == Desired::Deleted)
            .map(|plan| plan.id)
            .filter(|id| !holds(id) && !self.cut_over(id))
            .collect()
    }

    fn agent_report(&self, migration: &MigrationId) -> Option<(&MigrationPlan, &Report)> {
        let plan = self.plan.migrations.get(migration)?;
        Some((plan, self.reports.get(&plan.source)?))
    }
}

/// Whether nothing of a migration will move any more, by the plan or by its agent.
pub(crate) fn is_over(plan: &MigrationPlan, reports: &Reports) -> bool {
    let report = reports.get(&plan.source);
    let cut_over = |volume: &VolumeId| {
        report.is_some_and(|report| {
            report.jobs.iter().any(|job| {
                job.role == JobRole::Agent
                    && job.migration == plan.id
                    && job.volume == *volume
                    && job.stage == Stage::CutOver
            })
        })
    };
    plan.desired == Desired::Deleted || plan.volumes.iter().all(cut_over)
}

#[cfg(test)]
mod tests;
