//! Newtypes for everything that is named by bytes or counted, and how they print.
//!
//! Not here: what any of them may do; that is `authority`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: expected {bytes} bytes as {} hexadecimal digits", bytes * 2)]
pub struct BadId {
    /// What was given, cut to a readable length.
    text: String,
    /// What was expected.
    kind: &'static str,
    /// Size of the id in bytes.
    bytes: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// The first eight hexadecimal digits, for people.
            pub fn short(&self) -> String {
                hex::encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| BadId {
                    text: text.chars().take(80).collect(),
                    kind: $kind,
                    bytes: $bytes,
                })?;
                Ok(Self(bytes))
            }
        }
    };
}

id!(
    /// An ed25519 public key: a node's current key, an operator's, a root key or an invite's.
    PublicKey, 32, "public key"
);
id!(
    /// A mesh: the id of its genesis statement.
    MeshId, 32, "mesh id"
);
id!(
    /// A signed statement: hash of its signer and exact body.
    StatementId, 32, "statement id"
);
id!(
    /// A node: the id of the statement that enrolled it, so that its key can be rotated.
    NodeId, 32, "node id"
);
id!(
    /// A migration: random, made by the operator who planned it.
    MigrationId, 16, "migration id"
);
id!(
    /// A source volume: random, made by the agent that offers it.
    VolumeId, 16, "volume id"
);
id!(
    /// A server that is planned: random, made by the operator who planned it.
    ServerId, 16, "server id"
);
id!(
    /// A mark that a node made at a moment it remembers: random, so that nobody can
    /// answer it before it was made.
    Pulse, 16, "pulse"
);

impl From<StatementId> for NodeId {
    fn from(id: StatementId) -> Self {
        Self(id.0)
    }
}

impl From<NodeId> for StatementId {
    fn from(id: NodeId) -> Self {
        Self(id.0)
    }
}

/// Fencing epoch of a volume: raised only by the agent that owns the source.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Wall-clock time, in seconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct UnixSecs(pub u64);

impl fmt::Display for UnixSecs {
    /// RFC 3339 in UTC, from the civil-calendar algorithm of Howard Hinnant's
    /// `chrono`-compatible date algorithms (days to year, month, day).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = (self.0 / 86_400) as i64 + 719_468;
        let (h, m, s) = (self.0 / 3600 % 24, self.0 / 60 % 60, self.0 % 60);
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_print_and_parse_as_hex() {
        let id = MigrationId([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(id.to_string().parse::<MigrationId>().unwrap(), id);
        assert_eq!(id.short(), "abababab");
        assert!("abcd".parse::<MigrationId>().is_err());
        assert!("zz".repeat(16).parse::<MigrationId>().is_err());
    }

    #[test]
    fn seconds_print_as_rfc_3339() {
        assert_eq!(UnixSecs(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(UnixSecs(951_782_400).to_string(), "2000-02-29T00:00:00Z");
        assert_eq!(UnixSecs(1_795_237_199).to_string(), "2026-11-21T04:59:59Z");
    }
}
