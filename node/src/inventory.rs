//! What machine this is, for the node's report: read from /proc, /sys and
//! /etc/os-release. Nothing here is needed for moving blocks; what cannot be read is
//! left empty.

use crdt::Inventory;
use std::fs;

/// Reads the machine's inventory.
pub fn read() -> Inventory {
    Inventory {
        os: os_name(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        kernel: first_line("/proc/sys/kernel/osrelease"),
        cpus: std::thread::available_parallelism()
            .map_or(0, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        machine: [
            first_line("/sys/class/dmi/id/sys_vendor"),
            first_line("/sys/class/dmi/id/product_name"),
        ]
        .join(" ")
        .trim()
        .to_owned(),
    }
}

/// The machine's host name.
pub fn hostname() -> String {
    first_line("/proc/sys/kernel/hostname")
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn os_name(os_release: &str) -> String {
    let pretty = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    pretty.unwrap_or_default().trim_matches('"').to_owned()
}

fn memory(meminfo: &str) -> u64 {
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|digits| digits.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_os_and_the_memory_are_read_from_their_files() {
        assert_eq!(
            os_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
        assert_eq!(
            memory("MemTotal:       2048 kB\nMemFree: 1 kB\n"),
            2_097_152
        );
        assert_eq!(memory("nonsense"), 0);
        assert_eq!(os_name(""), "");
    }
}
