//! What a disk and a stored tree keep when their machine dies. A block's
//! content is a number from which its bytes are made: each of its hexadecimal
//! digits is what one piece of the block holds, and 0 is all zeros.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use blocks::{
    BLOCK_PIECES, BlockIndex, Geometry, GroupIndex, Leaf, Mark, PIECE_SIZE, Root, ZERO_ENTRY,
};

use crate::chance::Chance;

pub type Content = u64;

/// What is left of a content in a block that has only so many pieces.
pub fn fitted(geometry: Geometry, block: u64, content: Content) -> Content {
    match geometry.block_pieces(BlockIndex(block)) {
        BLOCK_PIECES => content,
        pieces => content & ((1 << (4 * pieces)) - 1),
    }
}

/// A content like no other, for each number.
pub fn unlike(number: u64) -> Content {
    Chance::new(number as u32).next()
}

/// A content of which each piece is one of the other two's, or neither's.
pub fn mixed(one: Content, other: Content, chance: &mut Chance) -> Content {
    let digit = |at: usize| 0xf << (4 * at);
    (0..BLOCK_PIECES).fold(0, |mixed, at| {
        let from = [one, other, one, other, chance.next()][chance.below(5) as usize];
        mixed | from & digit(at)
    })
}

/// The bytes of a block with this content.
pub fn bytes(geometry: Geometry, block: u64, content: Content) -> Vec<u8> {
    let len = geometry.block_len(BlockIndex(block));
    let mut bytes = vec![0; len];
    for (at, piece) in bytes.chunks_mut(PIECE_SIZE).enumerate() {
        piece.fill((content >> (4 * at) & 0xf) as u8 * 0x11);
    }
    bytes
}

/// The content that made these bytes.
pub fn content(bytes: &[u8]) -> Content {
    let pieces = bytes.chunks(PIECE_SIZE).enumerate();
    pieces.fold(0, |content, (at, piece)| {
        content | u64::from(piece[0] & 0xf) << (4 * at)
    })
}

thread_local! {
    static LEAVES: RefCell<HashMap<(u64, u64, Content), Leaf>> = RefCell::default();
}

/// The leaf of a block with this content, remembered.
pub fn leaf(geometry: Geometry, block: u64, content: Content) -> Leaf {
    LEAVES.with_borrow_mut(|leaves| {
        if leaves.len() > 100_000 {
            leaves.clear();
        }
        *leaves
            .entry((geometry.length(), block, content))
            .or_insert_with(|| {
                let bytes = bytes(geometry, block, content);
                blocks::leaf(geometry, BlockIndex(block), &bytes)
            })
    })
}

/// What a stored tree holds of a block with this content.
pub fn entry(geometry: Geometry, block: u64, content: Content) -> Leaf {
    match content {
        0 => ZERO_ENTRY,
        content => leaf(geometry, block, content),
    }
}

/// How a machine dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The process is killed: what it wrote is still with the kernel.
    Process,
    /// The power goes: what was not synced is there, not there or torn.
    Power,
}

/// A volume behind a cache.
#[derive(Debug, Clone)]
pub struct Disk {
    geometry: Geometry,
    pub durable: Vec<Content>,
    pub cached: Vec<Content>,
    unsynced: BTreeSet<u64>,
}

impl Disk {
    pub fn new(geometry: Geometry, contents: Vec<Content>) -> Self {
        Self {
            geometry,
            durable: contents.clone(),
            cached: contents,
            unsynced: BTreeSet::new(),
        }
    }

    pub fn write(&mut self, block: u64, content: Content) {
        self.cached[block as usize] = content;
        self.unsynced.insert(block);
    }

    pub fn sync(&mut self) {
        for block in std::mem::take(&mut self.unsynced) {
            self.durable[block as usize] = self.cached[block as usize];
        }
    }

    pub fn die(&mut self, death: Death, chance: &mut Chance) {
        if death == Death::Process {
            return;
        }
        for block in std::mem::take(&mut self.unsynced) {
            let at = block as usize;
            self.durable[at] = match chance.below(3) {
                0 => self.durable[at],
                1 => self.cached[at],
                _ => {
                    let torn = mixed(self.durable[at], self.cached[at], chance);
                    fitted(self.geometry, block, torn)
                }
            };
            self.cached[at] = self.durable[at];
        }
    }
}

/// A stored tree behind a cache.
#[derive(Debug, Clone)]
pub struct StoredTree {
    geometry: Geometry,
    pub cached: Vec<Leaf>,
    durable: Vec<Leaf>,
}

impl StoredTree {
    pub fn of(geometry: Geometry, contents: &[Content]) -> Self {
        let entries: Vec<Leaf> = (0..)
            .zip(contents)
            .map(|(block, content)| entry(geometry, block, *content))
            .collect();
        Self {
            geometry,
            durable: entries.clone(),
            cached: entries,
        }
    }

    pub fn set(&mut self, block: u64, entry: Leaf) {
        self.cached[block as usize] = entry;
    }

    pub fn sync(&mut self) {
        self.durable.clone_from(&self.cached);
    }

    pub fn die(&mut self, death: Death, chance: &mut Chance) {
        if death == Death::Process {
            return;
        }
        for (durable, cached) in self.durable.iter_mut().zip(&mut self.cached) {
            if durable != cached && chance.one_in(2) {
                *durable = *cached;
            }
            *cached = *durable;
        }
    }

    pub fn entries(&self, group: GroupIndex) -> &[Leaf] {
        let blocks = self.geometry.group_blocks(group);
        &self.cached[blocks.start as usize..blocks.end as usize]
    }

    pub fn marks(&self, first: GroupIndex, count: u32) -> Vec<Mark> {
        (first.0..first.0 + u64::from(count))
            .map(|group| blocks::group_mark(self.entries(GroupIndex(group))))
            .collect()
    }

    pub fn mark(&self) -> Mark {
        let marks = self.marks(GroupIndex(0), self.geometry.groups() as u32);
        blocks::tree_mark(self.geometry, marks)
    }

    pub fn root(&self) -> Root {
        let nodes = (0..self.geometry.groups()).map(GroupIndex).map(|group| {
            let entries = self.entries(group);
            blocks::group_node(self.geometry, group, entries)
        });
        blocks::root(self.geometry, nodes)
    }
}
