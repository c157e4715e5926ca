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
        queued: count(queued),
        is_idle,
        is_counted: true,
        has_gathered_discards: false,
    }
}

/// All readings of a test that does not say otherwise are made in this generation.
const AT: Generation = Generation(7);

fn verdict(judge: &mut Judge, reading: &Reading) -> Verdict {
    judge.take(reading, AT).verdict
}

fn missed(sectors: u64) -> Verdict {
    Verdict::Missed { sectors, since: AT }
}

/// A judge of a device that had counted 1,000 sectors before the tracker came.
fn judge() -> Judge {
    let mut judge = Judge::new();
    let first = [(); 2].map(|()| verdict(&mut judge, &reading(1_000, 0, 0, true)));
    assert_eq!(first, [Verdict::Gap, Verdict::Whole]);
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
        queued: Count {
            before,
            seen: seen + 64,
            after,
        },
        ..reading(0, 0, 0, false)
    };
    assert_eq!(
        verdict(&mut judge, &busy(1_500, 600, 1_700)),
        Verdict::Whole
    );
    assert_eq!(
        verdict(&mut judge, &busy(2_000, 1_000, 2_000)),
        Verdict::Whole
    );
    assert_eq!(verdict(&mut judge, &busy(3_000, 1_999, 3_400)), missed(1));
}

#[test]
fn a_completion_that_is_missing_is_found_and_what_was_queued_says_whether_it_is_marked() {
    let mut whole = judge();
    let taken = verdict(&mut whole, &reading(1_024, 16, 24, true));
    assert_eq!(taken, missed(8));
    let taken = verdict(&mut whole, &reading(1_032, 24, 32, true));
    assert_eq!(taken, Verdict::Whole);
    let taken = verdict(&mut whole, &reading(1_048, 32, 56, false));
    assert_eq!(taken, missed(8));
    // Until two readings agree again it is not known whether more is missing.
    let taken = verdict(&mut whole, &reading(1_048, 32, 56, false));
    assert_eq!(taken, missed(0));
    let taken = verdict(&mut whole, &reading(1_056, 40, 56, false));
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
fn what_was_missed_is_a_gap_once_the_queue_is_found_short() {
    let mut judge = judge();
    // Both events of one write are missing, which others under way hide.
    let taken = verdict(&mut judge, &reading(1_024, 16, 40, false));
    assert_eq!(taken, missed(8));
    let taken = verdict(&mut judge, &reading(1_024, 16, 40, false));
    assert_eq!(taken, missed(0));
    let taken = verdict(&mut judge, &reading(1_040, 32, 40, false));
    assert_eq!(taken, Verdict::Whole, "what is under way hides it");
    assert_eq!(
        verdict(&mut judge, &reading(1_048, 40, 40, true)),
        Verdict::Gap
    );
    // That is said once, and counting goes on from there.
    for more in [0, 8] {
        let taken = judge.take(&reading(1_048 + more, 40 + more, 40 + more, true), AT);
        assert_eq!((taken.verdict, taken.is_still), (Verdict::Whole, true));
    }
}

#[test]
fn where_the_queue_was_found_short_what_is_missed_is_sought_from_later_on_only() {
    let mut judge = judge();
    let taken = judge.take(&reading(1_008, 8, 0, false), AT);
    assert_eq!(taken.verdict, Verdict::Whole);
    // The generation before was not still after all.
    let taken = judge.take(&reading(1_016, 8, 16, false), AT);
    assert_eq!(taken.verdict, Verdict::Gap);
    judge.take(&reading(1_024, 16, 24, true), Generation(9));
    judge.take(&reading(1_024, 16, 24, true), Generation(9));
    let taken = judge.take(&reading(1_032, 16, 32, true), Generation(12));
    let since = Generation(9);
    assert_eq!(taken.verdict, Verdict::Missed { sectors: 8, since });
}

#[test]
fn what_was_refused_stays_ahead_and_is_known_for_that_once_the_device_rested() {
    let mut judge = judge();
    let refused = reading(1_000, 0, 8, true);
    let mut is_still = |reading: &Reading, at| judge.take(reading, Generation(at)).is_still;
    assert!(!is_still(&refused, 10));
    assert!(!is_still(&refused, 10), "one generation is one");
    assert!(!is_still(&refused, 11));
    assert!(!is_still(&reading(1_008, 8, 16, true), 12), "it moved");
    assert!(!is_still(&reading(1_008, 8, 16, true), 13));
    // It waits to be begun, while what rested before is remembered.
    assert!(is_still(&reading(1_008, 8, 16, true), 14));
    assert!(!is_still(&reading(1_008, 8, 24, true), 14));
    assert!(is_still(&reading(1_016, 16, 24, true), 15));
}

#[test]
fn what_was_refused_may_hide_what_was_lost() {
    let mut lossy = judge();
    assert_eq!(
        verdict(&mut lossy, &reading(1_008, 0, 64, false)),
        missed(8)
    );
    let mut taken = vec![];
    for at in 10..14 {
        let judged = lossy.take(&reading(1_008, 0, 64, true), Generation(at));
        taken.push(judged.verdict);
    }
    let expected = [
        Verdict::Missed {
            sectors: 0,
            since: AT,
        },
        Verdict::Whole,
        Verdict::Gap,
        Verdict::Whole,
    ];
    assert_eq!(taken, expected);
}

#[test]
fn discards_that_were_gathered_count_as_missed() {
    let mut judge = judge();
    let discarded = Reading {
        has_gathered_discards: true,
        ..reading(1_008, 8, 8, true)
    };
    assert_eq!(verdict(&mut judge, &discarded), missed(0));
    assert_eq!(
        verdict(&mut judge, &reading(1_016, 16, 16, true)),
        Verdict::Whole
    );
}

#[test]
fn counters_that_stand_still_are_no_check() {
    let mut judge = judge();
    // An event comes before it is counted: while something is under way that is no proof.
    for _ in 0..3 {
        assert_eq!(
            verdict(&mut judge, &reading(1_000, 8, 8, false)),
            Verdict::Whole
        );
    }
    // Nor is one generation.
    for is_idle in [true, true, false] {
        let taken = judge.take(&reading(1_000, 8, 8, is_idle), Generation(8));
        assert_eq!((taken.verdict, taken.is_still), (Verdict::Whole, false));
    }
    let mut late = judge.clone();
    assert!(
        late.take(&reading(1_008, 8, 8, true), Generation(8))
            .is_still
    );
    let taken = late.take(&reading(1_008, 16, 16, true), Generation(9));
    assert_eq!(taken.verdict, Verdict::Whole, "it was counted meanwhile");
    // Where the event of queueing is lost too, that alone says that it is not still.
    let taken = judge.take(&reading(1_000, 8, 0, true), Generation(8));
    assert_eq!((taken.verdict, taken.is_still), (Verdict::Whole, false));
    let taken = judge.take(&reading(1_000, 8, 8, true), Generation(9));
    assert_eq!(taken.verdict, Verdict::NotCounted);
}

#[test]
fn a_device_that_was_not_counted_is_not_believed_until_both_sums_have_moved_together() {
    let mut judge = judge();
    let off = Reading {
        is_counted: false,
        ..reading(1_000, 0, 0, true)
    };
    assert_eq!(verdict(&mut judge, &off), Verdict::NotCounted);
    // What stands still agrees with anything.
    for _ in 0..5 {
        let taken = judge.take(&reading(1_000, 0, 0, true), AT);
        assert_eq!(
            (taken.verdict, taken.is_still),
            (Verdict::NotCounted, false)
        );
    }
    // One of them moves alone.
    for (counted, seen) in [(1_008, 0), (1_008, 0), (1_008, 0), (1_008, 8)] {
        let taken = verdict(&mut judge, &reading(counted, seen, seen, true));
        assert_eq!(taken, Verdict::NotCounted);
    }
    let last = [0, 0, 0, 8, 8].map(|more| {
        let reading = reading(1_008 + more, 16 + more, 16 + more, true);
        verdict(&mut judge, &reading)
    });
    let not = Verdict::NotCounted;
    assert_eq!(last, [not, not, not, Verdict::Whole, Verdict::Whole]);
}

#[test]
fn what_is_queued_time_and_again_and_never_begun_is_not_counted() {
    let mut taken = judge();
    let verdicts = |judge: &mut Judge, counts: bool| {
        [1, 2, 3, 4].map(|step| {
            let moved = if counts && step == 3 { 8 } else { 0 };
            let reading = reading(1_000 + moved, moved, step * 16, true);
            judge.take(&reading, Generation(step)).verdict
        })
    };
    assert_eq!(
        verdicts(&mut taken, false),
        [
            Verdict::Whole,
            Verdict::Whole,
            Verdict::NotCounted,
            Verdict::NotCounted
        ]
    );
    let mut moves = judge();
    let moving = reading(1_008, 8, 72, true);
    assert!(verdicts(&mut moves, true)[..3] == [Verdict::Whole; 3]);
    assert_ne!(
        moves.take(&moving, Generation(5)).verdict,
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
    let mut is_still = |reading: &Reading| judge.take(reading, AT).is_still;
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
