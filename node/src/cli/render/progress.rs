//! How far a volume is, how fast it gets on and what it is held to, in figures and in words.
//!
//! Not here: bars and tables.

use crate::api::model::{JobView, MigrationView, ProgressView};
use crate::cli::figures::{eta, percent, rate, size};

use super::forecast;

/// Rates of which one is less than so many percent of the other differ enough to be told
/// apart.
const ALIKE_PERCENT: u64 = 80;

/// How fast volumes get on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed {
    /// Bytes of the volumes dealt with in a second, whether they had to be sent or not.
    pub disk_bytes: u64,
    /// Bytes of payload sent in a second; none while that is not known.
    pub sent_bytes: Option<u64>,
}

impl Speed {
    /// In words: both rates only where they are far from each other.
    fn words(self) -> String {
        let disk = rate(self.disk_bytes);
        match self.sent_bytes {
            Some(sent) if differ(self.disk_bytes, sent) => {
                format!("{disk} of the disk, {} on the wire", rate(sent))
            }
            _ => disk,
        }
    }
}

fn differ(one: u64, other: u64) -> bool {
    one.min(other).saturating_mul(100) < one.max(other).saturating_mul(ALIKE_PERCENT)
}

/// How much of the pass under way is done; all of it between passes, what is in the copy
/// while the first is held.
pub fn pass_percent(job: &JobView) -> u8 {
    match (&job.progress, job.first_pass_bytes) {
        (Some(live), _) if job.stage != "cut-over" => percent(live.done_bytes, live.total_bytes),
        _ if has_first_pass(job) => 100,
        (_, Some(bytes)) if job.length > 0 => percent(bytes, job.length),
        _ => 0,
    }
}

/// How much of the first passes of all volumes is done; none where that is not known.
pub fn first_passes_percent(view: &MigrationView) -> Option<u8> {
    if view.stage == "unknown" {
        return None;
    }
    // Before its source has reported a volume has no length here, and no pass either.
    if view.volumes.iter().all(|job| job.length == 0) {
        let passed = !view.volumes.is_empty() && view.volumes.iter().all(has_first_pass);
        return Some(if passed { 100 } else { 0 });
    }
    let total = view.volumes.iter().map(|job| job.length);
    let mut done = 0_u64;
    for job in &view.volumes {
        done = done.saturating_add(match &job.progress {
            _ if has_first_pass(job) => job.length,
            Some(live) => live.done_bytes.min(job.length),
            None => job.first_pass_bytes?,
        });
    }
    Some(percent(done, total.fold(0, u64::saturating_add)))
}

/// How fast all volumes together get on; none when nothing moves.
pub fn total_speed(view: &MigrationView) -> Option<Speed> {
    let speeds = view.volumes.iter().filter_map(speed_of);
    speeds.reduce(|one, other| Speed {
        disk_bytes: one.disk_bytes.saturating_add(other.disk_bytes),
        sent_bytes: match (one.sent_bytes, other.sent_bytes) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        },
    })
}

/// How fast a volume gets on; none when it does not.
pub fn speed_of(job: &JobView) -> Option<Speed> {
    let live = moving(job).filter(|live| live.bytes_per_sec > 0)?;
    Some(Speed {
        disk_bytes: live.bytes_per_sec,
        sent_bytes: live.sent_bytes_per_sec,
    })
}

/// What a volume that moves is held to: a limit, and politeness to the source's own work;
/// each as a few words.
pub fn holds(job: &JobView) -> Vec<String> {
    let Some(live) = moving(job) else {
        return vec![];
    };
    let limit = live.limit_bytes_per_sec;
    let limit = limit.map(|limit| format!("limit {}", rate(limit)));
    let held = live.reads_held_bytes_per_sec;
    let held = held.map(|pace| format!("gives way to own work at {}", rate(pace)));
    limit.into_iter().chain(held).collect()
}

/// The same with whom it is about, to follow `held to`.
pub fn held_to(job: &JobView) -> Option<String> {
    let live = moving(job)?;
    let limit = live.limit_bytes_per_sec.map(|limit| {
        format!(
            "a limit of {} for all disks of this server together",
            rate(limit)
        )
    });
    let held = live.reads_held_bytes_per_sec.map(|pace| {
        format!(
            "reading {}, since what the server itself writes slows",
            rate(pace)
        )
    });
    let parts: Vec<String> = limit.into_iter().chain(held).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The live figures of a volume that moves. The last ones of a pass that was interrupted
/// are still there, and no longer true.
fn moving(job: &JobView) -> Option<&ProgressView> {
    let held = matches!(
        job.stage.as_str(),
        "enrolled" | "paused" | "stalled" | "failed" | "cut-over" | "unknown"
    );
    job.progress.as_ref().filter(|_| !held)
}

fn has_first_pass(job: &JobView) -> bool {
    let later = matches!(
        job.stage.as_str(),
        "replicating" | "ready-for-cutover" | "cut-over"
    );
    later || !job.passes.is_empty()
}

/// Stage, pass, rate and what is left, for beside a bar. What matters less comes last,
/// where a narrow terminal cuts.
pub fn beside_bar(job: &JobView) -> String {
    let mut parts = vec![job.stage.clone()];
    parts.extend(figures(job));
    parts.extend(job.forecast.as_ref().and_then(forecast::short));
    if !job.step.is_empty() {
        parts.push(job.step.clone());
    }
    parts.join(", ")
}

/// All of it with the share and the reason, for a line of its own.
pub fn line(job: &JobView) -> String {
    let mut parts = vec![standing(job)];
    parts.extend(figures(job));
    parts.extend(job.forecast.as_ref().and_then(forecast::short));
    let mut line = parts.join(", ");
    let shows_share = job.progress.is_some() || held_in_first_pass(job).is_some();
    if shows_share && job.stage != "cut-over" {
        line = format!("{:>3} % {line}", pass_percent(job));
    }
    match &job.detail {
        Some(detail) => format!("{line}: {detail}"),
        None => line,
    }
}

/// What is in the copy of a first pass that is held, where anything is.
pub fn held_in_first_pass(job: &JobView) -> Option<u64> {
    let is_held = job.progress.is_none() && !has_first_pass(job);
    let bytes = job.first_pass_bytes.filter(|_| is_held)?;
    (bytes > 0 && job.length > 0).then_some(bytes)
}

fn standing(job: &JobView) -> String {
    if job.step.is_empty() || job.step == job.stage {
        job.stage.clone()
    } else {
        format!("{} ({})", job.stage, job.step)
    }
}

fn figures(job: &JobView) -> Vec<String> {
    let live = job.progress.as_ref().filter(|_| job.stage != "cut-over");
    let Some(live) = live else {
        if let Some(bytes) = held_in_first_pass(job) {
            let (done, total) = (size(bytes), size(job.length));
            return vec!["pass 1".into(), format!("{done} of {total} in the copy")];
        }
        let last = job.passes.last();
        return last.map_or_else(Vec::new, |pass| {
            let sent = size(pass.bytes_sent);
            vec![format!("pass {} done", pass.pass), format!("{sent} sent")]
        });
    };
    let mut parts = vec![format!("pass {}", live.pass)];
    let left = live.total_bytes.saturating_sub(live.done_bytes);
    let speed = speed_of(job);
    parts.extend(speed.map(Speed::words));
    parts.extend(holds(job));
    if let Some(speed) = speed
        && let Some(eta) = eta(left, speed.disk_bytes).filter(|_| left > 0)
    {
        parts.push(format!("{eta} left"));
    }
    let (done, total) = (size(live.done_bytes), size(live.total_bytes));
    parts.push(format!("{done} of {total}"));
    parts.push(format!("{} sent", size(live.sent_bytes)));
    parts
}
