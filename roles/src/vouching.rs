//! An operator's part in leases: which pulses of other nodes its own report answers,
//! and when that is worth a new report.
//!
//! Not here: what an answer is worth to its holder (`keys::lease`), and publishing.

use crate::situation::Situation;
use crdt::report::{MAX_RENEWALS, MAX_RENEWED};
use keys::NodeId;
use keys::lease::{Pair, Renewal};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Answers to pulses that are not urgent wait for others for this part of the lease.
const WAIT_PART: u64 = 16;
/// Longest wait for others.
const LONGEST_WAIT_MILLIS: u64 = 10_000;
/// Where one report has no room for all answers, how long it stands before the next:
/// time for it to reach the holders.
const FULL_MILLIS: u64 = 3_000;

/// What one operator's node has answered. Nothing of it must survive: after a restart
/// every pulse that is reported is answered again.
#[derive(Debug, Default)]
pub struct Vouching {
    /// The last answer to each holder.
    answers: BTreeMap<NodeId, Renewal>,
    /// Holders whose answer the next report holds, newest first.
    listed: VecDeque<NodeId>,
    /// When the pulses that wait are to be answered.
    due_millis: Option<u64>,
    /// The report is full until then.
    full_until_millis: u64,
}

/// What a holder's report asks for, and what this node may say.
struct Asked {
    renewal: Renewal,
    shortest_lease_secs: u64,
}

impl Vouching {
    /// Looks at plan, authority and reports; true when a new report should be published
    /// now, so that its [`Vouching::renewals`] are seen.
    pub fn settle(&mut self, situation: &Situation<'_>) -> bool {
        let now = situation.now.mono_millis;
        let asked = asked(situation);
        self.forget_what_is_over(&asked);
        let news = asked.values().filter(|asked| self.is_new(asked));
        let mut waiting: Vec<(u64, Renewal)> = news
            .map(|asked| (self.wait_millis(asked), asked.renewal.clone()))
            .collect();
        let Some(shortest) = waiting.iter().map(|(wait, _)| *wait).min() else {
            self.due_millis = None;
            return false;
        };
        let due = self.due_millis.unwrap_or(u64::MAX).min(now + shortest);
        let due = due.max(self.full_until_millis);
        self.due_millis = Some(due);
        if now < due {
            return false;
        }
        self.due_millis = None;
        waiting.sort_by_key(|(wait, _)| *wait);
        let mut room = Room::default();
        for (_, answer) in waiting {
            if !room.takes(&answer) {
                self.full_until_millis = now + FULL_MILLIS;
                self.due_millis = Some(self.full_until_millis);
                break;
            }
            self.listed.retain(|holder| *holder != answer.holder);
            self.listed.push_front(answer.holder);
            self.answers.insert(answer.holder, answer);
        }
        self.cut();
        true
    }

    /// When to call [`Vouching::settle`] next, on the monotonic clock.
    pub fn deadline_millis(&self) -> Option<u64> {
        self.due_millis
    }

    /// What the report that is made now says: nothing that is not good any more.
    pub fn renewals(&mut self, situation: &Situation<'_>) -> Vec<Renewal> {
        self.forget_what_is_over(&asked(situation));
        let listed = self.listed.iter();
        listed.map(|holder| self.answers[holder].clone()).collect()
    }

    fn is_new(&self, asked: &Asked) -> bool {
        self.answers.get(&asked.renewal.holder) != Some(&asked.renewal)
    }

    /// None for what was never answered: somebody waits for it to begin.
    fn wait_millis(&self, asked: &Asked) -> u64 {
        let known: BTreeSet<&Pair> = self
            .answers
            .get(&asked.renewal.holder)
            .map(|answer| answer.pairs.iter().collect())
            .unwrap_or_default();
        if !asked.renewal.pairs.iter().all(|pair| known.contains(pair)) {
            return 0;
        }
        let lease_millis = asked.shortest_lease_secs.saturating_mul(1000);
        (lease_millis / WAIT_PART).min(LONGEST_WAIT_MILLIS)
    }

    fn forget_what_is_over(&mut self, asked: &BTreeMap<NodeId, Asked>) {
        self.answers.retain(|holder, answer| {
            let live = asked.get(holder).map(|asked| &asked.renewal.pairs);
            let live: BTreeSet<&Pair> = live.into_iter().flatten().collect();
            answer.pairs.retain(|pair| live.contains(pair));
            !answer.pairs.is_empty()
        });
        self.listed
            .retain(|holder| self.answers.contains_key(holder));
    }

    /// The oldest answers make room: their holders have seen them, or will ask again.
    fn cut(&mut self) {
        let mut room = Room::default();
        let listed = self.listed.iter();
        let fit = listed.take_while(|holder| room.takes(&self.answers[*holder]));
        let fit = fit.count();
        self.listed.truncate(fit);
    }
}

/// Counts what one report has room for.
#[derive(Default)]
struct Room {
    renewals: usize,
    pairs: usize,
}

impl Room {
    fn takes(&mut self, renewal: &Renewal) -> bool {
        self.renewals += 1;
        self.pairs += renewal.pairs.len();
        self.renewals <= MAX_RENEWALS && self.pairs <= MAX_RENEWED
    }
}

/// For each node that has published a pulse and may use something, the answer to it;
/// nothing on a node that is no operator.
fn asked(situation: &Situation<'_>) -> BTreeMap<NodeId, Asked> {
    let mut asked: BTreeMap<NodeId, Asked> = BTreeMap::new();
    let Some(operator) = situation.operator() else {
        return asked;
    };
    let mine = situation
        .live_pairs()
        .filter(|(pair, _)| situation.authority.is_within(&operator.scope, pair));
    for (pair, grant) in mine {
        for holder in [grant.agent, pair.replicator] {
            let report = situation.reports.get(&holder);
            let Some(pulse) = report.and_then(|report| report.pulse) else {
                continue;
            };
            let asked = asked.entry(holder).or_insert_with(|| Asked {
                renewal: Renewal {
                    holder,
                    pulse,
                    pairs: vec![],
                },
                shortest_lease_secs: grant.lease_secs,
            });
            asked.shortest_lease_secs = asked.shortest_lease_secs.min(grant.lease_secs);
            let pairs = &mut asked.renewal.pairs;
            // A node that is agent and replicator of one grant is both.
            if pairs.len() < MAX_RENEWED && pairs.last() != Some(&pair) {
                pairs.push(pair);
            }
        }
    }
    asked
}

#[cfg(test)]
mod tests;
