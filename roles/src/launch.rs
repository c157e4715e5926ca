//! Whether a copy may be launched: what its agent, its replicator and a witness have
//! signed about it, taken together.
//!
//! Not here: launching it, and reading it back (`provisioner`).

use crate::JobId;
use crdt::plan::MigrationPlan;
use crdt::report::JobRole;
use crdt::reports::Reports;
use keys::proof::{End, Method, RootProof};
use keys::{Authority, Domain, Epoch, NodeId, PublicKey, Signed, VolumeId};
use std::collections::BTreeSet;

/// What a root was stated about a copy, by both of its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Epoch of the copy.
    pub epoch: Epoch,
    /// Bytes covered.
    pub length: u64,
    /// The root.
    pub root: [u8; 32],
}

/// Permission to launch a copy: its agent has cut over to it, and a node other than its
/// replicator has read it back and found the same. Only [`Evidence::permission`] makes
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    job: JobId,
    claim: Claim,
    replicator: NodeId,
    witness: NodeId,
    bytes_left_out: u64,
}

impl Confirmed {
    /// The unit of work.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// What all three state.
    pub fn claim(&self) -> Claim {
        self.claim
    }

    /// Who wrote the copy.
    pub fn replicator(&self) -> NodeId {
        self.replicator
    }

    /// Who read it back.
    pub fn witness(&self) -> NodeId {
        self.witness
    }

    /// How much of the source its agent says it left out: the copy has zeros there.
    pub fn bytes_left_out(&self) -> u64 {
        self.bytes_left_out
    }
}

/// Why a copy may not be launched. A value, not a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unconfirmed {
    /// The agent has not stated a root.
    #[error("not cut over")]
    NotCutOver,
    /// The agent's root is of an epoch that is over.
    #[error(
        "cut over under epoch {stated}, and its agent is at epoch {current}: two agents share a key or a data folder; launch nothing"
    )]
    EpochOver {
        /// Epoch of the stated root.
        stated: Epoch,
        /// Epoch that the agent reports.
        current: Epoch,
    },
    /// The replicator of that epoch has not stated a root, as far as is known here.
    #[error("the replicator's signed root is not known here")]
    NoTarget,
    /// The ends state different roots.
    #[error("source and copy differ: do not launch, and keep both")]
    EndsDiffer,
    /// The node that could read the copy back is the one that wrote it.
    #[error(
        "not confirmed by another node: the replicator is the provisioner too, so that nobody else reads the copy back; compare it by hand with the command that `dunlin verify` prints"
    )]
    NoOtherNode(Claim),
    /// Nobody has read the copy back yet.
    #[error("not confirmed by another node yet: the provisioner has not read the copy back")]
    NotWitnessed(Claim),
    /// The witness states another root.
    #[error("the copy reads back as another than was stated: do not launch, and keep both disks")]
    WitnessDiffers,
}

/// A root with who signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    /// The node, as the plan names it.
    pub node: NodeId,
    /// Its key.
    pub signer: PublicKey,
    /// What it says.
    pub proof: RootProof,
}

/// What is known of the copies of one migration.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// The migration.
    pub plan: &'a MigrationPlan,
    /// The authority of the ledger.
    pub authority: &'a Authority,
    /// The newest report of every node.
    pub reports: &'a Reports,
}

impl Evidence<'_> {
    /// The roots of one volume's copy that count: the signature holds, and the signer
    /// is the node that has that part. The newest epoch comes first, and
    /// within it the newest statement. They are looked for where they are kept: at
    /// those nodes.
    pub fn stated(&self, volume: &VolumeId) -> Vec<Stated> {
        let replicators = self.replicators(volume);
        let mut nodes = replicators.clone();
        nodes.extend([self.plan.source, self.plan.provisioner]);
        let reports = nodes.iter().filter_map(|node| self.reports.get(node));
        let mut stated: Vec<Stated> = reports
            .flat_map(|report| &report.proofs)
            .filter_map(|signed| {
                let signer = signed.signer;
                let proof = opened(signed, |proof| {
                    proof.migration == self.plan.id
                        && proof.volume == *volume
                        && proof.mesh == self.authority.mesh()
                        && self.speaker(&replicators, proof.end, signer).is_some()
                })?;
                let node = self.speaker(&replicators, proof.end, signer)?;
                Some(Stated {
                    node,
                    signer,
                    proof,
                })
            })
            .collect();
        stated.sort_by_key(|stated| std::cmp::Reverse((stated.proof.epoch, stated.proof.at)));
        stated
    }

    /// Who may have written a volume's copy: the pool, and the one that its agent says it
    /// is at, whom the plan may have left out since while the grant still has it.
    pub fn replicators(&self, volume: &VolumeId) -> BTreeSet<NodeId> {
        let chosen = self.current(volume).and_then(|(_, chosen)| chosen);
        self.plan
            .replicators
            .iter()
            .copied()
            .chain(chosen)
            .collect()
    }

    /// Whether a key is that of the source's node, or of one that may have written the
    /// copy of a volume.
    pub fn is_end(&self, volume: &VolumeId, signer: PublicKey) -> bool {
        let replicators = self.replicators(volume);
        [End::Source, End::Target]
            .into_iter()
            .any(|end| self.speaker(&replicators, end, signer).is_some())
    }

    fn speaker(
        &self,
        replicators: &BTreeSet<NodeId>,
        end: End,
        signer: PublicKey,
    ) -> Option<NodeId> {
        let is = |node: &&NodeId| self.authority.is_node(**node, signer);
        match end {
            End::Source => Some(&self.plan.source).filter(is).copied(),
            End::Target => replicators.iter().find(is).copied(),
            End::Witness => Some(&self.plan.provisioner).filter(is).copied(),
        }
    }

    /// The epoch and the replicator that the agent itself reports for a volume.
    pub fn current(&self, volume: &VolumeId) -> Option<(Epoch, Option<NodeId>)> {
        let report = self.reports.get(&self.plan.source)?;
        let mut jobs = report.jobs.iter();
        let job = jobs.find(|job| {
            job.role == JobRole::Agent && job.migration == self.plan.id && job.volume == *volume
        })?;
        Some((job.epoch, job.replicator))
    }

    /// Whether a root is its replicator's of an epoch that the agent went on from: that
    /// copy will never be anybody's disk, whatever was signed about it.
    pub fn is_over(&self, proof: &RootProof) -> bool {
        let current = self.current(&proof.volume);
        proof.end == End::Target && current.is_some_and(|(epoch, _)| proof.epoch < epoch)
    }

    /// Whether the copy of a volume may be launched, or why not.
    pub fn permission(&self, volume: &VolumeId) -> Result<Confirmed, Unconfirmed> {
        let stated = self.stated(volume);
        let current = self.current(volume);
        let by = |end: End| {
            let mut stated = stated.iter();
            stated.find(|stated| stated.proof.end == end)
        };
        let source = by(End::Source).ok_or(Unconfirmed::NotCutOver)?;
        let epoch = source.proof.epoch;
        if let Some((current, _)) = current
            && current > epoch
        {
            let stated = epoch;
            return Err(Unconfirmed::EpochOver { stated, current });
        }
        let of_epoch = |end: End, is: &dyn Fn(&Stated) -> bool| {
            let mut stated = stated.iter();
            stated
                .find(|stated| stated.proof.end == end && stated.proof.epoch == epoch && is(stated))
        };
        let chosen = current.and_then(|(_, replicator)| replicator);
        let wrote = |stated: &Stated| chosen.is_none_or(|chosen| chosen == stated.node);
        let claim = claim_of(source);
        // An attempt that did not come to count may have left another root of the same copy.
        let agrees = |stated: &Stated| wrote(stated) && claim_of(stated) == claim;
        let target = of_epoch(End::Target, &agrees).or_else(|| of_epoch(End::Target, &wrote));
        let target = target.ok_or(Unconfirmed::NoTarget)?;
        if claim_of(target) != claim {
            return Err(Unconfirmed::EndsDiffer);
        }
        if self.plan.provisioner == target.node {
            return Err(Unconfirmed::NoOtherNode(claim));
        }
        let read = |stated: &Stated| {
            stated.signer != target.signer && stated.proof.method == Method::ReadBack
        };
        let witness = of_epoch(End::Witness, &read).ok_or(Unconfirmed::NotWitnessed(claim))?;
        if claim_of(witness) != claim {
            return Err(Unconfirmed::WitnessDiffers);
        }
        Ok(Confirmed {
            job: JobId {
                migration: self.plan.id,
                volume: *volume,
            },
            claim,
            replicator: target.node,
            witness: witness.node,
            bytes_left_out: source.proof.left_out.bytes(),
        })
    }
}

/// A signed root of a copy, and not of a checkpoint, that is `wanted` and whose signature
/// holds.
pub(crate) fn opened(signed: &Signed, wanted: impl Fn(&RootProof) -> bool) -> Option<RootProof> {
    opened_any(signed, |proof| proof.checkpoint.is_none() && wanted(proof))
}

/// A signed root that is `wanted` and whose signature holds, which is looked at last: it
/// is dear, and most are about something else.
pub(crate) fn opened_any(
    signed: &Signed,
    wanted: impl Fn(&RootProof) -> bool,
) -> Option<RootProof> {
    let claimed: RootProof = signed.open_stored().ok()?;
    if !claimed.is_sound() || !wanted(&claimed) {
        return None;
    }
    signed.open(Domain::RootProof).ok()
}

fn claim_of(stated: &Stated) -> Claim {
    Claim {
        epoch: stated.proof.epoch,
        length: stated.proof.length,
        root: stated.proof.root,
    }
}

#[cfg(test)]
mod tests;
