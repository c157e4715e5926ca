//! Reading one group of a volume to find out what it holds, after a crash. It
//! trusts no stored hash, and stores only what the caller asks to have replaced.
//!
//! Not here: reading all of it as proof (`root_reader`).

use blocks::{BlockIndex, Geometry, GroupIndex, Leaf, ZERO_ENTRY, is_zero, leaf};

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

    /// Whether these blocks are a hole of a file: the file system says that it
    /// stores nothing of them, so that reading gives zeros that it makes up. A
    /// block device has no holes.
    fn is_hole(&self, first: BlockIndex, count: u64) -> bool;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;
    use crate::{TargetVolume, VolumeTag};

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
