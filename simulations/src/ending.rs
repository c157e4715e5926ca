//! How a world has to end, once nothing goes wrong any more.
//!
//! Not here: what must hold at every step (`invariants`).

use crate::disk::flat_root;
use crate::duties::volume_key;
use crate::invariants::Invariant;
use crate::node::Node;
use crate::scenario::{Ending, Migration};
use crate::world::World;
use crdt::Stage;
use roles::JobId;

/// What is still missing, and which invariant says that it must come.
pub fn missing(world: &World) -> Option<(Invariant, String)> {
    let work = Invariant::HealedWorkEnds;
    for migration in &world.scenario.migrations {
        if let Some(wish) = migration.wishes.front() {
            let (wish, id) = (wish.what, migration.id);
            return Some((work, format!("people still want {wish:?} of {id:?}")));
        }
        for job in jobs(migration) {
            if let Some(text) = unfinished(world, migration, &job) {
                return Some((
                    work,
                    format!("{job} must end as {:?}: {text}", migration.ending),
                ));
            }
        }
    }
    disagreement(world).map(|text| (Invariant::HealedNodesAgree, text))
}

fn jobs(migration: &Migration) -> Vec<JobId> {
    let volumes = migration.volumes.iter();
    volumes
        .map(|volume| JobId {
            migration: migration.id,
            volume: *volume,
        })
        .collect()
}

fn unfinished(world: &World, migration: &Migration, job: &JobId) -> Option<String> {
    let agent = &world.nodes[migration.agent];
    let record = agent.store.agents.get(job);
    let finished = record.is_some_and(|record| record.finished.is_some());
    let (stage, step, detail) = match agent.up.as_ref().and_then(|up| up.agents.get(job)) {
        Some(machine) => machine.standing(),
        None => (Stage::Enrolled, "no machine", None),
    };
    let is_sending = agent
        .up
        .as_ref()
        .is_some_and(|up| up.sending.contains_key(job));
    let standing = format!("it is {stage}, {step}, {detail:?}");
    let stalled_by = |word: &str| {
        let says = detail.as_ref().is_some_and(|detail| detail.contains(word));
        stage == Stage::Stalled && says && told(agent, "grant-refused")
    };
    let cloud = world.ctx.cloud.volumes();
    let in_cloud = cloud.iter().any(|record| record.key == volume_key(job));
    let ended = match migration.ending {
        Ending::CutOver => finished && in_cloud,
        Ending::DeletedAfterwards => {
            let provisioner = &world.nodes[0];
            finished && in_cloud && told(provisioner, "volumes-kept")
        }
        Ending::GrantRevoked => !finished && stalled_by("revoked"),
        Ending::GrantExpired => !finished && stalled_by("expired"),
        Ending::ReplicatorRevoked => !finished && stalled_by("revoked"),
        // It may never hear of it: nobody talks to it any more.
        Ending::AgentRevoked => !finished && !is_sending,
        Ending::Deleted => {
            // Whichever of the two came first, both ends and the cloud agree on it.
            let all = finished_of(world, migration);
            let none = !agent.store.agents.contains_key(job);
            let copies = world
                .nodes
                .iter()
                .any(|node| node.store.copies.contains_key(job));
            match all {
                0 => none && !copies && !in_cloud,
                _ => in_cloud && (finished || none),
            }
        }
    };
    (!ended).then_some(standing)
}

/// How many volumes of a migration the agent has cut over.
fn finished_of(world: &World, migration: &Migration) -> usize {
    let records = &world.nodes[migration.agent].store.agents;
    let jobs = jobs(migration).into_iter();
    jobs.filter(|job| {
        records
            .get(job)
            .is_some_and(|record| record.finished.is_some())
    })
    .count()
}

fn told(node: &Node, kind: &str) -> bool {
    node.store.events.iter().any(|event| event.kind == kind)
}

/// Two nodes that do not hold the same.
fn disagreement(world: &World) -> Option<String> {
    let outcasts = world.scenario.outcasts();
    let mut staying = (0..world.scenario.nodes).filter(|index| !outcasts.contains(index));
    let first = staying.next().expect("the first node is never revoked");
    let heads = world.nodes[first].replica().map(mesh::Replica::heads);
    for index in staying {
        let theirs = world.nodes[index].replica().map(mesh::Replica::heads);
        if theirs != heads {
            return Some(format!(
                "nodes {first} and {index} hold {heads:?} and {theirs:?}"
            ));
        }
    }
    None
}

/// The last check: the copies are the disks.
pub fn check(world: &mut World) {
    for migration in world.scenario.migrations.clone() {
        for job in jobs(&migration) {
            check_copy(world, &migration, &job);
        }
    }
}

fn check_copy(world: &mut World, migration: &Migration, job: &JobId) {
    let agent = &world.nodes[migration.agent];
    let record = agent.store.agents.get(job);
    let Some(finished) = record.and_then(|record| record.finished.as_ref()) else {
        return;
    };
    let volume = &agent.sources[&job.volume];
    let root = flat_root(volume.geometry, &volume.contents);
    let same_root = root.0 == finished.root;
    let holder = world.nodes.iter().find_map(|node| {
        let disk = node.store.disks.get(&volume_key(job).to_string());
        disk.filter(|_| record_epoch_is_here(node, agent, job))
    });
    let same_bytes = holder.is_some_and(|disk| disk.sound() == volume.contents);
    let invariant = Invariant::HealedWorkEnds;
    world.ctx.require(same_root, invariant, || {
        format!("{job}: the root that was stated is not that of the source")
    });
    world.ctx.require(same_bytes, invariant, || {
        format!("{job}: the copy is not the source")
    });
}

/// Whether a node is the replicator that an agent chose.
fn record_epoch_is_here(node: &Node, agent: &Node, job: &JobId) -> bool {
    let chosen = agent
        .store
        .agents
        .get(job)
        .and_then(|record| record.replicator);
    chosen.is_some() && chosen == node.replica().and_then(mesh::Replica::me)
}
