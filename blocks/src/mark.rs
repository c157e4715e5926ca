//! Marks: what two ends of a transfer compare instead of the BLAKE3 root of
//! the bytes. A root needs the hash of every block of zeros, since the place is
//! part of each; a mark is made of what a stored tree holds anyway, where a
//! block of zeros is an entry of zeros, whatever its place. So a region that
//! nobody ever wrote costs nothing at either end.
//!
//! Two trees of one volume with the same mark have the same entries, and so the
//! same bytes. Two trees of the same bytes have the same mark when both have
//! [`ZERO_ENTRY`] for every block of zeros, which all that this program stores
//! has.
//!
//! ```text
//! mark of a group   zeros if all its entries are zero, else
//!                   BLAKE3, key derived from GROUP, of its entries, 32 bytes each
//! mark of a tree    BLAKE3, key derived from TREE, of the length (u64, little
//!                   endian) and the mark of each group, 32 bytes each
//! ```
//!
//! Each has a context of its own by BLAKE3's key derivation, so that neither is
//! ever the other, a root, or the hash of something else (the BLAKE3 paper,
//! section 6.2).
//!
//! Not here: roots, which are what people and proofs are given (see `tree`).

use blake3::Hasher;

use crate::geometry::{GROUP_BLOCKS, Geometry};
use crate::hash::{Leaf, Mark};

/// What a stored tree holds for a block of zeros. No block has this leaf: that
/// would be a preimage of a BLAKE3 chaining value.
pub const ZERO_ENTRY: Leaf = Leaf([0; 32]);

/// The mark of a group whose blocks are all zero.
pub const BLANK_MARK: Mark = Mark([0; 32]);

const GROUP: &str = "dunlin 2026 mark of a group v1";
const TREE: &str = "dunlin 2026 mark of a tree v1";

/// Marks hashed at once: as many chunks as the widest processor hashes side by
/// side.
const HASHED_AT_ONCE: usize = 512;

/// The mark of a group from all its entries in order: about 3 µs.
pub fn group_mark(entries: &[Leaf]) -> Mark {
    if entries.iter().all(|entry| *entry == ZERO_ENTRY) {
        return BLANK_MARK;
    }
    let mut bytes = Vec::with_capacity(GROUP_BLOCKS as usize * 32);
    for entry in entries {
        bytes.extend_from_slice(&entry.0);
    }
    let mut hasher = Hasher::new_derive_key(GROUP);
    Mark(*hasher.update(&bytes).finalize().as_bytes())
}

/// The mark of a tree from the marks of all its groups in order: about 1 ms
/// for a TiB.
///
/// # Panics
/// When there are not exactly as many marks as the volume has groups.
pub fn tree_mark(geometry: Geometry, marks: impl IntoIterator<Item = Mark>) -> Mark {
    let mut builder = MarkBuilder::new(geometry);
    for mark in marks {
        builder.push(mark);
    }
    builder
        .finish()
        .expect("the caller passes one mark for each group")
}

/// Computes the mark of a tree from marks that come in pages.
#[derive(Debug, Clone)]
pub struct MarkBuilder {
    groups: u64,
    pushed: u64,
    /// Boxed, since it is far larger than all else in a session.
    hasher: Box<Hasher>,
    /// Marks not yet hashed.
    waiting: Vec<u8>,
}

impl MarkBuilder {
    /// Nothing pushed yet.
    pub fn new(geometry: Geometry) -> Self {
        let mut hasher = Hasher::new_derive_key(TREE);
        hasher.update(&geometry.length().to_le_bytes());
        Self {
            groups: geometry.groups(),
            pushed: 0,
            hasher: Box::new(hasher),
            waiting: Vec::with_capacity(HASHED_AT_ONCE * 32),
        }
    }

    /// Adds the mark of the next group.
    pub fn push(&mut self, mark: Mark) {
        self.waiting.extend_from_slice(&mark.0);
        self.pushed += 1;
        if self.waiting.len() >= HASHED_AT_ONCE * 32 {
            self.hasher.update(&self.waiting);
            self.waiting.clear();
        }
    }

    /// How many marks were pushed.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// The mark of the tree, or none unless every group was pushed exactly
    /// once.
    pub fn finish(mut self) -> Option<Mark> {
        if self.pushed != self.groups {
            return None;
        }
        self.hasher.update(&self.waiting);
        Some(Mark(*self.hasher.finalize().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn geometry(groups: u64) -> Geometry {
        Geometry::new(groups * GROUP_BLOCKS * 65536).unwrap()
    }

    fn concat(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn marks_are_these_hashes() {
        let entries = [Leaf([7; 32]), ZERO_ENTRY];
        let bytes = concat(&[&[7; 32], &[0; 32]]);
        let group = Mark(blake3::derive_key("dunlin 2026 mark of a group v1", &bytes));
        assert_eq!(group_mark(&entries), group);
        let geometry = geometry(2);
        let bytes = concat(&[&geometry.length().to_le_bytes(), &group.0, &[0; 32]]);
        let tree = Mark(blake3::derive_key("dunlin 2026 mark of a tree v1", &bytes));
        assert_eq!(tree_mark(geometry, [group, BLANK_MARK]), tree);
    }

    #[test]
    fn a_group_of_zeros_has_the_blank_mark_however_many_blocks_it_has() {
        for blocks in [1, 3, 256] {
            assert_eq!(group_mark(&vec![ZERO_ENTRY; blocks]), BLANK_MARK);
        }
    }

    #[test]
    fn trees_of_zeros_differ_by_their_length() {
        let zeros = |geometry: Geometry| {
            let groups = geometry.groups() as usize;
            tree_mark(geometry, vec![BLANK_MARK; groups])
        };
        let shorter = Geometry::new(geometry(3).length() - 1).unwrap();
        assert_eq!(shorter.groups(), 3);
        assert_ne!(zeros(geometry(3)), zeros(shorter));
    }

    #[test]
    fn marks_that_come_in_pages_make_what_a_single_hash_makes() {
        let groups = 2 * HASHED_AT_ONCE as u64 + 77;
        let geometry = geometry(groups);
        let marks: Vec<Mark> = (0..groups).map(|at| Mark([at as u8; 32])).collect();
        let mut bytes = geometry.length().to_le_bytes().to_vec();
        marks
            .iter()
            .for_each(|mark| bytes.extend_from_slice(&mark.0));
        let whole = Mark(blake3::derive_key(TREE, &bytes));
        assert_eq!(tree_mark(geometry, marks), whole);
    }

    #[test]
    fn a_builder_with_too_few_or_too_many_marks_has_none() {
        let mut builder = MarkBuilder::new(geometry(3));
        for pushed in 0..5 {
            assert_eq!(builder.pushed(), pushed);
            assert_eq!(builder.clone().finish().is_some(), pushed == 3);
            builder.push(BLANK_MARK);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn one_entry_that_differs_makes_another_mark_and_so_do_two_that_change_places(
            entries in prop::collection::vec(any::<u8>(), 1..=256),
            at in any::<prop::sample::Index>(),
            byte in 0..32usize,
        ) {
            let entries: Vec<Leaf> = entries.into_iter().map(|byte| Leaf([byte; 32])).collect();
            let mark = group_mark(&entries);
            let at = at.index(entries.len());
            let mut other = entries.clone();
            other[at].0[byte] ^= 1;
            prop_assert_ne!(group_mark(&other), mark);
            let mut turned = entries.clone();
            turned.swap(0, at);
            prop_assert_eq!(group_mark(&turned) == mark, turned == entries);
        }
    }
}
