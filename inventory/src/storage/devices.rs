//! Block devices: what sysfs shows of them, and what is on them.

use crate::Tree;
use crate::content::{self, Group, Source};
use crate::table::{self, Entry};
use crdt::inventory::{Device, DeviceKind, Partition};
use std::fs::File;
use std::os::unix::fs::FileExt;

const BLOCK: &str = "/sys/block";
/// sysfs counts in these, whatever the disk does.
const SECTOR: u64 = 512;
/// Memory, and drives for what is put in.
const NO_DISKS: [&str; 4] = ["ram", "zram", "fd", "sr"];

/// A device with its number.
pub(super) struct Found {
    pub(super) device: Device,
    /// `8:1`
    pub(super) number: String,
}

/// All devices, each disk before its partitions, and the volume groups that they tell of.
pub(super) fn read(tree: &Tree) -> (Vec<Found>, Vec<Group>) {
    let (mut all, mut groups) = (vec![], vec![]);
    for name in tree.names(BLOCK) {
        let folder = format!("{BLOCK}/{name}");
        let is_kind = |kind: &&str| {
            let rest = name.strip_prefix(*kind);
            rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
        };
        // A hidden one is one of several ways to a disk that is shown.
        let is_hidden = tree.number(&format!("{folder}/hidden")) == Some(1);
        if is_hidden || NO_DISKS.iter().any(is_kind) {
            continue;
        }
        if let Some(disk) = disk(tree, &folder, &name) {
            read_disk(tree, &folder, disk, &mut all, &mut groups);
        }
    }
    (all, groups)
}

/// A disk or what is made of others; none where it has no length.
fn disk(tree: &Tree, folder: &str, name: &str) -> Option<Found> {
    let of = |file: &str| tree.line(&format!("{folder}/{file}"));
    let bytes = of("size")?.parse::<u64>().ok()?.saturating_mul(SECTOR);
    let mapped = of("dm/name");
    let path = mapped
        .as_ref()
        .map(|mapped| format!("/dev/mapper/{mapped}"));
    let made = [of("device/vendor"), of("device/model")]
        .into_iter()
        .flatten();
    // Disks of SATA have the name of their bus for a maker.
    let made: Vec<String> = made.filter(|word| word != "ATA").collect();
    let found = (bytes > 0).then(|| Found {
        device: Device {
            name: name.to_owned(),
            path: path.unwrap_or_else(|| dev_path(name)),
            kind: kind(tree, folder, name),
            bytes,
            model: (!made.is_empty()).then(|| made.join(" ")),
            on: tree.names(&format!("{folder}/slaves")),
            table: None,
            partition: None,
            content: None,
        },
        number: of("dev").unwrap_or_default(),
    });
    found
}

/// The device mapper's have a UUID that begins with who made them.
fn kind(tree: &Tree, folder: &str, name: &str) -> DeviceKind {
    if tree.exists(&format!("{folder}/dm")) {
        let made = tree.line(&format!("{folder}/dm/uuid")).unwrap_or_default();
        return match made.split('-').next() {
            Some("LVM") => DeviceKind::Volume,
            Some("CRYPT") => DeviceKind::Crypt,
            Some("mpath") => DeviceKind::Multipath,
            _ => DeviceKind::Mapper,
        };
    }
    if tree.exists(&format!("{folder}/md")) {
        return DeviceKind::Raid;
    }
    match name.starts_with("loop") {
        true => DeviceKind::Loop,
        false => DeviceKind::Disk,
    }
}

/// `!` stands for the slash that some drivers have in names.
fn dev_path(name: &str) -> String {
    format!("/dev/{}", name.replace('!', "/"))
}

fn read_disk(
    tree: &Tree,
    folder: &str,
    mut disk: Found,
    all: &mut Vec<Found>,
    groups: &mut Vec<Group>,
) {
    let name = disk.device.name.clone();
    // One that is suspended answers nobody until it is resumed.
    let is_suspended = tree.number(&format!("{folder}/dm/suspended")) == Some(1);
    let opened = match is_suspended {
        true => None,
        false => tree.open(&dev_path(&name)).map(Opened),
    };
    let table = opened.as_ref().and_then(|opened| table::find(opened));
    if let (Some(opened), None) = (&opened, &table) {
        look_into(opened, &mut disk.device, groups);
    }
    let is_package = |device: &Device| {
        let content = device.content.as_ref();
        content.is_some_and(|content| content.kind == "squashfs")
    };
    // Packages that bring their own file system are no disks of the machine.
    if disk.device.kind == DeviceKind::Loop && is_package(&disk.device) {
        return;
    }
    let (kind, entries) = table.map_or((None, vec![]), |(kind, entries)| (Some(kind), entries));
    disk.device.table = kind;
    all.push(disk);
    let mut partitions: Vec<Found> = tree
        .names(folder)
        .iter()
        .filter(|part| part.starts_with(&name))
        .filter_map(|part| partition(tree, folder, &name, part, &entries))
        .collect();
    partitions.sort_by_key(|found| found.device.partition.as_ref().map(|part| part.number));
    for mut found in partitions {
        if let Some(opened) = tree.open(&found.device.path).map(Opened) {
            look_into(&opened, &mut found.device, groups);
        }
        all.push(found);
    }
}

fn partition(
    tree: &Tree,
    folder: &str,
    disk: &str,
    name: &str,
    entries: &[Entry],
) -> Option<Found> {
    let of = |file: &str| tree.line(&format!("{folder}/{name}/{file}"));
    let number = of("partition")?.parse().ok()?;
    let sectors = |text: String| Some(text.parse::<u64>().ok()?.saturating_mul(SECTOR));
    let start_bytes = of("start").and_then(sectors)?;
    let entry = entries
        .iter()
        .find(|entry| entry.start_bytes == start_bytes);
    let entry = entry.cloned();
    Some(Found {
        device: Device {
            name: name.to_owned(),
            path: dev_path(name),
            kind: DeviceKind::Partition,
            bytes: of("size").and_then(sectors)?,
            model: None,
            on: vec![disk.to_owned()],
            table: None,
            partition: Some(Partition {
                number,
                start_bytes,
                kind: entry
                    .as_ref()
                    .map_or_else(String::new, |entry| entry.kind.clone()),
                name: entry.map_or_else(String::new, |entry| entry.name),
            }),
            content: None,
        },
        number: of("dev").unwrap_or_default(),
    })
}

fn look_into(opened: &Opened, device: &mut Device, groups: &mut Vec<Group>) {
    let (content, group) = content::find(opened, device.bytes);
    device.content = content;
    groups.extend(group);
}

/// An open device.
struct Opened(File);

impl Source for Opened {
    fn read(&self, at: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.0.read_at(&mut bytes[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        bytes.truncate(filled);
        Some(bytes)
    }
}
