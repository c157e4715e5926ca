//! Checkpoints of a migration as they are planned: which were asked for, which are to be
//! deleted, and how many are kept.
//!
//! Not here: taking them (`roles::cutover`), and what became of them (`report`).

use keys::{CheckpointName, UnixSecs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Most checkpoints of a migration that are not to be deleted.
pub const MAX_CHECKPOINTS: usize = 32;
/// Most that are remembered, those to be deleted too: the oldest of those are forgotten first.
pub const MAX_REMEMBERED: usize = 128;
/// Most that can be read: operators who write apart from each other make more together.
pub(crate) const MAX_READ: usize = 1_024;

/// All checkpoints of a migration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoints {
    /// By their names.
    pub named: BTreeMap<CheckpointName, Checkpoint>,
    /// Only so many of the newest that are good are kept, 1 to [`MAX_CHECKPOINTS`]; all where
    /// nobody said.
    pub keep: Option<u32>,
}

/// One checkpoint as it is planned. Of several that were written at the same time the most
/// final wish holds, and the earliest time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What is wanted of it.
    pub wish: Wish,
    /// When it was asked for, by the clock of who did.
    pub asked_at: UnixSecs,
}

/// What is wanted of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Wish {
    /// It is kept.
    Kept,
    /// It is kept, and a copy of it made that can be written to.
    Copied,
    /// It is deleted, and its copy.
    Deleted,
}

/// A text that says nothing of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not what a checkpoint can be")]
pub struct BadCheckpoint(String);

impl Checkpoints {
    /// Those that are not to be deleted, the newest first.
    pub fn wanted(&self) -> Vec<(&CheckpointName, &Checkpoint)> {
        let named = self.named.iter();
        let mut wanted: Vec<_> = named
            .filter(|(_, checkpoint)| checkpoint.wish != Wish::Deleted)
            .collect();
        wanted.sort_by_key(|(name, checkpoint)| std::cmp::Reverse((checkpoint.asked_at, *name)));
        wanted
    }

    /// One that is not to be deleted.
    pub fn get(&self, name: &CheckpointName) -> Option<&Checkpoint> {
        let found = self.named.get(name);
        found.filter(|checkpoint| checkpoint.wish != Wish::Deleted)
    }

    /// Those that count as to be deleted because enough newer ones are good. One of which a
    /// copy is wanted is not among them.
    pub fn expired(&self, is_good: impl Fn(&CheckpointName) -> bool) -> Vec<CheckpointName> {
        let Some(keep) = self.keep else {
            return vec![];
        };
        let mut newer = 0;
        let mut expired = vec![];
        for (name, checkpoint) in self.wanted() {
            if newer >= keep && checkpoint.wish == Wish::Kept {
                expired.push(name.clone());
            }
            newer += u32::from(is_good(name));
        }
        expired
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::Copied => "copied",
            Self::Deleted => "deleted",
        })
    }
}

impl fmt::Display for Checkpoint {
    /// As it is written into the document.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.wish, self.asked_at.0)
    }
}

impl FromStr for Checkpoint {
    type Err = BadCheckpoint;

    fn from_str(text: &str) -> Result<Self, BadCheckpoint> {
        let bad = || BadCheckpoint(text.chars().take(40).collect());
        let (wish, at) = text.split_once(' ').ok_or_else(bad)?;
        let wishes = [Wish::Kept, Wish::Copied, Wish::Deleted];
        let found = wishes.into_iter().find(|known| known.to_string() == wish);
        Ok(Self {
            wish: found.ok_or_else(bad)?,
            asked_at: UnixSecs(at.parse().map_err(|_| bad())?),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(text: &str) -> CheckpointName {
        CheckpointName::new(text).unwrap()
    }

    fn three(keep: Option<u32>) -> Checkpoints {
        let at = |at, wish| Checkpoint {
            wish,
            asked_at: UnixSecs(at),
        };
        let named = [
            (name("z"), at(1, Wish::Kept)),
            (name("y"), at(2, Wish::Kept)),
            (name("gone"), at(4, Wish::Deleted)),
            (name("x"), at(3, Wish::Kept)),
        ];
        Checkpoints {
            named: named.into(),
            keep,
        }
    }

    #[test]
    fn every_wish_survives_its_text() {
        for wish in [Wish::Kept, Wish::Copied, Wish::Deleted] {
            let checkpoint = Checkpoint {
                wish,
                asked_at: UnixSecs(7),
            };
            assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
        }
        for bad in ["", "kept", "kept x", "buried 7", "kept -1"] {
            assert!(bad.parse::<Checkpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn one_is_dropped_only_once_enough_newer_ones_are_good() {
        let names = |found: Vec<CheckpointName>| {
            let texts = found.iter().map(|name| name.as_str().to_owned());
            texts.collect::<Vec<_>>().join(" ")
        };
        let all = |_: &CheckpointName| true;
        assert_eq!(names(three(None).expired(all)), "");
        assert_eq!(names(three(Some(1)).expired(all)), "y z");
        // The newest may still fail.
        let old = |good: &CheckpointName| good.as_str() != "x";
        assert_eq!(names(three(Some(1)).expired(old)), "z");
        let mut copied = three(Some(1));
        copied.named.get_mut(&name("z")).unwrap().wish = Wish::Copied;
        assert_eq!(names(copied.expired(all)), "y");
    }
}
