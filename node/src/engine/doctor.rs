//! What the running node knows for `dunlin doctor`.
//!
//! Not here: the checks (`doctor`).

use super::{CallError, Engine};
use crate::doctor::{Disk, Facts, Live};
use crate::net::Net;
use crate::views::State;
use crdt::{Hook, Side};
use keys::PublicKey;

/// Facts that lack the links, and where these are asked for.
pub struct Asked {
    facts: Facts,
    net: Net,
    connected: Vec<(String, PublicKey)>,
}

impl Engine {
    /// What is known here.
    pub fn doctor(&mut self) -> Result<Asked, CallError> {
        let folder = self.dir.path().to_owned();
        let mut facts = self.with_state(|state| facts(state, folder))?;
        let disk = |record: &roles::replicator::Record| copy(record);
        facts.copies = self.replicator.records().map(disk).collect();
        let authority = self.replica.authority();
        let id_of = |key: &PublicKey| Some(authority.by_key(key)?.id.to_string());
        let work = self.situation();
        let work = work.map(|situation| (situation.partners(), situation.needed()));
        let (partners, needed) = work.unwrap_or_default();
        let connected = self.connected.iter();
        let connected = connected.filter_map(|key| Some((id_of(key)?, *key)));
        let cloud = self.providers.keys().any(|kind| kind == "local");
        let cloud = cloud.then(|| {
            let chosen = self.config.local_cloud.clone();
            chosen.unwrap_or_else(|| self.dir.cloud())
        });
        facts.live = Some(Live {
            may_write: self.replica.may_write(),
            listening: self.listening.clone(),
            partners: partners.iter().filter_map(id_of).collect(),
            needed: needed.iter().filter_map(id_of).collect(),
            links: Default::default(),
            cloud,
            hooks: Some((self.hook_folder(), self.planned_hooks())),
        });
        Ok(Asked {
            connected: connected.collect(),
            facts,
            net: self.net.clone(),
        })
    }
}

impl Engine {
    /// Hooks that are planned to be run here, of migrations that are not over.
    fn planned_hooks(&self) -> Vec<(String, Hook)> {
        let Some(situation) = self.situation() else {
            return vec![];
        };
        let plans = situation.plan.migrations.values();
        let open = plans.filter(|plan| !situation.is_over(plan));
        let hooks = open.flat_map(|plan| {
            let here = |hook: &&Hook| match hook.on {
                Side::Source => plan.source == situation.me,
                Side::Provisioner => plan.provisioner == situation.me,
                Side::Operator => situation.has_planned(plan),
            };
            let hooks = plan.hooks.iter().filter(here);
            hooks.map(|hook| (plan.name.clone(), hook.clone()))
        });
        hooks.collect()
    }
}

impl Asked {
    /// With the links.
    pub async fn facts(mut self) -> Facts {
        for (id, key) in self.connected {
            let links = self.net.links(key.0).await.shared;
            if let Some(live) = &mut self.facts.live {
                live.links.insert(id, links);
            }
        }
        self.facts
    }
}

/// What is known of a node from its state, whether it runs or not.
pub fn facts(state: &State<'_>, folder: std::path::PathBuf) -> Result<Facts, CallError> {
    let status = state.status()?;
    let mut others = state.nodes();
    others.retain(|node| !node.this_node && node.state == "active");
    let sources = state.volumes().into_iter().map(|volume| Disk {
        name: volume.name,
        path: volume.path.into(),
        length: volume.length,
    });
    Ok(Facts {
        folder,
        now_secs: state.now.0,
        me: status.node,
        mesh_name: status.mesh_name,
        others,
        sources: sources.collect(),
        blockers: state.blockers(),
        copies: vec![],
        live: None,
    })
}

/// A copy that this node holds.
pub fn copy(record: &roles::replicator::Record) -> Disk {
    Disk {
        name: record.job.to_string(),
        path: record.path.clone().into(),
        length: record.length,
    }
}
