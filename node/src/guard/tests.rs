//! A guard at a socket, and devices that the test made.
#![allow(clippy::unwrap_used)]

mod stillness;

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
use crate::stillness::{FileSystem, Frozen, Prepared, SourceDisk, Stillness, Thawed, ThawedBy};
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

    /// Puts another file behind the device.
    fn put_in(&self, file: &Path) {
        let run = |args: &[&str]| {
            let done = Command::new("losetup").args(args).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        let (path, file) = (self.path.to_str().unwrap(), file.to_str().unwrap());
        run(&["-d", path]);
        run(&[path, file]);
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
    guard_by(folder, None)
}

/// The same, that follows disks by this kind of tracker alone.
fn guard_by(folder: &Path, only: Option<TrackerKind>) -> PathBuf {
    let socket = folder.join("guard.sock");
    let listener = listen(&socket).unwrap();
    let stills = stills(&socket, Host::real(false)).unwrap();
    thread::spawn(move || serve(&listener, &stills, only));
    socket
}

fn tracker(socket: &Path, volume: &SourceVolume, tree: TreeName) -> Box<dyn ChangeTracker> {
    trackers(socket.to_owned()).find(volume, tree).unwrap()
}

/// A pass, and what it has to read; none where that is all.
fn begun(tracker: &mut dyn ChangeTracker, volume: &SourceVolume) -> (u64, Option<Vec<u64>>) {
    let mut dirty = DirtySet::new(volume.geometry());
    let collected = tracker.collect(&mut dirty).unwrap();
    let blocks = 0..volume.geometry().blocks();
    let marked = blocks.filter(|block| dirty.contains(BlockIndex(*block)));
    let found = collected.whole_because.is_none().then(|| marked.collect());
    (collected.pass, found)
}

fn collected(tracker: &mut dyn ChangeTracker, volume: &SourceVolume) -> Option<Vec<u64>> {
    begun(tracker, volume).1
}

/// A whole pass that is made durable.
fn settle(tracker: &mut dyn ChangeTracker, volume: &SourceVolume) {
    let (pass, _) = begun(tracker, volume);
    tracker.settled(pass).unwrap();
}

#[test]
fn a_pass_reads_what_was_written_and_what_was_not_settled_is_owed_to_whoever_asks_next() {
    let Some(device) = Loop::new() else { return };
    let (folder, volume) = (tempfile::tempdir().unwrap(), device.volume());
    let socket = guard(folder.path());
    let mut first = tracker(&socket, &volume, TREE);
    let (pass, found) = begun(&mut *first, &volume);
    assert_eq!(found, None, "nothing was read yet");
    first.settled(pass).unwrap();
    device.write(3);
    device.write(900);
    assert_eq!(collected(&mut *first, &volume), Some(vec![3, 900]));
    // The agent is killed before its pass is durable.
    drop(first);
    let mut second = tracker(&socket, &volume, TREE);
    device.write(5);
    let (pass, found) = begun(&mut *second, &volume);
    assert_eq!(found, Some(vec![3, 5, 900]));
    second.settled(pass).unwrap();
    assert_eq!(collected(&mut *second, &volume), Some(vec![]));
    // Of another tree nothing is known.
    let mut other = tracker(&socket, &volume, [8; 16]);
    assert_eq!(collected(&mut *other, &volume), None);
}

#[test]
fn by_which_kind_of_tracker_a_disk_is_followed_is_told_with_each_pass() {
    let Some(device) = Loop::new() else { return };
    let (folder, volume) = (tempfile::tempdir().unwrap(), device.volume());
    let socket = guard_by(folder.path(), Some(TrackerKind::Perf));
    let mut agent = tracker(&socket, &volume, TREE);
    settle(&mut *agent, &volume);
    device.write(3);
    let mut dirty = DirtySet::new(volume.geometry());
    let collected = agent.collect(&mut dirty).unwrap();
    assert_eq!(collected.whole_because, None);
    assert!(dirty.contains(BlockIndex(3)) && dirty.len() == 1);
    assert_eq!(collected.how, "by perf events, as was asked for");
}

#[test]
fn a_pass_that_is_said_to_be_durable_when_another_has_begun_settles_nothing() {
    let Some(device) = Loop::new() else { return };
    let (folder, volume) = (tempfile::tempdir().unwrap(), device.volume());
    let socket = guard(folder.path());
    let mut first = tracker(&socket, &volume, TREE);
    settle(&mut *first, &volume);
    device.write(3);
    let (pass, _) = begun(&mut *first, &volume);
    let mut second = tracker(&socket, &volume, TREE);
    assert_eq!(collected(&mut *second, &volume), Some(vec![3]));
    let stale = first.settled(pass).unwrap_err().to_string();
    assert!(stale.contains("another pass has begun"), "{stale}");
    assert_eq!(collected(&mut *second, &volume), Some(vec![3]));
}

#[test]
fn groups_that_were_taken_from_the_other_end_are_read_though_nobody_wrote_them() {
    let Some(device) = Loop::new() else { return };
    let (folder, volume) = (tempfile::tempdir().unwrap(), device.volume());
    let socket = guard(folder.path());
    let mut agent = tracker(&socket, &volume, TREE);
    settle(&mut *agent, &volume);
    agent.owe(GroupIndex(1)).unwrap();
    agent.owe(GroupIndex(u64::MAX)).unwrap_err();
    drop(agent);
    let mut agent = tracker(&socket, &volume, TREE);
    device.write(3);
    let (pass, found) = begun(&mut *agent, &volume);
    let owed: Vec<u64> = [3].into_iter().chain(256..512).collect();
    assert_eq!(found, Some(owed));
    agent.settled(pass).unwrap();
    assert_eq!(collected(&mut *agent, &volume), Some(vec![]));
}

#[test]
fn a_guard_that_was_started_again_knows_nothing_and_says_so() {
    let Some(device) = Loop::new() else { return };
    let volume = device.volume();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut agent = tracker(&guard(folders[0].path()), &volume, TREE);
    settle(&mut *agent, &volume);
    let mut again = tracker(&guard(folders[1].path()), &volume, TREE);
    assert_eq!(collected(&mut *again, &volume), None);
}

#[test]
fn another_medium_under_the_same_number_is_read_as_a_whole() {
    let Some(device) = Loop::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let socket = guard(folder.path());
    let volume = device.volume();
    let mut agent = tracker(&socket, &volume, TREE);
    settle(&mut *agent, &volume);
    assert_eq!(collected(&mut *agent, &volume), Some(vec![]));
    drop(volume);
    // Of the same size, and with other content.
    let other = folder.path().join("other");
    fs::write(&other, vec![7; LENGTH as usize]).unwrap();
    device.put_in(&other);
    let volume = device.volume();
    let mut dirty = DirtySet::new(volume.geometry());
    let lost = agent.collect(&mut dirty).unwrap_err().to_string();
    assert!(lost.contains("it was replaced by another"), "{lost}");
    let mut agent = tracker(&socket, &volume, TREE);
    assert_eq!(collected(&mut *agent, &volume), None);
    settle(&mut *agent, &volume);
    assert_eq!(collected(&mut *agent, &volume), Some(vec![]));
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
    let mut golden = vec![2, 3];
    golden.extend([2; 16]);
    golden.push(5);
    assert_eq!(codec::encode(&ask).unwrap(), golden);
    let settled = Ask::Settled {
        tree: [2; 16],
        pass: 9,
    };
    let mut golden = vec![2, 2];
    golden.extend([2; 16]);
    golden.push(9);
    assert_eq!(codec::encode(&settled).unwrap(), golden);
    let answer = Answer::Runs(vec![(3, 1), (9, 2)]);
    assert_eq!(codec::encode(&answer).unwrap(), [3, 2, 2, 3, 1, 9, 2]);
    let collected = Answer::Collected {
        pass: 9,
        whole_because: Some("w".to_owned()),
        is_final: true,
        is_followed: false,
        how: "h".to_owned(),
    };
    let golden = [3, 3, 9, 1, 1, b'w', 1, 0, 1, b'h'];
    assert_eq!(codec::encode(&collected).unwrap(), golden);
}

#[test]
fn words_about_what_is_still_are_these_bytes() {
    let still = |ask| {
        let migration = MigrationId([2; 16]);
        codec::encode(&Ask::Still { migration, ask }).unwrap()
    };
    let asked = |rest: &[u8]| {
        let mut golden = vec![2, 4];
        golden.extend([2; 16]);
        golden.extend(rest);
        golden
    };
    let disk = SourceDisk {
        path: "/d".into(),
        device: 7,
        length: 9,
    };
    let disks = vec![disk];
    let deadline = Duration::from_millis(1500);
    // 500 million nanoseconds, as codec writes numbers.
    let half = [252, 0, 101, 205, 29];
    assert_eq!(
        still(AskStill::Prepare { disks }),
        asked(&[0, 1, 2, b'/', b'd', 7, 9])
    );
    assert_eq!(still(AskStill::Sync), asked(&[1]));
    let freeze = [&[2, 1][..], &half].concat();
    assert_eq!(still(AskStill::Freeze { deadline }), asked(&freeze));
    let rest = [
        AskStill::Thaw,
        AskStill::Keep,
        AskStill::Stillness,
        AskStill::PowerOff,
        AskStill::Release,
    ];
    for (word, number) in rest.into_iter().zip(3..) {
        assert_eq!(still(word), asked(&[number]));
    }
    let answer = |answer: &Answer| codec::encode(answer).unwrap();
    let vfat = FileSystem {
        kind: "v".to_owned(),
        at: "/e".into(),
        can_freeze: false,
    };
    let prepared = Prepared {
        file_systems: vec![vfat.clone()],
        swaps: vec!["/s".into()],
        unreached: vec!["u".to_owned()],
    };
    let golden = [
        3, 4, 1, 1, b'v', 2, b'/', b'e', 0, 1, 2, b'/', b's', 1, 1, b'u',
    ];
    assert_eq!(answer(&Answer::Prepared(prepared)), golden);
    assert_eq!(
        answer(&Answer::Synced(Duration::from_secs(3))),
        [3, 5, 3, 0]
    );
    let frozen = Frozen {
        took: Duration::from_secs(3),
        unfrozen: vec![vfat],
    };
    let golden = [3, 6, 3, 0, 1, 1, b'v', 2, b'/', b'e', 0];
    assert_eq!(answer(&Answer::Frozen(frozen)), golden);
    let by = [
        ThawedBy::Asked,
        ThawedBy::Deadline,
        ThawedBy::Guard,
        ThawedBy::Nobody,
    ];
    for (by, number) in by.into_iter().zip(0..) {
        let frozen_for = Duration::from_secs(3);
        let thawed = Answer::Thawed(Thawed { frozen_for, by });
        assert_eq!(answer(&thawed), [3, 7, 3, 0, number]);
    }
    let left = Duration::from_secs(3);
    let stillness = |stillness| answer(&Answer::Stillness(stillness));
    assert_eq!(stillness(Stillness::Running), [3, 8, 0]);
    assert_eq!(stillness(Stillness::Frozen { left }), [3, 8, 1, 3, 0]);
    assert_eq!(stillness(Stillness::Kept), [3, 8, 2]);
}
