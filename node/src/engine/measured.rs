//! What this node counted since it started, put together for `/metrics`.
//!
//! Not here: names and text (`metrics`), and the figures of sessions (`transfer`).

use super::Engine;
use crate::metrics::{Job, MAX_VOLUMES, Snapshot, Traffic};
use crate::transfer::Progress;
use crdt::Level;
use keys::NodeId;
use roles::JobId;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

/// Counters of the engine.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) traffic: Traffic,
    /// Events told, by level.
    events: [u64; 3],
    /// What the sessions of each copy count, one after the other.
    copies: BTreeMap<JobId, Arc<Progress>>,
}

impl Measured {
    pub(super) fn told(&mut self, level: Level) {
        let [infos, warnings, errors] = &mut self.events;
        *match level {
            Level::Info => infos,
            Level::Warn => warnings,
            Level::Error => errors,
        } += 1;
    }

    /// The counters for the next session of a copy.
    pub(super) fn copy(&mut self, job: JobId) -> Arc<Progress> {
        self.copies.entry(job).or_default().clone()
    }

    /// A copy is not held here any more.
    pub(super) fn forget(&mut self, job: &JobId) {
        self.copies.remove(job);
    }
}

impl Engine {
    /// All that `/metrics` shows.
    pub fn measured(&mut self) -> Snapshot {
        let (migrations, left_out) = self.with_state(|state| state.moving_migrations(MAX_VOLUMES));
        let wall = self.now().wall;
        let authority = self.replica.authority();
        let members = authority.members();
        let members = members.filter(|member| authority.admits(wall, &member.key));
        let sources = self.agents.iter().take(MAX_VOLUMES).map(|(job, slot)| {
            let replicator = slot.machine.record().replicator;
            (self.job(job, replicator), slot.progress.counts())
        });
        let copies = self.measured.copies.iter().take(MAX_VOLUMES);
        let copies = copies.map(|(job, progress)| {
            let plans = &self.replica.document().plan().migrations;
            let source = plans.get(&job.migration).map(|plan| plan.source);
            (self.job(job, source), progress.counts())
        });
        let [infos, warnings, errors] = self.measured.events;
        let sending = self.agents.values().filter(|slot| slot.has_session());
        Snapshot {
            members: members.count(),
            connected: self.connected.len(),
            statements: self.replica.ledger().len(),
            changes: self.replica.document().len(),
            reports: self.replica.reports().len(),
            stored_bytes: [
                ("store", file_bytes(&self.dir.store())),
                (
                    "snapshot",
                    file_bytes(&crate::local::snapshot_path(&self.dir)),
                ),
            ],
            traffic: self.measured.traffic,
            events: [("info", infos), ("warn", warnings), ("error", errors)],
            limit: self.pacer.pace().limit.map(NonZeroU64::get),
            sending: sending.count(),
            receiving: self.receiving.len(),
            sources: sources.collect(),
            copies: copies.collect(),
            migrations,
            left_out,
        }
    }

    fn job(&self, job: &JobId, peer: Option<NodeId>) -> Job {
        let plan = self
            .replica
            .document()
            .plan()
            .migrations
            .get(&job.migration);
        let report = plan.and_then(|plan| self.replica.reports().get(&plan.source));
        let volume = report.and_then(|report| {
            let mut volumes = report.volumes.iter();
            volumes.find(|volume| volume.id == job.volume)
        });
        let authority = self.replica.authority();
        let peer = peer.and_then(|peer| authority.member(&peer));
        Job {
            migration: job.migration.to_string(),
            migration_name: plan.map_or_else(|| job.migration.short(), |plan| plan.name.clone()),
            volume: job.volume.to_string(),
            volume_name: volume.map_or_else(|| job.volume.short(), |volume| volume.name.clone()),
            peer: peer.map(|peer| peer.name.to_string()).unwrap_or_default(),
        }
    }
}

/// The size of a file; 0 where there is none.
fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}
