//! How fast an agent may send, and whether it gives way to the source's own work.
//!
//! Not here: who may set a limit, and what holds at which hour (the engine).

use std::num::NonZeroU64;

use tokio::sync::watch;

/// What holds now, for all sessions of an agent together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Bytes a second, on all block streams together; none is no limit.
    pub limit: Option<NonZeroU64>,
    /// Whether reading the source gives way to its own work.
    pub polite: bool,
}

/// Keeps the sessions of an agent to a [`Pace`] that may change at any time. Clones share
/// it: there is one for each process.
#[derive(Debug, Clone)]
pub struct Pacer {
    pace: watch::Receiver<Pace>,
}

impl Pacer {
    /// One that keeps to what is sent here; where the sender is gone, to what it sent last.
    pub fn new(pace: watch::Receiver<Pace>) -> Self {
        Self { pace }
    }

    /// What holds now.
    pub fn pace(&self) -> Pace {
        *self.pace.borrow()
    }
}

impl Default for Pacer {
    /// No limit, and not polite.
    fn default() -> Self {
        Self::new(watch::channel(Pace::default()).1)
    }
}
