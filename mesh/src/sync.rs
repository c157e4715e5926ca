//! The messages of anti-entropy: what two nodes tell each other to find and close
//! the differences between their ledgers, logs and reports.
//!
//! A node that heard heads other than its own asks with a summary of what it has;
//! the answer is one bounded page of what it lacks. Ledger and reports are compared in
//! two rounds, so that a small difference between large sets costs little: first a
//! digest for each group of buckets, answered with the digests of the buckets in the
//! groups that differ; then, for the buckets that differ, what is held in each. Not
//! here: when to ask whom (`replica`).

use codec::Wire;
use crdt::{Evidence, Forked, SignedChange};
use keys::ledger::BUCKETS;
use keys::statement::Position;
use keys::{NodeId, PublicKey, Signed, StatementId};
use serde::{Deserialize, Serialize};

/// Bytes after which a page is closed; what is left comes with the next.
pub const PAGE_BYTES: usize = 1024 * 1024;
/// Largest page on the wire: one report may overshoot.
pub const MAX_PAGE: usize = 3 * 1024 * 1024;
/// Largest announcement. Everybody sends it to every neighbour, so what is larger is
/// announced by its heads alone, and each node fetches it once.
pub const MAX_ANNOUNCEMENT: usize = 8 * 1024;
/// Most authors, or things held, listed in a request.
pub const MAX_LISTED: usize = 4096;
/// Groups of buckets whose digests are compared first.
pub const GROUPS: usize = 16;
/// Buckets in a group.
pub const GROUP: usize = BUCKETS / GROUPS;

// Both sets have as many, so that they are compared in one way.
const _: () = assert!(BUCKETS == crdt::reports::BUCKETS && BUCKETS == 256);

/// The first eight bytes of a digest or an id: enough to tell apart what is not made to
/// clash. An operator that signs until two of its statements clash only keeps one of its
/// own from those who missed the announcement.
pub type Short = [u8; 8];

/// Digests of everything a node holds; equal heads mean equal content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// What is said of a set, so that another node finds what it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Summary<T> {
    /// One digest for each group of buckets. Answered with the buckets' digests.
    Groups(Vec<Short>),
    /// For some buckets, all that is held. Answered with what is not.
    Held(Vec<(u8, Vec<T>)>),
}

/// One report that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldReport {
    /// The beginning of its node's id.
    pub node: Short,
    /// Its version.
    pub version: u64,
    /// The beginning of its body's hash: tells two reports of one version apart.
    pub hash: [u8; 4],
}

impl HeldReport {
    /// Of a report.
    pub fn new(node: &NodeId, version: u64, hash: &[u8; 32]) -> Self {
        let [a, b, c, d, ..] = *hash;
        Self {
            node: short(&node.0),
            version,
            hash: [a, b, c, d],
        }
    }
}

/// The digests of the buckets in a group that differs, by the group's number.
pub type GroupDigests = Vec<(u8, Vec<Short>)>;

/// Asks for what the sender lacks. A part that is absent is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What the asking node holds.
    pub heads: Heads,
    /// Of the statements, each by the beginning of its id.
    pub ledger: Option<Summary<Short>>,
    /// For each author, the last change held; its hash tells a fork of equal length.
    pub logs: Option<Vec<(PublicKey, Position)>>,
    /// Of the reports.
    pub reports: Option<Summary<HeldReport>>,
    /// What is known to be forked.
    pub forks: Option<Vec<Forked>>,
}

impl Wire for Request {
    const NAME: &'static str = "sync request";
    const VERSION: u8 = 3;
    const LIMIT: usize = 512 * 1024;
}

impl Request {
    /// Whether every list is within its limit.
    pub fn sound(&self) -> bool {
        self.ledger.as_ref().is_none_or(Summary::sound)
            && self.logs.as_ref().is_none_or(|all| all.len() <= MAX_LISTED)
            && self.reports.as_ref().is_none_or(Summary::sound)
            && self
                .forks
                .as_ref()
                .is_none_or(|all| all.len() <= MAX_LISTED)
    }
}

impl<T> Summary<T> {
    fn sound(&self) -> bool {
        match self {
            Self::Groups(digests) => digests.len() == GROUPS,
            Self::Held(buckets) => {
                let held: usize = buckets.iter().map(|(_, held)| held.len()).sum();
                // Each once, so that no more is looked through than there is.
                buckets.is_sorted_by(|(a, _), (b, _)| a < b) && held <= MAX_LISTED
            }
        }
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
    /// Where the ledgers differ, after groups were compared.
    pub ledger_groups: GroupDigests,
    /// Where the reports differ, after groups were compared.
    pub report_groups: GroupDigests,
    /// Whether there was more than fits: the same is to be asked again.
    pub more: bool,
}

impl Wire for Page {
    const NAME: &'static str = "sync page";
    const VERSION: u8 = 3;
    const LIMIT: usize = MAX_PAGE;
}

/// Gossip from a node that came to hold something new: its heads, and the new things
/// themselves where they are small. Each thing is signed by its author, so who passes
/// it on vouches for nothing but having checked it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    const VERSION: u8 = 3;
    const LIMIT: usize = MAX_ANNOUNCEMENT;
}

impl Announcement {
    /// About how many bytes the news take, encoded.
    pub(crate) fn bytes(&self) -> usize {
        let signed = self.statements.iter().chain(&self.reports);
        let changes = self.changes.iter().map(|change| change.raw.len());
        let bodies = signed.map(|signed| signed.body.len());
        let bytes: usize = bodies.chain(changes).map(|len| len + 128).sum();
        bytes + self.evidence.iter().map(Evidence::size).sum::<usize>()
    }

    /// The same if it fits, and the heads alone if it does not.
    pub(crate) fn cut(self) -> Self {
        if self.bytes() + 256 < MAX_ANNOUNCEMENT {
            return self;
        }
        Self {
            heads: self.heads,
            ..Self::default()
        }
    }
}

/// The beginning of a digest or an id.
pub(crate) fn short(whole: &[u8; 32]) -> Short {
    let [a, b, c, d, e, f, g, h, ..] = *whole;
    [a, b, c, d, e, f, g, h]
}

/// One digest for each group of buckets.
pub(crate) fn groups(buckets: &[[u8; 32]]) -> Vec<Short> {
    let groups = buckets.chunks(GROUP);
    let digests = groups.map(|group| short(blake3::hash(group.as_flattened()).as_bytes()));
    digests.collect()
}

/// The digests of the buckets in those groups that differ from `theirs`.
pub(crate) fn differing_groups(buckets: &[[u8; 32]], theirs: &[Short]) -> GroupDigests {
    let ours = groups(buckets);
    let differing = (0u8..).zip(ours.iter().zip(theirs));
    differing
        .filter(|(_, (ours, theirs))| ours != theirs)
        .map(|(group, _)| {
            let first = usize::from(group) * GROUP;
            let digests = buckets[first..first + GROUP].iter().map(short);
            (group, digests.collect())
        })
        .collect()
}

/// The buckets that differ from what a peer said of its own.
pub(crate) fn differing_buckets(buckets: &[[u8; 32]], theirs: &GroupDigests) -> Vec<u8> {
    let mut found = vec![];
    for (group, digests) in theirs {
        let first = usize::from(*group) * GROUP;
        let ours = buckets.iter().skip(first).zip(digests.iter().take(GROUP));
        for (at, (ours, theirs)) in (first..).zip(ours) {
            if short(ours) != *theirs {
                found.push(u8::try_from(at).expect("there are 256 buckets"));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// What is held in some of `buckets`, as many as fit in a request.
pub(crate) fn held<T>(buckets: &[u8], list: impl Fn(u8) -> Vec<T>) -> Summary<T> {
    let mut all = vec![];
    let mut listed = 0;
    for bucket in buckets {
        let mut held = list(*bucket);
        listed += held.len();
        if listed > MAX_LISTED {
            if !all.is_empty() {
                break;
            }
            // One bucket beyond the limit: what is not listed comes again.
            held.truncate(MAX_LISTED);
        }
        all.push((*bucket, held));
    }
    Summary::Held(all)
}

/// The beginning of a statement's id.
pub(crate) fn short_id(id: &StatementId) -> Short {
    short(&id.0)
}

#[cfg(test)]
mod tests;
