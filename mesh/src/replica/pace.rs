//! How fast the reports of one member are taken in: every node stores and passes on each
//! of them, and one that never stops would keep all others busy. What comes too fast is
//! left out; the newest of it is asked for later.
//!
//! A leaking bucket for each member: what was taken in fills it, and time empties it.

use keys::NodeId;
use std::collections::BTreeMap;

/// Bytes of reports that are taken in of a member at once.
const BURST_BYTES: u64 = 1024 * 1024;
/// And from then on, each second: four short reports, or a quarter of the longest. An honest
/// node makes no more than that.
pub const BYTES_PER_SEC: u64 = 64 * 1024;
/// What storing a report costs however short it is, in bytes.
const LEAST_BYTES: u64 = 16 * 1024;

/// What was taken in of members that reported lately.
#[derive(Debug, Default)]
pub(super) struct Pace {
    members: BTreeMap<NodeId, Taken>,
    now_millis: u64,
    emptied_millis: u64,
}

#[derive(Debug)]
struct Taken {
    bytes: u64,
    at_millis: u64,
}

impl Taken {
    fn left_at(&self, now_millis: u64) -> u64 {
        let passed = now_millis.saturating_sub(self.at_millis);
        let emptied = passed.saturating_mul(BYTES_PER_SEC) / 1000;
        self.bytes.saturating_sub(emptied)
    }
}

impl Pace {
    /// To be called before what comes at this time.
    pub(super) fn at(&mut self, now_millis: u64) {
        self.now_millis = now_millis;
        if now_millis >= self.emptied_millis.saturating_add(1000) {
            self.emptied_millis = now_millis;
            self.members
                .retain(|_, taken| taken.left_at(now_millis) > 0);
        }
    }

    /// Whether a report of this member may be taken in now.
    pub(super) fn allows(&self, member: &NodeId) -> bool {
        let taken = self.members.get(member);
        taken.is_none_or(|taken| taken.left_at(self.now_millis) < BURST_BYTES)
    }

    /// A report of so many bytes was taken in.
    pub(super) fn took(&mut self, member: NodeId, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).max(LEAST_BYTES);
        let now_millis = self.now_millis;
        let taken = self.members.entry(member).or_insert(Taken {
            bytes: 0,
            at_millis: now_millis,
        });
        taken.bytes = taken.left_at(now_millis).saturating_add(bytes);
        taken.at_millis = now_millis;
    }
}
