//! What the shells of both ends share: the stream, the fuse that kills them,
//! and storing an extent's leaves.

use std::collections::VecDeque;

use blocks::frame::PREFIX_LEN;
use blocks::source::SessionError;
use blocks::{Extent, FrameError, FramePrefix, ZERO_ENTRY};

use crate::disk::StoredTree;

/// Bytes on their way in one direction.
pub type Stream = VecDeque<u8>;

/// The machine died here.
#[derive(Debug)]
pub struct Died;

/// Kills after a number of deeds.
#[derive(Debug, Clone, Default)]
pub struct Fuse(Option<u64>);

impl Fuse {
    pub fn light(&mut self, deeds: u64) {
        self.0 = Some(deeds);
    }

    pub fn put_out(&mut self) {
        self.0 = None;
    }

    pub fn deed(&mut self) -> Result<(), Died> {
        match &mut self.0 {
            None => Ok(()),
            Some(0) => {
                self.0 = None;
                Err(Died)
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

/// A header and its payload.
pub type Frame = (Vec<u8>, Vec<u8>);

/// One whole frame from the stream: none if it is not all there, an error if
/// it can be none.
pub fn take_frame(stream: &mut Stream) -> Result<Option<Frame>, FrameError> {
    let bytes = &*stream.make_contiguous();
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_LEN>() else {
        return Ok(None);
    };
    let prefix = FramePrefix::decode(*prefix)?;
    let Some((header, rest)) = rest.split_at_checked(prefix.header) else {
        return Ok(None);
    };
    let Some((payload, _)) = rest.split_at_checked(prefix.payload) else {
        return Ok(None);
    };
    let frame = (header.to_vec(), payload.to_vec());
    stream.drain(..PREFIX_LEN + prefix.header + prefix.payload);
    Ok(Some(frame))
}

/// How a session of one end stands after a move.
#[derive(Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing could be done.
    Idle,
    /// Something was done.
    Moved,
    /// It is over; the source says why if it failed.
    Ended(Option<SessionError>),
}

/// Puts the entries of an extent into a tree.
pub fn store(tree: &mut StoredTree, extent: &Extent) {
    let first = extent.first().0;
    for at in 0..extent.count() {
        let entry = match extent {
            Extent::Zero { .. } => ZERO_ENTRY,
            Extent::Data { leaves, .. } => leaves[at as usize],
        };
        tree.set(first + at, entry);
    }
}
