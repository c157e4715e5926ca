//! Nodes of groups, computed when they are needed or before: the hash of a block
//! of zeros depends on its place, so there is no shortcut but more cores and an
//! earlier start.
//!
//! Not here: what is above the nodes, and marks.

use std::num::NonZero;
use std::thread;

use blocks::{Geometry, GroupIndex, Leaf, Node, ZERO_ENTRY, group_node};

use super::{GroupState, TreeError, TreeFile, UNKNOWN, index};

/// More threads than this gain little beside the copying itself.
const MAX_THREADS: usize = 8;

/// Fewer groups than this are not worth a thread of their own: a small batch
/// stays on the caller's.
const GROUPS_A_THREAD: usize = 16;

/// A group and its entries.
type Group = (u64, Vec<Leaf>);

impl TreeFile {
    /// Computes the nodes of up to `groups` groups that are not known, stores
    /// them, and says whether more are left. With it, a caller that has nothing
    /// else to do spares whoever asks for the root. It costs up to 4 ms for each
    /// group, the more of its blocks are zero; few groups are done on the calling
    /// thread alone.
    ///
    /// # Errors
    /// When a group is torn, or cannot be read or written.
    pub fn warm(&mut self, groups: usize) -> Result<bool, TreeError> {
        self.check_sound()?;
        let mut batch: Vec<Group> = Vec::new();
        let mut group = self.first_unknown;
        while group < self.geometry.groups() {
            if self.nodes[index(group)] == UNKNOWN {
                if batch.len() >= groups {
                    break;
                }
                batch.push((group, self.copy_of(group)?));
            }
            group += 1;
        }
        self.keep_nodes(&batch)?;
        // Not before: what fails on the way is still to be computed.
        self.first_unknown = group;
        Ok(group < self.geometry.groups())
    }

    /// Its node is not known any more.
    pub(super) fn forget_node(&mut self, group: u64) {
        self.nodes[index(group)] = UNKNOWN;
        self.first_unknown = self.first_unknown.min(group);
    }

    fn copy_of(&mut self, group: u64) -> Result<Vec<Leaf>, TreeError> {
        if self.state(group) == GroupState::Blank {
            let blocks = self.geometry.group_blocks(GroupIndex(group));
            return Ok(vec![ZERO_ENTRY; (blocks.end - blocks.start) as usize]);
        }
        Ok(self.page(group)?.entries.clone())
    }

    fn keep_nodes(&mut self, batch: &[Group]) -> Result<(), TreeError> {
        for (group, node) in compute(self.geometry, batch) {
            self.nodes[index(group)] = node;
            // With a page that is not stored yet the record goes later.
            if !self.pages.get(&group).is_some_and(|page| page.dirty) {
                self.store_record(group)?;
            }
        }
        Ok(())
    }
}

fn compute(geometry: Geometry, batch: &[Group]) -> Vec<(u64, Node)> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = cores
        .min(MAX_THREADS)
        .min(batch.len() / GROUPS_A_THREAD)
        .max(1);
    let share = batch.len().div_ceil(threads).max(1);
    let compute = |batch: &[Group]| -> Vec<(u64, Node)> {
        let node = |(group, entries): &Group| {
            let node = group_node(geometry, GroupIndex(*group), entries);
            (*group, node)
        };
        batch.iter().map(node).collect()
    };
    if threads == 1 {
        return compute(batch);
    }
    thread::scope(|scope| {
        let running: Vec<_> = batch
            .chunks(share)
            .map(|share| scope.spawn(move || compute(share)))
            .collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join().expect("hashing does not panic"))
            .collect()
    })
}
