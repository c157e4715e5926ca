//! `.network` files of systemd-networkd: systemd.network(5).

use super::ifcfg::method;
use crate::settings::{assignments, sections};
use crdt::inventory::{Configured, ConfiguredBy};

pub(super) fn parse(file: &str, text: &str) -> Vec<Configured> {
    let sections = sections(text);
    let all = |wanted: &[&str], key: &str| -> Vec<String> {
        let texts = sections.iter().filter(|(name, _)| wanted.contains(name));
        let pairs = texts.flat_map(|(_, text)| assignments(text));
        let values = pairs.filter(|(found, value)| *found == key && !value.is_empty());
        values.map(|(_, value)| value).collect()
    };
    if sections.is_empty() {
        return vec![];
    }
    let addresses = all(&["Network", "Address"], "Address");
    let dhcp = all(&["Network"], "DHCP");
    let dhcp = dhcp.iter().any(|how| {
        let how = how.to_ascii_lowercase();
        matches!(
            &*how,
            "yes" | "true" | "both" | "ipv4" | "ipv6" | "on" | "1" | "v4" | "v6"
        )
    });
    let mac = all(&["Match"], "MACAddress").join(" ");
    vec![Configured {
        by: ConfiguredBy::Networkd,
        file: file.to_owned(),
        interface: all(&["Match"], "Name").join(" "),
        mac: mac.to_ascii_lowercase(),
        method: method(dhcp, &addresses),
        gateways: all(&["Network", "Route"], "Gateway"),
        dns: all(&["Network"], "DNS"),
        addresses,
    }]
}
