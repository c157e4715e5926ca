//! The plan in the form in which people edit it.

use super::State;
use super::lookup::find_member;
use crate::api::model::{PlanView, PlannedHook, PlannedMigration, PlannedServer};
use crdt::{Desired, MigrationPlan, Plan, ServerPlan};
use keys::PublicKey;
use keys::statement::Position;
use std::collections::BTreeMap;

impl State<'_> {
    /// The plan as it is now.
    pub fn plan_view(&self) -> PlanView {
        let heads = self.replica.document().heads();
        self.plan_as_edited(self.plan(), &heads)
    }

    /// The plan as it was when it was exported with this base; none if that is not
    /// known here.
    pub fn plan_view_at(&self, base: &[String]) -> Option<PlanView> {
        let heads: Option<BTreeMap<PublicKey, Position>> =
            base.iter().map(|text| parse_head(text)).collect();
        let heads = heads?;
        let plan = self.replica.document().plan_at(&heads)?;
        Some(self.plan_as_edited(&plan, &heads))
    }

    fn plan_as_edited(&self, plan: &Plan, heads: &BTreeMap<PublicKey, Position>) -> PlanView {
        let planned = plan.migrations.values();
        let mut live: Vec<&MigrationPlan> = planned
            .filter(|plan| plan.desired != Desired::Deleted)
            .collect();
        live.sort_by_key(|plan| (&plan.name, plan.id));
        let mut servers: Vec<&ServerPlan> = plan.servers.values().collect();
        servers.sort_by_key(|server| (&server.name, server.id));
        PlanView {
            base: heads.iter().map(head_text).collect(),
            servers: servers.into_iter().map(planned_server).collect(),
            limits: plan
                .limits
                .values()
                .map(|set| self.planned_limit(set))
                .collect(),
            migrations: live
                .into_iter()
                .map(|plan| self.planned_migration(plan))
                .collect(),
        }
    }

    fn planned_migration(&self, plan: &MigrationPlan) -> PlannedMigration {
        let report = self.replica.reports().get(&plan.source);
        let disk = |id: &keys::VolumeId| {
            let mut offered = report.into_iter().flat_map(|report| &report.volumes);
            let known = offered.find(|volume| volume.id == *id);
            known.map_or_else(|| id.to_string(), |volume| volume.name.clone())
        };
        PlannedMigration {
            id: Some(plan.id.to_string()),
            name: plan.name.clone(),
            server: self.called(&plan.source),
            to: plan.provider.clone(),
            site: plan.site.clone(),
            provisioner: Some(self.called(&plan.provisioner)),
            replicators: plan
                .replicators
                .iter()
                .map(|node| self.called(node))
                .collect(),
            disks: plan.volumes.iter().map(disk).collect(),
            leave_out: plan.leave_out.map(|what| what.to_string()),
            hooks: (!plan.hooks.is_empty())
                .then(|| plan.hooks.iter().map(PlannedHook::from).collect()),
        }
    }
}

impl State<'_> {
    /// What means this node alone: its name, or its id where another has that name.
    pub(super) fn called(&self, node: &keys::NodeId) -> String {
        let name = self.name_of(node);
        let found = find_member(self.replica.authority(), &name);
        match found {
            Ok(member) if member.id == *node => name,
            _ => node.to_string(),
        }
    }
}

pub(super) fn planned_server(server: &ServerPlan) -> PlannedServer {
    PlannedServer {
        id: Some(server.id.to_string()),
        name: server.name.clone(),
        site: server.site.clone(),
        address: server.address.clone(),
        wave: server.wave.clone(),
        note: server.note.clone(),
    }
}

fn head_text((author, at): (&PublicKey, &Position)) -> String {
    format!("{author} {} {}", at.seq, hex::encode(at.hash))
}

fn parse_head(text: &str) -> Option<(PublicKey, Position)> {
    let mut parts = text.split(' ');
    let author = parts.next()?.parse().ok()?;
    let seq = parts.next()?.parse().ok()?;
    let mut hash = [0; 32];
    hex::decode_to_slice(parts.next()?, &mut hash).ok()?;
    parts
        .next()
        .is_none()
        .then_some((author, Position { seq, hash }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_head_reads_back_from_its_text_and_from_no_other() {
        let head = (
            PublicKey([7; 32]),
            Position {
                seq: 12,
                hash: [9; 32],
            },
        );
        let text = head_text((&head.0, &head.1));
        assert_eq!(parse_head(&text), Some(head));
        assert_eq!(parse_head(&format!("{text} x")), None);
        assert_eq!(parse_head(&text[1..]), None);
        assert_eq!(parse_head(""), None);
    }
}
