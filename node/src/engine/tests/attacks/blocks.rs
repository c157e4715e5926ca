//! A replicator that lies to an agent, and an agent that holds on to streams.
//!
//! What an agent cannot see through (a replicator that acknowledges with the right
//! root and holds nothing) is found when the copy is compared or read back.

use super::super::rogue::Rogue;
use super::super::world::{Running, World, content, pause, soon, until};
use crate::api::model::ActionOptions;
use crate::net::{BlockStream, MAX_STREAMS_PER_PEER};
use blocks::frame::PREFIX_LEN;
use blocks::{
    BLOCK_SIZE, BlockIndex, FramePrefix, GROUP_BLOCKS, Geometry, Held, Leaf, Mark, RefusalCode,
    Root, ToSource, ToTarget, ZERO_ENTRY,
};
use futures::{AsyncReadExt, AsyncWriteExt};
use keys::proof::{End, Method, RootProof};
use keys::{Domain, Epoch, Identity, MeshId, MigrationId, Role, Signed, VolumeId};
use roles::JobId;
use roles::proof::{SealedProof, Subject};
use std::path::PathBuf;
use tempfile::TempDir;

/// An honest agent whose replicator's key is in other hands.
struct Lied {
    operator: Running,
    agent: Running,
    rogue: Rogue,
    job: JobId,
    disk: PathBuf,
    copy: PathBuf,
    folder: TempDir,
}

impl Lied {
    async fn new() -> Self {
        let world = World::new().await;
        let job = world.migrate().await;
        let copy = world.copy(job).await;
        let World {
            operator,
            replicator,
            agent,
            disk,
            folder,
        } = world;
        replicator.stop().await;
        let rogue = Rogue::of_folder(&folder.path().join("replicator"), &[&agent]).await;
        Self {
            operator,
            agent,
            rogue,
            job,
            disk,
            copy,
            folder,
        }
    }

    async fn barrier(&self) -> u64 {
        let job = self.job;
        let record = self
            .agent
            .call(move |engine| engine.agents[&job].machine.record().clone());
        record.await.barrier
    }
}

/// The next frame of the agent, its payload dropped.
async fn heard(stream: &mut BlockStream) -> Option<ToTarget> {
    let mut prefix = [0; PREFIX_LEN];
    stream.read_exact(&mut prefix).await.ok()?;
    let prefix = FramePrefix::decode(prefix).unwrap();
    let mut bytes = vec![0; prefix.header + prefix.payload];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(ToTarget::decode(&bytes[..prefix.header], prefix.payload).unwrap())
}

fn opened(barrier: u64, mark: Mark) -> ToSource {
    ToSource::Opened {
        barrier,
        mark,
        references: false,
    }
}

async fn says(stream: &mut BlockStream, frame: &ToSource) {
    // The agent may be gone by then.
    let _ = stream.write_all(&frame.encode().unwrap()).await;
    let _ = stream.flush().await;
}

/// What an honest replicator says of a volume that holds this.
fn mark_of(bytes: &[u8]) -> Mark {
    let geometry = Geometry::new(bytes.len() as u64).unwrap();
    let entry = |(block, data): (u64, &[u8])| match blocks::is_zero(data) {
        true => ZERO_ENTRY,
        false => blocks::leaf(geometry, BlockIndex(block), data),
    };
    let entries: Vec<Leaf> = (0..).zip(bytes.chunks(BLOCK_SIZE)).map(entry).collect();
    let groups = entries.chunks(GROUP_BLOCKS as usize);
    blocks::tree_mark(geometry, groups.map(blocks::group_mark))
}

/// What a replicator may do to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    AnotherMark,
    AnotherBarrier,
    NobodyAsked,
    UnknownCode,
    NodesOfNothing,
    /// To have made what it does not hold.
    AllMade,
    /// The right mark, and nothing written.
    AsIfWritten(Mark),
}

impl Lie {
    /// Plays the target until the agent has had enough.
    async fn told(self, stream: &mut BlockStream) {
        while let Some(frame) = heard(stream).await {
            match (self, frame) {
                (Self::UnknownCode, ToTarget::Open { .. }) => {
                    let code = RefusalCode::Unsupported;
                    let mut refused = ToSource::Refused { code }.encode().unwrap();
                    *refused.last_mut().unwrap() = 200;
                    let _ = stream.write_all(&refused).await;
                    let _ = stream.flush().await;
                }
                (Self::NodesOfNothing, ToTarget::Open { barrier, .. }) => {
                    let mark = Mark([1; 32]);
                    says(stream, &opened(barrier, mark)).await;
                }
                (_, ToTarget::Open { barrier, mark, .. }) => {
                    says(stream, &opened(barrier, mark)).await;
                    if self == Self::NobodyAsked {
                        let barrier = barrier + 1;
                        says(stream, &ToSource::Durable { barrier, mark }).await;
                    }
                }
                (_, ToTarget::AskGroups { first, count }) => {
                    let marks = vec![Mark([2; 32]); count as usize];
                    says(stream, &ToSource::Groups { first, marks }).await;
                }
                (_, ToTarget::AskLeaves { group }) => {
                    let entries = vec![Leaf([3; 32]); GROUP_BLOCKS as usize];
                    says(stream, &ToSource::Leaves { group, entries }).await;
                }
                (_, ToTarget::Offer { first, leaves, .. }) => {
                    let held = match self {
                        Self::AllMade => Held::Made,
                        _ => Held::Nothing,
                    };
                    let held = vec![held; leaves.len()];
                    says(stream, &ToSource::Answer { first, held }).await;
                }
                (_, ToTarget::Barrier { barrier }) => {
                    let (barrier, mark) = match self {
                        Self::AsIfWritten(mark) => (barrier, mark),
                        Self::AnotherBarrier => (barrier + 7, Mark([4; 32])),
                        _ => (barrier, Mark([4; 32])),
                    };
                    says(stream, &ToSource::Durable { barrier, mark }).await;
                }
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replicator_that_acknowledges_falsely_is_left_by_name_and_believed_in_nothing() {
    let lied = Lied::new().await;
    let before = lied.barrier().await;
    let lies = [
        (Lie::AnotherMark, "mark at barrier"),
        (Lie::AnotherBarrier, "the target acknowledged barrier"),
        (Lie::NobodyAsked, "the session with the replicator failed"),
        (Lie::UnknownCode, "bytes that are not a frame"),
        (Lie::NodesOfNothing, "do not fit"),
        (Lie::AllMade, "mark at barrier"),
    ];
    for (at, (lie, words)) in (3..).zip(lies) {
        std::fs::write(&lied.disk, content(at)).unwrap();
        let newest = lied.agent.newest_event().await;
        // On every stream, since the first may be one that the agent gave up before.
        let lying = async {
            loop {
                lie.told(&mut lied.rogue.stream().await).await;
            }
        };
        tokio::select! {
            () = lying => {}
            _ = lied.agent.event(newest, "session-lost", words) => {}
        }
        assert_eq!(lied.barrier().await, before, "{lie:?} was believed");
    }

    // What it acknowledges with the right mark is believed, as nobody else has looked…
    std::fs::write(&lied.disk, content(99)).unwrap();
    let mark = mark_of(&content(99));
    let (mut stream, job) = (lied.rogue.stream().await, lied.job);
    let believed = until("the false barrier", &lied.agent, move |engine| {
        let record = engine.agents[&job].machine.record();
        (record.barrier > before).then_some(())
    });
    tokio::select! {
        () = Lie::AsIfWritten(mark).told(&mut stream) => panic!("the agent left"),
        () = believed => {}
    }
    assert!(std::fs::read(&lied.copy).unwrap() != content(99));
    // …until the volume is compared with it: then it is sent after all.
    drop(stream);
    lied.rogue.net.shutdown().await;
    let _replicator = Running::start(&lied.folder.path().join("replicator")).await;
    soon("the whole copy", async {
        while std::fs::read(&lied.copy).unwrap() != content(99) {
            pause().await;
        }
    })
    .await;
}

/// The target's end of a session in which nothing changes, up to the statement asked
/// for; the root that is expected in it.
async fn up_to_the_statement(stream: &mut BlockStream) -> Option<(Root, bool)> {
    while let Some(frame) = heard(stream).await {
        match frame {
            ToTarget::Open { barrier, mark, .. } => {
                says(stream, &opened(barrier, mark)).await;
            }
            ToTarget::Finish {
                root, read_back, ..
            } => return Some((root, read_back)),
            _ => {}
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_root_about_anything_else_cuts_nothing_over() {
    let lied = Lied::new().await;
    let options = ActionOptions {
        prove_full: true,
        ..ActionOptions::default()
    };
    until(
        "the first pass to be known",
        &lied.operator,
        move |engine| {
            engine
                .migration_cutover("m", options.clone())
                .ok()
                .map(|_| ())
        },
    )
    .await;
    let mut subject = Subject {
        mesh: lied.rogue.replica.ledger().mesh(),
        job: lied.job,
        epoch: Epoch(1),
        length: content(0).len() as u64,
        root: [0; 32],
    };
    let own = &lied.rogue.identity;
    let another = Identity::from_seed(&[77; 32]);
    let at = super::super::wall_clock();
    let sign = |key: &Identity, subject: &Subject, end, method| {
        roles::proof::sign(key, subject, end, method, at)
    };
    let lies = [
        "mesh",
        "migration",
        "volume",
        "epoch",
        "length",
        "root",
        "end",
        "signer",
        "method",
        "purpose",
        "bytes",
        "",
    ];
    let job = lied.job;
    for lie in lies {
        let (mut stream, root) = loop {
            let mut stream = lied.rogue.stream().await;
            let asked = up_to_the_statement(&mut stream);
            if let Some((root, read_back)) = soon("a statement to be asked", asked).await {
                assert!(read_back);
                break (stream, root);
            }
        };
        subject.root = root.0;
        let mut stated = subject;
        let (mut signer, mut end, mut method) = (own, End::Target, Method::ReadBack);
        match lie {
            "mesh" => stated.mesh = MeshId([1; 32]),
            "migration" => stated.job.migration = MigrationId([1; 16]),
            "volume" => stated.job.volume = VolumeId([1; 16]),
            // An old one, shown again.
            "epoch" => stated.epoch = Epoch(0),
            "length" => stated.length -= 1,
            "root" => stated.root[0] ^= 1,
            "end" => end = End::Source,
            "signer" => signer = &another,
            "method" => method = Method::OnArrival,
            _ => {}
        }
        let mut proof = sign(signer, &stated, end, method);
        if lie == "purpose" {
            let said: RootProof = proof.open(Domain::RootProof).unwrap();
            proof = Signed::seal(own, Domain::Report, &said).unwrap();
        }
        let mut proof = codec::encode(&SealedProof(proof)).unwrap();
        if lie == "bytes" {
            proof[50] ^= 1;
        }
        let read_back = true;
        let finished = ToSource::Finished {
            root,
            read_back,
            proof,
        };
        says(&mut stream, &finished).await;
        // Its end is how the agent answers.
        soon("the session's end", async {
            while heard(&mut stream).await.is_some() {}
        })
        .await;
        if !lie.is_empty() {
            let waiting = move |engine: &mut crate::engine::Engine| {
                let none = engine.agents[&job].machine.record().finished.is_none();
                none && engine.proofs.is_empty()
            };
            assert!(lied.agent.call(waiting).await, "{lie} was believed");
        }
    }
    lied.agent.event(0, "session-lost", "signed root").await;
    until("the cutover", &lied.agent, move |engine| {
        let record = engine.agents[&job].machine.record();
        record.finished.as_ref().map(|_| ())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_never_say_what_they_are_for_end_and_give_their_places_back() {
    let world = World::new().await;
    let job = world.migrate().await;
    let mallory = world.hostile("mallory", &[Role::Agent]).await;
    let replicator = world.replicator.key;
    let open = || mallory.net.open_stream(replicator.0);
    let mut held = vec![];
    for at in 0..MAX_STREAMS_PER_PEER {
        let stream = soon("a stream", open()).await.unwrap();
        if at % 2 == 0 {
            held.push(stream);
            continue;
        }
        // A byte now and then of a frame that is never whole.
        let (reader, mut writer) = stream.split();
        tokio::spawn(async move {
            let _reader = reader;
            for byte in [200, 0, 0, 0, 0, 0, 0, 0].into_iter().chain([0; 190]) {
                if writer.write_all(&[byte]).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
                let _ = tokio::time::timeout(
                    std::time::Duration::from_millis(200),
                    std::future::pending::<()>(),
                )
                .await;
            }
            std::future::pending::<()>().await;
        });
    }
    assert!(soon("a refusal", open()).await.is_err(), "one more is open");
    world.goes_on(job, 5).await;
    soon("a place", async {
        while open().await.is_err() {
            pause().await;
        }
    })
    .await;
    let refused = world
        .replicator
        .event(0, "stream-refused", "stream of mallory");
    refused.await;
    // However many there were, they are one line and a count.
    let lines = world.replicator.events_with(0, "mallory").await;
    assert!(lines <= 8, "{lines} events");
}
