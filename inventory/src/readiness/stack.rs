//! Which devices the offered disks carry, wholly.

use crdt::inventory::{Detail, Device, DeviceKind, Storage};
use std::collections::BTreeSet;

/// The devices of a machine, and those that are copied.
pub(super) struct Stack<'a> {
    storage: &'a Storage,
    copied: BTreeSet<&'a str>,
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
        let mut stack = Self {
            storage,
            copied: named.filter(|named| !named.is_empty())?,
        };
        // Each round adds one at least: what a stranger says of its disks is no tree.
        while stack.add_carried() {}
        Some(stack)
    }

    /// Adds the devices that what is copied carries; whether there were any.
    fn add_carried(&mut self) -> bool {
        let devices = self.storage.devices.iter();
        let is_new = |device: &&Device| !self.copied.contains(&*device.name);
        let carried = devices.filter(is_new).filter(|device| self.carries(device));
        let carried: Vec<&str> = carried.map(|device| &*device.name).collect();
        let found = !carried.is_empty();
        self.copied.extend(carried);
        found
    }

    /// Whether a device is there with what is copied: a mirror with any of its members.
    fn carries(&self, device: &Device) -> bool {
        let mut below = device.on.iter().map(String::as_str);
        match self.is_mirror(device) {
            true => below.any(|name| self.copied.contains(name)),
            false => !device.on.is_empty() && below.all(|name| self.copied.contains(name)),
        }
    }

    fn is_mirror(&self, device: &Device) -> bool {
        let is_of_mirror = |name: &String| {
            let content = self.device(name).and_then(|member| member.content.as_ref());
            content.is_some_and(|content| match &content.detail {
                Detail::RaidMember { level, .. } => level == "raid1",
                _ => false,
            })
        };
        device.kind == DeviceKind::Raid && device.on.iter().any(is_of_mirror)
    }

    pub(super) fn device(&self, name: &str) -> Option<&'a Device> {
        self.storage
            .devices
            .iter()
            .find(|device| device.name == name)
    }

    /// Whether all of a device is copied.
    pub(super) fn copies(&self, name: &str) -> bool {
        self.copied.contains(name)
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
