//! Where blocks live: volumes that are read, volumes that are written, and
//! what is kept beside them on disk so that a restart need not begin anew.
//!
//! All of it blocks the calling thread. Not here: what to copy when, and
//! anything about peers.

mod aligned;
mod changed;
mod courtesy;
mod device_io;
pub mod freeze;
mod index;
mod intents;
mod kernel;
mod locked;
#[cfg(test)]
mod loop_device;
mod own_commits;
mod rehash;
mod rescan;
mod root_reader;
mod scan;
mod shared_disk;
mod source;
mod swap;
mod sysfs;
mod target;
mod tracker;
mod tree_file;

pub use aligned::AlignedBuf;
pub use changed::{Changed, find_changed};
pub use courtesy::LEAST_READ;
pub use device_io::{DeviceIo, IoCounts, NoDeviceIo};
pub use index::{FingerprintIndex, IndexError, MAX_INDEXED_VOLUMES, MAX_PLACES, Place};
pub use intents::{IntentError, Intents, OpenIntentsError};
pub use kernel::{IoClass, give_way};
pub use own_commits::{Committing, committed, committing};
pub use rehash::{ReadBlocks, RehashError, read_entries, rehash_group};
pub use rescan::{QUIET_BLOCKS, RescanTracker, Scanned};
pub use root_reader::RootReader;
pub use scan::{Scan, ScanCounts, ScanError, Span};
pub use shared_disk::{Commits, Counts, Disks, Figures, Seat};
pub use source::{OpenSourceError, ReadError, SourceChanged, SourceIdentity, SourceVolume};
pub use swap::FoundSwap;
pub use target::{OpenTargetError, SyncFailed, TargetMoved, TargetVolume, WriteError};
pub use tracker::{Disk, DiskUnread, Kind as TrackerKind, NoTracker, Tracker, TrackerFailed};
pub use tree_file::{OpenTreeError, ROOT_BATCH, TreeError, TreeFile, VolumeTag};

/// Blocks read at once: 1 MiB, which stays in the second-level cache of the
/// core that reads and hashes it.
pub const READ_BLOCKS: u64 = 16;
