//! What is this node's alone: its jobs, the volumes it offers and the proofs it holds.

use super::Engine;
use super::error::StoreError;
use super::shared::{StoredSigned, signed};
use super::table::{self, Table};
use super::{Store, Stored};
use codec::Wire;
use crdt::report::MAX_VOLUMES;
use keys::lease::Snapshot;
use keys::{Signed, UnixSecs, VolumeId};
use roles::{JobId, agent, hooks, replicator};
use serde::{Deserialize, Serialize};

pub(super) const AGENTS: Table = Table::new("agents");
pub(super) const COPIES: Table = Table::new("copies");
pub(super) const VOLUMES: Table = Table::new("volumes");
pub(super) const PROOFS: Table = Table::new("proofs");
pub(super) const HOOKS: Table = Table::new("hooks");
pub(super) const LEASES: Table = Table::new("leases");
/// There is one record of leases.
const LEASES_KEY: &[u8] = b"leases";

/// Proofs that are kept: far more than a report has room for.
const PROOFS_KEPT: u64 = 4096;

/// A device or image file that a person offered as a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedVolume {
    /// Made when it was offered.
    pub id: VolumeId,
    /// For people.
    pub name: String,
    /// Where it is on this machine.
    pub path: String,
    /// When it was offered, by this node's wall clock.
    pub added_at: UnixSecs,
}

impl Wire for OfferedVolume {
    const NAME: &'static str = "offered volume";
    const VERSION: u8 = 1;
    const LIMIT: usize = 8 * 1024;
}

impl Store {
    /// Makes an agent's record durable in place of its last.
    pub fn put_agent(&self, record: &agent::Record) -> Result<(), StoreError> {
        self.write(|txn| table::put(txn, AGENTS, &job_key(record.job), record))
    }

    /// Makes the records of several volumes durable in place of their last, all or none.
    pub fn put_agents(&self, records: &[agent::Record]) -> Result<(), StoreError> {
        self.write(|txn| {
            let mut records = records.iter();
            records.try_for_each(|record| table::put(txn, AGENTS, &job_key(record.job), record))
        })
    }

    /// Forgets an agent's record.
    pub fn delete_agent(&self, job: JobId) -> Result<(), StoreError> {
        self.write(|txn| table::remove(txn, AGENTS, &job_key(job)))
    }

    /// Makes a replicator's record of a copy durable in place of its last.
    pub fn put_copy(&self, record: &replicator::Record) -> Result<(), StoreError> {
        self.write(|txn| table::put(txn, COPIES, &job_key(record.job), record))
    }

    /// Forgets a replicator's record of a copy.
    pub fn delete_copy(&self, job: JobId) -> Result<(), StoreError> {
        self.write(|txn| table::remove(txn, COPIES, &job_key(job)))
    }

    /// Makes the record of a migration's hooks durable in place of its last.
    pub fn put_hooks(&self, record: &hooks::Record) -> Result<(), StoreError> {
        self.write(|txn| table::put(txn, HOOKS, &record.migration.0, record))
    }

    /// Offers a volume, or changes how it is offered.
    pub fn put_volume(&self, volume: &OfferedVolume) -> Result<(), StoreError> {
        self.write(|txn| {
            table::put(txn, VOLUMES, &volume.id.0, volume)?;
            if table::len(txn, VOLUMES)? > MAX_VOLUMES as u64 {
                return Err(StoreError::Full {
                    table: "the list of offered volumes",
                    limit: MAX_VOLUMES as u64,
                });
            }
            Ok(())
        })
    }

    /// Offers a volume no longer.
    pub fn remove_volume(&self, volume: VolumeId) -> Result<(), StoreError> {
        self.write(|txn| table::remove(txn, VOLUMES, &volume.0))
    }

    /// Makes this node's leases durable in place of the last.
    pub fn put_leases(&self, leases: &Snapshot) -> Result<(), StoreError> {
        self.write(|txn| table::put(txn, LEASES, LEASES_KEY, leases))
    }

    /// Keeps a signed root; the same one twice is kept once, and the oldest of very
    /// many go.
    pub fn put_proof(&self, proof: &Signed) -> Result<(), StoreError> {
        self.write(|txn| {
            let known: Vec<StoredSigned> = table::scan_written(txn, PROOFS)?;
            if known.iter().any(|StoredSigned(known)| known == proof) {
                return Ok(());
            }
            table::append(txn, PROOFS, |_| StoredSigned(proof.clone()))?;
            table::keep_last(txn, PROOFS, PROOFS_KEPT)
        })
    }
}

impl<D: Engine> Stored<D> {
    /// The agent's records.
    pub fn agents(&self) -> Result<Vec<agent::Record>, StoreError> {
        self.read(|txn| table::scan(txn, AGENTS))
    }

    /// The replicator's records.
    pub fn copies(&self) -> Result<Vec<replicator::Record>, StoreError> {
        self.read(|txn| table::scan(txn, COPIES))
    }

    /// The records of hooks.
    pub fn hooks(&self) -> Result<Vec<hooks::Record>, StoreError> {
        self.read(|txn| table::scan_if_there(txn, HOOKS))
    }

    /// The volumes that are offered, in order of their ids.
    pub fn volumes(&self) -> Result<Vec<OfferedVolume>, StoreError> {
        self.read(|txn| table::scan(txn, VOLUMES))
    }

    /// This node's leases as they were stored last.
    pub fn leases(&self) -> Result<Option<Snapshot>, StoreError> {
        self.read(|txn| Ok(table::scan(txn, LEASES)?.pop()))
    }

    /// The signed roots, oldest first.
    pub fn proofs(&self) -> Result<Vec<Signed>, StoreError> {
        self.read(|txn| Ok(signed(table::scan(txn, PROOFS)?)))
    }
}

fn job_key(job: JobId) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&job.migration.0);
    key[16..].copy_from_slice(&job.volume.0);
    key
}
