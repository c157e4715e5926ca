//! The grow-only set of signed statements of one mesh.
//!
//! It answers "is this a well-formed statement of this mesh by somebody who was
//! ever entitled to make statements", not "does it still count": that is
//! `authority`. Statements whose signer or invite is not here yet are refused as
//! [`Refused::Missing`] or [`Refused::UnknownSigner`] and may be offered again.
//! Whether a statement is taken must not depend on what came before it, only on
//! whether what it rests on is here, or two nodes would never hold the same.

mod chain;

use crate::enrolment::{Proof, Transcript};
use crate::id::{MeshId, NodeId, PublicKey, StatementId};
use crate::rotation::Change;
use crate::signed::{Domain, Rejected, Signed};
use crate::statement::{Admission, Enrolment, Entry, Invite, Position, Role, Rotation, Statement};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

/// Most statements of one mesh: 1,000 nodes with a hundred statements each.
pub const MAX_STATEMENTS: usize = 100_000;
/// Most rotations of one node: any member may state them, and none is to fill the
/// ledger. More are dropped by whoever has this many, which can set apart the ledgers
/// of nodes only about a node that changes its key more often than anybody does.
pub const MAX_ROTATIONS: usize = 32;

/// A statement that was verified when it was inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The exact bytes, as they are stored and relayed.
    pub signed: Signed,
    /// What they say.
    pub entry: Entry,
}

/// What inserting did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It was new.
    New(StatementId),
    /// It was there.
    Known,
}

/// Why a statement was not inserted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Bad signature or bytes: the sender is at fault.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// A field is outside its limits, or the signer may not state this.
    #[error("statement {id} breaks the rules of its kind")]
    Unsound {
        /// The statement.
        id: StatementId,
    },
    /// For another mesh.
    #[error("statement {id} is for another mesh")]
    ForeignMesh {
        /// The statement.
        id: StatementId,
    },
    /// Signed by a key that no known statement entitles to it.
    #[error(
        "statement {id} is signed by {signer:?}, who is not known as an operator, nor as the node it is about"
    )]
    UnknownSigner {
        /// The statement.
        id: StatementId,
        /// Its signer.
        signer: PublicKey,
    },
    /// Needs another statement first.
    #[error("statement {id} needs {needs}, which is not here yet")]
    Missing {
        /// The statement.
        id: StatementId,
        /// What it refers to.
        needs: StatementId,
    },
    /// The mesh is at its limit.
    #[error(
        "the ledger is full ({MAX_STATEMENTS} statements, {MAX_ROTATIONS} rotations of a node)"
    )]
    Full,
}

impl Refused {
    /// Whether the same statement may be accepted once others have arrived.
    pub fn may_come_later(&self) -> bool {
        matches!(self, Self::UnknownSigner { .. } | Self::Missing { .. })
    }

    /// Whether no honest peer would have sent it: none holds it.
    pub fn blames_sender(&self) -> bool {
        match self {
            Self::Rejected(rejected) => rejected.blames_sender(),
            Self::Unsound { .. } | Self::ForeignMesh { .. } => true,
            Self::UnknownSigner { .. } | Self::Missing { .. } | Self::Full => false,
        }
    }
}

/// Whether signatures are still to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signatures {
    Check,
    Verified,
}

/// The statements of one mesh, and who may add to them. A clone shares them with the
/// original.
#[derive(Debug, Clone)]
pub struct Ledger {
    mesh: MeshId,
    roots: BTreeSet<PublicKey>,
    /// Every key that was ever an operator's.
    operators: BTreeSet<PublicKey>,
    /// For every key that was ever a node's, the enrolments and rotations that made it one.
    origins: BTreeMap<PublicKey, BTreeSet<StatementId>>,
    /// How often each node changed its key.
    rotations: BTreeMap<NodeId, usize>,
    entries: BTreeMap<StatementId, Arc<Recorded>>,
    chains: BTreeMap<PublicKey, BTreeMap<u64, Vec<StatementId>>>,
    forks: BTreeMap<PublicKey, u64>,
    buckets: Vec<[u8; 32]>,
    /// Made when it is asked for, and again after a change.
    digest: OnceLock<[u8; 32]>,
}

/// Buckets into which statements are sorted by the first byte of their id, so that
/// two nodes find where they differ without listing everything.
pub const BUCKETS: usize = 256;

impl Ledger {
    /// Starts from a genesis statement, whose id is the mesh id.
    pub fn found(genesis: Signed) -> Result<Self, Refused> {
        let id = genesis.statement_id();
        let entry: Entry = genesis.open(Domain::Statement)?;
        let Statement::Genesis(stated) = &entry.statement else {
            return Err(Refused::Unsound { id });
        };
        if !entry.sound() || entry.seq != 1 || !stated.roots.contains(&genesis.signer) {
            return Err(Refused::Unsound { id });
        }
        let mut ledger = Self {
            mesh: MeshId(id.0),
            roots: stated.roots.iter().copied().collect(),
            operators: BTreeSet::new(),
            origins: BTreeMap::new(),
            rotations: BTreeMap::new(),
            entries: BTreeMap::new(),
            chains: BTreeMap::new(),
            forks: BTreeMap::new(),
            buckets: vec![[0; 32]; BUCKETS],
            digest: OnceLock::new(),
        };
        ledger.record(
            id,
            Recorded {
                signed: genesis,
                entry,
            },
        );
        Ok(ledger)
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// Keys at the top.
    pub fn roots(&self) -> &BTreeSet<PublicKey> {
        &self.roots
    }

    /// Verifies a statement and adds it.
    pub fn insert(&mut self, signed: Signed) -> Result<Inserted, Refused> {
        self.add(signed, Signatures::Check)
    }

    /// Adds a statement that was inserted before it was stored: its rules are checked,
    /// its signatures are not checked again.
    pub fn restore(&mut self, stored: Signed) -> Result<Inserted, Refused> {
        self.add(stored, Signatures::Verified)
    }

    fn add(&mut self, signed: Signed, signatures: Signatures) -> Result<Inserted, Refused> {
        let id = signed.statement_id();
        if self.entries.contains_key(&id) {
            return Ok(Inserted::Known);
        }
        if self.entries.len() >= MAX_STATEMENTS {
            return Err(Refused::Full);
        }
        // Before its signer is looked up: what is kept for later is whole and bounded.
        let entry: Entry = match signatures {
            Signatures::Check => signed.open(Domain::Statement)?,
            Signatures::Verified => signed.open_stored().map_err(Rejected::Body)?,
        };
        let signer = signed.signer;
        let entitled = match &entry.statement {
            Statement::Rotation(rotation) => self.nodes_of(&signer).contains(&rotation.node),
            _ => self.roots.contains(&signer) || self.operators.contains(&signer),
        };
        if !entitled {
            return Err(Refused::UnknownSigner { id, signer });
        }
        if entry.mesh != Some(self.mesh) {
            return Err(Refused::ForeignMesh { id });
        }
        if !entry.sound() {
            return Err(Refused::Unsound { id });
        }
        match &entry.statement {
            Statement::Enrolment(enrolment) => {
                self.check_enrolment(id, &signer, &entry, enrolment, signatures)?;
            }
            Statement::Invite(invite) => self.check_invite(id, &signer, invite)?,
            Statement::Rotation(rotation) => self.check_rotation(id, &signer, rotation)?,
            Statement::Genesis(_) | Statement::Grant(_) | Statement::Revocation(_) => {}
        }
        self.record(id, Recorded { signed, entry });
        Ok(Inserted::New(id))
    }

    /// Only a root key offers the role of operator, or has others admit for it.
    fn check_invite(
        &self,
        id: StatementId,
        signer: &PublicKey,
        invite: &Invite,
    ) -> Result<(), Refused> {
        let own = !invite.roles.has(Role::Operator) && invite.admitter == *signer;
        if own || self.roots.contains(signer) {
            Ok(())
        } else {
            Err(Refused::Unsound { id })
        }
    }

    /// That the signer was ever a key of the node is known by now; whether it still is,
    /// `authority` says.
    fn check_rotation(
        &self,
        id: StatementId,
        signer: &PublicKey,
        rotation: &Rotation,
    ) -> Result<(), Refused> {
        let change = Change {
            mesh: self.mesh,
            node: rotation.node,
            from: *signer,
            to: rotation.key,
        };
        if rotation.key == *signer || !change.proven(&rotation.proof) {
            return Err(Refused::Unsound { id });
        }
        match self.rotations.get(&rotation.node) {
            Some(&made) if made >= MAX_ROTATIONS => Err(Refused::Full),
            _ => Ok(()),
        }
    }

    /// Inserts statements in whatever order they come.
    pub fn insert_all(&mut self, statements: Vec<Signed>) -> Result<(), Refused> {
        self.add_all(statements, Signatures::Check)
    }

    /// As [`Ledger::restore`], in whatever order they come.
    pub fn restore_all(&mut self, stored: Vec<Signed>) -> Result<(), Refused> {
        self.add_all(stored, Signatures::Verified)
    }

    fn add_all(&mut self, statements: Vec<Signed>, signatures: Signatures) -> Result<(), Refused> {
        let mut waiting = statements;
        loop {
            let before = waiting.len();
            let mut still = vec![];
            let mut why = None;
            for signed in waiting {
                match self.add(signed.clone(), signatures) {
                    Ok(_) => {}
                    Err(refused) if refused.may_come_later() => {
                        why = Some(refused);
                        still.push(signed);
                    }
                    Err(refused) => return Err(refused),
                }
            }
            match why {
                None => return Ok(()),
                Some(refused) if still.len() == before => return Err(refused),
                Some(_) => waiting = still,
            }
        }
    }

    fn check_enrolment(
        &self,
        id: StatementId,
        signer: &PublicKey,
        entry: &Entry,
        enrolment: &Enrolment,
        signatures: Signatures,
    ) -> Result<(), Refused> {
        let by_root = self.roots.contains(signer);
        let Admission::Invited {
            invite: invite_id,
            use_index,
            nonce,
            invite_signature,
            subject_signature,
        } = &enrolment.admission
        else {
            return if by_root {
                Ok(())
            } else {
                Err(Refused::Unsound { id })
            };
        };
        let recorded = self.entries.get(invite_id).ok_or(Refused::Missing {
            id,
            needs: *invite_id,
        })?;
        let Statement::Invite(invite) = &recorded.entry.statement else {
            return Err(Refused::Unsound { id });
        };
        let proven = || {
            let transcript = Transcript {
                mesh: self.mesh,
                invite: *invite_id,
                joiner: enrolment.subject,
                admitter: *signer,
                nonce: *nonce,
                name: enrolment.name.clone(),
            };
            let proof = Proof {
                invite_signature: *invite_signature,
                subject_signature: *subject_signature,
            };
            transcript.proven(&invite.key, &proof)
        };
        // An invite with the role of operator is a root key's: it was checked when it came.
        let within = invite.admitter == *signer
            && enrolment.roles.within(invite.roles)
            && enrolment.site == invite.site
            && narrows(enrolment, invite)
            && *use_index < invite.uses
            && entry.at <= invite.not_after;
        if within && (signatures == Signatures::Verified || proven()) {
            Ok(())
        } else {
            Err(Refused::Unsound { id })
        }
    }

    fn record(&mut self, id: StatementId, recorded: Recorded) {
        match &recorded.entry.statement {
            Statement::Enrolment(enrolment) => {
                if enrolment.roles.has(Role::Operator) {
                    self.operators.insert(enrolment.subject);
                }
                self.origins
                    .entry(enrolment.subject)
                    .or_default()
                    .insert(id);
            }
            Statement::Rotation(rotation) => {
                if self.enrols_operator(&rotation.node) {
                    self.operators.insert(rotation.key);
                }
                self.origins.entry(rotation.key).or_default().insert(id);
                *self.rotations.entry(rotation.node).or_default() += 1;
            }
            _ => {}
        }
        let (signer, seq) = (recorded.signed.signer, recorded.entry.seq);
        let chain = self.chains.entry(signer).or_default();
        let same_number = chain.entry(seq).or_default();
        same_number.push(id);
        if same_number.len() > 1 {
            let lowest = self.forks.entry(signer).or_insert(seq);
            *lowest = seq.min(*lowest);
        }
        self.entries.insert(id, Arc::new(recorded));
        self.buckets[usize::from(id.0[0])] = self.bucket_digest(id.0[0]);
        self.digest = OnceLock::new();
    }

    fn enrols_operator(&self, node: &NodeId) -> bool {
        self.entries
            .get(&StatementId::from(*node))
            .is_some_and(|recorded| {
                matches!(&recorded.entry.statement,
                    Statement::Enrolment(enrolment) if enrolment.roles.has(Role::Operator))
            })
    }

    /// The nodes whose key this is or ever was.
    pub fn nodes_of(&self, key: &PublicKey) -> BTreeSet<NodeId> {
        let origins = self.origins.get(key).into_iter().flatten();
        origins
            .filter_map(|id| match &self.entries.get(id)?.entry.statement {
                Statement::Rotation(rotation) => Some(rotation.node),
                _ => Some(NodeId::from(*id)),
            })
            .collect()
    }

    fn bucket_digest(&self, bucket: u8) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for (id, _) in self.bucket(bucket) {
            hasher.update(&id.0);
        }
        *hasher.finalize().as_bytes()
    }

    /// The statements whose id begins with `bucket`, in order of their ids.
    pub fn bucket(&self, bucket: u8) -> impl Iterator<Item = (&StatementId, &Recorded)> {
        let mut low = [0; 32];
        let mut high = [0xff; 32];
        low[0] = bucket;
        high[0] = bucket;
        self.entries
            .range(StatementId(low)..=StatementId(high))
            .map(|(id, recorded)| (id, &**recorded))
    }

    /// One digest for each bucket; all zeros for an empty one.
    pub fn buckets(&self) -> &[[u8; 32]] {
        &self.buckets
    }

    /// One digest of the whole set: equal exactly when the sets are equal.
    pub fn digest(&self) -> [u8; 32] {
        *self.digest.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            for bucket in &self.buckets {
                hasher.update(bucket);
            }
            *hasher.finalize().as_bytes()
        })
    }

    /// A statement by its id.
    pub fn get(&self, id: &StatementId) -> Option<&Recorded> {
        self.entries.get(id).map(|recorded| &**recorded)
    }

    /// All statements, in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&StatementId, &Recorded)> {
        self.entries.iter().map(|(id, recorded)| (id, &**recorded))
    }

    /// Sorts statements so that almost all follow what they need: root keys'
    /// statements first, then by kind. `chain` has an exact order.
    pub fn rank(&self, id: &StatementId) -> (bool, u8) {
        let Some(recorded) = self.entries.get(id) else {
            return (true, u8::MAX);
        };
        let kind = match recorded.entry.statement {
            Statement::Genesis(_) => 0,
            Statement::Invite(_) => 1,
            Statement::Enrolment(_) => 2,
            Statement::Rotation(_) => 3,
            Statement::Grant(_) => 4,
            Statement::Revocation(_) => 5,
        };
        (!self.roots.contains(&recorded.signed.signer), kind)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never: a ledger holds at least its genesis.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The last statement of `signer`; [`Position::NONE`] if it made none.
    pub fn head(&self, signer: &PublicKey) -> Position {
        let (next, last) = self.next_position(signer);
        last.map_or(Position::NONE, |last| Position {
            seq: next - 1,
            hash: last.0,
        })
    }

    /// Statement number `seq` of `signer`.
    pub fn at(&self, signer: &PublicKey, seq: u64) -> Option<Position> {
        let id = self.chains.get(signer)?.get(&seq)?.first()?;
        Some(Position { seq, hash: id.0 })
    }

    /// `seq` and `previous` for the next statement of `signer`.
    pub fn next_position(&self, signer: &PublicKey) -> (u64, Option<StatementId>) {
        let last = self
            .chains
            .get(signer)
            .and_then(|chain| chain.last_key_value());
        match last {
            None => (1, None),
            Some((seq, ids)) => (seq + 1, ids.first().copied()),
        }
    }

    /// Signers with two different statements of one number, and the lowest such number:
    /// a key in two places.
    pub fn forks(&self) -> &BTreeMap<PublicKey, u64> {
        &self.forks
    }

    /// Number of the last statement of `signer`; 0 for none.
    pub fn last_seq(&self, signer: &PublicKey) -> u64 {
        self.next_position(signer).0 - 1
    }

    /// The last statement of `signer` that is here with all before it; what follows a gap
    /// cannot be told from a branch, and counts for nothing where it is to be honoured.
    pub fn unbroken(&self, signer: &PublicKey) -> Position {
        let mut last = Position::NONE;
        let mut before: Vec<Option<StatementId>> = vec![None];
        for (seq, ids) in self.chains.get(signer).into_iter().flatten() {
            let follows = |id: &&StatementId| before.contains(&self.entries[id].entry.previous);
            let next: Vec<&StatementId> = ids.iter().filter(follows).collect();
            let Some(first) = next.first().filter(|_| *seq == last.seq + 1) else {
                break;
            };
            last = Position {
                seq: *seq,
                hash: first.0,
            };
            before = next.into_iter().copied().map(Some).collect();
        }
        last
    }

    /// Whether a statement of `signer` is here with all that lead up to it.
    pub fn is_whole(&self, signer: &PublicKey, last: &Position) -> bool {
        let chain = match last.seq {
            0 => return true,
            _ => self.chain_through(signer, StatementId(last.hash)),
        };
        u64::try_from(chain.len()) == Ok(last.seq)
    }

    /// The statements of `signer` that lead up to and include `last`.
    pub(crate) fn chain_through(
        &self,
        signer: &PublicKey,
        last: StatementId,
    ) -> BTreeSet<StatementId> {
        let mut honoured = BTreeSet::new();
        let mut at = Some(last);
        while let Some(id) = at {
            let Some(recorded) = self.entries.get(&id) else {
                break;
            };
            if recorded.signed.signer != *signer || !honoured.insert(id) {
                break;
            }
            at = recorded.entry.previous;
        }
        honoured
    }
}

/// Whether an enrolment reaches no further and lasts no longer than its invite allows.
fn narrows(enrolment: &Enrolment, invite: &Invite) -> bool {
    let operator = enrolment.roles.has(Role::Operator);
    let scope = !operator || enrolment.scope == invite.scope;
    let end = match (invite.member_until, enrolment.not_after) {
        (None, _) => true,
        (Some(limit), end) => end.is_some_and(|end| end <= limit),
    };
    scope && end
}
