//! Answering what peers ask: a page of what they lack.
//!
//! Not here: what a request may hold (`sync`), and who may ask at all (the shell).

use super::Replica;
use crate::sync::{self, GroupDigests, HeldReport, PAGE_BYTES, Page, Request, Short, Summary};
use crdt::{Compared, SignedChange};
use keys::statement::Position;
use keys::{NodeId, PublicKey, Signed, StatementId};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes that come on top of each thing's own: key, signature, lengths.
const ENVELOPE: usize = 128;

impl Replica {
    pub(super) fn page(&self, from: &PublicKey, request: &Request) -> Page {
        let mut left = PAGE_BYTES;
        let mut page = Page {
            heads: self.heads(),
            statements: vec![],
            changes: vec![],
            reports: vec![],
            evidence: vec![],
            yours: self.yours(from),
            ledger_groups: GroupDigests::new(),
            report_groups: GroupDigests::new(),
            more: false,
        };
        if let Some(known) = &request.forks {
            page.evidence = self.evidence_beside(known, &mut left);
        }
        match &request.ledger {
            None => {}
            Some(Summary::Groups(theirs)) => {
                page.ledger_groups = sync::differing_groups(self.ledger.buckets(), theirs);
            }
            Some(Summary::Held(theirs)) => {
                page.more |= self.add_statements(theirs, &mut left, &mut page.statements);
            }
        }
        if let Some(theirs) = &request.logs {
            page.more |= self.add_changes(theirs, &mut left, &mut page.changes);
        }
        match &request.reports {
            None => {}
            Some(Summary::Groups(theirs)) => {
                page.report_groups = sync::differing_groups(self.reports.buckets(), theirs);
            }
            Some(Summary::Held(theirs)) => {
                page.more |= self.add_reports(theirs, &mut left, &mut page.reports);
            }
        }
        page
    }

    /// Adds what the asker does not list, each after what it needs. Whether some of it
    /// did not fit.
    fn add_statements(
        &self,
        theirs: &[(u8, Vec<Short>)],
        left: &mut usize,
        statements: &mut Vec<Signed>,
    ) -> bool {
        let mut lacking: Vec<&StatementId> = vec![];
        for (bucket, held) in theirs {
            let held: BTreeSet<&Short> = held.iter().collect();
            let ours = self.ledger.bucket(*bucket).map(|(id, _)| id);
            lacking.extend(ours.filter(|id| !held.contains(&sync::short_id(id))));
        }
        lacking.sort_by_cached_key(|id| self.ledger.rank(id));
        for id in lacking {
            if *left == 0 {
                return true;
            }
            if let Some(recorded) = self.ledger.get(id) {
                *left = left.saturating_sub(recorded.signed.body.len() + ENVELOPE);
                statements.push(recorded.signed.clone());
            }
        }
        false
    }

    fn add_changes(
        &self,
        theirs: &[(PublicKey, Position)],
        left: &mut usize,
        changes: &mut Vec<SignedChange>,
    ) -> bool {
        let theirs: BTreeMap<_, _> = theirs.iter().copied().collect();
        for (author, head) in self.document.heads() {
            let after = match theirs.get(&author) {
                None => 0,
                Some(at) => match self.document.compare(&author, at) {
                    Compared::Same => continue,
                    // From the beginning, so that the other sees where they part.
                    Compared::Forked => 0,
                    Compared::Ours | Compared::Theirs => at.seq,
                },
            };
            if after < head.seq && *left == 0 {
                return true;
            }
            let entries = self.document.entries_after(&author, after, *left);
            let through = after + entries.len() as u64;
            for change in entries {
                *left = left.saturating_sub(change.raw.len() + ENVELOPE);
                changes.push(change);
            }
            if through < head.seq {
                return true;
            }
        }
        false
    }

    fn add_reports(
        &self,
        theirs: &[(u8, Vec<HeldReport>)],
        left: &mut usize,
        reports: &mut Vec<Signed>,
    ) -> bool {
        for (bucket, held) in theirs {
            let held: BTreeMap<Short, &HeldReport> =
                held.iter().map(|held| (held.node, held)).collect();
            let lacking = |(node, version, hash): (&NodeId, u64, &[u8; 32])| {
                let ours = HeldReport::new(node, version, hash);
                // Of one version and another body: one of the two nodes is to see a fork.
                let lacks = held.get(&ours.node).is_none_or(|theirs| {
                    theirs.version < version
                        || (theirs.version == version && theirs.hash != ours.hash)
                });
                lacks.then(|| self.reports.signed(node)).flatten()
            };
            for signed in self.reports.bucket(*bucket).filter_map(lacking) {
                if *left == 0 {
                    return true;
                }
                *left = left.saturating_sub(signed.body.len() + ENVELOPE);
                reports.push(signed.clone());
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
