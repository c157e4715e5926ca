//! The keys of a node, one after the other: from the key that it was enrolled with
//! along its rotations.
//!
//! Raw, from the ledger alone: that a key was rotated is the node's own word and needs
//! nobody else's. Not here: whether the node counts (`strata`).

use crate::id::{NodeId, PublicKey, StatementId};
use crate::ledger::Ledger;
use crate::statement::{Position, Rotation, Statement};
use std::collections::{BTreeMap, BTreeSet};

/// One change of keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    /// Its statement.
    pub(super) id: StatementId,
    /// The key that the node had.
    pub(super) from: PublicKey,
    /// What it says.
    pub(super) rotation: &'a Rotation,
}

/// All rotations of a ledger, by node and by the key that was given up.
pub(super) struct Lines<'a> {
    steps: BTreeMap<(NodeId, PublicKey), Vec<Step<'a>>>,
}

/// How a node came by its key.
#[derive(Debug, Clone)]
pub(super) struct Line<'a> {
    /// Changes of keys that nothing contradicts, in order.
    pub(super) steps: Vec<Step<'a>>,
    /// The key at their end.
    pub(super) key: PublicKey,
    /// Changes from that key that contradict each other.
    pub(super) contested: Vec<Step<'a>>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(ledger: &'a Ledger) -> Self {
        let mut steps: BTreeMap<(NodeId, PublicKey), Vec<Step<'a>>> = BTreeMap::new();
        for (id, recorded) in ledger.iter() {
            if let Statement::Rotation(rotation) = &recorded.entry.statement {
                let from = recorded.signed.signer;
                let step = Step {
                    id: *id,
                    from,
                    rotation,
                };
                steps.entry((rotation.node, from)).or_default().push(step);
            }
        }
        Self { steps }
    }

    fn changes_from(&self, node: NodeId, key: PublicKey) -> &[Step<'a>] {
        self.steps.get(&(node, key)).map_or(&[], Vec::as_slice)
    }

    /// Follows the rotations of `node` from the key that it was enrolled with. One that
    /// leads back to a key it had is none: a key that was given up stays so.
    pub(super) fn follow(&self, node: NodeId, enrolled: PublicKey) -> Line<'a> {
        let mut line = Line {
            steps: vec![],
            key: enrolled,
            contested: vec![],
        };
        let mut had = BTreeSet::from([enrolled]);
        loop {
            let next = self.changes_from(node, line.key).iter();
            let next: Vec<Step<'a>> = next
                .filter(|step| !had.contains(&step.rotation.key))
                .copied()
                .collect();
            match next.as_slice() {
                [] => return line,
                [step] => {
                    had.insert(step.rotation.key);
                    line.key = step.rotation.key;
                    line.steps.push(*step);
                }
                _ => {
                    line.contested = next;
                    return line;
                }
            }
        }
    }

    /// The changes that lead from the key that `node` was enrolled with to `wanted`,
    /// on whichever branch it is: whoever names a key has chosen between them.
    pub(super) fn path(
        &self,
        node: NodeId,
        enrolled: PublicKey,
        wanted: PublicKey,
    ) -> Option<Vec<Step<'a>>> {
        let mut reached: BTreeMap<PublicKey, Vec<Step<'a>>> = BTreeMap::from([(enrolled, vec![])]);
        let mut ahead = vec![enrolled];
        while let Some(key) = ahead.pop() {
            for step in self.changes_from(node, key) {
                if !reached.contains_key(&step.rotation.key) {
                    let mut path = reached[&key].clone();
                    path.push(*step);
                    reached.insert(step.rotation.key, path);
                    ahead.push(step.rotation.key);
                }
            }
        }
        reached.remove(&wanted)
    }

    /// Every key that `node` was ever given, beside the one it was enrolled with.
    pub(super) fn keys(&self, node: NodeId) -> impl Iterator<Item = PublicKey> + '_ {
        let low = (node, PublicKey([0; 32]));
        let high = (node, PublicKey([0xff; 32]));
        let steps = self.steps.range(low..=high);
        steps.flat_map(|(_, steps)| steps.iter().map(|step| step.rotation.key))
    }
}

/// The lowest of several positions wins.
pub(super) fn lowest(positions: impl IntoIterator<Item = Position>) -> Position {
    let positions = positions.into_iter();
    positions
        .min_by_key(|position| (position.seq, position.hash))
        .unwrap_or(Position::NONE)
}
