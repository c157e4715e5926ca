//! The one wire and storage encoding: a version byte followed by bincode.
//!
//! Not a framing layer and not a place for message types: each crate defines its
//! own messages and names their version and size limit by implementing [`Wire`].
//! Nothing outside this crate may name bincode, so that it can be replaced here.
//!
//! Format: byte 0 is [`Wire::VERSION`]; the rest is bincode 2 in its standard
//! configuration (little endian, variable-length integers).
#![forbid(unsafe_code)]

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most that any message may claim to hold, whatever its own limit says.
const HARD_LIMIT: usize = 16 * 1024 * 1024;

/// A message or record with a stable name, version and size limit.
pub trait Wire: Serialize + DeserializeOwned {
    /// What a person calls it; used in errors.
    const NAME: &'static str;
    /// Version written as the first byte; any other is refused.
    const VERSION: u8;
    /// Largest encoding in bytes, version byte included.
    const LIMIT: usize;
}

/// Why a value could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The encoding is larger than the type allows.
    #[error("{name} of {bytes} bytes is over its limit of {limit}")]
    TooLarge {
        /// The type's name.
        name: &'static str,
        /// Size of the encoding in bytes.
        bytes: usize,
        /// The type's limit in bytes.
        limit: usize,
    },
    /// The value cannot be represented, e.g. a map of unknown length.
    #[error("{name} cannot be encoded: {why}")]
    Unrepresentable {
        /// The type's name.
        name: &'static str,
        /// The encoder's reason.
        why: String,
    },
}

/// Why bytes are not a value of the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing there.
    #[error("{name} is empty")]
    Empty {
        /// The type's name.
        name: &'static str,
    },
    /// Larger than the type allows; refused before it is looked at.
    #[error("{name} of {bytes} bytes is over its limit of {limit}")]
    TooLarge {
        /// The type's name.
        name: &'static str,
        /// Size of the input in bytes.
        bytes: usize,
        /// The type's limit in bytes.
        limit: usize,
    },
    /// Written by a version that this program does not know.
    #[error(
        "{name} has format version {found}, this program knows version {known}: use the same or a newer dunlin"
    )]
    Version {
        /// The type's name.
        name: &'static str,
        /// Version byte found.
        found: u8,
        /// Version byte this program writes.
        known: u8,
    },
    /// The bytes do not parse.
    #[error("{name} is malformed: {why}")]
    Malformed {
        /// The type's name.
        name: &'static str,
        /// The decoder's reason.
        why: String,
    },
    /// A value parsed, and bytes were left over.
    #[error("{name} has {extra} bytes after its end")]
    Trailing {
        /// The type's name.
        name: &'static str,
        /// Bytes left over.
        extra: usize,
    },
}

/// Encodes `value` behind its version byte.
pub fn encode<T: Wire>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![T::VERSION];
    let body =
        bincode::serde::encode_to_vec(value, bincode::config::standard()).map_err(|error| {
            EncodeError::Unrepresentable {
                name: T::NAME,
                why: error.to_string(),
            }
        })?;
    bytes.extend_from_slice(&body);
    if bytes.len() > T::LIMIT {
        return Err(EncodeError::TooLarge {
            name: T::NAME,
            bytes: bytes.len(),
            limit: T::LIMIT,
        });
    }
    Ok(bytes)
}

/// Decodes a whole value: size first, then version, then the body, and nothing after it.
/// Only the bytes that [`encode`] makes of the value are taken: the encoding of numbers
/// has room for others, and one value with two encodings would have two hashes.
pub fn decode<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    let value = decode_stored(bytes)?;
    if encode(&value).is_ok_and(|again| again == bytes) {
        return Ok(value);
    }
    Err(DecodeError::Malformed {
        name: T::NAME,
        why: "it is not in the shortest form".into(),
    })
}

/// As [`decode`], for bytes that [`encode`] made and that were guarded since, e.g. by a
/// checksum: they are not encoded again to compare.
pub fn decode_stored<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    let name = T::NAME;
    if bytes.len() > T::LIMIT {
        return Err(DecodeError::TooLarge {
            name,
            bytes: bytes.len(),
            limit: T::LIMIT,
        });
    }
    let (&found, body) = bytes.split_first().ok_or(DecodeError::Empty { name })?;
    if found != T::VERSION {
        return Err(DecodeError::Version {
            name,
            found,
            known: T::VERSION,
        });
    }
    let config = bincode::config::standard().with_limit::<HARD_LIMIT>();
    let (value, used) =
        bincode::serde::decode_from_slice::<T, _>(body, config).map_err(|error| {
            DecodeError::Malformed {
                name,
                why: error.to_string(),
            }
        })?;
    if used != body.len() {
        return Err(DecodeError::Trailing {
            name,
            extra: body.len() - used,
        });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Note {
        id: u64,
        text: String,
        parts: Vec<u8>,
    }

    impl Wire for Note {
        const NAME: &'static str = "note";
        const VERSION: u8 = 3;
        const LIMIT: usize = 64;
    }

    fn note() -> Note {
        Note {
            id: 300,
            text: "hi".into(),
            parts: vec![1, 2],
        }
    }

    #[test]
    fn the_encoding_of_a_note_does_not_change() {
        let bytes = encode(&note()).unwrap();
        assert_eq!(bytes, [3, 251, 44, 1, 2, b'h', b'i', 2, 1, 2]);
        assert_eq!(decode::<Note>(&bytes).unwrap(), note());
    }

    #[test]
    fn another_version_is_refused_by_number() {
        let mut bytes = encode(&note()).unwrap();
        bytes[0] = 4;
        assert_eq!(
            decode::<Note>(&bytes),
            Err(DecodeError::Version {
                name: "note",
                found: 4,
                known: 3
            })
        );
    }

    #[test]
    fn oversized_values_are_refused_on_both_sides() {
        let mut large = note();
        large.parts = vec![0; 100];
        assert!(matches!(encode(&large), Err(EncodeError::TooLarge { .. })));
        assert!(matches!(
            decode::<Note>(&[3; 65]),
            Err(DecodeError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_longer_encoding_of_the_same_value_is_refused() {
        let small = Note {
            id: 5,
            text: String::new(),
            parts: vec![],
        };
        assert_eq!(encode(&small).unwrap(), [3, 5, 0, 0]);
        let longer = [3, 251, 5, 0, 0, 0];
        assert_eq!(decode_stored::<Note>(&longer).unwrap(), small);
        assert!(matches!(
            decode::<Note>(&longer),
            Err(DecodeError::Malformed { .. })
        ));
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        let mut bytes = encode(&note()).unwrap();
        bytes.push(0);
        assert!(matches!(
            decode::<Note>(&bytes),
            Err(DecodeError::Trailing { extra: 1, .. })
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode::<Note>(&bytes);
        }
    }
}
