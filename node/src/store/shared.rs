//! What the mesh agrees on: statements, changes of the plan, reports.
//!
//! Statements are only ever added, and are kept in the order in which they came: what
//! one needs came before it. A change has its place in its author's log, and of two
//! for one place the later counts. Not here: checking any of it; that was done before
//! it was put.

use super::error::StoreError;
use super::table::{self, Table};
use codec::Wire;
use crdt::log::MAX_CHANGE;
use crdt::{Evidence, Forked, Report, SignedChange};
use keys::{MeshId, PublicKey, Signature, Signed};
use mesh::Record;
use redb::{ReadTransaction, WriteTransaction};
use serde::{Deserialize, Serialize};

pub(super) const STATEMENTS: Table = Table::new("statements");
pub(super) const CHANGES: Table = Table::new("changes");
/// The id of every statement that is stored, so that none is twice.
pub(super) const SEEN: Table = Table::new("seen");
pub(super) const REPORTS: Table = Table::new("reports");
/// Proofs of forks, by what is forked.
pub(super) const EVIDENCE: Table = Table::new("evidence");

/// Everything of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The ledger: the genesis, then each statement after those it needs.
    pub statements: Vec<Signed>,
    /// Changes of the plan: each author's in the order of their numbers.
    pub changes: Vec<SignedChange>,
    /// The newest report of each node.
    pub reports: Vec<Signed>,
    /// Proofs of forks: of each node's reports and each author's changes the last put.
    pub evidence: Vec<Evidence>,
}

/// A signed value of any kind; what its body is, its table says.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredSigned(pub(super) Signed);

impl Wire for StoredSigned {
    const NAME: &'static str = "signed value";
    const VERSION: u8 = 1;
    /// The largest body there is, its signature and lengths.
    const LIMIT: usize = Report::LIMIT + 256;
}

/// A change without its author, who is in its key.
#[derive(Serialize, Deserialize)]
struct StoredChange {
    raw: Packed,
    signature: Signature,
}

/// The bytes of a change; a change of many operations says much the same many times.
#[derive(Serialize, Deserialize)]
enum Packed {
    Plain(Vec<u8>),
    Zstd(Vec<u8>),
}

impl Wire for StoredChange {
    const NAME: &'static str = "stored change";
    const VERSION: u8 = 1;
    const LIMIT: usize = SignedChange::LIMIT;
}

/// Shorter changes gain nothing from compression: most of them is hashes.
const PACK_FROM_BYTES: usize = 1024;
const PACK_LEVEL: i32 = 3;

impl StoredChange {
    fn pack(change: &SignedChange) -> Result<Self, StoreError> {
        let raw = &change.raw;
        let packed = (raw.len() >= PACK_FROM_BYTES)
            .then(|| zstd::bulk::compress(raw, PACK_LEVEL))
            .transpose()
            .map_err(|error| StoreError::io("written", error))?
            .filter(|packed| packed.len() < raw.len());
        Ok(Self {
            raw: packed.map_or_else(|| Packed::Plain(raw.clone()), Packed::Zstd),
            signature: change.signature,
        })
    }

    fn unpack(self, author: PublicKey) -> Result<SignedChange, StoreError> {
        let raw = match self.raw {
            Packed::Plain(raw) => raw,
            Packed::Zstd(packed) => zstd::bulk::decompress(&packed, MAX_CHANGE).map_err(|_| {
                StoreError::corrupt(format!("a change of {author} cannot be decompressed"))
            })?,
        };
        Ok(SignedChange {
            raw,
            author,
            signature: self.signature,
        })
    }
}

fn changes(stored: Vec<(Vec<u8>, StoredChange)>) -> Result<Vec<SignedChange>, StoreError> {
    let stored = stored.into_iter();
    stored
        .map(|(key, change)| {
            let author = key.first_chunk().copied().map(PublicKey);
            let author = author.ok_or_else(|| StoreError::corrupt("a change has no author"))?;
            change.unpack(author)
        })
        .collect()
}

pub(super) fn put(txn: &WriteTransaction, records: &[Record]) -> Result<(), StoreError> {
    for record in records {
        match record {
            Record::Statement(signed) => {
                if table::mark(txn, SEEN, &signed.statement_id().0)? {
                    table::append(txn, STATEMENTS, |_| StoredSigned(signed.clone()))?;
                }
            }
            Record::Change(seq, change) => {
                let key = change_key(change.author, *seq);
                table::put(txn, CHANGES, &key, &StoredChange::pack(change)?)?;
            }
            Record::Evidence(forked, evidence) => {
                table::put(txn, EVIDENCE, &forked_key(forked), evidence)?;
            }
            Record::Report(node, signed) => {
                table::put(txn, REPORTS, &node.0, &StoredSigned(signed.clone()))?;
            }
        }
    }
    Ok(())
}

pub(super) fn load(txn: &ReadTransaction, mesh: MeshId) -> Result<Loaded, StoreError> {
    let mut statements = signed(table::scan(txn, STATEMENTS)?);
    let is_genesis = |signed: &Signed| signed.statement_id().0 == mesh.0;
    let genesis = statements.iter().position(is_genesis).ok_or_else(|| {
        StoreError::corrupt(format!("the genesis of mesh {} is missing", mesh.short()))
    })?;
    statements[..=genesis].rotate_right(1);
    Ok(Loaded {
        statements,
        changes: changes(table::scan_keyed(txn, CHANGES)?)?,
        reports: signed(table::scan(txn, REPORTS)?),
        evidence: table::scan(txn, EVIDENCE)?,
    })
}

pub(super) fn signed(stored: Vec<StoredSigned>) -> Vec<Signed> {
    stored
        .into_iter()
        .map(|StoredSigned(signed)| signed)
        .collect()
}

/// The kind, then whose it is: a lower fork of a log takes the place of a higher one.
fn forked_key(forked: &Forked) -> [u8; 33] {
    let (kind, whose) = match forked {
        Forked::Reports(node) => (0, node.0),
        Forked::Changes(author, _) => (1, author.0),
    };
    let mut key = [kind; 33];
    key[1..].copy_from_slice(&whose);
    key
}

/// Author, then number, so that an author's log is read in its order.
fn change_key(author: PublicKey, seq: u64) -> [u8; 40] {
    let mut key = [0; 40];
    key[..32].copy_from_slice(&author.0);
    key[32..].copy_from_slice(&seq.to_be_bytes());
    key
}
