//! Loop devices, and partitions of them, for the tests that need block devices; only root
//! has them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::RwLock;

/// Who mounts something shares it; who makes a namespace, which takes up all that is mounted
/// just then and holds it, has it alone.
pub(crate) static MOUNTS: RwLock<()> = RwLock::new(());

/// Detached when dropped.
pub(crate) struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches a file, or says on stderr why the test is skipped.
    pub(crate) fn attach(file: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: loop devices need root");
            return None;
        }
        let made = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(file)
            .output();
        match made {
            Ok(output) if output.status.success() => {
                let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                Some(Self { path: name.into() })
            }
            failed => {
                eprintln!("skipped: losetup does not work here: {failed:?}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the device take over the file's present length.
    pub(crate) fn resize(&self) {
        let status = Command::new("losetup").arg("-c").arg(&self.path).status();
        assert!(status.expect("losetup worked before").success());
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}

/// The first partition of a disk, for as long as it is there.
pub(crate) struct Partition(PathBuf);

impl Partition {
    /// One of so many sectors; a word on stderr where there can be none.
    pub(crate) fn add(disk: &Path, first: u64, sectors: u64) -> Option<Self> {
        let partition = Self(disk.to_owned());
        // A run that was killed leaves one, which stays with the number of the disk.
        partition.delete();
        let arguments = ["1", &first.to_string(), &sectors.to_string()];
        let added = Command::new("addpart").arg(disk).args(arguments).output();
        match added {
            Ok(output) if output.status.success() => Some(partition),
            failed => {
                eprintln!("skipped: no partition can be added to a loop device here: {failed:?}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        format!("{}p1", self.0.display()).into()
    }

    fn delete(&self) {
        let _ = Command::new("delpart").arg(&self.0).arg("1").output();
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        self.delete();
    }
}
