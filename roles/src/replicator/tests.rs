//! Which streams a replicator admits, and with which code it refuses the others.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::Now;
use crate::world::{
    AGENT, JOB, LENGTH, NOW, OPERATOR, OTHER_REPLICATOR, REPLICATOR, SPAN, World, key, proof,
};
use crdt::Level;
use keys::proof::End;
use keys::{Identity, MigrationId, Name, Role, Statement, StatementId, UnixSecs, VolumeId};

fn ready() -> (World, StatementId) {
    let mut world = World::new();
    let grant = world.grant(9_000);
    world.want(Desired::Started);
    world.target_reported(1, LENGTH, TargetState::Ready);
    (world, grant)
}

fn ticket(world: &World, grant: StatementId, epoch: u64) -> Ticket {
    Ticket {
        job: JOB,
        epoch: Epoch(epoch),
        grant: world.ledger.get(&grant).unwrap().signed.clone(),
        support: vec![],
    }
}

fn admit(
    world: &World,
    replicator: &Replicator,
    from: &Identity,
    ticket: &Ticket,
) -> Result<Admitted, Refusal> {
    let situation = world.situation(REPLICATOR, NOW);
    replicator.admit(&situation, from.public(), ticket, LENGTH)
}

fn code(world: &World, ticket: &Ticket) -> RefusalCode {
    let refusal = admit(world, &Replicator::default(), &key(AGENT), ticket).unwrap_err();
    refusal.code
}

#[test]
fn a_granted_stream_is_admitted_as_new_and_then_as_known() {
    let (world, grant) = ready();
    let mut replicator = Replicator::default();
    let ticket = ticket(&world, grant, 1);
    let admitted = admit(&world, &replicator, &key(AGENT), &ticket).unwrap();
    assert!(admitted.fresh);
    assert_eq!(admitted.record.path, "/volumes/1");
    assert!(replicator.record(&JOB).is_none(), "not before it is stored");
    let record = Record {
        barrier: 4,
        ..admitted.record
    };
    replicator.stored(record.clone());
    let admitted = admit(&world, &replicator, &key(AGENT), &ticket).unwrap();
    assert!(!admitted.fresh);
    assert_eq!(admitted.record, record);
    let restarted = Replicator::new([record.clone()]);
    assert_eq!(restarted.record(&JOB), Some(&record));
}

#[test]
fn who_is_not_granted_gets_the_code_that_says_why_and_people_are_told() {
    let (world, grant) = ready();
    let ticket = ticket(&world, grant, 1);
    let strangers = [
        (key(77), "is not enrolled"),
        (key(OTHER_REPLICATOR), "is not enrolled as agent"),
    ];
    for (from, why) in strangers {
        let refusal = admit(&world, &Replicator::default(), &from, &ticket).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::NotAuthorised);
        assert_eq!(refusal.note.kind, "grant-refused");
        assert!(refusal.note.text.contains(why), "{}", refusal.note.text);
    }
    // For another member of the pool it is no grant.
    let situation = world.situation(OTHER_REPLICATOR, NOW);
    let refused = Replicator::default().admit(&situation, key(AGENT).public(), &ticket, LENGTH);
    assert_eq!(refused.unwrap_err().code, RefusalCode::NotAuthorised);
}

#[test]
fn a_revoked_grant_and_revoked_nodes_are_refused_as_revoked() {
    for target in 0..3 {
        let (mut world, grant) = ready();
        let ticket = ticket(&world, grant, 1);
        match target {
            0 => world.revoke(OPERATOR, grant),
            1 => {
                let agent = world.id(AGENT);
                world.revoke(1, agent.into());
            }
            _ => {
                let me = world.id(REPLICATOR);
                world.revoke(1, me.into());
            }
        }
        let expected = if target == 2 {
            // It asks as the node it was.
            let situation = Situation {
                me: world
                    .authority
                    .by_key(&key(REPLICATOR).public())
                    .unwrap()
                    .id,
                ..world.situation(AGENT, NOW)
            };
            let situation = Situation {
                my_key: key(REPLICATOR).public(),
                ..situation
            };
            let refused =
                Replicator::default().admit(&situation, key(AGENT).public(), &ticket, LENGTH);
            refused.unwrap_err().code
        } else {
            code(&world, &ticket)
        };
        assert_eq!(expected, RefusalCode::Revoked);
    }
}

#[test]
fn an_expired_grant_is_refused_as_expired_at_its_second() {
    let (world, grant) = ready();
    let ticket = ticket(&world, grant, 1);
    for (wall, admitted) in [(8_999, true), (9_000, false)] {
        let now = Now {
            wall: UnixSecs(wall),
            ..NOW
        };
        let situation = world.situation(REPLICATOR, now);
        let decided = Replicator::default().admit(&situation, key(AGENT).public(), &ticket, LENGTH);
        match decided {
            Ok(_) => assert!(admitted),
            Err(refusal) => assert!(!admitted && refusal.code == RefusalCode::Expired),
        }
    }
}

#[test]
fn a_grant_for_another_volume_and_a_foreign_or_tampered_one_move_nothing() {
    let (mut world, grant) = ready();
    let mut other = ticket(&world, grant, 1);
    other.job.volume = VolumeId([1; 16]);
    assert_eq!(code(&world, &other), RefusalCode::WrongVolume);
    let mut tampered = ticket(&world, grant, 1);
    tampered.grant.body[9] ^= 1;
    assert_eq!(code(&world, &tampered), RefusalCode::NotAuthorised);
    // Taking the tampered one into the ledger, as the shell does, changes nothing.
    world.ledger.insert(tampered.grant.clone()).unwrap_err();
    assert_eq!(code(&world, &tampered), RefusalCode::NotAuthorised);
    let mut foreign = World::new();
    let theirs = foreign.grant(8_000);
    assert_eq!(
        code(&world, &ticket(&foreign, theirs, 1)),
        RefusalCode::NotAuthorised
    );
}

#[test]
fn the_plan_decides_when() {
    let (mut world, grant) = ready();
    let ticket = ticket(&world, grant, 1);
    for (desired, expected) in [
        (Desired::Created, Some(RefusalCode::NotReady)),
        (Desired::Paused, Some(RefusalCode::Paused)),
        (Desired::cutover(true), None),
        (Desired::Deleted, Some(RefusalCode::NotAuthorised)),
    ] {
        world.want(desired);
        let decided = admit(&world, &Replicator::default(), &key(AGENT), &ticket);
        assert_eq!(
            decided.err().map(|refusal| refusal.code),
            expected,
            "{desired}"
        );
    }
}

#[test]
fn a_volume_that_is_not_attached_or_too_small_is_not_written() {
    let (mut world, grant) = ready();
    let ticket = ticket(&world, grant, 1);
    world.target_reported(2, LENGTH, TargetState::Ready);
    assert_eq!(code(&world, &ticket), RefusalCode::NotReady);
    world.target_reported(1, LENGTH, TargetState::Failed("no".into()));
    assert_eq!(code(&world, &ticket), RefusalCode::NotReady);
    world.target_of(1, OTHER_REPLICATOR, LENGTH, TargetState::Ready);
    assert_eq!(code(&world, &ticket), RefusalCode::NotReady);
    world.target_reported(1, LENGTH, TargetState::Ready);
    let mut of_another = world.reports.get(&world.id(OPERATOR)).unwrap().targets[0].clone();
    of_another.volume = VolumeId([7; 16]);
    world.report(OPERATOR, |report| report.targets = vec![of_another]);
    assert_eq!(code(&world, &ticket), RefusalCode::NotReady);
    world.target_reported(1, LENGTH - 1, TargetState::Ready);
    assert_eq!(code(&world, &ticket), RefusalCode::SizeMismatch);
    world.target_reported(1, LENGTH + 1, TargetState::Ready);
    assert!(admit(&world, &Replicator::default(), &key(AGENT), &ticket).is_ok());
}

#[test]
fn an_epoch_that_is_over_stays_over_and_a_new_one_begins_afresh() {
    let (mut world, grant) = ready();
    let mut replicator = Replicator::default();
    world.target_reported(2, LENGTH, TargetState::Ready);
    let second = admit(&world, &replicator, &key(AGENT), &ticket(&world, grant, 2)).unwrap();
    replicator.stored(Record {
        barrier: 9,
        ..second.record
    });
    world.target_reported(1, LENGTH, TargetState::Ready);
    let refused = admit(&world, &replicator, &key(AGENT), &ticket(&world, grant, 1)).unwrap_err();
    assert_eq!(refused.code, RefusalCode::StaleEpoch);
    world.target_reported(3, LENGTH, TargetState::Ready);
    let third = admit(&world, &replicator, &key(AGENT), &ticket(&world, grant, 3)).unwrap();
    assert!(third.fresh);
    assert_eq!((third.record.epoch, third.record.barrier), (Epoch(3), 0));
}

#[test]
fn what_is_known_of_a_copy_at_another_place_or_of_another_length_counts_for_nothing() {
    let (world, grant) = ready();
    let ticket = ticket(&world, grant, 1);
    let known = admit(&world, &Replicator::default(), &key(AGENT), &ticket).unwrap();
    let known = Record {
        barrier: 4,
        ..known.record
    };
    let elsewhere = Record {
        path: "/volumes/2".into(),
        ..known.clone()
    };
    let shorter = Record {
        length: LENGTH - 1,
        ..known.clone()
    };
    for (record, is_fresh) in [(known, false), (elsewhere, true), (shorter, true)] {
        let replicator = Replicator::new([record]);
        let admitted = admit(&world, &replicator, &key(AGENT), &ticket).unwrap();
        assert_eq!(admitted.fresh, is_fresh);
        assert_eq!(admitted.record.barrier == 0, is_fresh);
    }
}

#[test]
fn a_copy_whose_source_root_was_stated_takes_nothing_more() {
    let (mut world, grant) = ready();
    let ticket = ticket(&world, grant, 1);
    let stated = proof(&world, REPLICATOR, End::Target, [5; 32]);
    world.report(REPLICATOR, |report| report.proofs = vec![stated]);
    // The replicator's word alone does not end it: the agent may have to ask again.
    assert!(admit(&world, &Replicator::default(), &key(AGENT), &ticket).is_ok());
    let stated = proof(&world, AGENT, End::Source, [5; 32]);
    world.report(AGENT, |report| report.proofs = vec![stated]);
    let refused = admit(&world, &Replicator::default(), &key(AGENT), &ticket).unwrap_err();
    assert_eq!(refused.code, RefusalCode::NotAuthorised);
}

#[test]
fn a_volume_that_is_the_copy_of_another_job_is_not_written() {
    let (world, grant) = ready();
    let ticket = ticket(&world, grant, 1);
    let mut replicator = Replicator::default();
    let admitted = admit(&world, &replicator, &key(AGENT), &ticket).unwrap();
    let mut other = admitted.record;
    other.job.migration.0[0] ^= 1;
    replicator.stored(other);
    let refused = admit(&world, &replicator, &key(AGENT), &ticket).unwrap_err();
    assert_eq!(refused.code, RefusalCode::NotReady);
}

#[test]
fn copies_of_deleted_migrations_are_forgotten_and_no_others() {
    let (mut world, grant) = ready();
    let mut replicator = Replicator::default();
    let admitted = admit(&world, &replicator, &key(AGENT), &ticket(&world, grant, 1)).unwrap();
    replicator.stored(admitted.record);
    world.agent_reports(1, vec![]);
    assert!(
        replicator
            .forget_over(&world.situation(REPLICATOR, NOW))
            .is_empty()
    );
    world.want(Desired::Deleted);
    let gone = replicator.forget_over(&world.situation(REPLICATOR, NOW));
    assert_eq!(gone, [JOB]);
    assert_eq!(replicator.records().count(), 0);
}

/// A mesh with three more migrations, of which this replicator has a copy each.
fn with_copies() -> (World, Replicator) {
    let mut world = World::new();
    let planned = world.situation(AGENT, NOW).migration(&JOB).unwrap().clone();
    let jobs = [1, 2, 3].map(|migration| JobId {
        migration: MigrationId([migration; 16]),
        volume: JOB.volume,
    });
    for job in jobs {
        let plan = crdt::MigrationPlan {
            id: job.migration,
            name: job.to_string(),
            ..planned.clone()
        };
        world.edit(|edit| edit.create_migration(&plan));
    }
    let records = jobs.map(|job| Record {
        job,
        epoch: Epoch(1),
        path: "/volumes/1".into(),
        length: LENGTH,
        barrier: 1,
        root: None,
    });
    (world, Replicator::new(records))
}

/// A grant of a migration to a group, for an agent and to a replicator.
fn group_grant(
    world: &mut World,
    (migration, group): (u8, Option<&str>),
    (agent, to): (u8, u8),
) -> StatementId {
    let grant = keys::Grant {
        migration: MigrationId([migration; 16]),
        agent: world.id(agent),
        replicators: vec![world.id(to)],
        volumes: vec![JOB.volume],
        not_after: UnixSecs(9_000),
        lease_secs: SPAN.lease_secs,
        autonomy_secs: SPAN.autonomy_secs,
        dedup_group: group.map(|group| Name::new(group).unwrap()),
    };
    world.state(OPERATOR, Statement::Grant(grant))
}

const HERE: (u8, u8) = (AGENT, REPLICATOR);

/// The copies of each domain, by their migrations' numbers.
fn sharing(world: &World, replicator: &Replicator) -> Vec<Vec<u8>> {
    let mut sharing: BTreeMap<DedupDomain, Vec<u8>> = BTreeMap::new();
    for (job, domain) in replicator.dedup_domains(&world.situation(REPLICATOR, NOW)) {
        sharing.entry(domain).or_default().push(job.migration.0[0]);
    }
    let mut sharing: Vec<_> = sharing.into_values().collect();
    sharing.sort();
    sharing
}

#[test]
fn copies_share_where_good_grants_to_this_replicator_name_one_group() {
    let (mut world, replicator) = with_copies();
    group_grant(&mut world, (1, Some("web")), HERE);
    let second = group_grant(&mut world, (2, Some("web")), HERE);
    group_grant(&mut world, (3, None), HERE);
    // Of what is not here nothing is said.
    group_grant(&mut world, (9, Some("web")), HERE);
    assert_eq!(sharing(&world, &replicator), [vec![1, 2], vec![3]]);
    world.revoke(OPERATOR, second);
    assert_eq!(sharing(&world, &replicator), [vec![1], vec![3]]);
    let later = Now {
        wall: UnixSecs(9_000),
        ..NOW
    };
    let over = replicator.dedup_domains(&world.situation(REPLICATOR, later));
    assert!(over.is_empty(), "{over:?}");
}

#[test]
fn a_copy_whose_grants_do_not_agree_or_are_for_another_replicator_shares_with_nobody() {
    let (mut world, replicator) = with_copies();
    for group in [Some("web"), None, Some("web")] {
        group_grant(&mut world, (1, group), HERE);
    }
    group_grant(&mut world, (2, Some("web")), (AGENT, OTHER_REPLICATOR));
    group_grant(&mut world, (3, Some("web")), HERE);
    assert_eq!(sharing(&world, &replicator), [[3]]);
}

#[test]
fn a_session_is_made_of_what_shares_with_its_job_as_long_as_that_is_in_its_domain() {
    let (mut world, replicator) = with_copies();
    let first = group_grant(&mut world, (1, Some("web")), HERE);
    group_grant(&mut world, (2, Some("web")), HERE);
    let domain = world.authority.grant(&first).unwrap().dedup_domain;
    let job = JobId {
        migration: MigrationId([1; 16]),
        volume: JOB.volume,
    };
    let shared = |world: &World| {
        let domains = replicator.dedup_domains(&world.situation(REPLICATOR, NOW));
        let shared = replicator.shared(&domains, &job, domain);
        let numbers = shared.iter().map(|record| record.job.migration.0[0]);
        numbers.collect::<Vec<u8>>()
    };
    assert_eq!(shared(&world), [1, 2]);
    // Another grant says that it is in no group: the session's own does not count alone.
    group_grant(&mut world, (1, None), HERE);
    assert!(shared(&world).is_empty());
    world.revoke(OPERATOR, first);
    assert!(shared(&world).is_empty());
}

#[test]
fn a_grant_for_an_agent_from_which_the_plan_does_not_move_opens_nothing() {
    let (mut world, grant) = ready();
    const OTHER_AGENT: u8 = 9;
    world.enrol(OTHER_AGENT, &[Role::Agent]);
    let foreign = group_grant(
        &mut world,
        (JOB.migration.0[0], Some("web")),
        (OTHER_AGENT, REPLICATOR),
    );
    world.vouch(NOW);
    let replicator = Replicator::default();
    let own = admit(&world, &replicator, &key(AGENT), &ticket(&world, grant, 1)).unwrap();
    let replicator = Replicator::new([own.record]);
    let ticket = ticket(&world, foreign, 1);
    let refused = admit(&world, &replicator, &key(OTHER_AGENT), &ticket).unwrap_err();
    assert_eq!(refused.code, RefusalCode::NotAuthorised);
    assert!(refused.note.text.contains("not the source"), "{refused:?}");
    // Nor does it say anything of whose content the copy shares.
    let domains = replicator.dedup_domains(&world.situation(REPLICATOR, NOW));
    let domain = world.authority.grant(&grant).unwrap().dedup_domain;
    assert_eq!(domains, [(JOB, domain)].into());
}

#[test]
fn the_content_of_a_migration_that_is_over_is_as_good_as_before() {
    let (mut world, grant) = ready();
    let mut replicator = Replicator::default();
    let admitted = admit(&world, &replicator, &key(AGENT), &ticket(&world, grant, 1)).unwrap();
    replicator.stored(admitted.record);
    let stated = proof(&world, AGENT, End::Source, [5; 32]);
    world.report(AGENT, |report| report.proofs = vec![stated]);
    let domains = replicator.dedup_domains(&world.situation(REPLICATOR, NOW));
    assert!(domains.contains_key(&JOB));
}

/// A mesh whose agent has gone on to the other replicator, under epoch 2.
fn moved_on() -> (World, StatementId) {
    let mut world = World::with(&[REPLICATOR, OTHER_REPLICATOR], OPERATOR);
    let grant = world.grant(9_000);
    world.want(Desired::Started);
    world.agent_is_at(2, OTHER_REPLICATOR, 0, vec![]);
    // What the provisioner said before it heard of it.
    world.target_reported(1, LENGTH, TargetState::Ready);
    (world, grant)
}

#[test]
fn a_replicator_that_comes_back_is_refused_on_the_agents_word_and_forgets_its_copy() {
    let (world, grant) = moved_on();
    let stale = ticket(&world, grant, 1);
    assert_eq!(code(&world, &stale), RefusalCode::StaleEpoch);
    // Without a record the agent's report is all that it has to go by; with one too.
    let mut replicator = Replicator::default();
    replicator.stored(Record {
        job: JOB,
        epoch: Epoch(1),
        path: "/volumes/1".into(),
        length: LENGTH,
        barrier: 3,
        root: Some([1; 32]),
    });
    let refused = admit(&world, &replicator, &key(AGENT), &stale).unwrap_err();
    assert_eq!(refused.code, RefusalCode::StaleEpoch);
    let gone = replicator.forget_over(&world.situation(REPLICATOR, NOW));
    assert_eq!(gone, [JOB]);
    assert!(replicator.record(&JOB).is_none());
}

#[test]
fn an_epoch_that_was_given_to_another_is_not_served() {
    let (mut world, grant) = moved_on();
    world.target_reported(2, LENGTH, TargetState::Ready);
    assert_eq!(
        code(&world, &ticket(&world, grant, 2)),
        RefusalCode::StaleEpoch
    );
    // Its own turn comes with an epoch of its own, of which it may hear from the agent
    // itself before the mesh tells.
    world.target_reported(3, LENGTH, TargetState::Ready);
    let admitted = admit(
        &world,
        &Replicator::default(),
        &key(AGENT),
        &ticket(&world, grant, 3),
    );
    assert!(admitted.unwrap().fresh);
}

#[test]
fn a_replicator_that_no_operator_has_spoken_to_for_too_long_takes_no_stream() {
    let (mut world, grant) = ready();
    let ticket = ticket(&world, grant, 1);
    let over = Now {
        mono_millis: NOW.mono_millis + (SPAN.lease_secs + SPAN.autonomy_secs) * 1000,
        ..NOW
    };
    let from = key(AGENT).public();
    let refused = |world: &World, now: Now| {
        let situation = world.situation(REPLICATOR, now);
        let admitted = Replicator::default().admit(&situation, from, &ticket, LENGTH);
        admitted
            .err()
            .map(|refusal| (refusal.code, refusal.note.level))
    };
    let no_lease = RefusalCode::NoLease;
    assert_eq!(refused(&world, NOW), None);
    assert_eq!(refused(&world, over), Some((no_lease, Level::Error)));
    world.leases = keys::Leases::new();
    assert_eq!(refused(&world, NOW), Some((no_lease, Level::Info)));
}
