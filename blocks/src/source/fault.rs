//! Why a session failed at the source.
//!
//! Not here: what is told to a person; the shell adds what to do next.

use thiserror::Error;

use crate::extent::BadExtent;
use crate::frame::{CloseReason, RefusalCode};
use crate::geometry::{BlockIndex, GroupIndex};
use crate::hash::Mark;

/// Why a session failed at the source.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The target ended it.
    #[error("the target refused: {code}")]
    Refused {
        /// Its reason.
        code: RefusalCode,
    },
    /// The stream ended.
    #[error("the stream ended: {reason}")]
    Closed {
        /// How.
        reason: CloseReason,
    },
    /// A frame that has no place here.
    #[error("unexpected {frame} frame while {stage}")]
    Unexpected {
        /// Which frame.
        frame: &'static str,
        /// The stage it came in.
        stage: &'static str,
    },
    /// The target acknowledged another barrier than the one that is next.
    #[error("the target acknowledged barrier {got}, barrier {expected} is next")]
    Barrier {
        /// Its barrier.
        got: u64,
        /// Ours.
        expected: u64,
    },
    /// The target acknowledged a barrier and has not answered an offer that came
    /// before it.
    #[error("the target acknowledged barrier {barrier} before it answered an offer under it")]
    Unanswered {
        /// The barrier.
        barrier: u64,
    },
    /// The target answered something else than what was offered.
    #[error("the target's answer at {first} is not one to the offer whose turn it is")]
    BadAnswer {
        /// The first block of its answer.
        first: BlockIndex,
    },
    /// The numbers of barriers are used up; no honest target gets there.
    #[error("no barrier can follow {barrier}")]
    BarriersExhausted {
        /// The last one.
        barrier: u64,
    },
    /// The two trees differ where they must not.
    #[error("mark at barrier {barrier} is {ours} here and {theirs} at the target")]
    MarkMismatch {
        /// The barrier.
        barrier: u64,
        /// Our mark.
        ours: Mark,
        /// The target's.
        theirs: Mark,
    },
    /// The target's marks of groups are not those asked for, or do not make
    /// that of its tree.
    #[error("the target's marks from {first} on do not fit its tree's")]
    BadGroups {
        /// The first group of the page.
        first: GroupIndex,
    },
    /// The target's leaves of a group do not make the mark it gave.
    #[error("the target's leaves of {group} do not fit its mark")]
    BadLeaves {
        /// The group.
        group: GroupIndex,
    },
    /// The statement is not about what was asked.
    #[error("the target's statement is not the one asked for")]
    WrongStatement,
    /// Our own shell reported an extent that cannot be.
    #[error("extent sent is not one")]
    Extent(#[from] BadExtent),
    /// Our own shell did something in the wrong stage.
    #[error("{input} is out of turn while {stage}")]
    OutOfTurn {
        /// What it did.
        input: &'static str,
        /// The stage.
        stage: &'static str,
    },
}
