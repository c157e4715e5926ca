//! A mesh of many nodes: the real replicas and views, connected by a network with a
//! delay and losses, in virtual time. Nothing else: no disks, no roles, no crashes in
//! the middle of things; `world` is for those.
//!
//! Not here: how such a mesh is made (`founding`), and what is tried with it (`scale`).

use crate::node::{BEGINNING, encode};
use crate::rng::Rng;
use keys::{PublicKey, UnixSecs};
use mesh::view::{self, View};
use mesh::{Announcement, Input, Output, Page, Replica, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How long a message is under way.
pub const DELAY_MILLIS: u64 = 50;
/// Messages of a thousand that are lost. A stream would send them again; here the
/// protocol has to do without, and is told later that a question failed.
pub const LOST_PER_MILLE: u64 = 10;
/// How often a node looks at its clock, as the real one does.
const TICK_MILLIS: u64 = 250;
/// Three round trips: TCP, TLS, and the choice of a muxer.
const DIAL_MILLIS: u64 = 6 * DELAY_MILLIS;
/// After how long a dial is given up that nobody answers.
const DIAL_TIMEOUT_MILLIS: u64 = 10_000;
/// After how long, at most, a connection is taken for dead that nothing comes over.
const SILENCE_MILLIS: u64 = 25_000;
/// How long a question may go unanswered when it, or its answer, was lost.
const ANSWER_MILLIS: u64 = 4_000;
/// Dials under way at once.
const MAX_DIALS: usize = 16;

/// A message.
enum Message {
    Announced(Announcement),
    Asked(Request),
    Answered(Page),
}

enum Event {
    Tick(usize),
    Arrives(usize, usize, Rc<Message>),
    /// A dial from one node to another comes to its end.
    Dialled(usize, usize),
    /// A node gives up a question to another.
    Failed(usize, usize),
    /// A node notices that the connection to another is gone.
    Lost(usize, usize),
}

/// A node.
pub struct Member {
    /// What it holds.
    pub replica: Replica,
    /// Whom it wants to be connected to.
    pub view: View,
    /// Whom it is connected to.
    pub links: BTreeSet<usize>,
    dials: BTreeSet<usize>,
    /// Statements when the view was told of the members last.
    known: usize,
    /// Whether it runs.
    pub is_up: bool,
    /// On which side of the cut it is.
    pub side: u8,
    /// Bytes that it sent, encoded, since they were last set to zero.
    pub sent: u64,
}

/// All of them.
pub struct Crowd {
    /// Milliseconds since the beginning.
    pub now: u64,
    /// The nodes; the first one founded the mesh.
    pub members: Vec<Member>,
    /// Chance.
    pub rng: Rng,
    /// Who blamed whom, for what: honest nodes have no reason to.
    pub blamed: Vec<String>,
    /// Most connections that any node ever had.
    pub most_links: usize,
    keys: BTreeMap<PublicKey, usize>,
    queue: BTreeMap<(u64, u64), Event>,
    number: u64,
}

impl Crowd {
    /// Nobody yet.
    pub fn new(seed: u64) -> Self {
        Self {
            now: 0,
            members: vec![],
            rng: Rng::new(seed),
            blamed: vec![],
            most_links: 0,
            keys: BTreeMap::new(),
            queue: BTreeMap::new(),
            number: 0,
        }
    }

    /// The time on everybody's wall.
    pub fn wall(&self) -> UnixSecs {
        UnixSecs(BEGINNING + self.now / 1000)
    }

    /// A node comes, and runs.
    pub fn add(&mut self, replica: Replica) -> usize {
        let at = self.members.len();
        let key = replica.my_key();
        self.keys.insert(key, at);
        self.members.push(Member {
            view: View::new(key, self.rng.number()),
            replica,
            links: BTreeSet::new(),
            dials: BTreeSet::new(),
            known: 0,
            is_up: true,
            side: 0,
            sent: 0,
        });
        let tick = self.now + self.rng.below(TICK_MILLIS);
        self.schedule(tick, Event::Tick(at));
        at
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.queue.insert((at, self.number), event);
    }

    /// Goes on until a time, or until `done`, which is asked now and then.
    pub fn run(&mut self, until: u64, mut done: impl FnMut(&mut Self) -> bool) {
        let mut looks_at = self.now;
        while let Some(next) = self.queue.first_entry() {
            let at = next.key().0;
            if at > until {
                break;
            }
            let event = next.remove();
            if at >= looks_at {
                if done(self) {
                    return;
                }
                looks_at = at + 10;
            }
            self.now = at;
            self.happens(event);
        }
        self.now = until;
        done(self);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Tick(at) => {
                let tick = self.now + TICK_MILLIS;
                self.schedule(tick, Event::Tick(at));
                if self.members[at].is_up {
                    self.tell_members(at);
                    self.step_view(at, view::Input::Tick);
                    self.step(at, Input::Tick);
                }
            }
            Event::Arrives(from, to, message) => {
                if self.is_linked(from, to) && self.reaches(from, to) {
                    self.receive(from, to, &message);
                }
            }
            Event::Dialled(from, to) => self.dialled(from, to),
            Event::Failed(at, peer) => {
                let from = self.key(peer);
                if self.members[at].is_up {
                    self.step(at, Input::AskFailed { from });
                }
            }
            Event::Lost(at, peer) => self.lost(at, peer),
        }
    }

    fn is_linked(&self, a: usize, b: usize) -> bool {
        self.members[a].links.contains(&b) && self.members[b].links.contains(&a)
    }

    fn reaches(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.members[a], &self.members[b]);
        a.is_up && b.is_up && a.side == b.side
    }

    fn receive(&mut self, from: usize, to: usize, message: &Message) {
        let key = self.members[from].replica.my_key();
        let input = match message {
            Message::Announced(announcement) => Input::Announced {
                via: key,
                announcement: announcement.clone(),
            },
            Message::Asked(request) => Input::Asked {
                from: key,
                request: request.clone(),
                reply: from as u64,
            },
            Message::Answered(page) => Input::Answered {
                from: key,
                page: page.clone(),
            },
        };
        self.step(to, input);
    }

    /// Gives a node's replica an input.
    pub fn step(&mut self, at: usize, input: Input) {
        let mut out = vec![];
        let (wall, now) = (self.wall(), self.now);
        let replica = &mut self.members[at].replica;
        replica.step(wall, now, input, &mut out);
        self.carry(at, out);
    }

    /// Carries out what a node's replica wants.
    pub fn carry(&mut self, at: usize, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Announce(announcement) => self.gossip(at, None, announcement),
                Output::PassOn {
                    not_to,
                    announcement,
                } => self.gossip(at, not_to, announcement),
                Output::Ask { to, request } => {
                    let bytes = encode(&request).len();
                    let to = self.keys[&to];
                    self.send(at, to, bytes, &Rc::new(Message::Asked(request)));
                }
                Output::Answer { reply, page } => {
                    let bytes = encode(&page).len();
                    let to = usize::try_from(reply).expect("it was a node's index");
                    self.send(at, to, bytes, &Rc::new(Message::Answered(page)));
                }
                Output::Changed(changed) if changed.ledger => self.tell_members(at),
                Output::Blame { peer, fault } => {
                    let peer = self.keys[&peer];
                    let text = format!("node {at} blames node {peer}, which {fault}");
                    self.blamed.push(text);
                }
                Output::Raise(alarm) => self.blamed.push(format!("node {at}: {alarm:?}")),
                // Everybody knows everybody, or hears of a joiner from who enrolled it.
                Output::Store(_)
                | Output::Changed(_)
                | Output::Introduce { .. }
                | Output::AnswerEnrol { .. } => {}
            }
        }
    }

    fn gossip(&mut self, at: usize, not_to: Option<PublicKey>, announcement: Announcement) {
        let bytes = encode(&announcement).len();
        let message = Rc::new(Message::Announced(announcement));
        let not_to = not_to.map(|key| self.keys[&key]);
        for to in self.members[at].links.clone() {
            if Some(to) != not_to {
                self.send(at, to, bytes, &message);
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: usize, message: &Rc<Message>) {
        if !self.members[from].links.contains(&to) {
            return;
        }
        self.members[from].sent += bytes as u64;
        if !self.rng.happens(LOST_PER_MILLE) {
            let at = self.now + DELAY_MILLIS;
            return self.schedule(at, Event::Arrives(from, to, message.clone()));
        }
        let later = self.now + ANSWER_MILLIS;
        match **message {
            Message::Announced(_) => {}
            Message::Asked(_) => self.schedule(later, Event::Failed(from, to)),
            Message::Answered(_) => self.schedule(later, Event::Failed(to, from)),
        }
    }

    /// Tells a node's view who is a member, if its ledger has grown.
    fn tell_members(&mut self, at: usize) {
        let wall = self.wall();
        let member = &mut self.members[at];
        let replica = &member.replica;
        let reports = replica.reports().len();
        let known = replica.ledger().len() + reports;
        if std::mem::replace(&mut member.known, known) == known {
            return;
        }
        let authority = replica.authority();
        let members = authority.members();
        // Who has reported has said where it is. A joiner was told where the founder is.
        let told = replica.ledger().len() < 10;
        let members = members
            .filter(|member| authority.admits(wall, &member.key))
            .map(|member| {
                (
                    member.key,
                    told || replica.reports().get(&member.id).is_some(),
                )
            })
            .collect();
        self.step_view(at, view::Input::Members(members));
    }

    fn step_view(&mut self, at: usize, input: view::Input) {
        let mut out = vec![];
        let now = self.now;
        self.members[at].view.step(now, input, &mut out);
        for output in out {
            if let view::Output::Close(peer) = output {
                let peer = self.keys[&peer];
                self.drop_link(at, peer);
                let when = self.now + DELAY_MILLIS;
                self.schedule(when, Event::Lost(peer, at));
            }
        }
        self.dial(at);
    }

    fn drop_link(&mut self, at: usize, peer: usize) -> bool {
        let key = self.members[peer].replica.my_key();
        let had = self.members[at].links.remove(&peer);
        if had {
            self.step(at, Input::Disconnected(key));
        }
        had
    }

    fn dial(&mut self, at: usize) {
        let member = &self.members[at];
        let wanted = member.view.wanted().iter().map(|key| self.keys[key]);
        let new = wanted.filter(|to| !member.links.contains(to) && !member.dials.contains(to));
        let room = MAX_DIALS.saturating_sub(member.dials.len());
        let new: Vec<usize> = new.take(room).collect();
        for to in new {
            self.members[at].dials.insert(to);
            let is_silent = self.members[to].side != self.members[at].side;
            let millis = if is_silent {
                DIAL_TIMEOUT_MILLIS
            } else {
                DIAL_MILLIS
            };
            self.schedule(self.now + millis, Event::Dialled(at, to));
        }
    }

    fn dialled(&mut self, from: usize, to: usize) {
        if !self.members[from].dials.remove(&to) || !self.members[from].is_up {
            return;
        }
        let (caller, called) = (self.key(from), self.key(to));
        let wall = self.wall();
        let admits = self.members[to].replica.authority().admits(wall, &caller);
        if !self.reaches(from, to) || !admits {
            return self.step_view(from, view::Input::DialFailed(called));
        }
        for (at, peer, key) in [(from, to, called), (to, from, caller)] {
            let is_inbound = at == to;
            if self.members[at].links.insert(peer) {
                let links = self.members[at].links.len();
                self.most_links = self.most_links.max(links);
                self.step(at, Input::Connected(key));
                let peer = key;
                self.step_view(at, view::Input::Connected { peer, is_inbound });
            }
        }
    }

    fn lost(&mut self, at: usize, peer: usize) {
        if self.members[at].is_up && self.drop_link(at, peer) {
            let key = self.key(peer);
            self.step_view(at, view::Input::Disconnected(key));
        }
    }

    fn key(&self, at: usize) -> PublicKey {
        self.members[at].replica.my_key()
    }

    /// Puts nodes on a side of the cut, or takes the cut away: what goes over it dies,
    /// which either end notices later.
    pub fn divide(&mut self, side: impl Fn(usize) -> u8) {
        for at in 0..self.members.len() {
            self.members[at].side = side(at);
        }
        for at in 0..self.members.len() {
            for peer in self.members[at].links.clone() {
                if self.members[peer].side != self.members[at].side {
                    let when = self.now + 1 + self.rng.below(SILENCE_MILLIS);
                    self.schedule(when, Event::Lost(at, peer));
                }
            }
        }
    }

    /// A node stops. Its peers notice.
    pub fn stop(&mut self, at: usize) {
        self.members[at].is_up = false;
        self.members[at].dials.clear();
        for peer in std::mem::take(&mut self.members[at].links) {
            let key = self.key(peer);
            self.step(at, Input::Disconnected(key));
            self.schedule(self.now + DELAY_MILLIS, Event::Lost(peer, at));
        }
    }

    /// A node that stopped comes back with what it had stored.
    pub fn start(&mut self, at: usize) {
        let seed = self.rng.number();
        let member = &mut self.members[at];
        member.view = View::new(member.replica.my_key(), seed);
        member.known = 0;
        member.is_up = true;
    }

    /// Gives a node what time has brought it, connected as it is.
    pub fn replace(&mut self, at: usize, replica: Replica) {
        self.members[at].replica = replica;
        for peer in self.members[at].links.clone() {
            let key = self.key(peer);
            self.step(at, Input::Connected(key));
        }
    }

    /// Whether every node that runs holds the same as the first of them.
    pub fn is_level(&self) -> bool {
        let mut heads = self.members.iter().filter(|member| member.is_up);
        let Some(first) = heads.next().map(|member| member.replica.heads()) else {
            return true;
        };
        heads.all(|member| member.replica.heads() == first)
    }
}
