//! How authority is computed, in strata, so that there is never a circle:
//!
//! 1. Root keys cannot be revoked, and what they take back is taken back.
//! 2. Operators. An operator counts when a root key enrolled it, or an operator whose
//!    word counts for that statement did (with an invite that a root key signed: the
//!    ledger sees to that). This is the least fixpoint from the roots: each step only
//!    adds words, what is revoked or contested among operators is decided by the roots
//!    and the bare ledger alone, and so the order of the steps does not matter.
//! 3. Nodes and grants, by the words of roots and operators. A revocation counts only
//!    when it comes from a root key or from who signed what it takes back.
//!
//! Along the chain everything only shrinks: what an operator signs ends when its own
//! enrolment does, and is about nodes at its sites. An operator is enrolled by the root
//! key's hand in the invite, so that nothing of who countersigned shrinks it.

use super::lines::{Line, Lines, lowest};
use super::{Authority, Authorship, GrantState, InviteState, Member, Standing};
use crate::dedup::DedupDomain;
use crate::id::{NodeId, PublicKey, StatementId, UnixSecs};
use crate::ledger::{Ledger, Recorded};
use crate::scope::Scope;
use crate::statement::{Admission, Enrolment, Grant, Name, Position, Revocation, Role, Statement};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Computes the authority of a ledger.
pub fn authority(ledger: &Ledger) -> Authority {
    let mut strata = Strata::new(ledger);
    strata.collect_root_revocations();
    strata.find_contested_operators();
    strata.hear_operators();
    strata.collect_revocations();
    strata.enrol();
    strata.contest();
    strata.collect_grants();
    strata.authority
}

/// What counts of the statements of one key, because of one operator's enrolment.
struct Word {
    node: NodeId,
    statements: Covers,
    scope: Scope,
    end: Option<UnixSecs>,
}

/// Which statements a word covers.
enum Covers {
    All,
    Only(BTreeSet<StatementId>),
}

impl Word {
    fn covers(&self, id: &StatementId) -> bool {
        match &self.statements {
            Covers::All => true,
            Covers::Only(honoured) => honoured.contains(id),
        }
    }
}

/// Until when something counts: not at all, or until an end that is never for none.
type Until = Option<Option<UnixSecs>>;

struct Strata<'a> {
    ledger: &'a Ledger,
    lines: Lines<'a>,
    /// For each target, the revocations of it that count, smallest id first.
    revoked: BTreeMap<StatementId, Vec<(StatementId, &'a Revocation)>>,
    /// Operators one of whose invite's uses was used twice.
    contested: BTreeSet<StatementId>,
    words: BTreeMap<PublicKey, Vec<Word>>,
    authority: Authority,
}

impl<'a> Strata<'a> {
    fn new(ledger: &'a Ledger) -> Self {
        Self {
            ledger,
            lines: Lines::of(ledger),
            revoked: BTreeMap::new(),
            contested: BTreeSet::new(),
            words: BTreeMap::new(),
            authority: Authority {
                mesh: ledger.mesh(),
                roots: ledger.roots().clone(),
                members: BTreeMap::new(),
                by_key: BTreeMap::new(),
                invites: BTreeMap::new(),
                grants: BTreeMap::new(),
                authors: BTreeMap::new(),
                cloned: ledger.forks().keys().copied().collect(),
            },
        }
    }

    fn is_root(&self, key: &PublicKey) -> bool {
        self.authority.roots.contains(key)
    }

    /// Whether what `signer` stated as `id` counts.
    fn counts(&self, id: &StatementId, signer: &PublicKey) -> bool {
        self.is_root(signer) || self.words_for(id, signer).next().is_some()
    }

    fn words_for(&self, id: &StatementId, signer: &PublicKey) -> impl Iterator<Item = &Word> {
        let words = self.words.get(signer).into_iter().flatten();
        words.filter(|word| word.covers(id))
    }

    /// Until when what `signer` stated as `id` about nodes at `sites` counts: until the
    /// latest end of the words for it.
    fn until(&self, id: &StatementId, signer: &PublicKey, sites: &[Option<&Name>]) -> Until {
        if self.is_root(signer) {
            return Some(None);
        }
        self.best_word(id, signer, sites).map(|word| word.end)
    }

    /// The scope of who says it: that of the word that counts until then.
    fn scope_for(&self, id: &StatementId, signer: &PublicKey, sites: &[Option<&Name>]) -> Scope {
        match self.best_word(id, signer, sites) {
            Some(word) if !self.is_root(signer) => word.scope.clone(),
            _ => Scope::Everywhere,
        }
    }

    /// Of the signer's words for a statement about nodes at `sites` the one that ends last.
    fn best_word(
        &self,
        id: &StatementId,
        signer: &PublicKey,
        sites: &[Option<&Name>],
    ) -> Option<&Word> {
        let inside = |word: &&Word| sites.iter().all(|site| word.scope.has(*site));
        let words = self.words_for(id, signer).filter(inside);
        // Of two that end together always the same one, in whatever order they came.
        words.max_by_key(|word| {
            let end = word.end.map_or(u64::MAX, |end| end.0);
            (end, Reverse(word.scope.clone()))
        })
    }

    fn revocations(
        &self,
    ) -> impl Iterator<Item = (&'a StatementId, &'a Recorded, &'a Revocation)> + use<'a> {
        let ledger = self.ledger;
        ledger
            .iter()
            .filter_map(|(id, recorded)| match &recorded.entry.statement {
                Statement::Revocation(revocation) => Some((id, recorded, revocation)),
                _ => None,
            })
    }

    fn enrolments(
        &self,
    ) -> impl Iterator<Item = (&'a StatementId, &'a Recorded, &'a Enrolment)> + use<'a> {
        let ledger = self.ledger;
        ledger
            .iter()
            .filter_map(|(id, recorded)| match &recorded.entry.statement {
                Statement::Enrolment(enrolment) => Some((id, recorded, enrolment)),
                _ => None,
            })
    }

    fn collect_root_revocations(&mut self) {
        for (id, recorded, revocation) in self.revocations() {
            if self.is_root(&recorded.signed.signer) {
                let of_target = self.revoked.entry(revocation.target).or_default();
                of_target.push((*id, revocation));
            }
        }
    }

    /// An operator whose invite's use was used by another enrolment as well, whoever's
    /// word that one has: were it to depend on words, words would depend on it.
    fn find_contested_operators(&mut self) {
        let mut claims: BTreeMap<(StatementId, u16), Vec<(StatementId, bool)>> = BTreeMap::new();
        for (id, _, enrolment) in self.enrolments() {
            if let Admission::Invited {
                invite, use_index, ..
            } = enrolment.admission
                && !self.revoked.contains_key(id)
            {
                let operator = enrolment.roles.has(Role::Operator);
                let of_use = claims.entry((invite, use_index)).or_default();
                of_use.push((*id, operator));
            }
        }
        let twice = claims.into_values().filter(|of_use| of_use.len() > 1);
        let operators = twice.flatten().filter(|(_, operator)| *operator);
        self.contested.extend(operators.map(|(id, _)| id));
    }

    /// Gives every operator that is enrolled from the roots down its word.
    fn hear_operators(&mut self) {
        let mut waiting: Vec<_> = self
            .enrolments()
            .filter(|(_, _, enrolment)| enrolment.roles.has(Role::Operator))
            .collect();
        for (id, _, enrolment) in &waiting {
            // Of who was ever an operator it is known that nothing counts, until more does.
            let node = NodeId::from(**id);
            let keys: Vec<_> = self.lines.keys(node).chain([enrolment.subject]).collect();
            for key in keys {
                let nothing = Authorship::Through(Position::NONE);
                self.authority.authors.entry(key).or_insert(nothing);
            }
        }
        loop {
            let (heard, still): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|(id, recorded, _)| self.counts(id, &recorded.signed.signer));
            if heard.is_empty() {
                return;
            }
            for (id, _, enrolment) in heard {
                self.hear(*id, enrolment);
            }
            waiting = still;
        }
    }

    /// Gives the keys of one operator their words.
    fn hear(&mut self, id: StatementId, enrolment: &Enrolment) {
        let node = NodeId::from(id);
        if self.revoked.contains_key(&id) {
            return self.honour(id, node, enrolment);
        }
        if self.contested.contains(&id) {
            return;
        }
        let Line {
            steps,
            key,
            contested,
        } = self.lines.follow(node, enrolment.subject);
        for step in &steps {
            let statements = self.ledger.chain_through(&step.from, step.id);
            self.give(node, enrolment, step.from, Covers::Only(statements));
            self.author(step.from, Authorship::Through(step.rotation.honour_changes));
        }
        if contested.is_empty() {
            self.give(node, enrolment, key, Covers::All);
            self.author(key, Authorship::Full);
        } else {
            // What all of the contradicting rotations agree on.
            let mut chains = contested
                .iter()
                .map(|step| self.ledger.chain_through(&key, step.id));
            let first = chains.next().unwrap_or_default();
            let common = chains.fold(first, |common, chain| &common & &chain);
            let changes = lowest(contested.iter().map(|step| step.rotation.honour_changes));
            self.give(node, enrolment, key, Covers::Only(common));
            self.author(key, Authorship::Through(changes));
        }
    }

    /// What counts of a revoked operator: the lowest of what its revocations honour.
    fn honour(&mut self, id: StatementId, node: NodeId, enrolment: &Enrolment) {
        let enrolled = enrolment.subject;
        let honours = self.revoked[&id].iter().map(|(_, revocation)| {
            let honoured = revocation.honours?;
            let path = self.lines.path(node, enrolled, honoured.key)?;
            Some((path, honoured))
        });
        // A key that the node had earlier is lower than any place in a later one's chain.
        let Some(honours) = honours.collect::<Option<Vec<_>>>() else {
            return;
        };
        let lowest = |pick: fn(&(Vec<_>, crate::statement::Honoured)) -> Position| {
            let rank = |honoured: &&(Vec<_>, _)| {
                let position = pick(honoured);
                (honoured.0.len(), position.seq, position.hash)
            };
            honours.iter().min_by_key(rank).cloned()
        };
        let statements = lowest(|(_, honoured)| honoured.statements);
        let changes = lowest(|(_, honoured)| honoured.changes);
        if let Some((path, honoured)) = statements {
            for step in &path {
                let chain = self.ledger.chain_through(&step.from, step.id);
                self.give(node, enrolment, step.from, Covers::Only(chain));
            }
            let last = StatementId(honoured.statements.hash);
            let chain = match honoured.statements.seq {
                0 => BTreeSet::new(),
                _ => self.ledger.chain_through(&honoured.key, last),
            };
            self.give(node, enrolment, honoured.key, Covers::Only(chain));
        }
        if let Some((path, honoured)) = changes {
            for step in &path {
                self.author(step.from, Authorship::Through(step.rotation.honour_changes));
            }
            self.author(honoured.key, Authorship::Through(honoured.changes));
        }
    }

    fn give(&mut self, node: NodeId, enrolment: &Enrolment, key: PublicKey, statements: Covers) {
        self.words.entry(key).or_default().push(Word {
            node,
            statements,
            scope: enrolment.scope.clone(),
            end: enrolment.not_after,
        });
    }

    /// Of several enrolments of one key, the one that honours most decides.
    fn author(&mut self, key: PublicKey, through: Authorship) {
        let reach = |authorship: &Authorship| match authorship {
            Authorship::Full => (u64::MAX, [0xff; 32]),
            Authorship::Through(position) => (position.seq, position.hash),
        };
        let known = self.authority.authors.entry(key).or_insert(through);
        if reach(&through) > reach(known) {
            *known = through;
        }
    }

    /// Adds what operators take back of their own: with whichever of their keys.
    fn collect_revocations(&mut self) {
        for (id, recorded, revocation) in self.revocations() {
            let signer = &recorded.signed.signer;
            let Some(target) = self.ledger.get(&revocation.target) else {
                continue;
            };
            if self.is_root(signer) || self.roots_alone_revoke(target) {
                continue;
            }
            let signers = self.ledger.nodes_of(&target.signed.signer);
            let own = self
                .words_for(id, signer)
                .any(|word| signers.contains(&word.node));
            if own {
                let of_target = self.revoked.entry(revocation.target).or_default();
                of_target.push((*id, revocation));
            }
        }
        for of_target in self.revoked.values_mut() {
            of_target.sort_by_key(|(id, _)| *id);
        }
    }

    /// An operator stands by a root key's hand, whoever countersigned its enrolment.
    fn roots_alone_revoke(&self, target: &Recorded) -> bool {
        matches!(&target.entry.statement,
            Statement::Enrolment(enrolment) if enrolment.roles.has(Role::Operator))
    }

    fn revocation(&self, target: &StatementId) -> Option<StatementId> {
        let found = self.revoked.get(target)?.first()?;
        Some(found.0)
    }

    fn enrol(&mut self) {
        let ledger = self.ledger;
        for (id, recorded) in ledger.iter() {
            let signer = recorded.signed.signer;
            match &recorded.entry.statement {
                Statement::Enrolment(enrolment) => self.add_member(*id, recorded, enrolment),
                Statement::Invite(invite) => {
                    let counts = self.until(id, &signer, &[invite.site.as_ref()]).is_some();
                    let state = InviteState {
                        invite: invite.clone(),
                        signer,
                        used: BTreeMap::new(),
                        revoked: !counts || self.revocation(id).is_some(),
                    };
                    self.authority.invites.insert(*id, state);
                }
                _ => {}
            }
        }
    }

    fn add_member(&mut self, id: StatementId, recorded: &Recorded, enrolment: &Enrolment) {
        let node = NodeId::from(id);
        let signer = recorded.signed.signer;
        let line = self.lines.follow(node, enrolment.subject);
        let until = if enrolment.roles.has(Role::Operator) {
            self.counts(&id, &signer).then_some(None)
        } else {
            self.until(&id, &signer, &[enrolment.site.as_ref()])
        };
        let standing = match (self.revocation(&id), until) {
            (Some(by), _) => Standing::Revoked(by),
            (None, None) => Standing::Lapsed,
            _ if !line.contested.is_empty() => Standing::KeyContested,
            _ if self.contested.contains(&id) => Standing::Contested,
            _ => Standing::Active,
        };
        let ends = [enrolment.not_after, until.flatten()];
        for key in self.lines.keys(node).chain([enrolment.subject]) {
            self.authority.by_key.entry(key).or_default().insert(node);
        }
        let member = Member {
            id: node,
            key: line.key,
            name: enrolment.name.clone(),
            roles: enrolment.roles,
            site: enrolment.site.clone(),
            scope: enrolment.scope.clone(),
            enrolled_by: signer,
            enrolled_at: recorded.entry.at,
            not_after: ends.into_iter().flatten().min(),
            standing,
        };
        self.authority.members.insert(node, member);
    }

    fn contest(&mut self) {
        let mut claims: BTreeMap<(StatementId, u16), Vec<NodeId>> = BTreeMap::new();
        for (id, _, enrolment) in self.enrolments() {
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
            let standing = &self.authority.members[&node].standing;
            if matches!(standing, Standing::Active | Standing::Contested) {
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
            let signer = recorded.signed.signer;
            let sites = self.sites_of(grant);
            let Some(until) = self.until(id, &signer, &sites) else {
                continue;
            };
            let state = GrantState {
                dedup_domain: DedupDomain::of(grant, &self.scope_for(id, &signer, &sites)),
                grant: grant.clone(),
                signer,
                not_after: until.map_or(grant.not_after, |end| end.min(grant.not_after)),
                revoked: self.revoked.contains_key(id),
                forked: self.past_fork(recorded),
            };
            self.authority.grants.insert(*id, state);
        }
    }

    /// Whether its signer's log is forked at this statement or before it. Of an operator
    /// that was revoked, the revocation says which branch is honoured.
    fn past_fork(&self, recorded: &Recorded) -> bool {
        let signer = &recorded.signed.signer;
        let fork = self.ledger.forks().get(signer);
        let decided = matches!(
            self.authority.authors.get(signer),
            Some(Authorship::Through(_))
        );
        !decided && fork.is_some_and(|fork| recorded.entry.seq >= *fork)
    }

    /// Where a grant's agent and replicators are; who is not known is nowhere.
    fn sites_of(&self, grant: &Grant) -> Vec<Option<&Name>> {
        let named = [&grant.agent].into_iter().chain(&grant.replicators);
        named
            .map(|node| self.authority.members.get(node)?.site.as_ref())
            .collect()
    }
}
