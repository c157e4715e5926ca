//! Who freezes the sources of a node: beside its process, which it outlives, and gone with
//! the power; and the cutovers of whole servers, which ask for it.
//!
//! Not here: when what is asked (`roles::cutover`).

use crate::context::{Context, Flaw};
use crate::invariants;
use crate::network::Event;
use crate::node::{Lived, Node};
use crdt::Desired;
use keys::{CheckpointName, MigrationId};
use roles::Now;
use roles::cutover::{Action, Answer, Ask, Cutover, Stillness, View, Wanted};
use roles::hooks::Gate;
use std::collections::{BTreeMap, BTreeSet};

/// Longest time until a question is carried out, and until its answer is there.
const SLOWEST_MILLIS: u64 = 900;

/// Whether nobody freezes the sources of a node of a world.
pub fn is_absent(seed: u64, node: usize) -> bool {
    seed.wrapping_add(node as u64).is_multiple_of(4)
}

/// What the disks of a node were brought to.
#[derive(Debug, Default)]
pub struct Freezer {
    /// Nobody answers here.
    pub is_absent: bool,
    /// Until when, or for good; and since when.
    frozen: BTreeMap<MigrationId, (Option<u64>, u64)>,
}

impl Freezer {
    /// One that answers, or none.
    pub fn new(is_absent: bool) -> Self {
        Self {
            is_absent,
            frozen: BTreeMap::new(),
        }
    }

    fn look(&self, migration: &MigrationId, now: u64) -> Stillness {
        match self.frozen.get(migration) {
            Some((None, _)) => Stillness::Kept,
            Some((Some(until), _)) if now < *until => Stillness::Frozen,
            _ => Stillness::Running,
        }
    }

    /// Whether nobody can write to the sources of a migration.
    pub fn holds(&self, migration: &MigrationId, now: u64) -> bool {
        self.look(migration, now) != Stillness::Running
    }

    /// Whether the sources of a migration are frozen for good.
    pub fn keeps(&self, migration: &MigrationId) -> bool {
        matches!(self.frozen.get(migration), Some((None, _)))
    }

    /// The power is gone, and what was frozen with it.
    pub fn lose_power(&mut self) {
        self.frozen.clear();
    }

    fn carry(&mut self, migration: MigrationId, ask: Ask, now: u64, flaw: Option<Flaw>) -> Answer {
        let stands = self.look(&migration, now);
        let frozen_for = |frozen: Option<(Option<u64>, u64)>| {
            frozen.map_or(0, |(_, since)| now.saturating_sub(since))
        };
        let millis = match (ask, stands) {
            (Ask::Look, stands) => return Answer::Stands(stands),
            (Ask::Prepare | Ask::Sync, Stillness::Running) => 10,
            (Ask::Freeze { deadline_millis }, Stillness::Running) => {
                let until = match flaw {
                    Some(Flaw::KeepsWhatRuns) => now + deadline_millis / 100,
                    _ => now + deadline_millis,
                };
                self.frozen.insert(migration, (Some(until), now));
                10
            }
            (Ask::Keep, Stillness::Frozen | Stillness::Kept) => {
                if let Some(frozen) = self.frozen.get_mut(&migration) {
                    frozen.0 = None;
                }
                if flaw == Some(Flaw::NeverLetsGo) {
                    return lost();
                }
                0
            }
            (Ask::Keep, Stillness::Running) if flaw == Some(Flaw::KeepsWhatRuns) => 0,
            (Ask::Release, Stillness::Kept) if flaw == Some(Flaw::NeverLetsGo) => 0,
            (Ask::Thaw, Stillness::Running | Stillness::Frozen) | (Ask::Release, _) => {
                frozen_for(self.frozen.remove(&migration))
            }
            (ask, stands) => {
                return Answer::Failed {
                    nobody: false,
                    why: format!("{ask:?} of what is {stands:?}"),
                };
            }
        };
        Answer::Done { millis }
    }
}

impl Node {
    /// Goes on with the cutovers of this node's servers.
    pub fn cutovers(&mut self, ctx: &mut Context) -> Lived {
        let migrations = self.up().agents.keys().map(|job| job.migration);
        let migrations: BTreeSet<MigrationId> = migrations.collect();
        let ids = self.up().cutovers.keys().copied().chain(migrations);
        let ids: BTreeSet<MigrationId> = ids.collect();
        for id in ids {
            let Some(view) = self.cutover_view(ctx, id) else {
                continue;
            };
            let machine = self.up().cutovers.get(&id);
            if view.wanted.is_none() && machine.is_none_or(Cutover::is_idle) {
                // Asked for again it begins anew.
                self.up().cutovers.remove(&id);
                continue;
            }
            let now = self.now(ctx);
            let machine = self.up().cutovers.entry(id).or_default();
            let before = machine.standing();
            let mut out = vec![];
            machine.settle(now, &view, &mut out);
            let moved = !out.is_empty() || machine.standing() != before;
            self.carry_cutover(ctx, id, out)?;
            self.up().dirty |= moved;
        }
        Ok(())
    }

    fn cutover_view(&mut self, ctx: &Context, id: MigrationId) -> Option<View> {
        let now = self.now(ctx);
        let due = self.due_checkpoint(now, &id);
        let (is_heard, wanted) = self.with_situation(now, |situation| {
            let plan = situation.plan.migrations.get(&id);
            let wanted = match plan.map(|plan| plan.desired) {
                _ if due.is_some() => Some(Wanted::CHECKPOINT),
                Some(Desired::Cutover { prove_full, source }) => Some(Wanted {
                    is_checkpoint: false,
                    prove_full,
                    source,
                }),
                _ => None,
            };
            (situation.is_heard, wanted)
        })?;
        let agents = self.up().agents.iter();
        let mine = agents.filter(|(job, _)| job.migration == id);
        let mut disks: Vec<_> = mine.map(|(_, machine)| machine.disk()).collect();
        for disk in &mut disks {
            // All passes here read all, and take no longer than if they did not.
            disk.is_tracked = true;
            disk.rest_millis = disk.rest_millis.map(|rest| rest / 4);
        }
        Some(View {
            is_heard,
            wanted,
            disks,
            unfreezable: None,
            is_prepared: true,
            is_begun: true,
            before_freeze: Gate::Open,
            after_freeze: Gate::Open,
            after_thaw: Gate::Open,
            has_stop: true,
            was_frozen: false,
            is_known: true,
        })
    }

    fn carry_cutover(&mut self, ctx: &mut Context, id: MigrationId, out: Vec<Action>) -> Lived {
        for action in out {
            self.deed(ctx)?;
            match action {
                Action::Ask(ask) => {
                    let slowest = if ctx.calm { 20 } else { SLOWEST_MILLIS };
                    let at = ctx.now + self.rng.between(1, slowest);
                    let (node, life) = (self.index, self.life);
                    let event = Event::Freezer {
                        node,
                        life,
                        migration: id,
                        ask,
                    };
                    ctx.network.schedule(at, event);
                }
                Action::Commit { frozen_millis } => self.commit_cutover(ctx, id, frozen_millis)?,
                Action::Stand { frozen_millis } => self.stand(ctx, id, frozen_millis)?,
                Action::Again(_) => {}
                Action::Tell(note) => self.tell(ctx, note),
            }
        }
        Ok(())
    }

    /// All records in one write: nothing can come between them.
    fn commit_cutover(&mut self, ctx: &mut Context, id: MigrationId, frozen_millis: u64) -> Lived {
        let mut committed = vec![];
        let mut told = vec![];
        for (job, machine) in &mut self.up().agents {
            if job.migration == id {
                let mut out = vec![];
                committed.extend(machine.commit(frozen_millis, &mut out));
                told.extend(out.into_iter().map(|action| (*job, action)));
            }
        }
        for record in committed {
            let root = record.finished.as_ref().map(|finished| finished.root);
            let source = &self.sources[&record.job.volume];
            invariants::one_moment(ctx, source, record.job, root);
            self.store_agent(ctx, record);
        }
        ctx.seen.cut_over_frozen += 1;
        for (job, action) in told {
            self.deed(ctx)?;
            self.carry_agent(ctx, job, action)?;
        }
        self.up().dirty = true;
        Ok(())
    }

    /// The checkpoint of a migration that is to be taken now.
    fn due_checkpoint(&self, now: Now, id: &MigrationId) -> Option<CheckpointName> {
        let agents = self.up.as_ref()?.agents.iter();
        let mine = agents.filter(|(job, _)| job.migration == *id);
        let records: Vec<_> = mine.map(|(_, machine)| machine.record()).collect();
        self.with_situation(now, |situation| situation.due_checkpoint(id, &records))?
    }

    /// All disks stand at a checkpoint, by one write.
    fn stand(&mut self, ctx: &mut Context, id: MigrationId, frozen: Option<u64>) -> Lived {
        let mut stood = vec![];
        for (job, machine) in &mut self.up().agents {
            if job.migration == id {
                stood.extend(machine.stand(frozen, &mut vec![]));
            }
        }
        for record in stood {
            self.store_agent(ctx, record);
        }
        self.up().dirty = true;
        Ok(())
    }

    /// A question to whoever freezes is carried out, whether who asked still runs or not.
    pub fn freezer_asked(&mut self, ctx: &mut Context, migration: MigrationId, ask: Ask) -> Answer {
        if self.freezer.is_absent {
            return Answer::Failed {
                nobody: true,
                why: "nobody freezes here".into(),
            };
        }
        let fails = !ctx.calm && self.rng.happens(40);
        if fails && self.rng.below(2) == 0 {
            return lost();
        }
        let answer = self.freezer.carry(migration, ask, ctx.now, ctx.flaw);
        let what = format_args!("freezer: {ask:?}, {answer:?}");
        ctx.note(self.index, what);
        if let (Ask::Freeze { .. }, Answer::Done { .. }) = (ask, &answer) {
            ctx.seen.freezes += 1;
        }
        if let (Ask::Thaw | Ask::Release, Answer::Done { millis: 1.. }) = (ask, &answer) {
            ctx.seen.thaws += 1;
        }
        // It was done, and nobody hears of it.
        if fails { lost() } else { answer }
    }

    /// Takes the answer.
    pub fn freezer_answered(
        &mut self,
        ctx: &mut Context,
        id: MigrationId,
        answer: Answer,
    ) -> Lived {
        let Some(view) = self.cutover_view(ctx, id) else {
            return Ok(());
        };
        let now = self.now(ctx);
        let mut out = vec![];
        if let Some(machine) = self.up().cutovers.get_mut(&id) {
            machine.answered(now, answer, &view, &mut out);
        }
        self.up().dirty = true;
        self.carry_cutover(ctx, id, out)
    }

    /// How far a cutover has come, for the facts of a disk.
    pub fn tell_of_cutover(&self, now: Now, id: &MigrationId, facts: &mut roles::situation::Facts) {
        let machine = self.up.as_ref().and_then(|up| up.cutovers.get(id));
        facts.cutover = machine.map(Cutover::standing).unwrap_or_default();
        facts.checkpoint = self.due_checkpoint(now, id);
    }
}

fn lost() -> Answer {
    Answer::Failed {
        nobody: false,
        why: "the connection broke".into(),
    }
}
