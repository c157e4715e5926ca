//! A node's own ed25519 key pair and the text in which it is stored.
//!
//! Not here: files and their permissions (`node`), and what the key may do (`authority`).

use crate::id::PublicKey;
use crate::signed::{Domain, Signature};
use ed25519_dalek::{Signer, SigningKey};
use zeroize::Zeroizing;

const FILE_PREFIX: &str = "dunlin-key-1:";

/// A secret key with its public half. Wiped from memory when dropped; never printed.
#[derive(Clone)]
pub struct Identity {
    secret: SigningKey,
}

/// Why a key file's text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKeyFile {
    /// Some other file, or one of a newer version.
    #[error("it does not begin with `{FILE_PREFIX}`")]
    Prefix,
    /// Not 32 bytes in hexadecimal.
    #[error("the key is not 64 hexadecimal digits")]
    Key,
}

impl Identity {
    /// The identity of a 32-byte seed, which must come from a secure random source.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self {
            secret: SigningKey::from_bytes(seed),
        }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.secret.verifying_key().to_bytes())
    }

    /// The seed, for the transport that must prove this identity.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// Signs `message` for one purpose only: a signature for another domain never verifies.
    pub fn sign(&self, domain: Domain, message: &[u8]) -> Signature {
        Signature(self.secret.sign(&domain.tagged(message)).to_bytes())
    }

    /// The text stored in a key file.
    pub fn to_file(&self) -> Zeroizing<String> {
        let digits = Zeroizing::new(hex::encode(self.seed().as_ref()));
        Zeroizing::new(format!("{FILE_PREFIX}{}\n", digits.as_str()))
    }

    /// Reads the text of a key file.
    pub fn from_file(text: &str) -> Result<Self, BadKeyFile> {
        let digits = text
            .trim_end()
            .strip_prefix(FILE_PREFIX)
            .ok_or(BadKeyFile::Prefix)?;
        let mut seed = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, seed.as_mut()).map_err(|_| BadKeyFile::Key)?;
        Ok(Self::from_seed(&seed))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.public().short())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_never_prints_its_seed() {
        let identity = Identity::from_seed(&[7; 32]);
        let text = identity.to_file();
        let back = Identity::from_file(&text).unwrap();
        assert_eq!(back.public(), identity.public());
        assert!(!format!("{identity:?}").contains("0707"));
    }

    #[test]
    fn damaged_key_files_are_told_apart() {
        assert_eq!(
            Identity::from_file("ssh-ed25519 AAAA").unwrap_err(),
            BadKeyFile::Prefix
        );
        assert_eq!(
            Identity::from_file("dunlin-key-1:0707").unwrap_err(),
            BadKeyFile::Key
        );
    }
}
