//! The signed changes of one author: what is stored and passed on.
//!
//! Not here: whether a change is admitted (`admission`).

use codec::Wire;
use keys::{Domain, Identity, MeshId, PublicKey, Signature};
use serde::{Deserialize, Serialize};

/// Largest change, in bytes.
pub const MAX_CHANGE: usize = 64 * 1024;

/// One change of the master document, in the exact bytes that were signed.
/// Untrusted until a document admits it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedChange {
    /// An uncompressed automerge change chunk.
    pub raw: Vec<u8>,
    /// Who made it; also its actor id.
    pub author: PublicKey,
    /// Over the mesh id and the BLAKE3 hash of `raw`, for `Domain::Change`.
    pub signature: Signature,
}

impl Wire for SignedChange {
    const NAME: &'static str = "change";
    const VERSION: u8 = 1;
    const LIMIT: usize = MAX_CHANGE + 128;
}

impl SignedChange {
    pub(crate) fn sign(identity: &Identity, mesh: MeshId, raw: Vec<u8>) -> Self {
        let signature = identity.sign(Domain::Change, &message(mesh, &raw));
        Self {
            raw,
            author: identity.public(),
            signature,
        }
    }

    pub(crate) fn verified(&self, mesh: MeshId) -> bool {
        self.author
            .verify(Domain::Change, &message(mesh, &self.raw), &self.signature)
    }

    /// Names the change among all others, signature left out.
    pub(crate) fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.author.0);
        hasher.update(&self.raw);
        Digest(*hasher.finalize().as_bytes())
    }
}

/// Hash of a change's author and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest([u8; 32]);

/// The raw bytes are signed rather than automerge's own hash of the change, so that
/// nothing of a stranger's needs to be parsed before its signature is checked, and
/// because that hash leaves out the chunk's header.
fn message(mesh: MeshId, raw: &[u8]) -> [u8; 64] {
    let mut message = [0; 64];
    message[..32].copy_from_slice(&mesh.0);
    message[32..].copy_from_slice(blake3::hash(raw).as_bytes());
    message
}
