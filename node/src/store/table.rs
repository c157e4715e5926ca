//! Tables of sealed records: encoding, checksums and transactions over the database.
//!
//! The engine keeps checksums of its pages and looks at them only when it repairs.
//! What is stored here was verified once and is believed afterwards, so each record
//! carries a checksum of its own, and a scan must find as many entries as the
//! table claims to have: a changed bit or a lost page is an error, never other data.
//! Not here: which tables there are for what (`store` and its other files).
//!
//! A stored value is the record's wire encoding, then the first 16 bytes of the
//! BLAKE3 hash of table name, key and encoding, each of the first two behind its
//! length as eight bytes.

use super::error::StoreError;
use codec::{DecodeError, Wire};
use redb::{
    Durability, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, TableHandle, WriteTransaction,
};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// A table: bytes to bytes.
pub(super) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Bytes of the checksum behind each record.
const CHECKSUM_BYTES: usize = 16;

thread_local! {
    /// Whether this thread is inside [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs what calls the engine. The engine panics on some damaged files, and a
/// damaged file is no reason to end the process, or to show a person a backtrace.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    hush_guarded();
    let outside = GUARDED.replace(true);
    let ended = catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(outside);
    ended.unwrap_or_else(|_| {
        Err(StoreError::corrupt(
            "the database engine could not make sense of its file",
        ))
    })
}

/// Panics that [`guarded`] turns into errors go to the debug log; all others are
/// reported as before.
fn hush_guarded() {
    static HUSHED: Once = Once::new();
    HUSHED.call_once(|| {
        let report = take_hook();
        set_hook(Box::new(move |panic| {
            if GUARDED.get() {
                tracing::debug!("the database engine gave up: {panic}");
            } else {
                report(panic);
            }
        }));
    });
}

/// A read transaction around `run`.
pub(super) fn read<T>(
    db: &impl ReadableDatabase,
    run: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    guarded(|| run(&db.begin_read()?))
}

/// A write transaction around `run`, durable when this returns; nothing of it happens
/// if `run` fails.
pub(super) fn write<T>(
    db: &redb::Database,
    run: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    guarded(|| {
        let _committing = volumes::committing();
        let mut txn = db.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        // With one phase, a last commit that is damaged later is dropped without a
        // word when the file is repaired; with two it is an error. Peers choose what
        // is stored, which one phase does not withstand either.
        txn.set_two_phase_commit(true);
        txn.set_quick_repair(true);
        let done = run(&txn)?;
        txn.commit()?;
        Ok(done)
    })
}

/// Writes one record.
pub(super) fn put<T: Wire>(
    txn: &WriteTransaction,
    table: Table,
    key: &[u8],
    value: &T,
) -> Result<(), StoreError> {
    let sealed = seal(table.name(), key, codec::encode(value)?);
    txn.open_table(table)?.insert(key, sealed.as_slice())?;
    Ok(())
}

/// Removes one record, if it is there.
pub(super) fn remove(txn: &WriteTransaction, table: Table, key: &[u8]) -> Result<(), StoreError> {
    txn.open_table(table)?.remove(key)?;
    Ok(())
}

/// How many records a table has.
pub(super) fn len(txn: &WriteTransaction, table: Table) -> Result<u64, StoreError> {
    Ok(txn.open_table(table)?.len()?)
}

/// Notes `key` in a table of keys alone; false if it was there.
pub(super) fn mark(txn: &WriteTransaction, table: Table, key: &[u8]) -> Result<bool, StoreError> {
    let known = txn.open_table(table)?.insert(key, [].as_slice())?.is_some();
    Ok(!known)
}

/// The stored bytes under `key`, checksum and all.
pub(super) fn raw(
    txn: &ReadTransaction,
    table: Table,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    let found = txn.open_table(table)?;
    let value = found.get(key)?;
    Ok(value.map(|value| value.value().to_vec()))
}

/// All records of a table, in order of their keys.
pub(super) fn scan<T: Wire>(txn: &ReadTransaction, table: Table) -> Result<Vec<T>, StoreError> {
    records(&txn.open_table(table)?, table)
}

/// As [`scan`], of a table that an older program did not make: it is made when it is first
/// written.
pub(super) fn scan_if_there<T: Wire>(
    txn: &ReadTransaction,
    table: Table,
) -> Result<Vec<T>, StoreError> {
    let mut made = txn.list_tables()?;
    match made.any(|made| made.name() == table.name()) {
        true => scan(txn, table),
        false => Ok(vec![]),
    }
}

/// As [`scan`], with the key of each.
pub(super) fn scan_keyed<T: Wire>(
    txn: &ReadTransaction,
    table: Table,
) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
    keyed(&txn.open_table(table)?, table)
}

/// As [`scan`], seeing what the transaction has written.
pub(super) fn scan_written<T: Wire>(
    txn: &WriteTransaction,
    table: Table,
) -> Result<Vec<T>, StoreError> {
    records(&txn.open_table(table)?, table)
}

fn records<T: Wire>(
    opened: &impl ReadableTable<&'static [u8], &'static [u8]>,
    table: Table,
) -> Result<Vec<T>, StoreError> {
    let keyed = keyed(opened, table)?.into_iter();
    Ok(keyed.map(|(_, record)| record).collect())
}

fn keyed<T: Wire>(
    opened: &impl ReadableTable<&'static [u8], &'static [u8]>,
    table: Table,
) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
    let claimed = opened.len()?;
    let mut records = Vec::new();
    for entry in opened.iter()? {
        let (key, value) = entry?;
        let record = unseal(table.name(), key.value(), value.value())?;
        records.push((key.value().to_vec(), record));
    }
    if records.len() as u64 == claimed {
        return Ok(records);
    }
    let (table, found) = (table.name(), records.len());
    let what = format!("table `{table}` should have {claimed} records and has {found}");
    Err(StoreError::corrupt(what))
}

/// Writes one record at the end of a log, and returns its number. A log is a table
/// whose keys count from 1 in the order of arrival, as eight big-endian bytes.
pub(super) fn append<T: Wire>(
    txn: &WriteTransaction,
    table: Table,
    value: impl FnOnce(u64) -> T,
) -> Result<u64, StoreError> {
    let mut opened = txn.open_table(table)?;
    let last = match opened.last()? {
        None => 0,
        Some((key, _)) => number(table, key.value())?,
    };
    let next = last
        .checked_add(1)
        .ok_or_else(|| StoreError::corrupt(format!("table `{}` is at its end", table.name())))?;
    let key = next.to_be_bytes();
    let sealed = seal(table.name(), &key, codec::encode(&value(next))?);
    opened.insert(key.as_slice(), sealed.as_slice())?;
    Ok(next)
}

/// Removes the first records of a table until `keep` are left.
pub(super) fn keep_last(txn: &WriteTransaction, table: Table, keep: u64) -> Result<(), StoreError> {
    let mut opened = txn.open_table(table)?;
    for _ in keep..opened.len()? {
        opened.pop_first()?;
    }
    Ok(())
}

/// Walks a log from its end (`newest_first`) or from just after `after`, and keeps
/// what `pick` wants, up to `limit`.
pub(super) fn walk<T: Wire>(
    txn: &ReadTransaction,
    table: Table,
    after: u64,
    newest_first: bool,
    limit: usize,
    pick: impl Fn(&T) -> bool,
) -> Result<Vec<T>, StoreError> {
    let opened = txn.open_table(table)?;
    let Some(first) = after.checked_add(1) else {
        return Ok(Vec::new());
    };
    let first = first.to_be_bytes();
    let mut entries = opened.range(first.as_slice()..)?;
    let mut picked = Vec::new();
    while picked.len() < limit {
        let entry = if newest_first {
            entries.next_back()
        } else {
            entries.next()
        };
        let Some(entry) = entry else { break };
        let (key, value) = entry?;
        let record = unseal(table.name(), key.value(), value.value())?;
        if pick(&record) {
            picked.push(record);
        }
    }
    Ok(picked)
}

fn seal(table: &str, key: &[u8], mut encoded: Vec<u8>) -> Vec<u8> {
    let sum = checksum(table, key, &encoded);
    encoded.extend_from_slice(&sum);
    encoded
}

/// Checks and decodes a stored value.
pub(super) fn unseal<T: Wire>(table: &str, key: &[u8], stored: &[u8]) -> Result<T, StoreError> {
    let damaged = |why: &str| {
        let what = format!("record {} of table `{table}`: {why}", hex::encode(key));
        StoreError::corrupt(what)
    };
    let body = stored.len().checked_sub(CHECKSUM_BYTES);
    let (encoded, sum) = stored.split_at(body.ok_or_else(|| damaged("it is cut short"))?);
    if checksum(table, key, encoded) != sum {
        return Err(damaged("its checksum does not match"));
    }
    codec::decode_stored(encoded).map_err(|error| match error {
        DecodeError::Version { name, found, known } if found > known => StoreError::NewerFormat {
            what: name,
            found,
            known,
        },
        DecodeError::Version { name, found, known } => StoreError::OlderFormat {
            what: name,
            found,
            known,
        },
        other => damaged(&other.to_string()),
    })
}

fn checksum(table: &str, key: &[u8], encoded: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    for part in [table.as_bytes(), key] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.update(encoded);
    let mut sum = [0; CHECKSUM_BYTES];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// The number of a record in a log.
fn number(table: Table, key: &[u8]) -> Result<u64, StoreError> {
    let bytes = <[u8; 8]>::try_from(key).map_err(|_| {
        let (key, table) = (hex::encode(key), table.name());
        StoreError::corrupt(format!("key {key} of table `{table}` is no number"))
    })?;
    Ok(u64::from_be_bytes(bytes))
}
