//! What the rules ask of a `Cargo.toml`: its name, what it depends on, and a
//! few of its settings. Not a resolver: only what is written there counts.

use toml::{Table, Value};

/// The tables of a manifest that list dependencies.
const DEPENDENCY_TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// A parsed `Cargo.toml`.
#[derive(Debug)]
pub struct Manifest<'a> {
    text: &'a str,
    table: Table,
}

/// One dependency as it is written.
#[derive(Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The key under which it stands.
    pub key: String,
    /// The package behind the key, when the entry renames it.
    pub package: Option<String>,
    /// The line of the entry, counted from 1.
    pub line: usize,
}

impl<'a> Manifest<'a> {
    /// Parses `text`; the error says what is wrong with it, in one line.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        match text.parse() {
            Ok(table) => Ok(Self { text, table }),
            Err(error) => Err(error.message().to_owned()),
        }
    }

    /// The package's name; none for the manifest of the workspace.
    pub fn name(&self) -> Option<&str> {
        self.package_setting("name")
    }

    /// The package's description.
    pub fn description(&self) -> Option<&str> {
        self.package_setting("description")
    }

    fn package_setting(&self, key: &str) -> Option<&str> {
        self.table.get("package")?.get(key)?.as_str()
    }

    /// Whether the lints are those of the workspace.
    pub fn has_workspace_lints(&self) -> bool {
        self.table
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(Value::as_bool)
            .unwrap_or(false)
    }

    /// Every dependency of every kind and target.
    pub fn dependencies(&self) -> Vec<Dependency> {
        let targets = self.table.get("target").and_then(Value::as_table);
        let targets = targets.into_iter().flat_map(Table::values);
        targets
            .filter_map(Value::as_table)
            .chain([&self.table])
            .flat_map(|table| self.listed(table))
            .collect()
    }

    /// The workspace's dependencies, which the crates inherit.
    pub fn workspace_dependencies(&self) -> Vec<Dependency> {
        let workspace = self.table.get("workspace").and_then(Value::as_table);
        workspace.map_or_else(Vec::new, |table| self.listed(table))
    }

    fn listed(&self, table: &Table) -> Vec<Dependency> {
        DEPENDENCY_TABLES
            .iter()
            .filter_map(|name| table.get(*name)?.as_table())
            .flatten()
            .map(|(key, value)| Dependency {
                key: key.clone(),
                package: value
                    .get("package")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
                line: self.line_of(key),
            })
            .collect()
    }

    /// The first line on which `key` is set or is the last part of a header.
    fn line_of(&self, key: &str) -> usize {
        let sets = |line: &str| {
            let line = line.trim();
            let header = line
                .strip_suffix(']')
                .and_then(|header| header.rsplit_once('.'))
                .is_some_and(|(_, last)| last.trim_matches('"') == key);
            let rest = line.trim_start_matches('"').strip_prefix(key);
            header || rest.is_some_and(|rest| rest.starts_with([' ', '.', '=', '"']))
        };
        self.text.lines().position(sets).map_or(1, |at| at + 1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TEXT: &str = r#"[package]
name = "keys"

[lints]
workspace = true

[dependencies]
codec.workspace = true
"hex" = "1"

[dependencies.old]
package = "bincode"
version = "2"

[dev-dependencies]
proptest = { version = "1" }

[target.'cfg(unix)'.build-dependencies]
libc = "0.2"
"#;

    #[test]
    fn dependencies_of_every_kind_are_listed_with_their_lines() {
        let manifest = Manifest::parse(TEXT).unwrap();
        let mut found: Vec<(String, Option<String>, usize)> = manifest
            .dependencies()
            .into_iter()
            .map(|d| (d.key, d.package, d.line))
            .collect();
        found.sort();
        let expected = [
            ("codec", None, 8),
            ("hex", None, 9),
            ("libc", None, 19),
            ("old", Some("bincode"), 11),
            ("proptest", None, 16),
        ];
        let expected: Vec<(String, Option<String>, usize)> = expected
            .iter()
            .map(|&(key, package, line)| (key.to_owned(), package.map(str::to_owned), line))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn settings_are_read_and_absent_ones_are_none() {
        let manifest = Manifest::parse(TEXT).unwrap();
        assert_eq!(manifest.name(), Some("keys"));
        assert_eq!(manifest.description(), None);
        assert!(manifest.has_workspace_lints());
        assert!(!Manifest::parse("").unwrap().has_workspace_lints());
    }

    #[test]
    fn a_broken_manifest_is_an_error_and_not_an_empty_one() {
        assert!(Manifest::parse("[package\n").is_err());
    }
}
