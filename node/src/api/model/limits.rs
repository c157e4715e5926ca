//! Limits of how fast is sent, as the API shows and takes them.

use serde::{Deserialize, Serialize};

/// A limit as people set it. One of server and site is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedLimit {
    /// The agent, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// A rate, or rates with hours, e.g. `Mon-08:00,20MiB/s Fri-18:00,off`.
    pub timetable: String,
    /// The time zone of the hours, by its name in the IANA database.
    #[serde(default = "utc")]
    pub zone: String,
    /// Whether the agent gives way when the source's own reads and writes slow.
    #[serde(default, skip_serializing_if = "is_false")]
    pub polite: bool,
}

/// Which limit is meant. One of the two is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitOf {
    /// The agent, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
}

impl PlannedLimit {
    /// Whom it is of.
    pub fn of(&self) -> LimitOf {
        LimitOf {
            server: self.server.clone(),
            site: self.site.clone(),
        }
    }
}

/// A limit, and what it says now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitView {
    /// Name of the agent that it is of.
    pub server: Option<String>,
    /// The same agent's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
    /// The state of that agent's node, unless it is `active`: the limit then holds for
    /// nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_state: Option<String>,
    /// The site that it is of.
    pub site: Option<String>,
    /// Which rate holds when.
    pub timetable: String,
    /// The time zone of the hours.
    pub zone: String,
    /// Whether the zone is known to the node that answers: where it is not, the slowest rate
    /// always holds.
    pub zone_is_known: bool,
    /// Whether the agent gives way to the source's own work.
    pub polite: bool,
    /// Whether what was set can be read by the program of the node that answers: where it
    /// cannot, the slowest holds of what was set apart from it, else the least rate.
    pub is_readable: bool,
    /// The rate that holds now, as the timetable has it.
    pub now: String,
    /// The same in bytes a second; none for no limit.
    pub now_bytes_per_sec: Option<u64>,
    /// Until when; none where it always holds.
    pub until: Option<String>,
    /// Of a site: how many of its agents may be sending now, and share it.
    pub shared_by: Option<usize>,
    /// Name of the operator's node that set it.
    pub set_by: String,
    /// What operators set apart from each other.
    pub conflicts: Vec<String>,
}

fn utc() -> String {
    crate::hours::UTC.to_owned()
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for this shape
fn is_false(flag: &bool) -> bool {
    !flag
}
