//! Hooks of this node's migrations: which are due now, their scripts on threads that may
//! wait, and what became of them as events.
//!
//! Not here: when they are due (`roles::hooks`) and how scripts are run (`hooks`).

use super::{Engine, Message};
use crate::hooks::{self, Cancel, Context, Done, Folder, Outcome};
use crdt::Point;
use crdt::plan::hook::{Hook, OnFailure, Side};
use roles::Note;
use roles::hooks::{Action, At, Input};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinSet;

/// Longest part of a script's last line in a standing, in bytes.
const MAX_LAST_LINE: usize = 200;

/// From a run of hooks.
#[derive(Debug)]
pub(crate) enum News {
    /// A script is about to be started.
    Begins(Hook),
    /// Scripts are not where they should be, and none was run.
    Missing(String),
    /// The run is over.
    Over(Outcome),
}

/// Longest wait for the end of scripts that were asked to end, beyond what they are given.
const END_SLACK: Duration = Duration::from_secs(1);

/// Runs that are not over.
#[derive(Debug, Default)]
pub(super) struct Runs {
    cancels: BTreeMap<At, Cancel>,
    /// A script has ended once the task of its run has.
    tasks: JoinSet<()>,
}

impl Runs {
    fn begin(&mut self, at: At, cancel: Cancel, run: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.cancels.insert(at, cancel);
        self.tasks.spawn(run);
    }

    pub(super) fn cancel_all(&self) {
        self.cancels.values().for_each(Cancel::cancel);
    }

    /// Has all of them end and waits for it, so that no script goes on beside the next start.
    pub(super) async fn end(&mut self) {
        self.cancel_all();
        let ends = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(hooks::GRACE + END_SLACK, ends)
            .await
            .is_err()
        {
            tracing::warn!("a script of a hook has not ended, and goes on without this node");
        }
    }
}

impl Engine {
    /// The folder of hooks of this node.
    pub(super) fn hook_folder(&self) -> Folder {
        Folder::of(self.config.hooks.as_deref(), self.dir.path())
    }

    pub(super) fn settle_hooks(&mut self) -> bool {
        let sides = self.provisioner.waits_for_hooks().map(|migration| At {
            migration,
            side: Side::Provisioner,
            point: Point::BeforeCleanup,
        });
        let agents = self.agents.iter().filter_map(|(job, slot)| {
            Some(At {
                migration: job.migration,
                side: Side::Source,
                point: slot.machine.waits_for_hooks()?,
            })
        });
        let waiting: BTreeSet<At> = sides.chain(agents).chain(self.cutover_hooks()).collect();
        let mut machine = std::mem::take(&mut self.hooks);
        let mut actions = vec![];
        if let Some(situation) = self.situation() {
            machine.settle(&situation, &waiting, &mut actions);
        }
        self.hooks = machine;
        let acted = !actions.is_empty();
        self.carry_hooks(actions);
        acted
    }

    pub(super) fn carry_hooks(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Store(record) => {
                    let stored = self.store.put_hooks(&record);
                    self.must(stored);
                }
                Action::Run {
                    at,
                    hooks,
                    check_all,
                } => self.run_hooks(at, hooks, check_all),
                Action::Cancel(at) => {
                    if let Some(cancel) = self.hook_runs.cancels.get(&at) {
                        cancel.cancel();
                    }
                }
            }
        }
    }

    fn run_hooks(&mut self, at: At, hooks: Vec<Hook>, check_all: bool) {
        let cancel = Cancel::default();
        let (folder, context) = (self.hook_folder(), self.hook_context(at));
        let inbox = self.inbox.clone();
        let asked = cancel.clone();
        self.hook_runs.begin(at, asked, async move {
            let news = match hooks::check(&folder, &hooks) {
                Err(missing) if check_all => News::Missing(missing.to_string()),
                _ => {
                    let told = inbox.clone();
                    // A closed inbox means the node is stopping.
                    let begins = move |hook: &Hook| {
                        let news = News::Begins(hook.clone());
                        let _ = told.blocking_send(Message::Hooks(at, news));
                    };
                    let run = hooks::run_all(folder, at.point, hooks, context, cancel, begins);
                    News::Over(run.await)
                }
            };
            let _ = inbox.send(Message::Hooks(at, news)).await;
        });
    }

    fn hook_context(&self, at: At) -> Context {
        let authority = self.replica.authority();
        let plan = self.replica.document().plan();
        let plan = plan.migrations.get(&at.migration);
        let name = |node| {
            let member = authority.member(&node);
            member.map_or_else(String::new, |member| member.name.to_string())
        };
        let disks = match at.side {
            Side::Source => {
                let moved = plan.into_iter().flat_map(|plan| &plan.volumes);
                let offered =
                    |id: &keys::VolumeId| self.volumes.iter().find(|volume| volume.id == *id);
                let paths = moved.filter_map(offered);
                paths.map(|volume| volume.path.clone()).collect()
            }
            Side::Provisioner => {
                let targets = self.provisioner.targets().into_iter();
                let mine = targets.filter(|target| target.migration == at.migration);
                let paths = mine.map(|target| target.path);
                paths.filter(|path| !path.is_empty()).collect()
            }
            Side::Operator => vec![],
        };
        Context {
            migration: at.migration.to_string(),
            migration_name: plan.map_or_else(String::new, |plan| plan.name.clone()),
            server: plan.map_or_else(String::new, |plan| name(plan.source)),
            node: self.replica.me().map_or_else(String::new, name),
            disks,
        }
    }

    pub(super) fn hooks_told(&mut self, at: At, news: News) {
        let input = match news {
            News::Begins(hook) => {
                let text = format!(
                    "hook {} at {} begins, for up to {} s",
                    hook.name, hook.point, hook.timeout_secs
                );
                return self.tell(Some(at.migration), Note::info("hook-began", text));
            }
            News::Missing(why) => {
                self.hook_runs.cancels.remove(&at);
                self.tell(Some(at.migration), Note::error("hook-missing", why.clone()));
                Input::Failed(at, why)
            }
            News::Over(outcome) => {
                self.hook_runs.cancels.remove(&at);
                for done in outcome.done() {
                    self.tell(Some(at.migration), note(done));
                }
                match outcome {
                    Outcome::Passed(_) => Input::Passed(at),
                    Outcome::Stopped(done) => {
                        let why = done.last().map_or_else(String::new, why);
                        Input::Failed(at, why)
                    }
                    Outcome::Cancelled(_) => Input::Cancelled(at),
                }
            }
        };
        let mut actions = vec![];
        self.hooks.step(self.now(), input, &mut actions);
        self.carry_hooks(actions);
        self.settle();
    }
}

/// What is told of a hook that was run, with all that is kept of its output.
fn note(done: &Done) -> Note {
    let Done { hook, ran } = done;
    let secs = ran.took.as_secs_f64();
    let mut text = format!(
        "hook {} at {} {} after {secs:.1} s",
        hook.name, hook.point, ran.ended
    );
    let failed = match (ran.ended.is_ok(), hook.on_failure) {
        (true, _) => None,
        (false, OnFailure::Stop) => {
            Some("nothing follows until it succeeds, and it is tried again")
        }
        (false, OnFailure::Continue) => Some("the migration goes on"),
    };
    if let Some(failed) = failed {
        text.push_str(&format!("; {failed}"));
    }
    if !ran.output.is_empty() {
        text.push_str(&format!("; it printed:\n{}", ran.output));
    }
    match (ran.ended.is_ok(), hook.on_failure) {
        (true, _) => Note::info("hook-done", text),
        (false, OnFailure::Stop) => Note::error("hook-failed", text),
        (false, OnFailure::Continue) => Note::warn("hook-failed", text),
    }
}

/// Why nothing follows, in a line.
fn why(done: &Done) -> String {
    let Done { hook, ran } = done;
    let last = ran
        .output
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty());
    let last = last.map_or_else(String::new, |line| {
        let end = line.floor_char_boundary(MAX_LAST_LINE);
        format!(" ({})", line[..end].trim())
    });
    format!(
        "hook {} at {} {}{last}; it is tried again, at once after `migration pause` and `migration resume`",
        hook.name, hook.point, ran.ended
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    #[tokio::test]
    async fn who_ends_runs_goes_on_once_their_scripts_have_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (began, ended) = (dir.path().join("began"), dir.path().join("ended"));
        let text = format!(
            "#!/bin/sh\ntrap 'sleep 0.5; touch {}; exit' TERM\ntouch {}\nwhile :; do sleep 0.05; done\n",
            ended.display(),
            began.display()
        );
        let script = dir.path().join("slow");
        fs::write(&script, text).unwrap();
        for path in [dir.path(), &script] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let point = Point::AfterCutover;
        let at = At {
            migration: keys::MigrationId([1; 16]),
            side: Side::Source,
            point,
        };
        let folder = Folder::of(Some(dir.path()), dir.path());
        let hook = Hook::new(point, Side::Source, "slow");
        let (cancel, context) = (Cancel::default(), Context::default());
        let mut runs = Runs::default();
        let run = hooks::run_all(folder, point, vec![hook], context, cancel.clone(), |_| {});
        runs.begin(at, cancel, async { drop(run.await) });
        let deadline = Instant::now() + Duration::from_secs(20);
        while !began.exists() {
            assert!(Instant::now() < deadline, "the script did not begin");
            tokio::task::yield_now().await;
        }
        runs.end().await;
        assert!(ended.exists(), "it goes on");
    }
}
