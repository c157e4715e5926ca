//! The conformance suite, and crashes, damage and refusals of real folders.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use blocks::Root;
use provider::{HolderId, VolumeTag, conformance};
use volumes::{OpenTargetError, TargetVolume};

use super::*;

pub(super) const LENGTH: u64 = 100_000;

pub(super) fn spec() -> VolumeSpec {
    VolumeSpec {
        key: VolumeKey {
            migration: MigrationTag([1; 16]),
            volume: VolumeTag([2; 16]),
            generation: 0,
        },
        length: LENGTH,
    }
}

pub(super) fn to(holder: u8, epoch: u64) -> AttachTo {
    AttachTo {
        holder: HolderId([holder; 32]),
        epoch,
    }
}

fn state(barrier: u64) -> VolumeState {
    VolumeState {
        epoch: 1,
        barrier,
        root: Some(Root([3; 32])),
    }
}

/// A cloud whose folder goes when it does.
pub(super) struct Temporary {
    pub(super) cloud: LocalCloud,
    pub(super) _folder: tempfile::TempDir,
}

impl Temporary {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            cloud: LocalCloud::open(folder.path()).unwrap(),
            _folder: folder,
        }
    }
}

impl Provider for Temporary {
    fn kind(&self) -> &'static str {
        self.cloud.kind()
    }
    fn capabilities(&self) -> Capabilities {
        self.cloud.capabilities()
    }
    fn check(&self, need: &Need) -> Result<Vec<Finding>, CloudError> {
        self.cloud.check(need)
    }
    fn ensure_volume(&self, spec: &VolumeSpec) -> Result<VolumeRecord, CloudError> {
        self.cloud.ensure_volume(spec)
    }
    fn attach(&self, key: &VolumeKey, to: &AttachTo) -> Result<Attachment, CloudError> {
        self.cloud.attach(key, to)
    }
    fn detach(&self, key: &VolumeKey, epoch: u64) -> Result<(), CloudError> {
        self.cloud.detach(key, epoch)
    }
    fn open_read_only(&self, key: &VolumeKey) -> Result<Attachment, CloudError> {
        self.cloud.open_read_only(key)
    }
    fn tag(&self, key: &VolumeKey, state: &VolumeState) -> Result<(), CloudError> {
        self.cloud.tag(key, state)
    }
    fn owned(&self, migration: &MigrationTag) -> Result<Vec<VolumeRecord>, CloudError> {
        self.cloud.owned(migration)
    }
    fn delete(&self, key: &VolumeKey) -> Result<(), CloudError> {
        self.cloud.delete(key)
    }
    fn seal(
        &self,
        key: &CheckpointKey,
        epoch: u64,
        stop: &AtomicBool,
    ) -> Result<CheckpointRecord, CloudError> {
        self.cloud.seal(key, epoch, stop)
    }
    fn checkpoints(&self, migration: &MigrationTag) -> Result<Vec<CheckpointRecord>, CloudError> {
        self.cloud.checkpoints(migration)
    }
    fn open_checkpoint(&self, key: &CheckpointKey) -> Result<Attachment, CloudError> {
        self.cloud.open_checkpoint(key)
    }
    fn copy_checkpoint(
        &self,
        key: &CheckpointKey,
        stop: &AtomicBool,
    ) -> Result<Attachment, CloudError> {
        self.cloud.copy_checkpoint(key, stop)
    }
    fn delete_copy(&self, key: &CheckpointKey) -> Result<(), CloudError> {
        self.cloud.delete_copy(key)
    }
    fn delete_checkpoint(&self, key: &CheckpointKey) -> Result<(), CloudError> {
        self.cloud.delete_checkpoint(key)
    }
}

pub(super) fn names(cloud: &LocalCloud) -> Vec<String> {
    cloud.folder.names("", "").unwrap()
}

#[test]
fn the_local_cloud_conforms() {
    conformance::suite(|| Box::new(Temporary::new()));
}

#[test]
fn a_volume_is_a_sparse_file_with_a_readable_name_that_a_target_can_open() {
    let Temporary { cloud, _folder } = Temporary::new();
    let spec = VolumeSpec {
        length: 1 << 40,
        ..spec()
    };
    cloud.ensure_volume(&spec).unwrap();
    let attached = cloud.attach(&spec.key, &to(1, 1)).unwrap();
    let path = cloud.folder().join("01010101-02020202-0.raw");
    assert_eq!(attached, Attachment::Path(path.clone()));
    let first = TargetVolume::open(&path, 1 << 40).unwrap();
    // A later epoch may attach, and yet not write while the first one does.
    cloud.attach(&spec.key, &to(2, 2)).unwrap();
    let second = TargetVolume::open(&path, 1 << 40).unwrap_err();
    assert!(matches!(second, OpenTargetError::Busy { .. }));
    drop(first);
}

#[test]
fn what_is_opened_to_be_read_is_what_its_holder_wrote() {
    let Temporary { cloud, _folder } = Temporary::new();
    cloud.ensure_volume(&spec()).unwrap();
    let Attachment::Path(path) = cloud.attach(&spec().key, &to(1, 1)).unwrap() else {
        panic!("a local volume is a file");
    };
    let held = TargetVolume::open(&path, LENGTH).unwrap();
    held.write_at(0, &[7; 100]).unwrap();
    held.sync().unwrap();
    cloud.detach(&spec().key, 2).unwrap();
    let Attachment::Path(path) = cloud.open_read_only(&spec().key).unwrap() else {
        panic!("a local volume is a file");
    };
    let read = fs::read(path).unwrap();
    assert_eq!(read.len() as u64, LENGTH);
    assert!(read[..100] == [7; 100] && read[100..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_was_done_is_there_when_the_folder_is_opened_again() {
    let Temporary { cloud, _folder } = Temporary::new();
    cloud.ensure_volume(&spec()).unwrap();
    cloud.attach(&spec().key, &to(1, 1)).unwrap();
    cloud.tag(&spec().key, &state(7)).unwrap();
    let again = LocalCloud::open(cloud.folder()).unwrap();
    let expected = VolumeRecord {
        attached: Some(to(1, 1)),
        state: Some(state(7)),
        ..VolumeRecord::new(&spec())
    };
    assert_eq!(again.owned(&spec().key.migration).unwrap(), [expected]);
}

/// Kills `call` after every possible number of changes on disk, and hands the
/// folder it left to `check`, opened again.
pub(super) fn kill_everywhere(
    prepare: impl Fn(&LocalCloud),
    call: impl Fn(&LocalCloud) -> Result<(), CloudError>,
    check: impl Fn(&LocalCloud),
) {
    for steps in 0.. {
        let Temporary { cloud, _folder } = Temporary::new();
        prepare(&cloud);
        cloud.folder.steps_left.store(steps, Ordering::Relaxed);
        let result = call(&cloud);
        let again = LocalCloud::open(cloud.folder()).unwrap();
        drop(cloud);
        check(&again);
        match result {
            Ok(()) => {
                assert!(steps > 3, "it was killed in the middle before");
                return;
            }
            Err(error) => assert!(matches!(error, CloudError::Unknown { .. }), "{error}"),
        }
    }
}

pub(super) fn ensure(cloud: &LocalCloud) {
    cloud.ensure_volume(&spec()).unwrap();
}

pub(super) fn attached(cloud: &LocalCloud) {
    ensure(cloud);
    cloud.attach(&spec().key, &to(1, 1)).unwrap();
    cloud.tag(&spec().key, &state(1)).unwrap();
}

#[test]
fn making_a_volume_survives_a_kill_anywhere() {
    kill_everywhere(
        |_| (),
        |cloud| cloud.ensure_volume(&spec()).map(drop),
        |cloud| {
            let made = cloud.ensure_volume(&spec()).unwrap();
            assert_eq!(made, VolumeRecord::new(&spec()));
            cloud.attach(&spec().key, &to(1, 1)).unwrap();
        },
    );
}

#[test]
fn a_volume_that_was_never_finished_can_be_deleted() {
    kill_everywhere(
        |_| (),
        |cloud| cloud.ensure_volume(&spec()).map(drop),
        |cloud| {
            for record in cloud.owned(&spec().key.migration).unwrap() {
                cloud.delete(&record.key).unwrap();
            }
            assert!(!names(cloud).iter().any(|name| name.ends_with(".raw")));
            ensure(cloud);
        },
    );
}

#[test]
fn attaching_and_tagging_survive_a_kill_anywhere() {
    kill_everywhere(
        ensure,
        |cloud| cloud.attach(&spec().key, &to(1, 1)).map(drop),
        |cloud| {
            let record = cloud.ensure_volume(&spec()).unwrap();
            assert!(record.attached.is_none() || record.attached == Some(to(1, 1)));
            cloud.attach(&spec().key, &to(1, 1)).unwrap();
        },
    );
    kill_everywhere(
        attached,
        |cloud| cloud.tag(&spec().key, &state(2)),
        |cloud| {
            let record = cloud.ensure_volume(&spec()).unwrap();
            assert!([Some(state(1)), Some(state(2))].contains(&record.state));
            cloud.tag(&spec().key, &state(2)).unwrap();
        },
    );
    kill_everywhere(
        attached,
        |cloud| cloud.detach(&spec().key, 2),
        |cloud| {
            let record = cloud.ensure_volume(&spec()).unwrap();
            assert_eq!(record.state, Some(state(1)));
            cloud.detach(&spec().key, 2).unwrap();
            cloud.attach(&spec().key, &to(1, 1)).unwrap_err();
        },
    );
}

#[test]
fn deleting_survives_a_kill_anywhere_and_nothing_old_comes_back() {
    kill_everywhere(
        attached,
        |cloud| cloud.delete(&spec().key),
        |cloud| {
            for record in cloud.owned(&spec().key.migration).unwrap() {
                cloud.delete(&record.key).unwrap();
            }
            assert_eq!(names(cloud), ["dunlin-cloud.json"]);
        },
    );
    kill_everywhere(
        attached,
        |cloud| cloud.delete(&spec().key),
        |cloud| {
            let path = cloud.folder().join(raw_name(&spec().key));
            let record = cloud.ensure_volume(&spec()).unwrap();
            // Killed before it began, the old volume is still whole.
            assert!(record == VolumeRecord::new(&spec()) || record.state == Some(state(1)));
            assert_eq!(path.metadata().unwrap().len(), LENGTH);
        },
    );
}

#[test]
fn a_folder_that_cannot_be_a_cloud_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = LocalCloud::open(&folder.path().join("none")).err().unwrap();
    assert!(matches!(missing, OpenCloudError::Missing { .. }));
    let file = folder.path().join("file");
    fs::write(&file, []).unwrap();
    let refused = LocalCloud::open(&file).err().unwrap();
    assert!(matches!(refused, OpenCloudError::NotAFolder { .. }));
}

#[test]
fn a_folder_we_may_not_write_in_is_refused() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may write everywhere");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let read_only = fs::Permissions::from_mode(0o500);
    fs::set_permissions(folder.path(), read_only).unwrap();
    let refused = LocalCloud::open(folder.path()).err().unwrap();
    assert!(matches!(refused, OpenCloudError::NotWritable { .. }));
}

#[test]
fn a_folder_of_another_host_or_a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    Folder::open_on(folder.path(), "here").unwrap();
    Folder::open_on(folder.path(), "here").unwrap();
    let there = Folder::open_on(folder.path(), "there").err().unwrap();
    assert!(matches!(&there, OpenCloudError::OnAnotherHost { owner, .. } if owner == "here"));
    let marker = folder.path().join("dunlin-cloud.json");
    fs::write(&marker, r#"{"format":4}"#).unwrap();
    let newer = Folder::open_on(folder.path(), "here").err().unwrap();
    assert!(matches!(
        newer,
        OpenCloudError::NewerVersion { have: 4, .. }
    ));
    fs::write(&marker, "{").unwrap();
    let damaged = Folder::open_on(folder.path(), "here").err().unwrap();
    assert!(matches!(damaged, OpenCloudError::Corrupt { .. }));
}

#[test]
fn a_folder_that_goes_away_is_not_made_anew() {
    let Temporary { cloud, _folder } = Temporary::new();
    cloud.ensure_volume(&spec()).unwrap();
    let aside = cloud.folder().with_extension("aside");
    fs::rename(cloud.folder(), &aside).unwrap();
    // As the empty folder below a disk that was unmounted.
    fs::create_dir(cloud.folder()).unwrap();
    let gone = cloud.ensure_volume(&spec()).unwrap_err();
    assert!(matches!(gone, CloudError::Unavailable { .. }), "{gone}");
    fs::remove_dir(cloud.folder()).unwrap();
    let gone = cloud.delete(&spec().key).unwrap_err();
    assert!(matches!(gone, CloudError::Unavailable { .. }), "{gone}");
    fs::rename(&aside, cloud.folder()).unwrap();
    cloud.attach(&spec().key, &to(1, 1)).unwrap();
}

#[test]
fn damage_is_named_and_never_repaired_by_guessing() {
    let Temporary { cloud, _folder } = Temporary::new();
    let (raw, sidecar) = (raw_name(&spec().key), sidecar_name(&spec().key));
    let (raw, sidecar) = (cloud.folder().join(raw), cloud.folder().join(sidecar));
    let damaged = |cloud: &LocalCloud| {
        let error = cloud.ensure_volume(&spec()).unwrap_err();
        assert!(matches!(error, CloudError::Damaged { .. }), "{error}");
        error.to_string()
    };
    fs::write(&raw, "somebody's own").unwrap();
    assert!(damaged(&cloud).contains("has no record"));
    assert_eq!(fs::read(&raw).unwrap(), b"somebody's own");
    fs::remove_file(&raw).unwrap();

    ensure(&cloud);
    let good = fs::read(&sidecar).unwrap();
    fs::write(&raw, "short").unwrap();
    assert!(damaged(&cloud).contains("has 5 bytes, not 100000"));
    fs::remove_file(&raw).unwrap();
    assert!(damaged(&cloud).contains("is missing"));
    fs::write(&raw, vec![0; LENGTH as usize]).unwrap();
    for bad in [&good[..good.len() / 2], b"", &[b' '; 100_000]] {
        fs::write(&sidecar, bad).unwrap();
        let refused = cloud.owned(&spec().key.migration).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains(&spec().key.migration.to_string())
        );
        cloud.delete(&spec().key).unwrap_err();
        assert!(raw.exists(), "nothing is deleted on a guess");
    }
    fs::write(&sidecar, good).unwrap();
    ensure(&cloud);
}

#[test]
fn two_keys_with_one_short_name_are_not_confused() {
    let Temporary { cloud, _folder } = Temporary::new();
    ensure(&cloud);
    let mut other = spec();
    other.key.volume.0[15] = 9;
    let taken = cloud.ensure_volume(&other).unwrap_err();
    assert!(matches!(taken, CloudError::NameTaken { by, .. } if by == spec().key));
    let missing = cloud.attach(&other.key, &to(1, 1)).unwrap_err();
    assert_eq!(missing, CloudError::NotFound { key: other.key });
    cloud.delete(&other.key).unwrap();
    assert_eq!(cloud.owned(&spec().key.migration).unwrap().len(), 1);
}

#[test]
fn a_check_tells_what_is_in_the_way() {
    let Temporary { cloud, _folder } = Temporary::new();
    ensure(&cloud);
    let longer = VolumeSpec {
        length: LENGTH + 1,
        ..spec()
    };
    let find = |spec: VolumeSpec| {
        let volumes = vec![spec];
        cloud.check(&Need { volumes }).unwrap()
    };
    assert_eq!(find(longer)[0].severity, Severity::Blocker);
    let mut huge = spec();
    huge.key.generation = 1;
    huge.length = blocks::MAX_LENGTH;
    let findings = find(huge);
    assert!(findings.iter().any(|finding| finding.what.contains("free")));
}
