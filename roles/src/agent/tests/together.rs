//! One disk of a server that is cut over as a whole.

use super::*;
use crate::cutover::DiskState;

impl Bench {
    /// A disk that had its first pass, and whose server is to be cut over.
    fn cutting(moment: Moment) -> Self {
        let mut bench = Self::started();
        bench.moment = moment;
        bench.facts();
        bench.ready();
        bench.pass_done(3);
        bench.world.want(Desired::cutover(false));
        bench.facts();
        bench
    }

    fn ready(&mut self) {
        self.input(Input::SessionReady {
            barrier: 0,
            groups_adopted: 0,
        });
    }

    /// Whether a pass runs after these actions that was begun by them, over all or not.
    fn began(actions: &[Action]) -> Option<bool> {
        actions.iter().find_map(|action| match action {
            Action::BeginPass { whole, .. } => Some(*whole),
            _ => None,
        })
    }

    fn still(&mut self) -> Vec<Action> {
        self.moment = Moment::Still;
        self.facts()
    }

    fn proven() -> Self {
        let mut bench = Self::cutting(Moment::Converging);
        bench.still();
        bench.pass_done(0);
        let finished = bench.finished();
        bench.input(Input::Finished(finished));
        assert_eq!(bench.agent.disk().state, DiskState::Proven);
        bench
    }
}

#[test]
fn while_it_converges_pass_follows_pass_and_none_asks_for_a_root() {
    let mut bench = Bench::cutting(Moment::Converging);
    for _ in 0..4 {
        bench.later(MIN_REST_MILLIS);
        let actions = bench.pass_done(0);
        assert!(!names(&actions).contains(&"finish"), "{actions:?}");
        assert!(!names(&actions).contains(&"source-not-quiet"));
        let actions = bench.later(CONVERGING_REST_MILLIS);
        assert_eq!(Bench::began(&actions), Some(false), "{actions:?}");
    }
}

#[test]
fn only_a_pass_that_began_while_the_source_was_frozen_leads_to_a_root() {
    let mut bench = Bench::cutting(Moment::Converging);
    bench.later(MIN_REST_MILLIS);
    // It runs while the source is frozen.
    bench.still();
    let actions = bench.pass_done(0);
    assert_eq!(Bench::began(&actions), Some(false), "{actions:?}");
    let actions = bench.pass_done(2);
    assert_eq!(Bench::began(&actions), Some(false), "{actions:?}");
    let actions = bench.pass_done(0);
    assert!(names(&actions).contains(&"finish"), "{actions:?}");
}

#[test]
fn a_source_that_rests_is_read_at_once_when_it_is_frozen() {
    let mut bench = Bench::cutting(Moment::Converging);
    bench.later(MIN_REST_MILLIS);
    bench.pass_done(1);
    assert_eq!(Bench::began(&bench.still()), Some(false));
}

#[test]
fn what_is_proven_counts_when_all_disks_do_and_not_before() {
    let mut bench = Bench::proven();
    assert_eq!(bench.agent.record().finished, None);
    assert!(names(&bench.later(60_000)).is_empty());
    // Its session is over, and that is none of a loss.
    bench.input(Input::SessionLost("closed".into()));
    assert_eq!(bench.agent.disk().state, DiskState::Proven);
    let mut out = vec![];
    let record = bench.agent.commit(1_234, &mut out).unwrap();
    let finished = record.finished.unwrap();
    assert_eq!(finished.frozen_millis, Some(1_234));
    assert_eq!(names(&out), ["cut-over"]);
    assert_eq!(bench.stage(), Stage::CutOver);
    assert!(bench.agent.commit(1_234, &mut out).is_none());
}

#[test]
fn what_was_proven_of_a_source_that_runs_again_counts_no_more() {
    let mut bench = Bench::proven();
    bench.moment = Moment::Converging;
    let actions = bench.facts();
    assert!(names(&actions).contains(&"open"), "{actions:?}");
    assert!(bench.agent.commit(1, &mut vec![]).is_none());
    let mut bench = Bench::proven();
    bench.world.want(Desired::Paused);
    bench.facts();
    assert!(bench.agent.commit(1, &mut vec![]).is_none());
    assert_eq!(bench.stage(), Stage::Paused);
}

#[test]
fn a_root_that_comes_after_the_thaw_is_not_taken() {
    let mut bench = Bench::cutting(Moment::Converging);
    bench.still();
    bench.pass_done(0);
    bench.moment = Moment::Converging;
    bench.facts();
    let finished = bench.finished();
    bench.input(Input::Finished(finished));
    assert!(bench.agent.commit(1, &mut vec![]).is_none());
}

#[test]
fn what_is_to_be_proven_in_full_is_read_in_full_once_it_is_frozen() {
    let mut bench = Bench::cutting(Moment::Converging);
    bench.world.want(Desired::cutover(true));
    bench.facts();
    let actions = bench.later(MIN_REST_MILLIS);
    assert_eq!(Bench::began(&actions), Some(false), "{actions:?}");
    bench.pass_done(0);
    assert_eq!(Bench::began(&bench.still()), Some(true));
    assert!(names(&bench.pass_done(0)).contains(&"finish and read back"));
    // And one that was proven without, when it is asked for later, is proven again.
    let mut bench = Bench::proven();
    bench.world.want(Desired::cutover(true));
    assert!(names(&bench.facts()).contains(&"open"));
}
