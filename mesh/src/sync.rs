//! The messages of anti-entropy: what two nodes tell each other to find and close
//! the differences between their ledgers, logs and reports.
//!
//! A node that heard heads other than its own asks with a summary of what it has;
//! the answer is one bounded page of what it lacks. Not here: when to ask whom
//! (`replica`).

use codec::Wire;
use crdt::reports::Listed;
use crdt::{Evidence, Forked, SignedChange};
use keys::statement::Position;
use keys::{NodeId, PublicKey, Signed};
use serde::{Deserialize, Serialize};

/// Bytes after which a page is closed; what is left comes with the next.
pub const PAGE_BYTES: usize = 1024 * 1024;
/// Largest page on the wire: a bucket of the ledger or one report may overshoot.
pub const MAX_PAGE: usize = 3 * 1024 * 1024;
/// Largest announcement; a larger change is announced by its heads alone.
pub const MAX_ANNOUNCEMENT: usize = 32 * 1024;
/// Most authors or reports listed in a request.
pub const MAX_LISTED: usize = 4096;

/// Digests of everything a node holds; equal heads mean equal content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// Of the ledger's set of statements.
    pub ledger: [u8; 32],
    /// Of the heads of all author logs.
    pub logs: [u8; 32],
    /// Of the versions of all reports.
    pub reports: [u8; 32],
    /// Of what is known to be forked.
    pub forks: [u8; 32],
}

/// Asks for what the sender lacks. A part that is absent is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The first eight bytes of each bucket's digest, and the bucket to begin with.
    pub ledger: Option<(Vec<[u8; 8]>, u8)>,
    /// For each author, the last change held; its hash tells a fork of equal length.
    pub logs: Option<Vec<(PublicKey, Position)>>,
    /// For each node, the version of the report held and the first bytes of its hash,
    /// which tell a fork of equal version.
    pub reports: Option<Vec<(NodeId, Listed)>>,
    /// What is known to be forked.
    pub forks: Option<Vec<Forked>>,
}

impl Wire for Request {
    const NAME: &'static str = "sync request";
    const VERSION: u8 = 2;
    const LIMIT: usize = 512 * 1024;
}

impl Request {
    /// Whether every list is within its limit.
    pub fn sound(&self) -> bool {
        let buckets = |(digests, _): &(Vec<[u8; 8]>, u8)| digests.len() == keys::ledger::BUCKETS;
        self.ledger.as_ref().is_none_or(buckets)
            && self.logs.as_ref().is_none_or(|all| all.len() <= MAX_LISTED)
            && self
                .reports
                .as_ref()
                .is_none_or(|all| all.len() <= MAX_LISTED)
            && self
                .forks
                .as_ref()
                .is_none_or(|all| all.len() <= MAX_LISTED)
    }
}

/// What the answering node holds of the asking node's own logs: the number of the last
/// entry of each. An asker that started from an old copy of its data learns from it how
/// far it had come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Yours {
    /// Last statement of its key.
    pub statement: u64,
    /// Last change.
    pub change: u64,
    /// Version of its report.
    pub report: u64,
    /// Last statement of each root key, in the order of the keys: the asker may hold one.
    pub roots: Vec<u64>,
}

/// One answer: the answering node's heads, and some of what the asker lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// What the answering node holds.
    pub heads: Heads,
    /// Statements, in an order in which each follows what it needs.
    pub statements: Vec<Signed>,
    /// Changes, each author's in sequence.
    pub changes: Vec<SignedChange>,
    /// Newer reports.
    pub reports: Vec<Signed>,
    /// Proofs of forks that the asker does not know of.
    pub evidence: Vec<Evidence>,
    /// What the answering node holds of the asker's own.
    pub yours: Yours,
    /// Bucket to go on with, when the ledger did not fit.
    pub next_bucket: Option<u8>,
}

impl Wire for Page {
    const NAME: &'static str = "sync page";
    const VERSION: u8 = 2;
    const LIMIT: usize = MAX_PAGE;
}

/// Gossip from the node that made something new: its heads, and the new things
/// themselves where they are small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// What the announcing node holds now.
    pub heads: Heads,
    /// New statements.
    pub statements: Vec<Signed>,
    /// New changes.
    pub changes: Vec<SignedChange>,
    /// New reports.
    pub reports: Vec<Signed>,
    /// Proofs of forks that were just found.
    pub evidence: Vec<Evidence>,
}

impl Wire for Announcement {
    const NAME: &'static str = "announcement";
    const VERSION: u8 = 2;
    const LIMIT: usize = MAX_ANNOUNCEMENT;
}
