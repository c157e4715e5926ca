//! Taking in what others sent: verify, keep what is new, store it, say what changed.
//!
//! Not here: whom to ask (`replica`), and what this node makes itself (`local`).

use super::{Alarm, Changed, MAX_PARKED, MAX_PARKED_OF_PEER, Output, Record, Replica};
use crate::sync::Announcement;
use crdt::{Evidence, Forked, Outcome, ReportOutcome, SignedChange};
use keys::ledger::Inserted;
use keys::{PublicKey, Signed, Standing, UnixSecs};
use std::collections::{BTreeMap, BTreeSet};

/// What came with one message.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) statements: Vec<Signed>,
    pub(super) changes: Vec<SignedChange>,
    pub(super) reports: Vec<Signed>,
    pub(super) evidence: Vec<Evidence>,
}

impl News {
    pub(super) fn statements(statements: Vec<Signed>) -> Self {
        Self {
            statements,
            ..Self::default()
        }
    }

    pub(super) fn changes(changes: Vec<SignedChange>) -> Self {
        Self {
            changes,
            ..Self::default()
        }
    }

    pub(super) fn reports(reports: Vec<Signed>) -> Self {
        Self {
            reports,
            ..Self::default()
        }
    }
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

/// As many as there is room for. What waits longest stays; the rest comes again with
/// the next page.
fn within_bounds(mut parked: Vec<(PublicKey, Signed)>) -> Vec<(PublicKey, Signed)> {
    let mut of_peer: BTreeMap<PublicKey, usize> = BTreeMap::new();
    parked.retain(|(sender, _)| {
        let count = of_peer.entry(*sender).or_default();
        *count += 1;
        *count <= MAX_PARKED_OF_PEER
    });
    parked.truncate(MAX_PARKED);
    parked
}

impl Replica {
    /// What was new, to be passed on. Outputs come in the order store, announce, raise,
    /// changed.
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
        // Forks that this node is the first to see: others are to hear of them at once.
        let mut found = vec![];
        self.absorb_statements(news.statements, from, &mut records, out);
        if !records.is_empty() {
            changed.ledger = true;
            changed.plan |= self.authority_changed(wall, &mut records, &mut alarms);
        }
        self.absorb_changes(
            news.changes,
            from,
            &mut records,
            &mut alarms,
            &mut found,
            &mut changed,
            out,
        );
        self.absorb_reports(
            wall,
            news.reports,
            from,
            &mut records,
            &mut found,
            &mut changed,
            out,
        );
        self.absorb_evidence(wall, news.evidence, from, &mut records, out);
        self.document_changed(&mut records, &mut alarms, &mut changed, &mut vec![]);
        self.note_cloned();
        changed.ledger |= self.raise_forks(&mut alarms);
        blame_once(before, out);
        let fresh = (!records.is_empty()).then(|| self.announcement_of(&records, &found));
        if fresh.is_some() {
            out.push(Output::Store(records));
        }
        if !found.is_empty() {
            let news = News {
                evidence: found,
                ..News::default()
            };
            self.announce(news, out);
        }
        out.extend(alarms.into_iter().map(Output::Raise));
        if changed != Changed::default() {
            out.push(Output::Changed(changed));
        }
        fresh
    }

    /// Of all but the forks that were found here, of which everybody is told, also who
    /// sent half of the proof.
    fn announcement_of(&self, records: &[Record], found: &[Evidence]) -> Announcement {
        let mut announcement = Announcement {
            heads: self.heads(),
            ..Announcement::default()
        };
        for record in records {
            match record {
                Record::Statement(signed) => announcement.statements.push(signed.clone()),
                Record::Change(_, change) => announcement.changes.push(change.clone()),
                Record::Report(_, signed) => announcement.reports.push(signed.clone()),
                Record::Evidence(_, evidence) if found.contains(evidence) => {}
                Record::Evidence(_, evidence) => announcement.evidence.push(evidence.clone()),
            }
        }
        announcement
    }

    fn absorb_statements(
        &mut self,
        statements: Vec<Signed>,
        from: PublicKey,
        records: &mut Vec<Record>,
        out: &mut Vec<Output>,
    ) {
        let mut parked = std::mem::take(&mut self.parked);
        // Its own signature was verified before a statement was parked: a forged copy does
        // not keep the true one out.
        let known = parked.iter().map(|(_, signed)| signed.statement_id());
        let known: BTreeSet<_> = known.collect();
        let new = statements.into_iter().map(|signed| (from, signed));
        let mut waiting: Vec<_> = new
            .filter(|(_, signed)| !known.contains(&signed.statement_id()))
            .collect();
        let mut held = self.parked_at;
        loop {
            // What waits is verified again only once there is more for it to rest on:
            // a peer that fills its room must not have all of it verified each time.
            if self.ledger.len() != held {
                waiting = parked.drain(..).chain(waiting).collect();
            }
            held = self.ledger.len();
            let mut still = vec![];
            for (sender, signed) in waiting {
                match self.ledger.insert(signed.clone()) {
                    Ok(Inserted::New(_)) => records.push(Record::Statement(signed)),
                    Ok(Inserted::Known) => {}
                    Err(refused) if refused.may_come_later() => still.push((sender, signed)),
                    Err(refused) if refused.blames_sender() => out.push(Output::Blame {
                        peer: sender,
                        fault: "sent a statement that is forged, malformed or for another mesh",
                    }),
                    Err(_) => {}
                }
            }
            waiting = still;
            // Each round may bring what the next one needs.
            if self.ledger.len() == held {
                break;
            }
        }
        self.parked_at = held;
        parked.extend(waiting);
        self.parked = within_bounds(parked);
    }

    /// Makes the authority again, and with it everything that rests on it. Whether
    /// the plan may have changed.
    pub(super) fn authority_changed(
        &mut self,
        wall: UnixSecs,
        records: &mut Vec<Record>,
        alarms: &mut Vec<Alarm>,
    ) -> bool {
        let old = std::mem::replace(
            &mut self.authority,
            keys::authority::authority(&self.ledger),
        );
        let contested = self.authority.members().filter(|member| {
            let before = old.member(&member.id).map(|member| &member.standing);
            member.standing == Standing::KeyContested && before != Some(&Standing::KeyContested)
        });
        alarms.extend(contested.map(|member| Alarm::ContestedKey { node: member.id }));
        // Equal heads are equal documents, and are found without reading either.
        let before = self.document.digest();
        let orphans = self.document.rebuild(&self.authority);
        self.sort_orphans(orphans, alarms);
        let admitted = self.document.take_admitted();
        records.extend(admitted.into_iter().map(Record::change));
        self.reports.drop_departed(&self.authority, wall);
        self.next_expiry = UnixSecs(0);
        self.note_cloned();
        self.document.digest() != before
    }

    /// Takes out what the document admitted, found forked and lost.
    fn document_changed(
        &mut self,
        records: &mut Vec<Record>,
        alarms: &mut Vec<Alarm>,
        changed: &mut Changed,
        found: &mut Vec<Evidence>,
    ) {
        let admitted = self.document.take_admitted();
        let forks = self.document.take_forks();
        let orphans = self.document.take_orphans();
        changed.plan |= !admitted.is_empty() || !forks.is_empty() || !orphans.is_empty();
        records.extend(admitted.into_iter().map(Record::change));
        found.extend(forks.iter().map(|(_, evidence)| evidence.clone()));
        let forks = forks.into_iter();
        records.extend(forks.map(|(forked, evidence)| Record::Evidence(forked, evidence)));
        self.sort_orphans(orphans, alarms);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one message's parts and where each kind of result goes"
    )]
    fn absorb_changes(
        &mut self,
        changes: Vec<SignedChange>,
        from: PublicKey,
        records: &mut Vec<Record>,
        alarms: &mut Vec<Alarm>,
        found: &mut Vec<Evidence>,
        changed: &mut Changed,
        out: &mut Vec<Output>,
    ) {
        if changes.is_empty() {
            return;
        }
        let outcomes = self.document.offer_all(changes, &self.authority);
        // One of a message is told: the others are no news.
        let mut broken = None;
        for outcome in outcomes {
            match outcome {
                Outcome::Admitted | Outcome::Known | Outcome::Parked | Outcome::Fork(_) => {}
                Outcome::Refused(refusal) => {
                    if refusal.blames_sender() {
                        let fault = "sent a document change that is forged or malformed";
                        out.push(Output::Blame { peer: from, fault });
                    } else if refusal.blames_author() {
                        broken.get_or_insert(refusal);
                    }
                }
            }
        }
        alarms.extend(broken.map(Alarm::BrokenChange));
        self.document_changed(records, alarms, changed, found);
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
        found: &mut Vec<Evidence>,
        changed: &mut Changed,
        out: &mut Vec<Output>,
    ) {
        let me = self.me();
        for signed in reports {
            let signer = self.authority.by_key(&signed.signer);
            // What this node itself is said to have reported, it must hear of at once.
            let paced = signer.map(|member| member.id).filter(|id| me != Some(*id));
            if paced.is_some_and(|member| !self.pace.allows(&member)) {
                continue;
            }
            match self.reports.offer(signed.clone(), &self.authority, wall) {
                ReportOutcome::New(node) => {
                    changed.reports = true;
                    self.pace.took(node, signed.body.len());
                    records.push(Record::Report(node, signed));
                    if me == Some(node) {
                        self.contradict(wall, records, found);
                    }
                }
                ReportOutcome::Fork(fork) => {
                    changed.reports = true;
                    let mut forks = self.reports.forks();
                    let pair = forks.find(|(forked, _)| *forked == Forked::Reports(fork.node));
                    if let Some((forked, evidence)) = pair {
                        found.push(evidence.clone());
                        records.push(Record::Evidence(forked, evidence));
                    }
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
