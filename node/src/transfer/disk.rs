//! The agent's disk thread: reads and hashes the source, compresses, and keeps
//! the stored tree. It does one thing at a time and answers in order.
//!
//! Not here: what to do when; the session sends requests and this carries them
//! out.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self as std_mpsc, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::Duration;

use blocks::{
    BLOCK_SIZE, BlockIndex, DirtySet, Extent, Fingerprint, Geometry, GroupIndex, Held, Leaf, Mark,
    OfferGauge, Patch, Root, SwapArea, ZERO_ENTRY, fingerprint, remainder,
};
use crdt::PassRead;
use keys::{Permit, SendBlocks};
use tokio::sync::mpsc;
use tokio::time::Instant;
use volumes::{
    Changed, OpenTreeError, QUIET_BLOCKS, READ_BLOCKS, ROOT_BATCH, RescanTracker, ScanError,
    Scanned, SourceChanged, SourceVolume, TreeError, TreeFile, VolumeTag,
};

use super::compress::{Gauge, Packer};
use super::follow::{Following, Reading, TrackerLost, Trackers};
use super::left_out::{self, Begun, LeftOut};
use super::locks::while_busy;
use super::piece::{Lent, Part, Piece, Slice};
use super::polite::{Manners, Turn};
use super::share::{Share, Sharers};
use super::{Compression, PIECES, Pacer, Progress, WARM_GROUPS, Way, add};

/// How requests and pieces reach the disk thread. Not bounded by itself: there
/// are [`LENT`] pieces at most, and the session waits for answers before it asks on.
pub(super) type Mailbox = std_mpsc::Sender<ToDisk>;

/// Pieces of a session: what may be offered fills half of them, and reading goes on with
/// the others.
const LENT: usize = 2 * PIECES;

/// Of them under the lowest limit: one is read while the other goes out.
const MIN_LENT: u64 = 2;

/// Answers that wait for the session; the pieces among them are bounded
/// already.
const ANSWERS: usize = 2 * PIECES;

/// What the disk thread is asked for.
pub(super) enum ToDisk {
    /// A piece came home.
    Free(Piece),
    /// Marks of the stored tree.
    Groups { first: GroupIndex, count: u32 },
    /// Replace a group's entries.
    Adopt {
        group: GroupIndex,
        entries: Vec<Leaf>,
    },
    /// Read the source, and give what differs from the stored tree.
    Pass {
        pass: u32,
        /// All of it, or what may have changed.
        whole: bool,
        /// Whether the target wants fingerprints.
        references: bool,
    },
    /// An offer was answered: give what of it is still to be sent.
    Answered { offer: Offer, held: Vec<Held> },
    /// Stop reading for this pass.
    EndPass,
    /// Store acknowledged leaves.
    Commit { barrier: u64, extents: Vec<Extent> },
    /// The pass is over: make the stored tree durable, and rest.
    Rest,
    /// The root of the stored tree.
    Root,
    /// End the thread.
    Stop,
}

/// What the disk thread answers.
pub(super) enum FromDisk {
    /// Source and tree are open.
    Opened {
        geometry: Geometry,
        mark: Mark,
        /// Where it had to be found out.
        left_out: Option<LeftOut>,
    },
    /// What was left out is not what it was: the thread ends.
    LeftOutLess(LeftOut),
    /// The marks asked for.
    Groups { first: GroupIndex, marks: Vec<Mark> },
    /// A group was adopted.
    Adopted,
    /// Runs that differ, to be sent in this order.
    Runs(VecDeque<Run>),
    /// What is left to be sent of the offer that was answered.
    Remainder(VecDeque<Run>),
    /// The pass is read to its end.
    PassRead(Reading),
    /// A commit was carried out.
    Committed { barrier: u64, mark: Mark },
    /// The root asked for.
    Root { root: Root },
    /// The source cannot go on: one sentence or two for people.
    Failed(String),
    /// The stored tree turned out damaged: it is repaired on the next opening.
    TreeDamaged(String),
}

/// A run of blocks to be sent, or to be offered first.
#[derive(Debug)]
pub(super) enum Run {
    Zero {
        first: BlockIndex,
        count: u32,
    },
    Data {
        first: BlockIndex,
        leaves: Vec<Leaf>,
        /// None where the target does not want any.
        fingerprints: Vec<Fingerprint>,
        is_packed: bool,
        payload: Slice,
    },
    Patch {
        patch: Patch,
        is_packed: bool,
        payload: Slice,
    },
    Offer(Offer),
}

/// Blocks that the target is asked about before they are sent.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) first: BlockIndex,
    pub(super) leaves: Vec<Leaf>,
    /// None where the target does not want any.
    pub(super) fingerprints: Vec<Fingerprint>,
    /// The bytes of the blocks, as they were hashed.
    pub(super) bytes: Slice,
    /// Whether they may stay in their piece until the answer is there, since most of it
    /// is offered.
    pub(super) fills_piece: bool,
}

impl Run {
    /// How it is told.
    pub(super) fn way(&self) -> Way {
        match self {
            Self::Zero { .. } => Way::Zeros,
            Self::Data { is_packed, .. } => match is_packed {
                true => Way::Zstd,
                false => Way::Raw,
            },
            Self::Patch { .. } => Way::Patch,
            // What is asked about, and is there.
            Self::Offer(_) => Way::Reference,
        }
    }
}

/// What the disk thread works on.
pub(super) struct DiskJob {
    pub(super) permit: Permit<SendBlocks>,
    pub(super) source: PathBuf,
    pub(super) tree: PathBuf,
    pub(super) tag: VolumeTag,
    pub(super) compression: Compression,
    pub(super) progress: Arc<Progress>,
    pub(super) pacer: Pacer,
    /// With whom it shares the pieces.
    pub(super) sharers: Sharers,
    pub(super) trackers: Trackers,
    /// As in [`super::SendJob::swap`].
    pub(super) swap: Option<Vec<SwapArea>>,
}

/// The session's end of the disk thread; dropping it stops the thread.
pub(super) struct Disk {
    mailbox: Mailbox,
    answers: mpsc::Receiver<FromDisk>,
}

impl Disk {
    /// Starts the thread, which begins by opening source and tree.
    pub(super) fn start(job: DiskJob) -> io::Result<Self> {
        let (mailbox, requests) = std_mpsc::channel();
        let (send, answers) = mpsc::channel(ANSWERS);
        let home = mailbox.clone();
        thread::Builder::new()
            .name("dunlin-source".into())
            .spawn(move || run(job, requests, home, send))?;
        Ok(Self { mailbox, answers })
    }

    pub(super) fn ask(&self, request: ToDisk) {
        // A thread that ended said why before.
        let _ = self.mailbox.send(request);
    }

    /// The next answer; none once the thread has ended.
    pub(super) async fn answer(&mut self) -> Option<FromDisk> {
        self.answers.recv().await
    }

    /// Stops the thread and waits until it has let go of source and tree.
    pub(super) async fn stop(mut self) {
        self.ask(ToDisk::Stop);
        while self.answers.recv().await.is_some() {}
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.ask(ToDisk::Stop);
    }
}

/// Why the thread ends.
#[derive(Debug)]
enum Ended {
    /// Asked to, or nobody listens.
    Stopped,
    Failed(String),
    TreeDamaged(String),
    LeftOutLess(LeftOut),
}

impl From<TrackerLost> for Ended {
    fn from(lost: TrackerLost) -> Self {
        Self::Failed(lost.to_string())
    }
}

impl From<TreeError> for Ended {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Torn { .. } => Self::TreeDamaged(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

struct Worker {
    volume: SourceVolume,
    tree: TreeFile,
    following: Following,
    swap: Vec<SwapArea>,
    requests: std_mpsc::Receiver<ToDisk>,
    home: Mailbox,
    answers: mpsc::Sender<FromDisk>,
    free: Vec<Piece>,
    /// How many there are, free or not.
    pieces: usize,
    sharers: Sharers,
    /// How many there may be; none between passes.
    share: Option<Share>,
    pass_ended: bool,
    /// Between two passes: what a cutover will ask for is computed meanwhile.
    is_resting: bool,
    gauge: Gauge,
    packer: Packer,
    /// Whether the target wants fingerprints.
    references: bool,
    /// Whether offers pay in this pass.
    offers: OfferGauge,
    progress: Arc<Progress>,
    pacer: Pacer,
    manners: Manners,
}

fn run(
    job: DiskJob,
    requests: std_mpsc::Receiver<ToDisk>,
    home: Mailbox,
    answers: mpsc::Sender<FromDisk>,
) {
    let ended = open(&job).and_then(|(volume, mut tree, following, (swap, left_out))| {
        let (geometry, mark) = (volume.geometry(), tree.mark()?);
        let blocks = geometry.blocks();
        job.progress.blocks_total.store(blocks, Relaxed);
        let mut worker = Worker {
            volume,
            tree,
            following,
            swap,
            requests,
            home,
            answers: answers.clone(),
            free: Vec::new(),
            pieces: 0,
            sharers: job.sharers.clone(),
            share: None,
            pass_ended: true,
            is_resting: false,
            gauge: Gauge::new(job.compression, Instant::now()),
            packer: Packer::new(),
            references: false,
            offers: OfferGauge::new(),
            progress: job.progress.clone(),
            pacer: job.pacer.clone(),
            manners: Manners::new(job.pacer.disks().clone()),
        };
        worker.answer(FromDisk::Opened {
            geometry,
            mark,
            left_out,
        })?;
        let ended = worker.serve();
        // What was committed is kept in any case, if it can be.
        let kept = worker.tree.sync();
        ended.and_then(|()| Ok(kept?))
    });
    let last = match ended {
        Ok(()) | Err(Ended::Stopped) => return,
        Err(Ended::Failed(why)) => FromDisk::Failed(why),
        Err(Ended::TreeDamaged(why)) => FromDisk::TreeDamaged(why),
        Err(Ended::LeftOutLess(left_out)) => FromDisk::LeftOutLess(left_out),
    };
    // When nobody listens, nobody wants to know.
    let _ = answers.blocking_send(last);
}

/// Only with a permit: reading a source for a peer needs one.
fn open(job: &DiskJob) -> Result<(SourceVolume, TreeFile, Following, Begun), Ended> {
    tracing::debug!(volume = ?job.permit.volume(), source = %job.source.display(), "opening source");
    let volume = SourceVolume::open(&job.source).map_err(|e| Ended::Failed(e.to_string()))?;
    let left_out = left_out::begin(volume, job.swap.as_ref());
    let (volume, swap, left_out) = left_out.map_err(|e| Ended::Failed(e.to_string()))?;
    let geometry = volume.geometry();
    let unnamed = |error| {
        let tree = job.tree.display();
        Ended::Failed(format!(
            "cannot keep the name of the hash tree {tree}: {error}"
        ))
    };
    let following = Following::find(&job.trackers, &volume, &job.tree);
    let mut following = following.map_err(unnamed)?;
    if left_out.is_some() {
        // Passes before may have left out something else, or nothing.
        following.forget_tree().map_err(unnamed)?;
    }
    let open = || TreeFile::open_or_create(&job.tree, job.tag, geometry);
    let is_busy = |error: &OpenTreeError| matches!(error, OpenTreeError::Busy { .. });
    let opened = match while_busy(open, is_busy) {
        // It only saves sending again: the target's own tree replaces it.
        Err(
            OpenTreeError::NotATree { .. }
            | OpenTreeError::OtherVolume { .. }
            | OpenTreeError::Corrupt { .. },
        ) => {
            following.forget_tree().map_err(unnamed)?;
            fs::remove_file(&job.tree).map_err(|error| {
                let path = job.tree.display();
                Ended::Failed(format!("cannot remove damaged hash tree {path}: {error}"))
            })?;
            open()
        }
        opened => opened,
    };
    let mut tree = opened.map_err(|e| Ended::Failed(e.to_string()))?;
    following.tree_is_ours(&volume).map_err(unnamed)?;
    for group in tree.check()? {
        // Zeros as good as any: the mark decides whether they are right, and
        // where it differs the group is compared and adopted.
        let blocks = geometry.group_blocks(group);
        let unknown = vec![ZERO_ENTRY; (blocks.end - blocks.start) as usize];
        following.owe(group)?;
        tree.replace(group, &unknown)?;
    }
    Ok((volume, tree, following, (swap, left_out)))
}

impl Worker {
    /// Carries out requests until told to stop.
    fn serve(&mut self) -> Result<(), Ended> {
        loop {
            let request = self.next_request()?;
            self.carry_out(request)?;
        }
    }

    /// The next request. While it rests, and none waits, nodes are computed, a
    /// few at a time.
    fn next_request(&mut self) -> Result<ToDisk, Ended> {
        while self.is_resting {
            match self.requests.try_recv() {
                Ok(request) => return Ok(request),
                Err(TryRecvError::Disconnected) => return Err(Ended::Stopped),
                // What fails here fails again, and is told, where it is needed.
                Err(TryRecvError::Empty) => {
                    let warmed = self.tree.warm(WARM_GROUPS);
                    self.is_resting = *warmed.as_ref().unwrap_or(&false);
                    if matches!(warmed, Ok(false)) {
                        self.progress.is_rooted.store(true, Relaxed);
                    }
                }
            }
        }
        self.requests.recv().map_err(|_| Ended::Stopped)
    }

    fn carry_out(&mut self, request: ToDisk) -> Result<(), Ended> {
        match request {
            ToDisk::Stop => Err(Ended::Stopped),
            ToDisk::Free(piece) => {
                self.keep(piece);
                Ok(())
            }
            ToDisk::Groups { first, count } => {
                let marks = self.tree.marks(first, u64::from(count))?;
                self.answer(FromDisk::Groups { first, marks })
            }
            ToDisk::Adopt { group, entries } => {
                self.following.owe(group)?;
                self.tree.replace(group, &entries)?;
                self.answer(FromDisk::Adopted)
            }
            ToDisk::Pass {
                pass,
                whole,
                references,
            } => {
                (self.references, self.offers) = (references, OfferGauge::new());
                self.pass(pass, whole)
            }
            ToDisk::Answered { offer, held } => self.settle_offer(&offer, &held),
            ToDisk::EndPass => {
                self.pass_ended = true;
                Ok(())
            }
            ToDisk::Commit { barrier, extents } => {
                store(&mut self.tree, &extents)?;
                if self.manners.is_polite() {
                    // Of what the kernel writes later nobody knows that it is ours.
                    self.tree.sync()?;
                }
                let mark = self.tree.mark()?;
                self.answer(FromDisk::Committed { barrier, mark })
            }
            ToDisk::Rest => {
                self.is_resting = true;
                self.tree.sync()?;
                self.following.settled();
                Ok(())
            }
            ToDisk::Root => self.root(),
        }
    }

    /// Computes the root, which may take a while: a stop is heard meanwhile.
    fn root(&mut self) -> Result<(), Ended> {
        self.check_left_out()?;
        while self.tree.warm(ROOT_BATCH)? {
            while let Ok(request) = self.requests.try_recv() {
                self.carry_out(request)?;
            }
        }
        let root = self.tree.root()?;
        self.answer(FromDisk::Root { root })
    }

    /// A pass, for which there are pieces.
    fn pass(&mut self, pass: u32, whole: bool) -> Result<(), Ended> {
        self.share = Some(self.sharers.join());
        let read = self.read_pass(pass, whole);
        // Nothing is held back where nothing is read.
        self.progress.reads_held_at.store(0, Relaxed);
        self.share = None;
        self.pieces -= self.free.len();
        self.free.clear();
        read
    }

    fn read_pass(&mut self, pass: u32, whole: bool) -> Result<(), Ended> {
        self.check_left_out()?;
        self.pass_ended = false;
        self.is_resting = false;
        self.progress.pass.store(pass, Relaxed);
        self.gauge
            .restart(Instant::now(), self.progress.time_paced());
        let (mut scan, reading) = self.begin_scan(whole);
        let (mut read, mut read_time) = (0, Duration::ZERO);
        while !self.pass_ended {
            let mut piece = self.piece()?;
            if !self.may_read()? {
                self.free.push(piece);
                return Ok(());
            }
            scan.read_at_most(self.pacer.span_blocks());
            scan.return_after(match self.manners.is_polite() {
                true => READ_BLOCKS,
                false => QUIET_BLOCKS,
            });
            let step = scan.next_changed(&self.volume, &mut self.tree, &mut piece.raw);
            let position = scan.position().0;
            self.progress.blocks_looked_at.store(position, Relaxed);
            let bytes_read = scan.bytes_read() - read;
            add(&self.progress.bytes_read, bytes_read);
            read += bytes_read;
            self.manners.read(bytes_read, scan.read_time() - read_time);
            read_time = scan.read_time();
            match step.map_err(scan_failed)? {
                Scanned::Quiet => self.free.push(piece),
                Scanned::Changed(changed) => self.give(changed, piece)?,
                Scanned::End => {
                    self.free.push(piece);
                    self.pass_ended = true;
                    self.answer(FromDisk::PassRead(reading.clone()))?;
                }
            }
        }
        Ok(())
    }

    /// Ends where what is left out is not the swap that it was.
    fn check_left_out(&mut self) -> Result<(), Ended> {
        let lost = left_out::lost(&self.volume, &self.swap, &mut self.following);
        match lost.map_err(Ended::Failed)? {
            Some(less) => Err(Ended::LeftOutLess(less)),
            None => Ok(()),
        }
    }

    /// What is read of the source, and why.
    fn begin_scan(&mut self, whole: bool) -> (RescanTracker, Reading) {
        let geometry = self.volume.geometry();
        let mut dirty = DirtySet::new(geometry);
        let reading = self.following.begin_pass(&self.volume, &mut dirty);
        match (whole, reading.read) {
            (false, PassRead::Tracked) => (RescanTracker::of_dirty(dirty), reading),
            _ => {
                let reading = Reading {
                    read: PassRead::Whole,
                    is_final: true,
                    ..reading
                };
                (RescanTracker::new(geometry), reading)
            }
        }
    }

    /// Waits until the next read may begin, and does meanwhile what is asked for; false
    /// once the pass is over.
    fn may_read(&mut self) -> Result<bool, Ended> {
        while !self.pass_ended {
            self.manners.be(self.pacer.pace().polite, &self.volume);
            let turn = self.manners.turn();
            let held_at = self.manners.held_at();
            self.progress.reads_held_at.store(held_at, Relaxed);
            let Turn::NotBefore(time) = turn else {
                return Ok(true);
            };
            let wait = time.saturating_duration_since(Instant::now());
            match self.requests.recv_timeout(wait) {
                Ok(request) => self.carry_out(request)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Ended::Stopped),
            }
        }
        Ok(false)
    }

    /// Under a limit no more than what goes in a second or two: what is read ahead is sent
    /// as it was read, old and perhaps not compressed.
    fn pieces_allowed(&self) -> usize {
        let limit = self.pacer.pace().limit.map(NonZeroU64::get);
        let ahead = limit.map_or(LENT as u64, |limit| (limit >> 20).max(MIN_LENT));
        let most = usize::try_from(ahead).map_or(LENT, |ahead| ahead.min(LENT));
        self.share.as_ref().map_or(0, |share| share.buffers(most))
    }

    /// Keeps a piece that came home, where there are not enough without it.
    fn keep(&mut self, piece: Piece) {
        match self.pieces > self.pieces_allowed() {
            true => self.pieces -= 1,
            false => self.free.push(piece),
        }
    }

    /// A free piece; meanwhile, and before, what was asked for is done.
    fn piece(&mut self) -> Result<Piece, Ended> {
        while let Ok(request) = self.requests.try_recv() {
            self.carry_out(request)?;
        }
        loop {
            if let Some(piece) = self.free.pop() {
                return Ok(piece);
            }
            if self.pieces < self.pieces_allowed() {
                self.pieces += 1;
                return Ok(Piece::new());
            }
            let began = Instant::now();
            let request = self.requests.recv().map_err(|_| Ended::Stopped)?;
            self.gauge.waited(began.elapsed());
            self.carry_out(request)?;
        }
    }

    fn give(&mut self, changed: Vec<Changed>, mut piece: Piece) -> Result<(), Ended> {
        let pack = self.gauge.is_on();
        let mut parts = Vec::with_capacity(changed.len());
        let (mut packed_end, mut raw_bytes, mut wire_bytes) = (0, 0, 0);
        let mut offered_bytes = 0;
        for run in &changed {
            let Changed::Data {
                bytes, is_fresh, ..
            } = run
            else {
                continue;
            };
            // What is fresh can only be referred to.
            if (!is_fresh || self.references) && self.offers.wants() {
                offered_bytes += bytes.len();
                parts.push((true, Part::Raw(bytes.clone())));
                continue;
            }
            let shrunk = pack
                .then(|| {
                    let (raw, room) = piece.raw_and_room();
                    self.packer
                        .pack(&raw[bytes.clone()], &mut room[packed_end..])
                })
                .flatten();
            raw_bytes += bytes.len();
            wire_bytes += shrunk.unwrap_or(bytes.len());
            let part = match shrunk {
                None => Part::Raw(bytes.clone()),
                Some(len) => {
                    let start = packed_end;
                    packed_end += len;
                    Part::Packed(start..packed_end)
                }
            };
            parts.push((false, part));
        }
        self.moved(raw_bytes as u64, wire_bytes as u64);
        let fills_piece = offered_bytes * 2 >= piece.raw.bytes().len();
        let lent = Lent::new(piece, self.home.clone());
        let mut parts = parts.into_iter();
        let references = self.references;
        let runs = changed
            .into_iter()
            .filter_map(|run| match run {
                Changed::Zero { first, count } => {
                    // At most 4096 by the tracker's promise.
                    let count = count as u32;
                    Some(Run::Zero { first, count })
                }
                Changed::Data {
                    first,
                    leaves,
                    bytes,
                    ..
                } => {
                    let (is_offered, part) = parts.next()?;
                    let raw = Slice::new(&lent, Part::Raw(bytes));
                    let fingerprints = match references {
                        true => raw.bytes().chunks(BLOCK_SIZE).map(fingerprint).collect(),
                        false => Vec::new(),
                    };
                    if is_offered {
                        return Some(Run::Offer(Offer {
                            first,
                            leaves,
                            fingerprints,
                            bytes: raw,
                            fills_piece,
                        }));
                    }
                    Some(Run::Data {
                        first,
                        leaves,
                        fingerprints,
                        is_packed: matches!(part, Part::Packed(_)),
                        payload: Slice::new(&lent, part),
                    })
                }
            })
            .collect();
        drop(lent);
        self.answer(FromDisk::Runs(runs))
    }

    /// What is left to be sent of an offer, from the bytes that were offered.
    fn settle_offer(&mut self, offer: &Offer, held: &[Held]) -> Result<(), Ended> {
        let (geometry, data) = (self.volume.geometry(), offer.bytes.bytes());
        let left = remainder(geometry, offer.first, &offer.leaves, held, data);
        let blocks = offer.leaves.len() as u64;
        let saved = left.saved_bytes;
        self.offers.answered(blocks, data.len() as u64, saved);
        let (mut wire_bytes, mut runs) = (0, VecDeque::new());
        for parcel in left.parcels {
            let run = match parcel {
                blocks::Parcel::Patch(patch) => {
                    let patched = patched_bytes(&patch, offer.first, data);
                    let (is_packed, payload) = self.pack(Slice::own(patched));
                    Run::Patch {
                        patch,
                        is_packed,
                        payload,
                    }
                }
                blocks::Parcel::Whole { first, leaves } => {
                    // Within the offer, so a handful.
                    let at = (first.0 - offer.first.0) as usize;
                    let range = at * BLOCK_SIZE..((at + leaves.len()) * BLOCK_SIZE).min(data.len());
                    let fingerprints = match offer.fingerprints.is_empty() {
                        true => Vec::new(),
                        false => offer.fingerprints[at..at + leaves.len()].to_vec(),
                    };
                    let (is_packed, payload) = self.pack(offer.bytes.cut(range));
                    Run::Data {
                        first,
                        leaves,
                        fingerprints,
                        is_packed,
                        payload,
                    }
                }
            };
            if let Run::Data { payload, .. } | Run::Patch { payload, .. } = &run {
                wire_bytes += payload.len() as u64;
            }
            runs.push_back(run);
        }
        self.moved(data.len() as u64, wire_bytes);
        self.answer(FromDisk::Remainder(runs))
    }

    fn moved(&mut self, raw_bytes: u64, wire_bytes: u64) {
        let at = (Instant::now(), self.progress.time_paced());
        self.gauge.moved(raw_bytes, wire_bytes, at);
    }

    /// Compresses bytes where that is asked for and pays.
    fn pack(&mut self, raw: Slice) -> (bool, Slice) {
        if self.gauge.is_on() {
            let mut packed = vec![0; raw.len()];
            if let Some(len) = self.packer.pack(raw.bytes(), &mut packed) {
                packed.truncate(len);
                packed.shrink_to_fit();
                return (true, Slice::own(packed));
            }
        }
        (false, raw)
    }

    fn answer(&self, answer: FromDisk) -> Result<(), Ended> {
        self.answers
            .blocking_send(answer)
            .map_err(|_| Ended::Stopped)
    }
}

/// Stores the leaves of extents in the order they were sent.
pub(super) fn store(tree: &mut TreeFile, extents: &[Extent]) -> Result<(), TreeError> {
    for extent in extents {
        match extent {
            Extent::Zero { first, count } => tree.set_zero_run(*first, u64::from(*count))?,
            Extent::Data { first, leaves } => tree.set_run(*first, leaves)?,
        }
    }
    Ok(())
}

/// The payload of a patch of some blocks of an offer.
fn patched_bytes(patch: &Patch, offered: BlockIndex, data: &[u8]) -> Vec<u8> {
    let place = patch.place();
    let from = (place.start - offered.offset()) as usize;
    patch.gather(&data[from..from + (place.end - place.start) as usize])
}

fn scan_failed(error: ScanError) -> Ended {
    let text = error.to_string();
    match error {
        ScanError::Tree(error) => error.into(),
        ScanError::Read(_) => Ended::Failed(format!(
            "{text}; what was copied is kept: check the disk, then resume"
        )),
        ScanError::Source(SourceChanged::Io { .. }) => {
            Ended::Failed(format!("{text}; check the disk, then resume"))
        }
        ScanError::Source(_) | ScanError::Mismatch { .. } => {
            Ended::Failed(format!("{text}; what was copied is kept"))
        }
    }
}
