//! Which disk of the kernel a volume is, or is a part of, and what the kernel counts of it.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use blocks::tracking::counting::Count;
use rustix::fs::{major, minor};

use super::NoTracker;
use crate::{SourceIdentity, SourceVolume};

/// Where the kernel shows block devices by their numbers.
const DEVICES: &str = "/sys/dev/block";

const SECTOR_BYTES: u64 = 512;

/// The line is some 17 numbers.
const MAX_LINE: usize = 1024;

/// A whole disk, whose events bear its number.
#[derive(Debug)]
pub struct Disk {
    shown: PathBuf,
    device: u32,
    sectors: u64,
    gathers_discards: bool,
    stat: File,
}

/// What the kernel had counted of a disk at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    /// Sectors written and discarded.
    pub(super) sectors: u64,
    pub(super) discards: u64,
    pub(super) in_flight: u64,
}

impl Disk {
    /// The disk of a volume, and the bytes of that which the volume is.
    ///
    /// # Errors
    /// Where it is none, or one whose events cannot be told by its number.
    pub fn of(volume: &SourceVolume) -> Result<(Self, Range<u64>), NoTracker> {
        let path = volume.path();
        let SourceIdentity::Device { number } = volume.identity() else {
            return Err(NoTracker::NoDevice {
                path: path.to_owned(),
            });
        };
        let failed = |source| NoTracker::Disk {
            path: path.to_owned(),
            source,
        };
        let numbers = format!("{}:{}", major(number), minor(number));
        let shown = Path::new(DEVICES).join(numbers).canonicalize();
        let shown = shown.map_err(failed)?;
        let (disk, start) = match (shown.join("partition").exists(), shown.parent()) {
            (true, Some(disk)) => {
                let start: u64 = number_in(&shown.join("start")).map_err(failed)?;
                (disk.to_owned(), start * SECTOR_BYTES)
            }
            _ => (shown, 0),
        };
        if let Some(why) = untold(&disk) {
            return Err(NoTracker::Stacked {
                path: path.to_owned(),
                why,
            });
        }
        let found = Self::shown(disk).map_err(failed)?;
        Ok((found, start..start + volume.geometry().length()))
    }

    fn shown(shown: PathBuf) -> io::Result<Self> {
        let numbers = fs::read_to_string(shown.join("dev"))?;
        let numbers = numbers.trim().split_once(':');
        let parsed = numbers.and_then(|(a, b)| Some((a.parse::<u32>().ok()?, b.parse().ok()?)));
        let (major, minor): (u32, u32) = parsed.ok_or_else(|| no_number(&shown.join("dev")))?;
        let segments = number_in(&shown.join("queue/max_discard_segments")).unwrap_or(1);
        Ok(Self {
            // As events have it: `MKDEV` of linux/kdev_t.h.
            device: major << 20 | minor,
            sectors: number_in(&shown.join("size"))?,
            gathers_discards: segments > 1,
            stat: File::open(shown.join("stat"))?,
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

    pub(super) fn gathers_discards(&self) -> bool {
        self.gathers_discards
    }

    /// What it counted until now.
    pub(super) fn counted(&self) -> io::Result<Counted> {
        let mut line = [0; MAX_LINE];
        let length = self.stat.read_at(&mut line, 0)?;
        let line = String::from_utf8_lossy(&line[..length]);
        let numbers: Option<Vec<u64>> = line.split_whitespace().map(|n| n.parse().ok()).collect();
        let stat = || no_number(&self.shown.join("stat"));
        let numbers = numbers
            .filter(|numbers| numbers.len() >= 11)
            .ok_or_else(stat)?;
        // Kernels before 4.18 count discards as writes.
        let discarded = |field: usize| numbers.get(field).copied().unwrap_or(0);
        Ok(Counted {
            sectors: numbers[6] + discarded(13),
            discards: discarded(11),
            in_flight: numbers[8],
        })
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

/// Why the events of a disk do not bear its number, where they do not.
fn untold(disk: &Path) -> Option<&'static str> {
    let lower = fs::read_dir(disk.join("slaves")).into_iter().flatten();
    if lower.flatten().next().is_some() {
        return Some("it lies on other devices");
    }
    let name = disk.file_name()?.to_string_lossy().into_owned();
    if disk.join("multipath").exists() || fs::exists(disk.join("nvme-subsystem")).is_ok_and(|is| is)
    {
        return Some("there are several ways to it");
    }
    let has_no_requests = [
        "zram", "pmem", "nd", "drbd", "bcache", "md", "dm-", "ram", "rbd",
    ];
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
