//! Whole copies of disks that are written to all the while: each run draws a file system, a
//! load and what goes wrong from its seed, copies what is marked alone, freezes the disk, and
//! compares the copy with it byte for byte. Root alone has loop devices.
//!
//! A few runs are among the tests; `cargo xtask e2e tracked --runs 100 --seed N` makes as many
//! as it is told, each from the next seed.
#![allow(clippy::unwrap_used)]

mod copy;
mod load;
mod place;

use std::env;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use blocks::tracking::{Gap, Window};

use super::format::Stream;
use super::tests::{KINDS, may_follow};
use crate::TrackerKind;
use crate::freeze::Freezer;
use crate::loop_device::MOUNTS;
use copy::{By, Copy};
use load::Load;
use place::{Kind, Place};

/// How many runs, and the seed of the first.
const RUNS: &str = "DUNLIN_TRACKED_RUNS";
const SEED: &str = "DUNLIN_TRACKED_SEED";

/// Runs among the tests.
const FEW: u64 = 3;

/// How long a condition is waited for, and the longest freeze.
const DEADLINE: Duration = Duration::from_secs(300);

/// A sync that is as quick leaves little to do for freezing.
const QUICK: Duration = Duration::from_millis(200);

/// Numbers that are drawn from a seed (splitmix64, Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in so many times.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }
}

/// How a run ended.
#[derive(Debug)]
struct Ended {
    /// The first block that differs.
    differs: Option<u64>,
    counts: copy::Counts,
    windows: Vec<Window>,
}

/// One run; none where it cannot be made here, and a word on stderr.
fn run(
    seed: u64,
    (only, streams): (Option<TrackerKind>, Option<&'static [Stream]>),
    believes_all: bool,
) -> Option<Ended> {
    let _mounts = MOUNTS.read().unwrap_or_else(PoisonError::into_inner);
    let mut draw = Draw(seed);
    let base = Path::new("/dev/shm");
    let folder = match base.is_dir() {
        true => tempfile::tempdir_in(base),
        false => tempfile::tempdir(),
    };
    let folder = folder.unwrap();
    let kind = draw.of(&[Kind::Ext4, Kind::Xfs, Kind::Btrfs, Kind::Raw]);
    let place = Place::new(folder.path(), kind, &mut draw)?;
    // A tracker that hears half of it has to know.
    let half = draw.of(&[Stream::Queued, Stream::Completed]);
    let drawn = match (draw.below(8), half) {
        (0, Stream::Queued) => &[Stream::Queued][..],
        (0, Stream::Completed) => &[Stream::Completed],
        _ => &super::STREAMS,
    };
    // Of rings that have room for a few writes some are full before they are read.
    let kinds = [
        (TrackerKind::Bpf, None),
        (TrackerKind::Perf, None),
        (TrackerKind::Perf, Some(4096)),
    ];
    let by = By {
        kind: only.map_or_else(|| draw.of(&kinds), |kind| (kind, None)),
        streams: streams.unwrap_or(drawn),
    };
    let mut copy = Copy::new(&place, folder.path(), by, believes_all);
    let mut load = Load::start(&place, &mut draw)?;
    let what = format!("{place} with {load}, followed by {:?}", copy.by());
    eprintln!("seed {seed}: {what}");
    while !load.is_over(Duration::from_millis(draw.of(&[0, 0, 20, 100, 300, 1500]))) {
        let events = (draw.below(12), draw.below(6));
        let stop_after = draw.once_in(5).then(|| draw.below(64));
        let looks_between = draw.once_in(4);
        match events {
            (0, _) => copy.restart_tracker(),
            (1, _) => copy.restart_agent(draw.next()),
            (_, 0) => place.trim(),
            _ => {}
        }
        copy.pass(stop_after, looks_between);
    }
    if place.mounted().is_none() {
        load.stop();
    }
    let freezer = Freezer::prepare(&[place.volume()]).unwrap();
    assert!(freezer.in_use().unreached.is_empty());
    let mut syncs = 0;
    while freezer.sync().unwrap() > QUICK && syncs < 5 {
        syncs += 1;
    }
    let frozen = freezer
        .freeze(DEADLINE, &folder.path().join("left"))
        .unwrap();
    assert_eq!(frozen.count(), usize::from(place.mounted().is_some()));
    copy.settle();
    let differs = copy.differs();
    assert!(!frozen.is_thawed(), "{seed:#x}: the compare took too long");
    let thawed = frozen.thaw();
    assert!(thawed.is_complete(), "{thawed:?}");
    drop(freezer);
    load.stop();
    let (counts, windows) = (copy.counts(), copy.windows().to_vec());
    let image = copy.finish();
    if differs.is_none() {
        load.check(&place.into_copy(&image), seed);
    }
    Some(Ended {
        differs,
        counts,
        windows,
    })
}

fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().expect("it is a number"))
}

#[test]
fn no_write_is_lost_whatever_happens_meanwhile() {
    if !may_follow() {
        return;
    }
    let mut drawn = [0; 8];
    getrandom::fill(&mut drawn).unwrap();
    let first = setting(SEED)
        .unwrap_or_else(|| u64::from(u32::from_le_bytes(drawn[..4].try_into().unwrap())));
    let runs = setting(RUNS).unwrap_or(FEW);
    let began = Instant::now();
    let (mut done, mut lost, mut counts) = (0, vec![], copy::Counts::default());
    for seed in first..first + runs {
        let Some(ended) = run(seed, (None, None), false) else {
            continue;
        };
        done += 1;
        counts += ended.counts;
        eprintln!("seed {seed}: {}", ended.counts);
        if let Some(block) = ended.differs {
            eprintln!(
                "seed {seed}: LOST: block {block} differs, {:?}",
                ended.windows
            );
            lost.push(seed);
        }
    }
    eprintln!(
        "{done} of {runs} runs from seed {first} in {:?}, {} with a lost write; {counts}",
        began.elapsed(),
        lost.len()
    );
    assert_eq!(lost, Vec::<u64>::new(), "seeds of runs that lost a write");
}

/// Seeds that the negative control may take until each of its two halves has shown itself.
const CONTROLS: u64 = 8;

/// The negative control: what the runs rest on is that a tracker is not believed which was
/// not told of everything, and that the compare finds what is missing.
#[test]
fn writes_that_nobody_was_told_of_are_missed_and_that_is_noticed() {
    if !may_follow() {
        return;
    }
    for kind in KINDS {
        nobody_was_told(kind);
    }
}

fn nobody_was_told(kind: TrackerKind) {
    // A run may have written all before the first pass read it.
    let (mut is_noticed, mut is_different) = (false, false);
    for seed in 1..=CONTROLS {
        if !is_noticed {
            let Some(deaf) = run(seed, (Some(kind), Some(&[])), false) else {
                return;
            };
            is_noticed = deaf.windows.contains(&Window::Gap(Gap::Missed));
            assert_eq!(deaf.differs, None, "all of it was read");
        }
        if !is_different {
            let Some(believed) = run(seed, (Some(kind), Some(&[])), true) else {
                return;
            };
            is_different = believed.differs.is_some();
        }
        if is_noticed && is_different {
            return;
        }
    }
    assert!(is_noticed, "what a tracker was not told of is believed");
    assert!(is_different, "the compare cannot fail");
}
