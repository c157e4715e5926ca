//! What a process notes of the file systems that it freezes, for whoever comes after it
//! should it die: a small file that is on none of them, in `/run` say.
//!
//! ```text
//! dunlin-frozen 1 BOOT        the boot in which it was
//! 7:3 ext4 /srv/a\040b        before this one is frozen
//! kept                        they stay frozen, and nobody thaws them unasked
//! given-up                    they do not after all, but thawing one failed
//! ```
//!
//! It is locked for as long as its process lives, and removed once nothing is frozen.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::frozen::{Thawed, ThawedOne};
use super::mounted::{CannotLook, Mounted};
use super::{Number, kernel, mounts};
use crate::locked::LockedFile;

const NAME: &str = "dunlin-frozen 1";

/// A line for each file system of a machine.
const MAX_BYTES: u64 = 1 << 20;

const KEPT: &str = "kept";
const GIVEN_UP: &str = "given-up";

/// Why it is not known what was left frozen.
#[derive(Debug, thiserror::Error)]
pub enum CannotThaw {
    /// The process that froze them lives.
    #[error("{left} is in use: who froze these file systems still runs, and will thaw them")]
    InUse {
        /// The file.
        left: PathBuf,
    },
    /// It is none of ours, or of a later version.
    #[error(
        "{left} is no list of frozen file systems that is known here; thaw them with `fsfreeze -u`"
    )]
    Unknown {
        /// The file.
        left: PathBuf,
    },
    /// The file could not be read or removed.
    #[error("cannot use {left}: {source}")]
    Io {
        /// The file.
        left: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Of what is mounted nothing is known.
    #[error(transparent)]
    Look(#[from] CannotLook),
}

/// The file, while its file systems are being frozen and are.
#[derive(Debug)]
pub(super) struct Left {
    path: PathBuf,
    file: LockedFile,
}

impl Left {
    /// Begins it. What an earlier process left there has to be dealt with before.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create_new(true).mode(0o600);
        let file = LockedFile::lock(options.open(path)?)?;
        let left = Self {
            path: path.to_owned(),
            file,
        };
        left.write(&format!("{NAME} {}\n", boot()?))?;
        Ok(left)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Before it is frozen.
    pub(super) fn note(&self, of: &Mounted) -> io::Result<()> {
        self.write(&line(of.device, &of.kind, &of.at))
    }

    /// From now on nobody thaws them who is not asked to.
    pub(super) fn keep(&self) -> io::Result<()> {
        self.write(&format!("{KEPT}\n"))
    }

    /// They do not stay frozen, and some could not be thawed.
    pub(super) fn give_up(&self) -> io::Result<()> {
        self.write(&format!("{GIVEN_UP}\n"))
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    fn write(&self, text: &str) -> io::Result<()> {
        (&self.file.0).write_all(text.as_bytes())
    }
}

fn line((major, minor): Number, kind: &str, at: &Path) -> String {
    let [kind, at] = [kind.as_bytes(), at.as_os_str().as_bytes()].map(mounts::escaped);
    format!("{major}:{minor} {kind} {at}\n")
}

/// Drawn by the kernel when it starts.
fn boot() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(boot.trim().to_owned())
}

/// What a process that is not there any more left frozen.
#[derive(Debug)]
pub struct LeftBehind {
    path: PathBuf,
    /// Held, so that nobody else deals with it.
    _file: LockedFile,
    listed: Listed,
    is_of_this_boot: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Listed {
    boot: String,
    file_systems: Vec<(Number, String, PathBuf)>,
    is_kept: bool,
}

impl Listed {
    fn parse(text: &str) -> Option<Self> {
        let (first, rest) = text.split_once('\n')?;
        let boot = first.strip_prefix(NAME)?.strip_prefix(' ')?.to_owned();
        let mut listed = Self {
            boot,
            file_systems: vec![],
            is_kept: false,
        };
        // A line that was not written whole is of one that is not frozen yet.
        let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
        for line in whole.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                [KEPT] => listed.is_kept = true,
                [GIVEN_UP] => listed.is_kept = false,
                [device, kind, at] => listed.file_systems.push((
                    mounts::parse_number(device)?,
                    mounts::unescaped(kind.as_bytes()).into_string().ok()?,
                    mounts::unescaped(at.as_bytes()).into(),
                )),
                _ => return None,
            }
        }
        Some(listed)
    }
}

impl LeftBehind {
    /// Reads what is noted there; none where nothing is.
    ///
    /// # Errors
    /// Where who wrote it still runs, or it cannot be read.
    pub fn find(left: &Path) -> Result<Option<Self>, CannotThaw> {
        let path = left.to_owned();
        let failed = |source| CannotThaw::Io {
            left: path.clone(),
            source,
        };
        let file = match OpenOptions::new().read(true).open(left) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let file = LockedFile::lock(file).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => CannotThaw::InUse { left: path.clone() },
            _ => failed(error),
        })?;
        // Who held it may have removed it, and another one begun.
        match (fs::metadata(left), file.0.metadata()) {
            (Ok(there), Ok(locked)) if there.ino() == locked.ino() => {}
            _ => return Ok(None),
        }
        let mut text = String::new();
        let read = (&file.0).take(MAX_BYTES).read_to_string(&mut text);
        read.map_err(failed)?;
        let listed = match text.len() as u64 {
            // It died before it wrote anything, and so before it froze anything.
            0 => Some(Listed::default()),
            MAX_BYTES.. => None,
            _ => Listed::parse(&text),
        };
        let listed = listed.ok_or_else(|| CannotThaw::Unknown { left: path.clone() })?;
        let is_of_this_boot = listed.boot == boot().map_err(failed)?;
        Ok(Some(Self {
            path,
            _file: file,
            listed,
            is_of_this_boot,
        }))
    }

    /// They were to stay frozen.
    pub fn is_kept(&self) -> bool {
        self.listed.is_kept && self.is_of_this_boot
    }

    /// Where they were mounted, in the order in which they were frozen.
    pub fn file_systems(&self) -> impl Iterator<Item = &Path> {
        let all = self.listed.file_systems.iter();
        all.map(|(_, _, at)| at.as_path())
    }

    /// The numbers that their mounts have, in the same order.
    pub fn devices(&self) -> impl Iterator<Item = Number> {
        self.listed
            .file_systems
            .iter()
            .map(|(device, _, _)| *device)
    }

    /// Thaws those that are frozen, the last one first, kept ones too, and removes the file
    /// if none is left. After another boot nothing is frozen.
    ///
    /// # Errors
    /// Where nothing is known of what is mounted, or the file cannot be removed.
    pub fn thaw(self) -> Result<Thawed, CannotThaw> {
        let mut thawed = Thawed {
            file_systems: vec![],
            frozen_for: Duration::ZERO,
            is_by_deadline: false,
        };
        if self.is_of_this_boot {
            let views = mounts::views();
            let views = views.map_err(|source| CannotLook::Mounts { source })?;
            for (device, kind, at) in self.listed.file_systems.iter().rev() {
                thawed.file_systems.push(ThawedOne {
                    at: at.clone(),
                    result: thaw(&views, *device, kind),
                });
            }
        }
        if thawed.is_complete() {
            fs::remove_file(&self.path).map_err(|source| CannotThaw::Io {
                left: self.path.clone(),
                source,
            })?;
        }
        Ok(thawed)
    }
}

/// Thaws a file system through whichever of its mounts can be opened.
fn thaw(views: &[mounts::View], device: Number, kind: &str) -> io::Result<()> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it is not mounted any more");
    for view in views {
        let is_it = |mount: &&mounts::Mount| mount.device == device && mount.kind == kind;
        for mount in view.mounts.iter().filter(is_it) {
            match mounts::open_in(mount, &view.reach(&mount.at)) {
                Ok(file) => return thaw_opened(&file),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

/// Thaws the file system of a file; one that is not frozen is as good.
pub(super) fn thaw_opened(file: &File) -> io::Result<()> {
    match kernel::thaw(file) {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
        thawed => thawed,
    }
}

/// Thaws what a process left frozen that is not there any more; none where nothing was left,
/// or where it is to stay frozen.
///
/// # Errors
/// Where that is not known, or who froze it still runs.
pub fn thaw_left_behind(left: &Path) -> Result<Option<Thawed>, CannotThaw> {
    match LeftBehind::find(left)? {
        Some(left) if !left.is_kept() => left.thaw().map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_noted_is_these_bytes_and_reads_back() {
        let lines =
            line((7, 3), "ext4", Path::new("/srv/a b")) + &line((0, 44), "btrfs", Path::new("/"));
        assert_eq!(lines, "7:3 ext4 /srv/a\\040b\n0:44 btrfs /\n");
        let text = format!("{NAME} b00t\n{lines}{KEPT}\n");
        let listed = Listed::parse(&text).unwrap();
        let expected = Listed {
            boot: "b00t".to_owned(),
            file_systems: vec![
                ((7, 3), "ext4".to_owned(), "/srv/a b".into()),
                ((0, 44), "btrfs".to_owned(), "/".into()),
            ],
            is_kept: true,
        };
        assert_eq!(listed, expected);
        // Cut anywhere behind its first line it is still a list, of fewer.
        for end in text.find('\n').unwrap() + 1..text.len() {
            assert!(!Listed::parse(&text[..end]).unwrap().is_kept, "{end}");
        }
        let given_up = format!("{text}{GIVEN_UP}\n");
        assert!(!Listed::parse(&given_up).unwrap().is_kept);
        assert_eq!(Listed::parse("dunlin-frozen 2 b00t\nx\n"), None);
        assert_eq!(Listed::parse("dunlin-frozen 1 b00t\n7:3 ext4\n"), None);
    }

    #[test]
    fn what_another_boot_left_is_not_frozen_and_who_still_runs_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("frozen");
        assert!(thaw_left_behind(&path).unwrap().is_none());
        let left = Left::create(&path).unwrap();
        let found = thaw_left_behind(&path);
        assert!(matches!(found, Err(CannotThaw::InUse { .. })), "{found:?}");
        drop(left);
        assert!(
            Left::create(&path).is_err(),
            "it has to be dealt with first"
        );
        fs::write(&path, format!("{NAME} another\n7:3 ext4 /x\n{KEPT}\n")).unwrap();
        let found = LeftBehind::find(&path).unwrap().unwrap();
        assert!(!found.is_kept());
        assert_eq!(found.file_systems().count(), 1);
        assert_eq!(found.devices().collect::<Vec<_>>(), [(7, 3)]);
        assert!(found.thaw().unwrap().file_systems.is_empty());
        assert!(!path.exists());
        fs::write(&path, "something else\n").unwrap();
        let found = thaw_left_behind(&path);
        assert!(
            matches!(found, Err(CannotThaw::Unknown { .. })),
            "{found:?}"
        );
    }
}
