//! The mesh's root key outside a data folder: the text that is kept offline, and the
//! transcript it signs when it is needed again.
//!
//! Not here: files and their permissions (`node`), and the conversation (`mesh`).

use crate::id::{MeshId, PublicKey};
use crate::identity::{BadKeyFile, Identity};
use crate::signed::{Domain, Signature};
use crate::statement::Name;
use codec::Wire;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const FIRST_LINE: &str = "dunlin-root-1";

/// A root key with the mesh that it is for. Never printed.
#[derive(Clone)]
pub struct RootKey {
    /// The mesh.
    pub mesh: MeshId,
    /// Its name, for people.
    pub name: Name,
    /// The key.
    pub identity: Identity,
}

/// Why a text is not a root key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRootKey {
    /// Some other file, or one of a newer version.
    #[error("it does not begin with `{FIRST_LINE}`")]
    FirstLine,
    /// A line is missing or damaged.
    #[error("its line `{0}: …` is missing or damaged")]
    Line(&'static str),
    /// The key itself is damaged.
    #[error(transparent)]
    Key(#[from] BadKeyFile),
}

impl RootKey {
    /// The text of the file that is kept offline.
    pub fn to_text(&self) -> Zeroizing<String> {
        let key = self.identity.to_file();
        Zeroizing::new(format!(
            "{FIRST_LINE}\nmesh: {}\nname: {}\nkey: {}",
            self.mesh,
            self.name,
            key.as_str()
        ))
    }

    /// Reads the text back.
    pub fn from_text(text: &str) -> Result<Self, BadRootKey> {
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(BadRootKey::FirstLine);
        }
        let mut field = |name: &'static str| {
            let line = lines.next().and_then(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.strip_prefix(": "));
            value.ok_or(BadRootKey::Line(name))
        };
        let mesh = field("mesh")?;
        let mesh = mesh.parse().map_err(|_| BadRootKey::Line("mesh"))?;
        let name = Name::new(field("name")?).map_err(|_| BadRootKey::Line("name"))?;
        let identity = Identity::from_file(field("key")?)?;
        Ok(Self {
            mesh,
            name,
            identity,
        })
    }
}

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RootKey(of mesh {})", self.mesh.short())
    }
}

/// What a root key signs to be told where its own statements end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The mesh.
    pub mesh: MeshId,
    /// Key of the node that recovers.
    pub joiner: PublicKey,
    /// Key of the member that is asked.
    pub member: PublicKey,
    /// Fresh from that member.
    pub nonce: [u8; 32],
}

impl Wire for Recovery {
    const NAME: &'static str = "recovery transcript";
    const VERSION: u8 = 1;
    const LIMIT: usize = 256;
}

impl Recovery {
    fn bytes(&self) -> Vec<u8> {
        codec::encode(self).expect("four ids are within the limit")
    }

    /// Signs with the root key.
    pub fn prove(&self, root: &Identity) -> Signature {
        root.sign(Domain::Recovery, &self.bytes())
    }

    /// Whether `root` signed this.
    pub fn proven(&self, root: &PublicKey, proof: &Signature) -> bool {
        root.verify(Domain::Recovery, &self.bytes(), proof)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn root() -> RootKey {
        RootKey {
            mesh: MeshId([1; 32]),
            name: Name::new("home").unwrap(),
            identity: Identity::from_seed(&[7; 32]),
        }
    }

    #[test]
    fn a_root_key_survives_its_file_and_never_prints_its_seed() {
        let text = root().to_text();
        let back = RootKey::from_text(&text).unwrap();
        assert_eq!(back.identity.public(), root().identity.public());
        assert_eq!((back.mesh, back.name.as_str()), (root().mesh, "home"));
        assert!(!format!("{back:?}").contains("0707"));
    }

    #[test]
    fn damaged_root_key_files_are_told_apart() {
        let text = root().to_text();
        let error = |text: &str| RootKey::from_text(text).unwrap_err();
        assert_eq!(error("dunlin-key-1:07"), BadRootKey::FirstLine);
        assert_eq!(
            error(&text.replace("mesh: 01", "mesh: x1")),
            BadRootKey::Line("mesh")
        );
        assert_eq!(error("dunlin-root-1\n"), BadRootKey::Line("mesh"));
        let cut = &text[..text.len() - 4];
        assert_eq!(error(cut), BadRootKey::Key(BadKeyFile::Key));
    }

    #[test]
    fn a_recovery_proof_holds_for_its_own_transcript_and_root_only() {
        let root = root().identity;
        let transcript = Recovery {
            mesh: MeshId([1; 32]),
            joiner: PublicKey([2; 32]),
            member: PublicKey([3; 32]),
            nonce: [4; 32],
        };
        let proof = transcript.prove(&root);
        assert!(transcript.proven(&root.public(), &proof));
        let other = Identity::from_seed(&[8; 32]).public();
        assert!(!transcript.proven(&other, &proof));
        let mut replayed = transcript.clone();
        replayed.nonce[0] ^= 1;
        assert!(!replayed.proven(&root.public(), &proof));
        let mut stolen = transcript.clone();
        stolen.joiner = other;
        assert!(!stolen.proven(&root.public(), &proof));
        let mut relayed = transcript;
        relayed.member = other;
        assert!(!relayed.proven(&root.public(), &proof));
    }
}
