//! Inviting operators: by the root key's hand, wherever it is kept.

use super::*;
use crate::replica::StateError;
use crate::world::{keyless, talk};
use keys::statement::{Grant, Invite};
use keys::{Identity, MigrationId, Scope, VolumeId};

fn operator_invite(op: &Replica, seed: u8, scope: Scope) -> Statement {
    Statement::Invite(Invite {
        key: Identity::from_seed(&[seed; 32]).public(),
        roles: [Role::Operator].into_iter().collect(),
        name: None,
        site: None,
        not_after: UnixSecs(5_000),
        uses: 1,
        admitter: op.my_key(),
        scope,
        member_until: Some(UnixSecs(7_000)),
    })
}

fn token(op: &Replica, seed: u8, invite: StatementId) -> Token {
    Token {
        mesh: op.ledger().mesh(),
        invite,
        admitter: op.my_key(),
        addresses: vec![],
        not_after: UnixSecs(5_000),
        seed: [seed; 32],
    }
}

/// An operator with the key of `seed`, that `op` invited with the root key of seed 101.
fn second(op: &mut Replica, seed: u8, scope: Scope) -> Replica {
    let statement = operator_invite(op, 90, scope);
    let invite = op.state_as_root(&key(101), NOW, statement, &mut vec![]);
    let token = token(op, 90, invite.unwrap());
    let ledger = enrol(op, &key(seed), token);
    let mut joined = Replica::restore(key(seed), None, ledger, vec![], vec![]).unwrap();
    joined.write_unheard();
    joined
}

#[test]
fn an_operator_joins_by_an_invite_of_the_root_key_and_enrols_others() {
    let mut op = keyless(found(1).0);
    let mut second = second(&mut op, 8, Scope::Everywhere);
    let member = second.authority().by_key(&key(8).public()).unwrap();
    assert!(member.roles.has(Role::Operator));
    assert_eq!(member.not_after, Some(UnixSecs(7_000)));
    let mut node = join(&mut second, 9);
    talk(&mut op, &mut second, 100);
    talk(&mut op, &mut node, 100);
    for replica in [&op, &second, &node] {
        assert!(replica.authority().admits(NOW, &key(9).public()));
        // What ends for the operator ends for whom it enrolled.
        assert!(
            !replica
                .authority()
                .admits(UnixSecs(7_000), &key(9).public())
        );
    }
}

#[test]
fn without_the_root_key_no_operator_is_invited_and_none_taken_back() {
    let mut op = keyless(found(1).0);
    let second = second(&mut op, 8, Scope::Everywhere);
    let before = op.heads();
    let invite = operator_invite(&op, 91, Scope::Everywhere);
    let target = second.me().unwrap().into();
    let revocation = Statement::Revocation(Revocation {
        target,
        honours: None,
        reason: String::new(),
    });
    for statement in [invite.clone(), revocation.clone()] {
        let mut out = vec![];
        let refused = op.state(NOW, statement.clone(), &mut out);
        assert_eq!(refused, Err(StateError::NeedsRoot));
        let refused = op.state_as_root(&key(77), NOW, statement, &mut out);
        assert_eq!(refused, Err(StateError::AnotherRoot));
        assert!(out.is_empty());
    }
    assert_eq!(op.heads(), before);
    op.state_as_root(&key(101), NOW, revocation, &mut vec![])
        .unwrap();
    assert!(!op.authority().admits(NOW, &key(8).public()));
}

#[test]
fn an_operator_of_some_sites_does_not_state_what_would_count_for_nothing() {
    let mut op = keyless(found(1).0);
    let scope = Scope::Sites(vec![name("a")]);
    let mut limited = second(&mut op, 8, scope.clone());
    let invite = |site: Option<&str>| {
        Statement::Invite(Invite {
            key: key(60).public(),
            roles: [Role::Agent].into_iter().collect(),
            name: None,
            site: site.map(name),
            not_after: UnixSecs(5_000),
            uses: 1,
            admitter: key(8).public(),
            scope: Scope::Everywhere,
            member_until: None,
        })
    };
    let me = limited.me().unwrap();
    let grant = Statement::Grant(Grant {
        migration: MigrationId([1; 16]),
        agent: me,
        replicators: vec![me],
        volumes: vec![VolumeId([1; 16])],
        not_after: UnixSecs(5_000),
        lease_secs: 3_600,
        autonomy_secs: 0,
        dedup_group: None,
    });
    let refused = Err(StateError::OutOfScope { scope });
    for statement in [invite(Some("b")), invite(None), grant] {
        assert_eq!(limited.state(NOW, statement, &mut vec![]), refused);
    }
    assert!(limited.state(NOW, invite(Some("a")), &mut vec![]).is_ok());
}
