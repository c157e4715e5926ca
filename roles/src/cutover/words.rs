//! What the cutover of a server needs to know, asks and is answered, and tells its disks.

use crate::hooks::Gate;
use crdt::plan::SourceEnd;

/// How far a cutover has come, for one disk of the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// What is left is to become little: pass after pass, and no root is asked for.
    #[default]
    Converging,
    /// Nobody freezes the source: each disk is cut over once a pass finds nothing new.
    Apart,
    /// The source is frozen: a pass that begins now reads what all disks have now.
    Still,
}

/// The same, with what people are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// How far.
    pub moment: Moment,
    /// Why it does not go on.
    pub because: Option<String>,
    /// Disks are to rest between passes as they do otherwise: their roots are computed then.
    pub is_rooting: bool,
    /// Something may be frozen, or stopped by hooks: nothing of it is to be forgotten.
    pub holds: bool,
}

/// One disk of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Number of its last complete pass.
    pub passes: u32,
    /// What the passes over a frozen source would take, by the last one.
    pub rest_millis: Option<u64>,
    /// The longest that it took to read all of it.
    pub whole_millis: u64,
    /// The next pass reads what was written, and not all, as far as is known.
    pub is_tracked: bool,
    /// Its root can be stated at once: what takes long of it was computed.
    pub is_rooted: bool,
    /// What it is at.
    pub state: DiskState,
}

/// What a disk is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskState {
    /// Nothing moves.
    Held,
    /// Passes go on.
    Moving,
    /// Both ends have stated its root, and it does not count yet.
    Proven,
    /// It has what a checkpoint is to have, which does not stand yet.
    Reached,
    /// It may count: this node has said so, and does not have what shows it.
    Unproven,
    /// It counts.
    CutOver,
}

/// What is wanted of a cutover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Only a checkpoint is: the moment of a cutover, after which the source goes on.
    pub is_checkpoint: bool,
    /// All is to be read at both ends while the source is frozen.
    pub prove_full: bool,
    /// What becomes of the source.
    pub source: SourceEnd,
}

impl Wanted {
    /// A checkpoint.
    pub const CHECKPOINT: Self = Self {
        is_checkpoint: true,
        prove_full: false,
        source: SourceEnd::Unsaid,
    };

    /// What every disk is to come to.
    pub(super) fn goal(self) -> DiskState {
        match self.is_checkpoint {
            true => DiskState::Reached,
            false => DiskState::Proven,
        }
    }

    /// What it is, for people.
    pub(super) fn name(self) -> &'static str {
        match self.is_checkpoint {
            true => "checkpoint",
            false => "cutover",
        }
    }
}

/// What there is to know.
#[derive(Debug, Clone)]
pub struct View {
    /// This node has heard of its peers since it started: before that nothing is known of
    /// what is wanted.
    pub is_heard: bool,
    /// The cutover that is wanted, if any.
    pub wanted: Option<Wanted>,
    /// The disks of the server that are moved.
    pub disks: Vec<Disk>,
    /// Why they cannot be frozen, whoever tries.
    pub unfreezable: Option<String>,
    /// Whether hooks that were run before a freeze were not undone yet.
    pub is_prepared: bool,
    /// Whether such hooks were begun and not undone, however they ended.
    pub is_begun: bool,
    /// Hooks before it is frozen.
    pub before_freeze: Gate,
    /// Hooks while it is frozen.
    pub after_freeze: Gate,
    /// Hooks after it was thawed.
    pub after_thaw: Gate,
    /// A hook that stops what the server serves is planned before it is frozen.
    pub has_stop: bool,
    /// The source had been frozen when it was cut over.
    pub was_frozen: bool,
    /// Another node reports that every disk is cut over.
    pub is_known: bool,
}

/// What whoever freezes is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// How does the source stand?
    Look,
    /// Find what lies on the disks.
    Prepare,
    /// Write out what is cached of it.
    Sync,
    /// Freeze it, until it is thawed or this much later.
    Freeze {
        /// Milliseconds.
        deadline_millis: u64,
    },
    /// Let go of it, if it is frozen and not kept.
    Thaw,
    /// Let go of it, kept or not.
    Release,
    /// Leave it frozen for good.
    Keep,
    /// Switch off the source, which is kept frozen.
    PowerOff,
}

/// How a source stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stillness {
    /// It runs.
    Running,
    /// It is frozen, and thaws by itself.
    Frozen,
    /// It is frozen for good.
    Kept,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Ask::Look`].
    Stands(Stillness),
    /// It is done, and took so long.
    Done {
        /// Milliseconds.
        millis: u64,
    },
    /// It was not done: why. `nobody`: nobody answers who could.
    Failed {
        /// Whether nobody answers.
        nobody: bool,
        /// For people.
        why: String,
    },
}
