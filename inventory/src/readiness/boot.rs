//! Whether the copy starts elsewhere: drivers, firmware, and names of devices.

use super::{Finding, Level};
use crdt::Inventory;
use crdt::inventory::{Firmware, Initramfs, Kernel, Place};

/// A name for people, and drivers.
type Platform = (&'static str, &'static [&'static str]);

/// Where machines may go, and drivers of which one is needed there for the disk.
const PLATFORMS: [Platform; 5] = [
    (
        "KVM and most clouds (virtio)",
        &["virtio_blk", "virtio_scsi"],
    ),
    ("disks by NVMe, as in AWS", &["nvme"]),
    ("Xen", &["xen_blkfront"]),
    ("Hyper-V and Azure", &["hv_storvsc"]),
    ("VMware (paravirtual)", &["vmw_pvscsi"]),
];
/// The first kernel on which what changes can be followed.
const FOLLOWED: (u32, u32) = (5, 5);

pub(super) fn findings(inventory: &Inventory, out: &mut Vec<Finding>) {
    let running = &inventory.system.kernel;
    let mut kernels = inventory.kernels.iter();
    let booted = kernels.find(|kernel| kernel.release == *running);
    match booted.or(inventory.kernels.first()) {
        Some(kernel) => drivers(kernel, out),
        None => out.push(Finding::new(
            Level::Note,
            "kernel",
            "no kernel is seen in /boot, so that it is not known which drivers it starts with",
            "where /boot is a file system of its own, mount it; else check by hand that the copy starts elsewhere",
        )),
    }
    if version_of(running).is_some_and(|version| version < FOLLOWED) {
        out.push(Finding::new(
            Level::Note,
            format!("kernel {running}"),
            "what changes on a disk cannot be followed before kernel 5.5: each pass reads the whole disk and compares it",
            "nothing is needed; give the passes time, or keep them polite with `dunlin limit set`",
        ));
    }
    firmware(inventory, out);
    let mut told: Vec<&str> = vec![];
    for named in &inventory.storage.named_by_path {
        if told.contains(&&*named.file) {
            continue;
        }
        told.push(&named.file);
        let same = inventory.storage.named_by_path.iter();
        let same = same.filter(|other| other.file == named.file);
        let paths: Vec<&str> = same.map(|other| &*other.path).collect();
        out.push(Finding::new(
            Level::Warning,
            &named.file,
            format!("it names {}, which may be another device elsewhere", paths.join(", ")),
            "name it by its UUID instead: `blkid` shows it; then make the boot loader's settings and the initramfs anew",
        ));
    }
}

fn drivers(kernel: &Kernel, out: &mut Vec<Finding>) {
    let subject = format!("kernel {}", kernel.release);
    let path = match &kernel.initramfs {
        Initramfs::Read { path, .. } => Some(path),
        Initramfs::Absent if kernel.drivers.is_empty() => {
            out.push(Finding::new(
                Level::Warning,
                subject,
                "neither an initramfs nor modules of it are found, so that it is not known which drivers it has",
                "look whether the drivers of the target's disks are built into it (virtio_blk, nvme and the like)",
            ));
            return;
        }
        Initramfs::Absent => None,
        Initramfs::Unknown { path, why } => {
            out.push(Finding::new(
                Level::Warning,
                subject,
                format!("its initramfs {path} was not read ({why}), so that it is not known which drivers it starts with"),
                "let the node run as root; else look with `lsinitramfs` or `lsinitrd` for virtio_blk, nvme and the like",
            ));
            return;
        }
    };
    let early = |name: &str| {
        let mut drivers = kernel.drivers.iter();
        drivers.any(|driver| driver.name == *name && driver.place != Place::RootFileSystem)
    };
    let (ready, lacking): (Vec<&Platform>, Vec<&Platform>) = PLATFORMS
        .iter()
        .partition(|(_, drivers)| drivers.iter().any(|name| early(name)));
    if lacking.is_empty() {
        return;
    }
    let where_to = |platforms: &[&Platform]| {
        let names: Vec<&str> = platforms.iter().map(|platform| platform.0).collect();
        names.join("; ")
    };
    let installed = |name: &&&str| kernel.drivers.iter().any(|driver| driver.name == ***name);
    let names = lacking.iter().flat_map(|platform| platform.1);
    let names: Vec<&str> = names.filter(installed).copied().collect();
    let todo = todo(&kernel.release, path.map(String::as_str), &names);
    let lacks = where_to(&lacking);
    if ready.is_empty() {
        out.push(Finding::new(
            Level::Blocker,
            subject,
            format!("it has no driver for the disks of any usual target before its root file system is there, and does not start on: {lacks}"),
            todo,
        ));
    } else {
        out.push(Finding::new(
            Level::Note,
            subject,
            format!(
                "it has no early driver for: {lacks}; it starts on: {}",
                where_to(&ready)
            ),
            todo,
        ));
    }
}

/// The command of the distribution, told apart by the name of the file.
fn todo(release: &str, path: Option<&str>, names: &[&str]) -> String {
    if names.is_empty() {
        return "install a kernel of the distribution that has them, if the copy is to go there"
            .into();
    }
    let names = names.join(" ");
    match path {
        Some(path) if path.starts_with("/boot/initrd.img-") => format!(
            "if the copy is to go there: add {names} to /etc/initramfs-tools/modules, each on a line, and run `update-initramfs -u -k {release}`"
        ),
        Some(path) => format!(
            "if the copy is to go there: `dracut --force --add-drivers \"{names}\" {path} {release}`"
        ),
        None => format!("if the copy is to go there: make an initramfs with {names}"),
    }
}

fn firmware(inventory: &Inventory, out: &mut Vec<Finding>) {
    if inventory.machine.firmware == Some(Firmware::Uefi) {
        out.push(Finding::new(
            Level::Note,
            "firmware",
            "it starts by UEFI, and the list of what to start does not move with the disk",
            "choose a target that starts by UEFI; see that /boot/efi has EFI/BOOT/BOOTX64.EFI, which is started without a list",
        ));
    }
    if inventory.machine.secure_boot == Some(true) {
        out.push(Finding::new(
            Level::Note,
            "firmware",
            "secure boot is on; keys of your own for kernel modules (MOK) stay in this machine",
            "enrol them at the target, or start the copy without secure boot",
        ));
    }
}

fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
