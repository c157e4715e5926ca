//! Replicas that come to hold the same, whatever was lost on the way, and hold to
//! account whom they may.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::sync::{GROUPS, HeldReport, MAX_LISTED, Summary};
use crate::world::{NOW, enrol, found, invite, join, key, restored, talk};
use crdt::{Desired, EditError, MigrationPlan, Report};
use keys::ledger::BUCKETS;
use keys::statement::Grant;
use keys::{MigrationId, Revocation, Statement, VolumeId};

mod rotation;

pub(super) fn plan_of(op: &Replica, id: u8) -> MigrationPlan {
    let me = op.me().unwrap();
    MigrationPlan {
        id: MigrationId([id; 16]),
        name: "web".into(),
        source: me,
        volumes: vec![VolumeId([1; 16])],
        provider: "fake".into(),
        provisioner: me,
        replicators: vec![me],
        site: None,
        desired: Desired::Created,
        grants: vec![],
        hooks: vec![],
        leave_out: None,
        checkpoints: crdt::Checkpoints::default(),
        created_at: UnixSecs(0),
        created_by: op.my_key(),
        conflicts: vec![],
    }
}

fn create(op: &mut Replica, id: u8, out: &mut Vec<Output>) {
    let plan = plan_of(op, id);
    op.edit(NOW, |edit| edit.create_migration(&plan), out)
        .unwrap();
}

fn grant(op: &mut Replica, id: u8, out: &mut Vec<Output>) -> keys::StatementId {
    let me = op.me().unwrap();
    let grant = Statement::Grant(Grant {
        migration: MigrationId([id; 16]),
        agent: me,
        replicators: vec![me],
        volumes: vec![VolumeId([1; 16])],
        not_after: UnixSecs(9_000 + u64::from(id)),
        lease_secs: 3_600,
        autonomy_secs: 0,
        dedup_group: None,
    });
    op.state(NOW, grant, out).unwrap()
}

fn revoke(op: &mut Replica, target: keys::StatementId, out: &mut Vec<Output>) {
    let revocation = Statement::Revocation(Revocation {
        target,
        honours: None,
        reason: String::new(),
    });
    op.state(NOW, revocation, out).unwrap();
}

fn publish(replica: &mut Replica, hostname: &str) -> Vec<Output> {
    let mut report = Report::new(NodeId([0; 32]), 0, UnixSecs(0));
    report.hostname = hostname.into();
    let mut out = vec![];
    replica.publish(NOW, report, &mut out).unwrap();
    out
}

fn step(replica: &mut Replica, input: Input) -> Vec<Output> {
    let mut out = vec![];
    replica.step(NOW, 0, input, &mut out);
    out
}

fn announcement(out: &[Output]) -> Announcement {
    let found = out.iter().find_map(|output| match output {
        Output::Announce(announcement) => Some(announcement.clone()),
        _ => None,
    });
    found.unwrap()
}

fn blamed(out: &[Output]) -> Vec<PublicKey> {
    let peers = out.iter().filter_map(|output| match output {
        Output::Blame { peer, .. } => Some(*peer),
        _ => None,
    });
    peers.collect()
}

#[test]
fn two_nodes_come_to_hold_the_same_in_both_directions() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    grant(&mut op, 1, &mut vec![]);
    create(&mut op, 1, &mut vec![]);
    publish(&mut op, "op");
    publish(&mut node, "node");
    assert_ne!(op.heads(), node.heads());
    talk(&mut op, &mut node, 100);
    assert_eq!(op.heads(), node.heads());
    assert_eq!(op.authority(), node.authority());
    assert_eq!(op.document().plan(), node.document().plan());
    assert_eq!(node.document().plan().migrations.len(), 1);
    assert_eq!(op.reports().iter().count(), 2);
}

#[test]
fn a_ledger_of_many_pages_goes_over_page_by_page_and_no_page_is_too_large() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    for id in 0..=255 {
        let me = op.me().unwrap();
        for volume in 0..24 {
            // A full list of volumes, so that a few thousand make several pages.
            let volumes =
                (0..64).map(|at| VolumeId([at, volume, id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
            let grant = Statement::Grant(Grant {
                migration: MigrationId([id; 16]),
                agent: me,
                replicators: vec![me; 16],
                volumes: volumes.collect(),
                not_after: UnixSecs(9_000),
                lease_secs: 3_600,
                autonomy_secs: 0,
                dedup_group: None,
            });
            if volume % 8 == 0 {
                op.state(NOW, grant, &mut vec![]).unwrap();
            }
        }
    }
    let nothing = (0..=255).map(|bucket| (bucket, vec![])).collect();
    let request = Request {
        ledger: Some(Summary::Held(nothing)),
        ..Request::default()
    };
    let asker = node.my_key();
    let page = op.page(&asker, &request);
    assert!(page.more);
    assert!(codec::encode(&page).unwrap().len() < crate::sync::MAX_PAGE);
    let (_, pages) = talk(&mut op, &mut node, 1_000);
    assert_eq!(op.heads(), node.heads());
    assert!(pages >= 4, "{pages} pages");
}

#[test]
fn two_nodes_that_agree_ask_for_heads_alone_and_then_rest() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let (stored, pages) = talk(&mut op, &mut node, 100);
    assert!(stored.iter().all(Vec::is_empty));
    assert_eq!(pages, 2);
    let next = op.deadline_millis().unwrap();
    assert!((ASK_MILLIS * 3 / 4..ASK_MILLIS * 5 / 4).contains(&next));
}

#[test]
fn what_is_made_is_stored_before_it_is_announced() {
    let (mut op, _) = found(1);
    let mut made: Vec<Vec<Output>> = vec![vec![], vec![]];
    grant(&mut op, 1, &mut made[0]);
    create(&mut op, 1, &mut made[1]);
    made.push(publish(&mut op, "op"));
    for out in made {
        assert!(matches!(&out[0], Output::Store(records) if records.len() == 1));
        assert!(matches!(&out[1], Output::Announce(_)));
        assert!(matches!(&out[2], Output::Changed(_)));
    }
}

#[test]
fn an_announcement_brings_its_news_at_once_and_only_once() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let via = op.my_key();
    let mut out = vec![];
    grant(&mut op, 1, &mut out);
    let announcement = announcement(&out);
    let news = Input::Announced {
        via,
        announcement: announcement.clone(),
    };
    let out = step(&mut node, news);
    assert!(matches!(&out[0], Output::Store(records) if records.len() == 1));
    assert_eq!(node.heads(), op.heads());
    let again = Input::Announced { via, announcement };
    assert!(step(&mut node, again).is_empty());
}

#[test]
fn statements_wait_for_what_they_need_and_come_in_together() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let token = invite(&mut op, 70, 1, 5_000, &mut vec![]);
    enrol(&mut op, &key(11), token.clone());
    let enrolment = op.authority().by_key(&key(11).public()).unwrap().id.into();
    let signed = |id| op.ledger().get(&id).unwrap().signed.clone();
    let from = op.my_key();
    let shown = |id| Input::Shown {
        from,
        statements: vec![signed(id)],
    };
    let out = step(&mut node, shown(enrolment));
    assert!(out.is_empty(), "neither stored nor blamed: {out:?}");
    assert!(node.authority().by_key(&key(11).public()).is_none());
    let out = step(&mut node, shown(token.invite));
    assert!(matches!(&out[0], Output::Store(records) if records.len() == 2));
    assert!(node.authority().admits(NOW, &key(11).public()));
}

#[test]
fn who_showed_a_bad_statement_is_blamed_and_not_who_brought_what_it_waited_for() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let token = invite(&mut op, 70, 1, 5_000, &mut vec![]);
    enrol(&mut op, &key(11), token.clone());
    let enrolment: keys::StatementId = op.authority().by_key(&key(11).public()).unwrap().id.into();
    let signed = |id| op.ledger().get(&id).unwrap().signed.clone();
    // Whole, but for a signature that nobody made: that shows only once the invite is here.
    let entry: keys::statement::Entry = signed(enrolment).open_stored().unwrap();
    let keys::Statement::Enrolment(mut stated) = entry.statement.clone() else {
        panic!("an enrolment");
    };
    stated.name = crate::world::name("renamed");
    let entry = keys::statement::Entry {
        statement: Statement::Enrolment(stated),
        ..entry
    };
    let forged = Signed::seal(&key(1), keys::Domain::Statement, &entry).unwrap();
    let (forger, honest) = (key(20).public(), op.my_key());
    let out = step(
        &mut node,
        Input::Shown {
            from: forger,
            statements: vec![forged],
        },
    );
    assert!(blamed(&out).is_empty());
    let out = step(
        &mut node,
        Input::Shown {
            from: honest,
            statements: vec![signed(token.invite)],
        },
    );
    assert_eq!(blamed(&out), [forger]);
}

#[test]
fn what_waits_is_bounded() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let (mut other, _) = found(2);
    let from = op.my_key();
    talk(&mut op, &mut node, 100);
    let mut show = |from, parked| {
        let statements = (0..700)
            .map(|_| {
                let id = grant(&mut other, 1, &mut vec![]);
                other.ledger().get(&id).unwrap().signed.clone()
            })
            .collect();
        let out = step(&mut node, Input::Shown { from, statements });
        assert!(out.is_empty());
        assert_eq!(node.parked.len(), parked);
    };
    show(from, MAX_PARKED_OF_PEER);
    show(from, MAX_PARKED_OF_PEER);
    show(key(30).public(), 2 * MAX_PARKED_OF_PEER);
    show(key(31).public(), MAX_PARKED);
}

#[test]
fn what_waits_is_kept_once_however_often_it_is_shown() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let (mut other, _) = found(2);
    let foreign = grant(&mut other, 1, &mut vec![]);
    for from in [30, 31, 30] {
        let from = key(from).public();
        let statements = vec![other.ledger().get(&foreign).unwrap().signed.clone()];
        step(&mut node, Input::Shown { from, statements });
    }
    assert_eq!(node.parked.len(), 1);
}

#[test]
fn what_waits_is_not_verified_again_until_the_ledger_grew() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let (mut other, _) = found(2);
    let from = key(30).public();
    let mut made = vec![];
    let foreign = grant(&mut other, 1, &mut made);
    let statements = vec![other.ledger().get(&foreign).unwrap().signed.clone()];
    step(&mut node, Input::Shown { from, statements });
    // Damaged while it waits, it would be blamed if it were looked at.
    node.parked[0].1.signature.0[3] ^= 1;
    let nothing = || Input::Shown {
        from,
        statements: vec![],
    };
    assert!(blamed(&step(&mut node, nothing())).is_empty());
    let mut out = vec![];
    grant(&mut op, 1, &mut out);
    let via = op.my_key();
    let announcement = announcement(&out);
    let out = step(&mut node, Input::Announced { via, announcement });
    assert_eq!(blamed(&out), [from]);
    assert!(node.parked.is_empty());
}

#[test]
fn an_operator_that_signs_what_breaks_the_rules_raises_an_alarm_and_blames_nobody_else() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let via = key(30).public();
    let raw = vec![7; 100];
    let mut message = op.ledger().mesh().0.to_vec();
    message.extend(blake3::hash(&raw).as_bytes());
    let signature = key(1).sign(keys::Domain::Change, &message);
    let change = SignedChange {
        raw,
        author: op.my_key(),
        signature,
    };
    let announcement = Announcement {
        heads: op.heads(),
        statements: vec![],
        changes: vec![change.clone(), change],
        reports: vec![],
        evidence: vec![],
    };
    let out = step(&mut node, Input::Announced { via, announcement });
    assert!(blamed(&out).is_empty());
    let alarms: Vec<_> = out
        .iter()
        .filter_map(|output| match output {
            Output::Raise(Alarm::BrokenChange(refusal)) => Some(refusal.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert!(alarms[0].contains("magic bytes"), "{alarms:?}");
}

#[test]
fn a_peer_with_a_newer_program_is_not_blamed_for_what_is_not_understood() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let from = op.my_key();
    let mut newer = announcement(&publish(&mut op, "op")).reports.remove(0);
    newer.body[0] += 1;
    newer.signature = key(1).sign(keys::Domain::Report, &newer.body);
    let mut out = vec![];
    grant(&mut op, 1, &mut out);
    let mut statement = announcement(&out).statements.remove(0);
    statement.body[0] += 1;
    statement.signature = key(1).sign(keys::Domain::Statement, &statement.body);
    let announcement = Announcement {
        heads: op.heads(),
        statements: vec![statement],
        changes: vec![],
        reports: vec![newer],
        evidence: vec![],
    };
    let via = from;
    let out = step(&mut node, Input::Announced { via, announcement });
    assert!(blamed(&out).is_empty(), "{out:?}");
}

#[test]
fn forged_statements_changes_and_reports_are_kept_out_and_blamed() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let before = node.heads();
    let mut out = vec![];
    grant(&mut op, 1, &mut out);
    let mut forged = announcement(&out);
    forged.statements[0].signature.0[3] ^= 1;
    let mut made = vec![];
    create(&mut op, 1, &mut made);
    forged.changes = announcement(&made).changes;
    forged.changes[0].signature.0[3] ^= 1;
    forged.reports = announcement(&publish(&mut op, "op")).reports;
    forged.reports[0].body[40] ^= 1;
    let via = key(30).public();
    let heads = forged.heads;
    let one_kind = [
        Announcement {
            heads,
            statements: forged.statements.clone(),
            ..Announcement::default()
        },
        Announcement {
            heads,
            changes: forged.changes.clone(),
            ..Announcement::default()
        },
        Announcement {
            heads,
            reports: forged.reports.clone(),
            ..Announcement::default()
        },
    ];
    for announcement in one_kind.into_iter().chain([forged]) {
        let out = step(&mut node, Input::Announced { via, announcement });
        assert_eq!(blamed(&out), [via], "one message is one fault");
        assert_eq!(out.len(), 1, "nothing stored, nothing changed");
        assert_eq!(node.heads(), before);
    }
}

#[test]
fn a_request_with_lists_beyond_their_limits_is_blamed_and_not_answered() {
    let (mut op, _) = found(1);
    let from = key(30).public();
    let nowhere = keys::statement::Position {
        seq: 1,
        hash: [0; 32],
    };
    let report = HeldReport::new(&NodeId([1; 32]), 1, &[0; 32]);
    for request in [
        Request {
            ledger: Some(Summary::Groups(vec![[0; 8]; GROUPS - 1])),
            ..Request::default()
        },
        Request {
            ledger: Some(Summary::Held(vec![(0, vec![[0; 8]; MAX_LISTED + 1])])),
            ..Request::default()
        },
        Request {
            ledger: Some(Summary::Held(vec![(0, vec![]); BUCKETS + 1])),
            ..Request::default()
        },
        Request {
            logs: Some(vec![(from, nowhere); MAX_LISTED + 1]),
            ..Request::default()
        },
        Request {
            reports: Some(Summary::Held(vec![(1, vec![report; MAX_LISTED + 1])])),
            ..Request::default()
        },
        Request {
            forks: Some(vec![crdt::Forked::Reports(NodeId([1; 32])); MAX_LISTED + 1]),
            ..Request::default()
        },
    ] {
        let out = step(
            &mut op,
            Input::Asked {
                from,
                request,
                reply: 1,
            },
        );
        assert_eq!(blamed(&out), [from]);
        assert_eq!(out.len(), 1);
    }
}

#[test]
fn a_node_that_comes_back_from_its_store_is_what_it_was() {
    let (mut op, records) = found(1);
    let mut node = join(&mut op, 9);
    // What a joiner stores first is the ledger that it was enrolled with.
    let joined = node
        .ledger()
        .iter()
        .map(|(_, recorded)| recorded.signed.clone());
    let genesis = keys::StatementId(node.ledger().mesh().0);
    let (first, rest): (Vec<_>, Vec<_>) =
        joined.partition(|signed| signed.statement_id() == genesis);
    let mut stored: Vec<Record> = first.into_iter().map(Record::Statement).collect();
    stored.push(records[1].clone());
    let known = stored.clone();
    let rest = rest.into_iter().map(Record::Statement);
    let mut rest: Vec<Record> = rest.filter(|record| !known.contains(record)).collect();
    rest.sort_by_key(|record| match record {
        Record::Statement(signed) => node.ledger().rank(&signed.statement_id()),
        _ => unreachable!("only statements were collected"),
    });
    stored.extend(rest);

    create(&mut op, 1, &mut vec![]);
    op.edit(
        NOW,
        |edit| edit.rename(MigrationId([1; 16]), "db"),
        &mut vec![],
    )
    .unwrap();
    publish(&mut op, "op");
    stored.extend(talk(&mut op, &mut node, 100).0[1].clone());
    let back = restored(key(9), &stored);
    assert_eq!(back.heads(), node.heads());
    assert_eq!(back.document().plan(), node.document().plan());
    assert_eq!(back.authority(), node.authority());
}

#[test]
fn a_node_that_was_revoked_is_forgotten_by_all_even_after_a_restart() {
    let (mut op, founding) = found(1);
    let mut node = join(&mut op, 9);
    let mut other = join(&mut op, 10);
    publish(&mut node, "node");
    talk(&mut op, &mut node, 100);
    talk(&mut op, &mut other, 100);
    let id = node.me().unwrap();
    let report = other.reports().signed(&id).unwrap().clone();
    revoke(&mut op, id.into(), &mut vec![]);
    talk(&mut op, &mut other, 100);
    assert!(op.reports().get(&id).is_none() && other.reports().get(&id).is_none());
    assert_eq!(op.heads(), other.heads());

    // The store still has the report; the node that comes back has it not.
    let Record::Statement(genesis) = &founding[0] else {
        panic!("a genesis")
    };
    let mut ledger = Ledger::found(genesis.clone()).unwrap();
    let mut waiting: Vec<Signed> = other
        .ledger()
        .iter()
        .map(|(_, one)| one.signed.clone())
        .collect();
    while !waiting.is_empty() {
        waiting.retain(|signed| ledger.insert(signed.clone()).is_err());
    }
    let back = Replica::restore(key(10), None, ledger, vec![], vec![report]).unwrap();
    assert_eq!(back.heads(), other.heads());

    // And the revoked node, once it has heard, says nothing more.
    talk(&mut op, &mut node, 100);
    assert!(publish(&mut node, "again").is_empty());
}

#[test]
fn only_an_operator_states_and_edits() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let plan = plan_of(&op, 1);
    let mut out = vec![];
    let edited = node.edit(NOW, |edit| edit.create_migration(&plan), &mut out);
    assert_eq!(edited, Err(EditError::NotAnOperator(key(9).public())));
    let revocation = Statement::Revocation(Revocation {
        target: op.me().unwrap().into(),
        honours: None,
        reason: String::new(),
    });
    assert_eq!(
        node.state(NOW, revocation, &mut out),
        Err(StateError::NotOperator)
    );
    assert!(out.is_empty());
}

#[test]
fn a_large_change_is_announced_by_its_heads_alone_and_synced() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let mut out = vec![];
    let plans: Vec<MigrationPlan> = (0..40)
        .map(|id| MigrationPlan {
            name: format!("{id}").repeat(60),
            volumes: (0..20)
                .map(|at| VolumeId([at, id, 7, id, at, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]))
                .collect(),
            ..plan_of(&op, id)
        })
        .collect();
    let all = |edit: &mut crdt::Edit<'_>| {
        plans
            .iter()
            .try_for_each(|plan| edit.create_migration(plan))
    };
    op.edit(NOW, all, &mut out).unwrap();
    let announcement = announcement(&out);
    assert!(announcement.changes.is_empty());
    let via = op.my_key();
    step(&mut node, Input::Announced { via, announcement });
    talk(&mut op, &mut node, 100);
    assert_eq!(node.document().plan().migrations.len(), 40);
}

#[test]
fn a_peer_that_never_answers_is_asked_again_later_and_does_not_block_the_others() {
    let (mut op, _) = found(1);
    let peers: Vec<PublicKey> = (40..46).map(|seed| key(seed).public()).collect();
    let mut asked = vec![];
    let mut see = |out: Vec<Output>| {
        let asks = out.into_iter().filter_map(|output| match output {
            Output::Ask { to, .. } => Some(to),
            _ => None,
        });
        asked.extend(asks);
    };
    for peer in &peers {
        see(step(&mut op, Input::Connected(*peer)));
    }
    see(vec![]);
    assert_eq!(asked.len(), MAX_ASKING);
    let mut out = vec![];
    op.step(NOW, ANSWER_MILLIS, Input::Tick, &mut out);
    let second: Vec<PublicKey> = out
        .into_iter()
        .filter_map(|output| match output {
            Output::Ask { to, .. } => Some(to),
            _ => None,
        })
        .collect();
    for peer in &peers {
        assert!(asked.contains(peer) || second.contains(peer));
    }
}

mod asking;
mod clones;
mod gossip;
mod own_head;
mod pace;
mod supposing;
mod any_order {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        /// Statements, changes and reports in any order, cut into any messages, some of
        /// them twice, end in the same state once the rest is asked for.
        #[test]
        fn news_in_any_order_ends_in_the_same_state(order in prop::collection::vec(any::<u32>(), 24)) {
            let (mut op, _) = found(1);
            let mut node = join(&mut op, 9);
            let mut news = vec![];
            for id in 1..=4 {
                let mut out = vec![];
                let granted = grant(&mut op, id, &mut out);
                create(&mut op, id, &mut out);
                if id % 2 == 0 {
                    revoke(&mut op, granted, &mut out);
                }
                out.extend(publish(&mut op, "op"));
                let announced = out.into_iter().filter_map(|output| match output {
                    Output::Announce(announcement) => Some(announcement),
                    _ => None,
                });
                news.extend(announced);
            }
            let via = op.my_key();
            for number in order {
                let announcement = news[number as usize % news.len()].clone();
                let out = step(&mut node, Input::Announced { via, announcement });
                prop_assert!(blamed(&out).is_empty());
            }
            talk(&mut op, &mut node, 200);
            prop_assert_eq!(op.heads(), node.heads());
            prop_assert_eq!(op.document().content_hash(), node.document().content_hash());
            prop_assert_eq!(op.authority(), node.authority());
        }
    }
}
