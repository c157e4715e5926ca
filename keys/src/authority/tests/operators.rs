//! Several operators: who makes them, what becomes of their word, and that what they
//! pass on only shrinks.

use super::*;

impl World {
    /// An operator that `admitter` enrolled with an invite of the root key.
    pub(super) fn operator_by_invite(
        &mut self,
        admitter: &Identity,
        joiner: &Identity,
        scope: Scope,
        until: Option<UnixSecs>,
    ) -> Option<StatementId> {
        let root = self.root.clone();
        let seed = 150;
        let invite = self.state(
            &root,
            Statement::Invite(Invite {
                key: key(seed).public(),
                roles: [Role::Operator].into_iter().collect(),
                name: None,
                site: None,
                not_after: LATER,
                uses: 3,
                admitter: admitter.public(),
                scope: scope.clone(),
                member_until: until,
            }),
        );
        let admission = self.invited(invite, admitter, joiner, seed, 0);
        let enrolment = Statement::Enrolment(Enrolment {
            subject: joiner.public(),
            name: name("node"),
            roles: [Role::Operator].into_iter().collect(),
            site: None,
            not_after: until,
            scope,
            admission,
        });
        let signed = self.sign(admitter, enrolment);
        match self.ledger.insert(signed) {
            Ok(Inserted::New(id)) => Some(id),
            _ => None,
        }
    }

    /// An agent at site `a`, at site `b` or at none, that `admitter` enrolled.
    pub(super) fn node_by_invite(
        &mut self,
        admitter: &Identity,
        joiner: &Identity,
        site: u8,
    ) -> Option<StatementId> {
        let site = [Some("a"), Some("b"), None][usize::from(site)].map(name);
        let seed = 151;
        let invite = Statement::Invite(Invite {
            key: key(seed).public(),
            roles: [Role::Agent, Role::Replicator].into_iter().collect(),
            name: None,
            site: site.clone(),
            not_after: LATER,
            uses: 1,
            admitter: admitter.public(),
            scope: Scope::Everywhere,
            member_until: None,
        });
        let invite = self.sign(admitter, invite);
        let Ok(Inserted::New(invite)) = self.ledger.insert(invite) else {
            return None;
        };
        let admission = self.invited(invite, admitter, joiner, seed, 0);
        let enrolment = Statement::Enrolment(Enrolment {
            subject: joiner.public(),
            name: name("node"),
            roles: [Role::Agent, Role::Replicator].into_iter().collect(),
            site,
            not_after: None,
            scope: Scope::Everywhere,
            admission,
        });
        let signed = self.sign(admitter, enrolment);
        match self.ledger.insert(signed) {
            Ok(Inserted::New(id)) => Some(id),
            _ => None,
        }
    }

    fn standing(&self, identity: &Identity) -> Standing {
        let authority = authority(&self.ledger);
        authority
            .by_key(&identity.public())
            .unwrap()
            .standing
            .clone()
    }

    /// Takes an operator back, honouring its word through `statements`.
    fn revoke_operator(&mut self, operator: &Identity, statements: Option<Position>) {
        let node = self.node(operator);
        let honours = statements.map(|statements| Honoured {
            key: operator.public(),
            statements,
            changes: Position::NONE,
        });
        let root = self.root.clone();
        let revocation = Statement::Revocation(Revocation {
            target: node.into(),
            honours,
            reason: "test".into(),
        });
        self.state(&root, revocation);
    }

    fn grant_between(&mut self, signer: &Identity, agent: &Identity, to: &Identity) -> StatementId {
        let grant = Grant {
            migration: MIGRATION,
            agent: self.node(agent),
            replicators: vec![self.node(to)],
            volumes: vec![VOLUME],
            not_after: LATER,
            lease_secs: LEASE_SECS,
            autonomy_secs: AUTONOMY_SECS,
            dedup_group: None,
        };
        self.state(signer, Statement::Grant(grant))
    }
}

fn everywhere(world: &mut World, admitter: &Identity, joiner: &Identity) {
    let made = world.operator_by_invite(admitter, joiner, Scope::Everywhere, None);
    made.unwrap();
}

#[test]
fn an_operator_invited_by_the_root_key_and_admitted_by_another_operator_is_one() {
    let mut world = World::new();
    let (first, second, third, agent) = (key(2), key(20), key(21), key(22));
    everywhere(&mut world, &first, &second);
    everywhere(&mut world, &second, &third);
    world.node_by_invite(&third, &agent, 2).unwrap();
    let authority = authority(&world.ledger);
    for (identity, role) in [(&third, Role::Operator), (&agent, Role::Agent)] {
        assert!(authority.standing(NOW, &identity.public(), role).is_ok());
    }
    assert_eq!(
        authority.authorship(&third.public()),
        Some(Authorship::Full)
    );
}

#[test]
fn only_a_root_key_offers_the_role_of_operator_and_only_to_whom_it_names() {
    let mut world = World::new();
    let operator = world.operator.clone();
    let invite = |admitter: &Identity, roles: &[Role]| {
        Statement::Invite(Invite {
            key: key(150).public(),
            roles: roles.iter().copied().collect(),
            name: None,
            site: None,
            not_after: LATER,
            uses: 1,
            admitter: admitter.public(),
            scope: Scope::Everywhere,
            member_until: None,
        })
    };
    for statement in [
        invite(&operator, &[Role::Operator]),
        invite(&operator, &[Role::Agent, Role::Operator]),
        invite(&key(30), &[Role::Agent]),
    ] {
        let signed = world.sign(&operator, statement);
        let refused = world.ledger.insert(signed);
        assert!(matches!(refused, Err(Refused::Unsound { .. })));
    }
    // Another operator uses the invite that names this one.
    everywhere(&mut world, &operator, &key(31));
    let root = world.root.clone();
    let invite = world.state(&root, invite(&operator, &[Role::Operator]));
    let admission = world.invited(invite, &key(31), &key(32), 150, 0);
    let signed = world.sign(&key(31), enrolment(&key(32), &[Role::Operator], admission));
    let refused = world.ledger.insert(signed);
    assert!(matches!(refused, Err(Refused::Unsound { .. })));
}

#[test]
fn what_an_operator_notarised_stands_while_its_word_for_it_is_honoured() {
    let mut world = World::new();
    let (first, second, third) = (key(2), key(20), key(21));
    everywhere(&mut world, &first, &second);
    let honoured = world.ledger.head(&first.public());
    everywhere(&mut world, &first, &third);
    world.node_by_invite(&third, &key(22), 2).unwrap();
    world.revoke_operator(&first, Some(honoured));
    assert_eq!(world.standing(&second), Standing::Active);
    assert_eq!(world.standing(&third), Standing::Lapsed);
    assert_eq!(world.standing(&key(22)), Standing::Lapsed);
    let nothing = Some(Authorship::Through(Position::NONE));
    let authority = authority(&world.ledger);
    assert_eq!(authority.authorship(&third.public()), nothing);
}

#[test]
fn of_an_operator_that_is_honoured_through_number_0_nothing_counts() {
    let mut world = World::new();
    let operator = world.operator.clone();
    let grant = world.grant();
    let head = world.ledger.head(&operator.public());
    world.revoke_operator(&operator, Some(Position { seq: 0, ..head }));
    assert!(authority(&world.ledger).grant(&grant).is_none());
}

#[test]
fn an_invite_is_taken_back_by_who_made_it() {
    let mut world = World::new();
    let operator = world.operator.clone();
    let invite = world.invite(&operator, &[Role::Agent], 1, 77);
    let is_revoked = |world: &World| {
        let authority = authority(&world.ledger);
        authority.invite(&invite).unwrap().revoked
    };
    assert!(!is_revoked(&world));
    world.state(&operator, revoke(invite));
    assert!(is_revoked(&world));
}

#[test]
fn a_grant_that_ends_before_the_enrolment_of_who_signed_it_ends_by_itself() {
    let mut world = World::new();
    let (first, long) = (world.operator.clone(), key(20));
    let end = UnixSecs(LATER.0 + 1);
    let made = world.operator_by_invite(&first, &long, Scope::Everywhere, Some(end));
    made.unwrap();
    let grant = world.grant_between(&long, &key(3), &key(4));
    let authority = authority(&world.ledger);
    assert_eq!(authority.grant(&grant).unwrap().not_after, LATER);
}

#[test]
fn of_several_enrolments_of_one_key_the_one_that_honours_most_decides() {
    let root = key(1);
    for revoked in 0..2 {
        let mut world = World::new();
        let mut made = vec![];
        for admitted in ["a", "b"] {
            let Statement::Enrolment(stated) =
                enrolment(&key(20), &[Role::Operator], Admission::Root)
            else {
                panic!("an enrolment");
            };
            let name = name(admitted);
            let stated = Statement::Enrolment(Enrolment { name, ..stated });
            made.push(world.state(&root, stated));
        }
        made.sort();
        let honours = Honoured {
            key: key(20).public(),
            statements: Position::NONE,
            changes: Position {
                seq: 1,
                hash: [1; 32],
            },
        };
        let revocation = Revocation {
            target: made[revoked],
            honours: Some(honours),
            reason: String::new(),
        };
        world.state(&root, Statement::Revocation(revocation));
        let authority = authority(&world.ledger);
        assert_eq!(
            authority.authorship(&key(20).public()),
            Some(Authorship::Full)
        );
    }
}

#[test]
fn a_node_that_lapsed_or_expired_stands_in_no_role() {
    let mut world = World::new();
    let (first, short) = (world.operator.clone(), key(20));
    let end = UnixSecs(5_000);
    let made = world.operator_by_invite(&first, &short, Scope::Everywhere, Some(end));
    made.unwrap();
    world.node_by_invite(&short, &key(21), 2).unwrap();
    let agent = key(21).public();
    let standing = |world: &World, now: UnixSecs| {
        let authority = authority(&world.ledger);
        let standing = authority.standing(now, &agent, Role::Agent);
        standing.map(|_| ())
    };
    assert_eq!(standing(&world, UnixSecs(end.0 - 1)), Ok(()));
    assert_eq!(standing(&world, end), Err(Denied::NodeExpired(agent)));
    world.revoke_operator(&short, None);
    assert_eq!(world.standing(&key(21)), Standing::Lapsed);
    assert_eq!(standing(&world, NOW), Err(Denied::NodeRevoked(agent)));
}

#[test]
fn operators_that_enrol_each_other_stand_on_nothing_without_the_root() {
    let mut world = World::new();
    let (first, second, third) = (key(2), key(20), key(21));
    everywhere(&mut world, &first, &second);
    everywhere(&mut world, &second, &third);
    everywhere(&mut world, &third, &second);
    world.revoke_operator(&first, None);
    for operator in [&second, &third] {
        assert_eq!(world.standing(operator), Standing::Lapsed);
    }
}

#[test]
fn one_operator_does_not_take_back_another_even_one_it_enrolled() {
    let mut world = World::new();
    let (first, second) = (key(2), key(20));
    everywhere(&mut world, &first, &second);
    let target = world.node(&second).into();
    world.state(&first, revoke(target));
    assert_eq!(world.standing(&second), Standing::Active);
    let root = world.root.clone();
    world.state(&root, revoke(target));
    assert!(matches!(world.standing(&second), Standing::Revoked(_)));
}

#[test]
fn of_two_operators_of_one_invite_use_neither_is_heard() {
    let mut world = World::new();
    let root = world.root.clone();
    let first = key(2);
    everywhere(&mut world, &first, &key(20));
    let enrolled = world.ledger.head(&first.public());
    let stated = world.ledger.get(&StatementId(enrolled.hash)).unwrap();
    let Statement::Enrolment(stated) = &stated.entry.statement else {
        panic!("an enrolment");
    };
    let Admission::Invited { invite, .. } = stated.admission else {
        panic!("by invite");
    };
    world.node_by_invite(&key(20), &key(22), 2).unwrap();
    assert_eq!(world.standing(&key(22)), Standing::Active);
    let admission = world.invited(invite, &first, &key(21), 150, 0);
    world.state(&first, enrolment(&key(21), &[Role::Operator], admission));
    for operator in [key(20), key(21)] {
        assert_eq!(world.standing(&operator), Standing::Contested);
    }
    assert_eq!(world.standing(&key(22)), Standing::Lapsed);
    let second = world.node(&key(21)).into();
    world.state(&root, revoke(second));
    assert_eq!(world.standing(&key(20)), Standing::Active);
    assert_eq!(world.standing(&key(22)), Standing::Active);
}

#[test]
fn an_operator_stays_contested_by_an_enrolment_that_lapsed() {
    let mut world = World::new();
    let first = key(2);
    let enrolled = world.operator_by_invite(&first, &key(20), Scope::Everywhere, None);
    let honoured = world.ledger.head(&first.public());
    let stated = world.ledger.get(&enrolled.unwrap()).unwrap();
    let Statement::Enrolment(stated) = &stated.entry.statement else {
        panic!("an enrolment");
    };
    let Admission::Invited { invite, .. } = stated.admission else {
        panic!("by invite");
    };
    let admission = world.invited(invite, &first, &key(21), 150, 0);
    world.state(&first, enrolment(&key(21), &[Role::Operator], admission));
    world.revoke_operator(&first, Some(honoured));
    assert_eq!(world.standing(&key(20)), Standing::Contested);
}

#[test]
fn an_operator_limited_to_a_site_enrols_only_nodes_there() {
    let mut world = World::new();
    let limited = key(20);
    let scope = Scope::Sites(vec![name("a")]);
    let first = world.operator.clone();
    world
        .operator_by_invite(&first, &limited, scope, None)
        .unwrap();
    world.node_by_invite(&limited, &key(21), 0).unwrap();
    world.node_by_invite(&limited, &key(22), 1).unwrap();
    world.node_by_invite(&limited, &key(23), 2).unwrap();
    assert_eq!(world.standing(&key(21)), Standing::Active);
    assert_eq!(world.standing(&key(22)), Standing::Lapsed);
    assert_eq!(world.standing(&key(23)), Standing::Lapsed);
    let authority = authority(&world.ledger);
    let outside = |state: &&InviteState| state.signer == limited.public() && state.revoked;
    let invites = authority.invites().map(|(_, state)| state);
    assert_eq!(invites.filter(outside).count(), 2);
}

#[test]
fn an_operator_limited_to_a_site_grants_only_between_nodes_there() {
    let mut world = World::new();
    let (first, limited) = (world.operator.clone(), key(20));
    let scope = Scope::Sites(vec![name("a")]);
    world
        .operator_by_invite(&first, &limited, scope, None)
        .unwrap();
    for (seed, site) in [(21, 0), (22, 0), (23, 1), (24, 2)] {
        world.node_by_invite(&first, &key(seed), site).unwrap();
    }
    let inside = world.grant_between(&limited, &key(21), &key(22));
    let outside = [
        world.grant_between(&limited, &key(21), &key(23)),
        world.grant_between(&limited, &key(23), &key(21)),
        world.grant_between(&limited, &key(24), &key(21)),
    ];
    let authority = authority(&world.ledger);
    assert!(authority.grant(&inside).is_some());
    assert!(outside.iter().all(|id| authority.grant(id).is_none()));
}

#[test]
fn nothing_outlasts_the_enrolment_of_who_signed_it() {
    let mut world = World::new();
    let (first, short) = (world.operator.clone(), key(20));
    let end = UnixSecs(5_000);
    let made = world.operator_by_invite(&first, &short, Scope::Everywhere, Some(end));
    made.unwrap();
    world.node_by_invite(&short, &key(21), 2).unwrap();
    world.node_by_invite(&short, &key(22), 2).unwrap();
    let grant = world.grant_between(&short, &key(21), &key(22));
    let authority = authority(&world.ledger);
    let member = authority.by_key(&key(21).public()).unwrap();
    assert_eq!(member.not_after, Some(end));
    assert!(!authority.admits(end, &key(21).public()));
    assert_eq!(authority.grant(&grant).unwrap().not_after, end);
    let asked = Move {
        grant,
        migration: MIGRATION,
        volume: VOLUME,
        agent: key(21).public(),
        replicator: key(22).public(),
    };
    let leases = world.leases_with(&key(22), &[grant]);
    let permit = authority.permit_send(at(NOW), &leases, &asked).unwrap();
    assert!(permit.holds(at(UnixSecs(end.0 - 1))) && !permit.holds(at(end)));
    // A grant between nodes that stay ends with its signer all the same.
    let grant = world.grant_between(&short, &key(3), &key(4));
    let authority = super::authority(&world.ledger);
    let asked = Move {
        grant,
        ..world.asked(grant)
    };
    let leases = world.leases(&[grant]);
    assert!(authority.permit_send(at(NOW), &leases, &asked).is_ok());
    assert!(matches!(
        authority.permit_send(at(end), &leases, &asked),
        Err(Denied::GrantExpired { .. })
    ));
}

#[test]
fn an_enrolment_that_outlasts_or_outreaches_its_invite_is_unsound() {
    let mut world = World::new();
    let (root, first) = (world.root.clone(), world.operator.clone());
    let scope = Scope::Sites(vec![name("a")]);
    let invite = world.state(
        &root,
        Statement::Invite(Invite {
            key: key(150).public(),
            roles: [Role::Operator, Role::Agent].into_iter().collect(),
            name: None,
            site: None,
            not_after: LATER,
            uses: 1,
            admitter: first.public(),
            scope: scope.clone(),
            member_until: Some(UnixSecs(5_000)),
        }),
    );
    let admission = world.invited(invite, &first, &key(20), 150, 0);
    let made = |roles: &[Role], scope: &Scope, not_after: Option<u64>| {
        Statement::Enrolment(Enrolment {
            subject: key(20).public(),
            name: name("node"),
            roles: roles.iter().copied().collect(),
            site: None,
            not_after: not_after.map(UnixSecs),
            scope: scope.clone(),
            admission: admission.clone(),
        })
    };
    let wider = Scope::Sites(vec![name("a"), name("b")]);
    let everywhere = Scope::Everywhere;
    for statement in [
        made(&[Role::Operator], &scope, None),
        made(&[Role::Operator], &scope, Some(5_001)),
        made(&[Role::Operator], &everywhere, Some(5_000)),
        made(&[Role::Operator], &wider, Some(5_000)),
        made(&[Role::Agent], &scope, Some(5_000)),
    ] {
        let signed = world.sign(&first, statement);
        let refused = world.ledger.insert(signed);
        assert!(matches!(refused, Err(Refused::Unsound { .. })));
    }
    world.state(&first, made(&[Role::Operator], &scope, Some(5_000)));
}

#[test]
fn what_a_chain_carries_is_taken_in_its_own_order() {
    let mut world = World::new();
    let (first, second, third) = (key(2), key(20), key(21));
    everywhere(&mut world, &first, &second);
    everywhere(&mut world, &second, &third);
    let node = world.node_by_invite(&third, &key(22), 2).unwrap();
    let chain = world.ledger.chain([node], 64).unwrap();
    let mut other = Ledger::found(chain[0].clone()).unwrap();
    for signed in &chain[1..] {
        other.insert(signed.clone()).unwrap();
    }
    let authority = authority(&other);
    assert!(authority.admits(NOW, &key(22).public()));
    assert_eq!(chain.len(), 8);
    assert!(world.ledger.chain([node], 7).is_none());
}

#[test]
fn an_operator_limited_to_sites_renews_no_lease_elsewhere() {
    let mut world = World::new();
    let (first, limited) = (world.operator.clone(), key(20));
    let scope = Scope::Sites(vec![name("a")]);
    let made = world.operator_by_invite(&first, &limited, scope, None);
    made.unwrap();
    for (seed, site) in [(21, 0), (22, 0), (23, 1)] {
        world.node_by_invite(&first, &key(seed), site).unwrap();
    }
    let pairs = [22, 23].map(|seed| Pair {
        grant: world.grant_between(&first, &key(21), &key(seed)),
        replicator: world.node(&key(seed)),
    });
    let span = Span {
        lease_secs: LEASE_SECS,
        autonomy_secs: AUTONOMY_SECS,
    };
    let wanted = pairs.iter().map(|pair| (*pair, span)).collect();
    let renewal = Renewal {
        holder: world.node(&key(21)),
        pulse: Pulse([1; 16]),
        pairs: pairs.to_vec(),
    };
    let mut leases = Leases::new();
    leases.pulse(at(NOW), Pulse([1; 16]));
    let said = (world.node(&limited), &[renewal.clone()][..]);
    let authority = authority(&world.ledger);
    leases.hear(&authority, NOW, (renewal.holder, &wanted), said);
    assert!(leases.since(&pairs[0]).is_some());
    assert!(leases.since(&pairs[1]).is_none());
}

#[test]
fn the_word_of_an_operator_limited_to_sites_covers_both_ends_of_known_grants_there() {
    let mut world = World::new();
    let first = world.operator.clone();
    for (seed, site) in [(21, 0), (22, 0), (23, 1), (24, 1)] {
        world.node_by_invite(&first, &key(seed), site).unwrap();
    }
    let scope = Scope::Sites(vec![name("a")]);
    for (agent, replicator, is_within) in [
        (21, 22, true),
        (21, 24, false),
        (23, 22, false),
        (23, 24, false),
    ] {
        let pair = Pair {
            grant: world.grant_between(&first, &key(agent), &key(replicator)),
            replicator: world.node(&key(replicator)),
        };
        let authority = authority(&world.ledger);
        assert_eq!(authority.is_within(&scope, &pair), is_within);
        assert!(authority.is_within(&Scope::Everywhere, &pair));
        let unknown = Pair {
            grant: StatementId([0; 32]),
            ..pair
        };
        assert!(!authority.is_within(&scope, &unknown));
    }
}

#[test]
fn what_follows_a_gap_in_an_operators_statements_is_not_to_be_honoured() {
    let mut world = World::new();
    let operator = world.operator.clone();
    let signer = operator.public();
    let first = world.ledger.head(&signer);
    let missing = world.sign(&operator, revoke(StatementId([7; 32])));
    let mut ahead = world.ledger.clone();
    ahead.insert(missing.clone()).unwrap();
    let (seq, previous) = ahead.next_position(&signer);
    let entry = Entry {
        seq,
        previous,
        mesh: Some(world.ledger.mesh()),
        at: NOW,
        statement: revoke(StatementId([8; 32])),
    };
    let later = Signed::seal(&operator, Domain::Statement, &entry).unwrap();
    world.ledger.insert(later).unwrap();
    let head = world.ledger.head(&signer);
    assert_eq!(head.seq, first.seq + 2);
    assert_eq!(world.ledger.unbroken(&signer), first);
    assert!(world.ledger.is_whole(&signer, &first));
    assert!(!world.ledger.is_whole(&signer, &head));
    assert!(world.ledger.is_whole(&signer, &Position::NONE));

    let honours = |honoured| {
        let mut world = World {
            ledger: world.ledger.clone(),
            ..World::new()
        };
        let revocation = Revocation {
            target: world.node(&operator).into(),
            honours: Some(Honoured {
                key: signer,
                statements: honoured,
                changes: Position::NONE,
            }),
            reason: String::new(),
        };
        let root = world.root.clone();
        world.state(&root, Statement::Revocation(revocation));
        world.standing(&world.agent)
    };
    // Where the gap is not filled, nobody whom it enrolled stands any more.
    assert_eq!(honours(head), Standing::Lapsed);
    assert_eq!(honours(first), Standing::Active);
    world.ledger.insert(missing).unwrap();
    assert_eq!(world.ledger.unbroken(&signer), head);
    assert!(world.ledger.is_whole(&signer, &head));
}
