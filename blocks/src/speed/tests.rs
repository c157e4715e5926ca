//! Golden bytes of every frame of a speed check, what is refused, and what is measured.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden<F: SpeedFrame + Copy + PartialEq + std::fmt::Debug>(frames: &[(F, usize, &str)]) {
    for (frame, payload, bytes) in frames {
        let encoded = frame.encode(*payload).unwrap();
        assert_eq!(hex(&encoded), bytes.replace('_', ""), "{frame:?}");
        let (prefix, header) = encoded.split_first_chunk().unwrap();
        let prefix = speed_prefix(*prefix).unwrap();
        assert_eq!((prefix.header, prefix.payload), (header.len(), *payload));
        assert_eq!(F::decode(header, *payload).unwrap(), *frame);
    }
}

#[test]
fn the_encoding_of_every_frame_does_not_change() {
    golden(&[
        (
            ToAnswerer::Open { millis: 5000 },
            0,
            "0500000000000000_01_00_fb8813",
        ),
        (
            ToAnswerer::Ping { number: 7 },
            0,
            "0300000000000000_01_01_07",
        ),
        (ToAnswerer::Data, 65_536, "0200000000000100_01_02"),
        (ToAnswerer::EndData, 0, "0200000000000000_01_03"),
        (ToAnswerer::AskData, 0, "0200000000000000_01_04"),
    ]);
    let flow = Flow {
        bytes: 3,
        micros: 4,
        bytes_in_all: 5,
    };
    let code = SpeedRefusal::MovingBlocks;
    golden(&[
        (
            ToAsker::Opened { at_millis: 300 },
            0,
            "0500000000000000_01_00_fb2c01",
        ),
        (ToAsker::Refused { code }, 0, "0300000000000000_01_01_01"),
        (ToAsker::Pong { number: 7 }, 0, "0300000000000000_01_02_07"),
        (ToAsker::Received(flow), 0, "0500000000000000_01_03_030405"),
        (ToAsker::Data, 1, "0200000001000000_01_04"),
        (ToAsker::EndData, 0, "0200000000000000_01_05"),
    ]);
}

#[test]
fn its_first_bytes_begin_no_frame_of_a_session() {
    assert!(FramePrefix::decode(SPEED_HELLO).is_err());
}

#[test]
fn only_data_has_a_payload_and_never_more_than_its_limit() {
    assert!(ToAnswerer::EndData.encode(1).is_err());
    assert!(ToAsker::Pong { number: 1 }.encode(1).is_err());
    for payload in [0, MAX_SPEED_PAYLOAD + 1] {
        assert!(ToAnswerer::Data.encode(payload).is_err());
        let data = codec::encode(&ToAsker::Data).unwrap();
        assert!(ToAsker::decode(&data, payload).is_err());
    }
}

#[test]
fn lengths_beyond_the_limits_are_refused_before_anything_is_read() {
    let prefix = |header: usize, payload: usize| {
        let lengths = FramePrefix { header, payload };
        speed_prefix(lengths.encode()).is_ok()
    };
    assert!(prefix(1, 0) && prefix(MAX_SPEED_HEADER, MAX_SPEED_PAYLOAD));
    assert!(!prefix(0, 0));
    assert!(!prefix(MAX_SPEED_HEADER + 1, 0));
    assert!(!prefix(1, MAX_SPEED_PAYLOAD + 1));
}

#[test]
fn the_time_in_which_a_connection_finds_its_speed_does_not_count() {
    let mut meter = Meter::new(1000);
    // A slow start, then 100 bytes each 10 ms.
    for at in 0..40 {
        meter.note(at * 10_000, 1);
    }
    for at in 40..100 {
        meter.note(at * 10_000, 100);
    }
    let flow = meter.flow(1_000_000);
    assert_eq!(flow.bytes_per_sec(), 10_000, "{flow:?}");
    assert_eq!(flow.bytes_in_all, 40 + 60 * 100);
}

#[test]
fn what_comes_when_the_time_is_over_does_not_count() {
    let mut meter = Meter::new(100);
    for at in 0..10 {
        meter.note(at * 10_000, 100);
    }
    let before = meter.flow(100_000);
    meter.note(500_000, 1_000_000);
    let after = meter.flow(500_000);
    assert_eq!(
        (after.bytes, after.micros, after.bytes_in_all),
        (before.bytes, before.micros, 1_001_000)
    );
}

#[test]
fn a_flow_that_is_over_at_once_counts_whole_and_none_is_none() {
    assert_eq!(Meter::new(1000).flow(5), Flow::default());
    assert_eq!(Flow::default().bytes_per_sec(), 0);
    let mut meter = Meter::new(1000);
    meter.note(10_000, 500);
    meter.note(20_000, 500);
    assert_eq!(
        meter.flow(30_000).bytes_per_sec(),
        1000 * 1_000_000 / 20_000
    );
    let mut meter = Meter::new(1000);
    meter.note(7, 500);
    assert!(meter.flow(7).bytes_per_sec() > 0);
}

proptest! {
    #[test]
    fn arbitrary_headers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = ToAnswerer::decode(&bytes, 0);
        let _ = ToAsker::decode(&bytes, 1);
    }

    #[test]
    fn a_meter_counts_no_more_than_came(
        millis in 0..MAX_SPEED_MILLIS,
        notes in proptest::collection::vec((0..90_000_000u64, 0..u64::MAX / 64), 0..32),
    ) {
        let mut meter = Meter::new(millis);
        let mut notes = notes;
        notes.sort_unstable();
        for (at, bytes) in &notes {
            meter.note(*at, *bytes);
        }
        let flow = meter.flow(90_000_000);
        let in_all: u64 = notes.iter().map(|(_, bytes)| bytes).sum();
        prop_assert_eq!(flow.bytes_in_all, in_all);
        prop_assert!(flow.bytes <= in_all && flow.micros <= 90_000_000);
    }
}
