//! The source's session, one rule at a time.

#![allow(clippy::unwrap_used)]

mod comparing;
mod offers;
mod turns;

use proptest::prelude::*;

use super::*;
use crate::extent::{BARRIER_BLOCKS, MAX_BARRIERS, MAX_EXTENT_BLOCKS, MAX_ZERO_BLOCKS};
use crate::frame::{MAX_GROUPS_PER_FRAME, RefusalCode};
use crate::geometry::{BlockIndex, GROUP_BLOCKS};
use crate::mark::{group_mark, tree_mark};

fn geometry(groups: u64) -> Geometry {
    Geometry::new(groups * GROUP_BLOCKS * 65536).unwrap()
}

fn step(source: &mut Source, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    source.step(input, &mut out);
    out
}

/// Entries of a group that no hash ever gave: the marks above do not mind. Of 0
/// they are those of zeros.
fn entries(byte: u8) -> Vec<Leaf> {
    vec![Leaf([byte; 32]); GROUP_BLOCKS as usize]
}

fn marks(bytes: &[u8]) -> Vec<Mark> {
    bytes
        .iter()
        .map(|byte| group_mark(&entries(*byte)))
        .collect()
}

const MARK: Mark = Mark([1; 32]);
const ROOT: Root = Root([2; 32]);

fn opened(barrier: u64, mark: Mark) -> Input {
    let references = false;
    Input::Received(ToSource::Opened {
        barrier,
        mark,
        references,
    })
}

fn durable(barrier: u64) -> Input {
    let mark = mark_at(barrier);
    Input::Received(ToSource::Durable { barrier, mark })
}

fn committed(barrier: u64) -> Input {
    let mark = mark_at(barrier);
    Input::Committed { barrier, mark }
}

fn mark_at(barrier: u64) -> Mark {
    Mark([barrier as u8; 32])
}

fn ready() -> Source {
    let mut source = Source::new(geometry(1000), 1, MARK, vec![7]);
    step(&mut source, Input::Start);
    step(&mut source, opened(1, MARK));
    source
}

fn passing() -> Source {
    let mut source = ready();
    assert_eq!(
        step(&mut source, Input::BeginPass { pass: 5 }),
        [Output::Send(ToTarget::BeginPass { pass: 5 })]
    );
    source
}

fn data(first: u64, count: u32) -> Extent {
    Extent::Data {
        first: BlockIndex(first),
        leaves: vec![Leaf([9; 32]); count as usize],
    }
}

fn sent(extent: Extent) -> Input {
    Input::ExtentSent {
        extent,
        payload_bytes: 100,
    }
}

fn barrier(barrier: u64) -> Output {
    Output::Send(ToTarget::Barrier { barrier })
}

/// Sends data until the machine wants no more of it.
fn fill(source: &mut Source) -> Vec<Output> {
    let mut out = Vec::new();
    for at in 0..BARRIER_BLOCKS / u64::from(MAX_EXTENT_BLOCKS) {
        assert!(source.may_send());
        let first = at * u64::from(MAX_EXTENT_BLOCKS);
        source.step(sent(data(first, MAX_EXTENT_BLOCKS)), &mut out);
    }
    out
}

#[test]
fn it_opens_with_where_it_stands_and_equal_marks_need_no_comparing() {
    let geometry = geometry(1);
    let mut source = Source::new(geometry, 4, MARK, vec![7, 8]);
    assert_eq!(
        step(&mut source, Input::Start),
        [Output::Send(ToTarget::Open {
            ticket: vec![7, 8],
            length: geometry.length(),
            barrier: 4,
            mark: MARK,
        })]
    );
    assert_eq!(
        step(&mut source, opened(6, MARK)),
        [Output::Ready {
            barrier: 6,
            mark: MARK,
            adopted_groups: 0
        }]
    );
    assert_eq!(source.durable(), (6, MARK));
}

#[test]
fn leaves_are_committed_only_when_their_own_barrier_is_durable() {
    let mut source = passing();
    assert!(step(&mut source, sent(data(0, 2))).is_empty());
    assert_eq!(step(&mut source, Input::BarrierDue), [barrier(2)]);
    assert!(step(&mut source, Input::BarrierDue).is_empty());
    assert!(step(&mut source, sent(data(5, 1))).is_empty());
    assert_eq!(step(&mut source, Input::PassRead), [barrier(3)]);
    assert_eq!(
        step(&mut source, durable(2)),
        [Output::Commit {
            barrier: 2,
            mark: mark_at(2),
            extents: vec![data(0, 2)]
        }]
    );
    assert!(step(&mut source, committed(2)).is_empty());
    assert_eq!(
        step(&mut source, durable(3)),
        [Output::Commit {
            barrier: 3,
            mark: mark_at(3),
            extents: vec![data(5, 1)]
        }]
    );
    assert_eq!(
        step(&mut source, committed(3)),
        [Output::PassDone {
            pass: 5,
            blocks_sent: 3,
            payload_bytes: 200
        }]
    );
    assert_eq!(source.durable(), (3, mark_at(3)));
}

#[test]
fn bytes_beyond_all_counting_are_counted_as_the_most_there_is() {
    let mut source = passing();
    for first in 0..2 {
        let (extent, payload_bytes) = (data(first, 1), u64::MAX);
        let input = Input::ExtentSent {
            extent,
            payload_bytes,
        };
        step(&mut source, input);
    }
    step(&mut source, Input::PassRead);
    step(&mut source, durable(2));
    let payload_bytes = u64::MAX;
    assert_eq!(
        step(&mut source, committed(2)),
        [Output::PassDone {
            pass: 5,
            blocks_sent: 2,
            payload_bytes
        }]
    );
}

#[test]
fn a_pass_that_finds_nothing_is_done_at_once() {
    let mut source = passing();
    assert!(step(&mut source, Input::BarrierDue).is_empty());
    let (pass, blocks_sent, payload_bytes) = (5, 0, 0);
    assert_eq!(
        step(&mut source, Input::PassRead),
        [Output::PassDone {
            pass,
            blocks_sent,
            payload_bytes
        }]
    );
}

#[test]
fn a_barrier_is_forced_by_a_gibibyte_and_a_third_one_waits() {
    let mut source = passing();
    assert_eq!(fill(&mut source), [barrier(2)]);
    assert_eq!(fill(&mut source), [barrier(3)]);
    assert_eq!(MAX_BARRIERS, 2);
    assert!(fill(&mut source).is_empty());
    assert!(!source.may_send());
    let out = step(&mut source, durable(2));
    assert!(matches!(out[0], Output::Commit { barrier: 2, .. }));
    assert_eq!(out[1..], [barrier(4)]);
    assert!(source.may_send());
}

#[test]
fn a_shell_that_sends_when_it_may_not_is_stopped() {
    let mut source = passing();
    for _ in 0..3 {
        fill(&mut source);
    }
    assert!(matches!(
        step(&mut source, sent(data(0, 1)))[..],
        [Output::Fail(SessionError::OutOfTurn { .. })]
    ));
}

#[test]
fn a_shell_that_sends_what_is_no_extent_of_the_volume_is_stopped() {
    let blocks = 1000 * GROUP_BLOCKS;
    for extent in [data(blocks, 1), data(0, 0), data(0, MAX_EXTENT_BLOCKS + 1)] {
        assert!(matches!(
            step(&mut passing(), sent(extent))[..],
            [Output::Fail(SessionError::Extent(_))]
        ));
    }
}

#[test]
fn a_shell_that_commits_barriers_in_another_order_is_stopped() {
    let mut source = passing();
    for barrier in [2, 3] {
        step(&mut source, sent(data(barrier, 1)));
        step(&mut source, Input::BarrierDue);
    }
    step(&mut source, durable(2));
    step(&mut source, durable(3));
    let (barrier, mark) = (3, mark_at(2));
    assert!(matches!(
        step(&mut source, Input::Committed { barrier, mark })[..],
        [Output::Fail(SessionError::OutOfTurn { .. })]
    ));
}

#[test]
fn zeros_weigh_little_but_not_nothing() {
    let mut source = passing();
    let zero = |count| Extent::Zero {
        first: BlockIndex(0),
        count,
    };
    for _ in 1..BARRIER_BLOCKS / 16 {
        assert!(step(&mut source, sent(zero(MAX_ZERO_BLOCKS))).is_empty());
    }
    assert_eq!(step(&mut source, sent(zero(MAX_ZERO_BLOCKS))), [barrier(2)]);
    assert_eq!(zero(1).weight(), 1);
}

#[test]
fn a_wrong_barrier_fails_the_session_and_commits_nothing() {
    for got in [0, 1, 3, u64::MAX] {
        let mut source = passing();
        step(&mut source, sent(data(0, 1)));
        step(&mut source, Input::BarrierDue);
        let expected = 2;
        assert_eq!(
            step(&mut source, durable(got)),
            [Output::Fail(SessionError::Barrier { got, expected })]
        );
    }
}

#[test]
fn an_acknowledgement_nobody_asked_for_fails_the_session() {
    let mut source = passing();
    step(&mut source, sent(data(0, 1)));
    let (frame, stage) = ("durable", "passing");
    assert_eq!(
        step(&mut source, durable(2)),
        [Output::Fail(SessionError::Unexpected { frame, stage })]
    );
}

#[test]
fn a_mark_that_differs_after_a_commit_fails_the_session() {
    let mut source = passing();
    step(&mut source, sent(data(0, 1)));
    step(&mut source, Input::BarrierDue);
    step(&mut source, durable(2));
    let (barrier, ours, theirs) = (2, MARK, mark_at(2));
    assert_eq!(
        step(
            &mut source,
            Input::Committed {
                barrier,
                mark: ours
            }
        ),
        [Output::Fail(SessionError::MarkMismatch {
            barrier,
            ours,
            theirs
        })]
    );
}

#[test]
fn no_barrier_follows_the_last_number() {
    let mut source = Source::new(geometry(1), 0, MARK, vec![]);
    step(&mut source, Input::Start);
    step(&mut source, opened(u64::MAX, MARK));
    step(&mut source, Input::BeginPass { pass: 1 });
    step(&mut source, sent(data(0, 1)));
    let barrier = u64::MAX;
    assert_eq!(
        step(&mut source, Input::BarrierDue),
        [Output::Fail(SessionError::BarriersExhausted { barrier })]
    );
}

#[test]
fn stopping_in_a_pass_waits_until_what_was_sent_is_durable() {
    let mut source = passing();
    step(&mut source, sent(data(0, 1)));
    assert_eq!(step(&mut source, Input::Stop), [barrier(2)]);
    assert!(!source.may_send());
    step(&mut source, durable(2));
    assert_eq!(
        step(&mut source, committed(2)),
        [Output::Send(ToTarget::Close), Output::Stopped]
    );
    assert!(source.is_over());
}

#[test]
fn a_pass_that_was_read_before_the_stop_is_done_before_it() {
    let mut source = passing();
    step(&mut source, sent(data(0, 1)));
    assert_eq!(step(&mut source, Input::PassRead), [barrier(2)]);
    assert!(step(&mut source, Input::Stop).is_empty());
    step(&mut source, durable(2));
    let (pass, blocks_sent, payload_bytes) = (5, 1, 100);
    assert_eq!(
        step(&mut source, committed(2)),
        [
            Output::PassDone {
                pass,
                blocks_sent,
                payload_bytes
            },
            Output::Send(ToTarget::Close),
            Output::Stopped
        ]
    );
}

#[test]
fn stopping_elsewhere_is_immediate() {
    let mut opening = Source::new(geometry(1), 0, MARK, vec![]);
    step(&mut opening, Input::Start);
    for mut source in [opening, ready()] {
        assert_eq!(
            step(&mut source, Input::Stop),
            [Output::Send(ToTarget::Close), Output::Stopped]
        );
    }
}

#[test]
fn finishing_hands_on_the_statement_that_was_asked_for() {
    let finish = |root| Input::Finish {
        root,
        read_back: true,
    };
    let finished = |root, read_back| {
        let proof = vec![3];
        Input::Received(ToSource::Finished {
            root,
            read_back,
            proof,
        })
    };
    let (barrier, root, read_back) = (1, ROOT, true);

    let mut source = ready();
    assert_eq!(
        step(&mut source, finish(ROOT)),
        [Output::Send(ToTarget::Finish {
            barrier,
            root,
            read_back
        })]
    );
    let proof = vec![3];
    assert_eq!(
        step(&mut source, finished(ROOT, true)),
        [
            Output::Send(ToTarget::Close),
            Output::Done {
                root,
                read_back,
                proof
            }
        ]
    );

    for (root, read_back) in [(ROOT, false), (Root([9; 32]), true)] {
        let mut source = ready();
        step(&mut source, finish(ROOT));
        assert_eq!(
            step(&mut source, finished(root, read_back)),
            [Output::Fail(SessionError::WrongStatement)]
        );
    }
}

#[test]
fn a_refusal_or_a_lost_stream_ends_any_stage() {
    let code = RefusalCode::Revoked;
    let reason = CloseReason::Lost;
    let waiting = || Source::new(geometry(1), 0, MARK, vec![]);
    for make in [waiting as fn() -> Source, ready, passing] {
        let mut source = make();
        assert_eq!(
            step(&mut source, Input::Received(ToSource::Refused { code })),
            [Output::Fail(SessionError::Refused { code })]
        );
        let mut source = make();
        assert_eq!(
            step(&mut source, Input::Closed(reason)),
            [Output::Fail(SessionError::Closed { reason })]
        );
        assert!(step(&mut source, Input::Start).is_empty());
        assert!(source.is_over());
    }
}

#[test]
fn a_late_timer_is_no_fault_and_one_that_found_nothing_is_forgotten() {
    let mut source = ready();
    assert!(step(&mut source, Input::BarrierDue).is_empty());
    assert!(!source.is_over());
    let mut source = passing();
    assert!(step(&mut source, Input::BarrierDue).is_empty());
    assert!(step(&mut source, sent(data(0, 1))).is_empty());
}

fn inputs() -> impl Strategy<Value = Input> {
    let some_mark = || prop_oneof![Just(MARK), Just(mark_at(2)), Just(mark_at(3))];
    let groups = || (0..4u64).prop_map(GroupIndex);
    let page = || (0..4usize, any::<u8>()).prop_map(|(len, byte)| vec![Mark([byte; 32]); len]);
    prop_oneof![
        Just(Input::Start),
        (0..4u64, some_mark()).prop_map(|(barrier, mark)| opened(barrier, mark)),
        (groups(), page())
            .prop_map(|(first, marks)| Input::Received(ToSource::Groups { first, marks })),
        (groups(), page()).prop_map(|(first, marks)| Input::OurGroups { first, marks }),
        (groups(), any::<u8>()).prop_map(|(group, byte)| {
            let entries = entries(byte);
            Input::Received(ToSource::Leaves { group, entries })
        }),
        any::<u32>().prop_map(|pass| Input::BeginPass { pass }),
        (any::<u64>(), 0..20u32).prop_map(|(first, count)| sent(data(first, count))),
        (0..700u64, 1..17u32).prop_map(|(first, count)| sent(data(first, count))),
        (0..700u64, 0..18usize).prop_map(|(first, count)| Input::Offered {
            first: BlockIndex(first),
            leaves: vec![Leaf([8; 32]); count],
        }),
        (0..700u64, 0..18usize, any::<bool>()).prop_map(|(first, count, made)| {
            let first = BlockIndex(first);
            let held = match made {
                true => Held::Made,
                false => Held::Nothing,
            };
            let held = vec![held; count];
            Input::Received(ToSource::Answer { first, held })
        }),
        Just(Input::BarrierDue),
        Just(Input::PassRead),
        (0..6u64).prop_map(durable),
        (0..6u64).prop_map(committed),
        Just(Input::Finish {
            root: ROOT,
            read_back: true
        }),
        Just(Input::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_never_panics_and_never_commits_ahead(
        begin in 0..3usize,
        inputs in prop::collection::vec(inputs(), 0..40),
    ) {
        let waiting = || Source::new(geometry(3), 0, MARK, vec![]);
        let mut source = [waiting as fn() -> Source, ready, passing][begin]();
        let (mut barriers, mut commits) = (0, 0);
        for input in inputs {
            let acknowledged = matches!(input, Input::Received(ToSource::Durable { .. }));
            let was_over = source.is_over();
            let out = step(&mut source, input);
            prop_assert!(!was_over || out.is_empty());
            for output in &out {
                match output {
                    Output::Send(ToTarget::Barrier { .. }) => barriers += 1,
                    Output::Commit { .. } => {
                        prop_assert!(acknowledged);
                        commits += 1;
                    }
                    Output::Fail(_) => prop_assert!(source.is_over()),
                    _ => {}
                }
            }
            prop_assert!(commits <= barriers && barriers - commits <= MAX_BARRIERS);
        }
    }
}
