//! What this process makes durable: for as long as a commit is under way, what a disk writes
//! may be ours. A data folder often lies on the disk that is copied.
//!
//! Not here: what is not made durable, which the kernel writes when it likes. Who reads
//! politely makes what it writes durable soon, so that there is little of it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

static ALL: Commits = Commits::new();

/// A commit of this process that is under way, for as long as this lives.
pub fn committing() -> Committing {
    ALL.begin()
}

/// How many there were; none while one is under way.
pub fn committed() -> Option<u64> {
    ALL.ended()
}

struct Commits {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// One that is under way.
pub struct Committing(&'static Commits);

impl Commits {
    const fn new() -> Self {
        Self {
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        }
    }

    fn begin(&'static self) -> Committing {
        self.begun.fetch_add(1, SeqCst);
        Committing(self)
    }

    fn ended(&self) -> Option<u64> {
        // In this order, or one that both begins and ends meanwhile is missed.
        let ended = self.ended.load(SeqCst);
        (self.begun.load(SeqCst) == ended).then_some(ended)
    }
}

impl Drop for Committing {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_count_when_they_ended_and_none_while_one_is_under_way() {
        static COMMITS: Commits = Commits::new();
        assert_eq!(COMMITS.ended(), Some(0));
        let (one, other) = (COMMITS.begin(), COMMITS.begin());
        assert_eq!(COMMITS.ended(), None);
        drop(one);
        assert_eq!(COMMITS.ended(), None);
        drop(other);
        assert_eq!(COMMITS.ended(), Some(2));
    }
}
