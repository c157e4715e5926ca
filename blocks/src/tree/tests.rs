//! The tree against `blake3::hash`, at every boundary.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::geometry::GROUP_BLOCKS;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// Bytes that differ everywhere, so that a misplaced block shows.
fn content(length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    blake3::Hasher::new()
        .update(&length.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn leaves(geometry: Geometry, bytes: &[u8]) -> Vec<Leaf> {
    bytes
        .chunks(BLOCK_SIZE)
        .zip(0..)
        .map(|(data, block)| leaf(geometry, BlockIndex(block), data))
        .collect()
}

fn nodes(geometry: Geometry, leaves: &[Leaf]) -> Vec<Node> {
    leaves
        .chunks(GROUP_BLOCKS as usize)
        .zip(0..)
        .map(|(leaves, group)| group_node(geometry, GroupIndex(group), leaves))
        .collect()
}

fn hash(bytes: &[u8]) -> Root {
    Root(*blake3::hash(bytes).as_bytes())
}

fn assert_root_is_the_hash(length: u64) {
    let geometry = Geometry::new(length).unwrap();
    let bytes = content(length);
    let nodes = nodes(geometry, &leaves(geometry, &bytes));
    assert_eq!(root(geometry, nodes), hash(&bytes), "length {length}");
}

#[test]
fn the_root_is_the_blake3_hash_at_every_boundary_of_chunks_and_blocks() {
    for length in [
        1, 2, 63, 64, 65, 1023, 1024, 1025, 2047, 2048, 2049, 65535, 65536, 65537,
    ] {
        assert_root_is_the_hash(length);
    }
    for blocks in 2..=20 {
        for length in [
            blocks * BLOCK - 1,
            blocks * BLOCK,
            blocks * BLOCK + 1,
            blocks * BLOCK + 1025,
        ] {
            assert_root_is_the_hash(length);
        }
    }
}

#[test]
fn the_root_is_the_blake3_hash_at_every_boundary_of_groups() {
    for blocks in [31, 32, 33, 127, 129, 255, 256, 257, 511, 512, 513, 600] {
        for length in [
            blocks * BLOCK - 70_000,
            blocks * BLOCK - 1,
            blocks * BLOCK,
            blocks * BLOCK + 1,
        ] {
            assert_root_is_the_hash(length);
        }
    }
}

#[test]
fn the_root_is_the_blake3_hash_for_three_to_nine_groups() {
    for groups in 3..=9 {
        assert_root_is_the_hash(groups * GROUP_BLOCKS * BLOCK - 3 * BLOCK);
        assert_root_is_the_hash(groups * GROUP_BLOCKS * BLOCK);
    }
}

#[test]
fn zero_leaves_and_nodes_are_those_of_zero_bytes() {
    for length in [1, BLOCK, 300 * BLOCK + 9] {
        let geometry = Geometry::new(length).unwrap();
        let bytes = vec![0; length as usize];
        let leaves = leaves(geometry, &bytes);
        let zero: Vec<Leaf> = (0..geometry.blocks())
            .map(|block| zero_leaf(geometry, BlockIndex(block)))
            .collect();
        assert_eq!(leaves, zero);
        let entries = vec![ZERO_ENTRY; zero.len()];
        assert_eq!(root(geometry, nodes(geometry, &entries)), hash(&bytes));
    }
}

#[test]
fn a_node_of_blocks_and_zeros_is_that_of_their_bytes() {
    let geometry = Geometry::new(300 * BLOCK + 9).unwrap();
    let mut bytes = content(geometry.length());
    let mut entries = leaves(geometry, &bytes);
    for block in [0, 7, 8, 255, 256, 300] {
        let range = geometry.block_range(BlockIndex(block));
        bytes[range.start as usize..range.end as usize].fill(0);
        entries[block as usize] = ZERO_ENTRY;
    }
    assert_eq!(root(geometry, nodes(geometry, &entries)), hash(&bytes));
}

#[test]
fn equal_blocks_at_different_places_have_different_leaves() {
    let geometry = Geometry::new(2 * BLOCK).unwrap();
    assert_ne!(
        zero_leaf(geometry, BlockIndex(0)),
        zero_leaf(geometry, BlockIndex(1))
    );
}

#[test]
fn a_builder_with_too_few_or_too_many_nodes_has_no_root() {
    let geometry = Geometry::new(3 * GROUP_BLOCKS * BLOCK).unwrap();
    let mut builder = RootBuilder::new(geometry);
    for pushed in 0..5 {
        assert_eq!(builder.pushed(), pushed);
        assert_eq!(builder.clone().finish().is_some(), pushed == 3);
        builder.push(Node([0; 32]));
    }
}

#[test]
fn one_set_byte_anywhere_is_not_zero() {
    let mut bytes = vec![0; 2 * ZERO_PIECE + 7];
    assert!(is_zero(&bytes));
    assert!(is_zero(&[]));
    for place in 0..bytes.len() {
        bytes[place] = 1;
        assert!(!is_zero(&bytes), "byte {place}");
        bytes[place] = 0;
    }
}

#[test]
#[should_panic(expected = "block 1 has 1 bytes, not 2")]
fn a_leaf_of_the_wrong_length_is_our_own_fault() {
    leaf(Geometry::new(65537).unwrap(), BlockIndex(1), &[0, 0]);
}

#[test]
#[should_panic(expected = "block 2 has 0 bytes, not 0")]
fn a_leaf_outside_the_volume_is_our_own_fault() {
    leaf(Geometry::new(65537).unwrap(), BlockIndex(2), &[]);
}

#[test]
#[should_panic(expected = "group 0 has 2 blocks, not 1")]
fn a_node_of_too_few_leaves_is_our_own_fault() {
    group_node(
        Geometry::new(65537).unwrap(),
        GroupIndex(0),
        &[Leaf([0; 32])],
    );
}

#[test]
#[should_panic(expected = "group 1 has 0 blocks, not 0")]
fn a_node_outside_the_volume_is_our_own_fault() {
    group_node(Geometry::new(65537).unwrap(), GroupIndex(1), &[]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changing_blocks_costs_their_leaves_and_nodes_only(
        blocks in 1..600u64,
        tail in 1..=BLOCK,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let length = (blocks - 1) * BLOCK + tail;
        let geometry = Geometry::new(length).unwrap();
        let mut bytes = content(length);
        let mut leaves = leaves(geometry, &bytes);
        let mut nodes = nodes(geometry, &leaves);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
            let block = BlockIndex(place as u64 / BLOCK);
            let range = geometry.block_range(block);
            let data = &bytes[range.start as usize..range.end as usize];
            leaves[block.0 as usize] = leaf(geometry, block, data);
            let group = geometry.group_blocks(block.group());
            nodes[block.group().0 as usize] =
                group_node(geometry, block.group(), &leaves[group.start as usize..group.end as usize]);
        }
        prop_assert_eq!(root(geometry, nodes), hash(&bytes));
    }
}
