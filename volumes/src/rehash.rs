//! Reading volumes to find out what they hold: one group after a crash, or
//! all of it as proof. It trusts no stored hash, and stores only what the
//! caller asks to have replaced.

use blocks::{
    BlockIndex, Geometry, GroupIndex, Leaf, Root, RootBuilder, ZERO_ENTRY, group_node, is_zero,
    leaf,
};

use crate::{AlignedBuf, READ_BLOCKS, ReadError, TreeError, TreeFile};

/// A volume that can be read block by block: a source or a target.
pub trait ReadBlocks {
    /// Its cut into blocks.
    fn geometry(&self) -> Geometry;

    /// Reads `count` blocks from `first` on into `buf` and gives the bytes
    /// read, fewer than `count` blocks' only where the volume's last block is
    /// short.
    ///
    /// # Errors
    /// When the blocks are not in the volume or do not fit `buf`, or any byte
    /// of them cannot be read; the error names path and offset.
    fn read_blocks<'b>(
        &self,
        first: BlockIndex,
        count: u64,
        buf: &'b mut AlignedBuf,
    ) -> Result<&'b [u8], ReadError>;
}

/// Why a group could not be hashed again.
#[derive(Debug, thiserror::Error)]
pub enum RehashError {
    /// The volume could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The tree could not be changed.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Reads all blocks of a group and gives an entry for each: its leaf, or
/// [`ZERO_ENTRY`] for a block of zeros.
///
/// # Errors
/// When the group cannot be read.
pub fn read_entries(
    volume: &impl ReadBlocks,
    group: GroupIndex,
    buf: &mut AlignedBuf,
) -> Result<Vec<Leaf>, ReadError> {
    let geometry = volume.geometry();
    let range = geometry.group_blocks(group);
    let mut entries = Vec::with_capacity((range.end - range.start) as usize);
    let mut first = range.start;
    while first < range.end {
        let count = (range.end - first).min(READ_BLOCKS).min(buf.blocks());
        let bytes = volume.read_blocks(BlockIndex(first), count, buf)?;
        for (block, data) in (first..).zip(bytes.chunks(blocks::BLOCK_SIZE)) {
            entries.push(match is_zero(data) {
                true => ZERO_ENTRY,
                false => leaf(geometry, BlockIndex(block), data),
            });
        }
        first += count;
    }
    Ok(entries)
}

/// Makes the tree say what the volume holds in one group: after a crash in
/// the middle of writing it, or when its stored leaves are torn.
///
/// # Errors
/// When the volume cannot be read or the tree not changed.
pub fn rehash_group(
    volume: &impl ReadBlocks,
    tree: &mut TreeFile,
    group: GroupIndex,
    buf: &mut AlignedBuf,
) -> Result<(), RehashError> {
    let entries = read_entries(volume, group, buf)?;
    Ok(tree.replace(group, &entries)?)
}

/// Reads a whole volume, one group at a call, and gives its root: the proof
/// that rests on no tracker and no stored tree.
pub struct RootReader {
    geometry: Geometry,
    nodes: RootBuilder,
    buf: AlignedBuf,
}

impl RootReader {
    /// Nothing read yet.
    pub fn new(volume: &impl ReadBlocks) -> Self {
        let geometry = volume.geometry();
        Self {
            geometry,
            nodes: RootBuilder::new(geometry),
            buf: AlignedBuf::new(READ_BLOCKS),
        }
    }

    /// How many bytes were read so far.
    pub fn done(&self) -> u64 {
        let next = self.geometry.group_blocks(GroupIndex(self.nodes.pushed()));
        BlockIndex(next.start).offset().min(self.geometry.length())
    }

    /// Reads the next group, and gives the root once that was the last one.
    ///
    /// # Errors
    /// When the group cannot be read; it may be tried again.
    pub fn step(&mut self, volume: &impl ReadBlocks) -> Result<Option<Root>, ReadError> {
        let group = GroupIndex(self.nodes.pushed());
        if self.geometry.contains_group(group) {
            let entries = read_entries(volume, group, &mut self.buf)?;
            self.nodes.push(group_node(self.geometry, group, &entries));
        }
        Ok(self.nodes.clone().finish())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;
    use crate::{SourceVolume, TargetVolume, VolumeTag};

    #[test]
    fn the_root_of_what_is_read_is_the_hash_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        for length in [1, 65_536, 65_537, 1 << 20, (16 << 20) + 1, (33 << 20) + 512] {
            let mut bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let zeros = bytes.len() / 3..bytes.len() / 2;
            bytes[zeros].fill(0);
            fs::write(&path, &bytes).unwrap();
            let source = SourceVolume::open(&path).unwrap();
            let mut reader = RootReader::new(&source);
            let root = loop {
                if let Some(root) = reader.step(&source).unwrap() {
                    break root;
                }
            };
            assert_eq!(root.0, *blake3::hash(&bytes).as_bytes(), "{length} bytes");
            assert_eq!(reader.done(), length);
        }
    }

    #[test]
    fn a_rehashed_group_says_what_the_volume_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let mut bytes = vec![0; 5 * 65_536 + 100];
        bytes[65_536..3 * 65_536].fill(7);
        fs::write(&path, &bytes).unwrap();
        let target = TargetVolume::open(&path, bytes.len() as u64).unwrap();
        let at = folder.path().join("tree");
        let mut tree = TreeFile::create(&at, VolumeTag([1; 16]), target.geometry()).unwrap();
        tree.set(BlockIndex(5), Leaf([9; 32])).unwrap();
        let mut buf = AlignedBuf::new(READ_BLOCKS);
        rehash_group(&target, &mut tree, GroupIndex(0), &mut buf).unwrap();
        assert_eq!(tree.root().unwrap().0, *blake3::hash(&bytes).as_bytes());
        assert!(tree.is_zero_entry(BlockIndex(5)).unwrap());
        assert!(!tree.is_zero_entry(BlockIndex(1)).unwrap());
    }
}
