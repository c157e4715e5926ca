//! Checkpoints in the folder: a file and a record for each, beside its volume's, and one
//! more file for the copy that can be written to.
//!
//! A copy may take long, and the folder's lock is not held meanwhile. What is being filled
//! is locked instead, by its own file: another call about the same checkpoint is refused,
//! and a process that dies lets go. The record says what a file is before it is begun, and
//! that it is whole only after it is durable, so that what a crash leaves is begun anew, or
//! removed. Whether the volume is still that of the epoch is looked at before and after.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use provider::{CheckpointKey, CheckpointRecord, CloudError, MigrationTag, Subject};

use super::LocalCloud;
use crate::copying::CopyError;
use crate::sidecar::{CheckpointSidecar, Phase};

/// A sealed checkpoint is nobody's to write to.
const READ_ONLY: u32 = 0o400;

/// What a call found.
enum Begun<T> {
    /// All that it would make.
    There(T),
    Filling(Filling),
}

/// A file that is being filled, which is locked as long as it is open.
struct Filling {
    /// As it is stored.
    sidecar: CheckpointSidecar,
    from: File,
    to: File,
}

impl LocalCloud {
    pub(super) fn seal_volume(
        &self,
        key: &CheckpointKey,
        epoch: u64,
        stop: &AtomicBool,
    ) -> Result<CheckpointRecord, CloudError> {
        match self.begin_sealing(key, epoch)? {
            Begun::There(record) => Ok(record),
            Begun::Filling(filling) => self.finish_sealing(filling, stop),
        }
    }

    fn begin_sealing(
        &self,
        key: &CheckpointKey,
        epoch: u64,
    ) -> Result<Begun<CheckpointRecord>, CloudError> {
        let _held = self.lock(key)?;
        let had = self.load_checkpoint(key)?;
        if let Some(had) = had.as_ref().filter(|had| had.phase != Phase::Deleting) {
            had.record().admit_again(epoch)?;
            if had.phase == Phase::Ready {
                self.check_sealed(had)?;
                return Ok(Begun::There(had.record()));
            }
        }
        let (volume, path) = self.load_ready(&key.volume)?;
        volume.admit_seal(epoch)?;
        if had.is_none() {
            self.admit_new(&raw_name(key), key.into())?;
        }
        self.admit_filling(key, &raw_name(key))?;
        let sidecar = CheckpointSidecar {
            phase: Phase::Creating,
            copy: None,
            key: key.clone(),
            length: volume.length,
            epoch,
        };
        self.save_checkpoint(&sidecar)?;
        let to = self.make_locked(key, &raw_name(key))?;
        let from = self.open_file(key, &path)?;
        Ok(Begun::Filling(Filling { sidecar, from, to }))
    }

    fn finish_sealing(
        &self,
        filling: Filling,
        stop: &AtomicBool,
    ) -> Result<CheckpointRecord, CloudError> {
        let (key, epoch) = (filling.sidecar.key.clone(), filling.sidecar.epoch);
        let filled = self.fill(&filling, stop).and_then(|()| {
            let to = &filling.to;
            let made = to.set_permissions(Permissions::from_mode(READ_ONLY));
            let made = made.and_then(|()| to.sync_all());
            made.map_err(|error| self.failed((&key).into(), error))
        });
        let _held = self.lock(&key)?;
        // A later epoch may have written to the volume while it was copied.
        let whole = filled.and_then(|()| self.load_ready(&key.volume)?.0.admit_seal(epoch));
        if let Err(error) = whole {
            if !error.is_transient() {
                self.finish_removing(&key)?;
            }
            return Err(error);
        }
        let mut sidecar = filling.sidecar;
        sidecar.phase = Phase::Ready;
        self.save_checkpoint(&sidecar)?;
        Ok(sidecar.record())
    }

    pub(super) fn copy_sealed(
        &self,
        key: &CheckpointKey,
        stop: &AtomicBool,
    ) -> Result<PathBuf, CloudError> {
        match self.begin_copying(key)? {
            Begun::There(path) => Ok(path),
            Begun::Filling(filling) => self.finish_copying(filling, stop),
        }
    }

    fn begin_copying(&self, key: &CheckpointKey) -> Result<Begun<PathBuf>, CloudError> {
        let name = copy_name(key);
        let _held = self.lock(key)?;
        let (mut sidecar, path) = self.load_sealed(key)?;
        match sidecar.copy {
            Some(Phase::Ready) => {
                let there = self.check_length(&name, sidecar.length, || key.into());
                return there.map(Begun::There);
            }
            Some(_) => {}
            None => self.admit_new(&name, key.into())?,
        }
        self.admit_filling(key, &name)?;
        self.save_copy(&mut sidecar, Some(Phase::Creating))?;
        let to = self.make_locked(key, &name)?;
        let from = self.open_file(key, &path)?;
        Ok(Begun::Filling(Filling { sidecar, from, to }))
    }

    fn finish_copying(&self, filling: Filling, stop: &AtomicBool) -> Result<PathBuf, CloudError> {
        let filled = self.fill(&filling, stop);
        let mut sidecar = filling.sidecar;
        let _held = self.lock(&sidecar.key)?;
        if let Err(error) = filled {
            if !error.is_transient() {
                self.finish_removing_copy(&mut sidecar)?;
            }
            return Err(error);
        }
        self.save_copy(&mut sidecar, Some(Phase::Ready))?;
        Ok(self.folder.path().join(copy_name(&sidecar.key)))
    }

    pub(super) fn list_checkpoints(
        &self,
        migration: &MigrationTag,
    ) -> Result<Vec<CheckpointRecord>, CloudError> {
        let subject = || Subject::Migration(*migration);
        let _held = self.lock(subject())?;
        let prefix = format!("{}-", migration.short());
        let names = self.folder.names(&prefix, ".json");
        let mut records = Vec::new();
        for name in names.map_err(|error| self.failed(subject(), error))? {
            if is_checkpoint(&name) {
                let found = self.load_checkpoint_named(&name, subject())?;
                records.extend(found.map(|sidecar| sidecar.record()));
            }
        }
        // Others may share the beginning of the tag.
        records.retain(|record| record.key.volume.migration == *migration);
        records.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(records)
    }

    pub(super) fn remove_copy(&self, key: &CheckpointKey) -> Result<(), CloudError> {
        let _held = self.lock(key)?;
        let Some(mut sidecar) = self.load_checkpoint(key)?.filter(has_copy) else {
            return Ok(());
        };
        self.admit_filling(key, &copy_name(key))?;
        self.save_copy(&mut sidecar, Some(Phase::Deleting))?;
        self.finish_removing_copy(&mut sidecar)
    }

    pub(super) fn remove_checkpoint(&self, key: &CheckpointKey) -> Result<(), CloudError> {
        let _held = self.lock(key)?;
        let Some(mut sidecar) = self.load_checkpoint(key)? else {
            return Ok(());
        };
        sidecar.record().admit_deletion()?;
        self.admit_filling(key, &raw_name(key))?;
        if sidecar.phase != Phase::Deleting {
            sidecar.phase = Phase::Deleting;
            self.save_checkpoint(&sidecar)?;
        }
        self.finish_removing(key)
    }

    /// A checkpoint that is whole, and its file.
    pub(super) fn load_sealed(
        &self,
        key: &CheckpointKey,
    ) -> Result<(CheckpointSidecar, PathBuf), CloudError> {
        let found = self.load_checkpoint(key)?;
        let sidecar = found.ok_or_else(|| CloudError::NoCheckpoint { key: key.clone() })?;
        sidecar.record().admit_reading()?;
        let path = self.check_sealed(&sidecar)?;
        Ok((sidecar, path))
    }

    fn check_sealed(&self, sidecar: &CheckpointSidecar) -> Result<PathBuf, CloudError> {
        let key = &sidecar.key;
        self.check_length(&raw_name(key), sidecar.length, || key.into())
    }

    fn load_checkpoint(
        &self,
        key: &CheckpointKey,
    ) -> Result<Option<CheckpointSidecar>, CloudError> {
        let name = sidecar_name(key);
        match self.load_checkpoint_named(&name, key.into())? {
            Some(found) if found.key != *key => Err(CloudError::NameTaken {
                key: key.volume,
                name,
                by: found.key.volume,
            }),
            found => Ok(found),
        }
    }

    fn load_checkpoint_named(
        &self,
        name: &str,
        subject: Subject,
    ) -> Result<Option<CheckpointSidecar>, CloudError> {
        let Some(bytes) = self.read(name, subject.clone())? else {
            return Ok(None);
        };
        let decoded = CheckpointSidecar::decode(&bytes);
        decoded
            .map(Some)
            .map_err(|bad| self.damaged(name, subject, &bad))
    }

    fn save_checkpoint(&self, sidecar: &CheckpointSidecar) -> Result<(), CloudError> {
        let name = sidecar_name(&sidecar.key);
        let saved = self.folder.replace(&name, &sidecar.encode());
        saved.map_err(|error| self.failed((&sidecar.key).into(), error))
    }

    fn save_copy(
        &self,
        sidecar: &mut CheckpointSidecar,
        copy: Option<Phase>,
    ) -> Result<(), CloudError> {
        if sidecar.copy != copy {
            sidecar.copy = copy;
            self.save_checkpoint(sidecar)?;
        }
        Ok(())
    }

    fn admit_filling(&self, key: &CheckpointKey, name: &str) -> Result<(), CloudError> {
        match self.folder.is_filled(name) {
            Ok(false) => Ok(()),
            Ok(true) => Err(busy(key)),
            Err(error) => Err(self.failed(key.into(), error)),
        }
    }

    fn make_locked(&self, key: &CheckpointKey, name: &str) -> Result<File, CloudError> {
        let made = self.folder.make_locked(name);
        let made = made.map_err(|error| self.failed(key.into(), error))?;
        made.ok_or_else(|| busy(key))
    }

    fn open_file(&self, key: &CheckpointKey, path: &Path) -> Result<File, CloudError> {
        File::open(path).map_err(|error| self.failed(key.into(), error))
    }

    fn fill(&self, filling: &Filling, stop: &AtomicBool) -> Result<(), CloudError> {
        let subject = || Subject::from(&filling.sidecar.key);
        let filled = self.folder.fill(&filling.from, &filling.to, stop);
        filled.map_err(|error| match error {
            CopyError::NoRoom { need, free } => CloudError::NoRoom {
                subject: subject(),
                need,
                free,
            },
            CopyError::Stopped => CloudError::Stopped { subject: subject() },
            CopyError::Io(error) => self.failed(subject(), error),
        })
    }

    fn finish_removing(&self, key: &CheckpointKey) -> Result<(), CloudError> {
        self.remove_files(key, &[raw_name(key), sidecar_name(key)])
    }

    fn finish_removing_copy(&self, sidecar: &mut CheckpointSidecar) -> Result<(), CloudError> {
        let key = sidecar.key.clone();
        self.remove_files(&key, &[copy_name(&key)])?;
        self.save_copy(sidecar, None)
    }

    fn remove_files(&self, key: &CheckpointKey, names: &[String]) -> Result<(), CloudError> {
        let removed: io::Result<()> = names.iter().try_for_each(|name| self.folder.remove(name));
        removed.map_err(|error| self.failed(key.into(), error))
    }
}

/// Whether the name of a record is that of a checkpoint.
pub(super) fn is_checkpoint(name: &str) -> bool {
    name.contains('@')
}

fn has_copy(sidecar: &CheckpointSidecar) -> bool {
    sidecar.copy.is_some()
}

fn busy(key: &CheckpointKey) -> CloudError {
    CloudError::Busy {
        subject: key.into(),
    }
}

fn raw_name(key: &CheckpointKey) -> String {
    format!("{}.raw", key.short_name())
}

fn copy_name(key: &CheckpointKey) -> String {
    format!("{}.copy.raw", key.short_name())
}

fn sidecar_name(key: &CheckpointKey) -> String {
    format!("{}.json", key.short_name())
}

#[cfg(test)]
mod tests;
