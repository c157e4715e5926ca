//! The folder of hooks: which files in it may be run.
//!
//! Only what the host's owner put there and nobody else can change: that is what makes a
//! name in the plan harmless.

use crdt::plan::hook::is_hook_name;
use rustix::process::geteuid;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where root's nodes have their hooks.
const OF_ROOT: &str = "/etc/dunlin/hooks";
/// The same of other users, in the data folder.
const IN_DATA: &str = "hooks";

/// Those who may own scripts.
const ROOT: u32 = 0;
/// Write permission of group and others.
const SHARED_WRITE: u32 = 0o022;
/// Any permission to execute.
const EXECUTE: u32 = 0o111;

/// A folder of hooks, which may not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

/// A script that may be run. Only [`Folder::find`] makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Script(PathBuf);

/// Why a script is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoScript {
    /// Not a name that a script can have.
    #[error(
        "`{0}` is not a name of a script: no folder, and lower case letters, digits, `.`, `_` and `-` only"
    )]
    Name(String),
    /// Nothing of that name.
    #[error("there is no script {}: put it there, executable and owned by the node's user or root, or take its hook out of the plan", path.display())]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// A link, a folder, a device.
    #[error("{} is not a regular file, and not run: put the script itself there", path.display())]
    NotAFile {
        /// What it is.
        path: PathBuf,
    },
    /// Not executable.
    #[error("{0} is not executable: run `chmod 755 {0}`", path.display())]
    NotExecutable {
        /// The script.
        path: PathBuf,
    },
    /// Another user's.
    #[error("{0} belongs to user {owner}, and is not run: run `chown {me} {0}` if its content is what you want to be run", path.display())]
    Owner {
        /// The script or its folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// This process's user.
        me: u32,
    },
    /// Others may change it.
    #[error("{0} can be written by others than its owner, and is not run: look at its content, then run `chmod go-w {0}`", path.display())]
    Writable {
        /// The script or its folder.
        path: PathBuf,
    },
    /// It cannot be looked at.
    #[error("{} cannot be looked at: {why}", path.display())]
    Unreadable {
        /// The script or its folder.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
}

impl Folder {
    /// The one that was set, or the default of this user with this data folder.
    pub fn of(setting: Option<&Path>, data: &Path) -> Self {
        Self(match setting {
            Some(path) => path.to_owned(),
            None if geteuid().is_root() => OF_ROOT.into(),
            None => data.join(IN_DATA),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The script of that name, if it may be run.
    pub fn find(&self, name: &str) -> Result<Script, NoScript> {
        if !is_hook_name(name) {
            return Err(NoScript::Name(name.chars().take(80).collect()));
        }
        let path = self.0.join(name);
        let folder = look(&self.0, fs::metadata(&self.0), &path)?;
        owned(&self.0, &folder)?;
        let file = look(&path, fs::symlink_metadata(&path), &path)?;
        if !file.is_file() {
            return Err(NoScript::NotAFile { path });
        }
        owned(&path, &file)?;
        if file.permissions().mode() & EXECUTE == 0 {
            return Err(NoScript::NotExecutable { path });
        }
        Ok(Script(path))
    }
}

impl Script {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

fn look(path: &Path, seen: io::Result<Metadata>, script: &Path) -> Result<Metadata, NoScript> {
    seen.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NoScript::Missing {
            path: script.to_owned(),
        },
        _ => NoScript::Unreadable {
            path: path.to_owned(),
            why: error.to_string(),
        },
    })
}

fn owned(path: &Path, seen: &Metadata) -> Result<(), NoScript> {
    let (owner, me) = (seen.uid(), geteuid().as_raw());
    if owner != me && owner != ROOT {
        return Err(NoScript::Owner {
            path: path.to_owned(),
            owner,
            me,
        });
    }
    match seen.permissions().mode() & SHARED_WRITE {
        0 => Ok(()),
        _ => Err(NoScript::Writable {
            path: path.to_owned(),
        }),
    }
}
