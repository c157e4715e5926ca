//! The names that make calls idempotent: which volume of which migration.
//! Not an identifier given out by a cloud.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Identifies a migration to a cloud; chosen by the caller, never by the cloud.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MigrationTag(pub [u8; 16]);

/// Identifies a source volume within its migration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeTag(pub [u8; 16]);

/// The deterministic key of one target volume. A new generation is a new
/// volume for the same source, for clouds that fence by making a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeKey {
    /// The migration the volume belongs to.
    pub migration: MigrationTag,
    /// The source volume it is a copy of.
    pub volume: VolumeTag,
    /// Counts the target volumes made for this source, from 0.
    pub generation: u64,
}

/// A text that is not an identifier: of the wrong length, or with other
/// characters than lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("identifiers are lower-case hexadecimal: 32 digits for tags, 64 for holders")]
pub struct BadTag;

impl MigrationTag {
    /// The first eight digits, for names that people read.
    pub fn short(&self) -> String {
        short_hex(&self.0)
    }
}

impl VolumeTag {
    /// The first eight digits, for names that people read.
    pub fn short(&self) -> String {
        short_hex(&self.0)
    }
}

impl VolumeKey {
    /// A short name for people, `<migration>-<volume>-<generation>`. Two keys
    /// may share it; [`fmt::Display`] gives the full one.
    pub fn short_name(&self) -> String {
        let Self {
            migration,
            volume,
            generation,
        } = self;
        format!("{}-{}-{generation}", migration.short(), volume.short())
    }
}

impl fmt::Display for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.migration, self.volume, self.generation)
    }
}

impl fmt::Display for MigrationTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for MigrationTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for MigrationTag {
    type Err = BadTag;

    fn from_str(text: &str) -> Result<Self, BadTag> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Display for VolumeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for VolumeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for VolumeTag {
    type Err = BadTag;

    fn from_str(text: &str) -> Result<Self, BadTag> {
        parse_hex(text).map(Self)
    }
}

pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn short_hex(bytes: &[u8; 16]) -> String {
    bytes[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(crate) fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], BadTag> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(BadTag);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

fn digit(character: u8) -> Result<u8, BadTag> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        _ => Err(BadTag),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_tag_reads_back_from_what_it_displays() {
        let tag = MigrationTag(*b"\x00\x01\x7f\x80\xff-migration-");
        assert_eq!(tag.to_string().parse::<MigrationTag>().unwrap(), tag);
        assert_eq!(tag.short(), "00017f80");
    }

    #[test]
    fn a_tag_of_the_wrong_length_or_alphabet_is_refused() {
        for text in [
            "",
            "00",
            "0g",
            &"0".repeat(31),
            &"A".repeat(32),
            &"0".repeat(33),
        ] {
            assert_eq!(text.parse::<VolumeTag>(), Err(BadTag), "{text}");
        }
    }

    #[test]
    fn a_key_displays_all_it_is_made_of() {
        let key = VolumeKey {
            migration: MigrationTag([0xab; 16]),
            volume: VolumeTag([0x01; 16]),
            generation: 7,
        };
        assert_eq!(key.short_name(), "abababab-01010101-7");
        let full = format!("{}-{}-7", "ab".repeat(16), "01".repeat(16));
        assert_eq!(key.to_string(), full);
    }
}
