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
