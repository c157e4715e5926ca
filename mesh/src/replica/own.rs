//! This node's own head first: after a start it writes nothing of its own (statement,
//! change, report) before its peers have shown how far its logs go. A data folder that
//! was restored from an old copy thus goes on after its newest entries instead of
//! forking its own logs.
//!
//! And the other side of it: a report of this node that it did not make, made while it
//! runs, shows that its key is in two places.

use super::cloned::Fork;
use super::{Alarm, Changed, Output, Record, Replica};
use crate::sync::Yours;
use crdt::{Evidence, Forked, Orphan, PairOutcome, Report};
use keys::{PublicKey, Role, Standing, UnixSecs};
use std::collections::{BTreeMap, VecDeque};

/// How long a peer may take to show all that it says it holds of this node's own logs:
/// two answers that are waited for to the end.
const PATIENCE_MILLIS: u64 = 2 * super::ANSWER_MILLIS;

/// So many of its newest reports a node knows again as what another one followed.
const MADE: usize = 256;

/// Whether a peer has shown what it holds of this node's logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Shown {
    /// Not yet.
    #[default]
    NotYet,
    /// It holds nothing of them that is not here.
    Met,
    /// It does not answer, or says that it holds more and does not give it.
    Nothing,
}

/// What this node knows of its own logs.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Whether it may write to them.
    pub(super) heard: bool,
    /// Until then: since when each peer has been there to ask, even if it came again.
    pub(super) asked_since: BTreeMap<PublicKey, u64>,
    /// When it began, by its wall clock.
    pub(super) since: Option<UnixSecs>,
    /// The last report that it made since.
    pub(super) last: Option<Report>,
    /// The hashes of those that it made since, newest last.
    hashes: VecDeque<[u8; 32]>,
    /// That of the newest one which it did not make.
    follows: Option<[u8; 32]>,
    /// Its own changes that lost what they depend on, to be made again.
    pub(super) orphans: Vec<Orphan>,
}

impl Own {
    /// What a report that is made now follows, where `held` is the newest one.
    pub(super) fn follows(&mut self, held: Option<[u8; 32]>) -> Option<[u8; 32]> {
        if held.is_some_and(|held| !self.hashes.contains(&held)) {
            self.follows = held;
        }
        self.follows
    }

    /// Notes one that it made.
    pub(super) fn made(&mut self, hash: Option<[u8; 32]>) {
        self.hashes.extend(hash);
        if self.hashes.len() > MADE {
            self.hashes.pop_front();
        }
    }
}

impl Replica {
    /// Whether this node may write to its own logs: it has heard how far they go.
    pub fn may_write(&self) -> bool {
        self.own.heard
    }

    /// Lets this node write without having heard from anybody. Only for a key that was
    /// never used before, and where a person says that the data folder is no old copy.
    pub fn write_unheard(&mut self) {
        self.own.heard = true;
    }

    /// What is here of a peer's own logs, for it to compare.
    pub(super) fn yours(&self, peer: &PublicKey) -> Yours {
        let heads = self.document.heads();
        let node = self.authority.by_key(peer).map(|member| member.id);
        let report = node.and_then(|node| self.reports.versions().get(&node).copied());
        let roots = self.ledger.roots().iter();
        Yours {
            statement: self.ledger.last_seq(peer),
            change: heads.get(peer).map_or(0, |head| head.seq),
            report: report.unwrap_or(0),
            roots: roots.map(|root| self.ledger.last_seq(root)).collect(),
        }
    }

    /// Whether all that a peer says it holds of this node's logs is here.
    pub(super) fn holds(&self, theirs: &Yours) -> bool {
        let ours = self.yours(&self.my_key());
        let forked = self.me().is_some_and(|me| self.reports.is_forked(&me));
        let roots = ours.roots.iter().zip(&theirs.roots);
        ours.statement >= theirs.statement
            && ours.change >= theirs.change
            && (forked || ours.report >= theirs.report)
            && (self.root.is_none() || roots.into_iter().all(|(ours, theirs)| ours >= theirs))
    }

    /// Looks whether enough was heard: every connected peer was asked and one at least
    /// has shown its hand; or there is nobody to ask. Who claims ever more than it gives
    /// is waited for no longer than a while.
    pub(super) fn hear(&mut self, now: u64) {
        if self.own.heard {
            return;
        }
        let met = self.peers.values().any(|peer| peer.shown == Shown::Met);
        let all = self.peers.iter().all(|(key, peer)| {
            let since = *self.own.asked_since.entry(*key).or_insert(now);
            peer.shown != Shown::NotYet || now >= since + PATIENCE_MILLIS
        });
        self.own.heard = (met && all) || self.is_only_member();
        if self.own.heard {
            self.own.asked_since.clear();
        }
    }

    fn is_only_member(&self) -> bool {
        let me = self.my_key();
        let mut others = self.authority.members().filter(|member| member.key != me);
        !others.any(|member| matches!(member.standing, Standing::Active | Standing::Contested))
    }

    /// A report of this node came from elsewhere. If it was made while this node ran,
    /// the key is in two places: another report of the same version proves it to all.
    pub(super) fn contradict(
        &mut self,
        wall: UnixSecs,
        records: &mut Vec<Record>,
        found: &mut Vec<Evidence>,
    ) {
        let (Some(me), Some(mine)) = (self.me(), self.own.last.clone()) else {
            return;
        };
        let Some(theirs) = self.reports.get(&me) else {
            return;
        };
        let follows = theirs.follows;
        // By the clock it is found sooner; by what it follows, whatever the clocks say.
        let made_meanwhile = follows.is_some_and(|hash| self.own.hashes.contains(&hash))
            || self.own.since.is_some_and(|since| theirs.at > since);
        // An older one may be its own: it forgets its reports while it seems not to belong.
        if !made_meanwhile || theirs.version < mine.version || *theirs == mine {
            return;
        }
        let version = theirs.version;
        let Some(theirs) = self.reports.signed(&me).cloned() else {
            return;
        };
        let Ok(ours) = (Report { version, ..mine }).seal(&self.identity) else {
            return;
        };
        let pair = Box::new([ours, theirs]);
        let offered = self.reports.offer_fork(pair.clone(), &self.authority, wall);
        if offered == PairOutcome::New {
            let evidence = Evidence::Reports(pair);
            records.push(Record::Evidence(Forked::Reports(me), evidence.clone()));
            found.push(evidence);
        }
    }

    /// Keeps this node's own orphaned changes for later, and counts those of others.
    pub(super) fn sort_orphans(&mut self, orphans: Vec<Orphan>, alarms: &mut Vec<Alarm>) {
        let me = self.my_key();
        let (mine, others): (Vec<_>, Vec<_>) =
            orphans.into_iter().partition(|orphan| orphan.author == me);
        self.own.orphans.extend(mine);
        if !others.is_empty() {
            // At no time in particular: whether an enrolment has run out is not asked here.
            let edits = |author| self.authority.standing(UnixSecs(0), author, Role::Operator);
            let gone = others
                .iter()
                .filter(|orphan| edits(&orphan.author).is_err());
            alarms.push(Alarm::Orphaned {
                changes: others.len(),
                lost: gone.count(),
            });
        }
    }

    /// Makes again what this node's own edits said that no longer count because what
    /// they depend on does not.
    pub(super) fn make_again(&mut self, wall: UnixSecs, out: &mut Vec<Output>) {
        if !self.own.heard || self.own.orphans.is_empty() {
            return;
        }
        let orphans = std::mem::take(&mut self.own.orphans);
        let identity = self.identity.clone();
        let again = self
            .document
            .edit_again(&identity, wall, &self.authority, &orphans);
        // Who is no operator any more, or whose log is forked, has nothing to make again.
        let Ok(again) = again else { return };
        let records = again.changes.iter().cloned().map(Record::change).collect();
        if !again.changes.is_empty() {
            out.push(Output::Store(records));
        }
        for (_, change) in again.changes {
            self.announce(super::absorb::News::changes(vec![change]), out);
        }
        let (made, lost) = (again.made, again.lost);
        if !made.is_empty() || !lost.is_empty() {
            out.push(Output::Raise(Alarm::MadeAgain { made, lost }));
            out.push(Output::Changed(Changed {
                plan: true,
                ..Changed::default()
            }));
        }
    }

    /// Whether this node's own key is known to be in two places, and by what.
    pub fn my_fork(&self) -> Option<Fork> {
        self.fork_of(&self.my_key())
    }
}
