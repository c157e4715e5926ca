//! The source's shell: carries out what its machine says, one small deed at a
//! time, and may die before any of them.

use std::collections::VecDeque;

use blocks::source::{self, Source};
use blocks::{
    BLOCK_SIZE, BlockIndex, Encoding, Extent, Fingerprint, Geometry, Held, Leaf, MAX_EXTENT_BLOCKS,
    MAX_ZERO_BLOCKS, Mark, Parcel, Root, ToSource, ToTarget, fingerprint, remainder,
};

use crate::chance::Chance;
use crate::disk::{Content, Death, StoredTree, bytes, entry, leaf};
use crate::ends::{After, Died, Fuse, Stream, store, take_frame};
use crate::world::{Case, Flaw};

pub struct SourceEnd {
    geometry: Geometry,
    pub disk: Vec<Content>,
    pub tree: StoredTree,
    pub barrier: u64,
    remembered: Mark,
    case: Case,
    pub fuse: Fuse,
    pub session: Option<SourceSession>,
    pub adopted_groups: u64,
    pub passes_done: u32,
    pub patches_sent: u32,
}

pub struct SourceSession {
    machine: Source,
    cursor: Option<u64>,
    offers: VecDeque<Offer>,
    /// What is left of answered offers, with its payload.
    rest: VecDeque<(Parcel, Vec<u8>)>,
    pass: u32,
    pub is_ready: bool,
    pub passes_done: u32,
    pub done: Option<(Root, Vec<u8>)>,
    ended: bool,
    error: Option<source::SessionError>,
}

/// What was offered, as it was read.
struct Offer {
    first: BlockIndex,
    leaves: Vec<Leaf>,
    data: Vec<u8>,
}

impl SourceEnd {
    pub fn new(geometry: Geometry, disk: Vec<Content>, tree: StoredTree, case: Case) -> Self {
        Self {
            geometry,
            disk,
            barrier: 0,
            remembered: tree.mark(),
            tree,
            case,
            fuse: Fuse::default(),
            session: None,
            adopted_groups: 0,
            passes_done: 0,
            patches_sent: 0,
        }
    }

    pub fn die(&mut self, death: Death, chance: &mut Chance) {
        self.session = None;
        self.tree.die(death, chance);
    }

    pub fn connect(&mut self, wire: &mut Stream) -> Result<(), Died> {
        let mark = match self.case.flaw {
            Some(Flaw::RemembersMark) => self.remembered,
            _ => self.tree.mark(),
        };
        self.session = Some(SourceSession {
            machine: Source::new(self.geometry, self.barrier, mark, b"ticket".to_vec()),
            cursor: None,
            offers: VecDeque::new(),
            rest: VecDeque::new(),
            pass: 0,
            is_ready: false,
            passes_done: 0,
            done: None,
            ended: false,
            error: None,
        });
        self.input(source::Input::Start, wire)
    }

    /// Takes one frame if there is one.
    pub fn receive(&mut self, from: &mut Stream, wire: &mut Stream) -> Result<After, Died> {
        let frame = match take_frame(from) {
            Ok(None) => return Ok(After::Idle),
            Ok(Some((header, payload))) => ToSource::decode(&header, payload.len()),
            Err(error) => Err(error),
        };
        let input = match frame {
            Ok(frame) => source::Input::Received(frame),
            Err(_) => source::Input::Closed(blocks::CloseReason::Garbled),
        };
        self.input(input, wire)?;
        Ok(self.after())
    }

    /// Begins a pass, or sends the next extent of the one that runs.
    pub fn read(&mut self, wire: &mut Stream, chance: &mut Chance) -> Result<After, Died> {
        let Some(session) = &mut self.session else {
            return Ok(After::Idle);
        };
        if session.is_ready && session.cursor.is_none() {
            session.is_ready = false;
            session.cursor = Some(0);
            session.pass += 1;
            let pass = session.pass;
            self.input(source::Input::BeginPass { pass }, wire)?;
            return Ok(self.after());
        }
        let Some(cursor) = session.cursor.filter(|_| session.machine.may_send()) else {
            return Ok(After::Idle);
        };
        if let Some((parcel, payload)) = session.rest.pop_front() {
            self.fuse.deed()?;
            self.send_parcel(parcel, &payload, wire)?;
            return Ok(self.after());
        }
        let may_offer = session.machine.may_offer();
        let offers_wait = !session.offers.is_empty();
        match self.next_extent(cursor, chance) {
            None if offers_wait => return Ok(After::Idle),
            None => {
                self.session().cursor = None;
                self.input(source::Input::PassRead, wire)?;
            }
            Some(extent) => {
                self.session().cursor = Some(extent.first().0 + extent.count());
                self.fuse.deed()?;
                let is_offered = self.case.offers && may_offer && !chance.one_in(3);
                match extent {
                    Extent::Data { first, leaves } if is_offered => {
                        self.send_offer(first, leaves, wire)?;
                    }
                    extent => self.send_extent(extent, wire)?,
                }
            }
        }
        Ok(self.after())
    }

    /// Hands an input in and does all it leads to.
    pub fn input(&mut self, input: source::Input, wire: &mut Stream) -> Result<(), Died> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut out = Vec::new();
            self.session().machine.step(input, &mut out);
            for output in out {
                self.fuse.deed()?;
                self.carry_out(output, wire, &mut inputs)?;
            }
        }
        Ok(())
    }

    pub fn after(&self) -> After {
        match &self.session {
            Some(session) if !session.ended => After::Moved,
            Some(session) => After::Ended(session.error.clone()),
            None => After::Ended(None),
        }
    }

    fn session(&mut self) -> &mut SourceSession {
        self.session.as_mut().unwrap()
    }

    fn carry_out(
        &mut self,
        output: source::Output,
        wire: &mut Stream,
        inputs: &mut VecDeque<source::Input>,
    ) -> Result<(), Died> {
        match output {
            source::Output::Send(frame) => wire.extend(frame.encode(0).unwrap()),
            source::Output::LoadGroups { first, count } => {
                let marks = self.tree.marks(first, count);
                inputs.push_back(source::Input::OurGroups { first, marks });
            }
            source::Output::Adopt { group, entries } => {
                for (block, entry) in self.geometry.group_blocks(group).zip(entries) {
                    self.tree.set(block, entry);
                }
            }
            source::Output::Ready {
                barrier,
                mark,
                adopted_groups,
            } => {
                self.adopted_groups += adopted_groups;
                self.barrier = barrier;
                self.remembered = mark;
                self.session().is_ready = true;
            }
            source::Output::Answered { first, held } => self.answered(first, &held),
            source::Output::Commit {
                barrier,
                mark,
                extents,
            } => {
                self.remembered = mark;
                for extent in &extents {
                    self.fuse.deed()?;
                    store(&mut self.tree, extent);
                }
                self.tree.sync();
                self.fuse.deed()?;
                self.barrier = barrier;
                let mark = self.tree.mark();
                inputs.push_back(source::Input::Committed { barrier, mark });
            }
            source::Output::PassDone { .. } => {
                self.passes_done += 1;
                let session = self.session();
                session.is_ready = true;
                session.passes_done += 1;
            }
            source::Output::Done { root, proof, .. } => {
                let session = self.session();
                session.done = Some((root, proof));
                session.ended = true;
            }
            source::Output::Stopped => self.session().ended = true,
            source::Output::Fail(error) => {
                let session = self.session();
                session.ended = true;
                session.error = Some(error);
            }
        }
        Ok(())
    }

    /// The next run that differs from the stored tree, from `cursor` on.
    fn next_extent(&self, cursor: u64, chance: &mut Chance) -> Option<Extent> {
        let differs = |block: u64| {
            let content = self.disk[block as usize];
            entry(self.geometry, block, content) != self.tree.cached[block as usize]
        };
        let is_zero = |block: u64| self.disk[block as usize] == 0;
        let first = (cursor..self.geometry.blocks()).find(|block| differs(*block))?;
        let zero = is_zero(first);
        let limit = if zero {
            MAX_ZERO_BLOCKS
        } else {
            MAX_EXTENT_BLOCKS
        };
        let limit = 1 + chance.below(u64::from(limit));
        let end = (first..self.geometry.blocks().min(first + limit))
            .find(|block| !differs(*block) || is_zero(*block) != zero)
            .unwrap_or(self.geometry.blocks().min(first + limit));
        let first_block = BlockIndex(first);
        Some(if zero {
            let count = (end - first) as u32;
            Extent::Zero {
                first: first_block,
                count,
            }
        } else {
            let leaves = (first..end)
                .map(|block| leaf(self.geometry, block, self.disk[block as usize]))
                .collect();
            Extent::Data {
                first: first_block,
                leaves,
            }
        })
    }

    fn send_extent(&mut self, extent: Extent, wire: &mut Stream) -> Result<(), Died> {
        match extent {
            Extent::Zero { first, count } => {
                wire.extend(ToTarget::Zero { first, count }.encode(0).unwrap());
                let payload_bytes = 0;
                let sent = source::Input::ExtentSent {
                    extent,
                    payload_bytes,
                };
                self.input(sent, wire)
            }
            Extent::Data { first, leaves } => {
                let data = self.data(first, leaves.len());
                self.send_parcel(Parcel::Whole { first, leaves }, &data, wire)
            }
        }
    }

    fn send_parcel(
        &mut self,
        parcel: Parcel,
        payload: &[u8],
        wire: &mut Stream,
    ) -> Result<(), Died> {
        let encoding = Encoding::Raw;
        let (frame, extent) = match parcel {
            Parcel::Whole { first, leaves } => {
                let frame = ToTarget::Extent {
                    first,
                    encoding,
                    leaves: leaves.clone(),
                    fingerprints: self.fingerprints(payload),
                };
                (frame, Extent::Data { first, leaves })
            }
            Parcel::Patch(patch) => {
                self.patches_sent += 1;
                let (first, leaves) = (patch.first(), patch.leaves().to_vec());
                let frame = ToTarget::Patch {
                    first,
                    encoding,
                    leaves: leaves.clone(),
                    pieces: patch.pieces().to_vec(),
                };
                (frame, Extent::Data { first, leaves })
            }
        };
        wire.extend(frame.encode(payload.len()).unwrap());
        wire.extend(payload);
        let payload_bytes = payload.len() as u64;
        let sent = source::Input::ExtentSent {
            extent,
            payload_bytes,
        };
        self.input(sent, wire)
    }

    fn send_offer(
        &mut self,
        first: BlockIndex,
        leaves: Vec<Leaf>,
        wire: &mut Stream,
    ) -> Result<(), Died> {
        let data = self.data(first, leaves.len());
        let frame = ToTarget::Offer {
            first,
            leaves: leaves.clone(),
            fingerprints: self.fingerprints(&data),
        };
        wire.extend(frame.encode(0).unwrap());
        let offer = Offer {
            first,
            leaves: leaves.clone(),
            data,
        };
        self.session().offers.push_back(offer);
        self.input(source::Input::Offered { first, leaves }, wire)
    }

    /// Prepares what is left of the oldest offer.
    fn answered(&mut self, first: BlockIndex, held: &[Held]) {
        let geometry = self.geometry;
        let offer = self.session().offers.pop_front().unwrap();
        assert_eq!(offer.first, first);
        let now = self.data(first, offer.leaves.len());
        let data = match self.case.flaw {
            Some(Flaw::SendsWhatIsThereNow) => now,
            _ => offer.data,
        };
        let left = remainder(geometry, first, &offer.leaves, held, &data);
        for parcel in left.parcels {
            let (at, blocks) = match &parcel {
                Parcel::Whole { first, leaves } => (*first, leaves.len()),
                Parcel::Patch(patch) => (patch.first(), patch.leaves().len()),
            };
            let place = geometry.run_range(at, blocks as u64);
            let (start, end) = (place.start - first.offset(), place.end - first.offset());
            let bytes = &data[start as usize..end as usize];
            let payload = match &parcel {
                Parcel::Whole { .. } => bytes.to_vec(),
                Parcel::Patch(patch) => patch.gather(bytes),
            };
            self.session().rest.push_back((parcel, payload));
        }
    }

    fn data(&self, first: BlockIndex, blocks: usize) -> Vec<u8> {
        let blocks = first.0..first.0 + blocks as u64;
        let contents = blocks.map(|block| bytes(self.geometry, block, self.disk[block as usize]));
        contents.collect::<Vec<_>>().concat()
    }

    fn fingerprints(&mut self, data: &[u8]) -> Vec<Fingerprint> {
        match self.session().machine.wants_fingerprints() {
            true => data.chunks(BLOCK_SIZE).map(fingerprint).collect(),
            false => Vec::new(),
        }
    }
}
