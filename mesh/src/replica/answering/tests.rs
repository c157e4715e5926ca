//! Pages: what is left out of them, and where they end.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::world::{NOW, crowd, found, invite, key, twin};
use crdt::{Edit, EditError};
use keys::{MigrationId, Role};

/// An operator's node that holds statements, the changes of two authors and reports,
/// three at least of each kind and author.
fn holder() -> Replica {
    let (mut op, _) = found(1);
    for seed in 60..64 {
        invite(&mut op, seed, 1, 5_000, &mut vec![]);
    }
    let others = crowd(&mut op, 1, 3, [Role::Operator].into_iter().collect());
    let mut second = twin(others[0].clone(), &op);
    second.write_unheard();
    for author in [&mut op, &mut second] {
        let mut plan = crate::replica::tests::plan_of(author, 1);
        plan.id = MigrationId([author.my_key().0[0]; 16]);
        let create = |edit: &mut Edit<'_>| edit.create_migration(&plan);
        author.edit(NOW, create, &mut vec![]).unwrap();
        for name in ["one", "two"] {
            let rename =
                |edit: &mut Edit<'_>| -> Result<(), EditError> { edit.rename(plan.id, name) };
            author.edit(NOW, rename, &mut vec![]).unwrap();
        }
    }
    let theirs = second
        .document()
        .entries_after(&second.my_key(), 0, usize::MAX);
    op.document.offer_all(theirs, &op.authority);
    op
}

fn nothing<T>() -> Vec<(u8, Vec<T>)> {
    (0..=255).map(|bucket| (bucket, vec![])).collect()
}

/// All that `replica` holds, as an asker that holds the same says it.
fn everything(replica: &Replica) -> Request {
    let statements = (0..=255).map(|bucket| {
        let held = replica.ledger.bucket(bucket);
        (bucket, held.map(|(id, _)| sync::short_id(id)).collect())
    });
    let reports = (0..=255).map(|bucket| {
        let held = replica.reports.bucket(bucket);
        let held = held.map(|(node, version, hash)| HeldReport::new(node, version, hash));
        (bucket, held.collect())
    });
    Request {
        ledger: Some(Summary::Held(statements.collect())),
        logs: Some(replica.document.heads().into_iter().collect()),
        reports: Some(Summary::Held(reports.collect())),
        ..Request::default()
    }
}

#[test]
fn who_holds_all_gets_nothing_and_who_holds_nothing_gets_all_in_order() {
    let op = holder();
    let asker = key(30).public();
    let page = op.page(&asker, &everything(&op));
    let counts = |page: &Page| {
        let (statements, changes) = (page.statements.len(), page.changes.len());
        (statements, changes, page.reports.len())
    };
    assert_eq!((counts(&page), page.more), ((0, 0, 0), false));
    let request = Request {
        ledger: Some(Summary::Held(nothing())),
        logs: Some(vec![]),
        reports: Some(Summary::Held(nothing())),
        ..Request::default()
    };
    let page = op.page(&asker, &request);
    assert_eq!((counts(&page), page.more), ((9, 6, 3), false));
    let ranks = page.statements.iter();
    let ranks = ranks.map(|signed| op.ledger.rank(&signed.statement_id()));
    assert!(ranks.is_sorted());
}

#[test]
fn an_older_report_and_another_of_the_same_version_are_answered_and_a_newer_is_not() {
    let op = holder();
    let asker = key(30).public();
    let held = |alter: fn(&mut HeldReport)| {
        let mut request = everything(&op);
        let Some(Summary::Held(buckets)) = &mut request.reports else {
            panic!("reports are listed");
        };
        for (_, held) in buckets {
            held.iter_mut().for_each(alter);
        }
        op.page(&asker, &request).reports.len()
    };
    assert_eq!(held(|report| report.version -= 1), 3);
    assert_eq!(held(|report| report.hash[0] ^= 1), 3);
    assert_eq!(held(|report| report.version += 1), 0);
}

#[test]
fn a_log_that_is_another_from_some_number_on_is_answered_from_the_beginning() {
    let op = holder();
    let mut heads = op.document.heads();
    heads.get_mut(&op.my_key()).unwrap().hash[0] ^= 1;
    let request = Request {
        logs: Some(heads.into_iter().collect()),
        ..Request::default()
    };
    let page = op.page(&key(30).public(), &request);
    assert_eq!(page.changes.len(), 3);
    // And one of which a part is held from there on.
    let mut heads = op.document.heads();
    let one = op.document.position(&op.my_key(), 1).unwrap();
    heads.insert(op.my_key(), one);
    let request = Request {
        logs: Some(heads.into_iter().collect()),
        ..Request::default()
    };
    let page = op.page(&key(30).public(), &request);
    assert_eq!(page.changes.len(), 2);
}

#[test]
fn a_part_of_one_log_says_that_there_is_more_of_it() {
    let op = holder();
    for author in op.document.heads().into_keys() {
        let mut others = op.document.heads();
        others.remove(&author);
        let others: Vec<_> = others.into_iter().collect();
        let mut page = vec![];
        assert!(op.add_changes(&others, &mut 1, &mut page));
        assert_eq!(page.len(), 1);
    }
}

/// Adds to a page until that many bytes are used up: how many things, and whether there
/// is more.
type Add<'a> = dyn Fn(&mut usize) -> (usize, bool) + 'a;

#[test]
fn a_page_ends_where_its_bytes_are_used_up_and_says_so() {
    let op = holder();
    let statements = |left: &mut usize| {
        let mut page = vec![];
        let more = op.add_statements(&nothing(), left, &mut page);
        (page.len(), more)
    };
    let changes = |left: &mut usize| {
        let mut page = vec![];
        let more = op.add_changes(&[], left, &mut page);
        (page.len(), more)
    };
    let reports = |left: &mut usize| {
        let mut page = vec![];
        let more = op.add_reports(&nothing(), left, &mut page);
        (page.len(), more)
    };
    let kinds: [(&Add<'_>, usize); 3] = [(&statements, 9), (&changes, 6), (&reports, 3)];
    for (add, all) in kinds {
        assert_eq!(add(&mut 0), (0, true));
        let mut left = 1;
        assert_eq!((add(&mut left), left), ((1, true), 0));
        let mut left = PAGE_BYTES;
        assert_eq!(add(&mut left), (all, false));
        let used = PAGE_BYTES - left;
        assert!(used > all * ENVELOPE, "{used} bytes");
        // Just enough for all but the last, which may overshoot.
        assert_eq!(add(&mut (used - 1)), (all, false));
    }
}
