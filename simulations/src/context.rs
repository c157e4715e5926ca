//! What every node of a world shares: time, chance, the network, the cloud, the
//! trace, and what the checks remember.
//!
//! Nothing here belongs to one node.

use crate::chance::{CloudFailure, Rates};
use crate::invariants::{Invariant, Oracle};
use crate::network::Network;
use crate::trace::Trace;
use crate::twice::Twin;
use keys::PublicKey;
use provider::fake::FakeCloud;
use std::collections::BTreeMap;
use std::fmt::Arguments;

/// A rule of the shell that is left out, to see that the checks notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
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
    /// Writes to its own logs after a start without having heard how far they go.
    WritesUnheard,
    /// Starts with a damaged record as if it were whole.
    TrustsRecords,
    /// Takes a stored tree as it is, without its checksums.
    TrustsTrees,
    /// Keeps the tree of a copy that read back differently.
    KeepsWrongTree,
    /// Says that a copy was read back which was not.
    ProvesUnread,
    /// A replicator that acknowledges what it does not write, and swears to it.
    WritesNothing,
    /// An agent that goes on to another replicator without storing the higher epoch.
    ForgetsEpoch,
    /// Counts a lease from when the answer is looked at.
    LeasesFromReceipt,
    /// Goes on vouching for the last that it vouched for.
    VouchesForEver,
    /// Leaves it to the first operator to vouch.
    OnlyTheFirstVouches,
    /// Keeps to itself what operators decided apart.
    HidesConflicts,
    /// Who recovers a mesh does not take back the enrolment of the lost operator.
    SparesTheLost,
    /// A node that has changed its key begins again with the one that it had.
    KeepsOldKey,
    /// Who recovers a mesh honours nothing of what the lost operator said.
    HonoursNothing,
    /// Keeps to itself that a key is in two places.
    HidesCopies,
    /// Who recovers a mesh honours all that the lost operator said, whatever of it is missing.
    HonoursPastGaps,
    /// A source thaws long before its deadline, and is said to be kept frozen.
    KeepsWhatRuns,
    /// Nobody hears that a source is kept frozen, and then it is said to be let go, and is not.
    NeverLetsGo,
}

/// Something that must never be, and was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: Invariant,
    /// On what, and how.
    pub text: String,
}

macro_rules! counts {
    ($($name:ident = $text:literal;)*) => {
        /// How often what a world is about has happened.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Seen { $(#[doc = $text] pub $name: u64,)* }

        impl Seen {
            /// Every count with its name.
            pub fn table(&self) -> Vec<(&'static str, u64)> {
                vec![$(($text, self.$name),)*]
            }

            /// Adds the counts of another world.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

// Every kind of fault is here, and a test demands that some seeds reach each.
counts! {
    lost = "messages lost";
    delayed = "messages late";
    doubled = "messages doubled";
    cut_off = "messages cut off";
    partitions = "partitions";
    one_way_partitions = "one-way partitions";
    broken_streams = "streams broken";
    garbled = "frames garbled";
    process_deaths = "processes killed";
    power_losses = "power losses";
    deaths_between_outputs = "deaths between outputs";
    torn_blocks = "blocks torn";
    failed_syncs = "syncs failed";
    slow_flushes = "flush steps on a slow disk";
    rotten_blocks = "blocks of copies rotten";
    rotten_leaves = "leaves of stored trees rotten";
    rotten_records = "stored records rotten";
    refused_starts = "starts refused for a rotten record";
    old_stores = "old stores put back";
    copies_read_differently = "copies that read back differently";
    clock_jumps = "clocks that jumped";
    recoveries = "copies recovered";
    cloud_failures = "cloud calls that failed";
    cloud_time_outs = "cloud calls that timed out after success";
    cloud_throttles = "cloud calls throttled";
    forged_streams = "forged streams";
    forged_gossip = "forged announcements";
    strangers_asking = "strangers asking";
    refused_streams = "streams refused";
    sessions = "sessions opened";
    adopted_groups = "groups adopted";
    barriers = "barriers";
    cut_over = "volumes cut over";
    freezes = "servers frozen";
    thaws = "servers thawed again";
    cut_over_frozen = "servers cut over while frozen";
    nodes_lost = "nodes lost for good";
    replaced = "replicators replaced";
    retired = "older volumes deleted";
    confirmed = "copies confirmed";
    clocks_off_after_boot = "clocks off otherwise after a boot";
    leases_renewed = "leases renewed";
    leases_over = "streams ended by a lease";
    moved_unheard = "blocks moved unheard";
    cut_off_revocations = "revocations cut off";
    second_wishes = "wishes of a second operator";
    operators_lost = "first operators lost for good";
    inherited_wishes = "wishes that another operator went on with";
    changed_keys = "keys of nodes changed";
    cut_changes = "changes of keys cut short";
    recovered = "meshes recovered with the root key";
    copies_run = "folders that run twice";
    copies_told = "keys told to be in two places";
    gaps = "gaps in what is known of a lost operator";
    thefts = "words of a lost operator's thief";
    second_vouchers = "reports of another operator that vouch";
    conflicts = "conflicts between operators told";
}

/// What every node shares.
pub struct Context {
    /// Milliseconds since the world began.
    pub now: u64,
    /// What all chance comes from.
    pub seed: u64,
    /// How often what happens by chance.
    pub rates: Rates,
    /// How the next calls to the cloud fail, and how many.
    pub burst: Option<(CloudFailure, u64)>,
    /// Messages, streams and the queue of events.
    pub network: Network,
    /// The cloud in which targets are made.
    pub cloud: FakeCloud,
    /// Whether nothing goes wrong any more.
    pub calm: bool,
    /// How long an agent waits for a lost replicator.
    pub lost_millis: u64,
    /// The next node that signs a copy's root dies of it, and is not back before this
    /// long has passed.
    pub dies_proving: Option<u64>,
    /// The rule that is left out, if one is.
    pub flaw: Option<Flaw>,
    /// Which participant has or had which key, strangers included.
    pub keys: BTreeMap<PublicKey, usize>,
    /// The key that each has now.
    pub current: Vec<PublicKey>,
    /// The two participants with one key, once a folder runs twice.
    pub twin: Option<Twin>,
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
    /// Adds a line about a node to the trace.
    pub fn note(&mut self, node: usize, what: Arguments<'_>) {
        self.trace.line(self.now, Some(node), what);
    }

    /// Notes that an invariant does not hold.
    pub fn fail(&mut self, invariant: Invariant, text: String) {
        let what = format_args!("VIOLATION of {}: {text}", invariant.id());
        self.trace.line(self.now, None, what);
        self.violation.get_or_insert(Violation { invariant, text });
    }

    /// Notes it unless `holds`.
    pub fn require(&mut self, holds: bool, invariant: Invariant, text: impl FnOnce() -> String) {
        if !holds {
            self.fail(invariant, text());
        }
    }

    /// The participant that has a key now.
    pub fn index_of(&self, key: &PublicKey) -> Option<usize> {
        let owner = self.keys.get(key).copied();
        owner.filter(|owner| self.key_of(*owner) == *key)
    }

    /// The key that a participant has now.
    pub fn key_of(&self, index: usize) -> PublicKey {
        self.current[index]
    }
}
