//! Why a change is not admitted, and whose fault that is.
//!
//! Not here: the checks (`parsed`, `admission`).

use super::MAX_CHANGES;
use crate::log::MAX_CHANGE;
use keys::PublicKey;

/// Why a change was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The signature is not the author's: the sender is at fault.
    #[error("the signature of {author:?} does not match the change")]
    Signature {
        /// The claimed author.
        author: PublicKey,
    },
    /// Larger than a change may be: the sender is at fault.
    #[error("a change of {bytes} bytes by {author:?} is over the limit of {MAX_CHANGE}")]
    TooLarge {
        /// The claimed author.
        author: PublicKey,
        /// Its size in bytes.
        bytes: usize,
    },
    /// The author signed bytes that are no change of this document.
    #[error("a change by {author:?} is malformed: {what}")]
    Malformed {
        /// The author.
        author: PublicKey,
        /// What is wrong.
        what: &'static str,
    },
    /// The author signed a change that breaks a rule of the document.
    #[error("change {seq} by {author:?} breaks a rule: {rule}")]
    Unsound {
        /// The author.
        author: PublicKey,
        /// Its number in the author's log.
        seq: u64,
        /// The rule.
        rule: &'static str,
    },
    /// The author was revoked, and this is not among what is honoured.
    #[error("change {seq} by {author:?} is past what is honoured of its author")]
    NotHonoured {
        /// The author.
        author: PublicKey,
        /// Its number in the author's log.
        seq: u64,
    },
    /// It passed every check and automerge failed on it all the same.
    #[error("change {seq} by {author:?} cannot be applied")]
    Failed {
        /// The author.
        author: PublicKey,
        /// Its number in the author's log.
        seq: u64,
    },
    /// Too much is waiting already; it may be offered again.
    #[error("no room to keep a change by {author:?} until what it needs has come")]
    NoRoom {
        /// The author.
        author: PublicKey,
    },
    /// Its author has made its edits again since, because what it depends on does not
    /// count.
    #[error("change {seq} by {author:?} was made again by its author")]
    MadeAgain {
        /// The author.
        author: PublicKey,
        /// Its number in the author's log.
        seq: u64,
    },
    /// The document is at its limit.
    #[error("the document is full ({MAX_CHANGES} changes)")]
    Full,
}

impl Refusal {
    /// Whether it costs the peer that sent it. An honest peer passes on neither,
    /// but may well pass on what a faulty operator signed.
    pub fn blames_sender(&self) -> bool {
        matches!(self, Self::Signature { .. } | Self::TooLarge { .. })
    }

    /// Who signed the change, or claims to have.
    pub fn author(&self) -> Option<PublicKey> {
        match self {
            Self::Signature { author }
            | Self::TooLarge { author, .. }
            | Self::Malformed { author, .. }
            | Self::Unsound { author, .. }
            | Self::NotHonoured { author, .. }
            | Self::Failed { author, .. }
            | Self::MadeAgain { author, .. }
            | Self::NoRoom { author } => Some(*author),
            Self::Full => None,
        }
    }

    /// Whether its author signed what no honest node signs. Who passed it on may not
    /// have known.
    pub fn blames_author(&self) -> bool {
        matches!(
            self,
            Self::Malformed { .. } | Self::Unsound { .. } | Self::Failed { .. }
        )
    }
}
