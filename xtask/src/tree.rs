//! The files of the project as one value, so that rules are functions of it.
//! Nothing here judges a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// More files than this means that a folder of build output was read.
const MAX_FILES: usize = 20_000;

/// Folders of the root that hold no source.
const SKIPPED_ROOT_FOLDERS: [&str; 1] = ["target"];

/// Hidden entries that belong to the project; all others are skipped.
const KEPT_HIDDEN: [&str; 3] = [".cargo", ".ci", ".gitignore"];

/// Suffixes of the files whose text the rules read.
const READ_SUFFIXES: [&str; 3] = [".rs", ".md", ".toml"];

/// Every file of the project by its path from the root, with `/` between the
/// parts. Files that no rule reads have an empty text.
#[derive(Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads the tree under `root`. Symbolic links are not followed.
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.read_folder(root, "")?;
        Ok(tree)
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        let entries =
            fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("listing {}", folder.display()))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let hidden = name.starts_with('.') && !KEPT_HIDDEN.contains(&name);
            if hidden || (prefix.is_empty() && SKIPPED_ROOT_FOLDERS.contains(&name)) {
                continue;
            }
            let path = format!("{prefix}{name}");
            let kind = entry
                .file_type()
                .with_context(|| format!("looking at {path}"))?;
            if kind.is_dir() {
                self.read_folder(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file() {
                let read = READ_SUFFIXES.iter().any(|suffix| path.ends_with(suffix));
                let text = if read {
                    fs::read_to_string(entry.path()).with_context(|| format!("reading {path}"))?
                } else {
                    String::new()
                };
                self.files.insert(path, text);
                ensure!(
                    self.files.len() <= MAX_FILES,
                    "more than {MAX_FILES} files: is there build output outside `target`?"
                );
            }
        }
        Ok(())
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// The text of one file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether `path` is a file, or a folder that holds one.
    pub fn holds(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        if self.files.contains_key(path) {
            return true;
        }
        let folder = format!("{path}/");
        self.files
            .range(folder.clone()..)
            .next()
            .is_some_and(|(next, _)| next.starts_with(&folder))
    }

    /// The files whose path ends in `suffix`, in order.
    pub fn ending(&self, suffix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.ends_with(suffix))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Tree {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(files: I) -> Self {
        Self {
            files: files
                .into_iter()
                .map(|(path, text)| (path.to_owned(), text.to_owned()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn reading_skips_build_output_and_hidden_folders_but_keeps_ours() {
        let folder = tempfile::tempdir().unwrap();
        for path in [
            "target/debug/a.rs",
            ".git/b.md",
            ".ci/run",
            "keys/src/lib.rs",
            "docs/target/c.md",
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text").unwrap();
        }
        let tree = Tree::read(folder.path()).unwrap();
        assert_eq!(tree.len(), 3);
        assert_eq!(tree.text("keys/src/lib.rs"), Some("text"));
        assert_eq!(tree.text("docs/target/c.md"), Some("text"));
        assert_eq!(tree.text(".ci/run"), Some(""));
    }

    #[test]
    fn a_folder_is_held_when_a_file_lies_under_it_and_not_for_a_common_beginning() {
        let tree = Tree::from_iter([("docs/decisions/0001.md", ""), ("docs-old", "")]);
        assert!(tree.holds("docs"));
        assert!(tree.holds("docs/decisions/"));
        assert!(tree.holds("docs-old"));
        assert!(!tree.holds("docs/dec"));
        assert!(!tree.holds("doc"));
    }
}
