//! Which conflicts of the plan people were told of: each is told once when it arises
//! and once when it is settled. Which value holds is the same on every node, because it
//! is read from the same document (`schema`).

use crate::plan::{MigrationPlan, Plan};
use keys::MigrationId;
use std::collections::BTreeMap;

/// Fields whose conflicts decide what happens; of the others the plan shows them.
const TOLD: [&str; 3] = ["desired", "pool", "provisioner"];

/// What became of a field that operators set apart from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart {
    /// The migration.
    pub migration: MigrationId,
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
        _ => {
            "the edit that came after more others holds, and of two after as many that of the greater key"
        }
    }
}

/// The conflicts that are known.
#[derive(Debug, Clone, Default)]
pub struct Conflicts {
    open: BTreeMap<(MigrationId, String), Vec<String>>,
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
        for migration in plan.migrations.values() {
            for conflict in &migration.conflicts {
                if TOLD.contains(&conflict.field.as_str()) {
                    let key = (migration.id, conflict.field.clone());
                    open.insert(key, conflict.values.clone());
                }
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
        news.filter_map(|((migration, field), values)| {
            let holds = plan.migrations.get(migration)?.text_of(field)?;
            Some(Apart {
                migration: *migration,
                field: field.clone(),
                values,
                holds,
            })
        })
        .collect()
    }
}

impl MigrationPlan {
    /// The value of a field that holds, as conflicts show it.
    pub fn text_of(&self, field: &str) -> Option<String> {
        Some(match field {
            "desired" => self.desired.to_string(),
            "pool" => crate::schema::pool_text(&self.replicators),
            "provisioner" => self.provisioner.to_string(),
            "name" => self.name.clone(),
            "site" => self.site.clone()?,
            _ => return None,
        })
    }
}
