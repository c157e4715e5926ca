//! The provisioner's work: have a target volume for each job, attached to the
//! replicator that the agent chose; take the volumes of older epochs from theirs
//! (`superseded`); read back what was cut over (`witness`), and look whether it is still
//! there (`looking`); keep checkpoints (`checkpoints`); and remove what a deleted migration
//! left.
//!
//! Not here: the calls to the cloud (`provider` and its implementations), which the
//! shell makes and reports back.

mod checkpoints;
mod looking;
mod superseded;
mod witness;

pub use checkpoints::{Answer, Call, CheckpointId, Listed};
pub use looking::{COPY_MISSED, LOOK_MILLIS};
pub use superseded::Superseded;
pub use witness::{READ_BACK_FAILED, READ_RETRY_MILLIS, Reading};

use crate::hooks::{Gate, Hooks};
use crate::note::Note;
use crate::situation::{Situation, Word};
use crate::{JobId, Now};
use crdt::plan::{Desired, Point, Side};
use crdt::report::{TargetState, TargetVolume};
use keys::{CheckpointName, Epoch, MigrationId, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Wait before a call that failed is made again.
pub const RETRY_MILLIS: u64 = 5_000;

/// A target volume that should exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// For which job.
    pub job: JobId,
    /// In which kind of cloud.
    pub provider: String,
    /// Under which epoch.
    pub epoch: Epoch,
    /// For which replicator.
    pub replicator: NodeId,
    /// Bytes of the source, and so at least of the target.
    pub length: u64,
}

/// What the machine is told.
#[derive(Debug)]
pub enum Input {
    /// A volume exists and is attached.
    Ensured {
        /// What was wanted.
        wanted: Wanted,
        /// Where the replicator finds it.
        path: String,
    },
    /// A volume could not be made or attached.
    Failed {
        /// What was wanted.
        wanted: Wanted,
        /// Why, and what to do.
        why: String,
    },
    /// A copy that was cut over was looked at: where it is, or what is wrong with it.
    Looked {
        /// What was wanted.
        wanted: Wanted,
        /// What was seen.
        seen: Result<String, String>,
    },
    /// Everything of a migration was removed.
    Removed(MigrationId),
    /// The volumes of a migration stay: they may be in use.
    Kept(MigrationId),
    /// Something of a migration could not be removed.
    RemoveFailed(MigrationId, String),
    /// The volumes of older epochs are attached to nobody; those that there are.
    Fenced(Superseded, Vec<Epoch>),
    /// The volumes of older epochs are gone.
    Retired(Superseded),
    /// Something of the older epochs could not be detached or deleted.
    SupersededFailed(Superseded, String),
    /// A copy was read back, and has this root.
    ReadBack(Reading, [u8; 32]),
    /// A copy could not be read back.
    ReadBackFailed(Reading, String),
    /// What the cloud has of the checkpoints of a migration, or why that is not known.
    CheckpointsListed(MigrationId, Result<Vec<Listed>, String>),
    /// What came of a call about a checkpoint.
    Checkpoint(CheckpointId, Answer),
}

/// What the shell is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the volume and attach it; both calls are idempotent.
    Ensure(Wanted),
    /// Look whether the volume is there and has its length, and change nothing.
    Look(Wanted),
    /// Remove every volume of a migration.
    Remove(MigrationId),
    /// Take every volume of an older epoch from whoever holds it.
    Fence(Superseded),
    /// Delete every volume of an older epoch.
    Retire(Superseded),
    /// Read a copy back from its volume from end to end.
    ReadBack(Reading),
    /// Sign, as a witness, that a copy was read back and has the root of the reading.
    Witness(Reading),
    /// List what a cloud of this kind has of the checkpoints of a migration.
    ListCheckpoints(MigrationId, String),
    /// Make a call about a checkpoint.
    Checkpoint(CheckpointId, Call),
    /// Tell people.
    Tell(Option<MigrationId>, Note),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Calling,
    /// `look_millis`: when it is looked at again, once it is cut over.
    Ready {
        path: String,
        look_millis: u64,
    },
    Failed {
        why: String,
        retry_millis: u64,
    },
}

/// The machine of one provisioner. Holds nothing that must survive: the cloud does.
#[derive(Debug, Default)]
pub struct Provisioner {
    targets: BTreeMap<JobId, (Wanted, State)>,
    /// Volumes that are being made, of whatever epoch: their calls have not returned.
    making: Vec<Wanted>,
    superseded: BTreeMap<JobId, superseded::Progress>,
    readings: BTreeMap<JobId, witness::Progress>,
    /// Looks at copies that have not returned, of whatever epoch.
    looks: BTreeMap<JobId, Wanted>,
    listings: BTreeMap<MigrationId, checkpoints::Listing>,
    checkpoints: BTreeMap<(JobId, CheckpointName), checkpoints::Progress>,
    /// Checkpoints that others have taken the place of.
    stale: Vec<checkpoints::Progress>,
    removals: BTreeMap<MigrationId, Option<u64>>,
    removed: BTreeSet<MigrationId>,
    /// Deleted migrations whose hooks are to be run before anything is removed.
    waiting: BTreeSet<MigrationId>,
    /// Deleted migrations whose agents have not let go, and people were told.
    awaited: BTreeSet<MigrationId>,
}

impl Provisioner {
    /// Brings what exists in line with the plan; call when anything changed and on a tick.
    pub fn settle(&mut self, situation: &Situation<'_>, hooks: &Hooks, out: &mut Vec<Action>) {
        if situation.authority.is_cloned(&situation.my_key) {
            // Two of it would make, and remove, behind each other's back.
            return;
        }
        let now = situation.now.mono_millis;
        for wanted in situation.wanted_targets() {
            if self.removed.contains(&wanted.job.migration) {
                continue;
            }
            self.settle_superseded(situation, &wanted, out);
            self.settle_witness(situation, &wanted, out);
            let deleted = situation
                .migration(&wanted.job)
                .is_none_or(|plan| plan.desired == Desired::Deleted);
            if deleted {
                continue;
            }
            // Where one end alone has stated its root too: nobody writes to it any more.
            let is_stated = situation.source_stated(&wanted.job) == Some(wanted.epoch);
            if is_stated || self.is_cut_over(&wanted) {
                self.settle_look(situation.now, &wanted, out);
                continue;
            }
            let due = match self.targets.get(&wanted.job) {
                None => true,
                Some((had, _)) if *had != wanted => true,
                Some((_, State::Failed { retry_millis, .. })) => now >= *retry_millis,
                Some(_) => false,
            };
            if due {
                self.targets
                    .insert(wanted.job, (wanted.clone(), State::Calling));
                self.making.push(wanted.clone());
                out.push(Action::Ensure(wanted));
            }
        }
        for plan in situation.plan.migrations.values() {
            self.settle_checkpoints(situation, plan, out);
        }
        self.settle_stale(situation.now, out);
        self.remove_deleted(situation, hooks, out);
    }

    /// Migrations whose hooks before the cleanup it waits for.
    pub fn waits_for_hooks(&self) -> impl Iterator<Item = MigrationId> {
        self.waiting.iter().copied()
    }

    fn remove_deleted(&mut self, situation: &Situation<'_>, hooks: &Hooks, out: &mut Vec<Action>) {
        self.waiting.clear();
        let now = situation.now.mono_millis;
        for plan in situation.plan.migrations.values() {
            let mine = plan.provisioner == situation.me && plan.desired == Desired::Deleted;
            if !mine || self.removed.contains(&plan.id) {
                continue;
            }
            let mut making = self.making.iter();
            let is_made = making.any(|wanted| wanted.job.migration == plan.id);
            if is_made || self.calls_for_checkpoints(&plan.id) {
                // What is being made would be left behind.
                continue;
            }
            if situation.cut_over(&plan.id) {
                if self.leaves_superseded(&plan.id) {
                    continue;
                }
                self.let_go(plan.id);
                let text = "the migration was cut over before it was deleted: its volumes are kept";
                out.push(Action::Tell(
                    Some(plan.id),
                    Note::info("volumes-kept", text),
                ));
                continue;
            }
            match situation.agent_word(plan) {
                Word::LetGo => {}
                Word::HoldsOn => {
                    if self.awaited.insert(plan.id) {
                        let text = "the volumes of the deleted migration are removed once its agent has let go of them; if it is gone for good, revoke its node, and remove them by hand";
                        let note = Note::info("removal-waits", text);
                        out.push(Action::Tell(Some(plan.id), note));
                    }
                    continue;
                }
                Word::Gone => {
                    self.let_go(plan.id);
                    let text = "the volumes of the deleted migration are kept: its agent left the mesh and cannot say whether it cut over; remove them by hand if they are not in use";
                    let note = Note::warn("volumes-kept", text);
                    out.push(Action::Tell(Some(plan.id), note));
                    continue;
                }
            }
            let due = match self.removals.get(&plan.id) {
                None => true,
                Some(None) => false,
                Some(Some(retry_millis)) => now >= *retry_millis,
            };
            let gate = hooks.gate(plan, Side::Provisioner, Point::BeforeCleanup);
            if due && gate != Gate::Open {
                self.waiting.insert(plan.id);
            } else if due {
                self.removals.insert(plan.id, None);
                out.push(Action::Remove(plan.id));
            }
        }
    }

    /// Takes the result of a call.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Action>) {
        match input {
            Input::Ensured { wanted, path } => {
                self.made(&wanted);
                if let Some(state) = self.current(&wanted) {
                    let text = format!("volume for {} is ready at {path}", wanted.job);
                    *state = State::Ready {
                        path,
                        look_millis: now.mono_millis + LOOK_MILLIS,
                    };
                    let note = Note::info("target-ready", text);
                    out.push(Action::Tell(Some(wanted.job.migration), note));
                }
            }
            Input::Failed { wanted, why } => {
                self.made(&wanted);
                if let Some(state) = self.current(&wanted) {
                    let note = Note::error("target-failed", why.clone());
                    *state = State::Failed {
                        why,
                        retry_millis: now.mono_millis + RETRY_MILLIS,
                    };
                    out.push(Action::Tell(Some(wanted.job.migration), note));
                }
            }
            Input::Looked { wanted, seen } => self.looked(now, &wanted, seen, out),
            Input::Removed(migration) => {
                self.let_go(migration);
                let note = Note::info("volumes-removed", "the target volumes were removed");
                out.push(Action::Tell(Some(migration), note));
            }
            Input::Kept(migration) => self.let_go(migration),
            Input::RemoveFailed(migration, why) => {
                self.removals
                    .insert(migration, Some(now.mono_millis + RETRY_MILLIS));
                out.push(Action::Tell(
                    Some(migration),
                    Note::error("remove-failed", why),
                ));
            }
            Input::Fenced(old, kept) => self.fenced(&old, &kept, out),
            Input::Retired(old) => self.retired(&old, out),
            Input::SupersededFailed(old, why) => self.superseded_failed(now, &old, why, out),
            Input::ReadBack(reading, root) => self.was_read_back(reading, root, out),
            Input::ReadBackFailed(reading, why) => self.read_back_failed(now, &reading, why, out),
            Input::CheckpointsListed(migration, listed) => {
                self.checkpoints_listed(now, migration, listed, out);
            }
            Input::Checkpoint(id, answer) => self.checkpoint_answered(now, &id, answer, out),
        }
    }

    fn made(&mut self, wanted: &Wanted) {
        if let Some(at) = self.making.iter().position(|making| making == wanted) {
            self.making.swap_remove(at);
        }
    }

    fn let_go(&mut self, migration: MigrationId) {
        self.removals.remove(&migration);
        self.removed.insert(migration);
        self.targets.retain(|job, _| job.migration != migration);
        self.superseded.retain(|job, _| job.migration != migration);
        self.readings.retain(|job, _| job.migration != migration);
        self.let_go_of_checkpoints(&migration);
    }

    fn current(&mut self, wanted: &Wanted) -> Option<&mut State> {
        self.targets
            .get_mut(&wanted.job)
            .filter(|(had, _)| had == wanted)
            .map(|(_, state)| state)
    }

    /// The volumes as this node reports them.
    pub fn targets(&self) -> Vec<TargetVolume> {
        let reported = |(wanted, state): &(Wanted, State)| {
            let (path, state) = match state {
                State::Calling => return None,
                State::Ready { path, .. } => (path.clone(), TargetState::Ready),
                State::Failed { why, .. } => (String::new(), TargetState::Failed(why.clone())),
            };
            Some(TargetVolume {
                migration: wanted.job.migration,
                volume: wanted.job.volume,
                epoch: wanted.epoch,
                replicator: wanted.replicator,
                path,
                length: wanted.length,
                state,
            })
        };
        self.targets.values().filter_map(reported).collect()
    }
}

#[cfg(test)]
mod tests;
