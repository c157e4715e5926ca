//! Checkpoints of a migration, as the API shows and takes them.

use super::ProofView;
use serde::{Deserialize, Serialize};

/// What an operator asks about checkpoints.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointAsk {
    /// Take one.
    Take {
        /// Its name; the time otherwise.
        name: Option<String>,
    },
    /// Delete one, and its copy.
    Delete {
        /// Its name.
        name: String,
    },
    /// Keep only so many of the newest.
    Keep {
        /// How many.
        number: u32,
    },
    /// Pause, and have a copy made of one that can be written to.
    Rollback {
        /// Its name.
        name: String,
    },
    /// Have a copy made that can be written to, while all goes on.
    Test {
        /// Of which; a new one otherwise.
        name: Option<String>,
    },
    /// Delete that copy.
    EndTest {
        /// Of which; of all that were made for a test otherwise.
        name: Option<String>,
    },
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointView {
    /// Its name.
    pub name: String,
    /// When it was asked for.
    pub asked_at: String,
    /// What is wanted of it: `kept` or `copied`.
    pub wanted: String,
    /// Where it stands: `failed`, or the least advanced of its volumes: `asked`, `reached`,
    /// `sealing`, `sealed`, `verified`.
    pub state: String,
    /// How long the source was frozen for it, in milliseconds; none where it was not.
    pub frozen_millis: Option<u64>,
    /// Its volumes.
    pub volumes: Vec<CheckpointVolume>,
}

/// A checkpoint of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointVolume {
    /// The source volume.
    pub volume: String,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: String,
    /// Why it failed.
    pub detail: Option<String>,
    /// Where it is kept.
    pub path: Option<String>,
    /// Where its copy is that can be written to.
    pub copy: Option<String>,
    /// Why there is no such copy.
    pub copy_detail: Option<String>,
    /// What its agent signed, with the command that proves what is kept.
    pub proof: Option<ProofView>,
}
