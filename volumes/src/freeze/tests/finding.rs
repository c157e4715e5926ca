//! What lies on a disk is found, wherever it is mounted, and nothing else.

use std::io::{BufRead, BufReader};
use std::process::Child;

use super::*;
use crate::loop_device::Partition;

fn found(disks: &[&Path]) -> InUse {
    let disks: Vec<PathBuf> = disks.iter().map(|disk| disk.to_path_buf()).collect();
    mounted_on(&disks).unwrap()
}

#[test]
fn a_file_system_is_found_once_however_often_it_is_mounted() {
    for kind in ["ext4", "btrfs"] {
        let (folder, _) = folder();
        let Some(volume) = Volume::new(folder.path(), "disk", kind) else {
            continue;
        };
        fs::create_dir(volume.at.join("part")).unwrap();
        let second = folder.path().join("second");
        let bind = Volume::mount(&volume.at.join("part"), &second, &["--bind"]);
        let again = Volume::mount(&volume.device, &folder.path().join("again"), &[]);
        let in_use = found(&[&volume.device]);
        let [one] = &in_use.file_systems[..] else {
            panic!("{in_use:?}");
        };
        assert!(volume.is(one) && one.kind == kind && !one.is_read_only && !one.is_dax);
        assert_eq!(one.ways.len(), 3, "{one:?}");
        assert_eq!((in_use.unreached, in_use.swaps), (vec![], vec![]));
        // Whichever of them is left leads to it.
        drop((bind, volume));
        let again = again.unwrap();
        let freezer = prepare(&[&again.device]);
        assert_eq!(freezer.held.len(), 1);
        drop(freezer);
    }
}

#[test]
fn a_mount_over_another_does_not_stand_for_it() {
    let (folder, left) = folder();
    let made = ["one", "two"].map(|name| Volume::new(folder.path(), name, "ext4"));
    let [Some(one), Some(two)] = made else {
        return;
    };
    let over = Volume::mount(&two.device, &one.at, &[]).unwrap();
    // Nothing leads to it any more.
    let freezer = prepare(&[&one.device]);
    let frozen = freezer.freeze(LATE, &left).unwrap();
    assert_eq!((frozen.count(), freezer.in_use().unreached.len()), (0, 1));
    assert_done(&two.write("free"));
    drop((frozen, over));
    let frozen = prepare(&[&one.device]).freeze(LATE, &left).unwrap();
    assert_eq!(frozen.count(), 1);
}

#[test]
fn a_partition_lies_on_its_disk_and_on_no_other() {
    let (folder, left) = folder();
    let made = ["disk", "other"].map(|name| attached(folder.path(), name));
    let [Some(disk), Some(other)] = made else {
        return;
    };
    let Some(partition) = Partition::add(disk.path(), 2048, 600_000) else {
        return;
    };
    let Some(volume) = Volume::on(&partition.path(), folder.path(), "part", "ext4") else {
        return;
    };
    for device in [disk.path(), &partition.path()] {
        let in_use = found(&[device]);
        assert_eq!(in_use.file_systems.len(), 1, "{device:?}");
        assert_eq!(in_use.file_systems[0].disks, [device.to_owned()]);
        assert!(in_use.file_systems[0].besides.is_empty());
    }
    assert!(found(&[other.path()]).file_systems.is_empty());
    let freezer = prepare(&[disk.path()]);
    assert_eq!(freezer.devices.len(), 2, "the disk and its partition");
    let frozen = freezer.freeze(LATE, &left).unwrap();
    let write = volume.write("while");
    assert_held(&write);
    drop(frozen);
    assert_done(&write);
    drop((freezer, volume));
}

#[test]
fn of_one_that_spans_several_disks_the_others_are_named() {
    let (folder, _) = folder();
    let made = ["one", "two"].map(|name| attached(folder.path(), name));
    let [Some(one), Some(two)] = made else {
        return;
    };
    let devices = [one.path(), two.path()].map(Path::as_os_str);
    if run("mkfs.btrfs", &[&["-qf".as_ref()], &devices[..]].concat()).is_none() {
        return;
    }
    // The kernel has to be told of both.
    let both = format!(
        "device={},device={}",
        one.path().display(),
        two.path().display()
    );
    let at = folder.path().join("at");
    let Some(volume) = Volume::mount(one.path(), &at, &["-t", "btrfs", "-o", &both]) else {
        return;
    };
    for (given, besides) in [(one.path(), two.path()), (two.path(), one.path())] {
        let in_use = found(&[given]);
        assert_eq!(in_use.file_systems.len(), 1);
        assert_eq!(in_use.file_systems[0].disks, [given.to_owned()]);
        assert_eq!(in_use.file_systems[0].besides, [besides.to_owned()]);
    }
    let in_use = found(&[one.path(), two.path()]);
    assert!(in_use.file_systems[0].besides.is_empty());
    drop(volume);
}

#[test]
fn a_subvolume_lies_on_the_file_system_that_has_it() {
    let (folder, _) = folder();
    let Some(volume) = Volume::new(folder.path(), "disk", "btrfs") else {
        return;
    };
    let below = volume.at.join("below");
    let create = ["subvolume".as_ref(), "create".as_ref(), below.as_os_str()];
    if run("btrfs", &create).is_none() {
        return;
    }
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    assert_ne!(device(&below), device(&volume.at));
    let of = |path: &Path| file_system_of(path).unwrap();
    assert_eq!(of(&below), of(&volume.at));
    assert_ne!(of(folder.path()), of(&volume.at));
    assert!(file_system_of(&volume.at.join("none")).is_err());
    drop(volume);
}

/// A process with mounts of its own, which ends with it.
struct Apart(Child);

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_another_namespace_alone_has_mounted_is_found_and_frozen() {
    let _alone = MOUNTS.write().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join("frozen");
    let Some(volume) = Volume::new(folder.path(), "disk", "ext4") else {
        return;
    };
    let script = "mount --bind \"$0\" /mnt && echo ready && while read -r name; do
        echo x >\"/mnt/$name\" && sync -f /mnt && echo done; done";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
    command.arg(&volume.at).stdin(Stdio::piped());
    let started = command.stdout(Stdio::piped()).spawn();
    let mut apart = Apart(started.unwrap());
    let mut input = apart.0.stdin.take().unwrap();
    let mut lines = BufReader::new(apart.0.stdout.take().unwrap()).lines();
    match lines.next() {
        Some(Ok(ready)) => assert_eq!(ready, "ready"),
        _ => {
            eprintln!("skipped: no namespace of mounts can be made here");
            return;
        }
    }
    let status = Command::new("umount").arg(&volume.at).status();
    assert!(status.unwrap().success());
    let freezer = prepare(&[&volume.device]);
    let frozen = freezer.freeze(LATE, &left).unwrap();
    assert_eq!(frozen.count(), 1, "{:?}", freezer.in_use());
    let (done, told) = channel();
    thread::spawn(move || {
        let line = lines.next();
        let _ = done.send(());
        line
    });
    writeln!(input, "while").unwrap();
    assert_held(&told);
    drop(frozen);
    assert_done(&told);
}

#[test]
fn what_is_mounted_nowhere_and_in_use_all_the_same_is_told() {
    let (folder, _) = folder();
    let Some(volume) = Volume::new(folder.path(), "disk", "ext4") else {
        return;
    };
    let open = File::create(volume.at.join("open")).unwrap();
    let status = Command::new("umount").arg("-l").arg(&volume.at).status();
    assert!(status.unwrap().success());
    let in_use = found(&[&volume.device]);
    assert!(in_use.file_systems.is_empty());
    let [unreached] = &in_use.unreached[..] else {
        panic!("{in_use:?}");
    };
    assert_eq!(unreached.what, volume.device);
    drop(open);
}

#[test]
fn a_file_is_no_disk_and_says_so() {
    let (folder, _) = folder();
    let file = folder.path().join("disk");
    fs::write(&file, "x").unwrap();
    let failed = mounted_on(std::slice::from_ref(&file));
    assert!(matches!(failed, Err(CannotLook::NoDevice { .. })));
    let failed = mounted_on(&[folder.path().join("none")]);
    assert!(matches!(failed, Err(CannotLook::Disk { .. })));
}
