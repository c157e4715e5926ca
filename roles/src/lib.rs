//! What each role does, as state machines: facts from the mesh and events from the
//! data plane in, actions out.
//!
//! Pure: no disk, no clock, no socket. The shell (`node`, or `simulations`) works
//! out the facts with [`situation`], steps the machine, and carries out the actions
//! in order; a `Store` is durable before what follows it.
#![forbid(unsafe_code)]

pub mod agent;
pub mod checkpoint;
pub mod cutover;
pub mod forecast;
pub mod hooks;
pub mod launch;
pub mod note;
pub mod proof;
pub mod provisioner;
pub mod replicator;
pub mod share;
pub mod situation;
pub mod ticket;
pub mod vouching;
#[cfg(test)]
mod world;

pub use hooks::Hooks;
pub use note::Note;
pub use share::{Lending, share};
pub use situation::Situation;
pub use ticket::Ticket;
pub use vouching::Vouching;

pub use keys::Now;
use keys::{MigrationId, VolumeId};
use serde::{Deserialize, Serialize};

/// One source volume in one migration: the unit of work of every role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId {
    /// The migration.
    pub migration: MigrationId,
    /// The source volume.
    pub volume: VolumeId,
}

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.migration.short(), self.volume.short())
    }
}
