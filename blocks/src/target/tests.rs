//! The target's session, one rule at a time.

#![allow(clippy::unwrap_used)]

mod offers;
mod turns;

use proptest::prelude::*;

use super::*;
use crate::extent::check_extent;
use crate::frame::Encoding;
use crate::geometry::GROUP_BLOCKS;
use crate::hash::Leaf;
use crate::tree::leaf;

const MARK: Mark = Mark([1; 32]);
const OTHER_MARK: Mark = Mark([5; 32]);
const ROOT: Root = Root([2; 32]);
const OTHER: Root = Root([3; 32]);

fn geometry() -> Geometry {
    Geometry::new(200 * GROUP_BLOCKS * 65536).unwrap()
}

fn step(target: &mut Target, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    target.step(input, &mut out);
    out
}

fn open(length: u64) -> Input {
    Input::Received(ToTarget::Open {
        ticket: vec![],
        length,
        barrier: 0,
        mark: MARK,
    })
}

fn serving() -> Target {
    let mut target = Target::new(geometry(), 4, MARK);
    assert_eq!(
        step(&mut target, open(geometry().length())),
        [Output::Send(ToSource::Opened {
            barrier: 4,
            mark: MARK,
            references: false,
        })]
    );
    target
}

fn passing() -> Target {
    let mut target = serving();
    assert_eq!(
        step(&mut target, frame(ToTarget::BeginPass { pass: 3 })),
        [Output::PassBegun { pass: 3 }]
    );
    target
}

fn frame(frame: ToTarget) -> Input {
    Input::Received(frame)
}

fn zero(first: u64, count: u32) -> Input {
    frame(ToTarget::Zero {
        first: BlockIndex(first),
        count,
    })
}

fn barrier(barrier: u64) -> Input {
    frame(ToTarget::Barrier { barrier })
}

fn zeros(first: u64, count: u32) -> Extent {
    Extent::Zero {
        first: BlockIndex(first),
        count,
    }
}

/// An extent of one block, honestly checked.
fn checked(first: u64) -> CheckedExtent {
    let first = BlockIndex(first);
    let data = vec![first.0 as u8 | 1; geometry().block_len(first)];
    let leaves = vec![leaf(geometry(), first, &data)];
    check_extent(geometry(), first, leaves, &data).unwrap()
}

fn refused(out: &[Output]) -> RefusalCode {
    match out {
        [
            ..,
            Output::Send(ToSource::Refused { code }),
            Output::Fail(_),
        ] => *code,
        out => panic!("not refused: {out:?}"),
    }
}

fn notes(out: &[Output]) -> Vec<u64> {
    match out {
        [Output::NoteRegions { groups, .. }, ..] => groups.iter().map(|group| group.0).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_source_of_another_length_is_refused() {
    let mut target = Target::new(geometry(), 0, MARK);
    let out = step(&mut target, open(geometry().length() - 1));
    assert_eq!(refused(&out), RefusalCode::SizeMismatch);
    assert!(target.is_over());
}

#[test]
fn nothing_but_open_is_heard_before_open() {
    for input in [
        frame(ToTarget::AskLeaves {
            group: GroupIndex(0),
        }),
        frame(ToTarget::BeginPass { pass: 1 }),
        zero(0, 1),
        Input::ExtentChecked(checked(0)),
        barrier(5),
    ] {
        let mut target = Target::new(geometry(), 4, MARK);
        assert_eq!(refused(&step(&mut target, input)), RefusalCode::BadFrame);
    }
}

#[test]
fn nothing_is_written_before_a_pass_begins() {
    for input in [zero(0, 1), Input::ExtentChecked(checked(0)), barrier(5)] {
        let out = step(&mut serving(), input);
        assert_eq!(refused(&out), RefusalCode::BadFrame);
        assert_eq!(out.len(), 2, "{out:?}");
    }
}

#[test]
fn questions_are_answered_within_the_volume_only() {
    let ask = |first, count| {
        let first = GroupIndex(first);
        step(&mut serving(), frame(ToTarget::AskGroups { first, count }))
    };
    let (first, count) = (GroupIndex(100), 100);
    assert_eq!(ask(100, 100), [Output::SendGroups { first, count }]);
    for (first, count) in [(100, 101), (200, 1), (0, 0), (u64::MAX, 2), (0, 1025)] {
        assert_eq!(refused(&ask(first, count)), RefusalCode::BadFrame);
    }
    let leaves = |group| {
        let group = GroupIndex(group);
        step(&mut serving(), frame(ToTarget::AskLeaves { group }))
    };
    let group = GroupIndex(199);
    assert_eq!(leaves(199), [Output::SendLeaves { group }]);
    assert_eq!(refused(&leaves(200)), RefusalCode::BadFrame);
}

#[test]
fn regions_are_noted_before_the_write_and_once_for_each_barrier() {
    let mut target = passing();
    let extent = checked(300);
    let (first, count) = (BlockIndex(300), 1);
    let groups = vec![GroupIndex(1)];
    let write = Output::Write { first, count };
    assert_eq!(
        step(&mut target, Input::ExtentChecked(extent.clone())),
        [
            Output::NoteRegions {
                barrier: 5,
                groups: groups.clone()
            },
            write.clone()
        ]
    );
    assert_eq!(
        step(&mut target, Input::ExtentChecked(extent.clone())),
        std::slice::from_ref(&write)
    );
    let extents = vec![extent.extent().clone(), extent.extent().clone()];
    assert_eq!(
        step(&mut target, barrier(5)),
        [Output::Flush {
            barrier: 5,
            extents
        }]
    );
    // The flush of barrier 5 is still running: the same group again is noted
    // for barrier 6.
    assert_eq!(
        step(&mut target, Input::ExtentChecked(extent)),
        [Output::NoteRegions { barrier: 6, groups }, write]
    );
}

#[test]
fn an_extent_over_two_groups_notes_both() {
    let out = step(&mut passing(), zero(GROUP_BLOCKS * 7 - 1, 2));
    assert_eq!(notes(&out), [6, 7]);
}

#[test]
fn notes_run_ahead_of_writes_in_order_and_only_of_those() {
    let mut target = passing();
    let mut noted = Vec::new();
    for group in 0..200 {
        let out = step(&mut target, zero(group * GROUP_BLOCKS, 1));
        noted.extend(Some(notes(&out).len()).filter(|len| *len > 0));
    }
    assert_eq!(noted[..5], [2, 3, 5, 9, 17]);
    assert_eq!(noted.iter().sum::<usize>(), 200);
    assert!(noted.iter().all(|len| *len <= 17), "{noted:?}");
    assert!(noted.len() < 18, "{noted:?}");

    let mut target = passing();
    for group in [50, 10, 90, 30] {
        let out = step(&mut target, zero(group * GROUP_BLOCKS, 1));
        assert_eq!(notes(&out), [group]);
    }

    // What is noted already is not noted again on the way.
    let mut target = passing();
    for (group, ahead) in [(4, vec![4]), (0, vec![0]), (1, vec![1, 2]), (3, vec![3, 5])] {
        let out = step(&mut target, zero(group * GROUP_BLOCKS, 1));
        assert_eq!(notes(&out), ahead);
    }
}

#[test]
fn a_barrier_is_acknowledged_when_it_is_flushed_and_not_before() {
    let mut target = passing();
    step(&mut target, zero(0, 1));
    let extents = vec![zeros(0, 1)];
    assert_eq!(
        step(&mut target, barrier(5)),
        [Output::Flush {
            barrier: 5,
            extents
        }]
    );
    assert_eq!(target.durable(), (4, MARK));
    let (barrier, mark) = (5, Mark([5; 32]));
    assert_eq!(
        step(&mut target, Input::Flushed { barrier, mark }),
        [Output::Send(ToSource::Durable { barrier, mark })]
    );
    assert_eq!(target.durable(), (5, mark));
}

#[test]
fn a_barrier_covers_what_came_since_the_one_before_and_makes_room() {
    let mut target = passing();
    for number in [5, 6] {
        for _ in 0..MAX_PENDING / 16 {
            step(&mut target, zero(number, 4096));
        }
        let out = step(&mut target, barrier(number));
        let [Output::Flush { extents, .. }] = &out[..] else {
            panic!("{out:?}");
        };
        assert_eq!(extents.len() as u64, MAX_PENDING / 16);
        assert!(extents.iter().all(|extent| extent.first().0 == number));
    }
}

#[test]
fn barriers_rise_by_one_and_at_most_two_wait() {
    for got in [0, 4, 6, u64::MAX] {
        let mut target = passing();
        let out = step(&mut target, barrier(got));
        assert_eq!(refused(&out), RefusalCode::BadFrame);
    }
    let mut target = passing();
    for number in [5, 6] {
        assert!(matches!(
            step(&mut target, barrier(number))[..],
            [Output::Flush { .. }]
        ));
    }
    assert_eq!(
        refused(&step(&mut target, barrier(7))),
        RefusalCode::BadFrame
    );
}

#[test]
fn passes_rise_and_begin_only_when_all_is_durable() {
    let begin = |pass| frame(ToTarget::BeginPass { pass });
    for pass in [0, 3] {
        let out = step(&mut passing(), begin(pass));
        assert_eq!(refused(&out), RefusalCode::BadFrame);
    }
    let mut target = passing();
    step(&mut target, zero(0, 1));
    assert_eq!(refused(&step(&mut target, begin(4))), RefusalCode::BadFrame);
}

#[test]
fn a_source_that_never_asks_for_a_barrier_is_cut_off() {
    let mut target = passing();
    for _ in 0..MAX_PENDING / 16 {
        step(&mut target, zero(0, 4096));
        assert!(!target.is_over());
    }
    let out = step(&mut target, zero(0, 4096));
    assert_eq!(refused(&out), RefusalCode::BadFrame);
}

#[test]
fn extents_outside_the_volume_are_refused_before_anything_is_written() {
    let blocks = geometry().blocks();
    for input in [
        zero(blocks, 1),
        zero(blocks - 1, 2),
        zero(u64::MAX, 1),
        zero(0, 0),
        zero(0, 4097),
    ] {
        let out = step(&mut passing(), input);
        assert_eq!(refused(&out), RefusalCode::BadFrame);
        assert_eq!(out.len(), 2, "{out:?}");
    }
    // Checked against a larger volume by mistake.
    let large = Geometry::new(geometry().length() * 2).unwrap();
    let extent = crate::extent::check_zero(large, BlockIndex(blocks), 1).unwrap();
    let out = step(&mut passing(), Input::ExtentChecked(extent));
    assert_eq!(refused(&out), RefusalCode::BadFrame);
}

#[test]
fn a_refused_extent_keeps_what_came_before_it() {
    for (bad, code) in [
        (
            BadExtent::Mismatch {
                block: BlockIndex(1),
            },
            RefusalCode::BadData,
        ),
        (
            BadExtent::Undecodable {
                first: BlockIndex(1),
            },
            RefusalCode::BadData,
        ),
        (
            BadExtent::OutOfVolume {
                first: BlockIndex(1),
                count: 1,
            },
            RefusalCode::BadFrame,
        ),
    ] {
        let mut target = passing();
        step(&mut target, zero(3, 2));
        let extents = vec![zeros(3, 2)];
        assert_eq!(
            step(&mut target, Input::ExtentRefused(bad.clone())),
            [
                Output::Settle { extents },
                Output::Send(ToSource::Refused { code }),
                Output::Fail(TargetError::Extent(bad)),
            ]
        );
    }
}

#[test]
fn an_extent_that_was_not_checked_is_never_written() {
    let out = step(
        &mut passing(),
        frame(ToTarget::Extent {
            first: BlockIndex(0),
            encoding: Encoding::Raw,
            leaves: vec![Leaf([0; 32])],
            fingerprints: vec![],
        }),
    );
    assert!(matches!(
        out[..],
        [
            Output::Send(ToSource::Refused { .. }),
            Output::Fail(TargetError::OutOfTurn { .. })
        ]
    ));
}

#[test]
fn failed_storage_voids_what_is_not_durable() {
    for (full, code) in [
        (true, RefusalCode::StorageFull),
        (false, RefusalCode::StorageFailed),
    ] {
        let mut target = passing();
        step(&mut target, zero(3, 2));
        assert_eq!(
            step(&mut target, Input::StorageFailed { full }),
            [
                Output::Send(ToSource::Refused { code }),
                Output::Fail(TargetError::Storage { full }),
            ]
        );
    }
}

#[test]
fn a_lost_stream_and_a_close_settle_what_was_written() {
    let reason = CloseReason::Lost;
    let extents = vec![zeros(3, 2)];
    let settle = Output::Settle { extents };
    let mut target = passing();
    step(&mut target, zero(3, 2));
    assert_eq!(
        step(&mut target, Input::Closed(reason)),
        [settle.clone(), Output::Fail(TargetError::Closed { reason })]
    );
    let mut target = passing();
    step(&mut target, zero(3, 2));
    assert_eq!(
        step(&mut target, frame(ToTarget::Close)),
        [settle, Output::Closed]
    );
    assert!(target.is_over());
    assert!(step(&mut target, zero(3, 2)).is_empty());
}

#[test]
fn a_withdrawn_session_is_refused_with_its_reason() {
    let code = RefusalCode::Revoked;
    assert_eq!(
        step(&mut passing(), Input::Refuse(code)),
        [
            Output::Send(ToSource::Refused { code }),
            Output::Fail(TargetError::Withdrawn { code })
        ]
    );
}

fn finish(barrier: u64, root: Root, read_back: bool) -> Input {
    frame(ToTarget::Finish {
        barrier,
        root,
        read_back,
    })
}

fn computed(root: Root) -> Input {
    Input::RootComputed { root }
}

#[test]
fn a_statement_is_made_only_about_the_root_of_what_is_durable() {
    let (barrier, root) = (4, ROOT);
    let read_back = false;
    let mut target = serving();
    assert_eq!(
        step(&mut target, finish(4, ROOT, false)),
        [Output::ComputeRoot]
    );
    assert_eq!(
        step(&mut target, computed(ROOT)),
        [Output::Prove {
            barrier,
            root,
            read_back
        }]
    );
    let proof = vec![3];
    assert_eq!(
        step(
            &mut target,
            Input::Proved {
                proof: proof.clone()
            }
        ),
        [Output::Send(ToSource::Finished {
            root,
            read_back,
            proof
        })]
    );

    let mut target = serving();
    step(&mut target, finish(4, OTHER, false));
    let out = step(&mut target, computed(ROOT));
    assert_eq!(refused(&out), RefusalCode::RootDiffers);
    let out = step(&mut serving(), finish(5, ROOT, false));
    assert_eq!(refused(&out), RefusalCode::BadFrame);
    let mut target = passing();
    step(&mut target, zero(0, 1));
    let out = step(&mut target, finish(4, ROOT, false));
    assert_eq!(refused(&out), RefusalCode::BadFrame);
}

#[test]
fn a_volume_that_reads_back_otherwise_is_not_stated() {
    let mut target = serving();
    assert_eq!(step(&mut target, finish(4, ROOT, true)), [Output::ReadBack]);
    let (barrier, root, read_back) = (4, ROOT, true);
    assert_eq!(
        step(&mut target, Input::ReadBack { root }),
        [Output::Prove {
            barrier,
            root,
            read_back
        }]
    );
    let proof = vec![];
    assert_eq!(
        step(
            &mut target,
            Input::Proved {
                proof: proof.clone()
            }
        ),
        [Output::Send(ToSource::Finished {
            root,
            read_back,
            proof
        })]
    );

    // Whose fault it is, the root of the stored tree decides.
    for (computes, code) in [
        (ROOT, RefusalCode::ReadBackDiffers),
        (OTHER, RefusalCode::RootDiffers),
    ] {
        let mut target = serving();
        step(&mut target, finish(4, ROOT, true));
        let root = OTHER;
        assert_eq!(
            step(&mut target, Input::ReadBack { root }),
            [Output::ComputeRoot]
        );
        let out = step(&mut target, computed(computes));
        assert_eq!(refused(&out), code);
    }
}

fn inputs() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(open(geometry().length())),
        (0..300u64, 0..300u32).prop_map(|(first, count)| {
            let first = GroupIndex(first);
            frame(ToTarget::AskGroups { first, count })
        }),
        (0..300u64).prop_map(|group| {
            let group = GroupIndex(group);
            frame(ToTarget::AskLeaves { group })
        }),
        (0..9u32).prop_map(|pass| frame(ToTarget::BeginPass { pass })),
        (0..60_000u64, 0..5000u32).prop_map(|(first, count)| zero(first, count)),
        (any::<u64>(), any::<u32>()).prop_map(|(first, count)| zero(first, count)),
        (0..50_000u64).prop_map(|first| Input::ExtentChecked(checked(first))),
        (0..4u64, 1..4u64).prop_map(|(first, count)| {
            let leaves = (first..first + count).map(|block| match checked(block).into_extent() {
                Extent::Data { leaves, .. } => leaves[0],
                Extent::Zero { .. } => unreachable!("made as data"),
            });
            frame(ToTarget::Offer {
                first: BlockIndex(first),
                leaves: leaves.collect(),
                fingerprints: vec![],
            })
        }),
        (0..4u64).prop_map(|first| Input::ExtentChecked(checked(first))),
        (0..4u64, prop::collection::vec(any::<bool>(), 1..4)).prop_map(|(first, made)| {
            let held = made.iter().map(|made| match made {
                true => Held::Made,
                false => Held::Nothing,
            });
            Input::Consulted {
                first: BlockIndex(first),
                held: held.collect(),
            }
        }),
        (4..8u64).prop_map(barrier),
        (4..8u64).prop_map(|barrier| {
            let mark = MARK;
            Input::Flushed { barrier, mark }
        }),
        any::<bool>().prop_map(|read_back| finish(4, ROOT, read_back)),
        Just(Input::RootComputed { root: ROOT }),
        Just(Input::ReadBack { root: ROOT }),
        Just(Input::ReadBack { root: OTHER }),
        Just(Input::Proved { proof: vec![] }),
        Just(frame(ToTarget::Close)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_never_panics_and_writes_only_noted_groups_inside_the_volume(
        begun in any::<bool>(),
        inputs in prop::collection::vec(inputs(), 0..40),
    ) {
        let mut target = if begun { passing() } else { Target::new(geometry(), 4, MARK) };
        let mut noted = std::collections::BTreeMap::new();
        let mut acknowledged = 4;
        let mut written = std::collections::BTreeSet::new();
        for input in inputs {
            if matches!(input, Input::Received(ToTarget::Offer { .. })) {
                written.clear();
            }
            for output in step(&mut target, input) {
                match output {
                    Output::Send(ToSource::Answer { first, held }) => {
                        for (block, held) in (first.0..).zip(held) {
                            prop_assert!(held != Held::Made || written.contains(&block));
                        }
                    }
                    Output::NoteRegions { barrier, groups } => {
                        noted.extend(groups.into_iter().map(|group| (group, barrier)));
                    }
                    Output::Write { first, count } | Output::WriteZeros { first, count } => {
                        prop_assert!(geometry().contains_run(first, u64::from(count)));
                        written.extend(first.0..first.0 + u64::from(count));
                        for group in zeros(first.0, count).groups() {
                            prop_assert!(noted.contains_key(&group));
                        }
                    }
                    Output::Send(ToSource::Durable { barrier, .. }) => {
                        prop_assert_eq!(barrier, acknowledged + 1);
                        acknowledged = barrier;
                        noted.retain(|_, noted_for| *noted_for > barrier);
                    }
                    _ => {}
                }
            }
        }
    }
}
