//! `cargo xtask bench document`: the master document with many nodes and servers. It is
//! a test of `node`, which is skipped without these settings.

use std::path::Path;

use anyhow::Result;

use crate::ci;

/// Runs it; true when every figure is within its limit.
pub(super) fn run(root: &Path, nodes: &str, servers: &str) -> Result<bool> {
    let settings = [
        ("DUNLIN_BENCH_NODES", nodes),
        ("DUNLIN_BENCH_SERVERS", servers),
    ];
    let arguments = [
        "test",
        "--locked",
        "--package",
        "node",
        "--bin",
        "dunlin",
        "--",
        "--exact",
        "--nocapture",
        "bench::document",
    ];
    ci::cargo_with(root, &arguments, &settings)
}
