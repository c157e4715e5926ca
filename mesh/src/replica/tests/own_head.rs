//! After a start a node writes nothing before it has heard how far its own logs go; and
//! what it wrote that lost its ground is written again.

use super::clones::records;
use super::*;
use crate::enrol::DeniedCode;
use crate::sync::Yours;
use crate::world::ask;
use keys::statement::{Admission, Enrolment, Entry, Position};
use keys::{Domain, Role};

/// Enrols a second operator with the root key of the founder of `seed`.
pub(super) fn second_operator(op: &mut Replica, seed: u8) -> Replica {
    let enrolment = Statement::Enrolment(Enrolment {
        subject: key(seed).public(),
        name: crate::world::name("second"),
        roles: [Role::Operator].into_iter().collect(),
        site: None,
        not_after: None,
        scope: keys::Scope::Everywhere,
        admission: Admission::Root,
    });
    shown_by_root(op, enrolment);
    let mut second = restored(key(seed), &records(op));
    second.write_unheard();
    second
}

fn shown_by_root(op: &mut Replica, statement: Statement) {
    let root = key(101);
    let (seq, previous) = op.ledger().next_position(&root.public());
    let entry = Entry {
        seq,
        previous,
        mesh: Some(op.ledger().mesh()),
        at: NOW,
        statement,
    };
    let signed = Signed::seal(&root, Domain::Statement, &entry).unwrap();
    let from = op.my_key();
    let statements = vec![signed];
    step(op, Input::Shown { from, statements });
}

#[test]
fn an_old_copy_goes_on_after_its_own_newest_entries_and_forks_nothing() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    create(&mut op, 1, &mut vec![]);
    publish(&mut op, "op");
    talk(&mut op, &mut node, 100);
    let old = records(&op);
    for id in 2..6 {
        grant(&mut op, id, &mut vec![]);
        create(&mut op, id, &mut vec![]);
        publish(&mut op, &format!("op {id}"));
    }
    talk(&mut op, &mut node, 100);
    let newest = op.heads();

    let mut back = restored(key(1), &old);
    assert!(!back.may_write());
    let mut out = vec![];
    let plan = plan_of(&back, 9);
    let edited = back.edit(NOW, |edit| edit.create_migration(&plan), &mut out);
    assert_eq!(edited, Err(EditError::Unheard));
    let revocation = Statement::Revocation(Revocation {
        target: back.me().unwrap().into(),
        honours: None,
        reason: String::new(),
    });
    assert_eq!(
        back.state(NOW, revocation, &mut out),
        Err(StateError::Unheard)
    );
    assert!(publish(&mut back, "back").is_empty() && out.is_empty());

    talk(&mut node, &mut back, 100);
    assert!(back.may_write());
    assert_eq!(back.heads(), newest);
    grant(&mut back, 9, &mut vec![]);
    create(&mut back, 9, &mut vec![]);
    publish(&mut back, "back");
    talk(&mut node, &mut back, 100);
    // Even beside what it had written before.
    let mut op = restored(key(1), &records(&op));
    talk(&mut op, &mut back, 100);
    assert!(node.cloned().is_empty() && back.cloned().is_empty() && op.cloned().is_empty());
    assert_eq!(node.heads(), back.heads());
    assert_eq!(node.heads(), op.heads());
}

#[test]
fn who_is_alone_in_its_mesh_or_is_told_to_may_write_at_once() {
    let (mut op, _) = found(1);
    assert!(restored(key(1), &records(&op)).may_write());
    let node = join(&mut op, 9);
    assert!(!restored(key(1), &records(&op)).may_write());
    let mut alone = restored(key(1), &records(&op));
    alone.write_unheard();
    create(&mut alone, 1, &mut vec![]);
    revoke(&mut op, node.me().unwrap().into(), &mut vec![]);
    assert!(restored(key(1), &records(&op)).may_write());
}

#[test]
fn who_has_not_heard_how_far_its_log_goes_does_not_say_that_an_invite_is_unknown() {
    let (mut op, _) = found(1);
    let _ = join(&mut op, 9);
    let mut back = restored(key(1), &records(&op));
    let request = || EnrolRequest::Hello {
        mesh: op.ledger().mesh(),
        invite: keys::StatementId([1; 32]),
    };
    let denied = |code| EnrolReply::Denied { code };
    assert!(!back.may_write());
    let rotated = back.rotate(&key(19), NOW, &mut vec![]);
    assert_eq!(rotated, Err(StateError::Unheard));
    let (answer, _) = ask(&mut back, NOW, &key(30), request(), [3; 32]);
    assert_eq!(answer, denied(DeniedCode::Busy));
    // What needs nothing of its own log is answered.
    let recover = EnrolRequest::Recover {
        mesh: op.ledger().mesh(),
    };
    let (answer, _) = ask(&mut back, NOW, &key(30), recover, [3; 32]);
    assert!(matches!(answer, EnrolReply::Challenge { .. }));
    back.write_unheard();
    let (answer, _) = ask(&mut back, NOW, &key(30), request(), [3; 32]);
    assert_eq!(answer, denied(DeniedCode::UnknownInvite));
}

#[test]
fn a_node_has_not_heard_all_while_a_peer_shows_more_of_any_of_its_logs() {
    let (mut op, _) = found(1);
    grant(&mut op, 1, &mut vec![]);
    create(&mut op, 1, &mut vec![]);
    publish(&mut op, "op");
    let here = op.yours(&op.my_key());
    assert!(op.holds(&here));
    let more: [fn(&mut Yours); 4] = [
        |yours| yours.statement += 1,
        |yours| yours.change += 1,
        |yours| yours.report += 1,
        |yours| yours.roots[0] += 1,
    ];
    for (at, more_of) in more.into_iter().enumerate() {
        let mut theirs = here.clone();
        more_of(&mut theirs);
        assert!(!op.holds(&theirs), "{at}");
    }
    // The log of a root key is not its own without that key.
    let plain = crate::world::keyless(op);
    let mut theirs = plain.yours(&plain.my_key());
    theirs.roots[0] += 1;
    assert!(plain.holds(&theirs));
}

#[test]
fn a_peer_that_claims_what_it_does_not_give_holds_nobody_up_beside_an_honest_one() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let mut back = restored(key(9), &records(&node));
    let (liar, honest) = (key(30).public(), op.my_key());
    step(&mut back, Input::Connected(liar));
    step(&mut back, Input::Connected(honest));
    let mut page = op.page(&back.my_key(), &Request::default());
    let truth = page.clone();
    page.yours.report = u64::MAX;
    page.heads.reports = [9; 32];
    let lie = |from| Input::Answered {
        from,
        page: page.clone(),
    };
    step(&mut back, lie(liar));
    let from = honest;
    step(&mut back, Input::Answered { from, page: truth });
    assert!(!back.may_write(), "the other may have more to give");
    // By then it was asked for its heads, its groups and what is in them.
    step(&mut back, lie(liar));
    step(&mut back, lie(liar));
    assert!(back.may_write());

    // One that is silent does not hold it up either, and alone shows nothing.
    let mut back = restored(key(9), &records(&node));
    step(&mut back, Input::Connected(liar));
    step(&mut back, Input::AskFailed { from: liar });
    assert!(!back.may_write());
}

#[test]
fn a_peer_that_claims_ever_more_and_feeds_other_things_holds_nobody_up_for_ever() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let mut other = join(&mut op, 12);
    talk(&mut op, &mut node, 100);
    let mut back = restored(key(9), &records(&node));
    let (liar, honest) = (other.my_key(), op.my_key());
    let page = op.page(&back.my_key(), &Request::default());
    step(&mut back, Input::Connected(honest));
    step(&mut back, Input::Connected(liar));
    let from = honest;
    step(
        &mut back,
        Input::Answered {
            from,
            page: page.clone(),
        },
    );
    for second in 0..90 {
        // It brings something new each time.
        publish(&mut other, &format!("report {second}"));
        let mut lie = page.clone();
        lie.reports = other
            .reports()
            .signed(&other.me().unwrap())
            .cloned()
            .into_iter()
            .collect();
        lie.yours.report = u64::MAX;
        lie.heads.reports = [9; 32];
        let input = Input::Answered {
            from: liar,
            page: lie,
        };
        back.step(NOW, 1_000 * second, input, &mut vec![]);
        if second < 30 {
            assert!(!back.may_write(), "second {second}");
        }
    }
    assert!(back.may_write());
}

#[test]
fn a_peer_that_speaks_all_the_time_is_asked_again_after_a_question_was_lost() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let mut back = restored(key(9), &records(&node));
    let from = op.my_key();
    step(&mut back, Input::Connected(from));
    step(&mut back, Input::AskFailed { from });
    let heads = op.heads();
    let asked = (1..20).any(|half_seconds: u64| {
        let announcement = Announcement {
            heads,
            ..Announcement::default()
        };
        let (via, mut out) = (from, vec![]);
        let input = Input::Announced { via, announcement };
        back.step(NOW, 500 * half_seconds, input, &mut out);
        let is_question = |output: &Output| matches!(output, Output::Ask { .. });
        out.iter().any(is_question)
    });
    assert!(asked, "it never hears how far its own logs go");
}

#[test]
fn edits_that_rested_on_a_traitors_are_made_again_by_their_author_alone() {
    let (mut op, _) = found(1);
    let mut traitor = second_operator(&mut op, 2);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut traitor, 100);
    create(&mut traitor, 1, &mut vec![]);
    let honoured: Position = traitor.document().heads()[&traitor.my_key()];
    create(&mut traitor, 2, &mut vec![]);
    talk(&mut op, &mut traitor, 100);
    let mut out = vec![];
    for id in [1, 2] {
        let rename = |edit: &mut crdt::Edit<'_>| edit.rename(MigrationId([id; 16]), "ours");
        op.edit(NOW, rename, &mut out).unwrap();
    }
    talk(&mut op, &mut node, 100);
    let revocation = Statement::Revocation(Revocation {
        target: traitor.me().unwrap().into(),
        honours: Some(keys::statement::Honoured {
            key: traitor.my_key(),
            statements: Position::NONE,
            changes: honoured,
        }),
        reason: String::new(),
    });
    let mut back = restored(key(1), &records(&op));
    // The founder holds the root key.
    op.root = Some(key(101));
    let mut out = vec![];
    op.state(NOW, revocation, &mut out).unwrap();
    let again = |out: &[Output]| {
        let told = out.iter().filter_map(|output| match output {
            Output::Raise(Alarm::MadeAgain { made, lost }) => Some((made.clone(), lost.clone())),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    let (one, two) = (MigrationId([1; 16]), MigrationId([2; 16]));
    let told = (vec![EntryId::Migration(one)], vec![EntryId::Migration(two)]);
    assert_eq!(again(&out), std::slice::from_ref(&told));
    // A copy that has not heard how far its log goes waits with it until it has.
    let statements = announcement(&out).statements;
    let from = node.my_key();
    assert!(again(&step(&mut back, Input::Shown { from, statements })).is_empty());
    assert!(!back.may_write());
    back.write_unheard();
    assert_eq!(again(&step(&mut back, Input::Tick)), [told]);
    let stored = out.iter().position(
        |output| matches!(output, Output::Store(records) if matches!(records[0], Record::Change(1, _))),
    );
    let passed_on = out
        .iter()
        .position(|output| matches!(output, Output::Announce(news) if !news.changes.is_empty()));
    assert!(stored.unwrap() < passed_on.unwrap());
    talk(&mut op, &mut node, 100);
    talk(&mut op, &mut traitor, 100);
    for replica in [&op, &node, &traitor] {
        let plan = replica.document().plan();
        assert_eq!(plan.migrations[&one].name, "ours");
        assert!(!plan.migrations.contains_key(&two));
        assert!(replica.cloned().is_empty());
        assert_eq!(replica.heads(), op.heads());
    }
}

#[test]
fn a_report_of_its_own_that_comes_back_older_than_the_last_is_no_sign_of_another() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    let me = node.me().unwrap();
    let at = |second| UnixSecs(NOW.0 + second);
    let mut published = vec![];
    for second in 1..3 {
        let mut report = Report::new(me, 0, at(second));
        report.hostname = format!("report {second}");
        node.step(at(0), 0, Input::Tick, &mut vec![]);
        node.publish(at(second), report, &mut vec![]).unwrap();
        published.push(node.reports().signed(&me).unwrap().clone());
    }
    talk(&mut op, &mut node, 100);
    // For a while it seems not to belong, and its reports are forgotten.
    let others = found(77).0.authority().clone();
    node.reports.drop_departed(&others, at(3));
    assert!(node.reports().get(&me).is_none());
    let mut page = op.page(&node.my_key(), &Request::default());
    page.reports = published[..1].to_vec();
    let out = step(
        &mut node,
        Input::Answered {
            from: op.my_key(),
            page,
        },
    );
    assert!(node.reports().get(&me).is_some());
    assert!(!out.iter().any(|output| matches!(output, Output::Raise(_))));
    assert!(node.cloned().is_empty());
}
