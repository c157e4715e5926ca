//! Migrations and their volumes.
//!
//! Not here: proofs (`verify`) and live bars (`bars`).

use std::collections::BTreeMap;

use crate::api::model::{ExposureView, JobView, MigrationView};
use crate::cli::awaited::{Goal, Verdict, judge};
use crate::cli::figures::{age, bar, exact, rate, short_id, size, took};
use crate::cli::page::{Look, Page, Paint, Piece, Table};
use crate::cli::task::Verb;

use super::progress::Speed;
use super::{UNKNOWN, checkpoints, forecast, hooks, limits, listed, or_unknown, progress, stage};

/// Cells of a bar in a table.
const BAR_CELLS: usize = 10;

/// All migrations.
pub fn list(migrations: &[MigrationView], look: &Look) -> String {
    let mut page = Page::new(look);
    if migrations.is_empty() {
        page.line(
            "no migrations; see `dunlin server list`, then `dunlin migration create --server SERVER --to PROVIDER`",
        );
        return page.finish();
    }
    page.table(table(migrations));
    for migration in migrations {
        held(migration, &mut page);
    }
    page.finish()
}

/// What the volumes of a migration are held to, a line each.
pub fn held(migration: &MigrationView, page: &mut Page) {
    let mut disks: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for job in &migration.volumes {
        if let Some(what) = progress::held_to(job) {
            disks.entry(what).or_default().push(&job.name);
        }
    }
    for (what, disks) in disks {
        let which = match disks.as_slice() {
            [one] => format!("{}/{one}", migration.name),
            several => format!("{} ({} disks)", migration.name, several.len()),
        };
        page.line(format!("{which} is held to {what}"));
    }
}

/// The table of migrations, as in the list and at a glance.
pub fn table(migrations: &[MigrationView]) -> Table {
    let mut table = Table::new([
        "ID",
        "~NAME",
        "~SERVER",
        "TO",
        "STAGE",
        "FIRST PASS",
        "DISK RATE",
        "WIRE RATE",
        "~NEXT",
    ]);
    for migration in migrations {
        let [disk_rate, wire_rate] = rates(progress::total_speed(migration));
        let first_passes = progress::first_passes_percent(migration);
        let first_passes = first_passes.map(|share| bar(share, BAR_CELLS));
        table.row([
            short_id(&migration.id).into(),
            (&migration.name).into(),
            (&migration.server).into(),
            to(migration).into(),
            stage(&migration.stage),
            or_unknown(first_passes.as_deref()),
            disk_rate,
            wire_rate,
            or_unknown(migration.next.as_deref()),
        ]);
    }
    table
}

/// Of the disk, and on the wire.
fn rates(speed: Option<Speed>) -> [Piece; 2] {
    let disk = speed.map(|speed| rate(speed.disk_bytes));
    let wire = speed.and_then(|speed| speed.sent_bytes).map(rate);
    [or_unknown(disk.as_deref()), or_unknown(wire.as_deref())]
}

fn to(migration: &MigrationView) -> String {
    match &migration.site {
        Some(site) => format!("{}/{site}", migration.to),
        None => migration.to.clone(),
    }
}

/// One migration with its volumes.
pub fn page(migration: &MigrationView, look: &Look) -> String {
    let planned = format!(
        "{} ({})",
        migration.created_at,
        age(&migration.created_at, look.now_secs)
    );
    let mut page = Page::new(look);
    page.labelled([
        ("name", Some((&migration.name).into())),
        ("id", Some((&migration.id).into())),
        ("server", Some((&migration.server).into())),
        ("to", Some(to(migration).into())),
        ("provisioner", Some((&migration.provisioner).into())),
        ("replicators", listed(&migration.replicators)),
        ("wanted", Some((&migration.desired).into())),
        ("stage", Some(stage(&migration.stage))),
        ("planned", Some(planned.into())),
        (
            "exposure",
            migration.exposure.as_ref().map(|it| exposed(it).into()),
        ),
        (
            "dedup group",
            migration.dedup_group.as_ref().map(Into::into),
        ),
        ("leaves out", migration.leave_out.as_ref().map(Into::into)),
        ("limit", limits::line(&migration.limits)),
        ("hooks", hooks::line(&migration.hooks)),
        (
            "checkpoints",
            migration
                .keep_checkpoints
                .map(|keep| format!("the newest {keep} are kept").into()),
        ),
        ("next", migration.next.as_ref().map(Into::into)),
    ]);
    for grant in &migration.standing_grants {
        page.line(format!(
            "grant {} of operator {} stands until {}",
            short_id(&grant.id),
            grant.operator,
            grant.ends_at
        ));
    }
    if !migration.conflicts.is_empty() {
        page.heading("conflicting edits");
        for conflict in &migration.conflicts {
            page.pieces([Piece::new(conflict, Paint::Warn)]);
        }
    }
    page.heading("volumes");
    if migration.volumes.is_empty() {
        page.line("none is known yet; they come with the report of the source's agent");
        return page.finish();
    }
    page.table(volumes(&migration.volumes));
    for job in &migration.volumes {
        about(job, &mut page);
    }
    if !migration.checkpoints.is_empty() {
        page.heading("checkpoints");
        checkpoints::put(&migration.checkpoints, &mut page);
    }
    page.finish()
}

fn volumes(jobs: &[JobView]) -> Table {
    let mut table = Table::new([
        "ID",
        "~NAME",
        ">SIZE",
        "STAGE",
        "~STEP",
        "PASS",
        "DISK RATE",
        "WIRE RATE",
        ">EPOCH",
        ">BARRIER",
        "~REPLICATOR",
    ]);
    for job in jobs {
        let [disk_rate, wire_rate] = rates(progress::speed_of(job));
        table.row([
            short_id(&job.volume).into(),
            (&job.name).into(),
            size(job.length).into(),
            stage(&job.stage),
            (&job.step).into(),
            pass(job).into(),
            disk_rate,
            wire_rate,
            job.epoch.to_string().into(),
            job.barrier.to_string().into(),
            or_unknown(job.replicator.as_deref()),
        ]);
    }
    table
}

fn pass(job: &JobView) -> String {
    let percent = || progress::pass_percent(job);
    match (&job.progress, job.passes.last()) {
        (Some(live), _) => format!("{}: {} %", live.pass, percent()),
        (None, Some(last)) => format!("{}: done", last.pass),
        (None, None) if progress::held_in_first_pass(job).is_some() => {
            format!("1: {} %", percent())
        }
        (None, None) => UNKNOWN.to_owned(),
    }
}

/// What has no place in the table: reason, target, passes.
fn about(job: &JobView, page: &mut Page) {
    let figures = forecast::labelled(job);
    let has_figures = figures.iter().any(|(_, figure)| figure.is_some());
    if job.detail.is_none() && job.target_path.is_none() && job.passes.is_empty() && !has_figures {
        return;
    }
    page.heading(format!("volume {}", job.name));
    let standing = [
        (
            "because",
            job.detail.as_ref().map(|why| Piece::new(why, Paint::Warn)),
        ),
        ("copy at", job.target_path.as_ref().map(Into::into)),
        ("left out", left_out(job.bytes_left_out, job.left_out.len())),
        ("changes", job.changes.as_ref().map(Into::into)),
        ("confirmed", confirmation(job)),
        ("held to", progress::held_to(job).map(Into::into)),
    ];
    page.labelled(standing.into_iter().chain(figures));
    if job.passes.is_empty() {
        return;
    }
    let mut table = Table::new([">PASS", ">BLOCKS", ">SENT", ">TOOK", "COMPARED"]);
    for pass in &job.passes {
        table.row([
            pass.pass.to_string().into(),
            pass.blocks.to_string().into(),
            size(pass.bytes_sent).into(),
            took(pass.millis).into(),
            match pass.tracked {
                true => "what was written".into(),
                false => "whole disk".into(),
            },
        ]);
    }
    page.table(table);
}

/// What the copy has zeros for.
fn left_out(bytes: u64, extents: usize) -> Option<Piece> {
    let many = if extents == 1 { "" } else { "s" };
    let text = format!(
        "{} of swap, in {extents} extent{many}: not sent, zeros in the copy",
        size(bytes)
    );
    (extents > 0).then(|| text.into())
}

/// Whether a node other than the replicator has read the copy back, once it is cut over.
fn confirmation(job: &JobView) -> Option<Piece> {
    if job.stage != "cut-over" {
        return None;
    }
    match (&job.confirmed_by, &job.unconfirmed) {
        (Some(by), _) => {
            let text = format!("by {by}, which read the copy back");
            Some(Piece::new(text, Paint::Good))
        }
        (None, Some(why)) => Some(Piece::new(why, Paint::Warn)),
        (None, None) => None,
    }
}

/// What a verb was answered with.
pub fn told(verb: Verb, migration: &MigrationView, look: &Look) -> String {
    let now = match verb {
        Verb::Start => "is to start",
        Verb::Pause => "is to pause",
        Verb::Resume => "is to go on",
        Verb::Cutover { .. } => "is to be cut over",
        Verb::Delete => "is to be deleted",
    };
    let mut told = line(now, migration, look);
    if verb == Verb::Delete {
        let mut page = Page::new(look);
        for left in left_by_delete(migration) {
            page.line(left);
        }
        told.push_str(&page.finish());
    }
    if verb == Verb::Start {
        let mut page = Page::new(look);
        for line in granted(migration) {
            page.line(line);
        }
        told.push_str(&page.finish());
    }
    told
}

/// What a delete leaves behind: copies that were cut over, and grants of others.
pub fn left_by_delete(migration: &MigrationView) -> Vec<String> {
    let kept = migration.volumes.iter().filter_map(|job| {
        let path = job
            .target_path
            .as_ref()
            .filter(|_| job.stage == "cut-over")?;
        Some(format!(
            "the copy of disk {} was cut over and is kept at {path}, on the machine of {}",
            job.name, migration.provisioner
        ))
    });
    let standing = migration.standing_grants.iter().map(|grant| {
        format!(
            "grant {} of operator {} stays until it ends at {}, and moves nothing for a deleted migration; revoke it with `dunlin migration delete {} --root-key FILE`, or without the root key on the node {}",
            short_id(&grant.id),
            grant.operator,
            grant.ends_at,
            short_id(&migration.id),
            grant.operator,
        )
    });
    kept.chain(standing).collect()
}

/// What the grant of a migration comes with.
pub fn granted(migration: &MigrationView) -> impl Iterator<Item = String> {
    let shared = migration.dedup_group.as_ref().map(|group| {
        format!(
            "blocks that disks of dedup group {group} have at the same replicator are not sent again, so that whoever runs {} can find out whether they have a block it knows",
            migration.server
        )
    });
    migration
        .exposure
        .as_ref()
        .map(exposed)
        .into_iter()
        .chain(shared)
}

/// What a grant exposes, as a sentence.
fn exposed(exposure: &ExposureView) -> String {
    format!(
        "a revocation may go unheard for up to {} by an end that is cut off (lease {}, autonomy {})",
        exact(exposure.exposure_secs),
        exact(exposure.lease_secs),
        exact(exposure.autonomy_secs),
    )
}

/// What was waited for and has come.
pub fn reached(goal: Goal, migration: &MigrationView, look: &Look) -> String {
    let now = match goal {
        Goal::FirstPass => "is replicating, its first pass is complete",
        Goal::Moving => "goes on",
        Goal::Paused => "is paused",
        Goal::CutOver => "is cut over",
        Goal::Deleted => return deleted(migration, look),
    };
    line(now, migration, look)
}

/// How watching has ended.
pub fn over(migration: &MigrationView, look: &Look) -> String {
    if judge(Goal::CutOver, migration) == Verdict::Reached {
        reached(Goal::CutOver, migration, look)
    } else {
        deleted(migration, look)
    }
}

fn line(now: &str, migration: &MigrationView, look: &Look) -> String {
    let mut page = Page::new(look);
    page.pieces([
        format!(
            "migration {} ({}) {now}; stage ",
            migration.name,
            short_id(&migration.id)
        )
        .into(),
        stage(&migration.stage),
    ]);
    page.labelled([("next", migration.next.as_ref().map(Into::into))]);
    page.finish()
}

fn deleted(migration: &MigrationView, look: &Look) -> String {
    let mut page = Page::new(look);
    page.line(format!(
        "migration {} ({}) is deleted",
        migration.name,
        short_id(&migration.id)
    ));
    page.finish()
}
