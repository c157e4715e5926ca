//! Disks that tests make of files, with file systems that are written to.
//!
//! Needs root, loop devices and a few programs.

use crate::harness::eventually;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const TOOLS: [&str; 8] = [
    "b3sum",
    "losetup",
    "mkfs.ext4",
    "mount",
    "umount",
    "fsfreeze",
    "fio",
    "e2fsck",
];

/// Runs a program to its end and gives what it printed, or fails the test with it.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {args:?}: {stdout}{stderr}"
    );
    stdout
}

/// Runs a program while something is cleaned up: nothing is left to do about a failure.
fn try_run(program: &str, args: &[&str]) {
    let _ = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A loop device over a file; detached when dropped.
pub struct Loop {
    pub device: PathBuf,
}

impl Loop {
    /// None, and it is said for which test, where there is none.
    pub fn attach(file: &Path, test: &str) -> Option<Self> {
        let made = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(file)
            .output()
            .unwrap();
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr);
            eprintln!("skipped: {test} needs a loop device: {why}");
            return None;
        }
        let device = String::from_utf8(made.stdout).unwrap().trim().into();
        Some(Self { device })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        try_run("losetup", &["-d", text(&self.device)]);
    }
}

/// A mounted file system; thawed and unmounted when dropped.
pub struct Mount {
    pub folder: PathBuf,
}

impl Mount {
    pub fn new(device: &Path, folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        run("mount", &[text(device), text(&folder)]);
        Self { folder }
    }

    pub fn freeze(&self) {
        run("fsfreeze", &["-f", text(&self.folder)]);
    }

    pub fn thaw(&self) {
        run("fsfreeze", &["-u", text(&self.folder)]);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        try_run("fsfreeze", &["-u", text(&self.folder)]);
        // What a test that failed left open ends with it.
        try_run("umount", &["-l", text(&self.folder)]);
    }
}

/// Random writes that are read back and verified as they go; killed when dropped.
pub struct Load {
    fio: Child,
    folder: PathBuf,
}

impl Load {
    pub fn start(folder: &Path) -> Self {
        let writes = ["--bsrange=4k-64k", "--size=32m", "--rate_iops=400"];
        let verified = ["--verify=crc32c", "--verify_backlog=64", "--verify_fatal=1"];
        let args = [&writes[..], &verified, &["--fsync=64"]].concat();
        Self::with(folder, &args)
    }

    /// Random writes as these arguments of fio have them.
    pub fn with(folder: &Path, args: &[&str]) -> Self {
        let fio = Command::new("fio")
            .args([
                "--name=load",
                "--rw=randwrite",
                "--ioengine=psync",
                "--thread",
            ])
            .args(["--time_based", "--runtime=300", "--verify_state_save=0"])
            .args(args)
            .arg(format!("--directory={}", folder.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let folder = folder.to_owned();
        Self { fio, folder }
    }

    /// Ends the load in good order.
    pub fn stop(&mut self) {
        let running = self.fio.try_wait().unwrap().is_none();
        assert!(running, "fio ended by itself: a verification failed");
        let pid = rustix::process::Pid::from_child(&self.fio);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        eventually("fio ends", || self.fio.try_wait().unwrap());
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.fio.kill();
        // What waits for a frozen disk ends no sooner.
        try_run("fsfreeze", &["-u", text(&self.folder)]);
        let _ = self.fio.wait();
    }
}

/// Whether the programs are there; says for which test one is missing.
pub fn has_tools(test: &str) -> bool {
    let runs = |tool: &&str| Command::new(tool).arg("-V").output().is_ok();
    let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !runs(tool)).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {test} needs {}", missing.join(", "));
    }
    missing.is_empty()
}
