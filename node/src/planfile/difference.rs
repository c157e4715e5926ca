//! Which edits make a plan what a file says.

use super::{Fault, Names, PlanFile};
use crate::api::model::{
    LimitOf, PlanEdit, PlanView, PlannedLimit, PlannedMigration, PlannedServer,
};
use crate::hours;
use std::collections::{HashMap, HashSet};

/// What a file asks for beyond what the plan says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// The edits, in the order of the file; deletions last.
    pub edits: Vec<PlanEdit>,
    /// Servers that were exported and are not in the file any more.
    pub left_out: Vec<PlannedServer>,
    /// Limits likewise.
    pub limits_left_out: Vec<LimitOf>,
    /// Migrations likewise; they are only ever deleted by `migration delete`.
    pub migrations_left_out: usize,
}

/// What is compared.
#[derive(Clone, Copy)]
struct Sides<'a> {
    file: &'a PlanFile,
    /// The plan that the file was exported from.
    base: &'a PlanView,
    /// The plan as it is.
    current: &'a PlanView,
    names: &'a Names,
}

/// Compares a file with the plan it was exported from (`base`) and the plan as it is.
/// Of a file without a base nothing can be said to be left out.
pub fn difference(
    file: &PlanFile,
    base: &PlanView,
    current: &PlanView,
    names: &Names,
) -> Result<Difference, Fault> {
    let sides = Sides {
        file,
        base,
        current,
        names,
    };
    let mut difference = Difference::default();
    servers(sides, &mut difference)?;
    limits(sides, &mut difference)?;
    migrations(sides, &mut difference)?;
    if file.base.is_empty() {
        difference.left_out.clear();
        difference.limits_left_out.clear();
        difference.migrations_left_out = 0;
    }
    Ok(difference)
}

/// Entries by id, and by name. What a file writes by id is not meant by a name.
struct Entries<'a, T> {
    by_id: HashMap<&'a str, &'a T>,
    by_name: HashMap<&'a str, Vec<&'a T>>,
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
    fn of(entries: &'a [T], file: &[(usize, T)]) -> Self {
        let mut found = Self {
            by_id: HashMap::new(),
            by_name: HashMap::new(),
        };
        let written: HashSet<&str> = file.iter().filter_map(|(_, entry)| entry.id()).collect();
        for entry in entries {
            found.by_id.extend(entry.id().map(|id| (id, entry)));
            if !entry.id().is_some_and(|id| written.contains(id)) {
                found.by_name.entry(entry.name()).or_default().push(entry);
            }
        }
        found
    }

    /// The entry that a line of the file means: by id, or by name where it has none, so
    /// that what was applied once is found again.
    fn meant(&self, line: usize, written: &T) -> Result<Option<&'a T>, Fault> {
        if let Some(id) = written.id() {
            return Ok(self.by_id.get(id).copied());
        }
        match self.by_name.get(written.name()).map(Vec::as_slice) {
            None | Some([]) => Ok(None),
            Some([entry]) => Ok(Some(entry)),
            Some(_) => Err(Fault {
                line,
                why: format!(
                    "several {}s of the plan are named `{}`: give the id of the one that is meant",
                    T::KIND,
                    written.name()
                ),
            }),
        }
    }

    /// What is held now of what a line means: of an entry that was exported that one, by
    /// its id.
    fn held(&self, line: usize, written: &T, exported: Option<&T>) -> Result<Option<&'a T>, Fault> {
        match exported.and_then(T::id) {
            Some(id) => Ok(self.by_id.get(id).copied()),
            None => self.meant(line, written),
        }
    }
}

/// Which lines of the file speak of which entry: each is written once, or which of the
/// two would count?
#[derive(Default)]
struct Lines<'a> {
    ids: HashMap<&'a str, usize>,
    names: HashMap<&'a str, usize>,
}

impl<'a> Lines<'a> {
    /// Notes that a line speaks of `known`, or of something new.
    fn note<T: Entry>(
        &mut self,
        line: usize,
        written: &'a T,
        known: Option<&'a T>,
    ) -> Result<(), Fault> {
        let id = known.and_then(T::id).or(written.id());
        let before = match id {
            Some(id) => self.ids.insert(id, line),
            None => self.names.insert(written.name(), line),
        };
        before.map_or(Ok(()), |before| {
            let kind = T::KIND;
            let why = format!("this {kind} is in line {before} already: leave one of them");
            Err(Fault { line, why })
        })
    }
}

fn servers(sides: Sides<'_>, difference: &mut Difference) -> Result<(), Fault> {
    let Sides {
        file,
        base,
        current,
        ..
    } = sides;
    let before = Entries::of(&base.servers, &file.servers);
    let now = Entries::of(&current.servers, &file.servers);
    let mut kept = Lines::default();
    for (line, written) in &file.servers {
        sound(*line, written)?;
        let exported = before.meant(*line, written)?;
        let held = now.held(*line, written, exported)?;
        kept.note(*line, written, exported.or(held))?;
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
        !kept.ids.contains_key(id) && now.by_id.contains_key(id)
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

/// Limits are found by whom they are of: there is one of each.
fn limits(sides: Sides<'_>, difference: &mut Difference) -> Result<(), Fault> {
    let names = sides.names;
    let by_whom = |limits: &[PlannedLimit]| -> HashMap<LimitOf, PlannedLimit> {
        let limits = limits.iter();
        limits
            .map(|limit| (whom(limit, names), limit.clone()))
            .collect()
    };
    let (before, now) = (by_whom(&sides.base.limits), by_whom(&sides.current.limits));
    let mut kept: HashMap<LimitOf, usize> = HashMap::new();
    for (line, written) in &sides.file.limits {
        let fault = |why: String| Fault { line: *line, why };
        let written = PlannedLimit {
            timetable: as_shown(&written.timetable).map_err(fault)?,
            ..written.clone()
        };
        // A zone that is not known here may be so where it was set.
        let zone = hours::zone_named(&written.zone);
        let written = PlannedLimit {
            zone: zone.clone().unwrap_or_else(|_| written.zone.clone()),
            ..written
        };
        let of = whom(&written, names);
        if let Some(first) = kept.insert(of.clone(), *line) {
            return Err(fault(format!(
                "this limit is in line {first} already: leave one of them"
            )));
        }
        let same = |limit: Option<&PlannedLimit>| {
            let says =
                |limit: &PlannedLimit| (limit.timetable.clone(), limit.zone.clone(), limit.polite);
            limit.is_some_and(|limit| says(limit) == says(&written))
        };
        // What was not edited here stays as others set it, or removed it, since.
        if !same(before.get(&of)) && !same(now.get(&of)) {
            zone.map_err(|error| fault(error.to_string()))?;
            difference.edits.push(PlanEdit::SetLimit(written));
        }
    }
    let gone = sides.base.limits.iter().filter(|limit| {
        let of = whom(limit, names);
        !kept.contains_key(&of) && now.contains_key(&of)
    });
    difference.limits_left_out = gone.map(PlannedLimit::of).collect();
    Ok(())
}

/// Whom a limit is of, whether a server is written by name or by id.
fn whom(limit: &PlannedLimit, names: &Names) -> LimitOf {
    LimitOf {
        server: limit.server.as_deref().map(|server| names.node(server)),
        site: limit.site.clone(),
    }
}

/// A timetable as it is exported.
fn as_shown(timetable: &str) -> Result<String, String> {
    let read: Result<crdt::Timetable, _> = timetable.parse();
    read.map(|read| read.to_string())
        .map_err(|error| error.to_string())
}

fn migrations(sides: Sides<'_>, difference: &mut Difference) -> Result<(), Fault> {
    let (file, names) = (sides.file, sides.names);
    let before = Entries::of(&sides.base.migrations, &file.migrations);
    let now = Entries::of(&sides.current.migrations, &file.migrations);
    let mut kept = Lines::default();
    let has_base = !file.base.is_empty();
    let mut created = vec![];
    for (line, written) in &file.migrations {
        let exported = before.meant(*line, written)?;
        let held = now.held(*line, written, exported)?;
        kept.note(*line, written, exported.or(held))?;
        match (exported, held) {
            (_, Some(held)) => {
                let exported = exported.unwrap_or(held);
                fixed(*line, written, exported, names)?;
                let changed = altered(written, exported, held, names, has_base);
                difference
                    .edits
                    .extend(changed.map(PlanEdit::ChangeMigration));
            }
            // Deleted by somebody since, and nothing was edited here.
            (Some(exported), None)
                if written.id.is_some()
                    && fixed(*line, written, exported, names).is_ok()
                    && altered(written, exported, exported, names, has_base).is_none() => {}
            (_, None) if written.id.is_some() => {
                let why = format!(
                    "there is no migration {} any more: leave out its id to create it again, or leave out the entry",
                    written.id.as_deref().unwrap_or_default()
                );
                return Err(Fault { line: *line, why });
            }
            (_, None) => created.push(PlanEdit::CreateMigration(written.clone())),
        }
    }
    // A new one may take the name that another gives up.
    difference.edits.extend(created);
    let gone = |migration: &&PlannedMigration| {
        let id = migration.id.as_deref().unwrap_or_default();
        !kept.ids.contains_key(id) && now.by_id.contains_key(id)
    };
    difference.migrations_left_out = sides.base.migrations.iter().filter(gone).count();
    Ok(())
}

/// What is held with the edits of the file, where there are any. Replicators that were
/// left alone are left out: nothing is said of them. The same of hooks, of which a file
/// without a base says nothing where it has none.
fn altered(
    written: &PlannedMigration,
    exported: &PlannedMigration,
    held: &PlannedMigration,
    names: &Names,
    has_base: bool,
) -> Option<PlannedMigration> {
    let pool = |of: &PlannedMigration| -> Vec<String> {
        of.replicators.iter().map(|node| names.node(node)).collect()
    };
    let renamed = written.name != exported.name && written.name != held.name;
    let chosen = !written.replicators.is_empty()
        && pool(written) != pool(exported)
        && pool(written) != pool(held);
    let hooks = |of: &PlannedMigration| of.hooks.clone().unwrap_or_default();
    let rehooked = (has_base || written.hooks.is_some())
        && hooks(written) != hooks(exported)
        && hooks(written) != hooks(held);
    let name = if renamed { written } else { held }.name.clone();
    (renamed || chosen || rehooked).then(|| PlannedMigration {
        name,
        replicators: match chosen {
            true => written.replicators.clone(),
            false => vec![],
        },
        hooks: rehooked.then(|| hooks(written)),
        ..held.clone()
    })
}

/// What a migration is of and to does not change; a field left out says nothing.
fn fixed(
    line: usize,
    written: &PlannedMigration,
    exported: &PlannedMigration,
    names: &Names,
) -> Result<(), Fault> {
    let node = |name: &Option<String>| name.as_deref().map(|name| names.node(name));
    let same = [
        (
            "server",
            names.node(&written.server) == names.node(&exported.server),
        ),
        ("to", written.to == exported.to),
        (
            "site",
            written.site.is_none() || written.site == exported.site,
        ),
        (
            "leave_out",
            written.leave_out.is_none() || written.leave_out == exported.leave_out,
        ),
        (
            "provisioner",
            written.provisioner.is_none()
                || node(&written.provisioner) == node(&exported.provisioner),
        ),
        (
            "disks",
            written.disks.is_empty()
                || written.disks == exported.disks
                || names.same_disks(&exported.server, &written.disks, &exported.disks),
        ),
    ];
    match same.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((field, _)) => Err(Fault {
            line,
            why: format!(
                "the {field} of migration `{}` cannot be changed: name, replicators and hooks can; for the rest create another migration",
                exported.name
            ),
        }),
    }
}
