//! The cache of groups' leaves, and their way to the disk and back. It decides
//! nothing about what the leaves should be.

use std::io;
use std::os::unix::fs::FileExt;

use blocks::{GroupIndex, Leaf, group_mark};

use super::layout::{self, PAGE_LEN, RECORD_LEN, Record};
use super::{GroupState, TreeError, TreeFile, index};

/// Groups whose leaves are held in memory, 8 KiB each: 2 MiB, which covers the
/// 4 GiB of a volume that were touched last.
pub(super) const CACHED_GROUPS: usize = 256;

/// The leaves of one group in memory.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) entries: Vec<Leaf>,
    pub(super) dirty: bool,
    last_use: u64,
}

impl TreeFile {
    /// The cached page of a group, read and checked first if need be.
    pub(super) fn page(&mut self, group: u64) -> Result<&mut Page, TreeError> {
        self.check_sound()?;
        if self.state(group) == GroupState::Torn {
            return Err(self.torn(group));
        }
        if !self.pages.contains_key(&group) {
            let entries = self.load(group)?;
            self.insert(group, entries, false)?;
        }
        self.uses += 1;
        let page = self.pages.get_mut(&group).expect("it was just put in");
        page.last_use = self.uses;
        Ok(page)
    }

    fn load(&mut self, group: u64) -> Result<Vec<Leaf>, TreeError> {
        let mut bytes = vec![0; PAGE_LEN];
        self.read_at(&mut bytes, self.layout.page(group))?;
        let mut record = [0; RECORD_LEN];
        self.read_at(&mut record, self.layout.record(group))?;
        let blocks = self.geometry.group_blocks(GroupIndex(group));
        let blocks = blocks.end - blocks.start;
        let matches =
            Record::decode(group, &record).is_some_and(|record| record.matches(&bytes, blocks));
        if !matches {
            self.set_state(group, GroupState::Torn);
            return Err(self.torn(group));
        }
        Ok(layout::decode_page(&bytes, blocks))
    }

    /// Puts a page into the cache; what is pushed out is written first.
    pub(super) fn insert(
        &mut self,
        group: u64,
        entries: Vec<Leaf>,
        dirty: bool,
    ) -> Result<(), TreeError> {
        self.check_sound()?;
        if self.pages.len() >= CACHED_GROUPS && !self.pages.contains_key(&group) {
            let oldest = self.pages.iter().min_by_key(|(_, page)| page.last_use);
            let oldest = *oldest.expect("a full cache is not empty").0;
            if self.pages[&oldest].dirty {
                self.store(oldest)?;
            }
            self.pages.remove(&oldest);
        }
        self.uses += 1;
        let page = Page {
            entries,
            dirty,
            last_use: self.uses,
        };
        self.pages.insert(group, page);
        Ok(())
    }

    /// Writes a cached page that changed, and its record. Their order does not
    /// matter: one without the other is torn.
    pub(super) fn store(&mut self, group: u64) -> Result<(), TreeError> {
        let page = &self.pages[&group];
        let bytes = layout::encode_page(&page.entries);
        self.marks[index(group)] = group_mark(&page.entries);
        self.write_at(&bytes, self.layout.page(group))?;
        self.store_record(group)?;
        if self.record(group).is_blank() {
            self.set_state(group, GroupState::Blank);
        }
        self.pages.get_mut(&group).expect("it was just read").dirty = false;
        Ok(())
    }

    /// Writes what changed in the cache, so that all marks are known.
    pub(super) fn store_all(&mut self) -> Result<(), TreeError> {
        let mut dirty: Vec<u64> = self
            .pages
            .iter()
            .filter(|(_, page)| page.dirty)
            .map(|(group, _)| *group)
            .collect();
        dirty.sort_unstable();
        dirty.into_iter().try_for_each(|group| self.store(group))
    }

    /// Writes the record of a group whose page, if it has one, is written.
    pub(super) fn store_record(&self, group: u64) -> Result<(), TreeError> {
        let record = self.record(group).encode(group);
        self.write_at(&record, self.layout.record(group))
    }

    fn record(&self, group: u64) -> Record {
        Record {
            node: self.nodes[index(group)],
            mark: self.marks[index(group)],
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), TreeError> {
        let read = self.file.read_exact_at(bytes, offset);
        read.map_err(|source| self.io_failed("read", offset, source))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), TreeError> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|source| self.io_failed("write", offset, source))
    }

    fn io_failed(&self, doing: &'static str, offset: u64, source: io::Error) -> TreeError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => TreeError::Full { path },
            _ => TreeError::Io {
                path,
                doing,
                offset,
                source,
            },
        }
    }
}
