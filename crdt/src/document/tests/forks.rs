//! What a forked log does to the document: the same on every node, whatever it heard
//! first, until a revocation says which branch is honoured.

use super::*;
use crate::evidence::{Evidence, Forked, PairOutcome};

/// Two nodes with the same key that both went on after its first change.
fn forked(world: &World) -> (Node, Node) {
    let mut a = Node::new(world, 2);
    a.edit(world, |edit| edit.create_migration(&migration(M1)));
    let mut b = Node::new(world, 2);
    b.document = a.document.clone();
    for at in 0..3 {
        a.edit(world, |edit| edit.rename(M1, &format!("a{at}")));
        b.edit(world, |edit| edit.rename(M1, &format!("b{at}")));
    }
    (a, b)
}

fn pair(evidence: Evidence) -> Box<[SignedChange; 2]> {
    match evidence {
        Evidence::Changes(pair) => pair,
        Evidence::Reports(_) => panic!("a document knows of changes alone"),
    }
}

#[test]
fn what_follows_a_fork_counts_on_neither_side() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = forked(&world);
    let author = key(2).public();
    let theirs = b.document.entries_after(&author, 1, 1);
    let ours = a.document.entries_after(&author, 1, 1);
    let noticed = |outcome| matches!(outcome, Outcome::Fork(Fork { seq: 2, .. }));
    assert!(noticed(
        a.document.offer(theirs[0].clone(), &world.authority())
    ));
    assert!(noticed(
        b.document.offer(ours[0].clone(), &world.authority())
    ));
    assert_same(&a.document, &b.document);
    assert_eq!(a.document.plan().migrations[&M1].name, "shop");
    let known: Vec<Forked> = a.document.forked().collect();
    assert_eq!(known, [Forked::Changes(author, 2)]);
    assert!(b.document.forked().eq(known));
    // Nor does what either of them writes now.
    let refused = a.try_edit(&world, |edit| edit.rename(M1, "on"));
    assert_eq!(refused, Err(EditError::Forked { author, seq: 2 }));
    // It is news once.
    assert_eq!(a.document.take_forks().len(), 1);
    a.document.offer(theirs[0].clone(), &world.authority());
    assert!(a.document.take_forks().is_empty());
}

#[test]
fn a_fork_that_shows_late_goes_down_to_where_the_branches_part() {
    let world = World::of(&[1, 2]);
    let (mut a, b) = forked(&world);
    let author = key(2).public();
    let theirs = b.document.entries_after(&author, 1, usize::MAX);
    for (change, at) in theirs.iter().zip([2, 3, 4]).rev() {
        a.document.offer(change.clone(), &world.authority());
        assert!(a.document.forked().eq([Forked::Changes(author, at)]));
    }
    assert_eq!(a.document.len(), 1);
}

#[test]
fn a_change_that_follows_an_unseen_branch_waits_for_it() {
    let world = World::of(&[1, 2]);
    let (a, b) = forked(&world);
    let author = key(2).public();
    let mut node = Document::new(world.mesh());
    let ours = a.document.entries_after(&author, 0, usize::MAX);
    node.offer_all(ours[..2].to_vec(), &world.authority());
    let theirs = b.document.entries_after(&author, 1, usize::MAX);
    let waits = node.offer(theirs[1].clone(), &world.authority());
    assert_eq!(waits, Outcome::Parked);
    let shows = node.offer(theirs[0].clone(), &world.authority());
    assert!(matches!(shows, Outcome::Fork(Fork { seq: 2, .. })));
}

#[test]
fn a_pair_shows_the_fork_to_who_has_neither_and_a_false_pair_shows_nothing() {
    let world = World::of(&[1, 2]);
    let (mut a, b) = forked(&world);
    let author = key(2).public();
    sync(&world, &b.document, &mut a.document);
    let (_, evidence) = a.document.take_forks().remove(0);
    let proof = pair(evidence);
    let mut other = Document::new(world.mesh());
    let authority = world.authority();
    let offered = other.offer_fork(proof.clone(), &authority);
    assert_eq!(offered, PairOutcome::New);
    sync(&world, &b.document, &mut other);
    assert_same(&other, &a.document);
    let again = other.offer_fork(proof.clone(), &authority);
    assert_eq!(again, PairOutcome::Known);

    let log = b.document.entries_after(&author, 0, usize::MAX);
    let mut fresh = Document::new(world.mesh());
    let mut forged = proof.clone();
    forged[1].signature.0[3] ^= 1;
    let twice = Box::new([proof[0].clone(), proof[0].clone()]);
    let following = Box::new([log[0].clone(), log[1].clone()]);
    // Another operator's change of the same number.
    let mut third = Node::new(&world, 1);
    for at in 0..2 {
        third.edit(&world, |edit| {
            edit.create_migration(&migration([M1, M2][at]))
        });
    }
    let theirs = third
        .document
        .entries_after(&key(1).public(), 1, usize::MAX);
    let of_two_authors = Box::new([proof[0].clone(), theirs[0].clone()]);
    for false_pair in [forged, twice, following, of_two_authors] {
        let offered = fresh.offer_fork(false_pair, &authority);
        assert_eq!(offered, PairOutcome::Refused);
    }
    let strangers = World::of(&[1]).authority();
    let offered = fresh.offer_fork(proof, &strangers);
    assert_eq!(offered, PairOutcome::Unknown);
    assert_eq!(fresh.forked().count(), 0);
}

#[test]
fn a_fork_is_there_again_after_a_restart() {
    let world = World::of(&[1, 2]);
    let (mut a, b) = forked(&world);
    let stored = all(&a.document);
    sync(&world, &b.document, &mut a.document);
    let (_, evidence) = a.document.take_forks().remove(0);
    let authority = world.authority();
    let mut back = Document::load(world.mesh(), stored, None, &authority).unwrap();
    back.restore_fork(pair(evidence), &authority);
    assert_same(&back, &a.document);
    assert!(back.take_forks().is_empty() && back.take_admitted().is_empty());
}

#[test]
fn after_a_fork_all_nodes_come_to_the_branch_that_is_honoured() {
    let mut world = World::of(&[1, 2]);
    let (mut a, mut b) = forked(&world);
    world.revoke(2, Some(b.head()));
    a.document.rebuild(&world.authority());
    b.document.rebuild(&world.authority());
    assert!(a.document.is_empty(), "all it holds is another branch");
    let mut empty = Document::new(world.mesh());
    let stale = all(&a.document);
    for _ in 0..2 {
        empty.offer_all(stale.clone(), &world.authority());
        sync(&world, &b.document, &mut empty);
        sync(&world, &b.document, &mut a.document);
    }
    assert_same(&a.document, &b.document);
    assert_same(&empty, &b.document);
    assert_eq!(a.document.plan().migrations[&M1].name, "b2");
}

#[test]
fn a_short_losing_branch_makes_way_for_the_honoured_one() {
    let mut world = World::of(&[1, 2]);
    let (a, b) = forked(&world);
    let author = key(2).public();
    world.revoke(2, Some(b.head()));
    let mut node = Document::new(world.mesh());
    let losing = a.document.entries_after(&author, 0, usize::MAX)[..3].to_vec();
    node.offer_all(losing, &world.authority());
    assert_eq!(node.len(), 3);
    for _ in 0..2 {
        sync(&world, &b.document, &mut node);
    }
    assert_same(&node, &b.document);
    assert_eq!(node.parked(), (0, 0));
    assert!(node.take_orphans().is_empty(), "nobody makes it again");
}

#[test]
fn the_last_change_of_a_losing_branch_is_not_taken_for_the_honoured_one() {
    let mut world = World::of(&[1, 2]);
    let (a, b) = forked(&world);
    let author = key(2).public();
    world.revoke(2, Some(b.head()));
    let mut node = Document::new(world.mesh());
    let offered = node.offer_all(all(&a.document), &world.authority());
    let past = Refusal::NotHonoured { author, seq: 4 };
    assert_eq!(offered[3], Outcome::Refused(past));
    assert_eq!(node.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Two honest operators, one of whose folders was copied: whoever hears what in
    /// whichever order ends with the same plan.
    #[test]
    fn a_fork_ends_the_same_in_whatever_order_it_is_heard_of(
        order in Just((0..9_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let world = World::of(&[1, 2]);
        let (a, b) = forked(&world);
        let mut honest = Node::new(&world, 1);
        sync(&world, &a.document, &mut honest.document);
        honest.edit(&world, |edit| edit.create_migration(&migration(M2)));
        let mut changes = all(&honest.document);
        changes.extend(b.document.entries_after(&key(2).public(), 0, usize::MAX));
        let mut expected = Document::new(world.mesh());
        let mut other = Document::new(world.mesh());
        for _ in 0..2 {
            expected.offer_all(changes.clone(), &world.authority());
            let shuffled = order.iter().map(|at| changes[*at].clone());
            other.offer_all(shuffled, &world.authority());
        }
        assert_same(&other, &expected);
        prop_assert!(other.forked().eq(expected.forked()));
        prop_assert_eq!(other.plan().migrations[&M1].name.as_str(), "shop");
        prop_assert!(!other.plan().migrations.contains_key(&M2));
    }
}
