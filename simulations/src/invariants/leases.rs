//! What must hold of leases: an operator vouches for nothing whose revocation it has
//! heard, and no block moves later than lease and autonomy after it did.
//!
//! Not here: what a permit is checked against beside (`invariants`).

use super::trust::key_in;
use super::{Invariant, grant_in, revoked_in};
use crate::context::Context;
use keys::lease::{Pair, Renewal};
use keys::statement::Entry;
use keys::{Ledger, NodeId, PublicKey, Role, Statement, StatementId};
use mesh::{Record, Replica};

/// INV-23, the operator's half: a report that is stored by its own node vouches for
/// nothing whose revocation that node holds. Notes when, for the other half.
pub fn only_the_good_is_vouched_for(ctx: &mut Context, replica: &Replica, records: &[Record]) {
    let Some(me) = replica.me() else { return };
    let is_operator = enrolled_as_operator(replica.ledger(), me);
    for record in records {
        match record {
            Record::Statement(signed) if is_operator => {
                if let Ok(entry) = signed.open_stored::<Entry>()
                    && let Statement::Revocation(revocation) = entry.statement
                {
                    ctx.oracle.revoked.insert(revocation.target);
                }
            }
            Record::Report(node, signed) if *node == me => {
                if let Ok(report) = signed.open_stored::<crdt::Report>()
                    // One that comes back to its author was looked at when it was made.
                    && ctx.oracle.is_made(me, report.version)
                {
                    note_vouched(ctx, replica, me, &report.renewals);
                }
            }
            _ => {}
        }
    }
}

fn enrolled_as_operator(ledger: &Ledger, node: NodeId) -> bool {
    let enrolment = ledger.get(&StatementId::from(node));
    enrolment.is_some_and(|recorded| {
        matches!(&recorded.entry.statement,
            Statement::Enrolment(enrolment) if enrolment.roles.has(Role::Operator))
    })
}

fn note_vouched(ctx: &mut Context, replica: &Replica, me: NodeId, renewals: &[Renewal]) {
    let ledger = replica.ledger();
    let revoked = revoked_in(ledger, ctx.oracle.lost.as_ref());
    for renewal in renewals {
        for pair in &renewal.pairs {
            let agent = grant_in(ledger, &pair.grant).map(|grant| StatementId::from(grant.agent));
            let ends = [Some(pair.grant), agent, Some(pair.replicator.into())];
            let gone = ends.into_iter().flatten().find(|end| revoked.contains(end));
            ctx.require(gone.is_none(), Invariant::MovedWithinLease, || {
                format!("operator {me:?} vouches for {pair:?} and knows that {gone:?} was revoked")
            });
            let answer = (me, renewal.holder, renewal.pulse, *pair);
            // The same answer again is worth no more than when it was first given.
            if ctx.oracle.answered.insert(answer) {
                let now = ctx.now;
                ctx.oracle.vouched.insert((renewal.holder, *pair), now);
            }
        }
    }
}

/// INV-23: a block that moves at this end, by the true time.
pub fn moved_within_lease(
    ctx: &mut Context,
    replica: &Replica,
    grant: StatementId,
    replicator: &PublicKey,
) {
    let (Some(me), Some(terms)) = (replica.me(), grant_in(replica.ledger(), &grant)) else {
        return;
    };
    let mut pool = terms.replicators.iter();
    let named = pool.find(|node| key_in(replica.ledger(), **node) == Some(*replicator));
    let Some(replicator) = named.copied() else {
        return;
    };
    let pair = Pair { grant, replicator };
    let ends = [grant, terms.agent.into(), replicator.into()];
    if ends.iter().any(|end| ctx.oracle.revoked.contains(end)) {
        ctx.seen.moved_unheard += 1;
    }
    let now = ctx.now;
    let exposed_millis = (terms.lease_secs + terms.autonomy_secs) * 1000;
    let vouched = ctx.oracle.vouched.get(&(me, pair)).copied();
    let within = vouched.is_some_and(|at| now < at + exposed_millis);
    ctx.require(within, Invariant::MovedWithinLease, || {
        format!("{me:?} moves a block under {pair:?}, vouched for at {vouched:?}, good for {exposed_millis} ms")
    });
}
