//! The demo's source disk: makes a raw image with a partition table and a file system full of files,
//! keeps changing it as a running server would, and reads back what its files hold.
//!
//! It is not a volume: replication knows nothing of it and sees only a raw image.

pub(super) mod content;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Builder;

use self::content::{Stream, Tree};
pub use self::writer::Writer;
use super::ext4::{self, FileSystem, Mke2fsError, Place};
use super::gpt::{self, Span, TableError};

/// Lengths are whole file-system blocks.
const LENGTH_UNIT: u64 = 4096;

/// The least on which the partition's alignment and the journal are no great part of the disk; the
/// most is far above any demo, and keeps the writer's list of pages around 100 MB.
const LEAST_LENGTH: u64 = 32 << 20;
const MOST_LENGTH: u64 = 64 << 30;

/// Beyond this the demo only gets slower.
const MOST_FILES: u32 = 100_000;

/// What the journal, the inode tables and the bitmaps need is the rest.
const MOST_FILL_PERCENT: u8 = 80;

/// Which program makes the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// `mke2fs -d` of this host.
    Mke2fs,
    /// Our own process; needs nothing on the host, and one seed gives one image.
    BuiltIn,
}

/// What kind of disk to make.
#[derive(Debug, Clone)]
pub struct DiskSpec {
    /// Length of the disk, in bytes: a multiple of 4096.
    pub length: u64,
    /// Small files of 1 to 64 KiB; the database files come on top.
    pub files: u32,
    /// Decides every byte of content.
    pub seed: u64,
    /// How much of the partition holds files, in percent; the rest stays a hole.
    pub fill_percent: u8,
    /// `None` takes `mke2fs` where it is present and works, else what is built in.
    pub maker: Option<Maker>,
}

impl Default for DiskSpec {
    fn default() -> Self {
        Self {
            length: 256 << 20,
            files: 3000,
            seed: 1,
            fill_percent: 50,
            maker: None,
        }
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskMade {
    /// First byte of the partition.
    pub partition_offset: u64,
    /// Bytes in the partition.
    pub partition_length: u64,
    /// Regular files in the file system, the database files among them.
    pub files: usize,
    /// What made the file system.
    pub maker: Maker,
}

/// Why a demo disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The length is out of bounds or not whole blocks.
    #[error(
        "a demo disk of {length} bytes cannot be made: choose a multiple of {LENGTH_UNIT} \
         from {LEAST_LENGTH} to {MOST_LENGTH}"
    )]
    Length {
        /// What was asked for.
        length: u64,
    },
    /// Too many files.
    #[error("a demo disk with {files} files cannot be made: at most {MOST_FILES} are possible")]
    Files {
        /// What was asked for.
        files: u32,
    },
    /// More than fits beside the file system's own blocks.
    #[error(
        "a demo disk filled to {percent} % cannot be made: at most {MOST_FILL_PERCENT} % hold files"
    )]
    Fill {
        /// What was asked for.
        percent: u8,
    },
    /// The files do not fit.
    #[error(
        "{files} files need {needed} bytes and a disk of {length} bytes leaves {budget}: \
         choose a longer disk or fewer files"
    )]
    TooSmall {
        /// What was asked for.
        length: u64,
        /// What was asked for.
        files: u32,
        /// Bytes the files would occupy.
        needed: u64,
        /// Bytes the disk has for them.
        budget: u64,
    },
    /// The image file could not be created or written; an existing one is never touched.
    #[error("writing the disk image {}: {source}", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The partition table could not be written.
    #[error("writing the partition table of {}: {source}", path.display())]
    Table {
        /// The image.
        path: PathBuf,
        /// Why.
        source: TableError,
    },
    /// `mke2fs` was asked for and is not there.
    #[error("mke2fs was not found: install e2fsprogs, or let the built-in maker do it")]
    NoMke2fs,
    /// `mke2fs` was asked for and failed.
    #[error("making the file system in {}: {source}", path.display())]
    Mke2fs {
        /// The image.
        path: PathBuf,
        /// Why.
        source: Mke2fsError,
    },
    /// The built-in maker failed.
    #[error("making the file system in {}: {source}", path.display())]
    FileSystem {
        /// The image.
        path: PathBuf,
        /// Why.
        source: mkext4::Error,
    },
}

/// Why an existing demo disk could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The image could not be opened, read or written.
    #[error("the disk image {}: {source}", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no sound partition table.
    #[error("the partition table of {}: {source}", path.display())]
    Table {
        /// The image.
        path: PathBuf,
        /// Why.
        source: TableError,
    },
    /// The file system is damaged or not one that a demo disk has.
    #[error("the file system in {}: {source}", path.display())]
    FileSystem {
        /// The image.
        path: PathBuf,
        /// Why.
        source: mkext4::Error,
    },
    /// There is nothing that may be rewritten.
    #[error("{} holds no database files: it was not made as a demo disk", path.display())]
    NoDatabase {
        /// The image.
        path: PathBuf,
    },
}

/// Makes a raw disk image at `path`, which must not exist: a protective MBR, a GPT with one Linux
/// partition at 1 MiB, and in it an ext4 file system with `spec.files` small files and a few large
/// ones. When it fails, no image is left behind.
pub fn make(path: &Path, spec: &DiskSpec) -> Result<DiskMade, DiskError> {
    let (span, tree) = plan(spec)?;
    let image = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path);
    let image = image.map_err(|source| DiskError::Image {
        path: path.to_owned(),
        source,
    })?;
    let mut ids = Stream::new(spec.seed, "identifiers");
    let mut id = || Builder::from_random_bytes(ids.bytes16()).into_uuid();
    let making = Making {
        path,
        image: &image,
        length: spec.length,
        tree: &tree,
        span,
        ids: [id(), id(), id()],
    };
    let tool = ext4::find_mke2fs(std::env::var_os("PATH").as_deref());
    let made = making.with_choice(spec.maker, tool.as_deref());
    if made.is_err() {
        // The first error is the one to report; a file that cannot be removed is seen by its owner.
        let _ = fs::remove_file(path);
    }
    Ok(DiskMade {
        partition_offset: span.offset,
        partition_length: span.length,
        files: tree.files.len(),
        maker: made?,
    })
}

fn plan(spec: &DiskSpec) -> Result<(Span, Tree), DiskError> {
    let (length, files) = (spec.length, spec.files);
    if !length.is_multiple_of(LENGTH_UNIT) || !(LEAST_LENGTH..=MOST_LENGTH).contains(&length) {
        return Err(DiskError::Length { length });
    }
    if files > MOST_FILES {
        return Err(DiskError::Files { files });
    }
    if spec.fill_percent > MOST_FILL_PERCENT {
        let percent = spec.fill_percent;
        return Err(DiskError::Fill { percent });
    }
    let span = gpt::plan(length).expect("the least length leaves room for a partition");
    let budget = span.length / 100 * u64::from(spec.fill_percent);
    let tree = Tree::plan(spec.seed, files, budget).map_err(|needed| DiskError::TooSmall {
        length,
        files,
        needed,
        budget,
    })?;
    Ok((span, tree))
}

/// One image in the making.
struct Making<'a> {
    path: &'a Path,
    image: &'a File,
    length: u64,
    tree: &'a Tree,
    span: Span,
    /// Of the disk, of the partition, of the file system.
    ids: [uuid::Uuid; 3],
}

impl Making<'_> {
    fn with_choice(&self, choice: Option<Maker>, tool: Option<&Path>) -> Result<Maker, DiskError> {
        match (choice, tool) {
            (Some(Maker::BuiltIn), _) | (None, None) => self.built_in(),
            (Some(Maker::Mke2fs), None) => Err(DiskError::NoMke2fs),
            (Some(Maker::Mke2fs), Some(tool)) => self.with_mke2fs(tool),
            // An old or stripped-down mke2fs must not end a demo that can do without it.
            (None, Some(tool)) => self.with_mke2fs(tool).or_else(|error| {
                tracing::debug!(%error, "mke2fs did not work: the built-in maker takes over");
                self.built_in()
            }),
        }
    }

    fn with_mke2fs(&self, tool: &Path) -> Result<Maker, DiskError> {
        self.start_over()?;
        let made = ext4::make_with_mke2fs(tool, &self.place(), self.tree);
        made.map_err(|source| DiskError::Mke2fs {
            path: self.path.to_owned(),
            source,
        })?;
        Ok(Maker::Mke2fs)
    }

    fn built_in(&self) -> Result<Maker, DiskError> {
        self.start_over()?;
        let made = ext4::make_built_in(&self.place(), self.tree);
        made.map_err(|source| DiskError::FileSystem {
            path: self.path.to_owned(),
            source,
        })?;
        Ok(Maker::BuiltIn)
    }

    /// Empties the image, whatever an earlier attempt left, and writes the partition table.
    fn start_over(&self) -> Result<(), DiskError> {
        let emptied = self
            .image
            .set_len(0)
            .and_then(|()| self.image.set_len(self.length));
        emptied.map_err(|source| DiskError::Image {
            path: self.path.to_owned(),
            source,
        })?;
        let [disk, partition, _] = self.ids;
        gpt::write(self.image, self.span, disk, partition).map_err(|source| DiskError::Table {
            path: self.path.to_owned(),
            source,
        })
    }

    fn place(&self) -> Place<'_> {
        Place {
            path: self.path,
            image: self.image,
            span: self.span,
            id: self.ids[2].into_bytes(),
        }
    }
}

/// The BLAKE3 hash of every regular file in the image's file system, by path. Equal manifests of
/// source and copy prove that the copy's files can be read and hold the same.
pub fn manifest(path: &Path) -> Result<BTreeMap<String, blake3::Hash>, ImageError> {
    let image = File::open(path).map_err(|source| ImageError::Image {
        path: path.to_owned(),
        source,
    })?;
    let fs = open_file_system(path, image)?;
    let mut hashes = BTreeMap::new();
    let mut add_all = || {
        for file in fs.files("")? {
            let hash = fs.hash(&file)?;
            hashes.insert(file.path, hash);
        }
        Ok(())
    };
    add_all().map_err(|source| ImageError::FileSystem {
        path: path.to_owned(),
        source,
    })?;
    Ok(hashes)
}

fn open_file_system(path: &Path, image: File) -> Result<FileSystem, ImageError> {
    let span = gpt::read(&image).map_err(|source| ImageError::Table {
        path: path.to_owned(),
        source,
    })?;
    FileSystem::open(image, span).map_err(|source| ImageError::FileSystem {
        path: path.to_owned(),
        source,
    })
}
