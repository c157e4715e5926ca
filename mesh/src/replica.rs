//! One node's copy of what the mesh agrees on, and how it is kept the same as
//! everybody's: what to store, whom to ask, what to tell.
//!
//! Announcements carry small news at once, and whoever finds something new in one
//! passes it on; anti-entropy closes every gap they leave, with one peer at a time.
//! Not here: which peers to connect to (`view`), and what the roles do with what is
//! agreed.

mod absorb;
mod admit;
mod answering;
mod asking;
mod cloned;
mod local;
mod own;
mod pace;
mod supposing;

pub use asking::{ANSWER_MILLIS, ASK_AGAIN_MILLIS, ASK_MILLIS, MAX_ASKING};
pub use cloned::Fork;
pub use local::{Founding, Recovering, StateError};
pub use pace::BYTES_PER_SEC as REPORT_BYTES_PER_SEC;
pub use supposing::Supposed;

use crate::enrol::{Admission, EnrolReply, EnrolRequest};
use crate::sync::{Announcement, Heads, Page, Request};
use absorb::News;
use asking::{Heard, Peer};
use crdt::{Document, EntryId, Evidence, Forked, Reports, Saving, SignedChange};
use keys::{Authority, Identity, Ledger, NodeId, PublicKey, Signed, UnixSecs};
use own::Own;
use pace::Pace;
use std::collections::{BTreeMap, BTreeSet};

/// Statements kept until what they need arrives.
pub const MAX_PARKED: usize = 1024;
/// Of these, such as came from one peer: it leaves room for the others.
pub const MAX_PARKED_OF_PEER: usize = 512;

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
    /// Proof of a fork, in the place of another of the same node's reports or author's
    /// changes.
    Evidence(Forked, Evidence),
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
    /// A key is in two places. Raised once for each way in which it shows.
    Cloned {
        /// The key.
        key: PublicKey,
        /// By what it shows.
        fork: Fork,
    },
    /// An operator signed a change that breaks the document's rules; it was not taken.
    BrokenChange(crdt::Refusal),
    /// A key gave its node two different next keys.
    ContestedKey {
        /// The node.
        node: NodeId,
    },
    /// Changes of other authors that counted no longer do; their authors make them again,
    /// those that still can.
    Orphaned {
        /// How many.
        changes: usize,
        /// How many of them have an author that is no operator any more.
        lost: usize,
    },
    /// Edits of this node lost what they depend on, and were made again where they
    /// still apply.
    MadeAgain {
        /// What they are about.
        made: Vec<EntryId>,
        /// Of what an edit could not be made again.
        lost: Vec<EntryId>,
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
        /// Who sent it: is asked for what it leaves out, and blamed for what is false,
        /// as honest nodes pass on only what they have checked.
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
    /// Tell all connected peers.
    Announce(Announcement),
    /// Tell them what others made, and was new here.
    PassOn {
        /// Who has it already.
        not_to: Option<PublicKey>,
        /// What.
        announcement: Announcement,
    },
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
    /// Ask a peer that does not answer, over enrolment, to take note of this node: it
    /// may not know its key yet. Its answer is of no consequence.
    Introduce {
        /// Whom.
        to: PublicKey,
        /// The introduction.
        request: EnrolRequest,
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
    /// How many statements the ledger held when the parked ones were last tried.
    parked_at: usize,
    admission: Admission,
    peers: BTreeMap<PublicKey, Peer>,
    /// Version of this node's newest report, with whichever key it was signed.
    published: u64,
    own: Own,
    pace: Pace,
    /// When reports are to be looked through for those of members whose time is over.
    next_expiry: UnixSecs,
    /// Forks that people were told of.
    alarmed: BTreeSet<(PublicKey, u8)>,
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
            forks: self.forks_digest(),
        }
    }

    /// Takes one input; outputs are appended to `out`, to be carried out in order.
    /// `wall` is for expiry, `mono_millis` for waiting.
    pub fn step(&mut self, wall: UnixSecs, mono_millis: u64, input: Input, out: &mut Vec<Output>) {
        self.own.since.get_or_insert(wall);
        self.pace.at(mono_millis);
        self.take(wall, mono_millis, input, out);
        self.hear(mono_millis);
        self.make_again(wall, out);
    }

    fn take(&mut self, wall: UnixSecs, mono_millis: u64, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Connected(peer) => {
                self.came(mono_millis, peer);
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
                    evidence,
                } = announcement;
                let news = News {
                    statements,
                    changes,
                    reports,
                    evidence,
                };
                if let Some(fresh) = self.absorb(wall, via, news, out) {
                    let not_to = Some(via);
                    let announcement = fresh.cut();
                    out.push(Output::PassOn {
                        not_to,
                        announcement,
                    });
                }
                self.heard_heads(mono_millis, &via, heads);
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
                let page = self.page(&from, &request);
                out.push(Output::Answer { reply, page });
                self.heard_heads(mono_millis, &from, request.heads);
            }
            Input::Answered { from, page } => self.answered(wall, mono_millis, from, page, out),
            Input::AskFailed { from } => {
                self.unanswered(mono_millis, &from);
                self.introduce(mono_millis, from, out);
                self.ask_due(mono_millis, out);
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
                if let Some(fresh) = self.absorb(wall, from, news, out) {
                    let announcement = fresh.cut();
                    out.push(Output::PassOn {
                        not_to: Some(from),
                        announcement,
                    });
                }
            }
            Input::Tick => {
                self.expire(wall);
                self.ask_due(mono_millis, out);
            }
        }
    }

    /// Forgets the reports of members whose enrolment has ended: no statement says so when
    /// it does, and nobody else has them any more.
    fn expire(&mut self, wall: UnixSecs) {
        if wall < self.next_expiry {
            return;
        }
        self.reports.drop_departed(&self.authority, wall);
        let ends = self
            .authority
            .members()
            .filter_map(|member| member.not_after);
        let next = ends.filter(|end| *end > wall).min();
        self.next_expiry = next.unwrap_or(UnixSecs(u64::MAX));
    }

    fn answered(
        &mut self,
        wall: UnixSecs,
        mono_millis: u64,
        from: PublicKey,
        mut page: Page,
        out: &mut Vec<Output>,
    ) {
        let heard = Heard::of(&mut page);
        let Page {
            heads, more, yours, ..
        } = page;
        let news = News {
            statements: page.statements,
            changes: page.changes,
            reports: page.reports,
            evidence: page.evidence,
        };
        let fresh = self.absorb(wall, from, news, out);
        let progressed = fresh.is_some();
        // While more is to come it would be told of again.
        if let Some(fresh) = fresh.filter(|_| !more) {
            // Who answered lacks something itself unless it holds the same now.
            let not_to = (heads == fresh.heads).then_some(from);
            let announcement = fresh.cut();
            out.push(Output::PassOn {
                not_to,
                announcement,
            });
        }
        let met = self.holds(&yours);
        self.heard_page(mono_millis, &from, &heard, progressed, met);
        self.ask_due(mono_millis, out);
    }
}

#[cfg(test)]
mod tests;
