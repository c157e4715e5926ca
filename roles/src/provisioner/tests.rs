//! Volumes are made once, again for a new epoch, and removed only when no server
//! can be on them.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::launch::Claim;
use crate::world::{
    AGENT, JOB, LENGTH, NOW, OPERATOR, OTHER_REPLICATOR, REPLICATOR, World, key, proof, proof_of,
    volume,
};
use keys::proof::End;

fn started() -> World {
    let mut world = World::new();
    world.grant(9_000);
    world.want(Desired::Started);
    world.agent_reports(1, vec![]);
    world
}

pub(super) fn settle(provisioner: &mut Provisioner, world: &World, now: Now) -> Vec<Action> {
    let mut out = vec![];
    provisioner.settle(&world.situation(OPERATOR, now), &Hooks::default(), &mut out);
    out
}

pub(super) fn step(provisioner: &mut Provisioner, now: Now, input: Input) -> Vec<Action> {
    let mut out = vec![];
    provisioner.step(now, input, &mut out);
    out
}

pub(super) fn wanted(out: &[Action]) -> Wanted {
    match out {
        [Action::Ensure(wanted)] => wanted.clone(),
        other => panic!("{other:?}"),
    }
}

pub(super) fn ensured(wanted: Wanted) -> Input {
    let path = format!("/volumes/{}", wanted.epoch);
    Input::Ensured { wanted, path }
}

/// A provisioner that has made the volume of epoch 1; then its agent went on to the
/// other replicator.
fn moved_on() -> (World, Provisioner) {
    let mut world = World::with(&[REPLICATOR, OTHER_REPLICATOR], OPERATOR);
    world.grant(9_000);
    world.want(Desired::Started);
    world.agent_reports(1, vec![]);
    let mut provisioner = Provisioner::default();
    let first = wanted(&settle(&mut provisioner, &world, NOW));
    step(&mut provisioner, NOW, ensured(first));
    world.agent_is_at(2, OTHER_REPLICATOR, 0, vec![]);
    (world, provisioner)
}

fn agent_lets_go(world: &mut World, proofs: Vec<keys::Signed>) {
    world.report(AGENT, |report| {
        report.volumes = vec![volume()];
        report.let_go = vec![JOB.migration];
        report.proofs = proofs;
    });
}

pub(super) fn kinds(out: &[Action]) -> Vec<&'static str> {
    let kind = |action: &Action| match action {
        Action::Ensure(_) => "ensure",
        Action::Look(_) => "look",
        Action::Remove(_) => "remove",
        Action::Fence(_) => "fence",
        Action::Retire(_) => "retire",
        Action::ReadBack(_) => "read back",
        Action::Witness(_) => "witness",
        Action::ListCheckpoints(..) => "list checkpoints",
        Action::Checkpoint(..) => "checkpoint",
        Action::Tell(_, note) => note.kind,
    };
    out.iter().map(kind).collect()
}

fn below(epoch: u64) -> Superseded {
    Superseded {
        job: JOB,
        provider: "fake".into(),
        below: Epoch(epoch),
    }
}

pub(super) fn later(millis: u64) -> Now {
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
fn another_node_makes_and_removes_nothing() {
    let mut world = started();
    let settle = |world: &World| {
        let mut out = vec![];
        Provisioner::default().settle(
            &world.situation(REPLICATOR, NOW),
            &Hooks::default(),
            &mut out,
        );
        out
    };
    assert!(settle(&world).is_empty());
    world.want(Desired::Deleted);
    agent_lets_go(&mut world, vec![]);
    assert!(settle(&world).is_empty());
}

#[test]
fn a_provisioner_whose_key_is_in_two_places_makes_and_removes_nothing() {
    let mut world = started();
    world.authority.note_cloned([key(OPERATOR).public()]);
    assert!(settle(&mut Provisioner::default(), &world, NOW).is_empty());
    let mut world = started();
    world.want(Desired::Deleted);
    agent_lets_go(&mut world, vec![]);
    world.authority.note_cloned([key(OPERATOR).public()]);
    assert!(settle(&mut Provisioner::default(), &world, NOW).is_empty());
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
    assert!(
        settle(&mut provisioner, &world, NOW).is_empty(),
        "what is being made cannot be fenced yet"
    );
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
    // It may say so from before it began.
    world.report(AGENT, |report| report.volumes = vec![volume()]);
    assert!(
        settle(&mut provisioner, &world, NOW).is_empty(),
        "no job is no word"
    );
    agent_lets_go(&mut world, vec![]);
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
fn volumes_are_removed_once_none_is_being_made() {
    let mut world = started();
    let mut provisioner = Provisioner::default();
    let making = wanted(&settle(&mut provisioner, &world, NOW));
    world.want(Desired::Deleted);
    agent_lets_go(&mut world, vec![]);
    assert!(settle(&mut provisioner, &world, later(90_000)).is_empty());
    step(&mut provisioner, NOW, ensured(making));
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(out, [Action::Remove(JOB.migration)]);
}

#[test]
fn a_copy_is_kept_for_good_once_the_volumes_before_it_are_deleted() {
    let (mut world, mut provisioner) = moved_on();
    let [Action::Fence(_), Action::Ensure(making)] = &settle(&mut provisioner, &world, NOW)[..]
    else {
        panic!("fence and ensure");
    };
    step(&mut provisioner, NOW, ensured(making.clone()));
    let roots = vec![proof_of(&world, 2, AGENT, End::Source, [5; 32])];
    world.agent_is_at(2, OTHER_REPLICATOR, 1, roots);
    world.want(Desired::Deleted);
    assert!(settle(&mut provisioner, &world, NOW).is_empty());
    step(&mut provisioner, NOW, Input::Fenced(below(2), vec![]));
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(out, [Action::Retire(below(2))]);
    step(&mut provisioner, NOW, Input::Retired(below(2)));
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(kinds(&out), ["volumes-kept"]);
}

#[test]
fn the_volumes_of_an_agent_that_left_are_kept_as_it_cannot_say_whether_it_cut_over() {
    let mut world = started();
    world.want(Desired::Deleted);
    let agent = world.id(AGENT);
    world.revoke(1, agent.into());
    let mut provisioner = Provisioner::default();
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(kinds(&out), ["volumes-kept"]);
    assert!(settle(&mut provisioner, &world, later(60_000)).is_empty());
}

#[test]
fn an_agent_that_is_not_heard_of_yet_is_waited_for() {
    let mut world = World::new();
    world.want(Desired::Deleted);
    let mut provisioner = Provisioner::default();
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(kinds(&out), ["removal-waits"]);
    agent_lets_go(&mut world, vec![]);
    let out = settle(&mut provisioner, &world, NOW);
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
            agent_lets_go(&mut world, vec![stated.clone()]);
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

#[test]
fn an_older_volume_is_fenced_at_once_and_kept_until_the_newer_copy_has_a_pass() {
    let (mut world, mut provisioner) = moved_on();
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(kinds(&out), ["fence", "ensure"]);
    assert_eq!(out[0], Action::Fence(below(2)));
    assert!(settle(&mut provisioner, &world, later(60_000)).is_empty());
    let out = step(
        &mut provisioner,
        NOW,
        Input::Fenced(below(2), vec![Epoch(1)]),
    );
    assert_eq!(kinds(&out), ["volume-fenced"]);
    assert!(settle(&mut provisioner, &world, later(60_000)).is_empty());
    world.agent_is_at(2, OTHER_REPLICATOR, 1, vec![]);
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(out, [Action::Retire(below(2))]);
    assert!(settle(&mut provisioner, &world, NOW).is_empty());
    let out = step(&mut provisioner, NOW, Input::Retired(below(2)));
    assert_eq!(kinds(&out), ["old-volumes-removed"]);
    assert!(settle(&mut provisioner, &world, later(60_000)).is_empty());
}

#[test]
fn a_fence_that_fails_is_tried_again_and_told_once() {
    let (world, mut provisioner) = moved_on();
    settle(&mut provisioner, &world, NOW);
    let failed = || Input::SupersededFailed(below(2), "no answer".into());
    assert_eq!(
        kinds(&step(&mut provisioner, NOW, failed())),
        ["fence-failed"]
    );
    assert!(settle(&mut provisioner, &world, later(RETRY_MILLIS - 1)).is_empty());
    let out = settle(&mut provisioner, &world, later(RETRY_MILLIS));
    assert_eq!(out, [Action::Fence(below(2))]);
    assert!(step(&mut provisioner, later(RETRY_MILLIS), failed()).is_empty());
}

#[test]
fn the_answer_about_an_epoch_that_is_over_too_changes_nothing() {
    let (mut world, mut provisioner) = moved_on();
    let out = settle(&mut provisioner, &world, NOW);
    let Action::Ensure(second) = &out[1] else {
        panic!("{out:?}");
    };
    step(&mut provisioner, NOW, ensured(second.clone()));
    world.agent_is_at(3, REPLICATOR, 0, vec![]);
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(out[0], Action::Fence(below(3)));
    assert!(step(&mut provisioner, NOW, Input::Retired(below(2))).is_empty());
    world.agent_is_at(3, REPLICATOR, 1, vec![]);
    assert!(
        settle(&mut provisioner, &world, NOW).is_empty(),
        "epoch 2 is not fenced yet"
    );
}

#[test]
fn a_copy_that_was_cut_over_is_neither_fenced_nor_deleted_whatever_epoch_is_reported() {
    let (mut world, mut provisioner) = moved_on();
    let stated = proof_of(&world, 1, AGENT, End::Source, [5; 32]);
    world.agent_is_at(2, OTHER_REPLICATOR, 3, vec![stated]);
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(kinds(&out), ["ensure"]);
}

/// Cut over under epoch 1, with both ends' roots in the agent's report.
fn cut_over(provisioner: u8) -> World {
    let mut world = World::with(&[REPLICATOR, OTHER_REPLICATOR], provisioner);
    world.grant(9_000);
    world.want(Desired::cutover(false));
    let roots = vec![
        proof(&world, AGENT, End::Source, [5; 32]),
        proof(&world, REPLICATOR, End::Target, [5; 32]),
    ];
    world.agent_is_at(1, REPLICATOR, 2, roots);
    world
}

fn reading() -> Reading {
    Reading {
        job: JOB,
        provider: "fake".into(),
        claim: Claim {
            epoch: Epoch(1),
            length: LENGTH,
            root: [5; 32],
        },
    }
}

#[test]
fn what_was_cut_over_is_read_back_once_and_signed_only_if_it_is_the_same() {
    for (root, told) in [
        ([5; 32], vec!["witness", "copy-confirmed"]),
        ([6; 32], vec!["copy-differs"]),
    ] {
        let world = cut_over(OPERATOR);
        let mut provisioner = Provisioner::default();
        let out = settle(&mut provisioner, &world, NOW);
        assert_eq!(kinds(&out), ["read back", "look"]);
        assert_eq!(out[0], Action::ReadBack(reading()));
        assert!(settle(&mut provisioner, &world, later(90_000)).is_empty());
        let out = step(&mut provisioner, NOW, Input::ReadBack(reading(), root));
        assert_eq!(kinds(&out), told);
        assert!(settle(&mut provisioner, &world, later(90_000)).is_empty());
    }
}

#[test]
fn a_copy_that_was_cut_over_is_looked_at_again_and_again_and_never_made() {
    let world = cut_over(OPERATOR);
    let mut provisioner = Provisioner::default();
    let out = settle(&mut provisioner, &world, NOW);
    let [Action::ReadBack(_), Action::Look(wanted)] = &out[..] else {
        panic!("{out:?}");
    };
    let read_back = Input::ReadBack(reading(), [5; 32]);
    step(&mut provisioner, NOW, read_back);
    let there = || Ok("/volumes/1".to_owned());
    let gone = || Err("it is missing".to_owned());
    let mut at = 0;
    for (seen, told, state) in [
        (there(), &[][..], TargetState::Ready),
        (there(), &[], TargetState::Ready),
        (
            gone(),
            &[COPY_MISSED],
            TargetState::Failed("it is missing".into()),
        ),
        (gone(), &[], TargetState::Failed("it is missing".into())),
        (there(), &["target-ready"], TargetState::Ready),
    ] {
        let input = Input::Looked {
            wanted: wanted.clone(),
            seen,
        };
        let out = step(&mut provisioner, later(at), input);
        assert_eq!(kinds(&out), told, "{state:?}");
        assert_eq!(provisioner.targets()[0].state, state);
        at += LOOK_MILLIS;
        assert!(settle(&mut provisioner, &world, later(at - 1)).is_empty());
        let out = settle(&mut provisioner, &world, later(at));
        assert_eq!(out, [Action::Look(wanted.clone())]);
        assert_eq!(provisioner.targets()[0].state, state, "while it looks");
        assert!(settle(&mut provisioner, &world, later(at)).is_empty());
    }
}

#[test]
fn a_look_that_hangs_is_told_once_and_no_other_is_made_beside_it() {
    let world = cut_over(OPERATOR);
    let mut provisioner = Provisioner::default();
    let out = settle(&mut provisioner, &world, NOW);
    let Some(Action::Look(wanted)) = out.last() else {
        panic!("{out:?}");
    };
    let seen = || Input::Looked {
        wanted: wanted.clone(),
        seen: Ok("/volumes/1".to_owned()),
    };
    step(&mut provisioner, NOW, seen());
    step(&mut provisioner, NOW, Input::ReadBack(reading(), [5; 32]));
    let out = settle(&mut provisioner, &world, later(LOOK_MILLIS));
    assert_eq!(kinds(&out), ["look"]);
    let out = settle(&mut provisioner, &world, later(2 * LOOK_MILLIS));
    assert_eq!(kinds(&out), [COPY_MISSED]);
    for minutes in 3..10 {
        let out = settle(&mut provisioner, &world, later(minutes * LOOK_MILLIS));
        assert!(out.is_empty(), "{out:?}");
    }
    let out = step(&mut provisioner, later(10 * LOOK_MILLIS), seen());
    assert_eq!(kinds(&out), ["target-ready"]);
    let out = settle(&mut provisioner, &world, later(11 * LOOK_MILLIS));
    assert_eq!(kinds(&out), ["look"]);
}

#[test]
fn none_is_made_where_the_source_alone_has_stated_its_root_or_the_ends_differ() {
    for target in [None, Some([6; 32])] {
        let mut world = cut_over(OPERATOR);
        let source = proof(&world, AGENT, End::Source, [5; 32]);
        let target = target.map(|root| proof(&world, REPLICATOR, End::Target, root));
        let roots = [source].into_iter().chain(target).collect();
        world.agent_is_at(1, REPLICATOR, 2, roots);
        let out = settle(&mut Provisioner::default(), &world, NOW);
        assert_eq!(kinds(&out), ["look"]);
    }
}

#[test]
fn an_answer_about_another_root_than_is_being_read_confirms_nothing() {
    let world = cut_over(OPERATOR);
    let mut provisioner = Provisioner::default();
    settle(&mut provisioner, &world, NOW);
    let mut other = reading();
    other.claim.root = [6; 32];
    let answer = Input::ReadBack(other, [6; 32]);
    assert!(step(&mut provisioner, NOW, answer).is_empty());
}

#[test]
fn a_copy_that_was_kept_is_not_touched_again() {
    let mut world = cut_over(OPERATOR);
    world.want(Desired::Deleted);
    let mut provisioner = Provisioner::default();
    let out = settle(&mut provisioner, &world, NOW);
    assert_eq!(kinds(&out), ["read back", "volumes-kept"]);
    assert!(settle(&mut provisioner, &world, later(90_000)).is_empty());
}

#[test]
fn a_copy_that_cannot_be_read_is_read_again_later() {
    let world = cut_over(OPERATOR);
    let mut provisioner = Provisioner::default();
    settle(&mut provisioner, &world, NOW);
    let failed = || Input::ReadBackFailed(reading(), "no answer".into());
    assert_eq!(
        kinds(&step(&mut provisioner, NOW, failed())),
        ["read-back-failed"]
    );
    assert!(settle(&mut provisioner, &world, later(READ_RETRY_MILLIS - 1)).is_empty());
    let out = settle(&mut provisioner, &world, later(READ_RETRY_MILLIS));
    assert_eq!(out, [Action::ReadBack(reading())]);
    assert!(
        step(&mut provisioner, NOW, failed()).is_empty(),
        "told once"
    );
}

#[test]
fn who_wrote_a_copy_does_not_confirm_it_and_says_so_once() {
    let world = cut_over(REPLICATOR);
    let mut provisioner = Provisioner::default();
    let mut out = vec![];
    provisioner.settle(
        &world.situation(REPLICATOR, NOW),
        &Hooks::default(),
        &mut out,
    );
    assert_eq!(kinds(&out), ["copy-unconfirmed", "look"]);
    out.clear();
    provisioner.settle(
        &world.situation(REPLICATOR, later(90_000)),
        &Hooks::default(),
        &mut out,
    );
    assert!(out.is_empty());
}

#[test]
fn volumes_of_a_deleted_migration_go_once_the_hooks_before_that_have_passed() {
    use crate::hooks::{At, Input as HookInput};
    use crdt::plan::hook::Hook;
    let mut world = started();
    let hooks = [Hook::new(Point::BeforeCleanup, Side::Provisioner, "script")];
    world.edit(|edit| edit.set_hooks(JOB.migration, &hooks));
    world.want(Desired::Deleted);
    agent_lets_go(&mut world, vec![]);
    let (mut provisioner, mut hooks) = (Provisioner::default(), Hooks::default());
    let settle = |provisioner: &mut Provisioner, hooks: &Hooks| {
        let mut out = vec![];
        provisioner.settle(&world.situation(OPERATOR, NOW), hooks, &mut out);
        out
    };
    assert_eq!(settle(&mut provisioner, &hooks), []);
    let waiting: Vec<MigrationId> = provisioner.waits_for_hooks().collect();
    assert_eq!(waiting, [JOB.migration]);
    let passed = HookInput::Passed(At {
        migration: JOB.migration,
        side: Side::Provisioner,
        point: Point::BeforeCleanup,
    });
    hooks.step(NOW, passed, &mut vec![]);
    let out = settle(&mut provisioner, &hooks);
    assert_eq!(out, [Action::Remove(JOB.migration)]);
    assert_eq!(provisioner.waits_for_hooks().count(), 0);
}
