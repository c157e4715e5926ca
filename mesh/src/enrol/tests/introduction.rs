//! A node that is not known yet shows what makes it one; nobody else gets in by that.

use super::*;
use crate::world::talk;

/// What makes the key of `seed` a node, as `replica` has it.
fn introduction(replica: &Replica, seed: u8) -> EnrolRequest {
    let ledger = replica.ledger();
    let origins = ledger.origins(&key(seed).public());
    let chain = ledger.chain(origins, MAX_CHAIN).unwrap();
    EnrolRequest::Introduce { chain }
}

#[test]
fn a_node_that_was_enrolled_elsewhere_makes_itself_known() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let late = join(&mut op, 10);
    let request = late.introduction().unwrap();
    let (reply, out) = ask(&mut node, NOW, &key(10), request, [3; 32]);
    assert_eq!(reply, EnrolReply::Introduced);
    assert!(node.authority().admits(NOW, &key(10).public()));
    // What it took in is durable before it says so, and what others get as well.
    let at = |wanted: fn(&Output) -> bool| out.iter().position(wanted).unwrap();
    let stored = at(|output| matches!(output, Output::Store(records) if records.len() == 2));
    assert!(stored < at(|output| matches!(output, Output::AnswerEnrol { .. })));
}

#[test]
fn who_is_known_already_is_told_so_whatever_it_shows() {
    let (mut op, _) = found(1);
    join(&mut op, 9);
    let before = op.heads();
    let request = EnrolRequest::Introduce { chain: vec![] };
    let (reply, out) = ask(&mut op, NOW, &key(9), request, [3; 32]);
    assert_eq!((reply, out.len()), (EnrolReply::Introduced, 1));
    assert_eq!(op.heads(), before);
}

#[test]
fn nobody_is_introduced_by_the_statements_of_another() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    join(&mut op, 10);
    let before = node.heads();
    let request = introduction(&op, 10);
    let (reply, _) = ask(&mut node, NOW, &key(11), request, [3; 32]);
    assert_eq!(denied(&reply), DeniedCode::NotIntroduced);
    assert_eq!(node.heads(), before);
}

#[test]
fn an_introduction_that_does_not_hold_up_leaves_nothing_behind() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    join(&mut op, 10);
    let EnrolRequest::Introduce { chain } = introduction(&op, 10) else {
        panic!("an introduction");
    };
    let before = node.heads();
    let mut forged = chain.clone();
    forged.last_mut().unwrap().signature.0[3] ^= 1;
    let (mut other, _) = found(2);
    join(&mut other, 10);
    let EnrolRequest::Introduce { chain: foreign } = introduction(&other, 10) else {
        panic!("an introduction");
    };
    let long = [chain.clone(), vec![chain[0].clone(); MAX_CHAIN]].concat();
    let with_foreign = [&chain[..], &foreign[1..]].concat();
    for chain in [
        vec![],
        chain[1..].to_vec(),
        chain[..chain.len() - 1].to_vec(),
        forged,
        foreign,
        long,
        with_foreign,
    ] {
        let request = EnrolRequest::Introduce { chain };
        let (reply, _) = ask(&mut node, NOW, &key(10), request, [3; 32]);
        assert_eq!(denied(&reply), DeniedCode::NotIntroduced);
    }
    assert_eq!(node.heads(), before);
    assert!(!node.authority().admits(NOW, &key(10).public()));
}

#[test]
fn who_was_revoked_is_not_introduced_again_with_whatever_key() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let mut gone = join(&mut op, 10);
    talk(&mut op, &mut node, 100);
    let target = gone.me().unwrap().into();
    revoke(&mut op, target);
    talk(&mut op, &mut node, 100);
    let before = node.heads();
    let request = gone.introduction().unwrap();
    let (reply, _) = ask(&mut node, NOW, &key(10), request, [3; 32]);
    assert_eq!(denied(&reply), DeniedCode::KeyRevoked);
    // It gives itself a new key, which says nothing to those who know better.
    gone.rotate(&key(44), NOW, &mut vec![]).unwrap();
    let request = introduction(&gone, 44);
    let (reply, _) = ask(&mut node, NOW, &key(44), request, [3; 32]);
    assert_eq!(denied(&reply), DeniedCode::KeyRevoked);
    assert_eq!(node.heads(), before, "and leaves nothing behind");
}
