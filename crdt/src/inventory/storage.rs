//! Disks, and what lies on them up to the mounts.

use super::{
    MAX_DEVICES, MAX_GROUPS, MAX_MEMBERS, MAX_MOUNTS, MAX_NAMED_BY_PATH, MAX_SWAPS, MAX_WORD,
};
use crate::cut::Cut;
use serde::{Deserialize, Serialize};

/// Disks with all that lies on them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// Block devices by name: disks, partitions, and what is made of them.
    pub devices: Vec<Device>,
    /// Volume groups of LVM that the devices name.
    pub groups: Vec<VolumeGroup>,
    /// File systems on them that are mounted or are to be by `/etc/fstab`.
    pub mounts: Vec<Mount>,
    /// Swap areas in use.
    pub swaps: Vec<Swap>,
    /// Where the system names a device by a path that may be another elsewhere.
    pub named_by_path: Vec<NamedByPath>,
    /// Where this node keeps its own folder.
    pub state: Option<StateFolder>,
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name in the kernel, e.g. `sda1`.
    pub name: String,
    /// Its usual path, e.g. `/dev/mapper/vg0-root`.
    pub path: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Its length in bytes.
    pub bytes: u64,
    /// Make and model, where known.
    pub model: Option<String>,
    /// Names of the devices that it lies on.
    pub on: Vec<String>,
    /// Its table of partitions.
    pub table: Option<Table>,
    /// Its entry in the table of its disk.
    pub partition: Option<Partition>,
    /// What is on it.
    pub content: Option<Content>,
}

/// What a block device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// A whole disk.
    Disk,
    /// A partition.
    Partition,
    /// A logical volume of LVM.
    Volume,
    /// An opened encrypted device.
    Crypt,
    /// Several ways to one disk.
    Multipath,
    /// Another device of the device mapper.
    Mapper,
    /// An array of MD.
    Raid,
    /// A file as a device.
    Loop,
}

/// A table of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// GUID partition table.
    Gpt,
    /// Master boot record.
    Mbr,
}

/// An entry in a table of partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Where it begins on its disk, in bytes.
    pub start_bytes: u64,
    /// Its type: a GUID in lower case, or the byte of a master boot record as `0x83`.
    pub kind: String,
    /// Its name; only GPT has them.
    pub name: String,
}

/// What is on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// In the words of blkid, e.g. `ext4`, `LVM2_member`, `crypto_LUKS`.
    pub kind: String,
    /// Its UUID as blkid writes it; empty without one.
    pub uuid: String,
    /// Its label; empty without one.
    pub label: String,
    /// What more there is to know of this kind.
    pub detail: Detail,
}

/// What more is known of a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Detail {
    /// Nothing.
    None,
    /// A file system.
    FileSystem {
        /// Whether it comes back whole after it stood still under writes.
        has_journal: Option<bool>,
        /// Devices that it lies on.
        devices: u32,
    },
    /// A physical volume of LVM.
    PhysicalVolume {
        /// Name of its group; empty where that is not known, or it is in none.
        group: String,
    },
    /// A member of an MD array.
    RaidMember {
        /// Its level, e.g. `raid1`.
        level: String,
        /// Name of the array; empty without one.
        name: String,
        /// Devices that the array is made of.
        devices: u32,
    },
    /// An encrypted device.
    Luks {
        /// Version of the header.
        version: u16,
    },
}

/// A volume group of LVM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeGroup {
    /// Its name.
    pub name: String,
    /// UUIDs of all its physical volumes.
    pub members: Vec<String>,
}

/// A mount of a block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Name of the device in the kernel; as it is written in `/etc/fstab` where it is not
    /// mounted.
    pub device: String,
    /// Where.
    pub at: String,
    /// Kind of the file system.
    pub file_system: String,
    /// Whether it is mounted; else `/etc/fstab` alone names it.
    pub is_mounted: bool,
    /// Whether a start waits for it: `/etc/fstab` has it, with neither `nofail` nor `noauto`.
    pub is_awaited: bool,
    /// Whether nothing can be written.
    pub is_read_only: bool,
    /// Whether programs may write past the page cache and the block layer.
    pub is_dax: bool,
}

/// A swap area in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// Device or file.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether it is a file in a file system.
    pub is_file: bool,
}

/// A place where the system names a device by its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedByPath {
    /// The file, e.g. `/etc/fstab`.
    pub file: String,
    /// The path, e.g. `/dev/sda2`.
    pub path: String,
}

/// Where the node's own folder is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFolder {
    /// Its path.
    pub path: String,
    /// Name in the kernel of the device it lies on; empty where that is none, as on tmpfs.
    pub device: String,
    /// Whether its file system is nearly full.
    pub is_short_of_room: bool,
}

impl Storage {
    pub(super) fn cut(&mut self, cut: &mut Cut) {
        cut.list(&mut self.devices, MAX_DEVICES);
        for device in &mut self.devices {
            device.cut(cut);
        }
        cut.list(&mut self.groups, MAX_GROUPS);
        for group in &mut self.groups {
            cut.shorten(&mut group.name, MAX_WORD);
            cut.list(&mut group.members, MAX_MEMBERS);
            for member in &mut group.members {
                cut.shorten(member, MAX_WORD);
            }
        }
        cut.list(&mut self.mounts, MAX_MOUNTS);
        for mount in &mut self.mounts {
            cut.shorten(&mut mount.device, MAX_WORD);
            cut.shorten(&mut mount.at, MAX_WORD);
            cut.shorten(&mut mount.file_system, MAX_WORD);
        }
        cut.list(&mut self.swaps, MAX_SWAPS);
        for swap in &mut self.swaps {
            cut.shorten(&mut swap.path, MAX_WORD);
        }
        cut.list(&mut self.named_by_path, MAX_NAMED_BY_PATH);
        for named in &mut self.named_by_path {
            cut.shorten(&mut named.file, MAX_WORD);
            cut.shorten(&mut named.path, MAX_WORD);
        }
        if let Some(state) = &mut self.state {
            cut.shorten(&mut state.path, MAX_WORD);
            cut.shorten(&mut state.device, MAX_WORD);
        }
    }
}

impl Device {
    fn cut(&mut self, cut: &mut Cut) {
        cut.shorten(&mut self.name, MAX_WORD);
        cut.shorten(&mut self.path, MAX_WORD);
        if let Some(model) = &mut self.model {
            cut.shorten(model, MAX_WORD);
        }
        cut.list(&mut self.on, MAX_MEMBERS);
        for name in &mut self.on {
            cut.shorten(name, MAX_WORD);
        }
        if let Some(partition) = &mut self.partition {
            cut.shorten(&mut partition.kind, MAX_WORD);
            cut.shorten(&mut partition.name, MAX_WORD);
        }
        if let Some(content) = &mut self.content {
            content.cut(cut);
        }
    }
}

impl Content {
    fn cut(&mut self, cut: &mut Cut) {
        cut.shorten(&mut self.kind, MAX_WORD);
        cut.shorten(&mut self.uuid, MAX_WORD);
        cut.shorten(&mut self.label, MAX_WORD);
        match &mut self.detail {
            Detail::None | Detail::FileSystem { .. } | Detail::Luks { .. } => {}
            Detail::PhysicalVolume { group } => cut.shorten(group, MAX_WORD),
            Detail::RaidMember { level, name, .. } => {
                cut.shorten(level, MAX_WORD);
                cut.shorten(name, MAX_WORD);
            }
        }
    }
}
