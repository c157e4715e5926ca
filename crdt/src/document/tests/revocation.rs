//! What enrolment, revocation and forks do to a document, whenever they are heard of.

use super::*;

#[test]
fn a_change_of_a_stranger_waits_until_it_is_an_operator() {
    let mut later = World::of(&[1]);
    let mut world = World::of(&[1]);
    later.enrol(2, keys::Role::Operator);
    let mut stranger = Node::new(&later, 2);
    let change = stranger.edit(&later, |edit| edit.create_migration(&migration(M1)));
    let mut document = Document::new(world.mesh());
    let offered = document.offer(change.clone(), &world.authority());
    assert_eq!(offered, Outcome::Parked);
    assert!(document.is_empty());
    world.enrol(2, keys::Role::Operator);
    assert!(document.rebuild(&world.authority()).is_empty());
    assert_same(&document, &stranger.document);
    assert_eq!(document.take_admitted(), [(1, change)]);
    assert_eq!(document.parked(), (0, 0));
}

#[test]
fn what_is_not_honoured_of_a_revoked_author_and_what_depends_on_it_does_not_count() {
    let mut world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    b.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let honoured = b.head();
    let early = b.document.clone();
    b.desire(&world, M1, Desired::Started);
    sync(&world, &b.document, &mut a.document);
    a.edit(&world, |edit| edit.rename(M1, "orphaned"));
    world.revoke(2, Some(honoured));

    let orphan = Orphan {
        author: key(1).public(),
        seq: 1,
    };
    assert_eq!(a.document.rebuild(&world.authority()), [orphan]);
    assert_same(&a.document, &early);

    // Who hears of the revocation first comes to the same.
    let mut late = Document::new(world.mesh());
    let refused = late.offer_all(all(&b.document), &world.authority());
    let (author, seq) = (key(2).public(), 2);
    let past = Outcome::Refused(Refusal::NotHonoured { author, seq });
    assert_eq!(refused, [Outcome::Admitted, past]);
    assert_same(&late, &early);

    // The orphaned edit is made again, in the place of the first, and spreads.
    a.edit(&world, |edit| edit.rename(M1, "made again"));
    sync(&world, &a.document, &mut late);
    b.document.rebuild(&world.authority());
    sync(&world, &a.document, &mut b.document);
    assert_same(&a.document, &late);
    assert_same(&a.document, &b.document);
    assert_eq!(late.plan().migrations[&M1].name, "made again");
}

#[test]
fn a_revocation_that_honours_nothing_takes_back_everything() {
    let mut world = World::of(&[1, 2]);
    let mut node = Node::new(&world, 2);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    world.revoke(2, None);
    node.document.rebuild(&world.authority());
    assert!(node.document.is_empty() && node.document.plan().migrations.is_empty());
    assert_eq!(
        node.document.content_hash(),
        Document::new(world.mesh()).content_hash()
    );
}

#[test]
fn an_author_that_is_enrolled_again_gets_its_log_back() {
    let mut world = World::of(&[1, 2]);
    let mut node = Node::new(&world, 2);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    node.desire(&world, M1, Desired::Started);
    let before = node.document.clone();
    let stored = all(&before);
    world.revoke(2, None);
    node.document.rebuild(&world.authority());
    let mut restarted = Document::load(world.mesh(), stored, None, &world.authority()).unwrap();
    assert!(restarted.is_empty());
    world.enrol(2, keys::Role::Operator);
    node.document.rebuild(&world.authority());
    restarted.rebuild(&world.authority());
    assert_same(&node.document, &before);
    assert_same(&restarted, &before);
}

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

#[test]
fn a_forked_log_is_noticed_and_changes_nothing() {
    let world = World::of(&[1, 2]);
    let (mut a, b) = forked(&world);
    let before = a.document.clone();
    let author = key(2).public();
    let theirs = b.document.entries_after(&author, 1, usize::MAX);
    for (change, at) in theirs.iter().zip([2, 3, 4]) {
        let outcome = a.document.offer(change.clone(), &world.authority());
        assert!(
            matches!(outcome, Outcome::Fork(Fork { seq, .. }) if seq == at),
            "{outcome:?}"
        );
    }
    assert_same(&a.document, &before);
    assert_eq!(a.document.forks().count(), 1);
}

#[test]
fn a_fork_is_noticed_from_what_follows_it() {
    let world = World::of(&[1, 2]);
    let (a, mut b) = forked(&world);
    let author = key(2).public();
    let mut behind = Document::new(world.mesh());
    behind.offer_all(
        a.document.entries_after(&author, 0, usize::MAX)[..2].to_vec(),
        &world.authority(),
    );
    b.desire(&world, M1, Desired::Started);
    let third = b.document.entries_after(&author, 2, 1);
    let outcome = behind.offer(third[0].clone(), &world.authority());
    assert!(matches!(outcome, Outcome::Fork(Fork { seq: 2, .. })));
}

#[test]
fn after_a_fork_all_nodes_come_to_the_branch_that_is_honoured() {
    let mut world = World::of(&[1, 2]);
    let (mut a, mut b) = forked(&world);
    world.revoke(2, Some(b.head()));
    a.document.rebuild(&world.authority());
    b.document.rebuild(&world.authority());
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
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_a_revocation_leaves_does_not_depend_on_when_it_was_heard(
        steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..30),
        honoured in 0_usize..8,
        heard_after in 0_usize..40,
    ) {
        let (mut world, merged) = history(&steps);
        let author = key(2).public();
        let log = merged.entries_after(&author, 0, usize::MAX);
        let end = log.get(..honoured.min(log.len())).and_then(<[_]>::last).map(|last| {
            let parsed = admission::parse(last.clone()).unwrap();
            Position { seq: parsed.seq(), hash: parsed.hash().0 }
        });
        let unrevoked = world.authority();
        world.revoke(2, end);
        let changes = all(&merged);
        let mut expected = merged;
        expected.rebuild(&world.authority());
        let mut other = Document::new(world.mesh());
        let (before, after) = changes.split_at(heard_after.min(changes.len()));
        other.offer_all(before.to_vec(), &unrevoked);
        other.rebuild(&world.authority());
        other.offer_all(after.to_vec(), &world.authority());
        assert_same(&other, &expected);
    }
}
