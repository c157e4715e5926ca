//! Patches, one rule at a time.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::geometry::BLOCK_SIZE;
use crate::tree::leaf;

/// Three blocks, the last of which has two pieces and ten bytes.
fn geometry() -> Geometry {
    Geometry::new(2 * 65536 + 2 * 4096 + 10).unwrap()
}

fn disk(byte: u8) -> Vec<u8> {
    let bytes = (0..geometry().length()).map(|at| (at >> 8) as u8 ^ byte);
    bytes.collect()
}

fn leaves(first: u64, blocks: &[u8]) -> Vec<Leaf> {
    (first..)
        .zip(blocks.chunks(BLOCK_SIZE))
        .map(|(block, bytes)| leaf(geometry(), BlockIndex(block), bytes))
        .collect()
}

fn patch(first: u64, blocks: &[u8], pieces: &[u16]) -> Result<Patch, BadExtent> {
    let pieces = pieces.iter().copied().map(PieceSet).collect();
    let leaves = leaves(first, blocks);
    Patch::new(geometry(), BlockIndex(first), leaves, pieces)
}

/// The disk with some bytes changed.
fn changed(at: &[usize]) -> Vec<u8> {
    let mut disk = disk(0);
    at.iter().for_each(|at| disk[*at] ^= 0x55);
    disk
}

#[test]
fn a_patch_makes_of_what_is_in_place_what_its_leaves_say() {
    let new = changed(&[0, 4096, 65536 + 5 * 4096, 2 * 65536 + 8192 + 9]);
    let patch = patch(0, &new, &[0b11, 1 << 5, 1 << 2]).unwrap();
    assert_eq!(patch.place(), 0..geometry().length());
    let short = 2 * 65536 + 8192;
    assert_eq!(
        patch.ranges(),
        [0..8192, 86016..90112, short..geometry().length()]
    );
    assert_eq!(patch.payload_len(), 3 * 4096 + 10);
    let payload = patch.gather(&new);
    assert_eq!(payload.len(), patch.payload_len());

    let mut blocks = disk(0);
    let checked = patch.apply(&payload, &mut blocks).unwrap();
    assert_eq!(blocks, new);
    let (first, leaves) = (BlockIndex(0), leaves(0, &new));
    assert_eq!(checked.into_extent(), Extent::Data { first, leaves });
}

#[test]
fn pieces_that_follow_one_another_are_one_range_across_blocks_too() {
    let patch = patch(0, &disk(0), &[0x8000, 0x0001, 0b111]).unwrap();
    assert_eq!(patch.ranges(), [61440..69632, 131_072..geometry().length()]);
}

#[test]
fn a_patch_over_other_bytes_or_with_a_flipped_bit_is_refused() {
    let new = changed(&[0, 65536]);
    let patch = patch(0, &new[..2 * BLOCK_SIZE], &[1, 1]).unwrap();
    let payload = patch.gather(&new[..2 * BLOCK_SIZE]);
    let in_place = &disk(0)[..2 * BLOCK_SIZE];
    assert!(patch.apply(&payload, &mut in_place.to_vec()).is_ok());

    let mismatch = |block| {
        let block = BlockIndex(block);
        Err(BadExtent::Mismatch { block })
    };
    let mut other = in_place.to_vec();
    other[65536 + 4096] ^= 1;
    assert_eq!(patch.apply(&payload, &mut other), mismatch(1));
    let mut flipped = payload.clone();
    flipped[7] ^= 1;
    assert_eq!(patch.apply(&flipped, &mut in_place.to_vec()), mismatch(0));
}

#[test]
fn a_payload_of_another_length_is_refused_and_leaves_the_bytes_alone() {
    let new = changed(&[0]);
    let patch = patch(0, &new[..BLOCK_SIZE], &[1]).unwrap();
    for bytes in [0, 4095, 4097, 65536] {
        let mut in_place = disk(0)[..BLOCK_SIZE].to_vec();
        let (first, expected) = (BlockIndex(0), 4096);
        let length = BadExtent::Length {
            first,
            bytes,
            expected,
        };
        let payload = vec![1; bytes as usize];
        assert_eq!(patch.apply(&payload, &mut in_place), Err(length));
        assert_eq!(in_place, disk(0)[..BLOCK_SIZE]);
    }
}

#[test]
fn blocks_without_pieces_and_pieces_beyond_their_block_are_refused() {
    let bytes = disk(0);
    let refused = |first: u64, pieces: &[u16]| {
        let from = first as usize * BLOCK_SIZE;
        let until = (from + pieces.len() * BLOCK_SIZE).min(bytes.len());
        match patch(first, &bytes[from..until], pieces) {
            Err(BadExtent::Pieces { block }) => Some(block.0),
            Ok(_) => None,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(0, &[0xffff, 0xffff, 0b111]), None);
    assert_eq!(refused(0, &[0, 1]), Some(0));
    assert_eq!(refused(0, &[1, 0]), Some(1));
    assert_eq!(refused(2, &[0b1000]), Some(2));
    assert_eq!(refused(2, &[0b1001]), Some(2));
}

#[test]
fn a_patch_with_a_set_too_few_or_too_many_is_refused() {
    let (first, leaves) = (BlockIndex(0), leaves(0, &disk(0)[..2 * BLOCK_SIZE]));
    for sets in [0, 1, 3] {
        let pieces = vec![PieceSet(1); sets];
        let refused = Patch::new(geometry(), first, leaves.clone(), pieces);
        assert_eq!(refused, Err(BadExtent::Pieces { block: first }));
    }
}

#[test]
fn a_patch_outside_the_volume_or_of_too_many_blocks_is_refused() {
    let of = |first, blocks: usize| {
        let leaves = vec![Leaf([1; 32]); blocks];
        let pieces = vec![PieceSet(1); blocks];
        let geometry = Geometry::new(100 * 65536).unwrap();
        Patch::new(geometry, BlockIndex(first), leaves, pieces)
    };
    assert!(of(84, 16).is_ok());
    assert!(matches!(of(0, 0), Err(BadExtent::Count { .. })));
    assert!(matches!(of(0, 17), Err(BadExtent::Count { .. })));
    for first in [85, 100, u64::MAX] {
        assert!(matches!(of(first, 16), Err(BadExtent::OutOfVolume { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pieces_that_cover_what_changed_make_it_and_fewer_are_refused(
        sets in (1u16.., 1u16.., 1u16..8).prop_map(|(a, b, c)| [a, b, c]),
        masks in any::<[u16; 3]>(),
        stray in prop::option::of((0..3usize, 0..16usize)),
    ) {
        let mut changes = [0, 1, 2].map(|block| sets[block] & masks[block]);
        if let Some((block, piece)) = stray {
            changes[block] |= 1 << piece;
        }
        changes[2] &= 0b111;
        let bits = (0..3usize).flat_map(|block| (0..16).map(move |piece| (block, piece)));
        let at = bits.filter(|(block, piece)| PieceSet(changes[*block]).contains(*piece));
        let at: Vec<usize> = at
            .map(|(block, piece)| block * BLOCK_SIZE + piece * PIECE_SIZE)
            .collect();
        let new = changed(&at);
        let patch = patch(0, &new, &sets).unwrap();
        let mut blocks = disk(0);
        let made = patch.apply(&patch.gather(&new), &mut blocks);
        let covered = (0..3).all(|block| changes[block] & !sets[block] == 0);
        prop_assert_eq!(made.is_ok(), covered);
        prop_assert_eq!(blocks == new, covered);
    }
}
