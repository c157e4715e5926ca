//! The strangers and traitors of a world: who asks without a right to, announces what
//! nobody signed, and opens streams with tickets that are not theirs.
//!
//! When they do is decided in `faults`.

use super::{GossipForgery, StreamForgery};
use crate::network::{Event, Packet};
use crate::node::encode;
use crate::rng::Rng;
use crate::world::World;
use blocks::{BLANK_MARK, ToTarget};
use keys::{Epoch, Signed};
use mesh::{Announcement, Request, Summary};
use roles::Ticket;
use std::rc::Rc;

impl World {
    /// Somebody who is not enrolled wants to know everything.
    pub(super) fn stranger_asks(&mut self, victim: usize) {
        self.ctx.seen.strangers_asking += 1;
        let id = self.ctx.network.number();
        let request = Request {
            ledger: Some(everything()),
            logs: Some(vec![]),
            reports: Some(everything()),
            forks: Some(vec![]),
            ..Request::default()
        };
        let packet = Packet::Ask(id, Rc::new(encode(&request)));
        let event = Event::Packet {
            from: self.stranger(),
            to: victim,
            packet,
        };
        self.ctx.network.schedule(self.ctx.now + 1, event);
    }

    /// An enrolled node, or a stranger, announces what nobody signed.
    pub(super) fn forge_gossip(&mut self, victim: usize, forgery: GossipForgery, rng: &mut Rng) {
        let forger = self.forger();
        let Some(replica) = self.nodes[0].replica() else {
            return;
        };
        let statements: Vec<Signed> = replica
            .ledger()
            .iter()
            .map(|(_, recorded)| recorded.signed.clone())
            .collect();
        let reports: Vec<Signed> = replica
            .reports()
            .versions()
            .keys()
            .filter_map(|node| replica.reports().signed(node).cloned())
            .collect();
        let authors = replica.document().heads();
        let changes = authors
            .keys()
            .flat_map(|author| replica.document().entries_after(author, 0, usize::MAX));
        let mut announcement = Announcement {
            heads: replica.heads(),
            statements: vec![],
            changes: vec![],
            reports: vec![],
            evidence: vec![],
        };
        let mut changes: Vec<_> = changes.collect();
        match forgery {
            GossipForgery::Statement => {
                let at = rng.index(statements.len());
                announcement.statements.push(tampered(&statements[at], rng));
            }
            GossipForgery::Change if !changes.is_empty() => {
                let mut change = changes.swap_remove(rng.index(changes.len()));
                let at = rng.index(change.raw.len());
                change.raw[at] ^= 1 << rng.below(8);
                announcement.changes.push(change);
            }
            GossipForgery::Report if !reports.is_empty() => {
                let at = rng.index(reports.len());
                announcement.reports.push(tampered(&reports[at], rng));
            }
            _ => return,
        }
        self.ctx.seen.forged_gossip += 1;
        let packet = Packet::Gossip(Rc::new(encode(&announcement)));
        let event = Event::Packet {
            from: forger,
            to: victim,
            packet,
        };
        self.ctx.network.schedule(self.ctx.now + 1, event);
    }

    /// Somebody opens a stream with a ticket that is stolen, tampered with or old.
    pub(super) fn forge_stream(&mut self, forgery: StreamForgery, rng: &mut Rng) {
        let mut sessions = self.nodes.iter().enumerate().filter_map(|(index, node)| {
            let (job, session) = node.up.as_ref()?.sending.iter().next()?;
            let ticket = node.ticket(*job, session.epoch, &session.permit)?;
            let length = node.sources[&job.volume].geometry.length();
            Some((index, session.permit.replicator(), ticket, length))
        });
        let Some((agent, replicator, ticket, length)) = sessions.next_back() else {
            return;
        };
        let Some(to) = self.ctx.index_of(&replicator) else {
            return;
        };
        let (stranger, forger) = (self.stranger(), self.forger());
        let (from, ticket) = match forgery {
            StreamForgery::Stolen => (stranger, ticket),
            StreamForgery::Borrowed if forger != agent => (forger, ticket),
            StreamForgery::Tampered => {
                let grant = tampered(&ticket.grant, rng);
                (forger, Ticket { grant, ..ticket })
            }
            StreamForgery::Borrowed | StreamForgery::OldEpoch => {
                let epoch = Epoch(ticket.epoch.0 - 1);
                (agent, Ticket { epoch, ..ticket })
            }
        };
        self.ctx.seen.forged_streams += 1;
        let stream = self.ctx.open_stream(from, to);
        self.ctx.oracle.forged_streams.insert(stream);
        let open = ToTarget::Open {
            ticket: encode(&ticket),
            length,
            barrier: 0,
            mark: BLANK_MARK,
        };
        let frame = open.encode(0).expect("our own frames are within limits");
        self.ctx.send_frame(stream, 0, frame, vec![]);
    }
}

fn tampered(signed: &Signed, rng: &mut Rng) -> Signed {
    let mut forged = signed.clone();
    let at = rng.index(forged.body.len());
    forged.body[at] ^= 1 << rng.below(8);
    forged
}

/// What who holds nothing lacks.
fn everything<T>() -> Summary<T> {
    Summary::Held((0..=u8::MAX).map(|bucket| (bucket, vec![])).collect())
}
