//! A file that its opener alone uses, for as long as it is open here.

use std::fs::File;
use std::io;
use std::ops::Deref;

use rustix::fs::{FlockOperation, flock};

/// A file with an exclusive lock.
///
/// Closing a file gives up its lock only once nobody has it open any more. A process that
/// this one has just forked has, until it has become another program: so the lock is given
/// up by word, and whoever opens the file next does not find it in use.
#[derive(Debug)]
pub(crate) struct LockedFile(pub(crate) File);

impl LockedFile {
    /// Locks a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when it is in use.
    pub(crate) fn lock(file: File) -> io::Result<Self> {
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self(file))
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // At worst it is given up when the file is closed, right after this.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_is_free_at_once_though_somebody_forked_has_it_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let locked = LockedFile::lock(File::create(&path).unwrap()).unwrap();
        // What a forked process has until it becomes another program.
        let forked = locked.try_clone().unwrap();
        let other = || LockedFile::lock(File::open(&path).unwrap());
        let busy = other().unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::WouldBlock);
        drop(locked);
        other().unwrap();
        drop(forked);
    }
}
