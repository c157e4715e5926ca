//! What is mounted, as the kernel lists it in `/proc/PID/mountinfo` (proc(5)), in every
//! namespace that a process is in.
//!
//! Not here: on which disks that lies.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::Number;

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// As `/proc/PID/fdinfo` has it of files that were opened through it.
    pub(super) id: u64,
    /// Of the file system, one for all its mounts. Those that lie on no device, on several,
    /// or are `btrfs` have one that no device has.
    pub(super) device: Number,
    /// Where, in its namespace.
    pub(super) at: PathBuf,
    /// Of the file system.
    pub(super) kind: String,
    pub(super) source: PathBuf,
    /// Of the file system, not of this mount.
    pub(super) options: String,
}

impl Mount {
    /// Whether the file system is mounted with an option.
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|has| has == option)
    }
}

/// What one namespace has mounted.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// Where its root is for us.
    pub(super) root: PathBuf,
    pub(super) mounts: Vec<Mount>,
}

impl View {
    /// Where a path of this namespace is for us.
    pub(super) fn reach(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// What every namespace has mounted that a process is in which can be looked at; ours first.
///
/// # Errors
/// Where not even ours can be read.
pub(super) fn views() -> io::Result<Vec<View>> {
    let proc = Path::new("/proc");
    let mut views = vec![View {
        root: "/".into(),
        mounts: parse(&fs::read(proc.join("self/mountinfo"))?),
    }];
    let mut seen = BTreeSet::from([fs::read_link(proc.join("self/ns/mnt"))?]);
    let names = fs::read_dir(proc)?.flatten();
    let processes = names.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // The first process of a namespace has it whole more often than later ones.
    for process in processes.collect::<BTreeSet<_>>() {
        let process = proc.join(process.to_string());
        // It may have ended.
        let Ok(namespace) = fs::read_link(process.join("ns/mnt")) else {
            continue;
        };
        if !seen.contains(&namespace)
            && let Ok(text) = fs::read(process.join("mountinfo"))
        {
            seen.insert(namespace);
            views.push(View {
                root: process.join("root"),
                mounts: parse(&text),
            });
        }
    }
    Ok(views)
}

/// The lines that can be read as such: all that kernels write.
pub(super) fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = parse_number(str::from_utf8(fields.nth(1)?).ok()?)?;
    let at = unescaped(fields.nth(1)?).into();
    // Options of the mount, and any number of further fields.
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let text = |field| OsString::from_vec(unescape(field)).into_string().ok();
    Some(Mount {
        id,
        device,
        at,
        kind: text(fields.next()?)?,
        source: unescaped(fields.next()?).into(),
        options: String::from_utf8_lossy(&unescape(fields.next()?)).into_owned(),
    })
}

/// The number of a device, as `MAJOR:MINOR`.
pub(super) fn parse_number(text: &str) -> Option<Number> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Without the octal escapes that lists of mounts have.
pub(super) fn unescaped(field: &[u8]) -> OsString {
    OsString::from_vec(unescape(field))
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let octal = digits.and_then(|digits| str::from_utf8(digits).ok());
        match octal.and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// With the escapes that [`unescaped`] takes out.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' | 0..=b' ' | 0x7f.. => text.push_str(&format!("\\{byte:03o}")),
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

/// Opens a path if it leads into this mount, and not into what was mounted over it; no
/// device is ever opened.
pub(super) fn open_in(mount: &Mount, path: &Path) -> io::Result<File> {
    let metadata = fs::metadata(path)?;
    let elsewhere = || io::Error::other("something else is mounted over it");
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(elsewhere());
    }
    let file = File::open(path)?;
    match opened_through(&file)? == Some(mount.id) {
        true => Ok(file),
        false => Err(elsewhere()),
    }
}

/// The mount through which a file was opened.
fn opened_through(file: &File) -> io::Result<Option<u64>> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let mut lines = info.lines();
    Ok(lines.find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok()))
}

/// The file system on which a folder lies: one number for all its mounts and subvolumes,
/// which those that `stat` gives for `btrfs` are not.
///
/// # Errors
/// Where it cannot be opened, or what is mounted cannot be read.
pub fn file_system_of(folder: &Path) -> io::Result<Number> {
    let id = opened_through(&File::open(folder)?)?;
    let mounts = parse(&fs::read("/proc/self/mountinfo")?);
    let mut mounts = mounts.into_iter().filter(|mount| Some(mount.id) == id);
    let found = mounts.next().map(|mount| mount.device);
    found.ok_or_else(|| io::Error::other("no mount has it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_escapes() {
        let text = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext4 /dev/a\\134b rw,errors=continue\n\
            37 35 0:44 / /x rw - btrfs /dev/sdb ro,subvol=/\n\
            38 35 0:45 / /y rw - tmpfs none rw\n\
            not a line\n\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 3);
        let expected = Mount {
            id: 36,
            device: (98, 0),
            at: "/mnt 2".into(),
            kind: "ext4".to_owned(),
            source: "/dev/a\\b".into(),
            options: "rw,errors=continue".to_owned(),
        };
        assert_eq!(mounts[0], expected);
        assert!(mounts[1].has("ro") && !mounts[1].has("subvol"));
        assert_eq!(mounts[2].at, Path::new("/y"));
    }

    #[test]
    fn what_is_escaped_reads_back() {
        let all: Vec<u8> = (0..=255).collect();
        let text = escaped(&all);
        assert!(!text.contains([' ', '\n']));
        assert_eq!(unescaped(text.as_bytes()).into_vec(), all);
        // An escape that is cut short is no escape.
        assert_eq!(unescaped(b"a\\04").into_vec(), b"a\\04");
    }

    #[test]
    fn the_root_is_among_our_mounts_and_opens() {
        let views = views().expect("proc is mounted");
        let root = views[0]
            .mounts
            .iter()
            .rfind(|mount| mount.at == Path::new("/"));
        let root = root.expect("there is a root");
        assert!(open_in(root, Path::new("/")).is_ok());
        let other = Mount {
            id: u64::MAX,
            ..root.clone()
        };
        assert!(open_in(&other, Path::new("/")).is_err());
    }
}
