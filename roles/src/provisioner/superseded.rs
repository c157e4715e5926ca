//! The volumes of a job whose epochs are over: taken from their replicators at once, so
//! that none goes on writing where the cloud enforces it, and deleted once the copy of
//! the newer epoch has completed a pass. Until then the older copy is the better one.
//!
//! Nothing is remembered: the cloud lists what there is, and both calls are idempotent.

use super::{Action, Provisioner, RETRY_MILLIS, Wanted};
use crate::note::Note;
use crate::situation::Situation;
use crate::{JobId, Now};
use keys::{Epoch, MigrationId};

/// The volumes of a job with a lower epoch than its agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superseded {
    /// Of which job.
    pub job: JobId,
    /// In which kind of cloud.
    pub provider: String,
    /// Epochs below this one are over.
    pub below: Epoch,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    old: Superseded,
    step: Step,
    /// The last failure told, so that it is told once.
    told: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Fencing,
    Fenced,
    Retiring,
    Retired,
    /// When to begin again.
    Failed {
        retry_millis: u64,
    },
}

impl Provisioner {
    /// Detaches, and later deletes, what is older than what is wanted.
    pub(super) fn settle_superseded(
        &mut self,
        situation: &Situation<'_>,
        wanted: &Wanted,
        out: &mut Vec<Action>,
    ) {
        let job = wanted.job;
        let older = |making: &Wanted| making.job == job && making.epoch < wanted.epoch;
        let sealed = situation.source_stated(&job);
        // The agent never goes on from a copy that it cut over to: if it seems that it
        // did, two of them share a key, and the copy is not ours to touch.
        if wanted.epoch <= Epoch(1)
            || sealed.is_some_and(|epoch| epoch < wanted.epoch)
            // What is being made would be left behind.
            || self.making.iter().any(older)
        {
            return;
        }
        let old = Superseded {
            job,
            provider: wanted.provider.clone(),
            below: wanted.epoch,
        };
        let progress = self.superseded.get(&job).filter(|had| had.old == old);
        let (step, told) = match progress {
            None => (None, None),
            Some(progress) => (Some(progress.step), progress.told.clone()),
        };
        let passed = situation.completed_a_pass(&job, wanted.epoch);
        let (action, step): (fn(Superseded) -> Action, Step) = match step {
            None => (Action::Fence, Step::Fencing),
            Some(Step::Failed { retry_millis }) if situation.now.mono_millis >= retry_millis => {
                (Action::Fence, Step::Fencing)
            }
            Some(Step::Fenced) if passed => (Action::Retire, Step::Retiring),
            Some(_) => return,
        };
        out.push(action(old.clone()));
        let progress = Progress { old, step, told };
        self.superseded.insert(job, progress);
    }

    /// Whether older volumes of a migration are still to be deleted.
    pub(super) fn leaves_superseded(&self, migration: &MigrationId) -> bool {
        let mut all = self.superseded.iter();
        all.any(|(job, progress)| job.migration == *migration && progress.step != Step::Retired)
    }

    pub(super) fn fenced(&mut self, old: &Superseded, kept: &[Epoch], out: &mut Vec<Action>) {
        let Some(progress) = self.current_superseded(old) else {
            return;
        };
        progress.step = Step::Fenced;
        if kept.is_empty() {
            return;
        }
        let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
        let text = format!(
            "the volume of epoch {} of {} was taken from its replicator; it is kept until the copy of epoch {} has completed a pass",
            kept.join(", "),
            old.job,
            old.below
        );
        out.push(Action::Tell(
            Some(old.job.migration),
            Note::info("volume-fenced", text),
        ));
    }

    pub(super) fn retired(&mut self, old: &Superseded, out: &mut Vec<Action>) {
        let Some(progress) = self.current_superseded(old) else {
            return;
        };
        progress.step = Step::Retired;
        let text = format!(
            "the volumes of {} of epochs below {} are deleted: the newer copy has completed a pass",
            old.job, old.below
        );
        out.push(Action::Tell(
            Some(old.job.migration),
            Note::info("old-volumes-removed", text),
        ));
    }

    pub(super) fn superseded_failed(
        &mut self,
        now: Now,
        old: &Superseded,
        why: String,
        out: &mut Vec<Action>,
    ) {
        let Some(progress) = self.current_superseded(old) else {
            return;
        };
        let retry_millis = now.mono_millis + RETRY_MILLIS;
        progress.step = Step::Failed { retry_millis };
        if progress.told.as_ref() == Some(&why) {
            return;
        }
        let text = format!(
            "the volumes of {} of epochs below {} could not be detached or deleted; it is tried again: {why}",
            old.job, old.below
        );
        progress.told = Some(why);
        out.push(Action::Tell(
            Some(old.job.migration),
            Note::warn("fence-failed", text),
        ));
    }

    fn current_superseded(&mut self, old: &Superseded) -> Option<&mut Progress> {
        self.superseded
            .get_mut(&old.job)
            .filter(|progress| progress.old == *old)
    }
}
