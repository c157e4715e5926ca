//! What the machine is set to: open files, buffers of connections, instructions for AES.

use super::{broken, ok, warning};
use crate::api::model::CheckView;
use crate::cli::figures::size;
use crate::net;
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::time::Duration;

/// Files that a node with many members and many disks opens: two connections to each of
/// 128 peers, 1,024 of block streams, and the files of their sessions.
const ENOUGH_FILES: u64 = 4096;
/// With fewer a small mesh does not work.
const FEWEST_FILES: u64 = 256;

/// The way that is to be filled: 1 Gbit/s at a round trip of 100 ms.
const ROUND_TRIP: Duration = Duration::from_millis(100);
const LINK_MBIT: u64 = 1000;
/// What is advised: a single connection fills that way with it.
const ADVISED_BYTES: u64 = 32 << 20;

/// What was read of the machine; none where it cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    /// How many files this process may open at most; none without a limit.
    pub(super) open_files: Option<u64>,
    /// Whether this process is the node, whose limit that is; else it is the shell's.
    pub(super) is_node: bool,
    /// The largest buffer of a TCP connection for what comes.
    pub(super) tcp_receive: Option<u64>,
    /// The same for what is sent.
    pub(super) tcp_send: Option<u64>,
    /// Whether the kernel sizes the first by itself.
    pub(super) sizes_itself: Option<bool>,
    /// Whether TCP windows may be larger than 64 KiB.
    pub(super) scales_windows: Option<bool>,
    pub(super) has_aes: bool,
}

impl Machine {
    pub(super) fn read(is_node: bool) -> Self {
        let setting = |name: &str| {
            let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
            last_number(&text.unwrap_or_default())
        };
        Self {
            open_files: getrlimit(Resource::Nofile).maximum,
            is_node,
            tcp_receive: setting("tcp_rmem"),
            tcp_send: setting("tcp_wmem"),
            sizes_itself: setting("tcp_moderate_rcvbuf").map(|set| set != 0),
            scales_windows: setting("tcp_window_scaling").map(|set| set != 0),
            has_aes: net::has_fast_aes(),
        }
    }
}

/// The largest of `least default most`, or the only number.
fn last_number(text: &str) -> Option<u64> {
    text.split_whitespace().last()?.parse().ok()
}

pub(super) fn checks(machine: &Machine) -> [CheckView; 3] {
    [open_files(machine), buffers(machine), aes(machine)]
}

fn open_files(machine: &Machine) -> CheckView {
    let check = "open-files";
    let todo = format!(
        "raise the hard limit: `LimitNOFILE={ENOUGH_FILES}` in the systemd unit, or `ulimit -Hn {ENOUGH_FILES}` as root before `dunlin run`"
    );
    let of = match machine.is_node {
        true => "",
        false => " by what this shell starts",
    };
    match machine.open_files {
        None => ok(check, format!("files may be opened without a limit{of}")),
        Some(limit) if limit < FEWEST_FILES => {
            let text = format!("only {limit} files may be open at once{of}, too few for any mesh");
            broken(check, text, todo)
        }
        Some(limit) if limit < ENOUGH_FILES => {
            let text = format!(
                "only {limit} files may be open at once{of}, where {ENOUGH_FILES} are enough for many nodes and disks"
            );
            warning(check, text, todo)
        }
        Some(limit) => ok(check, format!("{limit} files may be open at once{of}")),
    }
}

/// Whether the connections of a block stream can fill the way. What a program may ask for
/// by itself (`net.core.rmem_max`) plays no part: it would keep the kernel from sizing them.
fn buffers(machine: &Machine) -> CheckView {
    let check = "socket-buffers";
    let (Some(receive), Some(send)) = (machine.tcp_receive, machine.tcp_send) else {
        let text = "the kernel does not say how large the buffers of connections may be";
        let todo = "look whether /proc/sys is mounted; measure with `dunlin doctor --to NODE`";
        return warning(check, text, todo);
    };
    let mut settings = vec![];
    if machine.scales_windows == Some(false) {
        settings.push("net.ipv4.tcp_window_scaling=1".to_owned());
    }
    if machine.sizes_itself == Some(false) {
        settings.push("net.ipv4.tcp_moderate_rcvbuf=1".to_owned());
    }
    let grow_not = !settings.is_empty();
    if reach_mbit(receive) < LINK_MBIT {
        settings.push(format!("net.ipv4.tcp_rmem='4096 131072 {ADVISED_BYTES}'"));
    }
    if reach_mbit(send) < LINK_MBIT {
        settings.push(format!("net.ipv4.tcp_wmem='4096 65536 {ADVISED_BYTES}'"));
    }
    let reach = format!(
        "at a round trip of 100 ms the connections of a block stream reach {} Mbit/s: their buffers grow to {} (tcp_rmem) and {} (tcp_wmem)",
        reach_mbit(receive.min(send)),
        size(receive),
        size(send),
    );
    if settings.is_empty() {
        return ok(check, reach);
    }
    let text = match grow_not {
        true => "the windows of TCP connections do not grow, which makes them slow over long ways"
            .to_owned(),
        false => reach,
    };
    let todo = format!(
        "`sysctl -w {}` as root, and the same without quotes in /etc/sysctl.d/dunlin.conf",
        settings.join(" ")
    );
    warning(check, text, todo)
}

/// Megabits a second over that way, where each connection has such a buffer, half of which
/// is the kernel's own.
fn reach_mbit(buffer_bytes: u64) -> u64 {
    let connections = u64::from(net::connections_for(ROUND_TRIP));
    let under_way_bits = (buffer_bytes / 2).saturating_mul(8 * connections);
    under_way_bits.saturating_mul(1000 / ROUND_TRIP.as_millis() as u64) / 1_000_000
}

fn aes(machine: &Machine) -> CheckView {
    match machine.has_aes {
        true => ok("aes", "the processor has instructions for AES"),
        false => warning(
            "aes",
            "the processor shows no instructions for AES: encryption takes ChaCha20, at a third of the speed or less",
            "if this is a virtual machine, give it a processor model that shows them (`aes` in /proc/cpuinfo)",
        ),
    }
}
