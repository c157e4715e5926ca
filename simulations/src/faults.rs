//! What goes wrong in a world, and the strangers in it.
//!
//! Not here: messages lost, late or doubled, and streams that break by themselves,
//! which is the network's way (`network`), and failing calls to the cloud.

use crate::disk::Death;
use crate::network::{Event, Packet};
use crate::node::encode;
use crate::scenario::Migration;
use crate::world::{DAY_SECS, World, skew};
use blocks::{CloseReason, Root, ToTarget};
use keys::{Epoch, Signed};
use mesh::{Announcement, Request};
use roles::Ticket;
use std::rc::Rc;

impl World {
    /// One thing goes wrong, and when the next one will is drawn.
    pub fn fault(&mut self) {
        if self.ctx.calm {
            return;
        }
        let nodes = self.scenario.nodes;
        let mut victim = self.ctx.rng.index(nodes);
        // Those that move blocks have most to lose.
        let movers = &self.scenario.migrations[0];
        match self.ctx.rng.below(6) {
            0 => victim = movers.agent,
            1 => victim = movers.replicators[0],
            _ => {}
        }
        match self.ctx.rng.below(100) {
            0..=15 => {
                let death = self.death();
                self.kill(victim, death);
            }
            16..=40 => {
                let deeds = self.ctx.rng.below(80);
                self.nodes[victim].fuse = Some(deeds);
            }
            41..=52 => self.partition(victim),
            53..=60 => self.one_way(victim),
            61..=72 => {
                let streams = self.ctx.network.whole_streams();
                if let Some(stream) = streams.last() {
                    self.ctx.break_stream(*stream, CloseReason::Lost);
                }
            }
            73..=79 => {
                let full = self.ctx.rng.below(2) == 0;
                for node in &mut self.nodes {
                    node.sync_fails = Some(full);
                }
            }
            80..=82 => self.ctx.network.garble_next = true,
            83..=84 => self.jump_clock(victim),
            85..=89 => self.stranger_asks(victim),
            90..=94 => self.forge_gossip(victim),
            _ => self.forge_stream(),
        }
        let at = self.ctx.now + self.ctx.rng.between(200, 3_500);
        self.ctx.network.schedule(at, Event::Fault);
    }

    /// How a machine dies.
    pub fn death(&mut self) -> Death {
        match self.ctx.rng.below(3) {
            0 => Death::Process,
            _ => Death::Power,
        }
    }

    /// Cuts some nodes off from the others.
    fn partition(&mut self, victim: usize) {
        self.ctx.seen.partitions += 1;
        let until = self.ctx.now + self.ctx.rng.between(500, 9_000);
        let nodes = self.scenario.nodes;
        let side: Vec<bool> = (0..nodes)
            .map(|node| node == victim || self.ctx.rng.happens(300))
            .collect();
        for from in 0..nodes {
            for to in 0..nodes {
                if side[from] != side[to] {
                    self.ctx.network.cut(from, to, until);
                }
            }
        }
    }

    /// Lets the ends of a migration reach each other and nobody else, until their leases
    /// are over and somewhat longer.
    pub fn cut_off_ends(&mut self, migration: &Migration) {
        self.ctx.seen.cut_off_revocations += 1;
        let longest = migration.span.exposure_secs().min(60) * 1000;
        let until = self.ctx.now + longest + 8_000;
        let is_end = |node: usize| migration.agent == node || migration.replicators.contains(&node);
        for from in 0..self.scenario.nodes {
            for to in 0..self.scenario.nodes {
                if is_end(from) != is_end(to) {
                    self.ctx.network.cut(from, to, until);
                }
            }
        }
    }

    /// Somebody sets the wall clock of a node that runs. A grant that ends by the wall
    /// clock may not come to life again.
    fn jump_clock(&mut self, victim: usize) {
        let max_skew_secs = self.scenario.max_skew_secs;
        if max_skew_secs >= DAY_SECS {
            self.ctx.seen.clocks_set += 1;
            self.nodes[victim].skew_secs = skew(&mut self.ctx.rng, max_skew_secs);
        }
    }

    fn one_way(&mut self, victim: usize) {
        self.ctx.seen.one_way_partitions += 1;
        let until = self.ctx.now + self.ctx.rng.between(500, 8_000);
        let outwards = self.ctx.rng.below(2) == 0;
        for peer in 0..self.scenario.nodes {
            match outwards {
                true => self.ctx.network.cut(victim, peer, until),
                false => self.ctx.network.cut(peer, victim, until),
            }
        }
    }

    /// Somebody who is not enrolled wants to know everything.
    fn stranger_asks(&mut self, victim: usize) {
        self.ctx.seen.strangers_asking += 1;
        let id = self.ctx.network.number();
        let request = Request {
            ledger: Some((vec![[0; 8]; keys::ledger::BUCKETS], 0)),
            logs: Some(vec![]),
            reports: Some(vec![]),
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
    fn forge_gossip(&mut self, victim: usize) {
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
        };
        let mut changes: Vec<_> = changes.collect();
        let kind = self.ctx.rng.below(3);
        match kind {
            0 => {
                let at = self.ctx.rng.index(statements.len());
                announcement.statements.push(self.tampered(&statements[at]));
            }
            1 if !changes.is_empty() => {
                let mut change = changes.swap_remove(self.ctx.rng.index(changes.len()));
                let at = self.ctx.rng.index(change.raw.len());
                change.raw[at] ^= 1 << self.ctx.rng.below(8);
                announcement.changes.push(change);
            }
            _ if !reports.is_empty() => {
                let at = self.ctx.rng.index(reports.len());
                announcement.reports.push(self.tampered(&reports[at]));
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

    fn tampered(&mut self, signed: &Signed) -> Signed {
        let mut forged = signed.clone();
        let at = self.ctx.rng.index(forged.body.len());
        forged.body[at] ^= 1 << self.ctx.rng.below(8);
        forged
    }

    /// Somebody opens a stream with a ticket that is stolen, tampered with or old.
    fn forge_stream(&mut self) {
        let mut sessions = self.nodes.iter().enumerate().filter_map(|(index, node)| {
            let (job, session) = node.up.as_ref()?.sending.iter().next()?;
            let ticket = node.ticket(*job, Epoch(1), &session.permit)?;
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
        let (from, ticket) = match self.ctx.rng.below(4) {
            0 => (stranger, ticket),
            1 if forger != agent => (forger, ticket),
            2 => {
                let grant = self.tampered(&ticket.grant);
                (forger, Ticket { grant, ..ticket })
            }
            _ => {
                let epoch = Epoch(0);
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
            root: Root([0; 32]),
        };
        let frame = open.encode(0).expect("our own frames are within limits");
        self.ctx.send_frame(stream, 0, frame, vec![]);
    }
}
