//! Changes that wait for their author to become known or for what they depend on.
//!
//! Bounded in number and bytes, in all and for each author, and strangers apart from
//! authors, so that neither a stranger nor a faulty operator can crowd out the rest.
//! What finds no room is offered again by the next exchange with a peer.

use crate::log::{Digest, SignedChange};
use keys::PublicKey;
use std::collections::BTreeMap;

/// Most changes that wait, of known authors and of strangers each.
pub const MAX_PARKED: usize = 2048;
/// Most bytes that wait, of known authors and of strangers each.
pub const MAX_PARKED_BYTES: usize = 8 * 1024 * 1024;
/// Most changes of one author that wait.
pub const MAX_PARKED_OF_AUTHOR: usize = 512;
/// Most bytes of one author that wait.
pub const MAX_PARKED_BYTES_OF_AUTHOR: usize = 2 * 1024 * 1024;

/// What waits of one author, by number (0 where it was not parsed yet).
#[derive(Debug, Clone, Default)]
struct Waiting {
    changes: BTreeMap<(u64, Digest), SignedChange>,
    bytes: usize,
}

/// One of the two rooms.
#[derive(Debug, Clone, Default)]
struct Room {
    authors: BTreeMap<PublicKey, Waiting>,
    count: usize,
    bytes: usize,
}

/// Whether there was room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parking {
    Kept,
    Full,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Parked {
    known: Room,
    strangers: Room,
}

impl Parked {
    pub(crate) fn keep(&mut self, seq: u64, change: SignedChange) -> Parking {
        self.known.keep(seq, change)
    }

    pub(crate) fn keep_stranger(&mut self, change: SignedChange) -> Parking {
        self.strangers.keep(0, change)
    }

    /// Authors of whom anything waits with a number up to `seq(author)`.
    pub(crate) fn due(&self, seq: impl Fn(&PublicKey) -> u64) -> Vec<PublicKey> {
        self.known
            .authors
            .iter()
            .filter(|(author, waiting)| {
                let first = waiting.changes.first_key_value();
                first.is_some_and(|((first, _), _)| *first <= seq(author))
            })
            .map(|(author, _)| *author)
            .collect()
    }

    /// Takes out what waits of `author` with a number up to `seq`.
    pub(crate) fn take_through(&mut self, author: &PublicKey, seq: u64) -> Vec<SignedChange> {
        self.known.take_while(author, |number| number <= seq)
    }

    /// Takes out everything of strangers who are known now.
    pub(crate) fn take_strangers(
        &mut self,
        known: impl Fn(&PublicKey) -> bool,
    ) -> Vec<SignedChange> {
        let authors: Vec<PublicKey> = self.strangers.authors.keys().copied().collect();
        authors
            .iter()
            .filter(|author| known(author))
            .flat_map(|author| self.strangers.take_while(author, |_| true))
            .collect()
    }

    /// How many wait, and how many bytes they have.
    pub(crate) fn size(&self) -> (usize, usize) {
        (
            self.known.count + self.strangers.count,
            self.known.bytes + self.strangers.bytes,
        )
    }
}

impl Room {
    fn keep(&mut self, seq: u64, change: SignedChange) -> Parking {
        let bytes = change.raw.len();
        let author = change.author;
        let key = (seq, change.digest());
        let mine = self.authors.get(&author);
        if mine.is_some_and(|waiting| waiting.changes.contains_key(&key)) {
            return Parking::Kept;
        }
        let (count, held) = mine.map_or((0, 0), |waiting| (waiting.changes.len(), waiting.bytes));
        let room = count < MAX_PARKED_OF_AUTHOR
            && held + bytes <= MAX_PARKED_BYTES_OF_AUTHOR
            && self.count < MAX_PARKED
            && self.bytes + bytes <= MAX_PARKED_BYTES;
        if !room {
            return Parking::Full;
        }
        let waiting = self.authors.entry(author).or_default();
        waiting.changes.insert(key, change);
        waiting.bytes += bytes;
        self.count += 1;
        self.bytes += bytes;
        Parking::Kept
    }

    fn take_while(
        &mut self,
        author: &PublicKey,
        wanted: impl Fn(u64) -> bool,
    ) -> Vec<SignedChange> {
        let mut taken = Vec::new();
        let Some(waiting) = self.authors.get_mut(author) else {
            return taken;
        };
        while let Some(first) = waiting.changes.first_entry()
            && wanted(first.key().0)
        {
            let change = first.remove();
            waiting.bytes -= change.raw.len();
            self.count -= 1;
            self.bytes -= change.raw.len();
            taken.push(change);
        }
        if waiting.changes.is_empty() {
            self.authors.remove(author);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::Signature;

    fn change(author: u8, number: u32, bytes: usize) -> SignedChange {
        let mut raw = vec![0; bytes];
        raw[..4].copy_from_slice(&number.to_le_bytes());
        SignedChange {
            raw,
            author: PublicKey([author; 32]),
            signature: Signature([0; 64]),
        }
    }

    #[test]
    fn one_author_cannot_fill_the_room_of_the_others() {
        let mut parked = Parked::default();
        let kept = (0..2000)
            .filter(|number| parked.keep(9, change(1, *number, 10)) == Parking::Kept)
            .count();
        assert_eq!(kept, MAX_PARKED_OF_AUTHOR);
        assert_eq!(parked.keep(9, change(2, 0, 10)), Parking::Kept);
    }

    #[test]
    fn strangers_fill_their_own_room_only_and_no_more_than_its_bytes() {
        let mut parked = Parked::default();
        for author in 0..=255 {
            for number in 0..40 {
                parked.keep_stranger(change(author, number, 60_000));
            }
        }
        let (_, bytes) = parked.size();
        assert!(bytes <= MAX_PARKED_BYTES && bytes > MAX_PARKED_BYTES - 60_000);
        assert_eq!(parked.keep(1, change(1, 0, 10)), Parking::Kept);
    }

    #[test]
    fn what_is_taken_out_makes_room_again() {
        let mut parked = Parked::default();
        parked.keep(2, change(1, 0, 10));
        parked.keep(3, change(1, 1, 10));
        assert_eq!(parked.due(|_| 2), vec![PublicKey([1; 32])]);
        assert_eq!(parked.take_through(&PublicKey([1; 32]), 2).len(), 1);
        assert_eq!(parked.size(), (1, 10));
        assert!(parked.due(|_| 2).is_empty());
        assert_eq!(parked.take_through(&PublicKey([1; 32]), 3).len(), 1);
        assert_eq!(parked.size(), (0, 0));
    }
}
