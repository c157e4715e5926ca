//! Fuzzing of every decoder that takes bytes from a peer or a file. `run` mutates the
//! corpus for a while, `replay` runs one file, `seeds` writes the corpus anew.
//!
//! Without coverage: what a target accepts is kept and mutated further, so that runs
//! get past the first check. Decoders of the program itself (settings, the plan file)
//! are fuzzed by its own tests.
#![forbid(unsafe_code)]

mod chance;
mod child;
mod corpus;
mod mutate;
mod parent;
mod sample;
mod target;
mod targets;
#[cfg(test)]
mod tests;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Feeds garbage to every decoder.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fuzzes every target, or one, and stops at nothing: findings are told at the end.
    Run {
        /// For how long, shared among the targets by their weight.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Only this one.
        #[arg(long)]
        target: Option<String>,
        /// Decides every mutation.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Runs one input.
    Replay {
        /// Which target.
        target: String,
        /// The input.
        file: PathBuf,
    },
    /// Writes the seeds of the corpus anew; findings in it stay.
    Seeds,
    /// One target in a process of its own, of which `run` starts one after the other.
    #[command(hide = true)]
    Child {
        /// Which target.
        target: String,
        /// For how long.
        millis: u64,
        /// Decides every mutation.
        seed: u64,
        /// Where the input under way is written.
        current: PathBuf,
    },
}

fn main() -> ExitCode {
    let mut out = std::io::stdout();
    let ended = match Args::parse().command {
        Command::Run {
            seconds,
            target,
            seed,
        } => parent::run(&mut out, seconds, target.as_deref(), seed),
        Command::Replay { target, file } => child::replay(&mut out, &target, &file),
        Command::Seeds => corpus::write_seeds(&mut out),
        Command::Child {
            target,
            millis,
            seed,
            current,
        } => child::run(&mut out, &target, millis, seed, &current),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Whoever reads the output may have stopped.
            let _ = writeln!(std::io::stderr(), "fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}
