//! Sessions whose source is swap that is left out.

use blocks::SwapArea;
use crdt::PassRead;

use super::*;
use crate::transfer::left_out::LeftOut;

const LENGTH: usize = 20 * MIB;

/// A source full of noise that begins with a header of swap, over all but its last page.
fn swap(world: &World, uuid: u8) -> SwapArea {
    let pages = (LENGTH / 4096 - 1) as u32;
    let mut head = vec![0; BLOCK];
    head[1024] = 1;
    head[1028..1032].copy_from_slice(&(pages - 1).to_le_bytes());
    head[1036..1052].fill(uuid);
    head[4086..4096].copy_from_slice(b"SWAPSPACE2");
    world.write_source(0, &head);
    SwapArea {
        offset: 0,
        length: u64::from(pages) * 4096,
        uuid: [uuid; 16],
    }
}

/// The source, with zeros in the content of its swap.
fn expected(world: &World, area: &SwapArea) -> Vec<u8> {
    let mut bytes = fs::read(world.source()).unwrap();
    let content = area.content();
    bytes[content.start as usize..content.end as usize].fill(0);
    bytes
}

async fn start(world: &World, swap: Option<Vec<SwapArea>>) -> world::Running {
    let job = SendJob {
        swap,
        ..world.send_job()
    };
    let (_, given) = granted();
    let wires = pair().await;
    world.start_jobs(wires, job, (given, 64), |_| {}).await
}

async fn told(running: &mut world::Running) -> LeftOut {
    loop {
        match running.next_sent().await {
            SendEvent::LeftOut(left_out) => return left_out,
            SendEvent::Ready { .. } => {}
            event => panic!("{event:?}"),
        }
    }
}

#[tokio::test]
async fn swap_is_found_told_before_the_first_pass_and_zeros_in_the_copy_and_under_its_root() {
    let world = World::new(LENGTH);
    let area = swap(&world, 7);
    let mut running = start(&world, None).await;
    let found = told(&mut running).await;
    assert_eq!((found.areas, found.is_less), (vec![area], false));
    assert!(found.told.contains("zeros there: source"), "{}", found.told);
    let done = running.pass(1).await;
    assert_eq!(done.blocks, 2, "the header, and what is behind the area");
    assert_eq!(running.sending.bytes_read.load(Relaxed), 2 * BLOCK as u64);
    // What is swapped to meanwhile is nothing new, whoever follows it.
    world.write_source(10, &noise(3, 4 * BLOCK));
    let geometry = Geometry::new(world.length).unwrap();
    let mut dirty = DirtySet::new(geometry);
    for block in 0..320 {
        dirty.mark(BlockIndex(block));
    }
    assert_eq!(running.pass_over(2, Some(dirty)).await.blocks, 0);
    running
        .command(SendCommand::Finish { read_back: true })
        .await;
    let SendEvent::Finished { root, .. } = running.next_sent().await else {
        panic!("no root");
    };
    let expected = expected(&world, &area);
    assert_eq!(root, *blake3::hash(&expected).as_bytes());
    assert!(fs::read(world.target()).unwrap() == expected);
}

#[tokio::test]
async fn swap_that_is_not_the_same_any_more_ends_the_session_and_is_copied_after_it() {
    let world = World::new(LENGTH);
    let area = swap(&world, 7);
    let mut running = start(&world, Some(vec![area])).await;
    running.pass_by(1, false).await;
    running.close().await;
    let mut running = start(&world, Some(vec![area])).await;
    // Another one was made there when all was copied: nothing is stated of it.
    running.pass_by(1, false).await;
    swap(&world, 8);
    running
        .command(SendCommand::Finish { read_back: false })
        .await;
    let lost = told(&mut running).await;
    assert_eq!((lost.areas, lost.is_less), (vec![], true));
    let last = running.last_sent().await;
    assert_eq!(last, SendEvent::Lost(lost.told));
    // Nobody knows of what was written what has to be read: that is all.
    let nothing = DirtySet::new(Geometry::new(world.length).unwrap());
    world.given.with(|state| state.dirty = Some(nothing));
    let trees = world.given.with(|state| state.trees.clone());
    let mut running = start(&world, Some(vec![])).await;
    running.pass_by(1, true).await;
    running.close().await;
    world.assert_equal();
    let now = world.given.with(|state| state.trees.clone());
    assert!(
        !trees.contains(now.last().unwrap()),
        "its tree has another name"
    );
    // And in a pass.
    let mut running = start(&world, Some(vec![area])).await;
    let (pass, whole) = (1, false);
    running
        .command(SendCommand::BeginPass { pass, whole })
        .await;
    assert!(told(&mut running).await.is_less);
}

#[tokio::test]
async fn what_is_found_anew_is_of_a_tree_that_nobody_remembers() {
    let world = World::new(LENGTH);
    swap(&world, 7);
    let mut running = start(&world, Some(vec![])).await;
    assert_eq!(
        running.pass_by(1, false).await.reading.read,
        PassRead::Whole
    );
    running.close().await;
    world.assert_equal();
    let mut running = start(&world, None).await;
    told(&mut running).await;
    running.pass_by(1, true).await;
    running.close().await;
    let trees = world.given.with(|state| state.trees.clone());
    assert_ne!(trees.first(), trees.last());
    let target = fs::read(world.target()).unwrap();
    assert!(target[BLOCK..LENGTH - BLOCK].iter().all(|byte| *byte == 0));
}
