//! A source that sends whatever it likes: every kind of frame with any values,
//! and honest ones that were tampered with on the way. What a target writes is
//! still what some frame of the session gave the hash of (`stated`), and its
//! tree is that of its durable bytes.

use blocks::frame::{ToSource, ToTarget};
use blocks::{
    BLOCK_SIZE, BlockIndex, CloseReason, Encoding, Fingerprint, Geometry, GroupIndex, Leaf,
    MAX_EXTENT_BLOCKS, MAX_ZERO_BLOCKS, Mark, Patch, PieceSet, Root, fingerprint, piece_hashes,
    target,
};

use crate::chance::Chance;
use crate::disk::{Content, bytes, fitted, leaf, mixed, unlike};
use crate::ends::{After, Stream};
use crate::target_end::TargetEnd;
use crate::world::Case;

/// A target and what is thrown at it.
pub struct Hostile {
    geometry: Geometry,
    pub target: TargetEnd,
    wire: Stream,
    pass: u32,
    barrier: u64,
    pub answers: u32,
    pub sessions: u32,
}

impl Hostile {
    pub fn new(case: Case) -> Self {
        let geometry = Geometry::new(case.length).unwrap();
        let mut chance = Chance::new(case.seed);
        let contents = (0..geometry.blocks()).map(|block| match chance.one_in(3) {
            true => fitted(geometry, block, chance.next()),
            false => 0,
        });
        Self {
            geometry,
            target: TargetEnd::new(geometry, contents.collect(), case),
            wire: Stream::new(),
            pass: 0,
            barrier: 0,
            answers: 0,
            sessions: 0,
        }
    }

    /// One frame, or some steps of a flush, with all its details from one number.
    pub fn event(&mut self, number: u32) {
        let mut chance = Chance::new(number);
        if self.target.session.is_none() {
            self.open();
        }
        let mut down = Stream::new();
        let mut moved = Ok(After::Moved);
        if chance.one_in(4) {
            for _ in 0..chance.below(12) {
                moved = self.target.flush_step(&mut down);
            }
        } else {
            self.send(&mut chance);
            moved = self.target.receive(&mut self.wire, &mut down);
        }
        self.read(&mut down);
        if let Ok(After::Ended(_)) = moved {
            self.target.session = None;
        }
    }

    /// The stream ends: what was taken is settled, and must be what the tree says.
    pub fn end_and_check(&mut self) {
        if self.target.session.is_some() {
            let closed = target::Input::Closed(CloseReason::Lost);
            let mut nowhere = Stream::new();
            self.target.input(closed, &mut nowhere).unwrap();
        }
        self.target.session = None;
        self.target.connect().unwrap();
        assert_eq!(self.target.disk.durable, self.target.disk.cached);
        self.target.check_tree();
    }

    fn open(&mut self) {
        self.target.connect().unwrap();
        self.sessions += 1;
        self.wire.clear();
        self.barrier = self.target.barrier + 1;
        self.pass = 1;
        let open = ToTarget::Open {
            ticket: vec![],
            length: self.geometry.length(),
            barrier: 0,
            mark: Mark([0; 32]),
        };
        let begin = ToTarget::BeginPass { pass: 1 };
        for frame in [open, begin] {
            self.wire.extend(frame.encode(0).unwrap());
            let mut down = Stream::new();
            self.target.receive(&mut self.wire, &mut down).unwrap();
        }
    }

    fn read(&mut self, down: &mut Stream) {
        while let Ok(Some((header, _))) = crate::ends::take_frame(down) {
            if let Ok(ToSource::Answer { .. }) = ToSource::decode(&header, 0) {
                self.answers += 1;
            }
        }
    }

    fn send(&mut self, chance: &mut Chance) {
        let (frame, mut payload) = self.frame(chance);
        // Not checked here: that is for who reads it.
        let mut header = codec::encode(&frame).unwrap();
        if chance.one_in(30) {
            tamper(&mut header, chance);
        }
        if chance.one_in(30) {
            tamper(&mut payload, chance);
        }
        let lengths = [header.len() as u32, payload.len() as u32];
        let mut prefix: Vec<u8> = lengths.map(u32::to_le_bytes).concat();
        if chance.one_in(90) {
            tamper(&mut prefix, chance);
        }
        self.wire.extend(prefix);
        self.wire.extend(header);
        self.wire.extend(payload);
    }

    /// A frame of any kind; more often one that gets somewhere.
    fn frame(&mut self, chance: &mut Chance) -> (ToTarget, Vec<u8>) {
        let first = self.block(chance);
        let plain = match chance.below(90) {
            0 => ToTarget::Open {
                ticket: vec![1; chance.below(9) as usize],
                length: chance.next(),
                barrier: chance.next(),
                mark: Mark([1; 32]),
            },
            1 => ToTarget::AskGroups {
                first: GroupIndex(chance.below(4)),
                count: chance.below(4) as u32,
            },
            2 => ToTarget::AskLeaves {
                group: GroupIndex(chance.below(3)),
            },
            3 => {
                self.pass += chance.below(3) as u32;
                ToTarget::BeginPass { pass: self.pass }
            }
            4 => ToTarget::Finish {
                barrier: self.barrier - chance.below(2),
                root: Root([1; 32]),
                read_back: chance.one_in(2),
            },
            5 if chance.one_in(3) => ToTarget::Close,
            6..=8 => {
                let barrier = match chance.one_in(8) {
                    true => chance.next(),
                    false => self.barrier,
                };
                self.barrier = self.barrier.saturating_add(1);
                ToTarget::Barrier { barrier }
            }
            9..=11 => ToTarget::Zero {
                first,
                count: self.count(chance, MAX_ZERO_BLOCKS),
            },
            12..=45 => self.offer(first, chance),
            46..=65 => return self.patch(first, chance),
            _ => return self.extent(first, chance),
        };
        (plain, vec![])
    }

    /// Mostly in the volume.
    fn block(&self, chance: &mut Chance) -> BlockIndex {
        let blocks = self.geometry.blocks();
        BlockIndex(match chance.one_in(90) {
            true => [chance.next(), u64::MAX, blocks][chance.below(3) as usize],
            false => chance.below(blocks),
        })
    }

    fn count(&self, chance: &mut Chance, most: u32) -> u32 {
        match chance.below(80) {
            0 => 0,
            1 => most + chance.below(3) as u32,
            _ => 1 + chance.below(5) as u32,
        }
    }

    /// What an honest source might want at this place: something new, some pieces
    /// of what is there, or what is elsewhere. Never zeros, which an honest source
    /// sends as such: a tree has another entry for them where they come as data.
    fn content(&self, block: u64, chance: &mut Chance) -> Content {
        let contents = &self.target.disk.cached;
        let elsewhere = contents[chance.below(contents.len() as u64) as usize];
        let content = match (chance.below(3), contents.get(block as usize)) {
            (0, Some(now)) => mixed(*now, *now, chance),
            (1, _) => elsewhere,
            _ => unlike(chance.next()),
        };
        fitted(self.geometry, block, content).max(1)
    }

    /// Bytes and leaves of a run of blocks; leaves that are none where there is
    /// no block.
    fn run(&self, first: BlockIndex, chance: &mut Chance) -> (Vec<Leaf>, Vec<u8>) {
        let count = u64::from(self.count(chance, MAX_EXTENT_BLOCKS));
        let (mut leaves, mut data) = (Vec::new(), Vec::new());
        for block in (0..count).map(|at| first.0.saturating_add(at)) {
            if !self.geometry.contains(BlockIndex(block)) {
                leaves.push(Leaf([9; 32]));
                continue;
            }
            let content = self.content(block, chance);
            data.extend(bytes(self.geometry, block, content));
            let stated = match chance.one_in(50) {
                true => self.content(block, chance),
                false => content,
            };
            leaves.push(leaf(self.geometry, block, stated));
        }
        (leaves, data)
    }

    fn fingerprints(&self, data: &[u8], chance: &mut Chance) -> Vec<Fingerprint> {
        let wrong = Fingerprint(chance.below(3));
        let prints = data.chunks(BLOCK_SIZE).map(|block| match chance.one_in(8) {
            true => wrong,
            false => fingerprint(block),
        });
        prints.collect()
    }

    fn offer(&self, first: BlockIndex, chance: &mut Chance) -> ToTarget {
        let (leaves, data) = self.run(first, chance);
        ToTarget::Offer {
            first,
            leaves,
            fingerprints: self.fingerprints(&data, chance),
        }
    }

    fn extent(&self, first: BlockIndex, chance: &mut Chance) -> (ToTarget, Vec<u8>) {
        let (leaves, data) = self.run(first, chance);
        let frame = ToTarget::Extent {
            first,
            encoding: encoding(chance),
            leaves,
            fingerprints: self.fingerprints(&data, chance),
        };
        (frame, data)
    }

    /// The pieces that differ from what is in place, and sometimes others.
    fn patch(&self, first: BlockIndex, chance: &mut Chance) -> (ToTarget, Vec<u8>) {
        let (leaves, data) = self.run(first, chance);
        let blocks = (first.0..).zip(data.chunks(BLOCK_SIZE));
        let mut pieces: Vec<PieceSet> = blocks
            .map(|(block, new)| {
                let now = self.target.disk.cached[block as usize];
                let now = bytes(self.geometry, block, now);
                PieceSet::differing(&piece_hashes(new), &piece_hashes(&now))
            })
            .collect();
        if chance.one_in(5) {
            pieces
                .iter_mut()
                .for_each(|set| set.0 ^= 1 << chance.below(16));
        }
        let honest = Patch::new(self.geometry, first, leaves.clone(), pieces.clone());
        let payload = match honest {
            Ok(patch) => patch.gather(&data),
            Err(_) => data,
        };
        let frame = ToTarget::Patch {
            first,
            encoding: encoding(chance),
            leaves,
            pieces,
        };
        (frame, payload)
    }
}

fn encoding(chance: &mut Chance) -> Encoding {
    match chance.one_in(30) {
        true => Encoding::Zstd,
        false => Encoding::Raw,
    }
}

/// Flips, cuts, adds or overwrites.
fn tamper(bytes: &mut Vec<u8>, chance: &mut Chance) {
    if bytes.is_empty() {
        return;
    }
    let at = chance.below(bytes.len() as u64) as usize;
    match chance.below(4) {
        0 => bytes[at] ^= 1 << chance.below(8),
        1 => bytes.truncate(at),
        2 => bytes.push(chance.next() as u8),
        _ => bytes[at] = chance.next() as u8,
    }
}
