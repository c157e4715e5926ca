//! The tracker that works everywhere: it reads a source and compares it with
//! the stored tree. It costs local reads only, and needs no help from the
//! kernel.
//!
//! It never changes the tree. A block that was read and sent is not yet at the
//! other end; its leaf is set by the caller once it is durable there, or after
//! a crash it would look equal without being so.

use std::ops::Range;

use blocks::{BLOCK_SIZE, BlockIndex, Geometry, GroupIndex, Leaf, ZERO_ENTRY, is_zero, leaf};

use crate::{
    AlignedBuf, READ_BLOCKS, ReadBlocks, ReadError, SourceChanged, SourceVolume, TreeError,
    TreeFile,
};

/// The longest run of zero blocks given as one extent.
const MAX_ZERO_BLOCKS: u64 = 4096;

/// After this many blocks without a change the tracker returns, so that its
/// caller can pause, stop, or use the tree: 64 MiB.
const QUIET_BLOCKS: u64 = 1024;

/// A run of blocks that differ from the stored tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// They are zero now.
    Zero {
        /// The first one.
        first: BlockIndex,
        /// How many, at most 4096.
        count: u64,
    },
    /// They hold data.
    Data {
        /// The first one.
        first: BlockIndex,
        /// The leaf of each, at most [`READ_BLOCKS`].
        leaves: Vec<Leaf>,
        /// Where their bytes are in the buffer the scan was given.
        bytes: Range<usize>,
    },
}

/// What one step of a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// These runs, in order; their bytes are in the buffer of this step.
    Changed(Vec<Changed>),
    /// A stretch without changes. More follows.
    Quiet,
    /// Everything was looked at, and the source is still what it was.
    End,
}

/// Why a scan stopped. Nothing was skipped: the next step tries again.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The source could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The source is another one, or of another length.
    #[error(transparent)]
    Source(#[from] SourceChanged),
    /// The stored tree could not be used. A torn group has to be replaced
    /// before the scan can go on.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The tree or source given is of another length than the scan.
    #[error("the scan is of {scan} bytes, the tree of {tree}, the source of {source_length}")]
    Mismatch {
        /// The length being scanned, in bytes.
        scan: u64,
        /// The tree's volume length, in bytes.
        tree: u64,
        /// The source's length, in bytes.
        source_length: u64,
    },
}

/// What a scan did so far, in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// Read and compared.
    pub read: u64,
    /// Passed over without reading: holes in the source.
    pub skipped: u64,
    /// Found changed.
    pub changed: u64,
}

/// One scan of a source from its beginning to its end.
#[derive(Debug)]
pub struct RescanTracker {
    geometry: Geometry,
    /// The next block to look at.
    cursor: u64,
    /// The data that was found last, in bytes; between it and the cursor there
    /// is a hole.
    data: Range<u64>,
    /// Zero blocks found and not yet given out, for more may follow.
    zeros: Range<u64>,
    counts: ScanCounts,
}

impl RescanTracker {
    /// A scan that begins at the first block.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            cursor: 0,
            data: 0..0,
            zeros: 0..0,
            counts: ScanCounts::default(),
        }
    }

    /// What was done so far.
    pub fn counts(&self) -> ScanCounts {
        self.counts
    }

    /// The next block to look at; all before it were.
    pub fn position(&self) -> BlockIndex {
        BlockIndex(self.cursor)
    }

    /// Scans until something changed, or a good while without. At most
    /// [`READ_BLOCKS`] blocks are read into `buf`, which must hold as many,
    /// between two changes that are given out. `source` and `tree` are to be
    /// the same in every step.
    ///
    /// # Errors
    /// When the source cannot be read or is another one, or the tree cannot be
    /// used. The step can be tried again.
    pub fn next_changed(
        &mut self,
        source: &SourceVolume,
        tree: &mut TreeFile,
        buf: &mut AlignedBuf,
    ) -> Result<Scanned, ScanError> {
        self.check_lengths(source, tree)?;
        if self.cursor == 0 {
            source.check_unchanged()?;
        }
        let mut changed = Vec::new();
        let start = self.cursor;
        while changed.is_empty() {
            if self.cursor == self.geometry.blocks() {
                self.give_zeros(&mut changed);
                if changed.is_empty() {
                    source.check_unchanged()?;
                    return Ok(Scanned::End);
                }
            } else if self.cursor - start >= QUIET_BLOCKS {
                return Ok(Scanned::Quiet);
            } else {
                self.scan(source, tree, buf, &mut changed)?;
            }
        }
        Ok(Scanned::Changed(changed))
    }

    fn check_lengths(&self, source: &SourceVolume, tree: &TreeFile) -> Result<(), ScanError> {
        if source.geometry() == self.geometry && tree.geometry() == self.geometry {
            return Ok(());
        }
        Err(ScanError::Mismatch {
            scan: self.geometry.length(),
            tree: tree.geometry().length(),
            source_length: source.length(),
        })
    }

    fn scan(
        &mut self,
        source: &SourceVolume,
        tree: &mut TreeFile,
        buf: &mut AlignedBuf,
        changed: &mut Vec<Changed>,
    ) -> Result<(), ScanError> {
        let offset = BlockIndex(self.cursor).offset();
        if offset >= self.data.end {
            let length = self.geometry.length();
            self.data = source.next_data(offset)?.unwrap_or(length..length);
        }
        let group = BlockIndex(self.cursor).group();
        let group_end = self.geometry.group_blocks(group).end;
        let hole_end = match self.data.start == self.geometry.length() {
            // A short last block is all hole too.
            true => self.geometry.blocks(),
            false => self.data.start / BLOCK_SIZE as u64,
        };
        if self.cursor < hole_end {
            return Ok(self.scan_hole(tree, group, hole_end.min(group_end), changed)?);
        }
        let data_end = self.data.end.div_ceil(BLOCK_SIZE as u64);
        let end = (self.cursor + READ_BLOCKS).min(group_end).min(data_end);
        self.scan_data(source, tree, end, buf, changed)
    }

    /// Blocks in a hole of the source: zero without being read.
    fn scan_hole(
        &mut self,
        tree: &mut TreeFile,
        group: GroupIndex,
        end: u64,
        changed: &mut Vec<Changed>,
    ) -> Result<(), TreeError> {
        let range = self.cursor..end;
        if !tree.is_blank_group(group) {
            let first = self.geometry.group_blocks(group).start;
            let entries = tree.entries(group)?;
            for block in range.clone() {
                if entries[(block - first) as usize] != ZERO_ENTRY {
                    self.add_zero(block, changed);
                }
            }
        }
        self.counts.skipped += range.end - range.start;
        self.cursor = end;
        Ok(())
    }

    fn scan_data(
        &mut self,
        source: &SourceVolume,
        tree: &mut TreeFile,
        end: u64,
        buf: &mut AlignedBuf,
        changed: &mut Vec<Changed>,
    ) -> Result<(), ScanError> {
        let first = BlockIndex(self.cursor);
        let group_start = self.geometry.group_blocks(first.group()).start;
        let entries = &tree.entries(first.group())?[(first.0 - group_start) as usize..];
        let bytes = source.read_blocks(first, end - first.0, buf)?;
        let (mut from, mut len) = (0, 0);
        for (block, entry) in (first.0..end).zip(entries) {
            from += len;
            len = self.geometry.block_len(BlockIndex(block));
            let data = &bytes[from..from + len];
            if is_zero(data) {
                if *entry != ZERO_ENTRY {
                    self.add_zero(block, changed);
                }
                continue;
            }
            let leaf = leaf(self.geometry, BlockIndex(block), data);
            if leaf != *entry {
                self.add_data(block, leaf, from..from + len, changed);
            }
        }
        self.counts.read += end - first.0;
        self.cursor = end;
        Ok(())
    }

    fn add_zero(&mut self, block: u64, changed: &mut Vec<Changed>) {
        let run = self.zeros.end - self.zeros.start;
        if self.zeros.end != block || run == 0 || run >= MAX_ZERO_BLOCKS {
            self.give_zeros(changed);
            self.zeros = block..block;
        }
        self.zeros.end = block + 1;
        self.counts.changed += 1;
    }

    fn add_data(&mut self, block: u64, leaf: Leaf, at: Range<usize>, changed: &mut Vec<Changed>) {
        self.give_zeros(changed);
        self.counts.changed += 1;
        if let Some(Changed::Data {
            first,
            leaves,
            bytes,
        }) = changed.last_mut()
            && first.0 + leaves.len() as u64 == block
        {
            leaves.push(leaf);
            bytes.end = at.end;
            return;
        }
        changed.push(Changed::Data {
            first: BlockIndex(block),
            leaves: vec![leaf],
            bytes: at,
        });
    }

    fn give_zeros(&mut self, changed: &mut Vec<Changed>) {
        let count = self.zeros.end - self.zeros.start;
        if count > 0 {
            changed.push(Changed::Zero {
                first: BlockIndex(self.zeros.start),
                count,
            });
        }
        self.zeros = 0..0;
    }
}

#[cfg(test)]
mod tests;
