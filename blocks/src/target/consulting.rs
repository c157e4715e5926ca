//! An offer while the shell looks for what the target holds of it.
//!
//! Not here: writing what it finds, which goes the way of all checked extents.

use crate::extent::Extent;
use crate::geometry::{BlockIndex, Geometry};
use crate::hash::Leaf;
use crate::offer::{Held, held_fits};

/// What was offered, and which of it was made.
#[derive(Debug)]
pub(super) struct Consulting {
    first: BlockIndex,
    leaves: Vec<Leaf>,
    is_made: Vec<bool>,
}

impl Consulting {
    pub(super) fn new(first: BlockIndex, leaves: Vec<Leaf>) -> Self {
        let is_made = vec![false; leaves.len()];
        Self {
            first,
            leaves,
            is_made,
        }
    }

    /// Takes blocks that were made; false unless they are blocks of the offer
    /// with the leaves offered, and were not made before.
    pub(super) fn make(&mut self, extent: &Extent) -> bool {
        let Extent::Data { first, leaves } = extent else {
            return false;
        };
        let Some(from) = first.0.checked_sub(self.first.0) else {
            return false;
        };
        let places = self.leaves.iter().zip(&mut self.is_made);
        let mut made = 0;
        for ((offered, is_made), leaf) in places.skip(from as usize).zip(leaves) {
            if *is_made || offered != leaf {
                return false;
            }
            *is_made = true;
            made += 1;
        }
        made == leaves.len()
    }

    /// Whether this answers the offer, and says to be made exactly what was.
    pub(super) fn is_answer(&self, geometry: Geometry, first: BlockIndex, held: &[Held]) -> bool {
        first == self.first
            && held_fits(geometry, first, self.leaves.len(), held)
            && held
                .iter()
                .zip(&self.is_made)
                .all(|(held, is_made)| (*held == Held::Made) == *is_made)
    }
}
