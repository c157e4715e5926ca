//! A key in two places: everybody comes to know, both are stopped, and people are told
//! once.

use super::own_head::second_operator;
use super::*;
use crate::replica::Fork;
use crdt::Evidence;
use keys::Role;
use keys::lease::{Leases, Now, Pair, Renewal, Span};
use keys::permit::Move;
use keys::{Denied, StatementId};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What a store of this replica amounts to.
pub(super) fn records(replica: &Replica) -> Vec<Record> {
    let genesis = StatementId(replica.ledger().mesh().0);
    let mut ids: Vec<StatementId> = replica.ledger().iter().map(|(id, _)| *id).collect();
    ids.sort_by_key(|id| (*id != genesis, replica.ledger().rank(id)));
    let statements = ids.iter().map(|id| {
        let recorded = replica.ledger().get(id).unwrap();
        Record::Statement(recorded.signed.clone())
    });
    let mut all: Vec<Record> = statements.collect();
    let document = replica.document();
    for author in document.heads().keys() {
        let log = document.entries_after(author, 0, usize::MAX);
        all.extend(
            (1..)
                .zip(log)
                .map(|(seq, change)| Record::Change(seq, change)),
        );
    }
    for (node, _) in replica.reports().iter() {
        let signed = replica.reports().signed(node).unwrap().clone();
        all.push(Record::Report(*node, signed));
    }
    let forks = replica.reports().forks().chain(replica.document().forks());
    all.extend(forks.map(|(forked, pair)| Record::Evidence(forked, pair)));
    all
}

fn alarms(out: &[Output]) -> Vec<(PublicKey, Fork)> {
    let raised = out.iter().filter_map(|output| match output {
        Output::Raise(Alarm::Cloned { key, fork }) => Some((*key, *fork)),
        _ => None,
    });
    raised.collect()
}

fn reported(out: &[Output]) -> Signed {
    announcement(out).reports[0].clone()
}

fn announced(via: PublicKey, out: &[Output]) -> Input {
    Input::Announced {
        via,
        announcement: announcement(out),
    }
}

/// How many proofs of forks are passed on.
fn passed(out: &[Output]) -> usize {
    let told = out.iter().filter_map(|output| match output {
        Output::PassOn { announcement, .. } => Some(announcement.evidence.len()),
        _ => None,
    });
    told.sum()
}

/// A second running copy of a node.
pub(super) fn copy_of(node: &Replica) -> Replica {
    let identity = node.identity.clone();
    let mut copy = restored(identity, &records(node));
    copy.write_unheard();
    copy
}

fn granted(op: &mut Replica, agent: &Replica, replicator: &Replica) -> Move {
    let migration = MigrationId([1; 16]);
    let volume = VolumeId([1; 16]);
    let grant = Statement::Grant(Grant {
        migration,
        agent: agent.me().unwrap(),
        replicators: vec![replicator.me().unwrap()],
        volumes: vec![volume],
        not_after: UnixSecs(9_000),
        lease_secs: 600,
        autonomy_secs: 0,
        dedup_group: None,
    });
    Move {
        grant: op.state(NOW, grant, &mut vec![]).unwrap(),
        migration,
        volume,
        agent: agent.my_key(),
        replicator: replicator.my_key(),
    }
}

fn at_now() -> Now {
    Now {
        wall: NOW,
        mono_millis: 0,
    }
}

/// What the agent of `asked` holds once `op`, which stands, has answered its pulse.
fn leases(op: &Replica, asked: &Move) -> Leases {
    let id = |key| op.authority().by_key(&key).unwrap().id;
    let pair = Pair {
        grant: asked.grant,
        replicator: id(asked.replicator),
    };
    let span = Span {
        lease_secs: 600,
        autonomy_secs: 0,
    };
    let holder = id(asked.agent);
    let mut leases = Leases::new();
    leases.pulse(at_now(), keys::id::Pulse([1; 16]));
    let renewal = Renewal {
        holder,
        pulse: keys::id::Pulse([1; 16]),
        pairs: vec![pair],
    };
    let wanted = BTreeMap::from([(pair, span)]);
    let from = (op.me().unwrap(), &[renewal][..]);
    assert!(leases.hear(op.authority(), NOW, (holder, &wanted), from));
    leases
}

#[test]
fn a_node_that_runs_twice_is_stopped_at_both_ends_and_everybody_is_told_once() {
    let (mut op, _) = found(1);
    let (mut agent, mut replicator) = (join(&mut op, 9), join(&mut op, 10));
    let asked = granted(&mut op, &agent, &replicator);
    publish(&mut agent, "web1");
    for node in [&mut agent, &mut replicator] {
        talk(&mut op, node, 100);
    }
    let mut twin = copy_of(&agent);
    let held = leases(&op, &asked);
    let now = at_now();
    let permit = op.authority().permit_send(now, &held, &asked).unwrap();
    let key = agent.my_key();
    let first = publish(&mut agent, "web1");
    let second = publish(&mut twin, "web1-copy");
    assert!(alarms(&step(&mut op, announced(key, &first))).is_empty());
    let out = step(&mut op, announced(key, &second));
    assert_eq!(alarms(&out), [(key, Fork::Reports)]);
    let stored = |output: &Output| match output {
        Output::Store(records) => records
            .iter()
            .any(|one| matches!(one, Record::Evidence(..))),
        _ => false,
    };
    assert!(stored(&out[0]), "durable before it is told: {out:?}");
    assert_eq!(announcement(&out).evidence.len(), 1);

    // The proof alone tells the others, the two themselves included.
    let via = op.my_key();
    for node in [&mut agent, &mut twin, &mut replicator] {
        let told = step(node, announced(via, &out));
        assert_eq!(alarms(&told), [(key, Fork::Reports)]);
        let denied = Err(Denied::Cloned(key));
        assert_eq!(
            node.authority().permit_send(now, &held, &asked),
            denied.clone()
        );
        assert_eq!(
            node.authority().recheck(now, &held, &permit),
            Err(Denied::Cloned(key))
        );
        assert!(
            node.authority().admits(NOW, &key),
            "it is still told what is new"
        );
    }
    // Nobody is told again, whatever comes, and nothing is sent again and again.
    for signed in [reported(&first), reported(&second)] {
        let again = Input::Announced {
            via: key,
            announcement: Announcement {
                heads: op.heads(),
                statements: vec![],
                changes: vec![],
                reports: vec![signed],
                evidence: announcement(&out).evidence,
            },
        };
        assert!(alarms(&step(&mut op, again)).is_empty());
    }
    assert!(publish(&mut agent, "web1").is_empty() && publish(&mut twin, "copy").is_empty());
    let next = crate::world::key(19);
    let rotated = agent.rotate(&next, NOW, &mut vec![]);
    assert_eq!(rotated, Err(StateError::Cloned));
    for node in [&mut agent, &mut twin, &mut replicator] {
        talk(&mut op, node, 100);
        let (stored, pages) = talk(&mut op, node, 100);
        assert!(stored.iter().all(Vec::is_empty) && pages == 2);
        assert_eq!(op.heads(), node.heads());
    }

    // After a restart it is known, and not told again.
    let mut back = restored(key_of(&replicator), &records(&replicator));
    assert_eq!(back.heads(), replicator.heads());
    assert!(back.authority().is_cloned(&key));
    assert!(alarms(&step(&mut back, Input::Tick)).is_empty());

    // Nor is it forgotten when something is stated here.
    grant(&mut op, 2, &mut vec![]);
    assert!(op.authority().is_cloned(&key));

    // Until its enrolment is revoked, though the store still has the proof.
    let id = agent.me().unwrap().into();
    let proof = records(&replicator)
        .into_iter()
        .filter(|one| matches!(one, Record::Evidence(..)));
    let proof: Vec<Record> = proof.collect();
    assert_eq!(proof.len(), 1);
    revoke(&mut op, id, &mut vec![]);
    talk(&mut op, &mut replicator, 100);
    assert_eq!(op.heads(), replicator.heads());
    assert!(replicator.cloned().is_empty());
    let stored = [records(&replicator), proof].concat();
    let back = restored(key_of(&replicator), &stored);
    assert_eq!(back.heads(), replicator.heads());
}

#[test]
fn nobody_is_told_of_a_key_in_two_places_that_was_taken_back_before() {
    let (mut op, _) = found(1);
    let mut second = second_operator(&mut op, 2);
    let mut twin = copy_of(&second);
    let (warned, late) = (join(&mut op, 9), join(&mut op, 10));
    grant(&mut second, 1, &mut vec![]);
    grant(&mut twin, 2, &mut vec![]);
    for one in [&mut second, &mut twin] {
        talk(&mut op, one, 100);
    }
    let told = |mut node: Replica, op: &Replica| {
        let all = records(op).into_iter().filter_map(|record| match record {
            Record::Statement(signed) => Some(signed),
            _ => None,
        });
        let (from, statements) = (op.my_key(), all.collect());
        alarms(&step(&mut node, Input::Shown { from, statements }))
    };
    let key = second.my_key();
    assert_eq!(told(warned, &op), [(key, Fork::Statements(1))]);
    let id = second.me().unwrap().into();
    revoke(&mut op, id, &mut vec![]);
    assert_eq!(op.ledger().forks().len(), 1);
    assert!(told(late, &op).is_empty());
}

#[test]
fn who_is_known_to_run_twice_waits_for_no_newer_report_of_its_own() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let mut twin = copy_of(&node);
    let out = [publish(&mut node, "one"), publish(&mut twin, "two")];
    let mut theirs = node.yours(&node.my_key());
    theirs.report += 1;
    assert!(!node.holds(&theirs));
    let via = op.my_key();
    step(&mut node, announced(via, &out[1]));
    assert!(node.holds(&theirs), "nobody gives it any more");
}

fn key_of(replica: &Replica) -> Identity {
    replica.identity.clone()
}

#[test]
fn a_node_that_hears_a_report_of_itself_which_it_did_not_make_proves_the_clone() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let key = node.my_key();
    talk(&mut op, &mut node, 100);
    let mut twin = copy_of(&node);
    publish(&mut node, "web1");
    talk(&mut op, &mut node, 100);
    talk(&mut op, &mut twin, 100);
    // The copy goes on after the newest report, so that no two have one version.
    let mut report = Report::new(NodeId([0; 32]), 0, UnixSecs(0));
    report.hostname = "copy".into();
    let mut out = vec![];
    let later = UnixSecs(NOW.0 + 60);
    twin.publish(later, report, &mut out).unwrap();
    let mut more = vec![];
    let report = Report::new(NodeId([0; 32]), 0, UnixSecs(0));
    twin.publish(UnixSecs(NOW.0 + 90), report, &mut more)
        .unwrap();
    let via = op.my_key();
    assert!(alarms(&step(&mut op, announced(key, &out))).is_empty());
    let found = step(&mut node, announced(via, &out));
    assert_eq!(alarms(&found), [(key, Fork::Reports)]);
    // Whatever the copy says then, it is proven once.
    let again = step(&mut node, announced(via, &more));
    assert!(again.iter().all(|output| {
        match output {
            Output::Store(records) => records
                .iter()
                .all(|one| !matches!(one, Record::Evidence(..))),
            Output::Announce(news) => news.evidence.is_empty(),
            _ => true,
        }
    }));
    let told = step(&mut op, announced(key, &found));
    assert_eq!(alarms(&told), [(key, Fork::Reports)]);
    let [one, other] = op.reports().fork_of(&node.me().unwrap()).unwrap();
    assert_eq!([&*one.hostname, &*other.hostname], ["web1", "copy"]);
}

/// Each of the two hears of the other's report before it makes its own, so that no two
/// have one version; and the clock of one was set back. It may make several before it is
/// heard: only the newest one of a node is kept.
#[test]
fn a_copy_that_goes_on_after_this_nodes_report_is_found_whatever_its_clock_says() {
    for reports in 1..4 {
        let (mut op, _) = found(1);
        let mut node = join(&mut op, 9);
        let key = node.my_key();
        talk(&mut op, &mut node, 100);
        let mut twin = copy_of(&node);
        publish(&mut node, "web1");
        talk(&mut op, &mut node, 100);
        talk(&mut op, &mut twin, 100);
        // What it makes on top is not what the copy follows.
        publish(&mut node, "web1 again");
        let day_before = UnixSecs(NOW.0.saturating_sub(86_400));
        let mut out = vec![];
        for _ in 0..reports {
            let mut report = Report::new(NodeId([0; 32]), 0, UnixSecs(0));
            report.hostname = "copy".into();
            out.clear();
            twin.publish(day_before, report, &mut out).unwrap();
        }
        let via = op.my_key();
        step(&mut op, announced(key, &out));
        let found = step(&mut node, announced(via, &out));
        assert_eq!(alarms(&found), [(key, Fork::Reports)], "{reports}");
    }
}

#[test]
fn an_own_report_from_before_the_start_is_no_clone() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let old = records(&node);
    publish(&mut node, "web1");
    let out = publish(&mut node, "web1 again");
    let mut back = restored(key(9), &old);
    back.write_unheard();
    publish(&mut back, "web1, from a copy");
    let via = op.my_key();
    assert!(alarms(&step(&mut back, announced(via, &out))).is_empty());
    assert!(back.cloned().is_empty());
}

#[test]
fn an_operator_whose_key_is_in_two_places_grants_nothing_more_and_may_still_take_back() {
    let (mut op, founding) = found(1);
    let (mut agent, mut replicator) = (join(&mut op, 9), join(&mut op, 10));
    let before = granted(&mut op, &agent, &replicator);
    let held = leases(&op, &before);
    let mut stored = records(&op);
    stored.retain(|record| !founding.contains(record));
    let stored: Vec<Record> = founding.iter().cloned().chain(stored).collect();
    let mut twin = restored(key(1), &stored);
    twin.write_unheard();
    let after = granted(&mut op, &agent, &replicator);
    let held_after = leases(&op, &after);
    invite(&mut twin, 77, 1, 5_000, &mut vec![]);
    for node in [&mut twin, &mut agent, &mut replicator] {
        talk(&mut op, node, 100);
    }
    let key = op.my_key();
    talk(&mut op, &mut agent, 100);
    for node in [&op, &twin, &agent, &replicator] {
        assert!(matches!(node.fork_of(&key), Some(Fork::Statements(_))));
        let authority = node.authority();
        assert!(authority.permit_receive(at_now(), &held, &before).is_ok());
        let denied = authority.permit_receive(at_now(), &held_after, &after);
        assert_eq!(denied, Err(Denied::Cloned(key)));
        assert_eq!(node.heads(), op.heads());
    }
    let mut out = vec![];
    let invite = Statement::Invite(keys::statement::Invite {
        key: super::key(78).public(),
        roles: [Role::Agent].into_iter().collect(),
        name: None,
        site: None,
        not_after: UnixSecs(5_000),
        uses: 1,
        admitter: key,
        scope: keys::Scope::Everywhere,
        member_until: None,
    });
    assert_eq!(op.state(NOW, invite, &mut out), Err(StateError::Cloned));
    let plan = plan_of(&op, 1);
    let edited = op.edit(NOW, |edit| edit.create_migration(&plan), &mut out);
    assert_eq!(edited, Err(EditError::Cloned(key)));
    assert!(out.is_empty());
    revoke(&mut op, before.grant, &mut out);
}

#[test]
fn a_false_proof_is_blamed_on_who_shows_it() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let report = reported(&publish(&mut node, "web1"));
    let via = key(30).public();
    let announcement = Announcement {
        heads: op.heads(),
        statements: vec![],
        changes: vec![],
        reports: vec![],
        evidence: vec![crdt::Evidence::Reports(Box::new([report.clone(), report]))],
    };
    let out = step(&mut op, Input::Announced { via, announcement });
    assert_eq!(blamed(&out), [via]);
    assert!(op.cloned().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever hears what first: all nodes come to agree on which keys are cloned, and
    /// each tells people once.
    #[test]
    fn which_keys_are_cloned_does_not_depend_on_the_order(order in prop::collection::vec(any::<(bool, u8)>(), 16)) {
        let (mut op, _) = found(1);
        let (mut node, mut a, mut b) = (join(&mut op, 9), join(&mut op, 10), join(&mut op, 11));
        for one in [&mut node, &mut a, &mut b] {
            talk(&mut op, one, 100);
        }
        let (mut twin_op, mut twin) = (copy_of(&op), copy_of(&node));
        let mut news = vec![];
        for (round, name) in ["x", "y"].iter().enumerate() {
            let id = round as u8;
            news.push(publish(&mut node, &format!("node {name}")));
            news.push(publish(&mut twin, &format!("twin {name}")));
            for (operator, id) in [(&mut op, id), (&mut twin_op, id + 10)] {
                let mut out = vec![];
                create(operator, id, &mut out);
                news.push(out);
            }
        }
        let mut raised = [0; 2];
        for (to_a, number) in order {
            let out = &news[usize::from(number) % news.len()];
            let input = announced(op.my_key(), out);
            let to = if to_a { &mut a } else { &mut b };
            raised[usize::from(to_a)] += alarms(&step(to, input)).len();
        }
        // The two halves of the world meet.
        for _ in 0..3 {
            for one in [&mut op, &mut twin_op, &mut node, &mut twin] {
                talk(one, &mut a, 200);
            }
            talk(&mut a, &mut b, 200);
        }
        prop_assert_eq!(a.heads(), b.heads());
        prop_assert_eq!(a.authority(), b.authority());
        prop_assert_eq!(a.document().content_hash(), b.document().content_hash());
        let known: Vec<PublicKey> = a.cloned().into_iter().map(|(key, _)| key).collect();
        prop_assert!(known.contains(&op.my_key()) && known.contains(&node.my_key()));
        prop_assert!(a.document().plan().migrations.is_empty());
        prop_assert!(raised.iter().all(|raised| *raised <= 2));
    }
}

#[test]
fn a_proof_of_a_fork_goes_to_who_sent_half_of_it_too_and_is_passed_on_once_it_was_checked() {
    let (mut op, _) = found(1);
    let (mut node, mut far) = (join(&mut op, 9), join(&mut op, 10));
    for node in [&mut node, &mut far] {
        talk(&mut op, node, 100);
    }
    let mut twin = copy_of(&node);
    let (first, second) = (publish(&mut node, "one"), publish(&mut twin, "two"));
    let via = key(30).public();
    step(&mut op, announced(via, &first));
    let out = step(&mut op, announced(via, &second));
    // To all its neighbours, whoever it heard it from, and thus to nobody twice.
    let proof = announcement(&out);
    assert_eq!((proof.evidence.len(), passed(&out)), (1, 0));
    let mut forged = proof.clone();
    let Evidence::Reports(pair) = &mut forged.evidence[0] else {
        panic!("two reports are the proof");
    };
    pair[0].body[40] ^= 1;
    let announcement = forged;
    let out = step(&mut far, Input::Announced { via, announcement });
    assert_eq!((passed(&out), blamed(&out)), (0, vec![via]));
    let announcement = proof.clone();
    let out = step(&mut far, Input::Announced { via, announcement });
    assert_eq!((passed(&out), blamed(&out)), (1, vec![]));
    let announcement = proof;
    let out = step(&mut far, Input::Announced { via, announcement });
    assert_eq!(passed(&out), 0, "it is no news any more");
}
