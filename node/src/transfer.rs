//! The data plane: drives one block session at either end, between a stream
//! and a disk. What may be said when is decided by `blocks::Source` and
//! `blocks::Target`; here bytes are read, hashed, compressed, sent, checked,
//! written and made durable as they say.
//!
//! Not here: who may open a stream, when passes begin, and what is remembered
//! of a session beside the stored trees.
//!
//! ```text
//! agent       disk thread ──pieces──▶ session ──parcels──▶ writer ══▶ stream
//!             reads, hashes,          blocks::Source
//!             compresses, commits ◀───────┘ ▲── frames ─── reader ◀══
//!
//! replicator  stream ══▶ reader ──payloads──▶ desk thread ──flushes──▶ keeper
//!                                             blocks::Target           thread
//!             ◀══ writer ◀──────frames─────── checks, writes           fsync, tree,
//!                                                 ▲────── durable ──── commit
//! ```
//!
//! Memory is bounded: [`PIECES`] buffers of 1 MiB at the replicator and twice as many at the
//! agent, once more where it compresses, and fewer where many sessions share them (`share`);
//! a tree's cache, and the leaves between two barriers; at the agent also what is offered and
//! lies in no buffer (16 MiB at most), and what is left of offers and waits for the stream
//! (16 and 32 MiB at most, shared as well). A session that is dropped at any point
//! ends its threads, and what was acknowledged is kept.

mod compress;
mod desk;
mod disk;
mod follow;
mod keeper;
mod left_out;
mod locks;
mod notes;
mod pace;
mod piece;
mod polite;
mod progress;
mod receive;
mod references;
mod replica;
mod send;
mod session;
mod share;
mod wire;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

pub use compress::Compression;
pub use follow::{ChangeTracker, Collected, Reading, TrackerLost, Trackers, TreeName};
pub use pace::{Pace, Pacer};
pub use progress::{Counts, Progress, Way};
pub use receive::{
    Commit, Leave, OpenFrame, Prove, ReceiveError, ReceiveEvent, ReceiveJob, read_open, receive,
    refuse,
};
pub use references::{Copy, References, Scope};
pub use send::{SendCommand, SendEvent, SendJob, send};
pub use share::SharedBuffers;

/// Buffers of one read (1 MiB) in flight at each end, beside what is offered: 16 MiB hides
/// the time between two threads and the delay of a fast link.
const PIECES: usize = 16;

/// How much is sent between two barriers, in bytes.
pub const BARRIER_BYTES: u64 = 256 << 20;

/// Groups whose nodes are computed at once by a thread that has nothing else to
/// do: 30 ms where all of them are zero, which is what a request may wait.
const WARM_GROUPS: usize = 8;

fn add(to: &AtomicU64, count: u64) {
    to.fetch_add(count, Relaxed);
}

#[cfg(test)]
pub(crate) mod tests;
