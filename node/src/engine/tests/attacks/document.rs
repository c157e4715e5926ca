//! Changes of the plan that were never an operator's, that no program makes, or that
//! take away what is not the document's to take.

use super::super::rogue::{Rogue, empty_page};
use super::super::world::{Running, World, until};
use super::chunk::{Chunk, ONE, bomb, signed};
use crate::engine::Engine;
use crdt::{Desired, SignedChange, Stage, shards};
use keys::{Identity, MigrationId, PublicKey, Role};

/// Largest bomb that a change may be, with room for its signature.
const BOMB: usize = 60_000;
/// As many as fit a page of sync.
const BOMBS: usize = 40;

fn raw(identity: &Identity, alter: impl FnOnce(Chunk) -> Chunk) -> Vec<u8> {
    alter(Chunk::first(identity.public())).bytes()
}

type Malformed = (&'static str, fn(&Identity, PublicKey) -> Vec<u8>);

/// What automerge panics on, walks through for ever, or keeps and cannot load again;
/// with the words of its refusal. `other` is an author in the document's past.
const MALFORMED: &[Malformed] = &[
    ("chunk type", |_, _| bomb(BOMB)),
    ("magic bytes", |_, _| vec![0xA5; 300]),
    ("checksum", |key, _| {
        let mut raw = raw(key, |chunk| chunk);
        raw[5] ^= 1;
        raw
    }),
    ("made by another author", |_, other| {
        Chunk::first(other).bytes()
    }),
    ("numbers begin at 1", |key, _| {
        raw(key, |chunk| Chunk { seq: 0, ..chunk })
    }),
    ("operations are counted on", |key, _| {
        let start_op = 1_000;
        raw(key, |chunk| Chunk { start_op, ..chunk })
    }),
    ("a counter", |key, _| {
        let start_op = 1 << 40;
        raw(key, |chunk| Chunk { start_op, ..chunk })
    }),
    ("maps it writes to", |key, _| {
        let others = vec![];
        let refers = |chunk: Chunk| chunk.with(0x01, vec![ONE, 0]).with(0x02, vec![ONE, 99]);
        raw(key, |chunk| refers(Chunk { others, ..chunk }))
    }),
    ("authors it refers to", |key, other| {
        let others = vec![other];
        let refers = |chunk: Chunk| chunk.with(0x01, vec![ONE, 1]).with(0x02, vec![ONE, 1]);
        raw(key, |chunk| refers(Chunk { others, ..chunk }))
    }),
    ("predecessors are in its past", |key, _| {
        let pred = |chunk: Chunk| chunk.with(0x70, vec![ONE, 1]).with(0x71, vec![ONE, 0]);
        raw(key, |chunk| pred(chunk).with(0x73, vec![ONE, 9]))
    }),
    ("number of items in a column", |key, _| {
        let trillion = vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 1];
        raw(key, |chunk| chunk.with(0x42, trillion))
    }),
    ("only maps are made", |key, _| {
        raw(key, |chunk| {
            chunk.with(0x42, vec![ONE, 2]).with(0x56, vec![ONE, 0])
        })
    }),
    ("columns of lists and marks", |key, _| {
        raw(key, |chunk| chunk.with(0x11, vec![ONE, 0]))
    }),
];

fn document(engine: &mut Engine) -> ([u8; 32], [u8; 32]) {
    let document = engine.replica.document();
    (document.digest(), document.content_hash())
}

/// Waits until an operator's next edit has arrived: the document is whole.
async fn takes_the_next_edit(world: &World, job: roles::JobId) {
    world
        .operator
        .call(|engine| drop(engine.migration_pause("m").unwrap()))
        .await;
    for node in [&world.replicator, &world.agent] {
        until("the pause", node, move |engine| {
            let plan = engine.replica.document().plan();
            let desired = plan.migrations[&job.migration].desired;
            (desired == Desired::Paused).then_some(())
        })
        .await;
    }
    let there = world.operator.call(document).await;
    assert_eq!(world.replicator.call(document).await, there);
}

fn mesh_of(rogue: &Rogue) -> keys::MeshId {
    rogue.replica.ledger().mesh()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_signs_malformed_changes_is_named_and_alters_nothing() {
    let world = World::new().await;
    let job = world.migrate().await;
    let second = world.hostile("second", &[Role::Operator]).await;
    let before = world.replicator.call(document).await;
    let other = world.operator.key;
    for (words, make) in MALFORMED {
        let newest = world.replicator.newest_event().await;
        let raw = make(&second.identity, other);
        let mut page = empty_page();
        page.changes = vec![signed(&second.identity, mesh_of(&second), raw)];
        // What is too large for gossip comes when it is asked for.
        second.answers(&page);
        if page.changes[0].raw.len() > 16 << 10 {
            page.changes.clear();
        }
        let said = second.announce_until(&page, &world.replicator, move |engine| {
            let mut events = engine.events.iter();
            let fits = |event: &&crdt::Event| {
                event.seq > newest && event.kind == "edit-refused" && event.text.contains(words)
            };
            events.find(fits).cloned()
        });
        assert!(said.await.text.contains("signed by second"), "{words}");
        assert_eq!(world.replicator.call(document).await, before, "{words}");
    }
    // A gap is no fault: it waits, and never comes to anything.
    let mut page = empty_page();
    let late = raw(&second.identity, |chunk| Chunk { seq: 5, ..chunk });
    page.changes = vec![signed(&second.identity, mesh_of(&second), late)];
    second.answers(&page);
    second
        .announce_until(&page, &world.replicator, |engine| {
            (engine.replica.document().parked().0 == 1).then_some(())
        })
        .await;

    let bombs = (0..BOMBS).map(|at| {
        let raw = bomb(BOMB - 16 * at);
        signed(&second.identity, mesh_of(&second), raw)
    });
    page.changes = bombs.collect();
    second.answers(&page);
    let victim = world.replicator.key;
    let asked = second.asked_by(victim);
    until("a page of bombs", &world.replicator, {
        let script = second.watch_asked(victim);
        move |_| (script() >= asked + 2).then_some(())
    })
    .await;
    assert_eq!(world.replicator.call(document).await, before);
    takes_the_next_edit(&world, job).await;
}

/// Has everybody ask for the page, and waits for these words about whoever sent it.
async fn refused(world: &World, rogue: &Rogue, page: &mesh::Page, words: &'static str) {
    rogue.answers(page);
    rogue
        .announce_until(&empty_page(), &world.replicator, move |engine| {
            let mut events = engine.events.iter();
            let fits =
                |event: &crdt::Event| event.kind == "peer-refused" && event.text.contains(words);
            events.any(fits).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_another_author_of_a_member_that_is_no_operator_or_too_large_alters_nothing() {
    let world = World::new().await;
    let job = world.migrate().await;
    let second = world.hostile("second", &[Role::Operator]).await;
    let mallory = world.hostile("mallory", &[Role::Agent]).await;
    let before = world.replicator.call(document).await;
    // In the operator's name, with a signature of mallory's.
    let log = mallory.replica.document();
    let log = log.entries_after(&world.operator.key, 0, usize::MAX);
    let mut forged: SignedChange = log[0].clone();
    let own = signed(&mallory.identity, mesh_of(&mallory), forged.raw.clone());
    forged.signature = own.signature;
    let mut page = empty_page();
    page.changes = vec![forged];
    let words = "mallory sent a document change that is forged";
    refused(&world, &mallory, &page, words).await;

    // Signed by an operator, and a byte over the limit.
    let endless = vec![0; crdt::log::MAX_CHANGE + 1];
    let mut page = empty_page();
    page.changes = vec![signed(&second.identity, mesh_of(&second), endless)];
    let words = "second sent a document change that is forged";
    refused(&world, &second, &page, words).await;

    // Well made, by somebody who is no operator: it waits for him to become one.
    let raw = raw(&mallory.identity, |chunk| chunk);
    let mut page = empty_page();
    page.changes = vec![signed(&mallory.identity, mesh_of(&mallory), raw)];
    mallory
        .announce_until(&page, &world.replicator, |engine| {
            (engine.replica.document().parked().0 == 1).then_some(())
        })
        .await;
    assert_eq!(world.replicator.call(document).await, before);
    takes_the_next_edit(&world, job).await;
}

/// A change that deletes the whole entry of a migration from the document, as no
/// program of ours does.
fn deletion(second: &mut Rogue, operator: PublicKey, id: MigrationId) -> SignedChange {
    let document = second.replica.document();
    let deps = document.heads().values().map(|head| head.hash).collect();
    let key = format!("m/{id}");
    let mut column = vec![ONE, u8::try_from(key.len()).unwrap()];
    column.extend(key.as_bytes());
    let mut chunk = Chunk {
        deps,
        others: vec![shards::AUTHOR, operator],
        ..Chunk::first(second.identity.public())
    }
    .with(0x02, vec![ONE, shards::of(&key) + 1])
    .with(0x15, column)
    .with(0x42, vec![ONE, 3])
    .with(0x56, vec![ONE, 0])
    .with(0x70, vec![ONE, 1])
    .with(0x71, vec![ONE, 2])
    // The operation after those that make the shards, signed: 65.
    .with(0x73, vec![ONE, 0xC1, 0]);
    // Its operations are counted on from the last, which only automerge knows.
    for start_op in 65..300 {
        chunk.start_op = start_op;
        let change = signed(&second.identity, mesh_of(second), chunk.bytes());
        let announcement = mesh::Announcement {
            heads: second.replica.heads(),
            statements: vec![],
            changes: vec![change.clone()],
            reports: vec![],
            evidence: vec![],
        };
        let via = second.identity.public();
        let input = mesh::Input::Announced { via, announcement };
        let wall = crate::engine::wall_clock();
        second.replica.step(wall, 0, input, &mut vec![]);
        if second.replica.document().heads().contains_key(&via) {
            return change;
        }
    }
    panic!("no deletion was admitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_deleted_takes_no_grant_away_and_one_written_again_revives_none() {
    let world = World::new().await;
    let job = world.migrate().await;
    let mut second = world.hostile("second", &[Role::Operator]).await;
    let plan = second.replica.document().plan().migrations[&job.migration].clone();
    let grant = plan.grants[0];
    let mut page = empty_page();
    page.changes = vec![deletion(&mut second, world.operator.key, job.migration)];
    let nodes: [&Running; 3] = [&world.operator, &world.replicator, &world.agent];
    for node in nodes {
        second
            .announce_until(&page, node, move |engine| {
                let plan = engine.replica.document().plan();
                (!plan.migrations.contains_key(&job.migration)).then_some(())
            })
            .await;
        let granted = move |engine: &mut Engine| {
            let state = engine.replica.authority().grant(&grant).cloned();
            state.is_some_and(|state| !state.revoked)
        };
        assert!(node.call(granted).await, "the grant went with the plan");
    }
    // Nor does the copy: only a migration that is marked deleted gives its state up.
    let copy = world.copy(job).await;
    assert!(copy.exists());

    world.operator.revoke(grant).await;
    page.changes = second.edits(|edit| {
        let desired = Desired::Started;
        edit.create_migration(&crdt::MigrationPlan { desired, ..plan })
    });
    let refused = move |engine: &mut Engine| {
        let slot = engine.agents.get(&job)?;
        let (stage, step, why) = slot.machine.standing();
        let refused = stage == Stage::Stalled && step == "refused";
        (refused && why?.contains("was revoked")).then_some(())
    };
    second.announce_until(&page, &world.agent, refused).await;
    let written_again = move |engine: &mut Engine| {
        let plan = engine.replica.document().plan();
        plan.migrations.contains_key(&job.migration)
    };
    assert!(world.agent.call(written_again).await);
}
