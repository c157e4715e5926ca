//! Either end killed by the kernel at any moment: the other end is in this
//! process, the victim is this test binary, started again.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::MIB;
use super::world::{BLOCK, Wire, World, granted, last_of, noise, until};
use crate::transfer::*;

const LENGTH: usize = 48 * MIB + 700;
/// Blocks on the wire when the victim dies: before, at and after barriers.
const DEATHS: [u64; 6] = [1, 40, 129, 200, 390, 480];
/// Blocks rewritten before each death.
const REWRITTEN: usize = 500;

const ROLE: &str = "DUNLIN_TEST_VICTIM";
const FOLDER: &str = "DUNLIN_TEST_FOLDER";
const ADDRESS: &str = "DUNLIN_TEST_ADDRESS";

/// Starts this very binary with only the victim's test in it.
fn start_victim(role: &str, folder: &Path, address: SocketAddr) -> Child {
    let module = module_path!().split_once("::").unwrap().1;
    Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::a_victim_plays_its_role")])
        .env(ROLE, role)
        .env(FOLDER, folder)
        .env(ADDRESS, address.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Does nothing when it is not started as a victim; then it lives until it is
/// killed, or its session ends.
#[tokio::test]
async fn a_victim_plays_its_role() {
    let Ok(role) = env::var(ROLE) else { return };
    let folder = env::var(FOLDER).unwrap();
    let address: SocketAddr = env::var(ADDRESS).unwrap().parse().unwrap();
    let world = World::at(Path::new(&folder), LENGTH as u64);
    let mut wire = Wire::new(TcpStream::connect(address).await.unwrap());
    if role == "agent" {
        let (commands, orders) = mpsc::channel(1);
        let (tell, mut sent) = mpsc::channel(64);
        let sending = tokio::spawn(send(wire, world.send_job(), orders, tell));
        let begin = SendCommand::BeginPass {
            pass: 1,
            whole: true,
        };
        commands.send(begin).await.unwrap();
        while sent.recv().await.is_some() {}
        sending.await.unwrap();
    } else {
        let open = read_open(&mut wire).await.unwrap();
        let (_leave, given) = granted();
        let (tell, mut received) = mpsc::channel(64);
        let job = world.receive_job(open);
        let receiving = tokio::spawn(receive(wire, job, given, tell));
        while received.recv().await.is_some() {}
        receiving.await.unwrap();
    }
}

#[tokio::test]
async fn a_replicator_killed_at_any_moment_goes_on_from_its_last_barrier() {
    let world = World::new(LENGTH);
    world.copy().await;
    let before = fs::read(world.source()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for (seed, blocks) in DEATHS.into_iter().enumerate() {
        let rewritten = noise(100 + seed as u64, REWRITTEN * BLOCK);
        world.write_source(seed as u64, &rewritten);
        let mut victim = start_victim("replicator", &world.dir, address);
        let wire = Wire::new(listener.accept().await.unwrap().0);
        let (commands, orders) = mpsc::channel(1);
        let (tell, mut sent) = mpsc::channel(64);
        let job = world.send_job();
        let progress = job.progress.clone();
        tokio::spawn(send(wire, job, orders, tell));
        let begin = SendCommand::BeginPass {
            pass: 1,
            whole: true,
        };
        commands.send(begin).await.unwrap();
        let mut done = false;
        until(|| {
            while let Ok(event) = sent.try_recv() {
                done |= matches!(event, SendEvent::PassDone { .. });
            }
            done || progress.blocks_sent.load(Relaxed) >= blocks
        })
        .await;
        victim.kill().unwrap();
        victim.wait().unwrap();
        let last = last_of(&mut sent).await;
        assert!(matches!(last, Some(SendEvent::Lost(_))), "{last:?}");
        // What was written and never acknowledged is now what the target must
        // not keep, though the source no longer differs from its stored tree.
        world.write_source(0, &before);
    }
    world.copy().await;
    world.assert_equal();
    assert_eq!(world.root_of(&world.target_tree(), 4), world.source_root());
    assert_eq!(world.copy().await.blocks, 0);
}

#[tokio::test]
async fn an_agent_killed_at_any_moment_sends_again_only_what_was_not_acknowledged() {
    let world = World::new(LENGTH);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for (seed, blocks) in DEATHS.into_iter().enumerate() {
        let rewritten = noise(100 + seed as u64, REWRITTEN * BLOCK);
        world.write_source(seed as u64, &rewritten);
        let mut victim = start_victim("agent", &world.dir, address);
        let mut wire = Wire::new(listener.accept().await.unwrap().0);
        let open = read_open(&mut wire).await.unwrap();
        let (_leave, given) = granted();
        let (tell, mut received) = mpsc::channel(64);
        let mut job = world.receive_job(open);
        let progress = job.progress.clone();
        let is_level = Arc::new(AtomicBool::new(false));
        let is_level_now = is_level.clone();
        let (source, target) = (world.source(), world.target());
        let commit = job.commit;
        job.commit = Box::new(move |barrier| {
            commit(barrier)?;
            let same = fs::read(&source).unwrap() == fs::read(&target).unwrap();
            is_level_now.store(same, Relaxed);
            Ok(())
        });
        tokio::spawn(receive(wire, job, given, tell));
        until(|| is_level.load(Relaxed) || progress.blocks_sent.load(Relaxed) >= blocks).await;
        victim.kill().unwrap();
        victim.wait().unwrap();
        let last = last_of(&mut received).await;
        assert!(matches!(last, Some(ReceiveEvent::Ended(_))), "{last:?}");
    }
    let done = world.copy().await;
    // What arrived before the last death was kept at the target.
    assert!(done.blocks < 400, "{done:?}");
    world.assert_equal();
    assert_eq!(world.copy().await.blocks, 0);
}
