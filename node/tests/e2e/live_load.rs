//! A mounted file system under load on a block device, migrated while it is written to
//! and cut over while it is frozen.
//!
//! Needs root, loop devices and a few programs; says what is missing and does nothing
//! otherwise.

use crate::harness::{Lab, eventually, is_root};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const TEST: &str = "a migration under live load";
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
const DISK_MIB: u64 = 128;
/// Passes after the first that must have found something new.
const BUSY_PASSES: usize = 2;

/// Runs a program to its end and gives what it printed, or fails the test with it.
fn run(program: &str, args: &[&str]) -> String {
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

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A loop device over a file; detached when dropped.
struct Loop {
    device: PathBuf,
}

impl Loop {
    fn attach(file: &Path) -> Option<Self> {
        let made = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(file)
            .output()
            .unwrap();
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr);
            eprintln!("skipped: {TEST} needs a loop device: {why}");
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
struct Mount {
    folder: PathBuf,
}

impl Mount {
    fn new(device: &Path, folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        run("mount", &[text(device), text(&folder)]);
        Self { folder }
    }

    fn freeze(&self) {
        run("fsfreeze", &["-f", text(&self.folder)]);
    }

    fn thaw(&self) {
        run("fsfreeze", &["-u", text(&self.folder)]);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        try_run("fsfreeze", &["-u", text(&self.folder)]);
        try_run("umount", &[text(&self.folder)]);
    }
}

/// Random writes that are read back and verified as they go; killed when dropped.
struct Load {
    fio: Child,
}

impl Load {
    fn start(folder: &Path) -> Self {
        let fio = Command::new("fio")
            .args(["--name=load", "--rw=randwrite", "--bsrange=4k-64k"])
            .args(["--size=32m", "--ioengine=psync", "--fsync=64"])
            .args(["--verify=crc32c", "--verify_backlog=64", "--verify_fatal=1"])
            .args(["--time_based", "--runtime=300", "--rate_iops=400"])
            .arg("--verify_state_save=0")
            .arg(format!("--directory={}", folder.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { fio }
    }

    /// Ends the load in good order.
    fn stop(&mut self) {
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
        let _ = self.fio.wait();
    }
}

fn has_tools() -> bool {
    let runs = |tool: &&str| Command::new(tool).arg("-V").output().is_ok();
    let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !runs(tool)).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {TEST} needs {}", missing.join(", "));
    }
    missing.is_empty()
}

/// How many passes after the first found something new.
fn busy_passes(view: &Value) -> usize {
    let passes = view["volumes"][0]["passes"].as_array().unwrap();
    let later = passes.iter().skip(1);
    later
        .filter(|pass| pass["blocks"].as_u64() > Some(0))
        .count()
}

#[test]
fn a_file_system_under_load_is_migrated_and_clean_when_frozen_for_the_cutover() {
    if !is_root(TEST) || !has_tools() {
        return;
    }
    let lab = Lab::new();
    let image = lab.path("disk.img");
    fs::File::create(&image)
        .unwrap()
        .set_len(DISK_MIB << 20)
        .unwrap();
    let Some(disk) = Loop::attach(&image) else {
        return;
    };
    run("mkfs.ext4", &["-q", text(&disk.device)]);
    let mount = Mount::new(&disk.device, lab.path("mnt"));
    let mut load = Load::start(&mount.folder);

    let mesh = lab.mesh_of_three();
    mesh.plan(&disk.device);
    mesh.act("start");
    mesh.until("passes under load", |view| busy_passes(view) >= BUSY_PASSES);
    load.stop();
    mount.freeze();
    // What is on the disk. Read through the page cache, the device also shows what the
    // file system has changed in memory alone.
    let copy = mesh.cut_over(&image);

    let checked = run("e2fsck", &["-fn", text(&copy)]);
    assert!(!checked.contains("recover"), "{checked}");
    assert!(
        fs::read(&image).unwrap() == fs::read(&copy).unwrap(),
        "the frozen device differs from its copy"
    );
    let verify = mesh.operator.run(&["verify", "m"]).ok();
    for end in ["source", "target"] {
        let proof = &verify["volumes"][0][end];
        let printed = run("sh", &["-c", proof["command"].as_str().unwrap()]);
        assert_eq!(proof["root"], printed.trim(), "{proof:#}");
    }
    mount.thaw();
}
