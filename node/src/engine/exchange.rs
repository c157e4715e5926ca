//! The replica's side of the engine: carrying out what it decides, and taking what
//! the network brings for it.

use super::{Engine, Message};
use crate::net::{Event, Topic};
use codec::Wire;
use keys::PublicKey;
use libp2p::Multiaddr;
use mesh::{Alarm, Announcement, EnrolRequest, Input, Output, Page, Request};
use roles::Note;
use std::collections::{BTreeMap, BTreeSet};

/// How long a peer that is not admitted any more stays connected: it is to hear of its
/// revocation, and stop by itself. No block moves meanwhile, and its gossip is refused.
const FAREWELL_MILLIS: u64 = 1_000;
/// Answers that may be owed to peers at once.
const MAX_REPLIES: usize = 256;

impl Engine {
    pub(super) fn step_replica(&mut self, input: Input) {
        let now = self.now();
        let mut out = vec![];
        self.replica
            .step(now.wall, now.mono_millis, input, &mut out);
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
                Output::Announce(announcement) => self.announce(&announcement),
                // The network passes gossip on by itself.
                Output::PassOn { .. } => {}
                Output::Ask { to, request } => self.ask(to, &request),
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
                    self.tell(None, Note::warn("peer-refused", text));
                }
            }
        }
        if changed.ledger {
            self.authority_changed();
        }
        if changed.reports {
            self.keep_provisioned_proofs();
        }
        if changed.ledger || changed.reports {
            self.refresh_addresses();
        }
        if changed != mesh::Changed::default() {
            self.settle();
        }
    }

    fn announce(&mut self, announcement: &Announcement) {
        match codec::encode(announcement) {
            Ok(bytes) => {
                if let Err(error) = self.net.gossip(Topic::Heads, bytes) {
                    tracing::warn!("an announcement was not sent: {error}");
                }
            }
            Err(error) => tracing::warn!("an announcement was not sent: {error}"),
        }
    }

    fn ask(&mut self, to: PublicKey, request: &Request) {
        let Ok(bytes) = codec::encode(request) else {
            return self.step_replica(Input::AskFailed { from: to });
        };
        let (net, inbox) = (self.net.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let answer = net.request(to.0, bytes).await;
            let answer = answer.map_err(|error| error.to_string());
            // A closed inbox means the node is stopping.
            let _ = inbox.send(Message::Answered(to, answer)).await;
        });
    }

    pub(super) fn answered(&mut self, from: PublicKey, answer: Result<Vec<u8>, String>) {
        let page = answer
            .and_then(|bytes| codec::decode::<Page>(&bytes).map_err(|error| error.to_string()));
        match page {
            Ok(page) => self.step_replica(Input::Answered { from, page }),
            Err(why) => {
                tracing::debug!("sync with {}: {why}", from.short());
                self.step_replica(Input::AskFailed { from });
            }
        }
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
                self.tell(None, Note::info("peer-connected", text));
                self.step_replica(Input::Connected(peer));
                self.settle();
            }
            Event::Disconnected(peer) => {
                let peer = PublicKey(peer);
                self.connected.remove(&peer);
                let text = format!("the connection to {} is gone", self.name_of(&peer));
                self.tell(None, Note::info("peer-disconnected", text));
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
            } => match codec::decode::<Request>(&request) {
                Ok(request) => {
                    if let Some(reply) = self.owe(reply) {
                        let from = PublicKey(peer);
                        self.step_replica(Input::Asked {
                            from,
                            request,
                            reply,
                        });
                        // What was not answered is refused, and owed no more.
                        self.replies.remove(&reply);
                    }
                }
                Err(error) => {
                    let text = format!("{}: {error}", self.name_of(&PublicKey(peer)));
                    self.tell(None, Note::warn("peer-refused", text));
                }
            },
            Event::Gossip {
                source,
                topic,
                bytes,
                verdict,
            } => {
                if self.gossiped(PublicKey(source), topic, &bytes) {
                    verdict.accept();
                } else {
                    verdict.reject();
                }
            }
            Event::Stream { peer, stream } => self.stream_opened(PublicKey(peer), stream),
            Event::Refused { peer, what } => {
                let text = format!("{}: {what}", self.name_of(&PublicKey(peer)));
                self.tell(None, Note::warn("peer-refused", text));
            }
        }
    }

    fn enrol(&mut self, from: PublicKey, request: EnrolRequest, reply: crate::net::Reply) {
        let mut nonce = [0; 32];
        if let Err(error) = getrandom::fill(&mut nonce) {
            self.fatal = Some(anyhow::anyhow!("no random bytes from the system: {error}"));
            return;
        }
        let before = self.replica.authority().admits(self.now().wall, &from);
        if let Some(reply) = self.owe(reply) {
            self.step_replica(Input::Enrol {
                from,
                request,
                nonce,
                reply,
            });
        }
        if !before && self.replica.authority().admits(self.now().wall, &from) {
            let text = format!("{} joined with an invite", self.name_of(&from));
            self.tell(None, Note::info("node-enrolled", text));
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

    /// Whether the message was what an honest node sends.
    fn gossiped(&mut self, source: PublicKey, topic: Topic, bytes: &[u8]) -> bool {
        if !self.replica.authority().admits(self.now().wall, &source) {
            return false;
        }
        match topic {
            Topic::Progress => self.progressed(source, bytes),
            Topic::Heads => match codec::decode::<Announcement>(bytes) {
                Ok(announcement) => {
                    self.step_replica(Input::Announced {
                        via: source,
                        announcement,
                    });
                    true
                }
                Err(_) => false,
            },
        }
    }

    fn raise(&mut self, alarm: &Alarm) {
        let (kind, text) = match alarm {
            Alarm::ForkedStatements { signer, seq } => (
                "forked-key",
                format!(
                    "{} signed two different statements numbered {seq}: its key or data folder exists twice; stop one and revoke it with `dunlin node revoke`",
                    self.name_of(signer)
                ),
            ),
            Alarm::ForkedChanges { author, seq } => (
                "forked-key",
                format!(
                    "{} made two different edits numbered {seq}: its key or data folder exists twice; stop one and revoke it with `dunlin node revoke`",
                    self.name_of(author)
                ),
            ),
            Alarm::ForkedReports { node } => (
                "forked-key",
                format!(
                    "node {} sent two different reports of one version: its key or data folder exists twice; stop one and revoke it with `dunlin node revoke`",
                    node.short()
                ),
            ),
            Alarm::Orphaned { changes } => (
                "edits-orphaned",
                format!(
                    "{changes} edits of the plan no longer count because their author was revoked; check `dunlin migration list` and make again what is missing"
                ),
            ),
        };
        self.tell(None, Note::error(kind, text));
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
        self.admitted = admitted;
        self.let_in();
        self.recheck_permits();
        self.refresh_addresses();
        self.report.soon();
    }

    fn let_in(&self) {
        let allowed = self.admitted.iter().chain(self.leaving.keys());
        self.net.allow(allowed.map(|key| key.0).collect());
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

    pub(super) fn name_of(&self, key: &PublicKey) -> String {
        let member = self.replica.authority().by_key(key);
        member.map_or_else(|| key.short(), |member| member.name.to_string())
    }
}
