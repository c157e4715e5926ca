//! `cargo xtask`: the project's own checks. Only the choice of a command is
//! here; it is no part of what users run.

mod bench;
mod ci;
mod e2e;
mod manifest;
mod source;
mod tidy;
mod tree;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use tree::Tree;

const USAGE: &str = "usage: cargo xtask COMMAND

commands:
  tidy   check the rules of the tree that the compiler does not know
  ci     everything that must be green: fmt, clippy, tidy, deny, tests, simulations, fuzz
  bench document [NODES SERVERS]
         the master document at scale, compared with what it must reach
  bench mesh [--nodes 50] [--program PATH]
         real nodes on this machine: how fast all of them see a change, and what
         each takes
  bench transfer [--only NAME,...] [--rounds 5] [--mib 1024] [--folder /dev/shm] [--mtu 1500] [--json]
         a disk to another place, beside nbdcopy over TLS, dd and rsync over ssh:
         dense, sparse, update, update-small, dirty, references, link (with a round trip
         of 100 ms; as root), huge, hashing; and where they are asked for scale,
         throttle and rescan (a device that is as it was; as root)
  bench freeze [--rounds 5]
         how long a source under load is frozen for its cutover; as root
  bench track [--rounds 140]
         what following writes costs who writes: fio on a loop device, as root
  e2e tracked [--runs 100] [--seed N]
         copies of disks that are written to, by what is marked alone, each frozen at its
         end and compared byte for byte; as root
  e2e live [--only NAME,...] [--cache DIR] [--folder DIR] [--keep]
         a machine under QEMU that runs a database is moved and its copy booted: plain,
         agent-killed, power-cut, network-cut, no-tracker, unseen-write; as root
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["tidy"] => tidy_command(),
        ["ci"] => ci::run(root()),
        ["bench", rest @ ..] => match bench::run(root(), rest) {
            Some(measured) => measured,
            None => {
                eprint!("{USAGE}");
                return ExitCode::from(2);
            }
        },
        ["e2e", rest @ ..] => match e2e::run(root(), rest) {
            Some(ended) => ended,
            None => {
                eprint!("{USAGE}");
                return ExitCode::from(2);
            }
        },
        ["help" | "--help" | "-h"] => {
            eprint!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder, as it was when this program was built.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

/// Prints every fault, one a line; true when there is none.
fn tidy_command() -> Result<bool> {
    let tree = Tree::read(root()).context("reading the tree")?;
    let faults = tidy::check(&tree);
    let mut out = std::io::stdout().lock();
    for fault in &faults {
        writeln!(out, "{fault}").context("printing the faults")?;
    }
    eprintln!("tidy: {} files, {} faults", tree.len(), faults.len());
    Ok(faults.is_empty())
}
