//! Disks: whether what is offered is whole, and what on it cannot be copied as it is.

use super::stack::{Stack, below};
use super::{Finding, Level};
use crdt::Inventory;
use crdt::inventory::{Content, Detail, Device, DeviceKind, Mount, Storage};
use std::collections::{BTreeMap, BTreeSet};

/// Without these mounts a system does not start.
const NEEDED: [&str; 4] = ["/", "/boot", "/boot/efi", "/usr"];

pub(super) fn findings(inventory: &Inventory, offered: &[&str], out: &mut Vec<Finding>) {
    let storage = &inventory.storage;
    match Stack::new(storage, offered) {
        Some(stack) => {
            groups(storage, &stack, out);
            arrays(storage, &stack, out);
            spread_file_systems(storage, &stack, out);
            mounts_left_behind(storage, &stack, out);
            state_on_copy(storage, &stack, out);
        }
        None if !offered.is_empty() => out.push(Finding::new(
            Level::Note,
            "disks",
            "a disk is offered by a path that the inventory does not have, so that it is not known whether the offered disks are complete",
            "offer it by its usual path, such as /dev/sda, or look through its stack by hand",
        )),
        None => {}
    }
    root_stack(storage, out);
    for mount in storage.mounts.iter().filter(|mount| mount.is_mounted) {
        mounted(storage, mount, out);
    }
    for swap in &storage.swaps {
        out.push(Finding::new(
            Level::Note,
            &swap.path,
            "swap is copied like all else unless it is left out, and nobody needs its content elsewhere",
            "to save bytes leave it out of a new migration (`migration create --leave-out swap`), if it is no file",
        ));
    }
    if storage
        .state
        .as_ref()
        .is_some_and(|state| state.is_short_of_room)
    {
        out.push(Finding::new(
            Level::Warning,
            "data folder",
            "the file system of the node's data folder is nearly full: the node stops when it cannot store",
            "make room there, or move the folder and start the node with --data-dir",
        ));
    }
}

fn content(device: &Device) -> Option<&Content> {
    device.content.as_ref()
}

fn names(devices: &[&Device]) -> String {
    let names: Vec<&str> = devices.iter().map(|device| &*device.name).collect();
    names.join(", ")
}

/// Half a volume group does not start.
fn groups(storage: &Storage, stack: &Stack<'_>, out: &mut Vec<Finding>) {
    for group in &storage.groups {
        let is_member = |device: &&Device| {
            content(device).is_some_and(|content| group.members.contains(&content.uuid))
        };
        let members = storage.devices.iter().filter(is_member);
        let (copied, left): (Vec<&Device>, Vec<&Device>) =
            members.partition(|device| stack.copies(&device.name));
        let known = copied.len() + left.len();
        if copied.is_empty() || (left.is_empty() && known >= group.members.len()) {
            continue;
        }
        let missing = match left.is_empty() {
            true => format!(
                "{} of its disks are not seen here",
                group.members.len() - known
            ),
            false => format!("{} is not on an offered disk", names(&left)),
        };
        out.push(Finding::new(
            Level::Blocker,
            format!("volume group {}", group.name),
            format!("only a part of it is offered ({}): {missing}, and half a group does not start", names(&copied)),
            "offer the other disks too (`dunlin volume add`), or take them out of the group (`pvmove`, `vgreduce`)",
        ));
    }
}

/// Copies of one disk go on with less; other arrays do not start.
fn arrays(storage: &Storage, stack: &Stack<'_>, out: &mut Vec<Finding>) {
    let mut arrays: BTreeMap<&str, (Vec<&Device>, &str, u32)> = BTreeMap::new();
    for device in &storage.devices {
        if let Some(content) = content(device)
            && let Detail::RaidMember { level, devices, .. } = &content.detail
        {
            let array = arrays
                .entry(&content.uuid)
                .or_insert((vec![], level, *devices));
            array.0.push(device);
        }
    }
    for (members, level, needed) in arrays.into_values() {
        let is_copied = |device: &&Device| stack.copies(&device.name);
        let (copied, left): (Vec<&Device>, Vec<&Device>) = members.into_iter().partition(is_copied);
        if copied.is_empty() || copied.len() >= needed as usize {
            continue;
        }
        let mirrored = level == "raid1";
        let what = match mirrored {
            true => "the copy starts without the others, and tells that it is degraded",
            false => "the array does not start with less than it needs",
        };
        let others = match left.is_empty() {
            true => "the others are not seen here".to_owned(),
            false => format!("{} is not offered", names(&left)),
        };
        out.push(Finding::new(
            if mirrored { Level::Warning } else { Level::Blocker },
            format!("array of {}", names(&copied)),
            format!("{} of {needed} members of this {level} are offered; {others}: {what}", copied.len()),
            "offer all of its disks (`dunlin volume add`); for a mirror one is enough if you take the others out of the copy (`mdadm --grow --raid-devices`)",
        ));
    }
}

/// A file system on several devices needs all of them.
fn spread_file_systems(storage: &Storage, stack: &Stack<'_>, out: &mut Vec<Finding>) {
    let mut spread: BTreeMap<&str, (Vec<&Device>, u32)> = BTreeMap::new();
    for device in &storage.devices {
        if let Some(content) = content(device)
            && let Detail::FileSystem { devices, .. } = content.detail
            && devices > 1
        {
            spread
                .entry(&content.uuid)
                .or_insert((vec![], devices))
                .0
                .push(device);
        }
    }
    for (members, needed) in spread.into_values() {
        let is_copied = |device: &&&Device| stack.copies(&device.name);
        let copied: Vec<&Device> = members.iter().filter(is_copied).copied().collect();
        if !copied.is_empty() && copied.len() < needed as usize {
            out.push(Finding::new(
                Level::Blocker,
                format!("file system of {}", names(&members)),
                format!("it lies on {needed} devices, of which {} are offered", copied.len()),
                "offer the others too (`dunlin volume add`), or remove them from it (`btrfs device remove`)",
            ));
        }
    }
}

/// Mounts whose devices are not copied.
fn mounts_left_behind(storage: &Storage, stack: &Stack<'_>, out: &mut Vec<Finding>) {
    let left = storage.mounts.iter().filter(|mount| {
        mount.is_mounted && stack.device(&mount.device).is_some() && !stack.copies(&mount.device)
    });
    for mount in left {
        if NEEDED.contains(&&*mount.at) {
            out.push(Finding::new(
                Level::Blocker,
                &mount.at,
                format!(
                    "its device {} is not on an offered disk: the copy cannot start without it",
                    mount.device
                ),
                "offer its disk too: `dunlin volume add`",
            ));
        } else if mount.is_awaited {
            out.push(Finding::new(
                Level::Warning,
                &mount.at,
                format!("its device {} is not on an offered disk, and /etc/fstab names it: the copy waits for it at its start", mount.device),
                "offer its disk too (`dunlin volume add`), or give its entry the option nofail",
            ));
        }
    }
}

/// The node that offers refuses its own disk, and does not look through what is stacked.
fn state_on_copy(storage: &Storage, stack: &Stack<'_>, out: &mut Vec<Finding>) {
    let Some(state) = &storage.state else { return };
    if stack.copies(&state.device) {
        out.push(Finding::new(
            Level::Warning,
            "data folder",
            format!("{} lies on {}, which is copied: what the node writes there is found anew by each pass", state.path, state.device),
            "move it to another disk or to memory (e.g. below /run), and start the node with --data-dir",
        ));
    }
}

/// What the root file system stands on.
fn root_stack(storage: &Storage, out: &mut Vec<Finding>) {
    let mut mounts = storage.mounts.iter();
    let root = mounts.find(|mount| mount.at == "/" && mount.is_mounted);
    let devices = root.map_or(vec![], |root| below(storage, &root.device));
    let has = |kind| devices.iter().any(|device| device.kind == kind);
    if has(DeviceKind::Crypt) {
        out.push(Finding::new(
            Level::Warning,
            "/",
            "it is encrypted: the copy asks for the passphrase when it starts, and keys in this machine's TPM do not move",
            "have the passphrase and a console of the target at hand, or add a key that the target can use (`cryptsetup luksAddKey`)",
        ));
    }
    if has(DeviceKind::Multipath) {
        out.push(Finding::new(
            Level::Warning,
            "/",
            "it is reached over several paths (multipath), which the target does not have",
            "check that the initramfs starts it from a single path: LVM or UUIDs instead of names of paths",
        ));
    }
    let stacked: BTreeSet<&str> = devices
        .iter()
        .filter_map(|device| stacked(device))
        .collect();
    if !stacked.is_empty() {
        let stacked: Vec<&str> = stacked.into_iter().collect();
        out.push(Finding::new(
            Level::Note,
            "/",
            format!(
                "it stands on {}, which the initramfs must put together",
                stacked.join(" and ")
            ),
            "nothing, as long as all of its disks are offered and the names stay as they are",
        ));
    }
}

fn stacked(device: &Device) -> Option<&'static str> {
    match device.kind {
        DeviceKind::Volume => Some("LVM"),
        DeviceKind::Raid => Some("MD"),
        _ => None,
    }
}

/// What a mounted file system cannot do.
fn mounted(storage: &Storage, mount: &Mount, out: &mut Vec<Finding>) {
    if mount.is_dax {
        out.push(Finding::new(
            Level::Warning,
            &mount.at,
            "it is mounted with DAX: programs write past the block layer, where no change can be followed",
            "mount it without the option dax before the cutover",
        ));
    }
    if mount.is_read_only {
        return;
    }
    if mount.file_system == "vfat" {
        out.push(Finding::new(
            Level::Note,
            &mount.at,
            "FAT cannot be frozen: what is written there at the moment of the cutover may be half in the copy",
            "change nothing there during the cutover: no update of the kernel or the boot loader",
        ));
        return;
    }
    let mut devices = storage.devices.iter();
    let device = devices.find(|device| device.name == mount.device);
    let detail = device.and_then(content).map(|content| &content.detail);
    if let Some(Detail::FileSystem {
        has_journal: Some(false),
        ..
    }) = detail
    {
        out.push(Finding::new(
            Level::Warning,
            &mount.at,
            format!(
                "its {} has no journal: a copy that is taken while it is written needs a check",
                mount.file_system
            ),
            "add a journal (`tune2fs -j` for ext2), or stop what writes there before the cutover",
        ));
    }
}
