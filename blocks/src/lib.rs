//! Volumes as 64 KiB blocks under one BLAKE3 tree, and the sessions that move
//! them: geometry, hashes, dirty sets, frames, and a state machine for each
//! end of a transfer; and the frames of a speed check.
//!
//! Not here: reading or writing a disk, compressing, timers, sockets. A shell
//! does those and feeds these types what it saw.

#![forbid(unsafe_code)]

pub mod dirty;
pub mod extent;
pub mod fingerprint;
pub mod frame;
pub mod geometry;
pub mod hash;
pub mod mark;
pub mod offer;
pub mod pace;
pub mod patch;
pub mod piece;
pub mod source;
pub mod speed;
pub mod swap_area;
pub mod target;
pub mod tracking;
pub mod tree;

pub use dirty::DirtySet;
pub use extent::{
    BARRIER_BLOCKS, BadExtent, CheckedExtent, Extent, ExtentCheck, MAX_BARRIERS, MAX_EXTENT_BLOCKS,
    MAX_ZERO_BLOCKS, check_extent, check_zero, extent_len,
};
pub use fingerprint::{Fingerprint, fingerprint};
pub use frame::{CloseReason, Encoding, FrameError, FramePrefix, RefusalCode, ToSource, ToTarget};
pub use geometry::{
    BLOCK_PIECES, BLOCK_SIZE, BlockIndex, GROUP_BLOCKS, Geometry, GeometryError, GroupIndex,
    MAX_LENGTH, PIECE_SIZE,
};
pub use hash::{Leaf, Mark, Node, ParseHashError, Root};
pub use mark::{BLANK_MARK, MarkBuilder, ZERO_ENTRY, group_mark, tree_mark};
pub use offer::{Held, MAX_OPEN_BLOCKS, OfferGauge, Parcel, Remainder, remainder};
pub use pace::{LEAST_LIMIT, Pacing, piece_of};
pub use patch::Patch;
pub use piece::{PieceHash, PieceSet, piece_hashes};
pub use source::Source;
pub use swap_area::{MAX_SWAP_AREAS, SwapArea};
pub use target::Target;
pub use tree::{RootBuilder, group_node, is_zero, leaf, root, zero_leaf};
