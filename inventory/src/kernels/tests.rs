//! Kernels of trees, with an initramfs packed by each program that packs one.
#![allow(clippy::unwrap_used)]

use super::*;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// An archive in the `newc` format with these files, each with some content.
fn archive(names: &[&str]) -> Vec<u8> {
    let mut bytes = vec![];
    for name in names.iter().chain(&["TRAILER!!!"]) {
        let content: &[u8] = match *name {
            "TRAILER!!!" => b"",
            _ => b"\x7fELF and more",
        };
        let fields = [
            0,
            0o100_644,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        bytes.extend(b"070701");
        for field in fields {
            bytes.extend(format!("{field:08X}").bytes());
        }
        bytes.extend(name.bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn module(name: &str) -> String {
    format!("usr/lib/modules/6.1.0/kernel/drivers/{name}")
}

/// What a program makes of bytes; none, and said so, where it is missing.
fn packed(tool: &str, arguments: &[&str], bytes: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: {tool} is not installed");
        return None;
    };
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{tool}");
    Some(output.stdout)
}

fn tree_with(root: &Path, initramfs: &[u8]) -> Tree {
    fs::create_dir_all(root.join("boot")).unwrap();
    fs::write(root.join("boot/vmlinuz-6.1.0"), "x").unwrap();
    fs::write(root.join("boot/initrd.img-6.1.0"), initramfs).unwrap();
    Tree::new(root)
}

#[test]
fn drivers_are_found_in_an_initramfs_however_it_is_packed() {
    let early = archive(&["kernel/x86/microcode/GenuineIntel.bin"]);
    let main = archive(&[
        "bin/sh",
        &module("nvme/host/nvme.ko"),
        &module("block/virtio_blk.ko.xz"),
        &module("scsi/xen-blkfront.ko.zst"),
    ]);
    let cases: [(&str, &[&str], &str); 5] = [
        ("cat", &[], "none"),
        ("gzip", &["-c"], "gzip"),
        ("zstd", &["-q", "-19", "-c"], "zstd"),
        ("xz", &["--check=crc32", "-c"], "xz"),
        ("lz4", &["-l", "-q", "-c"], "lz4"),
    ];
    for (tool, arguments, compression) in cases {
        let Some(packed) = packed(tool, arguments, &main) else {
            continue;
        };
        let root = tempfile::tempdir().unwrap();
        let whole = [&early[..], &[0; 512], &packed].concat();
        let tree = tree_with(root.path(), &whole);
        let kernels = read(&tree, &mut Seen::default());
        let expected = Initramfs::Read {
            path: "/boot/initrd.img-6.1.0".into(),
            compression: compression.into(),
            modules: 3,
        };
        assert_eq!(kernels[0].initramfs, expected, "{tool}");
        let names: Vec<&str> = kernels[0]
            .drivers
            .iter()
            .map(|driver| &*driver.name)
            .collect();
        assert_eq!(names, ["nvme", "virtio_blk", "xen_blkfront"]);
        assert!(
            kernels[0]
                .drivers
                .iter()
                .all(|driver| driver.place == Place::Initramfs)
        );
    }
}

#[test]
fn one_that_cannot_be_read_says_why() {
    let whole = archive(&["bin/sh"]);
    let cases = [
        (&b"BZh91AY"[..], "bzip2"),
        (b"some text of another kind", "unknown way"),
        (b"\x1f\x8b and no more", ""),
        (&whole[..whole.len() - 60], ""),
    ];
    for (bytes, said) in cases {
        let root = tempfile::tempdir().unwrap();
        let tree = tree_with(root.path(), bytes);
        let kernels = read(&tree, &mut Seen::default());
        let Initramfs::Unknown { why, .. } = &kernels[0].initramfs else {
            panic!("{:?}", kernels[0].initramfs);
        };
        assert!(why.contains(said) && !why.is_empty(), "{why}");
    }
}

#[test]
fn one_that_is_as_it_was_is_not_unpacked_again() {
    let root = tempfile::tempdir().unwrap();
    let tree = tree_with(root.path(), &archive(&[&module("nvme.ko")]));
    let mut seen = Seen::default();
    let first = read(&tree, &mut seen);
    // What was seen is what is told: it is put out of step on purpose.
    let mut other = Seen::default();
    let elsewhere = tempfile::tempdir().unwrap();
    read(
        &tree_with(elsewhere.path(), &archive(&["bin/sh"])),
        &mut other,
    );
    assert_eq!(read(&tree, &mut other), first, "another file is another");
    assert_eq!(read(&tree, &mut seen), first);
    tree_with(root.path(), &archive(&["bin/sh", "bin/cat"]));
    let after = read(&tree, &mut seen);
    assert!(matches!(
        after[0].initramfs,
        Initramfs::Read { modules: 0, .. }
    ));
}

#[test]
fn the_newest_kernel_comes_first_and_the_earliest_place_of_a_driver_counts() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir_all(root.join("boot")).unwrap();
    for release in ["5.9.0-1", "5.10.0-30", "5.10.0-4", "4.19.0"] {
        fs::write(root.join(format!("boot/vmlinuz-{release}")), "x").unwrap();
    }
    fs::write(
        root.join("boot/initramfs-5.10.0-30.img"),
        archive(&[&module("nvme.ko"), &module("virtio_blk.ko")]),
    )
    .unwrap();
    let modules = root.join("lib/modules/5.10.0-30");
    fs::create_dir_all(&modules).unwrap();
    fs::write(modules.join("modules.builtin"), "kernel/drivers/nvme.ko\n").unwrap();
    let dep = "kernel/drivers/net/virtio_net.ko.xz: kernel/net/failover.ko.xz\nkernel/drivers/virtio_blk.ko.xz:\n";
    fs::write(modules.join("modules.dep"), dep).unwrap();
    let kernels = read(&Tree::new(root), &mut Seen::default());
    let releases: Vec<&str> = kernels.iter().map(|kernel| &*kernel.release).collect();
    assert_eq!(releases, ["5.10.0-30", "5.10.0-4", "5.9.0-1", "4.19.0"]);
    let told: Vec<(&str, Place)> = kernels[0]
        .drivers
        .iter()
        .map(|driver| (&*driver.name, driver.place))
        .collect();
    assert_eq!(
        told,
        [
            ("nvme", Place::BuiltIn),
            ("virtio_blk", Place::Initramfs),
            ("virtio_net", Place::RootFileSystem),
        ]
    );
    assert_eq!(kernels[3].initramfs, Initramfs::Absent);
}
