//! Network interfaces as they are, and as files say that they are to be.

use super::{MAX_ADDRESSES, MAX_CONFIGURED, MAX_INTERFACES, MAX_WORD};
use crate::cut::Cut;
use serde::{Deserialize, Serialize};

/// The network of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Interfaces by name, without the loopback.
    pub interfaces: Vec<Interface>,
    /// Default routes.
    pub routes: Vec<Route>,
    /// Name servers in use.
    pub dns: Vec<String>,
    /// Interfaces that files configure, by file.
    pub configured: Vec<Configured>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address; empty without one.
    pub mac: String,
    /// Driver of its hardware; none where it is virtual.
    pub driver: Option<String>,
    /// Whether it carries packets.
    pub is_up: bool,
    /// Its addresses, each with the length of its prefix; link-local ones are left out.
    pub addresses: Vec<String>,
}

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Address of the router; empty where the link is the way.
    pub gateway: String,
    /// The interface.
    pub interface: String,
}

/// An interface as a file configures it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// What reads the file.
    pub by: ConfiguredBy,
    /// The file.
    pub file: String,
    /// Name or pattern of the interface; empty where the hardware address alone says.
    pub interface: String,
    /// Hardware address that the file is bound to; empty where it is to none.
    pub mac: String,
    /// How it gets its addresses.
    pub method: Method,
    /// Static addresses.
    pub addresses: Vec<String>,
    /// Static routers.
    pub gateways: Vec<String>,
    /// Static name servers.
    pub dns: Vec<String>,
}

/// What configures an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfiguredBy {
    /// `/etc/netplan`.
    Netplan,
    /// `/etc/sysconfig/network-scripts` of Red Hat and its kin.
    Ifcfg,
    /// `/etc/sysconfig/network` of SUSE.
    Wicked,
    /// `/etc/NetworkManager/system-connections`.
    NetworkManager,
    /// `/etc/network/interfaces` of Debian and its kin.
    Interfaces,
    /// `/etc/systemd/network`.
    Networkd,
}

/// How an interface gets its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// From the network.
    Dhcp,
    /// From the file.
    Static,
    /// Both.
    Mixed,
    /// It gets none here.
    None,
}

impl Network {
    pub(super) fn cut(&mut self, cut: &mut Cut) {
        cut.list(&mut self.interfaces, MAX_INTERFACES);
        for interface in &mut self.interfaces {
            cut.shorten(&mut interface.name, MAX_WORD);
            cut.shorten(&mut interface.mac, MAX_WORD);
            if let Some(driver) = &mut interface.driver {
                cut.shorten(driver, MAX_WORD);
            }
            words(cut, &mut interface.addresses);
        }
        cut.list(&mut self.routes, MAX_ADDRESSES);
        for route in &mut self.routes {
            cut.shorten(&mut route.gateway, MAX_WORD);
            cut.shorten(&mut route.interface, MAX_WORD);
        }
        words(cut, &mut self.dns);
        cut.list(&mut self.configured, MAX_CONFIGURED);
        for configured in &mut self.configured {
            cut.shorten(&mut configured.file, MAX_WORD);
            cut.shorten(&mut configured.interface, MAX_WORD);
            cut.shorten(&mut configured.mac, MAX_WORD);
            words(cut, &mut configured.addresses);
            words(cut, &mut configured.gateways);
            words(cut, &mut configured.dns);
        }
    }
}

fn words(cut: &mut Cut, list: &mut Vec<String>) {
    cut.list(list, MAX_ADDRESSES);
    for text in list {
        cut.shorten(text, MAX_WORD);
    }
}
