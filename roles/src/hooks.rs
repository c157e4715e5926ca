//! When a node runs the hooks of its migrations: each point once for a migration, however
//! many disks it has and however often the node is started; what failed again, after a
//! while. Those around a freeze are run once for each attempt at the cutover.
//!
//! ```text
//!          somebody waits          the scripts ended well
//!  nothing ─────────────▶ running ───────────────────────▶ passed, for good
//!     ▲                    │   ▲
//!     │ nobody waits       │   │ a while later, or the plan has other hooks
//!     └────────────────────┴─▶ failed
//! ```
//!
//! Where the plan gets other hooks for a point while its scripts run, they are ended, and
//! however they end, that is no passing of the point: what is planned now is run.
//!
//! Before anything of a migration begins, every script that is planned here is looked for,
//! so that one that is missing is no surprise later. Not here: finding and running scripts,
//! which the shell does, and what waits for them (`agent`, `provisioner`).

use crate::situation::Situation;
use crate::{JobId, Now};
use codec::Wire;
use crdt::plan::hook::{Hook, Point, Side};
use crdt::plan::{Desired, MigrationPlan};
use keys::MigrationId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Wait before hooks that failed are run again; doubles up to the longest.
pub const FIRST_RETRY_MILLIS: u64 = 5_000;
/// Longest wait before hooks that failed are run again.
pub const LONGEST_RETRY_MILLIS: u64 = 600_000;

/// The hooks of one migration at one point, on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The migration.
    pub migration: MigrationId,
    /// The side.
    pub side: Side,
    /// The point.
    pub point: Point,
}

/// What must survive a crash: where hooks were run, and are not to be again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The migration.
    pub migration: MigrationId,
    /// Sides and points, in order.
    pub passed: BTreeSet<(Side, Point)>,
    /// Points around a freeze at which hooks were begun: what they did is to be undone, also
    /// where they did not come to their end.
    pub begun: BTreeSet<Point>,
}

impl Wire for Record {
    const NAME: &'static str = "record of hooks";
    const VERSION: u8 = 2;
    const LIMIT: usize = 256;
}

/// Whether what comes after a point may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// Hooks are to be run first, or run.
    Running,
    /// They failed, and why.
    Failed(String),
}

/// What the machine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// All hooks were run that had to be.
    Passed(At),
    /// One of them failed, and nothing is to follow.
    Failed(At, String),
    /// They were asked to end, and did.
    Cancelled(At),
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the record durable.
    Store(Record),
    /// Run those of these hooks that are at the point, in their order.
    Run {
        /// Which.
        at: At,
        /// The hooks of the point, and, with `check_all`, the others of this side.
        hooks: Vec<Hook>,
        /// Whether the scripts of all of them are to be looked for first.
        check_all: bool,
    },
    /// Have the hooks that run end.
    Cancel(At),
}

#[derive(Debug)]
enum State {
    Running,
    Failed { why: String, retry_millis: u64 },
}

#[derive(Debug)]
struct Run {
    state: State,
    hooks: Vec<Hook>,
    failures: u32,
    is_cancelled: bool,
    /// Whether the plan has other hooks now than those it was begun with.
    is_stale: bool,
}

/// The machine of one node.
#[derive(Debug, Default)]
pub struct Hooks {
    records: BTreeMap<MigrationId, Record>,
    runs: BTreeMap<At, Run>,
    /// Hooks whose scripts were found, where none of them was to be run. Not durable: they
    /// are looked for again after a start, and a hook that comes later is still run.
    looked_for: BTreeMap<At, Vec<Hook>>,
}

impl Hooks {
    /// Goes on from what was stored.
    pub fn new(stored: Vec<Record>) -> Self {
        let records = stored.into_iter();
        Self {
            records: records.map(|record| (record.migration, record)).collect(),
            runs: BTreeMap::new(),
            looked_for: BTreeMap::new(),
        }
    }

    /// Whether what comes after a point of a migration may begin on a side.
    pub fn gate(&self, plan: &MigrationPlan, side: Side, point: Point) -> Gate {
        let at = At {
            migration: plan.id,
            side,
            point,
        };
        match self.runs.get(&at).map(|run| &run.state) {
            // Also one that is planned no more, and has yet to end.
            Some(State::Running) => Gate::Running,
            _ if !self.is_due(plan, at) => Gate::Open,
            None => Gate::Running,
            Some(State::Failed { why, .. }) => Gate::Failed(why.clone()),
        }
    }

    /// Whether there is anything to do at that point: hooks to run, or, before all others,
    /// scripts to look for.
    fn is_due(&self, plan: &MigrationPlan, at: At) -> bool {
        let hooks = self.due(plan, at);
        !hooks.is_empty() && !self.has_passed(at) && self.looked_for.get(&at) != Some(&hooks)
    }

    /// The hooks that matter at a point, in their order: those that are run then, and, before
    /// all others, those of later points, whose scripts are looked for.
    fn due(&self, plan: &MigrationPlan, at: At) -> Vec<Hook> {
        let hooks = plan.hooks.iter().filter(|hook| hook.on == at.side);
        let matters = |hook: &&Hook| match hook.point == at.point {
            true => true,
            false => {
                let point = hook.point;
                looks_for_all(at) && !self.has_passed(At { point, ..at })
            }
        };
        hooks.filter(matters).cloned().collect()
    }

    /// Has the hooks of these points of the source run again when the points come next.
    pub fn again(&mut self, migration: MigrationId, points: &[Point], out: &mut Vec<Action>) {
        let Some(record) = self.records.get_mut(&migration) else {
            return;
        };
        let before = record.clone();
        record
            .passed
            .retain(|(side, point)| *side != Side::Source || !points.contains(point));
        record.begun.retain(|point| !points.contains(point));
        if *record != before {
            out.push(Action::Store(record.clone()));
        }
    }

    /// Whether hooks around a freeze were begun on the source, of which what they did is to
    /// be undone.
    pub fn has_begun(&self, migration: MigrationId) -> bool {
        let record = self.records.get(&migration);
        record.is_some_and(|record| !record.begun.is_empty())
    }

    fn record(&mut self, migration: MigrationId) -> &mut Record {
        self.records.entry(migration).or_insert_with(|| Record {
            migration,
            passed: BTreeSet::new(),
            begun: BTreeSet::new(),
        })
    }

    /// Whether hooks of that side have been asked to end and have not yet: what comes after
    /// them may undo what they do.
    fn is_ending(&self, at: At) -> bool {
        let is_of_it = |other: &At| (other.migration, other.side) == (at.migration, at.side);
        let mut runs = self.runs.iter();
        runs.any(|(other, run)| {
            is_of_it(other)
                && *other != at
                && run.is_cancelled
                && matches!(run.state, State::Running)
        })
    }

    /// Whether the hooks of a point were run, and are not to be again.
    pub fn has_passed(&self, at: At) -> bool {
        let record = self.records.get(&at.migration);
        record.is_some_and(|record| record.passed.contains(&(at.side, at.point)))
    }

    /// Begins and ends runs: for what waits, and for what has happened by the situation.
    /// Call when anything changed and on a tick.
    pub fn settle(
        &mut self,
        situation: &Situation<'_>,
        waiting: &BTreeSet<At>,
        out: &mut Vec<Action>,
    ) {
        let mut wanted: BTreeSet<At> = waiting.clone();
        if situation.is_heard && !situation.authority.is_cloned(&situation.my_key) {
            wanted.extend(happened(situation));
        } else {
            wanted.clear();
        }
        for (at, run) in &mut self.runs {
            let plan = situation.plan.migrations.get(&at.migration);
            let planned = plan.map_or(&[][..], |plan| &plan.hooks);
            run.is_stale |= !run_at(&run.hooks, *at).eq(run_at(planned, *at));
            let is_over = run.is_stale || !wanted.contains(at);
            if is_over && matches!(run.state, State::Running) && !run.is_cancelled {
                run.is_cancelled = true;
                out.push(Action::Cancel(*at));
            }
        }
        self.runs
            .retain(|at, run| wanted.contains(at) || matches!(run.state, State::Running));
        let migrations = &situation.plan.migrations;
        self.looked_for
            .retain(|at, _| migrations.contains_key(&at.migration));
        for at in wanted {
            let plan = migrations.get(&at.migration);
            let is_due = |plan: &&MigrationPlan| self.is_due(plan, at) && !self.is_ending(at);
            if let Some(plan) = plan.filter(is_due) {
                self.begin(situation.now, plan, at, out);
            }
        }
    }

    fn begin(&mut self, now: Now, plan: &MigrationPlan, at: At, out: &mut Vec<Action>) {
        let hooks = self.due(plan, at);
        let failures = match self.runs.get(&at) {
            None => 0,
            Some(run) => match &run.state {
                State::Running => return,
                State::Failed { .. } if run.hooks != hooks => 0,
                State::Failed { retry_millis, .. } if now.mono_millis < *retry_millis => return,
                State::Failed { .. } => run.failures,
            },
        };
        let run = Run {
            state: State::Running,
            hooks: hooks.clone(),
            failures,
            is_cancelled: false,
            is_stale: false,
        };
        self.runs.insert(at, run);
        let is_undone = matches!(at.point, Point::BeforeFreeze | Point::AfterFreeze);
        if at.side == Side::Source && is_undone && self.record(at.migration).begun.insert(at.point)
        {
            out.push(Action::Store(self.record(at.migration).clone()));
        }
        out.push(Action::Run {
            at,
            hooks,
            check_all: looks_for_all(at),
        });
    }

    fn is_stale(&self, at: At) -> bool {
        self.runs.get(&at).is_some_and(|run| run.is_stale)
    }

    /// Takes the result of a run.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Action>) {
        match input {
            Input::Passed(at) | Input::Failed(at, _) if self.is_stale(at) => {
                self.runs.remove(&at);
            }
            Input::Passed(at) => {
                if let Some(run) = self.runs.remove(&at)
                    && run_at(&run.hooks, at).next().is_none()
                {
                    self.looked_for.insert(at, run.hooks);
                    return;
                }
                let record = self.record(at.migration);
                record.passed.insert((at.side, at.point));
                out.push(Action::Store(record.clone()));
            }
            Input::Failed(at, why) => {
                if let Some(run) = self.runs.get_mut(&at) {
                    let wait = FIRST_RETRY_MILLIS << run.failures.min(8);
                    run.failures += 1;
                    run.state = State::Failed {
                        why,
                        retry_millis: now.mono_millis + wait.min(LONGEST_RETRY_MILLIS),
                    };
                }
            }
            Input::Cancelled(at) => drop(self.runs.remove(&at)),
        }
    }
}

/// Those of some hooks that are run at a point, in their order.
fn run_at(hooks: &[Hook], at: At) -> impl Iterator<Item = &Hook> {
    let is_run = move |hook: &&Hook| hook.on == at.side && hook.point == at.point;
    hooks.iter().filter(is_run)
}

fn looks_for_all(at: At) -> bool {
    at.point == Point::BeforeReplication
}

/// Points that came by themselves: nothing waits for their hooks.
fn happened(situation: &Situation<'_>) -> Vec<At> {
    let mut found = vec![];
    for plan in situation.plan.migrations.values() {
        let at = |side, point| At {
            migration: plan.id,
            side,
            point,
        };
        let others = [
            (Side::Provisioner, plan.provisioner == situation.me),
            (Side::Operator, situation.has_planned(plan)),
        ];
        let others = others.into_iter().filter(|(_, is_me)| *is_me);
        if matches!(plan.desired, Desired::Started | Desired::Cutover { .. }) {
            // They have none to run at this point, and say what is missing in time.
            let before = others.clone();
            found.extend(before.map(|(side, _)| at(side, Point::BeforeReplication)));
        }
        // What was cut over is so for good, also where the migration was deleted right after.
        let may_be = matches!(plan.desired, Desired::Cutover { .. } | Desired::Deleted);
        if !may_be || !is_cut_over(situation, plan) {
            continue;
        }
        found.extend(others.map(|(side, _)| at(side, Point::AfterCutover)));
        if plan.source == situation.me {
            found.push(at(Side::Source, Point::AfterCutover));
        }
    }
    found
}

/// Whether the agent has stated the root of every disk.
fn is_cut_over(situation: &Situation<'_>, plan: &MigrationPlan) -> bool {
    let mut jobs = plan.volumes.iter().map(|volume| JobId {
        migration: plan.id,
        volume: *volume,
    });
    jobs.all(|job| situation.source_stated(&job).is_some())
}

#[cfg(test)]
mod tests;
