//! The same machine where a checkpoint is wanted.

use super::*;

impl Bench {
    /// The source is frozen for a checkpoint.
    fn freezing() -> Self {
        let mut bench = Self::new(SourceEnd::Unsaid);
        bench.view.wanted = Some(Wanted::CHECKPOINT);
        bench.settle();
        bench.answer(Answer::Stands(Stillness::Running));
        assert_eq!(bench.done(), ["sync"]);
        assert!(bench.done().is_empty());
        assert_eq!(bench.passes(2), ["freezing", "freeze"]);
        assert_eq!(bench.done(), ["frozen"]);
        assert_eq!(bench.moment(), Moment::Still);
        bench
    }

    /// It stands: as the node does, nothing is wanted any more.
    fn stood(&mut self) -> Vec<String> {
        self.view.wanted = None;
        self.all(DiskState::Held)
    }
}

#[test]
fn it_stands_once_every_disk_has_come_to_it_and_the_source_is_found_frozen_and_then_runs_on() {
    let mut bench = Bench::freezing();
    bench.view.disks[0].state = DiskState::Reached;
    assert!(bench.settle().is_empty());
    bench.now.mono_millis += 700;
    assert_eq!(bench.all(DiskState::Reached), ["look"]);
    let stands = Answer::Stands(Stillness::Frozen);
    let mut out = vec![];
    bench
        .machine
        .answered(bench.now, stands, &bench.view, &mut out);
    let frozen_millis = Some(700);
    assert_eq!(
        out,
        [Action::Stand { frozen_millis }, Action::Ask(Ask::Thaw)]
    );
    assert!(bench.stood().is_empty());
    assert_eq!(bench.done(), ["thawed", "again"]);
    assert!(bench.machine.is_idle());
}

#[test]
fn it_does_not_stand_where_somebody_let_go_of_the_source_or_nobody_says_in_time() {
    for (answer, later) in [
        (Answer::Stands(Stillness::Running), 0),
        (Answer::Stands(Stillness::Kept), 0),
        (Answer::Stands(Stillness::Frozen), DEADLINE_MILLIS),
    ] {
        let mut bench = Bench::freezing();
        bench.all(DiskState::Reached);
        bench.now.mono_millis += later;
        assert_eq!(bench.answer(answer), ["thaw"]);
        assert_eq!(bench.done(), ["thawed", "cutover-put-off", "again"]);
        let because = bench.machine.standing().because.unwrap();
        assert!(because.contains("the checkpoint did not"), "{because}");
    }
    let mut bench = Bench::freezing();
    bench.all(DiskState::Reached);
    assert_eq!(bench.failed(false), ["thaw"]);
}

#[test]
fn a_source_is_let_go_where_the_checkpoint_is_not_wanted_any_more() {
    let mut bench = Bench::freezing();
    bench.view.wanted = None;
    assert_eq!(bench.settle(), ["thaw"]);
    assert_eq!(bench.done(), ["thawed", "again"]);
    let mut bench = Bench::freezing();
    bench.all(DiskState::Reached);
    bench.view.wanted = None;
    assert_eq!(bench.answer(Answer::Stands(Stillness::Frozen)), ["thaw"]);
}

#[test]
fn what_was_reached_for_a_checkpoint_proves_nothing_for_a_cutover_and_the_other_way_round() {
    let mut bench = Bench::freezing();
    bench.view.wanted = wanted(SourceEnd::Unsaid);
    assert!(bench.all(DiskState::Reached).is_empty());
    assert_eq!(bench.all(DiskState::Proven), ["keep"]);
    bench.view.wanted = Some(Wanted::CHECKPOINT);
    assert_eq!(bench.done(), ["release"]);
}

#[test]
fn where_nobody_freezes_it_stands_once_every_disk_was_quiet() {
    let mut bench = Bench::new(SourceEnd::Unsaid);
    bench.view.wanted = Some(Wanted::CHECKPOINT);
    bench.view.unfreezable = Some("it is a file".into());
    bench.settle();
    bench.answer(Answer::Stands(Stillness::Running));
    assert_eq!(bench.moment(), Moment::Apart);
    bench.view.disks[1].state = DiskState::Reached;
    assert!(bench.settle().is_empty());
    assert_eq!(bench.all(DiskState::Reached), ["stand"]);
    assert!(bench.stood().is_empty());
    assert!(bench.machine.is_idle());
}

#[test]
fn a_node_that_was_started_again_after_it_stood_lets_go_of_the_source_and_says_nothing_failed() {
    let mut bench = Bench::new(SourceEnd::Unsaid);
    bench.stood();
    assert_eq!(bench.settle(), Vec::<String>::new());
    assert_eq!(bench.answer(Answer::Stands(Stillness::Frozen)), ["release"]);
    assert_eq!(bench.done(), ["thawed", "again"]);
    // What hooks have stopped is started again, also where nobody can say how it stands.
    let mut bench = Bench::new(SourceEnd::Unsaid);
    bench.view.is_begun = true;
    bench.view.after_thaw = Gate::Running;
    bench.stood();
    bench.failed(true);
    assert_eq!(bench.machine.waits_for_hooks(), Some(Point::AfterThaw));
}
