//! A data folder that runs twice: somebody copies it, and starts the copy on another
//! machine with another disk, while the node itself runs on. Both have one key and one
//! place in the mesh.
//!
//! As in libp2p a peer may have several connections, and each message to it goes over one
//! of them: which of the two it reaches is chance, for a while at a time. Not here: what
//! has to come of it (`ending`, `invariants`).

use crate::context::Context;
use crate::freezing::Freezer;
use crate::network::Event;
use crate::node::{Lived, Node};
use crate::rng::{Rng, Stream};
use crate::store::Store;
use crate::world::World;
use keys::lease::Boot;
use keys::{Name, PublicKey};
use mesh::Input;
use roles::JobId;

/// How long what is said to a key goes to the same of two that have it.
const SAME_WAY_MILLIS: u64 = 3_000;

/// Two participants with one key.
#[derive(Debug, Clone, Copy)]
pub struct Twin {
    /// The node whose folder was copied.
    pub of: usize,
    /// The participant that runs the copy.
    pub copy: usize,
}

impl Twin {
    /// The other one with the key of a participant.
    fn other(self, index: usize) -> Option<usize> {
        match index {
            _ if index == self.of => Some(self.copy),
            _ if index == self.copy => Some(self.of),
            _ => None,
        }
    }
}

/// A copy of a folder.
pub struct Copied {
    key: PublicKey,
    store: Store,
}

impl World {
    /// Copies a folder and starts the copy, once it is time and the node takes part.
    pub fn runs_twice(&mut self) {
        let Some(twice) = self.scenario.twice.filter(|_| self.ctx.twin.is_none()) else {
            return;
        };
        let now = self.ctx.now;
        let node = &self.nodes[twice.node];
        let key = node.identity.public();
        if self.copied.is_none() && now >= twice.copied_at_millis && !node.store.is_blank() {
            let store = node.store.folder();
            self.copied = Some(Copied { key, store });
            self.ctx
                .note(twice.node, format_args!("its folder is copied"));
        }
        let wall = node.now(&self.ctx).wall;
        let replica = node.replica();
        let takes_part = replica.is_some_and(|replica| replica.authority().admits(wall, &key));
        if now < twice.at_millis || !takes_part || node.next.is_some() {
            return;
        }
        // One with a key that the node has changed since is nobody's any more.
        let copied = self.copied.take().filter(|copied| copied.key == key);
        let store = copied.map_or_else(|| node.store.folder(), |copied| copied.store);
        let copy = self.nodes.len();
        let twin = Twin {
            of: twice.node,
            copy,
        };
        let node = node.copied(self.scenario.seed, copy, store);
        self.nodes.push(node);
        self.ctx.current[copy] = key;
        self.ctx.twin = Some(twin);
        self.ctx.seen.copies_run += 1;
        self.ctx
            .note(copy, format_args!("is a copy of n{}", twin.of));
        self.forget_jobs_of(twin.of);
        // It dials whoever is in its folder: the neighbours of the node may have changed
        // their keys since, or be out.
        let others = (0..copy).filter(|peer| *peer != twin.of);
        self.edges.extend(others.map(|peer| (peer, copy)));
        self.ctx.network.schedule(now, Event::Start { node: copy });
    }

    /// What an agent believes of its copies does not count where another one with its key
    /// writes to them.
    fn forget_jobs_of(&mut self, agent: usize) {
        let migrations = self.scenario.migrations.iter();
        for migration in migrations.filter(|migration| migration.agent == agent) {
            for volume in &migration.volumes {
                let (migration, volume) = (migration.id, *volume);
                self.ctx.oracle.has_two_agents(JobId { migration, volume });
            }
        }
    }
}

impl Node {
    /// A second one with its key and an own machine, which begins with `store`.
    fn copied(&self, seed: u64, index: usize, store: Store) -> Self {
        let which = [index as u64];
        Self {
            index,
            identity: self.identity.clone(),
            root: None,
            next: None,
            lent: None,
            freezer: Freezer::new(true),
            name: Name::new(&format!("n{index}")).expect("letters and digits"),
            store,
            up: None,
            life: 0,
            lost_until: None,
            skew_secs: self.skew_secs,
            rng: Rng::of(seed, Stream::Nodes, &which),
            boot: Boot(Rng::of(seed, Stream::Boots, &which).bytes()),
            ahead_millis: 1_000_000 * (index as i64 + 1),
            fuse: None,
            sync_fails: None,
            slow: None,
            is_refused: false,
            token: None,
            sources: self.sources.clone(),
        }
    }

    /// Which participant a message to a key reaches.
    pub fn way_to(&self, ctx: &Context, key: &PublicKey) -> Option<usize> {
        let first = ctx.index_of(key)?;
        let Some(second) = ctx.twin.and_then(|twin| twin.other(first)) else {
            return Some(first);
        };
        let is_linked = |peer: usize| {
            let up = self.up.as_ref();
            up.is_some_and(|up| up.connected.contains(&peer))
        };
        let which = [self.index as u64, ctx.now / SAME_WAY_MILLIS];
        let chance = Rng::of(ctx.seed, Stream::Ways, &which).below(2);
        Some(match (is_linked(first), is_linked(second)) {
            (true, false) => first,
            (false, true) => second,
            _ if chance == 0 => first,
            _ => second,
        })
    }

    /// A connection to a participant came or went. A peer is there while any of those to
    /// its key is.
    pub fn linked(
        &mut self,
        ctx: &mut Context,
        (peer, key): (usize, PublicKey),
        is_up: bool,
    ) -> Lived {
        let connected = &mut self.up().connected;
        let changed = match is_up {
            true => connected.insert(peer),
            false => connected.remove(&peer),
        };
        if !changed {
            return Ok(());
        }
        let other = ctx.twin.and_then(|twin| twin.other(peer));
        let has_other = other.is_some_and(|other| connected.contains(&other));
        self.up().dirty = true;
        match is_up {
            _ if has_other => Ok(()),
            true => self.replica_input(ctx, Input::Connected(key)),
            false => self.replica_input(ctx, Input::Disconnected(key)),
        }
    }

    /// Whether it runs a copy of somebody's folder: what is attached to the node's machine
    /// is not attached to this one.
    pub fn is_copy(&self, ctx: &Context) -> bool {
        ctx.twin.is_some_and(|twin| twin.copy == self.index)
    }
}
