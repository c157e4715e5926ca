//! The buffers that all sessions of a process have together: with few sessions each has as
//! many as it can use, with many each has few, so that the memory of an agent with many
//! disks, and of a replicator with many agents, is bounded.
//!
//! Not here: the buffers themselves, and who waits for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What a session has in any case: one is filled while the other is on its way.
const LEAST: usize = 2;

/// What all sessions of a process share. Clones share it: there is one for each process.
#[derive(Debug, Clone)]
pub struct SharedBuffers {
    /// The sessions at the sending end that are in a pass, and the pieces that they read
    /// into.
    pub(super) sending: Sharers,
    /// The same sessions, and what they have offered, or have yet to send of it.
    pub(super) offering: Sharers,
    /// The sessions at the receiving end to which blocks come, and their payloads.
    pub(super) receiving: Sharers,
}

impl Default for SharedBuffers {
    fn default() -> Self {
        Self {
            sending: Sharers::of(64),
            offering: Sharers::of(48),
            receiving: Sharers::of(64),
        }
    }
}

/// Sessions that share buffers of one kind.
#[derive(Debug, Clone)]
pub(super) struct Sharers {
    /// Buffers of a MiB of all of them, as long as each has [`LEAST`].
    all: usize,
    sessions: Arc<AtomicUsize>,
}

impl Sharers {
    pub(super) fn of(all: usize) -> Self {
        let sessions = Arc::default();
        Self { all, sessions }
    }

    /// One more, for as long as it lives.
    pub(super) fn join(&self) -> Share {
        self.sessions.fetch_add(1, Relaxed);
        Share(self.clone())
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Relaxed)
    }
}

/// The part of one session.
#[derive(Debug)]
pub(super) struct Share(Sharers);

impl Share {
    /// How many buffers it may have now, of the `most` that it can use. It changes as
    /// others come and go.
    pub(super) fn buffers(&self, most: usize) -> usize {
        let sessions = self.0.sessions.load(Relaxed).max(1);
        (self.0.all / sessions).max(LEAST).min(most)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_together_have_no_more_than_all_and_each_the_least() {
        let all = Sharers::of(64);
        let mut sharers = Vec::new();
        for count in 1..=200 {
            sharers.push(all.clone().join());
            let each = sharers[0].buffers(16);
            assert!((LEAST..=16).contains(&each));
            assert!(count * each <= 64.max(count * LEAST), "{count} sessions");
        }
        sharers.truncate(1);
        assert_eq!(sharers[0].buffers(16), 16);
        assert_eq!(sharers[0].buffers(1), 1);
    }

    #[test]
    fn sessions_of_another_process_share_nothing_with_these() {
        let (ours, theirs) = (SharedBuffers::default(), SharedBuffers::default());
        let share = ours.sending.join();
        let _others: Vec<Share> = (0..32).map(|_| theirs.sending.join()).collect();
        assert_eq!(share.buffers(16), 16);
        let _more: Vec<Share> = (0..31).map(|_| ours.clone().sending.join()).collect();
        assert_eq!(share.buffers(16), 2);
    }
}
