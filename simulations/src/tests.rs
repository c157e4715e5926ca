//! The world itself under test: it repeats itself, it reaches what it is about, and
//! its checks notice when a rule of the shell is left out.

#![allow(clippy::unwrap_used)]

mod files;
mod minimised;
mod shown;

use crate::context::{Flaw, Seen};
use crate::disk::{Death, Disk, PAGES, StoredTree, ZEROS, bytes, content, flat_root};
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::world;
use blocks::Geometry;

/// The invariant that breaks in the first of some worlds with this flaw.
fn noticed_as(flaw: Flaw, seeds: u64) -> Option<&'static str> {
    (0..seeds).find_map(|seed| {
        let outcome = world::run(&Scenario::draw(seed, 5), None, Some(flaw));
        outcome.violation.map(|violation| violation.invariant.id())
    })
}

#[test]
fn the_same_seed_makes_the_same_trace_and_another_seed_another() {
    let hash = |seed| world::run(&Scenario::draw(seed, 5), None, None).hash;
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}

#[test]
fn a_few_seeds_hold_and_reach_everything_they_are_about() {
    let mut seen = Seen::default();
    for seed in 1_100..1_140 {
        let outcome = world::run(&Scenario::draw(seed, 7), None, None);
        assert_eq!(outcome.violation, None, "seed {seed} of 7 nodes");
        seen.add(&outcome.seen);
    }
    // What is seldom drawn, or never.
    for name in [
        "first-operator-lost",
        "root-key-recovers",
        "operator-lost-with-a-gap",
        "agent-runs-twice",
    ] {
        let outcome = world::run(&files::named(name), None, None);
        assert_eq!(outcome.violation, None, "{name}");
        seen.add(&outcome.seen);
    }
    for (name, count) in seen.table() {
        assert!(count > 0, "no {name} in any of the seeds");
    }
}

#[test]
fn three_nodes_are_enough_for_a_mesh() {
    for seed in 0..8 {
        let outcome = world::run(&Scenario::draw(seed, 3), None, None);
        assert_eq!(outcome.violation, None, "seed {seed} of 3 nodes");
    }
}

#[test]
fn a_node_that_announces_before_it_stores_is_noticed() {
    assert_eq!(noticed_as(Flaw::AnnouncesFirst, 5), Some("INV-01"));
}

#[test]
fn a_node_that_comes_back_without_its_changes_is_noticed() {
    assert_eq!(noticed_as(Flaw::ForgetsChanges, 20), Some("INV-02"));
}

#[test]
fn a_source_that_ran_again_before_it_counted_is_noticed() {
    assert_eq!(noticed_as(Flaw::KeepsWhatRuns, 60), Some("INV-30"));
}

#[test]
fn a_source_that_stays_frozen_and_does_not_count_is_noticed() {
    assert_eq!(noticed_as(Flaw::NeverLetsGo, 30), Some("INV-31"));
}

#[test]
fn a_node_that_writes_before_it_has_heard_how_far_its_logs_go_is_noticed() {
    assert_eq!(noticed_as(Flaw::WritesUnheard, 60), Some("INV-14"));
}

#[test]
fn a_replicator_that_acknowledges_before_its_data_is_synced_is_noticed() {
    let noticed = noticed_as(Flaw::SkipsDataSync, 20).unwrap();
    assert!(["INV-03", "INV-05"].contains(&noticed), "{noticed}");
}

#[test]
fn a_replicator_that_ignores_its_notes_after_a_crash_is_noticed() {
    let noticed = noticed_as(Flaw::ForgetsNotes, 60).unwrap();
    assert!(
        ["INV-03", "INV-05", "INV-15", "INV-18"].contains(&noticed),
        "{noticed}"
    );
}

#[test]
fn ends_that_never_check_open_streams_again_are_noticed() {
    // In other worlds the work never ends as it should, which is noticed later.
    let noticed = (0..80).any(|seed| {
        let outcome = world::run(&Scenario::draw(seed, 5), None, Some(Flaw::NeverRechecks));
        let violation = outcome.violation.map(|violation| violation.invariant.id());
        matches!(violation, Some("INV-06" | "INV-07" | "INV-23"))
    });
    assert!(noticed);
}

#[test]
fn a_replicator_that_swears_to_what_it_did_not_write_is_noticed_by_the_read_back() {
    let mut noticed = 0;
    for seed in 0..12 {
        let outcome = world::run(&Scenario::draw(seed, 5), None, Some(Flaw::WritesNothing));
        let Some(violation) = outcome.violation else {
            continue;
        };
        if violation.invariant.id() == "INV-15" {
            // It had to swear that it read the copy back.
            assert!(violation.text.contains("said to be read back"));
            continue;
        }
        assert_eq!(violation.invariant.id(), "INV-24", "{}", violation.text);
        assert!(
            violation.text.contains("found that it differs"),
            "{}",
            violation.text
        );
        noticed += 1;
    }
    assert!(noticed > 0);
}

#[test]
fn an_agent_that_does_not_raise_the_epoch_when_it_moves_on_is_noticed() {
    let noticed = noticed_as(Flaw::ForgetsEpoch, 60).unwrap();
    assert!(
        ["INV-08", "INV-09", "INV-15"].contains(&noticed),
        "{noticed}"
    );
}

#[test]
fn a_node_that_starts_with_a_damaged_record_is_noticed() {
    let noticed = noticed_as(Flaw::TrustsRecords, 40).unwrap();
    // INV-14, for whoever is given a damaged report takes it for a forged one.
    let expected = ["INV-02", "INV-12", "INV-14"];
    assert!(expected.contains(&noticed), "{noticed}");
}

#[test]
fn ends_that_believe_a_damaged_tree_are_noticed() {
    let noticed = noticed_as(Flaw::TrustsTrees, 200).unwrap();
    assert!(["INV-03", "INV-05"].contains(&noticed), "{noticed}");
}

#[test]
fn a_replicator_that_keeps_the_tree_of_a_rotten_copy_is_noticed() {
    let scenario = files::named("copy-rots");
    let outcome = world::run(&scenario, None, Some(Flaw::KeepsWrongTree));
    assert_eq!(outcome.violation.unwrap().invariant.id(), "INV-18");
}

#[test]
fn a_replicator_that_says_it_read_back_what_it_did_not_is_noticed() {
    let scenario = files::named("copy-rots");
    let outcome = world::run(&scenario, None, Some(Flaw::ProvesUnread));
    assert_eq!(outcome.violation.unwrap().invariant.id(), "INV-15");
}

#[test]
fn a_lease_that_counts_from_the_receipt_of_an_answer_is_noticed() {
    assert_eq!(noticed_as(Flaw::LeasesFromReceipt, 60), Some("INV-23"));
}

#[test]
fn an_operator_that_vouches_for_what_it_knows_to_be_revoked_is_noticed() {
    assert_eq!(noticed_as(Flaw::VouchesForEver, 60), Some("INV-23"));
}

#[test]
fn an_operator_that_leaves_it_to_a_lost_one_to_vouch_is_noticed() {
    let scenario = files::named("first-operator-lost");
    let outcome = world::run(&scenario, None, Some(Flaw::OnlyTheFirstVouches));
    assert_eq!(outcome.violation.unwrap().invariant.id(), "INV-25");
}

#[test]
fn a_node_that_does_not_tell_what_operators_decided_apart_is_noticed() {
    let scenario = files::named("operators-apart");
    let outcome = world::run(&scenario, None, Some(Flaw::HidesConflicts));
    assert_eq!(outcome.violation.unwrap().invariant.id(), "INV-26");
}

#[test]
fn a_lost_operator_that_is_not_taken_back_or_not_honoured_is_noticed() {
    let scenario = files::named("root-key-recovers");
    for flaw in [Flaw::SparesTheLost, Flaw::HonoursNothing] {
        let outcome = world::run(&scenario, None, Some(flaw));
        assert_eq!(outcome.violation.unwrap().invariant.id(), "INV-27");
    }
}

#[test]
fn a_node_that_tells_nobody_of_a_key_in_two_places_is_noticed() {
    let scenario = files::named("agent-runs-twice");
    let outcome = world::run(&scenario, None, Some(Flaw::HidesCopies));
    assert_eq!(outcome.violation.unwrap().invariant.id(), "INV-29");
}

#[test]
fn ends_that_go_on_with_a_key_that_they_know_to_be_in_two_places_are_noticed() {
    let scenario = files::named("agent-runs-twice");
    let outcome = world::run(&scenario, None, Some(Flaw::NeverRechecks));
    assert_eq!(outcome.violation.unwrap().invariant.id(), "INV-29");
}

#[test]
fn a_lost_operator_that_is_honoured_past_what_is_missing_of_it_is_noticed() {
    let scenario = files::named("operator-lost-with-a-gap");
    let outcome = world::run(&scenario, None, Some(Flaw::HonoursPastGaps));
    assert_eq!(outcome.violation.unwrap().invariant.id(), "INV-18");
}

#[test]
fn a_node_that_begins_again_with_a_key_that_it_has_changed_is_noticed() {
    let scenario = files::named("keys-change");
    let outcome = world::run(&scenario, None, Some(Flaw::KeepsOldKey));
    assert_eq!(outcome.violation.unwrap().invariant.id(), "INV-28");
}

#[test]
fn a_node_that_answers_strangers_is_noticed() {
    assert_eq!(noticed_as(Flaw::AnswersStrangers, 10), Some("INV-13"));
}

#[test]
fn a_block_comes_back_from_its_bytes_even_if_it_is_short() {
    let geometry = Geometry::new(2 * 65_536 - 3_000).unwrap();
    let mut rng = Rng::new(1);
    let mut drawn: [u64; PAGES] = std::array::from_fn(|_| rng.number());
    drawn[3] = 0;
    assert_eq!(content(&bytes(geometry, 0, &drawn)), drawn);
    assert_eq!(content(&bytes(geometry, 1, &drawn)), drawn);
    assert_eq!(bytes(geometry, 1, &drawn).len(), 65_536 - 3_000);
    let contents = vec![drawn, drawn];
    let tree = StoredTree::of(geometry, &contents);
    assert_eq!(tree.root(), flat_root(geometry, &contents));
}

#[test]
fn a_power_loss_keeps_synced_pages_and_tears_the_others() {
    let mut rng = Rng::new(2);
    let mut disk = Disk::new(vec![ZEROS; 40]);
    disk.write(0, [7; PAGES]);
    disk.sync();
    for block in 1..40 {
        disk.write(block, [7; PAGES]);
    }
    let torn = disk.die(Death::Power, &mut rng);
    assert_eq!(disk.durable[0], [7; PAGES]);
    assert!(
        torn > 0
            && disk
                .durable
                .iter()
                .any(|block| block.contains(&0) && block.contains(&7))
    );
    assert!(disk.durable[1..].contains(&ZEROS) && disk.durable[1..].contains(&[7; PAGES]));
    assert_eq!(disk.cached, disk.durable);
    disk.write(0, [9; PAGES]);
    disk.die(Death::Process, &mut rng);
    assert_eq!(disk.cached[0], [9; PAGES], "the kernel still has it");
}
