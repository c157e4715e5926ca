//! Sources and their disks.
//!
//! Not here: how far their copies are (`migrations`).

use crate::api::model::{PlannedServer, ServerView, VolumeView};
use crate::cli::figures::{age, short_id, size};
use crate::cli::page::{Look, Page, Table};

use super::{UNKNOWN, connection, inventory, limits, or_unknown, plural};

/// All sources.
pub fn list(servers: &[ServerView], look: &Look) -> String {
    let mut page = Page::new(look);
    if servers.is_empty() {
        page.line(
            "no sources; make an agent with `dunlin invite create --role agent` and `dunlin join -` on the server to move",
        );
        return page.finish();
    }
    let mut table = Table::new([
        "ID", "~NAME", "~HOST", "~SYSTEM", ">CPUS", ">MEMORY", ">DISKS", ">BYTES", "LINK",
    ]);
    for server in servers {
        if let (Some(planned), None) = (&server.planned, &server.reported_at) {
            table.row([
                short_id(&server.id).into(),
                (&server.name).into(),
                or_unknown(planned.address.as_deref()),
                format!("planned, {}", whereabouts(planned)).into(),
                UNKNOWN.into(),
                UNKNOWN.into(),
                UNKNOWN.into(),
                UNKNOWN.into(),
                "planned".into(),
            ]);
            continue;
        }
        let bytes = server.disks.iter().map(|disk| disk.length);
        table.row([
            short_id(&server.id).into(),
            (&server.name).into(),
            (&server.hostname).into(),
            (&server.os).into(),
            server.cpus.to_string().into(),
            size(server.memory_bytes).into(),
            server.disks.len().to_string().into(),
            size(bytes.fold(0, u64::saturating_add)).into(),
            connection(server.connected, false),
        ]);
    }
    page.table(table);
    page.finish()
}

/// Site and wave.
fn whereabouts(planned: &PlannedServer) -> String {
    let wave = planned.wave.as_ref().map(|wave| format!(", wave {wave}"));
    format!("site {}{}", planned.site, wave.unwrap_or_default())
}

/// One source with its disks.
pub fn page(server: &ServerView, look: &Look) -> String {
    let planned = server.planned.as_ref();
    let whereabouts = planned.map(|planned| whereabouts(planned).into());
    let address = planned.and_then(|planned| planned.address.as_ref());
    let note = planned.and_then(|planned| planned.note.as_ref());
    let Some(reported_at) = &server.reported_at else {
        let mut page = Page::new(look);
        page.labelled([
            ("name", Some((&server.name).into())),
            ("id", Some((&server.id).into())),
            ("planned", whereabouts),
            ("address", address.map(Into::into)),
            ("note", note.map(Into::into)),
            ("limit", limits::line(&server.limits)),
        ]);
        page.space().line(
            "no agent of this name has reported; make one with `dunlin invite create --role agent --name NAME` and `dunlin join -` on the server",
        );
        return page.finish();
    };
    let report = format!("{reported_at} ({})", age(reported_at, look.now_secs));
    let hardware = format!(
        "{}, {} of memory",
        plural(server.cpus as usize, "processor", "processors"),
        size(server.memory_bytes)
    );
    let mut page = Page::new(look);
    page.labelled([
        ("name", Some((&server.name).into())),
        ("id", Some((&server.id).into())),
        ("host", Some((&server.hostname).into())),
        ("system", Some((&server.os).into())),
        ("kernel", Some((&server.kernel).into())),
        ("machine", Some((&server.machine).into())),
        ("hardware", Some(hardware.into())),
        (
            "firmware",
            server.inventory.as_ref().and_then(inventory::firmware),
        ),
        (
            "time zone",
            server.inventory.as_ref().and_then(inventory::clock),
        ),
        ("link", Some(connection(server.connected, false))),
        ("report", Some(report.into())),
        ("planned", whereabouts),
        ("address", address.map(Into::into)),
        ("note", note.map(Into::into)),
        ("limit", limits::line(&server.limits)),
        ("its word", limits::warning(server.limit_warning.as_deref())),
    ]);
    page.heading("disks");
    if server.disks.is_empty() {
        page.line("none is offered; on that server run `dunlin volume add PATH`");
    } else {
        page.table(table(&server.disks, false));
        for disk in &server.disks {
            if let Some(changes) = &disk.changes {
                page.line(format!("changes of {}: {changes}", disk.name));
            }
        }
    }
    if let Some(found) = &server.inventory {
        inventory::sections(found, &mut page);
    }
    inventory::readiness(server, &mut page);
    page.finish()
}

/// Source disks, of one agent or of all.
pub fn disks(disks: &[VolumeView], look: &Look) -> String {
    let mut page = Page::new(look);
    if disks.is_empty() {
        page.line("this node offers no disks; `dunlin server list` shows those of others, `dunlin volume add PATH` on an agent offers one");
    } else {
        page.table(table(disks, true));
    }
    page.finish()
}

fn table(disks: &[VolumeView], with_server: bool) -> Table {
    let mut table = if with_server {
        Table::new(["ID", "~NAME", ">SIZE", "KIND", "~MODEL", "~SERVER", "~PATH"])
    } else {
        Table::new(["ID", "~NAME", ">SIZE", "KIND", "~MODEL", "~PATH"])
    };
    for disk in disks {
        let id = short_id(&disk.id).into();
        let name = (&disk.name).into();
        let size = size(disk.length).into();
        let kind = (&disk.kind).into();
        let model = or_unknown(disk.model.as_deref());
        let path = (&disk.path).into();
        if with_server {
            let server = (&disk.server).into();
            table.row([id, name, size, kind, model, server, path]);
        } else {
            table.row([id, name, size, kind, model, path]);
        }
    }
    table
}
