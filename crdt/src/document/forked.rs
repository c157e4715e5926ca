//! Forked logs: two changes of one number that one author signed. What follows the
//! lowest fork of a log counts nowhere, so that all nodes still have the same plan.
//!
//! A revocation that says which branch is honoured takes the place of that rule.

use super::{Batch, Document};
use crate::admission::{self, Parsed};
use crate::evidence::{Evidence, Forked, PairOutcome};
use crate::log::SignedChange;
use automerge::ChangeHash;
use keys::authority::Authorship;
use keys::statement::Position;
use keys::{Authority, PublicKey};

/// How far the changes of an author count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Honoured {
    /// All of them.
    All,
    /// Through this position of the log; none when the number is 0.
    Through(Position),
    /// Those before this number, at which the log is forked.
    Before(u64),
}

impl Honoured {
    pub(super) fn covers(self, seq: u64, hash: ChangeHash) -> bool {
        match self {
            Self::All => true,
            Self::Through(end) => seq < end.seq || (seq == end.seq && hash.0 == end.hash),
            Self::Before(fork) => seq < fork,
        }
    }
}

/// Two changes of one author with one number and one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    seq: u64,
    changes: Box<[SignedChange; 2]>,
}

impl Pair {
    pub(super) fn of(here: SignedChange, offered: &Parsed) -> Self {
        Self {
            seq: offered.seq(),
            changes: Box::new([here, offered.signed.clone()]),
        }
    }

    /// Signatures are not checked.
    fn parse(changes: Box<[SignedChange; 2]>) -> Option<Self> {
        let [first, second] = &*changes;
        let first = admission::parse(first.clone()).ok()?;
        let second = admission::parse(second.clone()).ok()?;
        let forks = first.author() == second.author()
            && first.seq() == second.seq()
            && first.round == second.round
            && first.hash() != second.hash();
        let seq = first.seq();
        forks.then_some(Self { seq, changes })
    }

    fn author(&self) -> PublicKey {
        self.changes[0].author
    }
}

impl Document {
    /// How far the changes of `author` count; none if it was never an operator.
    pub(super) fn honoured(&self, author: &PublicKey, authority: &Authority) -> Option<Honoured> {
        Some(match authority.authorship(author)? {
            Authorship::Through(end) => Honoured::Through(end),
            Authorship::Full => match self.forks.get(author) {
                Some(pair) => Honoured::Before(pair.seq),
                None => Honoured::All,
            },
        })
    }

    /// Takes in two changes that a peer shows as a fork.
    pub fn offer_fork(
        &mut self,
        changes: Box<[SignedChange; 2]>,
        authority: &Authority,
    ) -> PairOutcome {
        let author = changes[0].author;
        if authority.authorship(&author).is_none() {
            return PairOutcome::Unknown;
        }
        if !changes.iter().all(|change| change.verified(self.mesh)) {
            return PairOutcome::Refused;
        }
        let Some(pair) = Pair::parse(changes) else {
            return PairOutcome::Refused;
        };
        if !self.keep_pair(pair) {
            return PairOutcome::Known;
        }
        self.rebuild_view(authority);
        self.retry_now(authority);
        PairOutcome::New
    }

    /// Puts back a pair that was verified before it was stored.
    pub fn restore_fork(&mut self, changes: Box<[SignedChange; 2]>, authority: &Authority) {
        if let Some(pair) = Pair::parse(changes)
            && self.keep_pair(pair)
        {
            self.rebuild_view(authority);
            self.fresh.clear();
            self.orphans.clear();
            self.fresh_forks.clear();
        }
    }

    /// Keeps the pair of the lowest number; whether this one is.
    pub(super) fn keep_pair(&mut self, pair: Pair) -> bool {
        let author = pair.author();
        let held = self.forks.get(&author);
        if held.is_some_and(|held| held.seq <= pair.seq) {
            return false;
        }
        for change in pair.changes.iter() {
            self.aside.insert(change.digest(), change.clone());
        }
        self.forks.insert(author, pair);
        self.fresh_forks.insert(author);
        true
    }

    /// A log was found to be forked by `offered`: what is past the fork goes.
    pub(super) fn cut(&mut self, batch: &mut Batch, authority: &Authority) {
        *batch = Batch::default();
        self.rebuild_view(authority);
        self.retry(authority, batch);
    }

    fn retry_now(&mut self, authority: &Authority) {
        let mut batch = Batch::default();
        self.retry(authority, &mut batch);
        self.apply(batch, authority);
    }

    /// The forks that were found since the last call: to be stored, and passed on.
    pub fn take_forks(&mut self) -> Vec<(Forked, Evidence)> {
        let authors = std::mem::take(&mut self.fresh_forks);
        let all = self.forks();
        all.filter(
            |(forked, _)| matches!(forked, Forked::Changes(author, _) if authors.contains(author)),
        )
        .collect()
    }

    /// The lowest fork that is known of each author, with its proof.
    pub fn forks(&self) -> impl Iterator<Item = (Forked, Evidence)> + '_ {
        self.forks.iter().map(|(author, pair)| {
            let evidence = Evidence::Changes(pair.changes.clone());
            (Forked::Changes(*author, pair.seq), evidence)
        })
    }

    /// What [`Document::forks`] names, without the proofs.
    pub fn forked(&self) -> impl Iterator<Item = Forked> + '_ {
        let pairs = self.forks.iter();
        pairs.map(|(author, pair)| Forked::Changes(*author, pair.seq))
    }
}
