//! Events and progress: what happened here, kept and shown; and the live figures of
//! sessions, gossiped and heard.

use super::{Engine, RECENT_EVENTS, wall_clock};
use crate::net::Topic;
use crate::store::NewEvent;
use crate::views::Live;
use codec::Wire;
use keys::{MigrationId, PublicKey, Role};
use roles::{JobId, Note};
use serde::{Deserialize, Serialize};

/// How often figures are measured and gossiped.
const SAMPLE_MILLIS: u64 = 500;
/// Jobs in one progress message.
const MAX_PROGRESSED: usize = 256;
/// Live figures kept of jobs, of all nodes together.
const MAX_LIVE: usize = 4096;

/// Gossip of an agent: the live figures of its sessions. Stored nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progressed(pub(super) Vec<(JobId, [u64; 5])>);

impl Wire for Progressed {
    const NAME: &'static str = "progress";
    const VERSION: u8 = 1;
    const LIMIT: usize = 32 * 1024;
}

impl Engine {
    pub(super) fn tell(&mut self, migration: Option<MigrationId>, note: Note) {
        let event = NewEvent {
            at: wall_clock(),
            level: note.level,
            migration,
            kind: note.kind.to_owned(),
            text: note.text,
        };
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
            self.report.soon();
        }
    }

    /// Tells of something that a peer did, or that was refused to it: the first time
    /// within a minute, and the rest as a count when the minute is over.
    pub(super) fn tell_of(&mut self, peer: &PublicKey, migration: Option<MigrationId>, note: Note) {
        let now = self.now().mono_millis;
        let member = self.replica.authority().by_key(peer).map(|_| *peer);
        if let Some(note) = self.repeats.first(now, member, migration, note) {
            self.tell(migration, note);
        }
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
        let mut figures = vec![];
        for (job, slot) in &mut self.agents {
            if let Some(live) = slot.sample(now, SAMPLE_MILLIS) {
                figures.push((*job, live));
            }
        }
        if figures.is_empty() {
            return;
        }
        let wire = figures.iter().take(MAX_PROGRESSED).map(|(job, live)| {
            let rate = live.bytes_per_sec;
            let pass = u64::from(live.pass);
            (
                *job,
                [
                    pass,
                    live.total_bytes,
                    live.done_bytes,
                    live.sent_bytes,
                    rate,
                ],
            )
        });
        if let Ok(bytes) = codec::encode(&Progressed(wire.collect())) {
            // Progress is a hint: one that is too long is not given.
            let _ = self.net.gossip(Topic::Progress, bytes);
        }
        self.live.extend(figures);
    }

    /// Takes figures from the agent that the plan names; whether it was entitled.
    pub(super) fn progressed(&mut self, source: PublicKey, progressed: Progressed) -> bool {
        let authority = self.replica.authority();
        let Ok(member) = authority.standing(wall_clock(), &source, Role::Agent) else {
            return false;
        };
        let Progressed(figures) = progressed;
        let node = member.id;
        for (job, [pass, total_bytes, done_bytes, sent_bytes, bytes_per_sec]) in figures {
            let plan = self.replica.document().plan();
            let theirs = plan.migrations.get(&job.migration);
            let theirs = theirs.filter(|plan| plan.source == node);
            let planned = theirs.is_some_and(|plan| plan.volumes.contains(&job.volume));
            if planned && self.live.len() < MAX_LIVE {
                let pass = u32::try_from(pass).unwrap_or(u32::MAX);
                let live = Live {
                    pass,
                    total_bytes,
                    done_bytes,
                    sent_bytes,
                    bytes_per_sec,
                };
                self.live.insert(job, live);
            }
        }
        true
    }
}
