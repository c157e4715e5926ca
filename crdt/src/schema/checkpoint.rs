//! How checkpoints of a migration are read from the document: one register for each under
//! `checkpoint/<name>`, and how many are kept under `keep-checkpoints`.

use super::{Fields, parse_id};
use crate::plan::Problem;
use crate::plan::checkpoint::{Checkpoint, Checkpoints, MAX_READ};
use automerge::ScalarValue;
use keys::CheckpointName;

pub(crate) const KEEP: &str = "keep-checkpoints";
const CHECKPOINT_PREFIX: &str = "checkpoint/";

pub(crate) fn checkpoint_key(name: &CheckpointName) -> String {
    format!("{CHECKPOINT_PREFIX}{name}")
}

impl Fields<'_> {
    pub(super) fn checkpoints(&self) -> Result<Checkpoints, Problem> {
        let mut found = Checkpoints::default();
        for field in &self.found {
            let Some(text) = field.field.strip_prefix(CHECKPOINT_PREFIX) else {
                continue;
            };
            let name = parse_id(text).ok_or_else(|| self.unreadable(&field.field))?;
            let checkpoint = self.checkpoint(&field.field);
            let checkpoint = checkpoint.ok_or_else(|| self.unreadable(&field.field))?;
            found.named.insert(name, checkpoint);
            if found.named.len() > MAX_READ {
                return Err(self.unreadable("checkpoints"));
            }
        }
        found.keep = self.keep()?;
        Ok(found)
    }

    /// Of what was written at the same time the most final wish, and the earliest time.
    fn checkpoint(&self, field: &str) -> Option<Checkpoint> {
        let values = self.values(field).into_iter();
        let read = values.filter_map(|value| match value {
            ScalarValue::Str(text) => text.parse::<Checkpoint>().ok(),
            _ => None,
        });
        read.reduce(|one, other| Checkpoint {
            wish: one.wish.max(other.wish),
            asked_at: one.asked_at.min(other.asked_at),
        })
    }

    /// Of several numbers the one that removes least.
    fn keep(&self) -> Result<Option<u32>, Problem> {
        if self.found(KEEP).is_none() {
            return Ok(None);
        }
        let values = self.values(KEEP).into_iter();
        let read = values.filter_map(|value| match value {
            ScalarValue::Uint(number) => u32::try_from(number).ok(),
            _ => None,
        });
        let most = read.max();
        most.map(Some).ok_or_else(|| self.unreadable(KEEP))
    }
}
