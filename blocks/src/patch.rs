//! Patches: a run of blocks of which only some pieces travel, to be put over
//! what lies in their place, and checked as a whole before anything is written.
//!
//! Not here: the bytes in place, reading and writing them, decompressing.

use std::ops::Range;

use crate::extent::{BadExtent, CheckedExtent, Extent, check_extent};
use crate::geometry::{BlockIndex, Geometry, PIECE_SIZE};
use crate::hash::Leaf;
use crate::piece::PieceSet;

/// A patch that lies in the volume: which pieces of which blocks, and the leaf of
/// each of these blocks once it is patched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    geometry: Geometry,
    first: BlockIndex,
    leaves: Vec<Leaf>,
    pieces: Vec<PieceSet>,
    /// The bytes that travel, by their offsets in the volume, neighbours joined.
    ranges: Vec<Range<u64>>,
}

impl Patch {
    /// A patch of as many blocks as there are leaves, with a set of pieces for
    /// each.
    ///
    /// # Errors
    /// When its blocks are none, too many or outside the volume; and when a set
    /// is missing, empty or reaches beyond its block's end.
    pub fn new(
        geometry: Geometry,
        first: BlockIndex,
        leaves: Vec<Leaf>,
        pieces: Vec<PieceSet>,
    ) -> Result<Self, BadExtent> {
        let extent = Extent::Data { first, leaves };
        extent.check_bounds(geometry)?;
        let Extent::Data { leaves, .. } = extent else {
            unreachable!("made above as data");
        };
        if pieces.len() != leaves.len() {
            return Err(BadExtent::Pieces { block: first });
        }
        let mut ranges = Vec::new();
        for (block, set) in (first.0..).map(BlockIndex).zip(&pieces) {
            if !set.is_within(geometry.block_pieces(block)) {
                return Err(BadExtent::Pieces { block });
            }
            add_ranges(geometry, block, *set, &mut ranges);
        }
        Ok(Self {
            geometry,
            first,
            leaves,
            pieces,
            ranges,
        })
    }

    /// Its first block.
    pub fn first(&self) -> BlockIndex {
        self.first
    }

    /// The leaf of each of its blocks once it is patched.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// The pieces of each of its blocks that travel.
    pub fn pieces(&self) -> &[PieceSet] {
        &self.pieces
    }

    /// The bytes of all its blocks, by their offsets in the volume: what has to
    /// be read before it can be applied.
    pub fn place(&self) -> Range<u64> {
        let blocks = self.leaves.len() as u64;
        self.geometry.run_range(self.first, blocks)
    }

    /// The bytes it changes, by their offsets in the volume, in ascending order
    /// and with neighbours joined: what has to be written, and no more.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// The bytes of its payload, known before it is decompressed.
    pub fn payload_len(&self) -> usize {
        // At most those of an extent, which fit.
        let bytes: u64 = self
            .ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum();
        bytes as usize
    }

    /// The payload, from the bytes of all its blocks.
    ///
    /// # Panics
    /// When `blocks` has not the length of [`Patch::place`].
    pub fn gather(&self, blocks: &[u8]) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.payload_len());
        for range in self.within(blocks.len()) {
            payload.extend_from_slice(&blocks[range]);
        }
        payload
    }

    /// Puts a decoded payload over the bytes in place, and checks every block:
    /// nothing may be written before this says so. `blocks` are then those of
    /// the patched blocks; where it fails they are worth nothing.
    ///
    /// # Errors
    /// When the payload has another length, and when a block does not hash to
    /// its leaf after it.
    ///
    /// # Panics
    /// When `blocks` has not the length of [`Patch::place`].
    pub fn apply(&self, payload: &[u8], blocks: &mut [u8]) -> Result<CheckedExtent, BadExtent> {
        let (bytes, expected) = (payload.len() as u64, self.payload_len() as u64);
        if bytes != expected {
            let first = self.first;
            return Err(BadExtent::Length {
                first,
                bytes,
                expected,
            });
        }
        let mut rest = payload;
        for range in self.within(blocks.len()) {
            let (piece, others) = rest.split_at(range.len());
            blocks[range].copy_from_slice(piece);
            rest = others;
        }
        check_extent(self.geometry, self.first, self.leaves.clone(), blocks)
    }

    /// The ranges as they lie in the bytes of its blocks.
    fn within(&self, len: usize) -> impl Iterator<Item = Range<usize>> {
        let place = self.place();
        assert_eq!(
            len as u64,
            place.end - place.start,
            "a patch at {} is put over the bytes of its blocks",
            self.first
        );
        let ranges = self.ranges.iter();
        ranges.map(move |range| {
            (range.start - place.start) as usize..(range.end - place.start) as usize
        })
    }
}

fn add_ranges(geometry: Geometry, block: BlockIndex, set: PieceSet, ranges: &mut Vec<Range<u64>>) {
    let within = geometry.block_range(block);
    for piece in (0..geometry.block_pieces(block)).filter(|piece| set.contains(*piece)) {
        let start = within.start + (piece * PIECE_SIZE) as u64;
        let end = (start + PIECE_SIZE as u64).min(within.end);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
}

#[cfg(test)]
mod tests;
