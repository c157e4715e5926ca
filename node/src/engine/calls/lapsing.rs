//! What a revocation takes with it: what counts before it and does not after it.
//!
//! Not here: making it, and supposing that it was made (`members`, `mesh`).

use crate::api::model::Lapsed;
use crdt::{Document, LimitPlan, Limited, MigrationPlan, ServerPlan};
use keys::authority::Authority;
use keys::{MigrationId, NodeId, ServerId, Standing, UnixSecs};
use std::collections::BTreeMap;

/// What counts at one moment, by the words in which a person knows it.
pub(super) struct Counted {
    nodes: Vec<(NodeId, String)>,
    invites: Vec<String>,
    grants: Vec<(String, MigrationId)>,
    migrations: BTreeMap<MigrationId, MigrationPlan>,
    servers: BTreeMap<ServerId, ServerPlan>,
    limits: BTreeMap<Limited, LimitPlan>,
    /// Edits of the plan by one node, with all keys that it had.
    edits: u64,
}

impl Counted {
    pub(super) fn of(
        authority: &Authority,
        document: &Document,
        author: &NodeId,
        now: UnixSecs,
    ) -> Self {
        let nodes = authority
            .members()
            .filter(|member| !matches!(member.standing, Standing::Revoked(_) | Standing::Lapsed));
        let invites = authority
            .invites()
            .filter(|(_, state)| !state.revoked && now < state.invite.not_after);
        let grants = authority
            .grants()
            .filter(|(_, state)| !state.revoked && now < state.not_after);
        let heads = document.heads();
        let its = heads
            .iter()
            .filter(|(key, _)| authority.is_node(*author, **key));
        Self {
            nodes: nodes
                .map(|member| (member.id, member.name.to_string()))
                .collect(),
            invites: invites.map(|(id, _)| id.to_string()).collect(),
            grants: grants
                .map(|(id, state)| (id.to_string(), state.grant.migration))
                .collect(),
            migrations: document.plan().migrations.clone(),
            servers: document.plan().servers.clone(),
            limits: document.plan().limits.clone(),
            edits: its.map(|(_, head)| head.seq).sum(),
        }
    }

    /// What counted and does not any more, beside `target` itself.
    pub(super) fn without(&self, after: &Self, target: &NodeId) -> Lapsed {
        let invites = self.invites.iter();
        let nodes = self.nodes.iter().filter(|node| !after.nodes.contains(node));
        let grants = self.grants.iter();
        let grants = grants.filter(|grant| !after.grants.contains(grant));
        let (grants, granted): (Vec<String>, Vec<MigrationId>) = grants.cloned().unzip();
        let mut granted: Vec<String> = granted.iter().map(|id| self.migration(id)).collect();
        granted.sort();
        granted.dedup();
        let changed = self.migrations.iter();
        let changed = changed.filter(|(id, plan)| after.migrations.get(id) != Some(plan));
        let servers = self.servers.iter();
        let servers = servers.filter(|(id, plan)| after.servers.get(id) != Some(plan));
        let limits = self.limits.iter();
        let limits = limits.filter(|(of, set)| after.limits.get(of) != Some(set));
        Lapsed {
            nodes: nodes
                .filter(|(id, _)| id != target)
                .map(|(_, name)| name.clone())
                .collect(),
            invites: invites
                .filter(|one| !after.invites.contains(one))
                .cloned()
                .collect(),
            grants,
            granted,
            edits: self.edits.saturating_sub(after.edits),
            migrations: changed.map(|(id, _)| self.migration(id)).collect(),
            servers: servers.map(|(_, plan)| plan.name.clone()).collect(),
            limits: limits.map(|(of, _)| self.limited(of)).collect(),
        }
    }

    fn limited(&self, of: &Limited) -> String {
        match of {
            Limited::Server(id) => {
                let mut nodes = self.nodes.iter();
                let found = nodes.find(|(node, _)| node == id);
                let name = found.map_or_else(|| id.short(), |(_, name)| name.clone());
                format!("server {name}")
            }
            Limited::Site(_) => of.to_string(),
        }
    }

    fn migration(&self, id: &MigrationId) -> String {
        let plan = self.migrations.get(id);
        plan.map_or_else(|| id.short(), |plan| plan.name.clone())
    }
}
