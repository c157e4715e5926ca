//! A link of this kernel, where one can be laid.
#![allow(clippy::unwrap_used)]

use super::*;

/// 8 Mbit/s, so that little fills it.
const SHAPE: Shape = Shape {
    bits_per_second: 8_000_000,
    one_way: Duration::from_millis(20),
    mtu: 1500,
};

/// What [`stream::measure`] runs at each end.
#[test]
fn an_end_of_a_stream() {
    if !stream::be_an_end().unwrap() {
        eprintln!("skipped: it is an end of a stream only where the environment says so");
    }
}

#[test]
fn streams_over_loopback_need_no_link() {
    let found = stream::measure(&Network::Loopback, 1 << 20, 3).unwrap();
    assert!(found.round_trip < Duration::from_millis(20), "{found:?}");
}

#[test]
fn a_link_is_as_late_and_as_fast_as_its_shape_says_and_leaves_nothing_behind() {
    if let Some(obstacle) = obstacle() {
        eprintln!("skipped: {obstacle}");
        return;
    }
    let names = || ip(&["netns", "list"]).unwrap();
    // Of a run that was killed; no process has this number.
    let leftover = format!("{PREFIX}far-4194305");
    ip(&["netns", "add", &leftover]).unwrap();
    let link = Link::lay(SHAPE).unwrap();
    assert!(!names().contains(&leftover));
    let ours = link.near.name.clone();
    assert!(names().contains(&ours));
    assert!(!link.congestion_control().unwrap().is_empty());

    let network = Network::Delayed(link);
    let bytes = 500_000;
    let found = stream::measure(&network, bytes, 2).unwrap();
    let millis = found.round_trip.as_secs_f64() * 1000.0;
    assert!((40.0..80.0).contains(&millis), "{found:?}");
    // Half a second by the line alone; a machine that is busy makes it longer.
    assert!((0.5..5.0).contains(&found.seconds), "{found:?}");
    let Network::Delayed(link) = &network else {
        unreachable!("it was made above");
    };
    let (carried, _) = link.packets();
    assert!(carried >= 2 * bytes / 65_535, "{carried} carried");

    drop(network);
    assert!(!names().contains(&ours));
}
