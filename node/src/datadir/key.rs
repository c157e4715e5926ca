//! The key files of a data folder: read only while nobody else can, written whole or
//! not at all.

use super::error::{DataDirError, io_error, wrong_kind};
use super::{DataDir, expect_owner, expect_private, private_file, sync_folder};
use keys::identity::BadKeyFile;
use keys::{Identity, RootKey};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A key file is one short line.
const MAX_KEY_FILE_BYTES: u64 = 1024;

/// Which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFile {
    /// This node's own.
    Node,
    /// The mesh's root key.
    Root,
    /// The key that this node is about to have, from before the mesh hears of it until
    /// the node has begun again with it.
    Next,
}

impl KeyFile {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Node => "node.key",
            Self::Root => "root.key",
            Self::Next => "node.key.next",
        }
    }
}

impl DataDir {
    /// Reads a key. A file that others may read is refused, as its key may be known.
    pub fn read_key(&self, key: KeyFile) -> Result<Identity, DataDirError> {
        let path = self.path.join(key.name());
        let text = read_private(&path)?;
        let parsed = std::str::from_utf8(&text)
            .map_err(|_| BadKeyFile::Prefix.into())
            .and_then(|text| match key {
                KeyFile::Root => RootKey::from_text(text).map(|root| root.identity),
                KeyFile::Node | KeyFile::Next => Ok(Identity::from_file(text)?),
            });
        parsed.map_err(|source| DataDirError::KeyDamaged { path, source })
    }

    /// The key, if there is one.
    pub fn find_key(&self, key: KeyFile) -> Result<Option<Identity>, DataDirError> {
        match self.read_key(key) {
            Err(DataDirError::KeyMissing { .. }) => Ok(None),
            read => read.map(Some),
        }
    }

    /// The key left by an attempt before this one, or a new one of `make`, durable.
    pub fn ensure_key(
        &self,
        key: KeyFile,
        make: impl FnOnce() -> Identity,
    ) -> Result<Identity, DataDirError> {
        if let Some(identity) = self.find_key(key)? {
            return Ok(identity);
        }
        let identity = make();
        self.write_key(key, &identity.to_file())?;
        Ok(identity)
    }

    /// Keeps the key that this node is about to have. One that was left by a change that
    /// did not get as far as the mesh is replaced.
    pub fn write_next_key(&self, identity: &Identity) -> Result<(), DataDirError> {
        self.write_key(KeyFile::Next, &identity.to_file())
    }

    /// Keeps the mesh's root key, in the text that is also kept offline: a copy of the
    /// file is all that recovering the mesh takes. One that an attempt before this one
    /// left is the root of nothing and is replaced.
    pub fn write_root_key(&self, root: &RootKey) -> Result<(), DataDirError> {
        self.write_key(KeyFile::Root, &root.to_text())
    }

    /// Makes the next key the node's own.
    pub fn adopt_next_key(&self) -> Result<(), DataDirError> {
        let (next, path) = (self.key_path(KeyFile::Next), self.key_path(KeyFile::Node));
        fs::rename(&next, &path)
            .and_then(|()| sync_folder(&self.path))
            .map_err(|error| io_error("write", &path, error))
    }

    /// Removes a key that is not to be kept here.
    pub fn forget_key(&self, key: KeyFile) -> Result<(), DataDirError> {
        let path = self.key_path(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed
                .and_then(|()| sync_folder(&self.path))
                .map_err(|error| io_error("remove", &path, error)),
        }
    }

    /// Where a key is.
    pub fn key_path(&self, key: KeyFile) -> PathBuf {
        self.path.join(key.name())
    }

    fn write_key(&self, key: KeyFile, text: &str) -> Result<(), DataDirError> {
        let path = self.key_path(key);
        let draft = self.path.join(format!("{}.new", key.name()));
        let written = match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => write_new(&draft, text.as_bytes()),
        };
        written.map_err(|error| io_error("write", &draft, error))?;
        // Whole or not at all: a key that was cut short would be a node that is lost.
        fs::rename(&draft, &path)
            .and_then(|()| sync_folder(&self.path))
            .map_err(|error| io_error("write", &path, error))
    }
}

/// Reads a small file that only its owner can, or says what is wrong with it.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, DataDirError> {
    let path = path.to_path_buf();
    // Neither another file by way of a link, nor for ever on a pipe.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(DataDirError::KeyMissing { path });
        }
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Err(wrong_kind(path, "regular file"));
        }
        Err(error) => return Err(io_error("open", &path, error)),
    };
    let found = file
        .metadata()
        .map_err(|error| io_error("look at", &path, error))?;
    if !found.is_file() {
        return Err(wrong_kind(path, "regular file"));
    }
    expect_owner(&path, &found)?;
    expect_private(&path, &found)?;
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES as usize));
    file.take(MAX_KEY_FILE_BYTES)
        .read_to_end(&mut text)
        .map_err(|error| io_error("read", &path, error))?;
    Ok(text)
}

/// Writes a small file that must not be there yet, for its owner alone, durable when it
/// returns.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write_new(path, content)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    sync_folder(folder.unwrap_or(Path::new(".")))
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = private_file().create_new(true).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
