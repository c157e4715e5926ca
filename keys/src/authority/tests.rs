//! Rules of authority, each as a small ledger; and that order never matters.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::enrolment::Transcript;
use crate::id::{MigrationId, Pulse, VolumeId};
use crate::identity::Identity;
use crate::invite::Token;
use crate::lease::{Leases, Now, Pair, Renewal, Span};
use crate::ledger::{Inserted, Ledger, Refused};
use crate::permit::{Move, Permit, SendBlocks};
use crate::signed::{Domain, Signed};
use crate::statement::{Admission, Enrolment, Entry, Genesis, Honoured, Revocation, Statement};
use proptest::prelude::*;

mod clones;
mod dedup;
mod limits;
mod operators;
mod rotation;

const NOW: UnixSecs = UnixSecs(1_000);
const MONO_MILLIS: u64 = 50_000;
const LEASE_SECS: u64 = 100;
const AUTONOMY_SECS: u64 = 50;
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
                admitter: signer.public(),
                scope: Scope::Everywhere,
                member_until: None,
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
            lease_secs: LEASE_SECS,
            autonomy_secs: AUTONOMY_SECS,
            dedup_group: None,
        };
        self.state(&self.operator.clone(), Statement::Grant(grant))
    }

    /// Leases that count from [`MONO_MILLIS`], renewed by the operator for these grants.
    fn leases(&self, grants: &[StatementId]) -> Leases {
        self.leases_with(&self.replicator, grants)
    }

    fn leases_with(&self, replicator: &Identity, grants: &[StatementId]) -> Leases {
        let replicator = self.node(replicator);
        let pairs = grants.iter().map(|grant| Pair {
            grant: *grant,
            replicator,
        });
        let pairs: Vec<Pair> = pairs.collect();
        let span = Span {
            lease_secs: LEASE_SECS,
            autonomy_secs: AUTONOMY_SECS,
        };
        let wanted = pairs.iter().map(|pair| (*pair, span)).collect();
        let mut leases = Leases::new();
        leases.pulse(at(NOW), Pulse([1; 16]));
        let renewal = Renewal {
            holder: self.node(&self.agent),
            pulse: Pulse([1; 16]),
            pairs,
        };
        let (holder, operator) = (renewal.holder, self.node(&self.operator));
        let from = (operator, &[renewal][..]);
        leases.hear(&authority(&self.ledger), NOW, (holder, &wanted), from);
        leases
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

    /// Why the move is denied however fresh the lease is.
    fn denied(&self, wall: UnixSecs, asked: &Move) -> Denied {
        self.denied_at(at(wall), &self.leases(&[asked.grant]), asked)
    }

    fn denied_at(&self, now: Now, leases: &Leases, asked: &Move) -> Denied {
        let authority = authority(&self.ledger);
        let denied = authority.permit_receive(now, leases, asked).unwrap_err();
        let sending = authority.permit_send(now, leases, asked);
        assert_eq!(sending.unwrap_err(), denied);
        denied
    }

    fn permit(&self, grant: StatementId) -> Result<Permit<SendBlocks>, Denied> {
        let leases = self.leases(&[grant]);
        authority(&self.ledger).permit_send(at(NOW), &leases, &self.asked(grant))
    }
}

fn at(wall: UnixSecs) -> Now {
    Now {
        wall,
        mono_millis: MONO_MILLIS,
    }
}

fn later_by(millis: u64) -> Now {
    Now {
        wall: NOW,
        mono_millis: MONO_MILLIS + millis,
    }
}

fn enrolment(subject: &Identity, roles: &[Role], admission: Admission) -> Statement {
    Statement::Enrolment(Enrolment {
        subject: subject.public(),
        name: name("node"),
        roles: roles.iter().copied().collect(),
        site: None,
        not_after: None,
        scope: Scope::Everywhere,
        admission,
    })
}

fn revoke(target: StatementId) -> Statement {
    Statement::Revocation(Revocation {
        target,
        honours: None,
        reason: "test".into(),
    })
}

#[test]
fn a_grant_permits_its_own_agent_volume_and_replicator() {
    let mut world = World::new();
    let grant = world.grant();
    let authority = authority(&world.ledger);
    let permit = world.permit(grant).unwrap();
    assert!(permit.holds(at(NOW)) && permit.holds(at(UnixSecs(LATER.0 - 1))));
    assert!(!permit.holds(at(LATER)), "the grant is over");
    let leases = world.leases(&[grant]);
    assert_eq!(
        authority.recheck(at(NOW), &leases, &permit),
        Ok(permit.clone())
    );
}

#[test]
fn a_permit_ends_with_lease_and_autonomy_whatever_the_wall_clock_says() {
    let mut world = World::new();
    let grant = world.grant();
    let (leases, asked) = (world.leases(&[grant]), world.asked(grant));
    let permit = world.permit(grant).unwrap();
    let lease = LEASE_SECS * 1000;
    let end = lease + AUTONOMY_SECS * 1000;
    assert!(!permit.is_on_autonomy(later_by(lease - 1)));
    assert!(permit.is_on_autonomy(later_by(lease)) && permit.holds(later_by(lease)));
    assert!(permit.holds(later_by(end - 1)) && !permit.holds(later_by(end)));
    let set_back = Now {
        wall: UnixSecs(0),
        ..later_by(end)
    };
    assert!(!permit.holds(set_back));
    let over = Denied::LeaseOver { grant };
    assert_eq!(world.denied_at(later_by(end), &leases, &asked), over);
    assert_eq!(world.denied_at(set_back, &leases, &asked), over);
    let authority = authority(&world.ledger);
    let again = authority.permit_receive(later_by(end - 1), &leases, &asked);
    assert!(again.is_ok_and(|permit| permit.is_on_autonomy(later_by(end - 1))));
}

#[test]
fn nothing_moves_before_an_operator_has_confirmed_the_grant_for_this_replicator() {
    let mut world = World::new();
    let (grant, other) = (world.grant(), world.grant());
    let unvouched = Denied::NotVouched { grant };
    let asked = world.asked(grant);
    assert_eq!(
        world.denied_at(at(NOW), &Leases::new(), &asked),
        unvouched,
        "no lease at all"
    );
    let leases = world.leases(&[other]);
    assert_eq!(
        world.denied_at(at(NOW), &leases, &asked),
        unvouched,
        "a lease of another grant"
    );
}

#[test]
fn what_is_live_names_no_revoked_grant_agent_or_replicator() {
    let mut world = World::new();
    let operator = world.operator.clone();
    let (kept, revoked) = (world.grant(), world.grant());
    world.state(&operator, revoke(revoked));
    let replicator = world.node(&world.replicator);
    let live = |world: &World, wall: UnixSecs| {
        let authority = authority(&world.ledger);
        let pairs = authority.live_pairs(wall).map(|(pair, _)| pair);
        pairs.collect::<Vec<Pair>>()
    };
    let pair = Pair {
        grant: kept,
        replicator,
    };
    assert_eq!(live(&world, NOW), [pair]);
    assert_eq!(live(&world, LATER), [], "the grant is over");
    let mut other = World {
        ledger: world.ledger.clone(),
        ..World::new()
    };
    other.state(&operator, revoke(replicator.into()));
    assert_eq!(live(&other, NOW), [], "the replicator was revoked");
    let agent = world.node(&world.agent);
    world.state(&operator, revoke(agent.into()));
    assert_eq!(live(&world, NOW), [], "the agent was revoked");
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
    let leases = world.leases(&[grant]);
    let permit = world.permit(grant).unwrap();
    let operator = world.operator.clone();
    world.state(&operator, revoke(grant));
    assert_eq!(world.denied(NOW, &asked), Denied::GrantRevoked(grant));
    assert_eq!(
        authority(&world.ledger).recheck(at(NOW), &leases, &permit),
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
    assert!(world.permit(grant).is_ok());
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
    let leases = world.leases(&[first, second]);
    let permit = |world: &World, grant: StatementId| {
        authority(&world.ledger).permit_send(at(NOW), &leases, &world.asked(grant))
    };
    let node = world.node(&operator);
    let root = world.root.clone();
    world.state(
        &root,
        Statement::Revocation(Revocation {
            target: node.into(),
            honours: Some(Honoured {
                key: operator.public(),
                statements: honoured,
                changes: Position::NONE,
            }),
            reason: "lost laptop".into(),
        }),
    );
    assert!(permit(&world, first).is_ok());
    assert_eq!(permit(&world, second), Err(Denied::UnknownGrant(second)));
    // A statement that pretends to be old does not come from the honoured chain.
    let mut forged = world.sign(&operator, revoke(first));
    let mut entry: Entry = forged.open_stored().unwrap();
    entry.seq = 2;
    forged = Signed::seal(&operator, Domain::Statement, &entry).unwrap();
    world.ledger.insert(forged).unwrap();
    assert!(permit(&world, first).is_ok());
    let authority = authority(&world.ledger);
    assert_eq!(
        authority.authorship(&operator.public()),
        Some(Authorship::Through(Position::NONE))
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

/// A ledger of the same statements that came in another order.
fn shuffled(world: &World, seed: u64) -> Ledger {
    let recorded = world.ledger.iter();
    let mut statements: Vec<Signed> = recorded.map(|(_, one)| one.signed.clone()).collect();
    let mut state = seed | 1;
    for at in (1..statements.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        statements.swap(at, (state >> 33) as usize % (at + 1));
    }
    let mut other = Ledger::found(genesis(&world.root)).unwrap();
    other.insert_all(statements).unwrap();
    other
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
        let other = shuffled(&world, seed);
        prop_assert_eq!(other.digest(), world.ledger.digest());
        prop_assert_eq!(authority(&other), authority(&world.ledger));
    }

    /// Any mix of all kinds: operators that enrol operators, rotations (contradicting
    /// ones, too), revocations that honour something, scopes and ends.
    #[test]
    fn authority_of_any_history_does_not_depend_on_the_order_of_arrival(
        steps in prop::collection::vec(any::<[u8; 4]>(), 1..40),
        seed in any::<u64>(),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        let other = shuffled(&world, seed);
        prop_assert_eq!(other.digest(), world.ledger.digest());
        prop_assert_eq!(authority(&other), authority(&world.ledger));
    }
}

impl World {
    /// One statement of some kind by somebody about something.
    fn step(&mut self, [kind, who, what, how]: [u8; 4]) {
        let member = |at: u8| key(2 + at % 8);
        let sites = [
            Scope::Everywhere,
            Scope::Sites(vec![name("a")]),
            Scope::Sites(vec![name("a"), name("b")]),
        ];
        let (signer, subject) = (member(who), member(what));
        let node = |world: &Self, identity: &Identity| {
            let nodes = world.ledger.nodes_of(&identity.public());
            nodes.into_iter().nth(usize::from(how) % 3)
        };
        let statement = match kind % 6 {
            0 => {
                let scope = sites[usize::from(how) % 3].clone();
                let until = (how % 5 == 0).then_some(UnixSecs(5_000 + u64::from(how)));
                self.operator_by_invite(&signer, &subject, scope, until);
                return;
            }
            1 => {
                self.node_by_invite(&signer, &subject, how % 3);
                return;
            }
            2 => match node(self, &signer) {
                Some(node) => self.rotation(node, &signer, &subject, Position::NONE),
                None => return,
            },
            3 => match node(self, &subject) {
                Some(node) => {
                    let head = self.ledger.head(&subject.public());
                    let honours = Honoured {
                        key: subject.public(),
                        statements: head,
                        changes: Position {
                            seq: u64::from(how),
                            hash: [how; 32],
                        },
                    };
                    let revocation = Statement::Revocation(Revocation {
                        target: node.into(),
                        honours: (how % 3 > 0).then_some(honours),
                        reason: String::new(),
                    });
                    let root = self.root.clone();
                    self.state(&root, revocation);
                    return;
                }
                None => return,
            },
            4 => match self
                .ledger
                .iter()
                .nth(usize::from(what) % self.ledger.len())
            {
                Some((id, _)) => revoke(*id),
                None => return,
            },
            _ => {
                let (agent, replicator) = (self.node(&self.agent), self.node(&self.replicator));
                Statement::Grant(Grant {
                    migration: MIGRATION,
                    agent,
                    replicators: vec![replicator],
                    volumes: vec![VOLUME],
                    not_after: UnixSecs(9_000 + u64::from(how)),
                    lease_secs: LEASE_SECS,
                    autonomy_secs: AUTONOMY_SECS,
                    dedup_group: None,
                })
            }
        };
        // Most of what is tried here nobody may say, or has been said.
        let signed = self.sign(&signer, statement);
        let _ = self.ledger.insert(signed);
    }
}
