//! `dunlin run`: the node in the foreground, until it is told to stop.

use super::{bind, mesh_tag, read_told, restore, settle_key};
use crate::api::{metrics, server};
use crate::config::Config;
use crate::datadir::DataDir;
use crate::engine::{Ended, Engine, Parts};
use crate::net;
use crate::store::{Header, Store, StoreError};
use anyhow::Context;
use provider::Provider;
use provider_local::LocalCloud;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long a command may read what is stored before the node gives up starting.
const READ_FOR: Duration = Duration::from_secs(5);
/// How often it is tried.
const LOOK: Duration = Duration::from_millis(50);

/// Ends when this process is told to stop: SIGTERM and SIGINT.
///
/// # Errors
/// When it cannot hear them.
pub fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Runs the node of `folder`. `ready` is told once where it listens.
///
/// When its key was changed the process begins again as a new program of the same
/// process id, so that nothing of the old key, and no session that was opened with it,
/// goes on beside the new one. To what is stored that is a crash, which it survives.
pub async fn run(
    folder: &Path,
    mut config: Config,
    ready: impl FnOnce(&str),
) -> anyhow::Result<()> {
    allow_more_files();
    let dir = DataDir::open(folder)?;
    let lock = dir.lock()?;
    let (store, header) = open_store(&dir).await?;
    let sys = crate::machine::sys();
    if !config.moved {
        crate::machine::check(dir.path(), &sys)?;
    } else if crate::machine::check(dir.path(), &sys).is_err() {
        bind(&dir)?;
    } else {
        // It is this machine: nothing moved, and a binding that was none is kept.
        config.moved = false;
    }
    let (identity, mut replica) = restore(&dir, &store, &header)?;
    settle_key(&dir, &store, &identity)?;
    if config.alone {
        replica.write_unheard();
    }
    config.told = read_told(&dir);
    let providers = clouds(&dir, &config, &replica)?;
    let network = net::Config::new(
        &mut identity.seed(),
        config.listen.clone(),
        config.mdns,
        mesh_tag(&header.mesh),
    );
    let net = net::start(network).await?;
    let name = replica
        .me()
        .and_then(|me| replica.authority().member(&me))
        .map(|member| member.name.to_string())
        .context("this node is not enrolled in the mesh whose state it holds; join again")?;
    let run_dir = dir.run();
    let (metrics_at, data) = (config.metrics, dir.clone());
    let (engine, net_events, messages) = Engine::new(Parts {
        dir,
        store,
        identity,
        replica,
        net,
        providers,
        config,
    })?;
    let api = server::serve(&run_dir, engine.handle())?;
    let metrics = match metrics_at {
        Some(address) => Some(metrics::serve(address, &data, engine.handle()).await?),
        None => None,
    };
    if let Some((address, _)) = &metrics {
        let token = metrics::token_path(&data);
        let token = token.display();
        tracing::info!("metrics are at http://{address}/metrics, with the token in {token}");
    }
    let stop = told_to_stop()?;
    let ready = |addresses: &[String]| {
        let addresses = addresses.join(", ");
        ready(&format!(
            "dunlin: node {name} is ready, listening on {addresses}"
        ));
    };
    let ended = engine.run(net_events, messages, ready, stop).await;
    api.abort();
    if let Some((_, metrics)) = metrics {
        metrics.abort();
    }
    drop(lock);
    match ended? {
        Ended::Stopped => Ok(()),
        Ended::KeyChanged => Err(begin_again()),
    }
}

/// Every connection and every disk takes a file descriptor. The soft limit, often 1,024, is
/// for programs that cannot count further.
fn allow_more_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit on open files stays as it is: {error}");
    }
}

/// Opens the store. A command that reads it right now lets go of it in a moment.
async fn open_store(dir: &DataDir) -> Result<(Store, Header), StoreError> {
    let until = Instant::now() + READ_FOR;
    loop {
        match Store::open(&dir.store()) {
            Err(StoreError::Locked { .. }) if Instant::now() < until => {
                // The lock is another process's, and cannot be waited for with a limit.
                tokio::time::sleep(LOOK).await;
            }
            opened => return opened,
        }
    }
}

/// Only returns when it did not work.
fn begin_again() -> anyhow::Error {
    tracing::info!("the node begins again with its next key");
    let mut args = std::env::args_os();
    let failed = std::process::Command::new("/proc/self/exe")
        .arg0(args.next().unwrap_or_else(|| "dunlin".into()))
        .args(args)
        .exec();
    anyhow::Error::new(failed)
        .context("the node's key was changed and the node could not begin again: start it")
}

/// The clouds that this node can make volumes in: the local one, on a provisioner.
fn clouds(
    dir: &DataDir,
    config: &Config,
    replica: &mesh::Replica,
) -> anyhow::Result<BTreeMap<String, Arc<dyn Provider>>> {
    let mut clouds: BTreeMap<String, Arc<dyn Provider>> = BTreeMap::new();
    let me = replica.me().and_then(|me| replica.authority().member(&me));
    if me.is_some_and(|member| member.roles.has(keys::Role::Provisioner)) {
        let folder = config.local_cloud.clone().unwrap_or_else(|| dir.cloud());
        if config.local_cloud.is_none() {
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let cloud = LocalCloud::open(&folder)?;
        clouds.insert(cloud.kind().to_owned(), Arc::new(cloud));
    }
    Ok(clouds)
}
