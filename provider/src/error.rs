//! Why a cloud did not do what it was asked, in the few kinds that callers
//! act on differently. Not the text of any cloud's own messages.

use std::fmt;

use crate::{CheckpointKey, HolderId, MigrationTag, VolumeKey};

/// What a failed call was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One volume.
    Volume(VolumeKey),
    /// One checkpoint.
    Checkpoint(CheckpointKey),
    /// All volumes of a migration.
    Migration(MigrationTag),
    /// The cloud itself, by the name of its place: a folder or an account.
    Place(String),
}

/// Why a call to a cloud failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// No volume has this key.
    #[error("volume {key} does not exist")]
    NotFound {
        /// The key asked for.
        key: VolumeKey,
    },
    /// The key is taken by a volume of another length.
    #[error("volume {key} exists with {have} bytes, {asked} were asked for")]
    Conflict {
        /// The key asked for.
        key: VolumeKey,
        /// The length it has, in bytes.
        have: u64,
        /// The length asked for, in bytes.
        asked: u64,
    },
    /// Another volume already has the name this one would get.
    #[error("the name {name} for volume {key} is taken by volume {by}")]
    NameTaken {
        /// The key asked for.
        key: VolumeKey,
        /// The name both would have.
        name: String,
        /// The volume that has it.
        by: VolumeKey,
    },
    /// A volume has no length, or is longer than the cloud can make.
    #[error("volume {key} cannot have {asked} bytes: 1 to {max} are possible")]
    BadLength {
        /// The key asked for.
        key: VolumeKey,
        /// The length asked for, in bytes.
        asked: u64,
        /// The longest possible, in bytes.
        max: u64,
    },
    /// The caller's epoch is over: a later one has taken the volume.
    #[error("volume {key} is at epoch {have}, epoch {asked} is over")]
    Fenced {
        /// The volume.
        key: VolumeKey,
        /// The volume's epoch.
        have: u64,
        /// The caller's epoch.
        asked: u64,
    },
    /// Another node holds the volume in the same epoch.
    #[error("volume {key} is attached to {holder} in epoch {epoch}")]
    AttachedElsewhere {
        /// The volume.
        key: VolumeKey,
        /// Who holds it.
        holder: HolderId,
        /// The epoch it is held in.
        epoch: u64,
    },
    /// An epoch the volume was never attached with.
    #[error("volume {key} is not attached in epoch {epoch}")]
    NotAttached {
        /// The volume.
        key: VolumeKey,
        /// The epoch of the caller.
        epoch: u64,
    },
    /// A state that is not later than the one the volume carries.
    #[error("volume {key} is at barrier {have}, barrier {asked} is not after it")]
    StaleBarrier {
        /// The volume.
        key: VolumeKey,
        /// The barrier it carries.
        have: u64,
        /// The barrier of the refused state.
        asked: u64,
    },
    /// No checkpoint has this key, or it is not whole.
    #[error("checkpoint {key} does not exist")]
    NoCheckpoint {
        /// The key asked for.
        key: CheckpointKey,
    },
    /// The checkpoint is of another moment than is asked for.
    #[error("checkpoint {key} was made in epoch {have}, not in epoch {asked}")]
    SealedOtherwise {
        /// The key asked for.
        key: CheckpointKey,
        /// The epoch it was made in.
        have: u64,
        /// The caller's epoch.
        asked: u64,
    },
    /// Somebody may use the copy that was made of the checkpoint.
    #[error("checkpoint {key} has a writable copy: delete that first")]
    HasCopy {
        /// The checkpoint.
        key: CheckpointKey,
    },
    /// Another call is at work on it.
    #[error("{subject} is being copied by another call: ask again")]
    Busy {
        /// What the call was about.
        subject: Subject,
    },
    /// The caller stopped the call; made again, it begins anew.
    #[error("{subject}: the call was stopped before it was done")]
    Stopped {
        /// What the call was about.
        subject: Subject,
    },
    /// A copy of this would not fit.
    #[error(
        "no room for {subject}: it needs {need} bytes and {free} are free; free some space, or delete a checkpoint"
    )]
    NoRoom {
        /// What the call was about.
        subject: Subject,
        /// The bytes it would take, and those that are to be left.
        need: u64,
        /// The bytes that there are.
        free: u64,
    },
    /// The cloud does not let us.
    #[error("not allowed on {subject}: {why}")]
    Denied {
        /// What the call was about.
        subject: Subject,
        /// What was refused.
        why: String,
    },
    /// The cloud is full or a quota is used up.
    #[error("no space left for {subject}")]
    NoSpace {
        /// What the call was about.
        subject: Subject,
    },
    /// Too many calls; nothing was done.
    #[error("{subject}: the cloud asks us to slow down")]
    Throttled {
        /// What the call was about.
        subject: Subject,
    },
    /// The cloud did not answer; nothing was done.
    #[error("{subject}: the cloud is not available: {why}")]
    Unavailable {
        /// What the call was about.
        subject: Subject,
        /// What stopped it.
        why: String,
    },
    /// The call may have been carried out or not.
    #[error("{subject}: it is not known whether the call succeeded: {why}")]
    Unknown {
        /// What the call was about.
        subject: Subject,
        /// What happened.
        why: String,
    },
    /// What the cloud keeps about the volume cannot be trusted.
    #[error("{subject} is damaged: {why}")]
    Damaged {
        /// What the call was about.
        subject: Subject,
        /// What is wrong, and what to do.
        why: String,
    },
}

impl CloudError {
    /// Whether the same call may succeed when it is made again, with nobody
    /// having done anything about it.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Throttled { .. }
            | Self::Unavailable { .. }
            | Self::Unknown { .. }
            | Self::Busy { .. }
            | Self::Stopped { .. } => true,
            Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::NameTaken { .. }
            | Self::BadLength { .. }
            | Self::Fenced { .. }
            | Self::AttachedElsewhere { .. }
            | Self::NotAttached { .. }
            | Self::StaleBarrier { .. }
            | Self::NoCheckpoint { .. }
            | Self::SealedOtherwise { .. }
            | Self::HasCopy { .. }
            | Self::NoRoom { .. }
            | Self::Denied { .. }
            | Self::NoSpace { .. }
            | Self::Damaged { .. } => false,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(key) => write!(f, "volume {key}"),
            Self::Checkpoint(key) => write!(f, "checkpoint {key}"),
            Self::Migration(tag) => write!(f, "migration {tag}"),
            Self::Place(name) => f.write_str(name),
        }
    }
}

impl From<VolumeKey> for Subject {
    fn from(key: VolumeKey) -> Self {
        Self::Volume(key)
    }
}

impl From<&CheckpointKey> for Subject {
    fn from(key: &CheckpointKey) -> Self {
        Self::Checkpoint(key.clone())
    }
}
