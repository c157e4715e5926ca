//! How a limit is read from the document.
//!
//! A limit that cannot be read is not none: whoever set it wanted to send less, and only a
//! newer or a strange program can say what.

use super::{Form, author_of, conflict, shard};
use crate::limit::Rate;
use crate::plan::{Limit, LimitPlan, Limited};
use automerge::{Automerge, ReadDoc, ScalarValue};
use keys::PublicKey;

/// The field that conflicts are of: there is no other.
const LIMIT: &str = "limit";

pub(super) fn read(
    doc: &Automerge,
    key: &str,
    of: Limited,
    form: &Form,
    set_by: PublicKey,
) -> LimitPlan {
    let winner = match form {
        Form::Text { says, .. } => readable(&of, says),
        Form::Map | Form::Strange => None,
    };
    let values = match form {
        Form::Text {
            contested: false, ..
        } => vec![],
        _ => values(doc, key),
    };
    let conflicts = {
        let shown: Vec<ScalarValue> = values.iter().map(|(value, _)| value.clone()).collect();
        conflict(LIMIT, &shown).into_iter().collect()
    };
    let is_readable = winner.is_some();
    let rivals = values.iter().filter_map(|(value, author)| match value {
        ScalarValue::Str(says) => Some((readable(&of, says)?, (*author)?)),
        _ => None,
    });
    let slowest = |(limit, author): &(Limit, PublicKey)| {
        let rate = limit.timetable.slowest().bytes_per_sec();
        let is_off = rate.is_none();
        (is_off, rate, limit.to_string(), *author)
    };
    let (limit, set_by) = match winner {
        Some(limit) => (limit, set_by),
        None => rivals
            .min_by_key(slowest)
            .unwrap_or_else(|| (Limit::always(Rate::LEAST), set_by)),
    };
    LimitPlan {
        of,
        limit,
        is_readable,
        set_by,
        conflicts,
    }
}

fn readable(of: &Limited, says: &str) -> Option<Limit> {
    let limit = says.parse().ok();
    limit.filter(|limit| of.unsound(limit).is_none())
}

/// All concurrent values with their authors; of one that is no scalar only that it is there.
fn values(doc: &Automerge, key: &str) -> Vec<(ScalarValue, Option<PublicKey>)> {
    let found = shard(doc, key).and_then(|shard| doc.get_all(&shard, key));
    let found = found.unwrap_or_default().into_iter();
    found
        .map(|(value, id)| {
            let scalar = match value {
                automerge::Value::Scalar(scalar) => scalar.into_owned(),
                automerge::Value::Object(_) => ScalarValue::Null,
            };
            (scalar, author_of(&id))
        })
        .collect()
}
