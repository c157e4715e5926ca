//! ext4 inside the demo disk's partition: made with `mke2fs` or without it, and read back.
//!
//! It knows folders, files and where their bytes lie; what is in the files comes from the tree, and
//! nothing here mounts anything.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use mkext4::reader::{Fs, ReadAt};
use mkext4::spec::inode::FileType;
use mkext4::{FsBuilder, InodeCount, Meta, Options, ROOT, RegionSink};

use super::disk::content::Tree;
use super::gpt::Span;

const BLOCK: u64 = 4096;

/// The time on everything the built-in maker writes (2026-01-01), so that a seed gives one image.
const EPOCH_SECS: i64 = 1_767_225_600;

/// Inodes beyond those the tree needs, for a person who mounts the copy and works on it.
const SPARE_INODES: usize = 1024;

/// Spelled out, so that no host's `mke2fs.conf` decides what the reader meets.
const FEATURES: &str = "none,has_journal,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super,\
                        large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// Nesting and count that a walk accepts; far above what the demo makes.
const MOST_NESTING: usize = 16;
const MOST_FILES: usize = 1 << 20;

/// Where a file system is to be made.
pub struct Place<'a> {
    /// The image's path, for tools that open it themselves.
    pub path: &'a Path,
    /// The same image, open for writing, at its full length and all zero inside `span`.
    pub image: &'a File,
    /// The partition.
    pub span: Span,
    /// The file system's UUID.
    pub id: [u8; 16],
}

/// Why `mke2fs` did not make a file system.
#[derive(Debug, thiserror::Error)]
pub enum Mke2fsError {
    /// The folder with the files to be copied in could not be written.
    #[error("staging the files in {}: {source}", path.display())]
    Stage {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program did not start.
    #[error("starting {}: {source}", tool.display())]
    Start {
        /// The program.
        tool: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program started and failed.
    #[error("{} ended with {status}: {said}", tool.display())]
    Failed {
        /// The program.
        tool: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to standard error.
        said: String,
    },
}

/// Makes the file system with the program `tool`, by way of a folder beside the image.
pub fn make_with_mke2fs(tool: &Path, place: &Place<'_>, tree: &Tree) -> Result<(), Mke2fsError> {
    let beside = match place.path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let stage = tempfile::tempdir_in(beside).map_err(|source| Mke2fsError::Stage {
        path: beside.to_owned(),
        source,
    })?;
    stage_files(stage.path(), tree).map_err(|source| Mke2fsError::Stage {
        path: stage.path().to_owned(),
        source,
    })?;
    let out = Command::new(tool)
        .args([
            "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0",
        ])
        .args(["-O", FEATURES, "-L", "demo"])
        .args(["-U", &uuid::Uuid::from_bytes(place.id).to_string()])
        .args(["-N", &inodes(tree).to_string()])
        .args([
            "-E",
            &format!("offset={},nodiscard,lazy_itable_init=0", place.span.offset),
        ])
        .arg("-d")
        .arg(stage.path())
        .arg(place.path)
        .arg(format!("{}k", place.span.length / 1024))
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Mke2fsError::Start {
            tool: tool.to_owned(),
            source,
        })?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(Mke2fsError::Failed {
        tool: tool.to_owned(),
        status: out.status,
        said: said.trim().chars().take(1000).collect(),
    })
}

fn stage_files(root: &Path, tree: &Tree) -> io::Result<()> {
    for folder in &tree.folders {
        fs::create_dir(root.join(folder))?;
    }
    for file in &tree.files {
        let target = File::create_new(root.join(tree.path(file)))?;
        let mut target = io::BufWriter::with_capacity(64 << 10, target);
        io::copy(&mut tree.open(file), &mut target)?;
        target.flush()?;
    }
    Ok(())
}

fn inodes(tree: &Tree) -> usize {
    tree.folders.len() + tree.files.len() + SPARE_INODES
}

/// Makes the file system without any program. The same tree and id give the same bytes.
pub fn make_built_in(place: &Place<'_>, tree: &Tree) -> mkext4::Result<()> {
    let folder_meta = Meta::new(0o755, 0, 0, (EPOCH_SECS, 0));
    let file_meta = Meta::new(0o644, 0, 0, (EPOCH_SECS, 0));
    let mut options = Options::new(place.span.length, place.id, EPOCH_SECS);
    options.inodes = InodeCount::Exact(u32::try_from(inodes(tree)).unwrap_or(u32::MAX));
    options.label = Some("demo".into());
    options.reserved_percent = 0;
    let mut builder = FsBuilder::new(options)?;

    let mut folders = Vec::with_capacity(tree.folders.len());
    for path in &tree.folders {
        let (parent, name) = match path.rsplit_once('/') {
            None => (ROOT, path.as_str()),
            Some((parent, name)) => {
                let index = tree.folders.iter().position(|folder| folder == parent);
                (folders[index.expect("a plan lists every parent")], name)
            }
        };
        folders.push(builder.mkdir(parent, name, folder_meta)?);
    }
    let mut handles = Vec::with_capacity(tree.files.len());
    for file in &tree.files {
        handles.push(builder.file(folders[file.folder], &file.name, file_meta, file.length)?);
    }

    let layout = builder.seal()?;
    let mut sink = PartitionSink(place);
    let mut writer = layout.writer(&mut sink)?;
    for (file, handle) in tree.files.iter().zip(handles) {
        writer.fill(handle, &mut tree.open(file))?;
    }
    writer.finish()?;
    Ok(())
}

struct PartitionSink<'a>(&'a Place<'a>);

impl RegionSink for PartitionSink<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0
            .image
            .write_all_at(bytes, self.0.span.offset + offset)
    }

    // The image is fresh: what is not written is a hole, and a hole reads as zeros.
    fn zeros(&mut self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Finds `mke2fs` in the folders of `search` (the form of `PATH`) or where systems keep it for root.
pub fn find_mke2fs(search: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    const FOR_ROOT: [&str; 3] = ["/sbin", "/usr/sbin", "/usr/local/sbin"];
    search
        .into_iter()
        .flat_map(std::env::split_paths)
        .chain(FOR_ROOT.map(PathBuf::from))
        .map(|folder| folder.join("mke2fs"))
        .find(|tool| tool.is_absolute() && tool.is_file())
}

/// A file system opened for reading.
pub struct FileSystem {
    fs: Fs<Partition>,
    span: Span,
}

struct Partition {
    image: File,
    span: Span,
}

impl ReadAt for Partition {
    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.span.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        FileExt::read_exact_at(&self.image, out, self.span.offset + offset)
    }
}

/// A regular file found in a file system.
#[derive(Debug, Clone)]
pub struct FoundFile {
    /// Path from the root, without a leading slash.
    pub path: String,
    inode: u32,
}

impl FileSystem {
    /// Opens the file system in `span` of `image`.
    pub fn open(image: File, span: Span) -> mkext4::Result<Self> {
        let fs = Fs::open(Partition { image, span })?;
        Ok(Self { fs, span })
    }

    /// Every regular file under `folder` (`""` is the root), in no order that matters.
    pub fn files(&self, folder: &str) -> mkext4::Result<Vec<FoundFile>> {
        let mut found = Vec::new();
        let mut folders = vec![(
            folder.to_owned(),
            self.fs.resolve(&format!("/{folder}"))?,
            0,
        )];
        while let Some((parent, inode, nesting)) = folders.pop() {
            for entry in self.fs.read_dir(inode)? {
                if entry.inode == 0 || matches!(entry.name.as_slice(), b"." | b"..") {
                    continue;
                }
                if found.len() + folders.len() >= MOST_FILES || nesting > MOST_NESTING {
                    return Err(mkext4::Error::Unsupported(format!(
                        "more than {MOST_FILES} files or {MOST_NESTING} levels of folders"
                    )));
                }
                let name = String::from_utf8_lossy(&entry.name);
                let path = match parent.as_str() {
                    "" => name.into_owned(),
                    parent => format!("{parent}/{name}"),
                };
                match self.fs.inode(entry.inode)?.file_type() {
                    FileType::Dir => folders.push((path, entry.inode, nesting + 1)),
                    FileType::Regular => found.push(FoundFile {
                        path,
                        inode: entry.inode,
                    }),
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    /// The BLAKE3 hash of a file's content.
    pub fn hash(&self, file: &FoundFile) -> mkext4::Result<blake3::Hash> {
        let inode = self.fs.inode(file.inode)?;
        let extents = self.fs.extents(file.inode, &inode)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        let mut offset = 0;
        loop {
            let count = self
                .fs
                .read_file_at(&inode, &extents, offset, &mut buffer)?;
            if count == 0 {
                return Ok(hasher.finalize());
            }
            hasher.update(&buffer[..count]);
            offset += count as u64;
        }
    }

    /// Where the whole blocks of a file's content lie, in bytes from the start of the *disk*.
    pub fn whole_blocks(&self, file: &FoundFile) -> mkext4::Result<Vec<Span>> {
        let inode = self.fs.inode(file.inode)?;
        let whole = inode.size / BLOCK;
        let mut spans = Vec::new();
        for extent in self.fs.extents(file.inode, &inode)? {
            let blocks = u64::from(extent.len).min(whole.saturating_sub(extent.logical.into()));
            let inside = extent
                .physical
                .checked_add(blocks)
                .and_then(|end| end.checked_mul(BLOCK))
                .is_some_and(|end| end <= self.span.length);
            if !inside {
                return Err(mkext4::Error::Unsupported(format!(
                    "{} claims blocks beyond the partition",
                    file.path
                )));
            }
            if blocks > 0 && !extent.unwritten {
                spans.push(Span {
                    offset: self.span.offset + extent.physical * BLOCK,
                    length: blocks * BLOCK,
                });
            }
        }
        Ok(spans)
    }
}
