//! Looking whether a copy that was cut over is still there: it is a server's disk now,
//! nobody here writes it, and what becomes of it is told and never mended. Above all no
//! empty volume is made in its place.
//!
//! Not here: reading it back (`witness`).

use super::{Action, Provisioner, State, Wanted};
use crate::note::Note;
use crate::{JobId, Now};

/// From look to look at a copy that was cut over.
pub const LOOK_MILLIS: u64 = 60_000;
/// Kind of the event that a copy which was cut over is not in order any more.
pub const COPY_MISSED: &str = "copy-missed";

impl Provisioner {
    /// Has a copy looked at where it is time to.
    pub(super) fn settle_look(&mut self, now: Now, wanted: &Wanted, out: &mut Vec<Action>) {
        let (now, next_millis) = (now.mono_millis, now.mono_millis + LOOK_MILLIS);
        match self.targets.get_mut(&wanted.job) {
            Some((had, state)) if had == wanted => {
                let due = match state {
                    State::Calling => return,
                    State::Ready { look_millis, .. } => look_millis,
                    State::Failed { retry_millis, .. } => retry_millis,
                };
                if now < *due {
                    return;
                }
                *due = next_millis;
                if self.looks.get(&wanted.job) == Some(wanted) {
                    // One that hangs is enough.
                    let why = "its cloud does not answer whether it is there".to_owned();
                    return self.seen(next_millis, wanted, Err(why), out);
                }
            }
            _ => {
                let state = (wanted.clone(), State::Calling);
                self.targets.insert(wanted.job, state);
            }
        }
        self.looks.insert(wanted.job, wanted.clone());
        out.push(Action::Look(wanted.clone()));
    }

    pub(super) fn looked(
        &mut self,
        now: Now,
        wanted: &Wanted,
        seen: Result<String, String>,
        out: &mut Vec<Action>,
    ) {
        if self.looks.get(&wanted.job) == Some(wanted) {
            self.looks.remove(&wanted.job);
        }
        self.seen(now.mono_millis + LOOK_MILLIS, wanted, seen, out);
    }

    fn seen(
        &mut self,
        next_millis: u64,
        wanted: &Wanted,
        seen: Result<String, String>,
        out: &mut Vec<Action>,
    ) {
        let Some(state) = self.current(wanted) else {
            return;
        };
        let told = match (seen, &state) {
            (Ok(path), State::Failed { .. }) => {
                let note = found_again(&wanted.job, &path);
                *state = State::Ready {
                    path,
                    look_millis: next_millis,
                };
                note
            }
            (Ok(path), _) => {
                *state = State::Ready {
                    path,
                    look_millis: next_millis,
                };
                return;
            }
            (Err(why), State::Failed { why: before, .. }) if *before == why => return,
            (Err(why), _) => {
                let text = format!(
                    "the copy of {}, which was cut over, is not in order any more: {why}",
                    wanted.job
                );
                *state = State::Failed {
                    why,
                    retry_millis: next_millis,
                };
                Note::warn(COPY_MISSED, text)
            }
        };
        out.push(Action::Tell(Some(wanted.job.migration), told));
    }
}

fn found_again(job: &JobId, path: &str) -> Note {
    let text = format!("the copy of {job}, which was cut over, is at {path}");
    Note::info("target-ready", text)
}
