//! Hooks of a migration, as the API and the plan file show and take them.

use crdt::Hook;
use crdt::plan::hook::DEFAULT_HOOK_SECS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A hook as people plan it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedHook {
    /// When, e.g. `before-replication`.
    pub point: String,
    /// Name of the script in the host's folder of hooks.
    pub name: String,
    /// Where: `source` or `provisioner`.
    #[serde(default = "source")]
    pub on: String,
    /// After so long it is ended, and has failed.
    #[serde(default = "usual_secs")]
    pub timeout_secs: u32,
    /// What a failure means: `stop` or `continue`; what is usual at the point otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<String>,
    /// Variables for it, of names that begin with `HOOK_`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

impl From<&Hook> for PlannedHook {
    fn from(hook: &Hook) -> Self {
        Self {
            point: hook.point.to_string(),
            name: hook.name.clone(),
            on: hook.on.to_string(),
            timeout_secs: hook.timeout_secs,
            on_failure: Some(hook.on_failure.to_string()),
            env: hook.env.iter().cloned().collect(),
        }
    }
}

/// Takes away a hook.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HookRemove {
    /// Its number in the order of the plan, from 1.
    pub number: usize,
}

fn source() -> String {
    "source".to_owned()
}

fn usual_secs() -> u32 {
    DEFAULT_HOOK_SECS
}
