//! What a text that is no rate may have been meant as, for the error that refuses it:
//! units as other programs write them, spaces, letters in the wrong case.
//!
//! Not here: taking any of it. Of bits and bytes, and of 1000 and 1024, nobody guesses.

use super::rate::is_rate;

/// Longest text that is looked at.
const MAX_GIVEN: usize = 40;
/// How other programs write "a second", in lower case, the longest first.
const PER_SECOND: [&str; 6] = ["/second", "/sec", "psec", "/s", "p/s", "ps"];
/// Words for no limit, in lower case.
const NO_LIMIT: [&str; 7] = ["off", "none", "no", "unlimited", "max", "inf", "infinity"];

/// Rates that a text may have meant, as they are written; empty where nothing is like it.
pub(super) fn meant(text: &str) -> Vec<String> {
    let squeezed: String = text.split_whitespace().collect();
    if squeezed.len() > MAX_GIVEN {
        return vec![];
    }
    if NO_LIMIT.contains(&squeezed.to_lowercase().as_str()) {
        return vec!["off".to_owned()];
    }
    let ends = squeezed.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = squeezed.split_at(ends.unwrap_or(squeezed.len()));
    let number = number.strip_suffix('.').unwrap_or(number);
    let zero = if number.starts_with('.') { "0" } else { "" };
    let rates = units(unit).into_iter();
    rates
        .map(|unit| format!("{zero}{number}{unit}"))
        .filter(|rate| is_rate(rate))
        .collect()
}

/// The units that a unit may have meant.
fn units(unit: &str) -> Vec<String> {
    let lower = unit.to_ascii_lowercase();
    let per_second = PER_SECOND.iter().find(|end| lower.ends_with(**end));
    let end = unit.len() - per_second.map_or(0, |end| end.len());
    let (Some(unit), Some(lower)) = (unit.get(..end), lower.get(..end)) else {
        return vec![];
    };
    let (thousand, kibi, rest) = match lower.chars().next() {
        Some('k') => ("k", "K", &lower[1..]),
        Some('m') => ("M", "M", &lower[1..]),
        Some('g') => ("G", "G", &lower[1..]),
        // A number alone: a mebi is what most people limit by.
        None => ("M", "M", ""),
        Some(_) => ("", "", lower),
    };
    let bytes = || format!("{thousand}B/s");
    let kibibytes = || format!("{kibi}iB/s");
    let bits = || format!("{thousand}bit/s");
    // `Mbps` and `Mb/s` are bits wherever they are written; `mb` may be either.
    let is_small = unit.ends_with('b');
    let is_bits =
        per_second.is_some_and(|end| end.starts_with('p')) || unit.starts_with(['M', 'G']);
    match rest {
        "" => vec![kibibytes(), bits()],
        "b" if !is_small => vec![bytes()],
        "b" if is_bits && per_second.is_some() => vec![bits()],
        "b" => vec![bytes(), bits()],
        "ib" => vec![kibibytes()],
        "bit" | "bits" => vec![bits()],
        "byte" | "bytes" => vec![bytes()],
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_other_programs_are_understood_and_written_as_here() {
        for (given, rates) in [
            ("100Mbps", &["100Mbit/s"][..]),
            ("100mbps", &["100Mbit/s"]),
            ("100MBps", &["100MB/s"]),
            ("100Mb/s", &["100Mbit/s"]),
            ("100mb/s", &["100MB/s", "100Mbit/s"]),
            ("20MB", &["20MB/s"]),
            ("20MiB", &["20MiB/s"]),
            ("20mib/s", &["20MiB/s"]),
            ("20MIB/S", &["20MiB/s"]),
            ("20 MiB/s", &["20MiB/s"]),
            ("20MB /s", &["20MB/s"]),
            ("20Mbits/sec", &["20Mbit/s"]),
            ("1.5gbit", &["1.5Gbit/s"]),
            ("500kbytes/s", &["500kB/s"]),
            ("100M", &["100MiB/s", "100Mbit/s"]),
            ("100", &["100MiB/s", "100Mbit/s"]),
            (".5MiB/s", &["0.5MiB/s"]),
            ("5.MiB/s", &["5MiB/s"]),
            ("Unlimited", &["off"]),
            ("OFF", &["off"]),
        ] {
            assert_eq!(meant(given), rates, "{given}");
        }
    }

    #[test]
    fn what_is_like_no_rate_and_what_would_be_refused_as_well_is_not_suggested() {
        for given in [
            "",
            "fast",
            "MiB/s",
            "-1MiB/s",
            "10M:100k",
            "1.2.3MiB",
            "1kbps",
            "0M",
            "5\u{b5}B/s",
            "20x",
            "5000GB",
        ] {
            assert!(meant(given).is_empty(), "{given}: {:?}", meant(given));
        }
        assert!(meant(&"1".repeat(MAX_GIVEN + 1)).is_empty());
    }
}
