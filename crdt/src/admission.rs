//! Which changes count: a pure function of the change, the ledger's authority and
//! the changes that it depends on, decided before automerge applies anything.
//!
//! Automerge trusts its input: a change that is validly signed and malformed panics
//! it, or applies and leaves a document that cannot be saved and loaded again. So
//! everything it relies on is checked here, and only against what the change itself
//! depends on, never against what else happens to be here: otherwise two nodes
//! could decide differently.

mod parsed;
mod refusal;

pub(crate) use parsed::{Parsed, parse, parse_stored};
pub use refusal::Refusal;

use crate::log::SignedChange;
use crate::shards;
use automerge::legacy::{ObjectId, OpId, OpType};
use automerge::{ChangeHash, ScalarValue};
use keys::PublicKey;
use parsed::{cost, place, shard_of, unsound};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Most changes of one mesh: ten for each of 100,000 planned servers.
pub const MAX_CHANGES: usize = 1_000_000;

/// What a change does to an entry.
pub(crate) enum Written {
    Made,
    /// An entry that is one value.
    Set(ScalarValue),
    Put(String, ScalarValue),
    Cleared(String),
    Deleted,
}

/// Where a change belongs.
#[derive(Debug)]
pub(crate) enum Placement {
    /// All it depends on is here: it may be appended to its author's log.
    Next(Causes),
    /// Exactly this change is in the log.
    Known,
    /// Something it depends on is not here.
    Waits,
    /// The log holds one of a lower round in its place, which it can follow only once
    /// that one does not count.
    Later,
    /// The log holds one of a higher round in its place; this one goes first if all it
    /// depends on is here.
    Earlier {
        /// Whether it is.
        counts: bool,
    },
    /// The log holds another change of the same round in its place.
    Forks {
        /// Hash of the change that is here.
        ours: ChangeHash,
    },
}

/// What an admitted change depends on, as its author saw it.
#[derive(Debug, Clone)]
pub(crate) struct Causes {
    /// For each author, the last change in the past of this one, itself included.
    clock: Vec<(Actor, u64)>,
    /// Counter of its last operation.
    max_op: u64,
}

impl Causes {
    fn saw(&self, actor: Actor, seq: u64) -> bool {
        self.clock
            .iter()
            .any(|(known, last)| *known == actor && *last >= seq)
    }
}

/// An author's number in this index; local, never stored or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Actor(u32);

/// A key's number in this index; local, never stored or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct KeyNumber(u32);

/// An operation's number: its counter, which fits 32 bits, and its author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OpNumber {
    counter: u32,
    actor: Actor,
}

/// The map that an operation writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    Shard(u8),
    /// By the operation that made it.
    Entry(OpNumber),
}

/// An operation: where it is, and what it leaves there.
#[derive(Debug, Clone, Copy)]
struct Placed {
    object: Object,
    key: KeyNumber,
    leaves: Leaves,
}

/// What an operation leaves at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Map,
    Value,
    Nothing,
}

/// An admitted change.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    pub(crate) signed: SignedChange,
    pub(crate) hash: ChangeHash,
    pub(crate) round: u32,
    causes: Causes,
    /// Its operations, which are numbered on from `start_op`.
    ops: Box<[Placed]>,
    start_op: u32,
}

/// The admitted changes of every author, and what is needed to check the next one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    logs: BTreeMap<PublicKey, Vec<Admitted>>,
    count: usize,
    actors: HashMap<PublicKey, Actor>,
    authors: Vec<PublicKey>,
    hashes: HashMap<ChangeHash, (Actor, u64)>,
    key_numbers: HashMap<Arc<str>, KeyNumber>,
    keys: Vec<Arc<str>>,
}

impl Index {
    pub(crate) fn logs(&self) -> &BTreeMap<PublicKey, Vec<Admitted>> {
        &self.logs
    }

    pub(crate) fn log(&self, author: &PublicKey) -> &[Admitted] {
        self.logs.get(author).map(Vec::as_slice).unwrap_or_default()
    }

    /// What it costs to apply the changes of each author after number `seq(author)`.
    pub(crate) fn cost_after(&self, seq: impl Fn(&PublicKey) -> u64) -> u64 {
        let logs = self.logs.iter();
        let beyond = logs.flat_map(|(author, log)| {
            let skip = usize::try_from(seq(author)).unwrap_or(usize::MAX);
            log.iter().skip(skip)
        });
        beyond.map(|change| cost(change.ops.len())).sum()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count >= MAX_CHANGES
    }

    /// Number of the last admitted change of `author`; 0 for none.
    pub(crate) fn last_seq(&self, author: &PublicKey) -> u64 {
        self.log(author).len() as u64
    }

    pub(crate) fn admitted(&self, author: &PublicKey, seq: u64) -> Option<&Admitted> {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.log(author).get(at)
    }

    fn by_hash(&self, hash: &ChangeHash) -> Option<&Admitted> {
        let (actor, seq) = self.hashes.get(hash)?;
        self.admitted(&self.authors[actor.0 as usize], *seq)
    }

    /// Where a parsed change belongs; an error when it can belong nowhere.
    pub(crate) fn place(&self, parsed: &Parsed) -> Result<Placement, Refusal> {
        let author = parsed.author();
        let seq = parsed.seq();
        if let Some(here) = self.admitted(&author, seq) {
            return Ok(if here.hash == parsed.hash() {
                Placement::Known
            } else if parsed.round > here.round {
                Placement::Later
            } else if parsed.round < here.round {
                let counts = self.follows(parsed) && self.causes(parsed).is_ok();
                Placement::Earlier { counts }
            } else {
                Placement::Forks { ours: here.hash }
            });
        }
        let last = self.last_seq(&author);
        if seq != last + 1 {
            return Ok(Placement::Waits);
        }
        let deps = parsed.change.deps();
        let all_here = deps.iter().all(|dep| self.counts(dep));
        if let Some(previous) = self.admitted(&author, last)
            && !deps.contains(&previous.hash)
        {
            return if all_here {
                Err(unsound(parsed, "it follows its author's previous change"))
            } else {
                // It follows some other change with that number, which shows what the
                // two are to each other once it comes.
                Ok(Placement::Waits)
            };
        }
        if !all_here {
            return Ok(Placement::Waits);
        }
        self.causes(parsed).map(Placement::Next)
    }

    /// Whether all that a change depends on counts, its author's previous one first.
    fn follows(&self, parsed: &Parsed) -> bool {
        let deps = parsed.change.deps();
        let previous = self.admitted(&parsed.author(), parsed.seq() - 1);
        previous.is_none_or(|previous| deps.contains(&previous.hash))
            && deps.iter().all(|dep| self.counts(dep))
    }

    fn counts(&self, hash: &ChangeHash) -> bool {
        *hash == shards::hash() || self.hashes.contains_key(hash)
    }

    fn causes(&self, parsed: &Parsed) -> Result<Causes, Refusal> {
        let mut clock: BTreeMap<Actor, u64> = BTreeMap::new();
        // The shards are in the past of everything.
        let mut max_op = u64::from(shards::SHARDS);
        let deps = parsed.change.deps().iter();
        for dep in deps.filter(|dep| **dep != shards::hash()) {
            let dep = self
                .by_hash(dep)
                .expect("every dependency was found just before");
            max_op = max_op.max(dep.causes.max_op);
            for (actor, seq) in &dep.causes.clock {
                let last = clock.entry(*actor).or_default();
                *last = (*last).max(*seq);
            }
        }
        let start_op = parsed.change.start_op().get();
        if start_op != max_op + 1 {
            return Err(unsound(
                parsed,
                "operations are counted on from the dependencies",
            ));
        }
        let causes = Causes {
            clock: clock.into_iter().collect(),
            max_op: parsed.change.max_op(),
        };
        if causes.max_op > u64::from(u32::MAX) {
            return Err(unsound(parsed, "operations are counted in 32 bits"));
        }
        self.check_references(parsed, &causes)?;
        Ok(causes)
    }

    fn check_references(&self, parsed: &Parsed, causes: &Causes) -> Result<(), Refusal> {
        for other in parsed.change.other_actor_ids() {
            let seen = other.to_bytes() == shards::AUTHOR.0
                || public_key(other)
                    .and_then(|key| self.actors.get(&key))
                    .is_some_and(|actor| causes.saw(*actor, 1));
            if !seen {
                return Err(unsound(parsed, "authors it refers to are in its past"));
            }
        }
        let start_op = parsed.change.start_op().get();
        let made_here = |id: &OpId| {
            let own = id.1.to_bytes() == parsed.author().0;
            let at = id.0.checked_sub(start_op).filter(|_| own)?;
            parsed.ops[..].get(usize::try_from(at).ok()?)
        };
        for (at, op) in parsed.ops.iter().enumerate() {
            if let ObjectId::Id(id) = &op.obj
                && shard_of(id).is_none()
            {
                let made_before = id.0 < start_op + at as u64;
                let own = made_here(id)
                    .is_some_and(|op| made_before && matches!(op.action, OpType::Make(_)));
                let seen = || self.seen(id, causes);
                let known = || seen().is_some_and(|placed| placed.leaves == Leaves::Map);
                if !own && !known() {
                    return Err(unsound(parsed, "maps it writes to are in its past"));
                }
            }
            // None for a map that this change makes itself, in which nothing is before it.
            let object = self.object(&op.obj);
            for pred in op.pred.iter() {
                let seen = self.seen(pred, causes);
                let fits = seen.is_some_and(|placed| {
                    let same_key = &*self.keys[placed.key.0 as usize] == place(&op.key);
                    object == Some(placed.object) && same_key && placed.leaves != Leaves::Nothing
                });
                if !fits {
                    return Err(unsound(
                        parsed,
                        "predecessors are in its past, at the same key",
                    ));
                }
            }
        }
        Ok(())
    }

    fn object(&self, id: &ObjectId) -> Option<Object> {
        let ObjectId::Id(id) = id else { return None };
        let shard = shard_of(id).map(Object::Shard);
        shard.or_else(|| self.number(id).map(Object::Entry))
    }

    fn number(&self, id: &OpId) -> Option<OpNumber> {
        let actor = *self.actors.get(&public_key(&id.1)?)?;
        let counter = u32::try_from(id.0).ok()?;
        Some(OpNumber { counter, actor })
    }

    /// Of each author the last change in the past of an admitted one, itself included.
    pub(crate) fn saw(&self, change: &Admitted) -> BTreeMap<PublicKey, u64> {
        let clock = change.causes.clock.iter();
        let named = clock.filter_map(|(actor, last)| {
            let author = self.authors.get(actor.0 as usize)?;
            Some((*author, *last))
        });
        named.collect()
    }

    /// The number of the change that an author's operation is in.
    pub(crate) fn seq_of(&self, author: &PublicKey, counter: u64) -> Option<u64> {
        let actor = *self.actors.get(author)?;
        let counter = u32::try_from(counter).ok()?;
        let (_, seq) = self.operation(OpNumber { counter, actor })?;
        Some(seq)
    }

    /// The operation of that number, and the number of the change that it is in.
    fn operation(&self, number: OpNumber) -> Option<(&Placed, u64)> {
        let log = self.log(self.authors.get(number.actor.0 as usize)?);
        let seq = log.partition_point(|change| change.start_op <= number.counter);
        let change = log.get(seq.checked_sub(1)?)?;
        let at = number.counter - change.start_op;
        Some((change.ops.get(at as usize)?, seq as u64))
    }

    fn seen(&self, id: &OpId, causes: &Causes) -> Option<&Placed> {
        let number = self.number(id)?;
        let (placed, seq) = self.operation(number)?;
        causes.saw(number.actor, seq).then_some(placed)
    }

    /// Appends a change that was placed as next, and returns the keys of the entries
    /// that it touches.
    pub(crate) fn append(&mut self, parsed: &Parsed, mut causes: Causes) -> BTreeSet<Arc<str>> {
        let author = parsed.author();
        let seq = parsed.seq();
        let actor = self.actor(author);
        causes.clock.retain(|(known, _)| *known != actor);
        causes.clock.push((actor, seq));
        let start_op = u32::try_from(parsed.change.start_op().get())
            .expect("operations were found to be counted in 32 bits");
        let mut touched = BTreeSet::new();
        let mut ops: Vec<Placed> = Vec::with_capacity(parsed.ops.len());
        for op in &parsed.ops {
            let object = self.object(&op.obj).expect("references were checked");
            let key = self.key_number(place(&op.key));
            touched.insert(match object {
                Object::Shard(_) => key,
                Object::Entry(map) => self.entry_of(map, actor, start_op, &ops),
            });
            let leaves = match op.action {
                OpType::Make(_) => Leaves::Map,
                OpType::Delete => Leaves::Nothing,
                _ => Leaves::Value,
            };
            ops.push(Placed {
                object,
                key,
                leaves,
            });
        }
        let hash = parsed.hash();
        self.hashes.insert(hash, (actor, seq));
        self.count += 1;
        self.logs.entry(author).or_default().push(Admitted {
            signed: parsed.signed.clone(),
            hash,
            round: parsed.round,
            causes,
            ops: ops.into(),
            start_op,
        });
        let touched = touched.into_iter();
        touched
            .map(|key: KeyNumber| Arc::clone(&self.keys[key.0 as usize]))
            .collect()
    }

    /// The key of the entry whose map an earlier change made, or an earlier operation of
    /// the change under way.
    fn entry_of(&self, map: OpNumber, actor: Actor, start_op: u32, ops: &[Placed]) -> KeyNumber {
        let made_here = || {
            let at = map.counter.checked_sub(start_op)?;
            ops.get(at as usize).filter(|_| map.actor == actor)
        };
        let made = made_here().or_else(|| self.operation(map).map(|(placed, _)| placed));
        made.expect("references were checked").key
    }

    fn actor(&mut self, author: PublicKey) -> Actor {
        let fresh = Actor(u32::try_from(self.actors.len()).expect("fewer authors than changes"));
        let actor = *self.actors.entry(author).or_insert(fresh);
        if actor == fresh {
            self.authors.push(author);
        }
        actor
    }

    /// What an admitted change writes, with the key of the entry of each write.
    pub(crate) fn writes_of(&self, change: &SignedChange) -> Vec<(Arc<str>, Written)> {
        let Ok(parsed) = parse_stored(change.clone()) else {
            return Vec::new();
        };
        let written = parsed.ops.iter().filter_map(|op| {
            let at = place(&op.key);
            let object = self.object(&op.obj)?;
            let written = match (object, &op.action) {
                (Object::Shard(_), OpType::Make(_)) => Written::Made,
                (Object::Shard(_), OpType::Put(value)) => Written::Set(value.clone()),
                (Object::Shard(_), OpType::Delete) => Written::Deleted,
                (Object::Entry(_), OpType::Put(value)) => {
                    Written::Put(at.to_owned(), value.clone())
                }
                (Object::Entry(_), OpType::Delete) => Written::Cleared(at.to_owned()),
                _ => return None,
            };
            let entry = match object {
                Object::Shard(_) => at.into(),
                Object::Entry(map) => {
                    let (made, _) = self.operation(map)?;
                    Arc::clone(&self.keys[made.key.0 as usize])
                }
            };
            Some((entry, written))
        });
        written.collect()
    }

    fn key_number(&mut self, key: &str) -> KeyNumber {
        if let Some(number) = self.key_numbers.get(key) {
            return *number;
        }
        let number = KeyNumber(u32::try_from(self.keys.len()).expect("fewer keys than operations"));
        let key: Arc<str> = key.into();
        self.keys.push(Arc::clone(&key));
        self.key_numbers.insert(key, number);
        number
    }
}

fn public_key(actor: &automerge::ActorId) -> Option<PublicKey> {
    actor.to_bytes().try_into().ok().map(PublicKey)
}

#[cfg(test)]
impl Index {
    /// As if it held as many changes as it may.
    pub(crate) fn fill(&mut self) {
        self.count = MAX_CHANGES;
    }
}
