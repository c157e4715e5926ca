//! The people of a world: they work at the operators' nodes, hand out invites, and try
//! again what a crash interrupted.
//!
//! Not here: what they want (`scenario`).

use crate::context::Context;
use crate::freezing::is_absent;
use crate::node::Node;
use crate::rng::{Rng, Stream};
use crate::scenario::{At, Migration, Wish};
use crate::world::World;
use crdt::{Desired, Limit, Limited, MigrationPlan, SourceEnd};
use keys::invite::Token;
use keys::statement::{Grant, Invite};
use keys::{Identity, NodeId, Revocation, Role, Roles, Statement, StatementId, UnixSecs};
use mesh::{Replica, StateError};
use std::collections::VecDeque;

/// How long an invite is open: longer than any clock is off.
const INVITE_SECS: u64 = 10 * 86_400;

/// Whose people they are: of the operator who founded the mesh, or of the second one.
#[derive(Clone, Copy)]
enum Desk {
    First,
    Second,
}

impl Desk {
    fn wishes(self, migration: &mut Migration) -> &mut VecDeque<At<Wish>> {
        match self {
            Self::First => &mut migration.wishes,
            Self::Second => &mut migration.second_wishes,
        }
    }
}

/// Whether what people wanted is done, or has to wait.
#[derive(PartialEq, Eq)]
pub enum Done {
    /// It is.
    Yes,
    /// It has to wait.
    NotYet,
}

impl World {
    /// People look, and do what is next.
    pub fn people(&mut self) {
        for index in 1..self.scenario.nodes {
            let due = self.ctx.now >= self.scenario.invited_at_millis[index];
            let is_blank = self.scenario.recovers().or(self.heir) == Some(index);
            if due && self.nodes[index].token.is_none() && !is_blank {
                self.invite(index);
            }
        }
        for at in 0..self.scenario.migrations.len() {
            self.wanted_next(at, Desk::First);
            self.wanted_next(at, Desk::Second);
        }
    }

    /// Does what is next of what people want of a migration at one of the desks.
    fn wanted_next(&mut self, at: usize, desk: Desk) {
        let Some(index) = self.operator_at(desk) else {
            return;
        };
        let migration = self.scenario.migrations[at].clone();
        let Some(next) = desk.wishes(&mut migration.clone()).pop_front() else {
            return;
        };
        let wish = next.what;
        if self.ctx.now < next.at_millis {
            return;
        }
        if wish.revokes() && migration.is_cut_off && !self.ctx.calm {
            self.cut_off_ends(&migration);
        }
        let mut done = Done::NotYet;
        self.live(index, |node, ctx| {
            if node.replica().is_some() {
                done = node.fulfil(ctx, &migration, wish)?;
            }
            Ok(())
        });
        if done == Done::Yes {
            let what = format_args!("people want of {}: {}", migration.id.short(), wish.text());
            self.ctx.note(index, what);
            match desk {
                Desk::Second => self.ctx.seen.second_wishes += 1,
                Desk::First if index != 0 => self.ctx.seen.inherited_wishes += 1,
                Desk::First => {}
            }
            desk.wishes(&mut self.scenario.migrations[at]).pop_front();
            if let Desk::First = desk {
                self.done[at].push(next);
            }
        }
    }

    /// The first operator is lost, perhaps with what people decided there last: at another
    /// one they see what became of it, and decide once more.
    pub fn inherit(&mut self, heir: usize) {
        self.heir = Some(heir);
        // All were connected to the lost one, and some perhaps to nobody else that counts.
        let others = (1..self.scenario.nodes).filter(|node| *node != heir);
        self.edges
            .extend(others.map(|node| (node.min(heir), node.max(heir))));
        for (migration, done) in self.scenario.migrations.iter_mut().zip(&self.done) {
            let is_revoked = done.iter().any(|wish| wish.what.revokes());
            let begins = |wish: &At<Wish>| matches!(wish.what, Wish::Create | Wish::Start);
            let last = done.last().copied();
            let again = |wish: &At<Wish>| {
                wish.what.revokes() || (begins(wish) && !is_revoked) || Some(*wish) == last
            };
            let again: Vec<_> = done.iter().copied().filter(again).collect();
            for wish in again.into_iter().rev() {
                migration.wishes.push_front(wish);
            }
        }
    }

    /// Where the people of a desk work now.
    fn operator_at(&self, desk: Desk) -> Option<usize> {
        match desk {
            Desk::First if self.is_recovering() => None,
            Desk::First => Some(self.heir.unwrap_or(0)),
            Desk::Second => self.scenario.second_operator,
        }
    }

    fn invite(&mut self, index: usize) {
        let roles = self.roles_of(index);
        let which = [self.scenario.nodes as u64 + index as u64 + 1];
        let seed = Rng::of(self.ctx.seed, Stream::Keys, &which).bytes();
        let mut token = None;
        self.live(0, |node, ctx| {
            token = node.invite(ctx, roles, seed)?;
            Ok(())
        });
        self.nodes[index].token = token;
    }

    /// What a node is enrolled for.
    fn roles_of(&self, index: usize) -> Roles {
        let operator = (self.scenario.second_operator == Some(index)).then_some(Role::Operator);
        self.work_of(index).iter().chain(operator).collect()
    }

    /// What work a node is enrolled for.
    fn work_of(&self, index: usize) -> Roles {
        let migrations = &self.scenario.migrations;
        if migrations.iter().any(|migration| migration.agent == index) {
            return [Role::Agent].into_iter().collect();
        }
        let receives = |migration: &Migration| migration.replicators.contains(&index);
        let provisions = |migration: &Migration| migration.provisioner == index;
        match migrations.iter().any(receives) {
            true => [Role::Replicator].into_iter().collect(),
            false if migrations.iter().any(provisions) => [Role::Provisioner].into_iter().collect(),
            false => [Role::Agent, Role::Replicator].into_iter().collect(),
        }
    }
}

impl Node {
    /// Makes an invite of one use.
    pub fn invite(
        &mut self,
        ctx: &mut Context,
        roles: Roles,
        seed: [u8; 32],
    ) -> Result<Option<Token>, crate::node::Died> {
        let now = self.now(ctx);
        let Some(mesh) = self.mesh() else {
            return Ok(None);
        };
        let not_after = UnixSecs(now.wall.0 + INVITE_SECS);
        let invite = Statement::Invite(Invite {
            key: Identity::from_seed(&seed).public(),
            roles,
            name: None,
            site: None,
            not_after,
            uses: 1,
            admitter: self.identity.public(),
            scope: keys::Scope::Everywhere,
            member_until: None,
        });
        let Some(invite) = self.state(ctx, invite)? else {
            return Ok(None);
        };
        Ok(Some(Token {
            mesh,
            invite,
            admitter: self.identity.public(),
            addresses: vec![],
            not_after,
            seed,
        }))
    }

    /// States something, with the root key that people have where only that may.
    pub fn state(
        &mut self,
        ctx: &mut Context,
        statement: Statement,
    ) -> Result<Option<StatementId>, crate::node::Died> {
        let now = self.now(ctx);
        let mut out = vec![];
        let up = self.up.as_mut().expect("people work at a running node");
        let replica = up
            .replica
            .as_mut()
            .expect("people work at an enrolled node");
        let mut stated = replica.state(now.wall, statement.clone(), &mut out);
        if let (Err(StateError::NeedsRoot), Some(root)) = (&stated, &self.lent) {
            stated = replica.state_as_root(root, now.wall, statement, &mut out);
        }
        self.carry_replica(ctx, out)?;
        Ok(stated.ok())
    }

    /// Makes a change of the plan.
    pub fn edit(
        &mut self,
        ctx: &mut Context,
        change: impl FnOnce(&mut crdt::Edit<'_>) -> Result<(), crdt::EditError>,
    ) -> Result<Done, crate::node::Died> {
        let now = self.now(ctx);
        let mut out = vec![];
        let replica = self
            .up()
            .replica
            .as_mut()
            .expect("people work at an enrolled node");
        let edited = replica.edit(now.wall, change, &mut out);
        self.carry_replica(ctx, out)?;
        Ok(match edited {
            Ok(()) => Done::Yes,
            Err(_) => Done::NotYet,
        })
    }

    fn fulfil(
        &mut self,
        ctx: &mut Context,
        migration: &Migration,
        wish: Wish,
    ) -> Result<Done, crate::node::Died> {
        let id = migration.id;
        let plan = self.replica().map(|replica| replica.document().plan());
        let planned = plan.and_then(|plan| plan.migrations.get(&id));
        if planned.is_some_and(|planned| planned.desired == Desired::Deleted) {
            // What was wanted before the last attempt died is of no use any more.
            return Ok(Done::Yes);
        }
        let may_go = planned.is_some_and(|planned| !planned.grants.is_empty());
        let goes = matches!(
            wish,
            Wish::Pause | Wish::Resume | Wish::Cutover { .. } | Wish::NameReplicator { .. }
        );
        if goes && !may_go && ctx.calm && planned.is_some() && self.has_good_grant(&id) {
            // Two operators created it apart, and the one that counts was not started.
            self.start(ctx, migration, Wish::Start)?;
            return Ok(Done::NotYet);
        }
        if goes && !may_go {
            // Another operator is to start it, and this one has not heard that it did.
            return Ok(Done::NotYet);
        }
        match wish {
            Wish::Create => self.create(ctx, migration),
            // It was started before an operator was lost.
            Wish::Start if may_go && self.has_good_grant(&id) => Ok(Done::Yes),
            Wish::Start | Wish::Resume => self.start(ctx, migration, wish),
            Wish::Pause => self.edit(ctx, |edit| edit.set_desired(id, Desired::Paused)),
            Wish::NameReplicator { place, alone } => {
                let mut pool = migration.replicators.clone();
                pool.rotate_left(place);
                pool.truncate(if alone { 1 } else { pool.len() });
                let pool = self.ids_of(ctx, &pool);
                let Some(pool) = pool else {
                    // One of them was revoked before its change of keys was heard of here:
                    // it is not to be named any more.
                    return Ok(Done::Yes);
                };
                let source = self.ids_of(ctx, &[migration.agent]);
                self.edit(ctx, |edit| {
                    edit.set_pool(id, &pool)?;
                    match &source {
                        Some(source) => edit.set_limit(&Limited::Server(source[0]), &slower(place)),
                        None => Ok(()),
                    }
                })
            }
            Wish::Delete => self.edit(ctx, |edit| edit.set_desired(id, Desired::Deleted)),
            Wish::Cutover { prove_full } => {
                let source = match ctx.seed % 3 {
                    0 => SourceEnd::Thaw,
                    1 => SourceEnd::StayFrozen,
                    _ => SourceEnd::Unsaid,
                };
                let source = match is_absent(ctx.seed, migration.agent) {
                    true => SourceEnd::Unsaid,
                    false => source,
                };
                let desired = Desired::Cutover { prove_full, source };
                self.edit(ctx, |edit| edit.set_desired(id, desired))
            }
            Wish::AwaitCutOver => {
                let now = self.now(ctx);
                let over = self.with_situation(now, |situation| situation.cut_over(&id));
                Ok(match over {
                    Some(true) if ctx.oracle.volumes_cut_over(&id) == migration.volumes.len() => {
                        Done::Yes
                    }
                    _ => Done::NotYet,
                })
            }
            Wish::RevokeGrants => {
                let replica = self
                    .up()
                    .replica
                    .as_ref()
                    .expect("people work at an enrolled node");
                if !replica.may_write() {
                    // It may not know of the grant.
                    return Ok(Done::NotYet);
                }
                let grants: Vec<StatementId> = replica
                    .authority()
                    .grants()
                    .filter(|(_, state)| state.grant.migration == id && !state.revoked)
                    .map(|(grant, _)| *grant)
                    .collect();
                self.revoke(ctx, grants)
            }
            Wish::RevokeAgent => self.revoke_nodes(ctx, &[migration.agent]),
            Wish::RevokeReplicators => self.revoke_nodes(ctx, &migration.replicators),
            Wish::RevokeOneReplicator => self.revoke_nodes(ctx, &migration.replicators[..1]),
        }
    }

    fn has_good_grant(&self, migration: &keys::MigrationId) -> bool {
        let authority = self.replica().map(Replica::authority);
        authority.is_some_and(|authority| {
            let mut grants = authority.grants();
            grants.any(|(_, state)| state.grant.migration == *migration && !state.revoked)
        })
    }

    fn revoke(
        &mut self,
        ctx: &mut Context,
        targets: Vec<StatementId>,
    ) -> Result<Done, crate::node::Died> {
        for target in targets {
            let revocation = Statement::Revocation(Revocation {
                target,
                honours: None,
                reason: "the script says so".into(),
            });
            if self.state(ctx, revocation)?.is_none() {
                return Ok(Done::NotYet);
            }
        }
        Ok(Done::Yes)
    }

    fn revoke_nodes(
        &mut self,
        ctx: &mut Context,
        indexes: &[usize],
    ) -> Result<Done, crate::node::Died> {
        let Some(authority) = self.replica().map(Replica::authority) else {
            return Ok(Done::NotYet);
        };
        // One may have changed its key while it was cut off.
        let id = |index: &usize| {
            let is_it = |member: &&keys::Member| ctx.keys.get(&member.key) == Some(index);
            authority.members().find(is_it).map(|member| member.id)
        };
        let ids: Option<Vec<NodeId>> = indexes.iter().map(id).collect();
        let Some(ids) = ids else {
            return Ok(Done::NotYet);
        };
        self.revoke(ctx, ids.into_iter().map(StatementId::from).collect())
    }

    /// The ids of participants as the ledger here has them; none unless all are in it.
    fn ids_of(&self, ctx: &Context, indexes: &[usize]) -> Option<Vec<NodeId>> {
        let authority = self.replica()?.authority();
        let id = |index: &usize| {
            let present = authority.by_key(&ctx.key_of(*index));
            // One that was lost right after it changed its key has told nobody.
            let known = || {
                let is_it = |member: &&keys::Member| {
                    ctx.keys.get(&member.key) == Some(index)
                        && member.standing == keys::Standing::Active
                };
                authority.members().find(is_it)
            };
            Some(present.or_else(known)?.id)
        };
        indexes.iter().map(id).collect()
    }

    fn create(
        &mut self,
        ctx: &mut Context,
        migration: &Migration,
    ) -> Result<Done, crate::node::Died> {
        let replica = self.replica().expect("people work at an enrolled node");
        if replica
            .document()
            .plan()
            .migrations
            .contains_key(&migration.id)
        {
            return Ok(Done::Yes);
        }
        let (Some(ids), Some(replicators)) = (
            self.ids_of(ctx, &[migration.agent, migration.provisioner]),
            self.ids_of(ctx, &migration.replicators),
        ) else {
            return Ok(Done::NotYet);
        };
        let (source, provisioner) = (ids[0], ids[1]);
        let offered = replica.reports().get(&source).is_some_and(|report| {
            let offers =
                |volume: &keys::VolumeId| report.volumes.iter().any(|info| info.id == *volume);
            migration.volumes.iter().all(offers)
        });
        if !offered {
            return Ok(Done::NotYet);
        }
        let plan = MigrationPlan {
            id: migration.id,
            name: "web".into(),
            source,
            volumes: migration.volumes.clone(),
            provider: "fake".into(),
            provisioner,
            replicators,
            site: None,
            desired: Desired::Created,
            grants: vec![],
            hooks: vec![],
            leave_out: None,
            checkpoints: crdt::Checkpoints::default(),
            created_at: UnixSecs(0),
            created_by: self.identity.public(),
            conflicts: vec![],
        };
        self.edit(ctx, |edit| edit.create_migration(&plan))
    }

    fn start(
        &mut self,
        ctx: &mut Context,
        migration: &Migration,
        wish: Wish,
    ) -> Result<Done, crate::node::Died> {
        let now = self.now(ctx);
        let id = migration.id;
        if wish == Wish::Resume {
            return self.edit(ctx, |edit| edit.set_desired(id, Desired::Started));
        }
        let (Some(agent), Some(replicators)) = (
            self.ids_of(ctx, &[migration.agent]),
            self.ids_of(ctx, &migration.replicators),
        ) else {
            return Ok(Done::NotYet);
        };
        let agent = agent[0];
        let plan = self.replica().map(|replica| replica.document().plan());
        if !plan.is_some_and(|plan| plan.migrations.contains_key(&id)) {
            return Ok(Done::NotYet);
        }
        let grant = Statement::Grant(Grant {
            migration: id,
            agent,
            replicators,
            volumes: migration.volumes.clone(),
            not_after: UnixSecs(now.wall.0 + migration.grant_secs),
            lease_secs: migration.lease_secs,
            autonomy_secs: migration.autonomy_secs,
            dedup_group: None,
        });
        let Some(grant) = self.state(ctx, grant)? else {
            return Ok(Done::NotYet);
        };
        self.edit(ctx, |edit| {
            edit.add_grant(id, grant)?;
            edit.set_desired(id, Desired::Started)
        })
    }
}

/// What people who look for a better replicator let the agent send meanwhile: blocks go no
/// slower here, but operators may say so apart from each other.
fn slower(place: usize) -> Limit {
    let limit = format!("{}MiB/s zone=UTC", place + 1);
    limit.parse().expect("a rate and a zone are a limit")
}
