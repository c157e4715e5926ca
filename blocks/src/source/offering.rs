//! Offers that wait for their answers, and what of them the target made.
//!
//! Not here: the pass that they are part of.

use std::collections::VecDeque;

use crate::extent::{Extent, MAX_EXTENT_BLOCKS};
use crate::geometry::BlockIndex;
use crate::hash::Leaf;
use crate::offer::{Held, MAX_OPEN_BLOCKS};

/// Offers in the order in which they were sent, which is that of their answers.
#[derive(Debug, Default)]
pub(super) struct OpenOffers {
    offers: VecDeque<Offer>,
    blocks: u64,
}

/// One offer.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) first: BlockIndex,
    pub(super) leaves: Vec<Leaf>,
    /// How many barriers of the pass were sent before it: what is made of it is
    /// made durable by the one after these.
    pub(super) under: u64,
}

impl OpenOffers {
    pub(super) fn is_empty(&self) -> bool {
        self.offers.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.blocks + u64::from(MAX_EXTENT_BLOCKS) <= MAX_OPEN_BLOCKS
    }

    /// The oldest one's barrier, as in [`Offer::under`].
    pub(super) fn oldest_under(&self) -> Option<u64> {
        self.offers.front().map(|offer| offer.under)
    }

    /// The newest one's barrier.
    pub(super) fn newest_under(&self) -> Option<u64> {
        self.offers.back().map(|offer| offer.under)
    }

    /// Whether some of these blocks wait for an answer.
    pub(super) fn touch(&self, extent: &Extent) -> bool {
        let (first, end) = (extent.first().0, extent.first().0 + extent.count());
        self.offers.iter().any(|offer| {
            let offered = offer.first.0..offer.first.0 + offer.leaves.len() as u64;
            first < offered.end && offered.start < end
        })
    }

    pub(super) fn push(&mut self, offer: Offer) {
        self.blocks += offer.leaves.len() as u64;
        self.offers.push_back(offer);
    }

    pub(super) fn take_oldest(&mut self) -> Option<Offer> {
        let offer = self.offers.pop_front()?;
        self.blocks -= offer.leaves.len() as u64;
        Some(offer)
    }
}

impl Offer {
    /// The blocks that were made, as extents of neighbours.
    pub(super) fn made(&self, held: &[Held]) -> Vec<Extent> {
        let mut made: Vec<Extent> = Vec::new();
        let blocks = (self.first.0..).map(BlockIndex).zip(&self.leaves);
        for ((block, leaf), _) in blocks.zip(held).filter(|(_, held)| **held == Held::Made) {
            match made.last_mut() {
                Some(Extent::Data { first, leaves })
                    if first.0 + leaves.len() as u64 == block.0 =>
                {
                    leaves.push(*leaf);
                }
                _ => made.push(Extent::Data {
                    first: block,
                    leaves: vec![*leaf],
                }),
            }
        }
        made
    }
}
