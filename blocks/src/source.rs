//! The source's end of a transfer, as a state machine: it opens, brings the
//! stored tree level with what the target durably holds, and then runs passes
//! and barriers until it is told to finish or stop.
//!
//! Not here: reading, hashing and sending extents, storing the tree, and time.
//! The shell reads a run of blocks, finds that it differs from the stored
//! tree, sends the frame itself and reports [`Input::ExtentSent`]; when a
//! barrier is due by the clock it says [`Input::BarrierDue`]. Instead of bytes it
//! may send an offer, report [`Input::Offered`], and send as extents or patches
//! what is left of it once [`Output::Answered`] says what the target holds.
//!
//! ```text
//!          Start          Opened, another mark           all adopted
//! Waiting ──────▶ Opening ────────────────────▶ Comparing ───────────▶ Ready
//!                 Opening ─────────────────────────────────────────▶ Ready
//!                          Opened, the same mark
//!
//!        BeginPass          all read and committed
//! Ready ───────────▶ Passing ────────────────────▶ Ready
//!        Finish             Finished
//! Ready ───────────▶ Finishing ──────────────────▶ Over
//!
//! any stage ── Closed, Refused, a fault, Stop ──▶ Over
//!              (Stop in Passing: once all offers are answered and all that was
//!              sent is committed)
//! ```
//!
//! Rules for the shell:
//! - Carry out the outputs of one step in order, before the next input.
//! - Put an extent's frame on the wire and report it before the next one: a
//!   barrier covers exactly the extents reported before it. So with offers: what
//!   the target makes of one belongs to the barrier under which it was sent, since
//!   it answers an offer before it acknowledges the barrier behind it.
//! - Blocks that wait for an answer are neither sent nor offered again; what is
//!   sent of them after it are the bytes that were offered, whatever the disk
//!   holds by then.
//! - The mark given to [`Source::new`] is computed from the stored tree, never
//!   remembered beside it: a tree half adopted or half committed by a crash
//!   then has another mark than the target, and is compared again.
//! - Leaves enter the stored tree by [`Output::Adopt`] and [`Output::Commit`]
//!   only, so that it never holds what the target may still lose.
//! - What the ends compare are marks; the root is computed once, for the
//!   statement, and the target compares it with its own.

mod comparing;
mod fault;
mod offering;
mod passing;

use std::mem;

pub use self::fault::SessionError;

use self::comparing::Comparing;
use self::offering::Offer;
use self::passing::{PassEnd, Passing};
use crate::extent::Extent;
use crate::frame::{CloseReason, ToSource, ToTarget};
use crate::geometry::{BlockIndex, Geometry, GroupIndex};
use crate::hash::{Leaf, Mark, Root};
use crate::offer::{Held, held_fits};

/// What the shell saw or wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The stream is open.
    Start,
    /// A frame came.
    Received(ToSource),
    /// The marks of the stored tree that [`Output::LoadGroups`] asked for.
    OurGroups {
        /// The first group.
        first: GroupIndex,
        /// Its mark and those after it.
        marks: Vec<Mark>,
    },
    /// Reading for the next pass begins. Only when ready.
    BeginPass {
        /// The number of the pass; it rises within a session.
        pass: u32,
    },
    /// The shell has sent this extent, as it is or as a patch. Only while
    /// [`Source::may_send`].
    ExtentSent {
        /// What was sent.
        extent: Extent,
        /// Bytes of payload on the wire.
        payload_bytes: u64,
    },
    /// The shell has sent an offer of these blocks. Only while
    /// [`Source::may_offer`].
    Offered {
        /// The first block.
        first: BlockIndex,
        /// One leaf for each block.
        leaves: Vec<Leaf>,
    },
    /// What was sent has waited long enough for a barrier.
    BarrierDue,
    /// The whole volume was read for this pass, every offer was answered, all
    /// that differed was sent.
    PassRead,
    /// An [`Output::Commit`] was carried out.
    Committed {
        /// Its barrier.
        barrier: u64,
        /// The mark of the stored tree after it.
        mark: Mark,
    },
    /// Ask for the target's signed statement. Only when ready.
    Finish {
        /// The root of the stored tree, computed from it now.
        root: Root,
        /// Whether the target is to read its volume back in full.
        read_back: bool,
    },
    /// End in good order: what was sent is made durable first.
    Stop,
    /// The stream is gone.
    Closed(CloseReason),
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this frame, behind every extent already sent.
    Send(ToTarget),
    /// Answer with [`Input::OurGroups`] from the stored tree.
    LoadGroups {
        /// The first group.
        first: GroupIndex,
        /// How many.
        count: u32,
    },
    /// Replace the stored entries of a group: this is what the target holds.
    Adopt {
        /// The group.
        group: GroupIndex,
        /// One for each of its blocks.
        entries: Vec<Leaf>,
    },
    /// The stored tree is level with the target; passes may begin.
    Ready {
        /// The target's durable barrier. When it is below the one given to
        /// [`Source::new`] the target lost something it had acknowledged.
        barrier: u64,
        /// The mark of both trees.
        mark: Mark,
        /// Groups that had to be adopted.
        adopted_groups: u64,
    },
    /// The oldest offer was answered. Send what is left of it (see
    /// [`remainder`](crate::remainder)), as far as extents may be sent at all.
    Answered {
        /// The first block of the offer.
        first: BlockIndex,
        /// One for each of its blocks.
        held: Vec<Held>,
    },
    /// The target holds these durably: store them in the tree, in this order,
    /// then answer with [`Input::Committed`].
    Commit {
        /// The barrier.
        barrier: u64,
        /// The target's mark at that barrier.
        mark: Mark,
        /// What was sent between the barrier before and this one, and what the
        /// target made of offers between them.
        extents: Vec<Extent>,
    },
    /// All of the pass is durable and committed.
    PassDone {
        /// The pass.
        pass: u32,
        /// Blocks sent in it, zero blocks and those that the target made
        /// included.
        blocks_sent: u64,
        /// Bytes of payload sent in it.
        payload_bytes: u64,
    },
    /// The target's statement; the session is over.
    Done {
        /// The root it states.
        root: Root,
        /// Whether the target read its volume back to tell.
        read_back: bool,
        /// The statement, opaque here.
        proof: Vec<u8>,
    },
    /// The session ended as asked by [`Input::Stop`].
    Stopped,
    /// The session is over; drop the stream.
    Fail(SessionError),
}

/// The source's end of one session.
#[derive(Debug)]
pub struct Source {
    geometry: Geometry,
    durable: u64,
    mark: Mark,
    ticket: Vec<u8>,
    wants_fingerprints: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Waiting,
    Opening,
    Comparing(Comparing),
    Ready,
    Passing(Passing),
    Finishing { root: Root, read_back: bool },
    Over,
}

impl Source {
    /// A session not yet started, over a stored tree that was at `barrier` and
    /// whose entries make `mark`. The ticket is opaque here.
    pub fn new(geometry: Geometry, barrier: u64, mark: Mark, ticket: Vec<u8>) -> Self {
        Self {
            geometry,
            durable: barrier,
            mark,
            ticket,
            wants_fingerprints: false,
            stage: Stage::Waiting,
        }
    }

    /// Whether one more extent may be sent now. False outside a pass, and
    /// while as much as a barrier may cover waits for an earlier one; the next
    /// frame from the target changes that.
    pub fn may_send(&self) -> bool {
        match &self.stage {
            Stage::Passing(pass) => pass.may_send(),
            _ => false,
        }
    }

    /// Whether one more offer may be sent now: an extent may, and not too many
    /// offered blocks wait for an answer.
    pub fn may_offer(&self) -> bool {
        match &self.stage {
            Stage::Passing(pass) => pass.may_offer(),
            _ => false,
        }
    }

    /// Whether the target keeps an index and wants fingerprints with extents and
    /// offers. False until it has opened.
    pub fn wants_fingerprints(&self) -> bool {
        self.wants_fingerprints
    }

    /// The last durable barrier and the mark at it, as far as is known here.
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
        self.stage = self.next(stage, input, out).unwrap_or_else(|error| {
            out.push(Output::Fail(error));
            Stage::Over
        });
    }

    fn next(
        &mut self,
        stage: Stage,
        input: Input,
        out: &mut Vec<Output>,
    ) -> Result<Stage, SessionError> {
        match (stage, input) {
            (Stage::Over, _) => Ok(Stage::Over),
            (_, Input::Closed(reason)) => Err(SessionError::Closed { reason }),
            (_, Input::Received(ToSource::Refused { code })) => Err(SessionError::Refused { code }),
            (Stage::Waiting, Input::Start) => Ok(self.open(out)),
            (
                Stage::Opening,
                Input::Received(ToSource::Opened {
                    barrier,
                    mark,
                    references,
                }),
            ) => {
                self.wants_fingerprints = references;
                Ok(self.opened(barrier, mark, out))
            }
            (Stage::Comparing(mut compare), Input::OurGroups { first, marks }) => {
                compare.load(first, marks)?;
                self.compare(compare, out)
            }
            (Stage::Comparing(mut compare), Input::Received(ToSource::Groups { first, marks })) => {
                compare.receive(self.geometry, first, marks)?;
                self.compare(compare, out)
            }
            (
                Stage::Comparing(mut compare),
                Input::Received(ToSource::Leaves { group, entries }),
            ) => {
                compare.adopt(self.geometry, group, entries, out)?;
                self.compare(compare, out)
            }
            (Stage::Ready, Input::BeginPass { pass }) => {
                out.push(Output::Send(ToTarget::BeginPass { pass }));
                Ok(Stage::Passing(Passing::new(pass)))
            }
            (Stage::Ready, Input::Finish { root, read_back }) => {
                Ok(self.finish(root, read_back, out))
            }
            (Stage::Passing(pass), input) => self.pass(pass, input, out),
            (Stage::Finishing { root, read_back }, Input::Received(frame)) => {
                finished(root, read_back, frame, out)
            }
            (_, Input::Stop) => Ok(stop(out)),
            // A timer of the pass before may still fire.
            (stage, Input::BarrierDue) => Ok(stage),
            (stage, input) => Err(misplaced(&input, stage.name())),
        }
    }

    fn open(&mut self, out: &mut Vec<Output>) -> Stage {
        out.push(Output::Send(ToTarget::Open {
            ticket: mem::take(&mut self.ticket),
            length: self.geometry.length(),
            barrier: self.durable,
            mark: self.mark,
        }));
        Stage::Opening
    }

    fn opened(&mut self, barrier: u64, mark: Mark, out: &mut Vec<Output>) -> Stage {
        if mark == self.mark {
            return self.ready(barrier, mark, 0, out);
        }
        let compare = Comparing::new(self.geometry, barrier, mark);
        compare.ask_page(self.geometry, out);
        Stage::Comparing(compare)
    }

    fn ready(
        &mut self,
        barrier: u64,
        mark: Mark,
        adopted_groups: u64,
        out: &mut Vec<Output>,
    ) -> Stage {
        self.durable = barrier;
        self.mark = mark;
        out.push(Output::Ready {
            barrier,
            mark,
            adopted_groups,
        });
        Stage::Ready
    }

    /// Moves a comparison on as far as it goes without more input.
    fn compare(
        &mut self,
        mut compare: Comparing,
        out: &mut Vec<Output>,
    ) -> Result<Stage, SessionError> {
        compare.find_differing();
        compare.ask_leaves(out);
        if !compare.page_is_done() {
            return Ok(Stage::Comparing(compare));
        }
        let next = GroupIndex(compare.builder.pushed());
        if self.geometry.contains_group(next) {
            compare.turn_to(next);
            compare.ask_page(self.geometry, out);
            return Ok(Stage::Comparing(compare));
        }
        if compare.builder.finish() != Some(compare.mark) {
            let first = compare.first;
            return Err(SessionError::BadGroups { first });
        }
        Ok(self.ready(compare.barrier, compare.mark, compare.adopted, out))
    }

    fn pass(
        &mut self,
        mut pass: Passing,
        input: Input,
        out: &mut Vec<Output>,
    ) -> Result<Stage, SessionError> {
        let stage = pass.name();
        match input {
            Input::ExtentSent {
                extent,
                payload_bytes,
            } if pass.may_send() => {
                extent.check_bounds(self.geometry)?;
                pass.sent(extent, payload_bytes)?;
            }
            Input::Offered { first, leaves } if pass.may_offer() => {
                let extent = Extent::Data { first, leaves };
                extent.check_bounds(self.geometry)?;
                pass.offered(extent)?;
            }
            Input::Received(ToSource::Answer { first, held }) => {
                let offer = pass.take_offer()?;
                let blocks = offer.leaves.len();
                if first != offer.first || !held_fits(self.geometry, first, blocks, &held) {
                    return Err(SessionError::BadAnswer { first });
                }
                pass.answered(&offer, &held);
                out.push(Output::Answered { first, held });
            }
            Input::BarrierDue => pass.barrier_due = true,
            Input::PassRead if pass.end == PassEnd::NotYet && pass.offers.is_empty() => {
                pass.end = PassEnd::Read;
            }
            Input::Stop => pass.stop(),
            Input::Received(ToSource::Durable { barrier, mark }) => {
                let extents = pass.acknowledged(self.durable, barrier, mark)?;
                self.durable = barrier;
                self.mark = mark;
                out.push(Output::Commit {
                    barrier,
                    mark,
                    extents,
                });
            }
            Input::Committed { barrier, mark } => pass.committed(barrier, mark)?,
            input => return Err(misplaced(&input, stage)),
        }
        pass.send_barrier(self.durable, out)?;
        if !pass.is_settled() {
            return Ok(Stage::Passing(pass));
        }
        Ok(end_pass(&pass, out))
    }

    fn finish(&self, root: Root, read_back: bool, out: &mut Vec<Output>) -> Stage {
        out.push(Output::Send(ToTarget::Finish {
            barrier: self.durable,
            root,
            read_back,
        }));
        Stage::Finishing { root, read_back }
    }
}

impl Stage {
    fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Opening => "opening",
            Self::Comparing(_) => "comparing",
            Self::Ready => "ready",
            Self::Passing(pass) => pass.name(),
            Self::Finishing { .. } => "finishing",
            Self::Over => "over",
        }
    }
}

/// Leaves a pass that was read or stopped, with all that was sent committed.
fn end_pass(pass: &Passing, out: &mut Vec<Output>) -> Stage {
    if matches!(pass.end, PassEnd::Read | PassEnd::Stopping { read: true }) {
        out.push(Output::PassDone {
            pass: pass.pass,
            blocks_sent: pass.blocks_sent,
            payload_bytes: pass.payload_bytes,
        });
    }
    match pass.end {
        PassEnd::Stopping { .. } => stop(out),
        PassEnd::NotYet | PassEnd::Read => Stage::Ready,
    }
}

fn finished(
    root: Root,
    read_back: bool,
    frame: ToSource,
    out: &mut Vec<Output>,
) -> Result<Stage, SessionError> {
    let frame_name = frame.name();
    let ToSource::Finished {
        root: stated,
        read_back: did,
        proof,
    } = frame
    else {
        let (frame, stage) = (frame_name, "finishing");
        return Err(SessionError::Unexpected { frame, stage });
    };
    if stated != root || did != read_back {
        return Err(SessionError::WrongStatement);
    }
    out.push(Output::Send(ToTarget::Close));
    out.push(Output::Done {
        root,
        read_back,
        proof,
    });
    Ok(Stage::Over)
}

fn stop(out: &mut Vec<Output>) -> Stage {
    out.push(Output::Send(ToTarget::Close));
    out.push(Output::Stopped);
    Stage::Over
}

fn misplaced(input: &Input, stage: &'static str) -> SessionError {
    let input = match input {
        Input::Received(frame) => {
            let frame = frame.name();
            return SessionError::Unexpected { frame, stage };
        }
        Input::Start => "a start",
        Input::OurGroups { .. } => "a page of marks",
        Input::BeginPass { .. } => "a pass",
        Input::ExtentSent { .. } => "an extent",
        Input::Offered { .. } => "an offer",
        Input::BarrierDue => "a barrier",
        Input::PassRead => "the end of a pass",
        Input::Committed { .. } => "a commit",
        Input::Finish { .. } => "a finish",
        Input::Stop => "a stop",
        Input::Closed(_) => "a close",
    };
    SessionError::OutOfTurn { input, stage }
}

#[cfg(test)]
mod tests;
