//! Events and progress: what happened here, kept and shown; and the live figures of
//! sessions, gossiped and heard.

use super::exchange::Gossip;
use super::figures::Figures;
use super::{Engine, RECENT_EVENTS, wall_clock};
use crate::store::NewEvent;
use crate::views::Live;
use codec::Wire;
use crdt::{Desired, Plan};
use keys::{Domain, MigrationId, NodeId, PublicKey, Role, Signed, UnixSecs};
use roles::provisioner::COPY_MISSED;
use roles::{JobId, Note};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

/// How often figures are measured.
const SAMPLE_MILLIS: u64 = 500;
/// So many nodes may gossip their figures as often as they measure them; in a larger
/// mesh each does so less often, since everybody hears everybody.
const CHATTY_NODES: u64 = 64;
/// Jobs in one progress message: with the largest figures they are as long as one may be.
const MAX_PROGRESSED: usize = 128;
/// Live figures kept of jobs, of all nodes together.
const MAX_LIVE: usize = 4096;

/// How often figures are dropped of jobs that are not planned any more.
const SWEEP_MILLIS: u64 = 10_000;

/// Gossip of an agent: the live figures of its sessions. Stored nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progressed {
    /// When the agent's process began, by its wall clock, and the number of the message
    /// since then: what is passed on twice is heard once.
    pub(super) number: (u64, u64),
    pub(super) figures: Vec<(JobId, Figures)>,
    /// For how long, in milliseconds from when this is heard, the agent keeps to what is
    /// left of its part of its site's limit when it lends the rest; none while it sends.
    pub(super) lends_millis: Option<u64>,
}

impl Wire for Progressed {
    const NAME: &'static str = "progress";
    const VERSION: u8 = 5;
    const LIMIT: usize = 31 * 1024;
}

impl Progressed {
    /// What an agent sealed.
    pub(super) fn open(signed: &Signed) -> Result<Self, keys::signed::Rejected> {
        signed.open(Domain::Progress)
    }
}

/// What was said and heard of progress.
#[derive(Debug)]
pub(super) struct Progress {
    since: u64,
    said: u64,
    next_millis: u64,
    next_sweep_millis: u64,
    /// The last message heard of each agent, and when; no more than there are members.
    heard: BTreeMap<PublicKey, ((u64, u64), u64)>,
}

impl Progress {
    /// Of a process that begins at `since`.
    pub(super) fn new(since: UnixSecs) -> Self {
        Self {
            since: since.0,
            said: 0,
            next_millis: 0,
            next_sweep_millis: 0,
            heard: BTreeMap::new(),
        }
    }

    /// Whether a message of an agent is newer than all that was heard of it, and not
    /// sooner than an honest one would be.
    fn is_new(&mut self, now: u64, source: PublicKey, number: (u64, u64)) -> bool {
        let Some((last, at)) = self.heard.get_mut(&source) else {
            self.heard.insert(source, (number, now));
            return true;
        };
        let is_new = *last < number && now >= *at + SAMPLE_MILLIS / 2;
        if is_new {
            (*last, *at) = (number, now);
        }
        is_new
    }
}

/// The node whose figures of a job are shown: none's of a migration that is gone or
/// deleted, or has other volumes.
fn agent_of(plan: &Plan, job: &JobId) -> Option<NodeId> {
    let migration = plan.migrations.get(&job.migration)?;
    let is_shown = migration.desired != Desired::Deleted && migration.volumes.contains(&job.volume);
    is_shown.then_some(migration.source)
}

/// About which migration, of which kind, in which words.
pub(super) type ToldBefore = BTreeSet<(Option<MigrationId>, String, String)>;

pub(super) fn told_before<'a>(events: impl IntoIterator<Item = &'a crdt::Event>) -> ToldBefore {
    let mut told = ToldBefore::new();
    for event in events {
        if event.kind == FOUND_AGAIN {
            is_found_again(&mut told, event.migration);
        }
        told.insert((event.migration, event.kind.clone(), event.text.clone()));
    }
    told
}

/// Kind of the event that a volume is where it has to be.
pub(super) const FOUND_AGAIN: &str = "target-ready";

/// That it is missed is news again.
pub(super) fn is_found_again(told: &mut ToldBefore, migration: Option<MigrationId>) {
    told.retain(|(of, kind, _)| *of != migration || kind != COPY_MISSED);
}

impl Engine {
    pub(super) fn tell(&mut self, migration: Option<MigrationId>, note: Note) {
        self.tell_here(migration, note);
        self.report.soon();
    }

    /// Tells what is found again after each start, unless it was told before this one.
    pub(super) fn tell_once(&mut self, migration: Option<MigrationId>, note: Note) {
        let key = (migration, note.kind.to_owned(), note.text);
        if !self.told_before.remove(&key) {
            let (migration, _, text) = key;
            self.tell(migration, Note { text, ..note });
        }
    }

    /// Tells what is worth knowing at this node, and not worth a new report to all.
    pub(super) fn tell_here(&mut self, migration: Option<MigrationId>, note: Note) {
        let event = NewEvent {
            at: wall_clock(),
            level: note.level,
            migration,
            kind: note.kind.to_owned(),
            text: note.text,
        };
        self.measured.told(event.level);
        match event.level {
            crdt::Level::Info => tracing::info!(kind = event.kind, "{}", event.text),
            crdt::Level::Warn => tracing::warn!(kind = event.kind, "{}", event.text),
            crdt::Level::Error => tracing::error!(kind = event.kind, "{}", event.text),
        }
        let stored = self.store.append_event(&event);
        if let Some(seq) = self.must(stored) {
            self.events.push_back(event.numbered(seq));
            if self.events.len() > RECENT_EVENTS {
                self.events.pop_front();
            }
        }
    }

    /// Tells of something that a peer did, or that was refused to it: the first time
    /// within a minute, and the rest as a count when the minute is over.
    pub(super) fn tell_of(&mut self, peer: &PublicKey, migration: Option<MigrationId>, note: Note) {
        if let Some(note) = self.first_of(peer, migration, note) {
            self.tell(migration, note);
        }
    }

    /// The same, where it concerns nobody but this node.
    pub(super) fn tell_here_of(&mut self, peer: &PublicKey, note: Note) {
        if let Some(note) = self.first_of(peer, None, note) {
            self.tell_here(None, note);
        }
    }

    fn first_of(
        &mut self,
        peer: &PublicKey,
        migration: Option<MigrationId>,
        note: Note,
    ) -> Option<Note> {
        let now = self.now().mono_millis;
        let member = self.replica.authority().by_key(peer).map(|_| *peer);
        self.repeats.first(now, member, migration, note)
    }

    pub(super) fn tell_repeats(&mut self) {
        let now = self.now().mono_millis;
        for (migration, note) in self.repeats.due(now) {
            self.tell(migration, note);
        }
    }

    pub(super) fn tell_started(&mut self) {
        let jobs = self.agents.len();
        let copies = self.replicator.records().count();
        let text = format!(
            "dunlin {} started; {jobs} volumes to send, {copies} copies held",
            env!("CARGO_PKG_VERSION")
        );
        self.tell(None, Note::info("node-started", text));
        if self.config.moved {
            let text = "this data folder was made on another machine and was accepted here (`--moved`): if the other one still runs, both will be stopped";
            self.tell(None, Note::warn("machine-moved", text));
        }
        if !self.replica.may_write() {
            let text = "nothing is changed before a peer has shown how far this node's own log goes; `dunlin run --alone` does without";
            self.tell(None, Note::info("waits-for-peers", text));
        }
    }

    pub(super) fn sample_progress(&mut self) {
        let now = self.now().mono_millis;
        if self.progress.next_sweep_millis <= now {
            self.progress.next_sweep_millis = now + SWEEP_MILLIS;
            let plan = self.replica.document().plan();
            self.live.retain(|job, _| agent_of(plan, job).is_some());
        }
        let limit = self.pacer.pace().limit.map(NonZeroU64::get);
        let mut figures = vec![];
        for (job, slot) in &mut self.agents {
            if let Some(live) = slot.sample(now, SAMPLE_MILLIS, limit) {
                figures.push((*job, live));
            }
        }
        let lends_millis = self.lends_millis();
        let is_due = lends_millis.is_some() && self.is_lending_due(now);
        if figures.is_empty() && !is_due {
            return;
        }
        let at = wall_clock();
        let live = figures.iter().map(|(job, figures)| {
            let live = Live {
                figures: *figures,
                at,
                pace_millis: SAMPLE_MILLIS,
            };
            (*job, live)
        });
        self.live.extend(live);
        figures.truncate(MAX_PROGRESSED);
        self.gossip_progress(now, figures, lends_millis);
    }

    fn gossip_progress(
        &mut self,
        now: u64,
        figures: Vec<(JobId, Figures)>,
        lends_millis: Option<u64>,
    ) {
        if now < self.progress.next_millis {
            return;
        }
        self.progress.next_millis = now + self.pace_millis();
        self.progress.said += 1;
        let number = (self.progress.since, self.progress.said);
        if let Some(span) = lends_millis {
            self.says_it_lends(now, span);
        }
        let progressed = Progressed {
            number,
            figures,
            lends_millis,
        };
        // Progress is a hint: one that is too long is not given.
        if let Ok(signed) = Signed::seal(&self.identity, Domain::Progress, &progressed) {
            self.gossip(&Gossip::Progress(signed), None);
        }
    }

    /// How much later than its last an agent says its next figures.
    pub(super) fn pace_millis(&self) -> u64 {
        SAMPLE_MILLIS * (self.admitted.len() as u64 / CHATTY_NODES)
    }

    /// Takes figures from the agent that the plan names; whether they are new, and so to
    /// be passed on.
    pub(super) fn progressed(&mut self, source: PublicKey, progressed: Progressed) -> bool {
        let authority = self.replica.authority();
        // An agent whose enrolment is not here yet is nobody's fault.
        let Ok(member) = authority.standing(wall_clock(), &source, Role::Agent) else {
            return false;
        };
        let node = member.id;
        let Progressed {
            number,
            figures,
            lends_millis,
        } = progressed;
        let now = self.now().mono_millis;
        let is_empty = figures.is_empty() && lends_millis.is_none();
        if is_empty || !self.progress.is_new(now, source, number) {
            return false;
        }
        self.limits.hear(now, node, lends_millis);
        let (at, pace_millis) = (wall_clock(), self.pace_millis());
        for (job, figures) in figures {
            let agent = agent_of(self.replica.document().plan(), &job);
            let has_room = self.live.contains_key(&job) || self.live.len() < MAX_LIVE;
            if agent == Some(node) && has_room {
                let live = Live {
                    figures,
                    at,
                    pace_millis,
                };
                self.live.insert(job, live);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use keys::Identity;

    #[test]
    fn that_a_copy_is_missed_is_news_again_once_it_was_found() {
        let event = |seq, migration, kind: &str| crdt::Event {
            seq,
            at: UnixSecs(1),
            level: crdt::Level::Warn,
            migration: Some(MigrationId([migration; 16])),
            kind: kind.into(),
            text: "it".into(),
        };
        let told = |events: &[crdt::Event]| {
            let told = told_before(events);
            told.into_iter()
                .map(|(of, kind, _)| (of.unwrap().0[0], kind))
                .collect::<Vec<_>>()
        };
        let missed = [event(1, 1, COPY_MISSED), event(2, 2, COPY_MISSED)];
        assert_eq!(told(&missed).len(), 2);
        let [one, other] = missed;
        let found = event(3, 1, FOUND_AGAIN);
        let all = [one.clone(), other, found.clone()];
        let expected = [(1, FOUND_AGAIN.to_owned()), (2, COPY_MISSED.to_owned())];
        assert_eq!(told(&all), expected);
        assert_eq!(told(&[found, one]).len(), 2, "missed since");
    }

    #[test]
    fn progress_counts_once_and_only_under_its_own_seal() {
        let agent = Identity::from_seed(&[1; 32]);
        let mut progress = Progress::new(UnixSecs(1));
        for (step, (number, is_new)) in (0..).zip([
            ((5, 1), true),
            ((5, 1), false),
            ((5, 2), true),
            ((5, 1), false),
            ((6, 1), true),
            ((5, 9), false),
        ]) {
            let now = SAMPLE_MILLIS * step;
            assert_eq!(progress.is_new(now, agent.public(), number), is_new);
        }
        // A flood of it is passed on at the pace of an honest agent.
        let passed = (0..100).filter(|at| progress.is_new(10_000 + at, agent.public(), (7, *at)));
        assert_eq!(passed.count(), 1);
        let figures = vec![];
        let said = Progressed {
            number: (5, 1),
            figures,
            lends_millis: None,
        };
        let sealed = Signed::seal(&agent, Domain::Progress, &said).unwrap();
        assert_eq!(Progressed::open(&sealed).unwrap(), said);
        let other = Signed::seal(&agent, Domain::Report, &said).unwrap();
        assert!(Progressed::open(&other).is_err());
    }

    #[test]
    fn figures_are_shown_of_planned_volumes_of_migrations_that_are_not_deleted() {
        let (id, node) = (MigrationId([1; 16]), NodeId([3; 32]));
        let volume = keys::VolumeId([2; 16]);
        let plan = |desired| {
            let migration = crdt::MigrationPlan {
                id,
                name: "web".into(),
                source: node,
                volumes: vec![volume],
                provider: "local".into(),
                provisioner: node,
                replicators: vec![],
                site: None,
                desired,
                grants: vec![],
                hooks: vec![],
                leave_out: None,
                checkpoints: crdt::Checkpoints::default(),
                created_at: UnixSecs(1),
                created_by: PublicKey([4; 32]),
                conflicts: vec![],
            };
            Plan {
                migrations: [(id, migration)].into(),
                ..Plan::default()
            }
        };
        let job = |migration, volume| JobId { migration, volume };
        let (planned, deleted) = (plan(Desired::Started), plan(Desired::Deleted));
        assert_eq!(agent_of(&planned, &job(id, volume)), Some(node));
        assert_eq!(agent_of(&deleted, &job(id, volume)), None);
        let other = keys::VolumeId([9; 16]);
        assert_eq!(agent_of(&planned, &job(id, other)), None);
        let gone = job(MigrationId([9; 16]), volume);
        assert_eq!(agent_of(&planned, &gone), None);
    }

    #[test]
    fn the_longest_message_of_progress_can_be_said_and_its_bytes_are_these() {
        let job = JobId {
            migration: MigrationId([1; 16]),
            volume: keys::VolumeId([2; 16]),
        };
        let most = Figures {
            pass: u32::MAX,
            total_bytes: u64::MAX,
            done_bytes: u64::MAX,
            found_bytes: u64::MAX,
            pass_millis: u64::MAX,
            bytes_per_sec: Some(u64::MAX),
            pass_bytes_per_sec: u64::MAX,
            sent_bytes_per_sec: u64::MAX,
            read_bytes: u64::MAX,
            sent_bytes: u64::MAX,
            disk_bytes: u64::MAX,
            saved_by_compression: u64::MAX,
            saved_by_patches: u64::MAX,
            saved_by_references: u64::MAX,
            unsettled_bytes: u64::MAX,
            barriers: u64::MAX,
            barrier_age_millis: Some(u64::MAX),
            lag_millis: Some(u64::MAX),
            is_uncompressed: true,
            limit_bytes_per_sec: Some(u64::MAX),
            reads_held_at: Some(u64::MAX),
        };
        let number = (u64::MAX, u64::MAX);
        let figures = vec![(job, most); MAX_PROGRESSED];
        let longest = Progressed {
            number,
            figures,
            lends_millis: Some(u64::MAX),
        };
        assert!(codec::encode(&longest).is_ok());

        let figures = Figures {
            pass: 1,
            total_bytes: 2,
            done_bytes: 3,
            found_bytes: 17,
            pass_millis: 4,
            bytes_per_sec: Some(5),
            pass_bytes_per_sec: 6,
            sent_bytes_per_sec: 7,
            read_bytes: 8,
            sent_bytes: 9,
            disk_bytes: 10,
            saved_by_compression: 11,
            saved_by_patches: 12,
            saved_by_references: 13,
            unsettled_bytes: 14,
            barriers: 15,
            barrier_age_millis: None,
            lag_millis: Some(16),
            is_uncompressed: true,
            limit_bytes_per_sec: Some(19),
            reads_held_at: None,
        };
        let said = Progressed {
            number: (7, 8),
            figures: vec![(job, figures)],
            lends_millis: Some(18),
        };
        let mut golden = vec![5, 7, 8, 1];
        golden.extend([1; 16]);
        golden.extend([2; 16]);
        golden.extend([
            1, 2, 3, 17, 4, 1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 16, 1, 1, 19, 0, 1, 18,
        ]);
        assert_eq!(codec::encode(&said).unwrap(), golden);
        assert_eq!(codec::decode::<Progressed>(&golden).unwrap(), said);
    }
}
