//! Points that the agent holds are sealed once, read back, and go only when nobody wants
//! them.
#![allow(clippy::unwrap_used)]

use super::super::tests::{ensured, kinds, later, settle, step, wanted};
use super::super::{Action, Input, Provisioner, READ_RETRY_MILLIS, RETRY_MILLIS};
use super::*;
use crate::proof::Subject;
use crate::world::{AGENT, JOB, LENGTH, NOW, OPERATOR, REPLICATOR, World, key, volume};
use crdt::report::{JobReport, JobRole, ReachedCheckpoint, Stage};
use keys::proof::{End, Method};

const ROOT: [u8; 32] = [5; 32];

fn name() -> CheckpointName {
    CheckpointName::new("first").unwrap()
}

/// What the agent says while it is at an epoch and came to the checkpoint under another.
fn agent_came_to(world: &mut World, at: u64, reached: u64, is_held: bool) {
    let subject = Subject {
        mesh: world.authority.mesh(),
        job: JOB,
        epoch: Epoch(reached),
        length: LENGTH,
        root: ROOT,
    };
    let signer = key(AGENT);
    let (end, method) = ((End::Source, keys::LeftOut::default()), Method::Tracked);
    let proof = crate::proof::sign_for(&signer, &subject, end, method, NOW.wall, Some(name()));
    let job = JobReport {
        migration: JOB.migration,
        volume: JOB.volume,
        role: JobRole::Agent,
        epoch: Epoch(at),
        replicator: Some(world.id(REPLICATOR)),
        stage: Stage::Replicating,
        step: String::new(),
        detail: None,
        pass: 0,
        barrier: 0,
        passes: vec![],
        read_by: None,
        left_out: keys::LeftOut::default(),
        root: None,
    };
    world.report(AGENT, |report| {
        report.jobs = vec![job];
        report.volumes = vec![volume()];
        report.reached = vec![ReachedCheckpoint {
            proof,
            frozen_millis: Some(1),
            is_held,
        }];
    });
}

fn ask(world: &mut World, wish: Wish) {
    world.edit(|edit| edit.ask_checkpoint(JOB.migration, &name(), wish));
}

fn wish(world: &mut World, wish: Wish) {
    world.edit(|edit| edit.set_checkpoint(JOB.migration, &name(), wish));
}

/// A provisioner with the volume of epoch 1, whose agent holds still at a checkpoint, and
/// which knows what the cloud has.
fn held(listed: Vec<Listed>) -> (World, Provisioner) {
    let mut world = World::new();
    world.grant(9_000);
    world.want(Desired::Started);
    ask(&mut world, Wish::Kept);
    agent_came_to(&mut world, 1, 1, true);
    let provisioner = started(&world, listed);
    (world, provisioner)
}

/// A node that was just started.
fn started(world: &World, listed: Vec<Listed>) -> Provisioner {
    let mut provisioner = Provisioner::default();
    let out = settle(&mut provisioner, world, NOW);
    assert_eq!(kinds(&out), ["ensure", "list checkpoints"]);
    let listed = Input::CheckpointsListed(JOB.migration, Ok(listed));
    step(&mut provisioner, NOW, listed);
    step(&mut provisioner, NOW, ensured(wanted(&out[..1])));
    provisioner
}

fn id(epoch: u64) -> CheckpointId {
    CheckpointId {
        job: JOB,
        name: name(),
        provider: "fake".into(),
        epoch: Epoch(epoch),
    }
}

fn claim() -> Claim {
    Claim {
        epoch: Epoch(1),
        length: LENGTH,
        root: ROOT,
    }
}

fn is_called(provisioner: &mut Provisioner, world: &World, now: Now, call: Call) {
    let out = settle(provisioner, world, now);
    assert_eq!(out, [Action::Checkpoint(id(1), call)]);
    assert!(settle(provisioner, world, now).is_empty(), "once");
}

fn answer(provisioner: &mut Provisioner, answer: Answer) -> Vec<&'static str> {
    let out = step(provisioner, NOW, Input::Checkpoint(id(1), answer));
    kinds(&out)
}

fn failed(is_transient: bool) -> Answer {
    Answer::Failed {
        why: "no room".into(),
        is_transient,
    }
}

fn state(provisioner: &Provisioner, world: &World) -> Option<KeptCheckpoint> {
    let situation = world.situation(OPERATOR, NOW);
    provisioner.checkpoints(&situation).into_iter().next()
}

fn is(provisioner: &Provisioner, world: &World, wanted: &CheckpointState) {
    let state = state(provisioner, world).map(|kept| kept.state);
    assert_eq!(state.as_ref(), Some(wanted));
}

/// As [`held`], sealed and read back, and as this node reports it.
fn verified() -> (World, Provisioner) {
    let (mut world, mut provisioner) = held(vec![]);
    is_called(&mut provisioner, &world, NOW, Call::Seal);
    answer(&mut provisioner, Answer::Sealed("/first".into()));
    agent_came_to(&mut world, 1, 1, false);
    is_called(&mut provisioner, &world, NOW, Call::ReadBack(claim()));
    answer(&mut provisioner, Answer::ReadBack(ROOT));
    let kept = state(&provisioner, &world).unwrap();
    world.report(OPERATOR, |report| report.checkpoints = vec![kept]);
    (world, provisioner)
}

fn listed(epoch: u64, is_sealed: bool) -> Listed {
    Listed {
        id: id(epoch),
        is_sealed,
        has_copy: false,
    }
}

#[test]
fn a_held_point_is_sealed_and_then_read_back() {
    let (mut world, mut provisioner) = held(vec![]);
    is_called(&mut provisioner, &world, NOW, Call::Seal);
    is(&provisioner, &world, &CheckpointState::Sealing);
    let sealed = Answer::Sealed("/first".into());
    assert_eq!(answer(&mut provisioner, sealed), ["checkpoint-sealed"]);
    is(&provisioner, &world, &CheckpointState::Sealed);
    agent_came_to(&mut world, 1, 1, false);
    is_called(&mut provisioner, &world, NOW, Call::ReadBack(claim()));
    let told = answer(&mut provisioner, Answer::ReadBack(ROOT));
    assert_eq!(told, ["checkpoint-verified"]);
    is(
        &provisioner,
        &world,
        &CheckpointState::Verified { root: ROOT },
    );
    assert_eq!(state(&provisioner, &world).unwrap().path, "/first");
    assert!(settle(&mut provisioner, &world, later(90_000)).is_empty());
}

#[test]
fn what_reads_back_as_another_is_kept_and_told() {
    let (world, mut provisioner) = held(vec![]);
    is_called(&mut provisioner, &world, NOW, Call::Seal);
    answer(&mut provisioner, Answer::Sealed("/first".into()));
    is_called(&mut provisioner, &world, NOW, Call::ReadBack(claim()));
    let told = answer(&mut provisioner, Answer::ReadBack([6; 32]));
    assert_eq!(told, ["checkpoint-failed"]);
    let state = state(&provisioner, &world).unwrap().state;
    assert!(matches!(state, CheckpointState::Failed(_)));
    assert!(settle(&mut provisioner, &world, later(90_000)).is_empty());
}

#[test]
fn a_call_that_may_succeed_is_made_again_and_one_that_cannot_is_not() {
    let (world, mut provisioner) = held(vec![]);
    is_called(&mut provisioner, &world, NOW, Call::Seal);
    assert_eq!(
        answer(&mut provisioner, failed(true)),
        ["checkpoint-delayed"]
    );
    is(&provisioner, &world, &CheckpointState::Sealing);
    assert!(settle(&mut provisioner, &world, later(RETRY_MILLIS - 1)).is_empty());
    is_called(&mut provisioner, &world, later(RETRY_MILLIS), Call::Seal);
    assert!(answer(&mut provisioner, failed(true)).is_empty(), "told");
    is_called(&mut provisioner, &world, later(RETRY_MILLIS), Call::Seal);
    assert_eq!(
        answer(&mut provisioner, failed(false)),
        ["checkpoint-failed"]
    );
    let no_room = CheckpointState::Failed("no room".into());
    is(&provisioner, &world, &no_room);
    assert!(settle(&mut provisioner, &world, later(90_000)).is_empty());
}

#[test]
fn one_that_could_not_be_read_is_read_again() {
    let (world, mut provisioner) = held(vec![]);
    is_called(&mut provisioner, &world, NOW, Call::Seal);
    answer(&mut provisioner, Answer::Sealed("/first".into()));
    is_called(&mut provisioner, &world, NOW, Call::ReadBack(claim()));
    answer(&mut provisioner, failed(false));
    is(&provisioner, &world, &CheckpointState::Sealed);
    let again = later(READ_RETRY_MILLIS);
    is_called(&mut provisioner, &world, again, Call::ReadBack(claim()));
}

#[test]
fn nothing_is_sealed_that_is_not_held_or_of_another_epoch_or_not_asked_for() {
    // Its agent went on: what the volume holds now is another point.
    let (mut world, mut provisioner) = held(vec![]);
    agent_came_to(&mut world, 1, 1, false);
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(kinds(&out), ["checkpoint-failed"]);
    // Its agent is at another copy.
    let (mut world, mut provisioner) = held(vec![]);
    agent_came_to(&mut world, 2, 1, true);
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(kinds(&out), ["fence", "ensure"]);
    // Deleted before it was sealed.
    let (mut world, mut provisioner) = held(vec![]);
    wish(&mut world, Wish::Deleted);
    assert!(settle(&mut provisioner, &world, NOW).is_empty());
}

#[test]
fn a_checkpoint_outlives_a_restart_and_the_epoch_it_was_made_in() {
    let (mut world, _) = verified();
    agent_came_to(&mut world, 1, 1, false);
    let mut provisioner = Provisioner::default();
    let verified = CheckpointState::Verified { root: ROOT };
    is(&provisioner, &world, &verified);
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(kinds(&out), ["ensure", "list checkpoints"]);
    let known = Input::CheckpointsListed(JOB.migration, Ok(vec![listed(1, true)]));
    step(&mut provisioner, NOW, known);
    agent_came_to(&mut world, 2, 1, false);
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(
        out.last(),
        Some(&Action::Checkpoint(id(1), Call::Seal)),
        "which says where it is"
    );
    is(&provisioner, &world, &verified);
    assert!(answer(&mut provisioner, Answer::Sealed("/first".into())).is_empty());
    is(&provisioner, &world, &verified);
    assert!(settle(&mut provisioner, &world, NOW).is_empty());
}

#[test]
fn what_was_begun_before_a_restart_is_begun_anew_only_while_it_is_held() {
    let (world, mut provisioner) = held(vec![listed(1, false)]);
    is_called(&mut provisioner, &world, NOW, Call::Seal);
    let (mut world, mut provisioner) = held(vec![listed(1, false)]);
    agent_came_to(&mut world, 1, 1, false);
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(kinds(&out), ["checkpoint-failed"]);
    wish(&mut world, Wish::Deleted);
    is_called(&mut provisioner, &world, NOW, Call::Delete);
}

#[test]
fn what_was_begun_is_not_sealed_where_the_agent_has_forgotten_that_it_holds() {
    let (mut world, mut provisioner) = held(vec![listed(1, false)]);
    world.report(AGENT, |report| report.reached.clear());
    assert!(settle(&mut provisioner, &world, NOW).is_empty());
}

#[test]
fn what_an_agent_left_behind_at_an_older_epoch_gives_way() {
    let (world, mut provisioner) = held(vec![]);
    is_called(&mut provisioner, &world, NOW, Call::Seal);
    answer(&mut provisioner, failed(false));
    let mut world = world;
    agent_came_to(&mut world, 2, 2, true);
    let out = settle(&mut provisioner, &world, NOW);
    let second = wanted(&out[1..2]);
    assert_eq!(kinds(&out), ["fence", "ensure"]);
    let out = settle(&mut provisioner, &world, later(RETRY_MILLIS));
    assert_eq!(out, [Action::Checkpoint(id(1), Call::Delete)]);
    step(&mut provisioner, NOW, ensured(second));
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(out, [Action::Checkpoint(id(2), Call::Seal)]);
    answer(&mut provisioner, Answer::Deleted);
    let sealed = Input::Checkpoint(id(2), Answer::Sealed("/second".into()));
    let out = step(&mut provisioner, NOW, sealed);
    assert_eq!(kinds(&out), ["checkpoint-sealed"]);
}

#[test]
fn a_copy_is_made_of_what_was_verified_and_goes_before_it() {
    let (mut world, mut provisioner) = verified();
    wish(&mut world, Wish::Copied);
    is_called(&mut provisioner, &world, NOW, Call::Copy);
    let copy = |provisioner: &Provisioner, world: &World| state(provisioner, world).unwrap().copy;
    assert_eq!(copy(&provisioner, &world), Some(WritableCopy::Making));
    let path = || "/copy".to_owned();
    assert_eq!(
        answer(&mut provisioner, Answer::Copied(path())),
        ["checkpoint-copied"]
    );
    let ready = WritableCopy::Ready { path: path() };
    assert_eq!(copy(&provisioner, &world), Some(ready));
    wish(&mut world, Wish::Kept);
    is_called(&mut provisioner, &world, NOW, Call::DeleteCopy);
    answer(&mut provisioner, Answer::CopyDeleted);
    assert_eq!(copy(&provisioner, &world), None);
    wish(&mut world, Wish::Copied);
    is_called(&mut provisioner, &world, NOW, Call::Copy);
    wish(&mut world, Wish::Deleted);
    assert!(
        settle(&mut provisioner, &world, NOW).is_empty(),
        "what is under way ends first"
    );
    answer(&mut provisioner, Answer::Copied(path()));
    is_called(&mut provisioner, &world, NOW, Call::DeleteCopy);
    answer(&mut provisioner, Answer::CopyDeleted);
    is_called(&mut provisioner, &world, NOW, Call::Delete);
    assert_eq!(
        answer(&mut provisioner, Answer::Deleted),
        ["checkpoint-deleted"]
    );
    assert_eq!(state(&provisioner, &world), None);
    assert!(settle(&mut provisioner, &world, later(90_000)).is_empty());
}

#[test]
fn a_copy_that_does_not_fit_is_told_and_not_tried_again() {
    let (mut world, mut provisioner) = verified();
    wish(&mut world, Wish::Copied);
    is_called(&mut provisioner, &world, NOW, Call::Copy);
    let told = answer(&mut provisioner, failed(false));
    assert_eq!(told, ["checkpoint-copy-failed"]);
    let failed = WritableCopy::Failed("no room".into());
    assert_eq!(state(&provisioner, &world).unwrap().copy, Some(failed));
    assert!(settle(&mut provisioner, &world, later(90_000)).is_empty());
}

#[test]
fn a_copy_that_broke_off_goes_before_its_checkpoint_does() {
    let (mut world, mut provisioner) = verified();
    wish(&mut world, Wish::Copied);
    is_called(&mut provisioner, &world, NOW, Call::Copy);
    assert_eq!(
        answer(&mut provisioner, failed(true)),
        ["checkpoint-delayed"]
    );
    wish(&mut world, Wish::Deleted);
    let now = later(RETRY_MILLIS);
    is_called(&mut provisioner, &world, now, Call::DeleteCopy);
    answer(&mut provisioner, Answer::CopyDeleted);
    is_called(&mut provisioner, &world, now, Call::Delete);
}

#[test]
fn one_too_many_is_deleted_once_a_newer_one_is_good() {
    let (mut world, mut provisioner) = verified();
    let newer = CheckpointName::new("newer").unwrap();
    world.edit(|edit| edit.keep_checkpoints(JOB.migration, Some(1)));
    assert!(settle(&mut provisioner, &world, NOW).is_empty());
    world.edit(|edit| edit.ask_checkpoint(JOB.migration, &newer, Wish::Kept));
    assert!(
        settle(&mut provisioner, &world, NOW).is_empty(),
        "it is not there yet"
    );
    let first = state(&provisioner, &world).unwrap();
    let second = KeptCheckpoint {
        name: newer,
        ..first.clone()
    };
    world.report(OPERATOR, |report| report.checkpoints = vec![first, second]);
    is_called(&mut provisioner, &world, NOW, Call::Delete);
}

#[test]
fn volumes_of_a_deleted_migration_stay_while_a_checkpoint_is_made() {
    let (mut world, mut provisioner) = held(vec![]);
    is_called(&mut provisioner, &world, NOW, Call::Seal);
    world.want(Desired::Deleted);
    world.report(AGENT, |report| {
        report.volumes = vec![volume()];
        report.let_go = vec![JOB.migration];
    });
    assert!(settle(&mut provisioner, &world, NOW).is_empty());
    answer(&mut provisioner, Answer::Sealed("/first".into()));
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(out, [Action::Remove(JOB.migration)]);
    let out = step(&mut provisioner, NOW, Input::Removed(JOB.migration));
    assert_eq!(kinds(&out), ["volumes-removed"]);
    assert_eq!(state(&provisioner, &world), None);
}
