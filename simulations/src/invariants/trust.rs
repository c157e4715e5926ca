//! What must hold of operators and keys: conflicts are told, of an operator that was taken
//! back counts what is honoured, and a node that changed its key stays the same node.
//!
//! Not here: what blocks and plans have to do with it (`invariants`).

use super::{Invariant, revoked_in};
use crate::context::Context;
use crate::node::Node;
use crdt::plan::Conflict;
use crdt::{EntryId, Forked};
use keys::{Ledger, NodeId, PublicKey, Statement, StatementId, UnixSecs};
use mesh::Replica;
use std::collections::BTreeMap;

/// INV-28, on a node that has heard of a change of keys.
pub(super) fn old_keys_are_out(ctx: &mut Context, node: &Node, replica: &Replica) {
    if ctx.oracle.changed_keys.is_empty() {
        return;
    }
    let rotations = rotations_in(replica.ledger());
    let authority = replica.authority();
    let wrong = ctx.oracle.changed_keys.iter().find(|change| {
        let is_heard = rotations.get(&change.old) == Some(&change.new);
        let goes_on = authority.by_key(&change.new).map(|member| member.id) == Some(change.node);
        is_heard && (authority.admits(UnixSecs(0), &change.old) || !goes_on)
    });
    if let Some(change) = wrong.copied() {
        let text = format!("node {} takes {change:?} for what it is not", node.index);
        ctx.fail(Invariant::ChangedKeysCount, text);
    }
}

/// INV-28: a node comes back with the key that its own ledger gives it.
pub fn goes_on_as_itself(ctx: &mut Context, node: usize, replica: &Replica) {
    let key = replica.my_key();
    let rotations = rotations_in(replica.ledger());
    ctx.require(
        !rotations.contains_key(&key),
        Invariant::ChangedKeysCount,
        || format!("node {node} comes back with a key that it has changed"),
    );
}

/// Which key follows which, read from the statements.
pub(super) fn rotations_in(ledger: &Ledger) -> BTreeMap<PublicKey, PublicKey> {
    let rotations = ledger.iter();
    rotations
        .filter_map(|(_, recorded)| match &recorded.entry.statement {
            Statement::Rotation(rotation) => Some((recorded.signed.signer, rotation.key)),
            _ => None,
        })
        .collect()
}

/// The key that a node has, read from the statements.
pub(super) fn key_in(ledger: &Ledger, node: NodeId) -> Option<PublicKey> {
    let Statement::Enrolment(enrolment) = &ledger.get(&node.into())?.entry.statement else {
        return None;
    };
    let rotations = rotations_in(ledger);
    let mut key = enrolment.subject;
    // Nobody comes back to a key that it had.
    while let Some(next) = rotations.get(&key) {
        key = *next;
    }
    Some(key)
}

/// INV-27, on a node that has heard that an operator was taken back.
pub(super) fn only_the_honoured_counts(ctx: &mut Context, node: &Node) {
    let (Some(lost), Some(replica)) = (ctx.oracle.lost.clone(), node.replica()) else {
        return;
    };
    let (ledger, authority) = (replica.ledger(), replica.authority());
    let Some(id) = authority.by_key(&lost.key).map(|member| member.id) else {
        return;
    };
    let revoked = revoked_in(ledger, Some(&lost));
    if !revoked.contains(&id.into()) {
        return;
    }
    // Who has not heard of all that leads up to the last one cannot tell it from a branch:
    // there less may count.
    let is_whole = ledger.is_whole(&lost.key, &lost.honoured.statements);
    let mut wrong = vec![];
    for (id, state) in authority.grants() {
        if let Some(seq) = place_of(ledger, id, &lost.key) {
            let counts = seq <= lost.honoured.statements.seq && !revoked.contains(id);
            if state.revoked == counts && (is_whole || !counts) {
                wrong.push(format!("grant {id:?}, number {seq}"));
            }
        }
    }
    for member in authority.members() {
        let id = StatementId::from(member.id);
        if let Some(seq) = place_of(ledger, &id, &lost.key) {
            let counts = seq <= lost.honoured.statements.seq && !revoked.contains(&id);
            let stands = member.standing == keys::Standing::Active;
            if stands != counts && (is_whole || stands) {
                wrong.push(format!("enrolment {id:?}, number {seq}"));
            }
        }
    }
    let plans = &replica.document().plan().migrations;
    if plans.contains_key(&lost.stolen) {
        wrong.push("a migration that a thief planned".into());
    }
    ctx.require(wrong.is_empty(), Invariant::OnlyTheHonouredCounts, || {
        let (at, honoured) = (node.index, lost.honoured.statements.seq);
        format!("node {at} takes for what it is not: {wrong:?}; {honoured} are honoured")
    });
}

/// INV-29, for a block that moves at a node between two ends.
pub fn no_copy_moves(ctx: &mut Context, node: &Node, ends: [&PublicKey; 2]) {
    let Some(replica) = node.replica() else {
        return;
    };
    let mut forked = node.store.evidence.keys();
    let is_end = |forked: &&Forked| {
        let key = match forked {
            Forked::Reports(node) => key_in(replica.ledger(), *node),
            Forked::Changes(author, _) => Some(*author),
        };
        key.is_some_and(|key| ends.contains(&&key))
    };
    if let Some(forked) = forked.find(is_end) {
        let text = format!("node {} moves a block and knows of {forked:?}", node.index);
        ctx.fail(Invariant::CopiesAreStopped, text);
    }
}

/// The number of a statement among those of a key, if it is of that key.
fn place_of(ledger: &Ledger, id: &StatementId, key: &PublicKey) -> Option<u64> {
    let recorded = ledger.get(id)?;
    (recorded.signed.signer == *key).then_some(recorded.entry.seq)
}

/// Fields of which people are told that they were set apart.
const DECIDING: [&str; 4] = ["desired", "limit", "pool", "provisioner"];

/// INV-26: every conflict of the plan that a node holds was told there, as it is now; and
/// nodes that hold the same see the same.
pub(super) fn conflicts_are_told(ctx: &mut Context, node: &Node, held: ([u8; 32], [u8; 32])) {
    let Some(replica) = node.replica() else {
        return;
    };
    let open = crdt::conflicts::all(replica.document().plan());
    let open: Vec<(EntryId, Conflict)> = open
        .map(|(entry, conflict)| (entry, conflict.clone()))
        .collect();
    for (entry, conflict) in &open {
        if DECIDING.contains(&conflict.field.as_str()) {
            let is_told = node.knows_conflict(entry, conflict);
            ctx.require(is_told, Invariant::ConflictsAreTold, || {
                format!("node {} does not tell of {conflict:?}", node.index)
            });
        }
    }
    let same = *ctx
        .oracle
        .conflicts
        .entry(held)
        .or_insert_with(|| open.clone())
        == open;
    ctx.require(same, Invariant::ConflictsAreTold, || {
        format!("node {} sees other conflicts in the same logs", node.index)
    });
}
