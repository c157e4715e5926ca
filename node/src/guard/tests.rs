//! A guard at a socket, and devices that the test made.
#![allow(clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use blocks::{BLOCK_SIZE, BlockIndex, DirtySet, GroupIndex};
use tempfile::TempDir;
use volumes::SourceVolume;

use super::words::{Answer, Ask};
use super::*;
use crate::transfer::{ChangeTracker, TreeName};

const LENGTH: u64 = 64 << 20;
const TREE: TreeName = [7; 16];

/// A loop device over a file, as long as it is there.
struct Loop {
    path: PathBuf,
    _folder: TempDir,
}

impl Loop {
    /// None, and it is said why, without root.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: not root, so that there is no loop device");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk");
        File::create(&file).unwrap().set_len(LENGTH).unwrap();
        let made = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(&file)
            .output();
        let made = made.expect("losetup is there for root");
        assert!(made.status.success(), "{made:?}");
        let path = String::from_utf8(made.stdout).unwrap();
        Some(Self {
            path: path.trim().into(),
            _folder: folder,
        })
    }

    fn write(&self, block: u64) {
        let device = OpenOptions::new().write(true).open(&self.path).unwrap();
        let data = vec![block as u8 + 1; BLOCK_SIZE];
        device
            .write_all_at(&data, block * BLOCK_SIZE as u64)
            .unwrap();
        device.sync_all().unwrap();
    }

    fn volume(&self) -> SourceVolume {
        SourceVolume::open(&self.path).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}

/// A guard in a thread of this process, which ends with it.
fn guard(folder: &Path) -> PathBuf {
    let socket = folder.join("guard.sock");
    let listener = listen(&socket).unwrap();
    thread::spawn(move || serve(&listener));
    socket
}

fn tracker(socket: &Path, volume: &SourceVolume, tree: TreeName) -> Box<dyn ChangeTracker> {
    trackers(socket.to_owned()).find(volume, tree).unwrap()
}

/// What a pass has to read; none where that is all.
fn collected(tracker: &mut dyn ChangeTracker, volume: &SourceVolume) -> Option<Vec<u64>> {
    let mut dirty = DirtySet::new(volume.geometry());
    let collected = tracker.collect(&mut dirty).unwrap();
    let blocks = 0..volume.geometry().blocks();
    let marked = blocks.filter(|block| dirty.contains(BlockIndex(*block)));
    collected.whole_because.is_none().then(|| marked.collect())
}

#[test]
fn a_pass_reads_what_was_written_and_what_was_not_settled_is_owed_to_whoever_asks_next() {
    let Some(device) = Loop::new() else { return };
    let (folder, volume) = (tempfile::tempdir().unwrap(), device.volume());
    let socket = guard(folder.path());
    let mut first = tracker(&socket, &volume, TREE);
    assert_eq!(
        collected(&mut *first, &volume),
        None,
        "nothing was read yet"
    );
    first.settled().unwrap();
    device.write(3);
    device.write(900);
    assert_eq!(collected(&mut *first, &volume), Some(vec![3, 900]));
    // The agent is killed before its pass is durable.
    drop(first);
    let mut second = tracker(&socket, &volume, TREE);
    device.write(5);
    assert_eq!(collected(&mut *second, &volume), Some(vec![3, 5, 900]));
    second.settled().unwrap();
    assert_eq!(collected(&mut *second, &volume), Some(vec![]));
    // Of another tree nothing is known.
    let mut other = tracker(&socket, &volume, [8; 16]);
    assert_eq!(collected(&mut *other, &volume), None);
}

#[test]
fn groups_that_were_taken_from_the_other_end_are_read_though_nobody_wrote_them() {
    let Some(device) = Loop::new() else { return };
    let (folder, volume) = (tempfile::tempdir().unwrap(), device.volume());
    let socket = guard(folder.path());
    let mut agent = tracker(&socket, &volume, TREE);
    collected(&mut *agent, &volume);
    agent.settled().unwrap();
    agent.owe(GroupIndex(1)).unwrap();
    drop(agent);
    let mut agent = tracker(&socket, &volume, TREE);
    device.write(3);
    let found = collected(&mut *agent, &volume).unwrap();
    assert_eq!(
        (found[0], &found[1..]),
        (3, &(256..512).collect::<Vec<_>>()[..])
    );
    agent.settled().unwrap();
    assert_eq!(collected(&mut *agent, &volume), Some(vec![]));
}

#[test]
fn a_guard_that_was_started_again_knows_nothing_and_says_so() {
    let Some(device) = Loop::new() else { return };
    let volume = device.volume();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut agent = tracker(&guard(folders[0].path()), &volume, TREE);
    collected(&mut *agent, &volume);
    agent.settled().unwrap();
    let mut again = tracker(&guard(folders[1].path()), &volume, TREE);
    assert_eq!(collected(&mut *again, &volume), None);
}

#[test]
fn files_and_absent_guards_are_said_to_be_that() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk");
    File::create(&file).unwrap().set_len(LENGTH).unwrap();
    let volume = SourceVolume::open(&file).unwrap();
    let none = trackers(folder.path().join("guard.sock")).find(&volume, TREE);
    assert!(none.err().unwrap().contains("it is a file"));
    let Some(device) = Loop::new() else { return };
    let none = trackers(folder.path().join("guard.sock")).find(&device.volume(), TREE);
    assert!(none.err().unwrap().contains("run `dunlin guard` as root"));
}

#[test]
fn a_socket_is_its_owners_alone_and_one_that_answers_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let socket = guard(folder.path());
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let taken = listen(&socket).unwrap_err().to_string();
    assert!(taken.contains("another guard runs"), "{taken}");
    // One that was left behind is.
    let left = folder.path().join("left.sock");
    drop(UnixListener::bind(&left).unwrap());
    listen(&left).unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"mine").unwrap();
    assert!(
        listen(&file)
            .unwrap_err()
            .to_string()
            .contains("is no socket")
    );
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn words_are_these_bytes() {
    let ask = Ask::Owe {
        tree: [2; 16],
        group: 5,
    };
    let mut golden = vec![1, 3];
    golden.extend([2; 16]);
    golden.push(5);
    assert_eq!(codec::encode(&ask).unwrap(), golden);
    let answer = Answer::Runs(vec![(3, 1), (9, 2)]);
    assert_eq!(codec::encode(&answer).unwrap(), [1, 2, 2, 3, 1, 9, 2]);
}
