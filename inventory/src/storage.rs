//! Disks with all that lies on them: devices by sysfs, contents by their superblocks,
//! mounts by the kernel and by `/etc/fstab`.

use crate::Tree;
use crdt::inventory::{Detail, StateFolder, Storage, Swap, VolumeGroup};
use std::path::Path;

mod devices;
mod mounts;
mod named;
#[cfg(test)]
mod tests;

use crate::content::Group;

/// With less than this a node is about to be unable to store.
const LEAST_STATE_BYTES: u64 = 256 << 20;

/// Reads it; `state` is the folder of the node that runs on it.
pub(crate) fn read(tree: &Tree, state: Option<&Path>) -> Storage {
    let (mut found, groups) = devices::read(tree);
    let groups = merged(groups);
    // A physical volume may leave its group's metadata to the others.
    for device in &mut found {
        let Some(content) = &mut device.device.content else {
            continue;
        };
        if let Detail::PhysicalVolume { group } = &mut content.detail
            && let Some(of) = groups.iter().find(|of| of.members.contains(&content.uuid))
        {
            group.clone_from(&of.name);
        }
    }
    let mounted = mounts::mounted(tree);
    Storage {
        mounts: mounts::read(tree, &mounted, &found),
        swaps: swaps(&tree.text("/proc/swaps").unwrap_or_default()),
        named_by_path: named::read(tree),
        state: state.map(|state| state_folder(state, &mounted, &found)),
        devices: found.into_iter().map(|found| found.device).collect(),
        groups,
    }
}

/// One entry for each group.
fn merged(groups: Vec<Group>) -> Vec<VolumeGroup> {
    let mut merged: Vec<VolumeGroup> = vec![];
    for Group { name, members } in groups {
        match merged.iter_mut().find(|known| known.name == name) {
            Some(known) => {
                let more = members.into_iter();
                let more: Vec<String> = more.filter(|id| !known.members.contains(id)).collect();
                known.members.extend(more);
            }
            None => merged.push(VolumeGroup { name, members }),
        }
    }
    merged
}

/// `/proc/swaps`: path, kind, length in KiB. One in compressed memory is on no disk.
fn swaps(text: &str) -> Vec<Swap> {
    let lines = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let path = mounts::unescaped(fields.first()?);
        let in_memory = path.starts_with("/dev/zram");
        (!in_memory).then(|| {
            Some(Swap {
                bytes: fields.get(2)?.parse::<u64>().ok()?.saturating_mul(1024),
                is_file: *fields.get(1)? == "file",
                path,
            })
        })?
    });
    lines.collect()
}

fn state_folder(
    state: &Path,
    mounted: &[mounts::Mounted],
    devices: &[devices::Found],
) -> StateFolder {
    let real = state.canonicalize().unwrap_or_else(|_| state.to_owned());
    let below = mounted.iter().filter(|mount| real.starts_with(&mount.at));
    // Of several at one place the last covers the others.
    let holder = below.max_by_key(|mount| mount.at.len());
    let device = holder.and_then(|mount| mount.device(devices));
    let free = rustix::fs::statvfs(&real).map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    StateFolder {
        path: state.display().to_string(),
        device: device.unwrap_or_default(),
        is_short_of_room: free.is_ok_and(|free| free < LEAST_STATE_BYTES),
    }
}
