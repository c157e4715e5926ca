//! What a provisioner does about copies that are over, and about those that are cut over:
//! detaching and deleting volumes of older epochs, and reading a copy back as a witness.
//!
//! Not here: when to do which (`roles::provisioner`).

use super::clouds::{path_of, volume_key};
use super::{Engine, Message};
use keys::Epoch;
use keys::proof::{End, Method};
use provider::{CloudError, MigrationTag, Provider, VolumeKey, VolumeTag};
use roles::proof::Subject;
use roles::provisioner::{Input, Reading, Superseded};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use volumes::{RootReader, SourceVolume};

impl Engine {
    pub(super) fn fence(&mut self, old: Superseded) {
        self.call_for_older(old, |provider, old| {
            let keys = older(provider, old)?;
            for key in &keys {
                match provider.detach(key, old.below.0) {
                    // It was never finished, or is gone: nobody holds it.
                    Ok(()) | Err(CloudError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let epochs = keys.iter().map(|key| Epoch(key.generation)).collect();
            Ok(Input::Fenced(old.clone(), epochs))
        });
    }

    pub(super) fn retire(&mut self, old: Superseded) {
        self.call_for_older(old, |provider, old| {
            for key in older(provider, old)? {
                provider.delete(&key)?;
            }
            Ok(Input::Retired(old.clone()))
        });
    }

    fn call_for_older(
        &mut self,
        old: Superseded,
        call: impl FnOnce(&dyn Provider, &Superseded) -> Result<Input, CloudError> + Send + 'static,
    ) {
        let Some(provider) = self.providers.get(&old.provider).cloned() else {
            let why = format!("this node has no `{}` cloud any more", old.provider);
            return self.cloud_answered(Input::SupersededFailed(old, why));
        };
        let why = "the call to the cloud broke off".to_owned();
        let broken = Input::SupersededFailed(old.clone(), why);
        self.call_cloud(broken, move || {
            let called = call(provider.as_ref(), &old);
            called.unwrap_or_else(|error| Input::SupersededFailed(old, error.to_string()))
        });
    }

    /// Has a copy read from end to end, which may take hours.
    pub(super) fn read_back(&mut self, reading: Reading) {
        let Some(provider) = self.providers.get(&reading.provider).cloned() else {
            let why = format!("this node has no `{}` cloud any more", reading.provider);
            return self.cloud_answered(Input::ReadBackFailed(reading, why));
        };
        let (inbox, closing) = (self.inbox.clone(), self.closing.clone());
        tokio::spawn(async move {
            let read = {
                let reading = reading.clone();
                tokio::task::spawn_blocking(move || root_of(provider, &reading, &closing))
            };
            let input = match read.await {
                Ok(Ok(Some(root))) => Input::ReadBack(reading, root),
                // The node is stopping; it begins again when it is started.
                Ok(Ok(None)) => return,
                Ok(Err(why)) => Input::ReadBackFailed(reading, why),
                Err(_) => Input::ReadBackFailed(reading, "the reading broke off".into()),
            };
            // A closed inbox means the node is stopping.
            let _ = inbox.send(Message::Cloud(input)).await;
        });
    }

    /// Signs that a copy was read back, and keeps the proof.
    pub(super) fn witness(&mut self, reading: &Reading) {
        let subject = Subject {
            mesh: self.replica.ledger().mesh(),
            job: reading.job,
            epoch: reading.claim.epoch,
            length: reading.claim.length,
            root: reading.claim.root,
        };
        let at = self.now().wall;
        let proof =
            roles::proof::sign(&self.identity, &subject, End::Witness, Method::ReadBack, at);
        self.keep_proof(proof);
    }
}

/// What there is of a job with a lower epoch.
fn older(provider: &dyn Provider, old: &Superseded) -> Result<Vec<VolumeKey>, CloudError> {
    let owned = provider.owned(&MigrationTag(old.job.migration.0))?;
    let keys = owned.iter().map(|record| record.key);
    let older =
        |key: &VolumeKey| key.volume == VolumeTag(old.job.volume.0) && key.generation < old.below.0;
    Ok(keys.filter(older).collect())
}

/// The root of what the volume holds; none when the node stops before all is read.
fn root_of(
    provider: Arc<dyn Provider>,
    reading: &Reading,
    closing: &AtomicBool,
) -> Result<Option<[u8; 32]>, String> {
    let (job, claim) = (&reading.job, &reading.claim);
    let key = volume_key(&job.migration, &job.volume, claim.epoch.0);
    let opened = provider.open_read_only(&key);
    let path = opened
        .map_err(|error| error.to_string())
        .and_then(path_of)?;
    read_root(Path::new(&path), claim.length, closing)
}

pub(super) fn read_root(
    path: &Path,
    length: u64,
    closing: &AtomicBool,
) -> Result<Option<[u8; 32]>, String> {
    let volume = SourceVolume::open(path).and_then(|volume| volume.narrowed(length));
    let volume = volume.map_err(|error| error.to_string())?;
    volume.drop_cache();
    let mut reader = RootReader::new(&volume);
    while !closing.load(Ordering::Relaxed) {
        let read = reader.step(&volume).map_err(|error| error.to_string())?;
        if let Some(root) = read {
            return Ok(Some(root.0));
        }
    }
    Ok(None)
}
