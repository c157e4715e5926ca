//! How documents converge, whatever order changes come in, and how
//! they are stored. Revocation and forks are in `revocation`, hostile changes in
//! `hostile` and `bytes`.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::plan::{Conflict, Desired, EntryId, MigrationPlan, Problem, ServerPlan};
use crate::world::{NOW, World, key};
use keys::statement::Position;
use keys::{MigrationId, NodeId, ServerId, StatementId, VolumeId};
use proptest::prelude::*;
use std::cell::RefCell;

mod again;
mod bytes;
mod checkpoints;
mod forks;
mod hooks;
mod hostile;
mod leaving_out;
mod limits;
mod revocation;
mod servers;
mod snapshots;

thread_local! {
    static FAILING: RefCell<HashSet<ChangeHash>> = RefCell::default();
}

/// Stands in for a fault in automerge that no check of ours foresees.
pub(super) fn automerge_fails_on(change: &Change) -> bool {
    FAILING.with_borrow(|failing| failing.contains(&change.hash()))
}

const M1: MigrationId = MigrationId([1; 16]);
const M2: MigrationId = MigrationId([2; 16]);

fn migration(id: MigrationId) -> MigrationPlan {
    MigrationPlan {
        id,
        name: "shop".into(),
        source: NodeId([3; 32]),
        volumes: vec![VolumeId([4; 16]), VolumeId([5; 16])],
        provider: "local".into(),
        provisioner: NodeId([6; 32]),
        replicators: vec![NodeId([8; 32]), NodeId([7; 32])],
        site: Some("berlin".into()),
        desired: Desired::Created,
        grants: vec![StatementId([9; 32])],
        hooks: vec![],
        leave_out: None,
        checkpoints: crate::plan::Checkpoints::default(),
        created_at: NOW,
        created_by: key(1).public(),
        conflicts: vec![],
    }
}

/// One operator's node.
struct Node {
    document: Document,
    identity: Identity,
}

impl Node {
    fn new(world: &World, seed: u8) -> Self {
        Self {
            document: Document::new(world.mesh()),
            identity: key(seed),
        }
    }

    fn try_edit(
        &mut self,
        world: &World,
        write: impl FnOnce(&mut Edit<'_>) -> Result<(), EditError>,
    ) -> Result<Option<SignedChange>, EditError> {
        let identity = self.identity.clone();
        self.document
            .edit(&identity, NOW, &world.authority(), write)
    }

    fn edit(
        &mut self,
        world: &World,
        write: impl FnOnce(&mut Edit<'_>) -> Result<(), EditError>,
    ) -> SignedChange {
        self.try_edit(world, write).unwrap().unwrap()
    }

    fn desire(&mut self, world: &World, id: MigrationId, desired: Desired) -> SignedChange {
        self.edit(world, |edit| edit.set_desired(id, desired))
    }

    fn head(&self) -> Position {
        self.document.heads()[&self.identity.public()]
    }
}

fn all(document: &Document) -> Vec<SignedChange> {
    let heads = document.heads();
    heads
        .keys()
        .flat_map(|author| document.entries_after(author, 0, usize::MAX))
        .collect()
}

/// Everything that counts at `from`, offered to `to`.
fn sync(world: &World, from: &Document, to: &mut Document) {
    to.offer_all(all(from), &world.authority());
}

fn assert_same(a: &Document, b: &Document) {
    assert_eq!(a.heads(), b.heads());
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.content_hash(), b.content_hash());
    assert_eq!(a.plan(), b.plan());
}

#[test]
fn a_planned_migration_reads_back_as_it_was_written() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    let planned = migration(M1);
    node.edit(&world, |edit| edit.create_migration(&planned));
    assert_eq!(node.document.plan().migrations[&M1], planned);
    assert!(node.document.plan().problems.is_empty());
    node.edit(&world, |edit| {
        edit.rename(M1, "store")?;
        edit.set_pool(M1, &[NodeId([7; 32])])?;
        edit.add_grant(M1, StatementId([2; 32]))?;
        edit.set_desired(M1, Desired::Started)?;
        edit.set_desired(M1, Desired::cutover(true))
    });
    let changed = &node.document.plan().migrations[&M1];
    assert_eq!(changed.name, "store");
    assert_eq!(changed.replicators, vec![NodeId([7; 32])]);
    assert_eq!(changed.grants, [StatementId([2; 32]), StatementId([9; 32])]);
    assert_eq!(changed.desired, Desired::cutover(true));
}

#[test]
fn an_edit_that_fails_or_says_nothing_leaves_nothing() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let before = node.document.clone();
    let failed = node.try_edit(&world, |edit| {
        edit.set_desired(M1, Desired::Started)?;
        edit.set_desired(M2, Desired::Started)
    });
    assert_eq!(failed, Err(EditError::UnknownMigration(M2)));
    let same = node.try_edit(&world, |edit| edit.set_desired(M1, Desired::Created));
    assert_eq!(same, Ok(None));
    assert_same(&node.document, &before);
    let next = node.desire(&world, M1, Desired::Started);
    assert_eq!(admission::parse(next).unwrap().seq(), 2);
}

#[test]
fn only_operators_that_stand_can_edit() {
    let mut world = World::of(&[1]);
    let mut node = Node::new(&world, 9);
    let create = |edit: &mut Edit<'_>| edit.create_migration(&migration(M1));
    let stranger = EditError::NotAnOperator(key(9).public());
    assert_eq!(node.try_edit(&world, create), Err(stranger));
    let mut node = Node::new(&world, 1);
    node.edit(&world, create);
    let head = node.head();
    world.revoke(1, Some(head));
    let revoked = EditError::NotAnOperator(key(1).public());
    let again = node.try_edit(&world, |edit| edit.rename(M1, "x"));
    assert_eq!(again, Err(revoked));
}

#[test]
fn what_was_deleted_is_not_revived() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    node.desire(&world, M1, Desired::Deleted);
    let revived = node.try_edit(&world, |edit| edit.set_desired(M1, Desired::Started));
    assert_eq!(revived, Err(EditError::Deleted(M1)));
}

#[test]
fn fields_outside_their_limits_are_not_written() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    let mut endless = migration(M1);
    endless.name = "x".repeat(crate::plan::MAX_NAME + 1);
    let mut empty = migration(M1);
    empty.replicators.clear();
    for (plan, field) in [(endless, "name"), (empty, "pool")] {
        let refused = node.try_edit(&world, |edit| edit.create_migration(&plan));
        let entry = EntryId::Migration(M1);
        assert_eq!(refused, Err(EditError::Unsound { entry, field }));
    }
    assert!(node.document.is_empty());
}

#[test]
fn a_stop_beats_a_go_that_was_decided_apart_and_the_next_edit_settles_it() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    a.edit(&world, |edit| edit.create_migration(&migration(M1)));
    sync(&world, &a.document, &mut b.document);
    // Twice, so that whose operation is the later one does not decide.
    for (first, second) in [
        (Desired::Paused, Desired::cutover(true)),
        (Desired::Started, Desired::Paused),
    ] {
        a.desire(&world, M1, first);
        b.desire(&world, M1, second);
        sync(&world, &a.document, &mut b.document);
        sync(&world, &b.document, &mut a.document);
        assert_same(&a.document, &b.document);
        let merged = &a.document.plan().migrations[&M1];
        assert_eq!(merged.desired, Desired::Paused);
        let mut values = vec![first.to_string(), second.to_string()];
        values.sort();
        let field = "desired".to_owned();
        assert_eq!(merged.conflicts, [Conflict { field, values }]);
        a.desire(&world, M1, Desired::Paused);
        sync(&world, &a.document, &mut b.document);
        assert!(b.document.plan().migrations[&M1].conflicts.is_empty());
        a.desire(&world, M1, Desired::Created);
        sync(&world, &a.document, &mut b.document);
    }
}

#[test]
fn grants_added_apart_are_all_there() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    a.edit(&world, |edit| edit.create_migration(&migration(M1)));
    sync(&world, &a.document, &mut b.document);
    a.edit(&world, |edit| edit.add_grant(M1, StatementId([1; 32])));
    b.edit(&world, |edit| edit.add_grant(M1, StatementId([2; 32])));
    sync(&world, &a.document, &mut b.document);
    sync(&world, &b.document, &mut a.document);
    assert_same(&a.document, &b.document);
    let merged = &a.document.plan().migrations[&M1];
    let grants = [1, 2, 9].map(|byte| StatementId([byte; 32]));
    assert_eq!(merged.grants, grants);
    assert!(merged.conflicts.is_empty());
}

#[test]
fn a_stored_document_is_the_same_after_loading_and_can_be_edited() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    a.edit(&world, |edit| edit.create_migration(&migration(M1)));
    sync(&world, &a.document, &mut b.document);
    b.desire(&world, M1, Desired::Started);
    sync(&world, &b.document, &mut a.document);
    a.desire(&world, M1, Desired::Paused);
    let mut stored = all(&a.document);
    stored.reverse();
    let mut loaded = Document::load(world.mesh(), stored, None, &world.authority()).unwrap();
    assert_same(&loaded, &a.document);
    assert!(loaded.take_admitted().is_empty());
    a.document = loaded;
    let change = a.desire(&world, M1, Desired::Started);
    sync(&world, &a.document, &mut b.document);
    assert_same(&a.document, &b.document);
    assert_eq!(b.document.offer(change, &world.authority()), Outcome::Known);
}

#[test]
fn an_altered_store_is_reported_with_the_log_it_is_in() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    let mut change = node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    change.raw[60] ^= 1;
    let corrupt = Document::load(world.mesh(), [change], None, &world.authority()).unwrap_err();
    assert_eq!(corrupt.author, key(1).public());
}

#[test]
fn pages_are_bounded_and_always_get_on() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    for at in 0..10 {
        node.edit(&world, |edit| edit.rename(M1, &format!("name {at}")));
    }
    let author = key(1).public();
    let document = &node.document;
    assert_eq!(document.entries_after(&author, 0, 1).len(), 1);
    assert!(document.entries_after(&author, 11, 1000).is_empty());
    assert!(document.entries_after(&author, u64::MAX, 1000).is_empty());
    let page = document.entries_after(&author, 1, 500);
    let bytes: usize = page.iter().map(|change| change.raw.len()).sum();
    assert!(page.len() > 1 && bytes <= 500);
    assert_eq!(page[0], document.entries_after(&author, 1, 1)[0]);
}

#[test]
fn heads_compare_as_part_of_each_other_or_as_forked() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let first = node.head();
    node.desire(&world, M1, Desired::Started);
    let second = node.head();
    let author = key(1).public();
    let compare = |seq, hash| node.document.compare(&author, &Position { seq, hash });
    assert_eq!(compare(0, [0; 32]), Compared::Ours);
    assert_eq!(compare(1, first.hash), Compared::Ours);
    assert_eq!(compare(2, second.hash), Compared::Same);
    assert_eq!(compare(3, [1; 32]), Compared::Theirs);
    assert_eq!(compare(1, second.hash), Compared::Forked);
}

#[test]
fn a_change_that_automerge_fails_on_is_left_out_and_the_rest_counts() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    a.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let bad = a.desire(&world, M1, Desired::Started);
    a.edit(&world, |edit| edit.rename(M1, "after it"));
    b.edit(&world, |edit| edit.create_migration(&migration(M2)));
    let parsed = admission::parse(bad).unwrap();
    FAILING.with_borrow_mut(|failing| failing.insert(parsed.hash()));
    let mut node = Document::new(world.mesh());
    let changes: Vec<_> = all(&a.document)
        .into_iter()
        .chain(all(&b.document))
        .collect();
    let outcomes = node.offer_all(changes, &world.authority());
    FAILING.with_borrow_mut(HashSet::clear);
    let (author, seq) = (key(1).public(), 2);
    let failed = Outcome::Refused(Refusal::Failed { author, seq });
    assert!(outcomes.contains(&failed));
    assert_eq!(node.heads()[&author].seq, 1);
    assert_eq!(node.plan().migrations.len(), 2);
    assert_eq!(node.take_admitted().len(), 2);
}

#[test]
fn the_bytes_of_a_signed_change_do_not_change() {
    let change = SignedChange {
        raw: vec![1, 2, 3],
        author: PublicKey([7; 32]),
        signature: keys::Signature([9; 64]),
    };
    let mut golden = vec![1, 3, 1, 2, 3];
    golden.extend([7; 32]);
    golden.extend([9; 64]);
    assert_eq!(codec::encode(&change).unwrap(), golden);
    let mut largest = change.clone();
    largest.raw = vec![0; MAX_CHANGE];
    assert!(codec::encode(&largest).is_ok());
}

#[test]
fn an_edit_is_encoded_as_it_always_was() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    let change = node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let hash = blake3::hash(&change.raw).to_hex();
    assert_eq!(&hash[..16], "33fe96fb10d4c237");
}

/// A history of three operators who edit and now and then hear of each other.
fn history(steps: &[(u8, u8, u8)]) -> (World, Document) {
    let world = World::of(&[1, 2, 3]);
    let mut nodes: Vec<Node> = [1, 2, 3].map(|seed| Node::new(&world, seed)).into();
    nodes[0].edit(&world, |edit| edit.create_migration(&migration(M1)));
    let start = nodes[0].document.clone();
    nodes
        .iter_mut()
        .for_each(|node| sync(&world, &start, &mut node.document));
    for (who, what, value) in steps {
        let who = usize::from(who % 3);
        let edit = |edit: &mut Edit<'_>| match what % 8 {
            3 => servers::put(edit, *value),
            4 => servers::remove(edit, *value),
            5 => limits::put(edit, *value),
            6 => limits::remove(edit, *value),
            0 => edit.rename(M1, &format!("name {value}")),
            1 => edit.add_grant(M1, StatementId([*value; 32])),
            _ => edit.set_desired(
                M1,
                [Desired::Started, Desired::Paused][usize::from(value % 2)],
            ),
        };
        if what % 7 == 6 {
            let from = nodes[usize::from(value % 3)].document.clone();
            sync(&world, &from, &mut nodes[who].document);
        } else {
            nodes[who].try_edit(&world, edit).unwrap();
        }
    }
    let mut merged = Document::new(world.mesh());
    nodes
        .iter()
        .for_each(|node| sync(&world, &node.document, &mut merged));
    (world, merged)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_of_arrival_gives_the_same_document(
        steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..30),
        order in any::<u64>(),
        page in 1_usize..8,
    ) {
        let (world, merged) = history(&steps);
        let mut changes = all(&merged);
        changes.sort_by_key(|change| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&order.to_le_bytes());
            hasher.update(&change.raw);
            *hasher.finalize().as_bytes()
        });
        let mut other = Document::new(world.mesh());
        for page in changes.chunks(page) {
            other.offer_all(page.to_vec(), &world.authority());
        }
        assert_same(&other, &merged);
        prop_assert_eq!(other.parked(), (0, 0));
        prop_assert_eq!(other.take_admitted().len(), changes.len());
        let loaded = Document::load(world.mesh(), changes, None, &world.authority()).unwrap();
        assert_same(&loaded, &merged);
    }
}

#[test]
fn a_conflict_is_told_once_when_it_arises_and_once_when_it_is_settled() {
    use crate::conflicts::Conflicts;
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    a.edit(&world, |edit| edit.create_migration(&migration(M1)));
    sync(&world, &a.document, &mut b.document);
    let mut told = [a.document.plan(), b.document.plan()].map(Conflicts::known);
    a.edit(&world, |edit| {
        edit.set_desired(M1, Desired::Started)?;
        edit.set_pool(M1, &[NodeId([7; 32])])
    });
    b.edit(&world, |edit| {
        edit.set_desired(M1, Desired::Paused)?;
        edit.set_pool(M1, &[NodeId([8; 32])])
    });
    assert!(told[0].look(a.document.plan()).is_empty());
    sync(&world, &a.document, &mut b.document);
    sync(&world, &b.document, &mut a.document);
    let news = told[0].look(a.document.plan());
    assert_eq!(news, told[1].look(b.document.plan()), "the same on both");
    let shown: Vec<(&str, usize)> = news
        .iter()
        .map(|apart| (apart.field.as_str(), apart.values.len()))
        .collect();
    assert_eq!(shown, [("desired", 2), ("pool", 2)]);
    assert_eq!(news[0].holds, "paused");
    assert!(news[1].values.contains(&news[1].holds));
    assert!(told[0].look(a.document.plan()).is_empty(), "and once");
    let after_a_restart = Conflicts::known(a.document.plan()).look(a.document.plan());
    assert!(after_a_restart.is_empty());

    b.desire(&world, M1, Desired::Started);
    sync(&world, &b.document, &mut a.document);
    let news = told[0].look(a.document.plan());
    assert_eq!(news.len(), 1);
    assert_eq!((&*news[0].field, &*news[0].holds), ("desired", "started"));
    assert!(news[0].values.is_empty());
}
