//! What the people of a world want, and when: who joins, what is migrated, what is
//! paused, revoked or deleted, how it all has to end; and what goes wrong meanwhile,
//! as a list of faults and as rates of chance. A scenario and its seed are all that
//! decides what happens in a world.
//!
//! Not here: doing any of it (`people`, `faults`).

mod drawn;
mod file;
mod timed;

pub use drawn::skew;
pub use file::MIN_NODES;
pub use timed::{At, line};

use crate::chance::Rates;
use crate::faults::Fault;
use crate::rng::{Rng, Stream};
use keys::{MigrationId, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How a migration is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Cut over.
    CutOver,
    /// Its grants are revoked on the way.
    GrantRevoked,
    /// Its grant expires on the way.
    GrantExpired,
    /// Its agent is revoked.
    AgentRevoked,
    /// Its replicators are revoked.
    ReplicatorRevoked,
    /// It is deleted on the way, perhaps in the very moment of its cutover.
    Deleted,
    /// It is deleted after it was cut over.
    DeletedAfterwards,
    /// Its agent's folder runs twice.
    AgentRunsTwice,
}

/// Who is lost on the way, for good or for longer than anybody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "who", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Loss {
    /// The replicator that an agent is at dies.
    Replicator {
        /// When.
        at_millis: u64,
        /// For how long; for good if a file does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        away_millis: Option<u64>,
    },
    /// It dies when it has signed its root, and nobody has heard of it.
    ReplicatorProving {
        /// For how long; for good if a file does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        away_millis: Option<u64>,
    },
    /// All die but those that the migrations concern, once these know of the cutover.
    Others {
        /// And then, once more, the replicator that an agent is at.
        and_replicator: bool,
    },
    /// People revoke the first replicator.
    Revoked,
    /// The first operator's machine is lost for good, once all have joined; another
    /// operator goes on with what people want.
    Operator {
        /// When.
        at_millis: u64,
        /// The node at which people make a new operator with the root key, if there is
        /// one: it is not invited, and takes back the enrolment of the lost one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovered_by: Option<usize>,
        /// How long after that a thief starts the lost machine and speaks on with its
        /// key; never if a file does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thief_after_millis: Option<u64>,
    },
}

/// Whose data folder runs twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Twice {
    /// Which node's.
    pub node: usize,
    /// When it is copied; as it starts if that is later.
    pub copied_at_millis: u64,
    /// When the copy starts, once the node takes part.
    pub at_millis: u64,
}

/// What people want done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "want", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Wish {
    /// Plan it, once all who take part are there.
    Create,
    /// Grant and start it.
    Start,
    /// Pause it.
    Pause,
    /// Start it again.
    Resume,
    /// Take back its grants.
    RevokeGrants,
    /// Take back the enrolment of its agent.
    RevokeAgent,
    /// Take back the enrolments of its replicators.
    RevokeReplicators,
    /// Take back the enrolment of the first of its replicators.
    RevokeOneReplicator,
    /// Name the replicator that is to be tried first.
    NameReplicator {
        /// By its place in the pool.
        place: usize,
        /// No other is to be tried.
        #[serde(default)]
        alone: bool,
    },
    /// Switch over.
    Cutover {
        /// Read the copy back.
        prove_full: bool,
    },
    /// Wait until it is cut over.
    AwaitCutOver,
    /// Delete it.
    Delete,
}

impl Wish {
    /// Whether it takes back a right.
    pub fn revokes(&self) -> bool {
        matches!(
            self,
            Self::RevokeGrants
                | Self::RevokeAgent
                | Self::RevokeReplicators
                | Self::RevokeOneReplicator
        )
    }

    /// As a scenario file has it, in one line.
    pub fn text(&self) -> String {
        line(self)
    }
}

/// One migration as people want it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    /// Its id, which follows from its place.
    #[serde(skip, default = "no_migration")]
    pub id: MigrationId,
    /// Which node is the agent.
    pub agent: usize,
    /// Which nodes may receive.
    pub replicators: Vec<usize>,
    /// Which makes the volumes; the first node if a file does not say.
    #[serde(default)]
    pub provisioner: usize,
    /// The volumes, whose ids follow from their places; ascending.
    #[serde(skip)]
    pub volumes: Vec<VolumeId>,
    /// How long each volume is.
    pub volume_bytes: Vec<u64>,
    /// How it is to end.
    pub ending: Ending,
    /// How long its grant is to last; 30 days if a file does not say.
    #[serde(default = "long_grant")]
    pub grant_secs: u64,
    /// How long its leases last; an hour if a file does not say.
    #[serde(default = "usual_lease")]
    pub lease_secs: u64,
    /// How much longer work goes on without one; a week if a file does not say.
    #[serde(default = "usual_autonomy")]
    pub autonomy_secs: u64,
    /// Whether the agent and the replicators are cut off from everybody else when their
    /// right is taken back, until their leases are over.
    #[serde(default)]
    pub is_cut_off: bool,
    /// What is wanted, in order, and not before when.
    #[serde(rename = "wish", default)]
    pub wishes: VecDeque<At<Wish>>,
    /// What the second operator wants of it, in order of its own, whatever the first does
    /// at that time.
    #[serde(
        rename = "second_wish",
        default,
        skip_serializing_if = "VecDeque::is_empty"
    )]
    pub second_wishes: VecDeque<At<Wish>>,
}

/// The whole of a world's script.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is about, for people.
    #[serde(default)]
    pub about: String,
    /// What it has to reach to be worth its name, as the counts of a run are called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reaches: Vec<String>,
    /// Decides what the scenario leaves to chance.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: usize,
    /// Which of them is an operator beside the first, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_operator: Option<usize>,
    /// When each is invited; the first founds the mesh. A file may leave it out.
    #[serde(default)]
    pub invited_at_millis: Vec<u64>,
    /// How far each one's wall clock is off at the beginning; right if a file has none.
    #[serde(default)]
    pub clock_secs: Vec<i64>,
    /// How far a wall clock is off at most when its machine boots again, by chance; with 0
    /// it comes back as it was.
    #[serde(default)]
    pub boot_clock_secs: u64,
    /// When the last write to a source happens.
    pub quiet_at_millis: u64,
    /// When nothing goes wrong any more.
    pub heal_at_millis: u64,
    /// How long an agent waits for a lost replicator.
    #[serde(default = "usual_wait")]
    pub lost_millis: u64,
    /// Who is lost, until it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// Whose data folder somebody copies, and starts beside the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twice: Option<Twice>,
    /// What happens to messages and calls by chance.
    #[serde(default)]
    pub chance: Rates,
    /// What is migrated.
    #[serde(rename = "migration")]
    pub migrations: Vec<Migration>,
    /// What goes wrong, and when.
    #[serde(default, rename = "fault", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<At<Fault>>,
}

/// Outlasts everything, on whatever clock.
pub fn long_grant() -> u64 {
    30 * 86_400
}

/// As `migration start` has it.
fn usual_lease() -> u64 {
    3_600
}

/// As `migration start` has it.
fn usual_autonomy() -> u64 {
    7 * 86_400
}

/// Longer than a node is down or cut off, mostly.
fn usual_wait() -> u64 {
    12_000
}

fn no_migration() -> MigrationId {
    MigrationId([0; 16])
}

impl Scenario {
    /// Gives migrations and volumes the ids that follow from seed and place.
    pub fn name_all(&mut self) {
        for (at, migration) in (0..).zip(&mut self.migrations) {
            let mut rng = Rng::of(self.seed, Stream::Ids, &[at]);
            migration.id = MigrationId(rng.bytes());
            let ids = migration.volume_bytes.iter();
            let mut ids: Vec<VolumeId> = ids.map(|_| VolumeId(rng.bytes())).collect();
            ids.sort();
            migration.volumes = ids;
        }
    }

    /// The same with another seed for what is left to chance.
    pub fn with_seed(&self, seed: u64) -> Self {
        let mut other = self.clone();
        other.seed = seed;
        other.name_all();
        other
    }

    /// The nodes that are revoked on the way.
    pub fn outcasts(&self) -> Vec<usize> {
        let migrations = self.migrations.iter();
        let lost = (self.loss == Some(Loss::Revoked)).then(|| self.migrations[0].replicators[0]);
        migrations
            .flat_map(|migration| match migration.ending {
                Ending::AgentRevoked => vec![migration.agent],
                Ending::ReplicatorRevoked => migration.replicators.clone(),
                _ => vec![],
            })
            .chain(lost)
            .collect()
    }

    /// The node that is made an operator with the root key, if one is to be.
    pub fn recovers(&self) -> Option<usize> {
        match self.loss {
            Some(Loss::Operator { recovered_by, .. }) => recovered_by,
            _ => None,
        }
    }

    /// The participant that is never enrolled: behind the nodes, and the copy of one.
    pub fn stranger(&self) -> usize {
        self.nodes + usize::from(self.twice.is_some())
    }

    /// What a participant is for, in a word.
    pub fn role_of(&self, index: usize) -> &'static str {
        let mut migrations = self.migrations.iter();
        match index {
            0 => "operator",
            _ if self.second_operator == Some(index) => "operator",
            _ if self.recovers() == Some(index) => "operator",
            _ if index >= self.stranger() => "stranger",
            _ if index >= self.nodes => "copy",
            _ if migrations.any(|migration| migration.agent == index) => "agent",
            _ if self.receives(index) => "replicator",
            _ if self
                .migrations
                .iter()
                .any(|migration| migration.provisioner == index) =>
            {
                "provisioner"
            }
            _ => "member",
        }
    }

    /// Whether a node is in the pool of any migration.
    pub fn receives(&self, index: usize) -> bool {
        let mut migrations = self.migrations.iter();
        migrations.any(|migration| migration.replicators.contains(&index))
    }
}
