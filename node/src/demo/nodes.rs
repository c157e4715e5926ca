//! The demo's nodes: real `dunlin run` processes, each with a data folder of its own.

use crate::api::client::Client;
use anyhow::{Context, bail};
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a node may take to be ready, or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// One node. Its process ends with this value.
pub(super) struct Node {
    name: &'static str,
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Node {
    /// A node of the data folder `name` below `root`, on a port that is free now.
    pub(super) fn new(root: &Path, name: &'static str) -> anyhow::Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .context("no free port on 127.0.0.1")?
            .port();
        Ok(Self {
            name,
            folder: root.join(name),
            port,
            process: None,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the process and waits until it says that it is ready.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let log = self.log();
        let log_file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut process = Command::new(program)
            .arg("--data-dir")
            .arg(&self.folder)
            .args(["run", "--no-mdns", "--listen"])
            .arg(format!("/ip4/127.0.0.1/tcp/{}", self.port))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start node {}", self.name))?;
        let stdout = process.stdout.take().context("the node has no stdout")?;
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        let read = timeout(PATIENCE, reader.read_line(&mut line)).await;
        if !matches!(read, Ok(Ok(bytes)) if bytes > 0) {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let last = said.lines().last().unwrap_or("it said nothing");
            bail!("node {} did not get ready: {last}", self.name);
        }
        self.process = Some(process);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// Ends the process the hard way, as a power cut would.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().await.context("cannot kill a node")?;
        }
        Ok(())
    }

    /// Asks the process to stop, and waits for it.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let pid = process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .with_context(|| format!("cannot stop node {}", self.name))?;
        }
        match timeout(PATIENCE, process.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => bail!("node {} ended with {status}", self.name),
            Ok(Err(error)) => Err(error).with_context(|| format!("node {}", self.name)),
            Err(_) => {
                process.kill().await.context("cannot kill a node")?;
                bail!(
                    "node {} did not stop in {} s",
                    self.name,
                    PATIENCE.as_secs()
                )
            }
        }
    }

    /// Its local API.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(&self.folder.join("run")).await?)
    }
}
