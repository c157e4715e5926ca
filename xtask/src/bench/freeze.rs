//! `cargo xtask bench freeze`: how long a source is frozen for its cutover that is written to
//! at 20 MiB/s, in 64 KiB and in 4 KiB. It is a test of `node`, which runs once and small
//! without these settings.

use std::path::Path;

use anyhow::Result;

use crate::ci;

/// For each kind of load.
const ROUNDS: &str = "5";
/// Of the disk.
const MIB: &str = "1024";

/// Runs it; true when every copy was its frozen disk, none when the arguments name nothing.
pub(super) fn run(root: &Path, arguments: &[&str]) -> Option<Result<bool>> {
    let rounds = match arguments {
        [] => ROUNDS,
        ["--rounds", rounds] if rounds.parse::<u64>().is_ok_and(|rounds| rounds > 0) => rounds,
        _ => return None,
    };
    let settings = [("DUNLIN_FREEZE_ROUNDS", rounds), ("DUNLIN_FREEZE_MIB", MIB)];
    let arguments = [
        "test",
        "--locked",
        "--package",
        "node",
        "--test",
        "e2e",
        "--",
        "--exact",
        "--nocapture",
        "freezing::a_source_under_a_heavy_load_is_frozen_for_moments",
    ];
    Some(ci::cargo_with(root, &arguments, &settings))
}
