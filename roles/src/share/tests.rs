//! Shares never come to more than the limit, and who counts as sending.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::world::{AGENT, NOW, World};
use crdt::report::Stage;
use keys::StatementId;
use proptest::prelude::*;

const SPAN_MILLIS: u64 = 3_000;

fn ids(count: u8) -> BTreeSet<NodeId> {
    (0..count).map(|at| NodeId([at; 32])).collect()
}

fn only(numbers: &[u8]) -> BTreeSet<NodeId> {
    numbers.iter().map(|at| NodeId([*at; 32])).collect()
}

proptest! {
    #[test]
    fn shares_come_to_no_more_than_the_limit_whatever_was_heard_of_those_that_lend(
        rate in 65_536_u64..1 << 40,
        count in 1_u8..60,
        lends in any::<u64>(),
        heard in proptest::collection::vec(any::<u64>(), 60),
        more in proptest::collection::vec(0_u8..4, 60),
    ) {
        let lending: BTreeSet<NodeId> =
            ids(count).into_iter().filter(|id| lends >> (id.0[0] % 64) & 1 == 1).collect();
        let mut sum = 0;
        for me in ids(count) {
            let number = usize::from(me.0[0]);
            // Of the others any may not have been heard; of itself each knows.
            let seen = |id: &&NodeId| **id == me || heard[number] >> (id.0[0] % 64) & 1 == 1;
            let seen = lending.iter().filter(seen).copied().collect();
            // Some have not heard yet that others are done.
            let known = ids(count + more[number]);
            sum += share(rate, &known, &seen, &me);
        }
        prop_assert!(sum <= rate, "{sum} of {rate}");
    }

    #[test]
    fn where_all_is_heard_the_whole_limit_is_shared_out(
        rate in 65_536_u64..1 << 40,
        count in 1_u8..60,
        lend in 0_u8..60,
    ) {
        let lending = ids(lend.min(count - 1));
        let senders = ids(count);
        let sum: u64 = senders.iter().map(|me| share(rate, &senders, &lending, me)).sum();
        prop_assert!(sum <= rate && sum + 2 * u64::from(count) >= rate, "{sum} of {rate}");
    }
}

#[test]
fn an_agent_that_hears_nobody_takes_its_part_and_no_more() {
    let me = NodeId([0; 32]);
    assert_eq!(share(800, &ids(4), &ids(0), &me), 200);
    // Alone, it takes all; also where it said that it lends, and where it is not counted itself.
    assert_eq!(share(800, &ids(1), &ids(0), &me), 800);
    assert_eq!(share(800, &ids(1), &ids(1), &me), 800);
    assert_eq!(share(800, &ids(0), &ids(0), &me), 800);
    assert_eq!(share(800, &only(&[1, 2, 3]), &ids(0), &me), 200);
    // What others lend it takes with those that send; while it lends it keeps an eighth.
    assert_eq!(share(800, &ids(4), &only(&[3]), &me), 200 + 175 / 3);
    assert_eq!(share(800, &ids(4), &only(&[1, 2, 3]), &me), 200 + 3 * 175);
    assert_eq!(share(800, &ids(4), &only(&[0]), &me), 25);
    // Those that lend and are not counted lend nothing.
    assert_eq!(share(800, &ids(2), &only(&[7]), &me), 400);
}

#[test]
fn nothing_is_lent_by_who_is_alone_or_is_not_counted() {
    let me = NodeId([0; 32]);
    assert!(has_borrowers(&ids(2), &me));
    assert!(!has_borrowers(&ids(1), &me));
    assert!(!has_borrowers(&only(&[1, 2]), &me));
}

#[test]
fn an_agent_lends_once_it_was_quiet_and_is_bound_until_nobody_counts_on_it_any_more() {
    let mut lending = Lending::new(0, SPAN_MILLIS);
    assert!(lending.is_bound(4_999), "of the process before");
    assert!(!lending.is_bound(5_000));
    lending.look(10_000, 7, false);
    lending.look(11_000, 7, false);
    lending.look(13_999, 7, false);
    assert!(!lending.lends(13_999));
    lending.look(14_000, 7, false);
    assert!(lending.lends(14_000));
    assert!(!lending.is_bound(14_000), "it has not said so");
    lending.said(14_000, SPAN_MILLIS);
    // It begins again, and has still to keep to what it said.
    lending.look(15_000, 8, true);
    assert!(!lending.lends(15_000));
    assert!(lending.is_bound(18_999));
    assert!(!lending.is_bound(19_000));
    // Nothing new is sent, and what was is not durable.
    lending.look(20_000, 8, true);
    lending.look(60_000, 8, true);
    assert!(!lending.lends(60_000));
}

#[test]
fn agents_of_the_site_count_whose_migrations_go_on_and_are_not_over() {
    let mut world = World::new();
    let counted = |world: &World, site: &str| {
        let site = Name::new(site).unwrap();
        let (plan, authority) = (world.document.plan(), &world.authority);
        senders(plan, authority, &world.reports, NOW.wall, &site)
    };
    let agent: BTreeSet<NodeId> = [world.id(AGENT)].into();
    assert!(counted(&world, "here").is_empty(), "it was not started");
    for (desired, counts) in [
        (Desired::Started, true),
        (Desired::Paused, false),
        (Desired::Cutover { prove_full: false }, true),
    ] {
        world.want(desired);
        assert_eq!(counted(&world, "here") == agent, counts, "{desired}");
        assert!(counted(&world, "there").is_empty());
    }
    world.agent_reports(1, vec![]);
    assert_eq!(counted(&world, "here"), agent);
    let mut jobs = world.reports.get(&world.id(AGENT)).unwrap().jobs.clone();
    jobs[0].stage = Stage::CutOver;
    world.report(AGENT, |report| report.jobs = jobs);
    assert!(counted(&world, "here").is_empty(), "all of it is cut over");

    let mut world = World::new();
    world.want(Desired::Started);
    world.revoke(1, StatementId(world.id(AGENT).0));
    assert!(
        counted(&world, "here").is_empty(),
        "it may not send any more"
    );
}

#[test]
fn an_agent_whose_enrolment_is_over_and_a_node_that_is_none_do_not_count() {
    const OTHER: u8 = 9;
    for (role, not_after, counts) in [
        (Role::Agent, None, true),
        (Role::Agent, Some(UnixSecs(NOW.wall.0 + 1)), true),
        (Role::Agent, Some(NOW.wall), false),
        (Role::Replicator, None, false),
    ] {
        let mut world = World::new();
        world.enrol_until(OTHER, &[role], not_after);
        let mut planned = world.document.plan().migrations.values();
        let other = crdt::MigrationPlan {
            id: keys::MigrationId([7; 16]),
            source: world.id(OTHER),
            desired: Desired::Started,
            ..planned.next().unwrap().clone()
        };
        world.edit(|edit| edit.create_migration(&other));
        let here = Name::new("here").unwrap();
        let (plan, authority) = (world.document.plan(), &world.authority);
        let counted = senders(plan, authority, &world.reports, NOW.wall, &here);
        assert_eq!(counted.contains(&world.id(OTHER)), counts, "{not_after:?}");
    }
}
