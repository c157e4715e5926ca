//! Which replicator an agent uses: the first choice, and leaving one that is lost for
//! the next of the pool. The agent alone raises the epoch, and only here.
//!
//! A replicator is left
//! - at once when authority says that it may not serve and another may (a lease that is
//!   missing or over does not say so), and
//! - when it could not be used for a while, with nothing made durable, and another one
//!   of the pool is connected. Who reaches nobody cannot tell who is gone.
//!
//! Leaving one while its signed root is awaited is safe: a migration is cut over by the
//! agent's own stored record and by nothing else, so that a root which the old
//! replicator signed, heard of or not, belongs to an epoch that is over.

use super::{Action, Agent, Hold, Phase};
use crate::Now;
use crate::note::Note;
use crate::situation::Candidate;
use crdt::plan::Desired;
use keys::{Denied, Epoch, NodeId};

/// How long a replicator may be of no use before the agent goes on with the next of the
/// pool. What it holds has to be copied again, so that a restart should not be enough.
pub const LOST_MILLIS: u64 = 120_000;
/// The wait doubles with each replicator left without a completed pass, this many times.
pub const MAX_DOUBLINGS: u32 = 4;
/// A session that stood this long served, whatever broke it.
pub const LONG_SESSION_MILLIS: u64 = 600_000;

/// Since when the replicator is of no use. Not stored: a restart begins anew.
#[derive(Debug)]
pub(super) struct Watch {
    lost_millis: u64,
    lost_since: Option<u64>,
    session_since: Option<u64>,
}

impl Default for Watch {
    fn default() -> Self {
        Self::new(LOST_MILLIS)
    }
}

impl Watch {
    pub(super) fn new(lost_millis: u64) -> Self {
        Self {
            lost_millis,
            lost_since: None,
            session_since: None,
        }
    }

    /// Something was made durable.
    pub(super) fn progressed(&mut self) {
        self.lost_since = None;
    }

    pub(super) fn session_began(&mut self, now: Now) {
        self.session_since = Some(now.mono_millis);
    }

    pub(super) fn session_ended(&mut self, now: Now) {
        let began = self.session_since.take();
        if began.is_some_and(|began| now.mono_millis - began >= LONG_SESSION_MILLIS) {
            self.lost_since = None;
        }
    }

    pub(super) fn deadline_millis(&self, moves: u32) -> Option<u64> {
        self.lost_since.map(|since| since + self.wait(moves))
    }

    fn wait(&self, moves: u32) -> u64 {
        self.lost_millis << moves.min(MAX_DOUBLINGS)
    }
}

impl Agent {
    /// Chooses a replicator if there is none, and leaves the one there is if it is
    /// lost; whether it did.
    pub(super) fn move_on(&mut self, now: Now, out: &mut Vec<Action>) -> bool {
        let facts = self.facts.as_ref().expect("settle has facts");
        let goes = matches!(facts.desired, Desired::Started | Desired::Cutover { .. });
        if !goes || facts.source.is_err() {
            self.moving.lost_since = None;
            return false;
        }
        let pool = &facts.replicators;
        let Some(current) = self.record.replicator else {
            let usable = pool.iter().find(|candidate| candidate.is_usable);
            let Some(chosen) = usable.or(pool.first()) else {
                return false;
            };
            let chosen = chosen.node;
            self.choose(chosen, None, out);
            return true;
        };
        let Some((next, why)) = self.successor(now, current) else {
            return false;
        };
        self.record.moves += 1;
        self.choose(next, Some((current, why)), out);
        true
    }

    /// Who is to take over from `current` now, and why.
    fn successor(&mut self, now: Now, current: NodeId) -> Option<(NodeId, String)> {
        let facts = self.facts.as_ref()?;
        let others = others(&facts.replicators, current);
        match &facts.permit {
            // The plan is ahead of the ledger: the grant may come any moment. And a lease
            // that is missing says nothing about the replicator: an operator's word may.
            None
            | Some(Err(
                Denied::UnknownGrant(_) | Denied::NotVouched { .. } | Denied::LeaseOver { .. },
            )) => {
                self.moving.lost_since = None;
                return None;
            }
            Some(Err(denied)) => {
                let mut usable = others.iter().filter(|other| other.is_usable);
                let connected = usable.clone().find(|other| other.is_connected);
                let next = connected.or_else(|| usable.next())?;
                return Some((next.node, denied.to_string()));
            }
            Some(Ok(_)) => {}
        }
        let mut others = others.iter();
        let next = others.find(|other| other.is_usable && other.is_connected);
        let retry = match &self.phase {
            Phase::Held(Hold::Retry { why, .. }) => Some(why.clone()),
            _ => None,
        };
        let trouble = match retry {
            _ if self.in_session() => return None,
            _ if !facts.replicator_connected => "it is not connected".to_owned(),
            Some(why) => why,
            // It has come back, and is to show what it does.
            None if self.phase == Phase::Held(Hold::NotConnected) => return None,
            // The work waits for something else than its replicator.
            None => {
                self.moving.lost_since = None;
                return None;
            }
        };
        let Some(next) = next else {
            self.moving.lost_since = None;
            return None;
        };
        let since = *self.moving.lost_since.get_or_insert(now.mono_millis);
        let lost_millis = now.mono_millis.saturating_sub(since);
        let is_over = lost_millis >= self.moving.wait(self.record.moves);
        let secs = lost_millis / 1000;
        is_over.then(|| (next.node, format!("of no use for {secs} s: {trouble}")))
    }

    /// Begins a new epoch with a replicator; nothing of the old one counts any more.
    fn choose(&mut self, chosen: NodeId, left: Option<(NodeId, String)>, out: &mut Vec<Action>) {
        if self.in_session() {
            out.push(Action::CloseSession);
        }
        self.record.epoch = Epoch(self.record.epoch.0 + 1);
        self.record.replicator = Some(chosen);
        self.record.barrier = 0;
        self.record.passes.clear();
        self.moving.lost_since = None;
        self.moving.session_since = None;
        self.failures = 0;
        self.phase = Phase::Held(Hold::NoTarget(None));
        out.push(Action::Store(Box::new(self.record.clone())));
        let (epoch, chosen) = (self.record.epoch, chosen.short());
        let note = match left {
            None => Note::info(
                "replicator-chosen",
                format!("epoch {epoch} goes to replicator {chosen}"),
            ),
            Some((left, why)) => Note::warn(
                "replicator-replaced",
                format!(
                    "epoch {epoch} goes to replicator {chosen}, and the copy begins anew: replicator {} was given up ({why})",
                    left.short()
                ),
            ),
        };
        out.push(Action::Tell(note));
    }
}

/// The others of the pool, beginning after `current`.
fn others(pool: &[Candidate], current: NodeId) -> Vec<&Candidate> {
    let at = pool.iter().position(|candidate| candidate.node == current);
    let after = at.map_or(0, |at| at + 1);
    let (before, after) = pool.split_at(after);
    let around = after.iter().chain(before);
    around
        .filter(|candidate| candidate.node != current)
        .collect()
}
