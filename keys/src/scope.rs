//! The sites to which an operator is limited.
//!
//! Not here: what falls outside and what becomes of it (`authority`).

use crate::statement::{Name, Role, Roles};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most sites that a scope names.
pub const MAX_SITES: usize = 16;

/// Where an operator's word counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// At every site, and for nodes that are at none.
    #[default]
    Everywhere,
    /// For nodes at these sites only.
    Sites(Vec<Name>),
}

impl Scope {
    /// Whether a node at `site` is inside.
    pub fn has(&self, site: Option<&Name>) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Sites(sites) => site.is_some_and(|site| sites.contains(site)),
        }
    }

    /// Whether it is within its limits, and that of somebody who may have one.
    pub(crate) fn fits(&self, roles: Roles) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Sites(sites) => {
                roles.has(Role::Operator)
                    && (1..=MAX_SITES).contains(&sites.len())
                    && sites.iter().all(Name::sound)
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere => f.write_str("everywhere"),
            Self::Sites(sites) => {
                let names: Vec<&str> = sites.iter().map(Name::as_str).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}
