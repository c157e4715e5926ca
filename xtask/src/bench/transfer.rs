//! `cargo xtask bench transfer`: a disk from one place to another on this machine, by
//! Dunlin and by what a user would pick instead, one after the other in every round, and
//! the medians of all rounds. Files are in memory (`--folder` names another place).
//!
//! Dunlin's runs are a test of `node` that is skipped otherwise: both ends, each with a
//! network of its own, in one process. What it measures ends when all is durable at the
//! target; the others are told to flush too. Starting a process is not counted.
//!
//! Not here: the peers (`peers`) and the disks (`disks`).

mod disks;
mod peers;

use anyhow::{Context, Result, bail};
use disks::{Change, Disk};
use peers::{Peer, Peers};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The test of `node`.
const TEST: &str = "bench::transfer::transfer";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transfer {
    rounds: usize,
    folder: PathBuf,
    /// Of the dense disk; the sparse one is twice as large.
    mib: u64,
}

/// What one run took.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    seconds: f64,
    /// Processor time of the whole machine.
    cores: f64,
    /// Sent over the network, where that is known.
    bytes: Option<u64>,
}

/// What Dunlin is measured against.
struct Limit {
    peer: Peer,
    /// So many times as fast.
    times: f64,
}

/// One thing that is done by all.
struct Case {
    name: &'static str,
    disk: Disk,
    change: Option<Change>,
    peers: &'static [Peer],
    limit: Limit,
}

const WHOLE: [Peer; 3] = [Peer::NbdCopy, Peer::DdOverSsh, Peer::RsyncWhole];

impl Transfer {
    /// Reads the command's arguments.
    pub(super) fn read(arguments: &[&str]) -> Option<Self> {
        let mut transfer = Transfer {
            rounds: 5,
            folder: PathBuf::from("/dev/shm"),
            mib: 1024,
        };
        for pair in arguments.chunks(2) {
            match pair {
                ["--rounds", rounds] => transfer.rounds = rounds.parse().ok()?,
                ["--folder", folder] => transfer.folder = folder.into(),
                ["--mib", mib] => transfer.mib = mib.parse().ok()?,
                _ => return None,
            }
        }
        (transfer.rounds > 0 && transfer.mib >= 16).then_some(transfer)
    }

    fn cases(&self) -> [Case; 4] {
        let dense = Disk::Dense { mib: self.mib };
        let sparse = Disk::Sparse { mib: 2 * self.mib };
        let nbd = |times| Limit {
            peer: Peer::NbdCopy,
            times,
        };
        let rsync = |times| Limit {
            peer: Peer::RsyncUpdate,
            times,
        };
        let update = |name, change, times| Case {
            name,
            disk: Disk::Dense { mib: 2 * self.mib },
            change: Some(change),
            peers: &[Peer::RsyncUpdate],
            limit: rsync(times),
        };
        [
            Case {
                name: "dense",
                disk: dense,
                change: None,
                peers: &WHOLE,
                limit: nbd(2.0),
            },
            Case {
                name: "sparse",
                disk: sparse,
                change: None,
                peers: &WHOLE,
                limit: nbd(2.0),
            },
            update("1 % of 64 KiB blocks changed", Change::Blocks64, 3.0),
            update("1 % of 4 KiB blocks changed", Change::Blocks4, 3.0),
        ]
    }

    /// Runs it; true when every limit was kept.
    pub(super) fn run(&self, root: &Path) -> Result<bool> {
        let place = self
            .folder
            .join(format!("dunlin-bench-{}", std::process::id()));
        fs::create_dir(&place).with_context(|| format!("making {}", place.display()))?;
        let passed = self.run_in(root, &place);
        // What cannot be removed is named by the one who looks.
        let _ = fs::remove_dir_all(&place);
        passed
    }

    fn run_in(&self, root: &Path, place: &Path) -> Result<bool> {
        let peers = Peers::start(place)?;
        let program = build(root)?;
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "{} rounds, files in {}; medians",
            self.rounds,
            self.folder.display()
        )?;
        let mut passed = true;
        for case in self.cases() {
            let (ours, theirs) = self.measure(root, place, &program, (&case, &peers))?;
            writeln!(out, "{}, {}", case.disk, case.name)?;
            show(&mut out, "dunlin", ours, ours)?;
            for (peer, run) in &theirs {
                show(&mut out, peer.name(), *run, ours)?;
            }
            let Limit { peer, times } = case.limit;
            let Some((_, other)) = theirs.iter().find(|(found, _)| *found == peer) else {
                bail!("{} was not measured", peer.name());
            };
            let found = other.seconds / ours.seconds;
            let good = found >= times;
            passed &= good;
            let verdict = if good { "pass" } else { "FAIL" };
            let name = peer.name();
            writeln!(
                out,
                "  {found:.2} times as fast as {name}, of {times:.0}  {verdict}"
            )?;
        }
        Ok(passed)
    }

    fn measure(
        &self,
        root: &Path,
        place: &Path,
        program: &Path,
        (case, peers): (&Case, &Peers),
    ) -> Result<(Run, Vec<(Peer, Run)>)> {
        let folder = place.join("case");
        let mut ours = vec![];
        let mut theirs: Vec<(Peer, Vec<Run>)> =
            case.peers.iter().map(|peer| (*peer, vec![])).collect();
        for round in 0..self.rounds {
            fs::create_dir(&folder)?;
            let source = folder.join("source");
            case.disk.write(&source)?;
            let changes = case.change.map(|change| change.at(case.disk, round));
            for (peer, runs) in &mut theirs {
                let target = folder.join("other");
                runs.push(peers.run(*peer, (&source, &target), changes.as_deref())?);
                fs::remove_file(&target)?;
                if changes.is_some() {
                    // As it was before it changed.
                    case.disk.write(&source)?;
                }
            }
            ours.push(dunlin(root, program, &folder, changes.as_deref())?);
            fs::remove_dir_all(&folder)?;
        }
        let theirs = theirs.into_iter().map(|(peer, runs)| (peer, median(runs)));
        Ok((median(ours), theirs.collect()))
    }
}

/// Builds the test and gives its path.
fn build(root: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "test",
            "--locked",
            "--package",
            "node",
            "--bin",
            "dunlin",
            "--no-run",
        ])
        .current_dir(root)
        .output()
        .context("building the test")?;
    let said = String::from_utf8_lossy(&built.stderr);
    let line = said.lines().rev().find(|line| line.contains("Executable"));
    let path = line.and_then(|line| line.rsplit_once('(')?.1.strip_suffix(')'));
    match path {
        Some(path) if built.status.success() => Ok(root.join(path)),
        _ => bail!("building the test failed: {said}"),
    }
}

fn dunlin(
    root: &Path,
    program: &Path,
    folder: &Path,
    changes: Option<&[(u64, u32)]>,
) -> Result<Run> {
    let length = fs::metadata(folder.join("source"))?.len();
    fs::File::create(folder.join("target"))?.set_len(length)?;
    if let Some(changes) = changes {
        fs::write(folder.join("changes"), disks::text(changes))?;
    }
    let ran = Command::new(program)
        .args(["--exact", "--nocapture", TEST])
        .env("DUNLIN_BENCH_FOLDER", folder)
        .current_dir(root.join("node"))
        .output()
        .context("running the test")?;
    let said = String::from_utf8_lossy(&ran.stdout);
    // Of several passes the last one counts.
    let line = said.lines().rev().find(|line| line.starts_with("pass="));
    let run = line.filter(|_| ran.status.success()).and_then(|line| {
        let field = |name: &str| {
            let mut fields = line.split(' ');
            fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        Some(Run {
            seconds: field("seconds")?.parse().ok()?,
            cores: field("core_seconds")?.parse().ok()?,
            bytes: Some(field("bytes")?.parse().ok()?),
        })
    });
    let same = || disks::same(&folder.join("source"), &folder.join("target"));
    match run {
        Some(_) if !said.contains("direct=true") => bail!("the stream shares a connection"),
        Some(run) if same()? => Ok(run),
        Some(_) => bail!("the target is not the source"),
        None => bail!("{said}{}", String::from_utf8_lossy(&ran.stderr)),
    }
}

/// Processor time that the machine has given so far, in seconds.
fn core_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line
        .split_whitespace()
        .filter_map(|f| f.parse().ok())
        .collect();
    // All but idle, waiting for disks and what other machines took; in hundredths.
    let busy = fields
        .iter()
        .enumerate()
        .filter(|(at, _)| ![3, 4, 7].contains(at));
    Ok(busy.map(|(_, ticks)| ticks).sum::<f64>() / 100.0)
}

/// Measures what is done.
fn timed(work: impl FnOnce() -> Result<Option<u64>>) -> Result<Run> {
    let (since, cores) = (Instant::now(), core_seconds()?);
    let bytes = work()?;
    Ok(Run {
        seconds: since.elapsed().as_secs_f64(),
        cores: core_seconds()? - cores,
        bytes,
    })
}

/// By seconds; of at least one.
fn median(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    runs[runs.len() / 2]
}

fn show(out: &mut impl Write, name: &str, run: Run, ours: Run) -> std::io::Result<()> {
    let Run {
        seconds,
        cores,
        bytes,
    } = run;
    let sent = bytes.map_or(String::new(), |bytes| {
        format!("{:>9.1} MB sent", bytes as f64 / 1e6)
    });
    let times = seconds / ours.seconds;
    writeln!(
        out,
        "  {name:<24} {seconds:>6.2} s {cores:>6.2} core-s {times:>6.2}x {sent}"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn arguments_that_name_nothing_are_refused() {
        let given = Transfer::read(&["--rounds", "3", "--folder", "/tmp", "--mib", "64"]).unwrap();
        assert_eq!((given.rounds, given.mib), (3, 64));
        assert_eq!(given.folder, Path::new("/tmp"));
        for bad in [
            &["--rounds", "0"][..],
            &["--mib", "1"],
            &["--mib"],
            &["x", "y"],
        ] {
            assert_eq!(Transfer::read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_median_is_the_middle_one_by_time() {
        let run = |seconds| Run {
            seconds,
            cores: 0.0,
            bytes: None,
        };
        let found = median(vec![run(3.0), run(1.0), run(9.0), run(2.0), run(8.0)]);
        assert_eq!(found.seconds, 3.0);
    }
}
