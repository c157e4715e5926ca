//! Why nothing of a job moves, and what people are told of it.

use crate::hooks::Gate;
use crate::note::Note;
use crdt::plan::Point;
use crdt::report::Stage;
use keys::{CheckpointName, Denied};

/// The step in which nothing is missing but a word of an operator.
pub(super) const WAITING: &str = "waiting for an operator";
/// What is said where only half of a cutover is known.
const UNPROVEN: &str = "this node said before that the volume was cut over, its data does not have it, and what the replicator stated is not here: nothing is sent; start the nodes of the migration, or put the newest data folder back";

/// Why nothing moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hold {
    Unheard,
    Unproven,
    Planned,
    Paused,
    Denied(Denied),
    Unvouched {
        until_millis: u64,
    },
    NoReplicator,
    NoTarget(Option<String>),
    NotConnected,
    Source(String),
    Retry {
        until_millis: u64,
        why: String,
    },
    /// Hooks at this point are to be run first; why they failed, if they did.
    Hooks(Point, Option<String>),
    /// The copy stands at a checkpoint that is not kept yet.
    Checkpoint(CheckpointName),
}

impl Hold {
    /// Where hooks are to be run at a point, or failed.
    pub(super) fn at(point: Point, gate: &Gate) -> Option<Self> {
        match gate {
            Gate::Open => None,
            Gate::Running => Some(Self::Hooks(point, None)),
            Gate::Failed(why) => Some(Self::Hooks(point, Some(why.clone()))),
        }
    }

    pub(super) fn note(&self) -> Option<Note> {
        match self {
            Self::Paused => Some(Note::info("paused", "paused by the plan; nothing is sent")),
            Self::Denied(denied @ (Denied::NotVouched { .. } | Denied::LeaseOver { .. })) => {
                let text = format!("nothing is sent: {denied}");
                Some(Note::error("no-lease", text))
            }
            // These say themselves what to do; another grant would not help.
            Self::Denied(
                denied @ (Denied::Cloned(_) | Denied::KeyContested(_) | Denied::NodeContested(_)),
            ) => {
                let text = format!("nothing is sent: {denied}");
                Some(Note::error("grant-refused", text))
            }
            Self::Denied(denied) => {
                let text = format!(
                    "nothing is sent: {denied}; have an operator start the migration again"
                );
                Some(Note::error("grant-refused", text))
            }
            Self::NoReplicator => Some(Note::error(
                "no-replicator",
                "the plan names no replicator; delete the migration and create it with --replicator",
            )),
            Self::NoTarget(Some(why)) => Some(Note::error("target-failed", why.clone())),
            Self::Source(why) => Some(Note::error("source-failed", why.clone())),
            Self::NotConnected => Some(Note::warn(
                "replicator-unreachable",
                "the replicator is not connected; it is tried again all the time",
            )),
            Self::Unproven => Some(Note::error("record-lost", UNPROVEN)),
            Self::Unheard
            | Self::Planned
            | Self::Unvouched { .. }
            | Self::NoTarget(None)
            | Self::Retry { .. }
            // Each script is told of where it runs.
            | Self::Hooks(..)
            | Self::Checkpoint(_) => None,
        }
    }

    pub(super) fn standing(&self, running: Stage) -> (Stage, &'static str, Option<String>) {
        match self {
            Self::Unheard => (
                Stage::Stalled,
                "waiting for a peer",
                Some("this node has heard from nobody since it started: start a node that it can reach".into()),
            ),
            Self::Unproven => (Stage::Stalled, "refused", Some(UNPROVEN.into())),
            Self::Planned => (Stage::Enrolled, "planned", None),
            Self::Paused => (Stage::Paused, "paused", None),
            Self::Unvouched { .. } => (running, WAITING, None),
            Self::Denied(denied @ (Denied::NotVouched { .. } | Denied::LeaseOver { .. })) => {
                (Stage::Stalled, WAITING, Some(denied.to_string()))
            }
            Self::Denied(denied) => (Stage::Stalled, "refused", Some(denied.to_string())),
            Self::NoReplicator => (
                Stage::Failed,
                "choosing",
                Some("the plan names no replicator".into()),
            ),
            Self::NoTarget(None) => (running, "waiting for the target volume", None),
            Self::NoTarget(Some(why)) => (Stage::Stalled, "target volume", Some(why.clone())),
            Self::NotConnected => (
                Stage::Stalled,
                "connecting",
                Some("the replicator is not connected".into()),
            ),
            Self::Source(why) => (Stage::Stalled, "source", Some(why.clone())),
            Self::Retry { why, .. } => (Stage::Stalled, "connecting", Some(why.clone())),
            Self::Checkpoint(name) => (
                running,
                "waiting for a checkpoint",
                Some(format!("waits until checkpoint {name} is kept at the target")),
            ),
            Self::Hooks(_, None) => (running, "running hooks", None),
            Self::Hooks(_, Some(why)) => (Stage::Stalled, "hooks", Some(why.clone())),
        }
    }
}
