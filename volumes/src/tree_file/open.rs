//! Making and opening stored trees. A tree appears under its name only once
//! its header is durable, so what is found there is whole or damaged, never
//! unfinished.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use blocks::{BLANK_MARK, Geometry};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::layout::{BadHeader, FORMAT, HEADER_LEN, Header, Layout, PAGE_LEN, RECORD_LEN, Record};
use super::pages::CACHED_GROUPS;
use super::{GroupState, OpenTreeError, TreeFile, UNKNOWN, VolumeTag, index};
use crate::locked::LockedFile;

/// Records read at once when a tree is opened: 1 MiB of them.
const RECORDS_READ: usize = 8 * 1024;

impl TreeFile {
    /// Makes the tree of a volume of zeros.
    ///
    /// # Errors
    /// When there is one already, or it cannot be written.
    pub fn create(path: &Path, tag: VolumeTag, geometry: Geometry) -> Result<Self, OpenTreeError> {
        let failed = |source| open_failed(path, source);
        if path.try_exists().map_err(failed)? {
            return Err(OpenTreeError::Exists {
                path: path.to_owned(),
            });
        }
        let temporary = beside(path);
        let header = Header {
            tag,
            length: geometry.length(),
        };
        let mut file = File::create(&temporary).map_err(failed)?;
        file.write_all(&header.encode())
            .and_then(|()| file.set_len(Layout::new(geometry).file_len()))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, path))
            .and_then(|()| sync_folder_of(path))
            .map_err(failed)?;
        drop(file);
        Self::open(path, tag, geometry)
    }

    /// Opens the tree of a volume and locks it.
    ///
    /// # Errors
    /// When there is none, it is in use, of another volume or a newer format,
    /// or damaged as a whole. Torn groups are no error:
    /// [`torn_groups`](Self::torn_groups) tells them.
    pub fn open(path: &Path, tag: VolumeTag, geometry: Geometry) -> Result<Self, OpenTreeError> {
        let failed = |source| open_failed(path, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        let file = LockedFile::lock(file).map_err(failed)?;
        let layout = Layout::new(geometry);
        check_header(&file, path, tag, geometry, layout)?;
        let groups = index(geometry.groups());
        let mut tree = Self {
            path: path.to_owned(),
            file,
            geometry,
            layout,
            nodes: vec![UNKNOWN; groups],
            marks: vec![BLANK_MARK; groups],
            first_unknown: 0,
            states: vec![GroupState::Blank; groups],
            pages: HashMap::with_capacity(CACHED_GROUPS),
            uses: 0,
            poisoned: None,
        };
        tree.read_records().map_err(failed)?;
        tree.find_stray_pages().map_err(failed)?;
        Ok(tree)
    }

    /// Opens the tree of a volume, or makes that of a volume of zeros.
    ///
    /// # Errors
    /// As for [`Self::open`] and [`Self::create`].
    pub fn open_or_create(
        path: &Path,
        tag: VolumeTag,
        geometry: Geometry,
    ) -> Result<Self, OpenTreeError> {
        match Self::open(path, tag, geometry) {
            Err(OpenTreeError::Missing { .. }) => Self::create(path, tag, geometry),
            opened => opened,
        }
    }

    fn read_records(&mut self) -> io::Result<()> {
        let most = self.geometry.groups().min(RECORDS_READ as u64);
        let mut bytes = vec![0; index(most) * RECORD_LEN];
        let records_end = self.layout.record(self.geometry.groups());
        let mut at = self.layout.record(0);
        // Holes are blank groups, which is what the tree starts with.
        while let Some(data) = next_data(&self.file, at)?.filter(|data| *data < records_end) {
            let record_len = RECORD_LEN as u64;
            let first = data.saturating_sub(self.layout.record(0)) / record_len;
            let count = (self.geometry.groups() - first).min(most);
            let piece = &mut bytes[..index(count) * RECORD_LEN];
            self.file.read_exact_at(piece, self.layout.record(first))?;
            let (records, _) = piece.as_chunks::<RECORD_LEN>();
            for (group, bytes) in (first..).zip(records) {
                let (record, state) = match Record::decode(group, bytes) {
                    Some(record) if record.is_blank() => (record, GroupState::Blank),
                    Some(record) => (record, GroupState::Stored),
                    None => (Record::NOTHING, GroupState::Torn),
                };
                self.nodes[index(group)] = record.node;
                self.marks[index(group)] = record.mark;
                self.set_state(group, state);
            }
            at = self.layout.record(first + count);
        }
        Ok(())
    }

    /// Finds pages that reached the disk while their record did not: the
    /// record says blank, and nobody would look.
    fn find_stray_pages(&mut self) -> io::Result<()> {
        let mut page = vec![0; PAGE_LEN];
        let mut at = self.layout.page(0);
        while let Some(data) =
            next_data(&self.file, at)?.filter(|data| *data < self.layout.file_len())
        {
            let group = self.layout.group_at(data);
            if self.state(group) == GroupState::Blank {
                self.file
                    .read_exact_at(&mut page, self.layout.page(group))?;
                if !blocks::is_zero(&page) {
                    self.nodes[index(group)] = UNKNOWN;
                    self.set_state(group, GroupState::Torn);
                }
            }
            at = self.layout.page(group + 1);
        }
        Ok(())
    }
}

fn check_header(
    file: &File,
    path: &Path,
    tag: VolumeTag,
    geometry: Geometry,
    layout: Layout,
) -> Result<(), OpenTreeError> {
    let path = || path.to_owned();
    let mut bytes = [0; HEADER_LEN];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(OpenTreeError::NotATree { path: path() });
        }
        Err(source) => return Err(open_failed(&path(), source)),
    }
    let header = Header::decode(&bytes).map_err(|bad| match bad {
        BadHeader::NotATree => OpenTreeError::NotATree { path: path() },
        BadHeader::Newer(have) => OpenTreeError::NewerVersion {
            path: path(),
            have,
            known: FORMAT,
        },
        BadHeader::Older => OpenTreeError::Corrupt {
            path: path(),
            why: "an earlier version of this program wrote it",
        },
        BadHeader::Corrupt => OpenTreeError::Corrupt {
            path: path(),
            why: "its header does not match its checksum",
        },
    })?;
    if header.tag != tag || header.length != geometry.length() {
        return Err(OpenTreeError::OtherVolume {
            path: path(),
            have: header.length,
        });
    }
    let metadata = file
        .metadata()
        .map_err(|source| open_failed(&path(), source))?;
    if metadata.len() != layout.file_len() {
        return Err(OpenTreeError::Corrupt {
            path: path(),
            why: "its length is wrong",
        });
    }
    Ok(())
}

/// Where data next is, at or after `offset`; `offset` itself where the file
/// system knows no holes.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
        Err(errno) => Err(errno.into()),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    PathBuf::from(name)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn open_failed(path: &Path, source: io::Error) -> OpenTreeError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => OpenTreeError::Missing { path },
        io::ErrorKind::WouldBlock => OpenTreeError::Busy { path },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenTreeError::Full { path },
        _ => OpenTreeError::Io { path, source },
    }
}
