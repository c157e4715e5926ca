//! That nothing but an operator's answer to a pulse makes a lease longer, and that
//! neither delay, repetition, restart nor a wall clock that is off stretches one.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::authority::authority;
use crate::identity::Identity;
use crate::ledger::Ledger;
use crate::signed::{Domain, Signed};
use crate::statement::{Admission, Enrolment, Entry, Genesis, Name, Roles, Statement};
use proptest::prelude::*;

const SPAN: Span = Span {
    lease_secs: 100,
    autonomy_secs: 50,
};
const HOME: Boot = Boot([1; 16]);
const ELSEWHERE: Boot = Boot([2; 16]);

/// A mesh of one operator and one node that is none.
struct World {
    authority: Authority,
    operator: NodeId,
    other: NodeId,
    /// A grant that is known.
    grant: StatementId,
}

fn world() -> World {
    let root = Identity::from_seed(&[1; 32]);
    let name = || Name::new("node").unwrap();
    let sign = |ledger: Option<&Ledger>, statement| {
        let key = root.public();
        let (seq, previous) = ledger.map_or((1, None), |ledger| ledger.next_position(&key));
        let entry = Entry {
            seq,
            previous,
            mesh: ledger.map(Ledger::mesh),
            at: UnixSecs(1),
            statement,
        };
        Signed::seal(&root, Domain::Statement, &entry).unwrap()
    };
    let genesis = Statement::Genesis(Genesis {
        name: name(),
        roots: vec![root.public()],
        nonce: [1; 16],
    });
    let mut ledger = Ledger::found(sign(None, genesis)).unwrap();
    let mut enrol = |seed: u8, role: Role| {
        let roles: Roles = [role].into_iter().collect();
        let enrolment = Statement::Enrolment(Enrolment {
            subject: Identity::from_seed(&[seed; 32]).public(),
            name: name(),
            roles,
            site: None,
            not_after: None,
            scope: crate::scope::Scope::Everywhere,
            admission: Admission::Root,
        });
        let signed = sign(Some(&ledger), enrolment);
        ledger.insert(signed.clone()).unwrap();
        NodeId::from(signed.statement_id())
    };
    let (operator, other) = (enrol(2, Role::Operator), enrol(3, Role::Replicator));
    let grant = Statement::Grant(crate::statement::Grant {
        migration: crate::id::MigrationId([1; 16]),
        agent: other,
        replicators: vec![other],
        volumes: vec![crate::id::VolumeId([1; 16])],
        not_after: UnixSecs(9_000_000),
        lease_secs: 60,
        autonomy_secs: 0,
        dedup_group: None,
    });
    let grant = sign(Some(&ledger), grant);
    ledger.insert(grant.clone()).unwrap();
    World {
        authority: authority(&ledger),
        operator,
        other,
        grant: grant.statement_id(),
    }
}

fn at(mono_millis: u64) -> Now {
    Now {
        wall: UnixSecs(1_000_000),
        mono_millis,
    }
}

fn pair(seed: u8) -> Pair {
    Pair {
        grant: StatementId([seed; 32]),
        replicator: NodeId([seed; 32]),
    }
}

fn wanted(seeds: &[u8]) -> BTreeMap<Pair, Span> {
    seeds.iter().map(|seed| (pair(*seed), SPAN)).collect()
}

const ME: NodeId = NodeId([9; 32]);

fn renewal(pulse: Pulse, seeds: &[u8]) -> Renewal {
    Renewal {
        holder: ME,
        pulse,
        pairs: seeds.iter().map(|seed| pair(*seed)).collect(),
    }
}

fn hear(world: &World, leases: &mut Leases, from: NodeId, renewal: &Renewal) -> bool {
    let wanted = wanted(&[1, 2]);
    let renewals = std::slice::from_ref(renewal);
    leases.hear(
        &world.authority,
        at(0).wall,
        (ME, &wanted),
        (from, renewals),
    )
}

#[test]
fn a_lease_counts_from_its_pulse_however_late_and_often_the_answer_is_heard() {
    let world = world();
    let mut leases = Leases::new();
    leases.pulse(at(10_000), Pulse([1; 16]));
    let answer = renewal(Pulse([1; 16]), &[1]);
    assert!(hear(&world, &mut leases, world.operator, &answer));
    assert_eq!(leases.since(&pair(1)), Some(10_000));
    leases.pulse(at(70_000), Pulse([2; 16]));
    assert!(
        !hear(&world, &mut leases, world.operator, &answer),
        "it was heard before"
    );
    assert_eq!(leases.since(&pair(1)), Some(10_000));
    assert!(hear(
        &world,
        &mut leases,
        world.operator,
        &renewal(Pulse([2; 16]), &[1])
    ));
    assert!(
        !hear(&world, &mut leases, world.operator, &answer),
        "an older one shortens nothing either"
    );
    assert_eq!(leases.since(&pair(1)), Some(70_000));
}

#[test]
fn only_a_standing_operator_renews_and_only_for_a_pulse_of_ones_own() {
    let world = world();
    let mut leases = Leases::new();
    leases.pulse(at(10_000), Pulse([1; 16]));
    let fine = renewal(Pulse([1; 16]), &[1]);
    let to_another = Renewal {
        holder: NodeId([8; 32]),
        ..fine.clone()
    };
    let nobody = NodeId([7; 32]);
    let unheard = [
        (world.other, fine.clone(), "no operator"),
        (nobody, fine.clone(), "nobody known"),
        (
            world.operator,
            renewal(Pulse([2; 16]), &[1]),
            "a pulse never made",
        ),
        (world.operator, to_another, "for another holder"),
        (
            world.operator,
            renewal(Pulse([1; 16]), &[3]),
            "what is not wanted",
        ),
    ];
    for (from, renewal, what) in unheard {
        assert!(!hear(&world, &mut leases, from, &renewal), "{what}");
        assert_eq!(leases.since(&pair(1)), None, "{what}");
        assert_eq!(leases.since(&pair(3)), None, "{what}");
    }
    assert!(hear(&world, &mut leases, world.operator, &fine));
}

#[test]
fn a_pulse_is_due_at_once_for_what_has_no_lease_and_else_at_half_life() {
    let world = world();
    let mut leases = Leases::new();
    assert!(!leases.pulse_due(at(5_000), &wanted(&[])));
    assert!(leases.pulse_due(at(5_000), &wanted(&[1])));
    leases.pulse(at(5_000), Pulse([1; 16]));
    let half = 5_000 + SPAN.lease_secs * 500;
    assert!(
        !leases.pulse_due(at(half - 1), &wanted(&[1])),
        "it waits for an answer"
    );
    assert!(
        leases.pulse_due(at(half), &wanted(&[1])),
        "nobody answered a pulse that is old by now"
    );
    hear(
        &world,
        &mut leases,
        world.operator,
        &renewal(Pulse([1; 16]), &[1]),
    );
    assert!(!leases.pulse_due(at(half - 1), &wanted(&[1, 2])));
    assert!(leases.pulse_due(at(half), &wanted(&[1])));
}

#[test]
fn short_leases_do_not_make_a_node_pulse_all_the_time() {
    let span = Span {
        lease_secs: 1,
        autonomy_secs: 0,
    };
    let wanted = BTreeMap::from([(pair(1), span)]);
    let mut leases = Leases::new();
    leases.pulse(at(0), Pulse([1; 16]));
    assert!(!leases.pulse_due(at(MIN_PULSE_GAP_MILLIS - 1), &wanted));
}

#[test]
fn pulses_are_forgotten_when_there_are_many_and_their_answers_with_them() {
    let world = world();
    let mut leases = Leases::new();
    for number in 0..=MAX_PULSES as u8 {
        leases.pulse(at(u64::from(number)), Pulse([number; 16]));
    }
    let first = renewal(Pulse([0; 16]), &[1]);
    assert!(!hear(&world, &mut leases, world.operator, &first));
    let second = renewal(Pulse([1; 16]), &[1]);
    assert!(hear(&world, &mut leases, world.operator, &second));
}

#[test]
fn what_is_known_and_not_wanted_any_more_is_forgotten() {
    let world = world();
    let mut leases = Leases::new();
    leases.pulse(at(0), Pulse([1; 16]));
    let known = Pair {
        grant: world.grant,
        replicator: world.other,
    };
    leases.hold(known, 0);
    let answer = renewal(Pulse([1; 16]), &[1, 2]);
    hear(&world, &mut leases, world.operator, &answer);
    leases.retain(&world.authority, &wanted(&[2]));
    // The grant of the first is not known here, or not again yet.
    let held = [known, pair(1), pair(2)].map(|pair| leases.since(&pair));
    assert_eq!(held, [None, Some(0), Some(0)]);
}

#[test]
fn the_encoding_of_stored_leases_does_not_change() {
    let mut leases = Leases::new();
    leases.hold(pair(1), -3);
    let bytes = codec::encode(&leases.snapshot(at(7), HOME)).unwrap();
    let mut expected = vec![1];
    expected.extend([1; 16]);
    expected.extend([7, 252, 0x40, 0x42, 0x0f, 0x00, 1]);
    expected.extend([1; 64]);
    expected.push(5);
    assert_eq!(bytes, expected);
    let most = Snapshot {
        held: vec![(pair(1), i64::MIN); MAX_HELD],
        ..leases.snapshot(at(u64::MAX), HOME)
    };
    assert!(codec::encode(&most).is_ok(), "as many as are held fit in");
}

#[test]
fn a_clock_that_went_back_within_one_boot_drops_every_lease() {
    let mut leases = Leases::new();
    leases.hold(pair(1), 5_000);
    let stored = leases.snapshot(at(9_000), HOME);
    assert_eq!(Leases::restore(stored, at(8_999), HOME), Leases::new());
}

#[test]
fn after_a_reboot_neither_the_uptime_nor_a_clock_that_went_far_back_makes_a_lease_younger() {
    let mut leases = Leases::new();
    leases.hold(pair(1), 1_000);
    let then = Now {
        wall: UnixSecs(10 * REBOOT_CHARGE_SECS),
        mono_millis: 1_000,
    };
    let stored = || leases.snapshot(then, HOME);
    let after = |days: u64| Now {
        wall: UnixSecs(days * REBOOT_CHARGE_SECS),
        mono_millis: 5_000,
    };
    let now = after(17);
    let week_and_charge = 8_000 * i128::from(REBOOT_CHARGE_SECS);
    let restored = Leases::restore(stored(), now, ELSEWHERE);
    assert_eq!(age(&restored, now), Some(week_and_charge));
    assert_eq!(
        Leases::restore(stored(), after(8), ELSEWHERE),
        Leases::new()
    );
}

#[test]
fn after_a_reboot_a_clock_that_went_back_by_almost_all_that_is_charged_makes_no_lease_younger() {
    let mut leases = Leases::new();
    leases.hold(pair(1), 1_000);
    let then = Now {
        wall: UnixSecs(10 * REBOOT_CHARGE_SECS),
        mono_millis: 1_000,
    };
    for back in [1, 60, REBOOT_CHARGE_SECS - 1, REBOOT_CHARGE_SECS] {
        // It was down for some seconds, whatever the clock says.
        let now = Now {
            wall: UnixSecs(then.wall.0 - back),
            mono_millis: 5_000,
        };
        let restored = Leases::restore(leases.snapshot(then, HOME), now, ELSEWHERE);
        let charge = 1_000 * i128::from(REBOOT_CHARGE_SECS);
        assert_eq!(age(&restored, now), Some(charge), "back by {back} s");
    }
}

#[test]
fn a_stored_lease_never_counts_from_later_than_it_was_stored() {
    let mut leases = Leases::new();
    leases.hold(pair(1), 9_000);
    let restored = Leases::restore(leases.snapshot(at(5_000), HOME), at(6_000), HOME);
    assert_eq!(restored.since(&pair(1)), Some(5_000));
}

#[test]
fn a_node_holds_a_bounded_number_of_leases() {
    let mut leases = Leases::new();
    for number in 0..=MAX_HELD {
        let mut pair = pair(1);
        pair.grant.0[..8].copy_from_slice(&number.to_le_bytes());
        assert_eq!(leases.hold(pair, 0), number < MAX_HELD);
    }
    assert!(leases.hold(pair_numbered_0(), 1), "what is held is renewed");
}

fn pair_numbered_0() -> Pair {
    let mut pair = pair(1);
    pair.grant.0[..8].copy_from_slice(&[0; 8]);
    pair
}

/// How old the lease of pair 1 is, in milliseconds; none when there is none.
fn age(leases: &Leases, now: Now) -> Option<i128> {
    let since = leases.since(&pair(1))?;
    Some(i128::from(now.mono_millis) - i128::from(since))
}

proptest! {
    #[test]
    fn a_restart_in_the_same_boot_keeps_every_age(
        since in 0_u64..1 << 40,
        stored_after in 0_u64..1 << 40,
        away in 0_u64..1 << 40,
        wall in 0_u64..1 << 40,
    ) {
        let mut leases = Leases::new();
        leases.hold(pair(1), signed(since));
        let stored = leases.snapshot(at(since + stored_after), HOME);
        let now = Now { wall: UnixSecs(wall), mono_millis: since + stored_after + away };
        let restored = Leases::restore(stored, now, HOME);
        prop_assert_eq!(age(&restored, now), Some(i128::from(stored_after + away)));
    }

    #[test]
    fn a_reboot_with_a_wall_clock_that_is_off_by_up_to_a_day_never_makes_a_lease_younger(
        since in 0_u64..1 << 40,
        stored_after in 0_u64..1 << 30,
        off_secs in 0_u64..1 << 30,
        jumped_secs in -86_400_i64..=86_400,
        uptime in 0_u64..1 << 30,
    ) {
        let mut leases = Leases::new();
        leases.hold(pair(1), signed(since));
        let then = Now { wall: UnixSecs(1 << 31), mono_millis: since + stored_after };
        let stored = leases.snapshot(then, HOME);
        let wall = UnixSecs(then.wall.0.saturating_add_signed(signed(off_secs) + jumped_secs));
        let now = Now { wall, mono_millis: uptime };
        let restored = Leases::restore(stored, now, ELSEWHERE);
        let true_age = i128::from(stored_after) + i128::from(off_secs) * 1000;
        if let Some(age) = age(&restored, now) {
            prop_assert!(age >= true_age, "{} < {}", age, true_age);
            let most = true_age + 2_000 * i128::from(REBOOT_CHARGE_SECS);
            prop_assert!(age <= most, "no more is charged than is said");
        }
    }

    #[test]
    fn no_order_of_pulses_answers_repeats_and_restarts_outlives_the_last_word_of_an_operator(
        steps in proptest::collection::vec((0_u8..5, 0_u64..60_000), 1..60),
    ) {
        let world = world();
        let mut leases = Leases::new();
        let (mut now, mut number) = (at(0), 0_u8);
        // Answers under way, each with when the operator signed it.
        let mut answers: Vec<(Renewal, u64)> = vec![];
        let mut last_signed = None;
        for (what, millis) in steps {
            now = at(now.mono_millis + millis);
            match what {
                0 if number < u8::MAX => {
                    number += 1;
                    leases.pulse(now, Pulse([number; 16]));
                }
                1 => if let Some(pulse) = leases.newest_pulse() {
                    answers.push((renewal(pulse, &[1]), now.mono_millis));
                    last_signed = Some(now.mono_millis);
                },
                2 if !answers.is_empty() => {
                    let at = (millis as usize) % answers.len();
                    hear(&world, &mut leases, world.operator, &answers[at].0);
                }
                3 => {
                    let stored = leases.snapshot(now, HOME);
                    leases = Leases::restore(stored, now, HOME);
                }
                _ => {}
            }
            if let Some(since) = leases.since(&pair(1)) {
                prop_assert!(last_signed.is_some_and(|signed_at| since <= signed(signed_at)));
            }
        }
    }
}
