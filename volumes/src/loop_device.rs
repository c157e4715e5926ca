//! A loop device for the tests that need a block device; only root has them.

use std::path::{Path, PathBuf};
use std::process::Command;

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
