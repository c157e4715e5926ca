//! The replica's side of the engine: carrying out what it decides, and taking what
//! the network brings for it.

use super::events::Progressed;
use super::offences::{MAX_OFFENCES, PAUSE_MILLIS, WINDOW_MILLIS};
use super::{Engine, Message};
use crate::net::{Event, FrameError, Refusal, RequestError};
use codec::{DecodeError, Wire};
use keys::signed::Rejected;
use keys::{PublicKey, Signed, UnixSecs};
use libp2p::Multiaddr;
use mesh::{Announcement, DeniedCode, EnrolReply, EnrolRequest, Input, Output, Page, Request};
use roles::Note;
use std::collections::{BTreeMap, BTreeSet};

/// How long a peer that is not admitted any more stays connected: it is to hear of its
/// revocation, and stop by itself. No block moves meanwhile, and its gossip is refused.
const FAREWELL_MILLIS: u64 = 1_000;
/// What nodes tell each other without being asked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Gossip {
    /// What is new in ledger, logs and reports.
    News(Announcement),
    /// Live figures, sealed by the agent that they are of.
    Progress(Signed),
}

impl Wire for Gossip {
    const NAME: &'static str = "gossip";
    const VERSION: u8 = 1;
    const LIMIT: usize = crate::net::GOSSIP_LIMIT;
}

/// Answers that may be owed to peers at once.
pub(super) const MAX_REPLIES: usize = 256;

impl Engine {
    pub(super) fn step_replica(&mut self, input: Input) {
        let now = self.now();
        let mut out = vec![];
        self.replica
            .step(now.wall, now.mono_millis, input, &mut out);
        let may_write = self.replica.may_write();
        let changed = |heard: &mut bool| std::mem::replace(heard, may_write) != may_write;
        self.heard.send_if_modified(changed);
        self.carry(out);
    }

    /// Carries out what the replica decided, in order. After a failed store nothing
    /// more is carried out: the node is about to stop.
    pub(super) fn carry(&mut self, out: Vec<Output>) {
        let mut changed = mesh::Changed::default();
        for output in out {
            if self.fatal.is_some() {
                return;
            }
            match output {
                Output::Store(records) => {
                    let stored = self.store.put_records(&records);
                    self.must(stored);
                }
                Output::Announce(news) => self.gossip(&Gossip::News(news), None),
                Output::PassOn {
                    not_to,
                    announcement,
                } => self.gossip(&Gossip::News(announcement), not_to),
                Output::Ask { to, request } => self.ask(to, &request),
                Output::Introduce { to, request } => self.introduce(to, &request),
                Output::Answer { reply, page } => self.reply(reply, &page),
                Output::AnswerEnrol { reply, answer } => self.reply(reply, &answer),
                Output::Changed(what) => {
                    changed.ledger |= what.ledger;
                    changed.plan |= what.plan;
                    changed.reports |= what.reports;
                }
                Output::Raise(alarm) => self.raise(&alarm),
                Output::Blame { peer, fault } => {
                    let text = format!("peer {} {fault}; it was refused", self.name_of(&peer));
                    self.offended(peer, text);
                }
            }
        }
        if changed.ledger {
            self.authority_changed();
        }
        if changed.plan {
            self.tell_conflicts();
        }
        if changed.reports {
            self.keep_provisioned_proofs();
        }
        if changed.ledger || changed.reports {
            self.refresh_addresses();
        }
        if changed.ledger || changed.plan || changed.reports {
            self.refresh_partners();
        }
        if changed != mesh::Changed::default() {
            self.settle();
        }
    }

    pub(super) fn gossip(&mut self, gossip: &Gossip, not_to: Option<PublicKey>) {
        let not_to = not_to.map(|key| key.0);
        match codec::encode(gossip) {
            Ok(bytes) => {
                let known = not_to.is_some_and(|key| self.connected.contains(&PublicKey(key)));
                let hearers = self.connected.len() - usize::from(known);
                let sent = bytes.len() as u64 * hearers as u64;
                match self.net.gossip(bytes, not_to) {
                    Ok(()) => self.measured.traffic.gossip_sent_bytes += sent,
                    Err(error) => tracing::warn!("gossip was not sent: {error}"),
                }
            }
            Err(error) => tracing::warn!("gossip was not sent: {error}"),
        }
    }

    fn ask(&mut self, to: PublicKey, request: &Request) {
        let Ok(bytes) = codec::encode(request) else {
            return self.step_replica(Input::AskFailed { from: to });
        };
        self.measured.traffic.asked += 1;
        let (net, inbox) = (self.net.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let answer = net.request(to.0, bytes).await;
            // A closed inbox means the node is stopping.
            let _ = inbox.send(Message::Answered(to, answer)).await;
        });
    }

    /// Shows a peer what makes this node one. If it takes it, it lets this node in when
    /// it is dialled again; if not, nothing is lost.
    fn introduce(&self, to: PublicKey, request: &EnrolRequest) {
        let Ok(bytes) = codec::encode(request) else {
            return;
        };
        let (net, inbox) = (self.net.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let answer = net.enrol(vec![], to.0, bytes).await;
            let answer = answer.map_err(|error| error.to_string());
            let reply = answer.and_then(|bytes| {
                codec::decode::<EnrolReply>(&bytes).map_err(|error| error.to_string())
            });
            tracing::debug!("introduced to {}: {reply:?}", to.short());
            let code = DeniedCode::KeyRevoked;
            if reply == Ok(EnrolReply::Denied { code }) {
                // A closed inbox means the node is stopping.
                let _ = inbox.send(Message::SaidRevoked(to)).await;
            }
        });
    }

    /// Who was away when it was revoked does not hear of it by itself: nobody talks to it.
    /// What one peer says proves nothing, and is for people alone.
    pub(super) fn said_revoked(&mut self, by: PublicKey) {
        let admitted = self
            .replica
            .authority()
            .admits(self.now().wall, &self.replica.my_key());
        if !admitted || self.said_revoked.replace(by).is_some() {
            return;
        }
        let text = format!(
            "{} says that this node was revoked, and does not talk to it any more: ask an operator; a node that was revoked joins again in a new folder",
            self.name_of(&by)
        );
        self.tell(None, Note::warn("said-revoked", text));
    }

    pub(super) fn answered(&mut self, from: PublicKey, answer: Result<Vec<u8>, RequestError>) {
        let bytes = answer.as_ref().map_or(0, |bytes| bytes.len() as u64);
        self.measured.traffic.answer_bytes += bytes;
        let (why, is_malformed) = match answer {
            Ok(bytes) => match codec::decode::<Page>(&bytes) {
                Ok(page) => {
                    // Nobody answers a node that was revoked.
                    self.said_revoked = None;
                    return self.step_replica(Input::Answered { from, page });
                }
                Err(error) => (error.to_string(), is_malformed(&error)),
            },
            Err(error) => (error.to_string(), is_oversized(&error)),
        };
        self.measured.traffic.unanswered += 1;
        tracing::debug!("sync with {}: {why}", from.short());
        if is_malformed {
            let text = format!("answer of {} refused: {why}", self.name_of(&from));
            self.offended(from, text);
        }
        self.step_replica(Input::AskFailed { from });
    }

    fn reply<T: Wire>(&mut self, reply: u64, answer: &T) {
        let Some(reply) = self.replies.remove(&reply) else {
            return;
        };
        match codec::encode(answer) {
            Ok(bytes) => {
                if let Err(error) = reply.send(bytes) {
                    tracing::warn!("an answer was not sent: {error}");
                }
            }
            Err(error) => tracing::warn!("an answer was not sent: {error}"),
        }
    }

    /// Takes one event of the network.
    pub(super) fn network(&mut self, event: Event) {
        match event {
            Event::Listening(address) => {
                self.listening.push(address.to_string());
                self.report.soon();
            }
            Event::Connected(peer) => {
                let peer = PublicKey(peer);
                self.connected.insert(peer);
                let text = format!("connected to {}", self.name_of(&peer));
                self.tell_here_of(&peer, Note::info("peer-connected", text));
                self.step_replica(Input::Connected(peer));
                self.settle();
            }
            Event::Disconnected(peer) => {
                let peer = PublicKey(peer);
                self.connected.remove(&peer);
                let text = format!("the connection to {} is gone", self.name_of(&peer));
                self.tell_here_of(&peer, Note::info("peer-disconnected", text));
                self.step_replica(Input::Disconnected(peer));
                self.settle();
            }
            Event::EnrolRequest {
                peer,
                request,
                reply,
            } => {
                let Ok(request) = codec::decode::<EnrolRequest>(&request) else {
                    let text = format!(
                        "{} sent a malformed enrolment request",
                        PublicKey(peer).short()
                    );
                    // A stranger's garbage is not worth a place in the event log.
                    return tracing::debug!("{text}");
                };
                self.enrol(PublicKey(peer), request, reply);
            }
            Event::SyncRequest {
                peer,
                request,
                reply,
            } => self.asked(PublicKey(peer), &request, reply),
            Event::Gossip { peer, bytes } => self.gossiped(PublicKey(peer), &bytes),
            Event::Stream { peer, stream } => self.stream_opened(PublicKey(peer), stream),
            Event::Refused { peer, what } => {
                match what {
                    Refusal::TooManyStreams { .. } => self.measured.traffic.refused_streams += 1,
                    Refusal::Frame { .. } | Refusal::Gossip(_) => {
                        self.measured.traffic.refused_frames += 1;
                    }
                }
                let peer = PublicKey(peer);
                let text = format!("{}: {what}", self.name_of(&peer));
                match what {
                    Refusal::Frame {
                        error: FrameError::Oversized { .. },
                        ..
                    }
                    | Refusal::Gossip(FrameError::Oversized { .. }) => self.offended(peer, text),
                    // A connection may break inside a frame.
                    _ => self.tell_of(&peer, None, Note::warn("peer-refused", text)),
                }
            }
        }
    }

    fn asked(&mut self, from: PublicKey, request: &[u8], reply: crate::net::Reply) {
        let admitted = self.replica.authority().admits(self.now().wall, &from);
        // One that is leaving is told why.
        if !admitted && !self.leaving.contains_key(&from) {
            return;
        }
        let request = match codec::decode::<Request>(request) {
            Ok(request) => request,
            Err(error) => return self.undecodable(from, &error),
        };
        if let Some(reply) = self.owe(reply) {
            self.step_replica(Input::Asked {
                from,
                request,
                reply,
            });
            // What was not answered is refused, and owed no more.
            self.replies.remove(&reply);
        }
    }

    /// Bytes of a peer that do not decode: its fault, unless its program is another.
    pub(super) fn undecodable(&mut self, from: PublicKey, error: &DecodeError) {
        let text = format!("{}: {error}", self.name_of(&from));
        if is_malformed(error) {
            self.offended(from, text);
        } else {
            self.tell_of(&from, None, Note::warn("peer-refused", text));
        }
    }

    /// A peer sent what no honest node sends. Too many of these cost it its place.
    pub(super) fn offended(&mut self, peer: PublicKey, text: String) {
        self.measured.traffic.refused_messages += 1;
        self.tell_of(&peer, None, Note::warn("peer-refused", text));
        let now = self.now().mono_millis;
        // Strangers have no place to lose.
        if !self.admitted.contains(&peer) || !self.offences.count(now, peer) {
            return;
        }
        let text = format!(
            "{} sent {MAX_OFFENCES} forged or malformed messages within {} minutes; it is shut out for {} minutes: find out why, and revoke it with `dunlin node revoke` if it is not yours any more",
            self.name_of(&peer),
            WINDOW_MILLIS / 60_000,
            PAUSE_MILLIS / 60_000,
        );
        self.tell(None, Note::error("peer-shut-out", text));
        self.let_in();
    }

    /// Lets those in again whose pause is over.
    pub(super) fn end_pauses(&mut self) {
        let now = self.now().mono_millis;
        let back = self.offences.over(now);
        for peer in &back {
            let text = format!("{} may connect again", self.name_of(peer));
            self.tell(None, Note::info("peer-let-in", text));
        }
        if !back.is_empty() {
            self.let_in();
        }
    }

    fn enrol(&mut self, from: PublicKey, request: EnrolRequest, reply: crate::net::Reply) {
        let mut nonce = [0; 32];
        if let Err(error) = getrandom::fill(&mut nonce) {
            self.fatal = Some(anyhow::anyhow!("no random bytes from the system: {error}"));
            return;
        }
        let before = self.replica.authority().admits(self.now().wall, &from);
        let introduced = matches!(request, EnrolRequest::Introduce { .. });
        if let Some(reply) = self.owe(reply) {
            self.step_replica(Input::Enrol {
                from,
                request,
                nonce,
                reply,
            });
        }
        if !before && self.replica.authority().admits(self.now().wall, &from) {
            let name = self.name_of(&from);
            let note = if introduced {
                let text = format!("{name} showed that it is a node");
                Note::info("node-introduced", text)
            } else {
                self.enrolled_note(&from)
            };
            self.tell(None, note);
        }
    }

    /// What is told of a joiner. Names need not differ: only ids tell two of one name
    /// apart, which people should know before they mean one of them.
    fn enrolled_note(&self, joiner: &PublicKey) -> Note {
        let authority = self.replica.authority();
        let text = format!("{} joined with an invite", self.name_of(joiner));
        let namesake = authority.by_key(joiner).and_then(|joined| {
            let mut members = authority.members();
            members.find(|member| {
                member.name == joined.name
                    && member.id != joined.id
                    && member.standing == keys::Standing::Active
            })
        });
        match (namesake, authority.by_key(joiner)) {
            (Some(namesake), Some(joined)) => {
                let text = format!(
                    "{text} under the name that node {} has as well: mean them by their ids, this one is {}; or revoke one of the two, and let it join again under another",
                    namesake.id.short(),
                    joined.id.short()
                );
                Note::warn("node-enrolled", text)
            }
            _ => Note::info("node-enrolled", text),
        }
    }

    fn owe(&mut self, reply: crate::net::Reply) -> Option<u64> {
        if self.replies.len() >= MAX_REPLIES {
            return None;
        }
        let number = self.number();
        self.replies.insert(number, reply);
        Some(number)
    }

    /// Takes gossip. Honest nodes pass on only what they have checked, so who sent it
    /// answers for it, whoever made it.
    pub(super) fn gossiped(&mut self, from: PublicKey, bytes: &[u8]) {
        self.measured.traffic.gossip_heard_bytes += bytes.len() as u64;
        // Its connection may outlive its enrolment by a moment.
        if !self.replica.authority().admits(self.now().wall, &from) {
            return;
        }
        match codec::decode::<Gossip>(bytes) {
            Ok(Gossip::News(announcement)) => self.step_replica(Input::Announced {
                via: from,
                announcement,
            }),
            Ok(Gossip::Progress(signed)) => match Progressed::open(&signed) {
                Ok(progressed) => {
                    if self.progressed(signed.signer, progressed) {
                        self.gossip(&Gossip::Progress(signed), Some(from));
                    }
                }
                Err(Rejected::Body(error)) => self.undecodable(from, &error),
                Err(error) => {
                    let text = format!("{}: {error}", self.name_of(&from));
                    self.offended(from, text);
                }
            },
            Err(error) => self.undecodable(from, &error),
        }
    }

    /// The enrolled set may have changed: who may connect, and what may flow.
    pub(super) fn authority_changed(&mut self) {
        let wall = self.now().wall;
        let authority = self.replica.authority();
        let me = self.replica.my_key();
        let admitted: BTreeSet<PublicKey> = authority
            .members()
            .filter(|member| member.key != me && authority.admits(wall, &member.key))
            .map(|member| member.key)
            .collect();
        let until = self.now().mono_millis + FAREWELL_MILLIS;
        let left = self.admitted.difference(&admitted);
        self.leaving.extend(left.map(|key| (*key, until)));
        self.leaving.retain(|key, _| !admitted.contains(key));
        let ends = admitted
            .iter()
            .filter_map(|key| authority.by_key(key)?.not_after);
        self.next_expiry = ends.min().unwrap_or(UnixSecs(u64::MAX));
        self.admitted = admitted;
        self.let_in();
        self.recheck_permits();
        self.refresh_addresses();
        self.refresh_partners();
        self.report.soon();
    }

    pub(super) fn let_in(&self) {
        let allowed = self.admitted.iter().chain(self.leaving.keys());
        let allowed = allowed.filter(|key| !self.offences.is_out(key));
        self.net.allow(allowed.map(|key| key.0).collect());
    }

    /// Parts from those whose enrolment has ended: no statement says so when it does.
    pub(super) fn part_from_expired(&mut self) {
        if self.now().wall >= self.next_expiry {
            self.authority_changed();
        }
    }

    /// Closes the connections of those whose farewell is over.
    pub(super) fn part_from_leaving(&mut self) {
        let now = self.now().mono_millis;
        let before = self.leaving.len();
        self.leaving.retain(|_, until| now < *until);
        if self.leaving.len() < before {
            self.let_in();
        }
    }

    /// Where every node says it listens, and what this node was told when it joined.
    fn refresh_addresses(&mut self) {
        let mut addresses: BTreeMap<[u8; 32], Vec<Multiaddr>> = BTreeMap::new();
        let wall = self.now().wall;
        let authority = self.replica.authority();
        for member in authority.members() {
            if member.key == self.replica.my_key() || !authority.admits(wall, &member.key) {
                continue;
            }
            let reported = self.replica.reports().get(&member.id);
            let listed = reported.into_iter().flat_map(|report| report.listen.iter());
            let told = self.config.told_addresses(&member.key);
            let known: Vec<Multiaddr> = listed
                .chain(told)
                .filter_map(|address| address.parse().ok())
                .collect();
            if !known.is_empty() {
                addresses.insert(member.key.0, known);
            }
        }
        self.net.set_addresses(addresses);
    }

    /// With whom this node has work in common that goes on: they are dialled whoever else
    /// is.
    fn refresh_partners(&mut self) {
        let Some(situation) = self.situation() else {
            return;
        };
        let partners = situation.partners().into_iter().map(|key| key.0).collect();
        self.net.set_partners(partners);
    }

    pub(super) fn name_of(&self, key: &PublicKey) -> String {
        let member = self.replica.authority().by_key(key);
        member.map_or_else(|| key.short(), |member| member.name.to_string())
    }
}

/// Whether no honest node of this version sends such bytes.
fn is_malformed(error: &DecodeError) -> bool {
    !matches!(error, DecodeError::Version { .. })
}

fn is_oversized(error: &RequestError) -> bool {
    matches!(
        error,
        RequestError::Malformed {
            error: FrameError::Oversized { .. },
            ..
        }
    )
}
