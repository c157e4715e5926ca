//! What the kernel shows of its block devices, as files below `/sys/dev/block`
//! (`Documentation/ABI/stable/sysfs-block` of Linux).
//!
//! Not here: what the numbers mean (`device_io`, `tracker`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A line is some 17 numbers.
const MAX_LINE: usize = 1024;

/// Where a device is shown.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The disk that it is, or is a partition of.
    pub(crate) disk: PathBuf,
    /// Where it is a partition.
    pub(crate) partition: Option<PathBuf>,
}

impl Shown {
    /// Finds the device of these numbers below `/sys`, or another folder like it.
    ///
    /// # Errors
    /// Where the kernel shows none.
    pub(crate) fn find(system: &Path, (major, minor): (u32, u32)) -> io::Result<Self> {
        let shown = system.join(format!("dev/block/{major}:{minor}"));
        let shown = shown.canonicalize()?;
        Ok(match shown.parent() {
            Some(disk) if shown.join("partition").exists() => Self {
                disk: disk.to_owned(),
                partition: Some(shown),
            },
            _ => Self {
                disk: shown,
                partition: None,
            },
        })
    }
}

/// The numbers of the device that is shown there.
///
/// # Errors
/// Where none is.
pub(crate) fn number_of(shown: &Path) -> io::Result<(u32, u32)> {
    let file = shown.join("dev");
    let text = fs::read_to_string(&file)?;
    let numbers = text.trim().split_once(':');
    let parsed =
        numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    parsed.ok_or_else(|| io::Error::other(format!("{} has no number of a device", file.display())))
}

/// Whether what a disk does is not counted. Not every one can be asked.
pub(crate) fn is_counting_off(disk: &Path) -> bool {
    let iostats = fs::read_to_string(disk.join("queue/iostats"));
    iostats.is_ok_and(|iostats| iostats.trim() == "0")
}

/// The numbers that an open file has in its line now; none where that is no such line.
///
/// # Errors
/// Where it cannot be read: the device may be gone.
pub(crate) fn read_numbers(file: &File) -> io::Result<Option<Vec<u64>>> {
    let mut line = [0; MAX_LINE];
    let length = file.read_at(&mut line, 0)?;
    Ok(str::from_utf8(&line[..length]).ok().and_then(numbers_of))
}

/// The numbers of a line.
pub(crate) fn numbers_of(line: &str) -> Option<Vec<u64>> {
    let numbers = line.split_ascii_whitespace().map(str::parse);
    numbers.collect::<Result<_, _>>().ok()
}
