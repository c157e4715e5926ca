//! Which copies at a replicator may be made of each other's content.
//!
//! A source that refers to content instead of sending it learns whether another copy has
//! it. So a copy shares with those of its own migration alone, unless an operator's grant
//! puts it into a group with others.
//!
//! Not here: which copies are in a domain at a moment (`roles::replicator`), and looking
//! for content (`node`).

use crate::id::MigrationId;
use crate::scope::Scope;
use crate::statement::{Grant, Name};

/// Copies of one domain may be made of each other's content. Only authority makes one, of
/// a grant that counts; two grants make the same one where they are for one migration, or
/// name one group and were signed by operators of one scope: each of them could have
/// granted the other's disks as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DedupDomain([u8; 32]);

impl DedupDomain {
    /// That of a grant whose signer has this scope.
    pub(crate) fn of(grant: &Grant, signer: &Scope) -> Self {
        match &grant.dedup_group {
            None => Self::of_migration(&grant.migration),
            Some(group) => Self::of_group(group, signer),
        }
    }

    fn of_migration(migration: &MigrationId) -> Self {
        Self(blake3::derive_key(
            "dunlin 2026 deduplication domain of a migration v1",
            &migration.0,
        ))
    }

    fn of_group(group: &Name, signer: &Scope) -> Self {
        let mut hasher =
            blake3::Hasher::new_derive_key("dunlin 2026 deduplication domain of a group v1");
        // No name has a zero in it.
        let mut word = |text: &str| {
            hasher.update(text.as_bytes());
            hasher.update(&[0]);
        };
        word(group.as_str());
        if let Scope::Sites(sites) = signer {
            let mut sites: Vec<&str> = sites.iter().map(Name::as_str).collect();
            sites.sort_unstable();
            sites.dedup();
            sites.into_iter().for_each(word);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// A key for what is remembered of its content: of no other domain.
    pub fn key(&self) -> &[u8; 32] {
        &self.0
    }
}
