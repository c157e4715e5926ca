//! One target in a process of its own: its memory is limited, and the input under way
//! is in a file, so that one that ends the process is known.

use crate::chance::Chance;
use crate::corpus::{self, Failed};
use crate::mutate;
use crate::target::{Target, Verdict};
use crate::targets;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Address space of a child. What one input may make a decoder take is far below: the
/// largest frame is 4 MiB, and nothing is decoded into more than 16 MiB.
const MEMORY_BYTES: u64 = 1 << 30;
/// How long one input may take, on a machine that does other things too.
const SLOW: Duration = Duration::from_secs(2);
/// Inputs that are kept beside the corpus to be mutated further.
const KEPT: usize = 512;

/// Whether every input held; the last line says how many there were.
pub fn run(
    out: &mut impl Write,
    target: &str,
    millis: u64,
    seed: u64,
    current: &Path,
) -> Result<bool, Failed> {
    let target = targets::named(target)?;
    limit_memory()?;
    std::panic::set_hook(Box::new(|_| {}));
    let current = File::create(current)?;
    let until = Instant::now() + Duration::from_millis(millis);
    let mut chance = Chance::new(seed);
    let mut pool: Vec<Vec<u8>> = vec![];
    for (name, input) in corpus::read(target.name())? {
        note(&current, &input)?;
        if let Err(why) = hold(&*target, &input) {
            writeln!(out, "finding {name}: {why}")?;
            return Ok(false);
        }
        pool.push(input);
    }
    let corpus = pool.len();
    let (mut runs, mut accepted) = (0_u64, 0_u64);
    while Instant::now() < until {
        let mut input = chance.pick(&pool).clone();
        let other = chance.pick(&pool).clone();
        if chance.one_in(3) || !target.mutate(&mut input, &mut chance) {
            mutate::mutate(&mut input, &other, &mut chance);
        }
        note(&current, &input)?;
        runs += 1;
        match hold(&*target, &input) {
            Ok(Verdict::Refused) => {}
            Ok(Verdict::Accepted) => {
                accepted += 1;
                if pool.len() < corpus + KEPT {
                    pool.push(input);
                } else {
                    let at = corpus + chance.below(KEPT);
                    pool[at] = input;
                }
            }
            Err(why) => {
                writeln!(out, "finding: {why}")?;
                return Ok(false);
            }
        }
    }
    writeln!(out, "done {runs} {accepted}")?;
    Ok(true)
}

/// Runs one file and says what came of it.
pub fn replay(out: &mut impl Write, target: &str, file: &Path) -> Result<bool, Failed> {
    let target = targets::named(target)?;
    limit_memory()?;
    let input = std::fs::read(file)?;
    match hold(&*target, &input) {
        Ok(verdict) => writeln!(out, "{verdict:?}").map(|()| true),
        Err(why) => writeln!(out, "finding: {why}").map(|()| false),
    }
    .map_err(Failed::from)
}

/// Runs one input under every rule.
pub fn hold(target: &dyn Target, input: &[u8]) -> Result<Verdict, String> {
    let since = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| target.check(input)));
    let verdict = ended.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("a panic: {}", text.unwrap_or_default())
    })??;
    let took = since.elapsed();
    if took > SLOW {
        return Err(format!("it took {took:?}"));
    }
    Ok(verdict)
}

fn note(current: &File, input: &[u8]) -> std::io::Result<()> {
    current.write_all_at(input, 0)?;
    current.set_len(input.len() as u64)
}

fn limit_memory() -> Result<(), Failed> {
    let limit = Rlimit {
        current: Some(MEMORY_BYTES),
        maximum: Some(MEMORY_BYTES),
    };
    Ok(setrlimit(Resource::As, limit)?)
}
