//! What people are told of work that goes on though its lease is over.

use crate::Now;
use crate::note::Note;
use keys::Permit;

/// What is said of work while its lease is over and its autonomy is not.
pub const ON_AUTONOMY: &str = "runs on the autonomy of its grant: no operator's node has renewed the lease; start one that this node can reach";

/// What people are told when a permit comes to rest on autonomy, or does so no more.
pub fn autonomy_note<Direction>(
    was_on_autonomy: bool,
    now: Now,
    permit: &Permit<Direction>,
) -> Option<Note> {
    match (was_on_autonomy, permit.is_on_autonomy(now)) {
        (false, true) => {
            let span = permit.span();
            let text = format!(
                "grant {}: no operator's node has renewed its lease of {} s; work goes on for up to {} s more, in which a revocation may go unheard: start an operator's node that this node can reach",
                permit.grant().short(),
                span.lease_secs,
                span.autonomy_secs,
            );
            Some(Note::warn("on-autonomy", text))
        }
        (true, false) => {
            let text = format!("grant {}: its lease was renewed", permit.grant().short());
            Some(Note::info("lease-renewed", text))
        }
        _ => None,
    }
}
