//! How far a volume is, in figures and in words.
//!
//! Not here: bars and tables.

use crate::api::model::{JobView, MigrationView};
use crate::cli::figures::{eta, percent, rate, size};

use super::forecast;

/// How much of the pass under way is done; all of it between passes, nothing before
/// the first.
pub fn pass_percent(job: &JobView) -> u8 {
    match &job.progress {
        Some(live) if job.stage != "cut-over" => percent(live.done_bytes, live.total_bytes),
        _ if has_first_pass(job) => 100,
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
    let done = view.volumes.iter().map(|job| match &job.progress {
        _ if has_first_pass(job) => job.length,
        Some(live) => live.done_bytes.min(job.length),
        None => 0,
    });
    Some(percent(
        done.fold(0, u64::saturating_add),
        total.fold(0, u64::saturating_add),
    ))
}

/// Source bytes that all volumes deal with in a second; none when nothing moves.
pub fn total_rate(view: &MigrationView) -> Option<u64> {
    let rates = view.volumes.iter().filter_map(rate_of);
    let sum = rates.fold(0, u64::saturating_add);
    (sum > 0).then_some(sum)
}

/// Source bytes that a volume deals with in a second; none when it does not move. The
/// last figures of a pass that was interrupted are still there, and no longer true.
pub fn rate_of(job: &JobView) -> Option<u64> {
    let held = matches!(
        job.stage.as_str(),
        "enrolled" | "paused" | "stalled" | "failed" | "cut-over" | "unknown"
    );
    let live = job.progress.as_ref().filter(|_| !held)?;
    (live.bytes_per_sec > 0).then_some(live.bytes_per_sec)
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
    if job.progress.is_some() && job.stage != "cut-over" {
        line = format!("{:>3} % {line}", pass_percent(job));
    }
    match &job.detail {
        Some(detail) => format!("{line}: {detail}"),
        None => line,
    }
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
        let last = job.passes.last();
        return last.map_or_else(Vec::new, |pass| {
            let sent = size(pass.bytes_sent);
            vec![format!("pass {} done", pass.pass), format!("{sent} sent")]
        });
    };
    let mut parts = vec![format!("pass {}", live.pass)];
    let left = live.total_bytes.saturating_sub(live.done_bytes);
    if let Some(bytes_per_sec) = rate_of(job) {
        parts.push(rate(bytes_per_sec));
        if let Some(eta) = eta(left, bytes_per_sec).filter(|_| left > 0) {
            parts.push(format!("{eta} left"));
        }
    }
    let (done, total) = (size(live.done_bytes), size(live.total_bytes));
    parts.push(format!("{done} of {total}"));
    parts.push(format!("{} sent", size(live.sent_bytes)));
    parts
}
