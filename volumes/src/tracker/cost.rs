//! What following writes costs who writes. Two measures: what the kernel says that the
//! programs took, while fio writes to a loop device, to the nanosecond and whatever else the
//! machine does; and how much fio writes there and on a file system, while it is followed and
//! while it is not, by turns so short that what else the machine does falls on both alike.
//! It takes minutes, and runs where the environment says how long: `cargo xtask bench track`.
//!
//! Not in the first: what the kernel does at an event before it runs a program.
#![allow(clippy::unwrap_used)]

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::assembler::Assembly;
use super::bpf::{Bpf, run_at};
use super::format::Stream;
use super::kernel::{self, Attached, Runs};
use super::tests::{KINDS, may_follow};
use super::{Disk, Kind, STREAMS, Tracker};
use crate::SourceVolume;
use crate::loop_device::LoopDevice;

const ROUNDS: &str = "DUNLIN_TRACK_ROUNDS";

/// One of the two turns of a round.
const TURN: Duration = Duration::from_millis(250);

/// Before each of them.
const SETTLES: Duration = Duration::from_millis(50);

/// Of one processor the programs take at most so much, while all of them write as fast as
/// they can.
const MOST_OF_A_CORE: f64 = 0.03;

/// Of the writes without a program are left at least so many with it, by the median of the
/// rounds. Perf events are for kernels that take no program, and have no limit.
const LIMIT: f64 = 0.97;

const MIB: u64 = 1 << 20;
const DISK: u64 = 512 * MIB;

/// Fio, which writes until it is dropped.
struct Writes {
    child: Child,
    /// Nothing is ever told: time passes by waiting for it.
    nothing: (Sender<()>, Receiver<()>),
}

impl Writes {
    fn begin(file: &Path, depth: u64) -> Self {
        let mut command = Command::new("fio");
        command.args(["--name=writes", "--rw=randwrite", "--bs=4k", "--direct=1"]);
        command.args(["--ioengine=libaio", "--thread", "--time_based"]);
        command.args(["--runtime=86400", "--size=256m"]);
        command.args([
            format!("--iodepth={depth}"),
            format!("--filename={}", file.display()),
        ]);
        Self {
            child: command.stdout(Stdio::null()).spawn().unwrap(),
            nothing: channel(),
        }
    }

    fn wait(&self, duration: Duration) {
        let told = self.nothing.1.recv_timeout(duration);
        assert_eq!(told, Err(RecvTimeoutError::Timeout));
    }

    /// Writes that a second of this turn had.
    fn turn(&self, disk: &Disk) -> f64 {
        let (began, before) = (Instant::now(), written(disk));
        self.wait(TURN);
        (written(disk) - before) as f64 / began.elapsed().as_secs_f64()
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes of 4 KiB that the disk has done.
fn written(disk: &Disk) -> u64 {
    disk.counted().unwrap().sectors / 8
}

/// Unmounts it when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// Rounds in which both take turns, and each begins with another one; whether the limit was
/// kept.
fn compare(
    (name, kind): (&str, Kind),
    (device, file): (&Path, &Path),
    (rounds, depth): (u64, u64),
) -> bool {
    let found = || Disk::of(&SourceVolume::open(device).unwrap()).unwrap().0;
    let disk = found();
    let writes = Writes::begin(file, depth);
    let deadline = Instant::now() + Duration::from_secs(60);
    let before = written(&disk);
    while written(&disk) < before + 1000 {
        assert!(Instant::now() < deadline, "fio does not write");
        thread::yield_now();
    }
    let (mut without, mut with) = (vec![], vec![]);
    for round in 0..rounds {
        for turn in 0..2 {
            // Both begin alike: what it takes to attach and to end falls on neither.
            let mut tracker = Tracker::start(found(), Some(kind)).unwrap();
            if (round + turn) % 2 == 0 {
                drop(tracker);
                writes.wait(SETTLES);
                without.push(writes.turn(&disk));
            } else {
                writes.wait(SETTLES);
                with.push(writes.turn(&disk));
                tracker.advance().unwrap();
            }
        }
    }
    let ratios: Vec<f64> = with.iter().zip(&without).map(|(a, b)| a / b).collect();
    let ratio = median(&ratios);
    let is_kept = ratio >= LIMIT || kind == Kind::Perf;
    let limit = match (kind, is_kept) {
        (Kind::Bpf, true) => format!("limit {:.0} %: kept", LIMIT * 100.0),
        (Kind::Bpf, false) => format!("limit {:.0} %: not kept", LIMIT * 100.0),
        (Kind::Perf, _) => "no limit".to_owned(),
    };
    let half =
        |part: usize| median(&ratios[part * ratios.len() / 2..(part + 1) * ratios.len() / 2]);
    eprintln!(
        "{name}, {depth} at once, {kind}: {:.0} writes a second, {:.0} while followed (medians of {rounds} \
        turns each); median of the rounds' ratios {:.1} % ({limit}), of their halves \
        {:.1} and {:.1} %",
        median(&without),
        median(&with),
        ratio * 100.0,
        half(0) * 100.0,
        half(1) * 100.0,
    );
    is_kept
}

/// How long runs of programs are counted.
const COUNTED: Duration = Duration::from_secs(3);

/// What one program took for each run, in nanoseconds, and how many runs there were.
struct Each {
    nanoseconds: f64,
    runs: f64,
}

impl Each {
    fn between(before: Runs, after: Runs) -> Self {
        let runs = (after.count - before.count) as f64;
        Self {
            nanoseconds: (after.nanoseconds - before.nanoseconds) as f64 / runs.max(1.0),
            runs,
        }
    }
}

/// What the kernel says that the programs take: of the disk that is written to, of another
/// one, and one that does nothing, which is what counting itself takes. Whether the limit was
/// kept.
fn count(device: &Path, other: &Path) -> bool {
    let found = |path| Disk::of(&SourceVolume::open(path).unwrap()).unwrap().0;
    let disk = found(device);
    let nothing = |stream: Stream| run_at(stream, |_| Assembly::new().exit().finish()).unwrap();
    let started = |path| Bpf::start(&found(path), &STREAMS, 1).unwrap();
    let (own, others) = (started(device), started(other));
    let nothing = STREAMS.map(nothing);
    let all: [&[Attached]; 3] = [&own._attached, &others._attached, &nothing];
    let writes = Writes::begin(device, 16);
    writes.wait(4 * TURN);
    let _counted = kernel::count_runs().unwrap();
    let runs = || all.map(|programs| [0, 1].map(|at| programs[at].runs().unwrap()));
    let (began, before, had) = (Instant::now(), runs(), written(&disk));
    writes.wait(COUNTED);
    let (after, has, took) = (runs(), written(&disk), began.elapsed());
    let written = (has - had) as f64;
    let each: Vec<[Each; 2]> = (0..3)
        .map(|of| [0, 1].map(|at| Each::between(before[of][at], after[of][at])))
        .collect();
    let mut for_each_write = 0.0;
    for (at, stream) in STREAMS.iter().enumerate() {
        let [own, other, nothing] = [0, 1, 2].map(|of| &each[of][at]);
        let [followed, passed_by] = [own, other].map(|each| each.nanoseconds - nothing.nanoseconds);
        let events = own.runs / written;
        eprintln!(
            "{}, 16 at once: {events:.2} events for each write, each {followed:.0} ns of the program of \
            this disk and {passed_by:.0} ns of that of another one (counting them, {:.0} ns, not \
            counted)",
            stream.event(),
            nothing.nanoseconds,
        );
        for_each_write += followed * events;
    }
    let rate = written / took.as_secs_f64();
    let share = for_each_write * rate / 1e9;
    let is_kept = share <= MOST_OF_A_CORE;
    eprintln!(
        "programs take {for_each_write:.0} ns for each write: at {rate:.0} writes a second {:.2} % of a \
        core (limit {:.0} %: {})",
        share * 100.0,
        MOST_OF_A_CORE * 100.0,
        if is_kept { "kept" } else { "not kept" },
    );
    is_kept
}

/// A loop device over a file that has all its bytes.
fn attached(folder: &Path) -> Option<LoopDevice> {
    let image = folder.join("disk");
    io::copy(
        &mut io::Read::take(io::repeat(7), DISK),
        &mut File::create(&image).unwrap(),
    )
    .unwrap();
    LoopDevice::attach(&image)
}

#[test]
fn following_writes_costs_who_writes_little() {
    let Ok(rounds) = env::var(ROUNDS) else {
        eprintln!("skipped: it is measured by `cargo xtask bench track`");
        return;
    };
    let rounds: u64 = rounds.parse().expect("it is a number");
    assert!(may_follow(), "following writes cannot be measured here");
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = attached(folder.path()).unwrap();
    let disk = device.path();
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let another = attached(other.path()).unwrap();
    let over = "a loop device over memory";
    let mut is_kept = count(disk, another.path());
    for kind in KINDS {
        for depth in [1, 16] {
            is_kept &= compare((over, kind), (disk, disk), (rounds, depth));
        }
    }
    let made = Command::new("mkfs.ext4").arg("-qF").arg(disk).status();
    assert!(made.unwrap().success());
    let at = folder.path().join("at");
    fs::create_dir(&at).unwrap();
    let status = Command::new("mount").arg(disk).arg(&at).status();
    assert!(status.unwrap().success());
    let mounted = Mounted(at);
    let file = mounted.0.join("file");
    // Its blocks are there before it is measured.
    fs::write(&file, vec![7; 256 << 20]).unwrap();
    File::open(&file).unwrap().sync_all().unwrap();
    let over = format!("ext4 on {over}");
    for kind in KINDS {
        is_kept &= compare((&over, kind), (disk, &file), (rounds, 16));
    }
    assert!(is_kept, "the limit was not kept");
}
