//! The trials with fewer nodes, so that they run with every change.

use super::*;

fn kept(trial: Trial, nodes: usize) {
    let mut out = vec![];
    let kept = run(&mut out, trial, nodes, 1);
    assert!(kept, "{}", String::from_utf8_lossy(&out));
}

#[test]
fn a_grant_reaches_a_hundred_nodes_in_time_and_cheaply() {
    kept(Trial::Grant, 100);
}

#[test]
fn two_halves_of_forty_nodes_become_one_in_time() {
    kept(Trial::Heal, 40);
}

#[test]
fn fifty_nodes_join_thirty_at_once() {
    kept(Trial::Join, 30);
}

#[test]
fn nodes_that_were_away_catch_up_in_time() {
    kept(Trial::Away, 40);
}
