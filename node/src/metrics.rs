//! What a node shows to Prometheus: its counters and gauges as OpenMetrics text.
//!
//! Names follow the conventions: base units, `_total` for what only grows, one label value
//! for each thing that there are few of. Not here: who may read it (`api::metrics`), and
//! where the figures come from (`engine::measured`).

mod names;
mod page;
mod process;

pub use names::Job;

use crate::api::model::{CountersView, ForecastView, JobView, MigrationView};
use crate::transfer::{Counts, Way};
use names::Names;
use page::{Labels, Page};
use prometheus_client::registry::Unit;

/// The media type of [`text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Volumes shown at most, so that a scrape stays small: beyond them, only how many.
pub const MAX_VOLUMES: usize = 512;

/// All that is shown, at one time.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Members of the mesh, this node among them.
    pub members: usize,
    /// Members that this node is connected to.
    pub connected: usize,
    /// Statements in the ledger.
    pub statements: usize,
    /// Changes in the document.
    pub changes: usize,
    /// Reports held.
    pub reports: usize,
    /// Bytes of the stored state, and of the document's snapshot beside it.
    pub stored_bytes: [(&'static str, u64); 2],
    /// What went between this node and its peers.
    pub traffic: Traffic,
    /// Events told here since the node started, by level.
    pub events: [(&'static str, u64); 3],
    /// The limit that holds for all that is sent, in bytes a second.
    pub limit: Option<u64>,
    /// Sessions that send.
    pub sending: usize,
    /// Sessions that receive.
    pub receiving: usize,
    /// Volumes that this node sends, with what its sessions counted.
    pub sources: Vec<(Job, Counts)>,
    /// Copies that this node receives.
    pub copies: Vec<(Job, Counts)>,
    /// Migrations that are started, as far as they are shown.
    pub migrations: Vec<MigrationView>,
    /// How many more there are.
    pub left_out: usize,
}

/// What went between this node and its peers, beside blocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Bytes of gossip given to the connections.
    pub gossip_sent_bytes: u64,
    /// Bytes of gossip heard.
    pub gossip_heard_bytes: u64,
    /// Questions of anti-entropy asked.
    pub asked: u64,
    /// Of these, such as got no answer.
    pub unanswered: u64,
    /// Bytes of the answers.
    pub answer_bytes: u64,
    /// Frames of peers that were not taken since they are none, or too long.
    pub refused_frames: u64,
    /// Messages of peers that were forged or malformed.
    pub refused_messages: u64,
    /// Block streams of peers that were refused.
    pub refused_streams: u64,
}

/// A snapshot as text.
pub fn text(snapshot: &Snapshot) -> String {
    let mut page = Page::new();
    process::put(&mut page);
    mesh(&mut page, snapshot);
    let names = Names::of(snapshot);
    sources(&mut page, snapshot, &names);
    copies(&mut page, snapshot, &names);
    volumes(&mut page, snapshot, &names);
    page.finish()
}

fn mesh(page: &mut Page, snapshot: &Snapshot) {
    let traffic = snapshot.traffic;
    let labelled = |name, value: &str| -> Labels { vec![(name, value.to_owned())] };
    page.info(
        "dunlin_build",
        "This program",
        vec![("version", env!("CARGO_PKG_VERSION").into())],
    );
    page.gauge(
        "dunlin_members",
        "Members of the mesh, this node among them",
        snapshot.members,
    );
    page.gauge(
        "dunlin_peers_connected",
        "Members that this node is connected to",
        snapshot.connected,
    );
    page.gauge(
        "dunlin_ledger_statements",
        "Statements in the ledger",
        snapshot.statements,
    );
    page.gauge(
        "dunlin_document_changes",
        "Changes in the master document",
        snapshot.changes,
    );
    page.gauge("dunlin_reports", "Reports of nodes held", snapshot.reports);
    let stored = snapshot.stored_bytes.iter();
    let stored = stored.map(|(what, bytes)| (labelled("what", what), *bytes as f64));
    page.gauges(
        "dunlin_stored",
        "Bytes of stored state",
        Some(Unit::Bytes),
        stored,
    );
    let gossip = [
        (labelled("direction", "sent"), traffic.gossip_sent_bytes),
        (labelled("direction", "heard"), traffic.gossip_heard_bytes),
    ];
    page.counters(
        "dunlin_gossip",
        "Bytes of gossip",
        Some(Unit::Bytes),
        gossip,
    );
    page.counter(
        "dunlin_sync_rounds",
        "Questions of anti-entropy asked of peers",
        None,
        traffic.asked,
    );
    page.counter(
        "dunlin_sync_failures",
        "Questions of anti-entropy that got no answer",
        None,
        traffic.unanswered,
    );
    page.counter(
        "dunlin_sync_answer",
        "Bytes of answers of anti-entropy",
        Some(Unit::Bytes),
        traffic.answer_bytes,
    );
    let refused = [
        (labelled("what", "frame"), traffic.refused_frames),
        (labelled("what", "message"), traffic.refused_messages),
        (labelled("what", "stream"), traffic.refused_streams),
    ];
    page.counters(
        "dunlin_refused",
        "What was not taken from peers",
        None,
        refused,
    );
    let events = snapshot.events.iter();
    let events = events.map(|(level, count)| (labelled("level", level), *count));
    page.counters("dunlin_events", "Events told at this node", None, events);
    let sessions = [
        (labelled("direction", "send"), snapshot.sending as f64),
        (labelled("direction", "receive"), snapshot.receiving as f64),
    ];
    page.gauges("dunlin_sessions", "Block sessions", None, sessions);
    let limit = snapshot.limit.map(|limit| (vec![], limit as f64));
    page.gauges(
        "dunlin_limit_bytes_per_second",
        "What all sessions together may send in a second, while that is limited",
        None,
        limit,
    );
    page.gauge(
        "dunlin_migrations_left_out",
        "Started migrations that are not shown here",
        snapshot.left_out,
    );
}

/// One counter of one job: its name, its help, its unit, and how it is read.
type Count<T> = (&'static str, &'static str, Option<Unit>, fn(&T) -> u64);

fn sources(page: &mut Page, snapshot: &Snapshot, names: &Names) {
    let all: [Count<Counts>; 3] = [
        (
            "dunlin_source_limit_wait",
            "Waited because of a limit, in full seconds",
            Some(Unit::Seconds),
            |counts| counts.paced.as_secs(),
        ),
        (
            "dunlin_source_read",
            "Bytes read from the source",
            Some(Unit::Bytes),
            |counts| counts.bytes_read,
        ),
        (
            "dunlin_source_barriers",
            "Barriers that became durable at the copy",
            None,
            |counts| counts.barriers,
        ),
    ];
    for (name, help, unit, count) in all {
        let values = snapshot.sources.iter();
        let values = values.map(|(job, counts)| (names.with_peer(job), count(counts)));
        page.counters(name, help, unit, values);
    }
    let held = snapshot.sources.iter();
    let held = held.map(|(job, counts)| {
        let is_held = counts.reads_held_at > 0;
        (names.with_peer(job), f64::from(u8::from(is_held)))
    });
    page.gauges(
        "dunlin_source_backing_off",
        "Whether reading is held back for the sake of the source's own work",
        None,
        held,
    );
    let by_way = |count: fn((u64, u64)) -> u64| {
        let each = snapshot.sources.iter().flat_map(move |(job, counts)| {
            Way::ALL.into_iter().map(move |way| {
                let mut labels = names.with_peer(job);
                labels.push(("encoding", way.word().into()));
                (labels, count(counts.sent(way)))
            })
        });
        each.collect::<Vec<_>>()
    };
    page.counters(
        "dunlin_source_sent_payload",
        "Bytes of payload sent",
        Some(Unit::Bytes),
        by_way(|(_, payload)| payload),
    );
    page.counters(
        "dunlin_source_sent_disk",
        "Bytes of disk that was sent stands for",
        Some(Unit::Bytes),
        by_way(|(disk, _)| disk),
    );
}

fn copies(page: &mut Page, snapshot: &Snapshot, names: &Names) {
    let all: [Count<Counts>; 4] = [
        (
            "dunlin_copy_received_payload",
            "Bytes of payload received",
            Some(Unit::Bytes),
            |counts| counts.bytes_sent,
        ),
        (
            "dunlin_copy_written",
            "Bytes of disk written, zeros among them",
            Some(Unit::Bytes),
            Counts::disk_bytes,
        ),
        (
            "dunlin_copy_reread",
            "Bytes read back or hashed again",
            Some(Unit::Bytes),
            |counts| counts.bytes_reread,
        ),
        (
            "dunlin_copy_barriers",
            "Barriers made durable",
            None,
            |counts| counts.barriers,
        ),
    ];
    for (name, help, unit, count) in all {
        let values = snapshot.copies.iter();
        let values = values.map(|(job, counts)| (names.with_peer(job), count(counts)));
        page.counters(name, help, unit, values);
    }
}

/// One gauge of a volume: its name, its help, its unit, and its value where it is known.
type Gauge = (
    &'static str,
    &'static str,
    Option<Unit>,
    fn(&JobView) -> Option<f64>,
);

fn volumes(page: &mut Page, snapshot: &Snapshot, names: &Names) {
    let jobs: Vec<(Labels, &JobView)> = snapshot
        .migrations
        .iter()
        .flat_map(|migration| {
            let volumes = migration.volumes.iter();
            volumes.map(|volume| (names.of_view(migration, volume), volume))
        })
        .take(MAX_VOLUMES)
        .collect();
    let stages = jobs.iter().map(|(labels, job)| {
        let mut labels = labels.clone();
        labels.push(("stage", job.stage.clone()));
        (labels, 1.0)
    });
    page.gauges(
        "dunlin_volume_stage",
        "The stage of a volume, as its agent last reported",
        None,
        stages,
    );
    for (name, help, unit, value) in gauges() {
        let known = jobs
            .iter()
            .filter_map(|(labels, job)| Some((labels.clone(), value(job)?)));
        page.gauges(name, help, unit, known);
    }
}

fn gauges() -> [Gauge; 14] {
    use Unit::{Bytes, Seconds};
    [
        (
            "dunlin_volume_size",
            "Length of the volume",
            Some(Bytes),
            |job| Some(job.length as f64),
        ),
        (
            "dunlin_volume_pass",
            "The pass that runs or ran last",
            None,
            |job| {
                let last = job.passes.last().map_or(0, |pass| pass.pass);
                Some(f64::from(
                    job.progress.as_ref().map_or(last, |live| live.pass),
                ))
            },
        ),
        (
            "dunlin_volume_pass_done",
            "Bytes that the pass under way has dealt with",
            Some(Bytes),
            |job| Some(job.progress.as_ref()?.done_bytes as f64),
        ),
        (
            "dunlin_volume_throughput_bytes_per_second",
            "Bytes of the source dealt with in a second, over 10 s",
            None,
            |job| Some(job.progress.as_ref()?.bytes_per_sec as f64),
        ),
        (
            "dunlin_volume_pass_throughput_bytes_per_second",
            "Bytes of the source dealt with in a second, over the pass",
            None,
            |job| Some(job.progress.as_ref()?.pass_bytes_per_sec as f64),
        ),
        (
            "dunlin_volume_lag",
            "How old the copy may be: since the last complete pass began",
            Some(Seconds),
            |job| counted(job, |counters| counters.lag_secs),
        ),
        (
            "dunlin_volume_barrier_age",
            "Since a barrier became durable",
            Some(Seconds),
            |job| counted(job, |counters| counters.barrier_age_secs),
        ),
        (
            "dunlin_volume_backlog",
            "Bytes known to differ that are not durable at the copy",
            Some(Bytes),
            |job| counted(job, |counters| Some(counters.backlog_bytes)),
        ),
        (
            "dunlin_volume_behind",
            "Bytes by which the copy is behind, at most",
            Some(Bytes),
            |job| foreseen(job, |forecast| Some(forecast.behind_bytes?.high)),
        ),
        (
            "dunlin_volume_change_bytes_per_second",
            "Bytes of the source that change in a second, at most",
            None,
            |job| foreseen(job, |forecast| Some(forecast.change_bytes_per_sec?.high)),
        ),
        (
            "dunlin_volume_link_bytes_per_second",
            "Bytes of the disk that passes sent in a second, at least",
            None,
            |job| foreseen(job, |forecast| Some(forecast.link_bytes_per_sec?.low)),
        ),
        (
            "dunlin_volume_converges",
            "Whether the rest fits a short freeze, or will: 1, 0.5 perhaps, 0 not",
            None,
            |job| match job.forecast.as_ref()?.verdict.as_str() {
                "fits" | "converges" => Some(1.0),
                "uncertain" => Some(0.5),
                "diverges" => Some(0.0),
                _ => None,
            },
        ),
        (
            "dunlin_volume_converges_in",
            "Until the rest fits a short freeze, at most",
            Some(Seconds),
            |job| {
                let forecast = job.forecast.as_ref()?;
                match forecast.verdict.as_str() {
                    "fits" => Some(0.0),
                    "converges" => Some(forecast.converges_in_secs?.high as f64),
                    _ => None,
                }
            },
        ),
        (
            "dunlin_volume_pass_left",
            "Until the pass under way is complete, at most",
            Some(Seconds),
            |job| foreseen(job, |forecast| Some(forecast.pass_left_secs?.high)),
        ),
    ]
}

fn counted(job: &JobView, value: fn(&CountersView) -> Option<u64>) -> Option<f64> {
    value(job.counters.as_ref()?).map(|value| value as f64)
}

fn foreseen(job: &JobView, value: fn(&ForecastView) -> Option<u64>) -> Option<f64> {
    value(job.forecast.as_ref()?).map(|value| value as f64)
}

#[cfg(test)]
mod tests;
