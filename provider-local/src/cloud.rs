//! The provider itself: volumes made, attached, tagged and deleted in one
//! folder, so that a crash between any two changes on disk leaves something
//! the same call finishes when it is made again.
//!
//! It enforces no fence but the record's. Checkpoints are in `checkpoints`.

mod checkpoints;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use provider::{
    AttachTo, Attachment, AttachmentKind, Capabilities, CheckpointKey, CheckpointRecord,
    CloudError, Fencing, Finding, MigrationTag, Need, Provider, Severity, Subject, VolumeKey,
    VolumeRecord, VolumeSpec, VolumeState,
};

use crate::folder::{Folder, MIN_FREE, OpenCloudError};
use crate::sidecar::{BadSidecar, Phase, Sidecar};

/// A folder on this machine as a cloud.
pub struct LocalCloud {
    folder: Folder,
}

impl LocalCloud {
    /// Opens an existing folder as a cloud. The first time it is marked as
    /// belonging to this host.
    ///
    /// # Errors
    /// When it is missing, not a folder, not writable, of another host or a
    /// newer format.
    pub fn open(folder: &Path) -> Result<Self, OpenCloudError> {
        let folder = Folder::open(folder)?;
        Ok(Self { folder })
    }

    /// The folder, as an absolute path.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn load(&self, key: &VolumeKey) -> Result<Option<Sidecar>, CloudError> {
        let found = self.load_named(&sidecar_name(key), (*key).into())?;
        Ok(found.filter(|sidecar| sidecar.record.key == *key))
    }

    fn load_named(&self, name: &str, subject: Subject) -> Result<Option<Sidecar>, CloudError> {
        let Some(bytes) = self.read(name, subject.clone())? else {
            return Ok(None);
        };
        let sidecar = Sidecar::decode(&bytes).map_err(|bad| self.damaged(name, subject, &bad))?;
        Ok(Some(sidecar))
    }

    fn read(&self, name: &str, subject: Subject) -> Result<Option<Vec<u8>>, CloudError> {
        match self.folder.read(name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(subject, error)),
        }
    }

    fn damaged(&self, name: &str, subject: Subject, bad: &BadSidecar) -> CloudError {
        let path = self.folder.path().join(name);
        let why = format!("{}: {bad}", path.display());
        CloudError::Damaged { subject, why }
    }

    /// The record of a volume that is there for use, and its file.
    fn load_ready(&self, key: &VolumeKey) -> Result<(VolumeRecord, PathBuf), CloudError> {
        match self.load(key)? {
            Some(sidecar) if sidecar.phase == Phase::Ready => {
                let path = self.check_file(&sidecar.record)?;
                Ok((sidecar.record, path))
            }
            _ => Err(CloudError::NotFound { key: *key }),
        }
    }

    /// Changes the record of a volume that is there for use; gives its file.
    fn change(
        &self,
        key: &VolumeKey,
        change: impl FnOnce(&mut VolumeRecord) -> Result<(), CloudError>,
    ) -> Result<PathBuf, CloudError> {
        let _held = self.lock(*key)?;
        let (mut record, path) = self.load_ready(key)?;
        let before = record.clone();
        change(&mut record)?;
        if record != before {
            self.save(Phase::Ready, &record)?;
        }
        Ok(path)
    }

    fn check_file(&self, record: &VolumeRecord) -> Result<PathBuf, CloudError> {
        self.check_length(&raw_name(&record.key), record.length, || record.key.into())
    }

    /// The path of a file that is as long as its record says.
    fn check_length(
        &self,
        name: &str,
        length: u64,
        subject: impl Fn() -> Subject,
    ) -> Result<PathBuf, CloudError> {
        let path = self.folder.path().join(name);
        let have = self.folder.length_of(name);
        let problem = match have.map_err(|error| self.failed(subject(), error))? {
            Some(have) if have == length => return Ok(path),
            Some(have) => format!("has {have} bytes, not {length}"),
            None => "is missing".into(),
        };
        Err(CloudError::Damaged {
            subject: subject(),
            why: format!(
                "{} {problem}: find it or restore it; one that no server runs on may be deleted and made again",
                path.display()
            ),
        })
    }

    fn save(&self, phase: Phase, record: &VolumeRecord) -> Result<(), CloudError> {
        let sidecar = Sidecar {
            phase,
            record: record.clone(),
        };
        let name = sidecar_name(&record.key);
        let saved = self.folder.replace(&name, &sidecar.encode());
        saved.map_err(|error| self.failed(record.key.into(), error))
    }

    fn create(&self, spec: &VolumeSpec) -> Result<VolumeRecord, CloudError> {
        let key = spec.key;
        self.admit_new(&raw_name(&key), key.into())?;
        let record = VolumeRecord::new(spec);
        self.save(Phase::Creating, &record)?;
        self.finish_creating(record)
    }

    /// Refuses to replace a file that has no record.
    fn admit_new(&self, name: &str, subject: Subject) -> Result<(), CloudError> {
        match self.folder.length_of(name) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => {
                let path = self.folder.path().join(name);
                let why = format!("{} has no record: move it away", path.display());
                Err(CloudError::Damaged { subject, why })
            }
            Err(error) => Err(self.failed(subject, error)),
        }
    }

    fn finish_creating(&self, record: VolumeRecord) -> Result<VolumeRecord, CloudError> {
        let made = self
            .folder
            .make_sparse(&raw_name(&record.key), record.length);
        made.map_err(|error| self.failed(record.key.into(), error))?;
        self.save(Phase::Ready, &record)?;
        Ok(record)
    }

    fn finish_deleting(&self, key: &VolumeKey) -> Result<(), CloudError> {
        let removed = self
            .folder
            .remove(&raw_name(key))
            .and_then(|()| self.folder.remove(&sidecar_name(key)));
        removed.map_err(|error| self.failed((*key).into(), error))
    }

    /// Closing the file unlocks the folder.
    fn lock(&self, subject: impl Into<Subject>) -> Result<File, CloudError> {
        let locked = self.folder.lock();
        locked.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CloudError::Unavailable {
                subject: subject.into(),
                why: format!(
                    "cloud folder {} is gone: create or mount it, then open it again",
                    self.folder.path().display()
                ),
            },
            _ => self.failed(subject.into(), error),
        })
    }

    fn failed(&self, subject: Subject, error: io::Error) -> CloudError {
        let place = self.folder.path().display();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                CloudError::NoSpace { subject }
            }
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::FileTooLarge => CloudError::Denied {
                subject,
                why: format!("cloud folder {place}: {error}"),
            },
            // What was begun may have reached the disk.
            _ => CloudError::Unknown {
                subject,
                why: format!("cloud folder {place}: {error}"),
            },
        }
    }

    fn find_obstacle(&self, spec: &VolumeSpec, max: u64) -> Option<Finding> {
        let found = match self.load(&spec.key) {
            Ok(Some(sidecar)) => sidecar.record.admit_spec(spec),
            Ok(None) => spec.check_length(max),
            Err(error) => Err(error),
        };
        Some(Finding {
            severity: Severity::Blocker,
            what: found.err()?.to_string(),
            remedy: "delete the volume that is in the way, or plan a new generation".into(),
        })
    }
}

impl Provider for LocalCloud {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            max_volume_length: blocks::MAX_LENGTH,
            thin: true,
            attachment: AttachmentKind::Path,
            fencing: Fencing::Recorded,
        }
    }

    fn check(&self, need: &Need) -> Result<Vec<Finding>, CloudError> {
        let place = self.folder.path().display();
        let subject = || Subject::Place(format!("cloud folder {place}"));
        let _held = self.lock(subject())?;
        let max = self.capabilities().max_volume_length;
        let mut findings: Vec<Finding> = need
            .volumes
            .iter()
            .filter_map(|spec| self.find_obstacle(spec, max))
            .collect();
        let free = self
            .folder
            .free()
            .map_err(|error| self.failed(subject(), error))?;
        let wanted = need.total_length();
        if free < wanted.max(MIN_FREE) {
            findings.push(Finding {
                severity: match free < MIN_FREE {
                    true => Severity::Blocker,
                    false => Severity::Warning,
                },
                what: format!("{place} has {free} bytes free, the volumes may need {wanted}"),
                remedy: format!("free some space on the disk of {place}, or use a larger one"),
            });
        }
        Ok(findings)
    }

    fn ensure_volume(&self, spec: &VolumeSpec) -> Result<VolumeRecord, CloudError> {
        let _held = self.lock(spec.key)?;
        spec.check_length(self.capabilities().max_volume_length)?;
        let name = sidecar_name(&spec.key);
        let Some(sidecar) = self.load_named(&name, spec.key.into())? else {
            return self.create(spec);
        };
        let record = sidecar.record;
        if record.key != spec.key {
            return Err(CloudError::NameTaken {
                key: spec.key,
                name,
                by: record.key,
            });
        }
        match sidecar.phase {
            Phase::Ready => {
                record.admit_spec(spec)?;
                self.check_file(&record)?;
                Ok(record)
            }
            Phase::Creating => {
                record.admit_spec(spec)?;
                self.finish_creating(record)
            }
            Phase::Deleting => {
                self.finish_deleting(&spec.key)?;
                self.create(spec)
            }
        }
    }

    fn attach(&self, key: &VolumeKey, to: &AttachTo) -> Result<Attachment, CloudError> {
        let path = self.change(key, |record| record.attach(to))?;
        Ok(Attachment::Path(path))
    }

    fn detach(&self, key: &VolumeKey, epoch: u64) -> Result<(), CloudError> {
        self.change(key, |record| record.detach(epoch)).map(drop)
    }

    fn open_read_only(&self, key: &VolumeKey) -> Result<Attachment, CloudError> {
        let _held = self.lock(*key)?;
        let (_, path) = self.load_ready(key)?;
        Ok(Attachment::Path(path))
    }

    fn tag(&self, key: &VolumeKey, state: &VolumeState) -> Result<(), CloudError> {
        self.change(key, |record| record.tag(state)).map(drop)
    }

    fn owned(&self, migration: &MigrationTag) -> Result<Vec<VolumeRecord>, CloudError> {
        let subject = || Subject::Migration(*migration);
        let _held = self.lock(subject())?;
        let prefix = format!("{}-", migration.short());
        let names = self.folder.names(&prefix, ".json");
        let mut records = Vec::new();
        for name in names.map_err(|error| self.failed(subject(), error))? {
            if checkpoints::is_checkpoint(&name) {
                continue;
            }
            let found = self.load_named(&name, subject())?;
            records.extend(found.map(|sidecar| sidecar.record));
        }
        // Others may share the beginning of the tag.
        records.retain(|record| record.key.migration == *migration);
        records.sort_by_key(|record| record.key);
        Ok(records)
    }

    fn delete(&self, key: &VolumeKey) -> Result<(), CloudError> {
        let _held = self.lock(*key)?;
        let Some(sidecar) = self.load(key)? else {
            return Ok(());
        };
        if sidecar.phase != Phase::Deleting {
            self.save(Phase::Deleting, &sidecar.record)?;
        }
        self.finish_deleting(key)
    }

    fn seal(
        &self,
        key: &CheckpointKey,
        epoch: u64,
        stop: &AtomicBool,
    ) -> Result<CheckpointRecord, CloudError> {
        self.seal_volume(key, epoch, stop)
    }

    fn checkpoints(&self, migration: &MigrationTag) -> Result<Vec<CheckpointRecord>, CloudError> {
        self.list_checkpoints(migration)
    }

    fn open_checkpoint(&self, key: &CheckpointKey) -> Result<Attachment, CloudError> {
        let _held = self.lock(key)?;
        let (_, path) = self.load_sealed(key)?;
        Ok(Attachment::Path(path))
    }

    fn copy_checkpoint(
        &self,
        key: &CheckpointKey,
        stop: &AtomicBool,
    ) -> Result<Attachment, CloudError> {
        self.copy_sealed(key, stop).map(Attachment::Path)
    }

    fn delete_copy(&self, key: &CheckpointKey) -> Result<(), CloudError> {
        self.remove_copy(key)
    }

    fn delete_checkpoint(&self, key: &CheckpointKey) -> Result<(), CloudError> {
        self.remove_checkpoint(key)
    }
}

fn raw_name(key: &VolumeKey) -> String {
    format!("{}.raw", key.short_name())
}

fn sidecar_name(key: &VolumeKey) -> String {
    format!("{}.json", key.short_name())
}

#[cfg(test)]
mod tests;
