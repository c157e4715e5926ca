//! What the mesh replicates beside the ledger: the master document, materialised
//! by automerge from one signed, hash-chained log per author, and one signed
//! report per node.
//!
//! Pure: no IO, no clock, no randomness. Moving changes and reports between nodes
//! is `mesh`'s work, storing them is `node`'s. Nothing outside this crate may name
//! automerge.
#![forbid(unsafe_code)]

mod admission;
mod chunk;
pub mod conflicts;
mod cut;
pub mod document;
pub mod edit;
pub mod evidence;
pub mod inventory;
pub mod limit;
pub mod log;
mod parked;
pub mod plan;
pub mod report;
pub mod reports;
mod schema;
pub mod shards;
#[cfg(test)]
mod world;

pub use admission::Refusal;
pub use conflicts::{Apart, Conflicts};
pub use document::{
    Compared, CorruptLog, Document, Fork, MadeAgain, Orphan, Outcome, Saving, Snapshot,
};
pub use edit::{Edit, EditError};
pub use evidence::{Evidence, Forked, PairOutcome};
pub use inventory::Inventory;
pub use limit::{MinuteOfWeek, Rate, Timetable};
pub use log::SignedChange;
pub use plan::{
    BadHook, Checkpoint, Checkpoints, Conflict, Desired, EntryId, Hook, LeaveOut, Limit, LimitPlan,
    Limited, MigrationPlan, OnFailure, Plan, Point, Problem, ServerPlan, Side, SourceEnd, Wish,
};
pub use report::{
    CheckpointState, Event, JobReport, JobRole, KeptCheckpoint, Level, PassRead, PassSummary,
    ProviderInfo, Report, Stage, TargetState, TargetVolume, VolumeInfo, VolumeKind, WritableCopy,
};
pub use reports::{ReportFork, ReportOutcome, ReportRefusal, Reports};
