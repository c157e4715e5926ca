//! Where the files of a bench are: what file system, whether it is a disk, how much room
//! it has, and what of a file is in memory.
//!
//! Not here: what is in the files (`disks`).

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise, fsync, statvfs};
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// File systems whose files are nowhere but in memory.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// A folder, and what it lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    /// As the kernel names it.
    pub(super) file_system: String,
    /// What was mounted.
    pub(super) device: String,
}

impl Place {
    /// Looks at a folder that is there.
    pub(super) fn look(folder: &Path) -> Result<Self> {
        let seen = || format!("looking at {}", folder.display());
        let folder = fs::canonicalize(folder).with_context(seen)?;
        let mounts = fs::read_to_string("/proc/self/mounts").with_context(seen)?;
        Self::among(&mounts, folder)
    }

    /// The one of these mounts that a folder lies on: the last of the deepest.
    fn among(mounts: &str, folder: PathBuf) -> Result<Self> {
        let mount = |line: &str| {
            let mut fields = line.split(' ');
            let device = fields.next()?.to_owned();
            // Blanks and the like are written as three octal digits.
            let point = PathBuf::from(fields.next()?.replace("\\040", " "));
            let depth = point.components().count();
            let is_above = folder.starts_with(&point);
            is_above.then_some((depth, device, fields.next()?.to_owned()))
        };
        let mounts = mounts.lines().filter_map(mount);
        let (_, device, file_system) = mounts
            .max_by_key(|(depth, ..)| *depth)
            .with_context(|| format!("nothing is mounted above {}", folder.display()))?;
        Ok(Self {
            folder,
            file_system,
            device,
        })
    }

    pub(super) fn is_in_memory(&self) -> bool {
        IN_MEMORY.contains(&self.file_system.as_str())
    }

    /// Bytes that fit in.
    pub(super) fn room(&self) -> Result<u64> {
        let found = statvfs(&self.folder);
        let found = found.with_context(|| format!("looking at {}", self.folder.display()))?;
        Ok(found.f_bavail * found.f_frsize)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_in_memory() {
            "in memory"
        } else {
            "disk"
        };
        let (folder, file_system) = (self.folder.display(), &self.file_system);
        write!(f, "{folder} ({file_system} on {}, {kind})", self.device)
    }
}

/// Has a file on its disk and nothing of it in memory, so that who reads it next reads
/// the disk. Files that are nowhere but in memory stay as they are.
pub(super) fn cool(path: &Path) -> Result<()> {
    let cooled = File::open(path).and_then(|file| {
        fsync(&file)?;
        Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
    });
    cooled.with_context(|| format!("putting {} out of memory", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MOUNTS: &str = "\
/dev/vda / ext4 rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
/dev/vdb /srv/my\\040disk xfs rw 0 0
tmpfs /srv tmpfs rw 0 0
/dev/vdc /srv btrfs rw 0 0
";

    #[test]
    fn the_file_system_is_that_of_the_deepest_mount_and_of_several_the_last() {
        let at = |folder: &str| Place::among(MOUNTS, folder.into()).unwrap();
        assert_eq!(at("/home").file_system, "ext4");
        assert_eq!(at("/dev/shm/x").file_system, "tmpfs");
        assert_eq!(at("/dev/shmx").file_system, "ext4");
        assert_eq!(at("/srv/my disk/x").device, "/dev/vdb");
        assert_eq!(at("/srv/x").device, "/dev/vdc");
    }

    #[test]
    fn a_place_says_whether_it_is_a_disk() {
        let at = |folder: &str| Place::among(MOUNTS, folder.into()).unwrap().to_string();
        assert_eq!(at("/home"), "/home (ext4 on /dev/vda, disk)");
        assert_eq!(at("/dev/shm"), "/dev/shm (tmpfs on tmpfs, in memory)");
    }

    /// What this process had read from disks so far.
    fn read_bytes() -> u64 {
        let io = fs::read_to_string("/proc/self/io").unwrap();
        let line = io
            .lines()
            .find_map(|line| line.strip_prefix("read_bytes: "));
        line.unwrap().parse().unwrap()
    }

    #[test]
    fn a_cooled_file_is_read_from_its_disk() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let place = Place::look(folder.path()).unwrap();
        if !["ext4", "xfs"].contains(&place.file_system.as_str()) {
            eprintln!("skipped: {place} may not count what is read");
            return;
        }
        let path = folder.path().join("file");
        fs::write(&path, vec![7; 8 << 20]).unwrap();
        cool(&path).unwrap();
        let before = read_bytes();
        assert_eq!(fs::read(&path).unwrap().len(), 8 << 20);
        assert!(read_bytes() - before >= 8 << 20);
    }
}
