//! What happens in the demo, in order.

use super::Told;
use super::disk::{self, DiskSpec, Writer};
use super::nodes::Node;
use crate::api::client::Client;
use crate::api::model::{
    ActionOptions, InviteCreate, InviteCreated, MigrationCreate, MigrationView, ServerView,
    VerifyView, VolumeAdd, VolumeView,
};
use crate::cli::DemoArgs;
use crate::cli::bars::Bars;
use crate::cli::figures::size;
use crate::cli::screen::{Progress, Screen};
use crate::local::{self, Init, Joining};
use anyhow::{Context, bail, ensure};
use keys::invite::Token;
use keys::{Name, Role};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::interval;

/// How long any one step may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the migration is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often the source disk is written to.
const WRITE_EVERY: Duration = Duration::from_millis(20);

/// Runs everything and stops the nodes again.
pub(super) async fn tell(
    folder: &Path,
    args: &DemoArgs,
    screen: &mut Screen,
) -> anyhow::Result<Told> {
    let source = folder.join("source.raw");
    make_disk(&source, args, screen).await?;
    let mut operator = Node::new(folder, "operator")?;
    let mut replicator = Node::new(folder, "replicator")?;
    let mut agent = Node::new(folder, "agent")?;
    let init = Init {
        mesh: name("demo"),
        node: name("operator"),
        roles: [Role::Provisioner].into_iter().collect(),
        site: None,
        root_key_out: None,
    };
    local::init(operator.folder(), init)?;
    operator.start().await?;
    let client = operator.client().await?;
    for (node, role) in [(&mut replicator, "replicator"), (&mut agent, "agent")] {
        enrol(&client, node.folder(), role).await?;
        node.start().await?;
    }
    screen.note("three nodes run: operator (with the local cloud), replicator, agent; two joined with an invite");
    let agent_client = agent.client().await?;
    let offered = VolumeAdd {
        path: source.clone(),
        name: Some("disk".into()),
    };
    let _: VolumeView = agent_client.post("/v1/volumes", &offered).await?;
    wait_for_server(&client).await?;
    let writing = Writing::start(&source, args.seed)?;
    let plan = MigrationCreate {
        server: "agent".into(),
        to: "local".into(),
        name: Some("demo".into()),
        ..MigrationCreate::default()
    };
    let _: MigrationView = client.post("/v1/migrations", &plan).await?;
    act(&client, "start").await?;
    screen.note("migration started; the disk goes on being written to");
    let mut show = Show::new(screen);
    show.until(&client, "the first pass", |view| passes(view) >= 1)
        .await?;

    act(&client, "pause").await?;
    show.until(&client, "the pause", |view| view.stage == "paused")
        .await?;
    replicator.kill().await?;
    replicator.start().await?;
    show.tell("paused, replicator killed (SIGKILL) and started again; resuming from the last durable barrier");
    act(&client, "resume").await?;
    let before = passes(&look(&client).await?);
    show.until(&client, "a pass after the restart", |view| {
        passes(view) > before
    })
    .await?;

    let written = writing.stop().await?;
    show.tell(&format!(
        "the writer stopped after {} bursts, {} rewritten; cutting over",
        written.bursts,
        size(written.bytes)
    ));
    act(&client, "cutover").await?;
    let migration = show
        .until(&client, "the cutover", |view| view.stage == "cut-over")
        .await?;
    let verify = wait_for_proofs(&client).await?;
    show.finish();
    let told = check(source, migration, verify).await?;
    for node in [&mut agent, &mut replicator, &mut operator] {
        node.stop().await?;
    }
    Ok(told)
}

fn name(text: &str) -> Name {
    Name::new(text).expect("the demo's names are sound")
}

async fn make_disk(source: &Path, args: &DemoArgs, screen: &mut Screen) -> anyhow::Result<()> {
    let spec = DiskSpec {
        length: args.size,
        files: args.files,
        seed: args.seed,
        ..DiskSpec::default()
    };
    let path = source.to_owned();
    let made = tokio::task::spawn_blocking(move || disk::make(&path, &spec)).await??;
    screen.note(format!(
        "source disk made: {} with a partition table and an ext4 file system of {} at {} holding {} files ({:?})",
        size(args.size),
        size(made.partition_length),
        made.partition_offset,
        made.files,
        made.maker
    ));
    Ok(())
}

async fn enrol(operator: &Client, folder: &Path, role: &str) -> anyhow::Result<()> {
    let wanted = InviteCreate {
        roles: vec![role.to_owned()],
        name: None,
        site: None,
        expires_secs: 600,
        uses: 1,
        scope: vec![],
        valid_for_secs: None,
        root_key: None,
    };
    let made: InviteCreated = operator.post("/v1/invites", &wanted).await?;
    let joining = Joining {
        token: Token::from_text(&made.invite)?,
        name: name(role),
    };
    local::join(folder, joining).await?;
    Ok(())
}

async fn wait_for_server(client: &Client) -> anyhow::Result<()> {
    let mut ticks = interval(LOOK);
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        ticks.tick().await;
        let servers: Vec<ServerView> = client.get("/v1/servers").await?;
        if servers.iter().any(|server| !server.disks.is_empty()) {
            return Ok(());
        }
    }
    bail!("the agent's disk did not reach the operator")
}

async fn look(client: &Client) -> anyhow::Result<MigrationView> {
    Ok(client.get("/v1/migrations/demo").await?)
}

async fn act(client: &Client, action: &str) -> anyhow::Result<()> {
    let route = format!("/v1/migrations/demo/{action}");
    let _: MigrationView = client.post(&route, &ActionOptions::default()).await?;
    Ok(())
}

fn passes(view: &MigrationView) -> u32 {
    let newest = view.volumes.first().and_then(|job| job.passes.last());
    newest.map_or(0, |pass| pass.pass)
}

async fn wait_for_proofs(client: &Client) -> anyhow::Result<VerifyView> {
    let mut ticks = interval(LOOK);
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        ticks.tick().await;
        let view: VerifyView = client.get("/v1/migrations/demo/verify").await?;
        if view.verified {
            return Ok(view);
        }
    }
    bail!("the signed roots of both ends did not reach the operator")
}

/// Reads both files from end to end, and the files in the copy's file system.
async fn check(
    source: PathBuf,
    migration: MigrationView,
    verify: VerifyView,
) -> anyhow::Result<Told> {
    let copy = migration
        .volumes
        .first()
        .and_then(|job| job.target_path.clone())
        .context("the copy's path is not known")?;
    let copy = PathBuf::from(copy);
    tokio::task::spawn_blocking(move || {
        let read = (hash(&source)?, hash(&copy)?);
        let ours = disk::manifest(&source)?;
        let theirs = disk::manifest(&copy)?;
        ensure!(ours == theirs, "the copy's file system holds other files");
        Ok(Told {
            migration,
            verify,
            source,
            copy,
            read,
            files_checked: theirs.len(),
        })
    })
    .await?
}

fn hash(path: &Path) -> anyhow::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    hasher
        .update_reader(file)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// The writer: changes the source as a running server would.
struct Writing {
    stop: Arc<AtomicBool>,
    task: Option<JoinHandle<anyhow::Result<Written>>>,
}

#[derive(Default)]
struct Written {
    bursts: u64,
    bytes: u64,
}

impl Writing {
    fn start(source: &Path, seed: u64) -> anyhow::Result<Self> {
        let mut writer = Writer::open(source, seed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut written = Written::default();
            let mut ticks = interval(WRITE_EVERY);
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                let (back, bytes) = tokio::task::spawn_blocking(move || {
                    let bytes = writer.step();
                    (writer, bytes)
                })
                .await?;
                writer = back;
                written.bursts += 1;
                written.bytes += bytes?;
            }
            Ok(written)
        });
        let task = Some(task);
        Ok(Self { stop, task })
    }

    async fn stop(mut self) -> anyhow::Result<Written> {
        self.stop.store(true, Ordering::Relaxed);
        match self.task.take() {
            Some(task) => task.await?,
            None => Ok(Written::default()),
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Progress: bars on a terminal, lines otherwise, nothing when it is not wanted.
struct Show<'a> {
    screen: &'a mut Screen,
    bars: Option<Bars>,
}

impl<'a> Show<'a> {
    fn new(screen: &'a mut Screen) -> Self {
        let bars = matches!(screen.progress(), Progress::Bars).then(Bars::new);
        Self { screen, bars }
    }

    fn tell(&mut self, text: &str) {
        match &self.bars {
            Some(bars) => bars.tell(text),
            None => self.screen.note(text),
        }
    }

    async fn until(
        &mut self,
        client: &Client,
        what: &str,
        reached: impl Fn(&MigrationView) -> bool,
    ) -> anyhow::Result<MigrationView> {
        let mut ticks = interval(LOOK);
        let until = Instant::now() + PATIENCE;
        loop {
            ticks.tick().await;
            let view = look(client).await?;
            if let Some(bars) = &mut self.bars {
                bars.show(&view);
            }
            if reached(&view) {
                return Ok(view);
            }
            if Instant::now() >= until {
                let job = view.volumes.first();
                let why = job.and_then(|job| job.detail.clone());
                let step = job.map(|job| job.step.clone()).unwrap_or_default();
                bail!(
                    "{what} did not come in {} s: stage {}, step {step}, {}",
                    PATIENCE.as_secs(),
                    view.stage,
                    why.unwrap_or_else(|| "no reason given".into())
                );
            }
        }
    }

    fn finish(&mut self) {
        self.bars = None;
    }
}
