//! How fast an agent may send, and whether it gives way to the source's own work: one
//! [`Pacer`] keeps all its sessions to that.
//!
//! What counts are the bytes put on block streams, frames and payloads, before encryption.
//! Sessions take turns, a piece each. Who is next in turn waits until its piece is due, and
//! the others wait for the turn: nobody waits for more than the time of one piece, so a
//! change of the limit holds from the next piece on.
//!
//! Not here: when a piece is due (`blocks::Pacing`), who may set a limit, and what holds at
//! which hour (the engine).

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use blocks::{BLOCK_SIZE, LEAST_LIMIT, Pacing, piece_of};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, sleep_until};
use volumes::{Disks, READ_BLOCKS};

use super::polite::Shared;

/// What holds now, for all sessions of an agent together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Bytes a second, on all block streams together; none is no limit. Below 4 KiB it is
    /// taken as that.
    pub limit: Option<NonZeroU64>,
    /// Whether reading the source gives way to its own work.
    pub polite: bool,
}

/// Keeps the sessions of an agent to a [`Pace`] that may change at any time. Clones share
/// it: there is one for each process.
#[derive(Debug, Clone)]
pub struct Pacer {
    pace: watch::Receiver<Pace>,
    turn: Arc<Mutex<Pacing>>,
    /// Sessions that wait for the turn, or have it and wait for their time.
    waiting: Arc<AtomicUsize>,
    start: Instant,
    disks: Shared,
}

/// One that waits, for as long as it does.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Pacer {
    /// One that keeps to what is sent here; where the sender is gone, to what it sent last.
    pub fn new(pace: watch::Receiver<Pace>) -> Self {
        Self {
            pace,
            turn: Arc::default(),
            waiting: Arc::default(),
            start: Instant::now(),
            disks: Shared::new(Disks::default()),
        }
    }

    /// The same one, whose sessions are polite to these disks.
    #[cfg(test)]
    pub(super) fn on(self, disks: Disks) -> Self {
        let disks = Shared::new(disks);
        Self { disks, ..self }
    }

    /// What its sessions read from, and are polite to together.
    pub(super) fn disks(&self) -> &Shared {
        &self.disks
    }

    /// What holds now.
    pub fn pace(&self) -> Pace {
        *self.pace.borrow()
    }

    /// How many of `want` bytes may go at once; all where no limit holds, and none when it
    /// is not this session's turn, or not time.
    pub(super) fn take_now(&self, want: usize) -> usize {
        let Some(limit) = self.pace().limit else {
            return want;
        };
        // Somebody waits for its time, or for the turn.
        let Ok(mut pacing) = self.turn.try_lock() else {
            return 0;
        };
        let now = self.start.elapsed();
        match pacing.due() <= now {
            true => spend(&mut pacing, now, want, limit),
            false => 0,
        }
    }

    /// Waits until some of `want` bytes may go, and gives how many: one at least, where
    /// any are wanted.
    pub(super) async fn take(&self, want: usize) -> usize {
        // First come, first served. Whoever is dropped while it waits gives up its turn.
        let _waiter = Waiter::new(&self.waiting);
        let mut pacing = self.turn.lock().await;
        loop {
            let Some(limit) = self.pace().limit else {
                return want;
            };
            let now = self.start.elapsed();
            if pacing.due() <= now {
                return spend(&mut pacing, now, want, limit);
            }
            sleep_until(self.start + pacing.due()).await;
        }
    }

    /// Counts bytes that went without being waited for.
    pub(super) async fn charge(&self, bytes: u64) {
        let mut pacing = self.turn.lock().await;
        if let Some(limit) = self.pace().limit {
            pacing.spend(self.start.elapsed(), bytes, limit);
        }
    }

    /// How many bytes of a session may wait for the stream: what is waited for that long
    /// by a barrier, by the end of a session, and by what was still allowed when it was
    /// given to the stream.
    pub(super) fn room_bytes(&self) -> u64 {
        let limit = self.pace().limit;
        limit.map_or(u64::MAX, |limit| 2 * piece_of(limit))
    }

    /// Whether so many bytes of a session take longer than this at the limit, in turn with
    /// the sessions that wait now.
    pub(super) fn takes_longer(&self, bytes: u64, than: Duration) -> bool {
        let sessions = self.waiting.load(Relaxed).max(1) as u64;
        let limit = self.pace().limit.map(|limit| limit.get().max(LEAST_LIMIT));
        limit.is_some_and(|limit| bytes.saturating_mul(sessions) / limit >= than.as_secs())
    }

    /// The most blocks of one extent, so that none takes long: at a limit that is low, an
    /// eighth of a second's.
    pub(super) fn span_blocks(&self) -> u64 {
        let limit = self.pace().limit;
        limit.map_or(READ_BLOCKS, |limit| {
            let blocks = limit.get().max(LEAST_LIMIT) / (8 * BLOCK_SIZE as u64);
            blocks.clamp(1, READ_BLOCKS)
        })
    }
}

impl Default for Pacer {
    /// No limit, and not polite.
    fn default() -> Self {
        Self::new(watch::channel(Pace::default()).1)
    }
}

fn spend(pacing: &mut Pacing, now: Duration, want: usize, limit: NonZeroU64) -> usize {
    let bytes = piece_of(limit).min(want as u64);
    pacing.spend(now, bytes, limit);
    // At most what was wanted.
    bytes as usize
}

/// Bytes given to the stream that were not yet put on it, for both sides of the queue.
#[derive(Debug, Clone, Default)]
pub(super) struct Backlog(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicU64,
    less: Notify,
}

impl Backlog {
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.load(Relaxed)
    }

    pub(super) fn add(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Relaxed);
    }

    /// They are on the stream.
    pub(super) fn sub(&self, bytes: u64) {
        self.0.bytes.fetch_sub(bytes, Relaxed);
        self.0.less.notify_one();
    }

    /// Waits until there are less than when this was last asked.
    pub(super) async fn shrunk(&self) {
        self.0.less.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const KIB: u64 = 1 << 10;

    fn at(bytes_per_sec: u64) -> Pacer {
        let limit = NonZeroU64::new(bytes_per_sec);
        let polite = false;
        Pacer::new(watch::channel(Pace { limit, polite }).1)
    }

    #[tokio::test]
    async fn what_a_session_has_takes_longer_the_more_of_them_wait() {
        let pacer = at(64 * KIB);
        let secs = Duration::from_secs(20);
        let longer = |bytes| pacer.takes_longer(bytes, secs);
        assert_eq!(
            (longer(19 * 64 * KIB), longer(20 * 64 * KIB)),
            (false, true)
        );
        pacer.charge(64 * KIB).await;
        let (mut one, mut other) = (Box::pin(pacer.take(1)), Box::pin(pacer.take(1)));
        assert!((&mut one).now_or_never().is_none() && (&mut other).now_or_never().is_none());
        assert_eq!((longer(9 * 64 * KIB), longer(10 * 64 * KIB)), (false, true));
        // Who has had its turn, and who left, wait no more.
        assert_eq!(one.await, 1);
        drop(other);
        assert_eq!(
            (longer(19 * 64 * KIB), longer(20 * 64 * KIB)),
            (false, true)
        );
        assert!(!Pacer::default().takes_longer(u64::MAX, secs));
    }
}
