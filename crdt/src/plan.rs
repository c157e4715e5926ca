//! What people decided, as typed values: the view of the master document that
//! roles act on and people read.
//!
//! Not here: how it is laid out in the document (`schema`) and how it is changed (`edit`).

use keys::statement::{MAX_GRANT_VOLUMES, MAX_POOL};
use keys::{MigrationId, NodeId, PublicKey, ServerId, StatementId, UnixSecs, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub mod checkpoint;
pub mod hook;
mod leave_out;
mod limit;
mod server;

pub use checkpoint::{Checkpoint, Checkpoints, Wish};
pub use hook::{BadHook, Hook, OnFailure, Point, Side};
pub use leave_out::LeaveOut;
pub use limit::{BadLimit, Limit, LimitPlan, Limited};
pub use server::{MAX_NOTE, ServerPlan};

/// Longest name of a migration, in bytes.
pub const MAX_NAME: usize = 128;
/// Longest name of a provider or a site, in bytes.
pub const MAX_WORD: usize = 64;
/// Most grants that one migration may list: one for each renewal of each pool.
pub const MAX_GRANTS: usize = 256;
/// Most volumes of one migration: what one grant can name.
pub const MAX_VOLUMES: usize = MAX_GRANT_VOLUMES;
/// Most replicators in the pool of one migration: what one grant can name.
pub const MAX_REPLICATORS: usize = MAX_POOL;

/// Everything that is planned in a mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Migrations that could be read, deleted ones too.
    pub migrations: BTreeMap<MigrationId, MigrationPlan>,
    /// Servers that could be read.
    pub servers: BTreeMap<ServerId, ServerPlan>,
    /// Limits, also those that could not be read: see [`LimitPlan::is_readable`].
    pub limits: BTreeMap<Limited, LimitPlan>,
    /// Entries that could not be read and are left out, by their key in the document.
    pub problems: BTreeMap<String, Problem>,
}

impl Plan {
    /// Puts what was read under a key of the document in the place of what was there.
    pub(crate) fn set(&mut self, key: &str, read: Option<Result<Planned, Problem>>) {
        self.problems.remove(key);
        match crate::schema::entry_of(key) {
            Some(EntryId::Migration(id)) => drop(self.migrations.remove(&id)),
            Some(EntryId::Server(id)) => drop(self.servers.remove(&id)),
            Some(EntryId::Limit(of)) => drop(self.limits.remove(&of)),
            None => {}
        }
        if let Some(read) = read {
            self.add(key, read);
        }
    }

    /// Puts in what was read under a key of which nothing is here.
    pub(crate) fn add(&mut self, key: &str, read: Result<Planned, Problem>) {
        match read {
            Ok(Planned::Migration(migration)) => {
                self.migrations.insert(migration.id, *migration);
            }
            Ok(Planned::Server(server)) => {
                self.servers.insert(server.id, server);
            }
            Ok(Planned::Limit(limit)) => {
                self.limits.insert(limit.of.clone(), limit);
            }
            Err(problem) => {
                self.problems.insert(key.to_owned(), problem);
            }
        }
    }
}

/// One entry of the plan, as it was read.
#[derive(Debug)]
pub(crate) enum Planned {
    Migration(Box<MigrationPlan>),
    Server(ServerPlan),
    Limit(LimitPlan),
}

/// What an entry of the document is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryId {
    /// A migration.
    Migration(MigrationId),
    /// A planned server.
    Server(ServerId),
    /// A limit of how fast is sent.
    Limit(Limited),
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Migration(id) => write!(f, "migration {id}"),
            Self::Server(id) => write!(f, "server {id}"),
            Self::Limit(of) => write!(f, "the limit of {of}"),
        }
    }
}

/// Why an entry of the document is left out of the plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The key is not one that this program knows.
    #[error("`{key}` is not an entry that this program knows")]
    UnknownKey {
        /// Key of the entry, cut to a readable length.
        key: String,
    },
    /// A field that must be there is not.
    #[error("{entry} has no {field}")]
    Missing {
        /// The entry.
        entry: EntryId,
        /// Name of the field.
        field: String,
    },
    /// A field is there and cannot be read.
    #[error("{entry} has a {field} that cannot be read")]
    Unreadable {
        /// The entry.
        entry: EntryId,
        /// Name of the field, cut to a readable length.
        field: String,
    },
}

/// One migration as it is planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationPlan {
    /// Random, made by who planned it.
    pub id: MigrationId,
    /// For people; 1 to [`MAX_NAME`] bytes.
    pub name: String,
    /// The agent node whose volumes move.
    pub source: NodeId,
    /// The agent's volumes that move, in order of their ids; 1 to [`MAX_VOLUMES`].
    pub volumes: Vec<VolumeId>,
    /// Kind of the target cloud, e.g. `local`.
    pub provider: String,
    /// The node that holds the target's credentials.
    pub provisioner: NodeId,
    /// Replicators in the order in which the agent tries them; 1 to [`MAX_REPLICATORS`].
    pub replicators: Vec<NodeId>,
    /// Where the target is, within the provider.
    pub site: Option<String>,
    /// What people want to happen.
    pub desired: Desired,
    /// Scripts of its hosts that are run on the way, in the order in which they are.
    pub hooks: Vec<Hook>,
    /// What of its volumes is not copied; decided when it is created.
    pub leave_out: Option<LeaveOut>,
    /// Points of its disks that are kept at the target.
    pub checkpoints: Checkpoints,
    /// Grants made for it, in order of their ids; whether each counts is the ledger's matter.
    pub grants: Vec<StatementId>,
    /// When it was planned, by the clock of who planned it.
    pub created_at: UnixSecs,
    /// Whose change created it: read from the change's signature, not from a field.
    pub created_by: PublicKey,
    /// Fields that operators set apart from each other, not yet settled by a new edit.
    pub conflicts: Vec<Conflict>,
}

/// One field with several concurrent values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Name of the field.
    pub field: String,
    /// All its values as text, sorted; one of them is shown in the plan.
    pub values: Vec<String>,
}

/// What people want of a migration.
///
/// Where operators decided concurrently, a stop beats a go and the harder stop
/// beats the softer: `Deleted > Paused > Cutover > Started > Created`, and a cutover
/// that proves in full beats one that does not, one that leaves the source less alive another
/// ([`SourceEnd`]). A later edit that has seen the
/// others replaces them, whatever they were, except that nothing revives what was
/// deleted (`edit` refuses it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Desired {
    /// Planned; nothing moves.
    Created,
    /// Blocks move.
    Started,
    /// Switch over to the copy.
    Cutover {
        /// Read the frozen source and the copy from end to end before it counts.
        prove_full: bool,
        /// What becomes of the source.
        source: SourceEnd,
    },
    /// Nothing moves until started again.
    Paused,
    /// Over: what was made for it may be cleaned up.
    Deleted,
}

/// What becomes of a source that is cut over. Of two that were written at the same time, the
/// one that leaves it less alive wins.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum SourceEnd {
    /// Nobody said: it is frozen and stays so where its agent can freeze it; else each disk
    /// is cut over once a whole pass finds nothing new, and people see to it that it stays
    /// quiet.
    #[default]
    Unsaid,
    /// It is frozen, and runs on once it is cut over: what it serves was stopped by a hook.
    Thaw,
    /// It is frozen, and stays so.
    StayFrozen,
    /// It is frozen, and its power is switched off.
    PowerOff,
}

impl SourceEnd {
    /// All of them, the softest first.
    pub const ALL: [Self; 4] = [Self::Unsaid, Self::Thaw, Self::StayFrozen, Self::PowerOff];
}

impl fmt::Display for SourceEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsaid => "unsaid",
            Self::Thaw => "thaw",
            Self::StayFrozen => "stay-frozen",
            Self::PowerOff => "power-off",
        })
    }
}

impl Desired {
    /// A cutover of which nobody said what becomes of the source.
    pub const fn cutover(prove_full: bool) -> Self {
        Self::Cutover {
            prove_full,
            source: SourceEnd::Unsaid,
        }
    }
}

/// A text that names no desired state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a desired state")]
pub struct BadDesired(String);

impl fmt::Display for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("created"),
            Self::Started => f.write_str("started"),
            Self::Cutover { prove_full, source } => {
                f.write_str("cutover")?;
                if *source != SourceEnd::Unsaid {
                    write!(f, "-{source}")?;
                }
                f.write_str(if *prove_full { "-prove-full" } else { "" })
            }
            Self::Paused => f.write_str("paused"),
            Self::Deleted => f.write_str("deleted"),
        }
    }
}

impl FromStr for Desired {
    type Err = BadDesired;
    fn from_str(text: &str) -> Result<Self, BadDesired> {
        let cutovers = [false, true].into_iter().flat_map(|prove_full| {
            let ends = SourceEnd::ALL.into_iter();
            ends.map(move |source| Self::Cutover { prove_full, source })
        });
        let others = [Self::Created, Self::Started, Self::Paused, Self::Deleted];
        others
            .into_iter()
            .chain(cutovers)
            .find(|desired| desired.to_string() == text)
            .ok_or_else(|| BadDesired(text.chars().take(40).collect()))
    }
}

impl MigrationPlan {
    /// Whether so many checkpoints can be kept.
    pub fn may_keep(checkpoints: u32) -> bool {
        (1..=checkpoint::MAX_CHECKPOINTS as u32).contains(&checkpoints)
    }

    /// Names the first field that is outside its limits.
    pub fn unsound(&self) -> Option<&'static str> {
        let word = |text: &str| (1..=MAX_WORD).contains(&text.len());
        let ascending = |volumes: &[VolumeId]| volumes.windows(2).all(|pair| pair[0] < pair[1]);
        let unique = |nodes: &[NodeId]| {
            let set: std::collections::BTreeSet<_> = nodes.iter().collect();
            set.len() == nodes.len()
        };
        if !(1..=MAX_NAME).contains(&self.name.len()) {
            Some("name")
        } else if !(1..=MAX_VOLUMES).contains(&self.volumes.len()) || !ascending(&self.volumes) {
            Some("volumes")
        } else if !word(&self.provider) {
            Some("provider")
        } else if !(1..=MAX_REPLICATORS).contains(&self.replicators.len())
            || !unique(&self.replicators)
        {
            Some("pool")
        } else if self.site.as_deref().is_some_and(|site| !word(site)) {
            Some("site")
        } else if self.grants.len() > MAX_GRANTS {
            Some("grants")
        } else if hook::check_hooks(&self.hooks).is_err() {
            Some("hooks")
        } else if self
            .checkpoints
            .keep
            .is_some_and(|keep| !Self::may_keep(keep))
        {
            Some(crate::schema::KEEP)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_stop_outranks_a_go_and_every_state_survives_its_text() {
        let ranked = [
            Desired::Created,
            Desired::Started,
            Desired::Cutover {
                prove_full: false,
                source: SourceEnd::Unsaid,
            },
            Desired::Cutover {
                prove_full: false,
                source: SourceEnd::PowerOff,
            },
            Desired::Cutover {
                prove_full: true,
                source: SourceEnd::Thaw,
            },
            Desired::Paused,
            Desired::Deleted,
        ];
        let texts: Vec<String> = ranked.iter().map(Desired::to_string).collect();
        assert_eq!(
            texts[2..5],
            ["cutover", "cutover-power-off", "cutover-thaw-prove-full"]
        );
        assert!(ranked.windows(2).all(|pair| pair[0] < pair[1]));
        for desired in ranked {
            assert_eq!(desired.to_string().parse::<Desired>().unwrap(), desired);
        }
        assert!("resurrected".parse::<Desired>().is_err());
    }
}
