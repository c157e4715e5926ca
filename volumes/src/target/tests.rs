//! Targets as real files, and as loop devices where the test runs as root.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::*;
use crate::loop_device::LoopDevice;

const BLOCK: u64 = BLOCK_SIZE as u64;

fn image(folder: &Path, length: u64) -> PathBuf {
    let path = folder.join("image");
    File::create(&path).unwrap().set_len(length).unwrap();
    path
}

fn read(target: &TargetVolume, range: Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0xee; (range.end - range.start) as usize];
    target.read_at(range.start, &mut bytes).unwrap();
    bytes
}

/// Writes, zeroes and reads with ends that lie on no block or sector.
fn exercise(target: &TargetVolume) {
    let length = target.length();
    target.write_at(0, &vec![1; length as usize]).unwrap();
    target.sync().unwrap();
    target.zero_range(BLOCK, 3 * BLOCK).unwrap();
    target.zero_range(10 * BLOCK + 7, 100).unwrap();
    target.zero_range(length - 5, 5).unwrap();
    target.zero_range(0, 0).unwrap();
    target.start_writeback(0..length);
    target.sync().unwrap();
    target.drop_cache();

    let mut expected = vec![1; length as usize];
    expected[BLOCK as usize..4 * BLOCK as usize].fill(0);
    expected[10 * BLOCK as usize + 7..10 * BLOCK as usize + 107].fill(0);
    expected[length as usize - 5..].fill(0);
    assert!(read(target, 0..length) == expected);
}

#[test]
fn a_file_keeps_what_is_written_and_zeroes_become_holes() {
    let folder = tempfile::tempdir().unwrap();
    let length = 20 * BLOCK + 333;
    let path = image(folder.path(), length);
    let target = TargetVolume::open(&path, length).unwrap();
    exercise(&target);
    let full = path.metadata().unwrap().blocks();
    target.zero_range(0, length).unwrap();
    target.sync().unwrap();
    let metadata = path.metadata().unwrap();
    assert_eq!(metadata.len(), length, "the length stays");
    assert!(metadata.blocks() < full / 2, "space was given back");
}

#[test]
fn a_block_device_keeps_what_is_written_and_may_be_longer() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), 30 * BLOCK);
    let Some(device) = LoopDevice::attach(&path) else {
        return;
    };
    let target = TargetVolume::open(device.path(), 20 * BLOCK + 333).unwrap();
    exercise(&target);
    let second = TargetVolume::open(device.path(), BLOCK).unwrap_err();
    assert!(matches!(second, OpenTargetError::Busy { .. }));
    drop(target);
    let small = TargetVolume::open(device.path(), 30 * BLOCK + 1).unwrap_err();
    assert!(
        matches!(small, OpenTargetError::TooSmall { have, need, .. } if have == 30 * BLOCK && need == have + 1)
    );
}

#[test]
fn a_target_of_the_wrong_length_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), 10 * BLOCK);
    let small = TargetVolume::open(&path, 10 * BLOCK + 1).unwrap_err();
    assert!(matches!(small, OpenTargetError::TooSmall { .. }));
    let long = TargetVolume::open(&path, 10 * BLOCK - 1).unwrap_err();
    assert!(matches!(long, OpenTargetError::TooLong { .. }));
    let missing = TargetVolume::open(&folder.path().join("none"), BLOCK).unwrap_err();
    assert!(matches!(missing, OpenTargetError::Missing { .. }));
    for path in [folder.path(), Path::new("/dev/full")] {
        let refused = TargetVolume::open(path, BLOCK).unwrap_err();
        assert!(matches!(refused, OpenTargetError::NotAVolume { .. }));
    }
}

#[test]
fn a_target_that_is_deleted_moved_or_replaced_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), BLOCK);
    let target = TargetVolume::open(&path, BLOCK).unwrap();
    target.check_in_place().unwrap();
    let aside = folder.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    let gone = target.check_in_place().unwrap_err();
    assert!(matches!(gone, TargetMoved::Gone { .. }));
    assert!(gone.to_string().contains("put it back"), "{gone}");
    image(folder.path(), BLOCK);
    let replaced = target.check_in_place().unwrap_err();
    assert!(matches!(replaced, TargetMoved::Replaced { .. }));
    fs::rename(&aside, &path).unwrap();
    target.check_in_place().unwrap();
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), BLOCK);
    let first = TargetVolume::open(&path, BLOCK).unwrap();
    let second = TargetVolume::open(&path, BLOCK).unwrap_err();
    assert!(matches!(second, OpenTargetError::Busy { .. }));
    drop(first);
    TargetVolume::open(&path, BLOCK).unwrap();
}

#[test]
fn a_range_outside_the_volume_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), 2 * BLOCK);
    let target = TargetVolume::open(&path, 2 * BLOCK).unwrap();
    for offset in [2 * BLOCK, 2 * BLOCK - 1, u64::MAX] {
        let refused = target.write_at(offset, &[1, 2]).unwrap_err();
        assert!(matches!(refused, WriteError::Outside { .. }));
        let refused = target.zero_range(offset, 2).unwrap_err();
        assert!(matches!(refused, WriteError::Outside { .. }));
        let refused = target.read_at(offset, &mut [0, 0]).unwrap_err();
        assert!(matches!(refused, ReadError::Outside { .. }));
    }
    assert_eq!(fs::read(&path).unwrap(), vec![0; 2 * BLOCK as usize]);
}

#[test]
fn after_a_failed_sync_every_call_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), BLOCK);
    let target = TargetVolume::open(&path, BLOCK).unwrap();
    target.write_at(0, &[1]).unwrap();
    let first = target
        .sync_by(|_| Err(io::Error::from_raw_os_error(libc::EIO)))
        .unwrap_err();
    assert_eq!(target.sync(), Err(first.clone()));
    let write = target.write_at(0, &[1]).unwrap_err();
    assert!(matches!(write, WriteError::SyncFailed(failed) if failed == first));
    let zero = target.zero_range(0, 1).unwrap_err();
    assert!(matches!(zero, WriteError::SyncFailed(failed) if failed == first));
    let read = target.read_at(0, &mut [0]).unwrap_err();
    assert!(matches!(read, ReadError::SyncFailed(failed) if failed == first));
    let mut buf = AlignedBuf::new(1);
    let read = target.read_blocks(BlockIndex(0), 1, &mut buf).unwrap_err();
    assert!(matches!(read, ReadError::SyncFailed(failed) if failed == first));
    drop(target);
    TargetVolume::open(&path, BLOCK).unwrap().sync().unwrap();
}

#[test]
fn a_full_disk_is_told_apart_from_a_broken_one() {
    // Writing to this device always fails for want of space.
    let path = Path::new("/dev/full");
    let target = TargetVolume {
        path: path.to_owned(),
        file: LockedFile(OpenOptions::new().write(true).open(path).unwrap()),
        geometry: Geometry::new(4 * BLOCK).unwrap(),
        identity: SourceIdentity::Other,
        poisoned: OnceLock::new(),
    };
    let full = target.write_at(BLOCK, &[1]).unwrap_err();
    assert!(matches!(full, WriteError::Full { offset, .. } if offset == BLOCK));
    let broken = target.write_failed(7, io::Error::from_raw_os_error(libc::EIO));
    assert!(matches!(broken, WriteError::Io { offset: 7, .. }));
}

/// Unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting a small file system needs root");
            return None;
        }
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "none"])
            .arg(at)
            .status();
        match mounted {
            Ok(status) if status.success() => Some(Self(at)),
            failed => {
                eprintln!("skipped: cannot mount here: {failed:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn work_goes_on_after_space_was_freed_on_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path()) else {
        return;
    };
    let length = 64 * BLOCK;
    let path = image(disk.0, length);
    let target = TargetVolume::open(&path, length).unwrap();
    let block = [1; BLOCK as usize];
    let full = (0..64).find_map(|at| target.write_at(at * BLOCK, &block).err());
    assert!(matches!(full, Some(WriteError::Full { .. })));
    target.zero_range(0, 8 * BLOCK).unwrap();
    target.write_at(40 * BLOCK, &block).unwrap();
    target.sync().unwrap();
    drop(target);
}
