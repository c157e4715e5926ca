//! Writes, marks and passes in any order: a write is lost when a pass was made durable
//! without it and nothing is owed that would read it.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::counting::{Count, Reading};
use super::*;

const BLOCKS: usize = 4;
const CPUS: usize = 2;
const INSTANCE: Instance = Instance([1; 16]);

/// What the machine or the agent does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Somebody begins to write a block.
    Queue { block: usize },
    /// The device has done the oldest write that is under way: what is read is new.
    Apply,
    /// The kernel says so on this processor. Its mark is stored later, or its event is lost.
    Complete { cpu: usize, is_lost: bool },
    /// What a program on this processor was about to store is stored.
    Store { cpu: usize },
    /// A pass begins; while the device is read, it may complete this and that.
    Collect { while_read: Option<Busy> },
    /// A pass reads its next block.
    Read,
    /// A pass that has read all is made durable.
    Settle,
    /// A pass breaks off.
    BreakOff,
    /// The agent begins again with its bookmark.
    Restart,
    /// Nothing happens for a time.
    Wait { millis: u64 },
}

/// What completes while the figures are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    /// One before what was seen is read, and one after.
    Around { are_lost: bool },
    /// One whose event was seen and that is counted when all was read.
    Late,
}

struct Write {
    block: usize,
    at_millis: u64,
    is_applied: bool,
}

struct Pass {
    left: Vec<usize>,
    read: Vec<(usize, u64)>,
}

/// A disk, its tracker, and whoever copies it.
struct Machine {
    has_grace: bool,
    now_millis: u64,
    content: [u64; BLOCKS],
    copy: [u64; BLOCKS],
    writes: Vec<Write>,
    marks: [u16; BLOCKS],
    generation: Generation,
    stores: [Option<(usize, u16)>; CPUS],
    history: History,
    queued: u64,
    seen: u64,
    counted: u64,
    trust: Trust,
    follow: Follow,
    bookmark: Option<Bookmark>,
    pass: Option<Pass>,
    whole_disks: usize,
}

impl Machine {
    fn new(has_grace: bool) -> Self {
        let mut machine = Self {
            has_grace,
            now_millis: 1_000_000,
            content: [0; BLOCKS],
            copy: [0; BLOCKS],
            writes: vec![],
            marks: [0; BLOCKS],
            generation: Generation::FIRST,
            stores: [None; CPUS],
            history: History::default(),
            queued: 0,
            seen: 0,
            counted: 0,
            trust: Trust::new(),
            follow: Follow::new(),
            bookmark: None,
            pass: None,
            whole_disks: 0,
        };
        for _ in 0..2 {
            machine.look(None);
        }
        machine.history.begin(0, Generation::FIRST);
        machine
    }

    fn step(&mut self, step: Step) {
        self.now_millis += 10;
        match step {
            Step::Queue { block } => {
                self.queued += 8;
                self.marks[block] = self.generation.mark();
                self.writes.push(Write {
                    block,
                    at_millis: self.now_millis,
                    is_applied: false,
                });
            }
            Step::Apply => self.apply(),
            Step::Complete { cpu, is_lost } => self.complete(cpu, is_lost),
            Step::Store { cpu } => self.store(cpu),
            Step::Collect { while_read } => self.collect(while_read),
            Step::Read => self.read(),
            Step::Settle => self.settle(),
            Step::BreakOff => {
                self.pass = None;
                self.follow.broke_off();
            }
            Step::Restart => {
                self.pass = None;
                self.follow = self.bookmark.map_or_else(Follow::new, Follow::resume);
            }
            Step::Wait { millis } => self.wait(millis),
        }
    }

    fn wait(&mut self, millis: u64) {
        self.now_millis += millis;
        // No write is under way for longer.
        while let Some(at) = self.writes.first().map(|write| write.at_millis)
            && at + LONGEST_WRITE_MILLIS < self.now_millis + 1_000
        {
            self.apply();
            self.complete(0, false);
        }
    }

    fn apply(&mut self) {
        if let Some(write) = self.writes.iter_mut().find(|write| !write.is_applied) {
            write.is_applied = true;
            self.content[write.block] += 1;
        }
    }

    fn complete(&mut self, cpu: usize, is_lost: bool) {
        let Some(at) = self.writes.iter().position(|write| write.is_applied) else {
            return;
        };
        self.store(cpu);
        let write = self.writes.remove(at);
        if !is_lost {
            self.seen += 8;
            self.stores[cpu] = Some((write.block, self.generation.mark()));
        }
        self.counted += 8;
    }

    fn store(&mut self, cpu: usize) {
        if let Some((block, mark)) = self.stores[cpu].take() {
            self.marks[block] = mark;
        }
    }

    fn look(&mut self, while_read: Option<Busy>) -> Window {
        let (before, was_idle) = (self.counted, self.writes.is_empty());
        match while_read {
            None => {}
            Some(Busy::Around { are_lost }) => {
                self.apply();
                self.complete(0, are_lost);
            }
            Some(Busy::Late) => {
                self.apply();
                self.complete(0, false);
            }
        }
        let (completed, queued) = (self.seen, self.queued);
        let mut after = self.counted;
        match while_read {
            None => {}
            Some(Busy::Around { are_lost }) => {
                self.apply();
                self.complete(1, are_lost);
                after = self.counted;
            }
            Some(Busy::Late) => after = before,
        }
        let count = |seen| Count {
            before,
            seen,
            after,
        };
        let reading = Reading {
            completed: count(completed),
            queued: Some(count(queued)),
            is_idle: was_idle && self.writes.is_empty(),
            has_gathered_discards: false,
        };
        let when = (self.now_millis, self.generation);
        self.trust.look(&reading, when, &self.history)
    }

    fn collect(&mut self, while_read: Option<Busy>) {
        self.generation = self.generation.next();
        if self.has_grace {
            (0..CPUS).for_each(|cpu| self.store(cpu));
        }
        let window = self.look(while_read);
        self.bookmark = self.bookmark.and_then(|kept| kept.look(window));
        self.history.begin(self.now_millis, self.generation);
        let advanced = Advanced {
            instance: INSTANCE,
            begun: self.generation,
            window,
        };
        let left = match self.follow.collect(&advanced) {
            Owed::All(_) => {
                self.whole_disks += 1;
                (0..BLOCKS).collect()
            }
            Owed::Since(since) => {
                let recent = Recent::new(since, self.generation).unwrap();
                let marked = (0..BLOCKS).filter(|block| recent.has(self.marks[*block]));
                marked.collect()
            }
        };
        self.pass = Some(Pass { left, read: vec![] });
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
            self.bookmark = self.follow.settled();
        }
    }

    /// All writes end, and one more pass reads what it has to.
    fn catches_up(mut self) -> bool {
        while !self.writes.is_empty() {
            self.apply();
            self.complete(1, false);
        }
        (0..CPUS).for_each(|cpu| self.store(cpu));
        self.collect(None);
        (0..BLOCKS).for_each(|_| self.read());
        self.settle();
        self.copy == self.content
    }
}

fn steps(loses: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..BLOCKS).prop_map(|block| Step::Queue { block }),
        4 => Just(Step::Apply),
        4 => (0..CPUS, any::<bool>()).prop_map(move |(cpu, is_lost)| Step::Complete {
            cpu,
            is_lost: is_lost && loses,
        }),
        3 => (0..CPUS).prop_map(|cpu| Step::Store { cpu }),
        3 => prop_oneof![
            2 => Just(None),
            1 => Just(Some(Busy::Late)),
            1 => any::<bool>().prop_map(move |is_lost| Some(Busy::Around {
                are_lost: is_lost && loses,
            })),
        ]
        .prop_map(|while_read| Step::Collect { while_read }),
        6 => Just(Step::Read),
        4 => Just(Step::Settle),
        1 => Just(Step::BreakOff),
        1 => Just(Step::Restart),
        1 => (1_000..70_000u64).prop_map(|millis| Step::Wait { millis }),
    ];
    prop::collection::vec(step, 0..120)
}

fn ran(has_grace: bool, steps: &[Step]) -> Machine {
    let mut machine = Machine::new(has_grace);
    steps.iter().for_each(|step| machine.step(*step));
    machine
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_write_is_in_the_pass_that_reads_after_it_or_in_what_the_next_one_reads(
        steps in steps(false),
    ) {
        let machine = ran(true, &steps);
        prop_assert!(machine.catches_up());
    }

    #[test]
    fn a_completion_that_was_not_seen_is_made_good_by_looking_further_back(
        steps in steps(true),
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
    Step::Queue { block: 0 },
    Step::Collect { while_read: None },
    Step::Apply,
    Step::Complete {
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
    };
    let mut follow = Follow::new();
    assert_eq!(follow.bookmark(), None);
    assert_eq!(follow.collect(&advanced(1, 2)), Owed::All(Gap::Begun));
    let bookmark = follow.settled().unwrap();
    assert_eq!(
        follow.collect(&advanced(1, 3)),
        Owed::Since(Generation(2)),
        "what was read is not owed any more"
    );
    let mut other = Follow::resume(bookmark);
    assert_eq!(other.collect(&advanced(2, 9)), Owed::All(Gap::Restarted));
    let mut again = Follow::resume(bookmark);
    assert_eq!(
        again.collect(&advanced(1, 2 + MAX_AGE)),
        Owed::Since(Generation(2))
    );
    again.broke_off();
    assert_eq!(
        again.collect(&advanced(1, 3 + MAX_AGE)),
        Owed::All(Gap::TooOld)
    );
}

#[test]
fn what_is_missed_while_a_pass_runs_is_owed_to_the_next() {
    let advanced = |begun| Advanced {
        instance: INSTANCE,
        begun: Generation(begun),
        window: Window::Whole,
    };
    let mut follow = Follow::new();
    follow.collect(&advanced(20));
    follow.look(Window::Since(Generation(15)));
    follow.settled().unwrap();
    assert_eq!(follow.collect(&advanced(21)), Owed::Since(Generation(15)));
    follow.look(Window::Gap(Gap::Missed));
    assert_eq!(follow.settled(), None);
    assert_eq!(follow.collect(&advanced(22)), Owed::All(Gap::Missed));
    follow.settled().unwrap();
    assert_eq!(follow.collect(&advanced(23)), Owed::Since(Generation(22)));
}

#[test]
fn a_history_gives_what_began_by_then_and_not_the_last_two() {
    let mut history = History::default();
    assert_eq!(history.at(u64::MAX), None);
    for number in 1..=10 {
        history.begin(number * 1_000, Generation(number));
    }
    assert_eq!(history.at(u64::MAX), Some(Generation(8)));
    assert_eq!(history.at(5_999), Some(Generation(5)));
    assert_eq!(history.at(999), None);
    for number in 11..=1_000 {
        history.begin(number * 1_000, Generation(number));
    }
    assert_eq!(history.at(5_999), None, "it is bounded");
}
