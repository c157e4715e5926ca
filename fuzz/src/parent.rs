//! Runs the targets one after the other, each in a process that may end in any way,
//! and keeps what found something.

use crate::corpus::{self, Failed};
use crate::targets;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How much longer than its time a child may take before it counts as hanging.
const GRACE: Duration = Duration::from_secs(20);

/// Fuzzes for `seconds`; true when nothing was found.
pub fn run(
    out: &mut impl Write,
    seconds: u64,
    only: Option<&str>,
    seed: u64,
) -> Result<bool, Failed> {
    let mut chosen = targets::all();
    if let Some(only) = only {
        chosen = vec![targets::named(only)?];
    }
    let weights: u64 = chosen.iter().map(|target| target.weight()).sum();
    let folder = tempfile::tempdir()?;
    let current = folder.path().join("input");
    let (mut found, mut all) = (0, 0);
    for target in &chosen {
        let millis = seconds * 1000 * target.weight() / weights;
        let since = Instant::now();
        let ended = one(target.name(), millis, seed, &current)?;
        let took = since.elapsed().as_secs_f64();
        let name = target.name();
        match ended {
            Ended::Done { runs, accepted } => {
                all += runs;
                let rate = runs as f64 / took;
                writeln!(
                    out,
                    "{name:<16} {runs:>9} runs in {took:>5.1} s, {rate:>8.0}/s, {accepted:>8} accepted"
                )?;
            }
            Ended::Found(why) => {
                found += 1;
                let kept = keep(name, &current)?;
                writeln!(out, "{name:<16} FOUND {why}")?;
                writeln!(out, "{:<16} the input is {}", "", kept.display())?;
            }
        }
    }
    writeln!(
        out,
        "{all} runs of {} targets, {found} findings",
        chosen.len()
    )?;
    Ok(found == 0)
}

enum Ended {
    Done { runs: u64, accepted: u64 },
    Found(String),
}

fn one(target: &str, millis: u64, seed: u64, current: &Path) -> Result<Ended, Failed> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["child", target, &millis.to_string(), &seed.to_string()])
        .arg(current)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let limit = Duration::from_millis(millis) + GRACE;
    if !wait(&mut child, limit)? {
        child.kill()?;
        child.wait()?;
        return Ok(Ended::Found("it hangs".into()));
    }
    let status = child.wait()?;
    let mut text = String::new();
    if let Some(mut told) = child.stdout.take() {
        told.read_to_string(&mut text)?;
    }
    let last = text.lines().last().unwrap_or_default();
    let mut words = last.split(' ');
    let done = words.next() == Some("done");
    let mut number = || words.next().and_then(|word| word.parse().ok());
    match (done, number(), number()) {
        (true, Some(runs), Some(accepted)) => Ok(Ended::Done { runs, accepted }),
        _ if last.starts_with("finding") => Ok(Ended::Found(last.to_owned())),
        _ => Ok(Ended::Found(format!("the process ended: {status}"))),
    }
}

/// Whether the child ended within `limit`. Its output is a line, which a pipe holds.
fn wait(child: &mut Child, limit: Duration) -> Result<bool, Failed> {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        // The standard library waits for a child for ever or not at all.
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

/// Puts the input under way into the corpus, where every later run begins with it.
fn keep(target: &str, current: &Path) -> Result<PathBuf, Failed> {
    let input = std::fs::read(current)?;
    let hash = blake3::hash(&input).to_hex();
    let kept = corpus::folder(target).join(format!("found-{}", &hash[..12]));
    std::fs::write(&kept, input)?;
    Ok(kept)
}
