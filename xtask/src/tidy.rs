//! Rules of the tree that the compiler does not know, each a function from the
//! tree to its faults. A rule reads nothing but the tree it is given, and none
//! of them changes a file.

mod arrows;
mod code;
mod docs;
mod files;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::tree::Tree;

/// One place that breaks one rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    path: String,
    line: usize,
    rule: &'static str,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            rule,
            message,
        } = self;
        write!(f, "{path}:{line}: {rule}: {message}")
    }
}

/// What a rule finds: the file, the line counted from 1, and what is wrong.
type Found = Vec<(String, usize, String)>;

/// A rule, by the name that its faults carry.
type Rule = (&'static str, fn(&Tree) -> Found);

const RULES: &[Rule] = &[
    ("manifest", files::manifests),
    ("size", files::sizes),
    ("opening", files::openings),
    ("name", files::names),
    ("arrow", arrows::between_crates),
    ("package", arrows::to_packages),
    ("pure", code::pure),
    ("unsafe", code::without_guards),
    ("unfinished", code::unfinished),
    ("sleep", code::sleeps),
    ("invariant", docs::invariants),
    ("test-name", docs::test_names),
    ("link", docs::links),
];

/// Every fault of the tree, in order of file, line and rule.
pub fn check(tree: &Tree) -> Vec<Fault> {
    let mut faults: Vec<Fault> = RULES
        .iter()
        .flat_map(|(rule, find)| {
            find(tree).into_iter().map(|(path, line, message)| Fault {
                path,
                line,
                rule,
                message,
            })
        })
        .collect();
    faults.sort();
    faults
}
