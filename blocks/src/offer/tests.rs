//! What is left to be sent of an offer.

#![allow(clippy::unwrap_used)]

use super::*;

/// Five blocks, the last of which has one piece of ten bytes.
fn geometry() -> Geometry {
    Geometry::new(4 * 65536 + 10).unwrap()
}

fn data() -> Vec<u8> {
    (0..geometry().length()).map(|at| (at >> 8) as u8).collect()
}

fn leaves(blocks: u8) -> Vec<Leaf> {
    (0..blocks).map(|block| Leaf([block; 32])).collect()
}

/// The hashes of a block after changes in these pieces.
fn pieces(block: usize, changed: &[usize]) -> Held {
    let data = data();
    let mut bytes = data.chunks(BLOCK_SIZE).nth(block).unwrap().to_vec();
    changed
        .iter()
        .for_each(|piece| bytes[piece * PIECE_SIZE] ^= 1);
    Held::Pieces(piece_hashes(&bytes))
}

fn left(held: &[Held]) -> Remainder {
    let leaves = leaves(held.len() as u8);
    let place = geometry().run_range(BlockIndex(0), held.len() as u64);
    let data = &data()[..place.end as usize];
    remainder(geometry(), BlockIndex(0), &leaves, held, data)
}

fn whole(first: u64, blocks: u64) -> Parcel {
    let leaves = leaves(5)[first as usize..(first + blocks) as usize].to_vec();
    let first = BlockIndex(first);
    Parcel::Whole { first, leaves }
}

fn patch(first: u64, sets: &[u16]) -> Parcel {
    let Parcel::Whole { first, leaves } = whole(first, sets.len() as u64) else {
        unreachable!()
    };
    let sets = sets.iter().copied().map(PieceSet).collect();
    Parcel::Patch(Patch::new(geometry(), first, leaves, sets).unwrap())
}

#[test]
fn what_was_made_is_not_sent_and_of_the_rest_only_what_differs() {
    let remainder = left(&[
        Held::Made,
        pieces(1, &[0, 15]),
        pieces(2, &[3]),
        Held::Nothing,
        Held::Made,
    ]);
    let parcels = [patch(1, &[0x8001, 8]), whole(3, 1)];
    assert_eq!(remainder.parcels, parcels);
    assert_eq!(remainder.saved_bytes, 65536 + 14 * 4096 + 15 * 4096 + 10);
}

#[test]
fn neighbours_that_are_sent_alike_are_one_parcel_and_what_was_made_parts_them() {
    let nothing = || Held::Nothing;
    let remainder = left(&[nothing(), nothing(), Held::Made, nothing(), nothing()]);
    assert_eq!(remainder.parcels, [whole(0, 2), whole(3, 2)]);
    let some = |block| pieces(block, &[1]);
    let remainder = left(&[some(0), Held::Made, some(2), some(3), nothing()]);
    let parcels = [patch(0, &[2]), patch(2, &[2, 2]), whole(4, 1)];
    assert_eq!(remainder.parcels, parcels);
}

#[test]
fn a_block_of_which_all_or_none_differs_is_sent_whole() {
    let all: Vec<usize> = (0..16).collect();
    let remainder = left(&[pieces(0, &all), pieces(1, &[])]);
    assert_eq!(remainder.parcels, [whole(0, 2)]);
    assert_eq!(remainder.saved_bytes, 0);
}

#[test]
fn of_what_was_made_in_full_nothing_is_left() {
    let made = vec![Held::Made; 5];
    let remainder = left(&made);
    assert!(remainder.parcels.is_empty());
    assert_eq!(remainder.saved_bytes, geometry().length());
}

#[test]
fn an_answer_fits_when_it_is_one_for_each_block_with_hashes_for_all_its_pieces() {
    let fits = |held: &[Held]| held_fits(geometry(), BlockIndex(3), 2, held);
    let hashes = |pieces| Held::Pieces(vec![PieceHash([1; 16]); pieces]);
    assert!(fits(&[Held::Made, Held::Nothing]));
    assert!(fits(&[hashes(16), hashes(1)]));
    assert!(!fits(&[Held::Made]));
    assert!(!fits(&[Held::Made, Held::Made, Held::Made]));
    assert!(!fits(&[hashes(15), hashes(1)]));
    assert!(!fits(&[hashes(16), hashes(2)]));
    assert!(!fits(&[hashes(16), hashes(0)]));
}
