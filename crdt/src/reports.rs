//! The newest report of every node, and which of two is to be believed.
//!
//! Not here: what a report says (`report`), and asking peers for newer ones (`mesh`).

use crate::report::Report;
use keys::authority::Standing;
use keys::{Authority, Domain, NodeId, PublicKey, Signed, UnixSecs};
use std::collections::BTreeMap;

/// What offering a report did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportOutcome {
    /// It is the newest of its node and has replaced the one before.
    New(NodeId),
    /// The same one, or a newer one, is here.
    Stale,
    /// Two reports of one version: the node's key is used in two places. An alarm.
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
}

/// The newest report of each node.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    kept: BTreeMap<NodeId, Kept>,
}

impl Reports {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Verifies a report and keeps it if it is the newest of its node.
    pub fn offer(&mut self, signed: Signed, authority: &Authority, now: UnixSecs) -> ReportOutcome {
        if self.known(&signed) {
            return ReportOutcome::Stale;
        }
        let report: Report = match signed.open(Domain::Report) {
            Ok(report) => report,
            Err(rejected) => return ReportOutcome::Refused(rejected.into()),
        };
        let node = report.node;
        let signer = signed.signer;
        let Some(member) = authority.member(&node) else {
            return ReportOutcome::UnknownNode(node);
        };
        if member.key != signer {
            return ReportOutcome::Refused(ReportRefusal::AnotherSigner { node, signer });
        }
        if !stands(&member.standing, member.not_after, now) {
            return ReportOutcome::Refused(ReportRefusal::NotAdmitted(node));
        }
        if !report.sound() {
            return ReportOutcome::Refused(ReportRefusal::Unsound(node));
        }
        self.keep(Kept { signed, report })
    }

    /// Puts back a report that was verified before it was stored.
    pub fn restore(&mut self, signed: Signed) -> Result<(), codec::DecodeError> {
        let report: Report = signed.open_stored()?;
        self.keep(Kept { signed, report });
        Ok(())
    }

    /// Leaves out the reports of nodes that are no longer in the mesh, or that were
    /// signed with a key which the node has given up, so that all nodes keep the same
    /// ones, and names them.
    pub fn drop_departed(&mut self, authority: &Authority, now: UnixSecs) -> Vec<NodeId> {
        let gone: Vec<NodeId> = self
            .kept
            .iter()
            .filter(|(node, kept)| {
                authority.member(node).is_none_or(|member| {
                    member.key != kept.signed.signer
                        || !stands(&member.standing, member.not_after, now)
                })
            })
            .map(|(node, _)| *node)
            .collect();
        for node in &gone {
            self.kept.remove(node);
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

    /// All reports, in order of their nodes.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Report)> {
        self.kept.iter().map(|(node, kept)| (node, &kept.report))
    }

    /// The newest version of each node: what two peers compare.
    pub fn versions(&self) -> BTreeMap<NodeId, u64> {
        self.kept
            .iter()
            .map(|(node, kept)| (*node, kept.report.version))
            .collect()
    }

    /// One digest of all versions and bodies: equal when the reports are equal.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for (node, kept) in &self.kept {
            hasher.update(&node.0);
            hasher.update(&kept.report.version.to_le_bytes());
            hasher.update(blake3::hash(&kept.signed.body).as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// Whether exactly this is kept: spares the signature check of a duplicate.
    fn known(&self, signed: &Signed) -> bool {
        self.kept.values().any(|kept| kept.signed == *signed)
    }

    /// Of two reports of one version the one with the lower hash is kept, so that
    /// all nodes end with the same one.
    fn keep(&mut self, offered: Kept) -> ReportOutcome {
        let node = offered.report.node;
        let version = offered.report.version;
        let Some(held) = self.kept.get(&node) else {
            self.kept.insert(node, offered);
            return ReportOutcome::New(node);
        };
        if version < held.report.version {
            return ReportOutcome::Stale;
        }
        if version > held.report.version {
            self.kept.insert(node, offered);
            return ReportOutcome::New(node);
        }
        let ours = *blake3::hash(&held.signed.body).as_bytes();
        let theirs = *blake3::hash(&offered.signed.body).as_bytes();
        if ours == theirs {
            return ReportOutcome::Stale;
        }
        if theirs < ours {
            self.kept.insert(node, offered);
        }
        ReportOutcome::Fork(ReportFork {
            node,
            version,
            ours,
            theirs,
        })
    }
}

fn stands(standing: &Standing, not_after: Option<UnixSecs>, now: UnixSecs) -> bool {
    matches!(standing, Standing::Active | Standing::Contested)
        && not_after.is_none_or(|end| now < end)
}

#[cfg(test)]
mod tests;
