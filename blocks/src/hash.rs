//! The hashes of a volume's tree, each its own type: a block's leaf, a group's
//! node, the root, and the marks by which two trees are compared. Shown and parsed as lower-case hex; stored and
//! sent as 32 plain bytes.
//!
//! Not here: how they are computed (see `tree` and `mark`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// Why a text is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a hash is 64 hexadecimal digits")]
pub struct ParseHashError;

macro_rules! hash_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseHashError;

            fn from_str(text: &str) -> Result<Self, ParseHashError> {
                parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() {
                    to.collect_str(self)
                } else {
                    self.0.serialize(to)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    String::deserialize(from)?.parse().map_err(de::Error::custom)
                } else {
                    <[u8; 32]>::deserialize(from).map(Self)
                }
            }
        }
    };
}

hash_newtype! {
    /// The chaining value of one block at its place in the volume. Equal
    /// blocks at different places have different leaves.
    ///
    /// In a volume of a single block it is the plain BLAKE3 hash.
    Leaf
}

hash_newtype! {
    /// The chaining value of one group of blocks.
    ///
    /// In a volume of a single group it is the plain BLAKE3 hash.
    Node
}

hash_newtype! {
    /// The BLAKE3 hash of a whole volume: what
    /// `head -c LENGTH DISK | b3sum` prints.
    Root
}

hash_newtype! {
    /// Stands for what a stored tree holds, of one group or of the whole
    /// volume, when two ends compare their trees. It is no hash of the bytes,
    /// and is never shown as one.
    Mark
}

fn parse(text: &str) -> Result<[u8; 32], ParseHashError> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(ParseHashError);
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

fn digit(ascii: u8) -> Result<u8, ParseHashError> {
    match ascii {
        b'0'..=b'9' => Ok(ascii - b'0'),
        b'a'..=b'f' => Ok(ascii - b'a' + 10),
        b'A'..=b'F' => Ok(ascii - b'A' + 10),
        _ => Err(ParseHashError),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_root_reads_back_from_what_it_shows() {
        let root = Root(*blake3::hash(b"dunlin").as_bytes());
        assert_eq!(
            root.to_string(),
            blake3::hash(b"dunlin").to_hex().to_string()
        );
        assert_eq!(root.to_string().parse::<Root>().unwrap(), root);
    }

    #[test]
    fn a_text_that_is_not_64_hex_digits_is_refused() {
        let lengths = [0, 2, 62, 63, 65, 66].map(|digits| "0".repeat(digits));
        let others = ["g".repeat(64), "é".repeat(32)];
        for text in lengths.into_iter().chain(others) {
            assert_eq!(text.parse::<Root>(), Err(ParseHashError), "{text}");
        }
    }
}
