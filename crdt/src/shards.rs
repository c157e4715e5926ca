//! The change that every document begins with: 64 maps at the root, the shards, in which
//! the entries are.
//!
//! To take in a new entry, automerge walks the map that it is put into. Maps that two
//! authors made apart from each other would be different ones, so nobody makes these:
//! every node computes the same change, which is in no log, and which every other change
//! depends on.

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, Change, ChangeHash, ObjType, ROOT};
use keys::PublicKey;
use std::sync::LazyLock;

/// How many there are: each holds some 1,600 entries where a mesh plans 100,000 servers.
pub const SHARDS: u8 = 64;

/// Whose change it is. No signature verifies with this key.
pub const AUTHOR: PublicKey = PublicKey([0; 32]);

static FIRST: LazyLock<Change> = LazyLock::new(|| {
    let mut doc = Automerge::new().with_actor(ActorId::from(&AUTHOR.0[..]));
    let mut transaction = doc.transaction();
    for shard in 0..SHARDS {
        transaction
            .put_object(ROOT, name(shard), ObjType::Map)
            .expect("a map can be put at the root of an empty document");
    }
    transaction.commit_with(CommitOptions::default().with_time(0));
    doc.get_last_local_change()
        .expect("a transaction was just committed")
});

/// A document of the shards and nothing else.
pub(crate) fn document() -> Automerge {
    let mut doc = Automerge::new();
    doc.apply_changes([FIRST.clone()])
        .expect("a change that depends on nothing applies to an empty document");
    doc
}

/// Hash of the change that makes them, as changes that depend on it name it.
pub fn first() -> [u8; 32] {
    FIRST.hash().0
}

pub(crate) fn hash() -> ChangeHash {
    FIRST.hash()
}

/// The key of a shard at the root.
pub(crate) fn name(shard: u8) -> String {
    format!("{shard:02x}")
}

/// The shard that the entry of this key is in, from 0. Operation number shard + 1 makes it.
pub fn of(key: &str) -> u8 {
    blake3::hash(key.as_bytes()).as_bytes()[0] % SHARDS
}

/// The shard that the operation of this counter and author makes, if any.
pub(crate) fn made_by(counter: u64, author: &[u8]) -> Option<u8> {
    let shard = u8::try_from(counter.checked_sub(1)?).ok()?;
    (shard < SHARDS && author == AUTHOR.0).then_some(shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another first change would be another document, which no log goes with.
    #[test]
    fn the_first_change_is_the_same_whoever_computes_it() {
        let first = "ac0d06143f17e54a65c49b33dd82afde657ffc4ff5dd642e13b7c37f05eddf8a";
        assert_eq!(hash().to_string(), first);
        assert_eq!(FIRST.deps(), []);
        assert_eq!(FIRST.len(), usize::from(SHARDS));
        assert_eq!(document().get_heads(), [hash()]);
    }

    #[test]
    fn every_shard_has_entries() {
        let used: std::collections::BTreeSet<u8> =
            (0..1_000).map(|entry| of(&format!("s/{entry}"))).collect();
        assert_eq!(used.len(), usize::from(SHARDS));
    }
}
