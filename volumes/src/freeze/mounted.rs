//! Which file systems lie on some disks: from what is mounted, down through what each device
//! lies on.
//!
//! ```text
//! mounted ─▶ partition ─▶ disk
//!         ─▶ LVM, RAID, dm-crypt ─▶ others
//!         ─▶ loop device ─▶ file ─▶ the file system that has it ─▶ …
//!         ─▶ btrfs ─▶ each of its devices
//! ```
//!
//! Not here: freezing them. Not found: file systems that do not say where they lie (ZFS), and
//! devices in use by somebody else than the kernel's file systems (a database on a partition
//! of its own, a virtual machine).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::Number;
use super::mounts::{self, Mount, View};
use super::stack::{self, Below};

/// Where the kernel shows its devices.
const SYSTEM: &str = "/sys";

/// Why nothing is known of what is mounted.
#[derive(Debug, thiserror::Error)]
pub enum CannotLook {
    /// Only block devices have file systems on them.
    #[error("{path} is no block device: what is mounted from a file is not looked for")]
    NoDevice {
        /// What was given.
        path: PathBuf,
    },
    /// A disk that was given could not be looked at.
    #[error("cannot look at {path}: {source}")]
    Disk {
        /// It.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Proc is not mounted, or we may not look.
    #[error("cannot read what is mounted (/proc/self/mountinfo): {source}")]
    Mounts {
        /// The cause.
        source: io::Error,
    },
}

/// A file system that is mounted, however often, and lies on some of the disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// The number that its mounts have.
    pub device: Number,
    /// Of what kind it is: `ext4`.
    pub kind: String,
    /// What was mounted: a device mostly.
    pub source: PathBuf,
    /// Where, in its namespace: one place of several.
    pub at: PathBuf,
    /// With these options.
    pub options: String,
    /// Nobody can write to it before it is mounted anew.
    pub is_read_only: bool,
    /// Those of the disks that it lies on, as they were given.
    pub disks: Vec<PathBuf>,
    /// Other devices that it lies on as well: a copy of the disks does not have it whole.
    pub besides: Vec<PathBuf>,
    /// It may be written without the kernel's block layer: nothing sees these writes.
    pub is_dax: bool,
    /// Its mounts, and where each is for us.
    pub(super) ways: Vec<(Mount, PathBuf)>,
    /// File systems that files below it are on.
    pub(super) inside: BTreeSet<Number>,
}

/// Something that seems to be in use on the disks and cannot be made quiet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// The device, the file or the mount.
    pub what: PathBuf,
    /// Why it is not reached.
    pub why: String,
}

/// What is in use on some disks.
#[derive(Debug, Clone, Default)]
pub struct InUse {
    /// File systems, in the order in which they are frozen: one that lies on a file of
    /// another is before that.
    pub file_systems: Vec<Mounted>,
    /// Partitions and files that memory is swapped to. Freezing does not hold it.
    pub swaps: Vec<PathBuf>,
    /// What is not known.
    pub unreached: Vec<Unreached>,
}

/// Looks what is mounted from some disks (whole ones, partitions, or devices of LVM), in
/// whichever namespace of mounts.
///
/// # Errors
/// Where nothing is known of it.
pub fn mounted_on(disks: &[PathBuf]) -> Result<InUse, CannotLook> {
    let views = mounts::views().map_err(|source| CannotLook::Mounts { source })?;
    let mut given = BTreeMap::new();
    for path in disks {
        let metadata = fs::metadata(path);
        let metadata = metadata.map_err(|source| CannotLook::Disk {
            path: path.clone(),
            source,
        })?;
        if !metadata.file_type().is_block_device() {
            return Err(CannotLook::NoDevice { path: path.clone() });
        }
        given.insert(number(metadata.rdev()), path.clone());
    }
    let look = Look {
        system: Path::new(SYSTEM),
        views: &views,
        given: &given,
    };
    Ok(look.in_use())
}

/// A disk and its partitions.
pub(super) fn with_partitions(disk: &Path) -> Result<Vec<PathBuf>, CannotLook> {
    let device = device_at(disk);
    let found = device.and_then(|device| stack::with_partitions(Path::new(SYSTEM), device));
    found.map_err(|source| CannotLook::Disk {
        path: disk.to_owned(),
        source,
    })
}

fn number(device: u64) -> Number {
    (major(device), minor(device))
}

/// The number of the block device at a path.
fn device_at(path: &Path) -> io::Result<Number> {
    let metadata = fs::metadata(path)?;
    match metadata.file_type().is_block_device() {
        true => Ok(number(metadata.rdev())),
        false => Err(io::Error::other("it is no block device")),
    }
}

/// Looks down from what is mounted.
struct Look<'l> {
    system: &'l Path,
    views: &'l [View],
    given: &'l BTreeMap<Number, PathBuf>,
}

/// What something lies on.
#[derive(Debug, Default)]
struct Way {
    seen: BTreeSet<Number>,
    disks: BTreeSet<PathBuf>,
    besides: BTreeSet<PathBuf>,
    inside: BTreeSet<Number>,
    is_memory: bool,
    unreached: Vec<Unreached>,
}

impl Look<'_> {
    fn in_use(&self) -> InUse {
        let mut found = InUse::default();
        let mut file_systems: BTreeMap<Number, Vec<(&View, &Mount)>> = BTreeMap::new();
        for view in self.views {
            for mount in &view.mounts {
                let mounts = file_systems.entry(mount.device).or_default();
                mounts.push((view, mount));
            }
        }
        for mounts in file_systems.values() {
            let way = self.down_from(mounts);
            if !way.disks.is_empty() {
                found.unreached.extend(way.unreached.iter().cloned());
                found.file_systems.push(mounted(mounts, way));
            }
        }
        for (kind, device) in stack::in_use(self.system) {
            let mut way = Way::default();
            self.down(device, &mut way);
            if !way.disks.is_empty() && !file_systems.contains_key(&device) {
                let why = format!("its {kind} is in use where no process is that can be looked at");
                let what = stack::name(self.system, device);
                found.unreached.push(Unreached { what, why });
            }
        }
        let inside = found.file_systems.iter().map(|of| (of.device, &of.inside));
        let depths = depths(&inside.collect());
        let depth = |of: &Mounted| depths.get(&of.device).copied().unwrap_or(0);
        found
            .file_systems
            .sort_by_key(|of| std::cmp::Reverse(depth(of)));
        found.swaps = self.swaps();
        found
    }

    /// What a file system lies on, whose mounts these are.
    fn down_from(&self, mounts: &[(&View, &Mount)]) -> Way {
        let mut way = Way::default();
        match self.devices_of(mounts) {
            Ok(devices) => {
                for device in devices {
                    self.down(device, &mut way);
                }
            }
            Err(error) => way
                .unreached
                .extend(mounts.first().map(|(_, mount)| Unreached {
                    what: mount.at.clone(),
                    why: format!("its devices cannot be found: {error}"),
                })),
        }
        way
    }

    /// The devices that a file system has; none where it has none, as tmpfs.
    fn devices_of(&self, mounts: &[(&View, &Mount)]) -> io::Result<BTreeSet<Number>> {
        let Some((
            _,
            Mount {
                device,
                kind,
                source,
                ..
            },
        )) = mounts.first()
        else {
            return Ok(BTreeSet::new());
        };
        if device.0 != 0 {
            return Ok([*device].into());
        }
        // Of several devices, divided by colons, bcachefs has its own in the source.
        let text = source.to_string_lossy();
        if !text.starts_with("/dev/") {
            return Ok(BTreeSet::new());
        }
        let parts: Vec<PathBuf> = text.split(':').map(PathBuf::from).collect();
        let of_part = |part: &PathBuf| {
            let mut ways = mounts.iter().map(|(view, _)| device_at(&view.reach(part)));
            let first = ways.find(Result::is_ok);
            first.unwrap_or_else(|| device_at(part))
        };
        let devices: BTreeSet<Number> = match parts.iter().map(of_part).collect() {
            Ok(devices) => devices,
            // A name that begins so may be anything, but not for this one.
            Err(error) if kind == "btrfs" => return Err(error),
            Err(_) => return Ok(BTreeSet::new()),
        };
        match devices.first() {
            Some(one) if kind == "btrfs" => stack::btrfs_devices(self.system, *one),
            _ => Ok(devices),
        }
    }

    /// Follows a device down to the disks.
    fn down(&self, device: Number, way: &mut Way) {
        if !way.seen.insert(device) {
            return;
        }
        way.is_memory |= stack::is_memory(self.system, device);
        if let Some(disk) = self.given.get(&device) {
            way.disks.insert(disk.clone());
            return;
        }
        match stack::below(self.system, device) {
            Ok(Below::Nothing) => {
                way.besides.insert(stack::name(self.system, device));
            }
            Ok(Below::Devices(lower)) => {
                for device in lower {
                    self.down(device, way);
                }
            }
            Ok(Below::File(file)) => self.down_through(&file, device, way),
            Err(error) => way.unreached.push(Unreached {
                what: stack::name(self.system, device),
                why: format!("what it lies on cannot be read: {error}"),
            }),
        }
    }

    /// Follows the file below a loop device.
    fn down_through(&self, file: &Path, device: Number, way: &mut Way) {
        match self.holding(file) {
            Some(mounts) => {
                way.inside
                    .extend(mounts.first().map(|(_, mount)| mount.device));
                let lower = self.down_from(&mounts);
                way.unreached.extend(lower.unreached);
                if lower.disks.is_empty() {
                    // Where else that is says less.
                    way.besides.insert(stack::name(self.system, device));
                    return;
                }
                way.disks.extend(lower.disks);
                way.besides.extend(lower.besides);
                way.inside.extend(lower.inside);
                way.is_memory |= lower.is_memory;
            }
            None => way.unreached.push(Unreached {
                what: stack::name(self.system, device),
                why: format!("the file below it, {}, is not found", file.display()),
            }),
        }
    }

    /// The mounts of the file system that has a file, which may be in any namespace.
    fn holding(&self, file: &Path) -> Option<Vec<(&View, &Mount)>> {
        self.views.iter().find_map(|view| {
            let on = number(fs::metadata(view.reach(file)).ok()?.dev());
            let is_it = |mount: &&Mount| mount.device == on;
            let by_number = view.mounts.iter().find(is_it);
            // Each subvolume of a btrfs has a number of its own.
            let under = view
                .mounts
                .iter()
                .filter(|mount| file.starts_with(&mount.at));
            let by_path = || under.max_by_key(|mount| mount.at.components().count());
            let device = by_number.or_else(by_path)?.device;
            let mounts = view.mounts.iter().filter(|mount| mount.device == device);
            Some(mounts.map(|mount| (view, mount)).collect())
        })
    }

    /// What of the disks memory is swapped to.
    fn swaps(&self) -> Vec<PathBuf> {
        // There is no such file where the kernel cannot swap.
        let text = fs::read("/proc/swaps").unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n').skip(1);
        let fields = lines.filter_map(|line| line.split(u8::is_ascii_whitespace).next());
        let paths = fields.map(|field| PathBuf::from(mounts::unescaped(field)));
        let is_on_disks = |path: &PathBuf| {
            let mut way = Way::default();
            match device_at(path) {
                Ok(device) => self.down(device, &mut way),
                Err(_) => self.down_through(path, (0, 0), &mut way),
            }
            !way.disks.is_empty()
        };
        paths
            .filter(|path| path.is_absolute() && is_on_disks(path))
            .collect()
    }
}

fn mounted(mounts: &[(&View, &Mount)], way: Way) -> Mounted {
    let (_, first) = mounts[0];
    let may_be_dax = way.is_memory && !first.has("dax=never");
    Mounted {
        device: first.device,
        kind: first.kind.clone(),
        source: first.source.clone(),
        at: first.at.clone(),
        options: first.options.clone(),
        is_read_only: first.has("ro"),
        disks: way.disks.into_iter().collect(),
        besides: way.besides.into_iter().collect(),
        is_dax: may_be_dax || first.has("dax") || first.has("dax=always"),
        ways: mounts
            .iter()
            .map(|(view, mount)| ((*mount).clone(), view.reach(&mount.at)))
            .collect(),
        inside: way.inside,
    }
}

/// How many file systems each of these lies within, by those that files below it are on.
fn depths(inside: &BTreeMap<Number, &BTreeSet<Number>>) -> BTreeMap<Number, usize> {
    let mut depths: BTreeMap<Number, usize> = inside.keys().map(|of| (*of, 0)).collect();
    // None is deeper than there are; in a circle, which there cannot be, this ends too.
    for _ in 0..inside.len() {
        for (of, outer) in inside {
            let outer = outer.iter().filter_map(|outer| depths.get(outer));
            let depth = outer.max().map_or(0, |depth| depth + 1);
            depths.insert(*of, depth);
        }
    }
    depths
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::symlink;

    use super::*;

    /// What a kernel shows of two disks, a partition of one, and a volume over that and the
    /// other.
    fn tree() -> tempfile::TempDir {
        let system = tempfile::tempdir().unwrap();
        let devices = system.path().join("devices");
        fs::create_dir_all(system.path().join("dev/block")).unwrap();
        for (shown, number) in [
            ("sda", "8:0"),
            ("sda/sda1", "8:1"),
            ("sdb", "8:16"),
            ("dm-0", "252:0"),
        ] {
            let shown = devices.join(shown);
            fs::create_dir_all(&shown).unwrap();
            fs::write(shown.join("dev"), format!("{number}\n")).unwrap();
            symlink(&shown, system.path().join("dev/block").join(number)).unwrap();
        }
        fs::write(devices.join("sda/sda1/partition"), "1\n").unwrap();
        fs::create_dir(devices.join("dm-0/slaves")).unwrap();
        for lower in ["sda/sda1", "sdb"] {
            let name = lower.rsplit('/').next().unwrap();
            symlink(devices.join(lower), devices.join("dm-0/slaves").join(name)).unwrap();
        }
        system
    }

    fn looked(system: &Path, given: &[(Number, &str)], options: &str) -> InUse {
        let line = format!("30 1 252:0 / /srv rw - ext4 /dev/mapper/srv {options}\n");
        let view = View {
            root: "/".into(),
            mounts: mounts::parse(line.as_bytes()),
        };
        let given = given.iter().map(|(number, path)| (*number, path.into()));
        let look = Look {
            system,
            views: &[view],
            given: &given.collect(),
        };
        look.in_use()
    }

    #[test]
    fn a_volume_lies_on_the_disks_of_all_that_is_below_it() {
        let system = tree();
        let both = [((8, 0), "/dev/sda"), ((8, 16), "/dev/sdb")];
        let all = looked(system.path(), &both, "rw").file_systems;
        assert_eq!(all[0].disks, [Path::new("/dev/sda"), Path::new("/dev/sdb")]);
        assert!(all[0].besides.is_empty());
        for (given, besides) in [(0, "/dev/sdb"), (1, "/dev/sda")] {
            let one = looked(system.path(), &both[given..=given], "rw").file_systems;
            assert_eq!(one[0].disks, [Path::new(both[given].1)]);
            assert_eq!(one[0].besides, [Path::new(besides)]);
        }
        // The volume itself is what is copied: it is whole.
        let own = looked(system.path(), &[((252, 0), "/dev/dm-0")], "rw").file_systems;
        assert!(own[0].besides.is_empty());
        let other = looked(system.path(), &[((8, 32), "/dev/sdc")], "rw");
        assert!(other.file_systems.is_empty());
    }

    #[test]
    fn what_may_be_written_past_the_block_layer_is_told() {
        let system = tree();
        let is_dax = |options| {
            let found = looked(system.path(), &[((8, 0), "/dev/sda")], options);
            found.file_systems[0].is_dax
        };
        assert!(is_dax("rw,dax") && is_dax("rw,dax=always") && !is_dax("rw,daxx"));
        let queue = system.path().join("devices/sdb/queue");
        fs::create_dir(&queue).unwrap();
        for (text, expected) in [("0\n", false), ("1\n", true)] {
            fs::write(queue.join("dax"), text).unwrap();
            assert_eq!((is_dax("rw"), is_dax("rw,dax=never")), (expected, false));
        }
    }

    #[test]
    fn what_lies_within_another_is_deeper_than_it() {
        let sets: Vec<BTreeSet<Number>> = vec![
            [(7, 2)].into(),
            BTreeSet::new(),
            [(7, 1)].into(),
            [(9, 9)].into(),
            [(7, 0), (7, 1)].into(),
        ];
        let inside = sets.iter().enumerate();
        let inside = inside.map(|(at, set)| ((7, at as u32), set)).collect();
        let depths: Vec<usize> = depths(&inside).into_values().collect();
        // 4 within 0 within 2 within 1; 3 within one that is none of them.
        assert_eq!(depths, [2, 0, 1, 0, 3]);
    }
}
