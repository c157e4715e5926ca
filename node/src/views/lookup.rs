//! Finding what a person means: a name, an id, or an unambiguous beginning of an id.
//!
//! Not here: the views themselves.

use crdt::{MigrationPlan, Plan, Reports, ServerPlan, VolumeInfo};
use keys::{Authority, Member, NodeId, Standing};

/// Why nothing, or more than one thing, was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Nothing matches.
    #[error("there is no {kind} `{wanted}`; `{list}` shows what there is")]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// The text given.
        wanted: String,
        /// The command that lists them.
        list: &'static str,
    },
    /// Several match.
    #[error("`{wanted}` could be any of {found}: give one of these ids, or more of it")]
    Ambiguous {
        /// The text given.
        wanted: String,
        /// Those that match.
        found: String,
    },
    /// A server, and nothing runs on it yet.
    #[error(
        "server `{name}` is only planned, and a limit is of an agent that has joined: set it then, or limit its site now with `dunlin limit set --site {site} RATE`, which holds for whoever joins with that site from its first byte"
    )]
    OnlyPlanned {
        /// Its name.
        name: String,
        /// Its site.
        site: String,
    },
    /// This node's own enrolment is not in the ledger.
    #[error("this node is not enrolled in the mesh whose ledger it holds; join again")]
    NotEnrolled,
}

/// Shortest beginning of an id that is looked at.
const MIN_PREFIX: usize = 4;

fn find<'a, T>(
    kind: &'static str,
    list: &'static str,
    wanted: &str,
    items: impl Iterator<Item = (String, &'a str, &'a T)>,
) -> Result<&'a T, LookupError> {
    let items: Vec<_> = items.collect();
    // A name that looks like the beginning of another's id must not stand for it.
    let matches = |(id, name, _): &&(String, &str, &T)| {
        *name == wanted || (wanted.len() >= MIN_PREFIX && id.starts_with(wanted))
    };
    let matching: Vec<_> = items.iter().filter(matches).collect();
    match matching.as_slice() {
        [] => Err(LookupError::NotFound {
            kind,
            wanted: wanted.chars().take(80).collect(),
            list,
        }),
        [(_, _, item)] => Ok(item),
        several => Err(LookupError::Ambiguous {
            wanted: wanted.chars().take(80).collect(),
            found: several
                .iter()
                .map(|(id, name, _)| format!("{name} ({})", &id[..8]))
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

/// A node by name or id. A name that an active node has is not looked up among others.
pub fn find_member<'a>(authority: &'a Authority, wanted: &str) -> Result<&'a Member, LookupError> {
    let items = |active: bool| {
        authority
            .members()
            .filter(move |member| !active || member.standing == Standing::Active)
            .map(|member| (member.id.to_string(), member.name.as_str(), member))
    };
    let list = "dunlin node list";
    match find("node", list, wanted, items(true)) {
        Err(LookupError::NotFound { .. }) => find("node", list, wanted, items(false)),
        found => found,
    }
}

/// A node by name or id that is to be limited. A server that is only planned cannot be:
/// nobody knows which node it will be before it has joined.
pub fn find_limited<'a>(
    authority: &'a Authority,
    plan: &Plan,
    wanted: &str,
) -> Result<&'a Member, LookupError> {
    find_member(authority, wanted).map_err(|error| {
        let planned = find_server(plan, wanted).ok();
        match (error, planned) {
            (LookupError::NotFound { .. }, Some(server)) => LookupError::OnlyPlanned {
                name: server.name.clone(),
                site: server.site.clone(),
            },
            (error, _) => error,
        }
    })
}

/// A migration by name or id, deleted ones only by id.
pub fn find_migration<'a>(plan: &'a Plan, wanted: &str) -> Result<&'a MigrationPlan, LookupError> {
    let list = "dunlin migration list";
    let items = |live: bool| {
        plan.migrations
            .values()
            .filter(move |migration| (migration.desired != crdt::Desired::Deleted) == live)
            .map(|migration| (migration.id.to_string(), migration.name.as_str(), migration))
    };
    match find("migration", list, wanted, items(true)) {
        Err(LookupError::NotFound { .. }) => find("migration", list, wanted, items(false)),
        found => found,
    }
}

/// A planned server by name or id.
pub fn find_server<'a>(plan: &'a Plan, wanted: &str) -> Result<&'a ServerPlan, LookupError> {
    let planned = plan.servers.values();
    let items = planned.map(|server| (server.id.to_string(), server.name.as_str(), server));
    find("server", "dunlin server list", wanted, items)
}

/// A disk of one server by name or id.
pub fn find_volume<'a>(
    reports: &'a Reports,
    server: &NodeId,
    wanted: &str,
) -> Result<&'a VolumeInfo, LookupError> {
    let volumes = reports
        .get(server)
        .map(|report| report.volumes.as_slice())
        .unwrap_or_default();
    let items = volumes
        .iter()
        .map(|volume| (volume.id.to_string(), volume.name.as_str(), volume));
    find("disk", "dunlin server show", wanted, items)
}
