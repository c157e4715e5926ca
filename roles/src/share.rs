//! What an agent takes of a limit that all agents of its site share.
//!
//! Each counts, from what all hold (ledger, plan, reports), the agents that may be sending,
//! and takes one part of as many. Nobody hands parts out, so that an agent which is cut off
//! from the others takes no more than its part. What an agent does not use it lends: while
//! it sends nothing it says so in its gossip, each time for a span, and keeps within
//! [`kept`] of its part until that span is over wherever it was heard. Only what is lent so
//! do the others add to theirs.
//!
//! That no more than the limit is sent in all: with `n` agents and a part of `d` each, of
//! which `i` lend, an agent that does not has `d + j (d - k) / (n - j)`, where `k` is what
//! is kept and `j` of those that lend were heard here, at most `i`. That grows with `j`, so
//! that all of them have `(n - i) d + i (d - k)` at most, and with the `i k` of those that
//! lend that is `n d`. Who counts more agents than there are takes less. Sessions are paced
//! at [`LEAST_LIMIT`] at least: below `n` times that the sum is more than the limit.
//!
//! A span counts from when it was heard, and who gave it is bound by it from when it was
//! said. So all that holds as long as gossip takes no longer than two seconds. Where it does,
//! because a machine was paused or stalled, or messages waited, what was lent may be sent
//! twice for as long as it was later than that, and for a span at most.
//!
//! Not here: which rate holds now, and telling the others (`node`).

use crate::situation::is_over;
use blocks::LEAST_LIMIT;
use crdt::{Desired, Plan, Reports};
use keys::{Authority, Name, NodeId, Role, Standing, UnixSecs};
use std::collections::BTreeSet;

/// Of its part, an agent that lends keeps one in so many, to begin with before the others
/// have heard that it sends.
const KEPT_OF: u64 = 8;
/// An agent lends once nothing was sent for so long and nothing is on its way.
const QUIET_MILLIS: u64 = 3_000;
/// How much longer than it says an agent keeps to what it said: what gossip may take.
const SLACK_MILLIS: u64 = 2_000;
/// The longest span for which what an agent lends counts: it says so again.
pub const MAX_LENT_MILLIS: u64 = 60_000;

/// Agents of a site that may be sending: those of whom any migration is wanted to go on and
/// is not over.
pub fn senders(
    plan: &Plan,
    authority: &Authority,
    reports: &Reports,
    now: UnixSecs,
    site: &Name,
) -> BTreeSet<NodeId> {
    let goes_on = plan.migrations.values().filter(|plan| {
        matches!(plan.desired, Desired::Started | Desired::Cutover { .. })
            && !is_over(plan, reports)
    });
    let sources: BTreeSet<NodeId> = goes_on.map(|plan| plan.source).collect();
    let is_there = |id: &NodeId| {
        authority.member(id).is_some_and(|member| {
            member.standing == Standing::Active
                && member.roles.has(Role::Agent)
                && member.not_after.is_none_or(|end| now < end)
                && member.site.as_ref() == Some(site)
        })
    };
    sources.into_iter().filter(is_there).collect()
}

/// Whether others could use what `me` does not, so that it says that it lends.
pub fn has_borrowers(senders: &BTreeSet<NodeId>, me: &NodeId) -> bool {
    senders.len() > 1 && senders.contains(me)
}

/// What an agent that lends keeps of its part, in bytes a second: no less than sessions are
/// paced at, or it would send more than it kept.
fn kept(part: u64) -> u64 {
    (part / KEPT_OF).max(LEAST_LIMIT).min(part)
}

/// Bytes a second of a site's `rate` that `me` may send, where these agents may be sending,
/// and these of them lend. The agent itself is among `lending` as long as it is bound by
/// what it lent, see [`Lending::is_bound`]; the only one of `senders` has all nevertheless.
pub fn share(
    rate: u64,
    senders: &BTreeSet<NodeId>,
    lending: &BTreeSet<NodeId>,
    me: &NodeId,
) -> u64 {
    let others = senders.iter().filter(|sender| *sender != me);
    let (mut count, mut lent) = (1, 0);
    for other in others {
        count += 1;
        lent += u64::from(lending.contains(other));
    }
    let part = rate / count;
    // Alone there is nobody who could have more for it.
    if lending.contains(me) && count > 1 {
        return kept(part).max(1);
    }
    let more = lent * (part - kept(part)) / (count - lent);
    (part + more).max(1)
}

/// Whether an agent lends its part, and how long it is bound by that.
#[derive(Debug, Clone)]
pub struct Lending {
    sent_bytes: u64,
    /// Since when nothing was sent; none while something is.
    quiet_since: Option<u64>,
    bound_until: u64,
}

impl Lending {
    /// Of a process that begins now: of the one before it others may have heard a moment
    /// ago that it lends, for such a span.
    pub fn new(now_millis: u64, span_millis: u64) -> Self {
        Self {
            sent_bytes: 0,
            quiet_since: None,
            bound_until: now_millis + span_millis + SLACK_MILLIS,
        }
    }

    /// Takes in what the agent's sessions have sent so far, and whether any of it is not
    /// durable yet.
    pub fn look(&mut self, now_millis: u64, sent_bytes: u64, on_its_way: bool) {
        if on_its_way || sent_bytes != self.sent_bytes {
            self.quiet_since = None;
            self.sent_bytes = sent_bytes;
        } else {
            self.quiet_since.get_or_insert(now_millis);
        }
    }

    /// Whether the agent may say that it lends.
    pub fn lends(&self, now_millis: u64) -> bool {
        let quiet = self
            .quiet_since
            .map(|since| now_millis.saturating_sub(since));
        quiet.is_some_and(|quiet| quiet >= QUIET_MILLIS)
    }

    /// It says now that it lends for such a span.
    pub fn said(&mut self, now_millis: u64, span_millis: u64) {
        let until = now_millis + span_millis + SLACK_MILLIS;
        self.bound_until = self.bound_until.max(until);
    }

    /// Whether it has to keep within what it keeps while it lends.
    pub fn is_bound(&self, now_millis: u64) -> bool {
        now_millis < self.bound_until
    }
}

#[cfg(test)]
mod tests;
