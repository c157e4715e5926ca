//! One direction of a link as arithmetic: when a packet that goes in comes out. Time is
//! an input.
//!
//! Not here: the packets, and waiting.

use std::time::Duration;

/// What a link is like, in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) struct Shape {
    /// Counted from the IP header on.
    pub(in crate::bench) bits_per_second: u64,
    /// From one end to the other, where nothing waits.
    pub(in crate::bench) one_way: Duration,
    /// The largest packet, in bytes.
    pub(in crate::bench) mtu: u16,
}

impl Shape {
    /// What is under way in a round trip at full speed.
    pub(in crate::bench) fn product_bytes(self) -> u64 {
        let bits = self.bits_per_second as f64 * 2.0 * self.one_way.as_secs_f64();
        (bits / 8.0) as u64
    }
}

/// A direction. What waits for its turn on the line is dropped once it is more than what
/// is under way in a round trip: the queue that routers are given.
#[derive(Debug)]
pub(super) struct Pipe {
    shape: Shape,
    /// When the last bit of what was taken is on the line.
    free_at: Duration,
}

impl Pipe {
    pub(super) fn new(shape: Shape) -> Self {
        let free_at = Duration::ZERO;
        Self { shape, free_at }
    }

    /// Takes a packet that arrives now; when it comes out at the other end, or none where
    /// the queue is full.
    pub(super) fn take(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        let begins = self.free_at.max(now);
        let waiting = (begins - now).as_secs_f64() * self.shape.bits_per_second as f64 / 8.0;
        if waiting + bytes as f64 > self.shape.product_bytes() as f64 {
            return None;
        }
        let nanos = bytes as u64 * 8 * 1_000_000_000 / self.shape.bits_per_second;
        self.free_at = begins + Duration::from_nanos(nanos);
        Some(self.free_at + self.shape.one_way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// 8 Mbit/s: a byte takes a microsecond. 2000 bytes are under way in 2 ms.
    const SHAPE: Shape = Shape {
        bits_per_second: 8_000_000,
        one_way: MILLI,
        mtu: 1500,
    };

    #[test]
    fn a_packet_takes_its_time_on_the_line_and_then_the_delay() {
        let mut pipe = Pipe::new(SHAPE);
        let out = pipe.take(5 * MILLI, 1000);
        assert_eq!(out, Some(7 * MILLI));
    }

    #[test]
    fn packets_that_come_at_once_leave_one_behind_the_other() {
        let mut pipe = Pipe::new(SHAPE);
        assert_eq!(pipe.take(MILLI, 500), Some(MILLI * 5 / 2));
        assert_eq!(pipe.take(MILLI, 500), Some(MILLI * 3));
        // The line was free for long: nothing is made up for.
        assert_eq!(pipe.take(100 * MILLI, 500), Some(MILLI * 203 / 2));
    }

    #[test]
    fn what_a_full_queue_does_not_take_costs_those_behind_it_nothing() {
        let mut pipe = Pipe::new(SHAPE);
        assert!(pipe.take(MILLI, 1500).is_some());
        assert!(pipe.take(MILLI, 500).is_some());
        assert_eq!(pipe.take(MILLI, 1), None);
        // Half a millisecond later there is room for 500 bytes.
        assert_eq!(pipe.take(MILLI * 3 / 2, 501), None);
        assert_eq!(pipe.take(MILLI * 3 / 2, 500), Some(MILLI * 9 / 2));
    }

    #[test]
    fn it_carries_what_its_speed_is_however_much_is_offered() {
        let mut pipe = Pipe::new(SHAPE);
        let arrivals = (0..20_000).map(|at| Duration::from_micros(at * 100));
        let out: Vec<Duration> = arrivals.filter_map(|now| pipe.take(now, 1000)).collect();
        let last = out.last().copied().unwrap_or_default();
        let carried = out.len() as f64 * 8000.0 / last.as_secs_f64();
        assert!((7.9e6..=8.0e6).contains(&carried), "{carried} bit/s");
    }
}
