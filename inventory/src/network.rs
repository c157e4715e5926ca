//! Network interfaces as they are, by sysfs and procfs, and as files configure them.

use crate::Tree;
use crdt::inventory::{Configured, Interface, Network, Route};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod ifcfg;
mod interfaces;
mod keyfile;
mod netplan;
mod networkd;
#[cfg(test)]
mod tests;

/// `ARPHRD_LOOPBACK` of Linux.
const LOOPBACK: u64 = 772;
/// `RTF_REJECT` of Linux: a route that refuses.
const REJECT: u32 = 0x200;
/// What systemd-resolved puts into `/etc/resolv.conf` for itself.
const STUB: &str = "127.0.0.53";

pub(crate) fn read(tree: &Tree) -> Network {
    let route = tree.text("/proc/net/route").unwrap_or_default();
    let route_v6 = tree.text("/proc/net/ipv6_route").unwrap_or_default();
    let mut routes = routes(&route);
    routes.extend(routes_v6(&route_v6));
    Network {
        interfaces: interfaces(tree),
        routes,
        dns: dns(tree),
        configured: configured(tree),
    }
}

/// Pairs of virtual ends are left out: containers come and go with theirs.
fn interfaces(tree: &Tree) -> Vec<Interface> {
    let addresses = if tree.is_own() { addresses() } else { vec![] };
    let names = tree.names("/sys/class/net").into_iter();
    let names = names.filter(|name| {
        let of = |file: &str| format!("/sys/class/net/{name}/{file}");
        let is_link = tree.exists(&of("type"));
        is_link && !name.starts_with("veth") && tree.number(&of("type")) != Some(LOOPBACK)
    });
    let interface = |name: String| {
        let of = |file: &str| format!("/sys/class/net/{name}/{file}");
        let state = tree.line(&of("operstate"));
        let mine = addresses.iter().filter(|(of, _)| *of == name);
        Interface {
            mac: hardware_address(tree.line(&of("address"))),
            driver: tree.real_name(&of("device/driver")),
            is_up: matches!(state.as_deref(), Some("up" | "unknown")),
            addresses: mine.map(|(_, address)| address.clone()).collect(),
            name,
        }
    };
    names.map(interface).collect()
}

fn hardware_address(text: Option<String>) -> String {
    let none = |text: &String| text.chars().all(|c| c == '0' || c == ':');
    text.filter(|text| !none(text)).unwrap_or_default()
}

/// Names with addresses and lengths of prefixes, of this process's network.
fn addresses() -> Vec<(String, String)> {
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    let mut found: Vec<(String, IpAddr, u8)> = found
        .into_iter()
        .filter(|found| !found.is_link_local() && !found.is_loopback())
        .map(|found| {
            let prefix = match &found.addr {
                if_addrs::IfAddr::V4(v4) => v4.prefixlen,
                if_addrs::IfAddr::V6(v6) => v6.prefixlen,
            };
            (found.name.clone(), found.ip(), prefix)
        })
        .collect();
    found.sort();
    let shown = |(name, ip, prefix)| (name, format!("{ip}/{prefix}"));
    found.into_iter().map(shown).collect()
}

/// Default routes of `/proc/net/route`: columns of hexadecimal numbers in the order of
/// the machine.
fn routes(table: &str) -> Vec<Route> {
    let rows = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
        let (target, mask, flags) = (number(1)?, number(7)?, number(3)?);
        let gateway = Ipv4Addr::from(number(2)?.to_ne_bytes());
        (target == 0 && mask == 0 && flags & REJECT == 0).then(|| Route {
            gateway: known(gateway.is_unspecified(), gateway.to_string()),
            interface: fields[0].to_owned(),
        })
    });
    unique(rows)
}

/// The same of `/proc/net/ipv6_route`.
fn routes_v6(table: &str) -> Vec<Route> {
    let rows = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [target, prefix, _, _, gateway, _, _, _, flags, interface] = fields[..] else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let gateway = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?);
        let is_default = prefix == "00" && target.chars().all(|c| c == '0');
        (is_default && flags & REJECT == 0 && interface != "lo").then(|| Route {
            gateway: known(gateway.is_unspecified(), gateway.to_string()),
            interface: interface.to_owned(),
        })
    });
    unique(rows)
}

fn known(is_none: bool, text: String) -> String {
    if is_none { String::new() } else { text }
}

fn unique(rows: impl Iterator<Item = Route>) -> Vec<Route> {
    let mut routes: Vec<Route> = vec![];
    for row in rows {
        if !routes.contains(&row) {
            routes.push(row);
        }
    }
    routes
}

fn dns(tree: &Tree) -> Vec<String> {
    let of = |path: &str| -> Vec<String> {
        let text = tree.text(path).unwrap_or_default();
        let servers = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then(|| words.next())?
        });
        servers.map(str::to_owned).collect()
    };
    let servers = of("/etc/resolv.conf");
    if servers.iter().all(|server| server == STUB) {
        return of("/run/systemd/resolve/resolv.conf");
    }
    servers
}

/// What each file says, those of one system together.
fn configured(tree: &Tree) -> Vec<Configured> {
    let mut all = vec![];
    let mut take = |paths: Vec<String>, parse: &dyn Fn(&str, &str) -> Vec<Configured>| {
        for path in paths {
            all.extend(parse(&path, &tree.text(&path).unwrap_or_default()));
        }
    };
    take(tree.files("/etc/netplan", ".yaml"), &netplan::parse);
    let ifcfg = |folder: &str| {
        let files = tree.files(folder, "").into_iter();
        let told = |path: &String| {
            let name = path.rsplit('/').next().unwrap_or_default();
            let kept = [".bak", ".orig", ".rpmsave", ".rpmnew", "~"];
            name.starts_with("ifcfg-") && !kept.iter().any(|ending| name.ends_with(ending))
        };
        files.filter(told).collect::<Vec<String>>()
    };
    take(ifcfg("/etc/sysconfig/network-scripts"), &ifcfg::red_hat);
    let static_dns = tree
        .text("/etc/sysconfig/network/config")
        .unwrap_or_default();
    let routes = tree
        .text("/etc/sysconfig/network/routes")
        .unwrap_or_default();
    take(ifcfg("/etc/sysconfig/network"), &|path, text| {
        ifcfg::suse(path, text, &routes, &static_dns)
    });
    let connections = "/etc/NetworkManager/system-connections";
    take(tree.files(connections, ""), &keyfile::parse);
    let mut files = vec!["/etc/network/interfaces".to_owned()];
    files.extend(tree.files("/etc/network/interfaces.d", ""));
    take(files, &interfaces::parse);
    take(
        tree.files("/etc/systemd/network", ".network"),
        &networkd::parse,
    );
    all
}

/// The length of the prefix of a netmask such as `255.255.255.0`; none where its bits are
/// not in a row.
fn prefix_of(netmask: &str) -> Option<u32> {
    let bits = u32::from(netmask.parse::<Ipv4Addr>().ok()?);
    (bits.leading_ones() == bits.count_ones()).then(|| bits.leading_ones())
}

/// An address with the length of its prefix, where either form gives one.
fn with_prefix(address: &str, prefix: Option<&str>, netmask: Option<&str>) -> String {
    if address.contains('/') {
        return address.to_owned();
    }
    let prefix = prefix.map(|prefix| prefix.trim_start_matches('/').to_owned());
    let mask = netmask.and_then(|mask| match mask.parse::<u32>() {
        Ok(length) => Some(length),
        Err(_) => prefix_of(mask),
    });
    match prefix.or_else(|| mask.map(|length| length.to_string())) {
        Some(length) => format!("{address}/{length}"),
        None => address.to_owned(),
    }
}
