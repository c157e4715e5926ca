//! The machine's clocks: the wall clock, and the one that never jumps.
//!
//! Not here: timeouts of connections and disks, which the runtime keeps.

use anyhow::Context;
use keys::lease::Boot;
use keys::{Now, UnixSecs};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the kernel tells one boot from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The time, both ways. The clock that does not jump counts from the boot, also while
/// the machine sleeps (CLOCK_BOOTTIME): a lease ends in a laptop that was closed.
pub fn now() -> Now {
    let since = clock_gettime(ClockId::Boottime);
    let secs = u64::try_from(since.tv_sec).unwrap_or(0);
    let millis = u64::try_from(since.tv_nsec).unwrap_or(0) / 1_000_000;
    Now {
        wall: wall_clock(),
        mono_millis: secs.saturating_mul(1000).saturating_add(millis),
    }
}

/// The wall clock; before 1970 it says 1970.
pub fn wall_clock() -> UnixSecs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixSecs(since.map_or(0, |elapsed| elapsed.as_secs()))
}

/// Which boot of the machine this is.
pub fn boot() -> anyhow::Result<Boot> {
    let text = fs::read_to_string(BOOT_ID).with_context(|| {
        format!(
            "{BOOT_ID} cannot be read, and without it nobody knows how old leases are: mount /proc"
        )
    })?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let mut id = [0; 16];
    hex::decode_to_slice(&digits, &mut id)
        .with_context(|| format!("{BOOT_ID} does not hold the id of a boot"))?;
    Ok(Boot(id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_clock_that_does_not_jump_is_the_kernels_time_since_the_boot() {
        let uptime = || {
            let text = fs::read_to_string("/proc/uptime").unwrap();
            let secs: f64 = text.split(' ').next().unwrap().parse().unwrap();
            (secs * 1000.0) as u64
        };
        let (before, here, after) = (uptime(), now().mono_millis, uptime());
        // What /proc prints is cut to hundredths.
        assert!(before <= here + 10 && here <= after + 10);
    }

    #[test]
    fn the_boot_is_the_same_however_often_it_is_asked_for() {
        let boot = boot().unwrap();
        assert_eq!(boot, super::boot().unwrap());
        assert_ne!(boot, Boot([0; 16]));
    }
}
