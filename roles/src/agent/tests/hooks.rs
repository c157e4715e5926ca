//! What hooks hold up: the first session, and the end of a deleted migration.

use super::*;
use crate::hooks::{Action as HookAction, At, Input as HookInput};
use crate::world::proof_of_job;
use crdt::plan::hook::{Hook, Side};

impl Bench {
    fn plan_hook(&mut self, point: Point) {
        let hooks = [Hook::new(point, Side::Source, "script")];
        self.world
            .edit(|edit| edit.set_hooks(JOB.migration, &hooks));
    }

    /// Begins the hooks that the agent waits for, and says how they ended.
    fn run_hooks(&mut self, ended: fn(At) -> HookInput) {
        let point = self.agent.waits_for_hooks().unwrap();
        let at = At {
            migration: JOB.migration,
            side: Side::Source,
            point,
        };
        let mut out = vec![];
        let situation = self.world.situation(AGENT, self.now);
        self.hooks.settle(&situation, &[at].into(), &mut out);
        assert!(matches!(out[..], [HookAction::Run { .. }]), "{out:?}");
        self.hooks.step(self.now, ended(at), &mut out);
    }
}

fn failed(at: At) -> HookInput {
    HookInput::Failed(at, "script ended with status 1".into())
}

#[test]
fn no_session_is_opened_before_its_hooks_have_passed_and_it_says_why() {
    let mut bench = Bench::started();
    bench.plan_hook(Point::BeforeReplication);
    assert_eq!(names(&bench.facts()), [""; 0]);
    assert_eq!(bench.agent.standing().1, "running hooks");
    bench.run_hooks(failed);
    assert_eq!(names(&bench.facts()), [""; 0]);
    let (stage, step, why) = bench.agent.standing();
    assert_eq!((stage, step), (Stage::Stalled, "hooks"));
    assert_eq!(why.as_deref(), Some("script ended with status 1"));
    bench.later(crate::hooks::FIRST_RETRY_MILLIS);
    bench.run_hooks(HookInput::Passed);
    assert_eq!(names(&bench.facts()), ["open"]);
    assert_eq!(bench.agent.waits_for_hooks(), None);
}

#[test]
fn a_hook_that_is_planned_once_blocks_move_holds_up_nothing() {
    let mut bench = Bench::passing();
    bench.plan_hook(Point::BeforeReplication);
    assert_eq!(names(&bench.facts()), [""; 0]);
    assert_eq!(bench.agent.standing().1, "copying");
    bench.pass_done(3);
    bench.input(Input::SessionLost("cut".into()));
    assert_eq!(names(&bench.later(LONGEST_RETRY_MILLIS)), ["open"]);
}

#[test]
fn a_pause_waits_for_no_hook() {
    let mut bench = Bench::started();
    bench.plan_hook(Point::BeforeReplication);
    bench.facts();
    assert_eq!(
        bench.agent.waits_for_hooks(),
        Some(Point::BeforeReplication)
    );
    bench.world.want(Desired::Paused);
    bench.facts();
    assert_eq!(bench.agent.waits_for_hooks(), None);
}

#[test]
fn what_a_deleted_migration_left_goes_once_its_hooks_have_passed() {
    let mut bench = Bench::passing();
    bench.plan_hook(Point::BeforeCleanup);
    bench.world.want(Desired::Deleted);
    assert_eq!(names(&bench.facts()), ["close"]);
    bench.run_hooks(failed);
    assert_eq!(names(&bench.facts()), [""; 0]);
    assert!(!bench.agent.gone());
    bench.later(crate::hooks::FIRST_RETRY_MILLIS);
    bench.run_hooks(HookInput::Passed);
    assert_eq!(names(&bench.facts()), ["forget"]);
    assert!(bench.agent.gone());
}

#[test]
fn a_migration_that_left_nothing_has_nothing_to_clean_up() {
    let mut bench = Bench::new();
    bench.facts();
    bench.plan_hook(Point::BeforeCleanup);
    bench.world.want(Desired::Deleted);
    assert_eq!(names(&bench.facts()), ["forget"]);
}

#[test]
fn no_hook_runs_before_the_cleanup_of_a_migration_that_is_partly_cut_over() {
    let mut bench = Bench::passing();
    bench.plan_hook(Point::BeforeCleanup);
    bench.world.want(Desired::Deleted);
    let other = JobId {
        volume: keys::VolumeId([77; 16]),
        ..JOB
    };
    let stated = proof_of_job(&bench.world, other, 1, AGENT, End::Source, [5; 32]);
    bench.world.agent_reports(1, vec![stated]);
    assert_eq!(names(&bench.facts()), ["close", "forget"]);
    assert_eq!(bench.agent.waits_for_hooks(), None);
}
