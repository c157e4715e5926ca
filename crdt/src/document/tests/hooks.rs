//! Hooks in the document: one register for each migration.

use super::*;
use crate::conflicts::Conflicts;
use crate::plan::hook::{Hook, MAX_HOOKS, Point, Side, hooks_text};

fn hook(name: &str) -> Hook {
    Hook {
        env: vec![("HOOK_PORT".into(), "5432".into())],
        ..Hook::new(Point::BeforeReplication, Side::Source, name)
    }
}

fn hooks(node: &Node) -> Vec<Hook> {
    node.document.plan().migrations[&M1].hooks.clone()
}

#[test]
fn hooks_are_planned_with_a_migration_and_after_it_and_taken_away() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    let plan = MigrationPlan {
        hooks: vec![hook("first")],
        ..migration(M1)
    };
    node.edit(&world, |edit| edit.create_migration(&plan));
    assert_eq!(hooks(&node), [hook("first")]);
    let two = [hook("second"), hook("first")];
    node.edit(&world, |edit| edit.set_hooks(M1, &two));
    assert_eq!(hooks(&node), two);
    let same = node.try_edit(&world, |edit| edit.set_hooks(M1, &two));
    assert_eq!(same, Ok(None));
    node.edit(&world, |edit| edit.set_hooks(M1, &[]));
    assert_eq!(hooks(&node), []);
    let loaded = Document::load(world.mesh(), all(&node.document), None, &world.authority());
    assert_same(&loaded.unwrap(), &node.document);
}

#[test]
fn hooks_that_cannot_be_are_not_written() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    for bad in [
        vec![hook("../etc/passwd")],
        vec![hook("x"); MAX_HOOKS + 1],
        vec![Hook::new(Point::BeforeFreeze, Side::Provisioner, "x")],
    ] {
        let refused = node.try_edit(&world, |edit| edit.set_hooks(M1, &bad));
        let entry = EntryId::Migration(M1);
        let field = "hooks";
        assert_eq!(refused, Err(EditError::Unsound { entry, field }));
    }
    assert_eq!(hooks(&node), []);
}

#[test]
fn hooks_set_apart_are_the_same_everywhere_and_a_conflict_until_they_are_set_again() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    a.edit(&world, |edit| edit.create_migration(&migration(M1)));
    sync(&world, &a.document, &mut b.document);
    a.edit(&world, |edit| edit.set_hooks(M1, &[hook("of-a")]));
    b.edit(&world, |edit| edit.set_hooks(M1, &[hook("of-b")]));
    sync(&world, &a.document, &mut b.document);
    sync(&world, &b.document, &mut a.document);
    assert_same(&a.document, &b.document);
    let merged = hooks(&a);
    assert!(merged == [hook("of-a")] || merged == [hook("of-b")]);
    let mut told = Conflicts::default();
    let news = told.look(a.document.plan());
    assert_eq!(news.len(), 1);
    assert_eq!(news[0].field, "hooks");
    assert_eq!(news[0].holds, hooks_text(&merged));

    a.edit(&world, |edit| edit.set_hooks(M1, &merged));
    sync(&world, &a.document, &mut b.document);
    let settled = told.look(b.document.plan());
    assert!(
        settled.len() == 1 && settled[0].values.is_empty(),
        "{settled:?}"
    );
}

#[test]
fn a_hook_that_holds_up_the_end_of_a_deleted_migration_can_be_taken_away() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| {
        edit.create_migration(&migration(M1))?;
        edit.set_hooks(M1, &[hook("stuck")])?;
        edit.set_desired(M1, Desired::Deleted)
    });
    node.edit(&world, |edit| edit.set_hooks(M1, &[]));
    assert_eq!(hooks(&node), []);
    let plan = &node.document.plan().migrations[&M1];
    assert_eq!(plan.desired, Desired::Deleted);
}
