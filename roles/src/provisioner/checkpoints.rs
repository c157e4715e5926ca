//! Keeping checkpoints: sealing the volume where its agent holds still, reading back what
//! was sealed, deleting what is not wanted any more, and copies that can be written to.
//!
//! What is remembered is what the cloud has, which it is asked for first, and what this node
//! reported. So a checkpoint outlives a restart, and the epoch that it was made in.
//!
//! Not here: which points there are (`checkpoint`, `agent`), and the calls themselves.

use super::{Action, Provisioner, READ_RETRY_MILLIS, RETRY_MILLIS, State};
use crate::launch::{Claim, Evidence};
use crate::note::Note;
use crate::situation::Situation;
use crate::{JobId, Now};
use crdt::plan::{Desired, MigrationPlan, Wish};
use crdt::report::{CheckpointState, KeptCheckpoint, WritableCopy};
use keys::{CheckpointName, Epoch, MigrationId};

/// A checkpoint of one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointId {
    /// Of which job.
    pub job: JobId,
    /// Its name.
    pub name: CheckpointName,
    /// In which kind of cloud.
    pub provider: String,
    /// Epoch of the copy of which it is.
    pub epoch: Epoch,
}

/// What the cloud is asked about a checkpoint. All of it may be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Keep what the volume holds.
    Seal,
    /// Read it from end to end; it should be what was stated.
    ReadBack(Claim),
    /// Make a copy of it that can be written to.
    Copy,
    /// Delete that copy.
    DeleteCopy,
    /// Delete the checkpoint.
    Delete,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is sealed, and where.
    Sealed(String),
    /// It was read back, and has this root.
    ReadBack([u8; 32]),
    /// There is a copy, and where.
    Copied(String),
    /// There is no copy any more.
    CopyDeleted,
    /// There is no checkpoint any more.
    Deleted,
    /// It was not done.
    Failed {
        /// Why, and what to do.
        why: String,
        /// The same call may succeed when it is made again.
        is_transient: bool,
    },
}

/// A checkpoint that the cloud has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub id: CheckpointId,
    /// It is whole.
    pub is_sealed: bool,
    /// There is a copy of it, or one was begun.
    pub has_copy: bool,
}

/// Whether it is known what the cloud has of a migration.
#[derive(Debug)]
pub(super) enum Listing {
    Calling,
    Failed { retry_millis: u64 },
    Listed(Vec<Listed>),
    Taken,
}

/// What there is of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    id: CheckpointId,
    step: Step,
    /// Where it is; empty until that is known.
    path: String,
    copy: Writable,
    /// The call that has not returned.
    calling: Option<Call>,
    /// No call is made before.
    retry_millis: u64,
    /// The last failure told, so that it is told once.
    told: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// To be sealed, or sealed already by a call whose answer is to be heard again.
    Unsealed {
        is_there: bool,
        /// What was reported of it before this node was started.
        was: Option<[u8; 32]>,
    },
    Sealed,
    Verified([u8; 32]),
    Failed(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Writable {
    Absent,
    /// It was begun, or is there since before this node was started.
    Begun,
    Ready(String),
    Failed(String),
}

/// What is known of a checkpoint besides.
struct Known {
    /// What its agent stated of it.
    claim: Option<Claim>,
    /// Its agent says that it came to it, at this or another copy.
    is_reached: bool,
    /// Its agent holds the volume still for it.
    is_held: bool,
    /// The volume is there, and of its epoch.
    is_ready: bool,
    /// Nothing else is read back: one reading at a time is enough for the disks.
    may_read: bool,
}

const IS_LOST: &str = "it is not in the cloud: it was not finished, or was removed by somebody else; ask for another one";

impl Provisioner {
    /// Brings the checkpoints of a migration in line with its plan.
    pub(super) fn settle_checkpoints(
        &mut self,
        situation: &Situation<'_>,
        plan: &MigrationPlan,
        out: &mut Vec<Action>,
    ) {
        let named = &plan.checkpoints.named;
        let mine = plan.provisioner == situation.me && plan.desired != Desired::Deleted;
        if !mine || named.is_empty() || self.removed.contains(&plan.id) {
            return;
        }
        if !self.is_listed(situation, plan, out) {
            return;
        }
        let evidence = situation.evidence(plan);
        let expired = plan.checkpoints.expired(|name| evidence.is_good(name));
        for (name, planned) in named {
            let wish = match expired.contains(name) {
                true => Wish::Deleted,
                false => planned.wish,
            };
            for volume in &plan.volumes {
                let at = (evidence.job(*volume), name.clone());
                self.settle_checkpoint(situation.now, &evidence, at, wish, out);
            }
        }
    }

    /// Whether it is known what the cloud has; what it said is taken up.
    fn is_listed(
        &mut self,
        situation: &Situation<'_>,
        plan: &MigrationPlan,
        out: &mut Vec<Action>,
    ) -> bool {
        let now = situation.now.mono_millis;
        let listed = match self.listings.get_mut(&plan.id) {
            Some(Listing::Taken) => return true,
            Some(Listing::Calling) => return false,
            Some(Listing::Failed { retry_millis }) if now < *retry_millis => return false,
            None | Some(Listing::Failed { .. }) => {
                self.listings.insert(plan.id, Listing::Calling);
                let provider = plan.provider.clone();
                out.push(Action::ListCheckpoints(plan.id, provider));
                return false;
            }
            Some(Listing::Listed(listed)) => std::mem::take(listed),
        };
        self.listings.insert(plan.id, Listing::Taken);
        let reported = reported(situation, &plan.id);
        for listed in listed {
            let mut before = reported.iter().filter(|kept| is_about(kept, &listed.id));
            let step = match before.next().map(|kept| &kept.state) {
                Some(CheckpointState::Failed(why)) => Step::Failed(why.clone()),
                before => Step::Unsealed {
                    is_there: listed.is_sealed,
                    was: match before {
                        Some(CheckpointState::Verified { root }) => Some(*root),
                        _ => None,
                    },
                },
            };
            let mut progress = Progress::new(listed.id, step);
            if listed.has_copy {
                progress.copy = Writable::Begun;
            }
            self.keep(progress);
        }
        for kept in reported {
            let at = (job_of(kept), kept.name.clone());
            if let CheckpointState::Failed(why) = &kept.state
                && !self.checkpoints.contains_key(&at)
            {
                let id = CheckpointId {
                    job: at.0,
                    name: at.1,
                    provider: plan.provider.clone(),
                    epoch: kept.epoch,
                };
                self.keep(Progress::new(id, Step::Failed(why.clone())));
            }
        }
        true
    }

    /// Of two of one name the one of the newer epoch is the checkpoint; the other is what an
    /// agent left behind that had to begin anew, and nobody asks for it.
    fn keep(&mut self, progress: Progress) {
        let at = (progress.id.job, progress.id.name.clone());
        match self.checkpoints.get(&at) {
            Some(had) if had.id.epoch >= progress.id.epoch => self.stale.push(progress),
            _ => self.stale.extend(self.checkpoints.insert(at, progress)),
        }
    }

    fn settle_checkpoint(
        &mut self,
        now: Now,
        evidence: &Evidence<'_>,
        at: (JobId, CheckpointName),
        wish: Wish,
        out: &mut Vec<Action>,
    ) {
        let reached = evidence.reached_at(&at.0.volume, &at.1);
        let claim = reached.as_ref().map(|reached| Claim {
            epoch: reached.proof.epoch,
            length: reached.proof.length,
            root: reached.proof.root,
        });
        let held = claim.filter(|_| reached.is_some_and(|reached| reached.reached.is_held));
        // The agent came to it once more, at another copy.
        if let Some(held) = held
            && let Some(had) = self.checkpoints.get(&at)
            && had.id.epoch < held.epoch
            && had.calling.is_none()
        {
            self.stale.extend(self.checkpoints.remove(&at));
        }
        if !self.checkpoints.contains_key(&at) {
            let Some(claim) = claim.filter(|_| wish != Wish::Deleted) else {
                return;
            };
            let id = CheckpointId {
                job: at.0,
                name: at.1.clone(),
                provider: evidence.plan.provider.clone(),
                epoch: claim.epoch,
            };
            let step = Step::Unsealed {
                is_there: false,
                was: None,
            };
            self.checkpoints.insert(at.clone(), Progress::new(id, step));
        }
        let is_ready = self.targets.get(&at.0).and_then(|(wanted, state)| {
            let is_ready = matches!(state, State::Ready { .. });
            is_ready.then_some(wanted.epoch)
        });
        let mut all = self.checkpoints.values();
        let may_read = !all.any(|other| matches!(other.calling, Some(Call::ReadBack(_))));
        let Some(progress) = self.checkpoints.get_mut(&at) else {
            return;
        };
        if progress.calling.is_some() || now.mono_millis < progress.retry_millis {
            return;
        }
        let known = Known {
            claim: claim.filter(|claim| claim.epoch == progress.id.epoch),
            is_reached: claim.is_some(),
            is_held: held.is_some_and(|held| held.epoch == progress.id.epoch),
            is_ready: is_ready == Some(progress.id.epoch),
            may_read,
        };
        if progress.is_lost(wish, &known) {
            out.push(progress.fail(IS_LOST.to_owned()));
        }
        let Some(call) = progress.next_call(wish, &known) else {
            return;
        };
        if call == Call::Copy {
            // However it ends, something may be there.
            progress.copy = Writable::Begun;
        }
        progress.calling = Some(call);
        out.push(Action::Checkpoint(progress.id.clone(), call));
    }

    /// Has what nobody asks for deleted, of all migrations.
    pub(super) fn settle_stale(&mut self, now: Now, out: &mut Vec<Action>) {
        for stale in &mut self.stale {
            if stale.calling.is_none() && now.mono_millis >= stale.retry_millis {
                let call = match stale.copy {
                    Writable::Absent => Call::Delete,
                    _ => Call::DeleteCopy,
                };
                stale.calling = Some(call);
                out.push(Action::Checkpoint(stale.id.clone(), call));
            }
        }
    }

    /// Whether a call about a checkpoint of a migration has not returned: what it makes
    /// would be left behind.
    pub(super) fn calls_for_checkpoints(&self, migration: &MigrationId) -> bool {
        let is_calling = |progress: &Progress| {
            progress.id.job.migration == *migration && progress.calling.is_some()
        };
        self.checkpoints.values().any(is_calling)
            || self.stale.iter().any(is_calling)
            || matches!(self.listings.get(migration), Some(Listing::Calling))
    }

    pub(super) fn let_go_of_checkpoints(&mut self, migration: &MigrationId) {
        self.listings.remove(migration);
        self.checkpoints
            .retain(|(job, _), _| job.migration != *migration);
        self.stale
            .retain(|stale| stale.id.job.migration != *migration);
    }

    pub(super) fn checkpoints_listed(
        &mut self,
        now: Now,
        migration: MigrationId,
        listed: Result<Vec<Listed>, String>,
        out: &mut Vec<Action>,
    ) {
        let listing = match listed {
            Ok(listed) => Listing::Listed(listed),
            Err(why) => {
                let text = format!(
                    "it is not known which checkpoints there are; it is asked again: {why}"
                );
                let note = Note::warn("checkpoint-failed", text);
                out.push(Action::Tell(Some(migration), note));
                let retry_millis = now.mono_millis + READ_RETRY_MILLIS;
                Listing::Failed { retry_millis }
            }
        };
        self.listings.insert(migration, listing);
    }

    /// Takes what came of a call.
    pub(super) fn checkpoint_answered(
        &mut self,
        now: Now,
        id: &CheckpointId,
        answer: Answer,
        out: &mut Vec<Action>,
    ) {
        let at = (id.job, id.name.clone());
        let current = self.checkpoints.get_mut(&at);
        if let Some(progress) = current.filter(|progress| progress.id == *id) {
            if !progress.take(now, answer, out) {
                self.checkpoints.remove(&at);
            }
        } else if let Some(place) = self.stale.iter().position(|stale| stale.id == *id) {
            let stays = self.stale[place].take(now, answer, &mut vec![]);
            if !stays {
                self.stale.swap_remove(place);
            }
        }
    }

    /// The checkpoints as this node reports them, the oldest names first. Before it is known
    /// what the cloud has, it is as was reported last.
    pub fn checkpoints(&self, situation: &Situation<'_>) -> Vec<KeptCheckpoint> {
        let mut all: Vec<KeptCheckpoint> = vec![];
        for plan in situation.plan.migrations.values() {
            if !matches!(self.listings.get(&plan.id), Some(Listing::Taken)) {
                all.extend(reported(situation, &plan.id).into_iter().cloned());
            }
        }
        all.extend(self.checkpoints.values().map(Progress::reported));
        let asked_at = |kept: &KeptCheckpoint| {
            let plan = situation.plan.migrations.get(&kept.migration);
            plan.and_then(|plan| plan.checkpoints.named.get(&kept.name))
                .map(|planned| planned.asked_at)
        };
        all.sort_by_key(asked_at);
        all
    }
}

impl Progress {
    fn new(id: CheckpointId, step: Step) -> Self {
        Self {
            id,
            step,
            path: String::new(),
            copy: Writable::Absent,
            calling: None,
            retry_millis: 0,
            told: None,
        }
    }

    /// Whether it is not there, and the volume is not what it was any more.
    fn is_lost(&self, wish: Wish, known: &Known) -> bool {
        let is_there = !matches!(
            self.step,
            Step::Unsealed {
                is_there: false,
                ..
            }
        );
        !is_there && known.is_reached && !known.is_held && wish != Wish::Deleted
    }

    fn next_call(&self, wish: Wish, known: &Known) -> Option<Call> {
        let has_copy = self.copy != Writable::Absent;
        match (&self.step, wish) {
            (_, Wish::Deleted) if has_copy => Some(Call::DeleteCopy),
            (_, Wish::Deleted) => Some(Call::Delete),
            (Step::Unsealed { is_there, .. }, _) => {
                (*is_there || (known.is_ready && known.is_held)).then_some(Call::Seal)
            }
            (Step::Sealed, _) if known.may_read => known.claim.map(Call::ReadBack),
            (Step::Sealed, _) => None,
            (Step::Verified(_), Wish::Copied) => {
                let is_due = matches!(self.copy, Writable::Absent | Writable::Begun);
                is_due.then_some(Call::Copy)
            }
            (Step::Verified(_) | Step::Failed(_), Wish::Kept) if has_copy => Some(Call::DeleteCopy),
            (Step::Verified(_) | Step::Failed(_), _) => None,
        }
    }

    /// Takes what came of a call; whether anything is left of it.
    fn take(&mut self, now: Now, answer: Answer, out: &mut Vec<Action>) -> bool {
        let Some(call) = self.calling.take() else {
            return true;
        };
        let told = match answer {
            Answer::Sealed(path) => self.sealed(path),
            Answer::ReadBack(root) => match call {
                Call::ReadBack(claim) => Some(self.was_read(claim, root)),
                _ => None,
            },
            Answer::Copied(path) => {
                let text = format!("there is a copy of {self} at {path} that can be written to");
                self.copy = Writable::Ready(path);
                Some(self.tell(Note::info("checkpoint-copied", text)))
            }
            Answer::CopyDeleted => {
                self.copy = Writable::Absent;
                let text = format!("the writable copy of {self} is deleted");
                Some(self.tell(Note::info("checkpoint-copy-deleted", text)))
            }
            Answer::Deleted => {
                let text = format!("{self} is deleted");
                out.push(self.tell(Note::info("checkpoint-deleted", text)));
                return false;
            }
            Answer::Failed { why, is_transient } => self.failed(now, call, why, is_transient),
        };
        out.extend(told);
        true
    }

    fn sealed(&mut self, path: String) -> Option<Action> {
        let before = match self.step {
            Step::Unsealed { is_there, was } => is_there.then_some(was),
            _ => None,
        };
        let text = format!("{self} is sealed at {path}; it is read back now");
        self.path = path;
        self.step = match before.flatten() {
            Some(root) => Step::Verified(root),
            None => Step::Sealed,
        };
        let note = Note::info("checkpoint-sealed", text);
        before.is_none().then(|| self.tell(note))
    }

    fn was_read(&mut self, claim: Claim, root: [u8; 32]) -> Action {
        if root == claim.root {
            self.step = Step::Verified(root);
            let text = format!("{self} was read back by this node and is what its agent stated");
            return self.tell(Note::info("checkpoint-verified", text));
        }
        let why = "it reads back as another than its agent stated: do not use it; find out whether the replicator or the storage is at fault, and ask for another one";
        self.fail(why.to_owned())
    }

    fn failed(&mut self, now: Now, call: Call, why: String, is_transient: bool) -> Option<Action> {
        self.retry_millis = now.mono_millis
            + match call {
                Call::ReadBack(_) => READ_RETRY_MILLIS,
                _ => RETRY_MILLIS,
            };
        match call {
            Call::Seal if !is_transient => return Some(self.fail(why)),
            Call::Copy if !is_transient => {
                let text = format!("no copy of {self} was made: {why}");
                self.copy = Writable::Failed(why);
                return Some(self.tell(Note::error("checkpoint-copy-failed", text)));
            }
            _ => {}
        }
        if self.told.as_ref() == Some(&why) {
            return None;
        }
        let done = match call {
            Call::Seal => "sealed",
            Call::ReadBack(_) => "read back",
            Call::Copy => "copied",
            Call::DeleteCopy => "rid of its writable copy",
            Call::Delete => "deleted",
        };
        let text = format!("{self} could not be {done}; it is tried again: {why}");
        self.told = Some(why);
        Some(self.tell(Note::warn("checkpoint-delayed", text)))
    }

    fn fail(&mut self, why: String) -> Action {
        let text = format!("{self} failed: {why}");
        self.step = Step::Failed(why);
        self.tell(Note::error("checkpoint-failed", text))
    }

    fn tell(&self, note: Note) -> Action {
        Action::Tell(Some(self.id.job.migration), note)
    }

    fn reported(&self) -> KeptCheckpoint {
        let copy = match &self.copy {
            Writable::Absent => None,
            Writable::Begun => Some(WritableCopy::Making),
            Writable::Ready(path) => Some(WritableCopy::Ready { path: path.clone() }),
            Writable::Failed(why) => Some(WritableCopy::Failed(why.clone())),
        };
        KeptCheckpoint {
            migration: self.id.job.migration,
            volume: self.id.job.volume,
            name: self.id.name.clone(),
            epoch: self.id.epoch,
            state: match &self.step {
                // Its answer is to be heard again, and says no more than where it is.
                Step::Unsealed {
                    was: Some(root), ..
                } => CheckpointState::Verified { root: *root },
                Step::Unsealed { is_there: true, .. } | Step::Sealed => CheckpointState::Sealed,
                Step::Unsealed { .. } => CheckpointState::Sealing,
                Step::Verified(root) => CheckpointState::Verified { root: *root },
                Step::Failed(why) => CheckpointState::Failed(why.clone()),
            },
            path: self.path.clone(),
            copy,
        }
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let CheckpointId {
            job, name, epoch, ..
        } = &self.id;
        write!(f, "checkpoint {name} of {job} (epoch {epoch})")
    }
}

/// What this node said last of the checkpoints of a migration.
fn reported<'a>(situation: &Situation<'a>, migration: &MigrationId) -> Vec<&'a KeptCheckpoint> {
    let report = situation.reports.get(&situation.me);
    let kept = report.into_iter().flat_map(|report| &report.checkpoints);
    kept.filter(|kept| kept.migration == *migration).collect()
}

fn job_of(kept: &KeptCheckpoint) -> JobId {
    JobId {
        migration: kept.migration,
        volume: kept.volume,
    }
}

fn is_about(kept: &KeptCheckpoint, id: &CheckpointId) -> bool {
    (kept.volume, &kept.name, kept.epoch) == (id.job.volume, &id.name, id.epoch)
}

#[cfg(test)]
mod tests;
