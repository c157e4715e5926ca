//! How fast may be sent: a rate with its unit, or `off`.

use super::meant::meant;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// The slowest rate. One block is 64 KiB: below one a second an acknowledgement takes so
/// long that the session looks broken.
pub const LEAST_BYTES_PER_SEC: u64 = 64 << 10;
/// The fastest rate, far beyond any link.
pub const MOST_BYTES_PER_SEC: u64 = 1 << 40;

/// What a unit stands for: so many of the second in one of the first. Bits are eighths
/// of bytes. Of two that say a rate in as few digits the first is shown.
const UNITS: [(&str, u64, u64); 10] = [
    ("GiB/s", 1 << 30, 1),
    ("MiB/s", 1 << 20, 1),
    ("KiB/s", 1 << 10, 1),
    ("Gbit/s", 1_000_000_000, 8),
    ("Mbit/s", 1_000_000, 8),
    ("kbit/s", 1_000, 8),
    ("GB/s", 1_000_000_000, 1),
    ("MB/s", 1_000_000, 1),
    ("kB/s", 1_000, 1),
    ("B/s", 1, 1),
];
/// Digits after the point that are read.
const MAX_DECIMALS: usize = 6;

/// How many bytes a second; none for no limit. Never outside of
/// [`LEAST_BYTES_PER_SEC`] to [`MOST_BYTES_PER_SEC`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate(Option<NonZeroU64>);

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRate {
    /// Not a number with a unit.
    #[error("`{given}` is no rate: {instead}")]
    Shape {
        /// The text.
        given: String,
        /// What to write instead.
        instead: String,
    },
    /// A number, and nobody knows of what.
    #[error("`{given}` has no unit that is known: {instead}")]
    Unit {
        /// The text.
        given: String,
        /// What to write instead.
        instead: String,
    },
    /// Nothing at all, which is neither a limit nor none.
    #[error(
        "`{0}` is no rate: write `off` for no limit, at least 64KiB/s for a slow one; a migration that is to send nothing is paused"
    )]
    Zero(String),
    /// Too slow.
    #[error("`{0}` is too slow: a rate is at least 64KiB/s")]
    TooSlow(String),
    /// Too fast.
    #[error("`{0}` is too fast: a rate is at most 1024GiB/s; `off` is no limit")]
    TooFast(String),
}

impl Rate {
    /// No limit.
    pub const OFF: Self = Self(None);
    /// The slowest rate.
    pub const LEAST: Self = Self(NonZeroU64::new(LEAST_BYTES_PER_SEC));

    /// Bytes a second; none for no limit.
    pub fn bytes_per_sec(self) -> Option<NonZeroU64> {
        self.0
    }

    /// The slower of two.
    pub fn slower(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(two)) => Self(Some(one.min(two))),
            (one, two) => Self(one.or(two)),
        }
    }
}

impl fmt::Display for Rate {
    /// In the unit that takes the smallest whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bytes) = self.0 else {
            return f.write_str("off");
        };
        let in_unit = |&(name, units, parts): &(&'static str, u64, u64)| {
            let scaled = bytes.get().checked_mul(parts)?;
            scaled.is_multiple_of(units).then(|| (scaled / units, name))
        };
        let shortest = UNITS.iter().filter_map(in_unit).min_by_key(|(n, _)| *n);
        let (number, unit) = shortest.expect("every rate is a whole number of bytes");
        write!(f, "{number}{unit}")
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        read(text).map_err(|fault| fault.of(text))
    }
}

/// What is wrong with a text.
enum Fault {
    Shape,
    Unit,
    Zero,
    TooSlow,
    TooFast,
}

impl Fault {
    /// With what was given, and what to write instead.
    fn of(self, text: &str) -> BadRate {
        let given = text.chars().take(40).collect();
        let instead = |otherwise: &str| match meant(text).as_slice() {
            [] => otherwise.to_owned(),
            [one] => format!("write {one}"),
            several => format!("it may be bytes or bits: write {}", several.join(" or ")),
        };
        match self {
            Self::Shape => BadRate::Shape {
                given,
                instead: instead(
                    "give a number with its unit, e.g. 20MiB/s, 100Mbit/s or 2.5MB/s, or `off` for no limit",
                ),
            },
            Self::Unit => BadRate::Unit {
                given,
                instead: instead(
                    "bytes are B/s, kB/s, KiB/s, MB/s, MiB/s, GB/s or GiB/s, bits are kbit/s, Mbit/s or Gbit/s",
                ),
            },
            Self::Zero => BadRate::Zero(given),
            Self::TooSlow => BadRate::TooSlow(given),
            Self::TooFast => BadRate::TooFast(given),
        }
    }
}

/// Whether a text is a rate.
pub(super) fn is_rate(text: &str) -> bool {
    read(text).is_ok()
}

fn read(text: &str) -> Result<Rate, Fault> {
    if text == "off" {
        return Ok(Rate::OFF);
    }
    let ends = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(ends.unwrap_or(text.len()));
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let is_number = !whole.is_empty()
        && decimals.len() <= MAX_DECIMALS
        && number.contains('.') != decimals.is_empty()
        && decimals.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || unit.contains(char::is_whitespace) {
        return Err(Fault::Shape);
    }
    if number.bytes().all(|byte| matches!(byte, b'0' | b'.')) {
        return Err(Fault::Zero);
    }
    let known = UNITS.iter().find(|(name, ..)| *name == unit);
    let (_, units, parts) = *known.ok_or(Fault::Unit)?;
    let digits: u128 = format!("{whole}{decimals}")
        .parse()
        .map_err(|_| Fault::TooFast)?;
    let below = 10_u128.pow(decimals.len() as u32) * u128::from(parts);
    let bytes = digits
        .checked_mul(u128::from(units))
        .map(|scaled| scaled / below)
        .and_then(|bytes| u64::try_from(bytes).ok())
        .filter(|bytes| *bytes <= MOST_BYTES_PER_SEC)
        .ok_or(Fault::TooFast)?;
    if bytes < LEAST_BYTES_PER_SEC {
        return Err(Fault::TooSlow);
    }
    Ok(Rate(NonZeroU64::new(bytes)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn bytes(text: &str) -> u64 {
        let rate: Rate = text.parse().unwrap();
        rate.bytes_per_sec().unwrap().get()
    }

    #[test]
    fn bits_are_eighths_of_bytes_and_powers_of_1024_have_an_i() {
        assert_eq!(bytes("20MiB/s"), 20 << 20);
        assert_eq!(bytes("20MB/s"), 20_000_000);
        assert_eq!(bytes("100Mbit/s"), 12_500_000);
        assert_eq!(bytes("2.5Gbit/s"), 312_500_000);
        assert_eq!(bytes("1.5MiB/s"), 3 << 19);
        assert_eq!(bytes("800kbit/s"), 100_000);
    }

    #[test]
    fn a_rate_is_shown_as_people_would_write_it() {
        for text in ["20MiB/s", "100Mbit/s", "20MB/s", "1Gbit/s", "1GB/s", "off"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        let odd: Rate = "70001B/s".parse().unwrap();
        assert_eq!(odd.to_string(), "70001B/s");
    }

    #[test]
    fn a_rate_without_a_unit_or_outside_its_bounds_is_refused_and_the_error_says_which() {
        let refused = |text: &str| text.parse::<Rate>().unwrap_err();
        for text in [
            "",
            "MiB/s",
            "1.MiB/s",
            ".5MiB/s",
            "1.2.3MiB/s",
            "-1MiB/s",
            "OFF",
            " 1MiB/s",
            "20MB /s",
        ] {
            assert!(matches!(refused(text), BadRate::Shape { .. }), "{text}");
        }
        for text in ["20", "20M", "20MiB", "20mib/s", "20Mib/s", "10M:100k"] {
            assert!(matches!(refused(text), BadRate::Unit { .. }), "{text}");
        }
        for text in ["0", "0MiB/s", "0.0", "0Mbps"] {
            assert!(matches!(refused(text), BadRate::Zero(_)), "{text}");
        }
        for (text, instead) in [
            ("100Mbps", "has no unit that is known: write 100Mbit/s"),
            ("20 MiB/s", "is no rate: write 20MiB/s"),
            (
                "100M",
                "it may be bytes or bits: write 100MiB/s or 100Mbit/s",
            ),
            ("OFF", "is no rate: write off"),
            ("20x", "bits are kbit/s"),
            ("fast", "e.g. 20MiB/s"),
            ("0", "write `off` for no limit"),
        ] {
            let said = refused(text).to_string();
            assert!(said.contains(instead), "{said}");
        }
        for text in ["65535B/s", "63KiB/s", "512kbit/s"] {
            assert!(matches!(refused(text), BadRate::TooSlow(_)), "{text}");
        }
        assert!(refused("63KiB/s").to_string().contains("at least 64KiB/s"));
        for text in [
            "1025GiB/s",
            "99999999999999999999999999999999999999999GiB/s",
        ] {
            assert!(matches!(refused(text), BadRate::TooFast(_)), "{text}");
        }
        assert_eq!(bytes("64KiB/s"), LEAST_BYTES_PER_SEC);
        assert_eq!(bytes("1024GiB/s"), MOST_BYTES_PER_SEC);
    }

    #[test]
    fn no_limit_is_never_the_slower() {
        let (slow, fast): (Rate, Rate) = ("1MiB/s".parse().unwrap(), "2MiB/s".parse().unwrap());
        assert_eq!(slow.slower(fast), slow);
        assert_eq!(fast.slower(slow), slow);
        assert_eq!(Rate::OFF.slower(fast), fast);
        assert_eq!(fast.slower(Rate::OFF), fast);
        assert_eq!(Rate::OFF.slower(Rate::OFF), Rate::OFF);
    }

    proptest! {
        #[test]
        fn every_rate_survives_its_text(bytes in LEAST_BYTES_PER_SEC..=MOST_BYTES_PER_SEC) {
            let rate = Rate(NonZeroU64::new(bytes));
            prop_assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate);
        }
    }
}
