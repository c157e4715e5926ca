//! What a provisioner does about checkpoints: the calls to the cloud, and what this node
//! reports of them.
//!
//! Not here: when to make which (`roles::provisioner`).

use super::clouds::{path_of, volume_key};
use super::superseded::read_root;
use super::{Engine, Message};
use crdt::report::KeptCheckpoint;
use keys::{CheckpointName, Epoch, MigrationId, VolumeId};
use provider::{CheckpointKey, CheckpointRecord, CloudError, MigrationTag, Provider};
use roles::JobId;
use roles::provisioner::{Answer, Call, CheckpointId, Input, Listed};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

impl Engine {
    pub(super) fn kept_checkpoints(&self) -> Vec<KeptCheckpoint> {
        let situation = self.situation();
        situation.map_or_else(Vec::new, |situation| {
            self.provisioner.checkpoints(&situation)
        })
    }

    pub(super) fn list_checkpoints(&mut self, migration: MigrationId, kind: String) {
        let Some(provider) = self.providers.get(&kind).cloned() else {
            let why = format!("this node has no `{kind}` cloud");
            return self.cloud_answered(Input::CheckpointsListed(migration, Err(why)));
        };
        let why = "the call to the cloud broke off".to_owned();
        let broken = Input::CheckpointsListed(migration, Err(why));
        self.call_cloud(broken, move || {
            let records = provider.checkpoints(&MigrationTag(migration.0));
            let known = records.map_err(|error| error.to_string()).map(|records| {
                let known = |record| listed(&migration, &kind, record);
                records.iter().filter_map(known).collect()
            });
            Input::CheckpointsListed(migration, known)
        });
    }

    /// Makes a call that may take hours. What the end of this node breaks off is begun anew
    /// when it is started.
    pub(super) fn call_for_checkpoint(&mut self, id: CheckpointId, call: Call) {
        let provider = self.providers.get(&id.provider).cloned();
        let key = key_of(&id);
        let (Some(provider), Ok(key)) = (provider, key) else {
            let why = format!("this node has no `{}` cloud for it", id.provider);
            let answer = Answer::Failed {
                why,
                is_transient: false,
            };
            return self.cloud_answered(Input::Checkpoint(id, answer));
        };
        let (inbox, closing) = (self.inbox.clone(), self.closing.clone());
        tokio::spawn(async move {
            let called = tokio::task::spawn_blocking(move || {
                let answer = carry_out(provider.as_ref(), &key, call, &closing);
                (!closing.load(Ordering::Relaxed)).then_some(answer)
            });
            let answer = match called.await {
                Ok(Some(answer)) => answer,
                Ok(None) => return,
                Err(_) => Answer::Failed {
                    why: "the call to the cloud broke off".into(),
                    is_transient: true,
                },
            };
            // A closed inbox means the node is stopping.
            let _ = inbox
                .send(Message::Cloud(Input::Checkpoint(id, answer)))
                .await;
        });
    }
}

fn carry_out(
    provider: &dyn Provider,
    key: &CheckpointKey,
    call: Call,
    closing: &AtomicBool,
) -> Answer {
    let answer = match call {
        Call::Seal => provider
            .seal(key, key.volume.generation, closing)
            .and_then(|_| provider.open_checkpoint(key))
            .map(|sealed| path_of(sealed).map(Answer::Sealed)),
        Call::ReadBack(claim) => provider.open_checkpoint(key).map(|sealed| {
            let read = read_root(Path::new(&path_of(sealed)?), claim.length, closing)?;
            let root = read.ok_or_else(|| "the node is stopping".to_owned())?;
            Ok(Answer::ReadBack(root))
        }),
        Call::Copy => provider
            .copy_checkpoint(key, closing)
            .map(|copy| path_of(copy).map(Answer::Copied)),
        Call::DeleteCopy => provider.delete_copy(key).map(|()| Ok(Answer::CopyDeleted)),
        Call::Delete => provider
            .delete_checkpoint(key)
            .map(|()| Ok(Answer::Deleted)),
    };
    match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => Answer::Failed {
            why,
            is_transient: false,
        },
        Err(error) => failed(&error),
    }
}

fn failed(error: &CloudError) -> Answer {
    Answer::Failed {
        why: error.to_string(),
        is_transient: error.is_transient(),
    }
}

fn key_of(id: &CheckpointId) -> Result<CheckpointKey, provider::BadCheckpointTag> {
    Ok(CheckpointKey {
        volume: volume_key(&id.job.migration, &id.job.volume, id.epoch.0),
        name: id.name.as_str().parse()?,
    })
}

/// A checkpoint of the cloud in the words of the mesh; none where its name is not one of
/// ours.
fn listed(migration: &MigrationId, kind: &str, record: &CheckpointRecord) -> Option<Listed> {
    let volume = record.key.volume;
    let id = CheckpointId {
        job: JobId {
            migration: *migration,
            volume: VolumeId(volume.volume.0),
        },
        name: CheckpointName::new(&record.key.name.to_string()).ok()?,
        provider: kind.to_owned(),
        epoch: Epoch(volume.generation),
    };
    Some(Listed {
        id,
        is_sealed: record.sealed,
        has_copy: record.has_copy,
    })
}
