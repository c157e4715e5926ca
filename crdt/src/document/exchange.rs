//! What two peers compare of their documents, and the pages that they ask for.

use super::Document;
use crate::log::SignedChange;
use keys::PublicKey;
use keys::statement::Position;
use std::collections::BTreeMap;

/// How a peer's head of one author's log compares with ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// The same.
    Same,
    /// Ours goes further, and theirs is part of it.
    Ours,
    /// Theirs goes further, as far as can be told.
    Theirs,
    /// At this number they have another change than we.
    Forked,
}

impl Document {
    /// The last change that counts of each author: what two peers compare.
    pub fn heads(&self) -> BTreeMap<PublicKey, Position> {
        let logs = self.index.logs().iter();
        logs.filter_map(|(author, log)| {
            let last = log.last()?;
            let seq = log.len() as u64;
            Some((
                *author,
                Position {
                    seq,
                    hash: last.hash.0,
                },
            ))
        })
        .collect()
    }

    /// Change number `seq` of `author`, if it counts.
    pub fn position(&self, author: &PublicKey, seq: u64) -> Option<Position> {
        let here = self.index.admitted(author, seq)?;
        let hash = here.hash.0;
        Some(Position { seq, hash })
    }

    /// One digest of all heads: equal exactly when the heads are equal.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for (author, head) in self.heads() {
            hasher.update(&author.0);
            hasher.update(&head.seq.to_le_bytes());
            hasher.update(&head.hash);
        }
        *hasher.finalize().as_bytes()
    }

    /// How a peer's head compares with what is here.
    pub fn compare(&self, author: &PublicKey, theirs: &Position) -> Compared {
        let last = self.index.last_seq(author);
        if theirs.seq > last {
            return Compared::Theirs;
        }
        let same = match self.index.admitted(author, theirs.seq) {
            Some(here) => here.hash.0 == theirs.hash,
            None => true,
        };
        match (same, theirs.seq == last) {
            (false, _) => Compared::Forked,
            (true, true) => Compared::Same,
            (true, false) => Compared::Ours,
        }
    }

    /// The changes of `author` that count and follow number `seq`, in order, up to
    /// `max_bytes`; at least one if there is any, so that a peer always gets on.
    pub fn entries_after(
        &self,
        author: &PublicKey,
        seq: u64,
        max_bytes: usize,
    ) -> Vec<SignedChange> {
        let mut bytes: usize = 0;
        let skip = usize::try_from(seq).unwrap_or(usize::MAX);
        let rest = self.index.log(author).iter().skip(skip).enumerate();
        rest.take_while(|(at, entry)| {
            bytes = bytes.saturating_add(entry.signed.raw.len());
            *at == 0 || bytes <= max_bytes
        })
        .map(|(_, entry)| entry.signed.clone())
        .collect()
    }
}
