//! Frames that are sound and come when they must not, and more than may be pending: by a
//! peer that has a stream and keeps to no rule.

use super::*;
use blocks::extent::{BARRIER_BLOCKS, MAX_EXTENT_BLOCKS};
use blocks::{BLANK_MARK, GroupIndex};
use tokio::time::timeout;

fn frames(frames: &[ToTarget]) -> Vec<u8> {
    let encoded = frames.iter().map(|frame| frame.encode(0).unwrap());
    encoded.flatten().collect()
}

/// Sends bytes after the opening; the code that ends the session.
async fn refusal_of(world: &World, bytes: &[u8]) -> RefusalCode {
    let (near, mut received) = receiving(world).await;
    let (mut reader, mut writer) = near.split();
    // The other end may hang up before it has read all of it.
    let write = async { drop(writer.write_all(bytes).await) };
    let mut answer = Vec::new();
    let both = async { tokio::join!(write, reader.read_to_end(&mut answer)).1 };
    let read = timeout(Duration::from_secs(60), both).await;
    read.expect("an end in time").unwrap();
    match last_of(&mut received).await {
        Some(ReceiveEvent::Refused(code, _)) => {
            let refused = ToSource::Refused { code }.encode().unwrap();
            assert!(answer.ends_with(&refused), "the peer was not told");
            code
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn frames_out_of_turn_and_blocks_out_of_place_are_refused_and_not_written() {
    let world = World::new(4 * MIB);
    let geometry = Geometry::new(world.length).unwrap();
    let data = noise(5, BLOCK);
    let extent = |at: u64, leaf: Leaf| {
        let first = BlockIndex(at);
        let leaves = vec![leaf];
        let encoding = Encoding::Raw;
        let frame = ToTarget::Extent {
            first,
            encoding,
            leaves,
            fingerprints: vec![],
        };
        let mut bytes = frame.encode(data.len()).unwrap();
        bytes.extend(&data);
        bytes
    };
    let of = |at| leaf(geometry, BlockIndex(at), &data);
    let (bad_frame, bad_data) = (RefusalCode::BadFrame, RefusalCode::BadData);
    let open = ToTarget::Open {
        ticket: vec![],
        length: world.length,
        barrier: 0,
        mark: BLANK_MARK,
    };
    let zero = |first, count| ToTarget::Zero {
        first: BlockIndex(first),
        count,
    };
    let cases = [
        ("a second opening", frames(&[open]), bad_frame),
        (
            "a pass again",
            frames(&[ToTarget::BeginPass { pass: 1 }]),
            bad_frame,
        ),
        (
            "a barrier too far",
            frames(&[ToTarget::Barrier { barrier: 7 }]),
            bad_frame,
        ),
        (
            "a barrier that is over",
            frames(&[ToTarget::Barrier { barrier: 0 }]),
            bad_frame,
        ),
        (
            "groups that are not there",
            frames(&[ToTarget::AskGroups {
                first: GroupIndex(0),
                count: 1000,
            }]),
            bad_frame,
        ),
        (
            "leaves that are not there",
            frames(&[ToTarget::AskLeaves {
                group: GroupIndex(u64::MAX),
            }]),
            bad_frame,
        ),
        ("zeros outside", frames(&[zero(u64::MAX, 1)]), bad_frame),
        ("a block outside", extent(64, of(3)), bad_frame),
        ("a block far outside", extent(u64::MAX, of(3)), bad_frame),
        (
            "a block in the place of another",
            extent(4, of(3)),
            bad_data,
        ),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(refusal_of(&world, &bytes).await, code, "{what}");
    }
    assert!(blocks::is_zero(&fs::read(world.target()).unwrap()));
}

#[tokio::test]
async fn extents_that_never_end_in_a_barrier_are_refused_at_the_limit() {
    let world = World::new(MIB);
    let zero = ToTarget::Zero {
        first: BlockIndex(0),
        count: 1,
    };
    let most = BARRIER_BLOCKS + u64::from(MAX_EXTENT_BLOCKS);
    let endless = frames(&vec![zero; most as usize + 1]);
    assert_eq!(refusal_of(&world, &endless).await, RefusalCode::BadFrame);
}
