//! `cargo xtask bench`: measurements that are too long for every run of the tests. Each
//! prints its figures and holds them to their limits.
//!
//! Not here: simulated meshes (`simulations`), which are larger.

mod document;
mod freeze;
pub(crate) mod guard;
mod link;
pub(crate) mod mesh;
pub(crate) mod running;
mod track;
mod transfer;

use anyhow::Result;
use std::path::Path;

/// Measures what the arguments name; true when every limit was kept, none when they
/// name nothing.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Option<Result<bool>> {
    match arguments {
        ["document"] => Some(document::run(root, "1000", "100000")),
        ["document", nodes, servers] => Some(document::run(root, nodes, servers)),
        ["freeze", rest @ ..] => freeze::run(root, rest),
        ["track", rest @ ..] => track::run(root, rest),
        ["transfer", rest @ ..] => Some(transfer::Transfer::read(rest)?.run(root)),
        ["mesh", rest @ ..] => Some(mesh::Mesh::read(rest)?.run(root)),
        // An end of a plain connection that `transfer` measures; each is a process.
        ["stream"] => Some(link::stream::be_an_end()),
        _ => None,
    }
}
