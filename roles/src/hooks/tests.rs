//! Hooks are run once at each point, and again only where they failed.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::world::{AGENT, JOB, NOW, OPERATOR, World, proof};
use crdt::plan::hook::OnFailure;
use keys::proof::End;

fn later(millis: u64) -> Now {
    Now {
        mono_millis: NOW.mono_millis + millis,
        ..NOW
    }
}

fn at(side: Side, point: Point) -> At {
    At {
        migration: JOB.migration,
        side,
        point,
    }
}

const BEFORE: (Side, Point) = (Side::Source, Point::BeforeReplication);

fn before() -> At {
    at(BEFORE.0, BEFORE.1)
}

fn planned(hooks: &[Hook]) -> World {
    let mut world = World::new();
    world.edit(|edit| edit.set_hooks(JOB.migration, hooks));
    world.want(Desired::Started);
    world
}

fn hook(side: Side, point: Point) -> Hook {
    Hook::new(point, side, "script")
}

fn settle(hooks: &mut Hooks, world: &World, seed: u8, now: Now, waiting: &[At]) -> Vec<Action> {
    let mut out = vec![];
    let waiting = waiting.iter().copied().collect();
    hooks.settle(&world.situation(seed, now), &waiting, &mut out);
    out
}

fn step(hooks: &mut Hooks, now: Now, input: Input) -> Vec<Action> {
    let mut out = vec![];
    hooks.step(now, input, &mut out);
    out
}

fn gate(hooks: &Hooks, world: &World, (side, point): (Side, Point)) -> Gate {
    let plan = &world.document.plan().migrations[&JOB.migration];
    hooks.gate(plan, side, point)
}

fn runs(out: &[Action]) -> Vec<At> {
    let run = |action: &Action| match action {
        Action::Run { at, .. } => Some(*at),
        _ => None,
    };
    out.iter().filter_map(run).collect()
}

#[test]
fn hooks_are_run_once_for_all_disks_and_not_again_after_a_restart() {
    let world = planned(&[hook(BEFORE.0, BEFORE.1)]);
    let mut hooks = Hooks::default();
    assert_eq!(gate(&hooks, &world, BEFORE), Gate::Running);
    assert_eq!(settle(&mut hooks, &world, AGENT, NOW, &[]), []);
    let begun = settle(&mut hooks, &world, AGENT, NOW, &[before()]);
    let [
        Action::Run {
            check_all: true, ..
        },
    ] = begun[..]
    else {
        panic!("{begun:?}");
    };
    // Another disk waits for the same.
    assert_eq!(settle(&mut hooks, &world, AGENT, NOW, &[before()]), []);
    let stored = step(&mut hooks, NOW, Input::Passed(before()));
    let [Action::Store(record)] = &stored[..] else {
        panic!("{stored:?}");
    };
    assert_eq!(gate(&hooks, &world, BEFORE), Gate::Open);
    let mut again = Hooks::new(vec![record.clone()]);
    assert_eq!(gate(&again, &world, BEFORE), Gate::Open);
    assert_eq!(settle(&mut again, &world, AGENT, NOW, &[before()]), []);
}

#[test]
fn where_nothing_is_planned_nothing_waits() {
    let world = planned(&[]);
    let hooks = Hooks::default();
    for point in Point::ALL {
        assert_eq!(gate(&hooks, &world, (Side::Source, point)), Gate::Open);
    }
    // Scripts of later points are looked for before the first block moves.
    let world = planned(&[hook(Side::Source, Point::BeforeFreeze)]);
    assert_eq!(gate(&hooks, &world, BEFORE), Gate::Running);
    let cleanup = (Side::Source, Point::BeforeCleanup);
    assert_eq!(gate(&hooks, &world, cleanup), Gate::Open);
}

#[test]
fn hooks_that_failed_are_run_again_after_longer_and_longer_or_when_others_are_planned() {
    let mut world = planned(&[hook(BEFORE.0, BEFORE.1)]);
    let mut hooks = Hooks::default();
    let mut now = NOW;
    for failures in 0..10 {
        let begun = settle(&mut hooks, &world, AGENT, now, &[before()]);
        assert_eq!(runs(&begun), [before()]);
        step(&mut hooks, now, Input::Failed(before(), "no room".into()));
        assert_eq!(gate(&hooks, &world, BEFORE), Gate::Failed("no room".into()));
        let wait = (FIRST_RETRY_MILLIS << failures).min(LONGEST_RETRY_MILLIS);
        let until = now.mono_millis + wait;
        now.mono_millis = until - 1;
        assert_eq!(settle(&mut hooks, &world, AGENT, now, &[before()]), []);
        now.mono_millis = until;
    }
    let begun = settle(&mut hooks, &world, AGENT, now, &[before()]);
    assert_eq!(runs(&begun), [before()]);
    step(&mut hooks, now, Input::Failed(before(), "no room".into()));
    let other = Hook {
        on_failure: OnFailure::Continue,
        ..hook(BEFORE.0, BEFORE.1)
    };
    world.edit(|edit| edit.set_hooks(JOB.migration, &[other]));
    let begun = settle(&mut hooks, &world, AGENT, now, &[before()]);
    assert_eq!(runs(&begun), [before()]);
    step(&mut hooks, now, Input::Failed(before(), "no room".into()));
    // A hook that is not planned any more holds up nothing.
    world.edit(|edit| edit.set_hooks(JOB.migration, &[]));
    assert_eq!(gate(&hooks, &world, BEFORE), Gate::Open);
}

#[test]
fn hooks_for_which_nobody_waits_any_more_are_ended_and_begun_anew_later() {
    let world = planned(&[hook(BEFORE.0, BEFORE.1)]);
    let mut hooks = Hooks::default();
    settle(&mut hooks, &world, AGENT, NOW, &[before()]);
    let ended = settle(&mut hooks, &world, AGENT, NOW, &[]);
    assert_eq!(ended, [Action::Cancel(before())]);
    assert_eq!(settle(&mut hooks, &world, AGENT, NOW, &[]), []);
    // Not before the script is over, or two of it would run.
    assert_eq!(settle(&mut hooks, &world, AGENT, NOW, &[before()]), []);
    step(&mut hooks, NOW, Input::Cancelled(before()));
    let begun = settle(&mut hooks, &world, AGENT, NOW, &[before()]);
    assert_eq!(runs(&begun), [before()]);
    // One that failed is forgotten with its wait.
    step(&mut hooks, NOW, Input::Failed(before(), "no".into()));
    settle(&mut hooks, &world, AGENT, NOW, &[]);
    let begun = settle(&mut hooks, &world, AGENT, NOW, &[before()]);
    assert_eq!(runs(&begun), [before()]);
}

#[test]
fn a_hook_that_is_added_while_its_point_runs_is_run_before_the_point_has_passed() {
    let first = hook(BEFORE.0, BEFORE.1);
    let mut world = planned(std::slice::from_ref(&first));
    let mut hooks = Hooks::default();
    settle(&mut hooks, &world, AGENT, NOW, &[before()]);
    let both = [first, Hook::new(BEFORE.1, BEFORE.0, "added")];
    world.edit(|edit| edit.set_hooks(JOB.migration, &both));
    let ended = settle(&mut hooks, &world, AGENT, NOW, &[before()]);
    assert_eq!(ended, [Action::Cancel(before())]);
    // It had ended well before it was asked to.
    assert_eq!(step(&mut hooks, NOW, Input::Passed(before())), []);
    assert_eq!(gate(&hooks, &world, BEFORE), Gate::Running);
    let begun = settle(&mut hooks, &world, AGENT, NOW, &[before()]);
    let [Action::Run { hooks: run, .. }] = &begun[..] else {
        panic!("{begun:?}");
    };
    assert_eq!(run[..], both);
    step(&mut hooks, NOW, Input::Passed(before()));
    assert_eq!(gate(&hooks, &world, BEFORE), Gate::Open);
}

#[test]
fn a_hook_that_is_removed_while_it_runs_is_ended_and_holds_up_nothing_after() {
    let mut world = planned(&[hook(BEFORE.0, BEFORE.1)]);
    let mut hooks = Hooks::default();
    settle(&mut hooks, &world, AGENT, NOW, &[before()]);
    world.edit(|edit| edit.set_hooks(JOB.migration, &[]));
    let ended = settle(&mut hooks, &world, AGENT, NOW, &[before()]);
    assert_eq!(ended, [Action::Cancel(before())]);
    assert_eq!(gate(&hooks, &world, BEFORE), Gate::Running, "it has to end");
    step(&mut hooks, NOW, Input::Failed(before(), "killed".into()));
    assert_eq!(gate(&hooks, &world, BEFORE), Gate::Open);
    assert_eq!(settle(&mut hooks, &world, AGENT, NOW, &[before()]), []);
}

#[test]
fn a_hook_that_is_added_once_scripts_were_looked_for_is_still_run() {
    let later = hook(Side::Source, Point::AfterCutover);
    let mut world = planned(std::slice::from_ref(&later));
    let mut hooks = Hooks::default();
    settle(&mut hooks, &world, AGENT, NOW, &[before()]);
    assert_eq!(step(&mut hooks, NOW, Input::Passed(before())), []);
    assert_eq!(gate(&hooks, &world, BEFORE), Gate::Open);
    assert_eq!(settle(&mut hooks, &world, AGENT, NOW, &[before()]), []);
    let both = [later, hook(BEFORE.0, BEFORE.1)];
    world.edit(|edit| edit.set_hooks(JOB.migration, &both));
    assert_eq!(gate(&hooks, &world, BEFORE), Gate::Running);
    let begun = settle(&mut hooks, &world, AGENT, NOW, &[before()]);
    assert_eq!(runs(&begun), [before()]);
    let stored = step(&mut hooks, NOW, Input::Passed(before()));
    assert!(matches!(stored[..], [Action::Store(_)]), "{stored:?}");
}

#[test]
fn hooks_after_the_cutover_run_on_both_sides_once_every_disk_is_cut_over() {
    let mut world = planned(&[
        hook(Side::Source, Point::AfterCutover),
        hook(Side::Provisioner, Point::AfterCutover),
        // The same node has planned it.
        hook(Side::Operator, Point::AfterCutover),
    ]);
    let (mut source, mut provisioner) = (Hooks::default(), Hooks::default());
    let sides = [Side::Provisioner, Side::Operator];
    let checked = sides.map(|side| at(side, Point::BeforeReplication));
    let begun = settle(&mut provisioner, &world, OPERATOR, NOW, &[]);
    assert_eq!(runs(&begun), checked, "its scripts are looked for");
    for at in checked {
        step(&mut provisioner, NOW, Input::Passed(at));
    }
    world.want(Desired::cutover(false));
    assert_eq!(settle(&mut source, &world, AGENT, NOW, &[]), []);
    assert_eq!(settle(&mut provisioner, &world, OPERATOR, NOW, &[]), []);
    let stated = proof(&world, AGENT, End::Source, [1; 32]);
    world.agent_reports(1, vec![stated]);
    let begun = settle(&mut source, &world, AGENT, NOW, &[]);
    let after = at(Side::Source, Point::AfterCutover);
    assert_eq!(runs(&begun), [after]);
    let begun = settle(&mut provisioner, &world, OPERATOR, NOW, &[]);
    assert_eq!(
        runs(&begun),
        sides.map(|side| at(side, Point::AfterCutover))
    );
    // One that fails is run again after a deletion too.
    step(&mut source, NOW, Input::Failed(after, "it did not".into()));
    world.want(Desired::Deleted);
    let again = later(FIRST_RETRY_MILLIS);
    assert_eq!(
        runs(&settle(&mut source, &world, AGENT, again, &[])),
        [after]
    );
    step(&mut source, again, Input::Passed(after));
    assert_eq!(settle(&mut source, &world, AGENT, later(60_000), &[]), []);
}

#[test]
fn a_node_that_has_heard_of_nobody_runs_nothing() {
    let mut world = planned(&[hook(BEFORE.0, BEFORE.1)]);
    world.is_heard = false;
    let mut hooks = Hooks::default();
    assert_eq!(settle(&mut hooks, &world, AGENT, NOW, &[before()]), []);
}

#[test]
fn what_was_begun_before_a_freeze_is_to_be_undone_after_a_restart_too() {
    let points = [Point::BeforeFreeze, Point::AfterThaw];
    let mut world = planned(&points.map(|point| hook(Side::Source, point)));
    world.want(Desired::cutover(false));
    let mut hooks = Hooks::default();
    let [before, after] = points.map(|point| at(Side::Source, point));
    let begun = settle(&mut hooks, &world, AGENT, NOW, &[before]);
    let [Action::Store(record), Action::Run { .. }] = &begun[..] else {
        panic!("{begun:?}");
    };
    // It ended with its script under way.
    let mut again = Hooks::new(vec![record.clone()]);
    assert!(again.has_begun(JOB.migration) && !again.has_passed(before));
    let begun = settle(&mut again, &world, AGENT, NOW, &[after]);
    assert_eq!(runs(&begun), [after]);
    step(&mut again, NOW, Input::Passed(after));
    again.again(JOB.migration, &points, &mut vec![]);
    assert!(!again.has_begun(JOB.migration));
}

#[test]
fn what_undoes_hooks_waits_until_they_have_ended() {
    let points = [Point::BeforeFreeze, Point::AfterThaw];
    let mut world = planned(&points.map(|point| hook(Side::Source, point)));
    world.want(Desired::cutover(false));
    let mut hooks = Hooks::default();
    let [before, after] = points.map(|point| at(Side::Source, point));
    settle(&mut hooks, &world, AGENT, NOW, &[before]);
    let ending = settle(&mut hooks, &world, AGENT, NOW, &[after]);
    assert_eq!(ending, [Action::Cancel(before)]);
    assert_eq!(
        gate(&hooks, &world, (Side::Source, Point::AfterThaw)),
        Gate::Running
    );
    step(&mut hooks, NOW, Input::Cancelled(before));
    let begun = settle(&mut hooks, &world, AGENT, NOW, &[after]);
    assert_eq!(runs(&begun), [after]);
}

#[test]
fn the_bytes_of_a_record_do_not_change() {
    let record = Record {
        migration: JOB.migration,
        passed: [
            (Side::Source, Point::BeforeReplication),
            (Side::Source, Point::AfterCutover),
            (Side::Provisioner, Point::BeforeCleanup),
        ]
        .into(),
        begun: [Point::BeforeFreeze].into(),
    };
    let mut golden = vec![2];
    golden.extend([9; 16]);
    golden.extend([3, 0, 0, 0, 4, 1, 5, 1, 1]);
    assert_eq!(codec::encode(&record).unwrap(), golden);
    assert_eq!(codec::decode::<Record>(&golden).unwrap(), record);
}
