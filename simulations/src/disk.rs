//! Disks, and trees stored on them, as they behave when a machine dies: what was
//! not synced is there, not there, or there in part.
//!
//! Bytes are kept as one number for each 4 KiB page, from which the page is made;
//! 0 is a page of zeros. So a volume costs next to nothing and every hash is real.

use blocks::{BLOCK_SIZE, BlockIndex, Geometry, GroupIndex, Leaf, Mark, Root, ZERO_ENTRY};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::rng::Rng;

/// What a disk writes whole or not at all.
pub const PAGE_SIZE: usize = 4096;
/// Pages of a block.
pub const PAGES: usize = BLOCK_SIZE / PAGE_SIZE;

/// The content of one block.
pub type Content = [u64; PAGES];

/// A block of zeros.
pub const ZEROS: Content = [0; PAGES];

/// Leaves that are remembered, over all worlds of a run.
const MAX_LEAVES: usize = 100_000;

/// How a machine dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Death {
    /// The process is killed: what it wrote is still with the kernel.
    Process,
    /// The power goes: what was not synced is there, not there or torn.
    Power,
}

/// The bytes of a block of this content, as many as the block has.
pub fn bytes(geometry: Geometry, block: u64, content: &Content) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK_SIZE);
    for page in content {
        let end = bytes.len() + PAGE_SIZE;
        if *page != 0 {
            bytes.extend_from_slice(&page.to_le_bytes());
        }
        let filler = page.to_le_bytes()[0];
        bytes.resize(end, filler);
    }
    bytes.truncate(geometry.block_len(BlockIndex(block)));
    bytes
}

/// The content that made these bytes, of which a page has at least 8.
pub fn content(bytes: &[u8]) -> Content {
    let mut content = ZEROS;
    for (page, bytes) in content.iter_mut().zip(bytes.chunks(PAGE_SIZE)) {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[..8]);
        *page = u64::from_le_bytes(number);
    }
    content
}

thread_local! {
    static LEAVES: RefCell<HashMap<(u64, u64, Content), Leaf>> = RefCell::default();
}

/// What a stored tree holds of a block of this content, remembered: its leaf, or that it
/// is zero.
pub fn entry(geometry: Geometry, block: u64, content: &Content) -> Leaf {
    LEAVES.with_borrow_mut(|leaves| {
        if leaves.len() > MAX_LEAVES {
            leaves.clear();
        }
        *leaves
            .entry((geometry.length(), block, *content))
            .or_insert_with(|| {
                let bytes = bytes(geometry, block, content);
                match blocks::is_zero(&bytes) {
                    true => ZERO_ENTRY,
                    false => blocks::leaf(geometry, BlockIndex(block), &bytes),
                }
            })
    })
}

/// The hash of all bytes, computed without any tree of ours.
pub fn flat_root(geometry: Geometry, contents: &[Content]) -> Root {
    let mut hasher = blake3::Hasher::new();
    for (block, content) in (0..).zip(contents) {
        hasher.update(&bytes(geometry, block, content));
    }
    Root(*hasher.finalize().as_bytes())
}

/// A volume behind a cache.
#[derive(Debug, Clone)]
pub struct Disk {
    /// What a loss of power leaves.
    pub durable: Vec<Content>,
    /// What reads return.
    pub cached: Vec<Content>,
    unsynced: BTreeSet<u64>,
    /// What rotten blocks held before, for the checks.
    rotten: BTreeMap<u64, Content>,
}

impl Disk {
    /// A disk that holds this.
    pub fn new(contents: Vec<Content>) -> Self {
        Self {
            durable: contents.clone(),
            cached: contents,
            unsynced: BTreeSet::new(),
            rotten: BTreeMap::new(),
        }
    }

    /// Flips a bit of a block that is not being written; which one.
    pub fn rot(&mut self, rng: &mut Rng) -> Option<u64> {
        let block = rng.below(self.durable.len() as u64);
        if self.unsynced.contains(&block) {
            return None;
        }
        let at = block as usize;
        self.rotten.entry(block).or_insert(self.durable[at]);
        // The first page is there even in the shortest of last blocks.
        self.durable[at][0] ^= 1 << rng.below(64);
        self.cached[at] = self.durable[at];
        Some(block)
    }

    /// Whether a block is not what was written to it last.
    pub fn is_rotten(&self, block: u64) -> bool {
        self.rotten.contains_key(&block)
    }

    /// What would be durable if nothing had rotted.
    pub fn sound(&self) -> Vec<Content> {
        let mut contents = self.durable.clone();
        for (block, content) in &self.rotten {
            contents[*block as usize] = *content;
        }
        contents
    }

    /// Writes to the cache.
    pub fn write(&mut self, block: u64, content: Content) {
        self.cached[block as usize] = content;
        self.unsynced.insert(block);
        self.rotten.remove(&block);
    }

    /// Makes durable what was written.
    pub fn sync(&mut self) {
        for block in std::mem::take(&mut self.unsynced) {
            self.durable[block as usize] = self.cached[block as usize];
        }
    }

    /// Loses the machine; returns how many blocks were torn.
    pub fn die(&mut self, death: Death, rng: &mut Rng) -> u64 {
        let mut torn = 0;
        if death == Death::Process {
            return torn;
        }
        for block in std::mem::take(&mut self.unsynced) {
            let (old, new) = (self.durable[block as usize], self.cached[block as usize]);
            let left = match rng.below(4) {
                0 => old,
                1 => new,
                _ => {
                    torn += 1;
                    std::array::from_fn(|page| {
                        if rng.below(2) == 0 {
                            old[page]
                        } else {
                            new[page]
                        }
                    })
                }
            };
            self.durable[block as usize] = left;
            self.cached[block as usize] = left;
        }
        torn
    }
}

/// The entries of a volume behind a cache.
#[derive(Debug, Clone)]
pub struct StoredTree {
    geometry: Geometry,
    /// What reads return.
    pub cached: Vec<Leaf>,
    /// What a loss of power leaves.
    pub durable: Vec<Leaf>,
    /// Groups whose checksums do not match.
    damaged: BTreeSet<GroupIndex>,
}

impl StoredTree {
    /// The tree of these contents.
    pub fn of(geometry: Geometry, contents: &[Content]) -> Self {
        let entries: Vec<Leaf> = (0..)
            .zip(contents)
            .map(|(block, content)| entry(geometry, block, content))
            .collect();
        Self {
            geometry,
            durable: entries.clone(),
            cached: entries,
            damaged: BTreeSet::new(),
        }
    }

    /// Flips a bit of a stored leaf; which one.
    pub fn rot(&mut self, rng: &mut Rng) -> u64 {
        let block = rng.below(self.durable.len() as u64);
        let leaf = &mut self.durable[block as usize];
        leaf.0[rng.index(leaf.0.len())] ^= 1 << rng.below(8);
        self.cached[block as usize] = *leaf;
        self.damaged.insert(BlockIndex(block).group());
        block
    }

    /// Whether the checksum of a block's group does not match.
    pub fn is_damaged(&self, block: u64) -> bool {
        self.damaged.contains(&BlockIndex(block).group())
    }

    /// The groups whose checksums do not match.
    pub fn damaged(&self) -> impl Iterator<Item = GroupIndex> {
        self.damaged.iter().copied()
    }

    /// The groups whose checksums do not match; whoever asks has replaced their leaves,
    /// or does so at once.
    pub fn take_damaged(&mut self) -> BTreeSet<GroupIndex> {
        std::mem::take(&mut self.damaged)
    }

    /// The tree of a volume of zeros.
    pub fn blank(geometry: Geometry) -> Self {
        Self::of(geometry, &vec![ZEROS; geometry.blocks() as usize])
    }

    /// The volume it is of.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Changes one entry in the cache.
    pub fn set(&mut self, block: u64, entry: Leaf) {
        self.cached[block as usize] = entry;
    }

    /// Changes the entries of an extent in the cache.
    pub fn store(&mut self, extent: &blocks::Extent) {
        let first = extent.first().0;
        for at in 0..extent.count() {
            let entry = match extent {
                blocks::Extent::Zero { .. } => ZERO_ENTRY,
                blocks::Extent::Data { leaves, .. } => leaves[at as usize],
            };
            self.set(first + at, entry);
        }
    }

    /// Makes durable what was changed.
    pub fn sync(&mut self) {
        self.durable.clone_from(&self.cached);
    }

    /// Loses the machine.
    pub fn die(&mut self, death: Death, rng: &mut Rng) {
        if death == Death::Process {
            return;
        }
        for (durable, cached) in self.durable.iter_mut().zip(&mut self.cached) {
            if durable != cached && rng.below(2) == 0 {
                *durable = *cached;
            }
            *cached = *durable;
        }
    }

    /// The entries of a group.
    pub fn entries(&self, group: GroupIndex) -> &[Leaf] {
        let blocks = self.geometry.group_blocks(group);
        &self.cached[blocks.start as usize..blocks.end as usize]
    }

    /// The marks of some groups.
    pub fn marks(&self, first: GroupIndex, count: u32) -> Vec<Mark> {
        (first.0..first.0 + u64::from(count))
            .map(|group| blocks::group_mark(self.entries(GroupIndex(group))))
            .collect()
    }

    /// The mark of what reads return.
    pub fn mark(&self) -> Mark {
        let groups = u32::try_from(self.geometry.groups()).expect("the world's volumes are small");
        blocks::tree_mark(self.geometry, self.marks(GroupIndex(0), groups))
    }

    /// The root of what reads return.
    pub fn root(&self) -> Root {
        let groups = (0..self.geometry.groups()).map(GroupIndex);
        let nodes =
            groups.map(|group| blocks::group_node(self.geometry, group, self.entries(group)));
        blocks::root(self.geometry, nodes)
    }
}
