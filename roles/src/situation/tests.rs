//! What is looked up is about the very migration, volume, epoch and node that were
//! asked about, and about no other.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::world::{
    AGENT, JOB, LENGTH, NOW, OPERATOR, OTHER_REPLICATOR, REPLICATOR, World, key, volume,
};
use keys::proof::Method;
use keys::{Signed, Statement, UnixSecs};

const OTHER_VOLUME: JobId = JobId {
    volume: VolumeId([7; 16]),
    ..JOB
};
const OTHER_MIGRATION: JobId = JobId {
    migration: MigrationId([7; 16]),
    ..JOB
};

fn root_of(world: &World, signer: u8, job: JobId, end: End) -> Signed {
    let subject = crate::proof::Subject {
        mesh: world.ledger.mesh(),
        job,
        epoch: Epoch(1),
        length: LENGTH,
        root: [5; 32],
    };
    let method = Method::OnArrival;
    crate::proof::sign(&key(signer), &subject, end, method, NOW.wall)
}

fn agent_job(job: JobId, role: JobRole, stage: Stage) -> JobReport {
    JobReport {
        migration: job.migration,
        volume: job.volume,
        role,
        epoch: Epoch(1),
        replicator: None,
        stage,
        step: "copying".into(),
        detail: None,
        pass: 0,
        barrier: 0,
        passes: vec![],
        left_out: keys::LeftOut::default(),
        read_by: None,
        root: None,
    }
}

#[test]
fn only_the_agents_signed_root_of_its_own_source_says_that_a_copy_is_cut_over() {
    // Who signs, about what and as which end; whether it says so of the migration, and
    // of the volume.
    let cases = [
        (AGENT, JOB, End::Source, true, true),
        (AGENT, OTHER_VOLUME, End::Source, true, false),
        (AGENT, OTHER_MIGRATION, End::Source, false, false),
        (AGENT, JOB, End::Target, false, false),
        (REPLICATOR, JOB, End::Source, false, false),
    ];
    for (signer, job, end, of_migration, of_volume) in cases {
        let mut world = World::new();
        let signed = root_of(&world, signer, job, end);
        let mut forged = signed.clone();
        forged.signature.0[0] ^= 1;
        for (signed, is_true) in [(signed, true), (forged, false)] {
            world.agent_reports(1, vec![signed]);
            let situation = world.situation(OPERATOR, NOW);
            let case = format!("{signer} {job} {end:?} {is_true}");
            let cut_over = situation.cut_over(&JOB.migration);
            assert_eq!(cut_over, of_migration && is_true, "{case}");
            let stated = situation.source_stated(&JOB);
            assert_eq!(stated.is_some(), of_volume && is_true, "{case}");
        }
    }
}

#[test]
fn what_an_agent_says_of_a_job_is_said_as_agent_and_of_that_volume() {
    let cases = [
        (JOB, JobRole::Agent, true),
        (JOB, JobRole::Replicator, false),
        (OTHER_VOLUME, JobRole::Agent, false),
        (OTHER_MIGRATION, JobRole::Agent, false),
    ];
    for (job, role, is_said) in cases {
        let mut world = World::new();
        world.report(AGENT, |report| {
            report.jobs = vec![agent_job(job, role, Stage::InitialSync)];
        });
        let said = world.situation(OPERATOR, NOW).agent_job(&JOB).is_some();
        assert_eq!(said, is_said, "{job} {role}");
    }
}

#[test]
fn a_pass_of_another_epoch_completes_nothing() {
    let mut world = World::new();
    for (passes, epoch, is_completed) in [(0, 2, false), (1, 1, false), (1, 2, true)] {
        world.agent_is_at(2, REPLICATOR, passes, vec![]);
        let situation = world.situation(OPERATOR, NOW);
        let completed = situation.completed_a_pass(&JOB, Epoch(epoch));
        assert_eq!(completed, is_completed, "{passes} {epoch}");
    }
}

#[test]
fn a_target_is_ready_for_its_own_volume_epoch_and_replicator_only() {
    let mut world = World::with(&[REPLICATOR, OTHER_REPLICATOR], OPERATOR);
    world.target_of(1, REPLICATOR, LENGTH, TargetState::Ready);
    let is_ready = |job: JobId, epoch: u64, replicator: u8| {
        let record = Record {
            job,
            epoch: Epoch(epoch),
            replicator: Some(world.id(replicator)),
            barrier: 0,
            passes: vec![],
            moves: 0,
            finished: None,
            swap: None,
            checkpoints: vec![],
        };
        let situation = world.situation(AGENT, NOW);
        let facts = situation.agent_facts(&record, |_| true, Ok(()));
        facts.target == Some(Ok(()))
    };
    assert!(is_ready(JOB, 1, REPLICATOR));
    assert!(!is_ready(JOB, 2, REPLICATOR));
    assert!(!is_ready(JOB, 1, OTHER_REPLICATOR));
    assert!(!is_ready(OTHER_VOLUME, 1, REPLICATOR));
}

#[test]
fn a_node_lets_go_of_its_own_deleted_migrations_that_it_holds_nothing_of() {
    let mut world = World::new();
    let let_go = |world: &World, seed: u8, holds: bool| {
        let situation = world.situation(seed, NOW);
        situation.let_go(|_| holds)
    };
    world.want(Desired::Started);
    assert_eq!(let_go(&world, AGENT, false), []);
    world.want(Desired::Deleted);
    assert_eq!(let_go(&world, AGENT, true), []);
    assert_eq!(let_go(&world, OPERATOR, false), []);
    assert_eq!(let_go(&world, AGENT, false), [JOB.migration]);
    let stated = root_of(&world, AGENT, JOB, End::Source);
    world.agent_reports(1, vec![stated]);
    assert_eq!(let_go(&world, AGENT, false), [], "it was cut over");
}

#[test]
fn an_agent_whose_key_is_in_two_places_still_has_to_let_go_itself() {
    let mut world = World::new();
    world.want(Desired::Deleted);
    world.report(AGENT, |report| report.volumes = vec![volume()]);
    world.authority.note_cloned([key(AGENT).public()]);
    let word = |world: &World| {
        let situation = world.situation(OPERATOR, NOW);
        situation.agent_word(situation.migration(&JOB).unwrap())
    };
    assert_eq!(word(&world), Word::HoldsOn);
    world.report(AGENT, |report| report.let_go = vec![JOB.migration]);
    assert_eq!(word(&world), Word::LetGo);
}

#[test]
fn a_grant_is_used_until_every_volume_of_its_migration_is_cut_over() {
    let mut world = World::new();
    let situation = world.situation(AGENT, NOW);
    let mut plan = situation.migration(&JOB).unwrap().clone();
    plan.id = OTHER_MIGRATION.migration;
    plan.volumes = vec![JOB.volume, OTHER_VOLUME.volume];
    world.edit(|edit| edit.create_migration(&plan));
    let grant = Grant {
        migration: plan.id,
        agent: plan.source,
        replicators: plan.replicators.clone(),
        volumes: plan.volumes.clone(),
        not_after: UnixSecs(1_000_000),
        lease_secs: 60,
        autonomy_secs: 0,
        dedup_group: None,
    };
    world.state(OPERATOR, Statement::Grant(grant));
    for (cut_over, is_used) in [(1, true), (2, false)] {
        world.report(AGENT, |report| {
            let volumes = plan.volumes.iter().take(cut_over);
            let jobs = volumes.map(|volume| {
                let migration = plan.id;
                let job = JobId {
                    migration,
                    volume: *volume,
                };
                agent_job(job, JobRole::Agent, Stage::CutOver)
            });
            report.jobs = jobs.collect();
        });
        let used = world.situation(AGENT, NOW).live_pairs().count() == 1;
        assert_eq!(used, is_used, "{cut_over}");
    }
}

#[test]
fn partners_are_those_of_work_that_goes_on_whichever_part_in_it_one_has() {
    let all = [OPERATOR, AGENT, REPLICATOR, OTHER_REPLICATOR];
    let cutover = Desired::cutover(false);
    let cases = [
        (Desired::Created, false),
        (Desired::Started, true),
        (cutover, true),
        (Desired::Paused, false),
    ];
    for (desired, goes) in cases {
        let mut world = World::with(&[REPLICATOR, OTHER_REPLICATOR], OPERATOR);
        world.enrol(9, &[Role::Replicator]);
        if desired != Desired::Created {
            world.want(desired);
        }
        for seed in all {
            let others = all.iter().filter(|other| **other != seed && goes);
            let others: BTreeSet<_> = others.map(|other| key(*other).public()).collect();
            let partners = world.situation(seed, NOW).partners();
            assert_eq!(partners, others, "{seed} {desired:?}");
        }
        assert!(world.situation(9, NOW).partners().is_empty());
        // What is cut over goes on no more.
        world.report(AGENT, |report| {
            report.jobs = vec![agent_job(JOB, JobRole::Agent, Stage::CutOver)];
        });
        assert!(world.situation(AGENT, NOW).partners().is_empty());
        assert!(world.situation(AGENT, NOW).needed().is_empty());
    }
}

#[test]
fn of_a_pool_only_the_replicator_in_use_is_needed() {
    let keys = |seeds: &[u8]| -> BTreeSet<PublicKey> {
        seeds.iter().map(|seed| key(*seed).public()).collect()
    };
    let mut world = World::with(&[REPLICATOR, OTHER_REPLICATOR], OPERATOR);
    world.enrol(9, &[Role::Replicator]);
    world.want(Desired::Started);
    assert_eq!(world.situation(AGENT, NOW).needed(), keys(&[OPERATOR]));
    // Chosen by the agent; and one that is in no pool of its.
    for (chosen, needed) in [(REPLICATOR, true), (OTHER_REPLICATOR, true), (9, false)] {
        let replicator = Some(world.id(chosen));
        world.report(AGENT, |report| {
            report.jobs = vec![JobReport {
                replicator,
                ..agent_job(JOB, JobRole::Agent, Stage::InitialSync)
            }];
        });
        let mut expected = vec![OPERATOR];
        expected.extend(needed.then_some(chosen));
        assert_eq!(world.situation(AGENT, NOW).needed(), keys(&expected));
    }
    assert!(world.situation(9, NOW).needed().is_empty());

    let mut world = World::with(&[REPLICATOR], OPERATOR);
    world.want(Desired::Started);
    let all = keys(&[REPLICATOR, OPERATOR]);
    assert_eq!(
        world.situation(AGENT, NOW).needed(),
        all,
        "there is no other"
    );
}

/// The plan may come before the enrolment of a node that it names.
#[test]
fn an_agent_that_is_not_known_yet_has_not_left() {
    let mut world = World::new();
    let unknown = |situation: &Situation<'_>| MigrationPlan {
        source: NodeId([99; 32]),
        ..situation.migration(&JOB).unwrap().clone()
    };
    let situation = world.situation(OPERATOR, NOW);
    assert_eq!(situation.agent_word(&unknown(&situation)), Word::HoldsOn);
    let agent = world.id(AGENT);
    world.revoke(1, agent.into());
    let situation = world.situation(OPERATOR, NOW);
    let plan = situation.migration(&JOB).unwrap();
    assert_eq!(situation.agent_word(plan), Word::Gone);
}
