//! What an operator can decide about limits.

use super::{Edit, EditError, Write};
use crate::plan::{EntryId, Limit, LimitPlan, Limited};

impl Edit<'_> {
    /// Sets a limit, in the place of what was set before, and settles what operators set
    /// apart from each other.
    pub fn set_limit(&mut self, of: &Limited, limit: &Limit) -> Result<(), EditError> {
        if let Some(field) = of.unsound(limit) {
            let entry = EntryId::Limit(of.clone());
            return Err(EditError::Unsound { entry, field });
        }
        let before = self.limit(of);
        let is_said = |before: &LimitPlan| {
            before.limit == *limit && before.is_readable && before.conflicts.is_empty()
        };
        if before.is_some_and(is_said) {
            return Ok(());
        }
        let draft = LimitPlan {
            of: of.clone(),
            limit: limit.clone(),
            is_readable: true,
            set_by: self.author,
            conflicts: vec![],
        };
        let write = Write::Text(limit.to_string());
        self.writes.insert(EntryId::Limit(of.clone()), write);
        self.limits.insert(of.clone(), Some(draft));
        Ok(())
    }

    /// Takes a limit away. One that is set at the same time stays.
    pub fn remove_limit(&mut self, of: &Limited) -> Result<(), EditError> {
        self.limit(of)
            .ok_or_else(|| EditError::NoLimit(of.clone()))?;
        self.limits.insert(of.clone(), None);
        self.writes
            .insert(EntryId::Limit(of.clone()), Write::Delete);
        Ok(())
    }

    /// The limit as this edit has it so far.
    fn limit(&self, of: &Limited) -> Option<&LimitPlan> {
        match self.limits.get(of) {
            Some(draft) => draft.as_ref(),
            None => self.plan.limits.get(of),
        }
    }
}
