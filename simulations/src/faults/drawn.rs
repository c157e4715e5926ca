//! The faults of a drawn scenario.
//!
//! What each does is in `faults`.

use super::{Fault, GossipForgery, StreamForgery};
use crate::chance::CloudFailure;
use crate::disk::Death;
use crate::rng::{Rng, Stream};
use crate::scenario::{At, Scenario, skew};

/// Numbers that choose among what is there; a file holds no larger ones than i64.
const PICKS: u64 = 1 << 32;

/// How often a kind is drawn, of the sum of all, and its drawing.
type Kind = (u64, fn(&mut Draw) -> Fault);

const KINDS: [Kind; 18] = [
    (14, Draw::dies),
    (23, Draw::dies_after),
    (12, Draw::partition),
    (8, Draw::one_way),
    (12, |_| Fault::StreamBreaks),
    (7, Draw::sync_fails),
    (5, Draw::frame_garbled),
    (5, |draw| Fault::StrangerAsks { node: draw.victim }),
    (5, Draw::forged_gossip),
    (5, Draw::forged_stream),
    (5, Draw::block_rots),
    (3, Draw::leaf_rots),
    (4, Draw::record_rots),
    (4, Draw::slow_disk),
    (5, Draw::clock_jumps),
    (3, Draw::cloud_burst),
    (8, Draw::old_store),
    (4, Draw::changes_key),
];

/// Draws faults from the beginning until the world heals, one every 200 to 3,500 ms.
/// Clocks jump within `max_skew_secs`.
pub fn drawn(scenario: &Scenario, max_skew_secs: u64) -> Vec<At<Fault>> {
    // Those that move blocks have most to lose.
    let movers = &scenario.migrations[0];
    let mut draw = Draw {
        nodes: scenario.nodes,
        agent: movers.agent,
        receiver: movers.replicators[0],
        max_skew_secs,
        rng: Rng::of(scenario.seed, Stream::Faults, &[]),
        victim: 0,
    };
    let mut faults = vec![];
    let mut at_millis = 2;
    while at_millis < scenario.heal_at_millis {
        let what = draw.fault();
        let is_found_later = matches!(what, Fault::RecordRots { .. });
        faults.push(At { at_millis, what });
        // Such damage is found when the node starts again.
        let dies_at = at_millis + draw.rng.between(1, 2_000);
        if is_found_later && dies_at < scenario.heal_at_millis {
            faults.push(At {
                at_millis: dies_at,
                what: draw.dies(),
            });
        }
        at_millis += draw.rng.between(200, 3_500);
    }
    faults.sort_by_key(|fault| fault.at_millis);
    faults
}

struct Draw {
    nodes: usize,
    agent: usize,
    /// The one that most probably has copies.
    receiver: usize,
    max_skew_secs: u64,
    rng: Rng,
    /// The node that it strikes.
    victim: usize,
}

impl Draw {
    fn fault(&mut self) -> Fault {
        self.victim = match self.rng.below(6) {
            0 => self.agent,
            1 => self.receiver,
            _ => self.rng.index(self.nodes),
        };
        let mut left = self.rng.below(KINDS.iter().map(|(weight, _)| weight).sum());
        for (weight, draw) in KINDS {
            if left < weight {
                return draw(self);
            }
            left -= weight;
        }
        unreachable!("what was drawn is below the sum of the weights")
    }

    fn pick(&mut self) -> u64 {
        self.rng.below(PICKS)
    }

    fn death(&mut self) -> Death {
        match self.rng.below(3) {
            0 => Death::Process,
            _ => Death::Power,
        }
    }

    fn dies(&mut self) -> Fault {
        Fault::Dies {
            node: self.victim,
            death: self.death(),
            down_millis: self.rng.between(200, 7_000),
        }
    }

    fn dies_after(&mut self) -> Fault {
        Fault::DiesAfter {
            node: self.victim,
            deeds: self.rng.below(80),
            death: self.death(),
            down_millis: self.rng.between(200, 7_000),
        }
    }

    fn partition(&mut self) -> Fault {
        let (nodes, victim) = (self.nodes, self.victim);
        let rng = &mut self.rng;
        Fault::Partition {
            side: (0..nodes)
                .filter(|node| *node == victim || rng.happens(300))
                .collect(),
            millis: rng.between(500, 9_000),
        }
    }

    fn one_way(&mut self) -> Fault {
        let one = vec![self.victim];
        let others = 0..self.nodes;
        let others = others.filter(|node| *node != self.victim).collect();
        let (from, to) = match self.rng.below(2) {
            0 => (one, others),
            _ => (others, one),
        };
        Fault::OneWay {
            from,
            to,
            millis: self.rng.between(500, 8_000),
        }
    }

    fn sync_fails(&mut self) -> Fault {
        Fault::SyncFails {
            node: self.receiver,
            full: self.rng.below(2) == 0,
        }
    }

    fn frame_garbled(&mut self) -> Fault {
        Fault::FrameGarbled { pick: self.pick() }
    }

    fn forged_gossip(&mut self) -> Fault {
        Fault::ForgedGossip {
            node: self.victim,
            forgery: match self.rng.below(3) {
                0 => GossipForgery::Statement,
                1 => GossipForgery::Change,
                _ => GossipForgery::Report,
            },
            pick: self.pick(),
        }
    }

    fn forged_stream(&mut self) -> Fault {
        Fault::ForgedStream {
            forgery: match self.rng.below(4) {
                0 => StreamForgery::Stolen,
                1 => StreamForgery::Borrowed,
                2 => StreamForgery::Tampered,
                _ => StreamForgery::OldEpoch,
            },
            pick: self.pick(),
        }
    }

    fn block_rots(&mut self) -> Fault {
        Fault::BlockRots {
            node: self.receiver,
            pick: self.pick(),
        }
    }

    fn leaf_rots(&mut self) -> Fault {
        Fault::LeafRots {
            node: match self.rng.below(2) {
                0 => self.receiver,
                _ => self.agent,
            },
            pick: self.pick(),
        }
    }

    fn record_rots(&mut self) -> Fault {
        Fault::RecordRots {
            node: self.victim,
            pick: self.pick(),
            mended_after_millis: self.rng.between(3_000, 9_000),
        }
    }

    fn slow_disk(&mut self) -> Fault {
        Fault::SlowDisk {
            node: self.receiver,
            millis: self.rng.between(1_000, 10_000),
            step_millis: self.rng.between(100, 1_500),
        }
    }

    fn clock_jumps(&mut self) -> Fault {
        Fault::ClockJumps {
            node: self.victim,
            to_secs: skew(&mut self.rng, self.max_skew_secs),
        }
    }

    fn old_store(&mut self) -> Fault {
        Fault::OldStore {
            node: self.victim,
            down_millis: self.rng.between(200, 7_000),
        }
    }

    fn changes_key(&mut self) -> Fault {
        Fault::ChangesKey {
            node: self.victim,
            deeds: (self.rng.below(2) == 0).then(|| self.rng.below(8)),
        }
    }

    fn cloud_burst(&mut self) -> Fault {
        Fault::CloudBurst {
            failure: match self.rng.below(3) {
                0 => CloudFailure::Fails,
                1 => CloudFailure::TimesOut,
                _ => CloudFailure::Throttles,
            },
            calls: self.rng.between(1, 6),
        }
    }
}
