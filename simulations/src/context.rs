//! What every node of a world shares: time, chance, the network, the cloud, the
//! trace, and what the checks remember.
//!
//! Nothing here belongs to one node.

use crate::invariants::{Invariant, Oracle};
use crate::network::Network;
use crate::rng::Rng;
use crate::trace::Trace;
use keys::PublicKey;
use provider::fake::FakeCloud;
use std::collections::BTreeMap;

/// A rule of the shell that is left out, to see that the checks notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Announces before it stores.
    AnnouncesFirst,
    /// Acknowledges a barrier before the data is synced.
    SkipsDataSync,
    /// After a crash does not hash again what was being written.
    ForgetsNotes,
    /// Does not check open streams again when authority changes or time passes.
    NeverRechecks,
    /// Answers whoever asks.
    AnswersStrangers,
    /// Comes back without the changes of the plan.
    ForgetsChanges,
    /// Counts a lease from when the answer is looked at.
    LeasesFromReceipt,
    /// Goes on vouching for the last that it vouched for.
    VouchesForEver,
}

/// Something that must never be, and was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: Invariant,
    /// On what, and how.
    pub text: String,
}

/// How often what a world is about has happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Messages lost by chance.
    pub lost: u64,
    /// Messages that arrived late, and so out of order.
    pub delayed: u64,
    /// Messages that arrived twice.
    pub doubled: u64,
    /// Messages that ran into a partition.
    pub cut_off: u64,
    /// Partitions in both directions.
    pub partitions: u64,
    /// Partitions in one direction.
    pub one_way_partitions: u64,
    /// Streams that broke.
    pub broken_streams: u64,
    /// Frames with a flipped bit.
    pub garbled: u64,
    /// Processes killed.
    pub process_deaths: u64,
    /// Machines that lost their power.
    pub power_losses: u64,
    /// Deaths in the middle of carrying something out.
    pub deaths_between_outputs: u64,
    /// Blocks left in part.
    pub torn_blocks: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
    /// Copies hashed again after a crash.
    pub recoveries: u64,
    /// Calls to the cloud that failed.
    pub cloud_faults: u64,
    /// Streams opened without a right to.
    pub forged_streams: u64,
    /// Forged gossip.
    pub forged_gossip: u64,
    /// Questions of strangers.
    pub strangers_asking: u64,
    /// Streams refused.
    pub refused_streams: u64,
    /// Sessions that became ready.
    pub sessions: u64,
    /// Groups adopted by an agent.
    pub adopted_groups: u64,
    /// Barriers acknowledged.
    pub barriers: u64,
    /// Volumes cut over.
    pub cut_over: u64,
    /// Wall clocks set while their nodes ran.
    pub clocks_set: u64,
    /// Leases that became longer.
    pub leases_renewed: u64,
    /// Streams that ended with a lease.
    pub leases_over: u64,
    /// Blocks that moved while a revocation was known to its operator alone.
    pub moved_unheard: u64,
    /// Revocations that the ends were cut off from.
    pub cut_off_revocations: u64,
}

impl Seen {
    /// Every count with its name.
    pub fn table(&self) -> [(&'static str, u64); 28] {
        [
            ("messages lost", self.lost),
            ("messages delayed", self.delayed),
            ("messages doubled", self.doubled),
            ("messages cut off", self.cut_off),
            ("partitions", self.partitions),
            ("one-way partitions", self.one_way_partitions),
            ("streams broken", self.broken_streams),
            ("frames garbled", self.garbled),
            ("processes killed", self.process_deaths),
            ("power losses", self.power_losses),
            ("deaths between outputs", self.deaths_between_outputs),
            ("blocks torn", self.torn_blocks),
            ("syncs failed", self.failed_syncs),
            ("copies recovered", self.recoveries),
            ("cloud calls failed", self.cloud_faults),
            ("forged streams", self.forged_streams),
            ("forged announcements", self.forged_gossip),
            ("strangers asking", self.strangers_asking),
            ("streams refused", self.refused_streams),
            ("sessions opened", self.sessions),
            ("groups adopted", self.adopted_groups),
            ("barriers", self.barriers),
            ("volumes cut over", self.cut_over),
            ("clocks set", self.clocks_set),
            ("leases renewed", self.leases_renewed),
            ("streams ended by a lease", self.leases_over),
            ("blocks moved unheard", self.moved_unheard),
            ("revocations cut off", self.cut_off_revocations),
        ]
    }

    /// Adds the counts of another world.
    pub fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.delayed += other.delayed;
        self.doubled += other.doubled;
        self.cut_off += other.cut_off;
        self.partitions += other.partitions;
        self.one_way_partitions += other.one_way_partitions;
        self.broken_streams += other.broken_streams;
        self.garbled += other.garbled;
        self.process_deaths += other.process_deaths;
        self.power_losses += other.power_losses;
        self.deaths_between_outputs += other.deaths_between_outputs;
        self.torn_blocks += other.torn_blocks;
        self.failed_syncs += other.failed_syncs;
        self.recoveries += other.recoveries;
        self.cloud_faults += other.cloud_faults;
        self.forged_streams += other.forged_streams;
        self.forged_gossip += other.forged_gossip;
        self.strangers_asking += other.strangers_asking;
        self.refused_streams += other.refused_streams;
        self.sessions += other.sessions;
        self.adopted_groups += other.adopted_groups;
        self.barriers += other.barriers;
        self.cut_over += other.cut_over;
        self.clocks_set += other.clocks_set;
        self.leases_renewed += other.leases_renewed;
        self.leases_over += other.leases_over;
        self.moved_unheard += other.moved_unheard;
        self.cut_off_revocations += other.cut_off_revocations;
    }
}

/// What every node shares.
pub struct Context {
    /// Milliseconds since the world began.
    pub now: u64,
    /// The one source of chance.
    pub rng: Rng,
    /// Messages, streams and the queue of events.
    pub network: Network,
    /// The cloud in which targets are made.
    pub cloud: FakeCloud,
    /// Whether nothing goes wrong any more.
    pub calm: bool,
    /// The rule that is left out, if one is.
    pub flaw: Option<Flaw>,
    /// Which participant has which key, strangers included.
    pub keys: BTreeMap<PublicKey, usize>,
    /// What happened.
    pub trace: Trace,
    /// How often it did.
    pub seen: Seen,
    /// What the checks remember.
    pub oracle: Oracle,
    /// The first thing that must never be.
    pub violation: Option<Violation>,
}

impl Context {
    /// Notes that an invariant does not hold.
    pub fn fail(&mut self, invariant: Invariant, text: String) {
        self.trace.line(
            self.now,
            format_args!("VIOLATION {}: {text}", invariant.id()),
        );
        self.violation.get_or_insert(Violation { invariant, text });
    }

    /// Notes it unless `holds`.
    pub fn require(&mut self, holds: bool, invariant: Invariant, text: impl FnOnce() -> String) {
        if !holds {
            self.fail(invariant, text());
        }
    }

    /// The participant with a key.
    pub fn index_of(&self, key: &PublicKey) -> Option<usize> {
        self.keys.get(key).copied()
    }

    /// The key of a participant.
    pub fn key_of(&self, index: usize) -> PublicKey {
        let mut keys = self.keys.iter();
        *keys
            .find(|(_, at)| **at == index)
            .expect("every participant's key is known from the start")
            .0
    }
}
