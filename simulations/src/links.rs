//! Who is connected to whom: the edges of a world, and the connections that come and
//! go on them.
//!
//! Not here: what goes over a connection (`network`, `node`).

use crate::rng::{Rng, Stream};
use crate::world::World;
use keys::PublicKey;

/// How long a connection lasts to a peer that takes this node for a stranger: its gate
/// lets it idle, and it is dialled again.
const STRANGER_MILLIS: u64 = 10_000;

/// A peer as one end knows it: the lives of both, and its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    lives: (u32, u32),
    key: PublicKey,
    since: u64,
}

impl World {
    /// Who is a neighbour of whom: a ring, all that must move blocks, and some more.
    pub fn draw_edges(&mut self) {
        let nodes = self.scenario.nodes;
        let mut rng = Rng::of(self.scenario.seed, Stream::Edges, &[]);
        for node in 0..nodes {
            let next = (node + 1) % nodes;
            self.edges.insert((node.min(next), node.max(next)));
            // A joiner knows nobody but who admitted it.
            if node > 0 {
                self.edges.insert((0, node));
            }
            for other in node + 1..nodes {
                if rng.happens(250) {
                    self.edges.insert((node, other));
                }
            }
        }
        for migration in &self.scenario.migrations {
            let (agent, provisioner) = (migration.agent, migration.provisioner);
            let mut needed = vec![(agent, provisioner)];
            for replicator in &migration.replicators {
                needed.push((agent, *replicator));
                needed.push((provisioner, *replicator));
            }
            let edges = needed.into_iter().map(|(a, b)| (a.min(b), a.max(b)));
            self.edges.extend(edges);
        }
    }

    /// Connects and disconnects what this node's links have become, at both ends.
    pub fn refresh_links(&mut self, index: usize) {
        let edges = self.edges.iter();
        let peers: Vec<usize> = edges
            .filter_map(|(a, b)| match (*a == index, *b == index) {
                (true, _) => Some(*b),
                (_, true) => Some(*a),
                _ => None,
            })
            .collect();
        for peer in peers {
            self.refresh_end(index, peer);
            self.refresh_end(peer, index);
        }
    }

    /// One end of a link: who is not known there is no peer, and has to introduce itself
    /// if it takes this node for one.
    fn refresh_end(&mut self, at: usize, peer: usize) {
        let now = self.ctx.now;
        let had = self.links.get(&(at, peer)).copied();
        let is_idle = had.is_some_and(|had| now - had.since >= STRANGER_MILLIS);
        let link = self.linkable(at, peer).then(|| Link {
            lives: (self.nodes[at].life, self.nodes[peer].life),
            key: self.ctx.key_of(peer),
            since: match had {
                Some(had) if !is_idle || self.linkable(peer, at) => had.since,
                _ => now,
            },
        });
        if link == had {
            return;
        }
        if let Some(had) = had {
            self.links.remove(&(at, peer));
            self.link(at, (peer, had.key), false);
        }
        if let Some(link) = link {
            self.links.insert((at, peer), link);
            self.link(at, (peer, link.key), true);
        }
    }

    /// Whether two nodes run, reach each other, and this one admits the other.
    fn linkable(&self, at: usize, peer: usize) -> bool {
        let key = self.ctx.key_of(peer);
        let wall = self.nodes[at].now(&self.ctx).wall;
        let replica = self.nodes[at].replica();
        let admits = replica.is_some_and(|replica| replica.authority().admits(wall, &key));
        let runs = self.nodes[peer].replica().is_some();
        let cut = |from, to| self.ctx.network.is_cut(self.ctx.now, from, to);
        admits && runs && !(cut(at, peer) && cut(peer, at))
    }

    fn link(&mut self, at: usize, (peer, key): (usize, PublicKey), is_up: bool) {
        self.live(at, |node, ctx| node.linked(ctx, (peer, key), is_up));
    }
}
