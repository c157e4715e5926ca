//! Figures of a volume that moves: its passes, what was counted, and the forecast.

use serde::{Deserialize, Serialize};

/// A pass that is complete and durable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PassView {
    /// Its number.
    pub pass: u32,
    /// Blocks of 64 KiB that differed and were sent.
    pub blocks: u64,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// How long it took.
    pub millis: u64,
    /// From the beginning of the pass before to the beginning of this one: the time in
    /// which that which it found had changed. None where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_millis: Option<u64>,
    /// What was written, as the kernel told it, was compared, and not the whole source.
    #[serde(default)]
    pub tracked: bool,
}

/// Live figures of a pass.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProgressView {
    /// Its number.
    pub pass: u32,
    /// Bytes of the volume.
    pub total_bytes: u64,
    /// Bytes compared or skipped so far.
    pub done_bytes: u64,
    /// Payload bytes sent since the agent started.
    pub sent_bytes: u64,
    /// Bytes of the volume dealt with in a second, over the last 10 s: those that were equal,
    /// zero or skipped count as those that were sent.
    pub bytes_per_sec: u64,
    /// The same over the whole pass.
    pub pass_bytes_per_sec: u64,
    /// Payload bytes sent in a second, over the last 10 s; none in a pass that has just
    /// begun.
    pub sent_bytes_per_sec: Option<u64>,
    /// How long the pass has run.
    pub millis: u64,
    /// The limit that holds for all that the agent sends together: of a limit that its site
    /// shares its part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes_per_sec: Option<u64>,
    /// The pace at which reading is held for the sake of the source's own work; none while
    /// it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads_held_bytes_per_sec: Option<u64>,
}

/// What an agent counted of a volume since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersView {
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Payload bytes sent.
    pub sent_bytes: u64,
    /// Bytes of disk that they stand for.
    pub disk_bytes: u64,
    /// Bytes that compression kept off the wire.
    pub saved_by_compression: u64,
    /// The same of patches.
    pub saved_by_patches: u64,
    /// The same of references.
    pub saved_by_references: u64,
    /// Barriers that became durable.
    pub barriers: u64,
    /// How long ago the last of them did; none once the volume is cut over.
    pub barrier_age_secs: Option<u64>,
    /// How long ago the last complete pass began: all that is older is in the copy. None
    /// once the volume is cut over: what is written to the source later is not to reach it.
    pub lag_secs: Option<u64>,
    /// Bytes known to differ that are not durable at the copy yet.
    pub backlog_bytes: u64,
}

/// From the least to the most that it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeView {
    /// At least.
    pub low: u64,
    /// At most.
    pub high: u64,
}

/// Whether and when what is left will fit a short freeze.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForecastView {
    /// `unknown`; `fits`: it does now; `converges`; `uncertain`: it may, or it may not;
    /// `diverges`: it will not; `cutover`: one is under way, and nothing is foreseen, since
    /// the source is to be quiet now.
    pub verdict: String,
    /// Of `unknown`, what is missing: `first-pass`, `changes` (a second pass), `link` (a
    /// pass that sends enough), `standstill`, or `agent-silent` (its agent says nothing of
    /// the volume now). Of `uncertain` and `diverges`, why not: `link` (as much changes as
    /// can be sent) or `looking` (too much changes while the disk is looked at).
    pub because: Option<String>,
    /// Of those, what would help: `compression`, `bandwidth`, `quiet-hours`, `tracker`.
    pub help: Vec<String>,
    /// Seconds from now, if passes follow each other; of `uncertain` the soonest.
    pub converges_in_secs: Option<RangeView>,
    /// Bytes by which the copy is behind now.
    pub behind_bytes: Option<RangeView>,
    /// Bytes of the disk that change in a second.
    pub change_bytes_per_sec: Option<RangeView>,
    /// Bytes of the disk that were sent in a second, by passes that had enough to send.
    pub link_bytes_per_sec: Option<RangeView>,
    /// Whether the link may carry more, since no pass had to wait for it.
    pub link_is_at_least: bool,
    /// How long looking at the disk takes: the least that a pass takes.
    pub looking_millis: Option<RangeView>,
    /// What the pass under way still takes.
    pub pass_left_secs: Option<RangeView>,
    /// The freeze: sending may take so long in it.
    pub freeze_millis: u64,
}
