//! Volumes are made once, again for a new epoch, and removed only when no server
//! can be on them.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::world::{AGENT, JOB, LENGTH, NOW, OPERATOR, REPLICATOR, World, proof, volume};
use keys::proof::End;

fn started() -> World {
    let mut world = World::new();
    world.grant(9_000);
    world.want(Desired::Started);
    world.agent_reports(1, vec![]);
    world
}

fn settle(provisioner: &mut Provisioner, world: &World, now: Now) -> Vec<Action> {
    let mut out = vec![];
    provisioner.settle(&world.situation(OPERATOR, now), &mut out);
    out
}

fn step(provisioner: &mut Provisioner, now: Now, input: Input) -> Vec<Action> {
    let mut out = vec![];
    provisioner.step(now, input, &mut out);
    out
}

fn wanted(out: &[Action]) -> Wanted {
    match out {
        [Action::Ensure(wanted)] => wanted.clone(),
        other => panic!("{other:?}"),
    }
}

fn later(millis: u64) -> Now {
    Now {
        mono_millis: NOW.mono_millis + millis,
        ..NOW
    }
}

#[test]
fn a_volume_is_made_once_for_what_the_agent_chose_and_reported() {
    let mut world = World::new();
    let mut provisioner = Provisioner::default();
    world.agent_reports(1, vec![]);
    assert!(
        settle(&mut provisioner, &world, NOW).is_empty(),
        "only planned"
    );
    world.want(Desired::Started);
    world.report(AGENT, |report| report.volumes = vec![volume()]);
    assert!(
        settle(&mut provisioner, &world, NOW).is_empty(),
        "nothing chosen yet"
    );
    world.agent_reports(1, vec![]);
    let first = wanted(&settle(&mut provisioner, &world, NOW));
    assert_eq!(
        (first.job, first.epoch, first.length),
        (JOB, Epoch(1), LENGTH)
    );
    assert_eq!(first.replicator, world.id(REPLICATOR));
    assert!(
        settle(&mut provisioner, &world, NOW).is_empty(),
        "the call is under way"
    );
    assert!(
        provisioner.targets().is_empty(),
        "and not reported before it is done"
    );
    let path = "/volumes/1".to_owned();
    step(
        &mut provisioner,
        NOW,
        Input::Ensured {
            wanted: first,
            path,
        },
    );
    let targets = provisioner.targets();
    assert_eq!(
        (targets[0].state.clone(), &targets[0].path[..]),
        (TargetState::Ready, "/volumes/1")
    );
    assert!(settle(&mut provisioner, &world, later(60_000)).is_empty());
}

#[test]
fn another_node_makes_nothing() {
    let world = started();
    let mut out = vec![];
    Provisioner::default().settle(&world.situation(REPLICATOR, NOW), &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_call_that_failed_is_reported_and_made_again_after_a_while() {
    let world = started();
    let mut provisioner = Provisioner::default();
    let first = wanted(&settle(&mut provisioner, &world, NOW));
    let why = "no room".to_owned();
    let out = step(
        &mut provisioner,
        NOW,
        Input::Failed {
            wanted: first.clone(),
            why,
        },
    );
    assert!(matches!(&out[..], [Action::Tell(Some(_), note)] if note.kind == "target-failed"));
    assert_eq!(
        provisioner.targets()[0].state,
        TargetState::Failed("no room".into())
    );
    assert!(settle(&mut provisioner, &world, later(RETRY_MILLIS - 1)).is_empty());
    assert_eq!(
        wanted(&settle(&mut provisioner, &world, later(RETRY_MILLIS))),
        first
    );
}

#[test]
fn a_new_epoch_is_a_new_call_and_the_answer_to_the_old_one_is_not_believed() {
    let mut world = started();
    let mut provisioner = Provisioner::default();
    let first = wanted(&settle(&mut provisioner, &world, NOW));
    world.agent_reports(2, vec![]);
    let second = wanted(&settle(&mut provisioner, &world, NOW));
    assert_eq!(second.epoch, Epoch(2));
    let path = "/volumes/old".to_owned();
    let out = step(
        &mut provisioner,
        NOW,
        Input::Ensured {
            wanted: first,
            path,
        },
    );
    assert!(out.is_empty() && provisioner.targets().is_empty());
    let path = "/volumes/new".to_owned();
    step(
        &mut provisioner,
        NOW,
        Input::Ensured {
            wanted: second,
            path,
        },
    );
    assert_eq!(provisioner.targets()[0].epoch, Epoch(2));
}

#[test]
fn after_a_restart_the_same_call_is_made_again() {
    let world = started();
    let first = wanted(&settle(&mut Provisioner::default(), &world, NOW));
    assert_eq!(
        wanted(&settle(&mut Provisioner::default(), &world, NOW)),
        first
    );
}

#[test]
fn volumes_of_a_deleted_migration_are_removed_once_its_agent_has_let_go() {
    let mut world = started();
    let mut provisioner = Provisioner::default();
    let first = wanted(&settle(&mut provisioner, &world, NOW));
    let path = "/volumes/1".to_owned();
    step(
        &mut provisioner,
        NOW,
        Input::Ensured {
            wanted: first,
            path,
        },
    );
    world.want(Desired::Deleted);
    let out = settle(&mut provisioner, &world, NOW);
    assert!(matches!(&out[..], [Action::Tell(_, note)] if note.kind == "removal-waits"));
    assert!(
        settle(&mut provisioner, &world, NOW).is_empty(),
        "told once"
    );
    world.report(AGENT, |report| report.volumes = vec![volume()]);
    assert_eq!(
        settle(&mut provisioner, &world, NOW),
        [Action::Remove(JOB.migration)]
    );
    assert!(
        settle(&mut provisioner, &world, NOW).is_empty(),
        "the call is under way"
    );
    let failed = Input::RemoveFailed(JOB.migration, "busy".into());
    step(&mut provisioner, NOW, failed);
    assert!(settle(&mut provisioner, &world, later(RETRY_MILLIS - 1)).is_empty());
    let again = settle(&mut provisioner, &world, later(RETRY_MILLIS));
    assert_eq!(again, [Action::Remove(JOB.migration)]);
    step(&mut provisioner, NOW, Input::Removed(JOB.migration));
    assert!(provisioner.targets().is_empty());
    assert!(settle(&mut provisioner, &world, later(99_000)).is_empty());
}

#[test]
fn an_agent_that_was_revoked_holds_no_volume_back() {
    let mut world = started();
    world.want(Desired::Deleted);
    let agent = world.id(AGENT);
    world.revoke(1, agent.into());
    let out = settle(&mut Provisioner::default(), &world, NOW);
    assert_eq!(out, [Action::Remove(JOB.migration)]);
}

#[test]
fn volumes_that_were_cut_over_are_kept_on_the_agents_word_alone() {
    let cases: [(u8, End, bool); 4] = [
        (AGENT, End::Source, true),
        // The replicator speaks first; the agent may still have decided otherwise.
        (REPLICATOR, End::Target, false),
        (REPLICATOR, End::Source, false),
        (77, End::Source, false),
    ];
    for (signer, end, kept) in cases {
        let mut world = started();
        let stated = proof(&world, signer, end, [5; 32]);
        world.want(Desired::Deleted);
        if kept {
            world.agent_reports(1, vec![stated]);
        } else {
            world.report(AGENT, |report| report.proofs = vec![stated.clone()]);
            world.report(REPLICATOR, |report| report.proofs = vec![stated]);
        }
        let out = settle(&mut Provisioner::default(), &world, NOW);
        match kept {
            true => {
                assert!(matches!(&out[..], [Action::Tell(_, note)] if note.kind == "volumes-kept"))
            }
            false => assert_eq!(out, [Action::Remove(JOB.migration)]),
        }
    }
}
