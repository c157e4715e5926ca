//! `/etc/network/interfaces` of Debian and its kin: interfaces(5).

use super::ifcfg::method;
use super::with_prefix;
use crdt::inventory::{Configured, ConfiguredBy, Method};

/// Stanzas of one interface, of IPv4 and IPv6, become one.
pub(super) fn parse(file: &str, text: &str) -> Vec<Configured> {
    let text = text.replace("\\\n", " ");
    let mut all: Vec<Configured> = vec![];
    let mut open: Option<Stanza> = None;
    for line in text.lines().map(str::trim) {
        let mut words = line.split_whitespace();
        let Some(first) = words.next().filter(|word| !word.starts_with('#')) else {
            continue;
        };
        let rest: Vec<&str> = words.collect();
        let begins = [
            "iface",
            "auto",
            "mapping",
            "source",
            "source-directory",
            "no-scripts",
        ];
        if begins.contains(&first) || first.starts_with("allow-") {
            close(&mut all, file, open.take());
            open = (first == "iface").then(|| Stanza::begin(&rest)).flatten();
        } else if let Some(stanza) = &mut open {
            stanza.option(first, &rest);
        }
    }
    close(&mut all, file, open);
    all
}

#[derive(Default)]
struct Stanza {
    interface: String,
    how: String,
    address: String,
    netmask: Option<String>,
    mac: String,
    gateways: Vec<String>,
    dns: Vec<String>,
}

impl Stanza {
    /// `iface NAME inet static`; the loopback is nobody's.
    fn begin(words: &[&str]) -> Option<Self> {
        let interface = (*words.first()?).to_owned();
        let how = (*words.get(2)?).to_owned();
        (how != "loopback").then(|| Self {
            interface,
            how,
            ..Self::default()
        })
    }

    fn option(&mut self, name: &str, words: &[&str]) {
        let all = || words.iter().map(|word| (*word).to_owned());
        let first = || all().next().unwrap_or_default();
        match name {
            "address" => self.address = first(),
            "netmask" => self.netmask = Some(first()),
            // `hwaddress ether AA:BB:…` or without the word.
            "hwaddress" => self.mac = all().last().unwrap_or_default().to_ascii_lowercase(),
            "gateway" => self.gateways.extend(all()),
            "dns-nameservers" | "dns-nameserver" => self.dns.extend(all()),
            _ => {}
        }
    }
}

fn close(all: &mut Vec<Configured>, file: &str, stanza: Option<Stanza>) {
    let Some(stanza) = stanza else { return };
    let address = (!stanza.address.is_empty())
        .then(|| with_prefix(&stanza.address, None, stanza.netmask.as_deref()));
    let addresses: Vec<String> = address.into_iter().collect();
    let method = method(matches!(&*stanza.how, "dhcp" | "auto"), &addresses);
    let same = all
        .iter_mut()
        .find(|other| other.interface == stanza.interface);
    if let Some(other) = same {
        other.addresses.extend(addresses);
        other.gateways.extend(stanza.gateways);
        other.dns.extend(stanza.dns);
        other.method = match (other.method, method) {
            (Method::None, new) | (new, Method::None) => new,
            (old, new) if old == new => old,
            _ => Method::Mixed,
        };
        return;
    }
    all.push(Configured {
        by: ConfiguredBy::Interfaces,
        file: file.to_owned(),
        interface: stanza.interface,
        mac: stanza.mac,
        method,
        addresses,
        gateways: stanza.gateways,
        dns: stanza.dns,
    });
}
