//! `cargo xtask e2e`: runs that are too long for every run of the tests. `tracked` is a test
//! that makes few runs where no settings say how many; `live` moves a machine.

mod live;

use std::path::Path;

use anyhow::Result;

use crate::ci;

/// What runs where nothing else is said.
const RUNS: &str = "100";

/// Runs what the arguments name; true when all went well, none when they name nothing.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Option<Result<bool>> {
    match arguments {
        ["tracked", rest @ ..] => tracked(root, rest),
        ["live", rest @ ..] => Some(live::Live::read(rest)?.run(root)),
        _ => None,
    }
}

fn tracked(root: &Path, arguments: &[&str]) -> Option<Result<bool>> {
    let mut settings = vec![("DUNLIN_TRACKED_RUNS", RUNS)];
    for pair in arguments.chunks(2) {
        match pair {
            ["--runs", runs] if runs.parse::<u64>().is_ok() => settings[0].1 = runs,
            ["--seed", seed] if seed.parse::<u64>().is_ok() => {
                settings.push(("DUNLIN_TRACKED_SEED", seed));
            }
            _ => return None,
        }
    }
    let arguments = [
        "test",
        "--locked",
        "--package",
        "volumes",
        "--lib",
        "--",
        "--exact",
        "--nocapture",
        "tracker::runs::no_write_is_lost_whatever_happens_meanwhile",
    ];
    Some(ci::cargo_with(root, &arguments, &settings))
}
