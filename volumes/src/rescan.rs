//! A scan of a whole source on one thread, with the bytes read on the way: for
//! a caller that does one thing at a time.
//!
//! Not here: where to look (`scan`), and comparing (`changed`).

use blocks::{BlockIndex, DirtySet, Geometry};

use crate::changed::{Changed, add_zeros, find_changed};
use crate::{AlignedBuf, READ_BLOCKS, ReadBlocks, Scan, ScanError, SourceVolume, Span, TreeFile};

/// After this many blocks without a change the tracker returns, so that its
/// caller can pause, stop, or use the tree: 64 MiB.
const QUIET_BLOCKS: u64 = 1024;

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

/// One scan of a source from its beginning to its end.
#[derive(Debug)]
pub struct RescanTracker {
    scan: Scan,
    /// Taken from the scan and not yet compared: reading it failed.
    unread: Option<Span>,
    /// A run of zeros that was found and not yet given out, for more may
    /// follow.
    zeros: Vec<Changed>,
    bytes_read: u64,
}

impl RescanTracker {
    /// A scan of every block.
    pub fn new(geometry: Geometry) -> Self {
        Self::of(Scan::of_all(geometry, READ_BLOCKS))
    }

    /// A scan of the blocks in `dirty`; others are not read.
    pub fn of_dirty(dirty: DirtySet) -> Self {
        Self::of(Scan::of_dirty(dirty, READ_BLOCKS))
    }

    fn of(scan: Scan) -> Self {
        Self {
            scan,
            unread: None,
            zeros: Vec::new(),
            bytes_read: 0,
        }
    }

    /// Bytes read of the source so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The next block to look at; all before it were.
    pub fn position(&self) -> BlockIndex {
        let unread = self.unread.as_ref().map(|span| span.blocks().start);
        unread.map_or(self.scan.position(), BlockIndex)
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
        let start = self.position().0;
        while self.position().0 - start < QUIET_BLOCKS {
            if self.unread.is_none() {
                self.unread = self.scan.next_span(source, tree)?;
            }
            let changed = match &self.unread {
                None if self.zeros.is_empty() => {
                    source.check_unchanged()?;
                    return Ok(Scanned::End);
                }
                None => std::mem::take(&mut self.zeros),
                Some(Span::Hole { changed, .. }) => changed.clone(),
                Some(Span::Data { blocks, entries }) => {
                    let first = BlockIndex(blocks.start);
                    let bytes = source.read_blocks(first, entries.len() as u64, buf)?;
                    self.bytes_read += bytes.len() as u64;
                    find_changed(source.geometry(), first, entries, bytes)
                }
            };
            let at_end = self.unread.take().is_none();
            let changed = if at_end { changed } else { self.join(changed) };
            if !changed.is_empty() {
                return Ok(Scanned::Changed(changed));
            }
        }
        Ok(Scanned::Quiet)
    }

    /// Joins runs of zeros with those found before, and keeps back the last.
    fn join(&mut self, found: Vec<Changed>) -> Vec<Changed> {
        let mut changed = Vec::new();
        for run in found {
            let Changed::Zero { first, count } = run else {
                changed.append(&mut self.zeros);
                changed.push(run);
                continue;
            };
            add_zeros(first.0..first.0 + count, &mut self.zeros);
            let full = self.zeros.len() - 1;
            changed.extend(self.zeros.drain(..full));
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use blocks::{BLOCK_SIZE, Leaf};

    use super::*;
    use crate::VolumeTag;

    const BLOCK: u64 = BLOCK_SIZE as u64;

    fn step_over(length: u64, prepare: impl FnOnce(&File, &mut TreeFile)) -> Vec<Scanned> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let file = File::create(&image).unwrap();
        file.set_len(length).unwrap();
        let geometry = Geometry::new(length).unwrap();
        let at = folder.path().join("tree");
        let mut tree = TreeFile::create(&at, VolumeTag([1; 16]), geometry).unwrap();
        prepare(&file, &mut tree);
        let source = SourceVolume::open(&image).unwrap();
        let mut tracker = RescanTracker::new(geometry);
        let mut buf = AlignedBuf::new(READ_BLOCKS);
        let mut steps = Vec::new();
        while steps.last() != Some(&Scanned::End) {
            steps.push(tracker.next_changed(&source, &mut tree, &mut buf).unwrap());
        }
        steps
    }

    #[test]
    fn a_scan_without_changes_returns_now_and_then() {
        let steps = step_over(4000 * BLOCK, |file, tree| {
            let zeros = vec![0; 4000 * BLOCK_SIZE - 1];
            file.write_all_at(&zeros, 0).unwrap();
            file.write_all_at(&[1], 4000 * BLOCK - 1).unwrap();
            tree.set_zero_run(BlockIndex(0), 4000).unwrap();
        });
        assert_eq!(steps[..3], [Scanned::Quiet, Scanned::Quiet, Scanned::Quiet]);
        assert!(matches!(steps[3], Scanned::Changed(_)));
        assert_eq!(steps[4], Scanned::End);
    }

    #[test]
    fn what_could_not_be_read_is_read_again_in_the_next_step() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let file = File::create(&image).unwrap();
        file.write_all_at(&vec![1; 40 * BLOCK_SIZE], 0).unwrap();
        let source = SourceVolume::open(&image).unwrap();
        let at = folder.path().join("tree");
        let geometry = source.geometry();
        let mut tree = TreeFile::create(&at, VolumeTag([1; 16]), geometry).unwrap();
        let mut tracker = RescanTracker::new(geometry);
        let mut buf = AlignedBuf::new(READ_BLOCKS);
        let mut step = || {
            let step = tracker.next_changed(&source, &mut tree, &mut buf);
            (step, tracker.position().0)
        };
        assert!(matches!(step(), (Ok(Scanned::Changed(_)), 16)));
        file.set_len(17 * BLOCK).unwrap();
        assert!(matches!(step(), (Err(ScanError::Read(_)), 16)));
        file.set_len(40 * BLOCK).unwrap();
        assert!(matches!(step(), (Ok(Scanned::Changed(_)), 32)));
    }

    #[test]
    fn runs_of_zeros_are_joined_whether_they_were_read_or_not() {
        let steps = step_over(600 * BLOCK, |file, tree| {
            file.write_all_at(&[0; 100 * BLOCK_SIZE], 300 * BLOCK)
                .unwrap();
            tree.set_run(BlockIndex(0), &[Leaf([1; 32]); 600]).unwrap();
        });
        let whole = Changed::Zero {
            first: BlockIndex(0),
            count: 600,
        };
        assert_eq!(steps, [Scanned::Changed(vec![whole]), Scanned::End]);
    }
}
