//! The nodes of this machine, and what is asked of them: an operator with the local cloud
//! and a replicator beside it. The guest's agent reaches them at the address that QEMU gives
//! to this machine's loopback.
//!
//! Not here: the agent, which is in the guest (`moving`).

use crate::bench::running::Running;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a condition may take to come true: whole passes of a guest without KVM.
const PATIENCE: Duration = Duration::from_secs(420);
const LOOK: Duration = Duration::from_millis(250);
/// Name of the migration.
const MIGRATION: &str = "move1";
/// Name of the guest's node.
pub(super) const SERVER: &str = "web1";

/// Waits until `look` gives something.
pub(super) fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        // Other processes: they are asked again and again.
        thread::sleep(LOOK);
    }
}

/// A node that runs.
struct Node {
    program: PathBuf,
    folder: PathBuf,
    _process: Option<Running>,
}

impl Node {
    fn command(&self, arguments: &[&str], input: &str) -> Result<Value> {
        let mut process = Command::new(&self.program)
            .arg("--data-dir")
            .arg(&self.folder)
            .args(arguments)
            .arg("--json")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting dunlin")?;
        let mut stdin = process.stdin.take().context("it has no stdin")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        let ran = process.wait_with_output()?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr);
            bail!("dunlin {}: {}", arguments.join(" "), said.trim());
        }
        let printed = ran.stdout;
        let read = serde_json::from_slice(&printed);
        read.with_context(|| format!("what dunlin {} printed", arguments.join(" ")))
    }

    /// Starts it, and waits until it says that it is ready.
    fn start(&mut self, port: u16) -> Result<()> {
        let settings = self.folder.with_extension("toml");
        let text = format!(
            "listen = [\"/ip4/127.0.0.1/tcp/{port}\"]\n\
             announce = [\"/ip4/10.0.2.2/tcp/{port}\"]\nmdns = false\n"
        );
        fs::write(&settings, text)?;
        let log = File::create(self.folder.with_extension("log"))?;
        let process = Command::new(&self.program)
            .arg("--data-dir")
            .arg(&self.folder)
            .args(["run", "--config"])
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn();
        let mut process = Running(process.context("starting a node")?);
        let stdout = process.0.stdout.take().context("the node has no stdout")?;
        self._process = Some(process);
        let read = BufReader::new(stdout).read_line(&mut String::new())?;
        let log = self.folder.with_extension("log");
        ensure!(read > 0, "a node did not get ready: see {}", log.display());
        Ok(())
    }
}

/// Both nodes.
pub(super) struct Mesh {
    operator: Node,
    _replicator: Node,
}

impl Mesh {
    /// Founds a mesh, in data folders in `place`.
    pub(super) fn found(program: &Path, place: &Path) -> Result<Self> {
        let node = |name: &str| Node {
            program: program.to_owned(),
            folder: place.join(name),
            _process: None,
        };
        let mut operator = node("operator");
        let found = [
            "mesh",
            "init",
            "--node-name",
            "operator",
            "--role",
            "provisioner",
        ];
        operator.command(&found, "")?;
        operator.start(7430)?;
        let mut mesh = Self {
            operator,
            _replicator: node("replicator"),
        };
        let invite = mesh.invite("replicator")?;
        let replicator = &mut mesh._replicator;
        replicator.command(&["join", "-", "--name", "replicator"], &invite)?;
        replicator.start(7431)?;
        Ok(mesh)
    }

    /// The line of an invite.
    pub(super) fn invite(&self, role: &str) -> Result<String> {
        let made = self
            .operator
            .command(&["invite", "create", "--role", role], "")?;
        let line = made["invite"].as_str();
        line.map(str::to_owned).context("there is no invite")
    }

    /// Plans the migration of all that the guest offers, once that is known, and starts it.
    pub(super) fn start_migration(&self, disks: usize) -> Result<()> {
        eventually("the operator knows the disks", || {
            let servers = self.operator.command(&["server", "list"], "")?;
            let known = servers[0]["disks"].as_array().map_or(0, Vec::len);
            Ok((known == disks).then_some(()))
        })?;
        let create = ["migration", "create", "--server", SERVER, "--to", "local"];
        let create = [&create[..], &["--name", MIGRATION]].concat();
        self.operator.command(&create, "")?;
        self.act("start")
    }

    /// `dunlin migration VERB`.
    pub(super) fn act(&self, verb: &str) -> Result<()> {
        let done = self.operator.command(&["migration", verb, MIGRATION], "");
        done.map(drop)
    }

    /// The migration as the operator sees it.
    pub(super) fn migration(&self) -> Result<Value> {
        self.operator.command(&["migration", "show", MIGRATION], "")
    }

    /// Waits until this holds for the migration.
    pub(super) fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let reached = eventually(what, || {
            last = self.migration()?;
            let has_failed = last["stage"] == "failed";
            ensure!(!has_failed, "the migration failed");
            Ok(holds(&last).then(|| last.clone()))
        });
        reached.with_context(|| format!("with {last:#}"))
    }

    /// Waits until a third node has confirmed both copies.
    pub(super) fn until_confirmed(&self) -> Result<()> {
        eventually("the copies are confirmed", || {
            // It ends with status 6 before all roots are there.
            let verify = self.operator.command(&["verify", MIGRATION], "");
            Ok(verify.ok().filter(|said| said["confirmed"] == true))
        })
        .map(drop)
    }

    /// How long the source had been frozen when it was cut over.
    pub(super) fn frozen(&self) -> Result<Duration> {
        let log = self.log();
        let (_, rest) = log
            .rsplit_once("was frozen for ")
            .context("no event says how long the source was frozen")?;
        let millis = rest.split_whitespace().next().unwrap_or_default();
        Ok(Duration::from_millis(millis.parse()?))
    }

    /// What happened, for a person to read.
    pub(super) fn log(&self) -> String {
        let events = self.operator.command(&["migration", "log", MIGRATION], "");
        let Ok(Value::Array(events)) = events else {
            return "there are no events".into();
        };
        let lines = events.iter().map(|event| {
            let field = |name: &str| event[name].as_str().unwrap_or_default();
            let (at, node) = (field("at"), field("node"));
            format!("{at} {node} {}: {}\n", field("kind"), field("text"))
        });
        lines.collect()
    }
}
