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

    let orphans = a.document.rebuild(&world.authority());
    let named = orphans.iter().map(|orphan| (orphan.author, orphan.seq));
    assert_eq!(named.collect::<Vec<_>>(), [(key(1).public(), 1)]);
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

#[test]
fn an_author_with_a_new_key_goes_on_and_its_old_log_ends_where_it_said() {
    let mut world = World::of(&[1, 2]);
    let mut node = Node::new(&world, 2);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    node.edit(&world, |edit| edit.rename(M1, "told"));
    let last = node.head();
    let mut thief = Node::new(&world, 2);
    thief.document = node.document.clone();
    let late = thief.edit(&world, |edit| edit.rename(M1, "stolen"));
    world.rotate(2, 3, last);
    node.document.rebuild(&world.authority());
    assert_eq!(node.document.plan().migrations[&M1].name, "told");
    // With the old key nothing more is said, by nobody.
    let (author, seq) = (key(2).public(), 3);
    let past = Outcome::Refused(Refusal::NotHonoured { author, seq });
    assert_eq!(node.document.offer(late, &world.authority()), past);
    let refused = node
        .document
        .edit(&key(2), NOW, &world.authority(), |edit| {
            edit.rename(M1, "no")
        });
    assert_eq!(refused, Err(EditError::NotAnOperator(author)));
    // The new key goes on where the old one ended, and who has both logs agrees.
    let mut next = Node::new(&world, 3);
    next.document = node.document.clone();
    next.edit(&world, |edit| edit.rename(M1, "went on"));
    sync(&world, &next.document, &mut thief.document);
    thief.document.rebuild(&world.authority());
    sync(&world, &next.document, &mut thief.document);
    assert_same(&thief.document, &next.document);
    assert_eq!(next.document.plan().migrations[&M1].name, "went on");
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
