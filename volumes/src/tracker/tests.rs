//! On loop devices: what is written is marked, and nothing else. Root alone has them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use blocks::tracking::{Follow, Gap, Owed};
use blocks::{BlockIndex, DirtySet, Geometry};
use tempfile::TempDir;

use super::*;
use crate::loop_device::LoopDevice;
use crate::{AlignedBuf, SourceVolume};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 65536;

/// A disk that is followed.
struct Lab {
    device: LoopDevice,
    tracker: Tracker,
    bytes: Range<u64>,
    begun: Instant,
    _folder: TempDir,
}

impl Lab {
    fn new(mib: u64) -> Option<Self> {
        Self::seeing(mib, &[Stream::Queued, Stream::Completed])
    }

    fn seeing(mib: u64, streams: &[Stream]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk");
        File::create(&image).unwrap().set_len(mib * MIB).unwrap();
        let device = LoopDevice::attach(&image)?;
        let begun = Instant::now();
        let (disk, bytes) = found(device.path());
        let tracker = Tracker::follow(vec![disk], 0, streams).unwrap();
        Some(Self {
            device,
            tracker,
            bytes,
            begun,
            _folder: folder,
        })
    }

    fn now_millis(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap()
    }

    fn advance(&mut self) -> Advanced {
        let now = self.now_millis();
        self.tracker.advance(now).unwrap().pop().unwrap()
    }

    /// Blocks that are marked in a generation or later.
    fn marked(&self, since: Generation) -> BTreeSet<u64> {
        marked(&self.tracker, self.bytes.clone(), since)
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let file = direct(self.device.path());
        file.write_all_at(bytes, offset).unwrap();
    }
}

fn found(path: &Path) -> (Disk, Range<u64>) {
    Disk::of(&SourceVolume::open(path).unwrap()).unwrap()
}

fn marked(tracker: &Tracker, bytes: Range<u64>, since: Generation) -> BTreeSet<u64> {
    let mut dirty = DirtySet::new(Geometry::new(bytes.end - bytes.start).unwrap());
    assert!(tracker.collect(0, bytes, since, &mut dirty));
    let mut blocks = BTreeSet::new();
    while let Some(run) = dirty.next_run(BlockIndex(blocks.last().map_or(0, |b| b + 1)), u64::MAX) {
        blocks.extend(run);
    }
    blocks
}

/// Writes go to the device at once, and are done when they return.
fn direct(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    options.open(path).unwrap()
}

fn touched(offset: u64, length: u64) -> impl Iterator<Item = u64> {
    offset / BLOCK..(offset + length).div_ceil(BLOCK)
}

/// So many numbers below a bound, drawn from a seed.
fn drawn(seed: u64, count: usize, below: u64) -> Vec<u64> {
    let mut bytes = vec![0; count * 8];
    let mut output = blake3::Hasher::new();
    output
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    let numbers = bytes.chunks_exact(8).map(|chunk| chunk.try_into().unwrap());
    numbers
        .map(|chunk| u64::from_le_bytes(chunk) % below)
        .collect()
}

#[test]
fn what_is_written_is_marked_and_nothing_else() {
    let Some(mut lab) = Lab::new(256) else {
        return;
    };
    let mut buf = AlignedBuf::new(64);
    let sizes = [(4096, 400), (65536, 60), (MIB, 6), (4096 * 300, 3)];
    for (size, count) in sizes {
        let generation = lab.advance().begun;
        let mut expected = BTreeSet::new();
        for place in drawn(size, count, (256 * MIB - size) / 4096) {
            let bytes = &mut buf.bytes_mut()[..size as usize];
            bytes.fill(place as u8);
            let file = direct(lab.device.path());
            file.write_all_at(bytes, place * 4096).unwrap();
            expected.extend(touched(place * 4096, size));
        }
        // What is longer than 17 blocks is marked by the MiB; a kernel may cut it before.
        let found = lab.marked(generation);
        assert!(found.is_superset(&expected), "{size}");
        if size <= MIB {
            assert_eq!(found, expected, "{size}");
        }
        assert!(found.len() <= expected.len() + 2 * 16 * count, "{size}");
        // Reading marks nothing.
        let next = lab.advance().begun;
        direct(lab.device.path())
            .read_at(&mut buf.bytes_mut()[..65536], 0)
            .unwrap();
        assert!(lab.marked(next).is_empty());
        assert_eq!(lab.marked(generation), found, "nothing is cleared");
    }
}

#[test]
fn what_was_seen_is_what_the_device_counted() {
    let Some(mut lab) = Lab::new(64) else {
        return;
    };
    let buf = AlignedBuf::new(1);
    let mut follow = Follow::new();
    let mut owed = vec![];
    for round in 0..20 {
        for place in drawn(round, 50, 64 * MIB / 4096) {
            lab.write(place * 4096, &buf.bytes()[..4096]);
        }
        let advanced = lab.advance();
        owed.push(follow.collect(&advanced));
        follow.settled();
    }
    assert!(matches!(owed[0], Owed::All(Gap::Begun)));
    // An event may be lost now and then; then what was marked before is looked at again.
    let since = owed[1..]
        .iter()
        .filter(|owed| matches!(owed, Owed::Since(_)));
    assert_eq!(since.count(), 19, "{owed:?}");
}

#[test]
fn discards_and_zeroes_are_marked_over_their_whole_length() {
    let Some(mut lab) = Lab::new(8 << 10) else {
        return;
    };
    let path = lab.device.path().to_owned();
    let tool = |arguments: &[&str], offset: u64, length: u64| {
        let status = Command::new("blkdiscard")
            .args(arguments)
            .args(["-o", &offset.to_string(), "-l", &length.to_string()])
            .arg(&path)
            .status();
        assert!(status.unwrap().success());
    };
    for (arguments, offset, length) in [
        (&[][..], 10 * MIB, 3 * MIB),
        (&["-z"], 40 * MIB + 4096, 100 * MIB),
        (&[], 300 * MIB + 4096, 5 << 30),
    ] {
        let generation = lab.advance().begun;
        tool(arguments, offset, length);
        let found = lab.marked(generation);
        let expected: BTreeSet<u64> = touched(offset, length).collect();
        assert!(found.is_superset(&expected), "{offset} {length}");
        // A unit too many at each end of each request.
        assert!(
            found.len() <= expected.len() + expected.len() / 4 + 64,
            "{}",
            found.len()
        );
    }
}

#[test]
fn a_partition_is_marked_where_it_lies_on_its_disk() {
    let Some(mut lab) = Lab::new(64) else {
        return;
    };
    // 10 MiB and a sector from the beginning, of 20 MiB.
    let begin = 10 * MIB + 512;
    let added = Command::new("addpart")
        .arg(lab.device.path())
        .args([
            "1",
            &(begin / 512).to_string(),
            &(20 * MIB / 512).to_string(),
        ])
        .status();
    if !added.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this kernel has no partitions on loop devices");
        return;
    }
    let name = format!("{}p1", lab.device.path().display());
    let (_, bytes) = found(Path::new(&name));
    assert_eq!(bytes, begin..begin + 20 * MIB);
    let generation = lab.advance().begun;
    let buf = AlignedBuf::new(1);
    let file = OpenOptions::new().write(true).open(&name).unwrap();
    file.write_all_at(&buf.bytes()[..4096], 5 * MIB).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let own = marked(&lab.tracker, bytes, generation);
    let at = 5 * MIB / BLOCK;
    // A granule of the disk lies in two of its blocks, since it begins within one.
    assert!(own.contains(&at) && own.len() <= 3, "{own:?}");
    let whole = lab.marked(generation);
    assert!(whole.contains(&((begin + 5 * MIB) / BLOCK)), "{whole:?}");
    let gone = Command::new("delpart")
        .arg(lab.device.path())
        .arg("1")
        .status();
    assert!(gone.unwrap().success());
}

#[test]
fn a_flush_marks_nothing_and_what_is_written_with_one_is_marked() {
    let Some(mut lab) = Lab::new(16) else {
        return;
    };
    let buf = AlignedBuf::new(1);
    let generation = lab.advance().begun;
    direct(lab.device.path()).sync_all().unwrap();
    assert!(lab.marked(generation).is_empty());
    let mut options = OpenOptions::new();
    options
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_SYNC);
    let file = options.open(lab.device.path()).unwrap();
    file.write_all_at(&buf.bytes()[..4096], 3 * BLOCK).unwrap();
    assert_eq!(lab.marked(generation), [3].into());
}

#[test]
fn files_and_what_has_no_events_of_its_own_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    File::create(&image).unwrap().set_len(MIB).unwrap();
    let refused = Disk::of(&SourceVolume::open(&image).unwrap());
    assert!(
        matches!(refused, Err(NoTracker::NoDevice { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_tracker_that_is_not_told_of_some_events_is_not_believed() {
    let write =
        |lab: &Lab, place: u64| lab.write(place * BLOCK, &AlignedBuf::new(1).bytes()[..4096]);
    let windows = |streams: &[Stream]| {
        let mut lab = Lab::seeing(16, streams)?;
        let found = (0..3).map(|place| {
            if place > 0 {
                write(&lab, place);
            }
            lab.advance().window
        });
        Some(found.collect::<Vec<Window>>())
    };
    let Some(queued) = windows(&[Stream::Queued]) else {
        return;
    };
    // What was queued while it was followed is marked, whatever else is missing.
    assert!(matches!(queued[1..], [Window::Since(_), _]), "{queued:?}");
    let completed = windows(&[Stream::Completed]).unwrap();
    assert_eq!(completed[1], Window::Whole);
    let none = windows(&[]).unwrap();
    assert_eq!(none[1..], [Window::Gap(Gap::Missed); 2]);
}

/// Follows a disk with passes that read what is owed alone.
struct Copy {
    lab: Lab,
    follow: Follow,
    content: Vec<u8>,
    read_blocks: u64,
}

impl Copy {
    fn pass(&mut self) -> u64 {
        let advanced = self.lab.advance();
        let geometry = Geometry::new(self.lab.bytes.end).unwrap();
        let mut dirty = DirtySet::new(geometry);
        match self.follow.collect(&advanced) {
            Owed::All(_) => dirty.mark_all(),
            Owed::Since(since) => {
                let bytes = self.lab.bytes.clone();
                assert!(self.lab.tracker.collect(0, bytes, since, &mut dirty));
            }
        }
        let owed = dirty.len();
        let device = direct(self.lab.device.path());
        let mut buf = AlignedBuf::new(1);
        while let Some((block, _)) = dirty.take_next_run(1) {
            let offset = block.0 * BLOCK;
            device.read_exact_at(buf.bytes_mut(), offset).unwrap();
            let at = offset as usize..(offset + BLOCK) as usize;
            self.content[at].copy_from_slice(buf.bytes());
        }
        self.follow.settled();
        self.read_blocks += owed;
        owed
    }
}

/// Writes of several sizes at places of a half of the disk that are drawn from a seed, each
/// with content of its own: past the page cache, or through it.
fn work(file: &File, (seed, half): (u64, u64), is_over: &AtomicBool) -> u64 {
    let mut buf = AlignedBuf::new(4);
    let mut done = 0;
    while !is_over.load(Ordering::Relaxed) {
        let numbers = drawn(seed ^ (done << 8), 3, u64::MAX);
        let size = [4096, 4096, 16384, 3 * BLOCK][(numbers[0] % 4) as usize];
        let place = 32 * MIB * half + numbers[1] % ((32 * MIB - size) / 4096) * 4096;
        let bytes = &mut buf.bytes_mut()[..size as usize];
        for (word, at) in bytes.chunks_exact_mut(8).zip(0u64..) {
            word.copy_from_slice(&(numbers[2] ^ at).to_le_bytes());
        }
        file.write_all_at(bytes, place).unwrap();
        if numbers[0] >> 3 & 63 == 0 {
            file.sync_data().unwrap();
        }
        done += 1;
    }
    file.sync_all().unwrap();
    done
}

#[test]
fn a_copy_that_reads_what_is_marked_alone_is_the_disk() {
    let Some(lab) = Lab::new(64) else {
        return;
    };
    let seed = u64::from_le_bytes(lab.tracker.instance().0[..8].try_into().unwrap());
    let path = lab.device.path().to_owned();
    let mut copy = Copy {
        content: vec![0; 64 << 20],
        follow: Follow::new(),
        read_blocks: 0,
        lab,
    };
    let is_over = AtomicBool::new(false);
    let (passes, writes) = thread::scope(|scope| {
        let cached = OpenOptions::new().write(true).open(&path).unwrap();
        let workers = [(direct(&path), 0), (cached, 1)].map(|(file, half)| {
            let is_over = &is_over;
            scope.spawn(move || work(&file, (seed ^ half, half), is_over))
        });
        let passes = (0..8).map(|_| copy.pass()).filter(|owed| *owed > 0).count();
        is_over.store(true, Ordering::Relaxed);
        (passes, workers.map(|worker| worker.join().unwrap()))
    });
    while copy.pass() > 0 {}
    let device = direct(&path);
    let mut buf = AlignedBuf::new(1);
    for (block, held) in copy.content.chunks_exact(BLOCK as usize).enumerate() {
        device
            .read_exact_at(buf.bytes_mut(), block as u64 * BLOCK)
            .unwrap();
        assert!(buf.bytes() == held, "block {block} differs, seed {seed:#x}");
    }
    eprintln!(
        "{passes} passes read {} blocks beside {writes:?} writes",
        copy.read_blocks
    );
}
