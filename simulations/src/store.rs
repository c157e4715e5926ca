//! What one node has made durable, and how it begins again from that.
//!
//! Not here: when something is stored (`node`, `sending`, `receiving`).

use crate::disk::{Death, Disk, StoredTree};
use crate::rng::Rng;
use blocks::GroupIndex;
use crdt::{Evidence, Forked, SignedChange};
use keys::lease::Snapshot;
use keys::{Epoch, Identity, Ledger, NodeId, PublicKey, Signed, StatementId};
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
    /// The tree was removed: the volume is read in full when it is next opened.
    pub is_treeless: bool,
}

/// A record of which a bit flipped on the disk.
struct Rotten {
    sound: Kept,
    rotted: Kept,
}

#[derive(Clone, PartialEq)]
enum Kept {
    Statement(usize, Signed),
    Change(u64, SignedChange),
    Report(NodeId, Signed),
    Agent(Box<agent::Record>),
    Copy(replicator::Record),
}

/// Something that was told to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// A stable word.
    pub kind: &'static str,
    /// A sentence.
    pub text: String,
}

/// What a store held of the mesh at some time.
#[derive(Clone)]
pub struct OldCopy {
    statements: Vec<Signed>,
    ids: BTreeSet<StatementId>,
    changes: BTreeMap<(PublicKey, u64), SignedChange>,
    reports: BTreeMap<NodeId, Signed>,
    agents: BTreeMap<JobId, agent::Record>,
    trees: BTreeMap<(JobId, Epoch), StoredTree>,
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
    /// Proofs of forks.
    pub evidence: BTreeMap<Forked, Evidence>,
    /// A copy that somebody made of what is above.
    pub old: Option<OldCopy>,
    /// This node's work as agent.
    pub agents: BTreeMap<JobId, agent::Record>,
    /// Its stored trees as agent, one for each epoch.
    pub trees: BTreeMap<(JobId, Epoch), StoredTree>,
    /// Roots that it signed as a witness.
    pub witnessed: BTreeMap<JobId, Signed>,
    /// Its work as replicator.
    pub copies: BTreeMap<JobId, Copy>,
    /// Volumes attached here, by their paths.
    pub disks: BTreeMap<String, Disk>,
    /// The leases it holds.
    pub leases: Option<Snapshot>,
    /// What people were told.
    pub events: Vec<Told>,
    rotten: Option<Rotten>,
    /// The ledger of the first so many statements, as it was read last.
    read: Option<(usize, Ledger)>,
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
                Record::Evidence(forked, evidence) => {
                    self.evidence.insert(forked, evidence);
                }
            }
        }
    }

    /// Somebody makes a copy of what is stored of the mesh and of this node's work as agent. Not
    /// of its leases: without an operator left it would have to stop.
    pub fn copy(&mut self) {
        self.old = Some(OldCopy {
            statements: self.statements.clone(),
            ids: self.ids.clone(),
            changes: self.changes.clone(),
            reports: self.reports.clone(),
            agents: self.agents.clone(),
            trees: self.trees.clone(),
        });
    }

    /// A copy of the data folder, without what is attached to its machine.
    pub fn folder(&self) -> Self {
        Self {
            statements: self.statements.clone(),
            ids: self.ids.clone(),
            changes: self.changes.clone(),
            reports: self.reports.clone(),
            evidence: self.evidence.clone(),
            agents: self.agents.clone(),
            trees: self.trees.clone(),
            leases: self.leases.clone(),
            ..Self::default()
        }
    }

    /// Somebody puts the copy back; whether it is another than what is there.
    pub fn put_back(&mut self) -> bool {
        let Some(old) = self.old.clone() else {
            return false;
        };
        let older = old.ids != self.ids || old.changes != self.changes;
        let older = older || old.reports != self.reports || old.agents != self.agents;
        if !older {
            return false;
        }
        self.read = None;
        self.rotten = None;
        self.statements = old.statements;
        self.ids = old.ids;
        self.changes = old.changes;
        self.reports = old.reports;
        self.agents = old.agents;
        self.trees = old.trees;
        true
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
    pub fn restore(
        &mut self,
        identity: Identity,
        root: Option<Identity>,
    ) -> Result<Replica, String> {
        let ledger = self.ledger()?;
        let changes = self.changes.values().cloned().collect();
        let reports = self.reports.values().cloned().collect();
        let mut replica = Replica::restore(identity, root, ledger, changes, reports)
            .map_err(|corrupt| corrupt.to_string())?;
        replica.restore_evidence(self.evidence.values().cloned().collect());
        Ok(replica)
    }

    /// The ledger of all that is stored. Statements are only ever added, so that those
    /// which were read before need not be verified again.
    fn ledger(&mut self) -> Result<Ledger, String> {
        let (read, mut ledger) = match self.read.take() {
            Some(before) => before,
            None => {
                let found = |signed: &Signed| Ledger::found(signed.clone()).ok();
                let genesis = self.statements.iter().find_map(found);
                (0, genesis.ok_or("no genesis is stored")?)
            }
        };
        let mut waiting: Vec<&Signed> = self.statements[read..].iter().collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            waiting.retain(|signed| ledger.insert((*signed).clone()).is_err());
            if waiting.len() == before {
                return Err(format!("{before} stored statements do not fit in"));
            }
        }
        self.read = Some((self.statements.len(), ledger.clone()));
        Ok(ledger)
    }

    /// Flips a bit of a record where it is stored; what a running node read before is
    /// not touched. Returns which record it is.
    pub fn rot(&mut self, rng: &mut Rng) -> Option<&'static str> {
        let sound = self.some_record(rng)?;
        let flip = |bytes: &mut Vec<u8>, rng: &mut Rng| {
            let at = rng.index(bytes.len());
            bytes[at] ^= 1 << rng.below(8);
        };
        let mut rotted = sound.clone();
        match &mut rotted {
            Kept::Statement(_, signed) | Kept::Report(_, signed) => flip(&mut signed.body, rng),
            Kept::Change(_, change) => flip(&mut change.raw, rng),
            Kept::Agent(record) => record.barrier ^= 1 << rng.below(8),
            Kept::Copy(record) => record.barrier ^= 1 << rng.below(8),
        }
        let name = sound.name();
        self.rotten = Some(Rotten { sound, rotted });
        Some(name)
    }

    fn some_record(&self, rng: &mut Rng) -> Option<Kept> {
        let number = usize::try_from(rng.below(1 << 32)).expect("it is below a usize");
        match rng.below(5) {
            0 => {
                let at = number % self.statements.len().max(1);
                let signed = self.statements.get(at)?;
                Some(Kept::Statement(at, signed.clone()))
            }
            1 => {
                let mut changes = self.changes.iter();
                let ((_, seq), change) = changes.nth(number % self.changes.len().max(1))?;
                Some(Kept::Change(*seq, change.clone()))
            }
            2 => {
                let mut reports = self.reports.iter();
                let (node, signed) = reports.nth(number % self.reports.len().max(1))?;
                Some(Kept::Report(*node, signed.clone()))
            }
            3 => {
                let record = self.agents.values().next()?;
                Some(Kept::Agent(Box::new(record.clone())))
            }
            _ => {
                let copy = self.copies.values().next()?;
                Some(Kept::Copy(copy.record.clone()))
            }
        }
    }

    /// The record whose checksum does not match, if one is; what was overwritten since
    /// it rotted is whole again.
    pub fn damaged(&self) -> Option<&'static str> {
        let Rotten { sound, .. } = self.rotten.as_ref()?;
        let stands = match sound {
            Kept::Statement(at, signed) => self.statements.get(*at) == Some(signed),
            Kept::Change(seq, change) => self.changes.get(&(change.author, *seq)) == Some(change),
            Kept::Report(node, signed) => self.reports.get(node) == Some(signed),
            Kept::Agent(record) => self.agents.get(&record.job) == Some(record.as_ref()),
            Kept::Copy(record) => {
                let copy = self.copies.get(&record.job);
                copy.is_some_and(|copy| copy.record == *record)
            }
        };
        stands.then(|| sound.name())
    }

    /// Takes a damaged record as if it were whole.
    pub fn trust_damaged(&mut self) {
        match self.rotten.take().map(|rotten| rotten.rotted) {
            None => {}
            Some(Kept::Statement(at, signed)) => {
                self.statements[at] = signed;
                self.read = None;
            }
            Some(Kept::Change(seq, change)) => {
                self.changes.insert((change.author, seq), change);
            }
            Some(Kept::Report(node, signed)) => {
                self.reports.insert(node, signed);
            }
            Some(Kept::Agent(record)) => {
                self.agents.insert(record.job, *record);
            }
            Some(Kept::Copy(record)) => {
                if let Some(copy) = self.copies.get_mut(&record.job) {
                    copy.record = record;
                }
            }
        }
    }

    /// A person puts the damaged record right.
    pub fn mend(&mut self) {
        self.rotten = None;
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

impl Kept {
    fn name(&self) -> &'static str {
        match self {
            Self::Statement(..) => "record of table statements",
            Self::Change(..) => "record of table changes",
            Self::Report(..) => "record of table reports",
            Self::Agent(_) => "record of table agents",
            Self::Copy(_) => "record of table copies",
        }
    }
}
