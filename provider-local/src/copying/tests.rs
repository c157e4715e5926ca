//! Copies on the file systems that there are: the temporary folder's, and btrfs, xfs and
//! ext4 in files, as root.
#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

const MIB: u64 = 1 << 20;

/// Unmounted when dropped.
struct Mounted {
    at: PathBuf,
    _folder: tempfile::TempDir,
}

impl Mounted {
    /// A new file system in a file, or a word on stderr why there is none.
    fn new(make: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (image, at) = (folder.path().join("image"), folder.path().join("mounted"));
        File::create(&image).unwrap().set_len(512 * MIB).unwrap();
        fs::create_dir(&at).unwrap();
        let quiet = ["-q"];
        let ran = |command: &mut Command| command.output().is_ok_and(|made| made.status.success());
        let made = ran(Command::new(make).args(quiet).arg(&image))
            && ran(Command::new("mount")
                .args(["-o", "loop"])
                .args([&image, &at]));
        if !made {
            eprintln!("skipped: {make} does not work here");
            return None;
        }
        Some(Self {
            at,
            _folder: folder,
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

fn create(path: &Path) -> File {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create_new(true);
    options.open(path).unwrap()
}

/// 100 MiB and a bit: data at both ends and in the middle, zeros that were written, and
/// holes between.
fn source(folder: &Path) -> File {
    let file = create(&folder.join("source"));
    file.set_len(100 * MIB + 700).unwrap();
    let mut noise = vec![0; 3 * MIB as usize];
    for (number, byte) in noise.iter_mut().enumerate() {
        *byte = (number * 31 / 7) as u8 | 1;
    }
    file.write_all_at(&noise, 0).unwrap();
    file.write_all_at(&noise, 40 * MIB + 12_345).unwrap();
    file.write_all_at(&vec![0; 20 * MIB as usize], 60 * MIB)
        .unwrap();
    file.write_all_at(&[5; 700], 100 * MIB).unwrap();
    file
}

fn same(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

fn go_on() -> AtomicBool {
    AtomicBool::new(false)
}

#[test]
fn a_copy_is_the_same_and_has_the_holes() {
    let folder = tempfile::tempdir().unwrap();
    let from = source(folder.path());
    let path = folder.path().join("copy");
    copy_data(&from, &create(&path), &go_on()).unwrap();
    assert!(same(&folder.path().join("source"), &path));
    let taken = path.metadata().unwrap().blocks() * 512;
    assert!(taken < 8 * MIB, "{taken} bytes are taken");
}

#[test]
fn a_file_that_is_all_hole_is_copied_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let from = create(&folder.path().join("source"));
    from.set_len(1 << 40).unwrap();
    let to = create(&folder.path().join("copy"));
    copy(&from, &to, || Ok(0), &go_on()).unwrap();
    let made = to.metadata().unwrap();
    assert_eq!((made.len(), made.blocks()), (1 << 40, 0));
}

#[test]
fn one_that_does_not_fit_is_refused_before_it_is_begun_and_one_that_is_stopped_ends() {
    let folder = tempfile::tempdir().unwrap();
    let from = source(folder.path());
    let path = folder.path().join("copy");
    let stop = AtomicBool::new(true);
    let stopped = copy(&from, &create(&path), || Ok(u64::MAX), &stop);
    assert!(matches!(stopped, Err(CopyError::Stopped)));
    assert!(matches!(
        copy_data(&from, &from, &stop),
        Err(CopyError::Stopped)
    ));
    fs::remove_file(&path).unwrap();
    match copy(&from, &create(&path), || Ok(1000), &go_on()) {
        Err(CopyError::NoRoom { need, free: 1000 }) => assert!(need >= 6 * MIB),
        Ok(()) => eprintln!("skipped: the temporary folder's file system clones"),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_file_system_that_can_clone_takes_no_room_for_it() {
    for make in ["mkfs.btrfs", "mkfs.xfs"] {
        let Some(mounted) = Mounted::new(make) else {
            continue;
        };
        let from = source(&mounted.at);
        let path = mounted.at.join("copy");
        // Nothing but a clone fits.
        copy(&from, &create(&path), || Ok(0), &go_on()).unwrap();
        assert!(same(&mounted.at.join("source"), &path), "{make}");
        from.write_all_at(&[9; 4096], 0).unwrap();
        assert_ne!(fs::read(&path).unwrap()[0], 9, "{make}: it is its own");
    }
}

#[test]
fn one_that_cannot_gets_a_copy() {
    let Some(mounted) = Mounted::new("mkfs.ext4") else {
        return;
    };
    let from = source(&mounted.at);
    let path = mounted.at.join("copy");
    copy(&from, &create(&path), || Ok(u64::MAX), &go_on()).unwrap();
    assert!(same(&mounted.at.join("source"), &path));
}
