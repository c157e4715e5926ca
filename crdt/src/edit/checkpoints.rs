//! What an operator can decide about checkpoints.

use super::{Edit, EditError, Value};
use crate::plan::checkpoint::{Checkpoint, MAX_CHECKPOINTS, MAX_REMEMBERED, Wish};
use crate::plan::{EntryId, MigrationPlan};
use crate::schema;
use keys::{CheckpointName, MigrationId, UnixSecs};

impl Edit<'_> {
    /// Asks for a checkpoint under a name that was not used before. The oldest of those that
    /// were deleted are forgotten where there are too many.
    pub fn ask_checkpoint(
        &mut self,
        id: MigrationId,
        name: &CheckpointName,
        wish: Wish,
    ) -> Result<(), EditError> {
        let now = self.now;
        let checkpoints = &mut self.draft(id)?.checkpoints;
        // The newest, also where the clock of who asked before is ahead.
        let newest = checkpoints.named.values().map(|had| had.asked_at.0).max();
        let asked_at = UnixSecs(newest.map_or(now.0, |newest| now.0.max(newest.saturating_add(1))));
        if checkpoints.named.contains_key(name) {
            let name = name.clone();
            return Err(EditError::CheckpointExists { id, name });
        }
        if checkpoints.wanted().len() >= MAX_CHECKPOINTS {
            return Err(EditError::TooManyCheckpoints(id));
        }
        let mut deleted: Vec<_> = checkpoints
            .named
            .iter()
            .filter(|(_, checkpoint)| checkpoint.wish == Wish::Deleted)
            .map(|(name, checkpoint)| (checkpoint.asked_at, name.clone()))
            .collect();
        deleted.sort();
        let excess = (checkpoints.named.len() + 1).saturating_sub(MAX_REMEMBERED);
        let checkpoint = Checkpoint { wish, asked_at };
        checkpoints.named.insert(name.clone(), checkpoint);
        let forgotten: Vec<CheckpointName> = deleted
            .into_iter()
            .take(excess)
            .map(|(_, name)| name)
            .collect();
        for name in &forgotten {
            checkpoints.named.remove(name);
        }
        for name in &forgotten {
            self.write(id, schema::checkpoint_key(name), Value::Absent);
        }
        let value = Value::Text(checkpoint.to_string());
        self.write(id, schema::checkpoint_key(name), value);
        Ok(())
    }

    /// Decides what is wanted of a checkpoint that was asked for and not deleted.
    pub fn set_checkpoint(
        &mut self,
        id: MigrationId,
        name: &CheckpointName,
        wish: Wish,
    ) -> Result<(), EditError> {
        let checkpoints = &mut self.draft(id)?.checkpoints;
        let found = checkpoints.named.get_mut(name);
        let found = found.filter(|found| found.wish != Wish::Deleted);
        let found = found.ok_or_else(|| EditError::UnknownCheckpoint {
            id,
            name: name.clone(),
        })?;
        found.wish = wish;
        let value = Value::Text(found.to_string());
        self.write(id, schema::checkpoint_key(name), value);
        Ok(())
    }

    /// Decides how many checkpoints are kept; all where none is given.
    pub fn keep_checkpoints(
        &mut self,
        id: MigrationId,
        keep: Option<u32>,
    ) -> Result<(), EditError> {
        let entry = EntryId::Migration(id);
        if keep.is_some_and(|keep| !MigrationPlan::may_keep(keep)) {
            let field = schema::KEEP;
            return Err(EditError::Unsound { entry, field });
        }
        self.draft(id)?.checkpoints.keep = keep;
        let value = keep.map_or(Value::Absent, |keep| Value::Number(keep.into()));
        self.write(id, schema::KEEP.to_owned(), value);
        Ok(())
    }
}
