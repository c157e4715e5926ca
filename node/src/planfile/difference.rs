//! Which edits make a plan what a file says.

use super::{Fault, PlanFile};
use crate::api::model::{PlanEdit, PlanView, PlannedMigration, PlannedServer};
use std::collections::HashMap;

/// What a file asks for beyond what the plan says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// The edits, in the order of the file; deletions last.
    pub edits: Vec<PlanEdit>,
    /// Servers that were exported and are not in the file any more.
    pub left_out: Vec<PlannedServer>,
    /// Migrations likewise; they are only ever deleted by `migration delete`.
    pub migrations_left_out: usize,
}

/// Compares a file with the plan it was exported from (`base`) and the plan as it is.
pub fn difference(
    file: &PlanFile,
    base: &PlanView,
    current: &PlanView,
) -> Result<Difference, Fault> {
    let mut difference = Difference::default();
    servers(file, base, current, &mut difference)?;
    migrations(file, base, current, &mut difference)?;
    Ok(difference)
}

/// Entries by id, and by name where only one has it.
struct Entries<'a, T> {
    by_id: HashMap<&'a str, &'a T>,
    by_name: HashMap<&'a str, Option<&'a T>>,
}

trait Entry {
    const KIND: &'static str;
    fn id(&self) -> Option<&str>;
    fn name(&self) -> &str;
}

impl Entry for PlannedServer {
    const KIND: &'static str = "server";
    fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Entry for PlannedMigration {
    const KIND: &'static str = "migration";
    fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl<'a, T: Entry> Entries<'a, T> {
    fn of(entries: &'a [T]) -> Self {
        let mut found = Self {
            by_id: HashMap::new(),
            by_name: HashMap::new(),
        };
        for entry in entries {
            found.by_id.extend(entry.id().map(|id| (id, entry)));
            let named = found.by_name.entry(entry.name());
            named.and_modify(|one| *one = None).or_insert(Some(entry));
        }
        found
    }

    /// The entry that a line of the file means: by id, or by name where it has none, so
    /// that what was applied once is found again.
    fn meant(&self, line: usize, written: &T) -> Result<Option<&'a T>, Fault> {
        match written.id() {
            Some(id) => Ok(self.by_id.get(id).copied()),
            None => match self.by_name.get(written.name()) {
                None => Ok(None),
                Some(Some(entry)) => Ok(Some(entry)),
                Some(None) => Err(Fault {
                    line,
                    why: format!(
                        "several {}s of the plan are named `{}`: give the id of the one that is meant",
                        T::KIND,
                        written.name()
                    ),
                }),
            },
        }
    }
}

/// No entry is written twice: which of the two would count?
fn written_once<T: Entry>(entries: &[(usize, T)]) -> Result<(), Fault> {
    let mut ids = HashMap::new();
    let mut names = HashMap::new();
    for (line, entry) in entries {
        let before = match entry.id() {
            Some(id) => ids.insert(id, line),
            None => names.insert(entry.name(), line),
        };
        if let Some(before) = before {
            let (line, kind) = (*line, T::KIND);
            let why = format!("this {kind} is in line {before} already: leave one of them");
            return Err(Fault { line, why });
        }
    }
    Ok(())
}

fn servers(
    file: &PlanFile,
    base: &PlanView,
    current: &PlanView,
    difference: &mut Difference,
) -> Result<(), Fault> {
    written_once(&file.servers)?;
    let (before, now) = (Entries::of(&base.servers), Entries::of(&current.servers));
    let mut kept = HashMap::new();
    for (line, written) in &file.servers {
        sound(*line, written)?;
        let exported = before.meant(*line, written)?;
        let held = match exported.and_then(|exported| exported.id.as_deref()) {
            Some(id) => now.by_id.get(id).copied(),
            None => now.meant(*line, written)?,
        };
        let known = exported.or(held);
        kept.extend(
            known
                .and_then(|known| known.id.as_deref())
                .map(|id| (id, ())),
        );
        match (exported, held) {
            (Some(exported), Some(held)) => {
                let merged = merged(written, exported, held);
                if merged != *held {
                    difference.edits.push(PlanEdit::ChangeServer(merged));
                }
            }
            // Written by hand, or planned by somebody else since the export.
            (None, Some(held)) => {
                let changed = with_id(written, held);
                if changed != *held {
                    difference.edits.push(PlanEdit::ChangeServer(changed));
                }
            }
            // Deleted by somebody since; it comes back only if it was edited here.
            (Some(exported), None) => {
                let changed = with_id(written, exported);
                if changed != *exported {
                    difference.edits.push(PlanEdit::CreateServer(changed));
                }
            }
            (None, None) => difference
                .edits
                .push(PlanEdit::CreateServer(written.clone())),
        }
    }
    let gone = |server: &&PlannedServer| {
        let id = server.id.as_deref().unwrap_or_default();
        !kept.contains_key(id) && now.by_id.contains_key(id)
    };
    difference.left_out = base.servers.iter().filter(gone).cloned().collect();
    Ok(())
}

/// What is held, with what was edited in the file.
fn merged(
    written: &PlannedServer,
    exported: &PlannedServer,
    held: &PlannedServer,
) -> PlannedServer {
    fn pick<T: PartialEq + Clone>(written: &T, exported: &T, held: &T) -> T {
        if written == exported { held } else { written }.clone()
    }
    PlannedServer {
        id: held.id.clone(),
        name: pick(&written.name, &exported.name, &held.name),
        site: pick(&written.site, &exported.site, &held.site),
        address: pick(&written.address, &exported.address, &held.address),
        wave: pick(&written.wave, &exported.wave, &held.wave),
        note: pick(&written.note, &exported.note, &held.note),
    }
}

fn with_id(written: &PlannedServer, of: &PlannedServer) -> PlannedServer {
    PlannedServer {
        id: of.id.clone(),
        ..written.clone()
    }
}

/// The document's own limits, so that a wrong line is named before anything is applied.
fn sound(line: usize, written: &PlannedServer) -> Result<(), Fault> {
    let id = written.id.as_deref().map(str::parse).transpose();
    let id = id.map_err(|error: keys::id::BadId| Fault {
        line,
        why: error.to_string(),
    })?;
    let server = crdt::ServerPlan {
        id: id.unwrap_or(keys::ServerId([0; 16])),
        name: written.name.clone(),
        site: written.site.clone(),
        address: written.address.clone(),
        wave: written.wave.clone(),
        note: written.note.clone(),
        planned_by: keys::PublicKey([0; 32]),
        conflicts: vec![],
    };
    server.unsound().map_or(Ok(()), |field| {
        let why = format!(
            "the {field} of server `{}` is empty, too long or unprintable",
            written.name
        );
        Err(Fault { line, why })
    })
}

fn migrations(
    file: &PlanFile,
    base: &PlanView,
    current: &PlanView,
    difference: &mut Difference,
) -> Result<(), Fault> {
    written_once(&file.migrations)?;
    let (before, now) = (
        Entries::of(&base.migrations),
        Entries::of(&current.migrations),
    );
    let mut kept = 0;
    for (line, written) in &file.migrations {
        let exported = before.meant(*line, written)?;
        let held = match exported.and_then(|exported| exported.id.as_deref()) {
            Some(id) => now.by_id.get(id).copied(),
            None => now.meant(*line, written)?,
        };
        kept += usize::from(exported.is_some());
        let Some(held) = held else {
            if written.id.is_some() {
                let why = format!(
                    "there is no migration {} any more: leave out its id to create it again",
                    written.id.as_deref().unwrap_or_default()
                );
                return Err(Fault { line: *line, why });
            }
            difference
                .edits
                .push(PlanEdit::CreateMigration(written.clone()));
            continue;
        };
        let exported = exported.unwrap_or(held);
        let mut changed = held.clone();
        if written.name != exported.name {
            changed.name.clone_from(&written.name);
        }
        if written.replicators != exported.replicators && !written.replicators.is_empty() {
            changed.replicators.clone_from(&written.replicators);
        }
        fixed(*line, written, exported)?;
        if changed != *held {
            difference.edits.push(PlanEdit::ChangeMigration(changed));
        }
    }
    difference.migrations_left_out = base.migrations.len().saturating_sub(kept);
    Ok(())
}

/// What a migration is of and to does not change; a field left out says nothing.
fn fixed(
    line: usize,
    written: &PlannedMigration,
    exported: &PlannedMigration,
) -> Result<(), Fault> {
    let same = [
        ("server", written.server == exported.server),
        ("to", written.to == exported.to),
        (
            "site",
            written.site.is_none() || written.site == exported.site,
        ),
        (
            "provisioner",
            written.provisioner.is_none() || written.provisioner == exported.provisioner,
        ),
        (
            "disks",
            written.disks.is_empty() || written.disks == exported.disks,
        ),
    ];
    match same.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((field, _)) => Err(Fault {
            line,
            why: format!(
                "the {field} of migration `{}` cannot be changed: name and replicators can; for the rest create another migration",
                exported.name
            ),
        }),
    }
}
