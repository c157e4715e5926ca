//! Offers at the target: what is answered is what was done, and nothing comes in
//! between.

use super::*;
use crate::fingerprint::Fingerprint;
use crate::piece::{PieceHash, PieceSet};

fn data_of(checked: &CheckedExtent) -> (BlockIndex, Vec<Leaf>) {
    match checked.extent() {
        Extent::Data { first, leaves } => (*first, leaves.clone()),
        extent => panic!("{extent:?}"),
    }
}

/// An offer of three blocks from 300 on, of which each can be made honestly.
fn offer() -> ToTarget {
    let leaves = (300..303).flat_map(|block| data_of(&checked(block)).1);
    ToTarget::Offer {
        first: BlockIndex(300),
        leaves: leaves.collect(),
        fingerprints: vec![Fingerprint(1), Fingerprint(2), Fingerprint(3)],
    }
}

fn consulting() -> Target {
    let mut target = passing();
    let ToTarget::Offer {
        first,
        leaves,
        fingerprints,
    } = offer()
    else {
        unreachable!()
    };
    assert_eq!(
        step(&mut target, frame(offer())),
        [Output::Consult {
            first,
            leaves,
            fingerprints
        }]
    );
    target
}

fn consulted(first: u64, held: &[Held]) -> Input {
    Input::Consulted {
        first: BlockIndex(first),
        held: held.to_vec(),
    }
}

fn pieces(count: usize) -> Held {
    Held::Pieces(vec![PieceHash([3; 16]); count])
}

fn is_own_fault(out: &[Output]) -> bool {
    refused(out) == RefusalCode::StorageFailed
        && matches!(
            out.last(),
            Some(Output::Fail(TargetError::OutOfTurn { .. }))
        )
}

#[test]
fn what_is_made_is_noted_and_written_like_any_extent_before_the_answer() {
    let mut target = consulting();
    let out = step(&mut target, Input::ExtentChecked(checked(301)));
    let (first, count) = (BlockIndex(301), 1);
    assert!(
        matches!(&out[..], [Output::NoteRegions { barrier: 5, .. }, write]
            if *write == Output::Write { first, count }),
        "{out:?}"
    );
    step(&mut target, Input::ExtentChecked(checked(300)));
    let held = [Held::Made, Held::Made, pieces(16)];
    let (first, held) = (BlockIndex(300), held.to_vec());
    assert_eq!(
        step(&mut target, consulted(300, &held)),
        [Output::Send(ToSource::Answer { first, held })]
    );
    let extents = [301, 300].map(|block| checked(block).into_extent());
    assert_eq!(
        step(&mut target, barrier(5)),
        [Output::Flush {
            barrier: 5,
            extents: extents.to_vec()
        }]
    );
}

#[test]
fn an_offer_outside_a_pass_or_the_volume_is_refused() {
    let out = step(&mut serving(), frame(offer()));
    assert_eq!(refused(&out), RefusalCode::BadFrame);
    let blocks = geometry().blocks();
    for (first, count) in [(blocks, 1), (blocks - 1, 2), (u64::MAX, 1), (0, 0), (0, 17)] {
        let offer = ToTarget::Offer {
            first: BlockIndex(first),
            leaves: vec![Leaf([1; 32]); count],
            fingerprints: vec![],
        };
        let out = step(&mut passing(), frame(offer));
        assert_eq!(refused(&out), RefusalCode::BadFrame);
        assert_eq!(out.len(), 2, "{out:?}");
    }
}

#[test]
fn a_shell_that_says_made_what_it_did_not_hand_in_or_the_other_way_round_is_stopped() {
    let (made, nothing) = (Held::Made, Held::Nothing);
    for (handed_in, held) in [
        (vec![], vec![made.clone(), nothing.clone(), nothing.clone()]),
        (
            vec![301],
            vec![made.clone(), nothing.clone(), nothing.clone()],
        ),
        (
            vec![301],
            vec![nothing.clone(), pieces(16), nothing.clone()],
        ),
        (
            vec![300, 301],
            vec![made.clone(), nothing.clone(), nothing.clone()],
        ),
    ] {
        let mut target = consulting();
        for block in handed_in {
            step(&mut target, Input::ExtentChecked(checked(block)));
        }
        let out = step(&mut target, consulted(300, &held));
        assert!(is_own_fault(&out), "{held:?}");
    }
}

#[test]
fn a_shell_that_answers_another_offer_or_with_pieces_that_no_block_has_is_stopped() {
    let nothing = Held::Nothing;
    for (first, held) in [
        (301, vec![nothing.clone(); 3]),
        (300, vec![nothing.clone(); 2]),
        (300, vec![nothing.clone(); 4]),
        (300, vec![]),
        (300, vec![pieces(15), nothing.clone(), nothing.clone()]),
    ] {
        let out = step(&mut consulting(), consulted(first, &held));
        assert!(is_own_fault(&out), "{held:?}");
    }
    let mut target = consulting();
    step(&mut target, consulted(300, &vec![nothing.clone(); 3]));
    let out = step(&mut target, consulted(300, &vec![nothing; 3]));
    assert!(is_own_fault(&out));
}

#[test]
fn a_shell_that_makes_what_was_not_offered_is_stopped_before_it_is_written() {
    let (first, mut two) = data_of(&checked(302));
    let data = [vec![302u64 as u8 | 1; 65536], vec![303u64 as u8 | 1; 65536]].concat();
    two.extend(data_of(&checked(303)).1);
    let beyond = check_extent(geometry(), first, two, &data).unwrap();
    let data = vec![77; 65536];
    let leaves = vec![leaf(geometry(), BlockIndex(301), &data)];
    let other = check_extent(geometry(), BlockIndex(301), leaves, &data).unwrap();
    let zeros = crate::extent::check_zero(geometry(), BlockIndex(301), 1).unwrap();
    for extent in [checked(299), checked(303), checked(0), beyond, other, zeros] {
        let out = step(&mut consulting(), Input::ExtentChecked(extent));
        assert!(is_own_fault(&out), "{out:?}");
        assert!(out.iter().all(|o| !matches!(o, Output::Write { .. })));
    }
    // Nor twice.
    let mut target = consulting();
    step(&mut target, Input::ExtentChecked(checked(301)));
    let out = step(&mut target, Input::ExtentChecked(checked(301)));
    assert!(is_own_fault(&out));
}

#[test]
fn a_frame_while_consulting_is_the_shells_fault_and_voids_what_is_not_durable() {
    for input in [
        frame(offer()),
        frame(ToTarget::Close),
        zero(0, 1),
        barrier(5),
        Input::ExtentRefused(BadExtent::Undecodable {
            first: BlockIndex(300),
        }),
    ] {
        let mut target = consulting();
        step(&mut target, Input::ExtentChecked(checked(301)));
        let out = step(&mut target, input);
        assert!(is_own_fault(&out), "{out:?}");
        assert_eq!(out.len(), 2, "nothing is settled: {out:?}");
    }
}

#[test]
fn a_lost_stream_a_refusal_and_failed_storage_are_heard_while_consulting() {
    let reason = CloseReason::Lost;
    let code = RefusalCode::Paused;
    for (input, settles) in [
        (Input::Closed(reason), true),
        (Input::Refuse(code), true),
        (Input::StorageFailed { full: true }, false),
    ] {
        let mut target = consulting();
        step(&mut target, Input::ExtentChecked(checked(301)));
        let out = step(&mut target, input);
        assert!(target.is_over());
        assert_eq!(matches!(out[0], Output::Settle { .. }), settles, "{out:?}");
        assert!(!matches!(
            out.last(),
            Some(Output::Fail(TargetError::OutOfTurn { .. }))
        ));
    }
}

#[test]
fn a_barrier_from_before_the_offer_is_acknowledged_while_consulting() {
    let mut target = passing();
    for input in [zero(0, 1), barrier(5), frame(offer())] {
        step(&mut target, input);
    }
    let (barrier, mark) = (5, OTHER_MARK);
    assert_eq!(
        step(&mut target, Input::Flushed { barrier, mark }),
        [Output::Send(ToSource::Durable { barrier, mark })]
    );
    assert_eq!(target.stage(), "consulting");
}

#[test]
fn what_is_made_without_end_is_bounded_like_all_that_waits_for_a_barrier() {
    let mut target = passing();
    for _ in 0..MAX_PENDING / 16 {
        step(&mut target, zero(0, 4096));
    }
    step(&mut target, frame(offer()));
    let out = step(&mut target, Input::ExtentChecked(checked(301)));
    assert_eq!(refused(&out), RefusalCode::BadFrame);
}

#[test]
fn a_patch_that_was_not_checked_is_never_written() {
    let out = step(
        &mut passing(),
        frame(ToTarget::Patch {
            first: BlockIndex(0),
            encoding: Encoding::Raw,
            leaves: vec![Leaf([0; 32])],
            pieces: vec![PieceSet(1)],
        }),
    );
    assert!(is_own_fault(&out));
}

#[test]
fn a_target_that_keeps_an_index_says_so() {
    let mut target = Target::new(geometry(), 4, MARK).with_references();
    let (barrier, mark, references) = (4, MARK, true);
    assert_eq!(
        step(&mut target, open(geometry().length())),
        [Output::Send(ToSource::Opened {
            barrier,
            mark,
            references
        })]
    );
}
