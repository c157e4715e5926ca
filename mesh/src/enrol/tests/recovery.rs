//! Recovering a mesh with its root key, by asking any member.

use super::*;
use crate::replica::{Input, Recovering, StateError};
use crate::world::{keyless, talk};
use keys::{Identity, RootKey};

fn root_key(op: &Replica, seed: u8) -> RootKey {
    RootKey {
        mesh: op.ledger().mesh(),
        name: name("test"),
        identity: key(seed),
    }
}

/// The conversation of a recovery; what the member answered in the end.
fn recover(member: &mut Replica, root: RootKey, joiner: &Identity) -> EnrolReply {
    let recoverer = Recoverer::new(root, joiner.public(), member.my_key());
    let (challenge, _) = ask(member, NOW, joiner, recoverer.start(), [3; 32]);
    match recoverer.answered(challenge) {
        Ok(JoinStep::Send(request)) => ask(member, NOW, joiner, request, [4; 32]).0,
        other => panic!("no proof was asked for: {other:?}"),
    }
}

#[test]
fn with_the_root_key_and_any_member_an_operator_is_made_that_revokes_the_lost_one() {
    let mut op = keyless(found(1).0);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let lost = op.me().unwrap();
    drop(op);

    let root = root_key(&node, 101);
    let reply = recover(&mut node, root.clone(), &key(8));
    let recoverer = Recoverer::new(root.clone(), key(8).public(), node.my_key());
    let Ok(JoinStep::Done(ledger)) = recoverer.answered(reply) else {
        panic!("not recovered");
    };
    let recovering = Recovering {
        node: name("next"),
        roles: [Role::Provisioner].into_iter().collect(),
        site: None,
    };
    let other = Replica::recover(key(8), &key(77), (*ledger).clone(), recovering.clone(), NOW);
    assert_eq!(other.err(), Some(StateError::AnotherRoot));
    let made = Replica::recover(key(8), &root.identity, *ledger, recovering, NOW);
    let (mut next, records) = made.unwrap();
    let restored = crate::world::restored(key(8), &records);
    assert_eq!(restored.heads(), next.heads());

    // The member does not know it yet; the introduction tells.
    assert!(!node.authority().admits(NOW, &key(8).public()));
    let introduction = next.introduction().unwrap();
    let (reply, _) = ask(&mut node, NOW, &key(8), introduction, [5; 32]);
    assert_eq!(reply, EnrolReply::Introduced);
    assert!(node.authority().admits(NOW, &key(8).public()));
    talk(&mut next, &mut node, 100);
    assert_eq!(next.heads(), node.heads());

    // It goes on where the root's chain ended, and takes back the operator that is lost.
    assert_eq!(next.ledger().forks().len(), 0);
    let revocation = Statement::Revocation(Revocation {
        target: lost.into(),
        honours: None,
        reason: "lost".into(),
    });
    next.state_as_root(&root.identity, NOW, revocation, &mut vec![])
        .unwrap();
    talk(&mut next, &mut node, 100);
    assert!(!node.authority().admits(NOW, &key(1).public()));
    assert!(node.authority().admits(NOW, &key(8).public()));
    assert_eq!(node.ledger().forks().len(), 0);
}

#[test]
fn who_holds_another_key_than_the_root_is_told_nothing() {
    let mut op = keyless(found(1).0);
    let other = root_key(&op, 77);
    assert_eq!(
        denied(&recover(&mut op, other, &key(8))),
        DeniedCode::NotRoot
    );
    // An operator's key is no root key.
    let operators = root_key(&op, 1);
    assert_eq!(
        denied(&recover(&mut op, operators, &key(8))),
        DeniedCode::NotRoot
    );
    let (foreign, _) = found(2);
    let foreign = root_key(&foreign, 102);
    let recoverer = Recoverer::new(foreign, key(8).public(), op.my_key());
    let (reply, _) = ask(&mut op, NOW, &key(8), recoverer.start(), [3; 32]);
    assert_eq!(denied(&reply), DeniedCode::AnotherMesh);
}

#[test]
fn a_recovery_proof_is_good_for_one_challenge_one_key_and_one_member() {
    let mut op = keyless(found(1).0);
    let mut node = join(&mut op, 9);
    let root = root_key(&op, 101);
    let recoverer = Recoverer::new(root, key(8).public(), op.my_key());
    let (challenge, _) = ask(&mut op, NOW, &key(8), recoverer.start(), [3; 32]);
    let proof = match recoverer.answered(challenge).unwrap() {
        JoinStep::Send(request) => request,
        JoinStep::Done(_) => panic!("done without a proof"),
    };
    // Somebody else shows it, with a challenge of their own; another member gets it.
    ask(&mut op, NOW, &key(10), recoverer.start(), [3; 32]);
    let (reply, _) = ask(&mut op, NOW, &key(10), proof.clone(), [4; 32]);
    assert_eq!(denied(&reply), DeniedCode::NotRoot);
    ask(&mut node, NOW, &key(8), recoverer.start(), [3; 32]);
    let (reply, _) = ask(&mut node, NOW, &key(8), proof.clone(), [4; 32]);
    assert_eq!(denied(&reply), DeniedCode::NotRoot);
    // The first use of it is good, the second is not.
    let (reply, _) = ask(&mut op, NOW, &key(8), proof.clone(), [4; 32]);
    assert!(matches!(reply, EnrolReply::Known { .. }));
    let (reply, _) = ask(&mut op, NOW, &key(8), proof, [4; 32]);
    assert_eq!(denied(&reply), DeniedCode::NotRoot);
}

#[test]
fn a_challenge_to_join_is_no_challenge_to_recover() {
    let mut op = keyless(found(1).0);
    let token = invite(&mut op, 60, 1, 5_000, &mut vec![]);
    let (reply, _) = ask(&mut op, NOW, &key(8), hello(&token), [3; 32]);
    assert!(matches!(reply, EnrolReply::Challenge { .. }));
    let root = root_key(&op, 101);
    let recoverer = Recoverer::new(root, key(8).public(), op.my_key());
    let Ok(JoinStep::Send(proof)) = recoverer.answered(reply) else {
        panic!("a challenge is answered");
    };
    let (reply, _) = ask(&mut op, NOW, &key(8), proof, [4; 32]);
    assert_eq!(denied(&reply), DeniedCode::NotRoot);
}

#[test]
fn a_challenge_to_recover_or_to_another_invite_is_no_challenge_to_join() {
    let (mut op, _) = found(1);
    let token = invite(&mut op, 60, 1, 5_000, &mut vec![]);
    let other = invite(&mut op, 61, 1, 5_000, &mut vec![]);
    let joiner = Joiner::new(token, key(8), name("node"));
    let mesh = op.ledger().mesh();
    for request in [EnrolRequest::Recover { mesh }, hello(&other)] {
        let (reply, _) = ask(&mut op, NOW, &key(8), request, [3; 32]);
        assert!(matches!(reply, EnrolReply::Challenge { .. }));
        let (reply, _) = ask(&mut op, NOW, &key(8), prove(&joiner, reply), [4; 32]);
        assert_eq!(denied(&reply), DeniedCode::BadProof);
    }
}

#[test]
fn who_recovers_trusts_no_answer_of_another_mesh() {
    let mut op = keyless(found(1).0);
    let reply = {
        let root = root_key(&op, 101);
        recover(&mut op, root, &key(8))
    };
    let (other, _) = found(2);
    for root in [root_key(&other, 101), root_key(&op, 77)] {
        let recoverer = Recoverer::new(root, key(8).public(), op.my_key());
        let answered = recoverer.answered(reply.clone());
        assert_eq!(answered.unwrap_err(), JoinError::Untrusted);
    }
    // And a node whose question fails shows itself, once for each connection.
    let mut out = vec![];
    let peer = key(40).public();
    op.step(NOW, 0, Input::Connected(peer), &mut out);
    for _ in 0..2 {
        op.step(NOW, 0, Input::AskFailed { from: peer }, &mut out);
    }
    let shown = out.iter().filter(|output| {
        matches!(output, Output::Introduce { to, request: EnrolRequest::Introduce { .. } } if *to == peer)
    });
    assert_eq!(shown.count(), 1);
}
