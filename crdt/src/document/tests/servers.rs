//! Planned servers: made, changed, deleted, apart from each other too.

use super::*;

pub(super) fn server(number: u8) -> ServerPlan {
    ServerPlan {
        id: ServerId([number; 16]),
        name: format!("web-{number}"),
        site: "berlin".into(),
        address: Some("10.0.0.7".into()),
        wave: None,
        note: Some("shop team".into()),
        planned_by: key(1).public(),
        conflicts: vec![],
    }
}

/// Plans one of eight servers, or changes it where it is planned.
pub(super) fn put(edit: &mut Edit<'_>, value: u8) -> Result<(), EditError> {
    let mut server = server(value % 8);
    if edit.create_server(&server).is_ok() {
        return Ok(());
    }
    server.site = format!("site-{value}");
    server.wave = value.is_multiple_of(2).then(|| value.to_string());
    edit.change_server(&server)
}

/// Deletes one of eight servers if it is planned.
pub(super) fn remove(edit: &mut Edit<'_>, value: u8) -> Result<(), EditError> {
    match edit.delete_server(ServerId([value % 8; 16])) {
        Err(EditError::UnknownServer(_)) => Ok(()),
        ended => ended,
    }
}

#[test]
fn a_planned_server_reads_back_as_it_was_written_changed_and_deleted() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    let planned = server(1);
    node.edit(&world, |edit| edit.create_server(&planned));
    assert_eq!(node.document.plan().servers[&planned.id], planned);
    let mut moved = planned.clone();
    moved.note = None;
    moved.wave = Some("first".into());
    let change = node.edit(&world, |edit| edit.change_server(&moved));
    assert!(change.raw.len() < 200, "{} bytes", change.raw.len());
    assert_eq!(node.document.plan().servers[&planned.id], moved);
    let same = node.try_edit(&world, |edit| edit.change_server(&moved));
    assert_eq!(same, Ok(None));
    let again = node.try_edit(&world, |edit| edit.create_server(&moved));
    assert_eq!(again, Err(EditError::ServerExists(moved.id)));
    node.edit(&world, |edit| edit.delete_server(moved.id));
    assert!(node.document.plan().servers.is_empty());
    let gone = node.try_edit(&world, |edit| edit.change_server(&moved));
    assert_eq!(gone, Err(EditError::UnknownServer(moved.id)));
    node.edit(&world, |edit| edit.create_server(&planned));
    assert_eq!(node.document.plan().servers[&planned.id], planned);
    assert!(node.document.plan().problems.is_empty());
}

#[test]
fn a_server_made_again_in_the_edit_that_deletes_it_keeps_nothing_of_before() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| edit.create_server(&server(1)));
    let mut bare = server(1);
    bare.note = None;
    bare.address = None;
    node.edit(&world, |edit| {
        edit.delete_server(bare.id)?;
        edit.create_server(&bare)
    });
    assert_eq!(node.document.plan().servers[&bare.id], bare);
}

#[test]
fn fields_of_one_server_changed_apart_are_both_changed_and_one_field_is_a_conflict() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    a.edit(&world, |edit| edit.create_server(&server(1)));
    sync(&world, &a.document, &mut b.document);
    let (mut here, mut there) = (server(1), server(1));
    here.wave = Some("first".into());
    here.note = Some("a's".into());
    there.site = "paris".into();
    there.note = Some("b's".into());
    a.edit(&world, |edit| edit.change_server(&here));
    b.edit(&world, |edit| edit.change_server(&there));
    sync(&world, &a.document, &mut b.document);
    sync(&world, &b.document, &mut a.document);
    assert_same(&a.document, &b.document);
    let merged = a.document.plan().servers[&here.id].clone();
    assert_eq!(merged.wave.as_deref(), Some("first"));
    assert_eq!(merged.site, "paris");
    let field = "note".to_owned();
    let values = vec!["a's".to_owned(), "b's".to_owned()];
    assert_eq!(merged.conflicts, [Conflict { field, values }]);
    // Saying it once more settles it.
    a.edit(&world, |edit| edit.change_server(&merged));
    sync(&world, &a.document, &mut b.document);
    assert!(b.document.plan().servers[&here.id].conflicts.is_empty());
}

#[test]
fn a_server_deleted_and_changed_apart_is_gone_everywhere() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    a.edit(&world, |edit| edit.create_server(&server(1)));
    sync(&world, &a.document, &mut b.document);
    let mut changed = server(1);
    changed.site = "paris".into();
    a.edit(&world, |edit| edit.delete_server(changed.id));
    b.edit(&world, |edit| edit.change_server(&changed));
    sync(&world, &a.document, &mut b.document);
    sync(&world, &b.document, &mut a.document);
    assert_same(&a.document, &b.document);
    assert!(a.document.plan().servers.is_empty());
}

#[test]
fn the_plan_of_an_earlier_time_can_be_read_again() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    a.edit(&world, |edit| edit.create_server(&server(1)));
    sync(&world, &a.document, &mut b.document);
    b.edit(&world, |edit| edit.create_server(&server(2)));
    sync(&world, &b.document, &mut a.document);
    let (heads, plan) = (a.document.heads(), a.document.plan().clone());
    a.edit(&world, |edit| edit.delete_server(ServerId([1; 16])));
    assert_eq!(a.document.plan_at(&heads), Some(plan));
    let now = a.document.heads();
    assert_eq!(a.document.plan_at(&now).as_ref(), Some(a.document.plan()));
    // Heads that are not here, and heads whose changes rest on others.
    assert_eq!(b.document.plan_at(&now), None);
    let mut of_another = heads.clone();
    for head in of_another.values_mut() {
        head.hash[0] ^= 1;
    }
    assert_eq!(a.document.plan_at(&of_another), None);
    let mut torn = heads;
    torn.remove(&key(1).public());
    assert_eq!(a.document.plan_at(&torn), None);
}

#[test]
fn fields_of_a_server_outside_their_limits_are_not_written() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    type Alter = fn(&mut ServerPlan);
    let alterations: [(&str, Alter); 5] = [
        ("name", |server| server.name.clear()),
        ("site", |server| server.site = "x".repeat(65)),
        ("address", |server| server.address = Some("x".repeat(257))),
        ("wave", |server| server.wave = Some(String::new())),
        ("note", |server| server.note = Some("\u{1b}[2J".into())),
    ];
    for (field, alter) in alterations {
        let mut unsound = server(1);
        alter(&mut unsound);
        let refused = node.try_edit(&world, |edit| edit.create_server(&unsound));
        let entry = EntryId::Server(unsound.id);
        assert_eq!(refused, Err(EditError::Unsound { entry, field }));
    }
    assert!(node.document.is_empty());
}

#[test]
fn an_edit_that_is_too_large_leaves_the_document_as_it_was() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let before = node.document.clone();
    let refused = node.try_edit(&world, |edit| {
        (0..2000_u128).try_for_each(|number| {
            let id = ServerId(number.to_be_bytes());
            edit.create_server(&ServerPlan { id, ..server(1) })
        })
    });
    assert!(
        matches!(refused, Err(EditError::Inadmissible(_))),
        "{refused:?}"
    );
    assert_same(&node.document, &before);
    node.edit(&world, |edit| edit.create_server(&server(1)));
    assert_eq!(node.document.len(), 2);
}
