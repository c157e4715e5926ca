//! Why a session failed at the target, and the code the source is told.
//!
//! Not here: what is told to a person; the shell adds what to do next.

use thiserror::Error;

use crate::extent::BadExtent;
use crate::frame::{CloseReason, RefusalCode};
use crate::geometry::GroupIndex;
use crate::hash::Root;

/// Why a session failed at the target.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetError {
    /// A frame that has no place here.
    #[error("unexpected {frame} frame while {stage}")]
    Unexpected {
        /// Which frame.
        frame: &'static str,
        /// The stage it came in.
        stage: &'static str,
    },
    /// The source's volume has another length.
    #[error("the source has {theirs} bytes, the target volume {ours}")]
    SizeMismatch {
        /// Our length in bytes.
        ours: u64,
        /// The source's.
        theirs: u64,
    },
    /// A question about groups that are not there.
    #[error("{count} groups asked for at {first} are not in the volume")]
    NoSuchGroups {
        /// The first group.
        first: GroupIndex,
        /// How many.
        count: u32,
    },
    /// An extent is out of bounds or not what its leaves say.
    #[error("extent refused")]
    Extent(#[from] BadExtent),
    /// A barrier that does not rise by one.
    #[error("barrier {got} came, barrier {expected} is next")]
    Barrier {
        /// The source's.
        got: u64,
        /// Ours.
        expected: u64,
    },
    /// More barriers, or more before a barrier, than a source may send.
    #[error("more was sent at barrier {barrier} than may be pending")]
    TooMuchPending {
        /// The last durable barrier.
        barrier: u64,
    },
    /// A pass that does not rise.
    #[error("pass {got} came after pass {last}")]
    Pass {
        /// The source's.
        got: u32,
        /// The one before.
        last: u32,
    },
    /// The root to be confirmed is another.
    #[error("root to confirm at barrier {barrier} is {theirs}, the volume's is {ours}")]
    RootDiffers {
        /// The last durable barrier.
        barrier: u64,
        /// Our root.
        ours: Root,
        /// The source's.
        theirs: Root,
    },
    /// The disk does not hold what was written to it.
    #[error("the volume reads back as {read}, {written} was written")]
    ReadBackDiffers {
        /// The root of what was written.
        written: Root,
        /// The root of what was read.
        read: Root,
    },
    /// Our storage failed; all since the last barrier is void.
    #[error("storage {}", if *full { "is full" } else { "failed" })]
    Storage {
        /// Whether for want of room.
        full: bool,
    },
    /// Ended from this side.
    #[error("ended here: {code}")]
    Withdrawn {
        /// Why.
        code: RefusalCode,
    },
    /// The stream ended.
    #[error("the stream ended: {reason}")]
    Closed {
        /// How.
        reason: CloseReason,
    },
    /// Our own shell did something in the wrong stage.
    #[error("{input} is out of turn while {stage}")]
    OutOfTurn {
        /// What it did.
        input: &'static str,
        /// The stage.
        stage: &'static str,
    },
}

impl TargetError {
    /// What the source is told; nothing when the stream is gone.
    pub fn code(&self) -> Option<RefusalCode> {
        Some(match self {
            Self::Extent(BadExtent::Mismatch { .. } | BadExtent::Undecodable { .. }) => {
                RefusalCode::BadData
            }
            Self::Unexpected { .. }
            | Self::NoSuchGroups { .. }
            | Self::Extent(_)
            | Self::Barrier { .. }
            | Self::TooMuchPending { .. }
            | Self::Pass { .. } => RefusalCode::BadFrame,
            Self::SizeMismatch { .. } => RefusalCode::SizeMismatch,
            Self::RootDiffers { .. } => RefusalCode::RootDiffers,
            Self::ReadBackDiffers { .. } => RefusalCode::ReadBackDiffers,
            Self::Storage { full: true } => RefusalCode::StorageFull,
            // A shell out of step no longer knows what it wrote.
            Self::Storage { full: false } | Self::OutOfTurn { .. } => RefusalCode::StorageFailed,
            Self::Withdrawn { code } => *code,
            Self::Closed { .. } => return None,
        })
    }

    /// Whether what was written before it can be trusted.
    pub(super) fn keeps_writes(&self) -> bool {
        !matches!(self, Self::Storage { .. } | Self::OutOfTurn { .. })
    }
}
