//! Checkpoints as clouds know them: what names one, what is kept of it, and the rules that
//! every provider shares. It stores nothing.
//!
//! A checkpoint is what a volume held at one moment, kept read-only. It is a thing of its
//! own: it outlives the volume, and so does the one copy of it that can be written to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{CloudError, VolumeKey, VolumeRecord};

/// Longest name of a checkpoint, in bytes.
pub const MAX_CHECKPOINT_NAME: usize = 32;

/// Names a checkpoint of a volume; chosen by the caller, never by the cloud. It is part of
/// file names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CheckpointTag(String);

/// A text that names no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a checkpoint's name has 1 to {MAX_CHECKPOINT_NAME} of a-z, 0-9 and `-`, and does not begin with `-`"
)]
pub struct BadCheckpointTag;

/// The deterministic key of one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckpointKey {
    /// The volume it was made of.
    pub volume: VolumeKey,
    /// Its name.
    pub name: CheckpointTag,
}

/// A checkpoint as the cloud knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// Its key.
    pub key: CheckpointKey,
    /// Its length in bytes.
    pub length: u64,
    /// The epoch with which its volume was attached when it was made.
    pub epoch: u64,
    /// It is whole and can be read. One that is not was begun, or is being deleted.
    pub sealed: bool,
    /// There is a copy of it that can be written to, or one was begun.
    pub has_copy: bool,
}

impl CheckpointKey {
    /// A short name for people, `<volume>@<name>`. Two keys may share it;
    /// [`fmt::Display`] gives the full one.
    pub fn short_name(&self) -> String {
        format!("{}@{}", self.volume.short_name(), self.name)
    }
}

impl VolumeRecord {
    /// Refuses to have a checkpoint made by whoever does not know the volume's epoch.
    pub fn admit_seal(&self, epoch: u64) -> Result<(), CloudError> {
        self.admit_holder(epoch)
    }
}

impl CheckpointRecord {
    /// The record of a checkpoint that is being made.
    pub fn new(volume: &VolumeRecord, name: CheckpointTag, epoch: u64) -> Self {
        Self {
            key: CheckpointKey {
                volume: volume.key,
                name,
            },
            length: volume.length,
            epoch,
            sealed: false,
            has_copy: false,
        }
    }

    /// Refuses to pass for a checkpoint of another epoch.
    pub fn admit_again(&self, epoch: u64) -> Result<(), CloudError> {
        if self.epoch == epoch {
            return Ok(());
        }
        Err(CloudError::SealedOtherwise {
            key: self.key.clone(),
            have: self.epoch,
            asked: epoch,
        })
    }

    /// Refuses to read, or to copy, what is not whole.
    pub fn admit_reading(&self) -> Result<(), CloudError> {
        match self.sealed {
            true => Ok(()),
            false => Err(CloudError::NoCheckpoint {
                key: self.key.clone(),
            }),
        }
    }

    /// Refuses to delete it beside a copy on which a server may run.
    pub fn admit_deletion(&self) -> Result<(), CloudError> {
        match self.has_copy {
            false => Ok(()),
            true => Err(CloudError::HasCopy {
                key: self.key.clone(),
            }),
        }
    }
}

impl FromStr for CheckpointTag {
    type Err = BadCheckpointTag;

    fn from_str(text: &str) -> Result<Self, BadCheckpointTag> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = (1..=MAX_CHECKPOINT_NAME).contains(&text.len())
            && text.bytes().all(plain)
            && !text.starts_with('-');
        match is_name {
            true => Ok(Self(text.to_owned())),
            false => Err(BadCheckpointTag),
        }
    }
}

impl TryFrom<String> for CheckpointTag {
    type Error = BadCheckpointTag;

    fn try_from(text: String) -> Result<Self, BadCheckpointTag> {
        text.parse()
    }
}

impl From<CheckpointTag> for String {
    fn from(tag: CheckpointTag) -> Self {
        tag.0
    }
}

impl fmt::Display for CheckpointTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for CheckpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of volume {}", self.name, self.volume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_leave_a_folder_or_stand_for_another_file_is_no_name() {
        for good in ["a", "20261127-041500", "0--", &"x".repeat(32)] {
            assert!(good.parse::<CheckpointTag>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a/b", "..", "a.copy", "a@b", &"x".repeat(33)] {
            assert_eq!(bad.parse::<CheckpointTag>(), Err(BadCheckpointTag), "{bad}");
        }
    }
}
