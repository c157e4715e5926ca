//! Leases: how long an end may use a grant without hearing from an operator.
//!
//! The holder of a lease (the agent or a replicator of a grant) makes a *pulse*, a
//! random mark, and notes when on its own clock that does not jump. An operator's node
//! that sees the pulse answers with a *renewal*. The lease counts from the moment the
//! pulse was made, not from the receipt of the answer: whoever delays or repeats an
//! answer stretches nothing, and no wall clock takes part. This is how Gray and
//! Cheriton's leases avoid the need for clocks that agree (SOSP 1989, section 2).
//!
//! Not here: which grants an operator vouches for and when (`roles`), how pulses and
//! renewals travel (`crdt`'s reports), and the permit that rests on a lease (`permit`).

use crate::authority::{Authority, Member};
use crate::id::{NodeId, Pulse, StatementId, UnixSecs};
use crate::statement::Role;
use codec::Wire;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Pulses remembered: an answer may come this many half-lives late.
pub const MAX_PULSES: usize = 8;
/// Shortest time between two pulses, however short the leases are.
pub const MIN_PULSE_GAP_MILLIS: u64 = 1_000;
/// Leases that one node may hold: more pairs than a node has jobs.
pub const MAX_HELD: usize = 4_096;
/// How far a wall clock may be off after a reboot without stretching a lease.
pub const REBOOT_CHARGE_SECS: u64 = 86_400;

/// The time, both ways: for people and signatures, and for waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Wall clock; may jump.
    pub wall: UnixSecs,
    /// A clock that never jumps and goes on while the machine sleeps, in milliseconds
    /// from an arbitrary start.
    pub mono_millis: u64,
}

/// What a lease is about: one grant, used with one replicator of its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// The grant.
    pub grant: StatementId,
    /// The replicator.
    pub replicator: NodeId,
}

/// An operator's answer to a pulse: these pairs were good when it was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Who made the pulse.
    pub holder: NodeId,
    /// The pulse.
    pub pulse: Pulse,
    /// What may go on, in order and each once.
    pub pairs: Vec<Pair>,
}

/// How long the leases of a grant last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Without a word from an operator nothing is amiss for so long.
    pub lease_secs: u64,
    /// After that the work goes on for so long, and people are told.
    pub autonomy_secs: u64,
}

impl Span {
    /// How long a revocation may go unheard by an end that is cut off.
    pub fn exposure_secs(self) -> u64 {
        self.lease_secs.saturating_add(self.autonomy_secs)
    }

    /// Half of the lease, when it is to be renewed.
    fn half_millis(self) -> u64 {
        (self.lease_secs.saturating_mul(500)).max(MIN_PULSE_GAP_MILLIS)
    }
}

/// The leases that one node holds, and the pulses it waits for answers to.
///
/// Moments are on the node's own clock; one from before a reboot may be negative.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leases {
    /// Oldest first.
    pulses: Vec<(Pulse, u64)>,
    held: BTreeMap<Pair, i64>,
}

impl Leases {
    /// None are held.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a new pulse is due for what this node wants to use: at half-life, and at
    /// once for what has no lease while no young pulse could bring it one.
    pub fn pulse_due(&self, now: Now, wanted: &BTreeMap<Pair, Span>) -> bool {
        let newest = self.pulses.last().map(|(_, made)| signed(*made));
        wanted.iter().any(|(pair, span)| {
            let since = self.held.get(pair).copied();
            match since.max(newest) {
                None => true,
                Some(moment) => signed(now.mono_millis) - moment >= signed(span.half_millis()),
            }
        })
    }

    /// Notes a pulse that is made now, before anybody sees it; the oldest is forgotten
    /// when there are many.
    pub fn pulse(&mut self, now: Now, pulse: Pulse) {
        if self.pulses.len() == MAX_PULSES {
            self.pulses.remove(0);
        }
        self.pulses.push((pulse, now.mono_millis));
    }

    /// The pulse to publish.
    pub fn newest_pulse(&self) -> Option<Pulse> {
        self.pulses.last().map(|(pulse, _)| *pulse)
    }

    /// Takes the renewals that a node published, as far as they are about what this node
    /// wants to use, and says whether a lease is longer now. Only an operator that stands
    /// as far as this node has heard renews anything, at its own sites, and only in answer
    /// to a pulse of this node.
    pub fn hear(
        &mut self,
        authority: &Authority,
        wall: UnixSecs,
        (me, wanted): (NodeId, &BTreeMap<Pair, Span>),
        (from, renewals): (NodeId, &[Renewal]),
    ) -> bool {
        let mut longer = false;
        for renewal in renewals.iter().filter(|renewal| renewal.holder == me) {
            let mut pulses = self.pulses.iter();
            let answered = pulses.find(|(pulse, _)| *pulse == renewal.pulse);
            let Some((_, made)) = answered.copied() else {
                continue;
            };
            let Some(operator) = operator(authority, wall, from) else {
                break;
            };
            let pairs = renewal.pairs.iter();
            for pair in pairs.filter(|pair| wanted.contains_key(pair)) {
                if authority.is_within(&operator.scope, pair) {
                    longer |= self.hold(*pair, signed(made));
                }
            }
        }
        longer
    }

    fn hold(&mut self, pair: Pair, since: i64) -> bool {
        let room = self.held.len() < MAX_HELD;
        match self.held.get_mut(&pair) {
            Some(had) if *had >= since => false,
            Some(had) => {
                *had = since;
                true
            }
            None if room => {
                self.held.insert(pair, since);
                true
            }
            None => false,
        }
    }

    /// Forgets the leases of what is not wanted any more. One of a grant that is not known
    /// stays: a node that comes back with an old ledger hears of the grant again, and
    /// perhaps of no operator.
    pub fn retain(&mut self, authority: &Authority, wanted: &BTreeMap<Pair, Span>) {
        self.held
            .retain(|pair, _| wanted.contains_key(pair) || authority.grant(&pair.grant).is_none());
    }

    /// From which moment the lease of a pair counts; none while no operator vouched.
    pub fn since(&self, pair: &Pair) -> Option<i64> {
        self.held.get(pair).copied()
    }

    /// What to make durable, so that a restart does not need an operator.
    pub fn snapshot(&self, now: Now, boot: Boot) -> Snapshot {
        let held = self.held.iter();
        Snapshot {
            boot,
            mono_millis: now.mono_millis,
            wall: now.wall,
            held: held.map(|(pair, since)| (*pair, *since)).collect(),
        }
    }

    /// Takes up what was made durable. In the same boot the clock went on; after a
    /// reboot only the wall clock knows how long it took, and a day is charged on top,
    /// so that a clock that is off by up to a day makes leases shorter and never longer.
    pub fn restore(snapshot: Snapshot, now: Now, boot: Boot) -> Self {
        let then = signed(snapshot.mono_millis);
        let here = signed(now.mono_millis);
        let moved = if snapshot.boot == boot {
            (here >= then).then_some(0)
        } else {
            let passed = signed(now.wall.0) - signed(snapshot.wall.0);
            let charge = signed(REBOOT_CHARGE_SECS);
            // A clock that went back says nothing of how long it took. A moment keeps its
            // distance from the snapshot, which lies `charged` ago.
            let charged = passed.max(0).saturating_add(charge);
            (passed >= -charge).then(|| here - then - charged.saturating_mul(1000))
        };
        let Some(moved) = moved else {
            return Self::new();
        };
        let held = snapshot.held.into_iter().take(MAX_HELD);
        let held = held.map(|(pair, since)| (pair, since.min(then).saturating_add(moved)));
        Self {
            pulses: vec![],
            held: held.collect(),
        }
    }
}

/// The node whose word renews leases, if it is an operator that counts with the key it
/// has now.
fn operator(authority: &Authority, wall: UnixSecs, from: NodeId) -> Option<&Member> {
    let key = authority.member(&from)?.key;
    let standing = authority.standing(wall, &key, Role::Operator).ok()?;
    (standing.id == from).then_some(standing)
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Which run of the machine it is: another one after every boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot(pub [u8; 16]);

/// Leases as they are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    boot: Boot,
    mono_millis: u64,
    wall: UnixSecs,
    held: Vec<(Pair, i64)>,
}

impl Wire for Snapshot {
    const NAME: &'static str = "leases";
    const VERSION: u8 = 1;
    /// All leases of a node and what is around them.
    const LIMIT: usize = 80 * MAX_HELD + 128;
}

#[cfg(test)]
mod tests;
