//! Installed kernels, and which drivers each has before and after it finds its root file
//! system.

use crate::Tree;
use crdt::inventory::{Driver, Initramfs, Kernel, Place};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

mod initramfs;
#[cfg(test)]
mod tests;

pub(crate) use initramfs::Seen;

/// What machines of clouds and hypervisors, and usual servers, need for disks and network,
/// and what lies between a disk and a file system.
const DRIVERS: [&str; 45] = [
    "ahci",
    "ata_piix",
    "btrfs",
    "bnxt_en",
    "crc32c_generic",
    "dm_crypt",
    "dm_mod",
    "dm_multipath",
    "dm_snapshot",
    "e1000",
    "e1000e",
    "efivarfs",
    "ena",
    "ext4",
    "gve",
    "hpsa",
    "hv_netvsc",
    "hv_storvsc",
    "hv_vmbus",
    "i40e",
    "igb",
    "iavf",
    "ixgbe",
    "ixgbevf",
    "mana",
    "megaraid_sas",
    "mlx5_core",
    "mpt3sas",
    "mptspi",
    "nvme",
    "nvme_core",
    "raid1",
    "raid10",
    "raid456",
    "sd_mod",
    "usb_storage",
    "virtio_blk",
    "virtio_net",
    "virtio_pci",
    "virtio_scsi",
    "vmw_pvscsi",
    "vmxnet3",
    "xen_blkfront",
    "xen_netfront",
    "xfs",
];
/// Kernels whose initramfs is unpacked; each takes a second of a processor or less.
const MAX_READ: usize = 4;

/// Kernels that have an image in `/boot`, newest first.
pub(crate) fn read(tree: &Tree, seen: &mut Seen) -> Vec<Kernel> {
    let names = tree.names("/boot");
    let mut found: BTreeMap<&str, &str> = BTreeMap::new();
    for name in &names {
        // `vmlinuz-RELEASE`, on SUSE for ARM and older ones `Image-` and `vmlinux-`.
        let release = ["vmlinuz-", "Image-", "vmlinux-"]
            .iter()
            .find_map(|before| name.strip_prefix(before));
        let is_packed = |release: &str| release.ends_with(".gz") || release.ends_with(".xz");
        if let Some(release) = release.filter(|release| !is_packed(release)) {
            found.entry(release).or_insert(name);
        }
    }
    let mut found: Vec<(&str, &str)> = found.into_iter().collect();
    found.sort_by(|a, b| by_version(b.0, a.0));
    let kernels = found.into_iter().enumerate().map(|(at, (release, image))| {
        let path = initramfs::path(tree, release, &names);
        let (initramfs, modules) = match path {
            None => (Initramfs::Absent, BTreeSet::new()),
            Some(path) if at < MAX_READ => initramfs::read(tree, &path, seen),
            Some(path) => {
                let why = "only the newest are unpacked".to_owned();
                (Initramfs::Unknown { path, why }, BTreeSet::new())
            }
        };
        Kernel {
            release: release.to_owned(),
            image: format!("/boot/{image}"),
            initramfs,
            drivers: drivers(tree, release, &modules),
        }
    });
    kernels.collect()
}

/// Where each of the drivers is: the earliest place counts.
fn drivers(tree: &Tree, release: &str, modules: &BTreeSet<String>) -> Vec<Driver> {
    let folder = format!("/lib/modules/{release}");
    let list = |file: &str| {
        let text = tree.text(&format!("{folder}/{file}")).unwrap_or_default();
        let paths = text.lines().filter_map(|line| line.split(':').next());
        paths.filter_map(module_name).collect::<BTreeSet<String>>()
    };
    let (built_in, installed) = (list("modules.builtin"), list("modules.dep"));
    let place = |name: &str| match () {
        () if built_in.contains(name) => Some(Place::BuiltIn),
        () if modules.contains(name) => Some(Place::Initramfs),
        () if installed.contains(name) => Some(Place::RootFileSystem),
        () => None,
    };
    let all = DRIVERS.iter().filter_map(|name| {
        Some(Driver {
            name: (*name).to_owned(),
            place: place(name)?,
        })
    });
    all.collect()
}

/// The driver that a file has, with `_` for `-`; none where it has none.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, packed) = file.split_once(".ko")?;
    let is_module = matches!(packed, "" | ".gz" | ".xz" | ".zst");
    is_module.then(|| name.replace('-', "_"))
}

/// By numbers where both have one, else by their letters: 5.10 is newer than 5.9.
fn by_version(a: &str, b: &str) -> Ordering {
    let order = parts(a).cmp(&parts(b));
    order.then_with(|| a.cmp(b))
}

/// Numbers and words in between.
fn parts(version: &str) -> Vec<(u64, &str)> {
    let mut parts = vec![];
    let mut rest = version;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let after = &rest[digits..];
        let word = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        parts.push((rest[..digits].parse().unwrap_or(0), &after[..word]));
        rest = &after[word..];
    }
    parts
}
