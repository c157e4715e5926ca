//! `dunlin guard thaw`: a person lets go of disks that were left frozen, or were to stay so.
//!
//! A guard that runs does it. Where none does, this process does it itself, from the notes
//! that the guard left.

use std::io;
use std::path::Path;

use keys::MigrationId;
use serde::{Deserialize, Serialize};
use volumes::freeze::{CannotThaw, LeftBehind};

use super::left::{finished, left_in};
use super::{client, freezer, notes_of};
use crate::api::model::ErrorKind;
use crate::cli::outcome::CommandError;
use crate::stillness::{Freezer, NotStill, Stillness};

/// What `dunlin guard thaw` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Of which migration.
    pub migration: String,
    /// They were to stay frozen: the copy may have been launched.
    pub was_kept: bool,
}

/// Lets the disks of a migration go: that whose id begins so, or the only one of which
/// something is frozen. What is kept only with `yes`.
///
/// # Errors
/// Where nothing is frozen, it is not allowed or not confirmed, or fails.
pub fn let_go(socket: &Path, migration: Option<&str>, yes: bool) -> Result<Released, CommandError> {
    let migration = choose(socket, migration)?;
    let was_kept = match client::connect(socket).map_err(|error| error.kind()) {
        Err(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            by_itself(socket, migration, yes)?
        }
        _ => by_guard(&freezer(socket.to_owned()), migration, yes)?,
    };
    let migration = migration.to_string();
    Ok(Released {
        migration,
        was_kept,
    })
}

fn choose(socket: &Path, begins: Option<&str>) -> Result<MigrationId, CommandError> {
    let folder = notes_of(socket);
    let shown = folder.display();
    let noted = left_in(&folder).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => as_root(),
        _ => CommandError::failed(format!("cannot look in {shown} what is frozen: {error}")),
    })?;
    let begins = begins.unwrap_or_default().to_ascii_lowercase();
    let is_meant = |migration: &&MigrationId| migration.to_string().starts_with(&begins);
    let meant: Vec<&MigrationId> = noted.iter().filter(is_meant).collect();
    match meant[..] {
        [migration] => Ok(*migration),
        [] => {
            let of = match begins.is_empty() {
                true => String::new(),
                false => format!(" for a migration whose id begins with `{begins}`"),
            };
            let text = format!(
                "no disks are noted in {shown} as frozen{of}; `fsfreeze -u FOLDER` thaws what somebody else has frozen"
            );
            Err(CommandError::new(ErrorKind::NotFound, text))
        }
        _ => {
            let ids: Vec<String> = meant.iter().map(ToString::to_string).collect();
            let text = format!(
                "disks of several migrations are frozen: name one of {}",
                ids.join(", ")
            );
            Err(CommandError::usage(text))
        }
    }
}

fn by_guard(guard: &dyn Freezer, migration: MigrationId, yes: bool) -> Result<bool, CommandError> {
    let is_kept = guard.stillness(migration).map_err(failed)? == Stillness::Kept;
    if is_kept && !yes {
        return Err(not_confirmed(migration));
    }
    // One that is kept only now is not let go.
    let thawed = match is_kept {
        true => guard.release(migration),
        false => guard.thaw(migration),
    };
    thawed.map_err(failed)?;
    Ok(is_kept)
}

fn by_itself(socket: &Path, migration: MigrationId, yes: bool) -> Result<bool, CommandError> {
    if !rustix::process::geteuid().is_root() {
        return Err(as_root());
    }
    let noted = notes_of(socket).join(migration.to_string());
    let cannot = |error: CannotThaw| CommandError::failed(error.to_string());
    let Some(left) = LeftBehind::find(&noted).map_err(cannot)? else {
        return Ok(false);
    };
    let is_kept = left.is_kept();
    if is_kept && !yes {
        return Err(not_confirmed(migration));
    }
    finished(migration, left.thaw().map_err(cannot)?).map_err(failed)?;
    Ok(is_kept)
}

fn as_root() -> CommandError {
    let text = "thawing takes the rights of root: run `dunlin guard thaw` as root";
    CommandError::new(ErrorKind::NotAuthorised, text)
}

fn not_confirmed(migration: MigrationId) -> CommandError {
    CommandError::refused(format!(
        "the disks of migration {migration} stay frozen because they were cut over, and the copy may run by now: if both run, there are two servers, and neither has what the other writes. Make sure that the copy does not run and will not be started, then run `dunlin guard thaw {migration} --yes`; what is written from then on reaches no copy of this migration"
    ))
}

fn failed(error: NotStill) -> CommandError {
    match error {
        NotStill::NoGuard { why } => CommandError::new(ErrorKind::NotRunning, why),
        NotStill::Refused { .. } => CommandError::refused(error.to_string()),
        NotStill::Lost { .. } => CommandError::failed(error.to_string()),
    }
}
