//! The disks of the guest: an archive of a Debian root file system, which is kept between
//! runs, and out of it two disks for each run, one with grub and the root, one with data.
//!
//! What makes them are scripts beside this file (`image`), with what runs in the guest for
//! the host (`guest`). Not here: how they are booted (`guest`).

use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs and the Debian packages that have them.
const NEEDED: [(&str, &str); 14] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mmdebstrap", "mmdebstrap"),
    ("sfdisk", "fdisk"),
    ("partx", "util-linux"),
    ("losetup", "mount"),
    ("unshare", "util-linux"),
    ("blkid", "util-linux"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("ip", "iproute2"),
    ("tar", "tar"),
    ("strip", "binutils"),
    ("cp", "coreutils"),
    ("nice", "coreutils"),
];

/// What the guest has beside what every Debian has.
const PACKAGES: &str = "linux-image-cloud-amd64,grub-pc,systemd-sysv,udev,kmod,postgresql,\
                        xfsprogs,iproute2,sg3-utils";
const ROOT_SCRIPT: &str = include_str!("image/root.sh");
const DISKS_SCRIPT: &str = include_str!("image/disks.sh");
/// What runs in the guest, and where it is there.
const GUEST_FILES: [(&str, &str); 3] = [
    (
        "usr/local/lib/guest/console.pl",
        include_str!("guest/console.pl"),
    ),
    (
        "usr/local/lib/guest/writer.pl",
        include_str!("guest/writer.pl"),
    ),
    (
        "etc/systemd/system/guest-console.service",
        include_str!("guest/guest-console.service"),
    ),
];

const ROOT_MIB: u64 = 3072;
pub(super) const DATA_MIB: u64 = 1024;
const STATE_MIB: u64 = 256;

/// Names of the disks that are moved, as volumes of the migration too.
pub(super) const DISKS: [&str; 2] = ["root", "data"];
/// The disk that holds the agent's data folder, which is not moved.
pub(super) const STATE: &str = "state";

/// What every case begins with, in the folder of a run.
pub(super) struct Base;

impl Base {
    /// Makes it: disks, and the program as the guest gets it.
    pub(super) fn make(folder: &Path, cache: &Path, program: &Path) -> Result<()> {
        let archive = archive(cache)?;
        for (path, text) in GUEST_FILES {
            let path = folder.join("guest").join(path);
            let parent = path.parent().context("a file is in a folder")?;
            fs::create_dir_all(parent)?;
            fs::write(&path, text)?;
        }
        let script = folder.join("disks.sh");
        fs::write(&script, DISKS_SCRIPT)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh"]).arg(&script);
        command.arg(&archive).arg(folder);
        command.args([ROOT_MIB.to_string(), DATA_MIB.to_string()]);
        finish(&mut command).context("making the guest's disks")?;
        let state = disk(folder, STATE);
        fs::File::create(&state)?.set_len(STATE_MIB << 20)?;
        let mut command = Command::new("mkfs.ext4");
        finish(command.args(["-q", "-L", STATE]).arg(&state))?;
        let mut command = Command::new("strip");
        command.args(["--strip-debug", "-o"]);
        finish(command.arg(stripped(folder)).arg(program))
    }

    /// Copies the disks into the folder of a case.
    pub(super) fn copy(base: &Path, place: &Path) -> Result<()> {
        for name in DISKS.into_iter().chain([STATE]) {
            let mut command = Command::new("cp");
            command.args(["--sparse=always", "--reflink=auto"]);
            finish(command.arg(disk(base, name)).arg(disk(place, name)))?;
        }
        Ok(())
    }
}

/// The image of a disk.
pub(super) fn disk(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.raw"))
}

/// The program without what only debuggers read.
pub(super) fn stripped(base: &Path) -> PathBuf {
    base.join("dunlin")
}

/// Says what is missing on this machine.
pub(super) fn check_programs() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "it mounts disks and makes a network namespace: run it as root"
    );
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |program: &str| {
        let places = std::env::split_paths(&path);
        let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        places.chain(usual).any(|at| at.join(program).is_file())
    };
    let missing = NEEDED.iter().filter(|(program, _)| !has(program));
    let mut missing: Vec<&str> = missing.map(|(_, package)| *package).collect();
    missing.dedup();
    if !missing.is_empty() {
        bail!("install the Debian packages {} first", missing.join(" "));
    }
    Ok(())
}

/// The archive of the root file system, made where there is none of this recipe.
fn archive(cache: &Path) -> Result<PathBuf> {
    let suite = suite(&fs::read_to_string("/etc/os-release").context("which system this is")?)?;
    let mut hasher = DefaultHasher::new();
    (&suite, PACKAGES, ROOT_SCRIPT).hash(&mut hasher);
    let archive = cache.join(format!("root-{suite}-{:016x}.tar", hasher.finish()));
    if archive.is_file() {
        return Ok(archive);
    }
    eprintln!("making {} first, which takes minutes", archive.display());
    fs::create_dir_all(cache).with_context(|| format!("making {}", cache.display()))?;
    let script = cache.join("root.sh");
    fs::write(&script, ROOT_SCRIPT)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let partial = archive.with_extension("partial.tar");
    let mut command = Command::new("nice");
    command.args(["-n", "10", "mmdebstrap", "--quiet", "--variant=minbase"]);
    command.arg(format!("--include={PACKAGES}"));
    for folder in ["doc", "man", "locale"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    command.arg(format!("--customize-hook={}", script.display()));
    finish(command.arg(suite).arg(&partial)).context("making the root file system")?;
    fs::rename(&partial, &archive)?;
    Ok(archive)
}

/// The Debian release of this machine: the program needs its C library or a newer one.
fn suite(release: &str) -> Result<String> {
    let field = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_matches('"'))
    };
    match (field("ID="), field("VERSION_CODENAME=")) {
        (Some("debian"), Some(name)) => Ok(name.to_owned()),
        _ => bail!("the guest is of the Debian that this machine runs, and it runs none"),
    }
}

/// Runs a command to its end.
pub(super) fn finish(command: &mut Command) -> Result<()> {
    command.env("PATH", path()?);
    let ran = command.output();
    let name = command.get_program().to_owned();
    let ran = ran.with_context(|| format!("starting {}", name.display()))?;
    if !ran.status.success() {
        let arguments: Vec<&OsStr> = command.get_args().collect();
        let said = String::from_utf8_lossy(&ran.stderr);
        bail!("{} {arguments:?}: {}", name.display(), said.trim());
    }
    Ok(())
}

/// With the folders of what root runs.
fn path() -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let all = std::env::split_paths(&path).chain(usual);
    std::env::join_paths(all).context("PATH")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_guest_is_of_the_debian_of_this_machine() {
        let debian = "PRETTY_NAME=\"Debian\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(suite(debian).unwrap(), "bookworm");
        assert!(suite("ID=fedora\nVERSION_CODENAME=\"\"\n").is_err());
    }
}
