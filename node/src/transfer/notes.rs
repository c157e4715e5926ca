//! The replicator's notes of what it is about to write, kept apart by the
//! barrier they wait for: extents are taken while an earlier barrier is made
//! durable, and that one may forget only its own notes.
//!
//! Not here: the format of a file of notes (`volumes::Intents`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use blocks::{GroupIndex, MAX_BARRIERS};
use volumes::{IntentError, Intents, OpenIntentsError, VolumeTag};

use super::locks::while_busy;

/// Barriers that notes may wait for at once: those being flushed, and the one
/// that extents come in for.
const FILES: usize = MAX_BARRIERS + 1;

/// All notes of one volume, in files taken in turn.
#[derive(Debug)]
pub(super) struct Notes([Mutex<Intents>; FILES]);

impl Notes {
    /// Opens the notes, or begins them.
    ///
    /// # Errors
    /// When any of the files cannot be used.
    pub(super) fn open(path: &Path, tag: VolumeTag) -> Result<Self, OpenIntentsError> {
        let is_busy = |error: &OpenIntentsError| matches!(error, OpenIntentsError::Busy { .. });
        let [first, second, third] = files(path);
        let open = |path: PathBuf| while_busy(|| Intents::open(&path, tag), is_busy);
        let opened = [open(first)?, open(second)?, open(third)?];
        Ok(Self(opened.map(Mutex::new)))
    }

    /// Removes the files; what they noted is then unknown.
    ///
    /// # Errors
    /// When one is there and cannot be removed.
    pub(super) fn remove(path: &Path) -> io::Result<()> {
        files(path).into_iter().try_for_each(|path| remove(&path))
    }

    /// Notes groups that are about to be written for a barrier; durable when it
    /// returns.
    ///
    /// # Errors
    /// When it is not: nothing may be written then.
    pub(super) fn note(&self, barrier: u64, groups: &[GroupIndex]) -> Result<(), IntentError> {
        self.of(barrier).note(groups)
    }

    /// Forgets what was noted for a barrier.
    ///
    /// # Errors
    /// When that could not be made durable.
    pub(super) fn forget(&self, barrier: u64) -> Result<(), IntentError> {
        self.of(barrier).clear()
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// When that could not be made durable.
    pub(super) fn forget_all(&self) -> Result<(), IntentError> {
        (0..FILES as u64).try_for_each(|barrier| self.forget(barrier))
    }

    /// All groups noted.
    pub(super) fn outstanding(&self) -> BTreeSet<GroupIndex> {
        let files = (0..FILES as u64).map(|barrier| self.of(barrier));
        files
            .flat_map(|notes| notes.outstanding().collect::<Vec<_>>())
            .collect()
    }

    fn of(&self, barrier: u64) -> MutexGuard<'_, Intents> {
        let at = (barrier % FILES as u64) as usize;
        // Notes know by themselves when they have failed.
        self.0[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a file if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn files(path: &Path) -> [PathBuf; FILES] {
    ["0", "1", "2"].map(|turn| {
        let mut name = path.as_os_str().to_owned();
        name.push(".");
        name.push(turn);
        PathBuf::from(name)
    })
}
