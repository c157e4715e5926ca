//! Which disk of the kernel a volume is, or is a part of, and what the kernel counts of it.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use blocks::tracking::counting::Count;
use rustix::fs::{major, minor};

use super::NoTracker;
use crate::sysfs::{self, Shown};
use crate::{SourceIdentity, SourceVolume};

/// Where the kernel shows its devices.
const SYSTEM: &str = "/sys";

const SECTOR_BYTES: u64 = 512;

/// A whole disk, whose events bear its number.
#[derive(Debug)]
pub struct Disk {
    shown: PathBuf,
    device: u32,
    sectors: u64,
    gathers_discards: bool,
    stat: File,
    /// What is under way: reads, and writes.
    inflight: File,
}

/// What the kernel had counted of a disk at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    /// Sectors written and discarded.
    pub(super) sectors: u64,
    pub(super) discards: u64,
}

/// Why there is no disk for a device.
#[derive(Debug)]
pub(super) enum NoDisk {
    /// What the kernel shows could not be read.
    Unread(io::Error),
    /// It is not one that can be followed.
    Unfit(&'static str),
}

impl From<io::Error> for NoDisk {
    fn from(error: io::Error) -> Self {
        Self::Unread(error)
    }
}

impl Disk {
    /// The disk of a volume, and the bytes of that which the volume is.
    ///
    /// # Errors
    /// Where it is none, or one whose events cannot be told by its number.
    pub fn of(volume: &SourceVolume) -> Result<(Self, Range<u64>), NoTracker> {
        let path = volume.path().to_owned();
        let SourceIdentity::Device { number } = volume.identity() else {
            return Err(NoTracker::NoDevice { path });
        };
        let found = Self::shown_in(Path::new(SYSTEM), (major(number), minor(number)));
        let (disk, start) = found.map_err(|none| match none {
            NoDisk::Unread(source) => NoTracker::Disk {
                path: path.clone(),
                source,
            },
            NoDisk::Unfit(why) => NoTracker::Unfit {
                path: path.clone(),
                why,
            },
        })?;
        Ok((disk, start..start + volume.geometry().length()))
    }

    /// The disk of a device of this number, and the byte of it with which the device begins,
    /// as they are shown below a folder.
    pub(super) fn shown_in(system: &Path, numbers: (u32, u32)) -> Result<(Self, u64), NoDisk> {
        let system = system.canonicalize()?;
        let Shown { disk, partition } = Shown::find(&system, numbers)?;
        let start = match partition {
            Some(partition) => number_in(&partition.join("start"))? * SECTOR_BYTES,
            None => 0,
        };
        if let Some(why) = unfit(&disk, &system) {
            return Err(NoDisk::Unfit(why));
        }
        let disk = Self::shown(disk)?;
        match disk.is_counted() {
            true => Ok((disk, start)),
            false => Err(NoDisk::Unfit(
                "the kernel does not count what it does (its queue/iostats is 0)",
            )),
        }
    }

    fn shown(shown: PathBuf) -> io::Result<Self> {
        let (major, minor) = sysfs::number_of(&shown)?;
        let segments = number_in(&shown.join("queue/max_discard_segments")).unwrap_or(1);
        Ok(Self {
            // As events have it: `MKDEV` of linux/kdev_t.h.
            device: major << 20 | minor,
            sectors: number_in(&shown.join("size"))?,
            gathers_discards: segments > 1,
            stat: File::open(shown.join("stat"))?,
            inflight: File::open(shown.join("inflight"))?,
            shown,
        })
    }

    /// Where the kernel shows it.
    pub fn path(&self) -> &Path {
        &self.shown
    }

    pub(super) fn device(&self) -> u32 {
        self.device
    }

    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// In bytes.
    pub(super) fn length(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR_BYTES)
    }

    pub(super) fn gathers_discards(&self) -> bool {
        self.gathers_discards
    }

    /// Whether it counts.
    pub(super) fn is_counted(&self) -> bool {
        !sysfs::is_counting_off(&self.shown)
    }

    /// What it counted until now.
    pub(super) fn counted(&self) -> io::Result<Counted> {
        let numbers = self.numbers(&self.stat, "stat", 11)?;
        // Kernels before 4.18 count discards as writes.
        let discarded = |field: usize| numbers.get(field).copied().unwrap_or(0);
        Ok(Counted {
            sectors: numbers[6] + discarded(13),
            discards: discarded(11),
        })
    }

    /// Writes and discards that it has begun and not done. While it reads, `stat` says that
    /// something is under way.
    pub(super) fn writes_under_way(&self) -> io::Result<u64> {
        Ok(self.numbers(&self.inflight, "inflight", 2)?[1])
    }

    /// At least so many numbers, which a file of this name has in its line.
    fn numbers(&self, file: &File, name: &str, least: usize) -> io::Result<Vec<u64>> {
        sysfs::read_numbers(file)?
            .filter(|numbers| numbers.len() >= least)
            .ok_or_else(|| no_number(&self.shown.join(name)))
    }
}

/// A sum of the tracker's between two readings of what the disk counted.
pub(super) fn between(before: Counted, seen: u64, after: Counted) -> Count {
    Count {
        before: before.sectors,
        seen,
        after: after.sectors,
    }
}

/// Why a disk cannot be followed, where it cannot: mostly since its events do not bear its
/// number.
fn unfit(disk: &Path, system: &Path) -> Option<&'static str> {
    let lower = fs::read_dir(disk.join("slaves")).into_iter().flatten();
    if lower.flatten().next().is_some() {
        return Some("it lies on other devices");
    }
    // NVMe shows a disk to which there may be several ways below its subsystem; kernels from
    // 6.15 on list them, too.
    let below = disk.strip_prefix(system).unwrap_or(disk);
    let is_head = below.components().any(|part| {
        let part = part.as_os_str();
        part == "nvme-subsystem"
    });
    if is_head || disk.join("multipath").exists() {
        return Some("there are several ways to it");
    }
    // A reset of a zone changes what is read, and is neither a write nor a discard.
    let zoned = fs::read_to_string(disk.join("queue/zoned"));
    if zoned.is_ok_and(|zoned| zoned.trim() != "none") {
        return Some("it is divided into zones");
    }
    let has_no_requests = [
        "zram", "pmem", "nd", "drbd", "bcache", "md", "dm-", "ram", "rbd",
    ];
    let name = disk.file_name()?.to_string_lossy();
    let is_one = has_no_requests
        .iter()
        .any(|prefix| name.starts_with(prefix));
    is_one.then_some("its driver has no requests that could be followed")
}

fn number_in(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| no_number(path))
}

fn no_number(path: &Path) -> io::Error {
    let text = format!(
        "{} does not hold the numbers that it should",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A tree as the kernel shows it, with one disk at this place of `devices` and a
    /// partition of it.
    fn tree(at: &str) -> (TempDir, PathBuf) {
        let system = tempfile::tempdir().unwrap();
        let disk = system.path().join("devices").join(at);
        let part = disk.join("part1");
        let numbers = system.path().join("dev/block");
        for folder in [&disk.join("queue"), &disk.join("slaves"), &part, &numbers] {
            fs::create_dir_all(folder).unwrap();
        }
        for (file, text) in [
            ("dev", "8:16\n"),
            ("size", "4096\n"),
            ("stat", "1 0 8 0 2 0 16 0 3 0 0 4 0 24 0 0 0\n"),
            ("inflight", "       5        3\n"),
            ("queue/iostats", "1\n"),
            ("queue/zoned", "none\n"),
            ("queue/max_discard_segments", "256\n"),
            ("part1/partition", "1\n"),
            ("part1/start", "2048\n"),
        ] {
            fs::write(disk.join(file), text).unwrap();
        }
        let target = format!("../../devices/{at}");
        symlink(&target, numbers.join("8:16")).unwrap();
        symlink(format!("{target}/part1"), numbers.join("8:17")).unwrap();
        (system, disk)
    }

    fn found(system: &TempDir) -> Result<(Disk, u64), NoDisk> {
        Disk::shown_in(system.path(), (8, 17))
    }

    const PLAIN: &str = "pci0000:00/host0/block/sdb";

    #[test]
    fn a_disk_and_a_partition_of_it_are_found_by_their_numbers() {
        let (system, shown) = tree(PLAIN);
        for (minor, start) in [(16, 0), (17, 1 << 20)] {
            let (disk, found) = Disk::shown_in(system.path(), (8, minor)).unwrap();
            assert_eq!((disk.device(), found), (8 << 20 | 16, start));
            assert_eq!((disk.sectors(), disk.path()), (4096, shown.as_path()));
            assert!(disk.gathers_discards());
            let counted = Counted {
                sectors: 16 + 24,
                discards: 4,
            };
            assert_eq!(disk.writes_under_way().unwrap(), 3);
            assert_eq!(disk.counted().unwrap(), counted);
        }
        let none = Disk::shown_in(system.path(), (8, 99));
        assert!(matches!(none, Err(NoDisk::Unread(_))), "{none:?}");
    }

    #[test]
    fn a_disk_whose_events_do_not_say_what_changes_on_it_is_not_followed() {
        type Change = fn(&Path);
        let changes: [(&str, Change, &str); 4] = [
            (
                PLAIN,
                |disk| fs::create_dir(disk.join("slaves/sda")).unwrap(),
                "other devices",
            ),
            (
                PLAIN,
                |disk| fs::create_dir(disk.join("multipath")).unwrap(),
                "several ways",
            ),
            (
                PLAIN,
                |disk| fs::write(disk.join("queue/zoned"), "host-managed\n").unwrap(),
                "zones",
            ),
            (
                PLAIN,
                |disk| fs::write(disk.join("queue/iostats"), "0\n").unwrap(),
                "iostats",
            ),
        ];
        let nothing: Change = |_| {};
        let places = [
            (
                "virtual/nvme-subsystem/nvme-subsys0/nvme0n1",
                "several ways",
            ),
            ("virtual/block/zram0", "no requests"),
            ("virtual/block/dm-3", "no requests"),
            ("virtual/block/md127", "no requests"),
            ("virtual/block/bcache0", "no requests"),
            ("virtual/block/rbd1", "no requests"),
            ("virtual/block/pmem0", "no requests"),
        ];
        let places = places.map(|(at, why)| (at, nothing, why));
        for (at, change, expected) in changes.into_iter().chain(places) {
            let (system, disk) = tree(at);
            change(&disk);
            match found(&system) {
                Err(NoDisk::Unfit(why)) => assert!(why.contains(expected), "{at}: {why}"),
                other => panic!("{at}: {other:?}"),
            }
        }
        for at in [
            PLAIN,
            "pci0000:00/nvme/nvme0/nvme0n1",
            "virtual/block/loop0",
        ] {
            assert!(found(&tree(at).0).is_ok(), "{at}");
        }
        // What an older kernel does not say is not held against it.
        let (system, disk) = tree(PLAIN);
        fs::remove_dir_all(disk.join("queue")).unwrap();
        assert!(found(&system).is_ok());
    }
}
