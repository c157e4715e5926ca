//! Mounts: those that are, by the kernel, and those that are to be, by `/etc/fstab`.

use super::devices::Found;
use crate::Tree;
use crdt::inventory::Mount;

/// A line of mountinfo: proc(5).
#[derive(Debug, Clone)]
pub(super) struct Mounted {
    /// Number of the device; that of btrfs is of no device.
    number: String,
    /// What of the file system is mounted.
    root: String,
    pub(super) at: String,
    file_system: String,
    source: String,
    options: Vec<String>,
}

impl Mounted {
    /// Name of the block device.
    pub(super) fn device(&self, devices: &[Found]) -> Option<String> {
        let found = devices.iter().find(|found| {
            found.number == self.number
                || found.device.path == self.source
                || self.source.strip_prefix("/dev/") == Some(&found.device.name)
        });
        found.map(|found| found.device.name.clone())
    }
}

/// All mounts: those of the first process, since a service may have fewer.
pub(super) fn mounted(tree: &Tree) -> Vec<Mounted> {
    let text = tree.text("/proc/1/mountinfo");
    let text = text.filter(|text| !text.is_empty());
    let text = text.or_else(|| tree.text("/proc/self/mountinfo"));
    let text = text.unwrap_or_default();
    text.lines().filter_map(mounted_of).collect()
}

fn mounted_of(line: &str) -> Option<Mounted> {
    let (own, file_system) = line.split_once(" - ")?;
    let own: Vec<&str> = own.split(' ').collect();
    let file_system: Vec<&str> = file_system.split(' ').collect();
    let options = own.get(5)?.split(',').chain(file_system.get(2)?.split(','));
    Some(Mounted {
        number: (*own.get(2)?).to_owned(),
        root: unescaped(own.get(3)?),
        at: unescaped(own.get(4)?),
        options: options.map(str::to_owned).collect(),
        file_system: (*file_system.first()?).to_owned(),
        source: unescaped(file_system.get(1)?),
    })
}

/// Mounts of block devices. Of what is bound to several places the first counts.
pub(super) fn read(tree: &Tree, mounted: &[Mounted], devices: &[Found]) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = vec![];
    for mount in mounted {
        let is_bound = mount.root != "/" && mount.file_system != "btrfs";
        let Some(device) = mount.device(devices).filter(|_| !is_bound) else {
            continue;
        };
        let has = |option: &str| mount.options.iter().any(|found| found == option);
        if mounts.iter().all(|known| known.at != mount.at) {
            mounts.push(Mount {
                device,
                at: mount.at.clone(),
                file_system: mount.file_system.clone(),
                is_mounted: true,
                is_awaited: false,
                is_read_only: has("ro"),
                is_dax: has("dax") || has("dax=always"),
            });
        }
    }
    for entry in fstab(&tree.text("/etc/fstab").unwrap_or_default()) {
        match mounts.iter_mut().find(|known| known.at == entry.at) {
            Some(known) => known.is_awaited = entry.is_awaited,
            None => mounts.push(entry),
        }
    }
    mounts
}

/// Entries of block devices that are mounted somewhere.
fn fstab(text: &str) -> Vec<Mount> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.starts_with('#'));
    let entries = lines.filter_map(|line| {
        let mut fields = line.split_whitespace();
        let device = unescaped(fields.next()?.trim_matches('"'));
        let at = unescaped(fields.next()?);
        let file_system = fields.next()?.to_owned();
        let options = fields.next().unwrap_or_default().to_owned();
        let has = |option: &str| options.split(',').any(|found| found == option);
        let by = ["/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="];
        let is_device = by.iter().any(|by| device.starts_with(by));
        (is_device && at.starts_with('/')).then_some(Mount {
            is_read_only: has("ro"),
            is_dax: has("dax") || has("dax=always"),
            device,
            at,
            file_system,
            is_mounted: false,
            is_awaited: !has("nofail") && !has("noauto"),
        })
    });
    entries.collect()
}

/// Spaces and a few others are written as `\040`.
pub(super) fn unescaped(text: &str) -> String {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|code| u8::from_str_radix(str::from_utf8(code).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
