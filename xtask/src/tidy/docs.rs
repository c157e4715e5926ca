//! Rules about the pages: every invariant names a check that exists, and links
//! to files lead somewhere. Prose is not judged.

use std::collections::{BTreeMap, BTreeSet};

use super::Found;
use super::code::test_files;
use crate::source::Source;
use crate::tree::Tree;

const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";

/// Crates that exist to check others: whatever they define is a check.
const CHECKING_CRATES: [&str; 2] = ["simulations/", "xtask/"];

/// Every invariant is defined once and names a check that is in the tree, and
/// no page or source speaks of one that is not defined.
///
/// A definition is a line that begins with the number, after list, table,
/// heading or emphasis marks; its entry goes on to the next definition or
/// empty line. A check is a path, or a test function, in backticks.
pub fn invariants(tree: &Tree) -> Found {
    let Some(page) = tree.text(ARCHITECTURE) else {
        return vec![(ARCHITECTURE.to_owned(), 1, "is missing".to_owned())];
    };
    let checks = Checks::of(tree);
    let mut found = Found::new();
    let mut defined: BTreeMap<&str, usize> = BTreeMap::new();
    let lines: Vec<&str> = page.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let Some(number) = defines(line) else {
            continue;
        };
        let line = index + 1;
        if let Some(first) = defined.insert(number, line) {
            let message = format!("{number} is defined on line {first} too");
            found.push((ARCHITECTURE.to_owned(), line, message));
        }
        let entry = entry(&lines, index);
        for message in checks.judge(number, &entry) {
            found.push((ARCHITECTURE.to_owned(), line, message));
        }
    }
    for (path, text) in tree.ending(".md").chain(tree.ending(".rs")) {
        if path.starts_with("xtask/") {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            for number in numbers(line).filter(|number| !defined.contains_key(number)) {
                let message = format!("{number} is not defined in {ARCHITECTURE}");
                found.push((path.to_owned(), index + 1, message));
            }
        }
    }
    found
}

/// A test that a page names as `path.rs::function` is in that file. The entries
/// of invariants have a rule of their own.
pub fn test_names(tree: &Tree) -> Found {
    let checks = Checks::of(tree);
    let mut found = Found::new();
    for (path, text) in tree.ending(".md").filter(|(path, _)| *path != ARCHITECTURE) {
        for (index, line) in text.lines().enumerate() {
            for span in code_spans(line).filter(|span| span.contains(".rs::")) {
                if checks.resolve(span) == Some(false) {
                    let message = format!("there is no test `{span}`");
                    found.push((path.to_owned(), index + 1, message));
                }
            }
        }
    }
    found
}

/// The number that `line` defines, if it defines one.
fn defines(line: &str) -> Option<&str> {
    let start = line.trim_start_matches([' ', '#', '-', '*', '|', '_']);
    let number = numbers(start).next()?;
    start.starts_with(number).then_some(number)
}

/// The `INV-nn` in a line, in order.
fn numbers(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("INV-").filter_map(move |(at, mark)| {
        let digits = line[at + mark.len()..]
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(line.len() - at - mark.len());
        (digits > 0).then(|| &line[at..at + mark.len() + digits])
    })
}

fn entry(lines: &[&str], first: usize) -> String {
    let more = lines[first + 1..]
        .iter()
        .take_while(|line| !line.trim().is_empty() && defines(line).is_none());
    let parts: Vec<&str> = [&lines[first]].into_iter().chain(more).copied().collect();
    parts.join("\n")
}

/// What an invariant can name as its guard.
struct Checks<'a> {
    tree: &'a Tree,
    functions: BTreeSet<String>,
    by_file: BTreeMap<&'a str, BTreeSet<String>>,
}

impl<'a> Checks<'a> {
    fn of(tree: &'a Tree) -> Self {
        let sources: Vec<(&str, Source)> = tree
            .ending(".rs")
            .map(|(path, text)| (path, Source::new(text)))
            .collect();
        let test_files = test_files(&sources);
        let mut by_file = BTreeMap::new();
        for (path, source) in &sources {
            let whole = test_files.contains(path)
                || CHECKING_CRATES.iter().any(|name| path.starts_with(name));
            let names: BTreeSet<String> = if whole {
                source
                    .functions()
                    .map(|(_, name)| name.to_owned())
                    .collect()
            } else {
                source
                    .test_functions()
                    .into_iter()
                    .map(str::to_owned)
                    .collect()
            };
            by_file.insert(*path, names);
        }
        Self {
            tree,
            functions: by_file.values().flatten().cloned().collect(),
            by_file,
        }
    }

    /// What is wrong with the entry of one invariant.
    fn judge(&self, number: &str, entry: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut guarded = false;
        for span in code_spans(entry) {
            match self.resolve(span) {
                Some(true) => guarded = true,
                Some(false) => wrong.push(format!("{number} names `{span}`, which does not exist")),
                None => {}
            }
        }
        if !guarded && wrong.is_empty() {
            wrong.push(format!("{number} names no check that exists"));
        }
        wrong
    }

    /// Whether `span` names an existing check; none when it names no check.
    fn resolve(&self, span: &str) -> Option<bool> {
        let span = span.trim().trim_end_matches("()");
        let (path, function) = match span.split_once(".rs::") {
            Some((stem, function)) => (format!("{stem}.rs"), Some(function)),
            None => (span.to_owned(), None),
        };
        if path.contains(char::is_whitespace) {
            return None;
        }
        if path.ends_with(".rs") {
            let names = self.by_file.get(path.as_str());
            return Some(match function {
                Some(function) => names.is_some_and(|names| names.contains(last(function))),
                None => names.is_some_and(|names| !names.is_empty()),
            });
        }
        if path.contains('/') && !path.contains("::") {
            return self.tree.holds(&path).then_some(true);
        }
        self.functions.contains(last(&path)).then_some(true)
    }
}

/// The last segment of a path such as `crate::tests::name`.
fn last(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

/// What stands between single backticks.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Links to files of the tree lead to a file or a folder of the tree.
pub fn links(tree: &Tree) -> Found {
    let mut found = Found::new();
    for (path, text) in tree.ending(".md") {
        let mut fenced = false;
        for (index, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            if fenced {
                continue;
            }
            for target in targets(line) {
                let resolved = resolve(path, &target);
                let known = resolved.is_some_and(|file| file.is_empty() || tree.holds(&file));
                if !known {
                    let message = format!("the link to `{target}` leads nowhere");
                    found.push((path.to_owned(), index + 1, message));
                }
            }
        }
    }
    found
}

/// The local files that a line of markdown links to, without their anchors.
fn targets(line: &str) -> Vec<String> {
    let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let inline = prose
        .match_indices("](")
        .filter_map(|(at, mark)| prose[at + mark.len()..].split(')').next());
    let reference = prose
        .trim_start()
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]: "))
        .map(|(_, target)| target);
    inline
        .chain(reference)
        .filter_map(|target| target.split_whitespace().next())
        .map(|target| target.trim_matches(['<', '>']))
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .filter_map(|target| target.split('#').next())
        .filter(|file| !file.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The path from the root of `target` as linked from `page`; none if outside.
fn resolve(page: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => page.split('/').collect(),
    };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
