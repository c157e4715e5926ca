//! Enrolment: who is let in, who is not, and with what answer.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::replica::{Output, Record, Replica};
use crate::world::{NOW, ask, enrol, found, invite, join, key, name};
use keys::invite::Token;
use keys::{Revocation, Role, Statement};

mod introduction;
mod operators;
mod recovery;

fn hello(token: &Token) -> EnrolRequest {
    EnrolRequest::Hello {
        mesh: token.mesh,
        invite: token.invite,
    }
}

fn denied(reply: &EnrolReply) -> DeniedCode {
    match reply {
        EnrolReply::Denied { code } => *code,
        other => panic!("not denied: {other:?}"),
    }
}

fn prove(joiner: &Joiner, reply: EnrolReply) -> EnrolRequest {
    match joiner.answered(reply).unwrap() {
        JoinStep::Send(request) => request,
        JoinStep::Done(_) => panic!("enrolled without a proof"),
    }
}

fn revoke(op: &mut Replica, target: StatementId) {
    let revocation = Statement::Revocation(Revocation {
        target,
        honours: None,
        reason: String::new(),
    });
    op.state(NOW, revocation, &mut vec![]).unwrap();
}

#[test]
fn a_joiner_is_enrolled_with_what_the_invite_offers_and_can_check_it() {
    let (mut op, _) = found(1);
    let token = invite(&mut op, 60, 1, 5_000, &mut vec![]);
    let ledger = enrol(&mut op, &key(9), token);
    let authority = keys::authority::authority(&ledger);
    let member = authority.by_key(&key(9).public()).unwrap();
    assert!(authority.admits(NOW, &key(9).public()));
    assert!(member.roles.has(Role::Agent) && member.roles.has(Role::Replicator));
    assert!(!member.roles.has(Role::Operator) && !member.roles.has(Role::Provisioner));
    assert_eq!(op.authority().by_key(&key(9).public()), Some(member));
}

#[test]
fn an_enrolment_is_stored_before_it_is_answered_and_then_announced() {
    let (mut op, _) = found(1);
    let token = invite(&mut op, 60, 1, 5_000, &mut vec![]);
    let joiner = Joiner::new(token, key(9), name("node"));
    let (challenge, _) = ask(&mut op, NOW, &key(9), joiner.start(), [3; 32]);
    let (_, out) = ask(&mut op, NOW, &key(9), prove(&joiner, challenge), [4; 32]);
    let at = |wanted: fn(&Output) -> bool| out.iter().position(wanted).unwrap();
    let stored = at(
        |output| matches!(output, Output::Store(records) if matches!(records[..], [Record::Statement(_)])),
    );
    assert!(stored < at(|output| matches!(output, Output::AnswerEnrol { .. })));
    assert!(stored < at(|output| matches!(output, Output::Announce(_))));
}

#[test]
fn an_invite_of_another_mesh_or_of_nobody_is_denied() {
    let (mut op, _) = found(1);
    let (mut other, _) = found(2);
    let foreign = invite(&mut other, 60, 1, 5_000, &mut vec![]);
    let (reply, _) = ask(&mut op, NOW, &key(9), hello(&foreign), [3; 32]);
    assert_eq!(denied(&reply), DeniedCode::AnotherMesh);
    let unknown = EnrolRequest::Hello {
        mesh: op.ledger().mesh(),
        invite: StatementId([5; 32]),
    };
    let (reply, _) = ask(&mut op, NOW, &key(9), unknown, [3; 32]);
    assert_eq!(denied(&reply), DeniedCode::UnknownInvite);
}

#[test]
fn an_invite_admits_only_at_the_node_that_made_it() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let token = invite(&mut op, 61, 1, 5_000, &mut vec![]);
    crate::world::talk(&mut op, &mut node, 100);
    assert!(node.authority().invite(&token.invite).is_some());
    let (reply, _) = ask(&mut node, NOW, &key(10), hello(&token), [3; 32]);
    assert_eq!(denied(&reply), DeniedCode::UnknownInvite);
}

#[test]
fn an_expired_a_revoked_and_a_used_invite_each_say_so() {
    let (mut op, _) = found(1);
    let token = invite(&mut op, 60, 1, 5_000, &mut vec![]);
    let (reply, _) = ask(&mut op, UnixSecs(5_000), &key(9), hello(&token), [3; 32]);
    assert_eq!(denied(&reply), DeniedCode::Expired);

    enrol(&mut op, &key(9), token.clone());
    let (reply, _) = ask(&mut op, NOW, &key(10), hello(&token), [3; 32]);
    assert_eq!(denied(&reply), DeniedCode::Used);

    let other = invite(&mut op, 61, 1, 5_000, &mut vec![]);
    revoke(&mut op, other.invite);
    let (reply, _) = ask(&mut op, NOW, &key(10), hello(&other), [3; 32]);
    assert_eq!(denied(&reply), DeniedCode::Revoked);
}

#[test]
fn an_invite_for_two_enrols_two_and_no_third() {
    let (mut op, _) = found(1);
    let token = invite(&mut op, 60, 2, 5_000, &mut vec![]);
    enrol(&mut op, &key(9), token.clone());
    enrol(&mut op, &key(10), token.clone());
    for seed in [9, 10] {
        assert!(op.authority().admits(NOW, &key(seed).public()));
    }
    let (reply, _) = ask(&mut op, NOW, &key(11), hello(&token), [3; 32]);
    assert_eq!(denied(&reply), DeniedCode::Used);
}

#[test]
fn a_lost_answer_is_given_again_and_burns_no_second_use() {
    let (mut op, _) = found(1);
    let token = invite(&mut op, 60, 2, 5_000, &mut vec![]);
    enrol(&mut op, &key(9), token.clone());
    let statements = op.ledger().len();
    let ledger = enrol(&mut op, &key(9), token.clone());
    assert_eq!(op.ledger().len(), statements);
    let authority = keys::authority::authority(&ledger);
    assert!(authority.admits(NOW, &key(9).public()));
    assert_eq!(op.authority().invite(&token.invite).unwrap().used.len(), 1);
}

#[test]
fn a_key_that_was_revoked_does_not_come_back_with_its_old_invite() {
    let (mut op, _) = found(1);
    let token = invite(&mut op, 60, 1, 5_000, &mut vec![]);
    enrol(&mut op, &key(9), token.clone());
    let member = op.authority().by_key(&key(9).public()).unwrap().id;
    revoke(&mut op, member.into());
    let (reply, _) = ask(&mut op, NOW, &key(9), hello(&token), [3; 32]);
    assert_eq!(denied(&reply), DeniedCode::KeyRevoked);
}

#[test]
fn a_key_that_lost_its_place_does_not_come_back_by_another_invite() {
    let (mut op, _) = found(1);
    let [mut revoked, mut rotated] = [9, 10].map(|seed| join(&mut op, seed));
    let target = revoked.me().unwrap().into();
    revoke(&mut op, target);
    rotated.rotate(&key(20), NOW, &mut vec![]).unwrap();
    for node in [&mut revoked, &mut rotated] {
        crate::world::talk(&mut op, node, 100);
    }
    assert!(op.authority().admits(NOW, &key(20).public()));
    let token = invite(&mut op, 70, 5, 5_000, &mut vec![]);
    for seed in [9, 10] {
        let (reply, _) = ask(&mut op, NOW, &key(seed), hello(&token), [3; 32]);
        assert_eq!(denied(&reply), DeniedCode::KeyRevoked);
    }
}

#[test]
fn who_joins_by_an_invite_that_gives_a_name_takes_that_name() {
    let (mut op, _) = found(1);
    let mut token = invite(&mut op, 60, 1, 5_000, &mut vec![]);
    let invited = op.authority().invite(&token.invite).unwrap().invite.clone();
    let named = keys::statement::Invite {
        name: Some(name("given")),
        ..invited
    };
    let stated = op.state(NOW, Statement::Invite(named), &mut vec![]);
    token.invite = stated.unwrap();
    let joiner = Joiner::new(token, key(9), name("chosen"));
    let (reply, _) = ask(&mut op, NOW, &key(9), joiner.start(), [3; 32]);
    let given = Some(name("given"));
    let nonce = [3; 32];
    assert_eq!(reply, EnrolReply::Challenge { nonce, name: given });
    // As if the challenge had left it the choice.
    let free = EnrolReply::Challenge { nonce, name: None };
    let (denial, _) = ask(&mut op, NOW, &key(9), prove(&joiner, free), [4; 32]);
    assert_eq!(denied(&denial), DeniedCode::BadProof);
    ask(&mut op, NOW, &key(9), joiner.start(), [3; 32]);
    let (enrolled, _) = ask(&mut op, NOW, &key(9), prove(&joiner, reply), [4; 32]);
    assert!(matches!(enrolled, EnrolReply::Enrolled { .. }));
    let member = op.authority().by_key(&key(9).public()).unwrap();
    assert_eq!(member.name, name("given"));
}

#[test]
fn a_proof_is_good_for_one_challenge_and_one_key() {
    let (mut op, _) = found(1);
    let token = invite(&mut op, 60, 3, 5_000, &mut vec![]);
    let joiner = Joiner::new(token.clone(), key(9), name("node"));
    let (challenge, _) = ask(&mut op, NOW, &key(9), joiner.start(), [3; 32]);
    let proof = prove(&joiner, challenge);

    // Somebody else shows it, with a challenge of their own and without one.
    let (reply, _) = ask(&mut op, NOW, &key(10), proof.clone(), [4; 32]);
    assert_eq!(denied(&reply), DeniedCode::BadProof);
    ask(&mut op, NOW, &key(10), hello(&token), [3; 32]);
    let (reply, _) = ask(&mut op, NOW, &key(10), proof.clone(), [4; 32]);
    assert_eq!(denied(&reply), DeniedCode::BadProof);

    // A newer challenge takes the place of the one that was signed, and one wrong
    // answer uses it up.
    let (newer, _) = ask(&mut op, NOW, &key(9), hello(&token), [5; 32]);
    for proof in [proof, prove(&joiner, newer)] {
        let (reply, _) = ask(&mut op, NOW, &key(9), proof, [6; 32]);
        assert_eq!(denied(&reply), DeniedCode::BadProof);
    }
    assert_eq!(op.authority().invite(&token.invite).unwrap().used.len(), 0);
}

#[test]
fn a_challenge_is_not_answered_after_its_time() {
    let (mut op, _) = found(1);
    let token = invite(&mut op, 60, 1, 5_000, &mut vec![]);
    let joiner = Joiner::new(token, key(9), name("node"));
    let (challenge, _) = ask(&mut op, NOW, &key(9), joiner.start(), [3; 32]);
    let late = UnixSecs(NOW.0 + CHALLENGE_SECS);
    let (reply, _) = ask(&mut op, late, &key(9), prove(&joiner, challenge), [4; 32]);
    assert_eq!(denied(&reply), DeniedCode::BadProof);
}

#[test]
fn a_changed_name_and_a_wrong_secret_are_no_proof() {
    let (mut op, _) = found(1);
    let token = invite(&mut op, 60, 1, 5_000, &mut vec![]);
    let mut wrong = token.clone();
    wrong.seed = [77; 32];
    let joiner = Joiner::new(wrong, key(9), name("node"));
    let (challenge, _) = ask(&mut op, NOW, &key(9), joiner.start(), [3; 32]);
    let (reply, _) = ask(&mut op, NOW, &key(9), prove(&joiner, challenge), [4; 32]);
    assert_eq!(denied(&reply), DeniedCode::BadProof);

    let joiner = Joiner::new(token, key(9), name("node"));
    let (challenge, _) = ask(&mut op, NOW, &key(9), joiner.start(), [3; 32]);
    let EnrolRequest::Prove { invite, proof, .. } = prove(&joiner, challenge) else {
        panic!("a challenge is answered with a proof");
    };
    let renamed = EnrolRequest::Prove {
        invite,
        name: name("other"),
        proof,
    };
    let (reply, _) = ask(&mut op, NOW, &key(9), renamed, [4; 32]);
    assert_eq!(denied(&reply), DeniedCode::BadProof);
}

#[test]
fn open_challenges_are_bounded_and_the_oldest_is_forgotten() {
    let (op, _) = found(1);
    let mut op = op;
    let token = invite(&mut op, 60, 500, 5_000, &mut vec![]);
    let mut admission = Admission::default();
    let me = op.my_key();
    for seed in 0..200 {
        let decision = admission.step(
            NOW,
            [seed; 32],
            me,
            key(seed).public(),
            hello(&token),
            op.authority(),
        );
        assert!(matches!(
            decision,
            Decision::Reply(EnrolReply::Challenge { .. })
        ));
    }
    assert_eq!(admission.open.len(), MAX_CHALLENGES);
    // The oldest were forgotten, though all were made within a second.
    let newest = 200 - MAX_CHALLENGES as u8..200;
    let newest: std::collections::BTreeSet<PublicKey> =
        newest.map(|seed| key(seed).public()).collect();
    assert!(admission.open.keys().eq(&newest));
    // Who asks again takes its own place and nobody else's.
    let (again, nonce) = (key(199).public(), [7; 32]);
    admission.step(NOW, nonce, me, again, hello(&token), op.authority());
    assert!(admission.open.keys().eq(&newest));
}

#[test]
fn a_joiner_trusts_no_answer_that_does_not_lead_from_the_mesh_to_itself() {
    let (mut op, _) = found(1);
    let token = invite(&mut op, 60, 2, 5_000, &mut vec![]);
    let joiner = Joiner::new(token.clone(), key(9), name("node"));
    let (challenge, _) = ask(&mut op, NOW, &key(9), joiner.start(), [3; 32]);
    let (reply, _) = ask(&mut op, NOW, &key(9), prove(&joiner, challenge), [4; 32]);
    let EnrolReply::Enrolled { enrolment, chain } = reply else {
        panic!("not enrolled");
    };
    let untrusted = |enrolment: &Signed, chain: &[Signed]| {
        let reply = EnrolReply::Enrolled {
            enrolment: enrolment.clone(),
            chain: chain.to_vec(),
        };
        assert_eq!(joiner.answered(reply).unwrap_err(), JoinError::Untrusted);
    };
    untrusted(&enrolment, &[]);
    untrusted(&enrolment, &chain[1..]);
    untrusted(&enrolment, &chain[..chain.len() - 1]);
    untrusted(&chain[1], &chain);
    let mut forged = enrolment.clone();
    forged.signature.0[5] ^= 1;
    untrusted(&forged, &chain);

    // The enrolment of another node, and a mesh of somebody else's.
    let (mut other, _) = found(2);
    let foreign = invite(&mut other, 61, 1, 5_000, &mut vec![]);
    let theirs = enrol(&mut other, &key(9), foreign);
    let genesis = theirs
        .get(&StatementId(theirs.mesh().0))
        .unwrap()
        .signed
        .clone();
    untrusted(&enrolment, &[&[genesis], &chain[1..]].concat());
    let another = Joiner::new(token, key(10), name("node"));
    let reply = EnrolReply::Enrolled { enrolment, chain };
    assert_eq!(another.answered(reply).unwrap_err(), JoinError::Untrusted);
}

#[test]
fn a_node_that_is_no_operator_says_that_it_cannot_enrol() {
    let (mut op, _) = found(1);
    let token = invite(&mut op, 60, 1, 5_000, &mut vec![]);
    let joiner = Joiner::new(token, key(9), name("node"));
    let (challenge, _) = ask(&mut op, NOW, &key(9), joiner.start(), [3; 32]);
    let proof = prove(&joiner, challenge);
    let me = op.authority().by_key(&op.my_key()).unwrap().id;
    revoke(&mut op, me.into());
    // Its invites were revoked with it.
    let (reply, _) = ask(&mut op, NOW, &key(9), proof, [4; 32]);
    assert_eq!(denied(&reply), DeniedCode::Revoked);
}
