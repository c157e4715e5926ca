//! A node that changes its key, and what the others make of it.

use super::*;
use crate::enrol::EnrolReply;
use crate::world::ask;

/// The replica as it comes back with the key of `seed`.
fn back(replica: &Replica, seed: u8) -> Replica {
    let reports = replica.reports();
    let reports = reports.iter().filter_map(|(node, _)| reports.signed(node));
    let changes = replica.document().heads().into_keys();
    let changes =
        changes.flat_map(|author| replica.document().entries_after(&author, 0, usize::MAX));
    let mut back = Replica::restore(
        key(seed),
        None,
        replica.ledger().clone(),
        changes.collect(),
        reports.cloned().collect(),
    )
    .unwrap();
    back.write_unheard();
    back
}

#[test]
fn a_node_comes_back_with_its_next_key_and_is_the_same_node() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let me = node.me().unwrap();
    publish(&mut node, "before");
    publish(&mut node, "still before");
    talk(&mut op, &mut node, 100);
    let mut out = vec![];
    node.rotate(&key(19), NOW, &mut out).unwrap();
    assert!(matches!(&out[0], Output::Store(records) if records.len() == 1));
    assert!(matches!(&out[1], Output::Announce(_)));
    // The others hear of it by gossip, and shut the old key out.
    let announcement = announcement(&out);
    let via = node.my_key();
    step(&mut op, Input::Announced { via, announcement });
    assert!(!op.authority().admits(NOW, &key(9).public()));
    assert!(op.reports().get(&me).is_none(), "signed with the old key");
    assert!(publish(&mut node, "with the old key").is_empty());

    let mut node = back(&node, 19);
    assert_eq!(node.me(), Some(me));
    publish(&mut node, "after");
    talk(&mut op, &mut node, 100);
    assert_eq!(op.heads(), node.heads());
    assert_eq!(op.reports().get(&me).unwrap().hostname, "after");
}

#[test]
fn report_versions_go_on_over_a_change_of_keys() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let me = node.me().unwrap();
    for _ in 0..3 {
        publish(&mut node, "x");
    }
    let stored = back(&node, 9);
    node.rotate(&key(19), NOW, &mut vec![]).unwrap();
    // The store keeps the report that was signed with the old key.
    let report = stored.reports().signed(&me).unwrap().clone();
    let ledger = node.ledger().clone();
    let mut node = Replica::restore(key(19), None, ledger, vec![], vec![report]).unwrap();
    node.write_unheard();
    assert!(node.reports().get(&me).is_none());
    publish(&mut node, "y");
    assert_eq!(node.reports().get(&me).unwrap().version, 4);
}

#[test]
fn a_peer_that_missed_the_change_of_keys_learns_it_from_the_introduction() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let mut other = join(&mut op, 10);
    talk(&mut op, &mut node, 100);
    talk(&mut op, &mut other, 100);
    node.rotate(&key(19), NOW, &mut vec![]).unwrap();
    let node = back(&node, 19);
    assert!(!other.authority().admits(NOW, &key(19).public()));
    let request = node.introduction().unwrap();
    let (reply, _) = ask(&mut other, NOW, &key(19), request, [3; 32]);
    assert_eq!(reply, EnrolReply::Introduced);
    assert!(other.authority().admits(NOW, &key(19).public()));
    assert!(!other.authority().admits(NOW, &key(9).public()));
}

#[test]
fn a_node_introduces_itself_again_to_a_peer_that_still_does_not_answer() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let from = op.my_key();
    node.step(NOW, 0, Input::Connected(from), &mut vec![]);
    let mut introductions = |mono_millis| {
        let mut out = vec![];
        node.step(NOW, mono_millis, Input::AskFailed { from }, &mut out);
        let is_one = |output: &&Output| matches!(output, Output::Introduce { .. });
        out.iter().filter(is_one).count()
    };
    assert_eq!(introductions(1_000), 1);
    assert_eq!(
        introductions(15_999),
        0,
        "a peer that is slow is left alone"
    );
    assert_eq!(introductions(16_000), 1);
    assert_eq!(introductions(17_000), 0);
}

#[test]
fn an_operator_edits_on_with_its_next_key_and_takes_back_what_it_granted_before() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    create(&mut op, 1, &mut vec![]);
    let granted = grant(&mut op, 1, &mut vec![]);
    op.rotate(&key(11), NOW, &mut vec![]).unwrap();
    let with_the_old = op.edit(
        NOW,
        |edit| edit.rename(MigrationId([1; 16]), "old"),
        &mut vec![],
    );
    assert!(matches!(with_the_old, Err(EditError::NotAnOperator(_))));
    let mut op = back(&op, 11);
    op.edit(
        NOW,
        |edit| edit.rename(MigrationId([1; 16]), "new"),
        &mut vec![],
    )
    .unwrap();
    revoke(&mut op, granted, &mut vec![]);
    talk(&mut op, &mut node, 100);
    assert_eq!(op.heads(), node.heads());
    let plan = node.document().plan();
    assert_eq!(plan.migrations[&MigrationId([1; 16])].name, "new");
    assert!(node.authority().grant(&granted).unwrap().revoked);
}

#[test]
fn a_key_is_changed_once_and_only_by_a_node_that_is_admitted() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    node.rotate(&key(19), NOW, &mut vec![]).unwrap();
    let again = node.rotate(&key(20), NOW, &mut vec![]);
    assert_eq!(again, Err(StateError::NotAdmitted));
    let mut gone = join(&mut op, 10);
    revoke(&mut op, gone.me().unwrap().into(), &mut vec![]);
    talk(&mut op, &mut gone, 100);
    let refused = gone.rotate(&key(20), NOW, &mut vec![]);
    assert_eq!(refused, Err(StateError::NotAdmitted));
}

#[test]
fn two_next_keys_raise_an_alarm_that_names_the_node() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let me = node.me().unwrap();
    let mut clone = back(&node, 9);
    let from = op.my_key();
    let mut raised = vec![];
    for (replica, next) in [(&mut node, 19), (&mut clone, 20)] {
        replica.rotate(&key(next), NOW, &mut vec![]).unwrap();
        let statements = replica.ledger().iter();
        let statements = statements.map(|(_, one)| one.signed.clone()).collect();
        let out = step(&mut op, Input::Shown { from, statements });
        raised.extend(out.into_iter().filter_map(|output| match output {
            Output::Raise(alarm) => Some(alarm),
            _ => None,
        }));
    }
    assert!(raised.contains(&Alarm::ContestedKey { node: me }));
    let mut out = vec![];
    grant(&mut op, 1, &mut out);
    let told = |output: &Output| matches!(output, Output::Raise(Alarm::ContestedKey { .. }));
    assert!(!out.iter().any(told), "people are told once");
}
