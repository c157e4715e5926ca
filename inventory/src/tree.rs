//! A root file system, of which files are read as a program with that root would read
//! them: links are followed inside of it and lead nowhere else.
//!
//! Not here: what the files say.

use rustix::fs::OFlags;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// Most of a file that is read as text.
const MAX_TEXT: u64 = 1 << 20;
/// Most entries of a folder.
const MAX_NAMES: usize = 8192;
/// Most links on one path, as in Linux.
const MAX_LINKS: usize = 40;

/// A root file system.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree below `root`; `/` is the running system's.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether it is the root of the process, whose network is that of the tree.
    pub(crate) fn is_own(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The beginning of a text file; what is not UTF-8 in it is replaced.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let bytes = self.bytes(path, MAX_TEXT)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The first line of a file, trimmed; none where it is empty.
    pub(crate) fn line(&self, path: &str) -> Option<String> {
        let text = self.bytes(path, 4096)?;
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or_default();
        let line = line.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!line.is_empty()).then(|| line.to_owned())
    }

    /// The number in a file.
    pub(crate) fn number(&self, path: &str) -> Option<u64> {
        self.line(path)?.parse().ok()
    }

    /// At most `limit` bytes from the beginning of a file.
    pub(crate) fn bytes(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        let mut bytes = vec![];
        let file = self.open(path)?;
        file.take(limit).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Opens a file or block device for reading; nothing else is opened, since that could
    /// wait or act.
    pub(crate) fn open(&self, path: &str) -> Option<File> {
        let real = self.root.join(self.resolve(path)?);
        let may = |kind: fs::FileType| kind.is_file() || kind.is_block_device();
        if !may(fs::symlink_metadata(&real).ok()?.file_type()) {
            return None;
        }
        let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let flags = i32::try_from(flags.bits()).ok()?;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&real)
            .ok()?;
        may(file.metadata().ok()?.file_type()).then_some(file)
    }

    /// Whether there is anything.
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.resolve(path).is_some()
    }

    /// Names in a folder, in order; none where it is not one.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let Some(resolved) = self.resolve(path) else {
            return vec![];
        };
        let Ok(entries) = fs::read_dir(self.root.join(resolved)) else {
            return vec![];
        };
        let names = entries.take(MAX_NAMES).flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let names: BTreeSet<String> = names.collect();
        names.into_iter().collect()
    }

    /// Paths of files in a folder whose names end so, in order.
    pub(crate) fn files(&self, folder: &str, ending: &str) -> Vec<String> {
        let names = self.names(folder).into_iter();
        let names = names.filter(|name| name.ends_with(ending) && !name.starts_with('.'));
        names.map(|name| format!("{folder}/{name}")).collect()
    }

    /// Where a link leads, as it is written.
    pub(crate) fn link(&self, path: &str) -> Option<String> {
        let (folder, name) = path.rsplit_once('/')?;
        let real = self.root.join(self.resolve(folder)?).join(name);
        fs::read_link(real)
            .ok()?
            .into_os_string()
            .into_string()
            .ok()
    }

    /// The last part of where a path leads.
    pub(crate) fn real_name(&self, path: &str) -> Option<String> {
        let resolved = self.resolve(path)?;
        Some(resolved.file_name()?.to_str()?.to_owned())
    }

    /// Where a path leads, without links, from the root; none where there is nothing.
    pub(crate) fn resolve(&self, path: &str) -> Option<PathBuf> {
        let mut done: Vec<OsString> = vec![];
        let mut ahead = parts_reversed(Path::new(path));
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            let mut real = self.root.clone();
            real.extend(&done);
            real.push(&part);
            if !fs::symlink_metadata(&real).ok()?.is_symlink() {
                done.push(part);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            let target = fs::read_link(&real).ok()?;
            if target.is_absolute() {
                done.clear();
            }
            ahead.extend(parts_reversed(&target));
        }
        Some(done.into_iter().collect())
    }
}

/// The parts of a path, last first, with `..` and without what stands for the root.
fn parts_reversed(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev().filter_map(|part| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        _ => None,
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_inside_of_the_tree_and_lead_nowhere_else() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        fs::create_dir_all(root.join("etc/deep")).unwrap();
        fs::write(outside.path().join("secret"), "outside").unwrap();
        fs::write(root.join("secret"), "inside\nmore").unwrap();
        let tree = Tree::new(&root);
        for (link, to) in [
            ("etc/absolute", PathBuf::from("/secret")),
            ("etc/climbing", PathBuf::from("../../../../secret")),
            ("etc/deep/twice", PathBuf::from("../absolute")),
        ] {
            symlink(to, root.join(link)).unwrap();
            assert_eq!(tree.line(&format!("/{link}")).unwrap(), "inside", "{link}");
        }
        let real = outside.path().join("secret");
        symlink(&real, root.join("etc/real")).unwrap();
        assert_eq!(tree.text("/etc/real"), None);
        assert_eq!(tree.line("/../secret").unwrap(), "inside");
        symlink("/etc/round", root.join("etc/round")).unwrap();
        assert_eq!(tree.text("/etc/round"), None);
        assert_eq!(tree.names("/etc/deep"), ["twice"]);
    }

    #[test]
    fn what_is_neither_a_file_nor_a_device_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let tree = Tree::new(root.path());
        assert!(tree.exists("/pipe"));
        assert!(tree.open("/pipe").is_none());
        assert!(tree.open("/").is_none());
    }
}
