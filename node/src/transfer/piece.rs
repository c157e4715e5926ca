//! The buffers of the agent's end: as many as a session's share allows, lent out with what
//! was read into them, and back home once the last slice of them was written. What was offered stays
//! in them until it is answered where it is most of one, and leaves them where it is not;
//! either way it is bounded by how much may be offered.
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
    /// Compressed extents, one behind the other. Empty until something is compressed.
    packed: Vec<u8>,
}

impl Piece {
    pub(super) fn new() -> Self {
        Self {
            raw: AlignedBuf::new(READ_BLOCKS),
            packed: Vec::new(),
        }
    }

    /// What was read, and as much room for what it is compressed to.
    pub(super) fn raw_and_room(&mut self) -> (&[u8], &mut [u8]) {
        let raw = self.raw.bytes();
        self.packed.resize(raw.len(), 0);
        (raw, &mut self.packed)
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

/// Bytes to be sent.
#[derive(Clone)]
pub(super) enum Slice {
    /// Of a piece that is lent.
    Lent(Arc<Lent>, Part),
    /// Of what was offered, or of a patch that was made of it.
    Own(Arc<Vec<u8>>, Range<usize>),
}

impl Slice {
    pub(super) fn new(lent: &Arc<Lent>, part: Part) -> Self {
        Self::Lent(lent.clone(), part)
    }

    /// All of these bytes.
    pub(super) fn own(bytes: Vec<u8>) -> Self {
        let all = 0..bytes.len();
        Self::Own(Arc::new(bytes), all)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Lent(lent, part) => {
                let piece = lent.piece.as_ref();
                let piece = piece.expect("a piece leaves only when it is dropped");
                match part {
                    Part::Raw(range) => &piece.raw.bytes()[range.clone()],
                    Part::Packed(range) => &piece.packed[range.clone()],
                }
            }
            Self::Own(bytes, range) => &bytes[range.clone()],
        }
    }

    /// Some of these bytes, where they lie.
    pub(super) fn cut(&self, range: Range<usize>) -> Self {
        assert!(range.end <= self.len(), "a cut is inside of what is cut");
        let within = |all: &Range<usize>| all.start + range.start..all.start + range.end;
        match self {
            Self::Lent(lent, Part::Raw(all)) => Self::Lent(lent.clone(), Part::Raw(within(all))),
            Self::Lent(lent, Part::Packed(all)) => {
                Self::Lent(lent.clone(), Part::Packed(within(all)))
            }
            Self::Own(bytes, all) => Self::Own(bytes.clone(), within(all)),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Lent(_, Part::Raw(range) | Part::Packed(range)) | Self::Own(_, range) => {
                range.len()
            }
        }
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Slice").field(&self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_cut_is_those_bytes_where_they_lie_and_keeps_its_piece_away_from_home() {
        let (home, requests) = mpsc::channel();
        let mut piece = Piece::new();
        piece.raw.bytes_mut()[..6].copy_from_slice(b"source");
        let (_, room) = piece.raw_and_room();
        room[2..8].copy_from_slice(b"packed");
        let lent = Lent::new(piece, home);
        let raw = Slice::new(&lent, Part::Raw(1..6));
        let packed = Slice::new(&lent, Part::Packed(2..8));
        drop(lent);
        assert_eq!(packed.cut(1..6).cut(1..3).bytes(), b"ck");
        let cut = raw.cut(2..5);
        assert_eq!((cut.bytes(), cut.len()), (&b"rce"[..], 3));
        drop((raw, packed));
        assert!(requests.try_recv().is_err(), "it is still lent");
        drop(cut);
        assert!(matches!(requests.try_recv(), Ok(ToDisk::Free(_))));

        let own = Slice::own(b"of its own".to_vec()).cut(3..10).cut(4..7);
        assert_eq!(own.bytes(), b"own");
    }

    #[test]
    #[should_panic(expected = "inside of what is cut")]
    fn nothing_is_cut_that_reaches_beyond_what_is_cut() {
        let piece = Slice::own(b"of its own".to_vec());
        drop(piece.cut(3..7).cut(0..5));
    }
}
