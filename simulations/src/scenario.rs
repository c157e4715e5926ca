//! What the people of a world want, and when: who joins, what is migrated, what is
//! paused, revoked or deleted, and how it all has to end.
//!
//! Not here: what goes wrong meanwhile (`faults`), and doing it (`people`).

use crate::rng::Rng;
use keys::lease::Span;
use keys::{MigrationId, VolumeId};

/// Latest time at which anything goes wrong, in milliseconds.
const LAST_FAULT: u64 = 75_000;

/// When every node of a healed mesh has heard of a revocation, in milliseconds.
const HEARD_MILLIS: u64 = 25_000;

/// How a migration is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Cut over.
    CutOver,
    /// Its grants are revoked on the way.
    GrantRevoked,
    /// Its grant expires on the way.
    GrantExpired,
    /// Its agent is revoked.
    AgentRevoked,
    /// Its replicators are revoked.
    ReplicatorRevoked,
    /// It is deleted on the way, perhaps in the very moment of its cutover.
    Deleted,
    /// It is deleted after it was cut over.
    DeletedAfterwards,
}

/// What people want done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Plan it, once all who take part are there.
    Create,
    /// Grant and start it.
    Start,
    /// Pause it.
    Pause,
    /// Start it again.
    Resume,
    /// Take back its grants.
    RevokeGrants,
    /// Take back the enrolment of its agent.
    RevokeAgent,
    /// Take back the enrolments of its replicators.
    RevokeReplicators,
    /// Switch over.
    Cutover {
        /// Read the copy back.
        prove_full: bool,
    },
    /// Wait until it is cut over.
    AwaitCutOver,
    /// Delete it.
    Delete,
}

/// One migration as people want it.
#[derive(Debug, Clone)]
pub struct Migration {
    /// Its id.
    pub id: MigrationId,
    /// Which node is the agent.
    pub agent: usize,
    /// Which nodes may receive.
    pub replicators: Vec<usize>,
    /// The volumes.
    pub volumes: Vec<VolumeId>,
    /// What is wanted, in order, and not before when.
    pub wishes: std::collections::VecDeque<(u64, Wish)>,
    /// How it is to end.
    pub ending: Ending,
    /// How long its grant is to last.
    pub grant_secs: u64,
    /// How long its leases last, and how much longer work goes on without one.
    pub span: Span,
    /// Whether the agent and the replicators are cut off from everybody else when their
    /// right is taken back.
    pub is_cut_off: bool,
}

/// The whole of a world's script.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// How many nodes there are.
    pub nodes: usize,
    /// When each is invited; the first founds the mesh.
    pub invited_at: Vec<u64>,
    /// What is migrated.
    pub migrations: Vec<Migration>,
    /// When the last write to a source happens.
    pub quiet_at: u64,
    /// When nothing goes wrong any more.
    pub heal_at: u64,
    /// How far a wall clock may be off.
    pub max_skew_secs: u64,
    /// When the healed world is looked at next.
    pub looks_at: u64,
}

impl Scenario {
    /// Draws a script for a number of nodes, which is at least 3.
    pub fn draw(rng: &mut Rng, nodes: usize) -> Self {
        let heal_at = rng.between(45_000, LAST_FAULT);
        let quiet_at = rng.between(25_000, heal_at);
        let invited_at = (0..nodes).map(|_| rng.between(100, 8_000)).collect();
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
            migrations.push(migration(rng, agent, replicators, [quiet_at, heal_at]));
        }
        // All others would lose their replicators with it.
        let ends_all = |migration: &Migration| migration.ending == Ending::ReplicatorRevoked;
        if let Some(at) = migrations.iter().position(ends_all) {
            migrations = vec![migrations.swap_remove(at)];
        }
        let expires = |migration: &Migration| migration.ending == Ending::GrantExpired;
        let max_skew_secs = match migrations.iter().any(expires) {
            true => 15,
            false => 86_400,
        };
        Self {
            nodes,
            invited_at,
            migrations,
            quiet_at,
            heal_at,
            max_skew_secs,
            looks_at: 0,
        }
    }

    /// The nodes that are revoked on the way.
    pub fn outcasts(&self) -> Vec<usize> {
        let migrations = self.migrations.iter();
        migrations
            .flat_map(|migration| match migration.ending {
                Ending::AgentRevoked => vec![migration.agent],
                Ending::ReplicatorRevoked => migration.replicators.clone(),
                _ => vec![],
            })
            .collect()
    }
}

fn migration(
    rng: &mut Rng,
    agent: usize,
    replicators: Vec<usize>,
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
    let mut volumes: Vec<VolumeId> = (0..rng.between(1, 3))
        .map(|_| VolumeId(rng.bytes()))
        .collect();
    volumes.sort();
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
        Ending::GrantExpired => {}
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
    Migration {
        id: MigrationId(rng.bytes()),
        agent,
        replicators,
        volumes,
        wishes: wishes.into(),
        ending,
        grant_secs: match ending {
            Ending::GrantExpired => rng.between(20, 50),
            _ => 30 * 86_400,
        },
        span: span(rng, revoked),
        is_cut_off: revoked && rng.below(3) > 0,
    }
}

/// Usually what `migration start` gives, and often so short that it counts in a world
/// of a few minutes.
fn span(rng: &mut Rng, revoked: bool) -> Span {
    let short = if revoked { 800 } else { 300 };
    match rng.happens(short) {
        true => Span {
            lease_secs: rng.between(8, 21),
            autonomy_secs: [0, rng.below(21)][rng.index(2)],
        },
        false => Span {
            lease_secs: 3_600,
            autonomy_secs: 7 * 86_400,
        },
    }
}
