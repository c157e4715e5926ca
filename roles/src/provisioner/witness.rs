//! Reading back what was cut over, by a node that did not write it: a replicator that
//! acknowledges what it does not store is found before anybody launches the copy.
//!
//! Not here: what is needed besides (`launch`).

use super::{Action, Provisioner, Wanted};
use crate::launch::{Claim, Unconfirmed};
use crate::note::Note;
use crate::situation::Situation;
use crate::{JobId, Now};

/// Wait before a copy that could not be read is read again: it may be a large one.
pub const READ_RETRY_MILLIS: u64 = 30_000;
/// Kind of the event that a copy could not be read back; its text names the job.
pub const READ_BACK_FAILED: &str = "read-back-failed";

/// A copy that is read back, and what both of its ends state about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Of which job.
    pub job: JobId,
    /// In which kind of cloud.
    pub provider: String,
    /// What both ends state.
    pub claim: Claim,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    reading: Reading,
    step: Step,
    /// The last failure told, so that it is told once.
    told: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Reading,
    Failed {
        retry_millis: u64,
    },
    /// It was read, and people or the mesh were told what it holds.
    Read,
    /// Somebody else would have to read it.
    NotOurs,
}

impl Provisioner {
    /// Has a copy read back once both ends state the same root of it.
    pub(super) fn settle_witness(
        &mut self,
        situation: &Situation<'_>,
        wanted: &Wanted,
        out: &mut Vec<Action>,
    ) {
        let job = wanted.job;
        let had = self.readings.get(&job);
        let had = had.filter(|had| had.reading.claim.epoch == wanted.epoch);
        let is_due = had.is_none_or(|had| match had.step {
            Step::Failed { retry_millis } => situation.now.mono_millis >= retry_millis,
            Step::Reading | Step::Read | Step::NotOurs => false,
        });
        let Some(plan) = situation.migration(&job).filter(|_| is_due) else {
            return;
        };
        let (claim, step) = match situation.evidence(plan).permission(&job.volume) {
            Err(Unconfirmed::NotWitnessed(claim)) => (claim, Step::Reading),
            Err(why @ Unconfirmed::NoOtherNode(claim)) => {
                let text = format!("the copy of {job}: {why}");
                out.push(Action::Tell(
                    Some(job.migration),
                    Note::warn("copy-unconfirmed", text),
                ));
                (claim, Step::NotOurs)
            }
            Ok(confirmed) => (confirmed.claim(), Step::Read),
            Err(_) => return,
        };
        let told = had.and_then(|had| had.told.clone());
        let reading = Reading {
            job,
            provider: wanted.provider.clone(),
            claim,
        };
        if step == Step::Reading {
            out.push(Action::ReadBack(reading.clone()));
        }
        let progress = Progress {
            reading,
            step,
            told,
        };
        self.readings.insert(job, progress);
    }

    pub(super) fn was_read_back(
        &mut self,
        reading: Reading,
        root: [u8; 32],
        out: &mut Vec<Action>,
    ) {
        let Some(progress) = self.current_reading(&reading) else {
            return;
        };
        progress.step = Step::Read;
        let (job, epoch) = (reading.job, reading.claim.epoch);
        let note = if root == reading.claim.root {
            out.push(Action::Witness(reading));
            let text = format!(
                "the copy of {job} of epoch {epoch} was read back by this node and is what both ends state"
            );
            Note::info("copy-confirmed", text)
        } else {
            let text = format!(
                "do not launch the copy of {job} of epoch {epoch}: both ends state that it equals the source, and it reads back as another; keep both disks, and find out whether its replicator or its storage is at fault"
            );
            Note::error("copy-differs", text)
        };
        out.push(Action::Tell(Some(job.migration), note));
    }

    pub(super) fn read_back_failed(
        &mut self,
        now: Now,
        reading: &Reading,
        why: String,
        out: &mut Vec<Action>,
    ) {
        let Some(progress) = self.current_reading(reading) else {
            return;
        };
        let retry_millis = now.mono_millis + READ_RETRY_MILLIS;
        progress.step = Step::Failed { retry_millis };
        if progress.told.as_ref() == Some(&why) {
            return;
        }
        let text = format!(
            "the copy of {} could not be read back, and is not confirmed; it is tried again: {why}",
            reading.job
        );
        progress.told = Some(why);
        out.push(Action::Tell(
            Some(reading.job.migration),
            Note::warn(READ_BACK_FAILED, text),
        ));
    }

    /// Whether both ends have stated the same root of this copy.
    pub(super) fn is_cut_over(&self, wanted: &Wanted) -> bool {
        let found = self.readings.get(&wanted.job);
        found.is_some_and(|found| found.reading.claim.epoch == wanted.epoch)
    }

    fn current_reading(&mut self, reading: &Reading) -> Option<&mut Progress> {
        self.readings
            .get_mut(&reading.job)
            .filter(|progress| progress.reading == *reading)
    }
}
