//! Writes, marks and passes in any order: a write is lost when a pass was made durable
//! without it and nothing is owed that would read it.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::counting::{Count, Judge, Reading};
use super::*;

const BLOCKS: usize = 4;
const CPUS: usize = 2;
/// What no write of a run leaves in a block.
const FOREIGN: u64 = u64::MAX;
const INSTANCE: Instance = Instance([1; 16]);

/// Passes until a disk that does nothing any more is known to.
const MAX_LAST_PASSES: usize = 8;

/// What the machine or the agent does next. Of writes under way there is none that has to
/// come before another, or that ends within any time.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Somebody hands over a write of a block. It waits before the device begins it. Where
    /// the event is lost there is no mark of it.
    Queue { block: usize, is_lost: bool },
    /// Somebody hands over a write, which is refused.
    Refuse { block: usize },
    /// The device begins one that waits.
    Begin { which: usize },
    /// The device has done one: what is read is new.
    Apply { which: usize },
    /// The kernel says so of one on this processor. Its mark is stored later, or its event
    /// is lost.
    Complete {
        which: usize,
        cpu: usize,
        is_lost: bool,
    },
    /// What a program on this processor was about to store is stored.
    Store { cpu: usize },
    /// The figures are read once more, and again.
    Look { while_read: Option<Busy> },
    /// A pass begins; while the device is read, it may complete this and that.
    Collect { while_read: Option<Busy> },
    /// A pass reads its next block.
    Read,
    /// A pass that has read all is made durable.
    Settle,
    /// A pass breaks off.
    BreakOff,
    /// A session begins at which the other end turns out to hold something else of a block.
    Adopt { block: usize },
}

/// What completes while the figures are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    /// One before what was seen is read, and one after.
    Around { are_lost: bool },
    /// One whose event was seen and that is counted when all was read. The kernel may have
    /// taken it for done before.
    Late { is_done: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waits,
    IsBegun,
    IsApplied,
}

struct Write {
    block: usize,
    stage: Stage,
}

struct Pass {
    left: Vec<usize>,
    read: Vec<(usize, u64)>,
}

/// Sectors of a write, and of one that is refused: as many of the first as a run has are
/// not as long as one of the second, since two that cancel out cannot be told.
const SECTORS: u64 = 8;
const REFUSED_SECTORS: u64 = 4_096;

/// What goes wrong in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Faults {
    /// Nothing, and what is handed over is begun at once.
    None,
    /// Writes wait, and are refused.
    Waits,
    /// And events of both kinds are lost.
    Losses,
}

/// A disk, its tracker, and whoever copies it.
struct Machine {
    has_grace: bool,
    content: [u64; BLOCKS],
    copy: [u64; BLOCKS],
    writes: Vec<Write>,
    marks: [u16; BLOCKS],
    generation: Generation,
    stores: [Option<(usize, u16)>; CPUS],
    queued: u64,
    seen: u64,
    counted: u64,
    judge: Judge,
    /// What was found since the last pass began.
    found: Window,
    follow: Follow,
    pass: Option<Pass>,
    /// What passes found.
    windows: Vec<Window>,
    /// Passes that read all though they had something to go by.
    whole_disks: usize,
}

impl Machine {
    fn new(has_grace: bool) -> Self {
        let mut machine = Self {
            has_grace,
            content: [0; BLOCKS],
            copy: [0; BLOCKS],
            writes: vec![],
            marks: [0; BLOCKS],
            generation: Generation::FIRST,
            stores: [None; CPUS],
            queued: 0,
            seen: 0,
            counted: 0,
            judge: Judge::new(),
            found: Window::Whole,
            follow: Follow::new(),
            pass: None,
            windows: vec![],
            whole_disks: 0,
        };
        for _ in 0..2 {
            machine.look(None);
        }
        machine.found = Window::Whole;
        machine
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Queue { block, is_lost } => {
                if !is_lost {
                    self.queued += SECTORS;
                    self.marks[block] = self.generation.mark();
                }
                let stage = Stage::Waits;
                self.writes.push(Write { block, stage });
            }
            Step::Refuse { block } => {
                self.queued += REFUSED_SECTORS;
                self.marks[block] = self.generation.mark();
            }
            Step::Begin { which } => self.begin(which),
            Step::Apply { which } => self.apply(which),
            Step::Complete {
                which,
                cpu,
                is_lost,
            } => self.complete(which, cpu, is_lost),
            Step::Store { cpu } => self.store(cpu),
            Step::Look { while_read } => {
                self.look(while_read);
            }
            Step::Collect { while_read } => {
                self.collect(while_read);
            }
            Step::Read => self.read(),
            Step::Settle => self.settle(),
            Step::BreakOff => {
                self.pass = None;
                self.follow.broke_off();
            }
            Step::Adopt { block } => {
                self.pass = None;
                self.follow.broke_off();
                self.follow.owe(GroupIndex(block as u64));
                self.copy[block] = FOREIGN;
            }
        }
    }

    /// One of the writes at a stage.
    fn one(&self, which: usize, is_at: impl Fn(Stage) -> bool) -> Option<usize> {
        let at = (0..self.writes.len()).filter(|at| is_at(self.writes[*at].stage));
        let at: Vec<usize> = at.collect();
        at.get(which.checked_rem(at.len())?).copied()
    }

    fn begin(&mut self, which: usize) {
        if let Some(at) = self.one(which, |stage| stage == Stage::Waits) {
            self.writes[at].stage = Stage::IsBegun;
        }
    }

    fn apply(&mut self, which: usize) {
        if let Some(at) = self.one(which, |stage| stage != Stage::IsApplied) {
            self.writes[at].stage = Stage::IsApplied;
            self.content[self.writes[at].block] += 1;
        }
    }

    fn complete(&mut self, which: usize, cpu: usize, is_lost: bool) {
        let Some(at) = self.one(which, |stage| stage == Stage::IsApplied) else {
            return;
        };
        self.store(cpu);
        let write = self.writes.remove(at);
        if !is_lost {
            self.seen += SECTORS;
            self.stores[cpu] = Some((write.block, self.generation.mark()));
        }
        self.counted += SECTORS;
    }

    fn store(&mut self, cpu: usize) {
        if let Some((block, mark)) = self.stores[cpu].take() {
            self.marks[block] = mark;
        }
    }

    fn is_idle(&self) -> bool {
        self.writes.iter().all(|write| write.stage == Stage::Waits)
    }

    fn look(&mut self, while_read: Option<Busy>) -> bool {
        let (before, was_idle) = (self.counted, self.is_idle());
        let is_done = matches!(while_read, Some(Busy::Late { is_done: true }));
        match while_read {
            None => {}
            Some(Busy::Around { are_lost }) => {
                self.apply(0);
                self.complete(0, 0, are_lost);
            }
            Some(Busy::Late { .. }) => {
                self.apply(0);
                self.complete(0, 0, false);
            }
        }
        let (completed, queued) = (self.seen, self.queued);
        let mut after = self.counted;
        match while_read {
            None => {}
            Some(Busy::Around { are_lost }) => {
                self.apply(0);
                self.complete(0, 1, are_lost);
                after = self.counted;
            }
            Some(Busy::Late { .. }) => after = before,
        }
        let count = |seen| Count {
            before,
            seen,
            after,
        };
        let reading = Reading {
            completed: count(completed),
            queued: count(queued),
            is_idle: (was_idle || is_done) && self.is_idle(),
            is_counted: true,
            has_gathered_discards: false,
        };
        let judged = self.judge.take(&reading, self.generation);
        self.found = self.found.and(judged.verdict.into());
        judged.is_still
    }

    fn collect(&mut self, while_read: Option<Busy>) -> bool {
        self.generation = self.generation.next();
        if self.has_grace {
            (0..CPUS).for_each(|cpu| self.store(cpu));
        }
        let is_still = self.look(while_read);
        let window = std::mem::replace(&mut self.found, Window::Whole);
        let advanced = Advanced {
            instance: INSTANCE,
            begun: self.generation,
            window,
            is_still,
        };
        let had_read = matches!(self.follow.owed(), Owed::Since(_));
        self.windows.push(window);
        let owed = self.follow.collect(&advanced);
        let groups: Vec<usize> = self.follow.groups().map(|group| group.0 as usize).collect();
        let left = match owed {
            Owed::All(_) => {
                self.whole_disks += usize::from(had_read);
                (0..BLOCKS).collect()
            }
            Owed::Since(since) => {
                let recent = Recent::new(since, self.generation).unwrap();
                let is_owed =
                    |block: &usize| recent.has(self.marks[*block]) || groups.contains(block);
                (0..BLOCKS).filter(is_owed).collect()
            }
        };
        self.pass = Some(Pass { left, read: vec![] });
        is_still
    }

    fn read(&mut self) {
        if let Some(pass) = &mut self.pass
            && let Some(block) = pass.left.pop()
        {
            pass.read.push((block, self.content[block]));
        }
    }

    fn settle(&mut self) {
        if self.pass.as_ref().is_some_and(|pass| pass.left.is_empty())
            && let Some(pass) = self.pass.take()
        {
            for (block, content) in pass.read {
                self.copy[block] = content;
            }
            self.follow.settled();
        }
    }

    /// All writes end, and passes read what they have to until one finds that nothing that
    /// was done can turn up later.
    fn catches_up(mut self) -> bool {
        while !self.writes.is_empty() {
            self.apply(0);
            self.complete(0, 1, false);
        }
        (0..CPUS).for_each(|cpu| self.store(cpu));
        for _ in 0..MAX_LAST_PASSES {
            let is_still = self.collect(None);
            (0..BLOCKS).for_each(|_| self.read());
            self.settle();
            if is_still {
                return self.copy == self.content;
            }
        }
        // Where the kernel is thought not to count, nothing is believed until something moves.
        assert_eq!(self.windows.last(), Some(&Window::Gap(Gap::NotCounted)));
        self.copy == self.content
    }
}

fn steps(faults: Faults) -> impl Strategy<Value = Vec<Step>> {
    let (waits, loses) = (faults != Faults::None, faults == Faults::Losses);
    let which = || 0..8usize;
    let lost = move || prop::bool::weighted(if loses { 0.25 } else { 0.0 });
    let busy = move || {
        prop_oneof![
            2 => Just(None),
            1 => any::<bool>().prop_map(move |is_done| Some(Busy::Late {
                is_done: is_done && waits,
            })),
            1 => lost().prop_map(|are_lost| Some(Busy::Around { are_lost })),
        ]
    };
    let block = 0..BLOCKS;
    let step = prop_oneof![
        5 => (block.clone(), lost()).prop_map(|(block, is_lost)| Step::Queue { block, is_lost }),
        1 => block.clone().prop_map(|block| Step::Refuse { block }),
        4 => which().prop_map(|which| Step::Begin { which }),
        4 => which().prop_map(|which| Step::Apply { which }),
        4 => (which(), 0..CPUS, lost()).prop_map(|(which, cpu, is_lost)| Step::Complete {
            which,
            cpu,
            is_lost,
        }),
        3 => (0..CPUS).prop_map(|cpu| Step::Store { cpu }),
        1 => busy().prop_map(|while_read| Step::Look { while_read }),
        3 => busy().prop_map(|while_read| Step::Collect { while_read }),
        6 => Just(Step::Read),
        4 => Just(Step::Settle),
        1 => Just(Step::BreakOff),
        1 => block.prop_map(|block| Step::Adopt { block }),
    ];
    prop::collection::vec(step, 0..120).prop_map(move |steps| {
        let begun = |step: Step| {
            let begin = matches!(step, Step::Queue { .. }) && !waits;
            [Some(step), begin.then_some(Step::Begin { which: 0 })]
        };
        let may_be = |step: &Step| waits || !matches!(step, Step::Refuse { .. });
        let steps = steps.into_iter().filter(may_be);
        steps.flat_map(begun).flatten().collect()
    })
}

fn ran(has_grace: bool, steps: &[Step]) -> Machine {
    let mut machine = Machine::new(has_grace);
    steps.iter().for_each(|step| machine.step(*step));
    machine
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Runs with so many lists of steps, which are the same each time; whether one lost a write.
fn loses_a_write(has_grace: bool, faults: Faults) -> bool {
    let mut config = cases(20_000);
    config.max_shrink_iters = 0;
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let run = runner.run(&steps(faults), |steps| {
        prop_assert!(ran(has_grace, &steps).catches_up());
        Ok(())
    });
    run.is_err()
}

#[test]
fn without_the_wait_for_programs_under_way_a_run_loses_a_write_and_with_it_none_does() {
    assert!(loses_a_write(false, Faults::None));
    assert!(!loses_a_write(true, Faults::None));
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn a_write_is_in_the_pass_that_reads_after_it_or_in_what_the_next_one_reads(
        steps in steps(Faults::None),
    ) {
        let machine = ran(true, &steps);
        // And no pass that has something to go by reads more than what is marked since.
        prop_assert_eq!(machine.whole_disks, 0);
        prop_assert!(machine.windows.iter().all(|window| *window == Window::Whole));
        prop_assert!(machine.catches_up());
    }

    #[test]
    fn writes_that_wait_or_are_refused_are_not_taken_for_missed(
        steps in steps(Faults::Waits),
    ) {
        let machine = ran(true, &steps);
        // What waits for long may be taken for not counted, and then the constants are new.
        let mut windows = machine.windows.iter().skip_while(|window| **window == Window::Whole);
        let first = windows.next();
        prop_assert!(first.is_none_or(|window| *window == Window::Gap(Gap::NotCounted)));
        prop_assert!(machine.catches_up());
    }

    #[test]
    fn events_that_were_not_seen_are_made_good_by_looking_further_back(
        steps in steps(Faults::Losses),
    ) {
        let machine = ran(true, &steps);
        prop_assert!(machine.catches_up());
    }

    #[test]
    fn a_mark_that_is_recent_is_always_known_as_one(
        since in 1..400_000u64,
        passed in 0..=MAX_AGE,
        at in 0..=MAX_AGE,
        before in 1..=MAX_AGE,
    ) {
        let (since, now) = (Generation(since), Generation(since + passed));
        let recent = Recent::new(since, now).unwrap();
        let made = Generation(since.0 + at.min(passed));
        prop_assert!(recent.has(made.mark()));
        prop_assert!(!recent.has(0));
        // One from before is known as that as long as marks have not come round.
        if let Some(before) = since.0.checked_sub(before).filter(|made| *made > 0)
            && now.0 - before < MARKS
        {
            prop_assert!(!recent.has(Generation(before).mark()));
        }
        prop_assert_eq!(Recent::new(since, Generation(since.0 + MAX_AGE + 1)), None);
    }
}

/// A store that was under way when a pass began, and came after it.
const LATE: [Step; 12] = [
    Step::Collect { while_read: None },
    Step::Read,
    Step::Read,
    Step::Read,
    Step::Read,
    Step::Settle,
    Step::Queue {
        block: 0,
        is_lost: false,
    },
    Step::Collect { while_read: None },
    Step::Apply { which: 0 },
    Step::Complete {
        which: 0,
        cpu: 0,
        is_lost: false,
    },
    Step::Settle,
    Step::Collect { while_read: None },
];

#[test]
fn without_waiting_for_stores_under_way_a_write_is_lost() {
    // Where queueing leaves no mark: of some disks it cannot be told whose it is.
    let late = |has_grace| {
        let mut machine = Machine::new(has_grace);
        for step in LATE {
            let marks = machine.marks;
            machine.step(step);
            if matches!(step, Step::Queue { .. }) {
                machine.marks = marks;
            }
        }
        machine.settle();
        // It lands now, with the mark of a generation that is behind.
        machine.store(0);
        let mut again = machine;
        again.collect(None);
        (0..BLOCKS).for_each(|_| again.read());
        again.settle();
        again.copy == again.content
    };
    assert!(late(true));
    assert!(!late(false));
}

#[test]
fn another_instance_of_the_tracker_and_too_many_generations_owe_all() {
    let advanced = |instance, begun| Advanced {
        instance: Instance([instance; 16]),
        begun: Generation(begun),
        window: Window::Whole,
        is_still: true,
    };
    let mut follow = Follow::new();
    assert_eq!(follow.collect(&advanced(1, 2)), Owed::All(Gap::Begun));
    follow.settled();
    let mut other = follow.clone();
    assert_eq!(
        follow.collect(&advanced(1, 3)),
        Owed::Since(Generation(2)),
        "what was read is not owed any more"
    );
    assert_eq!(other.collect(&advanced(2, 9)), Owed::All(Gap::Restarted));
    assert_eq!(
        follow.collect(&advanced(1, 2 + MAX_AGE)),
        Owed::Since(Generation(2))
    );
    follow.broke_off();
    assert_eq!(
        follow.collect(&advanced(1, 3 + MAX_AGE)),
        Owed::All(Gap::TooOld)
    );
}

#[test]
fn what_the_other_end_was_found_to_hold_is_owed_until_a_later_pass_has_read_it() {
    let advanced = |begun| Advanced {
        instance: INSTANCE,
        begun: Generation(begun),
        window: Window::Whole,
        is_still: true,
    };
    let groups = |follow: &Follow| follow.groups().map(|group| group.0).collect::<Vec<_>>();
    let mut follow = Follow::new();
    follow.collect(&advanced(2));
    follow.settled();
    follow.owe(GroupIndex(7));
    follow.collect(&advanced(3));
    assert_eq!(groups(&follow), [7]);
    follow.broke_off();
    follow.collect(&advanced(4));
    assert_eq!(groups(&follow), [7], "no pass has read it");
    follow.owe(GroupIndex(9));
    follow.settled();
    assert_eq!(groups(&follow), [9], "the pass had begun before that");
    follow.collect(&advanced(5));
    follow.owe(GroupIndex(9));
    follow.settled();
    assert_eq!(groups(&follow), [9], "it was found once more meanwhile");
    follow.collect(&advanced(6));
    follow.settled();
    assert_eq!(groups(&follow), [0; 0]);
}

#[test]
fn what_is_missed_while_a_pass_runs_is_owed_to_the_next() {
    let advanced = |begun| Advanced {
        instance: INSTANCE,
        begun: Generation(begun),
        window: Window::Whole,
        is_still: true,
    };
    let mut follow = Follow::new();
    follow.collect(&advanced(20));
    follow.look(Window::Since(Generation(15)));
    follow.settled();
    assert_eq!(follow.collect(&advanced(21)), Owed::Since(Generation(15)));
    follow.look(Window::Gap(Gap::Missed));
    follow.settled();
    assert_eq!(follow.collect(&advanced(22)), Owed::All(Gap::Missed));
    follow.settled();
    assert_eq!(follow.collect(&advanced(23)), Owed::Since(Generation(22)));
}

#[test]
fn what_was_found_besides_makes_a_window_wider_only() {
    let since = |number| Window::Since(Generation(number));
    let gap = Window::Gap(Gap::Missed);
    let widest = [Window::Whole, since(9), since(4), gap];
    for (at, window) in widest.iter().enumerate() {
        for (other_at, other) in widest.iter().enumerate() {
            assert_eq!(window.and(*other), widest[at.max(other_at)]);
        }
    }
}
