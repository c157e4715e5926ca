//! The replicator's desk thread: one input at a time into `blocks::Target`,
//! its outputs carried out in order. It decompresses, checks and writes.
//!
//! Not here: bytes on the stream (`wire`), and what makes a barrier durable
//! (`keeper`).

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blocks::target::{Input, Output, TargetError};
use blocks::{
    BadExtent, BlockIndex, CloseReason, Encoding, Extent, Geometry, GroupIndex, MAX_EXTENT_BLOCKS,
    Mark, RefusalCode, Root, Target, ToSource, ToTarget, check_extent, extent_len,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use volumes::{TargetVolume, TreeFile};
use zstd::bulk::Decompressor;

use super::keeper::{Job, Keeper, KeeperHandle};
use super::notes::Notes;
use super::receive::{Commit, Leave, Prove, ReceiveEvent};
use super::replica::{self, Place, Replica, Trouble};
use super::wire::Parcel;
use super::{Progress, add};

/// Written before the kernel is told to begin writing back: short syncs, large
/// requests.
const WRITEBACK: u64 = 8 << 20;

/// The largest extent, in bytes: what one may decompress to.
const EXTENT_BYTES: usize = MAX_EXTENT_BLOCKS as usize * blocks::BLOCK_SIZE;

/// What reaches the desk. Frames are bounded by the room they hold; of the
/// rest there are a handful in a session.
pub(super) enum ToDesk {
    Frame {
        frame: ToTarget,
        payload: Payload,
        _room: OwnedSemaphorePermit,
    },
    Flushed {
        barrier: u64,
        mark: Mark,
    },
    RootComputed {
        root: Root,
    },
    ReadBack {
        root: Root,
    },
    Proved {
        proof: Vec<u8>,
    },
    StorageFailed(Trouble),
    /// Authority changed: look.
    Look,
    Closed(CloseReason),
}

/// The payload of a frame, in a buffer that goes home when it is dropped.
pub(super) struct Payload {
    buf: Vec<u8>,
    len: usize,
    home: mpsc::Sender<Vec<u8>>,
}

impl Payload {
    /// The first `len` bytes of `buf`.
    pub(super) fn new(buf: Vec<u8>, len: usize, home: mpsc::Sender<Vec<u8>>) -> Self {
        Self { buf, len, home }
    }

    /// Of a frame that has none.
    pub(super) fn none(home: mpsc::Sender<Vec<u8>>) -> Self {
        Self::new(Vec::new(), 0, home)
    }

    fn bytes(&self) -> &[u8] {
        &self.buf[..self.len]
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if !self.buf.is_empty() {
            // There is room for every buffer; without a reader none is needed.
            let _ = self.home.try_send(std::mem::take(&mut self.buf));
        }
    }
}

/// What the desk works on.
pub(super) struct DeskJob {
    pub(super) place: Place,
    pub(super) barrier: u64,
    pub(super) open: ToTarget,
    pub(super) progress: Arc<Progress>,
    pub(super) commit: Commit,
    pub(super) prove: Prove,
    pub(super) leave: watch::Receiver<Leave>,
    pub(super) events: mpsc::Sender<ReceiveEvent>,
    pub(super) parcels: mpsc::Sender<Parcel>,
    pub(super) inbox: std_mpsc::Receiver<ToDesk>,
    pub(super) mailbox: std_mpsc::Sender<ToDesk>,
}

/// Runs a session and gives its last event, once the copy is let go of.
pub(super) fn run(job: DeskJob) -> ReceiveEvent {
    let parcels = job.parcels.clone();
    let place = job.place.clone();
    match Desk::open(job) {
        Ok((mut desk, open)) => {
            desk.apply(Input::Received(open));
            let last = desk.serve();
            let differs = RefusalCode::ReadBackDiffers;
            if !matches!(&last, ReceiveEvent::Refused(code, _) if *code == differs) {
                return last;
            }
            // The tree is wrong about the volume, nobody knows where: the next session
            // reads the volume, and what differs is sent again.
            match place.remove_tree() {
                Ok(()) => last,
                Err(trouble) => ReceiveEvent::StorageFailed(trouble.why),
            }
        }
        Err(trouble) => {
            let code = trouble.code;
            if let Ok(parcel) = Parcel::to_source(&ToSource::Refused { code }) {
                // The peer may be gone.
                let _ = parcels.blocking_send(parcel);
            }
            match code {
                RefusalCode::StorageFull | RefusalCode::StorageFailed => {
                    ReceiveEvent::StorageFailed(trouble.why)
                }
                code => ReceiveEvent::Refused(code, trouble.why),
            }
        }
    }
}

struct Desk {
    target: Target,
    geometry: Geometry,
    volume: Arc<TargetVolume>,
    tree: Arc<Mutex<TreeFile>>,
    notes: Arc<Notes>,
    keeper: KeeperHandle,
    inbox: std_mpsc::Receiver<ToDesk>,
    parcels: mpsc::Sender<Parcel>,
    events: mpsc::Sender<ReceiveEvent>,
    /// Blocks are written only while what it grants holds.
    leave: watch::Receiver<Leave>,
    progress: Arc<Progress>,
    unpacker: Unpacker,
    held: Held,
    dirty: Range<u64>,
    is_deaf: bool,
    last: Option<ReceiveEvent>,
}

/// The bytes of the extent that was just checked.
enum Held {
    Nothing,
    Raw(Payload),
    Unpacked(usize),
}

impl Desk {
    fn open(job: DeskJob) -> Result<(Self, ToTarget), Trouble> {
        let leave = job.leave.clone();
        let replica = replica::open(&job.place, &job.progress, &|| leave.borrow().withdrawn())?;
        let Replica {
            volume,
            mut tree,
            notes,
            recovered_groups,
        } = replica;
        let (geometry, mark) = (tree.geometry(), tree.mark()?);
        let blocks = geometry.blocks();
        job.progress.blocks_total.store(blocks, Relaxed);
        let (volume, notes) = (Arc::new(volume), Arc::new(notes));
        let tree = Arc::new(Mutex::new(tree));
        let keeper = KeeperHandle::start(Keeper {
            volume: volume.clone(),
            tree: tree.clone(),
            notes: notes.clone(),
            commit: job.commit,
            prove: job.prove,
            barrier: job.barrier,
            progress: job.progress.clone(),
            events: job.events.clone(),
            desk: job.mailbox,
        });
        let keeper = keeper.map_err(|error| {
            Trouble::failed(format!("cannot start a thread: {error}; free some memory"))
        })?;
        let desk = Self {
            target: Target::new(geometry, job.barrier, mark),
            geometry,
            volume,
            tree,
            notes,
            keeper,
            inbox: job.inbox,
            parcels: job.parcels,
            events: job.events,
            leave: job.leave,
            progress: job.progress,
            unpacker: Unpacker::new()?,
            held: Held::Nothing,
            dirty: 0..0,
            is_deaf: false,
            last: None,
        };
        desk.tell(ReceiveEvent::Opened {
            barrier: job.barrier,
            recovered_groups,
        });
        Ok((desk, job.open))
    }

    fn serve(mut self) -> ReceiveEvent {
        loop {
            if let Some(last) = self.last.take() {
                return last;
            }
            let message = self.inbox.recv();
            let message = message.unwrap_or(ToDesk::Closed(CloseReason::Cancelled));
            // Before everything that came earlier: no block is written for a
            // peer that may no longer send any.
            let withdrawn = self.leave.borrow().withdrawn();
            let input = match (withdrawn, message) {
                (Some(code), _) => Input::Refuse(code),
                (None, _) if self.is_deaf => Input::Closed(CloseReason::Lost),
                (None, ToDesk::Frame { frame, payload, .. }) => self.frame(frame, payload),
                (None, ToDesk::Flushed { barrier, mark }) => Input::Flushed { barrier, mark },
                (None, ToDesk::RootComputed { root }) => Input::RootComputed { root },
                (None, ToDesk::ReadBack { root }) => Input::ReadBack { root },
                (None, ToDesk::Proved { proof }) => Input::Proved { proof },
                (None, ToDesk::StorageFailed(trouble)) => {
                    self.storage_failed(trouble);
                    continue;
                }
                (None, ToDesk::Look) => continue,
                (None, ToDesk::Closed(CloseReason::Garbled)) => {
                    Input::Refuse(RefusalCode::BadFrame)
                }
                (None, ToDesk::Closed(reason)) => Input::Closed(reason),
            };
            self.apply(input);
        }
    }

    /// Checks a data extent; all other frames go to the machine as they come.
    fn frame(&mut self, frame: ToTarget, payload: Payload) -> Input {
        let ToTarget::Extent {
            first,
            encoding,
            leaves,
            ..
        } = frame
        else {
            return match frame {
                ToTarget::Patch { .. } => Input::Refuse(RefusalCode::Unsupported),
                frame => Input::Received(frame),
            };
        };
        add(&self.progress.bytes_sent, payload.len as u64);
        let geometry = self.geometry;
        let (held, checked) = match encoding {
            Encoding::Raw => {
                let checked = check_extent(geometry, first, leaves, payload.bytes());
                (Held::Raw(payload), checked)
            }
            Encoding::Zstd => {
                let extent = Extent::Data { first, leaves };
                let unpacked = self.unpacker.unpack(geometry, &extent, payload.bytes());
                let Extent::Data { leaves, .. } = extent else {
                    unreachable!("made above as data");
                };
                match unpacked {
                    Ok(len) => {
                        let bytes = self.unpacker.bytes(len);
                        let checked = check_extent(geometry, first, leaves, bytes);
                        (Held::Unpacked(len), checked)
                    }
                    Err(bad) => (Held::Nothing, Err(bad)),
                }
            }
        };
        self.held = held;
        match checked {
            Ok(extent) => Input::ExtentChecked(extent),
            Err(bad) => Input::ExtentRefused(bad),
        }
    }

    /// One input, and all it leads to.
    fn apply(&mut self, input: Input) {
        let mut out = Vec::new();
        self.target.step(input, &mut out);
        for output in out {
            if let Err(trouble) = self.carry_out(output) {
                self.storage_failed(trouble);
                break;
            }
        }
        self.held = Held::Nothing;
    }

    fn storage_failed(&mut self, trouble: Trouble) {
        let full = trouble.is_full();
        let was_over = self.target.is_over();
        let mut out = Vec::new();
        self.target.step(Input::StorageFailed { full }, &mut out);
        for output in out {
            if let Output::Send(frame) = output {
                self.send(&frame);
            }
        }
        if was_over {
            // What was to be kept at the end is not; the peer may still hear.
            let code = trouble.code;
            self.send(&ToSource::Refused { code });
        }
        self.last = Some(ReceiveEvent::StorageFailed(trouble.why));
    }

    fn carry_out(&mut self, output: Output) -> Result<(), Trouble> {
        match output {
            Output::Send(frame) => self.send_and_tell(frame),
            Output::SendGroups { first, count } => {
                let marks = self.tree().marks(first, u64::from(count))?;
                self.send(&ToSource::Groups { first, marks });
            }
            Output::SendLeaves { group } => self.send_leaves(group)?,
            Output::PassBegun { pass } => {
                self.progress.pass.store(pass, Relaxed);
                self.tell(ReceiveEvent::PassBegun(pass));
            }
            Output::Consult { first, leaves, .. } => {
                // Nothing is looked for yet: all of it is to be sent.
                let held = vec![blocks::Held::Nothing; leaves.len()];
                let mut out = Vec::new();
                self.target.step(Input::Consulted { first, held }, &mut out);
                for output in out {
                    self.carry_out(output)?;
                }
            }
            Output::NoteRegions { barrier, groups } => self.notes.note(barrier, &groups)?,
            Output::Write { first, count } => self.write(first, count)?,
            Output::WriteZeros { first, count } => {
                let range = self.geometry.run_range(first, u64::from(count));
                self.volume
                    .zero_range(range.start, range.end - range.start)?;
                add(&self.progress.blocks_sent, u64::from(count));
            }
            Output::Flush { barrier, extents } => {
                self.keeper.ask(Job::Flush { barrier, extents })?;
            }
            Output::Settle { extents } => self.settle(extents)?,
            Output::ComputeRoot => self.keeper.ask(Job::Root)?,
            Output::ReadBack => self.keeper.ask(Job::ReadBack)?,
            Output::Prove {
                root, read_back, ..
            } => self.keeper.ask(Job::Prove { root, read_back })?,
            Output::Closed => {
                let how = "the source closed the session in good order".to_owned();
                self.last = Some(ReceiveEvent::Ended(how));
            }
            Output::Fail(error) => self.last = Some(failed(&error)),
        }
        Ok(())
    }

    fn send_leaves(&mut self, group: GroupIndex) -> Result<(), Trouble> {
        let entries = self.tree().entries(group)?.to_vec();
        self.send(&ToSource::Leaves { group, entries });
        Ok(())
    }

    fn write(&mut self, first: BlockIndex, count: u32) -> Result<(), Trouble> {
        let bytes = match &self.held {
            Held::Raw(payload) => payload.bytes(),
            Held::Unpacked(len) => self.unpacker.bytes(*len),
            Held::Nothing => &[],
        };
        let range = self.geometry.run_range(first, u64::from(count));
        assert_eq!(
            bytes.len() as u64,
            range.end - range.start,
            "the bytes held are those of the extent that was checked"
        );
        self.volume.write_at(range.start, bytes)?;
        add(&self.progress.blocks_sent, u64::from(count));
        if range.start != self.dirty.end {
            self.write_back(range.start);
        }
        self.dirty.end = range.end;
        if self.dirty.end - self.dirty.start >= WRITEBACK {
            self.write_back(range.end);
        }
        Ok(())
    }

    /// Has the kernel begin with what was written; what follows is at `next`.
    fn write_back(&mut self, next: u64) {
        if !self.dirty.is_empty() {
            self.volume.start_writeback(self.dirty.clone());
        }
        self.dirty = next..next;
    }

    fn settle(&mut self, extents: Vec<Extent>) -> Result<(), Trouble> {
        let (done, settled) = std_mpsc::channel();
        self.keeper.ask(Job::Settle { extents, done })?;
        settled.recv().unwrap_or_else(|_| {
            let why = "the thread that makes barriers durable ended: resume";
            Err(Trouble::failed(why))
        })
    }

    fn send_and_tell(&mut self, frame: ToSource) {
        self.send(&frame);
        if let ToSource::Finished {
            root, read_back, ..
        } = frame
        {
            self.tell(ReceiveEvent::Finished { root, read_back });
        }
    }

    fn send(&mut self, frame: &ToSource) {
        let sent = Parcel::to_source(frame)
            .ok()
            .and_then(|parcel| self.parcels.blocking_send(parcel).ok());
        // What the peer does not get ends the session at the next input.
        self.is_deaf |= sent.is_none();
    }

    fn tell(&self, event: ReceiveEvent) {
        // A caller that stopped listening drops the session when it wants to.
        let _ = self.events.blocking_send(event);
    }

    fn tree(&self) -> MutexGuard<'_, TreeFile> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decompresses extents, never to more than their blocks hold.
struct Unpacker {
    zstd: Decompressor<'static>,
    buf: Vec<u8>,
}

impl Unpacker {
    fn new() -> Result<Self, Trouble> {
        let zstd = Decompressor::new().map_err(|error| {
            Trouble::failed(format!("cannot set up zstd: {error}; free some memory"))
        })?;
        let buf = vec![0; EXTENT_BYTES];
        Ok(Self { zstd, buf })
    }

    fn unpack(
        &mut self,
        geometry: Geometry,
        extent: &Extent,
        packed: &[u8],
    ) -> Result<usize, BadExtent> {
        // Bounded by the limit on its blocks.
        let len = extent_len(geometry, extent)? as usize;
        let first = extent.first();
        self.zstd
            .decompress_to_buffer(packed, &mut self.buf[..len])
            .map_err(|_| BadExtent::Undecodable { first })
    }

    fn bytes(&self, len: usize) -> &[u8] {
        &self.buf[..len]
    }
}

fn failed(error: &TargetError) -> ReceiveEvent {
    match error {
        TargetError::Closed { reason } => {
            ReceiveEvent::Ended(format!("{reason}; what arrived is kept"))
        }
        TargetError::Withdrawn {
            code: code @ RefusalCode::BadFrame,
        } => {
            let why = "the source sent bytes that are not a frame".to_owned();
            ReceiveEvent::Refused(*code, why)
        }
        TargetError::Extent(bad) => {
            let code = error.code().unwrap_or(RefusalCode::BadData);
            ReceiveEvent::Refused(code, format!("the source sent a bad extent: {bad}"))
        }
        error => match error.code() {
            Some(code) => ReceiveEvent::Refused(code, error.to_string()),
            None => ReceiveEvent::Ended(error.to_string()),
        },
    }
}
