//! The buffers that all sessions of a process have together: with few sessions each has as
//! many as it can use, with many each has few, so that the memory of an agent with many
//! disks, and of a replicator with many agents, is bounded.
//!
//! Not here: the buffers themselves, and who waits for one.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Buffers of a MiB of all sessions that share them, as long as each has [`LEAST`].
const ALL: usize = 64;
/// What a session has in any case: one is filled while the other is on its way.
const LEAST: usize = 2;

/// The sessions at the receiving end to which blocks come.
pub(super) static RECEIVING: Sharers = Sharers::new();

/// Sessions that share buffers.
pub(super) struct Sharers(AtomicUsize);

impl Sharers {
    pub(super) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// One more, for as long as it lives.
    pub(super) fn join(&'static self) -> Share {
        self.0.fetch_add(1, Relaxed);
        Share(self)
    }
}

/// The part of one session.
pub(super) struct Share(&'static Sharers);

impl Share {
    /// How many buffers it may have now, of the `most` that it can use. It changes as
    /// others come and go.
    pub(super) fn buffers(&self, most: usize) -> usize {
        let sharers = self.0.0.load(Relaxed).max(1);
        (ALL / sharers).max(LEAST).min(most)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_together_have_no_more_than_all_and_each_the_least() {
        static SHARERS: Sharers = Sharers::new();
        let mut sharers = Vec::new();
        for count in 1..=200 {
            sharers.push(SHARERS.join());
            let each = sharers[0].buffers(16);
            assert!((LEAST..=16).contains(&each));
            assert!(count * each <= ALL.max(count * LEAST), "{count} sessions");
        }
        sharers.truncate(1);
        assert_eq!(sharers[0].buffers(16), 16);
        assert_eq!(sharers[0].buffers(1), 1);
    }
}
