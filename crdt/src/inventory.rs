//! What a node's machine is: hardware, system, kernels, disks, network and services, as
//! its report tells it. What could not be read is absent.
//!
//! Not here: reading it (`inventory`, a crate of its own) and what follows from it for a
//! migration.

use crate::cut::Cut;
use codec::Wire;
use serde::{Deserialize, Serialize};

mod network;
mod storage;
#[cfg(test)]
mod tests;

pub use network::{Configured, ConfiguredBy, Interface, Method, Network, Route};
pub use storage::{
    Content, Detail, Device, DeviceKind, Mount, NamedByPath, Partition, StateFolder, Storage, Swap,
    Table, VolumeGroup,
};

/// Most kernels in an inventory, newest first.
pub const MAX_KERNELS: usize = 8;
/// Most drivers told of one kernel.
pub const MAX_DRIVERS: usize = 64;
/// Most block devices, whole disks and what lies on them together.
pub const MAX_DEVICES: usize = 128;
/// Most mounts.
pub const MAX_MOUNTS: usize = 128;
/// Most swap areas.
pub const MAX_SWAPS: usize = 16;
/// Most places in files of the system that name a device by its path.
pub const MAX_NAMED_BY_PATH: usize = 32;
/// Most volume groups.
pub const MAX_GROUPS: usize = 32;
/// Most disks told of one volume group.
pub const MAX_MEMBERS: usize = 64;
/// Most network interfaces.
pub const MAX_INTERFACES: usize = 64;
/// Most addresses, routes or name servers in one list.
pub const MAX_ADDRESSES: usize = 16;
/// Most interfaces told of by files of configuration.
pub const MAX_CONFIGURED: usize = 64;
/// Most services.
pub const MAX_SERVICES: usize = 256;
/// Longest text in an inventory, in bytes.
pub const MAX_WORD: usize = 128;

/// The machine that a node runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Hardware and firmware.
    pub machine: Machine,
    /// Operating system.
    pub system: System,
    /// Kernels that are installed, newest first.
    pub kernels: Vec<Kernel>,
    /// Disks with all that lies on them.
    pub storage: Storage,
    /// Interfaces, and what configures them.
    pub network: Network,
    /// Services that start with the system or run now, by name.
    pub services: Vec<Service>,
    /// Whether something was left out to keep it within its size.
    pub truncated: bool,
}

impl Wire for Inventory {
    const NAME: &'static str = "inventory";
    const VERSION: u8 = 1;
    const LIMIT: usize = 48 * 1024;
}

/// Hardware, firmware and clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Maker, by the firmware; empty where it does not say.
    pub vendor: String,
    /// Model, or the kind of virtual machine.
    pub model: String,
    /// How it was started.
    pub firmware: Option<Firmware>,
    /// Whether the firmware checks signatures of what it starts.
    pub secure_boot: Option<bool>,
    /// Model of the processors.
    pub processor: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Made of `/etc/machine-id`, which it does not tell; empty where there is none.
    pub id: String,
    /// Name of the time zone in the IANA database.
    pub timezone: Option<String>,
    /// Whether the clock is held to another, where a file tells.
    pub clock_synchronised: Option<bool>,
}

/// How a machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// By the boot sector of a disk.
    Bios,
    /// By a program on an EFI system partition.
    Uefi,
}

/// Operating system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// `ID` of os-release, e.g. `debian`.
    pub id: String,
    /// `VERSION_ID` of os-release, e.g. `12`.
    pub version: String,
    /// Name for people.
    pub name: String,
    /// Release of the kernel that runs; empty where none does.
    pub kernel: String,
}

/// An installed kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Its release, e.g. `6.1.0-18-amd64`.
    pub release: String,
    /// Its image, from the root of the system.
    pub image: String,
    /// What it starts with before it has a root file system.
    pub initramfs: Initramfs,
    /// Of the drivers that a machine elsewhere may need to start: those that it has.
    pub drivers: Vec<Driver>,
}

/// What is known of a kernel's initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initramfs {
    /// There is none by its usual names.
    Absent,
    /// It could not be read.
    Unknown {
        /// Its file.
        path: String,
        /// Why.
        why: String,
    },
    /// It was read to its end.
    Read {
        /// Its file.
        path: String,
        /// How it is packed, e.g. `zstd`.
        compression: String,
        /// Drivers of all kinds in it.
        modules: u32,
    },
}

/// A driver that a kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Its name, with `_` for `-`.
    pub name: String,
    /// Where it is.
    pub place: Place,
}

/// Where a driver is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In the kernel itself.
    BuiltIn,
    /// In its initramfs.
    Initramfs,
    /// On the root file system alone: too late for starting from it.
    RootFileSystem,
}

/// A service of the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its unit, without `.service`.
    pub name: String,
    /// Whether it starts with the system.
    pub is_enabled: bool,
    /// Whether it runs; none where no system runs.
    pub is_running: Option<bool>,
}

impl Inventory {
    /// Whether every list, text and the whole are within their limits.
    pub fn is_sound(&self) -> bool {
        let mut cut = self.clone();
        cut.cut();
        cut == *self
    }

    /// Cuts it to its limits: texts and lists first, then, while the whole is too large,
    /// half of the services, then of the older kernels, of what configures the network,
    /// of mounts and of devices.
    pub fn cut(&mut self) {
        let mut cut = Cut::default();
        let word = |cut: &mut Cut, text: &mut String| cut.shorten(text, MAX_WORD);
        for text in [
            &mut self.machine.vendor,
            &mut self.machine.model,
            &mut self.machine.processor,
            &mut self.machine.id,
            &mut self.system.id,
            &mut self.system.version,
            &mut self.system.name,
            &mut self.system.kernel,
        ] {
            word(&mut cut, text);
        }
        if let Some(zone) = &mut self.machine.timezone {
            word(&mut cut, zone);
        }
        cut.list(&mut self.kernels, MAX_KERNELS);
        for kernel in &mut self.kernels {
            kernel.cut(&mut cut);
        }
        self.storage.cut(&mut cut);
        self.network.cut(&mut cut);
        cut.list(&mut self.services, MAX_SERVICES);
        for service in &mut self.services {
            word(&mut cut, &mut service.name);
        }
        self.truncated |= cut.any;
        while codec::encode(self).is_err() && self.shed() {}
    }

    /// Leaves out the least missed part; false when there is nothing left to leave out.
    fn shed(&mut self) -> bool {
        self.truncated = true;
        fn half<T>(list: &mut Vec<T>, least: usize) -> bool {
            let long = list.len() > least;
            list.truncate((list.len() / 2).max(least));
            long
        }
        half(&mut self.services, 0)
            || half(&mut self.kernels, 1)
            || half(&mut self.network.configured, 0)
            || half(&mut self.network.interfaces, 0)
            || half(&mut self.storage.named_by_path, 0)
            || half(&mut self.storage.mounts, 0)
            || half(&mut self.storage.groups, 0)
            || half(&mut self.storage.devices, 0)
            || half(&mut self.kernels, 0)
    }
}

impl Kernel {
    fn cut(&mut self, cut: &mut Cut) {
        cut.shorten(&mut self.release, MAX_WORD);
        cut.shorten(&mut self.image, MAX_WORD);
        match &mut self.initramfs {
            Initramfs::Absent => {}
            Initramfs::Unknown { path, why } => {
                cut.shorten(path, MAX_WORD);
                cut.shorten(why, MAX_WORD);
            }
            Initramfs::Read {
                path, compression, ..
            } => {
                cut.shorten(path, MAX_WORD);
                cut.shorten(compression, MAX_WORD);
            }
        }
        cut.list(&mut self.drivers, MAX_DRIVERS);
        for driver in &mut self.drivers {
            cut.shorten(&mut driver.name, MAX_WORD);
        }
    }
}
