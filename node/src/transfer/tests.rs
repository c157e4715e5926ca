//! Whole sessions between real files over loopback sockets.
#![allow(clippy::unwrap_used)]

mod following;
pub(crate) mod given;
mod kills;
mod leaving_out;
pub(crate) mod noting;
mod offers;
mod out_of_turn;
mod paced;
mod polite;
mod sharing;
pub(crate) mod world;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use blocks::{
    BLANK_MARK, BlockIndex, DirtySet, Encoding, Geometry, Leaf, RefusalCode, Root, ToSource,
    ToTarget, leaf,
};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use self::world::{
    BLOCK, LEASE_SECS, Wire, World, granted, last_of, noise, pair, permits, permits_since, until,
};
use super::*;
use crate::clock;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_full_pass_makes_the_target_the_source_and_states_its_root() {
    let world = World::new(40 * MIB + 12_345);
    world.write_source(100, &vec![0; 50 * BLOCK]);
    let mut running = world.start().await;
    let done = running.pass(1).await;
    assert_eq!(done.blocks, 641 - 50);
    assert_eq!(done.bytes, (40 * MIB + 12_345 - 50 * BLOCK) as u64);
    world.assert_equal();
    let read_back = true;
    running.command(SendCommand::Finish { read_back }).await;
    let root = world.source_root();
    let proof = format!("{} true", Root(root)).into_bytes();
    assert_eq!(
        running.next_sent().await,
        SendEvent::Finished {
            root,
            read_back,
            proof
        }
    );
    assert_eq!(running.last_sent().await, SendEvent::Closed);
    let last = running.last_received().await;
    assert!(matches!(last, ReceiveEvent::Ended(_)), "{last:?}");
    // Barriers are small in tests, so there were several.
    let barrier = world.durable();
    assert!(barrier > 2, "{barrier}");
    assert_eq!(world.root_of(&world.target_tree(), 4), root);
    assert_eq!(world.root_of(&world.source_tree(), 3), root);
    assert_eq!(running.receiving.blocks_sent.load(Relaxed), 591);
    assert_eq!(running.sending.blocks_looked_at.load(Relaxed), 641);
    assert_eq!(running.receiving.bytes_reread.load(Relaxed), world.length);
}

#[tokio::test]
async fn a_root_for_a_checkpoint_asks_nothing_of_the_target_and_the_session_goes_on() {
    let world = World::new(3 * MIB);
    let mut running = world.start().await;
    running.pass(1).await;
    running.command(SendCommand::StateRoot).await;
    let root = SendEvent::Rooted(world.source_root());
    assert_eq!(running.next_sent().await, root);
    world.write_source(3, &noise(7, BLOCK));
    assert_eq!(running.pass(2).await.blocks, 1);
    world.assert_equal();
    running.close().await;
}

/// Groups of one source: full of data, partly zero, and untouched.
fn sparse() -> World {
    let world = World::new(4 * 16 * MIB + 3 * BLOCK + 77);
    world.write_source(256, &vec![0; 200 * BLOCK]);
    let source = OpenOptions::new().write(true).open(world.source()).unwrap();
    let past = 2 * 16 * MIB as u64;
    source.set_len(past).unwrap();
    source.set_len(world.length).unwrap();
    world.write_source(1024, &noise(9, BLOCK));
    world
}

#[tokio::test]
async fn full_partly_zero_and_blank_groups_are_compared_taken_over_and_stated_alike() {
    let world = sparse();
    let done = world.copy().await;
    assert_eq!(done.blocks, 256 + 56 + 1);
    world.assert_equal();
    // The agent's tree is lost: what the replicator holds is taken over, blank groups apart.
    fs::remove_file(world.source_tree()).unwrap();
    let again = world.copy().await;
    assert_eq!((again.blocks, again.groups_adopted), (0, 3));
    // As is what it says of a group that was data and is zero now.
    world.write_source(1024, &vec![0; BLOCK]);
    let zeroed = world.copy().await;
    assert_eq!((zeroed.blocks, zeroed.bytes), (1, 0));
    for read_back in [false, true] {
        let mut running = world.start().await;
        running.pass(1).await;
        running.command(SendCommand::Finish { read_back }).await;
        let root = world.source_root();
        let stated = running.next_sent().await;
        assert!(
            matches!(&stated, SendEvent::Finished { root: is, read_back: did, .. }
                if *is == root && *did == read_back),
            "{stated:?}"
        );
        assert_eq!(running.last_sent().await, SendEvent::Closed);
        running.last_received().await;
    }
}

/// Whether the node of every group is in a stored tree.
fn is_warm(tree: &Path, groups: usize) -> bool {
    let bytes = fs::read(tree).unwrap();
    let mut records = bytes[4096..].chunks(128).take(groups);
    records.all(|record| record[..32] != [0; 32])
}

#[tokio::test(flavor = "multi_thread")]
async fn between_passes_both_ends_compute_what_a_cutover_will_ask_for() {
    let world = sparse();
    let mut running = world.start().await;
    running.pass(1).await;
    until(|| is_warm(&world.source_tree(), 5) && is_warm(&world.target_tree(), 5)).await;
    // And begin again where something changes.
    world.write_source(700, &noise(3, BLOCK));
    assert_eq!(running.pass(2).await.blocks, 1);
    until(|| is_warm(&world.source_tree(), 5) && is_warm(&world.target_tree(), 5)).await;
    running.close().await;
    for (tree, tag) in [(world.source_tree(), 3), (world.target_tree(), 4)] {
        assert_eq!(world.root_of(&tree, tag), world.source_root());
    }
}

#[tokio::test]
async fn a_pass_over_a_dirty_set_looks_at_nothing_else() {
    let world = World::new(40 * MIB + 5);
    let mut running = world.start().await;
    running.pass(1).await;
    for block in [0, 300, 301, 640] {
        world.write_source(block, &noise(block, 5));
    }
    // Two blocks that differ, and one that does not.
    let geometry = Geometry::new(world.length).unwrap();
    let mut dirty = DirtySet::new(geometry);
    for block in [300, 450, 640] {
        dirty.mark(BlockIndex(block));
    }
    let looked_at = running.sending.bytes_read.load(Relaxed);
    let done = running.pass_over(2, Some(dirty)).await;
    // Of one that changed in its first bytes a piece, and the short end of the disk.
    assert_eq!((done.blocks, done.bytes), (2, 4096 + 5));
    let read = running.sending.bytes_read.load(Relaxed) - looked_at;
    assert_eq!(read, 2 * BLOCK as u64 + 5);
    // The others are found by looking everywhere.
    assert_eq!(running.pass(3).await.blocks, 2);
    world.assert_equal();
    running.close().await;
}

#[tokio::test]
async fn the_next_pass_sends_only_what_changed_in_this_session_and_in_the_next() {
    let world = World::new(33 * MIB);
    let mut running = world.start().await;
    running.pass(1).await;
    world.write_source(3, &noise(2, BLOCK));
    world.write_source(200, &noise(3, 2 * BLOCK));
    world.write_source(300, &vec![0; 4 * BLOCK]);
    let second = running.pass(2).await;
    assert_eq!((second.blocks, second.bytes), (7, 3 * BLOCK as u64));
    world.assert_equal();
    running.close().await;
    world.write_source(301, &noise(4, BLOCK));
    let third = world.copy().await;
    assert_eq!((third.groups_adopted, third.blocks), (0, 1));
    world.assert_equal();
}

#[tokio::test]
async fn what_compresses_is_sent_compressed_and_the_rest_is_not() {
    let mut world = World::new(8 * MIB + 77);
    world.compression = Compression::On;
    world.write_source(0, &b"text that repeats ".repeat(3 * MIB / 18));
    let done = world.copy().await;
    world.assert_equal();
    let noise = (5 * MIB) as u64;
    assert!((noise..noise + noise / 8).contains(&done.bytes), "{done:?}");
}

#[tokio::test]
async fn a_connection_cut_at_any_point_costs_nothing_that_was_acknowledged() {
    let length = 24 * MIB + 5;
    let world = World::new(length);
    let mut written = 0;
    for (cut, bytes) in [0, 4, 60_000, 3 * MIB, 6 * MIB, 8 * MIB]
        .into_iter()
        .enumerate()
    {
        let (near, mut far) = pair().await;
        let cuts_sender = cut % 2 == 0;
        let opening = 200;
        far.stall_after(bytes + opening);
        let running = world.start_over(near, far, |_| {}).await;
        running
            .command(SendCommand::BeginPass {
                pass: 1,
                whole: true,
            })
            .await;
        let floor = (bytes / MIB).saturating_sub(2) as u64 * 16;
        let receiving = running.receiving.clone();
        until(|| receiving.blocks_sent.load(Relaxed) >= floor).await;
        written += floor;
        let (first, second) = match cuts_sender {
            true => (running.sender, running.receiver),
            false => (running.receiver, running.sender),
        };
        first.abort();
        // It was cut off, which is how the other end finds out.
        let _ = first.await;
        second.abort();
        let _ = second.await;
    }
    let done = world.copy().await;
    assert!(done.groups_adopted > 0);
    let total = length.div_ceil(BLOCK) as u64;
    assert!(written > total / 3);
    assert!(done.blocks <= total - written, "{} sent", done.blocks);
    world.assert_equal();
    assert_eq!(world.root_of(&world.target_tree(), 4), world.source_root());
}

#[tokio::test]
async fn what_is_written_while_a_barrier_is_made_durable_stays_noted() {
    let world = World::new(24 * MIB);
    world.copy().await;
    let before = fs::read(world.source()).unwrap();
    world.write_source(0, &noise(2, 24 * MIB));
    let (near, mut far) = pair().await;
    far.stall_after(14 * MIB);
    let ahead = 160;
    let mut running = world
        .start_over(near, far, |job| {
            let progress = job.progress.clone();
            job.commit = Box::new(move |_| {
                // The desk goes on while the first barrier, of 128 blocks, is
                // held here.
                let deadline = Instant::now() + Duration::from_secs(60);
                while progress.blocks_sent.load(Relaxed) < ahead && Instant::now() < deadline {
                    std::thread::yield_now();
                }
                Ok(())
            });
        })
        .await;
    running
        .command(SendCommand::BeginPass {
            pass: 1,
            whole: true,
        })
        .await;
    loop {
        match running.received.recv().await.unwrap() {
            ReceiveEvent::Committed { .. } => break,
            ReceiveEvent::Opened { .. } | ReceiveEvent::PassBegun(_) => {}
            event => panic!("{event:?} before a barrier"),
        }
    }
    assert!(running.receiving.blocks_sent.load(Relaxed) >= ahead);
    // As after a kill: files as they are now, and a source that went back.
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&world.dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let killed = World::at(folder.path(), world.length);
    fs::write(killed.source(), before).unwrap();
    killed.copy().await;
    killed.assert_equal();
}

#[tokio::test]
async fn a_new_epoch_begins_with_zeros_whatever_the_volume_held() {
    let world = World::new(20 * MIB);
    world.write_source(10, &vec![0; 100 * BLOCK]);
    fs::write(world.target(), noise(9, 20 * MIB)).unwrap();
    fs::write(world.target_tree(), "an old tree").unwrap();
    let (near, far) = pair().await;
    let mut running = world.start_over(near, far, |job| job.fresh = true).await;
    let done = running.pass(1).await;
    assert_eq!(done.blocks, 220);
    running.close().await;
    world.assert_equal();
}

#[tokio::test]
async fn a_volume_without_its_tree_is_read_and_not_believed_to_be_zero() {
    let world = World::new(20 * MIB);
    fs::write(world.target(), noise(9, 20 * MIB)).unwrap();
    let (near, far) = pair().await;
    let mut running = world.start_over(near, far, |job| job.fresh = false).await;
    let done = running.pass(1).await;
    assert_eq!((done.groups_adopted, done.blocks), (2, 320));
    running.close().await;
    world.assert_equal();
}

#[tokio::test]
async fn damaged_trees_and_notes_cost_reading_but_no_sending() {
    let world = World::new(20 * MIB);
    world.copy().await;
    fs::remove_file(world.target_tree()).unwrap();
    let (near, far) = pair().await;
    let mut running = world.start_over(near, far, |job| job.fresh = false).await;
    assert_eq!(running.pass(1).await.blocks, 0, "without a tree");
    running.close().await;
    for damaged in ["target.tree", "source.tree", "notes.1"] {
        let path = world.dir.join(damaged);
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&[0xAA; 600], 0).unwrap();
        let done = world.copy().await;
        assert_eq!(done.blocks, 0, "after damage to {damaged}");
    }
    // Torn inside rather than at the head: the last bytes are leaves.
    for damaged in [world.target_tree(), world.source_tree()] {
        let file = OpenOptions::new().write(true).open(&damaged).unwrap();
        let end = file.metadata().unwrap().len();
        file.write_all_at(&[0xAA; 2048], end - 8192).unwrap();
        let done = world.copy().await;
        assert_eq!(done.blocks, 0, "after damage inside {damaged:?}");
    }
    world.assert_equal();
}

#[tokio::test]
async fn a_target_of_another_size_is_refused_on_both_ends() {
    let world = World::new(3 * MIB);
    File::options()
        .write(true)
        .open(world.target())
        .unwrap()
        .set_len(2 * MIB as u64)
        .unwrap();
    let mut running = world.start().await;
    let last = running.last_sent().await;
    assert_eq!(last, SendEvent::Refused(RefusalCode::SizeMismatch));
    let ReceiveEvent::Refused(RefusalCode::SizeMismatch, why) = running.last_received().await
    else {
        panic!("not refused");
    };
    assert!(why.contains("target") && why.contains("larger"), "{why}");
}

#[tokio::test]
async fn a_full_disk_is_named_and_the_copy_goes_on_once_there_is_room() {
    let world = World::new(24 * MIB);
    let small = world.dir.join("small");
    fs::create_dir(&small).unwrap();
    let mount = |options: &str| {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&small)
            .output();
        mounted.is_ok_and(|output| output.status.success())
    };
    if !mount("size=8m") {
        eprintln!("skipped: mounting a small tmpfs needs root");
        return;
    }
    let _unmount = Unmount(small.clone());
    let volume = small.join("volume");
    File::create(&volume)
        .unwrap()
        .set_len(world.length)
        .unwrap();
    let (near, far) = pair().await;
    let mut running = world
        .start_over(near, far, |job| job.volume = volume.clone())
        .await;
    running
        .command(SendCommand::BeginPass {
            pass: 1,
            whole: true,
        })
        .await;
    let last = running.last_sent().await;
    assert_eq!(last, SendEvent::Refused(RefusalCode::StorageFull));
    let ReceiveEvent::StorageFailed(why) = running.last_received().await else {
        panic!("not failed");
    };
    assert!(why.contains("no space left"), "{why}");
    assert!(why.contains(small.to_str().unwrap()), "{why}");
    assert!(mount("remount,size=64m"));
    let (near, far) = pair().await;
    let mut running = world
        .start_over(near, far, |job| job.volume = volume.clone())
        .await;
    let done = running.pass(1).await;
    // What was written is not sent again, whether or not a barrier came before the end.
    let blocks = world.length / blocks::BLOCK_SIZE as u64;
    assert!(done.blocks < blocks, "{done:?}");
    running.close().await;
    assert_eq!(
        fs::read(&volume).unwrap(),
        fs::read(world.source()).unwrap()
    );
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_source_that_changes_its_size_stops_the_pass_and_loses_nothing() {
    let length = 64 * MIB as u64;
    for resized in [length / 4, length + 1] {
        let world = World::new(length as usize);
        let (near, mut far) = pair().await;
        let gate = far.stall_after(MIB);
        let mut running = world.start_over(near, far, |_| {}).await;
        running
            .command(SendCommand::BeginPass {
                pass: 1,
                whole: true,
            })
            .await;
        let sending = running.sending.clone();
        until(|| sending.blocks_sent.load(Relaxed) > 32).await;
        let source = OpenOptions::new().write(true).open(world.source()).unwrap();
        source.set_len(resized).unwrap();
        gate.open();
        let SendEvent::SourceFailed(why) = running.last_sent().await else {
            panic!("a resized source was sent");
        };
        assert!(why.contains("source"), "{why}");
        assert!(why.contains("what was copied is kept"), "{why}");
        let last = running.last_received().await;
        assert!(matches!(last, ReceiveEvent::Ended(_)), "{last:?}");
        let before = running.receiving.blocks_sent.load(Relaxed);
        source.set_len(0).unwrap();
        source.set_len(length).unwrap();
        source.write_all_at(&noise(1, length as usize), 0).unwrap();
        let done = world.copy().await;
        assert!(done.blocks <= length / BLOCK as u64 - before);
        world.assert_equal();
    }
}

#[tokio::test]
async fn a_source_that_is_gone_says_so() {
    let world = World::new(MIB);
    let mut running = world.start().await;
    running.pass(1).await;
    fs::remove_file(world.source()).unwrap();
    running
        .command(SendCommand::BeginPass {
            pass: 2,
            whole: true,
        })
        .await;
    let SendEvent::SourceFailed(why) = running.last_sent().await else {
        panic!("nothing was read");
    };
    assert!(why.contains("is gone: put it back"), "{why}");
}

/// Has extents pile up before a desk that is held up, then lets `end` end its leave:
/// not one of them is written, and both ends hear `code`.
async fn nothing_is_written_after(
    world: &World,
    given: watch::Receiver<Leave>,
    end: impl AsyncFnOnce(),
    code: RefusalCode,
) {
    let mut running = world.start_held_up(given).await;
    running
        .command(SendCommand::BeginPass {
            pass: 1,
            whole: true,
        })
        .await;
    until(|| running.sending.blocks_sent.load(Relaxed) >= 64).await;
    end().await;
    let last = last_of(&mut running.received).await;
    assert!(
        matches!(&last, Some(ReceiveEvent::Refused(told, _)) if *told == code),
        "{last:?}"
    );
    assert_eq!(running.receiving.blocks_sent.load(Relaxed), 0);
    assert!(blocks::is_zero(&fs::read(world.target()).unwrap()));
    let last = last_of(&mut running.sent).await;
    assert_eq!(last, Some(SendEvent::Refused(code)));
}

#[tokio::test]
async fn no_block_is_written_once_authority_is_withdrawn() {
    let (leave, given) = granted();
    let code = RefusalCode::Revoked;
    let withdraw = async || leave.send(Leave::Withdrawn(code)).unwrap();
    nothing_is_written_after(&World::new(8 * MIB), given, withdraw, code).await;
}

/// A moment on the clock that does not jump from which a lease has `left_millis` left.
fn lease_with(left_millis: u64) -> u64 {
    clock::now().mono_millis + left_millis - LEASE_SECS * 1000
}

#[tokio::test]
async fn no_block_is_written_after_the_lease_even_if_nobody_looks_at_it() {
    let world = World::new(8 * MIB);
    let left_millis = 5_000;
    let permit = permits_since(lease_with(left_millis)).1;
    let ends = clock::now().mono_millis + left_millis;
    // Nobody withdraws it, and nobody renews it.
    let (_leave, given) = watch::channel(Leave::Granted(permit));
    let wait = async || until(|| clock::now().mono_millis > ends).await;
    nothing_is_written_after(&world, given, wait, RefusalCode::NoLease).await;
}

#[tokio::test]
async fn nothing_is_sent_after_the_lease_and_a_renewed_one_lets_it_go_on() {
    let world = World::new(8 * MIB);
    let left_millis = 500;
    let ends = clock::now().mono_millis + left_millis;
    let over = || watch::channel(permits_since(lease_with(left_millis)).0);
    let (_renew, permit) = over();
    let (renew, renewed) = over();
    renew.send(permits().0).unwrap();
    until(|| clock::now().mono_millis > ends + left_millis).await;

    let mut running = world.start_with(permit).await;
    running
        .command(SendCommand::BeginPass {
            pass: 1,
            whole: true,
        })
        .await;
    assert_eq!(running.last_sent().await, SendEvent::Closed);
    assert_eq!(running.sending.blocks_sent.load(Relaxed), 0);
    let last = running.last_received().await;
    assert!(matches!(last, ReceiveEvent::Ended(_)), "{last:?}");

    let mut running = world.start_with(renewed).await;
    assert_eq!(running.pass(1).await.blocks, 128);
    running.close().await;
    world.assert_equal();
}

#[tokio::test]
async fn reading_back_finds_what_was_tampered_with_after_its_barrier() {
    let world = World::new(20 * MIB);
    let mut running = world.start().await;
    running.pass(1).await;
    let target = OpenOptions::new().write(true).open(world.target()).unwrap();
    target.write_all_at(b"!", 17 * MIB as u64).unwrap();
    target.sync_all().unwrap();
    let read_back = true;
    running.command(SendCommand::Finish { read_back }).await;
    let last = running.last_sent().await;
    assert_eq!(last, SendEvent::Refused(RefusalCode::ReadBackDiffers));
    let last = running.last_received().await;
    assert!(
        matches!(last, ReceiveEvent::Refused(RefusalCode::ReadBackDiffers, _)),
        "{last:?}"
    );
    // The next session reads the volume and sends the block again.
    let (near, far) = pair().await;
    let mut again = world.start_over(near, far, |job| job.fresh = false).await;
    assert_eq!(again.pass(1).await.blocks, 1);
    again.close().await;
    world.assert_equal();
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_an_open_frame_is_refused() {
    let close = ToTarget::Close.encode(0).unwrap();
    let first_bytes: [(&[u8], &str); 5] = [
        (&[0xFF; 64], "not a frame"),
        (&[0; 64], "not a frame"),
        (b"\x10\0\0\0\0\0\0\0garbage garbage!", "not a frame"),
        (&close, "kind close"),
        (&close[..5], "ended"),
    ];
    for (bytes, expected) in first_bytes {
        let (mut near, mut far) = pair().await;
        near.write_all(bytes).await.unwrap();
        near.close().await.unwrap();
        let error = read_open(&mut far).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        refuse(far, RefusalCode::BadFrame).await;
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        let code = RefusalCode::BadFrame;
        assert_eq!(answer, ToSource::Refused { code }.encode().unwrap());
    }
}

/// A replicator at work, and the other end of its stream in our hands.
async fn receiving(world: &World) -> (Wire, mpsc::Receiver<ReceiveEvent>) {
    let (mut near, mut far) = pair().await;
    let open = ToTarget::Open {
        ticket: b"ticket".to_vec(),
        length: world.length,
        barrier: 0,
        mark: BLANK_MARK,
    };
    near.write_all(&open.encode(0).unwrap()).await.unwrap();
    let begin = ToTarget::BeginPass { pass: 1 };
    near.write_all(&begin.encode(0).unwrap()).await.unwrap();
    let open = read_open(&mut far).await.unwrap();
    let (tell, received) = mpsc::channel(64);
    let (_, given) = granted();
    tokio::spawn(receive(far, world.receive_job(open), given, tell));
    (near, received)
}

#[tokio::test]
async fn bytes_that_are_no_honest_extent_are_refused_and_not_written() {
    let world = World::new(4 * MIB);
    let geometry = Geometry::new(world.length).unwrap();
    let first = BlockIndex(3);
    let data = noise(5, BLOCK);
    let right = leaf(geometry, first, &data);
    let frame = |encoding, leaf: Leaf, payload: &[u8]| {
        let leaves = vec![leaf];
        let extent = ToTarget::Extent {
            first,
            encoding,
            leaves,
            fingerprints: vec![],
        };
        let mut bytes = extent.encode(payload.len()).unwrap();
        bytes.extend(payload);
        bytes
    };
    let packed = |len: usize| zstd::bulk::compress(&vec![0; len], 1).unwrap();
    let zero = ToTarget::Zero { first, count: 4000 }.encode(0).unwrap();
    let wrong = Leaf([1; 32]);
    let cases = [
        (vec![0xFF; 100], RefusalCode::BadFrame),
        (zero, RefusalCode::BadFrame),
        (frame(Encoding::Raw, wrong, &data), RefusalCode::BadData),
        (frame(Encoding::Zstd, right, &data), RefusalCode::BadData),
        // Far more than its block, and less.
        (
            frame(Encoding::Zstd, right, &packed(64 * MIB)),
            RefusalCode::BadData,
        ),
        (
            frame(Encoding::Zstd, right, &packed(BLOCK - 1)),
            RefusalCode::BadFrame,
        ),
    ];
    for (bytes, expected) in cases {
        let (mut near, mut received) = receiving(&world).await;
        near.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        let code = expected;
        let refused = ToSource::Refused { code }.encode().unwrap();
        assert!(answer.ends_with(&refused), "{answer:?} is not {code:?}");
        drop(near);
        let last = last_of(&mut received).await;
        let Some(ReceiveEvent::Refused(code, _)) = last else {
            panic!("{last:?}");
        };
        assert_eq!(code, expected);
    }
    assert!(blocks::is_zero(&fs::read(world.target()).unwrap()));
}

#[tokio::test]
async fn a_replicator_that_sends_garbage_is_dropped() {
    let world = World::new(MIB);
    let durable = ToSource::Durable {
        barrier: 5,
        mark: BLANK_MARK,
    };
    let durable = durable.encode().unwrap();
    let answers: [(&[u8], &str); 3] = [
        (&[0xFF; 100], "not a frame"),
        (&durable, "unexpected durable frame"),
        (&[], "closed the stream"),
    ];
    for (bytes, expected) in answers {
        let (near, mut far) = pair().await;
        let (_commands, orders) = mpsc::channel(8);
        let (tell, mut sent) = mpsc::channel(64);
        tokio::spawn(send(near, world.send_job(), orders, tell));
        read_open(&mut far).await.unwrap();
        far.write_all(bytes).await.unwrap();
        far.close().await.unwrap();
        let Some(SendEvent::Lost(why)) = sent.recv().await else {
            panic!("not lost");
        };
        assert!(why.contains(expected), "{why}");
        assert_eq!(sent.recv().await, None);
    }
}

#[tokio::test]
async fn a_copy_that_is_deleted_while_it_is_written_is_neither_committed_nor_proven() {
    for then in [
        SendCommand::BeginPass {
            pass: 2,
            whole: true,
        },
        SendCommand::Finish { read_back: false },
        SendCommand::Finish { read_back: true },
    ] {
        let world = World::new(2 * MIB);
        let mut running = world.start().await;
        running.pass(1).await;
        let committed = world.durable();
        let aside = world.dir.join("aside");
        fs::rename(world.target(), &aside).unwrap();
        world.write_source(3, &noise(2, BLOCK));
        running.command(then).await;
        let last = running.last_sent().await;
        assert_eq!(last, SendEvent::Refused(RefusalCode::StorageFailed));
        let ReceiveEvent::StorageFailed(why) = running.last_received().await else {
            panic!("the session goes on without a file");
        };
        assert!(
            why.contains("is gone") && why.contains("put it back"),
            "{why}"
        );
        assert_eq!(world.durable(), committed);
        // Put back, it goes on.
        fs::rename(&aside, world.target()).unwrap();
        world.copy().await;
        world.assert_equal();
    }
}

#[tokio::test]
async fn a_commit_that_fails_is_not_acknowledged() {
    let world = World::new(2 * MIB);
    let (near, far) = pair().await;
    let mut running = world
        .start_over(near, far, |job| {
            job.commit = Box::new(|_| Err("cannot store the record: no space".into()));
        })
        .await;
    running
        .command(SendCommand::BeginPass {
            pass: 1,
            whole: true,
        })
        .await;
    let last = running.last_sent().await;
    assert_eq!(last, SendEvent::Refused(RefusalCode::StorageFailed));
    let why = "cannot store the record: no space".to_owned();
    assert_eq!(
        running.last_received().await,
        ReceiveEvent::StorageFailed(why)
    );
    let done = world.copy().await;
    // All is there and was found by reading it: nothing is sent twice.
    assert_eq!((done.groups_adopted, done.blocks), (1, 0));
    world.assert_equal();
}
