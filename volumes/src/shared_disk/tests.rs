//! Readers of a disk that is made up, at a time that is: what it counts follows from who
//! reads and what others do.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::LEAST_READ;
use std::fs::File;

const MIB: u64 = 1 << 20;

/// How long one read takes while nothing else is under way.
const READ: Duration = Duration::from_millis(3);

const TICK: Duration = Duration::from_millis(1);

/// A disk that is slower by as much as is under way.
#[derive(Default)]
struct Disk {
    counts: IoCounts,
    commits: Option<u64>,
    /// Writes of others in a tick, and how long one takes while nobody reads.
    writes: u64,
    each: Duration,
}

/// One that reads all the time, as far as it may.
struct Reader {
    seat: Seat,
    began: Option<Duration>,
    until: Duration,
    read: u64,
}

struct Play {
    disk: Arc<Mutex<Disk>>,
    disks: Disks,
    now: Duration,
    source: SourceVolume,
    readers: Vec<Reader>,
    /// Ticks in which nobody read.
    quiet: u64,
}

fn source() -> SourceVolume {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    File::create(&path).unwrap().set_len(MIB).unwrap();
    SourceVolume::open(&path).unwrap()
}

impl Play {
    fn new(is_direct: bool, readers: usize) -> Self {
        let disk = Arc::new(Mutex::new(Disk {
            commits: Some(0),
            ..Disk::default()
        }));
        let seen = disk.clone();
        let disks = Disks::found_by(move |_| {
            let (seen, commits) = (seen.clone(), seen.clone());
            Ok(Figures {
                disk: "disk".into(),
                is_direct,
                counts: Box::new(move || Ok(lock(&seen).counts)),
                commits: Box::new(move || lock(&commits).commits),
            })
        });
        let mut play = Self {
            disk,
            disks,
            now: Duration::ZERO,
            source: source(),
            readers: Vec::new(),
            quiet: 0,
        };
        (0..readers).for_each(|_| play.join());
        play
    }

    fn join(&mut self) {
        self.readers.push(Reader {
            seat: self.disks.seat(self.now, &self.source).unwrap(),
            began: None,
            until: self.now,
            read: 0,
        });
    }

    fn others_write(&self, writes: u64) {
        let mut disk = lock(&self.disk);
        (disk.writes, disk.each) = (writes, Duration::from_micros(500));
    }

    /// How many read.
    fn busy(&self) -> u32 {
        let reading = self.readers.iter().filter(|one| one.began.is_some());
        u32::try_from(reading.count()).unwrap()
    }

    fn tick(&mut self) {
        self.now += TICK;
        let now = self.now;
        for at in 0..self.readers.len() {
            let reader = &mut self.readers[at];
            if let Some(began) = reader.began
                && now >= reader.until
            {
                lock(&self.disk).counts.reads += 4;
                reader.seat.read(now, MIB, now - began);
                (reader.began, reader.read) = (None, reader.read + MIB);
            }
            let busy = self.busy();
            let reader = &mut self.readers[at];
            if reader.began.is_none() && reader.seat.turn(now).unwrap().is_none() {
                (reader.began, reader.until) = (Some(now), now + READ * (busy + 1));
            }
        }
        let busy = self.busy();
        self.quiet += u64::from(busy == 0);
        let mut disk = lock(&self.disk);
        let writes = u32::try_from(disk.writes).unwrap();
        disk.counts.writes += disk.writes;
        let each = disk.each * (1 + 3 * busy);
        disk.counts.write_time += each * writes;
    }

    fn go_on(&mut self, secs: u64) {
        for _ in 0..secs * 1_000 {
            self.tick();
        }
    }

    fn held_at(&self) -> Vec<u64> {
        let held = self.readers.iter().map(|one| one.seat.held_at());
        held.collect()
    }
}

#[test]
fn reads_wait_for_their_time_once_they_slow_what_others_write() {
    let mut play = Play::new(false, 1);
    // First it is found out how fast others are.
    assert!(play.readers[0].seat.turn(play.now).unwrap().is_some());
    play.go_on(20);
    assert_eq!(play.held_at(), [0]);
    play.others_write(2);
    play.go_on(20);
    let [held] = play.held_at()[..] else { panic!() };
    assert!((LEAST_READ..200 * MIB).contains(&held), "{}", held / MIB);
    let before = play.readers[0].read;
    play.go_on(10);
    let rate = (play.readers[0].read - before) / 10;
    assert!(rate < held * 3 / 2, "{} of {}", rate / MIB, held / MIB);
    assert!(rate >= LEAST_READ / 2, "{} of {}", rate / MIB, held / MIB);
}

#[test]
fn sessions_that_read_one_disk_back_off_together() {
    let mut play = Play::new(false, 3);
    play.others_write(2);
    play.go_on(30);
    let held = play.held_at();
    assert!(held[0] > 0 && held.iter().all(|one| *one == held[0]));
    // The pace is that of all of them, of which each has its part.
    let before: Vec<u64> = play.readers.iter().map(|one| one.read).collect();
    let most = held[0];
    play.go_on(20);
    let read = play.readers.iter().zip(&before);
    let read: Vec<u64> = read.map(|(one, before)| one.read - before).collect();
    let all = read.iter().sum::<u64>() / 20;
    assert!(all < most * 2, "{} of {}", all / MIB, most / MIB);
    let least = *read.iter().min().unwrap();
    assert!(least * 3 > read.iter().sum::<u64>() / 2, "{read:?}");
}

#[test]
fn what_one_session_reads_is_not_taken_for_others_reads_by_another() {
    let mut play = Play::new(true, 1);
    play.go_on(10);
    play.join();
    for _ in 0..30 {
        play.go_on(1);
        assert_eq!(play.held_at(), [0, 0], "nobody else uses the disk");
    }
    let read: Vec<u64> = play.readers.iter().map(|one| one.read / MIB).collect();
    assert!(read[1] > 3_000, "{read:?}");
}

#[test]
fn it_is_quiet_for_all_sessions_at_once_and_not_for_longer() {
    let mut play = Play::new(false, 4);
    play.go_on(5);
    play.quiet = 0;
    play.go_on(21);
    // A tenth of a second in every 2.1, and as long again at most until all have ended.
    assert!((950..1_600).contains(&play.quiet), "{}", play.quiet);
}

#[test]
fn where_what_is_read_past_the_cache_is_not_counted_all_are_told() {
    for is_direct in [true, false] {
        let mut play = Play::new(is_direct, 2);
        let [one, other] = &mut play.readers[..] else {
            panic!()
        };
        let (one, other) = (&mut one.seat, &mut other.seat);
        let mut now = Duration::from_millis(100);
        assert_eq!(one.turn(now).unwrap(), None);
        now += READ;
        one.read(now, MIB, READ);
        now += Duration::from_secs(1);
        for seat in [one, other] {
            match seat.turn(now) {
                Err(NoDeviceIo::NotCounted { disk }) if is_direct => {
                    assert_eq!(disk.as_os_str(), "disk");
                }
                // What is in the cache need not be read.
                Ok(None) if !is_direct => {}
                turn => panic!("{turn:?}"),
            }
        }
    }
}

#[test]
fn writes_beside_a_commit_are_not_taken_for_others() {
    for has_ended in [true, false] {
        let mut play = Play::new(false, 1);
        lock(&play.disk).commits = Some(1);
        play.go_on(5);
        play.others_write(2);
        for commits in 2..40 {
            // Where it has not, the next look finds it under way.
            lock(&play.disk).commits = has_ended.then_some(commits);
            for _ in 0..100 {
                play.tick();
                assert_eq!(play.held_at(), [0]);
            }
        }
        lock(&play.disk).commits = Some(40);
        play.go_on(20);
        assert!(play.held_at()[0] > 0);
    }
}

#[test]
fn who_leaves_while_it_reads_holds_nobody_up() {
    let mut play = Play::new(false, 2);
    play.go_on(3);
    while play.readers[1].began.is_none() {
        play.tick();
    }
    play.readers.pop();
    let before = play.readers[0].read;
    play.go_on(5);
    assert!(play.readers[0].read - before > 1_000 * MIB);
}
