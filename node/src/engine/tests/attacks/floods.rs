//! More than there is room for: gossip, questions, connections. Bounds are those of the
//! engine's own queues and of its event log; honest work goes on meanwhile.

use super::super::rogue::{Rogue, STRANGE, empty_page, progress};
use super::super::world::{Running, World, pause, soon, until};
use crate::engine::Figures;
use crate::engine::events::Progressed;
use crate::engine::exchange::{Gossip, MAX_REPLIES};
use crate::engine::{Engine, repeats};
use crate::net::{self, Event, FrameError, Protocol, Refusal};
use codec::Wire;
use keys::{PublicKey, Role, VolumeId};
use mesh::{Request, Summary};
use roles::JobId;
use tokio::task::JoinSet;

/// How far this process may grow while it is flooded; several tests run in it.
const GROWTH: u64 = 512 << 20;

/// Bytes of memory that are this process's now.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Lies about a migration of somebody else's, and about volumes that it does not have.
fn false_progress(job: JobId, other: u8) -> Progressed {
    let jobs = (0..200u8).map(|at| {
        let mut volume = [at; 16];
        volume[0] = other;
        let volume = VolumeId(volume);
        let figures = Figures {
            pass: 1,
            total_bytes: 100,
            done_bytes: 100,
            ..Figures::default()
        };
        (JobId { volume, ..job }, figures)
    });
    Progressed {
        number: (1, other.into()),
        figures: jobs.collect(),
        lends_millis: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_gossip_neither_stops_a_migration_nor_fills_log_or_memory() {
    let world = World::new().await;
    let job = world.migrate().await;
    let mallory = world.hostile("mallory", &[Role::Agent]).await;
    let newest = world.replicator.newest_event().await;
    let before = resident();
    let (net, identity) = (mallory.net.clone(), mallory.identity.clone());
    let flood = tokio::spawn(async move {
        for at in 0u64.. {
            let mut garbage = blake3::hash(&at.to_le_bytes()).as_bytes().repeat(900);
            // Of the version that is spoken here, so that it is looked at.
            garbage[0] = Gossip::VERSION;
            net.gossip(garbage, None).unwrap();
            // Each is new: its number grows.
            let mut lies = false_progress(job, at as u8);
            lies.number = (1, at);
            let lies = progress(&identity, codec::encode(&lies).unwrap());
            net.gossip(lies, None).unwrap();
            if at % 16 == 0 {
                pause().await;
            }
        }
    });
    world.goes_on(job, 7).await;
    let out = world.replicator.event(newest, "peer-shut-out", "mallory");
    out.await;
    mallory.is_cut_off(world.replicator.key).await;
    world.goes_on(job, 8).await;
    flood.abort();
    let live = world.replicator.call(|engine| engine.live.len()).await;
    assert!(live <= 1, "{live} jobs are shown");
    let lines = world.replicator.events_with(newest, "mallory").await;
    assert!(lines <= repeats::MAX_TOLD + 8, "{lines} events");
    let growth = resident().saturating_sub(before);
    assert!(growth < GROWTH, "{growth} bytes more");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_shows_no_progress_of_volumes_that_its_migration_does_not_have() {
    let world = World::new().await;
    let job = world.migrate().await;
    let agent = world.agent.key;
    // As soon as it may say something again.
    let shown = until("its word", &world.replicator, move |engine| {
        let mut lies = false_progress(job, 1);
        // Newer than all that it has said itself.
        lies.number = (u64::MAX, 1);
        let taken = engine.progressed(agent, lies);
        taken.then(|| engine.live.keys().filter(|shown| **shown != job).count())
    });
    assert_eq!(shown.await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_repeats_what_is_true_or_speaks_a_newer_version_loses_nothing() {
    let world = World::new().await;
    let job = world.migrate().await;
    let honest = world.hostile("honest", &[Role::Agent]).await;
    let mut page = empty_page();
    page.statements = honest.statements();
    let counted = |engine: &mut Engine| engine.replica.ledger().len();
    let before = world.replicator.call(counted).await;
    let newer = |bytes: usize| {
        let mut bytes = vec![7; bytes];
        bytes[0] = 99;
        bytes
    };
    for at in 0..400 {
        honest.announce_page(&page);
        honest.gossip(newer(100 + at));
        honest.gossip(progress(&honest.identity, newer(100 + at)));
        if at % 16 == 0 {
            pause().await;
        }
    }
    honest.answers_bytes(newer(500));
    let victim = world.replicator.key;
    let asked = honest.asked_by(victim);
    until("two answers", &world.replicator, {
        let script = honest.watch_asked(victim);
        move |_| (script() >= asked + 2).then_some(())
    })
    .await;
    world
        .replicator
        .event(0, "peer-refused", "format version 99")
        .await;
    let key = honest.identity.public();
    let held = world.replicator.call(move |engine| {
        let known = engine.connected.contains(&key);
        (known, engine.offences.is_clear(&key))
    });
    assert_eq!(held.await, (true, true), "an honest peer lost by it");
    assert_eq!(world.replicator.call(counted).await, before);
    world.goes_on(job, 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_questions_is_answered_within_bounds_and_others_are_too() {
    let world = World::new().await;
    let job = world.migrate().await;
    let mallory = world.hostile("mallory", &[Role::Agent]).await;
    let victim = world.replicator.key;
    let largest = Request {
        heads: STRANGE,
        // Nothing is held: all of it is to be sent.
        ledger: Some(Summary::Held((0..=255).map(|at| (at, vec![])).collect())),
        logs: Some(vec![]),
        reports: Some(Summary::Held((0..=255).map(|at| (at, vec![])).collect())),
        forks: Some(vec![]),
    };
    let largest = codec::encode(&largest).unwrap();
    let mut asking = JoinSet::new();
    for _ in 0..128 {
        let (net, request) = (mallory.net.clone(), largest.clone());
        asking.spawn(async move {
            loop {
                let _ = net.request(victim.0, request.clone()).await;
                pause().await;
            }
        });
    }
    world.goes_on(job, 11).await;
    let owed = world.replicator.call(|engine| engine.replies.len()).await;
    assert!(owed <= MAX_REPLIES, "{owed} answers are owed");
    world.goes_on(job, 12).await;
    let key = mallory.identity.public();
    let clear = world
        .replicator
        .call(move |engine| engine.offences.is_clear(&key));
    assert!(clear.await, "to ask is no offence");
    asking.abort_all();
}

/// Connects with a member's key and is gone again.
async fn comes_and_goes(rogue: &Rogue, victim: &Running) {
    let tag = crate::local::mesh_tag(&rogue.replica.ledger().mesh());
    let config = net::Config::new(&mut rogue.identity.seed(), vec![], false, tag);
    let (net, mut events) = net::start(config).await.unwrap();
    net.allow([victim.key.0].into());
    let addresses = victim.addresses().await;
    net.set_addresses([(victim.key.0, addresses)].into());
    soon("a connection", async {
        while let Some(event) = events.recv().await {
            if matches!(event, Event::Connected(_)) {
                return;
            }
        }
    })
    .await;
    net.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_connects_and_disconnects_for_ever_costs_a_few_lines() {
    let world = World::new().await;
    let job = world.migrate().await;
    let mallory = world.hostile("mallory", &[Role::Agent]).await;
    mallory.net.clone().shutdown().await;
    let newest = world.replicator.newest_event().await;
    let before = resident();
    for _ in 0..50 {
        comes_and_goes(&mallory, &world.replicator).await;
    }
    world.goes_on(job, 13).await;
    let lines = world.replicator.events_with(newest, "mallory").await;
    assert!(lines <= 8, "{lines} events");
    let key = mallory.identity.public();
    until("it is gone", &world.replicator, move |engine| {
        (!engine.connected.contains(&key)).then_some(())
    })
    .await;
    let growth = resident().saturating_sub(before);
    assert!(growth < GROWTH, "{growth} bytes more");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_with_ever_new_keys_share_one_place_in_the_log() {
    let world = World::new().await;
    let newest = world.replicator.newest_event().await;
    let told = world.replicator.call(move |engine| {
        for at in 0..500u64 {
            let what = Refusal::Frame {
                protocol: Protocol::Enrol,
                error: FrameError::Oversized {
                    len: 1 << 30,
                    limit: 1,
                },
            };
            let peer = *blake3::hash(&at.to_le_bytes()).as_bytes();
            engine.network(Event::Refused { peer, what });
            assert!(
                engine.offences.is_clear(&PublicKey(peer)),
                "it has no place"
            );
        }
        let since = engine.events.iter().filter(|event| event.seq > newest);
        since.count()
    });
    let told = told.await;
    assert!((1..=repeats::MAX_TOLD).contains(&told), "{told} events");
    // The rest is told when the minute is over, as one line.
    let rest = world.replicator.call(|engine| {
        let now = engine.now().mono_millis;
        engine.repeats.due(now + repeats::WINDOW_MILLIS)
    });
    let rest = rest.await;
    let counted = |text: &String| text.contains("such events were counted");
    assert_eq!(
        rest.iter().filter(|(_, note)| counted(&note.text)).count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_large_or_no_page_costs_its_sender_and_nothing_else() {
    let world = World::new().await;
    let job = world.migrate().await;
    let mallory = world.hostile("mallory", &[Role::Agent]).await;
    let mut page = vec![0; mesh::sync::MAX_PAGE + 1];
    page[0] = mesh::Page::VERSION;
    mallory.answers_bytes(page);
    mallory.announce(mesh::Announcement {
        heads: STRANGE,
        ..mesh::Announcement::default()
    });
    let refused = world
        .replicator
        .event(0, "peer-refused", "answer of mallory refused");
    refused.await;
    let key = mallory.identity.public();
    let clear = world
        .replicator
        .call(move |engine| engine.offences.is_clear(&key));
    assert!(!clear.await, "it cost nothing");
    world.goes_on(job, 14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_asks_in_garbage_is_shut_out_and_one_cut_off_in_a_frame_is_not() {
    let world = World::new().await;
    let mallory = world.hostile("mallory", &[Role::Agent]).await;
    let (victim, key) = (world.replicator.key, mallory.identity.public());
    let asked = world.replicator.call(move |engine| {
        for _ in 0..200 {
            let what = Refusal::Frame {
                protocol: Protocol::Sync,
                error: FrameError::Truncated,
            };
            engine.network(Event::Refused { peer: key.0, what });
        }
        engine.offences.is_clear(&key)
    });
    assert!(asked.await, "a connection may break inside a frame");
    let asking = async {
        loop {
            let _ = mallory
                .net
                .request(victim.0, vec![Request::VERSION; 64])
                .await;
        }
    };
    tokio::select! {
        () = asking => unreachable!("it goes on for ever"),
        _ = world.replicator.event(0, "peer-shut-out", "mallory") => {}
    }
    mallory.is_cut_off(victim).await;
}
