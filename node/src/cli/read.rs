//! Commands that look at the mesh and print what they see.
//!
//! Not here: who answers (`reader`) and how it looks (`render`).

use crate::api::model::{ErrorKind, EventQuery, MigrationView, VerifyView};

use super::outcome::CommandError;
use super::plan;
use super::reader::Reader;
use super::render;
use super::screen::Screen;
use super::task::{Events, Read};

/// Asks, prints the answer, and fails where the answer is a failure: roots that differ
/// or are not there, or a copy that is not.
pub async fn run(
    read: Read,
    reader: &impl Reader,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    match read {
        Read::Status => screen.result(&reader.status().await?, render::status::page),
        Read::Invites => screen.result(&reader.invites().await?, |all, look| {
            render::invites::list(all, look)
        }),
        Read::Nodes => screen.result(&reader.nodes().await?, |all, look| {
            render::nodes::list(all, look)
        }),
        Read::Node(which) => screen.result(&reader.node(&which).await?, render::nodes::page),
        Read::Servers => screen.result(&reader.servers().await?, |all, look| {
            render::servers::list(all, look)
        }),
        Read::Server(which) => screen.result(&reader.server(&which).await?, render::servers::page),
        Read::Volumes => screen.result(&reader.volumes().await?, |all, look| {
            render::servers::disks(all, look)
        }),
        Read::Limits => screen.result(&reader.limits().await?, |all, look| {
            render::limits::list(all, look)
        }),
        Read::Migrations => screen.result(&reader.migrations().await?, |all, look| {
            render::migrations::list(all, look)
        }),
        Read::Migration(which) => {
            screen.result(&reader.migration(&which).await?, render::migrations::page)
        }
        Read::Hooks(which) => {
            let view = reader.migration(&which).await?;
            screen.result(&view.hooks, render::hooks::list)
        }
        Read::Checkpoints(which) => {
            let view = reader.migration(&which).await?;
            screen.result(&view.checkpoints, |all, look| {
                render::checkpoints::list(all, look)
            })
        }
        Read::Verify(which) => verify(&which, reader, screen).await,
        Read::Plan { file, force } => plan::export(&file, force, reader, screen).await,
        Read::Events(events) => {
            let query = query(&events, screen.now_secs());
            let all = reader.events(&query).await?;
            screen.result(&all, |all, look| render::events::list(all, look))
        }
    }
}

/// The query of the API for what was asked at the command line.
pub fn query(events: &Events, now_secs: u64) -> EventQuery {
    EventQuery {
        migration: events.migration.clone(),
        since: events.since.map(|since| since.resolve(now_secs)),
        after: None,
    }
}

async fn verify(
    which: &str,
    reader: &impl Reader,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let view = reader.verify(which).await?;
    screen.result(&view, render::verify::page)?;
    let Some(kind) = verdict(&view) else {
        return in_place(which, &view);
    };
    // The stage makes the message better; the verdict stands without it.
    let migration = reader.migration(which).await.ok();
    Err(unverified(which, &view, kind, migration.as_ref()))
}

/// The kind of failure; none when every volume is proven. Two roots that are there and
/// not equal weigh more than one that is missing.
fn verdict(view: &VerifyView) -> Option<ErrorKind> {
    let both = |v: &&crate::api::model::VolumeProof| v.source.is_some() && v.target.is_some();
    let differs = view.volumes.iter().filter(both).any(|volume| !volume.equal);
    let open = view.volumes.is_empty() || view.volumes.iter().any(|volume| !volume.equal);
    match (differs, open) {
        (true, _) => Some(ErrorKind::Failed),
        (false, true) => Some(ErrorKind::Refused),
        (false, false) => (!view.verified).then_some(ErrorKind::Failed),
    }
}

/// Equal roots say what the copy was when they were signed. Whether there still is one is
/// what people ask next.
fn in_place(which: &str, view: &VerifyView) -> Result<(), CommandError> {
    let mut volumes = view.volumes.iter();
    let Some((volume, why)) = volumes.find_map(|it| Some((it, it.volume_problem.as_ref()?))) else {
        return Ok(());
    };
    Err(CommandError::refused(format!(
        "migration `{which}` (volume {}): both ends signed the same root, but the copy is not in order now: {why}; where it was moved on purpose, prove it there with the b3sum command",
        volume.name
    )))
}

fn unverified(
    which: &str,
    view: &VerifyView,
    kind: ErrorKind,
    migration: Option<&MigrationView>,
) -> CommandError {
    let text = if kind == ErrorKind::Refused {
        let stage = migration.map_or("not yet cut over", |migration| &migration.stage);
        let next = if migration.is_some_and(|m| m.desired.starts_with("cutover")) {
            format!("wait for the cutover: `dunlin migration watch {which}`")
        } else {
            format!(
                "both ends sign their roots at the cutover: `dunlin migration cutover {which} --wait`"
            )
        };
        format!("migration `{which}` cannot be verified, its stage is `{stage}`; {next}")
    } else {
        let wrong = view.volumes.iter().filter(|volume| !volume.equal);
        let names: Vec<&str> = wrong.map(|volume| volume.name.as_str()).collect();
        let on = match names.as_slice() {
            [] => String::new(),
            names => format!(" (volume {})", names.join(", ")),
        };
        format!(
            "migration `{which}`{on}: the copy is not proven to be the source; do not use it, and see `dunlin migration log {which}`"
        )
    };
    CommandError::new(kind, text)
}
