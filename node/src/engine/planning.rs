//! Edits of the plan that come from a file: several of them are one change.
//!
//! Not here: what to edit (`planfile`).

use super::Engine;
use super::calls::CallError;
use crate::api::model::{MigrationCreate, PlanEdit, PlannedMigration, PlannedServer};
use crate::views::find_member;
use crdt::{Desired, Edit, EditError, MigrationPlan, ServerPlan};
use keys::{MigrationId, Name, NodeId, ServerId};

/// One edit, checked and with all that it needs.
enum Ready {
    CreateServer(ServerPlan),
    ChangeServer(ServerPlan),
    DeleteServer(ServerId),
    CreateMigration(Box<MigrationPlan>),
    Rename(MigrationId, String),
    Pool(MigrationId, Vec<NodeId>),
}

impl Engine {
    /// Makes all of `edits`, as one change, or none.
    pub fn plan_edit(&mut self, edits: &[PlanEdit]) -> Result<(), CallError> {
        self.require_operator()?;
        let mut ready = vec![];
        for edit in edits {
            self.make_ready(edit, &mut ready)?;
        }
        self.edit(move |edit| ready.iter().try_for_each(|one| one.write(edit)))
    }

    fn make_ready(&self, edit: &PlanEdit, ready: &mut Vec<Ready>) -> Result<(), CallError> {
        match edit {
            PlanEdit::CreateServer(server) => {
                let fresh = match &server.id {
                    Some(id) => id_of(id)?,
                    None => ServerId(super::calls::random()?),
                };
                ready.push(Ready::CreateServer(self.server_plan(fresh, server)));
            }
            PlanEdit::ChangeServer(server) => {
                let id = server_id(server)?;
                ready.push(Ready::ChangeServer(self.server_plan(id, server)));
            }
            PlanEdit::DeleteServer(server) => ready.push(Ready::DeleteServer(server_id(server)?)),
            PlanEdit::CreateMigration(wanted) => {
                let plan = self.draft(&asked(wanted))?;
                ready.push(Ready::CreateMigration(Box::new(plan)));
            }
            PlanEdit::ChangeMigration(wanted) => self.change_migration(wanted, ready)?,
        }
        Ok(())
    }

    fn server_plan(&self, id: ServerId, server: &PlannedServer) -> ServerPlan {
        ServerPlan {
            id,
            name: server.name.clone(),
            site: server.site.clone(),
            address: server.address.clone(),
            wave: server.wave.clone(),
            note: server.note.clone(),
            planned_by: self.replica.my_key(),
            conflicts: vec![],
        }
    }

    fn change_migration(
        &self,
        wanted: &PlannedMigration,
        ready: &mut Vec<Ready>,
    ) -> Result<(), CallError> {
        let id = wanted.id.as_deref().unwrap_or_default();
        let id: MigrationId = id_of(id)?;
        let plan = self.replica.document().plan();
        let held = plan.migrations.get(&id);
        let held = held.ok_or(EditError::UnknownMigration(id))?;
        if held.name != wanted.name {
            Name::new(&wanted.name).map_err(super::calls::usage)?;
            ready.push(Ready::Rename(id, wanted.name.clone()));
        }
        let source = self.replica.authority().member(&held.source);
        let source = source.ok_or_else(|| {
            CallError::Failed(format!(
                "the source of migration {} is not known",
                held.name
            ))
        })?;
        let pool = self.choose_replicators(&asked(wanted), source)?;
        if pool != held.replicators {
            if held.desired != Desired::Created {
                return Err(CallError::Usage(format!(
                    "migration {} was started, and its grant names its replicators: other ones can only be chosen before",
                    held.name
                )));
            }
            ready.push(Ready::Pool(id, pool));
        }
        let authority = self.replica.authority();
        let same_source = find_member(authority, &wanted.server)?.id == held.source;
        if !same_source || wanted.to != held.provider || wanted.site != held.site {
            return Err(CallError::Usage(format!(
                "migration {} has its source and target for good: create another one",
                held.name
            )));
        }
        Ok(())
    }
}

impl Ready {
    fn write(&self, edit: &mut Edit<'_>) -> Result<(), EditError> {
        match self {
            Self::CreateServer(server) => edit.create_server(server),
            Self::ChangeServer(server) => edit.change_server(server),
            Self::DeleteServer(id) => edit.delete_server(*id),
            Self::CreateMigration(plan) => edit.create_migration(plan),
            Self::Rename(id, name) => edit.rename(*id, name),
            Self::Pool(id, pool) => edit.set_pool(*id, pool),
        }
    }
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
    }
}

fn server_id(server: &PlannedServer) -> Result<ServerId, CallError> {
    id_of(server.id.as_deref().unwrap_or_default())
}

fn id_of<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, CallError> {
    text.parse().map_err(super::calls::usage)
}
