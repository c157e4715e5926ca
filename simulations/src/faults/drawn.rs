//! The faults of a drawn scenario.
//!
//! What each does is in `faults`; how often each is drawn is also in the README.

use super::{Fault, GossipForgery, StreamForgery};
use crate::chance::CloudFailure;
use crate::disk::Death;
use crate::rng::{Rng, Stream};
use crate::scenario::{At, Scenario, skew};

/// Numbers that choose among what is there; a file holds no larger ones than i64.
const PICKS: u64 = 1 << 32;

/// Draws faults from the beginning until the world heals, one every 200 to 3,500 ms.
/// Clocks jump within `max_skew_secs`.
pub fn drawn(scenario: &Scenario, max_skew_secs: u64) -> Vec<At<Fault>> {
    let mut rng = Rng::of(scenario.seed, Stream::Faults, &[]);
    let mut faults = vec![];
    let mut at_millis = 2;
    while at_millis < scenario.heal_at_millis {
        let victim = victim(scenario, &mut rng);
        let mut push = |at_millis, what| faults.push(At { at_millis, what });
        match rng.below(120) {
            // Damage is found when the node starts again.
            0..=3 => {
                push(at_millis, record_rots(&mut rng, victim));
                let dies_at = at_millis + rng.between(1, 2_000);
                if dies_at < scenario.heal_at_millis {
                    push(dies_at, dies(&mut rng, victim));
                }
            }
            kind => push(
                at_millis,
                fault(scenario, &mut rng, kind, victim, max_skew_secs),
            ),
        }
        at_millis += rng.between(200, 3_500);
    }
    faults.sort_by_key(|fault| fault.at_millis);
    faults
}

/// Those that move blocks have most to lose.
fn victim(scenario: &Scenario, rng: &mut Rng) -> usize {
    let movers = &scenario.migrations[0];
    match rng.below(6) {
        0 => movers.agent,
        1 => movers.replicators[0],
        _ => rng.index(scenario.nodes),
    }
}

fn fault(
    scenario: &Scenario,
    rng: &mut Rng,
    kind: u64,
    victim: usize,
    max_skew_secs: u64,
) -> Fault {
    let node = victim;
    // Only they have copies.
    let receiver = scenario.migrations[0].replicators[0];
    match kind {
        ..=17 => dies(rng, node),
        ..=40 => Fault::DiesAfter {
            node,
            deeds: rng.below(80),
            death: death(rng),
            down_millis: rng.between(200, 7_000),
        },
        ..=52 => Fault::Partition {
            side: (0..scenario.nodes)
                .filter(|other| *other == node || rng.happens(300))
                .collect(),
            millis: rng.between(500, 9_000),
        },
        ..=60 => one_way(scenario, rng, node),
        ..=72 => Fault::StreamBreaks,
        ..=79 => Fault::SyncFails {
            node: receiver,
            full: rng.below(2) == 0,
        },
        ..=84 => Fault::FrameGarbled {
            pick: rng.below(PICKS),
        },
        ..=89 => Fault::StrangerAsks { node },
        ..=94 => Fault::ForgedGossip {
            node,
            forgery: match rng.below(3) {
                0 => GossipForgery::Statement,
                1 => GossipForgery::Change,
                _ => GossipForgery::Report,
            },
            pick: rng.below(PICKS),
        },
        ..=99 => Fault::ForgedStream {
            forgery: match rng.below(4) {
                0 => StreamForgery::Stolen,
                1 => StreamForgery::Borrowed,
                2 => StreamForgery::Tampered,
                _ => StreamForgery::OldEpoch,
            },
            pick: rng.below(PICKS),
        },
        ..=104 => Fault::BlockRots {
            node: receiver,
            pick: rng.below(PICKS),
        },
        ..=107 => Fault::LeafRots {
            node: match rng.below(2) {
                0 => receiver,
                _ => scenario.migrations[0].agent,
            },
            pick: rng.below(PICKS),
        },
        ..=111 => Fault::SlowDisk {
            node: receiver,
            millis: rng.between(1_000, 10_000),
            step_millis: rng.between(100, 1_500),
        },
        ..=116 => Fault::ClockJumps {
            node,
            to_secs: skew(rng, max_skew_secs),
        },
        _ => Fault::CloudBurst {
            failure: match rng.below(3) {
                0 => CloudFailure::Fails,
                1 => CloudFailure::TimesOut,
                _ => CloudFailure::Throttles,
            },
            calls: rng.between(1, 6),
        },
    }
}

fn dies(rng: &mut Rng, node: usize) -> Fault {
    Fault::Dies {
        node,
        death: death(rng),
        down_millis: rng.between(200, 7_000),
    }
}

fn death(rng: &mut Rng) -> Death {
    match rng.below(3) {
        0 => Death::Process,
        _ => Death::Power,
    }
}

fn one_way(scenario: &Scenario, rng: &mut Rng, node: usize) -> Fault {
    let others: Vec<usize> = (0..scenario.nodes).filter(|other| *other != node).collect();
    let (from, to) = match rng.below(2) {
        0 => (vec![node], others),
        _ => (others, vec![node]),
    };
    Fault::OneWay {
        from,
        to,
        millis: rng.between(500, 8_000),
    }
}

fn record_rots(rng: &mut Rng, node: usize) -> Fault {
    Fault::RecordRots {
        node,
        pick: rng.below(PICKS),
        mended_after_millis: rng.between(3_000, 9_000),
    }
}
