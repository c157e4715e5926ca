//! What a source's machine is, and what stands in the way of moving it.
//!
//! Not here: which disks it offers (`servers`).

use crate::api::model::{FindingView, ServerView};
use crate::cli::figures::size;
use crate::cli::page::{Page, Paint, Piece, Table};
use crdt::Inventory;
use crdt::inventory::{
    Configured, ConfiguredBy, Content, Detail, Device, DeviceKind, Firmware, Initramfs, Kernel,
    Method, Network, Place, Service, Storage, Table as Partitions,
};

use super::{UNKNOWN, or_unknown, plural};

/// Names of services on a line.
const LINE_WIDTH: usize = 100;

/// How it starts.
pub fn firmware(inventory: &Inventory) -> Option<Piece> {
    let firmware = match inventory.machine.firmware? {
        Firmware::Bios => "BIOS",
        Firmware::Uefi => "UEFI",
    };
    let secure = match inventory.machine.secure_boot {
        Some(true) => ", secure boot is on",
        Some(false) => ", secure boot is off",
        None => "",
    };
    Some(format!("{firmware}{secure}").into())
}

/// Time zone, and whether the clock is right.
pub fn clock(inventory: &Inventory) -> Option<Piece> {
    let zone = inventory.machine.timezone.as_deref()?;
    let held = match inventory.machine.clock_synchronised {
        Some(true) => ", the clock is synchronised",
        Some(false) => ", the clock is not synchronised",
        None => "",
    };
    Some(format!("{zone}{held}").into())
}

/// Devices, network, kernels and services.
pub fn sections(inventory: &Inventory, page: &mut Page) {
    devices(&inventory.storage, page);
    network(&inventory.network, page);
    kernels(&inventory.kernels, page);
    services(&inventory.services, page);
    if inventory.truncated {
        page.space()
            .line("the machine has more of something than a report holds: the rest is not shown");
    }
}

fn devices(storage: &Storage, page: &mut Page) {
    if storage.devices.is_empty() {
        return;
    }
    page.heading("devices");
    let mut table = Table::new([
        "~NAME", ">SIZE", "KIND", "~ON IT", "~LABEL", "~UUID", "~MOUNTED",
    ]);
    for device in in_order(storage) {
        let (depth, device) = device;
        let mounts = storage.mounts.iter();
        let mounts = mounts.filter(|mount| mount.is_mounted && mount.device == device.name);
        let mut places: Vec<String> = mounts.map(|mount| mount.at.clone()).collect();
        let is_swap = storage.swaps.iter().any(|swap| swap.path == device.path);
        places.extend(is_swap.then(|| "swap".to_owned()));
        let content = device.content.as_ref();
        table.row([
            format!("{}{}", "  ".repeat(depth), shown_name(device)).into(),
            size(device.bytes).into(),
            kind(device).into(),
            or_unknown(on_it(device).as_deref()),
            or_unknown(content.map(|content| &*content.label)),
            or_unknown(content.map(|content| &*content.uuid)),
            or_unknown(Some(&places.join(", "))),
        ]);
    }
    page.table(table);
    let expected = storage.mounts.iter().filter(|mount| !mount.is_mounted);
    for mount in expected {
        page.line(format!(
            "/etc/fstab has {} on {}, which is not mounted",
            mount.device, mount.at
        ));
    }
}

/// Each disk, then what lies on it; what lies on several stands below the first of them.
fn in_order(storage: &Storage) -> Vec<(usize, &Device)> {
    let mut ordered: Vec<(usize, &Device)> = vec![];
    let known = |name: &str| storage.devices.iter().any(|device| device.name == name);
    let is_first = |device: &&Device| !device.on.iter().any(|name| known(name));
    for first in storage.devices.iter().filter(is_first) {
        let mut ahead = vec![(0, first)];
        while let Some((depth, device)) = ahead.pop() {
            if ordered.iter().any(|(_, known)| known.name == device.name) {
                continue;
            }
            ordered.push((depth, device));
            let above = storage.devices.iter().rev();
            let above = above.filter(|above| above.on.contains(&device.name));
            ahead.extend(above.map(|above| (depth + 1, above)));
        }
    }
    ordered
}

fn shown_name(device: &Device) -> &str {
    match device.path.strip_prefix("/dev/mapper/") {
        Some(name) => name,
        None => &device.name,
    }
}

fn kind(device: &Device) -> &'static str {
    match device.kind {
        DeviceKind::Disk => "disk",
        DeviceKind::Partition => "part",
        DeviceKind::Volume => "lvm",
        DeviceKind::Crypt => "crypt",
        DeviceKind::Multipath => "mpath",
        DeviceKind::Mapper => "dm",
        DeviceKind::Raid => "md",
        DeviceKind::Loop => "loop",
    }
}

/// A table, or a content with what is known of it.
fn on_it(device: &Device) -> Option<String> {
    match device.table {
        Some(Partitions::Gpt) => return Some("GPT".into()),
        Some(Partitions::Mbr) => return Some("MBR".into()),
        None => {}
    }
    let Content { kind, detail, .. } = device.content.as_ref()?;
    Some(match detail {
        Detail::PhysicalVolume { group } if !group.is_empty() => format!("LVM, group {group}"),
        Detail::PhysicalVolume { .. } => "LVM, in no group".into(),
        Detail::RaidMember { level, devices, .. } => format!("MD {level} of {devices}"),
        Detail::Luks { version } => format!("LUKS {version}"),
        Detail::FileSystem { devices, .. } if *devices > 1 => format!("{kind} on {devices}"),
        Detail::FileSystem { .. } | Detail::None => kind.clone(),
    })
}

fn network(network: &Network, page: &mut Page) {
    if !network.interfaces.is_empty() {
        page.heading("network");
        let mut table = Table::new(["NAME", "LINK", "~DRIVER", "HARDWARE ADDRESS", "~ADDRESSES"]);
        for interface in &network.interfaces {
            table.row([
                (&interface.name).into(),
                if interface.is_up { "up" } else { "down" }.into(),
                or_unknown(interface.driver.as_deref()),
                or_unknown(Some(&interface.mac)),
                or_unknown(Some(&interface.addresses.join(", "))),
            ]);
        }
        page.table(table);
    }
    for route in &network.routes {
        let gateway = match route.gateway.is_empty() {
            true => "the link".to_owned(),
            false => route.gateway.clone(),
        };
        page.line(format!("default route by {gateway} on {}", route.interface));
    }
    if !network.dns.is_empty() {
        page.line(format!("name servers {}", network.dns.join(", ")));
    }
    if network.configured.is_empty() {
        return;
    }
    page.heading("network settings");
    let mut table = Table::new([
        "~INTERFACE",
        "BY",
        "METHOD",
        "~ADDRESSES",
        "~ROUTERS",
        "~FILE",
    ]);
    for one in &network.configured {
        table.row([
            or_unknown(Some(bound_to(one))),
            by(one.by).into(),
            method(one.method).into(),
            or_unknown(Some(&one.addresses.join(", "))),
            or_unknown(Some(&one.gateways.join(", "))),
            (&one.file).into(),
        ]);
    }
    page.table(table);
}

fn bound_to(one: &Configured) -> &str {
    match one.interface.is_empty() {
        true => &one.mac,
        false => &one.interface,
    }
}

fn by(by: ConfiguredBy) -> &'static str {
    match by {
        ConfiguredBy::Netplan => "netplan",
        ConfiguredBy::Ifcfg => "ifcfg",
        ConfiguredBy::Wicked => "wicked",
        ConfiguredBy::NetworkManager => "NetworkManager",
        ConfiguredBy::Interfaces => "ifupdown",
        ConfiguredBy::Networkd => "networkd",
    }
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Dhcp => "DHCP",
        Method::Static => "static",
        Method::Mixed => "both",
        Method::None => UNKNOWN,
    }
}

fn kernels(kernels: &[Kernel], page: &mut Page) {
    if kernels.is_empty() {
        return;
    }
    page.heading("kernels");
    for kernel in kernels {
        let initramfs = match &kernel.initramfs {
            Initramfs::Absent => "no initramfs".to_owned(),
            Initramfs::Unknown { path, why } => format!("{path} was not read: {why}"),
            Initramfs::Read {
                path,
                compression,
                modules,
            } => {
                let drivers = plural(*modules as usize, "driver", "drivers");
                format!("{path}, packed by {compression}, with {drivers}")
            }
        };
        page.line(format!("{}: {initramfs}", kernel.release));
        for (place, words) in [
            (Place::BuiltIn, "built in"),
            (Place::Initramfs, "in the initramfs"),
            (Place::RootFileSystem, "later, from the root file system"),
        ] {
            let drivers = kernel.drivers.iter();
            let drivers = drivers.filter(|driver| driver.place == place);
            let names: Vec<&str> = drivers.map(|driver| &*driver.name).collect();
            if !names.is_empty() {
                wrapped(page, &format!("  {words}: "), &names);
            }
        }
    }
}

fn services(services: &[Service], page: &mut Page) {
    if services.is_empty() {
        return;
    }
    page.heading("services");
    let running = |service: &Service| service.is_running == Some(true);
    let of = |wanted: &dyn Fn(&Service) -> bool| -> Vec<&str> {
        let services = services.iter().filter(|service| wanted(service));
        services.map(|service| &*service.name).collect()
    };
    for (words, names) in [
        (
            "run and start with the system: ",
            of(&|one| one.is_enabled && running(one)),
        ),
        (
            "run, and were started otherwise: ",
            of(&|one| !one.is_enabled && running(one)),
        ),
        (
            "start with the system: ",
            of(&|one| one.is_enabled && !running(one)),
        ),
    ] {
        if !names.is_empty() {
            wrapped(page, words, &names);
        }
    }
}

/// Names after a word or two, on as many lines as they need.
fn wrapped(page: &mut Page, words: &str, names: &[&str]) {
    let indent = " ".repeat(words.len() - words.trim_start().len() + 2);
    let mut line = words.to_owned();
    for (at, name) in names.iter().enumerate() {
        let comma = if at + 1 < names.len() { "," } else { "" };
        if line.chars().count() + name.chars().count() > LINE_WIDTH {
            page.line(line.trim_end());
            line = indent.clone();
        }
        line.push_str(name);
        line.push_str(comma);
        line.push(' ');
    }
    page.line(line.trim_end());
}

/// Findings with what to do; a machine in order is told to be so.
pub fn readiness(server: &ServerView, page: &mut Page) {
    if server.inventory.is_none() {
        return;
    }
    page.heading("readiness");
    if server.findings.is_empty() {
        page.line("nothing stands in the way");
        return;
    }
    let width = server
        .findings
        .iter()
        .map(|finding| finding.subject.chars().count());
    let width = width.max().unwrap_or(0);
    for FindingView {
        level,
        subject,
        what,
        todo,
    } in &server.findings
    {
        let paint = match level.as_str() {
            "blocker" => Paint::Bad,
            "warning" => Paint::Warn,
            _ => Paint::Plain,
        };
        page.pieces([
            Piece::new(format!("{level:<7}  "), paint),
            Piece::new(format!("{subject:<width$}  "), Paint::Dim),
            what.into(),
        ]);
        let indent = " ".repeat(width + 11);
        page.pieces([indent.into(), Piece::new("→ ", paint), todo.into()]);
    }
}

#[cfg(test)]
mod tests;
