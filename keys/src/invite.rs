//! The invite as one line of text: the secret that a person hands to a joiner.
//!
//! Its public side is the `Invite` statement in the ledger. The text carries a
//! checksum, so that a truncated or mistyped invite is told from a refused one.

use crate::id::{MeshId, PublicKey, StatementId, UnixSecs};
use crate::identity::Identity;
use codec::Wire;
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const PREFIX: &str = "dunlin-invite-1.";
const CHECKSUM_BYTES: usize = 8;
/// Most addresses carried in an invite.
pub const MAX_ADDRESSES: usize = 8;

/// Everything a joiner needs: where to go, whom to expect there, and the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Token {
    #[zeroize(skip)]
    /// The mesh.
    pub mesh: MeshId,
    #[zeroize(skip)]
    /// The `Invite` statement.
    pub invite: StatementId,
    #[zeroize(skip)]
    /// Key of the node that admits.
    pub admitter: PublicKey,
    #[zeroize(skip)]
    /// Its addresses, as multiaddresses.
    pub addresses: Vec<String>,
    #[zeroize(skip)]
    /// End of the invite.
    pub not_after: UnixSecs,
    /// Seed of the invite's key.
    pub seed: [u8; 32],
}

impl Wire for Token {
    const NAME: &'static str = "invite";
    const VERSION: u8 = 1;
    const LIMIT: usize = 2048;
}

/// Why a text is not an invite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Not an invite at all.
    #[error("it does not begin with `{PREFIX}`")]
    Prefix,
    /// Cut short, or a character is wrong.
    #[error("it is incomplete or mistyped: its checksum does not match; copy the whole line again")]
    Checksum,
    /// The checksum holds and the content does not: made by another version.
    #[error(transparent)]
    Content(#[from] codec::DecodeError),
}

impl Token {
    /// The key that proves possession of the invite.
    pub fn key(&self) -> Identity {
        Identity::from_seed(&self.seed)
    }

    /// One line of text.
    pub fn to_text(&self) -> Result<Zeroizing<String>, codec::EncodeError> {
        let mut bytes = Zeroizing::new(codec::encode(self)?);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
        let text = Zeroizing::new(BASE64URL_NOPAD.encode(&bytes));
        Ok(Zeroizing::new(format!("{PREFIX}{}", text.as_str())))
    }

    /// Reads the line back.
    pub fn from_text(text: &str) -> Result<Self, BadToken> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(BadToken::Prefix)?;
        let bytes = Zeroizing::new(
            BASE64URL_NOPAD
                .decode(encoded.as_bytes())
                .map_err(|_| BadToken::Checksum)?,
        );
        let body_len = bytes
            .len()
            .checked_sub(CHECKSUM_BYTES)
            .ok_or(BadToken::Checksum)?;
        let (body, checksum) = bytes.split_at(body_len);
        if blake3::hash(body).as_bytes()[..CHECKSUM_BYTES] != *checksum {
            return Err(BadToken::Checksum);
        }
        Ok(codec::decode(body)?)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(invite {})", self.invite.short())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn token() -> Token {
        Token {
            mesh: MeshId([1; 32]),
            invite: StatementId([2; 32]),
            admitter: PublicKey([3; 32]),
            addresses: vec!["/ip4/127.0.0.1/tcp/7430".into()],
            not_after: UnixSecs(1_000_000),
            seed: [4; 32],
        }
    }

    #[test]
    fn an_invite_survives_its_text() {
        let text = token().to_text().unwrap();
        assert!(!text.contains('\n'));
        assert_eq!(Token::from_text(&text).unwrap(), token());
        assert_eq!(
            Token::from_text(&format!(" {}\n", text.as_str())).unwrap(),
            token()
        );
    }

    #[test]
    fn every_truncation_and_every_changed_character_is_noticed() {
        let text = token().to_text().unwrap();
        for end in PREFIX.len()..text.len() {
            assert_eq!(Token::from_text(&text[..end]), Err(BadToken::Checksum));
        }
        for at in PREFIX.len()..text.len() - 1 {
            let mut wrong = text.as_bytes().to_vec();
            wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(Token::from_text(&wrong), Err(BadToken::Checksum));
        }
        assert_eq!(Token::from_text("hello"), Err(BadToken::Prefix));
    }

    #[test]
    fn an_invite_never_prints_its_secret() {
        assert!(!format!("{:?}", token()).contains("0404"));
        assert!(!format!("{:?}", token()).contains("4, 4"));
    }
}
