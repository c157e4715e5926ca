//! The hash tree of one volume, stored on disk: every block's leaf, one node
//! for each group, the root on demand. Memory stays bounded: the nodes, and a
//! small cache of groups' leaves.
//!
//! It does not know which leaves are right. Its caller sets only those of
//! blocks that are durable at the other end (a source) or on the disk below
//! (a target), and settles what a crash left torn.
//!
//! A zero block is stored as an all-zero entry, not as its leaf, so that the
//! tree of an untouched volume is a file of holes. The leaf of a zero block
//! differs from place to place and is computed when it is asked for.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use blocks::{
    BlockIndex, GROUP_BLOCKS, Geometry, GroupIndex, Leaf, Node, Root, group_node, root, zero_leaf,
};

mod error;
mod layout;
mod open;
mod pages;
mod zeros;

pub use error::{OpenTreeError, TreeError};
use layout::{Layout, Record};
use pages::Page;

/// What stands in [`TreeFile::entries`] for a block of zeros. No block has
/// this leaf: that would be a preimage of a BLAKE3 chaining value.
pub const ZERO_ENTRY: Leaf = Leaf([0; 32]);

/// Zero groups whose nodes are computed and stored before the next ones are
/// begun, so that a kill loses at most a few seconds of that work.
const ZERO_GROUPS_BATCH: usize = 512;

/// A node not computed since the group last changed.
const UNKNOWN: Node = Node([0; 32]);

/// Names the volume a tree belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VolumeTag(pub [u8; 16]);

/// The stored tree of one volume, open in one process.
#[derive(Debug)]
pub struct TreeFile {
    path: PathBuf,
    file: File,
    geometry: Geometry,
    layout: Layout,
    /// One for each group; [`UNKNOWN`] until computed.
    nodes: Vec<Node>,
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

    /// The leaves of a group. Costs up to 4 ms when its blocks are zero.
    ///
    /// # Errors
    /// As for [`Self::entries`].
    pub fn leaves(&mut self, group: GroupIndex) -> Result<Vec<Leaf>, TreeError> {
        let geometry = self.geometry;
        Ok(resolve(geometry, group, self.entries(group)?))
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

    /// Replaces all leaves of a group, whatever was stored: this is how a torn
    /// group is settled. Leaves that are those of zero blocks are stored as
    /// zero entries.
    ///
    /// # Errors
    /// When there are not as many leaves as the group has blocks, or a page
    /// pushed out of the cache cannot be written.
    pub fn replace(&mut self, group: GroupIndex, leaves: &[Leaf]) -> Result<(), TreeError> {
        self.admit(group)?;
        let blocks = self.geometry.group_blocks(group);
        if leaves.len() as u64 != blocks.end - blocks.start {
            return Err(TreeError::WrongCount {
                group,
                have: leaves.len(),
            });
        }
        let as_entry = |(leaf, block): (&Leaf, u64)| match *leaf {
            leaf if leaf == zero_leaf(self.geometry, BlockIndex(block)) => ZERO_ENTRY,
            leaf => leaf,
        };
        let entries: Vec<Leaf> = leaves.iter().zip(blocks).map(as_entry).collect();
        self.insert(group.0, entries, true)?;
        self.set_state(group.0, GroupState::Stored);
        self.nodes[index(group.0)] = UNKNOWN;
        Ok(())
    }

    /// The node of one group, computed and stored if it is not known.
    ///
    /// # Errors
    /// When the group is torn, or cannot be read or written.
    pub fn node(&mut self, group: GroupIndex) -> Result<Node, TreeError> {
        Ok(self.nodes(group, 1)?[0])
    }

    /// The nodes of `count` groups from `first` on.
    ///
    /// # Errors
    /// As for [`Self::node`], or when not all groups are in the volume.
    pub fn nodes(&mut self, first: GroupIndex, count: u64) -> Result<Vec<Node>, TreeError> {
        let end = first.0.checked_add(count);
        let Some(end) = end.filter(|end| *end <= self.geometry.groups()) else {
            return Err(TreeError::Outside { group: first });
        };
        self.compute_nodes(first.0..end)?;
        Ok(self.nodes[index(first.0)..index(end)].to_vec())
    }

    /// The root of the volume. Nodes that are not known are computed first and
    /// stored: 4 ms for each group that was blank ever since, on each core.
    ///
    /// # Errors
    /// As for [`Self::node`].
    pub fn root(&mut self) -> Result<Root, TreeError> {
        self.compute_nodes(0..self.geometry.groups())?;
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
        let mut dirty: Vec<u64> = self
            .pages
            .iter()
            .filter(|(_, page)| page.dirty)
            .map(|(group, _)| *group)
            .collect();
        dirty.sort_unstable();
        for group in dirty {
            self.store(group)?;
        }
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
            self.nodes[index(group.0)] = UNKNOWN;
        }
        Ok(())
    }

    fn compute_nodes(&mut self, groups: Range<u64>) -> Result<(), TreeError> {
        self.check_sound()?;
        let mut blank = Vec::new();
        for group in groups {
            match self.state(group) {
                GroupState::Torn => return Err(self.torn(group)),
                _ if self.nodes[index(group)] != UNKNOWN => {}
                GroupState::Blank => blank.push(group),
                GroupState::Stored => {
                    let geometry = self.geometry;
                    let group_index = GroupIndex(group);
                    let leaves = resolve(geometry, group_index, &self.page(group)?.entries);
                    self.nodes[index(group)] = group_node(geometry, group_index, &leaves);
                    self.store(group)?;
                }
            }
        }
        for batch in blank.chunks(ZERO_GROUPS_BATCH) {
            for (group, node) in zeros::nodes(self.geometry, batch) {
                self.nodes[index(group)] = node;
                self.store_record(group, Record::blank(node))?;
            }
        }
        Ok(())
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

/// Entries with the leaves of zero blocks in place of the zero entries.
pub(crate) fn resolve(geometry: Geometry, group: GroupIndex, entries: &[Leaf]) -> Vec<Leaf> {
    let blocks = geometry.group_blocks(group);
    let resolved = entries.iter().zip(blocks).map(|(entry, block)| {
        if *entry == ZERO_ENTRY {
            zero_leaf(geometry, BlockIndex(block))
        } else {
            *entry
        }
    });
    resolved.collect()
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
