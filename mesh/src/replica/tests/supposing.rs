//! What a revocation takes with it: seen before it is made, and told after it.

use super::own_head::second_operator;
use super::*;

fn revocation_of(other: &Replica) -> Statement {
    Statement::Revocation(Revocation {
        target: other.me().unwrap().into(),
        honours: None,
        reason: String::new(),
    })
}

fn orphaned(out: &[Output]) -> Option<(usize, usize)> {
    out.iter().find_map(|output| match output {
        Output::Raise(Alarm::Orphaned { changes, lost }) => Some((*changes, *lost)),
        _ => None,
    })
}

#[test]
fn what_a_revocation_would_take_is_seen_before_it_is_made_and_changes_nothing() {
    let (mut op, _) = found(1);
    let mut second = second_operator(&mut op, 2);
    create(&mut second, 1, &mut vec![]);
    talk(&mut op, &mut second, 100);
    // This operator's own edit rests on what is to go, and another stands by itself.
    let rename = |edit: &mut crdt::Edit<'_>| edit.rename(MigrationId([1; 16]), "ours");
    op.edit(NOW, rename, &mut vec![]).unwrap();
    create(&mut op, 2, &mut vec![]);
    let statement = revocation_of(&second);
    let (before, heads) = (op.ledger().len(), op.heads());
    for root in [None, Some(key(101))] {
        op.root = root;
        let unlent = op.suppose(None, NOW, statement.clone());
        assert_eq!(unlent.is_ok(), op.root.is_some());
        let lent = key(101);
        let stranger = op.suppose(Some(&key(55)), NOW, statement.clone());
        assert_eq!(stranger.unwrap_err(), StateError::AnotherRoot);
        let supposed = op.suppose(Some(&lent), NOW, statement.clone()).unwrap();
        assert_eq!(supposed.document.plan().migrations.len(), 1);
        assert_eq!((op.ledger().len(), op.heads()), (before, heads));
        let mut made = twin_of(&op);
        let lent = op.root.clone().unwrap_or(lent);
        made.state_as_root(&lent, NOW, statement.clone(), &mut vec![])
            .unwrap();
        assert_eq!(supposed.authority, *made.authority());
        assert_eq!(supposed.document.plan(), made.document().plan());
    }
}

/// The same replica, as it comes back from what was stored.
fn twin_of(replica: &Replica) -> Replica {
    let changes = replica.document().heads().into_keys();
    let changes =
        changes.flat_map(|author| replica.document().entries_after(&author, 0, usize::MAX));
    let ledger = replica.ledger().clone();
    let mut twin = Replica::restore(key(1), None, ledger, changes.collect(), vec![]).unwrap();
    twin.write_unheard();
    twin
}

#[test]
fn edits_whose_author_is_no_operator_any_more_are_told_as_lost() {
    for is_gone in [false, true] {
        let (mut op, _) = found(1);
        op.root = Some(key(101));
        let mut traitor = second_operator(&mut op, 2);
        let mut honest = second_operator(&mut op, 3);
        create(&mut traitor, 1, &mut vec![]);
        talk(&mut op, &mut traitor, 100);
        talk(&mut op, &mut honest, 100);
        let rename = |edit: &mut crdt::Edit<'_>| edit.rename(MigrationId([1; 16]), "theirs");
        honest.edit(NOW, rename, &mut vec![]).unwrap();
        talk(&mut op, &mut honest, 100);
        if is_gone {
            // All that it said is honoured.
            let changes = op.document().heads()[&honest.my_key()];
            let revocation = Statement::Revocation(Revocation {
                target: honest.me().unwrap().into(),
                honours: Some(keys::statement::Honoured {
                    key: honest.my_key(),
                    statements: keys::statement::Position::NONE,
                    changes,
                }),
                reason: String::new(),
            });
            op.state(NOW, revocation, &mut vec![]).unwrap();
        }
        let mut out = vec![];
        op.state(NOW, revocation_of(&traitor), &mut out).unwrap();
        assert_eq!(orphaned(&out), Some((1, usize::from(is_gone))));
    }
}
