//! A copy is confirmed by three signatures about one thing, and by nothing less.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::world::{
    AGENT, JOB, LENGTH, NOW, OPERATOR, OTHER_REPLICATOR, REPLICATOR, World, key, proof_of,
};
use keys::Signed;

const ROOT: [u8; 32] = [5; 32];

/// An agent that cut over to the other replicator under epoch 2, its provisioner being
/// the operator's node.
fn world() -> World {
    World::with(&[REPLICATOR, OTHER_REPLICATOR], OPERATOR)
}

fn permission(world: &World) -> Result<Confirmed, Unconfirmed> {
    let situation = world.situation(OPERATOR, NOW);
    let plan = situation.migration(&JOB).unwrap();
    situation.evidence(plan).permission(&JOB.volume)
}

/// The three statements, as they should be.
fn three(world: &World) -> [Signed; 3] {
    [
        proof_of(world, 2, AGENT, End::Source, ROOT),
        proof_of(world, 2, OTHER_REPLICATOR, End::Target, ROOT),
        proof_of(world, 2, OPERATOR, End::Witness, ROOT),
    ]
}

fn state(world: &mut World, [source, target, witness]: [Signed; 3]) {
    world.agent_is_at(2, OTHER_REPLICATOR, 1, vec![source]);
    world.report(OTHER_REPLICATOR, |report| report.proofs = vec![target]);
    world.report(OPERATOR, |report| report.proofs = vec![witness]);
}

#[test]
fn three_statements_of_one_epoch_and_root_confirm_a_copy() {
    let mut world = world();
    assert_eq!(permission(&world), Err(Unconfirmed::NotCutOver));
    let stated = three(&world);
    world.agent_is_at(2, OTHER_REPLICATOR, 1, vec![stated[0].clone()]);
    assert_eq!(permission(&world), Err(Unconfirmed::NoTarget));
    state(&mut world, stated);
    let confirmed = permission(&world).unwrap();
    assert_eq!(confirmed.job(), JOB);
    assert_eq!(
        confirmed.claim(),
        Claim {
            epoch: Epoch(2),
            length: LENGTH,
            root: ROOT
        }
    );
    assert_eq!(confirmed.replicator(), world.id(OTHER_REPLICATOR));
    assert_eq!(confirmed.witness(), world.id(OPERATOR));
}

#[test]
fn each_of_the_three_counts_only_from_its_own_node_epoch_and_root() {
    let other = [6; 32];
    let claim = |root| Claim {
        epoch: Epoch(2),
        length: LENGTH,
        root,
    };
    let not_witnessed = Unconfirmed::NotWitnessed(claim(ROOT));
    // Which statement is another, its epoch, signer and root, and what comes of it.
    let cases = [
        (0, 2, REPLICATOR, ROOT, Unconfirmed::NotCutOver),
        (0, 2, AGENT, other, Unconfirmed::EndsDiffer),
        (1, 1, OTHER_REPLICATOR, ROOT, Unconfirmed::NoTarget),
        (1, 1, REPLICATOR, ROOT, Unconfirmed::NoTarget),
        (1, 2, REPLICATOR, ROOT, Unconfirmed::NoTarget),
        (1, 2, AGENT, ROOT, Unconfirmed::NoTarget),
        (1, 2, OTHER_REPLICATOR, other, Unconfirmed::EndsDiffer),
        (2, 1, OPERATOR, ROOT, not_witnessed),
        (2, 2, OTHER_REPLICATOR, ROOT, not_witnessed),
        (2, 2, AGENT, ROOT, not_witnessed),
        (2, 2, OPERATOR, other, Unconfirmed::WitnessDiffers),
    ];
    for (which, epoch, signer, root, why) in cases {
        let mut world = world();
        let ends = [End::Source, End::Target, End::Witness];
        let mut stated = three(&world);
        stated[which] = proof_of(&world, epoch, signer, ends[which], root);
        state(&mut world, stated);
        assert_eq!(
            permission(&world),
            Err(why),
            "{which} {epoch} {signer} {root:?}"
        );
    }
}

#[test]
fn what_is_stated_about_another_migration_volume_or_mesh_counts_for_nothing() {
    let world = || {
        let mut world = world();
        let stated = three(&world);
        state(&mut world, stated);
        world
    };
    assert!(permission(&world()).is_ok());
    let job = |change: fn(&mut JobId)| {
        let mut job = JOB;
        change(&mut job);
        job
    };
    let mesh = world().ledger.mesh();
    let elsewhere = [
        (job(|job| job.migration.0[0] ^= 1), mesh),
        (job(|job| job.volume.0[0] ^= 1), mesh),
        (JOB, keys::MeshId([0; 32])),
    ];
    for (job, mesh) in elsewhere {
        let mut world = world();
        let subject = crate::proof::Subject {
            mesh,
            job,
            epoch: Epoch(2),
            length: LENGTH,
            root: ROOT,
        };
        let signer = key(OPERATOR);
        let end = End::Witness;
        let witness = crate::proof::sign(&signer, &subject, end, Method::ReadBack, NOW.wall);
        world.report(OPERATOR, |report| report.proofs = vec![witness]);
        assert!(matches!(
            permission(&world),
            Err(Unconfirmed::NotWitnessed(_))
        ));
    }
}

#[test]
fn a_key_that_is_two_nodes_is_not_the_witness_of_its_own_copy() {
    let mut world = world();
    world.enrol(OTHER_REPLICATOR, &[keys::Role::Provisioner]);
    let first = key(OTHER_REPLICATOR).public();
    let of_key = |world: &World| -> Vec<NodeId> {
        let members = world.authority.members();
        let members = members.filter(|member| member.key == first);
        members.map(|member| member.id).collect()
    };
    let situation = world.situation(OPERATOR, NOW);
    let mut plan = situation.migration(&JOB).unwrap().clone();
    let second = of_key(&world);
    let second = second.iter().find(|node| !plan.replicators.contains(node));
    plan.provisioner = *second.unwrap();
    let roots = vec![
        proof_of(&world, 2, OTHER_REPLICATOR, End::Target, ROOT),
        proof_of(&world, 2, OTHER_REPLICATOR, End::Witness, ROOT),
    ];
    let source = proof_of(&world, 2, AGENT, End::Source, ROOT);
    world.report(AGENT, |report| report.proofs = vec![source]);
    world.report(OTHER_REPLICATOR, |report| report.proofs = roots);
    let situation = world.situation(OPERATOR, NOW);
    assert!(matches!(
        situation.evidence(&plan).permission(&JOB.volume),
        Err(Unconfirmed::NotWitnessed(_))
    ));
}

#[test]
fn a_witness_that_did_not_read_the_copy_back_confirms_nothing() {
    let mut world = world();
    let mut stated = three(&world);
    let subject = crate::proof::Subject {
        mesh: world.ledger.mesh(),
        job: JOB,
        epoch: Epoch(2),
        length: LENGTH,
        root: ROOT,
    };
    stated[2] = crate::proof::sign(
        &key(OPERATOR),
        &subject,
        End::Witness,
        Method::OnArrival,
        NOW.wall,
    );
    state(&mut world, stated);
    assert!(matches!(
        permission(&world),
        Err(Unconfirmed::NotWitnessed(_))
    ));
}

#[test]
fn a_forged_statement_counts_for_nothing() {
    let mut world = world();
    let mut stated = three(&world);
    stated[2].signature.0[0] ^= 1;
    state(&mut world, stated);
    assert!(matches!(
        permission(&world),
        Err(Unconfirmed::NotWitnessed(_))
    ));
}

#[test]
fn the_replicator_cannot_be_its_own_witness() {
    let mut world = World::with(&[REPLICATOR, OTHER_REPLICATOR], REPLICATOR);
    let roots = vec![
        proof_of(&world, 1, AGENT, End::Source, ROOT),
        proof_of(&world, 1, REPLICATOR, End::Target, ROOT),
        proof_of(&world, 1, REPLICATOR, End::Witness, ROOT),
    ];
    world.agent_is_at(1, REPLICATOR, 1, roots);
    assert!(matches!(
        permission(&world),
        Err(Unconfirmed::NoOtherNode(_))
    ));
}

#[test]
fn a_replicators_root_is_over_once_its_agent_went_on_and_an_agents_never_is() {
    let mut world = world();
    let cases = [
        (1, End::Target, true),
        (2, End::Target, false),
        (3, End::Target, false),
        (1, End::Source, false),
    ];
    for (epoch, end, is_over) in cases {
        let signed = proof_of(&world, epoch, REPLICATOR, end, ROOT);
        let proof: RootProof = signed.open(Domain::RootProof).unwrap();
        let judge = |world: &World| {
            let situation = world.situation(OPERATOR, NOW);
            let plan = situation.migration(&JOB).unwrap();
            situation.evidence(plan).is_over(&proof)
        };
        world.report(AGENT, |_| {});
        assert!(!judge(&world), "its agent said nothing of an epoch");
        world.agent_is_at(2, OTHER_REPLICATOR, 0, vec![]);
        assert_eq!(judge(&world), is_over, "{epoch} {end:?}");
    }
}

#[test]
fn an_epoch_that_its_agent_went_on_from_is_never_launched() {
    let mut world = world();
    let stated = three(&world);
    state(&mut world, stated.clone());
    world.agent_is_at(3, REPLICATOR, 0, stated.to_vec());
    let over = Unconfirmed::EpochOver {
        stated: Epoch(2),
        current: Epoch(3),
    };
    assert_eq!(permission(&world), Err(over));
}

#[test]
fn who_was_left_out_of_the_pool_has_still_written_what_its_agent_says_it_wrote() {
    let mut world = world();
    let stated = three(&world);
    state(&mut world, stated);
    let situation = world.situation(OPERATOR, NOW);
    let mut plan = situation.migration(&JOB).unwrap().clone();
    let left = world.id(OTHER_REPLICATOR);
    plan.replicators.retain(|node| *node != left);
    let evidence = situation.evidence(&plan);
    let confirmed = evidence.permission(&JOB.volume).unwrap();
    assert_eq!(confirmed.replicator(), left);
    assert!(evidence.is_end(&JOB.volume, key(OTHER_REPLICATOR).public()));
    assert!(!evidence.is_end(&JOB.volume, key(77).public()));
}

#[test]
fn a_root_of_a_checkpoint_is_none_of_the_copy() {
    let mut world = world();
    let subject = crate::proof::Subject {
        mesh: world.ledger.mesh(),
        job: JOB,
        epoch: Epoch(2),
        length: LENGTH,
        root: ROOT,
    };
    let name = keys::CheckpointName::new("before").ok();
    let source = (End::Source, keys::LeftOut::default());
    let method = Method::ReadInFull;
    let named = crate::proof::sign_for(&key(AGENT), &subject, source, method, NOW.wall, name);
    let [_, target, witness] = three(&world);
    state(&mut world, [named, target, witness]);
    assert_eq!(permission(&world), Err(Unconfirmed::NotCutOver));
}

#[test]
fn what_the_source_left_out_is_in_the_permission_and_a_copy_cannot_say_such_a_thing() {
    let mut world = world();
    let left_out = keys::LeftOut::new(vec![(65_536, 65_536)]).unwrap();
    let mesh = world.ledger.mesh();
    let signed = |seed, end, length| {
        let subject = crate::proof::Subject {
            mesh,
            job: JOB,
            epoch: Epoch(2),
            length,
            root: ROOT,
        };
        let (end, method) = ((end, left_out.clone()), Method::ReadInFull);
        crate::proof::sign_leaving_out(&key(seed), &subject, end, method, NOW.wall)
    };
    let [_, target, witness] = three(&world);
    let source = signed(AGENT, End::Source, LENGTH);
    let stated = [source.clone(), target, witness.clone()];
    state(&mut world, stated);
    assert_eq!(permission(&world).unwrap().bytes_left_out(), 65_536);
    let of_target = signed(OTHER_REPLICATOR, End::Target, LENGTH);
    state(&mut world, [source, of_target.clone(), witness.clone()]);
    assert_eq!(permission(&world), Err(Unconfirmed::NoTarget));
    // Nor that it left out what it does not have.
    let beyond = signed(AGENT, End::Source, 65_536);
    state(&mut world, [beyond, of_target, witness]);
    assert_eq!(permission(&world), Err(Unconfirmed::NotCutOver));
}
