//! What is known of the checkpoints of a migration, by its plan and what its nodes report.
//!
//! Not here: taking them (`cutover`, `agent`), and keeping them (`provisioner`).

use crate::JobId;
use crate::agent::Record;
use crate::launch::{Evidence, opened_any};
use crate::situation::Situation;
use crdt::plan::Desired;
use crdt::report::{CheckpointState, KeptCheckpoint, ReachedCheckpoint};
use keys::proof::{End, RootProof};
use keys::{CheckpointName, MigrationId, VolumeId};
use std::collections::BTreeSet;

/// A checkpoint of one volume, as its agent came to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached<'a> {
    /// As it is reported.
    pub reached: &'a ReachedCheckpoint,
    /// What its agent signed of it; its `checkpoint` is the name.
    pub proof: RootProof,
}

impl Evidence<'_> {
    /// A checkpoint that the agent of a volume came to, as far as its signature holds; the
    /// newest where there are several of the name.
    pub fn reached_at(&self, volume: &VolumeId, name: &CheckpointName) -> Option<Reached<'_>> {
        let report = self.reports.get(&self.plan.source)?;
        report.reached.iter().rev().find_map(|reached| {
            let signed = &reached.proof;
            let proof = opened_any(signed, |proof| {
                proof.migration == self.plan.id
                    && proof.volume == *volume
                    && proof.mesh == self.authority.mesh()
                    && proof.end == End::Source
                    && proof.checkpoint.as_ref() == Some(name)
                    && self.authority.is_node(self.plan.source, signed.signer)
            })?;
            Some(Reached { reached, proof })
        })
    }

    /// What the provisioner says of a checkpoint of a volume.
    pub fn kept(&self, volume: &VolumeId, name: &CheckpointName) -> Option<&KeptCheckpoint> {
        let report = self.reports.get(&self.plan.provisioner)?;
        report.checkpoints.iter().rev().find(|kept| {
            kept.migration == self.plan.id && kept.volume == *volume && kept.name == *name
        })
    }

    /// Whether a checkpoint is kept of every volume, and was read back as what was stated.
    pub fn is_good(&self, name: &CheckpointName) -> bool {
        let mut volumes = self.plan.volumes.iter();
        volumes.all(|volume| {
            let kept = self.kept(volume, name);
            kept.is_some_and(|kept| matches!(kept.state, CheckpointState::Verified { .. }))
        })
    }

    /// Whether a checkpoint is to be there: it was asked for, and neither deleted nor one too
    /// many.
    pub fn is_wanted(&self, name: &CheckpointName) -> bool {
        let checkpoints = &self.plan.checkpoints;
        let expired = checkpoints.expired(|name| self.is_good(name));
        checkpoints.get(name).is_some() && !expired.contains(name)
    }

    /// The unit of work of a volume.
    pub fn job(&self, volume: VolumeId) -> JobId {
        JobId {
            migration: self.plan.id,
            volume,
        }
    }
}

impl Situation<'_> {
    /// The checkpoint that is to be taken next of a migration whose source is here, by the
    /// records of its disks: the oldest that was asked for, and of which no disk has been.
    pub fn due_checkpoint(
        &self,
        migration: &MigrationId,
        records: &[&Record],
    ) -> Option<CheckpointName> {
        let plan = self.plan.migrations.get(migration)?;
        let goes = matches!(plan.desired, Desired::Started | Desired::Cutover { .. });
        let is_free = |record: &&Record| record.finished.is_none() && record.held().is_none();
        let is_ready = self.is_heard && goes && records.len() == plan.volumes.len();
        if !is_ready || !records.iter().all(is_free) {
            return None;
        }
        let evidence = self.evidence(plan);
        let had = records.iter().flat_map(|record| &record.checkpoints);
        let had: BTreeSet<&CheckpointName> = had.map(|point| &point.name).collect();
        let is_known = |name: &CheckpointName| {
            let mut volumes = plan.volumes.iter();
            had.contains(name)
                // Of an older copy of this node's data, where it is not in the record.
                || volumes.any(|volume| {
                    evidence.kept(volume, name).is_some()
                        || evidence.reached_at(volume, name).is_some()
                })
        };
        let wanted = plan.checkpoints.wanted().into_iter().rev();
        let mut names = wanted.map(|(name, _)| name);
        names
            .find(|name| !is_known(name) && evidence.is_wanted(name))
            .cloned()
    }

    /// Checkpoints of a record that were deleted in the plan.
    pub(crate) fn unwanted_checkpoints(&self, record: &Record) -> Vec<CheckpointName> {
        let Some(plan) = self.migration(&record.job) else {
            return vec![];
        };
        let names = record.checkpoints.iter().map(|point| &point.name);
        names
            .filter(|name| plan.checkpoints.get(name).is_none())
            .cloned()
            .collect()
    }

    /// Whether the copy may be written to though it stands at a checkpoint: it is kept, or
    /// could not be, or is not to be any more, or it is another copy by now.
    pub(crate) fn is_checkpoint_kept(&self, record: &Record) -> bool {
        let Some((held, plan)) = record.held().zip(self.migration(&record.job)) else {
            return false;
        };
        let evidence = self.evidence(plan);
        let kept = evidence.kept(&record.job.volume, &held.name);
        let is_kept = kept.is_some_and(|kept| {
            kept.epoch == held.epoch && !matches!(kept.state, CheckpointState::Sealing)
        });
        is_kept || held.epoch != record.epoch || !evidence.is_wanted(&held.name)
    }
}
