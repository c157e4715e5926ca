//! Failing worlds made small: a rule of the shell is left out, so that there is
//! something to find.

use crate::context::Flaw;
use crate::minimising::{self, Found};
use crate::scenario::Scenario;
use crate::world;

/// The first of some worlds with this flaw that fails, made small.
fn minimised(flaw: Flaw, most_runs: u32) -> (Scenario, Found) {
    let mut silent = |_: &str| {};
    (0..200)
        .find_map(|seed| {
            let scenario = Scenario::draw(seed, 5);
            let found = minimising::minimise(&scenario, Some(flaw), most_runs, &mut silent)?;
            Some((scenario, found))
        })
        .unwrap()
}

#[test]
fn a_world_that_forgets_its_notes_is_made_small_and_its_file_still_fails() {
    let (drawn, found) = minimised(Flaw::ForgetsNotes, 300);
    assert!(drawn.faults.len() > 15);
    let left = found.scenario.faults.len();
    assert!(
        left <= 4,
        "{left} faults are left: {}",
        found.scenario.text()
    );
    let read = Scenario::parse(&found.scenario.text()).unwrap();
    let again = world::run(&read, None, Some(Flaw::ForgetsNotes));
    assert_eq!(again.violation.unwrap(), found.violation);
    assert_eq!(world::run(&read, None, None).violation, None);
}

#[test]
fn what_is_left_is_needed() {
    let (_, found) = minimised(Flaw::TrustsTrees, 300);
    assert!(found.runs < 300, "it ran out of runs");
    for at in 0..found.scenario.faults.len() {
        let mut less = found.scenario.clone();
        less.faults.remove(at);
        let outcome = world::run(&less, None, Some(Flaw::TrustsTrees));
        let same = outcome
            .violation
            .is_some_and(|violation| violation.invariant == found.violation.invariant);
        assert!(!same, "fault {at} is not needed: {}", found.scenario.text());
    }
}

#[test]
fn a_world_in_which_all_holds_is_not_minimised_and_runs_are_bounded() {
    let mut silent = |_: &str| {};
    assert!(minimising::minimise(&Scenario::draw(1, 3), None, 5, &mut silent).is_none());
    let (_, found) = minimised(Flaw::SkipsDataSync, 7);
    assert!(found.runs <= 7, "{} runs", found.runs);
}
