//! Building the view again from the logs: what counts under an authority, and what
//! is orphaned by it.

use super::again::intent;
use super::forked::Honoured;
use super::{Batch, Document, Orphan, apply};
use crate::admission::{self, Index, Parsed, Placement};
use crate::log::{Digest, SignedChange};
use crate::plan::Plan;
use crate::schema;
use automerge::{Automerge, ChangeHash};
use keys::{Authority, PublicKey};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Most changes that are kept though they do not count.
const MAX_ASIDE: usize = 100_000;

/// The changes of one author that may be in its log, by number; of several with one
/// number, those that were in the log before come first.
type Candidates = BTreeMap<u64, Vec<Parsed>>;

impl Document {
    /// To be called when authority has changed. Builds the view again if it changes
    /// what counts, offers again what waited for its author, and returns the changes
    /// that would count but for what they depend on.
    pub fn rebuild(&mut self, authority: &Authority) -> Vec<Orphan> {
        let stale = self
            .built_under
            .iter()
            .any(|(author, built)| self.honoured(author, authority) != Some(*built));
        if stale {
            self.rebuild_view(authority);
        }
        let mut batch = Batch::default();
        self.retry(authority, &mut batch);
        self.apply(batch, authority);
        self.take_orphans()
    }

    /// Builds index, document and plan from everything that is here.
    pub(super) fn rebuild_view(&mut self, authority: &Authority) {
        let before = std::mem::take(&mut self.index);
        let mut everything: Vec<SignedChange> = before
            .logs()
            .values()
            .flatten()
            .map(|entry| entry.signed.clone())
            .collect();
        everything.extend(std::mem::take(&mut self.aside).into_values());
        let undecided = std::mem::take(&mut self.undecided);
        self.built_under.clear();
        loop {
            let sorted = self.sort(&everything, authority, &undecided);
            let (index, order) = index_of(sorted);
            self.index = index;
            if self.materialise(&order) {
                break;
            }
        }
        self.set_aside(&before, everything);
        self.note_all_honoured(authority);
        self.note_rounds();
        let orphans = self.orphaned(&before, authority, &undecided);
        self.orphans.extend(orphans);
    }

    fn sort(
        &self,
        everything: &[SignedChange],
        authority: &Authority,
        undecided: &BTreeSet<PublicKey>,
    ) -> BTreeMap<PublicKey, Candidates> {
        let mut sorted: BTreeMap<PublicKey, Candidates> = BTreeMap::new();
        for change in everything {
            let Ok(parsed) = admission::parse(change.clone()) else {
                continue;
            };
            if !self.failed.contains(&parsed.hash()) {
                let candidates = sorted.entry(parsed.author()).or_default();
                candidates.entry(parsed.seq()).or_default().push(parsed);
            }
        }
        for (author, candidates) in &mut sorted {
            match self.honoured(author, authority) {
                None => candidates.clear(),
                Some(Honoured::All) => {}
                Some(Honoured::Before(fork)) => candidates.retain(|seq, _| *seq < fork),
                Some(Honoured::Through(end)) => {
                    if let Some(chain) = chain_to(candidates, end.seq, end.hash) {
                        keep_only(candidates, |parsed| chain.contains(&parsed.hash()));
                    } else if undecided.contains(author) || candidates.contains_key(&end.seq) {
                        // What is here is, or may be, the branch that is not honoured.
                        candidates.clear();
                    } else {
                        candidates.retain(|seq, _| *seq < end.seq);
                    }
                }
            }
        }
        sorted
    }

    /// Applies `order` to a new document; false if automerge failed on one of them,
    /// which is then on the list of those that failed.
    fn materialise(&mut self, order: &[automerge::Change]) -> bool {
        let mut doc = Automerge::new();
        if !apply(&mut doc, order) {
            doc = Automerge::new();
            let culprit = order
                .iter()
                .find(|change| !apply(&mut doc, std::slice::from_ref(change)));
            if let Some(culprit) = culprit {
                self.failed.insert(culprit.hash());
                return false;
            }
        }
        self.doc = doc;
        self.plan = Plan::default();
        for key in schema::root_keys(&self.doc) {
            self.plan.set(&key, schema::read(&self.doc, &key));
        }
        true
    }

    /// Keeps what does not count now, and notes what counts and did not before.
    fn set_aside(&mut self, before: &Index, everything: Vec<SignedChange>) {
        let counted: HashSet<Digest> = self
            .index
            .logs()
            .values()
            .flatten()
            .map(|entry| entry.signed.digest())
            .collect();
        for change in everything {
            let digest = change.digest();
            if !counted.contains(&digest) && self.aside.len() < MAX_ASIDE {
                self.aside.insert(digest, change);
            }
        }
        for (author, log) in self.index.logs() {
            for (seq, entry) in (1..).zip(log) {
                let held = before.admitted(author, seq);
                if held.is_none_or(|held| held.hash != entry.hash) {
                    self.fresh.push((seq, entry.signed.clone()));
                }
            }
        }
        let index = &self.index;
        self.fresh.retain(|(seq, change)| {
            let held = index.admitted(&change.author, *seq);
            held.is_some_and(|held| held.signed == *change)
        });
    }

    fn note_all_honoured(&mut self, authority: &Authority) {
        let aside = self.aside.values().map(|change| change.author);
        let authors: BTreeSet<PublicKey> = self.index.logs().keys().copied().chain(aside).collect();
        for author in authors {
            self.note_honoured(author, authority);
        }
    }

    pub(super) fn note_honoured(&mut self, author: PublicKey, authority: &Authority) {
        if let Some(honoured) = self.honoured(&author, authority) {
            self.built_under.insert(author, honoured);
        }
    }

    /// An author that goes on beside changes of its own that do not count now does so
    /// in a round above theirs.
    fn note_rounds(&mut self) {
        self.rounds.clear();
        for change in self.aside.values() {
            let author = change.author;
            if self.built_under.get(&author) != Some(&Honoured::All) {
                continue;
            }
            if let Ok(parsed) = admission::parse(change.clone()) {
                let round = self.rounds.entry(author).or_default();
                *round = (*round).max(parsed.round.saturating_add(1));
            }
        }
    }

    /// What counted before and would still but for what it depends on.
    fn orphaned(
        &self,
        before: &Index,
        authority: &Authority,
        undecided: &BTreeSet<PublicKey>,
    ) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        for (author, log) in before.logs() {
            let Some(honoured) = self.honoured(author, authority) else {
                continue;
            };
            for (seq, entry) in (1..).zip(log) {
                let held = self.index.admitted(author, seq);
                let counts = held.is_some_and(|held| held.hash == entry.hash);
                if !counts && !undecided.contains(author) && honoured.covers(seq, entry.hash) {
                    orphans.push(Orphan {
                        author: *author,
                        seq,
                        intent: intent(before, &entry.signed),
                    });
                }
            }
        }
        orphans
    }
}

/// Appends candidates to an empty index until no more fit, and returns their order.
///
/// Of several with one number the lowest round goes first; a higher one takes its place
/// only once nothing else fits any more.
fn index_of(mut sorted: BTreeMap<PublicKey, Candidates>) -> (Index, Vec<automerge::Change>) {
    let mut index = Index::default();
    let mut order = Vec::new();
    let mut any_round = false;
    loop {
        let mut progress = false;
        for (author, candidates) in &mut sorted {
            while let Some((parsed, causes)) =
                take_next(&index, candidates, index.last_seq(author) + 1, any_round)
            {
                order.push(parsed.change.clone());
                index.append(parsed, causes);
                progress = true;
                if std::mem::take(&mut any_round) {
                    break;
                }
            }
        }
        if !progress && any_round {
            return (index, order);
        }
        any_round = !progress;
    }
}

fn take_next(
    index: &Index,
    candidates: &mut Candidates,
    seq: u64,
    any_round: bool,
) -> Option<(Parsed, admission::Causes)> {
    let found = candidates.get_mut(&seq)?;
    let lowest = found.iter().map(|parsed| parsed.round).min()?;
    found.sort_by_key(|parsed| parsed.round);
    let (at, causes) = found
        .iter()
        .enumerate()
        .filter(|(_, parsed)| any_round || parsed.round == lowest)
        .find_map(|(at, parsed)| match index.place(parsed) {
            Ok(Placement::Next(causes)) => Some((at, causes)),
            _ => None,
        })?;
    Some((found.remove(at), causes))
}

/// The hashes of the chain that ends in number `seq` with `hash`; none unless all of
/// it is here.
fn chain_to(candidates: &Candidates, seq: u64, hash: [u8; 32]) -> Option<HashSet<ChangeHash>> {
    let mut chain = HashSet::new();
    let mut wanted = vec![ChangeHash(hash)];
    for seq in (1..=seq).rev() {
        let found = candidates.get(&seq)?;
        let parsed = found.iter().find(|one| wanted.contains(&one.hash()))?;
        chain.insert(parsed.hash());
        wanted = parsed.change.deps().to_vec();
    }
    Some(chain)
}

fn keep_only(candidates: &mut Candidates, keep: impl Fn(&Parsed) -> bool) {
    for found in candidates.values_mut() {
        found.retain(&keep);
    }
    candidates.retain(|_, found| !found.is_empty());
}
