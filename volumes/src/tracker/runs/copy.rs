//! The copy of a run: passes as an agent makes them, over what a tracker says alone.

use std::fmt;
use std::fs::File;
use std::ops::{AddAssign, Range};
use std::path::{Path, PathBuf};
use std::time::Instant;

use blocks::tracking::{Advanced, Follow, Gap, Owed, Window};
use blocks::{BlockIndex, DirtySet, GroupIndex};

use super::DEADLINE;
use super::place::Place;
use crate::tracker::format::Stream;
use crate::tracker::tests::followed;
use crate::tracker::{Disk, Kind, Tracker, kernel};
use crate::{
    AlignedBuf, Changed, READ_BLOCKS, ReadBlocks, Scan, SourceVolume, Span, TargetVolume, TreeFile,
    VolumeTag, find_changed,
};

/// What a copy did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    passes: u64,
    broken_off: u64,
    trackers: u64,
    agents: u64,
    /// Blocks that were read.
    read: u64,
    whole: u64,
    since: u64,
    gaps: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passes += other.passes;
        self.broken_off += other.broken_off;
        self.trackers += other.trackers;
        self.agents += other.agents;
        self.read += other.read;
        self.whole += other.whole;
        self.since += other.since;
        self.gaps += other.gaps;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passes,
            broken_off,
            trackers,
            agents,
            read,
            whole,
            since,
            gaps,
        } = self;
        write!(
            f,
            "{passes} passes read {read} blocks, {broken_off} broken off; the tracker started \
            again {trackers} times, the agent {agents}; advances found all {whole} times, \
            something missing and where {since} times, and nothing to go by {gaps} times"
        )
    }
}

/// What follows the disk of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct By {
    /// And how long each ring is, if that is not as long as is good.
    pub(super) kind: (Kind, Option<u32>),
    pub(super) streams: &'static [Stream],
}

pub(super) struct Copy {
    source: SourceVolume,
    bytes: Range<u64>,
    image: PathBuf,
    target: TargetVolume,
    tree: TreeFile,
    by: By,
    /// None while it is being started again.
    tracker: Option<Tracker>,
    follow: Follow,
    /// The negative control: whatever is found, nothing is said to be missing.
    believes_all: bool,
    counts: Counts,
    windows: Vec<Window>,
}

impl Copy {
    pub(super) fn new(place: &Place, folder: &Path, by: By, believes_all: bool) -> Self {
        let source = SourceVolume::open(&place.volume()).unwrap();
        let geometry = source.geometry();
        let image = folder.join("copy");
        let made = File::create(&image).unwrap();
        made.set_len(geometry.length()).unwrap();
        let (tracker, bytes) = start(&source, by);
        let tree = TreeFile::create(&folder.join("tree"), VolumeTag([1; 16]), geometry);
        Self {
            target: TargetVolume::open(&image, geometry.length()).unwrap(),
            tree: tree.unwrap(),
            source,
            bytes,
            image,
            by,
            tracker: Some(tracker),
            follow: Follow::new(),
            believes_all,
            counts: Counts::default(),
            windows: vec![],
        }
    }

    pub(super) fn by(&self) -> By {
        self.by
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// It ends, and another one begins.
    pub(super) fn restart_tracker(&mut self) {
        self.tracker = None;
        self.tracker = Some(start(&self.source, self.by).0);
        self.counts.trackers += 1;
    }

    /// Who made the passes begins anew, and takes from the other end what is there of some
    /// blocks: an older copy, which has zeros.
    pub(super) fn restart_agent(&mut self, drawn: u64) {
        let geometry = self.source.geometry();
        let group = GroupIndex(drawn % geometry.groups());
        self.follow.owe(group);
        let blocks = geometry.group_blocks(group);
        let (first, count) = (BlockIndex(blocks.start), blocks.end - blocks.start);
        let at = geometry.run_range(first, count);
        self.target.zero_range(at.start, at.end - at.start).unwrap();
        self.tree.set_zero_run(first, count).unwrap();
        self.counts.agents += 1;
    }

    fn tracker(&mut self) -> &mut Tracker {
        self.tracker.as_mut().expect("it was started again")
    }

    fn advance(&mut self) -> Advanced {
        let mut advanced = self.tracker().advance().unwrap();
        self.windows.push(advanced.window);
        match advanced.window {
            Window::Whole => self.counts.whole += 1,
            Window::Since(_) => self.counts.since += 1,
            Window::Gap(_) => self.counts.gaps += 1,
        }
        if self.believes_all {
            advanced.window = Window::Whole;
        }
        advanced
    }

    /// A pass, which may break off after so many spans, and while which another volume of
    /// the disk may begin one. How many blocks were owed, and whether nothing can come to be
    /// missing that was written before it.
    pub(super) fn pass(&mut self, stop_after: Option<u64>, looks_between: bool) -> (u64, bool) {
        let advanced = self.advance();
        let mut dirty = DirtySet::new(self.source.geometry());
        match self.follow.collect(&advanced) {
            Owed::All(_) => dirty.mark_all(),
            Owed::Since(since) => {
                let bytes = self.bytes.clone();
                assert!(self.tracker().collect(bytes, since, &mut dirty));
            }
        }
        let geometry = self.source.geometry();
        for group in self.follow.groups() {
            for block in geometry.group_blocks(group) {
                dirty.mark(BlockIndex(block));
            }
        }
        let owed = dirty.len();
        self.counts.passes += 1;
        if looks_between {
            let between = self.advance();
            self.follow.look(between.window);
        }
        match self.read(Scan::of_dirty(dirty, READ_BLOCKS), stop_after) {
            true => {
                self.target.sync().unwrap();
                assert!(self.follow.settled(advanced.begun));
            }
            false => {
                self.follow.broke_off();
                self.counts.broken_off += 1;
            }
        }
        (owed, advanced.is_still)
    }

    /// Whether it read all.
    fn read(&mut self, mut scan: Scan, stop_after: Option<u64>) -> bool {
        let mut buf = AlignedBuf::new(READ_BLOCKS);
        let mut spans = 0;
        while let Some(span) = scan.next_span(&self.source, &mut self.tree).unwrap() {
            if stop_after == Some(spans) {
                return false;
            }
            spans += 1;
            let Span::Data { blocks, entries } = span else {
                panic!("a device has no holes");
            };
            let (first, count) = (BlockIndex(blocks.start), blocks.end - blocks.start);
            let bytes = self.source.read_blocks(first, count, &mut buf).unwrap();
            self.counts.read += count;
            let geometry = self.source.geometry();
            for changed in find_changed(geometry, first, &entries, bytes) {
                match changed {
                    Changed::Zero { first, count } => {
                        let at = geometry.run_range(first, count);
                        let length = at.end - at.start;
                        self.target.zero_range(at.start, length).unwrap();
                        self.tree.set_zero_run(first, count).unwrap();
                    }
                    Changed::Data {
                        first,
                        leaves,
                        bytes: at,
                        ..
                    } => {
                        self.target.write_at(first.offset(), &bytes[at]).unwrap();
                        self.tree.set_run(first, &leaves).unwrap();
                    }
                }
            }
        }
        true
    }

    /// Passes until nothing is owed any more; the disk is quiet.
    pub(super) fn settle(&mut self) {
        let deadline = Instant::now() + DEADLINE / 2;
        while self.pass(None, false) != (0, true) {
            if self.believes_all && self.windows.ends_with(&[Window::Gap(Gap::Missed); 4]) {
                // It may never be said to stand still.
                return;
            }
            assert!(Instant::now() < deadline, "{:?}", self.windows);
        }
    }

    /// The first block that is not the same on both sides.
    pub(super) fn differs(&self) -> Option<u64> {
        let geometry = self.source.geometry();
        let mut ours = AlignedBuf::new(READ_BLOCKS);
        let mut theirs = vec![];
        let mut first = 0;
        while first < geometry.blocks() {
            let count = READ_BLOCKS.min(geometry.blocks() - first);
            let bytes = self.source.read_blocks(BlockIndex(first), count, &mut ours);
            let bytes = bytes.unwrap();
            theirs.resize(bytes.len(), 0);
            let offset = BlockIndex(first).offset();
            self.target.read_at(offset, &mut theirs).unwrap();
            if bytes != theirs {
                let at = bytes.iter().zip(&theirs).position(|(a, b)| a != b);
                return at.map(|at| first + at as u64 / blocks::BLOCK_SIZE as u64);
            }
            first += count;
        }
        None
    }

    /// It ends, and its image is free.
    pub(super) fn finish(self) -> PathBuf {
        self.image
    }
}

fn start(source: &SourceVolume, by: By) -> (Tracker, Range<u64>) {
    let (disk, bytes) = Disk::of(source).unwrap();
    let tracker = followed(disk, by.kind, by.streams, kernel::wait_for_programs).unwrap();
    (tracker, bytes)
}
