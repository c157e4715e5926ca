//! The network between the nodes, the queue of events, and the clock: messages
//! that are lost, late, doubled or out of order, and streams that keep their order
//! until they break.
//!
//! What a message says and who may send it is the nodes' matter.

use crate::context::Context;
use crate::rng::Rng;
use blocks::CloseReason;
use keys::MigrationId;
use roles::JobId;
use roles::cutover::Ask;
use roles::provisioner::{Reading, Superseded, Wanted};
use std::collections::BTreeMap;
use std::rc::Rc;

/// One thing that will happen.
#[derive(Debug, Clone)]
pub enum Event {
    /// A node looks at its clock.
    Tick {
        /// Which.
        node: usize,
        /// In which of its lives.
        life: u32,
    },
    /// A message arrives.
    Packet {
        /// Proven by the transport.
        from: usize,
        /// Where.
        to: usize,
        /// What.
        packet: Packet,
    },
    /// A frame arrives on a stream.
    Frame {
        /// Which stream.
        stream: u64,
        /// At which end of it.
        end: usize,
        /// Prefix and header.
        header: Vec<u8>,
        /// An extent's bytes.
        payload: Rc<Vec<u8>>,
    },
    /// One end learns that a stream is over.
    StreamOver {
        /// Which stream.
        stream: u64,
        /// Which end.
        end: usize,
        /// How.
        reason: CloseReason,
    },
    /// An agent reads on.
    Pump {
        /// Which node.
        node: usize,
        /// The volume.
        job: JobId,
        /// The session.
        stream: u64,
    },
    /// A replicator does the next step of a flush.
    Flush {
        /// Which node.
        node: usize,
        /// The session.
        stream: u64,
    },
    /// A call to the cloud is made and answered.
    Cloud {
        /// Which node.
        node: usize,
        /// In which of its lives.
        life: u32,
        /// The call.
        call: CloudCall,
    },
    /// Whoever freezes the sources of a node is asked something.
    Freezer {
        /// Of which node.
        node: usize,
        /// In which of its lives it asked.
        life: u32,
        /// For which migration.
        migration: MigrationId,
        /// What.
        ask: Ask,
    },
    /// Something writes to the source volumes.
    SourceWrite,
    /// People look at the mesh and do what is next.
    People,
    /// Something of the scenario's list goes wrong.
    Fault(usize),
    /// A node begins again, with the key that it has by then.
    Again {
        /// Which.
        node: usize,
        /// In which of its lives.
        life: u32,
    },
    /// A person puts a node's damaged record right.
    Mended {
        /// Which node.
        node: usize,
    },
    /// A node starts.
    Start {
        /// Which.
        node: usize,
    },
    /// Nothing goes wrong any more.
    Heal,
}

/// A message.
#[derive(Debug, Clone)]
pub enum Packet {
    /// Announced by somebody, passed on by neighbours.
    Gossip(Rc<Vec<u8>>),
    /// A question of anti-entropy.
    Ask(u64, Rc<Vec<u8>>),
    /// Its answer.
    Answer(u64, Rc<Vec<u8>>),
    /// A stranger's request.
    Enrol(u64, Rc<Vec<u8>>),
    /// Its answer.
    Enrolled(u64, Rc<Vec<u8>>),
}

/// A call to the cloud.
#[derive(Debug, Clone)]
pub enum CloudCall {
    /// Make and attach a volume.
    Ensure(Wanted),
    /// Look whether a volume is there.
    Look(Wanted),
    /// Delete all volumes of a migration.
    Remove(MigrationId),
    /// Detach the volumes of older epochs.
    Fence(Superseded),
    /// Delete the volumes of older epochs.
    Retire(Superseded),
    /// Read a volume from end to end.
    ReadBack(Reading),
}

/// A stream between two nodes.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// Who opened it, and to whom.
    pub ends: [usize; 2],
    is_whole: bool,
    /// When the last frame towards each end arrives.
    last: [u64; 2],
}

/// Everything under way.
#[derive(Default)]
pub struct Network {
    queue: BTreeMap<(u64, u64), Event>,
    numbers: u64,
    streams: BTreeMap<u64, Stream>,
    cuts: BTreeMap<(usize, usize), u64>,
    between: BTreeMap<(usize, usize), u64>,
    /// Flip a bit of the next frame that is sent.
    pub garble: Option<Garble>,
}

/// A bit to be flipped, by any number.
#[derive(Debug, Clone, Copy)]
pub struct Garble(pub u64);

impl Network {
    /// A number that nothing else has.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The number of the next message from one participant to another.
    pub fn next_between(&mut self, from: usize, to: usize) -> u64 {
        let number = self.between.entry((from, to)).or_default();
        *number += 1;
        *number
    }

    /// Makes something happen at a time.
    pub fn schedule(&mut self, at: u64, event: Event) {
        let number = self.number();
        self.queue.insert((at, number), event);
    }

    /// What happens next, and when.
    pub fn next(&mut self) -> Option<(u64, Event)> {
        let ((at, _), event) = self.queue.pop_first()?;
        Some((at, event))
    }

    /// Lets nothing through from one node to another until a time.
    pub fn cut(&mut self, from: usize, to: usize, until: u64) {
        let end = self.cuts.entry((from, to)).or_insert(until);
        *end = (*end).max(until);
    }

    /// Ends all cuts.
    pub fn mend(&mut self) {
        self.cuts.clear();
        self.garble = None;
    }

    /// Whether nothing gets through from one node to another.
    pub fn is_cut(&self, now: u64, from: usize, to: usize) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|until| now < *until)
    }

    /// A stream that is not broken.
    pub fn stream(&self, id: u64) -> Option<&Stream> {
        self.streams.get(&id).filter(|stream| stream.is_whole)
    }

    /// Nothing more comes over a stream.
    pub fn forget(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.is_whole = false;
        }
    }

    /// The node at one end of a stream, be it broken or not.
    pub fn end_of(&self, id: u64, end: usize) -> Option<usize> {
        self.streams.get(&id).map(|stream| stream.ends[end])
    }

    /// Every stream that is not broken.
    pub fn whole_streams(&self) -> Vec<u64> {
        let streams = self.streams.iter();
        streams
            .filter(|(_, stream)| stream.is_whole)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Every stream of a node that is not broken.
    pub fn streams_of(&self, node: usize) -> Vec<u64> {
        let whole = self.whole_streams().into_iter();
        whole
            .filter(|id| self.streams[id].ends.contains(&node))
            .collect()
    }
}

impl Context {
    fn delay(&mut self, chance: &mut Rng) -> u64 {
        match self.calm {
            true => 2 + chance.below(4),
            false if chance.happens(self.rates.late) => {
                self.seen.delayed += 1;
                chance.between(200, 3_000)
            }
            false => chance.between(1, 40),
        }
    }

    /// Sends a message, which may never arrive, or twice.
    pub fn send(&mut self, from: usize, to: usize, packet: Packet) {
        let mut chance = self.chance(from, to);
        if chance.happens(self.rates.lost) && !self.calm {
            self.seen.lost += 1;
            return;
        }
        if self.network.is_cut(self.now, from, to) {
            self.seen.cut_off += 1;
            return;
        }
        let copies = if chance.happens(self.rates.doubled) && !self.calm {
            self.seen.doubled += 1;
            2
        } else {
            1
        };
        for _ in 0..copies {
            let at = self.now + self.delay(&mut chance);
            let packet = packet.clone();
            self.network
                .schedule(at, Event::Packet { from, to, packet });
        }
    }

    /// Opens a stream; whether the other end takes it shows later.
    pub fn open_stream(&mut self, from: usize, to: usize) -> u64 {
        let id = self.network.number();
        let stream = Stream {
            ends: [from, to],
            is_whole: true,
            last: [0; 2],
        };
        self.network.streams.insert(id, stream);
        id
    }

    /// Sends a frame from one end (0 opened the stream) to the other.
    pub fn send_frame(&mut self, id: u64, from_end: usize, mut header: Vec<u8>, payload: Vec<u8>) {
        let Some(stream) = self.network.stream(id).copied() else {
            return;
        };
        let end = 1 - from_end;
        let (from, to) = (stream.ends[from_end], stream.ends[end]);
        let mut chance = self.chance(from, to);
        let breaks = chance.happens(self.rates.broken) && !self.calm;
        if self.network.is_cut(self.now, from, to) || breaks {
            return self.break_stream(id, CloseReason::Lost);
        }
        let mut payload = payload;
        // What opens a stream is left alone: the transport authenticates who shows a
        // ticket, and what is wrong with it would be held against them.
        if stream.last[end] > 0
            && let Some(Garble(pick)) = self.network.garble.take()
        {
            self.seen.garbled += 1;
            self.oracle.nothing_is_level();
            let mut rng = Rng::new(pick);
            let bytes = match rng.below(2) {
                0 if !payload.is_empty() => &mut payload,
                _ => &mut header,
            };
            let at = rng.index(bytes.len());
            bytes[at] ^= 1 << rng.below(8);
        }
        let at = stream.last[end].max(self.now + self.delay(&mut chance).min(300));
        if let Some(stream) = self.network.streams.get_mut(&id) {
            stream.last[end] = at;
        }
        let payload = Rc::new(payload);
        self.network.schedule(
            at,
            Event::Frame {
                stream: id,
                end,
                header,
                payload,
            },
        );
    }

    /// Breaks a stream: what is under way is gone, and both ends learn of it later.
    pub fn break_stream(&mut self, id: u64, reason: CloseReason) {
        let Some(stream) = self.network.streams.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut stream.is_whole, false) {
            return;
        }
        let [from, to] = stream.ends;
        self.seen.broken_streams += 1;
        let mut chance = self.chance(from, to);
        for end in 0..2 {
            let at = self.now + chance.between(5, 2_000);
            let event = Event::StreamOver {
                stream: id,
                end,
                reason,
            };
            self.network.schedule(at, event);
        }
    }

    /// Closes a stream from one end, behind everything that was sent.
    pub fn close_stream(&mut self, id: u64, from_end: usize) {
        let Some(stream) = self.network.stream(id).copied() else {
            return;
        };
        let end = 1 - from_end;
        let at = stream.last[end].max(self.now + 1);
        let event = Event::StreamOver {
            stream: id,
            end,
            reason: CloseReason::ByPeer,
        };
        self.network.schedule(at, event);
    }
}
