//! The cloud abstraction: what a provider can be asked, in words every cloud
//! shares, an in-memory fake with faults, and the suite all providers pass.
//!
//! It is not an implementation of any real cloud, and it does no IO.
//!
//! Three rules hold for every provider:
//! - **Idempotent by key.** Each call may be repeated with the same arguments
//!   and then changes nothing more. That is what makes a result that is not
//!   known ([`CloudError::Unknown`]) harmless: the caller asks again.
//! - **Fenced by epoch.** A volume remembers the highest epoch it was attached
//!   with, and refuses whoever comes with a lower one.
//! - **Capabilities are data.** Callers decide by [`Capabilities`], never by
//!   the name of the provider.
#![forbid(unsafe_code)]

mod checkpoint;
pub mod conformance;
mod error;
pub mod fake;
mod key;
mod record;
mod volume;

pub use checkpoint::{
    BadCheckpointTag, CheckpointKey, CheckpointRecord, CheckpointTag, MAX_CHECKPOINT_NAME,
};
pub use error::{CloudError, Subject};
pub use key::{BadTag, MigrationTag, VolumeKey, VolumeTag};
pub use volume::{
    AttachTo, Attachment, AttachmentKind, Capabilities, Fencing, Finding, HolderId, Need, Severity,
    VolumeRecord, VolumeSpec, VolumeState,
};

use std::sync::atomic::AtomicBool;

/// One cloud, or one account or folder of it.
///
/// Calls block: they belong on a thread that may wait.
pub trait Provider: Send + Sync {
    /// The name of the kind of cloud, such as `local`.
    fn kind(&self) -> &'static str;

    /// What this cloud can do.
    fn capabilities(&self) -> Capabilities;

    /// Looks for what would stop `need` later: space, permission, limits. It
    /// changes nothing; an empty list means that nothing was found.
    fn check(&self, need: &Need) -> Result<Vec<Finding>, CloudError>;

    /// Makes the volume unless it is there, and tells what it is now. A new
    /// volume reads as zeros. The same key with another length is refused with
    /// [`CloudError::Conflict`].
    fn ensure_volume(&self, spec: &VolumeSpec) -> Result<VolumeRecord, CloudError>;

    /// Attaches the volume to one holder and nobody else. A higher epoch takes
    /// the volume from whoever holds it, a lower one is refused with
    /// [`CloudError::Fenced`], the same one is refused to another holder.
    fn attach(&self, key: &VolumeKey, to: &AttachTo) -> Result<Attachment, CloudError>;

    /// Takes the volume from whoever holds it with a lower epoch than `epoch`, and
    /// refuses those epochs from then on. It keeps what the volume holds. Whoever
    /// holds it with this epoch or a higher one keeps it, and the call is refused
    /// with [`CloudError::Fenced`].
    fn detach(&self, key: &VolumeKey, epoch: u64) -> Result<(), CloudError>;

    /// How the volume is reached by whoever only reads it, whether it is attached or
    /// not. It changes nothing.
    fn open_read_only(&self, key: &VolumeKey) -> Result<Attachment, CloudError>;

    /// Writes the last durable state on the volume itself. The epoch must be
    /// the one the volume is attached with, and within an epoch the barrier
    /// never goes back.
    fn tag(&self, key: &VolumeKey, state: &VolumeState) -> Result<(), CloudError>;

    /// Every volume of one migration, in the order of their keys.
    fn owned(&self, migration: &MigrationTag) -> Result<Vec<VolumeRecord>, CloudError>;

    /// Deletes the volume and all it holds, but not its checkpoints. A volume that is not
    /// there is deleted already.
    fn delete(&self, key: &VolumeKey) -> Result<(), CloudError>;

    /// Keeps what the volume holds now as a checkpoint, read-only. The epoch must be the
    /// one the volume is attached with, from the beginning to the end, and the caller sees
    /// to it that nobody writes meanwhile. One that is there is left as it is; the same key
    /// with another epoch is refused with [`CloudError::SealedOtherwise`].
    ///
    /// It may take as long as copying the volume. Other calls go on meanwhile; one about the
    /// same checkpoint is refused with [`CloudError::Busy`]. Once `stop` is set it ends with
    /// [`CloudError::Stopped`], and begins anew when it is made again.
    fn seal(
        &self,
        key: &CheckpointKey,
        epoch: u64,
        stop: &AtomicBool,
    ) -> Result<CheckpointRecord, CloudError>;

    /// Every checkpoint of one migration, in the order of their keys, those that are not
    /// whole too.
    fn checkpoints(&self, migration: &MigrationTag) -> Result<Vec<CheckpointRecord>, CloudError>;

    /// How the checkpoint is reached by whoever reads it. It changes nothing.
    fn open_checkpoint(&self, key: &CheckpointKey) -> Result<Attachment, CloudError>;

    /// Makes the one copy of the checkpoint that can be written to, unless it is there. What
    /// was written to it stays. It may take as long, and ends as early, as [`Self::seal`].
    fn copy_checkpoint(
        &self,
        key: &CheckpointKey,
        stop: &AtomicBool,
    ) -> Result<Attachment, CloudError>;

    /// Deletes the copy and all that was written to it. One that is not there is deleted
    /// already.
    fn delete_copy(&self, key: &CheckpointKey) -> Result<(), CloudError>;

    /// Deletes the checkpoint; refused with [`CloudError::HasCopy`] while there is a copy,
    /// on which a server may run. One that is not there is deleted already.
    fn delete_checkpoint(&self, key: &CheckpointKey) -> Result<(), CloudError>;
}
