//! What every provider has to do about checkpoints. What they hold, byte for byte, is for
//! the tests of a cloud that has bytes.

use std::sync::atomic::AtomicBool;

use super::{attach, delete, detach, ensure, holder, owned, retry, spec};
use crate::{
    Attachment, AttachmentKind, CheckpointKey, CheckpointRecord, CloudError, MigrationTag, Provider,
};

static GO_ON: AtomicBool = AtomicBool::new(false);

/// Runs every check, each on a fresh and empty cloud from `make`.
pub(super) fn suite(make: impl Fn() -> Box<dyn Provider>) {
    sealing_a_checkpoint_twice_makes_one(&*make());
    a_checkpoint_is_made_by_who_knows_the_epoch(&*make());
    a_checkpoint_outlives_its_volume(&*make());
    a_checkpoint_has_one_copy_which_is_deleted_first(&*make());
    what_is_not_there_is_neither_read_nor_copied(&*make());
    checkpoints_lists_exactly_its_own(&*make());
    a_call_that_is_stopped_leaves_nothing_whole(&*make());
}

/// Sealing is idempotent, and a name never stands for two moments.
pub fn sealing_a_checkpoint_twice_makes_one(cloud: &dyn Provider) {
    let key = attached(cloud, 1, 1, "first");
    let made = seal(cloud, &key, 3).expect("its volume is attached in epoch 3");
    let expected = CheckpointRecord {
        sealed: true,
        ..CheckpointRecord::new(&ensure(cloud, &spec(1, 1, 0)), key.name.clone(), 3)
    };
    assert_eq!(made, expected);
    assert_eq!(seal(cloud, &key, 3).expect("again"), made);
    assert_eq!(
        checkpoints(cloud, 1),
        std::slice::from_ref(&made),
        "one was made"
    );
    attach(cloud, &key.volume, &holder(1, 4)).expect("a later epoch");
    let other = seal(cloud, &key, 4).expect_err("it is of epoch 3");
    let expected = CloudError::SealedOtherwise {
        key: key.clone(),
        have: 3,
        asked: 4,
    };
    assert_eq!(other, expected);
    assert_eq!(seal(cloud, &key, 3).expect("it is there"), made);
}

/// Who comes with another epoch than the volume's does not know what it holds.
pub fn a_checkpoint_is_made_by_who_knows_the_epoch(cloud: &dyn Provider) {
    let volume = spec(1, 1, 0).key;
    let key = key(1, 1, "first");
    let missing = seal(cloud, &key, 1).expect_err("there is no volume");
    assert_eq!(missing, CloudError::NotFound { key: volume });
    ensure(cloud, &spec(1, 1, 0));
    let free = seal(cloud, &key, 3).expect_err("nobody is attached");
    let not_attached = |epoch| CloudError::NotAttached { key: volume, epoch };
    assert_eq!(free, not_attached(3));
    attach(cloud, &volume, &holder(1, 3)).expect("a free volume");
    let early = seal(cloud, &key, 4).expect_err("epoch 4 is not there yet");
    assert_eq!(early, not_attached(4));
    let fenced = |have, asked| CloudError::Fenced {
        key: volume,
        have,
        asked,
    };
    assert_eq!(seal(cloud, &key, 2).expect_err("it is over"), fenced(3, 2));
    detach(cloud, &volume, 4).expect("epoch 3 is over");
    assert_eq!(seal(cloud, &key, 3).expect_err("it is over"), fenced(4, 3));
    assert_eq!(checkpoints(cloud, 1), [], "nothing was begun");
}

/// What replaces a volume, or removes it, does not take its checkpoints along.
pub fn a_checkpoint_outlives_its_volume(cloud: &dyn Provider) {
    let key = attached(cloud, 1, 1, "first");
    let made = seal(cloud, &key, 3).expect("its volume is attached");
    delete(cloud, &key.volume);
    assert_eq!(owned(cloud, 1), []);
    assert_eq!(checkpoints(cloud, 1), std::slice::from_ref(&made));
    open(cloud, &key).expect("it can be read");
    assert_eq!(seal(cloud, &key, 3).expect("it is there"), made);
    copy(cloud, &key).expect("and be copied");
    ensure(cloud, &spec(1, 1, 0));
    assert_eq!(checkpoints(cloud, 1).len(), 1, "it stays with a new volume");
}

/// A copy is another place, made once, and whoever runs on it is not in danger.
pub fn a_checkpoint_has_one_copy_which_is_deleted_first(cloud: &dyn Provider) {
    let key = attached(cloud, 1, 1, "first");
    seal(cloud, &key, 3).expect("its volume is attached");
    let sealed = open(cloud, &key).expect("it is sealed");
    let copied = copy(cloud, &key).expect("it is sealed");
    match cloud.capabilities().attachment {
        AttachmentKind::Path => {
            assert!(matches!(sealed, Attachment::Path(_)));
            assert!(matches!(copied, Attachment::Path(_)));
        }
        AttachmentKind::Memory => {
            assert_eq!(sealed, Attachment::MemoryCheckpoint(key.clone()));
            assert_eq!(copied, Attachment::MemoryCopy(key.clone()));
        }
    }
    assert_ne!(sealed, copied, "they are different places");
    assert_eq!(copy(cloud, &key).expect("it is there"), copied);
    assert!(checkpoints(cloud, 1)[0].has_copy);
    let refused = remove(cloud, &key).expect_err("a server may run on its copy");
    assert_eq!(refused, CloudError::HasCopy { key: key.clone() });
    for _ in 0..2 {
        remove_copy(cloud, &key);
        assert!(!checkpoints(cloud, 1)[0].has_copy);
    }
    assert_eq!(copy(cloud, &key).expect("another is made"), copied);
    remove_copy(cloud, &key);
    for _ in 0..2 {
        remove(cloud, &key).expect("it has no copy");
        assert_eq!(checkpoints(cloud, 1), []);
    }
    seal(cloud, &key, 3).expect("its name is free");
}

/// Nothing is made for who only reads or removes.
pub fn what_is_not_there_is_neither_read_nor_copied(cloud: &dyn Provider) {
    let key = attached(cloud, 1, 1, "first");
    let missing = CloudError::NoCheckpoint { key: key.clone() };
    assert_eq!(open(cloud, &key).expect_err("it is not there"), missing);
    assert_eq!(copy(cloud, &key).expect_err("it is not there"), missing);
    remove_copy(cloud, &key);
    remove(cloud, &key).expect("it is deleted already");
    assert_eq!(checkpoints(cloud, 1), []);
}

/// Cleaning up one migration finds all of its checkpoints and none of others, and they are
/// no volumes.
pub fn checkpoints_lists_exactly_its_own(cloud: &dyn Provider) {
    assert_eq!(checkpoints(cloud, 1), [], "a fresh cloud holds nothing");
    let keys = [
        attached(cloud, 1, 1, "first"),
        attached(cloud, 1, 1, "second"),
        attached(cloud, 1, 2, "first"),
        attached(cloud, 2, 1, "first"),
    ];
    for key in keys.iter().rev() {
        seal(cloud, key, 3).expect("its volume is attached");
    }
    let listed: Vec<CheckpointKey> = checkpoints(cloud, 1)
        .into_iter()
        .map(|record| record.key)
        .collect();
    assert_eq!(listed, keys[..3], "in the order of the keys");
    assert_eq!(checkpoints(cloud, 2).len(), 1);
    assert_eq!(checkpoints(cloud, 3), []);
    assert_eq!(owned(cloud, 1).len(), 2, "checkpoints are no volumes");
}

/// Who stops a call does not have a checkpoint, and may ask again or remove what is left.
pub fn a_call_that_is_stopped_leaves_nothing_whole(cloud: &dyn Provider) {
    let key = attached(cloud, 1, 1, "first");
    let stop = AtomicBool::new(true);
    let stopped = |result: Result<(), CloudError>| {
        let error = result.expect_err("it was stopped");
        // Nothing but the stop passes by itself in a cloud that is well.
        assert!(error.is_transient(), "{error}");
    };
    stopped(cloud.seal(&key, 3, &stop).map(drop));
    assert!(checkpoints(cloud, 1).iter().all(|record| !record.sealed));
    open(cloud, &key).expect_err("it is not whole");
    copy(cloud, &key).expect_err("it is not whole");
    remove(cloud, &key).expect("what was begun can be removed");
    assert_eq!(checkpoints(cloud, 1), []);
    stopped(cloud.seal(&key, 3, &stop).map(drop));
    seal(cloud, &key, 3).expect("it begins anew");
    stopped(cloud.copy_checkpoint(&key, &stop).map(drop));
    copy(cloud, &key).expect("it begins anew");
}

fn key(migration: u8, volume: u8, name: &str) -> CheckpointKey {
    CheckpointKey {
        volume: spec(migration, volume, 0).key,
        name: name.parse().expect("a name"),
    }
}

/// The key of a checkpoint of a volume that is attached in epoch 3.
fn attached(cloud: &dyn Provider, migration: u8, volume: u8, name: &str) -> CheckpointKey {
    let key = key(migration, volume, name);
    ensure(cloud, &spec(migration, volume, 0));
    attach(cloud, &key.volume, &holder(1, 3)).expect("a free volume");
    key
}

fn seal(
    cloud: &dyn Provider,
    key: &CheckpointKey,
    epoch: u64,
) -> Result<CheckpointRecord, CloudError> {
    retry(|| cloud.seal(key, epoch, &GO_ON))
}

fn open(cloud: &dyn Provider, key: &CheckpointKey) -> Result<Attachment, CloudError> {
    retry(|| cloud.open_checkpoint(key))
}

fn copy(cloud: &dyn Provider, key: &CheckpointKey) -> Result<Attachment, CloudError> {
    retry(|| cloud.copy_checkpoint(key, &GO_ON))
}

fn remove(cloud: &dyn Provider, key: &CheckpointKey) -> Result<(), CloudError> {
    retry(|| cloud.delete_checkpoint(key))
}

fn remove_copy(cloud: &dyn Provider, key: &CheckpointKey) {
    retry(|| cloud.delete_copy(key)).expect("the copy can be deleted");
}

fn checkpoints(cloud: &dyn Provider, migration: u8) -> Vec<CheckpointRecord> {
    let tag = MigrationTag([migration; 16]);
    retry(|| cloud.checkpoints(&tag)).expect("the list can be read")
}
