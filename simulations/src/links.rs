//! Who is connected to whom: the edges of a world, and the connections that come and
//! go on them.
//!
//! Not here: what goes over a connection (`network`, `node`).

use crate::rng::{Rng, Stream};
use crate::world::World;
use mesh::Input;

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

    /// Connects and disconnects what this node's links have become.
    pub fn refresh_links(&mut self, index: usize) {
        let edges: Vec<(usize, usize)> = self
            .edges
            .iter()
            .filter(|(a, b)| *a == index || *b == index)
            .copied()
            .collect();
        for (a, b) in edges {
            let lives = self
                .linkable(a, b)
                .then(|| (self.nodes[a].life, self.nodes[b].life));
            let had = self.links.get(&(a, b)).copied();
            if lives == had {
                continue;
            }
            if had.is_some() {
                self.links.remove(&(a, b));
                self.link(a, b, false);
            }
            if let Some(lives) = lives {
                self.links.insert((a, b), lives);
                self.link(a, b, true);
            }
        }
    }

    /// Whether two nodes run, reach each other, and each admits the other.
    fn linkable(&self, a: usize, b: usize) -> bool {
        let admits = |at: usize, peer: usize| {
            let key = self.nodes[peer].identity.public();
            let wall = self.nodes[at].now(&self.ctx).wall;
            let replica = self.nodes[at].replica();
            replica.is_some_and(|replica| replica.authority().admits(wall, &key))
        };
        let cut = |from, to| self.ctx.network.is_cut(self.ctx.now, from, to);
        admits(a, b) && admits(b, a) && !(cut(a, b) && cut(b, a))
    }

    fn link(&mut self, a: usize, b: usize, is_up: bool) {
        for (at, peer) in [(a, b), (b, a)] {
            let key = self.nodes[peer].identity.public();
            self.live(at, |node, ctx| {
                let known = match is_up {
                    true => node.up().connected.insert(peer),
                    false => node.up().connected.remove(&peer),
                };
                if !known {
                    return Ok(());
                }
                node.up().dirty = true;
                let input = match is_up {
                    true => Input::Connected(key),
                    false => Input::Disconnected(key),
                };
                node.replica_input(ctx, input)
            });
        }
    }
}
