//! Rules about files as such: size, name, opening line, and what every
//! manifest must say. What the code in them does is not looked at.

use super::Found;
use crate::manifest::Manifest;
use crate::tree::Tree;

/// Past this length a file is several things.
const MAX_LINES: usize = 800;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 5] = ["utils", "common", "types", "helpers", "manager"];

/// Every crate takes the workspace's lints and says what it is.
pub fn manifests(tree: &Tree) -> Found {
    let mut found = Found::new();
    for (path, text) in tree.ending("Cargo.toml") {
        let manifest = match Manifest::parse(text) {
            Ok(manifest) => manifest,
            Err(error) => {
                found.push((path.to_owned(), 1, format!("is not valid: {error}")));
                continue;
            }
        };
        if manifest.name().is_none() {
            continue;
        }
        if !manifest.has_workspace_lints() {
            let message = "has no `[lints] workspace = true`";
            found.push((path.to_owned(), 1, message.to_owned()));
        }
        if matches!(manifest.description(), None | Some("" | "TODO")) {
            let message = "has no description";
            found.push((path.to_owned(), 1, message.to_owned()));
        }
    }
    found
}

/// No source file is longer than the limit, tests included.
pub fn sizes(tree: &Tree) -> Found {
    tree.ending(".rs")
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|&(_, lines)| lines > MAX_LINES)
        .map(|(path, lines)| {
            let message = format!("{lines} lines, the limit is {MAX_LINES}: split it");
            (path.to_owned(), MAX_LINES + 1, message)
        })
        .collect()
}

/// Every source file opens with what it is and what it is not.
pub fn openings(tree: &Tree) -> Found {
    tree.ending(".rs")
        .filter(|(_, text)| {
            let first = text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("//!"));
            first.is_none_or(|words| !words.contains(char::is_alphabetic))
        })
        .map(|(path, _)| {
            let message = "does not open with `//!` and what the file is";
            (path.to_owned(), 1, message.to_owned())
        })
        .collect()
}

/// File and folder names say what is inside.
pub fn names(tree: &Tree) -> Found {
    let mut found = Found::new();
    for (path, _) in tree.ending(".rs") {
        let stem = path.trim_end_matches(".rs");
        if stem.rsplit('/').next() == Some("mod") {
            let message = "is a `mod.rs`: name the file after its module";
            found.push((path.to_owned(), 1, message.to_owned()));
        }
        if let Some(part) = stem.split('/').find(|part| EMPTY_NAMES.contains(part)) {
            let message = format!("`{part}` does not say what is inside");
            found.push((path.to_owned(), 1, message));
        }
    }
    found
}
