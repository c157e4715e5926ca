//! Hooks: scripts of this host, named by the plan and run at points of a migration.
//!
//! The host's owner decides what can be run, by putting it into the folder of hooks
//! (`folder`); the plan only names it. Scripts are run one after the other, in a clean
//! environment, with a limit of time (`run`), and what they print is kept within bounds
//! (`output`) and without secrets (`redact`). Nothing here writes, so that it also works
//! while file systems are frozen. Not here: when hooks are due (`roles::hooks`).

mod folder;
mod output;
mod redact;
mod run;
#[cfg(test)]
mod tests;

pub use folder::{Folder, NoScript};
pub use run::{Ended, GRACE, Ran};

use crdt::plan::hook::{Hook, OnFailure, Point};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a script is told, beside the variables of its hook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// Id of the migration.
    pub migration: String,
    /// Its name.
    pub migration_name: String,
    /// Name of the server that moves.
    pub server: String,
    /// Name of the node that runs the script.
    pub node: String,
    /// Paths of the disks on this machine.
    pub disks: Vec<String>,
}

/// One hook that was run, or could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The hook.
    pub hook: Hook,
    /// What became of it.
    pub ran: Ran,
}

/// What became of the hooks at one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of them were run; one that failed is one whose failure does not matter.
    Passed(Vec<Done>),
    /// The last of these failed, and nothing is to follow.
    Stopped(Vec<Done>),
    /// It was asked to end before all were run.
    Cancelled(Vec<Done>),
}

impl Outcome {
    /// The hooks that were run, in order.
    pub fn done(&self) -> &[Done] {
        match self {
            Self::Passed(done) | Self::Stopped(done) | Self::Cancelled(done) => done,
        }
    }
}

/// Asks hooks that run to end: the script is sent SIGTERM and, five seconds later,
/// SIGKILL.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks for it.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_asked_for(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Finds every one of `hooks`, and runs none. The first that is not there is said.
pub fn check(folder: &Folder, hooks: &[Hook]) -> Result<(), NoScript> {
    let mut hooks = hooks.iter();
    hooks.try_for_each(|hook| folder.find(&hook.name).map(drop))
}

/// Runs those of `hooks` that are at `point`, in their order, until one fails whose failure
/// stops what follows. Blocks as long as the scripts take. All are looked for before the
/// first is run. `begins` is told of each one that is.
pub fn run_all_blocking(
    folder: &Folder,
    point: Point,
    hooks: &[Hook],
    context: &Context,
    cancel: &Cancel,
    mut begins: impl FnMut(&Hook),
) -> Outcome {
    let due: Vec<&Hook> = hooks.iter().filter(|hook| hook.point == point).collect();
    let mut done = vec![];
    for hook in &due {
        if let Err(missing) = folder.find(&hook.name)
            && hook.on_failure == OnFailure::Stop
        {
            done.push(Done {
                hook: (*hook).clone(),
                ran: Ran::not_started(missing.to_string()),
            });
            return Outcome::Stopped(done);
        }
    }
    for hook in due {
        if cancel.is_asked_for() {
            return Outcome::Cancelled(done);
        }
        let ran = match folder.find(&hook.name) {
            Ok(script) => {
                begins(hook);
                run::run(&script, hook, context, cancel)
            }
            Err(missing) => Ran::not_started(missing.to_string()),
        };
        let (is_ok, is_cancelled) = (ran.ended.is_ok(), ran.ended == Ended::Cancelled);
        done.push(Done {
            hook: hook.clone(),
            ran,
        });
        if is_cancelled {
            return Outcome::Cancelled(done);
        }
        if !is_ok && hook.on_failure == OnFailure::Stop {
            return Outcome::Stopped(done);
        }
    }
    Outcome::Passed(done)
}

/// The same from a task. Where the future is dropped, the scripts are asked to end.
pub async fn run_all(
    folder: Folder,
    point: Point,
    hooks: Vec<Hook>,
    context: Context,
    cancel: Cancel,
    begins: impl FnMut(&Hook) + Send + 'static,
) -> Outcome {
    let on_drop = CancelOnDrop(cancel.clone());
    let running = tokio::task::spawn_blocking(move || {
        run_all_blocking(&folder, point, &hooks, &context, &cancel, begins)
    });
    let outcome = running.await;
    drop(on_drop);
    // The thread ends early only where the program does.
    outcome.unwrap_or(Outcome::Cancelled(vec![]))
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
