//! Asking for checkpoints: taking and deleting them, how many are kept, and copies of them
//! that can be written to.
//!
//! Not here: taking them (`engine::points`), and keeping them.

use super::{CallError, Engine, IS_CUT_OVER, refuse_if_final, refused, usage};
use crate::api::model::{CheckpointAsk, MigrationView};
use crate::views::find_migration;
use crdt::{Desired, EditError, MigrationPlan, Stage, Wish};
use keys::{CheckpointName, UnixSecs};
use roles::launch::Evidence;

/// How names of checkpoints begin that were taken for a test.
const TEST: &str = "test-";

impl Engine {
    /// Carries out what an operator asks about checkpoints.
    pub fn migration_checkpoint(
        &mut self,
        wanted: &str,
        asked: CheckpointAsk,
    ) -> Result<MigrationView, CallError> {
        self.require_operator()?;
        let plan = find_migration(self.replica.document().plan(), wanted)?.clone();
        self.require_scope(&plan)?;
        match asked {
            CheckpointAsk::Take { name } => {
                let name = name.unwrap_or_else(|| time_name(self.now().wall));
                self.take(&plan, &name_of(&name)?, Wish::Kept)?;
            }
            CheckpointAsk::Delete { name } => {
                let action = "delete a checkpoint of";
                let name = known(&plan, action, &name)?;
                refuse_if_copied(action, &plan, |of| *of == name)?;
                let id = plan.id;
                self.edit(|edit| edit.set_checkpoint(id, &name, Wish::Deleted))?;
            }
            CheckpointAsk::Keep { number } => {
                if !MigrationPlan::may_keep(number) {
                    return Err(usage(format!(
                        "a migration keeps 1 to 32 checkpoints, not {number}"
                    )));
                }
                let id = plan.id;
                self.edit(|edit| edit.keep_checkpoints(id, Some(number)))?;
            }
            CheckpointAsk::Rollback { name } => self.roll_back(&plan, &name)?,
            CheckpointAsk::Test { name: None } => {
                let name = format!("{TEST}{}", time_name(self.now().wall));
                self.take(&plan, &name_of(&name)?, Wish::Copied)?;
            }
            CheckpointAsk::Test { name: Some(name) } => {
                let name = self.good(&plan, "test a checkpoint of", &name)?;
                let id = plan.id;
                self.edit(|edit| edit.set_checkpoint(id, &name, Wish::Copied))?;
            }
            CheckpointAsk::EndTest { name } => self.end_test(&plan, name.as_deref())?,
        }
        self.view(&plan.id)
    }

    /// Asks for one; what is one too many is deleted by that.
    fn take(
        &mut self,
        plan: &MigrationPlan,
        name: &CheckpointName,
        wish: Wish,
    ) -> Result<(), CallError> {
        let action = "take a checkpoint of";
        let allowed = match plan.desired {
            Desired::Started => None,
            Desired::Created => Some(("not started", "start it first")),
            Desired::Paused => Some(("paused", "resume it first")),
            Desired::Cutover { .. } => Some((
                "cutting over, or cut over",
                "take checkpoints before; a cutover that is not done is taken back by a pause",
            )),
            Desired::Deleted => Some(("deleted", "create a new one")),
        };
        if let Some((state, allowed)) = allowed {
            return Err(refused(action, plan, state, allowed));
        }
        let evidence = self.evidence(&plan.id);
        let expired = evidence.map_or_else(Vec::new, |evidence| {
            plan.checkpoints.expired(|name| evidence.is_good(name))
        });
        let id = plan.id;
        self.edit(|edit| {
            for name in &expired {
                edit.set_checkpoint(id, name, Wish::Deleted)?;
            }
            edit.ask_checkpoint(id, name, wish)
        })
    }

    fn roll_back(&mut self, plan: &MigrationPlan, name: &str) -> Result<(), CallError> {
        let action = "roll back";
        let view = self.view(&plan.id)?;
        match plan.desired {
            Desired::Deleted => {
                return Err(refused(action, plan, "deleted", "create a new one"));
            }
            Desired::Cutover { .. } if view.stage == Stage::CutOver.to_string() => {
                return Err(refused(action, plan, "cut over", IS_CUT_OVER));
            }
            Desired::Cutover { .. } => refuse_if_final(action, plan, &view)?,
            Desired::Created | Desired::Started | Desired::Paused => {}
        }
        let name = self.good(plan, action, name)?;
        let (id, goes) = (plan.id, plan.desired != Desired::Created);
        self.edit(|edit| {
            if goes {
                edit.set_desired(id, Desired::Paused)?;
            }
            edit.set_checkpoint(id, &name, Wish::Copied)
        })
    }

    fn end_test(&mut self, plan: &MigrationPlan, name: Option<&str>) -> Result<(), CallError> {
        let action = "end a test of";
        let copied = plan.checkpoints.wanted().into_iter();
        let copied = copied.filter(|(_, checkpoint)| checkpoint.wish == Wish::Copied);
        let is_meant = |of: &CheckpointName| match name {
            Some(name) => of.as_str() == name,
            None => of.as_str().starts_with(TEST),
        };
        let ended: Vec<CheckpointName> = copied
            .map(|(name, _)| name.clone())
            .filter(is_meant)
            .collect();
        if ended.is_empty() {
            let allowed = "`dunlin migration checkpoint ID --list` lists copies; name the checkpoint with --checkpoint";
            return Err(refused(action, plan, "not tested", allowed));
        }
        let id = plan.id;
        self.edit(|edit| {
            let mut ended = ended.iter();
            ended.try_for_each(|name| edit.set_checkpoint(id, name, Wish::Kept))
        })
    }

    /// A checkpoint that is kept of every disk, and was read back, and of which there is no
    /// copy: that may hold something else by now.
    fn good(
        &self,
        plan: &MigrationPlan,
        action: &'static str,
        name: &str,
    ) -> Result<CheckpointName, CallError> {
        let name = known(plan, action, name)?;
        let evidence = self.evidence(&plan.id);
        if evidence
            .as_ref()
            .is_some_and(|evidence| evidence.is_good(&name))
        {
            refuse_if_copied(action, plan, |of| *of == name)?;
            let is_left = |evidence: &Evidence<'_>| {
                let mut volumes = plan.volumes.iter();
                volumes.any(|volume| {
                    let kept = evidence.kept(volume, &name);
                    kept.is_some_and(|kept| kept.copy.is_some())
                })
            };
            if evidence.as_ref().is_some_and(is_left) {
                let state = format!("with a copy of checkpoint {name} that is yet to be deleted");
                let allowed = "ask again once `dunlin migration show` does not have it any more";
                return Err(refused(action, plan, &state, allowed));
            }
            return Ok(name);
        }
        let state = format!("without a verified copy of checkpoint {name} of every disk");
        let allowed = "`dunlin migration checkpoint ID --list` shows how far each is";
        Err(refused(action, plan, &state, allowed))
    }
}

/// Refuses what would take away, or pass for new, a copy on which a server may run.
pub(super) fn refuse_if_copied(
    action: &'static str,
    plan: &MigrationPlan,
    is_meant: impl Fn(&CheckpointName) -> bool,
) -> Result<(), CallError> {
    let wanted = plan.checkpoints.wanted().into_iter();
    let mut copied = wanted.filter(|(_, checkpoint)| checkpoint.wish == Wish::Copied);
    copied.find(|(name, _)| is_meant(name)).map_or(Ok(()), |(name, _)| {
        let state = format!(
            "with a copy of checkpoint {name} that may have been written to, and that a server may run on"
        );
        let allowed = format!(
            "where nobody needs that copy, delete it first: `dunlin migration test {} --end --checkpoint {name}`",
            plan.name
        );
        Err(refused(action, plan, &state, &allowed))
    })
}

fn name_of(text: &str) -> Result<CheckpointName, CallError> {
    CheckpointName::new(text).map_err(usage)
}

/// One that is wanted.
fn known(
    plan: &MigrationPlan,
    action: &'static str,
    name: &str,
) -> Result<CheckpointName, CallError> {
    let name = name_of(name)?;
    if plan.desired == Desired::Deleted {
        return Err(EditError::Deleted(plan.id).into());
    }
    match plan.checkpoints.get(&name) {
        Some(_) => Ok(name),
        None => {
            let state = format!("without a checkpoint {name}");
            let allowed = "`dunlin migration checkpoint ID --list` lists those there are";
            Err(refused(action, plan, &state, allowed))
        }
    }
}

/// A time as a name, in UTC: `20261127-041500`.
fn time_name(at: UnixSecs) -> String {
    let at = at.to_string();
    let kept = at.chars().filter(|c| c.is_ascii_digit() || *c == 'T');
    kept.map(|c| if c == 'T' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_name() {
        let name = time_name(UnixSecs(1_764_216_900));
        assert_eq!(name, "20251127-041500");
        assert!(CheckpointName::new(&format!("{TEST}{name}")).is_ok());
    }
}
