//! Checkpoints in the document: one register for each.

use super::*;
use crate::plan::checkpoint::{Checkpoint, Checkpoints, MAX_CHECKPOINTS, MAX_REMEMBERED, Wish};
use keys::CheckpointName;

fn name(text: &str) -> CheckpointName {
    CheckpointName::new(text).unwrap()
}

fn checkpoints(node: &Node) -> &Checkpoints {
    &node.document.plan().migrations[&M1].checkpoints
}

fn wish(node: &Node, of: &str) -> Option<Wish> {
    let found = checkpoints(node).named.get(&name(of));
    found.map(|checkpoint| checkpoint.wish)
}

#[test]
fn checkpoints_are_asked_for_copied_deleted_and_never_asked_for_twice() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    let a = name("a");
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    node.edit(&world, |edit| edit.ask_checkpoint(M1, &a, Wish::Kept));
    assert_eq!(wish(&node, "a"), Some(Wish::Kept));
    node.edit(&world, |edit| edit.set_checkpoint(M1, &a, Wish::Copied));
    node.edit(&world, |edit| edit.keep_checkpoints(M1, Some(3)));
    assert_eq!(wish(&node, "a"), Some(Wish::Copied));
    node.edit(&world, |edit| edit.set_checkpoint(M1, &a, Wish::Deleted));
    assert_eq!(checkpoints(&node).get(&a), None);
    let again = node.try_edit(&world, |edit| edit.ask_checkpoint(M1, &a, Wish::Kept));
    let (id, exists) = (M1, a.clone());
    assert_eq!(again, Err(EditError::CheckpointExists { id, name: exists }));
    let had = checkpoints(&node).named[&a].asked_at;
    // However the clocks go, what is asked for next is newer.
    let b = name("b");
    node.edit(&world, |edit| edit.ask_checkpoint(M1, &b, Wish::Kept));
    assert!(checkpoints(&node).named[&b].asked_at > had);
    let revived = node.try_edit(&world, |edit| edit.set_checkpoint(M1, &a, Wish::Kept));
    assert!(matches!(revived, Err(EditError::UnknownCheckpoint { .. })));
    let loaded = Document::load(world.mesh(), all(&node.document), None, &world.authority());
    assert_same(&loaded.unwrap(), &node.document);
    assert_eq!(checkpoints(&node).keep, Some(3));
    node.edit(&world, |edit| edit.keep_checkpoints(M1, None));
    assert_eq!(checkpoints(&node).keep, None);
    let none = node.try_edit(&world, |edit| edit.keep_checkpoints(M1, Some(0)));
    assert!(matches!(none, Err(EditError::Unsound { .. })), "{none:?}");
}

#[test]
fn what_was_deleted_apart_stays_deleted_and_the_greater_number_is_kept() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    a.edit(&world, |edit| edit.create_migration(&migration(M1)));
    a.edit(&world, |edit| {
        edit.ask_checkpoint(M1, &name("x"), Wish::Kept)
    });
    sync(&world, &a.document, &mut b.document);
    a.edit(&world, |edit| {
        edit.set_checkpoint(M1, &name("x"), Wish::Deleted)?;
        edit.ask_checkpoint(M1, &name("y"), Wish::Copied)?;
        edit.keep_checkpoints(M1, Some(2))
    });
    b.edit(&world, |edit| {
        edit.set_checkpoint(M1, &name("x"), Wish::Copied)?;
        edit.ask_checkpoint(M1, &name("y"), Wish::Kept)?;
        edit.keep_checkpoints(M1, Some(5))
    });
    sync(&world, &a.document, &mut b.document);
    sync(&world, &b.document, &mut a.document);
    assert_same(&a.document, &b.document);
    assert_eq!(wish(&a, "x"), Some(Wish::Deleted));
    assert_eq!(wish(&a, "y"), Some(Wish::Copied));
    assert_eq!(checkpoints(&a).keep, Some(5));
}

#[test]
fn there_is_an_end_to_how_many_there_are_and_the_oldest_that_were_deleted_are_forgotten() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let asked = node.try_edit(&world, |edit| {
        let mut numbers = 0..=MAX_CHECKPOINTS;
        numbers
            .try_for_each(|number| edit.ask_checkpoint(M1, &name(&number.to_string()), Wish::Kept))
    });
    assert_eq!(asked, Err(EditError::TooManyCheckpoints(M1)));
    node.edit(&world, |edit| {
        (0..=MAX_REMEMBERED).try_for_each(|number| {
            let name = name(&number.to_string());
            edit.ask_checkpoint(M1, &name, Wish::Kept)?;
            edit.set_checkpoint(M1, &name, Wish::Deleted)
        })
    });
    assert_eq!(checkpoints(&node).named.len(), MAX_REMEMBERED);
    assert_eq!(wish(&node, "0"), None);
}

#[test]
fn checkpoints_have_these_bytes() {
    let checkpoint = Checkpoint {
        wish: Wish::Copied,
        asked_at: keys::UnixSecs(1_764_216_900),
    };
    assert_eq!(checkpoint.to_string(), "copied 1764216900");
    assert_eq!(
        crate::schema::checkpoint_key(&name("a-1")),
        "checkpoint/a-1"
    );
    assert_eq!(crate::schema::KEEP, "keep-checkpoints");
}
