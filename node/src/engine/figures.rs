//! Live figures of one volume: what its agent measures, gossips, and everybody shows.
//!
//! A [`Meter`] makes them from the counters of sessions, which only ever add. Not here:
//! the counters (`transfer`), when it is measured and told (`events`), and what follows
//! from it (`roles::forecast`).

use crate::transfer::{Compression, Counts, Way};
use blocks::BLOCK_SIZE;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Speeds are means over this time.
const WINDOW_MILLIS: u64 = 10_000;
/// Samples kept: as many as are made in that time, with some slack.
const MAX_SAMPLES: usize = 32;
/// A speed over less than this says nothing.
const TELLING_MILLIS: u64 = 2_000;

/// What an agent says of one volume. Counters begin with the agent's process; a span is
/// none while it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The pass that runs, or ran last.
    pub pass: u32,
    /// Bytes of the volume.
    pub total_bytes: u64,
    /// Bytes of it that the pass dealt with.
    pub done_bytes: u64,
    /// Bytes of it that the pass found to differ and sent.
    pub found_bytes: u64,
    /// How long the pass has run.
    pub pass_millis: u64,
    /// Bytes dealt with in a second, lately; none in a pass that has just begun.
    pub bytes_per_sec: Option<u64>,
    /// The same over the whole pass.
    pub pass_bytes_per_sec: u64,
    /// Payload bytes sent in a second, lately.
    pub sent_bytes_per_sec: u64,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Bytes of payload sent.
    pub sent_bytes: u64,
    /// Bytes of disk that they stand for.
    pub disk_bytes: u64,
    /// Of these, bytes that compression kept off the wire.
    pub saved_by_compression: u64,
    /// The same of patches.
    pub saved_by_patches: u64,
    /// The same of references.
    pub saved_by_references: u64,
    /// Bytes sent, or found to differ, that are not durable yet.
    pub unsettled_bytes: u64,
    /// Barriers that became durable.
    pub barriers: u64,
    /// How long ago the last of them did.
    pub barrier_age_millis: Option<u64>,
    /// How long ago the last complete pass began: all that is older is in the copy.
    pub lag_millis: Option<u64>,
    /// Whether nothing that is sent is compressed, by the agent's settings.
    pub is_uncompressed: bool,
    /// The limit that holds for all that the agent sends together, in bytes a second: of a
    /// limit that its site shares its part.
    pub limit_bytes_per_sec: Option<u64>,
    /// The pace at which reading is held for the sake of the source's own work, in bytes a
    /// second; none while it is not.
    pub reads_held_at: Option<u64>,
}

/// What was counted at one time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at_millis: u64,
    looked_at: u64,
    sent_bytes: u64,
}

/// Measures one volume at its agent.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Of the pass that runs, or ran last, newest last.
    samples: VecDeque<Sample>,
    compression: Compression,
    pass: u32,
    began_millis: u64,
    /// Blocks that had been sent when it began.
    began_sent: u64,
    barrier_millis: Option<u64>,
    /// When the last complete pass began.
    covered_millis: Option<u64>,
}

impl Meter {
    /// Of a volume that is sent with this setting.
    pub(super) fn new(compression: Compression) -> Self {
        Self {
            compression,
            ..Self::default()
        }
    }

    /// A barrier is durable.
    pub(super) fn barrier(&mut self, now_millis: u64) {
        self.barrier_millis = Some(now_millis);
    }

    /// A pass is complete that took so long.
    pub(super) fn pass_done(&mut self, now_millis: u64, took_millis: u64) {
        self.covered_millis = Some(now_millis.saturating_sub(took_millis));
    }

    /// The figures at this time, of a volume of so many bytes, while this limit holds for
    /// all that its agent sends.
    pub(super) fn measure(
        &mut self,
        now_millis: u64,
        length: u64,
        limit: Option<u64>,
        counts: &Counts,
    ) -> Figures {
        self.note(now_millis, counts);
        let age = |then: u64| now_millis.saturating_sub(then);
        let done_bytes = in_bytes(counts.blocks_looked_at).min(length);
        let pass_millis = age(self.began_millis);
        let (looked_at, sent_bytes) = self.lately();
        Figures {
            pass: counts.pass,
            total_bytes: length,
            done_bytes,
            found_bytes: in_bytes(counts.blocks_sent.saturating_sub(self.began_sent)),
            pass_millis,
            bytes_per_sec: looked_at.map(in_bytes),
            pass_bytes_per_sec: per_sec(done_bytes, pass_millis),
            sent_bytes_per_sec: sent_bytes.unwrap_or(0),
            read_bytes: counts.bytes_read,
            sent_bytes: counts.bytes_sent,
            disk_bytes: in_bytes(counts.blocks_sent),
            saved_by_compression: counts.saved_bytes(Way::Zstd),
            saved_by_patches: counts.saved_bytes(Way::Patch),
            saved_by_references: counts.saved_bytes(Way::Reference),
            unsettled_bytes: in_bytes(counts.blocks_sent.saturating_sub(counts.blocks_durable)),
            barriers: counts.barriers,
            barrier_age_millis: self.barrier_millis.map(age),
            lag_millis: self.covered_millis.map(age),
            is_uncompressed: self.compression == Compression::Off,
            limit_bytes_per_sec: limit,
            reads_held_at: Some(counts.reads_held_at).filter(|pace| *pace > 0),
        }
    }

    fn note(&mut self, now_millis: u64, counts: &Counts) {
        let last = self.samples.back();
        // A pass that was broken off begins again under its number.
        let begins = self.pass != counts.pass
            || last.is_some_and(|last| counts.blocks_looked_at < last.looked_at);
        if begins || self.samples.is_empty() {
            self.samples.clear();
            (self.pass, self.began_millis) = (counts.pass, now_millis);
            self.began_sent = counts.blocks_sent;
        }
        self.samples.push_back(Sample {
            at_millis: now_millis,
            looked_at: counts.blocks_looked_at,
            sent_bytes: counts.bytes_sent,
        });
        // One that is older stays, so that the window is covered.
        while self.samples.len() > MAX_SAMPLES
            || self
                .samples
                .get(1)
                .is_some_and(|second| second.at_millis + WINDOW_MILLIS <= now_millis)
        {
            self.samples.pop_front();
        }
    }

    /// Blocks looked at and bytes sent in a second, over the window.
    fn lately(&self) -> (Option<u64>, Option<u64>) {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return (None, None);
        };
        let millis = last.at_millis.saturating_sub(first.at_millis);
        if millis < TELLING_MILLIS {
            return (None, None);
        }
        let looked_at = last.looked_at.saturating_sub(first.looked_at);
        let sent_bytes = last.sent_bytes.saturating_sub(first.sent_bytes);
        let per_sec = |count| Some(per_sec(count, millis));
        (per_sec(looked_at), per_sec(sent_bytes))
    }
}

fn in_bytes(blocks: u64) -> u64 {
    blocks.saturating_mul(BLOCK_SIZE as u64)
}

fn per_sec(count: u64, millis: u64) -> u64 {
    count.saturating_mul(1_000).checked_div(millis).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LENGTH: u64 = 1_000 * BLOCK_SIZE as u64;

    fn counts(pass: u32, blocks_looked_at: u64, bytes_sent: u64) -> Counts {
        Counts {
            pass,
            blocks_looked_at,
            bytes_sent,
            ..Counts::default()
        }
    }

    #[test]
    fn speeds_are_those_of_the_last_ten_seconds_and_of_the_pass() {
        let mut meter = Meter::default();
        // 10 blocks a second, then 40.
        let mut looked_at = 0;
        for step in 0..=80 {
            meter.measure(
                step * 500,
                LENGTH,
                None,
                &counts(1, looked_at, looked_at * 2),
            );
            looked_at += if step < 40 { 5 } else { 20 };
        }
        let last = meter.measure(40_500, LENGTH, None, &counts(1, looked_at, looked_at * 2));
        assert_eq!(last.bytes_per_sec, Some(40 * BLOCK_SIZE as u64));
        assert_eq!(last.sent_bytes_per_sec, 80);
        assert_eq!(last.pass_millis, 40_500);
        let mean = last.done_bytes * 1_000 / 40_500;
        assert_eq!(last.pass_bytes_per_sec, mean);
        assert!(meter.samples.len() <= MAX_SAMPLES);
    }

    #[test]
    fn a_pass_that_stands_still_has_no_speed_after_ten_seconds() {
        let mut meter = Meter::default();
        meter.measure(0, LENGTH, None, &counts(1, 0, 0));
        meter.measure(5_000, LENGTH, None, &counts(1, 100, 100));
        let then = meter.measure(15_000, LENGTH, None, &counts(1, 100, 100));
        assert_eq!(then.bytes_per_sec, Some(0));
        assert_ne!(then.pass_bytes_per_sec, 0);
    }

    #[test]
    fn the_next_pass_and_one_that_begins_again_are_measured_from_their_beginning() {
        let mut meter = Meter::default();
        meter.measure(0, LENGTH, None, &counts(1, 0, 0));
        meter.measure(5_000, LENGTH, None, &counts(1, 500, 0));
        let again = meter.measure(6_000, LENGTH, None, &counts(1, 10, 0));
        assert_eq!((again.pass_millis, again.bytes_per_sec), (0, None));
        let next = meter.measure(9_000, LENGTH, None, &counts(2, 10, 0));
        assert_eq!((next.pass_millis, next.bytes_per_sec), (0, None));
        let later = meter.measure(11_000, LENGTH, None, &counts(2, 30, 0));
        assert_eq!(later.bytes_per_sec, Some(10 * BLOCK_SIZE as u64));
    }

    #[test]
    fn what_a_pass_found_is_counted_from_its_beginning() {
        let sent = |pass, looked_at, blocks_sent| Counts {
            blocks_sent,
            ..counts(pass, looked_at, 0)
        };
        let mut meter = Meter::default();
        let first = meter.measure(0, LENGTH, None, &sent(1, 0, 0));
        assert_eq!(first.found_bytes, 0);
        let first = meter.measure(5_000, LENGTH, None, &sent(1, 500, 70));
        assert_eq!(first.found_bytes, 70 * BLOCK_SIZE as u64);
        let next = meter.measure(9_000, LENGTH, None, &sent(2, 0, 90));
        assert_eq!(next.found_bytes, 0);
        let next = meter.measure(9_500, LENGTH, None, &sent(2, 10, 93));
        assert_eq!(next.found_bytes, 3 * BLOCK_SIZE as u64);
        assert_eq!(next.disk_bytes, 93 * BLOCK_SIZE as u64);
        let again = meter.measure(9_900, LENGTH, None, &sent(2, 1, 95));
        assert_eq!(again.found_bytes, 0, "it was broken off and begins again");
    }

    #[test]
    fn barrier_and_lag_have_an_age_once_there_was_one() {
        let mut meter = Meter::default();
        let first = meter.measure(1_000, LENGTH, None, &counts(1, 0, 0));
        assert_eq!((first.barrier_age_millis, first.lag_millis), (None, None));
        meter.barrier(4_000);
        meter.pass_done(5_000, 4_000);
        let later = meter.measure(9_000, LENGTH, None, &counts(1, 0, 0));
        let ages = (later.barrier_age_millis, later.lag_millis);
        assert_eq!(ages, (Some(5_000), Some(8_000)), "since the pass began");
    }

    #[test]
    fn that_nothing_is_compressed_is_said_where_settings_forbid_it() {
        // While it does not pay, the automatic one does not compress either.
        let counts = counts(1, 0, 0);
        for (compression, is_uncompressed) in [
            (Compression::Off, true),
            (Compression::Auto, false),
            (Compression::On, false),
        ] {
            let figures = Meter::new(compression).measure(0, LENGTH, None, &counts);
            assert_eq!(figures.is_uncompressed, is_uncompressed, "{compression:?}");
        }
    }

    #[test]
    fn what_an_agent_is_held_to_is_said_while_it_is() {
        let held = |pace| Counts {
            reads_held_at: pace,
            ..counts(1, 0, 0)
        };
        let mut meter = Meter::default();
        let free = meter.measure(0, LENGTH, None, &held(0));
        assert_eq!((free.limit_bytes_per_sec, free.reads_held_at), (None, None));
        let slow = meter.measure(500, LENGTH, Some(7), &held(9));
        let said = (slow.limit_bytes_per_sec, slow.reads_held_at);
        assert_eq!(said, (Some(7), Some(9)));
    }

    #[test]
    fn what_was_sent_and_is_not_durable_is_unsettled() {
        let mut meter = Meter::default();
        let counts = Counts {
            blocks_sent: 7,
            blocks_durable: 4,
            ..Counts::default()
        };
        let figures = meter.measure(0, LENGTH, None, &counts);
        assert_eq!(figures.unsettled_bytes, 3 * BLOCK_SIZE as u64);
    }
}
