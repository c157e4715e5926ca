//! Dunlin's runs: a test of `node` that is skipped otherwise, as two processes, one for
//! each end, that read their steps from a file. The connection between them is up
//! before the clock starts.
//!
//! Not here: the steps themselves (`node/src/bench/transfer.rs`).

use super::disks;
use super::said::{Lines, Said, field, last};
use super::table::Run;
use crate::bench::link::{End, Network};
use crate::bench::running::Running;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TEST: &str = "bench::transfer::transfer";

/// What is done with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// It is moved.
    Copy,
    /// It is moved to where another one is already.
    CopyBesideHeld,
    /// It is moved, and what was sent is punched out of the source behind it.
    Consume,
    /// It is moved; then it changes, and is brought up to date by reading all of it.
    Update,
    /// The same, with the changed blocks known.
    UpdateDirty,
    /// It is cut into eight disks of one server, which are moved at once.
    Together,
    /// The same, but each is of another agent, which is a process of its own.
    Agents,
}

/// Disks that are moved at once.
pub(super) const DISKS: u64 = 8;

impl Plan {
    /// A step a line; the last one is what is measured.
    fn lines(self) -> &'static str {
        match self {
            Self::Copy => "copy disk\n",
            Self::CopyBesideHeld => "copy held\ncopy disk\n",
            Self::Consume => "consume disk\n",
            Self::Update => "copy disk\nupdate disk\n",
            Self::UpdateDirty => "copy disk\nupdate-dirty disk\n",
            Self::Together => "together disk 8\n",
            Self::Agents => "agents disk 8\n",
        }
    }

    /// How many processes send.
    fn senders(self) -> u64 {
        match self {
            Self::Agents => DISKS,
            _ => 1,
        }
    }

    /// Whether the disk is cut into several.
    fn is_cut(self) -> bool {
        matches!(self, Self::Together | Self::Agents)
    }
}

/// The built test.
pub(super) struct Program {
    path: PathBuf,
    folder: PathBuf,
}

impl Program {
    /// Builds it.
    pub(super) fn build(root: &Path) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["test", "--locked", "--package", "node"])
            .args(["--bin", "dunlin", "--no-run"])
            .current_dir(root)
            .output()
            .context("building the test")?;
        let said = String::from_utf8_lossy(&built.stderr);
        let line = said.lines().rev().find(|line| line.contains("Executable"));
        let path = line.and_then(|line| line.rsplit_once('(')?.1.strip_suffix(')'));
        match path {
            Some(path) if built.status.success() => Ok(Self {
                path: root.join(path),
                folder: root.join("node"),
            }),
            _ => bail!("building the test failed: {said}"),
        }
    }

    /// Moves `folder/disk/source` to `folder/disk/target`, and looks whether it is the same
    /// there but where the plan leaves no source.
    pub(super) fn run(
        &self,
        network: &Network,
        folder: &Path,
        (plan, compresses): (Plan, bool),
    ) -> Result<Run> {
        for name in ["disk", "held"] {
            let disk = folder.join(name);
            if disk.exists() {
                let length = fs::metadata(disk.join("source"))?.len();
                File::create(disk.join("target"))?.set_len(length)?;
            }
        }
        let disk = folder.join("disk");
        if plan.is_cut() {
            disks::cut(&disk, DISKS)?;
        }
        let senders = plan.senders();
        let said = self.both(network, folder, plan.lines(), (compresses, senders))?;
        let run = match plan {
            Plan::Agents => said.run_of_all(),
            _ => said.run(),
        };
        let run = run.with_context(|| format!("no figures in {:?}", said.near))?;
        let same = |disk: &Path| disks::same(&disk.join("source"), &disk.join("target"));
        let is_same = match plan {
            Plan::Consume => true,
            Plan::Together | Plan::Agents => (0..DISKS)
                .map(|part| same(&disk.join(part.to_string())))
                .try_fold(true, |all, is_same| is_same.map(|is_same| all && is_same))?,
            _ => same(&disk)?,
        };
        ensure!(is_same, "the target is not the source");
        Ok(run)
    }

    /// What it costs to find that nothing has changed on `folder/disk/source`, and to hash
    /// the same bytes, as often: seconds and the core-seconds of the sending end.
    pub(super) fn find(&self, folder: &Path, rounds: usize) -> Result<[Vec<Run>; 2]> {
        self.in_turn(folder, "source", ("find", ["found ", "hashed "]), rounds)
    }

    /// What it takes to look at all of `folder/disk/source`, a device over `image` beside it
    /// on which nothing has changed, and to read it, as often: seconds and the core-seconds of
    /// the sending end.
    pub(super) fn rescan(&self, folder: &Path, rounds: usize) -> Result<[Vec<Run>; 2]> {
        self.in_turn(folder, "image", ("rescan", ["rescanned ", "read "]), rounds)
    }

    /// Moves a disk as long as this file of it, and then has the sending end do two things
    /// with it, in turn.
    fn in_turn(
        &self,
        folder: &Path,
        file: &str,
        (step, names): (&str, [&str; 2]),
        rounds: usize,
    ) -> Result<[Vec<Run>; 2]> {
        let disk = folder.join("disk");
        let length = fs::metadata(disk.join(file))?.len();
        File::create(disk.join("target"))?.set_len(length)?;
        let steps = format!("copy disk\n{step} disk {rounds}\n");
        let said = self.both(&Network::Loopback, folder, &steps, (false, 1))?;
        let near = said.near()?;
        let runs = |name: &str| -> Vec<Run> {
            let lines = near.lines().filter_map(|line| line.strip_prefix(name));
            let run = |line: &str| {
                let (seconds, cores) = (field(line, "seconds")?, field(line, "core_seconds")?);
                Some(Run {
                    sent: field(line, "bytes").map(|bytes| bytes as u64),
                    ..Run::took(seconds, cores)
                })
            };
            lines.filter_map(run).collect()
        };
        let found = names.map(runs);
        let is_whole = found.iter().all(|runs| runs.len() == rounds);
        ensure!(is_whole, "not as many figures as rounds in {near}");
        Ok(found)
    }

    /// Moves `folder/disk/source` under two limits in bytes a second, each of which holds
    /// for so many seconds, and then without one. The run is over once both have held; with
    /// it, of ten seconds, the least and the most share of what the limits allow.
    pub(super) fn throttled(
        &self,
        folder: &Path,
        (limits, secs): ([u64; 2], u64),
    ) -> Result<(Run, [f64; 2])> {
        let disk = folder.join("disk");
        let length = fs::metadata(disk.join("source"))?.len();
        File::create(disk.join("target"))?.set_len(length)?;
        let [first, second] = limits;
        let steps = format!("throttle disk {secs} {first} {second}\n");
        let said = self.both(&Network::Loopback, folder, &steps, (false, 1))?;
        let shares = || {
            let near = said.near.first()?;
            Some([last(near, "least_share")?, last(near, "most_share")?])
        };
        let found = said.run().zip(shares());
        let found = found.with_context(|| format!("no figures in {:?}", said.near))?;
        let is_same = disks::same(&disk.join("source"), &disk.join("target"))?;
        ensure!(is_same, "the target is not the source");
        Ok(found)
    }

    /// Runs both ends until they are done, with so many processes at the sending one; what
    /// they said.
    fn both(
        &self,
        network: &Network,
        folder: &Path,
        steps: &str,
        (compresses, senders): (bool, u64),
    ) -> Result<Said> {
        fs::write(folder.join("steps"), steps)?;
        let mut far = self.command(network, End::Far, folder);
        far.env(
            "DUNLIN_BENCH_LISTEN",
            format!("/ip4/{}/tcp/0", network.far()),
        );
        let mut far = Running(far.spawn().context("starting the receiving end")?);
        let mut far_said = Lines::of(far.0.stdout.take());
        let peer = far_said.until("listening=")?;
        let mut nears = vec![];
        for sender in 0..senders {
            let mut near = self.command(network, End::Near, folder);
            near.env("DUNLIN_BENCH_PEER", &peer)
                .env("DUNLIN_BENCH_COMPRESSES", compresses.to_string())
                .stdin(Stdio::piped());
            if senders > 1 {
                near.env("DUNLIN_BENCH_AGENT", sender.to_string());
            }
            nears.push(Running(near.spawn().context("starting a sending end")?));
        }
        // A stream is a connection's own only once both ends know each other.
        let knows = far_said.until("connected=");
        for near in &mut nears {
            if let Some(mut begin) = near.0.stdin.take() {
                // Who is not there any more says why below.
                let _ = begin.write_all(b"begin\n");
            }
        }
        let mut near_said = vec![];
        for near in &mut nears {
            let said = Lines::of(near.0.stdout.take()).rest()?;
            ensure!(near.0.wait()?.success(), "a sending end failed: {said}");
            let is_direct = said.contains("direct=true") && !said.contains("direct=false");
            ensure!(is_direct, "the stream shares a connection");
            near_said.push(said);
        }
        knows?;
        let far_said = far_said.rest()?;
        ensure!(
            far.0.wait()?.success(),
            "the receiving end failed: {far_said}"
        );
        Ok(Said {
            near: near_said,
            far: far_said,
        })
    }

    fn command(&self, network: &Network, end: End, folder: &Path) -> Command {
        let mut command = network.command(end, &self.path);
        let name = match end {
            End::Near => "send",
            End::Far => "receive",
        };
        command
            .args(["--exact", "--nocapture", TEST])
            .env("DUNLIN_BENCH_END", name)
            .env("DUNLIN_BENCH_FOLDER", folder)
            .current_dir(&self.folder)
            .stdout(Stdio::piped());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_comes_last() {
        for plan in [
            Plan::Copy,
            Plan::CopyBesideHeld,
            Plan::Update,
            Plan::UpdateDirty,
        ] {
            let last = plan.lines().lines().last();
            assert!(last.is_some_and(|line| line.ends_with(" disk")), "{plan:?}");
        }
    }
}
