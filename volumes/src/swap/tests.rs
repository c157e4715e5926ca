//! Swap on images, and on disks as a made-up tree of the kernel's shows them.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::{FileExt, symlink};

use super::*;
use crate::loop_device::LoopDevice;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// A header over so many pages of 4 KiB.
fn header(pages: u32, uuid: u8) -> Vec<u8> {
    let mut head = vec![0; 4096];
    head[1024] = 1;
    head[1028..1032].copy_from_slice(&(pages - 1).to_le_bytes());
    head[1036..1052].fill(uuid);
    head[4086..].copy_from_slice(b"SWAPSPACE2");
    head
}

fn area(offset: u64, pages: u64, uuid: u8) -> SwapArea {
    let uuid = [uuid; 16];
    let length = pages * 4096;
    SwapArea {
        offset,
        length,
        uuid,
    }
}

#[test]
fn an_image_that_is_swap_is_found_as_a_whole_and_another_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let file = File::create(&path).unwrap();
    file.set_len(4 << 20).unwrap();
    let found = || SourceVolume::open(&path).unwrap().swap().unwrap();
    assert_eq!(found(), FoundSwap::default());
    file.write_all_at(&header(1000, 3), 0).unwrap();
    let whole = FoundSwap {
        areas: vec![area(0, 1000, 3)],
        names: vec!["image".into()],
        copied: vec![],
    };
    assert_eq!(found(), whole);
    file.write_all_at(b"S1SUSPEND\0", 4086).unwrap();
    let asleep = found();
    assert_eq!((asleep.areas, asleep.names), (vec![], vec![]));
    assert!(
        asleep.copied[0].contains("hibernation"),
        "{:?}",
        asleep.copied
    );
}

/// What the kernel shows of a disk of three partitions that has the numbers of `device`.
fn shown(system: &Path, device: &Path, parts: &[(&str, u64, u64)]) -> PathBuf {
    let number = fs::metadata(device).unwrap().rdev();
    let disk = system.join("devices/sda");
    fs::create_dir_all(&disk).unwrap();
    for (name, start, sectors) in parts {
        let part = disk.join(name);
        fs::create_dir_all(part.join("holders")).unwrap();
        fs::write(part.join("partition"), "1\n").unwrap();
        fs::write(part.join("start"), format!("{start}\n")).unwrap();
        fs::write(part.join("size"), format!("{sectors}\n")).unwrap();
    }
    let numbers = system.join("dev/block");
    fs::create_dir_all(&numbers).unwrap();
    let number = format!("{}:{}", major(number), minor(number));
    symlink("../../devices/sda", numbers.join(number)).unwrap();
    disk
}

#[test]
fn partitions_are_found_where_the_kernel_shows_them_unless_something_lies_on_them() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let file = File::create(&image).unwrap();
    file.set_len(32 << 20).unwrap();
    file.write_all_at(&header(500, 1), 2048 * 512).unwrap();
    // Longer than its partition, of an old table that counts cylinders, and one as it is.
    file.write_all_at(&header(500, 2), 20_000 * 512).unwrap();
    file.write_all_at(&header(1000, 3), 30_063 * 512).unwrap();
    file.write_all_at(&header(500, 4), 50_000 * 512).unwrap();
    let Some(device) = LoopDevice::attach(&image) else {
        return;
    };
    let system = folder.path().join("sys");
    let parts = [
        ("sda1", 2048, 4096),
        ("sda2", 20_000, 100),
        ("sda5", 30_063, 16_384),
        ("sda6", 50_000, 1 << 40),
    ];
    let disk = shown(&system, device.path(), &parts);
    let source = SourceVolume::open(device.path()).unwrap();
    let swaps = folder.path().join("swaps");
    let look = Look {
        volume: &source,
        system: &system,
        swaps: &swaps,
    };
    let found = look.found().unwrap();
    assert_eq!(
        found.areas,
        [area(2048 * 512, 500, 1), area(30_063 * 512, 1000, 3)]
    );
    assert_eq!(found.names, ["sda1", "sda5"]);
    assert!(
        found.copied[0].starts_with("sda2: its header"),
        "{:?}",
        found.copied
    );
    fs::create_dir(disk.join("sda1/holders/dm-0")).unwrap();
    let held = look.found().unwrap();
    assert_eq!(held.names, ["sda5"]);
    assert!(
        held.copied[0].contains("dm-0 lies on it"),
        "{:?}",
        held.copied
    );
}

#[test]
fn of_two_that_share_a_place_neither_is_left_out_and_what_lies_on_a_mapped_one_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let file = File::create(&image).unwrap();
    file.set_len(4 << 20).unwrap();
    let offset = 2 * BLOCK;
    file.write_all_at(&header(500, 1), 0).unwrap();
    file.write_all_at(&header(500, 2), offset).unwrap();
    let source = SourceVolume::open(&image).unwrap();
    let look = Look {
        volume: &source,
        system: folder.path(),
        swaps: folder.path(),
    };
    let part = |name: &str, start| Part {
        name: name.into(),
        bytes: start..source.length(),
        holder: None,
        number: None,
    };
    let alone = look.areas(&[part("one", 0)]).unwrap();
    assert_eq!(alone.areas, [area(0, 500, 1)]);
    let both = look.areas(&[part("one", 0), part("two", offset)]).unwrap();
    assert_eq!(both.areas, []);
    let told = [
        "one: it and two share a place",
        "two: it and one share a place",
    ];
    assert_eq!(both.copied, told);

    let shown = folder.path().join("block/dm-3");
    fs::create_dir_all(shown.join("holders/dm-4")).unwrap();
    fs::create_dir(shown.join("dm")).unwrap();
    fs::write(shown.join("dm/name"), "vg-swap\n").unwrap();
    let mapped = look.mapped("vg-swap").unwrap();
    assert_eq!(holder_of(&mapped).as_deref(), Some("dm-4"));
    assert_eq!(look.mapped("vg"), None);
}

#[test]
fn swap_files_of_a_disk_are_named_as_copied() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let swap_file = folder.path().join("swap file");
    fs::write(&swap_file, "").unwrap();
    let swaps = folder.path().join("swaps");
    let line = format!(
        "{}/swap\\040file\tfile\t1024\t0\t-2\n",
        folder.path().display()
    );
    fs::write(&swaps, format!("Filename Type Size Used Priority\n{line}")).unwrap();
    let source = SourceVolume::open(&image).unwrap();
    let look = Look {
        volume: &source,
        system: folder.path(),
        swaps: &swaps,
    };
    let on = fs::metadata(&swap_file).unwrap().dev();
    let part = |number| Part {
        name: "sda1".into(),
        bytes: 0..1,
        holder: None,
        number: Some(number),
    };
    let here = part((major(on), minor(on)));
    let told = look.unreached(&[here]);
    assert!(
        told[0].ends_with("swap file: it is a file in a file system"),
        "{told:?}"
    );
    assert_eq!(look.unreached(&[part((0, 0))]), Vec::<String>::new());
}

#[test]
fn what_is_left_out_reads_as_zeros_and_is_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let file = File::create(&path).unwrap();
    let length = 20 * BLOCK + 10;
    file.write_all_at(&vec![7; length as usize], 0).unwrap();
    let zeros = [2 * BLOCK..4 * BLOCK, 5 * BLOCK..6 * BLOCK];
    let source = SourceVolume::open(&path)
        .unwrap()
        .leaving_out(zeros.to_vec());
    let mut data = vec![];
    let mut at = 0;
    while let Some(found) = source.next_data(at, length).unwrap() {
        at = found.end;
        data.push(found);
    }
    assert_eq!(
        data,
        [0..2 * BLOCK, 4 * BLOCK..5 * BLOCK, 6 * BLOCK..length]
    );
    let mut room = AlignedBuf::new(21);
    let bytes = source
        .read_into(BlockIndex(0), 21, room.bytes_mut())
        .unwrap();
    for (at, byte) in (0..).zip(bytes) {
        let is_zero = zeros.iter().any(|zeros| zeros.contains(&at));
        assert_eq!(*byte == 0, is_zero, "{at}");
    }
    assert_eq!(
        read(&source, 3 * BLOCK, 1).unwrap(),
        [7],
        "a header is read as it is"
    );
    let to_the_end = SourceVolume::open(&path).unwrap();
    let to_the_end = to_the_end.leaving_out(vec![BLOCK..9 * BLOCK, 9 * BLOCK..20 * BLOCK]);
    assert_eq!(
        to_the_end.next_data(BLOCK, length).unwrap(),
        Some(20 * BLOCK..length)
    );
    assert_eq!(
        to_the_end
            .next_data(2 * BLOCK, 3 * BLOCK)
            .unwrap()
            .unwrap()
            .start,
        20 * BLOCK
    );
}
