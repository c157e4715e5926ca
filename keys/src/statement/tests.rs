//! Each kind of statement within its limits, and what puts it outside them.
#![allow(clippy::unwrap_used)]
use super::*;

/// Each of `breaks` makes a sound statement unsound.
fn each_breaks<T: Clone>(sound: &T, state: fn(T) -> Statement, breaks: &[fn(&mut T)]) {
    assert!(state(sound.clone()).sound());
    for (at, change) in breaks.iter().enumerate() {
        let mut broken = sound.clone();
        change(&mut broken);
        assert!(!state(broken).sound(), "{at}");
    }
}

fn name() -> Name {
    Name::new("web").unwrap()
}

/// As it may come over the network, where nobody asks [`Name::new`].
fn unsound_name() -> Name {
    Name("two words".into())
}

fn operators() -> Roles {
    [Role::Operator].into_iter().collect()
}

fn everywhere_but(name: Name, sites: usize) -> Scope {
    Scope::Sites(vec![name; sites])
}

#[test]
fn a_genesis_has_a_name_and_a_bounded_number_of_roots() {
    let sound = Genesis {
        name: name(),
        roots: vec![PublicKey([1; 32]); MAX_ROOTS],
        nonce: [0; 16],
    };
    let breaks: [fn(&mut Genesis); 3] = [
        |genesis| genesis.name = unsound_name(),
        |genesis| genesis.roots.clear(),
        |genesis| genesis.roots.push(PublicKey([1; 32])),
    ];
    each_breaks(&sound, Statement::Genesis, &breaks);
}

#[test]
fn an_invite_offers_known_roles_to_somebody_within_limits() {
    let sound = Invite {
        key: PublicKey([1; 32]),
        roles: operators(),
        name: Some(name()),
        site: Some(name()),
        not_after: UnixSecs(1),
        uses: 1,
        admitter: PublicKey([2; 32]),
        scope: everywhere_but(name(), crate::scope::MAX_SITES),
        member_until: None,
    };
    let breaks: [fn(&mut Invite); 9] = [
        |invite| invite.roles = Roles(0x81),
        |invite| (invite.roles, invite.scope) = (Roles(0), Scope::Everywhere),
        |invite| invite.name = Some(unsound_name()),
        |invite| invite.site = Some(unsound_name()),
        |invite| invite.uses = 0,
        |invite| invite.scope = everywhere_but(name(), crate::scope::MAX_SITES + 1),
        |invite| invite.scope = everywhere_but(name(), 0),
        |invite| invite.scope = everywhere_but(unsound_name(), 1),
        |invite| invite.roles = [Role::Agent].into_iter().collect(),
    ];
    each_breaks(&sound, Statement::Invite, &breaks);
}

#[test]
fn an_enrolment_gives_known_roles_to_a_named_node_within_limits() {
    let sound = Enrolment {
        subject: PublicKey([1; 32]),
        name: name(),
        roles: operators(),
        site: Some(name()),
        not_after: None,
        scope: everywhere_but(name(), 1),
        admission: Admission::Root,
    };
    let breaks: [fn(&mut Enrolment); 5] = [
        |enrolment| enrolment.name = unsound_name(),
        |enrolment| enrolment.site = Some(unsound_name()),
        |enrolment| enrolment.roles = Roles(0x81),
        |enrolment| (enrolment.roles, enrolment.scope) = (Roles(0), Scope::Everywhere),
        |enrolment| enrolment.roles = [Role::Agent].into_iter().collect(),
    ];
    each_breaks(&sound, Statement::Enrolment, &breaks);
}

#[test]
fn a_grant_is_for_a_bounded_pool_number_of_volumes_and_time() {
    let sound = Grant {
        migration: MigrationId([1; 16]),
        agent: NodeId([1; 32]),
        replicators: vec![NodeId([2; 32]); MAX_POOL],
        volumes: vec![VolumeId([1; 16]); MAX_GRANT_VOLUMES],
        not_after: UnixSecs(1),
        lease_secs: MAX_LEASE_SECS,
        autonomy_secs: MAX_AUTONOMY_SECS,
        dedup_group: Some(name()),
    };
    let breaks: [fn(&mut Grant); 8] = [
        |grant| grant.dedup_group = Some(unsound_name()),
        |grant| grant.replicators.clear(),
        |grant| grant.replicators.push(NodeId([2; 32])),
        |grant| grant.volumes.clear(),
        |grant| grant.volumes.push(VolumeId([1; 16])),
        |grant| grant.lease_secs = MIN_LEASE_SECS - 1,
        |grant| grant.lease_secs = MAX_LEASE_SECS + 1,
        |grant| grant.autonomy_secs = MAX_AUTONOMY_SECS + 1,
    ];
    each_breaks(&sound, Statement::Grant, &breaks);
}

#[test]
fn the_reason_of_a_revocation_is_short() {
    let sound = Revocation {
        target: StatementId([1; 32]),
        honours: None,
        reason: "x".repeat(MAX_REASON),
    };
    let breaks: [fn(&mut Revocation); 1] = [|revocation| revocation.reason.push('x')];
    each_breaks(&sound, Statement::Revocation, &breaks);
}

#[test]
fn an_entry_has_its_place_in_a_chain_and_a_mesh() {
    let sound = Entry {
        seq: 2,
        previous: Some(StatementId([1; 32])),
        mesh: Some(MeshId([1; 32])),
        at: UnixSecs(1),
        statement: Statement::Revocation(Revocation {
            target: StatementId([1; 32]),
            honours: None,
            reason: String::new(),
        }),
    };
    assert!(sound.sound());
    let breaks: [fn(&mut Entry); 5] = [
        |entry| entry.seq = 0,
        |entry| entry.seq = 1,
        |entry| entry.previous = None,
        |entry| (entry.seq, entry.previous) = (0, None),
        |entry| entry.mesh = None,
    ];
    for (at, change) in breaks.iter().enumerate() {
        let mut broken = sound.clone();
        change(&mut broken);
        assert!(!broken.sound(), "{at}");
    }
}
