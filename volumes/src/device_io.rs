//! What the kernel counts of the IO of a device: how many reads and writes it completed,
//! how long they took, and how many are under way
//! (`Documentation/admin-guide/iostats.rst` of Linux).
//!
//! Not here: what follows from it (`courtesy`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{major, minor};

use crate::sysfs::{self, Shown};
use crate::{SourceIdentity, SourceVolume};

/// Where the kernel shows its devices.
const SYSTEM: &str = "/sys";

/// What a device did since it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounts {
    /// Reads that it completed.
    pub reads: u64,
    /// Writes and flushes that it completed.
    pub writes: u64,
    /// How long these took, all together.
    pub write_time: Duration,
    /// Reads and writes that are under way.
    pub in_flight: u64,
}

/// Why nothing is known of a device's IO.
#[derive(Debug, thiserror::Error)]
pub enum NoDeviceIo {
    /// What the source lies on is no block device: a network or stacked file system.
    #[error("{path} lies on device {major}:{minor}, which the kernel shows no IO of")]
    NotShown {
        /// The source.
        path: PathBuf,
        /// Of the device's number.
        major: u32,
        /// Of the device's number.
        minor: u32,
    },
    /// There are figures, and they stand still: counting is off (`queue/iostats`), or the
    /// driver does not count, as of some kernels for several paths to one disk.
    #[error(
        "the kernel does not count the IO of {disk}: where {disk}/queue/iostats is 0, write 1 to it"
    )]
    NotCounted {
        /// Where the kernel shows the device.
        disk: PathBuf,
    },
    /// The source, or what the kernel shows, could not be read.
    #[error("cannot read the IO of the device of {path}: {source}")]
    Io {
        /// The source.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The counts of the device that a source is, or lies on. Of a partition it is the whole
/// disk, since that is what works.
#[derive(Debug)]
pub struct DeviceIo {
    file: File,
    path: PathBuf,
    disk: PathBuf,
}

impl DeviceIo {
    /// Finds them.
    ///
    /// # Errors
    /// Where there are none.
    pub fn of(source: &SourceVolume) -> Result<Self, NoDeviceIo> {
        Self::shown_in(Path::new(SYSTEM), source)
    }

    fn shown_in(system: &Path, source: &SourceVolume) -> Result<Self, NoDeviceIo> {
        let path = source.path().to_owned();
        let number = match source.identity() {
            SourceIdentity::File { device, .. } => device,
            SourceIdentity::Device { number } => number,
            SourceIdentity::Other => match fs::metadata(&path) {
                Ok(metadata) => metadata.dev(),
                Err(source) => return Err(NoDeviceIo::Io { path, source }),
            },
        };
        let (major, minor) = (major(number), minor(number));
        let Ok(Shown { disk, .. }) = Shown::find(system, (major, minor)) else {
            return Err(NoDeviceIo::NotShown { path, major, minor });
        };
        let found = File::open(disk.join("stat")).map(|file| Self {
            file,
            path: path.clone(),
            disk,
        });
        let found = found.map_err(|source| NoDeviceIo::Io { path, source })?;
        let counts = found.counts()?;
        // The kernel read a file system to mount it.
        let is_still = !source.identity().is_device() && counts.reads == 0;
        match is_still || sysfs::is_counting_off(&found.disk) {
            true => Err(NoDeviceIo::NotCounted { disk: found.disk }),
            false => Ok(found),
        }
    }

    /// Where the kernel shows the device: the same for all that lies on it.
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// What was counted until now.
    ///
    /// # Errors
    /// When the kernel does not say: the device may be gone.
    pub fn counts(&self) -> Result<IoCounts, NoDeviceIo> {
        let counts = sysfs::read_numbers(&self.file).and_then(|numbers| {
            let counts = numbers.and_then(|numbers| counts_of(&numbers));
            counts
                .ok_or_else(|| io::Error::other("it is not the line of numbers that was expected"))
        });
        counts.map_err(|source| NoDeviceIo::Io {
            path: self.path.clone(),
            source,
        })
    }
}

/// Kernels have added numbers at the end: of discards, then of flushes.
fn counts_of(numbers: &[u64]) -> Option<IoCounts> {
    let optional = |at: usize| numbers.get(at).copied().unwrap_or(0);
    let millis = numbers.get(7)?.checked_add(optional(16))?;
    Some(IoCounts {
        reads: *numbers.first()?,
        writes: numbers.get(4)?.checked_add(optional(15))?,
        write_time: Duration::from_millis(millis),
        in_flight: *numbers.get(8)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::os::unix::fs::FileExt;

    use crate::loop_device::LoopDevice;
    use crate::{AlignedBuf, ReadBlocks};
    use blocks::BlockIndex;

    #[test]
    fn lines_of_all_kernels_are_read_and_others_are_not() {
        let parse = |line: &str| counts_of(&sysfs::numbers_of(line)?);
        let of = |line: &str| parse(line).unwrap();
        let plain = "9 1 800 30 4 1 64 20 2 40 50\n";
        let expected = IoCounts {
            reads: 9,
            writes: 4,
            write_time: Duration::from_millis(20),
            in_flight: 2,
        };
        assert_eq!(of(plain), expected);
        assert_eq!(of("9 1 800 30 4 1 64 20 2 40 50 7 0 9 9"), expected);
        let flushes = of(" 9 1 800 30  4 1 64 20  2 40 50  7 0 9 9  3 5 ");
        assert_eq!((flushes.writes, flushes.write_time.as_millis()), (7, 25));
        let most = u64::MAX;
        for bad in [
            "",
            "9",
            "9 1 800 30 4 1 64 20",
            "9 1 800 30 4 1 64 x 2 40 50",
            &format!("9 1 800 30 {most} 1 64 20 2 40 50 7 0 9 9 3 5"),
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn reads_and_writes_of_a_device_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let file = File::create(&image).unwrap();
        file.set_len(4 << 20).unwrap();
        let Some(device) = LoopDevice::attach(&image) else {
            return;
        };
        let source = SourceVolume::open(device.path()).unwrap();
        let io = DeviceIo::of(&source).unwrap();
        let before = io.counts().unwrap();
        let mut buf = AlignedBuf::new(16);
        source.read_blocks(BlockIndex(0), 16, &mut buf).unwrap();
        let read = io.counts().unwrap();
        assert!(read.reads > before.reads, "{before:?} {read:?}");
        assert_eq!(read.writes, before.writes);
        let writer = File::options().write(true).open(device.path()).unwrap();
        writer.write_all_at(&[1; 4096], 0).unwrap();
        writer.sync_all().unwrap();
        let written = io.counts().unwrap();
        assert!(written.writes > read.writes, "{read:?} {written:?}");
    }

    #[test]
    fn a_device_whose_io_is_not_counted_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(4 << 20).unwrap();
        let Some(device) = LoopDevice::attach(&image) else {
            return;
        };
        let source = SourceVolume::open(device.path()).unwrap();
        let io = DeviceIo::of(&source).unwrap();
        let iostats = io.disk().join("queue/iostats");
        if let Err(error) = fs::write(&iostats, "0") {
            eprintln!("skipped: what the kernel counts cannot be changed here: {error}");
            return;
        }
        let found = DeviceIo::of(&source);
        // It stays with the number, and others will have that.
        fs::write(&iostats, "1").unwrap();
        let none = found.unwrap_err();
        assert!(matches!(none, NoDeviceIo::NotCounted { .. }), "{none}");
    }

    #[test]
    fn where_nothing_is_counted_or_counting_is_off_it_is_told_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let number = fs::metadata(&image).unwrap().dev();
        let source = SourceVolume::open(&image).unwrap();
        // As the kernel shows a partition: in its disk, and from where devices are.
        let disk = folder.path().join("disk");
        let (queue, part) = (disk.join("queue"), disk.join("part"));
        for shown in [&queue, &part] {
            fs::create_dir_all(shown).unwrap();
        }
        fs::write(part.join("partition"), "1\n").unwrap();
        let links = folder.path().join("dev/block");
        fs::create_dir_all(&links).unwrap();
        let link = links.join(format!("{}:{}", major(number), minor(number)));
        std::os::unix::fs::symlink(&part, link).unwrap();
        let read = "9 1 800 30 4 1 64 20 2 40 50\n";
        let nothing = "0 0 0 0 0 0 0 0 0 0 0\n";
        for (stat, iostats, is_counted) in [
            (read, None, true),
            (read, Some("1\n"), true),
            (read, Some("0\n"), false),
            (nothing, None, false),
            (nothing, Some("1\n"), false),
        ] {
            fs::write(disk.join("stat"), stat).unwrap();
            if let Some(said) = iostats {
                fs::write(queue.join("iostats"), said).unwrap();
            } else if queue.join("iostats").exists() {
                fs::remove_file(queue.join("iostats")).unwrap();
            }
            match DeviceIo::shown_in(folder.path(), &source) {
                Ok(io) => {
                    assert!(is_counted, "{stat} {iostats:?}");
                    assert_eq!(io.disk(), disk.canonicalize().unwrap());
                }
                Err(NoDeviceIo::NotCounted { disk: told }) => {
                    assert!(!is_counted, "{stat} {iostats:?}");
                    assert_eq!(told, disk.canonicalize().unwrap());
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn what_lies_on_no_device_is_told_apart() {
        let shm = Path::new("/dev/shm");
        if !shm.exists() {
            eprintln!("skipped: /dev/shm is not there");
            return;
        }
        let folder = tempfile::tempdir_in(shm).unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let source = SourceVolume::open(&image).unwrap();
        let none = DeviceIo::of(&source).unwrap_err();
        assert!(matches!(none, NoDeviceIo::NotShown { .. }), "{none}");
    }
}
