//! The guard's disks that are made still: one stage for each migration, and what is left in
//! files for a guard that comes after this one.
//!
//! ```text
//!  none ─▶ Prepared ─▶ Frozen ─┬─▶ Thawed ─▶ none
//!                              └─▶ Kept ─▶ Thawed, by a person alone
//!  Busy: whoever does something with it has the stage, and others wait for it
//! ```
//!
//! The lock of all stages is held for no longer than a look: nothing that may wait for a disk
//! is done, or dropped, under it. So a migration waits for no other, and [`Freezer::stillness`]
//! for none.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keys::MigrationId;
use rustix::fs::{major, minor};
use volumes::freeze::{self, NotKept, Number};

use super::book::same_device;
use super::host::Host;
use super::left::{TakenOver, finished, left_in, make_folder, take_over, thaw_left};
use crate::stillness::{
    FileSystem, Freezer, Frozen, NotStill, Prepared, SourceDisk, Stillness, Thawed, ThawedBy,
};

/// Migrations with something prepared, frozen or remembered; of more than that the one that
/// was asked about least lately goes, of those that are not still.
const MAX_STILLS: usize = 64;

/// Disks of one migration, as `engine::calls` allows them.
const MAX_DISKS: usize = 16;

/// Entries of one answer of what is in use.
const MAX_TOLD: usize = 1024;

/// What is prepared keeps file systems from being unmounted: for so long, when nobody asks.
const PREPARED_FOR: Duration = Duration::from_secs(600);

/// What became of a freeze is remembered for so long.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);

/// A freeze is for less than this: what is frozen for longer is kept.
const LONGEST: Duration = Duration::from_millis(roles::cutover::LONGEST_FREEZE_MILLIS);

/// How long one waits for what somebody else asked about the same migration.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kinds that the kernel freezes. Of others that is known once it was tried.
const KNOWN_TO_FREEZE: [&str; 11] = [
    "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "gfs2", "jfs", "nilfs2", "reiserfs", "xfs",
];

/// See the module's page.
pub(super) struct Stills {
    /// Where it is noted what is frozen.
    folder: PathBuf,
    host: Host,
    all: Mutex<All>,
    changed: Condvar,
}

#[derive(Default)]
struct All {
    stills: BTreeMap<MigrationId, Still>,
    /// Nothing is frozen any more.
    is_ending: bool,
    /// The memory of the guard is locked, or cannot be.
    is_locked: bool,
}

struct Still {
    stage: Stage,
    asked: Instant,
}

enum Stage {
    Prepared(Ready),
    Frozen {
        frozen: freeze::Frozen,
        until: Instant,
        ready: Ready,
    },
    Kept {
        on: BTreeSet<Number>,
        /// Keeps the file systems from being unmounted, where this guard froze them.
        _ready: Option<Ready>,
    },
    Thawed(Thawed),
    Busy {
        doing: Doing,
        on: BTreeSet<Number>,
    },
}

/// What was prepared.
struct Ready {
    freezer: freeze::Freezer,
    /// The disks, and the file systems on them.
    on: BTreeSet<Number>,
}

/// What somebody does with a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Prepares or writes out.
    Looking,
    /// Freezes, or keeps what is frozen.
    Holding { until: Instant },
    /// Thaws.
    LettingGo,
}

impl Stage {
    /// What is still, or about to be.
    fn still_on(&self) -> Option<&BTreeSet<Number>> {
        match self {
            Self::Frozen { frozen, ready, .. } if !frozen.is_thawed() => Some(&ready.on),
            Self::Kept { on, .. } => Some(on),
            Self::Busy { doing, on } if *doing != Doing::Looking => Some(on),
            _ => None,
        }
    }

    fn on(&self) -> BTreeSet<Number> {
        match self {
            Self::Prepared(ready) | Self::Frozen { ready, .. } => ready.on.clone(),
            Self::Kept { on, .. } | Self::Busy { on, .. } => on.clone(),
            Self::Thawed(_) => BTreeSet::new(),
        }
    }
}

/// The stage of a migration in the hands of who does something with it. Where it is not put
/// back, nothing is known of the migration any more.
struct Taken<'s> {
    stills: &'s Stills,
    migration: MigrationId,
    next: Option<Stage>,
}

impl Taken<'_> {
    fn put(mut self, stage: Stage) {
        self.next = Some(stage);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut all = self.stills.all();
        match self.next.take() {
            Some(stage) => {
                let asked = Instant::now();
                all.stills.insert(self.migration, Still { stage, asked });
            }
            None => drop(all.stills.remove(&self.migration)),
        }
        self.stills.changed.notify_all();
    }
}

impl Stills {
    /// Those of a guard that begins: what an earlier one left in `folder` is thawed, unless
    /// it is kept.
    ///
    /// # Errors
    /// Where it is not known what was left.
    pub(super) fn open(folder: PathBuf, host: Host) -> io::Result<Self> {
        let mut all = All::default();
        for migration in left_in(&folder)? {
            let stage = match take_over(migration, &folder) {
                Some(TakenOver::Kept(on)) => Stage::Kept { on, _ready: None },
                Some(TakenOver::Thawed(thawed)) => Stage::Thawed(thawed),
                None => continue,
            };
            let asked = Instant::now();
            all.stills.insert(migration, Still { stage, asked });
        }
        Ok(Self {
            folder,
            host,
            all: Mutex::new(all),
            changed: Condvar::new(),
        })
    }

    fn all(&self) -> MutexGuard<'_, All> {
        // It is whole after each statement that changes it.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the stage of a migration, once nobody else has it and `claim` allows it.
    fn take(
        &self,
        migration: MigrationId,
        claim: impl FnOnce(&All, Option<&Stage>) -> Result<Doing, NotStill>,
    ) -> Result<(Taken<'_>, Option<Stage>), NotStill> {
        let is_busy = |all: &mut All| {
            let found = all.stills.get(&migration);
            found.is_some_and(|still| matches!(still.stage, Stage::Busy { .. }))
        };
        let waited = self
            .changed
            .wait_timeout_while(self.all(), PATIENCE, is_busy);
        let (mut all, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(refused_for(
                migration,
                "the guard still does what it was asked before: ask again",
            ));
        }
        let doing = claim(&all, all.stills.get(&migration).map(|still| &still.stage))?;
        let dropped = all.make_room(migration)?;
        let stage = all.stills.remove(&migration).map(|still| still.stage);
        let on = stage.as_ref().map(Stage::on).unwrap_or_default();
        let busy = Still {
            stage: Stage::Busy { doing, on },
            asked: Instant::now(),
        };
        all.stills.insert(migration, busy);
        drop(all);
        // To close a device may wait for it.
        drop(dropped);
        let taken = Taken {
            stills: self,
            migration,
            next: None,
        };
        Ok((taken, stage))
    }

    fn noted_at(&self, migration: MigrationId) -> PathBuf {
        self.folder.join(migration.to_string())
    }

    /// Once, before anything is frozen: the guard's own memory needs no disk then.
    fn lock_memory(&self) {
        let was_locked = std::mem::replace(&mut self.all().is_locked, true);
        if was_locked {
            return;
        }
        if let Err(error) = (self.host.lock_memory)() {
            let text = "the guard's memory may have to be read from a disk that is frozen";
            tracing::warn!(kind = "guard-memory", "{text}: {error}");
        }
    }

    /// Thaws what is frozen or was left; kept ones too, where `kept_too`.
    fn let_go(&self, migration: MigrationId, kept_too: bool) -> Result<Thawed, NotStill> {
        let (taken, stage) = self.take(migration, |_, stage| match stage {
            Some(Stage::Kept { .. }) if !kept_too => Err(refused_for(
                migration,
                "its disks stay frozen, since the copy may run by now; `dunlin guard thaw` on that machine says how a person lets them go all the same",
            )),
            _ => Ok(Doing::LettingGo),
        })?;
        let is_kept = matches!(stage, Some(Stage::Kept { .. }));
        let thawed = match stage {
            Some(Stage::Frozen { frozen, .. }) => finished(migration, frozen.thaw())?,
            Some(Stage::Thawed(thawed)) => thawed,
            other => {
                let left = thaw_left(&self.noted_at(migration), kept_too);
                let done = left.and_then(|left| match left {
                    None if is_kept => Err(format!(
                        "the note of what is frozen in {} is gone: thaw it with `fsfreeze -u`",
                        self.folder.display()
                    )),
                    None => Ok(Thawed {
                        frozen_for: Duration::ZERO,
                        by: ThawedBy::Nobody,
                    }),
                    Some(left) => finished(migration, left).map_err(|error| error.to_string()),
                });
                match (done, other) {
                    (Ok(thawed), _) => thawed,
                    (Err(why), Some(kept @ Stage::Kept { .. })) => {
                        taken.put(kept);
                        return Err(NotStill::refused(why));
                    }
                    (Err(why), _) => return Err(NotStill::refused(why)),
                }
            }
        };
        if thawed.by != ThawedBy::Nobody {
            taken.put(Stage::Thawed(thawed));
        }
        Ok(thawed)
    }

    /// Lets go of what nobody asks about any more, and of what the deadline has thawed.
    pub(super) fn look(&self) {
        let due: Vec<(MigrationId, bool)> = {
            let all = self.all();
            let due = all
                .stills
                .iter()
                .filter_map(|(migration, still)| match &still.stage {
                    Stage::Prepared(_) if still.asked.elapsed() > PREPARED_FOR => {
                        Some((*migration, false))
                    }
                    Stage::Thawed(_) if still.asked.elapsed() > REMEMBERED_FOR => {
                        Some((*migration, false))
                    }
                    Stage::Frozen { frozen, .. } if frozen.is_thawed() => Some((*migration, true)),
                    _ => None,
                });
            due.collect()
        };
        for (migration, is_frozen) in due {
            if is_frozen {
                // It says itself what became of it.
                let _ = self.let_go(migration, false);
                continue;
            }
            // Somebody may have asked just now.
            let is_due = |_: &All, stage: Option<&Stage>| match stage {
                Some(Stage::Prepared(_) | Stage::Thawed(_)) => Ok(Doing::Looking),
                _ => Err(not_prepared(migration)),
            };
            drop(self.take(migration, is_due));
        }
    }

    /// Before an orderly end: thaws all that is not kept, and freezes nothing more.
    pub(super) fn end(&self) {
        let migrations: Vec<MigrationId> = {
            let mut all = self.all();
            all.is_ending = true;
            all.stills.keys().copied().collect()
        };
        for migration in migrations {
            let is_kept = self.stillness(migration) == Ok(Stillness::Kept);
            if is_kept {
                continue;
            }
            if let Err(error) = self.let_go(migration, false) {
                tracing::warn!(kind = "source-frozen", "{error}");
            }
        }
    }
}

impl All {
    /// Room for one more, from what is not still. What is given is to be dropped elsewhere.
    fn make_room(&mut self, migration: MigrationId) -> Result<Option<Still>, NotStill> {
        if self.stills.contains_key(&migration) || self.stills.len() < MAX_STILLS {
            return Ok(None);
        }
        let free = self
            .stills
            .iter()
            .filter(|(_, still)| matches!(still.stage, Stage::Prepared(_) | Stage::Thawed(_)));
        let oldest = free.min_by_key(|(_, still)| still.asked);
        let oldest = oldest.map(|(migration, _)| *migration);
        match oldest {
            Some(oldest) => Ok(self.stills.remove(&oldest)),
            None => Err(NotStill::refused(format!(
                "the disks of {MAX_STILLS} migrations are still, which is all that one guard does"
            ))),
        }
    }

    /// Whether anything of it is still for another migration.
    fn check_free(&self, migration: MigrationId, on: &BTreeSet<Number>) -> Result<(), NotStill> {
        for (other, still) in &self.stills {
            let shares = |held: &BTreeSet<Number>| !held.is_disjoint(on);
            if *other != migration && still.stage.still_on().is_some_and(shares) {
                return Err(refused_for(
                    migration,
                    &format!(
                        "migration {other} holds a disk or file system that both have: wait until it runs again"
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl Freezer for Stills {
    fn prepare(&self, migration: MigrationId, disks: &[SourceDisk]) -> Result<Prepared, NotStill> {
        if disks.is_empty() || disks.len() > MAX_DISKS {
            let why = format!("{} disks were named, of 1 to {MAX_DISKS}", disks.len());
            return Err(refused_for(migration, &why));
        }
        let (taken, before) = self.take(migration, |all, stage| match stage {
            Some(stage) if stage.still_on().is_some() => Err(refused_for(
                migration,
                "its disks are still already: thaw them first",
            )),
            _ if all.is_ending => Err(ending(migration)),
            _ => Ok(Doing::Looking),
        })?;
        // What is held of it keeps nothing from being found as it is now.
        drop(before);
        let mut on = BTreeSet::new();
        for disk in disks {
            let same = same_device(&disk.path, (disk.device, disk.length));
            drop(same.map_err(NotStill::refused)?);
            on.insert((major(disk.device), minor(disk.device)));
        }
        self.lock_memory();
        let paths: Vec<PathBuf> = disks.iter().map(|disk| disk.path.clone()).collect();
        let freezer = freeze::Freezer::prepare(&paths).map_err(NotStill::refused)?;
        let found = &freezer.in_use().file_systems;
        on.extend(found.iter().map(|mounted| mounted.device));
        self.all().check_free(migration, &on)?;
        let prepared = told(freezer.in_use());
        taken.put(Stage::Prepared(Ready { freezer, on }));
        Ok(prepared)
    }

    fn sync(&self, migration: MigrationId) -> Result<Duration, NotStill> {
        let (taken, stage) = self.take(migration, |_, stage| match stage {
            Some(Stage::Prepared(_)) => Ok(Doing::Looking),
            _ => Err(not_prepared(migration)),
        })?;
        let Some(Stage::Prepared(ready)) = stage else {
            return Err(not_prepared(migration));
        };
        let synced = ready.freezer.sync().map_err(NotStill::refused);
        taken.put(Stage::Prepared(ready));
        synced
    }

    fn freeze(&self, migration: MigrationId, deadline: Duration) -> Result<Frozen, NotStill> {
        let deadline = deadline.min(LONGEST);
        let began = Instant::now();
        let until = began + deadline;
        let (taken, stage) = self.take(migration, |all, stage| match stage {
            Some(Stage::Prepared(ready)) if !all.is_ending => {
                all.check_free(migration, &ready.on)?;
                Ok(Doing::Holding { until })
            }
            Some(Stage::Prepared(_)) => Err(ending(migration)),
            Some(stage) if stage.still_on().is_some() => {
                Err(refused_for(migration, "its disks are still already"))
            }
            _ => Err(not_prepared(migration)),
        })?;
        let Some(Stage::Prepared(ready)) = stage else {
            return Err(not_prepared(migration));
        };
        let made = make_folder(&self.folder);
        let left = self.noted_at(migration);
        let frozen = made.and_then(|()| {
            let frozen = ready.freezer.freeze(deadline, &left);
            frozen.map_err(NotStill::refused)
        });
        match frozen {
            Err(why) => {
                taken.put(Stage::Prepared(ready));
                Err(why)
            }
            Ok(frozen) => {
                let unfrozen = frozen.unfrozen().iter().map(|one| FileSystem {
                    kind: one.kind.clone(),
                    at: shown(&one.at),
                    can_freeze: false,
                });
                let told = Frozen {
                    took: began.elapsed(),
                    unfrozen: unfrozen.take(MAX_TOLD).collect(),
                };
                let text = format!(
                    "{} file systems of migration {migration} are frozen, for {deadline:?} at most",
                    frozen.count()
                );
                taken.put(Stage::Frozen {
                    frozen,
                    until,
                    ready,
                });
                tracing::info!(kind = "source-frozen", "{text}");
                Ok(told)
            }
        }
    }

    fn thaw(&self, migration: MigrationId) -> Result<Thawed, NotStill> {
        self.let_go(migration, false)
    }

    fn keep(&self, migration: MigrationId) -> Result<(), NotStill> {
        let mut is_kept = false;
        let not_frozen = || refused_for(migration, "its disks are not frozen");
        let taken = self.take(migration, |_, stage| match stage {
            Some(Stage::Frozen { until, .. }) => Ok(Doing::Holding { until: *until }),
            Some(Stage::Thawed(thawed)) if thawed.by == ThawedBy::Deadline => {
                Err(refused_for(migration, &NotKept::Thawed.to_string()))
            }
            stage => {
                is_kept = matches!(stage, Some(Stage::Kept { .. }));
                Err(not_frozen())
            }
        });
        if is_kept {
            return Ok(());
        }
        let (taken, stage) = taken?;
        let Some(Stage::Frozen { frozen, ready, .. }) = stage else {
            return Err(not_frozen());
        };
        let frozen_for = frozen.frozen_for();
        match frozen.keep() {
            Ok(()) => {
                let on = ready.on.clone();
                let _ready = Some(ready);
                taken.put(Stage::Kept { on, _ready });
                let text = format!("the disks of migration {migration} stay frozen");
                tracing::info!(kind = "source-kept", "{text}");
                Ok(())
            }
            Err(why) => {
                let by = match why {
                    NotKept::Thawed => ThawedBy::Deadline,
                    NotKept::Note { .. } => ThawedBy::Guard,
                };
                taken.put(Stage::Thawed(Thawed { frozen_for, by }));
                Err(refused_for(migration, &why.to_string()))
            }
        }
    }

    fn stillness(&self, migration: MigrationId) -> Result<Stillness, NotStill> {
        let all = self.all();
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let stage = all.stills.get(&migration).map(|still| &still.stage);
        Ok(match stage {
            Some(Stage::Frozen { frozen, until, .. }) if !frozen.is_thawed() => {
                let left = left(*until);
                Stillness::Frozen { left }
            }
            Some(Stage::Kept { .. }) => Stillness::Kept,
            Some(Stage::Busy { doing, .. }) => match doing {
                Doing::Looking => Stillness::Running,
                Doing::Holding { until } => Stillness::Frozen { left: left(*until) },
                Doing::LettingGo => Stillness::Frozen {
                    left: Duration::ZERO,
                },
            },
            _ => Stillness::Running,
        })
    }

    fn power_off(&self, migration: MigrationId) -> Result<(), NotStill> {
        if self.stillness(migration)? != Stillness::Kept {
            return Err(refused_for(
                migration,
                "its disks do not stay frozen, so that the machine is not powered off",
            ));
        }
        tracing::warn!(
            kind = "power-off",
            "the machine is powered off, as migration {migration} wants it"
        );
        (self.host.power_off)().map_err(|error| {
            refused_for(
                migration,
                &format!("the machine cannot be powered off ({error}): do it by its own means, and without thawing anything"),
            )
        })
    }

    fn release(&self, migration: MigrationId) -> Result<Thawed, NotStill> {
        self.let_go(migration, true)
    }
}

pub(super) fn refused_for(migration: MigrationId, why: &str) -> NotStill {
    NotStill::refused(format!("migration {migration}: {why}"))
}

fn not_prepared(migration: MigrationId) -> NotStill {
    refused_for(
        migration,
        "nothing is prepared to be frozen, or the guard was started again: prepare it",
    )
}

fn ending(migration: MigrationId) -> NotStill {
    refused_for(migration, "the guard is being stopped: start it again")
}

/// A path as it can be told in any case.
fn shown(path: &Path) -> PathBuf {
    path.to_string_lossy().into_owned().into()
}

fn told(in_use: &freeze::InUse) -> Prepared {
    let file_systems = in_use.file_systems.iter().map(|one| FileSystem {
        kind: one.kind.clone(),
        at: shown(&one.at),
        can_freeze: KNOWN_TO_FREEZE.contains(&one.kind.as_str()),
    });
    let unreached = in_use.unreached.iter();
    let unreached = unreached.map(|one| format!("{}: {}", one.what.display(), one.why));
    let swaps = in_use.swaps.iter().map(|swap| shown(swap));
    Prepared {
        file_systems: file_systems.take(MAX_TOLD).collect(),
        swaps: swaps.take(MAX_TOLD).collect(),
        unreached: unreached.take(MAX_TOLD).collect(),
    }
}
