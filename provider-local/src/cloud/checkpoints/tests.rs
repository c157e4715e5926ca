//! What checkpoints hold, crashes in the middle, and calls that meet.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::FileExt;

use provider::{Attachment, Provider};

use super::*;
use crate::cloud::tests::{LENGTH, Temporary, attached, kill_everywhere, names, spec, to};

static GO_ON: AtomicBool = AtomicBool::new(false);

fn key() -> CheckpointKey {
    CheckpointKey {
        volume: spec().key,
        name: "first".parse().unwrap(),
    }
}

fn path(attachment: Attachment) -> PathBuf {
    match attachment {
        Attachment::Path(path) => path,
        other => panic!("{other:?} is no file"),
    }
}

/// Writes to the volume as its replicator does.
fn write(cloud: &LocalCloud, byte: u8) {
    let volume = path(cloud.open_read_only(&spec().key).unwrap());
    let file = fs::OpenOptions::new().write(true).open(volume).unwrap();
    file.write_all_at(&[byte; 5000], 70_000).unwrap();
}

/// A volume with data, and how it is.
fn written(cloud: &LocalCloud) {
    attached(cloud);
    write(cloud, 7);
}

fn sealed(cloud: &LocalCloud) {
    written(cloud);
    cloud.seal(&key(), 1, &GO_ON).unwrap();
}

fn copied(cloud: &LocalCloud) {
    sealed(cloud);
    cloud.copy_checkpoint(&key(), &GO_ON).unwrap();
}

fn holds(path: &Path, byte: u8) -> bool {
    let bytes = fs::read(path).unwrap();
    let (data, rest) = (&bytes[70_000..75_000], [&bytes[..70_000], &bytes[75_000..]]);
    bytes.len() as u64 == LENGTH
        && data.iter().all(|have| *have == byte)
        && rest.concat().iter().all(|have| *have == 0)
}

#[test]
fn a_checkpoint_stays_what_the_volume_was_while_that_goes_on() {
    let Temporary { cloud, _folder } = Temporary::new();
    sealed(&cloud);
    write(&cloud, 8);
    let checkpoint = path(cloud.open_checkpoint(&key()).unwrap());
    assert_eq!(
        checkpoint,
        cloud.folder().join("01010101-02020202-0@first.raw")
    );
    assert!(holds(&checkpoint, 7));
    let mode = checkpoint.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, READ_ONLY);
    cloud.seal(&key(), 1, &GO_ON).unwrap();
    assert!(holds(&checkpoint, 7), "sealing again changes nothing");

    let copy = path(cloud.copy_checkpoint(&key(), &GO_ON).unwrap());
    assert!(holds(&copy, 7));
    let file = fs::OpenOptions::new().write(true).open(&copy).unwrap();
    file.write_all_at(&[9; 5000], 70_000).unwrap();
    cloud.copy_checkpoint(&key(), &GO_ON).unwrap();
    assert!(holds(&copy, 9), "what was written to it stays");
    assert!(holds(&checkpoint, 7), "and the checkpoint is not touched");
    cloud.delete(&spec().key).unwrap();
    assert!(holds(&checkpoint, 7));
    cloud.delete_copy(&key()).unwrap();
    cloud.delete_checkpoint(&key()).unwrap();
    assert_eq!(names(&cloud), ["dunlin-cloud.json"]);
}

#[test]
fn sealing_survives_a_kill_anywhere() {
    kill_everywhere(
        written,
        |cloud| cloud.seal(&key(), 1, &GO_ON).map(drop),
        |cloud| {
            let listed = cloud.checkpoints(&spec().key.migration).unwrap();
            if let [record] = &listed[..]
                && record.sealed
            {
                let checkpoint = path(cloud.open_checkpoint(&key()).unwrap());
                assert!(holds(&checkpoint, 7), "what is called whole is whole");
            }
            cloud.seal(&key(), 1, &GO_ON).unwrap();
            let checkpoint = path(cloud.open_checkpoint(&key()).unwrap());
            assert!(holds(&checkpoint, 7));
        },
    );
}

#[test]
fn a_checkpoint_that_was_never_finished_can_be_deleted() {
    kill_everywhere(
        written,
        |cloud| cloud.seal(&key(), 1, &GO_ON).map(drop),
        |cloud| {
            cloud.delete_checkpoint(&key()).unwrap();
            cloud.delete(&spec().key).unwrap();
            let is_left = |name: &String| name.ends_with(".raw") || name.ends_with("raw.json");
            assert!(!names(cloud).iter().any(is_left));
            assert_eq!(cloud.checkpoints(&spec().key.migration).unwrap(), []);
        },
    );
}

#[test]
fn copying_survives_a_kill_anywhere() {
    kill_everywhere(
        sealed,
        |cloud| cloud.copy_checkpoint(&key(), &GO_ON).map(drop),
        |cloud| {
            let copy = path(cloud.copy_checkpoint(&key(), &GO_ON).unwrap());
            assert!(holds(&copy, 7));
            let checkpoint = path(cloud.open_checkpoint(&key()).unwrap());
            assert!(holds(&checkpoint, 7));
        },
    );
    kill_everywhere(
        sealed,
        |cloud| cloud.copy_checkpoint(&key(), &GO_ON).map(drop),
        |cloud| {
            cloud.delete_copy(&key()).unwrap();
            let copies = names(cloud)
                .into_iter()
                .filter(|name| name.contains("copy"));
            assert_eq!(copies.count(), 0);
        },
    );
}

#[test]
fn deleting_checkpoints_and_copies_survives_a_kill_anywhere() {
    kill_everywhere(
        copied,
        |cloud| cloud.delete_copy(&key()),
        |cloud| {
            let copy = path(cloud.copy_checkpoint(&key(), &GO_ON).unwrap());
            assert!(holds(&copy, 7));
            cloud.delete_copy(&key()).unwrap();
            assert!(!copy.exists());
        },
    );
    kill_everywhere(
        sealed,
        |cloud| cloud.delete_checkpoint(&key()),
        |cloud| {
            cloud.delete_checkpoint(&key()).unwrap();
            cloud.delete(&spec().key).unwrap();
            assert_eq!(names(cloud), ["dunlin-cloud.json"]);
        },
    );
    kill_everywhere(
        sealed,
        |cloud| cloud.delete_checkpoint(&key()),
        |cloud| {
            cloud.seal(&key(), 1, &GO_ON).unwrap();
            let checkpoint = path(cloud.open_checkpoint(&key()).unwrap());
            assert!(holds(&checkpoint, 7));
        },
    );
}

fn filling<T>(begun: Begun<T>) -> Filling {
    match begun {
        Begun::Filling(filling) => filling,
        Begun::There(_) => panic!("it is there"),
    }
}

fn is_busy<T>(result: Result<T, CloudError>) -> bool {
    matches!(result.err(), Some(CloudError::Busy { .. }))
}

#[test]
fn while_one_is_copied_others_go_on_and_it_is_left_alone() {
    let Temporary { cloud, _folder } = Temporary::new();
    written(&cloud);
    let at_work = filling(cloud.begin_sealing(&key(), 1).unwrap());
    assert!(is_busy(cloud.seal(&key(), 1, &GO_ON)));
    assert!(is_busy(cloud.delete_checkpoint(&key())));
    let mut other = key();
    other.name = "second".parse().unwrap();
    cloud.seal(&other, 1, &GO_ON).unwrap();
    cloud.ensure_volume(&spec()).unwrap();
    cloud.finish_sealing(at_work, &GO_ON).unwrap();

    let at_work = filling(cloud.begin_copying(&key()).unwrap());
    assert!(is_busy(cloud.copy_checkpoint(&key(), &GO_ON)));
    assert!(is_busy(cloud.delete_copy(&key())));
    cloud.finish_copying(at_work, &GO_ON).unwrap();
    let copy = path(cloud.copy_checkpoint(&key(), &GO_ON).unwrap());
    assert!(holds(&copy, 7));
}

#[test]
fn a_volume_that_went_on_or_is_gone_meanwhile_leaves_no_checkpoint() {
    let Temporary { cloud, _folder } = Temporary::new();
    written(&cloud);
    let at_work = filling(cloud.begin_sealing(&key(), 1).unwrap());
    cloud.attach(&spec().key, &to(2, 2)).unwrap();
    let fenced = cloud.finish_sealing(at_work, &GO_ON).unwrap_err();
    assert!(
        matches!(fenced, CloudError::Fenced { have: 2, .. }),
        "{fenced}"
    );
    assert!(!names(&cloud).iter().any(|name| name.contains('@')));

    let at_work = filling(cloud.begin_sealing(&key(), 2).unwrap());
    cloud.delete(&spec().key).unwrap();
    let gone = cloud.finish_sealing(at_work, &GO_ON).unwrap_err();
    assert_eq!(gone, CloudError::NotFound { key: spec().key });
    assert_eq!(names(&cloud), ["dunlin-cloud.json"]);
}

#[test]
fn a_file_that_is_not_ours_is_not_replaced() {
    let Temporary { cloud, _folder } = Temporary::new();
    written(&cloud);
    let theirs = cloud.folder().join(raw_name(&key()));
    fs::write(&theirs, "somebody's own").unwrap();
    let refused = cloud.seal(&key(), 1, &GO_ON).unwrap_err();
    assert!(matches!(refused, CloudError::Damaged { .. }), "{refused}");
    assert_eq!(fs::read(&theirs).unwrap(), b"somebody's own");
    fs::remove_file(&theirs).unwrap();
    cloud.seal(&key(), 1, &GO_ON).unwrap();
    fs::remove_file(&theirs).unwrap();
    let damaged = cloud.open_checkpoint(&key()).unwrap_err();
    assert!(damaged.to_string().contains("is missing"), "{damaged}");
    cloud.delete_checkpoint(&key()).unwrap();
}
