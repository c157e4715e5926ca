//! Cutovers of the servers whose agent runs here: what their machines need to know, what
//! they ask of the guard on threads that may wait, and the write by which all disks of a
//! server count together.
//!
//! Not here: what is asked when (`roles::cutover`), and freezing (`guard`).

use super::{Engine, Message};
use crate::stillness::{Freezer, NotStill, Prepared, SourceDisk, Stillness};
use crdt::plan::hook::{OnFailure, Side};
use crdt::{Desired, MigrationPlan, Point};
use keys::MigrationId;
use roles::Note;
use roles::agent::{self, Agent};
use roles::cutover::{self, Action, Answer, Ask, Cutover, View, Wanted};
use roles::hooks::{At, Gate};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use volumes::freeze::file_system_of;
use volumes::{SourceIdentity, SourceVolume};

/// What a guard was asked, and what came of it.
#[derive(Debug)]
pub(crate) struct Answered {
    answer: Answer,
    /// What people are told beside it.
    notes: Vec<Note>,
}

impl Engine {
    /// A machine for each migration whose source is here and that may have been frozen
    /// before this start.
    pub(super) fn restore_cutovers(&mut self) {
        let migrations = self.agents.keys().map(|job| job.migration);
        let machines = migrations.map(|id| (id, self.new_cutover()));
        self.cutovers = machines.collect();
    }

    fn new_cutover(&self) -> Cutover {
        match self.config.freeze {
            Some(freeze) => Cutover::default().within(millis(freeze)),
            None => Cutover::default(),
        }
    }

    pub(super) fn settle_cutovers(&mut self) -> bool {
        let cutting: BTreeSet<MigrationId> = self
            .agents
            .keys()
            .map(|job| job.migration)
            .filter(|id| self.wanted(id).is_some())
            .collect();
        for id in &cutting {
            let fresh = self.new_cutover();
            self.cutovers.entry(*id).or_insert(fresh);
        }
        self.cutovers
            .retain(|id, machine| cutting.contains(id) || !machine.is_idle());
        let ids: Vec<MigrationId> = self.cutovers.keys().copied().collect();
        let mut acted = false;
        for id in ids {
            let (now, Some(view)) = (self.now(), self.cutover_view(&id)) else {
                continue;
            };
            let Some(machine) = self.cutovers.get_mut(&id) else {
                continue;
            };
            let before = machine.standing();
            let mut actions = vec![];
            machine.settle(now, &view, &mut actions);
            acted |= !actions.is_empty() || machine.standing() != before;
            self.carry_cutover(id, actions);
        }
        acted
    }

    /// How far the cutover of a migration's server has come.
    pub(super) fn cutover_standing(&self, id: &MigrationId) -> cutover::Standing {
        let machine = self.cutovers.get(id);
        machine.map(Cutover::standing).unwrap_or_default()
    }

    /// The points of the source at which cutovers wait for hooks.
    pub(super) fn cutover_hooks(&self) -> impl Iterator<Item = At> + '_ {
        self.cutovers.iter().filter_map(|(id, machine)| {
            Some(At {
                migration: *id,
                side: Side::Source,
                point: machine.waits_for_hooks()?,
            })
        })
    }

    fn planned(&self, id: &MigrationId) -> Option<&MigrationPlan> {
        self.replica.document().plan().migrations.get(id)
    }

    fn wanted(&self, id: &MigrationId) -> Option<Wanted> {
        if self.due_checkpoint(id).is_some() {
            return Some(Wanted::CHECKPOINT);
        }
        match self.planned(id)?.desired {
            Desired::Cutover { prove_full, source } => Some(Wanted {
                is_checkpoint: false,
                prove_full,
                source,
            }),
            _ => None,
        }
    }

    fn cutover_view(&self, id: &MigrationId) -> Option<View> {
        let situation = self.situation()?;
        let plan = self.planned(id);
        let gate = |point| {
            plan.map_or(Gate::Open, |plan| {
                self.hooks.gate(plan, Side::Source, point)
            })
        };
        let slots = self.agents.iter().filter(|(job, _)| job.migration == *id);
        let slots: Vec<_> = slots.map(|(_, slot)| slot).collect();
        let is_file = |slot: &&&super::AgentSlot| {
            let source = slot.source();
            source.is_some_and(|source| !matches!(source, SourceIdentity::Device { .. }))
        };
        let unfreezable = slots.iter().find(is_file);
        let finished = slots
            .iter()
            .filter_map(|slot| slot.machine.record().finished.as_ref());
        let passed = |point| {
            self.hooks.has_passed(At {
                migration: *id,
                side: Side::Source,
                point,
            })
        };
        let stops = |hook: &crdt::Hook| {
            hook.point == Point::BeforeFreeze
                && hook.on == Side::Source
                && hook.on_failure == OnFailure::Stop
        };
        let is_known = |slot: &&super::AgentSlot| {
            let finished = slot.machine.record().finished.as_ref();
            finished.is_some_and(|finished| situation.is_known_elsewhere(&finished.source_proof))
        };
        Some(View {
            is_known: slots.iter().all(is_known),
            is_heard: situation.is_heard,
            wanted: self.wanted(id),
            was_frozen: finished
                .clone()
                .any(|finished| finished.frozen_millis.is_some()),
            disks: slots.iter().map(|slot| slot.disk()).collect(),
            unfreezable: unfreezable.map(|_| {
                "a disk is a file, and only what lies on a device can be frozen".to_owned()
            }),
            is_prepared: passed(Point::BeforeFreeze),
            is_begun: self.hooks.has_begun(*id),
            before_freeze: gate(Point::BeforeFreeze),
            after_freeze: gate(Point::AfterFreeze),
            after_thaw: gate(Point::AfterThaw),
            has_stop: plan.is_some_and(|plan| plan.hooks.iter().any(stops)),
        })
    }

    fn carry_cutover(&mut self, id: MigrationId, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ask(ask) => self.ask_freezer(id, ask),
                Action::Commit { frozen_millis } => self.commit_cutover(id, frozen_millis),
                Action::Stand { frozen_millis } => self.stand_at_checkpoint(id, frozen_millis),
                Action::Again(points) => {
                    let mut hooks = vec![];
                    self.hooks.again(id, points, &mut hooks);
                    self.carry_hooks(hooks);
                }
                Action::Tell(note) => self.tell(Some(id), note),
            }
        }
    }

    fn ask_freezer(&self, id: MigrationId, ask: Ask) {
        let freezer = self.freezer.clone();
        let disks = match ask {
            Ask::Prepare => self.disks_of(id),
            _ => Ok(vec![]),
        };
        let data = self.dir.path().to_owned();
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let asked =
                tokio::task::spawn_blocking(move || asked(&*freezer, id, ask, disks, &data)).await;
            let answered = asked.unwrap_or_else(|error| Answered::failed(&error.to_string()));
            // A closed inbox means the node is stopping.
            let _ = inbox.send(Message::Stillness(id, answered)).await;
        });
    }

    fn disks_of(&self, id: MigrationId) -> Result<Vec<SourceDisk>, String> {
        let moved = self.agents.keys().filter(|job| job.migration == id);
        let offered = moved.map(|job| {
            let mut offered = self.volumes.iter();
            let offered = offered.find(|volume| volume.id == job.volume);
            let offered = offered.ok_or_else(|| {
                format!("volume {} is not offered here any more", job.volume.short())
            })?;
            let volume = SourceVolume::open(Path::new(&offered.path));
            let volume = volume.map_err(|error| error.to_string())?;
            SourceDisk::try_from(&volume).map_err(|error| error.to_string())
        });
        offered.collect()
    }

    pub(super) fn stillness_told(&mut self, id: MigrationId, answered: Answered) {
        let Answered { answer, notes } = answered;
        for note in notes {
            self.tell(Some(id), note);
        }
        let (now, Some(view)) = (self.now(), self.cutover_view(&id)) else {
            return;
        };
        let mut actions = vec![];
        if let Some(machine) = self.cutovers.get_mut(&id) {
            machine.answered(now, answer, &view, &mut actions);
        }
        self.carry_cutover(id, actions);
        self.settle();
    }

    /// Makes all disks of a server count, by one durable write.
    fn commit_cutover(&mut self, id: MigrationId, frozen_millis: u64) {
        self.store_together(id, |machine, out| machine.commit(frozen_millis, out));
    }

    /// Carries out one thing on all disks of a server, by one durable write.
    pub(super) fn store_together(
        &mut self,
        id: MigrationId,
        mut of: impl FnMut(&mut Agent, &mut Vec<agent::Action>) -> Option<agent::Record>,
    ) {
        let mut told = vec![];
        let mut records = vec![];
        for (job, slot) in &mut self.agents {
            if job.migration == id {
                let mut out = vec![];
                records.extend(of(&mut slot.machine, &mut out));
                told.extend(out.into_iter().map(|action| (*job, action)));
            }
        }
        let stored = self.store.put_agents(&records);
        if self.must(stored).is_none() {
            return;
        }
        self.keep_finished();
        self.report.soon();
        for (job, action) in told {
            self.act(job, action);
        }
    }
}

impl Answered {
    fn failed(why: &str) -> Self {
        Self {
            answer: Answer::Failed {
                nobody: false,
                why: why.to_owned(),
            },
            notes: vec![],
        }
    }

    fn done(took: Duration) -> Self {
        Self {
            answer: Answer::Done {
                millis: millis(took),
            },
            notes: vec![],
        }
    }
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// Asks, and waits for the answer.
fn asked(
    freezer: &dyn Freezer,
    id: MigrationId,
    ask: Ask,
    disks: Result<Vec<SourceDisk>, String>,
    data: &Path,
) -> Answered {
    let answered = match ask {
        Ask::Look => freezer.stillness(id).map(|stands| Answered {
            answer: Answer::Stands(match stands {
                Stillness::Running => cutover::Stillness::Running,
                Stillness::Frozen { .. } => cutover::Stillness::Frozen,
                Stillness::Kept => cutover::Stillness::Kept,
            }),
            notes: vec![],
        }),
        Ask::Prepare => match disks {
            Err(why) => return Answered::failed(&why),
            Ok(disks) => freezer
                .prepare(id, &disks)
                .and_then(|prepared| ready(&prepared, data)),
        },
        Ask::Sync => freezer.sync(id).map(Answered::done),
        Ask::Freeze { deadline_millis } => {
            let frozen = freezer.freeze(id, Duration::from_millis(deadline_millis));
            frozen.map(|frozen| {
                let at = |system: &crate::stillness::FileSystem| {
                    format!("{} at {}", system.kind, system.at.display())
                };
                let unfrozen: Vec<String> = frozen.unfrozen.iter().map(at).collect();
                let text = format!(
                    "cannot be frozen, and was written out: {}; what is written to it from now on is copied as long as the last passes go on",
                    unfrozen.join(", ")
                );
                let told = (!unfrozen.is_empty()).then(|| Note::info("not-frozen", text));
                Answered {
                    notes: told.into_iter().collect(),
                    ..Answered::done(frozen.took)
                }
            })
        }
        Ask::Thaw => freezer
            .thaw(id)
            .map(|thawed| Answered::done(thawed.frozen_for)),
        Ask::Release => freezer
            .release(id)
            .map(|thawed| Answered::done(thawed.frozen_for)),
        Ask::Keep => freezer.keep(id).map(|()| Answered::done(Duration::ZERO)),
        Ask::PowerOff => freezer
            .power_off(id)
            .map(|()| Answered::done(Duration::ZERO)),
    };
    answered.unwrap_or_else(|why| Answered {
        answer: Answer::Failed {
            nobody: matches!(why, NotStill::NoGuard { .. }),
            why: why.to_string(),
        },
        notes: vec![],
    })
}

/// Refuses what would freeze this node itself, and says what cannot be held.
fn ready(prepared: &Prepared, data: &Path) -> Result<Answered, NotStill> {
    if let Some(at) = holds(prepared, data) {
        return Err(NotStill::refused(format!(
            "the data folder {} lies on {}, which would be frozen: move it to another disk, or to memory",
            data.display(),
            at.display()
        )));
    }
    Ok(Answered::done(Duration::ZERO))
}

/// The file system to be frozen on which a folder lies.
fn holds(prepared: &Prepared, folder: &Path) -> Option<PathBuf> {
    let mine = file_system_of(folder).ok()?;
    let is_mine = |at: &Path| file_system_of(at).is_ok_and(|other| other == mine);
    let mut systems = prepared.file_systems.iter();
    let found = systems.find(|system| system.can_freeze && is_mine(&system.at));
    found.map(|system| system.at.clone())
}
