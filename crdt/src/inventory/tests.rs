//! How an inventory is written, and how it is cut to its size.
#![allow(clippy::unwrap_used)]

use super::*;

fn service(name: String) -> Service {
    Service {
        name,
        is_enabled: true,
        is_running: Some(false),
    }
}

#[test]
fn the_bytes_of_an_inventory_are_as_they_were() {
    let inventory = Inventory {
        machine: Machine {
            vendor: "QEMU".into(),
            firmware: Some(Firmware::Uefi),
            secure_boot: Some(true),
            cpus: 2,
            memory_bytes: 4096,
            ..Machine::default()
        },
        kernels: vec![Kernel {
            release: "6.1".into(),
            image: "/boot/v".into(),
            initramfs: Initramfs::Read {
                path: "/boot/i".into(),
                compression: "xz".into(),
                modules: 7,
            },
            drivers: vec![Driver {
                name: "nvme".into(),
                place: Place::Initramfs,
            }],
        }],
        storage: Storage {
            devices: vec![Device {
                name: "sda1".into(),
                path: "/dev/sda1".into(),
                kind: DeviceKind::Partition,
                bytes: 1024,
                model: None,
                on: vec!["sda".into()],
                table: None,
                partition: Some(Partition {
                    number: 1,
                    start_bytes: 2048,
                    kind: "0x83".into(),
                    name: String::new(),
                }),
                content: Some(Content {
                    kind: "ext4".into(),
                    uuid: "u".into(),
                    label: "l".into(),
                    detail: Detail::FileSystem {
                        has_journal: Some(true),
                        devices: 1,
                    },
                }),
            }],
            ..Storage::default()
        },
        services: vec![service("sshd".into())],
        ..Inventory::default()
    };
    let bytes = codec::encode(&inventory).unwrap();
    let golden = [
        &b"\x01\x04QEMU\x00\x01\x01\x01\x01\x00\x02\xfb\x00\x10\x00\x00\x00"[..],
        b"\x00\x00\x00\x00",
        b"\x01\x036.1\x07/boot/v\x02\x07/boot/i\x02xz\x07\x01\x04nvme\x01",
        b"\x01\x04sda1\x09/dev/sda1\x01\xfb\x00\x04\x00\x01\x03sda\x00",
        b"\x01\x01\xfb\x00\x08\x040x83\x00",
        b"\x01\x04ext4\x01u\x01l\x01\x01\x01\x01",
        b"\x00\x00\x00\x00\x00",
        b"\x00\x00\x00\x00",
        b"\x01\x04sshd\x01\x01\x00\x00",
    ];
    assert_eq!(bytes, golden.concat());
    assert_eq!(codec::decode::<Inventory>(&bytes).unwrap(), inventory);
}

#[test]
fn an_inventory_that_is_too_large_is_cut_to_its_size_and_says_so() {
    let long = || "ä".repeat(MAX_WORD);
    let mut inventory = Inventory::default();
    inventory.machine.vendor = long();
    assert!(!inventory.is_sound());
    inventory.cut();
    assert_eq!(inventory.machine.vendor.len(), MAX_WORD);
    assert!(inventory.truncated && inventory.is_sound());

    let mut inventory = Inventory {
        services: (0..1000).map(|_| service(long())).collect(),
        ..Inventory::default()
    };
    inventory.network.configured = (0..100)
        .map(|_| Configured {
            by: ConfiguredBy::Netplan,
            file: long(),
            interface: long(),
            mac: long(),
            method: Method::Static,
            addresses: vec![long(); 20],
            gateways: vec![long(); 20],
            dns: vec![long(); 20],
        })
        .collect();
    inventory.kernels = vec![Kernel {
        release: "6.1".into(),
        image: long(),
        initramfs: Initramfs::Absent,
        drivers: vec![],
    }];
    inventory.cut();
    assert!(inventory.truncated && inventory.is_sound());
    assert!(codec::encode(&inventory).unwrap().len() <= Inventory::LIMIT);
    assert_eq!(inventory.kernels.len(), 1, "what is missed most stays");
}
