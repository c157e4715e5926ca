//! Edits that lost what they depend on and are made again by their author.

use super::*;
use crate::evidence::PairOutcome;

/// The edits of `identity` that a revocation orphans, made again.
pub(super) fn again(node: &mut Node, world: &World) -> MadeAgain {
    let mut orphans = node.document.rebuild(&world.authority());
    orphans.retain(|orphan| orphan.author == node.identity.public());
    let identity = node.identity.clone();
    let made = node
        .document
        .edit_again(&identity, NOW, &world.authority(), &orphans);
    made.unwrap()
}

/// Operator 2 plans M1 and renames it; operator 1 builds on that, plans M2 and edits
/// both. Then all but the first change of operator 2 is taken back.
fn built_on_a_traitor() -> (World, Node, Node) {
    let mut world = World::of(&[1, 2]);
    let (mut honest, mut traitor) = (Node::new(&world, 1), Node::new(&world, 2));
    traitor.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let honoured = traitor.head();
    traitor.edit(&world, |edit| edit.rename(M1, "theirs"));
    sync(&world, &traitor.document, &mut honest.document);
    honest.edit(&world, |edit| edit.create_migration(&migration(M2)));
    honest.edit(&world, |edit| edit.set_pool(M1, &[NodeId([7; 32])]));
    honest.desire(&world, M2, Desired::Started);
    world.revoke(2, Some(honoured));
    (world, honest, traitor)
}

#[test]
fn edits_that_still_apply_are_made_again_with_what_they_said() {
    let (world, mut honest, _) = built_on_a_traitor();
    let made = again(&mut honest, &world);
    assert_eq!(made.made, [M1, M2].map(EntryId::Migration));
    assert!(made.lost.is_empty());
    let plan = honest.document.plan();
    assert_eq!(plan.migrations[&M1].replicators, [NodeId([7; 32])]);
    assert_eq!(plan.migrations[&M1].name, "shop");
    assert_eq!(plan.migrations[&M2].desired, Desired::Started);
    assert_eq!(plan.migrations[&M2].created_by, key(1).public());
}

#[test]
fn an_edit_of_what_is_gone_is_lost_and_says_so() {
    let mut world = World::of(&[1, 2]);
    let (mut honest, mut traitor) = (Node::new(&world, 1), Node::new(&world, 2));
    traitor.edit(&world, |edit| edit.create_migration(&migration(M1)));
    sync(&world, &traitor.document, &mut honest.document);
    honest.desire(&world, M1, Desired::Started);
    honest.edit(&world, |edit| edit.create_migration(&migration(M2)));
    world.revoke(2, None);
    let made = again(&mut honest, &world);
    assert_eq!(
        (made.made, made.lost),
        (vec![EntryId::Migration(M2)], vec![EntryId::Migration(M1)])
    );
}

#[test]
fn a_stop_that_holds_is_not_taken_back_by_an_edit_made_again() {
    let mut world = World::of(&[1, 2, 3]);
    let (mut honest, mut traitor) = (Node::new(&world, 1), Node::new(&world, 2));
    let mut third = Node::new(&world, 3);
    third.edit(&world, |edit| edit.create_migration(&migration(M1)));
    sync(&world, &third.document, &mut traitor.document);
    traitor.edit(&world, |edit| edit.rename(M1, "theirs"));
    sync(&world, &third.document, &mut honest.document);
    sync(&world, &traitor.document, &mut honest.document);
    honest.edit(&world, |edit| {
        edit.set_desired(M1, Desired::Started)?;
        edit.set_pool(M1, &[NodeId([7; 32])])
    });
    third.desire(&world, M1, Desired::Paused);
    sync(&world, &third.document, &mut honest.document);
    world.revoke(2, None);
    again(&mut honest, &world);
    let planned = &honest.document.plan().migrations[&M1];
    assert_eq!(planned.desired, Desired::Paused);
    assert_eq!(planned.replicators, [NodeId([7; 32])]);
}

#[test]
fn an_edit_of_what_was_deleted_since_revives_nothing() {
    let mut world = World::of(&[1, 2, 3]);
    let (mut honest, mut traitor) = (Node::new(&world, 1), Node::new(&world, 2));
    let mut third = Node::new(&world, 3);
    third.edit(&world, |edit| edit.create_migration(&migration(M1)));
    for other in [&mut traitor, &mut honest] {
        sync(&world, &third.document, &mut other.document);
    }
    traitor.edit(&world, |edit| edit.rename(M1, "theirs"));
    sync(&world, &traitor.document, &mut honest.document);
    honest.edit(&world, |edit| edit.set_pool(M1, &[NodeId([7; 32])]));
    third.desire(&world, M1, Desired::Deleted);
    sync(&world, &third.document, &mut honest.document);
    world.revoke(2, None);
    let made = again(&mut honest, &world);
    let lost = vec![EntryId::Migration(M1)];
    assert_eq!((made.made, made.lost), (vec![], lost));
    let planned = &honest.document.plan().migrations[&M1];
    assert_ne!(planned.replicators, [NodeId([7; 32])]);
}

#[test]
fn an_edit_of_a_planned_server_that_is_gone_and_a_deletion_of_a_migration_are_lost() {
    let mut world = World::of(&[1, 2]);
    let (mut honest, mut traitor) = (Node::new(&world, 1), Node::new(&world, 2));
    let mut server = servers::server(1);
    traitor.edit(&world, |edit| edit.create_server(&server));
    sync(&world, &traitor.document, &mut honest.document);
    server.site = "bonn".into();
    honest.edit(&world, |edit| edit.change_server(&server));
    world.revoke(2, None);
    let made = again(&mut honest, &world);
    let lost = vec![EntryId::Server(server.id)];
    assert_eq!((made.made, made.lost), (vec![], lost));
    assert!(honest.document.plan().problems.is_empty());

    honest.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let id = EntryId::Migration(M1);
    let orphan = Orphan {
        author: key(1).public(),
        seq: 1,
        intent: Intent::from([(id.clone(), Write::Delete)]),
        saw: BTreeMap::new(),
    };
    let made = honest
        .document
        .edit_again(&key(1), NOW, &world.authority(), &[orphan]);
    assert_eq!(made.unwrap().lost, [id]);
    assert_eq!(honest.document.plan().migrations.len(), 1);
}

#[test]
fn an_edit_made_again_gives_way_once_the_first_counts_again() {
    for (honest, traitor) in [(1, 2), (2, 1)] {
        let mut world = World::of(&[1, 2]);
        let (mut honest, mut other) = (Node::new(&world, honest), Node::new(&world, traitor));
        other.edit(&world, |edit| edit.create_migration(&migration(M1)));
        sync(&world, &other.document, &mut honest.document);
        honest.edit(&world, |edit| edit.create_migration(&migration(M2)));
        let before = honest.document.clone();
        world.revoke(traitor, None);
        let made = again(&mut honest, &world);
        assert_eq!(made.made, [EntryId::Migration(M2)]);
        world.enrol(traitor, keys::Role::Operator);
        honest.document.rebuild(&world.authority());
        assert_same(&honest.document, &before);
    }
}

/// Operator 1 plans M2 on the ground of operator 2, who is then revoked, and makes that
/// again, on the ground of operator 3 if `on_third`.
fn made_again_once(on_third: bool) -> (World, Node, Node) {
    let mut world = World::of(&[1, 2, 3]);
    let [mut honest, mut traitor, mut third] = [1, 2, 3].map(|seed| Node::new(&world, seed));
    traitor.edit(&world, |edit| edit.create_migration(&migration(M1)));
    sync(&world, &traitor.document, &mut honest.document);
    honest.edit(&world, |edit| edit.create_migration(&migration(M2)));
    if on_third {
        let server = servers::server(3);
        third.edit(&world, |edit| edit.create_server(&server));
        sync(&world, &third.document, &mut honest.document);
    }
    world.revoke(2, None);
    assert_eq!(again(&mut honest, &world).made, [EntryId::Migration(M2)]);
    (world, honest, third)
}

/// Operator 3 is revoked, operator 1 makes its edits again, and 3 is enrolled again.
fn gone_and_back(mut world: World, mut honest: Node) -> Document {
    world.revoke(3, None);
    assert_eq!(again(&mut honest, &world).made, [EntryId::Migration(M2)]);
    world.enrol(3, keys::Role::Operator);
    honest.document.rebuild(&world.authority());
    honest.document
}

#[test]
fn of_several_rounds_that_can_count_the_lowest_does() {
    let (world, honest, _) = made_again_once(true);
    let before = honest.document.clone();
    assert_same(&gone_and_back(world, honest), &before);
}

#[test]
fn a_higher_round_is_taken_for_one_number_and_not_for_those_after_it() {
    let (world, mut honest, mut third) = made_again_once(false);
    sync(&world, &honest.document, &mut third.document);
    let server = servers::server(3);
    third.edit(&world, |edit| edit.create_server(&server));
    sync(&world, &third.document, &mut honest.document);
    honest.edit(&world, |edit| edit.rename(M2, "on the third"));
    let before = honest.document.clone();
    assert_same(&gone_and_back(world, honest), &before);
}

#[test]
fn what_finds_no_room_is_lost_and_says_so() {
    let (world, mut honest, _) = built_on_a_traitor();
    let orphans = honest.document.rebuild(&world.authority());
    honest.document.index.fill();
    let made = honest
        .document
        .edit_again(&key(1), NOW, &world.authority(), &orphans);
    let made = made.unwrap();
    assert_eq!(made.lost, [M1, M2].map(EntryId::Migration));
    assert!(made.made.is_empty() && made.changes.is_empty());
}

#[test]
fn an_unsound_change_of_a_lower_round_does_not_take_the_place_of_one_made_again() {
    let (world, mut honest, _) = built_on_a_traitor();
    let made = again(&mut honest, &world);
    let (seq, change) = made.changes[0].clone();
    let before = honest.document.clone();
    let forged = hostile::altered(&world, &change, |change| {
        change.message = None;
        change.start_op = change.start_op.saturating_add(1);
    });
    let author = key(1).public();
    let refused = Outcome::Refused(Refusal::MadeAgain { author, seq });
    assert_eq!(honest.document.offer(forged, &world.authority()), refused);
    // Nor one that does not follow its author's own change before it.
    let (seq, change) = made.changes[1].clone();
    let log = honest
        .document
        .entries_after(&key(2).public(), 0, usize::MAX);
    let ground = Change::from_bytes(log[0].raw.clone()).unwrap();
    let forged = hostile::altered(&world, &change, |change| {
        change.message = None;
        change.deps = vec![ground.hash()];
        change.start_op = std::num::NonZeroU64::new(ground.max_op() + 1).unwrap();
        change.operations = vec![hostile::put(hostile::shard("x"), "x")];
    });
    let refused = Outcome::Refused(Refusal::MadeAgain { author, seq });
    assert_eq!(honest.document.offer(forged, &world.authority()), refused);
    assert_same(&honest.document, &before);
}

#[test]
fn who_is_no_operator_any_more_and_whose_log_is_forked_makes_nothing_again() {
    let mut world = World::of(&[1, 2]);
    let (mut node, mut twin) = (Node::new(&world, 1), Node::new(&world, 1));
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    twin.edit(&world, |edit| edit.create_migration(&migration(M2)));
    let again = |document: &mut Document, world: &World| {
        let made = document.edit_again(&key(1), NOW, &world.authority(), &[]);
        made.unwrap_err()
    };
    let author = key(1).public();
    let mut forked = node.document.clone();
    sync(&world, &twin.document, &mut forked);
    let at = EditError::Forked { author, seq: 1 };
    assert_eq!(again(&mut forked, &world), at);
    world.revoke(1, None);
    let no_more = EditError::NotAnOperator(author);
    assert_eq!(again(&mut node.document, &world), no_more);
}

#[test]
fn an_edit_made_again_is_no_fork_to_who_has_not_heard_of_the_revocation() {
    let (world, mut honest, mut traitor) = built_on_a_traitor();
    let mut unaware = Document::new(world.mesh());
    let unrevoked = World::of(&[1, 2]).authority();
    unaware.offer_all(all(&honest.document), &unrevoked);
    unaware.offer_all(all(&traitor.document), &unrevoked);
    assert_eq!(unaware.len(), 5);
    let before = unaware.entries_after(&key(1).public(), 0, 1).remove(0);
    let made = again(&mut honest, &world);
    let news: Vec<SignedChange> = made
        .changes
        .iter()
        .map(|(_, change)| change.clone())
        .collect();
    let first = Box::new([before, news[0].clone()]);
    for outcome in unaware.offer_all(news, &unrevoked) {
        assert_eq!(outcome, Outcome::Parked);
    }
    let shown = unaware.offer_fork(first, &unrevoked);
    assert_eq!(shown, PairOutcome::Refused, "one number, two rounds");
    assert_eq!(unaware.forked().count(), 0);
    unaware.rebuild(&world.authority());
    assert_same(&unaware, &honest.document);

    // And who made them again takes the old ones of others for what they are.
    let old = traitor
        .document
        .entries_after(&key(1).public(), 0, usize::MAX);
    honest.document.offer_all(old, &world.authority());
    traitor.document.rebuild(&world.authority());
    assert_eq!(honest.document.forked().count(), 0);
    assert_same(&unaware, &honest.document);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Old edits, edits made again, and the revocation between them, in any order.
    #[test]
    fn old_edits_and_those_made_again_end_the_same_in_any_order(
        order in Just((0..7_usize).collect::<Vec<_>>()).prop_shuffle(),
        heard in 0..8_usize,
    ) {
        let (world, mut honest, _) = built_on_a_traitor();
        let mut changes = all(&honest.document);
        let made = again(&mut honest, &world);
        changes.extend(made.changes.iter().map(|(_, change)| change.clone()));
        prop_assert_eq!(changes.len(), 7);
        let unrevoked = World::of(&[1, 2]).authority();
        let mut other = Document::new(world.mesh());
        for (at, number) in order.iter().enumerate() {
            if at == heard {
                other.rebuild(&world.authority());
            }
            let authority = if at < heard { &unrevoked } else { &world.authority() };
            other.offer(changes[*number].clone(), authority);
        }
        other.rebuild(&world.authority());
        other.offer_all(changes.clone(), &world.authority());
        sync(&world, &honest.document, &mut other);
        assert_same(&other, &honest.document);
        prop_assert_eq!(other.forked().count(), 0);
    }
}

#[test]
fn what_was_said_of_planned_servers_is_made_again_with_what_was_cleared_and_deleted() {
    let mut world = World::of(&[1, 2]);
    let (mut honest, mut traitor) = (Node::new(&world, 1), Node::new(&world, 2));
    let [one, two, three] = [1, 2, 3].map(servers::server);
    honest.edit(&world, |edit| edit.create_server(&one));
    honest.edit(&world, |edit| edit.create_server(&two));
    sync(&world, &honest.document, &mut traitor.document);
    traitor.edit(&world, |edit| edit.create_migration(&migration(M1)));
    sync(&world, &traitor.document, &mut honest.document);
    let mut moved = one.clone();
    moved.site = "bonn".into();
    moved.note = None;
    honest.edit(&world, |edit| edit.change_server(&moved));
    honest.edit(&world, |edit| edit.delete_server(two.id));
    honest.edit(&world, |edit| edit.create_server(&three));
    world.revoke(2, None);
    let made = again(&mut honest, &world);
    assert_eq!(made.made, [one.id, two.id, three.id].map(EntryId::Server));
    assert!(made.lost.is_empty());
    let planned = honest.document.plan().servers.values().cloned();
    assert_eq!(planned.collect::<Vec<_>>(), [moved, three]);
}
