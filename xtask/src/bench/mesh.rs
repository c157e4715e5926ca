//! `cargo xtask bench mesh`: many real nodes on this machine. Measures how long a change
//! made at the operator takes to be seen by all, and the memory and connections of
//! each, and holds them to the limits.
//!
//! Not here: how a node is started and asked (`node`).

mod node;

use anyhow::{Context, Result, bail};
use node::{Folder, Node, Status};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Half of the changes are seen by all in less.
const SEEN: Duration = Duration::from_secs(2);
/// Memory of each node, in KiB.
const RESIDENT_KIB: u64 = 60 * 1024;
/// Connections of each node: as `mesh::view` has it, in a rush.
const CONNECTIONS: usize = 64;
/// Changes made.
const CHANGES: usize = 20;
/// How long the mesh may take to come together, and a change to be seen at all.
const PATIENCE: Duration = Duration::from_secs(300);
/// Pause between two looks at the nodes.
const PAUSE: Duration = Duration::from_millis(10);

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mesh {
    nodes: usize,
    /// The program to measure, where it is not to be built.
    program: Option<PathBuf>,
}

impl Mesh {
    /// Reads the command's arguments.
    pub(super) fn read(arguments: &[&str]) -> Option<Self> {
        let mut mesh = Mesh {
            nodes: 50,
            program: None,
        };
        for pair in arguments.chunks(2) {
            match pair {
                ["--nodes", nodes] => mesh.nodes = nodes.parse().ok()?,
                ["--program", program] => mesh.program = Some(program.into()),
                _ => return None,
            }
        }
        (2..=500).contains(&mesh.nodes).then_some(mesh)
    }

    /// Runs it; true when every limit was kept.
    pub(super) fn run(self, root: &Path) -> Result<bool> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => build(root)?,
        };
        let folder = Folder::new()?;
        let began = Instant::now();
        let nodes = self.found(&program, &folder)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{} nodes run after {:.1} s", nodes.len(), secs(began))?;
        wait_until_level(&nodes, None)?;
        writeln!(out, "all hold the same after {:.1} s", secs(began))?;
        let mut seen = Vec::new();
        for number in 0..CHANGES {
            seen.push(change(&nodes, number)?);
        }
        seen.sort_unstable();
        let median = seen[seen.len() / 2];
        let worst = seen[seen.len() - 1];
        let mut resident = Vec::new();
        let mut connections = Vec::new();
        for node in &nodes {
            resident.push(node.resident_kib()?);
            connections.push(node.status()?.connected);
        }
        let most = resident.iter().max().copied().unwrap_or(u64::MAX);
        let links = connections.iter().max().copied().unwrap_or(usize::MAX);
        let least = connections.iter().min().copied().unwrap_or(0);
        writeln!(
            out,
            "{CHANGES} changes seen by all {} nodes: median {} ms, worst {} ms",
            nodes.len(),
            median.as_millis(),
            worst.as_millis()
        )?;
        writeln!(
            out,
            "resident: most {:.1} MiB, mean {:.1} MiB",
            most as f64 / 1024.0,
            resident.iter().sum::<u64>() as f64 / 1024.0 / resident.len() as f64
        )?;
        writeln!(out, "connections: most {links}, least {least}")?;
        let limits = [
            ("median under 2 s", median < SEEN),
            ("under 60 MiB resident each", most < RESIDENT_KIB),
            ("at most 64 connections each", links <= CONNECTIONS),
        ];
        for (what, is_kept) in limits {
            let word = if is_kept { "pass" } else { "FAIL" };
            writeln!(out, "{word}: {what}")?;
        }
        Ok(limits.iter().all(|(_, is_kept)| *is_kept))
    }

    /// A founder and its invite, and everybody else with it.
    fn found(&self, program: &Path, folder: &Folder) -> Result<Vec<Node>> {
        let founder = Node::new(program, folder, 0);
        founder.command(&["mesh", "init", "--name", "bench", "--node-name", "n0"])?;
        let founder = founder.started()?;
        let uses = self.nodes.to_string();
        let invite = founder.command(&["invite", "create", "--role", "agent", "--uses", &uses])?;
        let invite = invite
            .split_whitespace()
            .find(|word| word.starts_with("dunlin"))
            .or(invite.split_whitespace().next())
            .context("no invite in what `dunlin invite create` printed")?
            .to_owned();
        let mut nodes = vec![founder];
        for number in 1..self.nodes {
            let node = Node::new(program, folder, number);
            node.command(&["join", "--name", &format!("n{number}"), &invite])?;
            nodes.push(node.started()?);
        }
        Ok(nodes)
    }
}

/// Builds the program; where it is.
pub(crate) fn build(root: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--locked", "--quiet", "--package", "node"])
        .current_dir(root)
        .status()
        .context("starting cargo")?;
    if !built.success() {
        bail!("the program does not build");
    }
    Ok(root.join("target/debug/dunlin"))
}

/// Makes a change at the founder; how long until every node has it.
fn change(nodes: &[Node], number: usize) -> Result<Duration> {
    let body = format!(
        "{{\"roles\":[\"agent\"],\"name\":null,\"site\":null,\"expires_secs\":{},\"uses\":1}}",
        3_600 + number
    );
    let before = nodes[0].status()?.ledger;
    let began = Instant::now();
    nodes[0].post("/v1/invites", &body)?;
    wait_until_level(nodes, Some(&before))?;
    Ok(began.elapsed())
}

/// Waits until every node's ledger is the founder's, and another one than `before`.
fn wait_until_level(nodes: &[Node], before: Option<&str>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut behind: Vec<&Node> = nodes.iter().collect();
    loop {
        let founder = nodes[0].status()?;
        let is_new = before != Some(&founder.ledger);
        let enrolled = founder.nodes == nodes.len();
        let is_behind = |status: &Status| status.ledger != founder.ledger || status.connected == 0;
        let mut still = Vec::new();
        for node in behind {
            if !is_new || !enrolled || is_behind(&node.status()?) {
                still.push(node);
            }
        }
        behind = still;
        if behind.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("{} nodes do not hold what the founder holds", behind.len());
        }
        // Other processes: they are asked again and again.
        std::thread::sleep(PAUSE);
    }
}

fn secs(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}
