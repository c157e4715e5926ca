//! The page of a source whose machine is known.
#![allow(clippy::unwrap_used)]

use crate::api::model::{FindingView, ServerView};
use crate::cli::render::servers;
use crate::cli::tests::{look, server};
use crdt::Inventory;
use crdt::inventory::*;

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

fn with(mut device: Device, kind: &str, label: &str, detail: Detail) -> Device {
    device.content = Some(Content {
        kind: kind.into(),
        uuid: "77".into(),
        label: label.into(),
        detail,
    });
    device
}

fn file_system() -> Detail {
    Detail::FileSystem {
        has_journal: Some(true),
        devices: 1,
    }
}

fn storage() -> Storage {
    let mut disk = device("sda", DeviceKind::Disk, &[]);
    disk.table = Some(Table::Gpt);
    let group = "vg0".to_owned();
    let member = with(
        device("sda2", DeviceKind::Partition, &["sda"]),
        "LVM2_member",
        "",
        Detail::PhysicalVolume { group },
    );
    let mut root = with(
        device("dm-0", DeviceKind::Volume, &["sda2"]),
        "xfs",
        "root",
        file_system(),
    );
    root.path = "/dev/mapper/vg0-root".into();
    let efi = with(
        device("sda1", DeviceKind::Partition, &["sda"]),
        "vfat",
        "ESP",
        file_system(),
    );
    let mount = |device: &str, at: &str, is_mounted| Mount {
        device: device.into(),
        at: at.into(),
        file_system: "xfs".into(),
        is_mounted,
        is_awaited: true,
        is_read_only: false,
        is_dax: false,
    };
    Storage {
        devices: vec![root, disk, efi, member],
        mounts: vec![mount("dm-0", "/", true), mount("UUID=9", "/data", false)],
        ..Storage::default()
    }
}

fn network() -> Network {
    Network {
        interfaces: vec![Interface {
            name: "eth0".into(),
            mac: "52:54:00:00:00:01".into(),
            driver: Some("virtio_net".into()),
            is_up: true,
            addresses: vec!["192.0.2.7/24".into()],
        }],
        routes: vec![Route {
            gateway: "192.0.2.1".into(),
            interface: "eth0".into(),
        }],
        dns: vec!["192.0.2.53".into()],
        configured: vec![Configured {
            by: ConfiguredBy::Interfaces,
            file: "/etc/network/interfaces".into(),
            interface: "eth0".into(),
            mac: String::new(),
            method: Method::Static,
            addresses: vec!["192.0.2.7/24".into()],
            gateways: vec!["192.0.2.1".into()],
            dns: vec![],
        }],
    }
}

fn inventory() -> Inventory {
    let service = |name: &str, is_enabled, is_running| Service {
        name: name.into(),
        is_enabled,
        is_running: Some(is_running),
    };
    let driver = |name: &str, place| Driver {
        name: name.into(),
        place,
    };
    let mut inventory = Inventory {
        storage: storage(),
        network: network(),
        kernels: vec![Kernel {
            release: "6.1.0".into(),
            image: "/boot/vmlinuz-6.1.0".into(),
            initramfs: Initramfs::Read {
                path: "/boot/initrd.img-6.1.0".into(),
                compression: "zstd".into(),
                modules: 1,
            },
            drivers: vec![
                driver("nvme", Place::Initramfs),
                driver("xfs", Place::BuiltIn),
            ],
        }],
        services: vec![
            service("nginx", true, true),
            service("mine", false, true),
            service("cron", true, false),
        ],
        ..Inventory::default()
    };
    inventory.machine.firmware = Some(Firmware::Uefi);
    inventory.machine.secure_boot = Some(false);
    inventory.machine.timezone = Some("Europe/Berlin".into());
    inventory
}

#[test]
fn a_source_shows_its_machine_and_what_stands_in_the_way() {
    let finding = |level: &str, subject: &str| FindingView {
        level: level.into(),
        subject: subject.into(),
        what: "it is so".into(),
        todo: "do this".into(),
    };
    let server = ServerView {
        inventory: Some(inventory()),
        findings: vec![finding("blocker", "volume group vg0"), finding("note", "/")],
        ..server()
    };
    let page = servers::page(&server, &look());
    let expected = "\
devices
NAME             SIZE  KIND  ON IT           LABEL  UUID  MOUNTED
sda           1.0 GiB  disk  GPT             -      -     -
  sda1        1.0 GiB  part  vfat            ESP    77    -
  sda2        1.0 GiB  part  LVM, group vg0  -      77    -
    vg0-root  1.0 GiB  lvm   xfs             root   77    /
/etc/fstab has UUID=9 on /data, which is not mounted

network
NAME  LINK  DRIVER      HARDWARE ADDRESS   ADDRESSES
eth0  up    virtio_net  52:54:00:00:00:01  192.0.2.7/24
default route by 192.0.2.1 on eth0
name servers 192.0.2.53

network settings
INTERFACE  BY        METHOD  ADDRESSES     ROUTERS    FILE
eth0       ifupdown  static  192.0.2.7/24  192.0.2.1  /etc/network/interfaces

kernels
6.1.0: /boot/initrd.img-6.1.0, packed by zstd, with 1 driver
  built in: xfs
  in the initramfs: nvme

services
run and start with the system: nginx
run, and were started otherwise: mine
start with the system: cron

readiness
blocker  volume group vg0  it is so
                           → do this
note     /                 it is so
                           → do this
";
    assert!(page.ends_with(&expected), "{page}");
    assert!(
        page.contains("firmware   UEFI, secure boot is off\n"),
        "{page}"
    );
    assert!(page.contains("time zone  Europe/Berlin\n"), "{page}");
}

#[test]
fn a_source_in_order_is_said_to_be_so_and_one_that_was_not_read_is_not() {
    let known = ServerView {
        inventory: Some(Inventory::default()),
        ..server()
    };
    let page = servers::page(&known, &look());
    assert!(
        page.ends_with("readiness\nnothing stands in the way\n"),
        "{page}"
    );
    let unknown = servers::page(&server(), &look());
    assert!(!unknown.contains("readiness"), "{unknown}");
}
