//! Keys in two places: which are known to be, how that spreads, and telling people
//! once.
//!
//! Two statements of one number show it in the ledger; two reports or two changes are
//! kept and passed on as a pair. Nodes with the same ledger and the same pairs agree on
//! which keys are cloned, and `keys` stops those.

use super::{Alarm, Output, Record, Replica};
use crate::sync::MAX_LISTED;
use crdt::{Evidence, Forked, PairOutcome};
use keys::{PublicKey, Standing, UnixSecs};

/// By what a key shows to be in two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fork {
    /// Two reports of one version.
    Reports,
    /// Two statements of one number.
    Statements(u64),
    /// Two changes of one number.
    Changes(u64),
}

impl Fork {
    fn kind(self) -> u8 {
        match self {
            Self::Reports => 0,
            Self::Statements(_) => 1,
            Self::Changes(_) => 2,
        }
    }
}

impl Replica {
    /// The forks of which a pair is kept.
    pub(super) fn forked(&self) -> Vec<Forked> {
        let reports = self.reports.forked().map(Forked::Reports);
        reports.chain(self.document.forked()).collect()
    }

    /// One digest of [`Replica::forked`].
    pub(super) fn forks_digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for forked in self.forked() {
            match forked {
                Forked::Reports(node) => hasher.update(&[0]).update(&node.0),
                Forked::Changes(author, seq) => hasher
                    .update(&[1])
                    .update(&author.0)
                    .update(&seq.to_le_bytes()),
            };
        }
        *hasher.finalize().as_bytes()
    }

    /// The pairs that a peer lacks, until the page is full.
    pub(super) fn evidence_beside(&self, known: &[Forked], left: &mut usize) -> Vec<Evidence> {
        let all = self.reports.forks().chain(self.document.forks());
        let lacking = all.filter(|(forked, _)| !forked.covered_by(known));
        lacking
            .map(|(_, evidence)| evidence)
            .take_while(|evidence| {
                let room = *left > 0;
                *left = left.saturating_sub(evidence.size());
                room
            })
            .take(MAX_LISTED)
            .collect()
    }

    /// Takes in pairs that a peer shows.
    pub(super) fn absorb_evidence(
        &mut self,
        wall: UnixSecs,
        evidence: Vec<Evidence>,
        from: PublicKey,
        records: &mut Vec<Record>,
        out: &mut Vec<Output>,
    ) {
        for shown in evidence {
            let taken = match shown.clone() {
                Evidence::Reports(pair) => self.reports.offer_fork(pair, &self.authority, wall),
                Evidence::Changes(pair) => self.document.offer_fork(pair, &self.authority),
            };
            match taken {
                // A log's own fork is handed out by the document with what it admitted.
                PairOutcome::New => {
                    if let Some(forked) = self.reported_fork(&shown) {
                        records.push(Record::Evidence(forked, shown));
                    }
                }
                PairOutcome::Known | PairOutcome::Unknown => {}
                PairOutcome::Refused => {
                    let fault = "showed two things as a fork that are none";
                    out.push(Output::Blame { peer: from, fault });
                }
            }
        }
    }

    fn reported_fork(&self, evidence: &Evidence) -> Option<Forked> {
        let Evidence::Reports(pair) = evidence else {
            return None;
        };
        let report: crdt::Report = pair[0].open_stored().ok()?;
        Some(Forked::Reports(report.node))
    }

    /// Puts back pairs that were verified before they were stored.
    pub fn restore_evidence(&mut self, stored: Vec<Evidence>) {
        for evidence in stored {
            match evidence {
                // A pair that does not decode is of an older format: it is shown again.
                Evidence::Reports(pair) => drop(self.reports.restore_fork(pair)),
                Evidence::Changes(pair) => self.document.restore_fork(pair, &self.authority),
            }
        }
        self.reports.drop_departed(&self.authority, UnixSecs(0));
        self.note_cloned();
        // They were told when they were found.
        self.raise_forks(&mut vec![]);
    }

    /// Makes the authority stop the keys of which pairs are kept.
    pub(super) fn note_cloned(&mut self) {
        let reports = self.reports.forked();
        let nodes = reports.filter_map(|node| self.authority.member(&node));
        let mut cloned: Vec<PublicKey> = nodes.map(|member| member.key).collect();
        cloned.extend(self.document.forked().filter_map(|forked| match forked {
            Forked::Changes(author, _) => Some(author),
            Forked::Reports(_) => None,
        }));
        self.authority.note_cloned(cloned);
    }

    /// Every key that is known to be in two places, and by what.
    pub fn cloned(&self) -> Vec<(PublicKey, Fork)> {
        let reports = self.reports.forked();
        let reports = reports.filter_map(|node| self.authority.member(&node));
        let mut all: Vec<(PublicKey, Fork)> =
            reports.map(|member| (member.key, Fork::Reports)).collect();
        let statements = self.ledger.forks().iter();
        all.extend(statements.map(|(signer, seq)| (*signer, Fork::Statements(*seq))));
        all.extend(self.document.forked().filter_map(|forked| match forked {
            Forked::Changes(author, seq) => Some((author, Fork::Changes(seq))),
            Forked::Reports(_) => None,
        }));
        all
    }

    /// By what `key` is known to be in two places.
    pub fn fork_of(&self, key: &PublicKey) -> Option<Fork> {
        let mut all = self.cloned().into_iter();
        all.find(|(cloned, _)| cloned == key).map(|(_, fork)| fork)
    }

    /// Raises what was not raised before; whether there was anything.
    pub(super) fn raise_forks(&mut self, alarms: &mut Vec<Alarm>) -> bool {
        let before = self.alarmed.len();
        for (key, fork) in self.cloned() {
            let member = self.authority.by_key(&key);
            let stands = member.is_none_or(|member| {
                matches!(member.standing, Standing::Active | Standing::Contested)
            });
            if stands && self.alarmed.insert((key, fork.kind())) {
                alarms.push(Alarm::Cloned { key, fork });
            }
        }
        self.alarmed.len() > before
    }
}
