//! The grow-only set of signed statements of one mesh.
//!
//! It answers "is this a well-formed statement of this mesh by somebody who was
//! ever entitled to make statements", not "does it still count": that is
//! `authority`. Statements whose signer or invite is not here yet are refused as
//! [`Refused::Missing`] or [`Refused::UnknownSigner`] and may be offered again.

use crate::enrolment::{Proof, Transcript};
use crate::id::{MeshId, PublicKey, StatementId};
use crate::signed::{Domain, Rejected, Signed};
use crate::statement::{Admission, Enrolment, Entry, Role, Statement};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

/// Most statements of one mesh: 1,000 nodes with a hundred statements each.
pub const MAX_STATEMENTS: usize = 100_000;

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
    /// Signed by a key that no known statement makes an operator.
    #[error("statement {id} is signed by {signer:?}, who is not known as an operator")]
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
    #[error("the ledger is full ({MAX_STATEMENTS} statements)")]
    Full,
}

impl Refused {
    /// Whether the same statement may be accepted once others have arrived.
    pub fn may_come_later(&self) -> bool {
        matches!(self, Self::UnknownSigner { .. } | Self::Missing { .. })
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
    operators: BTreeSet<PublicKey>,
    entries: BTreeMap<StatementId, Arc<Recorded>>,
    chains: BTreeMap<PublicKey, BTreeMap<u64, Vec<StatementId>>>,
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
            entries: BTreeMap::new(),
            chains: BTreeMap::new(),
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
        if !self.roots.contains(&signed.signer) && !self.operators.contains(&signed.signer) {
            return Err(Refused::UnknownSigner {
                id,
                signer: signed.signer,
            });
        }
        if entry.mesh != Some(self.mesh) {
            return Err(Refused::ForeignMesh { id });
        }
        if !entry.sound() {
            return Err(Refused::Unsound { id });
        }
        if let Statement::Enrolment(enrolment) = &entry.statement {
            self.check_enrolment(id, &signed.signer, &entry, enrolment, signatures)?;
        }
        self.record(id, Recorded { signed, entry });
        Ok(Inserted::New(id))
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
        if enrolment.roles.has(Role::Operator) && !by_root {
            return Err(Refused::Unsound { id });
        }
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
        let within = recorded.signed.signer == *signer
            && enrolment.roles.within(invite.roles)
            && enrolment.site == invite.site
            && *use_index < invite.uses
            && entry.at <= invite.not_after;
        if within && (signatures == Signatures::Verified || proven()) {
            Ok(())
        } else {
            Err(Refused::Unsound { id })
        }
    }

    fn record(&mut self, id: StatementId, recorded: Recorded) {
        if let Statement::Enrolment(enrolment) = &recorded.entry.statement
            && enrolment.roles.has(Role::Operator)
        {
            self.operators.insert(enrolment.subject);
        }
        self.chains
            .entry(recorded.signed.signer)
            .or_default()
            .entry(recorded.entry.seq)
            .or_default()
            .push(id);
        self.entries.insert(id, Arc::new(recorded));
        self.buckets[usize::from(id.0[0])] = self.bucket_digest(id.0[0]);
        self.digest = OnceLock::new();
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

    /// Sorts statements so that each follows what it needs: root keys' statements
    /// first, then by kind.
    pub fn rank(&self, id: &StatementId) -> (bool, u8) {
        let Some(recorded) = self.entries.get(id) else {
            return (true, u8::MAX);
        };
        let kind = match recorded.entry.statement {
            Statement::Genesis(_) => 0,
            Statement::Invite(_) => 1,
            Statement::Enrolment(_) => 2,
            Statement::Grant(_) => 3,
            Statement::Revocation(_) => 4,
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

    /// Signers with two different statements of one number: a key in two places.
    pub fn forks(&self) -> impl Iterator<Item = (PublicKey, u64)> {
        self.chains.iter().flat_map(|(signer, chain)| {
            chain
                .iter()
                .filter(|(_, ids)| ids.len() > 1)
                .map(move |(seq, _)| (*signer, *seq))
        })
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
