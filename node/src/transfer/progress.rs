//! What sessions count while they run, for whoever shows it.
//!
//! Not here: speeds, ages and what follows from them (`engine::figures`).

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

use super::add;

/// How blocks are told to the replicator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// That they are zero.
    Zeros,
    /// As they are.
    Raw,
    /// Compressed.
    Zstd,
    /// As the pieces of them that changed.
    Patch,
    /// As a reference to what the replicator holds.
    Reference,
}

impl Way {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Zeros,
        Self::Raw,
        Self::Zstd,
        Self::Patch,
        Self::Reference,
    ];

    /// A word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Zeros => "zeros",
            Self::Raw => "raw",
            Self::Zstd => "zstd",
            Self::Patch => "patch",
            Self::Reference => "reference",
        }
    }
}

/// What the sessions of one volume count, one after the other: all but the first three
/// only ever grow.
#[derive(Debug, Default)]
pub struct Progress {
    /// The pass that runs or ran last; 0 before the first of a session.
    pub pass: AtomicU32,
    /// Blocks of the volume.
    pub blocks_total: AtomicU64,
    /// Blocks looked at in this pass; the agent's end only.
    pub blocks_looked_at: AtomicU64,
    /// Bytes read from the source; the agent's end only.
    pub bytes_read: AtomicU64,
    /// Blocks sent, or received and written.
    pub blocks_sent: AtomicU64,
    /// Bytes of payload on the wire.
    pub bytes_sent: AtomicU64,
    /// Blocks and bytes of payload by the way in which they were sent; the agent's end
    /// only.
    ways: [(AtomicU64, AtomicU64); Way::ALL.len()],
    /// Blocks sent that became durable; the agent's end only.
    pub blocks_durable: AtomicU64,
    /// In this session there was once nothing left to compute for a root but what changes: a
    /// cutover waits for no more.
    pub is_rooted: AtomicBool,
    /// The pace at which reads are held for the sake of the source's own work, in bytes a
    /// second; 0 while they are not. The agent's end only.
    pub reads_held_at: AtomicU64,
    /// How long the stream waited for a limit, in microseconds; the agent's end only.
    paced_micros: AtomicU64,
    /// Barriers that became durable.
    pub barriers: AtomicU64,
    /// Bytes read back or hashed again; the replicator's end only.
    pub bytes_reread: AtomicU64,
}

/// What [`Progress`] counted up to one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// As there.
    pub pass: u32,
    /// As there.
    pub blocks_looked_at: u64,
    /// As there.
    pub bytes_read: u64,
    /// As there.
    pub blocks_sent: u64,
    /// As there.
    pub bytes_sent: u64,
    /// As there: blocks and bytes of payload by way.
    pub ways: [(u64, u64); Way::ALL.len()],
    /// As there.
    pub blocks_durable: u64,
    /// As there.
    pub reads_held_at: u64,
    /// How long the stream waited for a limit.
    pub paced: Duration,
    /// As there.
    pub barriers: u64,
    /// As there.
    pub bytes_reread: u64,
}

impl Counts {
    /// Bytes of disk that were sent, or received and written.
    pub fn disk_bytes(&self) -> u64 {
        self.blocks_sent.saturating_mul(blocks::BLOCK_SIZE as u64)
    }

    /// Bytes of disk that were sent in a way, and the bytes of payload that it took.
    pub fn sent(&self, way: Way) -> (u64, u64) {
        let (blocks, payload) = self.ways[way as usize];
        (blocks.saturating_mul(blocks::BLOCK_SIZE as u64), payload)
    }

    /// Bytes that a way kept off the wire.
    pub fn saved_bytes(&self, way: Way) -> u64 {
        let (disk, payload) = self.sent(way);
        disk.saturating_sub(payload)
    }
}

impl Progress {
    /// A session begins: it has not begun a pass, and what was on its way in the one before
    /// is lost.
    pub fn begin_session(&self) {
        self.is_rooted.store(false, Relaxed);
        self.pass.store(0, Relaxed);
        self.blocks_looked_at.store(0, Relaxed);
        let sent = self.blocks_sent.load(Relaxed);
        self.blocks_durable.store(sent, Relaxed);
        self.reads_held_at.store(0, Relaxed);
    }

    /// Blocks were sent in a way, with so many bytes of payload.
    pub(super) fn sent(&self, way: Way, blocks: u64, payload_bytes: u64) {
        let (in_blocks, in_bytes) = &self.ways[way as usize];
        add(in_blocks, blocks);
        add(in_bytes, payload_bytes);
        add(&self.blocks_sent, blocks);
        add(&self.bytes_sent, payload_bytes);
    }

    /// The stream waited so long for a limit.
    pub(super) fn paced(&self, time: Duration) {
        add(
            &self.paced_micros,
            u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
        );
    }

    pub(super) fn time_paced(&self) -> Duration {
        Duration::from_micros(self.paced_micros.load(Relaxed))
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        let load = |count: &AtomicU64| count.load(Relaxed);
        Counts {
            pass: self.pass.load(Relaxed),
            blocks_looked_at: load(&self.blocks_looked_at),
            bytes_read: load(&self.bytes_read),
            blocks_sent: load(&self.blocks_sent),
            bytes_sent: load(&self.bytes_sent),
            ways: std::array::from_fn(|way| {
                let (blocks, bytes) = &self.ways[way];
                (load(blocks), load(bytes))
            }),
            blocks_durable: load(&self.blocks_durable),
            reads_held_at: load(&self.reads_held_at),
            paced: self.time_paced(),
            barriers: load(&self.barriers),
            bytes_reread: load(&self.bytes_reread),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_counted_by_its_way_and_what_it_saved() {
        let progress = Progress::default();
        progress.sent(Way::Raw, 2, 131_072);
        progress.sent(Way::Zstd, 4, 100_000);
        progress.sent(Way::Zeros, 100, 0);
        let counts = progress.counts();
        assert_eq!((counts.blocks_sent, counts.bytes_sent), (106, 231_072));
        assert_eq!(counts.sent(Way::Raw), (131_072, 131_072));
        assert_eq!(counts.saved_bytes(Way::Raw), 0);
        assert_eq!(counts.saved_bytes(Way::Zstd), 4 * 65_536 - 100_000);
        for (number, way) in Way::ALL.into_iter().enumerate() {
            assert_eq!(way as usize, number, "{}", way.word());
        }
    }

    #[test]
    fn the_next_session_has_nothing_on_its_way_and_keeps_what_was_counted() {
        let progress = Progress::default();
        progress.pass.store(3, Relaxed);
        progress.blocks_looked_at.store(9, Relaxed);
        progress.sent(Way::Raw, 5, 5 * 65_536);
        progress.begin_session();
        let counts = progress.counts();
        assert_eq!((counts.pass, counts.blocks_looked_at), (0, 0));
        assert_eq!((counts.blocks_sent, counts.blocks_durable), (5, 5));
    }
}
