//! The disks that are moved, and what changes on them: the same in every run.

use anyhow::{Context, Result};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
/// What the engine moves.
const BLOCK: u64 = 64 << 10;

/// A disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// Half of it what file systems hold, half of it noise.
    Dense { mib: u64 },
    /// The same, with holes: 22 % is used.
    Sparse { mib: u64 },
    /// What a dense one holds, a MiB at a time, with holes between: it is so many times
    /// as large.
    Spread { mib: u64, times: u64 },
    /// Nine of ten blocks of 64 KiB are those of the dense one, each at another place.
    Shared { mib: u64 },
}

/// Cuts the source of a folder into so many disks of their own, each with an empty target.
pub(super) fn cut(folder: &Path, parts: u64) -> Result<()> {
    let whole = File::open(folder.join("source"))?;
    let length = whole.metadata()?.len() / parts;
    for part in 0..parts {
        let folder = folder.join(part.to_string());
        fs::create_dir(&folder)?;
        let mut source = File::create(folder.join("source"))?;
        io::copy(&mut (&whole).take(length), &mut source)?;
        File::create(folder.join("target"))?.set_len(length)?;
    }
    fs::remove_file(folder.join("source")).context("removing what was cut")
}

/// What changes before a disk is brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// 1 % of the blocks of 64 KiB.
    Blocks64,
    /// 1 % of the blocks of 4 KiB.
    Blocks4,
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense { mib } => write!(f, "{mib} MiB"),
            Self::Sparse { mib } => write!(f, "{mib} MiB, 22 % used"),
            Self::Spread { mib, times } => write!(f, "{} MiB, {mib} MiB used", mib * times),
            Self::Shared { mib } => write!(f, "{mib} MiB, 90 % of it elsewhere on another"),
        }
    }
}

impl Disk {
    fn bytes(self) -> u64 {
        match self {
            Self::Dense { mib } | Self::Sparse { mib } | Self::Shared { mib } => mib * MIB,
            Self::Spread { mib, times } => mib * times * MIB,
        }
    }

    /// Bytes that it takes.
    pub(super) fn used(self) -> u64 {
        match self {
            Self::Spread { mib, .. } => mib * MIB,
            Self::Sparse { .. } => self.bytes() / 4,
            Self::Dense { .. } | Self::Shared { .. } => self.bytes(),
        }
    }

    /// Writes it anew.
    pub(super) fn write(self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        file.set_len(self.bytes())?;
        self.each_piece(|at, bytes| Ok(file.write_all_at(bytes, at)?))
    }

    /// Whether a file holds it.
    pub(super) fn is_at(self, path: &Path) -> Result<bool> {
        let file = File::open(path)?;
        let mut is_same = file.metadata()?.len() == self.bytes();
        let mut found = vec![0; MIB as usize];
        self.each_piece(|at, bytes| {
            let found = &mut found[..bytes.len()];
            if is_same {
                file.read_exact_at(found, at)?;
                is_same = found == bytes;
            }
            Ok(())
        })?;
        Ok(is_same)
    }

    /// Gives what it holds, at most a MiB at a time, with the place of each.
    fn each_piece(self, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        match self {
            Self::Dense { mib } => used_pieces(mib * MIB, 100, each),
            Self::Sparse { mib } => used_pieces(mib * MIB, 22, each),
            Self::Spread { mib, times } => used_pieces(mib * MIB, 100, |at, bytes| {
                // A piece lies within a MiB, or is cut where one ends.
                let (first, rest) = bytes.split_at(bytes.len().min((MIB - at % MIB) as usize));
                let place = |at: u64| at / MIB * times * MIB + at % MIB;
                each(place(at), first)?;
                let at = at + first.len() as u64;
                if rest.is_empty() {
                    Ok(())
                } else {
                    each(place(at), rest)
                }
            }),
            Self::Shared { mib } => {
                let blocks = mib * MIB / BLOCK;
                let mut noise = Noise(blocks + 1);
                used_pieces(mib * MIB, 100, |at, bytes| {
                    for (block, bytes) in (at / BLOCK..).zip(bytes.chunks(BLOCK as usize)) {
                        let place = elsewhere(block, blocks) * BLOCK;
                        if block % 10 != 0 {
                            each(place, bytes)?;
                            continue;
                        }
                        let mut other = vec![0; bytes.len()];
                        noise.fill(&mut other);
                        each(place, &other)?;
                    }
                    Ok(())
                })
            }
        }
    }
}

/// Another place for each block, and no two the same: a turn by a third of the disk and
/// then the mirror image.
fn elsewhere(block: u64, blocks: u64) -> u64 {
    blocks - 1 - (block + blocks / 3) % blocks
}

/// What a disk holds of which so many percent are used, at most a MiB at a time.
fn used_pieces(
    length: u64,
    percent: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut noise = Noise(length);
    let mut files = Files::new();
    let mut buf = vec![0; MIB as usize];
    let mut at = 0;
    while at < length {
        // Pieces of 64 KiB to 4 MiB.
        let end = (at + (BLOCK << (noise.next() % 7))).min(length);
        let (is_used, is_noise) = (noise.next() % 100 < percent, noise.next().is_multiple_of(2));
        if !is_used {
            at = end;
            continue;
        }
        while at < end {
            let bytes = &mut buf[..(end - at).min(MIB) as usize];
            match is_noise {
                true => noise.fill(bytes),
                false => files.fill(bytes)?,
            }
            each(at, bytes)?;
            at += bytes.len() as u64;
        }
    }
    Ok(())
}

impl Change {
    /// Where it changes, by offset and length.
    pub(super) fn at(self, disk: Disk, round: usize) -> Vec<(u64, u32)> {
        let length: u32 = match self {
            Self::Blocks64 => 64 << 10,
            Self::Blocks4 => 4 << 10,
        };
        let blocks = disk.bytes() / u64::from(length);
        let mut noise = Noise(round as u64 + 1);
        let some = (0..blocks / 100).map(|_| (noise.next() % blocks) * u64::from(length));
        let mut some: Vec<u64> = some.collect();
        some.sort_unstable();
        some.dedup();
        some.into_iter().map(|offset| (offset, length)).collect()
    }
}

/// Writes other bytes there.
pub(super) fn change(path: &Path, changes: &[(u64, u32)]) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let mut noise = Noise(77);
    for (offset, length) in changes {
        let mut bytes = vec![0; *length as usize];
        noise.fill(&mut bytes);
        file.write_all_at(&bytes, *offset)?;
    }
    Ok(())
}

/// One a line.
pub(super) fn text(changes: &[(u64, u32)]) -> String {
    let lines = changes
        .iter()
        .map(|(offset, length)| format!("{offset} {length}\n"));
    lines.collect()
}

/// Whether two files hold the same. Where both have holes nothing is read.
pub(super) fn same(one: &Path, other: &Path) -> Result<bool> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    let length = one.metadata()?.len();
    if other.metadata()?.len() != length {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; MIB as usize], vec![0; MIB as usize]);
    let mut at = 0;
    while let Some(next) = next_data(&one, at)?
        .into_iter()
        .chain(next_data(&other, at)?)
        .min()
    {
        let count = (length - next).min(MIB) as usize;
        one.read_exact_at(&mut a[..count], next)?;
        other.read_exact_at(&mut b[..count], next)?;
        if a[..count] != b[..count] {
            return Ok(false);
        }
        at = next + count as u64;
    }
    Ok(true)
}

/// Where the next byte is that may not lie in a hole, if there is one.
fn next_data(file: &File, at: u64) -> Result<Option<u64>> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(next) => Ok(Some(next)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The same numbers in every run (xorshift64*, Vigna 2016).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The contents of this machine's programs and libraries, one after the other. Folders are
/// read when their turn comes: small disks need few.
struct Files {
    folders: Vec<PathBuf>,
    paths: Vec<PathBuf>,
    open: Option<File>,
    has_some: bool,
}

impl Files {
    fn new() -> Self {
        Self {
            folders: ["/usr/lib", "/usr/sbin", "/usr/bin"]
                .map(PathBuf::from)
                .into(),
            paths: vec![],
            open: None,
            has_some: false,
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            let Some(file) = &mut self.open else {
                self.next()?;
                continue;
            };
            match file.read(&mut bytes[filled..]).unwrap_or(0) {
                0 => self.open = None,
                read => filled += read,
            }
        }
        Ok(())
    }

    /// Opens another file, or reads another folder, or begins again.
    fn next(&mut self) -> Result<()> {
        if let Some(path) = self.paths.pop() {
            self.open = File::open(path).ok().filter(is_large);
            self.has_some |= self.open.is_some();
        } else if let Some(folder) = self.folders.pop() {
            self.list(&folder);
        } else {
            anyhow::ensure!(self.has_some, "there are no files in /usr");
            *self = Self::new();
        }
        Ok(())
    }

    /// What cannot be looked at is left out.
    fn list(&mut self, folder: &Path) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries {
            match entry.file_type() {
                Ok(found) if found.is_dir() => self.folders.push(entry.path()),
                Ok(found) if found.is_file() => self.paths.push(entry.path()),
                _ => {}
            }
        }
        self.folders.sort_unstable();
        self.paths.sort_unstable();
    }
}

fn is_large(file: &File) -> bool {
    file.metadata().is_ok_and(|found| found.len() >= 16 << 10)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::os::unix::fs::MetadataExt;
    use tempfile::TempDir;

    fn written(folder: &TempDir, name: &str, disk: Disk) -> PathBuf {
        let path = folder.path().join(name);
        disk.write(&path).unwrap();
        path
    }

    fn blocks(path: &Path) -> Vec<Vec<u8>> {
        let bytes = fs::read(path).unwrap();
        bytes.chunks(BLOCK as usize).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn a_disk_is_the_same_each_time_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        for disk in [Disk::Dense { mib: 8 }, Disk::Shared { mib: 8 }] {
            let (one, other) = (
                written(&folder, "one", disk),
                written(&folder, "other", disk),
            );
            assert!(same(&one, &other).unwrap() && disk.is_at(&one).unwrap());
        }
    }

    #[test]
    fn one_byte_makes_another_disk() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::Spread { mib: 4, times: 8 };
        let (one, other) = (
            written(&folder, "one", disk),
            written(&folder, "other", disk),
        );
        let file = OpenOptions::new().write(true).open(&other).unwrap();
        // In a hole of both.
        file.write_all_at(&[1], 3 * MIB).unwrap();
        assert!(!same(&one, &other).unwrap());
        file.write_all_at(&[0], 3 * MIB).unwrap();
        assert!(same(&one, &other).unwrap());
        file.write_all_at(b"other", 8 * MIB).unwrap();
        assert!(!same(&one, &other).unwrap() && !disk.is_at(&other).unwrap());
    }

    #[test]
    fn a_spread_disk_holds_what_the_dense_one_does_and_takes_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let dense = written(&folder, "dense", Disk::Dense { mib: 4 });
        let spread = written(
            &folder,
            "spread",
            Disk::Spread {
                mib: 4,
                times: 1000,
            },
        );
        let found = fs::metadata(&spread).unwrap();
        assert_eq!(found.len(), 4000 * MIB);
        assert!(found.blocks() * 512 <= 5 * MIB, "{} blocks", found.blocks());
        let (dense, spread) = (fs::read(dense).unwrap(), File::open(spread).unwrap());
        for (at, piece) in (0..).zip(dense.chunks(MIB as usize)) {
            let mut bytes = vec![0; piece.len()];
            spread.read_exact_at(&mut bytes, at * 1000 * MIB).unwrap();
            assert!(bytes == piece, "the MiB {at} is not where it should be");
        }
    }

    #[test]
    fn of_ten_blocks_of_a_shared_disk_nine_are_on_the_dense_one_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let first = blocks(&written(&folder, "first", Disk::Dense { mib: 16 }));
        let second = blocks(&written(&folder, "second", Disk::Shared { mib: 16 }));
        assert_eq!((first.len(), second.len()), (256, 256));
        let mut places: BTreeMap<&[u8], BTreeSet<usize>> = BTreeMap::new();
        for (at, block) in first.iter().enumerate() {
            places.entry(block).or_default().insert(at);
        }
        let found = second.iter().enumerate();
        let found = found.filter_map(|(at, block)| Some((at, places.get(&block[..])?)));
        let elsewhere = found.filter(|(at, places)| !places.contains(at)).count();
        // Every tenth is new, and a few more may be those that stay where they were.
        assert!((228..=230).contains(&elsewhere), "{elsewhere} of 256");
    }
}
