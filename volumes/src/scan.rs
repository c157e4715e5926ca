//! What of a source has to be looked at, span by span: all of it against the
//! stored tree, or the blocks of a dirty set. It costs local reads only, and
//! needs no help from the kernel.
//!
//! [`Scan`] is the cursor. It reads no bytes, so that it can be shared under a
//! lock that is held shortly, by as many threads as read: each takes a span,
//! reads it, and compares it with [`crate::find_changed`], on its own.
//!
//! It never changes the tree. A block that was read and sent is not yet at the
//! other end; its leaf is set by the caller once it is durable there, or after
//! a crash it would look equal without being so.

use std::ops::Range;

use blocks::{BLOCK_SIZE, BlockIndex, DirtySet, Geometry, GroupIndex, Leaf};

use crate::changed::{Changed, find_not_zero};
use crate::{ReadError, SourceChanged, SourceVolume, TreeError, TreeFile};

/// The longest run that is looked for in a dirty set at once, in blocks: 16 GiB.
const RUN_BLOCKS: u64 = 1 << 18;

/// Groups looked up in the tree for one hole at most, which bounds how long a
/// step takes. Blank ones need no look.
const HOLE_GROUPS: usize = 16;

/// A stretch of the source, to be looked at by whoever took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// A hole: it reads as zeros, and need not be read.
    Hole {
        /// Its blocks.
        blocks: Range<u64>,
        /// Those that the tree does not have as zero.
        changed: Vec<Changed>,
    },
    /// To be read, and compared with [`crate::find_changed`].
    Data {
        /// Its blocks, all of one group, at most as many as the scan was made
        /// for.
        blocks: Range<u64>,
        /// What the tree has for each.
        entries: Vec<Leaf>,
    },
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

/// What a scan handed out so far, in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// To be read and compared.
    pub read: u64,
    /// In holes of the source.
    pub holes: u64,
    /// Not in the dirty set.
    pub clean: u64,
}

/// One scan of a source from its beginning to its end.
#[derive(Debug)]
pub struct Scan {
    geometry: Geometry,
    /// The most blocks of data in a span.
    span_blocks: u64,
    /// Without one, every block is looked at.
    dirty: Option<DirtySet>,
    /// Every block before this one was handed out or is clean.
    cursor: u64,
    /// The blocks that were found last to be looked at.
    run: Range<u64>,
    /// The data that was found last, in bytes; between it and the cursor there
    /// is a hole. It is empty where it begins behind the run: what follows is
    /// not known.
    data: Range<u64>,
    counts: ScanCounts,
}

impl Span {
    /// Its blocks.
    pub fn blocks(&self) -> Range<u64> {
        match self {
            Self::Hole { blocks, .. } | Self::Data { blocks, .. } => blocks.clone(),
        }
    }
}

impl Scan {
    /// A scan of every block, in spans of at most `span_blocks` blocks of data
    /// (one at least).
    pub fn of_all(geometry: Geometry, span_blocks: u64) -> Self {
        Self::new(geometry, span_blocks, None)
    }

    /// A scan of the blocks in `dirty`, a set of the same volume. Of others
    /// neither the bytes nor what the tree has for them is looked at.
    pub fn of_dirty(dirty: DirtySet, span_blocks: u64) -> Self {
        Self::new(dirty.geometry(), span_blocks, Some(dirty))
    }

    fn new(geometry: Geometry, span_blocks: u64, dirty: Option<DirtySet>) -> Self {
        let run = match dirty {
            None => 0..geometry.blocks(),
            Some(_) => 0..0,
        };
        Self {
            geometry,
            span_blocks: span_blocks.max(1),
            dirty,
            cursor: 0,
            run,
            data: 0..0,
            counts: ScanCounts::default(),
        }
    }

    /// From here on spans have at most so many blocks of data, one at least.
    pub fn hand_out(&mut self, span_blocks: u64) {
        self.span_blocks = span_blocks.max(1);
    }

    /// What was handed out so far.
    pub fn counts(&self) -> ScanCounts {
        self.counts
    }

    /// The next block to look at; all before it were handed out or are clean.
    pub fn position(&self) -> BlockIndex {
        BlockIndex(self.cursor)
    }

    /// The next span, or none when all were handed out. Spans are in order and
    /// do not overlap. `source` and `tree` are to be the same in every step.
    ///
    /// The first step checks that the source is still what was opened. Once
    /// the last span is read its reader does so again
    /// ([`SourceVolume::check_unchanged`]), as only then is it known of all.
    ///
    /// # Errors
    /// When the source cannot be asked or is another one, or the tree cannot be
    /// used. The step can be tried again.
    pub fn next_span(
        &mut self,
        source: &SourceVolume,
        tree: &mut TreeFile,
    ) -> Result<Option<Span>, ScanError> {
        self.check_lengths(source, tree)?;
        if self.cursor == 0 {
            source.check_unchanged()?;
        }
        if !self.find_run() {
            return Ok(None);
        }
        let offset = BlockIndex(self.cursor).offset();
        if offset >= self.data.end {
            let length = self.geometry.length();
            // Past the last block where that is a short one.
            let until = BlockIndex(self.run.end).offset();
            let data = source.next_data(offset, until)?;
            self.data = data.unwrap_or(length..length);
        }
        let hole_end = match self.data.start == self.geometry.length() {
            // A short last block is all hole too.
            true => self.geometry.blocks(),
            false => self.data.start / BLOCK_SIZE as u64,
        };
        let span = match self.cursor < hole_end {
            true => self.hole(tree, hole_end.min(self.run.end))?,
            false => self.data(tree)?,
        };
        self.cursor = span.blocks().end;
        Ok(Some(span))
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

    /// Moves the cursor to the next block to be looked at; false at the end.
    fn find_run(&mut self) -> bool {
        if self.cursor < self.run.end {
            return true;
        }
        let end = self.geometry.blocks();
        let next = self
            .dirty
            .as_ref()
            .and_then(|dirty| dirty.next_run(BlockIndex(self.cursor), RUN_BLOCKS));
        self.run = next.unwrap_or(end..end);
        self.counts.clean += self.run.start - self.cursor;
        self.cursor = self.run.start;
        self.cursor < end
    }

    /// What lies in a hole, up to `end` at most: blank groups, however many, and
    /// at most [`HOLE_GROUPS`] others.
    fn hole(&mut self, tree: &mut TreeFile, end: u64) -> Result<Span, TreeError> {
        let (first, mut at) = (self.cursor, self.cursor);
        let (mut changed, mut looked_up) = (Vec::new(), 0);
        while at < end && looked_up < HOLE_GROUPS {
            let group = BlockIndex(at).group();
            let group_end = self.geometry.group_blocks(group).end.min(end);
            if !tree.is_blank_group(group) {
                let entries = self.entries(tree, group, at..group_end)?;
                find_not_zero(BlockIndex(at), entries, &mut changed);
                looked_up += 1;
            }
            at = group_end;
        }
        self.counts.holes += at - first;
        let blocks = first..at;
        Ok(Span::Hole { blocks, changed })
    }

    fn data(&mut self, tree: &mut TreeFile) -> Result<Span, TreeError> {
        let group = BlockIndex(self.cursor).group();
        let data_end = self.data.end.div_ceil(BLOCK_SIZE as u64);
        let end = self
            .cursor
            .saturating_add(self.span_blocks)
            .min(self.geometry.group_blocks(group).end)
            .min(data_end)
            .min(self.run.end);
        let blocks = self.cursor..end;
        let entries = self.entries(tree, group, blocks.clone())?.to_vec();
        self.counts.read += end - self.cursor;
        Ok(Span::Data { blocks, entries })
    }

    fn entries<'t>(
        &self,
        tree: &'t mut TreeFile,
        group: GroupIndex,
        blocks: Range<u64>,
    ) -> Result<&'t [Leaf], TreeError> {
        let first = self.geometry.group_blocks(group).start;
        // Below 256 each.
        let at = (blocks.start - first) as usize..(blocks.end - first) as usize;
        Ok(&tree.entries(group)?[at])
    }
}

#[cfg(test)]
mod tests;
