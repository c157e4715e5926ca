//! The machine of a whole server's cutover, with disks and a freezer that a test plays.

#![allow(clippy::unwrap_used)]

mod checkpoint;

use super::*;
use keys::UnixSecs;

/// What a test plays.
struct Bench {
    machine: Cutover,
    now: Now,
    view: View,
}

/// What may be left at most.
const BUDGET_MILLIS: u64 = DEADLINE_MILLIS / BUDGET_PART;

const DISK: Disk = Disk {
    passes: 3,
    rest_millis: Some(400),
    whole_millis: 2_000,
    is_tracked: true,
    is_rooted: true,
    state: DiskState::Moving,
};

fn wanted(source: SourceEnd) -> Option<Wanted> {
    Some(Wanted {
        is_checkpoint: false,
        prove_full: false,
        source,
    })
}

/// An action in short.
fn name(action: &Action) -> String {
    match action {
        Action::Ask(Ask::Freeze { .. }) => "freeze".into(),
        Action::Ask(ask) => format!("{ask:?}").to_lowercase(),
        Action::Commit { .. } => "commit".into(),
        Action::Stand { .. } => "stand".into(),
        Action::Again(_) => "again".into(),
        Action::Tell(note) => note.kind.to_owned(),
    }
}

impl Bench {
    fn new(source: SourceEnd) -> Self {
        Self {
            machine: Cutover::default(),
            now: Now {
                wall: UnixSecs(1_000),
                mono_millis: 1_000_000,
            },
            view: View {
                is_heard: true,
                wanted: wanted(source),
                disks: vec![DISK; 2],
                unfreezable: None,
                is_prepared: false,
                is_begun: false,
                before_freeze: Gate::Open,
                after_freeze: Gate::Open,
                after_thaw: Gate::Open,
                has_stop: false,
                was_frozen: false,
                is_known: true,
            },
        }
    }

    fn settle(&mut self) -> Vec<String> {
        let mut out = vec![];
        self.machine.settle(self.now, &self.view, &mut out);
        out.iter().map(name).collect()
    }

    fn later(&mut self, millis: u64) -> Vec<String> {
        self.now.mono_millis += millis;
        self.settle()
    }

    fn answer(&mut self, answer: Answer) -> Vec<String> {
        let mut out = vec![];
        self.machine
            .answered(self.now, answer, &self.view, &mut out);
        out.iter().map(name).collect()
    }

    fn done(&mut self) -> Vec<String> {
        self.answer(Answer::Done { millis: 10 })
    }

    fn failed(&mut self, nobody: bool) -> Vec<String> {
        let why = "because".into();
        self.answer(Answer::Failed { nobody, why })
    }

    fn passes(&mut self, count: u32) -> Vec<String> {
        self.view
            .disks
            .iter_mut()
            .for_each(|disk| disk.passes += count);
        self.settle()
    }

    fn all(&mut self, state: DiskState) -> Vec<String> {
        self.view
            .disks
            .iter_mut()
            .for_each(|disk| disk.state = state);
        self.settle()
    }

    fn moment(&self) -> Moment {
        self.machine.standing().moment
    }

    /// Looked, and found that the source runs.
    fn looked(source: SourceEnd) -> Self {
        let mut bench = Self::new(source);
        assert_eq!(bench.settle(), ["look"]);
        assert_eq!(
            bench.answer(Answer::Stands(Stillness::Running)),
            ["prepare"]
        );
        bench
    }

    fn frozen(source: SourceEnd) -> Self {
        let mut bench = Self::looked(source);
        assert_eq!(bench.done(), ["sync"]);
        assert!(bench.done().is_empty());
        assert!(bench.passes(1).is_empty(), "one that runs began before");
        assert_eq!(bench.passes(1), ["freezing", "freeze"]);
        assert_eq!(bench.moment(), Moment::Converging);
        assert_eq!(bench.done(), ["frozen"]);
        assert_eq!(bench.moment(), Moment::Still);
        bench
    }
}

#[test]
fn all_disks_are_proven_then_it_is_kept_and_then_all_count() {
    let mut bench = Bench::frozen(SourceEnd::StayFrozen);
    bench.view.disks[0].state = DiskState::Proven;
    assert!(bench.settle().is_empty());
    assert_eq!(bench.all(DiskState::Proven), ["keep"]);
    assert_eq!(bench.done(), ["commit"]);
    assert!(bench.all(DiskState::CutOver).is_empty());
    assert!(bench.later(1_000_000).is_empty());
    assert!(bench.machine.is_idle());
}

#[test]
fn a_deadline_that_was_first_commits_nothing() {
    let mut bench = Bench::frozen(SourceEnd::StayFrozen);
    assert_eq!(bench.all(DiskState::Proven), ["keep"]);
    // It may be kept all the same.
    assert_eq!(bench.failed(false), ["release"]);
    assert_eq!(bench.moment(), Moment::Converging);
    assert_eq!(bench.done(), ["thawed", "cutover-put-off", "again"]);
    // And it is tried again after a while.
    assert!(bench.all(DiskState::Moving).is_empty());
    assert!(bench.later(FIRST_RETRY_MILLIS - 1).is_empty());
    assert_eq!(bench.later(1), ["prepare"]);
}

#[test]
fn disks_that_are_not_proven_in_time_are_thawed() {
    let mut bench = Bench::frozen(SourceEnd::Unsaid);
    bench.view.disks[0].state = DiskState::Proven;
    assert_eq!(bench.later(DEADLINE_MILLIS - MARGIN_MILLIS - 10), ["thaw"]);
    assert_eq!(bench.moment(), Moment::Converging);
    // However they end now.
    assert!(bench.all(DiskState::Proven).is_empty());
    assert_eq!(bench.done(), ["thawed", "cutover-put-off", "again"]);
    assert!(bench.machine.standing().because.unwrap().contains("1 of 2"));
}

#[test]
fn who_asks_for_another_thing_gets_the_source_back_until_it_counts() {
    for state in [DiskState::Moving, DiskState::Proven] {
        let mut bench = Bench::frozen(SourceEnd::PowerOff);
        bench.view.wanted = None;
        assert_eq!(bench.all(state), ["thaw"]);
        assert_eq!(bench.done(), ["thawed", "again"]);
        assert!(bench.machine.is_idle());
    }
    // In the moment of the last question.
    let mut bench = Bench::frozen(SourceEnd::PowerOff);
    assert_eq!(bench.all(DiskState::Proven), ["keep"]);
    bench.view.wanted = None;
    assert!(bench.settle().is_empty());
    assert_eq!(bench.done(), ["release"]);
}

#[test]
fn a_disk_that_lost_its_proof_while_the_source_was_kept_lets_nothing_count() {
    let mut bench = Bench::frozen(SourceEnd::Unsaid);
    assert_eq!(bench.all(DiskState::Proven), ["keep"]);
    bench.view.disks[1].state = DiskState::Moving;
    assert_eq!(bench.done(), ["release"]);
}

#[test]
fn what_becomes_of_the_source_comes_after_it_counts() {
    let mut bench = Bench::frozen(SourceEnd::PowerOff);
    bench.all(DiskState::Proven);
    assert_eq!(bench.done(), ["commit"]);
    bench.all(DiskState::CutOver);
    assert!(bench.later(LINGER_MILLIS - 1).is_empty());
    // Nobody takes back what counts.
    bench.view.wanted = None;
    assert_eq!(bench.later(1), ["source-powers-off", "poweroff"]);

    let mut bench = Bench::looked(SourceEnd::Thaw);
    assert!(bench.done().is_empty());
    assert!(bench.machine.standing().because.unwrap().contains("hook"));
    bench.view.has_stop = true;
    assert_eq!(bench.later(LOOK_MILLIS), ["prepare"]);
    assert_eq!(bench.done(), ["sync"]);
    bench.view.is_prepared = true;
    bench.done();
    bench.passes(2);
    bench.done();
    assert_eq!(bench.all(DiskState::Proven), ["keep"]);
    assert_eq!(bench.done(), ["commit", "release"]);
    assert_eq!(bench.done(), ["thawed"]);
}

#[test]
fn where_nobody_freezes_each_disk_is_for_itself_unless_that_was_excluded() {
    let mut bench = Bench::looked(SourceEnd::Unsaid);
    assert!(bench.failed(true).is_empty());
    assert_eq!(bench.moment(), Moment::Apart);
    // Somebody may come.
    assert_eq!(bench.later(LOOK_MILLIS), ["prepare"]);
    assert!(bench.failed(true).is_empty());
    bench.view.disks[0].state = DiskState::CutOver;
    assert!(
        bench.later(LOOK_MILLIS).is_empty(),
        "they are apart for good"
    );

    // Somebody is there, and cannot now: that is no reason to do with less.
    let mut bench = Bench::looked(SourceEnd::Unsaid);
    assert_eq!(bench.failed(false), ["look"]);
    assert!(bench.answer(Answer::Stands(Stillness::Running)).is_empty());
    assert_eq!(bench.moment(), Moment::Converging);
    assert_eq!(bench.later(LOOK_MILLIS), ["prepare"]);

    let mut bench = Bench::looked(SourceEnd::StayFrozen);
    assert!(bench.failed(true).is_empty());
    assert_eq!(bench.moment(), Moment::Converging);
    assert!(
        bench
            .machine
            .standing()
            .because
            .unwrap()
            .contains("because")
    );
}

#[test]
fn a_source_that_cannot_be_frozen_is_not_asked_for() {
    let mut bench = Bench::new(SourceEnd::Unsaid);
    bench.view.unfreezable = Some("it is a file".into());
    assert_eq!(bench.settle(), ["look"]);
    assert!(bench.failed(true).is_empty());
    assert_eq!(bench.moment(), Moment::Apart);
    assert!(bench.later(LOOK_MILLIS).is_empty());
}

#[test]
fn it_is_not_frozen_before_what_is_left_is_little() {
    let mut bench = Bench::looked(SourceEnd::StayFrozen);
    bench.view.disks[1].rest_millis = Some(BUDGET_MILLIS + 1);
    assert!(bench.done().is_empty());
    let because = bench.machine.standing().because.unwrap();
    assert!(because.contains("5.0 s"), "{because}");
    bench.view.disks[1].rest_millis = Some(BUDGET_MILLIS);
    assert_eq!(bench.later(LOOK_MILLIS), ["prepare"]);
    assert_eq!(bench.done(), ["sync"]);
    bench.done();
    // Much was written meanwhile.
    bench.view.disks[0].rest_millis = None;
    assert_eq!(bench.passes(2), ["again"]);
    assert_eq!(bench.moment(), Moment::Converging);
}

#[test]
fn it_is_not_frozen_for_what_can_be_computed_before() {
    let mut bench = Bench::new(SourceEnd::StayFrozen);
    bench.view.disks[1].is_rooted = false;
    bench.settle();
    assert!(bench.answer(Answer::Stands(Stillness::Running)).is_empty());
    assert!(bench.machine.standing().because.unwrap().contains("roots"));
    assert!(bench.machine.standing().is_rooting);
    bench.view.disks[1].is_rooted = true;
    assert_eq!(bench.settle(), ["prepare"]);
    assert!(!bench.machine.standing().is_rooting);
}

#[test]
fn what_is_cached_is_written_out_again_until_that_is_quick() {
    let mut bench = Bench::looked(SourceEnd::StayFrozen);
    let slow = Answer::Done {
        millis: QUICK_SYNC_MILLIS + 1,
    };
    assert_eq!(bench.done(), ["sync"]);
    for _ in 1..MAX_SYNCS {
        assert!(bench.answer(slow.clone()).is_empty());
        assert_eq!(bench.passes(2), ["sync"]);
    }
    assert!(bench.answer(slow).is_empty());
    assert_eq!(bench.passes(2), ["freezing", "freeze"]);
}

#[test]
fn hooks_come_before_and_are_undone_after_an_attempt_that_failed() {
    let mut bench = Bench::looked(SourceEnd::StayFrozen);
    bench.view.before_freeze = Gate::Running;
    assert!(bench.done().is_empty());
    assert_eq!(bench.machine.waits_for_hooks(), Some(Point::BeforeFreeze));
    bench.view.before_freeze = Gate::Open;
    assert_eq!(bench.settle(), ["sync"]);
    bench.view.after_thaw = Gate::Running;
    assert_eq!(bench.failed(false), ["cutover-put-off"]);
    assert_eq!(bench.machine.waits_for_hooks(), Some(Point::AfterThaw));
    assert!(!bench.machine.is_idle());
    bench.view.after_thaw = Gate::Open;
    assert_eq!(bench.settle(), ["again"]);
    // A start again in between forgets nothing of it.
    let mut bench = Bench::new(SourceEnd::StayFrozen);
    bench.view.is_begun = true;
    bench.view.after_thaw = Gate::Running;
    bench.settle();
    assert!(bench.answer(Answer::Stands(Stillness::Running)).is_empty());
    assert_eq!(bench.machine.waits_for_hooks(), Some(Point::AfterThaw));
}

#[test]
fn hooks_of_a_frozen_source_hold_up_what_counts_until_the_deadline() {
    let mut bench = Bench::frozen(SourceEnd::StayFrozen);
    bench.view.after_freeze = Gate::Running;
    assert!(bench.all(DiskState::Proven).is_empty());
    assert_eq!(bench.machine.waits_for_hooks(), Some(Point::AfterFreeze));
    assert_eq!(bench.later(DEADLINE_MILLIS), ["thaw"]);
    assert_eq!(bench.machine.waits_for_hooks(), None);
}

#[test]
fn after_a_start_what_is_frozen_is_thawed_unless_it_was_cut_over() {
    for stands in [Stillness::Frozen, Stillness::Kept] {
        let mut bench = Bench::new(SourceEnd::StayFrozen);
        bench.settle();
        assert_eq!(bench.answer(Answer::Stands(stands)), ["release"]);
    }
    let mut bench = Bench::new(SourceEnd::PowerOff);
    bench.all(DiskState::CutOver);
    assert!(bench.answer(Answer::Stands(Stillness::Kept)).is_empty());
    assert_eq!(
        bench.later(LINGER_MILLIS),
        ["source-powers-off", "poweroff"]
    );
}

#[test]
fn an_old_copy_of_the_data_thaws_nothing_before_it_has_heard_what_it_said() {
    let mut bench = Bench::new(SourceEnd::StayFrozen);
    bench.view.is_heard = false;
    assert!(bench.later(1_000_000).is_empty());
    bench.view.is_heard = true;
    // It had been cut over, by its own word.
    bench
        .view
        .disks
        .iter_mut()
        .for_each(|disk| disk.state = DiskState::CutOver);
    assert_eq!(bench.settle(), ["look"]);
    assert!(bench.answer(Answer::Stands(Stillness::Kept)).is_empty());
}

#[test]
fn a_source_that_runs_beside_its_copy_is_told() {
    let mut bench = Bench::new(SourceEnd::StayFrozen);
    bench.view.was_frozen = true;
    bench.all(DiskState::CutOver);
    let told = bench.answer(Answer::Stands(Stillness::Running));
    assert_eq!(told, ["source-runs-again"]);
    let mut bench = Bench::new(SourceEnd::Thaw);
    bench.view.was_frozen = true;
    bench.all(DiskState::CutOver);
    assert!(bench.answer(Answer::Stands(Stillness::Running)).is_empty());
}

#[test]
fn a_thaw_that_is_not_answered_is_asked_for_again() {
    let mut bench = Bench::frozen(SourceEnd::StayFrozen);
    bench.view.wanted = None;
    assert_eq!(bench.settle(), ["thaw"]);
    assert_eq!(bench.failed(true), ["not-thawed"]);
    assert!(bench.later(LOOK_MILLIS - 1).is_empty());
    assert_eq!(bench.later(1), ["thaw"]);
    assert_eq!(bench.moment(), Moment::Converging);
    assert_eq!(bench.done(), ["thawed", "again"]);
}

#[test]
fn what_cannot_be_frozen_and_is_to_be_waits_and_says_so_whatever_its_end() {
    let parted = |bench: &mut Bench| bench.view.disks[0].state = DiskState::CutOver;
    let file = |bench: &mut Bench| bench.view.unfreezable = Some("it is a file".into());
    for end in [SourceEnd::Thaw, SourceEnd::StayFrozen, SourceEnd::PowerOff] {
        for spoil in [&parted as &dyn Fn(&mut Bench), &file] {
            let mut bench = Bench::new(end);
            spoil(&mut bench);
            bench.settle();
            assert!(bench.answer(Answer::Stands(Stillness::Running)).is_empty());
            assert_eq!(bench.moment(), Moment::Converging);
            let because = bench.machine.standing().because.unwrap();
            assert!(because.contains("cannot be frozen"), "{because}");
            assert!(bench.later(LOOK_MILLIS).is_empty());
        }
    }
}

#[test]
fn an_end_that_is_said_later_takes_disks_out_of_being_apart() {
    let mut bench = Bench::looked(SourceEnd::Unsaid);
    assert!(bench.failed(true).is_empty());
    assert_eq!(bench.moment(), Moment::Apart);
    bench.view.wanted = wanted(SourceEnd::PowerOff);
    bench.settle();
    assert_eq!(bench.moment(), Moment::Converging);
}

#[test]
fn a_machine_is_not_switched_off_before_somebody_else_knows_that_it_is_cut_over() {
    let mut bench = Bench::frozen(SourceEnd::PowerOff);
    bench.all(DiskState::Proven);
    bench.view.is_known = false;
    assert_eq!(bench.done(), ["commit"]);
    bench.all(DiskState::CutOver);
    assert!(bench.later(10 * LINGER_MILLIS).is_empty());
    bench.view.is_known = true;
    assert_eq!(bench.settle(), ["source-powers-off", "poweroff"]);
}

#[test]
fn what_may_count_is_not_let_go() {
    let mut bench = Bench::new(SourceEnd::StayFrozen);
    bench.view.disks[0].state = DiskState::CutOver;
    bench.view.disks[1].state = DiskState::Unproven;
    bench.settle();
    assert_eq!(
        bench.answer(Answer::Stands(Stillness::Kept)),
        ["freeze-unknown"]
    );
    // It looks again, and says it once.
    assert_eq!(bench.later(LOOK_MILLIS), ["look"]);
    assert!(bench.answer(Answer::Stands(Stillness::Kept)).is_empty());
    bench.all(DiskState::CutOver);
    assert_eq!(bench.later(LOOK_MILLIS), ["look"]);
    assert!(bench.answer(Answer::Stands(Stillness::Kept)).is_empty());
    assert!(bench.machine.is_idle());
}

#[test]
fn a_source_that_was_kept_when_nobody_could_say_so_is_let_go_once_somebody_can() {
    let mut bench = Bench::new(SourceEnd::StayFrozen);
    bench.settle();
    assert_eq!(bench.failed(true), ["prepare"]);
    assert_eq!(bench.failed(false), ["look"]);
    assert_eq!(bench.answer(Answer::Stands(Stillness::Kept)), ["release"]);
    // Where nothing is wanted of it, too.
    let mut bench = Bench::new(SourceEnd::StayFrozen);
    bench.view.wanted = None;
    bench.settle();
    assert!(bench.machine.standing().holds);
    assert!(bench.failed(true).is_empty());
    assert!(
        !bench.machine.standing().holds,
        "nobody is there to wait for"
    );
    assert_eq!(bench.later(LOOK_MILLIS), ["look"]);
    assert_eq!(bench.answer(Answer::Stands(Stillness::Kept)), ["release"]);
}

#[test]
fn hooks_do_not_keep_a_server_stopped_while_its_disks_do_not_move() {
    let mut bench = Bench::looked(SourceEnd::StayFrozen);
    assert_eq!(bench.done(), ["sync"]);
    assert!(bench.done().is_empty());
    bench.all(DiskState::Held);
    bench.view.after_thaw = Gate::Running;
    assert_eq!(bench.later(2 * DEADLINE_MILLIS), ["cutover-put-off"]);
    assert_eq!(bench.machine.waits_for_hooks(), Some(Point::AfterThaw));
}

#[test]
fn what_is_to_become_of_the_source_cannot_be_changed_under_a_freeze() {
    let mut bench = Bench::frozen(SourceEnd::StayFrozen);
    bench.view.has_stop = true;
    bench.view.wanted = wanted(SourceEnd::Thaw);
    assert_eq!(bench.all(DiskState::Proven), ["keep"]);
    assert_eq!(bench.done(), ["release"]);
    // Nor after it, by who does not know that nothing was stopped.
    let mut bench = Bench::new(SourceEnd::Thaw);
    bench.all(DiskState::CutOver);
    bench.view.has_stop = true;
    assert!(bench.answer(Answer::Stands(Stillness::Kept)).is_empty());
    assert!(bench.later(10 * LINGER_MILLIS).is_empty());
}
