//! The newest report of every node, and which of two is to be believed.
//!
//! Not here: what a report says (`report`), and asking peers for newer ones (`mesh`).

use crate::evidence::{Evidence, Forked, PairOutcome};
use crate::report::Report;
use keys::authority::Standing;
use keys::{Authority, Domain, NodeId, PublicKey, Signed, UnixSecs};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Buckets into which reports are sorted by the first byte of their node's id, so that
/// two nodes find where they differ without listing everything.
pub const BUCKETS: usize = 256;

/// What offering a report did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportOutcome {
    /// It is the newest of its node and has replaced the one before.
    New(NodeId),
    /// The same one, or a newer one, is here, or its node's reports are forked.
    Stale,
    /// Two reports of one version: the node's key is used in two places. An alarm; told
    /// once, and no report of the node is taken any more.
    Fork(ReportFork),
    /// Not accepted.
    Refused(ReportRefusal),
    /// Of a node whose enrolment is not here yet; may be offered again.
    UnknownNode(NodeId),
}

/// Two different reports of one node with one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportFork {
    /// The node.
    pub node: NodeId,
    /// The version that both have.
    pub version: u64,
    /// BLAKE3 of the body that was here.
    pub ours: [u8; 32],
    /// BLAKE3 of the body that was offered.
    pub theirs: [u8; 32],
}

/// Why a report was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportRefusal {
    /// Bad signature or bytes: the sender is at fault.
    #[error(transparent)]
    Rejected(#[from] keys::signed::Rejected),
    /// A list or text is over its limit: its author is at fault.
    #[error("the report of node {0:?} is over its limits")]
    Unsound(NodeId),
    /// Signed by another key than the one that the node has now.
    #[error("the report of node {node:?} is signed by {signer:?}, which is not its key")]
    AnotherSigner {
        /// The node.
        node: NodeId,
        /// Who signed.
        signer: PublicKey,
    },
    /// The node was revoked or its enrolment is over.
    #[error("node {0:?} is not in the mesh any more")]
    NotAdmitted(NodeId),
}

impl ReportRefusal {
    /// Whether it costs the peer that sent it: honest peers pass on no such thing.
    pub fn blames_sender(&self) -> bool {
        matches!(self, Self::Rejected(rejected) if rejected.blames_sender())
    }
}

#[derive(Debug, Clone)]
struct Kept {
    signed: Signed,
    report: Report,
    /// BLAKE3 of the body.
    hash: [u8; 32],
}

impl Kept {
    fn new(signed: Signed, report: Report) -> Self {
        let hash = *blake3::hash(&signed.body).as_bytes();
        Self {
            signed,
            report,
            hash,
        }
    }
}

/// Of a node that does not stand now.
#[derive(Debug, Clone)]
enum Aside {
    Report(Arc<Kept>),
    /// The two reports that show its fork.
    Fork(Box<[Signed; 2]>),
}

impl Aside {
    fn signer(&self) -> &PublicKey {
        match self {
            Self::Report(kept) => &kept.signed.signer,
            Self::Fork(pair) => &pair[0].signer,
        }
    }
}

/// The newest report of each node. A clone shares what it holds with the original.
#[derive(Debug, Clone)]
pub struct Reports {
    /// Of a forked node, one of its pair.
    kept: BTreeMap<NodeId, Arc<Kept>>,
    /// What is known of nodes that do not stand now and may stand again: what is said of
    /// them is not whole yet.
    aside: BTreeMap<NodeId, Aside>,
    /// The two reports that show each fork: a fork beats all versions.
    forks: BTreeMap<NodeId, Box<[Signed; 2]>>,
    /// Of what is not forked.
    buckets: Vec<[u8; 32]>,
    /// Made when it is asked for, and again after a change.
    digest: OnceLock<[u8; 32]>,
}

impl Default for Reports {
    fn default() -> Self {
        Self {
            kept: BTreeMap::new(),
            aside: BTreeMap::new(),
            forks: BTreeMap::new(),
            buckets: vec![[0; 32]; BUCKETS],
            digest: OnceLock::new(),
        }
    }
}

impl Reports {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Verifies a report and keeps it if it is the newest of its node.
    pub fn offer(&mut self, signed: Signed, authority: &Authority, now: UnixSecs) -> ReportOutcome {
        if self.known(&signed, authority) {
            return ReportOutcome::Stale;
        }
        let report = match self.verify(&signed, authority, now) {
            Ok(report) => report,
            Err(outcome) => return outcome,
        };
        self.keep(Kept::new(signed, report))
    }

    fn verify(
        &self,
        signed: &Signed,
        authority: &Authority,
        now: UnixSecs,
    ) -> Result<Report, ReportOutcome> {
        let report: Report = match signed.open(Domain::Report) {
            Ok(report) => report,
            Err(rejected) => return Err(ReportOutcome::Refused(rejected.into())),
        };
        let node = report.node;
        let signer = signed.signer;
        let Some(member) = authority.member(&node) else {
            return Err(ReportOutcome::UnknownNode(node));
        };
        let refusal = if member.key != signer {
            ReportRefusal::AnotherSigner { node, signer }
        } else if !stands(&member.standing, member.not_after, now) {
            ReportRefusal::NotAdmitted(node)
        } else if !report.sound() {
            ReportRefusal::Unsound(node)
        } else {
            return Ok(report);
        };
        Err(ReportOutcome::Refused(refusal))
    }

    /// Takes in two reports that a peer shows as a fork.
    pub fn offer_fork(
        &mut self,
        pair: Box<[Signed; 2]>,
        authority: &Authority,
        now: UnixSecs,
    ) -> PairOutcome {
        let mut reports = vec![];
        for signed in pair.iter() {
            match self.verify(signed, authority, now) {
                Ok(report) => reports.push(report),
                Err(ReportOutcome::Refused(refusal)) if refusal.blames_sender() => {
                    return PairOutcome::Refused;
                }
                Err(_) => return PairOutcome::Unknown,
            }
        }
        if !two_of_one_version(&reports) {
            return PairOutcome::Refused;
        }
        if self.forks.contains_key(&reports[0].node) {
            return PairOutcome::Known;
        }
        self.keep_fork(pair, reports);
        PairOutcome::New
    }

    /// Puts back a pair that was verified before it was stored.
    pub fn restore_fork(&mut self, pair: Box<[Signed; 2]>) -> Result<(), codec::DecodeError> {
        let opened = pair.iter().map(Signed::open_stored);
        let reports = opened.collect::<Result<Vec<Report>, _>>()?;
        if two_of_one_version(&reports) {
            self.keep_fork(pair, reports);
        }
        Ok(())
    }

    /// Of the pair the one with the lower hash is shown.
    fn keep_fork(&mut self, pair: Box<[Signed; 2]>, reports: Vec<Report>) {
        let node = reports[0].node;
        let both = pair.iter().cloned().zip(reports);
        let kept = both.map(|(signed, report)| Kept::new(signed, report));
        let shown = kept.min_by_key(|kept| kept.hash);
        self.forks.insert(node, pair);
        self.put(shown.expect("a pair is two"));
    }

    /// The forks that are known, with their proofs.
    pub fn forks(&self) -> impl Iterator<Item = (Forked, Evidence)> + '_ {
        self.forks.iter().map(|(node, pair)| {
            let evidence = Evidence::Reports(pair.clone());
            (Forked::Reports(*node), evidence)
        })
    }

    /// The nodes whose reports are forked.
    pub fn forked(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.forks.keys().copied()
    }

    /// Whether the reports of a node are forked.
    pub fn is_forked(&self, node: &NodeId) -> bool {
        self.forks.contains_key(node)
    }

    /// The two reports that show a node's fork.
    pub fn fork_of(&self, node: &NodeId) -> Option<[Report; 2]> {
        let pair = self.forks.get(node)?;
        let [first, second] = &**pair;
        Some([first.open_stored().ok()?, second.open_stored().ok()?])
    }

    /// Puts back a report that was verified before it was stored.
    pub fn restore(&mut self, signed: Signed) -> Result<(), codec::DecodeError> {
        let report: Report = signed.open_stored()?;
        self.keep(Kept::new(signed, report));
        Ok(())
    }

    /// Leaves out the reports of nodes that are no longer in the mesh, or that were
    /// signed with a key which the node has given up, so that all nodes keep the same
    /// ones, and names them. Takes back those of nodes that are in the mesh again: an older
    /// one that some peer still holds must not take their place.
    pub fn drop_departed(&mut self, authority: &Authority, now: UnixSecs) -> Vec<NodeId> {
        let is_gone = |node: &NodeId, signer: &PublicKey| {
            authority.member(node).is_none_or(|member| {
                member.key != *signer || !stands(&member.standing, member.not_after, now)
            })
        };
        let (aside, back): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.aside)
            .into_iter()
            .partition(|(node, aside)| is_gone(node, aside.signer()));
        self.aside = aside;
        let kept = self.kept.iter();
        let gone = kept.filter(|(node, kept)| is_gone(node, &kept.signed.signer));
        let gone: Vec<NodeId> = gone.map(|(node, _)| *node).collect();
        for node in &gone {
            let kept = self.kept.remove(node).map(Aside::Report);
            let fork = self.forks.remove(node).map(Aside::Fork);
            if let Some(aside) = fork.or(kept) {
                self.aside.insert(*node, aside);
            }
            self.changed(node);
        }
        for aside in back.into_values() {
            match aside {
                Aside::Report(kept) => drop(self.keep(Arc::unwrap_or_clone(kept))),
                // It was read before.
                Aside::Fork(pair) => drop(self.restore_fork(pair)),
            }
        }
        gone
    }

    /// The newest report of a node.
    pub fn get(&self, node: &NodeId) -> Option<&Report> {
        self.kept.get(node).map(|kept| &kept.report)
    }

    /// The newest report of a node in the bytes it was signed in, to be passed on.
    pub fn signed(&self, node: &NodeId) -> Option<&Signed> {
        self.kept.get(node).map(|kept| &kept.signed)
    }

    /// BLAKE3 of the body of a node's newest report.
    pub fn hash(&self, node: &NodeId) -> Option<[u8; 32]> {
        self.kept.get(node).map(|kept| kept.hash)
    }

    /// All reports, in order of their nodes.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Report)> {
        self.kept.iter().map(|(node, kept)| (node, &kept.report))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The newest version of each node that is not forked.
    pub fn versions(&self) -> BTreeMap<NodeId, u64> {
        self.kept
            .iter()
            .filter(|(node, _)| !self.forks.contains_key(node))
            .map(|(node, kept)| (*node, kept.report.version))
            .collect()
    }

    /// The reports of the nodes whose id begins with `bucket` and that are not forked:
    /// node, version and BLAKE3 of the body, in order of the nodes. What two peers
    /// compare; two of one version are a fork, which nobody may miss.
    pub fn bucket(&self, bucket: u8) -> impl Iterator<Item = (&NodeId, u64, &[u8; 32])> {
        let mut low = [0; 32];
        let mut high = [0xff; 32];
        low[0] = bucket;
        high[0] = bucket;
        self.kept
            .range(NodeId(low)..=NodeId(high))
            .filter(|(node, _)| !self.forks.contains_key(node))
            .map(|(node, kept)| (node, kept.report.version, &kept.hash))
    }

    /// One digest for each bucket; all zeros for an empty one.
    pub fn buckets(&self) -> &[[u8; 32]] {
        &self.buckets
    }

    /// One digest of all versions and bodies, of forked nodes left out: equal when the
    /// reports are equal.
    pub fn digest(&self) -> [u8; 32] {
        *self.digest.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            for bucket in &self.buckets {
                hasher.update(bucket);
            }
            *hasher.finalize().as_bytes()
        })
    }

    fn put(&mut self, offered: Kept) {
        let node = offered.report.node;
        self.kept.insert(node, Arc::new(offered));
        self.changed(&node);
    }

    /// Makes the digest of a node's bucket again.
    fn changed(&mut self, node: &NodeId) {
        let mut hasher = blake3::Hasher::new();
        let mut held = 0;
        for (node, version, hash) in self.bucket(node.0[0]) {
            hasher.update(&node.0);
            hasher.update(&version.to_le_bytes());
            hasher.update(hash);
            held += 1;
        }
        // As it was before it was ever filled: what left leaves no trace.
        let digest = match held {
            0 => [0; 32],
            _ => *hasher.finalize().as_bytes(),
        };
        self.buckets[usize::from(node.0[0])] = digest;
        self.digest = OnceLock::new();
    }

    /// Whether exactly this is kept: spares the signature check of a duplicate.
    fn known(&self, signed: &Signed, authority: &Authority) -> bool {
        let member = authority.by_key(&signed.signer);
        let kept = member.and_then(|member| self.kept.get(&member.id));
        kept.is_some_and(|kept| kept.signed == *signed)
    }

    fn keep(&mut self, offered: Kept) -> ReportOutcome {
        let node = offered.report.node;
        let version = offered.report.version;
        if self.forks.contains_key(&node) {
            return ReportOutcome::Stale;
        }
        let Some(held) = self.kept.get(&node) else {
            self.put(offered);
            return ReportOutcome::New(node);
        };
        if version < held.report.version {
            return ReportOutcome::Stale;
        }
        if version > held.report.version {
            self.put(offered);
            return ReportOutcome::New(node);
        }
        let (ours, theirs) = (held.hash, offered.hash);
        if ours == theirs {
            return ReportOutcome::Stale;
        }
        let pair = Box::new([held.signed.clone(), offered.signed]);
        let reports = vec![held.report.clone(), offered.report];
        self.keep_fork(pair, reports);
        ReportOutcome::Fork(ReportFork {
            node,
            version,
            ours,
            theirs,
        })
    }
}

fn two_of_one_version(reports: &[Report]) -> bool {
    matches!(reports, [first, second]
        if first.node == second.node && first.version == second.version && first != second)
}

fn stands(standing: &Standing, not_after: Option<UnixSecs>, now: UnixSecs) -> bool {
    matches!(standing, Standing::Active | Standing::Contested)
        && not_after.is_none_or(|end| now < end)
}

#[cfg(test)]
mod tests;
