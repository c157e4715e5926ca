//! The data folder: who may read it, and whether there is room.

use super::{Disk, broken, failed, ok, warning};
use crate::api::model::CheckView;
use crate::cli::figures::size;
use crate::datadir::{DataDir, DataDirError, KeyFile};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// With less than this the node is about to stop, since it cannot store.
const LEAST_BYTES: u64 = 16 << 20;
/// Store, snapshot and log of a mesh for a long while.
const ENOUGH_BYTES: u64 = 256 << 20;
/// A stored tree has 32 bytes for each 64 KiB of its disk.
const TREE_SHARE: u64 = (blocks::BLOCK_SIZE / 32) as u64;

/// Both.
pub(super) fn checks(folder: &Path, sources: &[Disk]) -> Vec<CheckView> {
    let mut checks = vec![permissions(folder)];
    checks.extend(space(folder, sources));
    checks
}

fn permissions(folder: &Path) -> CheckView {
    let check = "folder";
    let read = || -> Result<(), DataDirError> {
        let dir = DataDir::look(folder)?;
        dir.read_key(KeyFile::Node)?;
        // Not every folder has them.
        dir.find_key(KeyFile::Root)?;
        dir.find_key(KeyFile::Next)?;
        Ok(())
    };
    match read() {
        Ok(()) => ok(
            check,
            format!("{} and its keys are its owner's alone", folder.display()),
        ),
        Err(error @ DataDirError::Io { .. }) => broken(
            check,
            error.to_string(),
            "look at the folder's owner, its mode and its file system",
        ),
        Err(error) => failed(check, &error.to_string()),
    }
}

/// None where the file system does not say.
fn space(folder: &Path, sources: &[Disk]) -> Option<CheckView> {
    let free = free_bytes(folder)?;
    // Each pass keeps the hashes of its disk.
    let trees: u64 = sources.iter().map(|disk| disk.length / TREE_SHARE).sum();
    let trees = trees.saturating_sub(used_bytes(&folder.join("trees")));
    Some(judge_space(
        folder,
        free,
        ENOUGH_BYTES.saturating_add(trees),
    ))
}

fn judge_space(folder: &Path, free: u64, need: u64) -> CheckView {
    let check = "space";
    let text = format!("{} free in {}", size(free), folder.display());
    let todo = format!("make room there: {} are enough", size(need));
    match free {
        _ if free < LEAST_BYTES => broken(
            check,
            format!("{text}: the node stops when it cannot store"),
            todo,
        ),
        _ if free < need => warning(
            check,
            format!("{text}, which the hashes of its disks and the log of the mesh may fill"),
            todo,
        ),
        _ => ok(check, text),
    }
}

/// Bytes that this process may still write to the file system of a path.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes that the files of a folder take.
fn used_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| entry.metadata().ok());
    found.map(|found| found.blocks() * 512).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::CheckState;

    #[test]
    fn room_is_judged_by_what_the_node_will_need() {
        let judge = |free| judge_space(Path::new("/d"), free, 1 << 30).state;
        assert_eq!(judge(LEAST_BYTES - 1), CheckState::Failed);
        assert_eq!(judge(LEAST_BYTES), CheckState::Warning);
        assert_eq!(judge((1 << 30) - 1), CheckState::Warning);
        assert_eq!(judge(1 << 30), CheckState::Ok);
    }

    #[test]
    fn the_hashes_of_a_disk_need_a_2048th_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk {
            name: "d".into(),
            path: "/d".into(),
            length: u64::MAX / 2,
        };
        let state = |sources: &[Disk]| {
            let check = space(folder.path(), sources).expect("it has a file system");
            check.state
        };
        assert_eq!(state(&[disk]), CheckState::Warning, "no machine has 4 PiB");
        assert_eq!(state(&[]), CheckState::Ok);
        assert_eq!(TREE_SHARE, 2048);
    }
}
