//! The demo disk's partition table: a protective MBR, a GPT with its backup, and one Linux partition.
//!
//! It writes and reads the table only; what lies inside the partition is the file system's business.

use std::collections::BTreeMap;
use std::fs::File;

use ::gpt::mbr::ProtectiveMBR;
use ::gpt::partition::Partition;
use ::gpt::{GptConfig, GptError, partition_types};
use uuid::Uuid;

/// Where the partition starts: 1 MiB, as every current installer aligns it.
pub const PARTITION_OFFSET: u64 = 1 << 20;

/// Kept free behind the partition for the backup table, rounded up to keep the alignment.
const TAIL: u64 = 1 << 20;

/// The sector size the table is counted in; image files have no other.
const SECTOR: u64 = 512;

/// Why a partition table could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The image could not be read or written.
    #[error("the first sector: {0}")]
    Mbr(#[from] ::gpt::mbr::MBRError),
    /// The GPT could not be laid out, read or written.
    #[error("the GPT: {0}")]
    Gpt(#[from] GptError),
    /// The table is sound and names no partition.
    #[error("the GPT names no partition")]
    Empty,
    /// The partition's first or last sector makes no sense.
    #[error("partition {number} runs from sector {first} to sector {last}")]
    Bounds {
        /// Its number in the table.
        number: u32,
        /// Its first sector.
        first: u64,
        /// Its last sector, inclusive.
        last: u64,
    },
}

/// A partition's place on its disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// The one partition of a disk of `disk_length` bytes; `None` when nothing would be left for it.
pub fn plan(disk_length: u64) -> Option<Span> {
    let length = disk_length.checked_sub(PARTITION_OFFSET + TAIL)?;
    (length > 0).then_some(Span {
        offset: PARTITION_OFFSET,
        length,
    })
}

/// Writes the table for one partition at `span` into `image`, which already has its full length.
pub fn write(
    image: &File,
    span: Span,
    disk_id: Uuid,
    partition_id: Uuid,
) -> Result<(), TableError> {
    let mut device = image.try_clone().map_err(GptError::from)?;
    let sectors = image.metadata().map_err(GptError::from)?.len() / SECTOR;
    // A disk past 2 TiB says "all of it" in the field's greatest value.
    let protected = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(protected).overwrite_lba0(&mut device)?;
    let mut table = GptConfig::new()
        .writable(true)
        .create_from_device(device, Some(disk_id))?;
    let partition = Partition {
        part_type_guid: partition_types::LINUX_FS,
        part_guid: partition_id,
        first_lba: span.offset / SECTOR,
        last_lba: (span.offset + span.length) / SECTOR - 1,
        flags: 0,
        name: "root".into(),
    };
    table.update_partitions(BTreeMap::from([(1, partition)]))?;
    table.write()?;
    Ok(())
}

/// Reads where the first partition lies; both copies of the table must be sound.
pub fn read(image: &File) -> Result<Span, TableError> {
    let device = image.try_clone().map_err(GptError::from)?;
    let table = GptConfig::new()
        .only_valid_headers(true)
        .open_from_device(device)?;
    let (number, partition) = table
        .partitions()
        .iter()
        .find(|(_, partition)| partition.is_used())
        .ok_or(TableError::Empty)?;
    let (first, last) = (partition.first_lba, partition.last_lba);
    let bounds = || {
        let sectors = last.checked_sub(first)?.checked_add(1)?;
        Some(Span {
            offset: first.checked_mul(SECTOR)?,
            length: sectors.checked_mul(SECTOR)?,
        })
    };
    bounds().ok_or(TableError::Bounds {
        number: *number,
        first,
        last,
    })
}
