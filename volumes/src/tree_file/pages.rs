//! The cache of groups' leaves, and their way to the disk and back. It decides
//! nothing about what the leaves should be.

use std::io;
use std::os::unix::fs::FileExt;

use blocks::{GroupIndex, Leaf};

use super::layout::{self, PAGE_LEN, RECORD_LEN, Record};
use super::{GroupState, TreeError, TreeFile, ZERO_ENTRY, index};

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
        let matches =
            Record::decode(group, &record).is_some_and(|record| record.matches(group, &bytes));
        if !matches {
            self.set_state(group, GroupState::Torn);
            return Err(self.torn(group));
        }
        let blocks = self.geometry.group_blocks(GroupIndex(group));
        Ok(layout::decode_page(&bytes, blocks.end - blocks.start))
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

    /// Writes a cached page and its record. Their order does not matter: one
    /// without the other is torn.
    pub(super) fn store(&mut self, group: u64) -> Result<(), TreeError> {
        let page = &self.pages[&group];
        let bytes = layout::encode_page(&page.entries);
        let node = self.nodes[index(group)];
        let blank = page.entries.iter().all(|entry| *entry == ZERO_ENTRY);
        if page.dirty {
            self.write_at(&bytes, self.layout.page(group))?;
        }
        let record = match blank {
            true => Record::blank(node),
            false => Record::stored(group, node, &bytes),
        };
        self.store_record(group, record)?;
        if blank {
            self.set_state(group, GroupState::Blank);
        }
        self.pages.get_mut(&group).expect("it was just read").dirty = false;
        Ok(())
    }

    pub(super) fn store_record(&self, group: u64, record: Record) -> Result<(), TreeError> {
        self.write_at(&record.encode(group), self.layout.record(group))
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
