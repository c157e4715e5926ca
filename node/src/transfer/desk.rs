//! The replicator's desk thread: one input at a time into `blocks::Target`,
//! its outputs carried out in order. It decompresses, checks what was packed or
//! patched, and writes.
//!
//! Not here: bytes on the stream (`wire`) and their check where they are sent as
//! they are (`receive`), and what makes a barrier durable (`keeper`).

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blocks::target::{Input, Output, TargetError};
use blocks::{
    BadExtent, BlockIndex, CheckedExtent, CloseReason, Encoding, Extent, Fingerprint, Geometry,
    GroupIndex, Leaf, MAX_EXTENT_BLOCKS, Mark, Patch, RefusalCode, Root, Target, ToSource,
    ToTarget, ZERO_ENTRY, check_extent, extent_len, is_zero, piece_hashes,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use volumes::{ReadError, TargetVolume, TreeFile};
use zstd::bulk::Decompressor;

use super::keeper::{Job, Keeper, KeeperHandle};
use super::notes::Notes;
use super::receive::{Commit, Leave, Prove, ReceiveEvent};
use super::references::{Finder, References};
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
    /// An extent that was checked while its bytes came in.
    Extent {
        checked: Result<CheckedExtent, BadExtent>,
        fingerprints: Vec<Fingerprint>,
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

    /// To be filled.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buf[..self.len]
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
    pub(super) references: Option<References>,
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
    /// What was read of the volume, for a patch or to be hashed.
    in_place: Vec<u8>,
    held: Held,
    /// Of the extent that is held, where the source gave some.
    fingerprints: Vec<Fingerprint>,
    /// Looks for content that is here.
    finder: Option<Finder>,
    dirty: Range<u64>,
    is_deaf: bool,
    last: Option<ReceiveEvent>,
}

/// The bytes of the extent that was just checked.
enum Held {
    Nothing,
    Raw(Payload),
    Unpacked(usize),
    /// Its blocks are in the buffer of what lies in place.
    Patched(Patch),
    /// One block, in the buffer of who found it.
    Found,
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
        let target = Target::new(geometry, job.barrier, mark);
        let (tag, references) = (job.place.tag, job.references);
        let desk = Self {
            target: match &references {
                Some(_) => target.with_references(),
                None => target,
            },
            finder: references.map(|references| Finder::new(references, tag)),
            fingerprints: Vec::new(),
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
            in_place: vec![0; EXTENT_BYTES],
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
                (None, ToDesk::Frame { frame, payload, .. }) => match self.frame(frame, payload) {
                    Ok(input) => input,
                    Err(trouble) => {
                        self.storage_failed(trouble);
                        continue;
                    }
                },
                (
                    None,
                    ToDesk::Extent {
                        checked,
                        fingerprints,
                        payload,
                        ..
                    },
                ) => self.raw_extent(checked, fingerprints, payload),
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

    /// Checks a packed extent or a patch; all other frames go to the machine as they come.
    fn frame(&mut self, frame: ToTarget, payload: Payload) -> Result<Input, Trouble> {
        let (held, checked) = match frame {
            ToTarget::Extent {
                first,
                leaves,
                fingerprints,
                ..
            } => {
                self.fingerprints = fingerprints;
                self.packed_extent(first, leaves, payload)
            }
            ToTarget::Patch {
                first,
                encoding,
                leaves,
                pieces,
            } => match Patch::new(self.geometry, first, leaves, pieces) {
                Ok(patch) => self.patch(patch, encoding, payload)?,
                Err(bad) => (Held::Nothing, Err(bad)),
            },
            frame => return Ok(Input::Received(frame)),
        };
        self.held = held;
        Ok(checked_input(checked))
    }

    fn raw_extent(
        &mut self,
        checked: Result<CheckedExtent, BadExtent>,
        fingerprints: Vec<Fingerprint>,
        payload: Payload,
    ) -> Input {
        add(&self.progress.bytes_sent, payload.len as u64);
        self.fingerprints = fingerprints;
        self.held = Held::Raw(payload);
        checked_input(checked)
    }

    fn packed_extent(
        &mut self,
        first: BlockIndex,
        leaves: Vec<Leaf>,
        payload: Payload,
    ) -> (Held, Result<CheckedExtent, BadExtent>) {
        add(&self.progress.bytes_sent, payload.len as u64);
        let geometry = self.geometry;
        let extent = Extent::Data { first, leaves };
        let unpacked = extent_len(geometry, &extent)
            // Bounded by the limit on its blocks.
            .and_then(|len| self.unpacker.unpack(first, len as usize, payload.bytes()));
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

    /// Puts a patch over what lies in its place.
    fn patch(
        &mut self,
        patch: Patch,
        encoding: Encoding,
        payload: Payload,
    ) -> Result<(Held, Result<CheckedExtent, BadExtent>), Trouble> {
        add(&self.progress.bytes_sent, payload.len as u64);
        let place = patch.place();
        let len = extent_bytes(&place);
        self.volume
            .read_at(place.start, &mut self.in_place[..len])?;
        let blocks = &mut self.in_place[..len];
        let checked = match encoding {
            Encoding::Raw => patch.apply(payload.bytes(), blocks),
            Encoding::Zstd => {
                let full = patch.payload_len();
                let unpacked = self.unpacker.unpack(patch.first(), full, payload.bytes());
                unpacked.and_then(|len| patch.apply(self.unpacker.bytes(len), blocks))
            }
        };
        Ok((Held::Patched(patch), checked))
    }

    /// Sees what is held of blocks that are offered.
    fn consult(
        &mut self,
        first: BlockIndex,
        leaves: &[Leaf],
        fingerprints: &[Fingerprint],
    ) -> Result<(), Trouble> {
        let mut held = Vec::with_capacity(leaves.len());
        for (at, leaf) in leaves.iter().enumerate() {
            let block = BlockIndex(first.0 + at as u64);
            let made = match fingerprints.get(at) {
                Some(fingerprint) => self.make(block, *leaf, *fingerprint)?,
                None => false,
            };
            held.push(match made {
                true => blocks::Held::Made,
                false => self.pieces_of(block)?,
            });
        }
        self.step(Input::Consulted { first, held })
    }

    /// Makes a block of content that is here; false where there is none.
    fn make(
        &mut self,
        block: BlockIndex,
        leaf: Leaf,
        fingerprint: Fingerprint,
    ) -> Result<bool, Trouble> {
        let Some(finder) = &mut self.finder else {
            return Ok(false);
        };
        let what = (block, leaf);
        let Some(found) = finder.find(self.geometry, what, fingerprint, &*self.volume) else {
            return Ok(false);
        };
        self.held = Held::Found;
        self.fingerprints = vec![fingerprint];
        let made = self.step(Input::ExtentChecked(found));
        self.let_go();
        made.map(|()| true)
    }

    fn step(&mut self, input: Input) -> Result<(), Trouble> {
        let mut out = Vec::new();
        self.target.step(input, &mut out);
        out.into_iter()
            .try_for_each(|output| self.carry_out(output))
    }

    fn let_go(&mut self) {
        self.held = Held::Nothing;
        self.fingerprints.clear();
    }

    /// The pieces of what lies in a block's place. Where that is zeros, or cannot be read,
    /// there is nothing to patch: writing a sector anew is what mends it.
    fn pieces_of(&mut self, block: BlockIndex) -> Result<blocks::Held, Trouble> {
        if self.is_known_zero(block)? {
            return Ok(blocks::Held::Nothing);
        }
        let place = self.geometry.block_range(block);
        let bytes = &mut self.in_place[..extent_bytes(&place)];
        match self.volume.read_at(place.start, bytes) {
            Ok(()) if is_zero(bytes) => Ok(blocks::Held::Nothing),
            Ok(()) => Ok(blocks::Held::Pieces(piece_hashes(bytes))),
            Err(ReadError::Io { .. } | ReadError::Short { .. }) => Ok(blocks::Held::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the stored tree has it as zero. It is not waited for while a barrier is made
    /// durable.
    fn is_known_zero(&self, block: BlockIndex) -> Result<bool, Trouble> {
        let Ok(mut tree) = self.tree.try_lock() else {
            return Ok(false);
        };
        let first = self.geometry.group_blocks(block.group()).start;
        // Below 256.
        let at = (block.0 - first) as usize;
        Ok(tree.entries(block.group())?[at] == ZERO_ENTRY)
    }

    /// One input, and all it leads to.
    fn apply(&mut self, input: Input) {
        if let Err(trouble) = self.step(input) {
            self.storage_failed(trouble);
        }
        self.let_go();
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
            Output::Consult {
                first,
                leaves,
                fingerprints,
            } => self.consult(first, &leaves, &fingerprints)?,
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
        let range = self.geometry.run_range(first, u64::from(count));
        let bytes = match &self.held {
            Held::Raw(payload) => payload.bytes(),
            Held::Unpacked(len) => self.unpacker.bytes(*len),
            Held::Patched(patch) => &self.in_place[..extent_bytes(&patch.place())],
            Held::Found => match &self.finder {
                Some(finder) => finder.bytes(extent_bytes(&range)),
                None => &[],
            },
            Held::Nothing => &[],
        };
        assert_eq!(
            bytes.len(),
            extent_bytes(&range),
            "the bytes held are those of the extent that was checked"
        );
        match &self.held {
            // The rest of it is there.
            Held::Patched(patch) => {
                for changed in patch.ranges() {
                    let from = (changed.start - range.start) as usize;
                    let bytes = &bytes[from..from + extent_bytes(changed)];
                    self.volume.write_at(changed.start, bytes)?;
                }
            }
            _ => self.volume.write_at(range.start, bytes)?,
        }
        if let Some(finder) = &mut self.finder {
            finder.written(first, &self.fingerprints);
        }
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

    /// Decompresses the payload of what begins with `first` to `len` bytes at most.
    fn unpack(&mut self, first: BlockIndex, len: usize, packed: &[u8]) -> Result<usize, BadExtent> {
        self.zstd
            .decompress_to_buffer(packed, &mut self.buf[..len])
            .map_err(|_| BadExtent::Undecodable { first })
    }

    fn bytes(&self, len: usize) -> &[u8] {
        &self.buf[..len]
    }
}

fn checked_input(checked: Result<CheckedExtent, BadExtent>) -> Input {
    match checked {
        Ok(extent) => Input::ExtentChecked(extent),
        Err(bad) => Input::ExtentRefused(bad),
    }
}

/// The length of a range within one extent, which fits.
fn extent_bytes(range: &Range<u64>) -> usize {
    (range.end - range.start) as usize
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
