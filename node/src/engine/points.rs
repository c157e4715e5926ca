//! Checkpoints of the servers whose agent runs here: which is due, what a disk has at it, and
//! the write by which all disks of a server stand at it together.
//!
//! Not here: when it is taken (`roles::cutover`), and keeping it (`clouds`).

use super::Engine;
use crdt::report::ReachedCheckpoint;
use keys::proof::{End, RootProof};
use keys::{CheckpointName, MigrationId};
use roles::JobId;
use roles::agent::{CheckpointPoint, Record};
use roles::proof::Subject;

impl Engine {
    /// The checkpoint of a migration that is to be taken now.
    pub(super) fn due_checkpoint(&self, id: &MigrationId) -> Option<CheckpointName> {
        let plan = self.replica.document().plan().migrations.get(id)?;
        if plan.checkpoints.named.is_empty() {
            return None;
        }
        let slots = self.agents.iter().filter(|(job, _)| job.migration == *id);
        let records: Vec<&Record> = slots.map(|(_, slot)| slot.machine.record()).collect();
        self.situation()?.due_checkpoint(id, &records)
    }

    /// What a disk has at the checkpoint whose root was asked for; none where it is not wanted
    /// any more.
    pub(super) fn point(&self, job: JobId, root: [u8; 32]) -> Option<CheckpointPoint> {
        let slot = self.agents.get(&job)?;
        let name = slot.machine.rooting()?.clone();
        let subject = Subject {
            mesh: self.replica.ledger().mesh(),
            job,
            epoch: slot.machine.record().epoch,
            length: slot.session_length()?,
            root,
        };
        let (method, at) = (slot.method(), self.now().wall);
        let source = (End::Source, slot.machine.record().left_out().ok()?);
        let named = Some(name.clone());
        let proof = roles::proof::sign_for(&self.identity, &subject, source, method, at, named);
        Some(CheckpointPoint {
            name,
            epoch: subject.epoch,
            proof,
            frozen_millis: None,
            is_held: false,
        })
    }

    pub(super) fn stand_at_checkpoint(&mut self, id: MigrationId, frozen_millis: Option<u64>) {
        self.store_together(id, |machine, out| machine.stand(frozen_millis, out));
    }

    /// The checkpoints that this node's disks came to, the oldest first.
    pub(super) fn reached_checkpoints(&self) -> Vec<ReachedCheckpoint> {
        let records = self.agents.values().map(|slot| slot.machine.record());
        let points = records.flat_map(|record| &record.checkpoints);
        let mut reached: Vec<ReachedCheckpoint> = points.map(CheckpointPoint::reported).collect();
        reached.sort_by_cached_key(|reached| {
            let proof = reached.proof.open_stored::<RootProof>();
            (reached.is_held, proof.ok().map(|proof| proof.at))
        });
        reached
    }
}
