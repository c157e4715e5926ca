//! Limits: set, set anew, removed, apart from each other too.

use super::hostile::altered;
use super::*;
use crate::conflicts::Conflicts;
use crate::plan::{Limit, LimitPlan, Limited};
use automerge::ScalarValue;
use automerge::legacy::OpType;
use keys::Name;

fn site(name: &str) -> Limited {
    Limited::Site(Name::new(name).unwrap())
}

fn limit(text: &str) -> Limit {
    text.parse().unwrap()
}

/// Sets one of four limits.
pub(super) fn put(edit: &mut Edit<'_>, value: u8) -> Result<(), EditError> {
    let rate = 1 + value / 4;
    let said = limit(&format!("08:00,{rate}MiB/s 18:00,off zone=UTC"));
    edit.set_limit(&of(value), &said)
}

/// Removes one of four limits if it is set.
pub(super) fn remove(edit: &mut Edit<'_>, value: u8) -> Result<(), EditError> {
    match edit.remove_limit(&of(value)) {
        Err(EditError::NoLimit(_)) => Ok(()),
        ended => ended,
    }
}

fn of(value: u8) -> Limited {
    match value % 4 {
        0 => Limited::Server(NodeId([1; 32])),
        1 => Limited::Server(NodeId([2; 32])),
        2 => site("berlin"),
        _ => site("paris"),
    }
}

fn plain(of: &Limited, text: &str, author: u8) -> LimitPlan {
    LimitPlan {
        of: of.clone(),
        limit: limit(text),
        set_by: key(author).public(),
        conflicts: vec![],
    }
}

#[test]
fn a_limit_reads_back_as_it_was_set_set_anew_and_removed() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    let server = Limited::Server(NodeId([3; 32]));
    let of = [server, site("berlin")];
    for of in &of {
        node.edit(&world, |edit| {
            edit.set_limit(of, &limit("20MiB/s zone=UTC"))
        });
        let held = &node.document.plan().limits[of];
        assert_eq!(*held, plain(of, "20MiB/s zone=UTC", 1));
    }
    let polite = limit("Mon-08:00,20MiB/s Fri-18:00,off zone=Europe/Berlin polite");
    let change = node.edit(&world, |edit| edit.set_limit(&of[0], &polite));
    assert!(change.raw.len() < 300, "{} bytes", change.raw.len());
    assert_eq!(node.document.plan().limits[&of[0]].limit, polite);
    let same = node.try_edit(&world, |edit| edit.set_limit(&of[0], &polite));
    assert_eq!(same, Ok(None));
    node.edit(&world, |edit| edit.remove_limit(&of[0]));
    assert_eq!(node.document.plan().limits.len(), 1);
    let gone = node.try_edit(&world, |edit| edit.remove_limit(&of[0]));
    assert_eq!(gone, Err(EditError::NoLimit(of[0].clone())));
    node.edit(&world, |edit| {
        edit.set_limit(&of[0], &polite)?;
        edit.remove_limit(&of[1])
    });
    assert_eq!(node.document.plan().limits.len(), 1);
    assert!(node.document.plan().problems.is_empty());
    let loaded = Document::load(world.mesh(), all(&node.document), None, &world.authority());
    assert_same(&loaded.unwrap(), &node.document);
}

#[test]
fn a_limit_set_apart_is_the_same_everywhere_and_a_conflict_until_it_is_set_again() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    let berlin = site("berlin");
    a.edit(&world, |edit| {
        edit.set_limit(&berlin, &limit("1MiB/s zone=UTC"))
    });
    b.edit(&world, |edit| {
        edit.set_limit(&berlin, &limit("2MiB/s zone=UTC"))
    });
    sync(&world, &a.document, &mut b.document);
    sync(&world, &b.document, &mut a.document);
    assert_same(&a.document, &b.document);
    let merged = a.document.plan().limits[&berlin].clone();
    let values = vec!["1MiB/s zone=UTC".to_owned(), "2MiB/s zone=UTC".to_owned()];
    assert!(values.contains(&merged.limit.to_string()));
    let field = "limit".to_owned();
    let conflict = Conflict { field, values };
    assert_eq!(merged.conflicts, std::slice::from_ref(&conflict));
    let mut told = Conflicts::default();
    let news = told.look(a.document.plan());
    assert_eq!(news.len(), 1);
    assert_eq!(news[0].entry, EntryId::Limit(berlin.clone()));
    assert_eq!(news[0].values, conflict.values);
    assert_eq!(news[0].holds, merged.limit.to_string());
    let loaded = Document::load(world.mesh(), all(&a.document), None, &world.authority());
    assert_same(&loaded.unwrap(), &a.document);

    a.edit(&world, |edit| edit.set_limit(&berlin, &merged.limit));
    sync(&world, &a.document, &mut b.document);
    let settled = &b.document.plan().limits[&berlin];
    assert_eq!(*settled, plain(&berlin, &merged.limit.to_string(), 1));
    let news = told.look(b.document.plan());
    assert!(news.len() == 1 && news[0].values.is_empty(), "{news:?}");
}

#[test]
fn a_limit_that_is_removed_and_set_apart_stays_set() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    let berlin = site("berlin");
    a.edit(&world, |edit| {
        edit.set_limit(&berlin, &limit("1MiB/s zone=UTC"))
    });
    sync(&world, &a.document, &mut b.document);
    a.edit(&world, |edit| edit.remove_limit(&berlin));
    b.edit(&world, |edit| {
        edit.set_limit(&berlin, &limit("2MiB/s zone=UTC"))
    });
    sync(&world, &a.document, &mut b.document);
    sync(&world, &b.document, &mut a.document);
    assert_same(&a.document, &b.document);
    assert_eq!(
        a.document.plan().limits[&berlin],
        plain(&berlin, "2MiB/s zone=UTC", 2)
    );
}

#[test]
fn a_limit_that_is_not_for_whom_it_is_of_is_not_written() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    let berlin = site("berlin");
    let polite = limit("off zone=UTC polite");
    let refused = node.try_edit(&world, |edit| edit.set_limit(&berlin, &polite));
    let entry = EntryId::Limit(berlin);
    let field = "polite";
    assert_eq!(refused, Err(EditError::Unsound { entry, field }));
    assert!(node.document.is_empty());
}

#[test]
fn limits_set_and_removed_on_a_ground_that_is_gone_are_set_and_removed_again() {
    let mut world = World::of(&[1, 2]);
    let (mut honest, mut traitor) = (Node::new(&world, 1), Node::new(&world, 2));
    let (berlin, paris) = (site("berlin"), site("paris"));
    let one = limit("1MiB/s zone=UTC");
    honest.edit(&world, |edit| edit.set_limit(&paris, &one));
    traitor.edit(&world, |edit| edit.create_migration(&migration(M1)));
    sync(&world, &traitor.document, &mut honest.document);
    honest.edit(&world, |edit| edit.set_limit(&berlin, &one));
    honest.edit(&world, |edit| edit.remove_limit(&paris));
    world.revoke(2, None);
    let made = super::again::again(&mut honest, &world);
    let limits = vec![EntryId::Limit(berlin.clone()), EntryId::Limit(paris)];
    assert_eq!((made.made, made.lost), (limits, vec![]));
    let left: Vec<&Limited> = honest.document.plan().limits.keys().collect();
    assert_eq!(left, [&berlin]);
}

/// What an operator with another program may put into the document.
#[test]
fn what_is_no_limit_is_a_problem_and_can_be_set_anew() {
    let world = World::of(&[1]);
    let one = limit("1MiB/s zone=UTC");
    let berlin = site("berlin");
    let strange = [
        OpType::Put("fast".into()),
        OpType::Put("off zone=UTC polite".into()),
        OpType::Put(ScalarValue::Uint(7)),
        OpType::Make(automerge::ObjType::Map),
    ];
    for action in strange {
        let mut node = Node::new(&world, 1);
        let change = Node::new(&world, 1).edit(&world, |edit| edit.set_limit(&berlin, &one));
        let change = altered(&world, &change, |change| {
            change.operations[0].action = action;
        });
        let key = "l/site/berlin";
        let offered = node.document.offer_all(vec![change], &world.authority());
        assert!(
            offered.iter().all(|one| *one == Outcome::Admitted),
            "{offered:?}"
        );
        assert!(node.document.plan().limits.is_empty());
        assert!(matches!(
            node.document.plan().problems.get(key),
            Some(Problem::Unreadable {
                entry: EntryId::Limit(_),
                ..
            })
        ));
        node.edit(&world, |edit| edit.set_limit(&berlin, &one));
        assert_eq!(node.document.plan().limits[&berlin].limit, one);
        assert!(node.document.plan().problems.is_empty());
    }
}
