//! A scenario drawn from a seed.
//!
//! Which faults a drawn scenario has is decided in `faults::drawn`.

use super::{
    At, Ending, Loss, Migration, Scenario, Wish, long_grant, no_migration, usual_autonomy,
    usual_lease,
};
use crate::chance::Rates;
use crate::faults;
use crate::rng::{Rng, Stream};
use blocks::BLOCK_SIZE;
use keys::statement::MAX_AUTONOMY_SECS;
use std::collections::VecDeque;

mod operators;
mod twice;

/// A day: as far as any clock is off.
const DAY_SECS: u64 = 86_400;
/// Latest time at which anything goes wrong, in milliseconds.
const LAST_FAULT: u64 = 75_000;
/// When every node of a healed mesh has heard of a revocation, in milliseconds.
const HEARD_MILLIS: u64 = 25_000;

impl Scenario {
    /// Draws a script for a number of nodes, which is at least 3.
    pub fn draw(seed: u64, nodes: usize) -> Self {
        let mut rng = Rng::of(seed, Stream::Scenario, &[]);
        let heal_at = rng.between(45_000, LAST_FAULT);
        let quiet_at = rng.between(25_000, heal_at);
        let invited_at_millis = (0..nodes).map(|_| rng.between(100, 8_000)).collect();
        // A node that does nothing else makes the volumes, where there is one.
        let spare = if nodes > 5 && rng.below(2) == 0 { 5 } else { 0 };
        let mut migrations = migrations(&mut rng, nodes, spare, [quiet_at, heal_at]);
        let loss = loss(&mut rng, &mut migrations, heal_at);
        let expires = |migration: &Migration| migration.ending == Ending::GrantExpired;
        let strands = matches!(loss, Some(Loss::Others { .. }));
        let max_skew_secs = match migrations.iter().any(expires) {
            // A grant that is to expire must not be over before it began.
            true => 15,
            // Leases end where a boot sets a clock back by more than a day, and nobody is
            // left to renew them.
            false if strands => DAY_SECS / 2,
            false => DAY_SECS,
        };
        if strands {
            migrations.iter_mut().for_each(outlasts_operators);
        }
        let clock_secs = (0..nodes).map(|_| skew(&mut rng, max_skew_secs)).collect();
        let mut scenario = Self {
            about: format!("Drawn from seed {seed}."),
            reaches: vec![],
            seed,
            nodes,
            second_operator: None,
            invited_at_millis,
            clock_secs,
            // A grant that ends by the wall clock may not come to life again.
            boot_clock_secs: match max_skew_secs {
                15 => 0,
                most => most,
            },
            quiet_at_millis: quiet_at,
            heal_at_millis: heal_at,
            lost_millis: rng.between(6_000, 14_000),
            loss,
            twice: None,
            chance: Rates::USUAL,
            migrations,
            faults: vec![],
        };
        operators::draw(&mut scenario);
        twice::draw(&mut scenario);
        scenario.faults = faults::drawn(&scenario, max_skew_secs);
        scenario.name_all();
        scenario
    }
}

/// Each boot takes a day or two of its autonomy, and no operator is left.
fn outlasts_operators(migration: &mut Migration) {
    migration.lease_secs = usual_lease();
    migration.autonomy_secs = MAX_AUTONOMY_SECS;
}

/// How long leases last and how much longer work goes on: usually as `migration start`
/// has it, and often so short that it counts in a world of a few minutes.
fn lease_and_autonomy(rng: &mut Rng, revoked: bool) -> (u64, u64) {
    match rng.happens(if revoked { 800 } else { 300 }) {
        true => (rng.between(8, 21), [0, rng.below(21)][rng.index(2)]),
        false => (usual_lease(), usual_autonomy()),
    }
}

/// How far a clock is off that is off by at most so much.
pub fn skew(rng: &mut Rng, max_secs: u64) -> i64 {
    rng.below(2 * max_secs + 1).cast_signed() - max_secs.cast_signed()
}

/// Who is lost in a world whose migrations all have to be cut over in spite of it; none
/// in the others.
fn loss(rng: &mut Rng, migrations: &mut [Migration], heal_at: u64) -> Option<Loss> {
    let is_kept = |migration: &Migration| migration.ending == Ending::CutOver;
    let is_cut = |migration: &Migration| {
        let ends = is_kept(migration) || migration.ending == Ending::DeletedAfterwards;
        ends && migration.replicators.len() > 1
    };
    if !migrations.iter().all(is_cut) || rng.below(4) == 0 {
        return None;
    }
    let away_millis = (rng.below(2) == 0).then(|| rng.between(20_000, 80_000));
    let alone = migrations
        .iter()
        .all(|migration| is_kept(migration) && migration.provisioner != 0);
    Some(match rng.below(6) {
        0..=1 if alone => Loss::Others {
            and_replicator: rng.below(2) == 0,
        },
        0..=2 => Loss::ReplicatorProving { away_millis },
        3 => {
            let at_millis = rng.between(10_000, heal_at);
            let what = Wish::RevokeOneReplicator;
            let wishes = &mut migrations[0].wishes;
            let next = wishes.iter().position(|wish| wish.at_millis > at_millis);
            wishes.insert(next.unwrap_or(wishes.len()), At { at_millis, what });
            Loss::Revoked
        }
        _ => Loss::Replicator {
            at_millis: rng.between(8_000, heal_at + 8_000),
            away_millis,
        },
    })
}

fn migrations(rng: &mut Rng, nodes: usize, provisioner: usize, ends: [u64; 2]) -> Vec<Migration> {
    let agents: Vec<usize> = (1..nodes)
        .step_by(2)
        .take(if nodes >= 5 { 2 } else { 1 })
        .collect();
    let receivers: Vec<usize> = (2..nodes).step_by(2).take(2).collect();
    let mut migrations = vec![];
    for (at, agent) in agents.into_iter().enumerate() {
        if at > 0 && rng.below(2) == 0 {
            break;
        }
        let mut replicators = receivers.clone();
        let first = at % replicators.len();
        replicators.rotate_left(first);
        migrations.push(migration(rng, (agent, replicators, provisioner), ends));
    }
    // All others would lose their replicators with it.
    let ends_all = |migration: &Migration| migration.ending == Ending::ReplicatorRevoked;
    if let Some(at) = migrations.iter().position(ends_all) {
        migrations = vec![migrations.swap_remove(at)];
    }
    migrations
}

fn migration(
    rng: &mut Rng,
    (agent, replicators, provisioner): (usize, Vec<usize>, usize),
    [quiet_at, heal_at]: [u64; 2],
) -> Migration {
    let ending = match rng.below(20) {
        0..=1 => Ending::GrantRevoked,
        2..=3 => Ending::GrantExpired,
        4 => Ending::AgentRevoked,
        5 => Ending::ReplicatorRevoked,
        6..=7 => Ending::Deleted,
        8..=9 => Ending::DeletedAfterwards,
        _ => Ending::CutOver,
    };
    let volume_bytes = (0..rng.between(1, 3)).map(|_| volume_bytes(rng)).collect();
    let cutover = Wish::Cutover {
        prove_full: rng.below(2) == 0,
    };
    let mut wishes = vec![(3_000, Wish::Create), (4_000, Wish::Start)];
    if rng.below(2) == 0 {
        let at = rng.between(10_000, 25_000);
        wishes.push((at, Wish::Pause));
        wishes.push((at + rng.between(2_000, 8_000), Wish::Resume));
    }
    // The disk may only be expected to equal its copy when nothing writes to it.
    let cut_at = quiet_at + rng.between(100, 15_000);
    let early = rng.between(12_000, 40_000);
    match ending {
        Ending::CutOver => wishes.push((cut_at, cutover)),
        Ending::GrantRevoked => wishes.push((early, Wish::RevokeGrants)),
        Ending::GrantExpired | Ending::AgentRunsTwice => {}
        Ending::AgentRevoked => wishes.push((early, Wish::RevokeAgent)),
        Ending::ReplicatorRevoked => wishes.push((early, Wish::RevokeReplicators)),
        Ending::Deleted => {
            if rng.below(2) == 0 {
                wishes.push((cut_at, cutover));
                wishes.push((cut_at + rng.between(100, 9_000), Wish::Delete));
            } else {
                wishes.push((early, Wish::Delete));
            }
        }
        Ending::DeletedAfterwards => {
            wishes.push((cut_at, cutover));
            wishes.push((cut_at, Wish::AwaitCutOver));
            wishes.push((cut_at, Wish::Delete));
        }
    }
    let revoked = matches!(
        ending,
        Ending::GrantRevoked | Ending::AgentRevoked | Ending::ReplicatorRevoked
    );
    // Nobody may cut over what they lost the right to move, once they have heard of it.
    if revoked {
        wishes.push((heal_at + HEARD_MILLIS, cutover));
    }
    let (lease_secs, autonomy_secs) = lease_and_autonomy(rng, revoked);
    let at = |(at_millis, what)| At { at_millis, what };
    Migration {
        id: no_migration(),
        agent,
        replicators,
        provisioner,
        volumes: vec![],
        volume_bytes,
        wishes: wishes.into_iter().map(at).collect(),
        second_wishes: VecDeque::new(),
        ending,
        grant_secs: match ending {
            Ending::GrantExpired => rng.between(20, 50),
            _ => long_grant(),
        },
        lease_secs,
        autonomy_secs,
        is_cut_off: revoked && rng.below(3) > 0,
    }
}

/// A few blocks, and now and then more than a group; the last one whole or not.
fn volume_bytes(rng: &mut Rng) -> u64 {
    let blocks = match rng.below(10) {
        0 => 1,
        1..=3 => rng.between(2, 8),
        4..=8 => rng.between(8, 41),
        _ => rng.between(250, 300),
    };
    let short = match rng.below(2) {
        0 => 0,
        _ => 512 * rng.below(100),
    };
    blocks * BLOCK_SIZE as u64 - short
}
