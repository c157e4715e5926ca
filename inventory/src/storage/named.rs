//! Where files of the system name a device by a path that stands for a place in this
//! machine: it may be another one elsewhere, and then the system does not start.

use crate::Tree;
use crdt::inventory::NamedByPath;

/// Files with the command line of a kernel, in which `root=` and `resume=` name devices.
const COMMAND_LINES: [&str; 6] = [
    "/etc/default/grub",
    "/etc/kernel/cmdline",
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/grub/menu.lst",
    "/proc/cmdline",
];
/// Names that the kernel gives by the order in which it finds disks, or by their bus.
const BY_ORDER: [&str; 8] = [
    "sd",
    "hd",
    "vd",
    "xvd",
    "nvme",
    "mmcblk",
    "cciss/",
    "disk/by-path/",
];

pub(super) fn read(tree: &Tree) -> Vec<NamedByPath> {
    let mut named: Vec<NamedByPath> = vec![];
    let mut note = |file: &str, path: &str| {
        let path = path.trim_matches(['"', '\'']);
        let new = NamedByPath {
            file: file.to_owned(),
            path: path.to_owned(),
        };
        if is_of_this_machine(path) && !named.contains(&new) {
            named.push(new);
        }
    };
    // The device is the first word of a line there, the second one here.
    for (file, word) in [("/etc/fstab", 0), ("/etc/crypttab", 1)] {
        let text = tree.text(file).unwrap_or_default();
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        for device in lines.filter_map(|line| line.split_whitespace().nth(word)) {
            note(file, device);
        }
    }
    let mut files: Vec<String> = COMMAND_LINES.map(str::to_owned).to_vec();
    files.extend(tree.files("/boot/loader/entries", ".conf"));
    for vendor in tree.names("/boot/efi/EFI") {
        files.push(format!("/boot/efi/EFI/{vendor}/grub.cfg"));
    }
    for file in files {
        let text = tree.text(&file).unwrap_or_default();
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        for word in lines.flat_map(|line| line.split([' ', '\t', '"', '\''])) {
            let path = word
                .strip_prefix("root=")
                .or_else(|| word.strip_prefix("resume="));
            if let Some(path) = path {
                note(&file, path);
            }
        }
    }
    named
}

/// Paths of LVM, MD, and those by UUID or label, go with the disk.
fn is_of_this_machine(path: &str) -> bool {
    let Some(name) = path.strip_prefix("/dev/") else {
        return false;
    };
    if let Some(id) = name.strip_prefix("disk/by-id/") {
        let of_disk = ["dm-", "lvm-", "md-"];
        return !of_disk.iter().any(|kind| id.starts_with(kind));
    }
    BY_ORDER.iter().any(|kind| {
        let rest = name.strip_prefix(kind);
        // A volume group may be called `sdata`: its volumes have one more slash.
        rest.is_some_and(|rest| kind.contains('/') || is_short(kind, rest))
    })
}

/// `sda1`, `nvme0n1p2`, and not `sdata/root`.
fn is_short(kind: &str, rest: &str) -> bool {
    let letters = rest.chars().take_while(char::is_ascii_lowercase).count();
    let digits_follow = rest[letters..].chars().all(|c| c.is_ascii_digit());
    match kind {
        "nvme" | "mmcblk" => rest.starts_with(|c: char| c.is_ascii_digit()),
        _ => (1..=3).contains(&letters) && digits_follow,
    }
}
