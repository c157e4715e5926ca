//! The promise of a transfer, put to the test: whatever is written meanwhile,
//! whichever end dies at whatever moment, by losing its process or its power,
//! and whatever garbage comes over the stream, one quiet pass afterwards makes
//! the target's durable bytes those of the source, and both trees say so.
//!
//! A script of numbers drives the world; each number is one event with all its
//! details, and at the end of the script the world goes quiet.
//!
//! The flawed worlds are the negative controls: each leaves out one rule of
//! the shell, and the same test must notice.

#![allow(clippy::unwrap_used)]

mod chance;
mod disk;
mod ends;
mod hostile;
mod source_end;
mod stated;
mod target_end;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use crate::chance::Chance;
use crate::hostile::Hostile;
use crate::world::{Case, Flaw, World};

fn run(case: Case, script: &[u32]) -> World {
    let mut world = World::new(case);
    for event in script {
        world.event(*event);
    }
    world.settle_and_check();
    world
}

fn cases() -> impl Strategy<Value = Case> {
    (
        prop_oneof![
            Just(8),
            Just(65536),
            Just(65536 + 8),
            Just(6 * 65536 - 100),
            Just(40 * 65536),
            Just(256 * 65536),
            Just(257 * 65536 + 9),
            Just(600 * 65536 - 1),
        ],
        any::<u32>(),
        any::<[bool; 4]>(),
    )
        .prop_map(
            |(length, seed, [overlap, offers, references, corrupt])| Case {
                length,
                seed,
                overlap,
                offers,
                references,
                corrupt,
                flaw: None,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_crash_and_no_garbage_makes_the_copy_differ(
        case in cases(),
        script in prop::collection::vec(any::<u32>(), 0..500),
    ) {
        run(case, &script);
    }

    #[test]
    fn a_session_of_arbitrary_frames_writes_no_byte_that_does_not_verify(
        case in cases(),
        script in prop::collection::vec(any::<u32>(), 0..200),
    ) {
        throw(case, &script);
    }
}

fn throw(case: Case, script: &[u32]) -> Hostile {
    let mut hostile = Hostile::new(case);
    for event in script {
        hostile.event(*event);
    }
    hostile.end_and_check();
    hostile
}

/// A script that depends on the seed only.
fn script(seed: u32) -> Vec<u32> {
    let mut chance = Chance::new(seed);
    (0..400).map(|_| chance.next() as u32).collect()
}

fn seeded(seed: u32, flaw: Option<Flaw>) -> Case {
    Case {
        length: 300 * 65536,
        seed,
        overlap: true,
        offers: true,
        references: true,
        corrupt: flaw.is_none(),
        flaw,
    }
}

fn run_seed(seed: u32, flaw: Option<Flaw>) -> World {
    run(seeded(seed, flaw), &script(seed))
}

/// Whether some script makes a world with this flaw break its promise.
fn is_noticed(flaw: Flaw) -> bool {
    (0..600).any(|seed| catch_unwind(AssertUnwindSafe(|| run_seed(seed, Some(flaw)))).is_err())
}

#[test]
fn scripts_reach_everything_the_promise_is_about() {
    let mut sums = [0; 14];
    for seed in 0..60 {
        let world = run_seed(seed, None);
        let (seen, target) = (world.seen, world.target.seen);
        let counts = [
            seen.process_deaths,
            seen.power_losses,
            seen.garbled_ends,
            world.source.adopted_groups as u32,
            world.source.passes_done,
            target.recoveries,
            target.settlings,
            target.acknowledged,
            target.overlapping_writes,
            target.failed_syncs,
            target.made,
            target.wrong_references,
            target.patched,
            world.source.patches_sent,
        ];
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    assert!(sums.iter().all(|count| *count >= 10), "{sums:?}");
}

#[test]
fn arbitrary_frames_get_as_far_as_to_every_kind_of_write_and_refusal() {
    let mut sums = [0; 7];
    for seed in 0..60 {
        let hostile = throw(seeded(seed, None), &script(seed));
        let seen = hostile.target.seen;
        let counts = [
            hostile.sessions,
            hostile.answers,
            seen.acknowledged,
            seen.made,
            seen.wrong_references,
            seen.patched,
            seen.refused,
        ];
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    assert!(sums.iter().all(|count| *count >= 100), "{sums:?}");
}

#[test]
fn a_target_that_ignores_its_notes_after_a_crash_is_noticed() {
    assert!(is_noticed(Flaw::IgnoresNotes));
}

#[test]
fn a_target_that_notes_after_it_wrote_is_noticed() {
    assert!(is_noticed(Flaw::NotesAfterWriting));
}

#[test]
fn a_target_that_acknowledges_before_its_data_is_synced_is_noticed() {
    assert!(is_noticed(Flaw::SkipsDataSync));
}

#[test]
fn a_target_that_recovers_without_syncing_first_is_noticed() {
    assert!(is_noticed(Flaw::RecoversUnsynced));
}

#[test]
fn a_target_that_forgets_at_a_barrier_what_was_noted_after_it_is_noticed() {
    assert!(is_noticed(Flaw::ForgetsAllNotes));
}

#[test]
fn a_source_that_trusts_a_remembered_mark_is_noticed() {
    assert!(is_noticed(Flaw::RemembersMark));
}

#[test]
fn a_source_that_sends_of_an_offer_what_is_there_by_now_is_noticed() {
    assert!(is_noticed(Flaw::SendsWhatIsThereNow));
}

#[test]
fn a_target_that_writes_a_patch_in_part_is_noticed() {
    assert!(is_noticed(Flaw::WritesPatchInPart));
}
