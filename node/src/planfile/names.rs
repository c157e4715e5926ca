//! What the names of nodes and disks in a plan file stand for, so that a name and an id
//! of one thing compare equal.
//!
//! Not here: refusing what stands for nothing (`engine`).

use crate::api::model::{NodeView, ServerView};
use std::collections::{BTreeMap, BTreeSet};

/// Shortest beginning of an id that is looked at, as everywhere.
const MIN_PREFIX: usize = 4;

/// Nodes and disks by id and name.
#[derive(Debug, Clone, Default)]
pub struct Names {
    active: Vec<(String, String)>,
    others: Vec<(String, String)>,
    disks: BTreeMap<String, Vec<(String, String)>>,
}

impl Names {
    /// Of what a node knows.
    pub fn of(nodes: &[NodeView], servers: &[ServerView]) -> Self {
        let named = |active: bool| {
            let nodes = nodes.iter();
            let nodes = nodes.filter(|node| (node.state == "active") == active);
            nodes
                .map(|node| (node.id.clone(), node.name.clone()))
                .collect()
        };
        let disks = servers.iter().map(|server| {
            let disks = server.disks.iter();
            let disks = disks.map(|disk| (disk.id.clone(), disk.name.clone()));
            (server.id.clone(), disks.collect())
        });
        Self {
            active: named(true),
            others: named(false),
            disks: disks.collect(),
        }
    }

    /// The id of the node that a text means; the text itself where it means none, or one
    /// of several.
    pub fn node(&self, text: &str) -> String {
        let found = meant(&self.active, text).or_else(|| meant(&self.others, text));
        found.unwrap_or_else(|| text.to_owned())
    }

    /// Whether two lists mean the same disks of a server, in any order. Of a server that
    /// reports none any more nobody can tell, and nothing is said against it.
    pub fn same_disks(&self, server: &str, one: &[String], other: &[String]) -> bool {
        let Some(disks) = self.disks.get(&self.node(server)) else {
            return one.len() == other.len();
        };
        let ids = |list: &[String]| -> BTreeSet<String> {
            let ids = list.iter();
            ids.map(|text| meant(disks, text).unwrap_or_else(|| text.clone()))
                .collect()
        };
        ids(one) == ids(other)
    }
}

/// The only one of that name, or whose id begins so.
fn meant(items: &[(String, String)], text: &str) -> Option<String> {
    let fits = |(id, name): &&(String, String)| {
        name == text || (text.len() >= MIN_PREFIX && id.starts_with(text))
    };
    let mut fitting = items.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some((id, _)), None) => Some(id.clone()),
        _ => None,
    }
}
