//! Rules of authority, each as a small ledger; and that order never matters.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::enrolment::Transcript;
use crate::id::{MigrationId, VolumeId};
use crate::identity::Identity;
use crate::invite::Token;
use crate::ledger::{Inserted, Refused};
use crate::permit::Move;
use crate::signed::{Domain, Signed};
use crate::statement::{Entry, Genesis};
use proptest::prelude::*;

const NOW: UnixSecs = UnixSecs(1_000);
const LATER: UnixSecs = UnixSecs(10_000);
const MIGRATION: MigrationId = MigrationId([9; 16]);
const VOLUME: VolumeId = VolumeId([8; 16]);

struct World {
    ledger: Ledger,
    root: Identity,
    operator: Identity,
    agent: Identity,
    replicator: Identity,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn key(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn genesis(root: &Identity) -> Signed {
    let entry = Entry {
        seq: 1,
        previous: None,
        mesh: None,
        at: NOW,
        statement: Statement::Genesis(Genesis {
            name: name("test"),
            roots: vec![root.public()],
            nonce: [1; 16],
        }),
    };
    Signed::seal(root, Domain::Statement, &entry).unwrap()
}

impl World {
    fn new() -> Self {
        let root = key(1);
        let mut world = Self {
            ledger: Ledger::found(genesis(&root)).unwrap(),
            root,
            operator: key(2),
            agent: key(3),
            replicator: key(4),
        };
        let operator = world.operator.clone();
        world.state(
            &world.root.clone(),
            enrolment(&operator, &[Role::Operator], Admission::Root),
        );
        let agent = world.agent.clone();
        world.join(&operator, &agent, &[Role::Agent], 0);
        let replicator = world.replicator.clone();
        world.join(&operator, &replicator, &[Role::Replicator], 0);
        world
    }

    fn sign(&self, signer: &Identity, statement: Statement) -> Signed {
        let (seq, previous) = self.ledger.next_position(&signer.public());
        let entry = Entry {
            seq,
            previous,
            mesh: Some(self.ledger.mesh()),
            at: NOW,
            statement,
        };
        Signed::seal(signer, Domain::Statement, &entry).unwrap()
    }

    fn state(&mut self, signer: &Identity, statement: Statement) -> StatementId {
        let signed = self.sign(signer, statement);
        match self.ledger.insert(signed).unwrap() {
            Inserted::New(id) => id,
            Inserted::Known => panic!("stated twice"),
        }
    }

    fn invite(&mut self, signer: &Identity, roles: &[Role], uses: u16, seed: u8) -> StatementId {
        self.state(
            signer,
            Statement::Invite(Invite {
                key: key(seed).public(),
                roles: roles.iter().copied().collect(),
                name: None,
                site: None,
                not_after: LATER,
                uses,
            }),
        )
    }

    fn invited(
        &self,
        invite: StatementId,
        signer: &Identity,
        joiner: &Identity,
        seed: u8,
        use_index: u16,
    ) -> Admission {
        let transcript = Transcript {
            mesh: self.ledger.mesh(),
            invite,
            joiner: joiner.public(),
            admitter: signer.public(),
            nonce: [7; 32],
            name: name("node"),
        };
        let token = Token {
            mesh: self.ledger.mesh(),
            invite,
            admitter: signer.public(),
            addresses: vec![],
            not_after: LATER,
            seed: [seed; 32],
        };
        let proof = transcript.prove(&token, joiner);
        Admission::Invited {
            invite,
            use_index,
            nonce: [7; 32],
            invite_signature: proof.invite_signature,
            subject_signature: proof.subject_signature,
        }
    }

    fn join(
        &mut self,
        signer: &Identity,
        joiner: &Identity,
        roles: &[Role],
        use_index: u16,
    ) -> StatementId {
        let seed = 100 + joiner.seed()[0];
        let invite = self.invite(signer, roles, 1, seed);
        let admission = self.invited(invite, signer, joiner, seed, use_index);
        self.state(signer, enrolment(joiner, roles, admission))
    }

    fn node(&self, identity: &Identity) -> NodeId {
        authority(&self.ledger)
            .by_key(&identity.public())
            .unwrap()
            .id
    }

    fn grant(&mut self) -> StatementId {
        let grant = Grant {
            migration: MIGRATION,
            agent: self.node(&self.agent),
            replicators: vec![self.node(&self.replicator)],
            volumes: vec![VOLUME],
            not_after: LATER,
        };
        self.state(&self.operator.clone(), Statement::Grant(grant))
    }

    fn asked(&self, grant: StatementId) -> Move {
        Move {
            grant,
            migration: MIGRATION,
            volume: VOLUME,
            agent: self.agent.public(),
            replicator: self.replicator.public(),
        }
    }

    fn denied(&self, now: UnixSecs, asked: &Move) -> Denied {
        let authority = authority(&self.ledger);
        let denied = authority.permit_receive(now, asked).unwrap_err();
        assert_eq!(authority.permit_send(now, asked).unwrap_err(), denied);
        denied
    }
}

fn enrolment(subject: &Identity, roles: &[Role], admission: Admission) -> Statement {
    Statement::Enrolment(Enrolment {
        subject: subject.public(),
        name: name("node"),
        roles: roles.iter().copied().collect(),
        site: None,
        not_after: None,
        admission,
    })
}

fn revoke(target: StatementId) -> Statement {
    Statement::Revocation(Revocation {
        target,
        honour_statements: None,
        honour_changes: None,
        reason: "test".into(),
    })
}

#[test]
fn a_grant_permits_its_own_agent_volume_and_replicator() {
    let mut world = World::new();
    let grant = world.grant();
    let authority = authority(&world.ledger);
    let permit = authority.permit_send(NOW, &world.asked(grant)).unwrap();
    assert_eq!(permit.valid_until(), LATER);
    assert_eq!(authority.recheck(NOW, &permit), Ok(()));
}

#[test]
fn nothing_moves_outside_the_terms_of_a_grant() {
    let mut world = World::new();
    let grant = world.grant();
    let stranger = key(50).public();
    let asked = world.asked(grant);
    let cases = [
        (
            Move {
                volume: VolumeId([0; 16]),
                ..asked
            },
            "does not cover",
        ),
        (
            Move {
                migration: MigrationId([0; 16]),
                ..asked
            },
            "does not cover",
        ),
        (
            Move {
                agent: stranger,
                ..asked
            },
            "not enrolled",
        ),
        (
            Move {
                replicator: stranger,
                ..asked
            },
            "not enrolled",
        ),
        (
            Move {
                agent: world.replicator.public(),
                ..asked
            },
            "not enrolled as agent",
        ),
        (
            Move {
                grant: StatementId([0; 32]),
                ..asked
            },
            "not known",
        ),
    ];
    for (asked, expected) in cases {
        let denied = world.denied(NOW, &asked).to_string();
        assert!(denied.contains(expected), "{denied}");
    }
    assert!(matches!(
        world.denied(LATER, &asked),
        Denied::GrantExpired { .. }
    ));
}

#[test]
fn another_agent_and_another_replicator_are_refused() {
    let mut world = World::new();
    let grant = world.grant();
    let operator = world.operator.clone();
    world.join(&operator, &key(20), &[Role::Agent, Role::Replicator], 0);
    let other = key(20).public();
    let asked = world.asked(grant);
    assert!(matches!(
        world.denied(
            NOW,
            &Move {
                agent: other,
                ..asked
            }
        ),
        Denied::AnotherAgent { .. }
    ));
    assert!(matches!(
        world.denied(
            NOW,
            &Move {
                replicator: other,
                ..asked
            }
        ),
        Denied::AnotherReplicator { .. }
    ));
}

#[test]
fn a_revoked_grant_or_node_moves_nothing_and_open_permits_fall() {
    let mut world = World::new();
    let grant = world.grant();
    let asked = world.asked(grant);
    let permit = authority(&world.ledger)
        .permit_receive(NOW, &asked)
        .unwrap();
    let operator = world.operator.clone();
    world.state(&operator, revoke(grant));
    assert_eq!(world.denied(NOW, &asked), Denied::GrantRevoked(grant));
    assert_eq!(
        authority(&world.ledger).recheck(NOW, &permit),
        Err(Denied::GrantRevoked(grant))
    );

    let mut world = World::new();
    let grant = world.grant();
    let agent = world.node(&world.agent);
    let operator = world.operator.clone();
    world.state(&operator, revoke(agent.into()));
    assert_eq!(
        world.denied(NOW, &world.asked(grant)),
        Denied::NodeRevoked(world.agent.public())
    );
    assert!(!authority(&world.ledger).admits(NOW, &world.agent.public()));
}

#[test]
fn a_revocation_counts_only_from_above_on_the_same_chain() {
    let mut world = World::new();
    let grant = world.grant();
    let root = world.root.clone();
    world.state(
        &root,
        enrolment(&key(30), &[Role::Operator], Admission::Root),
    );
    world.state(&key(30), revoke(grant));
    let asked = world.asked(grant);
    assert!(authority(&world.ledger).permit_send(NOW, &asked).is_ok());
    world.state(&root, revoke(grant));
    assert_eq!(world.denied(NOW, &asked), Denied::GrantRevoked(grant));
}

#[test]
fn a_revoked_operator_is_honoured_through_the_named_statement_only() {
    let mut world = World::new();
    let operator = world.operator.clone();
    let first = world.grant();
    let (next, _) = world.ledger.next_position(&operator.public());
    let honoured = Position {
        seq: next - 1,
        hash: first.0,
    };
    let second = world.grant();
    let node = world.node(&operator);
    let root = world.root.clone();
    world.state(
        &root,
        Statement::Revocation(Revocation {
            target: node.into(),
            honour_statements: Some(honoured),
            honour_changes: None,
            reason: "lost laptop".into(),
        }),
    );
    let authority = authority(&world.ledger);
    assert!(authority.permit_send(NOW, &world.asked(first)).is_ok());
    assert_eq!(
        authority.permit_send(NOW, &world.asked(second)),
        Err(Denied::UnknownGrant(second))
    );
    // A statement that pretends to be old does not come from the honoured chain.
    let mut forged = world.sign(&operator, revoke(first));
    let mut entry: Entry = forged.open_stored().unwrap();
    entry.seq = 2;
    forged = Signed::seal(&operator, Domain::Statement, &entry).unwrap();
    world.ledger.insert(forged).unwrap();
    let authority = super::authority(&world.ledger);
    assert!(authority.permit_send(NOW, &world.asked(first)).is_ok());
    assert_eq!(
        authority.authorship(&operator.public()),
        Some(Authorship::Through(Position {
            seq: 0,
            hash: [0; 32]
        }))
    );
}

#[test]
fn two_nodes_of_one_invite_use_are_both_frozen_until_one_is_revoked() {
    let mut world = World::new();
    let operator = world.operator.clone();
    let invite = world.invite(&operator, &[Role::Agent], 1, 77);
    let first = world.invited(invite, &operator, &key(40), 77, 0);
    world.state(&operator, enrolment(&key(40), &[Role::Agent], first));
    let second = world.invited(invite, &operator, &key(41), 77, 0);
    let second = world.state(&operator, enrolment(&key(41), &[Role::Agent], second));
    let contested = |world: &World| {
        authority(&world.ledger)
            .standing(NOW, &key(40).public(), Role::Agent)
            .err()
    };
    assert_eq!(
        contested(&world),
        Some(Denied::NodeContested(key(40).public()))
    );
    world.state(&operator, revoke(second));
    assert_eq!(contested(&world), None);
}

#[test]
fn enrolments_beyond_the_invite_are_unsound() {
    let mut world = World::new();
    let operator = world.operator.clone();
    let invite = world.invite(&operator, &[Role::Agent], 1, 77);
    let joiner = key(60);
    let fine = world.invited(invite, &operator, &joiner, 77, 0);
    let mut forged_proof = fine.clone();
    if let Admission::Invited { nonce, .. } = &mut forged_proof {
        nonce[0] ^= 1;
    }
    let cases = [
        enrolment(&joiner, &[Role::Agent, Role::Replicator], fine.clone()),
        enrolment(&joiner, &[Role::Operator], fine.clone()),
        enrolment(&key(61), &[Role::Agent], fine),
        enrolment(&joiner, &[Role::Agent], forged_proof),
        enrolment(
            &joiner,
            &[Role::Agent],
            world.invited(invite, &operator, &joiner, 77, 1),
        ),
        enrolment(&joiner, &[Role::Agent], Admission::Root),
    ];
    for statement in cases {
        let signed = world.sign(&operator, statement);
        assert!(matches!(
            world.ledger.insert(signed),
            Err(Refused::Unsound { .. })
        ));
    }
}

#[test]
fn what_is_restored_is_not_verified_again_and_still_obeys_the_rules() {
    let mut world = World::new();
    let operator = world.operator.clone();
    let mut signed = world.sign(&operator, revoke(StatementId([0; 32])));
    signed.signature.0[0] ^= 1;
    assert!(matches!(
        world.ledger.insert(signed.clone()),
        Err(Refused::Rejected(_))
    ));
    assert!(matches!(world.ledger.restore(signed), Ok(Inserted::New(_))));
    let unsound = world.sign(
        &operator,
        enrolment(&key(60), &[Role::Agent], Admission::Root),
    );
    assert!(matches!(
        world.ledger.restore(unsound),
        Err(Refused::Unsound { .. })
    ));
    let strange = world.sign(&key(70), revoke(StatementId([0; 32])));
    assert!(matches!(
        world.ledger.restore(strange),
        Err(Refused::UnknownSigner { .. })
    ));
}

#[test]
fn statements_of_strangers_and_of_other_meshes_are_refused() {
    let mut world = World::new();
    let signed = world.sign(&key(70), revoke(StatementId([0; 32])));
    assert!(matches!(
        world.ledger.insert(signed),
        Err(Refused::UnknownSigner { .. })
    ));
    let (seq, previous) = world.ledger.next_position(&world.operator.public());
    let foreign = Entry {
        seq,
        previous,
        mesh: Some(MeshId([3; 32])),
        at: NOW,
        statement: revoke(StatementId([0; 32])),
    };
    let signed = Signed::seal(&world.operator, Domain::Statement, &foreign).unwrap();
    assert!(matches!(
        world.ledger.insert(signed),
        Err(Refused::ForeignMesh { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn authority_does_not_depend_on_the_order_of_arrival(seed in any::<u64>()) {
        let mut world = World::new();
        let grant = world.grant();
        let operator = world.operator.clone();
        let replicator = world.node(&world.replicator);
        world.state(&operator, revoke(replicator.into()));
        let root = world.root.clone();
        world.state(&root, revoke(grant));
        let mut statements: Vec<Signed> =
            world.ledger.iter().map(|(_, recorded)| recorded.signed.clone()).collect();
        let mut state = seed | 1;
        for at in (1..statements.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            statements.swap(at, (state >> 33) as usize % (at + 1));
        }
        let mut other = Ledger::found(genesis(&world.root)).unwrap();
        while !statements.is_empty() {
            let before = statements.len();
            statements.retain(|signed| match other.insert(signed.clone()) {
                Ok(_) => false,
                Err(refused) => { assert!(refused.may_come_later()); true }
            });
            prop_assert!(statements.len() < before);
        }
        prop_assert_eq!(other.digest(), world.ledger.digest());
        prop_assert_eq!(authority(&other), authority(&world.ledger));
    }
}
