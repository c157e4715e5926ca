//! Making edits again: what the changes of one author said that no longer count
//! because something they depend on does not.

use super::{Document, Intent, Orphan};
use crate::admission::Index;
use crate::edit::{EditError, Value};
use crate::log::SignedChange;
use crate::plan::Desired;
use crate::schema;
use automerge::ScalarValue;
use keys::{Authority, Identity, MigrationId, UnixSecs};

/// What became of edits that were made again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MadeAgain {
    /// Changes that say the same as before, with their numbers, to be stored and passed
    /// on like every edit.
    pub changes: Vec<(u64, SignedChange)>,
    /// The migrations that they are about.
    pub made: Vec<MigrationId>,
    /// Migrations of which an edit could not be made again: they are deleted, or were
    /// created by a change that does not count.
    pub lost: Vec<MigrationId>,
}

impl Document {
    /// Makes again what `orphans` of this author said, one change for each migration.
    ///
    /// A stop that holds now is not taken back, and nothing is revived: see
    /// [`crate::Desired`].
    pub fn edit_again(
        &mut self,
        identity: &Identity,
        now: UnixSecs,
        authority: &Authority,
        orphans: &[Orphan],
    ) -> Result<MadeAgain, EditError> {
        self.may_edit(&identity.public(), authority)?;
        let mut all = Intent::new();
        for orphan in orphans {
            for (id, fields) in &orphan.intent {
                all.entry(*id).or_default().extend(fields.clone());
            }
        }
        let mut again = MadeAgain::default();
        for (id, fields) in all {
            let Some(fields) = self.still_applies(&id, fields) else {
                again.lost.push(id);
                continue;
            };
            let one = Intent::from([(id, fields)]);
            match self.commit(identity, now, authority, &one) {
                Ok(None) => {}
                Ok(Some(change)) => {
                    let seq = self.index.last_seq(&identity.public());
                    again.changes.push((seq, change));
                    again.made.push(id);
                }
                // What was made before it stands, and has to be stored.
                Err(_) => again.lost.push(id),
            }
        }
        Ok(again)
    }

    fn still_applies(
        &self,
        id: &MigrationId,
        mut fields: std::collections::BTreeMap<String, Value>,
    ) -> Option<std::collections::BTreeMap<String, Value>> {
        let Some(planned) = self.plan.migrations.get(id) else {
            let whole = schema::NEEDED
                .iter()
                .all(|field| fields.contains_key(*field));
            return whole.then_some(fields);
        };
        let wanted = match fields.get(schema::DESIRED) {
            Some(Value::Text(text)) => text.parse::<Desired>().ok(),
            _ => None,
        };
        if planned.desired == Desired::Deleted && wanted != Some(Desired::Deleted) {
            return None;
        }
        if wanted.is_some_and(|wanted| wanted < planned.desired) {
            fields.remove(schema::DESIRED);
        }
        Some(fields)
    }
}

/// What a change meant, as far as it can be said again.
pub(super) fn intent(before: &Index, change: &SignedChange) -> Intent {
    let mut intent = Intent::new();
    for (root, written) in before.writes_of(change) {
        let Some(id) = schema::migration_of(&root) else {
            continue;
        };
        let fields = intent.entry(id).or_default();
        let Some((field, value)) = written else {
            continue;
        };
        let value = match value {
            ScalarValue::Str(text) => Value::Text(text.to_string()),
            ScalarValue::Uint(number) => Value::Number(number),
            ScalarValue::Boolean(true) => Value::Present,
            _ => continue,
        };
        fields.insert(field, value);
    }
    intent
}
