//! A cloud in memory that fails on demand, for simulations and tests.
//!
//! It keeps records only: the bytes of its volumes belong to whoever simulates
//! the disks. Faults come from a schedule that is handed in, so the same
//! schedule and the same calls give the same results.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::{
    AttachTo, Attachment, AttachmentKind, Capabilities, CheckpointKey, CheckpointRecord,
    CloudError, Fencing, Finding, MigrationTag, Need, Provider, Severity, Subject, VolumeKey,
    VolumeRecord, VolumeSpec, VolumeState,
};

/// The longest volume of the fake, in bytes: 64 TiB.
const MAX_VOLUME_LENGTH: u64 = 1 << 46;

/// What can go wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The cloud does not answer and does nothing.
    FailBefore,
    /// The call is carried out, but its result is lost.
    FailAfter,
    /// Too many calls; nothing is done.
    Throttle,
    /// The cloud is full for this call, if it is one that needs space.
    Full,
}

/// Which calls fail, and how.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    scripted: BTreeMap<u64, Fault>,
    next: VecDeque<Fault>,
    seeded: Option<Seeded>,
}

#[derive(Clone, Debug)]
struct Seeded {
    state: u64,
    per_mille: u64,
}

/// A cloud in memory. Clones are views of the same cloud.
#[derive(Clone)]
pub struct FakeCloud {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    volumes: BTreeMap<VolumeKey, VolumeRecord>,
    /// Of every volume there ever was.
    made: BTreeSet<VolumeKey>,
    checkpoints: BTreeMap<CheckpointKey, CheckpointRecord>,
    capacity: u64,
    calls: u64,
    faults: Faults,
}

impl Faults {
    /// Nothing fails.
    pub fn none() -> Self {
        Self::default()
    }

    /// The calls with these numbers fail; the first call is number 0.
    pub fn scripted(faults: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        Self {
            scripted: faults.into_iter().collect(),
            ..Self::default()
        }
    }

    /// About `per_mille` of a thousand calls fail, which ones and how being
    /// decided by the seed. A full cloud is not among these faults: it does
    /// not pass by itself.
    pub fn seeded(seed: u64, per_mille: u64) -> Self {
        Self {
            seeded: Some(Seeded {
                state: seed,
                per_mille,
            }),
            ..Self::default()
        }
    }

    fn of_call(&mut self, call: u64) -> Option<Fault> {
        let by_seed = self.seeded.as_mut().and_then(Seeded::draw);
        let scripted = self.scripted.remove(&call);
        scripted.or_else(|| self.next.pop_front()).or(by_seed)
    }
}

impl Seeded {
    fn draw(&mut self) -> Option<Fault> {
        let (fails, which) = (self.number() % 1000 < self.per_mille, self.number());
        fails.then_some(match which % 3 {
            0 => Fault::FailBefore,
            1 => Fault::FailAfter,
            _ => Fault::Throttle,
        })
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
    /// Generators, 2014).
    fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl FakeCloud {
    /// An empty cloud with room for `capacity` bytes of volumes.
    pub fn new(capacity: u64, faults: Faults) -> Self {
        let inner = Inner {
            volumes: BTreeMap::new(),
            made: BTreeSet::new(),
            checkpoints: BTreeMap::new(),
            capacity,
            calls: 0,
            faults,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Makes the next call that has no other fault fail like this. Several
    /// faults wait in line.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.next.push_back(fault);
    }

    /// Ends all faults that are still to come.
    pub fn heal(&self) {
        self.lock().faults = Faults::none();
    }

    /// How many calls were made so far, failed ones included.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// All volumes, as they truly are: for the checks of a simulation.
    pub fn volumes(&self) -> Vec<VolumeRecord> {
        self.lock().volumes.values().cloned().collect()
    }

    /// The keys of all volumes that there ever were, those removed since included.
    pub fn made(&self) -> Vec<VolumeKey> {
        self.lock().made.iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one insert or remove, so that a panic elsewhere
        // leaves nothing half done.
        self.inner
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn call<T>(
        &self,
        subject: impl Into<Subject>,
        needs_space: bool,
        carry_out: impl FnOnce(&mut Inner) -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        let mut inner = self.lock();
        let call = inner.calls;
        inner.calls += 1;
        let subject = subject.into();
        match inner.faults.of_call(call) {
            Some(Fault::FailBefore) => Err(CloudError::Unavailable {
                subject,
                why: "no answer".into(),
            }),
            Some(Fault::Throttle) => Err(CloudError::Throttled { subject }),
            Some(Fault::Full) if needs_space => Err(CloudError::NoSpace { subject }),
            Some(Fault::FailAfter) => carry_out(&mut inner).and_then(|_| {
                Err(CloudError::Unknown {
                    subject,
                    why: "the answer was lost".into(),
                })
            }),
            Some(Fault::Full) | None => carry_out(&mut inner),
        }
    }
}

impl Inner {
    fn used(&self) -> u64 {
        let volumes = self.volumes.values().map(|record| record.length);
        let sealed = self.checkpoints.values();
        let sealed = sealed.map(|record| record.length * (1 + u64::from(record.has_copy)));
        volumes.chain(sealed).sum()
    }

    fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.used())
    }

    fn admit_copy(&self, key: &CheckpointKey, need: u64) -> Result<(), CloudError> {
        let free = self.free();
        match need <= free {
            true => Ok(()),
            false => Err(CloudError::NoRoom {
                subject: key.into(),
                need,
                free,
            }),
        }
    }

    fn checkpoint(&mut self, key: &CheckpointKey) -> Result<&mut CheckpointRecord, CloudError> {
        let found = self.checkpoints.get_mut(key);
        found.ok_or_else(|| CloudError::NoCheckpoint { key: key.clone() })
    }

    fn record(&mut self, key: &VolumeKey) -> Result<&mut VolumeRecord, CloudError> {
        self.volumes
            .get_mut(key)
            .ok_or(CloudError::NotFound { key: *key })
    }
}

impl Provider for FakeCloud {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            max_volume_length: MAX_VOLUME_LENGTH,
            thin: false,
            attachment: AttachmentKind::Memory,
            fencing: Fencing::Recorded,
        }
    }

    fn check(&self, need: &Need) -> Result<Vec<Finding>, CloudError> {
        self.call(Subject::Place("the fake cloud".into()), false, |inner| {
            let missing = need.volumes.iter();
            let asked = missing
                .filter(|spec| !inner.volumes.contains_key(&spec.key))
                .fold(0, |sum: u64, spec| sum.saturating_add(spec.length));
            let free = inner.free();
            if asked <= free {
                return Ok(Vec::new());
            }
            Ok(vec![Finding {
                severity: Severity::Blocker,
                what: format!("{asked} bytes are needed and {free} are free"),
                remedy: "give the fake cloud a larger capacity".into(),
            }])
        })
    }

    fn ensure_volume(&self, spec: &VolumeSpec) -> Result<VolumeRecord, CloudError> {
        self.call(spec.key, true, |inner| {
            if let Some(record) = inner.volumes.get(&spec.key) {
                record.admit_spec(spec)?;
                return Ok(record.clone());
            }
            spec.check_length(MAX_VOLUME_LENGTH)?;
            if spec.length > inner.free() {
                return Err(CloudError::NoSpace {
                    subject: spec.key.into(),
                });
            }
            let record = VolumeRecord::new(spec);
            inner.made.insert(spec.key);
            inner.volumes.insert(spec.key, record.clone());
            Ok(record)
        })
    }

    fn attach(&self, key: &VolumeKey, to: &AttachTo) -> Result<Attachment, CloudError> {
        self.call(*key, false, |inner| {
            inner.record(key)?.attach(to)?;
            Ok(Attachment::Memory(*key))
        })
    }

    fn detach(&self, key: &VolumeKey, epoch: u64) -> Result<(), CloudError> {
        self.call(*key, false, |inner| inner.record(key)?.detach(epoch))
    }

    fn open_read_only(&self, key: &VolumeKey) -> Result<Attachment, CloudError> {
        self.call(*key, false, |inner| {
            inner.record(key)?;
            Ok(Attachment::Memory(*key))
        })
    }

    fn tag(&self, key: &VolumeKey, state: &VolumeState) -> Result<(), CloudError> {
        self.call(*key, false, |inner| inner.record(key)?.tag(state))
    }

    fn owned(&self, migration: &MigrationTag) -> Result<Vec<VolumeRecord>, CloudError> {
        self.call(Subject::Migration(*migration), false, |inner| {
            let all = inner.volumes.values();
            Ok(all
                .filter(|record| record.key.migration == *migration)
                .cloned()
                .collect())
        })
    }

    fn delete(&self, key: &VolumeKey) -> Result<(), CloudError> {
        self.call(*key, false, |inner| {
            inner.volumes.remove(key);
            Ok(())
        })
    }

    fn seal(
        &self,
        key: &CheckpointKey,
        epoch: u64,
        stop: &AtomicBool,
    ) -> Result<CheckpointRecord, CloudError> {
        self.call(key, true, |inner| {
            if let Some(record) = inner.checkpoints.get(key) {
                record.admit_again(epoch)?;
                return Ok(record.clone());
            }
            let volume = inner.record(&key.volume)?;
            volume.admit_seal(epoch)?;
            let mut record = CheckpointRecord::new(volume, key.name.clone(), epoch);
            admit_going_on(key, stop)?;
            inner.admit_copy(key, record.length)?;
            record.sealed = true;
            inner.checkpoints.insert(key.clone(), record.clone());
            Ok(record)
        })
    }

    fn checkpoints(&self, migration: &MigrationTag) -> Result<Vec<CheckpointRecord>, CloudError> {
        self.call(Subject::Migration(*migration), false, |inner| {
            let all = inner.checkpoints.values();
            Ok(all
                .filter(|record| record.key.volume.migration == *migration)
                .cloned()
                .collect())
        })
    }

    fn open_checkpoint(&self, key: &CheckpointKey) -> Result<Attachment, CloudError> {
        self.call(key, false, |inner| {
            inner.checkpoint(key)?.admit_reading()?;
            Ok(Attachment::MemoryCheckpoint(key.clone()))
        })
    }

    fn copy_checkpoint(
        &self,
        key: &CheckpointKey,
        stop: &AtomicBool,
    ) -> Result<Attachment, CloudError> {
        self.call(key, true, |inner| {
            let record = inner.checkpoint(key)?;
            record.admit_reading()?;
            let length = record.length;
            if !record.has_copy {
                admit_going_on(key, stop)?;
                inner.admit_copy(key, length)?;
                inner.checkpoint(key)?.has_copy = true;
            }
            Ok(Attachment::MemoryCopy(key.clone()))
        })
    }

    fn delete_copy(&self, key: &CheckpointKey) -> Result<(), CloudError> {
        self.call(key, false, |inner| {
            if let Some(record) = inner.checkpoints.get_mut(key) {
                record.has_copy = false;
            }
            Ok(())
        })
    }

    fn delete_checkpoint(&self, key: &CheckpointKey) -> Result<(), CloudError> {
        self.call(key, false, |inner| {
            if let Some(record) = inner.checkpoints.get(key) {
                record.admit_deletion()?;
                inner.checkpoints.remove(key);
            }
            Ok(())
        })
    }
}

fn admit_going_on(key: &CheckpointKey, stop: &AtomicBool) -> Result<(), CloudError> {
    match stop.load(Ordering::Relaxed) {
        false => Ok(()),
        true => Err(CloudError::Stopped {
            subject: key.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{VolumeTag, conformance};

    fn spec(volume: u8, length: u64) -> VolumeSpec {
        VolumeSpec {
            key: VolumeKey {
                migration: MigrationTag([1; 16]),
                volume: VolumeTag([volume; 16]),
                generation: 0,
            },
            length,
        }
    }

    #[test]
    fn the_fake_conforms() {
        conformance::suite(|| Box::new(FakeCloud::new(1 << 40, Faults::none())));
    }

    #[test]
    fn the_fake_conforms_when_every_third_call_fails() {
        for seed in 0..50 {
            conformance::suite(|| Box::new(FakeCloud::new(1 << 40, Faults::seeded(seed, 333))));
        }
    }

    #[test]
    fn a_call_whose_answer_is_lost_was_carried_out() {
        let cloud = FakeCloud::new(100, Faults::scripted([(0, Fault::FailAfter)]));
        let lost = cloud.ensure_volume(&spec(1, 60)).unwrap_err();
        assert!(matches!(lost, CloudError::Unknown { .. }));
        assert_eq!(cloud.volumes().len(), 1);
    }

    #[test]
    fn a_call_that_fails_before_did_nothing() {
        for fault in [Fault::FailBefore, Fault::Throttle, Fault::Full] {
            let cloud = FakeCloud::new(100, Faults::none());
            cloud.inject(fault);
            cloud.ensure_volume(&spec(1, 60)).unwrap_err();
            assert!(cloud.volumes().is_empty(), "{fault:?}");
            cloud.ensure_volume(&spec(1, 60)).unwrap();
        }
    }

    #[test]
    fn a_full_cloud_refuses_before_and_when_asked() {
        let cloud = FakeCloud::new(100, Faults::none());
        cloud.ensure_volume(&spec(1, 60)).unwrap();
        let volumes = vec![spec(1, 60), spec(2, 41)];
        let found = cloud.check(&Need { volumes }).unwrap();
        assert_eq!(found[0].severity, Severity::Blocker);
        let full = cloud.ensure_volume(&spec(2, 41)).unwrap_err();
        assert!(matches!(full, CloudError::NoSpace { .. }));
        cloud.delete(&spec(1, 60).key).unwrap();
        cloud.ensure_volume(&spec(2, 41)).unwrap();
    }

    #[test]
    fn a_checkpoint_and_its_copy_take_room_and_one_that_has_none_is_refused() {
        let cloud = FakeCloud::new(100, Faults::none());
        let go_on = AtomicBool::new(false);
        cloud.ensure_volume(&spec(1, 40)).unwrap();
        let volume = spec(1, 40).key;
        let holder = crate::HolderId([1; 32]);
        cloud
            .attach(&volume, &AttachTo { holder, epoch: 1 })
            .unwrap();
        let name = "first".parse().unwrap();
        let key = CheckpointKey { volume, name };
        cloud.seal(&key, 1, &go_on).unwrap();
        let full = cloud.copy_checkpoint(&key, &go_on).unwrap_err();
        let expected = CloudError::NoRoom {
            subject: (&key).into(),
            need: 40,
            free: 20,
        };
        assert_eq!(full, expected);
        cloud.delete(&volume).unwrap();
        cloud.copy_checkpoint(&key, &go_on).unwrap();
    }

    #[test]
    fn one_seed_gives_one_sequence_of_faults() {
        let faults = |seed| {
            let mut faults = Faults::seeded(seed, 500);
            (0..64).map(|call| faults.of_call(call)).collect::<Vec<_>>()
        };
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
    }
}
