//! What callers and clouds tell each other about volumes and about the cloud
//! itself. Plain data: no behaviour, and nothing of one particular cloud.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use blocks::Root;
use serde::{Deserialize, Serialize};

use crate::key::{parse_hex, write_hex};
use crate::{BadTag, CheckpointKey, VolumeKey};

/// What a cloud can do, so that callers need not know which one it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The longest volume it makes, in bytes.
    pub max_volume_length: u64,
    /// Space is taken when blocks are written, not when a volume is made.
    pub thin: bool,
    /// How a volume is reached once attached.
    pub attachment: AttachmentKind,
    /// How an earlier holder is kept from writing.
    pub fencing: Fencing,
}

/// How the holder of a volume reaches its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachmentKind {
    /// A file or device on the holder's own machine.
    Path,
    /// Memory of the process: the fake.
    Memory,
}

/// How strong a cloud's fence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fencing {
    /// The record refuses lower epochs; a holder that attached before is only
    /// kept out by the exclusive lock on what it has open.
    Recorded,
    /// The cloud itself cuts the earlier holder off.
    Enforced,
}

/// What a caller is going to ask for, to be checked ahead of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The volumes that will be made.
    pub volumes: Vec<VolumeSpec>,
}

/// Something a preflight check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether the work can begin in spite of it.
    pub severity: Severity,
    /// What was found, on what.
    pub what: String,
    /// What a person can do about it.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The work may fail later.
    Warning,
    /// The work cannot succeed.
    Blocker,
}

/// A volume to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Its key.
    pub key: VolumeKey,
    /// Its length in bytes: that of the source.
    pub length: u64,
}

/// A volume as the cloud knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its key.
    pub key: VolumeKey,
    /// Its length in bytes.
    pub length: u64,
    /// Who holds it, and since which epoch.
    pub attached: Option<AttachTo>,
    /// Epochs below this one are over, whoever comes with them.
    pub fenced_below: u64,
    /// The last state written on it.
    pub state: Option<VolumeState>,
}

/// The node that holds, or is to hold, a volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HolderId(pub [u8; 32]);

/// Who a volume is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachTo {
    /// The node.
    pub holder: HolderId,
    /// The fencing epoch, which only the owner of the source raises.
    pub epoch: u64,
}

/// How an attached volume is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// A file or block device on the holder's machine.
    Path(PathBuf),
    /// A volume of the in-memory fake, known by its key alone.
    Memory(VolumeKey),
    /// A checkpoint of the fake.
    MemoryCheckpoint(CheckpointKey),
    /// The writable copy of a checkpoint of the fake.
    MemoryCopy(CheckpointKey),
}

/// The last durable state of a volume, carried by the volume itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeState {
    /// The epoch it was written in.
    pub epoch: u64,
    /// The last durable barrier of that epoch.
    pub barrier: u64,
    /// The root of the volume's bytes at that barrier, once it is known: it is
    /// computed for a signed statement, not at every barrier.
    pub root: Option<Root>,
}

impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for HolderId {
    type Err = BadTag;

    fn from_str(text: &str) -> Result<Self, BadTag> {
        parse_hex(text).map(Self)
    }
}

impl Need {
    /// The length of all volumes together, in bytes; saturating.
    pub fn total_length(&self) -> u64 {
        let lengths = self.volumes.iter().map(|spec| spec.length);
        lengths.fold(0, u64::saturating_add)
    }
}
