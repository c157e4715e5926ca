//! Authority as a pure function of the ledger: who is a node, in which roles, with
//! which key, and what is granted. The order in which statements arrived does not
//! matter.
//!
//! Here is what it amounts to and what can be asked of it. How it is computed is in
//! `strata`, which key a node has in `lines`.

mod lines;
mod strata;

pub use strata::authority;

use crate::dedup::DedupDomain;
use crate::id::{MeshId, NodeId, PublicKey, StatementId, UnixSecs};
use crate::lease::Pair;
use crate::permit::Denied;
use crate::scope::Scope;
use crate::statement::{Grant, Invite, Name, Position, Role, Roles};
use std::collections::{BTreeMap, BTreeSet};

/// Whether an enrolment counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It counts.
    Active,
    /// Another enrolment used the same use of the same invite.
    Contested,
    /// Taken back, by this statement.
    Revoked(StatementId),
    /// Its key gave it two different next keys: one of them is a thief's.
    KeyContested,
    /// The word of the operator that enrolled it does not count for this: it was revoked
    /// and this is not among what is honoured, or the node is outside its sites.
    Lapsed,
}

/// A node as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its enrolment.
    pub id: NodeId,
    /// The key it has now.
    pub key: PublicKey,
    /// Its name.
    pub name: Name,
    /// What it may do.
    pub roles: Roles,
    /// Where it is.
    pub site: Option<Name>,
    /// Who enrolled it.
    pub enrolled_by: PublicKey,
    /// When it was enrolled, by the clock of who enrolled it.
    pub enrolled_at: UnixSecs,
    /// Sites to which it is limited as an operator.
    pub scope: Scope,
    /// End of its enrolment: its own, or that of the operator who enrolled it.
    pub not_after: Option<UnixSecs>,
    /// Whether it counts.
    pub standing: Standing,
}

/// An invite as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteState {
    /// Its terms.
    pub invite: Invite,
    /// Who signed it.
    pub signer: PublicKey,
    /// Uses burnt, by index, and the key each enrolled.
    pub used: BTreeMap<u16, PublicKey>,
    /// Taken back, or the word of its operator does not count for it.
    pub revoked: bool,
}

/// A grant as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantState {
    /// Its terms.
    pub grant: Grant,
    /// Who signed it.
    pub signer: PublicKey,
    /// Its end: its own, or that of the enrolment of who signed it.
    pub not_after: UnixSecs,
    /// Taken back.
    pub revoked: bool,
    /// Whether its signer's log is forked at this statement or before it: it may be the
    /// word of whoever else holds the key.
    pub forked: bool,
    /// Whose content its copies share.
    pub dedup_domain: DedupDomain,
}

/// How far the changes of an author of the master document count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorship {
    /// All of them.
    Full,
    /// Through this position of its log; none when the sequence number is 0.
    Through(Position),
}

/// What the ledger amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    mesh: MeshId,
    roots: BTreeSet<PublicKey>,
    members: BTreeMap<NodeId, Member>,
    /// Every key that was ever a node's.
    by_key: BTreeMap<PublicKey, BTreeSet<NodeId>>,
    invites: BTreeMap<StatementId, InviteState>,
    grants: BTreeMap<StatementId, GrantState>,
    authors: BTreeMap<PublicKey, Authorship>,
    cloned: BTreeSet<PublicKey>,
}

impl Authority {
    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// Every node that was ever enrolled.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// A node by its id.
    pub fn member(&self, id: &NodeId) -> Option<&Member> {
        self.members.get(id)
    }

    /// The node whose key this is or was: where there are several, one that counts
    /// and has it now comes first.
    pub fn by_key(&self, key: &PublicKey) -> Option<&Member> {
        let members = self.by_key.get(key)?.iter().map(|id| &self.members[id]);
        members.min_by_key(|member| (member.key != *key, member.standing != Standing::Active))
    }

    /// Whether `key` may talk to the mesh at `now`: that of a node which is enrolled, not
    /// revoked, not expired. A contested node may: it is its grants that are frozen. One
    /// whose key is contested may not: one of the two is a thief.
    pub fn admits(&self, now: UnixSecs, key: &PublicKey) -> bool {
        self.by_key(key).is_some_and(|member| {
            member.key == *key
                && matches!(member.standing, Standing::Active | Standing::Contested)
                && member.not_after.is_none_or(|end| now < end)
        })
    }

    /// The node of `key` if it counts at `now` and has `role`.
    pub fn standing(&self, now: UnixSecs, key: &PublicKey, role: Role) -> Result<&Member, Denied> {
        let member = self.by_key(key).ok_or(Denied::NotEnrolled(*key))?;
        match member.standing {
            Standing::Active if member.key != *key => return Err(Denied::KeyRotated(*key)),
            Standing::Active => {}
            Standing::Contested => return Err(Denied::NodeContested(*key)),
            Standing::KeyContested => return Err(Denied::KeyContested(*key)),
            Standing::Revoked(_) | Standing::Lapsed => return Err(Denied::NodeRevoked(*key)),
        }
        if member.not_after.is_some_and(|end| now >= end) {
            return Err(Denied::NodeExpired(*key));
        }
        if !member.roles.has(role) {
            return Err(Denied::NotInRole { node: *key, role });
        }
        if self.is_cloned(key) {
            return Err(Denied::Cloned(*key));
        }
        Ok(member)
    }

    /// Whether `key` is known to be in two places. Its node is still told what is new,
    /// and may do nothing until it is enrolled anew.
    pub fn is_cloned(&self, key: &PublicKey) -> bool {
        self.cloned.contains(key)
    }

    /// Notes keys that are in two places by other proof than the ledger's.
    pub fn note_cloned(&mut self, keys: impl IntoIterator<Item = PublicKey>) {
        self.cloned.extend(keys);
    }

    /// Whether `key` is or was a key of this node, so that what it signed with keys that
    /// it had before still is its own.
    pub fn is_node(&self, node: NodeId, key: PublicKey) -> bool {
        self.by_key
            .get(&key)
            .is_some_and(|nodes| nodes.contains(&node))
    }

    /// An invite by its statement.
    pub fn invite(&self, id: &StatementId) -> Option<&InviteState> {
        self.invites.get(id)
    }

    /// All invites.
    pub fn invites(&self) -> impl Iterator<Item = (&StatementId, &InviteState)> {
        self.invites.iter()
    }

    /// A grant by its statement.
    pub fn grant(&self, id: &StatementId) -> Option<&GrantState> {
        self.grants.get(id)
    }

    /// All grants.
    pub fn grants(&self) -> impl Iterator<Item = (&StatementId, &GrantState)> {
        self.grants.iter()
    }

    /// Every grant that is good at `wall` with every replicator that may use it: neither
    /// the grant nor one of the two ends was revoked or is over.
    pub fn live_pairs(&self, wall: UnixSecs) -> impl Iterator<Item = (Pair, &Grant)> {
        let live = self.grants.iter();
        let live = live.filter(move |(_, state)| self.lets_send(wall, state));
        live.flat_map(move |(id, state)| {
            let pool = state.grant.replicators.iter();
            let standing = pool.filter(move |node| self.stands(wall, node, Role::Replicator));
            standing.map(move |replicator| {
                let pair = Pair {
                    grant: *id,
                    replicator: *replicator,
                };
                (pair, &state.grant)
            })
        })
    }

    /// Whether a grant is good at `wall` for this replicator, as one of [`Self::live_pairs`].
    pub fn is_live(&self, wall: UnixSecs, state: &GrantState, replicator: &NodeId) -> bool {
        state.grant.replicators.contains(replicator)
            && self.lets_send(wall, state)
            && self.stands(wall, replicator, Role::Replicator)
    }

    /// Whether a grant is good at `wall` for its agent.
    fn lets_send(&self, wall: UnixSecs, state: &GrantState) -> bool {
        !state.revoked
            && wall < state.not_after
            && self.stands(wall, &state.grant.agent, Role::Agent)
    }

    fn stands(&self, wall: UnixSecs, id: &NodeId, role: Role) -> bool {
        self.member(id).is_some_and(|member| {
            let standing = self.standing(wall, &member.key, role);
            standing.is_ok_and(|standing| standing.id == *id)
        })
    }

    /// Whether an operator with this scope has a word in what a pair may do: as with the
    /// grant itself, the sites of its agent and of its whole pool decide.
    pub fn is_within(&self, scope: &Scope, pair: &Pair) -> bool {
        let Some(state) = self.grant(&pair.grant) else {
            return *scope == Scope::Everywhere;
        };
        let pool = state.grant.replicators.iter();
        pool.chain([&state.grant.agent]).all(|node| {
            let site = self.member(node).and_then(|member| member.site.as_ref());
            scope.has(site)
        })
    }

    /// How far the document changes of `author` count; none if it was never an operator.
    pub fn authorship(&self, author: &PublicKey) -> Option<Authorship> {
        self.authors.get(author).copied()
    }

    /// Whether `key` is a root key.
    pub fn is_root(&self, key: &PublicKey) -> bool {
        self.roots.contains(key)
    }
}

#[cfg(test)]
mod tests;
