//! `dunlin plan`: the plan to a file, and back.
//!
//! Not here: the file's form and what it changes (`planfile`).

use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::api::client::Client;
use crate::api::model::{LimitOf, PlanEdit, PlanView, PlannedServer};
use crate::planfile::{self, Difference, MAX_BYTES, Names};

use super::PlanApply;
use super::outcome::CommandError;
use super::page::clean;
use super::reader::Reader;
use super::screen::Screen;

/// Bytes of one change, of which a change of the document may have 64 KiB.
const CHANGE_BYTES: usize = 52 * 1024;
/// What one entry takes beside its texts.
const ENTRY_BYTES: usize = 110;
/// Entries of one change: a server is up to six operations of at most 4,096.
const CHANGE_ENTRIES: usize = 500;
/// Changes that are named one by one before they are only counted.
const MOST_NAMED: usize = 50;

/// Writes the plan. A file that is there is replaced only by `force`.
pub async fn export(
    file: &Path,
    force: bool,
    reader: &impl Reader,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let plan = reader.plan().await?;
    let text = planfile::render(&plan)
        .map_err(|error| CommandError::failed(format!("the plan cannot be written: {error}")))?;
    if file == Path::new("-") {
        return screen.result(&plan, |_, _| text.clone());
    }
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let write = || -> std::io::Result<()> {
        let mut draft = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
        draft.write_all(text.as_bytes())?;
        if force {
            draft.persist(file)?;
        } else {
            draft.persist_noclobber(file)?;
        }
        Ok(())
    };
    write().map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => CommandError::refused(format!(
            "{} is there already and may hold edits: apply it first, give another file, or replace it with --force",
            file.display()
        )),
        _ => CommandError::failed(format!("{} cannot be written: {error}", file.display())),
    })?;
    screen.note(format!(
        "{} servers, {} limits and {} migrations written to {}",
        plan.servers.len(),
        plan.limits.len(),
        plan.migrations.len(),
        file.display()
    ));
    Ok(())
}

/// What applying a file came to.
#[derive(Debug, Serialize)]
struct Applied {
    /// Whether it was carried out.
    applied: bool,
    created: usize,
    changed: usize,
    deleted: usize,
    /// Servers that are not in the file and stay.
    kept: usize,
    /// Limits likewise.
    limits_kept: usize,
    edits: Vec<PlanEdit>,
}

/// Makes the plan what a file says.
pub async fn apply(
    args: &PlanApply,
    client: &Client,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let client = &client.patient();
    let shown = args.file.display().to_string();
    let file = planfile::parse(&read(&args.file)?)
        .map_err(|fault| CommandError::usage(format!("{shown}, {fault}")))?;
    if args.delete && file.base.is_empty() {
        return Err(CommandError::usage(format!(
            "{shown} has no `base`, so nothing in the plan was left out of it: export the plan, take out what is to go, and apply that with --delete"
        )));
    }
    let current: PlanView = client.get("/v1/plan").await?;
    let base: PlanView = if file.base.is_empty() || file.base == current.base {
        current.clone()
    } else {
        client.post("/v1/plan/at", &file.base).await?
    };
    let names = Names::of(&client.nodes().await?, &client.servers().await?);
    let difference = planfile::difference(&file, &base, &current, &names)
        .map_err(|fault| CommandError::usage(format!("{shown}, {fault}")))?;
    let Difference {
        mut edits,
        left_out,
        limits_left_out,
        migrations_left_out,
    } = difference;
    let (mut kept, mut limits_kept) = (left_out.len(), limits_left_out.len());
    if args.delete {
        edits.extend(left_out.into_iter().map(PlanEdit::DeleteServer));
        edits.extend(limits_left_out.into_iter().map(PlanEdit::RemoveLimit));
        (kept, limits_kept) = (0, 0);
    }
    let _: Value = client.post("/v1/plan/check", &edits).await?;
    if !args.dry_run {
        carry_out(&edits, client, screen).await?;
    }
    if kept > 0 {
        screen.warn(format!(
            "{kept} servers were exported and are not in {shown}: they stay; give --delete to delete them"
        ));
    }
    if limits_kept > 0 {
        screen.warn(format!(
            "{limits_kept} limits were exported and are not in {shown}: they stay; give --delete to remove them"
        ));
    }
    if migrations_left_out > 0 {
        screen.warn(format!(
            "{migrations_left_out} migrations are not in {shown}: they stay; `dunlin migration delete ID` deletes one"
        ));
    }
    screen.result(
        &outcome(!args.dry_run, (kept, limits_kept), edits),
        |applied, _| page(applied),
    )
}

fn read(file: &Path) -> Result<String, CommandError> {
    let unreadable = |error: std::io::Error| {
        CommandError::usage(format!("{} cannot be read: {error}", file.display()))
    };
    let mut text = String::new();
    let most = MAX_BYTES as u64 + 1;
    if file == Path::new("-") {
        std::io::stdin().take(most).read_to_string(&mut text)
    } else {
        let opened = std::fs::File::open(file).map_err(unreadable)?;
        opened.take(most).read_to_string(&mut text)
    }
    .map_err(unreadable)?;
    if text.len() > MAX_BYTES {
        return Err(CommandError::usage(format!(
            "{} is larger than the {MAX_BYTES} bytes that are read: apply it in parts",
            file.display()
        )));
    }
    Ok(text)
}

/// Carries the edits out, as many in one change as fit.
async fn carry_out(
    edits: &[PlanEdit],
    client: &Client,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let mut done = 0;
    while done < edits.len() {
        let count = fitting(&edits[done..]);
        let batch = &edits[done..done + count];
        let _: Value = client
            .post("/v1/plan/edits", &batch)
            .await
            .map_err(|error| {
                let error = CommandError::from(error);
                let kind = error.kind().unwrap_or(crate::api::model::ErrorKind::Failed);
                let text = format!(
                    "{error}; {done} of {} edits were made, apply the file again for the rest",
                    edits.len()
                );
                CommandError::new(kind, text)
            })?;
        done += count;
        if edits.len() > CHANGE_ENTRIES {
            screen.note(format!("{done} of {} edits made", edits.len()));
        }
    }
    Ok(())
}

/// How many of `edits` fit into one change; at least one.
fn fitting(edits: &[PlanEdit]) -> usize {
    let mut bytes = 0;
    let fitting = edits.iter().take(CHANGE_ENTRIES).take_while(|edit| {
        bytes += size(edit);
        bytes <= CHANGE_BYTES
    });
    fitting.count().max(1)
}

fn size(edit: &PlanEdit) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    match edit {
        PlanEdit::CreateServer(server)
        | PlanEdit::ChangeServer(server)
        | PlanEdit::DeleteServer(server) => {
            let PlannedServer {
                name,
                site,
                address,
                wave,
                note,
                ..
            } = server;
            ENTRY_BYTES + name.len() + site.len() + text(address) + text(wave) + text(note)
        }
        PlanEdit::SetLimit(limit) => {
            ENTRY_BYTES
                + text(&limit.server)
                + text(&limit.site)
                + limit.timetable.len()
                + limit.zone.len()
        }
        PlanEdit::RemoveLimit(of) => ENTRY_BYTES + text(&of.server) + text(&of.site),
        // A migration may name hundreds of disks: each is a change of its own.
        PlanEdit::CreateMigration(_) | PlanEdit::ChangeMigration(_) => CHANGE_BYTES,
    }
}

fn outcome(applied: bool, (kept, limits_kept): (usize, usize), edits: Vec<PlanEdit>) -> Applied {
    let count = |wanted: fn(&PlanEdit) -> bool| edits.iter().filter(|edit| wanted(edit)).count();
    Applied {
        applied,
        created: count(|edit| {
            matches!(
                edit,
                PlanEdit::CreateServer(_) | PlanEdit::CreateMigration(_)
            )
        }),
        changed: count(|edit| {
            matches!(
                edit,
                PlanEdit::ChangeServer(_) | PlanEdit::ChangeMigration(_) | PlanEdit::SetLimit(_)
            )
        }),
        deleted: count(|edit| matches!(edit, PlanEdit::DeleteServer(_) | PlanEdit::RemoveLimit(_))),
        kept,
        limits_kept,
        edits,
    }
}

fn page(applied: &Applied) -> String {
    let mut page = String::new();
    for edit in applied.edits.iter().take(MOST_NAMED) {
        let of = match edit {
            PlanEdit::SetLimit(limit) => limit.of(),
            PlanEdit::RemoveLimit(of) => of.clone(),
            _ => LimitOf::default(),
        };
        let limited = of.server.or(of.site).unwrap_or_default();
        let (sign, kind, name) = match edit {
            PlanEdit::CreateServer(server) => ('+', "server", &server.name),
            PlanEdit::ChangeServer(server) => ('~', "server", &server.name),
            PlanEdit::DeleteServer(server) => ('-', "server", &server.name),
            PlanEdit::SetLimit(_) => ('~', "limit of", &limited),
            PlanEdit::RemoveLimit(_) => ('-', "limit of", &limited),
            PlanEdit::CreateMigration(migration) => ('+', "migration", &migration.name),
            PlanEdit::ChangeMigration(migration) => ('~', "migration", &migration.name),
        };
        page.push_str(&format!("{sign} {kind} {}\n", clean(name)));
    }
    let more = applied.edits.len().saturating_sub(MOST_NAMED);
    if more > 0 {
        page.push_str(&format!("  and {more} more\n"));
    }
    let verb = if applied.applied { "" } else { "would be " };
    page.push_str(&format!(
        "{} {verb}created, {} {verb}changed, {} {verb}deleted\n",
        applied.created, applied.changed, applied.deleted
    ));
    page
}
