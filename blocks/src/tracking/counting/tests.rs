//! What follows from the figures of one device, read after each other.

use super::*;

/// A reading of a device that counted this, where so much was seen complete and queued.
fn reading(counted: u64, seen: u64, queued: u64, is_idle: bool) -> Reading {
    let count = |seen| Count {
        before: counted,
        seen,
        after: counted,
    };
    Reading {
        completed: count(seen),
        queued: Some(count(queued)),
        is_idle,
        has_gathered_discards: false,
    }
}

fn verdict(judge: &mut Judge, reading: &Reading) -> Verdict {
    judge.take(reading).verdict
}

/// A judge of a device that had counted 1,000 sectors before the tracker came.
fn judge() -> Judge {
    let mut judge = Judge::new();
    for _ in 0..2 {
        assert_ne!(
            verdict(&mut judge, &reading(1_000, 0, 0, true)),
            Verdict::Whole
        );
    }
    judge
}

#[test]
fn what_was_seen_and_what_was_counted_differ_by_a_constant() {
    let mut judge = judge();
    for more in [0, 8, 8, 4_096, 1_000_000] {
        let taken = verdict(&mut judge, &reading(1_000 + more, more, more + 64, false));
        assert_eq!(taken, Verdict::Whole, "{more}");
    }
}

#[test]
fn readings_while_the_device_works_narrow_the_constant_down_and_find_one_sector() {
    let mut judge = judge();
    let busy = |before, seen, after| Reading {
        completed: Count {
            before,
            seen,
            after,
        },
        queued: None,
        is_idle: false,
        has_gathered_discards: false,
    };
    assert_eq!(
        verdict(&mut judge, &busy(1_500, 600, 1_700)),
        Verdict::Whole
    );
    assert_eq!(
        verdict(&mut judge, &busy(2_000, 1_000, 2_000)),
        Verdict::Whole
    );
    assert_eq!(
        verdict(&mut judge, &busy(3_000, 1_999, 3_400)),
        Verdict::Gap
    );
}

#[test]
fn a_completion_that_is_missing_is_found_and_what_was_queued_says_whether_it_is_marked() {
    let mut whole = judge();
    let taken = verdict(&mut whole, &reading(1_024, 16, 24, true));
    assert_eq!(taken, Verdict::Missed { sectors: 8 });
    // Until two readings agree again it is not known whether more is missing.
    let taken = verdict(&mut whole, &reading(1_032, 24, 32, true));
    assert_eq!(taken, Verdict::Missed { sectors: 0 });
    let taken = verdict(&mut whole, &reading(1_040, 32, 40, true));
    assert_eq!(taken, Verdict::Whole);

    let mut neither = judge();
    let taken = verdict(&mut neither, &reading(1_024, 16, 16, true));
    assert_eq!(taken, Verdict::Gap);
}

#[test]
fn an_event_of_queueing_that_is_missing_is_no_loss_by_itself() {
    let mut judge = judge();
    assert_eq!(
        verdict(&mut judge, &reading(1_024, 24, 16, false)),
        Verdict::Whole
    );
    // But it leaves nothing to go by for the next completion that is, even where so much is
    // under way that it does not show any more.
    assert_eq!(
        verdict(&mut judge, &reading(1_032, 24, 40, false)),
        Verdict::Gap
    );
}

#[test]
fn a_device_of_which_queueing_says_nothing_has_a_gap_where_a_completion_is_missing() {
    let mut judge = judge();
    let silent = |counted, seen| Reading {
        queued: None,
        ..reading(counted, seen, 0, true)
    };
    assert_eq!(verdict(&mut judge, &silent(1_008, 8)), Verdict::Whole);
    assert_eq!(verdict(&mut judge, &silent(1_016, 8)), Verdict::Gap);
}

#[test]
fn discards_that_were_gathered_count_as_missed() {
    let mut judge = judge();
    let discarded = Reading {
        has_gathered_discards: true,
        ..reading(1_008, 8, 8, true)
    };
    assert_eq!(
        verdict(&mut judge, &discarded),
        Verdict::Missed { sectors: 0 }
    );
    assert_eq!(
        verdict(&mut judge, &reading(1_016, 16, 16, true)),
        Verdict::Whole
    );
}

#[test]
fn counters_that_stand_still_are_no_check() {
    let mut judge = judge();
    // An event comes before it is counted: once is no proof.
    assert_eq!(
        verdict(&mut judge, &reading(1_000, 8, 8, false)),
        Verdict::Whole
    );
    assert_eq!(
        verdict(&mut judge, &reading(1_000, 8, 8, true)),
        Verdict::NotCounted
    );
}

#[test]
fn an_event_that_is_not_counted_yet_is_no_loss_later() {
    let mut judge = judge();
    assert_eq!(
        verdict(&mut judge, &reading(1_000, 8, 8, false)),
        Verdict::Whole
    );
    assert_eq!(
        verdict(&mut judge, &reading(1_008, 8, 8, true)),
        Verdict::Whole
    );
    assert_eq!(
        verdict(&mut judge, &reading(1_016, 16, 16, true)),
        Verdict::Whole
    );
}

#[test]
fn a_device_stands_still_where_nothing_is_under_way_or_waits_to_be() {
    let mut judge = judge();
    let mut is_still = |reading: &Reading| judge.take(reading).is_still;
    assert!(is_still(&reading(1_008, 8, 8, true)));
    assert!(!is_still(&reading(1_008, 8, 16, false)));
    // It was queued, and waits before it is counted as under way.
    assert!(!is_still(&reading(1_008, 8, 16, true)));
    assert!(!is_still(&reading(1_008, 8, 16, true)));
    assert!(is_still(&reading(1_016, 16, 16, true)));
}

#[test]
fn figures_that_moved_while_they_were_read_give_nothing_to_hold_later_ones_to() {
    let mut judge = Judge::new();
    let moving = Reading {
        completed: Count {
            before: 1_000,
            seen: 8,
            after: 1_016,
        },
        ..reading(1_000, 8, 64, false)
    };
    for _ in 0..3 {
        verdict(&mut judge, &moving);
    }
    // One is missing that would hide in what moved.
    let taken = verdict(&mut judge, &reading(1_016, 8, 64, false));
    assert_ne!(taken, Verdict::Whole);
}
