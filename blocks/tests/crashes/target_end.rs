//! The target's shell: carries out what its machine says, one small deed at a
//! time, and may die before any of them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use blocks::target::{self, Target};
use blocks::{
    BLOCK_SIZE, BadExtent, BlockIndex, CheckedExtent, Encoding, Extent, Fingerprint, Geometry,
    GroupIndex, Held, Leaf, Patch, PieceSet, ToSource, ToTarget, check_extent, piece_hashes,
};

use crate::chance::Chance;
use crate::disk::{Content, Death, Disk, StoredTree, bytes, content, entry, leaf};
use crate::ends::{After, Died, Fuse, Stream, store, take_frame};
use crate::stated::Stated;
use crate::world::{Case, Flaw};

pub struct TargetEnd {
    geometry: Geometry,
    pub disk: Disk,
    pub tree: StoredTree,
    pub barrier: u64,
    notes: BTreeMap<GroupIndex, u64>,
    /// Where content was once written, with mistakes, and never cleared.
    index: HashMap<Fingerprint, u64>,
    chance: Chance,
    overlap: bool,
    references: bool,
    flaw: Option<Flaw>,
    pub fuse: Fuse,
    pub sync_fails: bool,
    pub session: Option<TargetSession>,
    pub seen: Seen,
}

/// How often what the test is about has happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    pub recoveries: u32,
    pub settlings: u32,
    pub acknowledged: u32,
    pub overlapping_writes: u32,
    pub failed_syncs: u32,
    pub made: u32,
    pub wrong_references: u32,
    pub patched: u32,
    pub refused: u32,
}

pub struct TargetSession {
    machine: Target,
    /// The first block and contents of extents that are handed in.
    held: VecDeque<(u64, Vec<Content>)>,
    stated: Stated,
    jobs: VecDeque<Job>,
    ended: bool,
}

/// A flush (or, without a barrier, a settling) being carried out.
struct Job {
    barrier: Option<u64>,
    extents: Vec<Extent>,
    steps_done: usize,
}

/// What came of carrying something out.
enum Outcome {
    Fine,
    StorageFailed,
}

impl TargetEnd {
    pub fn new(geometry: Geometry, contents: Vec<Content>, case: Case) -> Self {
        Self {
            geometry,
            tree: StoredTree::of(geometry, &contents),
            disk: Disk::new(geometry, contents),
            barrier: 0,
            notes: BTreeMap::new(),
            index: HashMap::new(),
            chance: Chance::new(case.seed),
            overlap: case.overlap,
            references: case.references,
            flaw: case.flaw,
            fuse: Fuse::default(),
            sync_fails: false,
            session: None,
            seen: Seen::default(),
        }
    }

    pub fn die(&mut self, death: Death, chance: &mut Chance) {
        self.session = None;
        self.disk.die(death, chance);
        self.tree.die(death, chance);
    }

    /// Brings the stored tree level with the disk after a crash.
    fn recover(&mut self) -> Result<(), Died> {
        self.seen.recoveries += 1;
        if self.flaw != Some(Flaw::RecoversUnsynced) {
            self.fuse.deed()?;
            self.disk.sync();
        }
        let groups: Vec<GroupIndex> = self.notes.keys().copied().collect();
        for group in groups {
            self.fuse.deed()?;
            if self.flaw == Some(Flaw::IgnoresNotes) {
                continue;
            }
            for block in self.geometry.group_blocks(group) {
                let content = self.disk.cached[block as usize];
                self.tree.set(block, entry(self.geometry, block, content));
            }
        }
        self.tree.sync();
        self.fuse.deed()?;
        self.notes.clear();
        self.check_tree();
        Ok(())
    }

    pub fn connect(&mut self) -> Result<(), Died> {
        if !self.notes.is_empty() {
            self.recover()?;
        }
        let machine = Target::new(self.geometry, self.barrier, self.tree.mark());
        self.session = Some(TargetSession {
            machine: match self.references {
                true => machine.with_references(),
                false => machine,
            },
            held: VecDeque::new(),
            stated: Stated::default(),
            jobs: VecDeque::new(),
            ended: false,
        });
        Ok(())
    }

    /// Takes one frame if there is one.
    pub fn receive(&mut self, from: &mut Stream, wire: &mut Stream) -> Result<After, Died> {
        let input = match take_frame(from) {
            Ok(None) => return Ok(After::Idle),
            Ok(Some((header, payload))) => match ToTarget::decode(&header, payload.len()) {
                Ok(frame) => self.checked(frame, &payload),
                Err(_) => target::Input::Closed(blocks::CloseReason::Garbled),
            },
            Err(_) => target::Input::Closed(blocks::CloseReason::Garbled),
        };
        self.input(input, wire)?;
        Ok(self.after())
    }

    /// Does one step of the oldest flush.
    pub fn flush_step(&mut self, wire: &mut Stream) -> Result<After, Died> {
        let Some(mut job) = self.session.as_mut().and_then(|s| s.jobs.pop_front()) else {
            return Ok(After::Idle);
        };
        match self.step_job(&mut job)? {
            None => self.session().jobs.push_front(job),
            Some(Outcome::StorageFailed) => self.storage_failed(wire)?,
            Some(Outcome::Fine) => {
                if let Some(barrier) = job.barrier {
                    let mark = self.tree.mark();
                    self.input(target::Input::Flushed { barrier, mark }, wire)?;
                }
            }
        }
        Ok(self.after())
    }

    /// Hands an input in and does all it leads to.
    pub fn input(&mut self, input: target::Input, wire: &mut Stream) -> Result<(), Died> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut out = Vec::new();
            self.session().machine.step(input, &mut out);
            if self.flaw == Some(Flaw::NotesAfterWriting) && out.len() == 2 {
                let noted = matches!(out[0], target::Output::NoteRegions { .. });
                out.rotate_left(usize::from(noted));
            }
            for output in out {
                self.fuse.deed()?;
                if let Outcome::StorageFailed = self.carry_out(output, wire, &mut inputs)? {
                    return self.storage_failed(wire);
                }
            }
        }
        Ok(())
    }

    pub fn after(&self) -> After {
        match &self.session {
            Some(session) if !session.ended => After::Moved,
            _ => After::Ended(None),
        }
    }

    /// Every entry outside the noted groups is that of durable bytes.
    pub fn check_tree(&self) {
        for block in 0..self.geometry.blocks() {
            if self.notes.contains_key(&BlockIndex(block).group()) {
                continue;
            }
            let durable = entry(self.geometry, block, self.disk.durable[block as usize]);
            let stored = self.tree.cached[block as usize];
            assert_eq!(stored, durable, "block {block} is stored as what it is not");
        }
    }

    fn session(&mut self) -> &mut TargetSession {
        self.session.as_mut().unwrap()
    }

    fn checked(&mut self, frame: ToTarget, payload: &[u8]) -> target::Input {
        let geometry = self.geometry;
        self.session().stated.hear(geometry, &frame);
        let (first, checked, bytes) = match frame {
            ToTarget::Extent {
                first,
                encoding: Encoding::Raw,
                leaves,
                fingerprints,
            } => {
                self.remember(first, &fingerprints);
                let checked = check_extent(geometry, first, leaves, payload);
                (first, checked, payload.to_vec())
            }
            ToTarget::Patch {
                first,
                encoding: Encoding::Raw,
                leaves,
                pieces,
            } => {
                let (checked, bytes) = self.patched(first, leaves, pieces, payload);
                (first, checked, bytes)
            }
            ToTarget::Extent { first, .. } | ToTarget::Patch { first, .. } => {
                (first, Err(BadExtent::Undecodable { first }), Vec::new())
            }
            frame => return target::Input::Received(frame),
        };
        match checked {
            Err(bad) => {
                self.seen.refused += 1;
                target::Input::ExtentRefused(bad)
            }
            Ok(checked) => {
                self.hold(first.0, &bytes);
                target::Input::ExtentChecked(checked)
            }
        }
    }

    fn hold(&mut self, first: u64, bytes: &[u8]) {
        let contents = bytes.chunks(BLOCK_SIZE).map(content).collect();
        self.session().held.push_back((first, contents));
    }

    /// Applies a patch to what is in place now.
    fn patched(
        &mut self,
        first: BlockIndex,
        leaves: Vec<Leaf>,
        pieces: Vec<PieceSet>,
        payload: &[u8],
    ) -> (Result<CheckedExtent, BadExtent>, Vec<u8>) {
        let patch = match Patch::new(self.geometry, first, leaves, pieces) {
            Err(bad) => return (Err(bad), Vec::new()),
            Ok(patch) => patch,
        };
        let blocks = first.0..first.0 + patch.leaves().len() as u64;
        let in_place: Vec<Vec<u8>> = blocks.map(|block| self.in_place(block)).collect();
        let in_place = in_place.concat();
        let mut patched = in_place.clone();
        let checked = patch.apply(payload, &mut patched);
        if self.flaw == Some(Flaw::WritesPatchInPart) {
            let written = patch.ranges()[0].end - patch.place().start;
            patched[written as usize..].copy_from_slice(&in_place[written as usize..]);
        }
        self.seen.patched += u32::from(checked.is_ok());
        (checked, patched)
    }

    fn in_place(&self, block: u64) -> Vec<u8> {
        bytes(self.geometry, block, self.disk.cached[block as usize])
    }

    fn remember(&mut self, first: BlockIndex, fingerprints: &[Fingerprint]) {
        for (at, fingerprint) in (0..).zip(fingerprints) {
            let block = match self.chance.one_in(5) {
                true => self.chance.below(self.geometry.blocks()),
                false => first.0.saturating_add(at),
            };
            self.index.insert(*fingerprint, block);
        }
    }

    /// Answers an offer from the index, or from what is in place.
    fn consult(
        &mut self,
        first: BlockIndex,
        leaves: &[Leaf],
        fingerprints: &[Fingerprint],
        inputs: &mut VecDeque<target::Input>,
    ) {
        let mut held = Vec::new();
        for (at, leaf) in leaves.iter().enumerate() {
            let block = first.0 + at as u64;
            if let Some(checked) = self.look_up(block, *leaf, fingerprints.get(at)) {
                self.seen.made += 1;
                inputs.push_back(target::Input::ExtentChecked(checked));
                held.push(Held::Made);
            } else if self.chance.one_in(4) {
                held.push(Held::Nothing);
            } else {
                held.push(Held::Pieces(piece_hashes(&self.in_place(block))));
            }
        }
        inputs.push_back(target::Input::Consulted { first, held });
    }

    fn look_up(
        &mut self,
        block: u64,
        leaf: Leaf,
        fingerprint: Option<&Fingerprint>,
    ) -> Option<CheckedExtent> {
        let known = fingerprint.and_then(|fingerprint| self.index.get(fingerprint).copied());
        let found = known.filter(|found| *found < self.geometry.blocks())?;
        let bytes = self.in_place(found);
        let checked = check_extent(self.geometry, BlockIndex(block), vec![leaf], &bytes);
        self.seen.wrong_references += u32::from(checked.is_err());
        let checked = checked.ok()?;
        self.hold(block, &bytes);
        Some(checked)
    }

    fn carry_out(
        &mut self,
        output: target::Output,
        wire: &mut Stream,
        inputs: &mut VecDeque<target::Input>,
    ) -> Result<Outcome, Died> {
        let mut send = |frame: ToSource| wire.extend(frame.encode().unwrap());
        match output {
            target::Output::Send(frame) => {
                if matches!(frame, ToSource::Durable { .. }) {
                    self.seen.acknowledged += 1;
                    self.check_tree();
                }
                send(frame);
            }
            target::Output::SendGroups { first, count } => {
                let marks = self.tree.marks(first, count);
                send(ToSource::Groups { first, marks });
            }
            target::Output::SendLeaves { group } => {
                let entries = self.tree.entries(group).to_vec();
                send(ToSource::Leaves { group, entries });
            }
            target::Output::PassBegun { .. } => {}
            target::Output::Consult {
                first,
                leaves,
                fingerprints,
            } => self.consult(first, &leaves, &fingerprints, inputs),
            target::Output::NoteRegions { barrier, groups } => {
                self.notes.extend(groups.into_iter().map(|g| (g, barrier)));
            }
            target::Output::Write { first, count } => {
                let held = self.session().held.pop_front();
                let (held, contents) = held.expect("what is written was handed in");
                assert_eq!((held, contents.len()), (first.0, count as usize));
                self.seen.overlapping_writes += u32::from(!self.session().jobs.is_empty());
                for (block, content) in (held..).zip(contents) {
                    self.fuse.deed()?;
                    self.write(block, content);
                }
            }
            target::Output::WriteZeros { first, count } => {
                for block in first.0..first.0 + u64::from(count) {
                    self.write(block, 0);
                }
            }
            target::Output::Flush { barrier, extents } => {
                self.queue(Some(barrier), extents);
                if !self.overlap {
                    return self.run_jobs(Some(inputs));
                }
            }
            target::Output::Settle { extents } => {
                self.seen.settlings += 1;
                self.queue(None, extents);
                return self.run_jobs(None);
            }
            target::Output::ComputeRoot => {
                let root = self.tree.root();
                inputs.push_back(target::Input::RootComputed { root });
            }
            target::Output::ReadBack => {
                let root = StoredTree::of(self.geometry, &self.disk.cached).root();
                inputs.push_back(target::Input::ReadBack { root });
            }
            target::Output::Prove {
                root, read_back, ..
            } => {
                let proof = format!("{root} {read_back}").into_bytes();
                inputs.push_back(target::Input::Proved { proof });
            }
            target::Output::Closed | target::Output::Fail(_) => {
                let outcome = self.run_jobs(None)?;
                self.session().ended = true;
                return Ok(outcome);
            }
        }
        Ok(Outcome::Fine)
    }

    fn write(&mut self, block: u64, content: Content) {
        let group = BlockIndex(block).group();
        if self.flaw.is_none() {
            assert!(self.notes.contains_key(&group), "{group} is not noted");
            let session = self.session.as_ref().unwrap();
            let written = leaf(self.geometry, block, content);
            session.stated.check_write(block, written, content == 0);
        }
        self.disk.write(block, content);
    }

    fn queue(&mut self, barrier: Option<u64>, extents: Vec<Extent>) {
        let steps_done = 0;
        self.session().jobs.push_back(Job {
            barrier,
            extents,
            steps_done,
        });
    }

    /// Carries out all that is queued; without `inputs` nobody waits for it.
    fn run_jobs(
        &mut self,
        mut inputs: Option<&mut VecDeque<target::Input>>,
    ) -> Result<Outcome, Died> {
        while let Some(mut job) = self.session().jobs.pop_front() {
            let outcome = loop {
                if let Some(outcome) = self.step_job(&mut job)? {
                    break outcome;
                }
            };
            if let Outcome::StorageFailed = outcome {
                return Ok(outcome);
            }
            if let (Some(inputs), Some(barrier)) = (inputs.as_deref_mut(), job.barrier) {
                let mark = self.tree.mark();
                inputs.push_back(target::Input::Flushed { barrier, mark });
            }
        }
        Ok(Outcome::Fine)
    }

    /// One durable step of a flush; its outcome after the last.
    fn step_job(&mut self, job: &mut Job) -> Result<Option<Outcome>, Died> {
        self.fuse.deed()?;
        job.steps_done += 1;
        let stored = job.extents.len() + 1;
        match job.steps_done {
            1 if std::mem::take(&mut self.sync_fails) => {
                return Ok(Some(Outcome::StorageFailed));
            }
            1 if self.flaw == Some(Flaw::SkipsDataSync) => {}
            1 => self.disk.sync(),
            step if step <= stored => {
                store(&mut self.tree, &job.extents[step - 2]);
            }
            step if step == stored + 1 => self.tree.sync(),
            step if step == stored + 2 => self.barrier = job.barrier.unwrap_or(self.barrier),
            _ => {
                let barrier = match job.barrier {
                    Some(barrier) if self.flaw != Some(Flaw::ForgetsAllNotes) => barrier,
                    _ => u64::MAX,
                };
                self.notes.retain(|_, noted_for| *noted_for > barrier);
                return Ok(Some(Outcome::Fine));
            }
        }
        Ok(None)
    }

    /// A failed sync voids what was not yet durable, in any mixture.
    fn storage_failed(&mut self, wire: &mut Stream) -> Result<(), Died> {
        self.seen.failed_syncs += 1;
        let session = self.session();
        session.jobs.clear();
        let full = false;
        let mut out = Vec::new();
        session
            .machine
            .step(target::Input::StorageFailed { full }, &mut out);
        for output in out {
            match output {
                target::Output::Send(frame) => wire.extend(frame.encode().unwrap()),
                target::Output::Fail(_) => {}
                output => panic!("{output:?} after the storage failed"),
            }
        }
        self.session().ended = true;
        let mut chance = Chance::new(self.disk.cached.len() as u32);
        self.disk.die(Death::Power, &mut chance);
        self.recover()
    }
}
