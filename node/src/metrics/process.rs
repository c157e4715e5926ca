//! What this process uses of its machine, under the names that every exporter gives them.
//! What `/proc` does not say is left out.

use super::page::Page;
use prometheus_client::registry::Unit;
use rustix::time::{ClockId, clock_gettime};
use std::fs;

pub(super) fn put(page: &mut Page) {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let secs = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
    page.seconds("process_cpu", "Processor time of this process", secs);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (field, name, help) in [
        (
            "VmRSS:",
            "process_resident_memory",
            "Memory of this process that is present",
        ),
        (
            "VmHWM:",
            "process_resident_memory_max",
            "The most that it was",
        ),
    ] {
        let bytes = kib_of(&status, field).map(|kib| (vec![], kib as f64 * 1024.0));
        page.gauges(name, help, Some(Unit::Bytes), bytes);
    }
    let open = fs::read_dir("/proc/self/fd").map(|files| (vec![], files.count() as f64));
    page.gauges("process_open_fds", "Open file descriptors", None, open);
}

/// The value of a field of `/proc/self/status`.
fn kib_of(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_in_kib() {
        let status = "Name:\tdunlin\nVmHWM:\t  123 kB\nVmRSS:\t   45 kB\n";
        assert_eq!(kib_of(status, "VmRSS:"), Some(45));
        assert_eq!(kib_of(status, "VmSwap:"), None);
    }
}
