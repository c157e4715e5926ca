//! A scan of a whole source on one thread, with the bytes read on the way: for
//! a caller that does one thing at a time.
//!
//! Not here: where to look (`scan`), and comparing (`changed`).

use std::time::{Duration, Instant};

use blocks::{BLOCK_SIZE, BlockIndex, DirtySet, Geometry};

use crate::changed::{Changed, add_zeros, find_changed};
use crate::{AlignedBuf, READ_BLOCKS, Scan, ScanError, SourceVolume, Span, TreeFile};

/// After this many blocks without a change the tracker returns, so that its
/// caller can pause, stop, or use the tree: 64 MiB.
pub const QUIET_BLOCKS: u64 = 1024;

/// Runs are gathered until there are as many.
const MOST_RUNS: usize = READ_BLOCKS as usize;

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

/// What a look at the next span came to.
enum Looked {
    Found(Vec<Changed>),
    /// It is to be read, and does not fit: the next step has a buffer of its own.
    NoRoom,
    /// There is none.
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
    quiet_blocks: u64,
    /// A step ends when so many blocks were found.
    step_blocks: u64,
    bytes_read: u64,
    read_time: Duration,
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
            quiet_blocks: QUIET_BLOCKS,
            step_blocks: READ_BLOCKS,
            bytes_read: 0,
            read_time: Duration::ZERO,
        }
    }

    /// From here on at most so many blocks are read at once, one at least, and so given
    /// out in one run of data; and a step ends with the read that comes to as many. They
    /// are [`READ_BLOCKS`] unless told otherwise.
    pub fn read_at_most(&mut self, blocks: u64) {
        self.step_blocks = blocks.clamp(1, READ_BLOCKS);
        self.scan.hand_out(self.step_blocks);
    }

    /// From here on a step returns after so many blocks without a change, one at least:
    /// after [`QUIET_BLOCKS`] unless told otherwise.
    pub fn return_after(&mut self, blocks: u64) {
        self.quiet_blocks = blocks.max(1);
    }

    /// Bytes read of the source so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// How long that took.
    pub fn read_time(&self) -> Duration {
        self.read_time
    }

    /// The next block to look at; all before it were.
    pub fn position(&self) -> BlockIndex {
        let unread = self.unread.as_ref().map(|span| span.blocks().start);
        unread.map_or(self.scan.position(), BlockIndex)
    }

    /// Scans until something changed, or a good while without. `buf` must hold
    /// [`READ_BLOCKS`] blocks: changes that lie apart are gathered in it until
    /// it is full or that while has passed, so that many small ones are as few
    /// steps as a large one. `source` and `tree` are to be the same in every
    /// step.
    ///
    /// # Errors
    /// When the source cannot be read or is another one, or the tree cannot be
    /// used. The step can be tried again, and nothing that was found before is
    /// lost.
    pub fn next_changed(
        &mut self,
        source: &SourceVolume,
        tree: &mut TreeFile,
        buf: &mut AlignedBuf,
    ) -> Result<Scanned, ScanError> {
        let start = self.position().0;
        let room = READ_BLOCKS as usize * BLOCK_SIZE;
        let (mut gathered, mut filled) = (Vec::new(), 0);
        let full = self.step_blocks as usize * BLOCK_SIZE;
        while filled < full
            && self.position().0 - start < self.quiet_blocks
            && gathered.len() < MOST_RUNS
        {
            let step = self.look(source, tree, &mut buf.bytes_mut()[filled..room]);
            let found = match step {
                Ok(Looked::Found(found)) => found,
                Ok(Looked::NoRoom) => break,
                Ok(Looked::End) if gathered.is_empty() && self.zeros.is_empty() => {
                    source.check_unchanged()?;
                    return Ok(Scanned::End);
                }
                Ok(Looked::End) => {
                    gathered.append(&mut self.zeros);
                    break;
                }
                // What was found goes out, and the next step meets it again.
                Err(_) if !gathered.is_empty() => break,
                Err(error) => return Err(error),
            };
            for mut run in self.join(found) {
                if let Changed::Data { bytes, .. } = &mut run {
                    (bytes.start, bytes.end) = (bytes.start + filled, bytes.end + filled);
                }
                gathered.push(run);
            }
            filled = gathered.iter().map(end_of_bytes).max().unwrap_or(0);
        }
        match gathered.is_empty() {
            true => Ok(Scanned::Quiet),
            false => Ok(Scanned::Changed(gathered)),
        }
    }

    /// Looks at the next span, and reads it into `room` where it has to.
    fn look(
        &mut self,
        source: &SourceVolume,
        tree: &mut TreeFile,
        room: &mut [u8],
    ) -> Result<Looked, ScanError> {
        if self.unread.is_none() {
            self.unread = self.scan.next_span(source, tree)?;
        }
        let found = match &self.unread {
            None => return Ok(Looked::End),
            Some(Span::Hole { changed, .. }) => changed.clone(),
            Some(Span::Data { entries, .. }) if entries.len() * BLOCK_SIZE > room.len() => {
                return Ok(Looked::NoRoom);
            }
            Some(Span::Data { blocks, entries }) => {
                let first = BlockIndex(blocks.start);
                let began = Instant::now();
                let bytes = source.read_into(first, entries.len() as u64, room)?;
                self.read_time += began.elapsed();
                self.bytes_read += bytes.len() as u64;
                find_changed(source.geometry(), first, entries, bytes)
            }
        };
        self.unread = None;
        Ok(Looked::Found(found))
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

/// Where the bytes of a run end, up to the block's end.
fn end_of_bytes(run: &Changed) -> usize {
    match run {
        Changed::Zero { .. } => 0,
        Changed::Data { bytes, .. } => bytes.end.next_multiple_of(BLOCK_SIZE),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use blocks::{BLOCK_SIZE, Leaf, leaf};

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

    /// A source of so many blocks that were written, and a tree that knows of none.
    fn written(blocks: usize) -> (tempfile::TempDir, File, SourceVolume, TreeFile) {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let file = File::create(&image).unwrap();
        file.write_all_at(&vec![1; blocks * BLOCK_SIZE], 0).unwrap();
        let source = SourceVolume::open(&image).unwrap();
        let at = folder.path().join("tree");
        let tree = TreeFile::create(&at, VolumeTag([1; 16]), source.geometry()).unwrap();
        (folder, file, source, tree)
    }

    #[test]
    fn what_could_not_be_read_is_read_again_in_the_next_step() {
        let (_folder, file, source, mut tree) = written(40);
        let mut tracker = RescanTracker::new(source.geometry());
        let mut buf = AlignedBuf::new(READ_BLOCKS);
        let mut step = || {
            let step = tracker.next_changed(&source, &mut tree, &mut buf);
            (step, tracker.position().0)
        };
        assert!(matches!(step(), (Ok(Scanned::Changed(_)), 16)));
        file.set_len(17 * BLOCK).unwrap();
        assert!(matches!(step(), (Err(ScanError::Read(_)), 16)));
        file.set_len(40 * BLOCK).unwrap();
        // What is left of the source has room in one step.
        assert!(matches!(step(), (Ok(Scanned::Changed(_)), 40)));
    }

    #[test]
    fn changes_that_lie_apart_are_gathered_with_their_bytes_as_far_as_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let file = File::create(&image).unwrap();
        // The last block is short.
        let length = 100 * BLOCK + 10;
        let bytes: Vec<u8> = (0..length).map(|at| (at / BLOCK) as u8 + 1).collect();
        file.write_all_at(&bytes, 0).unwrap();
        let source = SourceVolume::open(&image).unwrap();
        let geometry = source.geometry();
        let at = folder.path().join("tree");
        let mut tree = TreeFile::create(&at, VolumeTag([1; 16]), geometry).unwrap();
        let mut dirty = DirtySet::new(geometry);
        // As it was, like no other one, and a run too long for what is left.
        let unchanged = BlockIndex(5);
        let entry = leaf(geometry, unchanged, &bytes[5 * BLOCK_SIZE..6 * BLOCK_SIZE]);
        tree.set(unchanged, entry).unwrap();
        for blocks in [1..2, 3..5, 5..6, 10..11, 20..30, 40..43, 100..101] {
            (blocks.start..blocks.end).for_each(|block| dirty.mark_range(block * BLOCK, 1));
        }
        let mut tracker = RescanTracker::of_dirty(dirty);
        let mut buf = AlignedBuf::new(READ_BLOCKS);
        let mut steps = Vec::new();
        loop {
            let step = tracker.next_changed(&source, &mut tree, &mut buf).unwrap();
            let Scanned::Changed(changed) = step else {
                assert_eq!(step, Scanned::End);
                break;
            };
            let runs = changed.iter().map(|run| match run {
                Changed::Zero { .. } => panic!("nothing is zero"),
                Changed::Data {
                    first,
                    leaves,
                    bytes,
                    ..
                } => {
                    let data = buf.bytes()[bytes.clone()].chunks(BLOCK_SIZE);
                    let found = (first.0..).map(BlockIndex).zip(data);
                    let found = found.map(|(block, data)| leaf(geometry, block, data));
                    assert!(
                        found.eq(leaves.iter().copied()),
                        "{first} has its own bytes"
                    );
                    (first.0, leaves.len())
                }
            });
            steps.push(runs.collect::<Vec<_>>());
        }
        let first = vec![(1, 1), (3, 2), (10, 1), (20, 10)];
        assert_eq!(steps, [first, vec![(40, 3), (100, 1)]]);
        let read = tracker.bytes_read();
        assert_eq!(read, 18 * BLOCK + 10, "nothing is read twice");
    }

    #[test]
    fn a_step_finds_no_more_than_was_asked_for_whatever_was_asked_for_before() {
        let (_folder, _file, source, mut tree) = written(80);
        let mut tracker = RescanTracker::new(source.geometry());
        let mut buf = AlignedBuf::new(READ_BLOCKS);
        let mut position = 0;
        for most in [0, 1, 3, 16, 100, 2] {
            tracker.read_at_most(most);
            tracker.next_changed(&source, &mut tree, &mut buf).unwrap();
            let found = tracker.position().0 - position;
            assert_eq!(found, most.clamp(1, READ_BLOCKS));
            position += found;
        }
    }

    #[test]
    fn what_was_gathered_before_the_source_could_not_be_read_is_given_out() {
        let (_folder, file, source, mut tree) = written(40);
        let geometry = source.geometry();
        let mut dirty = DirtySet::new(geometry);
        for block in [1, 30] {
            dirty.mark_range(block * BLOCK, 1);
        }
        let mut tracker = RescanTracker::of_dirty(dirty);
        let mut buf = AlignedBuf::new(READ_BLOCKS);
        // The source is looked at before the first span and after the last one.
        let scan = &mut tracker.scan;
        tracker.unread = scan.next_span(&source, &mut tree).unwrap();
        file.set_len(30 * BLOCK + 10).unwrap();
        let mut step = || tracker.next_changed(&source, &mut tree, &mut buf);
        let only = |found| match found {
            Ok(Scanned::Changed(changed)) => match changed.as_slice() {
                [Changed::Data { first, .. }] => first.0,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert_eq!(only(step()), 1);
        assert!(matches!(step(), Err(ScanError::Read(_))));
        file.set_len(40 * BLOCK).unwrap();
        assert_eq!(only(step()), 30);
        assert_eq!(step().unwrap(), Scanned::End);
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
