//! A stack of disks as the kernel shows it, with images for its devices; and real devices
//! of the kernel where the tests run as root.
#![allow(clippy::unwrap_used)]

use super::*;
use crdt::inventory::{Device, DeviceKind, NamedByPath, Table};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

/// Writes files below a root, with the folders that they need.
fn write(root: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// A disk of 64 MiB with a GUID table of two partitions: one for EFI, one for Linux.
fn guid_disk(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let new = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path);
    let mut file = new.unwrap();
    file.set_len(64 << 20).unwrap();
    let block = gpt::disk::LogicalBlockSize::Lb512;
    gpt::mbr::ProtectiveMBR::with_lb_size(131_071)
        .overwrite_lba0(&mut file)
        .unwrap();
    let config = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(block);
    let mut disk = config.create_from_device(file, None).unwrap();
    let mut add = |name: &str, kind| disk.add_partition(name, 16 << 20, kind, 0, Some(2048));
    add("EFI System", gpt::partition_types::EFI).unwrap();
    add("root", gpt::partition_types::LINUX_FS).unwrap();
    disk.write().unwrap();
}

fn by_name<'a>(storage: &'a Storage, name: &str) -> &'a Device {
    let found = storage.devices.iter().find(|device| device.name == name);
    found.unwrap_or_else(|| panic!("{name} in {:?}", storage.devices))
}

/// What the kernel shows of a disk of two partitions with LVM on the second, and of what
/// is no disk.
const STACK: &[(&str, &str)] = &[
    ("sys/block/sda/size", "131072\n"),
    ("sys/block/sda/dev", "8:0\n"),
    ("sys/block/sda/device/vendor", "ATA     \n"),
    ("sys/block/sda/device/model", "Samsung SSD\n"),
    ("sys/block/sda/sda1/partition", "1\n"),
    ("sys/block/sda/sda1/start", "2048\n"),
    ("sys/block/sda/sda1/size", "32768\n"),
    ("sys/block/sda/sda1/dev", "8:1\n"),
    ("sys/block/sda/sda2/partition", "2\n"),
    ("sys/block/sda/sda2/start", "34816\n"),
    ("sys/block/sda/sda2/size", "32768\n"),
    ("sys/block/sda/sda2/dev", "8:2\n"),
    ("sys/block/dm-0/size", "20480\n"),
    ("sys/block/dm-0/dev", "253:0\n"),
    ("sys/block/dm-0/dm/name", "vg0-root\n"),
    ("sys/block/dm-0/dm/uuid", "LVM-abcdef\n"),
    ("sys/block/dm-0/slaves/sda2/x", ""),
    ("sys/block/md0/size", "2048\n"),
    ("sys/block/md0/md/level", "raid1\n"),
    ("sys/block/sr0/size", "2048\n"),
    ("sys/block/loop3/size", "0\n"),
    ("sys/block/nvme0c0n1/size", "2048\n"),
    ("sys/block/nvme0c0n1/hidden", "1\n"),
    (
        "proc/self/mountinfo",
        "22 1 253:0 / / rw,relatime shared:1 - xfs /dev/mapper/vg0-root rw,attr2\n23 22 8:1 / /boot/my\\040efi rw - vfat /dev/sda1 ro\n24 22 253:0 /var/lib /srv/bound rw - xfs /dev/mapper/vg0-root rw\n25 22 0:5 / /run rw - tmpfs tmpfs rw\n",
    ),
    (
        "proc/swaps",
        "Filename Type Size Used Priority\n/swapfile file 2048 0 -2\n/dev/zram0 partition 99 0 5\n",
    ),
    (
        "etc/fstab",
        "# a comment\n/dev/mapper/vg0-root / xfs defaults 0 0\n/dev/sda1 /boot/my\\040efi vfat umask=0077 0 1\nUUID=77 /data ext4 dax 0 2\nUUID=78 /far ext4 nofail 0 2\nUUID=79 /later ext4 ro,noauto 0 2\n/dev/sda5 none swap sw 0 0\ntmpfs /tmp tmpfs x 0 0\n",
    ),
];

#[test]
fn a_stack_is_read_from_the_disk_to_the_mount() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    guid_disk(&root.join("dev/sda"));
    let efi = root.join("dev/sda1");
    File::create(&efi).unwrap().set_len(16 << 20).unwrap();
    let mut sector = [0; 512];
    sector[0x36..0x3e].copy_from_slice(b"FAT16   ");
    sector[0x27..0x2b].copy_from_slice(&0xabcd_0123_u32.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    File::options()
        .write(true)
        .open(&efi)
        .unwrap()
        .write_all_at(&sector, 0)
        .unwrap();
    write(root, STACK);
    let storage = read(&Tree::new(root), None);
    let names: Vec<&str> = storage.devices.iter().map(|device| &*device.name).collect();
    assert_eq!(names, ["dm-0", "md0", "sda", "sda1", "sda2"]);
    let sda = by_name(&storage, "sda");
    assert_eq!(sda.table, Some(Table::Gpt));
    assert_eq!(sda.model.as_deref(), Some("Samsung SSD"));
    assert_eq!(sda.bytes, 64 << 20);
    let part = by_name(&storage, "sda1").partition.clone().unwrap();
    assert_eq!((part.number, part.start_bytes), (1, 1 << 20));
    assert_eq!(part.kind, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
    assert_eq!(part.name, "EFI System");
    let content = by_name(&storage, "sda1").content.clone().unwrap();
    assert_eq!((&*content.kind, &*content.uuid), ("vfat", "ABCD-0123"));
    let volume = by_name(&storage, "dm-0");
    assert_eq!(volume.kind, DeviceKind::Volume);
    assert_eq!(volume.path, "/dev/mapper/vg0-root");
    assert_eq!(volume.on, ["sda2"]);
    assert_eq!(by_name(&storage, "md0").kind, DeviceKind::Raid);
    let mounts: Vec<String> = storage
        .mounts
        .iter()
        .map(|m| {
            let flags = [m.is_mounted, m.is_awaited, m.is_read_only, m.is_dax];
            format!("{} {} {} {flags:?}", m.device, m.at, m.file_system)
        })
        .collect();
    assert_eq!(
        mounts,
        [
            "dm-0 / xfs [true, true, false, false]",
            "sda1 /boot/my efi vfat [true, true, true, false]",
            "UUID=77 /data ext4 [false, true, false, true]",
            "UUID=78 /far ext4 [false, false, false, false]",
            "UUID=79 /later ext4 [false, false, true, false]",
        ]
    );
    assert_eq!(storage.swaps.len(), 1);
    assert!(storage.swaps[0].is_file && storage.swaps[0].bytes == 2 << 20);
    let named = |path: &str| NamedByPath {
        file: "/etc/fstab".into(),
        path: path.into(),
    };
    assert_eq!(
        storage.named_by_path,
        [named("/dev/sda1"), named("/dev/sda5")]
    );
}

#[test]
fn paths_that_go_with_the_disk_are_not_told() {
    let root = tempfile::tempdir().unwrap();
    write(
        root.path(),
        &[
            (
                "etc/crypttab",
                "luks /dev/nvme0n1p3 none luks\nother UUID=5 none\n",
            ),
            (
                "boot/grub2/grub.cfg",
                "linux /vmlinuz root=/dev/mapper/vg-root ro resume=/dev/vda2\nlinux /vmlinuz root=/dev/sdata/root\n# root=/dev/sda1\n",
            ),
            (
                "boot/loader/entries/a.conf",
                "options root=/dev/disk/by-id/ata-X-part2 quiet\n",
            ),
            (
                "proc/cmdline",
                "BOOT_IMAGE=/x root=/dev/disk/by-id/dm-name-vg-root root=UUID=1 root=/dev/md0\n",
            ),
        ],
    );
    let found = named::read(&Tree::new(root.path()));
    let paths: Vec<&str> = found.iter().map(|named| &*named.path).collect();
    assert_eq!(
        paths,
        ["/dev/nvme0n1p3", "/dev/vda2", "/dev/disk/by-id/ata-X-part2"]
    );
}

#[test]
fn logical_partitions_of_a_master_boot_record_are_found_along_their_chain() {
    struct Disk(Vec<u8>);
    impl crate::content::Source for Disk {
        fn read(&self, at: u64, length: usize) -> Option<Vec<u8>> {
            let at = usize::try_from(at).ok()?;
            self.0.get(at..at + length).map(<[u8]>::to_vec)
        }
    }
    let mut disk = Disk(vec![0; 64 * 512]);
    let mut record = |sector: usize, rows: &[(u8, u32)]| {
        let at = sector * 512;
        disk.0[at + 510..at + 512].copy_from_slice(&[0x55, 0xaa]);
        for (row, (kind, start)) in rows.iter().enumerate() {
            let row = at + 446 + 16 * row;
            disk.0[row + 4] = *kind;
            disk.0[row + 8..row + 12].copy_from_slice(&start.to_le_bytes());
        }
    };
    record(0, &[(0x83, 2), (0x05, 10)]);
    record(10, &[(0x82, 2), (0x05, 10)]);
    // The chain goes round: it is followed so often and no more.
    record(20, &[(0x8e, 2), (0x05, 0)]);
    let (kind, entries) = crate::table::find(&disk).unwrap();
    assert_eq!(kind, Table::Mbr);
    let told: Vec<(u64, &str)> = entries
        .iter()
        .map(|entry| (entry.start_bytes / 512, &*entry.kind))
        .take(4)
        .collect();
    assert_eq!(
        told,
        [(2, "0x83"), (10, "0x05"), (12, "0x82"), (22, "0x8e")]
    );
    assert!(entries.len() < 100);
    assert!(crate::table::find(&Disk(vec![0; 512])).is_none());
}

/// A loop device with its partitions, which goes when it is dropped.
struct Loop(String);

impl Loop {
    /// None, and said why, where this machine gives none.
    fn attach(image: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root makes loop devices");
            return None;
        }
        let made = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(image)
            .output();
        let made = made.ok().filter(|made| made.status.success());
        let Some(made) = made else {
            eprintln!("skipped: losetup makes no device here");
            return None;
        };
        let device = Self(String::from_utf8(made.stdout).unwrap().trim().to_owned());
        Some(device)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("partx").args(["-d", &self.0]).output();
        let _ = Command::new("losetup").args(["-d", &self.0]).output();
    }
}

#[test]
fn a_real_device_is_read_with_its_partitions_and_what_is_on_them() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    guid_disk(&image);
    let Some(device) = Loop::attach(&image) else {
        return;
    };
    let parted = Command::new("partx").args(["-a", &device.0]).output();
    if !parted.is_ok_and(|parted| parted.status.success()) {
        eprintln!("skipped: partx makes no partitions here");
        return;
    }
    let second = format!("{}p2", device.0);
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-L", "here", &second])
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("skipped: mkfs.ext4 makes no file system here");
        return;
    }
    let storage = read(&Tree::new("/"), Some(Path::new("/")));
    let name = device.0.trim_start_matches("/dev/");
    let disk = by_name(&storage, name);
    assert_eq!(
        (disk.kind, disk.table),
        (DeviceKind::Loop, Some(Table::Gpt))
    );
    let root = by_name(&storage, &format!("{name}p2"));
    let part = root.partition.clone().unwrap();
    assert_eq!((&*part.name, part.number), ("root", 2));
    let content = root.content.clone().unwrap();
    assert_eq!((&*content.kind, &*content.label), ("ext4", "here"));
    assert!(by_name(&storage, &format!("{name}p1")).content.is_none());
}

#[test]
fn a_group_that_lvm_made_tells_its_members_on_each_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut devices = vec![];
    for name in ["a", "b"] {
        let image = folder.path().join(name);
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let Some(device) = Loop::attach(&image) else {
            return;
        };
        devices.push(device);
    }
    // It sees these two devices alone, and speaks to no device mapper.
    let [a, b] = [&*devices[0].0, &*devices[1].0];
    let config = format!(
        "devices {{ use_devicesfile=0 filter=[ \"a|^{a}$|\", \"a|^{b}$|\", \"r|.*|\" ] }} activation {{ udev_sync=0 udev_rules=0 }} backup {{ backup=0 archive=0 }}"
    );
    for (tool, arguments) in [
        ("pvcreate", vec![a, b]),
        ("vgcreate", vec!["vg_test", a, b]),
    ] {
        let made = Command::new(tool)
            .args(["--driverloaded", "n", "--config", &config])
            .args(arguments)
            .env("LVM_SYSTEM_DIR", folder.path())
            .output();
        if !made.is_ok_and(|made| made.status.success()) {
            eprintln!("skipped: {tool} makes nothing here");
            return;
        }
    }
    let storage = read(&Tree::new("/"), None);
    let group = storage.groups.iter().find(|group| group.name == "vg_test");
    assert_eq!(group.unwrap().members.len(), 2);
    for device in [a, b] {
        let content = by_name(&storage, device.trim_start_matches("/dev/"))
            .content
            .clone();
        let content = content.unwrap();
        assert!(
            group.unwrap().members.contains(&content.uuid),
            "{content:?}"
        );
    }
}
