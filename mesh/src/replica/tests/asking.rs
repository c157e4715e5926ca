//! When a peer is asked again, and when it is left alone.

use super::clones::records;
use super::gossip::{asks, equal_peer, tick};
use super::*;

/// An announcement of heads alone; how many questions it led to.
fn by_heads(node: &mut Replica, at: u64, via: PublicKey, heads: crate::sync::Heads) -> usize {
    let announcement = Announcement {
        heads,
        ..Announcement::default()
    };
    let input = Input::Announced { via, announcement };
    let mut out = vec![];
    node.step(NOW, at, input, &mut out);
    asks(&out).len()
}

/// A page that says `heads` and brings nothing.
fn says(node: &mut Replica, at: u64, from: PublicKey, heads: crate::sync::Heads) -> Vec<Output> {
    let mut page = node.page(&from, &Request::default());
    page.heads = heads;
    let mut out = vec![];
    node.step(NOW, at, Input::Answered { from, page }, &mut out);
    out
}

/// A node, what its founder holds beyond it, and a peer that is connected and equal.
fn node_and_peer() -> (Replica, Replica, PublicKey) {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    step(&mut node, Input::Disconnected(op.my_key()));
    let peer = key(30).public();
    equal_peer(&mut node, peer);
    grant(&mut op, 1, &mut vec![]);
    (op, node, peer)
}

#[test]
fn a_peer_that_brought_nothing_with_some_heads_is_left_alone_with_them_for_a_while() {
    let (op, mut node, peer) = node_and_peer();
    let heads = op.heads();
    assert_eq!(by_heads(&mut node, 0, peer, heads), 0);
    let mut asked = asks(&tick(&mut node, 1_000)).len();
    while asked < 3 {
        asked += asks(&says(&mut node, 1_000, peer, heads)).len();
    }
    assert!(asks(&says(&mut node, 1_000, peer, heads)).is_empty());
    // Whatever it says of them meanwhile.
    assert_eq!(by_heads(&mut node, 1_500, peer, heads), 0);
    assert!(asks(&tick(&mut node, 2_400)).is_empty());
    // With other heads it is asked soon.
    let mut other = heads;
    other.reports = [7; 32];
    assert_eq!(by_heads(&mut node, 2_500, peer, other), 0);
    assert_eq!(asks(&tick(&mut node, 2_800)).len(), 1);
}

#[test]
fn a_peer_that_speaks_all_the_time_does_not_put_off_the_question() {
    let (op, mut node, peer) = node_and_peer();
    let asked = (0..20).map(|time| {
        let asked = by_heads(&mut node, 50 * time, peer, op.heads());
        asked + asks(&tick(&mut node, 50 * time)).len()
    });
    assert_eq!(asked.sum::<usize>(), 1);
}

#[test]
fn a_peer_whose_question_failed_is_asked_again_though_not_at_once() {
    let (op, mut node, peer) = node_and_peer();
    assert_eq!(by_heads(&mut node, 0, peer, op.heads()), 0);
    assert_eq!(asks(&tick(&mut node, 1_000)).len(), 1);
    // While it was open more was heard that differs.
    assert_eq!(by_heads(&mut node, 1_000, peer, op.heads()), 0);
    let mut out = vec![];
    node.step(NOW, 1_100, Input::AskFailed { from: peer }, &mut out);
    out.extend(tick(&mut node, 2_900));
    assert!(asks(&out).is_empty());
    assert_eq!(asks(&tick(&mut node, 1_100 + 2_600)).len(), 1);
}

#[test]
fn a_question_that_is_never_answered_is_asked_again() {
    let (op, mut node, peer) = node_and_peer();
    assert_eq!(by_heads(&mut node, 0, peer, op.heads()), 0);
    assert_eq!(asks(&tick(&mut node, 1_000)).len(), 1);
    assert!(asks(&tick(&mut node, ANSWER_MILLIS)).is_empty());
    assert!(asks(&tick(&mut node, 1_000 + ANSWER_MILLIS)).is_empty());
    let again = 1_000 + ANSWER_MILLIS + 2_500;
    assert_eq!(asks(&tick(&mut node, again)).len(), 1);
}

#[test]
fn who_waited_for_the_answer_of_another_is_looked_at_as_soon_as_that_is_over() {
    let (op, mut node, first) = node_and_peer();
    let second = key(31).public();
    equal_peer(&mut node, second);
    for peer in [first, second] {
        assert_eq!(by_heads(&mut node, 0, peer, op.heads()), 0);
    }
    let asked = asks(&tick(&mut node, 1_000));
    assert_eq!(asked.len(), 1);
    let mut out = vec![];
    let failed = Input::AskFailed { from: asked[0].0 };
    node.step(NOW, 1_100, failed, &mut out);
    let then = asks(&out);
    assert_eq!(then.len(), 1);
    assert_ne!(then[0].0, asked[0].0);
}

#[test]
fn who_is_gone_is_not_known_by_what_it_still_says() {
    let (op, mut node, peer) = node_and_peer();
    let before = node.peers.len();
    step(&mut node, Input::Disconnected(peer));
    assert_eq!(by_heads(&mut node, 0, peer, op.heads()), 0);
    says(&mut node, 0, peer, op.heads());
    assert_eq!(node.peers.len(), before - 1);
    assert!(asks(&tick(&mut node, 60_000)).is_empty());
}

#[test]
fn a_node_is_level_once_it_may_write_and_holds_what_some_peer_holds() {
    let (op, mut node, peer) = node_and_peer();
    assert!(node.is_level());
    assert_eq!(by_heads(&mut node, 0, peer, op.heads()), 0);
    assert!(!node.is_level());

    let mut back = restored(key(9), &records(&node));
    assert!(!back.may_write());
    let heads = back.heads();
    step(&mut back, Input::Connected(peer));
    assert_eq!(by_heads(&mut back, 0, peer, heads), 0);
    assert!(!back.is_level());
    back.write_unheard();
    assert!(back.is_level());
}

#[test]
fn who_holds_the_same_and_claims_more_of_its_log_holds_nobody_up() {
    let (_, node, liar) = node_and_peer();
    let mut back = restored(key(9), &records(&node));
    let honest = key(31).public();
    for peer in [liar, honest] {
        step(&mut back, Input::Connected(peer));
    }
    let mut page = back.page(&key(9).public(), &Request::default());
    let truth = page.clone();
    page.yours.report += 1;
    step(&mut back, Input::Answered { from: liar, page });
    assert!(!back.may_write());
    let (from, page) = (honest, truth);
    step(&mut back, Input::Answered { from, page });
    assert!(back.may_write());
}

#[test]
fn what_a_peer_showed_stays_shown_though_it_falls_silent() {
    let (_, node, honest) = node_and_peer();
    let mut back = restored(key(9), &records(&node));
    let silent = key(31).public();
    for peer in [honest, silent] {
        step(&mut back, Input::Connected(peer));
    }
    let page = back.page(&key(9).public(), &Request::default());
    step(&mut back, Input::Answered { from: honest, page });
    step(&mut back, Input::AskFailed { from: honest });
    assert!(!back.may_write());
    step(&mut back, Input::AskFailed { from: silent });
    assert!(back.may_write());
}

#[test]
fn who_says_the_same_again_before_it_was_asked_needs_no_question() {
    let (op, mut node, peer) = node_and_peer();
    let heads = node.heads();
    assert_eq!(by_heads(&mut node, 0, peer, op.heads()), 0);
    assert!(node.deadline_millis().unwrap() < 1_000);
    assert_eq!(by_heads(&mut node, 0, peer, heads), 0);
    assert!(node.deadline_millis().unwrap() > 5_000);
}

#[test]
fn a_peer_that_brings_nothing_again_and_again_rests_whatever_new_heads_it_says() {
    let (op, mut node, peer) = node_and_peer();
    let heads = |number: u8| crate::sync::Heads {
        ledger: [number; 32],
        ..op.heads()
    };
    // The first answer, that it holds the same, brought nothing either.
    let (mut now, mut is_open) = (1_000, false);
    for number in 1..12 {
        if !is_open {
            assert_eq!(by_heads(&mut node, now, peer, heads(number)), 0);
            now += 300;
            assert_eq!(asks(&tick(&mut node, now)).len(), 1);
        }
        is_open = !asks(&says(&mut node, now, peer, heads(100 + number))).is_empty();
    }
    assert!(!is_open);
    assert_eq!(by_heads(&mut node, now, peer, heads(99)), 0);
    assert!(asks(&tick(&mut node, now + 1_900)).is_empty());
    assert_eq!(asks(&tick(&mut node, now + 2_600)).len(), 1);
}

#[test]
fn who_waits_for_the_answer_of_another_is_looked_at_later_and_not_all_the_time() {
    let (op, mut node, first) = node_and_peer();
    let second = key(31).public();
    equal_peer(&mut node, second);
    for peer in [first, second] {
        assert_eq!(by_heads(&mut node, 5_000, peer, op.heads()), 0);
    }
    // By then they were to be asked for their heads in any case.
    assert_eq!(asks(&tick(&mut node, 13_000)).len(), 1);
    assert!(node.deadline_millis().unwrap() > 13_000);
}

/// How the ledger, or the reports, are asked for.
fn kind(out: &[Output], is_ledger: bool) -> String {
    let asked = asks(out);
    let request = &asked.first().unwrap().1;
    match (is_ledger, &request.ledger, &request.reports) {
        (true, Some(Summary::Groups(_)), _) | (false, _, Some(Summary::Groups(_))) => {
            "groups".into()
        }
        (true, Some(Summary::Held(held)), _) => format!("{} buckets", held.len()),
        (false, _, Some(Summary::Held(held))) => format!("{} buckets", held.len()),
        _ => "nothing".into(),
    }
}

#[test]
fn buckets_that_differ_are_asked_for_until_they_were_answered_whole_or_are_level() {
    for is_ledger in [true, false] {
        for is_level in [true, false] {
            let (_, mut node, peer) = node_and_peer();
            let ours = node.heads();
            let differs = match is_ledger {
                true => crate::sync::Heads {
                    ledger: [7; 32],
                    ..ours
                },
                false => crate::sync::Heads {
                    reports: [7; 32],
                    ..ours
                },
            };
            let level = crate::sync::Heads {
                forks: [7; 32],
                ..ours
            };
            let empty = node.page(&peer, &Request::default());
            let mut answered = |at, heads, groups: crate::sync::GroupDigests, more| {
                let mut page = empty.clone();
                (page.heads, page.more) = (heads, more);
                match is_ledger {
                    true => page.ledger_groups = groups,
                    false => page.report_groups = groups,
                }
                let (from, mut out) = (peer, vec![]);
                node.step(NOW, at, Input::Answered { from, page }, &mut out);
                out.extend(tick(&mut node, at + 2_600));
                out
            };
            let out = answered(0, differs, vec![], false);
            assert_eq!(kind(&out, is_ledger), "groups");
            let out = answered(0, differs, vec![(0, vec![[9; 8]; 16])], false);
            assert_eq!(kind(&out, is_ledger), "16 buckets");
            // Some of it came, and more is to come; or it has come from elsewhere.
            let (heads, then) = match is_level {
                true => (level, "nothing"),
                false => (differs, "16 buckets"),
            };
            let out = answered(0, heads, vec![], true);
            assert_eq!(kind(&out, is_ledger), then);
            let out = answered(3_000, differs, vec![], false);
            assert_eq!(kind(&out, is_ledger), "groups");
        }
    }
}
