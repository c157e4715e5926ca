//! Whom to ask, when, and for what.
//!
//! Every peer is asked for its heads now and then. One whose heads differ is asked for
//! what it has and we lack: after a moment, since what it announced may be coming from
//! elsewhere too, and of several with the same heads one at a time. Not here: what is
//! answered (`answering`), and what becomes of answers (`absorb`).

use super::own::Shown;
use super::{Output, Replica};
use crate::sync::{self, Heads, HeldReport, MAX_LISTED, Page, Request, Summary};
use keys::PublicKey;

/// How often a peer is asked for its heads when nothing is heard of it, give or take a
/// quarter, so that the nodes of a mesh do not ask in step.
pub const ASK_MILLIS: u64 = 10_000;
/// How soon a peer with the same heads is asked that brought nothing when they differed.
pub const ASK_AGAIN_MILLIS: u64 = 2_000;
/// How long to wait before asking for what was announced by heads that differ: by then
/// it has often come by itself. Up to twice as long.
const SETTLE_MILLIS: u64 = 100;
/// How long a question may be open before another peer is asked the same.
const SLOW_MILLIS: u64 = 1_500;
/// How long an answer may take.
pub const ANSWER_MILLIS: u64 = 30_000;
/// Questions that may be open at once.
pub const MAX_ASKING: usize = 4;
/// Answers that may bring nothing before a peer is left alone for a while: its heads,
/// then its groups, then perhaps what is still waiting for something else.
const MAX_FRUITLESS: u8 = 3;
/// And with ever new heads: honest peers bring something sooner.
const MAX_BARREN: u8 = 4 * MAX_FRUITLESS;

/// A question that is open.
#[derive(Debug, Clone, Copy)]
struct Asking {
    since: u64,
    /// How many of the buckets that differ were asked for.
    ledger_buckets: usize,
    report_buckets: usize,
}

/// What is known of a connected peer.
#[derive(Debug, Default)]
pub(super) struct Peer {
    heads: Option<Heads>,
    asking: Option<Asking>,
    /// When it is asked for its heads, whatever is heard.
    probe_at: u64,
    /// When it is asked because its heads differ from ours.
    differs_at: Option<u64>,
    /// Waits for the answer of another one that has the same heads.
    defers: bool,
    fruitless: u8,
    /// Answers in a row that brought nothing, whatever heads it had.
    barren: u8,
    /// Until when it is left alone whatever it says.
    rests_until: u64,
    /// Heads with which it brought nothing, and until when it is left alone with them.
    spent: Option<(Heads, u64)>,
    /// Buckets in which its ledger differs from ours, as far as it is known.
    ledger_buckets: Vec<u8>,
    report_buckets: Vec<u8>,
    /// When this node made itself known on this connection last.
    pub(super) introduced_at: Option<u64>,
    pub(super) shown: Shown,
}

impl Peer {
    /// Nothing more is expected of it before a while has passed.
    fn gave_up(&mut self) {
        if self.shown == Shown::NotYet {
            self.shown = Shown::Nothing;
        }
    }

    fn due_at(&self) -> u64 {
        match self.asking {
            Some(asking) => asking.since + ANSWER_MILLIS,
            None => self.differs_at.unwrap_or(u64::MAX).min(self.probe_at),
        }
    }
}

impl Replica {
    /// A peer is there: what does it hold?
    pub(super) fn came(&mut self, now: u64, peer: PublicKey) {
        self.peers.entry(peer).or_default().probe_at = now;
    }

    /// Takes note of what a peer holds now, and means to ask it if that differs.
    pub(super) fn heard_heads(&mut self, now: u64, from: &PublicKey, heads: Heads) {
        let equal = heads == self.heads();
        let later = self.jitter(from, now, SETTLE_MILLIS);
        let probe_at = self.probe_at(from, now);
        let may_write = self.may_write();
        let Some(peer) = self.peers.get_mut(from) else {
            return;
        };
        peer.heads = Some(heads);
        if equal {
            peer.differs_at = None;
            // What it holds of this node's own logs it says only when it is asked: who
            // says other things all the time may not put that off for ever.
            if may_write || peer.shown == Shown::Met {
                peer.probe_at = probe_at;
            }
            return;
        }
        let spent = peer.spent.filter(|(spent, _)| *spent == heads);
        let earliest = spent.map_or(0, |(_, until)| until).max(peer.rests_until);
        let at = earliest.max(now + SETTLE_MILLIS + later);
        peer.differs_at = Some(peer.differs_at.map_or(at, |planned| planned.min(at)));
    }

    /// A page was taken in; `progressed` if it brought anything, and `met` if all that
    /// the peer says it holds of this node's logs is here now.
    pub(super) fn heard_page(
        &mut self,
        now: u64,
        from: &PublicKey,
        page: &Heard,
        progressed: bool,
        met: bool,
    ) {
        let ours = self.heads();
        let again = ASK_AGAIN_MILLIS + self.jitter(from, now, ASK_AGAIN_MILLIS / 4);
        let probe_at = self.probe_at(from, now);
        let differing = |buckets, groups| sync::differing_buckets(buckets, groups);
        let ledger = differing(self.ledger.buckets(), &page.ledger_groups);
        let reports = differing(self.reports.buckets(), &page.report_groups);
        self.undefer(now);
        let Some(peer) = self.peers.get_mut(from) else {
            return;
        };
        if let Some(asked) = peer.asking.take()
            && !page.more
        {
            peer.ledger_buckets.drain(..asked.ledger_buckets);
            peer.report_buckets.drain(..asked.report_buckets);
        }
        if !ledger.is_empty() || page.heads.ledger == ours.ledger {
            peer.ledger_buckets = ledger;
        }
        if !reports.is_empty() || page.heads.reports == ours.reports {
            peer.report_buckets = reports;
        }
        peer.heads = Some(page.heads);
        peer.probe_at = probe_at;
        peer.fruitless = match progressed {
            true => 0,
            false => peer.fruitless.saturating_add(1),
        };
        peer.barren = match progressed {
            true => 0,
            false => peer.barren.saturating_add(1),
        };
        if peer.barren >= MAX_BARREN {
            peer.barren = 0;
            peer.rests_until = now + again;
        }
        if met {
            peer.shown = Shown::Met;
        } else if page.heads == ours || peer.fruitless >= MAX_FRUITLESS {
            peer.gave_up();
        }
        // Two nodes that can never agree, or one that says ever new things, do not spin.
        peer.differs_at = if page.heads == ours {
            peer.fruitless = 0;
            peer.spent = None;
            None
        } else if peer.fruitless < MAX_FRUITLESS {
            Some(now.max(peer.rests_until))
        } else {
            peer.fruitless = 0;
            peer.spent = Some((page.heads, now + again));
            Some(now + again)
        };
    }

    /// A question was not answered.
    pub(super) fn unanswered(&mut self, now: u64, from: &PublicKey) {
        let again = ASK_AGAIN_MILLIS + self.jitter(from, now, ASK_AGAIN_MILLIS / 4);
        self.undefer(now);
        if let Some(peer) = self.peers.get_mut(from) {
            peer.asking = None;
            peer.gave_up();
            peer.probe_at = now + again;
            peer.differs_at = peer.differs_at.map(|_| now + again);
        }
    }

    /// Those that waited for an answer of another one are looked at again.
    fn undefer(&mut self, now: u64) {
        for peer in self.peers.values_mut() {
            if std::mem::take(&mut peer.defers) {
                peer.differs_at = peer.differs_at.map(|at| at.min(now));
            }
        }
    }

    pub(super) fn ask_due(&mut self, now: u64, out: &mut Vec<Output>) {
        let late = |peer: &Peer| {
            let asking = peer.asking.as_ref();
            asking.is_some_and(|asking| now >= asking.since + ANSWER_MILLIS)
        };
        let late: Vec<PublicKey> = self.with(late).collect();
        for key in late {
            self.unanswered(now, &key);
        }
        let ours = self.heads();
        let mut free = MAX_ASKING.saturating_sub(self.open_questions(now));
        let mut due: Vec<(u64, PublicKey)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.asking.is_none() && peer.due_at() <= now)
            .map(|(key, peer)| (peer.due_at(), *key))
            .collect();
        due.sort_unstable();
        for (_, to) in due {
            if free == 0 {
                break;
            }
            let heads = self.peers[&to].heads;
            let probes = now >= self.peers[&to].probe_at;
            if !probes && heads == Some(ours) {
                self.peer(&to).differs_at = None;
                continue;
            }
            if heads.is_some_and(|heads| heads != ours)
                && let Some(since) = self.asked_for(heads, now)
            {
                let peer = self.peer(&to);
                peer.defers = true;
                peer.differs_at = Some(since + SLOW_MILLIS);
                peer.probe_at = peer.probe_at.max(since + SLOW_MILLIS);
                continue;
            }
            free -= 1;
            let (request, asking) = self.request(&to, now);
            let peer = self.peer(&to);
            peer.asking = Some(asking);
            peer.differs_at = None;
            peer.defers = false;
            out.push(Output::Ask { to, request });
        }
    }

    /// Whether this node may write and holds what some peer says that it holds: what was
    /// said before it came is here.
    pub fn is_level(&self) -> bool {
        let ours = self.heads();
        let mut peers = self.peers.values();
        self.may_write() && peers.any(|peer| peer.heads == Some(ours))
    }

    fn peer(&mut self, key: &PublicKey) -> &mut Peer {
        let peer = self.peers.get_mut(key);
        peer.expect("the key came from the map")
    }

    /// Questions that may be answered any moment. One that is open for long holds up
    /// nothing.
    fn open_questions(&self, now: u64) -> usize {
        let open = |peer: &Peer| {
            let asking = peer.asking.as_ref();
            asking.is_some_and(|asking| now < asking.since + SLOW_MILLIS)
        };
        self.with(open).count()
    }

    fn with(&self, is: impl Fn(&Peer) -> bool) -> impl Iterator<Item = PublicKey> {
        let found = self.peers.iter().filter(move |(_, peer)| is(peer));
        found.map(|(key, _)| *key)
    }

    /// Since when a peer with these heads is being asked, if its answer may still be
    /// waited for.
    fn asked_for(&self, heads: Option<Heads>, now: u64) -> Option<u64> {
        let same = self.peers.values().filter(|peer| peer.heads == heads);
        let since = same.filter_map(|peer| peer.asking.as_ref().map(|asking| asking.since));
        since.max().filter(|since| now < since + SLOW_MILLIS)
    }

    /// When to give [`super::Input::Tick`] next, on the monotonic clock.
    pub fn deadline_millis(&self) -> Option<u64> {
        let asking = self.peers.values().filter_map(|peer| peer.asking.as_ref());
        let mut open: Vec<u64> = asking.map(|asking| asking.since).collect();
        open.sort_unstable_by_key(|since| std::cmp::Reverse(*since));
        // With all questions open, the next peer is asked once one of them is slow.
        let free_at = open
            .get(MAX_ASKING - 1)
            .map_or(0, |since| since + SLOW_MILLIS);
        let due = |peer: &Peer| match peer.asking {
            Some(_) => peer.due_at(),
            None => peer.due_at().max(free_at),
        };
        self.peers.values().map(due).min()
    }

    /// Asks for the parts in which a peer's heads differ from ours; for its heads
    /// alone while they are not known.
    fn request(&self, to: &PublicKey, now: u64) -> (Request, Asking) {
        let peer = &self.peers[to];
        let ours = self.heads();
        let mut asking = Asking {
            since: now,
            ledger_buckets: 0,
            report_buckets: 0,
        };
        let mut request = Request {
            heads: ours,
            ..Request::default()
        };
        let Some(theirs) = peer.heads else {
            return (request, asking);
        };
        if theirs.ledger != ours.ledger {
            let list = |bucket| {
                let held = self.ledger.bucket(bucket);
                held.map(|(id, _)| sync::short_id(id)).collect()
            };
            let summary = summary(self.ledger.buckets(), &peer.ledger_buckets, list);
            asking.ledger_buckets = listed(&summary);
            request.ledger = Some(summary);
        }
        if theirs.logs != ours.logs {
            let heads = self.document.heads().into_iter();
            request.logs = Some(heads.take(MAX_LISTED).collect());
        }
        if theirs.reports != ours.reports {
            let list = |bucket| {
                let held = self.reports.bucket(bucket);
                held.map(|(node, version, hash)| {
                    // Of who reports too fast nothing is taken now, whatever it is.
                    let allowed = self.pace.allows(node);
                    let version = if allowed { version } else { u64::MAX };
                    HeldReport::new(node, version, hash)
                })
                .collect()
            };
            let summary = summary(self.reports.buckets(), &peer.report_buckets, list);
            asking.report_buckets = listed(&summary);
            request.reports = Some(summary);
        }
        if theirs.forks != ours.forks {
            request.forks = Some(self.forked().into_iter().take(MAX_LISTED).collect());
        }
        (request, asking)
    }

    fn probe_at(&self, peer: &PublicKey, now: u64) -> u64 {
        now + ASK_MILLIS - ASK_MILLIS / 4 + self.jitter(peer, now, ASK_MILLIS / 2)
    }

    /// Below `range`, and different for each pair of nodes and each time: spreads what
    /// nodes do, and needs to be no better than that.
    fn jitter(&self, peer: &PublicKey, now: u64, range: u64) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.my_key().0);
        hasher.update(&peer.0);
        hasher.update(&now.to_le_bytes());
        let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
        u64::from(u32::from_le_bytes([a, b, c, d])) % range
    }
}

/// What of an answer is for asking on.
pub(super) struct Heard {
    heads: Heads,
    ledger_groups: sync::GroupDigests,
    report_groups: sync::GroupDigests,
    more: bool,
}

impl Heard {
    pub(super) fn of(page: &mut Page) -> Self {
        Self {
            heads: page.heads,
            ledger_groups: std::mem::take(&mut page.ledger_groups),
            report_groups: std::mem::take(&mut page.report_groups),
            more: page.more,
        }
    }
}

fn summary<T>(buckets: &[[u8; 32]], differing: &[u8], list: impl Fn(u8) -> Vec<T>) -> Summary<T> {
    match differing {
        [] => Summary::Groups(sync::groups(buckets)),
        _ => sync::held(differing, list),
    }
}

fn listed<T>(summary: &Summary<T>) -> usize {
    match summary {
        Summary::Groups(_) => 0,
        Summary::Held(buckets) => buckets.len(),
    }
}
