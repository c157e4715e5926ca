//! Which pulses are answered, when, and what is never vouched for.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::Now;
use crate::world::{AGENT, JOB, NOW, OPERATOR, OTHER_REPLICATOR, REPLICATOR, SPAN, World, key};
use crdt::Desired;
use crdt::report::{JobReport, JobRole, Stage};
use keys::{Epoch, Pulse, StatementId};

fn later(millis: u64) -> Now {
    Now {
        mono_millis: NOW.mono_millis + millis,
        ..NOW
    }
}

fn pulse(world: &mut World, seed: u8, pulse: u8) {
    world.report(seed, |report| report.pulse = Some(Pulse([pulse; 16])));
}

/// A mesh with a grant, whose agent and replicator have made pulses.
fn world() -> (World, StatementId) {
    let mut world = World::new();
    let grant = world.grant(1_000_000);
    pulse(&mut world, AGENT, 1);
    pulse(&mut world, REPLICATOR, 2);
    (world, grant)
}

/// Who is answered which pulse, and about how many pairs.
fn said(world: &World, vouching: &mut Vouching) -> Vec<(NodeId, Pulse, usize)> {
    let situation = world.situation(OPERATOR, NOW);
    let mut said: Vec<_> = vouching
        .renewals(&situation)
        .into_iter()
        .map(|renewal| (renewal.holder, renewal.pulse, renewal.pairs.len()))
        .collect();
    said.sort();
    said
}

fn expected(world: &World, answers: &[(u8, u8)]) -> Vec<(NodeId, Pulse, usize)> {
    let answers = answers.iter();
    let mut expected: Vec<_> = answers
        .map(|(seed, pulse)| (world.id(*seed), Pulse([*pulse; 16]), 1))
        .collect();
    expected.sort();
    expected
}

#[test]
fn both_ends_of_a_new_grant_are_answered_at_once() {
    let (world, grant) = world();
    let mut vouching = Vouching::default();
    assert!(vouching.settle(&world.situation(OPERATOR, NOW)));
    assert_eq!(
        said(&world, &mut vouching),
        expected(&world, &[(AGENT, 1), (REPLICATOR, 2)])
    );
    let pair = Pair {
        grant,
        replicator: world.id(REPLICATOR),
    };
    let renewals = vouching.renewals(&world.situation(OPERATOR, NOW));
    assert!(renewals.iter().all(|renewal| renewal.pairs == [pair]));
    assert!(
        !vouching.settle(&world.situation(OPERATOR, NOW)),
        "nothing new to say"
    );
}

#[test]
fn a_pulse_for_what_is_known_waits_for_others_but_not_for_long() {
    let (mut world, _) = world();
    let mut vouching = Vouching::default();
    vouching.settle(&world.situation(OPERATOR, NOW));
    pulse(&mut world, AGENT, 3);
    let wait = LONGEST_WAIT_MILLIS.min(SPAN.lease_secs * 1000 / WAIT_PART);
    assert!(!vouching.settle(&world.situation(OPERATOR, NOW)));
    assert_eq!(vouching.deadline_millis(), Some(later(wait).mono_millis));
    pulse(&mut world, REPLICATOR, 4);
    assert!(!vouching.settle(&world.situation(OPERATOR, later(wait - 1))));
    assert!(vouching.settle(&world.situation(OPERATOR, later(wait))));
    assert_eq!(
        said(&world, &mut vouching),
        expected(&world, &[(AGENT, 3), (REPLICATOR, 4)])
    );
}

#[test]
fn who_is_no_operator_answers_nobody() {
    let (world, _) = world();
    let mut vouching = Vouching::default();
    assert!(!vouching.settle(&world.situation(REPLICATOR, NOW)));
    assert_eq!(vouching.renewals(&world.situation(REPLICATOR, NOW)), []);
}

#[test]
fn nothing_that_was_revoked_has_expired_or_was_deleted_is_vouched_for() {
    type End = fn(&mut World, StatementId);
    let ends: [(&str, End); 5] = [
        ("grant", |world, grant| world.revoke(OPERATOR, grant)),
        ("agent", |world, _| {
            let agent = world.id(AGENT);
            world.revoke(1, agent.into());
        }),
        ("replicator", |world, _| {
            let replicator = world.id(REPLICATOR);
            world.revoke(1, replicator.into());
        }),
        ("operator", |world, _| {
            let operator = world.id(OPERATOR);
            world.revoke(1, operator.into());
        }),
        ("migration", |world, _| world.want(Desired::Deleted)),
    ];
    for (what, end) in ends {
        let (mut world, grant) = world();
        let mut vouching = Vouching::default();
        vouching.settle(&world.situation(OPERATOR, NOW));
        end(&mut world, grant);
        // Before anything was settled again: a report may be due at any moment.
        assert_eq!(said(&world, &mut vouching), [], "{what}");
        pulse(&mut world, AGENT, 5);
        vouching.settle(&world.situation(OPERATOR, later(60_000)));
        assert_eq!(said(&world, &mut vouching), [], "{what}");
    }
    let mut world = World::new();
    world.grant(NOW.wall.0);
    pulse(&mut world, AGENT, 1);
    assert!(!Vouching::default().settle(&world.situation(OPERATOR, NOW)));
}

#[test]
fn an_operator_limited_to_a_site_vouches_for_nothing_elsewhere() {
    let (mut world, _) = world();
    for (seed, scope) in [
        (9, keys::Scope::Everywhere),
        (10, keys::Scope::Sites(vec![keys::Name::new("a").unwrap()])),
    ] {
        let enrolment = keys::statement::Enrolment {
            subject: key(seed).public(),
            name: keys::Name::new("node").unwrap(),
            roles: [keys::Role::Operator].into_iter().collect(),
            site: None,
            not_after: None,
            scope,
            admission: keys::statement::Admission::Root,
        };
        world.state(1, keys::Statement::Enrolment(enrolment));
    }
    assert!(Vouching::default().settle(&world.situation(9, NOW)));
    assert!(!Vouching::default().settle(&world.situation(10, NOW)));
}

#[test]
fn a_migration_that_was_cut_over_needs_no_leases_any_more() {
    let (mut world, _) = world();
    let job = JobReport {
        migration: JOB.migration,
        volume: JOB.volume,
        role: JobRole::Agent,
        epoch: Epoch(1),
        replicator: None,
        stage: Stage::CutOver,
        step: "done".into(),
        detail: None,
        pass: 1,
        barrier: 1,
        passes: vec![],
        read_by: None,
        left_out: keys::LeftOut::default(),
        root: None,
    };
    assert_eq!(world.situation(AGENT, NOW).wanted_leases().len(), 1);
    world.report(AGENT, |report| {
        report.pulse = Some(Pulse([1; 16]));
        report.jobs = vec![job];
    });
    assert_eq!(world.situation(AGENT, NOW).wanted_leases().len(), 0);
    assert!(!Vouching::default().settle(&world.situation(OPERATOR, NOW)));
}

#[test]
fn a_node_wants_leases_for_the_grants_that_name_it_only() {
    let (world, grant) = world();
    let pair = Pair {
        grant,
        replicator: world.id(REPLICATOR),
    };
    for seed in [AGENT, REPLICATOR] {
        let wanted = world.situation(seed, NOW).wanted_leases();
        assert_eq!(wanted.into_iter().collect::<Vec<_>>(), [(pair, SPAN)]);
    }
    for seed in [OPERATOR, OTHER_REPLICATOR] {
        assert_eq!(world.situation(seed, NOW).wanted_leases().len(), 0);
    }
}

#[test]
fn an_operator_that_is_a_replicator_itself_answers_its_own_pulse() {
    let mut world = World::new();
    world.enrol(9, &[keys::Role::Operator, keys::Role::Replicator]);
    let me = world.id(9);
    let granted = world.grant_to(vec![me]);
    pulse(&mut world, 9, 7);
    let mut vouching = Vouching::default();
    assert!(vouching.settle(&world.situation(9, NOW)));
    let renewals = vouching.renewals(&world.situation(9, NOW));
    let from = (me, &renewals[..]);
    let wanted = world.situation(9, NOW).wanted_leases();
    let mut leases = keys::Leases::new();
    leases.pulse(NOW, Pulse([7; 16]));
    assert!(leases.hear(&world.authority, NOW.wall, (me, &wanted), from));
    let pair = Pair {
        grant: granted,
        replicator: me,
    };
    assert!(leases.since(&pair).is_some());
    assert_eq!(world.authority.by_key(&key(9).public()).unwrap().id, me);
}

#[test]
fn where_one_report_has_no_room_for_all_they_take_turns() {
    let mut world = World::new();
    let (agent, pool) = (world.id(AGENT), world.id(REPLICATOR));
    // What one of them may use has no room by itself: it is told of as much as fits.
    let many = MAX_RENEWED + 1;
    for _ in 0..many {
        world.grant_to(vec![pool]);
    }
    pulse(&mut world, AGENT, 1);
    pulse(&mut world, REPLICATOR, 2);
    let mut vouching = Vouching::default();
    assert!(vouching.settle(&world.situation(OPERATOR, NOW)));
    let first = said(&world, &mut vouching);
    assert_eq!(first.len(), 1, "the other has no room");
    assert!(
        !vouching.settle(&world.situation(OPERATOR, later(FULL_MILLIS - 1))),
        "the first is to be seen"
    );
    assert!(vouching.settle(&world.situation(OPERATOR, later(FULL_MILLIS))));
    let second = said(&world, &mut vouching);
    let mut both: Vec<NodeId> = first.iter().chain(&second).map(|said| said.0).collect();
    both.sort();
    let mut ends = vec![agent, pool];
    ends.sort();
    assert_eq!(both, ends);
    let at = later(10 * FULL_MILLIS);
    assert!(
        !vouching.settle(&world.situation(OPERATOR, at)),
        "who was answered is not answered again"
    );
}
