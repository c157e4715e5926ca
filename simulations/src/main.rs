//! Many nodes in one process, in virtual time, with everything going wrong that may:
//! `run` tries seeds, `replay` shows one, `scenario` writes one down and `minimise`
//! makes one small that breaks an invariant; `scale` measures large meshes.
//!
//! Nothing here is part of the program; the machines it drives are.
#![forbid(unsafe_code)]

mod chance;
mod context;
mod describing;
mod disk;
mod duties;
mod ending;
mod faults;
mod flushing;
mod freezing;
mod invariants;
mod links;
mod losses;
mod minimising;
mod network;
mod node;
mod people;
mod receiving;
mod recovery;
mod rng;
mod rotating;
mod running;
mod scale;
mod scenario;
mod sending;
mod store;
#[cfg(test)]
mod tests;
mod trace;
mod twice;
mod world;

use clap::{Parser, Subcommand};
use context::{Flaw, Violation};
use scenario::Scenario;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use trace::View;

/// Lines of the trace that a minimised scenario is shown with.
const SHOWN_LINES: usize = 80;

/// Simulates a mesh of many nodes with faults, and checks every invariant.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds and stops after the first that breaks an invariant.
    Run(Run),
    /// Runs one seed or file again, and shows what happened.
    Replay(Replay),
    /// Prints the file that a seed amounts to.
    Scenario {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// How many nodes.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u8).range(3..=32))]
        nodes: u8,
    },
    /// Leaves out of a seed or file that breaks an invariant what it does not take,
    /// and prints the file that is left with the end of its trace.
    Minimise {
        #[command(flatten)]
        which: Which,
        /// How many worlds may be run for it.
        #[arg(long, default_value_t = 500)]
        runs: u32,
    },
    /// Measures a mesh of many nodes, without faults of their own.
    Scale {
        /// What is tried.
        trial: scale::Trial,
        /// How many nodes.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(10..=5000))]
        nodes: u16,
        /// Which chance.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(clap::Args)]
struct Run {
    /// How many seeds.
    #[arg(long, required_unless_present = "minutes")]
    seeds: Option<u64>,
    /// How long seeds may begin.
    #[arg(long)]
    minutes: Option<f64>,
    /// How many nodes a drawn scenario has.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u8).range(3..=32))]
    nodes: u8,
    /// The first seed.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..1 << 62))]
    first_seed: u64,
    /// A file; the seeds decide what it leaves to chance.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Go on after a seed that breaks an invariant, and list all of them.
    #[arg(long)]
    keep_going: bool,
    /// How many worlds at once; as many as there are cores.
    #[arg(long)]
    threads: Option<usize>,
}

/// One scenario.
#[derive(clap::Args)]
struct Which {
    /// The seed of a drawn scenario, or instead of the file's.
    #[arg(long, required_unless_present = "scenario")]
    seed: Option<u64>,
    /// A file.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// How many nodes a drawn scenario has.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u8).range(3..=32))]
    nodes: u8,
    /// Leave out one rule of the shell, to see how it is noticed.
    #[arg(long)]
    flaw: Option<Flaw>,
}

#[derive(clap::Args)]
struct Replay {
    #[command(flatten)]
    which: Which,
    /// Print every line, or those that the options below choose.
    #[arg(long)]
    trace: bool,
    /// Only what a node has to do with.
    #[arg(long, requires = "trace")]
    node: Option<usize>,
    /// Only from this second on.
    #[arg(long, requires = "trace")]
    from: Option<f64>,
    /// Only until this second.
    #[arg(long, requires = "trace")]
    to: Option<f64>,
    /// Not what the mesh says to keep itself level, nor what is stored of it.
    #[arg(long, requires = "trace")]
    brief: bool,
    /// Only lines with this in them.
    #[arg(long, requires = "trace")]
    grep: Option<String>,
    /// Only so many, the last before the end or the violation.
    #[arg(long, requires = "trace")]
    last: Option<usize>,
}

fn main() -> ExitCode {
    // Whoever reads the output may stop early.
    let mut out = std::io::stdout();
    let done = match Args::parse().command {
        Command::Run(options) => run(&mut out, &options),
        Command::Replay(options) => replay(&mut out, options),
        Command::Scenario { seed, nodes } => {
            let scenario = Scenario::draw(seed, usize::from(nodes));
            let _ = write!(out, "{}", scenario.text());
            Ok(ExitCode::SUCCESS)
        }
        Command::Minimise { which, runs } => minimise(&mut out, &which, runs),
        Command::Scale { trial, nodes, seed } => Ok(
            match scale::run(&mut out, trial, usize::from(nodes), seed) {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            },
        ),
    };
    done.unwrap_or_else(|why| {
        eprintln!("simulations: {why}");
        ExitCode::from(2)
    })
}

fn read(path: &std::path::Path) -> Result<Scenario, String> {
    Scenario::read(path).map_err(|error| format!("{} {error}", path.display()))
}

impl Which {
    fn scenario(&self) -> Result<Scenario, String> {
        let Some(path) = &self.scenario else {
            let seed = self.seed.unwrap_or_default();
            return Ok(Scenario::draw(seed, usize::from(self.nodes)));
        };
        let scenario = read(path)?;
        Ok(match self.seed {
            Some(seed) => scenario.with_seed(seed),
            None => scenario,
        })
    }
}

fn run(out: &mut impl Write, options: &Run) -> Result<ExitCode, String> {
    let nodes = usize::from(options.nodes);
    let file = options.scenario.as_deref().map(read).transpose()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let longest = options.minutes.map(|minutes| minutes * 60.0);
    let longest = longest.map(Duration::try_from_secs_f64).transpose();
    let plan = running::Plan {
        first_seed: options.first_seed,
        seeds: options.seeds.unwrap_or(u64::MAX),
        longest: longest.map_err(|error| format!("--minutes: {error}"))?,
        is_patient: options.keep_going,
        threads: options.threads.unwrap_or(cores).max(1),
    };
    let scenario = |seed| match &file {
        None => Scenario::draw(seed, nodes),
        Some(file) => file.with_seed(seed),
    };
    let _ = writeln!(
        out,
        "from seed {} on, on {} threads",
        plan.first_seed, plan.threads
    );
    let every = if plan.seeds >= 1_000 { 250 } else { 25 };
    let summary = running::run(plan, scenario, |so_far| {
        let (done, broken) = (so_far.seeds, so_far.broken.len());
        if done % every == 0 {
            let rate = so_far.rate();
            let seeds: Vec<String> = so_far.broken.keys().map(u64::to_string).collect();
            let seeds = if seeds.is_empty() {
                String::new()
            } else {
                format!(": {}", seeds.join(", "))
            };
            let _ = writeln!(
                out,
                "{done} seeds done, {broken} broken{seeds}, {rate:.1} seeds/s"
            );
        }
    });
    for (seed, violation) in &summary.broken {
        let _ = writeln!(out, "seed {seed} {}", told(violation));
        let which = match &options.scenario {
            None => format!("--seed {seed} --nodes {nodes}"),
            Some(path) => format!("--scenario {} --seed {seed}", path.display()),
        };
        let tool = "cargo run -p simulations --";
        let _ = writeln!(out, "  see it:     {tool} replay {which} --trace --last 60");
        let _ = writeln!(out, "  shorten it: {tool} minimise {which}");
    }
    for (name, count) in summary.seen.table() {
        let _ = writeln!(out, "{count:>10} {name}");
    }
    let secs = summary.took.as_secs_f64();
    let (seeds, rate) = (summary.seeds, summary.rate());
    let _ = writeln!(out, "{seeds} seeds in {secs:.0} s, {rate:.1} seeds/s");
    let _ = writeln!(out, "trace hash of all seeds {}", summary.hash);
    let what = match &options.scenario {
        None => format!("{nodes} nodes"),
        Some(path) => path.display().to_string(),
    };
    Ok(match summary.broken.len() {
        0 => {
            let _ = writeln!(out, "{seeds} seeds of {what}: every invariant held");
            ExitCode::SUCCESS
        }
        broken => {
            let _ = writeln!(
                out,
                "{broken} of {seeds} seeds of {what} broke an invariant"
            );
            ExitCode::FAILURE
        }
    })
}

fn told(violation: &Violation) -> String {
    let Violation { invariant, text } = violation;
    format!("breaks {}: {}\n  {text}", invariant.id(), invariant.text())
}

fn replay(out: &mut impl Write, options: Replay) -> Result<ExitCode, String> {
    let scenario = options.which.scenario()?;
    let millis = |secs: f64| (secs * 1000.0) as u64;
    let view = options.trace.then_some(View {
        node: options.node,
        from_millis: options.from.map_or(0, millis),
        to_millis: options.to.map(millis),
        is_brief: options.brief,
        grep: options.grep,
        last: options.last,
        is_kept: false,
    });
    let outcome = world::run(&scenario, view, options.which.flaw);
    let secs = outcome.millis / 1000;
    let _ = writeln!(
        out,
        "seed {}: {} lines, {secs} s of virtual time",
        scenario.seed, outcome.lines
    );
    for (name, count) in outcome.seen.table() {
        let _ = writeln!(out, "{count:>10} {name}");
    }
    let _ = writeln!(out, "trace hash {}", outcome.hash);
    Ok(match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            let _ = writeln!(out, "it {}", told(&violation));
            ExitCode::FAILURE
        }
    })
}

fn minimise(out: &mut impl Write, which: &Which, runs: u32) -> Result<ExitCode, String> {
    let scenario = which.scenario()?;
    let mut progress = |line: &str| eprintln!("{line}");
    let found = minimising::minimise(&scenario, which.flaw, runs, &mut progress);
    let found = found.ok_or("no invariant breaks in it: there is nothing to minimise")?;
    eprintln!("{} runs", found.runs);
    let view = View {
        last: Some(SHOWN_LINES),
        is_brief: true,
        is_kept: true,
        ..View::default()
    };
    let _ = writeln!(out, "# It {}", told(&found.violation).replace('\n', "\n#"));
    let _ = write!(out, "{}", found.scenario.text());
    let _ = writeln!(out, "\n# The end of its trace:");
    for line in world::run(&found.scenario, Some(view), which.flaw).kept {
        let _ = writeln!(out, "# {line}");
    }
    Ok(ExitCode::SUCCESS)
}
