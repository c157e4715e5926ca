//! Edits of the plan that come from a file: several of them are one change, and all are
//! checked before the first is made.
//!
//! Not here: what to edit (`planfile`).

use super::Engine;
use super::calls::hooks::hook_of;
use super::calls::{CallError, name_taken, usage};
use crate::api::model::{MigrationCreate, PlanEdit, PlannedMigration, PlannedServer};
use crdt::plan::hook::check_hooks;
use crdt::{
    Desired, Edit, EditError, EntryId, Hook, Limit, Limited, MigrationPlan, Plan, ServerPlan,
};
use keys::{MigrationId, Name, NodeId, ServerId};
use std::collections::{BTreeMap, BTreeSet};

/// One edit, checked and with all that it needs.
enum Ready {
    CreateServer(ServerPlan),
    ChangeServer(ServerPlan),
    DeleteServer(ServerId),
    SetLimit(Limited, Limit),
    RemoveLimit(Limited),
    CreateMigration(Box<MigrationPlan>),
    Rename(MigrationId, String),
    Pool(MigrationId, Vec<NodeId>),
    Hooks(MigrationId, Vec<Hook>),
}

/// The plan as the edits before have it, as far as the next ones depend on it.
struct Drafted {
    /// Names of migrations that are not deleted.
    names: BTreeMap<MigrationId, String>,
    /// Planned servers.
    servers: BTreeSet<ServerId>,
}

impl Drafted {
    fn of(plan: &Plan) -> Self {
        let live = plan.migrations.values();
        let live = live.filter(|plan| plan.desired != Desired::Deleted);
        Self {
            names: live.map(|plan| (plan.id, plan.name.clone())).collect(),
            servers: plan.servers.keys().copied().collect(),
        }
    }

    /// Gives a migration a name that no other has.
    fn name(&mut self, id: MigrationId, name: &str) -> Result<(), CallError> {
        Name::new(name).map_err(usage)?;
        let mut others = self.names.iter().filter(|(other, _)| **other != id);
        if others.any(|(_, taken)| taken == name) {
            return Err(name_taken(name));
        }
        self.names.insert(id, name.to_owned());
        Ok(())
    }
}

impl Engine {
    /// Makes all of `edits`, as one change, or none.
    pub fn plan_edit(&mut self, edits: &[PlanEdit]) -> Result<(), CallError> {
        let ready = self.make_ready(edits)?;
        self.edit(move |edit| ready.iter().try_for_each(|one| one.write(edit)))
    }

    /// Whether `edits` can be made, one after the other, as things stand.
    pub fn plan_check(&self, edits: &[PlanEdit]) -> Result<(), CallError> {
        self.make_ready(edits).map(drop)
    }

    fn make_ready(&self, edits: &[PlanEdit]) -> Result<Vec<Ready>, CallError> {
        self.require_operator()?;
        let mut drafted = Drafted::of(self.replica.document().plan());
        let mut ready = vec![];
        for edit in edits {
            match edit {
                PlanEdit::CreateMigration(wanted) => {
                    let mut plan = self.draft(&asked(wanted), wanted.name.clone())?;
                    plan.hooks = hooks_of(wanted)?;
                    check_hooks(&plan.hooks).map_err(usage)?;
                    self.require_scope(&plan)?;
                    drafted.name(plan.id, &plan.name)?;
                    if let Some(field) = plan.unsound() {
                        let entry = EntryId::Migration(plan.id);
                        return Err(EditError::Unsound { entry, field }.into());
                    }
                    ready.push(Ready::CreateMigration(Box::new(plan)));
                }
                PlanEdit::ChangeMigration(wanted) => {
                    self.change_migration(wanted, &mut drafted, &mut ready)?;
                }
                PlanEdit::CreateServer(server) => {
                    let fresh = match &server.id {
                        Some(id) => id_of(id)?,
                        None => ServerId(super::calls::random()?),
                    };
                    if !drafted.servers.insert(fresh) {
                        return Err(EditError::ServerExists(fresh).into());
                    }
                    ready.push(Ready::CreateServer(self.server_plan(fresh, server)?));
                }
                PlanEdit::ChangeServer(server) => {
                    let id = server_id(server)?;
                    if !drafted.servers.contains(&id) {
                        return Err(EditError::UnknownServer(id).into());
                    }
                    ready.push(Ready::ChangeServer(self.server_plan(id, server)?));
                }
                PlanEdit::DeleteServer(server) => {
                    let id = server_id(server)?;
                    if !drafted.servers.remove(&id) {
                        return Err(EditError::UnknownServer(id).into());
                    }
                    ready.push(Ready::DeleteServer(id));
                }
                PlanEdit::SetLimit(wanted) => {
                    let (of, limit) = self.limit_of(wanted)?;
                    ready.push(Ready::SetLimit(of, limit));
                }
                PlanEdit::RemoveLimit(of) => {
                    ready.push(Ready::RemoveLimit(self.limit_that_is_set(of)?));
                }
            }
        }
        Ok(ready)
    }

    fn server_plan(&self, id: ServerId, server: &PlannedServer) -> Result<ServerPlan, CallError> {
        let plan = ServerPlan {
            id,
            name: server.name.clone(),
            site: server.site.clone(),
            address: server.address.clone(),
            wave: server.wave.clone(),
            note: server.note.clone(),
            planned_by: self.replica.my_key(),
            conflicts: vec![],
        };
        match plan.unsound() {
            None => Ok(plan),
            Some(field) => {
                let entry = EntryId::Server(id);
                Err(EditError::Unsound { entry, field }.into())
            }
        }
    }

    /// What is not named in it stays as it is, and is not looked at.
    fn change_migration(
        &self,
        wanted: &PlannedMigration,
        drafted: &mut Drafted,
        ready: &mut Vec<Ready>,
    ) -> Result<(), CallError> {
        let id = wanted.id.as_deref().unwrap_or_default();
        let id: MigrationId = id_of(id)?;
        let plan = self.replica.document().plan();
        let held = plan.migrations.get(&id);
        let held = held.ok_or(EditError::UnknownMigration(id))?;
        if held.desired == Desired::Deleted {
            return Err(EditError::Deleted(id).into());
        }
        if held.name != wanted.name {
            drafted.name(id, &wanted.name)?;
            ready.push(Ready::Rename(id, wanted.name.clone()));
        }
        if wanted.hooks.is_some() {
            let hooks = hooks_of(wanted)?;
            self.check_new_hooks(held, &hooks)?;
            ready.push(Ready::Hooks(id, hooks));
        }
        if wanted.replicators.is_empty() {
            return Ok(());
        }
        let source = self.replica.authority().member(&held.source);
        let source = source.ok_or_else(|| {
            CallError::Failed(format!(
                "the source of migration {} is not known",
                held.name
            ))
        })?;
        let pool = self.choose_replicators(&asked(wanted), source, held.provisioner)?;
        if pool == held.replicators {
            return Ok(());
        }
        if held.desired != Desired::Created {
            return Err(CallError::Usage(format!(
                "migration {} was started, and its grant names its replicators: other ones can only be chosen before",
                held.name
            )));
        }
        self.require_scope(&MigrationPlan {
            replicators: pool.clone(),
            ..held.clone()
        })?;
        ready.push(Ready::Pool(id, pool));
        Ok(())
    }
}

impl Ready {
    fn write(&self, edit: &mut Edit<'_>) -> Result<(), EditError> {
        match self {
            Self::CreateServer(server) => edit.create_server(server),
            Self::ChangeServer(server) => edit.change_server(server),
            Self::DeleteServer(id) => edit.delete_server(*id),
            Self::SetLimit(of, limit) => edit.set_limit(of, limit),
            Self::RemoveLimit(of) => edit.remove_limit(of),
            Self::CreateMigration(plan) => edit.create_migration(plan),
            Self::Rename(id, name) => edit.rename(*id, name),
            Self::Pool(id, pool) => edit.set_pool(*id, pool),
            Self::Hooks(id, hooks) => edit.set_hooks(*id, hooks),
        }
    }
}

fn hooks_of(wanted: &PlannedMigration) -> Result<Vec<Hook>, CallError> {
    let hooks = wanted.hooks.iter().flatten();
    hooks.map(hook_of).collect()
}

fn asked(wanted: &PlannedMigration) -> MigrationCreate {
    MigrationCreate {
        name: Some(wanted.name.clone()),
        server: wanted.server.clone(),
        to: wanted.to.clone(),
        site: wanted.site.clone(),
        provisioner: wanted.provisioner.clone(),
        replicators: wanted.replicators.clone(),
        disks: wanted.disks.clone(),
        leave_out: wanted.leave_out.clone(),
    }
}

fn server_id(server: &PlannedServer) -> Result<ServerId, CallError> {
    id_of(server.id.as_deref().unwrap_or_default())
}

fn id_of<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, CallError> {
    text.parse().map_err(usage)
}
