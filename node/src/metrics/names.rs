//! What migrations and volumes are called in labels: by their names, and where two have
//! the same, by the beginning of their ids as well. Two series of one name would make the
//! whole page useless.

use super::Snapshot;
use super::page::Labels;
use crate::api::model::{JobView, MigrationView};
use std::collections::{BTreeMap, BTreeSet};

/// Digits of an id beside a name that two have.
const DIGITS: usize = 8;

/// A volume in a migration, with names for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// The migration's id, in hexadecimal.
    pub migration: String,
    /// Its name.
    pub migration_name: String,
    /// The volume's id.
    pub volume: String,
    /// Its name.
    pub volume_name: String,
    /// Name of the node at the other end, where it is known.
    pub peer: String,
}

/// Names that are unique in one snapshot.
pub(super) struct Names {
    /// How many ids a name of a migration stands for.
    migrations: BTreeMap<String, BTreeSet<String>>,
    /// The same of volumes, within a migration.
    volumes: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Names {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut names = Self {
            migrations: BTreeMap::new(),
            volumes: BTreeMap::new(),
        };
        let here = snapshot.sources.iter().chain(&snapshot.copies);
        for (job, _) in here {
            names.note(job);
        }
        for migration in &snapshot.migrations {
            for volume in &migration.volumes {
                names.note(&job_of(migration, volume));
            }
        }
        names
    }

    fn note(&mut self, job: &Job) {
        let ids = self.migrations.entry(job.migration_name.clone());
        ids.or_default().insert(job.migration.clone());
        let of = (job.migration.clone(), job.volume_name.clone());
        let ids = self.volumes.entry(of).or_default();
        ids.insert(job.volume.clone());
    }

    fn labels(&self, job: &Job) -> Labels {
        let migrations = self.migrations.get(&job.migration_name);
        let of = (job.migration.clone(), job.volume_name.clone());
        let volumes = self.volumes.get(&of);
        vec![
            (
                "migration",
                unique(&job.migration_name, &job.migration, migrations),
            ),
            ("volume", unique(&job.volume_name, &job.volume, volumes)),
        ]
    }

    pub(super) fn of_view(&self, migration: &MigrationView, volume: &JobView) -> Labels {
        self.labels(&job_of(migration, volume))
    }

    pub(super) fn with_peer(&self, job: &Job) -> Labels {
        let mut labels = self.labels(job);
        labels.push(("peer", job.peer.clone()));
        labels
    }
}

fn job_of(migration: &MigrationView, volume: &JobView) -> Job {
    Job {
        migration: migration.id.clone(),
        migration_name: migration.name.clone(),
        volume: volume.volume.clone(),
        volume_name: volume.name.clone(),
        peer: String::new(),
    }
}

fn unique(name: &str, id: &str, ids: Option<&BTreeSet<String>>) -> String {
    match ids.is_some_and(|ids| ids.len() > 1) {
        true => format!("{name} ({})", id.get(..DIGITS).unwrap_or(id)),
        false => name.to_owned(),
    }
}
