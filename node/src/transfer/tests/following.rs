//! Sessions whose source somebody follows: what they read, and what they tell.

use blocks::{GroupIndex, ZERO_ENTRY};
use crdt::PassRead;
use volumes::{TreeFile, VolumeTag};

use super::*;

/// Three groups of 16 MiB.
const GROUPS: usize = 48 * MIB;

/// Puts the target back to what it held once: zeros in a group.
fn forget_group(world: &World, group: u64) {
    let geometry = Geometry::new(world.length).unwrap();
    let mut tree = TreeFile::open(&world.target_tree(), VolumeTag([4; 16]), geometry).unwrap();
    let blocks = geometry.group_blocks(GroupIndex(group));
    let zeros = vec![ZERO_ENTRY; (blocks.end - blocks.start) as usize];
    tree.replace(GroupIndex(group), &zeros).unwrap();
    tree.sync().unwrap();
    let target = OpenOptions::new().write(true).open(world.target()).unwrap();
    let (offset, bytes) = (blocks.start * BLOCK as u64, vec![0; zeros.len() * BLOCK]);
    target.write_all_at(&bytes, offset).unwrap();
}

fn marked(world: &World, blocks: &[u64]) -> DirtySet {
    let mut dirty = DirtySet::new(Geometry::new(world.length).unwrap());
    for block in blocks {
        dirty.mark(BlockIndex(*block));
    }
    dirty
}

#[tokio::test]
async fn a_pass_that_nothing_is_known_for_reads_all_and_the_next_what_is_marked() {
    let world = World::new(GROUPS);
    let mut running = world.start().await;
    let first = running.pass_by(1, false).await;
    assert_eq!(first.reading.read, PassRead::Whole);
    let why = first.reading.read_by;
    assert_eq!(why.as_deref(), Some("nothing was given"));
    until(|| world.given.with(|state| state.settled) == 1).await;
    world.write_source(5, &noise(9, BLOCK));
    world.write_source(300, &noise(10, BLOCK));
    world
        .given
        .with(|state| state.dirty = Some(marked(&world, &[5, 300, 700])));
    let before = running.sending.bytes_read.load(Relaxed);
    let second = running.pass_by(2, false).await;
    assert_eq!((second.reading.read, second.blocks), (PassRead::Tracked, 2));
    let read = running.sending.bytes_read.load(Relaxed) - before;
    assert_eq!(read, 3 * BLOCK as u64);
    running.close().await;
    assert_eq!(world.given.with(|state| state.settled), 2);
    world.assert_equal();
}

#[tokio::test]
async fn a_pass_over_all_begins_and_settles_what_is_followed_too() {
    let world = World::new(GROUPS);
    let mut running = world.start().await;
    running.pass_by(1, false).await;
    world.write_source(5, &noise(9, BLOCK));
    world
        .given
        .with(|state| state.dirty = Some(marked(&world, &[])));
    let done = running.pass_by(2, true).await;
    assert_eq!((done.reading.read, done.blocks), (PassRead::Whole, 1));
    running.close().await;
    let (collected, settled) = world.given.with(|state| (state.collected, state.settled));
    assert_eq!((collected, settled), (2, 2));
    world.assert_equal();
}

#[tokio::test]
async fn what_is_taken_from_the_other_end_is_owed_before_it_is_taken() {
    let world = World::new(GROUPS);
    let mut running = world.start().await;
    running.pass_by(1, false).await;
    running.close().await;
    forget_group(&world, 1);
    let mut running = world.start().await;
    world
        .given
        .with(|state| state.dirty = Some(marked(&world, &[])));
    let done = running.pass_by(1, false).await;
    assert_eq!(
        (done.reading.read, done.groups_adopted),
        (PassRead::Tracked, 1)
    );
    // This tracker does not put what is owed into the set, so that nothing is sent.
    assert_eq!(done.blocks, 0);
    running.close().await;
    let (told, owed) = world.given.with(|state| (state.told, state.owed.len()));
    assert_eq!((told, owed), (1, 0), "it was settled");
}

#[tokio::test]
async fn a_session_ends_where_it_cannot_say_what_it_takes_from_the_other_end() {
    let world = World::new(GROUPS);
    let mut running = world.start().await;
    running.pass_by(1, false).await;
    running.close().await;
    forget_group(&world, 1);
    let (tree, mut near) = (world.source_tree(), world.start().await);
    world.given.with(|state| state.is_lost = true);
    let last = near.last_sent().await;
    let SendEvent::SourceFailed(why) = last else {
        panic!("{last:?}");
    };
    assert!(why.contains("followed no more"), "{why}");
    // In the next session nobody follows, and what was remembered of the tree is void.
    let mut running = world.start().await;
    let done = running.pass_by(1, false).await;
    assert_eq!((done.reading.read, done.blocks), (PassRead::Whole, 256));
    running.close().await;
    world.assert_equal();
    world.given.with(|state| state.is_lost = false);
    let mut running = world.start().await;
    running.pass_by(1, false).await;
    running.close().await;
    let trees = world.given.with(|state| state.trees.clone());
    assert_ne!(trees.first(), trees.last(), "{}", tree.display());
}

#[tokio::test]
async fn a_tree_that_is_made_anew_has_another_name() {
    let world = World::new(GROUPS);
    for _ in 0..2 {
        let mut running = world.start().await;
        running.pass_by(1, false).await;
        running.close().await;
    }
    fs::remove_file(world.source_tree()).unwrap();
    let mut running = world.start().await;
    running.pass_by(1, false).await;
    running.close().await;
    // Damaged as a whole.
    fs::write(world.source_tree(), b"nonsense").unwrap();
    let mut running = world.start().await;
    let done = running.pass_by(1, false).await;
    assert_eq!(done.reading.read, PassRead::Whole);
    running.close().await;
    let mut trees = world.given.with(|state| state.trees.clone());
    assert_eq!(trees[0], trees[1]);
    trees.dedup();
    assert_eq!(trees.len(), 3, "{trees:?}");
}

#[tokio::test]
async fn a_tracker_that_is_lost_costs_a_whole_pass_and_is_sought_again() {
    let world = World::new(GROUPS);
    let mut running = world.start().await;
    running.pass_by(1, false).await;
    world.given.with(|state| state.is_lost = true);
    let lost = running.pass_by(2, false).await;
    assert_eq!(lost.reading.read, PassRead::Whole);
    world.given.with(|state| state.is_lost = false);
    world
        .given
        .with(|state| state.dirty = Some(marked(&world, &[])));
    let found = running.pass_by(3, false).await;
    assert_eq!(found.reading.read, PassRead::Tracked);
    running.close().await;
}
