//! A failing scenario made small: what can be left out while the same invariant
//! breaks is left out. Lists go by delta debugging (Zeller and Hildebrandt:
//! Simplifying and Isolating Failure-Inducing Input, 2002).
//!
//! Nothing is proven to be least: each single fault that is left is needed, as far
//! as the number of runs allowed to find out.

use crate::context::{Flaw, Violation};
use crate::scenario::{At, Ending, Loss, Scenario, Wish, long_grant};
use crate::world;
use blocks::BLOCK_SIZE;

/// Lengths of volumes that are tried instead.
const SMALLER_BLOCKS: [u64; 3] = [1, 4, 16];

/// What was found.
pub struct Found {
    /// The smallest scenario.
    pub scenario: Scenario,
    /// What it breaks.
    pub violation: Violation,
    /// Worlds that were run.
    pub runs: u32,
}

/// Makes a scenario small; none if it breaks nothing.
pub fn minimise(
    scenario: &Scenario,
    flaw: Option<Flaw>,
    most_runs: u32,
    progress: &mut dyn FnMut(&str),
) -> Option<Found> {
    let violation = world::run(scenario, None, flaw).violation?;
    let mut search = Search {
        best: scenario.clone(),
        violation,
        flaw,
        runs: 1,
        most_runs,
        progress,
    };
    search.everything();
    Some(Found {
        scenario: search.best,
        violation: search.violation,
        runs: search.runs,
    })
}

struct Search<'a> {
    best: Scenario,
    violation: Violation,
    flaw: Option<Flaw>,
    runs: u32,
    most_runs: u32,
    progress: &'a mut dyn FnMut(&str),
}

impl Search<'_> {
    fn everything(&mut self) {
        self.faults();
        self.migrations();
        self.operators();
        self.wishes();
        self.chance();
        self.clocks();
        self.volumes();
        self.nodes();
        // With less around them, fewer faults may do.
        self.faults();
        self.end();
    }

    /// Keeps a scenario if the same invariant breaks in it.
    fn keep(&mut self, smaller: Scenario) -> bool {
        if self.runs >= self.most_runs || smaller == self.best {
            return false;
        }
        self.runs += 1;
        let outcome = world::run(&smaller, None, self.flaw);
        let same = |violation: &Violation| violation.invariant == self.violation.invariant;
        let Some(violation) = outcome.violation.filter(same) else {
            return false;
        };
        self.best = smaller;
        self.violation = violation;
        let (best, runs) = (&self.best, self.runs);
        (self.progress)(&format!(
            "{runs:>4} runs: {} faults, {} migrations, {} nodes",
            best.faults.len(),
            best.migrations.len(),
            best.nodes
        ));
        true
    }

    /// The fewest faults that do: ever smaller parts of the list are left out, until
    /// not a single one can be.
    fn faults(&mut self) {
        let mut parts = 1;
        loop {
            let all = self.best.faults.clone();
            if all.is_empty() {
                return;
            }
            let len = all.len().div_ceil(parts);
            let is_smaller = (0..all.len()).step_by(len).any(|from| {
                let mut scenario = self.best.clone();
                scenario.faults.drain(from..all.len().min(from + len));
                self.keep(scenario)
            });
            match is_smaller {
                true => parts = (parts - 1).max(1),
                false if len == 1 => return,
                false => parts = all.len().min(2 * parts),
            }
        }
    }

    fn migrations(&mut self) {
        for at in (0..self.best.migrations.len()).rev() {
            if self.best.migrations.len() > 1 {
                let mut scenario = self.best.clone();
                scenario.migrations.remove(at);
                self.keep(scenario);
            }
        }
    }

    /// Makes people want less. What is left is still a script that can end as it says,
    /// so that the file holds once the fault that it shows is mended.
    fn wishes(&mut self) {
        for at in 0..self.best.migrations.len() {
            let pause = |wish: &At<Wish>| matches!(wish.what, Wish::Pause | Wish::Resume);
            let mut scenario = self.best.clone();
            scenario.migrations[at].wishes.retain(|wish| !pause(wish));
            self.keep(scenario);
            let mut scenario = self.best.clone();
            let at_millis = scenario.quiet_at_millis + 100;
            let migration = &mut scenario.migrations[at];
            if migration.ending == Ending::AgentRunsTwice {
                continue;
            }
            let first = |wish: &At<Wish>| matches!(wish.what, Wish::Create | Wish::Start);
            migration.wishes.append(&mut migration.second_wishes);
            migration.wishes.retain(first);
            let what = Wish::Cutover { prove_full: true };
            migration.wishes.push_back(At { at_millis, what });
            migration.ending = Ending::CutOver;
            migration.grant_secs = migration.grant_secs.max(long_grant());
            migration.is_cut_off = false;
            self.keep(scenario);
        }
    }

    /// Leaves all to the first operator.
    fn operators(&mut self) {
        let mut scenario = self.best.clone();
        if matches!(scenario.loss, Some(Loss::Operator { .. })) {
            scenario.loss = None;
        }
        scenario.second_operator = None;
        for migration in &mut scenario.migrations {
            let is_start = |wish: &At<Wish>| wish.what == Wish::Start;
            let mut starts = migration.second_wishes.iter().copied().filter(is_start);
            if let Some(start) = starts.next_back() {
                let create = |wish: &At<Wish>| wish.what == Wish::Create;
                let after = migration.wishes.iter().rposition(create);
                migration.wishes.insert(after.map_or(0, |at| at + 1), start);
            }
            migration.second_wishes.clear();
        }
        self.keep(scenario);
    }

    fn chance(&mut self) {
        for kind in 0..self.best.chance.each().len() {
            let mut scenario = self.best.clone();
            *scenario.chance.each()[kind].1 = 0;
            self.keep(scenario);
        }
    }

    fn clocks(&mut self) {
        let mut scenario = self.best.clone();
        scenario.clock_secs.fill(0);
        scenario.boot_clock_secs = 0;
        self.keep(scenario);
    }

    fn volumes(&mut self) {
        for at in 0..self.best.migrations.len() {
            while self.best.migrations[at].volume_bytes.len() > 1 {
                let mut scenario = self.best.clone();
                scenario.migrations[at].volume_bytes.pop();
                scenario.name_all();
                if !self.keep(scenario) {
                    break;
                }
            }
            for blocks in SMALLER_BLOCKS {
                let mut scenario = self.best.clone();
                let bytes = blocks * BLOCK_SIZE as u64;
                let lengths = &mut scenario.migrations[at].volume_bytes;
                lengths
                    .iter_mut()
                    .for_each(|length| *length = bytes.min(*length));
                if self.keep(scenario) {
                    break;
                }
            }
        }
    }

    /// Leaves out the last nodes while nothing speaks of them.
    fn nodes(&mut self) {
        while self.best.nodes > crate::scenario::MIN_NODES {
            let last = self.best.nodes - 1;
            let mut scenario = self.best.clone();
            for fault in &mut scenario.faults {
                fault.what.forget(last);
            }
            let mut named = scenario.faults.iter().flat_map(|fault| fault.what.nodes());
            let runs_twice = scenario.twice.is_some_and(|twice| twice.node == last);
            let is_named =
                scenario.role_of(last) != "member" || runs_twice || named.any(|node| node == last);
            scenario.nodes = last;
            scenario.clock_secs.truncate(last);
            scenario.invited_at_millis.truncate(last);
            if is_named || !self.keep(scenario) {
                return;
            }
        }
    }

    /// Lets the world heal as early as does.
    fn end(&mut self) {
        let faults = self.best.faults.iter().map(|fault| fault.at_millis);
        let mut earliest = faults.max().unwrap_or(0).max(self.best.quiet_at_millis);
        while self.best.heal_at_millis > earliest + 1_000 {
            let mut scenario = self.best.clone();
            scenario.heal_at_millis = earliest.midpoint(scenario.heal_at_millis);
            let tried = scenario.heal_at_millis;
            if !self.keep(scenario) {
                earliest = tried;
                if self.runs >= self.most_runs {
                    return;
                }
            }
        }
    }
}
