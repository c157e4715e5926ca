//! The agent's work on one source volume: when to open a session, when to begin a
//! pass, when to finish.
//!
//! ```text
//!            ┌────────────── held: nothing may move ──────────────┐
//!            │ planned · paused · refused · waiting (why)         │
//!            └───────┬────────────────────────────▲───────────────┘
//!        may move    │                            │ must not, or lost
//!                    ▼                            │
//!               connecting ──▶ passing ◀──▶ resting
//!                                 │ cutover asked, and a pass found nothing new
//!                                 ▼
//!                             finishing ──▶ cut over
//! ```
//!
//! Where the whole server is frozen for the cutover (`cutover`) the disks wait for each other:
//! with a root of both ends a disk is *proven*, and cut over together with all others.
//!
//! A replicator that is lost is left for the next of the pool, under a higher epoch
//! (`moving`): from any phase but the last two, back to waiting.
//!
//! Not here: reading, hashing and sending (`volumes`, `blocks::source`), and what a
//! freeze does to the source.

mod autonomy;
mod checkpoint;
mod hold;
mod interval;
mod left_out;
mod moving;
mod together;

pub use autonomy::{ON_AUTONOMY, autonomy_note};
pub use checkpoint::Point as CheckpointPoint;
pub use moving::{LONG_SESSION_MILLIS, LOST_MILLIS, MAX_DOUBLINGS};

use crate::cutover::Moment;
use crate::note::Note;
use crate::situation::{Ahead, Facts};
use crate::{JobId, Now};
use blocks::{RefusalCode, SwapArea};
use codec::Wire;
use crdt::plan::{Desired, Point};
use crdt::report::{PassRead, PassSummary, Stage};
use hold::Hold;
use interval::Interval;
use keys::{CheckpointName, Denied, Epoch, NodeId, Permit, SendBlocks, Signed};
use serde::{Deserialize, Serialize};

/// Shortest rest between two passes.
pub const MIN_REST_MILLIS: u64 = 2_000;
/// First wait before a lost session is opened again; doubles up to the longest.
pub const FIRST_RETRY_MILLIS: u64 = 500;
/// Rest between two passes that are to leave little for the time in which the source is
/// frozen.
pub const CONVERGING_REST_MILLIS: u64 = 200;
/// Longest wait before a lost session is opened again.
pub const LONGEST_RETRY_MILLIS: u64 = 15_000;
/// Sessions lost in a row before the work counts as stalled.
pub const STALLED_AFTER: u32 = 3;
/// An operator's first word on a grant is waited for so long before people are told.
pub const UNVOUCHED_MILLIS: u64 = 5_000;
/// A migration is ready for cutover once a pass takes no longer than this.
pub const READY_PASS_MILLIS: u64 = 60_000;
/// Summaries kept of past passes.
pub const MAX_SUMMARIES: usize = 16;

/// What must survive a crash of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The unit of work.
    pub job: JobId,
    /// Fencing epoch of the copy; 0 before a replicator was chosen.
    pub epoch: Epoch,
    /// The replicator chosen for that epoch.
    pub replicator: Option<NodeId>,
    /// Last durable barrier heard of.
    pub barrier: u64,
    /// Passes completed under this epoch, with what they sent: the first, and the newest
    /// of those that sent something or came last.
    pub passes: Vec<PassSummary>,
    /// Replicators left since a pass was last completed.
    pub moves: u32,
    /// Set once, when the volume was cut over.
    pub finished: Option<Finished>,
    /// Swap that is left out of the copy of this epoch; none before it was looked for.
    pub swap: Option<Vec<SwapArea>>,
    /// Checkpoints that it came to and that are wanted, the oldest first.
    pub checkpoints: Vec<CheckpointPoint>,
}

impl Wire for Record {
    const NAME: &'static str = "agent's record of a volume";
    const VERSION: u8 = 6;
    const LIMIT: usize = 64 * 1024;
}

/// The end of a migration of one volume: one root, stated by both ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// The root.
    pub root: [u8; 32],
    /// Signed by this agent.
    pub source_proof: Signed,
    /// Signed by the replicator.
    pub target_proof: Signed,
    /// How long the source had been frozen by then, in milliseconds; none where it was not,
    /// or where only the proofs are left to tell.
    pub frozen_millis: Option<u64>,
}

/// What the machine is told.
#[derive(Debug)]
pub enum Input {
    /// The plan, authority, reports or connections may have changed.
    Facts(Facts),
    /// The replicator accepted, and the stored tree mirrors what it durably holds.
    SessionReady {
        /// The replicator's last durable barrier.
        barrier: u64,
        /// Groups in which the stored tree had to be corrected.
        groups_adopted: u64,
    },
    /// Swap that is left out from here on; what it was before is over.
    LeftOut(Vec<SwapArea>),
    /// A barrier is durable at the replicator.
    BarrierReached(u64),
    /// A pass is complete and durable at the replicator.
    PassDone {
        /// How long ago the one before had begun is known here, and put in.
        summary: PassSummary,
        /// Nothing that was written before it began can turn up later as not read.
        is_final: bool,
        /// The next one reads what was written since this one began, and no more.
        is_followed: bool,
    },
    /// Both ends have stated the same root.
    Finished(Finished),
    /// The root that was asked for with [`Action::StateRoot`] is there, and signed; none where
    /// it was not to be any more.
    Rooted(Option<Box<CheckpointPoint>>),
    /// The replicator refused, with a code.
    Refused(RefusalCode),
    /// The session ended for any other reason.
    SessionLost(String),
    /// The source cannot be read; nothing goes on until it can.
    SourceFailed(String),
    /// Time passed.
    Tick,
}

/// What the shell is to do.
#[derive(Debug)]
pub enum Action {
    /// Make the record durable before anything after it.
    Store(Box<Record>),
    /// Open a stream to the replicator and start a session.
    OpenSession {
        /// Allows the source to be read and sent.
        permit: Permit<SendBlocks>,
        /// The epoch to show.
        epoch: Epoch,
    },
    /// Compare the source with the stored tree and send what differs.
    BeginPass {
        /// Number of the pass, from 1.
        pass: u32,
        /// Compare all of it, whatever is known of what was written.
        whole: bool,
    },
    /// Ask the replicator for its signed root.
    Finish {
        /// Have the copy read back in full first.
        read_back: bool,
    },
    /// Compute the root of what the source and the copy have, and sign it for the checkpoint
    /// that [`Agent::rooting`] names; the session goes on.
    StateRoot,
    /// End the session, after the extent in flight.
    CloseSession,
    /// Forget the volume's stored tree and record: the migration was deleted.
    Forget,
    /// Tell people.
    Tell(Note),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Held(Hold),
    Connecting,
    /// `cutover`: how far it had come when the pass began, if it had been asked for.
    Passing {
        pass: u32,
        cutover: Option<Moment>,
    },
    Resting {
        until_millis: u64,
    },
    /// A root was asked for: for this checkpoint, or at the cutover.
    Finishing(Option<CheckpointName>),
    /// There is what the server's checkpoint is to have, and it does not stand yet.
    Reached(Box<CheckpointPoint>),
    /// There is a root of both ends, and nothing counts yet.
    Proven {
        finished: Box<Finished>,
        /// By reading all of both.
        in_full: bool,
    },
    CutOver,
    Gone,
}

/// The machine of one source volume in one migration.
#[derive(Debug)]
pub struct Agent {
    record: Record,
    phase: Phase,
    facts: Option<Facts>,
    /// Sessions lost since a pass was last completed.
    failures: u32,
    /// The last failure told, so that it is told once.
    source_failure: Option<String>,
    quiet_wanted: bool,
    moving: moving::Watch,
    interval: Interval,
    /// The lease was not renewed in time, and people were told that work goes on.
    on_autonomy: bool,
    /// The last pass of this run left the next with what was written since, or there was none.
    is_followed: bool,
}

impl Agent {
    /// Starts from nothing, or from what was stored before a restart.
    pub fn new(job: JobId, stored: Option<Record>) -> Self {
        let record = stored.unwrap_or(Record {
            job,
            epoch: Epoch(0),
            replicator: None,
            barrier: 0,
            passes: vec![],
            moves: 0,
            finished: None,
            swap: None,
            checkpoints: vec![],
        });
        let phase = if record.finished.is_some() {
            Phase::CutOver
        } else {
            Phase::Held(Hold::Planned)
        };
        Self {
            record,
            phase,
            facts: None,
            failures: 0,
            source_failure: None,
            quiet_wanted: false,
            moving: moving::Watch::default(),
            interval: Interval::default(),
            on_autonomy: false,
            is_followed: true,
        }
    }

    /// With another wait than [`LOST_MILLIS`] before a lost replicator is left.
    pub fn moving_on_after(mut self, millis: u64) -> Self {
        self.moving = moving::Watch::new(millis);
        self
    }

    /// What is durable.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether it has asked for the replicator's signed root: nothing else makes this
    /// end sign its own. What is given is whether the copy had to be read back first.
    pub fn finishing(&self) -> Option<bool> {
        (self.phase == Phase::Finishing(None) && self.checkpoint().is_none())
            .then(|| self.cutover_wanted())
            .flatten()
    }

    /// The point whose hooks it waits for.
    pub fn waits_for_hooks(&self) -> Option<Point> {
        match &self.phase {
            Phase::Held(Hold::Hooks(point, _)) => Some(*point),
            _ => None,
        }
    }

    /// Whether the machine has ended and may be dropped.
    pub fn gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// When to give [`Input::Tick`] next, on the monotonic clock.
    pub fn deadline_millis(&self) -> Option<u64> {
        let phase = match self.phase {
            Phase::Resting { until_millis }
            | Phase::Held(Hold::Retry { until_millis, .. } | Hold::Unvouched { until_millis }) => {
                Some(until_millis)
            }
            _ => None,
        };
        let lost = self.moving.deadline_millis(self.record.moves);
        phase.into_iter().chain(lost).min()
    }

    /// Takes one input; actions are appended to `out`, to be carried out in order.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Action>) {
        if self.phase == Phase::Gone {
            // The last words of a session that ended with the migration.
            return;
        }
        match input {
            Input::Facts(facts) => {
                self.facts = Some(facts);
                self.settle(now, out);
            }
            Input::Tick => self.settle(now, out),
            Input::SessionReady {
                barrier,
                groups_adopted,
            } => self.session_ready(now, barrier, groups_adopted, out),
            Input::LeftOut(swap) => self.leave_out(swap, out),
            Input::BarrierReached(barrier) => {
                // The last words of a session that was closed may be of an older epoch.
                if self.in_session() {
                    self.record.barrier = barrier;
                    self.moving.progressed();
                    out.push(Action::Store(Box::new(self.record.clone())));
                }
            }
            Input::PassDone {
                summary,
                is_final,
                is_followed,
            } => self.pass_done(now, summary, (is_final, is_followed), out),
            Input::Finished(finished) => self.finished(finished, out),
            Input::Rooted(point) => self.rooted(now, point, out),
            Input::Refused(code) => {
                let text = format!(
                    "the replicator refused volume {}: {code}",
                    self.record.job.volume.short()
                );
                // Its lease comes a moment after that of this end, or it tells people itself.
                let note = match code {
                    RefusalCode::NoLease => Note::info("refused-by-replicator", text),
                    _ => Note::warn("refused-by-replicator", text),
                };
                out.push(Action::Tell(note));
                self.lost(now, format!("refused by the replicator: {code}"));
            }
            Input::SessionLost(why) => {
                if self.in_session() {
                    let text = format!(
                        "the session ended ({why}); it goes on from durable barrier {}",
                        self.record.barrier
                    );
                    out.push(Action::Tell(Note::warn("session-lost", text)));
                }
                self.lost(now, why);
            }
            Input::SourceFailed(why) => {
                if self.source_failure.as_ref() != Some(&why) {
                    out.push(Action::Tell(Note::error("source-failed", why.clone())));
                    self.source_failure = Some(why.clone());
                }
                self.lost(now, why);
            }
        }
    }

    fn in_session(&self) -> bool {
        matches!(
            self.phase,
            Phase::Connecting | Phase::Passing { .. } | Phase::Resting { .. } | Phase::Finishing(_)
        )
    }

    fn lost(&mut self, now: Now, why: String) {
        if !self.in_session() {
            return;
        }
        self.moving.session_ended(now);
        let wait = FIRST_RETRY_MILLIS << self.failures.min(8);
        self.failures += 1;
        self.phase = Phase::Held(Hold::Retry {
            until_millis: now.mono_millis + wait.min(LONGEST_RETRY_MILLIS),
            why,
        });
    }

    fn session_ready(
        &mut self,
        now: Now,
        barrier: u64,
        groups_adopted: u64,
        out: &mut Vec<Action>,
    ) {
        if self.phase != Phase::Connecting {
            return;
        }
        self.moving.session_began(now);
        self.record.barrier = barrier;
        out.push(Action::Store(Box::new(self.record.clone())));
        // A first pass that was broken off has no barrier yet, but its blocks are there.
        let note = if barrier == 0 && groups_adopted == 0 {
            Note::info("session-opened", "the replicator accepted the stream")
        } else {
            Note::info(
                "session-resumed",
                format!(
                    "resumed from durable barrier {barrier}; {groups_adopted} regions of 16 MiB had to be compared"
                ),
            )
        };
        out.push(Action::Tell(note));
        self.begin_pass(now, out);
    }

    fn begin_pass(&mut self, now: Now, out: &mut Vec<Action>) {
        self.begin_pass_over(now, false, out);
    }

    /// Begins a pass over what may have changed, or over all.
    fn begin_pass_over(&mut self, now: Now, all: bool, out: &mut Vec<Action>) {
        let pass = self.record.passes.last().map_or(1, |last| last.pass + 1);
        self.interval.begin(now.mono_millis, pass == 1);
        let wanted = self.cutover_wanted();
        let cutover = wanted.map(|_| self.moment());
        self.phase = Phase::Passing { pass, cutover };
        // What is to be proven is read once nothing is written any more.
        let proves = wanted == Some(true) && cutover != Some(Moment::Converging);
        let whole = all || proves;
        out.push(Action::BeginPass { pass, whole });
    }

    /// Whether a cutover or a checkpoint is to be come to now, and if so whether all is to be
    /// read for it.
    fn cutover_wanted(&self) -> Option<bool> {
        let facts = self.facts.as_ref()?;
        match facts.desired {
            _ if facts.checkpoint.is_some() => Some(false),
            Desired::Cutover { prove_full, .. } => Some(prove_full),
            _ => None,
        }
    }

    fn pass_done(
        &mut self,
        now: Now,
        mut summary: PassSummary,
        (is_final, is_followed): (bool, bool),
        out: &mut Vec<Action>,
    ) {
        let Phase::Passing { cutover, .. } = self.phase else {
            return;
        };
        summary.since_millis = self.interval.end();
        self.failures = 0;
        self.source_failure = None;
        self.moving.progressed();
        self.record.moves = 0;
        self.is_followed = is_followed;
        let clean = summary.blocks == 0;
        // What this one cost says what the next will, unless that has much less to read.
        let rest = match (summary.read, is_followed) {
            (PassRead::Whole, true) => MIN_REST_MILLIS,
            _ => MIN_REST_MILLIS.max(summary.millis),
        };
        let is_first = self.record.passes.is_empty();
        let moment = self.moment();
        // Of what was read before the source was frozen, some may have been written since.
        let is_of_now = cutover.is_some_and(|began| began >= moment);
        let is_last = is_of_now && clean && is_final;
        let is_whole = summary.read == PassRead::Whole;
        if is_first || !clean || cutover.is_some_and(|began| began != Moment::Converging) {
            let text = format!(
                "pass {} sent {} blocks, {} bytes in {} ms",
                summary.pass, summary.blocks, summary.bytes_sent, summary.millis
            );
            out.push(Action::Tell(Note::info("pass-done", text)));
        }
        self.keep(summary);
        out.push(Action::Store(Box::new(self.record.clone())));
        match self.cutover_wanted() {
            // That it is to be proven in full may have been asked for while it ran.
            Some(read_back)
                if moment != Moment::Converging && is_last && (is_whole || !read_back) =>
            {
                self.ask_root(read_back, out);
            }
            Some(_) if moment == Moment::Converging => {
                let shortest = match self.is_rooting() {
                    true => rest,
                    false => rest.min(CONVERGING_REST_MILLIS),
                };
                self.phase = Phase::Resting {
                    until_millis: now.mono_millis + shortest,
                };
            }
            Some(_) => {
                let is_apart = moment == Moment::Apart && cutover.is_some();
                if is_apart && !clean && !self.quiet_wanted {
                    self.quiet_wanted = true;
                    let text = "the last pass still had blocks to send; what was asked for waits until a whole pass finds nothing new: stop or freeze what writes to the source";
                    out.push(Action::Tell(Note::warn("source-not-quiet", text)));
                }
                // Where it is never known whether something may turn up as missing, comparing
                // all makes up for it.
                self.begin_pass_over(now, is_of_now && clean && !is_final, out);
            }
            None => {
                self.quiet_wanted = false;
                self.phase = Phase::Resting {
                    until_millis: now.mono_millis + rest,
                };
            }
        }
    }

    /// Keeps the first pass, and the newest of the others: of such as sent nothing one
    /// after the other, the last.
    fn keep(&mut self, mut summary: PassSummary) {
        let passes = &mut self.record.passes;
        let is_idle = |pass: &PassSummary| pass.blocks == 0;
        if passes.len() > 1
            && is_idle(&summary)
            && let Some(before) = passes.pop_if(|last| is_idle(last))
        {
            // Nothing changed in the time of both.
            summary.since_millis = match (before.since_millis, summary.since_millis) {
                (Some(before), Some(since)) => Some(before.saturating_add(since)),
                (_, since) => since,
            };
        }
        passes.push(summary);
        if passes.len() > MAX_SUMMARIES {
            passes.remove(1);
        }
    }

    /// Brings the phase in line with the facts.
    fn settle(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(facts) = &self.facts else { return };
        if !facts.is_heard && !matches!(self.phase, Phase::CutOver | Phase::Gone) {
            // Nor is anything forgotten: what was said last may be that it was cut over.
            self.phase = Phase::Held(Hold::Unheard);
            return;
        }
        if let Some(ahead) = facts.ahead.clone() {
            return self.catch_up(ahead, out);
        }
        if facts.desired == Desired::Deleted {
            // What was cut over is a server's disk now: its proofs stay with its agent,
            // and say to the provisioner that its volumes stay too.
            if !matches!(self.phase, Phase::Gone | Phase::CutOver) {
                if self.in_session() {
                    out.push(Action::CloseSession);
                }
                if facts.cutover.holds {
                    self.phase = Phase::Held(Hold::Planned);
                    return;
                }
                let hooks = Hold::at(Point::BeforeCleanup, &facts.before_cleanup);
                // Where it never came to a copy nothing is left to clean up.
                if let Some(hold) = hooks.filter(|_| self.record.replicator.is_some()) {
                    self.phase = Phase::Held(hold);
                    return;
                }
                out.push(Action::Forget);
                self.phase = Phase::Gone;
            }
            return;
        }
        if matches!(self.phase, Phase::CutOver | Phase::Gone) {
            return;
        }
        if self.stands(out) || self.stays_proven() {
            return;
        }
        if self.move_on(now, out) {
            // What the permit and the target say depends on the choice; they come with
            // the next facts.
            return;
        }
        match self.hold(now) {
            Err(hold) => {
                if self.in_session() {
                    out.push(Action::CloseSession);
                }
                if self.phase != Phase::Held(hold.clone()) {
                    if let Some(note) = hold.note() {
                        out.push(Action::Tell(note));
                    }
                    self.phase = Phase::Held(hold);
                }
            }
            Ok(permit) => {
                self.tell_of_autonomy(now, &permit, out);
                self.advance(now, permit, out);
            }
        }
    }

    /// Takes up what this node had said and does not remember.
    fn catch_up(&mut self, ahead: Ahead, out: &mut Vec<Action>) {
        if self.in_session() {
            out.push(Action::CloseSession);
        }
        let text = match ahead {
            Ahead::Unproven => {
                let hold = Phase::Held(Hold::Unproven);
                if self.phase != hold {
                    out.extend(Hold::Unproven.note().map(Action::Tell));
                    self.phase = hold;
                }
                return;
            }
            Ahead::CutOver(epoch, replicator, finished) => {
                self.record.epoch = epoch;
                self.record.replicator = Some(replicator);
                self.record.finished = Some(*finished);
                self.phase = Phase::CutOver;
                "was cut over already".to_owned()
            }
            Ahead::Epoch(epoch, replicator) => {
                self.record.epoch = epoch;
                self.record.replicator = replicator;
                self.record.barrier = 0;
                self.record.swap = None;
                self.record.passes.clear();
                self.phase = Phase::Held(Hold::NoTarget(None));
                format!("had come to epoch {epoch}")
            }
        };
        out.push(Action::Store(Box::new(self.record.clone())));
        let text = format!(
            "this node's data is older than what it said before: volume {} {text}, and that is taken up again",
            self.record.job.volume.short()
        );
        out.push(Action::Tell(Note::warn("record-caught-up", text)));
    }

    fn tell_of_autonomy(&mut self, now: Now, permit: &Permit<SendBlocks>, out: &mut Vec<Action>) {
        let note = autonomy_note(self.on_autonomy, now, permit);
        self.on_autonomy = permit.is_on_autonomy(now);
        out.extend(note.map(Action::Tell));
    }

    fn advance(&mut self, now: Now, permit: Permit<SendBlocks>, out: &mut Vec<Action>) {
        match &self.phase {
            // One that was proven is not any more.
            Phase::Held(_) | Phase::Proven { .. } | Phase::Reached(_) => {
                self.phase = Phase::Connecting;
                out.push(Action::OpenSession {
                    permit,
                    epoch: self.record.epoch,
                });
            }
            Phase::Resting { until_millis }
                if now.mono_millis >= *until_millis
                    || (self.cutover_wanted().is_some() && self.moment() != Moment::Converging) =>
            {
                self.begin_pass(now, out);
            }
            _ => {}
        }
    }

    /// Why nothing may move now, or the permit with which it may.
    fn hold(&self, now: Now) -> Result<Permit<SendBlocks>, Hold> {
        let facts = self.facts.as_ref().expect("settle has facts");
        match facts.desired {
            Desired::Created | Desired::Deleted => return Err(Hold::Planned),
            Desired::Paused => return Err(Hold::Paused),
            Desired::Started | Desired::Cutover { .. } => {}
        }
        if let Err(why) = &facts.source {
            return Err(Hold::Source(why.clone()));
        }
        if self.record.replicator.is_none() {
            return Err(Hold::NoReplicator);
        }
        let permit = match &facts.permit {
            Some(Ok(permit)) => permit.clone(),
            Some(Err(denied @ Denied::NotVouched { .. })) => {
                return Err(self.unvouched(now, *denied));
            }
            Some(Err(denied)) => return Err(Hold::Denied(*denied)),
            None => return Err(Hold::NoTarget(None)),
        };
        match &facts.target {
            Some(Ok(())) => {}
            Some(Err(why)) => return Err(Hold::NoTarget(Some(why.clone()))),
            // A provisioner that was started again has yet to look at its volumes.
            None if self.in_session() => {}
            None => return Err(Hold::NoTarget(None)),
        }
        if !facts.replicator_connected && !self.in_session() {
            return Err(Hold::NotConnected);
        }
        if let Phase::Held(Hold::Retry { until_millis, why }) = &self.phase
            && now.mono_millis < *until_millis
        {
            return Err(Hold::Retry {
                until_millis: *until_millis,
                why: why.clone(),
            });
        }
        let is_begun =
            self.in_session() || self.record.barrier > 0 || !self.record.passes.is_empty();
        let hooks = Hold::at(Point::BeforeReplication, &facts.before_replication);
        match hooks.filter(|_| !is_begun) {
            Some(hold) => Err(hold),
            None => Ok(permit),
        }
    }

    /// An operator's answer is usually under way; only one that stays away is told.
    fn unvouched(&self, now: Now, denied: Denied) -> Hold {
        match &self.phase {
            Phase::Held(Hold::Unvouched { until_millis }) if now.mono_millis < *until_millis => {
                Hold::Unvouched {
                    until_millis: *until_millis,
                }
            }
            Phase::Held(Hold::Unvouched { .. } | Hold::Denied(_)) => Hold::Denied(denied),
            _ => Hold::Unvouched {
                until_millis: now.mono_millis + UNVOUCHED_MILLIS,
            },
        }
    }

    /// Where it stands, for people: stage, named step, and why it waits.
    pub fn standing(&self) -> (Stage, &'static str, Option<String>) {
        let passed = self.record.passes.len();
        let is_cutting = self.cutover_wanted().is_some() && self.checkpoint().is_none();
        let running = if is_cutting {
            Stage::CuttingOver
        } else if passed == 0 {
            Stage::InitialSync
        } else if self
            .record
            .passes
            .last()
            .is_some_and(|last| last.millis <= READY_PASS_MILLIS)
        {
            Stage::ReadyForCutover
        } else {
            Stage::Replicating
        };
        let autonomy = || self.on_autonomy.then(|| ON_AUTONOMY.to_owned());
        let waiting_for_quiet = || {
            let quiet = "waits until a whole pass finds nothing new: stop or freeze what writes to the source";
            self.cutover_because()
                .or(self.quiet_wanted.then(|| quiet.to_owned()))
                .or(autonomy())
        };
        match &self.phase {
            // A session that is opened again at once is not worth a word.
            Phase::Held(Hold::Retry { .. }) if self.failures < STALLED_AFTER => {
                (running, "connecting", None)
            }
            Phase::Held(hold) => hold.standing(running),
            Phase::Connecting => (running, "comparing", autonomy()),
            Phase::Passing { cutover, .. } => match cutover {
                Some(Moment::Converging) => (running, "converging", waiting_for_quiet()),
                Some(Moment::Still) => (running, "frozen, copying the rest", autonomy()),
                _ => (running, "copying", waiting_for_quiet()),
            },
            Phase::Resting { .. } if self.cutover_wanted().is_some() => {
                (running, "converging", waiting_for_quiet())
            }
            Phase::Resting { .. } => (running, "resting", autonomy()),
            Phase::Finishing(_) => (running, "proving", autonomy()),
            Phase::Proven { .. } => (Stage::CuttingOver, "proven", self.cutover_because()),
            Phase::Reached(_) => (running, "proven", self.cutover_because()),
            Phase::CutOver => (Stage::CutOver, "done", None),
            Phase::Gone => (Stage::Enrolled, "deleted", None),
        }
    }
}

#[cfg(test)]
mod tests;
