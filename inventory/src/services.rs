//! Services of systemd: which start with the system, by the links that `systemctl enable`
//! makes, and which run, by their control groups.
//!
//! Not here: units of other kinds, and services that only scripts of SysV init start.

use crate::Tree;
use crdt::inventory::Service;
use std::collections::BTreeMap;

const SUFFIX: &str = ".service";
const UNITS: &str = "/etc/systemd/system";
/// Where the groups of services are: in version 2, in version 1, and in both at once.
const GROUPS: [&str; 3] = [
    "/sys/fs/cgroup/systemd/system.slice",
    "/sys/fs/cgroup/unified/system.slice",
    "/sys/fs/cgroup/system.slice",
];

pub(crate) fn read(tree: &Tree) -> Vec<Service> {
    let groups = GROUPS.iter().find(|group| tree.exists(group));
    let stopped = groups.map(|_| false);
    let mut services: BTreeMap<String, Service> = BTreeMap::new();
    let mut note = |name: &str, is_enabled: bool, is_running: bool| {
        let service = services.entry(name.to_owned()).or_insert_with(|| Service {
            name: name.to_owned(),
            is_enabled: false,
            is_running: stopped,
        });
        service.is_enabled |= is_enabled;
        if is_running {
            service.is_running = Some(true);
        }
    };
    let folders = tree.names(UNITS).into_iter();
    for folder in folders.filter(|name| name.ends_with(".wants") || name.ends_with(".requires")) {
        for unit in tree.names(&format!("{UNITS}/{folder}")) {
            // A unit that is masked does not start, whoever wants it.
            let masked = tree.link(&format!("{UNITS}/{unit}")).as_deref() == Some("/dev/null");
            if let (Some(name), false) = (unit.strip_suffix(SUFFIX), masked) {
                note(name, true, false);
            }
        }
    }
    for unit in groups.map(|group| tree.names(group)).unwrap_or_default() {
        let group = groups.copied().unwrap_or_default();
        if let Some(name) = unit.strip_suffix(SUFFIX)
            && is_populated(tree, &format!("{group}/{unit}"))
        {
            note(name, false, true);
        }
    }
    services.into_values().collect()
}

/// Whether a process is in the group or below: a group of version 2 says so itself.
fn is_populated(tree: &Tree, group: &str) -> bool {
    match tree.text(&format!("{group}/cgroup.events")) {
        Some(events) => events.lines().any(|line| line == "populated 1"),
        None => tree.line(&format!("{group}/cgroup.procs")).is_some(),
    }
}
