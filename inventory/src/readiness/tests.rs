//! Each finding, on a machine that has it, and none on one that is in order.
#![allow(clippy::unwrap_used)]

use super::*;
use crdt::inventory::{
    Configured, ConfiguredBy, Content, Detail, Device, DeviceKind, Driver, Initramfs, Kernel,
    Method, Mount, NamedByPath, Place, StateFolder, Swap, VolumeGroup,
};

fn device(name: &str, kind: DeviceKind, on: &[&str]) -> Device {
    Device {
        name: name.into(),
        path: format!("/dev/{name}"),
        kind,
        bytes: 1 << 30,
        model: None,
        on: on.iter().map(|name| (*name).to_owned()).collect(),
        table: None,
        partition: None,
        content: None,
    }
}

fn with(mut device: Device, kind: &str, uuid: &str, detail: Detail) -> Device {
    device.content = Some(Content {
        kind: kind.into(),
        uuid: uuid.into(),
        label: String::new(),
        detail,
    });
    device
}

fn file_system(has_journal: bool, devices: u32) -> Detail {
    Detail::FileSystem {
        has_journal: Some(has_journal),
        devices,
    }
}

fn mount(device: &str, at: &str, file_system: &str) -> Mount {
    Mount {
        device: device.into(),
        at: at.into(),
        file_system: file_system.into(),
        is_mounted: true,
        is_awaited: true,
        is_read_only: false,
        is_dax: false,
    }
}

fn kernel(early: &[&str]) -> Kernel {
    let driver = |name: &&str| Driver {
        name: (*name).to_owned(),
        place: Place::Initramfs,
    };
    Kernel {
        release: "6.1.0".into(),
        image: "/boot/vmlinuz-6.1.0".into(),
        initramfs: Initramfs::Read {
            path: "/boot/initrd.img-6.1.0".into(),
            compression: "zstd".into(),
            modules: 900,
        },
        drivers: early.iter().map(driver).collect(),
    }
}

const ALL: [&str; 5] = [
    "virtio_blk",
    "nvme",
    "xen_blkfront",
    "hv_storvsc",
    "vmw_pvscsi",
];

/// One disk with one partition and all drivers.
fn sound() -> Inventory {
    let mut inventory = Inventory::default();
    inventory.machine.id = "1".into();
    inventory.system.kernel = "6.1.0".into();
    inventory.kernels = vec![kernel(&ALL)];
    inventory.storage.devices = vec![
        device("sda", DeviceKind::Disk, &[]),
        with(
            device("sda1", DeviceKind::Partition, &["sda"]),
            "ext4",
            "1",
            file_system(true, 1),
        ),
        device("sdb", DeviceKind::Disk, &[]),
    ];
    inventory.storage.mounts = vec![mount("sda1", "/", "ext4")];
    inventory
}

/// Level and subject of each.
fn told(inventory: &Inventory, offered: &[&str]) -> Vec<(Level, String)> {
    let found = findings(inventory, offered).into_iter();
    found
        .map(|finding| (finding.level, finding.subject))
        .collect()
}

#[test]
fn a_machine_in_order_has_no_findings_and_one_that_was_not_read_neither() {
    assert_eq!(findings(&sound(), &["/dev/sda"]), []);
    assert_eq!(findings(&sound(), &[]), []);
    assert_eq!(findings(&Inventory::default(), &["/dev/sda"]), []);
}

#[test]
fn a_kernel_that_starts_nowhere_is_a_blocker_and_one_that_starts_somewhere_a_note() {
    let mut inventory = sound();
    let mut lacking = kernel(&[]);
    lacking.drivers.push(Driver {
        name: "nvme".into(),
        place: Place::RootFileSystem,
    });
    inventory.kernels = vec![lacking, kernel(&ALL)];
    let found = findings(&inventory, &["/dev/sda"]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].level, Level::Blocker);
    assert!(found[0].todo.contains("add nvme to"), "{}", found[0].todo);
    inventory.kernels[0].initramfs = Initramfs::Read {
        path: "/boot/initramfs-6.1.0.img".into(),
        compression: "gzip".into(),
        modules: 1,
    };
    let found = findings(&inventory, &["/dev/sda"]);
    assert!(
        found[0]
            .todo
            .contains("dracut --force --add-drivers \"nvme\"")
    );
    inventory.kernels = vec![kernel(&["virtio_scsi"])];
    assert_eq!(
        told(&inventory, &[]),
        [(Level::Note, "kernel 6.1.0".to_owned())]
    );
    inventory.kernels[0].initramfs = Initramfs::Unknown {
        path: "/boot/x".into(),
        why: "it may not be read".into(),
    };
    assert_eq!(told(&inventory, &[])[0].0, Level::Warning);
    inventory.kernels.clear();
    assert_eq!(told(&inventory, &[]), [(Level::Note, "kernel".to_owned())]);
}

#[test]
fn half_a_volume_group_is_a_blocker_and_the_whole_one_a_note() {
    let mut inventory = sound();
    let member = |name: &str, uuid: &str| {
        let group = "vg0".to_owned();
        with(
            device(name, DeviceKind::Disk, &[]),
            "LVM2_member",
            uuid,
            Detail::PhysicalVolume { group },
        )
    };
    inventory.storage.devices = vec![
        member("sda", "a"),
        member("sdb", "b"),
        device("dm-0", DeviceKind::Volume, &["sda", "sdb"]),
    ];
    inventory.storage.groups = vec![VolumeGroup {
        name: "vg0".into(),
        members: vec!["a".into(), "b".into()],
    }];
    inventory.storage.mounts = vec![mount("dm-0", "/", "xfs")];
    let half = findings(&inventory, &["/dev/sda"]);
    let subjects: Vec<&str> = half.iter().map(|finding| &*finding.subject).collect();
    assert_eq!(subjects, ["volume group vg0", "/", "/"]);
    assert_eq!(half[0].level, Level::Blocker);
    assert!(half[0].what.contains("sdb is not on an offered disk"));
    let whole = told(&inventory, &["/dev/sda", "/dev/sdb"]);
    assert_eq!(whole, [(Level::Note, "/".to_owned())]);
    // A member that this machine does not see is missing too.
    inventory.storage.groups[0].members.push("c".into());
    let seen = findings(&inventory, &["/dev/sda", "/dev/sdb"]);
    assert!(seen[0].what.contains("1 of its disks"), "{}", seen[0].what);
}

#[test]
fn arrays_and_spread_file_systems_need_all_their_members() {
    let mut inventory = sound();
    let member = |name: &str, level: &str| {
        let detail = Detail::RaidMember {
            level: level.into(),
            name: String::new(),
            devices: 2,
        };
        with(
            device(name, DeviceKind::Disk, &[]),
            "linux_raid_member",
            "m",
            detail,
        )
    };
    for (level, expected) in [("raid1", Level::Warning), ("raid0", Level::Blocker)] {
        inventory.storage.devices = vec![member("sda", level), member("sdb", level)];
        inventory.storage.mounts.clear();
        assert_eq!(
            told(&inventory, &["/dev/sda"]),
            [(expected, "array of sda".to_owned())]
        );
        assert_eq!(told(&inventory, &["/dev/sda", "/dev/sdb"]), []);
    }
    let part = |name: &str| {
        with(
            device(name, DeviceKind::Disk, &[]),
            "btrfs",
            "f",
            file_system(true, 2),
        )
    };
    inventory.storage.devices = vec![part("sda"), part("sdb")];
    assert_eq!(
        told(&inventory, &["/dev/sda"]),
        [(Level::Blocker, "file system of sda, sdb".to_owned())]
    );
    assert_eq!(told(&inventory, &["/dev/sda", "/dev/sdb"]), []);
}

#[test]
fn a_mirror_of_which_one_half_is_offered_carries_what_lies_on_it() {
    let member = |name| {
        let detail = Detail::RaidMember {
            level: "raid1".into(),
            name: "0".into(),
            devices: 2,
        };
        with(device(name, DeviceKind::Disk, &[]), "raid", "r", detail)
    };
    let mut inventory = sound();
    let md = device("md0", DeviceKind::Raid, &["sda", "sdb"]);
    inventory.storage.devices = vec![member("sda"), member("sdb"), md];
    inventory.storage.mounts = vec![mount("md0", "/", "ext4")];
    let found = told(&inventory, &["/dev/sda"]);
    assert!(
        found.iter().all(|(level, _)| *level != Level::Blocker),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|(level, what)| (*level, &**what) == (Level::Warning, "array of sda"))
    );
}

#[test]
fn devices_that_stand_on_each_other_in_every_way_are_looked_at_in_time() {
    let mut inventory = sound();
    let layer = |at: usize| (0..8).map(move |place| format!("d{at}-{place}"));
    inventory.storage.devices = vec![device("leaf", DeviceKind::Disk, &[])];
    for at in 0..16 {
        let below: Vec<String> = match at {
            15 => vec!["leaf".into()],
            _ => layer(at + 1).collect(),
        };
        let below: Vec<&str> = below.iter().map(String::as_str).collect();
        let devices = layer(at).map(|name| device(&name, DeviceKind::Mapper, &below));
        inventory.storage.devices.extend(devices);
    }
    // And in a circle.
    inventory
        .storage
        .devices
        .push(device("round", DeviceKind::Mapper, &["round"]));
    inventory.storage.mounts = vec![mount("d0-0", "/", "ext4"), mount("round", "/usr", "ext4")];
    let found = told(&inventory, &["/dev/leaf"]);
    assert!(
        found.contains(&(Level::Blocker, "/usr".into())),
        "{found:?}"
    );
    assert!(!found.contains(&(Level::Blocker, "/".into())), "{found:?}");
}

#[test]
fn the_kernel_that_runs_is_the_one_that_counts_and_one_without_modules_is_not_known() {
    let mut inventory = sound();
    let old = Kernel {
        release: "6.1.0.old".into(),
        initramfs: Initramfs::Absent,
        drivers: vec![],
        ..kernel(&[])
    };
    inventory.kernels.insert(0, old);
    assert_eq!(findings(&inventory, &["/dev/sda"]), []);
    inventory.system.kernel = "6.1.0.old".into();
    let found = told(&inventory, &["/dev/sda"]);
    assert_eq!(found, [(Level::Warning, "kernel 6.1.0.old".to_owned())]);
}

#[test]
fn mounts_on_disks_that_are_not_offered_are_told() {
    let mut inventory = sound();
    inventory.storage.mounts.push(mount("sdb", "/data", "ext4"));
    assert_eq!(
        told(&inventory, &["/dev/sda"]),
        [(Level::Warning, "/data".to_owned())]
    );
    let found = told(&inventory, &["/dev/sdb"]);
    assert_eq!(found, [(Level::Blocker, "/".to_owned())]);
    // Where it is not known what a path means, nothing is called missing.
    let found = told(&inventory, &["/dev/sdb", "/dev/disk/by-id/x"]);
    assert_eq!(found, [(Level::Note, "disks".to_owned())]);
}

#[test]
fn what_is_on_the_disks_is_told() {
    let mut inventory = sound();
    let storage = &mut inventory.storage;
    storage.devices[0].kind = DeviceKind::Disk;
    storage.devices[1].kind = DeviceKind::Crypt;
    storage.devices.push(with(
        device("sdc", DeviceKind::Disk, &[]),
        "ext2",
        "2",
        file_system(false, 1),
    ));
    storage.mounts.push(mount("sdc", "/old", "ext2"));
    storage.mounts.push(mount("sdd", "/boot/efi", "vfat"));
    let mut dax = mount("sde", "/pmem", "xfs");
    dax.is_dax = true;
    storage.mounts.push(dax);
    storage.swaps = vec![Swap {
        path: "/swapfile".into(),
        bytes: 1,
        is_file: true,
    }];
    storage.state = Some(StateFolder {
        path: "/var/lib/dunlin".into(),
        device: "sda1".into(),
        is_short_of_room: true,
    });
    let found = told(&inventory, &["/dev/sda", "/dev/sdc"]);
    let expected = [
        (Level::Warning, "data folder"),
        (Level::Warning, "/"),
        (Level::Warning, "/old"),
        (Level::Warning, "/pmem"),
        (Level::Warning, "data folder"),
        (Level::Note, "/boot/efi"),
        (Level::Note, "/swapfile"),
    ];
    assert_eq!(
        found,
        expected.map(|(level, subject)| (level, subject.to_owned()))
    );
}

#[test]
fn what_binds_it_to_its_place_is_told() {
    let mut inventory = sound();
    inventory.machine.id.clear();
    inventory.machine.clock_synchronised = Some(false);
    inventory.machine.secure_boot = Some(true);
    inventory.system.kernel = "3.10.0-1160.el7.x86_64".into();
    inventory.network.configured = vec![Configured {
        by: ConfiguredBy::Ifcfg,
        file: "/etc/sysconfig/network-scripts/ifcfg-eth0".into(),
        interface: "eth0".into(),
        mac: "00:50:56:00:00:01".into(),
        method: Method::Static,
        addresses: vec!["192.0.2.1/24".into()],
        gateways: vec![],
        dns: vec![],
    }];
    let named = |path: &str| NamedByPath {
        file: "/etc/fstab".into(),
        path: path.into(),
    };
    inventory.storage.named_by_path = vec![named("/dev/sda1"), named("/dev/sda2")];
    inventory.truncated = true;
    let expected = [
        (Level::Warning, "/etc/fstab"),
        (Level::Warning, "interface eth0"),
        (Level::Warning, "interface eth0"),
        (Level::Warning, "clock"),
        (Level::Note, "kernel 3.10.0-1160.el7.x86_64"),
        (Level::Note, "firmware"),
        (Level::Note, "/etc/machine-id"),
        (Level::Note, "inventory"),
    ];
    let found = told(&inventory, &["/dev/sda"]);
    assert_eq!(
        found,
        expected.map(|(level, subject)| (level, subject.to_owned()))
    );
}
