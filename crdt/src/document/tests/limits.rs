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
        is_readable: true,
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_a_limits_change_do_not_change() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    let said = limit("Mon-08:00,20MiB/s Fri-18:00,off zone=Europe/Berlin polite");
    let server = Limited::Server(NodeId([3; 32]));
    let change = node.edit(&world, |edit| {
        edit.set_limit(&server, &said)?;
        edit.set_limit(&site("berlin"), &limit("64KiB/s zone=UTC"))
    });
    assert_eq!(hex(&change.raw), SET);
    let change = node.edit(&world, |edit| edit.remove_limit(&server));
    assert_eq!(hex(&change.raw), REMOVED);
}

/// Of a server and of a site, in the shards of their keys.
const SET: &str = "\
    856f4a834a60a37001ab0201ac0d06143f17e54a65c49b33dd82afde657ffc4ff5dd642e13b7c37f05eddf8a\
    208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c0141e80700012000000000\
    0000000000000000000000000000000000000000000000000000000008010202031559340142025605574970\
    0202017e12307e496c2f7365727665722f303330333033303330333033303330333033303330333033303330\
    333033303330333033303330333033303330333033303330333033303330333033303330330d6c2f73697465\
    2f6265726c696e0202017e960786024d6f6e2d30383a30302c32304d69422f73204672692d31383a30302c6f\
    6666207a6f6e653d4575726f70652f4265726c696e20706f6c69746536344b69422f73207a6f6e653d555443\
    0200";
const REMOVED: &str = "\
    856f4a83cdb2375501d701014a60a370936cd7dad59c966c0f515493fdae8a2a6891eddc438f8b80a9ca5670\
    208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c0243e80700012000000000\
    000000000000000000000000000000000000000000000000000000000901020202154b340142025602700271\
    0273037f017f127f496c2f7365727665722f3033303330333033303330333033303330333033303330333033\
    3033303330333033303330333033303330333033303330333033303330333033303330333033017f037f007f\
    017f007fc100";

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

/// Operator 3 sets the limit of berlin, and 1 another one after or beside it, or removes
/// it, on the ground of operator 2, who is then revoked.
fn made_again(write: Option<&str>, before: bool, after: bool) -> (MadeAgain, Option<String>) {
    let mut world = World::of(&[1, 2, 3]);
    let [mut honest, mut traitor, mut third] = [1, 2, 3].map(|seed| Node::new(&world, seed));
    let berlin = site("berlin");
    traitor.edit(&world, |edit| edit.create_migration(&migration(M1)));
    sync(&world, &traitor.document, &mut honest.document);
    third.edit(&world, |edit| {
        edit.set_limit(&berlin, &limit("1MiB/s zone=UTC"))
    });
    if before {
        sync(&world, &third.document, &mut honest.document);
    }
    honest.edit(&world, |edit| match write {
        Some(text) => edit.set_limit(&berlin, &limit(text)),
        None => edit.remove_limit(&berlin),
    });
    if after {
        third.edit(&world, |edit| {
            edit.set_limit(&berlin, &limit("3MiB/s zone=UTC"))
        });
    }
    sync(&world, &third.document, &mut honest.document);
    world.revoke(2, None);
    let made = super::again::again(&mut honest, &world);
    let held = honest.document.plan().limits.get(&berlin);
    (made, held.map(|held| held.limit.to_string()))
}

#[test]
fn a_limit_that_another_set_since_is_not_set_or_removed_by_an_edit_made_again() {
    let of = vec![EntryId::Limit(site("berlin"))];
    let two = "2MiB/s zone=UTC";
    for (write, before, after, holds) in [
        // What was there when it was set or removed.
        (Some(two), true, false, None),
        (None, true, false, None),
        // What came since, and what was set apart.
        (Some(two), true, true, Some("3MiB/s zone=UTC")),
        (None, true, true, Some("3MiB/s zone=UTC")),
        (Some(two), false, false, Some("1MiB/s zone=UTC")),
    ] {
        let (made, held) = made_again(write, before, after);
        match holds {
            None => {
                assert_eq!((made.made, made.lost), (of.clone(), vec![]));
                assert_eq!(held.as_deref(), write);
            }
            Some(_) => {
                assert_eq!((made.made, made.lost), (vec![], of.clone()));
                assert_eq!(held.as_deref(), holds);
            }
        }
    }
}

/// What an operator with another program may put into the document.
fn strange() -> [OpType; 4] {
    [
        OpType::Put("fast".into()),
        OpType::Put("off zone=UTC polite".into()),
        OpType::Put(ScalarValue::Uint(7)),
        OpType::Make(automerge::ObjType::Map),
    ]
}

/// Operator 1 sets a limit of the site paris, and such a one of berlin.
fn set_strangely(world: &World, action: OpType) -> Vec<SignedChange> {
    let one = limit("1MiB/s zone=UTC");
    let mut node = Node::new(world, 1);
    let before = node.edit(world, |edit| edit.set_limit(&site("paris"), &one));
    let change = node.edit(world, |edit| edit.set_limit(&site("berlin"), &one));
    let strange = altered(world, &change, |change| {
        change.operations[0].action = action;
    });
    vec![before, strange]
}

#[test]
fn what_is_no_limit_holds_as_the_least_rate_and_can_be_set_anew_and_removed() {
    let world = World::of(&[1]);
    let berlin = site("berlin");
    for action in strange() {
        let mut node = Node::new(&world, 1);
        let changes = set_strangely(&world, action);
        let offered = node.document.offer_all(changes, &world.authority());
        assert!(
            offered.iter().all(|one| *one == Outcome::Admitted),
            "{offered:?}"
        );
        let least = LimitPlan {
            is_readable: false,
            ..plain(&berlin, "64KiB/s zone=UTC", 1)
        };
        assert_eq!(node.document.plan().limits[&berlin], least);
        assert!(node.document.plan().problems.is_empty());
        let loaded = Document::load(world.mesh(), all(&node.document), None, &world.authority());
        assert_same(&loaded.unwrap(), &node.document);

        let mut removed = Node::new(&world, 1);
        removed.document = node.document.clone();
        removed.edit(&world, |edit| edit.remove_limit(&berlin));
        assert!(!removed.document.plan().limits.contains_key(&berlin));
        // Also what already holds: it was not said.
        node.edit(&world, |edit| edit.set_limit(&berlin, &least.limit));
        let said = plain(&berlin, "64KiB/s zone=UTC", 1);
        assert_eq!(node.document.plan().limits[&berlin], said);
    }
}

#[test]
fn of_a_limit_that_cannot_be_read_the_slowest_holds_that_was_set_apart_from_it() {
    let berlin = site("berlin");
    let slow = "08:00,2MiB/s 18:00,off zone=UTC";
    for action in strange() {
        let world = World::of(&[1, 2, 3, 4]);
        let mut node = Node::new(&world, 1);
        // It wins, since it comes after another.
        let strange = set_strangely(&world, action);
        for (author, text) in [(2, "4MiB/s zone=UTC"), (3, slow), (4, "off zone=UTC")] {
            let mut other = Node::new(&world, author);
            other.edit(&world, |edit| edit.set_limit(&berlin, &limit(text)));
            sync(&world, &other.document, &mut node.document);
        }
        assert!(node.document.plan().limits[&berlin].is_readable);
        node.document.offer_all(strange, &world.authority());
        let held = &node.document.plan().limits[&berlin];
        assert_eq!(held.limit.to_string(), slow);
        assert_eq!(held.set_by, key(3).public());
        assert!(!held.is_readable);
        assert_eq!(held.conflicts[0].values.len(), 4, "{held:?}");
        let loaded = Document::load(world.mesh(), all(&node.document), None, &world.authority());
        assert_same(&loaded.unwrap(), &node.document);
    }
}
