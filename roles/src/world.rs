//! A mesh for the tests: an operator that is also the provisioner, an agent and two
//! replicators, with one migration of one volume.
#![allow(clippy::unwrap_used)]

use crate::situation::Situation;
use crate::{JobId, Now};
use crdt::report::{
    JobReport, JobRole, PassRead, PassSummary, Report, Stage, TargetState, TargetVolume,
    VolumeInfo, VolumeKind,
};
use crdt::{Desired, Document, MigrationPlan, Reports};
use keys::authority::authority;
use keys::lease::{Pair, Renewal, Span};
use keys::ledger::Inserted;
use keys::proof::{End, Method};
use keys::statement::{Admission, Enrolment, Entry, Genesis, Grant};
use keys::{
    Authority, Domain, Epoch, Identity, Leases, Ledger, MigrationId, Name, NodeId, Pulse,
    Revocation, Role, Signed, Statement, StatementId, UnixSecs, VolumeId,
};
use std::collections::BTreeMap;

pub(crate) const NOW: Now = Now {
    wall: UnixSecs(1_000),
    mono_millis: 50_000,
};
pub(crate) const JOB: JobId = JobId {
    migration: MigrationId([9; 16]),
    volume: VolumeId([8; 16]),
};
pub(crate) const SPAN: Span = Span {
    lease_secs: 3_600,
    autonomy_secs: 1_800,
};
pub(crate) const LENGTH: u64 = 1 << 20;
pub(crate) const OPERATOR: u8 = 2;
pub(crate) const AGENT: u8 = 3;
pub(crate) const REPLICATOR: u8 = 4;
pub(crate) const OTHER_REPLICATOR: u8 = 5;

pub(crate) struct World {
    pub(crate) ledger: Ledger,
    pub(crate) authority: Authority,
    pub(crate) document: Document,
    pub(crate) reports: Reports,
    /// The pool of the plan and of its grants.
    pool: Vec<u8>,
    pub(crate) leases: Leases,
    pub(crate) is_heard: bool,
    versions: u64,
}

pub(crate) fn key(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

impl World {
    /// Everybody is enrolled; the migration is planned, and nothing is granted.
    pub(crate) fn new() -> Self {
        Self::with(&[REPLICATOR], OPERATOR)
    }

    /// As [`World::new`], with this pool and this provisioner.
    pub(crate) fn with(pool: &[u8], provisioner: u8) -> Self {
        let root = key(1);
        let entry = Entry {
            seq: 1,
            previous: None,
            mesh: None,
            at: NOW.wall,
            statement: Statement::Genesis(Genesis {
                name: Name::new("test").unwrap(),
                roots: vec![root.public()],
                nonce: [1; 16],
            }),
        };
        let genesis = Signed::seal(&root, Domain::Statement, &entry).unwrap();
        let ledger = Ledger::found(genesis).unwrap();
        let mut world = Self {
            authority: authority(&ledger),
            document: Document::new(ledger.mesh()),
            ledger,
            reports: Reports::new(),
            pool: pool.to_vec(),
            leases: Leases::new(),
            is_heard: true,
            versions: 0,
        };
        world.enrol(OPERATOR, &[Role::Operator, Role::Provisioner]);
        world.enrol(AGENT, &[Role::Agent]);
        world.enrol(REPLICATOR, &[Role::Replicator, Role::Provisioner]);
        world.enrol(OTHER_REPLICATOR, &[Role::Replicator]);
        let plan = MigrationPlan {
            id: JOB.migration,
            name: "web".into(),
            source: world.id(AGENT),
            volumes: vec![JOB.volume],
            provider: "fake".into(),
            provisioner: world.id(provisioner),
            replicators: world.pool(),
            site: None,
            desired: Desired::Created,
            grants: vec![],
            hooks: vec![],
            leave_out: None,
            checkpoints: crdt::Checkpoints::default(),
            created_at: NOW.wall,
            created_by: key(OPERATOR).public(),
            conflicts: vec![],
        };
        world.edit(|edit| edit.create_migration(&plan));
        world
    }

    /// Enrols a node at the site `here`.
    pub(crate) fn enrol(&mut self, seed: u8, roles: &[Role]) {
        self.enrol_until(seed, roles, None);
    }

    /// The same, with an end.
    pub(crate) fn enrol_until(&mut self, seed: u8, roles: &[Role], not_after: Option<UnixSecs>) {
        let enrolment = Enrolment {
            subject: key(seed).public(),
            name: Name::new("node").unwrap(),
            roles: roles.iter().copied().collect(),
            site: Some(Name::new("here").unwrap()),
            not_after,
            scope: keys::Scope::Everywhere,
            admission: Admission::Root,
        };
        self.state(1, Statement::Enrolment(enrolment));
    }

    fn pool(&self) -> Vec<NodeId> {
        self.pool.iter().map(|seed| self.id(*seed)).collect()
    }

    pub(crate) fn id(&self, seed: u8) -> NodeId {
        self.authority.by_key(&key(seed).public()).unwrap().id
    }

    pub(crate) fn state(&mut self, signer: u8, statement: Statement) -> StatementId {
        let signer = key(signer);
        let (seq, previous) = self.ledger.next_position(&signer.public());
        let entry = Entry {
            seq,
            previous,
            mesh: Some(self.ledger.mesh()),
            at: NOW.wall,
            statement,
        };
        let signed = Signed::seal(&signer, Domain::Statement, &entry).unwrap();
        let Inserted::New(id) = self.ledger.insert(signed).unwrap() else {
            panic!("stated twice");
        };
        self.authority = authority(&self.ledger);
        id
    }

    pub(crate) fn edit(
        &mut self,
        change: impl FnOnce(&mut crdt::Edit<'_>) -> Result<(), crdt::EditError>,
    ) {
        let edited = self
            .document
            .edit(&key(OPERATOR), NOW.wall, &self.authority, change);
        edited.unwrap();
    }

    pub(crate) fn want(&mut self, desired: Desired) {
        self.edit(|edit| edit.set_desired(JOB.migration, desired));
    }

    /// A grant for the job, which ends at `not_after`, listed in the plan.
    pub(crate) fn grant(&mut self, not_after: u64) -> StatementId {
        let pool = self.pool();
        let id = self.sign_grant(pool, not_after);
        self.edit(|edit| edit.add_grant(JOB.migration, id));
        self.vouch(NOW);
        id
    }

    /// A grant for the job to another pool, which the plan does not list.
    pub(crate) fn grant_to(&mut self, pool: Vec<NodeId>) -> StatementId {
        self.sign_grant(pool, 1_000_000)
    }

    fn sign_grant(&mut self, replicators: Vec<NodeId>, not_after: u64) -> StatementId {
        let grant = Grant {
            migration: JOB.migration,
            agent: self.id(AGENT),
            replicators,
            volumes: vec![JOB.volume],
            not_after: UnixSecs(not_after),
            lease_secs: SPAN.lease_secs,
            autonomy_secs: SPAN.autonomy_secs,
            dedup_group: None,
        };
        self.state(OPERATOR, Statement::Grant(grant))
    }

    /// The operator's node confirms every good grant to a pulse made at `now`; all nodes
    /// of this world hold the same leases.
    pub(crate) fn vouch(&mut self, now: Now) {
        self.vouch_for(now, &[REPLICATOR, OTHER_REPLICATOR]);
    }

    /// As [`World::vouch`], and for these replicators only.
    pub(crate) fn vouch_for(&mut self, now: Now, replicators: &[u8]) {
        let replicators: Vec<NodeId> = replicators.iter().map(|seed| self.id(*seed)).collect();
        let pairs: BTreeMap<Pair, Span> = self
            .authority
            .live_pairs(now.wall)
            .filter(|(pair, _)| replicators.contains(&pair.replicator))
            .map(|(pair, grant)| (pair, grant.span()))
            .collect();
        let renewal = Renewal {
            holder: self.id(AGENT),
            pulse: Pulse([1; 16]),
            pairs: pairs.keys().copied().collect(),
        };
        let from = (self.id(OPERATOR), &[renewal][..]);
        self.leases = Leases::new();
        self.leases.pulse(now, Pulse([1; 16]));
        let me = self.id(AGENT);
        self.leases
            .hear(&self.authority, now.wall, (me, &pairs), from);
    }

    pub(crate) fn revoke(&mut self, signer: u8, target: StatementId) {
        let revocation = Revocation {
            target,
            honours: None,
            reason: String::new(),
        };
        self.state(signer, Statement::Revocation(revocation));
    }

    /// Replaces a node's report.
    pub(crate) fn report(&mut self, seed: u8, fill: impl FnOnce(&mut Report)) {
        self.versions += 1;
        let mut report = Report::new(self.id(seed), self.versions, NOW.wall);
        fill(&mut report);
        let signed = report.seal(&key(seed)).unwrap();
        self.reports.offer(signed, &self.authority, NOW.wall);
    }

    /// What the agent says once it has chosen its replicator.
    pub(crate) fn agent_reports(&mut self, epoch: u64, proofs: Vec<Signed>) {
        self.agent_is_at(epoch, REPLICATOR, 0, proofs);
    }

    /// What the agent says once it has chosen and has completed some passes.
    pub(crate) fn agent_is_at(
        &mut self,
        epoch: u64,
        replicator: u8,
        passes: u32,
        proofs: Vec<Signed>,
    ) {
        let pass = |pass| PassSummary {
            pass,
            blocks: 1,
            bytes_sent: 1,
            millis: 1,
            since_millis: None,
            read: PassRead::Whole,
        };
        let job = JobReport {
            migration: JOB.migration,
            volume: JOB.volume,
            role: JobRole::Agent,
            epoch: Epoch(epoch),
            replicator: Some(self.id(replicator)),
            stage: Stage::InitialSync,
            step: "copying".into(),
            detail: None,
            pass: 0,
            barrier: 0,
            passes: (1..=passes).map(pass).collect(),
            left_out: keys::LeftOut::default(),
            read_by: None,
            root: None,
        };
        self.report(AGENT, |report| {
            report.jobs = vec![job];
            report.volumes = vec![volume()];
            report.proofs = proofs;
        });
    }

    /// What the provisioner says once it has made the volume of an epoch.
    pub(crate) fn target_reported(&mut self, epoch: u64, length: u64, state: TargetState) {
        self.target_of(epoch, REPLICATOR, length, state);
    }

    /// The volume of an epoch for a replicator.
    pub(crate) fn target_of(
        &mut self,
        epoch: u64,
        replicator: u8,
        length: u64,
        state: TargetState,
    ) {
        let target = TargetVolume {
            migration: JOB.migration,
            volume: JOB.volume,
            epoch: Epoch(epoch),
            replicator: self.id(replicator),
            path: "/volumes/1".into(),
            length,
            state,
        };
        self.report(OPERATOR, |report| report.targets = vec![target]);
    }

    /// The volume of the first epoch, and what is said of a checkpoint of it.
    pub(crate) fn target_and_checkpoint(&mut self, length: u64, kept: crdt::KeptCheckpoint) {
        self.target_reported(1, length, TargetState::Ready);
        let mut report = self.reports.get(&self.id(OPERATOR)).unwrap().clone();
        report.checkpoints = vec![kept];
        self.report(OPERATOR, |made| {
            made.targets = report.targets;
            made.checkpoints = report.checkpoints;
        });
    }

    pub(crate) fn situation(&self, seed: u8, now: Now) -> Situation<'_> {
        Situation {
            now,
            me: self.id(seed),
            my_key: key(seed).public(),
            plan: self.document.plan(),
            authority: &self.authority,
            reports: &self.reports,
            leases: &self.leases,
            is_heard: self.is_heard,
        }
    }
}

/// The volume as its agent reports it.
pub(crate) fn volume() -> VolumeInfo {
    VolumeInfo {
        id: JOB.volume,
        name: "sda".into(),
        path: "/dev/sda".into(),
        length: LENGTH,
        kind: VolumeKind::Device,
        device: None,
        model: None,
    }
}

/// The signed root of one end.
pub(crate) fn proof(world: &World, seed: u8, end: End, root: [u8; 32]) -> Signed {
    proof_of(world, 1, seed, end, root)
}

/// The signed root of one end, of an epoch's copy.
pub(crate) fn proof_of(world: &World, epoch: u64, seed: u8, end: End, root: [u8; 32]) -> Signed {
    proof_of_job(world, JOB, epoch, seed, end, root)
}

/// The same, of any volume.
pub(crate) fn proof_of_job(
    world: &World,
    job: JobId,
    epoch: u64,
    seed: u8,
    end: End,
    root: [u8; 32],
) -> Signed {
    let method = match end {
        End::Witness => Method::ReadBack,
        End::Source | End::Target => Method::OnArrival,
    };
    let subject = crate::proof::Subject {
        mesh: world.ledger.mesh(),
        job,
        epoch: Epoch(epoch),
        length: LENGTH,
        root,
    };
    crate::proof::sign(&key(seed), &subject, end, method, NOW.wall)
}

/// The source's signed root of a checkpoint.
pub(crate) fn proof_for(world: &World, checkpoint: &str) -> Signed {
    let subject = crate::proof::Subject {
        mesh: world.ledger.mesh(),
        job: JOB,
        epoch: Epoch(1),
        length: LENGTH,
        root: [5; 32],
    };
    let name = keys::CheckpointName::new(checkpoint).ok();
    let method = Method::Tracked;
    let source = (End::Source, keys::LeftOut::default());
    crate::proof::sign_for(&key(AGENT), &subject, source, method, NOW.wall, name)
}
