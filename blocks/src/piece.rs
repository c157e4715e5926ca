//! The pieces of a block: their hashes, by which two ends find those that
//! differ, and sets of them.
//!
//! Not here: how a patch is made of them and checked (see `patch`).

use std::fmt;

use blake3::Hasher;
use serde::{Deserialize, Serialize};

use crate::geometry::PIECE_SIZE;

/// Its own by BLAKE3's key derivation, so that the hash of a piece is never a
/// leaf, a mark or anything else.
const PIECE: &str = "dunlin 2026 hash of a piece v1";

/// Stands for the bytes of one piece, whatever its place: BLAKE3, cut to as much
/// as still cannot be met by chance or on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PieceHash(pub [u8; 16]);

impl fmt::Debug for PieceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PieceHash(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

/// The hashes of a block's pieces in order: about 23 µs for 64 KiB, twice what
/// its leaf costs, since a piece fills a wide processor only by a quarter.
pub fn piece_hashes(block: &[u8]) -> Vec<PieceHash> {
    let mut hasher = Hasher::new_derive_key(PIECE);
    let hashes = block.chunks(PIECE_SIZE).map(|piece| {
        let hash = hasher.reset().update(piece).finalize();
        let (cut, _) = hash
            .as_bytes()
            .split_first_chunk()
            .expect("a hash of BLAKE3 has 32 bytes");
        PieceHash(*cut)
    });
    hashes.collect()
}

/// Some pieces of one block: bit 0 is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PieceSet(pub u16);

impl PieceSet {
    /// The pieces at which the two differ. What one of them has beyond the
    /// other's end counts as another.
    pub fn differing(ours: &[PieceHash], theirs: &[PieceHash]) -> Self {
        let pieces = ours.len().max(theirs.len());
        let differing = (0..pieces).filter(|at| ours.get(*at) != theirs.get(*at));
        Self(differing.fold(0, |set, at| set | 1u16.checked_shl(at as u32).unwrap_or(0)))
    }

    /// How many.
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether this piece is among them.
    pub fn contains(self, piece: usize) -> bool {
        piece < u16::BITS as usize && self.0 >> piece & 1 == 1
    }

    /// Whether it is at least one, and all are in a block of so many pieces.
    pub fn is_within(self, pieces: usize) -> bool {
        let used = (u16::BITS - self.0.leading_zeros()) as usize;
        self.0 != 0 && used <= pieces
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::geometry::{BLOCK_PIECES, BLOCK_SIZE};

    #[test]
    fn piece_hashes_are_these_hashes_and_do_not_depend_on_the_place() {
        let mut block: Vec<u8> = (0..BLOCK_SIZE).map(|at| (at >> 12) as u8).collect();
        block[5 * PIECE_SIZE..6 * PIECE_SIZE].fill(9);
        let hashes = piece_hashes(&block);
        assert_eq!(hashes.len(), BLOCK_PIECES);
        for (hash, piece) in hashes.iter().zip(block.chunks(PIECE_SIZE)) {
            let whole = blake3::derive_key("dunlin 2026 hash of a piece v1", piece);
            assert_eq!(hash.0, whole[..16]);
        }
        assert_eq!(hashes[5], hashes[9]);
        assert_eq!(piece_hashes(&block[..PIECE_SIZE + 1]).len(), 2);
        assert!(piece_hashes(&[]).is_empty());
    }

    #[test]
    fn what_differs_is_found_piece_by_piece_and_what_one_has_more_differs() {
        let hash = |byte: u8| PieceHash([byte; 16]);
        let ours: Vec<PieceHash> = (0..16).map(hash).collect();
        let mut theirs = ours.clone();
        assert_eq!(PieceSet::differing(&ours, &theirs), PieceSet(0));
        theirs[0] = hash(99);
        theirs[15] = hash(99);
        let differing = PieceSet::differing(&ours, &theirs);
        assert_eq!(differing, PieceSet(0x8001));
        assert_eq!(differing.count(), 2);
        let contained: Vec<usize> = (0..99).filter(|at| differing.contains(*at)).collect();
        assert_eq!(contained, [0, 15]);
        assert_eq!(PieceSet::differing(&ours, &ours[..14]), PieceSet(0xc000));
        assert_eq!(PieceSet::differing(&[], &ours[..1]), PieceSet(1));
        // Total, though no block has as many.
        let many = [ours.clone(), ours].concat();
        assert_eq!(PieceSet::differing(&many, &many[..17]), PieceSet(0));
    }

    #[test]
    fn a_set_within_a_block_has_a_piece_and_none_beyond_its_end() {
        assert!(!PieceSet(0).is_within(16));
        assert!(PieceSet(1).is_within(1) && !PieceSet(2).is_within(1));
        assert!(PieceSet(0x8000).is_within(16) && !PieceSet(0x8000).is_within(15));
        assert!(!PieceSet(1).is_within(0));
    }
}
