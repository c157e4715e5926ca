//! What a block device lies on, as the kernel shows it below `/sys`: a partition on its
//! disk, a device of LVM, RAID or dm-crypt on others, a loop device on a file.
//!
//! Not here: what is mounted.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Number;
use crate::sysfs::{self, Shown};

/// What is directly below a device.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Below {
    /// It is a disk.
    Nothing,
    /// Others.
    Devices(Vec<Number>),
    /// A file, where the kernel says it is.
    File(PathBuf),
}

/// Looks below a device.
pub(super) fn below(system: &Path, device: Number) -> io::Result<Below> {
    let Shown { disk, partition } = Shown::find(system, device)?;
    if partition.is_some() {
        return Ok(Below::Devices(vec![sysfs::number_of(&disk)?]));
    }
    let lower = fs::read_dir(disk.join("slaves")).into_iter().flatten();
    let lower: Vec<Number> = lower
        .map(|entry| sysfs::number_of(&entry?.path()))
        .collect::<io::Result<_>>()?;
    if !lower.is_empty() {
        return Ok(Below::Devices(lower));
    }
    // There is none where nothing is attached.
    match fs::read_to_string(disk.join("loop/backing_file")) {
        Ok(file) => Ok(Below::File(file.trim_end_matches('\n').into())),
        Err(_) => Ok(Below::Nothing),
    }
}

/// A device and its partitions, by the names that the kernel has for them.
pub(super) fn with_partitions(system: &Path, device: Number) -> io::Result<Vec<PathBuf>> {
    let Shown { disk, partition } = Shown::find(system, device)?;
    let mut shown = vec![];
    match partition {
        Some(partition) => shown.push(partition),
        None => {
            let parts = fs::read_dir(&disk)?.flatten().map(|entry| entry.path());
            shown.extend(parts.filter(|part| part.join("partition").exists()));
            shown.push(disk);
        }
    }
    Ok(shown.iter().map(|shown| named(shown)).collect())
}

/// Where devtmpfs has a device that is shown there.
fn named(shown: &Path) -> PathBuf {
    // What is a slash in a name is `!` in those of folders.
    let name = shown.file_name().unwrap_or_default().to_string_lossy();
    Path::new("/dev").join(name.replace('!', "/"))
}

/// Where devtmpfs has a device, or its number where it is not shown.
pub(super) fn name(system: &Path, (major, minor): Number) -> PathBuf {
    match Shown::find(system, (major, minor)) {
        Ok(Shown { disk, partition }) => named(&partition.unwrap_or(disk)),
        Err(_) => format!("/dev/block/{major}:{minor}").into(),
    }
}

/// The devices of the `btrfs` that one of them is a part of.
pub(super) fn btrfs_devices(system: &Path, one: Number) -> io::Result<BTreeSet<Number>> {
    for entry in fs::read_dir(system.join("fs/btrfs"))? {
        let Ok(devices) = fs::read_dir(entry?.path().join("devices")) else {
            // `features` is no file system.
            continue;
        };
        let devices: BTreeSet<Number> = devices
            .map(|device| sysfs::number_of(&device?.path()))
            .collect::<io::Result<_>>()?;
        if devices.contains(&one) {
            return Ok(devices);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Devices that file systems are on which the kernel shows by those, mounted or not yet
/// let go of; with their kinds.
pub(super) fn in_use(system: &Path) -> Vec<(&'static str, Number)> {
    let mut found = vec![];
    for kind in ["ext4", "xfs", "f2fs"] {
        let entries = fs::read_dir(system.join("fs").join(kind)).into_iter();
        let names = entries.flatten().flatten().map(|entry| entry.file_name());
        let devices = names.map(|name| system.join("class/block").join(name));
        // `features` and the like are no devices.
        found.extend(devices.filter_map(|shown| Some((kind, sysfs::number_of(&shown).ok()?))));
    }
    found
}

/// Whether a device is memory that is written without the kernel's block layer.
pub(super) fn is_memory(system: &Path, device: Number) -> bool {
    let shown = Shown::find(system, device);
    let dax = shown.and_then(|shown| fs::read_to_string(shown.disk.join("queue/dax")));
    dax.is_ok_and(|dax| dax.trim() == "1")
}
