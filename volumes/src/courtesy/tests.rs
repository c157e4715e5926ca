//! Traces: a device whose work for others slows with what we read of it.
#![allow(clippy::unwrap_used)]

use super::*;

/// What the device reads in a second when nobody else wants anything, in bytes.
const CAPACITY: u64 = 400 << 20;

/// A device, and what others do with it.
struct Disk {
    now: Duration,
    courtesy: Courtesy,
    is_direct: bool,
    /// Writes a second of others, and how long one takes when nobody reads.
    writes: f64,
    each: Duration,
    /// Our commits: one in so many looks, of how many writes.
    commits: Option<(f64, u64)>,
    /// Reads a second of others.
    reads: f64,
    /// Whether our reads slow as others' do.
    own_waits: bool,
    /// How much slower everything is at which share of the capacity that we use.
    slower: fn(f64) -> f64,
    /// Bytes that we read.
    read: u64,
    /// How long writes of others took, all of them, and how many there were.
    waited: Duration,
    written: u64,
    /// How long writes took, and what of it the kernel said: whole milliseconds.
    write_time: Duration,
    said: Duration,
    turns: u64,
}

impl Disk {
    fn new(is_direct: bool) -> Self {
        Self {
            now: Duration::ZERO,
            courtesy: Courtesy::new(Duration::ZERO),
            is_direct,
            writes: 0.0,
            each: Duration::from_millis(1),
            commits: None,
            reads: 0.0,
            own_waits: true,
            // As a queue: half as slow again at a third of the capacity.
            slower: |share| 1.05 / (1.05 - share),
            read: 0,
            waited: Duration::ZERO,
            written: 0,
            write_time: Duration::ZERO,
            said: Duration::ZERO,
            turns: 0,
        }
    }

    fn turn(&mut self) {
        let until = self.courtesy.deadline();
        let time = until - self.now;
        let rate = match self.courtesy.reading() {
            Reading::Full => CAPACITY,
            Reading::Paced(rate) => rate.get().min(CAPACITY),
            Reading::Paused => 0,
        };
        let share = rate as f64 / CAPACITY as f64;
        let slower = (self.slower)(share);
        // A fifth more or less, from time to time.
        self.turns += 1;
        let noise = 0.8 + (self.turns * 7 % 5) as f64 / 10.0;
        let own_bytes = (rate as f64 * time.as_secs_f64()) as u64;
        // Of a few a second some look has one, and another none.
        let chance = (self.turns as f64 * 0.618_034).fract();
        let writes = (self.writes * time.as_secs_f64() + chance) as u64;
        let commit = self.commits.filter(|(every, _)| {
            // Not in step with anything.
            (self.turns as f64 * 0.754_877_7).fract() < 1.0 / every
        });
        let writes = writes + commit.map_or(0, |(_, writes)| writes);
        let write_time = self.each.mul_f64(writes as f64 * slower * noise);
        let others = (self.reads * time.as_secs_f64()) as u64;
        let own_reads = own_bytes / OWN_READ;
        let is_shared = self.reads > 0.0 && self.own_waits;
        let own_slower = if is_shared { slower } else { 1.0 };
        let look = Look {
            time,
            writes,
            write_time: self.say(write_time),
            reads: others + own_reads * 4,
            in_flight: 0,
            has_own_writes: commit.is_some(),
            own_bytes,
            direct_bytes: if self.is_direct { own_bytes } else { 0 },
            direct_time: Duration::from_millis(2).mul_f64(own_reads as f64 * own_slower),
        };
        self.now = until;
        self.read += own_bytes;
        self.waited += write_time;
        self.written += writes;
        self.courtesy.step(self.now, &look);
    }

    /// What the kernel says of the time that writes took.
    fn say(&mut self, time: Duration) -> Duration {
        self.write_time += time;
        let millis = u64::try_from(self.write_time.as_millis()).unwrap();
        let all = Duration::from_millis(millis);
        all - std::mem::replace(&mut self.said, all)
    }

    /// Goes on for so long; gives how many bytes a second were read.
    fn go_on(&mut self, secs: u64) -> u64 {
        let (until, read) = (self.now + Duration::from_secs(secs), self.read);
        while self.now < until {
            self.turn();
        }
        (self.read - read) / secs
    }

    fn rate(&self) -> Option<u64> {
        self.courtesy.backing_off().map(NonZeroU64::get)
    }
}

#[test]
fn a_disk_that_nobody_else_uses_is_read_at_full_speed_but_for_looking() {
    let mut disk = Disk::new(true);
    let rate = disk.go_on(60);
    assert!(rate > CAPACITY / 100 * 94, "{}", rate >> 20);
    assert_eq!(disk.rate(), None);
}

#[test]
fn it_backs_off_in_seconds_and_comes_back_in_a_minute_or_two() {
    let mut disk = Disk::new(true);
    disk.go_on(10);
    disk.writes = 300.0;
    disk.go_on(4);
    let backed_off = disk.rate().unwrap();
    assert!(backed_off < CAPACITY * 7 / 10, "{}", backed_off >> 20);
    (disk.waited, disk.written) = (Duration::ZERO, 0);
    let rate = disk.go_on(120);
    // Others wait half as long again at most, and what that leaves is used.
    let each = disk.waited / u32::try_from(disk.written).unwrap();
    assert!(each < Duration::from_micros(1_650), "{each:?}");
    assert!(rate > CAPACITY / 10, "{}", rate >> 20);
    disk.writes = 0.0;
    let before = disk.rate().unwrap();
    disk.go_on(2);
    let rate = disk.rate().unwrap();
    assert!(rate <= before * 2, "{} after {}", rate >> 20, before >> 20);
    disk.go_on(90);
    assert_eq!(disk.rate(), None);
}

#[test]
fn it_comes_up_by_a_tenth_at_a_time_after_two_seconds_without_anything_slow() {
    let mut disk = Disk::new(true);
    disk.writes = 300.0;
    disk.go_on(10);
    loop {
        let before = disk.rate();
        disk.turn();
        if disk.rate() < before {
            break;
        }
    }
    disk.slower = |_| 1.0;
    let (rate, mut louds) = (disk.rate().unwrap(), 0);
    while disk.rate() == Some(rate) {
        louds += u32::from(disk.courtesy.reading() != Reading::Paused);
        disk.turn();
    }
    assert_eq!(louds, 4, "half a second each");
    let up = disk.rate().unwrap();
    assert!(up > rate && up <= rate * 111 / 100, "{rate}, then {up}");
}

#[test]
fn where_the_least_read_slows_others_the_floor_is_kept_and_left_again() {
    let mut disk = Disk::new(true);
    disk.slower = |share| if share > 0.0 { 30.0 } else { 1.0 };
    disk.writes = 200.0;
    disk.go_on(20);
    for _ in 0..500 {
        disk.turn();
        assert!(disk.rate().unwrap() >= LEAST_READ);
    }
    assert_eq!(disk.rate(), Some(LEAST_READ));
    let rate = disk.go_on(60);
    assert!(rate >= LEAST_READ * 9 / 10, "{rate}");
    disk.slower = |_| 1.0;
    disk.go_on(120);
    assert_eq!(disk.rate(), None);
}

#[test]
fn writes_that_are_slow_whatever_is_read_are_no_reason() {
    let mut disk = Disk::new(true);
    disk.slower = |_| 1.0;
    disk.each = Duration::from_millis(40);
    for writes in [1.0, 5.0, 10.0, 60.0, 900.0] {
        disk.writes = writes;
        disk.go_on(120);
        assert_eq!(disk.rate(), None, "{writes} writes a second");
    }
}

#[test]
fn few_writes_are_judged_once_there_were_enough_of_them() {
    for writes in [1.5, 4.0, 5.0, 8.0, 10.0, 12.0, 15.0, 20.0] {
        let mut disk = Disk::new(true);
        disk.writes = writes;
        disk.go_on(60);
        let rate = disk.rate().unwrap_or(CAPACITY);
        assert!(rate < CAPACITY * 3 / 4, "{writes} a second: {}", rate >> 20);
        // And it stays there.
        (disk.waited, disk.written) = (Duration::ZERO, 0);
        disk.go_on(300);
        let each = disk.waited / u32::try_from(disk.written).unwrap();
        assert!(each < Duration::from_micros(1_700), "{writes}: {each:?}");
        disk.writes = 0.0;
        disk.go_on(150);
        assert_eq!(disk.rate(), None, "{writes} a second, then none");
    }
}

#[test]
fn few_writes_are_judged_where_others_read_as_well() {
    let mut disk = Disk::new(true);
    (disk.writes, disk.reads) = (6.0, 500.0);
    // Reads past the cache show nothing of what writes wait for.
    disk.own_waits = false;
    disk.go_on(60);
    assert!(disk.rate().unwrap() < CAPACITY * 3 / 4);
}

#[test]
fn who_hardly_writes_is_no_reason() {
    let mut disk = Disk::new(true);
    disk.writes = 0.3;
    disk.go_on(300);
    assert_eq!(disk.rate(), None);
}

#[test]
fn what_we_write_ourselves_is_no_reason_and_hides_nobody() {
    for every in [1.5, 2.0, 3.0, 7.0] {
        let mut disk = Disk::new(true);
        disk.commits = Some((every, 40));
        for _ in 0..60 {
            disk.go_on(2);
            assert_eq!(disk.rate(), None, "a commit in {every} looks");
        }
        disk.writes = 20.0;
        disk.go_on(60);
        let rate = disk.rate().unwrap_or(CAPACITY);
        assert!(rate < CAPACITY * 3 / 4, "{every}: {}", rate >> 20);
        disk.writes = 0.0;
        disk.go_on(300);
        assert_eq!(disk.rate(), None, "a commit in {every} looks");
    }
}

#[test]
fn who_commits_all_the_time_still_sees_others_and_comes_back() {
    let mut disk = Disk::new(true);
    (disk.commits, disk.writes) = (Some((1.0, 1)), 300.0);
    disk.go_on(200);
    assert!(disk.rate().unwrap() < CAPACITY * 3 / 4);
    disk.slower = |_| 1.0;
    let before = disk.rate().unwrap();
    disk.go_on(120);
    assert!(disk.rate().is_none_or(|rate| rate > before * 2));
}

#[test]
fn what_is_so_fast_that_nobody_notices_is_no_reason() {
    let mut disk = Disk::new(true);
    (disk.writes, disk.each) = (3_000.0, Duration::from_micros(4));
    disk.go_on(60);
    assert_eq!(disk.rate(), None);
}

#[test]
fn the_steps_in_which_the_kernel_says_times_are_no_reason() {
    for writes in [9.0, 17.0, 20.0, 33.0, 40.0] {
        for each in [20, 60, 100, 140] {
            let mut disk = Disk::new(true);
            disk.slower = |_| 1.0;
            (disk.writes, disk.each) = (writes, Duration::from_micros(each));
            for _ in 0..300 {
                disk.go_on(2);
                assert_eq!(disk.rate(), None, "{writes} writes a second of {each} us");
            }
        }
    }
}

#[test]
fn where_others_read_too_our_own_reads_past_the_cache_tell() {
    for is_direct in [true, false] {
        let mut disk = Disk::new(is_direct);
        disk.go_on(10);
        disk.reads = 500.0;
        disk.go_on(10);
        assert_eq!(disk.rate().is_some(), is_direct);
        if is_direct {
            // But not beyond what is so: where we read little, it is as fast as ever.
            assert!(disk.rate().unwrap() > CAPACITY / 20);
        }
        disk.reads = 0.0;
        disk.go_on(120);
        assert_eq!(disk.rate(), None);
    }
}

#[test]
fn writes_that_are_stuck_while_we_read_are_slow() {
    let mut courtesy = Courtesy::new(Duration::ZERO);
    let mut now = Duration::ZERO;
    let quiet = Look {
        time: QUIET,
        writes: 50,
        write_time: Duration::from_millis(50),
        ..Look::default()
    };
    let stuck = Look {
        time: LOUD,
        in_flight: 3,
        own_bytes: 100 << 20,
        ..Look::default()
    };
    for _ in 0..8 {
        now = courtesy.deadline();
        let look = match courtesy.reading() {
            Reading::Paused => quiet,
            _ => stuck,
        };
        courtesy.step(now, &look);
    }
    let rate = courtesy.backing_off().unwrap().get();
    assert!(rate <= 50 << 20, "{}", rate >> 20);
    // And where nothing is under way, nobody wrote.
    let mut courtesy = Courtesy::new(now);
    for _ in 0..8 {
        let look = match courtesy.reading() {
            Reading::Paused => quiet,
            _ => Look {
                in_flight: 0,
                ..stuck
            },
        };
        courtesy.step(courtesy.deadline(), &look);
    }
    assert_eq!(courtesy.backing_off(), None);
}
