//! The one place where a peer's ed25519 key and its libp2p peer id are turned
//! into each other. Not a check that the key is a valid point: the handshake
//! proves possession, this only renames.

use libp2p::PeerId;

/// A peer's ed25519 public key: what the rest of the node knows a peer by.
pub type PeerKey = [u8; 32];

/// Identity multihash (code 0, 36 bytes) around the protobuf of an ed25519
/// key (field 1 = type 1, field 2 = 32 bytes). See the libp2p peer id spec.
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The key inside a peer id, or `None` for an id that is not an ed25519 key.
pub(super) fn key_of(peer: &PeerId) -> Option<PeerKey> {
    peer.to_bytes().strip_prefix(&PREFIX)?.try_into().ok()
}

/// The peer id of a key.
pub(super) fn id_of(key: &PeerKey) -> PeerId {
    let mut bytes = [0; PREFIX.len() + 32];
    bytes[..PREFIX.len()].copy_from_slice(&PREFIX);
    bytes[PREFIX.len()..].copy_from_slice(key);
    PeerId::from_bytes(&bytes).expect("the bytes are an identity multihash of 36 bytes")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use libp2p::identity::Keypair;

    #[test]
    fn a_key_and_its_peer_id_are_the_same_name() {
        let pair = Keypair::ed25519_from_bytes([7; 32]).unwrap();
        let id = pair.public().to_peer_id();
        let key = pair.public().try_into_ed25519().unwrap().to_bytes();
        assert_eq!(key_of(&id), Some(key));
        assert_eq!(id_of(&key), id);
    }

    #[test]
    fn an_id_that_is_a_hash_has_no_key() {
        assert_eq!(key_of(&PeerId::random()), None);
    }
}
