//! The buffers of the agent's end: a fixed number, lent out with what was read
//! into them, and back home once the last slice of them was written.
//!
//! Not here: the replicator's payloads, which are plain bytes.

use std::ops::Range;
use std::sync::Arc;

use volumes::{AlignedBuf, READ_BLOCKS};

use super::disk::{Mailbox, ToDisk};

/// Room for one read and for what it is compressed to.
pub(super) struct Piece {
    /// What was read.
    pub(super) raw: AlignedBuf,
    /// Compressed extents, one behind the other.
    pub(super) packed: Vec<u8>,
}

impl Piece {
    pub(super) fn new() -> Self {
        let raw = AlignedBuf::new(READ_BLOCKS);
        let packed = vec![0; raw.bytes().len()];
        Self { raw, packed }
    }
}

/// Which bytes of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Raw(Range<usize>),
    Packed(Range<usize>),
}

/// A piece on its way to the stream.
pub(super) struct Lent {
    piece: Option<Piece>,
    home: Mailbox,
}

impl Lent {
    pub(super) fn new(piece: Piece, home: Mailbox) -> Arc<Self> {
        let piece = Some(piece);
        Arc::new(Self { piece, home })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(piece) = self.piece.take() {
            // Nobody is home once the session is over.
            let _ = self.home.send(ToDisk::Free(piece));
        }
    }
}

/// Bytes of a piece that is lent.
pub(super) struct Slice {
    lent: Arc<Lent>,
    part: Part,
}

impl Slice {
    pub(super) fn new(lent: &Arc<Lent>, part: Part) -> Self {
        let lent = lent.clone();
        Self { lent, part }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        let piece = self.lent.piece.as_ref();
        let piece = piece.expect("a piece leaves only when it is dropped");
        match &self.part {
            Part::Raw(range) => &piece.raw.bytes()[range.clone()],
            Part::Packed(range) => &piece.packed[range.clone()],
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.part {
            Part::Raw(range) | Part::Packed(range) => range.len(),
        }
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Slice").field(&self.part).finish()
    }
}
