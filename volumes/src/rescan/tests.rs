//! Scans of real files, and of loop devices where the test runs as root.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use blocks::GROUP_BLOCKS;
use proptest::prelude::*;
use rustix::fs::{FallocateFlags, fallocate};

use super::*;
use crate::VolumeTag;
use crate::loop_device::LoopDevice;

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

    fn scan(&mut self) -> (Vec<Changed>, ScanCounts) {
        scan(&self.image, &mut self.tree)
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

    fn root_is_that_of_the_image(&mut self) -> bool {
        let expected = blake3::hash(&fs::read(&self.image).unwrap());
        self.tree.root().unwrap().0 == *expected.as_bytes()
    }
}

fn scan(path: &Path, tree: &mut TreeFile) -> (Vec<Changed>, ScanCounts) {
    let source = SourceVolume::open(path).unwrap();
    let mut tracker = RescanTracker::new(source.geometry());
    let mut buf = AlignedBuf::new(READ_BLOCKS);
    let mut all = Vec::new();
    loop {
        match tracker.next_changed(&source, tree, &mut buf).unwrap() {
            Scanned::Changed(changed) => {
                for changed in &changed {
                    assert_leaves_fit_the_bytes(tree.geometry(), changed, &buf);
                }
                all.extend(changed);
            }
            Scanned::Quiet => {}
            Scanned::End => return (all, tracker.counts()),
        }
    }
}

fn assert_leaves_fit_the_bytes(geometry: Geometry, changed: &Changed, buf: &AlignedBuf) {
    let Changed::Data {
        first,
        leaves,
        bytes,
    } = changed
    else {
        return;
    };
    assert!(leaves.len() as u64 <= READ_BLOCKS);
    let data = buf.bytes()[bytes.clone()].chunks(BLOCK_SIZE);
    assert_eq!(data.len(), leaves.len());
    for ((data, expected), block) in data.zip(leaves).zip(first.0..) {
        assert_eq!(leaf(geometry, BlockIndex(block), data), *expected);
    }
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
    let (changed, counts) = setup.scan();
    assert_eq!(changed, []);
    let blocks = (8 << 40) / BLOCK;
    let expected = ScanCounts {
        read: 0,
        skipped: blocks,
        changed: 0,
    };
    assert_eq!(counts, expected);
}

#[test]
fn only_what_changed_is_given_and_a_second_scan_after_the_commit_is_quiet() {
    let mut setup = Setup::new(600 * BLOCK + 100);
    setup.write(5 * BLOCK + 1, &[1; 2 * BLOCK_SIZE - 1]);
    setup.write(255 * BLOCK, &[3; 2 * BLOCK_SIZE]);
    setup.write(600 * BLOCK + 99, &[4]);
    let (changed, _) = setup.scan();
    let expected = [5..7, 255..256, 256..257, 600..601].map(|run| (run, false));
    assert_eq!(runs(&changed), expected);
    setup.commit(&changed);
    assert!(setup.root_is_that_of_the_image());
    let (changed, counts) = setup.scan();
    assert_eq!(changed, []);
    assert!(counts.read >= 5, "equality was seen, not assumed");
    setup.write(6 * BLOCK + 100, &[9]);
    let (changed, _) = setup.scan();
    assert_eq!(runs(&changed), [(6..7, false)]);
}

#[test]
fn a_scan_alone_changes_nothing_in_the_tree() {
    let mut setup = Setup::new(300 * BLOCK);
    setup.write(7 * BLOCK, &[1; 3 * BLOCK_SIZE]);
    let first = setup.scan();
    assert_eq!(first.1.changed, 3);
    assert_eq!(setup.scan(), first);
    assert!(setup.tree.is_blank());
}

#[test]
fn data_that_became_zero_is_one_zero_extent_whether_hole_or_not() {
    let mut setup = Setup::new(600 * BLOCK + 100);
    setup.write(0, &vec![1; 600 * BLOCK_SIZE + 100]);
    let (changed, counts) = setup.scan();
    assert_eq!(counts.changed, 601);
    setup.commit(&changed);
    setup.punch(10 * BLOCK, 300 * BLOCK);
    setup.write(310 * BLOCK, &[0; 50 * BLOCK_SIZE]);
    setup.write(600 * BLOCK, &[0; 100]);
    let (changed, counts) = setup.scan();
    assert_eq!(runs(&changed), [(10..360, true), (600..601, true)]);
    assert_eq!(counts.skipped, 300);
    setup.commit(&changed);
    assert!(setup.root_is_that_of_the_image());
    assert_eq!(setup.scan().0, []);
}

#[test]
fn a_long_zero_run_is_given_in_bounded_pieces() {
    let mut setup = Setup::new(10_000 * BLOCK);
    let leaves = vec![Leaf([1; 32]); 10_000];
    setup.tree.set_run(BlockIndex(0), &leaves).unwrap();
    let (changed, _) = setup.scan();
    let expected = [0..4096, 4096..8192, 8192..10_000].map(|run| (run, true));
    assert_eq!(runs(&changed), expected);
}

#[test]
fn a_scan_without_changes_returns_now_and_then() {
    let mut setup = Setup::new(4000 * BLOCK);
    setup.write(3999 * BLOCK, &[1]);
    let source = SourceVolume::open(&setup.image).unwrap();
    let mut tracker = RescanTracker::new(source.geometry());
    let mut buf = AlignedBuf::new(READ_BLOCKS);
    let mut step = || {
        tracker
            .next_changed(&source, &mut setup.tree, &mut buf)
            .unwrap()
    };
    for _ in 0..3 {
        assert_eq!(step(), Scanned::Quiet);
    }
    assert!(matches!(step(), Scanned::Changed(_)));
    assert_eq!(step(), Scanned::End);
}

#[test]
fn a_torn_group_stops_the_scan_until_it_is_replaced() {
    let mut setup = Setup::new(600 * BLOCK);
    setup.write(0, &vec![1; 600 * BLOCK_SIZE]);
    let (changed, _) = setup.scan();
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
    let mut tracker = RescanTracker::new(geometry);
    let mut buf = AlignedBuf::new(READ_BLOCKS);
    for _ in 0..2 {
        let stopped = tracker.next_changed(&source, &mut tree, &mut buf);
        let group = match stopped {
            Err(ScanError::Tree(TreeError::Torn { group, .. })) => group,
            other => panic!("not stopped: {other:?}"),
        };
        assert_eq!(group, GroupIndex(1));
        assert_eq!(tracker.position(), BlockIndex(GROUP_BLOCKS));
    }
    tree.replace(GroupIndex(1), &entries).unwrap();
    let end = tracker.next_changed(&source, &mut tree, &mut buf).unwrap();
    assert_eq!(end, Scanned::End);
}

#[test]
fn a_source_that_changed_its_length_ends_no_scan() {
    let mut setup = Setup::new(20 * BLOCK);
    let source = SourceVolume::open(&setup.image).unwrap();
    let mut buf = AlignedBuf::new(READ_BLOCKS);
    let file = OpenOptions::new().write(true).open(&setup.image).unwrap();

    let mut tracker = RescanTracker::new(source.geometry());
    file.set_len(21 * BLOCK).unwrap();
    let grown = tracker.next_changed(&source, &mut setup.tree, &mut buf);
    assert!(matches!(
        grown,
        Err(ScanError::Source(SourceChanged::Grown { .. }))
    ));

    file.set_len(20 * BLOCK).unwrap();
    setup.write(0, &[1; 20 * BLOCK_SIZE]);
    let first = tracker.next_changed(&source, &mut setup.tree, &mut buf);
    assert!(matches!(first, Ok(Scanned::Changed(_))));
    file.set_len(17 * BLOCK).unwrap();
    let shrunk = tracker.next_changed(&source, &mut setup.tree, &mut buf);
    assert!(matches!(
        shrunk,
        Err(ScanError::Read(ReadError::Short { .. }))
    ));

    let mut tracker = RescanTracker::new(Geometry::new(BLOCK).unwrap());
    let other = tracker.next_changed(&source, &mut setup.tree, &mut buf);
    assert!(matches!(other, Err(ScanError::Mismatch { .. })));
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
    let (changed, counts) = scan(device.path(), &mut setup.tree);
    assert_eq!(counts.read, 601, "a device has no holes");
    let touched = |changed: &[Changed]| -> Vec<(u64, bool)> {
        let runs = runs(changed).into_iter();
        runs.flat_map(|(run, zero)| run.map(move |block| (block, zero)))
            .collect()
    };
    let (from_image, _) = setup.scan();
    assert_eq!(touched(&changed), touched(&from_image));
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
            match edit {
                Edit::Write(at, len, fill) => {
                    let len = len.min(length - at);
                    setup.write(at, &vec![fill; len as usize]);
                }
                Edit::Punch(at, len) => setup.punch(at, len.min(length - at)),
                Edit::Commit => {
                    let (changed, _) = setup.scan();
                    setup.commit(&changed);
                    committed = fs::read(&setup.image).unwrap();
                }
            }
        }
        let now = fs::read(&setup.image).unwrap();
        let pairs = committed.chunks(BLOCK_SIZE).zip(now.chunks(BLOCK_SIZE)).zip(0..);
        let expected: Vec<(u64, bool)> = pairs
            .filter(|((was, is), _)| was != is)
            .map(|((_, is), block)| (block, is_zero(is)))
            .collect();
        let (changed, counts) = setup.scan();
        let found: Vec<(u64, bool)> = runs(&changed)
            .into_iter()
            .flat_map(|(run, zero)| run.map(move |block| (block, zero)))
            .collect();
        prop_assert_eq!(counts.changed, expected.len() as u64);
        prop_assert_eq!(counts.read + counts.skipped, 531);
        prop_assert_eq!(found, expected);
        setup.commit(&changed);
        prop_assert!(setup.root_is_that_of_the_image());
    }
}
