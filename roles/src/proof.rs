//! The signed roots that end a migration: made by each end, checked by the other.
//!
//! Not here: computing a root (`blocks`), or deciding when (`agent`).

use crate::JobId;
use codec::Wire;
use keys::proof::{End, Method, RootProof};
use keys::{CheckpointName, Domain, Epoch, Identity, LeftOut, MeshId, PublicKey, Signed, UnixSecs};
use serde::{Deserialize, Serialize};

/// A signed [`RootProof`] as it travels in the last frame of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedProof(pub Signed);

impl Wire for SealedProof {
    const NAME: &'static str = "signed root";
    const VERSION: u8 = 1;
    const LIMIT: usize = 2048;
}

/// What a root is stated about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// The mesh.
    pub mesh: MeshId,
    /// The unit of work.
    pub job: JobId,
    /// Epoch of the copy.
    pub epoch: Epoch,
    /// Bytes covered.
    pub length: u64,
    /// The root.
    pub root: [u8; 32],
}

/// Why the other end's proof does not stand for the same root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadProof {
    /// Bytes or signature.
    #[error("the replicator's signed root for {job} does not verify")]
    Unverified {
        /// The unit of work.
        job: JobId,
    },
    /// It says something else.
    #[error("the replicator's signed root for {job} is about something else")]
    AnotherSubject {
        /// The unit of work.
        job: JobId,
    },
}

/// Signs one end's statement about the copy.
pub fn sign(
    identity: &Identity,
    subject: &Subject,
    end: End,
    method: Method,
    at: UnixSecs,
) -> Signed {
    sign_leaving_out(identity, subject, (end, LeftOut::default()), method, at)
}

/// Signs one end's statement: the source's with what is left out of it.
pub fn sign_leaving_out(
    identity: &Identity,
    subject: &Subject,
    says: (End, LeftOut),
    method: Method,
    at: UnixSecs,
) -> Signed {
    sign_for(identity, subject, says, method, at, None)
}

/// The same, about the checkpoint of this name where there is one.
pub fn sign_for(
    identity: &Identity,
    subject: &Subject,
    (end, left_out): (End, LeftOut),
    method: Method,
    at: UnixSecs,
    checkpoint: Option<CheckpointName>,
) -> Signed {
    let proof = RootProof {
        mesh: subject.mesh,
        migration: subject.job.migration,
        volume: subject.job.volume,
        epoch: subject.epoch,
        end,
        length: subject.length,
        root: subject.root,
        method,
        at,
        left_out,
        checkpoint,
    };
    Signed::seal(identity, Domain::RootProof, &proof)
        .expect("a root proof is below its limit, whatever it leaves out")
}

/// Checks that `bytes` are `signer`'s statement, as `end`, about exactly `subject`.
pub fn check(
    bytes: &[u8],
    signer: &PublicKey,
    subject: &Subject,
    end: End,
) -> Result<Signed, BadProof> {
    let job = subject.job;
    let unverified = |_| BadProof::Unverified { job };
    let SealedProof(signed) = codec::decode(bytes).map_err(|_| BadProof::Unverified { job })?;
    let proof: RootProof = signed.open(Domain::RootProof).map_err(unverified)?;
    let same = signed.signer == *signer
        && proof.is_sound()
        && proof.mesh == subject.mesh
        && proof.migration == job.migration
        && proof.volume == job.volume
        && proof.epoch == subject.epoch
        && proof.end == end
        && proof.length == subject.length
        && proof.root == subject.root
        && proof.checkpoint.is_none();
    if same {
        Ok(signed)
    } else {
        Err(BadProof::AnotherSubject { job })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::world::{AGENT, JOB, LENGTH, REPLICATOR, World, key};

    #[test]
    fn a_signed_root_stands_for_its_own_subject_and_signer_only() {
        let world = World::new();
        let subject = Subject {
            mesh: world.ledger.mesh(),
            job: JOB,
            epoch: Epoch(1),
            length: LENGTH,
            root: [5; 32],
        };
        let signed = crate::world::proof(&world, REPLICATOR, End::Target, [5; 32]);
        let bytes = codec::encode(&SealedProof(signed)).unwrap();
        let check = |bytes: &[u8], signer: Identity, subject, end| {
            super::check(bytes, &signer.public(), &subject, end).is_ok()
        };
        assert!(check(&bytes, key(REPLICATOR), subject, End::Target));
        assert!(!check(&bytes, key(AGENT), subject, End::Target));
        assert!(!check(&bytes, key(REPLICATOR), subject, End::Source));
        let (mut volume, mut migration) = (JOB, JOB);
        volume.volume.0[0] ^= 1;
        migration.migration.0[0] ^= 1;
        for other in [
            Subject {
                job: volume,
                ..subject
            },
            Subject {
                job: migration,
                ..subject
            },
            Subject {
                epoch: Epoch(2),
                ..subject
            },
            Subject {
                length: 1,
                ..subject
            },
            Subject {
                root: [6; 32],
                ..subject
            },
            Subject {
                mesh: keys::MeshId([0; 32]),
                ..subject
            },
        ] {
            assert!(
                !check(&bytes, key(REPLICATOR), other, End::Target),
                "{other:?}"
            );
        }
        let method = Method::OnArrival;
        let name = CheckpointName::new("a").ok();
        let named = sign_for(
            &key(REPLICATOR),
            &subject,
            (End::Target, LeftOut::default()),
            method,
            UnixSecs(1),
            name,
        );
        let named = codec::encode(&SealedProof(named)).unwrap();
        assert!(!check(&named, key(REPLICATOR), subject, End::Target));
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            assert!(
                !check(&forged, key(REPLICATOR), subject, End::Target),
                "byte {at}"
            );
            assert!(
                !check(&bytes[..at], key(REPLICATOR), subject, End::Target),
                "cut at {at}"
            );
        }
    }
}
