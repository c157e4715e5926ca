//! Hardware, firmware and clock.

use crate::Tree;
use crate::settings::value;
use crdt::inventory::{Firmware, Machine};

const DMI: &str = "/sys/class/dmi/id";
const EFI: &str = "/sys/firmware/efi";
/// The GUID of the firmware's own variables, by the UEFI specification, section 3.3.
const SECURE_BOOT: &str = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

pub(crate) fn read(tree: &Tree) -> Machine {
    let cpuinfo = tree.text("/proc/cpuinfo").unwrap_or_default();
    let meminfo = tree.text("/proc/meminfo").unwrap_or_default();
    let model = tree.line(&format!("{DMI}/product_name"));
    Machine {
        vendor: tree.line(&format!("{DMI}/sys_vendor")).unwrap_or_default(),
        model: model
            .or_else(|| tree.line("/proc/device-tree/model"))
            .unwrap_or_default(),
        firmware: firmware(tree),
        secure_boot: secure_boot(tree),
        processor: processor(&cpuinfo),
        cpus: tree
            .line("/sys/devices/system/cpu/online")
            .map_or_else(|| processors(&cpuinfo), |list| numbers_in(&list)),
        memory_bytes: memory(&meminfo),
        id: machine_id(tree),
        timezone: timezone(tree),
        clock_synchronised: clock_synchronised(tree),
    }
}

/// A machine of ARM has neither where it was started by a device tree.
fn firmware(tree: &Tree) -> Option<Firmware> {
    if tree.exists(EFI) {
        return Some(Firmware::Uefi);
    }
    let started = tree.exists("/sys/firmware") && !tree.exists("/sys/firmware/devicetree");
    started.then_some(Firmware::Bios)
}

/// The last byte of the variable; in `efivars` four bytes of attributes are before it.
fn secure_boot(tree: &Tree) -> Option<bool> {
    let variable = tree
        .bytes(&format!("{EFI}/efivars/{SECURE_BOOT}"), 16)
        .or_else(|| tree.bytes(&format!("{EFI}/vars/{SECURE_BOOT}/data"), 16))?;
    variable.last().map(|byte| *byte == 1)
}

/// x86 says `model name`; some of ARM nothing but a number.
fn processor(cpuinfo: &str) -> String {
    let named = |key: &str| {
        let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        fields.find_map(|(name, value)| (name.trim() == key).then(|| value.trim().to_owned()))
    };
    named("model name")
        .or_else(|| named("Processor"))
        .unwrap_or_default()
}

fn processors(cpuinfo: &str) -> u32 {
    let count = cpuinfo.lines().filter(|line| {
        let field = line.split_once(':');
        field.is_some_and(|(name, _)| name.trim() == "processor")
    });
    u32::try_from(count.count()).unwrap_or(u32::MAX)
}

/// How many numbers a list such as `0-3,8` has.
fn numbers_in(list: &str) -> u32 {
    let spans = list.split(',').filter_map(|span| {
        let (first, last) = span.split_once('-').unwrap_or((span, span));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    });
    spans.fold(0, u32::saturating_add)
}

fn memory(meminfo: &str) -> u64 {
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|digits| digits.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Made of the machine's id, which is nobody else's to know (machine-id(5)).
fn machine_id(tree: &Tree) -> String {
    let id = tree.line("/etc/machine-id");
    let id = id.or_else(|| tree.line("/var/lib/dbus/machine-id"));
    let id = id.filter(|id| !id.is_empty());
    let hashed = id.map(|id| blake3::derive_key("dunlin 2026 machine id v1", id.as_bytes()));
    hashed.map_or_else(String::new, |hash| {
        hash[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    })
}

/// By the link of `/etc/localtime`, and where that is a copy by what tools write beside it.
fn timezone(tree: &Tree) -> Option<String> {
    let link = tree.link("/etc/localtime");
    let linked = link.as_deref().and_then(|to| to.split_once("zoneinfo/"));
    if let Some((_, zone)) = linked {
        return Some(zone.to_owned());
    }
    if let Some(zone) = tree.line("/etc/timezone") {
        return Some(zone);
    }
    let clock = tree.text("/etc/sysconfig/clock")?;
    value(&clock, "ZONE").or_else(|| value(&clock, "TIMEZONE"))
}

/// systemd-timesyncd alone tells it by a file; nothing is known where it does not run.
fn clock_synchronised(tree: &Tree) -> Option<bool> {
    let runs = tree.exists("/run/systemd/timesync");
    runs.then(|| tree.exists("/run/systemd/timesync/synchronized"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_and_memory_are_read_from_their_files() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Xeon\n\nprocessor\t: 1\nmodel name\t: Xeon\n";
        assert_eq!(processor(cpuinfo), "Xeon");
        assert_eq!(processors(cpuinfo), 2);
        assert_eq!(numbers_in("0-3,8,10-11"), 7);
        assert_eq!(numbers_in("3-0,x"), 0);
        assert_eq!(
            memory("MemTotal:       2048 kB\nMemFree: 1 kB\n"),
            2_097_152
        );
        assert_eq!(memory("nonsense"), 0);
    }
}
