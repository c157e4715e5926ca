//! Stored trees on real files, checked against a model in memory and damaged
//! by hand as crashes would.
#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use blocks::{BLOCK_SIZE, group_mark, group_node};
use proptest::prelude::*;

use super::layout::RECORD_LEN;
use super::pages::CACHED_GROUPS;
use super::*;

const TAG: VolumeTag = VolumeTag([7; 16]);
const GROUP: u64 = GROUP_BLOCKS * BLOCK_SIZE as u64;
const SECTOR: usize = 512;

fn geometry(length: u64) -> Geometry {
    Geometry::new(length).unwrap()
}

/// Two full groups and a partial one with a short last block.
fn three_groups() -> Geometry {
    geometry(2 * GROUP + 5 * BLOCK_SIZE as u64 + 10)
}

fn make(folder: &Path, geometry: Geometry) -> TreeFile {
    TreeFile::create(&folder.join("tree"), TAG, geometry).unwrap()
}

fn reopen(tree: TreeFile) -> TreeFile {
    let (path, geometry) = (tree.path.clone(), tree.geometry);
    drop(tree);
    TreeFile::open(&path, TAG, geometry).unwrap()
}

fn some_leaf(number: u64) -> Leaf {
    Leaf(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn is_torn<T>(result: Result<T, TreeError>, group: u64) -> bool {
    matches!(result, Err(TreeError::Torn { group: torn, .. }) if torn == GroupIndex(group))
}

#[test]
fn the_tree_of_zeros_has_the_root_of_zeros() {
    let folder = tempfile::tempdir().unwrap();
    for length in [1, 65_536, 65_537, GROUP, GROUP + 1, 9 * GROUP + 77] {
        let path = folder.path().join(length.to_string());
        let mut tree = TreeFile::create(&path, TAG, geometry(length)).unwrap();
        let expected = *blake3::hash(&vec![0; length as usize]).as_bytes();
        assert_eq!(tree.root().unwrap(), Root(expected), "{length} bytes");
        assert!(tree.is_blank());
        let mut tree = reopen(tree);
        let known = tree.nodes.iter().filter(|node| **node != UNKNOWN).count();
        assert_eq!(known as u64, tree.geometry.groups(), "nodes were stored");
        assert_eq!(tree.root().unwrap(), Root(expected));
    }
}

#[test]
fn the_tree_of_some_data_has_its_root() {
    let folder = tempfile::tempdir().unwrap();
    let geometry = three_groups();
    let mut tree = make(folder.path(), geometry);
    let mut content = vec![0; geometry.length() as usize];
    for block in [0, 1, 255, 256, 517].map(BlockIndex) {
        let range = geometry.block_range(block);
        let data = &mut content[range.start as usize..range.end as usize];
        data.fill((block.0 % 250) as u8 + 1);
        tree.set(block, blocks::leaf(geometry, block, data))
            .unwrap();
    }
    let expected = Root(*blake3::hash(&content).as_bytes());
    assert_eq!(tree.root().unwrap(), expected);
    tree.sync().unwrap();
    assert_eq!(reopen(tree).root().unwrap(), expected);
}

#[test]
fn four_tebibytes_of_zeros_are_made_opened_and_changed_in_a_sparse_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = make(folder.path(), geometry(4 << 40));
    for block in [0, 1 << 20, (1 << 26) - 1].map(BlockIndex) {
        tree.set(block, some_leaf(block.0)).unwrap();
    }
    tree.set_zero_run(BlockIndex(2 << 20), 50 << 20).unwrap();
    tree.sync().unwrap();
    let mut tree = reopen(tree);
    for block in [0, 1 << 20, (1 << 26) - 1] {
        let entries = tree.entries(BlockIndex(block).group()).unwrap();
        assert_eq!(entries[slot(BlockIndex(block))], some_leaf(block));
    }
    assert!(tree.is_blank_group(GroupIndex(77)));
    let allocated = tree.path.metadata().unwrap().blocks() * 512;
    assert!(allocated < 1 << 20, "{allocated} bytes are allocated");
}

#[test]
fn memory_stays_bounded_and_nothing_is_lost_when_pages_are_pushed_out() {
    let folder = tempfile::tempdir().unwrap();
    let groups = 3 * CACHED_GROUPS as u64;
    let mut tree = make(folder.path(), geometry(groups * GROUP));
    for group in 0..groups {
        tree.set(BlockIndex(group * GROUP_BLOCKS + 3), some_leaf(group))
            .unwrap();
        assert!(tree.pages.len() <= CACHED_GROUPS);
    }
    for group in 0..groups {
        let entries = tree.entries(GroupIndex(group)).unwrap();
        assert_eq!(entries[3], some_leaf(group));
        assert!(tree.pages.len() <= CACHED_GROUPS);
    }
}

#[test]
fn a_torn_page_is_noticed_when_used_and_settled_by_replacing_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = make(folder.path(), three_groups());
    tree.set(BlockIndex(3), some_leaf(3)).unwrap();
    tree.set(BlockIndex(300), some_leaf(300)).unwrap();
    let root = tree.root().unwrap();
    tree.sync().unwrap();
    let (mark, entries) = (
        tree.mark().unwrap(),
        tree.entries(GroupIndex(0)).unwrap().to_vec(),
    );
    overwrite(&tree.path, tree.layout.page(0) + 4096, &[1]);

    let mut tree = reopen(tree);
    assert_eq!(tree.torn_groups(), []);
    assert_eq!(tree.check().unwrap(), [GroupIndex(0)]);
    assert!(is_torn(tree.entries(GroupIndex(0)), 0));
    assert!(is_torn(tree.set(BlockIndex(3), some_leaf(4)), 0));
    assert!(is_torn(tree.set_zero(BlockIndex(3)), 0));
    assert!(is_torn(tree.root(), 0));
    assert!(is_torn(tree.mark(), 0));
    assert!(is_torn(tree.marks(GroupIndex(1), 1), 0));
    tree.entries(GroupIndex(1)).unwrap();
    tree.set(BlockIndex(301), ZERO_ENTRY).unwrap();

    tree.replace(GroupIndex(0), &entries).unwrap();
    assert_eq!(tree.mark().unwrap(), mark);
    assert_eq!(tree.root().unwrap(), root);
    assert!(tree.is_zero_entry(BlockIndex(4)).unwrap());
    tree.sync().unwrap();
    let mut tree = reopen(tree);
    assert_eq!(tree.check().unwrap(), []);
    assert_eq!(tree.root().unwrap(), root);
}

#[test]
fn a_record_that_is_damaged_or_missing_is_noticed_on_opening() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = make(folder.path(), three_groups());
    for block in [3, 300, 515] {
        tree.set(BlockIndex(block), some_leaf(block)).unwrap();
    }
    tree.sync().unwrap();
    overwrite(&tree.path, tree.layout.record(1) + 5, &[0xff]);
    overwrite(&tree.path, tree.layout.record(2), &[0; RECORD_LEN]);
    let tree = reopen(tree);
    assert_eq!(tree.torn_groups(), [GroupIndex(1), GroupIndex(2)]);
}

#[test]
fn a_group_that_becomes_zero_again_is_blank_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = make(folder.path(), three_groups());
    let zeros = tree.root().unwrap();
    tree.set_run(BlockIndex(250), &[some_leaf(1); 10]).unwrap();
    tree.sync().unwrap();
    let mut tree = reopen(tree);
    assert_ne!(tree.root().unwrap(), zeros);
    assert!(!tree.is_blank());
    tree.set_zero_run(BlockIndex(0), 518).unwrap();
    tree.sync().unwrap();
    assert!(tree.is_blank());
    let mut tree = reopen(tree);
    assert!(tree.is_blank());
    assert_eq!(tree.root().unwrap(), zeros);
}

#[test]
fn what_is_not_in_the_volume_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = make(folder.path(), three_groups());
    let outside = |result: Result<(), TreeError>| matches!(result, Err(TreeError::Outside { .. }));
    assert!(outside(tree.set(BlockIndex(518), some_leaf(1))));
    assert!(outside(tree.set_zero_run(BlockIndex(517), 2)));
    assert!(outside(tree.set_zero_run(BlockIndex(1), u64::MAX)));
    assert!(outside(tree.entries(GroupIndex(3)).map(drop)));
    assert!(outside(tree.marks(GroupIndex(1), 3).map(drop)));
    assert!(outside(tree.marks(GroupIndex(1), u64::MAX).map(drop)));
    let count = tree.replace(GroupIndex(2), &[some_leaf(1); 5]).unwrap_err();
    assert!(matches!(count, TreeError::WrongCount { have: 5, .. }));
    assert!(tree.is_blank());
}

#[test]
fn while_it_is_made_durable_a_commit_of_this_process_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = make(folder.path(), three_groups());
    tree.sync_by(|_| {
        assert_eq!(crate::committed(), None);
        Ok(())
    })
    .unwrap();
}

#[test]
fn after_a_failed_sync_every_call_fails_until_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = make(folder.path(), three_groups());
    let broken = |_: &File| Err(io::Error::from_raw_os_error(libc::EIO));
    assert!(matches!(
        tree.sync_by(broken),
        Err(TreeError::SyncFailed { .. })
    ));
    let failed =
        |result: Result<(), TreeError>| matches!(result, Err(TreeError::SyncFailed { .. }));
    assert!(failed(tree.sync()));
    assert!(failed(tree.set(BlockIndex(0), some_leaf(1))));
    assert!(failed(tree.set_zero(BlockIndex(0))));
    assert!(failed(tree.entries(GroupIndex(0)).map(drop)));
    assert!(failed(tree.mark().map(drop)));
    assert!(failed(tree.warm(1).map(drop)));
    assert!(failed(tree.root().map(drop)));
    reopen(tree).sync().unwrap();
}

#[test]
fn a_full_disk_loses_nothing_that_was_set() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = make(folder.path(), three_groups());
    tree.set(BlockIndex(3), some_leaf(3)).unwrap();
    let full = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/full")
        .unwrap();
    let file = std::mem::replace(&mut tree.file, LockedFile(full));
    assert!(matches!(tree.sync(), Err(TreeError::Full { .. })));
    tree.file = file;
    tree.sync().unwrap();
    let mut tree = reopen(tree);
    assert_eq!(tree.entries(GroupIndex(0)).unwrap()[3], some_leaf(3));
}

#[test]
fn a_tree_of_another_volume_or_format_or_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let geometry = three_groups();
    let tree = make(folder.path(), geometry);
    let path = tree.path.clone();
    let open = |tag, geometry| TreeFile::open(&path, tag, geometry).unwrap_err();
    assert!(matches!(open(TAG, geometry), OpenTreeError::Busy { .. }));
    drop(tree);
    let exists = TreeFile::create(&path, TAG, geometry).unwrap_err();
    assert!(matches!(exists, OpenTreeError::Exists { .. }));
    let other = open(VolumeTag([8; 16]), geometry);
    assert!(matches!(other, OpenTreeError::OtherVolume { .. }));
    let longer = Geometry::new(geometry.length() + 1).unwrap();
    assert!(matches!(
        open(TAG, longer),
        OpenTreeError::OtherVolume { .. }
    ));

    let bytes = fs::read(&path).unwrap();
    overwrite(&path, 8, &[9]);
    assert!(matches!(
        open(TAG, geometry),
        OpenTreeError::NewerVersion { have: 9, .. }
    ));
    overwrite(&path, 8, &[1]);
    let older = open(TAG, geometry);
    assert!(matches!(older, OpenTreeError::Corrupt { why, .. } if why.contains("earlier version")));
    overwrite(&path, 8, &bytes[8..20]);
    overwrite(&path, 20, &[0]);
    assert!(matches!(open(TAG, geometry), OpenTreeError::Corrupt { .. }));
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(open(TAG, geometry), OpenTreeError::Corrupt { .. }));
    for foreign in [&b""[..], &[7; 10_000]] {
        fs::write(&path, foreign).unwrap();
        assert!(matches!(
            open(TAG, geometry),
            OpenTreeError::NotATree { .. }
        ));
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(open(TAG, geometry), OpenTreeError::Missing { .. }));
    TreeFile::open_or_create(&path, TAG, geometry).unwrap();
    TreeFile::open_or_create(&path, TAG, geometry).unwrap();
}

#[derive(Clone, Debug)]
enum Change {
    Set(u64, u64),
    Zero(u64, u64),
    Replace(u64, u64),
    Warm(usize),
    Mark,
    Sync,
    Reopen,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..518u64, 1..40u64).prop_map(|(at, count)| Change::Set(at, count)),
        3 => (0..518u64, 1..300u64).prop_map(|(at, count)| Change::Zero(at, count)),
        1 => (0..3u64, any::<u64>()).prop_map(|(group, seed)| Change::Replace(group, seed)),
        1 => (0..4usize).prop_map(Change::Warm),
        1 => Just(Change::Mark),
        1 => Just(Change::Sync),
        1 => Just(Change::Reopen),
    ]
}

/// Applies a change to the tree and to the entries it should have.
fn apply(change: &Change, seed: u64, tree: &mut TreeFile, model: &mut [Leaf]) {
    let end = |at: u64, count: u64| (at + count).min(model.len() as u64);
    match *change {
        Change::Set(at, count) => {
            let leaves: Vec<Leaf> = (at..end(at, count)).map(|b| some_leaf(b ^ seed)).collect();
            tree.set_run(BlockIndex(at), &leaves).unwrap();
            model[at as usize..][..leaves.len()].copy_from_slice(&leaves);
        }
        Change::Zero(at, count) => {
            let end = end(at, count);
            tree.set_zero_run(BlockIndex(at), end - at).unwrap();
            model[at as usize..end as usize].fill(ZERO_ENTRY);
        }
        Change::Replace(group, number) => {
            let blocks = tree.geometry.group_blocks(GroupIndex(group));
            let leaves: Vec<Leaf> = blocks.clone().map(|b| some_leaf(b ^ number)).collect();
            tree.replace(GroupIndex(group), &leaves).unwrap();
            model[blocks.start as usize..blocks.end as usize].copy_from_slice(&leaves);
        }
        Change::Warm(groups) => drop(tree.warm(groups).unwrap()),
        Change::Mark => drop(tree.mark().unwrap()),
        Change::Sync | Change::Reopen => tree.sync().unwrap(),
    }
}

fn expected_mark(geometry: Geometry, model: &[Leaf]) -> Mark {
    let marks = model.chunks(GROUP_BLOCKS as usize).map(group_mark);
    tree_mark(geometry, marks)
}

fn expected_root(geometry: Geometry, model: &[Leaf]) -> Root {
    let nodes = (0..geometry.groups()).map(GroupIndex).map(|group| {
        let blocks = geometry.group_blocks(group);
        let entries = &model[blocks.start as usize..blocks.end as usize];
        group_node(geometry, group, entries)
    });
    root(geometry, nodes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_changes_leave_what_a_plain_list_of_leaves_would_hold(
        changes in prop::collection::vec(change(), 1..24),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let geometry = three_groups();
        let mut tree = make(folder.path(), geometry);
        let mut model = vec![ZERO_ENTRY; 518];
        for (change, seed) in changes.iter().zip(1000..) {
            apply(change, seed, &mut tree, &mut model);
            if matches!(change, Change::Reopen) {
                tree = reopen(tree);
            }
        }
        for group in (0..3).map(GroupIndex) {
            let blocks = geometry.group_blocks(group);
            let expected = &model[blocks.start as usize..blocks.end as usize];
            prop_assert_eq!(tree.entries(group).unwrap(), expected);
        }
        prop_assert_eq!(tree.mark().unwrap(), expected_mark(geometry, &model));
        prop_assert_eq!(tree.root().unwrap(), expected_root(geometry, &model));
    }

    /// The file after a crash holds any mix of the sectors that were durable
    /// and those that were written since.
    #[test]
    fn after_a_crash_every_group_is_old_or_new_or_known_to_be_torn(
        before in prop::collection::vec(change(), 0..8),
        after in prop::collection::vec(change(), 1..8),
        kept in prop::collection::vec(any::<bool>(), 64),
        with_nodes in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let geometry = three_groups();
        let mut tree = make(folder.path(), geometry);
        let path = tree.path.clone();
        let mut old = vec![ZERO_ENTRY; 518];
        for (change, seed) in before.iter().zip(1000..) {
            apply(change, seed, &mut tree, &mut old);
        }
        tree.sync().unwrap();
        let old_bytes = fs::read(&path).unwrap();
        let mut new = old.clone();
        for (change, seed) in after.iter().zip(2000..) {
            apply(change, seed, &mut tree, &mut new);
        }
        if with_nodes {
            tree.root().unwrap();
        }
        tree.sync().unwrap();
        drop(tree);
        let mut bytes = fs::read(&path).unwrap();
        prop_assert_eq!(bytes.len(), 64 * SECTOR);
        for (sector, kept) in kept.iter().enumerate() {
            if !kept {
                let at = sector * SECTOR..(sector + 1) * SECTOR;
                bytes[at.clone()].copy_from_slice(&old_bytes[at]);
            }
        }
        fs::write(&path, bytes).unwrap();

        let mut tree = TreeFile::open(&path, TAG, geometry).unwrap();
        tree.check().unwrap();
        let mut held = Vec::new();
        for group in (0..3).map(GroupIndex) {
            let blocks = geometry.group_blocks(group);
            let range = blocks.start as usize..blocks.end as usize;
            let entries = match tree.entries(group) {
                Ok(entries) => entries.to_vec(),
                Err(TreeError::Torn { .. }) => {
                    tree.replace(group, &new[range.clone()]).unwrap();
                    new[range.clone()].to_vec()
                }
                Err(error) => panic!("{error}"),
            };
            prop_assert!(entries == old[range.clone()] || entries == new[range]);
            held.extend(entries);
        }
        prop_assert_eq!(tree.mark().unwrap(), expected_mark(geometry, &held));
        prop_assert_eq!(tree.root().unwrap(), expected_root(geometry, &held));
    }
}

/// The bytes of a volume by a number for each block, 0 for zeros.
fn bytes_of(geometry: Geometry, numbers: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(geometry.length() as usize);
    for (block, number) in (0..).zip(numbers) {
        let end = bytes.len() + geometry.block_len(BlockIndex(block));
        bytes.resize(end, *number);
    }
    bytes
}

fn entry_of(geometry: Geometry, block: u64, number: u8) -> Leaf {
    let block = BlockIndex(block);
    match number {
        0 => ZERO_ENTRY,
        _ => blocks::leaf(geometry, block, &vec![number; geometry.block_len(block)]),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(u64, u64, u8),
    Zero(u64, u64),
    Replace(u64, u8),
    Warm(usize),
    Root,
    Mark,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..518u64, 1..20u64, 1..=255u8).prop_map(|(at, n, to)| Step::Set(at, n, to)),
        2 => (0..518u64, 1..300u64).prop_map(|(at, n)| Step::Zero(at, n)),
        1 => (0..3u64, any::<u8>()).prop_map(|(group, to)| Step::Replace(group, to)),
        1 => (1..3usize).prop_map(Step::Warm),
        1 => Just(Step::Root),
        1 => Just(Step::Mark),
        1 => Just(Step::Reopen),
    ]
}

/// Does a step with the tree and with the numbers of its blocks.
fn take(step: &Step, mut tree: TreeFile, numbers: &mut [u8]) -> TreeFile {
    let geometry = tree.geometry;
    let cut = |at: u64, count: u64| at..(at + count).min(518);
    match *step {
        Step::Set(at, count, number) => {
            for block in cut(at, count) {
                numbers[block as usize] = number;
                let leaf = entry_of(geometry, block, number);
                tree.set(BlockIndex(block), leaf).unwrap();
            }
        }
        Step::Zero(at, count) => {
            let run = cut(at, count);
            numbers[run.start as usize..run.end as usize].fill(0);
            tree.set_zero_run(BlockIndex(at), run.end - run.start)
                .unwrap();
        }
        Step::Replace(group, number) => {
            let blocks = geometry.group_blocks(GroupIndex(group));
            // A group with some blocks of zeros, or all of them.
            let fill = |block: u64| number * u8::from(block.is_multiple_of(37));
            let entries: Vec<Leaf> = blocks
                .clone()
                .map(|block| entry_of(geometry, block, fill(block)))
                .collect();
            blocks.for_each(|block| numbers[block as usize] = fill(block));
            tree.replace(GroupIndex(group), &entries).unwrap();
        }
        Step::Warm(groups) => drop(tree.warm(groups).unwrap()),
        Step::Root => drop(tree.root().unwrap()),
        Step::Mark => drop(tree.mark().unwrap()),
        Step::Reopen => {
            tree.sync().unwrap();
            return reopen(tree);
        }
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn trees_of_the_same_bytes_have_one_mark_however_made_and_the_root_of_the_bytes(
        steps in prop::collection::vec(step(), 1..16),
        at in 0..518usize,
        warmed in 0..4usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let geometry = three_groups();
        let mut tree = make(folder.path(), geometry);
        let mut numbers = vec![0; 518];
        for step in &steps {
            tree = take(step, tree, &mut numbers);
        }
        // One that took all of it over from another end, and one that was set block by block.
        let others = tempfile::tempdir().unwrap();
        let mut adopted = TreeFile::create(&others.path().join("a"), TAG, geometry).unwrap();
        let mut set = TreeFile::create(&others.path().join("s"), TAG, geometry).unwrap();
        for group in (0..3).map(GroupIndex) {
            adopted.replace(group, tree.entries(group).unwrap()).unwrap();
        }
        for (block, number) in (0..).zip(&numbers) {
            set.set(BlockIndex(block), entry_of(geometry, block, *number)).unwrap();
        }
        let mark = tree.mark().unwrap();
        prop_assert_eq!(adopted.mark().unwrap(), mark);
        prop_assert_eq!(set.mark().unwrap(), mark);
        let root = Root(*blake3::hash(&bytes_of(geometry, &numbers)).as_bytes());
        tree.warm(warmed).unwrap();
        prop_assert_eq!(tree.mark().unwrap(), mark);
        for tree in [&mut tree, &mut adopted, &mut set] {
            prop_assert_eq!(tree.root().unwrap(), root);
            prop_assert!(!tree.warm(1).unwrap(), "all nodes are known");
        }
        tree.sync().unwrap();
        let mut tree = reopen(tree);
        prop_assert_eq!(tree.mark().unwrap(), mark);
        prop_assert_eq!(tree.root().unwrap(), root);
        // And other bytes have another mark, and another root.
        let number = numbers[at].wrapping_add(1);
        let other = entry_of(geometry, at as u64, number);
        tree.set(BlockIndex(at as u64), other).unwrap();
        prop_assert_ne!(tree.mark().unwrap(), mark);
        prop_assert_ne!(tree.root().unwrap(), root);
    }
}

#[test]
fn warming_goes_on_where_it_was_survives_a_restart_and_begins_again_where_something_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = make(folder.path(), three_groups());
    let zeros = Root(*blake3::hash(&vec![0; tree.geometry.length() as usize]).as_bytes());
    let known = |tree: &TreeFile| -> Vec<bool> {
        let nodes = tree.nodes.iter();
        nodes.map(|node| *node != UNKNOWN).collect()
    };
    tree.mark().unwrap();
    assert_eq!(known(&tree), [false; 3], "a mark computes no node");
    assert!(tree.warm(2).unwrap());
    assert_eq!(known(&tree), [true, true, false]);
    let mut tree = reopen(tree);
    assert_eq!(known(&tree), [true, true, false]);
    assert!(!tree.warm(2).unwrap());
    assert_eq!(tree.root().unwrap(), zeros);
    tree.set(BlockIndex(3), some_leaf(3)).unwrap();
    assert_eq!(known(&tree), [false, true, true]);
    tree.set_zero(BlockIndex(3)).unwrap();
    assert!(!tree.warm(1).unwrap());
    assert_eq!(tree.root().unwrap(), zeros);
}

#[test]
fn a_failure_while_warming_leaves_what_it_did_not_compute_to_the_root() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    // A page that cannot be read, and records that cannot be written.
    for stored in [Some(300), None] {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = make(folder.path(), three_groups());
        let mut model = vec![ZERO_ENTRY; 518];
        if let Some(block) = stored {
            model[block as usize] = some_leaf(block);
            tree.set(BlockIndex(block), some_leaf(block)).unwrap();
            tree.sync().unwrap();
            tree = reopen(tree);
        }
        let file = std::mem::replace(&mut tree.file, LockedFile(full()));
        assert!(tree.warm(3).is_err());
        tree.file = file;
        assert_eq!(tree.root().unwrap(), expected_root(tree.geometry, &model));
    }
}
