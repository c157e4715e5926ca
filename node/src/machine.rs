//! Which machine a data folder was made on, by what is not on its disk: so that a disk
//! that was copied with the folder on it does not start as the same node elsewhere.
//!
//! The id itself is not stored, only a keyed hash of it. It is no secret and no proof:
//! it stands against mistakes, such as starting the copy of a migrated server. Where a
//! machine shows no id of its own (most containers) nothing is bound, and a copy is
//! noticed once both run, by what they sign.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

const FILE: &str = "machine.json";
const CONTEXT: &str = "dunlin 2026-11 machine fingerprint v1";

/// Ids that makers left in place on many machines.
const DUMMIES: [&str; 3] = [
    "03000200-0400-0500-0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "fefefefe-fefe-fefe-fefe-fefefefefefe",
];

/// Where an id was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The machine's UUID in its firmware tables; root alone can read it.
    DmiProductUuid,
    /// The cloud's instance id in the firmware tables.
    CloudInstanceId,
    /// The hypervisor's UUID of the machine.
    HypervisorUuid,
}

const SOURCES: [Source; 3] = [
    Source::DmiProductUuid,
    Source::CloudInstanceId,
    Source::HypervisorUuid,
];

impl Source {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::DmiProductUuid => "its DMI product UUID",
            Self::CloudInstanceId => "its cloud instance id",
            Self::HypervisorUuid => "the UUID that its hypervisor gives it",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::DmiProductUuid => "class/dmi/id/product_uuid",
            Self::CloudInstanceId => "class/dmi/id/board_asset_tag",
            Self::HypervisorUuid => "hypervisor/uuid",
        }
    }

    fn accepts(self, id: &str) -> bool {
        match self {
            Self::CloudInstanceId => id
                .strip_prefix("i-")
                .is_some_and(|rest| rest.len() >= 8 && rest.bytes().all(|c| c.is_ascii_hexdigit())),
            Self::DmiProductUuid | Self::HypervisorUuid => is_uuid(id) && !is_dummy(id),
        }
    }
}

fn is_uuid(id: &str) -> bool {
    id.len() == 36
        && id.bytes().enumerate().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == b'-',
            _ => c.is_ascii_hexdigit(),
        })
}

/// One digit all over, or what a maker forgot to change.
fn is_dummy(id: &str) -> bool {
    let mut digits = id.bytes().filter(|c| *c != b'-');
    let first = digits.next();
    digits.all(|c| Some(c) == first) || DUMMIES.contains(&id)
}

/// What a data folder is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Where the id was found; none where the machine shows none.
    pub source: Option<Source>,
    fingerprint: Option<String>,
}

impl Binding {
    /// For people: what binds the folder, as a clause.
    pub fn text(&self) -> String {
        match self.source {
            Some(source) => format!("bound to this machine by {}", source.name()),
            None => "not bound to a machine: this one shows no id of its own".to_owned(),
        }
    }
}

/// Why a node does not start in a data folder: exit status 6.
#[derive(Debug, thiserror::Error)]
pub enum Elsewhere {
    /// The machine is another.
    #[error(
        "data folder {} was made on another machine ({} differs): if this server was moved or cloned, the other one may still run with the same key, and both would be stopped. If the other one is gone for good, start this one with `dunlin run --moved`; if not, remove the folder and join anew with an invite", path.display(), by.name()
    )]
    Differs {
        /// The folder.
        path: PathBuf,
        /// What differs.
        by: Source,
    },
    /// It cannot be told.
    #[error(
        "data folder {} was bound to a machine by {}, which cannot be read here: run the node as the user that made the folder (root can read it). If this is another machine and the one before is gone for good, start with `dunlin run --moved`; if it may still run, remove the folder and join anew with an invite", path.display(), by.name()
    )]
    Hidden {
        /// The folder.
        path: PathBuf,
        /// What cannot be read.
        by: Source,
    },
    /// The note of it is gone.
    #[error(
        "data folder {} does not say which machine it was made on ({FILE} is missing or damaged): if it is a copy, the original may still run with the same key. If not, start with `dunlin run --moved`", path.display()
    )]
    Unknown {
        /// The folder.
        path: PathBuf,
    },
}

/// Where the kernel shows what the machine is. Another place can be named for tests:
/// who sets a node's environment could as well start it with `--moved`.
pub fn sys() -> PathBuf {
    std::env::var_os("DUNLIN_SYS_ROOT").map_or_else(|| PathBuf::from("/sys"), PathBuf::from)
}

/// The id that this machine shows, as it is stored.
fn look(sys: &Path, source: Source) -> Option<Binding> {
    let id = fs::read_to_string(sys.join(source.path())).ok()?;
    let id = id.trim().to_ascii_lowercase();
    source.accepts(&id).then(|| {
        let fingerprint = blake3::derive_key(CONTEXT, format!("{source:?} {id}").as_bytes());
        Binding {
            source: Some(source),
            fingerprint: Some(hex::encode(fingerprint)),
        }
    })
}

/// Binds a data folder to this machine.
pub fn bind(folder: &Path, sys: &Path) -> std::io::Result<Binding> {
    let found = SOURCES.into_iter().find_map(|source| look(sys, source));
    let binding = found.unwrap_or(Binding {
        source: None,
        fingerprint: None,
    });
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(&binding)?)?;
    file.as_file().sync_all()?;
    file.persist(folder.join(FILE))?;
    fs::File::open(folder)?.sync_all()?;
    Ok(binding)
}

/// What a data folder is bound to, as it says.
pub fn bound(folder: &Path) -> Option<Binding> {
    let text = fs::read(folder.join(FILE)).ok()?;
    let binding: Binding = serde_json::from_slice(&text).ok()?;
    (binding.source.is_some() == binding.fingerprint.is_some()).then_some(binding)
}

/// Whether this is the machine that a data folder was made on. A folder that was not
/// bound, because its machine showed no id, is not refused.
pub fn check(folder: &Path, sys: &Path) -> Result<Binding, Elsewhere> {
    let path = folder.to_path_buf();
    let Some(binding) = bound(folder) else {
        return Err(Elsewhere::Unknown { path });
    };
    let Some(source) = binding.source else {
        return Ok(binding);
    };
    match look(sys, source) {
        Some(here) if here == binding => Ok(binding),
        Some(_) => Err(Elsewhere::Differs { path, by: source }),
        None => Err(Elsewhere::Hidden { path, by: source }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tempfile::TempDir;

    /// A /sys in which some ids can be read.
    fn machine(ids: &[(Source, &str)]) -> TempDir {
        let sys = tempfile::tempdir().unwrap();
        for (source, id) in ids {
            let path = sys.path().join(source.path());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{id}\n")).unwrap();
        }
        sys
    }

    const ONE: &str = "4C4C4544-0042-3510-8052-B4C04F564433";
    const OTHER: &str = "4c4c4544-0042-3510-8052-b4c04f564434";

    #[test]
    fn a_folder_starts_on_the_machine_that_it_was_bound_to_and_on_no_other() {
        use Source::*;
        for (source, id, other) in [
            (DmiProductUuid, ONE, OTHER),
            (
                CloudInstanceId,
                "i-0abc1234def567890",
                "i-0abc1234def567891",
            ),
            (HypervisorUuid, ONE, OTHER),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let here = machine(&[(source, id)]);
            let binding = bind(folder.path(), here.path()).unwrap();
            assert_eq!(binding.source, Some(source));
            assert_eq!(check(folder.path(), here.path()).unwrap(), binding);
            let there = machine(&[(source, other)]);
            let refused = check(folder.path(), there.path()).unwrap_err();
            assert!(matches!(refused, Elsewhere::Differs { by: named, .. } if named == source));
            let blind = machine(&[]);
            let refused = check(folder.path(), blind.path()).unwrap_err();
            assert!(matches!(refused, Elsewhere::Hidden { .. }));
            let stored = fs::read_to_string(folder.path().join(FILE)).unwrap();
            assert!(!stored.to_lowercase().contains(&id.to_lowercase()));
            // As a person says so.
            bind(folder.path(), there.path()).unwrap();
            assert!(check(folder.path(), there.path()).is_ok());
        }
    }

    #[test]
    fn an_id_that_many_machines_share_binds_to_nothing() {
        for id in [
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "03000200-0400-0500-0006-000700080009",
            "To be filled by O.E.M.",
            "",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let sys = machine(&[
                (Source::DmiProductUuid, id),
                (Source::CloudInstanceId, "none"),
            ]);
            assert_eq!(bind(folder.path(), sys.path()).unwrap().source, None);
            let anywhere = machine(&[(Source::DmiProductUuid, ONE)]);
            assert!(check(folder.path(), anywhere.path()).is_ok());
        }
    }

    #[test]
    fn a_folder_that_does_not_say_where_it_was_made_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let sys = machine(&[]);
        let refused = |folder: &Path| {
            let refused = check(folder, sys.path()).unwrap_err();
            matches!(refused, Elsewhere::Unknown { .. })
        };
        assert!(refused(folder.path()));
        for text in ["{", "{\"source\":\"hypervisor-uuid\",\"fingerprint\":null}"] {
            fs::write(folder.path().join(FILE), text).unwrap();
            assert!(refused(folder.path()));
        }
    }
}
