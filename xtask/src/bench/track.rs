//! `cargo xtask bench track`: what following writes costs who writes. It is a test of
//! `volumes`, which is skipped without these settings.

use std::path::Path;

use anyhow::Result;

use crate::ci;

/// What holds where nothing else is said.
const ROUNDS: &str = "7";
const SECONDS: &str = "5";

/// Runs it; true when the limit was kept, none when the arguments name nothing.
pub(super) fn run(root: &Path, arguments: &[&str]) -> Option<Result<bool>> {
    let (mut rounds, mut seconds) = (ROUNDS, SECONDS);
    for pair in arguments.chunks(2) {
        match pair {
            ["--rounds", number] if is_positive(number) => rounds = number,
            ["--seconds", number] if is_positive(number) => seconds = number,
            _ => return None,
        }
    }
    let settings = [
        ("DUNLIN_TRACK_ROUNDS", rounds),
        ("DUNLIN_TRACK_SECONDS", seconds),
    ];
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

fn is_positive(number: &str) -> bool {
    number.parse::<u64>().is_ok_and(|number| number > 0)
}
