//! Chance: how often something happens to a message, a frame or a call to the cloud,
//! and the streams of numbers that decide it.
//!
//! Each message has a stream of its own, found by its ends and its number between
//! them: whatever else is left out of a world, it meets the same fate.

use crate::context::Context;
use crate::rng::{Rng, Stream};
use provider::fake::Fault;
use serde::{Deserialize, Serialize};

/// How many times of a thousand something happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// A message is lost.
    pub lost: u64,
    /// A message or frame comes late, up to 3 s, and messages so out of order.
    pub late: u64,
    /// A message comes twice.
    pub doubled: u64,
    /// A stream breaks as a frame is sent, with all that is under way on it.
    pub broken: u64,
    /// A call to the cloud fails and nothing is done.
    pub cloud_fails: u64,
    /// A call to the cloud is carried out, and its result is lost.
    pub cloud_times_out: u64,
    /// A call to the cloud is one too many and nothing is done.
    pub cloud_throttles: u64,
}

impl Rates {
    /// As drawn scenarios have them.
    pub const USUAL: Self = Self {
        lost: 30,
        late: 40,
        doubled: 25,
        broken: 3,
        cloud_fails: 66,
        cloud_times_out: 67,
        cloud_throttles: 67,
    };

    /// Every rate with its name, to look at them or leave one out.
    pub fn each(&mut self) -> [(&'static str, &mut u64); 7] {
        [
            ("lost", &mut self.lost),
            ("late", &mut self.late),
            ("doubled", &mut self.doubled),
            ("broken", &mut self.broken),
            ("cloud_fails", &mut self.cloud_fails),
            ("cloud_times_out", &mut self.cloud_times_out),
            ("cloud_throttles", &mut self.cloud_throttles),
        ]
    }
}

/// How a call to the cloud goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloudFailure {
    /// There is no answer, and nothing is done.
    Fails,
    /// It is carried out, and its result is lost.
    TimesOut,
    /// It is one too many, and nothing is done.
    Throttles,
}

impl Context {
    /// The chance of the next message or frame from one participant to another.
    pub fn chance(&mut self, from: usize, to: usize) -> Rng {
        let number = self.network.next_between(from, to);
        let which = [from as u64, to as u64, number];
        Rng::of(self.seed, Stream::Messages, &which)
    }

    /// Decides about the next call to the cloud, and counts it when it fails.
    pub fn next_call(&mut self) {
        let mut chance = Rng::of(self.seed, Stream::Calls, &[self.cloud.calls()]);
        let burst = self.burst.take();
        let failure = match burst {
            Some((failure, left)) => {
                self.burst = (left > 1).then(|| (failure, left - 1));
                Some(failure)
            }
            None => self.failure_by_chance(&mut chance),
        };
        let (count, fault) = match failure {
            None => return,
            Some(CloudFailure::Fails) => (&mut self.seen.cloud_failures, Fault::FailBefore),
            Some(CloudFailure::TimesOut) => (&mut self.seen.cloud_time_outs, Fault::FailAfter),
            Some(CloudFailure::Throttles) => (&mut self.seen.cloud_throttles, Fault::Throttle),
        };
        *count += 1;
        self.cloud.inject(fault);
    }

    fn failure_by_chance(&self, chance: &mut Rng) -> Option<CloudFailure> {
        if self.calm {
            return None;
        }
        let rates = &self.rates;
        let drawn = chance.below(1000);
        let failing = rates.cloud_fails;
        let lost = failing + rates.cloud_times_out;
        let throttled = lost + rates.cloud_throttles;
        match drawn {
            drawn if drawn < failing => Some(CloudFailure::Fails),
            drawn if drawn < lost => Some(CloudFailure::TimesOut),
            drawn if drawn < throttled => Some(CloudFailure::Throttles),
            _ => None,
        }
    }
}
