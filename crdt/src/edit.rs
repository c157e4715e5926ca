//! What an operator can decide, collected into one change of the master document.
//!
//! Not here: signing the change and admitting it (`document`).

use crate::admission::Refusal;
use crate::plan::hook::hooks_text;
use crate::plan::{
    Desired, EntryId, Hook, LimitPlan, Limited, MAX_GRANTS, MigrationPlan, Plan, ServerPlan,
};
use crate::schema;
use keys::{CheckpointName, MigrationId, NodeId, PublicKey, ServerId, StatementId, UnixSecs};
use std::collections::BTreeMap;

mod checkpoints;
mod limits;
mod servers;

/// Why an edit was not made. Nothing of it is left behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Only operators that stand may write.
    #[error("{0:?} is not an operator of this mesh and cannot change its plan")]
    NotAnOperator(PublicKey),
    /// No such migration.
    #[error("there is no migration {0}")]
    UnknownMigration(MigrationId),
    /// A migration of that id is there.
    #[error("migration {0} exists already")]
    Exists(MigrationId),
    /// It was deleted, and nothing revives it.
    #[error("migration {0} was deleted: create a new one")]
    Deleted(MigrationId),
    /// No such server.
    #[error("there is no planned server {0}")]
    UnknownServer(ServerId),
    /// A server of that id is there.
    #[error("server {0} is planned already")]
    ServerExists(ServerId),
    /// A checkpoint of that name was asked for before.
    #[error("migration {id} has, or had, a checkpoint {name}: choose another name")]
    CheckpointExists {
        /// The migration.
        id: MigrationId,
        /// The name.
        name: CheckpointName,
    },
    /// As many as there may be.
    #[error(
        "migration {0} has {max} checkpoints: delete one first, or have fewer kept",
        max = crate::plan::checkpoint::MAX_CHECKPOINTS
    )]
    TooManyCheckpoints(MigrationId),
    /// No such checkpoint.
    #[error("migration {id} has no checkpoint {name}")]
    UnknownCheckpoint {
        /// The migration.
        id: MigrationId,
        /// The name.
        name: CheckpointName,
    },
    /// No such limit.
    #[error("no limit is set of {0}")]
    NoLimit(Limited),
    /// A field is outside its limits.
    #[error("the {field} of {entry} is empty, too long, unsorted, named twice or unprintable")]
    Unsound {
        /// What it is a field of.
        entry: EntryId,
        /// The field.
        field: &'static str,
    },
    /// The change would not be admitted, e.g. because it is too large.
    #[error("the edit cannot be made a change of the document: {0}")]
    Inadmissible(#[from] Refusal),
    /// Another change with the next number of this author is here: its key is in use elsewhere.
    #[error(
        "change {seq} by {author:?} is not the next of its log: is the same key in use on another machine?"
    )]
    Forked {
        /// The author.
        author: PublicKey,
        /// The number that the edit would have had.
        seq: u64,
    },
    /// The author's key is known to be in two places.
    #[error("the key of {0:?} is in use in two places: its edits would not count")]
    Cloned(PublicKey),
    /// This node has not heard yet how far its own log goes.
    #[error(
        "this node has not heard from any peer since it started, and an edit might fork its log"
    )]
    Unheard,
    /// Automerge did not take it.
    #[error("the edit cannot be written to the document: {0}")]
    Unwritable(String),
}

/// What is written to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Number(u64),
    /// Member of a set.
    Present,
    /// An optional field that is not set.
    Absent,
}

/// What an edit does to one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    /// Makes it where it is not there, and sets fields.
    Fields(BTreeMap<String, Value>),
    /// Says this, in the place of what it said: an entry that is one value.
    Text(String),
    /// Removes it.
    Delete,
}

/// One edit under way. Methods see what earlier ones of the same edit decided.
#[derive(Debug)]
pub struct Edit<'a> {
    plan: &'a Plan,
    author: PublicKey,
    now: UnixSecs,
    drafts: BTreeMap<MigrationId, MigrationPlan>,
    /// Servers that this edit made or changed; none for those it deleted.
    servers: BTreeMap<ServerId, Option<ServerPlan>>,
    /// Limits that this edit set; none for those it removed.
    limits: BTreeMap<Limited, Option<LimitPlan>>,
    writes: BTreeMap<EntryId, Write>,
}

impl<'a> Edit<'a> {
    pub(crate) fn new(plan: &'a Plan, author: PublicKey, now: UnixSecs) -> Self {
        Self {
            plan,
            author,
            now,
            drafts: BTreeMap::new(),
            servers: BTreeMap::new(),
            limits: BTreeMap::new(),
            writes: BTreeMap::new(),
        }
    }

    pub(crate) fn into_writes(self) -> BTreeMap<EntryId, Write> {
        self.writes
    }

    /// Plans a migration. `created_at`, `created_by` and `conflicts` are set by the
    /// document, whatever they say.
    pub fn create_migration(&mut self, plan: &MigrationPlan) -> Result<(), EditError> {
        let id = plan.id;
        if self.plan.migrations.contains_key(&id) || self.drafts.contains_key(&id) {
            return Err(EditError::Exists(id));
        }
        let mut draft = plan.clone();
        draft.created_at = self.now;
        draft.created_by = self.author;
        draft.conflicts.clear();
        draft.volumes.sort();
        draft.grants.sort();
        draft.grants.dedup();
        sound(&draft)?;
        let mut fields = BTreeMap::new();
        let mut text =
            |field: &str, text: String| fields.insert(field.to_owned(), Value::Text(text));
        text(schema::NAME, draft.name.clone());
        text(schema::SOURCE, draft.source.to_string());
        text(schema::PROVIDER, draft.provider.clone());
        text(schema::PROVISIONER, draft.provisioner.to_string());
        text(schema::POOL, schema::pool_text(&draft.replicators));
        text(schema::DESIRED, draft.desired.to_string());
        if let Some(site) = &draft.site {
            text(schema::SITE, site.clone());
        }
        if !draft.hooks.is_empty() {
            text(schema::HOOKS, hooks_text(&draft.hooks));
        }
        if let Some(leave_out) = draft.leave_out {
            text(schema::LEAVE_OUT, leave_out.to_string());
        }
        for (name, checkpoint) in &draft.checkpoints.named {
            text(&schema::checkpoint_key(name), checkpoint.to_string());
        }
        if let Some(keep) = draft.checkpoints.keep {
            fields.insert(schema::KEEP.to_owned(), Value::Number(keep.into()));
        }
        let created_at = Value::Number(self.now.0);
        fields.insert(schema::CREATED_AT.to_owned(), created_at);
        let volumes = draft.volumes.iter().map(schema::volume_key);
        let grants = draft.grants.iter().map(schema::grant_key);
        fields.extend(volumes.chain(grants).map(|key| (key, Value::Present)));
        let write = Write::Fields(fields);
        self.writes.insert(EntryId::Migration(id), write);
        self.drafts.insert(id, draft);
        Ok(())
    }

    /// Decides what is wanted of a migration.
    pub fn set_desired(&mut self, id: MigrationId, desired: Desired) -> Result<(), EditError> {
        self.draft(id)?.desired = desired;
        let value = Value::Text(desired.to_string());
        self.write(id, schema::DESIRED.to_owned(), value);
        Ok(())
    }

    /// Adds a grant to those made for a migration.
    pub fn add_grant(&mut self, id: MigrationId, grant: StatementId) -> Result<(), EditError> {
        let draft = self.draft(id)?;
        if draft.grants.contains(&grant) {
            return Ok(());
        }
        if draft.grants.len() >= MAX_GRANTS {
            return Err(EditError::Unsound {
                entry: EntryId::Migration(id),
                field: "grants",
            });
        }
        draft.grants.push(grant);
        draft.grants.sort();
        self.write(id, schema::grant_key(&grant), Value::Present);
        Ok(())
    }

    /// Decides on the replicators, in the order in which the agent is to try them.
    pub fn set_pool(&mut self, id: MigrationId, pool: &[NodeId]) -> Result<(), EditError> {
        let draft = self.draft(id)?;
        let before = std::mem::replace(&mut draft.replicators, pool.to_vec());
        if let Err(error) = sound(draft) {
            draft.replicators = before;
            return Err(error);
        }
        let value = Value::Text(schema::pool_text(pool));
        self.write(id, schema::POOL.to_owned(), value);
        Ok(())
    }

    /// Decides on the hooks, in the order in which they are run. Also of a migration that was
    /// deleted: it may be a hook that holds up its end.
    pub fn set_hooks(&mut self, id: MigrationId, hooks: &[Hook]) -> Result<(), EditError> {
        let draft = self.draft_of_any(id)?;
        let before = std::mem::replace(&mut draft.hooks, hooks.to_vec());
        if let Err(error) = sound(draft) {
            draft.hooks = before;
            return Err(error);
        }
        let value = Value::Text(hooks_text(hooks));
        self.write(id, schema::HOOKS.to_owned(), value);
        Ok(())
    }

    /// Renames a migration.
    pub fn rename(&mut self, id: MigrationId, name: &str) -> Result<(), EditError> {
        let draft = self.draft(id)?;
        let before = std::mem::replace(&mut draft.name, name.to_owned());
        if let Err(error) = sound(draft) {
            draft.name = before;
            return Err(error);
        }
        self.write(id, schema::NAME.to_owned(), Value::Text(name.to_owned()));
        Ok(())
    }

    fn write(&mut self, id: MigrationId, field: String, value: Value) {
        self.write_field(EntryId::Migration(id), field, value);
    }

    fn write_field(&mut self, entry: EntryId, field: String, value: Value) {
        let write = self.writes.entry(entry);
        let write = write.or_insert_with(|| Write::Fields(BTreeMap::new()));
        if let Write::Fields(fields) = write {
            fields.insert(field, value);
        }
    }

    /// The migration as this edit has it so far; one that was deleted stays so.
    fn draft(&mut self, id: MigrationId) -> Result<&mut MigrationPlan, EditError> {
        let draft = self.draft_of_any(id)?;
        if draft.desired == Desired::Deleted {
            return Err(EditError::Deleted(id));
        }
        Ok(draft)
    }

    fn draft_of_any(&mut self, id: MigrationId) -> Result<&mut MigrationPlan, EditError> {
        Ok(match self.drafts.entry(id) {
            std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => {
                let planned = self.plan.migrations.get(&id);
                free.insert(planned.ok_or(EditError::UnknownMigration(id))?.clone())
            }
        })
    }
}

fn sound(plan: &MigrationPlan) -> Result<(), EditError> {
    plan.unsound().map_or(Ok(()), |field| {
        Err(EditError::Unsound {
            entry: EntryId::Migration(plan.id),
            field,
        })
    })
}
