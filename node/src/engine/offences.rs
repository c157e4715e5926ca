//! How often a peer sent what no honest node sends, and how long it stays out for it.
//!
//! Pure: time comes in. Only signatures that do not hold and bytes that do not parse
//! are counted, never what is late, unknown, refused or of another version, so that an
//! honest peer loses nothing (see `docs/decisions/0018-a-peer-that-forges-stays-out.md`).
//! Not here: what such a thing is, and closing its connections.

use keys::PublicKey;
use std::collections::BTreeMap;

/// Offences within [`WINDOW_MILLIS`] that cost a peer its place: far more than broken
/// memory or a broken disk has ever been seen to make, and soon reached by an attacker.
pub const MAX_OFFENCES: u32 = 32;
/// Offences are forgotten after this.
pub const WINDOW_MILLIS: u64 = 10 * 60_000;
/// How long a peer stays out: long enough to cost nothing, short enough that a node
/// that was mended comes back by itself.
pub const PAUSE_MILLIS: u64 = 10 * 60_000;

#[derive(Debug, Clone, Copy)]
enum Standing {
    Counted { offences: u32, until: u64 },
    Out { until: u64 },
}

/// Enrolled peers that offended lately: as many as there are members, at most.
#[derive(Debug, Default)]
pub struct Offences(BTreeMap<PublicKey, Standing>);

impl Offences {
    /// Counts one offence; whether it is the one that costs `peer` its place.
    pub fn count(&mut self, now_millis: u64, peer: PublicKey) -> bool {
        let fresh = Standing::Counted {
            offences: 0,
            until: now_millis + WINDOW_MILLIS,
        };
        let standing = self.0.entry(peer).or_insert(fresh);
        if matches!(standing, Standing::Counted { until, .. } if *until <= now_millis) {
            *standing = fresh;
        }
        let Standing::Counted { offences, .. } = standing else {
            return false;
        };
        *offences += 1;
        let is_last = *offences >= MAX_OFFENCES;
        if is_last {
            let until = now_millis + PAUSE_MILLIS;
            *standing = Standing::Out { until };
        }
        is_last
    }

    /// Whether `peer` is to have no connection now.
    pub fn is_out(&self, peer: &PublicKey) -> bool {
        matches!(self.0.get(peer), Some(Standing::Out { .. }))
    }

    /// Whether nothing is held against `peer`.
    #[cfg(test)]
    pub fn is_clear(&self, peer: &PublicKey) -> bool {
        !self.0.contains_key(peer)
    }

    /// Those whose pause is over: they may come back.
    pub fn over(&mut self, now_millis: u64) -> Vec<PublicKey> {
        let back = self.0.iter().filter_map(|(peer, standing)| match standing {
            Standing::Out { until } if *until <= now_millis => Some(*peer),
            _ => None,
        });
        let back: Vec<PublicKey> = back.collect();
        self.0.retain(|_, standing| {
            let (Standing::Counted { until, .. } | Standing::Out { until }) = standing;
            now_millis < *until
        });
        back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PublicKey = PublicKey([1; 32]);

    #[test]
    fn a_peer_is_out_at_the_limit_and_back_after_the_pause() {
        let mut offences = Offences::default();
        for at in 1..MAX_OFFENCES {
            assert!(!offences.count(u64::from(at), PEER));
        }
        assert!(!offences.is_out(&PEER));
        assert!(offences.count(1_000, PEER));
        assert!(offences.is_out(&PEER));
        assert!(!offences.count(1_001, PEER), "it is told once");
        assert!(offences.over(1_000 + PAUSE_MILLIS - 1).is_empty());
        assert!(offences.is_out(&PEER));
        assert_eq!(offences.over(1_000 + PAUSE_MILLIS), [PEER]);
        assert!(!offences.is_out(&PEER));
        assert!(offences.0.is_empty());
    }

    #[test]
    fn offences_far_apart_cost_nothing() {
        let mut offences = Offences::default();
        for at in 0..u64::from(10 * MAX_OFFENCES) {
            assert!(!offences.count(at * WINDOW_MILLIS / 20, PEER));
        }
        assert!(offences.over(u64::MAX).is_empty());
        assert!(offences.0.is_empty());
    }
}
