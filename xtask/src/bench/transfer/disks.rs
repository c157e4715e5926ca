//! The disks that are moved, and what changes on them: the same in every run.

use anyhow::{Context, Result};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// A disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// Half of it what file systems hold, half of it noise.
    Dense { mib: u64 },
    /// The same, with holes: 22 % is used.
    Sparse { mib: u64 },
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
        }
    }
}

impl Disk {
    fn bytes(self) -> u64 {
        match self {
            Self::Dense { mib } | Self::Sparse { mib } => mib * MIB,
        }
    }

    /// Writes it anew.
    pub(super) fn write(self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        file.set_len(self.bytes())?;
        let mut noise = Noise(self.bytes());
        let mut files = Files::new()?;
        let mut buf = vec![0; MIB as usize];
        let mut at = 0;
        while at < self.bytes() {
            // Pieces of 64 KiB to 4 MiB.
            let length = (64 << 10) << (noise.next() % 7);
            let end = (at + length).min(self.bytes());
            let (is_hole, is_noise) = (noise.next() % 100 >= 22, noise.next().is_multiple_of(2));
            if is_hole && matches!(self, Self::Sparse { .. }) {
                at = end;
                continue;
            }
            while at < end {
                let bytes = &mut buf[..(end - at).min(MIB) as usize];
                match is_noise {
                    true => noise.fill(bytes),
                    false => files.fill(bytes)?,
                }
                file.write_all_at(bytes, at)?;
                at += bytes.len() as u64;
            }
        }
        Ok(())
    }
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

/// Whether two files hold the same.
pub(super) fn same(one: &Path, other: &Path) -> Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; MIB as usize], vec![0; MIB as usize]);
    loop {
        let read = one.read(&mut a)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut b[..read])?;
        if a[..read] != b[..read] {
            return Ok(false);
        }
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

/// The contents of this machine's programs and libraries, one after the other.
struct Files {
    paths: Vec<PathBuf>,
    open: Option<File>,
}

impl Files {
    fn new() -> Result<Self> {
        let mut paths = vec![];
        for folder in ["/usr/bin", "/usr/sbin", "/usr/lib"] {
            collect(Path::new(folder), &mut paths);
        }
        anyhow::ensure!(!paths.is_empty(), "there are no files in /usr");
        paths.sort_unstable();
        paths.reverse();
        Ok(Self { paths, open: None })
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            let Some(file) = &mut self.open else {
                let Some(path) = self.paths.pop() else {
                    *self = Self::new()?;
                    continue;
                };
                self.open = File::open(path).ok();
                continue;
            };
            match file.read(&mut bytes[filled..]).unwrap_or(0) {
                0 => self.open = None,
                read => filled += read,
            }
        }
        Ok(())
    }
}

/// Plain files of 16 KiB and more. What cannot be looked at is left out.
fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(found) if found.is_dir() => collect(&entry.path(), paths),
            Ok(found) if found.is_file() && found.len() >= 16 << 10 => paths.push(entry.path()),
            _ => {}
        }
    }
}
