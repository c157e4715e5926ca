//! What is offered before it is sent: pieces of blocks that changed, and content that is
//! at the other end already.

use std::sync::Arc;

use blocks::PieceSet;
use volumes::FingerprintIndex;

use super::world::{self, BLOCK, World, domain, last_of, noise, pair};
use super::*;

const PIECE: usize = 4096;

/// The bytes of a piece of the source, as another content.
fn change_piece(world: &World, block: u64, piece: usize, seed: u64) {
    let source = OpenOptions::new().write(true).open(world.source()).unwrap();
    let at = block * BLOCK as u64 + (piece * PIECE) as u64;
    let length = (world.length - at).min(PIECE as u64) as usize;
    source.write_all_at(&noise(seed, length), at).unwrap();
}

#[tokio::test]
async fn of_a_block_that_changed_in_part_only_those_pieces_travel() {
    let world = World::new(40 * MIB + 2 * PIECE + 7);
    let mut running = world.start().await;
    running.pass(1).await;
    // In the middle, neighbours in one and over two blocks, and the short end.
    let changed = [
        (5, 0),
        (300, 7),
        (300, 8),
        (400, 15),
        (401, 0),
        (640, 2),
        (640, 1),
    ];
    for (block, piece) in changed {
        change_piece(&world, block, piece, block + piece as u64);
    }
    // One that changed in all of its pieces, and one that is fresh.
    world.write_source(20, &noise(99, BLOCK));
    let done = running.pass(2).await;
    assert_eq!(done.blocks, 6);
    assert_eq!(done.bytes as usize, 6 * PIECE + 7 + BLOCK);
    world.assert_equal();
    // Level: nothing is left, by the trees of both.
    assert_eq!(running.pass(3).await.blocks, 0);
    running.close().await;
    assert_eq!(
        world.root_of(&world.target_tree(), 4),
        world.root_of(&world.source_tree(), 3)
    );
    assert_eq!(world.root_of(&world.target_tree(), 4), world.source_root());
}

#[tokio::test]
async fn a_patch_is_compressed_where_that_is_asked_for() {
    let mut world = World::new(20 * MIB);
    world.compression = Compression::On;
    let mut running = world.start().await;
    running.pass(1).await;
    let source = OpenOptions::new().write(true).open(world.source()).unwrap();
    let text = b"all work and no play ".repeat(PIECE / 21 + 1);
    source
        .write_all_at(&text[..PIECE], 77 * BLOCK as u64)
        .unwrap();
    let done = running.pass(2).await;
    assert_eq!(done.blocks, 1);
    assert!(done.bytes < 400, "{}", done.bytes);
    world.assert_equal();
    running.close().await;
}

#[tokio::test]
async fn many_changed_pieces_all_over_a_disk_cost_little_more_than_themselves() {
    let world = World::new(64 * MIB);
    let mut running = world.start().await;
    running.pass(1).await;
    let blocks: Vec<u64> = (0..1024).filter(|at| at % 3 == 0).collect();
    for block in &blocks {
        change_piece(&world, *block, (*block % 16) as usize, *block);
    }
    let done = running.pass(2).await;
    assert_eq!(done.blocks, blocks.len() as u64);
    assert_eq!(done.bytes, (blocks.len() * PIECE) as u64);
    world.assert_equal();
    running.close().await;
}

#[tokio::test]
async fn what_lies_in_place_is_asked_of_the_disk_and_not_of_the_tree() {
    let world = World::new(20 * MIB);
    let mut running = world.start().await;
    running.pass(1).await;
    // The copy rots in one piece, and the source changes in another.
    let target = OpenOptions::new().write(true).open(world.target()).unwrap();
    let place = 33 * BLOCK as u64;
    target
        .write_all_at(&[0xff; 100], place + 5 * PIECE as u64)
        .unwrap();
    change_piece(&world, 33, 9, 1);
    let done = running.pass(2).await;
    assert_eq!((done.blocks, done.bytes), (1, 2 * PIECE as u64));
    world.assert_equal();
    running.close().await;
}

#[tokio::test]
async fn a_patch_that_does_not_hash_is_refused_and_nothing_of_it_is_written() {
    let world = World::new(20 * MIB);
    world.copy().await;
    let before = fs::read(world.target()).unwrap();
    let good = noise(5, PIECE);
    let mut block = before[..BLOCK].to_vec();
    block[PIECE..2 * PIECE].copy_from_slice(&good);
    let geometry = Geometry::new(world.length).unwrap();
    let leaf = leaf(geometry, BlockIndex(0), &block);
    let patch = |payload: &[u8], pieces: u16, encoding| {
        let frame = ToTarget::Patch {
            first: BlockIndex(0),
            encoding,
            leaves: vec![leaf],
            pieces: vec![PieceSet(pieces)],
        };
        let mut bytes = frame.encode(payload.len()).unwrap();
        bytes.extend(payload);
        bytes
    };
    let mut bad = good.clone();
    bad[0] ^= 1;
    let packed = zstd::bulk::compress(&bad, 1).unwrap();
    let long = zstd::bulk::compress(&[good.clone(), good.clone()].concat(), 1).unwrap();
    for (frame, is_taken) in [
        (patch(&bad, 2, Encoding::Raw), false),
        // The right bytes in the wrong place.
        (patch(&good, 4, Encoding::Raw), false),
        (patch(&packed, 2, Encoding::Zstd), false),
        (patch(&long, 2, Encoding::Zstd), false),
        (patch(b"no zstd", 2, Encoding::Zstd), false),
        (patch(&good, 2, Encoding::Raw), true),
    ] {
        let refused = say_in_a_pass(&world, frame).await;
        let after = fs::read(world.target()).unwrap();
        match is_taken {
            true => assert!(refused.is_none() && after[..BLOCK] == block),
            false => {
                assert_eq!(refused, Some(RefusalCode::BadData));
                assert!(after == before);
            }
        }
    }
}

/// Says it in a pass and closes; what the replicator refused.
async fn say_in_a_pass(world: &World, frame: Vec<u8>) -> Option<RefusalCode> {
    let (mut near, mut received) = receiving(world).await;
    near.write_all(&frame).await.unwrap();
    // It may have ended the session by now.
    let _ = near.write_all(&ToTarget::Close.encode(0).unwrap()).await;
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    match last_of(&mut received).await.unwrap() {
        ReceiveEvent::Refused(code, _) => Some(code),
        ReceiveEvent::Ended(_) => None,
        other => panic!("{other:?}"),
    }
}

/// An index beside a world, and a scope.
fn references(world: &World, copies: &[(u8, &World)]) -> References {
    referring(world, copies).0
}

fn referring(world: &World, copies: &[(u8, &World)]) -> (References, Arc<FingerprintIndex>, Scope) {
    let path = world.dir.join("fingerprints");
    let index = Arc::new(FingerprintIndex::open(&path, 1 << 20).unwrap());
    let scope = Scope::default();
    scope.set(
        copies
            .iter()
            .map(|(tag, copy)| {
                let (path, length) = (copy.target(), copy.length);
                ([*tag; 16], Copy { path, length })
            })
            .collect(),
    );
    let references = References::new(index.clone(), scope.clone(), domain(None));
    (references, index, scope)
}

/// A pass over a new connection, with references and under a tag of its own.
async fn copy_with(world: &World, tag: u8, references: &References) -> world::PassDone {
    let (near, far) = pair().await;
    let mut running = world
        .start_over(near, far, |job| {
            job.references = Some(references.clone());
            job.tag = [tag; 16];
        })
        .await;
    let done = running.pass(1).await;
    running.close().await;
    world.assert_equal();
    done
}

#[tokio::test]
async fn a_second_disk_sends_only_what_the_first_has_not_wherever_it_lies() {
    let (one, other) = (World::new(24 * MIB), World::new(20 * MIB + 9));
    let first = fs::read(one.source()).unwrap();
    // Shifted by seven blocks, apart from a tenth in the middle, and twice; the rest is
    // the same in both.
    other.write_source(0, &first[7 * BLOCK..200 * BLOCK]);
    other.write_source(80, &noise(77, 30 * BLOCK));
    other.write_source(193, &first[..100 * BLOCK]);
    let references = references(&one, &[(4, &one), (5, &other)]);
    let sent = copy_with(&one, 4, &references).await.bytes;
    assert_eq!(sent as usize, 24 * MIB);
    let done = copy_with(&other, 5, &references).await;
    let own = 30 * BLOCK + 9;
    assert_eq!((done.blocks, done.bytes as usize), (321, own));
}

#[tokio::test]
async fn content_that_moves_within_a_disk_is_not_sent_again() {
    let world = World::new(20 * MIB);
    let references = references(&world, &[(4, &world)]);
    copy_with(&world, 4, &references).await;
    let before = fs::read(world.source()).unwrap();
    world.write_source(200, &before[..32 * BLOCK]);
    let done = copy_with(&world, 4, &references).await;
    assert_eq!((done.blocks, done.bytes), (32, 0));
}

#[tokio::test]
async fn nothing_is_found_in_a_copy_that_is_not_in_the_scope() {
    let (one, other) = (World::new(20 * MIB), World::new(20 * MIB));
    other.write_source(0, &fs::read(one.source()).unwrap());
    let (references, index, scope) = referring(&one, &[(4, &one), (5, &other)]);
    copy_with(&one, 4, &references).await;
    // Not even for another domain that has the same copies in its scope: what it sees of
    // the index is its own.
    let elsewhere = World::new(20 * MIB);
    elsewhere.write_source(0, &fs::read(one.source()).unwrap());
    let another = References::new(index, scope.clone(), domain(Some("web")));
    let sent = copy_with(&elsewhere, 6, &another).await.bytes;
    assert_eq!(sent, elsewhere.length);
    scope.set([].into());
    assert_eq!(copy_with(&other, 5, &references).await.bytes, other.length);
}

#[tokio::test]
async fn an_index_that_leads_to_what_was_written_over_costs_bytes_and_nothing_else() {
    let (one, other) = (World::new(20 * MIB), World::new(20 * MIB));
    other.write_source(0, &fs::read(one.source()).unwrap());
    let references = references(&one, &[(4, &one), (5, &other)]);
    copy_with(&one, 4, &references).await;
    let target = OpenOptions::new().write(true).open(one.target()).unwrap();
    target.write_all_at(&noise(3, 8 * MIB), 0).unwrap();
    let sent = copy_with(&other, 5, &references).await.bytes;
    assert_eq!(sent as usize, 8 * MIB);
    // And one that is gone altogether.
    fs::remove_file(one.target()).unwrap();
    let third = World::new(20 * MIB);
    third.write_source(0, &fs::read(one.source()).unwrap());
    fs::remove_file(other.target()).unwrap();
    let sent = copy_with(&third, 7, &references).await.bytes;
    assert_eq!(sent, third.length);
}
