//! A node's keys, one after the other.

use super::*;
use crate::ledger::MAX_ROTATIONS;
use crate::rotation::Change;
use crate::statement::Rotation;

impl World {
    pub(super) fn rotation(
        &self,
        node: NodeId,
        from: &Identity,
        to: &Identity,
        honour_changes: Position,
    ) -> Statement {
        let change = Change {
            mesh: self.ledger.mesh(),
            node,
            from: from.public(),
            to: to.public(),
        };
        Statement::Rotation(Rotation {
            node,
            key: to.public(),
            proof: change.prove(to),
            honour_changes,
        })
    }

    fn rotate(&mut self, from: &Identity, to: &Identity) -> StatementId {
        let node = self.node(from);
        let statement = self.rotation(node, from, to, CHANGES);
        self.state(from, statement)
    }
}

const CHANGES: Position = Position {
    seq: 3,
    hash: [3; 32],
};

fn refused(world: &mut World, signer: &Identity, statement: Statement) -> Refused {
    let signed = world.sign(signer, statement);
    world.ledger.insert(signed).unwrap_err()
}

#[test]
fn a_node_goes_on_with_its_next_key_and_the_old_one_is_shut_out() {
    let mut world = World::new();
    let grant = world.grant();
    let node = world.node(&key(3));
    world.rotate(&key(3), &key(33));
    let authority = authority(&world.ledger);
    let (old, new) = (key(3).public(), key(33).public());
    assert_eq!(authority.member(&node).unwrap().key, new);
    assert!(authority.admits(NOW, &new) && !authority.admits(NOW, &old));
    let denied = authority.standing(NOW, &old, Role::Agent).unwrap_err();
    assert_eq!(denied, Denied::KeyRotated(old));
    // The grant names the node, whatever its key; what the old key signed is still its own.
    let (leases, asked) = (world.leases(&[grant]), world.asked(grant));
    assert_eq!(
        authority.permit_send(at(NOW), &leases, &asked).unwrap_err(),
        Denied::KeyRotated(old)
    );
    let asked = Move {
        agent: new,
        ..asked
    };
    assert!(authority.permit_send(at(NOW), &leases, &asked).is_ok());
    assert!(authority.is_node(node, old) && authority.is_node(node, new));
    assert!(!authority.is_node(node, key(4).public()));
}

#[test]
fn an_open_permit_falls_when_its_key_is_rotated() {
    let mut world = World::new();
    let grant = world.grant();
    let (leases, asked) = (world.leases(&[grant]), world.asked(grant));
    let permit = authority(&world.ledger)
        .permit_receive(at(NOW), &leases, &asked)
        .unwrap();
    world.rotate(&key(4), &key(44));
    assert_eq!(
        authority(&world.ledger).recheck(at(NOW), &leases, &permit),
        Err(Denied::KeyRotated(key(4).public()))
    );
}

#[test]
fn keys_follow_one_another_and_none_comes_back() {
    let mut world = World::new();
    let node = world.node(&key(3));
    world.rotate(&key(3), &key(33));
    world.rotate(&key(33), &key(34));
    let back = world.rotation(node, &key(34), &key(33), CHANGES);
    world.state(&key(34), back);
    let authority = authority(&world.ledger);
    assert_eq!(authority.member(&node).unwrap().key, key(34).public());
    assert!(!authority.admits(NOW, &key(33).public()));
}

#[test]
fn a_node_rotates_its_own_key_only_and_to_one_that_agrees() {
    let mut world = World::new();
    let (agent, replicator) = (world.node(&key(3)), world.node(&key(4)));
    let of_another = world.rotation(replicator, &key(3), &key(33), CHANGES);
    assert!(matches!(
        refused(&mut world, &key(3), of_another),
        Refused::UnknownSigner { .. }
    ));
    let by_operator = world.rotation(agent, &key(2), &key(33), CHANGES);
    assert!(matches!(
        refused(&mut world, &key(2), by_operator),
        Refused::UnknownSigner { .. }
    ));
    let to_itself = world.rotation(agent, &key(3), &key(3), CHANGES);
    assert!(matches!(
        refused(&mut world, &key(3), to_itself),
        Refused::Unsound { .. }
    ));
    // A stolen next key: the proof is another's.
    let Statement::Rotation(mut stolen) = world.rotation(agent, &key(3), &key(33), CHANGES) else {
        panic!("a rotation");
    };
    stolen.key = key(4).public();
    assert!(matches!(
        refused(&mut world, &key(3), Statement::Rotation(stolen)),
        Refused::Unsound { .. }
    ));
    // And a node that is no operator says nothing else.
    assert!(matches!(
        refused(&mut world, &key(3), revoke(agent.into())),
        Refused::UnknownSigner { .. }
    ));
}

#[test]
fn two_next_keys_of_one_key_freeze_the_node_until_it_is_revoked() {
    let mut world = World::new();
    let grant = world.grant();
    let node = world.node(&key(3));
    world.rotate(&key(3), &key(33));
    let thief = world.rotation(node, &key(3), &key(34), CHANGES);
    world.state(&key(3), thief);
    let authority = authority(&world.ledger);
    assert_eq!(
        authority.member(&node).unwrap().standing,
        Standing::KeyContested
    );
    for seed in [3, 33, 34] {
        let agent = key(seed).public();
        assert!(!authority.admits(NOW, &agent));
        let asked = Move {
            agent,
            ..world.asked(grant)
        };
        let leases = world.leases(&[grant]);
        let denied = authority.permit_send(at(NOW), &leases, &asked).unwrap_err();
        assert_eq!(denied, Denied::KeyContested(agent));
    }
    let operator = world.operator.clone();
    world.state(&operator, revoke(node.into()));
    let standing = &super::authority(&world.ledger)
        .member(&node)
        .unwrap()
        .standing
        .clone();
    assert!(matches!(standing, Standing::Revoked(_)));
}

#[test]
fn an_operators_word_counts_through_its_rotations_and_no_further() {
    let mut world = World::new();
    let (old, new) = (world.operator.clone(), key(22));
    let before = world.grant();
    world.rotate(&old, &new);
    // Whoever has the old key says more with it, even as if it were older.
    let after = world.grant();
    world.operator = new.clone();
    let next = world.grant();
    let authority = authority(&world.ledger);
    assert!(authority.grant(&before).is_some() && authority.grant(&next).is_some());
    assert!(authority.grant(&after).is_none());
    assert_eq!(authority.authorship(&new.public()), Some(Authorship::Full));
    assert_eq!(
        authority.authorship(&old.public()),
        Some(Authorship::Through(CHANGES))
    );
    // What it signed with the old key it takes back with the new one.
    world.state(&new, revoke(before));
    assert!(
        super::authority(&world.ledger)
            .grant(&before)
            .unwrap()
            .revoked
    );
}

#[test]
fn while_an_operators_key_is_contested_only_what_both_follow_counts() {
    let mut world = World::new();
    let (old, node) = (world.operator.clone(), world.node(&key(2)));
    let before = world.grant();
    let (seq, previous) = world.ledger.next_position(&old.public());
    world.rotate(&old, &key(22));
    world.operator = key(22);
    let honest = world.grant();
    // The thief's branch: a grant, and then another next key.
    let terms = world.ledger.get(&before).unwrap().entry.statement.clone();
    let mut entry = Entry {
        seq,
        previous,
        mesh: Some(world.ledger.mesh()),
        at: LATER,
        statement: terms,
    };
    let stolen = Signed::seal(&old, Domain::Statement, &entry).unwrap();
    let stolen_id = stolen.statement_id();
    world.ledger.insert(stolen).unwrap();
    entry.seq += 1;
    entry.previous = Some(stolen_id);
    entry.statement = world.rotation(node, &old, &key(23), Position::NONE);
    let forked = Signed::seal(&old, Domain::Statement, &entry).unwrap();
    world.ledger.insert(forked).unwrap();
    let contested = authority(&world.ledger);
    assert!(contested.grant(&before).is_some() && contested.grant(&honest).is_none());
    assert!(contested.grant(&stolen_id).is_none());
    let through = contested.authorship(&old.public());
    assert_eq!(through, Some(Authorship::Through(Position::NONE)));
    let nothing = Some(Authorship::Through(Position::NONE));
    for thief_or_not in [key(22), key(23)] {
        assert_eq!(contested.authorship(&thief_or_not.public()), nothing);
    }
    // A root key revokes it, and says which of the two keys was honest.
    let root = world.root.clone();
    let head = world.ledger.head(&key(22).public());
    world.state(
        &root,
        Statement::Revocation(Revocation {
            target: node.into(),
            honours: Some(Honoured {
                key: key(22).public(),
                statements: head,
                changes: CHANGES,
            }),
            reason: String::new(),
        }),
    );
    let settled = authority(&world.ledger);
    assert!(settled.grant(&before).is_some() && settled.grant(&honest).is_some());
    assert!(settled.grant(&stolen_id).is_none());
    assert_eq!(
        settled.authorship(&key(22).public()),
        Some(Authorship::Through(CHANGES))
    );
    assert_eq!(settled.authorship(&key(23).public()), nothing);
}

#[test]
fn of_several_revocations_the_one_that_honours_least_decides() {
    let mut world = World::new();
    let (old, new, node) = (world.operator.clone(), key(22), world.node(&key(2)));
    let first = world.grant();
    let early = world.ledger.head(&old.public());
    let second = world.grant();
    world.rotate(&old, &new);
    world.operator = new.clone();
    let third = world.grant();
    let late = world.ledger.head(&new.public());
    let root = world.root.clone();
    let mut revoke_through = |key: &Identity, statements, seq| {
        let honours = Honoured {
            key: key.public(),
            statements,
            changes: Position { seq, ..CHANGES },
        };
        let revocation = Statement::Revocation(Revocation {
            target: node.into(),
            honours: Some(honours),
            reason: seq.to_string(),
        });
        world.state(&root, revocation);
        let authority = authority(&world.ledger);
        let counts = [first, second, third].map(|id| authority.grant(&id).is_some());
        let of = |key: &Identity| authority.authorship(&key.public()).unwrap();
        (counts, of(&old), of(&new))
    };
    let through = |seq| Authorship::Through(Position { seq, ..CHANGES });
    let nothing = Authorship::Through(Position::NONE);
    let all = revoke_through(&new, late, 9);
    assert_eq!(all, ([true; 3], through(3), through(9)));
    let some = revoke_through(&old, early, 2);
    assert_eq!(some, ([true, false, false], through(2), nothing));
    let none = revoke_through(&key(90), late, 1);
    assert_eq!(none, ([false; 3], nothing, nothing));
}

#[test]
fn what_introduces_a_node_holds_its_rotations() {
    let mut world = World::new();
    world.rotate(&key(2), &key(22));
    world.rotate(&key(3), &key(33));
    world.rotate(&key(33), &key(34));
    let operator = key(22);
    world.join(&operator, &key(40), &[Role::Agent], 0);
    for seed in [34, 40] {
        let wanted: Vec<StatementId> = world.ledger.origins(&key(seed).public()).collect();
        let chain = world.ledger.chain(wanted, 32).unwrap();
        let mut other = Ledger::found(chain[0].clone()).unwrap();
        other.insert_all(chain).unwrap();
        assert!(authority(&other).admits(NOW, &key(seed).public()));
    }
}

#[test]
fn the_rotations_of_a_node_are_bounded() {
    let mut world = World::new();
    let node = world.node(&key(3));
    let mut last = key(3);
    for seed in 0..MAX_ROTATIONS {
        let next = key(200 - u8::try_from(seed).unwrap());
        world.rotate(&last, &next);
        last = next;
    }
    let one_more = world.rotation(node, &last, &key(99), CHANGES);
    assert_eq!(refused(&mut world, &last, one_more), Refused::Full);
    // Others are not held up by it.
    world.rotate(&key(4), &key(98));
}
