//! Building the view again from the logs: what counts under an authority, and what
//! is orphaned by it.

use super::again::intent;
use super::forked::Honoured;
use super::{Batch, Document, Orphan, Snapshot, apply};
use crate::admission::{self, Index, Parsed, Placement};
use crate::log::Digest;
use crate::schema;
use crate::shards;
use automerge::{Change, ChangeHash};
use keys::{Authority, PublicKey};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Most changes that are kept though they do not count.
pub(super) const MAX_ASIDE: usize = 100_000;

/// The changes of one author that may be in its log, by number; of several with one
/// number, those that were in the log before come first.
type Candidates<'a> = BTreeMap<u64, Vec<&'a Parsed>>;

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
        let logs = self.index.logs().values().flatten();
        let here = logs.map(|entry| (entry.signed.digest(), entry.signed.clone()));
        let here: Vec<_> = here.chain(std::mem::take(&mut self.aside)).collect();
        let everything = here.into_iter().filter_map(|(digest, change)| {
            let parsed = admission::parse_stored(change).ok()?;
            Some((digest, parsed))
        });
        self.build(everything.collect(), None, authority);
    }

    /// Builds index, document and plan from `everything`; of two changes with one
    /// number and round the one that is in the log comes first.
    pub(super) fn build(
        &mut self,
        everything: BTreeMap<Digest, Parsed>,
        snapshot: Option<&Snapshot>,
        authority: &Authority,
    ) {
        let before = std::mem::take(&mut self.index);
        let undecided = std::mem::take(&mut self.undecided);
        self.built_under.clear();
        loop {
            let sorted = self.sort(&everything, &before, authority, &undecided);
            let (index, order) = index_of(sorted);
            self.index = index;
            if self.materialise(&order, snapshot) {
                break;
            }
        }
        self.set_aside(&before, everything);
        self.note_all_honoured(authority);
        self.note_rounds();
        let orphans = self.orphaned(&before, authority, &undecided);
        self.orphans.extend(orphans);
    }

    fn sort<'a>(
        &self,
        everything: &'a BTreeMap<Digest, Parsed>,
        before: &Index,
        authority: &Authority,
        undecided: &BTreeSet<PublicKey>,
    ) -> BTreeMap<PublicKey, Candidates<'a>> {
        let mut sorted: BTreeMap<PublicKey, Candidates<'a>> = BTreeMap::new();
        for parsed in everything.values() {
            if self.failed.contains(&parsed.hash()) {
                continue;
            }
            let candidates = sorted.entry(parsed.author()).or_default();
            let candidates = candidates.entry(parsed.seq()).or_default();
            let held = before.admitted(&parsed.author(), parsed.seq());
            if held.is_some_and(|held| held.hash == parsed.hash()) {
                candidates.insert(0, parsed);
            } else {
                candidates.push(parsed);
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
                    }
                    // Else the end is still to come, and nothing past it follows.
                }
            }
        }
        sorted
    }

    /// Applies `order` to a new document; false if automerge failed on one of them,
    /// which is then on the list of those that failed.
    fn materialise(&mut self, order: &[&Change], snapshot: Option<&Snapshot>) -> bool {
        if let Some(doc) = snapshot.and_then(|snapshot| self.extended(snapshot, order)) {
            self.plan = schema::read_all(&doc);
            self.doc = doc;
            self.unsaved = self
                .index
                .cost_after(|author| snapshot.map_or(0, |snapshot| snapshot.covers(author)));
            return true;
        }
        let mut doc = shards::document();
        if !apply(&mut doc, order.iter().copied()) {
            doc = shards::document();
            let culprit = order.iter().find(|change| !apply(&mut doc, [**change]));
            if let Some(culprit) = culprit {
                self.failed.insert(culprit.hash());
                return false;
            }
        }
        self.doc = doc;
        self.plan = schema::read_all(&self.doc);
        self.unsaved = self.index.cost_after(|_| 0);
        true
    }

    /// Keeps what does not count now, and notes what counts and did not before.
    pub(super) fn set_aside(&mut self, before: &Index, everything: BTreeMap<Digest, Parsed>) {
        for (digest, parsed) in everything {
            let held = self.index.admitted(&parsed.author(), parsed.seq());
            let counts = held.is_some_and(|held| held.hash == parsed.hash());
            if !counts && self.aside.len() < MAX_ASIDE {
                self.aside.insert(digest, parsed.signed);
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
            if let Ok(parsed) = admission::parse_stored(change.clone()) {
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
                        saw: before.saw(entry),
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
fn index_of<'a>(mut sorted: BTreeMap<PublicKey, Candidates<'a>>) -> (Index, Vec<&'a Change>) {
    let mut index = Index::default();
    let mut order = Vec::new();
    let mut any_round = false;
    loop {
        let mut progress = false;
        for (author, candidates) in &mut sorted {
            while let Some((parsed, causes)) =
                take_next(&index, candidates, index.last_seq(author) + 1, any_round)
            {
                order.push(&parsed.change);
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

fn take_next<'a>(
    index: &Index,
    candidates: &mut Candidates<'a>,
    seq: u64,
    any_round: bool,
) -> Option<(&'a Parsed, admission::Causes)> {
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
fn chain_to(candidates: &Candidates<'_>, seq: u64, hash: [u8; 32]) -> Option<HashSet<ChangeHash>> {
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

fn keep_only(candidates: &mut Candidates<'_>, keep: impl Fn(&Parsed) -> bool) {
    for found in candidates.values_mut() {
        found.retain(|parsed| keep(parsed));
    }
    candidates.retain(|_, found| !found.is_empty());
}
