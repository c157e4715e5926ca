//! What the frames of a session stated about blocks, to hold every write
//! against: nothing is written that no frame gave the hash of.

use std::collections::{BTreeSet, HashMap};

use blocks::{Geometry, Leaf, ToTarget};

/// See the module's page.
#[derive(Debug, Default)]
pub struct Stated {
    leaves: HashMap<u64, Vec<Leaf>>,
    zeros: BTreeSet<u64>,
}

impl Stated {
    /// Takes a frame as it came, whatever becomes of it.
    pub fn hear(&mut self, geometry: Geometry, frame: &ToTarget) {
        match frame {
            ToTarget::Extent { first, leaves, .. }
            | ToTarget::Offer { first, leaves, .. }
            | ToTarget::Patch { first, leaves, .. } => {
                for (at, leaf) in (0..).zip(leaves) {
                    let block = first.0.saturating_add(at);
                    self.leaves.entry(block).or_default().push(*leaf);
                }
            }
            ToTarget::Zero { first, count } => {
                let end = first.0.saturating_add(u64::from(*count));
                self.zeros.extend(first.0..end.min(geometry.blocks()));
            }
            _ => {}
        }
    }

    /// Holds a write of a block against what was stated.
    pub fn check_write(&self, block: u64, written: Leaf, is_zero: bool) {
        let is_zeroed = is_zero && self.zeros.contains(&block);
        let mut leaves = self.leaves.get(&block).into_iter().flatten();
        assert!(
            is_zeroed || leaves.any(|stated| *stated == written),
            "block {block} is written with what no frame stated"
        );
    }
}
