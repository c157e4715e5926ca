//! The provisioner's side of the engine: calls to clouds on threads that may wait,
//! and their results as messages.

use super::events::{FOUND_AGAIN, is_found_again};
use super::{Engine, Message};
use keys::proof::RootProof;
use keys::{Domain, MigrationId, Signed};
use provider::{
    AttachTo, Attachment, CloudError, HolderId, MigrationTag, Provider, VolumeKey, VolumeSpec,
    VolumeState, VolumeTag,
};
use roles::Note;
use roles::launch::Evidence;
use roles::provisioner::{Action, COPY_MISSED, Input, Wanted};
use std::sync::Arc;

impl Engine {
    pub(super) fn carry_provisioner(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ensure(wanted) => self.ensure(wanted),
                Action::Look(wanted) => self.look_at_copy(wanted),
                Action::Remove(migration) => self.remove(migration),
                Action::Fence(old) => self.fence(old),
                Action::Retire(old) => self.retire(old),
                Action::ReadBack(reading) => self.read_back(reading),
                Action::Witness(reading) => self.witness(&reading),
                Action::ListCheckpoints(migration, provider) => {
                    self.list_checkpoints(migration, provider);
                }
                Action::Checkpoint(id, call) => self.call_for_checkpoint(id, call),
                Action::Tell(migration, note) => match note.kind {
                    // What it finds again after each start; a failure is always news.
                    "volumes-kept" | "removal-waits" | COPY_MISSED => {
                        self.tell_once(migration, note);
                    }
                    kind => {
                        if kind == FOUND_AGAIN {
                            is_found_again(&mut self.told_before, migration);
                        }
                        self.tell(migration, note);
                    }
                },
            }
        }
    }

    fn ensure(&mut self, wanted: Wanted) {
        let Some(provider) = self.providers.get(&wanted.provider).cloned() else {
            let why = format!(
                "this node has no `{}` cloud; name another provisioner, or configure it here",
                wanted.provider
            );
            self.cloud_answered(Input::Failed { wanted, why });
            return;
        };
        let broken = Input::Failed {
            wanted: wanted.clone(),
            why: "the call to the cloud broke off".into(),
        };
        self.call_cloud(broken, move || match attach(provider.as_ref(), &wanted) {
            Ok(path) => Input::Ensured { wanted, path },
            Err(why) => Input::Failed { wanted, why },
        });
    }

    fn look_at_copy(&mut self, wanted: Wanted) {
        let Some(provider) = self.providers.get(&wanted.provider).cloned() else {
            let seen = Err(format!("this node has no `{}` cloud", wanted.provider));
            return self.cloud_answered(Input::Looked { wanted, seen });
        };
        let broken = Input::Looked {
            wanted: wanted.clone(),
            seen: Err("the call to the cloud broke off".into()),
        };
        self.call_cloud(broken, move || {
            let key = volume_key(&wanted.job.migration, &wanted.job.volume, wanted.epoch.0);
            let seen = provider.open_read_only(&key);
            let seen = seen.map_err(|error| error.to_string()).and_then(path_of);
            Input::Looked { wanted, seen }
        });
    }

    /// Keeps the signed roots of volumes that this node provisioned: that they were cut
    /// over must be known even when the nodes that said so have left the mesh.
    pub(super) fn keep_provisioned_proofs(&mut self) {
        let Some(me) = self.replica.me() else { return };
        if self.providers.is_empty() {
            return;
        }
        let reported = self.replica.reports().iter();
        let fresh: Vec<Signed> = reported
            .flat_map(|(_, report)| &report.proofs)
            .filter(|signed| !self.proofs.contains(signed))
            .filter(|signed| {
                let proof = signed.open::<RootProof>(Domain::RootProof);
                proof.is_ok_and(|proof| {
                    let evidence = self.evidence(&proof.migration);
                    evidence.is_some_and(|evidence| {
                        proof.checkpoint.is_none()
                            && evidence.plan.provisioner == me
                            && evidence.is_end(&proof.volume, signed.signer)
                    })
                })
            })
            .cloned()
            .collect();
        for signed in fresh {
            self.keep_proof(signed);
        }
    }

    pub(super) fn evidence(&self, migration: &MigrationId) -> Option<Evidence<'_>> {
        Some(Evidence {
            plan: self.replica.document().plan().migrations.get(migration)?,
            authority: self.replica.authority(),
            reports: self.replica.reports(),
        })
    }

    /// Whether either end has ever stated a root of this migration. Then its volumes may
    /// be a server's disks, and are not this program's to remove. What a replicator
    /// stated of an epoch that its agent went on from counts for nothing.
    fn stated(&self, migration: &MigrationId) -> bool {
        let Some(evidence) = self.evidence(migration) else {
            return true;
        };
        self.proofs.iter().any(|signed| {
            let proof = signed.open::<RootProof>(Domain::RootProof);
            proof.is_ok_and(|proof| {
                proof.migration == *migration
                    && proof.checkpoint.is_none()
                    && !evidence.is_over(&proof)
                    && evidence.is_end(&proof.volume, signed.signer)
            })
        })
    }

    fn remove(&mut self, migration: MigrationId) {
        self.keep_provisioned_proofs();
        if self.stated(&migration) {
            let text = "the volumes are kept: they may have been cut over, and be in use; remove them by hand if they are not";
            self.tell_once(Some(migration), Note::warn("volumes-kept", text));
            return self.cloud_answered(Input::Kept(migration));
        }
        let providers: Vec<Arc<dyn Provider>> = self.providers.values().cloned().collect();
        let broken = Input::RemoveFailed(migration, "the call to the cloud broke off".into());
        self.call_cloud(broken, move || {
            let tag = MigrationTag(migration.0);
            for provider in providers {
                let removed = remove_all(provider.as_ref(), &tag);
                if let Err(error) = removed {
                    return Input::RemoveFailed(migration, error.to_string());
                }
            }
            Input::Removed(migration)
        });
    }

    pub(super) fn call_cloud(&self, broken: Input, call: impl FnOnce() -> Input + Send + 'static) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let called = tokio::task::spawn_blocking(call).await;
            let input = called.unwrap_or(broken);
            // A closed inbox means the node is stopping.
            let _ = inbox.send(Message::Cloud(input)).await;
        });
    }

    pub(super) fn cloud_answered(&mut self, input: Input) {
        let now = self.now();
        let mut actions = vec![];
        self.provisioner.step(now, input, &mut actions);
        self.carry_provisioner(actions);
        self.report.soon();
        self.settle();
    }

    /// Writes the last durable barrier, and its root once it is known, as the
    /// replicator reports them, on the volumes themselves.
    pub(super) fn tag_volumes(&mut self) {
        let mut calls = vec![];
        for target in self.provisioner.targets() {
            let plan = self.replica.document().plan();
            let plan = plan.migrations.get(&target.migration);
            let provider = plan.and_then(|plan| self.providers.get(&plan.provider));
            let report = self.replica.reports().get(&target.replicator);
            let job = report.and_then(|report| {
                report.jobs.iter().find(|job| {
                    job.role == crdt::JobRole::Replicator
                        && job.migration == target.migration
                        && job.volume == target.volume
                        && job.epoch == target.epoch
                })
            });
            let (Some(provider), Some(job)) = (provider, job) else {
                continue;
            };
            if job.barrier == 0 {
                continue;
            }
            let key = volume_key(&target.migration, &target.volume, target.epoch.0);
            let state = VolumeState {
                epoch: target.epoch.0,
                barrier: job.barrier,
                root: job.root.map(blocks::Root),
            };
            if self.tagged.get(&key) != Some(&state) {
                self.tagged.insert(key, state);
                calls.push((provider.clone(), key, state));
            }
        }
        for (provider, key, state) in calls {
            tokio::task::spawn_blocking(move || {
                if let Err(error) = provider.tag(&key, &state) {
                    tracing::warn!("the volume's tag was not written: {error}");
                }
            });
        }
    }
}

/// Removes the checkpoints and the volumes of a migration.
fn remove_all(provider: &dyn Provider, tag: &MigrationTag) -> Result<(), CloudError> {
    for record in provider.checkpoints(tag)? {
        provider.delete_copy(&record.key)?;
        provider.delete_checkpoint(&record.key)?;
    }
    let owned = provider.owned(tag)?;
    let mut keys = owned.iter().map(|record| record.key);
    keys.try_for_each(|key| provider.delete(&key))
}

pub(super) fn volume_key(
    migration: &MigrationId,
    volume: &keys::VolumeId,
    epoch: u64,
) -> VolumeKey {
    VolumeKey {
        migration: MigrationTag(migration.0),
        volume: VolumeTag(volume.0),
        generation: epoch,
    }
}

/// Makes the volume and attaches it: the path at which the replicator finds it.
fn attach(provider: &dyn Provider, wanted: &Wanted) -> Result<String, String> {
    let key = volume_key(&wanted.job.migration, &wanted.job.volume, wanted.epoch.0);
    let spec = VolumeSpec {
        key,
        length: wanted.length,
    };
    let to = AttachTo {
        holder: HolderId(wanted.replicator.0),
        epoch: wanted.epoch.0,
    };
    let attached = provider
        .ensure_volume(&spec)
        .and_then(|_| provider.attach(&key, &to));
    attached
        .map_err(|error| error.to_string())
        .and_then(path_of)
}

pub(super) fn path_of(attachment: Attachment) -> Result<String, String> {
    match attachment {
        Attachment::Path(path) => Ok(path.display().to_string()),
        Attachment::Memory(key) => Err(format!("volume {key} has no path on this machine")),
        Attachment::MemoryCheckpoint(key) | Attachment::MemoryCopy(key) => {
            Err(format!("checkpoint {key} has no path on this machine"))
        }
    }
}
