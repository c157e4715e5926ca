//! Nodes of the mesh.
//!
//! Not here: what a node offers as a source (`servers`).

use crate::api::model::{NodeRevoked, NodeView, RevokedView};
use crate::cli::figures::{age, short_id};
use crate::cli::page::{Look, Page, Paint, Piece, Table};

use super::{connection, listed, or_unknown, plural};

fn state(state: &str) -> Piece {
    let paint = match state {
        "active" => Paint::Good,
        "cloned" | "contested" | "key-contested" => Paint::Bad,
        _ => Paint::Warn,
    };
    Piece::new(state, paint)
}

/// All nodes.
pub fn list(nodes: &[NodeView], look: &Look) -> String {
    let mut page = Page::new(look);
    if nodes.is_empty() {
        page.line("no nodes; make a mesh with `dunlin mesh init` or join one with `dunlin join -`");
        return page.finish();
    }
    let mut table = Table::new(["ID", "~NAME", "ROLES", "~SITE", "STATE", "LINK", "REPORT"]);
    for node in nodes {
        let report = node.reported_at.as_deref().map(|at| age(at, look.now_secs));
        table.row([
            short_id(&node.id).into(),
            (&node.name).into(),
            node.roles.join(",").into(),
            or_unknown(node.site.as_deref()),
            state(&node.state),
            connection(node.connected, node.this_node),
            or_unknown(report.as_deref()),
        ]);
    }
    page.table(table);
    if nodes.len() == 1 {
        page.space()
            .line("invite others with `dunlin invite create --role agent` (or replicator, provisioner, operator)");
    }
    page.finish()
}

/// One node.
pub fn page(node: &NodeView, look: &Look) -> String {
    let ago = |at: &str| -> Piece { format!("{at} ({})", age(at, look.now_secs)).into() };
    let mut page = Page::new(look);
    let reason = node.revoked.as_ref().map(|it| it.reason.as_str());
    let reason = reason.filter(|reason| !reason.is_empty());
    let mut values = vec![
        ("name", Some((&node.name).into())),
        ("id", Some((&node.id).into())),
        ("roles", listed(&node.roles)),
        ("site", node.site.as_ref().map(Into::into)),
        ("scope", node.scope.as_ref().map(Into::into)),
        ("state", Some(state(&node.state))),
        (
            "revoked",
            node.revoked.as_ref().map(|it| revocation(it).into()),
        ),
        ("reason", reason.map(Into::into)),
        ("link", Some(connection(node.connected, node.this_node))),
        ("enrolled", Some(ago(&node.enrolled_at))),
        ("ends", node.ends_at.as_ref().map(Into::into)),
        ("report", node.reported_at.as_deref().map(ago)),
        ("host", node.hostname.as_ref().map(Into::into)),
        ("version", node.version.as_ref().map(Into::into)),
        ("providers", listed(&node.providers)),
        ("key", Some((&node.key).into())),
        ("peer id", Some((&node.peer_id).into())),
    ];
    let addresses = node.addresses.iter();
    values.extend(addresses.map(|address| ("address", Some(address.into()))));
    page.labelled(values);
    page.finish()
}

fn revocation(it: &RevokedView) -> String {
    format!("by {}, {}", it.by, it.at)
}

/// What expelling a node came to, or would come to.
pub fn revoked(done: &NodeRevoked, look: &Look) -> String {
    let mut page = Page::new(look);
    let (now, counts, gone) = match done.dry_run {
        false => ("revoked", "counts", "no longer counts:"),
        true => (
            "would be revoked; nothing was changed",
            "would count",
            "would no longer count:",
        ),
    };
    page.line(format!("node {} {now}", done.name));
    if let (Some(statements), Some(edits)) = (done.honoured_statements, done.honoured_edits) {
        page.line(format!(
            "its word {counts} through statement {statements} and edit {edits}"
        ));
    }
    let lapsed = &done.lapsed;
    let named = |what: &str, names: &[String]| format!("  {what}: {}", names.join(", "));
    let mut lines = vec![];
    if !lapsed.nodes.is_empty() {
        lines.push(named("nodes", &lapsed.nodes));
    }
    if !lapsed.invites.is_empty() {
        let ids: Vec<String> = lapsed.invites.iter().map(|id| short_id(id)).collect();
        lines.push(named("open invites", &ids));
    }
    if !lapsed.grants.is_empty() {
        let count = plural(lapsed.grants.len(), "grant", "grants");
        lines.push(named(&format!("{count}, of migrations"), &lapsed.granted));
    }
    if lapsed.edits > 0 {
        lines.push(format!("  {} of its edits of the plan", lapsed.edits));
    }
    if !lapsed.migrations.is_empty() {
        let what = "edits of migrations, which are as they were before or gone";
        lines.push(named(what, &lapsed.migrations));
    }
    if !lapsed.servers.is_empty() {
        let what = "edits of planned servers, which are as they were before or gone";
        lines.push(named(what, &lapsed.servers));
    }
    if !lapsed.limits.is_empty() {
        let what = "limits, which are as they were before or gone";
        lines.push(named(what, &lapsed.limits));
    }
    if !lines.is_empty() {
        page.line(gone);
        lines.into_iter().for_each(|line| {
            page.line(line);
        });
    }
    page.finish()
}
