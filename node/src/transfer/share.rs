//! The buffers that all sessions of a process have together: with few sessions each has as
//! many as it can use, with many each has few, so that the memory of an agent with many
//! disks, and of a replicator with many agents, is bounded.
//!
//! Not here: the buffers themselves, and who waits for one.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What a session has in any case: one is filled while the other is on its way.
const LEAST: usize = 2;

/// The sessions at the sending end that are in a pass, and the pieces that they read into.
pub(super) static SENDING: Sharers = Sharers::of(64);
/// The same sessions, and what they have offered, or have yet to send of it.
pub(super) static OFFERING: Sharers = Sharers::of(48);
/// The sessions at the receiving end to which blocks come, and their payloads.
pub(super) static RECEIVING: Sharers = Sharers::of(64);

/// Sessions that share buffers.
pub(super) struct Sharers {
    /// Buffers of a MiB of all of them, as long as each has [`LEAST`].
    all: usize,
    sessions: AtomicUsize,
}

impl Sharers {
    pub(super) const fn of(all: usize) -> Self {
        let sessions = AtomicUsize::new(0);
        Self { all, sessions }
    }

    /// One more, for as long as it lives.
    pub(super) fn join(&'static self) -> Share {
        self.sessions.fetch_add(1, Relaxed);
        Share(self)
    }
}

/// The part of one session.
pub(super) struct Share(&'static Sharers);

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
        static SHARERS: Sharers = Sharers::of(64);
        let mut sharers = Vec::new();
        for count in 1..=200 {
            sharers.push(SHARERS.join());
            let each = sharers[0].buffers(16);
            assert!((LEAST..=16).contains(&each));
            assert!(count * each <= 64.max(count * LEAST), "{count} sessions");
        }
        sharers.truncate(1);
        assert_eq!(sharers[0].buffers(16), 16);
        assert_eq!(sharers[0].buffers(1), 1);
    }
}
