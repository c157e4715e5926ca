//! Offers at the source: what is made belongs to the barrier under which it was
//! offered, and nothing else of an offer counts before it is sent.

use super::*;
use crate::offer::MAX_OPEN_BLOCKS;
use crate::piece::PieceHash;

fn leaf_of(block: u64) -> Leaf {
    Leaf([(block as u8).wrapping_add(1); 32])
}

fn of(first: u64, count: u64) -> Extent {
    Extent::Data {
        first: BlockIndex(first),
        leaves: (first..first + count).map(leaf_of).collect(),
    }
}

fn offered(first: u64, count: u64) -> Input {
    Input::Offered {
        first: BlockIndex(first),
        leaves: (first..first + count).map(leaf_of).collect(),
    }
}

fn answer(first: u64, held: &[Held]) -> Input {
    Input::Received(ToSource::Answer {
        first: BlockIndex(first),
        held: held.to_vec(),
    })
}

fn answered(first: u64, held: &[Held]) -> Output {
    Output::Answered {
        first: BlockIndex(first),
        held: held.to_vec(),
    }
}

fn commit(barrier: u64, extents: &[Extent]) -> Output {
    Output::Commit {
        barrier,
        mark: mark_at(barrier),
        extents: extents.to_vec(),
    }
}

fn pieces(count: usize) -> Held {
    Held::Pieces(vec![PieceHash([3; 16]); count])
}

const MADE: Held = Held::Made;
const NOTHING: Held = Held::Nothing;

/// In a pass, with these inputs taken without a fault.
fn after(inputs: impl IntoIterator<Item = Input>) -> Source {
    let mut source = passing();
    for input in inputs {
        let out = step(&mut source, input);
        assert!(!matches!(out.last(), Some(Output::Fail(_))), "{out:?}");
    }
    source
}

#[test]
fn what_is_made_under_a_pending_barrier_is_committed_with_it_and_the_rest_is_not() {
    let mut source = after([sent(of(0, 1)), offered(4, 4)]);
    let held = [MADE, NOTHING, MADE, MADE];
    assert_eq!(step(&mut source, answer(4, &held)), [answered(4, &held)]);
    step(&mut source, sent(of(5, 1)));
    assert_eq!(step(&mut source, Input::PassRead), [barrier(2)]);
    let extents = [of(0, 1), of(4, 1), of(6, 2), of(5, 1)];
    assert_eq!(step(&mut source, durable(2)), [commit(2, &extents)]);
    let (pass, blocks_sent, payload_bytes) = (5, 5, 200);
    assert_eq!(
        step(&mut source, committed(2)),
        [Output::PassDone {
            pass,
            blocks_sent,
            payload_bytes
        }]
    );
}

#[test]
fn what_is_made_belongs_to_the_barrier_under_which_it_was_offered_though_others_followed() {
    let mut source = after([
        offered(0, 2),
        Input::BarrierDue,
        offered(20, 1),
        sent(of(30, 1)),
        Input::BarrierDue,
        offered(40, 1),
    ]);
    step(&mut source, answer(0, &[MADE, NOTHING]));
    assert_eq!(step(&mut source, durable(2)), [commit(2, &[of(0, 1)])]);
    step(&mut source, committed(2));
    step(&mut source, answer(20, &[MADE]));
    step(&mut source, answer(40, &[MADE]));
    let extents = [of(30, 1), of(20, 1)];
    assert_eq!(step(&mut source, durable(3)), [commit(3, &extents)]);
    step(&mut source, committed(3));
    assert_eq!(step(&mut source, Input::PassRead), [barrier(4)]);
    assert_eq!(step(&mut source, durable(4)), [commit(4, &[of(40, 1)])]);
}

#[test]
fn an_offer_alone_is_worth_a_barrier_once_it_is_due_and_one_that_made_nothing_is_not() {
    let mut source = after([offered(0, 2)]);
    assert_eq!(step(&mut source, Input::BarrierDue), [barrier(2)]);
    let mut source = after([offered(0, 2), answer(0, &[NOTHING, pieces(16)])]);
    assert!(step(&mut source, Input::BarrierDue).is_empty());
    let mut source = after([offered(0, 2), answer(0, &[NOTHING, MADE])]);
    assert_eq!(step(&mut source, Input::BarrierDue), [barrier(2)]);
}

#[test]
fn a_barrier_that_is_acknowledged_before_an_offer_under_it_is_answered_is_a_fault() {
    let mut source = after([sent(of(9, 1)), offered(0, 2), Input::BarrierDue]);
    let barrier = 2;
    assert_eq!(
        step(&mut source, durable(2)),
        [Output::Fail(SessionError::Unanswered { barrier })]
    );
    // An offer behind the barrier has time.
    let mut source = after([sent(of(9, 1)), Input::BarrierDue, offered(0, 2)]);
    assert_eq!(step(&mut source, durable(2)), [commit(2, &[of(9, 1)])]);
}

#[test]
fn an_answer_that_is_not_one_to_the_oldest_offer_is_a_fault() {
    for (first, held) in [
        (3, vec![MADE; 2]),
        (8, vec![MADE; 3]),
        (u64::MAX, vec![MADE; 2]),
        (0, vec![MADE]),
        (0, vec![MADE; 3]),
        (0, vec![]),
        (0, vec![MADE, pieces(15)]),
        (0, vec![pieces(17), MADE]),
    ] {
        let mut source = after([offered(0, 2), offered(8, 3)]);
        let out = step(&mut source, answer(first, &held));
        let first = BlockIndex(first);
        let fault = SessionError::BadAnswer { first };
        assert_eq!(out, [Output::Fail(fault)], "{held:?}");
    }
    let mut source = after([offered(0, 2), answer(0, &[MADE, pieces(16)])]);
    let (frame, stage) = ("answer", "passing");
    assert_eq!(
        step(&mut source, answer(0, &[MADE, MADE])),
        [Output::Fail(SessionError::Unexpected { frame, stage })]
    );
}

#[test]
fn offers_that_wait_are_bounded_and_answers_make_room() {
    let mut source = passing();
    for at in 0..MAX_OPEN_BLOCKS / 16 {
        assert!(source.may_offer());
        step(&mut source, offered(at * 16, 16));
    }
    assert!(source.may_send() && !source.may_offer());
    step(&mut source, answer(0, &[const { Held::Nothing }; 16]));
    assert!(source.may_offer());
    step(&mut source, offered(8000, 1));
    assert!(!source.may_offer(), "there is no room for sixteen");
    assert!(matches!(
        step(&mut source, offered(9000, 1))[..],
        [Output::Fail(SessionError::OutOfTurn { .. })]
    ));
}

#[test]
fn offers_weigh_as_much_as_extents_until_they_are_answered() {
    let mut source = passing();
    let room = BARRIER_BLOCKS - MAX_OPEN_BLOCKS;
    for at in 0..room / 16 {
        step(&mut source, sent(of(at * 16, 16)));
    }
    for at in 1..MAX_OPEN_BLOCKS / 16 {
        assert!(step(&mut source, offered(room + at * 16, 16)).is_empty());
    }
    // Nothing of the first was made: that much more may be sent.
    let nothing = [const { Held::Nothing }; 16];
    step(&mut source, answer(room + 16, &nothing));
    assert!(step(&mut source, sent(of(room, 16))).is_empty());
    assert_eq!(step(&mut source, offered(room + 1000, 16)), [barrier(2)]);
}

#[test]
fn a_pass_of_which_every_offer_came_to_nothing_goes_on() {
    let mut source = passing();
    for at in 0..2 * BARRIER_BLOCKS / 16 {
        assert!(source.may_offer(), "after {at} offers");
        step(&mut source, offered(at * 16, 16));
        step(&mut source, answer(at * 16, &[const { Held::Nothing }; 16]));
    }
}

#[test]
fn blocks_that_wait_for_an_answer_are_neither_sent_nor_offered_again() {
    for (first, count, is_fault) in [(7, 1, false), (7, 2, true), (9, 1, true), (10, 1, false)] {
        for again in [sent(of(first, count)), offered(first, count)] {
            let mut source = after([offered(8, 2)]);
            let out = step(&mut source, again);
            let failed = matches!(out[..], [Output::Fail(SessionError::OutOfTurn { .. })]);
            assert_eq!(failed, is_fault, "{first} {count}: {out:?}");
        }
    }
    after([
        offered(8, 2),
        answer(8, &[NOTHING, NOTHING]),
        sent(of(8, 2)),
    ]);
}

#[test]
fn a_shell_that_offers_what_is_no_run_of_the_volume_is_stopped() {
    let blocks = 1000 * GROUP_BLOCKS;
    for offer in [
        offered(blocks, 1),
        offered(0, 0),
        offered(0, 17),
        offered(u64::MAX, 0),
    ] {
        assert!(matches!(
            step(&mut passing(), offer)[..],
            [Output::Fail(SessionError::Extent(_))]
        ));
    }
}

#[test]
fn a_pass_is_not_read_while_an_offer_waits() {
    let mut source = after([offered(8, 2)]);
    let (input, stage) = ("the end of a pass", "passing");
    assert_eq!(
        step(&mut source, Input::PassRead),
        [Output::Fail(SessionError::OutOfTurn { input, stage })]
    );
}

#[test]
fn stopping_waits_for_answers_and_keeps_what_was_made() {
    let mut source = after([offered(8, 2)]);
    assert_eq!(step(&mut source, Input::Stop), [barrier(2)]);
    assert!(!source.may_send() && !source.may_offer());
    let held = [NOTHING, MADE];
    assert_eq!(step(&mut source, answer(8, &held)), [answered(8, &held)]);
    assert_eq!(step(&mut source, durable(2)), [commit(2, &[of(9, 1)])]);
    assert_eq!(
        step(&mut source, committed(2)),
        [Output::Send(ToTarget::Close), Output::Stopped]
    );
}

#[test]
fn stopping_with_offers_and_all_barriers_outstanding_ends_once_the_last_is_answered() {
    let mut source = after([
        sent(of(0, 1)),
        Input::BarrierDue,
        sent(of(1, 1)),
        Input::BarrierDue,
        offered(8, 1),
        Input::Stop,
    ]);
    assert_eq!(step(&mut source, durable(2))[1..], [barrier(4)]);
    step(&mut source, committed(2));
    step(&mut source, durable(3));
    assert!(step(&mut source, committed(3)).is_empty());
    step(&mut source, answer(8, &[NOTHING]));
    assert_eq!(step(&mut source, durable(4)), [commit(4, &[])]);
    assert_eq!(
        step(&mut source, committed(4)),
        [Output::Send(ToTarget::Close), Output::Stopped]
    );
}

#[test]
fn fingerprints_are_wanted_by_a_target_that_says_so() {
    for references in [false, true] {
        let mut source = Source::new(geometry(1), 1, MARK, vec![]);
        step(&mut source, Input::Start);
        assert!(!source.wants_fingerprints());
        let (barrier, mark) = (1, MARK);
        let opened = ToSource::Opened {
            barrier,
            mark,
            references,
        };
        step(&mut source, Input::Received(opened));
        assert_eq!(source.wants_fingerprints(), references);
    }
}
