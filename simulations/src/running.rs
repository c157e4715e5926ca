//! Many worlds at once, one for each thread, and what came of them in the order of
//! their seeds.
//!
//! A world knows nothing of others: what is printed of a seed does not depend on how
//! many run beside it.

use crate::context::{Seen, Violation};
use crate::scenario::Scenario;
use crate::world;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How much is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The first seed.
    pub first_seed: u64,
    /// Most seeds.
    pub seeds: u64,
    /// No seed begins after that time.
    pub longest: Option<Duration>,
    /// Go on after a seed that breaks an invariant.
    pub is_patient: bool,
    /// Threads.
    pub threads: usize,
}

/// What came of all.
#[derive(Default)]
pub struct Summary {
    /// How many seeds were run.
    pub seeds: u64,
    /// How often what happened.
    pub seen: Seen,
    /// Seeds that broke an invariant, ascending.
    pub broken: BTreeMap<u64, Violation>,
    /// Hash of the hashes of all traces, in the order of the seeds.
    pub hash: String,
    /// How long it took.
    pub took: Duration,
}

impl Summary {
    /// Seeds in a second.
    pub fn rate(&self) -> f64 {
        self.seeds as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }
}

/// Runs `scenario` for one seed after the other. Seeds begin in ascending order and
/// those that began are finished: the first one that breaks something is the first.
pub fn run(
    plan: Plan,
    scenario: impl Fn(u64) -> Scenario + Sync,
    mut progress: impl FnMut(&Summary),
) -> Summary {
    let began = Instant::now();
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (sender, outcomes) = mpsc::channel();
    let mut summary = Summary::default();
    let mut hashes = BTreeMap::new();
    std::thread::scope(|scope| {
        for _ in 0..plan.threads {
            let (sender, next, is_over, scenario) = (sender.clone(), &next, &is_over, &scenario);
            scope.spawn(move || {
                loop {
                    let late = plan
                        .longest
                        .is_some_and(|longest| began.elapsed() >= longest);
                    if late || is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let done = next.fetch_add(1, Ordering::Relaxed);
                    if done >= plan.seeds {
                        return;
                    }
                    let seed = plan.first_seed + done;
                    let outcome = world::run(&scenario(seed), None, None);
                    if outcome.violation.is_some() && !plan.is_patient {
                        is_over.store(true, Ordering::Relaxed);
                    }
                    // The receiver lives as long as the threads.
                    let _ = sender.send((seed, outcome));
                }
            });
        }
        drop(sender);
        for (seed, outcome) in outcomes {
            summary.seeds += 1;
            summary.seen.add(&outcome.seen);
            hashes.insert(seed, outcome.hash);
            if let Some(violation) = outcome.violation {
                summary.broken.insert(seed, violation);
            }
            summary.took = began.elapsed();
            progress(&summary);
        }
    });
    let mut all = blake3::Hasher::new();
    for hash in hashes.values() {
        all.update(hash.as_bytes());
    }
    summary.hash = all.finalize().to_hex()[..16].to_owned();
    summary.took = began.elapsed();
    summary
}
