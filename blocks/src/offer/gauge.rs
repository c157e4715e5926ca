//! Whether offers pay, found out by making some.
//!
//! What an offer costs: the target reads each block in its place and hashes its
//! pieces, then so does the source, 46 µs of both processors for each block, and
//! the source keeps the block until the answer is there. What it saves are bytes
//! on the link: a block of 64 KiB is 520 µs at 1 Gbit/s. So it pays from about a
//! tenth of the bytes, on a link that is worth the care; a faster one is worth
//! less, and asks for a higher share only where processors are the limit.
//!
//! How much can be saved depends on the disk and on what is at the site, and both
//! change along the disk: a new database finds nothing, the operating system
//! beside it almost everything. So a pass begins with offering all, and where
//! that saves too little it goes on with samples, until one saves enough.
//!
//! Not here: what is offered, and what comes of it.

/// Blocks by which it is judged whether all are offered: 16 MiB.
const JUDGED_BLOCKS: u64 = 256;

/// Of so many runs one is offered while offers do not pay: they cost less than a
/// hundredth then, and a region where they pay is found within 16 MiB.
const SAMPLED: u32 = 16;

/// Offers pay when they save at least one of so many bytes.
const WORTH: u64 = 10;

/// What became of the offers of one pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OfferGauge {
    is_sampling: bool,
    runs_since_sample: u32,
    blocks: u64,
    bytes: u64,
    saved_bytes: u64,
}

impl OfferGauge {
    /// At the beginning of a pass.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the next run of blocks is to be offered. Asked once for each run.
    pub fn wants(&mut self) -> bool {
        if !self.is_sampling {
            return true;
        }
        self.runs_since_sample += 1;
        let is_due = self.runs_since_sample >= SAMPLED;
        if is_due {
            self.runs_since_sample = 0;
        }
        is_due
    }

    /// An offer of `blocks` with so many `bytes` was answered, and `saved_bytes`
    /// of them need not be sent (see [`Remainder`](super::Remainder)).
    pub fn answered(&mut self, blocks: u64, bytes: u64, saved_bytes: u64) {
        if self.is_sampling {
            if pays(bytes, saved_bytes) {
                *self = Self::default();
            }
            return;
        }
        self.blocks = self.blocks.saturating_add(blocks);
        self.bytes = self.bytes.saturating_add(bytes);
        self.saved_bytes = self.saved_bytes.saturating_add(saved_bytes);
        if self.blocks >= JUDGED_BLOCKS {
            let is_sampling = !pays(self.bytes, self.saved_bytes);
            *self = Self {
                is_sampling,
                ..Self::default()
            };
        }
    }
}

fn pays(bytes: u64, saved_bytes: u64) -> bool {
    saved_bytes > 0 && saved_bytes.saturating_mul(WORTH) >= bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u64 = 16;

    fn answer(gauge: &mut OfferGauge, runs: u64, saved_percent: u64) {
        for _ in 0..runs {
            gauge.answered(RUN, 100_000, 1000 * saved_percent);
        }
    }

    fn wanted(gauge: &mut OfferGauge, runs: usize) -> usize {
        (0..runs).filter(|_| gauge.wants()).count()
    }

    #[test]
    fn a_pass_begins_with_offering_all_until_enough_is_known() {
        let mut gauge = OfferGauge::new();
        assert_eq!(wanted(&mut gauge, 100), 100);
        answer(&mut gauge, JUDGED_BLOCKS / RUN - 1, 0);
        assert_eq!(wanted(&mut gauge, 100), 100);
        answer(&mut gauge, 1, 0);
        assert_eq!(wanted(&mut gauge, 160), 10);
    }

    #[test]
    fn while_offers_save_a_tenth_all_are_offered() {
        let mut gauge = OfferGauge::new();
        for _ in 0..5 {
            answer(&mut gauge, JUDGED_BLOCKS / RUN, 10);
            assert_eq!(wanted(&mut gauge, 100), 100);
        }
        answer(&mut gauge, JUDGED_BLOCKS / RUN, 9);
        assert_eq!(wanted(&mut gauge, 160), 10);
    }

    #[test]
    fn only_the_last_blocks_are_judged() {
        let mut gauge = OfferGauge::new();
        answer(&mut gauge, 100 * JUDGED_BLOCKS / RUN, 99);
        answer(&mut gauge, JUDGED_BLOCKS / RUN, 0);
        assert_eq!(wanted(&mut gauge, 160), 10);
    }

    #[test]
    fn a_sample_that_saves_enough_brings_back_all_and_one_that_does_not_changes_nothing() {
        let mut gauge = OfferGauge::new();
        answer(&mut gauge, JUDGED_BLOCKS / RUN, 0);
        answer(&mut gauge, 100, 9);
        assert_eq!(wanted(&mut gauge, 160), 10);
        answer(&mut gauge, 1, 10);
        assert_eq!(wanted(&mut gauge, 160), 160);
        // And is judged anew, from there on.
        answer(&mut gauge, JUDGED_BLOCKS / RUN - 1, 0);
        assert_eq!(wanted(&mut gauge, 160), 160);
        answer(&mut gauge, 1, 0);
        assert_eq!(wanted(&mut gauge, 160), 10);
    }

    #[test]
    fn numbers_beyond_all_counting_are_no_fault() {
        let mut gauge = OfferGauge::new();
        gauge.answered(1, u64::MAX, u64::MAX);
        gauge.answered(u64::MAX, u64::MAX, u64::MAX);
        assert!(gauge.wants());
    }
}
