//! Durations, sizes, times, addresses and invites from words, and figures to words.

use std::io::{self, Read};
use std::time::Duration;

use keys::UnixSecs;

use super::NOW_SECS;
use crate::api::model::ErrorKind;
use crate::cli::figures::*;
use crate::cli::value::*;

#[test]
fn durations_are_numbers_with_units() {
    let secs = |text| duration(text).map(|duration| duration.as_secs());
    for (text, expected) in [
        ("90s", 90),
        ("30m", 1_800),
        ("24h", 86_400),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("1h30m", 5_400),
        ("36500d", 3_153_600_000),
    ] {
        assert_eq!(secs(text), Ok(expected), "{text}");
    }
    for text in ["", "24", "h", "1.5h", "-1h", "1 h", "5y", "10é", "h1"] {
        assert_eq!(secs(text), Err(BadDuration::Shape), "{text}");
    }
    assert_eq!(secs("0s"), Err(BadDuration::Zero));
    for text in ["36501d", "99999999999999999999s", "18446744073709551615w"] {
        assert_eq!(secs(text), Err(BadDuration::TooLong), "{text}");
    }
}

#[test]
fn an_autonomy_may_be_nothing_and_a_lease_may_not() {
    for text in ["0", "0s"] {
        assert_eq!(duration_or_none(text), Ok(Duration::ZERO), "{text}");
        assert!(duration(text).is_err(), "{text}");
    }
    assert_eq!(duration_or_none("7d"), duration("7d"));
    assert_eq!(duration_or_none("x"), Err(BadDuration::Shape));
}

#[test]
fn what_is_exposed_is_not_rounded_and_can_be_typed_again() {
    for (secs, text) in [
        (0, "0s"),
        (2, "2s"),
        (5_400, "1h30m"),
        (3_601, "1h1s"),
        (608_400, "7d1h"),
    ] {
        assert_eq!(exact(secs), text);
        let typed = duration_or_none(text).unwrap();
        assert_eq!(typed.as_secs(), secs);
    }
}

#[test]
fn sizes_are_whole_bytes_with_binary_or_decimal_units() {
    for (text, expected) in [
        ("1", 1),
        ("4096", 4_096),
        ("4096B", 4_096),
        ("512KiB", 512 << 10),
        ("256MiB", 256 << 20),
        ("256 MiB", 256 << 20),
        ("1g", 1 << 30),
        ("2TiB", 2 << 40),
        ("1MB", 1_000_000),
        ("3gb", 3_000_000_000),
    ] {
        assert_eq!(bytes(text), Ok(expected), "{text}");
    }
    for text in ["", "MiB", "1.5GiB", "-1", "1XB", "1 é"] {
        assert_eq!(bytes(text), Err(BadSize::Shape), "{text}");
    }
    assert_eq!(bytes("0MiB"), Err(BadSize::Zero));
    for text in ["16777216TiB", "99999999999999999999"] {
        assert_eq!(bytes(text), Err(BadSize::TooLarge), "{text}");
    }
}

#[test]
fn times_are_read_as_rfc_3339_has_them() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-31T08:00:00Z", NOW_SECS),
        ("2026-01-31t08:00:00z", NOW_SECS),
        ("2026-01-31 08:00:00.987654Z", NOW_SECS),
        ("2026-01-31T09:30:00+01:30", NOW_SECS),
        ("2026-01-30T23:00:00-09:00", NOW_SECS),
        ("2000-02-29T00:00:00Z", 951_782_400),
        ("2016-12-31T23:59:60Z", 1_483_228_799),
    ] {
        assert_eq!(parse_rfc3339(text), Some(expected), "{text}");
    }
    for text in [
        "",
        "2026-01-31",
        "2026-01-31T08:00:00",
        "2026-01-31T08:00:00.Z",
        "2026-01-31T08:00:00Zx",
        "2026-01-31T08:00:00+0100",
        "2026-01-31T08:00:00+24:00",
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T08:60:00Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+01:00",
        "2026-01-31T08:00:0éZ",
        "+026-01-31T08:00:00Z",
    ] {
        assert_eq!(parse_rfc3339(text), None, "{text}");
    }
}

#[test]
fn times_that_the_mesh_writes_are_read_back() {
    for secs in (0..5_000_000_000).step_by(86_399 * 7) {
        let text = UnixSecs(secs).to_string();
        assert_eq!(parse_rfc3339(&text), Some(secs), "{text}");
    }
}

#[test]
fn since_is_a_time_or_how_long_ago() {
    let since = |text: &str| text.parse::<Since>().map(|since| since.resolve(NOW_SECS));
    assert_eq!(since("2h"), Ok(NOW_SECS - 7_200));
    assert_eq!(since("2026-01-31T08:00:00Z"), Ok(NOW_SECS));
    assert_eq!(since("yesterday"), Err(BadSince));
    assert_eq!(Since::Ago(Duration::from_secs(10)).resolve(5), 0);
}

#[test]
fn an_address_to_listen_at_has_the_form_of_a_multiaddr() {
    for text in ["/ip4/0.0.0.0/tcp/7430", "/ip6/::/udp/7430/quic-v1"] {
        assert_eq!(text.parse(), Ok(WireAddress(text.into())));
    }
    for text in ["", "/", "//", "/ip4", "0.0.0.0:7430", "localhost"] {
        assert_eq!(text.parse::<WireAddress>(), Err(BadWireAddress), "{text}");
    }
}

#[test]
fn an_invite_comes_as_an_argument_or_from_stdin_and_is_never_shown() {
    let invite = |text: &str| text.parse::<InviteText>().unwrap();
    assert_eq!(invite(" secret ").resolve(io::empty()).unwrap(), "secret");
    assert_eq!(invite("-").resolve(&b"secret\r\n"[..]).unwrap(), "secret");
    assert!(!format!("{:?}", invite("secret")).contains("secret"));
    let endless = io::repeat(b'x').take(1 << 40);
    let refused = [
        invite("-").resolve(io::empty()),
        invite("-").resolve(&b"\xff\xfe"[..]),
        invite("-").resolve(endless),
        invite("").resolve(io::empty()),
    ];
    for result in refused {
        assert_eq!(result.unwrap_err().kind(), Some(ErrorKind::Usage));
    }
}

#[test]
fn sizes_keep_three_figures() {
    for (bytes, expected) in [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (1_536 << 20, "1.5 GiB"),
        (327_155_712, "312 MiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (u64::MAX, "16.0 EiB"),
    ] {
        assert_eq!(size(bytes), expected, "{bytes}");
    }
    assert_eq!(rate(1 << 20), "1.0 MiB/s");
}

#[test]
fn ages_have_one_unit_and_know_the_future() {
    for (at, expected) in [
        ("2026-01-31T07:59:56Z", "4 s ago"),
        ("2026-01-31T07:30:00Z", "30 min ago"),
        ("2026-01-30T08:00:00Z", "24 h ago"),
        ("2026-01-01T08:00:00Z", "30 d ago"),
        ("2026-01-31T09:00:00Z", "in 1 h"),
        ("unreadable", "unreadable"),
    ] {
        assert_eq!(age(at, NOW_SECS), expected);
    }
}

#[test]
fn shares_are_whole_only_when_all_is_done() {
    assert_eq!(percent(999, 1_000), 99);
    assert_eq!(percent(u64::MAX, u64::MAX), 100);
    assert_eq!(percent(2, 1), 100);
    assert_eq!(percent(0, 0), 100);
    assert_eq!(bar(45, 10), "[####......]  45 %");
    assert_eq!(bar(100, 10), "[##########] 100 %");
}

#[test]
fn what_is_left_takes_as_long_as_the_rate_says() {
    assert_eq!(eta(1_000, 0), None);
    assert_eq!(eta(1_001, 100).as_deref(), Some("11 s"));
    assert_eq!(eta(u64::MAX, 1).as_deref(), Some("213503982334601 d"));
    assert_eq!(took(450), "0.4 s");
    assert_eq!(took(13_500), "13 s");
    assert_eq!(took(125_000), "2 min 05 s");
    assert_eq!(took(3_780_000), "1 h 03 min");
}
