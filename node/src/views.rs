//! The local API's answers, made from the replica and what the node knows live.
//!
//! The same functions serve a running node and a command that reads stored state
//! while the node is stopped: then nothing is connected and nothing has progress.

mod checkpoints;
mod figures;
mod left_out;
mod limits;
mod lookup;
mod migrations;
mod nodes;
mod plan;

pub use lookup::{LookupError, find_limited, find_member, find_migration, find_volume};
pub use nodes::volume_view;

use crate::api::model::{EventQuery, EventView, HeadsView, StatusView};
use crate::engine::Figures;
use crdt::{Event, Plan};
use keys::{NodeId, PublicKey, UnixSecs};
use mesh::Replica;
use roles::JobId;
use std::collections::{BTreeMap, BTreeSet};

/// Warnings shown in a glance.
const MAX_WARNINGS: usize = 5;

/// Live figures of one job, from this node's own session or from gossip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// The figures.
    pub figures: Figures,
    /// When they were made or heard here.
    pub at: UnixSecs,
    /// The next ones come so much later, in a mesh of this size.
    pub pace_millis: u64,
}

/// Everything a view is made from.
pub struct State<'a> {
    /// Ledger, document and reports.
    pub replica: &'a Replica,
    /// Whom this node is connected to; none when it is not running.
    pub connected: Option<&'a BTreeSet<PublicKey>>,
    /// Live figures.
    pub live: &'a BTreeMap<JobId, Live>,
    /// Where this node listens.
    pub listening: &'a [String],
    /// This node's own events, oldest first.
    pub events: &'a [Event],
    /// The machine that the data folder is bound to.
    pub binding: Option<&'a crate::machine::Binding>,
    /// The member that says that this node was revoked.
    pub said_revoked: Option<PublicKey>,
    /// The time.
    pub now: UnixSecs,
}

impl State<'_> {
    fn me(&self) -> Option<NodeId> {
        self.replica.me()
    }

    fn plan(&self) -> &Plan {
        self.replica.document().plan()
    }

    /// What a node told, as far as it is known here, oldest first.
    fn told_by(&self, node: &NodeId) -> &[Event] {
        let report = self.replica.reports().get(node);
        match self.me() == Some(*node) {
            true => self.events,
            false => report
                .map(|report| report.events.as_slice())
                .unwrap_or_default(),
        }
    }

    fn name_of(&self, node: &NodeId) -> String {
        let member = self.replica.authority().member(node);
        member.map_or_else(|| node.short(), |member| member.name.to_string())
    }

    fn name_of_key(&self, key: &PublicKey) -> String {
        let member = self.replica.authority().by_key(key);
        member.map_or_else(|| key.short(), |member| member.name.to_string())
    }

    /// This node and its mesh at a glance.
    pub fn status(&self) -> Result<StatusView, LookupError> {
        let nodes = self.nodes();
        let node = nodes
            .iter()
            .find(|node| node.this_node)
            .cloned()
            .ok_or(LookupError::NotEnrolled)?;
        let active: Vec<_> = nodes.iter().filter(|node| node.state == "active").collect();
        let mut warnings: Vec<EventView> = self
            .events(&EventQuery::default())?
            .into_iter()
            .filter(|event| event.level != "info")
            .collect();
        let excess = warnings.len().saturating_sub(MAX_WARNINGS);
        warnings.drain(..excess);
        Ok(StatusView {
            version: env!("CARGO_PKG_VERSION").into(),
            running: self.connected.is_some(),
            machine: self
                .binding
                .map(|binding| binding.text())
                .unwrap_or_default(),
            may_write: self.connected.is_some() && self.replica.may_write(),
            mesh: self.replica.ledger().mesh().to_string(),
            mesh_name: self.mesh_name(),
            node,
            nodes: active.len(),
            connected: active
                .iter()
                .filter(|node| !node.this_node && node.connected == Some(true))
                .count(),
            listening: self.listening.to_vec(),
            heads: heads_view(&self.replica.heads()),
            migrations: self.migrations(),
            warnings,
        })
    }

    /// Events of all nodes as far as they are known here: this node's own in full, of
    /// the others the newest that they report. In the order of their clocks.
    pub fn events(&self, query: &EventQuery) -> Result<Vec<EventView>, LookupError> {
        let migration = match &query.migration {
            Some(wanted) => Some(find_migration(self.plan(), wanted)?.id),
            None => None,
        };
        let since = UnixSecs(query.since.unwrap_or(0));
        let wanted = |event: &Event| {
            event.at >= since && (migration.is_none() || event.migration == migration)
        };
        let me = self.me();
        let mine = me.map(|node| self.name_of(&node)).unwrap_or_default();
        let own = self.events.iter();
        let mut all: Vec<(UnixSecs, EventView)> = own
            .filter(|event| wanted(event) && query.after.is_none_or(|after| event.seq > after))
            .map(|event| (event.at, event_view(&mine, event)))
            .collect();
        if query.after.is_none() {
            for (node, report) in self.replica.reports().iter() {
                if Some(*node) != me {
                    let name = self.name_of(node);
                    let theirs = report.events.iter().filter(|event| wanted(event));
                    all.extend(theirs.map(|event| (event.at, event_view(&name, event))));
                }
            }
        }
        all.sort_by(|(at, a), (other_at, b)| (at, &a.node, a.seq).cmp(&(other_at, &b.node, b.seq)));
        Ok(all.into_iter().map(|(_, view)| view).collect())
    }
}

fn heads_view(heads: &mesh::Heads) -> HeadsView {
    HeadsView {
        ledger: hex::encode(heads.ledger),
        logs: hex::encode(heads.logs),
        reports: hex::encode(heads.reports),
    }
}

fn event_view(node: &str, event: &Event) -> EventView {
    EventView {
        node: node.to_owned(),
        seq: event.seq,
        at: event.at.to_string(),
        level: event.level.to_string(),
        migration: event.migration.map(|id| id.to_string()),
        kind: event.kind.clone(),
        text: event.text.clone(),
    }
}
