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
        name: "fuzz",
        arguments: &[
            "run",
            "--locked",
            "--package",
            "fuzz",
            "--",
            "run",
            "--seconds",
            "60",
        ],
    },
];

/// As many simulated worlds as run in three minutes; the first seed comes last.
const SIMULATIONS: [&str; 10] = [
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
];

/// Hexadecimal digits of a commit's id that make a first seed: 48 bits.
const SEED_DIGITS: usize = 12;

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
    take("simulations", &mut || simulations_step(root))?;

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

/// Each commit tries seeds of its own, and each run of a commit the same.
fn simulations_step(root: &Path) -> Result<Outcome> {
    let commit = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(root)
        .stderr(Stdio::null())
        .output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let first_seed = first_seed(&commit.unwrap_or_default()).to_string();
    let mut arguments = SIMULATIONS.to_vec();
    arguments.extend(["--first-seed", &first_seed]);
    cargo(root, &arguments)
}

/// The first seed of a commit; 0 where there is no repository.
fn first_seed(commit: &str) -> u64 {
    let digits = commit.get(..SEED_DIGITS).unwrap_or_default();
    u64::from_str_radix(digits, 16).unwrap_or(0)
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<Outcome> {
    cargo_with(root, arguments, &[]).map(outcome)
}

/// Runs cargo with settings in its environment; true when it succeeded.
pub fn cargo_with(root: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Result<bool> {
    eprintln!("cargo {}", arguments.join(" "));
    let status = cargo_command(root, arguments)
        .envs(settings.iter().copied())
        .status()
        .with_context(|| format!("running cargo {}", arguments.join(" ")))?;
    Ok(status.success())
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
    fn each_commit_has_seeds_of_its_own_and_without_one_they_begin_at_0() {
        let commit = "b333d96a55bdec94a345adc4f21ea3464e57208e\n";
        assert_eq!(first_seed(commit), 0xb333_d96a_55bd);
        assert_eq!(first_seed(&commit.replace('b', "a")), 0xa333_d96a_55ad);
        assert_eq!(first_seed(""), 0);
        assert_eq!(first_seed("fatal: not a git repository"), 0);
    }

    #[test]
    fn the_summary_says_why_a_step_was_skipped() {
        let line = line("deny", Outcome::Skipped("not installed"), Duration::ZERO);
        assert!(line.contains("skipped") && line.contains("not installed"));
    }
}
