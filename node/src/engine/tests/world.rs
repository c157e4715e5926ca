//! A mesh of engines in this process over real loopback sockets, and an agent's key in
//! the hands of somebody who speaks on the wire as he likes.

use super::super::{Engine, Handle, Parts};
use super::rogue::Rogue;
use crate::api::model::{ActionOptions, InviteCreate, MigrationCreate, VolumeAdd};
use crate::config::Config;
use crate::datadir::{DataDir, KeyFile};
use crate::local::{self, Init, Joining};
use crate::net;
use crate::store::Store;
use blocks::frame::PREFIX_LEN;
use blocks::{BLOCK_SIZE, BlockIndex, Encoding, FramePrefix, Geometry, ToSource, ToTarget};
use crdt::Event;
use futures::AsyncReadExt;
use keys::invite::Token;
use keys::lease::{Pair, Renewal, Span};
use keys::statement::{Admission, Enrolment, Entry};
use keys::{
    Domain, Identity, Leases, Name, PublicKey, Pulse, Role, Signed, Statement, StatementId,
    UnixSecs,
};
use libp2p::Multiaddr;
use mesh::Replica;
use provider::Provider;
use provider_local::LocalCloud;
use roles::JobId;
use std::collections::BTreeMap;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// Blocks of the source.
pub const BLOCKS: u64 = 64;

/// Waits for a future, or fails naming what it was.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = timeout(DEADLINE, future).await;
    result.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Lets the others run before the next look.
pub async fn pause() {
    let _ = timeout(LOOK, pending::<()>()).await;
}

/// Waits until `look` at an engine gives something.
pub async fn until<T: Send + 'static>(
    what: &str,
    node: &Running,
    look: impl Fn(&mut Engine) -> Option<T> + Clone + Send + 'static,
) -> T {
    soon(what, async {
        loop {
            if let Some(found) = node.call(look.clone()).await {
                return found;
            }
            pause().await;
        }
    })
    .await
}

/// An engine that runs.
pub struct Running {
    pub key: PublicKey,
    handle: Handle,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Running {
    pub async fn start(folder: &Path) -> Self {
        let dir = DataDir::open(folder).unwrap();
        // A program that another test starts may hold on to it for a moment.
        let lock = soon("the folder's lock", async {
            loop {
                match dir.lock() {
                    Ok(lock) => return lock,
                    Err(_) => pause().await,
                }
            }
        })
        .await;
        let (store, header) = Store::open(&dir.store()).unwrap();
        let (identity, replica) = local::restore(&dir, &store, &header).unwrap();
        let config = Config {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            told: local::read_told(&dir),
            ..Config::default()
        };
        let mut providers: BTreeMap<String, Arc<dyn Provider>> = BTreeMap::new();
        let me = replica.authority().by_key(&identity.public()).unwrap();
        if me.roles.has(Role::Provisioner) {
            std::fs::create_dir_all(dir.cloud()).unwrap();
            let cloud = LocalCloud::open(&dir.cloud()).unwrap();
            providers.insert(cloud.kind().to_owned(), Arc::new(cloud));
        }
        let listen = config.listen.clone();
        let tag = local::mesh_tag(&header.mesh);
        let network = net::Config::new(&mut identity.seed(), listen, false, tag);
        let key = identity.public();
        let (engine, net_events, messages) = Engine::new(Parts {
            dir,
            store,
            identity,
            replica,
            net: net::start(network).await.unwrap(),
            providers,
            config,
        })
        .unwrap();
        let handle = engine.handle();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(async move {
            let stopped = async {
                // A dropped sender stops it too.
                let _ = stopped.await;
            };
            let ran = Box::pin(engine.run(net_events, messages, |_| {}, stopped));
            ran.await.unwrap();
            drop(lock);
        });
        Self {
            key,
            handle,
            stop,
            ended,
        }
    }

    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> T {
        self.handle.call(call).await.unwrap()
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        soon("the engine's end", self.ended).await.unwrap();
    }

    /// Has an operator state something; the signed statement.
    pub async fn state(&self, statement: Statement) -> Signed {
        self.call(|engine| {
            let mut out = vec![];
            let wall = engine.now().wall;
            let id = engine.replica.state(wall, statement, &mut out).unwrap();
            engine.carry(out);
            engine.replica.ledger().get(&id).unwrap().signed.clone()
        })
        .await
    }

    /// Has an operator take something back.
    pub async fn revoke(&self, target: impl Into<StatementId>) {
        let revocation = keys::Revocation {
            target: target.into(),
            honours: None,
            reason: "a test".into(),
        };
        self.state(Statement::Revocation(revocation)).await;
    }

    /// Takes a statement in, as if a peer had shown it.
    async fn shown(&self, signed: Signed) {
        self.call(|engine| {
            let from = engine.replica.my_key();
            let statements = vec![signed];
            engine.step_replica(mesh::Input::Shown { from, statements });
        })
        .await;
    }

    /// Where it listens.
    pub async fn addresses(&self) -> Vec<Multiaddr> {
        let listening = self.call(|engine| engine.listening.clone()).await;
        let parsed = listening.iter().map(|address| address.parse().unwrap());
        parsed.collect()
    }

    /// How many events after number `after` have this word in them.
    pub async fn events_with(&self, after: u64, word: &'static str) -> usize {
        self.call(move |engine| {
            let events = engine.events.iter();
            let fits = |event: &&Event| event.seq > after && event.text.contains(word);
            events.filter(fits).count()
        })
        .await
    }

    /// Number of the newest event.
    pub async fn newest_event(&self) -> u64 {
        self.call(|engine| engine.events.back().map_or(0, |event| event.seq))
            .await
    }

    /// Waits for an event after number `after` of this kind with these words.
    pub async fn event(&self, after: u64, kind: &'static str, words: &'static str) -> Event {
        until(&format!("{kind}: {words}"), self, move |engine| {
            let mut events = engine.events.iter();
            let fits = |event: &&Event| {
                event.seq > after && event.kind == kind && event.text.contains(words)
            };
            events.find(fits).cloned()
        })
        .await
    }
}

/// Operator (and provisioner), replicator and agent.
pub struct World {
    pub operator: Running,
    pub replicator: Running,
    pub agent: Running,
    pub disk: PathBuf,
    pub folder: TempDir,
}

/// The agent's engine was stopped, and somebody else has its key.
pub struct Taken {
    pub operator: Running,
    pub replicator: Running,
    pub rogue: Rogue,
    pub job: JobId,
    pub copy: PathBuf,
    _folder: TempDir,
}

impl World {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let founder = folder.path().join("operator");
        let init = Init {
            mesh: Name::new("mesh").unwrap(),
            node: Name::new("operator").unwrap(),
            roles: [Role::Provisioner].into_iter().collect(),
            site: None,
            root_key_out: None,
        };
        local::init(&founder, init).unwrap();
        let operator = Running::start(&founder).await;
        until("its address", &operator, |engine| {
            (!engine.listening.is_empty()).then_some(())
        })
        .await;
        let replicator = join(&operator, folder.path(), "replicator", "replicator").await;
        let agent = join(&operator, folder.path(), "agent", "agent").await;
        let disk = folder.path().join("disk.raw");
        std::fs::write(&disk, content(0)).unwrap();
        Self {
            operator,
            replicator,
            agent,
            disk,
            folder,
        }
    }

    /// Plans and starts a migration of the agent's disk, and waits for its first pass.
    pub async fn migrate(&self) -> JobId {
        self.migrate_of(&self.agent, "agent", "m", &self.disk).await
    }

    /// One more agent of this name.
    pub async fn one_more(&self, name: &str) -> Running {
        join(&self.operator, self.folder.path(), name, "agent").await
    }

    /// The same of the disk of any agent.
    pub async fn migrate_of(
        &self,
        agent: &Running,
        server: &'static str,
        name: &'static str,
        disk: &Path,
    ) -> JobId {
        let path = disk.to_owned();
        let offer = VolumeAdd { path, name: None };
        agent
            .call(move |engine| engine.volume_add(&offer).unwrap())
            .await;
        let asked = MigrationCreate {
            name: Some(name.into()),
            server: server.into(),
            to: "local".into(),
            site: None,
            provisioner: None,
            replicators: vec![],
            disks: vec![],
            leave_out: None,
        };
        until("a plan", &self.operator, move |engine| {
            engine.migration_create(&asked).ok()
        })
        .await;
        self.operator
            .call(move |engine| {
                engine
                    .migration_start(name, false, ActionOptions::default())
                    .unwrap()
            })
            .await;
        until("the first pass", agent, |engine| {
            let mut slots = engine.agents.iter();
            let passed = slots.find(|(_, slot)| !slot.machine.record().passes.is_empty());
            passed.map(|(job, _)| *job)
        })
        .await
    }

    /// Has the root key state something, which every engine is shown at once.
    pub async fn by_root(&self, statement: Statement) -> Signed {
        let dir = DataDir::open(&self.folder.path().join("operator")).unwrap();
        let root = dir.read_key(KeyFile::Root).unwrap();
        let stated = self.operator.call(move |engine| {
            let ledger = engine.replica.ledger();
            let (seq, previous) = ledger.next_position(&root.public());
            let entry = Entry {
                seq,
                previous,
                mesh: Some(ledger.mesh()),
                at: engine.now().wall,
                statement,
            };
            Signed::seal(&root, Domain::Statement, &entry).unwrap()
        });
        let signed = stated.await;
        for node in [&self.operator, &self.replicator, &self.agent] {
            node.shown(signed.clone()).await;
        }
        signed
    }

    /// Enrols a key of these roles, in the hands of somebody hostile who is connected to
    /// all others.
    pub async fn hostile(&self, name: &str, roles: &[Role]) -> Rogue {
        self.hostile_until(name, roles, None).await
    }

    /// The same, with an enrolment that ends.
    pub async fn hostile_until(
        &self,
        name: &str,
        roles: &[Role],
        not_after: Option<UnixSecs>,
    ) -> Rogue {
        let identity = Identity::from_seed(blake3::hash(name.as_bytes()).as_bytes());
        let enrolment = Enrolment {
            subject: identity.public(),
            name: Name::new(name).unwrap(),
            roles: roles.iter().copied().collect(),
            site: None,
            scope: keys::Scope::Everywhere,
            not_after,
            admission: Admission::Root,
        };
        self.by_root(Statement::Enrolment(enrolment)).await;
        let held = self.operator.call(|engine| {
            let document = engine.replica.document();
            let authors = document.heads();
            let changes = authors.keys();
            let changes = changes.flat_map(|author| document.entries_after(author, 0, usize::MAX));
            let ledger = engine.replica.ledger().clone();
            (ledger, changes.collect::<Vec<_>>())
        });
        let (ledger, changes) = held.await;
        let replica = Replica::restore(identity.clone(), None, ledger, changes, vec![]);
        let mut replica = Box::new(replica.unwrap());
        replica.write_unheard();
        let victims = [&self.operator, &self.replicator, &self.agent];
        Rogue::new(identity, replica, &victims).await
    }

    /// Writes other bytes to the source and waits until the copy has them: the honest
    /// nodes go on.
    pub async fn goes_on(&self, job: JobId, seed: u64) {
        std::fs::write(&self.disk, content(seed)).unwrap();
        let copy = self.copy(job).await;
        soon("the copy of what was written", async {
            while std::fs::read(&copy).unwrap() != content(seed) {
                pause().await;
            }
        })
        .await;
    }

    /// Where the replicator writes.
    pub async fn copy(&self, job: JobId) -> PathBuf {
        self.replicator
            .call(move |engine| engine.replicator.record(&job).unwrap().path.clone().into())
            .await
    }

    /// Stops the agent after its first pass and hands its key to somebody else.
    pub async fn taken(self) -> Taken {
        let job = self.migrate().await;
        let copy = self.copy(job).await;
        let replicator = self.replicator.key;
        self.agent.stop().await;
        until("the agent is gone", &self.replicator, move |engine| {
            engine.receiving.is_empty().then_some(())
        })
        .await;
        let folder = self.folder.path().join("agent");
        let rogue = Rogue::of_folder(&folder, &[&self.replicator]).await;
        assert_eq!(rogue.victims, [replicator]);
        Taken {
            operator: self.operator,
            replicator: self.replicator,
            rogue,
            job,
            copy,
            _folder: self.folder,
        }
    }
}

/// Leases of a node for a grant with itself, as every operator that stands would renew
/// them now.
pub fn confirmed(engine: &Engine, grant: StatementId) -> Leases {
    let (now, me) = (engine.now(), engine.replica.me().unwrap());
    let authority = engine.replica.authority();
    let pair = Pair {
        grant,
        replicator: me,
    };
    let span = Span {
        lease_secs: 3_600,
        autonomy_secs: 0,
    };
    let renewal = Renewal {
        holder: me,
        pulse: Pulse([1; 16]),
        pairs: vec![pair],
    };
    let wanted = BTreeMap::from([(pair, span)]);
    let mut leases = Leases::new();
    leases.pulse(now, renewal.pulse);
    for member in authority.members() {
        let said = (member.id, std::slice::from_ref(&renewal));
        leases.hear(authority, now.wall, (me, &wanted), said);
    }
    leases
}

/// Bytes of a disk, each block another, other for each `seed`.
pub fn content(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCKS as usize * BLOCK_SIZE];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// All who join are at the site `here`.
async fn join(operator: &Running, folder: &Path, name: &str, role: &str) -> Running {
    let asked = InviteCreate {
        roles: vec![role.into()],
        name: None,
        site: Some("here".into()),
        expires_secs: 600,
        uses: 1,
        scope: vec![],
        valid_for_secs: None,
        root_key: None,
    };
    let created = operator.call(move |engine| engine.invite_create(&asked).unwrap());
    let token = Token::from_text(&created.await.invite).unwrap();
    let joining = Joining {
        token,
        name: Name::new(name).unwrap(),
    };
    let folder = folder.join(name);
    local::join(&folder, joining).await.unwrap();
    let joined = Running::start(&folder).await;
    let key = joined.key;
    until("a connection", operator, move |engine| {
        engine.connected.contains(&key).then_some(())
    })
    .await;
    joined
}

/// The frame of one block.
pub fn extent(bytes: &[u8], block: u64) -> Vec<u8> {
    let geometry = Geometry::new(bytes.len() as u64).unwrap();
    let range = geometry.block_range(BlockIndex(block));
    let payload = &bytes[range.start as usize..range.end as usize];
    let frame = ToTarget::Extent {
        first: BlockIndex(block),
        encoding: Encoding::Raw,
        leaves: vec![blocks::leaf(geometry, BlockIndex(block), payload)],
        fingerprints: vec![],
    };
    let mut encoded = frame.encode(payload.len()).unwrap();
    encoded.extend(payload);
    encoded
}

/// The next frame of the replicator; none when the stream ended.
pub async fn answer(stream: &mut (impl futures::AsyncRead + Unpin)) -> Option<ToSource> {
    let mut prefix = [0; PREFIX_LEN];
    stream.read_exact(&mut prefix).await.ok()?;
    let prefix = FramePrefix::decode(prefix).unwrap();
    let mut header = vec![0; prefix.header];
    stream.read_exact(&mut header).await.ok()?;
    Some(ToSource::decode(&header, prefix.payload).unwrap())
}
