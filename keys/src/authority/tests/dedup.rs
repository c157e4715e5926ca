//! Which grants share content, by whose word.

use super::*;
use crate::dedup::DedupDomain;

/// A grant of this migration to a group.
fn granted(
    world: &mut World,
    signer: &Identity,
    (agent, to): (&Identity, &Identity),
    (migration, group): (MigrationId, Option<&str>),
) -> StatementId {
    let (agent, to) = (world.node(agent), world.node(to));
    let grant = Grant {
        migration,
        agent,
        replicators: vec![to],
        volumes: vec![VOLUME],
        not_after: LATER,
        lease_secs: LEASE_SECS,
        autonomy_secs: AUTONOMY_SECS,
        dedup_group: group.map(name),
    };
    world.state(signer, Statement::Grant(grant))
}

/// The domain of such a grant.
fn domain_of(
    world: &mut World,
    signer: &Identity,
    migration: u8,
    group: Option<&str>,
) -> DedupDomain {
    let terms = (MigrationId([migration; 16]), group);
    let grant = granted(world, signer, (&key(21), &key(22)), terms);
    let authority = authority(&world.ledger);
    authority.grant(&grant).unwrap().dedup_domain
}

/// A mesh with an agent and a replicator at site `a`.
fn at_site_a() -> World {
    let mut world = World::new();
    let first = world.operator.clone();
    for seed in [21, 22] {
        world.node_by_invite(&first, &key(seed), 0).unwrap();
    }
    world
}

#[test]
fn a_migration_shares_with_itself_alone_unless_its_grants_name_a_group() {
    let mut world = at_site_a();
    let operator = world.operator.clone();
    let mut of = |migration, group| domain_of(&mut world, &operator, migration, group);
    let (one, other) = (of(1, None), of(2, None));
    assert_ne!(one, other);
    assert_eq!(of(1, Some("web")), of(2, Some("web")));
    assert_ne!(of(3, Some("web")), of(3, Some("db")));
    assert!(![one, other].contains(&of(4, Some("web"))));
}

#[test]
fn a_group_is_one_only_among_operators_with_one_scope() {
    let mut world = at_site_a();
    let (first, root) = (world.operator.clone(), world.root.clone());
    let sites = |names: &[&str]| Scope::Sites(names.iter().map(|text| name(text)).collect());
    for (seed, scope) in [
        (30, Scope::Everywhere),
        (31, sites(&["a", "b"])),
        (32, sites(&["b", "a"])),
        (33, sites(&["a"])),
    ] {
        let made = world.operator_by_invite(&first, &key(seed), scope, None);
        made.unwrap();
    }
    let mut of = |signer: &Identity, migration| domain_of(&mut world, signer, migration, Some("w"));
    let everywhere = of(&first, 1);
    assert_eq!(of(&root, 2), everywhere);
    assert_eq!(of(&key(30), 3), everywhere);
    let both = of(&key(31), 4);
    assert_eq!(of(&key(32), 5), both);
    let one = of(&key(33), 6);
    assert!(one != both && one != everywhere && both != everywhere);
}

#[test]
fn a_permit_has_the_domain_of_its_grant() {
    let mut world = World::new();
    let (operator, agent, to) = (
        world.operator.clone(),
        world.agent.clone(),
        world.replicator.clone(),
    );
    let terms = (MIGRATION, Some("web"));
    let grant = granted(&mut world, &operator, (&agent, &to), terms);
    let permit = world.permit(grant).unwrap();
    let authority = authority(&world.ledger);
    assert_eq!(
        permit.dedup_domain(),
        authority.grant(&grant).unwrap().dedup_domain
    );
}
