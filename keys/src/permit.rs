//! Permission as a value: code that reads or writes blocks for a peer takes a
//! [`Permit`], and only the authority check can make one.

use crate::authority::{Authority, Standing};
use crate::id::{MigrationId, NodeId, PublicKey, StatementId, UnixSecs, VolumeId};
use crate::statement::Role;
use std::marker::PhantomData;

/// Marks a permit to read a source volume and send its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendBlocks {}

/// Marks a permit to receive blocks and write them to a target volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveBlocks {}

/// Proof that a grant allowed this agent to send this volume to this replicator
/// when it was checked. Check again with [`Authority::recheck`] when authority
/// changes or `valid_until` passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit<Direction> {
    grant: StatementId,
    migration: MigrationId,
    volume: VolumeId,
    agent: PublicKey,
    replicator: PublicKey,
    valid_until: UnixSecs,
    direction: PhantomData<Direction>,
}

/// Why blocks may not move. A value, not a failure: the peer gets its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The key belongs to no node of this mesh.
    #[error("{} is not enrolled in this mesh", .0.short())]
    NotEnrolled(PublicKey),
    /// Its enrolment was revoked, or that of who enrolled it.
    #[error("the enrolment of {} was revoked or has lapsed", .0.short())]
    NodeRevoked(PublicKey),
    /// Its enrolment is over.
    #[error("the enrolment of {} has expired", .0.short())]
    NodeExpired(PublicKey),
    /// Two nodes claim the same use of an invite.
    #[error("the enrolment of {} is contested: revoke one of the two that used the same invite", .0.short())]
    NodeContested(PublicKey),
    /// The node has another key by now.
    #[error("{} is the key of a node that has another one by now", .0.short())]
    KeyRotated(PublicKey),
    /// The node's key gave it two different next keys.
    #[error("two keys claim to be the next one after {}: revoke that node and let it join again", .0.short())]
    KeyContested(PublicKey),
    /// The key is in two places.
    #[error("the key of {} is in use in two places: revoke its enrolment, and join again on the machine that is to stay", .0.short())]
    Cloned(PublicKey),
    /// The node lacks the role.
    #[error("{} is not enrolled as {role}", .node.short())]
    NotInRole {
        /// The node's key.
        node: PublicKey,
        /// What it would have to be.
        role: Role,
    },
    /// No such grant, or its signer is no operator any more.
    #[error("grant {} is not known in this mesh", .0.short())]
    UnknownGrant(StatementId),
    /// The grant was taken back.
    #[error("grant {} was revoked", .0.short())]
    GrantRevoked(StatementId),
    /// The grant is over.
    #[error("grant {} expired at {not_after}", .grant.short())]
    GrantExpired {
        /// The grant.
        grant: StatementId,
        /// Its end.
        not_after: UnixSecs,
    },
    /// The grant names another agent.
    #[error("grant {} is for another agent than {}", .grant.short(), .agent.short())]
    AnotherAgent {
        /// The grant.
        grant: StatementId,
        /// Who asked.
        agent: PublicKey,
    },
    /// The replicator is not in the grant's pool.
    #[error("grant {} does not name replicator {}", .grant.short(), .replicator.short())]
    AnotherReplicator {
        /// The grant.
        grant: StatementId,
        /// Who asked.
        replicator: PublicKey,
    },
    /// The grant is for another migration or does not name the volume.
    #[error("grant {} does not cover volume {}", .grant.short(), .volume.short())]
    NotCovered {
        /// The grant.
        grant: StatementId,
        /// What was asked for.
        volume: VolumeId,
    },
}

/// What a stream would move, and between whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The grant that is claimed.
    pub grant: StatementId,
    /// The migration.
    pub migration: MigrationId,
    /// The source volume.
    pub volume: VolumeId,
    /// Key of the sending node.
    pub agent: PublicKey,
    /// Key of the receiving node.
    pub replicator: PublicKey,
}

impl<Direction> Permit<Direction> {
    /// The grant it rests on.
    pub fn grant(&self) -> StatementId {
        self.grant
    }

    /// The migration it is for.
    pub fn migration(&self) -> MigrationId {
        self.migration
    }

    /// The source volume it covers.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Key of the sending node.
    pub fn agent(&self) -> PublicKey {
        self.agent
    }

    /// Key of the receiving node.
    pub fn replicator(&self) -> PublicKey {
        self.replicator
    }

    /// No block may move after this without a new check.
    pub fn valid_until(&self) -> UnixSecs {
        self.valid_until
    }

    fn asked(&self) -> Move {
        Move {
            grant: self.grant,
            migration: self.migration,
            volume: self.volume,
            agent: self.agent,
            replicator: self.replicator,
        }
    }
}

impl Authority {
    /// Permission for the agent's end of a stream.
    pub fn permit_send(&self, now: UnixSecs, asked: &Move) -> Result<Permit<SendBlocks>, Denied> {
        self.permit(now, asked)
    }

    /// Permission for the replicator's end of a stream.
    pub fn permit_receive(
        &self,
        now: UnixSecs,
        asked: &Move,
    ) -> Result<Permit<ReceiveBlocks>, Denied> {
        self.permit(now, asked)
    }

    /// Checks an open stream's permit again.
    pub fn recheck<Direction>(
        &self,
        now: UnixSecs,
        permit: &Permit<Direction>,
    ) -> Result<(), Denied> {
        self.permit::<Direction>(now, &permit.asked()).map(|_| ())
    }

    fn permit<Direction>(&self, now: UnixSecs, asked: &Move) -> Result<Permit<Direction>, Denied> {
        let agent = self.standing(now, &asked.agent, Role::Agent)?;
        let replicator = self.standing(now, &asked.replicator, Role::Replicator)?;
        let grant = asked.grant;
        let state = self.grant(&grant).ok_or(Denied::UnknownGrant(grant))?;
        if state.revoked {
            return Err(Denied::GrantRevoked(grant));
        }
        if state.forked {
            return Err(Denied::Cloned(state.signer));
        }
        let terms = &state.grant;
        if now >= state.not_after {
            return Err(Denied::GrantExpired {
                grant,
                not_after: state.not_after,
            });
        }
        // The enrolment that was named, not another of the same key.
        let names = |wanted: NodeId, key: PublicKey| {
            let member = self.member(&wanted);
            member.is_some_and(|named| named.key == key && named.standing == Standing::Active)
        };
        if !names(terms.agent, asked.agent) {
            return Err(Denied::AnotherAgent {
                grant,
                agent: asked.agent,
            });
        }
        let in_pool = |node: &NodeId| names(*node, asked.replicator);
        if !terms.replicators.iter().any(in_pool) {
            return Err(Denied::AnotherReplicator {
                grant,
                replicator: asked.replicator,
            });
        }
        if terms.migration != asked.migration || !terms.volumes.contains(&asked.volume) {
            return Err(Denied::NotCovered {
                grant,
                volume: asked.volume,
            });
        }
        let ends = [agent.not_after, replicator.not_after];
        Ok(Permit {
            grant,
            migration: asked.migration,
            volume: asked.volume,
            agent: asked.agent,
            replicator: asked.replicator,
            valid_until: ends
                .into_iter()
                .flatten()
                .fold(state.not_after, UnixSecs::min),
            direction: PhantomData,
        })
    }
}
