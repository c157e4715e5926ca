//! How a plan is laid out in the automerge document, and how it is read back.
//!
//! Each migration is one map at the root under `m/<id>`, made once by one author, so
//! that two operators never make the same map apart from each other. Its fields are
//! scalars; sets are one key for each member (`volume/<id>`, `grant/<id>`), so that
//! additions merge; the pool is one register, because its order is one decision.
//! Reading is total: what cannot be read becomes a problem, not a panic.

use crate::edit::Value;
use crate::plan::{Conflict, Desired, MAX_GRANTS, MAX_VOLUMES, MigrationPlan, Problem};
use automerge::transaction::Transactable;
use automerge::{Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue};
use keys::{MigrationId, NodeId, PublicKey, StatementId, UnixSecs, VolumeId};
use std::collections::BTreeMap;
use std::str::FromStr;

pub(crate) const NAME: &str = "name";
pub(crate) const SOURCE: &str = "source";
pub(crate) const PROVIDER: &str = "provider";
pub(crate) const PROVISIONER: &str = "provisioner";
pub(crate) const POOL: &str = "pool";
pub(crate) const SITE: &str = "site";
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
const MIGRATION_PREFIX: &str = "m/";
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

fn root_key(id: &MigrationId) -> String {
    format!("{MIGRATION_PREFIX}{id}")
}

/// An id in the one spelling that is written: lower case.
fn parse_id<T: FromStr + ToString>(text: &str) -> Option<T> {
    let id: T = text.parse().ok()?;
    (id.to_string() == text).then_some(id)
}

pub(crate) fn migration_of(root_key: &str) -> Option<MigrationId> {
    parse_id(root_key.strip_prefix(MIGRATION_PREFIX)?)
}

/// Writes the fields of one migration, leaving alone what already says the same.
pub(crate) fn write(
    doc: &mut impl Transactable,
    id: &MigrationId,
    fields: &BTreeMap<String, Value>,
) -> Result<(), AutomergeError> {
    let key = root_key(id);
    let object = match doc.get(ROOT, key.as_str())? {
        Some((automerge::Value::Object(ObjType::Map), object)) => object,
        _ => doc.put_object(ROOT, key.as_str(), ObjType::Map)?,
    };
    for (field, value) in fields {
        let scalar = match value {
            Value::Text(text) => ScalarValue::Str(text.as_str().into()),
            Value::Number(number) => ScalarValue::Uint(*number),
            Value::Present => ScalarValue::Boolean(true),
        };
        let held = doc.get_all(&object, field.as_str())?;
        let same = matches!(&held[..], [(automerge::Value::Scalar(held), _)] if **held == scalar);
        if !same {
            doc.put(&object, field.as_str(), scalar)?;
        }
    }
    Ok(())
}

/// The keys at the root of the document.
pub(crate) fn root_keys(doc: &Automerge) -> Vec<String> {
    doc.keys(ROOT).collect()
}

/// Reads one entry at the root; none when it is not there (any more).
pub(crate) fn read(doc: &Automerge, key: &str) -> Option<Result<MigrationPlan, Problem>> {
    let found = doc.get_all(ROOT, key).unwrap_or_default();
    if found.is_empty() {
        return None;
    }
    let Some(id) = migration_of(key) else {
        let key = key.chars().take(80).collect();
        return Some(Err(Problem::UnknownKey { key }));
    };
    // Of several maps the winner is read; only a faulty author makes a second one.
    let (value, object) = doc.get(ROOT, key).ok().flatten()?;
    let author = match &object {
        ObjId::Id(_, actor, _) => actor.to_bytes().try_into().ok().map(PublicKey),
        ObjId::Root => None,
    };
    let (Some(created_by), automerge::Value::Object(ObjType::Map)) = (author, value) else {
        let field = "form".to_owned();
        return Some(Err(Problem::Unreadable {
            migration: id,
            field,
        }));
    };
    let mut fields = Fields {
        doc,
        id,
        object,
        conflicts: Vec::new(),
    };
    Some(fields.migration(created_by))
}

struct Fields<'a> {
    doc: &'a Automerge,
    id: MigrationId,
    object: ObjId,
    conflicts: Vec<Conflict>,
}

impl Fields<'_> {
    fn migration(&mut self, created_by: PublicKey) -> Result<MigrationPlan, Problem> {
        let desired = self.desired()?;
        let name = self.text(NAME)?;
        let source = self.id_field(SOURCE)?;
        let provider = self.text(PROVIDER)?;
        let provisioner = self.id_field(PROVISIONER)?;
        let pool = self.text(POOL)?;
        let replicators: Option<Vec<NodeId>> = pool.split(',').map(parse_id).collect();
        let site = match self.text(SITE) {
            Ok(site) => Some(site),
            Err(Problem::Missing { .. }) => None,
            Err(problem) => return Err(problem),
        };
        let plan = MigrationPlan {
            id: self.id,
            name,
            source,
            volumes: self.members(VOLUME_PREFIX, MAX_VOLUMES)?,
            provider,
            provisioner,
            replicators: replicators.ok_or_else(|| self.unreadable(POOL))?,
            site,
            desired,
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

    /// All concurrent values of a field.
    fn values(&self, field: &str) -> Vec<ScalarValue> {
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
        let values = self.values(field);
        let missing = || Problem::Missing {
            migration: self.id,
            field: field.to_owned(),
        };
        let winner = match self.doc.get(&self.object, field) {
            Ok(Some((automerge::Value::Scalar(winner), _))) => winner.into_owned(),
            Ok(Some(_)) => return Err(self.unreadable(field)),
            _ => return Err(missing()),
        };
        self.note_conflict(field, &values);
        Ok(winner)
    }

    fn note_conflict(&mut self, field: &str, values: &[ScalarValue]) {
        let mut texts: Vec<String> = values.iter().map(shown).collect();
        texts.sort();
        texts.dedup();
        if texts.len() > 1 {
            texts.truncate(MAX_CONFLICT_VALUES);
            self.conflicts.push(Conflict {
                field: field.to_owned(),
                values: texts,
            });
        }
    }

    fn text(&mut self, field: &str) -> Result<String, Problem> {
        match self.one(field)? {
            ScalarValue::Str(text) => Ok(text.to_string()),
            _ => Err(self.unreadable(field)),
        }
    }

    fn number(&mut self, field: &str) -> Result<u64, Problem> {
        match self.one(field)? {
            ScalarValue::Uint(number) => Ok(number),
            _ => Err(self.unreadable(field)),
        }
    }

    fn id_field<T: FromStr + ToString>(&mut self, field: &str) -> Result<T, Problem> {
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
    fn members<T: FromStr + ToString + Ord>(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<T>, Problem> {
        let mut members = Vec::new();
        for key in self.doc.keys(&self.object) {
            let Some(text) = key.strip_prefix(prefix) else {
                continue;
            };
            let id = parse_id(text).ok_or_else(|| self.unreadable(&key))?;
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
            migration: self.id,
            field: field.chars().take(80).collect(),
        }
    }
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
    let mut text = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    for key in root_keys(doc) {
        text(&key);
        for (value, object) in doc.get_all(ROOT, key.as_str()).unwrap_or_default() {
            text(&object.to_string());
            if let automerge::Value::Scalar(scalar) = &value {
                text(&shown(scalar));
                continue;
            }
            for field in doc.keys(&object) {
                text(&field);
                for (value, id) in doc.get_all(&object, field.as_str()).unwrap_or_default() {
                    text(&id.to_string());
                    if let automerge::Value::Scalar(scalar) = &value {
                        text(&shown(scalar));
                    }
                }
            }
        }
    }
    *hasher.finalize().as_bytes()
}
