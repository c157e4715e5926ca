//! A table of cases, and what holds whatever was measured.

use super::passes::disk_bytes;
use super::*;
use blocks::BLOCK_SIZE;
use crdt::PassRead;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000;

/// A pass that found `mib` MiB, took `secs`, and began `since` seconds after the one
/// before.
fn pass(number: u32, mib: u64, secs: u64, since: Option<u64>) -> PassSummary {
    PassSummary {
        pass: number,
        blocks: mib * 16,
        bytes_sent: mib * MIB / 2,
        millis: secs * SECOND,
        since_millis: since.map(|secs| secs * SECOND),
        read: PassRead::Whole,
    }
}

fn resting(passes: &[PassSummary]) -> Measured<'_> {
    Measured {
        length: 10 * GIB,
        passes,
        running: None,
        lag_millis: Some(0),
        unsettled_bytes: 0,
        is_uncompressed: false,
    }
}

fn verdict(measured: &Measured<'_>) -> Verdict {
    forecast(measured, FREEZE_MILLIS).verdict
}

#[test]
fn nothing_is_said_before_there_are_two_measurements() {
    let none = resting(&[]);
    assert_eq!(verdict(&none), Verdict::Unknown(Lacking::FirstPass));
    let passes = [pass(1, 10_240, 100, None)];
    let one = resting(&passes);
    assert_eq!(verdict(&one), Verdict::Unknown(Lacking::Changes));
    assert_eq!(forecast(&one, FREEZE_MILLIS).behind_bytes, None);
    // A pass that was broken off says nothing about changes.
    let passes = [pass(1, 10_240, 100, None), pass(2, 100, 30, None)];
    let broken = resting(&passes);
    assert_eq!(verdict(&broken), Verdict::Unknown(Lacking::Changes));
}

#[test]
fn changes_without_a_pass_that_tells_of_the_link_are_not_enough() {
    let passes = [pass(1, 1, 100, None), pass(2, 1, 30, Some(100))];
    let measured = resting(&passes);
    assert_eq!(verdict(&measured), Verdict::Unknown(Lacking::Link));
}

#[test]
fn a_quiet_source_fits_whatever_the_link() {
    let passes = [pass(1, 1, 100, None), pass(2, 0, 30, Some(100))];
    let measured = resting(&passes);
    assert_eq!(verdict(&measured), Verdict::Fits);
    let behind = forecast(&measured, FREEZE_MILLIS).behind_bytes;
    assert_eq!(behind, Some(Range::exactly(0)));
}

#[test]
fn little_change_fits_now_and_says_how_far_behind_the_copy_is() {
    // 100 MiB/s; 1 MiB/s changes; the last pass began 30 s ago.
    let passes = [pass(1, 10_000, 100, None), pass(2, 60, 10, Some(60))];
    let measured = Measured {
        lag_millis: Some(30 * SECOND),
        ..resting(&passes)
    };
    let forecast = forecast(&measured, FREEZE_MILLIS);
    assert_eq!(forecast.verdict, Verdict::Fits);
    let behind = Range::between(30 * MIB, 60 * MIB);
    assert_eq!(forecast.behind_bytes, Some(behind));
    assert_eq!(forecast.change_bytes_per_sec, Some(Range::exactly(MIB)));
    let link = forecast.link.expect("the first pass sent enough");
    assert_eq!(link.bytes_per_sec, Range::exactly(100 * MIB));
    assert!(!link.is_at_least, "it took ten times as long as looking");
}

#[test]
fn what_shrinks_from_pass_to_pass_converges_and_says_when() {
    // 100 MiB/s; 20 MiB/s changes; looking takes 4 s: 80 MiB change meanwhile.
    let passes = [
        pass(1, 10_000, 100, None),
        pass(2, 4_000, 40, Some(200)),
        pass(3, 80, 4, Some(4)),
    ];
    let measured = Measured {
        lag_millis: Some(100 * SECOND),
        ..resting(&passes)
    };
    let Verdict::Converges { secs } = verdict(&measured) else {
        panic!("{:?}", verdict(&measured));
    };
    // 2,000 MiB changed in 100 s, which take 20 s; meanwhile 400 MiB do, which take 4 s; and
    // then 80 MiB do, which fit.
    assert_eq!(secs, Range::exactly(24));
}

#[test]
fn of_an_agent_that_is_silent_nothing_is_said() {
    let passes = [
        pass(1, 10_000, 100, None),
        pass(2, 4_000, 40, Some(200)),
        pass(3, 80, 4, Some(4)),
    ];
    let silent = Measured {
        lag_millis: None,
        ..resting(&passes)
    };
    assert_eq!(verdict(&silent), Verdict::Unknown(Lacking::Silent));
    // It has just started again: a pass is under way, and nobody knows when the last began.
    let running = Running {
        elapsed_millis: 2 * SECOND,
        done_bytes: 5 * GIB,
        ..Running::default()
    };
    let restarted = Measured {
        running: Some(running),
        ..silent
    };
    let secs = Range::exactly(2);
    assert_eq!(verdict(&restarted), Verdict::Converges { secs });
}

#[test]
fn a_volume_whose_length_nobody_says_does_not_fit() {
    let passes = [pass(1, 10_000, 100, None), pass(2, 60, 10, Some(60))];
    let measured = Measured {
        length: 0,
        ..resting(&passes)
    };
    assert_eq!(verdict(&measured), Verdict::Unknown(Lacking::Silent));
}

#[test]
fn changes_that_outrun_the_link_are_said_to_with_what_would_help() {
    // 100 MiB/s; 150 MiB/s changes.
    let passes = [
        pass(1, 10_000, 100, None),
        pass(2, 9_000, 90, Some(60)),
        pass(3, 9_000, 90, Some(60)),
    ];
    let measured = Measured {
        is_uncompressed: true,
        lag_millis: Some(90 * SECOND),
        ..resting(&passes)
    };
    let forecast = forecast(&measured, FREEZE_MILLIS);
    let help = vec![Help::Compression, Help::Bandwidth, Help::QuietHours];
    let cause = Cause::Link;
    assert_eq!(forecast.verdict, Verdict::Diverges { cause, help });
    let change = forecast.change_bytes_per_sec.map(|range| range.low / MIB);
    assert_eq!(change, Some(150));
    let compressing = Measured {
        is_uncompressed: false,
        ..measured
    };
    let Verdict::Diverges { help, .. } = verdict(&compressing) else {
        panic!("{:?}", verdict(&compressing));
    };
    assert_eq!(help, [Help::Bandwidth, Help::QuietHours]);
}

#[test]
fn a_disk_that_takes_long_to_look_at_is_told_of_a_tracker() {
    // Looking takes 1,000 s, and 1 GiB changes meanwhile, again and again.
    let passes = [
        pass(1, 102_400, 2_000, None),
        pass(2, 1_024, 1_000, Some(1_000)),
        pass(3, 1_024, 1_000, Some(1_000)),
    ];
    let measured = Measured {
        length: 1 << 40,
        lag_millis: Some(1_000 * SECOND),
        ..resting(&passes)
    };
    let cause = Cause::Looking;
    let help = vec![Help::Tracker, Help::QuietHours];
    assert_eq!(verdict(&measured), Verdict::Diverges { cause, help });
    // Where one is in use there is none to be told of.
    let tracked = passes.map(|pass| PassSummary {
        read: PassRead::Tracked,
        ..pass
    });
    let measured = Measured {
        passes: &tracked,
        ..measured
    };
    let help = vec![Help::QuietHours];
    assert_eq!(verdict(&measured), Verdict::Diverges { cause, help });
}

#[test]
fn a_small_set_that_changes_all_the_time_is_no_steady_stream() {
    // 300 MiB were found after 100 s, and may change within a second as well.
    let passes = [
        pass(1, 10_000, 100, None),
        pass(2, 300, 20, Some(100)),
        pass(3, 300, 20, Some(100)),
    ];
    let measured = Measured {
        lag_millis: Some(100 * SECOND),
        ..resting(&passes)
    };
    let Verdict::Uncertain {
        soonest_secs,
        cause,
        ..
    } = verdict(&measured)
    else {
        panic!("{:?}", verdict(&measured));
    };
    assert_eq!((soonest_secs, cause), (20, Cause::Looking));
}

#[test]
fn passes_that_all_had_to_send_leave_open_how_long_looking_takes() {
    let passes = [pass(1, 10_000, 100, None), pass(2, 6_000, 60, Some(100))];
    let forecast = forecast(&resting(&passes), FREEZE_MILLIS);
    let looking = Range {
        low: 0,
        high: 60 * SECOND,
    };
    assert_eq!(forecast.looking_millis, Some(looking));
}

#[test]
fn the_pass_under_way_is_counted_by_its_mean_and_by_its_present_speed() {
    let running = Running {
        elapsed_millis: 10 * SECOND,
        done_bytes: 2 * GIB,
        bytes_per_sec: Some(100 * MIB),
        ..Running::default()
    };
    let passes = [pass(1, 10_000, 100, None), pass(2, 60, 10, Some(60))];
    let measured = Measured {
        running: Some(running),
        ..resting(&passes)
    };
    let left = forecast(&measured, FREEZE_MILLIS).pass_left_secs;
    // 8 GiB at 200 or at 100 MiB/s.
    assert_eq!(left, Some(Range { low: 40, high: 82 }));
    let begins = Running::default();
    let measured = Measured {
        running: Some(begins),
        ..measured
    };
    let left = forecast(&measured, FREEZE_MILLIS).pass_left_secs;
    assert_eq!(left, Some(Range::exactly(10)), "as long as the one before");
}

#[test]
fn what_the_pass_under_way_finds_counts_whatever_was_found_before() {
    // Nothing of note ever changed; now every other byte did.
    let running = Running {
        elapsed_millis: 10 * SECOND,
        done_bytes: 4 * GIB,
        found_bytes: 2 * GIB,
        bytes_per_sec: Some(400 * MIB),
    };
    let passes = [pass(1, 10_000, 100, None), pass(2, 60, 10, Some(60))];
    let measured = Measured {
        running: Some(running),
        lag_millis: Some(30 * SECOND),
        ..resting(&passes)
    };
    let found = forecast(&measured, FREEZE_MILLIS);
    let behind = Range::between(2 * GIB, 5 * GIB);
    assert_eq!(found.behind_bytes, Some(behind));
    assert!(matches!(found.verdict, Verdict::Converges { .. }));
    // At the beginning it may be all of the disk, and never more.
    let begins = Running {
        done_bytes: 0,
        found_bytes: MIB,
        ..running
    };
    let measured = Measured {
        running: Some(begins),
        ..measured
    };
    let behind = forecast(&measured, FREEZE_MILLIS).behind_bytes;
    assert_eq!(behind.map(|behind| behind.high), Some(10 * GIB));
}

#[test]
fn what_is_found_or_on_its_way_needs_a_link_that_is_known() {
    let passes = [pass(1, 1, 100, None), pass(2, 0, 30, Some(100))];
    let running = Running {
        elapsed_millis: 10 * SECOND,
        done_bytes: 4 * GIB,
        ..Running::default()
    };
    let quiet = Measured {
        running: Some(running),
        ..resting(&passes)
    };
    assert_eq!(verdict(&quiet), Verdict::Fits);
    let unsettled = Measured {
        unsettled_bytes: GIB,
        ..quiet
    };
    assert_eq!(verdict(&unsettled), Verdict::Unknown(Lacking::Link));
    let found = Measured {
        running: Some(Running {
            found_bytes: GIB,
            ..running
        }),
        ..quiet
    };
    assert_eq!(verdict(&found), Verdict::Unknown(Lacking::Link));
}

#[test]
fn what_is_on_its_way_while_a_pass_runs_counts_as_behind() {
    let passes = [pass(1, 10_000, 100, None), pass(2, 60, 10, Some(60))];
    let running = Running {
        elapsed_millis: 5 * SECOND,
        done_bytes: 5 * GIB,
        ..Running::default()
    };
    let measured = Measured {
        running: Some(running),
        lag_millis: Some(30 * SECOND),
        unsettled_bytes: 400 * MIB,
        ..resting(&passes)
    };
    let forecast = forecast(&measured, FREEZE_MILLIS);
    let behind = Range::between(400 * MIB, 460 * MIB);
    assert_eq!(forecast.behind_bytes, Some(behind));
    assert_ne!(forecast.verdict, Verdict::Fits);
}

#[test]
fn a_pass_that_stands_still_has_no_end_and_neither_has_the_forecast() {
    let running = Running {
        elapsed_millis: 10 * SECOND,
        done_bytes: 2 * GIB,
        bytes_per_sec: Some(0),
        ..Running::default()
    };
    let passes = [pass(1, 10_000, 100, None), pass(2, 9_000, 90, Some(60))];
    let measured = Measured {
        running: Some(running),
        ..resting(&passes)
    };
    let forecast = forecast(&measured, FREEZE_MILLIS);
    assert_eq!(forecast.verdict, Verdict::Unknown(Lacking::Standstill));
    assert_eq!(forecast.pass_left_secs, None);
}

#[test]
fn only_the_newest_measurements_count() {
    let mut passes = vec![pass(1, 10_000, 100, None), pass(2, 9_000, 90, Some(60))];
    passes.extend((3..6).map(|number| pass(number, 10, 5, Some(10))));
    let forecast = forecast(&resting(&passes), FREEZE_MILLIS);
    assert_eq!(forecast.change_bytes_per_sec, Some(Range::exactly(MIB)));
}

#[test]
fn measurements_that_contradict_each_other_leave_all_that_either_says_possible() {
    // 600 MiB in 60 s, and then 10 MiB in 10 s: of 30 s one says 300 MiB to 600 MiB, the
    // other 10 MiB to 30 MiB.
    let passes = [
        pass(1, 10_000, 100, None),
        pass(2, 600, 10, Some(60)),
        pass(3, 10, 10, Some(10)),
    ];
    let measured = Measured {
        lag_millis: Some(30 * SECOND),
        ..resting(&passes)
    };
    let behind = Range::between(10 * MIB, 600 * MIB);
    assert_eq!(
        forecast(&measured, FREEZE_MILLIS).behind_bytes,
        Some(behind)
    );
}

/// A disk whose blocks change at a steady pace, each another one, and passes over it that
/// follow each other.
#[derive(Debug, Clone, Copy)]
struct Steady {
    changes_per_sec: u64,
    link_per_sec: u64,
    looking_millis: u64,
}

impl Steady {
    fn summary(self, number: u32, bytes: u64, since_millis: Option<u64>) -> PassSummary {
        let blocks = bytes.div_ceil(BLOCK_SIZE as u64);
        let sending = blocks * BLOCK_SIZE as u64 * SECOND / self.link_per_sec;
        PassSummary {
            pass: number,
            blocks,
            bytes_sent: bytes,
            millis: sending.max(self.looking_millis),
            since_millis,
            read: PassRead::Whole,
        }
    }

    fn changed(self, millis: u64) -> u64 {
        self.changes_per_sec * millis / SECOND
    }

    /// So many passes from the first on.
    fn passes(self, length: u64, count: u32) -> Vec<PassSummary> {
        let mut passes = vec![self.summary(1, length, None)];
        while passes.len() < count as usize {
            let last = passes.last().expect("there is a first").millis;
            let number = passes.len() as u32 + 1;
            let bytes = self.changed(last).min(length);
            passes.push(self.summary(number, bytes, Some(last)));
        }
        passes
    }

    /// Milliseconds from the end of the last of these passes until what is left fits, if
    /// it ever does.
    fn fits_after(self, last_millis: u64) -> Option<u64> {
        let (mut spent, mut window) = (0, last_millis);
        for _ in 0..10_000 {
            let left = self.changed(window);
            if left <= self.link_per_sec * FREEZE_MILLIS / SECOND {
                return Some(spent);
            }
            let pass = (left * SECOND / self.link_per_sec).max(self.looking_millis);
            if pass > 1_000_000 * SECOND {
                break;
            }
            spent += pass;
            window = pass;
        }
        None
    }
}

proptest! {
    #[test]
    fn the_time_that_is_named_for_a_steady_source_is_true(
        changes in 1u64..400,
        link in 20u64..400,
        looking in 1u64..60,
        count in 2u32..6,
    ) {
        let steady = Steady {
            changes_per_sec: changes * MIB,
            link_per_sec: link * MIB,
            looking_millis: looking * SECOND,
        };
        let passes = steady.passes(20 * GIB, count);
        let last = passes.last().expect("there is a first").millis;
        let measured = Measured {
            length: 20 * GIB,
            lag_millis: Some(last),
            ..resting(&passes)
        };
        let truth = steady.fits_after(last);
        // Nobody can tell two speeds apart that are nearly the same.
        let is_near = |one: u64, other: u64| one.abs_diff(other) * 8 <= other;
        if is_near(changes, link) || is_near(changes * looking, link * 2) {
            return Ok(());
        }
        // Whole blocks, and a disk that can change no more than as a whole, blur it.
        let blurred = passes.iter().any(|pass| disk_bytes(pass) >= 20 * GIB && pass.pass > 1);
        let forecast = forecast(&measured, FREEZE_MILLIS);
        let looked = forecast.looking_millis.expect("passes were complete");
        match forecast.verdict {
            Verdict::Fits => prop_assert!(truth.is_some_and(|millis| millis < SECOND)),
            Verdict::Converges { secs } if !blurred => {
                let truth = truth.expect("it is said to converge");
                prop_assert!(secs.low <= truth / SECOND + 1, "{truth} {secs:?}");
                prop_assert!(truth / SECOND <= secs.high + 1, "{truth} {secs:?}");
            }
            Verdict::Uncertain { soonest_secs, .. } => {
                prop_assert!(truth.is_none_or(|truth| soonest_secs <= truth / SECOND + 1));
            }
            Verdict::Diverges { cause, .. } if !blurred => {
                match truth {
                    // Of passes that all sent nobody knows whether they looked as well.
                    None if looked.low == 0 => {}
                    None => prop_assert_eq!(cause == Cause::Link, changes >= link),
                    Some(millis) => prop_assert!(millis > 600 * SECOND, "{}", millis),
                }
            }
            Verdict::Converges { .. } | Verdict::Diverges { .. } | Verdict::Unknown(_) => {}
        }
    }

    #[test]
    fn whatever_was_measured_its_ranges_are_in_order_and_bounded_by_the_disk(
        found in proptest::collection::vec(
            (any::<u64>(), any::<u64>(), proptest::option::of(any::<u64>())), 0..20),
        running in proptest::option::of(
            (any::<u64>(), any::<u64>(), any::<u64>(), proptest::option::of(any::<u64>()))),
        lag_millis in proptest::option::of(any::<u64>()),
        unsettled_bytes: u64,
        length: u64,
        freeze_millis: u64,
    ) {
        let passes: Vec<PassSummary> = (1..).zip(found).map(|(pass, (blocks, millis, since_millis))| {
            PassSummary { pass, blocks, bytes_sent: 0, millis, since_millis, read: PassRead::Whole }
        }).collect();
        let running = running.map(|(elapsed_millis, done_bytes, found_bytes, bytes_per_sec)| {
            Running { elapsed_millis, done_bytes, found_bytes, bytes_per_sec }
        });
        let measured = Measured {
            length, passes: &passes, running, lag_millis, unsettled_bytes, is_uncompressed: true,
        };
        let forecast = forecast(&measured, freeze_millis);
        let secs = match forecast.verdict {
            Verdict::Converges { secs } => Some(secs),
            _ => None,
        };
        let link = forecast.link.map(|link| link.bytes_per_sec);
        let ranges = [
            secs, link, forecast.behind_bytes, forecast.change_bytes_per_sec,
            forecast.looking_millis, forecast.pass_left_secs,
        ];
        for range in ranges.into_iter().flatten() {
            prop_assert!(range.low <= range.high);
        }
        prop_assert!(forecast.behind_bytes.is_none_or(|behind| behind.high <= length));
        if passes.len() < 2 || length == 0 || (running.is_none() && lag_millis.is_none()) {
            prop_assert!(matches!(forecast.verdict, Verdict::Unknown(_)));
        }
    }
}
