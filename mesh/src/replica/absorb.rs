//! Taking in what others sent: verify, keep what is new, store it, say what changed.
//!
//! Not here: whom to ask (`replica`), and what this node makes itself (`local`).

use super::{Alarm, Changed, MAX_PARKED, Output, Record, Replica};
use crate::sync::Announcement;
use crdt::{Outcome, ReportOutcome, SignedChange};
use keys::ledger::Inserted;
use keys::{PublicKey, Signed, UnixSecs};
use std::collections::BTreeSet;

/// What came with one message.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) statements: Vec<Signed>,
    pub(super) changes: Vec<SignedChange>,
    pub(super) reports: Vec<Signed>,
}

/// Leaves one blame for each peer: a message full of forgeries is one fault.
fn blame_once(from: usize, out: &mut Vec<Output>) {
    let mut blamed = vec![];
    let mut at = 0;
    out.retain(|output| {
        at += 1;
        match output {
            Output::Blame { peer, .. } if at > from => {
                let first = !blamed.contains(peer);
                blamed.push(*peer);
                first
            }
            _ => true,
        }
    });
}

impl Replica {
    /// What was new, to be passed on. Outputs come in the order store, raise, changed.
    pub(super) fn absorb(
        &mut self,
        wall: UnixSecs,
        from: PublicKey,
        news: News,
        out: &mut Vec<Output>,
    ) -> Option<Announcement> {
        let before = out.len();
        let mut records = vec![];
        let mut changed = Changed::default();
        let mut alarms = vec![];
        self.absorb_statements(news.statements, from, &mut records, &mut alarms, out);
        if !records.is_empty() {
            changed.ledger = true;
            changed.plan |= self.authority_changed(wall, &mut records, &mut alarms);
        }
        self.absorb_changes(
            news.changes,
            from,
            &mut records,
            &mut alarms,
            &mut changed,
            out,
        );
        self.absorb_reports(
            wall,
            news.reports,
            from,
            &mut records,
            &mut alarms,
            &mut changed,
            out,
        );
        blame_once(before, out);
        let fresh = (!records.is_empty()).then(|| self.announcement_of(&records));
        if fresh.is_some() {
            out.push(Output::Store(records));
        }
        out.extend(alarms.into_iter().map(Output::Raise));
        if changed != Changed::default() {
            out.push(Output::Changed(changed));
        }
        fresh
    }

    fn announcement_of(&self, records: &[Record]) -> Announcement {
        let mut announcement = Announcement {
            heads: self.heads(),
            ..Announcement::default()
        };
        for record in records {
            match record {
                Record::Statement(signed) => announcement.statements.push(signed.clone()),
                Record::Change(_, change) => announcement.changes.push(change.clone()),
                Record::Report(_, signed) => announcement.reports.push(signed.clone()),
            }
        }
        announcement
    }

    fn absorb_statements(
        &mut self,
        statements: Vec<Signed>,
        from: PublicKey,
        records: &mut Vec<Record>,
        alarms: &mut Vec<Alarm>,
        out: &mut Vec<Output>,
    ) {
        let forks_before = self.ledger.forks().count();
        let mut waiting = std::mem::take(&mut self.parked);
        // With the signature, or a forged copy would keep the true one out.
        let name = |signed: &Signed| (signed.statement_id(), signed.signature.0);
        let known: BTreeSet<_> = waiting.iter().map(|(_, signed)| name(signed)).collect();
        let new = statements.into_iter().map(|signed| (from, signed));
        waiting.extend(new.filter(|(_, signed)| !known.contains(&name(signed))));
        // Each round may bring what the next one needs.
        loop {
            let before = waiting.len();
            let mut still = vec![];
            for (sender, signed) in waiting {
                match self.ledger.insert(signed.clone()) {
                    Ok(Inserted::New(_)) => records.push(Record::Statement(signed)),
                    Ok(Inserted::Known) => {}
                    Err(refused) if refused.may_come_later() => still.push((sender, signed)),
                    Err(keys::ledger::Refused::Full) => {}
                    Err(_) => out.push(Output::Blame {
                        peer: sender,
                        fault: "sent a statement that is forged, malformed or for another mesh",
                    }),
                }
            }
            waiting = still;
            if waiting.is_empty() || waiting.len() == before {
                break;
            }
        }
        // What waits longest goes last: it comes again with the next page.
        waiting.truncate(MAX_PARKED);
        self.parked = waiting;
        if self.ledger.forks().count() > forks_before {
            let forks = self.ledger.forks();
            alarms.extend(forks.map(|(signer, seq)| Alarm::ForkedStatements { signer, seq }));
        }
    }

    /// Makes the authority again, and with it everything that rests on it. Whether
    /// the plan may have changed.
    pub(super) fn authority_changed(
        &mut self,
        wall: UnixSecs,
        records: &mut Vec<Record>,
        alarms: &mut Vec<Alarm>,
    ) -> bool {
        self.authority = keys::authority::authority(&self.ledger);
        // Equal heads are equal documents, and are found without reading either.
        let before = self.document.digest();
        let orphans = self.document.rebuild(&self.authority);
        if !orphans.is_empty() {
            alarms.push(Alarm::Orphaned {
                changes: orphans.len(),
            });
        }
        let admitted = self.document.take_admitted();
        records.extend(admitted.into_iter().map(Record::change));
        self.reports.drop_departed(&self.authority, wall);
        self.document.digest() != before
    }

    fn absorb_changes(
        &mut self,
        changes: Vec<SignedChange>,
        from: PublicKey,
        records: &mut Vec<Record>,
        alarms: &mut Vec<Alarm>,
        changed: &mut Changed,
        out: &mut Vec<Output>,
    ) {
        if changes.is_empty() {
            return;
        }
        let outcomes = self.document.offer_all(changes, &self.authority);
        for outcome in outcomes {
            match outcome {
                Outcome::Admitted | Outcome::Known | Outcome::Parked => {}
                Outcome::Fork(fork) => alarms.push(Alarm::ForkedChanges {
                    author: fork.author,
                    seq: fork.seq,
                }),
                Outcome::Refused(refusal) => {
                    if refusal.blames_sender() {
                        let fault = "sent a document change that is forged or malformed";
                        out.push(Output::Blame { peer: from, fault });
                    }
                }
            }
        }
        let admitted = self.document.take_admitted();
        changed.plan |= !admitted.is_empty();
        records.extend(admitted.into_iter().map(Record::change));
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one message's parts and where each kind of result goes"
    )]
    fn absorb_reports(
        &mut self,
        wall: UnixSecs,
        reports: Vec<Signed>,
        from: PublicKey,
        records: &mut Vec<Record>,
        alarms: &mut Vec<Alarm>,
        changed: &mut Changed,
        out: &mut Vec<Output>,
    ) {
        for signed in reports {
            match self.reports.offer(signed.clone(), &self.authority, wall) {
                ReportOutcome::New(node) => {
                    changed.reports = true;
                    records.push(Record::Report(node, signed));
                }
                ReportOutcome::Fork(fork) => {
                    alarms.push(Alarm::ForkedReports { node: fork.node });
                }
                ReportOutcome::Refused(refusal) if refusal.blames_sender() => {
                    let fault = "sent a report that is forged or malformed";
                    out.push(Output::Blame { peer: from, fault });
                }
                ReportOutcome::Stale
                | ReportOutcome::UnknownNode(_)
                | ReportOutcome::Refused(_) => {}
            }
        }
    }
}
