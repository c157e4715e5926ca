//! Keeps peers from filling the event log: what one did is told once a minute, and the
//! rest of that minute as a count.
//!
//! Pure: time comes in. Strangers share one account, since keys cost nothing. Not here:
//! what is worth telling.

use keys::{MigrationId, PublicKey};
use roles::Note;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// How long repeats are held back.
pub const WINDOW_MILLIS: u64 = 60_000;
/// Different things told of one peer within a window.
pub const MAX_TOLD: usize = 32;
/// Peers with an account of their own; the others share that of strangers.
const MAX_PEERS: usize = 4_096;

#[derive(Debug)]
struct Account {
    until: u64,
    /// Hashes of what was told.
    told: HashSet<u64>,
    held_back: u64,
    newest: Option<(Option<MigrationId>, Note)>,
}

/// What was told of each peer lately.
#[derive(Debug, Default)]
pub struct Repeats(BTreeMap<Option<PublicKey>, Account>);

impl Repeats {
    /// Gives the note back if it is to be told now, and counts it otherwise. `peer` is
    /// none for strangers.
    pub fn first(
        &mut self,
        now_millis: u64,
        peer: Option<PublicKey>,
        migration: Option<MigrationId>,
        note: Note,
    ) -> Option<Note> {
        let room = self.0.len() < MAX_PEERS || self.0.contains_key(&peer);
        let account = self.0.entry(peer.filter(|_| room)).or_insert(Account {
            until: now_millis + WINDOW_MILLIS,
            told: HashSet::new(),
            held_back: 0,
            newest: None,
        });
        let mut hasher = DefaultHasher::new();
        (note.kind, &note.text).hash(&mut hasher);
        if account.told.len() < MAX_TOLD && account.told.insert(hasher.finish()) {
            return Some(note);
        }
        account.held_back += 1;
        account.newest = Some((migration, note));
        None
    }

    /// What is to be told of the minutes that are over.
    pub fn due(&mut self, now_millis: u64) -> Vec<(Option<MigrationId>, Note)> {
        let over = self
            .0
            .extract_if(.., |_, account| account.until <= now_millis);
        over.filter_map(|(_, account)| {
            let (migration, mut note) = account.newest?;
            note.text = format!(
                "{}; {} such events were counted within a minute and are not listed",
                note.text, account.held_back
            );
            Some((migration, note))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PEER: Option<PublicKey> = Some(PublicKey([1; 32]));

    fn note(text: &str) -> Note {
        Note::warn("peer-refused", text)
    }

    #[test]
    fn a_repeat_is_counted_and_told_when_its_minute_is_over() {
        let mut repeats = Repeats::default();
        assert!(repeats.first(0, PEER, None, note("a")).is_some());
        for at in 1..=500 {
            assert!(repeats.first(at, PEER, None, note("a")).is_none());
        }
        assert!(repeats.first(500, PEER, None, note("b")).is_some());
        assert!(repeats.due(WINDOW_MILLIS - 1).is_empty());
        let told = repeats.due(WINDOW_MILLIS);
        assert_eq!(told.len(), 1);
        assert!(told[0].1.text.contains("500 such events"), "{told:?}");
        assert!(
            repeats
                .first(WINDOW_MILLIS, PEER, None, note("a"))
                .is_some()
        );
    }

    #[test]
    fn a_peer_that_does_something_new_each_time_is_not_told_of_for_ever() {
        let mut repeats = Repeats::default();
        let told = (0..1_000)
            .filter(|at| {
                let note = note(&at.to_string());
                repeats.first(0, PEER, None, note).is_some()
            })
            .count();
        assert_eq!(told, MAX_TOLD);
        assert!(repeats.first(0, None, None, note("1")).is_some(), "others");
    }

    #[test]
    fn accounts_are_bounded_and_forgotten() {
        let mut repeats = Repeats::default();
        for at in 0..2 * MAX_PEERS {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&(at as u64).to_le_bytes());
            repeats.first(0, Some(PublicKey(key)), None, note("a"));
        }
        assert_eq!(repeats.0.len(), MAX_PEERS + 1);
        assert_eq!(repeats.due(WINDOW_MILLIS).len(), 1);
        assert!(repeats.0.is_empty());
    }
}
