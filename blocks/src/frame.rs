//! What the two ends of a transfer say to each other, and how it lies on the
//! wire:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the header, u32 little endian, 1 to [`MAX_HEADER`] |
//! | 4 | length of the payload, u32 little endian, 0 to [`MAX_PAYLOAD`] |
//! | … | header: a [`ToTarget`] or [`ToSource`] in the wire encoding |
//! | … | payload: bytes of an extent or a patch, never passed through the encoding |
//!
//! One enum for each direction. Decoding is total: lengths are checked before
//! anything is read, counts before anything is used, and only a data extent or
//! a patch may carry a payload.
//!
//! Not here: what may be said when (see `source` and `target`), and whether an
//! extent lies in the volume.

use codec::{DecodeError, EncodeError, Wire};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::extent::{MAX_EXTENT_BLOCKS, MAX_ZERO_BLOCKS};
use crate::fingerprint::Fingerprint;
use crate::geometry::{BLOCK_PIECES, BLOCK_SIZE, BlockIndex, GROUP_BLOCKS, GroupIndex, PIECE_SIZE};
use crate::hash::{Leaf, Mark, Root};
use crate::offer::Held;
use crate::piece::PieceSet;

/// Bytes of a frame before its header.
pub const PREFIX_LEN: usize = 8;

/// The longest header, in bytes: a page of marks or a ticket, twice over.
pub const MAX_HEADER: usize = 64 * 1024;

/// The longest payload, in bytes: a full extent and room for what zstd adds
/// when bytes do not compress.
pub const MAX_PAYLOAD: usize = 1024 * 1024 + 64 * 1024;

/// The longest ticket, in bytes; leaves room for the rest of its header.
pub const MAX_TICKET: usize = 32 * 1024;

/// The longest proof, in bytes.
pub const MAX_PROOF: usize = 32 * 1024;

/// Marks of groups asked for, or given, in one frame at most: 32 KiB of them.
pub const MAX_GROUPS_PER_FRAME: u32 = 1024;

/// How the payload of a data extent or a patch is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Encoding {
    /// The bytes as they are.
    Raw,
    /// One zstd frame of all of them.
    Zstd,
}

/// What a source says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToTarget {
    /// The first frame: who may do this, and where the source stands.
    Open {
        /// The credential, opaque here; at most [`MAX_TICKET`] bytes.
        ticket: Vec<u8>,
        /// The volume's length in bytes.
        length: u64,
        /// The last barrier the source knows to be durable.
        barrier: u64,
        /// The mark of the source's stored tree.
        mark: Mark,
    },
    /// Asks for the marks of groups.
    AskGroups {
        /// The first group.
        first: GroupIndex,
        /// How many, 1 to [`MAX_GROUPS_PER_FRAME`].
        count: u32,
    },
    /// Asks for the entries of one group.
    AskLeaves {
        /// The group.
        group: GroupIndex,
    },
    /// Extents follow.
    BeginPass {
        /// The number of the pass, for people; it rises within a session.
        pass: u32,
    },
    /// Bytes for a run of blocks, as payload.
    Extent {
        /// The first block.
        first: BlockIndex,
        /// How the payload is stored.
        encoding: Encoding,
        /// One leaf for each block, 1 to [`MAX_EXTENT_BLOCKS`].
        leaves: Vec<Leaf>,
        /// None, or one for each block. A target may remember them; they are
        /// not believed.
        fingerprints: Vec<Fingerprint>,
    },
    /// Zeros for a run of blocks.
    Zero {
        /// The first block.
        first: BlockIndex,
        /// How many blocks, 1 to [`MAX_ZERO_BLOCKS`].
        count: u32,
    },
    /// These blocks differ: asks what the target holds of them, before bytes
    /// are sent.
    Offer {
        /// The first block.
        first: BlockIndex,
        /// One leaf for each block, 1 to [`MAX_EXTENT_BLOCKS`].
        leaves: Vec<Leaf>,
        /// None, or one for each block.
        fingerprints: Vec<Fingerprint>,
    },
    /// Some pieces for a run of blocks, as payload: one behind the other.
    Patch {
        /// The first block.
        first: BlockIndex,
        /// How the payload is stored.
        encoding: Encoding,
        /// One leaf for each block once it is patched, 1 to
        /// [`MAX_EXTENT_BLOCKS`].
        leaves: Vec<Leaf>,
        /// The pieces of each block that follow, at least one.
        pieces: Vec<PieceSet>,
    },
    /// Asks that all extents so far be made durable.
    Barrier {
        /// One above the barrier before.
        barrier: u64,
    },
    /// Asks for a signed statement about the volume as it is now.
    Finish {
        /// The last durable barrier.
        barrier: u64,
        /// The root expected.
        root: Root,
        /// Whether the volume is to be read back in full first.
        read_back: bool,
    },
    /// Nothing more is coming.
    Close,
}

/// What a target says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSource {
    /// The session is open; where the target stands.
    Opened {
        /// The target's last durable barrier.
        barrier: u64,
        /// The mark of what the target durably holds.
        mark: Mark,
        /// Whether the target keeps an index of content: it wants fingerprints
        /// with extents and offers.
        references: bool,
    },
    /// The session is over.
    Refused {
        /// Why.
        code: RefusalCode,
    },
    /// Marks of groups asked for.
    Groups {
        /// The first group.
        first: GroupIndex,
        /// The marks in order, 1 to [`MAX_GROUPS_PER_FRAME`].
        marks: Vec<Mark>,
    },
    /// Entries asked for.
    Leaves {
        /// The group.
        group: GroupIndex,
        /// One for each block of the group: its leaf, or
        /// [`ZERO_ENTRY`](crate::ZERO_ENTRY) for a block of zeros.
        entries: Vec<Leaf>,
    },
    /// What the target holds of the oldest offer that has no answer yet.
    Answer {
        /// The first block of the offer.
        first: BlockIndex,
        /// One for each of its blocks.
        held: Vec<Held>,
    },
    /// Every extent before this barrier is durable.
    Durable {
        /// The barrier.
        barrier: u64,
        /// The mark of what the target durably holds at this barrier.
        mark: Mark,
    },
    /// The statement asked for.
    Finished {
        /// The root of the volume.
        root: Root,
        /// Whether the volume was read back in full to tell.
        read_back: bool,
        /// The signed statement, opaque here; at most [`MAX_PROOF`] bytes.
        proof: Vec<u8>,
    },
}

/// Why a target ended the session. A peer gets a code, never our text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Error)]
pub enum RefusalCode {
    /// The ticket does not allow this.
    #[error("not authorised")]
    NotAuthorised,
    /// The ticket has expired.
    #[error("the grant has expired")]
    Expired,
    /// The ticket was revoked.
    #[error("the grant was revoked")]
    Revoked,
    /// The ticket is for another volume.
    #[error("the grant is for another volume")]
    WrongVolume,
    /// A later epoch of this volume was seen.
    #[error("a later epoch of the volume was seen")]
    StaleEpoch,
    /// The target's volume is not there yet.
    #[error("the target volume is not ready")]
    NotReady,
    /// The target's volume has another length.
    #[error("the target volume has another length")]
    SizeMismatch,
    /// Another session holds the volume.
    #[error("another session holds the target volume")]
    Busy,
    /// A frame was malformed, out of turn or out of bounds.
    #[error("a frame was malformed or out of turn")]
    BadFrame,
    /// An extent's bytes did not hash to its leaves.
    #[error("an extent did not hash to its leaves")]
    BadData,
    /// The root to be confirmed is not the target's.
    #[error("the target's root is another")]
    RootDiffers,
    /// The volume read back is not what was written.
    #[error("the target volume read back differs")]
    ReadBackDiffers,
    /// No room at the target.
    #[error("the target's storage is full")]
    StorageFull,
    /// The target's storage failed; all since the last barrier is void.
    #[error("the target's storage failed")]
    StorageFailed,
    /// The migration is paused at the target.
    #[error("the migration is paused")]
    Paused,
    /// The target is shutting down; try again.
    #[error("the target is shutting down")]
    ShuttingDown,
    /// The target does not know what was asked.
    #[error("not supported by the target")]
    Unsupported,
    /// The target holds no lease of the grant: it has not heard from an operator.
    #[error("the target has not heard from an operator's node for too long")]
    NoLease,
}

/// How the stream under a session ended, as the shell saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Error)]
pub enum CloseReason {
    /// The peer ended it.
    #[error("the peer closed the stream")]
    ByPeer,
    /// The connection broke.
    #[error("the connection broke")]
    Lost,
    /// Nothing came for longer than the shell waits.
    #[error("the peer fell silent")]
    Silent,
    /// Bytes came that are not a frame.
    #[error("the peer sent bytes that are not a frame")]
    Garbled,
    /// This side ended it at once.
    #[error("cancelled here")]
    Cancelled,
}

/// Why bytes are not a frame, or a frame cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A header of no bytes or of too many.
    #[error("frame header of {bytes} bytes is not of 1 to {MAX_HEADER}")]
    HeaderLength {
        /// The length it claims.
        bytes: u64,
    },
    /// A payload of too many bytes.
    #[error("frame payload of {bytes} bytes is above {MAX_PAYLOAD}")]
    PayloadLength {
        /// The length it claims.
        bytes: u64,
    },
    /// The header does not decode.
    #[error("frame header does not decode")]
    Header(#[from] DecodeError),
    /// The header does not encode.
    #[error("frame header does not encode")]
    Encode(#[from] EncodeError),
    /// A count or an opaque part is empty or above its limit.
    #[error("{what} of {count} is not of 1 to {limit}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        count: u64,
        /// How many there may be.
        limit: u64,
    },
    /// What comes with each block is not as much as there are blocks.
    #[error("{count} {what} for {blocks} blocks")]
    Unmatched {
        /// What comes with each block.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// For how many blocks.
        blocks: usize,
    },
    /// A payload where there is none, none where there must be one, or one of
    /// the wrong size.
    #[error("{frame} frame with a payload of {bytes} bytes")]
    Payload {
        /// Which frame.
        frame: &'static str,
        /// Its payload's length.
        bytes: usize,
    },
}

/// The lengths at the start of every frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePrefix {
    /// Bytes of header, 1 to [`MAX_HEADER`].
    pub header: usize,
    /// Bytes of payload, 0 to [`MAX_PAYLOAD`].
    pub payload: usize,
}

impl FramePrefix {
    /// Reads the lengths, before anything is allocated for them.
    ///
    /// # Errors
    /// When one is out of bounds.
    pub fn decode(bytes: [u8; PREFIX_LEN]) -> Result<Self, FrameError> {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self::new(
            u32::from_le_bytes([a, b, c, d]) as usize,
            u32::from_le_bytes([e, f, g, h]) as usize,
        )
    }

    /// The lengths as they lie on the wire.
    pub fn encode(self) -> [u8; PREFIX_LEN] {
        let [a, b, c, d] = (self.header as u32).to_le_bytes();
        let [e, f, g, h] = (self.payload as u32).to_le_bytes();
        [a, b, c, d, e, f, g, h]
    }

    fn new(header: usize, payload: usize) -> Result<Self, FrameError> {
        if header == 0 || header > MAX_HEADER {
            let bytes = header as u64;
            return Err(FrameError::HeaderLength { bytes });
        }
        if payload > MAX_PAYLOAD {
            let bytes = payload as u64;
            return Err(FrameError::PayloadLength { bytes });
        }
        Ok(Self { header, payload })
    }
}

impl Wire for ToTarget {
    const NAME: &'static str = "frame to a target";
    const VERSION: u8 = 3;
    const LIMIT: usize = MAX_HEADER;
}

impl Wire for ToSource {
    const NAME: &'static str = "frame to a source";
    const VERSION: u8 = 3;
    const LIMIT: usize = MAX_HEADER;
}

impl ToTarget {
    /// What the frame is called in errors and traces.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::AskGroups { .. } => "ask-groups",
            Self::AskLeaves { .. } => "ask-leaves",
            Self::BeginPass { .. } => "begin-pass",
            Self::Extent { .. } => "extent",
            Self::Zero { .. } => "zero",
            Self::Offer { .. } => "offer",
            Self::Patch { .. } => "patch",
            Self::Barrier { .. } => "barrier",
            Self::Finish { .. } => "finish",
            Self::Close => "close",
        }
    }

    /// The prefix and the header, to be followed on the wire by `payload`
    /// bytes (0 for all but a data extent and a patch).
    ///
    /// # Errors
    /// When the frame breaks a limit.
    pub fn encode(&self, payload: usize) -> Result<Vec<u8>, FrameError> {
        self.check(payload)?;
        framed(codec::encode(self)?, payload)
    }

    /// Reads a header whose frame has `payload` bytes of payload.
    ///
    /// # Errors
    /// When it does not decode or breaks a limit.
    pub fn decode(header: &[u8], payload: usize) -> Result<Self, FrameError> {
        let frame: Self = codec::decode(header)?;
        frame.check(payload)?;
        Ok(frame)
    }

    fn check(&self, payload: usize) -> Result<(), FrameError> {
        match self {
            Self::Open { ticket, .. } => at_most("ticket bytes", ticket.len(), MAX_TICKET)?,
            Self::AskGroups { count, .. } => {
                counted("groups", u64::from(*count), MAX_GROUPS_PER_FRAME.into())?;
            }
            Self::Extent {
                encoding,
                leaves,
                fingerprints,
                ..
            } => {
                extent_blocks(leaves, fingerprints)?;
                let full = leaves.len() * BLOCK_SIZE;
                return bytes_payload(self.name(), *encoding, (full, BLOCK_SIZE), payload);
            }
            Self::Zero { count, .. } => {
                counted("zero blocks", u64::from(*count), MAX_ZERO_BLOCKS.into())?;
            }
            Self::Offer {
                leaves,
                fingerprints,
                ..
            } => extent_blocks(leaves, fingerprints)?,
            Self::Patch {
                encoding,
                leaves,
                pieces,
                ..
            } => {
                extent_blocks(leaves, &[])?;
                matched("sets of pieces", pieces.len(), leaves.len())?;
                let sets = pieces.iter().map(|set| set.count());
                let fewest = sets.clone().min().unwrap_or(0) as u64;
                counted("pieces", fewest, BLOCK_PIECES as u64)?;
                let full = sets.sum::<usize>() * PIECE_SIZE;
                return bytes_payload(self.name(), *encoding, (full, PIECE_SIZE), payload);
            }
            Self::AskLeaves { .. }
            | Self::BeginPass { .. }
            | Self::Barrier { .. }
            | Self::Finish { .. }
            | Self::Close => {}
        }
        no_payload(self.name(), payload)
    }
}

impl ToSource {
    /// What the frame is called in errors and traces.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::Refused { .. } => "refused",
            Self::Groups { .. } => "groups",
            Self::Leaves { .. } => "leaves",
            Self::Answer { .. } => "answer",
            Self::Durable { .. } => "durable",
            Self::Finished { .. } => "finished",
        }
    }

    /// The whole frame: no frame to a source has a payload.
    ///
    /// # Errors
    /// When the frame breaks a limit.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        self.check(0)?;
        framed(codec::encode(self)?, 0)
    }

    /// Reads a header whose frame has `payload` bytes of payload.
    ///
    /// # Errors
    /// When it does not decode or breaks a limit, and when there is a payload.
    pub fn decode(header: &[u8], payload: usize) -> Result<Self, FrameError> {
        let frame: Self = codec::decode(header)?;
        frame.check(payload)?;
        Ok(frame)
    }

    fn check(&self, payload: usize) -> Result<(), FrameError> {
        match self {
            Self::Groups { marks, .. } => {
                counted("groups", marks.len() as u64, MAX_GROUPS_PER_FRAME.into())?;
            }
            Self::Leaves { entries, .. } => {
                counted("group leaves", entries.len() as u64, GROUP_BLOCKS)?;
            }
            Self::Answer { held, .. } => {
                let blocks = held.len() as u64;
                counted("blocks answered for", blocks, MAX_EXTENT_BLOCKS.into())?;
                for held in held {
                    if let Held::Pieces(hashes) = held {
                        counted("hashes of pieces", hashes.len() as u64, BLOCK_PIECES as u64)?;
                    }
                }
            }
            Self::Finished { proof, .. } => at_most("proof bytes", proof.len(), MAX_PROOF)?,
            Self::Opened { .. } | Self::Refused { .. } | Self::Durable { .. } => {}
        }
        no_payload(self.name(), payload)
    }
}

pub(crate) fn framed(header: Vec<u8>, payload: usize) -> Result<Vec<u8>, FrameError> {
    let prefix = FramePrefix::new(header.len(), payload)?;
    let mut bytes = prefix.encode().to_vec();
    bytes.extend_from_slice(&header);
    Ok(bytes)
}

fn counted(what: &'static str, count: u64, limit: u64) -> Result<(), FrameError> {
    if count == 0 || count > limit {
        return Err(FrameError::Count { what, count, limit });
    }
    Ok(())
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), FrameError> {
    // An empty ticket or proof is well formed; whether it is any good is for
    // those who read it.
    counted(what, count.max(1) as u64, limit as u64)
}

pub(crate) fn no_payload(frame: &'static str, bytes: usize) -> Result<(), FrameError> {
    if bytes > 0 {
        return Err(FrameError::Payload { frame, bytes });
    }
    Ok(())
}

fn matched(what: &'static str, count: usize, blocks: usize) -> Result<(), FrameError> {
    if count != blocks {
        return Err(FrameError::Unmatched {
            what,
            count,
            blocks,
        });
    }
    Ok(())
}

fn extent_blocks(leaves: &[Leaf], fingerprints: &[Fingerprint]) -> Result<(), FrameError> {
    let blocks = leaves.len() as u64;
    counted("extent blocks", blocks, MAX_EXTENT_BLOCKS.into())?;
    if fingerprints.is_empty() {
        return Ok(());
    }
    matched("fingerprints", fingerprints.len(), leaves.len())
}

/// Checks a payload that decodes to `full` bytes: only the last of the parts that
/// it is made of may be short, where the volume ends, and by less than itself.
fn bytes_payload(
    frame: &'static str,
    encoding: Encoding,
    (full, part): (usize, usize),
    bytes: usize,
) -> Result<(), FrameError> {
    let fits = match encoding {
        Encoding::Raw => bytes <= full && bytes > full - part,
        Encoding::Zstd => bytes > 0 && bytes <= MAX_PAYLOAD,
    };
    if !fits {
        return Err(FrameError::Payload { frame, bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
