//! Proof that a key is in two places: two signed values that one honest holder of it
//! cannot both have made.
//!
//! A pair proves itself to everybody, so that all nodes come to agree on which keys
//! are forked, whatever they heard first. Not here: who keeps a pair (`document`,
//! `reports`), and what it stops (`keys`).

use crate::log::SignedChange;
use crate::report::Report;
use codec::Wire;
use keys::{NodeId, PublicKey, Signed};
use serde::{Deserialize, Serialize};

/// A pair, as it is stored and passed on. Untrusted until it is taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// Two different reports of one node with one version.
    Reports(Box<[Signed; 2]>),
    /// Two different changes of one author with one number and one round.
    Changes(Box<[SignedChange; 2]>),
}

impl Wire for Evidence {
    const NAME: &'static str = "fork evidence";
    const VERSION: u8 = 2;
    const LIMIT: usize = 2 * (Report::LIMIT + 256);
}

impl Evidence {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        match self {
            Self::Reports(pair) => pair.iter().map(|one| one.body.len() + 128).sum(),
            Self::Changes(pair) => pair.iter().map(|one| one.raw.len() + 128).sum(),
        }
    }
}

/// What is known to be forked: equal lists mean that nodes agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Forked {
    /// The reports of a node.
    Reports(NodeId),
    /// The log of an author, from the lowest number at which a fork is known.
    Changes(PublicKey, u64),
}

impl Forked {
    /// Whether `known` holds as much as this says.
    pub fn covered_by(&self, known: &[Self]) -> bool {
        known.iter().any(|known| match (self, known) {
            (Self::Reports(ours), Self::Reports(theirs)) => ours == theirs,
            (Self::Changes(ours, at), Self::Changes(theirs, from)) => ours == theirs && from <= at,
            _ => false,
        })
    }
}

/// What taking in a pair did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairOutcome {
    /// It shows a fork, or a lower one, that was not known.
    New,
    /// As much was known.
    Known,
    /// It is about nobody who is in the mesh as far as is known; may be offered again.
    Unknown,
    /// It proves nothing: the sender is at fault.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_is_covered_by_one_of_the_same_log_at_its_number_or_before() {
        let (author, other) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let node = NodeId([1; 32]);
        let ours = Forked::Changes(author, 3);
        assert!(ours.covered_by(&[Forked::Changes(author, 3)]));
        assert!(ours.covered_by(&[Forked::Changes(author, 2)]));
        let known = [
            Forked::Changes(author, 4),
            Forked::Changes(other, 1),
            Forked::Reports(node),
        ];
        assert!(!ours.covered_by(&known));
        assert!(Forked::Reports(node).covered_by(&known));
        assert!(!Forked::Reports(NodeId([2; 32])).covered_by(&known));
    }
}
