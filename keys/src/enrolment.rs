//! The transcript that a joiner signs twice, and the check of both signatures.
//!
//! The conversation that carries it is `mesh`'s; whether the invite may still be
//! used is `authority`'s.

use crate::id::{MeshId, PublicKey, StatementId};
use crate::identity::Identity;
use crate::invite::Token;
use crate::signed::{Domain, Signature};
use crate::statement::Name;
use codec::Wire;
use serde::{Deserialize, Serialize};

/// What both keys sign: nothing in it can be swapped without both signatures failing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcript {
    /// The mesh that is joined.
    pub mesh: MeshId,
    /// The invite's statement.
    pub invite: StatementId,
    /// The joining key.
    pub joiner: PublicKey,
    /// The admitting node's key.
    pub admitter: PublicKey,
    /// Fresh from the admitter.
    pub nonce: [u8; 32],
    /// Name that the joiner gives itself.
    pub name: Name,
}

impl Wire for Transcript {
    const NAME: &'static str = "enrolment transcript";
    const VERSION: u8 = 1;
    const LIMIT: usize = 512;
}

/// Proof that the joiner holds both the invite's secret and its own key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// By the invite's key.
    pub invite_signature: Signature,
    /// By the joiner's key.
    pub subject_signature: Signature,
}

impl Transcript {
    fn bytes(&self) -> Vec<u8> {
        codec::encode(self).expect("a transcript's fields are bounded below its limit")
    }

    /// Signs as the joiner, with the invite's key and its own.
    pub fn prove(&self, token: &Token, joiner: &Identity) -> Proof {
        let bytes = self.bytes();
        Proof {
            invite_signature: token.key().sign(Domain::Enrolment, &bytes),
            subject_signature: joiner.sign(Domain::Enrolment, &bytes),
        }
    }

    /// Whether `proof` holds for this transcript and the invite's public key.
    pub fn proven(&self, invite_key: &PublicKey, proof: &Proof) -> bool {
        let bytes = self.bytes();
        invite_key.verify(Domain::Enrolment, &bytes, &proof.invite_signature)
            && self
                .joiner
                .verify(Domain::Enrolment, &bytes, &proof.subject_signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::UnixSecs;

    fn sample() -> (Identity, Token, Transcript) {
        let joiner = Identity::from_seed(&[5; 32]);
        let token = Token {
            mesh: MeshId([1; 32]),
            invite: StatementId([2; 32]),
            admitter: PublicKey([3; 32]),
            addresses: vec![],
            not_after: UnixSecs(9),
            seed: [4; 32],
        };
        let transcript = Transcript {
            mesh: token.mesh,
            invite: token.invite,
            joiner: joiner.public(),
            admitter: token.admitter,
            nonce: [6; 32],
            name: Name::new("web").expect("a sound name"),
        };
        (joiner, token, transcript)
    }

    #[test]
    fn a_proof_holds_for_its_own_transcript_only() {
        let (joiner, token, transcript) = sample();
        let proof = transcript.prove(&token, &joiner);
        let key = token.key().public();
        assert!(transcript.proven(&key, &proof));

        let mut replayed = transcript.clone();
        replayed.nonce[0] ^= 1;
        assert!(!replayed.proven(&key, &proof));
        let mut stolen = transcript.clone();
        stolen.joiner = Identity::from_seed(&[8; 32]).public();
        assert!(!stolen.proven(&key, &proof));
        assert!(!transcript.proven(&joiner.public(), &proof));
    }

    #[test]
    fn a_proof_needs_the_keys_of_the_invite_and_of_the_joiner() {
        let (joiner, token, transcript) = sample();
        let key = token.key().public();
        let both = transcript.prove(&token, &joiner);
        // Who has the invite and not the key that it names, and the other way round.
        let without_joiner = transcript.prove(&token, &Identity::from_seed(&[8; 32]));
        let without_invite = Proof {
            invite_signature: both.subject_signature,
            ..both
        };
        assert!(transcript.proven(&key, &both));
        assert!(!transcript.proven(&key, &without_joiner));
        assert!(!transcript.proven(&key, &without_invite));
    }
}
