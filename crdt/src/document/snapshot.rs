//! The document as automerge saves it, so that loading need not apply every change
//! again.
//!
//! A cache of the logs and never in their place: it names the heads that it covers,
//! and counts only where the logs have exactly these. As changes are chained by their
//! hashes, equal heads are equal changes. But automerge saves more than its hashes are of,
//! so that all of it has a sum of ours: one that was altered on its disk counts for nothing.

use super::{Document, apply};
use crate::shards;
use automerge::{Automerge, Change, ChangeHash};
use codec::Wire;
use keys::statement::Position;
use keys::{MeshId, PublicKey};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A saved document. Only this node's own are believed: whoever stores it guards it
/// against changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    mesh: MeshId,
    heads: Vec<(PublicKey, Position)>,
    saved: Vec<u8>,
    sum: [u8; 32],
}

impl Wire for Snapshot {
    const NAME: &'static str = "document snapshot";
    const VERSION: u8 = 3;
    /// Some 500,000 servers; a larger document is loaded from its logs.
    const LIMIT: usize = 16 * 1024 * 1024;
}

impl Snapshot {
    fn new(mesh: MeshId, heads: Vec<(PublicKey, Position)>, saved: Vec<u8>) -> Self {
        let sum = sum_of(&mesh, &heads, &saved);
        Self {
            mesh,
            heads,
            saved,
            sum,
        }
    }

    /// Through which number it covers the changes of `author`; 0 for none of them.
    pub(super) fn covers(&self, author: &PublicKey) -> u64 {
        let head = self.heads.iter().find(|(of, _)| of == author);
        head.map_or(0, |(_, at)| at.seq)
    }
}

fn sum_of(mesh: &MeshId, heads: &[(PublicKey, Position)], saved: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("dunlin 2026 document snapshot sum v1");
    hasher.update(&mesh.0);
    hasher.update(&(heads.len() as u64).to_le_bytes());
    for (author, at) in heads {
        hasher.update(&author.0);
        hasher.update(&at.seq.to_le_bytes());
        hasher.update(&at.hash);
    }
    hasher.update(saved);
    *hasher.finalize().as_bytes()
}

/// The document as it was at one moment, to be saved on another thread: saving a large
/// one takes a while.
#[derive(Debug)]
pub struct Saving {
    mesh: MeshId,
    heads: Vec<(PublicKey, Position)>,
    doc: Automerge,
}

impl Saving {
    /// Saves it.
    pub fn finish(self) -> Snapshot {
        Snapshot::new(self.mesh, self.heads, self.doc.save())
    }
}

impl Document {
    /// Begins a snapshot of the document as it is now. Whoever begins one stores it.
    pub fn save(&mut self) -> Saving {
        self.unsaved = 0;
        Saving {
            mesh: self.mesh,
            heads: self.heads().into_iter().collect(),
            doc: self.doc.clone(),
        }
    }

    /// What loading would have to apply beside the last snapshot: operations, with ten
    /// more for each change.
    pub fn unsaved(&self) -> u64 {
        self.unsaved
    }

    /// The snapshot with what the index has beyond it; none if the index does not have
    /// all of it, automerge fails, or what comes of it is not all of `order` and nothing
    /// else: automerge computes the hash of every change that it loads.
    pub(super) fn extended(&self, snapshot: &Snapshot, order: &[&Change]) -> Option<Automerge> {
        let sum = sum_of(&snapshot.mesh, &snapshot.heads, &snapshot.saved);
        if snapshot.mesh != self.mesh || snapshot.sum != sum {
            return None;
        }
        let all_here = snapshot.heads.iter().all(|(author, at)| {
            let held = self.index.admitted(author, at.seq);
            held.is_some_and(|held| held.hash.0 == at.hash)
        });
        if !all_here {
            return None;
        }
        let loaded = catch_unwind(AssertUnwindSafe(|| Automerge::load(&snapshot.saved)));
        let mut doc = loaded.ok()?.ok()?;
        let beyond = order.iter().copied().filter(|change| {
            let author = change.actor_id().to_bytes().try_into().map(PublicKey);
            author.is_ok_and(|author| change.seq() > snapshot.covers(&author))
        });
        if !apply(&mut doc, beyond) {
            return None;
        }
        let mut heads: HashSet<ChangeHash> = order.iter().map(|change| change.hash()).collect();
        heads.insert(shards::hash());
        for dep in order.iter().flat_map(|change| change.deps()) {
            heads.remove(dep);
        }
        let found = doc.get_heads();
        let same = found.len() == heads.len() && found.iter().all(|head| heads.contains(head));
        same.then_some(doc)
    }
}

#[cfg(test)]
impl Snapshot {
    pub(super) fn with_saved(&self, saved: Vec<u8>) -> Self {
        Self::new(self.mesh, self.heads.clone(), saved)
    }

    pub(super) fn of_mesh(&self, mesh: MeshId) -> Self {
        Self::new(mesh, self.heads.clone(), self.saved.clone())
    }

    pub(super) fn with_another_sum(&self) -> Self {
        let mut altered = self.clone();
        altered.sum[31] ^= 1;
        altered
    }
}
