//! On loop devices: what is written is marked, and nothing else. Root alone has them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
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
use crate::loop_device::{LoopDevice, Partition};
use crate::{AlignedBuf, SourceVolume};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 65536;

const BOTH: &[Stream] = &STREAMS;

pub(super) const KINDS: [Kind; 2] = [Kind::Bpf, Kind::Perf];

/// What every kind of tracker has to do.
macro_rules! on_each_kind {
    ($($name:ident),* $(,)?) => {
        mod by_bpf {
            $(#[test]
            fn $name() {
                super::$name(super::Kind::Bpf);
            })*
        }
        mod by_perf_events {
            $(#[test]
            fn $name() {
                super::$name(super::Kind::Perf);
            })*
        }
    };
}

on_each_kind!(
    what_is_written_is_marked_and_nothing_else,
    what_was_seen_is_what_the_device_counted,
    discards_and_zeroes_are_marked_over_their_whole_length,
    a_partition_is_marked_where_it_lies_on_its_disk,
    a_flush_marks_nothing_and_what_is_written_with_one_is_marked,
    disks_that_are_followed_at_once_are_told_apart,
    a_disk_whose_figures_cannot_be_read_is_given_up,
    a_disk_that_is_not_counted_any_more_is_not_believed_until_it_was_seen_to_be,
    where_it_is_not_known_what_is_marked_all_is,
    a_tracker_that_is_not_told_of_some_events_is_not_believed,
    a_copy_that_reads_what_is_marked_alone_is_the_disk,
);

/// How long a condition is waited for.
const DEADLINE: Duration = Duration::from_secs(300);

/// A disk that is followed.
struct Lab {
    device: LoopDevice,
    tracker: Tracker,
    bytes: Range<u64>,
    _folder: TempDir,
}

/// Whether the kernel lets us follow writes; says why not, for a test that then does nothing.
pub(super) fn may_follow() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: following writes needs root");
        return false;
    }
    match Tracker::start(Shown::new().disk(), None) {
        Err(NoTracker::Refused { what, source })
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            eprintln!("skipped: not allowed to {what}: {source}");
            false
        }
        _ => true,
    }
}

/// A loop device over a sparse file.
fn attached(mib: u64) -> Option<(TempDir, LoopDevice)> {
    if !may_follow() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    File::create(&image).unwrap().set_len(mib * MIB).unwrap();
    let device = LoopDevice::attach(&image)?;
    Some((folder, device))
}

impl Lab {
    fn new(kind: Kind, mib: u64) -> Option<Self> {
        Self::seeing((kind, mib), BOTH, kernel::wait_for_programs)
    }

    fn seeing((kind, mib): (Kind, u64), streams: &[Stream], wait: Wait) -> Option<Self> {
        let (folder, device) = attached(mib)?;
        let (disk, bytes) = found(device.path());
        let tracker = followed(disk, (kind, None), streams, wait).unwrap();
        Some(Self {
            device,
            tracker,
            bytes,
            _folder: folder,
        })
    }

    fn advance(&mut self) -> Advanced {
        self.tracker.advance().unwrap()
    }

    /// Where the kernel shows a file of the disk.
    fn shown(&self, file: &str) -> PathBuf {
        self.tracker.disk.path().join(file)
    }

    /// Sectors that were seen, less those that the disk counted: completed, and queued.
    fn ahead(&self) -> [i128; 2] {
        let counted = i128::from(self.tracker.disk.counted().unwrap().sectors);
        [Stream::Completed, Stream::Queued]
            .map(|stream| i128::from(self.tracker.marker.seen(stream)) - counted)
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

/// A disk that is nothing but what a kernel would show of it.
struct Shown(TempDir);

impl Shown {
    fn new() -> Self {
        let shown = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(shown.file("")).unwrap();
        fs::write(shown.file("dev"), "4000:5").unwrap();
        fs::write(shown.file("size"), "4100").unwrap();
        shown.counts(0, 0);
        shown
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("dev/block/4000:5").join(name)
    }

    /// Sectors that it has written, and writes that are under way; it always reads.
    fn counts(&self, sectors: u64, under_way: u64) {
        let stat = format!("0 0 0 0 0 0 {sectors:9} 0 9 0 0");
        for (name, text) in [("inflight", format!("9 {under_way}")), ("stat", stat)] {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(self.file(name));
            file.unwrap().write_all_at(text.as_bytes(), 0).unwrap();
        }
    }

    fn disk(&self) -> Disk {
        Disk::shown_in(self.0.path(), (4000, 5)).unwrap().0
    }
}

/// Follows a disk by some streams alone, and by perf events with rings of so many bytes.
pub(super) fn followed(
    disk: Disk,
    (kind, ring_bytes): (Kind, Option<u32>),
    streams: &[Stream],
    wait: Wait,
) -> Result<Tracker, NoTracker> {
    Tracker::follow(disk, wait, |disk, mark| {
        Ok(match kind {
            Kind::Bpf => Box::new(Bpf::start(disk, streams, mark)?),
            Kind::Perf => Box::new(Perf::start(disk, streams, mark, ring_bytes)?),
        })
    })
}

fn found(path: &Path) -> (Disk, Range<u64>) {
    Disk::of(&SourceVolume::open(path).unwrap()).unwrap()
}

fn marked(tracker: &Tracker, bytes: Range<u64>, since: Generation) -> BTreeSet<u64> {
    let mut dirty = DirtySet::new(Geometry::new(bytes.end - bytes.start).unwrap());
    assert!(tracker.collect(bytes, since, &mut dirty));
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

fn what_is_written_is_marked_and_nothing_else(kind: Kind) {
    let Some(mut lab) = Lab::new(kind, 256) else {
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

fn what_was_seen_is_what_the_device_counted(kind: Kind) {
    let Some(mut lab) = Lab::new(kind, 64) else {
        return;
    };
    let buf = AlignedBuf::new(1);
    let mut follow = Follow::new();
    lab.advance();
    let before = lab.ahead();
    let (mut owed, mut windows) = (vec![], vec![]);
    for round in 0..20 {
        for place in drawn(round, 50, 64 * MIB / 4096) {
            lab.write(place * 4096, &buf.bytes()[..4096]);
        }
        let advanced = lab.advance();
        windows.push(advanced.window);
        assert!(advanced.is_still, "what was written is done");
        owed.push(follow.collect(&advanced));
        assert!(follow.settled(advanced.begun));
    }
    assert!(matches!(owed[0], Owed::All(Gap::Begun)));
    // An event may be lost now and then; then what was marked before is looked at again.
    let since = owed[1..]
        .iter()
        .filter(|owed| matches!(owed, Owed::Since(_)));
    assert_eq!(since.count(), 19, "{owed:?}");
    let whole = windows.iter().filter(|window| **window == Window::Whole);
    let whole = whole.count();
    assert!(whole > windows.len() / 2, "{windows:?}");
    let [completed, queued] = lab.ahead();
    assert_eq!(queued, before[1]);
    match whole == windows.len() {
        true => assert_eq!(completed, before[0]),
        false => assert!(completed < before[0], "{windows:?}"),
    }
}

fn discards_and_zeroes_are_marked_over_their_whole_length(kind: Kind) {
    let Some(mut lab) = Lab::new(kind, 8 << 10) else {
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

fn a_partition_is_marked_where_it_lies_on_its_disk(kind: Kind) {
    let Some(mut lab) = Lab::new(kind, 64) else {
        return;
    };
    // 10 MiB and a sector from the beginning, of 20 MiB.
    let begin = 10 * MIB + 512;
    let Some(partition) = Partition::add(lab.device.path(), begin / 512, 20 * MIB / 512) else {
        return;
    };
    let name = partition.path();
    let (part, bytes) = found(&name);
    assert_eq!(bytes, begin..begin + 20 * MIB);
    // They are one disk, whichever is given.
    let (whole, _) = found(lab.device.path());
    assert_eq!((part.device(), part.path()), (whole.device(), whole.path()));
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
}

fn a_flush_marks_nothing_and_what_is_written_with_one_is_marked(kind: Kind) {
    let Some(mut lab) = Lab::new(kind, 16) else {
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

fn disks_that_are_followed_at_once_are_told_apart(kind: Kind) {
    let (Some(mut one), Some(mut other)) = (Lab::new(kind, 16), Lab::new(kind, 16)) else {
        return;
    };
    let since = [&mut one, &mut other].map(|lab| lab.advance().begun);
    let buf = AlignedBuf::new(1);
    for (lab, block) in [(&one, 3), (&other, 7)] {
        lab.write(block * BLOCK, &buf.bytes()[..4096]);
    }
    assert_eq!(one.marked(since[0]), [3].into());
    assert_eq!(other.marked(since[1]), [7].into());
}

fn a_disk_whose_figures_cannot_be_read_is_given_up(kind: Kind) {
    if !may_follow() {
        return;
    }
    let shown = Shown::new();
    let mut tracker = Tracker::start(shown.disk(), Some(kind)).unwrap();
    let window = |tracker: &mut Tracker| tracker.advance().unwrap().window;
    assert_eq!(window(&mut tracker), Window::Whole);
    assert!(tracker.unread().is_none());
    fs::write(shown.file("stat"), "").unwrap();
    let unread = Window::Gap(Gap::Unread);
    assert_eq!(window(&mut tracker), unread);
    let told = tracker.unread().map(DiskUnread::to_string).unwrap();
    assert!(told.contains("dev/block/4000:5"), "{told}");
    // What it would have said meanwhile is missing for good.
    shown.counts(0, 0);
    assert_eq!(window(&mut tracker), unread);

    fs::write(shown.file("stat"), "").unwrap();
    let refused = Tracker::start(shown.disk(), Some(kind)).map(drop);
    assert!(
        matches!(refused, Err(NoTracker::Disk { .. })),
        "{refused:?}"
    );
}

/// The figures are about to be read.
static HAS_WAITED: AtomicBool = AtomicBool::new(false);

fn wait_and_tell() -> io::Result<()> {
    HAS_WAITED.store(true, Ordering::SeqCst);
    Ok(())
}

#[test]
fn a_busy_disk_is_read_until_a_moment_in_which_nothing_was_under_way() {
    // What they wait with is the same.
    for kind in KINDS {
        a_busy_disk_is_read_until_a_moment_in_which_nothing_was_under_way_by(kind);
    }
}

fn a_busy_disk_is_read_until_a_moment_in_which_nothing_was_under_way_by(kind: Kind) {
    if !may_follow() {
        return;
    }
    let shown = Shown::new();
    let mut tracker = followed(shown.disk(), (kind, None), BOTH, wait_and_tell).unwrap();
    let advanced = tracker.advance().unwrap();
    assert_eq!((advanced.window, advanced.is_still), (Window::Whole, true));
    // It does what is not seen, is seen at work first, and at rest some readings later; on
    // a machine that has much to do perhaps too late.
    let found = (1..=20).find_map(|round| {
        let (advanced, rested) = advance_while_it_works(&mut tracker, &shown, 8 * round);
        assert!(rested || !advanced.is_still, "still while it worked");
        advanced.is_still.then_some(advanced.window)
    });
    assert_eq!(found, Some(Window::Gap(Gap::Missed)));
}

/// Has a disk count more while it works, and rest soon after an advance reads its figures
/// first. What that finds, and whether the disk rested when it returned.
fn advance_while_it_works(tracker: &mut Tracker, shown: &Shown, sectors: u64) -> (Advanced, bool) {
    shown.counts(sectors, 1);
    HAS_WAITED.store(false, Ordering::SeqCst);
    let rests = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = Instant::now() + DEADLINE;
            while !HAS_WAITED.load(Ordering::SeqCst) && Instant::now() < deadline {
                thread::yield_now();
            }
            let first = Instant::now();
            while first.elapsed() < 8 * BETWEEN_READINGS {
                thread::yield_now();
            }
            rests.store(true, Ordering::SeqCst);
            shown.counts(sectors, 0);
        });
        let advanced = tracker.advance().unwrap();
        (advanced, rests.load(Ordering::SeqCst))
    })
}

fn a_disk_that_is_not_counted_any_more_is_not_believed_until_it_was_seen_to_be(kind: Kind) {
    let Some(mut lab) = Lab::new(kind, 16) else {
        return;
    };
    let iostats = lab.shown("queue/iostats");
    assert_eq!(lab.advance().window, Window::Whole);
    if let Err(error) = fs::write(&iostats, "0") {
        eprintln!("skipped: what the kernel counts cannot be changed here: {error}");
        return;
    }
    let off = lab.advance();
    let volume = SourceVolume::open(lab.device.path()).unwrap();
    let refused = Disk::of(&volume).map(drop);
    // It stays with the number, and others will have that.
    fs::write(&iostats, "1").unwrap();
    let not_counted = Window::Gap(Gap::NotCounted);
    assert_eq!((off.window, off.is_still), (not_counted, false));
    assert!(
        matches!(refused, Err(NoTracker::Unfit { .. })),
        "{refused:?}"
    );
    for _ in 0..3 {
        assert_eq!(lab.advance().window, not_counted, "nothing moved since");
    }
    let deadline = Instant::now() + DEADLINE;
    while lab.advance().window == not_counted {
        lab.write(0, &AlignedBuf::new(1).bytes()[..4096]);
        assert!(Instant::now() < deadline, "it is never believed again");
    }
}

/// Says whether the kernel waits for programs that run.
static WAITS: AtomicBool = AtomicBool::new(true);

fn wait_or_not() -> io::Result<()> {
    match WAITS.load(Ordering::SeqCst) {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

#[test]
fn where_the_kernel_does_not_wait_for_programs_nothing_is_followed() {
    // What they wait with is the same.
    for kind in KINDS {
        where_the_kernel_does_not_wait_for_programs_nothing_is_followed_by(kind);
    }
}

fn where_the_kernel_does_not_wait_for_programs_nothing_is_followed_by(kind: Kind) {
    // Before anything that takes root.
    WAITS.store(false, Ordering::SeqCst);
    let refused = followed(Shown::new().disk(), (kind, None), &[], wait_or_not).map(drop);
    let told = refused.unwrap_err().to_string();
    assert!(
        told.contains("nohz_full") && told.contains("Invalid"),
        "{told}"
    );
    WAITS.store(true, Ordering::SeqCst);
    let Some(mut lab) = Lab::seeing((kind, 16), BOTH, wait_or_not) else {
        return;
    };
    let before = lab.advance().begun;
    WAITS.store(false, Ordering::SeqCst);
    lab.write(BLOCK, &AlignedBuf::new(1).bytes()[..4096]);
    assert!(lab.tracker.advance().is_err());
    WAITS.store(true, Ordering::SeqCst);
    // What was marked meanwhile is in what comes next.
    let advanced = lab.advance();
    assert!(advanced.begun > before.next());
    assert_eq!(lab.marked(before), [1].into());
}

fn where_it_is_not_known_what_is_marked_all_is(kind: Kind) {
    let Some(mut lab) = Lab::new(kind, 16) else {
        return;
    };
    let generation = lab.advance().begun;
    let collect = |lab: &Lab, bytes: Range<u64>, since: Generation| {
        let mut dirty = DirtySet::new(Geometry::new(16 * MIB).unwrap());
        let known = lab.tracker.collect(bytes, since, &mut dirty);
        (known, dirty.len())
    };
    let whole = lab.bytes.clone();
    let (none, all) = ((true, 0), (false, 16 * MIB / BLOCK));
    assert_eq!(collect(&lab, whole.clone(), generation), none);
    // Bytes behind the disk's end, and a generation that may be any.
    assert_eq!(collect(&lab, 512..16 * MIB + 512, generation), all);
    // It ends within a granule.
    let tracker = Tracker::start(Shown::new().disk(), Some(kind)).unwrap();
    for (sectors, expected) in [(4100, true), (4101, false)] {
        let mut dirty = DirtySet::new(Geometry::new(16 * MIB).unwrap());
        let known = tracker.collect(0..sectors * 512, tracker.present, &mut dirty);
        assert_eq!(known, expected);
    }
    for _ in 0..1 << 16 {
        lab.tracker.present = lab.tracker.present.next();
    }
    assert_eq!(collect(&lab, whole, generation), all);
}

#[test]
fn files_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    File::create(&image).unwrap().set_len(MIB).unwrap();
    let refused = Disk::of(&SourceVolume::open(&image).unwrap());
    assert!(
        matches!(refused, Err(NoTracker::NoDevice { .. })),
        "{refused:?}"
    );
}

fn a_tracker_that_is_not_told_of_some_events_is_not_believed(kind: Kind) {
    let write =
        |lab: &Lab, place: u64| lab.write(place * BLOCK, &AlignedBuf::new(1).bytes()[..4096]);
    let windows = |streams: &[Stream]| {
        let mut lab = Lab::seeing((kind, 16), streams, kernel::wait_for_programs)?;
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
    windows: Vec<Window>,
}

impl Copy {
    /// Blocks that were owed, and whether no more can come to be that was written before.
    fn pass(&mut self) -> (u64, bool) {
        let advanced = self.lab.advance();
        self.windows.push(advanced.window);
        let geometry = Geometry::new(self.lab.bytes.end).unwrap();
        let mut dirty = DirtySet::new(geometry);
        match self.follow.collect(&advanced) {
            Owed::All(_) => dirty.mark_all(),
            Owed::Since(since) => {
                let (tracker, bytes) = (&self.lab.tracker, self.lab.bytes.clone());
                assert!(tracker.collect(bytes, since, &mut dirty));
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
        assert!(self.follow.settled(advanced.begun));
        self.read_blocks += owed;
        (owed, advanced.is_still)
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

fn a_copy_that_reads_what_is_marked_alone_is_the_disk(kind: Kind) {
    let Some(lab) = Lab::new(kind, 64) else {
        return;
    };
    let seed = u64::from_le_bytes(lab.tracker.instance().0[..8].try_into().unwrap());
    let path = lab.device.path().to_owned();
    let mut copy = Copy {
        content: vec![0; 64 << 20],
        follow: Follow::new(),
        read_blocks: 0,
        windows: vec![],
        lab,
    };
    let is_over = AtomicBool::new(false);
    let (passes, writes) = thread::scope(|scope| {
        let cached = OpenOptions::new().write(true).open(&path).unwrap();
        let workers = [(direct(&path), 0), (cached, 1)].map(|(file, half)| {
            let is_over = &is_over;
            scope.spawn(move || work(&file, (seed ^ half, half), is_over))
        });
        let passes = (0..8).map(|_| copy.pass());
        let passes = passes.filter(|(owed, _)| *owed > 0).count();
        is_over.store(true, Ordering::Relaxed);
        (passes, workers.map(|worker| worker.join().unwrap()))
    });
    let deadline = Instant::now() + DEADLINE;
    while copy.pass() != (0, true) {
        assert!(Instant::now() < deadline, "{:?}", copy.windows);
    }
    let device = direct(&path);
    let mut buf = AlignedBuf::new(1);
    for (block, held) in copy.content.chunks_exact(BLOCK as usize).enumerate() {
        device
            .read_exact_at(buf.bytes_mut(), block as u64 * BLOCK)
            .unwrap();
        assert!(buf.bytes() == held, "block {block} differs, seed {seed:#x}");
    }
    let whole = copy
        .windows
        .iter()
        .filter(|window| **window == Window::Whole);
    assert!(whole.count() > copy.windows.len() / 2, "{:?}", copy.windows);
    eprintln!(
        "{passes} passes read {} blocks beside {writes:?} writes",
        copy.read_blocks
    );
}

#[test]
fn what_a_full_ring_lost_is_never_whole_and_what_comes_later_is_followed_again() {
    let Some((_folder, device)) = attached(64) else {
        return;
    };
    let (disk, bytes) = found(device.path());
    let by = (Kind::Perf, Some(4096));
    let mut tracker = followed(disk, by, BOTH, kernel::wait_for_programs).unwrap();
    tracker.advance().unwrap();
    let file = direct(device.path());
    let buf = AlignedBuf::new(1);
    let write = |block: u64| {
        let data = &buf.bytes()[..4096];
        file.write_all_at(data, block * BLOCK).unwrap();
    };
    let deadline = Instant::now() + DEADLINE;
    let mut gaps = vec![];
    while !gaps.contains(&Gap::Overflowed) {
        // Its thread may be as fast as we are, where there is much room.
        (0..1000).for_each(write);
        let since = tracker.present;
        let window = tracker.advance().unwrap().window;
        match window {
            Window::Gap(gap) => gaps.push(gap),
            // What one stream lost the other has.
            Window::Whole | Window::Since(_) => {
                assert_eq!(marked(&tracker, bytes.clone(), since), (0..1000).collect());
            }
        }
        assert!(Instant::now() < deadline, "no ring was ever full: {gaps:?}");
    }
    // The kernel says what was lost before the next record of that processor, however late.
    loop {
        let generation = tracker.advance().unwrap().begun;
        write(3);
        if tracker.advance().unwrap().window == Window::Whole {
            assert_eq!(marked(&tracker, bytes, generation), [3].into());
            break;
        }
        assert!(Instant::now() < deadline, "it is never followed again");
    }
}

#[test]
fn by_which_kind_a_disk_is_followed_is_said_and_why() {
    if !may_follow() {
        return;
    }
    let how = |only| {
        let tracker = Tracker::start(Shown::new().disk(), only);
        tracker.unwrap().how().to_owned()
    };
    let best = how(None);
    assert!(
        best == "by a BPF program" || best.contains("a BPF program (from Linux 5.5 on) would"),
        "{best}"
    );
    assert_eq!(how(Some(Kind::Perf)), "by perf events, as was asked for");
}
