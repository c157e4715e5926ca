//! The hash tree of one volume, stored on disk: every block's leaf, one mark and
//! one node for each group, the root on demand. Memory stays bounded: marks and
//! nodes, and a small cache of groups' leaves.
//!
//! It does not know which leaves are right. Its caller sets only those of
//! blocks that are durable at the other end (a source) or on the disk below
//! (a target), and settles what a crash left torn.
//!
//! A zero block is stored as [`ZERO_ENTRY`], not as its leaf, so that the tree of
//! an untouched volume is a file of holes. Marks are made of entries, and cost
//! zeros nothing. The leaf of a zero block differs from place to place, and is
//! computed for nodes and root alone: by those who ask for them, or before by
//! [`TreeFile::warm`].

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use blocks::{
    BlockIndex, GROUP_BLOCKS, Geometry, GroupIndex, Leaf, Mark, Node, Root, ZERO_ENTRY, root,
    tree_mark,
};

mod error;
mod layout;
mod nodes;
mod open;
mod pages;

use crate::locked::LockedFile;
pub use error::{OpenTreeError, TreeError};
use layout::Layout;
use pages::Page;

/// Groups whose nodes are computed before they are stored and the next ones are
/// begun: enough for all cores, and a kill loses at most a second or two of that
/// work.
pub const ROOT_BATCH: usize = 512;

/// A node not computed since the group last changed.
const UNKNOWN: Node = Node([0; 32]);

/// Names the volume a tree belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VolumeTag(pub [u8; 16]);

/// The stored tree of one volume, open in one process.
#[derive(Debug)]
pub struct TreeFile {
    path: PathBuf,
    file: LockedFile,
    geometry: Geometry,
    layout: Layout,
    /// One for each group; [`UNKNOWN`] until computed.
    nodes: Vec<Node>,
    /// The nodes of all groups below this one are known.
    first_unknown: u64,
    /// One for each group; that of a page that changed is made when it is stored.
    marks: Vec<Mark>,
    /// One for each group.
    states: Vec<GroupState>,
    pages: HashMap<u64, Page>,
    uses: u64,
    poisoned: Option<String>,
}

/// What is known of a group's stored leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GroupState {
    /// All entries are zero.
    Blank,
    /// The page holds them and its record says which bytes are right.
    Stored,
    /// Page and record do not belong together.
    Torn,
}

impl TreeFile {
    /// The cut of the volume.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whether every block of the volume is a zero block.
    pub fn is_blank(&self) -> bool {
        self.states.iter().all(|state| *state == GroupState::Blank)
    }

    /// Whether every block of the group is a zero block, as far as is known
    /// without reading.
    pub fn is_blank_group(&self, group: GroupIndex) -> bool {
        let state = usize::try_from(group.0)
            .ok()
            .and_then(|g| self.states.get(g));
        state == Some(&GroupState::Blank)
    }

    /// The groups found torn so far: on opening, or when they were used.
    pub fn torn_groups(&self) -> Vec<GroupIndex> {
        let states = self.states.iter().zip(0..);
        states
            .filter(|(state, _)| **state == GroupState::Torn)
            .map(|(_, group)| GroupIndex(group))
            .collect()
    }

    /// Reads the stored leaves of every group and gives those that are torn:
    /// half a second a TiB, worth it after a crash.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn check(&mut self) -> Result<Vec<GroupIndex>, TreeError> {
        for group in 0..self.geometry.groups() {
            if self.state(group) != GroupState::Stored {
                continue;
            }
            match self.page(group) {
                Ok(_) | Err(TreeError::Torn { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.torn_groups())
    }

    /// The stored entries of a group, one for each of its blocks, with
    /// [`ZERO_ENTRY`] for zero blocks.
    ///
    /// # Errors
    /// When the group is torn or cannot be read.
    pub fn entries(&mut self, group: GroupIndex) -> Result<&[Leaf], TreeError> {
        self.admit(group)?;
        Ok(&self.page(group.0)?.entries)
    }

    /// Whether the block is stored as zero.
    ///
    /// # Errors
    /// As for [`Self::entries`].
    pub fn is_zero_entry(&mut self, block: BlockIndex) -> Result<bool, TreeError> {
        let entries = self.entries(block.group())?;
        // A block past the end of a partial last group is no zero block.
        Ok(entries.get(slot(block)) == Some(&ZERO_ENTRY))
    }

    /// Sets the leaf of one block.
    ///
    /// # Errors
    /// As for [`Self::entries`], or when a page pushed out of the cache cannot
    /// be written.
    pub fn set(&mut self, block: BlockIndex, leaf: Leaf) -> Result<(), TreeError> {
        self.set_run(block, &[leaf])
    }

    /// Sets the leaves of a run of blocks.
    ///
    /// # Errors
    /// As for [`Self::set`]; a run may then be set in part.
    pub fn set_run(&mut self, first: BlockIndex, leaves: &[Leaf]) -> Result<(), TreeError> {
        self.put(first, leaves.len() as u64, |i| leaves[i])
    }

    /// Marks one block as zero.
    ///
    /// # Errors
    /// As for [`Self::set`].
    pub fn set_zero(&mut self, block: BlockIndex) -> Result<(), TreeError> {
        self.set_zero_run(block, 1)
    }

    /// Marks a run of blocks as zero. Groups that are blank cost nothing.
    ///
    /// # Errors
    /// As for [`Self::set_run`].
    pub fn set_zero_run(&mut self, first: BlockIndex, count: u64) -> Result<(), TreeError> {
        self.put(first, count, |_| ZERO_ENTRY)
    }

    /// Replaces all entries of a group, whatever was stored: this is how a torn
    /// group is settled.
    ///
    /// # Errors
    /// When there are not as many entries as the group has blocks, or a page
    /// pushed out of the cache cannot be written.
    pub fn replace(&mut self, group: GroupIndex, entries: &[Leaf]) -> Result<(), TreeError> {
        self.admit(group)?;
        let blocks = self.geometry.group_blocks(group);
        if entries.len() as u64 != blocks.end - blocks.start {
            return Err(TreeError::WrongCount {
                group,
                have: entries.len(),
            });
        }
        self.insert(group.0, entries.to_vec(), true)?;
        self.set_state(group.0, GroupState::Stored);
        self.forget_node(group.0);
        Ok(())
    }

    /// The marks of `count` groups from `first` on.
    ///
    /// # Errors
    /// When not all groups are in the volume, one of the volume's is torn, or
    /// what changed cannot be written.
    pub fn marks(&mut self, first: GroupIndex, count: u64) -> Result<Vec<Mark>, TreeError> {
        let end = first.0.checked_add(count);
        let Some(end) = end.filter(|end| *end <= self.geometry.groups()) else {
            return Err(TreeError::Outside { group: first });
        };
        self.settle_marks()?;
        Ok(self.marks[index(first.0)..index(end)].to_vec())
    }

    /// The mark of the tree: about 1 ms for a TiB.
    ///
    /// # Errors
    /// As for [`Self::marks`].
    pub fn mark(&mut self) -> Result<Mark, TreeError> {
        self.settle_marks()?;
        Ok(tree_mark(self.geometry, self.marks.iter().copied()))
    }

    /// The root of the volume. Nodes that are not known are computed first and
    /// stored: for each group of zeros 4 ms, on each core.
    ///
    /// # Errors
    /// When a group is torn, or cannot be read or written.
    pub fn root(&mut self) -> Result<Root, TreeError> {
        self.check_whole()?;
        while self.warm(ROOT_BATCH)? {}
        Ok(root(self.geometry, self.nodes.iter().copied()))
    }

    /// Writes what is cached and makes everything durable. After a failure to
    /// make it durable the tree stays failed and has to be opened again.
    ///
    /// # Errors
    /// When it cannot be written, or this or an earlier sync failed.
    pub fn sync(&mut self) -> Result<(), TreeError> {
        self.sync_by(File::sync_data)
    }

    fn sync_by(&mut self, sync: impl FnOnce(&File) -> io::Result<()>) -> Result<(), TreeError> {
        self.check_sound()?;
        let _committing = crate::committing();
        self.store_all()?;
        sync(&self.file).map_err(|error| {
            self.poisoned = Some(error.to_string());
            self.sync_failed(error.to_string())
        })
    }

    fn put(
        &mut self,
        first: BlockIndex,
        count: u64,
        entry: impl Fn(usize) -> Leaf,
    ) -> Result<(), TreeError> {
        self.check_sound()?;
        if count == 0 {
            return Ok(());
        }
        if !self.geometry.contains_run(first, count) {
            return Err(TreeError::Outside {
                group: first.group(),
            });
        }
        let (mut block, end) = (first.0, first.0 + count);
        while block < end {
            let group = BlockIndex(block).group();
            let stop = self.geometry.group_blocks(group).end.min(end);
            let entries = (block..stop).map(|at| entry((at - first.0) as usize));
            if !(self.is_blank_group(group) && entries.clone().all(|entry| entry == ZERO_ENTRY)) {
                self.put_in_group(group, slot(BlockIndex(block)), entries)?;
            }
            block = stop;
        }
        Ok(())
    }

    fn put_in_group(
        &mut self,
        group: GroupIndex,
        start: usize,
        entries: impl Iterator<Item = Leaf>,
    ) -> Result<(), TreeError> {
        let page = self.page(group.0)?;
        let mut changed = false;
        for (stored, entry) in page.entries[start..].iter_mut().zip(entries) {
            changed |= *stored != entry;
            *stored = entry;
        }
        page.dirty |= changed;
        if changed {
            self.set_state(group.0, GroupState::Stored);
            self.forget_node(group.0);
        }
        Ok(())
    }

    /// Makes all marks known.
    fn settle_marks(&mut self) -> Result<(), TreeError> {
        self.check_sound()?;
        self.check_whole()?;
        self.store_all()
    }

    fn check_whole(&self) -> Result<(), TreeError> {
        let torn = |state: &GroupState| *state == GroupState::Torn;
        match self.states.iter().position(torn) {
            Some(group) => Err(self.torn(group as u64)),
            None => Ok(()),
        }
    }

    fn admit(&self, group: GroupIndex) -> Result<(), TreeError> {
        match self.geometry.contains_group(group) {
            true => Ok(()),
            false => Err(TreeError::Outside { group }),
        }
    }

    fn check_sound(&self) -> Result<(), TreeError> {
        match &self.poisoned {
            Some(why) => Err(self.sync_failed(why.clone())),
            None => Ok(()),
        }
    }

    fn sync_failed(&self, why: String) -> TreeError {
        TreeError::SyncFailed {
            path: self.path.clone(),
            why,
        }
    }

    fn torn(&self, group: u64) -> TreeError {
        TreeError::Torn {
            path: self.path.clone(),
            group: GroupIndex(group),
        }
    }

    fn state(&self, group: u64) -> GroupState {
        self.states[index(group)]
    }

    fn set_state(&mut self, group: u64, state: GroupState) {
        self.states[index(group)] = state;
    }
}

fn slot(block: BlockIndex) -> usize {
    // Below 256.
    (block.0 % GROUP_BLOCKS) as usize
}

fn index(group: u64) -> usize {
    usize::try_from(group).expect("the groups of a volume are counted in memory")
}

#[cfg(test)]
mod tests;
