//! What every provider has to do, as checks that each provider's own tests
//! run. Not a test of any cloud's insides.
//!
//! The checks repeat calls that fail for a reason that passes by itself, so
//! the suite runs on a flaky cloud as well and shows that results which are
//! not known converge. A broken rule is a panic that names it.

mod checkpoints;

use blocks::Root;

use crate::{
    AttachTo, Attachment, AttachmentKind, CloudError, HolderId, MigrationTag, Need, Provider,
    VolumeKey, VolumeRecord, VolumeSpec, VolumeState, VolumeTag,
};

/// Repetitions of one call before a check gives up: a cloud that fails every
/// other call gets past this once in 10^19 times.
const MAX_ATTEMPTS: u32 = 64;

/// The length of the volumes made, in bytes: not a whole number of blocks.
const LENGTH: u64 = 3 * 65_536 + 512;

/// Runs every check, each on a fresh and empty cloud from `make`.
pub fn suite(make: impl Fn() -> Box<dyn Provider>) {
    making_a_volume_twice_makes_one(&*make());
    another_length_under_the_same_key_conflicts(&*make());
    impossible_lengths_are_refused(&*make());
    an_attachment_is_exclusive_within_its_epoch(&*make());
    a_lower_epoch_is_fenced(&*make());
    a_detached_volume_is_kept_and_its_epochs_are_over(&*make());
    reading_takes_a_volume_from_nobody(&*make());
    a_state_is_kept_and_never_goes_back(&*make());
    owned_lists_exactly_its_own(&*make());
    generations_are_volumes_of_their_own(&*make());
    deleting_is_idempotent_and_frees_the_key(&*make());
    a_check_changes_nothing(&*make());
    checkpoints::suite(make);
}

/// Making is idempotent, and making again tells what is already known.
pub fn making_a_volume_twice_makes_one(cloud: &dyn Provider) {
    let spec = spec(1, 1, 0);
    let made = ensure(cloud, &spec);
    assert_eq!(made, VolumeRecord::new(&spec), "a new volume is blank");
    assert_eq!(ensure(cloud, &spec), made, "making again changes nothing");
    assert_eq!(owned(cloud, 1), [made], "one volume was made");

    let to = holder(1, 5);
    attach(cloud, &spec.key, &to).expect("a free volume can be attached");
    tag(cloud, &spec.key, &state(5, 1, 1)).expect("its holder can tag it");
    let known = ensure(cloud, &spec);
    assert_eq!(known.attached, Some(to), "making again keeps the holder");
    assert_eq!(known.state, Some(state(5, 1, 1)), "and keeps the state");
}

/// A key never silently stands for two volumes.
pub fn another_length_under_the_same_key_conflicts(cloud: &dyn Provider) {
    let first = spec(1, 1, 0);
    ensure(cloud, &first);
    let other = VolumeSpec {
        length: LENGTH + 512,
        ..first.clone()
    };
    let refused = retry(|| cloud.ensure_volume(&other)).expect_err("it conflicts");
    let expected = CloudError::Conflict {
        key: first.key,
        have: LENGTH,
        asked: LENGTH + 512,
    };
    assert_eq!(refused, expected);
    assert_eq!(owned(cloud, 1), [VolumeRecord::new(&first)]);
}

/// A volume has at least one byte and at most what the capabilities say.
pub fn impossible_lengths_are_refused(cloud: &dyn Provider) {
    let max = cloud.capabilities().max_volume_length;
    for length in [Some(0), max.checked_add(1)].into_iter().flatten() {
        let spec = VolumeSpec {
            length,
            ..spec(1, 1, 0)
        };
        let refused = retry(|| cloud.ensure_volume(&spec)).expect_err("no such length");
        assert!(
            matches!(refused, CloudError::BadLength { asked, .. } if asked == length),
            "{refused}"
        );
    }
    assert_eq!(owned(cloud, 1), [], "nothing was made");
}

/// One holder in one epoch; the same holder may come back.
pub fn an_attachment_is_exclusive_within_its_epoch(cloud: &dyn Provider) {
    let spec = spec(1, 1, 0);
    let missing = attach(cloud, &spec.key, &holder(1, 1)).expect_err("it is not there");
    assert_eq!(missing, CloudError::NotFound { key: spec.key });
    ensure(cloud, &spec);
    let first = attach(cloud, &spec.key, &holder(1, 3)).expect("a free volume");
    match cloud.capabilities().attachment {
        AttachmentKind::Path => assert!(matches!(first, Attachment::Path(_))),
        AttachmentKind::Memory => assert_eq!(first, Attachment::Memory(spec.key)),
    }
    let again = attach(cloud, &spec.key, &holder(1, 3)).expect("the same holder");
    assert_eq!(again, first, "attaching again gives the same");
    let other = attach(cloud, &spec.key, &holder(2, 3)).expect_err("it is held");
    let expected = CloudError::AttachedElsewhere {
        key: spec.key,
        holder: HolderId([1; 32]),
        epoch: 3,
    };
    assert_eq!(other, expected);
}

/// A later epoch takes the volume, and the earlier one stays out for good.
pub fn a_lower_epoch_is_fenced(cloud: &dyn Provider) {
    let spec = spec(1, 1, 0);
    ensure(cloud, &spec);
    attach(cloud, &spec.key, &holder(1, 3)).expect("a free volume");
    attach(cloud, &spec.key, &holder(2, 4)).expect("a later epoch");
    let fenced = CloudError::Fenced {
        key: spec.key,
        have: 4,
        asked: 3,
    };
    for number in [1, 2] {
        let refused = attach(cloud, &spec.key, &holder(number, 3));
        assert_eq!(refused.expect_err("epoch 3 is over"), fenced);
    }
    let refused = tag(cloud, &spec.key, &state(3, 9, 9));
    assert_eq!(refused.expect_err("epoch 3 cannot tag"), fenced);
    let early = tag(cloud, &spec.key, &state(5, 1, 1));
    let expected = CloudError::NotAttached {
        key: spec.key,
        epoch: 5,
    };
    assert_eq!(early.expect_err("nobody attached in epoch 5"), expected);
    attach(cloud, &spec.key, &holder(2, 6)).expect("its holder may move on");
    let record = ensure(cloud, &spec);
    assert_eq!(record.attached, Some(holder(2, 6)));
    assert_eq!(record.state, None, "no refused state was kept");
}

/// What is detached keeps its state; who held it stays out, and a later epoch may
/// have it. Nobody takes a volume from an epoch that is not over.
pub fn a_detached_volume_is_kept_and_its_epochs_are_over(cloud: &dyn Provider) {
    let spec = spec(1, 1, 0);
    let missing = detach(cloud, &spec.key, 2).expect_err("it is not there");
    assert_eq!(missing, CloudError::NotFound { key: spec.key });
    ensure(cloud, &spec);
    attach(cloud, &spec.key, &holder(1, 3)).expect("a free volume");
    tag(cloud, &spec.key, &state(3, 1, 1)).expect("its holder can tag it");
    let early = detach(cloud, &spec.key, 3).expect_err("epoch 3 has it");
    let fenced = |have, asked| {
        let key = spec.key;
        CloudError::Fenced { key, have, asked }
    };
    assert_eq!(early, fenced(3, 3));
    assert_eq!(ensure(cloud, &spec).attached, Some(holder(1, 3)));
    for again in 0..2 {
        detach(cloud, &spec.key, 4).unwrap_or_else(|error| panic!("{again}: {error}"));
        let record = ensure(cloud, &spec);
        assert_eq!(record.attached, None, "nobody holds it");
        assert_eq!(record.state, Some(state(3, 1, 1)), "its state is kept");
    }
    detach(cloud, &spec.key, 2).expect("a lower epoch is over already");
    for number in [1, 2] {
        let refused = attach(cloud, &spec.key, &holder(number, 3));
        assert_eq!(refused.expect_err("epoch 3 is over"), fenced(4, 3));
    }
    let refused = tag(cloud, &spec.key, &state(3, 9, 9));
    assert_eq!(refused.expect_err("epoch 3 cannot tag"), fenced(4, 3));
    attach(cloud, &spec.key, &holder(2, 4)).expect("the later epoch");
    assert_eq!(ensure(cloud, &spec).attached, Some(holder(2, 4)));
}

/// Reading needs no attachment, and neither takes nor gives one.
pub fn reading_takes_a_volume_from_nobody(cloud: &dyn Provider) {
    let spec = spec(1, 1, 0);
    let missing = read(cloud, &spec.key).expect_err("it is not there");
    assert_eq!(missing, CloudError::NotFound { key: spec.key });
    let made = ensure(cloud, &spec);
    let free = read(cloud, &spec.key).expect("a free volume can be read");
    match cloud.capabilities().attachment {
        AttachmentKind::Path => assert!(matches!(free, Attachment::Path(_))),
        AttachmentKind::Memory => assert_eq!(free, Attachment::Memory(spec.key)),
    }
    assert_eq!(ensure(cloud, &spec), made, "reading attaches nobody");
    attach(cloud, &spec.key, &holder(1, 3)).expect("it is still free");
    read(cloud, &spec.key).expect("a held volume can be read");
    assert_eq!(ensure(cloud, &spec).attached, Some(holder(1, 3)));
    delete(cloud, &spec.key);
    let missing = read(cloud, &spec.key).expect_err("it is gone");
    assert_eq!(missing, CloudError::NotFound { key: spec.key });
}

/// The state on the volume is the newest one of the newest epoch.
pub fn a_state_is_kept_and_never_goes_back(cloud: &dyn Provider) {
    let spec = spec(1, 1, 0);
    let missing = tag(cloud, &spec.key, &state(1, 1, 1)).expect_err("it is not there");
    assert_eq!(missing, CloudError::NotFound { key: spec.key });
    ensure(cloud, &spec);
    tag(cloud, &spec.key, &state(1, 1, 1)).expect_err("nobody is attached");
    attach(cloud, &spec.key, &holder(1, 1)).expect("a free volume");
    for barrier in [1, 2, 2, 7] {
        tag(cloud, &spec.key, &rootless(1, barrier)).expect("barriers rise");
    }
    for _ in 0..2 {
        tag(cloud, &spec.key, &state(1, 7, 1)).expect("the root becomes known");
    }
    let forgotten = tag(cloud, &spec.key, &rootless(1, 7));
    forgotten.expect_err("a root is not forgotten");
    for (barrier, root) in [(6, 1), (7, 2)] {
        let stale = CloudError::StaleBarrier {
            key: spec.key,
            have: 7,
            asked: barrier,
        };
        let refused = tag(cloud, &spec.key, &state(1, barrier, root));
        assert_eq!(refused.expect_err("it is not later"), stale);
    }
    assert_eq!(owned(cloud, 1)[0].state, Some(state(1, 7, 1)));
    attach(cloud, &spec.key, &holder(2, 2)).expect("a later epoch");
    let kept = owned(cloud, 1)[0].state;
    assert_eq!(kept, Some(state(1, 7, 1)), "the state outlives its epoch");
    tag(cloud, &spec.key, &state(2, 1, 3)).expect("a new epoch counts anew");
    assert_eq!(owned(cloud, 1)[0].state, Some(state(2, 1, 3)));
}

/// Cleaning up one migration finds all of its volumes and none of others.
pub fn owned_lists_exactly_its_own(cloud: &dyn Provider) {
    assert_eq!(owned(cloud, 1), [], "a fresh cloud holds nothing");
    let specs = [spec(1, 1, 0), spec(1, 2, 0), spec(2, 1, 0)];
    for spec in specs.iter().rev() {
        ensure(cloud, spec);
    }
    let expected = [VolumeRecord::new(&specs[0]), VolumeRecord::new(&specs[1])];
    assert_eq!(owned(cloud, 1), expected, "in the order of the keys");
    assert_eq!(owned(cloud, 2), [VolumeRecord::new(&specs[2])]);
    assert_eq!(owned(cloud, 3), []);
}

/// A new generation is a new volume, untouched by the old one.
pub fn generations_are_volumes_of_their_own(cloud: &dyn Provider) {
    let (old, new) = (spec(1, 1, 0), spec(1, 1, 1));
    ensure(cloud, &old);
    let first = attach(cloud, &old.key, &holder(1, 8)).expect("a free volume");
    assert_eq!(ensure(cloud, &new), VolumeRecord::new(&new));
    let second = attach(cloud, &new.key, &holder(2, 1)).expect("a free volume");
    assert_ne!(first, second, "they are different places");
    delete(cloud, &old.key);
    assert_eq!(owned(cloud, 1).len(), 1, "the new one stays");
}

/// Deleting may be repeated, and what is made later under the key is blank.
pub fn deleting_is_idempotent_and_frees_the_key(cloud: &dyn Provider) {
    let spec = spec(1, 1, 0);
    delete(cloud, &spec.key);
    ensure(cloud, &spec);
    attach(cloud, &spec.key, &holder(1, 9)).expect("a free volume");
    delete(cloud, &spec.key);
    delete(cloud, &spec.key);
    assert_eq!(owned(cloud, 1), []);
    let longer = VolumeSpec {
        length: LENGTH * 2,
        ..spec
    };
    assert_eq!(ensure(cloud, &longer), VolumeRecord::new(&longer));
    attach(cloud, &spec.key, &holder(2, 1)).expect("nothing is left of the old one");
}

/// A preflight check makes no volume, and every finding says what to do.
pub fn a_check_changes_nothing(cloud: &dyn Provider) {
    let volumes = vec![spec(1, 1, 0), spec(1, 2, 0)];
    let findings = retry(|| {
        cloud.check(&Need {
            volumes: volumes.clone(),
        })
    });
    for finding in findings.expect("the check itself works") {
        assert!(!finding.what.is_empty() && !finding.remedy.is_empty());
    }
    assert_eq!(owned(cloud, 1), []);
}

fn retry<T>(mut call: impl FnMut() -> Result<T, CloudError>) -> Result<T, CloudError> {
    let mut last = call();
    for _ in 1..MAX_ATTEMPTS {
        match last {
            Err(error) if error.is_transient() => last = call(),
            settled => return settled,
        }
    }
    last
}

fn ensure(cloud: &dyn Provider, spec: &VolumeSpec) -> VolumeRecord {
    retry(|| cloud.ensure_volume(spec)).expect("the volume can be made")
}

fn attach(cloud: &dyn Provider, key: &VolumeKey, to: &AttachTo) -> Result<Attachment, CloudError> {
    retry(|| cloud.attach(key, to))
}

fn detach(cloud: &dyn Provider, key: &VolumeKey, epoch: u64) -> Result<(), CloudError> {
    retry(|| cloud.detach(key, epoch))
}

fn read(cloud: &dyn Provider, key: &VolumeKey) -> Result<Attachment, CloudError> {
    retry(|| cloud.open_read_only(key))
}

fn tag(cloud: &dyn Provider, key: &VolumeKey, state: &VolumeState) -> Result<(), CloudError> {
    retry(|| cloud.tag(key, state))
}

fn owned(cloud: &dyn Provider, migration: u8) -> Vec<VolumeRecord> {
    let tag = MigrationTag([migration; 16]);
    retry(|| cloud.owned(&tag)).expect("the list can be read")
}

fn delete(cloud: &dyn Provider, key: &VolumeKey) {
    retry(|| cloud.delete(key)).expect("the volume can be deleted");
}

fn spec(migration: u8, volume: u8, generation: u64) -> VolumeSpec {
    VolumeSpec {
        key: VolumeKey {
            migration: MigrationTag([migration; 16]),
            volume: VolumeTag([volume; 16]),
            generation,
        },
        length: LENGTH,
    }
}

fn holder(number: u8, epoch: u64) -> AttachTo {
    AttachTo {
        holder: HolderId([number; 32]),
        epoch,
    }
}

fn rootless(epoch: u64, barrier: u64) -> VolumeState {
    VolumeState {
        root: None,
        ..state(epoch, barrier, 0)
    }
}

fn state(epoch: u64, barrier: u64, root: u8) -> VolumeState {
    VolumeState {
        epoch,
        barrier,
        root: Some(Root([root; 32])),
    }
}
