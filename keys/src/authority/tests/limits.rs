//! What a ledger does not take, however well it is signed.

use super::*;
use crate::ledger::MAX_STATEMENTS;
use crate::statement::MAX_ROOTS;

#[test]
fn a_ledger_begins_with_a_sound_genesis_that_one_of_its_roots_signed() {
    let root = key(1);
    let found = |signer: &Identity, seq: u64, roots: usize| {
        let entry = Entry {
            seq,
            previous: (seq > 1).then_some(StatementId([1; 32])),
            mesh: None,
            at: NOW,
            statement: Statement::Genesis(Genesis {
                name: name("test"),
                roots: vec![root.public(); roots],
                nonce: [1; 16],
            }),
        };
        Ledger::found(Signed::seal(signer, Domain::Statement, &entry).unwrap())
    };
    assert!(found(&root, 1, 1).is_ok());
    for refused in [
        found(&key(2), 1, 1),
        found(&root, 2, 1),
        found(&root, 1, MAX_ROOTS + 1),
    ] {
        assert!(matches!(refused, Err(Refused::Unsound { .. })));
    }
}

#[test]
fn an_enrolment_by_something_else_than_an_invite_is_unsound() {
    let mut world = World::new();
    let operator = world.operator.clone();
    let grant = world.grant();
    let admission = world.invited(grant, &operator, &key(60), 77, 0);
    let signed = world.sign(&operator, enrolment(&key(60), &[Role::Agent], admission));
    assert!(matches!(
        world.ledger.insert(signed),
        Err(Refused::Unsound { .. })
    ));
}

#[test]
fn an_enrolment_at_another_site_or_after_the_end_of_its_invite_is_unsound() {
    let mut world = World::new();
    let operator = world.operator.clone();
    let invite = world.invite(&operator, &[Role::Agent], 1, 77);
    let admission = world.invited(invite, &operator, &key(60), 77, 0);
    let made = |site: Option<Name>, at: UnixSecs| {
        let (seq, previous) = world.ledger.next_position(&operator.public());
        let entry = Entry {
            seq,
            previous,
            mesh: Some(world.ledger.mesh()),
            at,
            statement: Statement::Enrolment(Enrolment {
                subject: key(60).public(),
                name: name("node"),
                roles: [Role::Agent].into_iter().collect(),
                site,
                not_after: None,
                scope: Scope::Everywhere,
                admission: admission.clone(),
            }),
        };
        Signed::seal(&operator, Domain::Statement, &entry).unwrap()
    };
    let elsewhere = made(Some(name("a")), NOW);
    let late = made(None, UnixSecs(LATER.0 + 1));
    let just_in_time = made(None, LATER);
    for signed in [elsewhere, late] {
        assert!(matches!(
            world.ledger.insert(signed),
            Err(Refused::Unsound { .. })
        ));
    }
    assert!(world.ledger.insert(just_in_time).is_ok());
}

#[test]
fn a_grant_to_a_revoked_enrolment_does_not_pass_to_another_of_the_same_key() {
    let mut world = World::new();
    let (operator, agent) = (world.operator.clone(), world.agent.clone());
    let named = world.node(&agent);
    let grant = world.grant();
    let leases = world.leases(&[grant]);
    let asked = world.asked(grant);
    let root = world.root.clone();
    world.state(&root, enrolment(&agent, &[Role::Agent], Admission::Root));
    world.state(&operator, revoke(named.into()));
    let authority = authority(&world.ledger);
    let agent = agent.public();
    assert!(authority.standing(NOW, &agent, Role::Agent).is_ok());
    assert_eq!(authority.live_pairs(NOW).count(), 0);
    assert_eq!(
        authority.permit_send(at(NOW), &leases, &asked),
        Err(Denied::AnotherAgent { grant, agent })
    );
}

#[test]
fn a_permit_ends_with_the_enrolment_of_either_end() {
    let end = UnixSecs(5_000);
    for (agent_ends, replicator_ends) in [(Some(end), None), (None, Some(end))] {
        let mut world = World::new();
        let root = world.root.clone();
        (world.agent, world.replicator) = (key(30), key(31));
        let ends = [
            (30, Role::Agent, agent_ends),
            (31, Role::Replicator, replicator_ends),
        ];
        for (seed, role, not_after) in ends {
            let made = Enrolment {
                subject: key(seed).public(),
                name: name("node"),
                roles: [role].into_iter().collect(),
                site: None,
                not_after,
                scope: Scope::Everywhere,
                admission: Admission::Root,
            };
            world.state(&root, Statement::Enrolment(made));
        }
        let grant = world.grant();
        let permit = world.permit(grant).unwrap();
        assert!(permit.holds(at(UnixSecs(end.0 - 1))) && !permit.holds(at(end)));
    }
}

#[test]
fn who_was_never_an_operator_is_no_author() {
    let world = World::new();
    let authority = authority(&world.ledger);
    let operator = authority.authorship(&world.operator.public());
    assert_eq!(operator, Some(Authorship::Full));
    for key in [&world.agent, &world.replicator, &key(70)] {
        assert_eq!(authority.authorship(&key.public()), None);
    }
}

#[test]
fn a_grant_that_is_over_is_said_to_be_over_though_nobody_renews_its_lease() {
    let mut world = World::new();
    let grant = world.grant();
    let denied = world.denied_at(at(LATER), &Leases::new(), &world.asked(grant));
    let not_after = LATER;
    assert_eq!(denied, Denied::GrantExpired { grant, not_after });
}

#[test]
fn of_several_forks_of_a_signer_the_lowest_counts() {
    let mut world = World::new();
    let operator = world.operator.clone();
    let grant = world.grant();
    let seq = world.ledger.get(&grant).unwrap().entry.seq;
    let twin = |world: &World, seq: u64, previous: StatementId| {
        let entry = Entry {
            seq,
            previous: Some(previous),
            mesh: Some(world.ledger.mesh()),
            at: NOW,
            statement: revoke(StatementId([0; 32])),
        };
        Signed::seal(&operator, Domain::Statement, &entry).unwrap()
    };
    world.state(&operator, revoke(StatementId([1; 32])));
    for (seq, previous) in [(seq + 1, grant), (seq, StatementId([2; 32]))] {
        let twin = twin(&world, seq, previous);
        world.ledger.insert(twin).unwrap();
    }
    let denied = world.denied(NOW, &world.asked(grant));
    assert_eq!(denied, Denied::Cloned(operator.public()));
}

#[test]
fn a_full_ledger_takes_nothing_more() {
    let mut world = World::new();
    let operator = world.operator.clone();
    let mut at = 0;
    // Restored, as that spares a hundred thousand signatures.
    let mut add = |world: &mut World| {
        at += 1;
        let entry = Entry {
            seq: 1,
            previous: None,
            mesh: Some(world.ledger.mesh()),
            at: UnixSecs(at),
            statement: revoke(StatementId([0; 32])),
        };
        world.ledger.restore(Signed {
            body: codec::encode(&entry).unwrap(),
            signer: operator.public(),
            signature: crate::signed::Signature([0; 64]),
        })
    };
    while world.ledger.len() < MAX_STATEMENTS {
        add(&mut world).unwrap();
    }
    assert_eq!(add(&mut world), Err(Refused::Full));
}
