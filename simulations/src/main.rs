//! Many nodes in one process, in virtual time, with everything going wrong that may:
//! `run` tries seeds, `replay` shows one again.
//!
//! Nothing here is part of the program; the machines it drives are.
#![forbid(unsafe_code)]

mod context;
mod disk;
mod duties;
mod ending;
mod faults;
mod flushing;
mod invariants;
mod links;
mod network;
mod node;
mod people;
mod receiving;
mod rng;
mod scenario;
mod sending;
mod store;
#[cfg(test)]
mod tests;
mod trace;
mod world;

use clap::{Parser, Subcommand};
use context::Seen;
use std::io::Write;
use std::process::ExitCode;

/// Simulates a mesh of many nodes with faults, and checks every invariant.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds and stops at the first that breaks an invariant.
    Run {
        /// How many seeds.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// How many nodes.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u8).range(3..=32))]
        nodes: u8,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        first_seed: u64,
    },
    /// Runs one seed again.
    Replay {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// How many nodes.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u8).range(3..=32))]
        nodes: u8,
        /// Print every event.
        #[arg(long)]
        trace: bool,
    },
}

fn main() -> ExitCode {
    // Whoever reads the output may stop early.
    let mut out = std::io::stdout();
    match Args::parse().command {
        Command::Run {
            seeds,
            nodes,
            first_seed,
        } => run(&mut out, seeds, nodes, first_seed),
        Command::Replay { seed, nodes, trace } => replay(&mut out, seed, nodes, trace),
    }
}

fn run(out: &mut impl Write, seeds: u64, nodes: u8, first_seed: u64) -> ExitCode {
    let mut seen = Seen::default();
    let mut all = blake3::Hasher::new();
    for done in 0..seeds {
        let seed = first_seed + done;
        let outcome = world::run(seed, usize::from(nodes), false, None);
        if let Some(violation) = outcome.violation {
            let invariant = violation.invariant;
            let _ = writeln!(
                out,
                "seed {seed} breaks {}: {}",
                invariant.id(),
                invariant.text()
            );
            let _ = writeln!(out, "  {}", violation.text);
            let _ = writeln!(out, "replay it with");
            let _ = writeln!(
                out,
                "  cargo run -p simulations -- replay --seed {seed} --nodes {nodes} --trace"
            );
            return ExitCode::FAILURE;
        }
        seen.add(&outcome.seen);
        all.update(outcome.hash.as_bytes());
        if (done + 1) % 25 == 0 {
            let _ = writeln!(out, "{} seeds done", done + 1);
        }
    }
    let _ = writeln!(out, "{seeds} seeds of {nodes} nodes: every invariant held");
    for (name, count) in seen.table() {
        let _ = writeln!(out, "{count:>10} {name}");
    }
    let hash = all.finalize().to_hex();
    let _ = writeln!(out, "trace hash of all seeds {}", &hash[..16]);
    ExitCode::SUCCESS
}

fn replay(out: &mut impl Write, seed: u64, nodes: u8, trace: bool) -> ExitCode {
    let outcome = world::run(seed, usize::from(nodes), trace, None);
    let secs = outcome.millis / 1000;
    let _ = writeln!(
        out,
        "seed {seed}: {} lines, {secs} s of virtual time",
        outcome.lines
    );
    for (name, count) in outcome.seen.table() {
        let _ = writeln!(out, "{count:>10} {name}");
    }
    let _ = writeln!(out, "trace hash {}", outcome.hash);
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            let _ = writeln!(
                out,
                "broken: {} {}",
                violation.invariant.id(),
                violation.text
            );
            ExitCode::FAILURE
        }
    }
}
