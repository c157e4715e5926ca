//! The mesh at a glance.
//!
//! Not here: the details, which `node show`, `migration show` and `events` have.

use crate::api::model::StatusView;
use crate::cli::figures::{age, short_id};
use crate::cli::page::{Look, Page, Paint, Piece};

use super::{migrations, plural};

/// Node, mesh, connections, migrations, and what is wrong.
pub fn page(status: &StatusView, look: &Look) -> String {
    let mut page = Page::new(look);
    let node = &status.node;
    let site = node.site.as_ref().map(|site| format!(", site {site}"));
    let who = format!(
        "{} ({}): {}{}",
        node.name,
        short_id(&node.id),
        node.roles.join(", "),
        site.unwrap_or_default()
    );
    page.labelled([
        ("node", Some(who.into())),
        ("state", Some(running(status))),
        ("machine", Some((&status.machine).into())),
        ("mesh", Some(mesh(status).into())),
        ("links", links(status)),
        ("listening", super::listed(&status.listening)),
    ]);
    page.heading("migrations");
    if status.migrations.is_empty() {
        page.line("none; see `dunlin server list`, then `dunlin migration create --server SERVER --to PROVIDER`");
    } else {
        page.table(migrations::table(&status.migrations));
        for migration in &status.migrations {
            migrations::held(migration, &mut page);
            waits(migration, &mut page);
        }
    }
    if !status.warnings.is_empty() {
        page.heading("warnings");
        for event in &status.warnings {
            let at = age(&event.at, look.now_secs);
            let bad = event.level == "error";
            page.pieces([
                format!("{at}, {}: ", event.node).into(),
                Piece::new(&event.text, if bad { Paint::Bad } else { Paint::Warn }),
            ]);
        }
        page.line("more with `dunlin events`");
    }
    page.finish()
}

fn running(status: &StatusView) -> Piece {
    if !status.running {
        return Piece::new(
            "not running, this is what is stored; start it with `dunlin run`",
            Paint::Warn,
        );
    }
    let in_order = status.may_write && status.node.said_revoked.is_none();
    let paint = if status.node.state == "active" && in_order {
        Paint::Good
    } else {
        Paint::Warn
    };
    let waits = match (&status.node.said_revoked, status.may_write) {
        (Some(by), _) => format!(
            "; but {by} says that it was revoked: ask an operator, and if so join again in a new folder"
        ),
        (None, true) => String::new(),
        (None, false) => "; changes nothing before it has heard from a peer".to_owned(),
    };
    let text = format!(
        "running, version {}, enrolment {}{waits}",
        status.version, status.node.state
    );
    Piece::new(text, paint)
}

fn mesh(status: &StatusView) -> String {
    format!(
        "{} ({}), {}",
        status.mesh_name,
        short_id(&status.mesh),
        plural(status.nodes, "node", "nodes")
    )
}

fn links(status: &StatusView) -> Option<Piece> {
    if !status.running {
        return None;
    }
    // One that does not count itself is not among those that do.
    let counts = status.node.state == "active";
    let others = status.nodes.saturating_sub(usize::from(counts));
    if others == 0 {
        return Some(
            "no other node yet; invite one with `dunlin invite create --role ROLE`".into(),
        );
    }
    let text = format!("{} of {others} others connected", status.connected);
    let paint = if status.connected == 0 {
        Paint::Warn
    } else {
        Paint::Plain
    };
    Some(Piece::new(text, paint))
}

fn waits(migration: &crate::api::model::MigrationView, page: &mut Page) {
    for job in &migration.volumes {
        let held = matches!(job.stage.as_str(), "stalled" | "failed" | "unknown");
        if let Some(why) = job.detail.as_ref().filter(|_| held) {
            page.pieces([
                format!("{}/{} {}: ", migration.name, job.name, job.stage).into(),
                Piece::new(why, Paint::Warn),
            ]);
        }
    }
    for conflict in &migration.conflicts {
        page.pieces([
            format!("{}: ", migration.name).into(),
            Piece::new(conflict, Paint::Warn),
        ]);
    }
}
