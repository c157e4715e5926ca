//! What can be stated and signed in a mesh: the entries of the ledger.
//!
//! Shapes and their limits only; whether a statement counts is `authority`'s
//! decision. Each signer's statements form a hash chain (`seq`, `previous`), so
//! that a revocation can say through which of them they still count.

use crate::id::{MeshId, MigrationId, NodeId, PublicKey, StatementId, UnixSecs, VolumeId};
use crate::lease::Span;
use crate::scope::Scope;
use crate::signed::{Signature, Signed};
use codec::Wire;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Most replicators that one grant may name.
pub const MAX_POOL: usize = 16;
/// Most volumes that one grant may name.
pub const MAX_GRANT_VOLUMES: usize = 64;
/// Most root keys of a mesh.
pub const MAX_ROOTS: usize = 8;
/// Shortest lease of a grant: an answer of an operator must fit into half of it.
pub const MIN_LEASE_SECS: u64 = 2;
/// Longest lease of a grant.
pub const MAX_LEASE_SECS: u64 = 7 * 86_400;
/// Longest autonomy of a grant.
pub const MAX_AUTONOMY_SECS: u64 = 90 * 86_400;
/// Longest text of a revocation's reason, in bytes.
pub const MAX_REASON: usize = 256;

/// What a node may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A person's node; its key signs plans, invites and grants.
    Operator,
    /// Reads source volumes and sends their blocks.
    Agent,
    /// Receives blocks and writes them to target volumes.
    Replicator,
    /// Holds a cloud's credentials and makes its volumes.
    Provisioner,
}

impl Role {
    /// Every role, in a fixed order.
    pub const ALL: [Self; 4] = [
        Self::Operator,
        Self::Agent,
        Self::Replicator,
        Self::Provisioner,
    ];

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "operator",
            Self::Agent => "agent",
            Self::Replicator => "replicator",
            Self::Provisioner => "provisioner",
        })
    }
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role: use operator, agent, replicator or provisioner")]
pub struct BadRole(String);

impl FromStr for Role {
    type Err = BadRole;
    fn from_str(text: &str) -> Result<Self, BadRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.to_string() == text)
            .ok_or_else(|| BadRole(text.chars().take(40).collect()))
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles(u8);

impl Roles {
    /// Whether `role` is in the set.
    pub fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// Whether every role here is also in `other`.
    pub fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The roles, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }

    fn known(self) -> bool {
        self.within(Role::ALL.into_iter().collect())
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | role.bit()))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.iter().map(|role| role.to_string()).collect();
        f.write_str(&names.join(","))
    }
}

/// A name for people: 1 to 63 letters, digits, `.`, `_` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name(String);

/// A text that cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be a name: use 1 to 63 letters, digits, `.`, `_` or `-`")]
pub struct BadName(String);

impl Name {
    /// Checks and wraps a name.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let name = Self(text.to_owned());
        if name.sound() {
            Ok(name)
        } else {
            Err(BadName(text.chars().take(80).collect()))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn sound(&self) -> bool {
        (1..=63).contains(&self.0.len())
            && self
                .0
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in a signer's chain: sequence number from 1, and the entry's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Number of the entry, from 1; 0 for "before the first".
    pub seq: u64,
    /// Hash of the entry: statement id, or the change's hash.
    pub hash: [u8; 32],
}

impl Position {
    /// Before the first entry.
    pub const NONE: Self = Self {
        seq: 0,
        hash: [0; 32],
    };
}

/// The body of every ledger entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Number in the signer's own chain, from 1.
    pub seq: u64,
    /// The signer's previous statement; none for the first.
    pub previous: Option<StatementId>,
    /// Mesh the statement is for; none only in the genesis, whose id it is.
    pub mesh: Option<MeshId>,
    /// When the signer's wall clock said it was made.
    pub at: UnixSecs,
    /// What is stated.
    pub statement: Statement,
}

impl Wire for Entry {
    const NAME: &'static str = "statement";
    const VERSION: u8 = 3;
    const LIMIT: usize = 8 * 1024;
}

/// What can be stated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statement {
    /// Founds a mesh.
    Genesis(Genesis),
    /// Offers enrolment to whoever holds the invite's secret.
    Invite(Invite),
    /// Makes a key a node of the mesh.
    Enrolment(Enrolment),
    /// Lets an agent send volumes to a pool of replicators.
    Grant(Grant),
    /// Takes back an invite, an enrolment or a grant.
    Revocation(Revocation),
    /// Gives a node its next key.
    Rotation(Rotation),
}

/// Founds a mesh: its id is the mesh id. Signed by the first root key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// The mesh's name.
    pub name: Name,
    /// Keys at the top of every chain of authority.
    pub roots: Vec<PublicKey>,
    /// Makes two meshes of one key and name different.
    pub nonce: [u8; 16],
}

/// Offers enrolment. The secret travels outside the mesh; this is its public side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// Public half of the key derived from the invite's seed.
    pub key: PublicKey,
    /// Most that a joiner gets.
    pub roles: Roles,
    /// Name the joiner gets unless it brings its own.
    pub name: Option<Name>,
    /// Site the joiner belongs to.
    pub site: Option<Name>,
    /// No enrolment after this.
    pub not_after: UnixSecs,
    /// How many nodes may enrol.
    pub uses: u16,
    /// Key of who countersigns enrolments with it and burns its uses: an operator's
    /// node, or a root key. Its word is all that an invite signed by a root key needs.
    pub admitter: PublicKey,
    /// Sites to which an operator that joins with it is limited.
    pub scope: Scope,
    /// End of every enrolment made with it, if they are to have one.
    pub member_until: Option<UnixSecs>,
}

/// Makes `subject` a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The node's key.
    pub subject: PublicKey,
    /// Its name.
    pub name: Name,
    /// What it may do.
    pub roles: Roles,
    /// Where it is.
    pub site: Option<Name>,
    /// End of the enrolment, if it has one.
    pub not_after: Option<UnixSecs>,
    /// Sites to which it is limited as an operator.
    pub scope: Scope,
    /// How it came to be enrolled.
    pub admission: Admission,
}

/// How a node came to be enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admission {
    /// By a root key, in its own hand.
    Root,
    /// By an invite: both signatures are over one transcript (see `enrolment`).
    Invited {
        /// The invite used.
        invite: StatementId,
        /// Which of its uses was burnt, from 0.
        use_index: u16,
        /// The admitter's nonce in the transcript.
        nonce: [u8; 32],
        /// By the invite's key.
        invite_signature: Signature,
        /// By the joiner's key.
        subject_signature: Signature,
    },
}

/// Lets `agent` send `volumes` to any of `replicators` for one migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The migration this is for.
    pub migration: MigrationId,
    /// Who may send.
    pub agent: NodeId,
    /// Who may receive; the agent picks one and raises the epoch when it moves on.
    pub replicators: Vec<NodeId>,
    /// Source volumes that may be sent.
    pub volumes: Vec<VolumeId>,
    /// End of the grant.
    pub not_after: UnixSecs,
    /// How long an end may use it without hearing from an operator's node.
    pub lease_secs: u64,
    /// How much longer, for sites where no operator's node will be.
    pub autonomy_secs: u64,
    /// Migrations whose grants name the same group may be made of each other's content
    /// at a replicator; this one alone where there is none.
    pub dedup_group: Option<Name>,
}

/// Takes back a statement from above on the same chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The invite, enrolment or grant.
    pub target: StatementId,
    /// What still counts of a revoked operator; nothing if it is absent.
    pub honours: Option<Honoured>,
    /// Why, for people.
    pub reason: String,
}

/// How far the word of a revoked operator is honoured. What it said with the keys that
/// it had before `key` counts as far as its rotations say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Honoured {
    /// The key that the positions are about.
    pub key: PublicKey,
    /// Last of its statements that still counts.
    pub statements: Position,
    /// Last of its document changes that still counts.
    pub changes: Position,
}

/// Gives `node` its next key. Signed by the key it has until then, whose statements
/// count through this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The node.
    pub node: NodeId,
    /// Its next key.
    pub key: PublicKey,
    /// By the next key (see `rotation`).
    pub proof: Signature,
    /// Last document change of the key it had that counts.
    pub honour_changes: Position,
}

impl Grant {
    /// How long its leases last.
    pub fn span(&self) -> Span {
        Span {
            lease_secs: self.lease_secs,
            autonomy_secs: self.autonomy_secs,
        }
    }
}

impl Entry {
    /// Whether every field is within its limits.
    pub fn sound(&self) -> bool {
        let chained = (self.seq == 1) == self.previous.is_none() && self.seq > 0;
        let placed = matches!(self.statement, Statement::Genesis(_)) == self.mesh.is_none();
        chained && placed && self.statement.sound()
    }
}

impl Statement {
    fn sound(&self) -> bool {
        let site_ok = |site: &Option<Name>| site.as_ref().is_none_or(Name::sound);
        match self {
            Self::Genesis(genesis) => {
                genesis.name.sound() && (1..=MAX_ROOTS).contains(&genesis.roots.len())
            }
            Self::Invite(invite) => {
                invite.roles.known()
                    && !invite.roles.is_empty()
                    && invite.uses > 0
                    && site_ok(&invite.name)
                    && site_ok(&invite.site)
                    && invite.scope.fits(invite.roles)
            }
            Self::Enrolment(enrolment) => {
                enrolment.name.sound()
                    && site_ok(&enrolment.site)
                    && enrolment.roles.known()
                    && !enrolment.roles.is_empty()
                    && enrolment.scope.fits(enrolment.roles)
            }
            Self::Grant(grant) => {
                (1..=MAX_POOL).contains(&grant.replicators.len())
                    && (1..=MAX_GRANT_VOLUMES).contains(&grant.volumes.len())
                    && (MIN_LEASE_SECS..=MAX_LEASE_SECS).contains(&grant.lease_secs)
                    && grant.autonomy_secs <= MAX_AUTONOMY_SECS
                    && grant.dedup_group.as_ref().is_none_or(Name::sound)
            }
            Self::Revocation(revocation) => revocation.reason.len() <= MAX_REASON,
            Self::Rotation(_) => true,
        }
    }
}

impl Signed {
    /// The id of the statement in these bytes: BLAKE3 in key-derivation mode over
    /// the signer and the body. The signature is left out, so that the id cannot
    /// be changed by signing the same words again.
    pub fn statement_id(&self) -> StatementId {
        let mut hasher = blake3::Hasher::new_derive_key("dunlin 2026 statement id v1");
        hasher.update(&self.signer.0);
        hasher.update(&self.body);
        StatementId(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests;
