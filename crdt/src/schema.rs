//! How a plan is laid out in the automerge document, and how it is read back.
//!
//! Each migration is one map under `m/<id>`, in the shard of that key (see `shards`), made
//! once by one author, so that two operators never make the same map apart. Its fields are
//! scalars; sets are one key for each member (`volume/<id>`, `grant/<id>`), so that
//! additions merge; the pool is one register, because its order is one decision, and so
//! are the hooks. A checkpoint is a register under `checkpoint/<name>`.
//! A planned server is a map of the same kind under `s/<id>`; an optional field that is
//! not set is not there, and a server that is not planned any more is deleted.
//! A limit is one register, `l/server/<id>` or `l/site/<name>`, right in the shard: its key
//! is known before anybody sets it, so that two operators who set it apart from each other
//! write to one place, and each other's value is kept as a conflict.
//! Reading is total: what cannot be read becomes a problem, not a panic; a limit that
//! cannot be read stays one.

use crate::edit::Value;
use crate::plan::hook::parse_hooks;
use crate::plan::{
    Conflict, Desired, EntryId, Limited, MAX_GRANTS, MAX_VOLUMES, MigrationPlan, Plan, Planned,
    Problem,
};
use crate::shards;
use automerge::iter::{DocItem, DocObjItem, MapRangeItem};
use automerge::transaction::Transactable;
use automerge::{Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue};
use keys::{MigrationId, Name, NodeId, PublicKey, StatementId, UnixSecs, VolumeId};
use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

mod checkpoint;
mod limit;
mod server;

pub(crate) use checkpoint::{KEEP, checkpoint_key};
pub(crate) use server::{ADDRESS, NOTE, WAVE};

pub(crate) const NAME: &str = "name";
pub(crate) const SOURCE: &str = "source";
pub(crate) const PROVIDER: &str = "provider";
pub(crate) const PROVISIONER: &str = "provisioner";
pub(crate) const POOL: &str = "pool";
pub(crate) const SITE: &str = "site";
pub(crate) const HOOKS: &str = "hooks";
pub(crate) const LEAVE_OUT: &str = "leave-out";
pub(crate) const DESIRED: &str = "desired";
pub(crate) const CREATED_AT: &str = "created-at";
/// Fields that every migration has.
pub(crate) const NEEDED: [&str; 7] = [
    NAME,
    SOURCE,
    PROVIDER,
    PROVISIONER,
    POOL,
    DESIRED,
    CREATED_AT,
];
/// Fields that every planned server has.
pub(crate) const SERVER_NEEDS: [&str; 2] = [NAME, SITE];
const MIGRATION_PREFIX: &str = "m/";
const SERVER_PREFIX: &str = "s/";
const SERVER_LIMIT_PREFIX: &str = "l/server/";
const SITE_LIMIT_PREFIX: &str = "l/site/";
const VOLUME_PREFIX: &str = "volume/";
const GRANT_PREFIX: &str = "grant/";

/// Most values of one field that are listed as a conflict.
const MAX_CONFLICT_VALUES: usize = 16;

pub(crate) fn volume_key(volume: &VolumeId) -> String {
    format!("{VOLUME_PREFIX}{volume}")
}

pub(crate) fn grant_key(grant: &StatementId) -> String {
    format!("{GRANT_PREFIX}{grant}")
}

pub(crate) fn pool_text(pool: &[NodeId]) -> String {
    let nodes: Vec<String> = pool.iter().map(NodeId::to_string).collect();
    nodes.join(",")
}

/// The key of an entry in its shard.
fn key_of(entry: &EntryId) -> String {
    match entry {
        EntryId::Migration(id) => format!("{MIGRATION_PREFIX}{id}"),
        EntryId::Server(id) => format!("{SERVER_PREFIX}{id}"),
        EntryId::Limit(Limited::Server(id)) => format!("{SERVER_LIMIT_PREFIX}{id}"),
        EntryId::Limit(Limited::Site(name)) => format!("{SITE_LIMIT_PREFIX}{name}"),
    }
}

/// An id in the one spelling that is written: lower case.
fn parse_id<T: FromStr>(text: &str) -> Option<T> {
    let lower_case = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    text.parse().ok().filter(|_| lower_case)
}

/// What the entry of this key is about; none for a key that this program does not know.
pub(crate) fn entry_of(key: &str) -> Option<EntryId> {
    if let Some(id) = key.strip_prefix(MIGRATION_PREFIX) {
        return parse_id(id).map(EntryId::Migration);
    }
    if let Some(id) = key.strip_prefix(SERVER_PREFIX) {
        return parse_id(id).map(EntryId::Server);
    }
    let of = if let Some(id) = key.strip_prefix(SERVER_LIMIT_PREFIX) {
        parse_id(id).map(Limited::Server)
    } else {
        let name = key.strip_prefix(SITE_LIMIT_PREFIX)?;
        Name::new(name).ok().map(Limited::Site)
    };
    of.map(EntryId::Limit)
}

/// The shard of a key. One that is not there is a fault in automerge.
fn shard(doc: &impl ReadDoc, key: &str) -> Result<ObjId, AutomergeError> {
    let name = shards::name(shards::of(key));
    let found = doc.get(ROOT, name)?;
    let missing = || AutomergeError::InvalidObjId("a shard".to_owned());
    found.map(|(_, object)| object).ok_or_else(missing)
}

/// Writes the fields of one entry, leaving alone what already says the same.
pub(crate) fn write(
    doc: &mut impl Transactable,
    entry: &EntryId,
    fields: &BTreeMap<String, Value>,
) -> Result<(), AutomergeError> {
    let key = key_of(entry);
    let shard = shard(doc, &key)?;
    let (object, fresh) = match doc.get(&shard, key.as_str())? {
        Some((automerge::Value::Object(ObjType::Map), object)) => (object, false),
        _ => (doc.put_object(&shard, key, ObjType::Map)?, true),
    };
    for (field, value) in fields {
        let scalar = match value {
            Value::Text(text) => ScalarValue::Str(text.as_str().into()),
            Value::Number(number) => ScalarValue::Uint(*number),
            Value::Present => ScalarValue::Boolean(true),
            Value::Absent => {
                if !fresh && doc.get(&object, field.as_str())?.is_some() {
                    doc.delete(&object, field.as_str())?;
                }
                continue;
            }
        };
        if fresh {
            doc.put(&object, field.as_str(), scalar)?;
            continue;
        }
        let held = doc.get_all(&object, field.as_str())?;
        let same = matches!(&held[..], [(automerge::Value::Scalar(held), _)] if **held == scalar);
        if !same {
            doc.put(&object, field.as_str(), scalar)?;
        }
    }
    Ok(())
}

/// Writes an entry that is one value, unless it says the same alone.
pub(crate) fn write_text(
    doc: &mut impl Transactable,
    entry: &EntryId,
    text: &str,
) -> Result<(), AutomergeError> {
    let key = key_of(entry);
    let shard = shard(doc, &key)?;
    let scalar = ScalarValue::Str(text.into());
    let held = doc.get_all(&shard, key.as_str())?;
    let same = matches!(&held[..], [(automerge::Value::Scalar(held), _)] if **held == scalar);
    match same {
        true => Ok(()),
        false => doc.put(&shard, key, scalar),
    }
}

/// Removes an entry, if it is there.
pub(crate) fn delete(doc: &mut impl Transactable, entry: &EntryId) -> Result<(), AutomergeError> {
    let key = key_of(entry);
    let shard = shard(doc, &key)?;
    match doc.get(&shard, key.as_str())? {
        Some(_) => doc.delete(&shard, key),
        None => Ok(()),
    }
}

/// Whose operations, by their counters, left what an entry says.
pub(crate) fn written_by(doc: &impl ReadDoc, entry: &EntryId) -> Vec<(PublicKey, u64)> {
    let key = key_of(entry);
    let found = shard(doc, &key).and_then(|shard| doc.get_all(&shard, key.as_str()));
    let written = found.unwrap_or_default().into_iter().filter_map(|(_, id)| {
        let counter = match &id {
            ObjId::Id(counter, ..) => *counter,
            ObjId::Root => return None,
        };
        Some((author_of(&id)?, counter))
    });
    written.collect()
}

/// Reads all that is in the document.
pub(crate) fn read_all(doc: &Automerge) -> Plan {
    let mut entries = Vec::new();
    let mut fields: HashMap<ObjId, Vec<Found>> = HashMap::new();
    // One walk over everything: to look up each map costs as much as to read it.
    for DocObjItem { obj, item } in doc.iter() {
        let DocItem::Map(item) = item else { continue };
        if *obj == ObjId::Root {
            continue;
        }
        if is_shard(&obj) {
            let form = Form::of(&item);
            entries.push((item.id(), form, item.key.into_owned()));
        } else if let Some(found) = fields.get_mut(&*obj) {
            found.push(Found::of(item));
        } else {
            fields.insert(ObjId::clone(&obj), vec![Found::of(item)]);
        }
    }
    let mut plan = Plan::default();
    for (object, form, key) in entries {
        let found = fields.remove(&object).unwrap_or_default();
        let read = read_found(doc, &key, object, form, found);
        plan.add(&key, read);
    }
    plan
}

fn is_shard(object: &ObjId) -> bool {
    match object {
        ObjId::Id(counter, actor, _) => shards::made_by(*counter, actor.to_bytes()).is_some(),
        ObjId::Root => false,
    }
}

/// Reads one entry; none when it is not there (any more).
///
/// Of several maps the winner is read: only an author that makes again what was
/// deleted makes a second one.
pub(crate) fn read(doc: &Automerge, key: &str) -> Option<Result<Planned, Problem>> {
    let shard = shard(doc, key).ok()?;
    let item = doc
        .map_range(&shard, key.to_owned()..=key.to_owned())
        .next()?;
    let (object, form) = (item.id(), Form::of(&item));
    let found = match form {
        Form::Map => doc.map_range(&object, ..).map(Found::of).collect(),
        Form::Text { .. } | Form::Strange => Vec::new(),
    };
    Some(read_found(doc, key, object, form, found))
}

/// What an entry is, right in its shard.
enum Form {
    Map,
    Text { says: String, contested: bool },
    Strange,
}

impl Form {
    fn of(item: &MapRangeItem<'_>) -> Self {
        match &item.value {
            automerge::ValueRef::Object(ObjType::Map) => Self::Map,
            automerge::ValueRef::Scalar(scalar) => match scalar.into() {
                ScalarValue::Str(says) => Self::Text {
                    says: says.into(),
                    contested: item.conflict,
                },
                _ => Self::Strange,
            },
            automerge::ValueRef::Object(_) => Self::Strange,
        }
    }
}

fn read_found(
    doc: &Automerge,
    key: &str,
    object: ObjId,
    form: Form,
    found: Vec<Found>,
) -> Result<Planned, Problem> {
    let entry = entry_of(key).ok_or_else(|| Problem::UnknownKey {
        key: key.chars().take(80).collect(),
    })?;
    let author = author_of(&object);
    let mut fields = Fields {
        doc,
        entry: entry.clone(),
        object,
        found,
        conflicts: Vec::new(),
    };
    match (entry, form, author) {
        (EntryId::Migration(id), Form::Map, Some(author)) => {
            let migration = fields.migration(id, author)?;
            Ok(Planned::Migration(Box::new(migration)))
        }
        (EntryId::Server(id), Form::Map, Some(author)) => {
            fields.server(id, author).map(Planned::Server)
        }
        (EntryId::Limit(of), form, Some(author)) => {
            Ok(Planned::Limit(limit::read(doc, key, of, &form, author)))
        }
        _ => Err(fields.unreadable("form")),
    }
}

/// Whose change wrote what has this id.
fn author_of(object: &ObjId) -> Option<PublicKey> {
    match object {
        ObjId::Id(_, actor, _) => actor.to_bytes().try_into().ok().map(PublicKey),
        ObjId::Root => None,
    }
}

/// What stands under one field.
struct Found {
    field: String,
    /// None for an object.
    winner: Option<ScalarValue>,
    /// Whether there are other values beside it.
    contested: bool,
}

impl Found {
    fn of(item: MapRangeItem<'_>) -> Self {
        Self {
            winner: match item.value {
                automerge::ValueRef::Scalar(scalar) => Some(scalar.into()),
                automerge::ValueRef::Object(_) => None,
            },
            contested: item.conflict,
            field: item.key.into_owned(),
        }
    }
}

/// The fields of one entry.
struct Fields<'a> {
    doc: &'a Automerge,
    entry: EntryId,
    object: ObjId,
    found: Vec<Found>,
    conflicts: Vec<Conflict>,
}

impl Fields<'_> {
    fn migration(
        &mut self,
        id: MigrationId,
        created_by: PublicKey,
    ) -> Result<MigrationPlan, Problem> {
        let desired = self.desired()?;
        let name = self.text(NAME)?;
        let source = self.id_field(SOURCE)?;
        let provider = self.text(PROVIDER)?;
        let provisioner = self.id_field(PROVISIONER)?;
        let pool = self.text(POOL)?;
        let replicators: Option<Vec<NodeId>> = pool.split(',').map(parse_id).collect();
        let site = self.optional_text(SITE)?;
        let hooks = self.optional_text(HOOKS)?.unwrap_or_default();
        let hooks = match hooks.as_str() {
            "" => Ok(vec![]),
            text => parse_hooks(text),
        };
        let leave_out = self.optional_text(LEAVE_OUT)?;
        let leave_out = leave_out.map(|text| text.parse()).transpose();
        let plan = MigrationPlan {
            id,
            name,
            source,
            volumes: self.members(VOLUME_PREFIX, MAX_VOLUMES)?,
            provider,
            provisioner,
            replicators: replicators.ok_or_else(|| self.unreadable(POOL))?,
            site,
            desired,
            hooks: hooks.map_err(|_| self.unreadable(HOOKS))?,
            leave_out: leave_out.map_err(|_| self.unreadable(LEAVE_OUT))?,
            checkpoints: self.checkpoints()?,
            grants: self.members(GRANT_PREFIX, MAX_GRANTS)?,
            created_at: UnixSecs(self.number(CREATED_AT)?),
            created_by,
            conflicts: std::mem::take(&mut self.conflicts),
        };
        match plan.unsound() {
            None => Ok(plan),
            Some(field) => Err(self.unreadable(field)),
        }
    }

    fn found(&self, field: &str) -> Option<&Found> {
        self.found.iter().find(|found| found.field == field)
    }

    /// All concurrent values of a field.
    fn values(&self, field: &str) -> Vec<ScalarValue> {
        if let Some(found) = self.found(field)
            && !found.contested
        {
            return found.winner.iter().cloned().collect();
        }
        let found = self
            .doc
            .get_all(&self.object, field)
            .unwrap_or_default()
            .into_iter();
        found
            .filter_map(|(value, _)| match value {
                automerge::Value::Scalar(scalar) => Some(scalar.into_owned()),
                automerge::Value::Object(_) => None,
            })
            .collect()
    }

    fn one(&mut self, field: &str) -> Result<ScalarValue, Problem> {
        let Some(found) = self.found(field) else {
            return Err(Problem::Missing {
                entry: self.entry.clone(),
                field: field.to_owned(),
            });
        };
        let contested = found.contested;
        let winner = found.winner.clone();
        let winner = winner.ok_or_else(|| self.unreadable(field))?;
        if contested {
            let values = self.values(field);
            self.note_conflict(field, &values);
        }
        Ok(winner)
    }

    fn note_conflict(&mut self, field: &str, values: &[ScalarValue]) {
        self.conflicts.extend(conflict(field, values));
    }

    fn text(&mut self, field: &str) -> Result<String, Problem> {
        match self.one(field)? {
            ScalarValue::Str(text) => Ok(text.to_string()),
            _ => Err(self.unreadable(field)),
        }
    }

    fn optional_text(&mut self, field: &str) -> Result<Option<String>, Problem> {
        match self.text(field) {
            Ok(text) => Ok(Some(text)),
            Err(Problem::Missing { .. }) => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    fn number(&mut self, field: &str) -> Result<u64, Problem> {
        match self.one(field)? {
            ScalarValue::Uint(number) => Ok(number),
            _ => Err(self.unreadable(field)),
        }
    }

    fn id_field<T: FromStr>(&mut self, field: &str) -> Result<T, Problem> {
        let text = self.text(field)?;
        parse_id(&text).ok_or_else(|| self.unreadable(field))
    }

    /// Of several concurrent decisions the strongest stop, see [`Desired`].
    fn desired(&mut self) -> Result<Desired, Problem> {
        self.one(DESIRED)?;
        let values = self.values(DESIRED);
        let readable = values.iter().filter_map(|value| match value {
            ScalarValue::Str(text) => text.parse::<Desired>().ok(),
            _ => None,
        });
        readable.max().ok_or_else(|| self.unreadable(DESIRED))
    }

    /// Members of a set, in order of their ids. One that is set and unset apart stays:
    /// nothing here is ever unset.
    fn members<T: FromStr + Ord>(&self, prefix: &str, limit: usize) -> Result<Vec<T>, Problem> {
        let mut members = Vec::new();
        for Found { field: key, .. } in &self.found {
            let Some(text) = key.strip_prefix(prefix) else {
                continue;
            };
            let id = parse_id(text).ok_or_else(|| self.unreadable(key))?;
            members.push(id);
            if members.len() > limit {
                return Err(self.unreadable(prefix.trim_end_matches('/')));
            }
        }
        members.sort();
        Ok(members)
    }

    fn unreadable(&self, field: &str) -> Problem {
        Problem::Unreadable {
            entry: self.entry.clone(),
            field: field.chars().take(80).collect(),
        }
    }
}

/// Values of one field that differ.
fn conflict(field: &str, values: &[ScalarValue]) -> Option<Conflict> {
    let mut values: Vec<String> = values.iter().map(shown).collect();
    values.sort();
    values.dedup();
    let differ = values.len() > 1;
    values.truncate(MAX_CONFLICT_VALUES);
    differ.then(|| Conflict {
        field: field.to_owned(),
        values,
    })
}

fn shown(value: &ScalarValue) -> String {
    match value {
        ScalarValue::Str(text) => text.to_string(),
        ScalarValue::Uint(number) => number.to_string(),
        ScalarValue::Boolean(flag) => flag.to_string(),
        _ => "unreadable".to_owned(),
    }
}

/// Hash of all that is in the document, conflicting and unreadable values included:
/// equal on all nodes that have admitted the same changes.
pub(crate) fn content_hash(doc: &Automerge) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hash_map(doc, &ROOT, &mut hasher);
    *hasher.finalize().as_bytes()
}

/// As deep as admission lets maps be: shards, entries, fields.
fn hash_map(doc: &Automerge, map: &ObjId, hasher: &mut blake3::Hasher) {
    for key in doc.keys(map) {
        hash_text(&key, hasher);
        for (value, id) in doc.get_all(map, key.as_str()).unwrap_or_default() {
            hash_text(&id.to_string(), hasher);
            match value {
                automerge::Value::Scalar(scalar) => hash_text(&shown(&scalar), hasher),
                automerge::Value::Object(_) => hash_map(doc, &id, hasher),
            }
        }
    }
}

fn hash_text(text: &str, hasher: &mut blake3::Hasher) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}
