//! What a node must not forget, in one redb file: the ledger, the plan's changes and
//! the reports of the mesh, and this node's own jobs, volumes, proofs and events.
//!
//! Every write is one transaction and durable when it returns; `kill -9` at any
//! moment loses nothing that was acknowledged. Calls block on the disk: from a task,
//! call them where blocking is allowed. Not here: what any of it means, and keys
//! (`datadir`), which are files of their own.

mod error;
mod event;
mod mine;
mod shared;
mod table;

pub use error::StoreError;
pub use event::NewEvent;
pub use mine::OfferedVolume;
pub use shared::Loaded;

use codec::Wire;
use keys::{MeshId, PublicKey};
use mesh::Record;
use redb::{
    Builder, Database, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, TableHandle,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use table::Table;

/// Format of the whole file; raised when a program that knows only the one before
/// could misread it.
pub const FORMAT: u8 = 10;
/// Memory for the engine's cache, in bytes. Everything is read once at the start and
/// then kept elsewhere; the engine would take a gibibyte.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Files below this are left as they are when they are closed: the engine doubles a
/// file that is full, so that up to half of a larger one may be free.
const SHRINK_FROM_BYTES: u64 = 4 * 1024 * 1024;

const HEADER: Table = Table::new("header");
const HEADER_KEY: &[u8] = b"header";

/// All tables but the header's.
const TABLES: [Table; 11] = [
    shared::STATEMENTS,
    shared::CHANGES,
    shared::SEEN,
    shared::REPORTS,
    shared::EVIDENCE,
    mine::AGENTS,
    mine::COPIES,
    mine::VOLUMES,
    mine::PROOFS,
    mine::LEASES,
    event::EVENTS,
];

/// Whose state it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The mesh.
    pub mesh: MeshId,
    /// The node's key: state under another key is another node's.
    pub key: PublicKey,
    /// Format of the file.
    pub format: u8,
}

#[derive(Serialize, Deserialize)]
struct StoredHeader {
    mesh: MeshId,
    key: PublicKey,
}

impl Wire for StoredHeader {
    const NAME: &'static str = "state";
    const VERSION: u8 = FORMAT;
    const LIMIT: usize = 128;
}

/// Stored state, opened. Clones share it; the last one to be dropped closes the file.
pub struct Stored<D: Engine> {
    db: Arc<Closing<D>>,
    mesh: MeshId,
}

/// Stored state that can be read and written; nobody else has it open.
pub type Store = Stored<Database>;

/// Stored state as a command reads it while the node is stopped.
pub type Reader = Stored<ReadOnlyDatabase>;

impl<D: Engine> Clone for Stored<D> {
    fn clone(&self) -> Self {
        Self {
            db: Arc::clone(&self.db),
            mesh: self.mesh,
        }
    }
}

impl Store {
    /// Makes the file at `path` with `first` in it, which holds the genesis. A crash
    /// on the way leaves no file at `path`.
    pub fn create(
        path: &Path,
        mesh: MeshId,
        key: PublicKey,
        first: &[Record],
    ) -> Result<Self, StoreError> {
        let taken = path.try_exists();
        if taken.map_err(|error| StoreError::io("read", error))? {
            let path = path.to_path_buf();
            return Err(StoreError::Exists { path });
        }
        let draft = with_suffix(path, ".new");
        let file = fresh_file(&draft).map_err(|error| StoreError::io("written", error))?;
        table::guarded(|| {
            let db = builder().create_file(file);
            let db = db.map_err(|error| StoreError::opening(draft.clone(), error))?;
            table::write(&db, |txn| {
                table::put(txn, HEADER, HEADER_KEY, &StoredHeader { mesh, key })?;
                for table in TABLES {
                    txn.open_table(table)?;
                }
                shared::put(txn, first)
            })
        })?;
        let renamed = fs::rename(&draft, path).and_then(|()| sync_folder_of(path));
        renamed.map_err(|error| StoreError::io("written", error))?;
        Ok(Self::open(path)?.0)
    }

    /// Opens the file at `path`; after a crash, whatever was under way is taken back.
    pub fn open(path: &Path) -> Result<(Self, Header), StoreError> {
        expect_file(path)?;
        let db = table::guarded(|| {
            let db = builder().open(path);
            let db = db.map_err(|error| StoreError::opening(path.to_path_buf(), error))?;
            Ok(Closing::new(db, path))
        })?;
        Self::opened(db)
    }

    /// Makes records of the mesh durable, all or none. A statement that is there
    /// already is left as it is; a change takes the place of another with its author
    /// and number, a report that of its node's last.
    pub fn put_records(&self, records: &[Record]) -> Result<(), StoreError> {
        self.write(|txn| shared::put(txn, records))
    }

    /// Says that the state is under another key of the same node now.
    pub fn set_key(&self, key: PublicKey) -> Result<(), StoreError> {
        let mesh = self.mesh;
        self.write(|txn| table::put(txn, HEADER, HEADER_KEY, &StoredHeader { mesh, key }))
    }

    fn write<T>(
        &self,
        run: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        table::write(self.db.get(), run)
    }
}

impl Reader {
    /// Opens the file at `path` for reading; any number of readers may, while no
    /// node runs.
    pub fn open_read_only(path: &Path) -> Result<(Self, Header), StoreError> {
        expect_file(path)?;
        let open = || builder().open_read_only(path);
        let db = table::guarded(|| {
            let db = match open() {
                Err(redb::DatabaseError::RepairAborted) => {
                    // A crash left work behind, which takes a writer to clear away.
                    drop(Store::open(path)?);
                    open()
                }
                opened => opened,
            };
            let db = db.map_err(|error| StoreError::opening(path.to_path_buf(), error))?;
            Ok(Closing::new(db, path))
        })?;
        Self::opened(db)
    }
}

impl<D: Engine> Stored<D> {
    /// Everything of the mesh, as it was put.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        self.read(|txn| shared::load(txn, self.mesh))
    }

    fn opened(db: Closing<D>) -> Result<(Self, Header), StoreError> {
        let header = table::read(db.get(), read_header)?;
        let db = Arc::new(db);
        let mesh = header.mesh;
        Ok((Self { db, mesh }, header))
    }

    fn read<T>(
        &self,
        run: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        table::read(self.db.get(), run)
    }
}

/// A database that is closed under guard: closing writes, and so may find damage.
struct Closing<D: Engine> {
    db: Option<D>,
    path: PathBuf,
}

/// A database of the engine, for reading alone or not.
pub trait Engine: ReadableDatabase {
    /// Makes the file smaller where much of its `len` bytes is free.
    fn shrink(&mut self, len: u64) -> Result<(), StoreError>;
}

impl Engine for Database {
    fn shrink(&mut self, len: u64) -> Result<(), StoreError> {
        if len < SHRINK_FROM_BYTES {
            return Ok(());
        }
        let txn = self.begin_write()?;
        let stats = txn.stats()?;
        txn.abort()?;
        let used = stats.allocated_pages() * stats.page_size() as u64;
        if used < len / 4 * 3 {
            self.compact()?;
        }
        Ok(())
    }
}

impl Engine for ReadOnlyDatabase {
    fn shrink(&mut self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
}

impl<D: Engine> Closing<D> {
    fn new(db: D, path: &Path) -> Self {
        Self {
            db: Some(db),
            path: path.to_path_buf(),
        }
    }

    fn get(&self) -> &D {
        self.db.as_ref().expect("it is taken out by drop alone")
    }
}

impl<D: Engine> Drop for Closing<D> {
    fn drop(&mut self) {
        let Some(mut db) = self.db.take() else { return };
        // All that was acknowledged is durable; there is nobody to tell.
        let _ = table::guarded(|| {
            let len = fs::metadata(&self.path).map_or(0, |found| found.len());
            let shrunk = db.shrink(len);
            drop(db);
            shrunk
        });
    }
}

/// The header's first byte is looked at before its checksum: another format may
/// have another checksum.
fn read_header(txn: &ReadTransaction) -> Result<Header, StoreError> {
    let stored = table::raw(txn, HEADER, HEADER_KEY)?;
    let stored = stored.ok_or_else(|| StoreError::corrupt("it has no header"))?;
    let (what, known) = (StoredHeader::NAME, FORMAT);
    match stored.first() {
        Some(&found) if found > known => {
            return Err(StoreError::NewerFormat { what, found, known });
        }
        Some(&found) if found < known => {
            return Err(StoreError::OlderFormat { what, found, known });
        }
        _ => {}
    }
    let StoredHeader { mesh, key } = table::unseal(HEADER.name(), HEADER_KEY, &stored)?;
    Ok(Header {
        mesh,
        key,
        format: FORMAT,
    })
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn expect_file(path: &Path) -> Result<(), StoreError> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(StoreError::corrupt("it is no regular file")),
        Ok(found) if found.len() == 0 => Err(StoreError::corrupt("the database file is empty")),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Missing {
            path: path.to_path_buf(),
        }),
        Err(error) => Err(StoreError::io("read", error)),
    }
}

/// An empty file that its owner alone can read; what a crash left is replaced.
fn fresh_file(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
