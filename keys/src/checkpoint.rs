//! The name of a checkpoint: a consistent point of all disks of a migration that is kept at
//! the target while the source goes on.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest name of a checkpoint, in bytes.
pub const MAX_CHECKPOINT_NAME: usize = 32;

/// A name of a checkpoint: 1 to [`MAX_CHECKPOINT_NAME`] of a-z, 0-9 and `-`, not beginning
/// with `-`. It is part of file names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CheckpointName(String);

/// A text that cannot name a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name a checkpoint: use 1 to {MAX_CHECKPOINT_NAME} of a-z, 0-9 and `-`, not beginning with `-`"
)]
pub struct BadCheckpointName(String);

impl CheckpointName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// Where it cannot be one.
    pub fn new(text: &str) -> Result<Self, BadCheckpointName> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = (1..=MAX_CHECKPOINT_NAME).contains(&text.len())
            && text.bytes().all(plain)
            && !text.starts_with('-');
        match is_name {
            true => Ok(Self(text.to_owned())),
            false => Err(BadCheckpointName(text.chars().take(80).collect())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CheckpointName {
    type Error = BadCheckpointName;

    fn try_from(text: String) -> Result<Self, BadCheckpointName> {
        Self::new(&text)
    }
}

impl From<CheckpointName> for String {
    fn from(name: CheckpointName) -> Self {
        name.0
    }
}

impl FromStr for CheckpointName {
    type Err = BadCheckpointName;

    fn from_str(text: &str) -> Result<Self, BadCheckpointName> {
        Self::new(text)
    }
}

impl fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_leave_a_folder_or_pass_for_an_option_is_no_name() {
        for good in ["a", "20261127-041500", "0--", &"x".repeat(32)] {
            assert!(CheckpointName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a/b", "..", "a.b", "a b", &"x".repeat(33)] {
            assert!(CheckpointName::new(bad).is_err(), "{bad}");
        }
    }
}
