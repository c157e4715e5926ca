//! The plan as a TOML file: what is exported, edited offline and applied later, and
//! which edits make the plan what a file says.
//!
//! A file names the plan that it was exported from, so that only what was edited in it
//! is applied: what others decided since then stays. Not here: carrying the edits out
//! (`engine`), and reading and writing files (`cli`).

mod difference;
mod names;

pub use difference::{Difference, difference};
pub use names::Names;

use crate::api::model::{PlanView, PlannedLimit, PlannedMigration, PlannedServer};
use serde::{Deserialize, Serialize};
use toml::Spanned;

/// Largest file that is read: some 500,000 servers.
pub const MAX_BYTES: usize = 128 * 1024 * 1024;

/// Why a file's base cannot be used.
pub const UNKNOWN_BASE: &str = "the plan that this file was exported from is not known to this node: let it catch up with the node that exported it, or export again and repeat the edits";

/// A file, each entry with the line that it begins in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanFile {
    /// The plan that it was exported from; none for one written by hand.
    pub base: Vec<String>,
    /// Planned servers.
    pub servers: Vec<(usize, PlannedServer)>,
    /// Limits of how fast is sent.
    pub limits: Vec<(usize, PlannedLimit)>,
    /// Migrations.
    pub migrations: Vec<(usize, PlannedMigration)>,
}

/// What is wrong in a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    base: Vec<String>,
    #[serde(default)]
    server: Vec<Spanned<PlannedServer>>,
    #[serde(default)]
    limit: Vec<Spanned<PlannedLimit>>,
    #[serde(default)]
    migration: Vec<Spanned<PlannedMigration>>,
}

/// As it is written: an empty list would be a key that `[[server]]` below it writes again.
#[derive(Serialize)]
struct Rendered<'a> {
    base: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    server: &'a [PlannedServer],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    limit: &'a [PlannedLimit],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    migration: &'a [PlannedMigration],
}

/// Reads a file.
pub fn parse(text: &str) -> Result<PlanFile, Fault> {
    let lines = Lines::of(text);
    let written: Written = toml::from_str(text).map_err(|error| Fault {
        line: error.span().map_or(1, |span| lines.at(span.start)),
        why: error.message().to_owned(),
    })?;
    Ok(PlanFile {
        base: written.base,
        servers: lines.with(written.server),
        limits: lines.with(written.limit),
        migrations: lines.with(written.migration),
    })
}

/// Writes a plan so that it can be edited.
pub fn render(plan: &PlanView) -> Result<String, toml::ser::Error> {
    let head = "# A plan of dunlin: edit it and apply it with `dunlin plan apply FILE`.\n\
        # A new entry has no id. `base` says which plan this was exported from: leave it.\n\n";
    let written = Rendered {
        base: &plan.base,
        server: &plan.servers,
        limit: &plan.limits,
        migration: &plan.migrations,
    };
    Ok(format!("{head}{}", toml::to_string(&written)?))
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(
            std::iter::once(0)
                .chain(ends.map(|(at, _)| at + 1))
                .collect(),
        )
    }

    /// The line of a byte, from 1.
    fn at(&self, byte: usize) -> usize {
        self.0.partition_point(|start| *start <= byte)
    }

    fn with<T>(&self, entries: Vec<Spanned<T>>) -> Vec<(usize, T)> {
        let entries = entries.into_iter();
        entries
            .map(|entry| (self.at(entry.span().start), entry.into_inner()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
