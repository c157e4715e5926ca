//! Dunlin's runs: a test of `node` that is skipped otherwise, as two processes, one for
//! each end, that read their steps from a file. The connection between them is up
//! before the clock starts.
//!
//! Not here: the steps themselves (`node/src/bench/transfer.rs`).

use super::disks;
use super::table::Run;
use crate::bench::link::{End, Network};
use crate::bench::running::Running;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

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
}

/// Disks of one server.
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
        }
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
        if plan == Plan::Together {
            disks::cut(&disk, DISKS)?;
        }
        let said = self.both(network, folder, plan.lines(), compresses)?;
        ensure!(
            said.near.contains("direct=true"),
            "the stream shares a connection"
        );
        // Of several steps the last one counts.
        let line = said
            .near
            .lines()
            .rev()
            .find(|line| line.starts_with("seconds="));
        let run = line.and_then(|line| {
            let memory = [&said.near, &said.far].map(|said| last(said, "most_mib"));
            Some(Run {
                seconds: field(line, "seconds")?,
                cores: field(line, "core_seconds")?,
                sent: Some(field(line, "bytes")? as u64),
                most_mib: Some([memory[0]?, memory[1]?]),
                first: field(line, "first"),
            })
        });
        let run = run.with_context(|| format!("no figures in {}", said.near))?;
        let same = |disk: &Path| disks::same(&disk.join("source"), &disk.join("target"));
        let is_same = match plan {
            Plan::Consume => true,
            Plan::Together => (0..DISKS)
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
        let length = fs::metadata(folder.join("disk/source"))?.len();
        File::create(folder.join("disk/target"))?.set_len(length)?;
        let steps = format!("copy disk\nfind disk {rounds}\n");
        let said = self.both(&Network::Loopback, folder, &steps, false)?;
        let runs = |name: &str| -> Vec<Run> {
            let lines = said.near.lines().filter_map(|line| line.strip_prefix(name));
            let run = |line: &str| {
                Some(Run {
                    seconds: field(line, "seconds")?,
                    cores: field(line, "core_seconds")?,
                    sent: None,
                    most_mib: None,
                    first: None,
                })
            };
            lines.filter_map(run).collect()
        };
        let found = [runs("found "), runs("hashed ")];
        let is_whole = found.iter().all(|runs| runs.len() == rounds);
        ensure!(is_whole, "not as many figures as rounds in {}", said.near);
        Ok(found)
    }

    /// Runs both ends until they are done; what they said.
    fn both(
        &self,
        network: &Network,
        folder: &Path,
        steps: &str,
        compresses: bool,
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
        let mut near = self.command(network, End::Near, folder);
        near.env("DUNLIN_BENCH_PEER", peer)
            .env("DUNLIN_BENCH_COMPRESSES", compresses.to_string())
            .stdin(Stdio::piped());
        let mut near = Running(near.spawn().context("starting the sending end")?);
        // A stream is a connection's own only once both ends know each other.
        let knows = far_said.until("connected=");
        if let Some(mut begin) = near.0.stdin.take() {
            // Who is not there any more says why below.
            let _ = begin.write_all(b"begin\n");
        }
        let near_said = Lines::of(near.0.stdout.take()).rest()?;
        ensure!(
            near.0.wait()?.success(),
            "the sending end failed: {near_said}"
        );
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

struct Said {
    near: String,
    far: String,
}

/// What a process prints.
struct Lines(Option<BufReader<ChildStdout>>);

impl Lines {
    fn of(out: Option<ChildStdout>) -> Self {
        Self(out.map(BufReader::new))
    }

    /// Waits for a line with this name; what it says.
    fn until(&mut self, name: &str) -> Result<String> {
        let mut said = String::new();
        while let Some(out) = &mut self.0 {
            let mut line = String::new();
            if out.read_line(&mut line)? == 0 {
                break;
            }
            if let Some(value) = line.strip_prefix(name) {
                return Ok(value.trim().to_owned());
            }
            said.push_str(&line);
        }
        bail!("an end of the bench did not say {name} {said}")
    }

    /// Waits for its end.
    fn rest(&mut self) -> Result<String> {
        let mut rest = String::new();
        if let Some(out) = &mut self.0 {
            out.read_to_string(&mut rest)?;
        }
        Ok(rest)
    }
}

/// A number by its name.
fn field(line: &str, name: &str) -> Option<f64> {
    let mut fields = line.split_whitespace();
    let value = fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    value?.parse().ok()
}

/// A number in the last line that has one of this name.
fn last(said: &str, name: &str) -> Option<f64> {
    said.lines().rev().find_map(|line| field(line, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_by_their_names_and_nothing_else_is() {
        let said = "core_seconds=4.5 seconds=2.25 bytes=77\nmost_mib=80\nmost_mib=90\n";
        assert_eq!(field(said, "seconds"), Some(2.25));
        assert_eq!(field(said, "second"), None);
        assert_eq!(last(said, "most_mib"), Some(90.0));
    }

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
