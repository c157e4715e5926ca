//! Rules about what the code names: purity, `unsafe`, unfinished work and tests
//! that sleep. They read tokens, not meanings: a name hidden behind an alias is
//! for the reviewer.

use std::collections::BTreeSet;

use super::Found;
use super::arrows::PURE;
use crate::source::{self, Source};
use crate::tree::Tree;

/// The files that speak to the kernel and may hold `unsafe`.
const UNSAFE_FILES: [&str; 4] = [
    "volumes/src/freeze/kernel.rs",
    "volumes/src/kernel.rs",
    "volumes/src/tracker/kernel.rs",
    "xtask/src/bench/link/tun.rs",
];

/// How many lines above an `unsafe` its `SAFETY:` comment may begin.
const SAFETY_LINES: usize = 8;

/// Modules of the standard library that reach outside the process.
const IMPURE_MODULES: [&str; 5] = ["env", "fs", "net", "process", "thread"];

/// The pure crates read no clock, do no IO and start no thread.
pub fn pure(tree: &Tree) -> Found {
    let mut found = Found::new();
    for (path, text) in tree.ending(".rs") {
        let in_pure = path
            .split_once("/src/")
            .is_some_and(|(name, _)| PURE.contains(&name));
        if !in_pure {
            continue;
        }
        let source = Source::new(text);
        for clock in ["Instant", "SystemTime"] {
            for at in source.words(clock) {
                if compact(source.after(at + clock.len())).starts_with("::now") {
                    let message = format!("names `{clock}::now`: time is an input here");
                    found.push((path.to_owned(), source.line(at), message));
                }
            }
        }
        for at in source.words("std") {
            for module in named_modules(source.after(at + "std".len())) {
                let message = format!("names `std::{module}`: this crate is pure");
                found.push((path.to_owned(), source.line(at), message));
            }
        }
    }
    found
}

/// The impure modules among the first segments of what follows `std`.
fn named_modules(after_std: &str) -> Vec<&'static str> {
    let Some(path) = after_std.strip_prefix("::").map(str::trim_start) else {
        return Vec::new();
    };
    let firsts = match source::closing(path, 0) {
        Some(end) => first_segments(&path[1..end]),
        None => first_segments(path.split([',', ';', ')', '}']).next().unwrap_or("")),
    };
    IMPURE_MODULES
        .into_iter()
        .filter(|module| firsts.contains(module))
        .collect()
}

/// The first path segment of each entry of a `use` list, not of nested lists.
fn first_segments(list: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let entries = list.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    entries
        .map(|entry| {
            let entry = entry.trim();
            let end = entry.find(|c: char| c != '_' && !c.is_alphanumeric());
            &entry[..end.unwrap_or(entry.len())]
        })
        .collect()
}

fn compact(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_whitespace())
        .take(8)
        .collect()
}

/// `unsafe` stands only in the listed files, and each says why it is sound.
pub fn without_guards(tree: &Tree) -> Found {
    let mut found = Found::new();
    for (path, text) in tree.ending(".rs") {
        let source = Source::new(text);
        let lines: Vec<&str> = text.lines().collect();
        for at in source.words("unsafe") {
            let line = source.line(at);
            let above = &lines[line.saturating_sub(SAFETY_LINES + 1)..line];
            let message = if !UNSAFE_FILES.contains(&path) {
                "`unsafe` outside the files that may hold it"
            } else if !above.iter().any(|line| line.contains("SAFETY:")) {
                "`unsafe` without a `SAFETY:` comment that says why it is sound"
            } else {
                continue;
            };
            found.push((path.to_owned(), line, message.to_owned()));
        }
    }
    found
}

/// Nothing is left for later: no stubs, no skipped tests, no dead code kept.
pub fn unfinished(tree: &Tree) -> Found {
    let mut found = Found::new();
    for (path, text) in tree.ending(".rs") {
        let source = Source::new(text);
        let mut fault = |at: usize, message: &str| {
            found.push((path.to_owned(), source.line(at), message.to_owned()));
        };
        for stub in ["todo", "unimplemented"] {
            for at in source.words(stub) {
                if source.after(at + stub.len()).starts_with('!') {
                    fault(
                        at,
                        &format!("`{stub}!` is a stub: build it or leave it out"),
                    );
                }
            }
        }
        for (at, attribute) in source.attributes() {
            let body = attribute.trim_start_matches(['#', '!', ' ']);
            let body = body.strip_prefix('[').unwrap_or(body).trim_start();
            let may_ignore = body.starts_with("ignore") || body.starts_with("cfg_attr");
            if may_ignore && source::names(body, "ignore") {
                fault(
                    at,
                    "an ignored test guards nothing: run it, or skip it with a message",
                );
            }
            let loosens = source::names(body, "allow") || source::names(body, "expect");
            if loosens && source::names(body, "dead_code") {
                fault(at, "dead code is removed, not allowed");
            }
        }
    }
    found
}

/// Tests wait for a condition with a deadline; they do not sleep.
pub fn sleeps(tree: &Tree) -> Found {
    let sources: Vec<(&str, Source)> = tree
        .ending(".rs")
        .map(|(path, text)| (path, Source::new(text)))
        .collect();
    let test_files: BTreeSet<&str> = test_files(&sources);
    let mut found = Found::new();
    for (path, source) in &sources {
        for word in ["sleep", "sleep_ms", "sleep_until"] {
            for at in source.words(word) {
                let called = source.after(at + word.len()).starts_with('(');
                let before = source.before(at);
                let ours = before.ends_with('.') || before.ends_with("fn");
                let in_test = test_files.contains(path) || source.in_test(at);
                if called && !ours && in_test {
                    let message = "a test sleeps: wait for the condition, with a deadline";
                    found.push((path.to_string(), source.line(at), message.to_owned()));
                }
            }
        }
    }
    found
}

/// The files that only tests compile: `tests.rs`, those under `tests/`, and
/// modules declared under `#[cfg(test)]` with all below them.
pub fn test_files<'a>(sources: &[(&'a str, Source)]) -> BTreeSet<&'a str> {
    let declared: Vec<String> = sources
        .iter()
        .flat_map(|(path, source)| {
            let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
            let stem = file.trim_end_matches(".rs");
            let folder = match stem {
                "lib" | "main" => folder.to_owned(),
                _ => format!("{folder}/{stem}"),
            };
            source
                .test_modules()
                .map(move |module| format!("{folder}/{module}"))
        })
        .collect();
    let is_test = |path: &str| {
        let stem = path.trim_end_matches(".rs");
        stem.split('/').any(|part| part == "tests")
            || declared.iter().any(|module| {
                stem.strip_prefix(module.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    };
    sources
        .iter()
        .map(|(path, _)| *path)
        .filter(|path| is_test(path))
        .collect()
}
