//! What an agent and its guard say to each other, over a socket of the machine: each word
//! behind its length in four bytes, little endian.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use codec::Wire;
use keys::MigrationId;
use serde::{Deserialize, Serialize};

use crate::stillness::{Frozen, Prepared, SourceDisk, Stillness, Thawed};
use crate::transfer::TreeName;

/// Runs of blocks in one answer: 1 MiB at most.
pub(super) const MAX_RUNS: usize = 48 * 1024;

/// What an agent asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Follow this device for this tree from now on, if it is not followed yet.
    Follow {
        tree: TreeName,
        path: PathBuf,
        /// Major and minor number, as the kernel encodes them.
        device: u64,
        /// Bytes.
        length: u64,
    },
    /// A pass begins: what has it to read?
    Collect { tree: TreeName },
    /// What this pass read is durable.
    Settled { tree: TreeName, pass: u64 },
    /// This group is taken from the other end.
    Owe { tree: TreeName, group: u64 },
    /// Something about the disks of a migration being still.
    Still {
        migration: MigrationId,
        ask: AskStill,
    },
}

/// What is asked about the disks of a migration, as in [`crate::stillness::Freezer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum AskStill {
    Prepare { disks: Vec<SourceDisk> },
    Sync,
    Freeze { deadline: Duration },
    Thaw,
    Keep,
    Stillness,
    PowerOff,
    Release,
}

impl Wire for Ask {
    const NAME: &'static str = "question to the guard";
    const VERSION: u8 = 2;
    /// The longest paths of all disks that a migration may have.
    const LIMIT: usize = 64 * 1024;
}

/// What the guard answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It is done.
    Done,
    /// It cannot be done: why, for people.
    Not(String),
    /// Runs of blocks to read, first and count; more follow.
    Runs(Vec<(u64, u32)>),
    /// No more follow.
    Collected {
        /// Which pass it is, for [`Ask::Settled`].
        pass: u64,
        /// All is to be read, for this reason.
        whole_because: Option<String>,
        /// See `transfer::Collected`.
        is_final: bool,
        /// See `transfer::Collected`.
        is_followed: bool,
        /// See `transfer::Collected`.
        how: String,
    },
    /// What is in use on the disks.
    Prepared(Prepared),
    /// All is written out, which took so long.
    Synced(Duration),
    /// They are still.
    Frozen(Frozen),
    /// They are not.
    Thawed(Thawed),
    /// How they are.
    Stillness(Stillness),
}

impl Wire for Answer {
    const NAME: &'static str = "answer of the guard";
    const VERSION: u8 = 3;
    const LIMIT: usize = 1024 * 1024;
}

/// Why nothing more is said over a line.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The socket.
    #[error("the connection to the guard broke: {0}")]
    Io(#[from] io::Error),
    /// The other end is of another version, or no guard.
    #[error("the guard and this node do not understand each other: {0}")]
    Decode(#[from] codec::DecodeError),
    /// What was to be said is too long.
    #[error("{0}")]
    Encode(#[from] codec::EncodeError),
}

/// A connection.
pub(super) struct Line(UnixStream);

impl Line {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Whether root, or who runs this, is at the other end.
    pub(super) fn is_with_us(&self) -> Result<bool, Broken> {
        let peer = rustix::net::sockopt::socket_peercred(&self.0).map_err(io::Error::from)?;
        Ok(peer.uid.is_root() || peer.uid == rustix::process::geteuid())
    }

    pub(super) fn say<W: Wire>(&mut self, word: &W) -> Result<(), Broken> {
        let bytes = codec::encode(word)?;
        // Within the limit of the type.
        let mut framed = (bytes.len() as u32).to_le_bytes().to_vec();
        framed.extend(bytes);
        Ok(self.0.write_all(&framed)?)
    }

    /// The next word; none where the other end has closed.
    pub(super) fn hear<W: Wire>(&mut self) -> Result<Option<W>, Broken> {
        let mut length = [0; 4];
        match self.0.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > W::LIMIT {
            return Err(Broken::Decode(codec::DecodeError::TooLarge {
                name: W::NAME,
                bytes: length,
                limit: W::LIMIT,
            }));
        }
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(Some(codec::decode(&bytes)?))
    }
}
