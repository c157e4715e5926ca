//! What the next key of a node signs, so that nobody gives a node somebody else's key.
//!
//! Not here: which key a node has (`authority`).

use crate::id::{MeshId, NodeId, PublicKey};
use crate::identity::Identity;
use crate::signed::{Domain, Signature};
use codec::Wire;
use serde::{Deserialize, Serialize};

/// One change of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The mesh.
    pub mesh: MeshId,
    /// The node.
    pub node: NodeId,
    /// The key it has.
    pub from: PublicKey,
    /// The key it gets.
    pub to: PublicKey,
}

impl Wire for Change {
    const NAME: &'static str = "change of keys";
    const VERSION: u8 = 1;
    const LIMIT: usize = 256;
}

impl Change {
    fn bytes(&self) -> Vec<u8> {
        codec::encode(self).expect("four ids are within the limit")
    }

    /// Signs with the key that the node gets.
    pub fn prove(&self, next: &Identity) -> Signature {
        next.sign(Domain::Rotation, &self.bytes())
    }

    /// Whether the key that the node gets agrees.
    pub fn proven(&self, proof: &Signature) -> bool {
        self.to.verify(Domain::Rotation, &self.bytes(), proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_own_change_of_keys_only() {
        let next = Identity::from_seed(&[5; 32]);
        let change = Change {
            mesh: MeshId([1; 32]),
            node: NodeId([2; 32]),
            from: PublicKey([3; 32]),
            to: next.public(),
        };
        let proof = change.prove(&next);
        assert!(change.proven(&proof));
        let others = [
            Change {
                mesh: MeshId([9; 32]),
                ..change
            },
            Change {
                node: NodeId([9; 32]),
                ..change
            },
            Change {
                from: PublicKey([9; 32]),
                ..change
            },
            Change {
                to: Identity::from_seed(&[6; 32]).public(),
                ..change
            },
        ];
        assert!(others.iter().all(|other| !other.proven(&proof)));
    }
}
