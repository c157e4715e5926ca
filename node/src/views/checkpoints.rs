//! Views of checkpoints: the plan beside what agent and provisioner report.

use super::State;
use crate::api::model::{CheckpointView, CheckpointVolume};
use crdt::{CheckpointState, MigrationPlan, WritableCopy};
use keys::{CheckpointName, VolumeId};
use roles::launch::{Evidence, Stated};

/// How far a checkpoint of a volume can be, the least first.
const STATES: [&str; 6] = [
    "failed", "asked", "reached", "sealing", "sealed", "verified",
];

impl State<'_> {
    /// Checkpoints that are wanted, the newest first.
    pub(super) fn checkpoints(&self, plan: &MigrationPlan) -> Vec<CheckpointView> {
        let evidence = self.evidence(plan);
        let wanted = plan.checkpoints.wanted().into_iter();
        wanted
            .map(|(name, checkpoint)| {
                let volumes = plan.volumes.iter();
                let volumes: Vec<CheckpointVolume> = volumes
                    .map(|volume| self.checkpoint_volume(plan, &evidence, name, volume))
                    .collect();
                let mut reached = plan.volumes.iter();
                let reached = reached.find_map(|volume| evidence.reached_at(volume, name));
                let states = volumes.iter().map(|volume| volume.state.as_str());
                let at = |state: &str| STATES.iter().position(|known| *known == state);
                let least = states.min_by_key(|state| at(state));
                CheckpointView {
                    name: name.to_string(),
                    asked_at: checkpoint.asked_at.to_string(),
                    wanted: checkpoint.wish.to_string(),
                    state: least.unwrap_or("asked").to_owned(),
                    frozen_millis: reached.and_then(|reached| reached.reached.frozen_millis),
                    volumes,
                }
            })
            .collect()
    }

    fn checkpoint_volume(
        &self,
        plan: &MigrationPlan,
        evidence: &Evidence<'_>,
        name: &CheckpointName,
        volume: &VolumeId,
    ) -> CheckpointVolume {
        let kept = evidence.kept(volume, name);
        let reached = evidence.reached_at(volume, name);
        let path = kept.map(|kept| kept.path.clone());
        let path = path.filter(|path| !path.is_empty());
        let (state, detail) = match kept.map(|kept| &kept.state) {
            Some(CheckpointState::Sealing) => ("sealing", None),
            Some(CheckpointState::Sealed) => ("sealed", None),
            Some(CheckpointState::Verified { .. }) => ("verified", None),
            Some(CheckpointState::Failed(why)) => ("failed", Some(why.clone())),
            None if reached.is_some() => ("reached", None),
            None => ("asked", None),
        };
        let (copy, copy_detail) = match kept.and_then(|kept| kept.copy.clone()) {
            Some(WritableCopy::Ready { path }) => (Some(path), None),
            Some(WritableCopy::Failed(why)) => (None, Some(why)),
            Some(WritableCopy::Making) => (None, Some("is being made".to_owned())),
            None => (None, None),
        };
        CheckpointVolume {
            volume: volume.to_string(),
            name: self.disk_name(plan, volume),
            state: state.to_owned(),
            detail,
            proof: reached.map(|reached| {
                let stated = Stated {
                    node: plan.source,
                    signer: reached.reached.proof.signer,
                    proof: reached.proof,
                };
                let place = path.clone().unwrap_or_else(|| "CHECKPOINT".to_owned());
                self.proof(&stated, Some(place), false)
            }),
            path,
            copy,
            copy_detail,
        }
    }
}
