//! Changes that a faulty or hostile operator may sign: none that breaks a rule alters
//! anything, and what waits stays within its bounds. Their bytes are in `bytes`.

use super::*;
use crate::parked::{MAX_PARKED, MAX_PARKED_OF_AUTHOR};
use automerge::legacy::{Key, ObjectId, Op, OpId, OpType};
use automerge::{ExpandedChange, ObjType, ScalarValue};

/// A document with a migration, and a second change that was not offered yet.
pub(super) fn with_next() -> (World, Document, SignedChange) {
    let world = World::of(&[1, 2]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let document = node.document.clone();
    let next = node.edit(&world, |edit| {
        edit.set_desired(M1, Desired::Started)?;
        edit.rename(M1, "next")
    });
    (world, document, next)
}

pub(super) fn resign(world: &World, raw: Vec<u8>) -> SignedChange {
    SignedChange::sign(&key(1), world.mesh(), raw)
}

pub(super) fn altered(
    world: &World,
    change: &SignedChange,
    alter: impl FnOnce(&mut ExpandedChange),
) -> SignedChange {
    let mut expanded = Change::from_bytes(change.raw.clone()).unwrap().decode();
    alter(&mut expanded);
    resign(world, Change::from(expanded).raw_bytes().to_vec())
}

fn id(counter: u64, seed: u8) -> OpId {
    OpId(counter, ActorId::from(&key(seed).public().0[..]))
}

/// The shard that an entry of this key belongs in.
pub(super) fn shard(key: &str) -> ObjectId {
    let counter = u64::from(shards::of(key)) + 1;
    ObjectId::Id(OpId(counter, ActorId::from(&shards::AUTHOR.0[..])))
}

fn make(key: &str) -> Op {
    Op {
        action: OpType::Make(ObjType::Map),
        ..put(shard(key), key)
    }
}

pub(super) fn put(obj: ObjectId, key: &str) -> Op {
    Op {
        action: OpType::Put(ScalarValue::Uint(1)),
        obj,
        key: Key::Map(key.into()),
        pred: Vec::new().into(),
        insert: false,
    }
}

type Alteration = (&'static str, fn(&mut ExpandedChange));

const BROKEN: &[Alteration] = &[
    ("malformed", |change| change.message = Some("x".into())),
    ("malformed", |change| change.message = Some("0".into())),
    ("malformed", |change| change.message = Some("01".into())),
    ("malformed", |change| change.message = Some("+1".into())),
    ("numbers begin at 1", |change| change.seq = 0),
    ("malformed", |change| change.extra_bytes = vec![1]),
    ("malformed", |change| {
        change.actor_id = ActorId::from(&[1; 32][..]);
    }),
    ("malformed", |change| {
        change.actor_id = ActorId::from(&[1; 16][..]);
    }),
    ("at least one operation", |change| change.operations.clear()),
    ("every dependency", |change| {
        change.deps.push(change.deps[0]);
    }),
    ("previous change", |change| {
        change.deps = vec![shards::hash()]
    }),
    ("counted on", |change| {
        change.start_op = change.start_op.saturating_add(1);
    }),
    ("counted on", |change| {
        change.start_op = std::num::NonZeroU64::MIN;
    }),
    ("only maps", |change| {
        change.operations[0].action = OpType::Increment(1);
    }),
    ("only maps", |change| {
        change.operations[0].action = OpType::Make(ObjType::List);
    }),
    ("made in shards", |change| {
        change.operations[0].action = OpType::Make(ObjType::Map);
    }),
    ("beside the shards", |change| {
        change.operations.push(put(ObjectId::Root, "00"));
    }),
    ("beside the shards", |change| {
        let root = ObjectId::Root;
        change.operations.push(Op {
            obj: root,
            ..make("aside")
        });
    }),
    ("shard of its key", |change| {
        let other = (0..).map(|at| format!("{at}"));
        let mut other = other.filter(|key| shard(key) != shard("entry"));
        let obj = shard(&other.next().unwrap());
        change.operations.push(Op {
            obj,
            ..make("entry")
        });
    }),
    ("depends on the shards", |change| change.deps.clear()),
    ("made in shards", |change| {
        let number = OpId(999, ActorId::from(&shards::AUTHOR.0[..]));
        let obj = ObjectId::Id(number);
        change.operations.push(Op {
            obj,
            ..make("entry")
        });
    }),
    ("only maps", |change| {
        change.operations[0].action = OpType::Put(ScalarValue::counter(1));
    }),
    ("only maps", |change| {
        change.operations[0].action = OpType::Put(ScalarValue::F64(f64::NAN));
    }),
    ("only maps", |change| change.operations[0].insert = true),
    ("only maps", |change| {
        change.operations[0].key = Key::Map("".into());
    }),
    ("written once", |change| {
        let twice = change.operations[0].clone();
        change.operations.push(twice);
    }),
    ("names what it deletes", |change| {
        change.operations[0].action = OpType::Delete;
        change.operations[0].pred = Vec::new().into();
    }),
    ("maps it writes to", |change| {
        change.operations[0].obj = ObjectId::Id(id(999, 1));
    }),
    ("maps it writes to", |change| {
        // The second operation of the first change put a scalar.
        let second = u64::from(shards::SHARDS) + 2;
        change.operations[0].obj = ObjectId::Id(id(second, 1));
    }),
    ("maps it writes to", |change| {
        // A map that is made later in the same change.
        let made = change.start_op.get() + change.operations.len() as u64 + 1;
        let early = put(ObjectId::Id(id(made, 1)), "x");
        change.operations.extend([early, make("late")]);
    }),
    ("maps it writes to", |change| {
        // What the change itself puts before it, which is no map.
        let value = id(change.start_op.get(), 1);
        let inside = put(ObjectId::Id(value), "x");
        change.operations.push(inside);
    }),
    ("authors it refers to", |change| {
        change.operations[0].obj = ObjectId::Id(id(1, 2));
    }),
    ("predecessors", |change| {
        change.operations[0].pred = vec![id(999, 1)].into();
    }),
    ("predecessors", |change| {
        // Of the other operation, at another key.
        change.operations[0].pred = change.operations[1].pred.clone();
    }),
    ("every predecessor", |change| {
        let pred = change.operations[0].pred.get(0).unwrap().clone();
        change.operations[0].pred = vec![pred.clone(), pred].into();
    }),
    ("malformed", |change| {
        change.operations[0].key = Key::Map("k".repeat(300).into());
    }),
    ("malformed", |change| {
        change.operations = (0..5000)
            .map(|at| put(shard(&format!("{at}")), &format!("{at}")))
            .collect();
    }),
];

#[test]
fn every_broken_rule_is_refused_by_name_and_alters_nothing() {
    let (world, document, next) = with_next();
    for (at, (rule, alter)) in BROKEN.iter().enumerate() {
        let mut offered = document.clone();
        let change = altered(&world, &next, alter);
        let outcome = offered.offer(change, &world.authority());
        let Outcome::Refused(refusal) = outcome else {
            panic!("{at}: {rule}: {outcome:?}");
        };
        assert!(refusal.to_string().contains(rule), "{at}: {refusal}");
        assert!(!refusal.blames_sender(), "{at}: {refusal}");
        assert_same(&offered, &document);
        assert_eq!(offered.parked(), (0, 0));
    }
    // The same change unaltered is admitted, so that none of these fails by accident.
    let mut offered = document.clone();
    let change = altered(&world, &next, |_| {});
    assert_eq!(change, next);
    assert_eq!(offered.offer(change, &world.authority()), Outcome::Admitted);
}

#[test]
fn references_outside_the_past_are_refused_even_where_they_are_known() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    a.edit(&world, |edit| edit.create_migration(&migration(M1)));
    sync(&world, &a.document, &mut b.document);
    b.desire(&world, M1, Desired::Started);
    let unseen = b.document.plan().clone();
    let next = a.desire(&world, M1, Desired::Paused);
    let counter = Change::from_bytes(next.raw.clone())
        .unwrap()
        .start_op()
        .get();
    // Names the other's concurrent change as predecessor without depending on it.
    let forged = altered(&world, &next, |change| {
        change.operations[0].pred = vec![id(counter, 2)].into();
    });
    let outcome = b.document.offer(forged, &world.authority());
    let (author, seq) = (key(1).public(), 2);
    let rule = "authors it refers to are in its past";
    let unsound = Refusal::Unsound { author, seq, rule };
    assert_eq!(outcome, Outcome::Refused(unsound));
    assert_eq!(*b.document.plan(), unseen);
}

#[test]
fn what_an_author_did_later_than_was_seen_of_it_is_no_past_to_refer_to() {
    let world = World::of(&[1, 2]);
    let (mut a, mut b) = (Node::new(&world, 1), Node::new(&world, 2));
    b.edit(&world, |edit| edit.create_migration(&migration(M1)));
    sync(&world, &b.document, &mut a.document);
    let start_of = |change: &SignedChange| {
        let change = Change::from_bytes(change.raw.clone()).unwrap();
        change.start_op().get()
    };
    let started = start_of(&b.desire(&world, M1, Desired::Started));
    let planned = start_of(&b.edit(&world, |edit| edit.create_migration(&migration(M2))));
    let next = a.desire(&world, M1, Desired::Paused);
    let over = altered(&world, &next, |change| {
        change.operations[0].pred = vec![id(started, 2)].into();
    });
    let inside = altered(&world, &next, |change| {
        change.operations = vec![put(ObjectId::Id(id(planned, 2)), "name")];
    });
    // And what is made here under a number of its own is nothing of the other's.
    let foreign = altered(&world, &next, |change| {
        let theirs = ObjectId::Id(id(change.start_op.get(), 2));
        change.operations = vec![make("new"), put(theirs, "x")];
    });
    for (forged, rule) in [
        (over, "predecessors"),
        (inside, "maps it writes to"),
        (foreign, "maps it writes to"),
    ] {
        let outcome = b.document.clone().offer(forged, &world.authority());
        let Outcome::Refused(refusal) = outcome else {
            panic!("{rule}: {outcome:?}");
        };
        assert!(refusal.to_string().contains(rule), "{refusal}");
    }
    let honest = b.document.offer(next, &world.authority());
    assert_eq!(honest, Outcome::Admitted);
}

#[test]
fn a_deletion_is_nothing_to_write_over() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    let mut server = servers::server(1);
    node.edit(&world, |edit| edit.create_server(&server));
    server.note = None;
    let deletes = node.edit(&world, |edit| edit.change_server(&server));
    let expanded = Change::from_bytes(deletes.raw).unwrap().decode();
    let mut ops = (expanded.start_op.get()..).zip(&expanded.operations);
    let (counter, deletion) = ops.find(|(_, op)| op.action == OpType::Delete).unwrap();
    let over = Op {
        pred: vec![id(counter, 1)].into(),
        ..put(deletion.obj.clone(), place_of(deletion))
    };
    let mut document = node.document.clone();
    let next = node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let forged = altered(&world, &next, |change| change.operations.push(over));
    let outcome = document.offer(forged, &world.authority());
    let Outcome::Refused(refusal) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(refusal.to_string().contains("predecessors"), "{refusal}");
}

#[test]
fn what_is_written_over_is_in_the_same_map() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    node.edit(&world, |edit| edit.create_migration(&migration(M1)));
    let other = node.edit(&world, |edit| edit.create_migration(&migration(M2)));
    let expanded = Change::from_bytes(other.raw).unwrap().decode();
    let mut ops = (expanded.start_op.get()..).zip(&expanded.operations);
    let named = |op: &Op| matches!(&op.key, Key::Map(key) if key == "name");
    let (counter, _) = ops.find(|(_, op)| named(op)).unwrap();
    let mut document = node.document.clone();
    let next = node.edit(&world, |edit| edit.rename(M1, "next"));
    let forged = altered(&world, &next, |change| {
        assert!(named(&change.operations[0]));
        change.operations[0].pred = vec![id(counter, 1)].into();
    });
    let outcome = document.offer(forged, &world.authority());
    let Outcome::Refused(refusal) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(refusal.to_string().contains("predecessors"), "{refusal}");
}

fn place_of(op: &Op) -> &str {
    match &op.key {
        Key::Map(key) => key,
        Key::Seq(_) => panic!("only maps have keys"),
    }
}

#[test]
fn changes_of_another_mesh_and_of_another_signer_are_refused() {
    let (world, mut document, next) = with_next();
    let blamed = |outcome: Outcome| match outcome {
        Outcome::Refused(refusal) => refusal.blames_sender(),
        _ => false,
    };
    let foreign = SignedChange::sign(&key(1), MeshId([5; 32]), next.raw.clone());
    assert!(blamed(document.offer(foreign, &world.authority())));
    let mut stolen = next.clone();
    stolen.author = key(2).public();
    assert!(blamed(document.offer(stolen, &world.authority())));
    let endless = resign(&world, vec![0; MAX_CHANGE + 1]);
    assert!(blamed(document.offer(endless, &world.authority())));
    let other = SignedChange::sign(&key(2), world.mesh(), next.raw);
    let outcome = document.offer(other, &world.authority());
    assert!(matches!(
        outcome,
        Outcome::Refused(Refusal::Malformed { .. })
    ));
}

#[test]
fn a_change_over_the_limit_is_refused_and_does_not_wait_for_its_author() {
    let world = World::of(&[1]);
    let mut document = Document::new(world.mesh());
    let bytes = MAX_CHANGE + 1;
    for seed in [1, 9] {
        let large = SignedChange::sign(&key(seed), world.mesh(), vec![0; bytes]);
        let author = key(seed).public();
        let refusal = Refusal::TooLarge { author, bytes };
        let offered = document.offer(large.clone(), &world.authority());
        assert_eq!(offered, Outcome::Refused(refusal.clone()));
        // Nor does it get in as half of a fork.
        assert_eq!(admission::parse(large).err(), Some(refusal));
    }
    assert_eq!(document.parked(), (0, 0));
}

#[test]
fn a_full_document_takes_no_more_and_still_knows_what_it_holds() {
    let (world, mut document, next) = with_next();
    let held = all(&document).remove(0);
    document.index.fill();
    let full = Outcome::Refused(Refusal::Full);
    assert_eq!(document.offer(next, &world.authority()), full);
    assert_eq!(document.offer(held, &world.authority()), Outcome::Known);
    let create = |edit: &mut Edit<'_>| edit.create_migration(&migration(M2));
    let edited = document.edit(&key(1), NOW, &world.authority(), create);
    assert_eq!(edited, Err(Refusal::Full.into()));
    assert_eq!(document.len(), 1);
}

#[test]
fn what_does_not_count_is_kept_up_to_a_limit() {
    let (_, mut document, next) = with_next();
    let mut named = next.clone();
    let parsed = admission::parse(next).unwrap();
    let everything = (0..rebuild::MAX_ASIDE as u64 + 9).map(|number| {
        named.raw = number.to_be_bytes().to_vec();
        (named.digest(), parsed.clone())
    });
    document.set_aside(&Index::default(), everything.collect());
    assert_eq!(document.aside.len(), rebuild::MAX_ASIDE);
}

#[test]
fn a_stored_change_of_who_is_not_known_as_an_operator_counts_for_nothing() {
    let (world, document, _) = with_next();
    let others = World::of(&[2]).authority();
    let loaded = Document::load(world.mesh(), all(&document), None, &others).unwrap();
    assert!(loaded.is_empty() && loaded.plan().migrations.is_empty());
}

#[test]
fn who_passes_on_what_nobody_signed_is_blamed_and_who_signs_what_breaks_a_rule() {
    let author = key(1).public();
    let (seq, bytes) = (1, 1);
    let (what, rule) = ("x", "x");
    let blamed = [
        (Refusal::Signature { author }, (true, false)),
        (Refusal::TooLarge { author, bytes }, (true, false)),
        (Refusal::Malformed { author, what }, (false, true)),
        (Refusal::Unsound { author, seq, rule }, (false, true)),
        (Refusal::Failed { author, seq }, (false, true)),
        (Refusal::NotHonoured { author, seq }, (false, false)),
        (Refusal::MadeAgain { author, seq }, (false, false)),
        (Refusal::NoRoom { author }, (false, false)),
        (Refusal::Full, (false, false)),
    ];
    for (refusal, sender_and_author) in blamed {
        let told = (refusal.blames_sender(), refusal.blames_author());
        assert_eq!(told, sender_and_author, "{refusal}");
    }
}

#[test]
fn strangers_leave_what_waits_of_operators_its_room() {
    let (world, _, next) = with_next();
    let mut document = Document::new(world.mesh());
    let authority = world.authority();
    for seed in 100..100 + (MAX_PARKED / MAX_PARKED_OF_AUTHOR) as u8 {
        for number in 0..MAX_PARKED_OF_AUTHOR {
            let raw = number.to_le_bytes().to_vec();
            let change = SignedChange::sign(&key(seed), world.mesh(), raw);
            assert_eq!(document.offer(change, &authority), Outcome::Parked);
        }
    }
    let one_more = SignedChange::sign(&key(99), world.mesh(), vec![1]);
    let author = key(99).public();
    let no_room = Outcome::Refused(Refusal::NoRoom { author });
    assert_eq!(document.offer(one_more, &authority), no_room);
    assert_eq!(document.offer(next, &authority), Outcome::Parked);
}

#[test]
fn a_gap_waits_and_what_waits_stays_within_its_bounds() {
    let (world, mut document, next) = with_next();
    let before = document.clone();
    for seq in 3..3000 {
        let far = altered(&world, &next, |change| change.seq = seq);
        let outcome = document.offer(far, &world.authority());
        let room = matches!(outcome, Outcome::Parked);
        assert_eq!(room, seq < 3 + MAX_PARKED_OF_AUTHOR as u64);
    }
    assert_same(&document, &before);
    let author = key(1).public();
    let full = Outcome::Refused(Refusal::NoRoom { author });
    let far = altered(&world, &next, |change| change.seq = 4000);
    assert_eq!(document.offer(far, &world.authority()), full);
    assert_eq!(document.offer(next, &world.authority()), Outcome::Admitted);
    // What now has the next number does not follow it, and waits no longer.
    assert_eq!(document.parked().0, MAX_PARKED_OF_AUTHOR - 1);
}

#[test]
fn entries_that_cannot_be_read_are_listed_and_the_rest_is_planned() {
    let (world, document, next) = with_next();
    let cases: [Alteration; 3] = [
        ("desired", |change| {
            let desired = change.operations.iter_mut();
            let mut desired = desired.filter(|op| op.key == Key::Map("desired".into()));
            desired.next().unwrap().action = OpType::Put(ScalarValue::Uint(1));
        }),
        ("volume/zz", |change| {
            let mut odd = put(change.operations[0].obj.clone(), "volume/zz");
            odd.action = OpType::Put(ScalarValue::Boolean(true));
            change.operations.push(odd);
        }),
        ("name", |change| {
            let name = change.operations.iter_mut();
            let mut name = name.filter(|op| op.key == Key::Map("name".into()));
            name.next().unwrap().action = OpType::Delete;
        }),
    ];
    for (field, alter) in cases {
        let mut document = document.clone();
        let change = altered(&world, &next, alter);
        assert_eq!(
            document.offer(change, &world.authority()),
            Outcome::Admitted
        );
        assert!(document.plan().migrations.is_empty());
        let problems: Vec<String> = document
            .plan()
            .problems
            .values()
            .map(Problem::to_string)
            .collect();
        assert!(problems[0].contains(field) && problems.len() == 1);
    }
    let mut document = document.clone();
    let change = altered(&world, &next, |change| {
        for key in ["elsewhere", &format!("m/{M2}")] {
            change.operations.push(put(shard(key), key));
        }
    });
    assert_eq!(
        document.offer(change, &world.authority()),
        Outcome::Admitted
    );
    assert_eq!(document.plan().migrations.len(), 1);
    assert_eq!(document.plan().problems.len(), 2);
}
