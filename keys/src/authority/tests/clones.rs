//! Keys in two places.

use super::*;

#[test]
fn a_key_in_two_places_may_do_nothing_but_is_still_admitted() {
    let mut world = World::new();
    let grant = world.grant();
    let asked = world.asked(grant);
    let mut known = authority(&world.ledger);
    let (now, leases) = (at(NOW), world.leases(&[grant]));
    let permit = known.permit_send(now, &leases, &asked).unwrap();
    for key in [world.agent.public(), world.replicator.public()] {
        let mut known = known.clone();
        known.note_cloned([key]);
        let denied = Denied::Cloned(key);
        assert_eq!(known.permit_send(now, &leases, &asked), Err(denied));
        assert_eq!(
            known.permit_receive(now, &leases, &asked).unwrap_err(),
            denied
        );
        assert_eq!(known.recheck(now, &leases, &permit), Err(denied));
        assert!(known.admits(NOW, &key));
    }
    // Its signer is in neither place that the stream is between.
    known.note_cloned([world.operator.public()]);
    assert!(known.permit_send(now, &leases, &asked).is_ok());
}

#[test]
fn a_grant_counts_up_to_where_its_signers_statements_fork() {
    let mut world = World::new();
    let before = world.grant();
    // What somebody else with the key states under the number of the next grant.
    let twin = world.sign(
        &world.operator.clone(),
        Statement::Invite(Invite {
            key: key(90).public(),
            roles: [Role::Agent].into_iter().collect(),
            name: None,
            site: None,
            not_after: LATER,
            uses: 1,
            admitter: world.operator.public(),
            scope: Scope::Everywhere,
            member_until: None,
        }),
    );
    let at_fork = world.grant();
    let past = world.grant();
    let leases = world.leases(&[before, at_fork, past]);
    assert!(world.ledger.forks().is_empty());
    assert!(
        authority(&world.ledger)
            .permit_send(at(NOW), &leases, &world.asked(past))
            .is_ok()
    );
    world.ledger.insert(twin).unwrap();
    let operator = world.operator.public();
    let seq = world.ledger.get(&at_fork).unwrap().entry.seq;
    assert_eq!(world.ledger.forks(), &BTreeMap::from([(operator, seq)]));
    let known = authority(&world.ledger);
    assert!(known.is_cloned(&operator));
    assert!(
        known
            .permit_send(at(NOW), &leases, &world.asked(before))
            .is_ok()
    );
    for grant in [at_fork, past] {
        let denied = world.denied(NOW, &world.asked(grant));
        assert_eq!(denied, Denied::Cloned(operator));
    }
    let standing = known.standing(NOW, &operator, Role::Operator);
    assert_eq!(standing.unwrap_err(), Denied::Cloned(operator));
}
