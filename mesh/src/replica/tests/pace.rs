//! A member that never stops reporting does not keep the others busy.

use super::*;

/// What `count` reports of `member` made the node store, told at `now_millis`.
fn stored_of(node: &mut Replica, member: &mut Replica, count: u32, now_millis: u64) -> usize {
    let via = member.my_key();
    let mut stored = 0;
    for number in 0..count {
        let made = publish(member, &format!("{now_millis} {number}"));
        let announcement = announcement(&made);
        let mut out = vec![];
        let input = Input::Announced { via, announcement };
        node.step(NOW, now_millis, input, &mut out);
        let stores = out
            .iter()
            .filter(|output| matches!(output, Output::Store(_)));
        stored += stores.count();
    }
    stored
}

/// The reports that `node` is sent by `peer` while it asks for what differs.
fn sent_to(node: &mut Replica, peer: &Replica, now_millis: u64) -> usize {
    let from = peer.my_key();
    let mut inputs = vec![Input::Connected(from)];
    let mut sent = 0;
    for _ in 0..6 {
        let mut out = vec![];
        for input in inputs.drain(..) {
            node.step(NOW, now_millis, input, &mut out);
        }
        for output in out {
            if let Output::Ask { request, .. } = output {
                let page = peer.page(&node.my_key(), &request);
                sent += page.reports.len();
                inputs.push(Input::Answered { from, page });
            }
        }
    }
    sent
}

#[test]
fn what_is_not_taken_in_is_not_asked_for() {
    let (mut op, _) = found(1);
    let mut flood = join(&mut op, 9);
    talk(&mut op, &mut flood, 100);
    stored_of(&mut op, &mut flood, 100, 50_000);
    assert_eq!(sent_to(&mut op, &flood, 50_000), 0);
    assert_eq!(sent_to(&mut op, &flood, 60_000), 1);
    assert_eq!(op.heads(), flood.heads());
}

/// A copy of its folder reports without end: the node hears of each, and proves it.
#[test]
fn a_node_hears_of_its_own_reports_at_any_pace() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let mut twin = clones::copy_of(&node);
    let via = op.my_key();
    for number in 0..100 {
        let announcement = announcement(&publish(&mut twin, &format!("twin {number}")));
        step(&mut node, Input::Announced { via, announcement });
        let me = node.me().unwrap();
        assert_eq!(node.reports().get(&me), twin.reports().get(&me));
    }
}

#[test]
fn reports_of_one_member_are_taken_in_at_a_pace_and_the_newest_in_the_end() {
    let (mut op, _) = found(1);
    let (mut flood, mut other) = (join(&mut op, 9), join(&mut op, 10));
    talk(&mut op, &mut flood, 100);
    talk(&mut op, &mut other, 100);
    assert_eq!(stored_of(&mut op, &mut flood, 1_000, 50_000), 64);
    // Ten seconds make room for forty more.
    assert_eq!(stored_of(&mut op, &mut flood, 1_000, 60_000), 40);
    assert_eq!(stored_of(&mut op, &mut other, 10, 60_000), 10);
    let nothing = (0..=255).map(|bucket| (bucket, vec![])).collect();
    let request = Request {
        reports: Some(Summary::Held(nothing)),
        ..Request::default()
    };
    let page = flood.page(&op.my_key(), &request);
    let from = flood.my_key();
    op.step(NOW, 70_000, Input::Answered { from, page }, &mut vec![]);
    let newest = |replica: &Replica| replica.reports().get(&flood.me().unwrap()).cloned();
    assert_eq!(newest(&op), newest(&flood));
}
