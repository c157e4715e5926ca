//! The people of a world: they work at the first node, hand out invites, and try
//! again what a crash interrupted.
//!
//! Not here: what they want (`scenario`).

use crate::context::Context;
use crate::node::Node;
use crate::rng::{Rng, Stream};
use crate::scenario::{At, Migration, Wish};
use crate::world::World;
use crdt::{Desired, MigrationPlan};
use keys::invite::Token;
use keys::statement::{Grant, Invite};
use keys::{Identity, NodeId, Revocation, Role, Roles, Statement, StatementId, UnixSecs};

/// How long an invite is open: longer than any clock is off.
const INVITE_SECS: u64 = 10 * 86_400;

/// Whether what people wanted is done, or has to wait.
#[derive(PartialEq, Eq)]
enum Done {
    Yes,
    NotYet,
}

impl World {
    /// People look, and do what is next.
    pub fn people(&mut self) {
        for index in 1..self.scenario.nodes {
            let due = self.ctx.now >= self.scenario.invited_at_millis[index];
            if due && self.nodes[index].token.is_none() {
                self.invite(index);
            }
        }
        for at in 0..self.scenario.migrations.len() {
            let migration = self.scenario.migrations[at].clone();
            let Some(At {
                at_millis: due,
                what: wish,
            }) = migration.wishes.front().copied()
            else {
                continue;
            };
            if self.ctx.now < due {
                continue;
            }
            let revokes = matches!(
                wish,
                Wish::RevokeGrants
                    | Wish::RevokeAgent
                    | Wish::RevokeReplicators
                    | Wish::RevokeOneReplicator
            );
            if revokes && migration.is_cut_off && !self.ctx.calm {
                self.cut_off_ends(&migration);
            }
            let mut done = Done::NotYet;
            self.live(0, |node, ctx| {
                if node.replica().is_some() {
                    done = node.fulfil(ctx, &migration, wish)?;
                }
                Ok(())
            });
            if done == Done::Yes {
                let what = format_args!("people want of {}: {}", migration.id.short(), wish.text());
                self.ctx.note(0, what);
                self.scenario.migrations[at].wishes.pop_front();
            }
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
    fn invite(
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

    fn state(
        &mut self,
        ctx: &mut Context,
        statement: Statement,
    ) -> Result<Option<StatementId>, crate::node::Died> {
        let now = self.now(ctx);
        let mut out = vec![];
        let replica = self
            .up()
            .replica
            .as_mut()
            .expect("people work at an enrolled node");
        let stated = replica.state(now.wall, statement, &mut out);
        self.carry_replica(ctx, out)?;
        Ok(stated.ok())
    }

    fn edit(
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
        match wish {
            Wish::Create => self.create(ctx, migration),
            Wish::Start | Wish::Resume => self.start(ctx, migration, wish),
            Wish::Pause => self.edit(ctx, |edit| edit.set_desired(id, Desired::Paused)),
            Wish::Delete => self.edit(ctx, |edit| edit.set_desired(id, Desired::Deleted)),
            Wish::Cutover { prove_full } => {
                let desired = Desired::Cutover { prove_full };
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
        let Some(ids) = self.ids_of(ctx, indexes) else {
            return Ok(Done::NotYet);
        };
        self.revoke(ctx, ids.into_iter().map(StatementId::from).collect())
    }

    /// The ids of participants as the ledger here has them; none unless all are in it.
    fn ids_of(&self, ctx: &Context, indexes: &[usize]) -> Option<Vec<NodeId>> {
        let authority = self.replica()?.authority();
        let id = |index: &usize| Some(authority.by_key(&ctx.key_of(*index))?.id);
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
        let grant = Statement::Grant(Grant {
            migration: id,
            agent,
            replicators,
            volumes: migration.volumes.clone(),
            not_after: UnixSecs(now.wall.0 + migration.grant_secs),
            lease_secs: migration.lease_secs,
            autonomy_secs: migration.autonomy_secs,
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
