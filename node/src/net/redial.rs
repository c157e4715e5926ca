//! Which peers to dial, and when to try again. Pure: time comes in, dials come
//! out. Not a record of connections: it is told what became of each dial.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;

use super::peer::PeerKey;

/// Peers we keep connections to by dialling; inbound ones may add to them.
pub(super) const MAX_PEERS: usize = 128;
/// Dials under way at once: each holds a socket and a handshake.
const MAX_DIALS: usize = 16;
/// Addresses tried for one peer: a longer list is a mistake or an attack.
pub(super) const MAX_ADDRESSES: usize = 16;
/// First pause after a failure or a lost connection.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A connection that lived this long was a good one: pauses start anew.
const STABLE: Duration = Duration::from_secs(10);

/// The peers to keep connected, each with its addresses and its next try.
#[derive(Debug)]
pub(super) struct Redial {
    peers: BTreeMap<PeerKey, Entry>,
    rng: u64,
}

#[derive(Debug)]
struct Entry {
    addresses: Vec<Multiaddr>,
    tries: u32,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Waiting { until: Instant },
    Dialling,
    Connected { since: Instant },
}

impl Redial {
    /// An empty table; `seed` makes the jitter of two nodes differ.
    pub(super) fn new(seed: u64) -> Self {
        let peers = BTreeMap::new();
        Redial { peers, rng: seed }
    }

    /// Replaces the whole set of wanted peers. New peers, and peers whose
    /// addresses changed, are due at once; the others keep their state.
    pub(super) fn want(
        &mut self,
        now: Instant,
        wanted: BTreeMap<PeerKey, Vec<Multiaddr>>,
        is_connected: impl Fn(&PeerKey) -> bool,
    ) {
        let mut old = std::mem::take(&mut self.peers);
        for (key, mut addresses) in wanted {
            addresses.truncate(MAX_ADDRESSES);
            let entry = match old.remove(&key) {
                Some(entry) if entry.addresses == addresses => entry,
                Some(Entry { state, .. }) if !matches!(state, State::Waiting { .. }) => Entry {
                    addresses,
                    tries: 0,
                    state,
                },
                _ if is_connected(&key) => Entry {
                    addresses,
                    tries: 0,
                    state: State::Connected { since: now },
                },
                _ => Entry {
                    addresses,
                    tries: 0,
                    state: State::Waiting { until: now },
                },
            };
            self.peers.insert(key, entry);
        }
    }

    /// The peers to dial now, marked as being dialled. `live` is how many
    /// peers are connected in all.
    pub(super) fn due(&mut self, now: Instant, live: usize) -> Vec<(PeerKey, Vec<Multiaddr>)> {
        let room = self.room(live);
        let mut due: Vec<_> = self
            .peers
            .iter_mut()
            .filter_map(|(key, entry)| match entry.state {
                State::Waiting { until } if until <= now => Some((until, key, entry)),
                _ => None,
            })
            .collect();
        // Longest overdue first, so that a full table still gets to everyone.
        due.sort_by_key(|(until, ..)| *until);
        due.into_iter()
            .take(room)
            .map(|(_, key, entry)| {
                entry.state = State::Dialling;
                (*key, entry.addresses.clone())
            })
            .collect()
    }

    /// When `due` next has something to give.
    pub(super) fn deadline(&self, live: usize) -> Option<Instant> {
        if self.room(live) == 0 {
            return None;
        }
        let waiting = self.peers.values().filter_map(|entry| match entry.state {
            State::Waiting { until } => Some(until),
            State::Dialling | State::Connected { .. } => None,
        });
        waiting.min()
    }

    /// A dial came to nothing.
    pub(super) fn failed(&mut self, now: Instant, key: &PeerKey) {
        let rng = &mut self.rng;
        if let Some(entry) = self.peers.get_mut(key)
            && matches!(entry.state, State::Dialling)
        {
            entry.pause(now, rng);
        }
    }

    /// The peer is connected, whoever dialled.
    pub(super) fn connected(&mut self, now: Instant, key: &PeerKey) {
        if let Some(entry) = self.peers.get_mut(key)
            && !matches!(entry.state, State::Connected { .. })
        {
            entry.state = State::Connected { since: now };
        }
    }

    /// The last connection to the peer is gone.
    pub(super) fn lost(&mut self, now: Instant, key: &PeerKey) {
        let rng = &mut self.rng;
        if let Some(entry) = self.peers.get_mut(key)
            && let State::Connected { since } = entry.state
        {
            if now.duration_since(since) >= STABLE {
                entry.tries = 0;
            }
            entry.pause(now, rng);
        }
    }

    fn room(&self, live: usize) -> usize {
        let dialling = self
            .peers
            .values()
            .filter(|entry| matches!(entry.state, State::Dialling))
            .count();
        let for_dials = MAX_DIALS.saturating_sub(dialling);
        for_dials.min(MAX_PEERS.saturating_sub(live + dialling))
    }
}

impl Entry {
    /// Doubling pauses, each cut to between a half and the whole of itself, so
    /// that nodes which lost the same peer do not come back in step.
    fn pause(&mut self, now: Instant, rng: &mut u64) {
        let whole = FIRST_PAUSE
            .saturating_mul(1 << self.tries.min(16))
            .min(LONGEST_PAUSE);
        let part = (next(rng) >> 40) as f64 / (1u64 << 24) as f64;
        let until = now + whole.mul_f64(0.5 + part / 2.0);
        self.tries = self.tries.saturating_add(1);
        self.state = State::Waiting { until };
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for jitter, never for keys.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wanted(keys: impl IntoIterator<Item = u8>) -> BTreeMap<PeerKey, Vec<Multiaddr>> {
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        keys.into_iter()
            .map(|key| ([key; 32], vec![address.clone()]))
            .collect()
    }

    #[test]
    fn pauses_grow_with_each_failure_up_to_the_longest() {
        let mut now = Instant::now();
        let mut redial = Redial::new(1);
        redial.want(now, wanted([1]), |_| false);
        for tries in 0..20 {
            assert_eq!(redial.due(now, 0).len(), 1);
            redial.failed(now, &[1; 32]);
            let pause = redial.deadline(0).unwrap() - now;
            let whole = FIRST_PAUSE
                .saturating_mul(1 << tries.min(16))
                .min(LONGEST_PAUSE);
            assert!(
                pause >= whole / 2 && pause <= whole,
                "{pause:?} of {whole:?}"
            );
            now += pause;
        }
    }

    #[test]
    fn a_connection_that_lasted_makes_the_pauses_start_anew() {
        let start = Instant::now();
        let mut redial = Redial::new(1);
        redial.want(start, wanted([1]), |_| false);
        for _ in 0..10 {
            redial.due(start + LONGEST_PAUSE, 0);
            redial.failed(start, &[1; 32]);
        }
        redial.connected(start, &[1; 32]);
        redial.lost(start + STABLE, &[1; 32]);
        assert!(redial.deadline(0).unwrap() <= start + STABLE + FIRST_PAUSE);
    }

    #[test]
    fn a_full_house_dials_nobody_and_asks_for_no_wakeup() {
        let now = Instant::now();
        let mut redial = Redial::new(1);
        redial.want(now, wanted(0..40), |_| false);
        assert!(redial.due(now, MAX_PEERS).is_empty());
        assert_eq!(redial.deadline(MAX_PEERS), None);
        assert_eq!(redial.due(now, 0).len(), MAX_DIALS);
        assert!(redial.due(now, 0).is_empty());
        assert_eq!(redial.deadline(0), None);
    }

    #[test]
    fn a_failed_dial_does_not_hide_that_the_peer_came_to_us() {
        let now = Instant::now();
        let mut redial = Redial::new(1);
        redial.want(now, wanted([1]), |_| false);
        redial.due(now, 0);
        redial.connected(now, &[1; 32]);
        redial.failed(now, &[1; 32]);
        assert_eq!(redial.deadline(1), None);
    }

    #[test]
    fn new_addresses_are_tried_at_once() {
        let now = Instant::now();
        let mut redial = Redial::new(1);
        redial.want(now, wanted([1]), |_| false);
        redial.due(now, 0);
        redial.failed(now, &[1; 32]);
        let mut moved = wanted([1]);
        moved.insert([1; 32], vec!["/ip4/127.0.0.1/tcp/2".parse().unwrap()]);
        redial.want(now, moved, |_| false);
        assert_eq!(redial.due(now, 0).len(), 1);
    }
}
