//! What is passed on to whom, who is asked when, and what it costs in a large mesh.

use super::*;
use crate::world::{crowd, twin};
use keys::Role;

fn passed_on(out: &[Output]) -> Vec<(Option<PublicKey>, Announcement)> {
    let passed = out.iter().filter_map(|output| match output {
        Output::PassOn {
            not_to,
            announcement,
        } => Some((*not_to, announcement.clone())),
        _ => None,
    });
    passed.collect()
}

pub(super) fn asks(out: &[Output]) -> Vec<(PublicKey, Request)> {
    let asks = out.iter().filter_map(|output| match output {
        Output::Ask { to, request } => Some((*to, request.clone())),
        _ => None,
    });
    asks.collect()
}

pub(super) fn tick(replica: &mut Replica, at: u64) -> Vec<Output> {
    let mut out = vec![];
    replica.step(NOW, at, Input::Tick, &mut out);
    out
}

/// Lets `peer` be connected and known to hold what `replica` holds.
pub(super) fn equal_peer(replica: &mut Replica, peer: PublicKey) {
    step(replica, Input::Connected(peer));
    let page = replica.page(&peer, &Request::default());
    step(replica, Input::Answered { from: peer, page });
}

#[test]
fn what_is_new_is_passed_on_once_it_is_stored_and_not_to_who_brought_it() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let mut made = vec![];
    grant(&mut op, 1, &mut made);
    let announcement = announcement(&made);
    let via = key(30).public();
    let news = |announcement: &Announcement| Input::Announced {
        via,
        announcement: announcement.clone(),
    };
    let out = step(&mut node, news(&announcement));
    assert!(matches!(out[0], Output::Store(_)));
    let (not_to, passed) = passed_on(&out).remove(0);
    assert_eq!(not_to, Some(via));
    assert_eq!(passed, announcement);
    let again = step(&mut node, news(&announcement));
    assert!(passed_on(&again).is_empty());
}

#[test]
fn what_is_forged_or_waits_is_not_passed_on_with_the_rest() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let mut made = vec![];
    grant(&mut op, 1, &mut made);
    let good = announcement(&made);
    let mut forged = good.clone();
    let mut bad = good.statements[0].clone();
    bad.body[50] ^= 1;
    forged.statements.push(bad);
    let (mut other, _) = found(2);
    let strange = grant(&mut other, 1, &mut vec![]);
    let strange = other.ledger().get(&strange).unwrap().signed.clone();
    forged.statements.push(strange);
    let via = key(30).public();
    let announcement = forged;
    let out = step(&mut node, Input::Announced { via, announcement });
    assert_eq!(blamed(&out), [via]);
    assert_eq!(passed_on(&out)[0].1.statements, good.statements);
}

#[test]
fn what_a_page_brought_is_passed_on_by_its_heads_when_it_is_large() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    for id in 0..100 {
        grant(&mut op, id, &mut vec![]);
    }
    let held = (0..=255).map(|bucket| (bucket, vec![])).collect();
    let request = Request {
        ledger: Some(Summary::Held(held)),
        ..Request::default()
    };
    let mut page = op.page(&node.my_key(), &request);
    assert!(page.statements.len() > 100 && !page.more);
    let from = op.my_key();
    page.more = true;
    let mut another = twin(key(9), &node);
    let answered = |page: &Page| Input::Answered {
        from,
        page: page.clone(),
    };
    let out = step(&mut another, answered(&page));
    assert!(passed_on(&out).is_empty(), "more is to come");
    page.more = false;
    let out = step(&mut node, answered(&page));
    let (not_to, passed) = passed_on(&out).remove(0);
    assert_eq!(not_to, Some(from), "it holds the same");
    assert_eq!(passed.heads, op.heads());
    assert!(passed.statements.is_empty());
}

#[test]
fn who_announces_what_came_from_elsewhere_meanwhile_is_not_asked() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let (a, b) = (key(30).public(), key(31).public());
    for peer in [a, b] {
        equal_peer(&mut node, peer);
    }
    let mut made = vec![];
    grant(&mut op, 1, &mut made);
    let whole = announcement(&made);
    let by_heads = Announcement {
        heads: whole.heads,
        ..Announcement::default()
    };
    let announced = |via, announcement: &Announcement| Input::Announced {
        via,
        announcement: announcement.clone(),
    };
    let mut wait = twin(key(9), &node);
    assert!(asks(&step(&mut node, announced(a, &by_heads))).is_empty());
    step(&mut node, announced(b, &whole));
    assert!(asks(&tick(&mut node, 1_000)).is_empty());
    // Without it, who announced it is asked.
    equal_peer(&mut wait, a);
    step(&mut wait, announced(a, &by_heads));
    assert_eq!(asks(&tick(&mut wait, 1_000))[0].0, a);
}

#[test]
fn of_several_with_the_same_heads_one_is_asked_and_the_next_when_it_is_slow() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let peers = [key(30).public(), key(31).public(), key(32).public()];
    for peer in peers {
        equal_peer(&mut node, peer);
    }
    grant(&mut op, 1, &mut vec![]);
    let announcement = Announcement {
        heads: op.heads(),
        ..Announcement::default()
    };
    for via in peers {
        let announcement = announcement.clone();
        step(&mut node, Input::Announced { via, announcement });
    }
    let first = asks(&tick(&mut node, 500));
    assert_eq!(first.len(), 1);
    assert!(asks(&tick(&mut node, 1_000)).is_empty());
    let second = asks(&tick(&mut node, 500 + 1_500));
    assert_eq!(second.len(), 1);
    assert_ne!(first[0].0, second[0].0);
}

#[test]
fn a_peer_that_never_agrees_is_not_asked_without_end() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let peer = key(30).public();
    let mut out = step(&mut node, Input::Connected(peer));
    let mut asked = 0;
    // Ever other heads, and a promise of more, and groups that all differ.
    for number in 0..20 {
        if asks(&out).is_empty() {
            break;
        }
        asked += 1;
        let mut page = op.page(&node.my_key(), &Request::default());
        page.heads.ledger = [number; 32];
        page.more = true;
        page.ledger_groups = vec![(3, vec![[number; 8]; 16])];
        out = step(&mut node, Input::Answered { from: peer, page });
    }
    assert!(asked <= 4, "{asked} times");
}

#[test]
fn a_peer_that_says_ever_new_heads_and_brings_nothing_is_left_alone_for_a_while() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let via = key(30).public();
    equal_peer(&mut node, via);
    let mut asked = 0;
    // It announces other heads ten times a second, for two seconds, and answers at once.
    for number in 0..20u64 {
        let now = 1_000 + 100 * number;
        let mut heads = op.heads();
        heads.ledger[..8].copy_from_slice(&number.to_le_bytes());
        let announcement = Announcement {
            heads,
            ..Announcement::default()
        };
        let mut out = vec![];
        node.step(NOW, now, Input::Announced { via, announcement }, &mut out);
        loop {
            out.extend(tick(&mut node, now));
            if asks(&out).is_empty() {
                break;
            }
            asked += 1;
            out.clear();
            let mut page = op.page(&node.my_key(), &Request::default());
            page.heads.reports[..8].copy_from_slice(&(number + 100 * asked).to_le_bytes());
            node.step(NOW, now, Input::Answered { from: via, page }, &mut out);
        }
    }
    assert!(asked <= 16, "{asked} questions");
}

#[test]
fn questions_that_stay_open_keep_nobody_else_from_being_asked() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    for seed in 30..30 + MAX_ASKING as u8 {
        step(&mut node, Input::Connected(key(seed).public()));
    }
    let honest = op.my_key();
    assert!(asks(&step(&mut node, Input::Connected(honest))).is_empty());
    let at = node.deadline_millis().unwrap();
    assert!(at < 5_000, "not before {at} ms");
    let asked = asks(&tick(&mut node, at));
    assert!(asked.iter().any(|(to, _)| *to == honest));
}

#[test]
fn a_bucket_is_named_once_in_a_question() {
    let held = |buckets: &[u8]| {
        let buckets = buckets.iter().map(|bucket| (*bucket, vec![]));
        Request {
            ledger: Some(Summary::Held(buckets.collect())),
            ..Request::default()
        }
    };
    assert!(held(&[1, 2, 200]).sound());
    assert!(!held(&[1, 1]).sound() && !held(&[2, 1]).sound());
}

/// The whole cost of a node learning what it lacks: every request and every page.
fn cost(asker: &mut Replica, other: &mut Replica) -> usize {
    let (me, from) = (asker.my_key(), other.my_key());
    let mut bytes = 0;
    let heads = other.heads();
    let announcement = Announcement {
        heads,
        ..Announcement::default()
    };
    step(asker, Input::Connected(from));
    let page = other.page(&me, &Request::default());
    // From when the two are connected and know each other's heads.
    let mut out = step(asker, Input::Answered { from, page });
    step(
        asker,
        Input::Announced {
            via: from,
            announcement,
        },
    );
    while let Some((_, request)) = asks(&out).pop() {
        bytes += codec::encode(&request).unwrap().len();
        let reply = 0;
        let asked = Input::Asked {
            from: me,
            request,
            reply,
        };
        let answer = step(other, asked)
            .into_iter()
            .find_map(|output| match output {
                Output::Answer { page, .. } => Some(page),
                _ => None,
            });
        let page = answer.unwrap();
        bytes += codec::encode(&page).unwrap().len();
        out = step(asker, Input::Answered { from, page });
    }
    assert_eq!(asker.heads(), other.heads());
    bytes
}

#[test]
fn one_difference_in_a_mesh_of_a_thousand_costs_little() {
    let (mut op, _) = found(1);
    let roles = [Role::Agent].into_iter().collect();
    let crowd = crowd(&mut op, 1, 1_000, roles);
    assert_eq!(op.reports().iter().count(), 1_000);
    let mut node = twin(crowd[0].clone(), &op);
    assert_eq!(node.heads(), op.heads());

    create(&mut op, 1, &mut vec![]);
    let edit = cost(&mut node, &mut op);
    grant(&mut op, 1, &mut vec![]);
    let statement = cost(&mut node, &mut op);
    publish(&mut op, "op");
    let report = cost(&mut node, &mut op);
    eprintln!("one edit {edit} bytes, one statement {statement}, one report {report}");
    assert!(edit < 2048, "{edit} bytes for one edit");
    assert!(statement < 2048, "{statement} bytes for one statement");
    assert!(report < 2048, "{report} bytes for one report");
}

#[test]
fn two_reports_of_one_version_reach_each_other() {
    let (mut op, _) = found(1);
    let mut node = join(&mut op, 9);
    talk(&mut op, &mut node, 100);
    let mut clone = twin(key(9), &node);
    clone.write_unheard();
    publish(&mut node, "one");
    publish(&mut clone, "two");
    talk(&mut op, &mut node, 100);
    let other = key(9).public();
    let request = op.page(&op.my_key(), &Request::default());
    step(
        &mut op,
        Input::Answered {
            from: other,
            page: request,
        },
    );
    let held = op
        .reports()
        .bucket(node.me().unwrap().0[0])
        .map(|(node, version, hash)| HeldReport::new(node, version, hash));
    let request = Request {
        reports: Some(Summary::Held(vec![(
            node.me().unwrap().0[0],
            held.collect(),
        )])),
        ..Request::default()
    };
    let page = clone.page(&op.my_key(), &request);
    assert_eq!(page.reports.len(), 1);
    let out = step(&mut op, Input::Answered { from: other, page });
    let forked = |output: &Output| {
        matches!(
            output,
            Output::Raise(Alarm::Cloned {
                fork: Fork::Reports,
                ..
            })
        )
    };
    assert!(out.iter().any(forked));
}
