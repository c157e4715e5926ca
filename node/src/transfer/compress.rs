//! Whether to compress, and compressing: zstd at its fastest, one frame for
//! each extent, and only where it pays.
//!
//! Compressing helps while the link is slower than zstd on one core, which
//! nobody knows beforehand. So the gauge watches: where the disk thread mostly
//! waits for buffers to come back and few bytes a second leave, it tries, and
//! keeps to whichever way moved more of the disk.
//!
//! Where a limit holds the stream up nothing needs to be tried: a limit wants fewer bytes,
//! and what it leaves of a core is idle. Where zstd is slower than the limit, that does not
//! hold the stream up any more, and it is tried as ever.
//!
//! Not here: decompressing, which is the replicator's and bounded there.

use std::time::Duration;

use tokio::time::Instant;
use zstd::bulk::Compressor;

/// What a person or a plan asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// While it pays.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Every extent that shrinks.
    On,
}

/// The fastest level that has a table: more costs more than it saves here.
const LEVEL: i32 = 1;

/// An extent is sent raw unless it shrinks to nine tenths.
const KEEP_TENTHS: usize = 9;

/// How long one way is tried before it is judged.
const PERIOD: Duration = Duration::from_secs(1);

/// Links at least this fast, in bytes a second, are never worth compressing
/// for on one core: a little over 1 Gbit/s. Above it, waiting for the link
/// mostly means waiting for a processor that compressing would keep busier.
const FAST_LINK: u64 = 125 << 20;

/// Waiting for this share of a period, in percent, means the link is slower
/// than the disk.
const LINK_BOUND_PERCENT: u128 = 30;

/// A stream that waits for its limit for this share of a period, in percent, is held up by
/// it.
const LIMIT_BOUND_PERCENT: u128 = 30;

/// Compressing has to move this much more of the disk, in percent, to be kept.
const GAIN_PERCENT: u64 = 110;

/// Periods until the way not taken is tried again; doubles each time it was
/// worse.
const FIRST_PATIENCE: u32 = 8;
const MAX_PATIENCE: u32 = 128;

/// Decides for [`Compression::Auto`]. Time comes in, nothing is read.
#[derive(Debug)]
pub(super) struct Gauge {
    mode: Compression,
    on: bool,
    began: Instant,
    waited: Duration,
    /// How long the stream had waited for a limit when the period began, in all.
    paced: Duration,
    raw_bytes: u64,
    wire_bytes: u64,
    /// Disk bytes a second without compressing, when last tried.
    rate_off: u64,
    patience: u32,
    hold: u32,
}

impl Gauge {
    pub(super) fn new(mode: Compression, now: Instant) -> Self {
        Self {
            mode,
            on: mode == Compression::On,
            began: now,
            waited: Duration::ZERO,
            paced: Duration::ZERO,
            raw_bytes: 0,
            wire_bytes: 0,
            rate_off: 0,
            patience: FIRST_PATIENCE,
            hold: 0,
        }
    }

    /// Whether the next extent is to be compressed.
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// A new pass begins; the time before it says nothing. The stream has waited for a
    /// limit for `paced`, in all.
    pub(super) fn restart(&mut self, now: Instant, paced: Duration) {
        self.began = now;
        self.paced = paced;
        self.waited = Duration::ZERO;
        self.raw_bytes = 0;
        self.wire_bytes = 0;
    }

    /// The disk thread waited for a buffer.
    pub(super) fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// Extents of `raw` bytes left as `wire` bytes. The stream has waited for a limit for
    /// `paced`, in all.
    pub(super) fn moved(&mut self, raw: u64, wire: u64, (now, paced): (Instant, Duration)) {
        self.raw_bytes += raw;
        self.wire_bytes += wire;
        let time = now.duration_since(self.began);
        if self.mode != Compression::Auto || time < PERIOD {
            return;
        }
        let held_up = paced.saturating_sub(self.paced);
        if held_up.as_millis() * 100 >= time.as_millis() * LIMIT_BOUND_PERCENT {
            self.on = true;
            self.hold = FIRST_PATIENCE;
            self.restart(now, paced);
            return;
        }
        let link_bound = self.waited.as_millis() * 100 >= time.as_millis() * LINK_BOUND_PERCENT;
        let (raw, wire) = (rate(self.raw_bytes, time), rate(self.wire_bytes, time));
        self.hold = self.hold.saturating_sub(1);
        if self.on {
            let gains = raw.saturating_mul(100) >= self.rate_off.saturating_mul(GAIN_PERCENT);
            if !gains {
                self.turn_off();
            } else if self.hold == 0 {
                // The link may have become faster: see how it does without.
                self.on = false;
                self.hold = 1;
            }
        } else {
            self.rate_off = raw;
            if self.hold == 0 && link_bound && wire < FAST_LINK {
                self.on = true;
                self.hold = self.patience;
            }
        }
        self.restart(now, paced);
    }

    fn turn_off(&mut self) {
        self.on = false;
        self.hold = self.patience;
        self.patience = (self.patience * 2).min(MAX_PATIENCE);
    }
}

fn rate(bytes: u64, time: Duration) -> u64 {
    // A period of a second and more is not 0 milliseconds.
    let millis = time.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX)
}

/// Compresses extents one by one.
pub(super) struct Packer(Option<Compressor<'static>>);

impl Packer {
    pub(super) fn new() -> Self {
        // Without one, everything is sent raw.
        Self(Compressor::new(LEVEL).ok())
    }

    /// Compresses `raw` into the beginning of `packed` and gives the length,
    /// or none when it does not shrink enough or does not fit.
    pub(super) fn pack(&mut self, raw: &[u8], packed: &mut [u8]) -> Option<usize> {
        let room = (raw.len() / 10 * KEEP_TENTHS).min(packed.len());
        let packed = packed.get_mut(..room).filter(|room| !room.is_empty())?;
        self.0.as_mut()?.compress_to_buffer(raw, packed).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const UNPACED: Duration = Duration::ZERO;

    /// A world in which a link carries `link` bytes a second, the disk is
    /// faster, and zstd halves at `zstd` bytes a second.
    fn run(link: u64, zstd: u64, seconds: u32) -> Gauge {
        let mut now = Instant::now();
        let mut gauge = Gauge::new(Compression::Auto, now);
        for _ in 0..seconds {
            now += PERIOD;
            if gauge.is_on() {
                let raw = (link * 2).min(zstd);
                let busy = PERIOD.mul_f64(raw as f64 / zstd as f64);
                gauge.waited(PERIOD - busy);
                gauge.moved(raw, raw / 2, (now, UNPACED));
            } else {
                gauge.waited(PERIOD / 2);
                gauge.moved(link, link, (now, UNPACED));
            }
        }
        gauge
    }

    #[test]
    fn a_slow_link_is_compressed_for() {
        let on = (2..60).filter(|s| run(20 << 20, 400 << 20, *s).is_on());
        assert!(on.count() > 40);
    }

    #[test]
    fn a_fast_link_never_is() {
        for seconds in 1..60 {
            assert!(!run(300 << 20, 2 << 30, seconds).is_on());
        }
    }

    #[test]
    fn a_processor_slower_than_the_link_gives_up_and_tries_ever_more_rarely() {
        let on = (2..200).filter(|s| run(100 << 20, 50 << 20, *s).is_on());
        assert!((1..8).contains(&on.count()));
    }

    #[test]
    fn without_waiting_for_the_link_nothing_is_compressed() {
        let mut now = Instant::now();
        let mut gauge = Gauge::new(Compression::Auto, now);
        for _ in 0..20 {
            now += PERIOD;
            gauge.moved(1 << 20, 1 << 20, (now, UNPACED));
            assert!(!gauge.is_on());
        }
    }

    #[test]
    fn a_limit_is_compressed_for_from_the_first_period_on_and_not_once_it_is_lifted() {
        let (mut now, mut paced) = (Instant::now(), Duration::from_secs(9));
        let mut gauge = Gauge::new(Compression::Auto, now);
        gauge.restart(now, paced);
        // What fills the buffers at first goes fast, and says nothing.
        gauge.moved(16 << 20, 16 << 20, (now, paced));
        for _ in 0..100 {
            now += PERIOD * 4;
            paced += PERIOD * 3;
            gauge.moved(1 << 20, 1 << 20, (now, paced));
            assert!(gauge.is_on());
        }
        // The link is fast, and so is zstd not: it goes on raw, but for a try now and then.
        let mut on = 0;
        for _ in 0..100 {
            now += PERIOD;
            let raw = if gauge.is_on() { 100 << 20 } else { 900 << 20 };
            gauge.moved(raw, raw, (now, paced));
            on += u32::from(gauge.is_on());
        }
        assert!(on <= FIRST_PATIENCE + 1, "{on}");
        // Nor where a limit is so high that zstd, not the limit, holds the stream up.
        gauge.turn_off();
        now += PERIOD;
        gauge.moved(900 << 20, 900 << 20, (now, paced + PERIOD / 10));
        assert!(!gauge.is_on());
    }

    #[test]
    fn what_is_asked_for_is_kept_to() {
        let now = Instant::now();
        for (mode, on) in [(Compression::On, true), (Compression::Off, false)] {
            let mut gauge = Gauge::new(mode, now);
            gauge.waited(PERIOD);
            gauge.moved(1, 1, (now + PERIOD, UNPACED));
            assert_eq!(gauge.is_on(), on);
        }
    }

    #[test]
    fn only_what_shrinks_by_a_tenth_is_packed() {
        let mut packer = Packer::new();
        let mut packed = vec![0; 1 << 20];
        let text = b"all work and no play ".repeat(5000);
        let len = packer.pack(&text, &mut packed).unwrap();
        let unpacked = zstd::bulk::decompress(&packed[..len], text.len()).unwrap();
        assert_eq!(unpacked, text);
        let mut noise = vec![0; 65536];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert_eq!(packer.pack(&noise, &mut packed), None);
        assert_eq!(packer.pack(&text, &mut []), None);
    }
}
