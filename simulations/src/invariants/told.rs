//! What a node has told others: it is durable when it is told, and still there whenever the
//! node comes back.
//!
//! Not here: that what is stored was signed (`signed`).

use super::{Invariant, revoked_in};
use crate::context::Context;
use crate::node::Node;
use crate::recovery::Lost;
use crate::store::Store;
use crdt::{Forked, SignedChange};
use keys::authority::Authorship;
use keys::{NodeId, PublicKey, Signed, StatementId, UnixSecs};
use mesh::Replica;
use roles::JobId;
use std::collections::{BTreeMap, BTreeSet};

/// What one node has told.
#[derive(Default)]
pub(super) struct Telling {
    statements: BTreeSet<StatementId>,
    /// Of each author by their numbers; of one number there may be one more that was made
    /// again.
    changes: BTreeSet<(PublicKey, u64, SignedChangeId)>,
    reports: BTreeMap<(NodeId, PublicKey), u64>,
}

type SignedChangeId = [u8; 32];

fn change_id(change: &SignedChange) -> SignedChangeId {
    *blake3::hash(&change.raw).as_bytes()
}

/// INV-01: what is told is durable; and notes it for INV-02.
pub fn told_is_durable(
    ctx: &mut Context,
    node: usize,
    store: &Store,
    (statements, changes, reports): (&[Signed], &[SignedChange], &[Signed]),
) {
    for signed in statements {
        let id = signed.statement_id();
        ctx.require(store.has_statement(&id), Invariant::ToldIsDurable, || {
            format!("node {node} told statement {id:?}, which it has not stored")
        });
        let told = ctx.oracle.told.entry(node).or_default();
        told.statements.insert(id);
    }
    for change in changes {
        let author = change.author;
        let mut stored = store.changes.iter();
        let held = stored.find(|((by, _), stored)| *by == author && stored.raw == change.raw);
        ctx.require(held.is_some(), Invariant::ToldIsDurable, || {
            format!("node {node} told a change of {author:?}, which it has not stored")
        });
        let told = ctx.oracle.told.entry(node).or_default();
        let number = held.map(|((_, number), _)| (author, *number, change_id(change)));
        told.changes.extend(number);
    }
    for signed in reports {
        let held = store.reports.values().any(|held| held == signed);
        ctx.require(held, Invariant::ToldIsDurable, || {
            format!(
                "node {node} told a report of {:?}, which it has not stored",
                signed.signer
            )
        });
        if let Ok(report) = signed.open_stored::<crdt::Report>() {
            let told = ctx.oracle.told.entry(node).or_default();
            let version = told
                .reports
                .entry((report.node, signed.signer))
                .or_default();
            *version = report.version.max(*version);
        }
    }
}

/// Somebody put an old copy back: what the node told since is not its fault to forget.
pub fn forgets_what_it_told(ctx: &mut Context, node: &Node) {
    ctx.oracle.told.remove(&node.index);
    // Nor are its trees what they were: they count again once a session compared them.
    let jobs = node.store.trees.keys().map(|(job, _)| *job);
    let own = ctx
        .oracle
        .level
        .keys()
        .copied()
        .filter(|job| node.sources.contains_key(&job.volume));
    let jobs: Vec<JobId> = jobs.chain(own).collect();
    for job in jobs {
        ctx.oracle.forget(&job);
    }
}

/// INV-02: a node that has come back holds what it told before.
pub fn nothing_told_is_forgotten(ctx: &mut Context, node: &Node) {
    let (Some(replica), Some(told)) = (node.replica(), ctx.oracle.told.get(&node.index)) else {
        return;
    };
    let document = replica.document();
    let authors = document.heads();
    let counts = authors
        .keys()
        .flat_map(|author| document.entries_after(author, 0, usize::MAX));
    // While somebody's word is not whole here, what rests on it is kept for when it counts.
    let changes = || node.store.changes.values();
    let counts_in_full = |change: &SignedChange| {
        replica.authority().authorship(&change.author) == Some(Authorship::Full)
    };
    let is_whole = changes().all(counts_in_full);
    let kept = changes().filter(|_| !is_whole).cloned();
    let held: BTreeSet<_> = counts
        .chain(kept)
        .map(|change| (change.author, change_id(&change)))
        .collect();
    let missing = told
        .statements
        .iter()
        .find(|id| replica.ledger().get(id).is_none())
        .map(|id| format!("statement {id:?}"))
        .or_else(|| {
            let lost = ctx.oracle.lost.as_ref();
            let mut changes = told.changes.iter();
            let change = changes.find(|(author, number, id)| {
                // What lost what it rests on is made again under its number.
                let again = document.entries_after(author, number - 1, 1);
                let is_made_again = again.first().is_some_and(|again| change_id(again) != *id);
                let id = (*author, *id);
                !held.contains(&id)
                    && !is_made_again
                    && !is_past_the_honoured(lost, node, replica, &id)
            });
            change.map(|(author, number, _)| format!("change {number} of {author:?}"))
        })
        .or_else(|| {
            // Of those that left the mesh no report is kept, nor one of a key given up; and
            // of a key in two places the two that prove it.
            let reports = replica.reports();
            let mut told = told.reports.iter();
            let older = told.find(|((id, key), version)| {
                let held = reports.get(id).map(|report| report.version);
                let stays = replica
                    .authority()
                    .member(id)
                    .is_some_and(|member| member.key == *key)
                    && replica.authority().admits(UnixSecs(0), key)
                    && !node.store.evidence.contains_key(&Forked::Reports(*id));
                stays && held.is_none_or(|held| held < **version)
            });
            older.map(|((id, _), version)| format!("report {version} of {id:?}"))
        });
    if let Some(missing) = missing {
        let text = format!(
            "node {} told {missing} and came back without it",
            node.index
        );
        ctx.fail(Invariant::NothingToldIsForgotten, text);
    }
}

/// Whether a change is one that an operator's revocation, which the node holds, leaves out.
fn is_past_the_honoured(
    lost: Option<&Lost>,
    node: &Node,
    replica: &Replica,
    (author, id): &(PublicKey, SignedChangeId),
) -> bool {
    let Some(lost) = lost.filter(|lost| lost.key == *author) else {
        return false;
    };
    let member = replica.authority().by_key(author);
    let revoked = revoked_in(replica.ledger(), None);
    let is_revoked = member.is_some_and(|member| revoked.contains(&member.id.into()));
    let honoured = (*author, 0)..=(*author, lost.honoured.changes.seq);
    let mut honoured = node.store.changes.range(honoured);
    is_revoked && !honoured.any(|(_, change)| change_id(change) == *id)
}
