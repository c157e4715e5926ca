//! The drivers in an initramfs: names alone, as it is unpacked, and nothing is kept.
//!
//! It is a row of archives in the `newc` format of cpio, each as it is or packed
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of Linux): microcode
//! comes first and unpacked, what matters last.

use super::module_name;
use crate::Tree;
use crdt::inventory::Initramfs;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;

/// Most that is unpacked of one.
const MAX_UNPACKED: u64 = 512 << 20;
/// A file that is larger is none of this kind.
const MAX_FILE: u64 = 512 << 20;
/// Memory of a decoder of xz: twice the largest dictionary in use.
const XZ_KIB: u32 = 128 << 10;
/// Archives before the last one.
const MAX_ARCHIVES: usize = 8;
/// Drivers in one: a kernel of a distribution has some 5,000.
const MAX_MODULES: usize = 20_000;
/// Longest name in an archive.
const MAX_NAME: u64 = 4096;
/// What ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// What was found in files that are as they were.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<String, (Mark, Initramfs, BTreeSet<String>)>);

/// What changes with a file: inode, length, time of change.
type Mark = (u64, u64, i64, i64);

/// The file of a kernel by the names of each distribution.
pub(super) fn path(tree: &Tree, release: &str, names: &[String]) -> Option<String> {
    let usual = [
        format!("initrd.img-{release}"),
        format!("initramfs-{release}.img"),
        format!("initrd-{release}"),
        format!("initrd-{release}.img"),
    ];
    let name = usual.into_iter().find(|name| names.contains(name))?;
    let path = format!("/boot/{name}");
    tree.exists(&path).then_some(path)
}

/// Reads it, where it is not as it was when it was read last.
pub(super) fn read(tree: &Tree, path: &str, seen: &mut Seen) -> (Initramfs, BTreeSet<String>) {
    let unknown = |why: &str| Initramfs::Unknown {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    let opened = tree.open(path);
    let meta = opened.as_ref().and_then(|file| file.metadata().ok());
    let (Some(file), Some(meta)) = (opened, meta) else {
        seen.0.remove(path);
        return (unknown("it may not be read"), BTreeSet::new());
    };
    if meta.len() > MAX_FILE {
        return (unknown("it is larger than 512 MiB"), BTreeSet::new());
    }
    let mark = (meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec());
    if let Some((known, found, modules)) = seen.0.get(path)
        && *known == mark
    {
        return (found.clone(), modules.clone());
    }
    let (found, modules) = match unpack(file) {
        Ok((compression, modules)) => {
            let found = Initramfs::Read {
                path: path.to_owned(),
                compression: compression.to_owned(),
                modules: u32::try_from(modules.len()).unwrap_or(u32::MAX),
            };
            (found, modules)
        }
        Err(error) => (unknown(&error.to_string()), BTreeSet::new()),
    };
    let new = (mark, found.clone(), modules.clone());
    seen.0.insert(path.to_owned(), new);
    (found, modules)
}

/// How it is packed, and its drivers.
fn unpack(file: File) -> io::Result<(&'static str, BTreeSet<String>)> {
    let mut modules = BTreeSet::new();
    let mut input = BufReader::with_capacity(1 << 16, file);
    for _ in 0..MAX_ARCHIVES {
        if !skip_zeros(&mut input)? {
            return Ok(("none", modules));
        }
        let magic = first_bytes(&mut input)?;
        let mut read = |packed: Box<dyn Read + '_>| {
            let mut unpacked = BufReader::with_capacity(1 << 16, packed.take(MAX_UNPACKED));
            while archive(&mut unpacked, &mut modules)? {}
            Ok::<(), io::Error>(())
        };
        let compression = match magic {
            [b'0', b'7', b'0', b'7', b'0', b'1' | b'2'] => {
                archive(&mut input, &mut modules)?;
                continue;
            }
            [0x1f, 0x8b, ..] => {
                read(Box::new(flate2::bufread::MultiGzDecoder::new(&mut input)))?;
                "gzip"
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut input)?;
                // As the kernel: 128 MiB.
                decoder.window_log_max(27)?;
                read(Box::new(decoder))?;
                "zstd"
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0] => {
                let decoder = lzma_rust2::XzReader::new_mem_limit(&mut input, true, XZ_KIB);
                read(Box::new(decoder))?;
                "xz"
            }
            [0x02, 0x21, 0x4c, 0x18, ..] => {
                read(Box::new(Lz4::new(&mut input)))?;
                "lz4"
            }
            [b'B', b'Z', b'h', ..] => return Err(io::Error::other("bzip2 is not unpacked here")),
            _ => return Err(io::Error::other("it is packed in an unknown way")),
        };
        return Ok((compression, modules));
    }
    Err(io::Error::other("it has too many archives"))
}

fn first_bytes(input: &mut BufReader<File>) -> io::Result<[u8; 6]> {
    let mut magic = [0; 6];
    input.read_exact(&mut magic)?;
    // Behind what is buffered it would be read again.
    input.seek_relative(-6)?;
    Ok(magic)
}

/// Reads over the zeros between archives; false where nothing follows.
fn skip_zeros(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let ready = input.fill_buf()?;
        if ready.is_empty() {
            return Ok(false);
        }
        let length = ready.len();
        match ready.iter().position(|byte| *byte != 0) {
            Some(at) => {
                input.consume(at);
                return Ok(true);
            }
            None => input.consume(length),
        }
    }
}

/// Reads one archive, from its first entry to its trailer; false where none follows.
fn archive(input: &mut impl BufRead, modules: &mut BTreeSet<String>) -> io::Result<bool> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "its archive is damaged");
    if !skip_zeros(input)? {
        return Ok(false);
    }
    loop {
        let mut header = [0; 110];
        input.read_exact(&mut header)?;
        if !header.starts_with(b"07070") {
            return Err(broken());
        }
        let field = |at: usize| {
            let digits = str::from_utf8(&header[6 + 8 * at..14 + 8 * at]).ok();
            digits.and_then(|digits| u64::from_str_radix(digits, 16).ok())
        };
        let (Some(size), Some(name_size)) = (field(6), field(11)) else {
            return Err(broken());
        };
        if name_size == 0 || name_size > MAX_NAME {
            return Err(broken());
        }
        let mut name = vec![];
        input.take(name_size).read_to_end(&mut name)?;
        let name = name.strip_suffix(b"\0").unwrap_or(&name);
        // Header with name, and content, end at multiples of four.
        skip(input, (4 - (110 + name_size) % 4) % 4)?;
        skip(input, size.next_multiple_of(4))?;
        if name == TRAILER {
            return Ok(true);
        }
        if let Some(module) = str::from_utf8(name).ok().and_then(module_name)
            && modules.len() < MAX_MODULES
        {
            modules.insert(module);
        }
    }
}

fn skip(input: &mut impl BufRead, bytes: u64) -> io::Result<()> {
    match io::copy(&mut input.take(bytes), &mut io::sink())? {
        skipped if skipped == bytes => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it ends too early, or is larger than 512 MiB",
        )),
    }
}

/// The legacy frame of LZ4, which is the kernel's: blocks of at most 8 MiB, each behind
/// its packed length (`doc/lz4_Frame_format.md` of LZ4).
struct Lz4<R> {
    input: R,
    block: Vec<u8>,
    filled: usize,
    taken: usize,
}

const LZ4_MAGIC: u32 = 0x184c_2102;
const LZ4_BLOCK: usize = 8 << 20;

impl<R: BufRead> Lz4<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            block: vec![0; LZ4_BLOCK],
            filled: 0,
            taken: 0,
        }
    }

    /// Unpacks the next block; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        loop {
            if self.input.fill_buf()?.is_empty() {
                return Ok(false);
            }
            let mut length = [0; 4];
            self.input.read_exact(&mut length)?;
            let length = u32::from_le_bytes(length);
            // Another frame may follow, and the kernel pads with zeros.
            if length == LZ4_MAGIC {
                continue;
            }
            if length == 0 {
                return Ok(false);
            }
            let mut packed = vec![];
            let limit = lz4_flex::block::get_maximum_output_size(LZ4_BLOCK) as u64;
            let length = u64::from(length);
            if length > limit
                || (&mut self.input).take(length).read_to_end(&mut packed)? as u64 != length
            {
                return Err(io::Error::other("its archive is damaged"));
            }
            let unpacked = lz4_flex::block::decompress_into(&packed, &mut self.block);
            self.filled = unpacked.map_err(io::Error::other)?;
            self.taken = 0;
            return Ok(true);
        }
    }
}

impl<R: BufRead> Read for Lz4<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.filled {
            if !self.advance()? {
                return Ok(0);
            }
        }
        let count = into.len().min(self.filled - self.taken);
        into[..count].copy_from_slice(&self.block[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}
