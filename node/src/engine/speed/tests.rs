//! Which checks may run at once, when blocks count as moving, and what is said of the way.
#![allow(clippy::unwrap_used)]

use super::*;

fn peer(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

#[test]
fn a_peer_has_one_check_at_a_time_and_all_of_them_two() {
    let checks = Checks::default();
    let first = checks.take(peer(1)).unwrap();
    assert_eq!(checks.take(peer(1)).unwrap_err(), SpeedRefusal::Busy);
    let _second = checks.take(peer(2)).unwrap();
    assert_eq!(checks.take(peer(3)).unwrap_err(), SpeedRefusal::Busy);
    drop(first);
    assert!(checks.take(peer(3)).is_ok());
}

#[test]
fn no_check_begins_while_blocks_move_and_for_a_second_after() {
    let mut checks = Checks::default();
    checks.moved(10_000, 0);
    assert!(checks.take(peer(1)).is_ok(), "nothing moved yet");
    checks.moved(10_250, 500);
    assert_eq!(
        checks.take(peer(1)).unwrap_err(),
        SpeedRefusal::MovingBlocks
    );
    checks.moved(11_000, 500);
    assert!(checks.take(peer(1)).is_err());
    checks.moved(11_250, 500);
    assert!(
        checks.take(peer(1)).is_ok(),
        "a session that rests moves nothing"
    );
    // One ended, and another begins.
    checks.moved(12_000, 0);
    assert!(checks.take(peer(1)).is_ok());
    checks.moved(12_250, 100);
    assert!(checks.take(peer(1)).is_err());
}

fn links(shared: &[&str], own: &[&str]) -> Links {
    let parsed = |all: &[&str]| all.iter().map(|text| text.parse().unwrap()).collect();
    Links {
        shared: parsed(shared),
        own: parsed(own),
        round_trip: None,
    }
}

#[test]
fn the_way_is_told_as_far_as_it_is_known() {
    let (tcp, quic) = ("/ip4/192.0.2.1/tcp/7430", "/ip4/192.0.2.1/udp/7430/quic-v1");
    let relay = "/ip4/192.0.2.9/tcp/7430/p2p-circuit";
    let own = path(1, &links(&[quic], &[tcp]));
    assert_eq!(own.own_connections, 1);
    assert_eq!(
        (own.transport.as_deref(), own.relayed),
        (Some("tcp"), Some(false))
    );
    assert_eq!(own.address.as_deref(), Some(tcp));

    let shared = path(0, &links(&[quic], &[tcp]));
    assert_eq!(shared.own_connections, 0);
    assert_eq!(
        (shared.transport.as_deref(), shared.relayed),
        (Some("quic"), Some(false))
    );
    assert_eq!(shared.address.as_deref(), Some(quic));

    let either = path(0, &links(&[quic, tcp], &[]));
    assert_eq!(
        (either.transport, either.relayed, either.address),
        (None, None, None)
    );

    let relayed = path(0, &links(&[relay], &[]));
    assert_eq!((relayed.transport, relayed.relayed), (None, Some(true)));
}

#[test]
fn of_round_trips_the_middle_one_and_the_longest_are_told() {
    let measured = Measured {
        round_trips: vec![10, 20, 30, 40, 900],
        there: Flow {
            bytes: 500,
            micros: 2_000_000,
            bytes_in_all: 700,
        },
        back: Flow::default(),
        clock_ahead_millis: -3,
    };
    let view = view(&NodeId([1; 32]), "b", path(1, &Links::default()), &measured);
    let trips = &view.round_trip;
    assert_eq!(
        (trips.count, trips.median_micros, trips.worst_micros),
        (5, 30, 900)
    );
    assert_eq!(
        (view.sent.bytes_per_sec, view.sent.bytes_in_all),
        (250, 700)
    );
    assert_eq!(view.received.bytes_per_sec, 0);
}
