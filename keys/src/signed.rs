//! Bytes with a signature over exactly those bytes, tagged with what they are for.
//!
//! Verification is ed25519 in its strict form (no small-order keys, no malleable
//! signatures). What the bytes mean is up to the types that are sealed in them.

use crate::id::PublicKey;
use crate::identity::Identity;
use codec::Wire;
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

/// What a signature is for. The tag is signed with the message, so that a
/// signature made for one purpose is worthless for any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// A statement of the ledger.
    Statement,
    /// The transcript of an enrolment, signed by the invite's key and the joiner's.
    Enrolment,
    /// One change of the master document.
    Change,
    /// A node's report.
    Report,
    /// The root of one end of a migrated volume.
    RootProof,
    /// The live figures of an agent's sessions.
    Progress,
    /// A node's next key, signed by that key.
    Rotation,
    /// The transcript of a recovery, signed by a root key.
    Recovery,
}

impl Domain {
    fn tag(self) -> &'static [u8] {
        match self {
            Self::Statement => b"dunlin/statement/1\0",
            Self::Enrolment => b"dunlin/enrolment/1\0",
            Self::Change => b"dunlin/change/1\0",
            Self::Report => b"dunlin/report/1\0",
            Self::RootProof => b"dunlin/root-proof/1\0",
            Self::Progress => b"dunlin/progress/1\0",
            Self::Rotation => b"dunlin/rotation/1\0",
            Self::Recovery => b"dunlin/recovery/1\0",
        }
    }

    pub(crate) fn tagged(self, message: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.tag().len() + message.len());
        bytes.extend_from_slice(self.tag());
        bytes.extend_from_slice(message);
        bytes
    }
}

/// An ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signature({})", hex::encode(&self.0[..4]))
    }
}

impl Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (a, b) = self.0.split_at(32);
        (
            <[u8; 32]>::try_from(a).expect("half of 64 bytes is 32"),
            <[u8; 32]>::try_from(b).expect("half of 64 bytes is 32"),
        )
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (a, b) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&a);
        bytes[32..].copy_from_slice(&b);
        Ok(Self(bytes))
    }
}

/// Why signed bytes were not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The signature is not the signer's over these bytes for this purpose.
    #[error("the signature of {signer} does not match")]
    Signature {
        /// First digits of the claimed signer.
        signer: String,
    },
    /// The signed bytes are not what they should be.
    #[error(transparent)]
    Body(#[from] codec::DecodeError),
}

impl Rejected {
    /// Whether no honest peer would have sent it. One that runs a newer program may
    /// well send what is not understood here.
    pub fn blames_sender(&self) -> bool {
        !matches!(self, Self::Body(codec::DecodeError::Version { .. }))
    }
}

impl PublicKey {
    /// Checks `signature` over `message` for `domain`, strictly.
    pub fn verify(&self, domain: Domain, message: &[u8], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else {
            return false;
        };
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(&domain.tagged(message), &signature)
            .is_ok()
    }
}

/// Exact bytes, who signed them, and the signature. Untrusted until opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The signed bytes: a value in the one wire encoding.
    pub body: Vec<u8>,
    /// The key that claims to have signed.
    pub signer: PublicKey,
    /// Over the domain's tag and the body.
    pub signature: Signature,
}

impl Signed {
    /// Encodes and signs `value`.
    pub fn seal<T: Wire>(
        identity: &Identity,
        domain: Domain,
        value: &T,
    ) -> Result<Self, codec::EncodeError> {
        let body = codec::encode(value)?;
        let signature = identity.sign(domain, &body);
        Ok(Self {
            body,
            signer: identity.public(),
            signature,
        })
    }

    /// Verifies the signature, then decodes.
    pub fn open<T: Wire>(&self, domain: Domain) -> Result<T, Rejected> {
        if self.body.len() > T::LIMIT {
            return Err(Rejected::Body(codec::DecodeError::TooLarge {
                name: T::NAME,
                bytes: self.body.len(),
                limit: T::LIMIT,
            }));
        }
        if !self.signer.verify(domain, &self.body, &self.signature) {
            return Err(Rejected::Signature {
                signer: self.signer.short(),
            });
        }
        Ok(codec::decode(&self.body)?)
    }

    /// Decodes without verifying: only for what was verified before it was stored.
    pub fn open_stored<T: Wire>(&self) -> Result<T, codec::DecodeError> {
        codec::decode_stored(&self.body)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Text(String);
    impl Wire for Text {
        const NAME: &'static str = "text";
        const VERSION: u8 = 1;
        const LIMIT: usize = 100;
    }

    #[test]
    fn a_sealed_value_opens_only_for_its_own_domain() {
        let identity = Identity::from_seed(&[1; 32]);
        let sealed = Signed::seal(&identity, Domain::Report, &Text("a".into())).unwrap();
        assert_eq!(
            sealed.open::<Text>(Domain::Report).unwrap(),
            Text("a".into())
        );
        assert!(matches!(
            sealed.open::<Text>(Domain::Statement),
            Err(Rejected::Signature { .. })
        ));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let identity = Identity::from_seed(&[1; 32]);
        let sealed = Signed::seal(&identity, Domain::Report, &Text("abc".into())).unwrap();
        for byte in 0..sealed.body.len() {
            for bit in 0..8 {
                let mut forged = sealed.clone();
                forged.body[byte] ^= 1 << bit;
                assert!(forged.open::<Text>(Domain::Report).is_err());
            }
        }
        for byte in 0..64 {
            let mut forged = sealed.clone();
            forged.signature.0[byte] ^= 1;
            assert!(forged.open::<Text>(Domain::Report).is_err());
        }
    }

    #[test]
    fn a_body_over_its_limit_is_refused_before_its_signature_is_checked() {
        let unsigned = Signed {
            body: vec![0; Text::LIMIT + 1],
            signer: PublicKey([1; 32]),
            signature: Signature([0; 64]),
        };
        assert!(matches!(
            unsigned.open::<Text>(Domain::Report),
            Err(Rejected::Body(codec::DecodeError::TooLarge { .. }))
        ));
    }

    #[test]
    fn a_small_order_key_signs_nothing() {
        // The identity point: with plain verification it would accept forgeries.
        let mut point = [0; 32];
        point[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!PublicKey(point).verify(Domain::Report, b"x", &Signature(signature)));
    }
}
