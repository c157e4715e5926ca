//! `dunlin demo`: a whole migration on this machine, in a temporary folder: three
//! nodes as processes of their own, a disk that is written to while it moves, one
//! node killed on the way, and the proof at the end.
//!
//! It goes the way a user goes: through invites, the local API and the real node.
//! Not here: anything that a real migration does not do.

mod disk;
mod ext4;
mod gpt;
mod nodes;
mod story;

use crate::api::model::{MigrationView, PassView, VerifyView};
use crate::cli::DemoArgs;
use crate::cli::figures::{rate, size, took};
use crate::cli::outcome::CommandError;
use crate::cli::screen::Screen;
use anyhow::Context;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a demo came to.
#[derive(Debug, Serialize)]
struct Outcome {
    equal: bool,
    source: PathBuf,
    copy: PathBuf,
    source_root: String,
    copy_root: String,
    files_checked: usize,
    length: u64,
    passes: Vec<PassView>,
    first_pass_bytes_per_sec: u64,
    seconds: f64,
    kept: Option<PathBuf>,
}

/// Runs the demo and prints what it came to; exit status 1 unless both ends are equal.
pub async fn run(args: DemoArgs, screen: &mut Screen) -> Result<(), CommandError> {
    let failed = |error: anyhow::Error| CommandError::failed(format!("the demo failed: {error:#}"));
    let started = Instant::now();
    let folder = tempfile::Builder::new()
        .prefix("dunlin-demo-")
        .tempdir()
        .context("cannot make a temporary folder")
        .map_err(failed)?;
    let told = tokio::select! {
        told = story::tell(folder.path(), &args, screen) => told,
        stopped = interrupted() => stopped.and_then(|()| Err(anyhow::anyhow!("interrupted"))),
    };
    let told = match told {
        Ok(told) => told,
        Err(error) => {
            if args.keep {
                let kept = folder.keep();
                screen.note(format!("the folder is kept: {}", kept.display()));
            }
            return Err(failed(error));
        }
    };
    let mut outcome = outcome(&told, started);
    if args.keep {
        outcome.kept = Some(folder.keep());
    }
    screen.result(&outcome, |outcome, _| page(outcome, &told.verify))?;
    if outcome.equal {
        Ok(())
    } else {
        Err(CommandError::failed("source and copy differ"))
    }
}

async fn interrupted() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = hangup.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

/// What the story leaves to be told.
struct Told {
    migration: MigrationView,
    verify: VerifyView,
    source: PathBuf,
    copy: PathBuf,
    /// BLAKE3 of both files, read by this process from end to end.
    read: (String, String),
    files_checked: usize,
}

fn outcome(told: &Told, started: Instant) -> Outcome {
    let volume = told.verify.volumes.first();
    let root = |end: Option<&crate::api::model::ProofView>| {
        end.map(|proof| proof.root.clone()).unwrap_or_default()
    };
    let source_root = root(volume.and_then(|volume| volume.source.as_ref()));
    let copy_root = root(volume.and_then(|volume| volume.target.as_ref()));
    let job = told.migration.volumes.first();
    let passes = job.map(|job| job.passes.clone()).unwrap_or_default();
    let length = job.map_or(0, |job| job.length);
    let first = passes.first().map_or(0, |pass| pass.millis.max(1));
    Outcome {
        equal: told.verify.verified
            && !source_root.is_empty()
            && told.read.0 == source_root
            && told.read.1 == copy_root,
        source: told.source.clone(),
        copy: told.copy.clone(),
        source_root,
        copy_root,
        files_checked: told.files_checked,
        length,
        first_pass_bytes_per_sec: (length * 1000).checked_div(first).unwrap_or(0),
        passes,
        seconds: started.elapsed().as_secs_f64(),
        kept: None,
    }
}

fn page(outcome: &Outcome, verify: &VerifyView) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let verdict = if outcome.equal { "equal" } else { "NOT EQUAL" };
    let volume = verify.volumes.first();
    let method = |end: Option<&crate::api::model::ProofView>| {
        end.map(|proof| format!("signed by {}, {}", proof.signed_by, proof.method))
            .unwrap_or_default()
    };
    let source = method(volume.and_then(|volume| volume.source.as_ref()));
    let copy = method(volume.and_then(|volume| volume.target.as_ref()));
    // Writing to a String does not fail.
    let _ = writeln!(text, "source root  {}  ({source})", outcome.source_root);
    let _ = writeln!(text, "copy root    {}  ({copy})", outcome.copy_root);
    let _ = writeln!(
        text,
        "{verdict}; both files were read again from end to end, and {} files in the copy's file system",
        outcome.files_checked
    );
    let _ = writeln!(text, "\npass  blocks sent      bytes sent      took");
    for pass in &outcome.passes {
        let _ = writeln!(
            text,
            "{:>4}  {:>11}  {:>14}  {:>8}",
            pass.pass,
            pass.blocks,
            size(pass.bytes_sent),
            took(pass.millis)
        );
    }
    let _ = writeln!(
        text,
        "\n{} in the first pass at {}; the whole demo took {:.1} s",
        size(outcome.length),
        rate(outcome.first_pass_bytes_per_sec),
        outcome.seconds
    );
    let check = |path: &Path| format!("b3sum --no-names {}", path.display());
    let _ = match &outcome.kept {
        Some(folder) => writeln!(
            text,
            "check it yourself:\n  {}\n  {}\nthe folder is kept: {}",
            check(&outcome.source),
            check(&outcome.copy),
            folder.display()
        ),
        None => writeln!(
            text,
            "check it yourself with --keep, which leaves the folder:\n  {}\n  {}",
            check(&outcome.source),
            check(&outcome.copy)
        ),
    };
    text
}
