//! What the roles of the node need of this machine: sources that can be read, copies and
//! clouds that can be written and have room.

use super::folder::free_bytes;
use super::{Disk, Facts, broken, ok, on, warning};
use crate::api::model::CheckView;
use crate::cli::figures::size;
use rustix::fs::{Access, access};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A cloud with less room than this makes no volume worth having.
const LEAST_CLOUD_BYTES: u64 = 1 << 30;

pub(super) fn checks(facts: &Facts) -> Vec<CheckView> {
    let has = |role: &str| facts.me.roles.iter().any(|has| has == role);
    let mut checks = vec![];
    if has("agent") {
        if facts.sources.is_empty() {
            checks.push(warning(
                "source",
                "this agent offers no disk",
                "offer one with `dunlin volume add PATH`",
            ));
        }
        let sources = facts.sources.iter();
        checks.extend(sources.map(|disk| on(&disk.name, source(disk))));
        let blockers = facts.blockers.iter();
        checks.extend(blockers.map(|found| {
            let check = warning("readiness", &found.what, &found.todo);
            on(&found.subject, check)
        }));
    }
    if has("replicator") {
        checks.push(place_of_copies(&facts.folder.join("copies")));
        let copies = facts.copies.iter();
        checks.extend(copies.map(|disk| on(&disk.name, copy(disk))));
    }
    let cloud = facts.live.as_ref().and_then(|live| live.cloud.as_deref());
    checks.extend(cloud.map(cloud_folder));
    checks
}

/// Opened for reading and not read.
fn source(disk: &Disk) -> CheckView {
    let check = "source";
    let path = disk.path.display();
    let length = || -> io::Result<u64> { File::open(&disk.path)?.seek(SeekFrom::End(0)) };
    match length() {
        Err(error) => broken(
            check,
            format!("{path} cannot be read: {error}"),
            "put the disk back, or let the user that runs the node read it; or offer it no more: `dunlin volume remove`",
        ),
        Ok(found) if found != disk.length => broken(
            check,
            format!(
                "{path} has {found} bytes, and was offered with {}",
                disk.length
            ),
            "give it its length back; or offer it anew (`dunlin volume remove`, `volume add`) and make its migration again",
        ),
        Ok(_) => ok(check, format!("{path} can be read, {}", size(disk.length))),
    }
}

/// Where the hashes of copies are kept.
fn place_of_copies(folder: &Path) -> CheckView {
    match access(folder, Access::WRITE_OK) {
        Ok(()) => ok("copies", format!("{} can be written", folder.display())),
        Err(error) => broken(
            "copies",
            format!("{} cannot be written: {error}", folder.display()),
            "give it back to the user that runs the node; look whether its file system is mounted read-only",
        ),
    }
}

/// Not opened: to close a device that was open for writing makes the system look at it.
fn copy(disk: &Disk) -> CheckView {
    let check = "copy";
    let path = disk.path.display();
    let found = access(&disk.path, Access::WRITE_OK)
        .map_err(io::Error::from)
        .and_then(|()| fs::metadata(&disk.path));
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            return broken(
                check,
                format!("{path} cannot be written: {error}"),
                "put it back or attach it again; where it is lost, delete the migration and make it again",
            );
        }
    };
    let grows = match found.is_file() {
        true => disk.length.saturating_sub(found.blocks() * 512),
        false => 0,
    };
    match free_bytes(&disk.path) {
        Some(free) if free < grows => warning(
            check,
            format!(
                "{path} may grow by {} and {} are free there",
                size(grows),
                size(free)
            ),
            "make room before the copy fills it; a copy that meets a full disk goes on from its last barrier once there is",
        ),
        _ => ok(
            check,
            format!("{path} can be written, {}", size(disk.length)),
        ),
    }
}

fn cloud_folder(folder: &Path) -> CheckView {
    let check = "cloud-folder";
    let path = folder.display();
    if let Err(error) = access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        return broken(
            check,
            format!("{path} cannot be written: {error}"),
            "create or mount it, and give it to the user that runs the node",
        );
    }
    match free_bytes(folder) {
        Some(free) if free < LEAST_CLOUD_BYTES => warning(
            check,
            format!("{path} has room for {} only", size(free)),
            "make room for the whole copies, or name another folder: `[local] folder` in the settings",
        ),
        free => ok(
            check,
            format!("{path} can be written, {} free", size(free.unwrap_or(0))),
        ),
    }
}
