//! The target's end of a transfer, as a state machine: it answers questions
//! about its tree and offers of content, lets checked extents be written, and
//! acknowledges a barrier once all before it is durable.
//!
//! Not here: disks, decompressing, the check of tickets, signing, and time.
//! The shell reads the open frame, checks its ticket, makes a [`Target`] for
//! the volume it names and then feeds it that frame and all that follow. It
//! checks every data extent with [`check_extent`](crate::check_extent), and every
//! patch with [`Patch`](crate::Patch), and hands in what these made; all other
//! frames go in as they come.
//!
//! ```text
//!            Open             Finish                      equal            Proved
//! Waiting ─────────▶ Serving ────────▶ computing its root ───────▶ proving ───────▶ Serving
//!                    │  ▲ │   Finish                       equal    ▲
//!                    │  │ │ ─────────▶ reading back ────────────────┘
//!                    │  │ │            (another: computing its root, to say which
//!                    └──┘ │             of the two is wrong) ──▶ Over
//!   questions, passes,    └─ Close ──▶ Over ◀── any: Closed, fault, Refuse
//!   extents, barriers
//!
//!            Offer                  Consulted
//! Serving ─────────▶ consulting ───────────────▶ Serving
//!                     extents that were made of bytes held here, flushes
//! ```
//!
//! Rules for the shell, on which a crash at any moment loses nothing that was
//! acknowledged and confuses nothing that was not:
//! - Carry out the outputs of one step in order, before the next input. When
//!   one fails, skip the rest, report [`Input::StorageFailed`], and recover the
//!   volume before it is used again.
//! - [`Output::NoteRegions`] is durable before the write that follows it.
//! - Between [`Output::Consult`] and [`Input::Consulted`] no frame is handed in:
//!   those that come wait.
//! - The stored tree changes only in [`Output::Flush`] and [`Output::Settle`],
//!   and after the data's fsync: it holds hashes of durable data only.
//! - To recover: fsync the data, read and hash every noted group, store those
//!   leaves durably, only then forget the notes. The fsync comes first because
//!   what is read back after a crash of the process alone may still be only in
//!   memory. A [`Target`] is made of a recovered volume.

mod consulting;
mod fault;
mod written;

use std::mem;

pub use self::fault::TargetError;

use self::consulting::Consulting;
use self::written::Written;
use crate::extent::{
    BARRIER_BLOCKS, BadExtent, CheckedExtent, Extent, MAX_BARRIERS, MAX_EXTENT_BLOCKS, check_zero,
};
use crate::fingerprint::Fingerprint;
use crate::frame::{CloseReason, MAX_GROUPS_PER_FRAME, RefusalCode, ToSource, ToTarget};
use crate::geometry::{BlockIndex, Geometry, GroupIndex};
use crate::hash::{Leaf, Mark, Root};
use crate::offer::Held;

/// What may wait for one barrier. A source asks for one as soon as it reaches
/// [`BARRIER_BLOCKS`]; its last extent may overshoot.
const MAX_PENDING: u64 = BARRIER_BLOCKS + MAX_EXTENT_BLOCKS as u64;

/// What the shell saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A frame came. Data extents and patches come as
    /// [`Input::ExtentChecked`] instead.
    Received(ToTarget),
    /// A data extent or a patch came and is what its leaves say. The shell holds
    /// its bytes for the [`Output::Write`] that follows. While it is consulted:
    /// blocks of the offer, of bytes found here.
    ExtentChecked(CheckedExtent),
    /// A data extent or a patch came and is not what its leaves say.
    ExtentRefused(BadExtent),
    /// An [`Output::Consult`] was carried out; what was made was handed in.
    Consulted {
        /// The first block of the offer.
        first: BlockIndex,
        /// One for each of its blocks.
        held: Vec<Held>,
    },
    /// An [`Output::Flush`] was carried out.
    Flushed {
        /// Its barrier.
        barrier: u64,
        /// The mark of the stored tree after it.
        mark: Mark,
    },
    /// An [`Output::ComputeRoot`] was carried out.
    RootComputed {
        /// The root of the stored tree.
        root: Root,
    },
    /// An [`Output::ReadBack`] was carried out.
    ReadBack {
        /// The root of the bytes that were read.
        root: Root,
    },
    /// An [`Output::Prove`] was carried out.
    Proved {
        /// The signed statement.
        proof: Vec<u8>,
    },
    /// Writing, flushing or reading failed.
    StorageFailed {
        /// Whether for want of room.
        full: bool,
    },
    /// The session may not go on: authority ended, or this side shuts down.
    /// What was written is kept.
    Refuse(RefusalCode),
    /// The stream is gone.
    Closed(CloseReason),
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this frame.
    Send(ToSource),
    /// Send a [`ToSource::Groups`] with these marks of the stored tree.
    SendGroups {
        /// The first group.
        first: GroupIndex,
        /// How many; all in the volume.
        count: u32,
    },
    /// Send a [`ToSource::Leaves`] with the stored entries of this group.
    SendLeaves {
        /// The group; in the volume.
        group: GroupIndex,
    },
    /// The source began a pass.
    PassBegun {
        /// Its number.
        pass: u32,
    },
    /// See what is held of these blocks. What can be made of bytes that are
    /// here is checked against its leaf and handed in as
    /// [`Input::ExtentChecked`], in as many extents as it takes; then
    /// [`Input::Consulted`] says it of each block.
    Consult {
        /// The first block; all of them are in the volume.
        first: BlockIndex,
        /// One leaf for each block.
        leaves: Vec<Leaf>,
        /// None, or one for each block. They are the source's word and no more.
        fingerprints: Vec<Fingerprint>,
    },
    /// Note durably that these groups are about to be written.
    NoteRegions {
        /// The barrier they wait for. A shell that takes extents while it
        /// flushes forgets at a barrier only what was noted for it or before.
        barrier: u64,
        /// The groups, in ascending order.
        groups: Vec<GroupIndex>,
    },
    /// Write the bytes of the extent that was just handed in. Of a patch it is
    /// enough to write its [`ranges`](crate::Patch::ranges): the rest is there.
    Write {
        /// The first block.
        first: BlockIndex,
        /// How many blocks.
        count: u32,
    },
    /// Write zeros, or punch a hole that reads as zeros.
    WriteZeros {
        /// The first block.
        first: BlockIndex,
        /// How many blocks.
        count: u32,
    },
    /// Make durable: fsync the data, store these leaves in this order and
    /// fsync the tree, store the barrier's number, forget the notes
    /// made for it; then answer with [`Input::Flushed`].
    Flush {
        /// The barrier.
        barrier: u64,
        /// What was written between the barrier before and this one.
        extents: Vec<Extent>,
    },
    /// The session is over before the next barrier: do as for a flush, but the
    /// number of the barrier stays and nobody waits for an answer. Saves
    /// sending it again; the next session finds out by comparing.
    Settle {
        /// What was written since the last flush.
        extents: Vec<Extent>,
    },
    /// Compute the root of the stored tree; then answer with
    /// [`Input::RootComputed`].
    ComputeRoot,
    /// Read the whole volume back from the disk and hash it; then answer with
    /// [`Input::ReadBack`].
    ReadBack,
    /// Make the signed statement; then answer with [`Input::Proved`].
    Prove {
        /// The last durable barrier.
        barrier: u64,
        /// The root of the volume.
        root: Root,
        /// Whether the volume was just read back in full.
        read_back: bool,
    },
    /// The source closed the session in good order.
    Closed,
    /// The session is over; drop the stream.
    Fail(TargetError),
}

/// The target's end of one session.
#[derive(Debug)]
pub struct Target {
    geometry: Geometry,
    durable: u64,
    mark: Mark,
    pass: Option<u32>,
    references: bool,
    written: Written,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Waiting,
    Serving,
    Consulting(Consulting),
    /// The root that the source asked to be stated. `read` is that of a volume
    /// which was read back and has another: then the root of the tree decides
    /// who is wrong.
    ComputingRoot {
        asked: Root,
        read: Option<Root>,
    },
    ReadingBack {
        asked: Root,
    },
    Proving {
        root: Root,
        read_back: bool,
    },
    Over,
}

impl Target {
    /// A session not yet opened over a recovered volume: `barrier` is its last
    /// durable one and `mark` that of its stored tree, which holds what the
    /// volume durably holds.
    pub fn new(geometry: Geometry, barrier: u64, mark: Mark) -> Self {
        Self {
            geometry,
            durable: barrier,
            mark,
            pass: None,
            references: false,
            written: Written::default(),
            stage: Stage::Waiting,
        }
    }

    /// The same, of a target that keeps an index of content: the source is told
    /// that fingerprints are wanted.
    pub fn with_references(self) -> Self {
        Self {
            references: true,
            ..self
        }
    }

    /// The last durable barrier and the mark at it.
    pub fn durable(&self) -> (u64, Mark) {
        (self.durable, self.mark)
    }

    /// Whether nothing more can happen.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// What the session is doing, for people.
    pub fn stage(&self) -> &'static str {
        self.stage.name()
    }

    /// Takes one input and appends what is to be done. Total: whatever comes,
    /// in whatever order, ends in [`Output::Fail`] at worst; once over, inputs
    /// are ignored.
    pub fn step(&mut self, input: Input, out: &mut Vec<Output>) {
        let stage = mem::replace(&mut self.stage, Stage::Over);
        match self.next(stage, input, out) {
            Ok(stage) => self.stage = stage,
            Err(error) => self.fail(error, out),
        }
    }

    fn next(
        &mut self,
        stage: Stage,
        input: Input,
        out: &mut Vec<Output>,
    ) -> Result<Stage, TargetError> {
        match (stage, input) {
            (Stage::Over, _) => Ok(Stage::Over),
            (_, Input::Closed(reason)) => Err(TargetError::Closed { reason }),
            (_, Input::StorageFailed { full }) => Err(TargetError::Storage { full }),
            (_, Input::Refuse(code)) => Err(TargetError::Withdrawn { code }),
            (Stage::Consulting(offer), input) => self.consulting(offer, input, out),
            (_, Input::ExtentRefused(bad)) => Err(TargetError::Extent(bad)),
            (_, Input::Received(ToTarget::Close)) => {
                self.settle(out);
                out.push(Output::Closed);
                Ok(Stage::Over)
            }
            (Stage::Waiting, Input::Received(ToTarget::Open { length, .. })) => {
                self.open(length, out)
            }
            (Stage::Serving, Input::Received(frame)) => self.serve(frame, out),
            (Stage::Serving, Input::ExtentChecked(extent)) => {
                self.extent(extent, out)?;
                Ok(Stage::Serving)
            }
            (Stage::Serving, Input::Flushed { barrier, mark }) => {
                self.flushed(barrier, mark, out)?;
                Ok(Stage::Serving)
            }
            (Stage::ComputingRoot { asked, read }, Input::RootComputed { root }) => {
                self.root_computed(asked, read, root, out)
            }
            (Stage::ReadingBack { asked }, Input::ReadBack { root }) => {
                Ok(self.read_back(asked, root, out))
            }
            (Stage::Proving { root, read_back }, Input::Proved { proof }) => {
                out.push(Output::Send(ToSource::Finished {
                    root,
                    read_back,
                    proof,
                }));
                Ok(Stage::Serving)
            }
            (stage, input) => Err(misplaced(&input, stage.name())),
        }
    }

    fn fail(&mut self, error: TargetError, out: &mut Vec<Output>) {
        if error.keeps_writes() {
            self.settle(out);
        }
        if let Some(code) = error.code() {
            out.push(Output::Send(ToSource::Refused { code }));
        }
        out.push(Output::Fail(error));
        self.stage = Stage::Over;
    }

    fn settle(&mut self, out: &mut Vec<Output>) {
        let extents = mem::take(&mut self.written.pending);
        if !extents.is_empty() {
            out.push(Output::Settle { extents });
        }
    }

    fn open(&self, theirs: u64, out: &mut Vec<Output>) -> Result<Stage, TargetError> {
        let ours = self.geometry.length();
        if theirs != ours {
            return Err(TargetError::SizeMismatch { ours, theirs });
        }
        out.push(Output::Send(ToSource::Opened {
            barrier: self.durable,
            mark: self.mark,
            references: self.references,
        }));
        Ok(Stage::Serving)
    }

    fn serve(&mut self, frame: ToTarget, out: &mut Vec<Output>) -> Result<Stage, TargetError> {
        match frame {
            ToTarget::AskGroups { first, count } if self.is_level() => {
                let end = first.0.checked_add(u64::from(count));
                let inside = end.is_some_and(|end| end <= self.geometry.groups());
                if count == 0 || count > MAX_GROUPS_PER_FRAME || !inside {
                    return Err(TargetError::NoSuchGroups { first, count });
                }
                out.push(Output::SendGroups { first, count });
                Ok(Stage::Serving)
            }
            ToTarget::AskLeaves { group } if self.is_level() => {
                if !self.geometry.contains_group(group) {
                    let (first, count) = (group, 1);
                    return Err(TargetError::NoSuchGroups { first, count });
                }
                out.push(Output::SendLeaves { group });
                Ok(Stage::Serving)
            }
            ToTarget::BeginPass { pass } if self.is_level() => self.begin_pass(pass, out),
            ToTarget::Zero { first, count } => {
                self.extent(check_zero(self.geometry, first, count)?, out)?;
                Ok(Stage::Serving)
            }
            ToTarget::Offer {
                first,
                leaves,
                fingerprints,
            } if self.pass.is_some() => self.offer(first, leaves, fingerprints, out),
            ToTarget::Barrier { barrier } if self.pass.is_some() => self.barrier(barrier, out),
            ToTarget::Finish {
                barrier,
                root,
                read_back,
            } if self.is_level() => self.finish(barrier, root, read_back, out),
            frame => Err(misplaced(&Input::Received(frame), "serving")),
        }
    }

    /// Whether all that was written is durable and in the tree.
    fn is_level(&self) -> bool {
        self.written.pending.is_empty() && self.written.flushing.is_empty()
    }

    fn begin_pass(&mut self, pass: u32, out: &mut Vec<Output>) -> Result<Stage, TargetError> {
        if let Some(last) = self.pass.filter(|last| *last >= pass) {
            return Err(TargetError::Pass { got: pass, last });
        }
        self.pass = Some(pass);
        out.push(Output::PassBegun { pass });
        Ok(Stage::Serving)
    }

    fn offer(
        &mut self,
        first: BlockIndex,
        leaves: Vec<Leaf>,
        fingerprints: Vec<Fingerprint>,
        out: &mut Vec<Output>,
    ) -> Result<Stage, TargetError> {
        let offered = Extent::Data { first, leaves };
        offered.check_bounds(self.geometry)?;
        let Extent::Data { leaves, .. } = offered else {
            unreachable!("made above as data");
        };
        out.push(Output::Consult {
            first,
            leaves: leaves.clone(),
            fingerprints,
        });
        Ok(Stage::Consulting(Consulting::new(first, leaves)))
    }

    /// Whatever comes out of turn here is the shell's fault: it was to keep
    /// frames back.
    fn consulting(
        &mut self,
        mut offer: Consulting,
        input: Input,
        out: &mut Vec<Output>,
    ) -> Result<Stage, TargetError> {
        let stage = "consulting";
        match input {
            Input::ExtentChecked(checked) => {
                if !offer.make(checked.extent()) {
                    let input = "an extent that was not offered";
                    return Err(TargetError::OutOfTurn { input, stage });
                }
                self.extent(checked, out)?;
            }
            Input::Flushed { barrier, mark } => self.flushed(barrier, mark, out)?,
            Input::Consulted { first, held } => {
                if !offer.is_answer(self.geometry, first, &held) {
                    let input = "an answer to another offer";
                    return Err(TargetError::OutOfTurn { input, stage });
                }
                out.push(Output::Send(ToSource::Answer { first, held }));
                return Ok(Stage::Serving);
            }
            Input::Received(_) => {
                let input = "a frame";
                return Err(TargetError::OutOfTurn { input, stage });
            }
            input => return Err(misplaced(&input, stage)),
        }
        Ok(Stage::Consulting(offer))
    }

    fn extent(&mut self, checked: CheckedExtent, out: &mut Vec<Output>) -> Result<(), TargetError> {
        let extent = checked.into_extent();
        if self.pass.is_none() {
            let (frame, stage) = ("extent", "no pass has begun");
            return Err(TargetError::Unexpected { frame, stage });
        }
        // It was checked against some geometry: make sure it was this one.
        extent.check_bounds(self.geometry)?;
        let barrier = self.durable;
        if self.written.weight + extent.weight() > MAX_PENDING {
            return Err(TargetError::TooMuchPending { barrier });
        }
        let groups = self.written.note(self.geometry, &extent);
        if !groups.is_empty() {
            let barrier = self.next_barrier();
            out.push(Output::NoteRegions { barrier, groups });
        }
        out.push(match &extent {
            Extent::Zero { first, count } => Output::WriteZeros {
                first: *first,
                count: *count,
            },
            Extent::Data { first, leaves } => Output::Write {
                first: *first,
                // Within bounds, so a handful.
                count: leaves.len() as u32,
            },
        });
        self.written.weight += extent.weight();
        self.written.pending.push(extent);
        Ok(())
    }

    fn next_barrier(&self) -> u64 {
        let above = self.written.flushing.len() as u64 + 1;
        self.durable.saturating_add(above)
    }

    fn barrier(&mut self, got: u64, out: &mut Vec<Output>) -> Result<Stage, TargetError> {
        let barrier = self.durable;
        if self.written.flushing.len() >= MAX_BARRIERS {
            return Err(TargetError::TooMuchPending { barrier });
        }
        let expected = self.next_barrier();
        if got != expected {
            return Err(TargetError::Barrier { got, expected });
        }
        let extents = self.written.flush(got);
        out.push(Output::Flush {
            barrier: got,
            extents,
        });
        Ok(Stage::Serving)
    }

    fn flushed(
        &mut self,
        barrier: u64,
        mark: Mark,
        out: &mut Vec<Output>,
    ) -> Result<(), TargetError> {
        let oldest = self.written.flushing.pop_front();
        if oldest != Some(barrier) {
            let (input, stage) = ("a flush", "serving");
            return Err(TargetError::OutOfTurn { input, stage });
        }
        self.durable = barrier;
        self.mark = mark;
        out.push(Output::Send(ToSource::Durable { barrier, mark }));
        Ok(())
    }

    fn finish(
        &self,
        barrier: u64,
        asked: Root,
        read_back: bool,
        out: &mut Vec<Output>,
    ) -> Result<Stage, TargetError> {
        if barrier != self.durable {
            let (got, expected) = (barrier, self.durable);
            return Err(TargetError::Barrier { got, expected });
        }
        if read_back {
            out.push(Output::ReadBack);
            return Ok(Stage::ReadingBack { asked });
        }
        out.push(Output::ComputeRoot);
        let read = None;
        Ok(Stage::ComputingRoot { asked, read })
    }

    fn read_back(&self, asked: Root, read: Root, out: &mut Vec<Output>) -> Stage {
        if read == asked {
            return self.prove(read, true, out);
        }
        out.push(Output::ComputeRoot);
        let read = Some(read);
        Stage::ComputingRoot { asked, read }
    }

    fn root_computed(
        &self,
        asked: Root,
        read: Option<Root>,
        root: Root,
        out: &mut Vec<Output>,
    ) -> Result<Stage, TargetError> {
        if root != asked {
            return Err(TargetError::RootDiffers {
                barrier: self.durable,
                ours: root,
                theirs: asked,
            });
        }
        match read {
            Some(read) => Err(TargetError::ReadBackDiffers {
                written: root,
                read,
            }),
            None => Ok(self.prove(root, false, out)),
        }
    }

    fn prove(&self, root: Root, read_back: bool, out: &mut Vec<Output>) -> Stage {
        out.push(Output::Prove {
            barrier: self.durable,
            root,
            read_back,
        });
        Stage::Proving { root, read_back }
    }
}

impl Stage {
    fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Serving => "serving",
            Self::Consulting(_) => "consulting",
            Self::ComputingRoot { .. } => "computing its root",
            Self::ReadingBack { .. } => "reading back",
            Self::Proving { .. } => "proving",
            Self::Over => "over",
        }
    }
}

fn misplaced(input: &Input, stage: &'static str) -> TargetError {
    let input = match input {
        // The shell lets these past the check only by mistake.
        Input::Received(ToTarget::Extent { .. } | ToTarget::Patch { .. }) => "an unchecked extent",
        Input::Received(frame) => {
            let frame = frame.name();
            return TargetError::Unexpected { frame, stage };
        }
        Input::ExtentChecked(_) => {
            let frame = "extent";
            return TargetError::Unexpected { frame, stage };
        }
        Input::ExtentRefused(_) => "a refused extent",
        Input::Consulted { .. } => "an answer",
        Input::Flushed { .. } => "a flush",
        Input::RootComputed { .. } => "a root",
        Input::ReadBack { .. } => "a read-back",
        Input::Proved { .. } => "a statement",
        Input::StorageFailed { .. } => "a storage failure",
        Input::Refuse(_) => "a refusal",
        Input::Closed(_) => "a close",
    };
    TargetError::OutOfTurn { input, stage }
}

#[cfg(test)]
mod tests;
