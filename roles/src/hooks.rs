//! When a node runs the hooks of its migrations: each point once for a migration, however
//! many disks it has and however often the node is started; what failed again, after a
//! while.
//!
//! ```text
//!          somebody waits          the scripts ended well
//!  nothing ─────────────▶ running ───────────────────────▶ passed, for good
//!     ▲                    │   ▲
//!     │ nobody waits       │   │ a while later, or the plan has other hooks
//!     └────────────────────┴─▶ failed
//! ```
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
}

impl Wire for Record {
    const NAME: &'static str = "record of hooks";
    const VERSION: u8 = 1;
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
        /// All hooks of the migration on this side.
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
}

/// The machine of one node.
#[derive(Debug, Default)]
pub struct Hooks {
    records: BTreeMap<MigrationId, Record>,
    runs: BTreeMap<At, Run>,
}

impl Hooks {
    /// Goes on from what was stored.
    pub fn new(stored: Vec<Record>) -> Self {
        let records = stored.into_iter();
        Self {
            records: records.map(|record| (record.migration, record)).collect(),
            runs: BTreeMap::new(),
        }
    }

    /// Whether what comes after a point of a migration may begin on a side.
    pub fn gate(&self, plan: &MigrationPlan, side: Side, point: Point) -> Gate {
        let at = At {
            migration: plan.id,
            side,
            point,
        };
        if !is_due(plan, at) || self.has_passed(at) {
            return Gate::Open;
        }
        match self.runs.get(&at).map(|run| &run.state) {
            None | Some(State::Running) => Gate::Running,
            Some(State::Failed { why, .. }) => Gate::Failed(why.clone()),
        }
    }

    fn has_passed(&self, at: At) -> bool {
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
            if !wanted.contains(at) && matches!(run.state, State::Running) && !run.is_cancelled {
                run.is_cancelled = true;
                out.push(Action::Cancel(*at));
            }
        }
        self.runs
            .retain(|at, run| wanted.contains(at) || matches!(run.state, State::Running));
        for at in wanted {
            let plan = situation.plan.migrations.get(&at.migration);
            if let Some(plan) = plan.filter(|plan| is_due(plan, at) && !self.has_passed(at)) {
                self.begin(situation.now, plan, at, out);
            }
        }
    }

    fn begin(&mut self, now: Now, plan: &MigrationPlan, at: At, out: &mut Vec<Action>) {
        let hooks = of_side(plan, at.side);
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
        };
        self.runs.insert(at, run);
        out.push(Action::Run {
            at,
            hooks,
            check_all: at.point == Point::BeforeReplication,
        });
    }

    /// Takes the result of a run.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Action>) {
        match input {
            Input::Passed(at) => {
                self.runs.remove(&at);
                let record = self.records.entry(at.migration).or_insert(Record {
                    migration: at.migration,
                    passed: BTreeSet::new(),
                });
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

/// The hooks of a migration on a side, in their order.
fn of_side(plan: &MigrationPlan, side: Side) -> Vec<Hook> {
    let hooks = plan.hooks.iter();
    hooks.filter(|hook| hook.on == side).cloned().collect()
}

/// Whether there is anything to do at that point: hooks to run, or, before all others,
/// scripts to look for.
fn is_due(plan: &MigrationPlan, at: At) -> bool {
    let mut hooks = plan.hooks.iter().filter(|hook| hook.on == at.side);
    hooks.any(|hook| at.point == Point::BeforeReplication || hook.point == at.point)
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
        let provisions = plan.provisioner == situation.me;
        if provisions && matches!(plan.desired, Desired::Started | Desired::Cutover { .. }) {
            // It has none to run at this point, and says what is missing in time.
            found.push(at(Side::Provisioner, Point::BeforeReplication));
        }
        if !matches!(plan.desired, Desired::Cutover { .. }) || !is_cut_over(situation, plan) {
            continue;
        }
        if provisions {
            found.push(at(Side::Provisioner, Point::AfterCutover));
        }
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
