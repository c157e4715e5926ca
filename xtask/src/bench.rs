//! Measurements that are too long for every run of the tests. Each is a test of the
//! crate that it measures, which is skipped without its settings, and prints its figures with their limits.

use std::path::Path;

use anyhow::Result;

use crate::ci;

/// The master document with many nodes and servers; true when every figure is within
/// its limit.
pub fn document(root: &Path, nodes: &str, servers: &str) -> Result<bool> {
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
