//! The signed root of one end of a migrated volume, or of whoever looked at the copy
//! after both, and how it was made.
//!
//! The root itself is computed by `blocks`; here it is 32 bytes that somebody
//! stands for with a signature.

use crate::checkpoint::CheckpointName;
use crate::id::{Epoch, MeshId, MigrationId, UnixSecs, VolumeId};
use codec::Wire;
use serde::{Deserialize, Serialize};

/// Who speaks: one of the two ends, or a witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The agent, of the source.
    Source,
    /// The replicator, of the copy.
    Target,
    /// A node that is neither, and read the copy back from its volume.
    Witness,
}

/// How a root was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// The source was compared with its stored tree from end to end, every allocated
    /// block read, and nothing had changed since the previous pass.
    ReadInFull,
    /// The copy's blocks were each checked when they arrived.
    OnArrival,
    /// The copy was read back from its volume from end to end.
    ReadBack,
    /// Of the source every block that the kernel was seen to write since it was last read
    /// was read again, until none was left. What the kernel did not show is not in it.
    Tracked,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReadInFull => "read in full",
            Self::OnArrival => "checked on arrival",
            Self::ReadBack => "read back in full",
            Self::Tracked => "tracked",
        })
    }
}

/// What somebody states about a volume, at cutover or of a checkpoint. Sealed with `Domain::RootProof`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootProof {
    /// The mesh.
    pub mesh: MeshId,
    /// The migration.
    pub migration: MigrationId,
    /// The source volume.
    pub volume: VolumeId,
    /// Epoch of the copy.
    pub epoch: Epoch,
    /// Who speaks.
    pub end: End,
    /// Bytes of the volume that the root covers, from offset 0.
    pub length: u64,
    /// BLAKE3 of those bytes: what `head -c LENGTH DISK | b3sum` prints.
    pub root: [u8; 32],
    /// How the root was made.
    pub method: Method,
    /// When, by the speaker's wall clock.
    pub at: UnixSecs,
    /// The checkpoint of which it is the root; none where it is of the copy itself. A root
    /// of a checkpoint says nothing of whether the copy may be launched.
    pub checkpoint: Option<CheckpointName>,
}

impl Wire for RootProof {
    const NAME: &'static str = "root proof";
    const VERSION: u8 = 4;
    const LIMIT: usize = 512;
}
