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
        let (mut sum, mut paced) = (0, 0);
        for me in ids(count) {
            let number = usize::from(me.0[0]);
            // Of the others any may not have been heard; of itself each knows.
            let seen = |id: &&NodeId| **id == me || heard[number] >> (id.0[0] % 64) & 1 == 1;
            let seen = lending.iter().filter(seen).copied().collect();
            // Some have not heard yet that others are done.
            let known = ids(count + more[number]);
            let share = share(rate, &known, &seen, &me);
            sum += share;
            paced += share.max(LEAST_LIMIT);
        }
        prop_assert!(sum <= rate, "{sum} of {rate}");
        let is_kept = rate / u64::from(count) >= LEAST_LIMIT;
        prop_assert!(paced <= rate || !is_kept, "{paced} of {rate} as sessions are paced");
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
    const RATE: u64 = 800 << 10;
    let me = NodeId([0; 32]);
    assert_eq!(share(RATE, &ids(4), &ids(0), &me), RATE / 4);
    // Alone, it takes all; also where it said that it lends, and where it is not counted itself.
    assert_eq!(share(RATE, &ids(1), &ids(0), &me), RATE);
    assert_eq!(share(RATE, &ids(1), &ids(1), &me), RATE);
    assert_eq!(share(RATE, &ids(0), &ids(0), &me), RATE);
    assert_eq!(share(RATE, &only(&[1, 2, 3]), &ids(0), &me), RATE / 4);
    // What others lend it takes with those that send; while it lends it keeps an eighth.
    let (part, lent) = (RATE / 4, RATE / 4 * 7 / 8);
    assert_eq!(share(RATE, &ids(4), &only(&[3]), &me), part + lent / 3);
    assert_eq!(
        share(RATE, &ids(4), &only(&[1, 2, 3]), &me),
        part + 3 * lent
    );
    assert_eq!(share(RATE, &ids(4), &only(&[0]), &me), part - lent);
    // Those that lend and are not counted lend nothing.
    assert_eq!(share(RATE, &ids(2), &only(&[7]), &me), RATE / 2);
}

/// Seven of eight lend, and send what they keep as slowly as sessions are paced.
#[test]
fn who_lends_keeps_no_less_than_sessions_are_paced_at() {
    for (rate, kept) in [
        (8 * 8 * LEAST_LIMIT, LEAST_LIMIT),
        (8 * 9 * LEAST_LIMIT, LEAST_LIMIT * 9 / 8),
        (64 << 10, LEAST_LIMIT),
        (8 * LEAST_LIMIT, LEAST_LIMIT),
        (4 * LEAST_LIMIT, LEAST_LIMIT / 2),
    ] {
        let lending = only(&[1, 2, 3, 4, 5, 6, 7]);
        let lends = share(rate, &ids(8), &lending, &NodeId([1; 32]));
        assert_eq!(lends, kept, "of {rate}");
        let sends = share(rate, &ids(8), &lending, &NodeId([0; 32]));
        assert_eq!(7 * lends + sends, rate);
    }
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
        (Desired::cutover(false), true),
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
