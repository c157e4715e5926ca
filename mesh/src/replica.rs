//! One node's copy of what the mesh agrees on, and how it is kept the same as
//! everybody's: what to store, whom to ask, what to tell.
//!
//! Announcements carry small news at once; anti-entropy closes every gap they
//! leave, with one peer at a time. Not here: which peers to connect to, and what
//! the roles do with what is agreed.

mod absorb;
mod local;

pub use local::{Founding, StateError};

use crate::enrol::{Admission, Decision, DeniedCode, EnrolReply, EnrolRequest, chain_of};
use crate::sync::{Announcement, Heads, MAX_LISTED, PAGE_BYTES, Page, Request};
use absorb::News;
use crdt::{Compared, Document, Reports, Saving, SignedChange};
use keys::{Authority, Identity, Ledger, NodeId, PublicKey, Signed, Statement, UnixSecs};
use std::collections::BTreeMap;

/// How often a peer with equal or unknown heads is asked.
pub const ASK_MILLIS: u64 = 10_000;
/// How often a peer whose heads differ is asked when the last answer brought nothing.
pub const ASK_AGAIN_MILLIS: u64 = 2_000;
/// How long an answer may take.
pub const ANSWER_MILLIS: u64 = 30_000;
/// Questions that may be open at once.
pub const MAX_ASKING: usize = 4;
/// Statements kept until what they need arrives.
pub const MAX_PARKED: usize = 1024;

/// Something to make durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A ledger entry.
    Statement(Signed),
    /// A document change, under its author and its number in the author's log; a later
    /// one under the same number takes its place.
    Change(u64, SignedChange),
    /// The newest report of a node.
    Report(NodeId, Signed),
}

impl Record {
    fn change((seq, change): (u64, SignedChange)) -> Self {
        Self::Change(seq, change)
    }
}

/// What changed, so that views are made again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// The ledger, and so perhaps the authority.
    pub ledger: bool,
    /// The plan.
    pub plan: bool,
    /// Somebody's report.
    pub reports: bool,
}

/// Something that people must look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// A key made two different statements of one number.
    ForkedStatements {
        /// The key.
        signer: PublicKey,
        /// The number.
        seq: u64,
    },
    /// An author made two different changes of one number.
    ForkedChanges {
        /// The author.
        author: PublicKey,
        /// The number.
        seq: u64,
    },
    /// A node made two different reports of one version.
    ForkedReports {
        /// The node.
        node: NodeId,
    },
    /// Changes that counted no longer do, and their authors may want to make them again.
    Orphaned {
        /// How many.
        changes: usize,
    },
}

/// What the shell saw.
#[derive(Debug)]
pub enum Input {
    /// An enrolled peer connected.
    Connected(PublicKey),
    /// It is gone.
    Disconnected(PublicKey),
    /// Gossip, with the peer to ask for what it does not hold.
    Announced {
        /// Who is asked, and blamed for what is false: its author, or who passed it on.
        via: PublicKey,
        /// What was announced.
        announcement: Announcement,
    },
    /// A peer asks.
    Asked {
        /// Who.
        from: PublicKey,
        /// What for.
        request: Request,
        /// Which question the answer belongs to.
        reply: u64,
    },
    /// A peer answered.
    Answered {
        /// Who.
        from: PublicKey,
        /// With what.
        page: Page,
    },
    /// A peer did not answer.
    AskFailed {
        /// Who.
        from: PublicKey,
    },
    /// A stranger wants to enrol.
    Enrol {
        /// Its key, proven by the transport.
        from: PublicKey,
        /// What it says.
        request: EnrolRequest,
        /// Fresh random bytes.
        nonce: [u8; 32],
        /// Which question the answer belongs to.
        reply: u64,
    },
    /// Statements shown by a peer outside of sync, e.g. with a ticket.
    Shown {
        /// Who.
        from: PublicKey,
        /// The statements.
        statements: Vec<Signed>,
    },
    /// Time passed.
    Tick,
}

/// What the shell is to do, in order.
#[derive(Debug)]
pub enum Output {
    /// Make durable, all or nothing, before anything after it.
    Store(Vec<Record>),
    /// Gossip.
    Announce(Announcement),
    /// Send a question to a peer.
    Ask {
        /// Whom.
        to: PublicKey,
        /// The question.
        request: Request,
    },
    /// Answer a question.
    Answer {
        /// Which.
        reply: u64,
        /// With what.
        page: Page,
    },
    /// Answer a stranger.
    AnswerEnrol {
        /// Which question.
        reply: u64,
        /// With what.
        answer: EnrolReply,
    },
    /// Views are to be made again.
    Changed(Changed),
    /// Tell people.
    Raise(Alarm),
    /// The peer sent what no honest node sends.
    Blame {
        /// Who.
        peer: PublicKey,
        /// What it did.
        fault: &'static str,
    },
}

#[derive(Debug, Default)]
struct Peer {
    heads: Option<Heads>,
    asking_until: Option<u64>,
    ask_after: u64,
    next_bucket: u8,
}

/// One node's replica. See the module's page.
pub struct Replica {
    identity: Identity,
    root: Option<Identity>,
    ledger: Ledger,
    authority: Authority,
    document: Document,
    reports: Reports,
    /// With who sent each, who answers for it.
    parked: Vec<(PublicKey, Signed)>,
    admission: Admission,
    peers: BTreeMap<PublicKey, Peer>,
}

impl Replica {
    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The authority of the ledger.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The master document.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Begins a snapshot of the master document, to be stored beside its logs.
    pub fn save_document(&mut self) -> Saving {
        self.document.save()
    }

    /// The newest report of every node.
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// This node's key.
    pub fn my_key(&self) -> PublicKey {
        self.identity.public()
    }

    /// This node, once its enrolment is in the ledger.
    pub fn me(&self) -> Option<NodeId> {
        self.authority
            .by_key(&self.my_key())
            .map(|member| member.id)
    }

    /// Digests of everything held.
    pub fn heads(&self) -> Heads {
        Heads {
            ledger: self.ledger.digest(),
            logs: self.document.digest(),
            reports: self.reports.digest(),
        }
    }

    /// Takes one input; outputs are appended to `out`, to be carried out in order.
    /// `wall` is for expiry, `mono_millis` for waiting.
    pub fn step(&mut self, wall: UnixSecs, mono_millis: u64, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Connected(peer) => {
                self.peers.entry(peer).or_default().ask_after = mono_millis;
                self.ask_due(mono_millis, out);
            }
            Input::Disconnected(peer) => {
                self.peers.remove(&peer);
            }
            Input::Announced { via, announcement } => {
                let Announcement {
                    heads,
                    statements,
                    changes,
                    reports,
                } = announcement;
                let news = News {
                    statements,
                    changes,
                    reports,
                };
                self.absorb(wall, via, news, out);
                if heads != self.heads()
                    && let Some(peer) = self.peers.get_mut(&via)
                {
                    peer.heads = None;
                    peer.ask_after = peer.ask_after.min(mono_millis + ASK_AGAIN_MILLIS / 4);
                }
                self.ask_due(mono_millis, out);
            }
            Input::Asked {
                from,
                request,
                reply,
            } => {
                if !request.sound() {
                    let fault = "sent an unsound sync request";
                    out.push(Output::Blame { peer: from, fault });
                    return;
                }
                let page = self.page(&request);
                out.push(Output::Answer { reply, page });
            }
            Input::Answered { from, page } => self.answered(wall, mono_millis, from, page, out),
            Input::AskFailed { from } => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.asking_until = None;
                    peer.ask_after = mono_millis + ASK_AGAIN_MILLIS;
                }
            }
            Input::Enrol {
                from,
                request,
                nonce,
                reply,
            } => {
                let answer = self.enrol(wall, from, request, nonce, out);
                out.push(Output::AnswerEnrol { reply, answer });
            }
            Input::Shown { from, statements } => {
                let news = News {
                    statements,
                    ..News::default()
                };
                self.absorb(wall, from, news, out);
            }
            Input::Tick => self.ask_due(mono_millis, out),
        }
    }

    fn answered(
        &mut self,
        wall: UnixSecs,
        mono_millis: u64,
        from: PublicKey,
        page: Page,
        out: &mut Vec<Output>,
    ) {
        let Page {
            heads,
            statements,
            changes,
            reports,
            next_bucket,
        } = page;
        let news = News {
            statements,
            changes,
            reports,
        };
        let progressed = self.absorb(wall, from, news, out);
        let equal = heads == self.heads();
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let other_heads = peer.heads != Some(heads);
        peer.heads = Some(heads);
        peer.asking_until = None;
        peer.next_bucket = next_bucket.unwrap_or(0);
        // Ask again at once only while answers bring something, be it heads not heard of
        // before, so that two nodes that can never agree do not spin.
        peer.ask_after = if equal {
            mono_millis + ASK_MILLIS
        } else if progressed || next_bucket.is_some() || other_heads {
            mono_millis
        } else {
            mono_millis + ASK_AGAIN_MILLIS
        };
        self.ask_due(mono_millis, out);
    }

    fn ask_due(&mut self, mono_millis: u64, out: &mut Vec<Output>) {
        for peer in self.peers.values_mut() {
            if peer.asking_until.is_some_and(|until| mono_millis >= until) {
                peer.asking_until = None;
                peer.ask_after = mono_millis + ASK_AGAIN_MILLIS;
            }
        }
        let asking = self
            .peers
            .values()
            .filter(|peer| peer.asking_until.is_some());
        let mut free = MAX_ASKING.saturating_sub(asking.count());
        let mut due: Vec<(u64, PublicKey)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.asking_until.is_none() && mono_millis >= peer.ask_after)
            .map(|(key, peer)| (peer.ask_after, *key))
            .collect();
        due.sort_unstable();
        for (_, to) in due {
            if free == 0 {
                break;
            }
            free -= 1;
            let peer = &self.peers[&to];
            let request = self.request(peer.heads, peer.next_bucket);
            let peer = self.peers.get_mut(&to).expect("the key came from the map");
            peer.asking_until = Some(mono_millis + ANSWER_MILLIS);
            out.push(Output::Ask { to, request });
        }
    }

    /// When to give [`Input::Tick`] next, on the monotonic clock.
    pub fn deadline_millis(&self) -> Option<u64> {
        let times = self.peers.values();
        times
            .map(|peer| peer.asking_until.unwrap_or(peer.ask_after))
            .min()
    }

    /// Asks for the parts in which a peer's heads differ from ours; for its heads
    /// alone while they are not known.
    fn request(&self, theirs: Option<Heads>, next_bucket: u8) -> Request {
        let Some(theirs) = theirs else {
            return Request::default();
        };
        let ours = self.heads();
        let short = |digest: &[u8; 32]| {
            let mut prefix = [0; 8];
            prefix.copy_from_slice(&digest[..8]);
            prefix
        };
        Request {
            ledger: (theirs.ledger != ours.ledger).then(|| {
                let buckets = self.ledger.buckets().iter().map(short).collect();
                (buckets, next_bucket)
            }),
            logs: (theirs.logs != ours.logs).then(|| {
                let heads = self.document.heads().into_iter();
                heads.take(MAX_LISTED).collect()
            }),
            reports: (theirs.reports != ours.reports).then(|| {
                self.reports
                    .versions()
                    .into_iter()
                    .take(MAX_LISTED)
                    .collect()
            }),
        }
    }

    fn page(&self, request: &Request) -> Page {
        let mut left = PAGE_BYTES;
        let mut page = Page {
            heads: self.heads(),
            statements: vec![],
            changes: vec![],
            reports: vec![],
            next_bucket: None,
        };
        if let Some((theirs, first)) = &request.ledger {
            page.next_bucket = self.add_buckets(theirs, *first, &mut left, &mut page.statements);
        }
        if let Some(theirs) = &request.logs {
            let theirs: BTreeMap<_, _> = theirs.iter().copied().collect();
            for author in self.document.heads().keys() {
                let after = match theirs.get(author) {
                    None => 0,
                    Some(at) => match self.document.compare(author, at) {
                        Compared::Same => continue,
                        // From the beginning, so that the other sees where they part.
                        Compared::Forked => 0,
                        Compared::Ours | Compared::Theirs => at.seq,
                    },
                };
                for change in self.document.entries_after(author, after, left) {
                    left = left.saturating_sub(change.raw.len() + 128);
                    page.changes.push(change);
                }
                if left == 0 {
                    break;
                }
            }
        }
        if let Some(theirs) = &request.reports {
            let theirs: BTreeMap<_, _> = theirs.iter().copied().collect();
            for (node, version) in self.reports.versions() {
                if left == 0 {
                    break;
                }
                if theirs.get(&node).is_none_or(|had| *had < version)
                    && let Some(signed) = self.reports.signed(&node)
                {
                    left = left.saturating_sub(signed.body.len() + 128);
                    page.reports.push(signed.clone());
                }
            }
        }
        page
    }

    /// Adds whole buckets that differ, from `first` on, until the page is full.
    fn add_buckets(
        &self,
        theirs: &[[u8; 8]],
        first: u8,
        left: &mut usize,
        statements: &mut Vec<Signed>,
    ) -> Option<u8> {
        let mut next = None;
        let pairs = theirs.iter().zip(self.ledger.buckets());
        for (bucket, (theirs, ours)) in (0..=u8::MAX).zip(pairs).skip(usize::from(first)) {
            if theirs == &ours[..8] {
                continue;
            }
            if *left == 0 {
                next = Some(bucket);
                break;
            }
            for (_, recorded) in self.ledger.bucket(bucket) {
                *left = left.saturating_sub(recorded.signed.body.len() + 128);
                statements.push(recorded.signed.clone());
            }
        }
        statements.sort_by_key(|signed| self.ledger.rank(&signed.statement_id()));
        next
    }

    fn enrol(
        &mut self,
        wall: UnixSecs,
        from: PublicKey,
        request: EnrolRequest,
        nonce: [u8; 32],
        out: &mut Vec<Output>,
    ) -> EnrolReply {
        let me = self.my_key();
        let decision = self
            .admission
            .step(wall, nonce, me, from, request, &self.authority);
        let busy = EnrolReply::Denied {
            code: DeniedCode::Busy,
        };
        let id = match decision {
            Decision::Reply(reply) => return reply,
            Decision::Again(id) => id,
            Decision::Enrol(enrolment) => {
                match self.state(wall, Statement::Enrolment(*enrolment), out) {
                    Ok(id) => id,
                    Err(_) => return busy,
                }
            }
        };
        let Some(recorded) = self.ledger.get(&id) else {
            return busy;
        };
        EnrolReply::Enrolled {
            enrolment: recorded.signed.clone(),
            chain: chain_of(&self.ledger, &id),
        }
    }
}

#[cfg(test)]
mod tests;
