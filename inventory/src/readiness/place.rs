//! What binds a machine to the place where it is: addresses, hardware, clock, identity.

use super::{Finding, Level};
use crdt::Inventory;
use crdt::inventory::Method;

pub(super) fn findings(inventory: &Inventory, out: &mut Vec<Finding>) {
    for file in &inventory.network.configured {
        let subject = match file.interface.is_empty() {
            true => format!("interface {}", file.mac),
            false => format!("interface {}", file.interface),
        };
        if matches!(file.method, Method::Static | Method::Mixed) {
            out.push(Finding::new(
                Level::Warning,
                &subject,
                format!("{} gives it the address {}: in another network the copy cannot be reached by it", file.file, file.addresses.join(", ")),
                "move the network too, or let it have its address by DHCP before the cutover",
            ));
        }
        if !file.mac.is_empty() {
            out.push(Finding::new(
                Level::Warning,
                &subject,
                format!(
                    "{} is bound to the hardware address {}, which is another elsewhere",
                    file.file, file.mac
                ),
                "bind it to the name of the interface, or to none",
            ));
        }
    }
    if inventory.machine.clock_synchronised == Some(false) {
        out.push(Finding::new(
            Level::Warning,
            "clock",
            "it is not synchronised: times in events are wrong, and leases may be charged wrongly after a restart",
            "see `timedatectl timesync-status`, and let the machine reach a time server",
        ));
    }
    if inventory.machine.id.is_empty() {
        out.push(Finding::new(
            Level::Note,
            "/etc/machine-id",
            "the machine has no id: at its next start it, or its copy, gets one",
            "`systemd-machine-id-setup`, where programs there go by it",
        ));
    }
}
