//! What `--wait` and `watch` wait for, and what has changed since they last looked.
//! Pure: views in, verdicts and lines out.
//!
//! Not here: the looking (`watch`) and the drawing (`bars`).

use std::collections::{BTreeMap, BTreeSet};

use crate::api::model::{JobView, MigrationView};

use super::render::progress;
use super::task::Verb;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Every volume's first pass is complete.
    FirstPass,
    /// Every volume moves, or has moved, again.
    Moving,
    /// Every volume holds.
    Paused,
    /// Every volume is cut over.
    CutOver,
    /// What was made for it is gone.
    Deleted,
}

impl From<Verb> for Goal {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Start => Self::FirstPass,
            Verb::Pause => Self::Paused,
            Verb::Resume => Self::Moving,
            Verb::Cutover { .. } => Self::CutOver,
            Verb::Delete => Self::Deleted,
        }
    }
}

/// How a migration stands to a goal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not there yet.
    Waiting,
    /// There.
    Reached,
    /// A volume has failed; and why, where that is known.
    Failed {
        /// Name of the volume.
        volume: String,
        /// What its node says.
        why: Option<String>,
    },
    /// The plan has come to want something else.
    Overruled {
        /// What it wants now.
        desired: String,
    },
}

/// Whether a volume is in a stage that counts as the goal.
fn reached(goal: Goal, job: &JobView) -> bool {
    let stage = job.stage.as_str();
    match goal {
        Goal::FirstPass => matches!(
            stage,
            "replicating" | "ready-for-cutover" | "cutting-over" | "cut-over"
        ),
        Goal::Moving => !matches!(stage, "enrolled" | "paused" | "stalled" | "failed"),
        Goal::Paused => matches!(stage, "paused" | "cut-over"),
        Goal::CutOver => stage == "cut-over",
        Goal::Deleted => job.target_path.is_none(),
    }
}

fn wants(goal: Goal, desired: &str) -> bool {
    match goal {
        Goal::FirstPass | Goal::Moving => desired == "started" || desired.starts_with("cutover"),
        Goal::Paused => desired == "paused",
        Goal::CutOver => desired.starts_with("cutover"),
        Goal::Deleted => desired == "deleted",
    }
}

/// How a migration stands to a goal. A migration whose volumes are not known yet has
/// reached none, but that of being deleted.
pub fn judge(goal: Goal, view: &MigrationView) -> Verdict {
    let any = goal == Goal::Deleted || !view.volumes.is_empty();
    let planned = wants(goal, &view.desired) || goal == Goal::CutOver;
    if any && planned && view.volumes.iter().all(|job| reached(goal, job)) {
        return Verdict::Reached;
    }
    if !wants(goal, &view.desired) {
        return Verdict::Overruled {
            desired: view.desired.clone(),
        };
    }
    match (goal, failure(view)) {
        (Goal::Deleted, _) | (_, None) => Verdict::Waiting,
        (_, Some((volume, why))) => Verdict::Failed { volume, why },
    }
}

/// The first volume that has failed, and why.
pub fn failure(view: &MigrationView) -> Option<(String, Option<String>)> {
    let failed = view.volumes.iter().find(|job| job.stage == "failed")?;
    Some((failed.name.clone(), failed.detail.clone()))
}

/// Whether there is nothing left to watch.
pub fn is_over(view: &MigrationView) -> bool {
    let cut_over = judge(Goal::CutOver, view) == Verdict::Reached;
    cut_over || judge(Goal::Deleted, view) == Verdict::Reached
}

/// What was already told of a migration.
#[derive(Debug, Default)]
pub struct News {
    told: BTreeMap<String, Standing>,
    reasons: BTreeSet<(String, String)>,
}

/// What makes a new line when it changes.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    stage: String,
    step: String,
    detail: Option<String>,
    pass: u32,
    tenth: u8,
    verdict: Option<String>,
    /// Whether a limit holds, and whether reading gives way; not at which pace, which may
    /// be another every second.
    is_held: [bool; 2],
}

impl Standing {
    fn of(job: &JobView) -> Self {
        let last = job.passes.last().map_or(0, |pass| pass.pass);
        let live = job.progress.as_ref();
        let held = live.map(|live| [live.limit_bytes_per_sec, live.reads_held_bytes_per_sec]);
        Self {
            stage: job.stage.clone(),
            step: job.step.clone(),
            detail: job.detail.clone(),
            pass: live.map_or(last, |live| live.pass),
            tenth: progress::pass_percent(job) / 10,
            verdict: job
                .forecast
                .as_ref()
                .map(|forecast| forecast.verdict.clone()),
            is_held: held.unwrap_or_default().map(|pace| pace.is_some()),
        }
    }
}

impl News {
    /// One line for each volume of which there is something new to say.
    pub fn lines(&mut self, view: &MigrationView) -> Vec<String> {
        let mut lines = Vec::new();
        for job in &view.volumes {
            let now = Standing::of(job);
            if self.told.get(&job.volume) != Some(&now) {
                lines.push(format!(
                    "{}/{}: {}",
                    view.name,
                    job.name,
                    progress::line(job)
                ));
                self.told.insert(job.volume.clone(), now);
            }
        }
        lines
    }

    /// One line for each reason to wait that was not told before.
    pub fn reasons(&mut self, view: &MigrationView) -> Vec<String> {
        let mut lines = Vec::new();
        for job in &view.volumes {
            let Some(detail) = &job.detail else { continue };
            if self.reasons.insert((job.volume.clone(), detail.clone())) {
                lines.push(format!(
                    "{}/{}: {}: {detail}",
                    view.name, job.name, job.stage
                ));
            }
        }
        lines
    }
}
