//! Connections of NetworkManager: nm-settings-keyfile(5).

use super::ifcfg::method;
use crate::settings::{assignments, sections, value};
use crdt::inventory::{Configured, ConfiguredBy};

pub(super) fn parse(file: &str, text: &str) -> Vec<Configured> {
    let sections = sections(text);
    let of = |section: &str, key: &str| {
        let mut found = sections.iter().filter(|(name, _)| *name == section);
        found.find_map(|(_, text)| value(text, key))
    };
    if of("connection", "type").is_none() || of("connection", "type").as_deref() == Some("loopback")
    {
        return vec![];
    }
    let (mut addresses, mut gateways, mut dns) = (vec![], vec![], vec![]);
    let ip = sections
        .iter()
        .filter(|(name, _)| matches!(*name, "ipv4" | "ipv6"));
    for (key, value) in ip.flat_map(|(_, text)| assignments(text)) {
        let is_address = |rest: &str| rest.chars().all(|c| c.is_ascii_digit());
        match key {
            "gateway" => gateways.push(value),
            "dns" => {
                let servers = value.split([';', ',']).filter(|server| !server.is_empty());
                dns.extend(servers.map(|server| server.trim().to_owned()));
            }
            // `address1=10.0.0.5/24,10.0.0.1`
            key if key.strip_prefix("address").is_some_and(is_address) => {
                let mut parts = value.split(',');
                addresses.extend(parts.next().map(str::to_owned));
                gateways.extend(parts.next().map(str::to_owned));
            }
            _ => {}
        }
    }
    let auto = ["ipv4", "ipv6"].iter().any(|section| {
        let method = of(section, "method");
        matches!(method.as_deref(), Some("auto" | "dhcp"))
    });
    // Where IPv4 is static, `auto` of IPv6 is the default and gives no lease.
    let dhcp = match of("ipv4", "method").as_deref() {
        Some("manual") => false,
        _ => auto,
    };
    let mac = of("ethernet", "mac-address").or_else(|| of("802-3-ethernet", "mac-address"));
    vec![Configured {
        by: ConfiguredBy::NetworkManager,
        file: file.to_owned(),
        interface: of("connection", "interface-name").unwrap_or_default(),
        mac: mac.unwrap_or_default().to_ascii_lowercase(),
        method: method(dhcp, &addresses),
        addresses,
        gateways,
        dns,
    }]
}
