//! The loop of the agent's end: one event at a time into `blocks::Source`, its
//! outputs carried out in order.
//!
//! Everything that goes to the stream goes through one queue, so that the
//! order in which the machine is told of extents and asks for barriers is the
//! order on the wire.
//!
//! Not here: bytes on the stream (`wire`) and on the disk (`disk`).

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use blocks::source::{Input, Output, SessionError};
use blocks::{
    BLOCK_SIZE, CloseReason, Encoding, Extent, FrameError, Held, Source, ToSource, ToTarget,
};
use crdt::{PassRead, PassSummary};
use tokio::select;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::disk::{Disk, FromDisk, Offer, Run, ToDisk};
use super::follow::Reading;
use super::piece::Slice;
use super::send::{SendCommand, SendEvent};
use super::share::{Share, Sharers};
use super::wire::{Activity, LINGER, Outgoing, Parcel, SILENT};
use super::{Progress, Way, add};
use crate::clock;
use keys::{Permit, SendBlocks};

/// Frames of the target that wait for the session; what is beyond that waits in the stream.
pub(super) const FRAMES: usize = 128;

/// Or once the first of them has waited this long.
const BARRIER_AGE: Duration = Duration::from_secs(5);

/// Groups given to the disk thread to adopt and not yet done: half a
/// megabyte.
const ADOPTING: usize = 64;

/// Offers answered of which the disk thread has yet to say what is left: each is a
/// mebibyte at most.
const MAX_REMAINDERS: usize = 16;

/// Commands that wait for their turn.
const WAITING_COMMANDS: usize = 8;

/// The replicator may have to read its volume before it answers: at this
/// speed, in bytes a second, at least.
const SLOWEST_READ: u64 = 20 << 20;

/// Why the writer ended, for the session to see.
#[derive(Debug, Clone, Default)]
pub(super) struct Broken(Arc<OnceLock<CloseReason>>);

impl Broken {
    pub(super) fn set(&self, reason: CloseReason) {
        // The first reason is the cause.
        let _ = self.0.set(reason);
    }

    fn reason(&self) -> CloseReason {
        self.0.get().copied().unwrap_or(CloseReason::Lost)
    }
}

/// What a session is connected to.
pub(super) struct Wires {
    /// From the reader.
    pub(super) frames: mpsc::Receiver<Result<ToSource, CloseReason>>,
    /// To the writer.
    pub(super) parcels: Outgoing,
    /// When bytes last went either way.
    pub(super) activity: Activity,
    /// To the caller.
    pub(super) events: mpsc::Sender<SendEvent>,
    /// With whom it shares what is offered.
    pub(super) sharers: Sharers,
}

/// One session while it runs.
pub(super) struct Session {
    machine: Source,
    length: u64,
    barrier_bytes: u64,
    disk: Disk,
    permit: watch::Receiver<Permit<SendBlocks>>,
    frames: mpsc::Receiver<Result<ToSource, CloseReason>>,
    parcels: Outgoing,
    events: mpsc::Sender<SendEvent>,
    progress: Arc<Progress>,
    activity: Activity,
    broken: Broken,
    runs: VecDeque<Run>,
    /// Offered and not answered, the oldest first.
    offers: VecDeque<Offer>,
    /// Answered, and not yet known what of them is to be sent.
    remainders: usize,
    sharers: Sharers,
    /// How many of both there may be; none between passes.
    share: Option<Share>,
    /// All of the pass was read, and some offers are not yet done with.
    is_read: bool,
    /// How that found what changed.
    reading: Reading,
    waiting: VecDeque<SendCommand>,
    is_ready: bool,
    is_stopping: bool,
    /// Whether the statement that is being prepared is to be read back.
    reads_back: Option<bool>,
    adopting: usize,
    unsettled: Unsettled,
    pass_began: Instant,
    last: Option<SendEvent>,
}

/// What was sent and no barrier was asked for yet.
#[derive(Default)]
struct Unsettled {
    bytes: u64,
    since: Option<Instant>,
}

impl Unsettled {
    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.since.get_or_insert_with(Instant::now);
    }
}

impl Session {
    /// A session for a source of `length` bytes, with a barrier after `barrier_bytes`.
    pub(super) fn new(
        machine: Source,
        (length, barrier_bytes): (u64, u64),
        progress: Arc<Progress>,
        (disk, permit): (Disk, watch::Receiver<Permit<SendBlocks>>),
        wires: Wires,
    ) -> Self {
        let Wires {
            frames,
            parcels,
            activity,
            events,
            sharers,
        } = wires;
        Self {
            machine,
            length,
            barrier_bytes,
            disk,
            permit,
            frames,
            parcels,
            events,
            progress,
            activity,
            broken: Broken::default(),
            runs: VecDeque::new(),
            offers: VecDeque::new(),
            remainders: 0,
            sharers,
            share: None,
            is_read: false,
            reading: Reading {
                read: PassRead::Whole,
                read_by: None,
                is_final: true,
                is_followed: false,
            },
            waiting: VecDeque::new(),
            is_ready: false,
            is_stopping: false,
            reads_back: None,
            adopting: 0,
            unsettled: Unsettled::default(),
            pass_began: Instant::now(),
            last: None,
        }
    }

    pub(super) fn broken(&self) -> Broken {
        self.broken.clone()
    }

    /// Runs until the session is over; gives the last event, and the disk to
    /// be stopped once the stream is closed.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<SendCommand>,
    ) -> (SendEvent, Disk) {
        self.step(Input::Start).await;
        loop {
            self.send_runs().await;
            self.ask_barrier_by_size().await;
            self.take_turn().await;
            if let Some(last) = self.last.take() {
                return (last, self.disk);
            }
            let due = self.unsettled.since.map(|since| since + BARRIER_AGE);
            let silent = self
                .patience()
                .map(|patience| self.activity.last() + patience);
            select! {
                frame = self.frames.recv(), if self.adopting < ADOPTING => {
                    self.heard(frame).await;
                }
                // What is left of an offer goes ahead of what waits for room for another.
                answer = self.disk.answer(), if self.runs.is_empty() || self.remainders > 0 => {
                    self.answered(answer).await;
                }
                command = commands.recv(), if self.takes_commands() => {
                    self.commanded(command.unwrap_or(SendCommand::Close)).await;
                }
                () = until(due) => {
                    self.unsettled.since = None;
                    self.step(Input::BarrierDue).await;
                }
                () = until(silent) => {
                    if self.is_silent() {
                        self.step(Input::Closed(CloseReason::Silent)).await;
                    }
                }
                // The next run goes once there is room for it.
                () = self.parcels.shrunk(), if self.may_send_next() => {}
                () = self.parcels.closed() => self.writing_broke().await,
            }
        }
    }

    fn takes_commands(&self) -> bool {
        !self.is_stopping && self.waiting.len() < WAITING_COMMANDS
    }

    /// How long the target may be silent now; none while nothing is expected
    /// of it.
    fn patience(&self) -> Option<Duration> {
        let reading = Duration::from_secs(self.length / SLOWEST_READ);
        match self.machine.stage() {
            "opening" | "finishing" => Some(SILENT + reading),
            "comparing" | "draining" | "stopping" => Some(SILENT),
            "passing" if !self.machine.may_send() || !self.offers.is_empty() => Some(SILENT),
            _ => None,
        }
    }

    fn is_silent(&self) -> bool {
        self.patience()
            .is_some_and(|patience| self.activity.last() + patience <= Instant::now())
    }

    async fn heard(&mut self, frame: Option<Result<ToSource, CloseReason>>) {
        let input = match frame {
            Some(Ok(frame)) => Input::Received(frame),
            Some(Err(reason)) => Input::Closed(reason),
            None => Input::Closed(CloseReason::Lost),
        };
        self.step(input).await;
    }

    /// The stream takes no more. The target may have said why before.
    async fn writing_broke(&mut self) {
        let last_words = async {
            while let Some(Ok(frame)) = self.frames.recv().await {
                if matches!(frame, ToSource::Refused { .. }) {
                    return Some(frame);
                }
            }
            None
        };
        let input = match timeout(LINGER, last_words).await {
            Ok(Some(refused)) => Input::Received(refused),
            _ => Input::Closed(self.broken.reason()),
        };
        // Frames it would send go nowhere.
        let _ = self.step_no_send(input).await;
    }

    async fn answered(&mut self, answer: Option<FromDisk>) {
        match answer {
            Some(FromDisk::Groups { first, marks }) => {
                self.step(Input::OurGroups { first, marks }).await;
            }
            Some(FromDisk::Adopted) => self.adopting = self.adopting.saturating_sub(1),
            // What was read after a stop is not sent.
            Some(FromDisk::Runs(_)) if self.is_stopping => {}
            Some(FromDisk::Runs(runs)) => self.runs.extend(runs),
            Some(FromDisk::Remainder(runs)) => {
                self.remainders = self.remainders.saturating_sub(1);
                if !self.is_stopping {
                    runs.into_iter()
                        .rev()
                        .for_each(|run| self.runs.push_front(run));
                }
            }
            Some(FromDisk::PassRead(reading)) => {
                self.is_read = true;
                self.reading = reading;
            }
            Some(FromDisk::Committed { barrier, mark }) => {
                self.step(Input::Committed { barrier, mark }).await;
            }
            Some(FromDisk::Root { .. }) if self.is_stopping => {}
            Some(FromDisk::Root { root }) => match self.reads_back {
                Some(read_back) => self.step(Input::Finish { root, read_back }).await,
                None => {
                    self.is_ready = true;
                    self.tell(SendEvent::Rooted(root.0)).await;
                }
            },
            Some(FromDisk::LeftOutLess(left_out)) => {
                let why = left_out.told.clone();
                self.tell(SendEvent::LeftOut(left_out)).await;
                self.end(SendEvent::Lost(why));
            }
            Some(FromDisk::Failed(why)) => self.end(SendEvent::SourceFailed(why)),
            Some(FromDisk::TreeDamaged(why)) => self.end(SendEvent::Lost(format!(
                "{why}: they are taken over from the replicator on the next connection"
            ))),
            Some(FromDisk::Opened { .. }) | None => {
                let why = "reading the source was broken off: resume".to_owned();
                self.end(SendEvent::SourceFailed(why));
            }
        }
    }

    async fn commanded(&mut self, command: SendCommand) {
        if matches!(command, SendCommand::Close) {
            self.is_stopping = true;
            self.runs.clear();
            self.disk.ask(ToDisk::EndPass);
            if self.parcels.takes_long() {
                // As if the connection were cut: what is not durable is sent again.
                return self.end(SendEvent::Closed);
            }
            self.step(Input::Stop).await;
        } else {
            self.waiting.push_back(command);
        }
    }

    /// Begins what waits, when it is its turn.
    async fn take_turn(&mut self) {
        if self.is_read && self.is_sent() {
            (self.is_read, self.share) = (false, None);
            if !self.is_stopping {
                self.step(Input::PassRead).await;
            }
        }
        if !self.is_ready || self.adopting > 0 || self.is_stopping {
            return;
        }
        match self.waiting.pop_front() {
            None | Some(SendCommand::Close) => {}
            Some(SendCommand::BeginPass { pass, whole }) => {
                self.is_ready = false;
                self.pass_began = Instant::now();
                self.share = Some(self.sharers.join());
                self.step(Input::BeginPass { pass }).await;
                let references = self.machine.wants_fingerprints();
                self.disk.ask(ToDisk::Pass {
                    pass,
                    whole,
                    references,
                });
            }
            Some(SendCommand::Finish { read_back }) => {
                self.is_ready = false;
                self.reads_back = Some(read_back);
                self.disk.ask(ToDisk::Root);
            }
            Some(SendCommand::StateRoot) => {
                self.is_ready = false;
                self.reads_back = None;
                self.disk.ask(ToDisk::Root);
            }
        }
    }

    /// Whether all that was read in this pass has been sent.
    fn is_sent(&self) -> bool {
        self.runs.is_empty() && self.offers.is_empty() && self.remainders == 0
    }

    /// Whether another extent may wait for the stream.
    fn has_room(&self) -> bool {
        self.parcels.has_room(self.share.as_ref())
    }

    fn has_room_for_offers(&self) -> bool {
        let room = |share: &Share| share.buffers(MAX_REMAINDERS);
        let room = self.share.as_ref().map_or(0, room);
        self.offers.len() < room && self.remainders < room
    }

    /// Whether the machine lets the next run go.
    fn may_send_next(&self) -> bool {
        match self.runs.front() {
            Some(Run::Offer(_)) => self.machine.may_offer() && self.has_room_for_offers(),
            Some(_) => self.machine.may_send(),
            None => false,
        }
    }

    /// Sends what was read, as far as the machine lets it.
    async fn send_runs(&mut self) {
        while self.last.is_none() && self.may_send_next() && self.has_room() {
            if !self.permit.borrow().holds(clock::now()) {
                return self.commanded(SendCommand::Close).await;
            }
            let sent = match self.runs.pop_front() {
                None => return,
                Some(Run::Offer(offer)) => self.send_offer(offer).await,
                Some(run) => self.send_run(run).await,
            };
            match sent {
                Ok(()) => self.ask_barrier_by_size().await,
                Err(NotSent::StreamGone) => return self.writing_broke().await,
                Err(NotSent::Fault(error)) => self.own_fault(&error),
            }
        }
    }

    async fn send_run(&mut self, run: Run) -> Result<(), NotSent> {
        let way = run.way();
        let (parcel, extent, payload_bytes) = parcel_of(run)?;
        let (blocks, bytes) = (extent.count(), extent_bytes(&extent));
        self.put(parcel).await?;
        self.progress.sent(way, blocks, payload_bytes);
        self.unsettled.add(bytes);
        self.step(Input::ExtentSent {
            extent,
            payload_bytes,
        })
        .await;
        Ok(())
    }

    /// The bytes are kept until it is known what of them is to be sent: where they lie, if
    /// they are most of what lies there.
    async fn send_offer(&mut self, mut offer: Offer) -> Result<(), NotSent> {
        let (first, leaves) = (offer.first, offer.leaves.clone());
        let frame = ToTarget::Offer {
            first,
            leaves: leaves.clone(),
            fingerprints: offer.fingerprints.clone(),
        };
        self.put(Parcel::to_target(&frame)?).await?;
        if !offer.fills_piece {
            offer.bytes = Slice::own(offer.bytes.bytes().to_vec());
        }
        self.offers.push_back(offer);
        self.unsettled.add(0);
        self.step(Input::Offered { first, leaves }).await;
        Ok(())
    }

    fn offer_answered(&mut self, held: Vec<Held>) {
        let Some(offer) = self.offers.pop_front() else {
            return;
        };
        let made = held.iter().filter(|held| **held == Held::Made).count() as u64;
        self.progress.sent(Way::Reference, made, 0);
        self.unsettled.add(made * BLOCK_SIZE as u64);
        if !self.is_stopping {
            self.remainders += 1;
            self.disk.ask(ToDisk::Answered { offer, held });
        }
    }

    async fn put(&mut self, parcel: Parcel) -> Result<(), NotSent> {
        let sent = self.parcels.send(parcel).await;
        sent.map_err(|_| NotSent::StreamGone)
    }

    async fn ask_barrier_by_size(&mut self) {
        if self.unsettled.bytes >= self.barrier_bytes {
            self.unsettled.bytes = 0;
            self.step(Input::BarrierDue).await;
        }
    }

    /// One input, and all it leads to.
    async fn step(&mut self, input: Input) {
        if self.step_no_send(input).await.is_err() {
            self.writing_broke().await;
        }
    }

    /// As [`Self::step`], with an error once nothing can be sent any more.
    async fn step_no_send(&mut self, input: Input) -> Result<(), StreamGone> {
        // What the target owes is counted from here.
        self.activity.note();
        let committed = match &input {
            Input::Committed { barrier, .. } => Some(*barrier),
            _ => None,
        };
        let mut out = Vec::new();
        self.machine.step(input, &mut out);
        let is_failed = out.iter().any(|output| matches!(output, Output::Fail(_)));
        if let Some(barrier) = committed.filter(|_| !is_failed) {
            self.tell(SendEvent::Barrier(barrier)).await;
        }
        let mut sent = Ok(());
        for output in out {
            if let Output::Send(frame) = output {
                sent = sent.and(self.send(&frame).await);
            } else {
                self.carry_out(output).await;
            }
        }
        if self.last.is_some() { Ok(()) } else { sent }
    }

    async fn send(&mut self, frame: &ToTarget) -> Result<(), StreamGone> {
        if matches!(frame, ToTarget::Barrier { .. }) {
            self.unsettled = Unsettled::default();
        }
        match Parcel::to_target(frame) {
            Ok(parcel) => self.parcels.send(parcel).await.map_err(|_| StreamGone),
            Err(error) => {
                self.own_fault(&error);
                Ok(())
            }
        }
    }

    async fn carry_out(&mut self, output: Output) {
        match output {
            // Sent by the caller.
            Output::Send(_) => {}
            Output::Answered { held, .. } => self.offer_answered(held),
            Output::LoadGroups { first, count } => {
                self.disk.ask(ToDisk::Groups { first, count });
            }
            Output::Adopt { group, entries } => {
                self.adopting += 1;
                self.disk.ask(ToDisk::Adopt { group, entries });
            }
            Output::Ready {
                barrier,
                adopted_groups: groups_adopted,
                ..
            } => {
                self.is_ready = true;
                self.tell(SendEvent::Ready {
                    barrier,
                    groups_adopted,
                })
                .await;
            }
            Output::Commit {
                barrier, extents, ..
            } => {
                let blocks = extents.iter().map(Extent::count).sum();
                add(&self.progress.blocks_durable, blocks);
                add(&self.progress.barriers, 1);
                self.disk.ask(ToDisk::Commit { barrier, extents });
            }
            Output::PassDone {
                pass,
                blocks_sent,
                payload_bytes,
            } => {
                self.is_ready = true;
                self.disk.ask(ToDisk::Rest);
                let millis = self.pass_began.elapsed().as_millis();
                let summary = PassSummary {
                    pass,
                    blocks: blocks_sent,
                    bytes_sent: payload_bytes,
                    millis: u64::try_from(millis).unwrap_or(u64::MAX),
                    since_millis: None,
                    read: self.reading.read,
                };
                let reading = self.reading.clone();
                self.tell(SendEvent::PassDone { summary, reading }).await;
            }
            Output::Done {
                root,
                read_back,
                proof,
            } => {
                let root = root.0;
                self.tell(SendEvent::Finished {
                    root,
                    read_back,
                    proof,
                })
                .await;
                self.end(SendEvent::Closed);
            }
            Output::Stopped => self.end(SendEvent::Closed),
            Output::Fail(error) => self.end(failed(error)),
        }
    }

    async fn tell(&self, event: SendEvent) {
        // A caller that stopped listening drops the session when it wants to.
        let _ = self.events.send(event).await;
    }

    /// Sets the last event; the first one counts.
    fn end(&mut self, last: SendEvent) {
        self.last.get_or_insert(last);
    }

    fn own_fault(&mut self, error: &FrameError) {
        self.end(SendEvent::SourceFailed(format!(
            "cannot send to the replicator: {error}; pause the migration and report this"
        )));
    }
}

/// The stream takes nothing any more.
struct StreamGone;

/// Why a run was not sent.
enum NotSent {
    StreamGone,
    Fault(FrameError),
}

impl From<FrameError> for NotSent {
    fn from(error: FrameError) -> Self {
        Self::Fault(error)
    }
}

fn parcel_of(run: Run) -> Result<(Parcel, Extent, u64), FrameError> {
    match run {
        Run::Zero { first, count } => {
            let parcel = Parcel::to_target(&ToTarget::Zero { first, count })?;
            Ok((parcel, Extent::Zero { first, count }, 0))
        }
        Run::Data {
            first,
            leaves,
            fingerprints,
            is_packed,
            payload,
        } => {
            let payload_bytes = payload.len() as u64;
            let frame = ToTarget::Extent {
                first,
                encoding: encoding(is_packed),
                leaves: leaves.clone(),
                fingerprints,
            };
            let parcel = Parcel::extent(&frame, payload)?;
            Ok((parcel, Extent::Data { first, leaves }, payload_bytes))
        }
        Run::Patch {
            patch,
            is_packed,
            payload,
        } => {
            let (first, payload_bytes) = (patch.first(), payload.len() as u64);
            let leaves = patch.leaves().to_vec();
            let frame = ToTarget::Patch {
                first,
                encoding: encoding(is_packed),
                leaves: leaves.clone(),
                pieces: patch.pieces().to_vec(),
            };
            let parcel = Parcel::extent(&frame, payload)?;
            Ok((parcel, Extent::Data { first, leaves }, payload_bytes))
        }
        Run::Offer(_) => unreachable!("an offer is answered before anything of it is sent"),
    }
}

fn encoding(is_packed: bool) -> Encoding {
    match is_packed {
        true => Encoding::Zstd,
        false => Encoding::Raw,
    }
}

/// What an extent costs to send again, roughly.
fn extent_bytes(extent: &Extent) -> u64 {
    extent.weight() * blocks::BLOCK_SIZE as u64
}

fn failed(error: SessionError) -> SendEvent {
    match error {
        SessionError::Refused { code } => SendEvent::Refused(code),
        SessionError::Closed { reason } => {
            SendEvent::Lost(format!("the session with the replicator ended: {reason}"))
        }
        error => SendEvent::Lost(format!("the session with the replicator failed: {error}")),
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
