//! Whom to be connected to: a few of the members, so that the number of a node's
//! connections does not grow with the mesh, and yet all of them hang together.
//!
//! The ledger names every member, so no protocol is needed to learn of them. A node
//! keeps connections to
//! - its partners, with whom its roles move blocks (given by the shell);
//! - the next members after itself in the order of keys, a ring: whatever else is
//!   missing, a ring is one piece, and two halves that were apart are one ring again as
//!   soon as either finds its old neighbour;
//! - some members drawn at random, exchanged slowly: they make every way short.
//!
//! Who cannot be reached is left out and tried again later. Not here: dialling, and
//! what is said over a connection.

use keys::PublicKey;
use std::collections::{BTreeMap, BTreeSet};

/// Members next on the ring that a node is connected to.
pub const RING: usize = 2;
/// Members next on the ring that are being dialled beside those.
pub const RING_PENDING: usize = 4;
/// Members drawn at random.
pub const LONG: usize = 6;
/// Most connections, partners aside: those above, and as many that others chose. The
/// least useful ones beyond it are closed.
pub const MAX_NEIGHBOURS: usize = 32;
/// Most partners; a node with more work than that keeps the first of them.
pub const MAX_PARTNERS: usize = 256;
/// How often one of the members drawn at random is exchanged.
const REDRAW_MILLIS: u64 = 600_000;
/// How long a connection is left alone that is not wanted, or is one too many: who has
/// just come may be catching up.
const GRACE_MILLIS: u64 = 5_000;
/// A connection that lasted as long was a good one.
const STABLE_MILLIS: u64 = 10_000;
/// How long a member is left out after a first failure; twice as long after each.
const FIRST_PAUSE_MILLIS: u64 = 500;
/// How long at most.
const LONGEST_PAUSE_MILLIS: u64 = 30_000;

/// What the shell saw.
#[derive(Debug, Clone)]
pub enum Input {
    /// The other members that count, and whether there is any way to dial each.
    Members(BTreeMap<PublicKey, bool>),
    /// Whom the node's roles need.
    Partners(BTreeSet<PublicKey>),
    /// A member is connected.
    Connected {
        /// Who.
        peer: PublicKey,
        /// Whether it dialled.
        is_inbound: bool,
    },
    /// It is gone.
    Disconnected(PublicKey),
    /// It could not be reached.
    DialFailed(PublicKey),
    /// Time passed.
    Tick,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Keep connections to these, and dial nobody else.
    Want(BTreeSet<PublicKey>),
    /// Close the connection.
    Close(PublicKey),
}

#[derive(Debug)]
struct Link {
    since: u64,
    is_inbound: bool,
}

/// A member that could not be reached.
#[derive(Debug, Default)]
struct Away {
    tries: u32,
    until: u64,
}

/// See the module's page.
#[derive(Debug)]
pub struct View {
    me: PublicKey,
    random: u64,
    members: BTreeMap<PublicKey, bool>,
    partners: BTreeSet<PublicKey>,
    links: BTreeMap<PublicKey, Link>,
    away: BTreeMap<PublicKey, Away>,
    long: BTreeSet<PublicKey>,
    wanted: BTreeSet<PublicKey>,
    redraw_at: u64,
}

impl View {
    /// Of the node `me`, which knows nobody yet. `seed` is random: it makes two nodes
    /// draw different members.
    pub fn new(me: PublicKey, seed: u64) -> Self {
        Self {
            me,
            random: seed,
            members: BTreeMap::new(),
            partners: BTreeSet::new(),
            links: BTreeMap::new(),
            away: BTreeMap::new(),
            long: BTreeSet::new(),
            wanted: BTreeSet::new(),
            redraw_at: 0,
        }
    }

    /// Takes one input; outputs are appended to `out`. `now` is monotonic.
    pub fn step(&mut self, now_millis: u64, input: Input, out: &mut Vec<Output>) {
        let now = now_millis;
        match input {
            Input::Members(mut members) => {
                members.remove(&self.me);
                self.away.retain(|key, _| members.contains_key(key));
                // The shell closes them; until it has, they are nobody's neighbours.
                self.links.retain(|key, _| members.contains_key(key));
                self.members = members;
            }
            Input::Partners(partners) => {
                self.partners = partners.into_iter().take(MAX_PARTNERS).collect();
            }
            Input::Connected { peer, is_inbound } => {
                let since = now;
                // Its tries are kept until the connection has lasted.
                self.links.insert(peer, Link { since, is_inbound });
            }
            Input::Disconnected(peer) => {
                // Another one takes its place: it may have had one too many.
                self.long.remove(&peer);
                if let Some(link) = self.links.remove(&peer) {
                    match now >= link.since + STABLE_MILLIS {
                        true => drop(self.away.remove(&peer)),
                        false => self.failed(now, peer),
                    }
                }
            }
            Input::DialFailed(peer) => {
                if !self.links.contains_key(&peer) {
                    self.failed(now, peer);
                }
            }
            Input::Tick => {}
        }
        self.choose(now, out);
        self.close(now, out);
    }

    /// When to give [`Input::Tick`] next, on the monotonic clock.
    pub fn deadline_millis(&self, now_millis: u64) -> Option<u64> {
        let away = self.away.values().map(|away| away.until);
        let links = self.links.iter();
        let is_full = self.neighbours(&[]) > MAX_NEIGHBOURS;
        let may_close = |peer: &PublicKey| is_full && !self.wanted.contains(peer);
        let closing = links.filter(|(peer, link)| self.is_unwanted(peer, link) || may_close(peer));
        let closing = closing.map(|(_, link)| link.since + GRACE_MILLIS);
        let times = away.chain(closing).chain([self.redraw_at]);
        times.filter(|at| *at > now_millis).min()
    }

    /// Whom it wants to be connected to.
    pub fn wanted(&self) -> &BTreeSet<PublicKey> {
        &self.wanted
    }

    fn failed(&mut self, now: u64, peer: PublicKey) {
        if !self.members.contains_key(&peer) {
            return;
        }
        let part = self.draw(1 << 16);
        let away = self.away.entry(peer).or_default();
        let whole = (FIRST_PAUSE_MILLIS << away.tries.min(16)).min(LONGEST_PAUSE_MILLIS);
        // Between a half and the whole, so that two that lost each other do not meet
        // again and again.
        away.until = now + whole / 2 + whole / 2 * part / (1 << 16);
        away.tries = away.tries.saturating_add(1);
    }

    fn is_away(&self, now: u64, peer: &PublicKey) -> bool {
        self.away.get(peer).is_some_and(|away| now < away.until)
    }

    /// Connected, or to be dialled.
    fn is_eligible(&self, now: u64, peer: &PublicKey) -> bool {
        let reachable = self.members.get(peer);
        let connected = self.links.contains_key(peer);
        reachable.is_some_and(|reachable| connected || (*reachable && !self.is_away(now, peer)))
    }

    fn choose(&mut self, now: u64, out: &mut Vec<Output>) {
        let ring = self.ring(now);
        self.draw_long(now, &ring);
        let partners = self.partners.iter();
        let partners = partners.filter(|key| self.members.contains_key(key));
        let chosen = partners.chain(&ring).chain(&self.long);
        let wanted: BTreeSet<PublicKey> = chosen.copied().collect();
        if wanted != self.wanted {
            self.wanted = wanted.clone();
            out.push(Output::Want(wanted));
        }
    }

    /// The next members that are connected, and those before them that may be.
    fn ring(&self, now: u64) -> BTreeSet<PublicKey> {
        let mut ring = BTreeSet::new();
        let (mut connected, mut pending) = (0, 0);
        let after = self.members.range(self.me..).map(|(key, _)| key);
        let before = self.members.range(..self.me).map(|(key, _)| key);
        for key in after.chain(before) {
            if connected == RING || pending == RING_PENDING {
                break;
            }
            if self.is_eligible(now, key) {
                match self.links.contains_key(key) {
                    true => connected += 1,
                    false => pending += 1,
                }
                ring.insert(*key);
            }
        }
        ring
    }

    fn draw_long(&mut self, now: u64, ring: &BTreeSet<PublicKey>) {
        let mut long = std::mem::take(&mut self.long);
        long.retain(|key| self.is_eligible(now, key) && !ring.contains(key));
        if now >= self.redraw_at {
            // Not while there is room: in the first step, or in a small mesh.
            if long.len() == LONG {
                let at = self.below(long.len());
                if let Some(key) = long.iter().nth(at).copied() {
                    long.remove(&key);
                }
            }
            self.redraw_at = now + REDRAW_MILLIS / 2 + self.draw(REDRAW_MILLIS);
        }
        if long.len() < LONG {
            let free = |key: &&PublicKey| {
                self.is_eligible(now, key)
                    && !ring.contains(key)
                    && !long.contains(key)
                    && !self.partners.contains(key)
            };
            let mut free: Vec<PublicKey> = self.members.keys().filter(free).copied().collect();
            while long.len() < LONG && !free.is_empty() {
                let at = self.below(free.len());
                long.insert(free.swap_remove(at));
            }
        }
        self.long = long;
    }

    /// Connected members that are no partners, without those that are being closed.
    fn neighbours(&self, closed: &[PublicKey]) -> usize {
        let stays = |key: &&PublicKey| !self.partners.contains(key) && !closed.contains(key);
        self.links.keys().filter(stays).count()
    }

    /// Ours to close: we dialled, and do not want it any more.
    fn is_unwanted(&self, peer: &PublicKey, link: &Link) -> bool {
        !link.is_inbound && !self.wanted.contains(peer)
    }

    fn close(&mut self, now: u64, out: &mut Vec<Output>) {
        let mut closed: Vec<PublicKey> = self
            .links
            .iter()
            .filter(|(peer, link)| self.is_unwanted(peer, link) && now >= link.since + GRACE_MILLIS)
            .map(|(peer, _)| *peer)
            .collect();
        let neighbours = self.neighbours(&closed);
        if neighbours > MAX_NEIGHBOURS {
            let kept = self.before_me();
            let mut others: Vec<(u64, PublicKey)> = self
                .links
                .iter()
                .filter(|(peer, _)| !self.wanted.contains(peer) && !kept.contains(peer))
                .filter(|(peer, _)| !closed.contains(peer))
                .map(|(peer, link)| (link.since, *peer))
                .collect();
            // The oldest first: it has had the time to learn all, and to find others. In
            // a rush nobody is given time.
            others.sort_unstable();
            let rush = neighbours > 2 * MAX_NEIGHBOURS;
            let due = others
                .into_iter()
                .filter(|(since, _)| rush || now >= since + GRACE_MILLIS)
                .map(|(_, peer)| peer);
            closed.extend(due.take(neighbours - MAX_NEIGHBOURS));
        }
        for peer in closed {
            // It counts as gone; hearing so again changes nothing.
            self.links.remove(&peer);
            out.push(Output::Close(peer));
        }
    }

    /// The connected members next before this one, whose ring it is part of.
    fn before_me(&self) -> BTreeSet<PublicKey> {
        let before = self.links.range(..self.me).rev();
        let after = self.links.range(self.me..).rev();
        let keys = before.chain(after).map(|(key, _)| *key);
        keys.take(RING + RING_PENDING).collect()
    }

    fn below(&mut self, len: usize) -> usize {
        let drawn = self.draw(len as u64);
        usize::try_from(drawn).expect("below a length")
    }

    /// A number below `range`. SplitMix64 (Steele, Lea, Flood 2014): enough to draw
    /// lots with, never for keys.
    fn draw(&mut self, range: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % range
    }
}

#[cfg(test)]
mod tests;
