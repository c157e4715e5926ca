//! Both ends, the stream between them, and what happens to them.

use blocks::source::{Input, SessionError};
use blocks::{CloseReason, Geometry, RefusalCode, Root, target};

use crate::chance::Chance;
use crate::disk::{Content, Death, StoredTree, bytes, fitted, mixed, unlike};
use crate::ends::{After, Died, Stream};
use crate::source_end::{SourceEnd, SourceSession};
use crate::target_end::TargetEnd;

/// Moves of both ends that a quiet session may need at most.
const QUIET_MOVES: usize = 20_000;

/// A rule of the shell that is left out, to see that the test notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    IgnoresNotes,
    NotesAfterWriting,
    SkipsDataSync,
    RecoversUnsynced,
    ForgetsAllNotes,
    RemembersMark,
    SendsWhatIsThereNow,
    WritesPatchInPart,
}

/// What a world begins with.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub length: u64,
    pub seed: u32,
    /// Whether the target takes extents while it flushes.
    pub overlap: bool,
    /// Whether blocks are offered, and whether the target keeps an index.
    pub offers: bool,
    pub references: bool,
    /// Whether garbage comes over the stream.
    pub corrupt: bool,
    pub flaw: Option<Flaw>,
}

/// How often what the test is about has happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    pub process_deaths: u32,
    pub power_losses: u32,
    pub garbled_ends: u32,
}

pub struct World {
    pub seen: Seen,
    case: Case,
    geometry: Geometry,
    pub source: SourceEnd,
    pub target: TargetEnd,
    /// To the target and to the source, while they are connected.
    link: Option<(Stream, Stream)>,
    garbled: bool,
    written: Content,
}

impl World {
    pub fn new(case: Case) -> Self {
        let geometry = Geometry::new(case.length).unwrap();
        let mut chance = Chance::new(case.seed);
        let mut written = 0;
        let mut some = |density| -> Vec<Content> {
            (0..geometry.blocks())
                .map(|block| {
                    written += 1;
                    match chance.one_in(density) {
                        true => fitted(geometry, block, unlike(written)),
                        false => 0,
                    }
                })
                .collect()
        };
        let disk = some(6);
        // A reused target holds something; the source may believe that it
        // holds something else.
        let reused = some(8);
        let believed = some(10);
        let tree = StoredTree::of(geometry, &believed);
        Self {
            seen: Seen::default(),
            case,
            geometry,
            source: SourceEnd::new(geometry, disk, tree, case),
            target: TargetEnd::new(geometry, reused, case),
            link: None,
            garbled: false,
            written,
        }
    }

    /// One event of the script, with all its details from one number.
    pub fn event(&mut self, number: u32) {
        let mut chance = Chance::new(number);
        match chance.below(100) {
            0..=9 => self.write_source(&mut chance),
            10..=84 => {
                for _ in 0..1 + chance.below(16) {
                    match chance.below(2) {
                        0 => self.move_source(&mut chance),
                        _ => self.move_target(&mut chance),
                    }
                }
            }
            85..=88 => self.source_input(Input::BarrierDue),
            89 => self.disconnect(CloseReason::Lost),
            90..=91 => self.source.fuse.light(chance.below(100)),
            92..=95 => self.target.fuse.light(chance.below(200)),
            96 if self.case.corrupt => self.garble(&mut chance),
            97 => self.source_input(Input::Stop),
            98 => self.target_input(target::Input::Refuse(RefusalCode::Paused)),
            99 => self.target.sync_fails = chance.one_in(2),
            _ => {}
        }
    }

    /// No more events: one session and one pass have to be enough.
    pub fn settle_and_check(&mut self) {
        self.source.fuse.put_out();
        self.target.fuse.put_out();
        self.target.sync_fails = false;
        self.disconnect(CloseReason::Lost);
        let mut chance = Chance::new(self.case.seed);
        for _ in 0..QUIET_MOVES {
            self.move_source(&mut chance);
            if let Some((root, proof)) = self.take_done() {
                return self.check(root, &proof);
            }
            let session = self.source.session.as_ref().unwrap();
            if session.is_ready && session.passes_done == 1 {
                let (root, read_back) = (self.source.tree.root(), true);
                self.source.session.as_mut().unwrap().is_ready = false;
                self.source_input(Input::Finish { root, read_back });
            }
            self.move_target(&mut chance);
        }
        panic!("the quiet session never finished");
    }

    fn take_done(&mut self) -> Option<(Root, Vec<u8>)> {
        self.source.session.as_mut()?.done.take()
    }

    fn check(&self, root: Root, proof: &[u8]) {
        assert_eq!(self.target.disk.durable, self.source.disk);
        let mut hasher = blake3::Hasher::new();
        for (block, content) in (0..).zip(&self.source.disk) {
            hasher.update(&bytes(self.geometry, block, *content));
        }
        assert_eq!(root, Root(*hasher.finalize().as_bytes()));
        assert_eq!(self.source.tree.root(), root);
        assert_eq!(self.target.tree.root(), root);
        assert_eq!(proof, format!("{root} true").into_bytes());
    }

    fn write_source(&mut self, chance: &mut Chance) {
        let first = chance.below(self.geometry.blocks());
        let end = (first + 1 + chance.below(24)).min(self.geometry.blocks());
        let kind = chance.below(6);
        let elsewhere = chance.below(self.geometry.blocks()) as usize;
        for block in first..end {
            self.written += 1;
            let at = block as usize;
            let content = match kind {
                0 => 0,
                // Back to what the target had: the hardest to get right.
                1 => self.target.disk.durable[at],
                // What is to be had elsewhere at the target, or was.
                2 => {
                    let contents = &self.target.disk.durable;
                    contents[(elsewhere + at) % contents.len()]
                }
                // Some pieces of what is there.
                3 => {
                    let now = self.source.disk[at];
                    mixed(now, now, chance)
                }
                _ => unlike(self.written),
            };
            self.source.disk[at] = fitted(self.geometry, block, content);
        }
    }

    fn move_source(&mut self, chance: &mut Chance) {
        let Some((up, down)) = &mut self.link else {
            return self.connect();
        };
        let received = match chance.one_in(3) {
            true => Ok(After::Idle),
            false => self.source.receive(down, up),
        };
        let moved = match received {
            Ok(After::Idle) => self.source.read(up, chance),
            other => other,
        };
        self.source_moved(moved, chance);
    }

    fn move_target(&mut self, chance: &mut Chance) {
        let Some((up, down)) = &mut self.link else {
            return;
        };
        let received = match chance.one_in(3) {
            true => Ok(After::Idle),
            false => self.target.receive(up, down),
        };
        let moved = match received {
            Ok(After::Idle) => self.target.flush_step(down),
            other => other,
        };
        self.target_moved(moved, chance);
    }

    fn connect(&mut self) {
        let mut chance = Chance::new(self.written as u32);
        self.garbled = false;
        if let Err(Died) = self.target.connect() {
            return self.kill_target(&mut chance);
        }
        let (mut up, down) = (Stream::new(), Stream::new());
        let connected = self.source.connect(&mut up);
        self.link = Some((up, down));
        if let Err(Died) = connected {
            self.kill_source(&mut chance);
        }
    }

    /// The stream breaks, and both ends notice. What the source did not read
    /// is gone; the target settles.
    fn disconnect(&mut self, reason: CloseReason) {
        if self.link.take().is_none() {
            return;
        }
        let mut chance = Chance::new(self.written as u32);
        let mut nowhere = Stream::new();
        if self.source.session.is_some() {
            let closed = self.source.input(Input::Closed(reason), &mut nowhere);
            if closed.is_err() {
                self.kill_source(&mut chance);
            }
        }
        if self.target.session.is_some() {
            let closed = target::Input::Closed(reason);
            if self.target.input(closed, &mut nowhere).is_err() {
                self.kill_target(&mut chance);
            }
        }
        // A statement may still be there to be taken.
        let taken = |session: &mut SourceSession| session.done.is_none();
        self.source.session.take_if(taken);
        self.target.session = None;
    }

    fn source_input(&mut self, input: Input) {
        let Some((up, _)) = &mut self.link else {
            return;
        };
        let moved = self.source.input(input, up).map(|()| self.source.after());
        self.source_moved(moved, &mut Chance::new(self.written as u32));
    }

    fn target_input(&mut self, input: target::Input) {
        let Some((_, down)) = &mut self.link else {
            return;
        };
        let moved = self.target.input(input, down).map(|()| self.target.after());
        self.target_moved(moved, &mut Chance::new(self.written as u32));
    }

    fn source_moved(&mut self, moved: Result<After, Died>, chance: &mut Chance) {
        match moved {
            Err(Died) => self.kill_source(chance),
            Ok(After::Ended(error)) => {
                self.check_error(error);
                // Let the target read what was still sent to it.
                while let Some((up, down)) = &mut self.link {
                    match self.target.receive(up, down) {
                        Ok(After::Moved) => {}
                        Ok(_) => break,
                        Err(Died) => return self.kill_target(chance),
                    }
                }
                self.disconnect(CloseReason::ByPeer);
            }
            Ok(After::Idle | After::Moved) => {}
        }
    }

    fn target_moved(&mut self, moved: Result<After, Died>, chance: &mut Chance) {
        match moved {
            Err(Died) => self.kill_target(chance),
            Ok(After::Ended(_)) => {
                // Let the source read why.
                while let Some((up, down)) = &mut self.link {
                    match self.source.receive(down, up) {
                        Ok(After::Moved) => {}
                        Ok(After::Ended(error)) => {
                            self.check_error(error);
                            break;
                        }
                        Ok(After::Idle) => break,
                        Err(Died) => return self.kill_source(chance),
                    }
                }
                self.disconnect(CloseReason::ByPeer);
            }
            Ok(After::Idle | After::Moved) => {}
        }
    }

    /// Without garbage a session ends only by what was done to it.
    fn check_error(&mut self, error: Option<SessionError>) {
        let by_events = matches!(
            error,
            None | Some(SessionError::Closed { .. })
                | Some(SessionError::Refused {
                    code: RefusalCode::Paused | RefusalCode::StorageFailed
                })
        );
        assert!(by_events || self.garbled, "{error:?}");
        self.seen.garbled_ends += u32::from(!by_events);
    }

    fn kill_source(&mut self, chance: &mut Chance) {
        let death = self.death(chance);
        self.source.die(death, chance);
        self.disconnect(CloseReason::Lost);
    }

    fn kill_target(&mut self, chance: &mut Chance) {
        let death = self.death(chance);
        self.target.die(death, chance);
        self.disconnect(CloseReason::Lost);
    }

    fn death(&mut self, chance: &mut Chance) -> Death {
        if chance.one_in(3) {
            self.seen.process_deaths += 1;
            Death::Process
        } else {
            self.seen.power_losses += 1;
            Death::Power
        }
    }

    /// Flips, cuts or adds bytes somewhere on the stream.
    fn garble(&mut self, chance: &mut Chance) {
        let Some((up, down)) = &mut self.link else {
            return;
        };
        let stream = if chance.one_in(2) { up } else { down };
        if stream.is_empty() {
            return;
        }
        self.garbled = true;
        // Mostly near the front, where the lengths and headers are.
        let reach = if chance.one_in(4) {
            stream.len() as u64
        } else {
            100
        };
        let at = chance.below(reach.min(stream.len() as u64)) as usize;
        match chance.below(3) {
            0 => stream[at] ^= 1 << chance.below(8),
            1 => stream.truncate(at),
            _ => {
                let tail = stream.split_off(at);
                stream.extend((0..1 + chance.below(20)).map(|_| chance.next() as u8));
                stream.extend(tail);
            }
        }
    }
}
