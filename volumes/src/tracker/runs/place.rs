//! The disk of a run: a loop device, perhaps with a partition, and a file system on it or
//! none.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Draw;
use crate::loop_device::{LoopDevice, Partition};

const MIB: u64 = 1 << 20;

/// XFS takes 300 MiB at least.
const DISK: u64 = 384 * MIB;

/// Sectors of the partition: it begins within a block.
const FIRST: u64 = 2049;
const SECTORS: u64 = 720_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ext4,
    Xfs,
    Btrfs,
    Raw,
}

/// It; unmounted and detached when dropped.
pub(super) struct Place {
    kind: Kind,
    /// Before the disk, which it goes before.
    partition: Option<Partition>,
    disk: LoopDevice,
    /// What is copied is the partition alone.
    is_part: bool,
    at: Option<PathBuf>,
    options: &'static str,
}

impl Place {
    /// None where it cannot be made here, and a word on stderr.
    pub(super) fn new(folder: &Path, kind: Kind, draw: &mut Draw) -> Option<Self> {
        let image = folder.join("disk");
        File::create(&image).unwrap().set_len(DISK).unwrap();
        let mut place = Self::attached(&image, kind, draw.once_in(3))?;
        place.is_part = place.partition.is_some() && draw.once_in(2);
        place.options = draw.of(&["discard", "defaults"]);
        let (program, quiet) = match kind {
            Kind::Raw => return Some(place),
            Kind::Ext4 => ("mkfs.ext4", "-qF"),
            Kind::Xfs => ("mkfs.xfs", "-qf"),
            Kind::Btrfs => ("mkfs.btrfs", "-qf"),
        };
        let made = Command::new(program)
            .arg(quiet)
            .arg(place.device())
            .output();
        if !made.as_ref().is_ok_and(|made| made.status.success()) {
            eprintln!("skipped: {program} does not work here: {made:?}");
            return None;
        }
        place.mount(folder.join("at"));
        Some(place)
    }

    fn attached(image: &Path, kind: Kind, has_partition: bool) -> Option<Self> {
        let disk = LoopDevice::attach(image)?;
        let partition = match has_partition {
            true => Some(Partition::add(disk.path(), FIRST, SECTORS)?),
            false => None,
        };
        Some(Self {
            kind,
            partition,
            disk,
            is_part: false,
            at: None,
            options: "defaults",
        })
    }

    fn mount(&mut self, at: PathBuf) {
        std::fs::create_dir_all(&at).unwrap();
        let mut command = Command::new("mount");
        command.args(["-o", self.options]).arg(self.device());
        assert!(command.arg(&at).status().unwrap().success());
        self.at = Some(at);
    }

    /// What holds the file system, or is written to.
    pub(super) fn device(&self) -> PathBuf {
        match &self.partition {
            Some(partition) => partition.path(),
            None => self.disk.path().to_owned(),
        }
    }

    /// What is copied.
    pub(super) fn volume(&self) -> PathBuf {
        match self.is_part {
            true => self.device(),
            false => self.disk.path().to_owned(),
        }
    }

    /// Where it is mounted, if it is.
    pub(super) fn mounted(&self) -> Option<&Path> {
        self.at.as_deref()
    }

    /// Discards what is free.
    pub(super) fn trim(&self) {
        if let Some(at) = &self.at {
            // Not all take it.
            let _ = Command::new("fstrim").arg(at).output();
        }
    }

    /// The same with its copy instead of it.
    pub(super) fn into_copy(self, image: &Path) -> Self {
        let has_partition = self.partition.is_some() && !self.is_part;
        let (kind, at, options, device) = (self.kind, self.at.clone(), self.options, self.device());
        drop(self);
        if kind == Kind::Btrfs {
            // Or one would be taken for a part of the other.
            let mut command = Command::new("btrfs");
            let _ = command
                .args(["device", "scan", "--forget"])
                .arg(device)
                .output();
        }
        let mut place = Self::attached(image, kind, has_partition).unwrap();
        place.options = options;
        if let Some(at) = at {
            place.mount(at);
        }
        place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(at) = &self.at {
            // It is, in runs that fail.
            let _ = Command::new("fsfreeze").arg("-u").arg(at).output();
            let _ = Command::new("umount").arg(at).output();
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({})", self.kind, self.options)?;
        match (&self.partition, self.is_part) {
            (None, _) => Ok(()),
            (_, true) => f.write_str(" on a partition that is copied"),
            (_, false) => f.write_str(" on a partition of what is copied"),
        }
    }
}
