//! Which devices the offered disks carry, wholly.

use crdt::inventory::{Device, Storage};
use std::collections::BTreeSet;

/// Devices stand on others to this depth; deeper is a circle.
const MAX_DEPTH: usize = 16;

/// The devices of a machine, and those that are copied.
pub(super) struct Stack<'a> {
    storage: &'a Storage,
    offered: BTreeSet<&'a str>,
}

impl<'a> Stack<'a> {
    /// None where nothing is offered, or something by a path that the inventory does not
    /// have: what is copied then is not known.
    pub(super) fn new(storage: &'a Storage, offered: &[&str]) -> Option<Self> {
        let named = offered.iter().map(|path| {
            let mut devices = storage.devices.iter();
            devices.find(|device| {
                device.path == *path || path.strip_prefix("/dev/") == Some(&device.name)
            })
        });
        let named: Option<BTreeSet<&str>> = named.map(|found| Some(&*found?.name)).collect();
        named
            .filter(|named| !named.is_empty())
            .map(|offered| Self { storage, offered })
    }

    pub(super) fn device(&self, name: &str) -> Option<&'a Device> {
        self.storage
            .devices
            .iter()
            .find(|device| device.name == name)
    }

    /// Whether all of a device is copied.
    pub(super) fn copies(&self, name: &str) -> bool {
        self.copies_at(name, 0)
    }

    fn copies_at(&self, name: &str, depth: usize) -> bool {
        if self.offered.contains(name) {
            return true;
        }
        let below = self.device(name).map_or(&[][..], |device| &device.on);
        let deeper = depth < MAX_DEPTH && !below.is_empty();
        deeper && below.iter().all(|name| self.copies_at(name, depth + 1))
    }
}

/// A device with all that it stands on, itself first.
pub(super) fn below<'a>(storage: &'a Storage, name: &str) -> Vec<&'a Device> {
    let mut found: Vec<&Device> = vec![];
    let mut ahead = vec![name];
    while let Some(name) = ahead.pop() {
        let device = storage.devices.iter().find(|device| device.name == name);
        let known = |device: &&Device| found.iter().all(|known| known.name != device.name);
        if let Some(device) = device.filter(known) {
            found.push(device);
            ahead.extend(device.on.iter().map(String::as_str));
        }
    }
    found
}
