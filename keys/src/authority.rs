//! Authority as a pure function of the ledger: who is a node, in which roles, and
//! what is granted. The order in which statements arrived does not matter.
//!
//! Computed in strata, so that there is never a circle: root keys cannot be
//! revoked; roots decide which operators stand; operators decide about the nodes
//! and grants below them. A revocation counts only when it comes from a root key
//! or from the signer of what it takes back.

use crate::id::{MeshId, NodeId, PublicKey, StatementId, UnixSecs};
use crate::lease::Pair;
use crate::ledger::{Ledger, Recorded};
use crate::permit::Denied;
use crate::statement::{
    Admission, Enrolment, Grant, Invite, Name, Position, Revocation, Role, Roles, Statement,
};
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
    /// The operator that enrolled it was revoked, and this is not among what is honoured.
    Lapsed,
}

/// A node as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its enrolment.
    pub id: NodeId,
    /// Its key.
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
    /// End of its enrolment.
    pub not_after: Option<UnixSecs>,
    /// Whether it counts.
    pub standing: Standing,
}

/// An invite as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteState {
    /// Its terms.
    pub invite: Invite,
    /// Who signed it and admits with it.
    pub signer: PublicKey,
    /// Uses burnt, by index, and the key each enrolled.
    pub used: BTreeMap<u16, PublicKey>,
    /// Taken back, or its operator was.
    pub revoked: bool,
}

/// A grant as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantState {
    /// Its terms.
    pub grant: Grant,
    /// Who signed it.
    pub signer: PublicKey,
    /// Taken back.
    pub revoked: bool,
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
    by_key: BTreeMap<PublicKey, Vec<NodeId>>,
    invites: BTreeMap<StatementId, InviteState>,
    grants: BTreeMap<StatementId, GrantState>,
    authors: BTreeMap<PublicKey, Authorship>,
}

/// Computes the authority of a ledger.
pub fn authority(ledger: &Ledger) -> Authority {
    let mut strata = Strata::new(ledger);
    strata.enrol(Signers::Roots);
    strata.stand_operators();
    strata.enrol(Signers::Operators);
    strata.contest();
    strata.collect_grants();
    strata.authority
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Signers {
    Roots,
    Operators,
}

struct Strata<'a> {
    ledger: &'a Ledger,
    /// For each target, the revocations of it that count, smallest id first.
    revoked: BTreeMap<StatementId, Vec<(StatementId, &'a Revocation)>>,
    /// For operators that were revoked, the statements of theirs that still count.
    honoured: BTreeMap<PublicKey, BTreeSet<StatementId>>,
    authority: Authority,
}

impl<'a> Strata<'a> {
    fn new(ledger: &'a Ledger) -> Self {
        let mut strata = Self {
            ledger,
            revoked: BTreeMap::new(),
            honoured: BTreeMap::new(),
            authority: Authority {
                mesh: ledger.mesh(),
                roots: ledger.roots().clone(),
                members: BTreeMap::new(),
                by_key: BTreeMap::new(),
                invites: BTreeMap::new(),
                grants: BTreeMap::new(),
                authors: BTreeMap::new(),
            },
        };
        strata.collect_revocations(Signers::Roots);
        strata
    }

    fn counts(&self, id: &StatementId, recorded: &Recorded, signers: Signers) -> bool {
        let signer = &recorded.signed.signer;
        let is_root = self.authority.roots.contains(signer);
        match signers {
            Signers::Roots => is_root,
            Signers::Operators => {
                !is_root
                    && match self.authority.authors.get(signer) {
                        None => false,
                        Some(Authorship::Full) => true,
                        Some(Authorship::Through(_)) => self
                            .honoured
                            .get(signer)
                            .is_some_and(|honoured| honoured.contains(id)),
                    }
            }
        }
    }

    fn collect_revocations(&mut self, signers: Signers) {
        let ledger = self.ledger;
        for (id, recorded) in ledger.iter() {
            let Statement::Revocation(revocation) = &recorded.entry.statement else {
                continue;
            };
            if !self.counts(id, recorded, signers) {
                continue;
            }
            let from_above = ledger.get(&revocation.target).is_some_and(|target| {
                signers == Signers::Roots || target.signed.signer == recorded.signed.signer
            });
            if from_above {
                self.revoked
                    .entry(revocation.target)
                    .or_default()
                    .push((*id, revocation));
            }
        }
    }

    fn enrol(&mut self, signers: Signers) {
        let ledger = self.ledger;
        for (id, recorded) in ledger.iter() {
            let signer = recorded.signed.signer;
            let is_root = self.authority.roots.contains(&signer);
            if is_root != (signers == Signers::Roots) {
                continue;
            }
            let counts = self.counts(id, recorded, signers);
            match &recorded.entry.statement {
                Statement::Enrolment(enrolment) => {
                    let standing = match self.revocation(id) {
                        Some(by) => Standing::Revoked(by),
                        None if counts => Standing::Active,
                        None => Standing::Lapsed,
                    };
                    self.add_member(*id, recorded, enrolment, standing);
                }
                Statement::Invite(invite) => {
                    let revoked = !counts || self.revocation(id).is_some();
                    self.authority.invites.insert(
                        *id,
                        InviteState {
                            invite: invite.clone(),
                            signer,
                            used: BTreeMap::new(),
                            revoked,
                        },
                    );
                }
                _ => {}
            }
        }
    }

    fn revocation(&self, target: &StatementId) -> Option<StatementId> {
        self.revoked
            .get(target)
            .and_then(|found| found.first())
            .map(|(id, _)| *id)
    }

    fn add_member(
        &mut self,
        id: StatementId,
        recorded: &Recorded,
        enrolment: &Enrolment,
        standing: Standing,
    ) {
        let node = NodeId::from(id);
        self.authority
            .by_key
            .entry(enrolment.subject)
            .or_default()
            .push(node);
        self.authority.members.insert(
            node,
            Member {
                id: node,
                key: enrolment.subject,
                name: enrolment.name.clone(),
                roles: enrolment.roles,
                site: enrolment.site.clone(),
                enrolled_by: recorded.signed.signer,
                enrolled_at: recorded.entry.at,
                not_after: enrolment.not_after,
                standing,
            },
        );
    }

    /// Decides which operators stand, and how far the word of the others is honoured.
    fn stand_operators(&mut self) {
        let operators: Vec<Member> = self
            .authority
            .members
            .values()
            .filter(|member| member.roles.has(Role::Operator))
            .cloned()
            .collect();
        for operator in operators {
            let full = operator.standing == Standing::Active;
            let known = self.authority.authors.get(&operator.key).copied();
            if full || known == Some(Authorship::Full) {
                self.authority
                    .authors
                    .insert(operator.key, Authorship::Full);
                continue;
            }
            let revocations = self.revoked.get(&StatementId::from(operator.id));
            let revocations = revocations.map(Vec::as_slice).unwrap_or_default();
            let lowest = |pick: fn(&Revocation) -> Option<Position>| {
                revocations
                    .iter()
                    .map(|(_, revocation)| {
                        pick(revocation).unwrap_or(Position {
                            seq: 0,
                            hash: [0; 32],
                        })
                    })
                    .min_by_key(|position| (position.seq, position.hash))
                    .expect("an operator that does not stand was revoked by a root key")
            };
            let statements = lowest(|revocation| revocation.honour_statements);
            let changes = lowest(|revocation| revocation.honour_changes);
            let honoured = if statements.seq == 0 {
                BTreeSet::new()
            } else {
                self.ledger
                    .chain_through(&operator.key, StatementId(statements.hash))
            };
            self.honoured.insert(operator.key, honoured);
            self.authority
                .authors
                .insert(operator.key, Authorship::Through(changes));
        }
        self.collect_revocations(Signers::Operators);
    }

    fn contest(&mut self) {
        let mut claims: BTreeMap<(StatementId, u16), Vec<NodeId>> = BTreeMap::new();
        for (id, recorded) in self.ledger.iter() {
            let Statement::Enrolment(enrolment) = &recorded.entry.statement else {
                continue;
            };
            let Admission::Invited {
                invite, use_index, ..
            } = enrolment.admission
            else {
                continue;
            };
            if let Some(state) = self.authority.invites.get_mut(&invite) {
                state.used.insert(use_index, enrolment.subject);
            }
            let node = NodeId::from(*id);
            if self.authority.members[&node].standing == Standing::Active {
                claims.entry((invite, use_index)).or_default().push(node);
            }
        }
        for nodes in claims.into_values().filter(|nodes| nodes.len() > 1) {
            for node in nodes {
                if let Some(member) = self.authority.members.get_mut(&node) {
                    member.standing = Standing::Contested;
                }
            }
        }
    }

    fn collect_grants(&mut self) {
        let ledger = self.ledger;
        for (id, recorded) in ledger.iter() {
            let Statement::Grant(grant) = &recorded.entry.statement else {
                continue;
            };
            let counts = self.counts(id, recorded, Signers::Roots)
                || self.counts(id, recorded, Signers::Operators);
            if counts {
                self.authority.grants.insert(
                    *id,
                    GrantState {
                        grant: grant.clone(),
                        signer: recorded.signed.signer,
                        revoked: self.revoked.contains_key(id),
                    },
                );
            }
        }
    }
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

    /// The node whose key this is: the active enrolment where there is one.
    pub fn by_key(&self, key: &PublicKey) -> Option<&Member> {
        let ids = self.by_key.get(key)?;
        let active = ids
            .iter()
            .map(|id| &self.members[id])
            .find(|member| member.standing == Standing::Active);
        active.or_else(|| ids.first().map(|id| &self.members[id]))
    }

    /// Whether `key` may talk to the mesh at `now`: enrolled, not revoked, not expired.
    /// A contested node may: it is its grants that are frozen.
    pub fn admits(&self, now: UnixSecs, key: &PublicKey) -> bool {
        self.by_key(key).is_some_and(|member| {
            matches!(member.standing, Standing::Active | Standing::Contested)
                && member.not_after.is_none_or(|end| now < end)
        })
    }

    /// The node of `key` if it counts at `now` and has `role`.
    pub fn standing(&self, now: UnixSecs, key: &PublicKey, role: Role) -> Result<&Member, Denied> {
        let member = self.by_key(key).ok_or(Denied::NotEnrolled(*key))?;
        match member.standing {
            Standing::Active => {}
            Standing::Contested => return Err(Denied::NodeContested(*key)),
            Standing::Revoked(_) | Standing::Lapsed => return Err(Denied::NodeRevoked(*key)),
        }
        if member.not_after.is_some_and(|end| now >= end) {
            return Err(Denied::NodeExpired(*key));
        }
        if !member.roles.has(role) {
            return Err(Denied::NotInRole { node: *key, role });
        }
        Ok(member)
    }

    /// Whether `key` is the key of the node that was named as `node`: the same
    /// enrolment, or a later one of the same key.
    pub fn is_node(&self, node: NodeId, key: PublicKey) -> bool {
        self.members
            .get(&node)
            .is_some_and(|member| member.key == key)
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
        let stands = move |id: &NodeId, role: Role| {
            self.member(id).is_some_and(|member| {
                let standing = self.standing(wall, &member.key, role);
                standing.is_ok_and(|standing| standing.id == *id)
            })
        };
        let live = self.grants.iter().filter(move |(_, state)| {
            !state.revoked
                && wall < state.grant.not_after
                && stands(&state.grant.agent, Role::Agent)
        });
        live.flat_map(move |(id, state)| {
            let pool = state.grant.replicators.iter();
            let standing = pool.filter(move |node| stands(node, Role::Replicator));
            standing.map(move |replicator| {
                let pair = Pair {
                    grant: *id,
                    replicator: *replicator,
                };
                (pair, &state.grant)
            })
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
