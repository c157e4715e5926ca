//! Offers: before a source sends the bytes of blocks that differ, it may ask what
//! the target holds of them. Three things come of it: the target makes a block of
//! bytes that it holds somewhere (a *reference*, found by its fingerprint and
//! checked against the leaf), it says by hashes which pieces it has in the
//! block's place, so that the rest travels as a *patch*, or it wants all of it.
//!
//! Not here: who may offer when (see `source` and `target`), and where a target
//! looks for content.

mod gauge;

use std::mem;

use serde::{Deserialize, Serialize};

pub use self::gauge::OfferGauge;

use crate::geometry::{BLOCK_SIZE, BlockIndex, Geometry, PIECE_SIZE};
use crate::hash::Leaf;
use crate::patch::Patch;
use crate::piece::{PieceHash, PieceSet, piece_hashes};

/// Blocks offered and not yet answered at most: 16 MiB, which fills a link of
/// 1 Gbit/s with a round trip of 100 ms, and is what a source keeps in memory
/// until it knows what of it to send.
pub const MAX_OPEN_BLOCKS: u64 = 256;

/// What a target holds of a block that was offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// All of it: the block is written, from bytes that hash to the leaf offered.
    Made,
    /// Something else: the hashes of the pieces of what is in the block's place.
    Pieces(Vec<PieceHash>),
    /// Nothing of use.
    Nothing,
}

/// Whether an answer has one item for each of so many blocks, and hashes for all
/// pieces of a block where it has some.
pub(crate) fn held_fits(
    geometry: Geometry,
    first: BlockIndex,
    blocks: usize,
    held: &[Held],
) -> bool {
    let indexes = (first.0..).map(BlockIndex);
    held.len() == blocks
        && indexes.zip(held).all(|(block, held)| match held {
            Held::Pieces(hashes) => hashes.len() == geometry.block_pieces(block),
            Held::Made | Held::Nothing => true,
        })
}

/// What is to be sent for a part of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parcel {
    /// All bytes of these blocks.
    Whole {
        /// The first block.
        first: BlockIndex,
        /// One leaf for each block.
        leaves: Vec<Leaf>,
    },
    /// Some pieces of these blocks.
    Patch(Patch),
}

/// What is left to be sent once an offer is answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remainder {
    /// In ascending order; none if the target made all of it.
    pub parcels: Vec<Parcel>,
    /// Bytes that need not be sent, before any compression.
    pub saved_bytes: u64,
}

/// What to send for an offer of as many blocks as there are leaves and answers,
/// whose bytes are `data`. A block of which no piece or every piece seems to
/// differ is sent whole: the first can only be an accident, and is mended so.
///
/// # Panics
/// When `data` has not the length of these blocks.
pub fn remainder(
    geometry: Geometry,
    first: BlockIndex,
    leaves: &[Leaf],
    held: &[Held],
    data: &[u8],
) -> Remainder {
    let place = geometry.run_range(first, leaves.len() as u64);
    assert_eq!(
        data.len() as u64,
        place.end - place.start,
        "an offer at {first} is answered for the bytes of its blocks"
    );
    let mut remainder = Remainder::default();
    let mut run = Run::new(geometry);
    let blocks = (first.0..).map(BlockIndex).zip(leaves);
    for ((block, leaf), (held, bytes)) in blocks.zip(held.iter().zip(data.chunks(BLOCK_SIZE))) {
        let pieces = match held {
            Held::Made => {
                remainder.saved_bytes += bytes.len() as u64;
                remainder.parcels.extend(run.take());
                continue;
            }
            Held::Pieces(theirs) => differing(bytes, theirs),
            Held::Nothing => None,
        };
        if let Some(pieces) = pieces {
            remainder.saved_bytes += bytes.len() as u64 - patched_bytes(bytes, pieces);
        }
        if run.pieces.is_some() != pieces.is_some() {
            remainder.parcels.extend(run.take());
        }
        run.push(block, *leaf, pieces);
    }
    remainder.parcels.extend(run.take());
    remainder
}

/// The pieces to be sent of a block, where it is not better sent whole.
fn differing(bytes: &[u8], theirs: &[PieceHash]) -> Option<PieceSet> {
    let ours = piece_hashes(bytes);
    let pieces = PieceSet::differing(&ours, theirs);
    (pieces.is_within(ours.len()) && pieces.count() < ours.len()).then_some(pieces)
}

fn patched_bytes(bytes: &[u8], pieces: PieceSet) -> u64 {
    let chunks = bytes.chunks(PIECE_SIZE).enumerate();
    let sent = chunks.filter(|(piece, _)| pieces.contains(*piece));
    sent.map(|(_, bytes)| bytes.len() as u64).sum()
}

/// Neighbouring blocks that are sent in the same way.
struct Run {
    geometry: Geometry,
    first: BlockIndex,
    leaves: Vec<Leaf>,
    pieces: Option<Vec<PieceSet>>,
}

impl Run {
    fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            first: BlockIndex(0),
            leaves: Vec::new(),
            pieces: None,
        }
    }

    fn push(&mut self, block: BlockIndex, leaf: Leaf, pieces: Option<PieceSet>) {
        if self.leaves.is_empty() {
            self.first = block;
        }
        self.leaves.push(leaf);
        if let Some(pieces) = pieces {
            self.pieces.get_or_insert_default().push(pieces);
        }
    }

    fn take(&mut self) -> Option<Parcel> {
        let (first, leaves) = (self.first, mem::take(&mut self.leaves));
        let pieces = self.pieces.take();
        if leaves.is_empty() {
            return None;
        }
        Some(match pieces {
            None => Parcel::Whole { first, leaves },
            Some(pieces) => Parcel::Patch(
                Patch::new(self.geometry, first, leaves, pieces)
                    .expect("these are some pieces of blocks that were offered"),
            ),
        })
    }
}

#[cfg(test)]
mod tests;
