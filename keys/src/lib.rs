//! Who may do what: identities, signed statements, the ledger, and the authority
//! computed from it.
//!
//! Pure: no IO, no clock, no randomness of its own. Time and random bytes are
//! arguments. Reading and writing key files is `node`'s work; moving statements
//! between nodes is `mesh`'s.
#![forbid(unsafe_code)]

pub mod authority;
pub mod checkpoint;
pub mod dedup;
pub mod enrolment;
pub mod id;
pub mod identity;
pub mod invite;
pub mod lease;
pub mod ledger;
mod left_out;
pub mod permit;
pub mod proof;
pub mod root;
pub mod rotation;
pub mod scope;
pub mod signed;
pub mod statement;

pub use authority::{Authority, Member, Standing};
pub use checkpoint::{BadCheckpointName, CheckpointName};
pub use dedup::DedupDomain;
pub use id::{
    Epoch, MeshId, MigrationId, NodeId, PublicKey, Pulse, ServerId, StatementId, UnixSecs, VolumeId,
};
pub use identity::Identity;
pub use lease::{Leases, Now};
pub use ledger::Ledger;
pub use left_out::{BadLeftOut, LeftOut, MAX_LEFT_OUT};
pub use permit::{Denied, Permit, ReceiveBlocks, SendBlocks};
pub use root::RootKey;
pub use scope::Scope;
pub use signed::{Domain, Signature, Signed};
pub use statement::{Grant, Name, Revocation, Role, Roles, Statement};
