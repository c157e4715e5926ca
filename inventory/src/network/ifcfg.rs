//! `ifcfg-NAME` files: of Red Hat and its kin
//! (`/usr/share/doc/initscripts/sysconfig.txt`), and of SUSE (ifcfg(5) of wicked).

use super::with_prefix;
use crate::settings::{assignments, value};
use crdt::inventory::{Configured, ConfiguredBy, Method};

pub(super) fn red_hat(file: &str, text: &str) -> Vec<Configured> {
    let interface = value(text, "DEVICE").unwrap_or_else(|| name_of(file));
    if interface == "lo" {
        return vec![];
    }
    let mut addresses = vec![];
    for (key, address) in assignments(text) {
        // IPADDR, and IPADDR0 to IPADDR255 with PREFIX0 and NETMASK0.
        let Some(number) = key.strip_prefix("IPADDR") else {
            continue;
        };
        let is_number = number.chars().all(|c| c.is_ascii_digit());
        if is_number && !address.is_empty() {
            let prefix = value(text, &format!("PREFIX{number}"));
            let mask = value(text, &format!("NETMASK{number}"));
            addresses.push(with_prefix(&address, prefix.as_deref(), mask.as_deref()));
        }
    }
    addresses.extend(value(text, "IPV6ADDR"));
    let on = |key: &str| value(text, key).is_some_and(|value| value.eq_ignore_ascii_case("yes"));
    let dhcp = value(text, "BOOTPROTO").is_some_and(|how| matches!(&*how, "dhcp" | "bootp"));
    let gateways = ["GATEWAY", "GATEWAY0", "IPV6_DEFAULTGW"];
    let dns = ["DNS1", "DNS2", "DNS3"];
    vec![Configured {
        by: ConfiguredBy::Ifcfg,
        file: file.to_owned(),
        mac: value(text, "HWADDR")
            .unwrap_or_default()
            .to_ascii_lowercase(),
        method: method(dhcp || on("DHCPV6C"), &addresses),
        gateways: gateways.iter().filter_map(|key| value(text, key)).collect(),
        dns: dns.iter().filter_map(|key| value(text, key)).collect(),
        interface,
        addresses,
    }]
}

/// `routes` and `config` are the files of all interfaces beside it.
pub(super) fn suse(file: &str, text: &str, routes: &str, config: &str) -> Vec<Configured> {
    let interface = name_of(file);
    if interface == "lo" {
        return vec![];
    }
    let mut addresses = vec![];
    for (key, address) in assignments(text) {
        let Some(suffix) = key.strip_prefix("IPADDR") else {
            continue;
        };
        if !address.is_empty() {
            let prefix = value(text, &format!("PREFIXLEN{suffix}"));
            let mask = value(text, &format!("NETMASK{suffix}"));
            addresses.push(with_prefix(&address, prefix.as_deref(), mask.as_deref()));
        }
    }
    let boot = value(text, "BOOTPROTO").unwrap_or_default();
    let is_static = !addresses.is_empty();
    // `default 10.0.0.1 - eth0`; the interface may be left out.
    let gateways = routes.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mine = words
            .get(3)
            .is_none_or(|name| *name == interface || *name == "-");
        (words.first() == Some(&"default") && mine).then(|| words.get(1).copied())?
    });
    let dns = value(config, "NETCONFIG_DNS_STATIC_SERVERS").unwrap_or_default();
    let dns = dns.split_whitespace().filter(|_| is_static);
    vec![Configured {
        by: ConfiguredBy::Wicked,
        file: file.to_owned(),
        mac: value(text, "LLADDR")
            .unwrap_or_default()
            .to_ascii_lowercase(),
        method: method(boot.contains("dhcp"), &addresses),
        gateways: gateways.filter(|_| is_static).map(str::to_owned).collect(),
        dns: dns.map(str::to_owned).collect(),
        interface,
        addresses,
    }]
}

fn name_of(file: &str) -> String {
    let name = file.rsplit_once("ifcfg-").map(|(_, name)| name);
    name.unwrap_or_default().to_owned()
}

/// By whether the network and whether the file gives addresses.
pub(super) fn method(dhcp: bool, addresses: &[String]) -> Method {
    match (dhcp, addresses.is_empty()) {
        (true, true) => Method::Dhcp,
        (true, false) => Method::Mixed,
        (false, false) => Method::Static,
        (false, true) => Method::None,
    }
}
