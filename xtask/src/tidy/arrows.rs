//! Who may depend on whom. The tables here are the architecture's arrows; an
//! arrow that is not in them is a fault, of whatever kind the dependency is.

use super::Found;
use crate::manifest::{Dependency, Manifest};
use crate::tree::Tree;

/// Each of our crates with those of ours that it may name.
const ALLOWED: &[(&str, &[&str])] = &[
    ("codec", &[]),
    ("keys", &["codec"]),
    ("blocks", &["codec"]),
    ("crdt", &["codec", "keys"]),
    ("inventory", &["crdt"]),
    ("mesh", &["codec", "keys", "crdt"]),
    ("provider", &["blocks"]),
    ("roles", &["codec", "keys", "blocks", "crdt", "provider"]),
    ("volumes", &["blocks"]),
    ("provider-local", &["provider", "blocks", "volumes"]),
    (
        "node",
        &[
            "codec",
            "keys",
            "blocks",
            "crdt",
            "inventory",
            "mesh",
            "provider",
            "roles",
            "volumes",
            "provider-local",
        ],
    ),
    (
        "simulations",
        &[
            "codec", "keys", "blocks", "crdt", "mesh", "provider", "roles",
        ],
    ),
    (
        "fuzz",
        &[
            "codec", "keys", "blocks", "crdt", "mesh", "roles", "volumes",
        ],
    ),
    ("xtask", &[]),
];

/// The crates that do no IO, read no clock and start no task.
pub const PURE: [&str; 7] = [
    "codec", "keys", "blocks", "crdt", "mesh", "provider", "roles",
];

/// What would bring IO, clocks, tasks or randomness into a pure crate.
const NEVER_IN_PURE: [&str; 5] = ["tokio", "libp2p", "redb", "rand", "getrandom"];

/// Packages that one crate of ours hides from all others.
const HELD_BY_ONE: [(&str, &str); 4] = [
    ("bincode", "codec"),
    ("automerge", "crdt"),
    ("libp2p", "node"),
    ("redb", "node"),
];

/// Our crates depend on each other only along the allowed arrows.
pub fn between_crates(tree: &Tree) -> Found {
    let mut found = Found::new();
    for (path, manifest) in crates(tree) {
        let Some(name) = manifest.name() else {
            continue;
        };
        let Some((_, allowed)) = ALLOWED.iter().find(|(row, _)| *row == name) else {
            let message = format!("crate `{name}` has no row in the table of allowed arrows");
            found.push((path.to_owned(), 1, message));
            continue;
        };
        for (package, line) in packages(tree, &manifest) {
            let ours = ALLOWED.iter().any(|(row, _)| *row == package);
            if ours && !allowed.contains(&package.as_str()) {
                let message = format!("`{name}` may not depend on `{package}`");
                found.push((path.to_owned(), line, message));
            }
        }
    }
    found
}

/// Packages of others stay where the architecture puts them.
pub fn to_packages(tree: &Tree) -> Found {
    let mut found = Found::new();
    for (path, manifest) in crates(tree) {
        let Some(name) = manifest.name() else {
            continue;
        };
        for (package, line) in packages(tree, &manifest) {
            if let Some((_, holder)) = HELD_BY_ONE
                .iter()
                .find(|(held, holder)| family(&package, held) && *holder != name)
            {
                let message = format!("only `{holder}` may depend on `{package}`");
                found.push((path.to_owned(), line, message));
            }
            let impure = NEVER_IN_PURE.iter().any(|never| family(&package, never));
            if impure && PURE.contains(&name) {
                let message = format!("`{name}` is pure and may not depend on `{package}`");
                found.push((path.to_owned(), line, message));
            }
        }
    }
    found
}

/// Whether `package` is `head`, or one of its parts such as `head-stream`.
fn family(package: &str, head: &str) -> bool {
    package
        .strip_prefix(head)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

/// The manifests of the workspace's crates. Broken ones are another rule's.
fn crates(tree: &Tree) -> impl Iterator<Item = (&str, Manifest<'_>)> {
    tree.ending("Cargo.toml")
        .filter_map(|(path, text)| Some((path, Manifest::parse(text).ok()?)))
}

/// What a crate depends on, by package name and line. A key that the crate or
/// the workspace renames counts as the package behind it.
fn packages(tree: &Tree, manifest: &Manifest<'_>) -> Vec<(String, usize)> {
    let inherited: Vec<Dependency> = tree
        .text("Cargo.toml")
        .and_then(|text| Manifest::parse(text).ok())
        .map(|root| root.workspace_dependencies())
        .unwrap_or_default();
    manifest
        .dependencies()
        .into_iter()
        .map(|dependency| {
            let renamed = dependency.package.or_else(|| {
                let row = inherited.iter().find(|row| row.key == dependency.key)?;
                row.package.clone()
            });
            (renamed.unwrap_or(dependency.key), dependency.line)
        })
        .collect()
}
