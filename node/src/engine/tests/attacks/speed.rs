//! Speed checks in the hands of somebody hostile.
#![allow(clippy::unwrap_used)]

use super::super::rogue::Rogue;
use super::super::world::{World, pause, soon};
use crate::net::BlockStream;
use blocks::frame::PREFIX_LEN;
use blocks::speed::{SPEED_HELLO, SpeedFrame, SpeedRefusal, ToAnswerer, ToAsker, speed_prefix};
use futures::{AsyncReadExt, AsyncWriteExt};
use keys::{PublicKey, Role};

/// A stream that begins as a check, and what follows.
async fn begins(rogue: &Rogue, victim: PublicKey, bytes: &[u8]) -> BlockStream {
    let opening = rogue.net.open_stream(victim.0);
    let mut stream = soon("a stream", opening).await.unwrap();
    stream.write_all(&SPEED_HELLO).await.unwrap();
    says(&mut stream, bytes).await;
    stream
}

async fn says(stream: &mut BlockStream, bytes: &[u8]) {
    // The other end may have closed it.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
}

/// The next frame of the answerer; none where the stream ended.
async fn told(stream: &mut BlockStream) -> Option<ToAsker> {
    let reading = async {
        let mut prefix = [0; PREFIX_LEN];
        stream.read_exact(&mut prefix).await.ok()?;
        let prefix = speed_prefix(prefix).unwrap();
        let mut header = vec![0; prefix.header];
        stream.read_exact(&mut header).await.ok()?;
        Some(ToAsker::decode(&header, prefix.payload).unwrap())
    };
    soon("an answer", reading).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_has_one_check_at_a_time_and_garbage_in_one_counts_against_it() {
    let world = World::new().await;
    let mallory = world.hostile("mallory", &[Role::Agent]).await;
    let victim = world.replicator.key;
    let refused = |code| Some(ToAsker::Refused { code });
    let open = ToAnswerer::Open { millis: 60_000 }.encode(0).unwrap();
    let mut first = begins(&mallory, victim, &open).await;
    let opened = told(&mut first).await;
    assert!(matches!(opened, Some(ToAsker::Opened { .. })), "{opened:?}");
    let mut second = begins(&mallory, victim, &open).await;
    assert_eq!(told(&mut second).await, refused(SpeedRefusal::Busy));

    says(&mut first, &[255; 16]).await;
    assert_eq!(told(&mut first).await, refused(SpeedRefusal::BadFrame));
    drop(first);
    let text = "speed check of mallory";
    world.replicator.event(0, "peer-refused", text).await;
    // It gives its place back.
    soon("another check", async {
        loop {
            let mut again = begins(&mallory, victim, &open).await;
            if matches!(told(&mut again).await, Some(ToAsker::Opened { .. })) {
                return;
            }
            pause().await;
        }
    })
    .await;
    let mut garbled = begins(&mallory, victim, &[255; 16]).await;
    assert_eq!(told(&mut garbled).await, refused(SpeedRefusal::BadFrame));

    let stranger = PublicKey([9; 32]);
    let taken = world.replicator.call(move |engine| {
        let place = engine.take_place(stranger);
        place.unwrap_err()
    });
    assert_eq!(taken.await, SpeedRefusal::NotMember);
}
