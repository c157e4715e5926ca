//! `cargo xtask bench track`: what following writes costs who writes. It is a test of
//! `volumes`, which is skipped without these settings.

use std::path::Path;

use anyhow::Result;

use crate::ci;

/// As many as have each of both for 35 s in all, in turns of a quarter of a second.
const ROUNDS: &str = "140";

/// Runs it; true when the limit was kept, none when the arguments name nothing.
pub(super) fn run(root: &Path, arguments: &[&str]) -> Option<Result<bool>> {
    let rounds = match arguments {
        [] => ROUNDS,
        // Of both halves there is a median.
        ["--rounds", rounds] if rounds.parse::<u64>().is_ok_and(|rounds| rounds > 1) => rounds,
        _ => return None,
    };
    let settings = [("DUNLIN_TRACK_ROUNDS", rounds)];
    let arguments = [
        "test",
        "--locked",
        "--package",
        "volumes",
        "--lib",
        "--",
        "--exact",
        "--nocapture",
        "tracker::cost::following_writes_costs_who_writes_little",
    ];
    Some(ci::cargo_with(root, &arguments, &settings))
}
