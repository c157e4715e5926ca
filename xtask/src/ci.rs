//! The check that developers and CI run. It runs every step even after one
//! failed, so that one run tells all; it installs nothing.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::tidy;
use crate::tree::Tree;

/// A step that is one run of cargo.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
}

const CARGO_STEPS: [Step; 4] = [
    Step {
        name: "fmt",
        arguments: &["fmt", "--all", "--check"],
    },
    Step {
        name: "clippy",
        arguments: &[
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    },
    Step {
        name: "test",
        arguments: &["test", "--locked", "--workspace"],
    },
    Step {
        name: "simulations",
        arguments: &[
            "run",
            "--locked",
            "--package",
            "simulations",
            "--",
            "run",
            "--minutes",
            "3",
            "--nodes",
            "7",
        ],
    },
];

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped(&'static str),
}

/// Runs all steps from `root` and prints a summary; true when none failed.
pub fn run(root: &Path) -> Result<bool> {
    let mut report: Vec<(&str, Outcome, Duration)> = Vec::new();
    let mut take = |name: &'static str, step: &mut dyn FnMut() -> Result<Outcome>| {
        eprintln!("\n== {name}");
        let started = Instant::now();
        let outcome = step()?;
        report.push((name, outcome, started.elapsed()));
        anyhow::Ok(())
    };
    take("tidy", &mut || tidy_step(root))?;
    take("deny", &mut || deny_step(root))?;
    for step in &CARGO_STEPS {
        take(step.name, &mut || cargo(root, step.arguments))?;
    }

    eprintln!("\n== summary");
    for (name, outcome, took) in &report {
        eprintln!("{}", line(name, *outcome, *took));
    }
    Ok(passed(report.iter().map(|(_, outcome, _)| *outcome)))
}

fn line(name: &str, outcome: Outcome, took: Duration) -> String {
    let (word, why) = match outcome {
        Outcome::Passed => ("ok", String::new()),
        Outcome::Failed => ("FAILED", String::new()),
        Outcome::Skipped(why) => ("skipped", format!("  {why}")),
    };
    format!("{name:<12} {word:<8} {:>7.1} s{why}", took.as_secs_f64())
}

fn passed(outcomes: impl IntoIterator<Item = Outcome>) -> bool {
    outcomes
        .into_iter()
        .all(|outcome| outcome != Outcome::Failed)
}

fn tidy_step(root: &Path) -> Result<Outcome> {
    let faults = tidy::check(&Tree::read(root).context("reading the tree")?);
    for fault in &faults {
        eprintln!("{fault}");
    }
    Ok(outcome(faults.is_empty()))
}

/// cargo-deny takes minutes to build, so it is used only where it is installed.
fn deny_step(root: &Path) -> Result<Outcome> {
    let probe = cargo_command(root, &["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if probe.is_ok_and(|status| status.success()) {
        cargo(root, &["deny", "check"])
    } else {
        let why = "cargo-deny is not installed: `cargo install --locked cargo-deny`";
        eprintln!("{why}");
        Ok(Outcome::Skipped(why))
    }
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<Outcome> {
    eprintln!("cargo {}", arguments.join(" "));
    let status = cargo_command(root, arguments)
        .status()
        .with_context(|| format!("running cargo {}", arguments.join(" ")))?;
    Ok(outcome(status.success()))
}

fn cargo_command(root: &Path, arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null());
    command
}

fn outcome(good: bool) -> Outcome {
    if good {
        Outcome::Passed
    } else {
        Outcome::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_run_and_a_skipped_one_does_not() {
        let skipped = Outcome::Skipped("not installed");
        assert!(passed([Outcome::Passed, skipped]));
        assert!(!passed([Outcome::Failed, Outcome::Passed]));
    }

    #[test]
    fn the_summary_says_why_a_step_was_skipped() {
        let line = line("deny", Outcome::Skipped("not installed"), Duration::ZERO);
        assert!(line.contains("skipped") && line.contains("not installed"));
    }
}
