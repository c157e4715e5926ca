//! On loop devices: what lies on them is found, is quiet while it is frozen, and is let go in
//! whatever way that ends. Root alone has them.
#![allow(clippy::unwrap_used)]

mod ends;
mod finding;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{PoisonError, RwLockReadGuard};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::loop_device::{LoopDevice, MOUNTS};

const MIB: u64 = 1 << 20;

/// How long a condition is waited for.
const DEADLINE: Duration = Duration::from_secs(120);

/// A write that takes as long as this waits for something.
const HELD: Duration = Duration::from_millis(300);

/// Long after any of these tests.
const LATE: Duration = Duration::from_secs(600);

/// A file system that is mounted; thawed and unmounted when dropped.
struct Volume {
    at: PathBuf,
    device: PathBuf,
    /// Held until it is unmounted.
    under: Option<LoopDevice>,
}

impl Volume {
    /// On a new loop device over a file in `folder`; a word on stderr where there is none.
    fn new(folder: &Path, name: &str, kind: &str) -> Option<Self> {
        let device = attached(folder, name)?;
        let mut made = Self::on(device.path(), folder, name, kind)?;
        made.under = Some(device);
        Some(made)
    }

    /// On a device that is there.
    fn on(device: &Path, folder: &Path, name: &str, kind: &str) -> Option<Self> {
        let quiet = match kind {
            "ext4" => "-qF",
            _ => "-qf",
        };
        run(
            &format!("mkfs.{kind}"),
            &[quiet.as_ref(), device.as_os_str()],
        )?;
        Self::mount(device, &folder.join(format!("{name} at")), &[])
    }

    fn mount(what: &Path, at: &Path, options: &[&str]) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mut arguments: Vec<_> = options.iter().map(AsRef::as_ref).collect();
        arguments.extend([what.as_os_str(), at.as_os_str()]);
        run("mount", &arguments)?;
        Some(Self {
            at: at.to_owned(),
            device: what.to_owned(),
            under: None,
        })
    }

    /// What a `Mounted` of it has.
    fn is(&self, mounted: &Mounted) -> bool {
        mounted.source == self.device
    }

    /// Begins to write a file and says when that is durable.
    fn write(&self, name: &str) -> Receiver<()> {
        let (done, told) = channel();
        let path = self.at.join(name);
        thread::spawn(move || {
            let mut file = File::create(path).unwrap();
            file.write_all(&[7; 5000]).unwrap();
            file.sync_all().unwrap();
            // Or it could not be unmounted yet.
            drop(file);
            // The test may have failed.
            let _ = done.send(());
        });
        told
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // It is, in tests that fail.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.at).output();
        // Where something of it is open still, it goes when that is closed.
        let unmounted = Command::new("umount").arg(&self.at).output();
        if !unmounted.is_ok_and(|output| output.status.success()) {
            let _ = Command::new("umount").arg("-l").arg(&self.at).output();
        }
    }
}

/// A loop device over a sparse file of a size that each kind of file system takes.
fn attached(folder: &Path, name: &str) -> Option<LoopDevice> {
    let image = folder.join(name);
    File::create(&image).unwrap().set_len(320 * MIB).unwrap();
    LoopDevice::attach(&image)
}

/// Runs a program; a word on stderr where it is missing or refuses, and the test is skipped.
fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> Option<()> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Some(()),
        failed => {
            eprintln!("skipped: {program} does not work here: {failed:?}");
            None
        }
    }
}

/// A folder of a test that mounts something.
struct Folder {
    made: TempDir,
    _mounts: RwLockReadGuard<'static, ()>,
}

impl Folder {
    fn path(&self) -> &Path {
        self.made.path()
    }
}

/// One of the test, and where it notes what is frozen.
fn folder() -> (Folder, PathBuf) {
    let mounts = MOUNTS.read().unwrap_or_else(PoisonError::into_inner);
    let made = tempfile::tempdir().unwrap();
    let left = made.path().join("frozen");
    let folder = Folder {
        made,
        _mounts: mounts,
    };
    (folder, left)
}

fn assert_held(write: &Receiver<()>) {
    let told = write.recv_timeout(HELD);
    assert_eq!(told, Err(RecvTimeoutError::Timeout), "it is not frozen");
}

fn assert_done(write: &Receiver<()>) {
    write.recv_timeout(DEADLINE).expect("it is thawed");
}

fn prepare(disks: &[&Path]) -> Freezer {
    let disks: Vec<PathBuf> = disks.iter().map(|disk| disk.to_path_buf()).collect();
    Freezer::prepare(&disks).unwrap()
}

#[test]
fn nothing_is_written_while_it_is_frozen_and_what_waited_is_then() {
    for kind in ["ext4", "xfs", "btrfs"] {
        let (folder, left) = folder();
        let Some(volume) = Volume::new(folder.path(), kind, kind) else {
            continue;
        };
        assert_done(&volume.write("before"));
        let freezer = prepare(&[&volume.device]);
        freezer.sync().unwrap();
        let frozen = freezer.freeze(LATE, &left).unwrap();
        assert_eq!((frozen.count(), frozen.unfrozen()), (1, &[][..]), "{kind}");
        let before = fs::read(&volume.device).unwrap();
        let write = volume.write("while");
        assert_held(&write);
        assert!(left.exists() && !frozen.is_thawed());
        assert!(fs::read(&volume.device).unwrap() == before, "{kind}");
        let thawed = frozen.thaw();
        assert!(thawed.is_complete() && !thawed.is_by_deadline, "{thawed:?}");
        assert!(thawed.frozen_for >= HELD && thawed.file_systems[0].at == volume.at);
        assert_done(&write);
        assert!(!left.exists());
        // And again: nothing is left of the first time.
        drop(freezer.freeze(LATE, &left).unwrap());
        assert_done(&volume.write("after"));
    }
}

#[test]
fn one_that_lies_within_another_is_frozen_before_it_and_thawed_after_it() {
    let (folder, left) = folder();
    let Some(outer) = Volume::new(folder.path(), "outer", "ext4") else {
        return;
    };
    let Some(inner) = Volume::new(&outer.at, "inner", "xfs") else {
        return;
    };
    let Some(innermost) = Volume::new(&inner.at, "innermost", "ext4") else {
        return;
    };
    let freezer = prepare(&[&outer.device]);
    let found = &freezer.in_use().file_systems;
    assert_eq!(found.len(), 3, "{found:?}");
    for (volume, found) in [&innermost, &inner, &outer].into_iter().zip(found) {
        assert!(volume.is(found), "{found:?}");
        assert_eq!(found.disks, std::slice::from_ref(&outer.device));
        assert!(found.besides.is_empty());
    }
    let frozen = freezer.freeze(LATE, &left).unwrap();
    let writes = [&innermost, &inner, &outer].map(|volume| volume.write("while"));
    for write in &writes {
        assert_held(write);
    }
    let thawed = frozen.thaw();
    let order = [&outer, &inner, &innermost].map(|volume| volume.at.clone());
    assert!(thawed.is_complete());
    let thawed: Vec<_> = thawed.file_systems.into_iter().map(|one| one.at).collect();
    assert_eq!(thawed, order);
    for write in &writes {
        assert_done(write);
    }
}

#[test]
fn two_disks_are_frozen_at_once() {
    let (folder, left) = folder();
    let made = ["one", "two"].map(|name| Volume::new(folder.path(), name, "ext4"));
    let [Some(one), Some(two)] = made else {
        return;
    };
    let freezer = prepare(&[&one.device, &two.device]);
    let frozen = freezer.freeze(LATE, &left).unwrap();
    assert_eq!(frozen.count(), 2);
    let writes = [&one, &two].map(|volume| volume.write("while"));
    for write in &writes {
        assert_held(write);
    }
    drop(frozen);
    for write in &writes {
        assert_done(write);
    }
    // One of them alone is that one alone.
    let frozen = prepare(&[&two.device]).freeze(LATE, &left).unwrap();
    assert_done(&one.write("other"));
    let write = two.write("held");
    assert_held(&write);
    drop(frozen);
    assert_done(&write);
}

#[test]
fn what_somebody_else_has_frozen_is_refused_and_the_others_are_thawed() {
    let (folder, left) = folder();
    let made = ["one", "two"].map(|name| Volume::new(folder.path(), name, "ext4"));
    let [Some(one), Some(two)] = made else {
        return;
    };
    for (held, free) in [(&one, &two), (&two, &one)] {
        let freezer = prepare(&[&one.device, &two.device]);
        let tool = |option: &str| {
            let status = Command::new("fsfreeze").arg(option).arg(&held.at).status();
            assert!(status.unwrap().success());
        };
        tool("-f");
        match freezer.freeze(LATE, &left) {
            Err(FreezeFailed::AlreadyFrozen { at, .. }) => assert_eq!(at, held.at),
            other => panic!("{other:?}"),
        }
        assert_done(&free.write("free"));
        // It is theirs: it stays frozen until they thaw it.
        let write = held.write("held");
        assert_held(&write);
        tool("-u");
        assert_done(&write);
        assert!(!left.exists());
    }
}

#[test]
fn what_is_read_only_stays_so_while_it_is_frozen() {
    let (folder, left) = folder();
    let Some(volume) = Volume::new(folder.path(), "disk", "ext4") else {
        return;
    };
    let remount = |option: &str| {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,{option}")]);
        let output = command.arg(&volume.at).stderr(Stdio::null()).output();
        output.unwrap().status.success()
    };
    let writable = prepare(&[&volume.device]);
    assert!(remount("ro"));
    let freezer = prepare(&[&volume.device]);
    assert!(freezer.in_use().file_systems[0].is_read_only);
    let failed = writable.freeze(LATE, &left);
    assert!(
        matches!(failed, Err(FreezeFailed::Changed { .. })),
        "{failed:?}"
    );
    let frozen = freezer.freeze(LATE, &left).unwrap();
    assert!(!remount("rw"));
    assert!(frozen.thaw().is_complete());
    assert!(remount("rw"));
    assert_done(&volume.write("after"));
}

#[test]
fn the_note_of_what_is_frozen_cannot_lie_on_it() {
    let (folder, _) = folder();
    for kind in ["ext4", "btrfs"] {
        let Some(volume) = Volume::new(folder.path(), kind, kind) else {
            return;
        };
        let failed = prepare(&[&volume.device]).freeze(LATE, &volume.at.join("frozen"));
        assert!(
            matches!(failed, Err(FreezeFailed::LeftOnDisk { .. })),
            "{failed:?}"
        );
        assert_done(&volume.write("after"));
    }
}

#[test]
fn one_that_cannot_be_frozen_is_written_out_and_named() {
    let (folder, left) = folder();
    let Some(device) = attached(folder.path(), "disk") else {
        return;
    };
    let quick = ["-Q", "-F", "-q"].map(AsRef::as_ref);
    let arguments = [&quick[..], &[device.path().as_os_str()]].concat();
    if run("mkfs.ntfs", &arguments).is_none() {
        return;
    }
    let at = folder.path().join("at");
    let Some(volume) = Volume::mount(device.path(), &at, &["-t", "ntfs-3g"]) else {
        return;
    };
    let freezer = prepare(&[device.path()]);
    let frozen = freezer.freeze(LATE, &left).unwrap();
    let expected = Unfrozen {
        kind: "fuseblk".to_owned(),
        at: volume.at.clone(),
    };
    assert_eq!((frozen.count(), frozen.unfrozen()), (0, &[expected][..]));
    assert_done(&volume.write("while"));
    assert!(frozen.thaw().file_systems.is_empty());
    // It is in use until then.
    drop(freezer);
}
