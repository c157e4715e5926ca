//! A link with delay between two network namespaces of this machine, for kernels without
//! netem: a TUN device in each, and threads of this process that carry packets from one
//! to the other, as late and as fast as a [`Shape`] says. What TCP makes of it is the
//! kernel's own doing.
//!
//! Both namespaces have the windows that Linux comes with, whatever this machine is set
//! to, and its congestion control where the machine allows it. Not here: what is sent over it (`stream`, and the benches).

mod packet;
mod pipe;
pub(super) mod stream;
mod tun;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use packet::{HEADER, wire_bytes};
use pipe::Pipe;
pub(super) use pipe::Shape;

/// Begins the names of its namespaces; behind it are the end and this process's id.
const PREFIX: &str = "dunlin-bench-";
/// Addresses of both ends.
const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
/// Where the far end is found, whatever the network.
pub(super) const FAR: [&str; 2] = ["127.0.0.1", ADDRESSES[1]];
/// Packets in one direction that are under way or wait: small ones are many.
const PACKETS: usize = 64 * 1024;
/// Packets that wait in a device until this process reads them: the shape's queue is to
/// be the one that overflows.
const DEVICE_PACKETS: &str = "20000";
/// As in a kernel that nobody has tuned.
const SETTINGS: [&str; 2] = [
    "net.ipv4.tcp_rmem=4096 131072 6291456",
    "net.ipv4.tcp_wmem=4096 16384 4194304",
];
const CONGESTION: &str = "net.ipv4.tcp_congestion_control";

/// One of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Near,
    Far,
}

/// Where both ends of a measurement run.
pub(super) enum Network {
    /// Both on this machine, without delay.
    Loopback,
    /// One at each end of a link.
    Delayed(Link),
}

impl Network {
    /// A command that runs at this end.
    pub(super) fn command(&self, end: End, program: impl AsRef<Path>) -> Command {
        match self {
            Self::Loopback => Command::new(program.as_ref()),
            Self::Delayed(link) => link.command(end, program.as_ref()),
        }
    }

    /// The address of the far end.
    pub(super) fn far(&self) -> &'static str {
        match self {
            Self::Loopback => FAR[0],
            Self::Delayed(_) => FAR[1],
        }
    }
}

/// A link; it is taken down with this value.
pub(super) struct Link {
    near: Namespace,
    far: Namespace,
    counts: [Arc<Counts>; 2],
    threads: Vec<JoinHandle<()>>,
}

/// Of one direction.
#[derive(Debug, Default)]
struct Counts {
    carried: AtomicU64,
    dropped: AtomicU64,
}

/// Why no link can be laid on this machine, if so.
pub(super) fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it makes network namespaces: run it as root".into());
    }
    if !Path::new(tun::CLONE_DEVICE).exists() {
        let device = tun::CLONE_DEVICE;
        return Some(format!("there is no {device}: load the module tun"));
    }
    let told = ip(&["netns", "list"]).err()?;
    Some(format!("install the Debian package iproute2: {told:#}"))
}

impl Link {
    /// Lays a link of this shape.
    pub(super) fn lay(shape: Shape) -> Result<Self> {
        remove_leftovers();
        let (near, near_device) = Namespace::with_device(End::Near, shape)?;
        let (far, far_device) = Namespace::with_device(End::Far, shape)?;
        let mut link = Self {
            near,
            far,
            counts: Default::default(),
            threads: vec![],
        };
        let (near, far) = (Arc::new(near_device), Arc::new(far_device));
        let since = Instant::now();
        let ways = [(&near, &far), (&far, &near)];
        for ((from, to), counts) in ways.into_iter().zip(link.counts.clone()) {
            let (from, to) = (from.clone(), to.clone());
            let (send, packets) = sync_channel(PACKETS);
            let taking = counts.clone();
            let take = move || take(&from, Pipe::new(shape), (since, &taking), &send);
            let put = move || put(&to, since, &counts, &packets);
            link.threads.push(thread::spawn(take));
            link.threads.push(thread::spawn(put));
        }
        Ok(link)
    }

    fn command(&self, end: End, program: &Path) -> Command {
        let namespace = match end {
            End::Near => &self.near,
            End::Far => &self.far,
        };
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &namespace.name])
            .arg(program);
        command
    }

    /// What decides how fast its ends send.
    pub(super) fn congestion_control(&self) -> Result<String> {
        let name = &self.near.name;
        let found = ip(&["netns", "exec", name, "sysctl", "-n", CONGESTION])?;
        Ok(found.trim().to_owned())
    }

    /// Packets carried and dropped so far, both ways; those that the kernel handed over
    /// together are one.
    pub(super) fn packets(&self) -> (u64, u64) {
        let sum = |pick: fn(&Counts) -> &AtomicU64| {
            let counts = self.counts.iter();
            counts
                .map(|counts| pick(counts).load(Ordering::Relaxed))
                .sum()
        };
        (sum(|counts| &counts.carried), sum(|counts| &counts.dropped))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Whoever reads a device that is gone is told so.
        self.near.remove_device();
        self.far.remove_device();
        for thread in self.threads.drain(..) {
            // It has nothing to give.
            let _ = thread.join();
        }
    }
}

/// Reads packets until the device is gone.
fn take(
    mut device: &File,
    mut pipe: Pipe,
    (since, counts): (Instant, &Counts),
    to: &SyncSender<(Duration, Vec<u8>)>,
) {
    let mut packet = vec![0; HEADER + usize::from(u16::MAX)];
    while let Ok(length) = device.read(&mut packet) {
        let due = pipe.take(since.elapsed(), wire_bytes(&packet[..length]));
        let sent = due.map(|due| to.try_send((due, packet[..length].to_vec())));
        if !matches!(sent, Some(Ok(()))) {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes packets when they are due, until nobody reads any.
fn put(
    mut device: &File,
    since: Instant,
    counts: &Counts,
    packets: &Receiver<(Duration, Vec<u8>)>,
) {
    for (due, packet) in packets {
        let wait = due.saturating_sub(since.elapsed());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
        let count = match device.write(&packet) {
            Ok(_) => &counts.carried,
            Err(_) => &counts.dropped,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A network namespace.
struct Namespace {
    name: String,
    device: String,
}

impl Namespace {
    /// Makes one with a device, at which packets of its programs are read.
    fn with_device(end: End, shape: Shape) -> Result<(Self, File)> {
        let (end, address) = match end {
            End::Near => ("near", ADDRESSES[0]),
            End::Far => ("far", ADDRESSES[1]),
        };
        let pid = std::process::id();
        let namespace = Self {
            name: format!("{PREFIX}{end}-{pid}"),
            device: format!("{end}{pid}"),
        };
        let Self { name, device } = &namespace;
        ip(&["netns", "add", name])?;
        let file = tun::open(device).with_context(|| format!("making the device {device}"))?;
        ip(&["link", "set", device, "netns", name])?;
        let mtu = shape.mtu.to_string();
        let inside: [&[&str]; 4] = [
            &["addr", "add", &format!("{address}/30"), "dev", device],
            &["link", "set", device, "mtu", &mtu],
            &["link", "set", device, "txqueuelen", DEVICE_PACKETS],
            &["link", "set", device, "up"],
        ];
        for arguments in inside.into_iter().chain([&["link", "set", "lo", "up"][..]]) {
            ip(&[&["-n", name], arguments].concat())?;
        }
        for setting in SETTINGS {
            ip(&["netns", "exec", name, "sysctl", "-qw", setting])?;
        }
        // A machine set to another one may not allow it in a namespace.
        let cubic = format!("{CONGESTION}=cubic");
        let _ = ip(&["netns", "exec", name, "sysctl", "-qw", &cubic]);
        Ok((namespace, file))
    }

    fn remove_device(&self) {
        // It goes with its namespace otherwise.
        let _ = ip(&["-n", &self.name, "link", "del", &self.device]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nobody is left to tell; what stays is removed the next time.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Removes the namespaces of runs that were ended before they could.
pub(super) fn remove_leftovers() {
    let listed = ip(&["netns", "list"]).unwrap_or_default();
    let names = listed.lines().filter_map(|line| line.split(' ').next());
    for name in names.filter(|name| name.starts_with(PREFIX)) {
        let owner = name.rsplit('-').next().unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            // As with those of this run.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// Runs `ip`; what it printed.
fn ip(arguments: &[&str]) -> Result<String> {
    let ran = Command::new("ip").args(arguments).output();
    let ran = ran.context("running ip")?;
    if !ran.status.success() {
        let told = String::from_utf8_lossy(&ran.stderr);
        bail!("ip {}: {}", arguments.join(" "), told.trim());
    }
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}

#[cfg(test)]
mod tests;
