//! Words of the command line as values: durations, sizes, points in time, addresses
//! and the invite.
//!
//! Not here: how values are shown (`figures`).

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::time::Duration;

use super::figures::parse_rfc3339;
use super::outcome::CommandError;

/// Far beyond any use, and far from overflowing a time in seconds.
const LONGEST_DURATION_DAYS: u64 = 36_500;

/// An invite with all addresses of a node is far shorter.
const LONGEST_INVITE_BYTES: usize = 16 * 1024;

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDuration {
    /// Not numbers with units.
    #[error("give a number and a unit of s, m, h, d or w, e.g. 30m, 24h, 7d")]
    Shape,
    /// Zero.
    #[error("it must be longer than nothing")]
    Zero,
    /// Too much.
    #[error("it must not be longer than {LONGEST_DURATION_DAYS}d")]
    TooLong,
}

/// Reads `90s`, `30m`, `24h`, `7d`, `2w` and sums such as `1h30m`.
pub fn duration(text: &str) -> Result<Duration, BadDuration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(BadDuration::Shape);
    }
    let mut secs: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(BadDuration::Shape);
        }
        let mut letters = after.chars();
        let unit_secs = match letters.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            Some('w') => 7 * 86_400,
            _ => return Err(BadDuration::Shape),
        };
        rest = letters.as_str();
        let number: u64 = number.parse().map_err(|_| BadDuration::TooLong)?;
        secs = number
            .checked_mul(unit_secs)
            .and_then(|part| secs.checked_add(part))
            .ok_or(BadDuration::TooLong)?;
    }
    match secs {
        0 => Err(BadDuration::Zero),
        secs if secs > LONGEST_DURATION_DAYS * 86_400 => Err(BadDuration::TooLong),
        secs => Ok(Duration::from_secs(secs)),
    }
}

/// As [`duration`], and `0` for none.
pub fn duration_or_none(text: &str) -> Result<Duration, BadDuration> {
    match duration(text) {
        Err(BadDuration::Zero) => Ok(Duration::ZERO),
        Err(_) if text.trim() == "0" => Ok(Duration::ZERO),
        read => read,
    }
}

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSize {
    /// Not a number with a unit.
    #[error("give a whole number of bytes, with or without a unit, e.g. 512KiB, 256MiB, 1GiB")]
    Shape,
    /// Zero.
    #[error("it must be more than nothing")]
    Zero,
    /// Too much.
    #[error("it does not fit into 64 bits")]
    TooLarge,
}

/// Reads a size in bytes: `4096`, `256MiB`, `1G`. Units with a `B` alone (`MB`) are
/// powers of 1000, all others powers of 1024.
pub fn bytes(text: &str) -> Result<u64, BadSize> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(BadSize::Shape);
    }
    let unit_bytes: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(BadSize::Shape),
    };
    let number: u64 = number.parse().map_err(|_| BadSize::TooLarge)?;
    match number.checked_mul(unit_bytes) {
        None => Err(BadSize::TooLarge),
        Some(0) => Err(BadSize::Zero),
        Some(bytes) => Ok(bytes),
    }
}

/// A point in time, as given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// In seconds since the Unix epoch.
    At(u64),
    /// So long before now.
    Ago(Duration),
}

impl Since {
    /// Seconds since the Unix epoch.
    pub fn resolve(self, now_secs: u64) -> u64 {
        match self {
            Self::At(secs) => secs,
            Self::Ago(ago) => now_secs.saturating_sub(ago.as_secs()),
        }
    }
}

/// A text that is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give a time such as 2026-01-31T08:00:00Z, or how long ago, e.g. 30m, 2h, 7d")]
pub struct BadSince;

impl FromStr for Since {
    type Err = BadSince;

    fn from_str(text: &str) -> Result<Self, BadSince> {
        if let Some(secs) = parse_rfc3339(text) {
            return Ok(Self::At(secs));
        }
        duration(text).map(Self::Ago).map_err(|_| BadSince)
    }
}

/// An address to listen at, in the form of a multiaddr. Only its beginning is looked
/// at here: the network says what it can listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireAddress(pub String);

/// A text that is no multiaddr.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give a multiaddr, e.g. /ip4/0.0.0.0/tcp/7432 or /ip4/0.0.0.0/udp/7432/quic-v1")]
pub struct BadWireAddress;

impl FromStr for WireAddress {
    type Err = BadWireAddress;

    fn from_str(text: &str) -> Result<Self, BadWireAddress> {
        let mut parts = text.split('/');
        let rooted = parts.next() == Some("") && parts.next().is_some_and(|word| !word.is_empty());
        if rooted && parts.next().is_some() {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadWireAddress)
        }
    }
}

/// An invite as given. Holds a secret, so its debug form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteText(String);

impl fmt::Debug for InviteText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteText(..)")
    }
}

impl FromStr for InviteText {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl InviteText {
    /// The invite itself; for `-` what `stdin` holds.
    pub fn resolve(self, stdin: impl Read) -> Result<String, CommandError> {
        let text = if self.0 == "-" {
            from_stdin(stdin)?
        } else {
            self.0
        };
        let text = text.trim();
        if text.is_empty() {
            return Err(CommandError::usage(
                "the invite is empty; make one with `dunlin invite create --role ROLE` on an operator's node",
            ));
        }
        Ok(text.to_owned())
    }
}

fn from_stdin(stdin: impl Read) -> Result<String, CommandError> {
    let mut text = String::new();
    let limit = LONGEST_INVITE_BYTES as u64 + 1;
    let read = stdin.take(limit).read_to_string(&mut text);
    match read {
        Ok(_) if text.len() > LONGEST_INVITE_BYTES => Err(CommandError::usage(format!(
            "stdin holds more than {LONGEST_INVITE_BYTES} bytes, which no invite does"
        ))),
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(CommandError::usage(
            "stdin holds something other than text; an invite is one line of text",
        )),
        Err(error) => Err(CommandError::failed(format!(
            "cannot read the invite from stdin: {error}"
        ))),
    }
}
