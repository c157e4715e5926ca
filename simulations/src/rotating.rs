//! A node changes its key: the next one is stored, the mesh is told, and the node begins
//! again with the key that its ledger gives it.
//!
//! Not here: when it does (`faults`).

use crate::context::{Context, Flaw};
use crate::network::Event;
use crate::node::{Lived, Node};
use crate::recovery::Recovery;
use crate::rng::{Rng, Stream};
use crate::world::World;
use blocks::CloseReason;
use keys::Identity;

/// How long a node goes on with the old key, so that others hear of the next one.
const HEARD_MILLIS: u64 = 1_000;

/// A change of keys as the checks remember it.
#[derive(Debug, Clone, Copy)]
pub struct Changed {
    /// The node.
    pub node: keys::NodeId,
    /// The key it had.
    pub old: keys::PublicKey,
    /// The key it was given.
    pub new: keys::PublicKey,
}

impl World {
    /// A node gives itself another key, if it can now.
    pub fn change_key(&mut self, index: usize) {
        // A joiner asks who admits it by the key in its invite.
        let all_joined = self.nodes.iter().all(|node| !node.store.is_blank());
        let is_lost = index == 0 && self.heir.is_some();
        // Another one with its key would be left with one that is no good any more.
        let is_twice = self.ctx.twin.is_some_and(|twin| twin.of == index);
        if is_twice || is_lost || !all_joined && index == 0 || index == self.forger() {
            return;
        }
        if self.loses_touch(index) {
            return;
        }
        for stream in self.ctx.network.streams_of(index) {
            self.ctx.break_stream(stream, CloseReason::Lost);
        }
        self.live(index, Node::change_key);
        let life = self.nodes[index].life;
        if self.nodes[index].next.is_some() {
            let event = Event::Again { node: index, life };
            self.ctx
                .network
                .schedule(self.ctx.now + HEARD_MILLIS, event);
        }
    }
}

impl World {
    /// Whether a node and one that knows nobody else would change their keys before either
    /// hears of the other's, and never find each other again.
    fn loses_touch(&self, index: usize) -> bool {
        let heir = self.recovery.as_ref().map(Recovery::heir);
        // Who was made an operator with the root key knows one member alone, at first.
        let is_known = heir.is_none_or(|heir| {
            let key = self.nodes[heir].identity.public();
            let mut others = self.nodes.iter().filter(|node| node.index != heir);
            others.any(|node| knows(node, &key))
        });
        let operators = [Some(0), self.scenario.second_operator, heir];
        let is_operator = |index: usize| operators.contains(&Some(index));
        let stays = |node: &&Node| node.lost_until != Some(u64::MAX);
        let mut changes = self.ctx.oracle.changed_keys.iter();
        !is_known
            || changes.any(|change| {
                let changed = self.ctx.keys.get(&change.new).copied();
                let mut staying = self.nodes.iter().filter(stays);
                (is_operator(index) || changed.is_some_and(is_operator))
                    && !staying.all(|node| knows(node, &change.new))
            })
    }
}

fn knows(node: &Node, key: &keys::PublicKey) -> bool {
    let replica = node.replica();
    replica.is_some_and(|replica| replica.authority().by_key(key).is_some())
}

impl Node {
    fn change_key(&mut self, ctx: &mut Context) -> Lived {
        let now = self.now(ctx);
        let old = self.identity.public();
        let Some(replica) = self.replica() else {
            return Ok(());
        };
        let (Some(me), authority) = (replica.me(), replica.authority()) else {
            return Ok(());
        };
        if self.next.is_some() || !replica.may_write() || !authority.admits(now.wall, &old) {
            return Ok(());
        }
        let which = [1 << 32, self.index as u64, u64::from(self.life)];
        let next = Identity::from_seed(&Rng::of(ctx.seed, Stream::Keys, &which).bytes());
        self.deed(ctx)?;
        self.next = Some(next.clone());
        // What somebody copied of the store before has no use for the next key.
        self.store.old = None;
        ctx.keys.insert(next.public(), self.index);
        ctx.oracle.changed_keys.push(Changed {
            node: me,
            old,
            new: next.public(),
        });
        self.deed(ctx)?;
        let mut out = vec![];
        let replica = self.up().replica.as_mut().expect("it was there");
        if replica.rotate(&next, now.wall, &mut out).is_err() {
            self.next = None;
            return Ok(());
        }
        ctx.note(self.index, format_args!("changes its key"));
        self.carry_replica(ctx, out)
    }

    /// The ledger says which of two keys is the node's.
    pub fn take_next_key(&mut self, ctx: &mut Context) {
        let Some(next) = self.next.take() else {
            return;
        };
        let key = next.public();
        let restored = self.store.restore(next.clone(), None);
        let is_mine = restored.is_ok_and(|replica| {
            let member = replica.authority().by_key(&key);
            member.is_some_and(|member| member.key == key)
        });
        if !is_mine {
            ctx.seen.cut_changes += 1;
            return;
        }
        ctx.seen.changed_keys += 1;
        if ctx.flaw != Some(Flaw::KeepsOldKey) {
            self.identity = next;
            ctx.current[self.index] = key;
        }
    }
}
