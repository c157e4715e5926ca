//! What the path of an offered disk says: a name for it, and whether the node's own
//! folder is on it, or it in that folder.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Whether a file, named without links, is in `folder`. One that cannot be looked at
/// holds everything: nothing is offered by mistake.
pub(super) fn is_inside(real: &Path, folder: &Path) -> bool {
    std::fs::canonicalize(folder).map_or(true, |folder| real.starts_with(folder))
}

/// Whether `folder` lies on the block device `device` or on a partition of it, as far
/// as sysfs tells; what is stacked on top (LVM, MD) is not followed.
pub(super) fn device_holds(device: &Path, folder: &Path) -> bool {
    let sysfs = |number: u64| {
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()
    };
    let (Ok(device), Ok(folder)) = (std::fs::metadata(device), std::fs::metadata(folder)) else {
        return false;
    };
    if !device.file_type().is_block_device() {
        return false;
    }
    match (sysfs(device.rdev()), sysfs(folder.dev())) {
        (Some(device), Some(holds)) => holds.starts_with(device),
        _ => false,
    }
}

/// A name made from a path's last part.
pub(super) fn default_name(path: &Path) -> String {
    let stem = path.file_name().unwrap_or_default().to_string_lossy();
    let kept: String = stem
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    if kept.is_empty() { "disk".into() } else { kept }
}
