//! Scans of real files, and of loop devices where the test runs as root.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use blocks::{GROUP_BLOCKS, is_zero, leaf};
use proptest::prelude::*;
use rustix::fs::{FallocateFlags, fallocate};

use super::*;
use crate::loop_device::LoopDevice;
use crate::{AlignedBuf, READ_BLOCKS, ReadBlocks, VolumeTag, find_changed};

const BLOCK: u64 = BLOCK_SIZE as u64;

/// A source image and the stored tree of it, in a folder of their own.
struct Setup {
    folder: tempfile::TempDir,
    image: PathBuf,
    tree: TreeFile,
}

impl Setup {
    fn new(length: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(length).unwrap();
        let geometry = Geometry::new(length).unwrap();
        let at = folder.path().join("tree");
        let tree = TreeFile::create(&at, VolumeTag([1; 16]), geometry).unwrap();
        Self {
            folder,
            image,
            tree,
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(&self.image).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }

    fn punch(&self, offset: u64, len: u64) {
        let file = OpenOptions::new().write(true).open(&self.image).unwrap();
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, flags, offset, len).unwrap();
    }

    fn scan(&mut self) -> Found {
        scan(&self.image, &mut self.tree)
    }

    fn scan_dirty(&mut self, dirty: DirtySet) -> Found {
        let source = SourceVolume::open(&self.image).unwrap();
        finish(Scan::of_dirty(dirty, READ_BLOCKS), &source, &mut self.tree)
    }

    /// What its caller does once the other end has made everything durable.
    fn commit(&mut self, changed: &[Changed]) {
        for changed in changed {
            match changed {
                Changed::Zero { first, count } => self.tree.set_zero_run(*first, *count),
                Changed::Data { first, leaves, .. } => self.tree.set_run(*first, leaves),
            }
            .unwrap();
        }
    }

    fn edit(&mut self, edit: Edit, length: u64) {
        match edit {
            Edit::Write(at, len, fill) => {
                self.write(at, &vec![fill; len.min(length - at) as usize]);
            }
            Edit::Punch(at, len) => self.punch(at, len.min(length - at)),
            Edit::Commit => {
                let Found { changed, .. } = self.scan();
                self.commit(&changed);
            }
        }
    }

    fn root_is_that_of_the_image(&mut self) -> bool {
        let expected = blake3::hash(&fs::read(&self.image).unwrap());
        self.tree.root().unwrap().0 == *expected.as_bytes()
    }
}

/// What a scan found, one entry for each run, and what it handed out.
struct Found {
    changed: Vec<Changed>,
    counts: ScanCounts,
    /// The blocks that were read.
    read: BTreeSet<u64>,
}

fn scan(path: &Path, tree: &mut TreeFile) -> Found {
    let source = SourceVolume::open(path).unwrap();
    let geometry = source.geometry();
    finish(Scan::of_all(geometry, READ_BLOCKS), &source, tree)
}

fn finish(mut scan: Scan, source: &SourceVolume, tree: &mut TreeFile) -> Found {
    let mut buf = AlignedBuf::new(READ_BLOCKS);
    let (mut changed, mut read) = (Vec::new(), BTreeSet::new());
    let mut end = 0;
    while let Some(span) = scan.next_span(source, tree).unwrap() {
        assert!(span.blocks().start >= end && !span.blocks().is_empty());
        end = span.blocks().end;
        changed.extend(look_at(source, &span, &mut buf));
        if let Span::Data { blocks, .. } = span {
            read.extend(blocks);
        }
    }
    assert_eq!(scan.position().0, source.geometry().blocks());
    Found {
        changed,
        counts: scan.counts(),
        read,
    }
}

/// What any reader does with a span.
fn look_at(source: &SourceVolume, span: &Span, buf: &mut AlignedBuf) -> Vec<Changed> {
    let (blocks, entries) = match span {
        Span::Hole { changed, .. } => return changed.clone(),
        Span::Data { blocks, entries } => (blocks, entries),
    };
    let geometry = source.geometry();
    assert_eq!(entries.len() as u64, blocks.end - blocks.start);
    assert!(entries.len() as u64 <= buf.blocks());
    let first = BlockIndex(blocks.start);
    let bytes = source
        .read_blocks(first, entries.len() as u64, buf)
        .unwrap();
    let found = find_changed(geometry, first, entries, bytes);
    for run in &found {
        assert_leaves_fit_the_bytes(geometry, run, bytes);
    }
    found
}

fn assert_leaves_fit_the_bytes(geometry: Geometry, changed: &Changed, bytes: &[u8]) {
    let Changed::Data {
        first,
        leaves,
        bytes: at,
        ..
    } = changed
    else {
        return;
    };
    let data = bytes[at.clone()].chunks(BLOCK_SIZE);
    assert_eq!(data.len(), leaves.len());
    for ((data, expected), block) in data.zip(leaves).zip(first.0..) {
        assert_eq!(leaf(geometry, BlockIndex(block), data), *expected);
    }
}

/// Each block that changed, and whether it is zero.
fn blocks_of(changed: &[Changed]) -> Vec<(u64, bool)> {
    let runs = runs(changed).into_iter();
    runs.flat_map(|(run, zero)| run.map(move |block| (block, zero)))
        .collect()
}

/// The blocks of each extent and whether it is zero.
fn runs(changed: &[Changed]) -> Vec<(Range<u64>, bool)> {
    let run = |changed: &Changed| match changed {
        Changed::Zero { first, count } => (first.0..first.0 + count, true),
        Changed::Data { first, leaves, .. } => (first.0..first.0 + leaves.len() as u64, false),
    };
    changed.iter().map(run).collect()
}

#[test]
fn an_untouched_sparse_source_is_neither_read_nor_changed() {
    let mut setup = Setup::new(8 << 40);
    let source = SourceVolume::open(&setup.image).unwrap();
    let mut scan = Scan::of_all(source.geometry(), READ_BLOCKS);
    let whole = Span::Hole {
        blocks: 0..(8 << 40) / BLOCK,
        changed: Vec::new(),
    };
    let mut step = || scan.next_span(&source, &mut setup.tree).unwrap();
    assert_eq!(step(), Some(whole), "in one step");
    assert_eq!(step(), None);
    assert_eq!(step(), None);
    assert_eq!(scan.counts().read, 0);
}

#[test]
fn only_what_changed_is_given_and_a_second_scan_after_the_commit_is_quiet() {
    let mut setup = Setup::new(600 * BLOCK + 100);
    setup.write(5 * BLOCK + 1, &[1; 2 * BLOCK_SIZE - 1]);
    setup.write(255 * BLOCK, &[3; 2 * BLOCK_SIZE]);
    setup.write(600 * BLOCK + 99, &[4]);
    let Found { changed, .. } = setup.scan();
    let expected = [5..7, 255..256, 256..257, 600..601].map(|run| (run, false));
    assert_eq!(runs(&changed), expected);
    setup.commit(&changed);
    assert!(setup.root_is_that_of_the_image());
    let Found {
        changed, counts, ..
    } = setup.scan();
    assert_eq!(changed, []);
    assert!(counts.read >= 5, "equality was seen, not assumed");
    setup.write(6 * BLOCK + 100, &[9]);
    let Found { changed, .. } = setup.scan();
    assert_eq!(runs(&changed), [(6..7, false)]);
}

#[test]
fn a_scan_alone_changes_nothing_in_the_tree() {
    let mut setup = Setup::new(300 * BLOCK);
    setup.write(7 * BLOCK, &[1; 3 * BLOCK_SIZE]);
    let first = setup.scan().changed;
    assert_eq!(runs(&first), [(7..10, false)]);
    assert_eq!(setup.scan().changed, first);
    assert!(setup.tree.is_blank());
}

#[test]
fn data_that_became_zero_is_found_whether_hole_or_not() {
    let mut setup = Setup::new(600 * BLOCK + 100);
    setup.write(0, &vec![1; 600 * BLOCK_SIZE + 100]);
    let Found { changed, .. } = setup.scan();
    assert_eq!(blocks_of(&changed).len(), 601);
    setup.commit(&changed);
    setup.punch(10 * BLOCK, 300 * BLOCK);
    setup.write(310 * BLOCK, &[0; 50 * BLOCK_SIZE]);
    setup.write(600 * BLOCK, &[0; 100]);
    let Found {
        changed, counts, ..
    } = setup.scan();
    let zeros = (10..360).chain(600..601).map(|block| (block, true));
    assert_eq!(blocks_of(&changed), zeros.collect::<Vec<_>>());
    assert_eq!(counts.holes, 300);
    setup.commit(&changed);
    assert!(setup.root_is_that_of_the_image());
    assert_eq!(setup.scan().changed, []);
}

#[test]
fn a_long_zero_run_is_given_in_bounded_pieces() {
    let mut setup = Setup::new(10_000 * BLOCK);
    let leaves = vec![Leaf([1; 32]); 10_000];
    setup.tree.set_run(BlockIndex(0), &leaves).unwrap();
    let Found { changed, .. } = setup.scan();
    let expected = [0..4096, 4096..8192, 8192..10_000].map(|run| (run, true));
    assert_eq!(runs(&changed), expected);
}

#[test]
fn a_torn_group_stops_the_scan_until_it_is_replaced() {
    let mut setup = Setup::new(600 * BLOCK);
    setup.write(0, &vec![1; 600 * BLOCK_SIZE]);
    let Found { changed, .. } = setup.scan();
    setup.commit(&changed);
    setup.tree.sync().unwrap();
    let entries = setup.tree.entries(GroupIndex(1)).unwrap().to_vec();
    let at = setup.folder.path().join("tree");
    let geometry = setup.tree.geometry();
    // The page of group 1: after the header, one page of records, and group 0.
    let file = OpenOptions::new().write(true).open(&at).unwrap();
    file.write_all_at(&[0xff; 8], 8192 + 8192).unwrap();
    drop(setup.tree);
    let mut tree = TreeFile::open(&at, VolumeTag([1; 16]), geometry).unwrap();

    let source = SourceVolume::open(&setup.image).unwrap();
    let mut scan = Scan::of_all(geometry, READ_BLOCKS);
    while scan.position().0 < GROUP_BLOCKS {
        scan.next_span(&source, &mut tree).unwrap();
    }
    for _ in 0..2 {
        let stopped = scan.next_span(&source, &mut tree);
        let group = match stopped {
            Err(ScanError::Tree(TreeError::Torn { group, .. })) => group,
            other => panic!("not stopped: {other:?}"),
        };
        assert_eq!(group, GroupIndex(1));
        assert_eq!(scan.position(), BlockIndex(GROUP_BLOCKS));
    }
    tree.replace(GroupIndex(1), &entries).unwrap();
    let found = finish(scan, &source, &mut tree);
    assert_eq!(found.changed, [], "it goes on where it stopped");
    assert_eq!(found.counts.read, 600);
}

#[test]
fn a_source_that_changed_its_length_is_not_scanned() {
    let mut setup = Setup::new(20 * BLOCK);
    let source = SourceVolume::open(&setup.image).unwrap();
    let file = OpenOptions::new().write(true).open(&setup.image).unwrap();
    file.set_len(21 * BLOCK).unwrap();
    let mut scan = Scan::of_all(source.geometry(), READ_BLOCKS);
    let grown = scan.next_span(&source, &mut setup.tree);
    assert!(matches!(
        grown,
        Err(ScanError::Source(SourceChanged::Grown { .. }))
    ));
    let mut scan = Scan::of_all(Geometry::new(BLOCK).unwrap(), READ_BLOCKS);
    let other = scan.next_span(&source, &mut setup.tree);
    assert!(matches!(other, Err(ScanError::Mismatch { .. })));
}

#[test]
fn readers_on_several_threads_find_what_one_finds() {
    let mut setup = Setup::new(2000 * BLOCK + 7);
    setup.write(3 * BLOCK, &vec![1; 900 * BLOCK_SIZE]);
    setup.write(1500 * BLOCK, &vec![2; 300 * BLOCK_SIZE]);
    for block in (0..2000).step_by(7) {
        setup.tree.set(BlockIndex(block), Leaf([1; 32])).unwrap();
    }
    let expected = blocks_of(&setup.scan().changed);
    let source = SourceVolume::open(&setup.image).unwrap();
    let cursor = Mutex::new((
        Scan::of_all(source.geometry(), READ_BLOCKS),
        &mut setup.tree,
    ));
    let read = || {
        let mut buf = AlignedBuf::new(READ_BLOCKS);
        let next = || {
            let (scan, tree) = &mut *cursor.lock().unwrap();
            scan.next_span(&source, tree).unwrap()
        };
        let mut found = Vec::new();
        while let Some(span) = next() {
            found.extend(look_at(&source, &span, &mut buf));
        }
        blocks_of(&found)
    };
    let mut found: Vec<(u64, bool)> = thread::scope(|scope| {
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
        let found = readers.into_iter().map(|reader| reader.join().unwrap());
        found.flatten().collect()
    });
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn what_lies_outside_a_dirty_set_is_neither_read_nor_looked_up() {
    let mut setup = Setup::new(1000 * BLOCK);
    setup.write(0, &vec![1; 1000 * BLOCK_SIZE]);
    let Found { changed, .. } = setup.scan();
    setup.commit(&changed);
    setup.tree.sync().unwrap();
    // Every page but that of group 2 is torn: whoever looks one up fails.
    let at = setup.folder.path().join("tree");
    let file = OpenOptions::new().write(true).open(&at).unwrap();
    for group in [0, 1, 3] {
        file.write_all_at(&[0xff; 8], 8192 + group * 8192).unwrap();
    }
    let geometry = setup.tree.geometry();
    drop(setup.tree);
    setup.tree = TreeFile::open(&at, VolumeTag([1; 16]), geometry).unwrap();

    setup.write(0, &[2; 1]);
    setup.write(520 * BLOCK, &[2; 2 * BLOCK_SIZE]);
    let mut dirty = DirtySet::new(geometry);
    for block in [520, 521, 523, 700] {
        dirty.mark(BlockIndex(block));
    }
    let found = setup.scan_dirty(dirty);
    assert_eq!(runs(&found.changed), [(520..522, false)]);
    assert_eq!(found.read, BTreeSet::from([520, 521, 523, 700]));
    assert_eq!(found.counts.clean, 996);
}

#[test]
fn a_dirty_block_in_a_hole_is_zero_without_being_read() {
    let mut setup = Setup::new(10_000 * BLOCK);
    setup.tree.set(BlockIndex(300), Leaf([1; 32])).unwrap();
    setup.tree.set(BlockIndex(301), Leaf([1; 32])).unwrap();
    let mut dirty = DirtySet::new(setup.tree.geometry());
    dirty.mark(BlockIndex(300));
    dirty.mark_range(5000 * BLOCK, 5000 * BLOCK);
    let found = setup.scan_dirty(dirty);
    assert_eq!(runs(&found.changed), [(300..301, true)]);
    let expected = ScanCounts {
        read: 0,
        holes: 5001,
        clean: 4999,
    };
    assert_eq!(found.counts, expected);
}

#[test]
fn a_hole_over_groups_with_data_is_taken_in_steps() {
    let mut setup = Setup::new(100 * GROUP_BLOCKS * BLOCK);
    for group in 0..100 {
        let first = BlockIndex(group * GROUP_BLOCKS);
        setup.tree.set(first, Leaf([1; 32])).unwrap();
        setup.tree.set_zero(first).unwrap();
    }
    let source = SourceVolume::open(&setup.image).unwrap();
    let mut scan = Scan::of_all(source.geometry(), READ_BLOCKS);
    let first = scan.next_span(&source, &mut setup.tree).unwrap().unwrap();
    assert_eq!(first.blocks(), 0..16 * GROUP_BLOCKS);
    assert_eq!(finish(scan, &source, &mut setup.tree).changed, []);
}

#[test]
fn a_block_device_gives_the_same_changes_as_its_image() {
    let mut setup = Setup::new(600 * BLOCK + 1024);
    setup.write(5 * BLOCK + 1, &[1]);
    setup.write(300 * BLOCK, &[2; 20 * BLOCK_SIZE]);
    setup.write(600 * BLOCK + 1023, &[3]);
    setup.tree.set(BlockIndex(8), Leaf([1; 32])).unwrap();
    let Some(device) = LoopDevice::attach(&setup.image) else {
        return;
    };
    let Found {
        changed, counts, ..
    } = scan(device.path(), &mut setup.tree);
    assert_eq!(counts.read, 601, "a device has no holes");
    let from_image = setup.scan().changed;
    assert_eq!(blocks_of(&changed), blocks_of(&from_image));
    setup.commit(&changed);
    assert!(setup.root_is_that_of_the_image());
}

#[derive(Clone, Debug)]
enum Edit {
    Write(u64, u64, u8),
    Punch(u64, u64),
    Commit,
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = 0..520 * BLOCK;
    prop_oneof![
        4 => (at.clone(), 1..4 * BLOCK, any::<u8>()).prop_map(|(at, len, fill)| Edit::Write(at, len, fill)),
        1 => (at.clone(), 1..60 * BLOCK).prop_map(|(at, len)| Edit::Write(at, len, 0)),
        2 => (at, 1..200 * BLOCK).prop_map(|(at, len)| Edit::Punch(at, len)),
        1 => Just(Edit::Commit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_edits_are_found_and_none_besides(edits in prop::collection::vec(edit(), 1..16)) {
        let length = 530 * BLOCK + 4097;
        let mut setup = Setup::new(length);
        let mut committed = vec![0; length as usize];
        for edit in edits {
            let is_commit = matches!(edit, Edit::Commit);
            setup.edit(edit, length);
            if is_commit {
                committed = fs::read(&setup.image).unwrap();
            }
        }
        let now = fs::read(&setup.image).unwrap();
        let pairs = committed.chunks(BLOCK_SIZE).zip(now.chunks(BLOCK_SIZE)).zip(0..);
        let expected: Vec<(u64, bool)> = pairs
            .filter(|((was, is), _)| was != is)
            .map(|((_, is), block)| (block, is_zero(is)))
            .collect();
        let Found { changed, counts, .. } = setup.scan();
        prop_assert_eq!(counts.read + counts.holes, 531);
        prop_assert_eq!(blocks_of(&changed), expected);
        setup.commit(&changed);
        prop_assert!(setup.root_is_that_of_the_image());
    }

    #[test]
    fn a_set_that_covers_the_writes_finds_what_a_scan_of_all_finds(
        before in prop::collection::vec(edit(), 0..6),
        after in prop::collection::vec(edit(), 0..6),
        more in prop::collection::vec((0..520 * BLOCK, 1..9 * BLOCK), 0..4),
    ) {
        let length = 530 * BLOCK + 4097;
        let mut setup = Setup::new(length);
        for edit in before {
            setup.edit(edit, length);
        }
        let Found { changed, .. } = setup.scan();
        setup.commit(&changed);
        let mut dirty = DirtySet::new(setup.tree.geometry());
        for edit in after {
            if let Edit::Write(at, len, _) | Edit::Punch(at, len) = edit {
                dirty.mark_range(at, len);
                setup.edit(edit, length);
            }
        }
        for (at, len) in more {
            dirty.mark_range(at, len);
        }
        let marked = (0..531).filter(|block| dirty.contains(BlockIndex(*block)));
        let marked: BTreeSet<u64> = marked.collect();
        let of_dirty = setup.scan_dirty(dirty);
        let of_all = setup.scan();
        prop_assert_eq!(blocks_of(&of_dirty.changed), blocks_of(&of_all.changed));
        prop_assert!(of_dirty.read.is_subset(&marked), "others are not read");
        let counts = of_dirty.counts;
        prop_assert_eq!(counts.read + counts.holes, marked.len() as u64);
        prop_assert_eq!(counts.clean, 531 - marked.len() as u64);
        for run in &of_dirty.changed {
            if let Changed::Data { first, leaves, is_fresh, .. } = run {
                for block in first.0..first.0 + leaves.len() as u64 {
                    let was_zero = setup.tree.is_zero_entry(BlockIndex(block)).unwrap();
                    prop_assert_eq!(was_zero, *is_fresh);
                }
            }
        }
    }
}
