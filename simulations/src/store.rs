//! What one node has made durable, and how it begins again from that.
//!
//! Not here: when something is stored (`node`, `sending`, `receiving`).

use crate::disk::{Death, Disk, StoredTree};
use crate::rng::Rng;
use blocks::GroupIndex;
use crdt::SignedChange;
use keys::lease::Snapshot;
use keys::{Identity, Ledger, NodeId, PublicKey, Signed, StatementId};
use mesh::{Record, Replica};
use roles::{JobId, agent, replicator};
use std::collections::{BTreeMap, BTreeSet};

/// A copy that a replicator holds, without its bytes.
pub struct Copy {
    /// The replicator's record.
    pub record: replicator::Record,
    /// The root it stated last, in this session.
    pub proof: Option<Signed>,
    /// Leaves of what the volume durably holds.
    pub tree: StoredTree,
    /// Groups being written, and the barrier that each waits for.
    pub notes: BTreeMap<GroupIndex, u64>,
}

/// Something that was told to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// A stable word.
    pub kind: &'static str,
    /// A sentence.
    pub text: String,
}

/// What survives a crash.
#[derive(Default)]
pub struct Store {
    statements: Vec<Signed>,
    ids: BTreeSet<StatementId>,
    /// The logs of the plan.
    pub changes: BTreeMap<(PublicKey, u64), SignedChange>,
    /// The newest report of every node.
    pub reports: BTreeMap<NodeId, Signed>,
    /// This node's work as agent.
    pub agents: BTreeMap<JobId, agent::Record>,
    /// Its stored trees as agent.
    pub trees: BTreeMap<JobId, StoredTree>,
    /// Its work as replicator.
    pub copies: BTreeMap<JobId, Copy>,
    /// Volumes attached here, by their paths.
    pub disks: BTreeMap<String, Disk>,
    /// The leases it holds.
    pub leases: Option<Snapshot>,
    /// What people were told.
    pub events: Vec<Told>,
}

impl Store {
    /// Keeps what a replica asks to be made durable, all or nothing.
    pub fn keep(&mut self, records: Vec<Record>) {
        for record in records {
            match record {
                Record::Statement(signed) => {
                    if self.ids.insert(signed.statement_id()) {
                        self.statements.push(signed);
                    }
                }
                Record::Change(seq, change) => {
                    self.changes.insert((change.author, seq), change);
                }
                Record::Report(node, signed) => {
                    self.reports.insert(node, signed);
                }
            }
        }
    }

    /// Whether nothing was ever stored of a mesh.
    pub fn is_blank(&self) -> bool {
        self.statements.is_empty()
    }

    /// Whether a statement is stored.
    pub fn has_statement(&self, id: &StatementId) -> bool {
        self.ids.contains(id)
    }

    /// The replica that these records amount to.
    pub fn restore(&self, identity: Identity, root: Option<Identity>) -> Result<Replica, String> {
        let genesis = |signed: &&Signed| Ledger::found((*signed).clone()).is_ok();
        let genesis = self.statements.iter().find(genesis);
        let genesis = genesis.ok_or("no genesis is stored")?.clone();
        let mut ledger = Ledger::found(genesis).map_err(|refused| refused.to_string())?;
        let mut waiting: Vec<&Signed> = self.statements.iter().collect();
        loop {
            let before = waiting.len();
            waiting.retain(|signed| ledger.insert((*signed).clone()).is_err());
            if waiting.is_empty() {
                break;
            }
            if waiting.len() == before {
                return Err(format!("{before} stored statements do not fit in"));
            }
        }
        let changes = self.changes.values().cloned().collect();
        let reports = self.reports.values().cloned().collect();
        Replica::restore(identity, root, ledger, changes, reports)
            .map_err(|corrupt| corrupt.to_string())
    }

    /// Loses the machine; returns how many blocks were torn.
    pub fn die(&mut self, death: Death, rng: &mut Rng) -> u64 {
        for tree in self.trees.values_mut() {
            tree.die(death, rng);
        }
        for copy in self.copies.values_mut() {
            copy.tree.die(death, rng);
        }
        let disks = self.disks.values_mut();
        disks.map(|disk| disk.die(death, rng)).sum()
    }
}
