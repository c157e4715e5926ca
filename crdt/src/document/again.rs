//! Making edits again: what the changes of one author said that no longer count
//! because something they depend on does not.

use super::{Document, Intent, Orphan};
use crate::admission::{Index, Written};
use crate::edit::{EditError, Value, Write};
use crate::log::SignedChange;
use crate::plan::{Desired, EntryId};
use crate::schema;
use automerge::ScalarValue;
use keys::{Authority, Identity, MigrationId, ServerId, UnixSecs};
use std::collections::BTreeMap;

/// The fields that a write sets.
type Fields = BTreeMap<String, Value>;

/// What became of edits that were made again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MadeAgain {
    /// Changes that say the same as before, with their numbers, to be stored and passed
    /// on like every edit.
    pub changes: Vec<(u64, SignedChange)>,
    /// What they are about.
    pub made: Vec<EntryId>,
    /// Of what an edit could not be made again: it is deleted, was created by a change
    /// that does not count, or is a limit that another operator has set since.
    pub lost: Vec<EntryId>,
}

impl Document {
    /// Makes again what `orphans` of this author said, one change for each entry.
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
        let mut last: BTreeMap<EntryId, &Orphan> = BTreeMap::new();
        for orphan in orphans {
            for (entry, write) in &orphan.intent {
                then(&mut all, entry.clone(), write.clone());
                last.insert(entry.clone(), orphan);
            }
        }
        let mut again = MadeAgain::default();
        for (id, write) in all {
            let is_past = last.get(&id).is_some_and(|last| self.set_since(&id, last));
            let write = self.still_applies(&id, write);
            let Some(write) = write.filter(|_| !is_past) else {
                again.lost.push(id);
                continue;
            };
            let one = Intent::from([(id.clone(), write)]);
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

    /// Whether another operator has set a limit since an orphan was made, or apart from it:
    /// as one value it would be lost. What is said of other entries merges.
    fn set_since(&self, entry: &EntryId, orphan: &Orphan) -> bool {
        let EntryId::Limit(_) = entry else {
            return false;
        };
        let written = schema::written_by(&self.doc, entry).into_iter();
        let mut others = written.filter(|(author, _)| *author != orphan.author);
        others.any(|(author, counter)| {
            self.index.seq_of(&author, counter) > orphan.saw.get(&author).copied()
        })
    }

    fn still_applies(&self, entry: &EntryId, write: Write) -> Option<Write> {
        match (entry, write) {
            (EntryId::Migration(id), Write::Fields(fields)) => {
                self.migration_again(id, fields).map(Write::Fields)
            }
            // Nobody deletes the entry of a migration.
            (EntryId::Migration(_), Write::Delete) => None,
            (EntryId::Server(id), Write::Fields(fields)) => {
                self.server_again(id, fields).map(Write::Fields)
            }
            (EntryId::Server(_), Write::Delete) => Some(Write::Delete),
            (EntryId::Limit(_), write @ (Write::Text(_) | Write::Delete)) => Some(write),
            (EntryId::Migration(_) | EntryId::Server(_), Write::Text(_))
            | (EntryId::Limit(_), Write::Fields(_)) => None,
        }
    }

    fn migration_again(&self, id: &MigrationId, mut fields: Fields) -> Option<Fields> {
        let Some(planned) = self.plan.migrations.get(id) else {
            return whole(&fields, &schema::NEEDED).then_some(fields);
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

    fn server_again(&self, id: &ServerId, fields: Fields) -> Option<Fields> {
        let planned = self.plan.servers.contains_key(id);
        (planned || whole(&fields, &schema::SERVER_NEEDS)).then_some(fields)
    }
}

fn whole(fields: &Fields, needed: &[&str]) -> bool {
    needed.iter().all(|field| fields.contains_key(*field))
}

/// Adds what was done to an entry after what was done to it before.
fn then(intent: &mut Intent, entry: EntryId, write: Write) {
    match (intent.get_mut(&entry), write) {
        (Some(Write::Fields(before)), Write::Fields(fields)) => before.extend(fields),
        (_, write) => drop(intent.insert(entry, write)),
    }
}

/// What a change meant, as far as it can be said again.
pub(super) fn intent(before: &Index, change: &SignedChange) -> Intent {
    let mut intent = Intent::new();
    for (root, written) in before.writes_of(change) {
        let Some(entry) = schema::entry_of(&root) else {
            continue;
        };
        let set = |field: String, value| Write::Fields(Fields::from([(field, value)]));
        let write = match written {
            Written::Made => Write::Fields(Fields::new()),
            Written::Set(ScalarValue::Str(text)) => Write::Text(text.into()),
            Written::Set(_) => continue,
            Written::Deleted => Write::Delete,
            Written::Cleared(field) => set(field, Value::Absent),
            Written::Put(field, ScalarValue::Str(text)) => set(field, Value::Text(text.into())),
            Written::Put(field, ScalarValue::Uint(number)) => set(field, Value::Number(number)),
            Written::Put(field, ScalarValue::Boolean(true)) => set(field, Value::Present),
            Written::Put(..) => continue,
        };
        then(&mut intent, entry, write);
    }
    intent
}
