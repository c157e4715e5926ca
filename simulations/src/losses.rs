//! Nodes that die for good, or for longer than anybody waits for them, and what the
//! cloud still holds of them.
//!
//! Not here: nodes that die and come back soon (`faults`).

use crate::disk::{Death, flat_root};
use crate::duties::volume_key;
use crate::network::CloudCall;
use crate::recovery::Recovery;
use crate::scenario::Loss;
use crate::world::World;
use crdt::Desired;
use keys::MigrationId;
use keys::lease::Pair;
use std::collections::BTreeSet;

/// Between the loss of the others and that of the replicator, in milliseconds.
const ALONE_MILLIS: u64 = 3_000;

impl World {
    /// Loses whom the script says, once it is time.
    pub fn losses(&mut self) {
        let now = self.ctx.now;
        match self.scenario.loss {
            None | Some(Loss::Revoked) => {}
            Some(Loss::Replicator {
                at_millis,
                away_millis,
            }) => {
                if now >= at_millis && self.lose_replicator(away_millis.unwrap_or(u64::MAX)) {
                    self.scenario.loss = None;
                }
            }
            Some(Loss::Operator {
                at_millis,
                recovered_by,
                thief_after_millis,
            }) => {
                let heir = recovered_by.or(self.scenario.second_operator);
                if let Some(heir) = heir.filter(|_| now >= at_millis)
                    && self.all_know_all(recovered_by)
                {
                    self.inherit(heir);
                    self.recovery =
                        recovered_by.map(|heir| Recovery::new(heir, thief_after_millis));
                    self.ctx.seen.operators_lost += 1;
                    self.lose(0, u64::MAX);
                    self.scenario.loss = None;
                }
            }
            Some(Loss::ReplicatorProving { away_millis }) => {
                self.ctx.dies_proving = Some(away_millis.unwrap_or(u64::MAX));
                self.ctx.seen.nodes_lost += 1;
                self.scenario.loss = None;
            }
            Some(Loss::Others { and_replicator }) => {
                let Some(kept) = self.concerned(and_replicator) else {
                    return;
                };
                for index in 0..self.scenario.nodes {
                    if !kept.contains(&index) {
                        self.lose(index, u64::MAX);
                    }
                }
                self.scenario.loss = and_replicator.then_some(Loss::Replicator {
                    at_millis: now + ALONE_MILLIS,
                    away_millis: None,
                });
            }
        }
    }

    /// Whether all have joined who are to, and know each other: a node that is blank had to
    /// be let in by the one that is lost, and nobody else could tell who they are. Those that
    /// are to be revoked are to be known as well, perhaps by a key that they had, and in unless
    /// they were revoked already.
    fn all_know_all(&self, blank: Option<usize>) -> bool {
        let outcasts = self.scenario.outcasts();
        let invited = (0..self.scenario.nodes).filter(|index| Some(*index) != blank);
        let knows = |authority: &keys::Authority, index: usize| {
            let key = self.nodes[index].identity.public();
            let is_it = |member: &keys::Member| self.ctx.keys.get(&member.key) == Some(&index);
            match outcasts.contains(&index) {
                true => authority.members().any(is_it),
                false => authority.by_key(&key).is_some(),
            }
        };
        let mut going = outcasts.iter();
        let mut staying = invited.clone().filter(|index| !outcasts.contains(index));
        let is_revoked = |index: usize| {
            let authority = self.nodes[0].replica().map(mesh::Replica::authority);
            authority.is_some_and(|authority| {
                let mut members = authority.members();
                members.any(|member| {
                    self.ctx.keys.get(&member.key) == Some(&index)
                        && member.standing != keys::Standing::Active
                })
            })
        };
        // What the one that is lost had answered them may be lost, too.
        going.all(|index| self.nodes[*index].mesh().is_some() || is_revoked(*index))
            && staying.all(|index| {
                let replica = self.nodes[index].replica();
                let authority = replica.map(mesh::Replica::authority);
                authority.is_some_and(|known| invited.clone().all(|other| knows(known, other)))
            })
    }

    /// Loses the replicator that the first agent is at; whether it is at one.
    fn lose_replicator(&mut self, away: u64) -> bool {
        match self.replicators_in_use().first() {
            None => false,
            Some(index) => {
                self.lose(*index, away);
                true
            }
        }
    }

    fn lose(&mut self, index: usize, away: u64) {
        self.ctx.seen.nodes_lost += 1;
        let now = self.ctx.now;
        let until = now.saturating_add(away);
        self.ctx.note(index, format_args!("is lost until {until}"));
        self.nodes[index].lost_until = Some(until);
        if self.nodes[index].up.is_some() {
            self.kill(index, Death::Power, 0);
        } else if until != u64::MAX {
            let event = crate::network::Event::Start { node: index };
            self.ctx.network.schedule(until, event);
        }
    }

    /// Which nodes the agents are at, by their own records.
    fn replicators_in_use(&self) -> Vec<usize> {
        let agents = self.scenario.migrations.iter();
        let records = agents.flat_map(|migration| {
            let records = self.nodes[migration.agent].store.agents.values();
            records.filter(|record| record.job.migration == migration.id)
        });
        let authority = self.nodes.iter().find_map(|node| node.replica());
        let Some(authority) = authority.map(mesh::Replica::authority) else {
            return vec![];
        };
        records
            .filter_map(|record| authority.member(&record.replicator?))
            .filter_map(|member| self.ctx.keys.get(&member.key).copied())
            .collect()
    }

    /// The nodes that the migrations concern, once all of them know that they are to be
    /// cut over; with the whole pools, or with those alone that are in use.
    fn concerned(&self, pools: bool) -> Option<BTreeSet<usize>> {
        let mut kept = BTreeSet::new();
        for migration in &self.scenario.migrations {
            if !migration.wishes.is_empty() {
                // Somebody is still to say it, or to say it again.
                return None;
            }
            kept.extend([migration.agent, migration.provisioner]);
            if pools {
                kept.extend(&migration.replicators);
            }
        }
        let in_use = self.replicators_in_use();
        if in_use.is_empty() {
            return None;
        }
        kept.extend(in_use);
        let knows = |index: &usize| {
            let replica = self.nodes[*index].replica();
            let plan = replica.map(|replica| replica.document().plan());
            plan.is_some_and(|plan| {
                let mut all = self.scenario.migrations.iter();
                all.all(|migration| {
                    let plan = plan.migrations.get(&migration.id);
                    plan.is_some_and(|plan| matches!(plan.desired, Desired::Cutover { .. }))
                })
            })
        };
        let has_chosen = self.scenario.migrations.iter().all(|migration| {
            let records = &self.nodes[migration.agent].store.agents;
            let mut volumes = migration.volumes.iter();
            volumes.all(|volume| {
                let migration = migration.id;
                let volume = *volume;
                let job = roles::JobId { migration, volume };
                // One that was put back has yet to hear which replicator it had come to.
                let shown = self.ctx.oracle.agent_epoch(&job);
                let record = records.get(&job);
                record.is_some_and(|record| shown.is_none_or(|shown| record.epoch >= shown))
            })
        });
        let is_leased = self.scenario.migrations.iter().all(|migration| {
            let records = self.nodes[migration.agent].store.agents.values();
            let mut records = records.filter(|record| record.job.migration == migration.id);
            if records.all(|record| record.finished.is_some()) {
                return true;
            }
            let pool = migration
                .replicators
                .iter()
                .filter(|index| kept.contains(index));
            pool.clone().all(|index| {
                let ends = [migration.agent, *index];
                ends.iter()
                    .all(|end| self.holds_lease(*end, *index, migration.id))
            })
        });
        (has_chosen && is_leased && kept.iter().all(knows)).then_some(kept)
    }

    /// Whether a node holds a lease for some grant of a migration with a replicator: without
    /// one it would wait for an operator that is to be lost.
    fn holds_lease(&self, index: usize, replicator: usize, migration: MigrationId) -> bool {
        let Some(up) = self.nodes[index].up.as_ref() else {
            return false;
        };
        let Some(authority) = up.replica.as_ref().map(mesh::Replica::authority) else {
            return false;
        };
        let key = self.nodes[replicator].identity.public();
        let Some(replicator) = authority.by_key(&key).map(|member| member.id) else {
            return false;
        };
        let grants = authority.grants();
        let mut grants = grants.filter(|(_, state)| state.grant.migration == migration);
        grants.any(|(grant, _)| {
            let grant = *grant;
            up.leases.since(&Pair { grant, replicator }).is_some()
        })
    }

    /// The root of what the cloud durably holds of a volume that is to be read back: no
    /// node has to live for that.
    pub fn root_for(&self, call: &CloudCall) -> Option<[u8; 32]> {
        let CloudCall::ReadBack(reading) = call else {
            return None;
        };
        let path = volume_key(&reading.job, reading.claim.epoch).to_string();
        let mut nodes = self.nodes.iter();
        let disk = nodes.find_map(|node| node.store.disks.get(&path))?;
        let geometry = blocks::Geometry::new(reading.claim.length).ok()?;
        Some(flat_root(geometry, &disk.durable).0)
    }
}
