//! What files of each distribution say of its network.
#![allow(clippy::unwrap_used)]

use super::*;
use crdt::inventory::{ConfiguredBy, Method};

/// What matters of one: interface, hardware address, method, addresses, routers, servers.
fn told(found: &[Configured]) -> Vec<String> {
    let lines = found.iter().map(|one| {
        format!(
            "{} [{}] {:?} {} via {} dns {}",
            one.interface,
            one.mac,
            one.method,
            one.addresses.join(","),
            one.gateways.join(","),
            one.dns.join(",")
        )
    });
    lines.collect()
}

#[test]
fn netplan_is_read_in_all_forms_that_its_writers_use() {
    let by_hand = r#"# This is the network config written by 'subiquity'
network:
  version: 2
  renderer: networkd
  ethernets:
    ens3:
      addresses:
      - 192.0.2.10/24
      - "2001:db8::10/64"
      nameservers:
        addresses: [192.0.2.53, 198.51.100.53]
        search: [example.org]
      routes:
      - to: 198.51.100.0/24
        via: 192.0.2.254
      - to: default
        via: 192.0.2.1
    ens4:
      dhcp4: true
  bonds:
    bond0:
      interfaces: [ens5, ens6]
      dhcp4: no
"#;
    assert_eq!(
        told(&netplan::parse("f", by_hand)),
        [
            "ens3 [] Static 192.0.2.10/24,2001:db8::10/64 via 192.0.2.1 dns 192.0.2.53,198.51.100.53",
            "ens4 [] Dhcp  via  dns ",
            "bond0 [] None  via  dns ",
        ]
    );
    let by_cloud_init = r#"network:
    ethernets:
        eth0:
            dhcp4: true
            match: {macaddress: 'FA:16:3E:00:00:01'}
            set-name: eth0
    version: 2
"#;
    assert_eq!(
        told(&netplan::parse("f", by_cloud_init)),
        ["eth0 [fa:16:3e:00:00:01] Dhcp  via  dns "]
    );
    let brackets = "[".repeat(100_000);
    let key = "k".repeat(100_000);
    for hostile in [
        format!("network:\n{}", "- ".repeat(100_000)),
        format!("network: {brackets}"),
        format!("network: {{a: {brackets}"),
        format!("network:\n  {key}:\n    {key}: [{}]", "x,".repeat(100_000)),
    ] {
        assert_eq!(netplan::parse("f", &hostile), []);
    }
}

#[test]
fn ifcfg_of_red_hat_has_its_addresses_by_prefix_or_netmask() {
    let text = "TYPE=Ethernet\nBOOTPROTO=none\nDEVICE=ens192\nHWADDR=00:50:56:AA:BB:CC\nIPADDR=192.0.2.20\nNETMASK=255.255.254.0\nIPADDR1=192.0.2.21\nPREFIX1=24\nGATEWAY=192.0.2.1\nDNS1=192.0.2.53\nONBOOT=yes\n";
    let found = ifcfg::red_hat("/etc/sysconfig/network-scripts/ifcfg-ens192", text);
    assert_eq!(
        told(&found),
        [
            "ens192 [00:50:56:aa:bb:cc] Static 192.0.2.20/23,192.0.2.21/24 via 192.0.2.1 dns 192.0.2.53"
        ]
    );
    let dhcp = ifcfg::red_hat("/x/ifcfg-eth0", "BOOTPROTO=\"dhcp\"\n");
    assert_eq!(told(&dhcp), ["eth0 [] Dhcp  via  dns "]);
    assert_eq!(ifcfg::red_hat("/x/ifcfg-lo", "DEVICE=lo\n"), []);
}

#[test]
fn ifcfg_of_suse_has_its_routes_and_servers_in_files_of_their_own() {
    let routes = "default 192.0.2.1 - eth0\ndefault 198.51.100.1 - eth9\n";
    let config = "NETCONFIG_DNS_STATIC_SERVERS=\"192.0.2.53 192.0.2.54\"\n";
    let text = "BOOTPROTO='static'\nSTARTMODE='auto'\nIPADDR='192.0.2.30/24'\nIPADDR_1='192.0.2.31'\nPREFIXLEN_1='25'\n";
    let file = "/etc/sysconfig/network/ifcfg-eth0";
    let found = ifcfg::suse(file, text, routes, config);
    assert_eq!(
        told(&found),
        ["eth0 [] Static 192.0.2.30/24,192.0.2.31/25 via 192.0.2.1 dns 192.0.2.53,192.0.2.54"]
    );
    let found = ifcfg::suse(file, "BOOTPROTO='dhcp'\n", routes, config);
    assert_eq!(told(&found), ["eth0 [] Dhcp  via  dns "]);
}

#[test]
fn keyfiles_of_network_manager_are_read() {
    let text = "[connection]\nid=Wired\ntype=ethernet\ninterface-name=enp1s0\n\n[ethernet]\nmac-address=52:54:00:AA:00:01\n\n[ipv4]\naddress1=192.0.2.40/24,192.0.2.1\naddress2=192.0.2.41/24\ndns=192.0.2.53;192.0.2.54;\nmethod=manual\n\n[ipv6]\nmethod=auto\n";
    assert_eq!(
        told(&keyfile::parse("f", text)),
        [
            "enp1s0 [52:54:00:aa:00:01] Static 192.0.2.40/24,192.0.2.41/24 via 192.0.2.1 dns 192.0.2.53,192.0.2.54"
        ]
    );
    let auto = "[connection]\ntype=ethernet\n[ipv4]\nmethod=auto\n";
    assert_eq!(told(&keyfile::parse("f", auto)), [" [] Dhcp  via  dns "]);
}

#[test]
fn interfaces_of_debian_are_read_with_both_families_as_one() {
    let text = "# The loopback\nauto lo\niface lo inet loopback\n\nauto ens3\nallow-hotplug ens3\niface ens3 inet static\n\taddress 192.0.2.50\n\tnetmask 255.255.255.0\n\tgateway 192.0.2.1\n\tdns-nameservers 192.0.2.53 \\\n\t  192.0.2.54\niface ens3 inet6 static\n\taddress 2001:db8::50/64\niface ens4 inet dhcp\n\thwaddress ether 52:54:00:AA:00:02\n";
    assert_eq!(
        told(&interfaces::parse("f", text)),
        [
            "ens3 [] Static 192.0.2.50/24,2001:db8::50/64 via 192.0.2.1 dns 192.0.2.53,192.0.2.54",
            "ens4 [52:54:00:aa:00:02] Dhcp  via  dns ",
        ]
    );
}

#[test]
fn networks_of_systemd_are_read() {
    let text = "[Match]\nName=en*\n\n[Network]\nDHCP=no\nAddress=192.0.2.60/24\nDNS=192.0.2.53\n\n[Address]\nAddress=192.0.2.61/24\n\n[Route]\nGateway=192.0.2.1\n";
    assert_eq!(
        told(&networkd::parse("f", text)),
        ["en* [] Static 192.0.2.60/24,192.0.2.61/24 via 192.0.2.1 dns 192.0.2.53"]
    );
    let dhcp = networkd::parse(
        "f",
        "[Match]\nMACAddress=AA:00:00:00:00:01\n[Network]\nDHCP=ipv4\n",
    );
    assert_eq!(told(&dhcp), [" [aa:00:00:00:00:01] Dhcp  via  dns "]);
    assert_eq!(dhcp[0].by, ConfiguredBy::Networkd);
    assert_eq!(dhcp[0].method, Method::Dhcp);
}

#[test]
fn default_routes_are_read_from_the_kernels_tables() {
    let gateway = u32::from_ne_bytes([192, 0, 2, 1]);
    let table = format!(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\neth0\t00000000\t{gateway:08X}\t0003\t0\t0\t100\t00000000\t0\t0\t0\neth0\t000200C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
    );
    let found = routes(&table);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&*found[0].gateway, &*found[0].interface),
        ("192.0.2.1", "eth0")
    );
    let zeros = "0".repeat(32);
    let table = format!(
        "{zeros} 00 {zeros} 00 fe800000000000000000000000000001 00000400 00000000 00000000 00000003 eth0\n{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200 lo\n"
    );
    let found = routes_v6(&table);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].gateway, "fe80::1");
}

#[test]
fn netmasks_with_holes_are_none() {
    assert_eq!(prefix_of("255.255.252.0"), Some(22));
    assert_eq!(prefix_of("255.0.255.0"), None);
    assert_eq!(prefix_of("0.0.0.0"), Some(0));
    assert_eq!(with_prefix("192.0.2.1", None, Some("24")), "192.0.2.1/24");
    assert_eq!(with_prefix("192.0.2.1", None, None), "192.0.2.1");
}
