//! The operating system, by its release file.

use crate::Tree;
use crate::settings::value;
use crdt::inventory::System;

pub(crate) fn read(tree: &Tree) -> System {
    let release = tree.text("/etc/os-release");
    let release = release.or_else(|| tree.text("/usr/lib/os-release"));
    let release = release.unwrap_or_default();
    let name = value(&release, "PRETTY_NAME").or_else(|| value(&release, "NAME"));
    System {
        id: value(&release, "ID").unwrap_or_default(),
        version: value(&release, "VERSION_ID").unwrap_or_default(),
        // Older ones of Red Hat have this file alone.
        name: name
            .or_else(|| tree.line("/etc/redhat-release"))
            .unwrap_or_default(),
        kernel: tree.line("/proc/sys/kernel/osrelease").unwrap_or_default(),
    }
}
