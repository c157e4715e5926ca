//! A document loaded with a snapshot is the document without it, whatever the snapshot.

use super::*;

fn load(world: &World, stored: Vec<SignedChange>, snapshot: &Snapshot) -> Document {
    Document::load(world.mesh(), stored, Some(snapshot), &world.authority()).unwrap()
}

#[test]
fn a_snapshot_that_fits_is_used_and_what_came_after_it_is_added() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let snapshot = node.document.save().finish();
    assert_eq!(node.document.unsaved(), 0);
    node.desire(&world, M1, Desired::Started);
    assert_eq!(node.document.unsaved(), 11);
    let loaded = load(&world, all(&node.document), &snapshot);
    assert_same(&loaded, &node.document);
    // What the snapshot covers is not to be applied again.
    assert_eq!(loaded.unsaved(), 11);
}

#[test]
fn a_snapshot_of_other_changes_another_mesh_or_of_garbage_is_left_aside() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let mut other = Node::new(&world, 1);
    other.edit(&world, |edit| edit.create_migration(&migration(M2)));
    let right = node.document.save().finish();
    let mut ahead = Node::new(&world, 1);
    ahead.document = node.document.clone();
    ahead.desire(&world, M1, Desired::Started);
    let stored = all(&node.document);
    for snapshot in [
        other.document.save().finish(),
        ahead.document.save().finish(),
        right.with_saved(b"garbage".to_vec()),
        right.with_saved(vec![]),
        right.with_saved(other.document.doc.save()),
        right.of_mesh(keys::MeshId([9; 32])),
        right.with_another_sum(),
    ] {
        let loaded = load(&world, stored.clone(), &snapshot);
        assert_same(&loaded, &node.document);
        assert!(loaded.unsaved() > 0);
    }
}

#[test]
fn a_revocation_since_the_snapshot_takes_back_what_is_not_honoured() {
    let mut world = World::of(&[1, 2]);
    let mut node = Node::new(&world, 2);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let honoured = node.head();
    let early = node.document.clone();
    node.desire(&world, M1, Desired::Started);
    let snapshot = node.document.save().finish();
    world.revoke(2, Some(honoured));
    let loaded = load(&world, all(&node.document), &snapshot);
    assert_same(&loaded, &early);
}

#[test]
fn the_bytes_of_a_snapshot_do_not_change() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let bytes = codec::encode(&node.document.save().finish()).unwrap();
    assert_eq!(bytes[0], 3);
    assert_eq!(&blake3::hash(&bytes).to_hex()[..16], "46e2ef5480020718");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn with_any_snapshot_the_document_is_the_same(
        steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..30),
        covered in any::<prop::sample::Index>(),
    ) {
        let (world, merged) = history(&steps);
        let stored = all(&merged);
        // Whatever some node had at some time: a part of each log.
        let part = stored[..covered.index(stored.len() + 1)].to_vec();
        let mut early = Document::new(world.mesh());
        early.offer_all(part, &world.authority());
        let snapshot = early.save().finish();
        let loaded = load(&world, stored, &snapshot);
        assert_same(&loaded, &merged);
        prop_assert_eq!(loaded.unsaved() == 0, early.digest() == merged.digest());
    }
}
