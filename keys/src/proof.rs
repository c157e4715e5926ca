//! The signed root of one end of a migrated volume, or of whoever looked at the copy
//! after both, and how it was made.
//!
//! The root itself is computed by `blocks`; here it is 32 bytes that somebody
//! stands for with a signature.

use crate::LeftOut;
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
    /// BLAKE3 of those bytes: what `head -c LENGTH DISK | b3sum` prints, with zeros in what is
    /// left out.
    pub root: [u8; 32],
    /// How the root was made.
    pub method: Method,
    /// When, by the speaker's wall clock.
    pub at: UnixSecs,
    /// What the source was not read of: the root is of zeros there. Only the source says so;
    /// of a copy, which holds zeros there, the root is simply that of all its bytes.
    pub left_out: LeftOut,
    /// The checkpoint of which it is the root; none where it is of the copy itself. A root
    /// of a checkpoint says nothing of whether the copy may be launched.
    pub checkpoint: Option<CheckpointName>,
}

impl RootProof {
    /// Whether what it says can be.
    pub fn is_sound(&self) -> bool {
        let may_leave_out = self.end == End::Source || self.left_out.is_empty();
        may_leave_out && self.left_out.is_within(self.length)
    }
}

impl Wire for RootProof {
    const NAME: &'static str = "root proof";
    const VERSION: u8 = 4;
    const LIMIT: usize = 1024;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_bytes_of_a_statement_are_these_and_it_leaves_out_only_what_it_can() {
        let proof = RootProof {
            mesh: MeshId([1; 32]),
            migration: MigrationId([2; 16]),
            volume: VolumeId([3; 16]),
            epoch: Epoch(4),
            end: End::Source,
            length: 99,
            root: [5; 32],
            method: Method::Tracked,
            at: UnixSecs(6),
            left_out: LeftOut::new(vec![(7, 8), (20, 9)]).unwrap(),
            checkpoint: None,
        };
        let mut golden = vec![4];
        golden.extend([1; 32]);
        golden.extend([2; 16]);
        golden.extend([3; 16]);
        golden.extend([4, 0, 99]);
        golden.extend([5; 32]);
        golden.extend([3, 6, 2, 7, 8, 20, 9, 0]);
        assert_eq!(codec::encode(&proof).unwrap(), golden);
        assert_eq!(codec::decode::<RootProof>(&golden).unwrap(), proof);
        let last = golden.len() - 3;
        golden[last] = 10;
        assert!(codec::decode::<RootProof>(&golden).is_err(), "they overlap");
        assert!(proof.is_sound());
        let changed = |change: fn(&mut RootProof)| {
            let mut proof = proof.clone();
            change(&mut proof);
            proof.is_sound()
        };
        assert!(!changed(|proof| proof.end = End::Target));
        assert!(!changed(|proof| proof.length = 28));
        assert!(changed(|proof| proof.length = 29));
        let most = (0..16).map(|at| (u64::MAX - 100 + 2 * at, 1)).collect();
        let left_out = LeftOut::new(most).unwrap();
        assert!(codec::encode(&RootProof { left_out, ..proof }).is_ok());
    }
}
