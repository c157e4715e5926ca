//! How a world has to end, once nothing goes wrong any more.
//!
//! Not here: what must hold at every step (`invariants`).

use crate::context::Flaw;
use crate::disk::flat_root;
use crate::duties::volume_key;
use crate::invariants::Invariant;
use crate::node::Node;
use crate::scenario::{Ending, Loss, Migration};
use crate::world::World;
use crdt::Stage;
use keys::{Denied, Epoch};
use provider::VolumeKey;
use roles::JobId;
use roles::launch::{Confirmed, Unconfirmed};

/// What is still missing, and which invariant says that it must come.
pub fn missing(world: &World) -> Option<(Invariant, String)> {
    let work = Invariant::HealedWorkEnds;
    match world.scenario.loss {
        None | Some(Loss::Revoked) => {}
        Some(loss) => return Some((work, format!("{loss:?} is still to come"))),
    }
    let until = |node: &Node| node.lost_until.filter(|until| *until != u64::MAX);
    if world.nodes.iter().any(|node| until(node).is_some()) {
        return Some((work, "a node is still to come back".into()));
    }
    if world.is_recovering() {
        return Some((work, "the mesh is still to be recovered".into()));
    }
    if let Some(lost) = &world.ctx.oracle.lost {
        // Who was revoked may never hear that the lost one was.
        let holds = |node: &&Node| {
            let plan = node.replica().map(|replica| replica.document().plan());
            plan.is_some_and(|plan| plan.migrations.contains_key(&lost.stolen))
        };
        if let Some(node) = staying(world).find(holds) {
            let text = format!("node {} holds what a thief planned", node.index);
            return Some((Invariant::OnlyTheHonouredCounts, text));
        }
    }
    if world.scenario.twice.is_some() && world.ctx.twin.is_none() {
        return Some((work, "a folder is still to run twice".into()));
    }
    for migration in &world.scenario.migrations {
        if is_frozen_for_nothing(world, migration) {
            let text = format!("{:?} is still frozen, and does not count", migration.id);
            return Some((Invariant::LetGo, text));
        }
        let mut wishes = migration.wishes.iter().chain(&migration.second_wishes);
        if let Some(wish) = wishes.next() {
            let (wish, id) = (wish.what, migration.id);
            return Some((work, format!("people still want {wish:?} of {id:?}")));
        }
        for job in jobs(migration) {
            if let Some(text) = unfinished(world, migration, &job) {
                let invariant = match waits_for_a_lease(world, migration, &job) {
                    true => Invariant::AnyOperatorRenews,
                    false => work,
                };
                return Some((
                    invariant,
                    format!("{job} must end as {:?}: {text}", migration.ending),
                ));
            }
            if let Some(text) = unconfirmed(world, migration, &job) {
                return Some((Invariant::ConfirmedIsTrue, format!("{job}: {text}")));
            }
        }
    }
    if let Some(text) = unknown_copy(world) {
        return Some((Invariant::CopiesAreStopped, text));
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

/// Of which two run nobody can say what the other committed.
fn is_frozen_for_nothing(world: &World, migration: &Migration) -> bool {
    let agent = &world.nodes[migration.agent];
    migration.ending != Ending::AgentRunsTwice
        && agent.up.is_some()
        && agent.freezer.keeps(&migration.id)
        && finished_of(world, migration) == 0
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
        stage == Stage::Stalled && says && agent.has_told("grant-refused")
    };
    let is_of_job = |key: &VolumeKey| {
        let any = volume_key(job, Epoch(0));
        key.migration == any.migration && key.volume == any.volume
    };
    let cloud = world.ctx.cloud.volumes();
    let mut of_job = cloud.iter().map(|record| record.key).filter(is_of_job);
    let in_cloud = match record {
        None => of_job.next().is_some(),
        // That of its epoch, and no older one.
        Some(record) => of_job.eq([volume_key(job, record.epoch)]),
    };
    let ended = match migration.ending {
        Ending::CutOver => finished && in_cloud,
        Ending::DeletedAfterwards => {
            let provisioner = &world.nodes[migration.provisioner];
            finished && in_cloud && provisioner.has_told("volumes-kept")
        }
        Ending::GrantRevoked => !finished && stalled_by("revoked"),
        Ending::GrantExpired => !finished && stalled_by("expired"),
        Ending::ReplicatorRevoked => !finished && stalled_by("revoked"),
        // It may never hear of it: nobody talks to it any more.
        Ending::AgentRevoked => !finished && !is_sending,
        Ending::AgentRunsTwice => {
            let copy = world.ctx.twin.map(|twin| &world.nodes[twin.copy]);
            let copy = copy.and_then(|copy| copy.up.as_ref());
            let copy_sends = copy.is_some_and(|up| up.sending.contains_key(job));
            !finished && stalled_by("two places") && !is_sending && !copy_sends
        }
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
                // One that the cloud never made cannot be kept.
                _ => {
                    let never_made = || !world.ctx.cloud.made().iter().any(is_of_job);
                    (in_cloud || (none && never_made())) && (finished || none)
                }
            }
        }
    };
    (!ended).then_some(standing)
}

/// Whether the work stands still because no operator vouches for what is good, and one
/// runs.
fn waits_for_a_lease(world: &World, migration: &Migration, job: &JobId) -> bool {
    let agent = &world.nodes[migration.agent];
    let permit = agent.with_situation(agent.now(&world.ctx), |situation| {
        let record = agent.store.agents.get(job)?;
        situation.agent_facts(record, |_| true, Ok(())).permit
    });
    let is_waiting = matches!(
        permit.flatten(),
        Some(Err(Denied::LeaseOver { .. } | Denied::NotVouched { .. }))
    );
    let is_operator = |node: &Node| {
        let operates = node.with_situation(node.now(&world.ctx), |situation| {
            situation.operator().is_some()
        });
        operates == Some(true)
    };
    is_waiting && world.nodes.iter().any(is_operator)
}

/// Why a copy that was cut over and is to be launched is not confirmed, if it is not.
fn unconfirmed(world: &World, migration: &Migration, job: &JobId) -> Option<String> {
    if migration.ending != Ending::CutOver {
        return None;
    }
    let provisioner = &world.nodes[migration.provisioner];
    let path = volume_key(job, epoch_of(world, migration, job)?).to_string();
    let mut disks = world
        .nodes
        .iter()
        .filter_map(|node| node.store.disks.get(&path));
    if disks.any(|disk| disk.sound() != disk.durable) {
        // It has rotted, and is rightly not confirmed.
        return None;
    }
    match permission(world, provisioner, job) {
        Ok(_) => None,
        Err(why) if provisioner.has_told("copy-differs") => {
            Some(format!("{why}; its provisioner found that it differs"))
        }
        Err(why) => Some(why.to_string()),
    }
}

fn epoch_of(world: &World, migration: &Migration, job: &JobId) -> Option<Epoch> {
    let record = world.nodes[migration.agent].store.agents.get(job)?;
    Some(record.epoch)
}

fn permission(world: &World, node: &Node, job: &JobId) -> Result<Confirmed, Unconfirmed> {
    let permitted = node.with_situation(node.now(&world.ctx), |situation| {
        let plan = situation.migration(job)?;
        Some(situation.evidence(plan).permission(&job.volume))
    });
    permitted.flatten().unwrap_or(Err(Unconfirmed::NotCutOver))
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

/// The nodes that are to hold the same in the end.
fn staying(world: &World) -> impl Iterator<Item = &Node> {
    let outcasts = world.scenario.outcasts();
    let twin = world.ctx.twin;
    world.nodes.iter().filter(move |node| {
        let index = match twin {
            Some(twin) if twin.copy == node.index => twin.of,
            _ => node.index,
        };
        // A thief may have the machine of a lost operator.
        let is_stolen = world.recovery.is_some() && index == 0;
        !outcasts.contains(&index) && node.lost_until.is_none() && !is_stolen
    })
}

/// A node that does not know, or has not told, that a folder runs twice.
fn unknown_copy(world: &World) -> Option<String> {
    let twin = world.ctx.twin?;
    // Of who was revoked nothing more is heard.
    if world.scenario.outcasts().contains(&twin.of) {
        return None;
    }
    let key = world.ctx.key_of(twin.of);
    staying(world).find_map(|node| {
        let at = node.index;
        let replica = node.replica()?;
        let is_known = replica.authority().is_cloned(&key) && !node.store.evidence.is_empty();
        let is_told = node.has_told("cloned-key") || world.ctx.oracle.cut_short.contains(&at);
        match (is_known, is_told) {
            (false, _) => Some(format!(
                "node {at} does not know that {key:?} is in two places"
            )),
            (_, false) => Some(format!(
                "node {at} tells nobody that {key:?} is in two places"
            )),
            _ => None,
        }
    })
}

/// Two nodes that do not hold the same.
fn disagreement(world: &World) -> Option<String> {
    let mut staying = staying(world);
    let first = staying.next().expect("agents are never lost");
    let heads = first.replica().map(mesh::Replica::heads);
    let other = staying.find(|node| node.replica().map(mesh::Replica::heads) != heads)?;
    let theirs = other.replica().map(mesh::Replica::heads);
    let (first, other) = (first.index, other.index);
    Some(format!(
        "nodes {first} and {other} hold {heads:?} and {theirs:?}"
    ))
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
    // One that was frozen may have been written to since.
    let moment = world.ctx.oracle.moments.get(job).copied();
    let root = moment.unwrap_or_else(|| flat_root(volume.geometry, &volume.contents));
    let same_root = root.0 == finished.root;
    let path = volume_key(job, record.map_or(Epoch(0), |record| record.epoch)).to_string();
    let mut disks = world
        .nodes
        .iter()
        .filter_map(|node| node.store.disks.get(&path));
    let same_bytes = disks
        .next()
        .is_some_and(|disk| flat_root(volume.geometry, &disk.sound()) == root);
    let nodes = world.nodes.iter();
    let is_confirmed = |node: &Node| permission(world, node, job).is_ok();
    let believers: Vec<usize> = nodes
        .filter(|node| is_confirmed(node))
        .map(|node| node.index)
        .collect();
    world.ctx.require(
        same_bytes || believers.is_empty(),
        Invariant::ConfirmedIsTrue,
        || format!("{job}: nodes {believers:?} hold a copy for confirmed that is not the source"),
    );
    if world.ctx.flaw == Some(Flaw::WritesNothing) {
        return;
    }
    let invariant = Invariant::HealedWorkEnds;
    world.ctx.require(same_root, invariant, || {
        format!("{job}: the root that was stated is not that of the source")
    });
    world.ctx.require(same_bytes, invariant, || {
        format!("{job}: the copy is not the source")
    });
}
