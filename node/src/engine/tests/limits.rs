//! What limits in the plan come to at agents of one site.

use super::super::Engine;
use super::world::{Running, World, content, until};
use crate::api::model::{LimitOf, PlannedLimit};
use crate::transfer::Pace;
use std::num::NonZeroU64;

const MIB: u64 = 1 << 20;

/// What the agent's sessions are kept to.
fn pace(engine: &Engine) -> (Option<u64>, bool) {
    let Pace { limit, polite } = engine.pacer.pace();
    (limit.map(NonZeroU64::get), polite)
}

async fn comes_to(node: &Running, bytes_per_sec: Option<u64>, polite: bool) {
    let what = format!("a pace of {bytes_per_sec:?}");
    let wanted = (bytes_per_sec, polite);
    until(&what, node, move |engine| {
        (pace(engine) == wanted).then_some(())
    })
    .await;
}

async fn set(operator: &Running, server: Option<&str>, timetable: &str, polite: bool) {
    let asked = PlannedLimit {
        server: server.map(str::to_owned),
        site: server.is_none().then(|| "here".to_owned()),
        timetable: timetable.to_owned(),
        zone: "UTC".to_owned(),
        polite,
    };
    operator
        .call(move |engine| engine.limit_set(&asked).unwrap())
        .await;
}

async fn remove(operator: &Running, server: Option<&str>) {
    let asked = LimitOf {
        server: server.map(str::to_owned),
        site: server.is_none().then(|| "here".to_owned()),
    };
    operator
        .call(move |engine| engine.limit_remove(&asked).unwrap())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_a_site_share_its_limit_and_the_smaller_of_two_holds() {
    let world = World::new().await;
    let second = world.one_more("second").await;
    assert_eq!(world.agent.call(|engine| pace(engine)).await, (None, false));
    set(&world.operator, None, "8MiB/s", false).await;
    // Nobody else may be sending.
    for agent in [&world.agent, &second] {
        comes_to(agent, Some(8 * MIB), false).await;
    }
    let disk = world.folder.path().join("second.raw");
    std::fs::write(&disk, content(7)).unwrap();
    world.migrate().await;
    world.migrate_of(&second, "second", "n", &disk).await;
    // Both may be, and neither does: each lends but an eighth of its half.
    for agent in [&world.agent, &second] {
        comes_to(agent, Some(MIB / 2), false).await;
    }
    set(&world.operator, Some("agent"), "256KiB/s", true).await;
    comes_to(&world.agent, Some(MIB / 4), true).await;
    set(&world.operator, Some("agent"), "1MiB/s", false).await;
    comes_to(&world.agent, Some(MIB / 2), false).await;
    remove(&world.operator, None).await;
    comes_to(&world.agent, Some(MIB), false).await;
    comes_to(&second, None, false).await;
    remove(&world.operator, Some("agent")).await;
    comes_to(&world.agent, None, false).await;
    let told = world
        .agent
        .events_with(0, "this server sends at most 256KiB/s")
        .await;
    assert_eq!(told, 1);
    let told = world.agent.events_with(0, "no limit holds").await;
    assert_eq!(told, 1);
}

/// While the second agent sends nothing, the first may have all but what that one keeps.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_does_not_use_another_is_given_as_long_as_that_is_heard() {
    let world = World::new().await;
    let second = world.one_more("second").await;
    let disk = world.folder.path().join("second.raw");
    std::fs::write(&disk, content(7)).unwrap();
    set(&world.operator, None, "8MiB/s", false).await;
    world.migrate().await;
    // Alone it lends nothing, since nobody could use it.
    let alone = until("nothing sent", &world.agent, |engine| {
        let quiet = engine.limits.lending.lends(engine.now().mono_millis);
        quiet.then(|| (engine.lends_millis(), pace(engine).0))
    });
    assert_eq!(alone.await, (None, Some(8 * MIB)));
    world.migrate_of(&second, "second", "n", &disk).await;
    comes_to(&second, Some(MIB / 2), false).await;
    // As if the first sent all the time.
    let sends = move |engine: &mut Engine| {
        for slot in engine.agents.values() {
            slot.progress
                .bytes_sent
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        (pace(engine).0 == Some(4 * MIB + 7 * MIB / 2)).then_some(())
    };
    until("what the second lends", &world.agent, sends).await;
    second.stop().await;
    let sends = move |engine: &mut Engine| {
        for slot in engine.agents.values() {
            slot.progress
                .bytes_sent
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        (pace(engine).0 == Some(4 * MIB)).then_some(())
    };
    until("no more than its part", &world.agent, sends).await;
}

/// Of what a process before it lent, also where gossip is rare, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_begins_is_bound_for_as_long_as_it_lends_in_a_mesh_of_that_size() {
    let world = World::new().await;
    let check = |engine: &mut Engine| {
        let begun = engine.now().mono_millis;
        let bound = |engine: &Engine, millis| engine.limits.lending.is_bound(begun + millis);
        assert!(!bound(engine, 6_000), "since it began to run");
        let strangers = (0..128).map(|at| keys::PublicKey([at; 32]));
        engine.admitted.extend(strangers);
        engine.begin_lending();
        // Every second instead of at once: 3 s and three times as much, and the slack.
        assert!(bound(engine, 3_000 + 3_000 + 2_000 - 1));
        assert!(!bound(engine, 3_000 + 3_000 + 3_000));
    };
    world.agent.call(check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_on_its_way_in_a_session_that_is_gone_keeps_nobody_from_lending() {
    let world = World::new().await;
    let second = world.one_more("second").await;
    let disk = world.folder.path().join("second.raw");
    std::fs::write(&disk, content(7)).unwrap();
    set(&world.operator, None, "8MiB/s", false).await;
    world.migrate().await;
    world.migrate_of(&second, "second", "n", &disk).await;
    world.replicator.stop().await;
    until("what the second lends", &second, |engine| {
        for slot in engine.agents.values() {
            if !slot.has_session() {
                slot.progress
                    .blocks_sent
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        engine.settle_pace();
        engine.lends_millis()
    })
    .await;
}
