//! The file that holds the document's snapshot: a cache beside the store, which the
//! logs there can do without.

use crate::datadir::DataDir;
use anyhow::Context;
use codec::Wire;
use crdt::{Saving, Snapshot};
use std::io::{Read, Write};
use std::path::PathBuf;

/// Bytes of the checksum at the end of the file: the first of its BLAKE3 hash.
const CHECKSUM_BYTES: usize = 16;

/// Where it is.
pub(crate) fn path(dir: &DataDir) -> PathBuf {
    dir.path().join("document.snapshot")
}

/// The stored snapshot. One that is not there, of another format or damaged is none.
pub(super) fn read_snapshot(dir: &DataDir) -> Option<Snapshot> {
    let most = (Snapshot::LIMIT + CHECKSUM_BYTES) as u64;
    let mut bytes = vec![];
    let file = std::fs::File::open(path(dir)).ok()?;
    file.take(most + 1).read_to_end(&mut bytes).ok()?;
    let snapshot = unseal(&bytes);
    if snapshot.is_none() {
        tracing::info!("the document's snapshot is damaged or of another format: made anew");
    }
    snapshot
}

/// Stores the document's snapshot in place of the one before.
pub(crate) fn write_snapshot(dir: &DataDir, saving: Saving) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let sealed = seal(codec::encode(&saving.finish())?);
        let mut file = tempfile::NamedTempFile::new_in(dir.path())?;
        file.write_all(&sealed)?;
        file.as_file().sync_all()?;
        file.persist(path(dir))?;
        Ok(std::fs::File::open(dir.path())?.sync_all()?)
    };
    write().with_context(|| format!("cannot write {}", path(dir).display()))
}

fn seal(mut encoded: Vec<u8>) -> Vec<u8> {
    let sum = blake3::hash(&encoded);
    encoded.extend_from_slice(&sum.as_bytes()[..CHECKSUM_BYTES]);
    encoded
}

fn unseal(bytes: &[u8]) -> Option<Snapshot> {
    let (encoded, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    let holds = blake3::hash(encoded).as_bytes()[..CHECKSUM_BYTES] == *sum;
    codec::decode_stored(encoded).ok().filter(|_| holds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crdt::Document;
    use keys::MeshId;
    use tempfile::TempDir;

    #[test]
    fn a_snapshot_reads_back_and_one_with_any_bit_changed_is_none() {
        let folder = TempDir::new().unwrap();
        let dir = DataDir::create_new(&folder.path().join("data")).unwrap();
        assert_eq!(read_snapshot(&dir), None);
        let mut document = Document::new(MeshId([7; 32]));
        write_snapshot(&dir, document.save()).unwrap();
        assert_eq!(read_snapshot(&dir), Some(document.save().finish()));
        let whole = std::fs::read(path(&dir)).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(&damaged), None, "bit {bit}");
        }
        for end in 0..whole.len() {
            assert_eq!(unseal(&whole[..end]), None, "cut at {end}");
        }
    }
}
