//! One disk of a server of which checkpoints are taken.

use super::*;
use crate::cutover::DiskState;
use crate::world::{LENGTH, proof_for};
use crdt::plan::Wish;
use crdt::report::{CheckpointState, KeptCheckpoint};

fn name(text: &str) -> CheckpointName {
    CheckpointName::new(text).unwrap()
}

impl Bench {
    fn ask(&mut self, checkpoint: &str) -> Vec<Action> {
        self.world
            .edit(|edit| edit.ask_checkpoint(JOB.migration, &name(checkpoint), Wish::Kept));
        self.facts()
    }

    /// A source of which nobody writes, after its first pass, with this asked for.
    fn asked(checkpoint: &str) -> Self {
        let mut bench = Self::passing();
        bench.pass_done(3);
        bench.ask(checkpoint);
        bench
    }

    /// The session that was opened again stands, and its pass has begun.
    fn ready_again(&mut self) {
        self.facts();
        self.input(Input::SessionReady {
            barrier: 1,
            groups_adopted: 0,
        });
    }

    fn root(&mut self, checkpoint: &str) -> Vec<Action> {
        let point = CheckpointPoint {
            name: name(checkpoint),
            epoch: Epoch(1),
            proof: proof_for(&self.world, checkpoint),
            frozen_millis: None,
            is_held: false,
        };
        self.input(Input::Rooted(Some(Box::new(point))))
    }

    /// It stands at a checkpoint.
    fn standing_at(checkpoint: &str) -> Self {
        let mut bench = Self::asked(checkpoint);
        bench.pass_done(0);
        bench.root(checkpoint);
        assert_eq!(bench.agent.disk().state, DiskState::Reached);
        let record = bench.agent.stand(Some(1_234), &mut vec![]).unwrap();
        assert_eq!(record.held().unwrap().frozen_millis, Some(1_234));
        bench
    }

    /// The provisioner says how far the checkpoint is.
    fn kept(&mut self, checkpoint: &str, epoch: u64, state: CheckpointState) {
        let kept = KeptCheckpoint {
            migration: JOB.migration,
            volume: JOB.volume,
            name: name(checkpoint),
            epoch: Epoch(epoch),
            state,
            path: String::new(),
            copy: None,
        };
        self.world.target_and_checkpoint(LENGTH, kept);
    }
}

#[test]
fn a_pass_that_finds_nothing_leads_to_a_root_of_this_end_alone() {
    let mut bench = Bench::asked("a");
    assert!(!names(&bench.pass_done(2)).contains(&"root"));
    assert!(names(&bench.pass_done(0)).contains(&"root"));
    assert_eq!(bench.agent.rooting(), Some(&name("a")));
    assert_eq!(bench.agent.finishing(), None);
    // Of another checkpoint, or of a cutover, it says nothing.
    let finished = bench.finished();
    bench.input(Input::Finished(finished));
    assert_eq!(bench.agent.disk().state, DiskState::Moving);
    assert!(names(&bench.root("a")).contains(&"close"));
    assert_eq!(bench.agent.disk().state, DiskState::Reached);
    assert!(bench.agent.record().finished.is_none());
    assert!(bench.agent.commit(1, &mut vec![]).is_none());
    bench.input(Input::SessionLost("closed".into()));
    assert_eq!(bench.agent.disk().state, DiskState::Reached);
}

#[test]
fn a_root_of_a_checkpoint_that_was_deleted_meanwhile_is_left_and_passes_go_on() {
    let mut bench = Bench::asked("a");
    bench.pass_done(0);
    bench
        .world
        .edit(|edit| edit.set_checkpoint(JOB.migration, &name("a"), Wish::Deleted));
    bench.facts();
    assert_eq!(bench.agent.rooting(), None);
    // Whoever signs signs nothing then.
    bench.input(Input::Rooted(None));
    assert!(names(&bench.later(MIN_REST_MILLIS)).contains(&"pass"));
    assert!(bench.agent.stand(None, &mut vec![]).is_none());
}

#[test]
fn nothing_is_sent_until_it_is_kept_also_by_a_node_that_was_started_again() {
    for state in [
        CheckpointState::Sealed,
        CheckpointState::Verified { root: [5; 32] },
        CheckpointState::Failed("disk full".into()),
    ] {
        let mut bench = Bench::standing_at("a");
        assert!(names(&bench.facts()).is_empty());
        let record = bench.agent.record().clone();
        bench.agent = Agent::new(JOB, Some(record));
        bench.kept("a", 1, CheckpointState::Sealing);
        assert!(!names(&bench.facts()).contains(&"open"));
        assert_eq!(bench.agent.standing().1, "waiting for a checkpoint");
        // Another epoch's says nothing.
        bench.kept("a", 2, state.clone());
        assert!(!names(&bench.facts()).contains(&"open"));
        bench.kept("a", 1, state);
        let actions = bench.facts();
        assert_eq!(names(&actions)[..2], ["store", "checkpoint-left"]);
        assert!(names(&actions).contains(&"open"), "{actions:?}");
        assert_eq!(bench.agent.record().checkpoints.len(), 1);
        // It is not taken again.
        bench.ready_again();
        assert!(!names(&bench.pass_done(0)).contains(&"root"));
    }
}

#[test]
fn a_pause_does_not_let_it_go_and_a_deletion_does() {
    let mut bench = Bench::standing_at("a");
    bench.world.want(Desired::Paused);
    bench.facts();
    assert!(bench.agent.record().held().is_some());
    bench.world.want(Desired::Started);
    assert!(!names(&bench.facts()).contains(&"open"));
    bench
        .world
        .edit(|edit| edit.set_checkpoint(JOB.migration, &name("a"), Wish::Deleted));
    assert!(names(&bench.facts()).contains(&"open"));
    assert!(bench.agent.record().checkpoints.is_empty());
}

#[test]
fn one_too_many_is_let_go_where_a_newer_one_is_good_by_then() {
    let mut bench = Bench::standing_at("a");
    bench.ask("b");
    bench.kept("b", 1, CheckpointState::Verified { root: [5; 32] });
    assert!(!names(&bench.facts()).contains(&"open"));
    bench
        .world
        .edit(|edit| edit.keep_checkpoints(JOB.migration, Some(1)));
    assert!(names(&bench.facts()).contains(&"open"));
}

#[test]
fn the_oldest_comes_first_and_a_cutover_after_all() {
    let mut bench = Bench::standing_at("a");
    bench.world.want(Desired::cutover(false));
    bench.ask("b");
    bench.kept("a", 1, CheckpointState::Sealed);
    assert!(names(&bench.facts()).contains(&"open"));
    bench.ready_again();
    bench.pass_done(0);
    assert_eq!(bench.agent.rooting(), Some(&name("b")));
    assert_eq!(bench.agent.finishing(), None);
    bench.root("b");
    bench.agent.stand(None, &mut vec![]).unwrap();
    bench.kept("b", 1, CheckpointState::Sealed);
    bench.facts();
    bench.ready_again();
    bench.pass_done(0);
    assert_eq!(bench.agent.finishing(), Some(false));
}
