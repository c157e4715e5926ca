//! How a limit is read from the document.

use super::{conflict, shard};
use crate::plan::{EntryId, LimitPlan, Limited, Problem};
use automerge::{Automerge, ReadDoc, ScalarValue};
use keys::PublicKey;

/// The field that conflicts are of: there is no other.
const LIMIT: &str = "limit";

pub(super) fn read(
    doc: &Automerge,
    key: &str,
    of: Limited,
    says: &str,
    set_by: PublicKey,
    contested: bool,
) -> Result<LimitPlan, Problem> {
    let limit = says.parse().ok();
    let limit = limit.filter(|limit| of.unsound(limit).is_none());
    let Some(limit) = limit else {
        return Err(Problem::Unreadable {
            entry: EntryId::Limit(of),
            field: LIMIT.to_owned(),
        });
    };
    let values: Vec<ScalarValue> = match contested {
        true => values(doc, key),
        false => vec![],
    };
    Ok(LimitPlan {
        of,
        limit,
        set_by,
        conflicts: conflict(LIMIT, &values).into_iter().collect(),
    })
}

/// All concurrent values.
fn values(doc: &Automerge, key: &str) -> Vec<ScalarValue> {
    let found = shard(doc, key).and_then(|shard| doc.get_all(&shard, key));
    let scalar = |value: automerge::Value<'_>| match value {
        automerge::Value::Scalar(scalar) => Some(scalar.into_owned()),
        automerge::Value::Object(_) => None,
    };
    let found = found.unwrap_or_default().into_iter();
    found.filter_map(|(value, _)| scalar(value)).collect()
}
