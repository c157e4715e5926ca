//! Which conflicts of the plan people were told of: each is told once when it arises
//! and once when it is settled. Which value holds is the same on every node, because it
//! is read from the same document (`schema`).

use crate::plan::{Conflict, EntryId, MigrationPlan, Plan};
use std::collections::BTreeMap;

/// Fields whose conflicts decide what happens; of the others the plan shows them.
const TOLD: [&str; 5] = ["desired", "hooks", "limit", "pool", "provisioner"];

/// What became of a field that operators set apart from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart {
    /// The migration or limit.
    pub entry: EntryId,
    /// Name of the field.
    pub field: String,
    /// Its values, as text; empty once it is settled.
    pub values: Vec<String>,
    /// The value that holds, as text.
    pub holds: String,
}

impl Apart {
    /// Why that value holds, as a clause.
    pub fn why(&self) -> &'static str {
        why(&self.field)
    }
}

/// Why one of several values of a field holds, as a clause.
pub fn why(field: &str) -> &'static str {
    match field {
        "desired" => "a stop beats a go, and the harder stop the softer",
        "limit" => {
            "the edit that came after more others holds, and of two after as many that of the greater key; where that one cannot be read here, the slowest that can"
        }
        _ => {
            "the edit that came after more others holds, and of two after as many that of the greater key"
        }
    }
}

/// The conflicts that are known.
#[derive(Debug, Clone, Default)]
pub struct Conflicts {
    open: BTreeMap<(EntryId, String), Vec<String>>,
}

impl Conflicts {
    /// Those of a plan that people were told of before.
    pub fn known(plan: &Plan) -> Self {
        let mut conflicts = Self::default();
        conflicts.look(plan);
        conflicts
    }

    /// What is new since the last look: conflicts that arose or changed, and those that
    /// were settled.
    pub fn look(&mut self, plan: &Plan) -> Vec<Apart> {
        let mut open = BTreeMap::new();
        for (entry, conflict) in all(plan) {
            if TOLD.contains(&conflict.field.as_str()) {
                let key = (entry, conflict.field.clone());
                open.insert(key, conflict.values.clone());
            }
        }
        let before = std::mem::replace(&mut self.open, open);
        let arisen = self
            .open
            .iter()
            .filter(|(key, values)| before.get(*key) != Some(*values));
        let settled = before.keys().filter(|key| !self.open.contains_key(*key));
        let arisen = arisen.map(|(key, values)| (key, values.clone()));
        let news = arisen.chain(settled.map(|key| (key, Vec::new())));
        news.filter_map(|((entry, field), values)| {
            let holds = match entry {
                EntryId::Migration(id) => plan.migrations.get(id)?.text_of(field)?,
                EntryId::Limit(of) => match plan.limits.get(of) {
                    Some(set) => set.limit.to_string(),
                    None => "none".to_owned(),
                },
                EntryId::Server(_) => return None,
            };
            Some(Apart {
                entry: entry.clone(),
                field: field.clone(),
                values,
                holds,
            })
        })
        .collect()
    }
}

/// Conflicts that are open, of migrations and limits.
pub fn all(plan: &Plan) -> impl Iterator<Item = (EntryId, &Conflict)> {
    let migrations = plan.migrations.values().flat_map(|plan| {
        let conflicts = plan.conflicts.iter();
        conflicts.map(|conflict| (EntryId::Migration(plan.id), conflict))
    });
    let limits = plan.limits.values().flat_map(|set| {
        let conflicts = set.conflicts.iter();
        conflicts.map(|conflict| (EntryId::Limit(set.of.clone()), conflict))
    });
    migrations.chain(limits)
}

impl MigrationPlan {
    /// The value of a field that holds, as conflicts show it.
    pub fn text_of(&self, field: &str) -> Option<String> {
        Some(match field {
            "desired" => self.desired.to_string(),
            "pool" => crate::schema::pool_text(&self.replicators),
            "provisioner" => self.provisioner.to_string(),
            "hooks" => crate::plan::hook::hooks_text(&self.hooks),
            "name" => self.name.clone(),
            "site" => self.site.clone()?,
            _ => return None,
        })
    }
}
