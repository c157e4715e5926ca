//! One BLAKE3 tree over a whole volume, in three steps: leaves of blocks,
//! nodes of groups, the root. The root always equals `blake3::hash` of the
//! volume.
//!
//! BLAKE3's tree gives the left child the largest power of two of chunks that
//! leaves something for the right one. Blocks and groups hold powers of two of
//! chunks, so pairing them from left to right builds that same tree, with an
//! odd last one moving up unchanged (the BLAKE3 paper, section 2.1; subtrees
//! by `blake3::hazmat`). The position is mixed into every leaf.
//!
//! Where the tree has only one group its node is finished as the root, and
//! where it has only one block so is its leaf. That keeps one rule for callers:
//! leaves make nodes, nodes make the root.
//!
//! Not here: where leaves are stored, and what is compared without computing
//! any of this for zeros (`mark`).

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::geometry::{BLOCK_SIZE, BlockIndex, Geometry, GroupIndex};
use crate::hash::{Leaf, Node, Root};
use crate::mark::ZERO_ENTRY;

static ZERO_BLOCK: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];

/// Compared piece by piece, so that the zeros stay in the first-level cache.
const ZERO_PIECE: usize = 4096;

/// The leaf of one block, at about the speed of memory.
///
/// # Panics
/// When `data` is not exactly the block's bytes: its length is the caller's
/// own to get right (see [`Geometry::block_len`]).
pub fn leaf(geometry: Geometry, block: BlockIndex, data: &[u8]) -> Leaf {
    assert!(
        !data.is_empty() && data.len() == geometry.block_len(block),
        "{block} has {} bytes, not {}",
        geometry.block_len(block),
        data.len()
    );
    if geometry.blocks() == 1 {
        return Leaf(*blake3::hash(data).as_bytes());
    }
    let mut hasher = Hasher::new();
    hasher.set_input_offset(block.offset());
    Leaf(hasher.update(data).finalize_non_root())
}

/// The leaf the block has when all its bytes are zero. Costs as much as
/// hashing it: the position is part of it.
///
/// # Panics
/// When the block is outside the volume.
pub fn zero_leaf(geometry: Geometry, block: BlockIndex) -> Leaf {
    leaf(geometry, block, &ZERO_BLOCK[..geometry.block_len(block)])
}

/// The node of a group from all its entries in order, each a leaf or
/// [`ZERO_ENTRY`] for a block of zeros, whose leaf is then computed: about 18 µs
/// for a group without zeros, 4 ms for one of nothing else.
///
/// # Panics
/// When there are not exactly as many entries as the group has blocks.
pub fn group_node(geometry: Geometry, group: GroupIndex, entries: &[Leaf]) -> Node {
    let blocks = geometry.group_blocks(group);
    assert!(
        !entries.is_empty() && entries.len() as u64 == blocks.end - blocks.start,
        "{group} has {} blocks, not {}",
        blocks.end - blocks.start,
        entries.len()
    );
    let mut subtree = Subtree::default();
    for (entry, block) in entries.iter().zip(blocks) {
        let leaf = match *entry {
            ZERO_ENTRY => zero_leaf(geometry, BlockIndex(block)),
            leaf => leaf,
        };
        subtree.push(leaf.0);
    }
    Node(subtree.finish(geometry.groups() == 1))
}

/// The root from all group nodes in order: about 5 ms for a TiB.
///
/// # Panics
/// When there are not exactly as many nodes as the volume has groups.
pub fn root(geometry: Geometry, nodes: impl IntoIterator<Item = Node>) -> Root {
    let mut builder = RootBuilder::new(geometry);
    for node in nodes {
        builder.push(node);
    }
    builder
        .finish()
        .expect("the caller passes one node for each group")
}

/// Computes a root from group nodes as they come, in memory that grows
/// with the depth of the tree only.
#[derive(Debug, Clone)]
pub struct RootBuilder {
    groups: u64,
    subtree: Subtree,
}

impl RootBuilder {
    /// Nothing pushed yet.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            groups: geometry.groups(),
            subtree: Subtree::default(),
        }
    }

    /// Adds the node of the next group.
    pub fn push(&mut self, node: Node) {
        self.subtree.push(node.0);
    }

    /// How many nodes were pushed.
    pub fn pushed(&self) -> u64 {
        self.subtree.count
    }

    /// The root, or none unless every group was pushed exactly once.
    pub fn finish(self) -> Option<Root> {
        (self.subtree.count == self.groups).then(|| Root(self.subtree.finish(true)))
    }
}

/// Whether every byte is zero.
pub fn is_zero(data: &[u8]) -> bool {
    // Slice equality is the platform's memcmp, fast in every build profile.
    data.chunks(ZERO_PIECE)
        .all(|piece| piece == &ZERO_BLOCK[..piece.len()])
}

/// Complete subtrees still to be joined, largest first.
#[derive(Debug, Clone, Default)]
struct Subtree {
    stack: Vec<[u8; 32]>,
    count: u64,
}

impl Subtree {
    fn push(&mut self, value: [u8; 32]) {
        // Joined only now that something follows: the last join of all must
        // be the root's, and until here it could have been this one.
        while self.stack.len() > self.count.count_ones() as usize {
            self.join();
        }
        self.stack.push(value);
        self.count += 1;
    }

    fn join(&mut self) {
        let right = self.stack.pop().expect("more than one subtree is stacked");
        let left = self.stack.pop().expect("more than one subtree is stacked");
        self.stack
            .push(merge_subtrees_non_root(&left, &right, Mode::Hash));
    }

    fn finish(mut self, as_root: bool) -> [u8; 32] {
        while self.stack.len() > 2 || (self.stack.len() == 2 && !as_root) {
            self.join();
        }
        match self.stack.as_slice() {
            [left, right] => *merge_subtrees_root(left, right, Mode::Hash).as_bytes(),
            [only] => *only,
            _ => unreachable!("callers push at least one value"),
        }
    }
}

#[cfg(test)]
mod tests;
