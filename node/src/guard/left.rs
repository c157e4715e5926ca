//! What guards leave in a folder of notes, one for each migration of which disks are frozen,
//! and what becomes of it: whoever comes next thaws it, unless it is kept.
//!
//! Not here: what is in a note (`volumes::freeze`).

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use keys::MigrationId;
use volumes::freeze::{self, LeftBehind, Number};

use super::stills::refused_for;
use crate::stillness::{NotStill, Thawed, ThawedBy};

/// The folder of notes, for its owner alone.
pub(super) fn make_folder(folder: &Path) -> Result<(), NotStill> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    let is_ours = made.and_then(|()| {
        let found = fs::symlink_metadata(folder)?;
        Ok(found.is_dir() && found.uid() == rustix::process::geteuid().as_raw())
    });
    let shown = folder.display();
    match is_ours {
        Ok(true) => Ok(()),
        Ok(false) => Err(NotStill::refused(format!(
            "{shown} is no folder of the guard's own user: move it away"
        ))),
        Err(error) => Err(NotStill::refused(format!(
            "cannot make the folder {shown}: {error}"
        ))),
    }
}

/// What came of thawing.
///
/// # Errors
/// Where one could not be.
pub(super) fn finished(migration: MigrationId, thawed: freeze::Thawed) -> Result<Thawed, NotStill> {
    let failed = thawed.file_systems.iter().find_map(|one| {
        let error = one.result.as_ref().err()?;
        Some(format!(
            "cannot thaw {} ({error}), which may be frozen still: try `fsfreeze -u {0}`",
            one.at.display()
        ))
    });
    if let Some(failed) = failed {
        let failed = refused_for(migration, &failed);
        tracing::error!(kind = "source-frozen", "{failed}");
        return Err(failed);
    }
    let by = match thawed.is_by_deadline {
        true => ThawedBy::Deadline,
        false => ThawedBy::Asked,
    };
    let count = thawed.file_systems.len();
    let text = format!("{count} file systems of migration {migration} are thawed");
    match by {
        ThawedBy::Deadline => {
            tracing::warn!(kind = "source-thawed", "{text}, by their deadline");
        }
        _ => tracing::info!(kind = "source-thawed", "{text}"),
    }
    let frozen_for = thawed.frozen_for;
    Ok(Thawed { frozen_for, by })
}

/// The migrations of which notes are in a folder.
///
/// # Errors
/// Where it cannot be read.
pub(super) fn left_in(folder: &Path) -> io::Result<Vec<MigrationId>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    let mut found = vec![];
    for entry in entries {
        let name = entry?.file_name();
        let id = name
            .to_str()
            .and_then(|name| name.parse::<MigrationId>().ok());
        found.extend(id);
    }
    found.sort();
    Ok(found)
}

/// What a guard that begins makes of a note that an earlier one left.
pub(super) enum TakenOver {
    /// It stays frozen: these file systems.
    Kept(BTreeSet<Number>),
    /// It is thawed.
    Thawed(Thawed),
}

/// Thaws what an earlier guard left, unless it is kept; none where that is not known, or
/// failed, which is said.
pub(super) fn take_over(migration: MigrationId, folder: &Path) -> Option<TakenOver> {
    let noted = folder.join(migration.to_string());
    let thawed = match LeftBehind::find(&noted) {
        Ok(None) => return None,
        Ok(Some(left)) if left.is_kept() => {
            let text = format!("the disks of migration {migration} stay frozen");
            tracing::warn!(kind = "source-kept", "{text}");
            return Some(TakenOver::Kept(left.devices().collect()));
        }
        Ok(Some(left)) => {
            let text = format!("an earlier guard left disks of migration {migration} frozen");
            tracing::warn!(kind = "source-frozen", "{text}");
            left.thaw()
        }
        Err(error) => Err(error),
    };
    match thawed {
        // It says itself what could not be.
        Ok(thawed) => {
            let done = finished(migration, thawed).ok()?;
            let by = ThawedBy::Guard;
            Some(TakenOver::Thawed(Thawed { by, ..done }))
        }
        Err(error) => {
            tracing::error!(kind = "source-frozen", "migration {migration}: {error}");
            None
        }
    }
}

/// Thaws what is noted; none where nothing is.
///
/// # Errors
/// Where it is kept, unless `kept_too`, or not known.
pub(super) fn thaw_left(noted: &Path, kept_too: bool) -> Result<Option<freeze::Thawed>, String> {
    match LeftBehind::find(noted).map_err(|error| error.to_string())? {
        None => Ok(None),
        Some(left) if left.is_kept() && !kept_too => {
            Err(format!("{} says that it stays frozen", noted.display()))
        }
        Some(left) => left.thaw().map(Some).map_err(|error| error.to_string()),
    }
}
