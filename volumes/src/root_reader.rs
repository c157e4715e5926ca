//! Reading a whole volume to find out its root: the proof that rests on no
//! tracker and no stored tree. All that is stored is read, and hashed where it
//! stands.
//!
//! What a file has a hole for is stored nowhere, and no disk is asked for it:
//! reading it gives zeros because the file system says that there is nothing,
//! and it says so of the same place when asked for holes. So a hole is hashed as
//! the zeros it is, without having them made, copied and cached: that they are
//! zeros is the file system's word either way. A block device is read whole.
//!
//! Not here: whether what is read comes from the disk or from a cache; the
//! caller has to have dropped that.

use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use blocks::{
    BLOCK_SIZE, BlockIndex, GROUP_BLOCKS, Geometry, GroupIndex, Leaf, Root, RootBuilder,
    group_node, leaf, zero_leaf,
};

use crate::{AlignedBuf, READ_BLOCKS, ReadBlocks, ReadError};

/// Groups read in one step: 64 MiB, which even a slow disk gives in a second or
/// so, and all cores are busy with for several milliseconds.
const STEP_GROUPS: u64 = 4;

/// More threads than this gain little: no disk is faster than four cores hash.
const MAX_THREADS: usize = 8;

/// Reads a whole volume, a few groups at a call, and gives its root.
pub struct RootReader {
    geometry: Geometry,
    nodes: RootBuilder,
    /// One for each thread, 1 MiB each.
    bufs: Vec<AlignedBuf>,
}

impl RootReader {
    /// Nothing read yet.
    pub fn new(volume: &impl ReadBlocks) -> Self {
        let geometry = volume.geometry();
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        // Two for each core: while one waits for the disk, another hashes.
        let threads = (2 * cores).min(MAX_THREADS);
        Self {
            geometry,
            nodes: RootBuilder::new(geometry),
            bufs: (0..threads).map(|_| AlignedBuf::new(READ_BLOCKS)).collect(),
        }
    }

    /// How many bytes were read so far.
    pub fn done(&self) -> u64 {
        let next = self.geometry.group_blocks(GroupIndex(self.nodes.pushed()));
        BlockIndex(next.start).offset().min(self.geometry.length())
    }

    /// Reads the next groups, on all cores, and gives the root once those were
    /// the last ones.
    ///
    /// # Errors
    /// When they cannot be read; it may be tried again.
    pub fn step(&mut self, volume: &(impl ReadBlocks + Sync)) -> Result<Option<Root>, ReadError> {
        let first = self.nodes.pushed();
        let groups = first..(first + STEP_GROUPS).min(self.geometry.groups());
        let start = first * GROUP_BLOCKS;
        let blocks = start..(groups.end * GROUP_BLOCKS).min(self.geometry.blocks());
        let leaves = self.leaves(volume, blocks)?;
        for group in groups.map(GroupIndex) {
            let of = self.geometry.group_blocks(group);
            let of = (of.start - start) as usize..(of.end - start) as usize;
            self.nodes
                .push(group_node(self.geometry, group, &leaves[of]));
        }
        Ok(self.nodes.clone().finish())
    }

    /// The leaves of these blocks, in order.
    fn leaves(
        &mut self,
        volume: &(impl ReadBlocks + Sync),
        blocks: Range<u64>,
    ) -> Result<Vec<Leaf>, ReadError> {
        let count = (blocks.end.saturating_sub(blocks.start)).div_ceil(READ_BLOCKS);
        let next = AtomicU64::new(0);
        let read = |buf: &mut AlignedBuf| {
            let mut found = Vec::new();
            loop {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                if piece >= count {
                    return Ok(found);
                }
                let first = blocks.start + piece * READ_BLOCKS;
                let blocks = first..(first + READ_BLOCKS).min(blocks.end);
                let leaves = leaves_of(volume, blocks, buf).inspect_err(|_| {
                    // The others need not go on.
                    next.store(count, Ordering::Relaxed);
                })?;
                found.push((piece, leaves));
            }
        };
        let threads = self.bufs.iter_mut().take(count as usize);
        let found: Result<Vec<_>, ReadError> = thread::scope(|scope| {
            let running: Vec<_> = threads.map(|buf| scope.spawn(|| read(buf))).collect();
            let ended = running.into_iter();
            ended
                .map(|thread| thread.join().expect("reading and hashing do not panic"))
                .collect()
        });
        let mut pieces: Vec<_> = found?.into_iter().flatten().collect();
        pieces.sort_unstable_by_key(|(piece, _)| *piece);
        Ok(pieces.into_iter().flat_map(|(_, leaves)| leaves).collect())
    }
}

fn leaves_of(
    volume: &impl ReadBlocks,
    blocks: Range<u64>,
    buf: &mut AlignedBuf,
) -> Result<Vec<Leaf>, ReadError> {
    let geometry = volume.geometry();
    let (first, count) = (BlockIndex(blocks.start), blocks.end - blocks.start);
    let blocks = blocks.map(BlockIndex);
    if volume.is_hole(first, count) {
        return Ok(blocks.map(|block| zero_leaf(geometry, block)).collect());
    }
    let bytes = volume.read_blocks(first, count, buf)?;
    let blocks = blocks.zip(bytes.chunks(BLOCK_SIZE));
    Ok(blocks
        .map(|(block, data)| leaf(geometry, block, data))
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::sync::Mutex;

    use proptest::prelude::*;
    use rustix::fs::{FallocateFlags, fallocate};

    use super::*;
    use crate::{SourceVolume, TargetVolume};

    /// A volume that keeps note of which blocks are read.
    struct Noting<V> {
        volume: V,
        read: Mutex<Vec<Range<u64>>>,
    }

    impl<V: ReadBlocks> ReadBlocks for Noting<V> {
        fn geometry(&self) -> Geometry {
            self.volume.geometry()
        }

        fn read_blocks<'b>(
            &self,
            first: BlockIndex,
            count: u64,
            buf: &'b mut AlignedBuf,
        ) -> Result<&'b [u8], ReadError> {
            self.read.lock().unwrap().push(first.0..first.0 + count);
            self.volume.read_blocks(first, count, buf)
        }

        fn is_hole(&self, first: BlockIndex, count: u64) -> bool {
            self.volume.is_hole(first, count)
        }
    }

    fn root_of(source: &(impl ReadBlocks + Sync)) -> Root {
        let mut reader = RootReader::new(source);
        let mut done = 0;
        loop {
            let root = reader.step(source).unwrap();
            assert!(reader.done() > done);
            done = reader.done();
            if let Some(root) = root {
                assert_eq!(done, source.geometry().length());
                return root;
            }
        }
    }

    /// Of the bytes in a file, some of whose zeros are holes.
    fn root_is_the_hash(bytes: &[u8], holes: &[Range<usize>]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        fs::write(&path, bytes).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        for hole in holes.iter().filter(|hole| !hole.is_empty()) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, flags, hole.start as u64, hole.len() as u64).unwrap();
        }
        let source = SourceVolume::open(&path).unwrap();
        let expected = *blake3::hash(bytes).as_bytes();
        assert_eq!(root_of(&source).0, expected, "{} bytes", bytes.len());
    }

    #[test]
    fn the_root_of_what_is_read_is_the_hash_of_the_file() {
        for length in [1, 65_536, 65_537, 1 << 20, (16 << 20) + 1, (65 << 20) + 512] {
            let mut bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let zeros = bytes.len() / 3..bytes.len() / 2;
            bytes[zeros].fill(0);
            root_is_the_hash(&bytes, &[]);
        }
    }

    #[test]
    fn holes_are_hashed_as_zeros_without_being_read_and_all_else_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let length = (100 << 20) + 7;
        let file = File::create(&path).unwrap();
        file.set_len(length).unwrap();
        file.write_all_at(&[1], 5 << 20).unwrap();
        // Zeros that were written are no hole.
        file.write_all_at(&[0; 4096], 70 << 20).unwrap();
        let expected = blake3::hash(&fs::read(&path).unwrap());
        let volume = TargetVolume::open(&path, length).unwrap();
        let target = Noting {
            volume,
            read: Mutex::default(),
        };
        assert_eq!(root_of(&target).0, *expected.as_bytes());
        let mut read = target.read.into_inner().unwrap();
        read.sort_unstable_by_key(|blocks| blocks.start);
        assert_eq!(read, [80..96, 1120..1136]);
    }

    #[test]
    fn a_file_that_was_cut_is_not_taken_for_one_with_a_hole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let file = File::create(&path).unwrap();
        file.set_len(10 << 20).unwrap();
        let source = SourceVolume::open(&path).unwrap();
        file.set_len(9 << 20).unwrap();
        let stopped = RootReader::new(&source).step(&source);
        assert!(matches!(stopped, Err(ReadError::Short { .. })));
    }

    #[test]
    fn a_step_that_failed_can_be_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let bytes = vec![7; (130 << 20) + 5];
        fs::write(&path, &bytes).unwrap();
        let source = SourceVolume::open(&path).unwrap();
        let mut reader = RootReader::new(&source);
        assert_eq!(reader.step(&source).unwrap(), None);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(70 << 20).unwrap();
        for _ in 0..2 {
            let stopped = reader.step(&source);
            assert!(matches!(stopped, Err(ReadError::Short { .. })));
            assert_eq!(reader.done(), 64 << 20);
        }
        fs::write(&path, &bytes).unwrap();
        assert_eq!(reader.step(&source).unwrap(), None);
        let root = reader.step(&source).unwrap().unwrap();
        assert_eq!(root.0, *blake3::hash(&bytes).as_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

        #[test]
        fn whatever_its_length_and_its_zeros_the_root_is_the_hash(
            blocks in 0..1100_usize,
            rest in 1..=BLOCK_SIZE,
            zeros in prop::collection::vec((0..1100_usize, 1..400_usize, any::<bool>()), 0..4),
        ) {
            let length = blocks * BLOCK_SIZE + rest;
            let mut bytes: Vec<u8> = (0..length).map(|i| (i % 253) as u8).collect();
            let mut holes = Vec::new();
            for (at, count, is_hole) in zeros {
                let at = (at * BLOCK_SIZE).min(length);
                let end = (at + count * BLOCK_SIZE).min(length);
                bytes[at..end].fill(0);
                holes.extend(is_hole.then_some(at..end));
            }
            root_is_the_hash(&bytes, &holes);
        }
    }
}
