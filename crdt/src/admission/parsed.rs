//! A change by itself: its own bytes are in order and break no rule.
//!
//! Not here: what can be said only with what it depends on (`admission`).

use super::Refusal;
use crate::chunk;
use crate::log::{MAX_CHANGE, SignedChange};
use crate::shards;
use automerge::legacy::{Key, ObjectId, Op, OpId, OpType};
use automerge::{Change, ChangeHash, ExpandedChange, ObjType, ScalarValue};
use keys::PublicKey;
use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A change whose own bytes are in order.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) signed: SignedChange,
    pub(crate) change: Change,
    /// How often its author began again at this number or before it, because changes
    /// of its own lost what they depend on. Of two changes of one number the one of
    /// the lower round counts if it can; two of one round are a fork.
    pub(crate) round: u32,
    pub(super) ops: Vec<Op>,
}

impl Parsed {
    pub(crate) fn seq(&self) -> u64 {
        self.change.seq()
    }

    /// What it costs to apply, see [`cost`].
    pub(crate) fn cost(&self) -> u64 {
        cost(self.ops.len())
    }

    pub(crate) fn author(&self) -> PublicKey {
        self.signed.author
    }

    pub(crate) fn hash(&self) -> ChangeHash {
        self.change.hash()
    }
}

/// What a change costs to apply, in operations: each one costs about as much as ten of
/// them by being a change.
pub(super) fn cost(ops: usize) -> u64 {
    ops as u64 + 10
}

/// Parses a change whose signature was verified, and checks all that can be checked
/// without knowing any other change.
pub(crate) fn parse(signed: SignedChange) -> Result<Parsed, Refusal> {
    let parsed = parse_stored(signed)?;
    // Automerge encodes a change again when it saves a document, and does not load a
    // document whose changes have other hashes then.
    let again = catch_unwind(AssertUnwindSafe(|| Change::from(parsed.change.decode())));
    if again.is_ok_and(|again| again.raw_bytes() == parsed.signed.raw) {
        return Ok(parsed);
    }
    Err(Refusal::Malformed {
        author: parsed.author(),
        what: "not in the form that its operations are encoded in",
    })
}

/// As [`parse`], for a change that was parsed before it was stored.
pub(crate) fn parse_stored(signed: SignedChange) -> Result<Parsed, Refusal> {
    let author = signed.author;
    let malformed = |what| Refusal::Malformed { author, what };
    if signed.raw.len() > MAX_CHANGE {
        return Err(Refusal::TooLarge {
            author,
            bytes: signed.raw.len(),
        });
    }
    chunk::survey(&signed.raw).map_err(malformed)?;
    let (change, expanded) = catch_unwind(AssertUnwindSafe(|| {
        let change = Change::from_bytes(signed.raw.clone()).ok()?;
        let expanded: ExpandedChange = change.decode();
        Some((change, expanded))
    }))
    .ok()
    .flatten()
    .ok_or(malformed("columns"))?;
    if change.raw_bytes() != signed.raw {
        return Err(malformed("not in its own encoding"));
    }
    if change.hash().0[..4] != signed.raw[4..8] {
        return Err(malformed("checksum"));
    }
    if change.actor_id().to_bytes() != author.0 {
        return Err(malformed("made by another author than its signer"));
    }
    let round = round_of(&change).ok_or(malformed("its message is not a round"))?;
    let parsed = Parsed {
        signed,
        change,
        round,
        ops: expanded.operations,
    };
    parsed
        .broken_rule()
        .map_or(Ok(()), |rule| Err(unsound(&parsed, rule)))?;
    Ok(parsed)
}

/// The round is the change's message, in decimal; the first has none. Nothing else can come
/// with the operations: the survey refuses what follows the columns.
fn round_of(change: &Change) -> Option<u32> {
    let Some(message) = change.message() else {
        return Some(0);
    };
    let round: u32 = message.parse().ok()?;
    (round > 0 && round.to_string() == *message).then_some(round)
}

pub(super) fn unsound(parsed: &Parsed, rule: &'static str) -> Refusal {
    Refusal::Unsound {
        author: parsed.author(),
        seq: parsed.seq(),
        rule,
    }
}

impl Parsed {
    fn broken_rule(&self) -> Option<&'static str> {
        if self.seq() == 0 {
            return Some("numbers begin at 1");
        }
        if self.ops.is_empty() {
            return Some("a change holds at least one operation");
        }
        let deps: BTreeSet<&ChangeHash> = self.change.deps().iter().collect();
        if deps.len() != self.change.deps().len() {
            return Some("every dependency is named once");
        }
        if deps.is_empty() {
            return Some("every change depends on the shards");
        }
        let mut places = HashMap::new();
        for op in &self.ops {
            if !map_operation(op) {
                return Some("only maps are made, put to and deleted from");
            }
            let shard = match &op.obj {
                ObjectId::Root => return Some("nothing is written beside the shards"),
                ObjectId::Id(id) => shard_of(id),
            };
            if shard.is_some_and(|shard| shard != shards::of(place(&op.key))) {
                return Some("every entry is in the shard of its key");
            }
            // The maps of entries are all the document needs, and recursion has an end.
            if matches!(op.action, OpType::Make(_)) && shard.is_none() {
                return Some("entries are made in shards");
            }
            if places.insert((&op.obj, place(&op.key)), ()).is_some() {
                return Some("every key is written once");
            }
            let preds: BTreeSet<_> = op.pred.iter().map(|id| (id.0, id.1.to_bytes())).collect();
            if preds.len() != op.pred.len() {
                return Some("every predecessor is named once");
            }
            if matches!(op.action, OpType::Delete) && preds.is_empty() {
                return Some("a deletion names what it deletes");
            }
        }
        None
    }
}

/// The key's text. Only called for keys of maps; a key of a list has none.
pub(super) fn place(key: &Key) -> &str {
    match key {
        Key::Map(text) => text,
        Key::Seq(_) => "",
    }
}

fn map_operation(op: &Op) -> bool {
    let action = match &op.action {
        OpType::Make(ObjType::Map) => true,
        OpType::Put(value) => matches!(
            value,
            ScalarValue::Str(_) | ScalarValue::Uint(_) | ScalarValue::Boolean(_)
        ),
        OpType::Delete => true,
        _ => false,
    };
    action && !op.insert && matches!(&op.key, Key::Map(key) if !key.is_empty())
}

/// The shard of that id; none for any other map.
pub(super) fn shard_of(id: &OpId) -> Option<u8> {
    shards::made_by(id.0, id.1.to_bytes())
}
