//! The trace as it is shown, and many worlds at once.

#![allow(clippy::unwrap_used)]

use super::files::named;
use crate::running::{self, Plan};
use crate::scenario::Scenario;
use crate::trace::View;
use crate::world;
use std::time::Duration;

fn lines(view: View) -> Vec<String> {
    let view = View {
        is_kept: true,
        ..view
    };
    world::run(&named("copy-rots"), Some(view), None).kept
}

#[test]
fn a_trace_names_time_node_role_and_what_is_in_a_message() {
    let all = lines(View::default());
    let has = |parts: &[&str]| {
        let mut lines = all.iter();
        lines.any(|line| parts.iter().all(|part| line.contains(part)))
    };
    assert!(has(&["0.000  n0 operator     starts"]));
    assert!(has(&[
        "n2 replicator",
        "from n0: gossip",
        "grant ",
        "for migration"
    ]));
    assert!(has(&[
        "n0 operator ",
        "from n1: enrolment request",
        "proves both keys"
    ]));
    assert!(has(&["n2 replicator", "from n1 on stream ", "KiB, block"]));
    assert!(has(&["n1 agent ", "durable up to barrier 1"]));
    assert!(has(&["FAULT block-rots, node = 2, pick = 1"]));
    assert!(has(&["people want of ", "cutover, prove_full = true"]));
}

#[test]
fn a_trace_is_cut_to_what_was_asked_for() {
    let all = lines(View::default());
    let part = lines(View {
        node: Some(1),
        from_millis: 20_000,
        to_millis: Some(25_000),
        ..View::default()
    });
    assert!(!part.is_empty() && part.len() < all.len() / 3);
    let mine = |line: &String| line.contains("n1") || line.contains("FAULT");
    assert!(part.iter().all(mine), "{part:#?}");
    let last = View {
        last: Some(3),
        ..View::default()
    };
    assert_eq!(lines(last), all[all.len() - 3..]);
    let brief = View {
        is_brief: true,
        ..View::default()
    };
    assert!(!lines(brief).iter().any(|line| line.contains("gossip")));
    let grep = View {
        grep: Some("FAULT".into()),
        ..View::default()
    };
    assert_eq!(lines(grep).len(), 2);
}

#[test]
fn to_look_at_a_world_does_not_change_it() {
    let scenario = Scenario::draw(2, 5);
    let seen = View {
        is_kept: true,
        ..View::default()
    };
    let shown = world::run(&scenario, Some(seen), None);
    assert_eq!(shown.hash, world::run(&scenario, None, None).hash);
    assert_eq!(shown.lines, shown.kept.len() as u64);
}

#[test]
fn the_first_seed_that_breaks_is_named_and_seeds_begin_only_while_there_is_time() {
    let plan = Plan {
        first_seed: 30,
        seeds: 200,
        longest: None,
        is_patient: false,
        threads: 3,
    };
    // Nobody ever wants what it says that it ends with.
    let mut hopeless = named("copy-rots");
    hopeless.migrations[0].wishes.pop_back();
    let draw = |seed| match seed {
        32.. => hopeless.with_seed(seed),
        _ => Scenario::draw(seed, 3),
    };
    let stopped = running::run(plan, draw, |_| {});
    let (first, violation) = stopped.broken.first_key_value().unwrap();
    assert_eq!((*first, violation.invariant.id()), (32, "INV-18"));
    assert!(stopped.seeds < 10, "{} seeds were run", stopped.seeds);
    let longest = Some(Duration::ZERO);
    let none = running::run(Plan { longest, ..plan }, draw, |_| {});
    assert_eq!(none.seeds, 0);
}

#[test]
fn worlds_side_by_side_are_the_same_as_one_after_the_other() {
    let run = |threads| {
        let plan = Plan {
            first_seed: 30,
            seeds: 6,
            longest: None,
            is_patient: false,
            threads,
        };
        running::run(plan, |seed| Scenario::draw(seed, 4), |_| {})
    };
    let (one, three) = (run(1), run(3));
    assert_eq!(one.seeds, 6);
    assert_eq!((one.hash, one.seen), (three.hash, three.seen));
}
