//! Planning hooks: what an operator adds and takes away, as long as their point has not
//! passed.
//!
//! Not here: running them (`engine::hooks`).

use super::{CallError, Engine, refused, usage};
use crate::api::model::{MigrationView, PlannedHook};
use crate::views::find_migration;
use crdt::plan::hook::{Hook, Point, Side, check_hooks};
use crdt::{BadHook, Desired, MigrationPlan, Stage};

/// Steps of a disk whose blocks move.
const MOVING: [&str; 4] = ["comparing", "copying", "resting", "proving"];

impl Engine {
    /// Adds a hook behind those that are planned.
    pub fn migration_hook_add(
        &mut self,
        wanted: &str,
        asked: &PlannedHook,
    ) -> Result<MigrationView, CallError> {
        self.require_operator()?;
        let plan = find_migration(self.replica.document().plan(), wanted)?.clone();
        let mut hooks = plan.hooks.clone();
        hooks.push(hook_of(asked)?);
        self.set_hooks(&plan, hooks)
    }

    /// Takes away the hook of that number, from 1.
    pub fn migration_hook_remove(
        &mut self,
        wanted: &str,
        number: usize,
    ) -> Result<MigrationView, CallError> {
        self.require_operator()?;
        let plan = find_migration(self.replica.document().plan(), wanted)?.clone();
        let mut hooks = plan.hooks.clone();
        let at = number.checked_sub(1).filter(|at| *at < hooks.len());
        let at = at.ok_or_else(|| {
            usage(format!(
                "migration {} has {} hooks and none of number {number}: `dunlin migration hook list` numbers them",
                plan.name,
                hooks.len()
            ))
        })?;
        hooks.remove(at);
        self.set_hooks(&plan, hooks)
    }

    fn set_hooks(
        &mut self,
        plan: &MigrationPlan,
        hooks: Vec<Hook>,
    ) -> Result<MigrationView, CallError> {
        self.require_scope(plan)?;
        self.check_new_hooks(plan, &hooks)?;
        let id = plan.id;
        self.edit(move |edit| edit.set_hooks(id, &hooks))?;
        self.view(&id)
    }

    /// Whether these can take the place of the hooks that a migration has.
    pub(in crate::engine) fn check_new_hooks(
        &self,
        plan: &MigrationPlan,
        hooks: &[Hook],
    ) -> Result<(), CallError> {
        check_hooks(hooks).map_err(|error| match error {
            BadHook::TooMany => {
                let state = "full: a migration has at most 32 hooks, of 16 KiB in all";
                refused("add a hook to", plan, state, "remove another first")
            }
            error => usage(error),
        })?;
        let at = |hooks: &[Hook], point: Point| -> Vec<Hook> {
            let hooks = hooks.iter().filter(|hook| hook.point == point);
            hooks.cloned().collect()
        };
        let changed = |point: &Point| at(&plan.hooks, *point) != at(hooks, *point);
        let mut changed = Point::ALL.into_iter().filter(changed);
        changed.try_for_each(|point| {
            let removes = only_removes(&at(&plan.hooks, point), &at(hooks, point));
            self.refuse_if_passed(plan, point, removes)
        })
    }

    fn refuse_if_passed(
        &self,
        plan: &MigrationPlan,
        point: Point,
        removes: bool,
    ) -> Result<(), CallError> {
        let view = self.state_with(&[]).migration(plan);
        let is_moving = view.volumes.iter().any(|job| {
            job.barrier > 0 || !job.passes.is_empty() || MOVING.contains(&job.step.as_str())
        });
        let is_cut_over = view.stage == Stage::CutOver.to_string();
        let is_cutting = matches!(plan.desired, Desired::Cutover { .. });
        let state = match point {
            _ if plan.desired == Desired::Deleted => {
                // What holds up its end can be taken away.
                let holds = matches!(point, Point::BeforeCleanup | Point::AfterCutover);
                let is_open = holds && removes;
                (!is_open).then_some("deleted")
            }
            Point::BeforeReplication => is_moving.then_some("past that point: its blocks move"),
            Point::BeforeFreeze | Point::AfterFreeze | Point::AfterThaw => {
                is_cutting.then_some("cutting over")
            }
            // One that fails again and again can be taken away.
            Point::AfterCutover => (is_cut_over && !removes).then_some("cut over"),
            Point::BeforeCleanup => None,
        };
        match state {
            None => Ok(()),
            Some(state) => {
                let state = format!("{state}, and hooks at {point} stay as they are");
                Err(refused(
                    "change the hooks of",
                    plan,
                    &state,
                    "plan hooks before their point comes",
                ))
            }
        }
    }
}

/// Whether nothing was added, changed or put into another order.
fn only_removes(planned: &[Hook], wanted: &[Hook]) -> bool {
    let mut planned = planned.iter();
    wanted.iter().all(|hook| planned.any(|held| held == hook))
}

/// A hook as people plan it.
pub(in crate::engine) fn hook_of(asked: &PlannedHook) -> Result<Hook, CallError> {
    let read = || -> Result<Hook, BadHook> {
        let point: Point = asked.point.parse()?;
        let side: Side = asked.on.parse()?;
        let usual = Hook::new(point, side, &asked.name);
        let on_failure = asked.on_failure.as_deref().map(str::parse).transpose()?;
        let env = asked.env.iter();
        let hook = Hook {
            timeout_secs: asked.timeout_secs,
            on_failure: on_failure.unwrap_or(usual.on_failure),
            env: env
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            ..usual
        };
        hook.check()?;
        Ok(hook)
    };
    read().map_err(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_change_add_or_move_a_hook_is_more_than_to_remove_one() {
        let hook = |name| Hook::new(Point::AfterCutover, Side::Source, name);
        let planned = [hook("a"), hook("b"), hook("c")];
        assert!(only_removes(&planned, &[]));
        assert!(only_removes(&planned, &[hook("a"), hook("c")]));
        assert!(!only_removes(&planned, &[hook("d")]));
        assert!(!only_removes(&planned, &[hook("c"), hook("a")]));
        assert!(!only_removes(&planned[..1], &planned[..2]));
    }
}
